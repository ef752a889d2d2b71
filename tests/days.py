"""Short recorded days, for tests that play many days."""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdover.recording import RecordingStore, bundled_store
from holdover.recording.format import RecordingWriter
from holdover.recording.store import recording_path


def write_short_days(directory: Path, symbol: str = "BOLT", minutes: int = 6) -> RecordingStore:
    """Write both bundled days of an instrument, each cut after `minutes`; the bytes are always the same."""
    for recording in [
        candidate for candidate in bundled_store().list_recordings() if candidate.meta.instrument.symbol == symbol
    ]:
        meta = recording.meta
        close_ns = meta.open_ns + minutes * 60_000_000_000
        blank = dict.fromkeys(("records", "body_bytes", "quotes", "trades", "statuses", "traded_qty", "first_ns"), 0)
        cut = msgspec.structs.replace(meta, close_ns=close_ns, early_close=False, last_ns=0, **blank)
        writer = RecordingWriter(recording_path(directory, "SIM", symbol, meta.trade_date), cut)
        for event in recording.events(meta.first_ns, close_ns):
            writer.copy_event(event)
        writer.close()
    return RecordingStore(directory)
