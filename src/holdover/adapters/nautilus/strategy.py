"""The default strategy: small, and active enough to reach the states that matter.

It keeps no state of its own. Each action follows from the number of the beat, its orders and its position, so that a
restarted strategy continues as the one before would have.
"""

from __future__ import annotations

from typing import Any

from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.enums import OrderSide, TimeInForce
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.strategy import Strategy

_SECOND_NS = 1_000_000_000


class RestlessConfig(StrategyConfig, frozen=True):  # type: ignore[misc, call-arg]
    """`quantity` is the size of one order, in shares; `hours` are the sessions (open and close, ns) in which it trades.

    It acts every `beat_s` seconds, has at most `working_max` orders, and with `shorts` its position may change sides.
    """

    instrument_id: InstrumentId
    quantity: int
    hours: list[tuple[int, int]]
    beat_s: int = 15
    working_max: int = 4
    shorts: bool = True


class RestlessStrategy(Strategy):  # type: ignore[misc]
    """Market and limit orders, GTC and DAY, amendments of price and quantity, cancels, and a position that flips."""

    def on_start(self) -> None:
        """Subscribe to quotes and set a timer on round times."""
        self.instrument = self.cache.instrument(self.config.instrument_id)
        self.subscribe_quote_ticks(self.config.instrument_id)
        beat_ns = self.config.beat_s * _SECOND_NS
        now_ns = self.clock.timestamp_ns()
        self.clock.set_timer_ns(
            "beat",
            interval_ns=beat_ns,
            start_time_ns=now_ns // beat_ns * beat_ns,
            stop_time_ns=0,
            callback=self.on_beat,
        )

    def on_stop(self) -> None:
        """Leave working orders open: GTC orders are to be carried."""
        if "beat" in self.clock.timer_names:
            self.clock.cancel_timer("beat")

    def on_beat(self, event: Any) -> None:
        """Take one action."""
        time_ns = event.ts_event
        hours = next(
            (window for window in self.config.hours if window[0] <= time_ns < window[1] - 60 * _SECOND_NS), None
        )
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
            self.flip_position(quote)
        elif number % 4 == 0 and len(working) + len(inflight) < self.config.working_max:
            self.submit_resting_order(number // 4, quote)
        elif number % 4 == 1 and steady:
            self.amend_order(steady[number // 4 % len(steady)], number // 4, quote)
        elif number % 4 == 2 and len(steady) >= self.config.working_max - 1:
            self.cancel_order(steady[0])

    def net_position(self) -> int:
        """Returns the net position, in shares."""
        return int(sum(position.signed_qty for position in self.cache.positions_open(strategy_id=self.id)))

    def flip_position(self, quote: Any) -> None:
        """Send a market order, to the other side when shorts are allowed."""
        position, size = self.net_position(), self.config.quantity
        if self.config.shorts:
            side = OrderSide.SELL if position > 0 else OrderSide.BUY
            self.submit_market_order(side, abs(position) + size)
        elif position > 0 and not any(
            order.side == OrderSide.SELL for order in self.cache.orders_open(strategy_id=self.id)
        ):
            self.submit_market_order(OrderSide.SELL, position)
        else:
            self.submit_market_order(OrderSide.BUY, size)

    def submit_market_order(self, side: Any, shares: int) -> None:
        """Send a DAY market order."""
        self.submit_order(
            self.order_factory.market(
                self.config.instrument_id,
                side,
                self.instrument.make_qty(shares),
                time_in_force=TimeInForce.DAY,
            )
        )

    def submit_resting_order(self, number: int, quote: Any) -> None:
        """Send a limit order at the touch or behind it."""
        is_buy = number % 2 == 0 or (not self.config.shorts and self.sellable_quantity() < self.config.quantity)
        distance = self.instrument.price_increment * (number % 4)
        price = quote.bid_price - distance if is_buy else quote.ask_price + distance
        self.submit_limit_order(
            OrderSide.BUY if is_buy else OrderSide.SELL, self.config.quantity, price, is_gtc=number % 3 == 0
        )

    def sellable_quantity(self) -> int:
        """Returns the held shares that no open order sells."""
        selling = [order for order in self.cache.orders_open(strategy_id=self.id) if order.side == OrderSide.SELL]
        return self.net_position() - int(sum(order.leaves_qty for order in selling))

    def submit_limit_order(self, side: Any, shares: int, price: Any, *, is_gtc: bool) -> None:
        """Send a limit order, GTC or DAY."""
        self.submit_order(
            self.order_factory.limit(
                self.config.instrument_id,
                side,
                self.instrument.make_qty(shares),
                self.instrument.make_price(price),
                time_in_force=TimeInForce.GTC if is_gtc else TimeInForce.DAY,
            )
        )

    def amend_order(self, order: Any, number: int, quote: Any) -> None:
        """Move the price to the touch, or raise the quantity."""
        if not order.has_price:
            return
        if number % 2:
            self.modify_order(order, quantity=self.instrument.make_qty(order.quantity + self.config.quantity // 2))
            return
        price = quote.bid_price if order.side == OrderSide.BUY else quote.ask_price
        if price != order.price:
            self.modify_order(order, price=price)

    # -- operations of a schedule -----------------------------------------------------------------------------------

    def perform(self, operation: str, *args: Any) -> None:
        """Perform an operation of a schedule: `cancel` ORDER, `replace` ORDER PRICE, `submit` SHARES PRICE."""
        if operation == "submit":
            shares, price = args
            self.submit_limit_order(OrderSide.BUY, shares, price, is_gtc=True)
            return
        order = args[0]
        if order.is_closed or order.is_pending_cancel or order.is_pending_update:
            return
        if operation == "cancel":
            self.cancel_order(order)
        else:
            self.modify_order(order, price=args[1])
