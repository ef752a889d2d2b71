"""Record a live market: a `Recorder` to call from any feed handler, crash-safe, one file a day.

What has been synced survives a kill: the running day is a `.part` file of blocks, each with its length and checksum,
appended and synced; when it is opened again, what follows the last whole block is cut off. `seal` turns it into a
recording.

    {"ts_event": 1732717800000000000, "bid_px": "9.99", "bid_sz": "100", "ask_px": "10.01", "ask_sz": "300"}
    {"ts_event": 1732717800000100000, "price": "10.01", "size": "50"}
    {"ts_event": 1732717800000200000, "status": "halt"}
"""

from __future__ import annotations

import contextlib
import os
import struct
import tomllib
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from holdover.model import Instrument, Unfit
from holdover.recording.calendar import hours, neighbours
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
    BadRecording,
    MarketEvent,
    Meta,
    Provenance,
    Recording,
    RecordingWriter,
)
from holdover.recording.store import path_for

_FRAME: Final = struct.Struct("<II")
STATUSES: Final = {"open": TRADING, "halt": HALT, "disabled": DISABLED, "closed": CLOSED}


def market_event(told: dict[str, Any], instrument: Instrument) -> MarketEvent:
    """One event of a dictionary of decimal strings; a trade or a status without the quote that stood then.

    Raises `BadRecording` when it is none.
    """

    def ticks(price: Any) -> int:
        return instrument.ticks(Decimal(str(price)))

    try:
        ts_ns = int(told["ts_event"])
        if "status" in told:
            return ts_ns, 0, STATUS, STATUSES[told["status"]], 0, 0, 0, UNDEF_PRICE, UNDEF_PRICE, 0, 0
        if "price" in told:
            price, size = ticks(told["price"]), instrument.lots(Decimal(str(told["size"])))
            return ts_ns, 0, TRADE, 0, 0, price, size, UNDEF_PRICE, UNDEF_PRICE, 0, 0
        if "bid_px" not in told and "ask_px" not in told:
            raise BadRecording(f"not a market event: {told}; expected a price, bid_px and ask_px, or a status")
        bid_sz, ask_sz = (instrument.lots(Decimal(str(told.get(key) or "0"))) for key in ("bid_sz", "ask_sz"))
        bid_px = ticks(told["bid_px"]) if bid_sz else UNDEF_PRICE
        ask_px = ticks(told["ask_px"]) if ask_sz else UNDEF_PRICE
        return ts_ns, 0, QUOTE, 0, 0, 0, 0, bid_px, ask_px, bid_sz, ask_sz
    except (KeyError, TypeError, ValueError, ArithmeticError) as problem:
        if isinstance(problem, BadRecording):
            raise
        raise BadRecording(f"not a market event: {told} ({type(problem).__name__} {problem})") from problem


def read_instrument(path: Path) -> Instrument:
    """An instrument in a TOML file. Raises `BadRecording` for what is none."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Instrument)
    except OSError as problem:
        raise BadRecording(f"{path}: cannot be read: {problem.strerror}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, Unfit) as problem:
        raise BadRecording(f"{path.name}: not an instrument: {problem}") from problem


class Recorder:
    """Takes quotes, trades and statuses of one instrument as they come; ticks, lots, ns.

    A block is written and synced every `every` events; `flush` does it at once. A new UTC day begins a new file, and
    the old one is sealed. Raises `BadRecording` for a time that goes back.
    """

    def __init__(self, directory: Path, instrument: Instrument, *, every: int = 256) -> None:
        self.directory, self.instrument, self.every = directory, instrument, every
        self._file: IO[bytes] | None = None
        self._day = ""
        self._block = bytearray()
        self._last_ns = 0
        self._top = (UNDEF_PRICE, UNDEF_PRICE, 0, 0)

    def quote(self, ts_ns: int, bid_px: int, bid_sz: int, ask_px: int, ask_sz: int) -> None:
        """The best bid and offer from now on."""
        self._top = (bid_px, ask_px, bid_sz, ask_sz)
        self._add(ts_ns, QUOTE, 0, 0, 0)

    def trade(self, ts_ns: int, price: int, size: int) -> None:
        """A trade."""
        self._add(ts_ns, TRADE, 0, price, size)

    def status(self, ts_ns: int, status: int) -> None:
        """The book opens, halts, is disabled or closes."""
        self._add(ts_ns, STATUS, status, 0, 0)

    def say(self, told: dict[str, Any]) -> None:
        """One event as a dictionary of decimal strings. Raises `BadRecording` when it is none."""
        ts_ns, _, rtype, flags, _, price, size, bid_px, ask_px, bid_sz, ask_sz = market_event(told, self.instrument)
        if rtype == STATUS:
            self.status(ts_ns, flags)
        elif rtype == TRADE:
            self.trade(ts_ns, price, size)
        else:
            self.quote(ts_ns, bid_px, bid_sz, ask_px, ask_sz)

    def flush(self) -> None:
        """Write and sync what waits."""
        if self._block and self._file is not None:
            body = bytes(self._block)
            self._file.write(_FRAME.pack(len(body), zlib.crc32(body)) + body)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._block.clear()

    def close(self) -> Recording | None:
        """Flush, and seal the running day."""
        self.flush()
        if self._file is None:
            return None
        self._file.close()
        self._file = None
        day, self._day = self._day, ""  # what comes of this day still opens it again
        return seal(self._part(day), self.instrument, day)

    def _add(self, ts_ns: int, rtype: int, flags: int, price: int, size: int) -> None:
        if ts_ns < self._last_ns:
            raise BadRecording(f"time goes back by {self._last_ns - ts_ns} ns at {ts_ns}")
        day = datetime.fromtimestamp(ts_ns // 1_000_000_000, UTC).date().isoformat()
        if day != self._day:
            self.close()
            self._open(day)
        self._last_ns = ts_ns
        self._block += RECORD.pack(ts_ns, 0, rtype, flags, 0, price, size, *self._top)
        if len(self._block) >= self.every * WIDTH:
            self.flush()

    def _open(self, day: str) -> None:
        self._day = day
        part = self._part(day)
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.with_suffix(".hrec").exists() and not part.exists():
            _unseal(part)
        whole, records = _recover(part) if part.exists() else (0, b"")
        if records:
            self._last_ns = max(self._last_ns, RECORD.unpack_from(records, len(records) - WIDTH)[0])
        self._file = open(part, "ab")  # noqa: SIM115 - lives as long as the day
        self._file.truncate(whole)

    def _part(self, day: str) -> Path:
        return path_for(self.directory, self.instrument.venue, self.instrument.symbol, day).with_suffix(".part")


def _recover(part: Path) -> tuple[int, bytes]:
    """(how many bytes are whole, the records in them)."""
    return _whole(part.read_bytes())


def _whole(data: bytes) -> tuple[int, bytes]:
    place, records = 0, bytearray()
    while place + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, place)
        body = data[place + _FRAME.size : place + _FRAME.size + length]
        if len(body) < length or length % WIDTH or zlib.crc32(body) != checksum:
            break
        records += body
        place += _FRAME.size + length
    return place, bytes(records)


class TapReader:
    """Follows what a `Recorder` writes into `directory`, from its disk: whole records, day after day, sealed or not.

    `place` is the day and how many of its records have been given; a reader that is given it goes on from there.
    A part file stands for its day even beside a sealed one: it holds all of that, and perhaps more.
    Raises `BadRecording` for a sealed day that is damaged.
    """

    def __init__(self, directory: Path, instrument: Instrument, place: tuple[str, int] = ("", 0)) -> None:
        self._folder = path_for(directory, instrument.venue, instrument.symbol, "0").parent
        self.place = place
        self._done = ("", 0, 0)
        """The sealed day of which all has been given: its day, inode and time."""
        self._part = ("", 0, 0, -1)
        """Of the part file that is being read: its day, the bytes read of it, the records in them, its size then."""

    def records(self, most: int = 20_000) -> list[MarketEvent]:
        """The records that are there now and have not been given yet, about so many at most."""
        return [event for event, _ in self.placed(most)]

    def placed(self, most: int = 20_000) -> list[tuple[MarketEvent, tuple[str, int]]]:
        """The same, each with the place after it."""
        found: list[tuple[MarketEvent, tuple[str, int]]] = []
        for day in self._days():
            count = self.place[1] if day == self.place[0] else 0
            new = self._new(day, count, most)
            found += [(event, (day, number)) for number, event in enumerate(new, count + 1)]
            if new:
                self.place = found[-1][1]
            if len(found) >= most:
                break
        return found

    def skip(self) -> None:
        """What is there now is not to be given."""
        while self.records():
            pass

    def _days(self) -> list[str]:
        """The day that is being read and those after it."""
        found = {path.stem for path in self._folder.glob("*") if path.suffix in (".part", ".hrec")}
        return sorted(day for day in found if day >= self.place[0])

    def _new(self, day: str, count: int, most: int) -> list[MarketEvent]:
        with contextlib.suppress(FileNotFoundError):  # sealed, perhaps just now
            return self._new_of_part(day, count, most)
        path = self._folder / f"{day}.hrec"
        try:
            there = path.stat()
        except FileNotFoundError:
            return []
        sealed = (day, there.st_ino, there.st_mtime_ns)
        if sealed == self._done:
            return []
        recording = Recording.open(path)
        if count + most >= len(recording):
            self._done = sealed
        return [recording.at(number) for number in range(count, min(len(recording), count + most))]

    def _new_of_part(self, day: str, count: int, most: int) -> list[MarketEvent]:
        _, offset, counted, seen = self._part if self._part[0] == day else (day, 0, 0, -1)
        found: list[MarketEvent] = []
        first = True
        with open(self._folder / f"{day}.part", "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == seen:
                return []
            while len(found) < most and offset < size:
                whole, records = _whole_at(file, offset, (most + BLOCK) * WIDTH)
                if not whole and first:  # a block that is being written; or another file, and the day begun anew
                    offset = counted = 0
                    whole, records = _whole_at(file, 0, size)
                first = False
                if not whole:
                    break
                found += RECORD.iter_unpack(records[max(count + len(found) - counted, 0) * WIDTH :])
                offset, counted = offset + whole, counted + len(records) // WIDTH
        self._part = (day, offset, counted, size if len(found) < most else -1)
        return found


def _whole_at(file: IO[bytes], offset: int, most: int) -> tuple[int, bytes]:
    """What is whole in about so many bytes from there on, or in all that follows."""
    file.seek(offset)
    found = _whole(file.read(most))
    if not found[0]:
        file.seek(offset)
        found = _whole(file.read())
    return found


def _unseal(part: Path) -> None:
    """A day that was sealed goes on: its records become a part file again, whole."""
    recording = Recording.open(part.with_suffix(".hrec"))
    events = [recording.at(number) for number in range(len(recording))]
    new = part.with_suffix(".opened")
    with open(new, "wb") as file:
        for place in range(0, len(events), BLOCK):
            body = b"".join(RECORD.pack(*event) for event in events[place : place + BLOCK])
            file.write(_FRAME.pack(len(body), zlib.crc32(body)) + body)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, part)


def seal(part: Path, instrument: Instrument, day: str) -> Recording | None:
    """Turn a day's part file into a recording and take it away; None when nothing whole is in it."""
    _, records = _recover(part)
    if not records:
        return None
    first = RECORD.unpack_from(records, 0)[0]
    last = RECORD.unpack_from(records, len(records) - WIDTH)[0]
    open_ns, close_ns, before, after, early = first, last + 1, "", "", False
    try:
        kept = hours(instrument.calendar, day)
        open_ns, close_ns, early = kept.open_ns, kept.close_ns, kept.early_close
        before, after = kept.previous_session, kept.next_session
    except BadRecording:
        try:
            before, after = neighbours(instrument.calendar, day)
        except BadRecording:
            before = after = ""  # no calendar at hand: the day stands by itself
    meta = Meta(
        instrument=instrument,
        trade_date=day,
        open_ns=open_ns,
        close_ns=close_ns,
        previous_session=before,
        next_session=after,
        early_close=early,
        provenance=Provenance(source="recorded live", importer="record"),
    )
    writer = RecordingWriter(part.with_suffix(".hrec"), meta)
    for event in RECORD.iter_unpack(records):
        writer.raw(event)
    recording = writer.close()
    part.unlink()
    return recording


def record_lines(lines: Iterable[bytes], recorder: Recorder) -> int:
    """Record newline-delimited JSON; returns how many events. Raises `BadRecording` naming the line."""
    count = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            recorder.say(msgspec.json.decode(line))
        except (msgspec.MsgspecError, BadRecording) as problem:
            recorder.flush()
            raise BadRecording(f"line {number}: {problem}") from problem
        count += 1
    return count
