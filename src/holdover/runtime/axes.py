"""Axes: total functions from the observed state to a small set of values, updated one record at a time.

Examples: is any order open, is the link up, does an order carry a partial fill overnight. An axis never reads
the whole state: it receives one record before and after a change and keeps counts, so its cost does not grow
with the number of orders.

    @axis("halted", values=("no", "yes"), reads=[("gateway", Book)])
    def halted(book: Book) -> bool:
        return not book.trading
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Final, TypeGuard

from holdover.model import SYSTEM, Link, Order, OrdStatus, Position, Reconciliation, Record, TimeInForce
from holdover.state import StateError

DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
"""One digit encodes one value in the code of a cell."""
_CARRIED: Final = (TimeInForce.GTC, TimeInForce.GTD)


class AxisError(ValueError):
    """An axis cannot be used; the message names it."""


class Axis:
    """A total function from the observed state to one of `values`, updated one record at a time.

    `reads` lists the records that the axis receives, as (subsystem, kind); a subsystem of None means any.
    `depends` lists expressions of a record `r`: the axis receives a change only if one of them changes, or every
    change if the list is empty. `words` describes each value. After a transition in `forgets`, a breach omits the
    axis until the axis receives a record again. `value` is the index of the current value; index 0 is the value
    before the system begins. `stored` names the attributes that a later process needs because no record carries them.

    Every attribute of an axis is part of its state: a checkpoint copies all of them, one level deep.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    values: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[tuple[str | None, type[Record]], ...]] = ()
    depends: ClassVar[tuple[str, ...]] = ()
    forgets: ClassVar[tuple[str, ...]] = ()
    stored: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.value = 0

    def on_record_change(self, before: Record | None, after: Record | None) -> None:
        """Update `value` after one record appeared, changed or disappeared."""

    def on_event(self, event: str, detail: str) -> None:
        """Update `value` after a transition, or after `freeze` with its level."""

    def is_known(self) -> bool:
        """Whether `value` rests on an observation. A breach omits the axis while it does not."""
        return True

    def export_state(self) -> dict[str, Any]:
        """Return the stored attributes by name, without a leading underscore."""
        return {name.removeprefix("_"): getattr(self, name) for name in self.stored}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `export_state` returned. Raises `StateError` when an attribute is missing or of another type."""
        for name in self.stored:
            value = state.get(name.removeprefix("_"))
            if type(value) is not type(getattr(self, name)):
                raise StateError(f"the stored state of axis {self.name} is damaged: {name.removeprefix('_')}")
            setattr(self, name, value)
        self.update_value()
        if not 0 <= self.value < len(self.values):
            raise StateError(f"the stored state of axis {self.name} is damaged: value {self.value}")

    def update_value(self) -> None:
        """Compute `value` from the other attributes; an axis whose value is all of its state has nothing to compute."""

    def checkpoint(self) -> dict[str, Any]:
        """Return a copy of all attributes, for `rollback`."""
        return {name: copy(value) for name, value in vars(self).items()}

    def rollback(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the attributes of a checkpoint."""
        vars(self).update({name: copy(value) for name, value in checkpoint.items()})

    def __repr__(self) -> str:
        return f"<Axis {self.name} {self.values[self.value]}>"


class CountingAxis(Axis):
    """An axis that sorts records into classes and shows which classes are not empty.

    `of` returns a record's class: 0 for none, else 1, 2, ... The value is the set of non-empty classes as a bit
    mask, so one class has two values and two classes have four.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts = [0] * (len(self.values).bit_length())

    def of(self, record: Any) -> int:
        """Return the class of one record; 0 when it does not count."""
        raise NotImplementedError(f"axis {self.name} has no `of`")

    def on_record_change(self, before: Record | None, after: Record | None) -> None:
        """Move the record from its old class to its new class."""
        old_class = self.of(before) if before is not None else 0
        new_class = self.of(after) if after is not None else 0
        if old_class != new_class:
            self.move(old_class, new_class)

    def move(self, old_class: int, new_class: int) -> None:
        """Take one record from a class to another one."""
        if old_class:
            self._counts[old_class] -= 1
            if not self._counts[old_class]:
                self.value &= ~(1 << (old_class - 1))
        if new_class:
            self._counts[new_class] += 1
            self.value |= 1 << (new_class - 1)


def is_classified_by_depends(axis: Axis) -> TypeGuard[CountingAxis]:
    """Whether the class of a record on the axis follows from the axis's `depends` alone."""
    return (
        isinstance(axis, CountingAxis)
        and bool(axis.depends)
        and type(axis).on_record_change is CountingAxis.on_record_change
    )


class OpenOrdersAxis(CountingAxis):
    """The phases of the open orders."""

    name = "orders"
    title = "Open orders"
    values = ("none", "unfilled", "partial", "both")
    words = ("no order open", "open orders unfilled", "open orders partly filled", "open orders unfilled and partial")
    reads = (("orders", Order),)
    depends = ("r.ord_status", "r.time_in_force", "r.cum_qty > 0")

    def of(self, record: Order) -> int:
        """Return 1 for an open unfilled order and 2 for an open partly filled order."""
        if not record.is_open:
            return 0
        return 2 if record.cum_qty > 0 else 1


class CarriedPartialAxis(CountingAxis):
    """Whether a partly filled order is open that its time in force carries overnight."""

    name = "carried-partial"
    title = "Partial fill carried"
    values = ("no", "yes")
    words = ("no partial fill to carry", "a partial fill to carry over the night")
    reads = (("orders", Order),)
    depends = OpenOrdersAxis.depends

    def of(self, record: Order) -> int:
        """Return 1 for an open, partly filled GTC or GTD order."""
        return int(record.cum_qty > 0 and record.time_in_force in _CARRIED and record.is_open)


class InFlightAxis(CountingAxis):
    """Whether a cancel or a replace waits for its answer."""

    name = "in-flight"
    title = "Cancel or replace in flight"
    values = ("none", "cancel", "replace", "both")
    words = ("no change in flight", "a cancel in flight", "a replace in flight", "a cancel and a replace in flight")
    reads = (("orders", Order),)
    depends = ("r.ord_status",)

    def of(self, record: Order) -> int:
        """Return 1 for a pending cancel and 2 for a pending replace."""
        status = record.ord_status
        return 1 if status == OrdStatus.PENDING_CANCEL else 2 if status == OrdStatus.PENDING_REPLACE else 0


class UnacknowledgedAxis(CountingAxis):
    """Whether a new order waits for the venue's acknowledgement."""

    name = "unacknowledged"
    title = "Unacknowledged orders"
    values = ("none", "some")
    words = ("every order acknowledged", "an order not yet acknowledged")
    reads = (("orders", Order),)
    depends = ("r.ord_status",)

    def of(self, record: Order) -> int:
        """Return 1 for a new order without an answer."""
        return int(record.ord_status == OrdStatus.PENDING_NEW)


class NetPositionAxis(CountingAxis):
    """The signs of the net positions."""

    name = "position"
    title = "Net positions"
    values = ("flat", "long", "short", "both")
    words = ("flat", "long", "short", "long in one book and short in another")
    reads = (("positions", Position),)
    depends = ("r.net_qty > 0", "r.net_qty < 0")

    def of(self, record: Position) -> int:
        """Return 1 for long and 2 for short."""
        return 1 if record.net_qty > 0 else 2 if record.net_qty < 0 else 0


class TimeInForceAxis(CountingAxis):
    """Which open orders end with the session and which are carried."""

    name = "tif"
    title = "Time in force open"
    values = ("none", "day", "carried", "both")
    words = ("no order open", "only DAY orders open", "only carried orders open", "DAY and carried orders open")
    reads = (("orders", Order),)
    depends = ("r.ord_status", "r.time_in_force")

    def of(self, record: Order) -> int:
        """Return 1 for an order that ends with the session and 2 for a carried order."""
        if not record.is_open:
            return 0
        return 2 if record.time_in_force in _CARRIED else 1


class OldestCarriedAxis(Axis):
    """How many sessions ago the oldest open carried order was entered."""

    name = "age"
    title = "Oldest carried order"
    values = ("none", "today", "one", "more")
    words = (
        "no order to carry",
        "carried orders entered in this session",
        "a carried order of the session before",
        "a carried order of two sessions ago or more",
    )
    reads = (("orders", Order),)
    depends = ("r.ord_status", "r.time_in_force", "r.trade_date")
    stored = ("_sessions",)

    def __init__(self) -> None:
        super().__init__()
        self._count_by_date: dict[str, int] = {}
        self._sessions: list[str] = []

    def on_record_change(self, before: Record | None, after: Record | None) -> None:
        """Count the carried orders by the session of their entry."""
        old_date, new_date = self._date(before), self._date(after)
        if old_date == new_date:
            return
        if old_date is not None:
            self._count_by_date[old_date] -= 1
            if not self._count_by_date[old_date]:
                del self._count_by_date[old_date]
        if new_date is not None:
            self._count_by_date[new_date] = self._count_by_date.get(new_date, 0) + 1
        self.update_value()

    def on_event(self, event: str, detail: str) -> None:
        """Make every carried order one session older when a session begins."""
        if event == "begin" and detail and detail not in self._sessions:
            # The values distinguish at most two sessions back.
            self._sessions = [*self._sessions, detail][-2:]
            self.update_value()

    def is_known(self) -> bool:
        """Whether the age of a carried order is known: only after the begin of a session was reported."""
        return not self.value or bool(self._sessions)

    def _date(self, record: Record | None) -> str | None:
        if isinstance(record, Order) and record.time_in_force in _CARRIED and record.is_open:
            return record.trade_date
        return None

    def update_value(self) -> None:
        """Compute the age of the oldest carried order."""
        if not self._count_by_date:
            self.value = 0
            return
        oldest = min(self._count_by_date)
        self.value = 1 + sum(1 for began in self._sessions if began > oldest)


class _PerLinkAxis(Axis):
    """An axis with one flag per link.

    A restart clears every flag until the new process reports the link again. After a night, the last report
    describes what yesterday's process knew.
    """

    forgets = ("overnight",)
    stored = ("_good_by_link",)

    def __init__(self) -> None:
        super().__init__()
        self._good_by_link: dict[str, bool] = {}

    def is_good(self, record: Any) -> bool:
        """Whether a record reports a good link."""
        raise NotImplementedError(f"axis {self.name} has no `good`")

    def on_record_change(self, before: Record | None, after: Record | None) -> None:
        """Update the flag of the record's link."""
        if before is not None and after is None:
            self._good_by_link.pop(before.key, None)
        if after is not None:
            self._good_by_link[after.key] = self.is_good(after)
        self.update_value()

    def on_event(self, event: str, detail: str) -> None:
        """Clear all flags on a restart: a new process has no link."""
        if event == "restart":
            self._good_by_link = dict.fromkeys(self._good_by_link, False)
            self.update_value()

    def update_value(self) -> None:
        """Return to 1 only when every link is good."""
        self.value = int(bool(self._good_by_link) and all(self._good_by_link.values()))


class LinkUpAxis(_PerLinkAxis):
    """Whether every known link is up."""

    name = "link"
    title = "Link"
    values = ("down", "up")
    words = ("link down", "link up")
    reads = ((None, Link),)
    depends = ("r.is_up", "r.epoch")

    def is_good(self, record: Link) -> bool:
        """Whether the link is up."""
        return record.is_up


class SessionPhaseAxis(Axis):
    """The phase of the trading day."""

    name = "session"
    title = "Session"
    values = ("before", "open", "ended", "night")
    words = ("before the first session", "in a session", "after the close", "between two sessions")
    stored = ("value",)
    _VALUE_AFTER: ClassVar = {"begin": 1, "end": 2, "overnight": 3}

    def on_event(self, event: str, detail: str) -> None:
        """Move to the next phase on begin, end and overnight."""
        self.value = self._VALUE_AFTER.get(event, self.value)

    def is_known(self) -> bool:
        """Whether the begin of a session was reported; a system that reports no sessions may be in one."""
        return self.value > 0


class ReconciliationAxis(_PerLinkAxis):
    """Whether the reconciliation with the venue is complete on every link."""

    name = "reconciliation"
    title = "Reconciliation"
    values = ("pending", "done")
    words = ("not reconciled", "reconciled")
    reads = ((None, Reconciliation),)
    depends = ("r.is_complete", "r.epoch")

    def is_good(self, record: Reconciliation) -> bool:
        """Whether the reconciliation is complete."""
        return record.is_complete


class FreezeLevelAxis(Axis):
    """How much is frozen."""

    name = "freeze"
    title = "Frozen"
    values = ("nothing", "part", "system")
    words = ("nothing frozen", "part of the system frozen", "the whole system frozen")
    stored = ("value",)

    def on_event(self, event: str, detail: str) -> None:
        """Take the freeze level that the guard reports."""
        if event == "freeze":
            if detail not in self.values:
                raise ValueError(f"no freeze level is called {detail!r}; there are {', '.join(self.values)}")
            self.value = self.values.index(detail)


BUILT_IN: Final[tuple[type[Axis], ...]] = (
    OpenOrdersAxis,
    CarriedPartialAxis,
    InFlightAxis,
    UnacknowledgedAxis,
    NetPositionAxis,
    TimeInForceAxis,
    OldestCarriedAxis,
    LinkUpAxis,
    SessionPhaseAxis,
    ReconciliationAxis,
    FreezeLevelAxis,
)
"""The axes of any subject with orders and positions."""

_REGISTERED: dict[str, type[Axis]] = {}


def register_axis(kind: type[Axis]) -> type[Axis]:
    """Register a user's axis for every guard created from now on.

    Returns the axis. Raises `AxisError` when it cannot be used.
    """
    problem = _find_problem(kind)
    if problem:
        raise AxisError(f"axis {kind.name or kind.__name__!r}: {problem}")
    _REGISTERED[kind.name] = kind
    return kind


def axis(
    name: str,
    *,
    values: Sequence[str],
    reads: Sequence[tuple[str | None, type[Record]]],
    words: Sequence[str] = (),
    title: str = "",
    depends: Sequence[str] = (),
) -> Callable[[Callable[[Any], int]], type[Axis]]:
    """Make and register a counting axis from a function that returns a record's class (a bool, or 0, 1, 2, ...).

    Raises `AxisError` when the axis cannot be used.
    """

    def make(function: Callable[[Any], int]) -> type[Axis]:
        return register_axis(
            type(
                function.__name__,
                (CountingAxis,),
                {
                    "__doc__": function.__doc__,
                    "__module__": function.__module__,
                    "name": name,
                    "title": title or name,
                    "values": tuple(values),
                    "words": tuple(words) or tuple(f"{name} {value}" for value in values),
                    "reads": tuple(reads),
                    "depends": tuple(depends),
                    "of": lambda self, record: int(function(record)),
                },
            )
        )

    return make


def _find_problem(kind: type[Axis]) -> str:
    if any(built_in.name == kind.name for built_in in BUILT_IN):
        return "this name is taken by a built-in axis"
    if not kind.name or any(sign in kind.name for sign in " =,:"):
        return "a name without space, comma, colon and equals sign is needed"
    if not 2 <= len(kind.values) <= len(DIGITS):
        return f"has {len(kind.values)} values, should have from 2 to {len(DIGITS)}"
    if issubclass(kind, CountingAxis) and len(kind.values) & (len(kind.values) - 1):
        return f"has {len(kind.values)} values; an axis that counts classes has 2, 4 or 8, one for each set of classes"
    if len(kind.words) != len(kind.values):
        return f"has {len(kind.values)} values and {len(kind.words)} words for them"
    return ""


def import_axes(modules: Sequence[str]) -> None:
    """Import the modules that register users' axes. Raises `AxisError` with the module that does not import."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as problem:
            raise AxisError(f"{name}: a module of axes that does not import: {problem}") from problem


def axes_in_use() -> list[type[Axis]]:
    """Return the built-in axes, then the registered axes by name."""
    return [*BUILT_IN, *(_REGISTERED[name] for name in sorted(_REGISTERED))]


def freeze_level_of(scopes: Sequence[str]) -> str:
    """Return the freeze level of a set of frozen scopes: nothing, part or system."""
    return "system" if SYSTEM in scopes else "part" if scopes else "nothing"


def describe_cell(cell: Mapping[str, str], names: Sequence[str] | None = None) -> dict[str, str]:
    """Describe the values of a cell (axis -> value), by axis, in the order of the axes.

    `names` selects and orders the axes. An unknown axis or value is described by its name.
    """
    axes = {axis_type.name: axis_type for axis_type in axes_in_use()}
    order = names if names is not None else [*axes, *sorted(set(cell) - set(axes))]
    return {name: _value_in_words(axes.get(name), name, cell[name]) for name in order if name in cell}


def _value_in_words(kind: type[Axis] | None, name: str, value: str) -> str:
    if kind is None or value not in kind.values:
        return f"{name} {value}"
    return kind.words[kind.values.index(value)]
