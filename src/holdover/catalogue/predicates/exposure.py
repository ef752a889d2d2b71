"""Exposure and risk: what may still happen stays inside the limits."""

from __future__ import annotations

from typing import Annotated, Final

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Sum, Via
from holdover.model import Book, Exposure, Limit, MsgType, Order, ParentOrder, Position, Request, Side

CLOSING_ALONE = Sum(Order, "orders", of="closing_alone_qty", by="book_key")
CLOSING_CLAIMED = Sum(Order, "orders", of="closing_claimed_qty", by="book_key", alternatives="alternatives_key")
CLOSING_FILLED = Sum(Order, "orders", of="closing_filled_qty", by="book_key")
TRIGGERING = Sum(Order, "orders", of="triggering_qty", by="book_key")
CHILDREN_CLAIMED = Sum(Order, "orders", of="claimed_qty", by="cl_ord_link_id")
_NOTICE_NS: Final = 1_000_000_000
VENUE_CLAIMED = Sum(Order, "venue", of="claimed_qty", by="cl_ord_link_id")


@predicate("parent-not-overfilled")
def parent_not_overfilled(
    parent: Annotated[ParentOrder, "orders"],
    claimed_qty: Annotated[int, CHILDREN_CLAIMED.total_at("parent_id")],
    venue_claimed_qty: Annotated[int, VENUE_CLAIMED.total_at("parent_id", required=False)],
) -> bool:
    """Sums the children of the system and of the venue; it does not trust the parent's own quantities."""
    return claimed_qty <= parent.order_qty and venue_claimed_qty <= parent.order_qty


@predicate("limits-respected")
def position_within_limit(
    exposure: Annotated[Exposure, "risk"], limit: Annotated[Limit, Via("risk", by="limit_key")]
) -> bool:
    """Assumes that every open order fills."""
    return (
        exposure.net_qty + exposure.open_buy_qty <= limit.position_max
        and exposure.open_sell_qty - exposure.net_qty <= limit.position_max
        and exposure.open_buy_qty + exposure.open_sell_qty <= limit.open_qty_max
    )


@predicate("limits-respected", asserted="on-mutation")
def order_within_limit(request: Request, limit: Annotated[Limit | None, Via("risk", by="limit_key")]) -> bool | None:
    """Checked immediately before the message is sent."""
    if limit is None or request.msg_type == MsgType.ORDER_CANCEL_REQUEST:
        return None
    return request.order_qty <= limit.order_qty_max


@predicate("no-order-in-disabled-book")
def no_order_in_disabled_book(
    request: Request, book: Annotated[Book | None, Via("gateway", by="symbol")]
) -> bool | None:
    """Uses the status that the system itself received; cancels are always allowed."""
    if book is None or request.msg_type != MsgType.NEW_ORDER_SINGLE:
        return None
    return book.trading


@predicate("no-order-in-disabled-book")
def no_order_against_venue_status(
    request: Request, book: Annotated[Book | None, Via("venue", by="symbol")]
) -> bool | None:
    """Uses the status that the venue itself stated, whatever the system believes.

    A statement that carries its own time may still be on its way: the system has a second to learn of it. A book that
    is closed for the night is not disabled: many venues take orders before the open.
    """
    if book is None or request.msg_type != MsgType.NEW_ORDER_SINGLE or book.reason == "closed":
        return None
    if book.transact_time_ns and request.transact_time_ns < book.transact_time_ns + _NOTICE_NS:
        return None
    return book.trading


@predicate("closing-orders-covered")
def closing_orders_covered(
    position: Annotated[Position, "positions"], closing: Annotated[int, CLOSING_ALONE.total_at("key")]
) -> bool:
    """A bust may remove the position of a working closing order; the same step must then cancel that order."""
    return closing <= abs(position.net_qty)


@predicate("closing-orders-covered", needs=("orders.Order.contingency_type",))
def contingent_closing_orders_covered(
    position: Annotated[Position, "positions"],
    claimed: Annotated[int, CLOSING_CLAIMED.total_at("key")],
    filled: Annotated[int, CLOSING_FILLED.total_at("key")],
    triggering: Annotated[int, TRIGGERING.total_at("key")],
) -> bool:
    """Counts what can fill together: of alternatives the largest, less what they have filled already.

    The exits of a bracket may work for what its entry has not filled yet. Alternatives of which several have filled a
    part count for too little, never for too much.
    """
    closing = claimed - filled
    return closing <= abs(position.net_qty) or closing <= abs(position.net_qty + triggering)


@predicate("closing-orders-covered")
def closing_order_has_its_position(
    order: Annotated[Order, "orders"], position: Annotated[Position | None, Via("positions", by="book_key")]
) -> bool | None:
    """The reverse case: a closing order has a position on the opposite side, unless it depends on another order."""
    if not order.closing_alone_qty:
        return None
    return position is not None and (position.net_qty < 0 if order.side == Side.BUY else position.net_qty > 0)
