"""What the order messages of a log say, as records for the monitor: FIX 4.2, 4.4 and 5.0 in the terms of 4.4.

What a report states is recorded as it stands, right or wrong: judging it is the catalogue's business. What a log does
not hold is not held against it. An order that began before the log is taken up with what it had filled by then; a
report behind a gap of the log's own begins the order anew where it does not follow from the last one; a correction of
an execution from before the log moves CumQty (14) by what is told.
"""

from __future__ import annotations

from typing import Final, TypeVar

from msgspec.structs import replace

from holdover.audit.fields import BadReport, Report, read_report, side_of, text, tif_of
from holdover.audit.sessions import Message, Sessions
from holdover.audit.units import Finer, NoNumber, Units, parts
from holdover.catalogue.predicates.lifecycle import legal_after
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
from holdover.runtime.layout import Touched

_REQUESTS: Final = {
    b"D": MsgType.NEW_ORDER_SINGLE,
    b"F": MsgType.ORDER_CANCEL_REQUEST,
    b"G": MsgType.ORDER_CANCEL_REPLACE_REQUEST,
}
_UNNAMED: Final = frozenset(("", "0", "NONE", "none", "N/A", "UNKNOWN"))
"""What stands in ExecID (17) and OrderID (37) where there is none."""
_BEGINS: Final = frozenset((ExecType.NEW, ExecType.PENDING_NEW, ExecType.REJECTED))
_OWNER: Final = "log"
_CARRIED: Final = (TimeInForce.GTC, TimeInForce.GTD)
_FLOAT: Final = 1_000_000
"""An AvgPx that went through a float and was printed with six digits or more is as near as one in so many."""


class Life:
    """One order from its first message on: its last record, its names, its executions.

    `whole` says that the log holds it from its beginning, `priced` that every trade came with its LastPx (31).
    `standing` leads from an execution that was corrected to the one that stands in its place.
    """

    __slots__ = (
        "day",
        "executions",
        "gaps",
        "key",
        "names",
        "notional",
        "order",
        "place",
        "priced",
        "requested",
        "session",
        "standing",
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
        self.standing: dict[str, str] = {}
        self.tif: TimeInForce | None = None
        self.whole = True
        self.priced = True
        self.requested = False
        self.unsure = False
        self.gaps = 0
        self.notional = 0
        self.place = -1
        self.day = ""


class Orders:
    """Turns order messages into records of `gateway` and `orders` and has the monitor judge them.

    `at` is the line of the message that is being judged.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.executions = 0
        self.at = (0, 0)
        self.lives: dict[str, Life] = {}
        self.monitor = monitor
        self._units: dict[str, Units] = {}
        self._names: dict[tuple[str, str], Life] = {}
        self._order_ids: dict[tuple[str, str], Life] = {}
        self._sent: dict[tuple[str, str], str] = {}
        self._waiting: dict[tuple[str, str], tuple[Request, tuple[int, int]]] = {}
        self._adopted: set[str] = set()
        self._unnamed = 0

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "monitor"}

    def show_instruments(self) -> None:
        """Tell the monitor every symbol's units, for its explanations."""
        for symbol, units in self._units.items():
            self.monitor.instruments[symbol] = units.instrument()

    def read(self, message: Message) -> None:
        """Record one message. Raises `BadReport` or `NoNumber` when it cannot be understood."""
        self.at = message.line
        while True:
            try:
                self._read(message)
                return
            except Finer as finer:
                self._refine(finer)

    def _read(self, message: Message) -> None:
        kind = message.kind
        if kind == b"8":
            self._report(message)
        elif kind in _REQUESTS:
            self._request(message, _REQUESTS[kind])
        elif kind == b"9":
            self._refused(message)

    # -- requests -----------------------------------------------------------------------------------------------

    def _request(self, message: Message, kind: MsgType) -> None:
        fields = message.fields
        session = message.direction.session.name
        cl_ord_id, orig = text(fields, b"11"), text(fields, b"41")
        if not cl_ord_id:
            raise BadReport("there is no ClOrdID (11)")
        resent = fields.get(b"97") == b"Y"
        mark = (session, cl_ord_id)
        sent_on = self._sent.get(mark)
        if message.dup and sent_on is not None:
            return
        named = self._names.get((session, orig)) if orig else None
        life = self._names.get(mark)
        if (
            sent_on is not None
            and sent_on != message.day
            and (life is None or life.order is None or not life.order.is_open)
        ):
            # The identifier of an order that is over, taken again on another day: FIX asks for uniqueness within one.
            self._forget_request(session, cl_ord_id)
            life = None
        elif sent_on is not None and resent:
            life = life or named
        if kind == MsgType.NEW_ORDER_SINGLE:
            life = life or self._begin(message, session, cl_ord_id)
        else:
            life = named or life
        units = life.units if life is not None else self._units_of(message)
        quantity, price = fields.get(b"38"), fields.get(b"44")
        request = Request(
            msg_type=kind,
            cl_ord_id=cl_ord_id,
            orig_cl_ord_id=orig,
            root_cl_ord_id=life.key if life is not None else cl_ord_id,
            account=session,
            symbol=units.symbol,
            strategy=_OWNER,
            side=side_of(fields.get(b"54")),
            order_qty=units.lots(quantity) if quantity else 0,
            price=units.ticks(price) if price else None,
            trade_date=message.day,
            poss_resend=resent,
        )
        self._sent[mark] = message.day
        if life is not None:
            life.requested = life.requested or kind == MsgType.NEW_ORDER_SINGLE
            life.tif = life.tif or tif_of(fields.get(b"59"))
            life.names.add(cl_ord_id)
            self._names[mark] = life
        if kind != MsgType.NEW_ORDER_SINGLE and named is None:
            self._waiting[mark] = (
                request,
                message.line,
            )  # it may name an order from before the log: the answer will tell
            return
        self._record("request", request)

    def _forget_request(self, session: str, cl_ord_id: str) -> None:
        table = ("gateway", Request)
        key = f"{session}/{cl_ord_id}"
        if key in self.monitor.layout.tables.get(table, {}):
            self.monitor.layout.forget(table, key)
        self._names.pop((session, cl_ord_id), None)

    def _answered(self, session: str, cl_ord_id: str, orig: str) -> None:
        """The venue speaks of a request that named an order which the log does not hold."""
        waiting = self._waiting.pop((session, cl_ord_id), None) if self._waiting else None
        if waiting is not None and orig and orig != waiting[0].orig_cl_ord_id:
            here, self.at = self.at, waiting[1]
            self._record("request", waiting[0])
            self.at = here

    def end(self, sessions: Sessions) -> None:
        """Judge requests that name an order nobody has heard of, in sessions that the log holds from their start.

        Where an order from before the log has been seen in a session, another one may be meant.
        """
        for request, line in self._waiting.values():
            self.at = line
            session = sessions.named.get(request.account)
            if session is not None and session.from_the_start and request.account not in self._adopted:
                self._record("request", request)
        self._waiting.clear()

    # -- reports ------------------------------------------------------------------------------------------------

    def _report(self, message: Message) -> None:
        fields = message.fields
        if fields.get(b"442") == b"2":
            return  # one leg of a multileg order: the order itself is reported beside it
        session = message.direction.session.name
        cl_ord_id, orig, order_id = text(fields, b"11"), text(fields, b"41"), text(fields, b"37")
        life = self._named(session, cl_ord_id, orig, order_id)
        try:
            report = read_report(fields, self._units_of(message) if life is None else life.units)
        except (BadReport, NoNumber):
            if life is not None:
                life.unsure = True
            raise
        self.executions += 1
        if report.unknown or (report.duplicate and life is not None and life.order is not None):
            return  # an answer about no order, or the refusal of a second one of the same name
        if life is None or self._is_another(life, report, order_id, message):
            name = cl_ord_id if not orig or report.exec_type in _BEGINS else orig
            life = self._begin(message, session, name or order_id or f"order {len(self.lives) + 1}")
        self._answered(session, cl_ord_id, orig)
        known = life.executions.get(report.exec_id) if report.exec_id not in _UNNAMED else None
        if known is not None and known.trade_date and report.trade_date not in ("", known.trade_date):
            known = None  # ExecIDs begin again with the day: yesterday's of the same name is another one
        if known is not None and (message.dup or report.resent or message.seq is None) and _told(known, report, life):
            return  # told before, and told again in so many words
        if known is None and message.late and life.order is not None and message.place == life.place:
            return  # the last one itself, told again: a status has no ExecID by which it would be known
        unsure = life.unsure or life.gaps != message.gaps
        execution = self._execution(life, report, message, unsure)
        if known is None and message.late and life.order is not None and message.place < life.place:
            life.executions[report.exec_id] = execution
            life.unsure = True
            return  # older than what is known: the log begins in the middle of a resend
        self._take(life, report, execution, message, (cl_ord_id, orig, order_id))

    def _take(
        self, life: Life, report: Report, execution: Execution, message: Message, ids: tuple[str, str, str]
    ) -> None:
        cl_ord_id, orig, order_id = ids
        before = life.order
        delta = execution.qty_delta
        told = report.cum_qty
        unsure = life.unsure or life.gaps != message.gaps
        monitor = self.monitor
        monitor.cause = "execution-report"
        touched: Touched = {}
        if before is None:
            if not life.requested or unsure:
                self._open(life, report, told - delta, touched)
        elif unsure and not self._follows(before, report, delta):
            if before.key in monitor.layout.tables.get(("orders", Order), {}):
                monitor.layout.forget(("orders", Order), before.key)
            self._open(life, report, told - delta - before.cum_qty, touched)
        if report.exec_type != ExecType.ORDER_STATUS:
            if report.exec_id not in _UNNAMED:
                life.executions[report.exec_id] = execution
                life.standing.pop(report.exec_id, None)
                self._stands(life, report, execution)
            monitor.mutate("orders", execution, 0, touched)
        order = self._as_told(life, report, execution, (cl_ord_id, orig, order_id), clear=not unsure)
        life.order = order
        life.day = message.day
        life.gaps, life.unsure = message.gaps, report.unmodelled
        life.place = message.place
        session = life.session
        if cl_ord_id and cl_ord_id not in life.names:
            life.names.add(cl_ord_id)
            self._names[session, cl_ord_id] = life
        if orig and (session, orig) not in self._names:
            life.names.add(orig)
            self._names[session, orig] = life
        if order_id not in _UNNAMED and (session, order_id) not in self._order_ids:
            self._order_ids[session, order_id] = life
        monitor.mutate("orders", order, 0, touched)
        monitor.settle(touched, 0)

    def _named(self, session: str, cl_ord_id: str, orig: str, order_id: str) -> Life | None:
        found = self._names.get((session, cl_ord_id)) if cl_ord_id else None
        if found is None and orig:
            found = self._names.get((session, orig))
        if found is None and order_id not in _UNNAMED:
            found = self._order_ids.get((session, order_id))
        return found

    def _is_another(self, life: Life, report: Report, order_id: str, message: Message) -> bool:
        """Whether a report begins an order that only shares its name with one that is over, on another day."""
        order = life.order
        return (
            order is not None
            and report.exec_type in _BEGINS
            and not order.is_open
            and order.order_id != order_id
            and life.day != message.day
        )

    def _begin(self, message: Message, session: str, name: str) -> Life:
        key, number = name, 1
        while key in self.lives:
            number += 1
            key = f"{name} ({session})" if number == 2 else f"{name} ({session} {number - 1})"
        life = self.lives[key] = Life(key, session, self._units_of(message))
        life.names.add(name)
        life.gaps, life.day = message.gaps, message.day
        self._names[session, name] = life
        return life

    def _open(self, life: Life, report: Report, filled: int, touched: Touched) -> None:
        """Book what the log does not hold of an order: filled before it began, or behind a gap of its own."""
        if filled <= 0:
            return
        life.whole = life.priced = False
        self._adopted.add(life.session)
        self._unnamed += 1
        before = Execution(
            exec_id=f"not in the log {self._unnamed}",
            exec_type=ExecType.RESTATED,
            root_cl_ord_id=life.key,
            symbol=life.units.symbol,
            side=report.side,
            trade_date="",
            venue=life.session,
            qty_delta=filled,
        )
        self.monitor.mutate("orders", before, 0, touched)

    def _follows(self, before: Order, report: Report, delta: int) -> bool:
        """Whether a report can be the next one after the last; a count that fell is no missing report's doing."""
        if before.cum_qty + delta < report.cum_qty:
            return False
        status = report.status
        return status == before.ord_status or status in legal_after(before.ord_status, report.exec_type)

    def _execution(self, life: Life, report: Report, message: Message, unsure: bool) -> Execution:
        kind, last_qty, last_px = report.exec_type, report.last_qty, report.last_px
        exec_id, ref, ref_date = report.exec_id, report.exec_ref_id, ""
        day = report.trade_date or message.day
        cum_before = life.order.cum_qty if life.order is not None else 0
        quantity = notional = 0
        if kind == ExecType.TRADE:
            if last_qty is None:
                quantity = report.cum_qty - cum_before
                life.priced = False
            else:
                quantity = last_qty
            if last_px is None:
                life.priced = False
            else:
                notional = quantity * last_px
        elif kind in TRADES:
            began = life.whole and (life.requested or life.order is not None) and not unsure
            named = life.executions.get(_standing(life, ref)) if ref else None
            if named is None or (kind == ExecType.TRADE_CORRECT and last_qty is None):
                if named is not None or not began:
                    kind, quantity = ExecType.RESTATED, report.cum_qty - cum_before
                    life.whole = life.priced = False
            else:
                last_px = named.last_px if last_px is None else last_px
                now = (last_qty or 0, last_px) if kind == ExecType.TRADE_CORRECT else (0, 0)
                quantity = now[0] - named.last_qty
                notional = now[0] * now[1] - named.last_qty * named.last_px
                ref, ref_date = named.exec_id, named.trade_date
        elif report.reason == ExecRestatementReason.GT_CORPORATE_ACTION:
            quantity = report.cum_qty - cum_before
            life.priced = False
        if exec_id in _UNNAMED:
            self._unnamed += 1
            exec_id = f"unnamed {self._unnamed}"
        return Execution(
            exec_id=exec_id,
            exec_type=kind,
            root_cl_ord_id=life.key,
            symbol=life.units.symbol,
            side=report.side,
            trade_date=day,
            venue=life.session,
            exec_ref_id=ref,
            exec_ref_date=ref_date,
            last_qty=last_qty or 0,
            last_px=last_px or 0,
            qty_delta=quantity,
            notional_delta=notional,
        )

    def _stands(self, life: Life, report: Report, execution: Execution) -> None:
        """From now on a correction stands in the place of what it names."""
        ref, exec_id = execution.exec_ref_id, execution.exec_id
        if ref and report.exec_type in TRADES and _standing(life, ref) != exec_id and exec_id not in life.standing:
            life.standing[_standing(life, ref)] = exec_id

    def _as_told(
        self, life: Life, report: Report, execution: Execution, ids: tuple[str, str, str], *, clear: bool
    ) -> Order:
        cl_ord_id, orig, order_id = ids
        before = life.order
        life.tif = tif = report.tif or life.tif
        status = report.status
        if tif is None and status == OrdStatus.DONE_FOR_DAY and report.leaves_qty:
            tif = TimeInForce.GTC  # nobody says it, and only a carried order has anything left after its day
        if before is not None:
            cl_ord_id, orig = self._chain(life, before, cl_ord_id, orig, clear)
        order_qty = report.order_qty
        if order_qty is None:
            order_qty = before.order_qty if before is not None else report.cum_qty + (report.leaves_qty or 0)
        leaves = report.leaves_qty
        if leaves is None:
            is_open = status in OPEN or (status == OrdStatus.DONE_FOR_DAY and tif in _CARRIED)
            leaves = order_qty - report.cum_qty if is_open else 0
        return Order(
            root_cl_ord_id=life.key,
            cl_ord_id=cl_ord_id or life.key,
            orig_cl_ord_id=orig,
            symbol=life.units.symbol,
            side=report.side,
            order_qty=order_qty,
            cum_qty=report.cum_qty,
            leaves_qty=leaves,
            notional=self._notional(life, report, execution),
            ord_status=status,
            strategy=_OWNER,
            time_in_force=tif or TimeInForce.DAY,
            order_id=order_id or (before.order_id if before is not None else ""),
            exec_type=None if report.unmodelled else report.exec_type,
            exec_id=execution.exec_id,
            exec_ref_id=report.exec_ref_id,
            exec_restatement_reason=report.reason,
        )

    def _chain(self, life: Life, before: Order, cl_ord_id: str, orig: str, clear: bool) -> tuple[str, str]:
        """ClOrdID and OrigClOrdID as they go on from the record before.

        Requests may cross, and each answer names what its request named: every name that the order has ever had is a
        link of its chain. Only in a log that holds the requests is a name that nobody gave it another matter.
        """
        told = before.cl_ord_id
        if not cl_ord_id or cl_ord_id == told:
            return told, before.orig_cl_ord_id
        known = orig in life.names if orig else cl_ord_id in life.names
        return cl_ord_id, told if known or not (life.requested and clear) else orig

    def _notional(self, life: Life, report: Report, execution: Execution) -> int:
        """The executions' notional, unless AvgPx (6) contradicts it by more than a rounding can.

        AvgPx may be rounded or cut at any decimal, or have passed through a binary float.
        """
        life.notional += execution.notional_delta
        told, cum_qty = report.avg_px, report.cum_qty
        if not told or not life.priced or cum_qty <= 0 or report.exec_type not in TRADES:
            return life.notional
        try:
            digits, decimals = parts(told)
        except NoNumber:
            return life.notional
        if digits <= 0:
            return life.notional
        # In units of 10**-decimals ticks times a lot, all of it whole numbers.
        ticks = digits * 10**life.units.tick_decimals * cum_qty
        scale = int(10**decimals)
        slack = max(10**life.units.tick_decimals * cum_qty, abs(ticks) // _FLOAT)
        if abs(ticks - life.notional * scale) < slack:
            return life.notional
        return ticks // scale if ticks // scale != life.notional else life.notional + 1

    # -- refusals -----------------------------------------------------------------------------------------------

    def _refused(self, message: Message) -> None:
        fields = message.fields
        session = message.direction.session.name
        cl_ord_id, orig = text(fields, b"11"), text(fields, b"41")
        self._answered(session, cl_ord_id, orig)
        life = self._names.get((session, orig)) or self._named(session, cl_ord_id, "", text(fields, b"37"))
        order = life.order if life is not None else None
        if life is None or order is None or message.late or fields.get(b"102") == b"1":
            return
        try:
            status = OrdStatus(text(fields, b"39"))
        except ValueError:
            status = order.ord_status
        if status in (OrdStatus.REJECTED, OrdStatus.REPLACED):
            status = order.ord_status
        unsure = life.unsure or life.gaps != message.gaps
        if unsure and status not in legal_after(order.ord_status, None):
            return
        back = orig if orig in life.names and order.cl_ord_id == cl_ord_id else order.cl_ord_id
        life.order = replace(order, ord_status=status, exec_type=None, cl_ord_id=back)
        self._record("cancel-reject", life.order)

    # -- units --------------------------------------------------------------------------------------------------

    def _units_of(self, message: Message) -> Units:
        fields = message.fields
        symbol = text(fields, b"55")
        if symbol in ("", "[N/A]"):
            symbol = text(fields, b"48") or symbol
        found = self._units.get(symbol)
        if found is None:
            found = self._units[symbol] = Units(symbol)
            self.monitor.instruments[symbol] = found.instrument()
        return found

    def _refine(self, finer: Finer) -> None:
        """Express everything known of a symbol in finer units; what was judged before stays judged."""
        units = finer.units
        lots, ticks = units.refine(finer)
        layout = self.monitor.layout
        self.monitor.instruments[units.symbol] = units.instrument()
        for table in [t for t in layout.tables if t[1] in (Order, Execution, Request)]:
            for key, record in list(layout.tables[table].items()):
                if getattr(record, "symbol", None) == units.symbol:
                    layout.put_back(table, key, _scaled(record, lots, ticks))
        for life in self.lives.values():
            if life.units is units:
                life.notional *= lots * ticks
                life.order = _scaled(life.order, lots, ticks) if life.order is not None else None
                life.executions = {name: _scaled(one, lots, ticks) for name, one in life.executions.items()}
        for mark, (request, line) in self._waiting.items():
            if request.symbol == units.symbol:
                self._waiting[mark] = (_scaled(request, lots, ticks), line)

    def _record(self, cause: str, record: Record) -> None:
        touched: Touched = {}
        self.monitor.cause = cause
        self.monitor.mutate("gateway" if type(record) is Request else "orders", record, 0, touched)
        self.monitor.settle(touched, 0)


def _standing(life: Life, exec_id: str) -> str:
    """The execution that stands now in the place of one that may have been corrected."""
    while exec_id in life.standing:
        exec_id = life.standing[exec_id]
    return exec_id


def _told(known: Execution, report: Report, life: Life) -> bool:
    """Whether a report says of an execution what is known of it."""
    return (
        known.root_cl_ord_id == life.key
        and (report.last_qty is None or known.last_qty == report.last_qty)
        and (report.last_px is None or known.last_px == report.last_px)
    )


T = TypeVar("T", bound=Record)


def _scaled(record: T, lots: int, ticks: int) -> T:
    found: dict[str, int] = {}
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
            found[name] = value * factor
    return replace(record, **found)
