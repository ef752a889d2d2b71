"""Identity: an execution is booked once, a ClOrdID used once, and everything has exactly one owner."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Before, Boundary, Sum, Via
from holdover.model import ExecType, Execution, MsgType, Order, Request

UNACKNOWLEDGED = Sum(Order, "orders", of="unacknowledged", by="cl_ord_link_id")


@predicate("execution-booked-once")
def execution_booked_once(execution: Execution, before: Before[Execution]) -> bool:
    """Source: FIX 4.4, ExecID (17) is unique for the trading day; so it is joined with the trade date."""
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
    """An external order is adopted and marked foreign first."""
    return order is not None


@predicate("order-intent-conserved")
def order_intent_conserved(
    request: Annotated[Request, "gateway"],
    order: Annotated[Order | None, Via("orders", by="root_cl_ord_id")],
    venue: Annotated[Order | None, Via("venue", by="root_cl_ord_id")],
    boundary: Boundary,
) -> bool | None:
    """Of the session's own new orders: one that is gone here must have come to nothing at the venue."""
    if request.msg_type != MsgType.NEW_ORDER_SINGLE or request.trade_date != boundary.trade_date:
        return None
    if order is None:
        return venue is None or (not venue.is_open and venue.cum_qty == 0)
    return venue is not None or not order.is_open or order.is_pending


@predicate("correction-names-its-execution")
def correction_names_its_execution(
    execution: Annotated[Execution, "orders"], named: Annotated[Execution | None, Via("orders", by="ref_key")]
) -> bool | None:
    """Source: FIX 4.4, ExecRefID (19): what is taken back is exactly what had been booked."""
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


@predicate("owner-is-one")
def owner_is_one(order: Annotated[Order, "orders"], before: Before[Order]) -> bool:
    """A strategy owns it, or it is marked foreign; never both, never neither, and the owner does not change."""
    return order.foreign != (order.strategy != "") and (before is None or before.strategy == order.strategy)


@predicate("owner-is-one")
def request_is_its_orders_owners(
    request: Request, order: Annotated[Order | None, Via("orders", by="root_cl_ord_id")]
) -> bool | None:
    """Nobody replaces another's order."""
    if order is None or order.foreign or request.msg_type == MsgType.ORDER_CANCEL_REQUEST:
        return None
    return request.strategy == order.strategy


@predicate("one-live-order-per-intent")
def one_live_order_per_intent(
    request: Annotated[Request, "gateway"], unknown: Annotated[int, UNACKNOWLEDGED.on("cl_ord_link_id")]
) -> bool | None:
    """The order that this request makes is itself unacknowledged; any other one may have filled already."""
    if request.msg_type != MsgType.NEW_ORDER_SINGLE or not request.cl_ord_link_id:
        return None
    return unknown <= 1
