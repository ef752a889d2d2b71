"""Timing: answers arrive in time, and the clock does not run backwards."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Via
from holdover.model import ClockReading, Link, Order, Reconciliation


@predicate("acknowledged-within", needs=("link",))
def acknowledged_within(
    order: Annotated[Order, "orders"],
    link: Annotated[Link | None, Via("gateway", by="link")],
    reconciliation: Annotated[Reconciliation | None, Via("reconciler", by="link", required=False)],
) -> bool | None:
    """The time starts again while the link is down or a reconciliation is in progress."""
    link_is_down = link is None or not link.is_up
    is_reconciling = reconciliation is not None and not reconciliation.is_complete
    if order.is_pending and (link_is_down or is_reconciling):
        return None
    return not order.is_pending


@predicate("clock-monotone")
def clock_monotone(reading: ClockReading) -> bool:
    """The guard reads the clock at each boundary and whenever a step begins earlier than the one before it."""
    return reading.time_ns >= reading.previous_ns or reading.declared
