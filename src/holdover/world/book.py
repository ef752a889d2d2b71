"""One instrument at the venue: the recorded market, and the orders that rest in it.

Orders match against the recorded market and nothing else. A resting order waits behind the size that was
displayed at its price when that price became the best. A recorded trade at its price consumes that queue
first and then fills the order, up to the size of the trade. A trade through its price fills it up to the size
of the trade. A recorded quote that crosses it fills it up to the displayed size; each displayed size fills
once. Partial fills therefore come from the data. A stop order waits for a recorded trade at its stop price or beyond;
then a stop becomes a market order and a stop limit a limit order. `contingency` describes orders that depend on others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from holdover.model import (
    ContingencyType,
    ExecRestatementReason,
    ExecType,
    ExecutionReport,
    ImpossibleStateError,
    Instrument,
    Order,
    OrderOrigin,
    OrdStatus,
    OrdType,
    PositionEffect,
    PositionSide,
    Request,
    Side,
    TimeInForce,
    position_key,
    status_from_quantities,
)
from holdover.state import StateError, Stateful

UNDEF_PRICE = 2**63 - 1

_STOPS = (OrdType.STOP, OrdType.STOP_LIMIT)


class WorkingOrder(msgspec.Struct, kw_only=True):
    """An order at the venue. `queue_ahead` is None until the price of the order has been the best price.

    `requested_qty` is the OrderQty that the client asked for, of which the other orders of the list may take a part.
    `held_qty` is the part of LeavesQty that waits for the primary order of the list; it cannot fill.
    """

    root_cl_ord_id: str
    cl_ord_id: str
    order_id: str
    account: str
    symbol: str
    side: Side
    order_qty: int
    ord_type: OrdType
    time_in_force: TimeInForce
    entered: int
    orig_cl_ord_id: str = ""
    price: int | None = None
    stop_px: int | None = None
    cum_qty: int = 0
    notional: int = 0
    ord_status: OrdStatus = OrdStatus.NEW
    expire_date: str = ""
    cl_ord_link_id: str = ""
    position_effect: PositionEffect = PositionEffect.OPEN
    trade_date: str = ""
    exec_type: ExecType | None = None
    exec_id: str = ""
    exec_ref_id: str = ""
    reference_version: str = ""
    queue_ahead: int | None = None
    is_triggered: bool = True
    position_side: PositionSide | None = None
    position_id: str = ""
    list_id: str = ""
    contingency_type: ContingencyType | None = None
    requested_qty: int = 0
    held_qty: int = 0
    origin: OrderOrigin | None = None

    @classmethod
    def from_request(
        cls, request: Request, *, order_id: str, entered: int, trade_date: str, reference_version: str
    ) -> WorkingOrder:
        """Return the order that a new-order request enters. A stop order waits for its trigger."""
        if request.order_qty <= 0:
            raise ImpossibleStateError(f"order {request.cl_ord_id} of {request.order_qty} lots, should be above 0")
        if entered < 1:
            raise ImpossibleStateError(f"order {request.cl_ord_id} is entered as number {entered}, should be from 1 on")
        return cls(
            root_cl_ord_id=request.cl_ord_id,
            cl_ord_id=request.cl_ord_id,
            order_id=order_id,
            account=request.account,
            symbol=request.symbol,
            side=request.side,
            order_qty=request.order_qty,
            ord_type=request.ord_type,
            time_in_force=request.time_in_force,
            entered=entered,
            price=request.price,
            stop_px=request.stop_px,
            expire_date=request.expire_date,
            cl_ord_link_id=request.cl_ord_link_id,
            position_effect=request.position_effect,
            trade_date=trade_date,
            reference_version=reference_version,
            is_triggered=request.ord_type not in _STOPS,
            position_side=request.position_side,
            position_id=request.position_id,
            list_id=request.list_id,
            contingency_type=request.contingency_type,
            requested_qty=request.order_qty,
        )

    @property
    def status_by_quantities(self) -> OrdStatus:
        """The status that the quantities imply while the order is neither closed nor pending."""
        return status_from_quantities(self.cum_qty, self.order_qty)

    @property
    def leaves_qty(self) -> int:
        """The quantity that may still fill."""
        return self.order_qty - self.cum_qty if self.is_open else 0

    @property
    def fillable_qty(self) -> int:
        """The quantity that may fill now: LeavesQty without what waits for the primary order."""
        return max(self.leaves_qty - self.held_qty, 0)

    @property
    def list_key(self) -> str:
        """The key of the list of contingent orders, ListID or ClOrdLinkID by account; empty for any other order."""
        list_id = self.list_id or self.cl_ord_link_id
        return f"{self.account}/{list_id}" if self.contingency_type is not None and list_id else ""

    @property
    def position_key(self) -> str:
        """The key of the position that the order moves: account, instrument and leg."""
        return position_key(self.account, self.symbol, self.position_id or self.position_side or "")

    @property
    def is_open(self) -> bool:
        """Whether the order may still fill."""
        if self.ord_status == OrdStatus.DONE_FOR_DAY:
            return self.time_in_force in (TimeInForce.GTC, TimeInForce.GTD)
        return self.ord_status in (OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED)

    def to_record(self) -> Order:
        """Return the order as a record of the subsystem `venue`."""
        return Order(
            root_cl_ord_id=self.root_cl_ord_id,
            cl_ord_id=self.cl_ord_id,
            orig_cl_ord_id=self.orig_cl_ord_id,
            order_id=self.order_id,
            account=self.account,
            symbol=self.symbol,
            side=self.side,
            order_qty=self.order_qty,
            leaves_qty=self.leaves_qty,
            cum_qty=self.cum_qty,
            notional=self.notional,
            ord_status=self.ord_status,
            ord_type=self.ord_type,
            time_in_force=self.time_in_force,
            price=self.price,
            stop_px=self.stop_px,
            cl_ord_link_id=self.cl_ord_link_id,
            position_effect=self.position_effect,
            trade_date=self.trade_date,
            expire_date=self.expire_date,
            exec_type=self.exec_type,
            exec_id=self.exec_id,
            exec_ref_id=self.exec_ref_id,
            reference_version=self.reference_version,
            position_side=self.position_side,
            position_id=self.position_id,
            list_id=self.list_id,
            contingency_type=self.contingency_type,
            foreign=self.origin is not None,
            origin=self.origin,
        )

    def to_report(
        self,
        exec_type: ExecType,
        exec_id: str,
        *,
        trade_date: str,
        transact_time_ns: int,
        cl_ord_id: str = "",
        status: OrdStatus | None = None,
        last_qty: int = 0,
        last_px: int = 0,
        exec_ref_id: str = "",
        exec_ref_date: str = "",
        exec_restatement_reason: ExecRestatementReason | None = None,
        req_id: str = "",
        last_rpt_requested: bool = False,
        tot_num_reports: int | None = None,
    ) -> ExecutionReport:
        """Return an execution report on the order.

        `cl_ord_id` is that of a pending request on the order, which the report then answers; `status` replaces the
        order's own status.
        """
        return ExecutionReport(
            exec_type=exec_type,
            ord_status=status or self.ord_status,
            cl_ord_id=cl_ord_id or self.cl_ord_id,
            orig_cl_ord_id=self.cl_ord_id if cl_ord_id else self.orig_cl_ord_id,
            exec_id=exec_id,
            symbol=self.symbol,
            side=self.side,
            order_qty=self.order_qty,
            cum_qty=self.cum_qty,
            leaves_qty=self.leaves_qty,
            notional=self.notional,
            last_qty=last_qty,
            last_px=last_px,
            order_id=self.order_id,
            exec_ref_id=exec_ref_id,
            exec_ref_date=exec_ref_date,
            account=self.account,
            ord_type=self.ord_type,
            time_in_force=self.time_in_force,
            price=self.price,
            stop_px=self.stop_px,
            expire_date=self.expire_date,
            cl_ord_link_id=self.cl_ord_link_id,
            position_effect=self.position_effect,
            trade_date=trade_date,
            order_date=self.trade_date,
            exec_restatement_reason=exec_restatement_reason,
            reference_version=self.reference_version,
            req_id=req_id,
            last_rpt_requested=last_rpt_requested,
            tot_num_reports=tot_num_reports,
            transact_time_ns=transact_time_ns,
            position_side=self.position_side,
            position_id=self.position_id,
            list_id=self.list_id,
            contingency_type=self.contingency_type,
            origin=self.origin,
        )


class TopOfBookState(msgspec.Struct):
    """The state of a `TopOfBook`."""

    bid_px: int
    ask_px: int
    bid_sz: int
    ask_sz: int
    bid_remaining_qty: int
    ask_remaining_qty: int
    last_px: int
    traded_qty: int
    trading: bool
    reason: str
    reference_version: str
    buys: list[WorkingOrder]
    sells: list[WorkingOrder]
    stops: list[WorkingOrder]


class TopOfBook(Stateful[TopOfBookState]):
    """The market of one instrument, as plain attributes, and the orders that rest in it.

    An encoded state has the orders in full. Whoever restores one replaces them by `adopt_orders`, so that a resting
    order and the venue's order of the same key are one object.
    """

    State = TopOfBookState
    DERIVED: ClassVar = {
        "instrument": "configuration, set once",
        "best_buy": "the best price of the resting buy orders",
        "best_sell": "the best price of the resting sell orders",
        "unqueued_count": "counts the resting orders without a queue position",
        "lowest_buy_stop": "the lowest stop price of the waiting buy orders",
        "highest_sell_stop": "the highest stop price of the waiting sell orders",
    }

    __slots__ = (
        "ask_remaining_qty",
        "ask_px",
        "ask_sz",
        "best_buy",
        "best_sell",
        "bid_remaining_qty",
        "bid_px",
        "bid_sz",
        "buys",
        "highest_sell_stop",
        "instrument",
        "last_px",
        "lowest_buy_stop",
        "reason",
        "reference_version",
        "sells",
        "stops",
        "traded_qty",
        "trading",
        "unqueued_count",
    )

    def __init__(self, instrument: Instrument) -> None:
        if not instrument.symbol:
            raise ValueError("a book needs an instrument with a symbol")
        if instrument.price_increment < 1:
            raise ValueError(
                f"{instrument.symbol}: price_increment is {instrument.price_increment}, should be from 1 on"
            )
        self.instrument = instrument
        self.bid_px = self.ask_px = UNDEF_PRICE
        self.bid_sz = self.ask_sz = self.bid_remaining_qty = self.ask_remaining_qty = 0
        self.last_px = 0
        self.traded_qty = 0
        self.trading = False
        self.reason = "closed"
        self.reference_version = instrument.reference_version
        self.buys: list[WorkingOrder] = []
        self.sells: list[WorkingOrder] = []
        self.stops: list[WorkingOrder] = []
        self.best_buy = -1
        self.best_sell = UNDEF_PRICE
        self.unqueued_count = 0
        self.lowest_buy_stop = UNDEF_PRICE
        self.highest_sell_stop = -1

    def add_stop(self, order: WorkingOrder) -> None:
        """Add a stop order, which waits for its trigger."""
        if order.symbol != self.instrument.symbol or order.stop_px is None:
            raise ImpossibleStateError(
                f"order {order.cl_ord_id} in {order.symbol} with stop price {order.stop_px} cannot wait in the book of "
                f"{self.instrument.symbol}"
            )
        if any(waiting is order for waiting in self.stops):
            raise ImpossibleStateError(f"order {order.cl_ord_id} waits in the book of {order.symbol} already")
        self.stops.append(order)
        self.refresh_best_prices()

    def holds(self, order: WorkingOrder) -> bool:
        """Return whether an order rests or waits for its trigger here."""
        return any(resting is order for side in (self.buys, self.sells, self.stops) for resting in side)

    def add_order(self, order: WorkingOrder) -> None:
        """Add an order in price and time priority, behind the size displayed at its price."""
        if order.symbol != self.instrument.symbol:
            raise ImpossibleStateError(
                f"order {order.cl_ord_id} is in {order.symbol}, and this is the book of {self.instrument.symbol}"
            )
        self.update_queue_ahead(order)
        side = self.buys if order.side == Side.BUY else self.sells
        if any(resting is order for resting in side):
            raise ImpossibleStateError(f"order {order.cl_ord_id} rests in the book of {order.symbol} already")
        side.append(order)
        side.sort(key=_priority)
        self.refresh_best_prices()

    def remove_order(self, order: WorkingOrder) -> None:
        """Remove an order."""
        for side in (self.buys, self.sells, self.stops):
            if order in side:
                side.remove(order)
        self.refresh_best_prices()

    def update_queue_ahead(self, order: WorkingOrder) -> None:
        """Set the size ahead of an order at its price, as far as the market shows it."""
        buy = order.side == Side.BUY
        best, size = (self.bid_px, self.bid_sz) if buy else (self.ask_px, self.ask_sz)
        if order.price is None or best == UNDEF_PRICE or size == 0:
            order.queue_ahead = 0
        elif order.price == best:
            order.queue_ahead = size
        elif (order.price > best) if buy else (order.price < best):
            order.queue_ahead = 0
        else:
            order.queue_ahead = None

    def refresh_best_prices(self) -> None:
        """Recompute the best prices of the resting and the stop orders, and the number of unknown queue positions."""
        self.best_buy = max((_limit_price(order) for order in self.buys), default=-1)
        self.best_sell = min((_limit_price(order) for order in self.sells), default=UNDEF_PRICE)
        self.unqueued_count = sum(1 for order in (*self.buys, *self.sells) if order.queue_ahead is None)
        self.lowest_buy_stop, self.highest_sell_stop = UNDEF_PRICE, -1
        for order in self.stops:
            if order.stop_px is not None and order.side == Side.BUY:
                self.lowest_buy_stop = min(self.lowest_buy_stop, order.stop_px)
            elif order.stop_px is not None:
                self.highest_sell_stop = max(self.highest_sell_stop, order.stop_px)

    def clear_quotes(self) -> None:
        """Remove the quotes of the day that has ended."""
        self.bid_px = self.ask_px = UNDEF_PRICE
        self.bid_sz = self.ask_sz = self.bid_remaining_qty = self.ask_remaining_qty = 0

    def market_data(self) -> list[Any]:
        """Return the market data, without the orders."""
        return [
            self.bid_px,
            self.ask_px,
            self.bid_sz,
            self.ask_sz,
            self.bid_remaining_qty,
            self.ask_remaining_qty,
            self.last_px,
            self.traded_qty,
            self.trading,
            self.reason,
            self.reference_version,
        ]

    def adopt_orders(self, orders: Mapping[str, WorkingOrder]) -> None:
        """Replace the orders of a decoded state by the venue's own objects.

        Raises `StateError` when one of them is not open, belongs elsewhere, or differs from the venue's order.
        """
        symbol = self.instrument.symbol
        if any(order.side != Side.BUY for order in self.buys) or any(order.side == Side.BUY for order in self.sells):
            raise StateError(f"the book of {symbol} holds an order on the wrong side")
        if any(not order.fillable_qty for order in (*self.buys, *self.sells, *self.stops)):
            raise StateError(f"the book of {symbol} holds an order of which nothing can fill")
        if any(order.is_triggered for order in self.stops):
            raise StateError(f"the book of {symbol} holds a stop order that was triggered, among those that wait")
        roots = [order.root_cl_ord_id for order in (*self.buys, *self.sells, *self.stops)]
        if len(set(roots)) < len(roots):
            raise StateError(f"the book of {symbol} holds an order twice: {', '.join(sorted(roots))}")
        for side in (self.buys, self.sells, self.stops):
            for number, copy in enumerate(side):
                name = copy.cl_ord_id
                order = orders.get(copy.root_cl_ord_id)
                if order != copy or order is None:
                    raise StateError(f"the book of {symbol} holds another state of order {name}")
                if order.symbol != symbol or not order.is_open:
                    raise StateError(f"the book of {symbol} holds order {name}, which cannot rest there")
                side[number] = order
        self.refresh_best_prices()

    def take_state(self, state: TopOfBookState) -> None:
        """Take over a decoded state. Raises `StateError` when more is left of a displayed size than was displayed."""
        symbol = self.instrument.symbol
        if not (0 <= state.bid_remaining_qty <= state.bid_sz and 0 <= state.ask_remaining_qty <= state.ask_sz):
            raise StateError(
                f"the stored state of the book of {symbol} is damaged: {state.bid_remaining_qty} of {state.bid_sz} "
                f"lots are left of the bid, {state.ask_remaining_qty} of {state.ask_sz} of the offer"
            )
        if state.traded_qty < 0:
            raise StateError(f"the stored state of the book of {symbol} is damaged: {state.traded_qty} lots traded")
        super().take_state(state)

    def _after_restore(self) -> None:
        self.refresh_best_prices()


def _limit_price(order: WorkingOrder) -> int:
    """Return the price of an order; a market order accepts any price."""
    if order.price is not None:
        return order.price
    return UNDEF_PRICE if order.side == Side.BUY else -1


def _priority(order: WorkingOrder) -> tuple[int, int]:
    price = _limit_price(order)
    return (-price if order.side == Side.BUY else price, order.entered)
