"""Imports Databento's DBN files: trades, top-of-book quotes and statuses. Needs the extra `dbn`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from holdover.model import Instrument
from holdover.recording.calendar import hours
from holdover.recording.format import (
    HALT,
    TRADING,
    UNDEF_PRICE,
    Provenance,
    Recording,
    RecordingError,
    RecordingWriter,
)
from holdover.recording.store import recording_path

_FIXED: Final = 1_000_000_000
"""DBN prices are fixed-point numbers in units of 10^-9."""


def import_dbn(source: Path, instrument: Instrument, trade_date: str, directory: Path) -> Recording:
    """Import the file of one instrument's day.

    Raises `RecordingError` when the file cannot be decoded, has no known records, or has a price between two
    ticks.
    """
    try:
        import databento_dbn
    except ImportError as error:
        raise RecordingError("DBN files need their decoder: pip install 'holdover[dbn]'") from error
    data = source.read_bytes()
    decoder = databento_dbn.DBNDecoder()
    try:
        decoder.write(data)
        records: list[Any] = decoder.decode()
    except Exception as error:  # the decoder raises its own exception types
        raise RecordingError(f"{source.name}: not a DBN file that can be decoded: {error}") from error
    provenance = Provenance(source=source.name, importer="dbn", inputs={source.name: hashlib.sha256(data).hexdigest()})
    meta = hours(instrument.calendar, trade_date).to_meta(instrument, trade_date, provenance)
    writer = RecordingWriter(recording_path(directory, instrument.venue, instrument.symbol, trade_date), meta)
    unit = int(_FIXED * _to_decimal(instrument.tick_size))
    # Files are in the order of reception; recordings are in the order of the events.
    ordered_records = sorted(
        (record for record in records if hasattr(record, "ts_event")), key=lambda record: int(record.ts_event)
    )
    for number, record in enumerate(ordered_records):
        _write_record(writer, record, unit, f"{source.name}: record {number}")
    if not len(writer):
        raise RecordingError(f"{source.name}: no trade, quote or status in it")
    return writer.close()


def _write_record(writer: RecordingWriter, record: Any, unit: int, location: str) -> None:
    levels = getattr(record, "levels", None)
    price = getattr(record, "price", None)
    if levels:
        top = levels[0]
        bid_sz, ask_sz = int(top.bid_sz), int(top.ask_sz)
        bid_px = _to_ticks(top.bid_px, unit, location) if bid_sz else UNDEF_PRICE
        ask_px = _to_ticks(top.ask_px, unit, location) if ask_sz else UNDEF_PRICE
        if str(getattr(record, "action", "")) in ("T", "Action.TRADE", "Trade"):
            writer.trade(int(record.ts_event), _to_ticks(price, unit, location), int(record.size))
        writer.quote(int(record.ts_event), bid_px, bid_sz, ask_px, ask_sz)
    elif price is not None and hasattr(record, "size"):
        writer.trade(int(record.ts_event), _to_ticks(price, unit, location), int(record.size))
    elif hasattr(record, "is_trading"):
        writer.status(int(record.ts_event), TRADING if str(record.is_trading) in ("Y", "True") else HALT)


def _to_ticks(price: Any, unit: int, location: str) -> int:
    ticks, rest = divmod(int(price), unit)
    if rest:
        raise RecordingError(f"{location}: price {int(price) / _FIXED} is no whole number of ticks of {unit / _FIXED}")
    return ticks


def _to_decimal(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)
