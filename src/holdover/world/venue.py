"""The venue: the truth to reconcile against. Its own state persists whatever becomes of those who trade on it.

Orders are matched against the recorded market (see `book`). Requests, cancels and replaces race with fills as they do
anywhere: what arrives first at the venue is so. Everything it knows can be asked for (see `answers`).

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
from holdover.world.answers import answer
from holdover.world.book import UNDEF_PRICE, Book, Working
from holdover.world.clock import Clock
from holdover.world.policy import VenuePolicy

QUOTE, TRADE, STATUS = 1, 2, 3
STATUS_WORDS = {1: "open", 2: "halt", 3: "disabled", 4: "closed"}


class Venue:
    """One venue for several instruments and accounts.

    `observe` is called with its truth (Order, Position, Book) whenever it changes. `attach` says who hears the
    messages for an account. Calls that a trading day makes: `begin`, `on_market` for each recorded event, `end`,
    `overnight`. Raises nothing for a bad request: it answers as a venue would.
    """

    def __init__(
        self,
        clock: Clock,
        instruments: Iterable[Instrument],
        policy: VenuePolicy | None = None,
        name: str = "VENUE",
    ) -> None:
        self.clock, self.name = clock, name
        self.policy = policy or VenuePolicy()
        self.books = {one.symbol: Book(one) for one in instruments}
        self.by_id = list(self.books.values())
        self.trade_date = ""
        self.open_ns = self.close_ns = 0
        self.is_open = False
        self.observe: Callable[[Record], None] = lambda record: None
        self.orders: dict[str, Working] = {}
        self.roots: dict[str, str] = {}
        self.trades: list[ExecutionReport] = []
        self.positions: dict[str, Position] = {}
        self.not_found = 0
        self.refuse_next = 0
        self.last_exec_id = ""
        self._deliver: dict[str, Callable[[Inbound], None]] = {}
        self._exec_number = 0
        self._order_number = 0

    def attach(self, accounts: Iterable[str], deliver: Callable[[Inbound], None]) -> None:
        """Who hears what concerns these accounts."""
        for account in accounts:
            self._deliver[account] = deliver

    @property
    def holding(self) -> int:
        """How many requests have arrived and are not answered yet: none, where each is answered at once."""
        return 0

    def top(self, symbol: str) -> Book:
        """The market of one instrument as last seen."""
        return self.books[symbol]

    # -- the day ------------------------------------------------------------------------------------------------

    def begin(self, trade_date: str, open_ns: int, close_ns: int) -> None:
        """A trading day begins: GTD orders past their date expire, carried orders are restated, the books open."""
        self.trade_date, self.open_ns, self.close_ns = trade_date, open_ns, close_ns
        self.is_open = True
        if self.policy.exec_ids_restart:
            self._exec_number = 0
        for key, position in self.positions.items():
            self._hold(msgspec.structs.replace(position, carried_qty=position.net_qty, trade_date=trade_date), key)
        for order in self._live():
            if order.time_in_force == TimeInForce.GTD and order.expire_date and order.expire_date < trade_date:
                self._close(order, OrdStatus.EXPIRED, ExecType.EXPIRED)
            else:
                order.ord_status = _standing(order)
                if self.policy.restate_gtc:
                    self._tell(order, ExecType.RESTATED, exec_restatement_reason=ExecRestatementReason.GT_RENEWAL)
                else:
                    self._show(order)
        for book in self.by_id:
            book.traded_qty = 0
            self._set_trading(book, True, "open")

    def end(self) -> None:
        """The close: DAY orders expire, carried orders are done for the day, the books close."""
        for book in self.by_id:
            self._set_trading(book, False, "closed")
        for order in self._live():
            if order.time_in_force in (TimeInForce.GTC, TimeInForce.GTD):
                if self.policy.done_for_day:
                    order.ord_status = OrdStatus.DONE_FOR_DAY
                    self._tell(order, ExecType.DONE_FOR_DAY)
            else:
                self._close(order, OrdStatus.EXPIRED, ExecType.EXPIRED)
        self.is_open = False

    def overnight(self, splits: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Between two days: corporate actions restate what is open and what is held.

        Raises `ValueError` when a split does not divide an open quantity or a price exactly.
        """
        for symbol, (new, old) in (splits or {}).items():
            book = self.books[symbol]
            book.reference_version = str(int(book.reference_version or "1") + 1)
            for order in self._live():
                if order.symbol == symbol:
                    self._split(order, new, old, book.reference_version)
            for key, position in self.positions.items():
                if position.symbol == symbol:
                    net_qty = _exactly(position.net_qty * new, old, f"position {key}")
                    self._hold(
                        msgspec.structs.replace(position, net_qty=net_qty, reference_version=book.reference_version),
                        key,
                    )
            self._set_trading(book, book.trading, book.reason, force=True)
        for book in self.by_id:
            book.bid_px = book.ask_px = UNDEF_PRICE
            book.bid_sz = book.ask_sz = book.bid_left = book.ask_left = 0

    def _split(self, order: Working, new: int, old: int, version: str) -> None:
        order.order_qty = _exactly(order.order_qty * new, old, f"OrderQty of {order.cl_ord_id}")
        order.cum_qty = _exactly(order.cum_qty * new, old, f"CumQty of {order.cl_ord_id}")
        if order.price is not None:
            order.price = _exactly(order.price * old, new, f"price of {order.cl_ord_id}")
        order.reference_version = version
        self._tell(order, ExecType.RESTATED, exec_restatement_reason=ExecRestatementReason.GT_CORPORATE_ACTION)

    # -- the market ---------------------------------------------------------------------------------------------

    def on_market(self, event: tuple[int, ...]) -> None:
        """One recorded event; its second field is the instrument's place in the order given."""
        _, number, rtype, flags, _, price, size, bid_px, ask_px, bid_sz, ask_sz = event
        book = self.by_id[number]
        if rtype == QUOTE:
            book.bid_px, book.ask_px, book.bid_sz, book.ask_sz = bid_px, ask_px, bid_sz, ask_sz
            book.bid_left, book.ask_left = bid_sz, ask_sz
            if book.best_buy >= ask_px or (bid_sz and book.best_sell <= bid_px) or book.waiting:
                self._on_quote(book)
        elif rtype == TRADE:
            book.last_px = price
            book.traded_qty += size
            if book.best_buy >= price or book.best_sell <= price or book.stops:
                self._on_trade(book, price, size)
        else:
            word = STATUS_WORDS.get(flags, "halt")
            if book.reason != "disabled":
                self._set_trading(book, word == "open" and self.is_open, word)

    def _on_quote(self, book: Book) -> None:
        if book.waiting:
            for order in (*book.buys, *book.sells):
                if order.queue_ahead is None:
                    book.settle_queue(order)
            book.refresh()
        if not book.trading:
            return
        for order in list(book.buys):
            if not book.ask_left or (order.price is not None and order.price < book.ask_px):
                break
            self._take(book, order, resting=True)
        for order in list(book.sells):
            if not book.bid_left or (order.price is not None and order.price > book.bid_px):
                break
            self._take(book, order, resting=True)

    def _on_trade(self, book: Book, price: int, size: int) -> None:
        if not book.trading:
            return
        left = size
        for order in [*book.buys, *book.sells]:
            if left <= 0:
                break
            limit = order.price
            if limit is None:
                continue
            through = limit > price if order.side == Side.BUY else limit < price
            if not through:
                if limit != price:
                    continue
                eaten = min(order.queue_ahead or 0, left)
                order.queue_ahead = (order.queue_ahead or 0) - eaten
                left -= eaten
            quantity = min(order.leaves_qty, left)
            if quantity > 0:
                left -= quantity
                self._fill(order, quantity, limit)
        for order in list(book.stops):
            if order.stop_px is not None and (
                price >= order.stop_px if order.side == Side.BUY else price <= order.stop_px
            ):
                book.stops.remove(order)
                order.triggered = True
                self._enter(book, order)

    def _take(self, book: Book, order: Working, *, resting: bool) -> None:
        """Fill an order from the displayed opposite side, as far as it reaches."""
        buy = order.side == Side.BUY
        left = book.ask_left if buy else book.bid_left
        displayed = book.ask_px if buy else book.bid_px
        quantity = min(order.leaves_qty, left)
        if quantity <= 0 or displayed == UNDEF_PRICE:
            return
        if buy:
            book.ask_left -= quantity
        else:
            book.bid_left -= quantity
        # A resting order trades at its own price: it was there first.
        self._fill(order, quantity, order.price if resting and order.price is not None else displayed)

    def _crosses(self, book: Book, order: Working) -> bool:
        buy = order.side == Side.BUY
        best, left = (book.ask_px, book.ask_left) if buy else (book.bid_px, book.bid_left)
        if not book.trading or best == UNDEF_PRICE or left <= 0:
            return False
        return order.price is None or (order.price >= best if buy else order.price <= best)

    def _enter(self, book: Book, order: Working) -> None:
        """An order comes to the book: it takes what is displayed, then rests, or is cancelled, as its terms say."""
        left = book.ask_left if order.side == Side.BUY else book.bid_left
        if self._crosses(book, order) and (order.time_in_force != TimeInForce.FOK or left >= order.leaves_qty):
            self._take(book, order, resting=False)
        if not order.leaves_qty:
            return
        if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            self._close(order, OrdStatus.CANCELED, ExecType.CANCELED)
        else:
            book.rest(order)

    def _fill(self, order: Working, quantity: int, price: int) -> None:
        order.cum_qty += quantity
        order.notional += quantity * price
        order.ord_status = _standing(order)
        self._move(order, quantity)
        report = self._tell(order, ExecType.TRADE, last_qty=quantity, last_px=price)
        self.trades.append(report)
        if order.cum_qty >= order.order_qty:
            self.books[order.symbol].remove(order)

    def _move(self, order: Working, quantity: int) -> None:
        key = f"{order.account}/{order.symbol}"
        held = self.positions.get(key) or Position(
            account=order.account,
            symbol=order.symbol,
            net_qty=0,
            trade_date=self.trade_date,
            reference_version=self.books[order.symbol].reference_version,
        )
        signed = quantity if order.side == Side.BUY else -quantity
        self._hold(msgspec.structs.replace(held, net_qty=held.net_qty + signed), key)

    # -- requests -----------------------------------------------------------------------------------------------

    def receive(self, message: Outbound) -> None:
        """A message of a client has arrived."""
        if isinstance(message, Query):
            for reply in answer(self, message):
                self._send(message.account, reply)
        elif message.msg_type == MsgType.NEW_ORDER_SINGLE:
            self._new(message)
        elif message.msg_type == MsgType.ORDER_CANCEL_REQUEST:
            self._cancel_request(message)
        else:
            self._replace_request(message)

    def _new(self, request: Request) -> None:
        known = self.find(request.cl_ord_id)
        if known is not None and request.poss_resend and known.order_qty == request.order_qty:
            self._send(request.account, self.status_of(known))
            return
        problem = self._unacceptable(request)
        if problem:
            self._reject(request, *problem)
            return
        self._order_number += 1
        order = Working(
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
            triggered=request.ord_type not in (OrdType.STOP, OrdType.STOP_LIMIT),
        )
        self.orders[order.root_cl_ord_id] = order
        self.roots[order.cl_ord_id] = order.root_cl_ord_id
        self._tell(order, ExecType.NEW)
        book = self.books[order.symbol]
        if order.triggered:
            self._enter(book, order)
        else:
            book.stops.append(order)

    def _unacceptable(self, request: Request) -> tuple[int, str] | None:
        """(OrdRejReason, text) when a new order cannot be taken. Source: FIX 4.4, OrdRejReason (103)."""
        book = self.books.get(request.symbol)
        if self.refuse_next:
            self.refuse_next -= 1
            return 0, "refused by the venue"
        if book is None:
            return 1, f"unknown symbol {request.symbol}"
        if request.cl_ord_id in self.roots:
            return 6, f"duplicate order: ClOrdID {request.cl_ord_id}"
        if shut := self._shut(book):
            return 2, shut
        if request.order_qty <= 0:
            return 13, f"incorrect quantity {request.order_qty}"
        limited = request.ord_type in (OrdType.LIMIT, OrdType.STOP_LIMIT)
        if limited and (request.price is None or request.price <= 0):
            return 99, "a limit order needs a price"
        if request.price is not None and request.price % book.instrument.price_increment:
            return 99, f"price {request.price} is no multiple of {book.instrument.price_increment} ticks"
        return None

    def _shut(self, book: Book) -> str:
        """Why a book takes no new order now; empty when it does."""
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
                exec_id=self._exec_id(),
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

    def _cancel_request(self, request: Request) -> None:
        order = self.find(request.orig_cl_ord_id)
        if order is None or not order.is_open or request.cl_ord_id in self.roots:
            self._refuse(request, order, "1")
            return
        self.roots[request.cl_ord_id] = order.root_cl_ord_id
        if self.policy.send_pending:
            self._send(
                order.account,
                self._report(
                    order, ExecType.PENDING_CANCEL, cl_ord_id=request.cl_ord_id, status=OrdStatus.PENDING_CANCEL
                ),
            )
        self._close(order, OrdStatus.CANCELED, ExecType.CANCELED)

    def _replace_request(self, request: Request) -> None:
        order = self.find(request.orig_cl_ord_id)
        book = self.books.get(request.symbol)
        bad_price = book is not None and request.price is not None and request.price % book.instrument.price_increment
        if order is None or not order.is_open or request.cl_ord_id in self.roots or bad_price or self.refuse_next:
            self.refuse_next = max(0, self.refuse_next - 1)
            self._refuse(request, order, "2")
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
        # Below what is filled the quantity becomes what is filled: FIX 5.0 volume 4, C.3.c.
        order.order_qty = max(request.order_qty, order.cum_qty)
        order.price = request.price
        order.ord_status = _standing(order)
        book = self.books[order.symbol]
        book.remove(order)
        self._order_number += 1
        order.entered = self._order_number
        self._tell(order, ExecType.REPLACED)
        if order.leaves_qty and order.triggered:
            self._enter(book, order)
        elif order.leaves_qty:
            book.stops.append(order)  # it waits for its trigger still

    def _refuse(self, request: Request, order: Working | None, response_to: str) -> None:
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

    # -- its own acts, and those of a hand at the venue -----------------------------------------------------------

    def cancel(self, cl_ord_id: str) -> bool:
        """Cancel an order unasked; False when there is no open one."""
        order = self.find(cl_ord_id)
        if order is None or not order.is_open:
            return False
        self._close(order, OrdStatus.CANCELED, ExecType.CANCELED)
        return True

    def trade_by_hand(self, account: str, symbol: str, side: Side, quantity: int, price: int) -> str:
        """An order entered and filled at the venue by hand; returns its ClOrdID, which no client has given."""
        self._order_number += 1
        order = Working(
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
        self._tell(order, ExecType.NEW)
        self._fill(order, quantity, price)
        return order.cl_ord_id

    def fill_late(self, cl_ord_id: str, quantity: int, price: int | None = None) -> bool:
        """Tell of a fill only after the cancel that it had crossed; False when the order is not a cancelled one.

        The order stays cancelled and its CumQty grows; without a price (ticks) it fills at its own.
        Source: FIX 4.4 volume 4, order state change matrices, a fill that crosses the cancel.
        """
        order = self.find(cl_ord_id)
        price = price if price is not None or order is None else order.price
        if order is None or order.ord_status != OrdStatus.CANCELED or price is None:
            return False
        quantity = min(quantity, order.order_qty - order.cum_qty)
        if quantity <= 0:
            return False
        order.cum_qty += quantity
        order.notional += quantity * price
        self._move(order, quantity)
        self.trades.append(self._tell(order, ExecType.TRADE, last_qty=quantity, last_px=price))
        return True

    def bust(self, exec_id: str, trade_date: str = "") -> bool:
        """Take a trade back (ExecType Trade Cancel); False when there is none of that ExecID on that day."""
        return self._amend(exec_id, trade_date or self.trade_date, None)

    def correct(self, exec_id: str, quantity: int, price: int, trade_date: str = "") -> bool:
        """Correct a trade (ExecType Trade Correct); False when there is none of that ExecID on that day."""
        return self._amend(exec_id, trade_date or self.trade_date, (quantity, price))

    def _amend(self, exec_id: str, trade_date: str, to: tuple[int, int] | None) -> bool:
        named = next(
            (
                one
                for one in self.trades
                if (one.exec_id, one.trade_date) == (exec_id, trade_date) and one.exec_type != ExecType.TRADE_CANCEL
            ),
            None,
        )
        order = self.find(named.cl_ord_id) if named else None
        amended = any((one.exec_ref_id, one.exec_ref_date) == (exec_id, trade_date) for one in self.trades)
        if named is None or order is None or amended:
            return False  # what has been taken back or corrected goes by its new ExecID
        if order.time_in_force not in (TimeInForce.GTC, TimeInForce.GTD) and order.trade_date < self.trade_date:
            return False  # the order's day is over: it could not be worked again for what is taken back
        quantity, price = to or (0, 0)
        order.cum_qty += quantity - named.last_qty
        order.notional += quantity * price - named.last_qty * named.last_px
        if order.ord_status in (OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED, OrdStatus.FILLED):
            reopened = order.ord_status == OrdStatus.FILLED and order.cum_qty < order.order_qty
            order.ord_status = _standing(order)
            if reopened:
                self.books[order.symbol].rest(order)
            elif not order.is_open:
                self.books[order.symbol].remove(order)
        self._move(order, quantity - named.last_qty)
        report = self._tell(
            order,
            ExecType.TRADE_CANCEL if to is None else ExecType.TRADE_CORRECT,
            last_qty=quantity,
            last_px=price,
            exec_ref_id=exec_id,
            exec_ref_date=trade_date,
        )
        self.trades.append(report)
        return True

    def disable(self, symbol: str) -> None:
        """The venue disables a book until it is enabled again."""
        self._set_trading(self.books[symbol], False, "disabled")

    def enable(self, symbol: str) -> None:
        """The venue enables a book."""
        self._set_trading(self.books[symbol], self.is_open, "open")

    # -- asking -------------------------------------------------------------------------------------------------

    def find(self, cl_ord_id: str) -> Working | None:
        """An order by any ClOrdID of its chain."""
        root = self.roots.get(cl_ord_id)
        return self.orders.get(root) if root else None

    def order(self, cl_ord_id: str) -> Order | None:
        """The venue's truth of an order, by any ClOrdID of its chain."""
        found = self.find(cl_ord_id)
        return found.record() if found else None

    def status_of(self, order: Working, **fields: Any) -> ExecutionReport:
        """A status report (ExecType Order Status, ExecID 0), which changes nothing."""
        return self._report(order, ExecType.ORDER_STATUS, exec_id="0", **fields)

    # -- inside -------------------------------------------------------------------------------------------------

    def _live(self) -> list[Working]:
        return [order for order in self.orders.values() if order.is_open]

    def _close(self, order: Working, status: OrdStatus, exec_type: ExecType) -> None:
        self.books[order.symbol].remove(order)
        order.ord_status = status
        self._tell(order, exec_type)

    def _tell(self, order: Working, exec_type: ExecType, **fields: Any) -> ExecutionReport:
        report = self._report(order, exec_type, **fields)
        order.exec_type, order.exec_id, order.exec_ref_id = exec_type, report.exec_id, report.exec_ref_id
        self._show(order)
        self._send(order.account, report)
        return report

    def _show(self, order: Working) -> None:
        self.observe(order.record())

    def _hold(self, position: Position, key: str) -> None:
        self.positions[key] = position
        self.observe(position)

    def _report(
        self,
        order: Working,
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
            exec_id=exec_id or self._exec_id(),
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

    def _exec_id(self) -> str:
        self._exec_number += 1
        self.last_exec_id = f"E{self._exec_number}"
        return self.last_exec_id

    def _set_trading(self, book: Book, trading: bool, reason: str, *, force: bool = False) -> None:
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

    def keep(self) -> Any:
        """What may change from here on, for `put_back` in the same process."""
        return (
            (self.trade_date, self.open_ns, self.close_ns, self.is_open),
            (self._exec_number, self._order_number, self.not_found, self.refuse_next, self.last_exec_id),
            [(order, copy(order)) for order in self.orders.values()],
            dict(self.roots),
            list(self.trades),
            dict(self.positions),
            [(book.state(), list(book.buys), list(book.sells), list(book.stops)) for book in self.by_id],
        )

    def put_back(self, kept: Any) -> None:
        """Make it what it was when `keep` was called."""
        day, numbers, orders, roots, trades, positions, books = kept
        self.trade_date, self.open_ns, self.close_ns, self.is_open = day
        self._exec_number, self._order_number, self.not_found, self.refuse_next, self.last_exec_id = numbers
        self.orders = {}
        for order, was in orders:
            if order != was:
                for name in Working.__struct_fields__:
                    setattr(order, name, getattr(was, name))
            self.orders[order.root_cl_ord_id] = order
        self.roots, self.positions = dict(roots), dict(positions)
        self.trades = list(trades)
        for book, (state, buys, sells, stops) in zip(self.by_id, books, strict=True):
            book.take(state)
            book.buys, book.sells, book.stops = list(buys), list(sells), list(stops)
            book.refresh()

    def dump(self) -> bytes:
        """Everything the venue knows."""
        return msgspec.msgpack.encode(
            {
                "day": [self.trade_date, self.open_ns, self.close_ns, self.is_open],
                "numbers": [self._exec_number, self._order_number, self.not_found, self.refuse_next],
                "orders": list(self.orders.values()),
                "roots": self.roots,
                "trades": self.trades,
                "positions": list(self.positions.values()),
                "books": {symbol: book.state() for symbol, book in self.books.items()},
                "stops": [order.root_cl_ord_id for book in self.by_id for order in book.stops],
                "resting": [o.root_cl_ord_id for book in self.by_id for o in (*book.buys, *book.sells)],
            }
        )

    def load(self, state: bytes) -> None:
        """Take up a dumped state. Raises `msgspec.MsgspecError` when it is damaged."""
        held = msgspec.msgpack.decode(state)
        self.trade_date, self.open_ns, self.close_ns, self.is_open = held["day"]
        self._exec_number, self._order_number, self.not_found, self.refuse_next = held["numbers"]
        orders = msgspec.convert(held["orders"], list[Working])
        self.orders = {order.root_cl_ord_id: order for order in orders}
        self.roots = held["roots"]
        self.trades = msgspec.convert(held["trades"], list[ExecutionReport])
        self.positions = {one.key: one for one in msgspec.convert(held["positions"], list[Position])}
        for symbol, market in held["books"].items():
            book = self.books[symbol]
            book.take(market)
            book.buys, book.sells, book.stops = [], [], []
        for root in held["stops"]:
            order = self.orders[root]
            self.books[order.symbol].stops.append(order)
        for root in held["resting"]:
            order = self.orders[root]
            book = self.books[order.symbol]
            (book.buys if order.side == Side.BUY else book.sells).append(order)
        for book in self.by_id:
            book.refresh()


def _standing(order: Working) -> OrdStatus:
    if order.cum_qty == 0:
        return OrdStatus.NEW
    return OrdStatus.FILLED if order.cum_qty >= order.order_qty else OrdStatus.PARTIALLY_FILLED


def _exactly(value: int, divisor: int, what: str) -> int:
    quotient, rest = divmod(value, divisor)
    if rest:
        raise ValueError(f"a split leaves {what} at {value}/{divisor}, which is no whole number")
    return quotient
