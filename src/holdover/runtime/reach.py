"""Which invariants can fire on a system, and what each of the others waits for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from holdover.catalogue import BoundPredicate, Catalogue
from holdover.model import GUARD_KINDS
from holdover.runtime.presence import FIELD_PARTS
from holdover.runtime.record_text import field_words

if TYPE_CHECKING:
    from holdover.runtime.monitor import Monitor

_GUARD: Final = "guard"


class Reach(StrEnum):
    """Whether an invariant can fire."""

    ACTIVE = "active"
    WAITING = "waiting"
    INAPPLICABLE = "inapplicable"


REACH_WORDS: Final = {
    Reach.ACTIVE: "evaluated at least once",
    Reach.WAITING: "everything that it reads exists; it waits for its first evaluation",
    Reach.INAPPLICABLE: "it cannot fire, because the system does not record what it reads",
}
"""What each reach means."""

_OCCASIONS: Final = {
    "Recompute": "evaluated at each boundary",
    "FreezeSet": "evaluated at each boundary",
    "ClockReading": "evaluated at each boundary, and when the clock goes back",
    "Recovery": "evaluated when a recovery is complete",
    "RestoredOrders": "evaluated when a recovery with working orders is complete",
    "Repetition": "evaluated when a reconciliation follows another one without new input",
    "ReconciliationEffort": "evaluated when a link comes up or a reconciliation ends",
}


class EntryReach(msgspec.Struct, frozen=True, kw_only=True):
    """One invariant: whether it can fire, how often it was evaluated, and in words what is missing."""

    name: str
    reach: Reach
    evaluated_count: int
    reason: str = ""


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """A table or field of records, and the invariants that need it."""

    name: str
    invariants: tuple[str, ...]


def list_reach(monitor: Monitor) -> list[EntryReach]:
    """Return the reach of each invariant of a monitor, in the order of the catalogue."""
    checks_by_entry: dict[str, list[BoundPredicate]] = {}
    for check in monitor.compiler.checks:
        checks_by_entry.setdefault(check.entry.name, []).append(check.bound)
    counts = monitor.evaluation_counts()
    return [_reach_of(monitor, name, predicates, counts.get(name, 0)) for name, predicates in checks_by_entry.items()]


def _reach_of(monitor: Monitor, name: str, predicates: Sequence[BoundPredicate], count: int) -> EntryReach:
    missing_by_predicate = [_missing_requirements(monitor, bound) for bound in predicates]
    if count or name in monitor.exercised:
        return EntryReach(name=name, reach=Reach.ACTIVE, evaluated_count=count)
    if all(missing_by_predicate):
        fewest = min(missing_by_predicate, key=len)
        reason = "; ".join(describe_missing(requirement) for requirement in fewest)
        return EntryReach(name=name, reach=Reach.INAPPLICABLE, evaluated_count=0, reason=reason)
    bound = next(b for b, missing in zip(predicates, missing_by_predicate, strict=True) if not missing)
    return EntryReach(
        name=name, reach=Reach.WAITING, evaluated_count=0, reason=_describe_occasion(monitor, name, bound)
    )


def _missing_requirements(monitor: Monitor, bound: BoundPredicate) -> list[str]:
    """Return what does not exist of a predicate's anchor and of what it reads; empty when it applies somewhere."""
    anchor = bound.anchor
    if anchor.kind is None:
        return []
    present = monitor.compiler.presence.present
    subsystems = [
        subsystem
        for (subsystem, kind), records in list(monitor.tables.by_table.items())
        if kind is anchor.kind and anchor.subsystem in (None, subsystem) and records
    ]
    if anchor.kind in GUARD_KINDS:
        subsystems = [_GUARD]
    elif not subsystems:
        return [f"{anchor.subsystem or ''}.{anchor.kind.__name__}"]
    missing = [[name for name in bound.requirements(subsystem) if name not in present] for subsystem in subsystems]
    return min(missing, key=len)


def describe_missing(requirement: str) -> str:
    """Say in words that a table or field was never recorded.

    Raises `ValueError` for a requirement that is neither `subsystem.Kind` nor `subsystem.Kind.field`.
    """
    if requirement.count(".") not in (FIELD_PARTS - 1, FIELD_PARTS):
        raise ValueError(
            f"{requirement!r} names no table or field; it should be subsystem.Kind or subsystem.Kind.field"
        )
    subsystem, kind, *fields = requirement.split(".")
    if fields:
        return f"no {kind} in `{subsystem}` states its {field_words(fields[0])} (`{fields[0]}`)"
    return f"it needs `{kind}` records" + (f" in `{subsystem}`" if subsystem else "")


def _describe_occasion(monitor: Monitor, name: str, bound: BoundPredicate) -> str:
    entry = monitor.catalogue[name].entry
    if entry.asserted == "at-boundary":
        return f"evaluated at the boundaries {', '.join(entry.at)}" if entry.at else "evaluated at each boundary"
    if entry.asserted == "when-reconciled":
        return "evaluated when the system and the venue are compared"
    kind = bound.anchor.kind.__name__ if bound.anchor.kind is not None else "record"
    if kind in _OCCASIONS:
        return _OCCASIONS[kind]
    return f"no {kind} has met its precondition yet"


def list_requirements(catalogue: Catalogue) -> list[Requirement]:
    """Return each table and field that invariants of a catalogue need beside their own anchor, sorted by name."""
    invariants: dict[str, dict[str, None]] = {}
    for invariant in catalogue:
        for bound in invariant.predicates:
            anchor = bound.anchor
            names = list(bound.requirements(anchor.subsystem or "*"))
            if anchor.kind is not None and anchor.subsystem is not None and anchor.subsystem != _GUARD:
                names.append(f"{anchor.subsystem}.{anchor.kind.__name__}")
            for name in names:
                invariants.setdefault(name, {})[invariant.name] = None
    return [Requirement(name=name, invariants=tuple(invariants[name])) for name in sorted(invariants)]


def summarize_reach(reaches: Iterable[EntryReach]) -> str:
    """Return one line: how many invariants are active, waiting and inapplicable."""
    counts = dict.fromkeys(Reach, 0)
    for entry in reaches:
        counts[entry.reach] += 1
    return ", ".join(f"{count} {reach}" for reach, count in counts.items())
