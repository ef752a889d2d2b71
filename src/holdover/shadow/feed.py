"""Readers of the incumbent's inputs: lines of a file or NATS stream, or a directory that a feed is recorded into.

    {"symbol": "ACME", "ts_event": 1732717800000000000, "bid_px": "9.99", "bid_sz": "100", "ask_px": "10.01", ...}

A line of market data has the format of `holdover recording record`, plus the symbol when there are several
instruments. A line with only `ts_event` is a heartbeat that carries the time. A `seq` that grows by one per symbol
reveals gaps.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from holdover.model import Instrument
from holdover.recording import MarketEvent, RecordingError
from holdover.recording.format import RECORD
from holdover.recording.tap import TapReader, parse_market_event
from holdover.runtime.journal import find_version_problem, parse_header
from holdover.shadow.input_store import InputItem
from holdover.state import DECODE_ERRORS
from holdover.watch.jetstream import Stream, StreamAddress
from holdover.watch.source import Offset, Source
from holdover.watch.tail import Tail

BATCH_MAX: Final = 5000
"""How many items one read returns at most; after a full read, read again."""


class IncumbentFeed(Protocol):
    """A source of inputs. `offset` is the position after the last read, `is_behind` says whether more is available."""

    is_behind: bool

    @property
    def offset(self) -> bytes:
        """The encoded position after the last read."""

    def read(self) -> list[InputItem]:
        """Returns the items that arrived since the last read."""

    def skip(self) -> None:
        """Skip everything that is already in the source."""

    def drain_losses(self) -> list[str]:
        """Returns sentences about inputs lost since the last call."""

    def close(self) -> None:
        """Close the source."""


class LineFeed:
    """A feed of lines from a file or a stream."""

    def __init__(self, kind: str, address: str, path: Path, saved_offset: bytes | None) -> None:
        offset = msgspec.msgpack.decode(saved_offset, type=Offset) if saved_offset else None
        self._kind, self._name = kind, path.name
        self._refusal = _find_refusal(path) if saved_offset else ""
        self.is_behind = False
        self._source: Source = Tail(path, offset)
        if address.startswith(("nats://", "tls://")):
            self._source = Stream(StreamAddress.parse(address), offset)

    @property
    def offset(self) -> bytes:
        """See `IncumbentFeed`."""
        return msgspec.msgpack.encode(self._source.offset)

    def read(self) -> list[InputItem]:
        """See `IncumbentFeed`."""
        lines = self._source.read_lines(BATCH_MAX)
        self.is_behind = bool(lines) and (
            len(lines) >= BATCH_MAX or (isinstance(self._source, Stream) and self._source.is_behind)
        )
        return [InputItem(self._kind, 0, line) for line in lines if line.strip() and not self._is_refused(line)]

    def _is_refused(self, line: bytes) -> bool:
        """Whether a line is the header of a journal, or belongs to a journal of a version that is not read."""
        header = parse_header(line)
        if header is not None:
            self._refusal = find_version_problem(header)
            if self._refusal:
                self._source.notices.append(f"nothing is read of {self._name}: {self._refusal}")
        return header is not None or bool(self._refusal)

    def skip(self) -> None:
        """See `IncumbentFeed`."""
        while self._source.read_lines(BATCH_MAX):
            pass

    def drain_losses(self) -> list[str]:
        """See `IncumbentFeed`."""
        losses, self._source.notices[:] = list(self._source.notices), []
        return losses

    def close(self) -> None:
        """See `IncumbentFeed`."""
        self._source.close()


def _find_refusal(path: Path) -> str:
    """Return why a file cannot be read on from an offset in it: it is a journal of another version."""
    try:
        with open(path, "rb") as file:
            header = parse_header(file.readline(4096))
    except OSError:
        return ""
    return find_version_problem(header) if header is not None else ""


class TapOffset(msgspec.Struct, frozen=True):
    """How far a directory of recordings is read for one instrument: the file, and the position in it."""

    file: str = ""
    position: int = 0


class TapFeed:
    """A directory that one `Recorder` per instrument writes into.

    With a backlog, no instrument runs ahead of another.
    """

    def __init__(self, directory: Path, instruments: Sequence[Instrument], saved_offset: bytes | None) -> None:
        offsets = (
            msgspec.msgpack.decode(saved_offset, type=list[TapOffset])
            if saved_offset
            else [TapOffset()] * len(instruments)
        )
        self._readers = [
            TapReader(directory, instrument, (offset.file, offset.position))
            for instrument, offset in zip(instruments, offsets, strict=True)
        ]
        self._backlogs: list[deque[tuple[MarketEvent, tuple[str, int]]]] = [deque() for _ in self._readers]
        self._offsets = [reader.offset for reader in self._readers]
        self.is_behind = False

    @property
    def offset(self) -> bytes:
        """See `IncumbentFeed`."""
        return msgspec.msgpack.encode([TapOffset(file, position) for file, position in self._offsets])

    def read(self) -> list[InputItem]:
        """See `IncumbentFeed`."""
        until_ns = sys.maxsize
        for reader, backlog in zip(self._readers, self._backlogs, strict=True):
            if len(backlog) < BATCH_MAX:
                backlog.extend(reader.read_events_with_offsets(BATCH_MAX))
            if len(backlog) >= BATCH_MAX:
                until_ns = min(until_ns, backlog[BATCH_MAX - 1][0][0])
        records: list[tuple[int, int, bytes]] = []
        for number, backlog in enumerate(self._backlogs):
            while backlog and backlog[0][0][0] <= until_ns:
                event, self._offsets[number] = backlog.popleft()
                records.append((event[0], number, RECORD.pack(*event)))
        self.is_behind = until_ns < sys.maxsize
        records.sort(key=lambda record: record[0])
        return [InputItem("t", number, record) for _, number, record in records]

    def skip(self) -> None:
        """See `IncumbentFeed`."""
        for number, reader in enumerate(self._readers):
            reader.skip_to_end()
            self._backlogs[number].clear()
            self._offsets[number] = reader.offset

    def drain_losses(self) -> list[str]:
        """See `IncumbentFeed`."""
        return []

    def close(self) -> None:
        """See `IncumbentFeed`."""


class MarketReading(NamedTuple):
    """The content of an item of market data: time (ns), event, `seq` (0 for none), or the problem with it.

    With neither event nor problem it is a heartbeat or, without a time, an instrument that the candidate does not
    trade.
    """

    time_ns: int
    event: MarketEvent | None = None
    seq: int = 0
    problem: str = ""


class MarketReader:
    """Decodes items into market events."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._instruments = list(instruments)
        self._numbers = {instrument.symbol: number for number, instrument in enumerate(instruments)}
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self.read = lru_cache(maxsize=4 * BATCH_MAX)(self._read_item)
        """Decode one item of market data; cached, because several steps need the same item."""

    def _read_item(self, item: InputItem) -> MarketReading:
        if item.kind == "t":
            event: MarketEvent = RECORD.unpack(item.data)
            return MarketReading(event[0], (event[0], item.number, *event[2:]))
        try:
            fields = self._decode(item.data)
            if fields.keys() == {"ts_event"}:
                return _check_range(MarketReading(int(fields["ts_event"])))
            number = self._instrument_number(fields)
            if number is None:
                return MarketReading(0)
            event = parse_market_event(fields, self._instruments[number])
            return _check_range(MarketReading(event[0], (event[0], number, *event[2:]), int(fields.get("seq") or 0)))
        except (*DECODE_ERRORS, RecordingError, ValueError, TypeError, ArithmeticError) as problem:
            return MarketReading(0, problem=f"a line of market data cannot be read: {problem}"[:300])

    def _instrument_number(self, fields: dict[str, Any]) -> int | None:
        """The number of the instrument; None for an instrument that the candidate does not trade."""
        symbol = fields.get("symbol")
        return 0 if symbol is None and len(self._instruments) == 1 else self._numbers.get(str(symbol))


def _check_range(reading: MarketReading) -> MarketReading:
    """Returns the reading if its numbers are in range. Raises `ValueError` otherwise."""
    event = reading.event or ()
    if not 0 < reading.time_ns < sys.maxsize or max((abs(value) for value in event), default=0) > sys.maxsize:
        raise ValueError("a time, price or size that cannot be")
    if any(size < 0 for size in event[6:7] + event[9:11]):
        raise ValueError("a size below 0")
    return reading
