"""The part of a catalogue that a FIX log can speak to."""

from __future__ import annotations

from typing import Final

from holdover.catalogue import BoundPredicate, Catalogue, Invariant
from holdover.model import Execution, Link, Order, Request

_RECORDED: Final = {("orders", Order), ("orders", Execution), ("gateway", Request), ("gateway", Link)}
"""The records that an audit makes: a log holds no positions, balances or limits, and nobody else's books."""
_WHEN: Final = ("on-mutation", "when-settled")
"""A log has no boundaries, and its clock stops where it was cut."""


def judged_by_a_log(catalogue: Catalogue) -> Catalogue:
    """The invariants, each with those of its predicates that read nothing but what a log holds."""
    found: dict[str, Invariant] = {}
    for invariant in catalogue:
        kept = tuple(
            bound for bound in invariant.predicates if _fits(bound, bound.asserted or invariant.entry.asserted)
        )
        if kept:
            found[invariant.name] = Invariant(invariant.entry, kept)
    return Catalogue(found)


def _fits(bound: BoundPredicate, asserted: str) -> bool:
    anchor, *others = bound.reads
    held = any(kind is anchor.kind and anchor.subsystem in (None, subsystem) for subsystem, kind in _RECORDED)
    return (
        held
        and asserted in _WHEN
        and all(read.what == "before" or (read.subsystem, read.kind) in _RECORDED for read in others)
    )
