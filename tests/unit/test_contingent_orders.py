"""Contingent orders and stop orders at the venue: tables of cases, and laws over random sequences.

Source of the cases: FIX 5.0 SP2, ContingencyType (1385), ListID (66) and OrdType (40); the choices that FIX leaves to a
venue are those of `holdover.world.contingency`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.model import (
    ContingencyType,
    ExecRestatementReason,
    ExecType,
    ExecutionReport,
    Inbound,
    Instrument,
    MsgType,
    Order,
    OrdStatus,
    OrdType,
    PositionReport,
    PositionSide,
    Query,
    Request,
    Side,
)
from holdover.model import TimeInForce as Tif
from holdover.world import Venue, VirtualClock, WorkingOrder

OPEN_NS, CLOSE_NS = 1_000_000_000_000, 2_000_000_000_000
OTO = ContingencyType.ONE_TRIGGERS_THE_OTHER
OCO = ContingencyType.ONE_CANCELS_THE_OTHER
ABSOLUTE = ContingencyType.ONE_UPDATES_THE_OTHER_ABSOLUTE
PROPORTIONAL = ContingencyType.ONE_UPDATES_THE_OTHER_PROPORTIONAL
INSTRUMENT = Instrument(symbol="X")


class VenueBench:
    """A venue with one instrument, whose market a test moves and whose reports it reads."""

    def __init__(self) -> None:
        self.clock = VirtualClock(OPEN_NS)
        self.venue = Venue(self.clock, [INSTRUMENT])
        self.reports: list[Inbound] = []
        self.venue.attach(["A"], self.reports.append)
        self.number = 0

    def begin(self, day: str = "2024-01-02") -> VenueBench:
        """Begin a day with a market of 99 to 101."""
        self.venue.begin(day, OPEN_NS, CLOSE_NS)
        self.quote(99, 101)
        return self

    def quote(self, bid: int, ask: int, size: int = 1_000) -> None:
        """Play a recorded quote."""
        self.venue.on_market((OPEN_NS, 0, 1, 0, 0, 0, 0, bid, ask, size, size))

    def trade(self, price: int, size: int) -> None:
        """Play a recorded trade."""
        self.venue.on_market((OPEN_NS, 0, 2, 0, 0, price, size, 0, 0, 0, 0))

    def enter(self, name: str, side: Side, quantity: int, **fields: Any) -> WorkingOrder:
        """Send a new GTC order; return it as the venue has it."""
        terms = {"ord_type": OrdType.LIMIT, "time_in_force": Tif.GTC, "account": "A", "price": 100} | fields
        self.venue.receive(
            Request(
                msg_type=MsgType.NEW_ORDER_SINGLE, cl_ord_id=name, symbol="X", side=side, order_qty=quantity, **terms
            )
        )
        return self[name]

    def replace(self, name: str, **changes: Any) -> None:
        """Send a replace of an order."""
        order = self[name]
        self.number += 1
        terms = {"order_qty": order.order_qty, "price": order.price, "stop_px": order.stop_px} | changes
        self.venue.receive(
            Request(
                msg_type=MsgType.ORDER_CANCEL_REPLACE_REQUEST,
                cl_ord_id=f"{name}~{self.number}",
                orig_cl_ord_id=order.cl_ord_id,
                symbol="X",
                side=order.side,
                account="A",
                **terms,
            )
        )

    def __getitem__(self, name: str) -> WorkingOrder:
        order = self.venue.find_order(name)
        assert order is not None
        return order

    def state(self, *names: str) -> list[tuple[int, int, int, str]]:
        """Return (OrderQty, CumQty, quantity that may fill now, OrdStatus) of some orders."""
        orders = [self[name] for name in names]
        return [(order.order_qty, order.cum_qty, order.fillable_qty, order.ord_status.name) for order in orders]

    def fill(self, name: str, quantity: int) -> None:
        """Fill an order as the market would."""
        self.venue.lifecycle.fill(self[name], quantity, self[name].price or 95)

    def last_exec_id(self, name: str) -> str:
        """Return the ExecID of the last trade of an order."""
        return next(t.exec_id for t in reversed(self.venue.trades) if self.venue.roots[t.cl_ord_id] == name)


def stop_terms(stop_px: int, price: int | None = None) -> dict[str, Any]:
    """Return the terms of a stop order, or of a stop limit order when it has a price."""
    return {"ord_type": OrdType.STOP if price is None else OrdType.STOP_LIMIT, "stop_px": stop_px, "price": price}


def enter_pair(bench: VenueBench, kind: ContingencyType, quantities: tuple[int, int] = (100, 100)) -> None:
    """Enter a take-profit and a stop as alternatives."""
    bench.enter("tp", Side.SELL, quantities[0], price=110, list_id="L", contingency_type=kind)
    bench.enter("sl", Side.SELL, quantities[1], list_id="L", contingency_type=kind, **stop_terms(90))


def enter_bracket(bench: VenueBench, kind: ContingencyType = ABSOLUTE, price: int = 95) -> None:
    """Enter a bracket: an entry to buy 100, and its two exits."""
    bench.enter("entry", Side.BUY, 100, price=price, list_id="L", contingency_type=OTO)
    enter_pair(bench, kind)


# -- stop orders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "stop_px", "untouched", "reached"),
    [(Side.SELL, 95, 96, 95), (Side.SELL, 95, 96, 94), (Side.BUY, 105, 104, 105), (Side.BUY, 105, 104, 106)],
)
def test_a_stop_becomes_a_market_order_at_its_stop_price(
    side: Side, stop_px: int, untouched: int, reached: int
) -> None:
    """A trade short of the stop price changes nothing; one at it or beyond fills the stop from the displayed size."""
    bench = VenueBench().begin()
    bench.enter("s", side, 50, **stop_terms(stop_px))
    bench.trade(untouched, 10)
    assert bench.state("s") == [(50, 0, 50, "NEW")]
    bench.trade(reached, 10)
    assert bench.state("s") == [(50, 50, 0, "FILLED")]
    assert bench.venue.trades[-1].last_px == (99 if side == Side.SELL else 101)


def test_a_stop_limit_becomes_a_limit_order() -> None:
    """Once triggered it rests at its limit, and fills only there or better."""
    bench = VenueBench().begin()
    order = bench.enter("s", Side.SELL, 50, **stop_terms(95, 103))
    bench.trade(95, 10)
    assert order.is_triggered
    assert bench.venue.books["X"].sells == [order]
    bench.trade(104, 20)
    assert bench.state("s") == [(50, 20, 30, "PARTIALLY_FILLED")]


def test_a_stop_market_order_fills_on_at_the_next_quotes() -> None:
    """What the displayed size does not fill at once waits for the next displayed size."""
    bench = VenueBench().begin()
    bench.quote(99, 101, 30)
    bench.enter("s", Side.SELL, 50, **stop_terms(95))
    bench.trade(95, 10)
    assert bench.state("s") == [(50, 30, 20, "PARTIALLY_FILLED")]
    bench.quote(97, 101, 30)
    assert bench.state("s") == [(50, 50, 0, "FILLED")]


def test_a_replaced_stop_waits_at_its_new_stop_price() -> None:
    """The stop price of a replace is the one that triggers; a price between two ticks is refused."""
    bench = VenueBench().begin()
    bench.enter("s", Side.SELL, 50, **stop_terms(95))
    bench.replace("s", stop_px=97)
    bench.trade(97, 1)
    assert bench.state("s") == [(50, 50, 0, "FILLED")]


def test_a_stop_without_a_stop_price_is_rejected() -> None:
    """It could never be triggered."""
    bench = VenueBench().begin()
    bench.venue.receive(
        Request(
            msg_type=MsgType.NEW_ORDER_SINGLE,
            cl_ord_id="s",
            symbol="X",
            side=Side.SELL,
            order_qty=1,
            account="A",
            ord_type=OrdType.STOP,
        )
    )
    (report,) = bench.reports[1:]
    assert isinstance(report, ExecutionReport)
    assert (report.ord_status, report.text) == (OrdStatus.REJECTED, "a stop order needs a stop price")


def test_a_split_restates_the_stop_price() -> None:
    """Two for one halves price and stop price, and the stop triggers at the new one."""
    bench = VenueBench().begin()
    bench.enter("s", Side.SELL, 50, **stop_terms(90))
    bench.venue.end()
    bench.venue.overnight({"X": (2, 1)})
    assert (bench["s"].stop_px, bench["s"].order_qty, bench["s"].requested_qty) == (45, 100, 100)
    bench.begin("2024-01-03")
    bench.trade(44, 1)
    assert bench["s"].cum_qty == 100


# -- alternatives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "quantities", "filled", "expected"),
    [
        (OCO, (100, 100), 100, [(100, 100, 0, "FILLED"), (100, 0, 0, "CANCELED")]),
        (OCO, (100, 100), 30, [(100, 30, 70, "PARTIALLY_FILLED"), (100, 0, 0, "CANCELED")]),
        (ABSOLUTE, (100, 100), 30, [(100, 30, 70, "PARTIALLY_FILLED"), (70, 0, 70, "NEW")]),
        (ABSOLUTE, (100, 100), 100, [(100, 100, 0, "FILLED"), (100, 0, 0, "CANCELED")]),
        (ABSOLUTE, (100, 60), 30, [(100, 30, 70, "PARTIALLY_FILLED"), (30, 0, 30, "NEW")]),
        (ABSOLUTE, (100, 60), 60, [(100, 60, 40, "PARTIALLY_FILLED"), (60, 0, 0, "CANCELED")]),
        (PROPORTIONAL, (100, 50), 30, [(100, 30, 70, "PARTIALLY_FILLED"), (35, 0, 35, "NEW")]),
        (PROPORTIONAL, (100, 50), 33, [(100, 33, 67, "PARTIALLY_FILLED"), (33, 0, 33, "NEW")]),
        (PROPORTIONAL, (100, 50), 100, [(100, 100, 0, "FILLED"), (50, 0, 0, "CANCELED")]),
    ],
)
def test_a_fill_changes_the_alternatives(
    kind: ContingencyType, quantities: tuple[int, int], filled: int, expected: list[Any]
) -> None:
    """By the type of the list: cancelled, reduced by the same quantity, or reduced by the same share."""
    bench = VenueBench().begin()
    enter_pair(bench, kind, quantities)
    bench.fill("tp", filled)
    assert bench.state("tp", "sl") == expected


def test_a_reduction_is_reported_as_a_partial_decline() -> None:
    """Restated, with the list and its type, and the new OrderQty."""
    bench = VenueBench().begin()
    enter_pair(bench, ABSOLUTE)
    bench.fill("tp", 30)
    report = bench.reports[-1]
    assert isinstance(report, ExecutionReport)
    assert (report.cl_ord_id, report.exec_type, report.order_qty) == ("sl", ExecType.RESTATED, 70)
    assert report.exec_restatement_reason == ExecRestatementReason.PARTIAL_DECLINE
    assert (report.list_id, report.contingency_type) == ("L", ABSOLUTE)


@pytest.mark.parametrize("kind", [OCO, ABSOLUTE, PROPORTIONAL])
def test_the_market_triggers_a_stop_and_cancels_its_alternative(kind: ContingencyType) -> None:
    """A trade at the stop price ends both."""
    bench = VenueBench().begin()
    enter_pair(bench, kind)
    bench.trade(90, 10)
    assert bench.state("tp", "sl") == [(100, 0, 0, "CANCELED"), (100, 100, 0, "FILLED")]
    assert not bench.venue.books["X"].sells


def test_the_cancel_of_one_alternative_leaves_the_other() -> None:
    """FIX leaves it to the venue; this one cancels only what the client names."""
    bench = VenueBench().begin()
    enter_pair(bench, OCO)
    assert bench.venue.cancel_order("sl")
    assert bench.state("tp", "sl") == [(100, 0, 100, "NEW"), (100, 0, 0, "CANCELED")]


def test_lists_of_other_accounts_and_plain_orders_are_untouched() -> None:
    """A ListID counts within its account, and an order without a contingency belongs to no list."""
    bench = VenueBench().begin()
    enter_pair(bench, OCO)
    bench.enter("other", Side.SELL, 100, price=110, account="B", list_id="L", contingency_type=OCO)
    bench.enter("plain", Side.SELL, 100, price=110, cl_ord_link_id="L")
    bench.fill("tp", 100)
    assert bench.state("sl", "other", "plain") == [
        (100, 0, 0, "CANCELED"),
        (100, 0, 100, "NEW"),
        (100, 0, 100, "NEW"),
    ]


def test_alternatives_may_be_linked_by_clordlinkid() -> None:
    """Without a ListID the common ClOrdLinkID (583) names the list."""
    bench = VenueBench().begin()
    for name, price in (("a", 110), ("b", 120)):
        bench.enter(name, Side.SELL, 10, price=price, cl_ord_link_id="P", contingency_type=OCO)
    bench.fill("b", 10)
    assert bench.state("a", "b") == [(10, 0, 0, "CANCELED"), (10, 10, 0, "FILLED")]


@pytest.mark.parametrize(
    ("kind", "after"),
    [(OCO, (100, 0, 0, "CANCELED")), (ABSOLUTE, (100, 0, 100, "NEW")), (PROPORTIONAL, (100, 0, 100, "NEW"))],
)
def test_a_bust_gives_back_what_a_fill_has_taken(kind: ContingencyType, after: tuple[int, int, int, str]) -> None:
    """An alternative that is still open gets its quantity back; a cancelled one stays cancelled."""
    bench = VenueBench().begin()
    enter_pair(bench, kind)
    bench.fill("tp", 30)
    assert bench.venue.bust_trade(bench.last_exec_id("tp"))
    assert bench.state("tp", "sl") == [(100, 0, 100, "NEW"), after]


@pytest.mark.parametrize(
    ("filled", "requested", "expected"),
    [(0, 150, (150, 0, 150, "NEW")), (30, 100, (70, 0, 70, "NEW")), (30, 50, (50, 0, 50, "NEW"))],
)
def test_a_replace_never_raises_an_order_whose_alternatives_have_filled(
    filled: int, requested: int, expected: tuple[int, int, int, str]
) -> None:
    """A replace that crosses the fill of the other order asks for a quantity that is gone."""
    bench = VenueBench().begin()
    enter_pair(bench, ABSOLUTE)
    if filled:
        bench.fill("tp", filled)
    bench.replace("sl", order_qty=requested, stop_px=91)
    assert bench.state("sl") == [expected]
    assert (bench["sl"].stop_px, bench["sl"].list_id) == (91, "L")


def test_an_order_joins_a_group_that_has_filled() -> None:
    """A new alternative gets what the group's fills have left, and is cancelled when that is nothing."""
    bench = VenueBench().begin()
    bench.enter("tp", Side.SELL, 100, price=110, list_id="L", contingency_type=ABSOLUTE)
    bench.fill("tp", 30)
    bench.enter("sl", Side.SELL, 100, list_id="L", contingency_type=ABSOLUTE, **stop_terms(90))
    assert bench.state("sl") == [(70, 0, 70, "NEW")]
    bench.fill("tp", 70)
    bench.enter("late", Side.SELL, 100, list_id="L", contingency_type=ABSOLUTE, **stop_terms(90))
    assert bench.state("sl", "late") == [(70, 0, 0, "CANCELED"), (100, 0, 0, "CANCELED")]


# -- primary and secondary orders -------------------------------------------------------------------------------------


def test_secondary_orders_are_held_until_the_primary_order_fills() -> None:
    """They are acknowledged as New and cannot fill, whatever the market does."""
    bench = VenueBench().begin()
    enter_bracket(bench, price=80)
    bench.trade(115, 1_000)
    bench.trade(85, 1_000)
    assert bench.state("entry", "tp", "sl") == [(100, 0, 100, "NEW"), (100, 0, 0, "NEW"), (100, 0, 0, "NEW")]
    bench.fill("entry", 100)
    assert bench.state("entry", "tp", "sl") == [(100, 100, 0, "FILLED"), (100, 0, 100, "NEW"), (100, 0, 100, "NEW")]
    bench.trade(112, 1_000)
    assert bench.state("tp", "sl") == [(100, 100, 0, "FILLED"), (100, 0, 0, "CANCELED")]
    assert bench.venue.positions["A/X"].net_qty == 0


def test_as_much_of_a_bracket_works_as_the_entry_has_filled() -> None:
    """Fills of entry and exits alternate; the exits never exceed the position."""
    bench = VenueBench().begin()
    enter_bracket(bench)
    bench.fill("entry", 40)
    assert bench.state("tp", "sl") == [(100, 0, 40, "NEW"), (100, 0, 40, "NEW")]
    bench.fill("tp", 25)
    assert bench.state("tp", "sl") == [(100, 25, 15, "PARTIALLY_FILLED"), (75, 0, 15, "NEW")]
    bench.fill("entry", 60)
    assert bench.state("tp", "sl") == [(100, 25, 75, "PARTIALLY_FILLED"), (75, 0, 75, "NEW")]
    bench.trade(90, 1)
    assert bench.state("tp", "sl") == [(100, 25, 0, "CANCELED"), (75, 75, 0, "FILLED")]
    assert bench.venue.positions["A/X"].net_qty == 0


@pytest.mark.parametrize(
    ("filled", "expected"),
    [
        (0, [(100, 0, 0, "CANCELED"), (100, 0, 0, "CANCELED")]),
        (40, [(40, 0, 40, "NEW"), (40, 0, 40, "NEW")]),
    ],
)
@pytest.mark.parametrize("end", ["cancel", "expiry"])
def test_the_end_of_a_primary_order_leaves_exits_for_what_it_filled(end: str, filled: int, expected: list[Any]) -> None:
    """Nothing filled: the secondary orders are cancelled. Some filled: they are reduced to it."""
    bench = VenueBench().begin()
    tif = Tif.GTC if end == "cancel" else Tif.DAY
    bench.enter("entry", Side.BUY, 100, price=95, list_id="L", contingency_type=OTO, time_in_force=tif)
    enter_pair(bench, ABSOLUTE)
    if filled:
        bench.fill("entry", filled)
    if end == "cancel":
        assert bench.venue.cancel_order("entry")
    else:
        bench.venue.end()
        bench.venue.overnight()
        bench.begin("2024-01-03")
    assert bench.state("tp", "sl") == expected


def test_a_replaced_primary_order_that_is_whole_releases_only_what_it_filled() -> None:
    """A replace down to the filled quantity ends the entry as Filled; the exits cover the position."""
    bench = VenueBench().begin()
    enter_bracket(bench)
    bench.fill("entry", 30)
    bench.replace("entry", order_qty=30)
    assert bench.state("entry", "tp", "sl") == [(30, 30, 0, "FILLED"), (30, 0, 30, "NEW"), (30, 0, 30, "NEW")]


def test_a_bust_of_the_entry_holds_the_exits_again() -> None:
    """They leave the book, and the next fill of the entry releases them."""
    bench = VenueBench().begin()
    enter_bracket(bench)
    bench.fill("entry", 100)
    assert bench.venue.bust_trade(bench.last_exec_id("entry"))
    assert bench.state("tp", "sl") == [(100, 0, 0, "NEW"), (100, 0, 0, "NEW")]
    assert not bench.venue.books["X"].sells
    assert not bench.venue.books["X"].stops
    bench.fill("entry", 10)
    assert bench.state("tp", "sl") == [(100, 0, 10, "NEW"), (100, 0, 10, "NEW")]


def test_a_bracket_is_carried_over_the_night() -> None:
    """Done for the day, restated, and still one list: the stop then ends the take-profit."""
    bench = VenueBench().begin()
    enter_bracket(bench)
    bench.fill("entry", 60)
    bench.venue.end()
    bench.venue.overnight()
    restored = VenueBench()
    restored.venue.restore_bytes(bench.venue.to_bytes())
    restored.begin("2024-01-03")
    assert restored.state("entry", "tp", "sl") == [
        (100, 60, 40, "PARTIALLY_FILLED"),
        (100, 0, 60, "NEW"),
        (100, 0, 60, "NEW"),
    ]
    restored.fill("entry", 40)
    restored.trade(90, 1)
    assert restored.state("tp", "sl") == [(100, 0, 0, "CANCELED"), (100, 100, 0, "FILLED")]


def test_an_order_of_a_list_states_its_contingency() -> None:
    """A ListID without a ContingencyType would be an order that silently depends on nothing."""
    bench = VenueBench().begin()
    bench.venue.receive(
        Request(
            msg_type=MsgType.NEW_ORDER_SINGLE,
            cl_ord_id="x",
            symbol="X",
            side=Side.SELL,
            order_qty=1,
            account="A",
            price=100,
            list_id="L",
        )
    )
    report = bench.reports[-1]
    assert isinstance(report, ExecutionReport)
    assert (report.ord_status, report.text) == (OrdStatus.REJECTED, "an order of list L needs a contingency type")


# -- legs -------------------------------------------------------------------------------------------------------------


def test_each_leg_is_a_position_of_its_own() -> None:
    """Orders of the long and of the short leg move different positions, and the venue answers one report for each."""
    bench = VenueBench().begin()
    bench.enter("long", Side.BUY, 20, price=101, position_side=PositionSide.LONG)
    bench.enter("short", Side.SELL, 5, price=99, position_side=PositionSide.SHORT)
    bench.venue.receive(Query(msg_type=MsgType.REQUEST_FOR_POSITIONS, req_id="Q", account="A"))
    answers = [report for report in bench.reports if isinstance(report, PositionReport)]
    assert [(answer.key, answer.net_qty, answer.last_rpt_requested) for answer in answers] == [
        ("A/X/LONG", 20, False),
        ("A/X/SHORT", -5, True),
    ]
    fills = [report for report in bench.reports if isinstance(report, ExecutionReport) and report.last_qty]
    assert [report.position_side for report in fills] == [PositionSide.LONG, PositionSide.SHORT]


# -- laws -----------------------------------------------------------------------------------------------------------

STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(1, 100)), max_size=25)
KINDS = st.sampled_from([OCO, ABSOLUTE, PROPORTIONAL])
NAMES = ("entry", "tp", "sl")


def play(bench: VenueBench, steps: list[tuple[int, int, int]], sizes: dict[str, int]) -> None:
    """Fill, cancel, replace, bust and move the market at random; `sizes` gets the largest quantity asked for."""
    venue = bench.venue
    for action, number, quantity in steps:
        order = venue.find_order(NAMES[number])
        if order is None:
            continue
        if action <= 3 and order.fillable_qty:
            bench.fill(NAMES[number], min(quantity, order.fillable_qty))
        elif action == 4 and quantity < 30:
            venue.cancel_order(order.cl_ord_id)
        elif action == 5 and order.is_open:
            others_filled = any(bench[name].cum_qty for name in ("tp", "sl") if name != NAMES[number])
            bench.replace(NAMES[number], order_qty=quantity)
            if not others_filled or number == 0:
                sizes[NAMES[number]] = max(sizes[NAMES[number]], quantity)
        elif action == 6:
            trades = [trade for trade in venue.trades if trade.last_qty]
            if trades:
                venue.bust_trade(trades[quantity % len(trades)].exec_id)
        elif action == 7:
            bench.trade(85 + quantity % 30, quantity)
        elif action == 8:
            bench.quote(84 + quantity % 30, 86 + quantity % 30, quantity)
        elif action == 9 and quantity > 90:
            venue.end()
            venue.overnight()
            bench.begin(f"2024-01-{int(venue.trade_date[-2:]) + 1:02}")


def check_laws(bench: VenueBench, sizes: dict[str, int]) -> None:
    """Check what holds after every sequence of events."""
    entry, take_profit, stop = (bench[name] for name in NAMES)
    assert take_profit.cum_qty + stop.cum_qty <= max(sizes["tp"], sizes["sl"])
    for order in (entry, take_profit, stop):
        assert 0 <= order.cum_qty <= order.order_qty
        assert order.leaves_qty == (order.order_qty - order.cum_qty if order.is_open else 0)
        assert 0 <= order.fillable_qty <= order.leaves_qty
        assert bench.venue.books["X"].holds(order) == (order.fillable_qty > 0)
    net_qty = entry.cum_qty - take_profit.cum_qty - stop.cum_qty
    position = bench.venue.positions.get("A/X")
    assert net_qty == (position.net_qty if position else 0)
    records: dict[str, Order] = {name: bench[name].to_record() for name in NAMES}
    assert all(record.list_id == "L" for record in records.values())


@settings(deadline=None, max_examples=150)
@given(KINDS, STEPS)
def test_a_group_never_fills_more_than_its_size(kind: ContingencyType, steps: list[tuple[int, int, int]]) -> None:
    """Whatever happens to the orders, both exits together fill at most the larger one, and quantities are conserved."""
    bench, sizes = VenueBench().begin(), dict.fromkeys(NAMES, 100)
    enter_bracket(bench, kind)
    for step in steps:
        play(bench, [step], sizes)
        check_laws(bench, sizes)


@settings(deadline=None, max_examples=100)
@given(KINDS, STEPS, STEPS)
def test_a_rollback_and_a_restart_keep_the_links(
    kind: ContingencyType, before: list[tuple[int, int, int]], after: list[tuple[int, int, int]]
) -> None:
    """The same steps lead to the same bytes after a rollback, and in a venue that was restored elsewhere."""
    bench, sizes = VenueBench().begin(), dict.fromkeys(NAMES, 100)
    enter_bracket(bench, kind)
    play(bench, before, sizes)
    restored = VenueBench()
    restored.venue.restore_bytes(bench.venue.to_bytes())
    restored.number = number = bench.number
    checkpoint, expected = bench.venue.checkpoint(), bench.venue.to_bytes()
    play(bench, after, dict(sizes))
    later = bench.venue.to_bytes()
    bench.venue.rollback(checkpoint)
    assert bench.venue.to_bytes() == expected
    bench.number = number
    play(bench, after, dict(sizes))
    assert bench.venue.to_bytes() == later
    play(restored, after, dict(sizes))
    assert restored.venue.to_bytes() == later
