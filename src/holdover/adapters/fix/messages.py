"""The codec between the messages of `holdover.model` and the fields of FIX 4.4, in both directions.

Source: FIX 4.4 with errata 20030618, volumes 3 to 6. Quantities and prices on the wire are decimals in the instrument's
units; a value that is not a whole number of lots or ticks is rejected, never rounded. TransactTime (60) has
nanoseconds, as FIX 5.0 SP2 allows. User-defined fields carry what FIX has no field for, and only where needed: 9001 is
the trade date of the execution in ExecRefID (19), 9002 the reference data version in whose units a quantity is stated,
9010 and 9011 the side and the id of a leg in hedge mode. ContingencyType (1385) is from FIX 5.0 SP2; it and ListID (66)
are fields of the order itself, because contingent orders are sent one by one and not as NewOrderList (E).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Final

from holdover.adapters.fix.fix_message import (
    Field,
    FixMessage,
    FixMessageError,
    ParsedMessage,
    format_utc_timestamp,
    non_empty,
    parse_utc_timestamp,
)
from holdover.model import (
    AccountReport,
    CancelReject,
    ContingencyType,
    ExecRestatementReason,
    ExecType,
    ExecutionReport,
    ImpossibleStateError,
    Inbound,
    Instrument,
    MsgType,
    OrdStatus,
    OrdType,
    Outbound,
    PositionEffect,
    PositionReport,
    PositionSide,
    Query,
    Request,
    SecurityStatus,
    Side,
    TimeInForce,
)
from holdover.model import fix_tags as tags

UNSUPPORTED: Final = 3
"""BusinessRejectReason (380): unsupported message type."""

_SIDE_TAGS: Final = frozenset(
    {tags.SIDE, tags.ORDER_ID, tags.CL_ORD_ID, tags.ACCOUNT, tags.ORD_TYPE, tags.POSITION_EFFECT, tags.TEXT}
)
_CAPTURE_TAGS: Final = frozenset(
    {
        tags.TRADE_REQUEST_ID,
        tags.LAST_RPT_REQUESTED,
        tags.EXEC_TYPE,
        tags.EXEC_ID,
        tags.EXEC_REF_ID,
        tags.ORD_STATUS,
        tags.EXEC_RESTATEMENT_REASON,
        tags.SYMBOL,
        tags.ORDER_QTY,
        tags.LAST_QTY,
        tags.LAST_PX,
        tags.TRADE_DATE,
        tags.AVG_PX,
        tags.TRANSACT_TIME,
        tags.EXEC_REF_DATE,
        tags.REFERENCE_VERSION,
        tags.POSITION_SIDE,
        tags.POSITION_ID,
    }
)
"""The fields of a TradeCaptureReport (AE), and those of its one side."""

_TRADING: Final = {"open": "17", "halt": "2", "disabled": "19", "closed": "18"}
_REASONS: Final = {"17": "open", "3": "open", "2": "halt", "19": "disabled", "18": "closed"}
_REQUEST_IDS: Final = {
    MsgType.ORDER_STATUS_REQUEST: tags.ORD_STATUS_REQ_ID,
    MsgType.ORDER_MASS_STATUS_REQUEST: tags.MASS_STATUS_REQ_ID,
    MsgType.TRADE_CAPTURE_REPORT_REQUEST: tags.TRADE_REQUEST_ID,
    MsgType.REQUEST_FOR_POSITIONS: tags.POS_REQ_ID,
}


def _format_date(day: str) -> str:
    return day.replace("-", "")


def _parse_date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text


class FixCodec:
    """Encodes and decodes messages. An unknown instrument is read in the finest units."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._instruments = {instrument.symbol: instrument for instrument in instruments}
        self.trade_date = "1970-01-01"

    def instrument_of(self, symbol: str) -> Instrument:
        """Returns the instrument of a symbol."""
        instrument = self._instruments.get(symbol)
        return instrument or Instrument(symbol=symbol or "?", lot_size="0.00000001", tick_size="0.00000001")

    # -- messages of a client -----------------------------------------------------------------------------------

    def encode_outbound(self, message: Outbound, *, now_ns: int, trade_date: str) -> FixMessage:
        """Encode a request or a query to a venue."""
        if isinstance(message, Query):
            return _encode_query(message, now_ns, trade_date)
        instrument = self.instrument_of(message.symbol)
        fields: list[Field] = [(tags.CL_ORD_ID, message.cl_ord_id)]
        if message.orig_cl_ord_id:
            fields.append((tags.ORIG_CL_ORD_ID, message.orig_cl_ord_id))
        fields += [
            (tags.ACCOUNT, message.account),
            (tags.SYMBOL, message.symbol),
            (tags.SIDE, message.side.value),
            (tags.TRANSACT_TIME, format_utc_timestamp(message.transact_time_ns or now_ns)),
            (tags.ORDER_QTY, instrument.quantity_text(message.order_qty)),
        ]
        if message.msg_type != MsgType.ORDER_CANCEL_REQUEST:
            fields += _encode_terms(message, instrument)
            fields.append((tags.HANDL_INST, "1"))  # HandlInst: automated, no broker intervention
        if message.cl_ord_link_id:
            fields.append((tags.CL_ORD_LINK_ID, message.cl_ord_link_id))
        if message.poss_resend:
            fields.append((tags.POSS_RESEND, "Y"))
        return FixMessage(message.msg_type.value, [field for field in fields if field[1] != ""])

    def decode_request(self, parsed: ParsedMessage) -> Outbound:
        """Decode a client's message. Raises `FixMessageError`, also for an unsupported MsgType."""
        try:
            kind = MsgType(parsed.kind)
        except ValueError:
            raise FixMessageError(f"unsupported message type {parsed.kind}", tags.MSG_TYPE) from None
        if kind in _REQUEST_IDS:
            return _decode_query(kind, parsed)
        if kind not in (
            MsgType.NEW_ORDER_SINGLE,
            MsgType.ORDER_CANCEL_REQUEST,
            MsgType.ORDER_CANCEL_REPLACE_REQUEST,
        ):
            raise FixMessageError(f"unsupported message type {parsed.kind}", tags.MSG_TYPE)
        changes = kind != MsgType.NEW_ORDER_SINGLE
        instrument = self.instrument_of(parsed.require(tags.SYMBOL))
        return Request(
            msg_type=kind,
            cl_ord_id=parsed.require(tags.CL_ORD_ID),
            orig_cl_ord_id=parsed.require(tags.ORIG_CL_ORD_ID) if changes else "",
            account=parsed.get(tags.ACCOUNT),
            symbol=parsed.require(tags.SYMBOL),
            side=_parse_member(Side, parsed.require(tags.SIDE), tags.SIDE),
            order_qty=_parse_lots(
                instrument,
                parsed.get(tags.ORDER_QTY)
                or ("0" if kind == MsgType.ORDER_CANCEL_REQUEST else parsed.require(tags.ORDER_QTY)),
            ),
            poss_resend=parsed.get(tags.POSS_RESEND) == "Y",
            cl_ord_link_id=parsed.get(tags.CL_ORD_LINK_ID),
            transact_time_ns=parse_utc_timestamp(parsed.get(tags.TRANSACT_TIME)),
            **_decode_terms(parsed, instrument),
        )

    # -- messages of a venue ------------------------------------------------------------------------------------

    def encode_inbound(self, message: Inbound, query: Query | None = None, total: int = 1) -> FixMessage:
        """Encode a message of the venue.

        `query` is the query that it answers, `total` the number of position reports.
        """
        if isinstance(message, SecurityStatus):
            return FixMessage(
                MsgType.SECURITY_STATUS.value,
                non_empty(
                    (tags.SYMBOL, message.symbol),
                    (tags.SECURITY_TRADING_STATUS, _TRADING.get(message.reason, "17" if message.trading else "2")),
                    (tags.TEXT, message.reason),
                    (tags.REFERENCE_VERSION, message.reference_version),
                ),
            )
        if isinstance(message, CancelReject):
            return FixMessage(
                MsgType.ORDER_CANCEL_REJECT.value,
                non_empty(
                    (tags.ORDER_ID, message.order_id or "NONE"),
                    (tags.CL_ORD_ID, message.cl_ord_id),
                    (tags.ORIG_CL_ORD_ID, message.orig_cl_ord_id),
                    (tags.ORD_STATUS, message.ord_status.value),
                    (tags.ACCOUNT, message.account),
                    (tags.CXL_REJ_RESPONSE_TO, message.cxl_rej_response_to),
                    (tags.CXL_REJ_REASON, str(message.cxl_rej_reason)),
                    (tags.TEXT, message.text),
                ),
            )
        if isinstance(message, PositionReport):
            return self._encode_position(message, total)
        if isinstance(message, AccountReport):
            raise ImpossibleStateError(
                f"account report {message.report_id} has no message in FIX 4.4: a venue over FIX opens no accounts"
            )
        if query is not None and query.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
            return self._encode_capture(message, query)
        return FixMessage(MsgType.EXECUTION_REPORT.value, self._encode_report(message, query))

    def _encode_position(self, report: PositionReport, total: int) -> FixMessage:
        instrument = self.instrument_of(report.symbol)
        empty = not report.symbol
        entry: list[Field] = [(tags.POS_TYPE, "TQ"), (tags.LONG_QTY, instrument.quantity_text(max(report.net_qty, 0)))]
        entry.append((tags.SHORT_QTY, instrument.quantity_text(max(-report.net_qty, 0))))
        fields = non_empty(
            (tags.POS_MAINT_RPT_ID, f"{report.req_id}/{report.key.partition('/')[2]}"),
            (tags.POS_REQ_ID, report.req_id),
            (tags.POS_REQ_RESULT, "2" if empty else "0"),
            (tags.CLEARING_BUSINESS_DATE, _format_date(self.trade_date)),
            (tags.ACCOUNT, report.account),
            (tags.ACCOUNT_TYPE, "1"),
            (tags.SYMBOL, report.symbol),
            (tags.SETTL_PRICE, "0"),
            (tags.SETTL_PRICE_TYPE, "1"),
            (tags.PRIOR_SETTL_PRICE, "0"),
            (tags.TOTAL_NUM_POS_REPORTS, str(total)),
            (tags.REFERENCE_VERSION, report.reference_version),
            *_encode_leg(report),
        )
        return FixMessage(MsgType.POSITION_REPORT.value, fields if empty else [*fields, (tags.NO_POSITIONS, [entry])])

    def _encode_report(self, report: ExecutionReport, query: Query | None) -> list[Field]:
        instrument = self.instrument_of(report.symbol)
        average = (
            Decimal(report.notional) / report.cum_qty * Decimal(instrument.tick_size) if report.cum_qty else Decimal(0)
        )
        fields = non_empty(
            (tags.ORDER_ID, report.order_id or "NONE"),
            (tags.CL_ORD_ID, report.cl_ord_id),
            (tags.ORIG_CL_ORD_ID, report.orig_cl_ord_id),
            (tags.EXEC_ID, report.exec_id),
            (tags.EXEC_REF_ID, report.exec_ref_id),
            (tags.EXEC_TYPE, report.exec_type.value),
            (tags.ORD_STATUS, report.ord_status.value),
            (tags.ACCOUNT, report.account),
            (tags.SYMBOL, report.symbol),
            (tags.SIDE, report.side.value),
            (tags.ORDER_QTY, instrument.quantity_text(report.order_qty)),
            (tags.LEAVES_QTY, instrument.quantity_text(report.leaves_qty)),
            (tags.CUM_QTY, instrument.quantity_text(report.cum_qty)),
            (tags.AVG_PX, f"{average:f}"),
            (tags.TRADE_DATE, _format_date(report.trade_date)),
            (tags.TRADE_ORIGINATION_DATE, _format_date(report.order_date)),
            (tags.TRANSACT_TIME, format_utc_timestamp(report.transact_time_ns)),
            (tags.CL_ORD_LINK_ID, report.cl_ord_link_id),
            (tags.TEXT, report.text),
            (tags.EXEC_REF_DATE, _format_date(report.exec_ref_date)),
            (tags.REFERENCE_VERSION, report.reference_version),
        )
        fields += _encode_terms(report, instrument)
        if report.notional:
            fields.append((tags.GROSS_TRADE_AMT, instrument.notional_text(report.notional)))
        if report.last_qty or report.exec_type in (ExecType.TRADE, ExecType.TRADE_CORRECT, ExecType.TRADE_CANCEL):
            fields += [
                (tags.LAST_QTY, instrument.quantity_text(report.last_qty)),
                (tags.LAST_PX, instrument.price_text(report.last_px)),
            ]
        if report.exec_restatement_reason is not None:
            fields.append((tags.EXEC_RESTATEMENT_REASON, report.exec_restatement_reason.value))
        if report.ord_rej_reason is not None:
            fields.append((tags.ORD_REJ_REASON, str(report.ord_rej_reason)))
        if report.poss_resend:
            fields.append((tags.POSS_RESEND, "Y"))
        if report.req_id and query is not None:
            fields.append((_REQUEST_IDS[query.msg_type], report.req_id))
            fields.append((tags.LAST_RPT_REQUESTED, "Y" if report.last_rpt_requested else "N"))
            if report.tot_num_reports is not None:
                fields.append((tags.TOT_NUM_REPORTS, str(report.tot_num_reports)))
        return fields

    def _encode_capture(self, report: ExecutionReport, query: Query) -> FixMessage:
        if report.tot_num_reports == 0:
            ack = non_empty(
                (tags.TRADE_REQUEST_ID, report.req_id),
                (tags.TRADE_REQUEST_TYPE, "0"),
                (tags.TOT_NUM_TRADE_REPORTS, "0"),
                (tags.TRADE_REQUEST_RESULT, "0"),
                (tags.TRADE_REQUEST_STATUS, "1"),
                (tags.SYMBOL, "[N/A]"),
            )
            return FixMessage("AQ", ack)
        fields = self._encode_report(report, query)
        side = [(tag, value) for tag, value in fields if tag in _SIDE_TAGS]
        side.sort(key=lambda field: field[0] != tags.SIDE)
        return FixMessage(
            "AE",
            [
                (tags.TRADE_REPORT_ID, f"{report.trade_date}/{report.exec_id}"),
                (tags.PREVIOUSLY_REPORTED, "Y"),
                (tags.TOT_NUM_TRADE_REPORTS, str(report.tot_num_reports or 1)),
                *[(tag, value) for tag, value in fields if tag in _CAPTURE_TAGS],
                (tags.NO_SIDES, [side]),
            ],
        )

    def decode_inbound(self, parsed: ParsedMessage) -> Inbound | None:
        """Decode a venue's message; None when it is not about an order, a position or a book.

        Raises `FixMessageError`.
        """
        kind = parsed.kind
        if kind in (MsgType.EXECUTION_REPORT, "AE"):
            return self._decode_report(parsed)
        if kind == MsgType.ORDER_CANCEL_REJECT:
            return CancelReject(
                cl_ord_id=parsed.require(tags.CL_ORD_ID),
                orig_cl_ord_id=parsed.get(tags.ORIG_CL_ORD_ID),
                ord_status=_parse_member(OrdStatus, parsed.require(tags.ORD_STATUS), tags.ORD_STATUS),
                account=parsed.get(tags.ACCOUNT),
                order_id=parsed.get(tags.ORDER_ID),
                cxl_rej_reason=int(parsed.get(tags.CXL_REJ_REASON, "0") or 0),
                cxl_rej_response_to=parsed.get(tags.CXL_REJ_RESPONSE_TO, "1"),
                text=parsed.get(tags.TEXT),
            )
        if kind == MsgType.POSITION_REPORT:
            instrument = self.instrument_of(parsed.get(tags.SYMBOL))
            quantities = parsed.groups(tags.NO_POSITIONS)
            net = sum(
                _parse_lots(instrument, quantity.get(tags.LONG_QTY, "0"))
                - _parse_lots(instrument, quantity.get(tags.SHORT_QTY, "0"))
                for quantity in quantities
            )
            return PositionReport(
                req_id=parsed.get(tags.POS_REQ_ID),
                account=parsed.get(tags.ACCOUNT),
                symbol=parsed.get(tags.SYMBOL),
                net_qty=net,
                reference_version=parsed.get(tags.REFERENCE_VERSION),
                last_rpt_requested=parsed.get(tags.TOTAL_NUM_POS_REPORTS, "1") in ("0", "1"),
                **_decode_leg(parsed),
            )
        if kind == MsgType.SECURITY_STATUS:
            reason = _REASONS.get(parsed.get(tags.SECURITY_TRADING_STATUS), "halt")
            return SecurityStatus(
                symbol=parsed.require(tags.SYMBOL),
                trading=reason == "open",
                reason=reason,
                trade_date=_parse_date(parsed.get(tags.TRADE_DATE)),
                reference_version=parsed.get(tags.REFERENCE_VERSION),
            )
        if kind == "AQ" and parsed.get(tags.TOT_NUM_TRADE_REPORTS, "0") == "0":
            return _empty_answer(parsed.get(tags.TRADE_REQUEST_ID), parsed.get(tags.ACCOUNT))
        return None

    def _decode_report(self, parsed: ParsedMessage) -> ExecutionReport:
        instrument = self.instrument_of(parsed.get(tags.SYMBOL))
        exec_type = _parse_member(ExecType, parsed.require(tags.EXEC_TYPE), tags.EXEC_TYPE)
        captured = parsed.kind == "AE"
        cum_qty = _parse_lots(instrument, parsed.get(tags.CUM_QTY, "0") or "0")
        notional = _parse_notional(instrument, parsed.get(tags.GROSS_TRADE_AMT), parsed.get(tags.AVG_PX), cum_qty)
        total = parsed.get(tags.TOT_NUM_REPORTS) or parsed.get(tags.TOT_NUM_TRADE_REPORTS)
        req_id = (
            parsed.get(tags.ORD_STATUS_REQ_ID)
            or parsed.get(tags.MASS_STATUS_REQ_ID)
            or parsed.get(tags.TRADE_REQUEST_ID)
        )
        reason = parsed.get(tags.EXEC_RESTATEMENT_REASON)
        return ExecutionReport(
            exec_type=exec_type,
            ord_status=_parse_member(OrdStatus, parsed.get(tags.ORD_STATUS, "0"), tags.ORD_STATUS),
            cl_ord_id=parsed.get(tags.CL_ORD_ID),
            exec_id=parsed.require(tags.EXEC_ID),
            symbol=parsed.get(tags.SYMBOL),
            side=_parse_member(Side, parsed.get(tags.SIDE, "1"), tags.SIDE),
            order_qty=_parse_lots(instrument, parsed.get(tags.ORDER_QTY, "0") or "0"),
            cum_qty=cum_qty,
            leaves_qty=_parse_lots(instrument, parsed.get(tags.LEAVES_QTY, "0") or "0"),
            notional=notional,
            last_qty=_parse_lots(instrument, parsed.get(tags.LAST_QTY, "0") or "0"),
            last_px=_parse_ticks(instrument, parsed.get(tags.LAST_PX, "0") or "0"),
            order_id=parsed.get(tags.ORDER_ID).replace("NONE", ""),
            orig_cl_ord_id=parsed.get(tags.ORIG_CL_ORD_ID),
            exec_ref_id=parsed.get(tags.EXEC_REF_ID),
            exec_ref_date=_parse_date(parsed.get(tags.EXEC_REF_DATE)),
            account=parsed.get(tags.ACCOUNT),
            cl_ord_link_id=parsed.get(tags.CL_ORD_LINK_ID),
            trade_date=_parse_date(parsed.get(tags.TRADE_DATE)),
            order_date=_parse_date(parsed.get(tags.TRADE_ORIGINATION_DATE)),
            exec_restatement_reason=_parse_member(ExecRestatementReason, reason, tags.EXEC_RESTATEMENT_REASON)
            if reason
            else None,
            reference_version=parsed.get(tags.REFERENCE_VERSION),
            ord_rej_reason=int(parsed.get(tags.ORD_REJ_REASON)) if parsed.get(tags.ORD_REJ_REASON).isdigit() else None,
            text=parsed.get(tags.TEXT),
            req_id=req_id,
            last_rpt_requested=parsed.get(tags.LAST_RPT_REQUESTED) == "Y" or bool(parsed.get(tags.ORD_STATUS_REQ_ID)),
            tot_num_reports=int(total) if total.isdigit() else None,
            poss_resend=captured or parsed.get(tags.POSS_RESEND) == "Y",
            transact_time_ns=parse_utc_timestamp(parsed.get(tags.TRANSACT_TIME)),
            **_decode_terms(parsed, instrument),
        )


def make_business_reject(parsed: ParsedMessage, reason: int, text: str) -> FixMessage:
    """Returns a BusinessMessageReject (j) for a message."""
    fields = [
        (tags.REF_SEQ_NUM, parsed.get(tags.MSG_SEQ_NUM)),
        (tags.REF_MSG_TYPE, parsed.kind),
        (tags.BUSINESS_REJECT_REF_ID, parsed.get(tags.CL_ORD_ID) or _request_id_of(parsed)),
        (tags.BUSINESS_REJECT_REASON, str(reason)),
    ]
    return FixMessage("j", non_empty(*fields, (tags.TEXT, text)))


def decode_business_reject(parsed: ParsedMessage, queries: Mapping[str, Query]) -> Inbound | None:
    """Decode a BusinessMessageReject (j): a new order is rejected, a query gets an empty answer.

    When the venue does not support the status query of a single order, returns None: the order stays as it is.
    """
    kind, request_id = parsed.get(tags.REF_MSG_TYPE), parsed.get(tags.BUSINESS_REJECT_REF_ID)
    if kind == MsgType.NEW_ORDER_SINGLE and request_id:
        return ExecutionReport(
            exec_type=ExecType.REJECTED,
            ord_status=OrdStatus.REJECTED,
            cl_ord_id=request_id,
            exec_id=f"j{parsed.get(tags.MSG_SEQ_NUM)}",
            text=parsed.get(tags.TEXT),
        )
    query = queries.get(request_id) or next(
        (candidate for candidate in reversed(list(queries.values())) if candidate.msg_type == kind), None
    )
    if query is None or kind == MsgType.ORDER_STATUS_REQUEST:
        return None
    if kind == MsgType.REQUEST_FOR_POSITIONS:
        return PositionReport(req_id=query.req_id, account=query.account, symbol="", net_qty=0, last_rpt_requested=True)
    return _empty_answer(query.req_id, query.account)


def _empty_answer(req_id: str, account: str) -> ExecutionReport:
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


def _request_id_of(parsed: ParsedMessage) -> str:
    return next(
        (
            parsed.get(tag)
            for tag in (
                tags.ORD_STATUS_REQ_ID,
                tags.MASS_STATUS_REQ_ID,
                tags.TRADE_REQUEST_ID,
                tags.POS_REQ_ID,
                tags.MD_REQ_ID,
                tags.SECURITY_STATUS_REQ_ID,
            )
            if parsed.get(tag)
        ),
        "",
    )


def _encode_query(query: Query, now_ns: int, trade_date: str) -> FixMessage:
    tag = _REQUEST_IDS[query.msg_type]
    fields: list[Field]
    if query.msg_type == MsgType.ORDER_STATUS_REQUEST:
        # Side is required, and a query does not have it: 7 is undisclosed.
        fields = [
            (tags.CL_ORD_ID, query.cl_ord_id),
            (tags.ORDER_ID, query.order_id),
            (tags.SYMBOL, query.symbol),
            (tags.SIDE, "7"),
        ]
    elif query.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
        fields = [(tags.MASS_STATUS_REQ_TYPE, "7")]
    elif query.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
        since_fields: list[Field] = [(tags.TRADE_DATE, _format_date(query.since_date or trade_date))]
        if query.since_ns:
            since_fields.append((tags.TRANSACT_TIME, format_utc_timestamp(query.since_ns)))
        # This message has no Account field: the account is a party with the role of a customer account.
        party: list[Field] = [(tags.PARTY_ID, query.account), (tags.PARTY_ID_SOURCE, "D"), (tags.PARTY_ROLE, "24")]
        fields = [
            (tags.TRADE_REQUEST_TYPE, "0"),
            (tags.SUBSCRIPTION_REQUEST_TYPE, "0"),
            (tags.NO_DATES, [since_fields]),
        ]
        return FixMessage(query.msg_type.value, [(tag, query.req_id), (tags.NO_PARTY_I_DS, [party]), *fields])
    else:
        fields = [
            (tags.POS_REQ_TYPE, "0"),
            (tags.ACCOUNT_TYPE, "1"),
            (tags.CLEARING_BUSINESS_DATE, _format_date(trade_date)),
            (tags.TRANSACT_TIME, format_utc_timestamp(now_ns)),
        ]
    return FixMessage(query.msg_type.value, non_empty((tag, query.req_id), (tags.ACCOUNT, query.account), *fields))


def _decode_query(kind: MsgType, parsed: ParsedMessage) -> Query:
    dates = parsed.groups(tags.NO_DATES)
    first = dates[0] if dates else {}
    tag = _REQUEST_IDS[kind]
    status = kind == MsgType.ORDER_STATUS_REQUEST
    return Query(
        msg_type=kind,
        req_id=parsed.get(tag) or parsed.require(tags.CL_ORD_ID) if status else parsed.require(tag),
        account=parsed.get(tags.ACCOUNT) or parsed.get(tags.PARTY_ID),
        symbol=parsed.get(tags.SYMBOL),
        cl_ord_id=parsed.require(tags.CL_ORD_ID) if status else "",
        order_id=parsed.get(tags.ORDER_ID),
        since_date=_parse_date(first.get(tags.TRADE_DATE, "")),
        since_ns=parse_utc_timestamp(first.get(tags.TRANSACT_TIME, "")),
    )


def _encode_terms(message: Request | ExecutionReport, instrument: Instrument) -> list[Field]:
    fields: list[Field] = [(tags.ORD_TYPE, message.ord_type.value), (tags.TIME_IN_FORCE, message.time_in_force.value)]
    if message.price is not None:
        fields.append((tags.PRICE, instrument.price_text(message.price)))
    if message.stop_px is not None:
        fields.append((tags.STOP_PX, instrument.price_text(message.stop_px)))
    if message.expire_date:
        fields.append((tags.EXPIRE_DATE, _format_date(message.expire_date)))
    if message.contingency_type is not None:
        fields += non_empty((tags.LIST_ID, message.list_id), (tags.CONTINGENCY_TYPE, message.contingency_type.value))
    return [*fields, (tags.POSITION_EFFECT, message.position_effect.value), *_encode_leg(message)]


def _encode_leg(message: Request | ExecutionReport | PositionReport) -> list[Field]:
    side = message.position_side.value if message.position_side is not None else ""
    return non_empty((tags.POSITION_SIDE, side), (tags.POSITION_ID, message.position_id))


def _decode_leg(parsed: ParsedMessage) -> dict[str, Any]:
    side = parsed.get(tags.POSITION_SIDE)
    return {
        "position_side": _parse_member(PositionSide, side, tags.POSITION_SIDE) if side else None,
        "position_id": parsed.get(tags.POSITION_ID),
    }


def _decode_terms(parsed: ParsedMessage, instrument: Instrument) -> dict[str, Any]:
    price, stop = parsed.get(tags.PRICE), parsed.get(tags.STOP_PX)
    contingency = parsed.get(tags.CONTINGENCY_TYPE)
    return {
        "ord_type": _parse_member(OrdType, parsed.get(tags.ORD_TYPE, "2"), tags.ORD_TYPE),
        "time_in_force": _parse_member(TimeInForce, parsed.get(tags.TIME_IN_FORCE, "0"), tags.TIME_IN_FORCE),
        "price": _parse_ticks(instrument, price) if price else None,
        "stop_px": _parse_ticks(instrument, stop) if stop else None,
        "expire_date": _parse_date(parsed.get(tags.EXPIRE_DATE)),
        "position_effect": _parse_member(PositionEffect, parsed.get(tags.POSITION_EFFECT, "O"), tags.POSITION_EFFECT),
        "list_id": parsed.get(tags.LIST_ID),
        "contingency_type": _parse_member(ContingencyType, contingency, tags.CONTINGENCY_TYPE) if contingency else None,
        **_decode_leg(parsed),
    }


def _parse_member(kind: Any, value: str, tag: int) -> Any:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(sorted(member.value for member in kind))
        raise FixMessageError(f"value {value!r} of tag {tag} is not taken here; there are {allowed}", tag) from None


def _parse_lots(instrument: Instrument, text: str) -> int:
    try:
        return instrument.lots(text)
    except ValueError as problem:
        raise FixMessageError(str(problem), tags.ORDER_QTY) from problem


def _parse_ticks(instrument: Instrument, text: str) -> int:
    try:
        return instrument.ticks(text)
    except ValueError as problem:
        raise FixMessageError(str(problem), tags.PRICE) from problem


def _parse_notional(instrument: Instrument, gross: str, average: str, cum_qty: int) -> int:
    """Lots x ticks: exact from GrossTradeAmt (381), else the nearest value that AvgPx (6) gives."""
    unit = Decimal(instrument.lot_size) * Decimal(instrument.tick_size)
    try:
        if gross:
            return int((Decimal(gross) / unit).to_integral_value(ROUND_HALF_EVEN))
        return int((Decimal(average or 0) * cum_qty / Decimal(instrument.tick_size)).to_integral_value(ROUND_HALF_EVEN))
    except (InvalidOperation, ValueError) as problem:
        raise FixMessageError(f"AvgPx {average!r} or GrossTradeAmt {gross!r} is no decimal", tags.AVG_PX) from problem
