"""The replicating venue answers the candidate as the incumbent was answered, whichever message arrives first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.catalogue import Catalogue
from holdover.model import (
    CancelReject,
    ExecType,
    ExecutionReport,
    Inbound,
    Instrument,
    MsgType,
    Order,
    OrdStatus,
    OrdType,
    Query,
    Request,
    Side,
    TimeInForce,
)
from holdover.recording.format import QUOTE, STATUS, TRADE, UNDEF_PRICE
from holdover.runtime import FreezeStore, Guard
from holdover.world import IncumbentReport, ReplicatingVenue, SimulatedLink, Venue, VirtualClock
from holdover.world.counterparts import ReportKind

S = 1_000_000_000
OPEN, CLOSE = 1_000 * S, 5_000 * S
DAY = 100_000 * S
INSTRUMENTS = (Instrument(symbol="ACME"), Instrument(symbol="BOLT"))
A = "A"
CATALOGUE = Catalogue.load()


def new_request(name: str, quantity: int = 100, price: int | None = 1000, **overrides: Any) -> Request:
    """A new order."""
    request_fields: dict[str, Any] = {"symbol": "ACME", "side": Side.BUY, "account": A, **overrides}
    return Request(
        msg_type=MsgType.NEW_ORDER_SINGLE,
        cl_ord_id=name,
        root_cl_ord_id=name,
        order_qty=quantity,
        price=price,
        **request_fields,
    )


def cancel_request(name: str, orig: str, **overrides: Any) -> Request:
    """A cancel."""
    request_fields: dict[str, Any] = {"symbol": "ACME", "side": Side.BUY, "account": A, **overrides}
    return Request(
        msg_type=MsgType.ORDER_CANCEL_REQUEST, cl_ord_id=name, orig_cl_ord_id=orig, order_qty=100, **request_fields
    )


def replace_request(name: str, orig: str, quantity: int = 100, price: int | None = 1000, **overrides: Any) -> Request:
    """A replace."""
    request_fields: dict[str, Any] = {"symbol": "ACME", "side": Side.BUY, "account": A, **overrides}
    return Request(
        msg_type=MsgType.ORDER_CANCEL_REPLACE_REQUEST,
        cl_ord_id=name,
        orig_cl_ord_id=orig,
        order_qty=quantity,
        price=price,
        **request_fields,
    )


def make_report(kind: ReportKind, order: str = "1", **overrides: Any) -> IncumbentReport:
    """Return a report of the incumbent."""
    return IncumbentReport(**{"kind": kind, "order": order, "account": A, "symbol": "ACME", "side": "1", **overrides})


def make_quote(time_ns: int, bid: int, ask: int, size: int = 1000, number: int = 0) -> tuple[int, ...]:
    """A quote."""
    return time_ns, number, QUOTE, 0, 0, 0, 0, bid, ask, size, size


def make_trade(time_ns: int, price: int, size: int, number: int = 0) -> tuple[int, ...]:
    """A trade of the market."""
    return time_ns, number, TRADE, 0, 0, price, size, UNDEF_PRICE, UNDEF_PRICE, 0, 0


def make_status(time_ns: int, flags: int, number: int = 0) -> tuple[int, ...]:
    """Return a status event: 1 opens the book, 2 halts it."""
    return time_ns, number, STATUS, flags, 0, 0, 0, UNDEF_PRICE, UNDEF_PRICE, 0, 0


class VenueBench:
    """A replicating venue in an open session; `messages` holds what it sent."""

    def __init__(self, **options: Any) -> None:
        self.clock = VirtualClock(OPEN)
        self.mirror = ReplicatingVenue(self.clock, INSTRUMENTS, **options)
        self.messages: list[Inbound] = []
        self.mirror.attach([A], self.messages.append)
        self.mirror.begin("2024-01-02", OPEN, CLOSE)
        self.mirror.on_market(make_quote(OPEN, 990, 1010))

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self.clock.run_until(self.clock.now_ns + round(seconds * S))

    def deliver(self, items: Sequence[Request | Query | IncumbentReport]) -> None:
        """Deliver requests and reports in the given order."""
        for item in items:
            self.mirror.apply_report(item) if isinstance(item, IncumbentReport) else self.mirror.receive(item)

    def order(self, name: str = "1") -> Order:
        """Return the venue's order."""
        order = self.mirror.order_record(name)
        assert order is not None
        return order

    def message_kinds(self) -> list[str]:
        """Return the ExecType of each report sent, or CancelReject; pending reports are left out."""
        pending = (ExecType.PENDING_CANCEL, ExecType.PENDING_REPLACE)
        return [
            message.exec_type.name if isinstance(message, ExecutionReport) else type(message).__name__
            for message in self.messages
            if isinstance(message, CancelReject)
            or (isinstance(message, ExecutionReport) and message.exec_type not in pending)
        ]

    @property
    def replication_counts(self) -> tuple[int, int, int]:
        """Reports left out, their lots, and requests without a counterpart."""
        stats = self.mirror.stats
        return stats.discarded, stats.discarded_qty, stats.unmatched_requests


@pytest.fixture
def world() -> VenueBench:
    """Return a bench with the default options."""
    return VenueBench()


# -- each report, before the candidate's request and after it -----------------------------------------------------

TRADE_FIELDS = {"last_qty": 30, "last_px": 999, "exec_id": "d/E1"}
STORIES: dict[str, tuple[list[Request], list[IncumbentReport], OrdStatus | None, int, list[str]]] = {
    "sent": ([], [make_report("sent")], None, 0, []),
    "new": ([new_request("1")], [make_report("sent"), make_report("new")], OrdStatus.NEW, 0, ["NEW"]),
    "rejected": ([new_request("1")], [make_report("rejected", text="no")], None, 0, ["REJECTED"]),
    "trade": (
        [new_request("1")],
        [make_report("new"), make_report("trade", **TRADE_FIELDS)],
        OrdStatus.PARTIALLY_FILLED,
        30,
        ["NEW", "TRADE"],
    ),
    "filled": (
        [new_request("1", 30)],
        [make_report("new"), make_report("trade", **TRADE_FIELDS), make_report("filled")],
        OrdStatus.FILLED,
        30,
        ["NEW", "TRADE"],
    ),
    "replaced": (
        [new_request("1"), replace_request("2", "1", 80, 1005)],
        [make_report("new"), make_report("replaced")],
        OrdStatus.NEW,
        0,
        ["NEW", "REPLACED"],
    ),
    "canceled": (
        [new_request("1"), cancel_request("2", "1")],
        [make_report("new"), make_report("canceled", is_requested=True)],
        OrdStatus.CANCELED,
        0,
        ["NEW", "CANCELED"],
    ),
    "canceled unasked": (
        [new_request("1")],
        [make_report("new"), make_report("canceled")],
        OrdStatus.CANCELED,
        0,
        ["NEW", "CANCELED"],
    ),
    "canceled unasked, and asked too late": (
        [new_request("1"), cancel_request("2", "1")],
        [make_report("new"), make_report("canceled"), make_report("refused")],
        OrdStatus.CANCELED,
        0,
        ["NEW", "CANCELED", "CancelReject"],
    ),
    "expired IOC": (
        [new_request("1", time_in_force=TimeInForce.IOC)],
        [make_report("new"), make_report("trade", **TRADE_FIELDS), make_report("expired")],
        OrdStatus.EXPIRED,
        30,
        ["NEW", "TRADE", "EXPIRED"],
    ),
    "canceled FOK": (
        [new_request("1", time_in_force=TimeInForce.FOK)],
        [make_report("new"), make_report("canceled")],
        OrdStatus.CANCELED,
        0,
        ["NEW", "CANCELED"],
    ),
    "expired DAY": (
        [new_request("1")],
        [make_report("new"), make_report("expired")],
        OrdStatus.EXPIRED,
        0,
        ["NEW", "EXPIRED"],
    ),
    "expired GTC": (
        [new_request("1", time_in_force=TimeInForce.GTC)],
        [make_report("new"), make_report("expired")],
        OrdStatus.EXPIRED,
        0,
        ["NEW", "EXPIRED"],
    ),
    "refused": (
        [new_request("1"), cancel_request("2", "1")],
        [make_report("new"), make_report("refused")],
        OrdStatus.NEW,
        0,
        ["NEW", "CancelReject"],
    ),
    "refused replace of an unknown order": (
        [replace_request("2", "1")],
        [make_report("refused")],
        None,
        0,
        ["CancelReject"],
    ),
    "bust": (
        [new_request("1")],
        [
            make_report("new"),
            make_report("trade", **TRADE_FIELDS),
            make_report("bust", exec_ref_id="d/E1", exec_id="d/E2"),
        ],
        OrdStatus.NEW,
        0,
        ["NEW", "TRADE", "TRADE_CANCEL"],
    ),
    "correct": (
        [new_request("1")],
        [
            make_report("new"),
            make_report("trade", **TRADE_FIELDS),
            make_report("correct", exec_ref_id="d/E1", exec_id="d/E2", last_qty=25, last_px=998),
        ],
        OrdStatus.PARTIALLY_FILLED,
        25,
        ["NEW", "TRADE", "TRADE_CORRECT"],
    ),
    "a fill that crossed the cancel": (
        [new_request("1"), cancel_request("2", "1")],
        [make_report("new"), make_report("canceled", is_requested=True), make_report("trade", **TRADE_FIELDS)],
        OrdStatus.CANCELED,
        30,
        ["NEW", "CANCELED", "TRADE"],
    ),
}


def interleave(requests: Sequence[Any], reports: Sequence[Any]) -> list[Any]:
    """Return requests and reports in alternation."""
    interleaved = []
    for number in range(max(len(requests), len(reports))):
        interleaved += [*requests[number : number + 1], *reports[number : number + 1]]
    return interleaved


@pytest.mark.parametrize("order", ["requests", "reports", "in turn"])
@pytest.mark.parametrize("name", STORIES)
def test_each_report_in_both_orders(world: VenueBench, name: str, order: str) -> None:
    """The order ends as the incumbent's, the candidate hears the same, and nothing is left out or alone."""
    requests, reports, final_status, cum_qty, kinds = STORIES[name]
    world.deliver(
        {
            "requests": [*requests, *reports],
            "reports": [*reports, *requests],
            "in turn": interleave(requests, reports),
        }[order]
    )
    venue_order = world.mirror.order_record("1")
    assert (venue_order.ord_status if venue_order else None) == final_status
    assert (venue_order.cum_qty if venue_order else 0) == cum_qty
    assert world.message_kinds() == kinds
    assert world.mirror.unanswered_count == 0
    world.advance(10)
    assert world.replication_counts == (0, 0, 0)
    assert world.message_kinds() == kinds


def test_what_a_report_says_reaches_the_candidate(world: VenueBench) -> None:
    """Text, quantity and price."""
    world.deliver(
        [
            new_request("1"),
            make_report("rejected", text="margin"),
            new_request("2"),
            make_report("trade", "2", **TRADE_FIELDS),
        ]
    )
    rejected, traded_ = world.messages[-3], world.messages[-1]
    assert isinstance(rejected, ExecutionReport)
    assert rejected.text == "margin"
    assert isinstance(traded_, ExecutionReport)
    assert (traded_.last_qty, traded_.last_px, traded_.notional) == (30, 999, 30 * 999)
    world.deliver([replace_request("3", "2", 80, 1005), make_report("replaced", "2")])
    assert (world.order("2").order_qty, world.order("2").leaves_qty, world.order("2").price) == (80, 50, 1005)


# -- whom the market fills ----------------------------------------------------------------------------------------


def test_the_market_does_not_fill_what_the_incumbent_fills(world: VenueBench) -> None:
    """An order with a counterpart stays out of the book, whether it crosses when it comes or later."""
    world.deliver([new_request("1", price=1010), make_report("new")])
    world.mirror.on_market(make_trade(OPEN, 900, 10_000))
    world.mirror.on_market(make_quote(OPEN, 890, 900))
    assert world.order().cum_qty == 0
    world.deliver([replace_request("2", "1", 100, 1020), make_report("replaced")])
    assert (world.order().cum_qty, world.mirror.books["ACME"].buys) == (0, [])


def test_what_the_incumbent_never_sent_is_matched_against_the_market(world: VenueBench) -> None:
    """After the patience, and not before."""
    world.deliver([new_request("1", price=1010)])
    world.advance(1.9)
    assert (world.mirror.order_record("1"), world.mirror.unanswered_count) == (None, 1)
    world.advance(0.2)
    assert (world.order().ord_status, world.order().cum_qty) == (OrdStatus.FILLED, 100)
    assert world.replication_counts == (0, 0, 1)
    world.deliver([new_request("2", price=990)])
    world.advance(2.1)
    world.mirror.on_market(make_trade(OPEN, 980, 60))
    assert world.order("2").cum_qty == 60
    world.deliver([cancel_request("3", "2")])
    world.advance(2.1)
    assert world.order("2").ord_status == OrdStatus.CANCELED
    assert world.replication_counts == (0, 0, 3)


def test_an_order_whose_report_comes_late_has_its_counterpart_again(world: VenueBench) -> None:
    """It was accepted alone, rests in the market, and leaves it."""
    world.deliver([new_request("1", price=990)])
    world.advance(3)
    assert len(world.mirror.books["ACME"].buys) == 1
    world.deliver([make_report("sent"), make_report("new"), make_report("trade", last_qty=40, last_px=990)])
    world.mirror.on_market(make_trade(OPEN, 980, 60))
    assert (world.order().cum_qty, world.mirror.books["ACME"].buys) == (40, [])
    world.deliver([make_report("rejected", "2")])
    world.advance(3)
    assert world.replication_counts == (1, 0, 1)


def test_an_order_that_was_accepted_alone_and_then_rejected_is_taken_back(world: VenueBench) -> None:
    """The incumbent's was rejected; the candidate's is cancelled."""
    world.deliver([new_request("1", price=990)])
    world.advance(3)
    world.deliver([make_report("rejected")])
    assert world.order().ord_status == OrdStatus.CANCELED
    world.advance(3)
    assert world.replication_counts == (0, 0, 1)


def test_reports_without_an_order_are_left_out_and_an_order_that_comes_after_them_stands_alone(
    world: VenueBench,
) -> None:
    """Nothing of a counterpart that is over can fill it: the market does."""
    world.deliver(
        [
            make_report("sent"),
            make_report("new"),
            make_report("trade", last_qty=100, last_px=1000),
            make_report("filled"),
        ]
    )
    world.advance(2.1)
    assert world.replication_counts == (2, 100, 0)
    world.deliver([new_request("1", price=990)])
    world.advance(2.1)
    world.mirror.on_market(make_trade(OPEN, 980, 100))
    assert world.order().ord_status == OrdStatus.FILLED


def test_an_order_that_comes_late_takes_what_is_still_to_come(world: VenueBench) -> None:
    """Its counterpart is still open: the fills from here on are its own."""
    world.deliver([make_report("sent"), make_report("new")])
    world.advance(3)
    world.deliver([new_request("1", price=990)])
    world.advance(3)
    world.mirror.on_market(make_trade(OPEN, 980, 100))
    assert world.order().cum_qty == 0
    world.deliver([make_report("trade", last_qty=100, last_px=990), make_report("filled")])
    assert world.order().ord_status == OrdStatus.FILLED
    assert world.replication_counts == (1, 0, 1)


def test_the_incumbent_cancelled_and_the_candidate_did_not(world: VenueBench) -> None:
    """From the end of the patience on it stands alone, and stays so whatever is told of the other."""
    world.deliver([new_request("1", price=990), make_report("new"), make_report("canceled", is_requested=True)])
    world.mirror.on_market(make_trade(OPEN, 980, 10))
    assert world.order().cum_qty == 0
    world.advance(2.1)
    world.mirror.on_market(make_trade(OPEN, 980, 10))
    assert world.order().cum_qty == 10
    world.deliver([make_report("refused"), make_report("trade", last_qty=5, last_px=990, exec_id="d/9")])
    world.advance(2.1)
    world.mirror.on_market(make_trade(OPEN, 980, 20))
    assert world.order().cum_qty == 35
    assert world.replication_counts == (2, 0, 0)


def test_a_smaller_order_takes_what_fits_and_a_larger_one_goes_on_alone(world: VenueBench) -> None:
    """What does not fit is counted, in lots; what is left is for the market."""
    world.deliver([new_request("1", 50), make_report("new")])
    world.deliver(
        [
            make_report("trade", last_qty=40, last_px=1000),
            make_report("trade", last_qty=60, last_px=1000),
            make_report("filled"),
        ]
    )
    assert (world.order().ord_status, world.order().cum_qty) == (OrdStatus.FILLED, 50)
    assert world.replication_counts == (1, 50, 0)
    world.deliver(
        [new_request("2", 150, 990), make_report("new", "2"), make_report("trade", "2", last_qty=100, last_px=990)]
    )
    world.mirror.on_market(make_trade(OPEN, 980, 30))
    assert world.order("2").cum_qty == 100
    world.deliver([make_report("filled", "2")])
    world.mirror.on_market(make_trade(OPEN, 980, 30))
    assert world.order("2").cum_qty == 130


def test_what_is_left_of_a_larger_immediate_order_does_not_rest(world: VenueBench) -> None:
    """It takes what is displayed, and is cancelled."""
    world.deliver(
        [new_request("1", 1500, 1010, time_in_force=TimeInForce.IOC), make_report("trade", last_qty=100, last_px=1010)]
    )
    assert world.order().cum_qty == 100
    world.deliver([make_report("filled")])
    assert (world.order().cum_qty, world.order().ord_status) == (1100, OrdStatus.CANCELED)


def test_a_correction_never_passes_the_order(world: VenueBench) -> None:
    """The candidate's order is smaller: CumQty stays within OrderQty, the price is the corrected one."""
    world.deliver(
        [new_request("1", 50), make_report("trade", last_qty=100, last_px=1000, exec_id="d/1"), make_report("filled")]
    )
    world.deliver([make_report("correct", exec_id="d/2", exec_ref_id="d/1", last_qty=90, last_px=998)])
    assert (world.order().cum_qty, world.order().notional) == (50, 50 * 998)
    world.deliver([make_report("correct", exec_id="d/3", exec_ref_id="d/2", last_qty=-7, last_px=998)])
    assert (world.order().cum_qty, world.order().leaves_qty) == (0, 50)


def test_a_bust_opens_a_filled_order_again_and_it_is_the_incumbents_still(world: VenueBench) -> None:
    """The market does not fill what was taken back; the incumbent's next fill does."""
    world.deliver(
        [
            new_request("1", price=990),
            make_report("trade", last_qty=100, last_px=990, exec_id="d/1"),
            make_report("filled"),
        ]
    )
    world.deliver([make_report("bust", exec_ref_id="d/1", exec_id="d/2")])
    world.mirror.on_market(make_trade(OPEN, 980, 30))
    assert (world.order().ord_status, world.order().cum_qty) == (OrdStatus.NEW, 0)
    world.deliver([make_report("trade", last_qty=100, last_px=989, exec_id="d/3"), make_report("filled")])
    assert (world.order().ord_status, world.order().notional) == (OrdStatus.FILLED, 98_900)
    world.deliver([make_report("bust", exec_ref_id="d/1"), make_report("bust", exec_ref_id="d/77")])
    assert world.replication_counts == (2, 0, 0)


def test_a_bust_of_yesterday_names_yesterdays_trade(world: VenueBench) -> None:
    """ExecIDs begin again each day: the trade of the same number today is another."""
    gtc = TimeInForce.GTC
    world.deliver(
        [new_request("1", price=990, time_in_force=gtc), make_report("trade", last_qty=10, last_px=990, exec_id="d1/1")]
    )
    pass_night(world)
    world.deliver(
        [
            new_request("2", price=991, time_in_force=gtc),
            make_report("trade", "2", last_qty=20, last_px=991, exec_id="d2/1"),
        ]
    )
    world.deliver([make_report("bust", exec_ref_id="d1/1", exec_id="d2/2")])
    assert (world.order("1").cum_qty, world.order("2").cum_qty) == (0, 20)
    assert world.mirror.books["ACME"].buys == []


def test_a_stop_that_stands_alone_waits_for_its_trigger(world: VenueBench) -> None:
    """Neither its counterpart's end nor a replace puts it into the market before."""
    stop = {"ord_type": OrdType.STOP, "price": None, "stop_px": 1050}
    world.deliver([new_request("1", **stop), make_report("new"), make_report("canceled", is_requested=True)])
    world.advance(2.1)
    world.mirror.on_market(make_quote(OPEN, 990, 1010))
    assert world.order().cum_qty == 0
    world.deliver([replace_request("2", "1", 60, **stop)])
    world.advance(2.1)
    world.mirror.on_market(make_quote(OPEN, 990, 1010))
    assert (world.order().cum_qty, world.order().order_qty) == (0, 60)
    world.mirror.on_market(make_trade(OPEN, 1050, 1))
    assert world.order().ord_status == OrdStatus.FILLED


def test_a_book_that_is_shut_here_first_does_not_reject_what_was_taken_there(world: VenueBench) -> None:
    """Two feeds, two orders: the halt is seen before the request. What nobody took is rejected all the same."""
    world.mirror.on_market(make_status(OPEN, 2))
    world.deliver([new_request("1"), make_report("new"), new_request("2")])
    assert world.order().ord_status == OrdStatus.NEW
    world.advance(2.1)
    assert world.message_kinds() == ["NEW", "REJECTED"]


def test_what_is_told_of_another_instrument_or_side_is_not_applied(world: VenueBench) -> None:
    """The same name for another order."""
    world.deliver([new_request("1"), make_report("new"), make_report("trade", symbol="BOLT", last_qty=10, last_px=5)])
    world.deliver(
        [make_report("trade", side="2", last_qty=10, last_px=5), make_report("bust", symbol="BOLT", exec_ref_id="x")]
    )
    assert world.order().cum_qty == 0
    assert world.replication_counts == (3, 20, 0)


# -- chains, duplicates, questions --------------------------------------------------------------------------------


def test_a_chain_of_requests_waits_as_a_whole(world: VenueBench) -> None:
    """New, two replaces and a cancel before anything is heard; each is answered by its own report."""
    world.deliver(
        [new_request("1"), replace_request("2", "1", 90), replace_request("3", "2", 80, 1001), cancel_request("4", "2")]
    )
    assert world.mirror.unanswered_count == 4
    world.deliver([make_report("new"), make_report("trade", last_qty=10, last_px=1000), make_report("replaced")])
    assert (world.order().cl_ord_id, world.mirror.unanswered_count) == ("2", 2)
    world.deliver([make_report("refused"), make_report("canceled", is_requested=True)])
    assert world.message_kinds() == ["NEW", "TRADE", "REPLACED", "CancelReject", "CANCELED"]
    assert (world.order().ord_status, world.order().cum_qty, world.order().order_qty) == (OrdStatus.CANCELED, 10, 90)
    assert world.replication_counts == (0, 0, 0)


def test_a_cancel_passes_a_replace_of_which_nothing_was_told(world: VenueBench) -> None:
    """A journal does not say that a replace was refused while a cancel waits; the cancel says it."""
    world.deliver(
        [
            new_request("1"),
            make_report("new"),
            replace_request("2", "1", 90),
            cancel_request("3", "1"),
            make_report("canceled", is_requested=True),
        ]
    )
    assert world.message_kinds() == ["NEW", "CancelReject", "CANCELED"]
    assert (world.order().order_qty, world.mirror.unanswered_count) == (100, 0)


def test_the_candidate_replaces_where_the_incumbent_cancels(world: VenueBench) -> None:
    """Each goes its own way when the patience is over."""
    world.deliver(
        [
            new_request("1", price=990),
            make_report("new"),
            replace_request("2", "1", 90, 995),
            make_report("canceled", is_requested=True),
        ]
    )
    world.advance(2.1)
    assert (world.order().ord_status, world.order().price) == (OrdStatus.NEW, 995)
    assert world.replication_counts == (1, 0, 1)
    world.mirror.on_market(make_trade(OPEN, 980, 30))
    assert world.order().cum_qty == 30


def test_sent_again_while_held(world: VenueBench) -> None:
    """With PossResend one answer is enough; without it the ClOrdID is a duplicate."""
    world.deliver(
        [
            new_request("1"),
            new_request("1", poss_resend=True),
            replace_request("2", "1", 90),
            new_request("1"),
            new_request("2", poss_resend=True),
        ]
    )
    assert world.message_kinds() == ["REJECTED", "REJECTED"]
    world.deliver(
        [make_report("new"), make_report("replaced"), new_request("1", 90, poss_resend=True), new_request("1", 90)]
    )
    assert world.message_kinds()[2:] == ["NEW", "REPLACED", "ORDER_STATUS", "REJECTED"]
    assert world.mirror.unanswered_count == 0


def test_a_cancel_sent_twice(world: VenueBench) -> None:
    """The second finds nothing to cancel."""
    world.deliver(
        [new_request("1"), make_report("new"), cancel_request("2", "1"), cancel_request("2", "1", poss_resend=True)]
    )
    world.deliver([make_report("canceled", is_requested=True)])
    world.advance(3)
    assert world.message_kinds() == ["NEW", "CANCELED", "CancelReject"]


def test_a_question_waits_for_what_was_asked_before_it(world: VenueBench) -> None:
    """It answers nothing by itself, and it is answered when its time has come, of its account only."""
    other_messages: list[Inbound] = []
    world.mirror.attach(["B"], other_messages.append)
    query = Query(msg_type=MsgType.ORDER_STATUS_REQUEST, req_id="q", account=A, cl_ord_id="1")
    world.deliver([new_request("1", price=1010), query, new_request("2")])
    world.deliver([msgspec.structs.replace(query, account="B", req_id="b")])
    assert [message.req_id for message in other_messages if isinstance(message, ExecutionReport)] == ["b"]
    assert (world.mirror.unanswered_count, world.message_kinds()) == (3, [])
    world.deliver([make_report("new")])
    assert (world.message_kinds(), world.order().cum_qty) == (["NEW", "ORDER_STATUS"], 0)
    world.deliver([query])
    world.advance(2.1)
    assert world.message_kinds()[2:] == ["NEW", "ORDER_STATUS"]
    assert world.mirror.unanswered_count == 0


def test_a_link_is_not_quiet_while_something_is_held() -> None:
    """What the client believes and what the venue knows may differ as long."""
    clock = VirtualClock(OPEN)
    mirror = ReplicatingVenue(clock, INSTRUMENTS)
    link = SimulatedLink(clock, mirror, [A])
    mirror.begin("2024-01-02", OPEN, CLOSE)
    link.attach().connect(1, 1)
    clock.run_until(OPEN + S)
    assert link.is_quiet
    link.send(new_request("1"))
    clock.run_until(OPEN + 2 * S)
    assert (link.in_flight, mirror.unanswered_count, link.is_quiet) == (0, 1, False)
    mirror.apply_report(make_report("new"))
    clock.run_until(OPEN + 3 * S)
    assert (mirror.unanswered_count, link.is_quiet) == (0, True)


def test_in_sequence_the_nth_meets_the_nth() -> None:
    """By account, symbol and side; a cancel of an order that nobody knows takes no place."""
    world = VenueBench(match="sequence")
    world.deliver(
        [cancel_request("x", "nothing"), new_request("c1"), new_request("c2", side=Side.SELL), new_request("c3")]
    )
    world.deliver(
        [
            make_report("sent", "i1"),
            make_report("sent", "i2", side="2"),
            make_report("new", "i2", side="2"),
            make_report("sent", "i3"),
        ]
    )
    world.deliver(
        [make_report("new", "i3"), make_report("trade", "i3", last_qty=7, last_px=1000), make_report("rejected", "i1")]
    )
    assert (world.mirror.order_record("c1"), world.order("c2").ord_status) == (None, OrdStatus.NEW)
    assert world.order("c3").cum_qty == 7
    world.deliver(
        [
            replace_request("c4", "c3", 50),
            make_report("replaced", "i3"),
            cancel_request("c5", "c4"),
            make_report("canceled", "i3", is_requested=True),
        ]
    )
    assert (world.order("c3").ord_status, world.order("c3").order_qty) == (OrdStatus.CANCELED, 50)
    world.advance(3)
    assert world.replication_counts == (0, 0, 1)


def test_orders_that_both_have_begun_with_are_told_by_their_names() -> None:
    """A state of a plain venue: in sequence, too, a carried order is the incumbent's of the same ClOrdID."""
    venue = Venue(VirtualClock(OPEN), INSTRUMENTS)
    venue.begin("2024-01-02", OPEN, CLOSE)
    venue.receive(new_request("old", price=900, time_in_force=TimeInForce.GTC))
    world = VenueBench(match="sequence")
    world.mirror.restore_bytes(venue.to_bytes())
    world.deliver([make_report("sent", "old"), make_report("trade", "old", last_qty=30, last_px=900)])
    world.deliver(
        [
            new_request("c1"),
            make_report("sent", "i1"),
            make_report("new", "i1"),
            cancel_request("c2", "old"),
            make_report("canceled", "old", is_requested=True),
        ]
    )
    assert (world.order("old").cum_qty, world.order("old").ord_status) == (30, OrdStatus.CANCELED)
    assert world.order("c1").ord_status == OrdStatus.NEW
    assert world.replication_counts == (0, 0, 0)


# -- the close and the night --------------------------------------------------------------------------------------


def pass_night(world: VenueBench) -> None:
    """Close the session, pass the night and begin the next day."""
    world.clock.run_until(CLOSE)
    world.mirror.end()
    world.mirror.overnight()
    world.clock.run_until(OPEN + DAY)
    world.mirror.begin("2024-01-03", OPEN + DAY, CLOSE + DAY)


def test_at_the_close_nothing_waits_any_more(world: VenueBench) -> None:
    """Requests are answered, reports left out, questions told; the expiry is the venue's own."""
    world.deliver([new_request("1"), make_report("new")])
    world.clock.run_until(CLOSE)
    query = Query(msg_type=MsgType.ORDER_MASS_STATUS_REQUEST, req_id="q", account=A)
    world.deliver(
        [
            make_report("expired"),
            new_request("2"),
            cancel_request("3", "1"),
            query,
            make_report("trade", "9", last_qty=5, last_px=1),
        ]
    )
    assert world.message_kinds() == ["NEW"]
    world.mirror.end()
    assert world.mirror.unanswered_count == 0
    assert world.message_kinds() == ["NEW", "NEW", "CANCELED", "ORDER_STATUS", "EXPIRED"]
    assert world.replication_counts == (1, 5, 2)
    world.advance(10)
    assert world.replication_counts == (1, 5, 2)


def test_a_carried_order_is_filled_by_the_incumbents_fills_of_the_next_day(world: VenueBench) -> None:
    """Not by the market, and not at once."""
    world.deliver(
        [new_request("1", price=990, time_in_force=TimeInForce.GTC), make_report("trade", last_qty=30, last_px=990)]
    )
    pass_night(world)
    assert world.order().ord_status == OrdStatus.PARTIALLY_FILLED
    world.mirror.on_market(make_trade(OPEN + DAY, 900, 1000))
    assert world.order().cum_qty == 30
    world.deliver([make_report("trade", last_qty=70, last_px=989), make_report("filled")])
    assert (world.order().ord_status, world.order().notional) == (OrdStatus.FILLED, 30 * 990 + 70 * 989)
    assert world.mirror.positions["A/ACME"].net_qty == 100


# -- memory -------------------------------------------------------------------------------------------------------

MIXED_STEPS: list[Any] = [
    new_request("1", 50, 990),
    make_report("new"),
    make_report("trade", last_qty=60, last_px=990, exec_id="d/1"),
    new_request("2", 100, 985),
    replace_request("3", "2", 90, 986),
    Query(msg_type=MsgType.ORDER_STATUS_REQUEST, req_id="q", account=A, cl_ord_id="2"),
    make_report("new", "8"),
    make_report("sent", "4"),
    new_request("5", 10, 980, time_in_force=TimeInForce.GTC),
    make_report("new", "5"),
    make_report("canceled", "5", is_requested=True),
    cancel_request("6", "5"),
    make_report("new", "2"),
    make_report("correct", exec_ref_id="d/1", exec_id="d/2", last_qty=40, last_px=989),
    make_report("replaced", "2"),
    make_report("trade", "2", last_qty=20, last_px=986, exec_id="d/3"),
    new_request("4"),
    make_report("rejected", "4"),
    make_report("bust", "2", exec_ref_id="d/3", exec_id="d/4"),
    make_report("canceled", "2", is_requested=True),
]


def bench_state(world: VenueBench) -> Any:
    """Return the state of the venue and of its clock."""
    return world.mirror.to_bytes(), world.clock.pending_timers(), world.mirror.stats


@pytest.mark.parametrize("match", ["id", "sequence"])
@pytest.mark.parametrize("method", ["to_bytes", "checkpoint"])
def test_a_state_taken_anywhere_goes_on_the_same(method: str, match: str) -> None:
    """Dumped and loaded elsewhere, or kept and put back after anything else: the same continuation."""

    def run_rest(world: VenueBench, at: int) -> None:
        for step in MIXED_STEPS[at:]:
            world.deliver([step])
            world.advance(0.3)
        world.mirror.on_market(make_trade(OPEN, 970, 500))
        pass_night(world)

    uninterrupted = VenueBench(match=match)
    run_rest(uninterrupted, 0)
    for at in range(len(MIXED_STEPS) + 1):
        world = VenueBench(match=match)
        for step in MIXED_STEPS[:at]:
            world.deliver([step])
            world.advance(0.3)
        if method == "to_bytes":
            restored = VenueBench(match=match)
            restored.clock.restore_bytes(world.clock.to_bytes())
            restored.mirror.restore_bytes(world.mirror.to_bytes())
            restored.messages = world.messages
            restored.mirror.attach([A], restored.messages.append)
        else:
            restored, checkpoint, clock = world, world.mirror.checkpoint(), world.clock.checkpoint()
            sent_messages = list(world.messages)
            run_rest(world, 0)
            world.clock.rollback(clock)
            world.mirror.rollback(checkpoint)
            world.messages[:] = sent_messages
        run_rest(restored, at)
        assert bench_state(restored) == bench_state(uninterrupted), at
        assert restored.messages == uninterrupted.messages, at


# -- laws ---------------------------------------------------------------------------------------------------------


class IncumbentVenue:
    """The incumbent's venue; its messages become reports as a journal or a FIX log has them."""

    def __init__(self) -> None:
        self.clock = VirtualClock(OPEN)
        self.venue = Venue(self.clock, INSTRUMENTS)
        self.reports: list[IncumbentReport] = []
        self.venue.attach([A], self._on_message)
        self.venue.begin("2024-01-02", OPEN, CLOSE)
        self.current: dict[str, str] = {}

    def _on_message(self, message: Inbound) -> None:
        if isinstance(message, CancelReject):
            root = self.venue.roots.get(message.orig_cl_ord_id, message.orig_cl_ord_id)
            self.reports.append(make_report("refused", root))
        if not isinstance(message, ExecutionReport):
            return
        kinds: dict[ExecType, ReportKind] = {
            ExecType.NEW: "new",
            ExecType.REJECTED: "rejected",
            ExecType.TRADE: "trade",
            ExecType.REPLACED: "replaced",
            ExecType.CANCELED: "canceled",
            ExecType.EXPIRED: "expired",
            ExecType.TRADE_CANCEL: "bust",
            ExecType.TRADE_CORRECT: "correct",
        }
        kind = kinds.get(message.exec_type)
        if kind is None:
            return
        root = self.venue.roots.get(message.cl_ord_id, message.cl_ord_id)
        self.reports.append(
            make_report(
                kind,
                root,
                symbol=message.symbol,
                side=message.side.value,
                last_qty=message.last_qty,
                last_px=message.last_px,
                exec_id=f"{message.trade_date}/{message.exec_id}" if message.last_qty or kind == "bust" else "",
                exec_ref_id=f"{message.exec_ref_date}/{message.exec_ref_id}" if message.exec_ref_id else "",
                is_requested=kind == "canceled" and self.cancel_requested,
            )
        )
        if kind in ("trade", "correct") and message.ord_status == OrdStatus.FILLED:
            self.reports.append(make_report("filled", root))

    cancel_requested = False

    def send_request(self, request: Request) -> None:
        """Send a request of the incumbent to its venue."""
        self.cancel_requested = request.msg_type == MsgType.ORDER_CANCEL_REQUEST
        self.venue.receive(request)
        self.cancel_requested = False


SIDES = st.sampled_from([Side.BUY, Side.SELL])
PRICES = st.integers(995, 1005)
TIFS = st.sampled_from([TimeInForce.DAY, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("new"), SIDES, st.integers(-1, 40), PRICES, TIFS, st.sampled_from(["ACME", "BOLT", "?"])),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("replace"), st.integers(0, 9), st.integers(1, 40), PRICES),
        st.tuples(st.just("quote"), st.integers(995, 1003), st.integers(1, 4), st.integers(0, 40), st.integers(0, 1)),
        st.tuples(st.just("trade"), PRICES, st.integers(1, 40), st.integers(0, 1)),
        st.tuples(st.just("unasked"), st.integers(0, 9)),
        st.tuples(st.just("bust"), st.integers(0, 9)),
        st.tuples(st.just("correct"), st.integers(0, 9), st.integers(0, 10), PRICES),
        st.tuples(st.just("late"), st.integers(0, 9), st.integers(1, 40)),
        st.tuples(st.just("refuse")),
        st.tuples(st.just("halt"), st.integers(0, 1), st.integers(1, 2)),
        st.tuples(st.just("resend"), st.integers(0, 9)),
    ),
    max_size=25,
)


class IncumbentStory:
    """Play actions on the incumbent's venue; keep its requests and its market events."""

    def __init__(self, incumbent: IncumbentVenue, names: Iterator[int]) -> None:
        self.incumbent, self.names = incumbent, names
        self.requests: list[Request] = []
        self.market: list[tuple[int, ...]] = []
        self.last: dict[str, str] = {}

    def _send_request(self, request: Request) -> None:
        self.requests.append(request)
        self.incumbent.send_request(request)

    def _apply_event(self, event: tuple[int, ...]) -> None:
        self.market.append(event)
        self.incumbent.venue.on_market(event)

    def _latest_order(self, number: int) -> Any:
        orders = list(self.incumbent.venue.orders.values())
        return orders[-1 - number] if number < len(orders) else None

    def play(self, action: tuple[Any, ...]) -> None:
        """Play one action."""
        kind, *rest = action
        venue = self.incumbent.venue
        now_ns = self.incumbent.clock.now_ns
        if kind == "new":
            side, quantity, price, tif, symbol = rest
            name = f"N{next(self.names)}"
            self._send_request(new_request(name, quantity, price, side=side, time_in_force=tif, symbol=symbol))
        elif kind == "resend":
            new_orders = [request for request in self.requests if request.msg_type == MsgType.NEW_ORDER_SINGLE]
            if rest[0] < len(new_orders):  # one that the venue took; a rejected one would be a new order
                resent = new_orders[-1 - rest[0]]
                if resent.cl_ord_id in venue.orders:
                    self._send_request(msgspec.structs.replace(resent, poss_resend=True))
        elif kind in ("cancel", "replace"):
            order = self._latest_order(rest[0])
            orig = order.cl_ord_id if order else "nothing"
            name, options = f"N{next(self.names)}", {"symbol": order.symbol if order else "ACME"}
            options["side"] = order.side if order else Side.BUY
            self._send_request(
                cancel_request(name, orig, **options)
                if kind == "cancel"
                else replace_request(name, orig, *rest[1:], **options)
            )
        elif kind == "quote":
            bid, width, size, number = rest
            self._apply_event(make_quote(now_ns, bid, bid + width, size, number))
        elif kind == "trade":
            self._apply_event(make_trade(now_ns, rest[0], rest[1], rest[2]))
        elif kind == "halt":
            self._apply_event(make_status(now_ns, rest[1], rest[0]))
        elif kind in ("unasked", "late"):
            order = self._latest_order(rest[0])
            if order is not None:
                venue.cancel_order(order.cl_ord_id) if kind == "unasked" else venue.late_fill(order.cl_ord_id, rest[1])
        elif kind in ("bust", "correct") and rest[0] < len(venue.trades):
            named = venue.trades[-1 - rest[0]]
            if kind == "bust":
                venue.bust_trade(named.exec_id, named.trade_date)
            else:
                venue.correct_trade(named.exec_id, min(rest[1], named.last_qty), rest[2], named.trade_date)
        elif kind == "refuse":
            venue.refuse_count = 1


FIELDS = ("ord_status", "cum_qty", "leaves_qty", "notional", "price", "order_qty", "cl_ord_id", "symbol", "side")


def order_fields(venue: Venue) -> dict[str, tuple[Any, ...]]:
    """The orders of a venue."""
    return {root: tuple(getattr(order.to_record(), name) for name in FIELDS) for root, order in venue.orders.items()}


def merge_streams(data: st.DataObject, *streams: Sequence[Any]) -> Iterator[Any]:
    """Several sequences as one, each in its own order."""
    remaining = [list(reversed(stream)) for stream in streams]
    while any(remaining):
        yield data.draw(st.sampled_from([stream for stream in remaining if stream])).pop()


@settings(deadline=None)
@given(st.data())
def test_whoever_asks_the_same_is_answered_the_same(data: st.DataObject) -> None:
    """Any story, any interleaving within the patience, two days: every order ends as the incumbent's did.

    A guard that is told of the candidate's venue finds nothing wrong with it.
    """
    incumbent, candidate = IncumbentVenue(), VenueBench()
    guard = make_observing_guard(candidate)
    story = IncumbentStory(incumbent, count())
    for day in (0, 1):
        reports, requests, market = len(incumbent.reports), len(story.requests), len(story.market)
        for action in data.draw(ACTIONS):
            story.play(action)
        incumbent.venue.refuse_count = 0
        candidate.mirror.refuse_count = 0
        for item in merge_streams(data, story.requests[requests:], incumbent.reports[reports:], story.market[market:]):
            if isinstance(item, tuple):
                candidate.mirror.on_market(item)
            else:
                candidate.deliver([item])
            candidate.advance(0.01)
        assert candidate.mirror.unanswered_count == 0
        assert order_fields(candidate.mirror) == order_fields(incumbent.venue)
        assert net_positions(candidate.mirror) == net_positions(incumbent.venue)
        assert guard.breaches == []
        assert guard.monitor.check_count or not candidate.mirror.orders
        candidate.advance(3)
        assert candidate.replication_counts == (0, 0, 0)
        if day:
            break
        for venue, clock in ((candidate.mirror, candidate.clock), (incumbent.venue, incumbent.clock)):
            clock.run_until(CLOSE)
            venue.end()
            venue.overnight()
            clock.run_until(OPEN + DAY)
            venue.begin("2024-01-03", OPEN + DAY, CLOSE + DAY)
        assert order_fields(candidate.mirror) == order_fields(incumbent.venue)


def make_observing_guard(world: VenueBench) -> Guard:
    """Return a guard that checks every record of the venue."""
    guard = Guard(
        Path("unused"),
        catalogue=CATALOGUE,
        clock=lambda: world.clock.now_ns,
        channels=[],
        store=FreezeStore.in_memory(),
    )
    world.mirror.reports.observe = lambda record: guard.record("venue", record)
    return guard


def net_positions(venue: Venue) -> dict[str, int]:
    """Return the nonzero net quantities of a venue by position key."""
    return {key: position.net_qty for key, position in venue.positions.items() if position.net_qty}


NAMES = st.sampled_from(["1", "2", "3", ""])
REPORTS = st.builds(
    IncumbentReport,
    kind=st.sampled_from(
        ["sent", "new", "rejected", "trade", "filled", "replaced", "canceled", "expired", "refused", "bust", "correct"]
    ),
    order=NAMES,
    account=st.sampled_from([A, "", "Z"]),
    symbol=st.sampled_from(["ACME", "BOLT", "", "?"]),
    side=st.sampled_from(["1", "2", "", "x"]),
    last_qty=st.integers(-5, 120),
    last_px=st.integers(-5, 2000),
    exec_id=st.sampled_from(["", "e1", "e2", "e3"]),
    exec_ref_id=st.sampled_from(["", "e1", "e2", "e3"]),
    is_requested=st.booleans(),
)
REQUESTS = st.one_of(
    st.builds(
        new_request,
        NAMES,
        st.integers(-1, 120),
        PRICES,
        side=SIDES,
        time_in_force=TIFS,
        symbol=st.sampled_from(["ACME", "BOLT"]),
        poss_resend=st.booleans(),
    ),
    st.builds(cancel_request, st.sampled_from(["7", "8", "1"]), NAMES),
    st.builds(replace_request, st.sampled_from(["5", "6", "2"]), NAMES, st.integers(0, 120), PRICES),
    st.builds(
        Query,
        msg_type=st.sampled_from([MsgType.ORDER_STATUS_REQUEST, MsgType.TRADE_CAPTURE_REPORT_REQUEST]),
        req_id=NAMES,
        account=st.just(A),
        cl_ord_id=NAMES,
    ),
)
MARKET = st.one_of(
    st.builds(make_quote, st.just(OPEN), st.integers(995, 1003), st.integers(1001, 1009), st.integers(0, 100)),
    st.builds(make_trade, st.just(OPEN), PRICES, st.integers(1, 100)),
)


def check_venue(world: VenueBench) -> None:
    """CumQty and LeavesQty fit OrderQty, positions are the sum of the trades, a followed order is in no book."""
    net: dict[str, int] = {}
    notional: dict[str, int] = {}
    signs = {"1": 1, "2": -1}
    amended = {(trade.exec_ref_id, trade.exec_ref_date) for trade in world.mirror.trades if trade.exec_ref_id}
    for trade in world.mirror.trades:
        if (trade.exec_id, trade.trade_date) in amended or trade.exec_type == ExecType.TRADE_CANCEL:
            continue
        net[f"{trade.account}/{trade.symbol}"] = (
            net.get(f"{trade.account}/{trade.symbol}", 0) + signs[trade.side.value] * trade.last_qty
        )
        root = world.mirror.roots[trade.cl_ord_id]
        notional[root] = notional.get(root, 0) + trade.last_qty * trade.last_px
    assert net_positions(world.mirror) == {key: quantity for key, quantity in net.items() if quantity}
    for root, order in world.mirror.orders.items():
        assert 0 <= order.cum_qty <= order.order_qty
        assert order.notional == notional.get(root, 0)
        assert (order.cum_qty + order.leaves_qty == order.order_qty) or not order.is_open
        assert (order.ord_status == OrdStatus.FILLED) <= (order.cum_qty == order.order_qty)
        book = world.mirror.books[order.symbol]
        places = sum(order is book_order for book_order in (*book.buys, *book.sells, *book.stops))
        followed = world.mirror.counterparts.key_of(order.root_cl_ord_id) in world.mirror.counterparts.followed_keys
        assert places == int(
            order.is_open and not followed and order.time_in_force not in (TimeInForce.IOC, TimeInForce.FOK)
        )


@given(
    st.lists(st.one_of(REPORTS, REQUESTS, MARKET, st.sampled_from([0.5, 1.0, 2.5, "night"])), max_size=40),
    st.sampled_from(["id", "sequence"]),
)
def test_whatever_is_reported_the_venue_stays_true(story: list[Any], match: str) -> None:
    """Garbage, foreign symbols, wrong order, duplicates, time and nights between: consistent after each of them."""
    world = VenueBench(match=match)
    days = 0
    for step in story:
        if step == "night":
            if not days:
                pass_night(world)
            days += 1
        elif isinstance(step, float):
            world.advance(step)
        elif isinstance(step, tuple):
            world.mirror.on_market(step)
        else:
            world.deliver([step])
        check_venue(world)
        restored = VenueBench(match=match)
        restored.mirror.restore_bytes(world.mirror.to_bytes())
        assert restored.mirror.to_bytes() == world.mirror.to_bytes()
