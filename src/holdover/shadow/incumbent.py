"""Reads the reports about the incumbent's orders, line by line, from its guard's journal or its FIX log.

In a journal they follow from the booked executions and the changes of an order's status; in a FIX log they are the
execution reports. Quantities and prices are in lots and ticks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

import msgspec

from holdover.audit import tags
from holdover.audit.framing import FieldMap, FixFramer
from holdover.model import TRADES, ExecType, Execution, Instrument, Order, OrdStatus
from holdover.state import DECODE_ERRORS, Stateful
from holdover.world import IncumbentReport
from holdover.world.counterparts import ReportKind

_OPEN_AT_VENUE: Final = frozenset((OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED, OrdStatus.FILLED, OrdStatus.DONE_FOR_DAY))
_CHANGE_OF_STATUS: Final[dict[OrdStatus, ReportKind]] = {OrdStatus.CANCELED: "canceled", OrdStatus.EXPIRED: "expired"}
_PENDING_STATUSES: Final = (OrdStatus.PENDING_CANCEL, OrdStatus.PENDING_REPLACE)
_CHANGE_OF_EXEC_TYPE: Final[dict[ExecType, ReportKind]] = {
    ExecType.TRADE: "trade",
    ExecType.TRADE_CANCEL: "bust",
    ExecType.TRADE_CORRECT: "correct",
}
_UNRELATED_EXEC_TYPES: Final = frozenset(
    {*TRADES, ExecType.DONE_FOR_DAY, ExecType.RESTATED, ExecType.STOPPED, ExecType.SUSPENDED, ExecType.CALCULATED}
)
"""Execution types that may arrive while a request is pending, without answering it."""
_CHANGE_OF_FIX_EXEC_TYPE: Final[dict[bytes, ReportKind]] = {
    b"0": "new",
    b"8": "rejected",
    b"F": "trade",
    b"1": "trade",
    b"2": "trade",
    b"5": "replaced",
    b"4": "canceled",
    b"C": "expired",
    b"H": "bust",
    b"G": "correct",
}
_CHANGE_OF_TRANS_TYPE: Final[dict[bytes, ReportKind | None]] = {b"1": "bust", b"2": "correct", b"3": None}
"""ExecTransType (20) of FIX 4.2: reports that are not new; None for status reports."""
_VALUE_MAX: Final = 2**53
_JOURNAL_TIME: Final = re.compile(rb'"time_ns":(\d{1,19})')
_FIX_TIME: Final = re.compile(rb"(?<!\d)52=(\d{8}-\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?")


class IncumbentReportError(ValueError):
    """A line about an order cannot be read; the message says why.

    `reports` holds the reports of the line that could be read.
    """

    def __init__(self, message: str, reports: Sequence[IncumbentReport] = ()) -> None:
        super().__init__(message)
        self.reports = list(reports)


class _IncumbentLineHead(msgspec.Struct, kw_only=True):
    subsystem: str = ""
    kind: str = ""
    time_ns: int = 0
    record: msgspec.Raw = msgspec.Raw(b"{}")


class _OrderMemory(msgspec.Struct, frozen=True):
    """The last journal state of an order: the pending request, whether the venue accepted it, whether it is filled."""

    status: OrdStatus = OrdStatus.PENDING_NEW
    exec_id: str = ""
    cl_ord_id: str = ""
    is_accepted: bool = False
    is_filled: bool = False


class IncumbentReaderState(msgspec.Struct, kw_only=True):
    """The state of the reader. `orders` is keyed by the first ClOrdID of a chain; the other fields belong to a FIX log.

    `roots` maps any ClOrdID to the first one of its chain, and `current` maps that one to the current ClOrdID.
    `pending_cancels` are orders whose cancel is pending; `reported_exec_ids` and `dated_exec_ids` are ExecIDs with
    dates.
    """

    orders: dict[str, _OrderMemory]
    roots: dict[str, str]
    current: dict[str, str]
    pending_cancels: dict[str, bool]
    reported_exec_ids: dict[str, bool]
    dated_exec_ids: dict[str, str]


def time_of_line(line: bytes) -> int:
    """Returns the time of a line (ns): its `time_ns` or SendingTime (52); 0 when it has none."""
    if line[:1] == b"{":
        match = _JOURNAL_TIME.search(line)
        return int(match[1]) if match else 0
    match = _FIX_TIME.search(line)
    if match is None:
        return 0
    try:
        seconds = datetime.strptime(match[1].decode(), "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0
    return int(seconds) * 1_000_000_000 + int((match[2] or b"").ljust(9, b"0"))


class IncumbentReader(Stateful[IncumbentReaderState]):
    """Reads lines. `to_bytes` and `restore_bytes` save and restore the state of the orders."""

    State = IncumbentReaderState
    DERIVED: ClassVar = {
        "_instruments": "configuration of the run",
        "_framing": "counts unverified messages of this run only; every line is complete",
        "_decode_head": "a function",
        "_decode_order": "a function",
        "_decode_execution": "a function",
    }

    def __init__(self, instruments: Mapping[str, Instrument]) -> None:
        self._instruments = instruments
        self._orders: dict[str, _OrderMemory] = {}
        self._roots: dict[str, str] = {}
        self._current: dict[str, str] = {}
        self._pending_cancels: dict[str, bool] = {}
        self._reported_exec_ids: dict[str, bool] = {}
        self._dated_exec_ids: dict[str, str] = {}
        self._framing = FixFramer()
        self._decode_head = msgspec.json.Decoder(_IncumbentLineHead).decode
        self._decode_order = msgspec.json.Decoder(Order).decode
        self._decode_execution = msgspec.json.Decoder(Execution).decode

    def read_line(self, line: bytes) -> list[IncumbentReport]:
        """Returns the reports of one line, in order; most lines have none. Raises `IncumbentReportError`."""
        reports: list[IncumbentReport] = []
        try:
            if line[:1] == b"{":
                return self._read_journal_line(line)
            problems = []
            for fields in self._framing.split_line(line):
                if isinstance(fields, str):
                    problems.append(fields)
                else:
                    reports += self._reports_of_message(fields, time_of_line(line))
        except (*DECODE_ERRORS, ValueError, ArithmeticError) as problem:
            raise IncumbentReportError(f"{_excerpt(line)}: {problem}", reports) from problem
        if problems and b"8=FIX" in line:  # other lines of such a log are not messages
            raise IncumbentReportError(f"{_excerpt(line)}: {problems[0]}", reports)
        return reports

    # -- a journal ------------------------------------------------------------------------------------------------

    def _read_journal_line(self, line: bytes) -> list[IncumbentReport]:
        if b'"subsystem":"orders"' not in line or b'"record":' not in line:
            return []
        head = self._decode_head(line)
        if head.kind == "Execution":
            return self._reports_of_execution(self._decode_execution(head.record), head.time_ns)
        return self._reports_of_order(self._decode_order(head.record), head.time_ns) if head.kind == "Order" else []

    def _reports_of_execution(self, execution: Execution, time_ns: int) -> list[IncumbentReport]:
        if (
            execution.foreign
            or execution.exec_type not in _CHANGE_OF_EXEC_TYPE
            or execution.symbol not in self._instruments
        ):
            return []
        return [
            IncumbentReport(
                kind=_CHANGE_OF_EXEC_TYPE[execution.exec_type],
                order=execution.root_cl_ord_id,
                account=execution.account,
                symbol=execution.symbol,
                side=execution.side.value,
                time_ns=time_ns,
                last_qty=_check_value(execution.last_qty),
                last_px=_check_value(execution.last_px),
                exec_id=f"{execution.trade_date}/{execution.exec_id}",
                exec_ref_id=f"{execution.exec_ref_date or execution.trade_date}/{execution.exec_ref_id}"
                if execution.exec_ref_id
                else "",
            )
        ]

    def _reports_of_order(self, order: Order, time_ns: int) -> list[IncumbentReport]:
        if order.foreign or order.symbol not in self._instruments:
            return []
        before = self._orders.get(order.key)
        if before is None and order.ord_status not in _OPEN_AT_VENUE and not order.is_pending:
            return []  # it was closed before the log begins
        # A filled order whose trade was busted or corrected is not a new order.
        is_correction = before is None and order.exec_type in (ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT)
        previous = before or _OrderMemory(cl_ord_id=order.cl_ord_id, is_accepted=is_correction)
        current = _next_memory(order, previous)
        changes = _changes_of(order, previous, current)
        if before is None and not is_correction:
            changes.insert(0, "sent")
        if order.is_open or order.is_pending:
            self._orders[order.key] = current
        else:
            self._orders.pop(order.key, None)
        return [
            IncumbentReport(
                kind=change,
                order=order.key,
                account=order.account,
                symbol=order.symbol,
                side=order.side.value,
                time_ns=time_ns,
                is_requested=change == "canceled" and previous.status == OrdStatus.PENDING_CANCEL,
            )
            for change in changes
        ]

    # -- a FIX log --------------------------------------------------------------------------------------------------

    def _reports_of_message(self, fields: FieldMap, time_ns: int) -> list[IncumbentReport]:
        kind, name, orig = (
            fields.get(tags.MSG_TYPE, b""),
            _text(fields, tags.CL_ORD_ID),
            _text(fields, tags.ORIG_CL_ORD_ID),
        )
        symbol = _text(fields, tags.SYMBOL)
        if kind not in (b"D", b"F", b"G", b"8", b"9") or not name:
            return []
        root = name if kind == b"D" else self._roots.get(orig) or self._roots.get(name) or orig or name
        is_known = root in self._current
        if symbol not in self._instruments if kind != b"9" else not is_known:
            return []
        self._roots[name] = self._roots[root] = root
        current = self._current.setdefault(root, root)
        changes: list[ReportKind] = [] if is_known else ["sent"]
        details: dict[str, Any] = {}
        if kind == b"F":
            self._pending_cancels[root] = True
        if kind == b"9":
            changes.append("refused")
            if fields.get(tags.CXL_REJ_RESPONSE_TO) != b"2":
                self._pending_cancels.pop(root, None)
        elif kind == b"8" and (report_change := self._change_of_report(fields)) is not None:
            changes.append(report_change)
            details = self._details_of(fields, report_change)
            if report_change in ("new", "replaced"):
                self._current[root] = name
            elif report_change == "canceled":
                # The report carries the cancel's own ClOrdID, as FIX says, or the order's, as some venues do.
                details["is_requested"] = name != current or root in self._pending_cancels
            if report_change in ("trade", "correct") and _is_filled(fields):
                changes.append("filled")
        base = IncumbentReport(
            kind="sent",
            order=root,
            account=_text(fields, tags.ACCOUNT),
            symbol=symbol,
            side=_text(fields, tags.SIDE),
            time_ns=time_ns,
        )
        return [
            msgspec.structs.replace(base, kind=change, **({} if change in ("sent", "filled") else details))
            for change in changes
        ]

    def _change_of_report(self, fields: FieldMap) -> ReportKind | None:
        """The new event in an execution report; None when it was reported before or carries no event that counts."""
        exec_id = f"{_date(fields)}/{_text(fields, tags.EXEC_ID)}"
        is_resent = fields.get(tags.POSS_DUP_FLAG) == b"Y" or fields.get(tags.POSS_RESEND) == b"Y"
        change = _CHANGE_OF_FIX_EXEC_TYPE.get(fields.get(tags.EXEC_TYPE, b""))
        if fields.get(tags.EXEC_TRANS_TYPE) in _CHANGE_OF_TRANS_TYPE:
            change = _CHANGE_OF_TRANS_TYPE[fields[tags.EXEC_TRANS_TYPE]]
        if change is None or (is_resent and exec_id in self._reported_exec_ids):
            return None
        self._reported_exec_ids[exec_id] = True
        return change

    def _details_of(self, fields: FieldMap, change: ReportKind) -> dict[str, Any]:
        details: dict[str, Any] = {"text": _text(fields, tags.TEXT)}
        if change in ("trade", "bust", "correct"):
            execs, exec_id, ref = (
                self._dated_exec_ids,
                _text(fields, tags.EXEC_ID),
                _text(fields, tags.EXEC_REF_ID),
            )
            date, ref_date = _date(fields), _text(fields, tags.EXEC_REF_DATE)
            if ref:
                details["exec_ref_id"] = f"{_iso(ref_date)}/{ref}" if ref_date else execs.get(ref, f"{date}/{ref}")
            execs[exec_id] = details["exec_id"] = f"{date}/{exec_id}"
        if change in ("trade", "correct"):
            instrument = self._instruments[_text(fields, tags.SYMBOL)]
            details["last_qty"] = _check_value(instrument.lots(Decimal(_text(fields, tags.LAST_QTY) or "0")))
            details["last_px"] = _check_value(instrument.ticks(Decimal(_text(fields, tags.LAST_PX) or "0")))
        return details


def _next_memory(order: Order, previous: _OrderMemory) -> _OrderMemory:
    """The state of an order after one more journal record."""
    status, exec_type = order.ord_status, order.exec_type
    # A fill that crosses a pending request does not answer it, whatever status it carries.
    waits = (
        previous.status in _PENDING_STATUSES
        and order.is_open
        and exec_type in _UNRELATED_EXEC_TYPES
        and order.exec_id != previous.exec_id
    )
    return _OrderMemory(
        status=previous.status if waits else status,
        exec_id=order.exec_id,
        cl_ord_id=order.cl_ord_id,
        is_accepted=previous.is_accepted
        or status in _OPEN_AT_VENUE
        or bool(order.order_id)
        or exec_type not in (None, ExecType.REJECTED),
        is_filled=order.cum_qty > 0 and order.cum_qty >= order.order_qty,
    )


def _changes_of(order: Order, previous: _OrderMemory, current: _OrderMemory) -> list[ReportKind]:
    """The changes of an order between two of its records, without fills."""
    status = order.ord_status
    if status == OrdStatus.REJECTED:
        return ["rejected"]
    changes: list[ReportKind] = ["new"] if current.is_accepted and not previous.is_accepted else []
    replaced = order.exec_type == ExecType.REPLACED and order.exec_id != previous.exec_id
    if previous.is_accepted and (replaced or order.cl_ord_id != previous.cl_ord_id):
        changes.append("replaced")
    elif (
        previous.status in _PENDING_STATUSES
        and current.status in _OPEN_AT_VENUE
        and order.exec_type not in _UNRELATED_EXEC_TYPES
    ):
        changes.append("refused")
    if status in _CHANGE_OF_STATUS:
        changes.append(_CHANGE_OF_STATUS[status])
    elif current.is_filled and not previous.is_filled:
        changes.append("filled")
    return changes


def _is_filled(fields: FieldMap) -> bool:
    """Whether no quantity is left; a pending request has its own OrdStatus (39), which hides that the order is
    filled.
    """
    status = fields.get(tags.ORD_STATUS, b"")
    return status == b"2" or (status in (b"6", b"E") and not Decimal(_text(fields, tags.LEAVES_QTY) or "1"))


def _date(fields: FieldMap) -> str:
    """The trade date of a report, else the date on which it happened or was sent."""
    return _iso(
        _text(fields, tags.TRADE_DATE) or _text(fields, tags.TRANSACT_TIME)[:8] or _text(fields, tags.SENDING_TIME)[:8]
    )


def _iso(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date


def _check_value(value: int) -> int:
    if abs(value) > _VALUE_MAX:
        raise ValueError(f"{value} is no quantity or price that anybody trades")
    return value


def _text(fields: FieldMap, tag: bytes) -> str:
    return fields.get(tag, b"").decode("utf-8", "replace")


def _excerpt(line: bytes) -> str:
    return line[:80].decode("utf-8", "replace").strip()
