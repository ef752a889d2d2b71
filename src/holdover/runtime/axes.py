"""Axes: total functions from the observed state to a small set of values, kept up from one record's change at a time.

Is any order open, is the link up, is a partial fill carried over the night. An axis never looks at the whole state: it
is shown one record before and after, and keeps counts, so that it costs the same however many orders there are.

    @axis("halted", values=("no", "yes"), reads=[("gateway", Book)])
    def halted(book: Book) -> bool:
        return not book.trading
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from holdover.model import SYSTEM, Link, Order, OrdStatus, Position, Reconciliation, Record, TimeInForce

DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
"""One digit says one value in the code of a cell."""
_CARRIED: Final = (TimeInForce.GTC, TimeInForce.GTD)


class BadAxis(ValueError):
    """An axis that cannot be used; the message names it."""


class Axis:
    """A total function from the observed state to one of `values`, kept up from one record's change at a time.

    `reads` names what it is shown, as (subsystem, kind); a subsystem of None means any. `depends` lists expressions of
    a record `r`: a change that leaves all of them alone is not shown. Without any, every change is. `words` says each
    value as a person would. After a transition in `forgets` a breach does not tell the value until it is shown a record
    again. `value` is the index of the present value; index 0 is that of a system that has not begun.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    values: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[tuple[str | None, type[Record]], ...]] = ()
    depends: ClassVar[tuple[str, ...]] = ()
    forgets: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.value = 0

    def changed(self, before: Record | None, after: Record | None) -> None:
        """One record that it reads has appeared, changed or gone; set `value`."""

    def told(self, what: str, detail: str) -> None:
        """A transition (or `freeze`, with its level) has come about; set `value`."""

    def known(self) -> bool:
        """Whether `value` rests on something that was told; where it does not, a breach leaves the axis out."""
        return True

    def dump(self) -> Any:
        """What must be kept over a restart beside the records themselves; None where these say it all."""
        return None

    def load(self, held: Any) -> None:
        """Take up what `dump` gave."""

    def __repr__(self) -> str:
        return f"<Axis {self.name} {self.values[self.value]}>"


class Counted(Axis):
    """An axis that sorts records into classes and says which classes have any in them.

    `of` gives a record's class: 0 for none, else 1, 2, ... The value is the set of classes present, as a bit mask; so
    there are two values for one class, four for two.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts = [0] * (len(self.values).bit_length())

    def of(self, record: Any) -> int:
        """The class of one record; 0 when it counts for nothing."""
        raise NotImplementedError(f"axis {self.name} has no `of`")

    def changed(self, before: Record | None, after: Record | None) -> None:
        """Move the record from its old class to its new one."""
        was = self.of(before) if before is not None else 0
        now = self.of(after) if after is not None else 0
        if was == now:
            return
        if was:
            self._counts[was] -= 1
            if not self._counts[was]:
                self.value &= ~(1 << (was - 1))
        if now:
            self._counts[now] += 1
            self.value |= 1 << (now - 1)


class OrdersOpen(Counted):
    """Which phases the open orders are in."""

    name = "orders"
    title = "Open orders"
    values = ("none", "unfilled", "partial", "both")
    words = ("no order open", "open orders unfilled", "open orders partly filled", "open orders unfilled and partial")
    reads = (("orders", Order),)
    depends = ("r.ord_status", "r.time_in_force", "r.cum_qty > 0")

    def of(self, record: Order) -> int:
        """1 open and unfilled, 2 open and partly filled."""
        if not record.is_open:
            return 0
        return 2 if record.cum_qty > 0 else 1


class CarriedPartial(Counted):
    """Whether a partly filled order is open that its time in force takes over the night."""

    name = "carried-partial"
    title = "Partial fill carried"
    values = ("no", "yes")
    words = ("no partial fill to carry", "a partial fill to carry over the night")
    reads = (("orders", Order),)
    depends = OrdersOpen.depends

    def of(self, record: Order) -> int:
        """1 for an open, partly filled GTC or GTD order."""
        return int(record.cum_qty > 0 and record.time_in_force in _CARRIED and record.is_open)


class InFlight(Counted):
    """Whether a cancel or a replace of ours waits for its answer."""

    name = "in-flight"
    title = "Cancel or replace in flight"
    values = ("none", "cancel", "replace", "both")
    words = ("no change in flight", "a cancel in flight", "a replace in flight", "a cancel and a replace in flight")
    reads = (("orders", Order),)
    depends = ("r.ord_status",)

    def of(self, record: Order) -> int:
        """1 pending cancel, 2 pending replace."""
        status = record.ord_status
        return 1 if status == OrdStatus.PENDING_CANCEL else 2 if status == OrdStatus.PENDING_REPLACE else 0


class Unacknowledged(Counted):
    """Whether a new order waits for the venue's acknowledgement."""

    name = "unacknowledged"
    title = "Unacknowledged orders"
    values = ("none", "some")
    words = ("every order acknowledged", "an order not yet acknowledged")
    reads = (("orders", Order),)
    depends = ("r.ord_status",)

    def of(self, record: Order) -> int:
        """1 for a new order without an answer."""
        return int(record.ord_status == OrdStatus.PENDING_NEW)


class NetPosition(Counted):
    """The sign of the net positions held."""

    name = "position"
    title = "Net positions"
    values = ("flat", "long", "short", "both")
    words = ("flat", "long", "short", "long in one book and short in another")
    reads = (("positions", Position),)
    depends = ("r.net_qty > 0", "r.net_qty < 0")

    def of(self, record: Position) -> int:
        """1 long, 2 short."""
        return 1 if record.net_qty > 0 else 2 if record.net_qty < 0 else 0


class TifCarried(Counted):
    """Which open orders end with the session and which are carried."""

    name = "tif"
    title = "Time in force open"
    values = ("none", "day", "carried", "both")
    words = ("no order open", "only DAY orders open", "only carried orders open", "DAY and carried orders open")
    reads = (("orders", Order),)
    depends = ("r.ord_status", "r.time_in_force")

    def of(self, record: Order) -> int:
        """1 ends with the session, 2 is carried."""
        if not record.is_open:
            return 0
        return 2 if record.time_in_force in _CARRIED else 1


class OldestCarried(Axis):
    """How many sessions ago the oldest open order that is carried was entered."""

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

    def __init__(self) -> None:
        super().__init__()
        self._entered: dict[str, int] = {}
        self._sessions: list[str] = []

    def changed(self, before: Record | None, after: Record | None) -> None:
        """Count the carried orders by the session in which they were entered: as many dates as are carried."""
        was, now = self._date(before), self._date(after)
        if was == now:
            return
        if was is not None:
            self._entered[was] -= 1
            if not self._entered[was]:
                del self._entered[was]
        if now is not None:
            self._entered[now] = self._entered.get(now, 0) + 1
        self._look()

    def told(self, what: str, detail: str) -> None:
        """A session that begins makes every carried order one session older."""
        if what == "begin" and detail and detail not in self._sessions:
            # Two sessions back is as far as the values tell apart.
            self._sessions = [*self._sessions, detail][-2:]
            self._look()

    def known(self) -> bool:
        """Not how old a carried order is, where no session was ever said to begin."""
        return not self.value or bool(self._sessions)

    def dump(self) -> Any:
        """The last sessions that began."""
        return self._sessions

    def load(self, held: Any) -> None:
        """Take up the last sessions that began."""
        self._sessions = [str(one) for one in held]
        self._look()

    def _date(self, record: Record | None) -> str | None:
        if isinstance(record, Order) and record.time_in_force in _CARRIED and record.is_open:
            return record.trade_date
        return None

    def _look(self) -> None:
        if not self._entered:
            self.value = 0
            return
        oldest = min(self._entered)
        self.value = 1 + sum(1 for began in self._sessions if began > oldest)


class _Links(Axis):
    """An axis over what is said of each link; a restart makes all of it untrue until it is said again.

    After a night what was said last is what yesterday's process knew.
    """

    forgets = ("overnight",)

    def __init__(self) -> None:
        super().__init__()
        self._good: dict[str, bool] = {}

    def good(self, record: Any) -> bool:
        """Whether one record says that all is well."""
        raise NotImplementedError(f"axis {self.name} has no `good`")

    def changed(self, before: Record | None, after: Record | None) -> None:
        """Keep one flag a link: there are few of them."""
        if before is not None and after is None:
            self._good.pop(before.key, None)
        if after is not None:
            self._good[after.key] = self.good(after)
        self._look()

    def told(self, what: str, detail: str) -> None:
        """A process that starts again has no link, whatever the one before it last said."""
        if what == "restart":
            self._good = dict.fromkeys(self._good, False)
            self._look()

    def dump(self) -> Any:
        """The flags."""
        return self._good

    def load(self, held: Any) -> None:
        """Take up the flags."""
        self._good = dict(held)
        self._look()

    def _look(self) -> None:
        self.value = int(bool(self._good) and all(self._good.values()))


class LinkUp(_Links):
    """Whether every link that has been spoken of is up."""

    name = "link"
    title = "Link"
    values = ("down", "up")
    words = ("link down", "link up")
    reads = ((None, Link),)
    depends = ("r.up", "r.epoch")

    def good(self, record: Link) -> bool:
        """Up."""
        return record.up


class SessionPhase(Axis):
    """Where in the trading day the system is."""

    name = "session"
    title = "Session"
    values = ("before", "open", "ended", "night")
    words = ("before the first session", "in a session", "after the close", "between two sessions")
    _AFTER: ClassVar = {"begin": 1, "end": 2, "overnight": 3}

    def told(self, what: str, detail: str) -> None:
        """Begin, end and overnight move it on."""
        self.value = self._AFTER.get(what, self.value)

    def known(self) -> bool:
        """Once a session was said to begin: who says nothing of sessions may be in one."""
        return self.value > 0

    def dump(self) -> Any:
        """The phase."""
        return self.value

    def load(self, held: Any) -> None:
        """Take up the phase."""
        self.value = int(held)


class Reconciled(_Links):
    """Whether the reconciliation with the venue is done on every link."""

    name = "reconciliation"
    title = "Reconciliation"
    values = ("pending", "done")
    words = ("not reconciled", "reconciled")
    reads = ((None, Reconciliation),)
    depends = ("r.done", "r.epoch")

    def good(self, record: Reconciliation) -> bool:
        """Done."""
        return record.done


class FreezeLevel(Axis):
    """How much is frozen."""

    name = "freeze"
    title = "Frozen"
    values = ("nothing", "part", "system")
    words = ("nothing frozen", "part of the system frozen", "the whole system frozen")

    def told(self, what: str, detail: str) -> None:
        """The guard says how wide its freezes are."""
        if what == "freeze":
            self.value = self.values.index(detail)

    def dump(self) -> Any:
        """The level."""
        return self.value

    def load(self, held: Any) -> None:
        """Take up the level."""
        self.value = int(held)


BUILT_IN: Final[tuple[type[Axis], ...]] = (
    OrdersOpen,
    CarriedPartial,
    InFlight,
    Unacknowledged,
    NetPosition,
    TifCarried,
    OldestCarried,
    LinkUp,
    SessionPhase,
    Reconciled,
    FreezeLevel,
)
"""The axes that any subject with orders and positions has."""

_REGISTERED: dict[str, type[Axis]] = {}


def register(kind: type[Axis]) -> type[Axis]:
    """Add an axis of one's own, for every guard made afterwards. Raises `BadAxis` for one that cannot be used."""
    problem = _problem(kind)
    if problem:
        raise BadAxis(f"axis {kind.name or kind.__name__!r}: {problem}")
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
    """Make and register a counted axis of the function below, which gives a record's class (a bool, or 0, 1, 2...)."""

    def make(function: Callable[[Any], int]) -> type[Axis]:
        return register(
            type(
                function.__name__,
                (Counted,),
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


def _problem(kind: type[Axis]) -> str:
    if any(one.name == kind.name for one in BUILT_IN):
        return "this name is taken by a built-in axis"
    if not kind.name or any(sign in kind.name for sign in " =,:"):
        return "a name without space, comma, colon and equals sign is needed"
    if not 2 <= len(kind.values) <= len(DIGITS):
        return f"has {len(kind.values)} values, should have from 2 to {len(DIGITS)}"
    if issubclass(kind, Counted) and len(kind.values) & (len(kind.values) - 1):
        return f"has {len(kind.values)} values; an axis that counts classes has 2, 4 or 8, one for each set of classes"
    if len(kind.words) != len(kind.values):
        return f"has {len(kind.values)} values and {len(kind.words)} words for them"
    return ""


def import_axes(modules: Sequence[str]) -> None:
    """Import the modules that register axes of one's own. Raises `BadAxis` naming the one that does not import."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as problem:
            raise BadAxis(f"{name}: a module of axes that does not import: {problem}") from problem


def axes_in_use() -> list[type[Axis]]:
    """The built-in axes and those registered, the latter by name."""
    return [*BUILT_IN, *(_REGISTERED[name] for name in sorted(_REGISTERED))]


def freeze_level(scopes: Sequence[str]) -> str:
    """How wide a set of frozen scopes is, as the axis says it."""
    return "system" if SYSTEM in scopes else "part" if scopes else "nothing"


def in_words(cell: Mapping[str, str], names: Sequence[str] | None = None) -> dict[str, str]:
    """What the values of a cell (axis -> value) mean, by axis: in the axes' own words, in their order.

    `names` picks axes, in its order. An axis or a value that nobody here knows is told by its name.
    """
    axes = {one.name: one for one in axes_in_use()}
    order = names if names is not None else [*axes, *sorted(set(cell) - set(axes))]
    return {name: _word(axes.get(name), name, cell[name]) for name in order if name in cell}


def _word(kind: type[Axis] | None, name: str, value: str) -> str:
    if kind is None or value not in kind.values:
        return f"{name} {value}"
    return kind.words[kind.values.index(value)]
