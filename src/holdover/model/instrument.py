"""Instruments: the definition of a lot and a tick, and the exact conversion between decimals and integers."""

from __future__ import annotations

from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from functools import lru_cache
from typing import Final

import msgspec

CASH_UNIT: Final = Decimal("0.0000000001")
"""The unit in which cash is counted, of the account's currency: fine enough for a satoshi at a cent."""


_DIGITS_MAX: Final = 60
"""The order of magnitude up to which an amount is one: `1e999999999` would fill the memory."""
_EXACT: Final = Context(prec=200, traps=[InvalidOperation, DivisionByZero, Overflow])
"""Decimal arithmetic that is exact for every amount; the default rounds at 28 digits."""


class InstrumentUnitError(ValueError):
    """A decimal is not a whole number of the instrument's lots or ticks. Holdover refuses it and never rounds."""


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument and its units.

    `lot_size` and `tick_size` are decimal strings: the smallest quantity and price that can be expressed.
    `price_increment` is the smallest step of an *order* price, in ticks (trades may print inside it). `calendar`
    names the exchange calendar (`XNYS`, `24/7`, ...). `reference_version` names the version of the reference data
    (lot, tick, split) of open orders and positions; a split changes it. `negative_prices` is true for an instrument
    whose price may be zero or below (power, spreads, some futures).

    Raises `InstrumentUnitError` for a size that is not a decimal above zero.
    """

    symbol: str
    venue: str = "SIM"
    lot_size: str = "1"
    tick_size: str = "0.01"
    price_increment: int = 1
    currency: str = "USD"
    calendar: str = "XNYS"
    reference_version: str = ""
    negative_prices: bool = False

    def __post_init__(self) -> None:
        for field_name, size in (("lot_size", self.lot_size), ("tick_size", self.tick_size)):
            try:
                is_valid = Decimal(size).is_finite() and Decimal(size) > 0
            except InvalidOperation:
                is_valid = False
            if not is_valid:
                raise InstrumentUnitError(f"{self.symbol}: {field_name} {size!r} should be a decimal above zero")

    @property
    def key(self) -> str:
        """The symbol."""
        return self.symbol

    def lots(self, quantity: str | Decimal | int) -> int:
        """Convert a quantity to lots. Raises `InstrumentUnitError` when it is not a whole number of lots."""
        return _to_whole_units(quantity, self.lot_size, self.symbol, "quantity", "lot size")

    def ticks(self, price: str | Decimal | int) -> int:
        """Convert a price to ticks. Raises `InstrumentUnitError` when it is not a whole number of ticks."""
        return _to_whole_units(price, self.tick_size, self.symbol, "price", "tick size")

    def cash(self, notional: int) -> int:
        """Convert a notional (lots x ticks) to `CASH_UNIT`s.

        Raises `InstrumentUnitError` when lot x tick is finer than the unit.
        """
        return notional * _cash_scale(self.lot_size, self.tick_size, self.symbol)

    def quantity_text(self, lots: int) -> str:
        """Format a quantity in lots as a decimal."""
        return f"{_EXACT.multiply(Decimal(lots), Decimal(self.lot_size)):f}"

    def price_text(self, ticks: int) -> str:
        """Format a price in ticks as a decimal."""
        return f"{_EXACT.multiply(Decimal(ticks), Decimal(self.tick_size)):f}"

    def notional_text(self, notional: int) -> str:
        """Format a notional (lots x ticks) as a decimal in the instrument's currency."""
        unit = _EXACT.multiply(Decimal(self.lot_size), Decimal(self.tick_size))
        return f"{_EXACT.multiply(Decimal(notional), unit):f}"


@lru_cache(maxsize=1024)
def _cash_scale(lot_size: str, tick_size: str, symbol: str) -> int:
    return _to_whole_units(Decimal(lot_size) * Decimal(tick_size), str(CASH_UNIT), symbol, "lot x tick", "cash unit")


def _to_whole_units(value: str | Decimal | int, unit: str, symbol: str, value_name: str, unit_name: str) -> int:
    try:
        amount = Decimal(value)
        if amount.is_finite() and amount and abs(amount.adjusted()) > _DIGITS_MAX:
            raise InvalidOperation
        ratio = _EXACT.divide(amount, Decimal(unit))
    except (ArithmeticError, ValueError) as problem:
        shown = repr(str(value)[:_DIGITS_MAX])
        raise InstrumentUnitError(f"{symbol}: {value_name} {shown} is no decimal number") from problem
    whole = int(ratio) if ratio.is_finite() else None
    if whole is None or whole != ratio:
        raise InstrumentUnitError(f"{symbol}: {value_name} {value} is no whole number of its {unit_name} {unit}")
    return whole
