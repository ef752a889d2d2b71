"""State as a value: what a class declares is what is saved, put back and encoded."""

from __future__ import annotations

from collections import deque
from typing import Annotated, Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdover.state.stateful as stateful
from holdover.state import Owned, StateError, Stateful, undeclared_attributes


class Ticket(msgspec.Struct):
    """A mutable struct."""

    name: str
    quantity: int = 0


class DrawerState(msgspec.Struct):
    """The state of a drawer: every kind of field."""

    count: int
    tickets: Annotated[dict[str, Ticket], Owned]
    by_name: dict[str, list[int]]
    recent: deque[int]
    marks: set[str]
    undo: list[str] | None
    queue: list[str]


class Drawer(Stateful[DrawerState]):
    """An object with every kind of attribute."""

    State = DrawerState
    IN_PROCESS: ClassVar = {"handler": "a function of this process"}
    DERIVED: ClassVar = {"total": "the sum of the tickets' quantities"}

    def __init__(self) -> None:
        self.count = 0
        self.tickets: dict[str, Ticket] = {}
        self._by_name: dict[str, list[int]] = {}
        self.recent: deque[int] = deque()
        self.marks: set[str] = set()
        self.undo: list[str] | None = None
        self._queue: list[str] = []
        self.handler: Any = None
        self.total = 0

    def _after_restore(self) -> None:
        self.total = sum(ticket.quantity for ticket in self.tickets.values())


def contents(drawer: Drawer) -> bytes:
    """The whole state, encoded."""
    return drawer.to_bytes()


def change(drawer: Drawer, step: int) -> None:
    """Change one attribute after the other, by the number of the step."""
    name = f"T{step % 5}"
    match step % 8:
        case 0:
            drawer.count += step
        case 1:
            drawer.tickets.setdefault(name, Ticket(name)).quantity += step
        case 2:
            drawer._by_name.setdefault(name, []).append(step)
        case 3:
            drawer.recent.append(step)
        case 4:
            drawer.marks ^= {name}
        case 5:
            drawer.undo = None if drawer.undo else [*(drawer.undo or []), name]
        case 6:
            drawer._queue.append(name)
        case 7:
            drawer.tickets.pop(name, None)
    drawer._after_restore()


@given(st.lists(st.integers(0, 200)), st.lists(st.integers(0, 200)), st.lists(st.integers(0, 200)))
def test_rollback_undoes_whatever_happened_since(before: list[int], after: list[int], more: list[int]) -> None:
    """A checkpoint gives the state back, byte for byte and more than once, and keeps every object's identity."""
    drawer = Drawer()
    for step in before:
        change(drawer, step)
    saved, expected, total = drawer.checkpoint(), contents(drawer), drawer.total
    containers = [drawer.tickets, drawer._by_name, drawer.recent, drawer.marks, drawer._queue]
    owned = dict(drawer.tickets)
    for steps in (after, more):
        for step in steps:
            change(drawer, step)
        drawer.rollback(saved)
        assert contents(drawer) == expected
        assert drawer.total == total
        assert drawer.tickets == owned
    assert all(drawer.tickets[name] is ticket for name, ticket in owned.items())
    now = [drawer.tickets, drawer._by_name, drawer.recent, drawer._queue]
    assert all(kept is container for kept, container in zip(now, [*containers[:3], containers[4]], strict=True))


@given(st.lists(st.integers(0, 200)))
def test_bytes_are_the_state_in_another_process(steps: list[int]) -> None:
    """A state that was encoded and restored elsewhere is the same, and what is derived follows from it."""
    drawer, restored = Drawer(), Drawer()
    for step in steps:
        change(drawer, step)
    restored.restore_bytes(drawer.to_bytes())
    assert restored.to_bytes() == drawer.to_bytes()
    assert restored.total == drawer.total


def test_a_forgotten_attribute_is_found() -> None:
    """An attribute that is neither state nor in-process nor derived is named."""

    class Forgetful(Drawer):
        def __init__(self) -> None:
            super().__init__()
            self.forgotten = 1

    assert undeclared_attributes(Drawer) == []
    assert undeclared_attributes(Forgetful) == ["forgotten"]


def test_a_declared_field_that_is_never_assigned_is_refused() -> None:
    """A state struct cannot name what the class does not have."""

    class WrongState(msgspec.Struct):
        missing: int

    class Wrong(Stateful[WrongState]):
        State = WrongState

    with pytest.raises(TypeError, match="assigns neither missing nor _missing"):
        Wrong().checkpoint()


def test_a_dict_comes_back_in_its_order() -> None:
    """Order is state: a replay iterates over it."""
    drawer = Drawer()
    drawer._by_name.update(a=[1], b=[2])
    saved = drawer.checkpoint()
    drawer._by_name["a"] = drawer._by_name.pop("a")
    assert list(drawer._by_name) == ["b", "a"]
    drawer.rollback(saved)
    assert list(drawer._by_name) == ["a", "b"]


def test_damaged_bytes_name_their_owner() -> None:
    """Damaged state is one sentence with the class in it."""
    with pytest.raises(StateError, match="stored state of Drawer is damaged"):
        Drawer().restore_bytes(b"\xc1")


def test_every_attribute_of_every_stateful_class_is_declared() -> None:
    """No class of the product assigns an attribute that its state declaration does not mention."""
    import importlib
    import pkgutil

    import holdover

    for module in pkgutil.walk_packages(holdover.__path__, "holdover."):
        if not any(part in module.name for part in (".adapters.", ".__main__", ".console")):
            importlib.import_module(module.name)
    undeclared = {
        cls.__qualname__: undeclared_attributes(cls)
        for cls in stateful.stateful_classes()
        if cls.__module__.startswith("holdover.")
    }
    assert {name: names for name, names in undeclared.items() if names} == {}
    for cls in stateful.stateful_classes():
        reasons = [*cls.IN_PROCESS.values(), *cls.DERIVED.values()]
        assert all(len(reason.split()) >= 2 for reason in reasons), f"{cls.__name__}: a reason is missing"
