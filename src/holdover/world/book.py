"""One instrument at the venue: the market as recorded, and the orders of ours that rest in it.

Matching is against the recorded market and nothing else. A resting order waits behind the size that was displayed at
its price when it came to the best; a recorded trade at its price eats that queue first and then fills it, up to the
trade's size; a trade through its price fills it up to the trade's size; a recorded quote that crosses it fills it up to
the size displayed, each displayed size once. So partial fills come from the data.
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


class Working(msgspec.Struct, kw_only=True):
    """An order as the venue keeps it; `queue_ahead` is None until its price has been the best."""

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
    triggered: bool = True

    @property
    def leaves_qty(self) -> int:
        """What may still fill."""
        return self.order_qty - self.cum_qty if self.is_open else 0

    @property
    def is_open(self) -> bool:
        """Whether it may still fill."""
        if self.ord_status == OrdStatus.DONE_FOR_DAY:
            return self.time_in_force in (TimeInForce.GTC, TimeInForce.GTD)
        return self.ord_status in (OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED)

    def record(self) -> Order:
        """The venue's truth of it."""
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


class Book:
    """The market of one instrument (plain attributes, read by whoever asks for the top) and our resting orders."""

    __slots__ = (
        "ask_left",
        "ask_px",
        "ask_sz",
        "best_buy",
        "best_sell",
        "bid_left",
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
        "waiting",
    )

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.bid_px = self.ask_px = UNDEF_PRICE
        self.bid_sz = self.ask_sz = self.bid_left = self.ask_left = 0
        self.last_px = 0
        self.traded_qty = 0
        self.trading = False
        self.reason = "closed"
        self.reference_version = instrument.reference_version
        self.buys: list[Working] = []
        self.sells: list[Working] = []
        self.stops: list[Working] = []
        self.best_buy = -1
        self.best_sell = UNDEF_PRICE
        self.waiting = 0

    def rest(self, order: Working) -> None:
        """Put an order into the book in price and time priority, behind what is displayed at its price."""
        self.settle_queue(order)
        side = self.buys if order.side == Side.BUY else self.sells
        side.append(order)
        side.sort(key=_priority)
        self.refresh()

    def remove(self, order: Working) -> None:
        """Take an order out of the book."""
        for side in (self.buys, self.sells, self.stops):
            if order in side:
                side.remove(order)
        self.refresh()

    def settle_queue(self, order: Working) -> None:
        """Where an order stands in the queue of its price, as far as the market shows it."""
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

    def refresh(self) -> None:
        """The best prices of ours, and how many orders do not know their place yet."""
        self.best_buy = max((_limit(order) for order in self.buys), default=-1)
        self.best_sell = min((_limit(order) for order in self.sells), default=UNDEF_PRICE)
        self.waiting = sum(1 for order in (*self.buys, *self.sells) if order.queue_ahead is None)

    def state(self) -> list[Any]:
        """The market part, for a dump."""
        return [
            self.bid_px,
            self.ask_px,
            self.bid_sz,
            self.ask_sz,
            self.bid_left,
            self.ask_left,
            self.last_px,
            self.traded_qty,
            self.trading,
            self.reason,
            self.reference_version,
        ]

    def take(self, state: list[Any]) -> None:
        """Take up a dumped market part."""
        self.bid_px, self.ask_px, self.bid_sz, self.ask_sz, self.bid_left, self.ask_left = state[:6]
        self.last_px, self.traded_qty, self.trading, self.reason, self.reference_version = state[6:]


def _limit(order: Working) -> int:
    """Its price; a market order takes any."""
    if order.price is not None:
        return order.price
    return UNDEF_PRICE if order.side == Side.BUY else -1


def _priority(order: Working) -> tuple[int, int]:
    price = _limit(order)
    return (-price if order.side == Side.BUY else price, order.entered)
