"""Recorded market days: import, store, verify, select and read."""

from holdover.recording.format import (
    CLOSED,
    DISABLED,
    HALT,
    QUOTE,
    STATUS,
    TRADE,
    TRADING,
    UNDEF_PRICE,
    MarketEvent,
    Meta,
    Provenance,
    Recording,
    RecordingError,
    RecordingProblem,
    RecordingWriter,
)
from holdover.recording.store import RecordingStore, bundled_store, recording_path

__all__ = [
    "CLOSED",
    "DISABLED",
    "HALT",
    "QUOTE",
    "STATUS",
    "TRADE",
    "TRADING",
    "UNDEF_PRICE",
    "RecordingError",
    "MarketEvent",
    "Meta",
    "RecordingProblem",
    "Provenance",
    "Recording",
    "RecordingStore",
    "RecordingWriter",
    "bundled_store",
    "recording_path",
]
