"""The hand that does a schedule's operations to a session: in place, or when what is running has been done."""

from __future__ import annotations

from typing import Any, Final

from holdover.explore.schedule import Operation
from holdover.harness import Session
from holdover.model import Order, Side
from holdover.world import Working

_OWNER: Final = "explore"
_SECOND_NS: Final = 1_000_000_000
_RECOVERY: Final = ("", "replay", "drop")


class Hand:
    """Does operations to one session. What comes later (a reconnect, a book enabled) stands on the session's clock."""

    def __init__(self, session: Session) -> None:
        self.session = session
        session.clock.register(_OWNER, self._timer)

    def to_the_message(self, operation: Operation, direction: str) -> None:
        """Do something to the next message in a direction, which is being put on the way now."""
        link = self.session.link
        if operation.do == "hold":
            link.fault(direction, 1, "hold", operation.numbers()["milliseconds"] * 1_000_000)
        elif operation.do == "not-found":
            self.session.venue.not_found += 1
            link.fault(direction, 1, "drop")
        else:
            link.fault(direction, 1, "drop" if operation.do == "lose" else operation.do)

    def cut(self, operation: Operation) -> None:
        """Cut the link in place, and let it come back after a while. One that is cut already stays as it is."""
        numbers = operation.numbers()
        session = self.session
        if not session.link.allowed:
            return
        session.sever(lose_out=bool(numbers["lose_out"]), recovery=_RECOVERY[numbers["recovery"] % 3])
        session.clock.at(session.clock.now_ns, _OWNER, "cut")
        session.clock.at(session.clock.now_ns + max(numbers["seconds"], 0) * _SECOND_NS, _OWNER, "reconnect")

    def restart(self, operation: Operation) -> None:
        """Bring the subject down, or bury it where it is dead already, and up again."""
        session = self.session
        numbers = operation.numbers()
        if operation.do not in ("clean", "upgrade") and numbers.get("down_seconds", 0) > 0:
            if session.subject is not None:
                session.bury()
            session.stay_down(numbers["down_seconds"])
        session.restart(operation.do, during=max(numbers.get("mutations", 5), 1))

    def idle(self, operation: Operation) -> None:
        """Do what is done between two events: the venue's own acts, and the strategy's and operator's."""
        getattr(self, "_" + operation.do.replace("-", "_"))(operation.numbers())

    # -- the venue's acts -----------------------------------------------------------------------------------------

    def _refuse_logon(self, numbers: dict[str, int]) -> None:
        until_ns = self.session.clock.now_ns + max(numbers["seconds"], 0) * _SECOND_NS
        self.session.link.refuse("401", until_ns)  # the cut tells whoever had a connection

    def _venue_cancel(self, numbers: dict[str, int]) -> None:
        order = _chosen([one for one in self.session.venue.orders.values() if one.is_open], numbers["order"])
        if isinstance(order, Working):
            self.session.venue.cancel(order.cl_ord_id)

    def _by_hand(self, numbers: dict[str, int]) -> None:
        venue = self.session.venue
        account = _chosen(self.session.accounts, numbers["account"])
        book = _chosen(venue.by_id, numbers["symbol"])
        price = book.last_px if book is not None else 0
        if account is not None and book is not None and price > 0 and numbers["lots"] > 0:
            side = Side.SELL if numbers["side"] % 2 else Side.BUY
            venue.trade_by_hand(account, book.instrument.symbol, side, numbers["lots"], price)

    def _bust(self, numbers: dict[str, int]) -> None:
        trade = _chosen(self.session.venue.trades[::-1], numbers["trade"])
        if trade is not None:
            self.session.venue.bust(trade.exec_id, trade.trade_date)

    def _correct(self, numbers: dict[str, int]) -> None:
        trade = _chosen(self.session.venue.trades[::-1], numbers["trade"])
        if trade is not None and trade.last_qty + numbers["lots"] > 0 and trade.last_px + numbers["ticks"] > 0:
            order = self.session.venue.find(trade.cl_ord_id)
            if order is not None and order.cum_qty + numbers["lots"] <= order.order_qty:
                self.session.venue.correct(
                    trade.exec_id, trade.last_qty + numbers["lots"], trade.last_px + numbers["ticks"], trade.trade_date
                )

    def _refuse(self, numbers: dict[str, int]) -> None:
        self.session.venue.refuse_next += 1

    def _disable(self, numbers: dict[str, int]) -> None:
        book = _chosen(self.session.venue.by_id, numbers["symbol"])
        if book is not None:
            symbol = book.instrument.symbol
            self.session.venue.disable(symbol)
            after_ns = max(numbers["seconds"], 0) * _SECOND_NS
            self.session.clock.at(self.session.clock.now_ns + after_ns, _OWNER, "enable", symbol)

    # -- the strategy's and the operator's ------------------------------------------------------------------------

    def _cancel(self, numbers: dict[str, int]) -> None:
        order = _chosen(self._working(), numbers["order"])
        if order is not None:
            self._act("cancel", order.root_cl_ord_id)

    def _replace(self, numbers: dict[str, int]) -> None:
        order = _chosen(self._working(), numbers["order"])
        if order is not None and order.price is not None and order.price + numbers["ticks"] > 0:
            book = self.session.venue.books[order.symbol]
            self._act("replace", order.root_cl_ord_id, order.price + numbers["ticks"] * book.instrument.price_increment)

    def _submit(self, numbers: dict[str, int]) -> None:
        self._act("submit", numbers["strategy"], max(numbers["lots"], 1), numbers["ticks"])

    def _freeze(self, numbers: dict[str, int]) -> None:
        book = _chosen(self.session.venue.by_id, numbers["symbol"])
        if book is not None:
            scope = f"instrument:{book.instrument.symbol}"
            if all(freeze.scope != scope for freeze in self.session.guard.frozen):
                self.session.guard.freeze(scope, operator="explorer", reason="explored")

    def _thaw(self, numbers: dict[str, int]) -> None:
        freeze = _chosen(self.session.guard.frozen, numbers["freeze"])
        if freeze is not None:
            self.session.guard.thaw(
                freeze.scope,
                operator="explorer",
                reason="explored",
                evidence="a schedule says so",
                forced_by="schedule",
            )

    def _working(self) -> list[Order]:
        return [order for order in self.session.orders() if order.is_open and not order.is_pending]

    def _act(self, what: str, *told: Any) -> None:
        """Ask the subject to do what its strategy or operator might; one that offers no `act` does nothing."""
        act = getattr(self.session.subject, "act", None)
        if act is not None:
            act(what, *told)

    # -- later ----------------------------------------------------------------------------------------------------

    def _timer(self, name: str, args: tuple[Any, ...]) -> None:
        session = self.session
        if name == "cut":
            session.guard.boundary("disconnect", session.trade_date)
        elif name == "reconnect":
            if not session.link.allowed and session.phase == "open":
                session.reconnect()
            session.link.allowed = True
        elif name == "enable":
            session.venue.enable(args[0])


def _chosen(of: Any, ordinal: int) -> Any:
    """The one of that place, going round; None where there is none."""
    return of[ordinal % len(of)] if len(of) else None
