"""The order manager: the state of every order, derived from reports.

Quantities come from executions, and each is booked once under its venue, trade date and ExecID. A report's
CumQty is never copied, only compared: when it is ahead, an execution is missing and the desk queries it. A
request without an answer keeps the order pending, whatever fills cross it.

Source of the rules: FIX 4.4 and 5.0 SP2 volume 4, order state change matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from holdover.desk.config import DeskConfig
from holdover.desk.store import Store
from holdover.model import (
    TRADES,
    CancelReject,
    ExecRestatementReason,
    ExecType,
    Execution,
    ExecutionReport,
    ImpossibleStateError,
    Order,
    OrdStatus,
    Record,
    Request,
    Side,
    status_from_quantities,
)
from holdover.runtime import Guard

OrderChangeCallback = Callable[["Order | None", Order], None]
ExecutionCallback = Callable[[Execution], None]

CHAIN: Final = "~"
"""Separates, in a ClOrdID of the desk, the ClOrdID that began the chain from the suffix of the change."""

_REPLACE_RESPONSE: Final = "2"
"""CxlRejResponseTo (434): the refused request is an order cancel/replace request."""

_CLOSES: Final = {
    ExecType.CANCELED: OrdStatus.CANCELED,
    ExecType.EXPIRED: OrdStatus.EXPIRED,
    ExecType.REJECTED: OrdStatus.REJECTED,
}


class Orders:
    """Every order of the desk and its executions."""

    subsystem = "orders"

    def __init__(self, config: DeskConfig, store: Store, guard: Guard) -> None:
        self._config, self._store, self._guard = config, store, guard
        self._orders: dict[str, Order] = {}
        self._roots: dict[str, str] = {}
        self._executions: dict[str, Execution] = {}
        self._closing_keys: dict[str, set[str]] = {}
        self._contingent_keys: dict[str, dict[str, None]] = {}
        self._arrival_numbers: dict[str, int] = {}
        self._owners = {strategy.name: strategy for strategy in config.strategies}
        self.trade_date = ""
        self.latest_ns = 0
        self.on_order_change: OrderChangeCallback = lambda before, after: None
        self.on_execution: ExecutionCallback = lambda execution: None
        self.on_missing_execution: Callable[[Order], None] = lambda order: None

    # -- reading back -------------------------------------------------------------------------------------------

    def load(self, since_date: str) -> list[Record]:
        """Read the orders that are open or belong to the sessions since `since_date`; return the records read."""
        self._executions = {execution.key: execution for execution in self._store.executions(since_date)}
        self._orders = {order.key: order for order in map(self.restore_order, self._store.orders(since_date))}
        self._roots, self._closing_keys, self._arrival_numbers, self._contingent_keys = {}, {}, {}, {}
        for order in self._orders.values():
            self._index_order(order)
        return [*self._orders.values(), *self._executions.values()]

    def restore_order(self, order: Order) -> Order:
        """Return an order as it was stored."""
        return order

    def executions(self) -> list[Execution]:
        """Return the executions in memory, in the order of reading and booking."""
        return list(self._executions.values())

    # -- asking -------------------------------------------------------------------------------------------------

    def get(self, root: str) -> Order | None:
        """Return the order with that key, or None."""
        return self._orders.get(root)

    def find(self, cl_ord_id: str) -> Order | None:
        """Return an order by any ClOrdID of its chain, or None. Orders closed long ago are read from the store."""
        root_id = cl_ord_id.partition(CHAIN)[0]
        root = self._roots.get(cl_ord_id) or self._roots.get(root_id)
        if root is not None:
            return self._orders[root]
        stored = self._store.order(root_id)
        if stored is not None:
            self._orders[stored.key] = stored
            self._index_order(stored)
        return stored

    def is_known_id(self, cl_ord_id: str) -> bool:
        """Return whether this ClOrdID has been used, by an order or by a change in its chain."""
        return cl_ord_id in self._roots or (CHAIN not in cl_ord_id and self._store.order(cl_ord_id) is not None)

    def open_orders(self) -> list[Order]:
        """Return the orders that may still fill, in the order of arrival."""
        return [order for order in self._orders.values() if order.is_open]

    def closing_orders(self, book_key: str) -> list[Order]:
        """Return the open orders that close a position in this book, in the order of arrival."""
        keys = self._closing_keys.get(book_key)
        return [self._orders[key] for key in sorted(keys, key=self._arrival_numbers.__getitem__)] if keys else []

    def contingent_orders(self, book_key: str) -> list[Order]:
        """Return the orders in memory, open and closed, that belong to a list of contingent orders in this book."""
        return [self._orders[key] for key in self._contingent_keys.get(book_key, ()) if key in self._orders]

    def reserved_change(self, before: Order | None, after: Order) -> int:
        """Return by how much a change of an order changes the quantity that closing orders can take together.

        Of the orders of which only one can fill whole, only the largest counts.
        """
        if before is not None and before.key != after.key:
            raise ImpossibleStateError(f"{after!r} is no change of {before!r}")
        quantity_before, quantity = before.closing_qty if before else 0, after.closing_qty
        if not after.alternatives_key:
            return quantity - quantity_before
        others_qty = max(
            (
                order.closing_qty
                for order in self.contingent_orders(after.book_key)
                if order.alternatives_key == after.alternatives_key and order.key != after.key
            ),
            default=0,
        )
        return max(others_qty, quantity) - max(others_qty, quantity_before)

    def all_orders(self) -> list[Order]:
        """Return every order in memory."""
        return list(self._orders.values())

    # -- requests of ours ---------------------------------------------------------------------------------------

    def create(self, request: Request) -> None:
        """Record a new order before it is sent.

        Raises `ImpossibleStateError` for an order without a quantity or a key. A key that is used twice is for the
        guard to find.
        """
        if request.order_qty <= 0 or not request.root_cl_ord_id:
            raise ImpossibleStateError(f"a new order {request.root_cl_ord_id!r} of {request.order_qty} lots")
        self._save(None, request.to_order())

    def request_cancel(self, order: Order, request: Request) -> None:
        """Record a cancel request before it is sent: the order becomes pending and keeps its terms."""
        self._check_change(order, request)
        self._roots[request.cl_ord_id] = order.key
        self._save(order, replace(order, ord_status=OrdStatus.PENDING_CANCEL, exec_type=None, link=request.link))

    def request_replace(self, order: Order, request: Request) -> None:
        """Record a replace request before it is sent: the order becomes pending and keeps quantity and price."""
        self._check_change(order, request)
        self._roots[request.cl_ord_id] = order.key
        self._save(order, replace(order, ord_status=OrdStatus.PENDING_REPLACE, exec_type=None, link=request.link))

    @staticmethod
    def _check_change(order: Order, request: Request) -> None:
        """Raise `ImpossibleStateError` unless a request is about this order."""
        if request.root_cl_ord_id != order.key or request.symbol != order.symbol or request.side != order.side:
            raise ImpossibleStateError(f"{request!r} is about another order than {order!r}")

    def withdraw(self, order: Order, text: str) -> None:
        """Undo a request that the venue never received; a new order is closed as rejected."""
        is_unacknowledged = not order.order_id and order.cum_qty == 0
        if order.ord_status == OrdStatus.PENDING_NEW or (order.is_open and is_unacknowledged):
            self._save(order, replace(order, ord_status=OrdStatus.REJECTED, leaves_qty=0, exec_type=ExecType.REJECTED))
        elif order.is_pending:
            self._save(order, replace(order, ord_status=order.status_by_quantities, exec_type=None))

    # -- reports of the venue -----------------------------------------------------------------------------------

    def apply_report(self, report: ExecutionReport) -> None:
        """Apply one execution report that is not a status answer."""
        order = self.find(report.cl_ord_id) or (self.find(report.orig_cl_ord_id) if report.orig_cl_ord_id else None)
        if order is None:
            order = self.adopt_order(report)
        if report.exec_type in TRADES:
            self.apply_trade(order, report)
        elif report.exec_type in _CLOSES:
            self.apply_close(order, report)
        elif report.exec_type == ExecType.REPLACED:
            self.apply_replace(order, report)
        elif report.exec_type == ExecType.RESTATED:
            self.apply_restatement(order, report)
        else:
            self.apply_acknowledgement(order, report)

    def apply_trade(self, order: Order, report: ExecutionReport) -> None:
        """Apply a fill, a bust or a correction. Repeated reports are booked once."""
        execution = self._build_execution(order, report)
        if execution is None or self.is_booked(execution):
            return
        self.book(execution)
        cum_qty = order.cum_qty + execution.qty_delta
        after = replace(
            order,
            cum_qty=cum_qty,
            notional=order.notional + execution.notional_delta,
            exec_type=report.exec_type,
            exec_id=report.exec_id,
            exec_ref_id=report.exec_ref_id,
            order_id=report.order_id,
            transact_time_ns=max(order.transact_time_ns, report.transact_time_ns),
        )
        is_reopened = order.ord_status == OrdStatus.FILLED and cum_qty < order.order_qty
        if order.is_open or is_reopened:
            status = order.ord_status if order.is_pending else after.status_by_quantities
            if order.ord_status == OrdStatus.PENDING_NEW:
                status = after.status_by_quantities
            after = replace(after, ord_status=status, leaves_qty=after.order_qty - cum_qty)
        is_unknown_id = bool(report.cl_ord_id) and report.cl_ord_id not in self._roots
        self._save(order, after)
        if is_unknown_id and after.is_open:
            self.on_missing_execution(after)  # the report that moved the chain on was lost: the price may be wrong

    def is_booked(self, execution: Execution) -> bool:
        """Return whether this execution is already booked, today or on an earlier day."""
        return execution.key in self._executions or self._store.execution(execution.key) is not None

    def book(self, execution: Execution) -> None:
        """Store an execution and notify the books. Raises `ImpossibleStateError` when it has no ExecID."""
        if not execution.exec_id:
            raise ImpossibleStateError(f"an execution of {execution.root_cl_ord_id} without an ExecID")
        self._executions[execution.key] = execution
        self.latest_ns = max(self.latest_ns, execution.transact_time_ns)
        self._store.save(execution)
        self._guard.record(self.subsystem, execution)
        self.on_execution(execution)

    def apply_close(self, order: Order, report: ExecutionReport) -> None:
        """Apply a cancel, expiry or rejection."""
        if order.is_open:
            after = replace(
                order,
                ord_status=_CLOSES[report.exec_type],
                leaves_qty=0,
                exec_type=report.exec_type,
                exec_id=report.exec_id,
                order_id=report.order_id or order.order_id,
            )
            self._save(order, after)
            self._check_cum_qty(after, report)

    def apply_replace(self, order: Order, report: ExecutionReport) -> None:
        """Apply an accepted replace: the chain moves on to its ClOrdID."""
        self._roots[report.cl_ord_id] = order.key
        is_stale = bool(report.orig_cl_ord_id) and report.orig_cl_ord_id != order.cl_ord_id
        if is_stale:
            self._check_cum_qty(order, report)  # a late report: a status answer has already moved the chain on
            return
        # Also after fills that followed the replace: the chain moves on, because a bust may reopen the order.
        is_closed = not order.is_open and (order.ord_status != OrdStatus.FILLED or report.order_qty <= order.cum_qty)
        after = replace(
            order,
            cl_ord_id=report.cl_ord_id,
            orig_cl_ord_id=report.orig_cl_ord_id or order.cl_ord_id,
            order_qty=report.order_qty,
            price=report.price,
            stop_px=report.stop_px,
            leaves_qty=0 if is_closed else report.order_qty - order.cum_qty,
            exec_type=ExecType.REPLACED,
            exec_id=report.exec_id,
            order_id=report.order_id or order.order_id,
        )
        keeps_status = is_closed or order.ord_status == OrdStatus.PENDING_CANCEL
        self._save(order, replace(after, ord_status=order.ord_status if keeps_status else after.status_by_quantities))
        self._check_cum_qty(after, report)

    def apply_restatement(self, order: Order, report: ExecutionReport) -> None:
        """Apply a restatement: a new session, or a corporate action in new lots."""
        after = replace(
            order,
            exec_type=ExecType.RESTATED,
            exec_id=report.exec_id,
            exec_restatement_reason=report.exec_restatement_reason,
            reference_version=report.reference_version,
            order_qty=report.order_qty,
            price=report.price,
            stop_px=report.stop_px,
        )
        if report.exec_restatement_reason == ExecRestatementReason.GT_CORPORATE_ACTION:
            execution = self._build_execution(order, report)
            if execution is not None and not self.is_booked(execution):
                self.book(execution)
                after = replace(after, cum_qty=order.cum_qty + execution.qty_delta)
        if after.is_open:
            status = order.ord_status if order.is_pending else after.status_by_quantities
            after = replace(after, ord_status=status, leaves_qty=after.order_qty - after.cum_qty)
        self._save(order, after)
        self._check_cum_qty(after, report)

    def apply_acknowledgement(self, order: Order, report: ExecutionReport) -> None:
        """Apply a report that changes only the status: new, pending, done for the day, stopped, suspended."""
        if not order.is_open:
            return
        status = order.ord_status
        if report.exec_type == ExecType.NEW:
            status = order.status_by_quantities if status == OrdStatus.PENDING_NEW else status
        elif report.exec_type in (ExecType.DONE_FOR_DAY, ExecType.STOPPED, ExecType.SUSPENDED):
            status = report.ord_status
        after = replace(
            order,
            ord_status=status,
            exec_type=report.exec_type,
            exec_id=report.exec_id,
            order_id=report.order_id or order.order_id,
        )
        self._save(order, replace(after, leaves_qty=after.leaves_qty if after.is_open else 0))

    def apply_cancel_reject(self, reject: CancelReject) -> None:
        """Apply a cancel reject: the order returns to its former status."""
        order = self.find(reject.orig_cl_ord_id) or self.find(reject.cl_ord_id)
        is_replace = reject.cxl_rej_response_to == _REPLACE_RESPONSE
        if order is not None and order.ord_status == OrdStatus.PENDING_CANCEL and is_replace:
            return  # the cancel that was sent later still waits for its own answer
        if order is not None and order.is_pending and order.ord_status != OrdStatus.PENDING_NEW:
            after = replace(order, exec_type=None)
            self._save(order, replace(after, ord_status=after.status_by_quantities))
            if reject.ord_status != after.status_by_quantities:
                self.on_missing_execution(after)

    def apply_status(self, report: ExecutionReport) -> None:
        """Apply a status answer, unless an execution is missing."""
        order = self.find(report.cl_ord_id) or (self.find(report.orig_cl_ord_id) if report.orig_cl_ord_id else None)
        if report.ord_rej_reason == 5:
            if order is not None and order.is_open:
                self.withdraw(order, "unknown to the venue")
            return
        if order is None:
            order = self.adopt_order(report)
        if report.cum_qty != order.cum_qty:
            self.on_missing_execution(order)
            return
        if not order.is_open and report.leaves_qty == 0:
            return
        self._roots[report.cl_ord_id] = order.key
        is_replaced = report.cl_ord_id != order.cl_ord_id and report.exec_type == ExecType.ORDER_STATUS
        after = replace(
            order,
            cl_ord_id=report.cl_ord_id,
            orig_cl_ord_id=order.cl_ord_id if is_replaced else order.orig_cl_ord_id,
            order_qty=report.order_qty,
            price=report.price,
            stop_px=report.stop_px,
            ord_status=report.ord_status,
            leaves_qty=report.leaves_qty,
            exec_type=ExecType.ORDER_STATUS,
            order_id=report.order_id or order.order_id,
            reference_version=report.reference_version,
        )
        self._save(order, after)

    def adopt_order(self, report: ExecutionReport) -> Order:
        """Take over an unknown order: a lost order of the desk when its ClOrdID says so, otherwise a foreign one."""
        root_id = report.cl_ord_id.partition(CHAIN)[0]
        owner = self._owners.get(root_id.rsplit("-", 2)[0])
        foreign_root = report.orig_cl_ord_id or report.cl_ord_id or f"EXT-{report.order_id or report.exec_id}"
        root = root_id if owner else foreign_root
        earlier_qty = report.cum_qty - (report.last_qty if report.exec_type == ExecType.TRADE else 0)
        known_qty = 0 if owner else max(earlier_qty, 0)
        order = report.to_order(
            root,
            cl_ord_id=report.cl_ord_id or root,
            cum_qty=known_qty,
            notional=0 if owner else report.notional - report.last_qty * report.last_px,
            leaves_qty=report.order_qty - known_qty,
            ord_status=OrdStatus.PENDING_NEW if owner else status_from_quantities(known_qty, report.order_qty),
            strategy=owner.name if owner else "",
            foreign=owner is None,
            cl_ord_link_id=report.cl_ord_link_id if owner else "",
            intent_id=report.cl_ord_link_id if owner else "",
            link=self._config.link,
            exec_type=None,
            exec_id="",
            exec_ref_id="",
            exec_restatement_reason=None,
        )
        self._save(None, order)
        return order

    # -- inside -------------------------------------------------------------------------------------------------

    def _check_cum_qty(self, order: Order, report: ExecutionReport) -> None:
        if report.cum_qty != order.cum_qty:
            self.on_missing_execution(order)

    def _build_execution(self, order: Order, report: ExecutionReport) -> Execution | None:
        """Build the execution of a report; None when the execution that it refers to is missing."""
        quantity, notional = report.last_qty, report.last_qty * report.last_px
        if report.exec_type in (ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT):
            original_key = f"{self._config.venue}/{report.exec_ref_date or report.trade_date}/{report.exec_ref_id}"
            original = self._executions.get(original_key) or self._store.execution(original_key)
            if original is None:
                self.on_missing_execution(order)
                return None
            if report.exec_type == ExecType.TRADE_CANCEL:
                quantity = notional = 0
            quantity -= original.last_qty
            notional -= original.last_qty * original.last_px
        elif report.exec_type == ExecType.RESTATED:
            quantity, notional = report.cum_qty - order.cum_qty, 0
        instrument = self._config.instrument(report.symbol or order.symbol)
        cash = 0
        if instrument is not None and report.exec_type in TRADES:
            cash = instrument.cash(notional) * (-1 if order.side == Side.BUY else 1)
        return Execution(
            exec_id=report.exec_id,
            exec_type=report.exec_type,
            root_cl_ord_id=order.key,
            symbol=order.symbol,
            side=order.side,
            trade_date=report.trade_date,
            account=order.account,
            strategy=order.strategy,
            venue=self._config.venue,
            currency=instrument.currency if instrument else "",
            cl_ord_id=report.cl_ord_id,
            order_id=report.order_id,
            exec_ref_id=report.exec_ref_id,
            exec_ref_date=report.exec_ref_date,
            last_qty=report.last_qty,
            last_px=report.last_px,
            qty_delta=quantity,
            notional_delta=notional,
            cash_delta=cash,
            book_date=self.trade_date,
            foreign=order.foreign,
            transact_time_ns=report.transact_time_ns,
            position_side=order.position_side,
            position_id=order.position_id,
        )

    def _save(self, before: Order | None, after: Order) -> None:
        if after == before:
            return
        self._orders[after.key] = after
        self._index_order(after)
        self._store.save(after)
        self._guard.record(self.subsystem, after)
        self.on_order_change(before, after)

    def _index_order(self, order: Order) -> None:
        roots = self._roots
        roots[order.root_cl_ord_id] = roots[order.cl_ord_id] = order.key
        if order.orig_cl_ord_id:
            roots[order.orig_cl_ord_id] = order.key
        self._arrival_numbers.setdefault(order.key, len(self._arrival_numbers))
        if order.contingency_type is not None:
            self._contingent_keys.setdefault(order.book_key, {})[order.key] = None
        if order.is_open and order.closing_uncancelled_qty:
            self._closing_keys.setdefault(order.book_key, set()).add(order.key)
        elif order.book_key in self._closing_keys:
            self._closing_keys[order.book_key].discard(order.key)
