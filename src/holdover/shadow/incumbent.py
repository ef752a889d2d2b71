"""What the incumbent was told of its orders, line by line: from its guard's journal, or from its FIX log.

A journal tells it by the executions that were booked and by how an order's status moved; a FIX log by the reports
themselves. Quantities and prices come out in lots and ticks.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec

from holdover.audit.framing import Fields, Framing
from holdover.model import ExecType, Execution, Instrument, MsgType, Order, OrdStatus
from holdover.world import Reported
from holdover.world.mirror import What

_OPEN_AT_VENUE: Final = frozenset((OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED, OrdStatus.FILLED, OrdStatus.DONE_FOR_DAY))
_ENDS: Final[dict[OrdStatus, What]] = {OrdStatus.CANCELED: "canceled", OrdStatus.EXPIRED: "expired"}
_ASKED: Final = (OrdStatus.PENDING_CANCEL, OrdStatus.PENDING_REPLACE)
_FIX: Final[dict[bytes, What]] = {
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


class BadReport(ValueError):
    """A line that should tell of an order and cannot be read; the message says what is wrong with it."""


class _Head(msgspec.Struct, kw_only=True):
    subsystem: str = ""
    kind: str = ""
    time_ns: int = 0
    record: msgspec.Raw = msgspec.Raw(b"{}")


class _Memory(msgspec.Struct, kw_only=True):
    """By ClOrdID with which a chain began: the status that was last told, and by which execution."""

    orders: dict[str, tuple[OrdStatus, str]] = {}
    roots: dict[str, str] = {}
    seen: set[str] = set()


class Incumbent:
    """Reads lines. `dump` and `load` keep what it knows of open orders."""

    def __init__(self, instruments: Mapping[str, Instrument]) -> None:
        self._instruments = instruments
        self._memory = _Memory()
        self._framing = Framing()
        self._head = msgspec.json.Decoder(_Head).decode
        self._order = msgspec.json.Decoder(Order).decode
        self._execution = msgspec.json.Decoder(Execution).decode

    def line(self, line: bytes) -> list[Reported]:
        """What one line tells, in its order; most tell nothing. Raises `BadReport`."""
        try:
            if line[:1] == b"{":
                return self._journal(line)
            return [one for fields in self._framing.take(line) if isinstance(fields, dict) for one in self._fix(fields)]
        except (msgspec.MsgspecError, ValueError, ArithmeticError) as problem:
            raise BadReport(f"{line[:80].decode('utf-8', 'replace').strip()}: {problem}") from problem

    def dump(self) -> bytes:
        """What it knows."""
        return msgspec.msgpack.encode(self._memory)

    def load(self, memory: bytes) -> None:
        """Take up what `dump` gave. Raises `msgspec.MsgspecError`."""
        self._memory = msgspec.msgpack.decode(memory, type=_Memory)

    # -- a journal ------------------------------------------------------------------------------------------------

    def _journal(self, line: bytes) -> list[Reported]:
        if b'"subsystem":"orders"' not in line or b'"record":' not in line:
            return []
        head = self._head(line)
        if head.kind == "Execution":
            return self._booked(self._execution(head.record), head.time_ns)
        return self._moved(self._order(head.record), head.time_ns) if head.kind == "Order" else []

    def _booked(self, told: Execution, time_ns: int) -> list[Reported]:
        what: dict[ExecType, What] = {
            ExecType.TRADE: "trade",
            ExecType.TRADE_CANCEL: "bust",
            ExecType.TRADE_CORRECT: "correct",
        }
        if told.foreign or told.exec_type not in what or told.symbol not in self._instruments:
            return []
        return [
            Reported(
                what=what[told.exec_type],
                order=told.root_cl_ord_id,
                account=told.account,
                symbol=told.symbol,
                side=told.side.value,
                time_ns=time_ns,
                last_qty=told.last_qty,
                last_px=told.last_px,
                exec_id=f"{told.trade_date}/{told.exec_id}",
                exec_ref_id=f"{told.exec_ref_date or told.trade_date}/{told.exec_ref_id}" if told.exec_ref_id else "",
            )
        ]

    def _moved(self, order: Order, time_ns: int) -> list[Reported]:
        if order.foreign or order.symbol not in self._instruments:
            return []
        status, exec_id = order.ord_status, order.exec_id
        before = self._memory.orders.get(order.key)
        what: list[What] = [] if before is not None else ["sent"]
        was, was_exec = before or (OrdStatus.PENDING_NEW, "")
        if status == OrdStatus.REJECTED:
            what.append("rejected")
        elif was == OrdStatus.PENDING_NEW and status != OrdStatus.PENDING_NEW:
            what.append("new")
        elif order.exec_type == ExecType.REPLACED and exec_id != was_exec:
            what.append("replaced")
        elif was in _ASKED and status in _OPEN_AT_VENUE and status != OrdStatus.FILLED:
            what.append("refused")
        if status in _ENDS:
            what.append(_ENDS[status])
        if order.is_open or order.is_pending:
            self._memory.orders[order.key] = (status, exec_id)
        elif before is None and status not in _OPEN_AT_VENUE:
            return []  # it was over before anybody looked
        else:
            self._memory.orders.pop(order.key, None)
        return [
            Reported(
                what=one,
                order=order.key,
                account=order.account,
                symbol=order.symbol,
                side=order.side.value,
                time_ns=time_ns,
                asked=was == OrdStatus.PENDING_CANCEL,
            )
            for one in what
        ]

    # -- a FIX log --------------------------------------------------------------------------------------------------

    def _fix(self, fields: Fields) -> list[Reported]:
        kind, name, orig = fields.get(b"35", b""), _text(fields, b"11"), _text(fields, b"41")
        symbol, memory = _text(fields, b"55"), self._memory
        if kind not in (b"D", b"F", b"G", b"8", b"9") or not name:
            return []
        root = memory.roots.get(name) or memory.roots.get(orig) or orig or name
        memory.roots[name] = root
        if kind in (b"F", b"G"):
            return []
        exec_type, exec_id = fields.get(b"150", b""), _text(fields, b"17")
        if kind == b"8":
            if fields.get(b"43") == b"Y" and exec_id in memory.seen:
                return []
            memory.seen.add(exec_id)
        what: What | None = "sent" if kind == b"D" else "refused" if kind == b"9" else _FIX.get(exec_type)
        if what is None or (kind == b"8" and symbol not in self._instruments):
            return []
        traded = what in ("trade", "correct")
        if kind == MsgType.EXECUTION_REPORT.encode() and fields.get(b"39") in (b"2", b"4", b"8", b"C"):
            memory.roots = {one: its for one, its in memory.roots.items() if its != root}
        one = self._instruments[symbol] if traded else None
        return [
            Reported(
                what=what,
                order=root,
                account=_text(fields, b"1"),
                symbol=symbol,
                side=_text(fields, b"54"),
                last_qty=one.lots(Decimal(_text(fields, b"32") or "0")) if one else 0,
                last_px=one.ticks(Decimal(_text(fields, b"31") or "0")) if one else 0,
                exec_id=exec_id,
                exec_ref_id=_text(fields, b"19"),
                asked=bool(orig),
                text=_text(fields, b"58"),
            )
        ]


def _text(fields: Fields, tag: bytes) -> str:
    return fields.get(tag, b"").decode("utf-8", "replace")
