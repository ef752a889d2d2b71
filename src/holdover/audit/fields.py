"""The fields of an execution report in the terms of FIX 4.4, whichever version it was written in.

FIX 4.2 says with ExecTransType (20) what a report does (new, cancel, correct, status) and with ExecType (150) 1 and 2
that it is a fill; its OrdStatus (39) 5, replaced, is what a later FIX calls new or partially filled. LastShares (32)
has become LastQty. FIX 5.0 speaks as 4.4 does.
"""

from __future__ import annotations

from typing import Final

from holdover.audit.framing import Fields
from holdover.audit.units import Units
from holdover.model import ExecRestatementReason, ExecType, OrdStatus, Side, TimeInForce


class BadReport(ValueError):
    """A message that lacks what it must have, or has what FIX does not know; it says which field."""


class Report:
    """One execution report. Quantities in lots, prices in ticks; None where a field is not there.

    `unmodelled` marks an ExecType that says something other than an order's state, `unknown` the answer that there is
    no such order, `duplicate` the refusal of a ClOrdID that was there before.
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
    **{str(one.value).encode(): one for one in ExecType},
    b"1": ExecType.TRADE,
    b"2": ExecType.TRADE,
}
_TRANSACTIONS: Final = {b"1": ExecType.TRADE_CANCEL, b"2": ExecType.TRADE_CORRECT, b"3": ExecType.ORDER_STATUS}
_LATER: Final = frozenset((b"J", b"K", b"L", b"M", b"N", b"P", b"Q", b"R", b"S"))
"""ExecTypes of FIX 5.0 that tell of something beside the order's state: clearing, triggers, locks."""
_STATUSES: Final = {str(one.value).encode(): one for one in OrdStatus}
_TIFS: Final = {str(one.value).encode(): one for one in TimeInForce}
_SIDES: Final = dict.fromkeys((b"2", b"4", b"6"), Side.SELL) | {b"1": Side.BUY, b"3": Side.BUY, b"5": Side.SELL_SHORT}
_REASONS: Final = {str(one.value).encode(): one for one in ExecRestatementReason}


def text(fields: Fields, tag: bytes) -> str:
    """A field as text; empty when it is not there."""
    found = fields.get(tag)
    return found.decode("utf-8", "backslashreplace") if found is not None else ""


def side_of(told: bytes | None) -> Side:
    """Side (54) as far as it says which way a position moves."""
    return _SIDES.get(told or b"1", Side.BUY)


def tif_of(told: bytes | None) -> TimeInForce | None:
    """TimeInForce (59); what FIX knows beside the model's (at the open, at the close, ...) ends with its day."""
    return None if told is None else _TIFS.get(told, TimeInForce.DAY)


def read_report(fields: Fields, units: Units) -> Report:
    """An execution report. Raises `BadReport`, `NoNumber`, or `Finer` when the units do not carry its amounts."""
    get = fields.get
    report = Report()
    report.exec_type, report.unmodelled = _exec_type(get(b"20"), get(b"150"))
    quantity, leaves = get(b"38"), get(b"151")
    cum, last_qty, last_px = get(b"14"), get(b"32"), get(b"31")
    if cum is None:
        raise BadReport("there is no CumQty (14)")
    lots = units.lots
    report.order_qty = lots(quantity) if quantity else None
    report.cum_qty = lots(cum)
    report.leaves_qty = lots(leaves) if leaves else None
    report.last_qty = lots(last_qty) if last_qty else None
    report.last_px = units.ticks(last_px) if last_px else None
    report.status = _status(get(b"39"), report)
    report.exec_id = text(fields, b"17")
    report.exec_ref_id = text(fields, b"19")
    report.avg_px = get(b"6", b"")
    reason = get(b"378")
    report.reason = None if reason is None else _REASONS.get(reason, ExecRestatementReason.OTHER)
    report.side = side_of(get(b"54"))
    report.tif = tif_of(get(b"59"))
    date = get(b"75")
    report.trade_date = _iso(date) if date is not None else ""
    report.resent = get(b"97") == b"Y"
    rejected = report.status == OrdStatus.REJECTED
    report.unknown = rejected and report.exec_type == ExecType.ORDER_STATUS
    report.duplicate = rejected and get(b"103") == b"6"
    return report


def _iso(date: bytes) -> str:
    told = date.decode("ascii", "replace")
    return f"{told[:4]}-{told[4:6]}-{told[6:]}" if len(told) == 8 and told.isdigit() else ""


def _exec_type(transaction: bytes | None, told: bytes | None) -> tuple[ExecType, bool]:
    found = _TRANSACTIONS.get(transaction) if transaction is not None else None
    if found is not None:
        return found, False
    if told is None:
        raise BadReport("there is no ExecType (150)")
    found = _EXEC_TYPES.get(told)
    if found is not None:
        return found, False
    if told in _LATER:
        return ExecType.RESTATED, True
    raise BadReport(f"ExecType (150) is {told[:20].decode('utf-8', 'replace')!r}, which FIX does not know")


def _status(told: bytes | None, report: Report) -> OrdStatus:
    if told is None:
        raise BadReport("there is no OrdStatus (39)")
    found = _STATUSES.get(told)
    if found is None:
        raise BadReport(f"OrdStatus (39) is {told[:20].decode('utf-8', 'replace')!r}, which FIX does not know")
    if found != OrdStatus.REPLACED:
        return found
    if not report.cum_qty:
        return OrdStatus.NEW
    whole = report.order_qty if report.order_qty is not None else report.cum_qty + (report.leaves_qty or 0)
    return OrdStatus.FILLED if report.cum_qty == whole else OrdStatus.PARTIALLY_FILLED
