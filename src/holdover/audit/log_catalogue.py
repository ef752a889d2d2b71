"""The part of a catalogue that a FIX log can evaluate."""

from __future__ import annotations

from typing import Final

from holdover.catalogue import BoundPredicate, Catalogue, Invariant
from holdover.model import Execution, Link, Order, Request

_RECORDED: Final = {("orders", Order), ("orders", Execution), ("gateway", Request), ("gateway", Link)}
"""The records that an audit makes: a log holds no positions, balances, limits or other parties' books."""
_ASSERTED: Final = ("on-mutation", "when-settled")
"""A log has no boundaries, and its clock stops where it was cut."""
_ALWAYS_READ: Final = ("before", "adopted")
"""What needs no record: an audit restores nothing, so that it adopts nothing."""

_NEEDS_ALL_REQUESTS: Final = "own-order-was-requested"
"""A log may begin after the request of an order that works in it."""


def select_log_invariants(catalogue: Catalogue) -> Catalogue:
    """Return the invariants with those of their predicates that read only what a log holds."""
    invariants: dict[str, Invariant] = {}
    for invariant in catalogue:
        predicates = tuple(
            bound for bound in invariant.predicates if _is_judgeable(bound, bound.asserted or invariant.entry.asserted)
        )
        if predicates and invariant.name != _NEEDS_ALL_REQUESTS:
            invariants[invariant.name] = Invariant(invariant.entry, predicates)
    return Catalogue(invariants)


def _is_judgeable(bound: BoundPredicate, asserted: str) -> bool:
    anchor, *other_reads = bound.reads
    is_recorded = any(kind is anchor.kind and anchor.subsystem in (None, subsystem) for subsystem, kind in _RECORDED)
    return (
        is_recorded
        and asserted in _ASSERTED
        and all(read.source in _ALWAYS_READ or (read.subsystem, read.kind) in _RECORDED for read in other_reads)
    )
