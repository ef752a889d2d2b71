"""A venue that answers the candidate as the incumbent was answered: every report, in both orders of arrival."""

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
from holdover.world import Clock, Link, Mirror, Reported, Venue
from holdover.world.mirror import What

S = 1_000_000_000
OPEN, CLOSE = 1_000 * S, 5_000 * S
DAY = 100_000 * S
INSTRUMENTS = (Instrument(symbol="ACME"), Instrument(symbol="BOLT"))
A = "A"
CATALOGUE = Catalogue.load()


def new(name: str, quantity: int = 100, price: int | None = 1000, **more: Any) -> Request:
    """A new order."""
    told: dict[str, Any] = {"symbol": "ACME", "side": Side.BUY, "account": A, **more}
    return Request(
        msg_type=MsgType.NEW_ORDER_SINGLE, cl_ord_id=name, root_cl_ord_id=name, order_qty=quantity, price=price, **told
    )


def cancel(name: str, orig: str, **more: Any) -> Request:
    """A cancel."""
    told: dict[str, Any] = {"symbol": "ACME", "side": Side.BUY, "account": A, **more}
    return Request(msg_type=MsgType.ORDER_CANCEL_REQUEST, cl_ord_id=name, orig_cl_ord_id=orig, order_qty=100, **told)


def replace(name: str, orig: str, quantity: int = 100, price: int | None = 1000, **more: Any) -> Request:
    """A replace."""
    told: dict[str, Any] = {"symbol": "ACME", "side": Side.BUY, "account": A, **more}
    return Request(
        msg_type=MsgType.ORDER_CANCEL_REPLACE_REQUEST,
        cl_ord_id=name,
        orig_cl_ord_id=orig,
        order_qty=quantity,
        price=price,
        **told,
    )


def told(what: What, order: str = "1", **more: Any) -> Reported:
    """A report of the incumbent's."""
    return Reported(**{"what": what, "order": order, "account": A, "symbol": "ACME", "side": "1", **more})


def quote(time_ns: int, bid: int, ask: int, size: int = 1000, number: int = 0) -> tuple[int, ...]:
    """A quote."""
    return time_ns, number, QUOTE, 0, 0, 0, 0, bid, ask, size, size


def traded(time_ns: int, price: int, size: int, number: int = 0) -> tuple[int, ...]:
    """A trade of the market."""
    return time_ns, number, TRADE, 0, 0, price, size, UNDEF_PRICE, UNDEF_PRICE, 0, 0


def status(time_ns: int, flags: int, number: int = 0) -> tuple[int, ...]:
    """The book opens (1), halts (2)."""
    return time_ns, number, STATUS, flags, 0, 0, 0, UNDEF_PRICE, UNDEF_PRICE, 0, 0


class World:
    """A mirror in an open session; what it sent, and what it said of its orders."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock(OPEN)
        self.mirror = Mirror(self.clock, INSTRUMENTS, **options)
        self.sent: list[Inbound] = []
        self.mirror.attach([A], self.sent.append)
        self.mirror.begin("2024-01-02", OPEN, CLOSE)
        self.mirror.on_market(quote(OPEN, 990, 1010))

    def on(self, seconds: float) -> None:
        """Time passes."""
        self.clock.run_until(self.clock.now_ns + round(seconds * S))

    def both(self, what: Sequence[Request | Query | Reported]) -> None:
        """Requests arrive and reports are heard, in this order."""
        for one in what:
            self.mirror.hear(one) if isinstance(one, Reported) else self.mirror.receive(one)

    def order(self, name: str = "1") -> Order:
        """The truth of an order."""
        found = self.mirror.order(name)
        assert found is not None
        return found

    def kinds(self) -> list[str]:
        """What was sent: ExecTypes, or CancelReject."""
        pending = (ExecType.PENDING_CANCEL, ExecType.PENDING_REPLACE)
        return [
            one.exec_type.name if isinstance(one, ExecutionReport) else type(one).__name__
            for one in self.sent
            if isinstance(one, CancelReject) or (isinstance(one, ExecutionReport) and one.exec_type not in pending)
        ]

    @property
    def followed(self) -> tuple[int, int, int]:
        """Reports left out, their lots, requests alone."""
        told = self.mirror.followed
        return told.left_out, told.left_out_qty, told.alone


@pytest.fixture
def world() -> World:
    """One."""
    return World()


# -- each report, before the candidate's request and after it -----------------------------------------------------

TRADED = {"last_qty": 30, "last_px": 999, "exec_id": "d/E1"}
STORIES: dict[str, tuple[list[Request], list[Reported], OrdStatus | None, int, list[str]]] = {
    "sent": ([], [told("sent")], None, 0, []),
    "new": ([new("1")], [told("sent"), told("new")], OrdStatus.NEW, 0, ["NEW"]),
    "rejected": ([new("1")], [told("rejected", text="no")], None, 0, ["REJECTED"]),
    "trade": ([new("1")], [told("new"), told("trade", **TRADED)], OrdStatus.PARTIALLY_FILLED, 30, ["NEW", "TRADE"]),
    "filled": (
        [new("1", 30)],
        [told("new"), told("trade", **TRADED), told("filled")],
        OrdStatus.FILLED,
        30,
        ["NEW", "TRADE"],
    ),
    "replaced": (
        [new("1"), replace("2", "1", 80, 1005)],
        [told("new"), told("replaced")],
        OrdStatus.NEW,
        0,
        ["NEW", "REPLACED"],
    ),
    "canceled": (
        [new("1"), cancel("2", "1")],
        [told("new"), told("canceled", asked=True)],
        OrdStatus.CANCELED,
        0,
        ["NEW", "CANCELED"],
    ),
    "canceled unasked": ([new("1")], [told("new"), told("canceled")], OrdStatus.CANCELED, 0, ["NEW", "CANCELED"]),
    "canceled unasked, and asked too late": (
        [new("1"), cancel("2", "1")],
        [told("new"), told("canceled"), told("refused")],
        OrdStatus.CANCELED,
        0,
        ["NEW", "CANCELED", "CancelReject"],
    ),
    "expired IOC": (
        [new("1", time_in_force=TimeInForce.IOC)],
        [told("new"), told("trade", **TRADED), told("expired")],
        OrdStatus.EXPIRED,
        30,
        ["NEW", "TRADE", "EXPIRED"],
    ),
    "canceled FOK": (
        [new("1", time_in_force=TimeInForce.FOK)],
        [told("new"), told("canceled")],
        OrdStatus.CANCELED,
        0,
        ["NEW", "CANCELED"],
    ),
    "expired DAY": ([new("1")], [told("new"), told("expired")], OrdStatus.EXPIRED, 0, ["NEW", "EXPIRED"]),
    "expired GTC": (
        [new("1", time_in_force=TimeInForce.GTC)],
        [told("new"), told("expired")],
        OrdStatus.EXPIRED,
        0,
        ["NEW", "EXPIRED"],
    ),
    "refused": (
        [new("1"), cancel("2", "1")],
        [told("new"), told("refused")],
        OrdStatus.NEW,
        0,
        ["NEW", "CancelReject"],
    ),
    "refused replace of an unknown order": ([replace("2", "1")], [told("refused")], None, 0, ["CancelReject"]),
    "bust": (
        [new("1")],
        [told("new"), told("trade", **TRADED), told("bust", exec_ref_id="d/E1", exec_id="d/E2")],
        OrdStatus.NEW,
        0,
        ["NEW", "TRADE", "TRADE_CANCEL"],
    ),
    "correct": (
        [new("1")],
        [
            told("new"),
            told("trade", **TRADED),
            told("correct", exec_ref_id="d/E1", exec_id="d/E2", last_qty=25, last_px=998),
        ],
        OrdStatus.PARTIALLY_FILLED,
        25,
        ["NEW", "TRADE", "TRADE_CORRECT"],
    ),
    "a fill that crossed the cancel": (
        [new("1"), cancel("2", "1")],
        [told("new"), told("canceled", asked=True), told("trade", **TRADED)],
        OrdStatus.CANCELED,
        30,
        ["NEW", "CANCELED", "TRADE"],
    ),
}


def between(requests: Sequence[Any], reports: Sequence[Any]) -> list[Any]:
    """One of each in turn."""
    found = []
    for number in range(max(len(requests), len(reports))):
        found += [*requests[number : number + 1], *reports[number : number + 1]]
    return found


@pytest.mark.parametrize("order", ["requests", "reports", "in turn"])
@pytest.mark.parametrize("name", STORIES)
def test_each_report_in_both_orders(world: World, name: str, order: str) -> None:
    """The order ends as the incumbent's, the candidate hears the same, and nothing is left out or alone."""
    requests, reports, ended, cum_qty, kinds = STORIES[name]
    world.both(
        {
            "requests": [*requests, *reports],
            "reports": [*reports, *requests],
            "in turn": between(requests, reports),
        }[order]
    )
    found = world.mirror.order("1")
    assert (found.ord_status if found else None) == ended
    assert (found.cum_qty if found else 0) == cum_qty
    assert world.kinds() == kinds
    assert world.mirror.holding == 0
    world.on(10)
    assert world.followed == (0, 0, 0)
    assert world.kinds() == kinds


def test_what_a_report_says_reaches_the_candidate(world: World) -> None:
    """Text, quantity and price."""
    world.both([new("1"), told("rejected", text="margin"), new("2"), told("trade", "2", **TRADED)])
    rejected, traded_ = world.sent[-3], world.sent[-1]
    assert isinstance(rejected, ExecutionReport)
    assert rejected.text == "margin"
    assert isinstance(traded_, ExecutionReport)
    assert (traded_.last_qty, traded_.last_px, traded_.notional) == (30, 999, 30 * 999)
    world.both([replace("3", "2", 80, 1005), told("replaced", "2")])
    assert (world.order("2").order_qty, world.order("2").leaves_qty, world.order("2").price) == (80, 50, 1005)


# -- whom the market fills ----------------------------------------------------------------------------------------


def test_the_market_does_not_fill_what_the_incumbent_fills(world: World) -> None:
    """An order with a counterpart stays out of the book, whether it crosses when it comes or later."""
    world.both([new("1", price=1010), told("new")])
    world.mirror.on_market(traded(OPEN, 900, 10_000))
    world.mirror.on_market(quote(OPEN, 890, 900))
    assert world.order().cum_qty == 0
    world.both([replace("2", "1", 100, 1020), told("replaced")])
    assert (world.order().cum_qty, world.mirror.books["ACME"].buys) == (0, [])


def test_what_the_incumbent_never_sent_is_matched_against_the_market(world: World) -> None:
    """After the patience, and not before."""
    world.both([new("1", price=1010)])
    world.on(1.9)
    assert (world.mirror.order("1"), world.mirror.holding) == (None, 1)
    world.on(0.2)
    assert (world.order().ord_status, world.order().cum_qty) == (OrdStatus.FILLED, 100)
    assert world.followed == (0, 0, 1)
    world.both([new("2", price=990)])
    world.on(2.1)
    world.mirror.on_market(traded(OPEN, 980, 60))
    assert world.order("2").cum_qty == 60
    world.both([cancel("3", "2")])
    world.on(2.1)
    assert world.order("2").ord_status == OrdStatus.CANCELED
    assert world.followed == (0, 0, 3)


def test_an_order_whose_report_comes_late_has_its_counterpart_again(world: World) -> None:
    """It was accepted alone, rests in the market, and leaves it."""
    world.both([new("1", price=990)])
    world.on(3)
    assert len(world.mirror.books["ACME"].buys) == 1
    world.both([told("sent"), told("new"), told("trade", last_qty=40, last_px=990)])
    world.mirror.on_market(traded(OPEN, 980, 60))
    assert (world.order().cum_qty, world.mirror.books["ACME"].buys) == (40, [])
    world.both([told("rejected", "2")])
    world.on(3)
    assert world.followed == (1, 0, 1)


def test_an_order_that_was_accepted_alone_and_then_rejected_is_taken_back(world: World) -> None:
    """The incumbent's was rejected; the candidate's is cancelled."""
    world.both([new("1", price=990)])
    world.on(3)
    world.both([told("rejected")])
    assert world.order().ord_status == OrdStatus.CANCELED
    world.on(3)
    assert world.followed == (0, 0, 1)


def test_reports_without_an_order_are_left_out_and_an_order_that_comes_after_them_stands_alone(world: World) -> None:
    """Nothing of a counterpart that is over can fill it: the market does."""
    world.both([told("sent"), told("new"), told("trade", last_qty=100, last_px=1000), told("filled")])
    world.on(2.1)
    assert world.followed == (2, 100, 0)
    world.both([new("1", price=990)])
    world.on(2.1)
    world.mirror.on_market(traded(OPEN, 980, 100))
    assert world.order().ord_status == OrdStatus.FILLED


def test_an_order_that_comes_late_takes_what_is_still_to_come(world: World) -> None:
    """Its counterpart is still open: the fills from here on are its own."""
    world.both([told("sent"), told("new")])
    world.on(3)
    world.both([new("1", price=990)])
    world.on(3)
    world.mirror.on_market(traded(OPEN, 980, 100))
    assert world.order().cum_qty == 0
    world.both([told("trade", last_qty=100, last_px=990), told("filled")])
    assert world.order().ord_status == OrdStatus.FILLED
    assert world.followed == (1, 0, 1)


def test_the_incumbent_cancelled_and_the_candidate_did_not(world: World) -> None:
    """From the end of the patience on it stands alone, and stays so whatever is told of the other."""
    world.both([new("1", price=990), told("new"), told("canceled", asked=True)])
    world.mirror.on_market(traded(OPEN, 980, 10))
    assert world.order().cum_qty == 0
    world.on(2.1)
    world.mirror.on_market(traded(OPEN, 980, 10))
    assert world.order().cum_qty == 10
    world.both([told("refused"), told("trade", last_qty=5, last_px=990, exec_id="d/9")])
    world.on(2.1)
    world.mirror.on_market(traded(OPEN, 980, 20))
    assert world.order().cum_qty == 35
    assert world.followed == (2, 0, 0)


def test_a_smaller_order_takes_what_fits_and_a_larger_one_goes_on_alone(world: World) -> None:
    """What does not fit is counted, in lots; what is left is for the market."""
    world.both([new("1", 50), told("new")])
    world.both([told("trade", last_qty=40, last_px=1000), told("trade", last_qty=60, last_px=1000), told("filled")])
    assert (world.order().ord_status, world.order().cum_qty) == (OrdStatus.FILLED, 50)
    assert world.followed == (1, 50, 0)
    world.both([new("2", 150, 990), told("new", "2"), told("trade", "2", last_qty=100, last_px=990)])
    world.mirror.on_market(traded(OPEN, 980, 30))
    assert world.order("2").cum_qty == 100
    world.both([told("filled", "2")])
    world.mirror.on_market(traded(OPEN, 980, 30))
    assert world.order("2").cum_qty == 130


def test_what_is_left_of_a_larger_immediate_order_does_not_rest(world: World) -> None:
    """It takes what is displayed, and is cancelled."""
    world.both([new("1", 1500, 1010, time_in_force=TimeInForce.IOC), told("trade", last_qty=100, last_px=1010)])
    assert world.order().cum_qty == 100
    world.both([told("filled")])
    assert (world.order().cum_qty, world.order().ord_status) == (1100, OrdStatus.CANCELED)


def test_a_correction_never_passes_the_order(world: World) -> None:
    """The candidate's order is smaller: CumQty stays within OrderQty, the price is the corrected one."""
    world.both([new("1", 50), told("trade", last_qty=100, last_px=1000, exec_id="d/1"), told("filled")])
    world.both([told("correct", exec_id="d/2", exec_ref_id="d/1", last_qty=90, last_px=998)])
    assert (world.order().cum_qty, world.order().notional) == (50, 50 * 998)
    world.both([told("correct", exec_id="d/3", exec_ref_id="d/2", last_qty=-7, last_px=998)])
    assert (world.order().cum_qty, world.order().leaves_qty) == (0, 50)


def test_a_bust_opens_a_filled_order_again_and_it_is_the_incumbents_still(world: World) -> None:
    """The market does not fill what was taken back; the incumbent's next fill does."""
    world.both([new("1", price=990), told("trade", last_qty=100, last_px=990, exec_id="d/1"), told("filled")])
    world.both([told("bust", exec_ref_id="d/1", exec_id="d/2")])
    world.mirror.on_market(traded(OPEN, 980, 30))
    assert (world.order().ord_status, world.order().cum_qty) == (OrdStatus.NEW, 0)
    world.both([told("trade", last_qty=100, last_px=989, exec_id="d/3"), told("filled")])
    assert (world.order().ord_status, world.order().notional) == (OrdStatus.FILLED, 98_900)
    world.both([told("bust", exec_ref_id="d/1"), told("bust", exec_ref_id="d/77")])
    assert world.followed == (2, 0, 0)


def test_a_bust_of_yesterday_names_yesterdays_trade(world: World) -> None:
    """ExecIDs begin again each day: the trade of the same number today is another."""
    gtc = TimeInForce.GTC
    world.both([new("1", price=990, time_in_force=gtc), told("trade", last_qty=10, last_px=990, exec_id="d1/1")])
    overnight(world)
    world.both([new("2", price=991, time_in_force=gtc), told("trade", "2", last_qty=20, last_px=991, exec_id="d2/1")])
    world.both([told("bust", exec_ref_id="d1/1", exec_id="d2/2")])
    assert (world.order("1").cum_qty, world.order("2").cum_qty) == (0, 20)
    assert world.mirror.books["ACME"].buys == []


def test_a_stop_that_stands_alone_waits_for_its_trigger(world: World) -> None:
    """Neither its counterpart's end nor a replace puts it into the market before."""
    stop = {"ord_type": OrdType.STOP, "price": None, "stop_px": 1050}
    world.both([new("1", **stop), told("new"), told("canceled", asked=True)])
    world.on(2.1)
    world.mirror.on_market(quote(OPEN, 990, 1010))
    assert world.order().cum_qty == 0
    world.both([replace("2", "1", 60, **stop)])
    world.on(2.1)
    world.mirror.on_market(quote(OPEN, 990, 1010))
    assert (world.order().cum_qty, world.order().order_qty) == (0, 60)
    world.mirror.on_market(traded(OPEN, 1050, 1))
    assert world.order().ord_status == OrdStatus.FILLED


def test_a_book_that_is_shut_here_first_does_not_reject_what_was_taken_there(world: World) -> None:
    """Two feeds, two orders: the halt is seen before the request. What nobody took is rejected all the same."""
    world.mirror.on_market(status(OPEN, 2))
    world.both([new("1"), told("new"), new("2")])
    assert world.order().ord_status == OrdStatus.NEW
    world.on(2.1)
    assert world.kinds() == ["NEW", "REJECTED"]


def test_what_is_told_of_another_instrument_or_side_is_not_applied(world: World) -> None:
    """The same name for another order."""
    world.both([new("1"), told("new"), told("trade", symbol="BOLT", last_qty=10, last_px=5)])
    world.both([told("trade", side="2", last_qty=10, last_px=5), told("bust", symbol="BOLT", exec_ref_id="x")])
    assert world.order().cum_qty == 0
    assert world.followed == (3, 20, 0)


# -- chains, duplicates, questions --------------------------------------------------------------------------------


def test_a_chain_of_requests_waits_as_a_whole(world: World) -> None:
    """New, two replaces and a cancel before anything is heard; each is answered by its own report."""
    world.both([new("1"), replace("2", "1", 90), replace("3", "2", 80, 1001), cancel("4", "2")])
    assert world.mirror.holding == 4
    world.both([told("new"), told("trade", last_qty=10, last_px=1000), told("replaced")])
    assert (world.order().cl_ord_id, world.mirror.holding) == ("2", 2)
    world.both([told("refused"), told("canceled", asked=True)])
    assert world.kinds() == ["NEW", "TRADE", "REPLACED", "CancelReject", "CANCELED"]
    assert (world.order().ord_status, world.order().cum_qty, world.order().order_qty) == (OrdStatus.CANCELED, 10, 90)
    assert world.followed == (0, 0, 0)


def test_a_cancel_passes_a_replace_of_which_nothing_was_told(world: World) -> None:
    """A journal does not say that a replace was refused while a cancel waits; the cancel says it."""
    world.both([new("1"), told("new"), replace("2", "1", 90), cancel("3", "1"), told("canceled", asked=True)])
    assert world.kinds() == ["NEW", "CancelReject", "CANCELED"]
    assert (world.order().order_qty, world.mirror.holding) == (100, 0)


def test_the_candidate_replaces_where_the_incumbent_cancels(world: World) -> None:
    """Each goes its own way when the patience is over."""
    world.both([new("1", price=990), told("new"), replace("2", "1", 90, 995), told("canceled", asked=True)])
    world.on(2.1)
    assert (world.order().ord_status, world.order().price) == (OrdStatus.NEW, 995)
    assert world.followed == (1, 0, 1)
    world.mirror.on_market(traded(OPEN, 980, 30))
    assert world.order().cum_qty == 30


def test_sent_again_while_held(world: World) -> None:
    """With PossResend one answer is enough; without it the ClOrdID is a duplicate."""
    world.both([new("1"), new("1", poss_resend=True), replace("2", "1", 90), new("1"), new("2", poss_resend=True)])
    assert world.kinds() == ["REJECTED", "REJECTED"]
    world.both([told("new"), told("replaced"), new("1", 90, poss_resend=True), new("1", 90)])
    assert world.kinds()[2:] == ["NEW", "REPLACED", "ORDER_STATUS", "REJECTED"]
    assert world.mirror.holding == 0


def test_a_cancel_sent_twice(world: World) -> None:
    """The second finds nothing to cancel."""
    world.both([new("1"), told("new"), cancel("2", "1"), cancel("2", "1", poss_resend=True)])
    world.both([told("canceled", asked=True)])
    world.on(3)
    assert world.kinds() == ["NEW", "CANCELED", "CancelReject"]


def test_a_question_waits_for_what_was_asked_before_it(world: World) -> None:
    """It answers nothing by itself, and it is answered when its time has come, of its account only."""
    other: list[Inbound] = []
    world.mirror.attach(["B"], other.append)
    query = Query(msg_type=MsgType.ORDER_STATUS_REQUEST, req_id="q", account=A, cl_ord_id="1")
    world.both([new("1", price=1010), query, new("2")])
    world.both([msgspec.structs.replace(query, account="B", req_id="b")])
    assert [one.req_id for one in other if isinstance(one, ExecutionReport)] == ["b"]
    assert (world.mirror.holding, world.kinds()) == (3, [])
    world.both([told("new")])
    assert (world.kinds(), world.order().cum_qty) == (["NEW", "ORDER_STATUS"], 0)
    world.both([query])
    world.on(2.1)
    assert world.kinds()[2:] == ["NEW", "ORDER_STATUS"]
    assert world.mirror.holding == 0


def test_a_link_is_not_quiet_while_something_is_held() -> None:
    """What the client believes and what the venue knows may differ as long."""
    clock = Clock(OPEN)
    mirror = Mirror(clock, INSTRUMENTS)
    link = Link(clock, mirror, [A])
    mirror.begin("2024-01-02", OPEN, CLOSE)
    link.attach().connect(1, 1)
    clock.run_until(OPEN + S)
    assert link.quiet
    link.send(new("1"))
    clock.run_until(OPEN + 2 * S)
    assert (link.in_flight, mirror.holding, link.quiet) == (0, 1, False)
    mirror.hear(told("new"))
    clock.run_until(OPEN + 3 * S)
    assert (mirror.holding, link.quiet) == (0, True)


def test_in_sequence_the_nth_meets_the_nth() -> None:
    """By account, symbol and side; a cancel of an order that nobody knows takes no place."""
    world = World(match="sequence")
    world.both([cancel("x", "nothing"), new("c1"), new("c2", side=Side.SELL), new("c3")])
    world.both([told("sent", "i1"), told("sent", "i2", side="2"), told("new", "i2", side="2"), told("sent", "i3")])
    world.both([told("new", "i3"), told("trade", "i3", last_qty=7, last_px=1000), told("rejected", "i1")])
    assert (world.mirror.order("c1"), world.order("c2").ord_status) == (None, OrdStatus.NEW)
    assert world.order("c3").cum_qty == 7
    world.both(
        [replace("c4", "c3", 50), told("replaced", "i3"), cancel("c5", "c4"), told("canceled", "i3", asked=True)]
    )
    assert (world.order("c3").ord_status, world.order("c3").order_qty) == (OrdStatus.CANCELED, 50)
    world.on(3)
    assert world.followed == (0, 0, 1)


def test_orders_that_both_have_begun_with_are_told_by_their_names() -> None:
    """A state of a plain venue: in sequence, too, a carried order is the incumbent's of the same ClOrdID."""
    venue = Venue(Clock(OPEN), INSTRUMENTS)
    venue.begin("2024-01-02", OPEN, CLOSE)
    venue.receive(new("old", price=900, time_in_force=TimeInForce.GTC))
    world = World(match="sequence")
    world.mirror.load(venue.dump())
    world.both([told("sent", "old"), told("trade", "old", last_qty=30, last_px=900)])
    world.both(
        [new("c1"), told("sent", "i1"), told("new", "i1"), cancel("c2", "old"), told("canceled", "old", asked=True)]
    )
    assert (world.order("old").cum_qty, world.order("old").ord_status) == (30, OrdStatus.CANCELED)
    assert world.order("c1").ord_status == OrdStatus.NEW
    assert world.followed == (0, 0, 0)


# -- the close and the night --------------------------------------------------------------------------------------


def overnight(world: World) -> None:
    """The close, the night and the next day's begin."""
    world.clock.run_until(CLOSE)
    world.mirror.end()
    world.mirror.overnight()
    world.clock.run_until(OPEN + DAY)
    world.mirror.begin("2024-01-03", OPEN + DAY, CLOSE + DAY)


def test_at_the_close_nothing_waits_any_more(world: World) -> None:
    """Requests are answered, reports left out, questions told; the expiry is the venue's own."""
    world.both([new("1"), told("new")])
    world.clock.run_until(CLOSE)
    query = Query(msg_type=MsgType.ORDER_MASS_STATUS_REQUEST, req_id="q", account=A)
    world.both([told("expired"), new("2"), cancel("3", "1"), query, told("trade", "9", last_qty=5, last_px=1)])
    assert world.kinds() == ["NEW"]
    world.mirror.end()
    assert world.mirror.holding == 0
    assert world.kinds() == ["NEW", "NEW", "CANCELED", "ORDER_STATUS", "EXPIRED"]
    assert world.followed == (1, 5, 2)
    world.on(10)
    assert world.followed == (1, 5, 2)


def test_a_carried_order_is_filled_by_the_incumbents_fills_of_the_next_day(world: World) -> None:
    """Not by the market, and not at once."""
    world.both([new("1", price=990, time_in_force=TimeInForce.GTC), told("trade", last_qty=30, last_px=990)])
    overnight(world)
    assert world.order().ord_status == OrdStatus.PARTIALLY_FILLED
    world.mirror.on_market(traded(OPEN + DAY, 900, 1000))
    assert world.order().cum_qty == 30
    world.both([told("trade", last_qty=70, last_px=989), told("filled")])
    assert (world.order().ord_status, world.order().notional) == (OrdStatus.FILLED, 30 * 990 + 70 * 989)
    assert world.mirror.positions["A/ACME"].net_qty == 100


# -- memory -------------------------------------------------------------------------------------------------------

MIDDLE: list[Any] = [
    new("1", 50, 990),
    told("new"),
    told("trade", last_qty=60, last_px=990, exec_id="d/1"),
    new("2", 100, 985),
    replace("3", "2", 90, 986),
    Query(msg_type=MsgType.ORDER_STATUS_REQUEST, req_id="q", account=A, cl_ord_id="2"),
    told("new", "8"),
    told("sent", "4"),
    new("5", 10, 980, time_in_force=TimeInForce.GTC),
    told("new", "5"),
    told("canceled", "5", asked=True),
    cancel("6", "5"),
    told("new", "2"),
    told("correct", exec_ref_id="d/1", exec_id="d/2", last_qty=40, last_px=989),
    told("replaced", "2"),
    told("trade", "2", last_qty=20, last_px=986, exec_id="d/3"),
    new("4"),
    told("rejected", "4"),
    told("bust", "2", exec_ref_id="d/3", exec_id="d/4"),
    told("canceled", "2", asked=True),
]


def state(world: World) -> Any:
    """All that there is to know of a mirror and its clock."""
    return world.mirror.dump(), world.clock.timers(), world.mirror.followed


@pytest.mark.parametrize("match", ["id", "sequence"])
@pytest.mark.parametrize("how", ["dump", "keep"])
def test_a_state_taken_anywhere_goes_on_the_same(how: str, match: str) -> None:
    """Dumped and loaded elsewhere, or kept and put back after anything else: the same continuation."""

    def go_on(world: World, at: int) -> None:
        for one in MIDDLE[at:]:
            world.both([one])
            world.on(0.3)
        world.mirror.on_market(traded(OPEN, 970, 500))
        overnight(world)

    calm = World(match=match)
    go_on(calm, 0)
    for at in range(len(MIDDLE) + 1):
        world = World(match=match)
        for one in MIDDLE[:at]:
            world.both([one])
            world.on(0.3)
        if how == "dump":
            other = World(match=match)
            other.clock.load(world.clock.dump())
            other.mirror.load(world.mirror.dump())
            other.sent = world.sent
            other.mirror.attach([A], other.sent.append)
        else:
            other, kept, clock = world, world.mirror.keep(), world.clock.keep()
            said = list(world.sent)
            go_on(world, 0)
            world.clock.put_back(clock)
            world.mirror.put_back(kept)
            world.sent[:] = said
        go_on(other, at)
        assert state(other) == state(calm), at
        assert other.sent == calm.sent, at


# -- laws ---------------------------------------------------------------------------------------------------------


class Theirs:
    """The incumbent's venue: what it sends becomes reports, as a journal or a FIX log would tell them."""

    def __init__(self) -> None:
        self.clock = Clock(OPEN)
        self.venue = Venue(self.clock, INSTRUMENTS)
        self.reports: list[Reported] = []
        self.venue.attach([A], self._heard)
        self.venue.begin("2024-01-02", OPEN, CLOSE)
        self.current: dict[str, str] = {}

    def _heard(self, message: Inbound) -> None:
        if isinstance(message, CancelReject):
            root = self.venue.roots.get(message.orig_cl_ord_id, message.orig_cl_ord_id)
            self.reports.append(told("refused", root))
        if not isinstance(message, ExecutionReport):
            return
        kinds: dict[ExecType, What] = {
            ExecType.NEW: "new",
            ExecType.REJECTED: "rejected",
            ExecType.TRADE: "trade",
            ExecType.REPLACED: "replaced",
            ExecType.CANCELED: "canceled",
            ExecType.EXPIRED: "expired",
            ExecType.TRADE_CANCEL: "bust",
            ExecType.TRADE_CORRECT: "correct",
        }
        what = kinds.get(message.exec_type)
        if what is None:
            return
        root = self.venue.roots.get(message.cl_ord_id, message.cl_ord_id)
        self.reports.append(
            told(
                what,
                root,
                symbol=message.symbol,
                side=message.side.value,
                last_qty=message.last_qty,
                last_px=message.last_px,
                exec_id=f"{message.trade_date}/{message.exec_id}" if message.last_qty or what == "bust" else "",
                exec_ref_id=f"{message.exec_ref_date}/{message.exec_ref_id}" if message.exec_ref_id else "",
                asked=what == "canceled" and self.asked,
            )
        )
        if what in ("trade", "correct") and message.ord_status == OrdStatus.FILLED:
            self.reports.append(told("filled", root))

    asked = False

    def ask(self, request: Request) -> None:
        """A request of the incumbent's arrives."""
        self.asked = request.msg_type == MsgType.ORDER_CANCEL_REQUEST
        self.venue.receive(request)
        self.asked = False


SIDES = st.sampled_from([Side.BUY, Side.SELL])
PRICES = st.integers(995, 1005)
TIFS = st.sampled_from([TimeInForce.DAY, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK])
ACTS = st.lists(
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


class Story:
    """Plays acts on the incumbent's venue; `requests` are what the incumbent asked, `market` what it saw."""

    def __init__(self, theirs: Theirs, names: Iterator[int]) -> None:
        self.theirs, self.names = theirs, names
        self.requests: list[Request] = []
        self.market: list[tuple[int, ...]] = []
        self.last: dict[str, str] = {}

    def _ask(self, request: Request) -> None:
        self.requests.append(request)
        self.theirs.ask(request)

    def _see(self, event: tuple[int, ...]) -> None:
        self.market.append(event)
        self.theirs.venue.on_market(event)

    def _order(self, number: int) -> Any:
        orders = list(self.theirs.venue.orders.values())
        return orders[-1 - number] if number < len(orders) else None

    def do(self, act: tuple[Any, ...]) -> None:
        """One act."""
        what, *rest = act
        venue = self.theirs.venue
        now = self.theirs.clock.now_ns
        if what == "new":
            side, quantity, price, tif, symbol = rest
            name = f"N{next(self.names)}"
            self._ask(new(name, quantity, price, side=side, time_in_force=tif, symbol=symbol))
        elif what == "resend":
            sent = [one for one in self.requests if one.msg_type == MsgType.NEW_ORDER_SINGLE]
            if rest[0] < len(sent):  # one that the venue took; a rejected one would be a new order
                again = sent[-1 - rest[0]]
                if again.cl_ord_id in venue.orders:
                    self._ask(msgspec.structs.replace(again, poss_resend=True))
        elif what in ("cancel", "replace"):
            order = self._order(rest[0])
            orig = order.cl_ord_id if order else "nothing"
            name, more = f"N{next(self.names)}", {"symbol": order.symbol if order else "ACME"}
            more["side"] = order.side if order else Side.BUY
            self._ask(cancel(name, orig, **more) if what == "cancel" else replace(name, orig, *rest[1:], **more))
        elif what == "quote":
            bid, width, size, number = rest
            self._see(quote(now, bid, bid + width, size, number))
        elif what == "trade":
            self._see(traded(now, rest[0], rest[1], rest[2]))
        elif what == "halt":
            self._see(status(now, rest[1], rest[0]))
        elif what in ("unasked", "late"):
            order = self._order(rest[0])
            if order is not None:
                venue.cancel(order.cl_ord_id) if what == "unasked" else venue.fill_late(order.cl_ord_id, rest[1])
        elif what in ("bust", "correct") and rest[0] < len(venue.trades):
            named = venue.trades[-1 - rest[0]]
            if what == "bust":
                venue.bust(named.exec_id, named.trade_date)
            else:
                venue.correct(named.exec_id, min(rest[1], named.last_qty), rest[2], named.trade_date)
        elif what == "refuse":
            venue.refuse_next = 1


FIELDS = ("ord_status", "cum_qty", "leaves_qty", "notional", "price", "order_qty", "cl_ord_id", "symbol", "side")


def fields(venue: Venue) -> dict[str, tuple[Any, ...]]:
    """The orders of a venue."""
    return {root: tuple(getattr(order.record(), name) for name in FIELDS) for root, order in venue.orders.items()}


def merged(data: st.DataObject, *streams: Sequence[Any]) -> Iterator[Any]:
    """Several sequences as one, each in its own order."""
    left = [list(reversed(one)) for one in streams]
    while any(left):
        yield data.draw(st.sampled_from([one for one in left if one])).pop()


@settings(deadline=None)
@given(st.data())
def test_whoever_asks_the_same_is_answered_the_same(data: st.DataObject) -> None:
    """Any story, any interleaving within the patience, two days: every order ends as the incumbent's did.

    A guard that is told of the candidate's venue finds nothing wrong with it.
    """
    theirs, ours = Theirs(), World()
    guard = judge(ours)
    story = Story(theirs, count())
    for day in (0, 1):
        reports, requests, market = len(theirs.reports), len(story.requests), len(story.market)
        for act in data.draw(ACTS):
            story.do(act)
        theirs.venue.refuse_next = 0
        ours.mirror.refuse_next = 0
        for one in merged(data, story.requests[requests:], theirs.reports[reports:], story.market[market:]):
            if isinstance(one, tuple):
                ours.mirror.on_market(one)
            else:
                ours.both([one])
            ours.on(0.01)
        assert ours.mirror.holding == 0
        assert fields(ours.mirror) == fields(theirs.venue)
        assert held(ours.mirror) == held(theirs.venue)
        assert guard.breaches == []
        assert guard.monitor.checks or not ours.mirror.orders
        ours.on(3)
        assert ours.followed == (0, 0, 0)
        if day:
            break
        for venue, clock in ((ours.mirror, ours.clock), (theirs.venue, theirs.clock)):
            clock.run_until(CLOSE)
            venue.end()
            venue.overnight()
            clock.run_until(OPEN + DAY)
            venue.begin("2024-01-03", OPEN + DAY, CLOSE + DAY)
        assert fields(ours.mirror) == fields(theirs.venue)


def judge(world: World) -> Guard:
    """A guard that hears what the mirror says of its orders, positions and books, and judges it at every word."""
    guard = Guard(
        Path("unused"),
        catalogue=CATALOGUE,
        clock=lambda: world.clock.now_ns,
        channels=[],
        store=FreezeStore.in_memory(),
    )
    world.mirror.observe = lambda record: guard.record("venue", record)
    return guard


def held(venue: Venue) -> dict[str, int]:
    """The positions of a venue, those of nothing left out."""
    return {key: one.net_qty for key, one in venue.positions.items() if one.net_qty}


NAMES = st.sampled_from(["1", "2", "3", ""])
REPORTS = st.builds(
    Reported,
    what=st.sampled_from(
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
    asked=st.booleans(),
)
REQUESTS = st.one_of(
    st.builds(
        new,
        NAMES,
        st.integers(-1, 120),
        PRICES,
        side=SIDES,
        time_in_force=TIFS,
        symbol=st.sampled_from(["ACME", "BOLT"]),
        poss_resend=st.booleans(),
    ),
    st.builds(cancel, st.sampled_from(["7", "8", "1"]), NAMES),
    st.builds(replace, st.sampled_from(["5", "6", "2"]), NAMES, st.integers(0, 120), PRICES),
    st.builds(
        Query,
        msg_type=st.sampled_from([MsgType.ORDER_STATUS_REQUEST, MsgType.TRADE_CAPTURE_REPORT_REQUEST]),
        req_id=NAMES,
        account=st.just(A),
        cl_ord_id=NAMES,
    ),
)
MARKET = st.one_of(
    st.builds(quote, st.just(OPEN), st.integers(995, 1003), st.integers(1001, 1009), st.integers(0, 100)),
    st.builds(traded, st.just(OPEN), PRICES, st.integers(1, 100)),
)


def check(world: World) -> None:
    """CumQty and LeavesQty fit OrderQty, positions are the sum of the trades, a followed order is in no book."""
    net: dict[str, int] = {}
    notional: dict[str, int] = {}
    signs = {"1": 1, "2": -1}
    amended = {(one.exec_ref_id, one.exec_ref_date) for one in world.mirror.trades if one.exec_ref_id}
    for one in world.mirror.trades:
        if (one.exec_id, one.trade_date) in amended or one.exec_type == ExecType.TRADE_CANCEL:
            continue
        net[f"{one.account}/{one.symbol}"] = (
            net.get(f"{one.account}/{one.symbol}", 0) + signs[one.side.value] * one.last_qty
        )
        root = world.mirror.roots[one.cl_ord_id]
        notional[root] = notional.get(root, 0) + one.last_qty * one.last_px
    assert held(world.mirror) == {key: quantity for key, quantity in net.items() if quantity}
    for root, order in world.mirror.orders.items():
        assert 0 <= order.cum_qty <= order.order_qty
        assert order.notional == notional.get(root, 0)
        assert (order.cum_qty + order.leaves_qty == order.order_qty) or not order.is_open
        assert (order.ord_status == OrdStatus.FILLED) <= (order.cum_qty == order.order_qty)
        book = world.mirror.books[order.symbol]
        places = sum(order is one for one in (*book.buys, *book.sells, *book.stops))
        followed = world.mirror._key_of(order) in world.mirror._known
        assert places == int(
            order.is_open and not followed and order.time_in_force not in (TimeInForce.IOC, TimeInForce.FOK)
        )


@given(
    st.lists(st.one_of(REPORTS, REQUESTS, MARKET, st.sampled_from([0.5, 1.0, 2.5, "night"])), max_size=40),
    st.sampled_from(["id", "sequence"]),
)
def test_whatever_is_reported_the_venue_stays_true(story: list[Any], match: str) -> None:
    """Garbage, foreign symbols, wrong order, duplicates, time and nights between: consistent after each of them."""
    world = World(match=match)
    days = 0
    for one in story:
        if one == "night":
            if not days:
                overnight(world)
            days += 1
        elif isinstance(one, float):
            world.on(one)
        elif isinstance(one, tuple):
            world.mirror.on_market(one)
        else:
            world.both([one])
        check(world)
        other = World(match=match)
        other.mirror.load(world.mirror.dump())
        assert other.mirror.dump() == world.mirror.dump()
