"""What a lot and a tick are: the one place where decimals become exact integers and back."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Final

import msgspec

CASH_UNIT: Final = Decimal("0.0000000001")
"""Cash is counted in whole units of this much of its currency: fine enough for a satoshi at a cent."""


class Unfit(ValueError):
    """A decimal that is no whole number of the instrument's lots or ticks; it is refused, never rounded."""


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument and its units.

    `lot_size` and `tick_size` are decimal strings: the smallest quantity and price that can be expressed.
    `price_increment` is the smallest step of an *order* price, in ticks (trades may print inside it).
    `calendar` names the exchange calendar (`XNYS`, `24/7`, ...) and `reference_version` the reference data
    (lot, tick, split) that open orders and positions are kept in; a split moves it. Raises `Unfit` for a size that is
    no decimal above zero.
    """

    symbol: str
    venue: str = "SIM"
    lot_size: str = "1"
    tick_size: str = "0.01"
    price_increment: int = 1
    currency: str = "USD"
    calendar: str = "XNYS"
    reference_version: str = ""

    def __post_init__(self) -> None:
        for what, size in (("lot_size", self.lot_size), ("tick_size", self.tick_size)):
            try:
                fits = Decimal(size).is_finite() and Decimal(size) > 0
            except InvalidOperation:
                fits = False
            if not fits:
                raise Unfit(f"{self.symbol}: {what} {size!r} should be a decimal above zero")

    @property
    def key(self) -> str:
        """The symbol."""
        return self.symbol

    def lots(self, quantity: str | Decimal | int) -> int:
        """The quantity in lots. Raises `Unfit` when it is no whole number of lots."""
        return _whole(quantity, self.lot_size, self.symbol, "quantity", "lot size")

    def ticks(self, price: str | Decimal | int) -> int:
        """The price in ticks. Raises `Unfit` when it is no whole number of ticks."""
        return _whole(price, self.tick_size, self.symbol, "price", "tick size")

    def cash(self, notional: int) -> int:
        """A notional (lots x ticks) in `CASH_UNIT`s. Raises `Unfit` when lot x tick is finer than the unit."""
        return notional * _cash_scale(self.lot_size, self.tick_size, self.symbol)

    def quantity_text(self, lots: int) -> str:
        """The quantity as a person reads it."""
        return f"{lots * Decimal(self.lot_size):f}"

    def price_text(self, ticks: int) -> str:
        """The price as a person reads it."""
        return f"{ticks * Decimal(self.tick_size):f}"

    def notional_text(self, notional: int) -> str:
        """A notional (lots x ticks) in the instrument's currency, as a person reads it."""
        return f"{notional * Decimal(self.lot_size) * Decimal(self.tick_size):f}"


@lru_cache(maxsize=1024)
def _cash_scale(lot_size: str, tick_size: str, symbol: str) -> int:
    return _whole(Decimal(lot_size) * Decimal(tick_size), str(CASH_UNIT), symbol, "lot x tick", "cash unit")


def _whole(value: str | Decimal | int, unit: str, symbol: str, what: str, unit_name: str) -> int:
    try:
        ratio = Decimal(value) / Decimal(unit)
    except (InvalidOperation, ZeroDivisionError) as problem:
        raise Unfit(f"{symbol}: {what} {value!r} is no decimal number") from problem
    whole = int(ratio) if ratio.is_finite() else None
    if whole is None or whole != ratio:
        raise Unfit(f"{symbol}: {what} {value} is no whole number of its {unit_name} {unit}")
    return whole
