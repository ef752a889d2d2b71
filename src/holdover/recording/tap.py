"""Records a live market: a crash-safe `Recorder` that any feed handler can call, with one file a day.

Synced data survives a kill. The running day is a `.part` file of blocks, each with its length and checksum,
that are appended and synced. When it is opened again, everything after the last complete block is cut off.
`seal_day` turns it into a recording.

    {"ts_event": 1732717800000000000, "bid_px": "9.99", "bid_sz": "100", "ask_px": "10.01", "ask_sz": "300"}
    {"ts_event": 1732717800000100000, "price": "10.01", "size": "50"}
    {"ts_event": 1732717800000200000, "status": "halt"}
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from holdover.model import Instrument, InstrumentUnitError
from holdover.recording.calendar import SessionHours, hours_or_span
from holdover.recording.format import (
    BLOCK,
    CLOSED,
    DISABLED,
    HALT,
    QUOTE,
    RECORD,
    STATUS,
    TRADE,
    TRADING,
    UNDEF_PRICE,
    WIDTH,
    MarketEvent,
    Provenance,
    Recording,
    RecordingError,
    RecordingWriter,
    check_event_range,
)
from holdover.recording.store import recording_path
from holdover.runtime.config_file import read_toml
from holdover.state import DECODE_ERRORS

_FRAME: Final = struct.Struct("<II")
STATUSES: Final = {"open": TRADING, "halt": HALT, "disabled": DISABLED, "closed": CLOSED}


def parse_market_event(fields: dict[str, Any], instrument: Instrument) -> MarketEvent:
    """Build an event from a dictionary of decimal strings. A trade or status does not carry the quote of its time.

    Raises `RecordingError` when the dictionary is not a market event.
    """

    def ticks(price: Any) -> int:
        return instrument.ticks(Decimal(str(price)))

    try:
        ts_ns = int(fields["ts_event"])
        if "status" in fields:
            return ts_ns, 0, STATUS, STATUSES[fields["status"]], 0, 0, 0, UNDEF_PRICE, UNDEF_PRICE, 0, 0
        if "price" in fields:
            price, size = ticks(fields["price"]), instrument.lots(Decimal(str(fields["size"])))
            return ts_ns, 0, TRADE, 0, 0, price, size, UNDEF_PRICE, UNDEF_PRICE, 0, 0
        if "bid_px" not in fields and "ask_px" not in fields:
            raise RecordingError(f"not a market event: {fields}; expected a price, bid_px and ask_px, or a status")
        bid_sz, ask_sz = (instrument.lots(Decimal(str(fields.get(key) or "0"))) for key in ("bid_sz", "ask_sz"))
        bid_px = ticks(fields["bid_px"]) if bid_sz else UNDEF_PRICE
        ask_px = ticks(fields["ask_px"]) if ask_sz else UNDEF_PRICE
        return ts_ns, 0, QUOTE, 0, 0, 0, 0, bid_px, ask_px, bid_sz, ask_sz
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(f"not a market event: {fields} ({type(error).__name__} {error})") from error


def read_instrument(path: Path) -> Instrument:
    """Read an instrument from a TOML file. Raises `RecordingError` when the file is not an instrument."""
    try:
        return msgspec.convert(read_toml(path, RecordingError), Instrument)
    except (*DECODE_ERRORS, InstrumentUnitError) as error:
        raise RecordingError(f"{path.name}: not an instrument: {error}") from error


class Recorder:
    """Records quotes, trades and statuses of one instrument as they arrive; ticks, lots, ns.

    It writes and syncs a block every `sync_events` events; `flush` does it at once. A new UTC day begins a new
    file and seals the previous one. Raises `RecordingError` for a time before the last one.
    """

    def __init__(self, directory: Path, instrument: Instrument, *, sync_events: int = 256) -> None:
        self.directory, self.instrument, self.sync_events = directory, instrument, sync_events
        self._file: IO[bytes] | None = None
        self._day = ""
        self._block = bytearray()
        self._last_ns = 0
        self._top_of_book = (UNDEF_PRICE, UNDEF_PRICE, 0, 0)

    def quote(self, ts_ns: int, bid_px: int, bid_sz: int, ask_px: int, ask_sz: int) -> None:
        """Record a new best bid and offer."""
        self._top_of_book = (bid_px, ask_px, bid_sz, ask_sz)
        self._add(ts_ns, QUOTE, 0, 0, 0)

    def trade(self, ts_ns: int, price: int, size: int) -> None:
        """Record a trade."""
        self._add(ts_ns, TRADE, 0, price, size)

    def status(self, ts_ns: int, status: int) -> None:
        """Record a status: the book opens, halts, is disabled or closes."""
        self._add(ts_ns, STATUS, status, 0, 0)

    def record_event(self, fields: dict[str, Any]) -> None:
        """Record an event given as a dictionary of decimal strings.

        Raises `RecordingError` when the dictionary is not a market event.
        """
        ts_ns, _, rtype, flags, _, price, size, bid_px, ask_px, bid_sz, ask_sz = parse_market_event(
            fields, self.instrument
        )
        if rtype == STATUS:
            self.status(ts_ns, flags)
        elif rtype == TRADE:
            self.trade(ts_ns, price, size)
        else:
            self.quote(ts_ns, bid_px, bid_sz, ask_px, ask_sz)

    def flush(self) -> None:
        """Write and sync the waiting events."""
        if self._block and self._file is not None:
            body = bytes(self._block)
            self._file.write(_FRAME.pack(len(body), zlib.crc32(body)) + body)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._block.clear()

    def close(self) -> Recording | None:
        """Flush and seal the running day; return its recording, or None."""
        self.flush()
        if self._file is None:
            return None
        self._file.close()
        self._file = None
        day, self._day = self._day, ""  # a later event of this day opens its file again
        return seal_day(self._part(day), self.instrument, day)

    def _add(self, ts_ns: int, rtype: int, flags: int, price: int, size: int) -> None:
        if ts_ns < self._last_ns:
            raise RecordingError(f"time goes back by {self._last_ns - ts_ns} ns at {ts_ns}")
        check_event_range(ts_ns, price, size, *self._top_of_book)
        day = datetime.fromtimestamp(ts_ns // 1_000_000_000, UTC).date().isoformat()
        if day != self._day:
            self.close()
            self._open(day)
        self._last_ns = ts_ns
        self._block += RECORD.pack(ts_ns, 0, rtype, flags, 0, price, size, *self._top_of_book)
        if len(self._block) >= self.sync_events * WIDTH:
            self.flush()

    def _open(self, day: str) -> None:
        self._day = day
        part = self._part(day)
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.with_suffix(".hrec").exists() and not part.exists():
            _reopen_day(part)
        whole_bytes, records = _recover_part(part) if part.exists() else (0, b"")
        if records:
            self._last_ns = max(self._last_ns, RECORD.unpack_from(records, len(records) - WIDTH)[0])
        self._file = open(part, "ab")  # noqa: SIM115 - lives as long as the day
        self._file.truncate(whole_bytes)

    def _part(self, day: str) -> Path:
        return recording_path(self.directory, self.instrument.venue, self.instrument.symbol, day).with_suffix(".part")


def _recover_part(part: Path) -> tuple[int, bytes]:
    """Return (number of bytes in complete blocks, the records in them)."""
    return _parse_blocks(part.read_bytes())


def _parse_blocks(data: bytes) -> tuple[int, bytes]:
    offset, records = 0, bytearray()
    while offset + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, offset)
        body = data[offset + _FRAME.size : offset + _FRAME.size + length]
        if len(body) < length or length % WIDTH or zlib.crc32(body) != checksum:
            break
        records += body
        offset += _FRAME.size + length
    return offset, bytes(records)


class TapReader:
    """Follows the output of a `Recorder` in `directory`: complete records, day after day, sealed or not.

    `offset` is the day and the number of its records that were returned; a new reader with that offset continues
    there. A part file takes precedence over the sealed file of its day: it has all its records, and perhaps more.
    Raises `RecordingError` for a damaged sealed day.
    """

    def __init__(self, directory: Path, instrument: Instrument, offset: tuple[str, int] = ("", 0)) -> None:
        self._folder = recording_path(directory, instrument.venue, instrument.symbol, "0").parent
        self.offset = offset
        self._finished_day = ("", 0, 0)
        """The sealed day that was returned completely: its day, inode and modification time."""
        self._part_state = ("", 0, 0, -1)
        """The part file that is being read: its day, the bytes read, the records in them, and its size at that time."""

    def read_events(self, limit: int = 20_000) -> list[MarketEvent]:
        """Return the new records, at most about `limit`."""
        return [event for event, _ in self.read_events_with_offsets(limit)]

    def read_events_with_offsets(self, limit: int = 20_000) -> list[tuple[MarketEvent, tuple[str, int]]]:
        """Return the new records, each with the offset after it; at most about `limit`."""
        records: list[tuple[MarketEvent, tuple[str, int]]] = []
        for day in self._days():
            count = self.offset[1] if day == self.offset[0] else 0
            new_events = self._new_events(day, count, limit)
            records += [(event, (day, number)) for number, event in enumerate(new_events, count + 1)]
            if new_events:
                self.offset = records[-1][1]
            if len(records) >= limit:
                break
        return records

    def skip_to_end(self) -> None:
        """Skip every record that is available now."""
        while self.read_events():
            pass

    def _days(self) -> list[str]:
        """Return the day that is being read and the days after it."""
        days = {path.stem for path in self._folder.glob("*") if path.suffix in (".part", ".hrec")}
        return sorted(day for day in days if day >= self.offset[0])

    def _new_events(self, day: str, count: int, limit: int) -> list[MarketEvent]:
        with contextlib.suppress(FileNotFoundError):  # the day was sealed, perhaps just now
            return self._new_events_of_part(day, count, limit)
        path = self._folder / f"{day}.hrec"
        try:
            file_stat = path.stat()
        except FileNotFoundError:
            return []
        sealed_day = (day, file_stat.st_ino, file_stat.st_mtime_ns)
        if sealed_day == self._finished_day:
            return []
        recording = Recording.open(path)
        if count + limit >= len(recording):
            self._finished_day = sealed_day
        return [recording.event_at(number) for number in range(count, min(len(recording), count + limit))]

    def _new_events_of_part(self, day: str, count: int, limit: int) -> list[MarketEvent]:
        _, offset, counted_events, known_size = self._part_state if self._part_state[0] == day else (day, 0, 0, -1)
        events: list[MarketEvent] = []
        is_first = True
        with open(self._folder / f"{day}.part", "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == known_size:
                return []
            while len(events) < limit and offset < size:
                whole_bytes, records = _parse_blocks_at(file, offset, (limit + BLOCK) * WIDTH)
                if (
                    not whole_bytes and is_first
                ):  # an incomplete block; or another file, and the day starts from the beginning
                    offset = counted_events = 0
                    whole_bytes, records = _parse_blocks_at(file, 0, size)
                is_first = False
                if not whole_bytes:
                    break
                events += RECORD.iter_unpack(records[max(count + len(events) - counted_events, 0) * WIDTH :])
                offset, counted_events = offset + whole_bytes, counted_events + len(records) // WIDTH
        self._part_state = (day, offset, counted_events, size if len(events) < limit else -1)
        return events


def _parse_blocks_at(file: IO[bytes], offset: int, limit: int) -> tuple[int, bytes]:
    """Return the complete blocks in about `limit` bytes from an offset, or in the rest if those have none."""
    file.seek(offset)
    result = _parse_blocks(file.read(limit))
    if not result[0]:
        file.seek(offset)
        result = _parse_blocks(file.read())
    return result


def _reopen_day(part: Path) -> None:
    """Turn a sealed day back into a part file, because more events of that day have arrived."""
    recording = Recording.open(part.with_suffix(".hrec"))
    events = [recording.event_at(number) for number in range(len(recording))]
    new = part.with_suffix(".opened")
    with open(new, "wb") as file:
        for offset in range(0, len(events), BLOCK):
            body = b"".join(RECORD.pack(*event) for event in events[offset : offset + BLOCK])
            file.write(_FRAME.pack(len(body), zlib.crc32(body)) + body)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, part)


def seal_day(part: Path, instrument: Instrument, day: str) -> Recording | None:
    """Turn a day's part file into a recording and delete it. Returns None when it has no complete block."""
    _, records = _recover_part(part)
    if not records:
        return None
    first = RECORD.unpack_from(records, 0)[0]
    last = RECORD.unpack_from(records, len(records) - WIDTH)[0]
    try:
        session_hours = hours_or_span(instrument.calendar, day, first, last + 1)
    except RecordingError:
        session_hours = SessionHours(first, last + 1, "", "", False)  # no calendar is installed: no neighbours
    meta = session_hours.to_meta(instrument, day, Provenance(source="recorded live", importer="record"))
    writer = RecordingWriter(part.with_suffix(".hrec"), meta)
    for event in RECORD.iter_unpack(records):
        writer.copy_event(event)
    recording = writer.close()
    part.unlink()
    return recording


def record_lines(lines: Iterable[bytes], recorder: Recorder) -> int:
    """Record newline-delimited JSON; return the number of events. Raises `RecordingError`, which names the line."""
    count = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            recorder.record_event(msgspec.json.decode(line))
        except (*DECODE_ERRORS, RecordingError) as error:
            recorder.flush()
            raise RecordingError(f"line {number}: {error}") from error
        count += 1
    return count
