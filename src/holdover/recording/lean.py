"""Imports the Lean data layout: equity ticks, forex quotes and crypto trade bars.

    SECURITY_TYPE/MARKET/RESOLUTION/SYMBOL/YYYYMMDD_{quote,trade}.zip      one headerless CSV file in each

Each equity quote row has one side and the exchange that set it. The rows are the national best bid and offer,
with a row whenever one side moves. Read so, one quote in a thousand is crossed and 97 to 99.8 % of the trades
print inside; read as each exchange's own best, nearly all quotes are crossed
(docs/decisions/0002-lean-quotes.md). The importer writes a quote when the price or size of a side changes,
and skips rows marked suspicious. Within one millisecond a trade comes before a quote: it took the displayed
size, and the quote shows what remained.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace
from tqdm import tqdm

from holdover.model import Instrument
from holdover.recording.calendar import SessionHours, hours, midnight_ns, neighbouring_sessions
from holdover.recording.format import (
    FLAG_BAR,
    UNDEF_PRICE,
    Provenance,
    Recording,
    RecordingError,
    RecordingWriter,
)
from holdover.recording.store import digest_file, recording_path
from holdover.runtime.size_limits import ARCHIVE_ERRORS, RECORDING_EXPANDED_MAX, expansion_bound, format_size

MS = 1_000_000
_LICENCE = "Apache-2.0 (QuantConnect/Lean sample data)"
_FOREX_SIZE = 1_000_000
"""Forex quotes carry no sizes; the importer assumes this many units on each side."""


def import_lean(
    source: Path, directory: Path, symbols: list[str] | None = None, *, quiet: bool = False
) -> list[Recording]:
    """Import every day below `source`; return the recordings.

    Raises `RecordingError` when nothing is found or a row cannot be read.
    """
    days = _find_days(source)
    if symbols:
        wanted_symbols = {symbol.upper() for symbol in symbols}
        days = {key: files for key, files in days.items() if key[2] in wanted_symbols}
    if not days:
        raise RecordingError(
            f"{source}: nothing to import; expected "
            "SECURITY_TYPE/MARKET/RESOLUTION/SYMBOL/YYYYMMDD_quote.zip or _trade.zip"
        )
    shown = tqdm(sorted(days.items()), unit="day", disable=None if not quiet else True)
    recordings = []
    for (kind, market, symbol, day), files in shown:
        shown.set_description(f"{symbol} {day}")
        recordings.append(_import_day(kind, market, symbol, day, files, directory))
    return recordings


def _find_days(source: Path) -> dict[tuple[str, str, str, str], dict[str, Path]]:
    files_by_day: dict[tuple[str, str, str, str], dict[str, Path]] = {}
    for path in sorted(source.rglob("*.zip")):
        day, _, content_kind = path.stem.partition("_")
        if content_kind not in ("quote", "trade") or len(day) != 8 or not day.isdigit() or len(path.parts) < 5:
            continue
        kind, market = path.parts[-5], path.parts[-4]
        key = (kind, market, path.parent.name.upper(), f"{day[:4]}-{day[4:6]}-{day[6:]}")
        files_by_day.setdefault(key, {})[content_kind] = path
    return files_by_day


def _import_day(kind: str, market: str, symbol: str, day: str, files: dict[str, Path], directory: Path) -> Recording:
    readers = {"equity": _import_equity, "forex": _import_forex, "crypto": _import_crypto}
    if kind not in readers:
        name = next(iter(files.values())).name
        raise RecordingError(f"{name}: no importer for security type {kind!r}; equity, forex, crypto are known")
    return readers[kind](market, symbol, day, files, directory)


def _read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of the one CSV file in a zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise RecordingError(f"{path.name}: {len(members)} files inside, should be one")
            bound = expansion_bound(path.stat().st_size, RECORDING_EXPANDED_MAX)
            if members[0].file_size > bound:
                raise RecordingError(f"{path.name}: expands to more than {format_size(bound)}")
            with io.TextIOWrapper(archive.open(members[0]), encoding="ascii") as text:
                for number, line in enumerate(text, 1):
                    yield number, line.rstrip("\n").split(",")
    except RecordingError:
        raise
    except (*ARCHIVE_ERRORS, OSError) as error:
        raise RecordingError(f"{path.name}: cannot be read: {error}") from error


def _build_provenance(files: dict[str, Path], notes: list[str]) -> Provenance:
    inputs = {path.name: digest_file(path) for path in files.values()}
    return Provenance(
        source="QuantConnect/Lean sample data", licence=_LICENCE, importer="lean", inputs=inputs, notes=notes
    )


def _import_equity(market: str, symbol: str, day: str, files: dict[str, Path], directory: Path) -> Recording:
    instrument = Instrument(
        symbol=symbol, venue=market.upper(), tick_size="0.0001", price_increment=100, calendar="XNYS"
    )
    session_hours = hours("XNYS", day)
    base = midnight_ns(day, "America/New_York")
    trades, skipped_trades = _read_equity_trades(files["trade"], base) if "trade" in files else ([], 0)
    notes = [
        "each quote row is one side of the national best, with the size of the exchange that set it",
        "a trade comes before a quote of the same millisecond",
        f"suspicious trades left out: {skipped_trades}",
    ]
    meta = session_hours.to_meta(instrument, day, _build_provenance(files, notes))
    writer = RecordingWriter(recording_path(directory, market, symbol, day), meta)
    next_trade = 0
    quotes = _read_national_best(files["quote"], base) if "quote" in files else iter(())
    for ts, bid_px, bid_sz, ask_px, ask_sz in quotes:
        while next_trade < len(trades) and trades[next_trade][0] <= ts:
            writer.trade(*trades[next_trade])
            next_trade += 1
        writer.quote(ts, bid_px, bid_sz, ask_px, ask_sz)
    for trade in trades[next_trade:]:
        writer.trade(*trade)
    return writer.close()


def _read_equity_trades(path: Path, base: int) -> tuple[list[tuple[int, int, int]], int]:
    trades: list[tuple[int, int, int]] = []
    skipped = 0
    for number, row in _read_rows(path):
        try:
            if row[5] != "0" or row[1] == "0" or row[2] == "0":
                skipped += 1
                continue
            trades.append((base + int(row[0]) * MS, int(row[1]), int(row[2])))
        except (ValueError, IndexError):
            raise RecordingError(f"{path.name}: line {number}: not a trade: {','.join(row)}") from None
    return trades, skipped


def _read_national_best(path: Path, base: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (ts, bid_px, bid_sz, ask_px, ask_sz) whenever the national best changes."""
    bid_px, bid_sz, ask_px, ask_sz = UNDEF_PRICE, 0, UNDEF_PRICE, 0
    for number, row in _read_rows(path):
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
            raise RecordingError(f"{path.name}: line {number}: not a quote: {','.join(row)}") from None
        if new != (bid_px, bid_sz, ask_px, ask_sz):
            bid_px, bid_sz, ask_px, ask_sz = new
            yield ts, *(new if bid_sz and ask_sz else _without_empty_price(new))


def _without_empty_price(top: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Remove the price of a side that has no size."""
    bid_px, bid_sz, ask_px, ask_sz = top
    return (bid_px if bid_sz else UNDEF_PRICE, bid_sz, ask_px if ask_sz else UNDEF_PRICE, ask_sz)


def _import_forex(market: str, symbol: str, day: str, files: dict[str, Path], directory: Path) -> Recording:
    instrument = Instrument(
        symbol=symbol, venue=market.upper(), tick_size="0.00001", currency=symbol[-3:], calendar="24/5"
    )
    base = midnight_ns(day, "America/New_York")
    before, after = neighbouring_sessions("24/5", day)
    path = files["quote"]
    rows: list[tuple[int, int, int]] = []
    for number, row in _read_rows(path):
        try:
            rows.append((base + int(row[0]) * MS, instrument.ticks(Decimal(row[1])), instrument.ticks(Decimal(row[2]))))
        except (ValueError, IndexError, ArithmeticError) as problem:
            raise RecordingError(f"{path.name}: line {number}: not a quote: {','.join(row)} ({problem})") from None
    session_hours = SessionHours(rows[0][0] if rows else base, base + 86_400_000_000_000, before, after, False)
    notes = [
        f"the source carries no sizes: each side is taken to show {_FOREX_SIZE} units",
        "the session is the New York calendar day, from its first quote",
    ]
    meta = session_hours.to_meta(instrument, day, _build_provenance(files, notes))
    writer = RecordingWriter(recording_path(directory, market, symbol, day), meta)
    last = (0, 0)
    for ts, bid_px, ask_px in rows:
        if (bid_px, ask_px) != last:
            last = (bid_px, ask_px)
            writer.quote(ts, bid_px, _FOREX_SIZE, ask_px, _FOREX_SIZE)
    return writer.close()


def _import_crypto(market: str, symbol: str, day: str, files: dict[str, Path], directory: Path) -> Recording:
    instrument = Instrument(
        symbol=symbol,
        venue=market.upper(),
        lot_size="0.00000001",
        tick_size="0.01",
        currency=symbol[-3:],
        calendar="24/7",
    )
    session_hours = hours("24/7", day)
    session_hours = replace(session_hours, close_ns=session_hours.open_ns + 86_400_000_000_000)
    notes = ["made from one-second trade bars: each bar is one trade of its volume at its close"]
    meta = session_hours.to_meta(instrument, day, _build_provenance(files, notes))
    base = midnight_ns(day, "UTC")
    path = files["trade"]
    writer = RecordingWriter(recording_path(directory, market, symbol, day), meta)
    for number, row in _read_rows(path):
        try:
            size = instrument.lots(Decimal(row[5]))
            if size:
                writer.trade(base + int(row[0]) * MS, instrument.ticks(Decimal(row[4])), size, FLAG_BAR)
        except (ValueError, IndexError, ArithmeticError) as problem:
            raise RecordingError(f"{path.name}: line {number}: not a bar: {','.join(row)} ({problem})") from None
    return writer.close()
