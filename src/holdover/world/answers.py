"""The venue's answers to queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from holdover.model import (
    ExecType,
    ExecutionReport,
    ImpossibleStateError,
    Inbound,
    MsgType,
    OrdStatus,
    PositionReport,
    Query,
)

if TYPE_CHECKING:
    from holdover.world.venue import Venue

_UNKNOWN_ORDER = 5
"""OrdRejReason (103): unknown order."""


def answer_query(venue: Venue, query: Query) -> list[Inbound]:
    """Return the messages that answer a query, in order: at least one, and the last one is marked as the last."""
    if query.msg_type == MsgType.ORDER_STATUS_REQUEST:
        return [order_status(venue, query)]
    if query.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
        return mass_status(venue, query)
    if query.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
        return executions_since(venue, query)
    if query.msg_type == MsgType.COLLATERAL_INQUIRY:
        return [*venue.accounts.answer(query)]
    if query.msg_type != MsgType.REQUEST_FOR_POSITIONS:
        raise ImpossibleStateError(f"query {query.req_id} is a {query.msg_type.name}, which is no query")
    return positions(venue, query)


def order_status(venue: Venue, query: Query) -> ExecutionReport:
    """Return the status of an order, open or closed.

    The answer is "unknown order" when the venue has no such order, or while a not-found fault is active.
    """
    order = venue.find_order(query.cl_ord_id)
    if venue.not_found_count:
        venue.not_found_count -= 1
        order = None
    if order is None or order.account != query.account:
        return _empty_report(venue, query, ord_rej_reason=_UNKNOWN_ORDER, cl_ord_id=query.cl_ord_id)
    return venue.reports.status_report(order, req_id=query.req_id, last_rpt_requested=True)


def mass_status(venue: Venue, query: Query) -> list[Inbound]:
    """Return one status report for each open order of the account."""
    orders = [order for order in venue.orders.values() if order.account == query.account and order.is_open]
    if not orders:
        return [_empty_report(venue, query)]
    return [
        venue.reports.status_report(
            order,
            req_id=query.req_id,
            tot_num_reports=len(orders),
            last_rpt_requested=order is orders[-1],
        )
        for order in orders
    ]


def executions_since(venue: Venue, query: Query) -> list[Inbound]:
    """Return every trade, bust and correction since a trade date or a time, as first reported, marked PossResend."""
    reports = []
    for report in reversed(venue.trades):  # trades are in time order
        if report.trade_date < query.since_date or report.transact_time_ns < query.since_ns:
            break
        if report.account == query.account:
            reports.append(report)
    reports.reverse()
    if not reports:
        return [_empty_report(venue, query)]
    last = len(reports) - 1
    return [
        replace(
            report,
            poss_resend=True,
            req_id=query.req_id,
            tot_num_reports=len(reports),
            last_rpt_requested=number == last,
        )
        for number, report in enumerate(reports)
    ]


def positions(venue: Venue, query: Query) -> list[Inbound]:
    """Return the account's position in each instrument and leg; one report without a symbol when there is none."""
    account_positions = [position for position in venue.positions.values() if position.account == query.account]
    if not account_positions:
        return [
            PositionReport(req_id=query.req_id, account=query.account, symbol="", net_qty=0, last_rpt_requested=True)
        ]
    return [
        PositionReport(
            req_id=query.req_id,
            account=position.account,
            symbol=position.symbol,
            net_qty=position.net_qty,
            reference_version=position.reference_version,
            last_rpt_requested=position is account_positions[-1],
            position_side=position.position_side,
            position_id=position.position_id,
        )
        for position in account_positions
    ]


def _empty_report(
    venue: Venue, query: Query, *, ord_rej_reason: int | None = None, cl_ord_id: str = ""
) -> ExecutionReport:
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
        transact_time_ns=venue.reports.clock.now_ns,
    )
