"""The venue's view of orders and positions, kept next to the desk's: the guard compares the two.

Orders come from the venue's reports, positions from its position reports and trades; both are recorded as the subsystem
`venue`. For a venue that reports no positions the desk's own are used, and only the venue's trades change them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from msgspec.structs import replace

from holdover.model import (
    TRADES,
    ExecType,
    ExecutionReport,
    Inbound,
    Order,
    Position,
    PositionEffect,
    PositionReport,
    Side,
)
from holdover.runtime import Guard

_CHAIN: Final = "~"
_PENDING: Final = frozenset({ExecType.PENDING_NEW, ExecType.PENDING_CANCEL, ExecType.PENDING_REPLACE})


class VenueView:
    """The venue's view during one incarnation of a desk, on the desk's thread.

    `find` returns the desk's order for a ClOrdID: a venue need not repeat the account of an order.
    """

    subsystem = "venue"

    def __init__(self, guard: Guard, find: Callable[[str], Order | None]) -> None:
        self._guard, self._find_order = guard, find
        self._orders: dict[str, Order] = {}
        self._roots: dict[str, str] = {}
        self._positions: dict[str, Position] = {}
        self._trades: dict[tuple[str, str], int] = {}
        self._reported_executions: set[tuple[str, str]] = set()
        self._report_time_ns: dict[str, int] = {}

    def apply_message(self, message: Inbound) -> None:
        """Apply one message of the venue, before the desk receives it."""
        if isinstance(message, PositionReport):
            self._apply_position(message)
        elif isinstance(message, ExecutionReport) and message.cl_ord_id and message.ord_rej_reason is None:
            order = None if message.account else self._find_order(message.cl_ord_id)
            if order is not None:
                message = replace(message, account=order.account)
            self._apply_order(message)
            if message.exec_type in TRADES and not message.req_id:
                self._apply_trade(message)

    def use_desk_positions(self, positions: Iterable[Position]) -> None:
        """Use the desk's positions, because the venue reports none."""
        for position in positions:
            self._record_position(replace(position, carried_qty=0, reserved_qty=0))

    def _apply_order(self, report: ExecutionReport) -> None:
        root = self._roots.get(report.cl_ord_id) or self._roots.get(report.orig_cl_ord_id)
        root = root or report.cl_ord_id.partition(_CHAIN)[0]
        before = self._orders.get(root)
        if report.exec_type in _PENDING or (report.exec_type == ExecType.REJECTED and before is not None):
            return
        if bool(report.req_id) and report.exec_type != ExecType.ORDER_STATUS:
            self._apply_captured_trade(before, report)
            return
        self._reported_executions.add((report.trade_date, report.exec_id))
        self._roots[report.cl_ord_id] = root
        self._report_time_ns[root] = max(self._report_time_ns.get(root, 0), report.transact_time_ns)
        # The venue's record states no stop price, expiry, parent or position effect: its messages need not have them.
        order = report.to_order(
            root, stop_px=None, expire_date="", cl_ord_link_id="", position_effect=PositionEffect.OPEN
        )
        self._orders[root] = order
        self._guard.record(self.subsystem, order)

    def _apply_captured_trade(self, before: Order | None, report: ExecutionReport) -> None:
        """Apply a captured trade, which lacks the resulting order state, if it was not reported before.

        A trade from before the last report of the order is ignored, even if an earlier incarnation received that
        report.
        """
        mark = (report.trade_date, report.exec_id)
        if (
            before is None
            or mark in self._reported_executions
            or report.exec_type != ExecType.TRADE
            or not before.is_open
        ):
            return
        if report.transact_time_ns <= self._report_time_ns[before.key]:
            return
        self._reported_executions.add(mark)
        after = replace(
            before,
            cum_qty=before.cum_qty + report.last_qty,
            leaves_qty=before.leaves_qty - report.last_qty,
            notional=before.notional + report.last_qty * report.last_px,
            ord_status=report.ord_status,
        )
        self._orders[before.key] = after
        self._guard.record(self.subsystem, after)

    def _apply_trade(self, report: ExecutionReport) -> None:
        mark = (report.trade_date, report.exec_id)
        if mark in self._trades:
            return
        quantity = 0 if report.exec_type == ExecType.TRADE_CANCEL else report.last_qty
        signed = quantity if report.side == Side.BUY else -quantity
        self._trades[mark] = signed
        before = self._trades.get((report.exec_ref_date or report.trade_date, report.exec_ref_id), 0)
        position = self._positions.get(f"{report.account}/{report.symbol}")
        if position is None:
            position = Position(account=report.account, symbol=report.symbol, net_qty=0, trade_date=report.trade_date)
        self._record_position(replace(position, net_qty=position.net_qty + signed - before))

    def _apply_position(self, report: PositionReport) -> None:
        if report.symbol:
            position = Position(
                account=report.account,
                symbol=report.symbol,
                net_qty=report.net_qty,
                reference_version=report.reference_version,
            )
            self._record_position(position)
            return
        for position in list(self._positions.values()):
            if position.account == report.account:
                self._record_position(replace(position, net_qty=0))

    def _record_position(self, position: Position) -> None:
        self._positions[position.key] = position
        self._guard.record(self.subsystem, position)
