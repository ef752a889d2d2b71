"""One instrument at the venue: the recorded market, and the orders that rest in it.

Orders match against the recorded market and nothing else. A resting order waits behind the size that was
displayed at its price when that price became the best. A recorded trade at its price consumes that queue
first and then fills the order, up to the size of the trade. A trade through its price fills it up to the size
of the trade. A recorded quote that crosses it fills it up to the displayed size; each displayed size fills
once. Partial fills therefore come from the data.
"""

from __future__ import annotations

from typing import Any

import msgspec

from holdover.model import (
    ExecType,
    Instrument,
    Order,
    OrdStatus,
    OrdType,
    PositionEffect,
    Side,
    TimeInForce,
)

UNDEF_PRICE = 2**63 - 1


class WorkingOrder(msgspec.Struct, kw_only=True):
    """An order at the venue. `queue_ahead` is None until the price of the order has been the best price."""

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

    @property
    def leaves_qty(self) -> int:
        """The quantity that may still fill."""
        return self.order_qty - self.cum_qty if self.is_open else 0

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
        )


class TopOfBook:
    """The market of one instrument, as plain attributes, and the orders that rest in it."""

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
        "instrument",
        "last_px",
        "reason",
        "reference_version",
        "sells",
        "stops",
        "traded_qty",
        "trading",
        "unqueued_count",
    )

    def __init__(self, instrument: Instrument) -> None:
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

    def add_order(self, order: WorkingOrder) -> None:
        """Add an order in price and time priority, behind the size displayed at its price."""
        self.update_queue_ahead(order)
        side = self.buys if order.side == Side.BUY else self.sells
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
        """Recompute the best prices of the resting orders, and the number of orders without a known queue position."""
        self.best_buy = max((_limit_price(order) for order in self.buys), default=-1)
        self.best_sell = min((_limit_price(order) for order in self.sells), default=UNDEF_PRICE)
        self.unqueued_count = sum(1 for order in (*self.buys, *self.sells) if order.queue_ahead is None)

    def to_list(self) -> list[Any]:
        """Return the market data as a list, for serialization."""
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

    def restore_list(self, state: list[Any]) -> None:
        """Restore the market data from a list."""
        self.bid_px, self.ask_px, self.bid_sz, self.ask_sz, self.bid_remaining_qty, self.ask_remaining_qty = state[:6]
        self.last_px, self.traded_qty, self.trading, self.reason, self.reference_version = state[6:]


def _limit_price(order: WorkingOrder) -> int:
    """Return the price of an order; a market order accepts any price."""
    if order.price is not None:
        return order.price
    return UNDEF_PRICE if order.side == Side.BUY else -1


def _priority(order: WorkingOrder) -> tuple[int, int]:
    price = _limit_price(order)
    return (-price if order.side == Side.BUY else price, order.entered)
