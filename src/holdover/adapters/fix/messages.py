"""The codec between the messages of `holdover.model` and the fields of FIX 4.4, in both directions.

Source: FIX 4.4 with errata 20030618, volumes 3 to 6. Quantities and prices on the wire are decimals in the instrument's
units; a value that is not a whole number of lots or ticks is rejected, never rounded. TransactTime (60) has
nanoseconds, as FIX 5.0 SP2 allows. User-defined fields carry what FIX has no field for, and only where needed: 9001 is
the trade date of the execution in ExecRefID (19), 9002 the reference data version in whose units a quantity is stated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from holdover.model import (
    CancelReject,
    ExecRestatementReason,
    ExecType,
    ExecutionReport,
    Inbound,
    Instrument,
    MsgType,
    OrdStatus,
    OrdType,
    Outbound,
    PositionEffect,
    PositionReport,
    Query,
    Request,
    SecurityStatus,
    Side,
    TimeInForce,
)

SOH: Final = "\x01"
EXEC_REF_DATE: Final = 9001
REFERENCE_VERSION: Final = 9002
UNSUPPORTED: Final = 3
"""BusinessRejectReason (380): unsupported message type."""

_SIDE_TAGS: Final = frozenset({54, 37, 11, 1, 40, 77, 58})
_CAPTURE_TAGS: Final = frozenset(
    {568, 912, 150, 17, 19, 39, 378, 55, 38, 32, 31, 75, 6, 60, EXEC_REF_DATE, REFERENCE_VERSION}
)
"""The fields of a TradeCaptureReport (AE), and those of its one side."""

_HEADER_TAGS: Final = frozenset({43, 97, 122})
_TRADING: Final = {"open": "17", "halt": "2", "disabled": "19", "closed": "18"}
_REASONS: Final = {"17": "open", "3": "open", "2": "halt", "19": "disabled", "18": "closed"}
_REQUEST_IDS: Final = {
    MsgType.ORDER_STATUS_REQUEST: 790,
    MsgType.ORDER_MASS_STATUS_REQUEST: 584,
    MsgType.TRADE_CAPTURE_REPORT_REQUEST: 568,
    MsgType.REQUEST_FOR_POSITIONS: 710,
}

Field = tuple[int, Any]
"""A tag and its value: text, or a list of groups, each a list of fields."""


class FixMessageError(ValueError):
    """A message cannot be accepted. `tag` is the field at fault, 0 for the whole message."""

    def __init__(self, text: str, tag: int = 0) -> None:
        super().__init__(text)
        self.tag = tag


class FixMessage(msgspec.Struct, frozen=True):
    """One application message: MsgType (35) and fields."""

    kind: str
    fields: list[Field]

    def to_quickfix(self) -> Any:
        """Returns the message as a QuickFIX message."""
        import quickfix

        message = quickfix.Message()
        message.getHeader().setField(35, self.kind)
        for tag, value in self.fields:
            if not isinstance(value, list):
                (message.getHeader() if tag in _HEADER_TAGS else message).setField(tag, str(value))
                continue
            for entry in value:
                group = quickfix.Group(tag, entry[0][0])
                for inner, inner_value in entry:
                    group.setField(inner, str(inner_value))
                message.addGroup(group)
        return message


class ParsedMessage:
    """The fields of one received message, in their order."""

    def __init__(self, text: str) -> None:
        self.pairs: list[tuple[str, str]] = []
        self._first: dict[str, str] = {}
        for pair in text.split(SOH):
            tag, separator, value = pair.partition("=")
            if separator:
                self.pairs.append((tag, value))
                self._first.setdefault(tag, value)

    @property
    def kind(self) -> str:
        """MsgType (35)."""
        return self._first.get("35", "")

    def get(self, tag: int, default: str = "") -> str:
        """Returns the first field of a tag."""
        return self._first.get(str(tag), default)

    def require(self, tag: int) -> str:
        """Returns the first field of a tag. Raises `FixMessageError` when it is missing."""
        value = self._first.get(str(tag), "")
        if not value:
            raise FixMessageError(f"required tag missing: {tag}", tag)
        return value

    def values(self, tag: int) -> list[str]:
        """Returns every value of a tag."""
        return [value for name, value in self.pairs if name == str(tag)]

    def groups(self, count: int) -> list[dict[str, str]]:
        """Returns the entries of a repeating group: each begins with the tag that the first one begins with."""
        group_entries: list[dict[str, str]] = []
        inside, delimiter = False, ""
        for tag, value in self.pairs:
            if tag == str(count):
                inside = True
            elif inside:
                delimiter = delimiter or tag
                if tag == delimiter:
                    group_entries.append({})
                group_entries[-1][tag] = value
        return group_entries[: int(self.get(count, "0") or 0)]


def format_utc_timestamp(time_ns: int) -> str:
    """Returns a time (ns) as UTCTimestamp with nanoseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d-%H:%M:%S}.{rest:09d}"


def parse_utc_timestamp(text: str) -> int:
    """Returns a UTCTimestamp as ns since the epoch; 0 for an empty text. Raises `FixMessageError`."""
    if not text:
        return 0
    whole, _, part = text.partition(".")
    try:
        moment = datetime.strptime(whole, "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC)
        return int(moment.timestamp()) * 1_000_000_000 + (int(part.ljust(9, "0")[:9]) if part else 0)
    except ValueError as problem:
        raise FixMessageError(f"{text!r} is no UTCTimestamp YYYYMMDD-HH:MM:SS[.sss]") from problem


def _format_date(day: str) -> str:
    return day.replace("-", "")


def _parse_date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


class FixCodec:
    """Encodes and decodes messages. An unknown instrument is read in the finest units."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._instruments = {instrument.symbol: instrument for instrument in instruments}
        self.trade_date = "1970-01-01"

    def instrument_of(self, symbol: str) -> Instrument:
        """Returns the instrument of a symbol."""
        instrument = self._instruments.get(symbol)
        return instrument or Instrument(symbol=symbol or "?", lot_size="0.00000001", tick_size="0.00000001")

    # -- messages of a client -----------------------------------------------------------------------------------

    def encode_outbound(self, message: Outbound, *, now_ns: int, trade_date: str) -> FixMessage:
        """Encode a request or a query to a venue."""
        if isinstance(message, Query):
            return _encode_query(message, now_ns, trade_date)
        instrument = self.instrument_of(message.symbol)
        fields: list[Field] = [(11, message.cl_ord_id)]
        if message.orig_cl_ord_id:
            fields.append((41, message.orig_cl_ord_id))
        fields += [
            (1, message.account),
            (55, message.symbol),
            (54, message.side.value),
            (60, format_utc_timestamp(message.transact_time_ns or now_ns)),
            (38, instrument.quantity_text(message.order_qty)),
        ]
        if message.msg_type != MsgType.ORDER_CANCEL_REQUEST:
            fields += _encode_terms(message, instrument)
            fields.append((21, "1"))  # HandlInst: automated, no broker intervention
        if message.cl_ord_link_id:
            fields.append((583, message.cl_ord_link_id))
        if message.poss_resend:
            fields.append((97, "Y"))
        return FixMessage(message.msg_type.value, [field for field in fields if field[1] != ""])

    def decode_request(self, parsed: ParsedMessage) -> Outbound:
        """Decode a client's message. Raises `FixMessageError`, also for an unsupported MsgType."""
        try:
            kind = MsgType(parsed.kind)
        except ValueError:
            raise FixMessageError(f"unsupported message type {parsed.kind}", 35) from None
        if kind in _REQUEST_IDS:
            return _decode_query(kind, parsed)
        if kind not in (
            MsgType.NEW_ORDER_SINGLE,
            MsgType.ORDER_CANCEL_REQUEST,
            MsgType.ORDER_CANCEL_REPLACE_REQUEST,
        ):
            raise FixMessageError(f"unsupported message type {parsed.kind}", 35)
        changes = kind != MsgType.NEW_ORDER_SINGLE
        instrument = self.instrument_of(parsed.require(55))
        return Request(
            msg_type=kind,
            cl_ord_id=parsed.require(11),
            orig_cl_ord_id=parsed.require(41) if changes else "",
            account=parsed.get(1),
            symbol=parsed.require(55),
            side=_parse_member(Side, parsed.require(54), 54),
            order_qty=_parse_lots(
                instrument, parsed.get(38) or ("0" if kind == MsgType.ORDER_CANCEL_REQUEST else parsed.require(38))
            ),
            poss_resend=parsed.get(97) == "Y",
            cl_ord_link_id=parsed.get(583),
            transact_time_ns=parse_utc_timestamp(parsed.get(60)),
            **_decode_terms(parsed, instrument),
        )

    # -- messages of a venue ------------------------------------------------------------------------------------

    def encode_inbound(self, message: Inbound, query: Query | None = None, total: int = 1) -> FixMessage:
        """Encode a message of the venue.

        `query` is the query that it answers, `total` the number of position reports.
        """
        if isinstance(message, SecurityStatus):
            return FixMessage(
                MsgType.SECURITY_STATUS.value,
                _non_empty(
                    (55, message.symbol),
                    (326, _TRADING.get(message.reason, "17" if message.trading else "2")),
                    (58, message.reason),
                    (REFERENCE_VERSION, message.reference_version),
                ),
            )
        if isinstance(message, CancelReject):
            return FixMessage(
                MsgType.ORDER_CANCEL_REJECT.value,
                _non_empty(
                    (37, message.order_id or "NONE"),
                    (11, message.cl_ord_id),
                    (41, message.orig_cl_ord_id),
                    (39, message.ord_status.value),
                    (1, message.account),
                    (434, message.cxl_rej_response_to),
                    (102, str(message.cxl_rej_reason)),
                    (58, message.text),
                ),
            )
        if isinstance(message, PositionReport):
            return self._encode_position(message, total)
        if query is not None and query.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
            return self._encode_capture(message, query)
        return FixMessage(MsgType.EXECUTION_REPORT.value, self._encode_report(message, query))

    def _encode_position(self, report: PositionReport, total: int) -> FixMessage:
        instrument = self.instrument_of(report.symbol)
        empty = not report.symbol
        entry: list[Field] = [(703, "TQ"), (704, instrument.quantity_text(max(report.net_qty, 0)))]
        entry.append((705, instrument.quantity_text(max(-report.net_qty, 0))))
        fields = _non_empty(
            (721, f"{report.req_id}/{report.symbol}"),
            (710, report.req_id),
            (728, "2" if empty else "0"),
            (715, _format_date(self.trade_date)),
            (1, report.account),
            (581, "1"),
            (55, report.symbol),
            (730, "0"),
            (731, "1"),
            (734, "0"),
            (727, str(total)),
            (REFERENCE_VERSION, report.reference_version),
        )
        return FixMessage(MsgType.POSITION_REPORT.value, fields if empty else [*fields, (702, [entry])])

    def _encode_report(self, report: ExecutionReport, query: Query | None) -> list[Field]:
        instrument = self.instrument_of(report.symbol)
        average = (
            Decimal(report.notional) / report.cum_qty * Decimal(instrument.tick_size) if report.cum_qty else Decimal(0)
        )
        fields = _non_empty(
            (37, report.order_id or "NONE"),
            (11, report.cl_ord_id),
            (41, report.orig_cl_ord_id),
            (17, report.exec_id),
            (19, report.exec_ref_id),
            (150, report.exec_type.value),
            (39, report.ord_status.value),
            (1, report.account),
            (55, report.symbol),
            (54, report.side.value),
            (38, instrument.quantity_text(report.order_qty)),
            (151, instrument.quantity_text(report.leaves_qty)),
            (14, instrument.quantity_text(report.cum_qty)),
            (6, f"{average:f}"),
            (75, _format_date(report.trade_date)),
            (229, _format_date(report.order_date)),
            (60, format_utc_timestamp(report.transact_time_ns)),
            (583, report.cl_ord_link_id),
            (58, report.text),
            (EXEC_REF_DATE, _format_date(report.exec_ref_date)),
            (REFERENCE_VERSION, report.reference_version),
        )
        fields += _encode_terms(report, instrument)
        if report.notional:
            fields.append((381, instrument.notional_text(report.notional)))
        if report.last_qty or report.exec_type in (ExecType.TRADE, ExecType.TRADE_CORRECT, ExecType.TRADE_CANCEL):
            fields += [(32, instrument.quantity_text(report.last_qty)), (31, instrument.price_text(report.last_px))]
        if report.exec_restatement_reason is not None:
            fields.append((378, report.exec_restatement_reason.value))
        if report.ord_rej_reason is not None:
            fields.append((103, str(report.ord_rej_reason)))
        if report.poss_resend:
            fields.append((97, "Y"))
        if report.req_id and query is not None:
            fields.append((_REQUEST_IDS[query.msg_type], report.req_id))
            fields.append((912, "Y" if report.last_rpt_requested else "N"))
            if report.tot_num_reports is not None:
                fields.append((911, str(report.tot_num_reports)))
        return fields

    def _encode_capture(self, report: ExecutionReport, query: Query) -> FixMessage:
        if report.tot_num_reports == 0:
            ack = _non_empty(
                (568, report.req_id),
                (569, "0"),
                (748, "0"),
                (749, "0"),
                (750, "1"),
                (55, "[N/A]"),
            )
            return FixMessage("AQ", ack)
        fields = self._encode_report(report, query)
        side = [(tag, value) for tag, value in fields if tag in _SIDE_TAGS]
        side.sort(key=lambda field: field[0] != 54)
        return FixMessage(
            "AE",
            [
                (571, f"{report.trade_date}/{report.exec_id}"),
                (570, "Y"),
                (748, str(report.tot_num_reports or 1)),
                *[(tag, value) for tag, value in fields if tag in _CAPTURE_TAGS],
                (552, [side]),
            ],
        )

    def decode_inbound(self, parsed: ParsedMessage) -> Inbound | None:
        """Decode a venue's message; None when it is not about an order, a position or a book.

        Raises `FixMessageError`.
        """
        kind = parsed.kind
        if kind in (MsgType.EXECUTION_REPORT, "AE"):
            return self._decode_report(parsed)
        if kind == MsgType.ORDER_CANCEL_REJECT:
            return CancelReject(
                cl_ord_id=parsed.require(11),
                orig_cl_ord_id=parsed.get(41),
                ord_status=_parse_member(OrdStatus, parsed.require(39), 39),
                account=parsed.get(1),
                order_id=parsed.get(37),
                cxl_rej_reason=int(parsed.get(102, "0") or 0),
                cxl_rej_response_to=parsed.get(434, "1"),
                text=parsed.get(58),
            )
        if kind == MsgType.POSITION_REPORT:
            instrument = self.instrument_of(parsed.get(55))
            quantities = parsed.groups(702)
            net = sum(
                _parse_lots(instrument, one_of.get("704", "0")) - _parse_lots(instrument, one_of.get("705", "0"))
                for one_of in quantities
            )
            return PositionReport(
                req_id=parsed.get(710),
                account=parsed.get(1),
                symbol=parsed.get(55),
                net_qty=net,
                reference_version=parsed.get(REFERENCE_VERSION),
                last_rpt_requested=parsed.get(727, "1") in ("0", "1"),
            )
        if kind == MsgType.SECURITY_STATUS:
            reason = _REASONS.get(parsed.get(326), "halt")
            return SecurityStatus(
                symbol=parsed.require(55),
                trading=reason == "open",
                reason=reason,
                trade_date=_parse_date(parsed.get(75)),
                reference_version=parsed.get(REFERENCE_VERSION),
            )
        if kind == "AQ" and parsed.get(748, "0") == "0":
            return _empty_answer(parsed.get(568), parsed.get(1))
        return None

    def _decode_report(self, parsed: ParsedMessage) -> ExecutionReport:
        instrument = self.instrument_of(parsed.get(55))
        exec_type = _parse_member(ExecType, parsed.require(150), 150)
        captured = parsed.kind == "AE"
        cum_qty = _parse_lots(instrument, parsed.get(14, "0") or "0")
        notional = _parse_notional(instrument, parsed.get(381), parsed.get(6), cum_qty)
        total = parsed.get(911) or parsed.get(748)
        req_id = parsed.get(790) or parsed.get(584) or parsed.get(568)
        reason = parsed.get(378)
        return ExecutionReport(
            exec_type=exec_type,
            ord_status=_parse_member(OrdStatus, parsed.get(39, "0"), 39),
            cl_ord_id=parsed.get(11),
            exec_id=parsed.require(17),
            symbol=parsed.get(55),
            side=_parse_member(Side, parsed.get(54, "1"), 54),
            order_qty=_parse_lots(instrument, parsed.get(38, "0") or "0"),
            cum_qty=cum_qty,
            leaves_qty=_parse_lots(instrument, parsed.get(151, "0") or "0"),
            notional=notional,
            last_qty=_parse_lots(instrument, parsed.get(32, "0") or "0"),
            last_px=_parse_ticks(instrument, parsed.get(31, "0") or "0"),
            order_id=parsed.get(37).replace("NONE", ""),
            orig_cl_ord_id=parsed.get(41),
            exec_ref_id=parsed.get(19),
            exec_ref_date=_parse_date(parsed.get(EXEC_REF_DATE)),
            account=parsed.get(1),
            cl_ord_link_id=parsed.get(583),
            trade_date=_parse_date(parsed.get(75)),
            order_date=_parse_date(parsed.get(229)),
            exec_restatement_reason=_parse_member(ExecRestatementReason, reason, 378) if reason else None,
            reference_version=parsed.get(REFERENCE_VERSION),
            ord_rej_reason=int(parsed.get(103)) if parsed.get(103).isdigit() else None,
            text=parsed.get(58),
            req_id=req_id,
            last_rpt_requested=parsed.get(912) == "Y" or bool(parsed.get(790)),
            tot_num_reports=int(total) if total.isdigit() else None,
            poss_resend=captured or parsed.get(97) == "Y",
            transact_time_ns=parse_utc_timestamp(parsed.get(60)),
            **_decode_terms(parsed, instrument),
        )


def make_business_reject(parsed: ParsedMessage, reason: int, text: str) -> FixMessage:
    """Returns a BusinessMessageReject (j) for a message."""
    fields = [
        (45, parsed.get(34)),
        (372, parsed.kind),
        (379, parsed.get(11) or _request_id_of(parsed)),
        (380, str(reason)),
    ]
    return FixMessage("j", _non_empty(*fields, (58, text)))


def decode_business_reject(parsed: ParsedMessage, queries: Mapping[str, Query]) -> Inbound | None:
    """Decode a BusinessMessageReject (j): a new order is rejected, a query gets an empty answer.

    When the venue does not support the status query of a single order, returns None: the order stays as it is.
    """
    kind, request_id = parsed.get(372), parsed.get(379)
    if kind == MsgType.NEW_ORDER_SINGLE and request_id:
        return ExecutionReport(
            exec_type=ExecType.REJECTED,
            ord_status=OrdStatus.REJECTED,
            cl_ord_id=request_id,
            exec_id=f"j{parsed.get(34)}",
            text=parsed.get(58),
        )
    query = queries.get(request_id) or next(
        (candidate for candidate in reversed(list(queries.values())) if candidate.msg_type == kind), None
    )
    if query is None or kind == MsgType.ORDER_STATUS_REQUEST:
        return None
    if kind == MsgType.REQUEST_FOR_POSITIONS:
        return PositionReport(req_id=query.req_id, account=query.account, symbol="", net_qty=0, last_rpt_requested=True)
    return _empty_answer(query.req_id, query.account)


def _empty_answer(req_id: str, account: str) -> ExecutionReport:
    return ExecutionReport(
        exec_type=ExecType.ORDER_STATUS,
        ord_status=OrdStatus.REJECTED,
        cl_ord_id="",
        exec_id="0",
        account=account,
        req_id=req_id,
        tot_num_reports=0,
        last_rpt_requested=True,
    )


def _request_id_of(parsed: ParsedMessage) -> str:
    return next((parsed.get(tag) for tag in (790, 584, 568, 710, 262, 324) if parsed.get(tag)), "")


def _non_empty(*fields: Field) -> list[Field]:
    return [field for field in fields if field[1] != ""]


def _encode_query(query: Query, now_ns: int, trade_date: str) -> FixMessage:
    tag = _REQUEST_IDS[query.msg_type]
    fields: list[Field]
    if query.msg_type == MsgType.ORDER_STATUS_REQUEST:
        # Side is required, and a query does not have it: 7 is undisclosed.
        fields = [(11, query.cl_ord_id), (37, query.order_id), (55, query.symbol), (54, "7")]
    elif query.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
        fields = [(585, "7")]
    elif query.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
        since_fields: list[Field] = [(75, _format_date(query.since_date or trade_date))]
        if query.since_ns:
            since_fields.append((60, format_utc_timestamp(query.since_ns)))
        # This message has no Account field: the account is a party with the role of a customer account.
        party: list[Field] = [(448, query.account), (447, "D"), (452, "24")]
        fields = [(569, "0"), (263, "0"), (580, [since_fields])]
        return FixMessage(query.msg_type.value, [(tag, query.req_id), (453, [party]), *fields])
    else:
        fields = [(724, "0"), (581, "1"), (715, _format_date(trade_date)), (60, format_utc_timestamp(now_ns))]
    return FixMessage(query.msg_type.value, _non_empty((tag, query.req_id), (1, query.account), *fields))


def _decode_query(kind: MsgType, parsed: ParsedMessage) -> Query:
    dates = parsed.groups(580)
    first = dates[0] if dates else {}
    tag = _REQUEST_IDS[kind]
    status = kind == MsgType.ORDER_STATUS_REQUEST
    return Query(
        msg_type=kind,
        req_id=parsed.get(tag) or parsed.require(11) if status else parsed.require(tag),
        account=parsed.get(1) or parsed.get(448),
        symbol=parsed.get(55),
        cl_ord_id=parsed.require(11) if status else "",
        order_id=parsed.get(37),
        since_date=_parse_date(first.get("75", "")),
        since_ns=parse_utc_timestamp(first.get("60", "")),
    )


def _encode_terms(message: Request | ExecutionReport, instrument: Instrument) -> list[Field]:
    fields: list[Field] = [(40, message.ord_type.value), (59, message.time_in_force.value)]
    if message.price is not None:
        fields.append((44, instrument.price_text(message.price)))
    if message.stop_px is not None:
        fields.append((99, instrument.price_text(message.stop_px)))
    if message.expire_date:
        fields.append((432, _format_date(message.expire_date)))
    return [*fields, (77, message.position_effect.value)]


def _decode_terms(parsed: ParsedMessage, instrument: Instrument) -> dict[str, Any]:
    price, stop = parsed.get(44), parsed.get(99)
    return {
        "ord_type": _parse_member(OrdType, parsed.get(40, "2"), 40),
        "time_in_force": _parse_member(TimeInForce, parsed.get(59, "0"), 59),
        "price": _parse_ticks(instrument, price) if price else None,
        "stop_px": _parse_ticks(instrument, stop) if stop else None,
        "expire_date": _parse_date(parsed.get(432)),
        "position_effect": _parse_member(PositionEffect, parsed.get(77, "O"), 77),
    }


def _parse_member(kind: Any, value: str, tag: int) -> Any:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(sorted(member.value for member in kind))
        raise FixMessageError(f"value {value!r} of tag {tag} is not taken here; there are {allowed}", tag) from None


def _parse_lots(instrument: Instrument, text: str) -> int:
    try:
        return instrument.lots(text)
    except ValueError as problem:
        raise FixMessageError(str(problem), 38) from problem


def _parse_ticks(instrument: Instrument, text: str) -> int:
    try:
        return instrument.ticks(text)
    except ValueError as problem:
        raise FixMessageError(str(problem), 44) from problem


def _parse_notional(instrument: Instrument, gross: str, average: str, cum_qty: int) -> int:
    """Lots x ticks: exact from GrossTradeAmt (381), else the nearest value that AvgPx (6) gives."""
    unit = Decimal(instrument.lot_size) * Decimal(instrument.tick_size)
    try:
        if gross:
            return int((Decimal(gross) / unit).to_integral_value(ROUND_HALF_EVEN))
        return int((Decimal(average or 0) * cum_qty / Decimal(instrument.tick_size)).to_integral_value(ROUND_HALF_EVEN))
    except (InvalidOperation, ValueError) as problem:
        raise FixMessageError(f"AvgPx {average!r} or GrossTradeAmt {gross!r} is no decimal", 6) from problem


# -- market data ------------------------------------------------------------------------------------------------

BID, OFFER, TRADE, VOLUME = "0", "1", "2", "B"
"""MDEntryType (269)."""


class MarketDataEntry(msgspec.Struct, frozen=True):
    """One entry of market data: type, symbol, price and size (None when absent or deleted), time (ns)."""

    kind: str
    symbol: str
    price: str | None
    size: str | None
    time_ns: int


def make_market_data_request(req_id: str, symbols: Sequence[str]) -> FixMessage:
    """Returns a MarketDataRequest (V): snapshot and updates of the top of the book, the last trade and the volume."""
    kinds: list[list[Field]] = [[(269, kind)] for kind in (BID, OFFER, TRADE, VOLUME)]
    books: list[list[Field]] = [[(55, symbol)] for symbol in symbols]
    return FixMessage("V", [(262, req_id), (263, "1"), (264, "1"), (265, "1"), (267, kinds), (146, books)])


def make_market_data(req_id: str, symbol: str, entries: Iterable[MarketDataEntry], *, snapshot: bool) -> FixMessage:
    """Returns a MarketDataSnapshotFullRefresh (W) or MarketDataIncrementalRefresh (X) of one instrument."""
    groups: list[list[Field]] = []
    for entry in entries:
        day, _, clock = format_utc_timestamp(entry.time_ns).partition("-")
        is_deleted = entry.price is None and entry.size is None
        head: list[Field] = [(269, entry.kind)] if snapshot else [(279, "2" if is_deleted else "0"), (269, entry.kind)]
        if snapshot and is_deleted:
            continue
        body = [] if snapshot else [(55, symbol)]
        groups.append(
            [*head, *_non_empty(*body, (270, entry.price or ""), (271, entry.size or "")), (272, day), (273, clock)]
        )
    return FixMessage("W" if snapshot else "X", [(262, req_id), *([(55, symbol)] if snapshot else []), (268, groups)])


def parse_market_data(parsed: ParsedMessage) -> Iterator[MarketDataEntry]:
    """Yield the entries of a snapshot or an update; sides that a snapshot does not contain are deleted."""
    named_kinds: set[str] = set()
    for group in parsed.groups(268):
        symbol = group.get("55") or parsed.get(55)
        named_kinds.add(group.get("269", ""))
        is_deleted = group.get("279") == "2"
        day, clock = group.get("272", ""), group.get("273", "")
        yield MarketDataEntry(
            group.get("269", ""),
            symbol,
            None if is_deleted else group.get("270"),
            None if is_deleted else group.get("271"),
            parse_utc_timestamp(f"{day}-{clock}") if day and clock else 0,
        )
    if parsed.kind == "W":
        for kind in (BID, OFFER):
            if kind not in named_kinds:
                yield MarketDataEntry(kind, parsed.get(55), None, None, 0)
