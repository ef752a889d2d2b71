"""Short recorded days for tests that play many: the first minutes of the bundled ones."""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdover.recording import RecordingStore, bundled
from holdover.recording.format import RecordingWriter
from holdover.recording.store import path_for


def short_days(into: Path, symbol: str = "BOLT", minutes: int = 6) -> RecordingStore:
    """A folder with both bundled days of an instrument, each closed after some minutes; the same bytes every time."""
    for whole in [one for one in bundled().list() if one.meta.instrument.symbol == symbol]:
        meta = whole.meta
        close_ns = meta.open_ns + minutes * 60_000_000_000
        blank = dict.fromkeys(("records", "body_bytes", "quotes", "trades", "statuses", "traded_qty", "first_ns"), 0)
        cut = msgspec.structs.replace(meta, close_ns=close_ns, early_close=False, last_ns=0, **blank)
        writer = RecordingWriter(path_for(into, "SIM", symbol, meta.trade_date), cut)
        for event in whole.events(meta.first_ns, close_ns):
            writer.raw(event)
        writer.close()
    return RecordingStore(into)
