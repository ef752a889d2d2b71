"""Turns the order messages of a log into records for the monitor: FIX 4.2, 4.4 and 5.0 in the terms of 4.4.

The reader records what a report states, right or wrong; the catalogue judges it. What a log does not contain
is not counted against it. An order that began before the log starts with the quantity that it had filled by
then. A report behind a gap of the log itself restarts the order if it does not follow from the last report. A
correction of an execution from before the log changes CumQty (14) by the reported amount.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, TypeVar

import msgspec
from msgspec.structs import replace

from holdover.audit.closed_orders import CLOSED_MAX, ClosedOrders, forget_records
from holdover.audit.fields import ParsedReport, ReportError, field_text, parse_side, parse_time_in_force, read_report
from holdover.audit.fix_sessions import FixSessions, LogMessage
from holdover.audit.tags import (
    CL_ORD_ID,
    CXL_REJ_REASON,
    MULTI_LEG_REPORTING_TYPE,
    ORD_STATUS,
    ORDER_ID,
    ORDER_QTY,
    ORIG_CL_ORD_ID,
    POSS_RESEND,
    PRICE,
    SECURITY_ID,
    SIDE,
    SYMBOL,
    TIME_IN_FORCE,
)
from holdover.audit.units import FinerUnitsError, NumberError, Units, UnitsState, split_decimal
from holdover.catalogue.predicates.lifecycle import legal_statuses_after
from holdover.model import (
    OPEN,
    TRADES,
    ExecRestatementReason,
    ExecType,
    Execution,
    MsgType,
    Order,
    OrdStatus,
    Record,
    Request,
    TimeInForce,
)
from holdover.runtime import Monitor
from holdover.runtime.check import Touched
from holdover.state import StateError, Stateful

_REQUESTS: Final = {
    b"D": MsgType.NEW_ORDER_SINGLE,
    b"F": MsgType.ORDER_CANCEL_REQUEST,
    b"G": MsgType.ORDER_CANCEL_REPLACE_REQUEST,
}
_UNNAMED: Final = frozenset(("", "0", "NONE", "none", "N/A", "UNKNOWN"))
"""Values of ExecID (17) and OrderID (37) that mean none."""
_BEGINS: Final = frozenset((ExecType.NEW, ExecType.PENDING_NEW, ExecType.REJECTED))
_OWNER: Final = "log"
_CARRIED: Final = (TimeInForce.GTC, TimeInForce.GTD)
_FLOAT_PRECISION: Final = 1_000_000
"""The precision of an AvgPx that passed through a float and was printed with six digits or more: one part in so
many.
"""


class StoredOrderState(msgspec.Struct):
    """The state of one order; its units by their symbol."""

    key: str
    session: str
    units: str
    order: Order | None
    names: list[str]
    executions: dict[str, Execution]
    corrected_by: dict[str, str]
    tif: TimeInForce | None
    whole: bool
    priced: bool
    requested: bool
    unsure: bool
    gaps: int
    notional: int
    position: int
    day: str
    order_ids: list[str]
    other_executions: list[str]


class OrderState(Stateful[StoredOrderState]):
    """One order from its first message on: its last record, its names, its executions.

    `whole` means that the log holds the order from its beginning, `priced` that every trade has a LastPx (31).
    `corrected_by` maps a corrected execution to the one that replaces it. `other_executions` has the keys of the
    executions that `executions` does not name: those without an ExecID (17), and earlier ones of a reused ExecID.
    """

    State = StoredOrderState

    __slots__ = (
        "day",
        "executions",
        "gaps",
        "key",
        "names",
        "notional",
        "order",
        "order_ids",
        "other_executions",
        "position",
        "priced",
        "requested",
        "session",
        "corrected_by",
        "tif",
        "units",
        "unsure",
        "whole",
    )

    def __init__(self, key: str, session: str, units: Units) -> None:
        self.key = key
        self.session = session
        self.units = units
        self.order: Order | None = None
        self.names: set[str] = set()
        self.executions: dict[str, Execution] = {}
        self.corrected_by: dict[str, str] = {}
        self.tif: TimeInForce | None = None
        self.whole = True
        self.priced = True
        self.requested = False
        self.unsure = False
        self.gaps = 0
        self.notional = 0
        self.position = -1
        self.day = ""
        self.order_ids: set[str] = set()
        self.other_executions: list[str] = []

    def _encode_field(self, name: str, value: Any) -> Any:
        if name == "units":
            return self.units.symbol
        return sorted(value) if name in ("names", "order_ids") else value

    def _decode_field(self, name: str, value: Any) -> Any:
        if name == "units":
            return self.units
        return set(value) if name in ("names", "order_ids") else value


class ReportedOrdersState(msgspec.Struct):
    """The state of the reader. Names and OrderIDs are stored as (session, name, key of the order)."""

    executions: int
    current_line: tuple[int, int]
    units: list[UnitsState]
    order_states: list[StoredOrderState]
    states_by_name: list[tuple[str, str, str]]
    states_by_order_id: list[tuple[str, str, str]]
    request_days: list[tuple[str, str, str]]
    waiting_requests: list[tuple[str, str, Request, tuple[int, int]]]
    sessions_with_adopted_orders: list[str]
    unnamed_count: int
    order_count: int
    closed_orders: list[str]


class ReportedOrders(Stateful[ReportedOrdersState]):
    """Turns order messages into records of `gateway` and `orders` and passes them to the monitor.

    `current_line` is the line of the current message.
    """

    State = ReportedOrdersState
    DERIVED: ClassVar = {"monitor": "the audit's monitor, which the audit stores itself"}

    def __init__(self, monitor: Monitor, closed_max: int = CLOSED_MAX) -> None:
        self.executions = 0
        self.order_count = 0
        self.current_line = (0, 0)
        self.order_states: dict[str, OrderState] = {}
        self.monitor = monitor
        self._units: dict[str, Units] = {}
        self._states_by_name: dict[tuple[str, str], OrderState] = {}
        self._states_by_order_id: dict[tuple[str, str], OrderState] = {}
        self._request_days: dict[tuple[str, str], str] = {}
        self._waiting_requests: dict[tuple[str, str], tuple[Request, tuple[int, int]]] = {}
        self._sessions_with_adopted_orders: set[str] = set()
        self._unnamed_count = 0
        self._closed_orders = ClosedOrders(closed_max)

    def _encode_field(self, name: str, value: Any) -> Any:
        if name in ("units", "order_states"):
            return [item.to_state() for item in value.values()]
        if name in ("states_by_name", "states_by_order_id"):
            return [(*mark, state.key) for mark, state in value.items()]
        if name == "request_days":
            return [(*mark, day) for mark, day in value.items()]
        if name == "waiting_requests":
            return [(*mark, request, line) for mark, (request, line) in value.items()]
        if name == "closed_orders":
            return list(value.keys)
        return sorted(value) if name == "sessions_with_adopted_orders" else value

    def _decode_field(self, name: str, value: Any) -> Any:
        if name == "units":
            units = {state.symbol: Units(state.symbol) for state in value}
            for state in value:
                units[state.symbol].take_state(state)
            return units
        if name == "order_states":
            return {state.key: self._restore_order_state(state) for state in value}
        if name in ("states_by_name", "states_by_order_id"):
            unknown = [key for _, _, key in value if key not in self.order_states]
            if unknown:
                raise StateError(f"the audit memory is damaged: no order {unknown[0]}")
            return {(session, order_name): self.order_states[key] for session, order_name, key in value}
        if name == "request_days":
            return {(session, cl_ord_id): day for session, cl_ord_id, day in value}
        if name == "waiting_requests":
            return {(session, cl_ord_id): (request, line) for session, cl_ord_id, request, line in value}
        if name == "closed_orders":
            self._closed_orders.keys = dict.fromkeys(value)
            return self._closed_orders
        return set(value) if name == "sessions_with_adopted_orders" else value

    def _restore_order_state(self, state: StoredOrderState) -> OrderState:
        if state.units not in self._units:
            raise StateError(f"the audit memory is damaged: no units of {state.units}")
        order_state = OrderState(state.key, state.session, self._units[state.units])
        order_state.take_state(state)
        return order_state

    def publish_instruments(self) -> None:
        """Pass every symbol's units to the monitor, for its explanations."""
        for symbol, units in self._units.items():
            self.monitor.instruments[symbol] = units.instrument()

    def read(self, message: LogMessage) -> None:
        """Record one message. Raises `ReportError` or `NumberError` when it cannot be understood."""
        self.current_line = message.line
        while True:
            try:
                self._dispatch(message)
                return
            except FinerUnitsError as error:
                self._refine_units(error)

    def _dispatch(self, message: LogMessage) -> None:
        kind = message.kind
        if kind == b"8":
            self._handle_report(message)
        elif kind in _REQUESTS:
            self._handle_request(message, _REQUESTS[kind])
        elif kind == b"9":
            self._handle_cancel_reject(message)

    # -- requests -----------------------------------------------------------------------------------------------

    def _handle_request(self, message: LogMessage, kind: MsgType) -> None:
        fields = message.fields
        session = message.direction.session.name
        cl_ord_id, orig = field_text(fields, CL_ORD_ID), field_text(fields, ORIG_CL_ORD_ID)
        if not cl_ord_id:
            raise ReportError("there is no ClOrdID (11)")
        resent = fields.get(POSS_RESEND) == b"Y"
        mark = (session, cl_ord_id)
        sent_on = self._request_days.get(mark)
        if message.dup and sent_on is not None:
            return
        original_state = self._states_by_name.get((session, orig)) if orig else None
        state = self._states_by_name.get(mark)
        if (
            sent_on is not None
            and sent_on != message.day
            and (state is None or state.order is None or not state.order.is_open)
        ):
            # A closed order's identifier, reused on another day: FIX requires uniqueness within one day only.
            self._forget_request_name(session, cl_ord_id)
            state = None
        elif sent_on is not None and resent:
            state = state or original_state
        if kind == MsgType.NEW_ORDER_SINGLE:
            state = state or self._begin_state(message, session, cl_ord_id)
        else:
            state = original_state or state
        units = state.units if state is not None else self._units_for(message)
        quantity, price = fields.get(ORDER_QTY), fields.get(PRICE)
        request = Request(
            msg_type=kind,
            cl_ord_id=cl_ord_id,
            orig_cl_ord_id=orig,
            root_cl_ord_id=state.key if state is not None else cl_ord_id,
            account=session,
            symbol=units.symbol,
            strategy=_OWNER,
            side=parse_side(fields.get(SIDE)),
            order_qty=units.lots(quantity) if quantity else 0,
            price=units.ticks(price) if price else None,
            trade_date=message.day,
            poss_resend=resent,
        )
        self._request_days[mark] = message.day
        if state is not None:
            state.requested = state.requested or kind == MsgType.NEW_ORDER_SINGLE
            state.tif = state.tif or parse_time_in_force(fields.get(TIME_IN_FORCE))
            state.names.add(cl_ord_id)
            self._states_by_name[mark] = state
        if kind != MsgType.NEW_ORDER_SINGLE and original_state is None:
            # It may name an order from before the log: the answer will show it.
            self._waiting_requests[mark] = (request, message.line)
            self._forget_oldest_waiting()
            return
        self._record("request", request)
        if state is not None:
            self._forget_closed(state)

    def _forget_oldest_waiting(self) -> None:
        """Bound the requests that wait for an answer: one that never comes leaves nothing to judge."""
        if len(self._waiting_requests) > CLOSED_MAX:
            mark = next(iter(self._waiting_requests))
            del self._waiting_requests[mark]
            self._request_days.pop(mark, None)
            self._sessions_with_adopted_orders.add(mark[0])

    def _forget_closed(self, state: OrderState) -> None:
        """Forget the order that closed longest ago, when there are too many; see `ClosedOrders`."""
        key = self._closed_orders.note(state)
        forgotten = self.order_states.pop(key, None) if key else None
        if forgotten is None:
            return
        forget_records(self.monitor, forgotten)
        self._sessions_with_adopted_orders.add(forgotten.session)
        for name in forgotten.names:
            mark = (forgotten.session, name)
            if self._states_by_name.get(mark) is forgotten:
                del self._states_by_name[mark]
                self._request_days.pop(mark, None)
        for order_id in forgotten.order_ids:
            if self._states_by_order_id.get((forgotten.session, order_id)) is forgotten:
                del self._states_by_order_id[forgotten.session, order_id]

    def _forget_request_name(self, session: str, cl_ord_id: str) -> None:
        table = ("gateway", Request)
        key = f"{session}/{cl_ord_id}"
        if key in self.monitor.records(Request, "gateway"):
            self.monitor.tables.forget_record(table, key)
        self._states_by_name.pop((session, cl_ord_id), None)

    def _record_answered_request(self, session: str, cl_ord_id: str, orig: str) -> None:
        """Record a waiting request when the venue answers it with an order that the log does not hold."""
        waiting = self._waiting_requests.pop((session, cl_ord_id), None) if self._waiting_requests else None
        if waiting is not None and orig and orig != waiting[0].orig_cl_ord_id:
            line_before, self.current_line = self.current_line, waiting[1]
            self._record("request", waiting[0])
            self.current_line = line_before

    def end(self, sessions: FixSessions) -> None:
        """Evaluate requests for unknown orders in sessions that the log holds from their start.

        Skips a session with an order from before the log, because the request may mean another such order.
        """
        for request, line in self._waiting_requests.values():
            self.current_line = line
            session = sessions.by_name.get(request.account)
            if (
                session is not None
                and session.is_logged_from_start
                and request.account not in self._sessions_with_adopted_orders
            ):
                self._record("request", request)
        self._waiting_requests.clear()

    # -- reports ------------------------------------------------------------------------------------------------

    def _handle_report(self, message: LogMessage) -> None:
        fields = message.fields
        if fields.get(MULTI_LEG_REPORTING_TYPE) == b"2":
            return  # one leg of a multileg order: the order itself has its own report
        session = message.direction.session.name
        cl_ord_id, orig, order_id = (
            field_text(fields, CL_ORD_ID),
            field_text(fields, ORIG_CL_ORD_ID),
            field_text(fields, ORDER_ID),
        )
        state = self._find_state(session, cl_ord_id, orig, order_id)
        try:
            report = read_report(fields, self._units_for(message) if state is None else state.units)
        except (ReportError, NumberError):
            if state is not None:
                state.unsure = True
            raise
        self.executions += 1
        if report.unknown or (report.duplicate and state is not None and state.order is not None):
            return  # an answer about no order, or the rejection of a reused ClOrdID
        if state is None or self._is_new_order(state, report, order_id, message):
            name = cl_ord_id if not orig or report.exec_type in _BEGINS else orig
            state = self._begin_state(message, session, name or order_id or f"order {self.order_count + 1}")
        self._record_answered_request(session, cl_ord_id, orig)
        previous = state.executions.get(report.exec_id) if report.exec_id not in _UNNAMED else None
        if previous is not None and previous.trade_date and report.trade_date not in ("", previous.trade_date):
            previous = None  # ExecIDs restart each day: yesterday's execution of the same ExecID is another one
        if (
            previous is not None
            and (message.dup or report.resent or message.seq is None)
            and _repeats_execution(previous, report, state)
        ):
            return  # an exact repetition of a report already recorded
        if previous is None and message.late and state.order is not None and message.position == state.position:
            return  # a repetition of the last report: a status has no ExecID that would identify it
        unsure = state.unsure or state.gaps != message.gaps
        execution = self._make_execution(state, report, message, unsure)
        if previous is None and message.late and state.order is not None and message.position < state.position:
            state.executions[report.exec_id] = execution
            state.unsure = True
            return  # older than the known state: the log begins in the middle of a resend
        self._apply_report(state, report, execution, message, (cl_ord_id, orig, order_id))

    def _apply_report(
        self,
        state: OrderState,
        report: ParsedReport,
        execution: Execution,
        message: LogMessage,
        ids: tuple[str, str, str],
    ) -> None:
        cl_ord_id, orig, order_id = ids
        before = state.order
        delta = execution.qty_delta
        cum_qty = report.cum_qty
        unsure = state.unsure or state.gaps != message.gaps
        monitor = self.monitor
        monitor.cause = "execution-report"
        touched: Touched = {}
        if before is None:
            if not state.requested or unsure:
                self._book_unlogged_fill(state, report, cum_qty - delta, touched)
        elif unsure and not self._can_follow(before, report, delta):
            if before.key in monitor.records(Order, "orders"):
                monitor.tables.forget_record(("orders", Order), before.key)
            self._book_unlogged_fill(state, report, cum_qty - delta - before.cum_qty, touched)
        if report.exec_type != ExecType.ORDER_STATUS:
            if report.exec_id in _UNNAMED:
                state.other_executions.append(execution.key)
            else:
                earlier = state.executions.get(report.exec_id)
                if earlier is not None and earlier.key != execution.key:
                    state.other_executions.append(earlier.key)
                state.executions[report.exec_id] = execution
                state.corrected_by.pop(report.exec_id, None)
                self._record_correction(state, report, execution)
            monitor.mutate("orders", execution, 0, touched)
        order = self._make_order(state, report, execution, (cl_ord_id, orig, order_id), clear=not unsure)
        state.order = order
        state.day = message.day
        state.gaps, state.unsure = message.gaps, report.unmodelled
        state.position = message.position
        session = state.session
        if cl_ord_id and cl_ord_id not in state.names:
            state.names.add(cl_ord_id)
            self._states_by_name[session, cl_ord_id] = state
        if orig and (session, orig) not in self._states_by_name:
            state.names.add(orig)
            self._states_by_name[session, orig] = state
        if order_id not in _UNNAMED and (session, order_id) not in self._states_by_order_id:
            self._states_by_order_id[session, order_id] = state
            state.order_ids.add(order_id)
        monitor.mutate("orders", order, 0, touched)
        monitor.settle(touched, 0)
        self._forget_closed(state)

    def _find_state(self, session: str, cl_ord_id: str, orig: str, order_id: str) -> OrderState | None:
        state = self._states_by_name.get((session, cl_ord_id)) if cl_ord_id else None
        if state is None and orig:
            state = self._states_by_name.get((session, orig))
        if state is None and order_id not in _UNNAMED:
            state = self._states_by_order_id.get((session, order_id))
        return state

    def _is_new_order(self, state: OrderState, report: ParsedReport, order_id: str, message: LogMessage) -> bool:
        """Whether a report begins a new order that only shares its name with a closed order of another day."""
        order = state.order
        return (
            order is not None
            and report.exec_type in _BEGINS
            and not order.is_open
            and order.order_id != order_id
            and state.day != message.day
        )

    def _begin_state(self, message: LogMessage, session: str, name: str) -> OrderState:
        key, number = name, 1
        while key in self.order_states:
            number += 1
            key = f"{name} ({session})" if number == 2 else f"{name} ({session} {number - 1})"
        state = self.order_states[key] = OrderState(key, session, self._units_for(message))
        self.order_count += 1
        state.names.add(name)
        state.gaps, state.day = message.gaps, message.day
        self._states_by_name[session, name] = state
        return state

    def _book_unlogged_fill(self, state: OrderState, report: ParsedReport, filled: int, touched: Touched) -> None:
        """Book the quantity that an order filled outside the log: before its start, or behind a gap in the log."""
        if filled <= 0:
            return
        state.whole = state.priced = False
        self._sessions_with_adopted_orders.add(state.session)
        self._unnamed_count += 1
        before = Execution(
            exec_id=f"not in the log {self._unnamed_count}",
            exec_type=ExecType.RESTATED,
            root_cl_ord_id=state.key,
            symbol=state.units.symbol,
            side=report.side,
            trade_date="",
            venue=state.session,
            qty_delta=filled,
        )
        state.other_executions.append(before.key)
        self.monitor.mutate("orders", before, 0, touched)

    def _can_follow(self, before: Order, report: ParsedReport, delta: int) -> bool:
        """Whether a report can directly follow the last one. A missing report never explains a falling quantity."""
        if before.cum_qty + delta < report.cum_qty:
            return False
        status = report.status
        return status == before.ord_status or status in legal_statuses_after(before.ord_status, report.exec_type)

    def _make_execution(self, state: OrderState, report: ParsedReport, message: LogMessage, unsure: bool) -> Execution:
        kind, last_qty, last_px = report.exec_type, report.last_qty, report.last_px
        exec_id, ref, ref_date = report.exec_id, report.exec_ref_id, ""
        day = report.trade_date or message.day
        cum_before = state.order.cum_qty if state.order is not None else 0
        quantity = notional = 0
        if kind == ExecType.TRADE:
            if last_qty is None:
                quantity = report.cum_qty - cum_before
                state.priced = False
            else:
                quantity = last_qty
            if last_px is None:
                state.priced = False
            else:
                notional = quantity * last_px
        elif kind in TRADES:
            began = state.whole and (state.requested or state.order is not None) and not unsure
            referenced = state.executions.get(_latest_correction(state, ref)) if ref else None
            if referenced is None or (kind == ExecType.TRADE_CORRECT and last_qty is None):
                if referenced is not None or not began:
                    kind, quantity = ExecType.RESTATED, report.cum_qty - cum_before
                    state.whole = state.priced = False
            else:
                last_px = referenced.last_px if last_px is None else last_px
                corrected = (last_qty or 0, last_px) if kind == ExecType.TRADE_CORRECT else (0, 0)
                quantity = corrected[0] - referenced.last_qty
                notional = corrected[0] * corrected[1] - referenced.last_qty * referenced.last_px
                ref, ref_date = referenced.exec_id, referenced.trade_date
        elif report.reason == ExecRestatementReason.GT_CORPORATE_ACTION:
            quantity = report.cum_qty - cum_before
            state.priced = False
        if exec_id in _UNNAMED:
            self._unnamed_count += 1
            exec_id = f"unnamed {self._unnamed_count}"
        return Execution(
            exec_id=exec_id,
            exec_type=kind,
            root_cl_ord_id=state.key,
            symbol=state.units.symbol,
            side=report.side,
            trade_date=day,
            venue=state.session,
            exec_ref_id=ref,
            exec_ref_date=ref_date,
            last_qty=last_qty or 0,
            last_px=last_px or 0,
            qty_delta=quantity,
            notional_delta=notional,
        )

    def _record_correction(self, state: OrderState, report: ParsedReport, execution: Execution) -> None:
        """Record that a correction replaces the execution that it names."""
        ref, exec_id = execution.exec_ref_id, execution.exec_id
        if (
            ref
            and report.exec_type in TRADES
            and _latest_correction(state, ref) != exec_id
            and exec_id not in state.corrected_by
        ):
            state.corrected_by[_latest_correction(state, ref)] = exec_id

    def _make_order(
        self, state: OrderState, report: ParsedReport, execution: Execution, ids: tuple[str, str, str], *, clear: bool
    ) -> Order:
        cl_ord_id, orig, order_id = ids
        before = state.order
        state.tif = tif = report.tif or state.tif
        status = report.status
        if tif is None and status == OrdStatus.DONE_FOR_DAY and report.leaves_qty:
            tif = TimeInForce.GTC  # not stated, and only a carried order has LeavesQty after its day
        if before is not None:
            cl_ord_id, orig = self._next_chain_ids(state, before, cl_ord_id, orig, clear)
        order_qty = report.order_qty
        if order_qty is None:
            order_qty = before.order_qty if before is not None else report.cum_qty + (report.leaves_qty or 0)
        leaves = report.leaves_qty
        if leaves is None:
            is_open = status in OPEN or (status == OrdStatus.DONE_FOR_DAY and tif in _CARRIED)
            leaves = order_qty - report.cum_qty if is_open else 0
        return Order(
            root_cl_ord_id=state.key,
            cl_ord_id=cl_ord_id or state.key,
            orig_cl_ord_id=orig,
            symbol=state.units.symbol,
            side=report.side,
            order_qty=order_qty,
            cum_qty=report.cum_qty,
            leaves_qty=leaves,
            notional=self._update_notional(state, report, execution),
            ord_status=status,
            strategy=_OWNER,
            time_in_force=tif or TimeInForce.DAY,
            order_id=order_id or (before.order_id if before is not None else ""),
            exec_type=None if report.unmodelled else report.exec_type,
            exec_id=execution.exec_id,
            exec_ref_id=report.exec_ref_id,
            exec_restatement_reason=report.reason,
        )

    def _next_chain_ids(
        self, state: OrderState, before: Order, cl_ord_id: str, orig: str, clear: bool
    ) -> tuple[str, str]:
        """Return ClOrdID and OrigClOrdID as they follow from the previous record.

        Requests may cross, and each answer names what its request named: every name that the order ever had is a link
        of its chain. Only if the log holds the requests does an unknown name break the chain.
        """
        current_id = before.cl_ord_id
        if not cl_ord_id or cl_ord_id == current_id:
            return current_id, before.orig_cl_ord_id
        is_known = orig in state.names if orig else cl_ord_id in state.names
        return cl_ord_id, current_id if is_known or not (state.requested and clear) else orig

    def _update_notional(self, state: OrderState, report: ParsedReport, execution: Execution) -> int:
        """Return the executions' notional, unless AvgPx (6) differs from it by more than rounding explains.

        AvgPx may be rounded or truncated at any decimal, or have passed through a binary float.
        """
        state.notional += execution.notional_delta
        avg_px, cum_qty = report.avg_px, report.cum_qty
        if not avg_px or not state.priced or cum_qty <= 0 or report.exec_type not in TRADES:
            return state.notional
        try:
            digits, decimals = split_decimal(avg_px)
        except NumberError:
            return state.notional
        if digits <= 0:
            return state.notional
        # In units of 10**-decimals ticks times a lot, all integers.
        ticks = digits * 10**state.units.tick_decimals * cum_qty
        scale = int(10**decimals)
        slack = max(10**state.units.tick_decimals * cum_qty, abs(ticks) // _FLOAT_PRECISION)
        if abs(ticks - state.notional * scale) < slack:
            return state.notional
        return ticks // scale if ticks // scale != state.notional else state.notional + 1

    # -- refusals -----------------------------------------------------------------------------------------------

    def _handle_cancel_reject(self, message: LogMessage) -> None:
        fields = message.fields
        session = message.direction.session.name
        cl_ord_id, orig = field_text(fields, CL_ORD_ID), field_text(fields, ORIG_CL_ORD_ID)
        self._record_answered_request(session, cl_ord_id, orig)
        state = self._states_by_name.get((session, orig)) or self._find_state(
            session, cl_ord_id, "", field_text(fields, ORDER_ID)
        )
        order = state.order if state is not None else None
        if state is None or order is None or message.late or fields.get(CXL_REJ_REASON) == b"1":
            return
        try:
            status = OrdStatus(field_text(fields, ORD_STATUS))
        except ValueError:
            status = order.ord_status
        if status in (OrdStatus.REJECTED, OrdStatus.REPLACED):
            status = order.ord_status
        unsure = state.unsure or state.gaps != message.gaps
        if unsure and status not in legal_statuses_after(order.ord_status, None):
            return
        next_cl_ord_id = orig if orig in state.names and order.cl_ord_id == cl_ord_id else order.cl_ord_id
        state.order = replace(order, ord_status=status, exec_type=None, cl_ord_id=next_cl_ord_id)
        self._record("cancel-reject", state.order)

    # -- units --------------------------------------------------------------------------------------------------

    def _units_for(self, message: LogMessage) -> Units:
        fields = message.fields
        symbol = field_text(fields, SYMBOL)
        if symbol in ("", "[N/A]"):
            symbol = field_text(fields, SECURITY_ID) or symbol
        units = self._units.get(symbol)
        if units is None:
            units = self._units[symbol] = Units(symbol)
            self.monitor.instruments[symbol] = units.instrument()
        return units

    def _refine_units(self, error: FinerUnitsError) -> None:
        """Convert everything known of a symbol to finer units; earlier results stay."""
        units = error.units
        lots, ticks = units.refine(error)
        tables = self.monitor.tables
        self.monitor.instruments[units.symbol] = units.instrument()
        for table in [table for table in tables.by_table if table[1] in (Order, Execution, Request)]:
            for key, record in list(tables.by_table[table].items()):
                if getattr(record, "symbol", None) == units.symbol:
                    tables.reset_record(table, key, _scale_record(record, lots, ticks))
        for state in self.order_states.values():
            if state.units is units:
                state.notional *= lots * ticks
                state.order = _scale_record(state.order, lots, ticks) if state.order is not None else None
                state.executions = {
                    name: _scale_record(execution, lots, ticks) for name, execution in state.executions.items()
                }
        for mark, (request, line) in self._waiting_requests.items():
            if request.symbol == units.symbol:
                self._waiting_requests[mark] = (_scale_record(request, lots, ticks), line)

    def _record(self, cause: str, record: Record) -> None:
        touched: Touched = {}
        self.monitor.cause = cause
        self.monitor.mutate("gateway" if type(record) is Request else "orders", record, 0, touched)
        self.monitor.settle(touched, 0)


def _latest_correction(state: OrderState, exec_id: str) -> str:
    """Return the execution that currently replaces one that may have been corrected."""
    while exec_id in state.corrected_by:
        exec_id = state.corrected_by[exec_id]
    return exec_id


def _repeats_execution(execution: Execution, report: ParsedReport, state: OrderState) -> bool:
    """Whether a report repeats what is known of an execution."""
    return (
        execution.root_cl_ord_id == state.key
        and (report.last_qty is None or execution.last_qty == report.last_qty)
        and (report.last_px is None or execution.last_px == report.last_px)
    )


T = TypeVar("T", bound=Record)


def _scale_record(record: T, lots: int, ticks: int) -> T:
    changes: dict[str, int] = {}
    for name, factor in (
        ("order_qty", lots),
        ("cum_qty", lots),
        ("leaves_qty", lots),
        ("last_qty", lots),
        ("qty_delta", lots),
        ("last_px", ticks),
        ("price", ticks),
        ("notional", lots * ticks),
        ("notional_delta", lots * ticks),
    ):
        value = getattr(record, name, None)
        if value is not None:
            changes[name] = value * factor
    return replace(record, **changes)
