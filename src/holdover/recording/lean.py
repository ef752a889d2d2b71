"""Import the Lean data layout: equity ticks, forex quotes, crypto trade bars.

    SECURITY_TYPE/MARKET/RESOLUTION/SYMBOL/YYYYMMDD_{quote,trade}.zip      one headerless CSV file in each

Equity quotes come one side a row, with the exchange that set it. They are the national best already, a row whenever
a side of it moves: read so, one quote in a thousand is crossed and 97 to 99.8 % of the trades print inside; read as
each exchange's own best, nearly all are crossed (docs/decisions/0002-lean-quotes.md). A quote record is written when
price or size of a side changes. Rows marked suspicious are left out. Where a trade and a quote carry the same
millisecond the trade comes first: it took what was displayed, and the quote shows what was left.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from tqdm import tqdm

from holdover.model import Instrument
from holdover.recording.calendar import hours, midnight_ns, neighbours
from holdover.recording.format import (
    FLAG_BAR,
    UNDEF_PRICE,
    BadRecording,
    Meta,
    Provenance,
    Recording,
    RecordingWriter,
)
from holdover.recording.store import path_for

MS = 1_000_000
_LICENCE = "Apache-2.0 (QuantConnect/Lean sample data)"
_FOREX_SIZE = 1_000_000
"""Forex quotes carry no sizes; each side is taken to show this many units."""


def import_lean(source: Path, into: Path, symbols: list[str] | None = None, *, quiet: bool = False) -> list[Recording]:
    """Import every day found below `source`; returns the recordings written.

    Raises `BadRecording` when nothing is found or a row cannot be read.
    """
    days = _days(source)
    if symbols:
        wanted = {symbol.upper() for symbol in symbols}
        days = {key: files for key, files in days.items() if key[2] in wanted}
    if not days:
        raise BadRecording(
            f"{source}: nothing to import; expected "
            "SECURITY_TYPE/MARKET/RESOLUTION/SYMBOL/YYYYMMDD_quote.zip or _trade.zip"
        )
    shown = tqdm(sorted(days.items()), unit="day", disable=None if not quiet else True)
    written = []
    for (kind, market, symbol, day), files in shown:
        shown.set_description(f"{symbol} {day}")
        written.append(_import_day(kind, market, symbol, day, files, into))
    return written


def _days(source: Path) -> dict[tuple[str, str, str, str], dict[str, Path]]:
    found: dict[tuple[str, str, str, str], dict[str, Path]] = {}
    for path in sorted(source.rglob("*.zip")):
        day, _, what = path.stem.partition("_")
        if what not in ("quote", "trade") or len(day) != 8 or not day.isdigit() or len(path.parts) < 5:
            continue
        kind, market = path.parts[-5], path.parts[-4]
        key = (kind, market, path.parent.name.upper(), f"{day[:4]}-{day[4:6]}-{day[6:]}")
        found.setdefault(key, {})[what] = path
    return found


def _import_day(kind: str, market: str, symbol: str, day: str, files: dict[str, Path], into: Path) -> Recording:
    readers = {"equity": _equity, "forex": _forex, "crypto": _crypto}
    if kind not in readers:
        name = next(iter(files.values())).name
        raise BadRecording(f"{name}: no importer for security type {kind!r}; equity, forex, crypto are known")
    return readers[kind](market, symbol, day, files, into)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of the one CSV file in a zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise BadRecording(f"{path.name}: {len(names)} files inside, should be one")
            with io.TextIOWrapper(archive.open(names[0]), encoding="ascii") as text:
                for number, line in enumerate(text, 1):
                    yield number, line.rstrip("\n").split(",")
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as problem:
        raise BadRecording(f"{path.name}: cannot be read: {problem}") from problem


def _provenance(files: dict[str, Path], notes: list[str]) -> Provenance:
    inputs = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()}
    return Provenance(
        source="QuantConnect/Lean sample data", licence=_LICENCE, importer="lean", inputs=inputs, notes=notes
    )


def _equity(market: str, symbol: str, day: str, files: dict[str, Path], into: Path) -> Recording:
    instrument = Instrument(
        symbol=symbol, venue=market.upper(), tick_size="0.0001", price_increment=100, calendar="XNYS"
    )
    kept = hours("XNYS", day)
    base = midnight_ns(day, "America/New_York")
    trades, skipped_trades = _equity_trades(files["trade"], base) if "trade" in files else ([], 0)
    notes = [
        "each quote row is one side of the national best, with the size of the exchange that set it",
        "a trade comes before a quote of the same millisecond",
        f"suspicious trades left out: {skipped_trades}",
    ]
    meta = Meta(
        instrument=instrument,
        trade_date=day,
        open_ns=kept.open_ns,
        close_ns=kept.close_ns,
        previous_session=kept.previous_session,
        next_session=kept.next_session,
        early_close=kept.early_close,
        provenance=_provenance(files, notes),
    )
    writer = RecordingWriter(path_for(into, market, symbol, day), meta)
    place = 0
    quotes = _national_best(files["quote"], base) if "quote" in files else iter(())
    for ts, bid_px, bid_sz, ask_px, ask_sz in quotes:
        while place < len(trades) and trades[place][0] <= ts:
            writer.trade(*trades[place])
            place += 1
        writer.quote(ts, bid_px, bid_sz, ask_px, ask_sz)
    for trade in trades[place:]:
        writer.trade(*trade)
    return writer.close()


def _equity_trades(path: Path, base: int) -> tuple[list[tuple[int, int, int]], int]:
    found: list[tuple[int, int, int]] = []
    skipped = 0
    for number, row in _rows(path):
        try:
            if row[5] != "0" or row[1] == "0" or row[2] == "0":
                skipped += 1
                continue
            found.append((base + int(row[0]) * MS, int(row[1]), int(row[2])))
        except (ValueError, IndexError):
            raise BadRecording(f"{path.name}: line {number}: not a trade: {','.join(row)}") from None
    return found, skipped


def _national_best(path: Path, base: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(ts, bid_px, bid_sz, ask_px, ask_sz) whenever the national best changes."""
    bid_px, bid_sz, ask_px, ask_sz = UNDEF_PRICE, 0, UNDEF_PRICE, 0
    for number, row in _rows(path):
        try:
            if row[7] != "0":
                continue
            ts = base + int(row[0]) * MS
            if row[1] != "0":
                new = (int(row[1]), int(row[2]), ask_px, ask_sz)
            elif row[3] != "0":
                new = (bid_px, bid_sz, int(row[3]), int(row[4]))
            else:
                continue
        except (ValueError, IndexError):
            raise BadRecording(f"{path.name}: line {number}: not a quote: {','.join(row)}") from None
        if new != (bid_px, bid_sz, ask_px, ask_sz):
            bid_px, bid_sz, ask_px, ask_sz = new
            yield ts, *(new if bid_sz and ask_sz else _one_sided(new))


def _one_sided(top: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """A side of no size has no price either."""
    bid_px, bid_sz, ask_px, ask_sz = top
    return (bid_px if bid_sz else UNDEF_PRICE, bid_sz, ask_px if ask_sz else UNDEF_PRICE, ask_sz)


def _forex(market: str, symbol: str, day: str, files: dict[str, Path], into: Path) -> Recording:
    instrument = Instrument(
        symbol=symbol, venue=market.upper(), tick_size="0.00001", currency=symbol[-3:], calendar="24/5"
    )
    base = midnight_ns(day, "America/New_York")
    before, after = neighbours("24/5", day)
    path = files["quote"]
    rows: list[tuple[int, int, int]] = []
    for number, row in _rows(path):
        try:
            rows.append((base + int(row[0]) * MS, instrument.ticks(Decimal(row[1])), instrument.ticks(Decimal(row[2]))))
        except (ValueError, IndexError, ArithmeticError) as problem:
            raise BadRecording(f"{path.name}: line {number}: not a quote: {','.join(row)} ({problem})") from None
    meta = Meta(
        instrument=instrument,
        trade_date=day,
        open_ns=rows[0][0] if rows else base,
        close_ns=base + 86_400_000_000_000,
        previous_session=before,
        next_session=after,
        provenance=_provenance(
            files,
            [
                f"the source carries no sizes: each side is taken to show {_FOREX_SIZE} units",
                "the session is the New York calendar day, from its first quote",
            ],
        ),
    )
    writer = RecordingWriter(path_for(into, market, symbol, day), meta)
    last = (0, 0)
    for ts, bid_px, ask_px in rows:
        if (bid_px, ask_px) != last:
            last = (bid_px, ask_px)
            writer.quote(ts, bid_px, _FOREX_SIZE, ask_px, _FOREX_SIZE)
    return writer.close()


def _crypto(market: str, symbol: str, day: str, files: dict[str, Path], into: Path) -> Recording:
    instrument = Instrument(
        symbol=symbol,
        venue=market.upper(),
        lot_size="0.00000001",
        tick_size="0.01",
        currency=symbol[-3:],
        calendar="24/7",
    )
    kept = hours("24/7", day)
    meta = Meta(
        instrument=instrument,
        trade_date=day,
        open_ns=kept.open_ns,
        close_ns=kept.open_ns + 86_400_000_000_000,
        previous_session=kept.previous_session,
        next_session=kept.next_session,
        provenance=_provenance(
            files, ["made from one-second trade bars: each bar is one trade of its volume at its close"]
        ),
    )
    base = midnight_ns(day, "UTC")
    path = files["trade"]
    writer = RecordingWriter(path_for(into, market, symbol, day), meta)
    for number, row in _rows(path):
        try:
            size = instrument.lots(Decimal(row[5]))
            if size:
                writer.trade(base + int(row[0]) * MS, instrument.ticks(Decimal(row[4])), size, FLAG_BAR)
        except (ValueError, IndexError, ArithmeticError) as problem:
            raise BadRecording(f"{path.name}: line {number}: not a bar: {','.join(row)} ({problem})") from None
    return writer.close()
