"""Read a stream of FIX messages that somebody else's system exchanged, and record what they say.

Each message is a mapping of FIX fields by name in snake case (`msg_type`, `cl_ord_id`, `cum_qty`, ...), as decoded
from a log, a drop copy or a table. What a report states is recorded as it stands, right or wrong: judging it is the
catalogue's business. A report resent with PossDupFlag whose execution is known is dropped, as a correct receiver does.
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


class BadMessage(ValueError):
    """A message that lacks what it must have; the message says which field."""


class ReportReader:
    """Turns the messages of one system into records of the subsystems `gateway` and `orders`.

    `account`, `symbol` and `strategy` are what the messages do not say themselves.
    """

    def __init__(self, guard: Guard, *, account: str = "", symbol: str = "", strategy: str = "read") -> None:
        self._guard = guard
        self._account, self._symbol, self._strategy = account, symbol, strategy
        self._orders: dict[str, Order] = {}
        self._roots: dict[str, str] = {}
        self._executions: dict[str, Execution] = {}

    def read(self, message: Mapping[str, Any]) -> None:
        """Record one message. Raises `BadMessage` when it cannot be understood."""
        kind = _text(message, "msg_type")
        if kind in (
            MsgType.NEW_ORDER_SINGLE,
            MsgType.ORDER_CANCEL_REQUEST,
            MsgType.ORDER_CANCEL_REPLACE_REQUEST,
        ):
            self._request(MsgType(kind), message)
        elif kind == MsgType.EXECUTION_REPORT:
            self._report(message)
        elif kind == MsgType.ORDER_CANCEL_REJECT:
            self._refused(message)

    def orders(self) -> list[Order]:
        """Every order as the messages last told of it."""
        return list(self._orders.values())

    def _request(self, kind: MsgType, message: Mapping[str, Any]) -> None:
        if _text(message, "poss_dup") == "Y":
            return
        cl_ord_id = _needed(message, "cl_ord_id")
        orig = _text(message, "orig_cl_ord_id")
        root = self._roots.get(orig, cl_ord_id) if orig else cl_ord_id
        known = self._orders.get(root)
        request = Request(
            msg_type=kind,
            cl_ord_id=cl_ord_id,
            orig_cl_ord_id=orig,
            root_cl_ord_id=root,
            account=_text(message, "account") or self._account,
            symbol=_text(message, "symbol") or self._symbol,
            strategy=self._strategy,
            side=Side(_text(message, "side") or (known.side if known else Side.BUY)),
            order_qty=_number(message, "order_qty", known.order_qty if known else 0),
            time_in_force=_tif(message),
            trade_date=_day(message),
            poss_resend=_text(message, "poss_resend") == "Y",
        )
        with self._guard.step("request"):
            self._roots.setdefault(cl_ord_id, root)
            self._guard.record("gateway", request)
            if kind == MsgType.NEW_ORDER_SINGLE and root not in self._orders:
                self._keep(
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

    def _report(self, message: Mapping[str, Any]) -> None:
        cl_ord_id = _needed(message, "cl_ord_id")
        try:
            exec_type = ExecType(_needed(message, "exec_type"))
            status = OrdStatus(_needed(message, "ord_status"))
        except ValueError as problem:
            raise BadMessage(f"execution report of {cl_ord_id}: {problem}") from problem
        orig = _text(message, "orig_cl_ord_id")
        root = self._roots.get(cl_ord_id) or self._roots.get(orig) or orig or cl_ord_id
        before = self._orders.get(root) or self._adopted(root, message)
        execution = self._execution(before, exec_type, message)
        known = self._executions.get(execution.key)
        if known is not None and _text(message, "poss_dup") == "Y" and known == execution:
            return  # told before, and told again in so many words
        with self._guard.step("execution-report"):
            self._roots.setdefault(cl_ord_id, root)
            if exec_type != ExecType.ORDER_STATUS:
                self._executions[execution.key] = execution
                self._guard.record("orders", execution)
            self._keep(self._as_told(before, exec_type, status, execution, message))

    def _as_told(
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
            cl_ord_id=_needed(message, "cl_ord_id"),
            orig_cl_ord_id=_text(message, "orig_cl_ord_id") or before.orig_cl_ord_id,
            order_qty=_number(message, "order_qty", before.order_qty),
            cum_qty=_number(message, "cum_qty", before.cum_qty),
            leaves_qty=_number(message, "leaves_qty", before.leaves_qty),
            notional=before.notional + execution.notional_delta,
            ord_status=status,
            order_id=_text(message, "order_id") or before.order_id or "told",
            exec_type=exec_type,
            exec_id=execution.exec_id,
            exec_ref_id=execution.exec_ref_id,
            exec_restatement_reason=ExecRestatementReason(reason) if reason else None,
        )

    def _execution(self, order: Order, exec_type: ExecType, message: Mapping[str, Any]) -> Execution:
        last_qty, last_px = _number(message, "last_qty", 0), _number(message, "last_px", 0)
        exec_ref_id = _text(message, "exec_ref_id")
        quantity = notional = 0
        if exec_type == ExecType.TRADE:
            quantity, notional = last_qty, last_qty * last_px
        elif exec_type in TRADES:
            named = next((one for one in self._executions.values() if one.exec_id == exec_ref_id), None)
            was = (named.last_qty, named.last_px) if named else (0, 0)
            now = (last_qty, last_px) if exec_type == ExecType.TRADE_CORRECT else (0, 0)
            quantity, notional = now[0] - was[0], now[0] * now[1] - was[0] * was[1]
        elif _text(message, "exec_restatement_reason") == ExecRestatementReason.GT_CORPORATE_ACTION:
            quantity = _number(message, "cum_qty", order.cum_qty) - order.cum_qty
        return Execution(
            exec_id=_text(message, "exec_id"),
            exec_type=exec_type,
            root_cl_ord_id=order.key,
            symbol=order.symbol,
            side=order.side,
            trade_date=_day(message),
            account=order.account,
            strategy=order.strategy,
            exec_ref_id=exec_ref_id,
            last_qty=last_qty,
            last_px=last_px,
            qty_delta=quantity,
            notional_delta=notional,
        )

    def _refused(self, message: Mapping[str, Any]) -> None:
        order = self._orders.get(self._roots.get(_text(message, "orig_cl_ord_id"), ""))
        status = _text(message, "ord_status")
        if order is not None and status:
            with self._guard.step("cancel-reject"):
                self._keep(replace(order, ord_status=OrdStatus(status), exec_type=None))

    def _adopted(self, root: str, message: Mapping[str, Any]) -> Order:
        """An order whose beginning the stream does not hold: foreign, and taken up before this report."""
        told = _number(message, "last_qty", 0)
        cum_qty = max(_number(message, "cum_qty", 0) - told, 0)
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
            time_in_force=_tif(message),
            trade_date=_day(message),
            foreign=True,
        )

    def _keep(self, order: Order) -> None:
        self._orders[order.key] = order
        record: Record = order
        self._guard.record("orders", record)


def _text(message: Mapping[str, Any], name: str) -> str:
    found = message.get(name)
    return "" if found is None else str(found).strip()


def _needed(message: Mapping[str, Any], name: str) -> str:
    found = _text(message, name)
    if not found:
        raise BadMessage(f"message {_text(message, 'msg_type')} has no {name}")
    return found


def _number(message: Mapping[str, Any], name: str, default: int) -> int:
    found = _text(message, name)
    if not found:
        return default
    try:
        return int(found)
    except ValueError as problem:
        raise BadMessage(f"{name} is {found!r}, should be a whole number of lots or ticks") from problem


def _tif(message: Mapping[str, Any]) -> TimeInForce:
    try:
        return TimeInForce(_text(message, "time_in_force") or TimeInForce.DAY)
    except ValueError as problem:
        raise BadMessage(f"time_in_force is {_text(message, 'time_in_force')!r}: {problem}") from problem


def _day(message: Mapping[str, Any]) -> str:
    return _text(message, "trade_date") or f"day {_text(message, 'day') or '1'}"
