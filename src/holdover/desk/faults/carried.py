"""Faults in what is carried over the night: partial fills, executions, parents, positions, reference data."""

from __future__ import annotations

from typing import Final

import msgspec

from holdover.desk.books import Positions, Risk
from holdover.desk.faults.fault import Fault, changed
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
)

_CARRIED: Final = "carried-partial-fill"


def _forget_carried_partial(self: Orders, order: Order) -> Order:
    return msgspec.structs.replace(order, leaves_qty=order.order_qty) if order.is_open else order


def _reset_cum_on_restatement(self: Orders, order: Order, report: ExecutionReport) -> None:
    if order.trade_date == self.trade_date:
        Orders.restate(self, order, report)
        return
    # Told of an order of an earlier day, it is taken for the day's own new one.
    self._keep(
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
    Orders.restate(self, order, report)
    if order.trade_date == self.trade_date:
        return
    execution = self._execution(order, msgspec.structs.replace(report, last_qty=report.cum_qty, last_px=0))
    if execution is not None and report.cum_qty:
        # The position keeper takes the restatement for a fill; the order manager does not.
        self.booked(msgspec.structs.replace(execution, exec_type=ExecType.TRADE, qty_delta=report.cum_qty))


def _expire_gtc_with_day(self: Orders, since: str) -> list[Record]:
    records = Orders.load(self, since)
    for order in self.open():
        if order.time_in_force == TimeInForce.GTC and order.trade_date < self.trade_date:
            self._orders[order.key] = msgspec.structs.replace(
                order, ord_status=OrdStatus.EXPIRED, leaves_qty=0, exec_type=ExecType.EXPIRED
            )
    return [self._orders.get(record.key, record) if isinstance(record, Order) else record for record in records]


def _ask_after_todays_orders_only(self: Reconciler, account: str) -> list[Order]:
    return [one for one in Reconciler.unnamed(self, account) if one.trade_date == self._orders.trade_date]


def _average_over_today_only(self: Orders, since: str) -> list[Record]:
    records = Orders.load(self, since)
    for order in self.open():
        today = sum(
            one.notional_delta
            for one in self._executions.values()
            if one.root_cl_ord_id == order.key and one.booked_on == self.trade_date
        )
        self._orders[order.key] = msgspec.structs.replace(order, notional=today)
    return [self._orders.get(record.key, record) if isinstance(record, Order) else record for record in records]


def _seen_today(self: Orders, execution: Execution) -> bool:
    known = self._executions.get(execution.key)
    return known is not None and known.booked_on == self.trade_date


def _exec_id_unique_forever(self: Orders, execution: Execution) -> bool:
    known = getattr(self, "_ids", None)
    if known is None:
        known = {one.exec_id for one in self._executions.values()}
        self._ids = known  # type: ignore[attr-defined]
    if execution.exec_id in known:
        return True
    known.add(execution.exec_id)
    return False


def _parent_restarts_from_zero(self: Parents, parent: ParentOrder) -> ParentOrder:
    return msgspec.structs.replace(parent, filled_qty=0)


# -- beyond the list ----------------------------------------------------------------------------------------------


def _corrects_only_todays(self: Orders, order: Order, report: ExecutionReport) -> Execution | None:
    execution = Orders._execution(self, order, report)
    if execution is None or report.exec_type != ExecType.TRADE_CORRECT:
        return execution
    named = self._executions.get(execution.ref_key) or self._store.execution(execution.ref_key)
    if named is None or named.booked_on == self.trade_date:
        return execution
    # The execution corrected is not in today's blotter: what is told is taken for a fill of its own.
    return msgspec.structs.replace(
        execution, qty_delta=report.last_qty, notional_delta=report.last_qty * report.last_px
    )


def _rolls_yesterdays_opening(self: Positions, trade_date: str) -> None:
    for position in self.held():
        if position.trade_date != trade_date:
            self._keep(msgspec.structs.replace(position, net_qty=position.carried_qty, trade_date=trade_date))


def _split_passes_by(self: Positions, account: str, symbol: str, net_qty: int, reference_version: str) -> None:
    held = self.get(f"{account}/{symbol}")
    if held is None or not held.carried_qty:
        Positions.restate(self, account, symbol, net_qty, reference_version)


def _counts_the_day_in_place(self: Orders, order: Order, report: ExecutionReport) -> None:
    Orders.restate(self, order, report)
    if order.trade_date == self.trade_date:
        return
    # A record that has been said is changed behind the back of whoever was told.
    msgspec.structs.force_setattr(self._orders[order.key], "cum_qty", 0)


def _left_without_carried_work(self: Parents, parent: ParentOrder) -> int:
    carried = sum(
        order.working_qty
        for order in self._orders.open()
        if order.cl_ord_link_id == parent.key and order.trade_date < parent.trade_date
    )
    return Parents.left(self, parent) + carried


def _limits_the_day_only(self: Risk, account: str, symbol: str, buy: bool, quantity: int) -> bool:
    begun: dict[str, int] = self.__dict__.setdefault("_begun", {})
    key = f"{account}/{symbol}"
    kept = self._or_flat(account, symbol)
    carried = begun.setdefault(key, kept.net_qty)
    self._held[key] = msgspec.structs.replace(kept, net_qty=kept.net_qty - carried)
    try:
        return Risk.allows(self, account, symbol, buy, quantity)
    finally:
        self._held[key] = kept


FAULTS: Final = (
    Fault(
        "forget-carried-partial",
        _CARRIED,
        "loads open orders at start with LeavesQty = OrderQty, ignoring the stored CumQty",
        "a partial fill of a GTC order, the night",
        ("order-quantity-conserved", "restored-equals-persisted"),
        changed("orders", restored=_forget_carried_partial),
    ),
    Fault(
        "reset-cum-on-restatement",
        _CARRIED,
        "treats ExecType Restated of an order of an earlier day as New and zeroes CumQty",
        "a partial fill of a GTC order, the night with its restatement",
        ("cumulative-never-falls",),
        changed("orders", restate=_reset_cum_on_restatement),
    ),
    Fault(
        "double-count-restated",
        _CARRIED,
        "books the CumQty of an earlier day's order that is restated as a new fill in the position keeper",
        "a partial fill of a GTC order, the night with its restatement",
        ("position-equals-carried-plus-fills",),
        changed("orders", restate=_double_count_restated),
    ),
    Fault(
        "expire-gtc-with-day",
        _CARRIED,
        "expires every open order of an earlier day at start, GTC too",
        "a GTC order open at the close, the night",
        ("legal-status-step", "children-sum-to-parent", "restored-equals-persisted"),
        changed("orders", load=_expire_gtc_with_day),
    ),
    Fault(
        "keep-day-orders-open",
        _CARRIED,
        "asks only after orders of its own day, so that a DAY order that expired while it was down stays open",
        "a DAY order open when the desk is killed, the close while it is down, the night",
        ("no-open-order-unknown-to-venue", "day-order-ends-with-its-day"),
        changed("reconciler", unnamed=_ask_after_todays_orders_only),
    ),
    Fault(
        "average-over-today-only",
        _CARRIED,
        "rebuilds the notional from today's executions only, CumQty from all",
        "a partial fill of a GTC order, the night",
        ("notional-matches-executions", "restored-equals-persisted"),
        changed("orders", load=_average_over_today_only),
    ),
    Fault(
        "exec-id-set-cleared-nightly",
        _CARRIED,
        "clears the set of executions seen overnight, and the venue tells yesterday's last fill again at the logon",
        "a fill, the night",
        ("execution-booked-once",),
        changed("orders", seen=_seen_today),
    ),
    Fault(
        "exec-id-unique-forever",
        _CARRIED,
        "treats an ExecID that starts again the next day as a duplicate and drops the fill",
        "fills on a day, the night, fills under the same ExecIDs",
        ("books-agree-with-venue",),
        changed("orders", seen=_exec_id_unique_forever),
    ),
    Fault(
        "parent-restarts-from-zero",
        _CARRIED,
        "recomputes a parent's quantity without the children filled on earlier days",
        "a fill of a parent worked over two days, the night",
        ("children-sum-to-parent", "restored-equals-persisted"),
        changed("parents", restored=_parent_restarts_from_zero),
    ),
    Fault(
        "correction-of-yesterday-as-new",
        _CARRIED,
        "looks for the execution that a correction names among today's only, and books it as a new fill",
        "a fill of a GTC order, the night, the fill is corrected",
        ("correction-names-its-execution",),
        changed("orders", _execution=_corrects_only_todays),
    ),
    Fault(
        "rolls-yesterdays-opening",
        _CARRIED,
        "begins the day from what yesterday began with, not from what it ended with",
        "a fill, the night",
        ("carried-in-equals-carried-out",),
        changed("positions", begin=_rolls_yesterdays_opening),
    ),
    Fault(
        "split-passes-by",
        _CARRIED,
        "restates open orders after a split, and not the position carried",
        "a position, the night with a split",
        ("reference-data-current",),
        changed("positions", restate=_split_passes_by),
    ),
    Fault(
        "carried-changed-in-place",
        _CARRIED,
        "counts a restated order's fills of the day in the very record that it has told",
        "a partial fill of a GTC order, the night",
        ("recompute-agrees",),
        changed("orders", restate=_counts_the_day_in_place),
    ),
    Fault(
        "left-without-carried-work",
        _CARRIED,
        "counts as at work for a parent only the orders that were entered today",
        "a parent all of which is at work, the night",
        ("parent-not-overfilled",),
        changed("parents", left=_left_without_carried_work),
    ),
    Fault(
        "limit-on-the-day-only",
        _CARRIED,
        "holds the day's own trading to the position limit, not what was carried into it",
        "a position near its limit, the night, the same orders again",
        ("limits-respected",),
        changed("risk", allows=_limits_the_day_only),
    ),
)
"""The faults of this category."""
