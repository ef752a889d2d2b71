"""What a predicate can read, as annotations of its parameters.

    @predicate("positions-agree")
    def positions_agree(position: Held[Position, "positions"], risk: Held[Exposure, "risk"]) -> bool:
        return position.net_qty == risk.net_qty

The first parameter is the *anchor*: the record that the invariant is about. A bare record class reads that
kind from the subsystem that changed; `Held[Kind, "subsystem"]` reads one subsystem's record of the anchor's
key. A parameter that may be `None` receives `None` when the record does not exist. Any other parameter
postpones the predicate until the record exists.

An absent subsystem is not a subsystem full of zeros. A predicate is therefore *inapplicable* until every table
(subsystem and kind) that it reads has ever been recorded or restored. A read with `required=False` is the exception:
the predicate applies without that table, and the read is `None` or 0. Some record must also have set each of the fields
in `needs` (see `predicate`).

`Held` is `typing.Annotated` under another name: a type checker sees `Position`, the monitor sees the subsystem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeVar
from typing import Annotated as Held

import msgspec

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

    A change of that record does not evaluate the predicate again; only a mutation of the anchor does. With
    `required=False` the predicate applies also where that subsystem has no record of the kind.
    """

    subsystem: str
    by: str
    required: bool = True


@dataclass(frozen=True)
class Sum:
    """A running total over one subsystem's records of one kind.

    `of` is the integer attribute to sum; `by` is the attribute that gives the total's key. The monitor updates
    the total at each mutation, so a read costs one look-up however many records there are. `alternatives` names an
    attribute: of the records with the same non-empty value of it, only the largest amount counts.
    """

    kind: type[Record]
    subsystem: str
    of: str
    by: str
    alternatives: str = ""

    @property
    def alternatives_field(self) -> str:
        """The field of the record without which it has no alternatives; empty when the kind does not declare one."""
        return self.kind.alternatives_field if self.alternatives else ""

    @property
    def plain(self) -> Sum:
        """The same sum without alternatives: equal to it while no record has any."""
        return Sum(self.kind, self.subsystem, self.of, self.by) if self.alternatives else self

    def total_at(self, key: str, touches: str | None = None, *, required: bool = True) -> Total:
        """Return the total at the anchor's attribute `key`.

        `touches` is the summed record's attribute that gives the anchor's own key, if it differs from the total's key.
        With `required=False` the total of a table that does not exist is 0; else the predicate is inapplicable.
        """
        return Total(self, key, touches or self.by, required)


@dataclass(frozen=True)
class Total:
    """One total that a predicate reads: at the anchor's attribute `key`; `touches` gives the anchors that a change
    affects.
    """

    sum: Sum
    key: str
    touches: str
    required: bool = True


@dataclass(frozen=True)
class Used:
    """Those of the `fields` that records of one table have ever set to anything but the default.

    A venue that never states a field does not state its default. The parameter is a set of names.
    """

    kind: type[Record]
    subsystem: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class ReferenceData:
    """The guard's `Instrument` for the symbol in the anchor's attribute `by`; `None` when it knows none."""

    by: str


@dataclass(frozen=True)
class Recent:
    """How many records of a table came within a time, by the attribute `by`, which the anchor must have as well.

    `where` names an attribute: only a record counts in which it has become true. `within` is a duration such as `10s`.
    The record that is being recorded counts.
    """

    kind: type[Record]
    subsystem: str
    by: str
    within: str
    where: str = ""

    @property
    def within_ns(self) -> int:
        """The time, in nanoseconds."""
        return duration_ns(self.within)


class Adoption(msgspec.Struct, frozen=True, array_like=True):
    """How a record was restored whose history the guard has not seen: on which trade date, with or without executions.

    The guard has not seen the requests for an adopted order either.
    """

    trade_date: str
    knows_executions: bool


class _AdoptedMarker:
    """Marks the parameter that says whether the guard knows the history of a restored record."""


ADOPTED: Final = _AdoptedMarker()
Adopted = Annotated[Adoption | None, ADOPTED]
"""How the anchor's record came without its history; `None` when the guard has seen it from its beginning."""


@dataclass(frozen=True)
class AdoptedBy:
    """The same of another record: the one whose key is the anchor's attribute `by`, in `subsystem`."""

    subsystem: str
    by: str


@dataclass(frozen=True)
class Threshold:
    """The numbers of one entry that an operator may set: a `limit` for what is counted, tolerances by currency."""

    limit: int = 0
    tolerances: Mapping[str, int] = field(default_factory=dict)

    def tolerance(self, currency: str) -> int:
        """Return the tolerated difference in a currency, in `CASH_UNIT`s; 0 when none is declared."""
        return self.tolerances.get(currency, 0)


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

_DURATION: Final = re.compile(r"^(\d+)(ms|s|m|h)$")
_UNIT_NS: Final = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}


def duration_ns(text: str) -> int:
    """Return a duration such as `500ms`, `30s`, `5m` or `2h` in nanoseconds; 0 when the text is none."""
    match = _DURATION.match(text)
    return int(match[1]) * _UNIT_NS[match[2]] if match else 0


__all__ = [
    "ADOPTED",
    "BEFORE",
    "Adopted",
    "AdoptedBy",
    "Adoption",
    "Before",
    "Boundary",
    "Frozen",
    "Held",
    "Predicate",
    "Recent",
    "ReferenceData",
    "Sum",
    "Threshold",
    "Total",
    "Used",
    "Via",
    "duration_ns",
]
