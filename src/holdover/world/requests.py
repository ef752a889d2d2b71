"""The venue's answers to requests: new orders, cancels and replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    if order.is_triggered:
        venue.matching.enter_order(order)
    else:
        venue.books[order.symbol].stops.append(order)


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
    limited = request.ord_type in (OrdType.LIMIT, OrdType.STOP_LIMIT)
    if limited and (request.price is None or request.price <= 0):
        return 99, "a limit order needs a price"
    if request.price is not None and request.price % book.instrument.price_increment:
        return 99, f"price {request.price} is no multiple of {book.instrument.price_increment} ticks"
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
    bad_price = book is not None and request.price is not None and request.price % book.instrument.price_increment
    if order is None or not order.is_open or request.cl_ord_id in venue.roots or bad_price or venue.refuse_count:
        venue.refuse_count = max(0, venue.refuse_count - 1)
        venue.reports.send_cancel_reject(request, order, "2")
        return
    if venue.policy.send_pending:
        venue.reports.send_pending(order, request, ExecType.PENDING_REPLACE, OrdStatus.PENDING_REPLACE)
    venue.lifecycle.replace_order(order, request)
    if order.leaves_qty and order.is_triggered:
        venue.matching.enter_order(order)
    elif order.leaves_qty:
        venue.books[order.symbol].stops.append(order)  # still waiting for its trigger
