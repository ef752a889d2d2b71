"""Timing: answers come in time, and time goes forward."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Via
from holdover.model import ClockReading, Link, Order, Reconciliation


@predicate("acknowledged-within")
def acknowledged_within(
    order: Annotated[Order, "orders"],
    link: Annotated[Link | None, Via("gateway", by="link")],
    reconciliation: Annotated[Reconciliation | None, Via("reconciler", by="link")],
) -> bool | None:
    """While the link is down, or what was missed is still being asked for, the time starts again."""
    down = link is None or not link.up
    asking = reconciliation is not None and not reconciliation.done
    if order.is_pending and (down or asking):
        return None
    return not order.is_pending


@predicate("clock-monotone")
def clock_monotone(reading: ClockReading) -> bool:
    """Made by the guard at each boundary and whenever a step begins earlier than the one before it."""
    return reading.time_ns >= reading.previous_ns or reading.declared
