"""The venue: the truth that a subject reconciles against. Its state survives every subject.

Orders match against the recorded market (see `book`). Requests, cancels and replaces race with fills: the
venue processes messages in the order of arrival. Its whole state can be queried (see `answers`).

Source of the order states: FIX 4.4 and 5.0 SP2 volume 4, order state change matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from holdover.model import (
    ExecType,
    ImpossibleStateError,
    Inbound,
    Instrument,
    MsgType,
    Order,
    OrderOrigin,
    OrdStatus,
    Outbound,
    Position,
    PositionEffect,
    PositionSide,
    Query,
    Side,
)
from holdover.model.record import position_key
from holdover.state import Composite, StateError, Stateful
from holdover.world.accounts import VenueAccounts
from holdover.world.answers import answer_query
from holdover.world.book import TopOfBook, WorkingOrder
from holdover.world.clock import VirtualClock
from holdover.world.contingency import Contingencies
from holdover.world.matching import MarketMatching
from holdover.world.order_lifecycle import OrderLifecycle
from holdover.world.policy import VenuePolicy
from holdover.world.requests import accept_cancel, accept_order, accept_replace
from holdover.world.venue_reports import VenueReports

_BOOK_PREFIX: Final = "book/"
_ACCOUNTS: Final = "accounts"


class VenueState(msgspec.Struct):
    """The state of a `Venue`, without that of its parts."""

    open_ns: int
    close_ns: int
    is_open: bool
    not_found_count: int
    refuse_count: int


class Venue(Composite[VenueState]):
    """One venue for several instruments and accounts.

    It consists of the matching against the market, the lifecycle of the orders, the accounts, and the reports to its
    clients.
    `attach` sets who receives the messages of an account. A trading day calls `begin`, `on_market` for each recorded
    event, `end` and `overnight`. An invalid request does not raise: the venue answers it as a real one would.
    """

    State = VenueState
    DERIVED: ClassVar = {
        "policy": "configuration, set once",
        "books": "parts that save themselves",
        "reports": "a part that saves itself",
        "lifecycle": "a part that saves itself",
        "accounts": "a part that saves itself",
        "matching": "has no state beside the books",
        "contingencies": "has no state beside the orders",
        "orders": "the container of the lifecycle",
        "roots": "the container of the lifecycle",
        "trades": "the container of the lifecycle",
        "positions": "the container of the lifecycle",
    }

    matching_type: ClassVar[type[MarketMatching]] = MarketMatching

    def __init__(
        self, clock: VirtualClock, instruments: Iterable[Instrument], policy: VenuePolicy | None = None
    ) -> None:
        self.policy = policy or VenuePolicy()
        instruments = list(instruments)
        self.books = {instrument.symbol: TopOfBook(instrument) for instrument in instruments}
        if len(self.books) < len(instruments):
            symbols = ", ".join(instrument.symbol for instrument in instruments)
            raise ValueError(f"an instrument of the venue is listed twice: {symbols}")
        self.reports = VenueReports(clock)
        self.matching = self.matching_type(self.books, self.set_trading)
        self.lifecycle = OrderLifecycle(self.books, self.reports, self.matching.rest_order)
        self.matching.lifecycle = self.lifecycle
        self.contingencies = Contingencies(self.lifecycle, self.books, self.matching.release_order)
        self.accounts = VenueAccounts(self.books, self.reports, self.lifecycle, self.policy)
        self.orders, self.roots = self.lifecycle.orders, self.lifecycle.roots
        self.trades, self.positions = self.lifecycle.trades, self.lifecycle.positions
        self.open_ns = self.close_ns = 0
        self.is_open = False
        self.not_found_count = 0
        self.refuse_count = 0

    @property
    def trade_date(self) -> str:
        """The trading day, or the last one."""
        return self.reports.trade_date

    @property
    def unanswered_count(self) -> int:
        """The number of requests that have arrived and have no answer; 0 here, because each is answered at once."""
        return 0

    def attach(self, accounts: Iterable[str], deliver: Callable[[Inbound], None]) -> None:
        """Set who receives the messages of these accounts."""
        self.reports.attach(accounts, deliver)

    # -- the day ------------------------------------------------------------------------------------------------

    def begin(self, trade_date: str, open_ns: int, close_ns: int) -> None:
        """Begin a trading day: expire GTD orders past their date, restate carried orders, open the books."""
        if self.is_open:
            raise ImpossibleStateError(f"the venue begins {trade_date}, but {self.trade_date} has not ended")
        if not trade_date or trade_date < self.trade_date:
            raise ImpossibleStateError(f"the venue begins {trade_date!r}, but {self.trade_date} has been")
        if open_ns >= close_ns:
            raise ValueError(f"{trade_date} opens at {open_ns} ns and closes at {close_ns}, should close later")
        self.open_ns, self.close_ns = open_ns, close_ns
        self.is_open = True
        self.reports.begin(trade_date, exec_ids_restart=self.policy.exec_ids_restart)
        self.lifecycle.begin_positions(trade_date)
        self.accounts.begin(trade_date)
        self.lifecycle.restate_orders(trade_date, is_reported=self.policy.restate_gtc)
        for book in self.books.values():
            book.traded_qty = 0
            self._set_trading(book, True, "open")

    def end(self) -> None:
        """Close the day: expire DAY orders, report carried orders done for the day, close the books."""
        if not self.is_open:
            raise ImpossibleStateError(f"the venue ends a day, but none is open after {self.trade_date or 'none'}")
        for book in self.books.values():
            self._set_trading(book, False, "closed")
        self.lifecycle.end_orders(is_reported=self.policy.done_for_day)
        self.is_open = False

    def overnight(self, splits: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Apply corporate actions to open orders and positions between two days.

        Raises `ValueError` when a split does not divide an open quantity or a price exactly, or when it is of an
        instrument that the venue does not have.
        """
        if self.is_open:
            raise ImpossibleStateError(f"the night after {self.trade_date} begins, but that day has not ended")
        for symbol, (new, old) in (splits or {}).items():
            if symbol not in self.books:
                raise ValueError(f"a split of {symbol}, which the venue does not have; it has {', '.join(self.books)}")
            if new < 1 or old < 1:
                raise ValueError(f"a split of {symbol}, {new} for {old}: both should be from 1 on")
            book = self.books[symbol]
            book.reference_version = str(int(book.reference_version or "1") + 1)
            self.lifecycle.split_orders(symbol, new, old, book.reference_version)
            self.lifecycle.split_positions(symbol, new, old, book.reference_version)
            self.reports.publish_status(book)
        for book in self.books.values():
            book.clear_quotes()

    # -- the market ---------------------------------------------------------------------------------------------

    def on_market(self, event: tuple[int, ...]) -> None:
        """Apply one recorded event. Its second field is the index of the instrument."""
        self.matching.on_market(event)

    def set_trading(self, book: TopOfBook, status: str) -> None:
        """Apply the status of a book that the market reports, unless an operator has disabled the book."""
        if book.reason != "disabled":
            self._set_trading(book, status == "open" and self.is_open, status)

    def disable_book(self, symbol: str) -> None:
        """Disable a book until `enable_book`."""
        self._set_trading(self.books[symbol], False, "disabled")

    def enable_book(self, symbol: str) -> None:
        """Enable a book."""
        self._set_trading(self.books[symbol], self.is_open, "open")

    def _set_trading(self, book: TopOfBook, trading: bool, reason: str) -> None:
        if (book.trading, book.reason) != (trading, reason):
            book.trading, book.reason = trading, reason
            self.reports.publish_status(book)

    # -- requests -----------------------------------------------------------------------------------------------

    def receive(self, message: Outbound) -> None:
        """Receive a message of a client."""
        if isinstance(message, Query):
            for reply in answer_query(self, message):
                self.reports.send(message.account, reply)
        elif message.msg_type == MsgType.NEW_ORDER_SINGLE:
            accept_order(self, message)
        elif message.msg_type == MsgType.ORDER_CANCEL_REQUEST:
            accept_cancel(self, message)
        elif message.msg_type == MsgType.ORDER_CANCEL_REPLACE_REQUEST:
            accept_replace(self, message)
        else:
            raise ImpossibleStateError(f"request {message.cl_ord_id} is a {message.msg_type.name}, which is no request")

    def closed_reason(self, book: TopOfBook) -> str:
        """Return why a book accepts no new order now; empty when it does."""
        if not self.is_open:
            return "exchange closed"
        if not book.trading and self.reports.clock.now_ns >= self.open_ns:
            return f"{book.instrument.symbol} takes no orders: {book.reason}"
        return ""

    # -- unrequested events at the venue ---------------------------------------------------------------------------

    def cancel_order(self, cl_ord_id: str) -> bool:
        """Cancel an order without a request. Returns False when the order is not open."""
        order = self.find_order(cl_ord_id)
        if order is None or not order.is_open:
            return False
        self.lifecycle.close_order(order, OrdStatus.CANCELED, ExecType.CANCELED)
        return True

    def manual_trade(
        self,
        account: str,
        symbol: str,
        side: Side,
        quantity: int,
        price: int,
        position_side: PositionSide | None = None,
    ) -> str:
        """Enter and fill an order manually at the venue; return its ClOrdID, which no client has assigned."""
        return self.lifecycle.manual_trade(account, symbol, side, quantity, price, OrderOrigin.MANUAL, position_side)

    def liquidate(
        self,
        account: str,
        symbol: str,
        origin: OrderOrigin = OrderOrigin.LIQUIDATION,
        lots: int | None = None,
        position_side: PositionSide | None = None,
    ) -> str:
        """Close a position, or `lots` of it, at the last traded price with an order of the venue's own.

        In an account in hedge mode `position_side` names the leg. With the whole position its closing orders end.

        Returns the ClOrdID of that order, which no client has assigned; empty when there is no position to close or no
        price. Raises `ValueError` for an unknown instrument, and for less than one lot.
        """
        if symbol not in self.books:
            raise ValueError(f"a liquidation of {symbol}; the venue has {', '.join(self.books)}")
        if lots is not None and lots < 1:
            raise ValueError(f"a liquidation of {lots} lots of {symbol}, should be from 1 on")
        position = self.positions.get(position_key(account, symbol, position_side or ""))
        price = self.books[symbol].last_px
        if position is None or not position.net_qty or price <= 0:
            return ""
        side = Side.SELL if position.net_qty > 0 else Side.BUY
        quantity = abs(position.net_qty) if lots is None else min(lots, abs(position.net_qty))
        if quantity == abs(position.net_qty):
            _cancel_closing_orders(self.lifecycle, position)
        cl_ord_id = self.lifecycle.manual_trade(account, symbol, side, quantity, price, origin, position_side)
        self.accounts.report_state(account, self.books[symbol].instrument.currency, f"S-{cl_ord_id}")
        return cl_ord_id

    def late_fill(self, cl_ord_id: str, quantity: int, price: int | None = None) -> bool:
        """Report a fill after the cancel that it crossed. Returns False when the order is not a cancelled one.

        The order stays cancelled and its CumQty grows. Without a price (ticks) it fills at its own price.
        Source: FIX 4.4 volume 4, order state change matrices, a fill that crosses the cancel.
        """
        return self.lifecycle.late_fill(cl_ord_id, quantity, price)

    def bust_trade(self, exec_id: str, trade_date: str = "") -> bool:
        """Bust a trade (ExecType Trade Cancel). Returns False when that day has no trade of that ExecID."""
        return self.lifecycle.amend_trade(exec_id, trade_date or self.trade_date, None)

    def correct_trade(self, exec_id: str, quantity: int, price: int, trade_date: str = "") -> bool:
        """Correct a trade (ExecType Trade Correct). Returns False when that day has no trade of that ExecID."""
        return self.lifecycle.amend_trade(exec_id, trade_date or self.trade_date, (quantity, price))

    # -- questions ----------------------------------------------------------------------------------------------

    def find_order(self, cl_ord_id: str) -> WorkingOrder | None:
        """Return an order by any ClOrdID of its chain, or None."""
        return self.lifecycle.find_order(cl_ord_id)

    def order_record(self, cl_ord_id: str) -> Order | None:
        """Return the venue's record of an order, by any ClOrdID of its chain, or None."""
        working_order = self.find_order(cl_ord_id)
        return working_order.to_record() if working_order else None

    def top(self, symbol: str) -> TopOfBook:
        """Return the current market of one instrument. Raises `KeyError` for an unknown symbol."""
        return self.books[symbol]

    # -- state --------------------------------------------------------------------------------------------------

    def parts(self) -> Mapping[str, Stateful[Any]]:
        """Return the parts of the venue that have state: the orders before the books that refer to them."""
        parts: dict[str, Stateful[Any]] = {"reports": self.reports, "lifecycle": self.lifecycle}
        parts[_ACCOUNTS] = self.accounts
        return parts | {f"{_BOOK_PREFIX}{symbol}": book for symbol, book in self.books.items()}

    def _restore_parts(self, content: dict[str, bytes]) -> None:
        if min(self.not_found_count, self.refuse_count) < 0:
            raise StateError(
                f"the stored state of Venue is damaged: {self.not_found_count} answers and {self.refuse_count} "
                f"requests are to be refused"
            )
        for name in content:
            symbol = name.removeprefix(_BOOK_PREFIX)
            if symbol != name and symbol not in self.books:
                raise StateError(
                    f"the stored state of {type(self).__name__} has a book, and no recording of {symbol} is here"
                )
        # What the state does not have is new and stays as it is: an instrument's book, the accounts.
        new_parts = {_ACCOUNTS: self.accounts.to_bytes()}
        new_parts |= {f"{_BOOK_PREFIX}{symbol}": book.to_bytes() for symbol, book in self.books.items()}
        super()._restore_parts(new_parts | content)
        for book in self.books.values():
            book.adopt_orders(self.orders)
        if self.is_open and not self.open_ns < self.close_ns:
            raise StateError(f"the stored state of Venue is damaged: open from {self.open_ns} to {self.close_ns} ns")


def _cancel_closing_orders(lifecycle: OrderLifecycle, position: Position) -> None:
    """Cancel the orders that would close a position which the venue closes itself."""
    for order in lifecycle.open_orders():
        closes = order.position_effect == PositionEffect.CLOSE and order.position_key == position.key
        if closes and order.is_open:
            lifecycle.close_order(order, OrdStatus.CANCELED, ExecType.CANCELED)
