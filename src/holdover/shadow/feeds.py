"""Where the incumbent's inputs are read: lines of a file or a NATS stream, or the folder into which a feed is recorded.

    {"symbol": "ACME", "ts_event": 1732717800000000000, "bid_px": "9.99", "bid_sz": "100", "ask_px": "10.01", ...}

A line of market data is what `holdover recording record` takes, with the symbol where there are several instruments;
one with a `ts_event` alone is a heartbeat, and says what time it is. A `seq` that grows by one, for each symbol, shows
what is missing.
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
from holdover.recording import BadRecording, MarketEvent
from holdover.recording.format import RECORD
from holdover.recording.tap import TapReader, market_event
from holdover.shadow.inputs import Item
from holdover.watch.jetstream import Stream, StreamAddress
from holdover.watch.source import Place, Source
from holdover.watch.tail import Tail

MOST: Final = 5000
"""How much is read at a time; who gets so much should ask again."""


class Feed(Protocol):
    """Gives what has come in; `place` is after it, `behind` says whether there is more than it gave."""

    behind: bool

    @property
    def place(self) -> bytes:
        """Where it stands."""

    def read(self) -> list[Item]:
        """What has come in since it was asked last."""

    def skip(self) -> None:
        """What is there already is not to be given."""

    def told(self) -> list[str]:
        """What was lost on the way since it was asked last, in sentences."""

    def close(self) -> None:
        """Let go of it."""


class LineFeed:
    """Lines of a source."""

    def __init__(self, kind: str, told: str, path: Path, place: bytes | None) -> None:
        at = msgspec.msgpack.decode(place, type=Place) if place else None
        self._kind = kind
        self.behind = False
        self._source: Source = Tail(path, at)
        if told.startswith(("nats://", "tls://")):
            self._source = Stream(StreamAddress.of(told), at)

    @property
    def place(self) -> bytes:
        """See `Feed`."""
        return msgspec.msgpack.encode(self._source.place)

    def read(self) -> list[Item]:
        """See `Feed`."""
        lines = self._source.lines(MOST)
        self.behind = bool(lines) and (len(lines) >= MOST or (isinstance(self._source, Stream) and self._source.behind))
        return [Item(self._kind, 0, line) for line in lines if line.strip()]

    def skip(self) -> None:
        """See `Feed`."""
        while self._source.lines(MOST):
            pass

    def told(self) -> list[str]:
        """See `Feed`."""
        said, self._source.told[:] = list(self._source.told), []
        return said

    def close(self) -> None:
        """See `Feed`."""
        self._source.close()


class TapFeed:
    """The folder into which a `Recorder` of each instrument writes. Behind a backlog none runs ahead of another."""

    def __init__(self, directory: Path, instruments: Sequence[Instrument], place: bytes | None) -> None:
        at = msgspec.msgpack.decode(place, type=list[tuple[str, int]]) if place else [("", 0)] * len(instruments)
        self._readers = [TapReader(directory, one, where) for one, where in zip(instruments, at, strict=True)]
        self._read: list[deque[tuple[MarketEvent, tuple[str, int]]]] = [deque() for _ in self._readers]
        self._places = [reader.place for reader in self._readers]
        self.behind = False

    @property
    def place(self) -> bytes:
        """See `Feed`."""
        return msgspec.msgpack.encode(self._places)

    def read(self) -> list[Item]:
        """See `Feed`."""
        until = sys.maxsize
        for reader, read in zip(self._readers, self._read, strict=True):
            if len(read) < MOST:
                read.extend(reader.placed(MOST))
            if len(read) >= MOST:
                until = min(until, read[MOST - 1][0][0])
        found: list[tuple[int, int, bytes]] = []
        for number, read in enumerate(self._read):
            while read and read[0][0][0] <= until:
                event, self._places[number] = read.popleft()
                found.append((event[0], number, RECORD.pack(*event)))
        self.behind = until < sys.maxsize
        found.sort(key=lambda one: one[0])
        return [Item("t", number, record) for _, number, record in found]

    def skip(self) -> None:
        """See `Feed`."""
        for number, reader in enumerate(self._readers):
            reader.skip()
            self._read[number].clear()
            self._places[number] = reader.place

    def told(self) -> list[str]:
        """See `Feed`."""
        return []

    def close(self) -> None:
        """See `Feed`."""


class Told(NamedTuple):
    """What a line of market data said: when (ns), which event, its `seq` (0 for none); or what is wrong with it.

    Neither event nor problem: a heartbeat, or, without a time, an instrument that the candidate does not trade.
    """

    time_ns: int
    event: MarketEvent | None = None
    seq: int = 0
    problem: str = ""


class MarketReader:
    """Turns items into market events."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._instruments = list(instruments)
        self._numbers = {one.symbol: number for number, one in enumerate(instruments)}
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode
        self.read = lru_cache(maxsize=4 * MOST)(self._read)
        """One item of market data. It is asked for several times on an item's way, and read once."""

    def _read(self, item: Item) -> Told:
        if item.kind == "t":
            event: MarketEvent = RECORD.unpack(item.data)
            return Told(event[0], (event[0], item.number, *event[2:]))
        try:
            told = self._decode(item.data)
            if told.keys() == {"ts_event"}:
                return _fit(Told(int(told["ts_event"])))
            number = self._number(told)
            if number is None:
                return Told(0)
            event = market_event(told, self._instruments[number])
            return _fit(Told(event[0], (event[0], number, *event[2:]), int(told.get("seq") or 0)))
        except (msgspec.MsgspecError, BadRecording, ValueError, TypeError, ArithmeticError) as problem:
            return Told(0, problem=f"a line of market data cannot be read: {problem}"[:300])

    def _number(self, told: dict[str, Any]) -> int | None:
        """The instrument's; None for one that the candidate does not trade."""
        symbol = told.get("symbol")
        return 0 if symbol is None and len(self._instruments) == 1 else self._numbers.get(str(symbol))


def _fit(told: Told) -> Told:
    """The same; its numbers are such as anybody keeps. Raises `ValueError`."""
    event = told.event or ()
    if not 0 < told.time_ns < sys.maxsize or max((abs(one) for one in event), default=0) > sys.maxsize:
        raise ValueError("a time, price or size that cannot be")
    if any(size < 0 for size in event[6:7] + event[9:11]):
        raise ValueError("a size below 0")
    return told
