"""Recorded market days: import, store, verify, choose, read."""

from holdover.recording.format import (
    CLOSED,
    DISABLED,
    HALT,
    QUOTE,
    STATUS,
    TRADE,
    TRADING,
    UNDEF_PRICE,
    BadRecording,
    MarketEvent,
    Meta,
    Problem,
    Provenance,
    Recording,
    RecordingWriter,
)
from holdover.recording.store import RecordingStore, bundled, path_for

__all__ = [
    "CLOSED",
    "DISABLED",
    "HALT",
    "QUOTE",
    "STATUS",
    "TRADE",
    "TRADING",
    "UNDEF_PRICE",
    "BadRecording",
    "MarketEvent",
    "Meta",
    "Problem",
    "Provenance",
    "Recording",
    "RecordingStore",
    "RecordingWriter",
    "bundled",
    "path_for",
]
