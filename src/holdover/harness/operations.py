"""The operations of a schedule: from their plan to their effect on the session.

`DayOperations` owns the operations of one day. It alone knows which wait for their point, which are due at the
next pause between two events, and which are done. `OperationRunner` has the effect of each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from holdover.harness.condition import KINDS as CONDITIONS
from holdover.harness.schedule import COUNTED_POINT_KINDS, MESSAGE_OPERATIONS, Operation, PointKind
from holdover.harness.session import Session
from holdover.harness.subject import SubjectKilledError
from holdover.model import AdjustmentReason, CashReason, Order, Position, PositionSide, Record, Side
from holdover.world import Venue, WorkingOrder

_OWNER: Final = "operations"
_SECOND_NS: Final = 1_000_000_000
_RECOVERY_MODES: Final = ("", "replay", "drop")
_SUBJECT_POINT_KINDS: Final = ("mutation", "sent", "delivered", "out")
"""Points inside a call of the subject: a kill there interrupts the call."""
_CALENDAR_KINDS: Final = ("overnight", "overnight-down")

Parameters = dict[str, int]
Effect = Callable[["OperationRunner", Parameters], None]


class OperationRunner:
    """Applies operations to one session. Delayed effects (a reconnect, an enabled book) use the session's clock."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.splits: dict[str, tuple[int, int]] = {}
        session.clock.register(_OWNER, self._on_timer)

    def perform(self, operation: Operation) -> None:
        """Perform an operation between two events. Raises `SubjectKilledError` when it kills the starting subject."""
        if operation.kind.family == "restart":
            self.restart_subject(operation)
        else:
            _EFFECTS[operation.do](self, operation.parameter_values())

    def apply_to_message(self, operation: Operation, direction: str) -> None:
        """Apply an operation to the message that is about to be sent in a direction (`in` or `out`)."""
        link = self.session.link
        if operation.do == "hold":
            link.inject_fault(direction, 1, "hold", operation.parameter_values()["milliseconds"] * 1_000_000)
        elif operation.do == "not-found":
            self.session.venue.not_found_count += 1
            link.inject_fault(direction, 1, "drop")
        else:
            link.inject_fault(direction, 1, "drop" if operation.do == "lose" else operation.do)

    def drop_link(self, operation: Operation) -> None:
        """Drop the link now and reconnect after `seconds`. Does nothing when the link is already down."""
        _drop_link(self, operation.parameter_values())

    def restart_subject(self, operation: Operation) -> None:
        """Restart the subject; discard it first when it is already dead."""
        session = self.session
        numbers = operation.parameter_values()
        if operation.do not in ("clean", "upgrade") and numbers.get("down_seconds", 0) > 0:
            if session.subject is not None:
                session.trials.discard_subject()
            session.run_without_subject(numbers["down_seconds"])
        session.restart(operation.do, during=max(numbers.get("mutations", 5), 1))

    def take_splits(self) -> Mapping[str, tuple[int, int]]:
        """Return the splits of the coming night that divide every open quantity and price, and forget them all."""
        splits, self.splits = self.splits, {}
        return {symbol: ratio for symbol, ratio in splits.items() if _divides_exactly(self.session, symbol, *ratio)}

    def set_timer(self, after_s: int, name: str, *args: Any) -> None:
        """Set the timer of a delayed effect, in seconds from now."""
        self.session.clock.set_timer(self.session.clock.now_ns + max(after_s, 0) * _SECOND_NS, _OWNER, name, *args)

    def perform_action(self, action: str, *arguments: Any) -> None:
        """Ask the subject to perform an action of its strategy or operator.

        Does nothing when it has no `perform` method.
        """
        perform = getattr(self.session.subject, "perform", None)
        if perform is not None:
            perform(action, *arguments)

    def working_orders(self) -> list[Order]:
        """Return the subject's open orders that have no request without an answer."""
        return [order for order in self.session.orders() if order.is_open and not order.is_pending]

    def _on_timer(self, name: str, args: tuple[Any, ...]) -> None:
        session = self.session
        if name == "cut":
            session.guard.boundary("disconnect", session.trade_date)
        elif name == "reconnect":
            if not session.link.is_allowed and session.phase == "open":
                session.reconnect()
            session.link.is_allowed = True
        elif name == "enable":
            session.venue.enable_book(args[0])


def _item_at(items: Any, ordinal: int) -> Any:
    """Return the item at an ordinal, modulo the length; None when there is no item."""
    return items[ordinal % len(items)] if len(items) else None


# -- effects on the link and the calendar -----------------------------------------------------------------------------


def _drop_link(runner: OperationRunner, numbers: Parameters) -> None:
    session = runner.session
    if not session.link.is_allowed:
        return
    session.trials.drop_link(lose_out=bool(numbers["lose_out"]), recovery=_RECOVERY_MODES[numbers["recovery"] % 3])
    runner.set_timer(0, "cut")
    runner.set_timer(numbers["seconds"], "reconnect")


def _do_nothing(runner: OperationRunner, numbers: Parameters) -> None:
    """A message operation between two events: there is no message to apply it to."""


def _split(runner: OperationRunner, numbers: Parameters) -> None:
    book = _item_at(list(runner.session.venue.books.values()), numbers["symbol"])
    if book is not None and numbers["new"] > 0 and numbers["old"] > 0:
        runner.splits[book.instrument.symbol] = (numbers["new"], numbers["old"])


def _divides_exactly(session: Session, symbol: str, new: int, old: int) -> bool:
    """Return whether a split leaves whole lots and ticks of every open order and position."""
    orders = [order for order in session.venue.orders.values() if order.symbol == symbol and order.is_open]
    positions = [position for position in session.venue.positions.values() if position.symbol == symbol]
    quantities = [
        quantity
        for order in orders
        for quantity in (order.order_qty, order.cum_qty, order.requested_qty, order.held_qty)
    ]
    quantities += [position.net_qty for position in positions]
    prices = [price for order in orders for price in (order.price, order.stop_px) if price is not None]
    return not any(quantity * new % old for quantity in quantities) and not any(price * old % new for price in prices)


# -- effects of the venue ---------------------------------------------------------------------------------------------


def _refuse_logon(runner: OperationRunner, numbers: Parameters) -> None:
    until_ns = runner.session.clock.now_ns + max(numbers["seconds"], 0) * _SECOND_NS
    runner.session.link.refuse_logons("401", until_ns)  # the dropped link notifies every connection


def _venue_cancel(runner: OperationRunner, numbers: Parameters) -> None:
    venue = runner.session.venue
    order = _item_at([order for order in venue.orders.values() if order.is_open], numbers["order"])
    if isinstance(order, WorkingOrder):
        venue.cancel_order(order.cl_ord_id)


def _by_hand(runner: OperationRunner, numbers: Parameters) -> None:
    venue = runner.session.venue
    account = _item_at(runner.session.link.accounts, numbers["account"])
    book = _item_at(list(venue.books.values()), numbers["symbol"])
    price = book.last_px if book is not None else 0
    if account is not None and book is not None and price > 0 and numbers["lots"] > 0:
        side = Side.SELL if numbers["side"] % 2 else Side.BUY
        venue.manual_trade(account, book.instrument.symbol, side, numbers["lots"], price)


def _leg_of(venue: Venue, account: str, symbol: str) -> PositionSide | None:
    """Return the leg that an account has of an instrument in hedge mode; None for a net position."""
    holders: list[Position | WorkingOrder] = [*venue.positions.values(), *venue.orders.values()]
    legs = (holder.position_side for holder in holders if (holder.account, holder.symbol) == (account, symbol))
    return next((leg for leg in legs if leg is not None), None)


def _move_cash(runner: OperationRunner, numbers: Parameters) -> None:
    accounts = runner.session.venue.accounts
    account = _item_at(runner.session.link.accounts, numbers["account"])
    if account is not None:
        currency = accounts.currencies()[0]
        balance = accounts.balances.get(f"{account}/{currency}")
        amount = (balance.cash if balance is not None else 0) * numbers["millionths"] // 1_000_000
        accounts.move_cash(account, currency, amount, _item_at(list(CashReason), numbers["reason"]))


def _adjust_position(runner: OperationRunner, numbers: Parameters) -> None:
    account = _item_at(runner.session.link.accounts, numbers["account"])
    book = _item_at(list(runner.session.venue.books.values()), numbers["symbol"])
    if account is not None and book is not None:
        venue, symbol, lots = runner.session.venue, book.instrument.symbol, numbers["lots"]
        reason, leg = _item_at(list(AdjustmentReason), numbers["reason"]), _leg_of(venue, account, symbol)
        position = venue.positions.get(f"{account}/{symbol}/{leg}") if leg else None
        net_qty = position.net_qty if position is not None else 0
        if leg == PositionSide.LONG:
            lots = max(lots, -net_qty)  # a leg does not change its side
        elif leg == PositionSide.SHORT:
            lots = min(lots, -net_qty)
        venue.accounts.adjust_position(account, symbol, lots, reason, position_side=leg)


def _liquidate(runner: OperationRunner, numbers: Parameters) -> None:
    account = _item_at(runner.session.link.accounts, numbers["account"])
    book = _item_at(list(runner.session.venue.books.values()), numbers["symbol"])
    if account is not None and book is not None:
        lots = numbers["lots"] if numbers["lots"] > 0 else None
        venue, symbol = runner.session.venue, book.instrument.symbol
        leg = _leg_of(venue, account, symbol)
        # A leg is closed as a whole: what is left of it would have closing orders for more than it is.
        venue.liquidate(account, symbol, lots=None if leg else lots, position_side=leg)


def _bust(runner: OperationRunner, numbers: Parameters) -> None:
    trade = _item_at(runner.session.venue.trades[::-1], numbers["trade"])
    if trade is not None:
        runner.session.venue.bust_trade(trade.exec_id, trade.trade_date)


def _correct(runner: OperationRunner, numbers: Parameters) -> None:
    venue = runner.session.venue
    trade = _item_at(venue.trades[::-1], numbers["trade"])
    if trade is not None and trade.last_qty + numbers["lots"] > 0 and trade.last_px + numbers["ticks"] > 0:
        order = venue.find_order(trade.cl_ord_id)
        if order is not None and order.cum_qty + numbers["lots"] <= order.order_qty:
            venue.correct_trade(
                trade.exec_id, trade.last_qty + numbers["lots"], trade.last_px + numbers["ticks"], trade.trade_date
            )


def _refuse(runner: OperationRunner, numbers: Parameters) -> None:
    runner.session.venue.refuse_count += 1


def _disable(runner: OperationRunner, numbers: Parameters) -> None:
    book = _item_at(list(runner.session.venue.books.values()), numbers["symbol"])
    if book is not None:
        symbol = book.instrument.symbol
        runner.session.venue.disable_book(symbol)
        runner.set_timer(numbers["seconds"], "enable", symbol)


# -- effects of the strategy and the operator -------------------------------------------------------------------------


def _cancel(runner: OperationRunner, numbers: Parameters) -> None:
    order = _item_at(runner.working_orders(), numbers["order"])
    if order is not None:
        runner.perform_action("cancel", order.root_cl_ord_id)


def _replace(runner: OperationRunner, numbers: Parameters) -> None:
    order = _item_at(runner.working_orders(), numbers["order"])
    if order is not None and order.price is not None and order.price + numbers["ticks"] > 0:
        book = runner.session.venue.books[order.symbol]
        price = order.price + numbers["ticks"] * book.instrument.price_increment
        runner.perform_action("replace", order.root_cl_ord_id, price)


def _submit(runner: OperationRunner, numbers: Parameters) -> None:
    runner.perform_action("submit", numbers["strategy"], max(numbers["lots"], 1), numbers["ticks"])


def _freeze(runner: OperationRunner, numbers: Parameters) -> None:
    book = _item_at(list(runner.session.venue.books.values()), numbers["symbol"])
    if book is not None:
        scope = f"instrument:{book.instrument.symbol}"
        if all(freeze.scope != scope for freeze in runner.session.guard.active_freezes):
            # Under a freeze that forbids `reduce` no lost stop can be replaced: the position is unprotected.
            runner.session.guard.freeze(
                scope, operator="explorer", reason="explored", allows=("cancel", "reduce", "query")
            )


def _thaw(runner: OperationRunner, numbers: Parameters) -> None:
    freeze = _item_at(runner.session.guard.active_freezes, numbers["freeze"])
    if freeze is not None:
        runner.session.guard.thaw(
            freeze.scope,
            operator="explorer",
            reason="explored",
            evidence="a schedule says so",
            forced_by="schedule",
        )


_EFFECTS: Final[dict[str, Effect]] = {
    **dict.fromkeys(MESSAGE_OPERATIONS, _do_nothing),
    "disconnect": _drop_link,
    "split": _split,
    "refuse-logon": _refuse_logon,
    "venue-cancel": _venue_cancel,
    "by-hand": _by_hand,
    "move-cash": _move_cash,
    "adjust-position": _adjust_position,
    "liquidate": _liquidate,
    "bust": _bust,
    "correct": _correct,
    "refuse": _refuse,
    "disable": _disable,
    "cancel": _cancel,
    "replace": _replace,
    "submit": _submit,
    "freeze": _freeze,
    "thaw": _thaw,
}
"""The effect of each kind that is neither a restart nor the end of the day."""


# -- the operations of a day ------------------------------------------------------------------------------------------


class _PlannedOperation(msgspec.Struct, eq=False):
    """An operation of the day that is not due yet. Points before `after_ns` do not count."""

    operation: Operation
    time_ns: int | None
    after_ns: int = 0
    count: int = 0
    is_due: bool = False

    def is_counted_at(self, point_kind: str, subsystem: str, record: Record | None) -> bool:
        """Return whether a point is one of those that the operation counts."""
        operation = self.operation
        matches = CONDITIONS.get(operation.at)
        if matches is None:
            return point_kind == operation.at
        filters = {name: value for name in ("tif", "strategy") if (value := getattr(operation, name))}
        return point_kind == "mutation" and record is not None and matches(subsystem, record, **filters)


class DayOperations:
    """Owns the operations of one day: plans them, notices when they are due, performs and counts them.

    `end_day` ends the day; its argument is whether at once. `on_operation` receives each operation when it
    becomes due. `resolved` has, for every operation that happened at a point with a fraction or a selection, the
    same operation at the plain point where it happened.
    """

    def __init__(self, session: Session, end_day: Callable[[bool], None]) -> None:
        self.session = session
        self.runner = OperationRunner(session)
        self.counts = dict.fromkeys(COUNTED_POINT_KINDS, 0)
        self.done_count = 0
        self.has_instants = False
        self.on_operation: Callable[[Operation], None] | None = None
        self.resolved: list[Operation] = []
        self._end_day = end_day
        self._waiting: dict[tuple[str, int], list[_PlannedOperation]] = {}
        self._counted: list[_PlannedOperation] = []
        self._timed: list[_PlannedOperation] = []
        self._due: list[Operation] = []

    def plan(self, operations: Iterable[Operation], counts: Mapping[str, int] | None = None) -> None:
        """Take the operations of a day. `counts` are the points of each kind that the day has passed already."""
        open_ns, close_ns = self.session.hours()
        self.counts = dict(counts) if counts is not None else dict.fromkeys(COUNTED_POINT_KINDS, 0)
        self._waiting, self._counted, self._timed, self._due = {}, [], [], []
        self.has_instants = False
        for operation in operations:
            planned = _PlannedOperation(operation, operation.time_ns(open_ns, close_ns))
            self.has_instants = self.has_instants or operation.at == "instant"
            if planned.time_ns is not None:
                self._timed.append(planned)
            if operation.is_plain and operation.at != "second":
                self._waiting.setdefault((operation.at, operation.n), []).append(planned)
            elif operation.at not in ("second", "fraction"):
                planned.after_ns = open_ns + int((close_ns - open_ns) * operation.after) if operation.after else 0
                self._counted.append(planned)
        self._timed.sort(key=lambda planned: planned.time_ns or 0)

    def add_due(self, operation: Operation) -> None:
        """Make an operation due at the next pause between two events."""
        self._due.append(operation)

    # -- at a point ---------------------------------------------------------------------------------------------------

    def pass_point(self, point_kind: PointKind, subsystem: str = "", record: Record | None = None) -> None:
        """Count a point, and start the operations whose point it is.

        Raises `SubjectKilledError` when one of them kills the subject inside its call.
        """
        number = self.counts[point_kind] = self.counts[point_kind] + 1
        if not self._waiting and not self._counted:
            return
        if self.has_instants:
            self.session.stop()
        for planned in self._waiting.pop((point_kind, number), ()):
            self._start(planned, point_kind)
        for planned in list(self._counted):
            if planned.after_ns < self.session.clock.now_ns and planned.is_counted_at(point_kind, subsystem, record):
                planned.count += 1
                if planned.count == planned.operation.n:
                    self._counted.remove(planned)
                    self._start(planned, point_kind)

    def _start(self, planned: _PlannedOperation, point_kind: PointKind) -> None:
        """Apply an operation inside the event of its point, or make it due.

        A disconnect at a plain point drops the link inside the event, so that the subject's next send fails. At a point
        that is selected by what happened (the third partial fill) it waits for the end of the event, as a person would
        who watches for it.
        """
        operation = planned.operation
        planned.is_due = True
        self._notify(operation, point_kind, self.counts[point_kind])
        if operation.do in MESSAGE_OPERATIONS:
            self.done_count += 1
            self.runner.apply_to_message(operation, point_kind)
        elif operation.do == "disconnect" and operation.is_plain:
            self.done_count += 1
            self.runner.drop_link(operation)
        else:
            self._due.append(operation)
            is_kill = operation.kind.family == "restart" and operation.do not in ("clean", "upgrade")
            if is_kill and point_kind in _SUBJECT_POINT_KINDS:
                self.session.trials.kill()
            self.session.stop()

    # -- at a time ----------------------------------------------------------------------------------------------------

    def next_time_ns(self, close_ns: int) -> int | None:
        """Return the time of the next operation that has one, ns; None when no time comes before the close."""
        while self._timed and self._timed[0].is_due:
            self._timed.pop(0)
        time_ns = self._timed[0].time_ns if self._timed else None
        if time_ns is None or time_ns > close_ns or (time_ns == close_ns and self._timed[0].operation.at == "second"):
            return None
        return time_ns

    def start_next_timed(self) -> None:
        """Make the operation of `next_time_ns` due."""
        planned = self._timed.pop(0)
        planned.is_due = True
        if planned in self._counted:
            self._counted.remove(planned)
        after_ns = (planned.time_ns or 0) - self.session.hours()[0]
        self._notify(planned.operation, "second", after_ns // _SECOND_NS)
        self._due.append(planned.operation)

    def _notify(self, operation: Operation, point_kind: PointKind, number: int) -> None:
        if not operation.is_plain and operation.do == "disconnect" and point_kind != "second":
            self.resolved.append(operation)  # at the plain point it would act inside the event
        elif not operation.is_plain:
            self.resolved.append(
                Operation(day=operation.day, at=point_kind, n=number, do=operation.do, with_=operation.with_)
            )
        if self.on_operation is not None:
            self.on_operation(operation)

    # -- between two events -------------------------------------------------------------------------------------------

    def perform_due(self) -> bool:
        """Perform the due operations in order; returns False when one of them ended the day."""
        while self._due:
            if not self._perform(self._due.pop(0)):
                return False
        return True

    def _perform(self, operation: Operation) -> bool:
        session = self.session
        if session.subject is None and operation.kind.family != "restart" and operation.do != "overnight-down":
            try:
                session.restart("kill")
            except SubjectKilledError:  # killed again while it started: do the operation after the next start
                session.trials.discard_subject()
                self._due.append(operation)
                return True
        self.done_count += 1
        if operation.do in _CALENDAR_KINDS:
            if operation.do == "overnight-down" and session.subject is not None:
                session.trials.discard_subject()
            self._end_day(True)
            return False
        try:
            self.runner.perform(operation)
        except SubjectKilledError:  # killed during the operation; the restart is due
            session.trials.discard_subject()
        return True
