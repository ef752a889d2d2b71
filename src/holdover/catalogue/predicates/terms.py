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
    OrdType,
    ParentOrder,
    Request,
    Side,
)

NEW_REQUESTS = Sum(Request, "gateway", of="new_order_count", by="root_key")
REPLACE_REQUESTS = Sum(Request, "gateway", of="replace_count", by="root_key")

_UNANSWERED: Final = frozenset({OrdStatus.PENDING_NEW, OrdStatus.PENDING_REPLACE})
_RESTATES: Final = frozenset({ExecType.REPLACED, ExecType.RESTATED})
_STOPS: Final = frozenset({OrdType.STOP, OrdType.STOP_LIMIT})
_REQUEST_FIELDS: Final = ("time_in_force",)
_VENUE_FIELDS: Final = (
    "account",
    "cl_ord_id",
    "orig_cl_ord_id",
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
    order: Annotated[Order, "orders"],
    before: Before[Order],
    request: Annotated[Request | None, Via("gateway", by="request_key")],
    replace_requests: Annotated[int, REPLACE_REQUESTS.total_at("root_cl_ord_id")],
    stated: Annotated[Collection[str], Used(Order, "orders", _REQUEST_FIELDS)],
    requested: Annotated[Collection[str], Used(Request, "gateway", _REQUEST_FIELDS)],
) -> bool | None:
    """Judged when a report first answers the request, and when it changes a term without saying that it restates."""
    if request is None or not _is_judged(order, before, request, replace_requests):
        return None
    is_kept_id = bool(replace_requests) and request.msg_type == MsgType.NEW_ORDER_SINGLE
    is_same_tif = order.time_in_force == request.time_in_force
    return (
        order.symbol == request.symbol
        and (order.side == Side.BUY) == (request.side == Side.BUY)
        and (order.order_qty == request.order_qty or is_kept_id or _is_reduced(order, request))
        and (order.price == request.price or order.price is None or request.price is None or is_kept_id)
        and (is_same_tif or "time_in_force" not in stated or "time_in_force" not in requested or is_kept_id)
        and (order.stop_px == request.stop_px or request.stop_px is None or order.exec_type in _RESTATES or is_kept_id)
        and (order.expire_date == request.expire_date or not order.expire_date or not request.expire_date or is_kept_id)
    )


@predicate("order-matches-request", at_restore=False)
def venue_order_matches_request(
    order: Annotated[Order, "venue"],
    before: Before[Order],
    request: Annotated[Request | None, Via("gateway", by="request_key")],
    replace_requests: Annotated[int, REPLACE_REQUESTS.total_at("root_cl_ord_id")],
    stated: Annotated[Collection[str], Used(Order, "venue", _REQUEST_FIELDS)],
    requested: Annotated[Collection[str], Used(Request, "gateway", _REQUEST_FIELDS)],
) -> bool | None:
    """The same of the order as the venue states it; a field that the venue never states is not compared."""
    if request is None or not _is_judged(order, before, request, replace_requests):
        return None
    is_kept_id = bool(replace_requests) and request.msg_type == MsgType.NEW_ORDER_SINGLE
    is_same_tif = order.time_in_force == request.time_in_force
    return (
        order.symbol == request.symbol
        and (order.side == Side.BUY) == (request.side == Side.BUY)
        and (order.order_qty == request.order_qty or is_kept_id or _is_reduced(order, request))
        and (order.price == request.price or order.price is None or request.price is None or is_kept_id)
        and (is_same_tif or "time_in_force" not in stated or "time_in_force" not in requested or is_kept_id)
        and (order.stop_px == request.stop_px or order.stop_px is None or request.stop_px is None or is_kept_id)
        and (order.expire_date == request.expire_date or not order.expire_date or not request.expire_date or is_kept_id)
    )


def _is_judged(order: Order, before: Order | None, request: Request, replace_requests: int) -> bool:
    """Whether an order must have the terms of its request: it is an answer, or a term changed without a reason.

    A refused replace returns an order to a version that was judged before and that the venue may have restated since. A
    replace that keeps the ClOrdID has no request of that ClOrdID.
    """
    if request.msg_type == MsgType.ORDER_CANCEL_REQUEST or request.order_qty == 0:
        return False
    if order.ord_status in _UNANSWERED or order.is_rejected or order.exec_restatement_reason is not None:
        return False
    if before is None:
        return True
    is_same_id = before.cl_ord_id == order.cl_ord_id
    is_changed = (before.order_qty, before.price) != (order.order_qty, order.price)
    if before.ord_status == OrdStatus.PENDING_REPLACE:
        is_refused = not is_changed and order.exec_type not in _RESTATES if is_same_id else _is_return(order, before)
        return not is_refused
    if not is_same_id or before.ord_status == OrdStatus.PENDING_NEW:
        return not _is_return(order, before)
    return is_changed and not replace_requests and order.exec_type not in _RESTATES


def _is_return(order: Order, before: Order) -> bool:
    """Whether the order goes back to the version before: the venue has refused the replace."""
    return bool(before.orig_cl_ord_id) and order.cl_ord_id == before.orig_cl_ord_id


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
    """A fill that was on its way when the order was replaced is judged by the version that it names.

    The present version is judged by the order, whose price a split has restated.
    """
    if execution.exec_type != ExecType.TRADE or order is None:
        return None
    limits = _list_limits(execution, order, request)
    if not limits or execution.last_px == 0:
        return None
    limit_price = max(limits) if execution.side == Side.BUY else min(limits)
    is_beyond = execution.last_px > limit_price if execution.side == Side.BUY else execution.last_px < limit_price
    if is_beyond and order.ord_status == OrdStatus.PENDING_REPLACE and execution.cl_ord_id == order.cl_ord_id:
        return None  # the venue may have accepted the replace and keep the ClOrdID
    return execution.last_px <= limit_price if execution.side == Side.BUY else execution.last_px >= limit_price


def _is_reduced(order: Order, request: Request) -> bool:
    """Whether the fill of another order of its list has reduced the order."""
    return order.contingency_type is not None and order.order_qty < request.order_qty


def _list_limits(execution: Execution, order: Order, request: Request | None) -> list[int]:
    """Return the limit prices that the version in the execution has had; none when it is not known or had none.

    The venue may have restated the current version, or replaced it and kept the ClOrdID, since its request.
    """
    if request is None:
        is_replaced = bool(order.orig_cl_ord_id) or order.exec_type in _RESTATES
        return [] if is_replaced or order.price is None else [order.price]
    if request.price is None:
        return []
    if execution.cl_ord_id != order.cl_ord_id:
        return [request.price]
    return [] if order.price is None else [request.price, order.price]


@predicate("order-identity-fixed", at_restore=False)
def order_identity_fixed(order: Order, before: Before[Order]) -> bool | None:
    """Source: FIX 4.4, OrderCancelReplaceRequest (G): symbol and side cannot be replaced.

    A view that leaves a field empty has not changed it. A venue may give an order a new OrderID when it accepts a
    request for it and when a stop order is triggered. A report that arrives late or again must not bring back a version
    that the venue has replaced.
    """
    if before is None or order.exec_restatement_reason == ExecRestatementReason.GT_CORPORATE_ACTION:
        return None
    return (
        order.symbol == before.symbol
        and (order.side == before.side or (order.side == Side.BUY) == (before.side == Side.BUY))
        and (order.account == before.account or not order.account or not before.account or _is_replaced(order, before))
        and (order.position_id == before.position_id or not order.leg or not before.leg or _is_new(order, before))
        and (order.position_side == before.position_side or not order.leg or not before.leg or _is_new(order, before))
        and (order.link == before.link or not order.link or not before.link or _may_change_link(order, before))
        and (order.order_id == before.order_id or not order.order_id or _may_renumber(order, before))
    )


def _is_new(order: Order, before: Order) -> bool:
    """Whether the change is to a new version of the order, or answers a request."""
    return order.cl_ord_id != before.cl_ord_id or order.exec_type == ExecType.REPLACED or before.is_pending


def _may_change_link(order: Order, before: Order) -> bool:
    """Whether the order may move to another link: with a new version, or with a request that is sent there."""
    return _is_new(order, before) or order.is_pending


def _may_renumber(order: Order, before: Order) -> bool:
    """Whether the venue may have given the order another OrderID."""
    if not before.order_id:
        return True
    is_back = order.cl_ord_id == before.orig_cl_ord_id and bool(before.orig_cl_ord_id) and not before.is_pending
    return not is_back and (_is_new(order, before) or before.ord_type in _STOPS)


@predicate("order-identity-fixed", at_restore=False)
def own_order_keeps_its_place(order: Annotated[Order, "orders"], before: Before[Order]) -> bool | None:
    """The system itself must not lose the parent, the leg or the link of an order; a request may use another link."""
    if before is None or order.exec_restatement_reason == ExecRestatementReason.GT_CORPORATE_ACTION:
        return None
    return (
        (order.cl_ord_link_id == before.cl_ord_link_id or not before.cl_ord_link_id or _is_replaced(order, before))
        and (order.position_id == before.position_id or not before.leg or _is_replaced(order, before))
        and (order.position_side == before.position_side or not before.leg or _is_replaced(order, before))
        and (order.link == before.link or not before.link or _may_change_link(order, before))
    )


def _is_replaced(order: Order, before: Order) -> bool:
    """Whether the change is to a new version of the order."""
    return order.cl_ord_id != before.cl_ord_id or order.exec_type == ExecType.REPLACED


@predicate("order-terms-agree-with-venue")
def order_terms_agree_with_venue(
    order: Annotated[Order, "orders"],
    venue: Annotated[Order, "venue"],
    fields: Annotated[Collection[str], Used(Order, "venue", _VENUE_FIELDS)],
    recorded: Annotated[Collection[str], Used(Order, "orders", _VENUE_FIELDS)],
) -> bool | None:
    """A field that the venue or the system never states is not compared: silence is not the default.

    A venue may show a triggered stop order as the order that it has become. A system that never states an OrigClOrdID
    names an order by its first ClOrdID for good.
    """
    if order.is_pending or not order.is_open or not venue.is_open:
        return None
    compared = set(fields) & set(recorded)
    is_triggered = order.ord_type in _STOPS and venue.ord_type not in _STOPS and venue.stop_px is None
    return (
        order.symbol == venue.symbol
        and (order.side == Side.BUY) == (venue.side == Side.BUY)
        and (order.account == venue.account or "account" not in compared or not venue.account)
        and (order.cl_ord_id == venue.cl_ord_id or not venue.cl_ord_id or "orig_cl_ord_id" not in recorded)
        and (order.order_id == venue.order_id or not order.order_id or not venue.order_id)
        and (order.time_in_force == venue.time_in_force or "time_in_force" not in compared)
        and (order.ord_type == venue.ord_type or "ord_type" not in compared or is_triggered)
        and (order.stop_px == venue.stop_px or "stop_px" not in compared or is_triggered)
        and (order.expire_date == venue.expire_date or "expire_date" not in compared)
        and (order.position_effect == venue.position_effect or "position_effect" not in compared)
        and (order.position_side == venue.position_side or "position_side" not in compared)
        and (order.position_id == venue.position_id or "position_id" not in compared)
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
