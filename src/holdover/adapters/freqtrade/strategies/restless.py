"""The strategy that is used without one of the user's: entries, more entries, partial exits, reprices, timeouts."""

from datetime import datetime
from typing import Any, ClassVar

from freqtrade.persistence import Order, Trade
from freqtrade.strategy import IStrategy
from pandas import DataFrame


class Restless(IStrategy):  # type: ignore[misc]
    """One thing a minute, told by the minute alone, so that a restarted life does what one that was not would do.

    `restless` in the configuration has the hours (open and close, ns) and each pair's usual amount.
    """

    INTERFACE_VERSION = 3
    timeframe = "1m"
    minimal_roi: ClassVar[dict[str, float]] = {}
    stoploss = -0.99
    startup_candle_count = 0
    process_only_new_candles = True
    position_adjustment_enable = True
    max_entry_position_adjustment = -1
    order_types: ClassVar[dict[str, Any]] = {
        "entry": "limit",
        "exit": "limit",
        "emergency_exit": "market",
        "force_entry": "limit",
        "force_exit": "limit",
        "stoploss": "limit",
        "stoploss_on_exchange": False,
    }
    order_time_in_force: ClassVar[dict[str, str]] = {"entry": "GTC", "exit": "GTC"}

    def minute(self, now: datetime) -> int:
        """Minutes since the open; -1 outside the hours, the last minute before the close included."""
        time_ns = int(now.timestamp()) * 1_000_000_000
        for begin, end in self.config["restless"]["hours"]:
            if begin <= time_ns < end - 60_000_000_000:
                return int(time_ns - begin) // 60_000_000_000
        return -1

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """None."""
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Always in."""
        dataframe["enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Out at every twentieth minute, told by the candle."""
        minutes = [self.minute(one) + 1 for one in dataframe["date"]]
        dataframe["exit_long"] = [int(one % 20 == 13) for one in minutes]
        dataframe.loc[dataframe["exit_long"] == 1, "enter_long"] = 0
        return dataframe

    def confirm_trade_entry(self, pair: str, *told: Any, current_time: datetime, **more: Any) -> bool:
        """Only while it is open."""
        return self.minute(current_time) >= 0

    def confirm_trade_exit(self, pair: str, *told: Any, current_time: datetime, **more: Any) -> bool:
        """Only while it is open."""
        return self.minute(current_time) >= 0

    def custom_stake_amount(self, pair: str, *told: Any, current_rate: float, **more: Any) -> float:
        """The usual amount, and a half so that no rounding makes it one less."""
        return (float(self.config["restless"]["amounts"][pair]) + 0.5) * current_rate

    def custom_entry_price(
        self, pair: str, *told: Any, current_time: datetime, proposed_rate: float, **more: Any
    ) -> float:
        """At the touch or behind it."""
        return proposed_rate - 0.01 * (self.minute(current_time) % 3)

    def adjust_entry_price(
        self, *told: Any, current_time: datetime, proposed_rate: float, current_order_rate: float, **more: Any
    ) -> float:
        """To the touch, every fourth minute."""
        return proposed_rate if self.minute(current_time) % 4 == 2 else current_order_rate

    def adjust_exit_price(
        self, *told: Any, current_time: datetime, proposed_rate: float, current_order_rate: float, **more: Any
    ) -> float:
        """The same; older releases do not ask."""
        return proposed_rate if self.minute(current_time) % 4 == 2 else current_order_rate

    def adjust_trade_position(self, trade: Trade, *told: Any, current_time: datetime, **more: Any) -> float | None:
        """More every third minute, half of it out every seventh; one order a minute."""
        minute = self.minute(current_time)
        orders: list[Order] = trade.orders
        if minute < 0 or trade.has_open_orders or any(self.minute(one.order_date_utc) == minute for one in orders):
            return None
        amount = float(self.config["restless"]["amounts"][trade.pair])
        if minute % 7 == 5 and trade.amount > amount / 2:
            return -float(trade.stake_amount) / 2
        if minute % 3 == 0 and trade.amount < 6 * amount:
            return (amount + 0.5) * float(trade.open_rate)
        return None
