"""Faults in what a restart brings back, and in how it is reconciled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from holdover.desk.books import Positions, Risk
from holdover.desk.faults.fault import Fault, both, changed
from holdover.desk.gateway import Gateway
from holdover.desk.orders import CHAIN, Orders
from holdover.desk.outside import Market, Top
from holdover.desk.parents import Parents
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
        held = self._held.get(execution.book_key)
        if held is not None and execution.booked_on == held.trade_date:
            self._held[held.key] = msgspec.structs.replace(held, net_qty=held.net_qty + execution.signed_qty)
    return list(self._held.values())


def _position_before_order(self: Orders, execution: Execution) -> None:
    self.booked(execution)
    self._store.commit()  # in the middle of the step, which goes on in another transaction
    self.booked, kept = lambda execution: None, self.booked
    try:
        Orders.book(self, execution)
    finally:
        self.booked = kept


def _used(self: Reconciler) -> bool:
    """Whether the store is one that has been reconciled before, in this life or in an earlier one."""
    return bool(self._orders._store.get("reconciled"))


def _trust_local_when_flat(self: Reconciler, *, missed: bool) -> list[Query]:
    asked = Reconciler.questions(self, missed=missed)
    if missed or not _used(self):
        return asked
    trusted = set(self._config.accounts())
    trusted -= {position.account for position in self._positions.held() if position.net_qty}
    trusted -= {order.account for order in self._orders.open() if order.is_pending}
    self.__dict__["_trusted"] = bool(trusted)
    left = [query for query in asked if query.account not in trusted]
    if not left:
        self.behind = False
        self.caught_up()
    return left


def _passes_over_where_it_trusts(self: Reconciler) -> None:
    if not self.__dict__.get("_trusted"):
        Reconciler.passed_over(self)


def _positions_first(self: Reconciler, *, missed: bool) -> list[Query]:
    asked = Reconciler.questions(self, missed=missed)
    if not _used(self):
        return asked
    return sorted(asked, key=lambda query: query.msg_type != MsgType.REQUEST_FOR_POSITIONS)


def _adopt_the_venues_position(self: Reconciler, report: ExecutionReport | PositionReport) -> bool:
    ours = self._asked is not None and report.req_id == self._asked.req_id
    if ours and _used(self) and isinstance(report, PositionReport) and report.symbol:
        held = self._positions._or_flat(report.account, report.symbol, self._orders.trade_date)
        if held.net_qty != report.net_qty:
            self._positions._keep(msgspec.structs.replace(held, net_qty=report.net_qty))
    return Reconciler.answers(self, report)


def _missed_cancel(self: Reconciler, asked: str, report: ExecutionReport) -> None:
    order = self._orders.find(asked)
    if order is None or not order.is_open or report.ord_status != OrdStatus.CANCELED:
        Reconciler._told(self, asked, report)


def _counted_in_memory(self: Parents, strategy: str) -> str:
    entered: dict[str, int] = self.__dict__.setdefault("_entered", {})
    cl_ord_id = f"{strategy}-{self._orders.trade_date.replace('-', '')}-{len(entered) + 1}"
    entered[cl_ord_id] = self._tick_ns
    return cl_ord_id


def _entered_in_memory(self: Parents, root: str) -> int:
    known: dict[str, int] = self.__dict__.get("_entered", {})
    return known.get(root, 0)


def _notes_what_is_stored_as_sent(self: Orders, since: str) -> list[Record]:
    records = Orders.load(self, since)
    self.__dict__["_as_sent"] = [one.key for one in self.open() if one.ord_status == OrdStatus.PENDING_NEW]
    return records


def _waits_for_an_unknown(self: Reconciler, asked: str, report: ExecutionReport) -> None:
    order = self._orders.find(asked)
    stored_as_sent = order is not None and order.key in self._orders.__dict__.get("_as_sent", ())
    if not (report.ord_rej_reason == _UNKNOWN_ORDER and stored_as_sent):
        Reconciler._told(self, asked, report)


def _sends_at_once(self: Gateway, message: Outbound) -> None:
    if isinstance(message, Request) and message.msg_type == MsgType.NEW_ORDER_SINGLE:
        self.send(message)
    else:
        Gateway.queue(self, message)


def _is_stored(orders: Orders, report: ExecutionReport) -> bool:
    """Whether a report is of an order in the store, or of one that bears a name which is none of ours."""
    found = orders.find(report.cl_ord_id) or (report.orig_cl_ord_id and orders.find(report.orig_cl_ord_id))
    named_by_us = report.cl_ord_id.partition(CHAIN)[0].rsplit("-", 2)[0] in orders._owners
    return bool(found) or report.ord_rej_reason is not None or not named_by_us


def _answers_only_for_what_is_stored(self: Orders, report: ExecutionReport) -> None:
    if _is_stored(self, report):
        Orders.answered(self, report)


def _reports_only_of_what_is_stored(self: Orders, report: ExecutionReport) -> None:
    if _is_stored(self, report):
        Orders.report(self, report)


def _forgets_freezes(self: Gateway) -> None:
    Gateway.load(self)
    self.__dict__["_forgotten"] = sorted(freeze.number for freeze in _real(self._guard).frozen)


def _frozen_in_memory(self: Gateway, message: Outbound) -> bool:
    """What was frozen before this life began is frozen no more; what is frozen in it is."""
    if self._guard.permits(message):
        return True
    forgotten = self.__dict__.get("_forgotten", ())
    return all(freeze.number in forgotten for freeze in _real(self._guard).frozen)


def _real(guard: Any) -> Any:
    """The guard itself, through the stand-in that a harness gives."""
    return getattr(guard, "real", guard)


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


def _open_orders_only(self: Orders, since: str) -> list[Record]:
    records = Orders.load(self, since)
    self._orders = {order.key: order for order in self.open()}
    return [one for one in records if not isinstance(one, Order) or one.key in self._orders]


def _risk_by_order_qty(self: Risk, positions: Iterable[Position], orders: Iterable[Order]) -> None:
    Risk.load(
        self,
        positions,
        [msgspec.structs.replace(one, leaves_qty=one.order_qty) if one.is_open else one for one in orders],
    )


def _risk_starts_flat(self: Risk, positions: Iterable[Position], orders: Iterable[Order]) -> None:
    Risk.load(self, [], orders)


def _reservations_in_memory(self: Positions, executions: Iterable[Execution]) -> list[Record]:
    Positions.load(self, executions)
    self._held = {key: msgspec.structs.replace(one, reserved_qty=0) for key, one in self._held.items()}
    return list(self._held.values())


def _looks_once_ever(self: Gateway, market: Market) -> None:
    if self._store.get("reconciled") and "_unseen" not in self.__dict__:
        # A later life: what was said of a book while there was another one is taken for said.
        self.__dict__["_unseen"] = [one.symbol for one in self._config.instruments]
    if "_unseen" not in self.__dict__:
        Gateway.look(self, market)


def _hears_of_a_book(self: Gateway, message: SecurityStatus) -> None:
    unseen: list[str] = self.__dict__.get("_unseen", [])
    if message.symbol in unseen:
        unseen.remove(message.symbol)
    Gateway.status(self, message)


def _takes_unseen_for_open(self: Parents, symbol: str, top: Top) -> bool:
    unseen = symbol in self._gateway.__dict__.get("_unseen", ())
    return (top.trading or unseen) and self._gateway.trading(symbol)


def _thaws_by_itself(self: Gateway) -> None:
    Gateway.load(self)
    guard = _real(self._guard)
    for scope in dict.fromkeys(freeze.scope for freeze in guard.store.in_force()):
        guard.store.thaw(scope, "startup", "a new life", "none", "", guard.clock())


class _ToldTime:
    """A clock that can be set: what another one says, and so much more or less."""

    def __init__(self, base: Callable[[], int]) -> None:
        self.base, self.shift_ns = base, 0

    def __call__(self) -> int:
        return self.base() + self.shift_ns


def _clock_that_can_be_set(self: Gateway) -> None:
    Gateway.load(self)
    guard = _real(self._guard)
    guard.clock = _ToldTime(getattr(guard.clock, "base", guard.clock))


def _sets_the_clock(self: Orders, report: ExecutionReport) -> None:
    Orders.report(self, report)
    clock = _real(self._guard).clock
    if report.req_id and isinstance(clock, _ToldTime):
        clock.shift_ns = report.transact_time_ns - clock.base()


FAULTS: Final = (
    Fault(
        "snapshot-then-fills-again",
        _RESTART,
        "replays all of today's fills on top of positions that already hold them",
        "a fill, a restart on the same day",
        ("position-equals-carried-plus-fills", "restored-equals-persisted"),
        changed("positions", load=_snapshot_then_fills_again),
    ),
    Fault(
        "position-before-order",
        _RESTART,
        "commits the position in one transaction and the order in the next",
        "a kill between the two, at the execution's own record",
        ("position-equals-carried-plus-fills", "cash-equals-carried-plus-flows"),
        changed("orders", book=_position_before_order),
    ),
    Fault(
        "trust-local-when-flat",
        _RESTART,
        "leaves an account out of the reconciliation when it holds no position there and waits for no answer",
        "an order that fills while the link is cut, on a flat account, and is not replayed",
        ("books-agree-with-venue",),
        changed("reconciler", questions=_trust_local_when_flat, passed_over=_passes_over_where_it_trusts),
    ),
    Fault(
        "adopt-venue-position-keep-orders",
        _RESTART,
        "sets the position from the venue's report and then applies the missed fills as well",
        "a fill while the desk is down, a restart",
        ("books-agree-with-venue", "position-equals-carried-plus-fills"),
        changed("reconciler", questions=_positions_first, answers=_adopt_the_venues_position),
    ),
    Fault(
        "missed-cancel-on-restart",
        _RESTART,
        "restores an order that the venue cancelled meanwhile as open, and goes on working it",
        "a cancel at the venue while the desk is down, not replayed, a restart",
        ("no-open-order-unknown-to-venue", "books-agree-with-venue"),
        changed("reconciler", _told=_missed_cancel),
    ),
    Fault(
        "reused-client-id",
        _RESTART,
        "counts ClOrdIDs in memory and starts again at one after a restart on the same day",
        "an order, a restart on the same day, another order",
        ("terminal-stays-terminal", "legal-status-step"),
        changed("parents", _new_id=_counted_in_memory, entered_ns=_entered_in_memory),
    ),
    Fault(
        "lost-unsent-order",
        _RESTART,
        "takes an order that it reads back as sent for sent, and waits for its answer for ever",
        "a kill between the commit of an order and its sending, a restart",
        ("acknowledged-within",),
        both(changed("orders", load=_notes_what_is_stored_as_sent), changed("reconciler", _told=_waits_for_an_unknown)),
    ),
    Fault(
        "sent-before-stored",
        _RESTART,
        "sends an order before it is stored, and takes no report of an order of its own that is not in its store",
        "a kill between sending and commit, a restart",
        ("venue-open-orders-known", "order-intent-conserved", "store-agrees-with-memory"),
        both(
            changed("gateway", queue=_sends_at_once),
            changed("orders", answered=_answers_only_for_what_is_stored, report=_reports_only_of_what_is_stored),
        ),
    ),
    Fault(
        "freeze-in-memory",
        _RESTART,
        "keeps in memory only that a scope is frozen, and comes up with nothing frozen",
        "a freeze, a restart, a new order",
        ("nothing-leaves-a-frozen-scope",),
        changed("gateway", load=_forgets_freezes, allowed=_frozen_in_memory),
    ),
    Fault(
        "change-id-counted-in-memory",
        _RESTART,
        "counts the ClOrdIDs of cancels and replaces in memory and starts again at one after a restart",
        "a replace, a restart, another replace of the same order",
        ("client-order-id-unique",),
        changed("parents", change_id=_change_counted_in_memory),
    ),
    Fault(
        "claims-foreign-orders",
        _RESTART,
        "gives an order entered by hand at the venue to the first strategy of its account at a restart",
        "a trade by hand, a restart",
        ("owner-is-one",),
        changed("orders", restored=_claims_foreign_orders),
    ),
    Fault(
        "closed-orders-not-restored",
        _RESTART,
        "reads back the orders that are open, and not those that closed today",
        "an order filled, a restart on the same day",
        ("store-agrees-with-memory",),
        changed("orders", load=_open_orders_only),
    ),
    Fault(
        "risk-by-order-qty",
        _RESTART,
        "derives the open quantity at start from OrderQty, not from LeavesQty",
        "a partial fill, a restart",
        ("open-quantity-agrees",),
        changed("risk", load=_risk_by_order_qty),
    ),
    Fault(
        "risk-starts-flat",
        _RESTART,
        "derives the exposure at start from the open orders and leaves the positions out",
        "a fill, a restart",
        ("positions-agree",),
        changed("risk", load=_risk_starts_flat),
    ),
    Fault(
        "reservations-in-memory",
        _RESTART,
        "keeps in memory only what working orders have reserved of a position",
        "a closing order at work, a restart",
        ("reservations-follow-orders", "restored-equals-persisted"),
        changed("positions", load=_reservations_in_memory),
    ),
    Fault(
        "disabled-book-forgotten",
        _RESTART,
        "goes by what the venue told it of a book, and forgets at a restart that the book was disabled",
        "a book disabled, a restart, a new order",
        ("no-order-in-disabled-book",),
        both(
            changed("gateway", look=_looks_once_ever, status=_hears_of_a_book),
            changed("parents", may_trade=_takes_unseen_for_open),
        ),
    ),
    Fault(
        "thaws-by-itself",
        _RESTART,
        "ends whatever was frozen when it comes up, past the guard, in the store of freezes",
        "a freeze, a restart",
        ("freeze-survives",),
        changed("gateway", load=_thaws_by_itself),
    ),
    Fault(
        "clock-set-by-recovery",
        _RESTART,
        "sets its clock by the TransactTime of what it is told when it asks after a restart",
        "a fill, a restart",
        ("clock-monotone",),
        both(changed("gateway", load=_clock_that_can_be_set), changed("orders", report=_sets_the_clock)),
    ),
)
"""The faults of this category."""
