"""Faults in what moves without a trade: adjustments, cash movements, margin, and in realized profit and prices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from holdover.desk.accounting import Ledger, Positions, Risk
from holdover.desk.faults.fault import Fault, replace_methods
from holdover.desk.faults.restarts import has_reconciled
from holdover.desk.orders import Orders
from holdover.desk.profit import ProfitAndLoss
from holdover.desk.reconciler import Reconciler
from holdover.model import (
    AccountReport,
    CashMovement,
    ExecType,
    Execution,
    ExecutionReport,
    Order,
    OrderOrigin,
    PositionAdjustment,
    Query,
    Record,
)

_RESTART: Final = "restart-reconciliation"
_PARTITION: Final = "partition"


def _asks_for_changes_once(self: Reconciler) -> list[Query]:
    return [] if has_reconciled(self) else Reconciler.build_account_queries(self)


def _adjusted_in_this_incarnation(self: Positions, adjustment: PositionAdjustment) -> bool:
    adjusted: set[str] = self.__dict__.setdefault("_adjusted", set())
    is_adjusted = adjustment.key in adjusted
    adjusted.add(adjustment.key)
    return is_adjusted


def _moved_in_this_incarnation(self: Ledger, movement: CashMovement) -> bool:
    moved: set[str] = self.__dict__.setdefault("_moved", set())
    is_moved = movement.key in moved
    moved.add(movement.key)
    return is_moved


def _starts_without_flow(self: ProfitAndLoss, executions: Iterable[Execution], trade_date: str) -> list[Record]:
    return ProfitAndLoss.load(self, [], trade_date)


def _learns_without_price(self: Orders, order: Order, report: ExecutionReport) -> Execution | None:
    execution = Orders._build_execution(self, order, report)
    if execution is None or not report.poss_resend or report.exec_type != ExecType.TRADE:
        return execution
    return msgspec.structs.replace(execution, last_px=0)


def _takes_cash_for_equity(self: Risk, report: AccountReport) -> None:
    if report.req_id and report.margin is not None and report.balance is not None:
        report = msgspec.structs.replace(
            report, margin=msgspec.structs.replace(report.margin, equity=report.balance.cash)
        )
    Risk.take_margin(self, report)


def _ignores_forced_trades(self: Orders, report: ExecutionReport) -> None:
    if not (report.poss_resend and report.origin == OrderOrigin.LIQUIDATION):
        Orders.apply_report(self, report)


FAULTS: Final = (
    Fault(
        "account-changes-not-queried",
        _PARTITION,
        "asks for the account's changes at its first reconciliation only, and takes later ones from the wire",
        "an adjustment and a cash movement while the link is cut, not replayed",
        ("movements-agree-with-venue", "adjustments-agree-with-venue", "balances-agree-with-venue"),
        replace_methods("reconciler", build_account_queries=_asks_for_changes_once),
    ),
    Fault(
        "adjustment-booked-again",
        _RESTART,
        "keeps the ids of booked adjustments in memory, and books again what the reconciliation states",
        "an adjustment of a position, a restart on the same day",
        ("position-equals-carried-plus-fills",),
        replace_methods("positions", is_adjusted=_adjusted_in_this_incarnation),
    ),
    Fault(
        "movement-booked-again",
        _RESTART,
        "keeps the ids of booked cash movements in memory, and books again what the reconciliation states",
        "a cash movement, a restart on the same day",
        ("transfers-equal-movements", "balances-agree-with-venue"),
        replace_methods("ledger", is_moved=_moved_in_this_incarnation),
    ),
    Fault(
        "flow-forgotten-at-restart",
        _RESTART,
        "computes realized profit after a restart from the executions since the restart",
        "a fill, a restart on the same day, another fill",
        ("realized-pnl-conserved",),
        replace_methods("profit", load=_starts_without_flow),
    ),
    Fault(
        "learnt-without-its-price",
        _RESTART,
        "books an execution that it learns of by a query with a price of 0",
        "a fill while it is down",
        ("prices-positive",),
        replace_methods("orders", _build_execution=_learns_without_price),
    ),
    Fault(
        "equity-without-positions",
        _RESTART,
        "takes the cash in the answer of a reconciliation for the equity, and forgets what the positions are worth",
        "positions bought with borrowed cash, a restart",
        ("margin-sufficient", "margin-agrees-with-venue"),
        replace_methods("risk", take_margin=_takes_cash_for_equity),
    ),
    Fault(
        "liquidation-not-adopted",
        _PARTITION,
        "drops a trade that the venue made by itself when it learns of it by a query",
        "a liquidation while the link is cut, not replayed",
        ("books-agree-with-venue",),
        replace_methods("orders", apply_report=_ignores_forced_trades),
    ),
)
"""The faults of this category."""
