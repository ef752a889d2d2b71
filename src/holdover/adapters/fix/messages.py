"""One codec between the messages of `holdover.model` and the fields of FIX 4.4, both ways.

Source: FIX 4.4 with errata 20030618, volumes 3 to 6. Quantities and prices on the wire are decimals in the
instrument's units; a value that is no whole number of lots or ticks is refused, never rounded. TransactTime (60) has
nanoseconds, as FIX 5.0 SP2 allows. What FIX has no field for stands in user-defined ones, and only where it is needed:
9001 is the trade date of the execution that ExecRefID (19) names, 9002 the version of the reference data in which a
quantity is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from holdover.model import (
    CancelReject,
    ExecRestatementReason,
    ExecType,
    ExecutionReport,
    Inbound,
    Instrument,
    MsgType,
    OrdStatus,
    OrdType,
    Outbound,
    PositionEffect,
    PositionReport,
    Query,
    Request,
    SecurityStatus,
    Side,
    TimeInForce,
)

SOH: Final = "\x01"
EXEC_REF_DATE: Final = 9001
REFERENCE_VERSION: Final = 9002
UNSUPPORTED: Final = 3
"""BusinessRejectReason (380): unsupported message type."""

_OF_A_SIDE: Final = frozenset({54, 37, 11, 1, 40, 77, 58})
_OF_A_CAPTURE: Final = frozenset(
    {568, 912, 150, 17, 19, 39, 378, 55, 38, 32, 31, 75, 6, 60, EXEC_REF_DATE, REFERENCE_VERSION}
)
"""Fields of a TradeCaptureReport (AE), and those of its one side."""

_HEADER: Final = frozenset({43, 97, 122})
_TRADING: Final = {"open": "17", "halt": "2", "disabled": "19", "closed": "18"}
_REASONS: Final = {"17": "open", "3": "open", "2": "halt", "19": "disabled", "18": "closed"}
_REQUEST_IDS: Final = {
    MsgType.ORDER_STATUS_REQUEST: 790,
    MsgType.ORDER_MASS_STATUS_REQUEST: 584,
    MsgType.TRADE_CAPTURE_REPORT_REQUEST: 568,
    MsgType.REQUEST_FOR_POSITIONS: 710,
}

Field = tuple[int, Any]
"""A tag and its value: text, or a list of groups, each a list of fields."""


class BadFix(ValueError):
    """A message that cannot be taken. `tag` is the field at fault, 0 where it is the whole."""

    def __init__(self, told: str, tag: int = 0) -> None:
        super().__init__(told)
        self.tag = tag


class Wire(msgspec.Struct, frozen=True):
    """One application message as it goes on the wire: MsgType (35) and fields."""

    kind: str
    fields: list[Field]

    def message(self) -> Any:
        """The same as a message of QuickFIX."""
        import quickfix

        made = quickfix.Message()
        made.getHeader().setField(35, self.kind)
        for tag, value in self.fields:
            if not isinstance(value, list):
                (made.getHeader() if tag in _HEADER else made).setField(tag, str(value))
                continue
            for entry in value:
                group = quickfix.Group(tag, entry[0][0])
                for inner, said in entry:
                    group.setField(inner, str(said))
                made.addGroup(group)
        return made


class Fields:
    """The fields of one message off the wire, in their order. Raises `BadFix` for what is asked for and not there."""

    def __init__(self, text: str) -> None:
        self.pairs: list[tuple[str, str]] = []
        self._first: dict[str, str] = {}
        for one in text.split(SOH):
            tag, found, value = one.partition("=")
            if found:
                self.pairs.append((tag, value))
                self._first.setdefault(tag, value)

    @property
    def kind(self) -> str:
        """MsgType (35)."""
        return self._first.get("35", "")

    def get(self, tag: int, default: str = "") -> str:
        """The first field of a tag."""
        return self._first.get(str(tag), default)

    def need(self, tag: int) -> str:
        """The same; it must be there."""
        found = self._first.get(str(tag), "")
        if not found:
            raise BadFix(f"required tag missing: {tag}", tag)
        return found

    def all(self, tag: int) -> list[str]:
        """Every value of a tag."""
        return [value for name, value in self.pairs if name == str(tag)]

    def groups(self, count: int) -> list[dict[str, str]]:
        """The entries of a repeating group: each begins with the tag that the first one begins with."""
        found: list[dict[str, str]] = []
        inside, delimiter = False, ""
        for tag, value in self.pairs:
            if tag == str(count):
                inside = True
            elif inside:
                delimiter = delimiter or tag
                if tag == delimiter:
                    found.append({})
                found[-1][tag] = value
        return found[: int(self.get(count, "0") or 0)]


def stamp(time_ns: int) -> str:
    """UTCTimestamp with nanoseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d-%H:%M:%S}.{rest:09d}"


def stamped(text: str) -> int:
    """Nanoseconds since the epoch of a UTCTimestamp; 0 for none. Raises `BadFix`."""
    if not text:
        return 0
    whole, _, part = text.partition(".")
    try:
        found = datetime.strptime(whole, "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC)
        return int(found.timestamp()) * 1_000_000_000 + (int(part.ljust(9, "0")[:9]) if part else 0)
    except ValueError as problem:
        raise BadFix(f"{text!r} is no UTCTimestamp YYYYMMDD-HH:MM:SS[.sss]") from problem


def _date(day: str) -> str:
    return day.replace("-", "")


def _dated(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


class Codec:
    """Encodes and decodes for some instruments. An instrument that it does not know is taken in the finest units."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._known = {one.symbol: one for one in instruments}
        self.trade_date = "1970-01-01"

    def instrument(self, symbol: str) -> Instrument:
        """The instrument of a symbol."""
        found = self._known.get(symbol)
        return found or Instrument(symbol=symbol or "?", lot_size="0.00000001", tick_size="0.00000001")

    # -- what a client sends ------------------------------------------------------------------------------------

    def outbound(self, message: Outbound, *, now_ns: int, trade_date: str) -> Wire:
        """A request or a query of ours as it leaves."""
        if isinstance(message, Query):
            return _query(message, now_ns, trade_date)
        one = self.instrument(message.symbol)
        fields: list[Field] = [(11, message.cl_ord_id)]
        if message.orig_cl_ord_id:
            fields.append((41, message.orig_cl_ord_id))
        fields += [
            (1, message.account),
            (55, message.symbol),
            (54, message.side.value),
            (60, stamp(message.transact_time_ns or now_ns)),
            (38, one.quantity_text(message.order_qty)),
        ]
        if message.msg_type != MsgType.ORDER_CANCEL_REQUEST:
            fields += _terms(message, one)
            fields.append((21, "1"))  # HandlInst: automated, no broker intervention
        if message.cl_ord_link_id:
            fields.append((583, message.cl_ord_link_id))
        if message.poss_resend:
            fields.append((97, "Y"))
        return Wire(message.msg_type.value, [field for field in fields if field[1] != ""])

    def request(self, told: Fields) -> Outbound:
        """What a client has sent. Raises `BadFix`, also for a MsgType that is none of these."""
        try:
            kind = MsgType(told.kind)
        except ValueError:
            raise BadFix(f"unsupported message type {told.kind}", 35) from None
        if kind in _REQUEST_IDS:
            return _asked(kind, told)
        if kind not in (
            MsgType.NEW_ORDER_SINGLE,
            MsgType.ORDER_CANCEL_REQUEST,
            MsgType.ORDER_CANCEL_REPLACE_REQUEST,
        ):
            raise BadFix(f"unsupported message type {told.kind}", 35)
        changes = kind != MsgType.NEW_ORDER_SINGLE
        one = self.instrument(told.need(55))
        return Request(
            msg_type=kind,
            cl_ord_id=told.need(11),
            orig_cl_ord_id=told.need(41) if changes else "",
            account=told.get(1),
            symbol=told.need(55),
            side=_member(Side, told.need(54), 54),
            order_qty=_lots(one, told.get(38) or ("0" if kind == MsgType.ORDER_CANCEL_REQUEST else told.need(38))),
            poss_resend=told.get(97) == "Y",
            cl_ord_link_id=told.get(583),
            transact_time_ns=stamped(told.get(60)),
            **_told_terms(told, one),
        )

    # -- what a venue says --------------------------------------------------------------------------------------

    def inbound(self, message: Inbound, asked: Query | None = None, total: int = 1) -> Wire:
        """What the venue says, in answer to which query, and of how many position reports it is one."""
        if isinstance(message, SecurityStatus):
            return Wire(
                MsgType.SECURITY_STATUS.value,
                _said(
                    (55, message.symbol),
                    (326, _TRADING.get(message.reason, "17" if message.trading else "2")),
                    (58, message.reason),
                    (REFERENCE_VERSION, message.reference_version),
                ),
            )
        if isinstance(message, CancelReject):
            return Wire(
                MsgType.ORDER_CANCEL_REJECT.value,
                _said(
                    (37, message.order_id or "NONE"),
                    (11, message.cl_ord_id),
                    (41, message.orig_cl_ord_id),
                    (39, message.ord_status.value),
                    (1, message.account),
                    (434, message.cxl_rej_response_to),
                    (102, str(message.cxl_rej_reason)),
                    (58, message.text),
                ),
            )
        if isinstance(message, PositionReport):
            return self._position(message, total)
        if asked is not None and asked.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
            return self._capture(message, asked)
        return Wire(MsgType.EXECUTION_REPORT.value, self._report(message, asked))

    def _position(self, report: PositionReport, total: int) -> Wire:
        one = self.instrument(report.symbol)
        empty = not report.symbol
        entry: list[Field] = [(703, "TQ"), (704, one.quantity_text(max(report.net_qty, 0)))]
        entry.append((705, one.quantity_text(max(-report.net_qty, 0))))
        fields = _said(
            (721, f"{report.req_id}/{report.symbol}"),
            (710, report.req_id),
            (728, "2" if empty else "0"),
            (715, _date(self.trade_date)),
            (1, report.account),
            (581, "1"),
            (55, report.symbol),
            (730, "0"),
            (731, "1"),
            (734, "0"),
            (727, str(total)),
            (REFERENCE_VERSION, report.reference_version),
        )
        return Wire(MsgType.POSITION_REPORT.value, fields if empty else [*fields, (702, [entry])])

    def _report(self, report: ExecutionReport, asked: Query | None) -> list[Field]:
        one = self.instrument(report.symbol)
        average = Decimal(report.notional) / report.cum_qty * Decimal(one.tick_size) if report.cum_qty else Decimal(0)
        fields = _said(
            (37, report.order_id or "NONE"),
            (11, report.cl_ord_id),
            (41, report.orig_cl_ord_id),
            (17, report.exec_id),
            (19, report.exec_ref_id),
            (150, report.exec_type.value),
            (39, report.ord_status.value),
            (1, report.account),
            (55, report.symbol),
            (54, report.side.value),
            (38, one.quantity_text(report.order_qty)),
            (151, one.quantity_text(report.leaves_qty)),
            (14, one.quantity_text(report.cum_qty)),
            (6, f"{average:f}"),
            (75, _date(report.trade_date)),
            (229, _date(report.order_date)),
            (60, stamp(report.transact_time_ns)),
            (583, report.cl_ord_link_id),
            (58, report.text),
            (EXEC_REF_DATE, _date(report.exec_ref_date)),
            (REFERENCE_VERSION, report.reference_version),
        )
        fields += _terms(report, one)
        if report.notional:
            fields.append((381, one.notional_text(report.notional)))
        if report.last_qty or report.exec_type in (ExecType.TRADE, ExecType.TRADE_CORRECT, ExecType.TRADE_CANCEL):
            fields += [(32, one.quantity_text(report.last_qty)), (31, one.price_text(report.last_px))]
        if report.exec_restatement_reason is not None:
            fields.append((378, report.exec_restatement_reason.value))
        if report.ord_rej_reason is not None:
            fields.append((103, str(report.ord_rej_reason)))
        if report.poss_resend:
            fields.append((97, "Y"))
        if report.req_id and asked is not None:
            fields.append((_REQUEST_IDS[asked.msg_type], report.req_id))
            fields.append((912, "Y" if report.last_rpt_requested else "N"))
            if report.tot_num_reports is not None:
                fields.append((911, str(report.tot_num_reports)))
        return fields

    def _capture(self, report: ExecutionReport, asked: Query) -> Wire:
        if report.tot_num_reports == 0:
            ack = _said(
                (568, report.req_id),
                (569, "0"),
                (748, "0"),
                (749, "0"),
                (750, "1"),
                (55, "[N/A]"),
            )
            return Wire("AQ", ack)
        fields = self._report(report, asked)
        side = [(tag, value) for tag, value in fields if tag in _OF_A_SIDE]
        side.sort(key=lambda field: field[0] != 54)
        return Wire(
            "AE",
            [
                (571, f"{report.trade_date}/{report.exec_id}"),
                (570, "Y"),
                (748, str(report.tot_num_reports or 1)),
                *[(tag, value) for tag, value in fields if tag in _OF_A_CAPTURE],
                (552, [side]),
            ],
        )

    def said(self, told: Fields) -> Inbound | None:
        """What a venue has said; None for what says nothing of an order, a position or a book. Raises `BadFix`."""
        kind = told.kind
        if kind in (MsgType.EXECUTION_REPORT, "AE"):
            return self._told_report(told)
        if kind == MsgType.ORDER_CANCEL_REJECT:
            return CancelReject(
                cl_ord_id=told.need(11),
                orig_cl_ord_id=told.get(41),
                ord_status=_member(OrdStatus, told.need(39), 39),
                account=told.get(1),
                order_id=told.get(37),
                cxl_rej_reason=int(told.get(102, "0") or 0),
                cxl_rej_response_to=told.get(434, "1"),
                text=told.get(58),
            )
        if kind == MsgType.POSITION_REPORT:
            one = self.instrument(told.get(55))
            held = told.groups(702)
            net = sum(_lots(one, one_of.get("704", "0")) - _lots(one, one_of.get("705", "0")) for one_of in held)
            return PositionReport(
                req_id=told.get(710),
                account=told.get(1),
                symbol=told.get(55),
                net_qty=net,
                reference_version=told.get(REFERENCE_VERSION),
                last_rpt_requested=told.get(727, "1") in ("0", "1"),
            )
        if kind == MsgType.SECURITY_STATUS:
            reason = _REASONS.get(told.get(326), "halt")
            return SecurityStatus(
                symbol=told.need(55),
                trading=reason == "open",
                reason=reason,
                trade_date=_dated(told.get(75)),
                reference_version=told.get(REFERENCE_VERSION),
            )
        if kind == "AQ" and told.get(748, "0") == "0":
            return _nothing(told.get(568), told.get(1))
        return None

    def _told_report(self, told: Fields) -> ExecutionReport:
        one = self.instrument(told.get(55))
        exec_type = _member(ExecType, told.need(150), 150)
        captured = told.kind == "AE"
        cum_qty = _lots(one, told.get(14, "0") or "0")
        notional = _notional(one, told.get(381), told.get(6), cum_qty)
        total = told.get(911) or told.get(748)
        req_id = told.get(790) or told.get(584) or told.get(568)
        reason = told.get(378)
        return ExecutionReport(
            exec_type=exec_type,
            ord_status=_member(OrdStatus, told.get(39, "0"), 39),
            cl_ord_id=told.get(11),
            exec_id=told.need(17),
            symbol=told.get(55),
            side=_member(Side, told.get(54, "1"), 54),
            order_qty=_lots(one, told.get(38, "0") or "0"),
            cum_qty=cum_qty,
            leaves_qty=_lots(one, told.get(151, "0") or "0"),
            notional=notional,
            last_qty=_lots(one, told.get(32, "0") or "0"),
            last_px=_ticks(one, told.get(31, "0") or "0"),
            order_id=told.get(37).replace("NONE", ""),
            orig_cl_ord_id=told.get(41),
            exec_ref_id=told.get(19),
            exec_ref_date=_dated(told.get(EXEC_REF_DATE)),
            account=told.get(1),
            cl_ord_link_id=told.get(583),
            trade_date=_dated(told.get(75)),
            order_date=_dated(told.get(229)),
            exec_restatement_reason=_member(ExecRestatementReason, reason, 378) if reason else None,
            reference_version=told.get(REFERENCE_VERSION),
            ord_rej_reason=int(told.get(103)) if told.get(103).isdigit() else None,
            text=told.get(58),
            req_id=req_id,
            last_rpt_requested=told.get(912) == "Y" or bool(told.get(790)),
            tot_num_reports=int(total) if total.isdigit() else None,
            poss_resend=captured or told.get(97) == "Y",
            transact_time_ns=stamped(told.get(60)),
            **_told_terms(told, one),
        )


def business_reject(told: Fields, reason: int, text: str) -> Wire:
    """BusinessMessageReject (j) of a message."""
    fields = [(45, told.get(34)), (372, told.kind), (379, told.get(11) or _request_id(told)), (380, str(reason))]
    return Wire("j", _said(*fields, (58, text)))


def unanswered(told: Fields, asked: Mapping[str, Query]) -> Inbound | None:
    """What a BusinessMessageReject (j) comes to: a new order is rejected, a question has nothing for an answer.

    That a venue does not tell the status of a single order is no answer: None, and the order stays as it is.
    """
    kind, named = told.get(372), told.get(379)
    if kind == MsgType.NEW_ORDER_SINGLE and named:
        return ExecutionReport(
            exec_type=ExecType.REJECTED,
            ord_status=OrdStatus.REJECTED,
            cl_ord_id=named,
            exec_id=f"j{told.get(34)}",
            text=told.get(58),
        )
    query = asked.get(named) or next((one for one in reversed(list(asked.values())) if one.msg_type == kind), None)
    if query is None or kind == MsgType.ORDER_STATUS_REQUEST:
        return None
    if kind == MsgType.REQUEST_FOR_POSITIONS:
        return PositionReport(req_id=query.req_id, account=query.account, symbol="", net_qty=0, last_rpt_requested=True)
    return _nothing(query.req_id, query.account)


def _nothing(req_id: str, account: str) -> ExecutionReport:
    return ExecutionReport(
        exec_type=ExecType.ORDER_STATUS,
        ord_status=OrdStatus.REJECTED,
        cl_ord_id="",
        exec_id="0",
        account=account,
        req_id=req_id,
        tot_num_reports=0,
        last_rpt_requested=True,
    )


def _request_id(told: Fields) -> str:
    return next((told.get(tag) for tag in (790, 584, 568, 710, 262, 324) if told.get(tag)), "")


def _said(*fields: Field) -> list[Field]:
    return [field for field in fields if field[1] != ""]


def _query(query: Query, now_ns: int, trade_date: str) -> Wire:
    tag = _REQUEST_IDS[query.msg_type]
    fields: list[Field]
    if query.msg_type == MsgType.ORDER_STATUS_REQUEST:
        # Side is required and a query does not know it: 7 is undisclosed.
        fields = [(11, query.cl_ord_id), (37, query.order_id), (55, query.symbol), (54, "7")]
    elif query.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
        fields = [(585, "7")]
    elif query.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
        since: list[Field] = [(75, _date(query.since_date or trade_date))]
        if query.since_ns:
            since.append((60, stamp(query.since_ns)))
        # This message has no Account: it is named as a party, of the role of a customer's account.
        party: list[Field] = [(448, query.account), (447, "D"), (452, "24")]
        fields = [(569, "0"), (263, "0"), (580, [since])]
        return Wire(query.msg_type.value, [(tag, query.req_id), (453, [party]), *fields])
    else:
        fields = [(724, "0"), (581, "1"), (715, _date(trade_date)), (60, stamp(now_ns))]
    return Wire(query.msg_type.value, _said((tag, query.req_id), (1, query.account), *fields))


def _asked(kind: MsgType, told: Fields) -> Query:
    dates = told.groups(580)
    first = dates[0] if dates else {}
    tag = _REQUEST_IDS[kind]
    status = kind == MsgType.ORDER_STATUS_REQUEST
    return Query(
        msg_type=kind,
        req_id=told.get(tag) or told.need(11) if status else told.need(tag),
        account=told.get(1) or told.get(448),
        symbol=told.get(55),
        cl_ord_id=told.need(11) if status else "",
        order_id=told.get(37),
        since_date=_dated(first.get("75", "")),
        since_ns=stamped(first.get("60", "")),
    )


def _terms(message: Request | ExecutionReport, one: Instrument) -> list[Field]:
    fields: list[Field] = [(40, message.ord_type.value), (59, message.time_in_force.value)]
    if message.price is not None:
        fields.append((44, one.price_text(message.price)))
    if message.stop_px is not None:
        fields.append((99, one.price_text(message.stop_px)))
    if message.expire_date:
        fields.append((432, _date(message.expire_date)))
    return [*fields, (77, message.position_effect.value)]


def _told_terms(told: Fields, one: Instrument) -> dict[str, Any]:
    price, stop = told.get(44), told.get(99)
    return {
        "ord_type": _member(OrdType, told.get(40, "2"), 40),
        "time_in_force": _member(TimeInForce, told.get(59, "0"), 59),
        "price": _ticks(one, price) if price else None,
        "stop_px": _ticks(one, stop) if stop else None,
        "expire_date": _dated(told.get(432)),
        "position_effect": _member(PositionEffect, told.get(77, "O"), 77),
    }


def _member(kind: Any, value: str, tag: int) -> Any:
    try:
        return kind(value)
    except ValueError:
        there = ", ".join(sorted(one.value for one in kind))
        raise BadFix(f"value {value!r} of tag {tag} is not taken here; there are {there}", tag) from None


def _lots(one: Instrument, text: str) -> int:
    try:
        return one.lots(text)
    except ValueError as problem:
        raise BadFix(str(problem), 38) from problem


def _ticks(one: Instrument, text: str) -> int:
    try:
        return one.ticks(text)
    except ValueError as problem:
        raise BadFix(str(problem), 44) from problem


def _notional(one: Instrument, gross: str, average: str, cum_qty: int) -> int:
    """Lots x ticks: exact of GrossTradeAmt (381), else the nearest that AvgPx (6) gives."""
    unit = Decimal(one.lot_size) * Decimal(one.tick_size)
    try:
        if gross:
            return int((Decimal(gross) / unit).to_integral_value(ROUND_HALF_EVEN))
        return int((Decimal(average or 0) * cum_qty / Decimal(one.tick_size)).to_integral_value(ROUND_HALF_EVEN))
    except (InvalidOperation, ValueError) as problem:
        raise BadFix(f"AvgPx {average!r} or GrossTradeAmt {gross!r} is no decimal", 6) from problem


# -- market data ------------------------------------------------------------------------------------------------

BID, OFFER, TRADE, VOLUME = "0", "1", "2", "B"
"""MDEntryType (269)."""


class Entry(msgspec.Struct, frozen=True):
    """One entry of market data: its type, symbol, price and size (None where it has none or is deleted), its time."""

    kind: str
    symbol: str
    price: str | None
    size: str | None
    time_ns: int


def market_data_request(req_id: str, symbols: Sequence[str]) -> Wire:
    """MarketDataRequest (V): snapshot and updates of the top of the book, the last trade, the volume."""
    kinds: list[list[Field]] = [[(269, kind)] for kind in (BID, OFFER, TRADE, VOLUME)]
    books: list[list[Field]] = [[(55, symbol)] for symbol in symbols]
    return Wire("V", [(262, req_id), (263, "1"), (264, "1"), (265, "1"), (267, kinds), (146, books)])


def market_data(req_id: str, symbol: str, entries: Iterable[Entry], *, snapshot: bool) -> Wire:
    """MarketDataSnapshotFullRefresh (W) or MarketDataIncrementalRefresh (X) of one instrument."""
    groups: list[list[Field]] = []
    for one in entries:
        day, _, clock = stamp(one.time_ns).partition("-")
        gone = one.price is None and one.size is None
        head: list[Field] = [(269, one.kind)] if snapshot else [(279, "2" if gone else "0"), (269, one.kind)]
        if snapshot and gone:
            continue
        body = [] if snapshot else [(55, symbol)]
        groups.append([*head, *_said(*body, (270, one.price or ""), (271, one.size or "")), (272, day), (273, clock)])
    return Wire("W" if snapshot else "X", [(262, req_id), *([(55, symbol)] if snapshot else []), (268, groups)])


def entries(told: Fields) -> Iterator[Entry]:
    """The entries of a snapshot or an update; what a snapshot does not name is gone."""
    named: set[str] = set()
    for one in told.groups(268):
        symbol = one.get("55") or told.get(55)
        named.add(one.get("269", ""))
        gone = one.get("279") == "2"
        day, clock = one.get("272", ""), one.get("273", "")
        yield Entry(
            one.get("269", ""),
            symbol,
            None if gone else one.get("270"),
            None if gone else one.get("271"),
            stamped(f"{day}-{clock}") if day and clock else 0,
        )
    if told.kind == "W":
        for kind in (BID, OFFER):
            if kind not in named:
                yield Entry(kind, told.get(55), None, None, 0)
