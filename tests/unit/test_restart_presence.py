"""Presence over restarts: a correct history is silent whatever of it is recorded and read back; a defect is found.

The history comes from a model of a correct system (`restart_model`). What is recorded, what is read back and which
guard meets the restarted system are drawn independently.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.model import Order, OrdStatus, Position, Record, Request, TimeInForce

from .restart_model import OPTIONAL_FIELDS, TABLES, Event, Habits, HistoryPlayer, TradingModel

CATALOGUE = Catalogue.load()
OPERATIONS = ("new", "new", "fill", "fill", "fill-all", "cancel", "replace", "bust", "restart", "restart", "night")


def with_orders(tables: set[str]) -> frozenset[str]:
    """Return a set of tables in which the order manager, if it records anything, records its orders."""
    return frozenset(tables | {"orders.Order"} if any(name.startswith("orders.") for name in tables) else tables)


def restore_for_a_new_guard(habits: Habits) -> Habits:
    """Return habits in which a system that meets a new guard tells it all its books."""
    return dataclasses.replace(habits, books=True) if habits.guard == "new" else habits


habits_drawn = st.builds(
    Habits,
    kinds=st.sets(st.sampled_from(TABLES), min_size=1).map(with_orders),
    empty=st.sets(st.sampled_from(OPTIONAL_FIELDS), max_size=3).map(frozenset),
    orders=st.sampled_from(["working", "today", "all"]),
    executions=st.booleans(),
    books=st.booleans(),
    guard=st.sampled_from(["same", "memory", "new"]),
).map(restore_for_a_new_guard)


def draw_operations(draw: st.DrawFn, model: TradingModel, operations: list[str], count: int) -> None:
    """Perform drawn operations; most recoveries complete at once."""
    operation = st.tuples(st.sampled_from(operations), st.integers(0, 11), st.integers(1, 5), st.booleans())
    for name, index, amount, is_late in draw(st.lists(operation, max_size=count)):
        model.perform(name, index, amount)
        if name == "restart" and not is_late:
            model.perform("reconciled", 0, 0)


@st.composite
def correct_histories(draw: st.DrawFn) -> tuple[list[Event], Habits]:
    """A correct history of up to five days with restarts at any place, and the habits of the system."""
    habits, model = draw(habits_drawn), TradingModel()
    # A guard without memory cannot know an order that closed before it and whose fill is busted now.
    is_blind = habits.guard == "new" and habits.orders == "working"
    draw_operations(draw, model, [name for name in OPERATIONS if name != "bust" or not is_blind], 25)
    model.perform("reconciled", 0, 0)
    return model.events, habits


@contextmanager
def playing(habits: Habits) -> Iterator[HistoryPlayer]:
    """Provide a player in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        player = HistoryPlayer(Path(directory), CATALOGUE, habits)
        yield player
        player.guard.close()


def play(events: list[Event], habits: Habits) -> HistoryPlayer:
    """Tell a history to a guard."""
    with playing(habits) as player:
        player.play(events)
    return player


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(correct_histories())
def test_a_correct_history_is_silent(case: tuple[list[Event], Habits]) -> None:
    """Whatever is recorded, restored and remembered."""
    events, habits = case
    assert play(events, habits).explanations == []


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a fill and its bust before a restart without executions": (
        "new-5-2 fill-all-0-1 bust-0-1 restart",
        {"executions": False},
    ),
    "an order canceled after its only fill was busted": (
        "new-1-1 fill-all-0-1 bust-0-1 cancel-0-1 restart",
        {"orders": "working", "executions": False, "books": False},
    ),
    "a second fill after a bust": (
        "new-5-2 fill-0-1 bust-0-1 fill-0-2 restart",
        {"executions": False, "guard": "memory", "books": False},
    ),
    "an order that was retired comes back closed": (
        "new-1-2 fill-all-0-1 night night restart new-2-1 fill-0-1",
        {},
    ),
    "an order that was retired comes back to another guard": (
        "new-1-2 fill-all-0-1 night night restart new-2-1 fill-0-1",
        {"guard": "memory"},
    ),
    "cash of fills that the guard has not seen": (
        "new-1-5 fill-0-2 restart fill-0-1 night",
        {"executions": False, "guard": "new"},
    ),
    "a parent whose closed child the guard has not seen": (
        "new-1-2 fill-all-0-1 new-1-3 restart fill-0-1",
        {"orders": "working", "guard": "new"},
    ),
    "a bust of a fill that the guard has not seen": (
        "new-1-5 fill-0-2 restart bust-0-1",
        {"executions": False, "guard": "new"},
    ),
    "two reconciliations around a fill without a view of the venue": (
        "new-1-5 restart fill-0-2",
        {"kinds": frozenset({"orders.Order"})},
    ),
    "parents recorded and no order linked to them": (
        "new-1-5 fill-0-2 restart fill-0-1",
        {"empty": frozenset({"cl_ord_link_id"})},
    ),
}
"""Histories with which a guard has stopped a correct system: operations with index and amount, and the habits."""


@pytest.mark.parametrize("name", CASES)
def test_a_history_that_once_raised_a_false_alarm_is_silent(name: str) -> None:
    """Each kind of it, by the shortest history that shows it."""
    text, fields = CASES[name]
    model = TradingModel()
    for operation in text.split():
        verb, *numbers = operation.rsplit("-", 2) if operation[-1].isdigit() else [operation]
        index, amount = map(int, numbers or (0, 1))
        model.perform(verb, index, amount)
        if verb == "restart":
            model.perform("reconciled", 0, 0)
    model.perform("reconciled", 0, 0)
    assert play(model.events, Habits(**{"kinds": frozenset(TABLES), **fields})).explanations == []


@st.composite
def histories_with_a_lost_day(draw: st.DrawFn) -> tuple[list[Event], list[Event], Habits]:
    """A correct day, what the venue tells of it again, and the habits of a system that stores all it records."""
    kinds = {*TABLES} - draw(st.sets(st.sampled_from(["orders.ParentOrder", "risk.Exposure", "ledger.Balance"])))
    habits = Habits(
        kinds=frozenset(kinds),
        empty=frozenset(),
        orders=draw(st.sampled_from(["working", "today", "all"])),
        executions=draw(st.booleans()),
        books=True,
        guard=draw(st.sampled_from(["same", "memory"])),
    )
    model = TradingModel()
    draw_operations(draw, model, ["new", "new", "fill", "fill-all", "cancel"], 15)
    told_again = [
        dataclasses.replace(
            event,
            entries=[entry for entry in event.entries if entry[0] != "venue" and not isinstance(entry[1], Request)],
        )
        for event in model.events
    ]
    before, model.events = model.events, []
    model.perform("reconciled", 0, 0)
    return before, [Event("restart", [], before[0].trade_date if before else ""), *told_again, *model.events], habits


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories_with_a_lost_day())
def test_a_day_that_the_venue_tells_again_is_silent(case: tuple[list[Event], list[Event], Habits]) -> None:
    """After a restart from a backup of before the day, whether the orders and positions of the day add up or cancel."""
    before, after, habits = case
    with playing(habits) as player:
        player.play(before)
        assume(player.explanations == [])  # an opening sale may fill while a closing one is open: no subject here
        player.play(after)
    assert player.explanations == []


# -- defects ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Defect:
    """What a restart gets wrong, the sets of tables of which one shows it, and the invariants that may find it.

    `fields` must be set; `needs_memory` says whether only a guard that remembers the time before can know. `silent` are
    the tables that the system stops to record after the restart.
    """

    corrupt: Callable[[dict[str, list[Record]]], None]
    shown_by: tuple[frozenset[str], ...]
    invariants: frozenset[str]
    fields: frozenset[str] = frozenset()
    needs_memory: bool = True
    needs_books: bool = False
    silent: frozenset[str] = frozenset()


def corrupt_records(kind: type[Record], change: Callable[[Any], Record | None]) -> Callable[..., None]:
    """Return a corruption of the restored records of a kind; a record that becomes None is not restored."""

    def corrupt(restored: dict[str, list[Record]]) -> None:
        for records in restored.values():
            changed = [change(record) if isinstance(record, kind) else record for record in records]
            records[:] = [record for record in changed if record is not None]

    return corrupt


def lose_fill_of_position(record: Position) -> Position:
    """The position of the instrument that was filled lacks the two lots."""
    return replace(record, net_qty=record.net_qty - 2) if record.symbol == "ETH" else record


def lose_fill_of_order(record: Order) -> Order:
    """The order that was filled in part comes back unfilled."""
    if record.is_open and record.cum_qty == 2 and record.order_qty == 77:
        return replace(record, cum_qty=0, leaves_qty=77, notional=0, ord_status=OrdStatus.NEW)
    return record


def change_price(record: Order) -> Order:
    """A working order comes back with another price."""
    return replace(record, price=1) if record.order_qty == 77 else record


def change_time_in_force(record: Order) -> Order:
    """A working order comes back as a DAY order."""
    return replace(record, time_in_force=TimeInForce.DAY) if record.order_qty == 77 else record


def tables(*names: str) -> tuple[frozenset[str], ...]:
    """Return sets of tables, each written with blanks between them."""
    return tuple(frozenset(name.split()) for name in names)


DEFECTS: dict[str, Defect] = {
    "a position that lost a fill": Defect(
        corrupt_records(Position, lose_fill_of_position),
        tables("positions.Position risk.Exposure", "positions.Position orders.Order orders.Execution"),
        frozenset({"positions-agree", "position-equals-carried-plus-fills", "store-agrees-with-memory"}),
        fields=frozenset({"trade_date"}),
        needs_books=True,
    ),
    "an order that lost a fill": Defect(
        corrupt_records(Order, lose_fill_of_order),
        tables("orders.Order"),
        frozenset({"store-agrees-with-memory", "cumulative-equals-executions", "cumulative-never-falls"}),
    ),
    "an order that did not come back": Defect(
        corrupt_records(Order, lambda record: None if record.order_qty == 77 else record),
        tables("orders.Order"),
        frozenset({"store-agrees-with-memory"}),
    ),
    "a working order with another price": Defect(
        corrupt_records(Order, change_price), tables("orders.Order"), frozenset({"restored-order-unchanged"})
    ),
    "a working order with another time in force": Defect(
        corrupt_records(Order, change_time_in_force), tables("orders.Order"), frozenset({"restored-order-unchanged"})
    ),
    "a risk check that stopped": Defect(
        lambda restored: None,
        tables("positions.Position risk.Exposure", "orders.Order risk.Exposure"),
        frozenset({"positions-agree", "open-quantity-agrees"}),
        needs_memory=False,
        silent=frozenset({"risk.Exposure"}),
    ),
    "a position keeper that stopped": Defect(
        lambda restored: None,
        tables("positions.Position risk.Exposure", "positions.Position orders.Order orders.Execution"),
        frozenset({"positions-agree", "position-equals-carried-plus-fills"}),
        fields=frozenset({"trade_date"}),
        silent=frozenset({"positions.Position"}),
    ),
    "an order manager that stopped": Defect(
        lambda restored: None,
        tables("orders.Order orders.Execution", "orders.Order risk.Exposure"),
        frozenset({"cumulative-equals-executions", "open-quantity-agrees"}),
        silent=frozenset({"orders.Order", "orders.ParentOrder"}),
    ),
}
"""What must be recorded for a defect to be found."""


@pytest.mark.parametrize("name", DEFECTS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_defect_at_a_restart_is_found(name: str, data: st.DataObject) -> None:
    """Where the recorded tables show it, whatever else is recorded and whatever happened before."""
    defect = DEFECTS[name]
    habits = data.draw(habits_drawn)
    kinds = habits.kinds | data.draw(st.sampled_from(defect.shown_by))
    guard = data.draw(st.sampled_from(["same", "memory"])) if defect.needs_memory else habits.guard
    habits = dataclasses.replace(
        habits,
        kinds=with_orders(set(kinds)),
        empty=habits.empty - defect.fields,
        guard=guard,
        books=habits.books or defect.needs_books,
    )
    model = TradingModel()
    draw_operations(data.draw, model, list(OPERATIONS) if guard != "new" else ["new", "fill", "cancel"], 8)
    model.perform("reconciled", 0, 0)
    model.enter("ETH", 77, 1)
    order = next(order for order in model.orders.values() if order.order_qty == 77)
    model.fill(order, 2)
    before, model.events = model.events, []
    model.perform("restart", 0, 0)
    model.perform("reconciled", 0, 0)
    with playing(habits) as player:
        player.play(before)
        assert player.explanations == []
        player.corrupt = defect.corrupt
        player.play(model.events)
        model.events.clear()
        model.fill(model.orders[order.key], 3)
        player.silent = defect.silent
        player.play(model.events)
    assert player.breached & defect.invariants, (habits, player.explanations)
