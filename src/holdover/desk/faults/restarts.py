"""Faults in what a restart restores, and in how it is reconciled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from holdover.desk.accounting import Positions, Risk
from holdover.desk.faults.fault import Fault, combine, replace_methods
from holdover.desk.gateway import Gateway
from holdover.desk.orders import CHAIN, Orders
from holdover.desk.parents import Parents
from holdover.desk.ports import Market, Top
from holdover.desk.reconciler import Reconciler
from holdover.model import (
    Execution,
    ExecutionReport,
    MsgType,
    Order,
    OrdStatus,
    Outbound,
    Position,
    PositionReport,
    Query,
    Record,
    Request,
    SecurityStatus,
)

_RESTART: Final = "restart-reconciliation"
_UNKNOWN_ORDER: Final = 5


def _snapshot_then_fills_again(self: Positions, executions: Iterable[Execution]) -> list[Record]:
    Positions.load(self, executions)
    for execution in executions:
        position = self._positions.get(execution.book_key)
        if position is not None and execution.booked_on == position.trade_date:
            self._positions[position.key] = msgspec.structs.replace(
                position, net_qty=position.net_qty + execution.signed_qty
            )
    return list(self._positions.values())


def _position_before_order(self: Orders, execution: Execution) -> None:
    self.on_execution(execution)
    self._store.commit()  # in the middle of the step, which continues in another transaction
    self.on_execution, callback = lambda execution: None, self.on_execution
    try:
        Orders.book(self, execution)
    finally:
        self.on_execution = callback


def has_reconciled(self: Reconciler) -> bool:
    """Return whether the store has been reconciled before, in this incarnation or an earlier one."""
    return bool(self._orders._store.get("reconciled"))


def _trust_local_when_flat(self: Reconciler, *, is_gap: bool) -> list[Query]:
    queries = Reconciler.build_queries(self, is_gap=is_gap)
    if is_gap or not has_reconciled(self):
        return queries
    trusted = set(self._config.accounts())
    trusted -= {position.account for position in self._positions.all_positions() if position.net_qty}
    trusted -= {order.account for order in self._orders.open_orders() if order.is_pending}
    self.__dict__["_trusted"] = bool(trusted)
    remaining_queries = [query for query in queries if query.account not in trusted]
    if not remaining_queries:
        self.is_behind = False
        self.on_caught_up()
    return remaining_queries


def _passes_over_where_it_trusts(self: Reconciler) -> None:
    if not self.__dict__.get("_trusted"):
        Reconciler.restart_after_gap(self)


def _positions_first(self: Reconciler, *, is_gap: bool) -> list[Query]:
    queries = Reconciler.build_queries(self, is_gap=is_gap)
    if not has_reconciled(self):
        return queries
    return sorted(queries, key=lambda query: query.msg_type != MsgType.REQUEST_FOR_POSITIONS)


def _adopt_the_venues_position(self: Reconciler, report: ExecutionReport | PositionReport) -> bool:
    is_current = self._current_query is not None and report.req_id == self._current_query.req_id
    if is_current and has_reconciled(self) and isinstance(report, PositionReport) and report.symbol:
        position = self._positions.get(report.key) or Position(
            account=report.account,
            symbol=report.symbol,
            net_qty=0,
            trade_date=self._orders.trade_date,
            position_side=report.position_side,
            position_id=report.position_id,
        )
        if position.net_qty != report.net_qty:
            self._positions._save(msgspec.structs.replace(position, net_qty=report.net_qty))
    return Reconciler.take_answer(self, report)


def _missed_cancel(self: Reconciler, cl_ord_id: str, report: ExecutionReport) -> None:
    order = self._orders.find(cl_ord_id)
    if order is None or not order.is_open or report.ord_status != OrdStatus.CANCELED:
        Reconciler._apply_order_status(self, cl_ord_id, report)


def _counted_in_memory(self: Parents, strategy: str) -> str:
    entered: dict[str, int] = self.__dict__.setdefault("_entered", {})
    cl_ord_id = f"{strategy}-{self._orders.trade_date.replace('-', '')}-{len(entered) + 1}"
    entered[cl_ord_id] = self._tick_ns
    return cl_ord_id


def _entered_in_memory(self: Parents, root: str) -> int:
    entered: dict[str, int] = self.__dict__.get("_entered", {})
    return entered.get(root, 0)


def _notes_what_is_stored_as_sent(self: Orders, since_date: str) -> list[Record]:
    records = Orders.load(self, since_date)
    self.__dict__["_as_sent"] = [order.key for order in self.open_orders() if order.ord_status == OrdStatus.PENDING_NEW]
    return records


def _waits_for_an_unknown(self: Reconciler, cl_ord_id: str, report: ExecutionReport) -> None:
    order = self._orders.find(cl_ord_id)
    stored_as_sent = order is not None and order.key in self._orders.__dict__.get("_as_sent", ())
    if not (report.ord_rej_reason == _UNKNOWN_ORDER and stored_as_sent):
        Reconciler._apply_order_status(self, cl_ord_id, report)


def _sends_at_once(self: Gateway, message: Outbound) -> None:
    if isinstance(message, Request) and message.msg_type == MsgType.NEW_ORDER_SINGLE:
        self.send(message)
    else:
        Gateway.queue(self, message)


def _is_stored(orders: Orders, report: ExecutionReport) -> bool:
    """Return whether a report is of an order in the store, or of an order that this desk did not name."""
    order = orders.find(report.cl_ord_id) or (report.orig_cl_ord_id and orders.find(report.orig_cl_ord_id))
    named_by_us = report.cl_ord_id.partition(CHAIN)[0].rsplit("-", 2)[0] in orders._owners
    return bool(order) or report.ord_rej_reason is not None or not named_by_us


def _answers_only_for_what_is_stored(self: Orders, report: ExecutionReport) -> None:
    if _is_stored(self, report):
        Orders.apply_status(self, report)


def _reports_only_of_what_is_stored(self: Orders, report: ExecutionReport) -> None:
    if _is_stored(self, report):
        Orders.apply_report(self, report)


def _forgets_freezes(self: Gateway) -> None:
    Gateway.load(self)
    self.__dict__["_forgotten"] = sorted(freeze.number for freeze in _unwrap_guard(self._guard).active_freezes)


def _frozen_in_memory(self: Gateway, message: Outbound) -> bool:
    """Forget freezes from before this incarnation; those of this incarnation hold."""
    if self._guard.permits(message):
        return True
    forgotten = self.__dict__.get("_forgotten", ())
    return all(freeze.number in forgotten for freeze in _unwrap_guard(self._guard).active_freezes)


def _unwrap_guard(guard: Any) -> Any:
    """Return the guard behind the stand-in that a harness provides."""
    return getattr(guard, "wrapped_guard", guard)


# -- beyond the list ----------------------------------------------------------------------------------------------


def _change_counted_in_memory(self: Parents, order: Order) -> str:
    counts: dict[str, int] = self.__dict__.setdefault("_changes", {})
    counts[order.key] = counts.get(order.key, 0) + 1
    return f"{order.root_cl_ord_id}{CHAIN}{counts[order.key]}"


def _claims_foreign_orders(self: Orders, order: Order) -> Order:
    if not order.foreign:
        return order
    owner = next(name for name, strategy in self._owners.items() if strategy.account == order.account)
    return msgspec.structs.replace(order, strategy=owner)


def _open_orders_only(self: Orders, since_date: str) -> list[Record]:
    records = Orders.load(self, since_date)
    self._orders = {order.key: order for order in self.open_orders()}
    self._roots = {cl_ord_id: root for cl_ord_id, root in self._roots.items() if root in self._orders}
    return [record for record in records if not isinstance(record, Order) or record.key in self._orders]


def _risk_by_order_qty(self: Risk, positions: Iterable[Position], orders: Iterable[Order]) -> None:
    Risk.load(
        self,
        positions,
        [msgspec.structs.replace(order, leaves_qty=order.order_qty) if order.is_open else order for order in orders],
    )


def _risk_starts_flat(self: Risk, positions: Iterable[Position], orders: Iterable[Order]) -> None:
    Risk.load(self, [], orders)


def _reservations_in_memory(self: Positions, executions: Iterable[Execution]) -> list[Record]:
    Positions.load(self, executions)
    self._positions = {
        key: msgspec.structs.replace(position, reserved_qty=0) for key, position in self._positions.items()
    }
    return list(self._positions.values())


def _looks_once_ever(self: Gateway, market: Market) -> None:
    if self._store.get("reconciled") and "_unseen" not in self.__dict__:
        # A later incarnation: the book states of an earlier one are taken as current.
        self.__dict__["_unseen"] = [instrument.symbol for instrument in self._config.instruments]
    if "_unseen" not in self.__dict__:
        Gateway.read_book_states(self, market)


def _hears_of_a_book(self: Gateway, message: SecurityStatus) -> None:
    unseen: list[str] = self.__dict__.get("_unseen", [])
    if message.symbol in unseen:
        unseen.remove(message.symbol)
    Gateway.apply_book_status(self, message)


def _takes_unseen_for_open(self: Parents, symbol: str, top: Top) -> bool:
    unseen = symbol in self._gateway.__dict__.get("_unseen", ())
    return (top.trading or unseen) and self._gateway.is_trading(symbol)


def _thaws_by_itself(self: Gateway) -> None:
    Gateway.load(self)
    guard = _unwrap_guard(self._guard)
    for scope in dict.fromkeys(freeze.scope for freeze in guard.store.active_freezes()):
        guard.store.thaw(scope, "startup", "a new life", "none", "", guard.clock())


class _AdjustableClock:
    """A clock with an adjustable offset to another clock."""

    def __init__(self, base: Callable[[], int]) -> None:
        self.base, self.shift_ns = base, 0

    def __call__(self) -> int:
        return self.base() + self.shift_ns


def _clock_that_can_be_set(self: Gateway) -> None:
    Gateway.load(self)
    guard = _unwrap_guard(self._guard)
    guard.clock = _AdjustableClock(getattr(guard.clock, "base", guard.clock))


def _sets_the_clock(self: Orders, report: ExecutionReport) -> None:
    Orders.apply_report(self, report)
    clock = _unwrap_guard(self._guard).clock
    if report.req_id and isinstance(clock, _AdjustableClock):
        clock.shift_ns = report.transact_time_ns - clock.base()


FAULTS: Final = (
    Fault(
        "snapshot-then-fills-again",
        _RESTART,
        "replays all of today's fills on top of positions that already hold them",
        "a fill, a restart on the same day",
        ("position-equals-carried-plus-fills", "restored-equals-persisted"),
        replace_methods("positions", load=_snapshot_then_fills_again),
    ),
    Fault(
        "position-before-order",
        _RESTART,
        "commits the position in one transaction and the order in the next",
        "a kill between the two, at the execution's own record",
        ("position-equals-carried-plus-fills", "cash-equals-carried-plus-flows"),
        replace_methods("orders", book=_position_before_order),
    ),
    Fault(
        "trust-local-when-flat",
        _RESTART,
        "leaves an account out of the reconciliation when it holds no position there and waits for no answer",
        "an order that fills while the link is cut, on a flat account, and is not replayed",
        ("books-agree-with-venue",),
        replace_methods(
            "reconciler", build_queries=_trust_local_when_flat, restart_after_gap=_passes_over_where_it_trusts
        ),
    ),
    Fault(
        "adopt-venue-position-keep-orders",
        _RESTART,
        "sets the position from the venue's report and then applies the missed fills as well",
        "a fill while the desk is down, a restart",
        ("books-agree-with-venue", "position-equals-carried-plus-fills"),
        replace_methods("reconciler", build_queries=_positions_first, take_answer=_adopt_the_venues_position),
    ),
    Fault(
        "missed-cancel-on-restart",
        _RESTART,
        "restores an order that the venue cancelled meanwhile as open, and goes on working it",
        "a cancel at the venue while the desk is down, not replayed, a restart",
        ("no-open-order-unknown-to-venue", "books-agree-with-venue"),
        replace_methods("reconciler", _apply_order_status=_missed_cancel),
    ),
    Fault(
        "reused-client-id",
        _RESTART,
        "counts ClOrdIDs in memory and starts again at one after a restart on the same day",
        "an order, a restart on the same day, another order",
        ("terminal-stays-terminal", "legal-status-step"),
        replace_methods("parents", _new_id=_counted_in_memory, entered_ns=_entered_in_memory),
    ),
    Fault(
        "lost-unsent-order",
        _RESTART,
        "takes an order that it reads back as sent for sent, and waits for its answer for ever",
        "a kill between the commit of an order and its sending, a restart",
        ("acknowledged-within",),
        combine(
            replace_methods("orders", load=_notes_what_is_stored_as_sent),
            replace_methods("reconciler", _apply_order_status=_waits_for_an_unknown),
        ),
    ),
    Fault(
        "sent-before-stored",
        _RESTART,
        "sends an order before it is stored, and takes no report of an order of its own that is not in its store",
        "a kill between sending and commit, a restart",
        ("venue-open-orders-known", "order-intent-conserved", "store-agrees-with-memory"),
        combine(
            replace_methods("gateway", queue=_sends_at_once),
            replace_methods(
                "orders", apply_status=_answers_only_for_what_is_stored, apply_report=_reports_only_of_what_is_stored
            ),
        ),
    ),
    Fault(
        "freeze-in-memory",
        _RESTART,
        "keeps in memory only that a scope is frozen, and comes up with nothing frozen",
        "a freeze, a restart, a new order",
        ("nothing-leaves-a-frozen-scope",),
        replace_methods("gateway", load=_forgets_freezes, is_allowed=_frozen_in_memory),
    ),
    Fault(
        "change-id-counted-in-memory",
        _RESTART,
        "counts the ClOrdIDs of cancels and replaces in memory and starts again at one after a restart",
        "a replace, a restart, another replace of the same order",
        ("client-order-id-unique",),
        replace_methods("parents", change_id=_change_counted_in_memory),
    ),
    Fault(
        "claims-foreign-orders",
        _RESTART,
        "gives an order entered by hand at the venue to the first strategy of its account at a restart",
        "a trade by hand, a restart",
        ("owner-is-one",),
        replace_methods("orders", restore_order=_claims_foreign_orders),
    ),
    Fault(
        "closed-orders-not-restored",
        _RESTART,
        "reads back the orders that are open, and not those that closed today",
        "an order filled, a restart on the same day",
        ("store-agrees-with-memory",),
        replace_methods("orders", load=_open_orders_only),
    ),
    Fault(
        "risk-by-order-qty",
        _RESTART,
        "derives the open quantity at start from OrderQty, not from LeavesQty",
        "a partial fill, a restart",
        ("open-quantity-agrees",),
        replace_methods("risk", load=_risk_by_order_qty),
    ),
    Fault(
        "risk-starts-flat",
        _RESTART,
        "derives the exposure at start from the open orders and leaves the positions out",
        "a fill, a restart",
        ("positions-agree",),
        replace_methods("risk", load=_risk_starts_flat),
    ),
    Fault(
        "reservations-in-memory",
        _RESTART,
        "keeps in memory only what working orders have reserved of a position",
        "a closing order at work, a restart",
        ("reservations-follow-orders", "restored-equals-persisted"),
        replace_methods("positions", load=_reservations_in_memory),
    ),
    Fault(
        "disabled-book-forgotten",
        _RESTART,
        "goes by what the venue told it of a book, and forgets at a restart that the book was disabled",
        "a book disabled, a restart, a new order",
        ("no-order-in-disabled-book",),
        combine(
            replace_methods("gateway", read_book_states=_looks_once_ever, apply_book_status=_hears_of_a_book),
            replace_methods("parents", may_trade=_takes_unseen_for_open),
        ),
    ),
    Fault(
        "thaws-by-itself",
        _RESTART,
        "ends whatever was frozen when it comes up, past the guard, in the store of freezes",
        "a freeze, a restart",
        ("freeze-survives",),
        replace_methods("gateway", load=_thaws_by_itself),
    ),
    Fault(
        "clock-set-by-recovery",
        _RESTART,
        "sets its clock by the TransactTime of what it is told when it asks after a restart",
        "a fill, a restart",
        ("clock-monotone",),
        combine(
            replace_methods("gateway", load=_clock_that_can_be_set),
            replace_methods("orders", apply_report=_sets_the_clock),
        ),
    ),
)
"""The faults of this category."""
