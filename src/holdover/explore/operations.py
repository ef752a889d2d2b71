"""Applies the operations of a schedule to a session: at the exact point, or between two events."""

from __future__ import annotations

from typing import Any, Final

from holdover.explore.schedule import Operation
from holdover.harness import Session
from holdover.model import Order, Side
from holdover.world import WorkingOrder

_OWNER: Final = "explore"
_SECOND_NS: Final = 1_000_000_000
_RECOVERY_MODES: Final = ("", "replay", "drop")


class OperationRunner:
    """Applies operations to one session. Delayed effects (a reconnect, an enabled book) use the session's clock."""

    def __init__(self, session: Session) -> None:
        self.session = session
        session.clock.register(_OWNER, self._on_timer)

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
        numbers = operation.parameter_values()
        session = self.session
        if not session.link.is_allowed:
            return
        session.trials.drop_link(lose_out=bool(numbers["lose_out"]), recovery=_RECOVERY_MODES[numbers["recovery"] % 3])
        session.clock.set_timer(session.clock.now_ns, _OWNER, "cut")
        session.clock.set_timer(session.clock.now_ns + max(numbers["seconds"], 0) * _SECOND_NS, _OWNER, "reconnect")

    def restart_subject(self, operation: Operation) -> None:
        """Restart the subject; discard it first when it is already dead."""
        session = self.session
        numbers = operation.parameter_values()
        if operation.do not in ("clean", "upgrade") and numbers.get("down_seconds", 0) > 0:
            if session.subject is not None:
                session.trials.discard_subject()
            session.run_without_subject(numbers["down_seconds"])
        session.restart(operation.do, during=max(numbers.get("mutations", 5), 1))

    def run_between_events(self, operation: Operation) -> None:
        """Perform an operation that happens between two events: of the venue, the strategy or the operator."""
        getattr(self, "_" + operation.do.replace("-", "_"))(operation.parameter_values())

    # -- operations of the venue ----------------------------------------------------------------------------------

    def _refuse_logon(self, numbers: dict[str, int]) -> None:
        until_ns = self.session.clock.now_ns + max(numbers["seconds"], 0) * _SECOND_NS
        self.session.link.refuse_logons("401", until_ns)  # the dropped link notifies every connection

    def _venue_cancel(self, numbers: dict[str, int]) -> None:
        order = _item_at([order for order in self.session.venue.orders.values() if order.is_open], numbers["order"])
        if isinstance(order, WorkingOrder):
            self.session.venue.cancel_order(order.cl_ord_id)

    def _by_hand(self, numbers: dict[str, int]) -> None:
        venue = self.session.venue
        account = _item_at(self.session.link.accounts, numbers["account"])
        book = _item_at(list(venue.books.values()), numbers["symbol"])
        price = book.last_px if book is not None else 0
        if account is not None and book is not None and price > 0 and numbers["lots"] > 0:
            side = Side.SELL if numbers["side"] % 2 else Side.BUY
            venue.manual_trade(account, book.instrument.symbol, side, numbers["lots"], price)

    def _bust(self, numbers: dict[str, int]) -> None:
        trade = _item_at(self.session.venue.trades[::-1], numbers["trade"])
        if trade is not None:
            self.session.venue.bust_trade(trade.exec_id, trade.trade_date)

    def _correct(self, numbers: dict[str, int]) -> None:
        trade = _item_at(self.session.venue.trades[::-1], numbers["trade"])
        if trade is not None and trade.last_qty + numbers["lots"] > 0 and trade.last_px + numbers["ticks"] > 0:
            order = self.session.venue.find_order(trade.cl_ord_id)
            if order is not None and order.cum_qty + numbers["lots"] <= order.order_qty:
                self.session.venue.correct_trade(
                    trade.exec_id, trade.last_qty + numbers["lots"], trade.last_px + numbers["ticks"], trade.trade_date
                )

    def _refuse(self, numbers: dict[str, int]) -> None:
        self.session.venue.refuse_count += 1

    def _disable(self, numbers: dict[str, int]) -> None:
        book = _item_at(list(self.session.venue.books.values()), numbers["symbol"])
        if book is not None:
            symbol = book.instrument.symbol
            self.session.venue.disable_book(symbol)
            after_ns = max(numbers["seconds"], 0) * _SECOND_NS
            self.session.clock.set_timer(self.session.clock.now_ns + after_ns, _OWNER, "enable", symbol)

    # -- operations of the strategy and the operator --------------------------------------------------------------

    def _cancel(self, numbers: dict[str, int]) -> None:
        order = _item_at(self._working_orders(), numbers["order"])
        if order is not None:
            self._perform_action("cancel", order.root_cl_ord_id)

    def _replace(self, numbers: dict[str, int]) -> None:
        order = _item_at(self._working_orders(), numbers["order"])
        if order is not None and order.price is not None and order.price + numbers["ticks"] > 0:
            book = self.session.venue.books[order.symbol]
            self._perform_action(
                "replace", order.root_cl_ord_id, order.price + numbers["ticks"] * book.instrument.price_increment
            )

    def _submit(self, numbers: dict[str, int]) -> None:
        self._perform_action("submit", numbers["strategy"], max(numbers["lots"], 1), numbers["ticks"])

    def _freeze(self, numbers: dict[str, int]) -> None:
        book = _item_at(list(self.session.venue.books.values()), numbers["symbol"])
        if book is not None:
            scope = f"instrument:{book.instrument.symbol}"
            if all(freeze.scope != scope for freeze in self.session.guard.active_freezes):
                self.session.guard.freeze(scope, operator="explorer", reason="explored")

    def _thaw(self, numbers: dict[str, int]) -> None:
        freeze = _item_at(self.session.guard.active_freezes, numbers["freeze"])
        if freeze is not None:
            self.session.guard.thaw(
                freeze.scope,
                operator="explorer",
                reason="explored",
                evidence="a schedule says so",
                forced_by="schedule",
            )

    def _working_orders(self) -> list[Order]:
        return [order for order in self.session.orders() if order.is_open and not order.is_pending]

    def _perform_action(self, action: str, *arguments: Any) -> None:
        """Ask the subject to perform an action of its strategy or operator, if it has a method `perform`."""
        perform = getattr(self.session.subject, "perform", None)
        if perform is not None:
            perform(action, *arguments)

    # -- delayed effects ------------------------------------------------------------------------------------------

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
