"""The order manager: what every order is, from the reports that say so.

Quantities come from executions, each booked once under its venue, trade date and ExecID; a report's own CumQty is never
copied, only compared, and where it is ahead of ours an execution is missing and is asked for. A request of ours that
waits for its answer keeps the order pending, whatever fills cross it.

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
    Order,
    OrdStatus,
    Record,
    Request,
    Side,
)
from holdover.runtime import Guard

Followed = Callable[["Order | None", Order], None]
Booked = Callable[[Execution], None]

CHAIN: Final = "~"
"""What stands in a ClOrdID of ours between the ClOrdID that began the chain and the mark of the change."""

_OF_A_REPLACE: Final = "2"
"""CxlRejResponseTo (434): what was refused is an order cancel/replace request."""

_CLOSES: Final = {
    ExecType.CANCELED: OrdStatus.CANCELED,
    ExecType.EXPIRED: OrdStatus.EXPIRED,
    ExecType.REJECTED: OrdStatus.REJECTED,
}


class Orders:
    """Every order of the desk and the executions booked to it."""

    subsystem = "orders"

    def __init__(self, config: DeskConfig, store: Store, guard: Guard) -> None:
        self._config, self._store, self._guard = config, store, guard
        self._orders: dict[str, Order] = {}
        self._roots: dict[str, str] = {}
        self._executions: dict[str, Execution] = {}
        self._closing: dict[str, set[str]] = {}
        self._came: dict[str, int] = {}
        self._owners = {strategy.name: strategy for strategy in config.strategies}
        self.trade_date = ""
        self.latest_ns = 0
        self.followed: Followed = lambda before, after: None
        self.booked: Booked = lambda execution: None
        self.missing: Callable[[Order], None] = lambda order: None

    # -- reading back -------------------------------------------------------------------------------------------

    def load(self, since: str) -> list[Record]:
        """Read back what is open or of the session that began on `since`; returns what was read."""
        self._executions = {one.key: one for one in self._store.executions(since)}
        self._orders = {one.key: one for one in map(self.restored, self._store.orders(since))}
        self._roots, self._closing, self._came = {}, {}, {}
        for order in self._orders.values():
            self._index(order)
        return [*self._orders.values(), *self._executions.values()]

    def restored(self, order: Order) -> Order:
        """An order as it was stored."""
        return order

    def executions(self) -> list[Execution]:
        """The executions held in memory, in the order of reading and booking."""
        return list(self._executions.values())

    # -- asking -------------------------------------------------------------------------------------------------

    def get(self, root: str) -> Order | None:
        """An order by its key."""
        return self._orders.get(root)

    def find(self, cl_ord_id: str) -> Order | None:
        """An order by any ClOrdID of its chain; one that is long closed is read from the store."""
        began = cl_ord_id.partition(CHAIN)[0]
        root = self._roots.get(cl_ord_id) or self._roots.get(began)
        if root is not None:
            return self._orders[root]
        stored = self._store.order(began)
        if stored is not None:
            self._orders[stored.key] = stored
            self._index(stored)
        return stored

    def knows(self, cl_ord_id: str) -> bool:
        """Whether this very ClOrdID has been seen, as an order's own or as one of its chain's."""
        return cl_ord_id in self._roots or (CHAIN not in cl_ord_id and self._store.order(cl_ord_id) is not None)

    def open(self) -> list[Order]:
        """The orders that may still fill, in the order in which they came."""
        return [order for order in self._orders.values() if order.is_open]

    def closing(self, book_key: str) -> list[Order]:
        """Those of them that close a position in this book, in the order in which they came."""
        keys = self._closing.get(book_key)
        return [self._orders[key] for key in sorted(keys, key=self._came.__getitem__)] if keys else []

    def all(self) -> list[Order]:
        """Every order held in memory."""
        return list(self._orders.values())

    # -- requests of ours ---------------------------------------------------------------------------------------

    def create(self, request: Request) -> None:
        """A new order that is about to be sent."""
        self._keep(
            None,
            Order(
                root_cl_ord_id=request.root_cl_ord_id,
                cl_ord_id=request.cl_ord_id,
                symbol=request.symbol,
                side=request.side,
                order_qty=request.order_qty,
                leaves_qty=request.order_qty,
                account=request.account,
                strategy=request.strategy,
                ord_type=request.ord_type,
                time_in_force=request.time_in_force,
                price=request.price,
                stop_px=request.stop_px,
                expire_date=request.expire_date,
                cl_ord_link_id=request.cl_ord_link_id,
                position_effect=request.position_effect,
                link=request.link,
                trade_date=request.trade_date,
                transact_time_ns=request.transact_time_ns,
            ),
        )

    def ask_cancel(self, order: Order, request: Request) -> None:
        """A cancel that is about to be sent: the order stays what it is until the venue answers."""
        self._roots[request.cl_ord_id] = order.key
        self._keep(order, replace(order, ord_status=OrdStatus.PENDING_CANCEL, exec_type=None, link=request.link))

    def ask_replace(self, order: Order, request: Request) -> None:
        """A replace that is about to be sent: quantity and price stay until the venue answers."""
        self._roots[request.cl_ord_id] = order.key
        self._keep(order, replace(order, ord_status=OrdStatus.PENDING_REPLACE, exec_type=None, link=request.link))

    def withdraw(self, order: Order, text: str) -> None:
        """The venue never got it, or it never left: it is over."""
        never_taken = not order.order_id and order.cum_qty == 0
        if order.ord_status == OrdStatus.PENDING_NEW or (order.is_open and never_taken):
            self._keep(order, replace(order, ord_status=OrdStatus.REJECTED, leaves_qty=0, exec_type=ExecType.REJECTED))
        elif order.is_pending:
            self._keep(order, replace(order, ord_status=standing(order), exec_type=None))

    # -- reports of the venue -----------------------------------------------------------------------------------

    def report(self, report: ExecutionReport) -> None:
        """Apply one execution report that is not a status answer."""
        order = self.find(report.cl_ord_id) or (self.find(report.orig_cl_ord_id) if report.orig_cl_ord_id else None)
        if order is None:
            order = self.adopt(report)
        if report.exec_type in TRADES:
            self.trade(order, report)
        elif report.exec_type in _CLOSES:
            self.closed(order, report)
        elif report.exec_type == ExecType.REPLACED:
            self.replaced(order, report)
        elif report.exec_type == ExecType.RESTATED:
            self.restate(order, report)
        else:
            self.accepted(order, report)

    def trade(self, order: Order, report: ExecutionReport) -> None:
        """A fill, a bust or a correction: booked once, however often it is told."""
        execution = self._execution(order, report)
        if execution is None or self.seen(execution):
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
        reopened = order.ord_status == OrdStatus.FILLED and cum_qty < order.order_qty
        if order.is_open or reopened:
            status = order.ord_status if order.is_pending else standing(after)
            if order.ord_status == OrdStatus.PENDING_NEW:
                status = standing(after)
            after = replace(after, ord_status=status, leaves_qty=after.order_qty - cum_qty)
        unheard = bool(report.cl_ord_id) and report.cl_ord_id not in self._roots
        self._keep(order, after)
        if unheard and after.is_open:
            self.missing(after)  # its chain has moved on, and we have lost how: its price is not what we believe

    def seen(self, execution: Execution) -> bool:
        """Whether this execution has been booked already, today or on any day before."""
        return execution.key in self._executions or self._store.execution(execution.key) is not None

    def book(self, execution: Execution) -> None:
        """Write an execution down and tell the books."""
        self._executions[execution.key] = execution
        self.latest_ns = max(self.latest_ns, execution.transact_time_ns)
        self._store.put(execution)
        self._guard.record(self.subsystem, execution)
        self.booked(execution)

    def closed(self, order: Order, report: ExecutionReport) -> None:
        """Cancelled, expired or rejected: nothing is left to fill."""
        if order.is_open:
            after = replace(
                order,
                ord_status=_CLOSES[report.exec_type],
                leaves_qty=0,
                exec_type=report.exec_type,
                exec_id=report.exec_id,
                order_id=report.order_id or order.order_id,
            )
            self._keep(order, after)
            self._compare(after, report)

    def replaced(self, order: Order, report: ExecutionReport) -> None:
        """The venue has accepted a replace: the chain moves on to its ClOrdID."""
        self._roots[report.cl_ord_id] = order.key
        stale = bool(report.orig_cl_ord_id) and report.orig_cl_ord_id != order.cl_ord_id
        if stale:
            self._compare(order, report)  # told late: a status answer has moved the chain on already
            return
        # Told after the fills that followed it: the chain moves on all the same, for a bust may open the order again.
        over = not order.is_open and (order.ord_status != OrdStatus.FILLED or report.order_qty <= order.cum_qty)
        after = replace(
            order,
            cl_ord_id=report.cl_ord_id,
            orig_cl_ord_id=report.orig_cl_ord_id or order.cl_ord_id,
            order_qty=report.order_qty,
            price=report.price,
            leaves_qty=0 if over else report.order_qty - order.cum_qty,
            exec_type=ExecType.REPLACED,
            exec_id=report.exec_id,
            order_id=report.order_id or order.order_id,
        )
        stays = over or order.ord_status == OrdStatus.PENDING_CANCEL
        self._keep(order, replace(after, ord_status=order.ord_status if stays else standing(after)))
        self._compare(after, report)

    def restate(self, order: Order, report: ExecutionReport) -> None:
        """Carried into a new session, or restated by a corporate action in new lots."""
        after = replace(
            order,
            exec_type=ExecType.RESTATED,
            exec_id=report.exec_id,
            exec_restatement_reason=report.exec_restatement_reason,
            reference_version=report.reference_version,
            order_qty=report.order_qty,
            price=report.price,
        )
        if report.exec_restatement_reason == ExecRestatementReason.GT_CORPORATE_ACTION:
            execution = self._execution(order, report)
            if execution is not None and not self.seen(execution):
                self.book(execution)
                after = replace(after, cum_qty=order.cum_qty + execution.qty_delta)
        if after.is_open:
            status = order.ord_status if order.is_pending else standing(after)
            after = replace(after, ord_status=status, leaves_qty=after.order_qty - after.cum_qty)
        self._keep(order, after)
        self._compare(after, report)

    def accepted(self, order: Order, report: ExecutionReport) -> None:
        """New, pending, done for the day, stopped, suspended: a status without a quantity."""
        if not order.is_open:
            return
        status = order.ord_status
        if report.exec_type == ExecType.NEW:
            status = standing(order) if status == OrdStatus.PENDING_NEW else status
        elif report.exec_type in (ExecType.DONE_FOR_DAY, ExecType.STOPPED, ExecType.SUSPENDED):
            status = report.ord_status
        after = replace(
            order,
            ord_status=status,
            exec_type=report.exec_type,
            exec_id=report.exec_id,
            order_id=report.order_id or order.order_id,
        )
        self._keep(order, replace(after, leaves_qty=after.leaves_qty if after.is_open else 0))

    def refused(self, reject: CancelReject) -> None:
        """The venue has refused a cancel or a replace: the order stands as it stood."""
        order = self.find(reject.orig_cl_ord_id) or self.find(reject.cl_ord_id)
        replacing = reject.cxl_rej_response_to == _OF_A_REPLACE
        if order is not None and order.ord_status == OrdStatus.PENDING_CANCEL and replacing:
            return  # the cancel that was sent after it still waits for its own answer
        if order is not None and order.is_pending and order.ord_status != OrdStatus.PENDING_NEW:
            after = replace(order, exec_type=None)
            self._keep(order, replace(after, ord_status=standing(after)))
            if reject.ord_status != standing(after):
                self.missing(after)

    def answered(self, report: ExecutionReport) -> None:
        """A status answer: what it says holds now, provided that no execution is missing."""
        order = self.find(report.cl_ord_id) or (self.find(report.orig_cl_ord_id) if report.orig_cl_ord_id else None)
        if report.ord_rej_reason == 5:
            if order is not None and order.is_open:
                self.withdraw(order, "unknown to the venue")
            return
        if order is None:
            order = self.adopt(report)
        if report.cum_qty != order.cum_qty:
            self.missing(order)
            return
        if not order.is_open and report.leaves_qty == 0:
            return
        self._roots[report.cl_ord_id] = order.key
        moved = report.cl_ord_id != order.cl_ord_id and report.exec_type == ExecType.ORDER_STATUS
        after = replace(
            order,
            cl_ord_id=report.cl_ord_id,
            orig_cl_ord_id=order.cl_ord_id if moved else order.orig_cl_ord_id,
            order_qty=report.order_qty,
            price=report.price,
            ord_status=report.ord_status,
            leaves_qty=report.leaves_qty,
            exec_type=ExecType.ORDER_STATUS,
            order_id=report.order_id or order.order_id,
            reference_version=report.reference_version,
        )
        self._keep(order, after)

    def adopt(self, report: ExecutionReport) -> Order:
        """An order that we do not know: ours where its ClOrdID says so (we have lost it), else a foreign one."""
        began = report.cl_ord_id.partition(CHAIN)[0]
        owner = self._owners.get(began.rsplit("-", 2)[0])
        foreign_root = report.orig_cl_ord_id or report.cl_ord_id or f"EXT-{report.order_id or report.exec_id}"
        root = began if owner else foreign_root
        told_before = report.cum_qty - (report.last_qty if report.exec_type == ExecType.TRADE else 0)
        known = 0 if owner else max(told_before, 0)
        order = Order(
            root_cl_ord_id=root,
            cl_ord_id=report.cl_ord_id or root,
            orig_cl_ord_id=report.orig_cl_ord_id,
            symbol=report.symbol,
            side=report.side,
            order_qty=report.order_qty,
            cum_qty=known,
            notional=0 if owner else report.notional - report.last_qty * report.last_px,
            leaves_qty=report.order_qty - known,
            ord_status=OrdStatus.PENDING_NEW if owner else _standing(known, report.order_qty),
            account=report.account,
            strategy=owner.name if owner else "",
            foreign=owner is None,
            ord_type=report.ord_type,
            time_in_force=report.time_in_force,
            price=report.price,
            stop_px=report.stop_px,
            expire_date=report.expire_date,
            order_id=report.order_id,
            cl_ord_link_id=report.cl_ord_link_id if owner else "",
            position_effect=report.position_effect,
            link=self._config.link,
            trade_date=report.order_date or report.trade_date,
            reference_version=report.reference_version,
        )
        self._keep(None, order)
        return order

    # -- inside -------------------------------------------------------------------------------------------------

    def _compare(self, order: Order, report: ExecutionReport) -> None:
        if report.cum_qty != order.cum_qty:
            self.missing(order)

    def _execution(self, order: Order, report: ExecutionReport) -> Execution | None:
        """The execution that a report tells of, with what booking it adds; None while what it refers to is missing."""
        quantity, notional = report.last_qty, report.last_qty * report.last_px
        if report.exec_type in (ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT):
            named = f"{self._config.venue}/{report.exec_ref_date or report.trade_date}/{report.exec_ref_id}"
            original = self._executions.get(named) or self._store.execution(named)
            if original is None:
                self.missing(order)
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
        )

    def _keep(self, before: Order | None, after: Order) -> None:
        if after == before:
            return
        self._orders[after.key] = after
        self._index(after)
        self._store.put(after)
        self._guard.record(self.subsystem, after)
        self.followed(before, after)

    def _index(self, order: Order) -> None:
        roots = self._roots
        roots[order.root_cl_ord_id] = roots[order.cl_ord_id] = order.key
        if order.orig_cl_ord_id:
            roots[order.orig_cl_ord_id] = order.key
        self._came.setdefault(order.key, len(self._came))
        if order.is_open and order.closing_kept_qty:
            self._closing.setdefault(order.book_key, set()).add(order.key)
        elif order.book_key in self._closing:
            self._closing[order.book_key].discard(order.key)


def standing(order: Order) -> OrdStatus:
    """The status that an order's own quantities give while nothing is pending."""
    return _standing(order.cum_qty, order.order_qty)


def _standing(cum_qty: int, order_qty: int) -> OrdStatus:
    if cum_qty == 0:
        return OrdStatus.NEW
    return OrdStatus.FILLED if cum_qty >= order_qty else OrdStatus.PARTIALLY_FILLED
