"""Imports a CSV file with a mapping in a small TOML file.

symbol = "XYZ"                 # and any other field of the instrument: tick_size, lot_size, calendar, ...
time = "timestamp"             # the column of the time
time_unit = "ms"               # s, ms, us, ns since the epoch, or iso
[trade]                        # columns of a trade; a row without a price is not a trade
price = "px"
size = "qty"
[quote]                        # columns of a quote; both tables may be present
bid_px = "bid"
bid_sz = "bid_size"
ask_px = "ask"
ask_sz = "ask_size"
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
from tqdm import tqdm

from holdover.model import Instrument
from holdover.recording.calendar import hours_or_span
from holdover.recording.format import (
    UNDEF_PRICE,
    Meta,
    Provenance,
    Recording,
    RecordingError,
    RecordingWriter,
)
from holdover.recording.store import digest_file, recording_path
from holdover.runtime.config_file import read_toml

_UNITS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_MAPPING_KEYS: Final = {"time", "time_unit", "trade", "quote"}


def import_csv(source: Path, mapping: Path, directory: Path, *, quiet: bool = False) -> list[Recording]:
    """Import one file; write one recording for each UTC day in it.

    Returns the recordings. Raises `RecordingError`, which names file and line.
    """
    column_map = _read_mapping(mapping)
    instrument = _read_instrument(mapping, column_map)
    recordings: list[Recording] = []
    writer: RecordingWriter | None = None
    shown = tqdm(unit="row", disable=True if quiet else None, leave=False)
    for number, ts_ns, row in _read_rows(source, column_map):
        try:
            day = datetime.fromtimestamp(ts_ns // 1_000_000_000, UTC).date().isoformat()
            if writer is None or writer.meta.trade_date != day:
                if writer is not None:
                    recordings.append(writer.close())
                writer = RecordingWriter(
                    recording_path(directory, instrument.venue, instrument.symbol, day),
                    _build_meta(source, instrument, day, ts_ns),
                )
            _write_row(writer, instrument, column_map, ts_ns, row)
        except (ValueError, KeyError, ArithmeticError, TypeError) as error:
            raise RecordingError(f"{source.name}: line {number}: {error}") from error
        shown.update(1)
    shown.close()
    if writer is None:
        raise RecordingError(f"{source.name}: no row in it")
    recordings.append(writer.close())
    return recordings


def _read_mapping(path: Path) -> dict[str, Any]:
    column_map = read_toml(path, RecordingError)
    missing = [name for name in ("symbol", "time", "time_unit") if name not in column_map]
    if missing or not (column_map.get("trade") or column_map.get("quote")):
        raise RecordingError(f"{path.name}: must say {', '.join(missing) or '[trade] or [quote]'}")
    for name, columns in (("trade", ("price", "size")), ("quote", ("bid_px", "bid_sz", "ask_px", "ask_sz"))):
        table = column_map.get(name)
        if table is None:
            continue
        if not isinstance(table, dict) or any(not isinstance(table.get(column), str) for column in columns):
            raise RecordingError(f"{path.name}: [{name}] must name the columns {', '.join(columns)}")
    if column_map["time_unit"] not in (*_UNITS, "iso"):
        raise RecordingError(f"{path.name}: time_unit is {column_map['time_unit']!r}, should be s, ms, us, ns or iso")
    return column_map


def _read_instrument(path: Path, column_map: dict[str, Any]) -> Instrument:
    try:
        return msgspec.convert(
            {key: value for key, value in column_map.items() if key not in _MAPPING_KEYS}, Instrument
        )
    except msgspec.ValidationError as error:
        raise RecordingError(f"{path.name}: {error}") from error


def _read_rows(source: Path, column_map: dict[str, Any]) -> Iterator[tuple[int, int, dict[str, str]]]:
    try:
        with open(source, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    yield number, _parse_time(row[column_map["time"]], column_map["time_unit"]), row
                except (KeyError, ValueError, TypeError, ArithmeticError) as error:
                    raise RecordingError(f"{source.name}: line {number}: no time in it: {error}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{source}: cannot be read: {error}") from error


def _parse_time(text: str, unit: str) -> int:
    if unit != "iso":
        number = Decimal(text) * _UNITS[unit]
        if not number.is_finite() or not 0 <= number < 2**63:
            raise ValueError(f"the time {text[:40]} is none of a recording")
        return int(number)
    at = datetime.fromisoformat(text)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1_000


def _build_meta(source: Path, instrument: Instrument, day: str, first_ns: int) -> Meta:
    provenance = Provenance(source=source.name, importer="csv", inputs={source.name: digest_file(source)})
    session_hours = hours_or_span(instrument.calendar, day, first_ns, first_ns + 86_400_000_000_000)
    return session_hours.to_meta(instrument, day, provenance)


def _write_row(
    writer: RecordingWriter, instrument: Instrument, column_map: dict[str, Any], ts_ns: int, row: dict[str, str]
) -> None:
    trade, quote = column_map.get("trade"), column_map.get("quote")
    if trade and row.get(trade["price"]):
        price, size = instrument.ticks(Decimal(row[trade["price"]])), instrument.lots(Decimal(row[trade["size"]]))
        if price <= 0 or size <= 0:
            raise RecordingError(f"a trade of {size} lots at {price} ticks is impossible")
        writer.trade(ts_ns, price, size)
    elif quote:
        bid_sz, ask_sz = (instrument.lots(Decimal(row.get(quote[key]) or "0")) for key in ("bid_sz", "ask_sz"))
        bid_px = instrument.ticks(Decimal(row[quote["bid_px"]])) if bid_sz else UNDEF_PRICE
        ask_px = instrument.ticks(Decimal(row[quote["ask_px"]])) if ask_sz else UNDEF_PRICE
        writer.quote(ts_ns, bid_px, bid_sz, ask_px, ask_sz)
