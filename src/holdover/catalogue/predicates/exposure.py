"""Exposure and risk: what could still happen stays inside what was allowed."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Sum, Via
from holdover.model import Book, Exposure, Limit, MsgType, Order, ParentOrder, Position, Request, Side

CLOSING_KEPT = Sum(Order, "orders", of="closing_kept_qty", by="book_key")
CHILDREN_TAKEN = Sum(Order, "orders", of="taken_qty", by="cl_ord_link_id")
VENUE_TAKEN = Sum(Order, "venue", of="taken_qty", by="cl_ord_link_id")


@predicate("parent-not-overfilled")
def parent_not_overfilled(
    parent: Annotated[ParentOrder, "orders"],
    taken: Annotated[int, CHILDREN_TAKEN.on("parent_id")],
    taken_at_venue: Annotated[int, VENUE_TAKEN.on("parent_id")],
) -> bool:
    """Counted from the children themselves, here and at the venue, not from what the parent believes."""
    return taken <= parent.order_qty and taken_at_venue <= parent.order_qty


@predicate("limits-respected")
def position_within_limit(exposure: Annotated[Exposure, "risk"], limit: Annotated[Limit, "risk"]) -> bool:
    """As if every open order filled."""
    return (
        exposure.net_qty + exposure.open_buy_qty <= limit.position_max
        and exposure.open_sell_qty - exposure.net_qty <= limit.position_max
        and exposure.open_buy_qty + exposure.open_sell_qty <= limit.open_qty_max
    )


@predicate("limits-respected", asserted="on-mutation")
def order_within_limit(request: Request, limit: Annotated[Limit | None, Via("risk", by="book_key")]) -> bool | None:
    """At the last line before the wire."""
    if limit is None or request.msg_type == MsgType.ORDER_CANCEL_REQUEST:
        return None
    return request.order_qty <= limit.order_qty_max


@predicate("no-order-in-disabled-book")
def no_order_in_disabled_book(
    request: Request, book: Annotated[Book | None, Via("gateway", by="symbol")]
) -> bool | None:
    """Judged by what the system itself was told; cancels may always go."""
    if book is None or request.msg_type != MsgType.NEW_ORDER_SINGLE:
        return None
    return book.trading


@predicate("closing-orders-covered")
def closing_orders_covered(
    position: Annotated[Position, "positions"], closing: Annotated[int, CLOSING_KEPT.on("key")]
) -> bool:
    """A bust takes the position from under a working close: whoever learns of it pulls the close in the same step."""
    return closing <= abs(position.net_qty)


@predicate("closing-orders-covered")
def a_closing_order_has_its_position(
    order: Annotated[Order, "orders"], position: Annotated[Position | None, Via("positions", by="book_key")]
) -> bool | None:
    """The other side of the same statement: what closes a position has one, and is against it."""
    if not order.closing_kept_qty:
        return None
    return position is not None and (position.net_qty < 0 if order.side == Side.BUY else position.net_qty > 0)
