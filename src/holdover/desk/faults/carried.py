"""Faults in what is carried overnight: partial fills, executions, parents, positions, reference data."""

from __future__ import annotations

from typing import Final

import msgspec

from holdover.desk.accounting import Positions, Risk
from holdover.desk.faults.fault import Fault, replace_methods
from holdover.desk.orders import Orders
from holdover.desk.parents import Parents
from holdover.desk.reconciler import Reconciler
from holdover.model import (
    ExecType,
    Execution,
    ExecutionReport,
    Order,
    OrdStatus,
    ParentOrder,
    Record,
    TimeInForce,
    position_key,
)

_CARRIED: Final = "carried-partial-fill"


def _forget_carried_partial(self: Orders, order: Order) -> Order:
    return msgspec.structs.replace(order, leaves_qty=order.order_qty) if order.is_open else order


def _reset_cum_on_restatement(self: Orders, order: Order, report: ExecutionReport) -> None:
    if order.trade_date == self.trade_date:
        Orders.apply_restatement(self, order, report)
        return
    # A restatement of an order of an earlier day is treated as a new order of today.
    self._save(
        order,
        msgspec.structs.replace(
            order,
            cum_qty=0,
            notional=0,
            leaves_qty=report.order_qty,
            ord_status=OrdStatus.NEW,
            exec_type=ExecType.RESTATED,
            exec_id=report.exec_id,
        ),
    )


def _double_count_restated(self: Orders, order: Order, report: ExecutionReport) -> None:
    Orders.apply_restatement(self, order, report)
    if order.trade_date == self.trade_date:
        return
    execution = self._build_execution(order, msgspec.structs.replace(report, last_qty=report.cum_qty, last_px=0))
    if execution is not None and report.cum_qty:
        # The position keeper treats the restatement as a fill; the order manager does not.
        self.on_execution(msgspec.structs.replace(execution, exec_type=ExecType.TRADE, qty_delta=report.cum_qty))


def _expire_gtc_with_day(self: Orders, since_date: str) -> list[Record]:
    records = Orders.load(self, since_date)
    for order in self.open_orders():
        if order.time_in_force == TimeInForce.GTC and order.trade_date < self.trade_date:
            self._orders[order.key] = msgspec.structs.replace(
                order, ord_status=OrdStatus.EXPIRED, leaves_qty=0, exec_type=ExecType.EXPIRED
            )
    return [self._orders.get(record.key, record) if isinstance(record, Order) else record for record in records]


def _ask_after_todays_orders_only(self: Reconciler, account: str) -> list[Order]:
    return [order for order in Reconciler.unnamed_orders(self, account) if order.trade_date == self._orders.trade_date]


def _average_over_today_only(self: Orders, since_date: str) -> list[Record]:
    records = Orders.load(self, since_date)
    for order in self.open_orders():
        today = sum(
            execution.notional_delta
            for execution in self._executions.values()
            if execution.root_cl_ord_id == order.key and execution.booked_on == self.trade_date
        )
        self._orders[order.key] = msgspec.structs.replace(order, notional=today)
    return [self._orders.get(record.key, record) if isinstance(record, Order) else record for record in records]


def _seen_today(self: Orders, execution: Execution) -> bool:
    booked_execution = self._executions.get(execution.key)
    return booked_execution is not None and booked_execution.booked_on == self.trade_date


def _exec_id_unique_forever(self: Orders, execution: Execution) -> bool:
    exec_ids = getattr(self, "_ids", None)
    if exec_ids is None:
        exec_ids = {booked_execution.exec_id for booked_execution in self._executions.values()}
        self._ids = exec_ids  # type: ignore[attr-defined]
    if execution.exec_id in exec_ids:
        return True
    exec_ids.add(execution.exec_id)
    return False


def _parent_restarts_from_zero(self: Parents, parent: ParentOrder) -> ParentOrder:
    return msgspec.structs.replace(parent, filled_qty=0)


# -- beyond the list ----------------------------------------------------------------------------------------------


def _corrects_only_todays(self: Orders, order: Order, report: ExecutionReport) -> Execution | None:
    execution = Orders._build_execution(self, order, report)
    if execution is None or report.exec_type != ExecType.TRADE_CORRECT:
        return execution
    original = self._executions.get(execution.ref_key) or self._store.execution(execution.ref_key)
    if original is None or original.booked_on == self.trade_date:
        return execution
    # The corrected execution is not in today's blotter: the report is booked as a fill of its own.
    return msgspec.structs.replace(
        execution, qty_delta=report.last_qty, notional_delta=report.last_qty * report.last_px
    )


def _rolls_yesterdays_opening(self: Positions, trade_date: str) -> None:
    for position in self.all_positions():
        if position.trade_date != trade_date:
            self._save(msgspec.structs.replace(position, net_qty=position.carried_qty, trade_date=trade_date))


def _split_passes_by(self: Positions, key: str, net_qty: int, reference_version: str) -> None:
    position = self.get(key)
    if position is None or not position.carried_qty:
        Positions.restate(self, key, net_qty, reference_version)


def _counts_the_day_in_place(self: Orders, order: Order, report: ExecutionReport) -> None:
    Orders.apply_restatement(self, order, report)
    if order.trade_date == self.trade_date:
        return
    # A record that was already reported is changed in place.
    msgspec.structs.force_setattr(self._orders[order.key], "cum_qty", 0)


def _left_without_carried_work(self: Parents, parent: ParentOrder) -> int:
    carried = sum(
        order.working_qty
        for order in self._orders.open_orders()
        if order.cl_ord_link_id == parent.key and order.trade_date < parent.trade_date
    )
    return Parents.remaining_qty(self, parent) + carried


def _limits_the_day_only(self: Risk, account: str, symbol: str, buy: bool, quantity: int, leg: str = "") -> bool:
    opening_quantities: dict[str, int] = self.__dict__.setdefault("_begun", {})
    key = position_key(account, symbol, leg)
    exposure = self._exposures.get(key)
    if exposure is None:
        return Risk.allows(self, account, symbol, buy, quantity, leg)
    carried = opening_quantities.setdefault(key, exposure.net_qty)
    self._exposures[key] = msgspec.structs.replace(exposure, net_qty=exposure.net_qty - carried)
    try:
        return Risk.allows(self, account, symbol, buy, quantity, leg)
    finally:
        self._exposures[key] = exposure


FAULTS: Final = (
    Fault(
        "forget-carried-partial",
        _CARRIED,
        "loads open orders at start with LeavesQty = OrderQty, ignoring the stored CumQty",
        "a partial fill of a GTC order, the night",
        ("order-quantity-conserved", "restored-equals-persisted"),
        replace_methods("orders", restore_order=_forget_carried_partial),
    ),
    Fault(
        "reset-cum-on-restatement",
        _CARRIED,
        "treats ExecType Restated of an order of an earlier day as New and zeroes CumQty",
        "a partial fill of a GTC order, the night with its restatement",
        ("cumulative-never-falls",),
        replace_methods("orders", apply_restatement=_reset_cum_on_restatement),
    ),
    Fault(
        "double-count-restated",
        _CARRIED,
        "books the CumQty of an earlier day's order that is restated as a new fill in the position keeper",
        "a partial fill of a GTC order, the night with its restatement",
        ("position-equals-carried-plus-fills",),
        replace_methods("orders", apply_restatement=_double_count_restated),
    ),
    Fault(
        "expire-gtc-with-day",
        _CARRIED,
        "expires every open order of an earlier day at start, GTC too",
        "a GTC order open at the close, the night",
        ("legal-status-step", "children-sum-to-parent", "restored-equals-persisted"),
        replace_methods("orders", load=_expire_gtc_with_day),
    ),
    Fault(
        "keep-day-orders-open",
        _CARRIED,
        "asks only after orders of its own day, so that a DAY order that expired while it was down stays open",
        "a DAY order open when the desk is killed, the close while it is down, the night",
        ("no-open-order-unknown-to-venue", "day-order-ends-with-its-day"),
        replace_methods("reconciler", unnamed_orders=_ask_after_todays_orders_only),
    ),
    Fault(
        "average-over-today-only",
        _CARRIED,
        "rebuilds the notional from today's executions only, CumQty from all",
        "a partial fill of a GTC order, the night",
        ("notional-matches-executions", "restored-equals-persisted"),
        replace_methods("orders", load=_average_over_today_only),
    ),
    Fault(
        "exec-id-set-cleared-nightly",
        _CARRIED,
        "clears the set of executions seen overnight, and the venue tells yesterday's last fill again at the logon",
        "a fill, the night",
        ("execution-booked-once",),
        replace_methods("orders", is_booked=_seen_today),
    ),
    Fault(
        "exec-id-unique-forever",
        _CARRIED,
        "treats an ExecID that starts again the next day as a duplicate and drops the fill",
        "fills on a day, the night, fills under the same ExecIDs",
        ("books-agree-with-venue",),
        replace_methods("orders", is_booked=_exec_id_unique_forever),
    ),
    Fault(
        "parent-restarts-from-zero",
        _CARRIED,
        "recomputes a parent's quantity without the children filled on earlier days",
        "a fill of a parent worked over two days, the night",
        ("children-sum-to-parent", "restored-equals-persisted"),
        replace_methods("parents", restore_parent=_parent_restarts_from_zero),
    ),
    Fault(
        "correction-of-yesterday-as-new",
        _CARRIED,
        "looks for the execution that a correction names among today's only, and books it as a new fill",
        "a fill of a GTC order, the night, the fill is corrected",
        ("correction-names-its-execution",),
        replace_methods("orders", _build_execution=_corrects_only_todays),
    ),
    Fault(
        "rolls-yesterdays-opening",
        _CARRIED,
        "begins the day from what yesterday began with, not from what it ended with",
        "a fill, the night",
        ("carried-in-equals-carried-out",),
        replace_methods("positions", begin=_rolls_yesterdays_opening),
    ),
    Fault(
        "split-passes-by",
        _CARRIED,
        "restates open orders after a split, and not the position carried",
        "a position, the night with a split",
        ("reference-data-current",),
        replace_methods("positions", restate=_split_passes_by),
    ),
    Fault(
        "carried-changed-in-place",
        _CARRIED,
        "counts a restated order's fills of the day in the very record that it has told",
        "a partial fill of a GTC order, the night",
        ("recompute-agrees",),
        replace_methods("orders", apply_restatement=_counts_the_day_in_place),
    ),
    Fault(
        "left-without-carried-work",
        _CARRIED,
        "counts as at work for a parent only the orders that were entered today",
        "a parent all of which is at work, the night",
        ("parent-not-overfilled",),
        replace_methods("parents", remaining_qty=_left_without_carried_work),
    ),
    Fault(
        "limit-on-the-day-only",
        _CARRIED,
        "holds the day's own trading to the position limit, not what was carried into it",
        "a position near its limit, the night, the same orders again",
        ("limits-respected",),
        replace_methods("risk", allows=_limits_the_day_only),
    ),
)
"""The faults of this category."""
