"""Identity: each execution is booked once, each ClOrdID is used once, and each order has exactly one owner."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import AdoptedBy, Adoption, Before, Boundary, Sum, Via
from holdover.model import ExecType, Execution, MsgType, Order, Request

UNACKNOWLEDGED = Sum(Order, "orders", of="unacknowledged", by="cl_ord_link_id")


@predicate("execution-booked-once")
def execution_booked_once(execution: Execution, before: Before[Execution]) -> bool:
    """Source: FIX 4.4, ExecID (17) is unique for the trading day; the key therefore includes the trade date."""
    return before is None


@predicate("client-order-id-unique")
def client_order_id_unique(request: Request, before: Before[Request]) -> bool:
    """Source: FIX 4.4, ClOrdID (11); only a PossResend of the same order may carry it again."""
    return before is None or (
        request.poss_resend
        and request.order_qty == before.order_qty
        and request.symbol == before.symbol
        and request.side == before.side
        and request.price == before.price
    )


@predicate("every-execution-has-its-order")
def every_execution_has_its_order(
    execution: Annotated[Execution, "orders"], order: Annotated[Order | None, Via("orders", by="root_cl_ord_id")]
) -> bool:
    """The system adopts an external order and marks it foreign before it books its executions."""
    return order is not None


@predicate("order-intent-conserved")
def order_intent_conserved(
    request: Annotated[Request, "gateway"],
    order: Annotated[Order | None, Via("orders", by="root_cl_ord_id")],
    venue: Annotated[Order | None, Via("venue", by="root_cl_ord_id")],
    boundary: Boundary,
) -> bool | None:
    """Covers the session's own new orders: an order that the system lost must have had no effect at the venue."""
    if request.msg_type != MsgType.NEW_ORDER_SINGLE or request.trade_date != boundary.trade_date:
        return None
    if order is None:
        return venue is None or (not venue.is_open and venue.cum_qty == 0)
    return venue is not None or not order.is_open or order.is_pending


@predicate("correction-names-its-execution")
def correction_names_its_execution(
    execution: Annotated[Execution, "orders"],
    named: Annotated[Execution | None, Via("orders", by="ref_key")],
    adopted: Annotated[Adoption | None, AdoptedBy("orders", by="root_cl_ord_id")],
) -> bool | None:
    """Source: FIX 4.4, ExecRefID (19): a bust or correction reverses exactly what was booked.

    The guard may not have seen what was booked of an adopted order.
    """
    if named is None and adopted is not None and not adopted.knows_executions:
        return None
    if execution.exec_type == ExecType.TRADE_CANCEL:
        return (
            named is not None
            and execution.qty_delta == -named.last_qty
            and execution.notional_delta == -named.last_qty * named.last_px
        )
    if execution.exec_type == ExecType.TRADE_CORRECT:
        return (
            named is not None
            and execution.qty_delta == execution.last_qty - named.last_qty
            and execution.notional_delta == execution.last_qty * execution.last_px - named.last_qty * named.last_px
        )
    return None


@predicate("owner-is-one", needs=("strategy",))
def owner_is_one(order: Annotated[Order, "orders"], before: Before[Order]) -> bool:
    """Either a strategy owns the order or the order is foreign, and the owner does not change."""
    return order.foreign != (order.strategy != "") and (before is None or before.strategy == order.strategy)


@predicate("owner-is-one", needs=("strategy", "orders.Order.strategy"))
def request_comes_from_order_owner(
    request: Request, order: Annotated[Order | None, Via("orders", by="root_cl_ord_id")]
) -> bool | None:
    """Only the owner of an order replaces it."""
    if order is None or order.foreign or request.msg_type == MsgType.ORDER_CANCEL_REQUEST:
        return None
    return request.strategy == order.strategy


@predicate("one-live-order-per-intent")
def one_live_order_per_intent(
    request: Annotated[Request, "gateway"], unknown: Annotated[int, UNACKNOWLEDGED.total_at("cl_ord_link_id")]
) -> bool | None:
    """The order of this request is itself unacknowledged; any other unacknowledged order may already have filled."""
    if request.msg_type != MsgType.NEW_ORDER_SINGLE or not request.cl_ord_link_id:
        return None
    return unknown <= 1
