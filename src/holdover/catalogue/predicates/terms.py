"""Terms: a report states what its request asked for, an execution fits its order, and the venue has the same terms."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Final

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Adopted, Before, Sum, Used, Via
from holdover.model import (
    TRADES,
    ExecRestatementReason,
    ExecType,
    Execution,
    MsgType,
    Order,
    OrdStatus,
    ParentOrder,
    Request,
    Side,
)

NEW_REQUESTS = Sum(Request, "gateway", of="new_order_count", by="root_key")
REPLACE_REQUESTS = Sum(Request, "gateway", of="replace_count", by="root_key")

_UNANSWERED: Final = frozenset({OrdStatus.PENDING_NEW, OrdStatus.PENDING_REPLACE})
_RESTATES: Final = frozenset({ExecType.REPLACED, ExecType.RESTATED})
_VENUE_FIELDS: Final = (
    "account",
    "cl_ord_id",
    "order_id",
    "time_in_force",
    "ord_type",
    "stop_px",
    "expire_date",
    "position_effect",
    "position_side",
    "position_id",
)


@predicate("order-matches-request", at_restore=False)
def order_matches_request(
    order: Order,
    before: Before[Order],
    request: Annotated[Request | None, Via("gateway", by="request_key")],
    replace_requests: Annotated[int, REPLACE_REQUESTS.total_at("root_cl_ord_id")],
) -> bool | None:
    """Judged when a report first answers the request, and when it changes a term without saying that it restates."""
    if request is None or request.msg_type == MsgType.ORDER_CANCEL_REQUEST or request.order_qty == 0:
        return None
    if order.ord_status in _UNANSWERED or order.is_rejected or order.exec_restatement_reason is not None:
        return None
    is_answer = before is None or before.cl_ord_id != order.cl_ord_id or before.ord_status in _UNANSWERED
    is_changed = before is not None and (before.order_qty != order.order_qty or before.price != order.price)
    if not is_answer and not is_changed:
        return None
    if not is_answer and (replace_requests or order.exec_type == ExecType.RESTATED):
        return None  # the venue's way of replacing keeps the ClOrdID, or the venue restates
    if is_answer and replace_requests and request.msg_type == MsgType.NEW_ORDER_SINGLE:
        return order.symbol == request.symbol and order.side == request.side
    return (
        order.symbol == request.symbol
        and order.side == request.side
        and order.order_qty == request.order_qty
        and (order.price == request.price or request.price is None)
        and order.time_in_force == request.time_in_force
        and (order.stop_px == request.stop_px or order.exec_type in _RESTATES)
        and (order.expire_date == request.expire_date or not order.expire_date or not request.expire_date)
    )


@predicate("execution-matches-order", at_restore=False)
def execution_matches_order(
    execution: Annotated[Execution, "orders"], order: Annotated[Order | None, Via("orders", by="root_cl_ord_id")]
) -> bool | None:
    """Source: FIX 4.4, ExecutionReport (8): Side, Symbol and Account are those of the order."""
    if order is None or execution.exec_type not in TRADES:
        return None
    return (
        execution.symbol == order.symbol
        and (execution.side == Side.BUY) == (order.side == Side.BUY)
        and (execution.account == order.account or not execution.account or not order.account)
        and (execution.leg == order.leg or not execution.leg or not order.leg)
    )


@predicate("execution-within-limit", asserted="on-mutation", needs=("last_px",), at_restore=False)
def execution_within_limit(
    execution: Annotated[Execution, "orders"],
    order: Annotated[Order | None, Via("orders", by="root_cl_ord_id")],
    request: Annotated[Request | None, Via("gateway", by="request_key", required=False)],
) -> bool | None:
    """A fill that was on its way when the order was replaced is judged by the version that it names."""
    if execution.exec_type != ExecType.TRADE or order is None:
        return None
    price = request.price if request is not None else order.price
    is_version_known = request is not None or not order.orig_cl_ord_id
    if price is None or not is_version_known or execution.last_px == 0:
        return None
    return execution.last_px <= price if execution.side == Side.BUY else execution.last_px >= price


@predicate("order-identity-fixed", at_restore=False)
def order_identity_fixed(order: Order, before: Before[Order]) -> bool | None:
    """Source: FIX 4.4, OrderCancelReplaceRequest (G): symbol and side cannot be replaced."""
    if before is None or order.exec_restatement_reason == ExecRestatementReason.GT_CORPORATE_ACTION:
        return None
    is_new_version = order.cl_ord_id != before.cl_ord_id or order.exec_type == ExecType.REPLACED
    return (
        order.symbol == before.symbol
        and (order.side == Side.BUY) == (before.side == Side.BUY)
        and (order.account == before.account or not order.account or not before.account or is_new_version)
        and (order.position_id == before.position_id or not before.position_id or is_new_version)
        and (order.position_side == before.position_side or before.position_side is None or is_new_version)
        and (order.cl_ord_link_id == before.cl_ord_link_id or not before.cl_ord_link_id or is_new_version)
        and (order.link == before.link or not before.link or is_new_version)
        and (order.order_id == before.order_id or not order.order_id or not before.order_id or is_new_version)
    )


@predicate("order-identity-fixed", at_restore=False)
def replaced_version_stays_replaced(order: Order, before: Before[Order]) -> bool | None:
    """A report that arrives late or again must not bring back a version that the venue has replaced."""
    if before is None or before.is_pending or not before.orig_cl_ord_id or not before.order_id:
        return None
    if order.cl_ord_id != before.orig_cl_ord_id:
        return None
    return order.order_id == before.order_id


@predicate("order-terms-agree-with-venue")
def order_terms_agree_with_venue(
    order: Annotated[Order, "orders"],
    venue: Annotated[Order, "venue"],
    fields: Annotated[Collection[str], Used(Order, "venue", _VENUE_FIELDS)],
) -> bool | None:
    """A field that the venue never states is not compared: silence is not the default."""
    if order.is_pending or not order.is_open or not venue.is_open:
        return None
    return (
        order.symbol == venue.symbol
        and (order.side == Side.BUY) == (venue.side == Side.BUY)
        and (order.account == venue.account or "account" not in fields or not venue.account)
        and (order.cl_ord_id == venue.cl_ord_id or "cl_ord_id" not in fields or not venue.cl_ord_id)
        and (order.order_id == venue.order_id or not order.order_id or not venue.order_id)
        and (order.time_in_force == venue.time_in_force or "time_in_force" not in fields)
        and (order.ord_type == venue.ord_type or "ord_type" not in fields)
        and (order.stop_px == venue.stop_px or "stop_px" not in fields)
        and (order.expire_date == venue.expire_date or "expire_date" not in fields)
        and (order.position_effect == venue.position_effect or "position_effect" not in fields)
        and (order.position_side == venue.position_side or "position_side" not in fields)
        and (order.position_id == venue.position_id or "position_id" not in fields)
    )


@predicate("own-order-was-requested")
def own_order_was_requested(
    order: Annotated[Order, "orders"],
    requests: Annotated[int, NEW_REQUESTS.total_at("root_cl_ord_id")],
    adopted: Adopted,
) -> bool | None:
    """An order may be stored before its request leaves, and end unsent. The guard has not seen an adopted order's."""
    is_without_effect = order.ord_status == OrdStatus.PENDING_NEW or (not order.is_open and order.cum_qty == 0)
    if order.foreign or adopted is not None or is_without_effect:
        return None
    return requests > 0


@predicate("child-matches-parent")
def child_matches_parent(
    order: Annotated[Order, "orders"], parent: Annotated[ParentOrder | None, Via("orders", by="cl_ord_link_id")]
) -> bool | None:
    """Also of a foreign order: a hand trade may be adopted by a parent only if it works in the parent's direction."""
    if parent is None:
        return None
    return (
        order.symbol == parent.symbol
        and (order.side == Side.BUY) == (parent.side == Side.BUY)
        and (order.account == parent.account or not order.account or not parent.account)
    )
