"""What a predicate can read, said in its parameters' annotations.

    @predicate("positions-agree")
    def positions_agree(kept: Held[Position, "positions"], risk: Held[Exposure, "risk"]) -> bool:
        return kept.net_qty == risk.net_qty

The first parameter is the *anchor*: the record that the invariant is about. A bare record class reads that kind from
whichever subsystem changed; `Held[Kind, "subsystem"]` reads one subsystem's record of the anchor's key. A parameter
that may be `None` is passed as such; a parameter that may not be makes the predicate wait until the record exists.

`Held` is `typing.Annotated` under the catalogue's word for it, so a type checker sees `Position` and the monitor sees
where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar
from typing import Annotated as Held

from holdover.model import Record, Request

T = TypeVar("T")


class _Before:
    """Marks the parameter that gets the anchor as it was before the mutation."""


BEFORE: Final = _Before()
Before = Annotated[T | None, BEFORE]
"""The anchor's previous record, `None` on its first appearance."""


@dataclass(frozen=True)
class Via:
    """A record of another key: the one that the anchor's attribute `by` names in `subsystem`.

    A change of that record does not bring the predicate up again; only the anchor's own mutations do.
    """

    subsystem: str
    by: str


@dataclass(frozen=True)
class Sum:
    """A running total over one subsystem's records of one kind.

    `of` is the attribute summed (an integer), `by` the attribute that gives the total's key. The monitor keeps it at
    each mutation, so reading it costs one look-up however many records there are.
    """

    kind: type[Record]
    subsystem: str
    of: str
    by: str

    def on(self, key: str, touches: str | None = None) -> Total:
        """The total at the anchor's attribute `key`; `touches` is the summed record's attribute giving the anchor's
        own key, when that differs from the total's key."""
        return Total(self, key, touches or self.by)


@dataclass(frozen=True)
class Total:
    """One total read by one predicate: at the anchor's attribute `key`, and whose anchor a change `touches`."""

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
    """What is frozen now, as a predicate may ask it."""

    def forbids(self, request: Request) -> str:
        """The frozen scope that this message must not leave, or an empty string."""
        raise NotImplementedError("the guard supplies what is frozen")


Predicate = Callable[..., "bool | None"]
"""True: holds. False: does not. None: its precondition did not arise here."""

__all__ = ["BEFORE", "Before", "Boundary", "Frozen", "Held", "Predicate", "Sum", "Total", "Via"]
