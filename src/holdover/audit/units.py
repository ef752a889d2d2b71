"""Lots and ticks derived from the log: the smallest power of ten that makes every amount of a symbol whole.

A log does not state lot sizes. The units follow from the amounts: when an amount has more decimals than any
before, everything known of the symbol is converted by a whole factor. Nothing is rounded.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from holdover.model import Instrument
from holdover.state import Stateful

_DIGITS_MAX = 40
_CACHE_SIZE_MAX = 50_000


class NumberError(ValueError):
    """A field that must be a decimal number is not one."""


class FinerUnitsError(Exception):
    """An amount has more decimals than its unit: the lots or ticks (`unit_name`) must first get `decimals` decimals."""

    def __init__(self, units: Units, unit_name: str, decimals: int) -> None:
        super().__init__(f"{units.symbol}: {unit_name} need {decimals} decimals")
        self.units = units
        self.unit_name = unit_name
        self.decimals = decimals


class UnitsState(msgspec.Struct):
    """The state of one symbol's units."""

    symbol: str
    lot_decimals: int
    tick_decimals: int


class Units(Stateful[UnitsState]):
    """The decimals of one symbol's quantities and prices so far."""

    State = UnitsState
    DERIVED: ClassVar = {"_lots": "a cache of conversions", "_ticks": "a cache of conversions"}

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.lot_decimals = 0
        self.tick_decimals = 0
        self._lots: dict[bytes, int] = {}
        self._ticks: dict[bytes, int] = {}

    def lots(self, text: bytes) -> int:
        """Return a quantity in lots. Raises `FinerUnitsError`, or `NumberError` when it is no number."""
        lots = self._lots.get(text)
        if lots is None:
            if len(self._lots) > _CACHE_SIZE_MAX:
                self._lots.clear()
            lots = self._lots[text] = self._to_whole_units(text, self.lot_decimals, "lots")
        return lots

    def ticks(self, text: bytes) -> int:
        """Return a price in ticks. Raises `FinerUnitsError`, or `NumberError` when it is no number."""
        ticks = self._ticks.get(text)
        if ticks is None:
            if len(self._ticks) > _CACHE_SIZE_MAX:
                self._ticks.clear()
            ticks = self._ticks[text] = self._to_whole_units(text, self.tick_decimals, "ticks")
        return ticks

    def _to_whole_units(self, text: bytes, decimals: int, unit_name: str) -> int:
        if text.isdigit() and len(text) <= _DIGITS_MAX:
            return int(text) * int(10**decimals)
        digits, text_decimals = split_decimal(text)
        if text_decimals > decimals:
            raise FinerUnitsError(self, unit_name, text_decimals)
        return digits * int(10 ** (decimals - text_decimals))

    def refine(self, error: FinerUnitsError) -> tuple[int, int]:
        """Switch to finer units. Returns the factors by which all earlier lots and ticks must be multiplied."""
        known_decimals = self.lot_decimals if error.unit_name == "lots" else self.tick_decimals
        if error.units is not self or error.decimals <= known_decimals:
            raise ValueError(f"{self.symbol}: {error} is no refinement of {known_decimals} decimals")
        lots = ticks = 1
        if error.unit_name == "lots":
            lots = 10 ** (error.decimals - self.lot_decimals)
            self.lot_decimals = error.decimals
            self._lots.clear()
        else:
            ticks = 10 ** (error.decimals - self.tick_decimals)
            self.tick_decimals = error.decimals
            self._ticks.clear()
        return lots, ticks

    def instrument(self) -> Instrument:
        """Return the instrument with the units so far."""
        return Instrument(
            symbol=self.symbol, lot_size=_unit_text(self.lot_decimals), tick_size=_unit_text(self.tick_decimals)
        )


def split_decimal(text: bytes) -> tuple[int, int]:
    """Split a decimal number into (digits, decimals): its value is digits / 10**decimals. Raises `NumberError`."""
    whole, _, part = text.partition(b".")
    unsigned = whole[1:] if whole[:1] in (b"-", b"+") else whole
    if len(text) > _DIGITS_MAX or not (unsigned + part).isdigit():
        raise NumberError(f"is {text[:_DIGITS_MAX].decode('utf-8', 'replace')!r}, it should be a decimal number")
    part = part.rstrip(b"0")
    return (int(whole + part) if unsigned + part else 0), len(part)


def _unit_text(decimals: int) -> str:
    return "1" if not decimals else "0." + "0" * (decimals - 1) + "1"
