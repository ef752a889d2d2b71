"""Reads the FIX messages of another system and records them.

Each message is a mapping of FIX fields by name in snake case (`msg_type`, `cl_ord_id`, `cum_qty`, ...), as
decoded from a log, a drop copy or a table. The reader records what a report states, right or wrong; the
catalogue judges it. It drops a report resent with PossDupFlag whose execution is known, as a correct receiver
does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from holdover.model import (
    TRADES,
    ExecRestatementReason,
    ExecType,
    Execution,
    MsgType,
    Order,
    OrdStatus,
    Record,
    Request,
    Side,
    TimeInForce,
)
from holdover.runtime.guard import Guard


class ReportMessageError(ValueError):
    """A message lacks a required field or holds an invalid one; the error names the field."""


class ReportReader:
    """Turns the messages of one system into records of the subsystems `gateway` and `orders`.

    `account`, `symbol` and `strategy` are defaults for messages without them.
    """

    def __init__(self, guard: Guard, *, account: str = "", symbol: str = "", strategy: str = "read") -> None:
        self._guard = guard
        self._account, self._symbol, self._strategy = account, symbol, strategy
        self._orders: dict[str, Order] = {}
        self._roots: dict[str, str] = {}
        self._executions: dict[str, Execution] = {}

    def read_message(self, message: Mapping[str, Any]) -> None:
        """Record one message. Raises `ReportMessageError` when it cannot be understood."""
        kind = _text(message, "msg_type")
        if kind in (
            MsgType.NEW_ORDER_SINGLE,
            MsgType.ORDER_CANCEL_REQUEST,
            MsgType.ORDER_CANCEL_REPLACE_REQUEST,
        ):
            self._record_request(MsgType(kind), message)
        elif kind == MsgType.EXECUTION_REPORT:
            self._record_report(message)
        elif kind == MsgType.ORDER_CANCEL_REJECT:
            self._record_cancel_reject(message)

    def orders(self) -> list[Order]:
        """Return every order in its last reported state."""
        return list(self._orders.values())

    def _record_request(self, kind: MsgType, message: Mapping[str, Any]) -> None:
        if _text(message, "poss_dup") == "Y":
            return
        cl_ord_id = _required_text(message, "cl_ord_id")
        orig = _text(message, "orig_cl_ord_id")
        root = self._roots.get(orig, cl_ord_id) if orig else cl_ord_id
        order = self._orders.get(root)
        request = Request(
            msg_type=kind,
            cl_ord_id=cl_ord_id,
            orig_cl_ord_id=orig,
            root_cl_ord_id=root,
            account=_text(message, "account") or self._account,
            symbol=_text(message, "symbol") or self._symbol,
            strategy=self._strategy,
            side=Side(_text(message, "side") or (order.side if order else Side.BUY)),
            order_qty=_number(message, "order_qty", order.order_qty if order else 0),
            time_in_force=_time_in_force(message),
            trade_date=_trade_date(message),
            poss_resend=_text(message, "poss_resend") == "Y",
        )
        with self._guard.step("request"):
            self._roots.setdefault(cl_ord_id, root)
            self._guard.record("gateway", request)
            if kind == MsgType.NEW_ORDER_SINGLE and root not in self._orders:
                self._record_order(
                    Order(
                        root_cl_ord_id=root,
                        cl_ord_id=cl_ord_id,
                        symbol=request.symbol,
                        account=request.account,
                        strategy=self._strategy,
                        side=request.side,
                        order_qty=request.order_qty,
                        leaves_qty=request.order_qty,
                        time_in_force=request.time_in_force,
                        trade_date=request.trade_date,
                    )
                )

    def _record_report(self, message: Mapping[str, Any]) -> None:
        cl_ord_id = _required_text(message, "cl_ord_id")
        try:
            exec_type = ExecType(_required_text(message, "exec_type"))
            status = OrdStatus(_required_text(message, "ord_status"))
        except ValueError as problem:
            raise ReportMessageError(f"execution report of {cl_ord_id}: {problem}") from problem
        orig = _text(message, "orig_cl_ord_id")
        root = self._roots.get(cl_ord_id) or self._roots.get(orig) or orig or cl_ord_id
        before = self._orders.get(root) or self._adopt_order(root, message)
        execution = self._make_execution(before, exec_type, message)
        previous = self._executions.get(execution.key)
        if previous is not None and _text(message, "poss_dup") == "Y" and previous == execution:
            return  # an exact repetition of a report already recorded
        with self._guard.step("execution-report"):
            self._roots.setdefault(cl_ord_id, root)
            if exec_type != ExecType.ORDER_STATUS:
                self._executions[execution.key] = execution
                self._guard.record("orders", execution)
            self._record_order(self._apply_report(before, exec_type, status, execution, message))

    def _apply_report(
        self,
        before: Order,
        exec_type: ExecType,
        status: OrdStatus,
        execution: Execution,
        message: Mapping[str, Any],
    ) -> Order:
        reason = _text(message, "exec_restatement_reason")
        return replace(
            before,
            cl_ord_id=_required_text(message, "cl_ord_id"),
            orig_cl_ord_id=_text(message, "orig_cl_ord_id") or before.orig_cl_ord_id,
            order_qty=_number(message, "order_qty", before.order_qty),
            cum_qty=_number(message, "cum_qty", before.cum_qty),
            leaves_qty=_number(message, "leaves_qty", before.leaves_qty),
            notional=before.notional + execution.notional_delta,
            ord_status=status,
            order_id=_text(message, "order_id") or before.order_id or "reported",
            exec_type=exec_type,
            exec_id=execution.exec_id,
            exec_ref_id=execution.exec_ref_id,
            exec_restatement_reason=ExecRestatementReason(reason) if reason else None,
        )

    def _make_execution(self, order: Order, exec_type: ExecType, message: Mapping[str, Any]) -> Execution:
        last_qty, last_px = _number(message, "last_qty", 0), _number(message, "last_px", 0)
        exec_ref_id = _text(message, "exec_ref_id")
        quantity = notional = 0
        if exec_type == ExecType.TRADE:
            quantity, notional = last_qty, last_qty * last_px
        elif exec_type in TRADES:
            referenced = next(
                (execution for execution in self._executions.values() if execution.exec_id == exec_ref_id), None
            )
            original = (referenced.last_qty, referenced.last_px) if referenced else (0, 0)
            corrected = (last_qty, last_px) if exec_type == ExecType.TRADE_CORRECT else (0, 0)
            quantity, notional = corrected[0] - original[0], corrected[0] * corrected[1] - original[0] * original[1]
        elif _text(message, "exec_restatement_reason") == ExecRestatementReason.GT_CORPORATE_ACTION:
            quantity = _number(message, "cum_qty", order.cum_qty) - order.cum_qty
        return Execution(
            exec_id=_text(message, "exec_id"),
            exec_type=exec_type,
            root_cl_ord_id=order.key,
            symbol=order.symbol,
            side=order.side,
            trade_date=_trade_date(message),
            account=order.account,
            strategy=order.strategy,
            exec_ref_id=exec_ref_id,
            last_qty=last_qty,
            last_px=last_px,
            qty_delta=quantity,
            notional_delta=notional,
        )

    def _record_cancel_reject(self, message: Mapping[str, Any]) -> None:
        order = self._orders.get(self._roots.get(_text(message, "orig_cl_ord_id"), ""))
        status = _text(message, "ord_status")
        if order is not None and status:
            with self._guard.step("cancel-reject"):
                self._record_order(replace(order, ord_status=OrdStatus(status), exec_type=None))

    def _adopt_order(self, root: str, message: Mapping[str, Any]) -> Order:
        """Make a foreign order in its state before this report, because the stream does not contain its beginning."""
        last_qty = _number(message, "last_qty", 0)
        cum_qty = max(_number(message, "cum_qty", 0) - last_qty, 0)
        order_qty = _number(message, "order_qty", 0)
        return Order(
            root_cl_ord_id=root,
            cl_ord_id=root,
            symbol=_text(message, "symbol") or self._symbol,
            account=_text(message, "account") or self._account,
            side=Side(_text(message, "side") or Side.BUY),
            order_qty=order_qty,
            cum_qty=cum_qty,
            leaves_qty=order_qty - cum_qty,
            time_in_force=_time_in_force(message),
            trade_date=_trade_date(message),
            foreign=True,
        )

    def _record_order(self, order: Order) -> None:
        self._orders[order.key] = order
        record: Record = order
        self._guard.record("orders", record)


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    return "" if value is None else str(value).strip()


def _required_text(message: Mapping[str, Any], name: str) -> str:
    value = _text(message, name)
    if not value:
        raise ReportMessageError(f"message {_text(message, 'msg_type')} has no {name}")
    return value


def _number(message: Mapping[str, Any], name: str, default: int) -> int:
    value = _text(message, name)
    if not value:
        return default
    try:
        return int(value)
    except ValueError as problem:
        raise ReportMessageError(f"{name} is {value!r}, should be a whole number of lots or ticks") from problem


def _time_in_force(message: Mapping[str, Any]) -> TimeInForce:
    try:
        return TimeInForce(_text(message, "time_in_force") or TimeInForce.DAY)
    except ValueError as problem:
        raise ReportMessageError(f"time_in_force is {_text(message, 'time_in_force')!r}: {problem}") from problem


def _trade_date(message: Mapping[str, Any]) -> str:
    return _text(message, "trade_date") or f"day {_text(message, 'day') or '1'}"
