"""What the incumbent was told of its orders, line by line: from its guard's journal, or from its FIX log.

A journal tells it by the executions that were booked and by how an order's status moved; a FIX log by the reports
themselves. Quantities and prices come out in lots and ticks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from holdover.audit.framing import Fields, Framing
from holdover.model import TRADES, ExecType, Execution, Instrument, Order, OrdStatus
from holdover.world import Reported
from holdover.world.mirror import What

_OPEN_AT_VENUE: Final = frozenset((OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED, OrdStatus.FILLED, OrdStatus.DONE_FOR_DAY))
_ENDS: Final[dict[OrdStatus, What]] = {OrdStatus.CANCELED: "canceled", OrdStatus.EXPIRED: "expired"}
_ASKED: Final = (OrdStatus.PENDING_CANCEL, OrdStatus.PENDING_REPLACE)
_BOOKED: Final[dict[ExecType, What]] = {
    ExecType.TRADE: "trade",
    ExecType.TRADE_CANCEL: "bust",
    ExecType.TRADE_CORRECT: "correct",
}
_PASSING: Final = frozenset(
    {*TRADES, ExecType.DONE_FOR_DAY, ExecType.RESTATED, ExecType.STOPPED, ExecType.SUSPENDED, ExecType.CALCULATED}
)
"""What may be told of an order while a request for it waits, and answers none."""
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
_TRANSACTED: Final[dict[bytes, What | None]] = {b"1": "bust", b"2": "correct", b"3": None}
"""ExecTransType (20) of FIX 4.2: what is no report of something new."""
_MOST: Final = 2**53
_JOURNAL_TIME: Final = re.compile(rb'"time_ns":(\d{1,19})')
_FIX_TIME: Final = re.compile(rb"(?<!\d)52=(\d{8}-\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?")


class BadReport(ValueError):
    """A line that should tell of an order and cannot be read; the message says what is wrong with it.

    `reports` is what the line told beside that.
    """

    def __init__(self, told: str, reports: Sequence[Reported] = ()) -> None:
        super().__init__(told)
        self.reports = list(reports)


class _Head(msgspec.Struct, kw_only=True):
    subsystem: str = ""
    kind: str = ""
    time_ns: int = 0
    record: msgspec.Raw = msgspec.Raw(b"{}")


class _Seen(msgspec.Struct, array_like=True):
    """An order as a journal told it last: which request waits, whether the venue has taken it, whether it is filled."""

    status: OrdStatus = OrdStatus.PENDING_NEW
    exec_id: str = ""
    cl_ord_id: str = ""
    taken: bool = False
    filled: bool = False


class _Memory(msgspec.Struct, kw_only=True):
    """`orders` by the ClOrdID with which a chain began. The rest is of a FIX log.

    `roots` leads from any ClOrdID to the one with which its chain began, `current` from that to the one that stands;
    `asking` are those whose cancel waits, `seen` and `execs` are ExecIDs with their date.
    """

    orders: dict[str, _Seen] = {}
    roots: dict[str, str] = {}
    current: dict[str, str] = {}
    asking: dict[str, bool] = {}
    seen: dict[str, bool] = {}
    execs: dict[str, str] = {}


def told_at(line: bytes) -> int:
    """When a line says that it was told (ns): by its `time_ns`, or its SendingTime (52). 0 when it does not say."""
    if line[:1] == b"{":
        found = _JOURNAL_TIME.search(line)
        return int(found[1]) if found else 0
    found = _FIX_TIME.search(line)
    if found is None:
        return 0
    try:
        seconds = datetime.strptime(found[1].decode(), "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0
    return int(seconds) * 1_000_000_000 + int((found[2] or b"").ljust(9, b"0"))


class Incumbent:
    """Reads lines. `dump` and `load` keep what it knows of the orders."""

    def __init__(self, instruments: Mapping[str, Instrument]) -> None:
        self._instruments = instruments
        self._memory = _Memory()
        self._framing = Framing()
        self._head = msgspec.json.Decoder(_Head).decode
        self._order = msgspec.json.Decoder(Order).decode
        self._execution = msgspec.json.Decoder(Execution).decode

    def line(self, line: bytes) -> list[Reported]:
        """What one line tells, in its order; most tell nothing. Raises `BadReport`."""
        found: list[Reported] = []
        try:
            if line[:1] == b"{":
                return self._journal(line)
            problems = []
            for fields in self._framing.take(line):
                if isinstance(fields, str):
                    problems.append(fields)
                else:
                    found += self._fix(fields, told_at(line))
        except (msgspec.MsgspecError, ValueError, ArithmeticError) as problem:
            raise BadReport(f"{_shown(line)}: {problem}", found) from problem
        if problems and b"8=FIX" in line:  # anything else in such a log is no message
            raise BadReport(f"{_shown(line)}: {problems[0]}", found)
        return found

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
        if told.foreign or told.exec_type not in _BOOKED or told.symbol not in self._instruments:
            return []
        return [
            Reported(
                what=_BOOKED[told.exec_type],
                order=told.root_cl_ord_id,
                account=told.account,
                symbol=told.symbol,
                side=told.side.value,
                time_ns=time_ns,
                last_qty=_bounded(told.last_qty),
                last_px=_bounded(told.last_px),
                exec_id=f"{told.trade_date}/{told.exec_id}",
                exec_ref_id=f"{told.exec_ref_date or told.trade_date}/{told.exec_ref_id}" if told.exec_ref_id else "",
            )
        ]

    def _moved(self, order: Order, time_ns: int) -> list[Reported]:
        if order.foreign or order.symbol not in self._instruments:
            return []
        before = self._memory.orders.get(order.key)
        if before is None and order.ord_status not in _OPEN_AT_VENUE and not order.is_pending:
            return []  # it was over before anybody looked
        # One that was filled, and of which a trade has been taken back or corrected, is no new order.
        again = before is None and order.exec_type in (ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT)
        was = before or _Seen(cl_ord_id=order.cl_ord_id, taken=again)
        now = _seen(order, was)
        what = _told(order, was, now)
        if before is None and not again:
            what.insert(0, "sent")
        if order.is_open or order.is_pending:
            self._memory.orders[order.key] = now
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
                asked=one == "canceled" and was.status == OrdStatus.PENDING_CANCEL,
            )
            for one in what
        ]

    # -- a FIX log --------------------------------------------------------------------------------------------------

    def _fix(self, fields: Fields, time_ns: int) -> list[Reported]:
        kind, name, orig = fields.get(b"35", b""), _text(fields, b"11"), _text(fields, b"41")
        memory, symbol = self._memory, _text(fields, b"55")
        if kind not in (b"D", b"F", b"G", b"8", b"9") or not name:
            return []
        root = name if kind == b"D" else memory.roots.get(orig) or memory.roots.get(name) or orig or name
        known = root in memory.current
        if symbol not in self._instruments if kind != b"9" else not known:
            return []
        memory.roots[name] = memory.roots[root] = root
        current = memory.current.setdefault(root, root)
        what: list[What] = [] if known else ["sent"]
        more: dict[str, Any] = {}
        if kind == b"F":
            memory.asking[root] = True
        if kind == b"9":
            what.append("refused")
            if fields.get(b"434") != b"2":
                memory.asking.pop(root, None)
        elif kind == b"8" and (told := self._reported(fields)) is not None:
            what.append(told)
            more = self._more(fields, told)
            if told in ("new", "replaced"):
                memory.current[root] = name
            elif told == "canceled":
                # By its own ClOrdID, as FIX has it; or by the order's, where the venue gives that back.
                more["asked"] = name != current or root in memory.asking
            if told in ("trade", "correct") and _is_filled(fields):
                what.append("filled")
        base = Reported(
            what="sent",
            order=root,
            account=_text(fields, b"1"),
            symbol=symbol,
            side=_text(fields, b"54"),
            time_ns=time_ns,
        )
        return [msgspec.structs.replace(base, what=one, **({} if one in ("sent", "filled") else more)) for one in what]

    def _reported(self, fields: Fields) -> What | None:
        """What an execution report says that is new; None for one that was told before, or says nothing that counts."""
        exec_id = f"{_date(fields)}/{_text(fields, b'17')}"
        again = fields.get(b"43") == b"Y" or fields.get(b"97") == b"Y"
        what = _FIX.get(fields.get(b"150", b""))
        if fields.get(b"20") in _TRANSACTED:
            what = _TRANSACTED[fields[b"20"]]
        if what is None or (again and exec_id in self._memory.seen):
            return None
        self._memory.seen[exec_id] = True
        return what

    def _more(self, fields: Fields, what: What) -> dict[str, Any]:
        more: dict[str, Any] = {"text": _text(fields, b"58")}
        if what in ("trade", "bust", "correct"):
            execs, exec_id, ref = self._memory.execs, _text(fields, b"17"), _text(fields, b"19")
            date, ref_date = _date(fields), _text(fields, b"9001")
            if ref:
                more["exec_ref_id"] = f"{_iso(ref_date)}/{ref}" if ref_date else execs.get(ref, f"{date}/{ref}")
            execs[exec_id] = more["exec_id"] = f"{date}/{exec_id}"
        if what in ("trade", "correct"):
            one = self._instruments[_text(fields, b"55")]
            more["last_qty"] = _bounded(one.lots(Decimal(_text(fields, b"32") or "0")))
            more["last_px"] = _bounded(one.ticks(Decimal(_text(fields, b"31") or "0")))
        return more


def _seen(order: Order, was: _Seen) -> _Seen:
    """How an order stands after what was told of it now."""
    status, exec_type = order.ord_status, order.exec_type
    # A fill that crosses a request is no answer to it, whatever status is told with it.
    waits = was.status in _ASKED and order.is_open and exec_type in _PASSING and order.exec_id != was.exec_id
    return _Seen(
        status=was.status if waits else status,
        exec_id=order.exec_id,
        cl_ord_id=order.cl_ord_id,
        taken=was.taken
        or status in _OPEN_AT_VENUE
        or bool(order.order_id)
        or exec_type not in (None, ExecType.REJECTED),
        filled=order.cum_qty > 0 and order.cum_qty >= order.order_qty,
    )


def _told(order: Order, was: _Seen, now: _Seen) -> list[What]:
    """What has become of an order between two of its records, fills left out."""
    status = order.ord_status
    if status == OrdStatus.REJECTED:
        return ["rejected"]
    what: list[What] = ["new"] if now.taken and not was.taken else []
    replaced = order.exec_type == ExecType.REPLACED and order.exec_id != was.exec_id
    if was.taken and (replaced or order.cl_ord_id != was.cl_ord_id):
        what.append("replaced")
    elif was.status in _ASKED and now.status in _OPEN_AT_VENUE and order.exec_type not in _PASSING:
        what.append("refused")
    if status in _ENDS:
        what.append(_ENDS[status])
    elif now.filled and not was.filled:
        what.append("filled")
    return what


def _is_filled(fields: Fields) -> bool:
    """Whether nothing is left: a request that waits has its own OrdStatus (39), and hides that it is filled."""
    status = fields.get(b"39", b"")
    return status == b"2" or (status in (b"6", b"E") and not Decimal(_text(fields, b"151") or "1"))


def _date(fields: Fields) -> str:
    """The trade date of a report, or the day on which it happened or was sent."""
    return _iso(_text(fields, b"75") or _text(fields, b"60")[:8] or _text(fields, b"52")[:8])


def _iso(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else date


def _bounded(value: int) -> int:
    if abs(value) > _MOST:
        raise ValueError(f"{value} is no quantity or price that anybody trades")
    return value


def _text(fields: Fields, tag: bytes) -> str:
    return fields.get(tag, b"").decode("utf-8", "replace")


def _shown(line: bytes) -> str:
    return line[:80].decode("utf-8", "replace").strip()
