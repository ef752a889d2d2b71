"""The strategy that is there when a user brings none: small, and restless enough to reach the states that matter.

It keeps no state of its own: what it does at each beat follows from the beat's number, its orders and its position, so
that a restarted one goes on as the one before would have.
"""

from __future__ import annotations

from typing import Any

from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.enums import OrderSide, TimeInForce
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.strategy import Strategy

_SECOND_NS = 1_000_000_000


class RestlessConfig(StrategyConfig, frozen=True):  # type: ignore[misc, call-arg]
    """`quantity` is one order's, in shares; `hours` the sessions (open and close, ns) in which it acts.

    It acts every `beat_s` seconds, has at most `working_max` orders, and with `shorts` lets its position change sides.
    """

    instrument_id: InstrumentId
    quantity: int
    hours: list[tuple[int, int]]
    beat_s: int = 15
    working_max: int = 4
    shorts: bool = True


class Restless(Strategy):  # type: ignore[misc]
    """Market and limit orders, GTC and DAY, amendments of price and quantity, cancels, a position that flips."""

    def on_start(self) -> None:
        """Listen to quotes, and beat at round times."""
        self.instrument = self.cache.instrument(self.config.instrument_id)
        self.subscribe_quote_ticks(self.config.instrument_id)
        beat_ns = self.config.beat_s * _SECOND_NS
        now_ns = self.clock.timestamp_ns()
        self.clock.set_timer_ns(
            "beat", interval_ns=beat_ns, start_time_ns=now_ns // beat_ns * beat_ns, stop_time_ns=0, callback=self.beat
        )

    def on_stop(self) -> None:
        """Leave what works working: GTC orders are meant to be carried."""
        if "beat" in self.clock.timer_names:
            self.clock.cancel_timer("beat")

    def beat(self, event: Any) -> None:
        """One thing at a time."""
        time_ns = event.ts_event
        hours = next((one for one in self.config.hours if one[0] <= time_ns < one[1] - 60 * _SECOND_NS), None)
        quote = self.cache.quote_tick(self.config.instrument_id)
        if hours is None or quote is None:
            return
        number = (time_ns - hours[0]) // (self.config.beat_s * _SECOND_NS)
        inflight = self.cache.orders_inflight(strategy_id=self.id)
        working = sorted(
            self.cache.orders_open(strategy_id=self.id), key=lambda order: (order.ts_init, order.client_order_id.value)
        )
        steady = [order for order in working if not order.is_pending_update and not order.is_pending_cancel]
        if number % 24 == 7:
            self.turn(quote)
        elif number % 4 == 0 and len(working) + len(inflight) < self.config.working_max:
            self.rest(number // 4, quote)
        elif number % 4 == 1 and steady:
            self.amend(steady[number // 4 % len(steady)], number // 4, quote)
        elif number % 4 == 2 and len(steady) >= self.config.working_max - 1:
            self.cancel_order(steady[0])

    def held(self) -> int:
        """Its net position, in shares."""
        return int(sum(one.signed_qty for one in self.cache.positions_open(strategy_id=self.id)))

    def turn(self, quote: Any) -> None:
        """A market order, to the other side where it may."""
        held, size = self.held(), self.config.quantity
        if self.config.shorts:
            side = OrderSide.SELL if held > 0 else OrderSide.BUY
            self.market(side, abs(held) + size)
        elif held > 0 and not any(one.side == OrderSide.SELL for one in self.cache.orders_open(strategy_id=self.id)):
            self.market(OrderSide.SELL, held)
        else:
            self.market(OrderSide.BUY, size)

    def market(self, side: Any, shares: int) -> None:
        """A market order for the day."""
        self.submit_order(
            self.order_factory.market(
                self.config.instrument_id,
                side,
                self.instrument.make_qty(shares),
                time_in_force=TimeInForce.DAY,
            )
        )

    def rest(self, number: int, quote: Any) -> None:
        """A limit order at the touch or behind it."""
        buys = number % 2 == 0 or (not self.config.shorts and self.free() < self.config.quantity)
        away = self.instrument.price_increment * (number % 4)
        price = quote.bid_price - away if buys else quote.ask_price + away
        self.limit(OrderSide.BUY if buys else OrderSide.SELL, self.config.quantity, price, good=number % 3 == 0)

    def free(self) -> int:
        """Shares held that no order of ours sells already."""
        selling = [one for one in self.cache.orders_open(strategy_id=self.id) if one.side == OrderSide.SELL]
        return self.held() - int(sum(one.leaves_qty for one in selling))

    def limit(self, side: Any, shares: int, price: Any, *, good: bool) -> None:
        """A limit order, good till cancelled or for the day."""
        self.submit_order(
            self.order_factory.limit(
                self.config.instrument_id,
                side,
                self.instrument.make_qty(shares),
                self.instrument.make_price(price),
                time_in_force=TimeInForce.GTC if good else TimeInForce.DAY,
            )
        )

    def amend(self, order: Any, number: int, quote: Any) -> None:
        """Its price to the touch, or its quantity one up."""
        if not order.has_price:
            return
        if number % 2:
            self.modify_order(order, quantity=self.instrument.make_qty(order.quantity + self.config.quantity // 2))
            return
        price = quote.bid_price if order.side == OrderSide.BUY else quote.ask_price
        if price != order.price:
            self.modify_order(order, price=price)

    # -- what a schedule may ask of it ------------------------------------------------------------------------------

    def act(self, what: str, *told: Any) -> None:
        """`cancel` ORDER, `replace` ORDER PRICE, `submit` SHARES PRICE."""
        if what == "submit":
            shares, price = told
            self.limit(OrderSide.BUY, shares, price, good=True)
            return
        order = told[0]
        if order.is_closed or order.is_pending_cancel or order.is_pending_update:
            return
        if what == "cancel":
            self.cancel_order(order)
        else:
            self.modify_order(order, price=told[1])
