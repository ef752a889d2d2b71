"""Reconciliation: the system's orders and positions equal the venue's."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Via
from holdover.model import Link, MsgType, Order, Position, Reconciliation, Repetition, Request


@predicate("books-agree-with-venue")
def orders_agree_with_venue(order: Annotated[Order, "orders"], venue: Annotated[Order, "venue"]) -> bool | None:
    """Other invariants cover orders that only one side knows and requests that wait for an answer."""
    if order.is_pending:
        return None
    return (
        order.cum_qty == venue.cum_qty
        and order.leaves_qty == venue.leaves_qty
        and order.ord_status == venue.ord_status
        and order.notional == venue.notional
        and (order.price == venue.price or not venue.is_open)
    )


@predicate("books-agree-with-venue")
def positions_agree_with_venue(
    position: Annotated[Position, "positions"], venue: Annotated[Position | None, "venue"]
) -> bool:
    """A venue that reports no position counts as flat."""
    return position.net_qty == (venue.net_qty if venue else 0)


@predicate("books-agree-with-venue")
def venue_position_is_known(
    venue: Annotated[Position, "venue"], position: Annotated[Position | None, "positions"]
) -> bool | None:
    """A position that only the venue knows must be flat."""
    return None if position else venue.net_qty == 0


@predicate("venue-open-orders-known")
def venue_open_orders_known(venue: Annotated[Order, "venue"], order: Annotated[Order | None, "orders"]) -> bool | None:
    """An order that the system does not know can still fill."""
    if not venue.is_open:
        return None
    return order is not None and order.is_open


@predicate("no-open-order-unknown-to-venue")
def no_open_order_unknown_to_venue(
    order: Annotated[Order, "orders"], venue: Annotated[Order | None, "venue"]
) -> bool | None:
    """A pending request may not have arrived; `acknowledged-within` covers it."""
    if not order.is_open or order.is_pending:
        return None
    return venue is not None and venue.is_open


@predicate("reconciled-within")
def reconciled_within(
    link: Annotated[Link, "gateway"], reconciliation: Annotated[Reconciliation | None, "reconciler"]
) -> bool:
    """A reconciliation counts only for the link epoch in which it completed."""
    return not link.is_up or (
        reconciliation is not None and reconciliation.is_complete and reconciliation.epoch == link.epoch
    )


@predicate("no-order-before-reconciled")
def no_order_before_reconciled(
    request: Request, reconciliation: Annotated[Reconciliation | None, Via("reconciler", by="link")]
) -> bool | None:
    """Cancels are allowed: they only reduce what is at risk."""
    if request.msg_type == MsgType.ORDER_CANCEL_REQUEST or not request.link:
        return None
    return reconciliation is not None and reconciliation.is_complete and reconciliation.epoch == request.link_epoch


@predicate("reconciliation-idempotent")
def reconciliation_idempotent(repetition: Repetition) -> bool | None:
    """The guard records a repetition when a reconciliation follows another one without any new input."""
    return repetition.changed == 0 if repetition.compared else None
