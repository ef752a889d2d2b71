"""Freeze discipline: what is frozen stays frozen, and nothing leaves it."""

from __future__ import annotations

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Frozen
from holdover.model import FreezeSet, Request


@predicate("nothing-leaves-a-frozen-scope")
def nothing_leaves_a_frozen_scope(request: Request, frozen: Frozen) -> bool:
    """The freezes are the guard's durable ones, not what the system remembers of them."""
    return frozen.forbids(request) == ""


@predicate("freeze-survives")
def freeze_survives(freezes: FreezeSet) -> bool:
    """Made by the guard at each boundary: only an audited thaw may take a freeze away."""
    return freezes.lost == 0
