"""The venue: the truth that a subject reconciles against. Its state survives every subject.

Orders match against the recorded market (see `book`). Requests, cancels and replaces race with fills: the
venue processes messages in the order of arrival. Its whole state can be queried (see `answers`).

Source of the order states: FIX 4.4 and 5.0 SP2 volume 4, order state change matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any

import msgspec

from holdover.model import Book as BookRecord
from holdover.model import (
    CancelReject,
    ExecRestatementReason,
    ExecType,
    ExecutionReport,
    Inbound,
    Instrument,
    MsgType,
    Order,
    OrdStatus,
    OrdType,
    Outbound,
    Position,
    Query,
    Record,
    Request,
    SecurityStatus,
    Side,
    TimeInForce,
)
from holdover.world.answers import answer_query
from holdover.world.book import UNDEF_PRICE, TopOfBook, WorkingOrder
from holdover.world.clock import VirtualClock
from holdover.world.policy import VenuePolicy

QUOTE, TRADE, STATUS = 1, 2, 3
STATUS_WORDS = {1: "open", 2: "halt", 3: "disabled", 4: "closed"}


class Venue:
    """One venue for several instruments and accounts.

    `observe` is called with each changed record (Order, Position, Book). `attach` sets who receives the messages
    of an account. A trading day calls `begin`, `on_market` for each recorded event, `end` and `overnight`. An
    invalid request does not raise: the venue answers it as a real one would.
    """

    def __init__(
        self,
        clock: VirtualClock,
        instruments: Iterable[Instrument],
        policy: VenuePolicy | None = None,
        name: str = "VENUE",
    ) -> None:
        self.clock, self.name = clock, name
        self.policy = policy or VenuePolicy()
        self.books = {instrument.symbol: TopOfBook(instrument) for instrument in instruments}
        self.by_id = list(self.books.values())
        self.trade_date = ""
        self.open_ns = self.close_ns = 0
        self.is_open = False
        self.observe: Callable[[Record], None] = lambda record: None
        self.orders: dict[str, WorkingOrder] = {}
        self.roots: dict[str, str] = {}
        self.trades: list[ExecutionReport] = []
        self.positions: dict[str, Position] = {}
        self.not_found_count = 0
        self.refuse_count = 0
        self.last_exec_id = ""
        self._deliver: dict[str, Callable[[Inbound], None]] = {}
        self._exec_number = 0
        self._order_number = 0

    def attach(self, accounts: Iterable[str], deliver: Callable[[Inbound], None]) -> None:
        """Set who receives the messages of these accounts."""
        for account in accounts:
            self._deliver[account] = deliver

    @property
    def unanswered_count(self) -> int:
        """The number of requests that have arrived and have no answer; 0 here, because each is answered at once."""
        return 0

    def top(self, symbol: str) -> TopOfBook:
        """Return the current market of one instrument. Raises `KeyError` for an unknown symbol."""
        return self.books[symbol]

    # -- the day ------------------------------------------------------------------------------------------------

    def begin(self, trade_date: str, open_ns: int, close_ns: int) -> None:
        """Begin a trading day: expire GTD orders past their date, restate carried orders, open the books."""
        self.trade_date, self.open_ns, self.close_ns = trade_date, open_ns, close_ns
        self.is_open = True
        if self.policy.exec_ids_restart:
            self._exec_number = 0
        for key, position in self.positions.items():
            self._set_position(
                msgspec.structs.replace(position, carried_qty=position.net_qty, trade_date=trade_date), key
            )
        for order in self._open_orders():
            if order.time_in_force == TimeInForce.GTD and order.expire_date and order.expire_date < trade_date:
                self._close_order(order, OrdStatus.EXPIRED, ExecType.EXPIRED)
            else:
                order.ord_status = _status_from_quantities(order)
                if self.policy.restate_gtc:
                    self._report_change(
                        order, ExecType.RESTATED, exec_restatement_reason=ExecRestatementReason.GT_RENEWAL
                    )
                else:
                    self._observe_order(order)
        for book in self.by_id:
            book.traded_qty = 0
            self._set_trading(book, True, "open")

    def end(self) -> None:
        """Close the day: expire DAY orders, report carried orders done for the day, close the books."""
        for book in self.by_id:
            self._set_trading(book, False, "closed")
        for order in self._open_orders():
            if order.time_in_force in (TimeInForce.GTC, TimeInForce.GTD):
                if self.policy.done_for_day:
                    order.ord_status = OrdStatus.DONE_FOR_DAY
                    self._report_change(order, ExecType.DONE_FOR_DAY)
            else:
                self._close_order(order, OrdStatus.EXPIRED, ExecType.EXPIRED)
        self.is_open = False

    def overnight(self, splits: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Apply corporate actions to open orders and positions between two days.

        Raises `ValueError` when a split does not divide an open quantity or a price exactly.
        """
        for symbol, (new, old) in (splits or {}).items():
            book = self.books[symbol]
            book.reference_version = str(int(book.reference_version or "1") + 1)
            for order in self._open_orders():
                if order.symbol == symbol:
                    self._split_order(order, new, old, book.reference_version)
            for key, position in self.positions.items():
                if position.symbol == symbol:
                    net_qty = _divide_exactly(position.net_qty * new, old, f"position {key}")
                    self._set_position(
                        msgspec.structs.replace(position, net_qty=net_qty, reference_version=book.reference_version),
                        key,
                    )
            self._set_trading(book, book.trading, book.reason, force=True)
        for book in self.by_id:
            book.bid_px = book.ask_px = UNDEF_PRICE
            book.bid_sz = book.ask_sz = book.bid_remaining_qty = book.ask_remaining_qty = 0

    def _split_order(self, order: WorkingOrder, new: int, old: int, version: str) -> None:
        order.order_qty = _divide_exactly(order.order_qty * new, old, f"OrderQty of {order.cl_ord_id}")
        order.cum_qty = _divide_exactly(order.cum_qty * new, old, f"CumQty of {order.cl_ord_id}")
        if order.price is not None:
            order.price = _divide_exactly(order.price * old, new, f"price of {order.cl_ord_id}")
        order.reference_version = version
        self._report_change(order, ExecType.RESTATED, exec_restatement_reason=ExecRestatementReason.GT_CORPORATE_ACTION)

    # -- the market ---------------------------------------------------------------------------------------------

    def on_market(self, event: tuple[int, ...]) -> None:
        """Apply one recorded event. Its second field is the index of the instrument."""
        _, number, rtype, flags, _, price, size, bid_px, ask_px, bid_sz, ask_sz = event
        book = self.by_id[number]
        if rtype == QUOTE:
            book.bid_px, book.ask_px, book.bid_sz, book.ask_sz = bid_px, ask_px, bid_sz, ask_sz
            book.bid_remaining_qty, book.ask_remaining_qty = bid_sz, ask_sz
            if book.best_buy >= ask_px or (bid_sz and book.best_sell <= bid_px) or book.unqueued_count:
                self._on_quote(book)
        elif rtype == TRADE:
            book.last_px = price
            book.traded_qty += size
            if book.best_buy >= price or book.best_sell <= price or book.stops:
                self._on_trade(book, price, size)
        else:
            status = STATUS_WORDS.get(flags, "halt")
            if book.reason != "disabled":
                self._set_trading(book, status == "open" and self.is_open, status)

    def _on_quote(self, book: TopOfBook) -> None:
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

    def _on_trade(self, book: TopOfBook, price: int, size: int) -> None:
        if not book.trading:
            return
        remaining_qty = size
        for order in [*book.buys, *book.sells]:
            if remaining_qty <= 0:
                break
            limit = order.price
            if limit is None:
                continue
            is_through = limit > price if order.side == Side.BUY else limit < price
            if not is_through:
                if limit != price:
                    continue
                queue_filled = min(order.queue_ahead or 0, remaining_qty)
                order.queue_ahead = (order.queue_ahead or 0) - queue_filled
                remaining_qty -= queue_filled
            quantity = min(order.leaves_qty, remaining_qty)
            if quantity > 0:
                remaining_qty -= quantity
                self._fill(order, quantity, limit)
        for order in list(book.stops):
            if order.stop_px is not None and (
                price >= order.stop_px if order.side == Side.BUY else price <= order.stop_px
            ):
                book.stops.remove(order)
                order.is_triggered = True
                self._enter_order(book, order)

    def _fill_from_quote(self, book: TopOfBook, order: WorkingOrder, *, resting: bool) -> None:
        """Fill an order from the displayed opposite side, as far as that reaches."""
        buy = order.side == Side.BUY
        displayed_qty = book.ask_remaining_qty if buy else book.bid_remaining_qty
        displayed = book.ask_px if buy else book.bid_px
        quantity = min(order.leaves_qty, displayed_qty)
        if quantity <= 0 or displayed == UNDEF_PRICE:
            return
        if buy:
            book.ask_remaining_qty -= quantity
        else:
            book.bid_remaining_qty -= quantity
        # A resting order trades at its own price because it was there first.
        self._fill(order, quantity, order.price if resting and order.price is not None else displayed)

    def _is_marketable(self, book: TopOfBook, order: WorkingOrder) -> bool:
        buy = order.side == Side.BUY
        best, displayed_qty = (book.ask_px, book.ask_remaining_qty) if buy else (book.bid_px, book.bid_remaining_qty)
        if not book.trading or best == UNDEF_PRICE or displayed_qty <= 0:
            return False
        return order.price is None or (order.price >= best if buy else order.price <= best)

    def _enter_order(self, book: TopOfBook, order: WorkingOrder) -> None:
        """Enter an order: fill it from the displayed size, then rest or cancel the remainder by its time in force."""
        displayed_qty = book.ask_remaining_qty if order.side == Side.BUY else book.bid_remaining_qty
        if self._is_marketable(book, order) and (
            order.time_in_force != TimeInForce.FOK or displayed_qty >= order.leaves_qty
        ):
            self._fill_from_quote(book, order, resting=False)
        if not order.leaves_qty:
            return
        if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            self._close_order(order, OrdStatus.CANCELED, ExecType.CANCELED)
        else:
            book.add_order(order)

    def _fill(self, order: WorkingOrder, quantity: int, price: int) -> None:
        order.cum_qty += quantity
        order.notional += quantity * price
        order.ord_status = _status_from_quantities(order)
        self._update_position(order, quantity)
        report = self._report_change(order, ExecType.TRADE, last_qty=quantity, last_px=price)
        self.trades.append(report)
        if order.cum_qty >= order.order_qty:
            self.books[order.symbol].remove_order(order)

    def _update_position(self, order: WorkingOrder, quantity: int) -> None:
        key = f"{order.account}/{order.symbol}"
        position = self.positions.get(key) or Position(
            account=order.account,
            symbol=order.symbol,
            net_qty=0,
            trade_date=self.trade_date,
            reference_version=self.books[order.symbol].reference_version,
        )
        signed = quantity if order.side == Side.BUY else -quantity
        self._set_position(msgspec.structs.replace(position, net_qty=position.net_qty + signed), key)

    # -- requests -----------------------------------------------------------------------------------------------

    def receive(self, message: Outbound) -> None:
        """Receive a message of a client."""
        if isinstance(message, Query):
            for reply in answer_query(self, message):
                self._send(message.account, reply)
        elif message.msg_type == MsgType.NEW_ORDER_SINGLE:
            self._accept_order(message)
        elif message.msg_type == MsgType.ORDER_CANCEL_REQUEST:
            self._accept_cancel(message)
        else:
            self._accept_replace(message)

    def _accept_order(self, request: Request) -> None:
        existing_order = self.find_order(request.cl_ord_id)
        if existing_order is not None and request.poss_resend and existing_order.order_qty == request.order_qty:
            self._send(request.account, self.status_report(existing_order))
            return
        problem = self._reject_reason(request)
        if problem:
            self._reject(request, *problem)
            return
        self._order_number += 1
        order = WorkingOrder(
            root_cl_ord_id=request.cl_ord_id,
            cl_ord_id=request.cl_ord_id,
            order_id=f"O{self._order_number}",
            account=request.account,
            symbol=request.symbol,
            side=request.side,
            order_qty=request.order_qty,
            ord_type=request.ord_type,
            time_in_force=request.time_in_force,
            entered=self._order_number,
            price=request.price,
            stop_px=request.stop_px,
            expire_date=request.expire_date,
            cl_ord_link_id=request.cl_ord_link_id,
            position_effect=request.position_effect,
            trade_date=self.trade_date,
            reference_version=self.books[request.symbol].reference_version,
            is_triggered=request.ord_type not in (OrdType.STOP, OrdType.STOP_LIMIT),
        )
        self.orders[order.root_cl_ord_id] = order
        self.roots[order.cl_ord_id] = order.root_cl_ord_id
        self._report_change(order, ExecType.NEW)
        book = self.books[order.symbol]
        if order.is_triggered:
            self._enter_order(book, order)
        else:
            book.stops.append(order)

    def _reject_reason(self, request: Request) -> tuple[int, str] | None:
        """Return (OrdRejReason, text) when a new order is not acceptable. Source: FIX 4.4, OrdRejReason (103)."""
        book = self.books.get(request.symbol)
        if self.refuse_count:
            self.refuse_count -= 1
            return 0, "refused by the venue"
        if book is None:
            return 1, f"unknown symbol {request.symbol}"
        if request.cl_ord_id in self.roots:
            return 6, f"duplicate order: ClOrdID {request.cl_ord_id}"
        if closed_reason := self._closed_reason(book):
            return 2, closed_reason
        if request.order_qty <= 0:
            return 13, f"incorrect quantity {request.order_qty}"
        limited = request.ord_type in (OrdType.LIMIT, OrdType.STOP_LIMIT)
        if limited and (request.price is None or request.price <= 0):
            return 99, "a limit order needs a price"
        if request.price is not None and request.price % book.instrument.price_increment:
            return 99, f"price {request.price} is no multiple of {book.instrument.price_increment} ticks"
        return None

    def _closed_reason(self, book: TopOfBook) -> str:
        """Return why a book accepts no new order now; empty when it does."""
        if not self.is_open:
            return "exchange closed"
        if not book.trading and self.clock.now_ns >= self.open_ns:
            return f"{book.instrument.symbol} takes no orders: {book.reason}"
        return ""

    def _reject(self, request: Request, reason: int, text: str) -> None:
        self._send(
            request.account,
            ExecutionReport(
                exec_type=ExecType.REJECTED,
                ord_status=OrdStatus.REJECTED,
                cl_ord_id=request.cl_ord_id,
                exec_id=self._next_exec_id(),
                symbol=request.symbol,
                side=request.side,
                order_qty=request.order_qty,
                account=request.account,
                ord_type=request.ord_type,
                time_in_force=request.time_in_force,
                price=request.price,
                cl_ord_link_id=request.cl_ord_link_id,
                trade_date=self.trade_date,
                order_date=self.trade_date,
                ord_rej_reason=reason,
                text=text,
                transact_time_ns=self.clock.now_ns,
            ),
        )

    def _accept_cancel(self, request: Request) -> None:
        order = self.find_order(request.orig_cl_ord_id)
        if order is None or not order.is_open or request.cl_ord_id in self.roots:
            self._send_cancel_reject(request, order, "1")
            return
        self.roots[request.cl_ord_id] = order.root_cl_ord_id
        if self.policy.send_pending:
            self._send(
                order.account,
                self._report(
                    order, ExecType.PENDING_CANCEL, cl_ord_id=request.cl_ord_id, status=OrdStatus.PENDING_CANCEL
                ),
            )
        self._close_order(order, OrdStatus.CANCELED, ExecType.CANCELED)

    def _accept_replace(self, request: Request) -> None:
        order = self.find_order(request.orig_cl_ord_id)
        book = self.books.get(request.symbol)
        bad_price = book is not None and request.price is not None and request.price % book.instrument.price_increment
        if order is None or not order.is_open or request.cl_ord_id in self.roots or bad_price or self.refuse_count:
            self.refuse_count = max(0, self.refuse_count - 1)
            self._send_cancel_reject(request, order, "2")
            return
        if self.policy.send_pending:
            self._send(
                order.account,
                self._report(
                    order, ExecType.PENDING_REPLACE, cl_ord_id=request.cl_ord_id, status=OrdStatus.PENDING_REPLACE
                ),
            )
        self.roots[request.cl_ord_id] = order.root_cl_ord_id
        order.orig_cl_ord_id, order.cl_ord_id = order.cl_ord_id, request.cl_ord_id
        # A quantity below the filled quantity becomes the filled quantity: FIX 5.0 volume 4, C.3.c.
        order.order_qty = max(request.order_qty, order.cum_qty)
        order.price = request.price
        order.ord_status = _status_from_quantities(order)
        book = self.books[order.symbol]
        book.remove_order(order)
        self._order_number += 1
        order.entered = self._order_number
        self._report_change(order, ExecType.REPLACED)
        if order.leaves_qty and order.is_triggered:
            self._enter_order(book, order)
        elif order.leaves_qty:
            book.stops.append(order)  # still waiting for its trigger

    def _send_cancel_reject(self, request: Request, order: WorkingOrder | None, response_to: str) -> None:
        self._send(
            request.account,
            CancelReject(
                cl_ord_id=request.cl_ord_id,
                orig_cl_ord_id=request.orig_cl_ord_id,
                ord_status=order.ord_status if order else OrdStatus.REJECTED,
                account=request.account,
                order_id=order.order_id if order else "NONE",
                cxl_rej_reason=0 if order else 1,
                cxl_rej_response_to=response_to,
                text="too late" if order else "unknown order",
            ),
        )

    # -- unrequested events at the venue ---------------------------------------------------------------------------

    def cancel_order(self, cl_ord_id: str) -> bool:
        """Cancel an order without a request. Returns False when the order is not open."""
        order = self.find_order(cl_ord_id)
        if order is None or not order.is_open:
            return False
        self._close_order(order, OrdStatus.CANCELED, ExecType.CANCELED)
        return True

    def manual_trade(self, account: str, symbol: str, side: Side, quantity: int, price: int) -> str:
        """Enter and fill an order manually at the venue; return its ClOrdID, which no client has assigned."""
        self._order_number += 1
        order = WorkingOrder(
            root_cl_ord_id=f"HAND-{self._order_number}",
            cl_ord_id=f"HAND-{self._order_number}",
            order_id=f"O{self._order_number}",
            account=account,
            symbol=symbol,
            side=side,
            order_qty=quantity,
            ord_type=OrdType.LIMIT,
            time_in_force=TimeInForce.DAY,
            entered=self._order_number,
            price=price,
            trade_date=self.trade_date,
            reference_version=self.books[symbol].reference_version,
        )
        self.orders[order.root_cl_ord_id] = order
        self.roots[order.cl_ord_id] = order.root_cl_ord_id
        self._report_change(order, ExecType.NEW)
        self._fill(order, quantity, price)
        return order.cl_ord_id

    def late_fill(self, cl_ord_id: str, quantity: int, price: int | None = None) -> bool:
        """Report a fill after the cancel that it crossed. Returns False when the order is not a cancelled one.

        The order stays cancelled and its CumQty grows. Without a price (ticks) it fills at its own price.
        Source: FIX 4.4 volume 4, order state change matrices, a fill that crosses the cancel.
        """
        order = self.find_order(cl_ord_id)
        price = price if price is not None or order is None else order.price
        if order is None or order.ord_status != OrdStatus.CANCELED or price is None:
            return False
        quantity = min(quantity, order.order_qty - order.cum_qty)
        if quantity <= 0:
            return False
        order.cum_qty += quantity
        order.notional += quantity * price
        self._update_position(order, quantity)
        self.trades.append(self._report_change(order, ExecType.TRADE, last_qty=quantity, last_px=price))
        return True

    def bust_trade(self, exec_id: str, trade_date: str = "") -> bool:
        """Bust a trade (ExecType Trade Cancel). Returns False when that day has no trade of that ExecID."""
        return self._amend_trade(exec_id, trade_date or self.trade_date, None)

    def correct_trade(self, exec_id: str, quantity: int, price: int, trade_date: str = "") -> bool:
        """Correct a trade (ExecType Trade Correct). Returns False when that day has no trade of that ExecID."""
        return self._amend_trade(exec_id, trade_date or self.trade_date, (quantity, price))

    def _amend_trade(self, exec_id: str, trade_date: str, replacement: tuple[int, int] | None) -> bool:
        trade_report = next(
            (
                trade
                for trade in self.trades
                if (trade.exec_id, trade.trade_date) == (exec_id, trade_date)
                and trade.exec_type != ExecType.TRADE_CANCEL
            ),
            None,
        )
        order = self.find_order(trade_report.cl_ord_id) if trade_report else None
        amended = any((trade.exec_ref_id, trade.exec_ref_date) == (exec_id, trade_date) for trade in self.trades)
        if trade_report is None or order is None or amended:
            return False  # a busted or corrected trade continues under its new ExecID
        if order.time_in_force not in (TimeInForce.GTC, TimeInForce.GTD) and order.trade_date < self.trade_date:
            return False  # the order's day is over, so a reopened quantity could not trade again
        quantity, price = replacement or (0, 0)
        order.cum_qty += quantity - trade_report.last_qty
        order.notional += quantity * price - trade_report.last_qty * trade_report.last_px
        if order.ord_status in (OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED, OrdStatus.FILLED):
            reopened = order.ord_status == OrdStatus.FILLED and order.cum_qty < order.order_qty
            order.ord_status = _status_from_quantities(order)
            if reopened:
                self.books[order.symbol].add_order(order)
            elif not order.is_open:
                self.books[order.symbol].remove_order(order)
        self._update_position(order, quantity - trade_report.last_qty)
        report = self._report_change(
            order,
            ExecType.TRADE_CANCEL if replacement is None else ExecType.TRADE_CORRECT,
            last_qty=quantity,
            last_px=price,
            exec_ref_id=exec_id,
            exec_ref_date=trade_date,
        )
        self.trades.append(report)
        return True

    def disable_book(self, symbol: str) -> None:
        """Disable a book until `enable_book`."""
        self._set_trading(self.books[symbol], False, "disabled")

    def enable_book(self, symbol: str) -> None:
        """Enable a book."""
        self._set_trading(self.books[symbol], self.is_open, "open")

    # -- asking -------------------------------------------------------------------------------------------------

    def find_order(self, cl_ord_id: str) -> WorkingOrder | None:
        """Return an order by any ClOrdID of its chain, or None."""
        root = self.roots.get(cl_ord_id)
        return self.orders.get(root) if root else None

    def order_record(self, cl_ord_id: str) -> Order | None:
        """Return the venue's record of an order, by any ClOrdID of its chain, or None."""
        working_order = self.find_order(cl_ord_id)
        return working_order.to_record() if working_order else None

    def status_report(self, order: WorkingOrder, **fields: Any) -> ExecutionReport:
        """Return a status report (ExecType Order Status, ExecID 0), which changes nothing."""
        return self._report(order, ExecType.ORDER_STATUS, exec_id="0", **fields)

    # -- inside -------------------------------------------------------------------------------------------------

    def _open_orders(self) -> list[WorkingOrder]:
        return [order for order in self.orders.values() if order.is_open]

    def _close_order(self, order: WorkingOrder, status: OrdStatus, exec_type: ExecType) -> None:
        self.books[order.symbol].remove_order(order)
        order.ord_status = status
        self._report_change(order, exec_type)

    def _report_change(self, order: WorkingOrder, exec_type: ExecType, **fields: Any) -> ExecutionReport:
        report = self._report(order, exec_type, **fields)
        order.exec_type, order.exec_id, order.exec_ref_id = exec_type, report.exec_id, report.exec_ref_id
        self._observe_order(order)
        self._send(order.account, report)
        return report

    def _observe_order(self, order: WorkingOrder) -> None:
        self.observe(order.to_record())

    def _set_position(self, position: Position, key: str) -> None:
        self.positions[key] = position
        self.observe(position)

    def _report(
        self,
        order: WorkingOrder,
        exec_type: ExecType,
        *,
        cl_ord_id: str = "",
        status: OrdStatus | None = None,
        exec_id: str = "",
        **fields: Any,
    ) -> ExecutionReport:
        orig = order.cl_ord_id if cl_ord_id else order.orig_cl_ord_id
        return ExecutionReport(
            exec_type=exec_type,
            ord_status=status or order.ord_status,
            cl_ord_id=cl_ord_id or order.cl_ord_id,
            orig_cl_ord_id=orig,
            exec_id=exec_id or self._next_exec_id(),
            symbol=order.symbol,
            side=order.side,
            order_qty=order.order_qty,
            cum_qty=order.cum_qty,
            leaves_qty=order.leaves_qty,
            notional=order.notional,
            order_id=order.order_id,
            account=order.account,
            ord_type=order.ord_type,
            time_in_force=order.time_in_force,
            price=order.price,
            stop_px=order.stop_px,
            expire_date=order.expire_date,
            cl_ord_link_id=order.cl_ord_link_id,
            position_effect=order.position_effect,
            trade_date=self.trade_date,
            order_date=order.trade_date,
            reference_version=order.reference_version,
            transact_time_ns=self.clock.now_ns,
            **fields,
        )

    def _next_exec_id(self) -> str:
        self._exec_number += 1
        self.last_exec_id = f"E{self._exec_number}"
        return self.last_exec_id

    def _set_trading(self, book: TopOfBook, trading: bool, reason: str, *, force: bool = False) -> None:
        if (book.trading, book.reason) == (trading, reason) and not force:
            return
        book.trading, book.reason = trading, reason
        symbol = book.instrument.symbol
        self.observe(
            BookRecord(symbol=symbol, trading=trading, reason=reason, reference_version=book.reference_version)
        )
        status = SecurityStatus(
            symbol=symbol,
            trading=trading,
            reason=reason,
            trade_date=self.trade_date,
            reference_version=book.reference_version,
        )
        for deliver in dict.fromkeys(self._deliver.values()):
            deliver(status)

    def _send(self, account: str, message: Inbound) -> None:
        deliver = self._deliver.get(account)
        if deliver is not None:
            deliver(message)

    # -- memory -------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Any:
        """Return a checkpoint for `rollback` in the same process."""
        return (
            (self.trade_date, self.open_ns, self.close_ns, self.is_open),
            (self._exec_number, self._order_number, self.not_found_count, self.refuse_count, self.last_exec_id),
            [(order, copy(order)) for order in self.orders.values()],
            dict(self.roots),
            list(self.trades),
            dict(self.positions),
            [(book.to_list(), list(book.buys), list(book.sells), list(book.stops)) for book in self.by_id],
        )

    def rollback(self, checkpoint: Any) -> None:
        """Restore the state of a checkpoint."""
        day, numbers, orders, roots, trades, positions, books = checkpoint
        self.trade_date, self.open_ns, self.close_ns, self.is_open = day
        self._exec_number, self._order_number, self.not_found_count, self.refuse_count, self.last_exec_id = numbers
        self.orders = {}
        for order, saved_order in orders:
            if order != saved_order:
                for name in WorkingOrder.__struct_fields__:
                    setattr(order, name, getattr(saved_order, name))
            self.orders[order.root_cl_ord_id] = order
        self.roots, self.positions = dict(roots), dict(positions)
        self.trades = list(trades)
        for book, (state, buys, sells, stops) in zip(self.by_id, books, strict=True):
            book.restore_list(state)
            book.buys, book.sells, book.stops = list(buys), list(sells), list(stops)
            book.refresh_best_prices()

    def to_bytes(self) -> bytes:
        """Return the state of the venue as bytes."""
        return msgspec.msgpack.encode(
            {
                "day": [self.trade_date, self.open_ns, self.close_ns, self.is_open],
                "numbers": [self._exec_number, self._order_number, self.not_found_count, self.refuse_count],
                "orders": list(self.orders.values()),
                "roots": self.roots,
                "trades": self.trades,
                "positions": list(self.positions.values()),
                "books": {symbol: book.to_list() for symbol, book in self.books.items()},
                "stops": [order.root_cl_ord_id for book in self.by_id for order in book.stops],
                "resting": [o.root_cl_ord_id for book in self.by_id for o in (*book.buys, *book.sells)],
            }
        )

    def restore_bytes(self, state: bytes) -> None:
        """Restore the state from bytes. Raises `msgspec.MsgspecError` when they are damaged."""
        content = msgspec.msgpack.decode(state)
        self.trade_date, self.open_ns, self.close_ns, self.is_open = content["day"]
        self._exec_number, self._order_number, self.not_found_count, self.refuse_count = content["numbers"]
        orders = msgspec.convert(content["orders"], list[WorkingOrder])
        self.orders = {order.root_cl_ord_id: order for order in orders}
        self.roots = content["roots"]
        self.trades = msgspec.convert(content["trades"], list[ExecutionReport])
        self.positions = {position.key: position for position in msgspec.convert(content["positions"], list[Position])}
        for symbol, market in content["books"].items():
            book = self.books[symbol]
            book.restore_list(market)
            book.buys, book.sells, book.stops = [], [], []
        for root in content["stops"]:
            order = self.orders[root]
            self.books[order.symbol].stops.append(order)
        for root in content["resting"]:
            order = self.orders[root]
            book = self.books[order.symbol]
            (book.buys if order.side == Side.BUY else book.sells).append(order)
        for book in self.by_id:
            book.refresh_best_prices()


def _status_from_quantities(order: WorkingOrder) -> OrdStatus:
    if order.cum_qty == 0:
        return OrdStatus.NEW
    return OrdStatus.FILLED if order.cum_qty >= order.order_qty else OrdStatus.PARTIALLY_FILLED


def _divide_exactly(value: int, divisor: int, description: str) -> int:
    quotient, rest = divmod(value, divisor)
    if rest:
        raise ValueError(f"a split leaves {description} at {value}/{divisor}, which is no whole number")
    return quotient
