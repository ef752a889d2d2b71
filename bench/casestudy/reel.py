"""A reel: recorded days drawn from a set and placed on consecutive sessions of the exchange's calendar.

A drawn day keeps its events, its length and its prices; only its date changes. Holidays, weekends and
daylight saving come from the calendar; the market within a day comes from the recording.
"""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from holdover.model import Instrument
from holdover.recording import Recording, RecordingError, RecordingStore
from holdover.recording.calendar import SessionHours, hours
from holdover.recording.format import BLOCK, RECORD, TRADING, WIDTH, Meta, Provenance, RecordingWriter
from holdover.recording.store import recording_path

YEAR: Final = "2025"
"""The calendar year in which every life and gate begins."""
_SECOND_NS: Final = 1_000_000_000


class Reel(RecordingStore):
    """As many consecutive sessions as `drawn` names recorded days, from `first` (a session's date) on.

    Reads like a folder of recordings. Raises `BadRecording` when a day is missing or the calendar is not installed.
    """

    def __init__(self, store: RecordingStore, symbols: Sequence[str], first: str, drawn: Sequence[str]) -> None:
        self.store, self.directory, self.problems = store, store.directory, []
        self._symbols = sorted(symbols)
        self._recordings: dict[tuple[str, str], Recording] = {}
        self._sessions: dict[str, tuple[str, SessionHours]] = {}
        calendar = store.get(self._symbols[0], drawn[0]).meta.instrument.calendar or "XNYS"
        date = first
        for source in drawn:
            session = hours(calendar, date)
            self._sessions[date] = source, session
            date = session.next_session

    def symbols(self) -> list[str]:
        """The instruments."""
        return list(self._symbols)

    def days(self, symbol: str) -> list[str]:
        """The sessions, in their order."""
        return list(self._sessions) if symbol in self._symbols else []

    def source(self, trade_date: str) -> str:
        """Which recorded day runs on a session."""
        return self._sessions[trade_date][0]

    def get(self, symbol: str, trade_date: str) -> Recording:
        """One session's recording. Raises `BadRecording` for another."""
        if trade_date not in self._sessions or symbol not in self._symbols:
            raise RecordingError(f"no recording of {symbol} on {trade_date} on this reel")
        key = (symbol, trade_date)
        if key not in self._recordings:
            source, session = self._sessions[trade_date]
            self._recordings[key] = _redated(self.store.get(symbol, source), trade_date, session)
        return self._recordings[key]


def _redated(source: Recording, trade_date: str, session: SessionHours) -> Recording:
    """A recorded day on another date."""
    shift_ns = session.open_ns - source.meta.open_ns
    whole = bytearray(_body(str(source.path), source.digest))
    times = memoryview(whole).cast("q")
    for index in range(0, len(times), WIDTH // 8):
        times[index] += shift_ns
    times.release()
    body = bytes(whole)
    meta = msgspec.structs.replace(
        source.meta,
        trade_date=trade_date,
        open_ns=session.open_ns,
        close_ns=source.meta.close_ns + shift_ns,
        previous_session=session.previous_session,
        next_session=session.next_session,
        first_ns=source.meta.first_ns + shift_ns,
        last_ns=source.meta.last_ns + shift_ns,
    )
    step = BLOCK * WIDTH
    sums = tuple(zlib.crc32(body[place : place + step]) for place in range(0, len(body), step))
    digest = hashlib.sha256(f"{source.digest} on {trade_date}".encode() + struct.pack("<q", shift_ns)).hexdigest()
    return Recording(source.path, meta, digest, body, 0, sums)


@lru_cache(maxsize=32)
def _body(path: str, digest: str) -> bytes:
    return b"".join(RECORD.pack(*event) for event in Recording.open(path).events())


def draw_reel(store: RecordingStore, symbols: Sequence[str], rng: random.Random, count: int) -> Reel:
    """A reel of `count` sessions that begins anywhere in the year, its days drawn with replacement."""
    days = store.days(symbols[0])
    calendar = store.get(symbols[0], days[0]).meta.instrument.calendar or "XNYS"
    date = f"{YEAR}-01-02"
    for _ in range(rng.randrange(240)):
        date = hours(calendar, date).next_session
    return Reel(store, symbols, date, [rng.choice(days) for _ in range(count)])


def make_ordered_reel(store: RecordingStore, symbols: Sequence[str], count: int) -> Reel:
    """A reel of the first recorded days in their order, going round: the days of a gate."""
    days = store.days(symbols[0])
    return Reel(store, symbols, f"{YEAR}-01-02", [days[number % len(days)] for number in range(count)])


def write_mock_store(directory: Path, instrument: Instrument) -> RecordingStore:
    """Two days of a mock market, as a test without recordings would have it: always there, always enough.

    A quote every ten seconds, 10,000 lots on either side, a spread of two ticks, a mid that walks by a tick; a print of
    100 lots at a touch every thirty seconds. No burst, no gap, no halt, no odd lot, no crossed book.
    """
    rng = random.Random(0)
    for day in ("2025-01-02", "2025-01-03"):
        session = hours(instrument.calendar or "XNYS", day)
        meta = Meta(
            instrument=instrument,
            trade_date=day,
            open_ns=session.open_ns,
            close_ns=session.close_ns,
            previous_session=session.previous_session,
            next_session=session.next_session,
            simulated=True,
            provenance=Provenance(source="a mock market, made by bench/casestudy"),
        )
        writer = RecordingWriter(recording_path(directory, instrument.venue or "MOCK", instrument.symbol, day), meta)
        mid, now_ns = 10_000, session.open_ns - 60 * _SECOND_NS
        tick = max(instrument.price_increment, 1)
        writer.quote(now_ns, mid - tick, 10_000, mid + tick, 10_000)
        writer.status(session.open_ns, TRADING)
        for step in range((session.close_ns - session.open_ns) // (10 * _SECOND_NS)):
            now_ns = session.open_ns + step * 10 * _SECOND_NS
            mid = max(mid + rng.choice((-1, 0, 0, 1)) * tick, 100 * tick)
            writer.quote(now_ns, mid - tick, 10_000, mid + tick, 10_000)
            if step % 3 == 0:
                writer.trade(now_ns, mid + rng.choice((-1, 1)) * tick, 100)
        writer.close()
    return RecordingStore(directory)


__all__ = ["Reel", "draw_reel", "write_mock_store", "make_ordered_reel"]
