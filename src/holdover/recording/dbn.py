"""Import Databento's DBN files: trades, top-of-book quotes, statuses. Needs the extra `dbn`."""

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
    BadRecording,
    Meta,
    Provenance,
    Recording,
    RecordingWriter,
)
from holdover.recording.store import path_for

_FIXED: Final = 1_000_000_000
"""DBN prices are fixed-point in units of 10^-9."""


def import_dbn(source: Path, instrument: Instrument, trade_date: str, into: Path) -> Recording:
    """Import one file of one instrument's day.

    Raises `BadRecording` when the file cannot be decoded, holds nothing that we know, or a price is no whole tick.
    """
    try:
        import databento_dbn
    except ImportError as problem:
        raise BadRecording("DBN files need their decoder: pip install 'holdover[dbn]'") from problem
    data = source.read_bytes()
    decoder = databento_dbn.DBNDecoder()
    try:
        decoder.write(data)
        records: list[Any] = decoder.decode()
    except Exception as problem:  # the decoder raises its own kinds
        raise BadRecording(f"{source.name}: not a DBN file that can be decoded: {problem}") from problem
    kept = hours(instrument.calendar, trade_date)
    meta = Meta(
        instrument=instrument,
        trade_date=trade_date,
        open_ns=kept.open_ns,
        close_ns=kept.close_ns,
        previous_session=kept.previous_session,
        next_session=kept.next_session,
        early_close=kept.early_close,
        provenance=Provenance(
            source=source.name, importer="dbn", inputs={source.name: hashlib.sha256(data).hexdigest()}
        ),
    )
    writer = RecordingWriter(path_for(into, instrument.venue, instrument.symbol, trade_date), meta)
    unit = int(_FIXED * _decimal(instrument.tick_size))
    # Files are in the order of reception; the records are wanted in the order of the events.
    told = sorted((one for one in records if hasattr(one, "ts_event")), key=lambda one: int(one.ts_event))
    for number, record in enumerate(told):
        _write(writer, record, unit, f"{source.name}: record {number}")
    if not len(writer):
        raise BadRecording(f"{source.name}: no trade, quote or status in it")
    return writer.close()


def _write(writer: RecordingWriter, record: Any, unit: int, where: str) -> None:
    levels = getattr(record, "levels", None)
    price = getattr(record, "price", None)
    if levels:
        top = levels[0]
        bid_sz, ask_sz = int(top.bid_sz), int(top.ask_sz)
        bid_px = _ticks(top.bid_px, unit, where) if bid_sz else UNDEF_PRICE
        ask_px = _ticks(top.ask_px, unit, where) if ask_sz else UNDEF_PRICE
        if str(getattr(record, "action", "")) in ("T", "Action.TRADE", "Trade"):
            writer.trade(int(record.ts_event), _ticks(price, unit, where), int(record.size))
        writer.quote(int(record.ts_event), bid_px, bid_sz, ask_px, ask_sz)
    elif price is not None and hasattr(record, "size"):
        writer.trade(int(record.ts_event), _ticks(price, unit, where), int(record.size))
    elif hasattr(record, "is_trading"):
        writer.status(int(record.ts_event), TRADING if str(record.is_trading) in ("Y", "True") else HALT)


def _ticks(price: Any, unit: int, where: str) -> int:
    ticks, rest = divmod(int(price), unit)
    if rest:
        raise BadRecording(f"{where}: price {int(price) / _FIXED} is no whole number of ticks of {unit / _FIXED}")
    return ticks


def _decimal(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)
