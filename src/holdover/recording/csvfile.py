"""Import a CSV file with a declared mapping, a small TOML file beside it.

symbol = "XYZ"                 # and any other field of the instrument: tick_size, lot_size, calendar, ...
time = "timestamp"             # the column of the time
time_unit = "ms"               # s, ms, us, ns since the epoch, or iso
[trade]                        # columns of a trade; a row without a price is none
price = "px"
size = "qty"
[quote]                        # columns of a quote; both tables may stand
bid_px = "bid"
bid_sz = "bid_size"
ask_px = "ask"
ask_sz = "ask_size"
"""

from __future__ import annotations

import csv
import hashlib
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
from tqdm import tqdm

from holdover.model import Instrument
from holdover.recording.calendar import hours, neighbours
from holdover.recording.format import (
    UNDEF_PRICE,
    BadRecording,
    Meta,
    Provenance,
    Recording,
    RecordingWriter,
)
from holdover.recording.store import path_for

_UNITS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_OWN: Final = {"time", "time_unit", "trade", "quote"}


def import_csv(source: Path, mapping: Path, into: Path, *, quiet: bool = False) -> list[Recording]:
    """Import one file, a recording for each UTC day in it. Raises `BadRecording` naming file and line."""
    told = _mapping(mapping)
    instrument = _instrument(mapping, told)
    made: list[Recording] = []
    writer: RecordingWriter | None = None
    shown = tqdm(unit="row", disable=True if quiet else None, leave=False)
    for number, ts_ns, row in _rows(source, told):
        day = datetime.fromtimestamp(ts_ns // 1_000_000_000, UTC).date().isoformat()
        if writer is None or writer.meta.trade_date != day:
            if writer is not None:
                made.append(writer.close())
            writer = RecordingWriter(
                path_for(into, instrument.venue, instrument.symbol, day), _meta(source, instrument, day, ts_ns)
            )
        try:
            _write(writer, instrument, told, ts_ns, row)
        except (ValueError, KeyError, ArithmeticError) as problem:
            raise BadRecording(f"{source.name}: line {number}: {problem}") from problem
        shown.update(1)
    shown.close()
    if writer is None:
        raise BadRecording(f"{source.name}: no row in it")
    made.append(writer.close())
    return made


def _mapping(path: Path) -> dict[str, Any]:
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise BadRecording(f"{path}: cannot be read: {problem.strerror}") from problem
    except tomllib.TOMLDecodeError as problem:
        raise BadRecording(f"{path.name}: not a TOML file: {problem}") from problem
    missing = [name for name in ("symbol", "time", "time_unit") if name not in told]
    if missing or not (told.get("trade") or told.get("quote")):
        raise BadRecording(f"{path.name}: must say {', '.join(missing) or '[trade] or [quote]'}")
    if told["time_unit"] not in (*_UNITS, "iso"):
        raise BadRecording(f"{path.name}: time_unit is {told['time_unit']!r}, should be s, ms, us, ns or iso")
    return told


def _instrument(path: Path, told: dict[str, Any]) -> Instrument:
    try:
        return msgspec.convert({key: value for key, value in told.items() if key not in _OWN}, Instrument)
    except msgspec.ValidationError as problem:
        raise BadRecording(f"{path.name}: {problem}") from problem


def _rows(source: Path, told: dict[str, Any]) -> Iterator[tuple[int, int, dict[str, str]]]:
    try:
        with open(source, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    yield number, _time(row[told["time"]], told["time_unit"]), row
                except (KeyError, ValueError, TypeError) as problem:
                    raise BadRecording(f"{source.name}: line {number}: no time in it: {problem}") from problem
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise BadRecording(f"{source}: cannot be read: {problem}") from problem


def _time(text: str, unit: str) -> int:
    if unit != "iso":
        return int(Decimal(text) * _UNITS[unit])
    at = datetime.fromisoformat(text)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1_000


def _meta(source: Path, instrument: Instrument, day: str, first_ns: int) -> Meta:
    provenance = Provenance(
        source=source.name, importer="csv", inputs={source.name: hashlib.sha256(source.read_bytes()).hexdigest()}
    )
    try:
        kept = hours(instrument.calendar, day)
        span = (kept.open_ns, kept.close_ns, kept.previous_session, kept.next_session, kept.early_close)
    except BadRecording:
        before, after = neighbours(instrument.calendar, day)
        span = (first_ns, first_ns + 86_400_000_000_000, before, after, False)
    return Meta(
        instrument=instrument,
        trade_date=day,
        open_ns=span[0],
        close_ns=span[1],
        previous_session=span[2],
        next_session=span[3],
        early_close=span[4],
        provenance=provenance,
    )


def _write(
    writer: RecordingWriter, instrument: Instrument, told: dict[str, Any], ts_ns: int, row: dict[str, str]
) -> None:
    trade, quote = told.get("trade"), told.get("quote")
    if trade and row.get(trade["price"]):
        price, size = instrument.ticks(Decimal(row[trade["price"]])), instrument.lots(Decimal(row[trade["size"]]))
        if price <= 0 or size <= 0:
            raise BadRecording(f"a trade of {size} lots at {price} ticks is impossible")
        writer.trade(ts_ns, price, size)
    elif quote:
        bid_sz, ask_sz = (instrument.lots(Decimal(row.get(quote[key]) or "0")) for key in ("bid_sz", "ask_sz"))
        bid_px = instrument.ticks(Decimal(row[quote["bid_px"]])) if bid_sz else UNDEF_PRICE
        ask_px = instrument.ticks(Decimal(row[quote["ask_px"]])) if ask_sz else UNDEF_PRICE
        writer.quote(ts_ns, bid_px, bid_sz, ask_px, ask_sz)
