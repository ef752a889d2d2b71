"""Quantity: orders, positions, accounts and parent orders add up."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Adopted, Before, Sum
from holdover.model import (
    Balance,
    ExecRestatementReason,
    ExecType,
    Execution,
    Order,
    OrdStatus,
    ParentOrder,
    Position,
    PositionAdjustment,
)

EXECUTED = Sum(Execution, "orders", of="qty_delta", by="root_cl_ord_id")
NOTIONAL = Sum(Execution, "orders", of="notional_delta", by="root_cl_ord_id")
TRADED = Sum(Execution, "orders", of="signed_qty", by="day_key")
ADJUSTED = Sum(PositionAdjustment, "positions", of="qty_delta", by="day_key")
CASH = Sum(Execution, "orders", of="cash_delta", by="cash_key")
FEES = Sum(Execution, "orders", of="fee", by="cash_key")
CHILDREN_FILLED = Sum(Order, "orders", of="cum_qty", by="cl_ord_link_id")
CHILDREN_WORKING = Sum(Order, "orders", of="working_qty", by="cl_ord_link_id")


@predicate("order-quantity-conserved")
def order_quantity_conserved(order: Order) -> bool:
    """Source: FIX 4.4 volume 4, order state change matrices; LeavesQty (151) is zero once the order cannot fill."""
    return order.leaves_qty == (order.order_qty - order.cum_qty if order.is_open else 0)


@predicate("quantities-in-range")
def quantities_in_range(order: Order) -> bool:
    """Source: FIX 4.4, CumQty (14), OrderQty (38), LeavesQty (151)."""
    return 0 <= order.cum_qty <= order.order_qty and order.leaves_qty >= 0


@predicate("status-agrees-with-quantities")
def status_agrees_with_quantities(order: Order) -> bool | None:
    """Source: FIX 4.4, OrdStatus (39): New has no executions, Partially filled some, Filled all."""
    status = order.ord_status
    if status == OrdStatus.PARTIALLY_FILLED:
        return 0 < order.cum_qty < order.order_qty
    if status == OrdStatus.NEW:
        return order.cum_qty == 0
    if status == OrdStatus.FILLED:
        return order.cum_qty == order.order_qty
    return None


@predicate("cumulative-never-falls")
def cumulative_never_falls(order: Order, before: Before[Order]) -> bool | None:
    """Source: FIX 4.4, Trade Cancel (H) and Trade Correct (G) name the execution in ExecRefID (19)."""
    if before is None:
        return None
    if order.cum_qty < before.cum_qty and order.exec_type in (ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT):
        return order.exec_ref_id != ""
    if order.exec_restatement_reason == ExecRestatementReason.GT_CORPORATE_ACTION:
        return None
    return order.cum_qty >= before.cum_qty


@predicate("cumulative-equals-executions")
def cumulative_equals_executions(
    order: Annotated[Order, "orders"], executed: Annotated[int, EXECUTED.total_at("root_cl_ord_id")], adopted: Adopted
) -> bool | None:
    """The system cannot know a foreign order's executions from before its adoption.

    Nor can the guard know those of an order that a system without a store of executions brought back.
    """
    if order.foreign:
        return None
    if adopted is not None and not adopted.knows_executions:
        return order.cum_qty >= executed
    return order.cum_qty == executed


@predicate("notional-matches-executions", needs=("notional", "orders.Execution.notional_delta"))
def notional_matches_executions(
    order: Annotated[Order, "orders"], executed: Annotated[int, NOTIONAL.total_at("root_cl_ord_id")], adopted: Adopted
) -> bool | None:
    """AvgPx (6) derives from the notional, so it agrees as well."""
    if order.foreign or (adopted is not None and not adopted.knows_executions):
        return None
    return order.notional == executed


@predicate("position-equals-carried-plus-fills", needs=("trade_date",))
def position_equals_carried_plus_fills(
    position: Annotated[Position, "positions"],
    filled: Annotated[int, TRADED.total_at("day_key", touches="book_key")],
    adjusted: Annotated[int, ADJUSTED.total_at("day_key", touches="book_key", required=False)],
    adopted: Adopted,
) -> bool | None:
    """Fills and adjustments of the position's own trade date. On the day of its adoption not all are known."""
    if adopted is not None and adopted.trade_date == position.trade_date and not adopted.knows_executions:
        return None
    return position.net_qty == position.carried_qty + filled + adjusted


@predicate("cash-equals-carried-plus-flows", needs=("trade_date", "orders.Execution.cash_delta"))
def cash_equals_carried_plus_flows(
    balance: Annotated[Balance, "ledger"],
    flows: Annotated[int, CASH.total_at("cash_key", touches="balance_key")],
    adopted: Adopted,
) -> bool | None:
    """Cash moves by trades, their fees and transfers. On the day of its adoption not all are known."""
    if adopted is not None and adopted.trade_date == balance.trade_date:
        return None
    return balance.cash == balance.carried_cash + flows - balance.fees + balance.transfers


@predicate("cash-equals-carried-plus-flows", needs=("fees", "orders.Execution.fee"))
def fees_equal_executions(
    balance: Annotated[Balance, "ledger"],
    fees: Annotated[int, FEES.total_at("cash_key", touches="balance_key")],
    adopted: Adopted,
) -> bool | None:
    """Fees are those that the executions charged; a balance lists any other fee under its transfers."""
    if adopted is not None and adopted.trade_date == balance.trade_date:
        return None
    return balance.fees == fees


@predicate("carried-in-equals-carried-out", needs=("trade_date",))
def position_carried_in(position: Annotated[Position, "positions"], before: Before[Position]) -> bool | None:
    """A split restates the position; the reference-data invariant covers that."""
    if before is None or position.reference_version != before.reference_version:
        return None
    if position.trade_date == before.trade_date:
        return position.carried_qty == before.carried_qty
    return position.carried_qty == before.net_qty


@predicate("carried-in-equals-carried-out", needs=("trade_date",))
def balance_carried_in(balance: Annotated[Balance, "ledger"], before: Before[Balance]) -> bool | None:
    """The same rule for cash."""
    if before is None:
        return None
    if balance.trade_date == before.trade_date:
        return balance.carried_cash == before.carried_cash
    return balance.carried_cash == before.cash


@predicate("children-sum-to-parent", needs=("orders.Order.cl_ord_link_id",))
def children_sum_to_parent(
    parent: Annotated[ParentOrder, "orders"],
    filled: Annotated[int, CHILDREN_FILLED.total_at("parent_id")],
    working: Annotated[int, CHILDREN_WORKING.total_at("parent_id")],
    adopted: Adopted,
) -> bool:
    """Sums over all days on which the parent was worked. The guard may not know all orders of an adopted parent."""
    if adopted is not None:
        return parent.working_qty == working and parent.filled_qty >= filled
    return parent.filled_qty == filled and parent.working_qty == working
