"""The cell as a breach tells it: what is known, by name, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.model import Link, Order, OrdStatus, Reconciliation, TimeInForce
from holdover.runtime import CellCounter, Guard
from holdover.runtime.axes import BUILT_IN, in_words
from holdover.runtime.axes import axis as declare

from .test_model import order

PARTIAL = order(ord_status=OrdStatus.PARTIALLY_FILLED, cum_qty=10, leaves_qty=90, time_in_force=TimeInForce.GTC)
UP = Link(name="V", up=True, epoch=1)
DONE = Reconciliation(link="V", epoch=1, done=True)


def test_a_breach_tells_the_cell_and_what_led_there(make_guard: Callable[..., Guard]) -> None:
    """Every axis by name; the freeze that this breach itself sets comes after it."""
    guard = make_guard()
    guard.boundary("begin", "2024-01-02")
    guard.record("gateway", UP)
    guard.record("reconciler", DONE)
    guard.transition("restart", "kill")
    guard.record("gateway", replace(UP, epoch=2))
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

    def told(axes: list[type]) -> dict[str, str]:
        counter = CellCounter(axes)
        for table, record in ((("orders", Order), PARTIAL), (("gateway", Link), UP)):
            watch, _ = counter.watch(table)
            if watch is not None:
                watch(None, record)
        return counter.here()

    axes: list[type] = list(BUILT_IN)
    rng.shuffle(axes)
    some = axes[: rng.randint(0, len(axes))]
    whole = told(list(BUILT_IN))
    assert list(told(axes).items()) == list(whole.items())
    assert told(some) == {name: value for name, value in whole.items() if name in {one.name for one in some}}


def test_what_nobody_has_told_is_left_out() -> None:
    """No link is not a link that is down, and no word of a session is not the time before the first."""
    counter = CellCounter()
    assert counter.here() == {"freeze": "nothing"}
    watch, _ = counter.watch(("orders", Order))
    assert watch is not None
    watch(None, PARTIAL)
    assert counter.here().keys() == {"freeze", "orders", "carried-partial", "in-flight", "unacknowledged", "tif"}
    counter.transition("begin", "2024-01-02")
    assert {"age", "session"} <= counter.here().keys()
    watch(PARTIAL, None)
    assert counter.here()["carried-partial"] == "no"  # this is known: there was one
    assert CellCounter(()).here() == {}


def test_records_that_are_being_read_back_tell_nothing() -> None:
    """In the middle of it the system is in no state at all."""
    counter = CellCounter()
    watch, _ = counter.watch(("orders", Order))
    assert watch is not None
    with counter.quietly():
        watch(None, PARTIAL)
        assert counter.here() == {"freeze": "nothing"}
    assert counter.here()["carried-partial"] == "yes"


def test_a_night_makes_the_link_unknown_until_it_is_said_again(make_guard: Callable[..., Guard]) -> None:
    """What yesterday's process said of its link is not told of this morning's; the coverage counts it as ever."""
    counter = CellCounter()
    watch, _ = counter.watch(("gateway", Link))
    assert watch is not None
    watch(None, UP)
    kept, memory = counter.keep(), counter.dump()
    assert counter.here()["link"] == "up"
    counter.transition("overnight")
    cell = counter.cell
    assert "link" not in counter.here()
    counter.transition("begin", "2024-01-03")
    assert "link" not in counter.here()
    held = counter.dump()
    watch(UP, replace(UP, up=False, epoch=2))
    assert counter.here()["link"] == "down"
    counter.put_back(kept)
    assert counter.here()["link"] == "up"
    for dumped, known in ((held, False), (memory, True), ({**memory, "shown": []}, False)):
        other = CellCounter()
        other.load(dumped)
        assert ("link" in other.here()) == known
    guard, next_day = make_guard(), make_guard(name="next")
    guard.record("gateway", UP)
    guard.boundary("overnight", "2024-01-02")
    next_day.monitor.load(guard.monitor.dump())
    assert next_day.cells.here() == guard.cells.here()
    assert "link" not in next_day.cells.here()
    older = CellCounter()
    older.load({name: value for name, value in memory.items() if name != "shown"})  # of before
    assert "link" not in older.here()
    assert cell == counter.cell + _stride(counter, "session") * 3


def _stride(counter: CellCounter, name: str) -> int:
    return dict(zip((one.name for one in counter.axes), counter._strides, strict=True))[name]


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
    assert list(in_words(cell).values()) == ["no order open", "link up", "freeze thin", "zone 9"]
    assert in_words(cell, ("link", "reconciliation")) == {"link": "link up"}
