"""Stories from public reports about brackets, hedge mode and plans, recorded with a guard: each wrong and right.

A wrong story is found by the named invariant. Its legal twin differs only in what was wrong, and is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.model import (
    OPEN,
    Book,
    ContingencyType,
    ExecType,
    Execution,
    Intent,
    Link,
    LinkState,
    Order,
    OrdStatus,
    OrdType,
    ParentOrder,
    Position,
    PositionEffect,
    PositionSide,
    Protection,
    Record,
    Side,
    TimeInForce,
)
from holdover.runtime import Guard

DAY, SYMBOL, ACCOUNT = "2026-03-03", "BTC", "A1"
START_NS = 1_772_546_400_000_000_000
SECOND_NS = 1_000_000_000
OTO, OCO = ContingencyType.ONE_TRIGGERS_THE_OTHER, ContingencyType.ONE_CANCELS_THE_OTHER
OUO = ContingencyType.ONE_UPDATES_THE_OTHER_ABSOLUTE


class StoryTeller:
    """A guard with a clock that a story moves, and short forms of what a system records."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.now_ns = directory, START_NS
        self.guard = self.open_guard()

    def open_guard(self) -> Guard:
        """Open a guard on the directory, as a new process does."""
        return Guard(self.directory, clock=lambda: self.now_ns, channels=[], catalogue=Catalogue.load())

    def record(self, *records: tuple[str, Record]) -> None:
        """Record what one event has changed, as one step."""
        with self.guard.step("event"):
            for subsystem, record in records:
                self.guard.record(subsystem, record)

    def restore(self, **records: list[Record]) -> None:
        """Restart the system in the same guard: restore what it read back, by subsystem."""
        with self.guard.step("restart"):
            for subsystem, restored in records.items():
                self.guard.restore(subsystem, restored)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += int(seconds * SECOND_NS)
        self.guard.tick()

    def breaches(self) -> set[str]:
        """Return the names of the breached invariants."""
        return {breach.invariant for breach in self.guard.breaches}


@pytest.fixture
def teller(tmp_path: Path) -> StoryTeller:
    """A guard for one story."""
    return StoryTeller(tmp_path)


def order(key: str, quantity: int, filled: int = 0, status: OrdStatus | None = None, **fields: Any) -> Order:
    """Return an order whose status follows from its quantities unless it is given."""
    by_quantities = (
        OrdStatus.NEW if not filled else OrdStatus.FILLED if filled == quantity else OrdStatus.PARTIALLY_FILLED
    )
    status = status or by_quantities
    terms: dict[str, Any] = {"side": Side.SELL, "price": 100, "time_in_force": TimeInForce.GTC, "strategy": "s1"}
    return Order(
        root_cl_ord_id=key,
        cl_ord_id=key,
        symbol=SYMBOL,
        account=ACCOUNT,
        order_qty=quantity,
        cum_qty=filled,
        leaves_qty=quantity - filled if status in OPEN else 0,
        notional=filled * 100,
        ord_status=status,
        trade_date=DAY,
        **(terms | fields),
    )


def closing(key: str, quantity: int, filled: int = 0, status: OrdStatus | None = None, **fields: Any) -> Order:
    """Return one of several alternatives that close a position."""
    terms = {"position_effect": PositionEffect.CLOSE, "list_id": "L1", "contingency_type": OCO}
    return order(key, quantity, filled, status, **(terms | fields))


def stop(key: str, quantity: int, filled: int = 0, status: OrdStatus | None = None, **fields: Any) -> Order:
    """Return a closing stop order."""
    return closing(key, quantity, filled, status, **({"ord_type": OrdType.STOP, "price": None, "stop_px": 90} | fields))


def fill(exec_id: str, of: Order, quantity: int) -> Execution:
    """Return a fill of an order at 100."""
    return Execution(
        exec_id=exec_id,
        exec_type=ExecType.TRADE,
        root_cl_ord_id=of.key,
        symbol=of.symbol,
        side=of.side,
        trade_date=DAY,
        account=of.account,
        venue="V",
        last_qty=quantity,
        last_px=100,
        qty_delta=quantity,
        notional_delta=quantity * 100,
        position_side=of.position_side,
    )


def position(quantity: int, carried: int = 0, **fields: Any) -> Position:
    """Return a position."""
    return Position(account=ACCOUNT, symbol=SYMBOL, net_qty=quantity, carried_qty=carried, trade_date=DAY, **fields)


def begin_with(teller: StoryTeller, quantity: int, *orders: Order) -> None:
    """Start a system that holds a position and some working orders."""
    teller.restore(orders=[*orders], positions=[position(quantity, quantity)])


# -- alternatives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OCO, OUO])
@pytest.mark.parametrize("reserved", [0, 10, 20], ids=["nothing reserved", "the larger one", "the sum"])
def test_a_take_profit_that_fills_ends_its_stop(teller: StoryTeller, kind: ContingencyType, reserved: int) -> None:
    """The cancel of the stop arrives a moment after the fill, as every venue sends it: silent."""
    target, loss = closing("tp", 10, contingency_type=kind), stop("sl", 10, contingency_type=kind)
    begin_with(teller, 10)
    teller.record(("orders", target), ("orders", loss), ("positions", position(10, 10, reserved_qty=reserved)))
    filled = replace(target, cum_qty=10, leaves_qty=0, notional=1_000, ord_status=OrdStatus.FILLED)
    still_reserved = 10 if reserved else 0
    teller.record(
        ("orders", fill("e1", target, 10)),
        ("orders", filled),
        ("positions", position(0, 10, reserved_qty=still_reserved)),
    )
    teller.wait(0.05)
    teller.record(
        ("orders", stop("sl", 10, status=OrdStatus.CANCELED, contingency_type=kind)), ("positions", position(0, 10))
    )
    teller.wait(60)
    assert teller.breaches() == set()


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_stop_that_outlives_its_take_profit_is_found(teller: StoryTeller, is_restarted: bool) -> None:
    """The take-profit filled while the system was down; the stop stays at work on a flat position."""
    target, loss = closing("tp", 10), stop("sl", 10)
    begin_with(teller, 10, target, loss)
    if is_restarted:
        teller.restore(orders=[target, loss], positions=[position(10, 10)])
    filled = replace(target, cum_qty=10, leaves_qty=0, notional=1_000, ord_status=OrdStatus.FILLED)
    teller.record(("orders", fill("e1", target, 10)), ("orders", filled), ("positions", position(0, 10)))
    teller.wait(9)
    assert teller.breaches() == set()
    teller.wait(2)
    assert "alternative-ends-with-its-group" in teller.breaches()


def test_the_time_does_not_run_while_the_link_is_down(teller: StoryTeller) -> None:
    """The cancel of the stop cannot arrive over a cut; it counts from the reconnect."""
    target, loss = closing("tp", 10, link="VENUE"), stop("sl", 10, link="VENUE")
    up = Link(name="VENUE", is_up=True, epoch=1, in_seq=1, out_seq=1, change=LinkState.RESET)
    teller.record(("gateway", up))
    begin_with(teller, 10, target, loss)
    filled = replace(target, cum_qty=10, leaves_qty=0, notional=1_000, ord_status=OrdStatus.FILLED)
    teller.record(
        ("orders", fill("e1", target, 10)),
        ("orders", filled),
        ("positions", position(0, 10)),
        ("gateway", replace(up, is_up=False, change=LinkState.LOGOUT)),
    )
    for _ in range(10):
        teller.wait(11)
    assert "alternative-ends-with-its-group" not in teller.breaches()


@pytest.mark.parametrize(
    ("kind", "fills", "is_found"),
    [
        (OCO, [("tp", 10), ("sl", 10)], True),
        (OCO, [("tp", 4), ("sl", 7)], True),
        (OCO, [("tp", 10)], False),
        (OUO, [("tp", 10), ("sl", 1)], True),
        (OUO, [("tp", 3), ("sl", 7)], False),
        (None, [("tp", 10), ("sl", 10)], False),
    ],
)
def test_two_alternatives_that_fill_are_found(
    teller: StoryTeller, kind: ContingencyType | None, fills: list[tuple[str, int]], is_found: bool
) -> None:
    """Both filled is a breach; partial fills of orders that reduce each other are not, nor are independent orders."""
    orders = {
        "tp": closing("tp", 10, contingency_type=kind, position_effect=PositionEffect.OPEN),
        "sl": stop("sl", 10, contingency_type=kind, position_effect=PositionEffect.OPEN),
    }
    begin_with(teller, 10, *orders.values())
    net_qty = 10
    for name, quantity in fills:
        before = orders[name]
        net_qty -= quantity
        others = [key for key in orders if key != name] if kind == OUO else []
        size = before.order_qty
        status = OrdStatus.FILLED if quantity == size else OrdStatus.PARTIALLY_FILLED
        orders[name] = replace(
            before, cum_qty=quantity, leaves_qty=size - quantity, notional=quantity * 100, ord_status=status
        )
        teller.record(
            ("orders", fill(f"e-{name}", before, quantity)),
            ("orders", orders[name]),
            ("positions", position(net_qty, 10)),
        )
        for other in others:
            left = orders[other].order_qty - quantity
            if left > orders[other].cum_qty:
                orders[other] = replace(
                    orders[other],
                    order_qty=left,
                    leaves_qty=left - orders[other].cum_qty,
                    exec_type=ExecType.RESTATED,
                )
                teller.record(("orders", orders[other]))
    assert ("alternatives-not-both-filled" in teller.breaches()) == is_found


def test_a_bracket_works_from_its_entry_to_its_exit(teller: StoryTeller) -> None:
    """All three orders are sent together, the entry fills in two parts, the take-profit in two: silent."""
    entry = order("en", 10, side=Side.BUY, list_id="L1", contingency_type=OTO)
    target, loss = closing("tp", 10, contingency_type=OUO), stop("sl", 10, contingency_type=OUO)
    begin_with(teller, 0)
    teller.record(("orders", entry), ("orders", target), ("orders", loss))
    for number, filled in enumerate((4, 10)):
        quantity = filled - entry.cum_qty
        status = OrdStatus.FILLED if filled == 10 else OrdStatus.PARTIALLY_FILLED
        before = entry
        entry = replace(entry, cum_qty=filled, leaves_qty=10 - filled, notional=filled * 100, ord_status=status)
        teller.record(
            ("orders", fill(f"en{number}", before, quantity)), ("orders", entry), ("positions", position(filled))
        )
        teller.wait(20)
    part = replace(target, cum_qty=3, leaves_qty=7, notional=300, ord_status=OrdStatus.PARTIALLY_FILLED)
    teller.record(("orders", fill("tp1", target, 3)), ("orders", part), ("positions", position(7)))
    teller.record(("orders", replace(loss, order_qty=7, leaves_qty=7, exec_type=ExecType.RESTATED)))
    teller.wait(20)
    whole = replace(part, cum_qty=10, leaves_qty=0, notional=1_000, ord_status=OrdStatus.FILLED)
    teller.record(("orders", fill("tp2", target, 7)), ("orders", whole), ("positions", position(0)))
    teller.record(("orders", replace(loss, order_qty=7, leaves_qty=0, ord_status=OrdStatus.CANCELED)))
    teller.wait(20)
    assert teller.breaches() == set()


@pytest.mark.parametrize(("kept", "is_found"), [(4, False), (10, True)])
def test_the_end_of_an_entry_leaves_exits_for_what_it_filled(teller: StoryTeller, kept: int, is_found: bool) -> None:
    """The entry was cancelled after 4 of 10; exits for 10 would sell what was never bought."""
    entry = order("en", 10, side=Side.BUY, list_id="L1", contingency_type=OTO)
    loss = stop("sl", 10, contingency_type=OUO)
    begin_with(teller, 0)
    teller.record(("orders", entry), ("orders", loss))
    ended = replace(entry, cum_qty=4, leaves_qty=0, notional=400, ord_status=OrdStatus.CANCELED)
    teller.record(("orders", fill("e1", entry, 4)), ("orders", ended), ("positions", position(4)))
    teller.record(("orders", replace(loss, order_qty=kept, leaves_qty=kept, exec_type=ExecType.RESTATED)))
    teller.wait(11)
    assert ("alternative-ends-with-its-group" in teller.breaches()) == is_found


def test_a_group_and_a_further_close_exceed_the_position(teller: StoryTeller) -> None:
    """Of the group the largest order counts, and the single order beside it counts in full."""
    begin_with(teller, 10, closing("tp", 10), stop("sl", 10))
    assert teller.breaches() == set()
    teller.record(("orders", closing("x", 1, list_id="", contingency_type=None)))
    assert "closing-orders-covered" in teller.breaches()


@pytest.mark.parametrize("reserved", [5, 11, 19])
def test_a_reservation_is_the_sum_or_what_fills_together(teller: StoryTeller, reserved: int) -> None:
    """Anything between the two is neither."""
    begin_with(teller, 10)
    teller.record(
        ("orders", closing("tp", 10)),
        ("orders", stop("sl", 10)),
        ("positions", position(10, 10, reserved_qty=reserved)),
    )
    assert teller.breaches() == {"reservations-follow-orders"}


# -- protection -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "orders", "is_found"),
    [
        (10, [stop("sl", 10)], False),
        (10, [stop("sl", 6)], True),
        (10, [closing("tp", 10)], True),
        (10, [stop("a", 6, list_id="L1"), stop("b", 4, list_id="L2")], False),
        (10, [stop("a", 6), stop("b", 6)], True),
        (10, [stop("a", 10, side=Side.BUY)], True),
        (-10, [stop("a", 10, side=Side.BUY)], False),
        (10, [stop("a", 10), order("b", 10, side=Side.BUY, ord_type=OrdType.STOP, stop_px=120)], False),
        (0, [], False),
    ],
    ids=["whole", "a part", "no stop", "two lists", "alternatives", "wrong side", "short", "breakout entry", "flat"],
)
def test_a_position_needs_stops_of_its_size(
    teller: StoryTeller, quantity: int, orders: list[Order], is_found: bool
) -> None:
    """Working stops on the other side, of one list the largest; the rule holds from its record on."""
    begin_with(teller, quantity, *orders)
    teller.wait(30)
    assert "position-protected" not in teller.breaches()
    teller.record(("risk", Protection(account=ACCOUNT, symbol=SYMBOL)))
    teller.wait(9)
    assert "position-protected" not in teller.breaches()
    teller.wait(2)
    assert ("position-protected" in teller.breaches()) == is_found


@pytest.mark.parametrize("change", ["not required", "halted"])
def test_no_stop_is_due_where_none_is_required_or_possible(teller: StoryTeller, change: str) -> None:
    """The rule may be switched off, and a halted book takes no stop."""
    if change == "halted":
        teller.record(("gateway", Book(symbol=SYMBOL, trading=False, reason="halt")))
    begin_with(teller, 10)
    teller.record(("risk", Protection(account=ACCOUNT, symbol=SYMBOL, is_required=change != "not required")))
    for _ in range(5):
        teller.wait(11)
    assert teller.breaches() == set()


# -- legs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leg", "carried", "side", "exec_type", "is_found"),
    [
        (PositionSide.LONG, 2, Side.SELL, ExecType.TRADE, False),
        (PositionSide.LONG, 1, Side.SELL, ExecType.TRADE, True),
        (PositionSide.LONG, -5, Side.BUY, ExecType.TRADE, False),
        (PositionSide.SHORT, -2, Side.BUY, ExecType.TRADE, False),
        (PositionSide.SHORT, -1, Side.BUY, ExecType.TRADE, True),
        (PositionSide.LONG, 1, Side.SELL, ExecType.TRADE_CORRECT, False),
        (None, 1, Side.SELL, ExecType.TRADE, False),
    ],
)
def test_a_fill_keeps_a_leg_on_its_side(
    teller: StoryTeller, leg: PositionSide | None, carried: int, side: Side, exec_type: ExecType, is_found: bool
) -> None:
    """A net position may have either sign, and a correction may take back what was closed since."""
    leg_order = order("o", 2, side=side, position_side=leg)
    begin_with(teller, 0)
    signed = 2 if side == Side.BUY else -2
    execution = replace(
        fill("e1", leg_order, 2), exec_type=exec_type, exec_ref_id="e0" if exec_type != ExecType.TRADE else ""
    )
    teller.record(
        ("orders", order("first", 1, 1, side=Side.BUY, position_side=PositionSide.LONG)),
        ("orders", execution),
        ("positions", position(carried + signed, carried, position_side=leg)),
    )
    assert ("leg-keeps-its-side" in teller.breaches()) == is_found


@pytest.mark.parametrize("short", [-1, 0])
def test_each_leg_is_compared_with_the_venue_s(teller: StoryTeller, short: int) -> None:
    """The venue has 2 long and 1 short; a system that restored the long leg only is found at its reconciliation."""
    legs = [position(2, 2, position_side=PositionSide.LONG)]
    if short:
        legs.append(position(short, short, position_side=PositionSide.SHORT))
    teller.restore(orders=[], positions=[*legs])
    teller.record(
        ("venue", position(2, position_side=PositionSide.LONG)),
        ("venue", position(-1, position_side=PositionSide.SHORT)),
    )
    teller.guard.reconciled(DAY)
    assert ("books-agree-with-venue" in teller.breaches()) == (short == 0)


# -- intents --------------------------------------------------------------------------------------------------------

INTENT = Intent(
    intent_id="day/1", strategy="s1", symbol=SYMBOL, side=Side.BUY, target_qty=100, account=ACCOUNT, trade_date=DAY
)


def buying(key: str, quantity: int, filled: int = 0, status: OrdStatus | None = None) -> Order:
    """Return an order that works for the intent."""
    return order(key, quantity, filled, status, side=Side.BUY, intent_id=INTENT.key)


def do_day_twice(teller: StoryTeller, is_wrong: bool) -> None:
    """The day's 100 lots are bought; after a restart the plan begins again, or does not."""
    teller.record(("orders", INTENT), ("orders", buying("o1", 100)))
    teller.record(("orders", fill("e1", buying("o1", 100), 100)), ("orders", buying("o1", 100, 100)))
    teller.record(("orders", replace(INTENT, is_working=False)))
    teller.restore(
        orders=[replace(INTENT, is_working=False), buying("o1", 100, 100), fill("e1", buying("o1", 100), 100)]
    )
    if is_wrong:
        teller.record(("orders", buying("o2", 100)))


def send_standing_order_again(teller: StoryTeller, is_wrong: bool) -> None:
    """A standing order is sent again after each restart because its fate is unknown, or only after it was cancelled."""
    teller.record(("orders", INTENT), ("orders", buying("o1", 100)))
    for number in (2, 3):
        if not is_wrong:
            teller.record(("orders", buying(f"o{number - 1}", 100, status=OrdStatus.CANCELED)))
        teller.record(("orders", buying(f"o{number}", 100)))
    teller.wait(40)


def shrink_by_reprices(teller: StoryTeller, is_wrong: bool) -> None:
    """A carried order is repriced three times; each time its OrderQty shrinks by what has filled, or it does not."""
    teller.record(("orders", INTENT), ("orders", buying("o1", 100)))
    quantity, filled = 100, 0
    for number in range(3):
        filled += 10
        part = replace(
            buying("o1", quantity),
            cum_qty=filled,
            leaves_qty=quantity - filled,
            notional=filled * 100,
            ord_status=OrdStatus.PARTIALLY_FILLED,
        )
        teller.record(("orders", fill(f"e{number}", part, 10)), ("orders", part))
        quantity -= 10 if is_wrong else 0
        teller.record(
            (
                "orders",
                replace(
                    part,
                    cl_ord_id=f"o1~{number}",
                    orig_cl_ord_id=part.cl_ord_id,
                    order_qty=quantity,
                    leaves_qty=quantity - filled,
                    exec_type=ExecType.REPLACED,
                ),
            )
        )
    teller.wait(31)


def work_by_a_parent(teller: StoryTeller, is_wrong: bool) -> None:
    """A parent order of the intent sends slices; after the restart it has its whole quantity, or the remainder."""
    parent = ParentOrder(
        parent_id=INTENT.key, symbol=SYMBOL, side=Side.BUY, order_qty=100, account=ACCOUNT, strategy="s1"
    )
    slice_order = replace(buying("o1", 30), cl_ord_link_id=parent.key)
    teller.record(("orders", parent), ("orders", INTENT))
    teller.record(("orders", slice_order), ("orders", replace(parent, working_qty=30)))
    teller.wait(60)
    parent = replace(parent, working_qty=30)
    teller.restore(orders=[INTENT, slice_order, replace(parent, order_qty=70) if is_wrong else parent])
    teller.wait(60)


@pytest.mark.parametrize("is_wrong", [True, False], ids=["wrong", "right"])
@pytest.mark.parametrize(
    ("story", "invariant"),
    [
        (do_day_twice, "intent-not-exceeded"),
        (send_standing_order_again, "intent-not-exceeded"),
        (shrink_by_reprices, "intent-not-shrunk"),
        (work_by_a_parent, "intent-not-shrunk"),
    ],
)
def test_an_intent_is_neither_exceeded_nor_shrunk(
    teller: StoryTeller, story: Callable[[StoryTeller, bool], None], invariant: str, is_wrong: bool
) -> None:
    """What a strategy means to trade counts over restarts, repeated orders and reprices."""
    story(teller, is_wrong)
    assert (invariant in teller.breaches()) == is_wrong
    assert is_wrong or teller.breaches() == set()


def test_the_venue_s_orders_count_as_well(teller: StoryTeller) -> None:
    """The system has forgotten an order that the venue still works."""
    teller.record(("orders", INTENT), ("orders", buying("o2", 100)))
    teller.record(("venue", buying("o1", 100)), ("venue", buying("o2", 100)))
    assert "intent-not-exceeded" in teller.breaches()
