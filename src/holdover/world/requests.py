"""The venue's answers to requests: new orders, cancels and replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from holdover.model import ExecType, OrdStatus, OrdType, Request

if TYPE_CHECKING:
    from holdover.world.venue import Venue


def accept_order(venue: Venue, request: Request) -> None:
    """Enter a new order, or reject it. A resend of an order that the venue has gets its status."""
    existing_order = venue.find_order(request.cl_ord_id)
    if existing_order is not None and request.poss_resend and existing_order.order_qty == request.order_qty:
        venue.reports.send(request.account, venue.reports.status_report(existing_order))
        return
    problem = reject_reason(venue, request)
    if problem:
        venue.reports.send_rejection(request, *problem)
        return
    order = venue.lifecycle.enter_request(request)
    if order.is_open:  # an order of a list may have ended with its list
        venue.matching.release_order(order)


def reject_reason(venue: Venue, request: Request) -> tuple[int, str] | None:
    """Return (OrdRejReason, text) when a new order is not acceptable. Source: FIX 4.4, OrdRejReason (103)."""
    book = venue.books.get(request.symbol)
    if venue.refuse_count:
        venue.refuse_count -= 1
        return 0, "refused by the venue"
    if book is None:
        return 1, f"unknown symbol {request.symbol}"
    if request.cl_ord_id in venue.roots:
        return 6, f"duplicate order: ClOrdID {request.cl_ord_id}"
    if closed_reason := venue.closed_reason(book):
        return 2, closed_reason
    if request.order_qty <= 0:
        return 13, f"incorrect quantity {request.order_qty}"
    if request.list_id and request.contingency_type is None:
        return 99, f"an order of list {request.list_id} needs a contingency type"
    if request.ord_type in (OrdType.STOP, OrdType.STOP_LIMIT) and (request.stop_px is None or request.stop_px <= 0):
        return 99, "a stop order needs a stop price"
    limited = request.ord_type in (OrdType.LIMIT, OrdType.STOP_LIMIT)
    if limited and (request.price is None or request.price <= 0):
        return 99, "a limit order needs a price"
    for price in (request.price, request.stop_px):
        if price is not None and price % book.instrument.price_increment:
            return 99, f"price {price} is no multiple of {book.instrument.price_increment} ticks"
    return None


def accept_cancel(venue: Venue, request: Request) -> None:
    """Cancel an order, or refuse the request."""
    order = venue.find_order(request.orig_cl_ord_id)
    if order is None or not order.is_open or request.cl_ord_id in venue.roots:
        venue.reports.send_cancel_reject(request, order, "1")
        return
    venue.roots[request.cl_ord_id] = order.root_cl_ord_id
    if venue.policy.send_pending:
        venue.reports.send_pending(order, request, ExecType.PENDING_CANCEL, OrdStatus.PENDING_CANCEL)
    venue.lifecycle.close_order(order, OrdStatus.CANCELED, ExecType.CANCELED)


def accept_replace(venue: Venue, request: Request) -> None:
    """Replace an order, or refuse the request."""
    order = venue.find_order(request.orig_cl_ord_id)
    book = venue.books.get(request.symbol)
    bad_price = book is not None and any(
        price is not None and price % book.instrument.price_increment for price in (request.price, request.stop_px)
    )
    if order is None or not order.is_open or request.cl_ord_id in venue.roots or bad_price or venue.refuse_count:
        venue.refuse_count = max(0, venue.refuse_count - 1)
        venue.reports.send_cancel_reject(request, order, "2")
        return
    if venue.policy.send_pending:
        venue.reports.send_pending(order, request, ExecType.PENDING_REPLACE, OrdStatus.PENDING_REPLACE)
    quantity = venue.contingencies.replace_qty(order, request.order_qty)
    venue.lifecycle.replace_order(order, replace(request, order_qty=quantity))
    if order.contingency_type is not None:
        venue.contingencies.review_list(order)
    venue.matching.release_order(order)
