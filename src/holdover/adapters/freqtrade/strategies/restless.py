"""The default strategy: entries, more entries, partial exits, price changes and timeouts."""

from datetime import datetime
from typing import Any, ClassVar

from freqtrade.persistence import Order, Trade
from freqtrade.strategy import IStrategy
from pandas import DataFrame


class Restless(IStrategy):  # type: ignore[misc]
    """One action a minute, chosen by the minute alone, so that a restarted incarnation acts as the earlier one
    would have.

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

    def minute(self, moment: datetime) -> int:
        """Returns the minutes since the open; -1 outside the hours and in the last minute before the close."""
        time_ns = int(moment.timestamp()) * 1_000_000_000
        for begin, end in self.config["restless"]["hours"]:
            if begin <= time_ns < end - 60_000_000_000:
                return int(time_ns - begin) // 60_000_000_000
        return -1

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Add no indicators."""
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Signal an entry on every candle."""
        dataframe["enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Signal an exit at every twentieth minute of the candles."""
        minutes = [self.minute(moment) + 1 for moment in dataframe["date"]]
        dataframe["exit_long"] = [int(minute % 20 == 13) for minute in minutes]
        dataframe.loc[dataframe["exit_long"] == 1, "enter_long"] = 0
        return dataframe

    def confirm_trade_entry(self, pair: str, *args: Any, current_time: datetime, **kwargs: Any) -> bool:
        """Allow entries only while the session is open."""
        return self.minute(current_time) >= 0

    def confirm_trade_exit(self, pair: str, *args: Any, current_time: datetime, **kwargs: Any) -> bool:
        """Allow exits only while the session is open."""
        return self.minute(current_time) >= 0

    def custom_stake_amount(self, pair: str, *args: Any, current_rate: float, **kwargs: Any) -> float:
        """Returns the usual amount plus a half, so that rounding does not reduce it by one."""
        return (float(self.config["restless"]["amounts"][pair]) + 0.5) * current_rate

    def custom_entry_price(
        self, pair: str, *args: Any, current_time: datetime, proposed_rate: float, **kwargs: Any
    ) -> float:
        """Returns a price at the touch or behind it."""
        return proposed_rate - 0.01 * (self.minute(current_time) % 3)

    def adjust_entry_price(
        self, *args: Any, current_time: datetime, proposed_rate: float, current_order_rate: float, **kwargs: Any
    ) -> float:
        """Move the price to the touch, every fourth minute."""
        return proposed_rate if self.minute(current_time) % 4 == 2 else current_order_rate

    def adjust_exit_price(
        self, *args: Any, current_time: datetime, proposed_rate: float, current_order_rate: float, **kwargs: Any
    ) -> float:
        """Move the price to the touch, every fourth minute; older releases do not call this."""
        return proposed_rate if self.minute(current_time) % 4 == 2 else current_order_rate

    def adjust_trade_position(self, trade: Trade, *args: Any, current_time: datetime, **kwargs: Any) -> float | None:
        """Buy more every third minute, sell half every seventh; one order a minute."""
        minute = self.minute(current_time)
        orders: list[Order] = trade.orders
        if minute < 0 or trade.has_open_orders or any(self.minute(order.order_date_utc) == minute for order in orders):
            return None
        amount = float(self.config["restless"]["amounts"][trade.pair])
        if minute % 7 == 5 and trade.amount > amount / 2:
            return -float(trade.stake_amount) / 2
        if minute % 3 == 0 and trade.amount < 6 * amount:
            return (amount + 0.5) * float(trade.open_rate)
        return None
