"""Lots and ticks that the log itself shows: the smallest power of ten that makes every amount of a symbol whole.

A log says nowhere what a lot is. The decimals are found as they come: when a finer amount turns up than any before it,
everything known of the symbol is expressed anew, by a whole factor, and nothing is ever rounded.
"""

from __future__ import annotations

from holdover.model import Instrument

_DIGITS = 40
_KEPT = 50_000


class NoNumber(ValueError):
    """A field that should be a decimal number and is none."""


class Finer(Exception):
    """An amount with more decimals than the unit has: the lots or ticks (`what`) need `decimals` decimals first."""

    def __init__(self, units: Units, what: str, decimals: int) -> None:
        super().__init__(f"{units.symbol}: {what} need {decimals} decimals")
        self.units = units
        self.what = what
        self.decimals = decimals


class Units:
    """The decimals of one symbol's quantities and prices, so far."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.lot_decimals = 0
        self.tick_decimals = 0
        self._lots: dict[bytes, int] = {}
        self._ticks: dict[bytes, int] = {}

    def lots(self, text: bytes) -> int:
        """A quantity in lots. Raises `Finer`, or `NoNumber` when it is none."""
        found = self._lots.get(text)
        if found is None:
            if len(self._lots) > _KEPT:
                self._lots.clear()
            found = self._lots[text] = self._whole(text, self.lot_decimals, "lots")
        return found

    def ticks(self, text: bytes) -> int:
        """A price in ticks. Raises `Finer`, or `NoNumber` when it is none."""
        found = self._ticks.get(text)
        if found is None:
            if len(self._ticks) > _KEPT:
                self._ticks.clear()
            found = self._ticks[text] = self._whole(text, self.tick_decimals, "ticks")
        return found

    def _whole(self, text: bytes, decimals: int, what: str) -> int:
        if text.isdigit() and len(text) <= _DIGITS:
            return int(text) * int(10**decimals)
        digits, own = parts(text)
        if own > decimals:
            raise Finer(self, what, own)
        return digits * int(10 ** (decimals - own))

    def refine(self, finer: Finer) -> tuple[int, int]:
        """Take finer units; returns by which factors all lots and all ticks known before are to be multiplied."""
        lots = ticks = 1
        if finer.what == "lots":
            lots = 10 ** (finer.decimals - self.lot_decimals)
            self.lot_decimals = finer.decimals
            self._lots.clear()
        else:
            ticks = 10 ** (finer.decimals - self.tick_decimals)
            self.tick_decimals = finer.decimals
            self._ticks.clear()
        return lots, ticks

    def instrument(self) -> Instrument:
        """The instrument as the log shows it."""
        return Instrument(symbol=self.symbol, lot_size=_unit(self.lot_decimals), tick_size=_unit(self.tick_decimals))


def parts(text: bytes) -> tuple[int, int]:
    """A decimal number as (digits, decimals): its value is digits / 10**decimals. Raises `NoNumber`."""
    whole, _, part = text.partition(b".")
    unsigned = whole[1:] if whole[:1] in (b"-", b"+") else whole
    if len(text) > _DIGITS or not (unsigned + part).isdigit():
        raise NoNumber(f"is {text[:_DIGITS].decode('utf-8', 'replace')!r}, it should be a decimal number")
    part = part.rstrip(b"0")
    return (int(whole + part) if unsigned + part else 0), len(part)


def _unit(decimals: int) -> str:
    return "1" if not decimals else "0." + "0" * (decimals - 1) + "1"
