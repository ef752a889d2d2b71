"""What a predicate can read, as annotations of its parameters.

    @predicate("positions-agree")
    def positions_agree(position: Held[Position, "positions"], risk: Held[Exposure, "risk"]) -> bool:
        return position.net_qty == risk.net_qty

The first parameter is the *anchor*: the record that the invariant is about. A bare record class reads that
kind from the subsystem that changed; `Held[Kind, "subsystem"]` reads one subsystem's record of the anchor's
key. A parameter that may be `None` receives `None` when the record does not exist. Any other parameter
postpones the predicate until the record exists.

`Held` is `typing.Annotated` under another name: a type checker sees `Position`, the monitor sees the subsystem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar
from typing import Annotated as Held

from holdover.model import Record, Request

T = TypeVar("T")


class _BeforeMarker:
    """Marks the parameter that receives the anchor's record before the mutation."""


BEFORE: Final = _BeforeMarker()
Before = Annotated[T | None, BEFORE]
"""The anchor's previous record; `None` on its first appearance."""


@dataclass(frozen=True)
class Via:
    """A record of another key: the key is the anchor's attribute `by`, the record is the one in `subsystem`.

    A change of that record does not evaluate the predicate again; only a mutation of the anchor does.
    """

    subsystem: str
    by: str


@dataclass(frozen=True)
class Sum:
    """A running total over one subsystem's records of one kind.

    `of` is the integer attribute to sum; `by` is the attribute that gives the total's key. The monitor updates
    the total at each mutation, so a read costs one look-up however many records there are.
    """

    kind: type[Record]
    subsystem: str
    of: str
    by: str

    def total_at(self, key: str, touches: str | None = None) -> Total:
        """Return the total at the anchor's attribute `key`.

        `touches` is the summed record's attribute that gives the anchor's own key, if it differs from the total's key.
        """
        return Total(self, key, touches or self.by)


@dataclass(frozen=True)
class Total:
    """One total that a predicate reads: at the anchor's attribute `key`; `touches` gives the anchors that a change
    affects.
    """

    sum: Sum
    key: str
    touches: str


@dataclass(frozen=True)
class Boundary:
    """A lifecycle boundary: its name (begin, end, overnight, restart, reconciled, ...), trade date and time."""

    name: str
    trade_date: str
    time_ns: int


class Frozen:
    """The freezes in force, as predicates may query them."""

    def forbids(self, request: Request) -> str:
        """Return the frozen scope that forbids the message, or an empty string."""
        raise NotImplementedError("the guard supplies what is frozen")


Predicate = Callable[..., "bool | None"]
"""Returns True when the invariant holds, False when it does not, None when its precondition is not met."""

__all__ = ["BEFORE", "Before", "Boundary", "Frozen", "Held", "Predicate", "Sum", "Total", "Via"]
