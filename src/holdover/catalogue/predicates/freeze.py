"""Freeze discipline: a freeze stays in force, and nothing leaves a frozen scope."""

from __future__ import annotations

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Frozen
from holdover.model import FreezeSet, Request


@predicate("nothing-leaves-a-frozen-scope")
def nothing_leaves_a_frozen_scope(request: Request, frozen: Frozen) -> bool:
    """Uses the guard's durable freezes, not the system's memory of them."""
    return frozen.forbids(request) == ""


@predicate("freeze-survives")
def freeze_survives(freezes: FreezeSet) -> bool:
    """The guard compares at each boundary: only an audited thaw may end a freeze."""
    return freezes.lost_count == 0
