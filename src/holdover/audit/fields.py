"""Fields of an execution report in the terms of FIX 4.4, for every version.

FIX 4.2 states the purpose of a report in ExecTransType (20) (new, cancel, correct, status), marks fills with
ExecType (150) 1 and 2, and uses OrdStatus (39) 5, replaced, where later versions report new or partially
filled. LastShares (32) became LastQty. FIX 5.0 uses the terms of 4.4.
"""

from __future__ import annotations

from typing import Final

from holdover.audit.framing import FieldMap
from holdover.audit.tags import (
    AVG_PX,
    CUM_QTY,
    EXEC_ID,
    EXEC_REF_ID,
    EXEC_RESTATEMENT_REASON,
    EXEC_TRANS_TYPE,
    EXEC_TYPE,
    LAST_PX,
    LAST_QTY,
    LEAVES_QTY,
    ORD_REJ_REASON,
    ORD_STATUS,
    ORDER_QTY,
    POSS_RESEND,
    SIDE,
    TIME_IN_FORCE,
    TRADE_DATE,
)
from holdover.audit.units import Units
from holdover.model import ExecRestatementReason, ExecType, OrdStatus, Side, TimeInForce


class ReportError(ValueError):
    """A message lacks a required field or has a value that FIX does not define; the error names the field."""


class ParsedReport:
    """One execution report. Quantities in lots, prices in ticks; None for an absent field.

    `unmodelled` marks an ExecType about something other than the order's state, `unknown` the answer that no such
    order exists, `duplicate` the rejection of a reused ClOrdID.
    """

    __slots__ = (
        "avg_px",
        "cum_qty",
        "duplicate",
        "exec_id",
        "exec_ref_id",
        "exec_type",
        "last_px",
        "last_qty",
        "leaves_qty",
        "order_qty",
        "reason",
        "resent",
        "side",
        "status",
        "tif",
        "trade_date",
        "unknown",
        "unmodelled",
    )

    avg_px: bytes
    cum_qty: int
    duplicate: bool
    exec_id: str
    exec_ref_id: str
    exec_type: ExecType
    last_px: int | None
    last_qty: int | None
    leaves_qty: int | None
    order_qty: int | None
    reason: ExecRestatementReason | None
    resent: bool
    side: Side
    status: OrdStatus
    tif: TimeInForce | None
    trade_date: str
    unknown: bool
    unmodelled: bool


_EXEC_TYPES: Final[dict[bytes, ExecType]] = {
    **{str(exec_type.value).encode(): exec_type for exec_type in ExecType},
    b"1": ExecType.TRADE,
    b"2": ExecType.TRADE,
}
_TRANSACTIONS: Final = {b"1": ExecType.TRADE_CANCEL, b"2": ExecType.TRADE_CORRECT, b"3": ExecType.ORDER_STATUS}
_UNMODELLED_EXEC_TYPES: Final = frozenset((b"J", b"K", b"L", b"M", b"N", b"P", b"Q", b"R", b"S"))
"""ExecTypes of FIX 5.0 that report something other than the order's state: clearing, triggers, locks."""
_STATUSES: Final = {str(status.value).encode(): status for status in OrdStatus}
_TIFS: Final = {str(tif.value).encode(): tif for tif in TimeInForce}
_SIDES: Final = dict.fromkeys((b"2", b"4", b"6"), Side.SELL) | {b"1": Side.BUY, b"3": Side.BUY, b"5": Side.SELL_SHORT}
_REASONS: Final = {str(reason.value).encode(): reason for reason in ExecRestatementReason}


def field_text(fields: FieldMap, tag: bytes) -> str:
    """Return a field as text; empty when it is absent."""
    value = fields.get(tag)
    return value.decode("utf-8", "backslashreplace") if value is not None else ""


def parse_side(code: bytes | None) -> Side:
    """Parse Side (54), reduced to the direction in which it moves a position."""
    return _SIDES.get(code or b"1", Side.BUY)


def parse_time_in_force(code: bytes | None) -> TimeInForce | None:
    """Parse TimeInForce (59); values that the model lacks (at the open, at the close, ...) end with their day."""
    return None if code is None else _TIFS.get(code, TimeInForce.DAY)


def read_report(fields: FieldMap, units: Units) -> ParsedReport:
    """Parse an execution report.

    Raises `ReportError`, `NumberError`, or `FinerUnitsError` when an amount has more decimals than the units.
    """
    get = fields.get
    report = ParsedReport()
    report.exec_type, report.unmodelled = _parse_exec_type(get(EXEC_TRANS_TYPE), get(EXEC_TYPE))
    quantity, leaves = get(ORDER_QTY), get(LEAVES_QTY)
    cum, last_qty, last_px = get(CUM_QTY), get(LAST_QTY), get(LAST_PX)
    if cum is None:
        raise ReportError("there is no CumQty (14)")
    lots = units.lots
    report.order_qty = lots(quantity) if quantity else None
    report.cum_qty = lots(cum)
    report.leaves_qty = lots(leaves) if leaves else None
    report.last_qty = lots(last_qty) if last_qty else None
    report.last_px = units.ticks(last_px) if last_px else None
    report.status = _parse_status(get(ORD_STATUS), report)
    report.exec_id = field_text(fields, EXEC_ID)
    report.exec_ref_id = field_text(fields, EXEC_REF_ID)
    report.avg_px = get(AVG_PX, b"")
    reason = get(EXEC_RESTATEMENT_REASON)
    report.reason = None if reason is None else _REASONS.get(reason, ExecRestatementReason.OTHER)
    report.side = parse_side(get(SIDE))
    report.tif = parse_time_in_force(get(TIME_IN_FORCE))
    date = get(TRADE_DATE)
    report.trade_date = _iso_date(date) if date is not None else ""
    report.resent = get(POSS_RESEND) == b"Y"
    rejected = report.status == OrdStatus.REJECTED
    report.unknown = rejected and report.exec_type == ExecType.ORDER_STATUS
    report.duplicate = rejected and get(ORD_REJ_REASON) == b"6"
    return report


def _iso_date(date: bytes) -> str:
    digits = date.decode("ascii", "replace")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if len(digits) == 8 and digits.isdigit() else ""


def _parse_exec_type(transaction: bytes | None, code: bytes | None) -> tuple[ExecType, bool]:
    exec_type = _TRANSACTIONS.get(transaction) if transaction is not None else None
    if exec_type is not None:
        return exec_type, False
    if code is None:
        raise ReportError("there is no ExecType (150)")
    exec_type = _EXEC_TYPES.get(code)
    if exec_type is not None:
        return exec_type, False
    if code in _UNMODELLED_EXEC_TYPES:
        return ExecType.RESTATED, True
    raise ReportError(f"ExecType (150) is {code[:20].decode('utf-8', 'replace')!r}, which FIX does not know")


def _parse_status(code: bytes | None, report: ParsedReport) -> OrdStatus:
    if code is None:
        raise ReportError("there is no OrdStatus (39)")
    status = _STATUSES.get(code)
    if status is None:
        raise ReportError(f"OrdStatus (39) is {code[:20].decode('utf-8', 'replace')!r}, which FIX does not know")
    if status != OrdStatus.REPLACED:
        return status
    if not report.cum_qty:
        return OrdStatus.NEW
    whole = report.order_qty if report.order_qty is not None else report.cum_qty + (report.leaves_qty or 0)
    return OrdStatus.FILLED if report.cum_qty == whole else OrdStatus.PARTIALLY_FILLED
