"""Matching: which orders trade against the recorded market, at which quantity and price (see `book`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from holdover.model import ExecType, ImpossibleStateError, OrdStatus, Side, TimeInForce
from holdover.world.book import UNDEF_PRICE, TopOfBook, WorkingOrder
from holdover.world.order_lifecycle import OrderLifecycle

QUOTE, TRADE, STATUS = 1, 2, 3
STATUS_WORDS = {1: "open", 2: "halt", 3: "disabled", 4: "closed"}


class MarketMatching:
    """Matches the orders in the books against the recorded market.

    It has no state of its own. The market does not touch an order for which `is_excluded` is true.
    """

    lifecycle: OrderLifecycle
    """Takes the fills and cancels; the venue sets it."""

    def __init__(self, books: Mapping[str, TopOfBook], set_trading: Callable[[TopOfBook, str], None]) -> None:
        self.books = books
        self.books_by_number = list(books.values())
        self.set_trading = set_trading
        self.is_excluded: Callable[[WorkingOrder], bool] = lambda order: False

    def rest_order(self, order: WorkingOrder) -> None:
        """Put an order into its book if it is not there, among the stop orders while it waits for its trigger.

        An order that waits for its primary order is in no book.
        """
        if self.is_excluded(order) or not order.fillable_qty or self.books[order.symbol].holds(order):
            return
        if order.is_triggered:
            self.books[order.symbol].add_order(order)
        else:
            self.books[order.symbol].add_stop(order)

    def release_order(self, order: WorkingOrder) -> None:
        """Let an order work: one that is in no book enters the market, another one stays where it is."""
        if not order.fillable_qty or self.books[order.symbol].holds(order):
            return
        if order.is_triggered:
            self.enter_order(order)
        else:
            self.rest_order(order)

    def on_market(self, event: tuple[int, ...]) -> None:
        """Apply one recorded event. Its second field is the index of the instrument."""
        _, number, rtype, flags, _, price, size, bid_px, ask_px, bid_sz, ask_sz = event
        book = self.books_by_number[number]
        if rtype == QUOTE:
            book.bid_px, book.ask_px, book.bid_sz, book.ask_sz = bid_px, ask_px, bid_sz, ask_sz
            book.bid_remaining_qty, book.ask_remaining_qty = bid_sz, ask_sz
            if book.best_buy >= ask_px or (bid_sz and book.best_sell <= bid_px) or book.unqueued_count:
                self.match_quote(book)
        elif rtype == TRADE:
            book.last_px = price
            book.traded_qty += size
            if (
                book.best_buy >= price
                or book.best_sell <= price
                or book.lowest_buy_stop <= price
                or book.highest_sell_stop >= price
            ):
                self.match_trade(book, price, size)
        else:
            self.set_trading(book, STATUS_WORDS.get(flags, "halt"))

    def match_quote(self, book: TopOfBook) -> None:
        """Fill the orders that a new quote reaches, up to the displayed size."""
        if book.unqueued_count:
            for order in (*book.buys, *book.sells):
                if order.queue_ahead is None:
                    book.update_queue_ahead(order)
            book.refresh_best_prices()
        if not book.trading:
            return
        for order in list(book.buys):
            if not book.ask_remaining_qty or (order.price is not None and order.price < book.ask_px):
                break
            self._fill_from_quote(book, order, resting=True)
        for order in list(book.sells):
            if not book.bid_remaining_qty or (order.price is not None and order.price > book.bid_px):
                break
            self._fill_from_quote(book, order, resting=True)

    def match_trade(self, book: TopOfBook, price: int, size: int) -> None:
        """Fill the orders that a recorded trade reaches, up to its size, and trigger stop orders."""
        if not book.trading:
            return
        remaining_qty = size
        for order in [*book.buys, *book.sells]:
            if remaining_qty <= 0:
                break
            limit = order.price
            if limit is None or not order.fillable_qty:  # a fill before may have cancelled it
                continue
            is_through = limit > price if order.side == Side.BUY else limit < price
            if not is_through:
                if limit != price:
                    continue
                queue_filled = min(order.queue_ahead or 0, remaining_qty)
                order.queue_ahead = (order.queue_ahead or 0) - queue_filled
                remaining_qty -= queue_filled
            quantity = min(order.fillable_qty, remaining_qty)
            if quantity > 0:
                remaining_qty -= quantity
                self.lifecycle.fill(order, quantity, limit)
        for order in list(book.stops):
            if order.stop_px is None or not order.fillable_qty:
                continue
            if price >= order.stop_px if order.side == Side.BUY else price <= order.stop_px:
                book.remove_order(order)
                order.is_triggered = True
                self.enter_order(order)

    def _fill_from_quote(self, book: TopOfBook, order: WorkingOrder, *, resting: bool) -> None:
        """Fill an order from the displayed opposite side, as far as that reaches."""
        buy = order.side == Side.BUY
        displayed_qty = book.ask_remaining_qty if buy else book.bid_remaining_qty
        displayed = book.ask_px if buy else book.bid_px
        quantity = min(order.fillable_qty, displayed_qty)
        if quantity <= 0 or displayed == UNDEF_PRICE:
            return
        if buy:
            book.ask_remaining_qty -= quantity
        else:
            book.bid_remaining_qty -= quantity
        # A resting order trades at its own price because it was there first.
        self.lifecycle.fill(order, quantity, order.price if resting and order.price is not None else displayed)

    def _is_marketable(self, book: TopOfBook, order: WorkingOrder) -> bool:
        buy = order.side == Side.BUY
        best, displayed_qty = (book.ask_px, book.ask_remaining_qty) if buy else (book.bid_px, book.bid_remaining_qty)
        if not book.trading or best == UNDEF_PRICE or displayed_qty <= 0:
            return False
        return order.price is None or (order.price >= best if buy else order.price <= best)

    def enter_order(self, order: WorkingOrder) -> None:
        """Enter an order: fill it from the displayed size, then rest or cancel the remainder by its time in force."""
        if self.is_excluded(order):
            return
        if not order.is_open:
            raise ImpossibleStateError(f"order {order.cl_ord_id} is {order.ord_status.name} and cannot be entered")
        book = self.books[order.symbol]
        displayed_qty = book.ask_remaining_qty if order.side == Side.BUY else book.bid_remaining_qty
        # A fill may change the other orders of the list, which may put this order into its book.
        if self._is_marketable(book, order) and (
            order.time_in_force != TimeInForce.FOK or displayed_qty >= order.fillable_qty
        ):
            self._fill_from_quote(book, order, resting=False)
        if not order.fillable_qty:
            return
        if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            self.lifecycle.close_order(order, OrdStatus.CANCELED, ExecType.CANCELED)
        else:
            self.rest_order(order)
