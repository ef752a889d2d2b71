"""Imports Databento's DBN files: trades, top-of-book quotes and statuses. Needs the extra `dbn`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Final

from holdover.model import Instrument
from holdover.recording.calendar import hours
from holdover.recording.dbn_decoder import DbnDecodingError, DbnRecord, decode_dbn
from holdover.recording.format import (
    HALT,
    TRADING,
    UNDEF_PRICE,
    Provenance,
    Recording,
    RecordingError,
    RecordingWriter,
)
from holdover.recording.store import digest_file, recording_path
from holdover.state import DECODE_ERRORS

_FIXED: Final = 1_000_000_000
"""DBN prices are fixed-point numbers in units of 10^-9."""


def import_dbn(source: Path, instrument: Instrument, trade_date: str, directory: Path) -> Recording:
    """Import the file of one instrument's day.

    Raises `RecordingError` when the file cannot be decoded, has no known records, or has a price between two
    ticks.
    """
    try:
        records = decode_dbn(source)
    except ImportError as error:
        raise RecordingError("DBN files need their decoder: pip install 'holdover[dbn]'") from error
    except (DbnDecodingError, *DECODE_ERRORS) as error:
        raise RecordingError(f"{source.name}: not a DBN file that can be decoded: {error}") from error
    provenance = Provenance(source=source.name, importer="dbn", inputs={source.name: digest_file(source)})
    meta = hours(instrument.calendar, trade_date).to_meta(instrument, trade_date, provenance)
    writer = RecordingWriter(recording_path(directory, instrument.venue, instrument.symbol, trade_date), meta)
    unit = int(_FIXED * Decimal(instrument.tick_size))
    if not unit:
        raise RecordingError(f"{source.name}: a tick of {instrument.tick_size} is finer than the prices of DBN")
    # Files are in the order of reception; recordings are in the order of the events.
    for number, record in enumerate(sorted(records, key=lambda record: record.ts_event)):
        _write_record(writer, record, unit, f"{source.name}: record {number}")
    if not len(writer):
        raise RecordingError(f"{source.name}: no trade, quote or status in it")
    return writer.close()


def _write_record(writer: RecordingWriter, record: DbnRecord, unit: int, location: str) -> None:
    if record.is_trade and record.price is not None and record.size is not None:
        writer.trade(record.ts_event, _to_ticks(record.price, unit, location), record.size)
    if record.top is not None:
        bid_px, bid_sz, ask_px, ask_sz = record.top
        bid_px = _to_ticks(bid_px, unit, location) if bid_sz else UNDEF_PRICE
        ask_px = _to_ticks(ask_px, unit, location) if ask_sz else UNDEF_PRICE
        writer.quote(record.ts_event, bid_px, bid_sz, ask_px, ask_sz)
    elif record.status:
        writer.status(record.ts_event, TRADING if record.status == "trading" else HALT)


def _to_ticks(price: int, unit: int, location: str) -> int:
    ticks, rest = divmod(price, unit)
    if rest:
        raise RecordingError(f"{location}: price {price / _FIXED} is no whole number of ticks of {unit / _FIXED}")
    return ticks
