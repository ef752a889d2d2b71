"""Seeded faults: realistic state-carry defects, switched on by name, to show that they are found.

Each is one class with one method changed, put in place of the desk's own; when no fault is on, none of this code is on
any path. Every one of them leaves the desk's fresh-state tests green. They are modelled on defects in public trackers
of trading systems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from holdover.desk.books import Positions
from holdover.desk.desk import Parts
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


class BadFault(ValueError):
    """No fault is called so."""


@dataclass(frozen=True)
class Fault:
    """One seeded fault: its category, what the faulty code does, the invariant that must catch it."""

    name: str
    category: str
    what: str
    catches: str
    parts: Callable[[Parts], Parts]


def _changed(part: str, **methods: Any) -> Callable[[Parts], Parts]:
    def change(parts: Parts) -> Parts:
        kept = getattr(parts, part)
        return replace(parts, **{part: type(f"Faulty{kept.__name__}", (kept,), methods)})

    return change


# -- partial fills carried overnight ------------------------------------------------------------------------------


def _forget_carried_partial(self: Orders, order: Order) -> Order:
    return msgspec.structs.replace(order, leaves_qty=order.order_qty) if order.is_open else order


def _reset_cum_on_restatement(self: Orders, order: Order, report: ExecutionReport) -> None:
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


# -- reconciliation across restarts -------------------------------------------------------------------------------


def _snapshot_then_fills_again(self: Positions, executions: Iterable[Execution]) -> list[Record]:
    Positions.load(self, executions)
    for execution in executions:
        held = self._held.get(execution.book_key)
        if held is not None and execution.booked_on == held.trade_date:
            self._held[held.key] = msgspec.structs.replace(held, net_qty=held.net_qty + execution.signed_qty)
    return list(self._held.values())


def _reused_client_id(self: Parents, strategy: str) -> str:
    count = getattr(self, "_count", 0) + 1
    self._count = count  # type: ignore[attr-defined]
    return f"{strategy}-{self._orders.trade_date.replace('-', '')}-{count}"


# -- order state over disconnects ---------------------------------------------------------------------------------


def _resume_without_asking(self: Reconciler, *, missed: bool = False) -> None:
    self.done, self._epoch = True, self._gateway.epoch
    self._say()
    self.finished()


def _resent_fill_booked_again(self: Orders, execution: Execution) -> bool:
    return False


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            "forget-carried-partial",
            "carried-partial-fill",
            "loads open orders at start with LeavesQty = OrderQty, ignoring the stored CumQty",
            "order-quantity-conserved",
            _changed("orders", restored=_forget_carried_partial),
        ),
        Fault(
            "reset-cum-on-restatement",
            "carried-partial-fill",
            "treats ExecType Restated as New and zeroes CumQty",
            "cumulative-never-falls",
            _changed("orders", restate=_reset_cum_on_restatement),
        ),
        Fault(
            "double-count-restated",
            "carried-partial-fill",
            "books the restatement's CumQty as a new fill in the position keeper",
            "position-equals-carried-plus-fills",
            _changed("orders", restate=_double_count_restated),
        ),
        Fault(
            "expire-gtc-with-day",
            "carried-partial-fill",
            "expires every open order of an earlier day at start, GTC too",
            "legal-status-step",
            _changed("orders", load=_expire_gtc_with_day),
        ),
        Fault(
            "average-over-today-only",
            "carried-partial-fill",
            "rebuilds the notional from today's executions only, CumQty from all",
            "notional-matches-executions",
            _changed("orders", load=_average_over_today_only),
        ),
        Fault(
            "exec-id-unique-forever",
            "carried-partial-fill",
            "treats an ExecID that starts again the next day as a duplicate and drops the fill",
            "books-agree-with-venue",
            _changed("orders", seen=_exec_id_unique_forever),
        ),
        Fault(
            "parent-restarts-from-zero",
            "carried-partial-fill",
            "recomputes a parent's quantity without the children filled on earlier days",
            "children-sum-to-parent",
            _changed("parents", restored=_parent_restarts_from_zero),
        ),
        Fault(
            "snapshot-then-fills-again",
            "restart-reconciliation",
            "replays all of today's fills on top of positions that already hold them",
            "position-equals-carried-plus-fills",
            _changed("positions", load=_snapshot_then_fills_again),
        ),
        Fault(
            "reused-client-id",
            "restart-reconciliation",
            "counts ClOrdIDs in memory and starts again at one after a restart on the same day",
            "terminal-stays-terminal",
            _changed("parents", _new_id=_reused_client_id),
        ),
        Fault(
            "resume-without-asking",
            "partition",
            "goes on with local state after a reconnect, without asking, when the venue does not replay",
            "books-agree-with-venue",
            _changed("reconciler", begin=_resume_without_asking),
        ),
        Fault(
            "resent-fill-booked-again",
            "partition",
            "books every execution that it is told of, told before or not",
            "execution-booked-once",
            _changed("orders", seen=_resent_fill_booked_again),
        ),
    )
}
"""Every seeded fault by name."""


def parts_with(faults: Sequence[str]) -> Parts:
    """The desk's parts with some faults switched on. Raises `BadFault` for a name that there is not."""
    parts = Parts()
    for name in faults:
        fault = FAULTS.get(name)
        if fault is None:
            raise BadFault(f"no seeded fault is called {name!r}; there are {', '.join(FAULTS)}")
        parts = fault.parts(parts)
    return parts
