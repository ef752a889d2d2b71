"""The configuration of a desk: instruments, strategies, limits and link."""

from __future__ import annotations

from typing import Final

import msgspec

from holdover.model import Instrument, PositionEffect, PositionSide, Side, TimeInForce, position_key

ALGORITHMS: Final = ("twap", "participation", "standing", "bracket")
"""How a strategy can be worked."""


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """One parent order and how the desk works it.

    `algorithm` is `twap` (even slices over each session), `participation` (a share of the traded volume, in
    `participation_bp` hundredths of a percent) or `standing` (always as many slices as allowed, over every
    night). `order_qty` is the total quantity in lots and `day_qty` the quantity for one session. The desk looks
    at the parent every `interval_ns` and enters slices of `slice_qty`, `offset` price increments behind the
    touch. A slice is repriced to the touch after `patience` intervals, crosses the spread after twice as many,
    and is pulled after four times as many. A strategy that `rests` does not cross: its slices are pulled after
    twice as many. With `late_ns`, slices keep their distance (`offset`) until that long before the close and then
    move to the touch; after `day_qty` is filled they move out of the market's reach until the next session.

    A `bracket` strategy enters one slice at a time, by time as `twap` does, and only from a flat position; the slice is
    cancelled after `patience` intervals. Its take-profit and its stop work `take_profit` and `stop_loss` price
    increments from the entry, see `brackets`. `position_side` names the leg on a venue with hedge mode.
    """

    name: str
    account: str
    symbol: str
    side: Side
    order_qty: int
    day_qty: int
    slice_qty: int
    algorithm: str = "twap"
    participation_bp: int = 100
    time_in_force: TimeInForce = TimeInForce.DAY
    position_effect: PositionEffect = PositionEffect.OPEN
    interval_ns: int = 30_000_000_000
    patience: int = 4
    slices_working_max: int = 3
    rests: bool = False
    late_ns: int = 0
    offset: int = 0
    take_profit: int = 0
    stop_loss: int = 0
    position_side: PositionSide | None = None

    def __post_init__(self) -> None:
        if not (self.name and self.account and self.symbol):
            raise ValueError(f"strategy {self.name!r}: name, account and symbol should not be empty")
        for field in ("order_qty", "day_qty", "slice_qty", "interval_ns", "slices_working_max"):
            if getattr(self, field) <= 0:
                raise ValueError(f"strategy {self.name}: {field} is {getattr(self, field)}, should be above 0")
        for field in ("patience", "late_ns"):
            if getattr(self, field) < 0:
                raise ValueError(f"strategy {self.name}: {field} is {getattr(self, field)}, should be 0 or above")
        if not 0 < self.participation_bp <= 10_000:
            raise ValueError(f"strategy {self.name}: participation_bp is {self.participation_bp}, should be 1 to 10000")
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"strategy {self.name}: algorithm is {self.algorithm!r}, should be {', '.join(ALGORITHMS)}"
            )
        if self.algorithm == "bracket" and self.position_effect == PositionEffect.CLOSE:
            raise ValueError(f"strategy {self.name}: a bracket opens a position, position_effect should not be close")
        for field in ("take_profit", "stop_loss") if self.algorithm == "bracket" else ():
            if getattr(self, field) <= 0:
                raise ValueError(f"strategy {self.name}: {field} is {getattr(self, field)}, should be above 0")

    @property
    def parent_id(self) -> str:
        """The id of the strategy's parent order."""
        return f"P-{self.name}"

    @property
    def book_key(self) -> str:
        """The key of the position that the strategy trades: account, instrument and leg."""
        return position_key(self.account, self.symbol, self.position_side or "")


class DeskConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The complete configuration of a desk; all other state is in its store.

    With `synced` the store waits for the disk at every commit. Production wants this; a test on a virtual clock
    does not need it. `answer_ns` is how long a request may stay unanswered before the desk queries its status. With
    `account_reports` the venue reports the accounts (`AccountReport`), and the desk queries what it missed.
    """

    instruments: list[Instrument]
    strategies: list[Strategy]
    link: str = "VENUE"
    venue: str = "VENUE"
    position_max: int = 10_000_000
    order_qty_max: int = 1_000_000
    open_qty_max: int = 10_000_000
    synced: bool = True
    answer_ns: int = 5_000_000_000
    retry_ns: int = 1_000_000_000
    account_reports: bool = False

    def __post_init__(self) -> None:
        for field in ("position_max", "order_qty_max", "open_qty_max", "answer_ns", "retry_ns"):
            if getattr(self, field) <= 0:
                raise ValueError(f"desk: {field} is {getattr(self, field)}, should be above 0")
        if not (self.link and self.venue):
            raise ValueError(f"desk: link and venue should not be empty: {self.link!r}, {self.venue!r}")
        names = [strategy.name for strategy in self.strategies]
        if len(set(names)) < len(names):
            raise ValueError(f"desk: two strategies have the same name: {', '.join(names)}")
        if any("/" in strategy.account or "~" in strategy.name for strategy in self.strategies):
            raise ValueError(f"desk: an account contains '/' or a strategy's name '~', which separate keys: {names}")
        bracketed = [strategy.book_key for strategy in self.strategies if strategy.algorithm == "bracket"]
        if len(set(bracketed)) < len(bracketed):
            raise ValueError(f"desk: two bracket strategies trade the same position: {', '.join(bracketed)}")
        symbols = [instrument.symbol for instrument in self.instruments]
        if len(set(symbols)) < len(symbols):
            raise ValueError(f"desk: an instrument is listed twice: {', '.join(symbols)}")
        for strategy in self.strategies:
            if symbols and strategy.symbol not in symbols:
                raise ValueError(f"strategy {strategy.name}: {strategy.symbol} is none of {', '.join(symbols)}")

    def accounts(self) -> list[str]:
        """Return the accounts of the strategies, in the order of first mention."""
        return list(dict.fromkeys(strategy.account for strategy in self.strategies))

    def instrument(self, symbol: str) -> Instrument | None:
        """Return the instrument of a symbol; None when the desk does not trade it."""
        return next((instrument for instrument in self.instruments if instrument.symbol == symbol), None)
