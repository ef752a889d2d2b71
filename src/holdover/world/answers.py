"""What the venue answers when it is asked, as a venue would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from holdover.model import ExecType, ExecutionReport, Inbound, MsgType, OrdStatus, PositionReport, Query

if TYPE_CHECKING:
    from holdover.world.venue import Venue

_UNKNOWN_ORDER = 5
"""OrdRejReason (103): unknown order."""


def answer(venue: Venue, query: Query) -> list[Inbound]:
    """The messages that answer a query, in order; there is always at least one, and the last says that it is."""
    if query.msg_type == MsgType.ORDER_STATUS_REQUEST:
        return [order_status(venue, query)]
    if query.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
        return mass_status(venue, query)
    if query.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
        return executions_since(venue, query)
    return positions(venue, query)


def order_status(venue: Venue, query: Query) -> ExecutionReport:
    """The order's status, closed or not; "unknown order" where there is none, or where the venue misanswers."""
    order = venue.find(query.cl_ord_id)
    if venue.not_found:
        venue.not_found -= 1
        order = None
    if order is None or order.account != query.account:
        return _nothing(venue, query, ord_rej_reason=_UNKNOWN_ORDER, cl_ord_id=query.cl_ord_id)
    return venue.status_of(order, req_id=query.req_id, last_rpt_requested=True)


def mass_status(venue: Venue, query: Query) -> list[Inbound]:
    """One status report for each open order of the account."""
    found = [order for order in venue.orders.values() if order.account == query.account and order.is_open]
    if not found:
        return [_nothing(venue, query)]
    return [
        venue.status_of(
            order,
            req_id=query.req_id,
            tot_num_reports=len(found),
            last_rpt_requested=order is found[-1],
        )
        for order in found
    ]


def executions_since(venue: Venue, query: Query) -> list[Inbound]:
    """Every trade, bust and correction since a trade date or a time, as it was reported, marked PossResend."""
    found = []
    for report in reversed(venue.trades):  # they are in the order of their times
        if report.trade_date < query.since_date or report.transact_time_ns < query.since_ns:
            break
        if report.account == query.account:
            found.append(report)
    found.reverse()
    if not found:
        return [_nothing(venue, query)]
    last = len(found) - 1
    return [
        replace(
            report,
            poss_resend=True,
            req_id=query.req_id,
            tot_num_reports=len(found),
            last_rpt_requested=number == last,
        )
        for number, report in enumerate(found)
    ]


def positions(venue: Venue, query: Query) -> list[Inbound]:
    """The net position in each instrument of the account; one report without a symbol where there is none."""
    found = [held for held in venue.positions.values() if held.account == query.account]
    if not found:
        return [
            PositionReport(req_id=query.req_id, account=query.account, symbol="", net_qty=0, last_rpt_requested=True)
        ]
    return [
        PositionReport(
            req_id=query.req_id,
            account=held.account,
            symbol=held.symbol,
            net_qty=held.net_qty,
            reference_version=held.reference_version,
            last_rpt_requested=held is found[-1],
        )
        for held in found
    ]


def _nothing(venue: Venue, query: Query, *, ord_rej_reason: int | None = None, cl_ord_id: str = "") -> ExecutionReport:
    return ExecutionReport(
        exec_type=ExecType.ORDER_STATUS,
        ord_status=OrdStatus.REJECTED,
        cl_ord_id=cl_ord_id,
        exec_id="0",
        account=query.account,
        trade_date=venue.trade_date,
        ord_rej_reason=ord_rej_reason,
        req_id=query.req_id,
        tot_num_reports=0,
        last_rpt_requested=True,
        transact_time_ns=venue.clock.now_ns,
    )
