"""What the venue says, kept beside what the desk makes of it: the guard compares the two.

Orders as its reports state them and positions as it tells them, moved on by its trades, recorded as the subsystem
`venue`. A venue that does not tell positions contradicts nobody: the desk's own stand in, and only its trades count.
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
    OrdStatus,
    Position,
    PositionReport,
    Side,
)
from holdover.runtime import Guard

_CHAIN: Final = "~"
_PENDING: Final = frozenset({ExecType.PENDING_NEW, ExecType.PENDING_CANCEL, ExecType.PENDING_REPLACE})


class VenueWord:
    """The venue's word in one life of a desk, on the desk's thread.

    `find` gives the desk's order of a ClOrdID: a venue need not repeat the account that it was told.
    """

    subsystem = "venue"

    def __init__(self, guard: Guard, find: Callable[[str], Order | None]) -> None:
        self._guard, self._find = guard, find
        self._orders: dict[str, Order] = {}
        self._roots: dict[str, str] = {}
        self._positions: dict[str, Position] = {}
        self._trades: dict[tuple[str, str], int] = {}
        self._seen: set[tuple[str, str]] = set()
        self._stated_ns: dict[str, int] = {}

    def take(self, message: Inbound) -> None:
        """One message of the venue, before the desk has it."""
        if isinstance(message, PositionReport):
            self._position(message)
        elif isinstance(message, ExecutionReport) and message.cl_ord_id and message.ord_rej_reason is None:
            known = None if message.account else self._find(message.cl_ord_id)
            if known is not None:
                message = replace(message, account=known.account)
            self._order(message)
            if message.exec_type in TRADES and not message.req_id:
                self._trade(message)

    def not_told(self, held: Iterable[Position]) -> None:
        """The venue does not tell positions."""
        for position in held:
            self._hold(replace(position, carried_qty=0, reserved_qty=0))

    def _order(self, report: ExecutionReport) -> None:
        root = self._roots.get(report.cl_ord_id) or self._roots.get(report.orig_cl_ord_id)
        root = root or report.cl_ord_id.partition(_CHAIN)[0]
        before = self._orders.get(root)
        if report.exec_type in _PENDING or (report.exec_type == ExecType.REJECTED and before is not None):
            return
        if bool(report.req_id) and report.exec_type != ExecType.ORDER_STATUS:
            self._captured(before, report)
            return
        self._seen.add((report.trade_date, report.exec_id))
        self._roots[report.cl_ord_id] = root
        self._stated_ns[root] = max(self._stated_ns.get(root, 0), report.transact_time_ns)
        order = Order(
            root_cl_ord_id=root,
            cl_ord_id=report.cl_ord_id,
            orig_cl_ord_id=report.orig_cl_ord_id,
            order_id=report.order_id,
            account=report.account,
            symbol=report.symbol,
            side=report.side,
            order_qty=report.order_qty,
            leaves_qty=report.leaves_qty,
            cum_qty=report.cum_qty,
            notional=report.notional,
            ord_status=_standing(report),
            ord_type=report.ord_type,
            time_in_force=report.time_in_force,
            price=report.price,
            trade_date=report.order_date or report.trade_date,
            exec_type=report.exec_type,
            exec_id=report.exec_id,
            exec_ref_id=report.exec_ref_id,
            exec_restatement_reason=report.exec_restatement_reason,
            reference_version=report.reference_version,
        )
        self._orders[root] = order
        self._guard.record(self.subsystem, order)

    def _captured(self, before: Order | None, report: ExecutionReport) -> None:
        """A trade told again, without what the order came to by it: it counts where it was not heard before.

        Nor does it where it came before what a report has stated, though it was another life that heard it.
        """
        mark = (report.trade_date, report.exec_id)
        if before is None or mark in self._seen or report.exec_type != ExecType.TRADE or not before.is_open:
            return
        if report.transact_time_ns <= self._stated_ns[before.key]:
            return
        self._seen.add(mark)
        after = replace(
            before,
            cum_qty=before.cum_qty + report.last_qty,
            leaves_qty=before.leaves_qty - report.last_qty,
            notional=before.notional + report.last_qty * report.last_px,
            ord_status=report.ord_status,
        )
        self._orders[before.key] = after
        self._guard.record(self.subsystem, after)

    def _trade(self, report: ExecutionReport) -> None:
        mark = (report.trade_date, report.exec_id)
        if mark in self._trades:
            return
        quantity = 0 if report.exec_type == ExecType.TRADE_CANCEL else report.last_qty
        signed = quantity if report.side == Side.BUY else -quantity
        self._trades[mark] = signed
        before = self._trades.get((report.exec_ref_date or report.trade_date, report.exec_ref_id), 0)
        held = self._positions.get(f"{report.account}/{report.symbol}")
        if held is None:
            held = Position(account=report.account, symbol=report.symbol, net_qty=0, trade_date=report.trade_date)
        self._hold(replace(held, net_qty=held.net_qty + signed - before))

    def _position(self, report: PositionReport) -> None:
        if report.symbol:
            told = Position(
                account=report.account,
                symbol=report.symbol,
                net_qty=report.net_qty,
                reference_version=report.reference_version,
            )
            self._hold(told)
            return
        for held in list(self._positions.values()):
            if held.account == report.account:
                self._hold(replace(held, net_qty=0))

    def _hold(self, position: Position) -> None:
        self._positions[position.key] = position
        self._guard.record(self.subsystem, position)


def _standing(report: ExecutionReport) -> OrdStatus:
    """A venue may say Replaced of an order that goes on: then its quantities tell how it stands."""
    if report.ord_status != OrdStatus.REPLACED:
        return report.ord_status
    return OrdStatus.PARTIALLY_FILLED if report.cum_qty else OrdStatus.NEW
