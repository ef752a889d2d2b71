"""What a desk trades: instruments, strategies, limits, the link; plain data."""

from __future__ import annotations

import msgspec

from holdover.model import Instrument, PositionEffect, Side, TimeInForce


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """One parent order and how it is worked.

    `algorithm` is `twap` (even slices over each session), `participation` (a share of the traded volume, in
    `participation_bp` hundredths of a percent) or `standing` (always as many slices as may work, over every night).
    `order_qty` is the whole quantity in lots, `day_qty` what one session may take of it; slices are of `slice_qty`,
    looked at every `interval_ns`, and entered `offset` price increments behind the touch. A slice that has waited for
    `patience` intervals is repriced to the touch; after twice as many it crosses the spread, and after four times as
    many it is pulled. One that only `rests` does not cross: it is pulled after twice as many. A strategy with a
    `late_ns` keeps its distance (`offset`) until so long before the close, and stands at the touch from then on; when
    it has had its `day_qty` it steps back out of the market's reach until the next session.
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

    @property
    def parent_id(self) -> str:
        """The id of its parent order."""
        return f"P-{self.name}"


class DeskConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A desk: everything that it needs to know beside its own store.

    `synced` asks the store to wait for the disk at every commit, which production wants and a test on a virtual clock
    does not need. `answer_ns` is how long a request may stay unanswered before its status is asked for.
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

    def accounts(self) -> list[str]:
        """The accounts that its strategies trade in, in the order of first mention."""
        return list(dict.fromkeys(strategy.account for strategy in self.strategies))

    def instrument(self, symbol: str) -> Instrument | None:
        """The instrument of a symbol, None when the desk does not trade it."""
        return next((one for one in self.instruments if one.symbol == symbol), None)
