"""The cell of a breach contains the known axes by name, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.model import Link, Order, OrdStatus, Reconciliation, TimeInForce
from holdover.runtime import CellCounter, Guard
from holdover.runtime.axes import BUILT_IN, describe_cell
from holdover.runtime.axes import axis as declare

from .test_model import order

PARTIAL = order(ord_status=OrdStatus.PARTIALLY_FILLED, cum_qty=10, leaves_qty=90, time_in_force=TimeInForce.GTC)
LINK_UP = Link(name="V", is_up=True, epoch=1)
RECONCILED = Reconciliation(link="V", epoch=1, is_complete=True)


def test_a_breach_tells_the_cell_and_what_led_there(make_guard: Callable[..., Guard]) -> None:
    """Every axis by name; the freeze that this breach itself sets comes after it."""
    guard = make_guard()
    guard.boundary("begin", "2024-01-02")
    guard.record("gateway", LINK_UP)
    guard.record("reconciler", RECONCILED)
    guard.count_transition("restart", "kill")
    guard.record("gateway", replace(LINK_UP, epoch=2))
    guard.record("orders", replace(PARTIAL, leaves_qty=91, trade_date="2024-01-02"))
    breach = guard.breaches[0]
    assert breach.invariant == "order-quantity-conserved"
    assert breach.cell == {
        "age": "today",
        "carried-partial": "yes",
        "freeze": "nothing",
        "in-flight": "none",
        "link": "up",
        "orders": "partial",
        "reconciliation": "pending",
        "session": "open",
        "tif": "carried",
        "unacknowledged": "none",
    }  # of positions nothing was ever said
    assert breach.after == "restart:kill"
    assert breach.state == "a partial fill to carry over the night, link up, not reconciled; after restart:kill"
    assert guard.store.breaches()[0] == breach
    assert guard.store.alerts()[0].page.state == breach.state


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_axes_changes_nothing(rng: random.Random) -> None:
    """What is told depends on neither the order of the axes nor on which others are in use."""

    def cell_values(axes: list[type]) -> dict[str, str]:
        counter = CellCounter(axes)
        for table, record in ((("orders", Order), PARTIAL), (("gateway", Link), LINK_UP)):
            watch, _ = counter.observer_of(table)
            if watch is not None:
                watch(None, record)
        return counter.known_values()

    axes: list[type] = list(BUILT_IN)
    rng.shuffle(axes)
    axis_subset = axes[: rng.randint(0, len(axes))]
    whole = cell_values(list(BUILT_IN))
    assert list(cell_values(axes).items()) == list(whole.items())
    assert cell_values(axis_subset) == {
        name: value for name, value in whole.items() if name in {axis.name for axis in axis_subset}
    }


def test_what_nobody_has_told_is_left_out() -> None:
    """No link is not a link that is down, and no word of a session is not the time before the first."""
    counter = CellCounter()
    assert counter.known_values() == {"freeze": "nothing"}
    watch, _ = counter.observer_of(("orders", Order))
    assert watch is not None
    watch(None, PARTIAL)
    assert counter.known_values().keys() == {
        "freeze",
        "orders",
        "carried-partial",
        "in-flight",
        "unacknowledged",
        "tif",
    }
    counter.count_transition("begin", "2024-01-02")
    assert {"age", "session"} <= counter.known_values().keys()
    watch(PARTIAL, None)
    assert counter.known_values()["carried-partial"] == "no"  # this is known: there was one
    assert CellCounter(()).known_values() == {}


def test_records_that_are_being_read_back_tell_nothing() -> None:
    """In the middle of it the system is in no state at all."""
    counter = CellCounter()
    watch, _ = counter.observer_of(("orders", Order))
    assert watch is not None
    with counter.suspend_counting():
        watch(None, PARTIAL)
        assert counter.known_values() == {"freeze": "nothing"}
    assert counter.known_values()["carried-partial"] == "yes"


def test_a_night_makes_the_link_unknown_until_it_is_said_again(make_guard: Callable[..., Guard]) -> None:
    """What yesterday's process said of its link is not told of this morning's; the coverage counts it as ever."""
    counter = CellCounter()
    watch, _ = counter.observer_of(("gateway", Link))
    assert watch is not None
    watch(None, LINK_UP)
    checkpoint, memory = counter.checkpoint(), counter.export_state()
    assert counter.known_values()["link"] == "up"
    counter.count_transition("overnight")
    cell = counter.cell
    assert "link" not in counter.known_values()
    counter.count_transition("begin", "2024-01-03")
    assert "link" not in counter.known_values()
    overnight_memory = counter.export_state()
    watch(LINK_UP, replace(LINK_UP, is_up=False, epoch=2))
    assert counter.known_values()["link"] == "down"
    counter.rollback(checkpoint)
    assert counter.known_values()["link"] == "up"
    for dumped, is_known in ((overnight_memory, False), (memory, True), (replace(memory, observed_axes=[]), False)):
        restored = CellCounter()
        restored.restore_state(dumped)
        assert ("link" in restored.known_values()) == is_known
    guard, next_day = make_guard(), make_guard(name="next")
    guard.record("gateway", LINK_UP)
    guard.boundary("overnight", "2024-01-02")
    next_day.monitor.restore_bytes(guard.monitor.to_bytes())
    assert next_day.cells.known_values() == guard.cells.known_values()
    assert "link" not in next_day.cells.known_values()
    assert cell == counter.cell + _stride(counter, "session") * 3


def _stride(counter: CellCounter, name: str) -> int:
    return dict(zip((axis.name for axis in counter.axes), counter._strides, strict=True))[name]


def test_a_broken_axis_is_left_out(make_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands still, so what it says is not so."""
    monkeypatch.setattr("holdover.runtime.axes._REGISTERED", {})

    @declare("sound", values=("no", "yes"), reads=[("orders", Order)], words=("none sound", "one sound"))
    def sound(record: Order) -> bool:
        return True

    @declare("broken", values=("no", "yes"), reads=[("orders", Order)])
    def broken(record: Order) -> bool:
        raise ZeroDivisionError

    guard = make_guard()
    guard.record("orders", replace(PARTIAL, leaves_qty=91))
    assert guard.breaches[0].cell["sound"] == "yes"
    assert "broken" not in guard.breaches[0].cell


def test_a_cell_in_words() -> None:
    """In the order of the axes and in their words; what nobody here knows is told by its name."""
    cell = {"zone": "9", "link": "up", "orders": "none", "freeze": "thin"}
    assert list(describe_cell(cell).values()) == ["no order open", "link up", "freeze thin", "zone 9"]
    assert describe_cell(cell, ("link", "reconciliation")) == {"link": "link up"}
