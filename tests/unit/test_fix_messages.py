"""The codec between our messages and FIX 4.4, and the venue as a function of what it was told; no engine needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdover.adapters.fix.fix_message import (
    SOH,
    FixMessage,
    FixMessageError,
    ParsedMessage,
    format_utc_timestamp,
    parse_utc_timestamp,
)
from holdover.adapters.fix.market_data import (
    BID,
    OFFER,
    VOLUME,
    MarketDataEntry,
    make_market_data,
    parse_market_data,
)
from holdover.adapters.fix.messages import (
    FixCodec,
    decode_business_reject,
)
from holdover.adapters.fix.venue_engine import InboundLog, VenueEngine, VenueStateError, replay_log
from holdover.model import (
    CancelReject,
    ContingencyType,
    ExecRestatementReason,
    ExecType,
    ExecutionReport,
    Instrument,
    MsgType,
    OrdStatus,
    OrdType,
    PositionEffect,
    PositionReport,
    PositionSide,
    Query,
    Request,
    SecurityStatus,
    Side,
    TimeInForce,
)

from ..days import write_short_days

COIN = Instrument(symbol="COIN", lot_size="0.001", tick_size="0.05")
CODEC = FixCodec([COIN])
NOW_NS = 1_732_718_000_123_456_789
DAY = "2024-11-27"


def message_text(wire: FixMessage, **header: str) -> str:
    """The message as an engine would put it on the wire, without what frames it."""
    parts = [f"35={wire.kind}", *(f"{tag[1:]}={value}" for tag, value in header.items())]

    def add(fields: Any) -> None:
        for tag, value in fields:
            if isinstance(value, list):
                parts.append(f"{tag}={len(value)}")
                for entry in value:
                    add(entry)
            else:
                parts.append(f"{tag}={value}")

    add(wire.fields)
    return SOH.join([*parts, ""])


REPORT = ExecutionReport(
    exec_type=ExecType.TRADE,
    ord_status=OrdStatus.PARTIALLY_FILLED,
    cl_ord_id="C1~X.1",
    orig_cl_ord_id="C1",
    exec_id="E7",
    symbol="COIN",
    side=Side.SELL_SHORT,
    order_qty=3,
    cum_qty=2,
    leaves_qty=1,
    notional=3 * 7 + 8,
    last_qty=1,
    last_px=8,
    order_id="O1",
    account="A1",
    ord_type=OrdType.STOP_LIMIT,
    time_in_force=TimeInForce.GTD,
    price=9,
    stop_px=10,
    expire_date="2024-12-24",
    cl_ord_link_id="P-x",
    position_effect=PositionEffect.CLOSE,
    trade_date=DAY,
    order_date="2024-11-26",
    reference_version="2",
    transact_time_ns=NOW_NS,
    list_id="L7",
    contingency_type=ContingencyType.ONE_UPDATES_THE_OTHER_ABSOLUTE,
    position_side=PositionSide.SHORT,
)


@pytest.mark.parametrize(
    "message",
    [
        REPORT,
        ExecutionReport(
            exec_type=ExecType.TRADE_CORRECT,
            ord_status=OrdStatus.NEW,
            cl_ord_id="C1",
            exec_id="E8",
            exec_ref_id="E7",
            exec_ref_date="2024-11-26",
            symbol="COIN",
            order_id="O1",
            trade_date=DAY,
            transact_time_ns=NOW_NS,
        ),
        ExecutionReport(
            exec_type=ExecType.RESTATED,
            ord_status=OrdStatus.NEW,
            cl_ord_id="C1",
            exec_id="E9",
            symbol="COIN",
            exec_restatement_reason=ExecRestatementReason.GT_RENEWAL,
            ord_rej_reason=0,
            text="carried",
            transact_time_ns=NOW_NS,
        ),
        CancelReject(cl_ord_id="C2", orig_cl_ord_id="C1", ord_status=OrdStatus.FILLED, account="A1", order_id="O1"),
        PositionReport(req_id="Q1", account="A1", symbol="COIN", net_qty=-12, last_rpt_requested=True),
        PositionReport(
            req_id="Q1",
            account="A1",
            symbol="COIN",
            net_qty=-12,
            last_rpt_requested=True,
            position_side=PositionSide.SHORT,
        ),
        PositionReport(req_id="Q1", account="A1", symbol="", net_qty=0, last_rpt_requested=True),
        SecurityStatus(symbol="COIN", trading=False, reason="disabled", reference_version="3"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_a_venue_says_comes_back(message: Any) -> None:
    """Every field, exact to the lot, the tick and the nanosecond."""
    assert CODEC.decode_inbound(ParsedMessage(message_text(CODEC.encode_inbound(message)))) == message


@pytest.mark.parametrize("kind", [MsgType.NEW_ORDER_SINGLE, MsgType.ORDER_CANCEL_REPLACE_REQUEST])
def test_what_a_client_sends_comes_back(kind: MsgType) -> None:
    """A request; what is ours alone does not go on the wire."""
    request = Request(
        msg_type=kind,
        cl_ord_id="C2",
        orig_cl_ord_id="" if kind == MsgType.NEW_ORDER_SINGLE else "C1",
        account="A1",
        symbol="COIN",
        side=Side.SELL,
        order_qty=1,
        price=7,
        time_in_force=TimeInForce.IOC,
        cl_ord_link_id="P",
        transact_time_ns=NOW_NS,
        list_id="L7",
        contingency_type=ContingencyType.ONE_TRIGGERS_THE_OTHER,
        position_id="77",
    )
    wire = CODEC.encode_outbound(request, now_ns=1, trade_date=DAY)
    assert CODEC.decode_request(ParsedMessage(message_text(wire))) == request
    assert (38, "0.001") in wire.fields
    assert (44, "0.35") in wire.fields


@pytest.mark.parametrize("kind", ["H", "AF", "AN", "AD"])
def test_a_question_comes_back(kind: str) -> None:
    """Each kind of query, with its account, by whatever field that kind has for it."""
    query = Query(
        msg_type=MsgType(kind),
        req_id="Q9",
        account="A1",
        symbol="COIN" if kind == "H" else "",
        cl_ord_id="C1" if kind == "H" else "",
        since_date=DAY if kind == "AD" else "",
        since_ns=NOW_NS if kind == "AD" else 0,
    )
    assert (
        CODEC.decode_request(ParsedMessage(message_text(CODEC.encode_outbound(query, now_ns=NOW_NS, trade_date=DAY))))
        == query
    )


def test_an_execution_told_again_keeps_what_is_booked() -> None:
    """A TradeCaptureReport (AE): the execution, its order, its time; the order's own sums are not its matter."""
    query = Query(msg_type=MsgType.TRADE_CAPTURE_REPORT_REQUEST, req_id="Q1", account="A1")
    from msgspec.structs import replace

    report = replace(REPORT, req_id="Q1", poss_resend=True, tot_num_reports=2, last_rpt_requested=False)
    decoded = CODEC.decode_inbound(ParsedMessage(message_text(CODEC.encode_inbound(report, query))))
    assert isinstance(decoded, ExecutionReport)
    for name in ("exec_id", "exec_type", "cl_ord_id", "order_id", "account", "side", "last_qty", "last_px", "req_id"):
        assert getattr(decoded, name) == getattr(report, name), name
    assert (decoded.transact_time_ns, decoded.trade_date, decoded.poss_resend) == (NOW_NS, DAY, True)


def test_what_does_not_fit_is_refused() -> None:
    """Half a lot, half a tick, a side that there is not, a field that is missing: each with its tag."""
    good = {11: "C", 55: "COIN", 54: "1", 38: "0.001", 40: "2", 44: "0.05"}
    for tag, value in ((38, "0.0005"), (44, "0.07"), (44, "x"), (54, "Z"), (40, "Q"), (11, ""), (55, "")):
        text = SOH.join(["35=D", *(f"{name}={content}" for name, content in {**good, tag: value}.items())])
        with pytest.raises(FixMessageError) as error:
            CODEC.decode_request(ParsedMessage(text))
        assert error.value.tag == tag
    with pytest.raises(FixMessageError, match="no UTCTimestamp"):
        parse_utc_timestamp("yesterday")
    assert parse_utc_timestamp(format_utc_timestamp(NOW_NS)) == NOW_NS


def test_market_data_names_what_is_gone() -> None:
    """A side without a price is deleted in an update and left out of a snapshot; both say the same."""
    book_entries = [
        MarketDataEntry(BID, "COIN", "1.05", "2", NOW_NS),
        MarketDataEntry(OFFER, "COIN", None, None, NOW_NS),
    ]
    book_entries.append(MarketDataEntry(VOLUME, "COIN", None, "9", NOW_NS))
    for snapshot in (True, False):
        entries_by_kind = {
            entry.kind: entry
            for entry in parse_market_data(
                ParsedMessage(message_text(make_market_data("M", "COIN", book_entries, snapshot=snapshot)))
            )
        }
        assert (entries_by_kind[BID].price, entries_by_kind[BID].size) == ("1.05", "2")
        assert (entries_by_kind[OFFER].price, entries_by_kind[OFFER].size) == (None, None)
        assert entries_by_kind[VOLUME].size == "9"


def test_a_question_that_is_not_supported_has_nothing_for_an_answer() -> None:
    """But that an order's status is not told is no answer, and an order that is not supported is rejected."""
    queries = {"Q1": Query(msg_type=MsgType.ORDER_MASS_STATUS_REQUEST, req_id="Q1", account="A1")}
    empty_report = decode_business_reject(ParsedMessage(SOH.join(["35=j", "372=AF", "45=2"])), queries)
    assert isinstance(empty_report, ExecutionReport)
    assert (empty_report.req_id, empty_report.tot_num_reports) == ("Q1", 0)
    assert decode_business_reject(ParsedMessage(SOH.join(["35=j", "372=H", "45=2"])), queries) is None
    rejected = decode_business_reject(ParsedMessage(SOH.join(["35=j", "34=9", "372=D", "379=C1"])), queries)
    assert isinstance(rejected, ExecutionReport)
    assert rejected.ord_status == OrdStatus.REJECTED


def order(number: int, side: str, price: str, quantity: int, **extra_fields: str) -> str:
    """A new order as it comes."""
    fields = {"11": f"C{number}", "1": "A1", "55": "BOLT", "54": side, "38": str(quantity), "40": "2", "44": price}
    fields |= {"60": "20241127-14:30:00", "34": str(number), "52": f"20241127-14:30:{number:02d}", **extra_fields}
    return SOH.join(["35=D", *(f"{tag}={value}" for tag, value in fields.items()), ""])


def test_a_venue_that_plays_the_day_again_says_the_same(tmp_path: Path) -> None:
    """From the ledger alone: the same orders, trades and positions, the same messages in the same order."""
    recording = write_short_days(tmp_path / "days").get("BOLT", DAY)
    ledger, core = InboundLog(tmp_path / "state", "BOLT"), VenueEngine([recording], copies=["DROP"])
    touch = 0
    for number in range(1, 20):
        core.advance(core.open_ns + number * 15_000_000_000)
        touch = core.venue.top("BOLT").bid_px or touch
        price = f"{touch / 100:.2f}" if number % 5 else "0.001"
        inbound = ledger.append_message("DESK", order(number, "1" if number % 2 else "2", price, 300))
        assert inbound is not None
        core.apply_message(inbound)
        ledger.save_progress(core.clock.now_ns, core.events, [inbound.number], {})
    resent_text = order(3, "1", "10.00", 300, **{"43": "Y", "122": "20241127-14:30:03"})
    assert ledger.append_message("DESK", resent_text) is None, "what is told again is not taken again"
    late = ledger.append_message("DESK", order(30, "1", "10.00", 300))
    ledger.close()
    with pytest.raises(VenueStateError, match="is of BOLT"):
        InboundLog(tmp_path / "state", "ACME")
    second = VenueEngine([recording], copies=["DROP"])
    assert replay_log(second, InboundLog(tmp_path / "state", "BOLT")) == [late]
    assert second.venue.to_bytes() == core.venue.to_bytes()
    assert second.outgoing == core.outgoing
    assert core.venue.trades, "something was filled"
    assert {client for client, _, _ in core.outgoing} == {"DESK", "DROP"}
