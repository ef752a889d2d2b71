"""The recording file: one instrument's day as fixed-width records between a header and a checksum trailer.

    magic "HREC" + version (u32)     8 bytes
    header length (u32)              4 bytes
    header                           JSON, see `Meta`
    body                             64-byte little-endian records `<qHBBIqqqqqq`, or those compressed by zlib
    block checksums                  CRC-32 (u32) of each 4,096 records, uncompressed
    header checksum (u32)            CRC-32 of the header
    digest                           SHA-256 of header and uncompressed body, 32 bytes
    magic "HEND"                     4 bytes

A record is (ts_event, instrument_id, rtype, flags, sequence, price, size, bid_px, ask_px, bid_sz, ask_sz):
the field names and the undefined price are DBN's. Why not DBN itself:
docs/decisions/0001-recording-format.md.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from holdover.model import Instrument
from holdover.runtime.size_limits import RECORDING_EXPANDED_MAX, SizeLimitError, decompress_bounded, open_bounded
from holdover.state import DECODE_ERRORS

MarketEvent = tuple[int, int, int, int, int, int, int, int, int, int, int]
"""(ts_event, instrument_id, rtype, flags, sequence, price, size, bid_px, ask_px, bid_sz, ask_sz); ns, ticks, lots."""

QUOTE: Final = 1
TRADE: Final = 2
STATUS: Final = 3
TRADING: Final = 1
HALT: Final = 2
DISABLED: Final = 3
CLOSED: Final = 4
FLAG_BAR: Final = 1
FLAG_CROSSED: Final = 2
FLAG_ONE_SIDED: Final = 4
UNDEF_PRICE: Final = 2**63 - 1

RECORD: Final = struct.Struct("<qHBBIqqqqqq")
WIDTH: Final = RECORD.size
BLOCK: Final = 4096
_MAGIC: Final = b"HREC"
_END: Final = b"HEND"
VERSION: Final = 1
_ENCODINGS: Final = ("raw", "zlib")


# The file is mapped and sliced, not kept in a memoryview: a view that survives until exit would keep it open.
Buffer = mmap.mmap | bytes


class RecordingError(ValueError):
    """A recording is damaged, foreign or missing. The message says which file, where and why."""


class RecordingProblem(NamedTuple):
    """A finding of `verify`: the record index (-1: the whole file), a description, and whether it is only notable."""

    record: int
    description: str
    notable: bool = False


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of a recording: source, licence, importer, and the input files with their SHA-256."""

    source: str
    licence: str = ""
    importer: str = ""
    inputs: dict[str, str] = {}
    notes: list[str] = []


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a recording. Times are ns since the epoch, UTC; dates are trading days.

    `open_ns` and `close_ns` bound the regular session. `previous_session` and `next_session` come from the
    calendar when the recording is made, so replaying needs no calendar.
    """

    instrument: Instrument
    trade_date: str
    open_ns: int
    close_ns: int
    previous_session: str
    next_session: str
    provenance: Provenance
    early_close: bool = False
    simulated: bool = False
    encoding: str = "raw"
    records: int = 0
    body_bytes: int = 0
    quotes: int = 0
    trades: int = 0
    statuses: int = 0
    traded_qty: int = 0
    first_ns: int = 0
    last_ns: int = 0


def _check_meta(meta: Meta) -> str:
    """Return what cannot be true in a header; empty when nothing contradicts it."""
    if meta.open_ns > meta.close_ns:
        return f"the session opens at {meta.open_ns} ns, after it closes at {meta.close_ns} ns"
    if meta.previous_session and meta.previous_session >= meta.trade_date:
        return f"the session before {meta.trade_date} is {meta.previous_session}"
    if meta.next_session and meta.next_session <= meta.trade_date:
        return f"the session after {meta.trade_date} is {meta.next_session}"
    if meta.encoding not in _ENCODINGS:
        return f"the encoding is {meta.encoding!r}, should be one of {', '.join(_ENCODINGS)}"
    if min(meta.records, meta.body_bytes, meta.quotes, meta.trades, meta.statuses, meta.traded_qty) < 0:
        return "a count is negative"
    if meta.first_ns > meta.last_ns:
        return f"the first record is of {meta.first_ns} ns, after the last of {meta.last_ns} ns"
    return ""


class Recording:
    """One recorded day, open for reading.

    Opening checks the file's frame; reading checks each block before its first use.
    """

    def __init__(self, path: Path, meta: Meta, digest: str, buffer: Buffer, offset: int, sums: tuple[int, ...]) -> None:
        self.path, self.meta, self.digest = path, meta, digest
        self._buffer, self._offset, self._sums = buffer, offset, sums
        self._verified: set[int] = set()

    @classmethod
    def open(cls, path: str | Path) -> Recording:
        """Open a file. Raises `RecordingError` when it is missing, damaged, truncated or of another version."""
        path = Path(path)
        try:
            with open_bounded(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size < 64:
                    raise RecordingError(f"{path.name}: {size} bytes are too few for a recording; it was cut off")
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise RecordingError(f"{path}: there is no such recording") from None
        except OSError as error:
            raise RecordingError(f"{path.name}: cannot be read: {error.strerror}") from error
        except SizeLimitError as error:
            raise RecordingError(str(error)) from error
        return cls(path, *_read_frame(path, data))

    def __len__(self) -> int:
        return self.meta.records

    def __repr__(self) -> str:
        suffix = " simulated" if self.meta.simulated else ""
        return f"<Recording {self.meta.instrument.symbol} {self.meta.trade_date} {len(self)} records{suffix}>"

    def event_at(self, index: int) -> MarketEvent:
        """Return the record at an index. Raises `IndexError` when it is out of range."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path.name}: no record {index}, it has {len(self)}")
        return RECORD.unpack_from(self._buffer, self._offset + index * WIDTH)

    def index_at(self, time_ns: int) -> int:
        """Return the index of the first record at or after a time (ns)."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if RECORD.unpack_from(self._buffer, self._offset + middle * WIDTH)[0] < time_ns:
                low = middle + 1
            else:
                high = middle
        return low

    def events(
        self, start_ns: int | None = None, end_ns: int | None = None, instrument_id: int = 0
    ) -> Iterator[MarketEvent]:
        """Iterate over the records from `start_ns` up to but not including `end_ns`.

        Each record carries `instrument_id` (0 to 255). Raises `RecordingError` when a block does not match its
        checksum, before any record of that block is returned.
        """
        first = 0 if start_ns is None else self.index_at(start_ns)
        last = len(self) if end_ns is None else self.index_at(end_ns)
        return chain.from_iterable(self._read_blocks(first, last, instrument_id))

    def _read_blocks(self, first: int, last: int, instrument_id: int) -> Iterator[Iterable[Any]]:
        for number in range(first // BLOCK, -(-last // BLOCK)):
            if number not in self._verified:
                self._read_block(number)
                self._verified.add(number)
            begin = self._offset + max(first, number * BLOCK) * WIDTH
            end = self._offset + min(last, (number + 1) * BLOCK) * WIDTH
            part: Any = self._buffer[begin:end]
            if instrument_id:
                part = bytearray(part)
                part[8::WIDTH] = bytes([instrument_id]) * (len(part) // WIDTH)
            yield RECORD.iter_unpack(part)

    def _read_block(self, number: int) -> bytes:
        begin = self._offset + number * BLOCK * WIDTH
        end = self._offset + min((number + 1) * BLOCK, len(self)) * WIDTH
        block = self._buffer[begin:end]
        if zlib.crc32(block) != self._sums[number]:
            raise RecordingError(
                f"{self.path.name}: records {number * BLOCK} to {min((number + 1) * BLOCK, len(self)) - 1} do not "
                f"match their checksum; the file is damaged, import or fetch it again"
            )
        return block

    def verify(self) -> list[RecordingProblem]:
        """Read the whole recording; return its problems, with remarkable but valid findings marked notable."""
        problems: list[RecordingProblem] = []
        summed = hashlib.sha256(_encode_meta(self.meta))
        summed.update(self._buffer[self._offset : self._offset + len(self) * WIDTH])
        for number in range(len(self._sums)):
            try:
                self._read_block(number)
            except RecordingError as error:
                problems.append(RecordingProblem(number * BLOCK, str(error)))
        if summed.hexdigest() != self.digest:
            problems.append(RecordingProblem(-1, "header and body do not match the digest"))
        if not problems:
            problems += list(_check_content(self))
        return problems


def _read_frame(path: Path, data: mmap.mmap) -> tuple[Meta, str, Buffer, int, tuple[int, ...]]:
    name = path.name
    if data[:4] != _MAGIC:
        raise RecordingError(f"{name}: not a Holdover recording; it should begin with {_MAGIC.decode()}")
    version, length = struct.unpack_from("<II", data, 4)
    if version != VERSION:
        raise RecordingError(f"{name}: written in format version {version}, this Holdover reads version {VERSION}")
    if data[-4:] != _END or 12 + length + 40 > len(data):
        raise RecordingError(f"{name}: the end is missing; the file was cut off at byte {len(data)}")
    header = data[12 : 12 + length]
    if zlib.crc32(header) != struct.unpack_from("<I", data, len(data) - 40)[0]:
        raise RecordingError(f"{name}: the header does not match its checksum; the file is damaged")
    try:
        meta = msgspec.json.decode(header, type=Meta)
    except (*DECODE_ERRORS, ValueError) as error:
        raise RecordingError(f"{name}: the header cannot be read: {error}") from error
    if problem := _check_meta(meta):
        raise RecordingError(f"{name}: the header contradicts itself: {problem}")
    blocks = -(-meta.records // BLOCK)
    expected = 12 + length + meta.body_bytes + 4 * blocks + 40
    if expected != len(data):
        raise RecordingError(f"{name}: {len(data)} bytes, should be {expected}; the file is damaged")
    buffer: Buffer = data
    offset, size = 12 + length, meta.body_bytes
    sums = struct.unpack_from(f"<{blocks}I", data, 12 + length + meta.body_bytes)
    if meta.encoding == "zlib":
        try:
            buffer = decompress_bounded(data[offset : offset + size], RECORDING_EXPANDED_MAX)
        except zlib.error as error:
            raise RecordingError(f"{name}: the body cannot be decompressed: {error}") from error
        except SizeLimitError as error:
            raise RecordingError(f"{name}: the body {error}") from error
        offset, size = 0, len(buffer)
    if size != meta.records * WIDTH:
        raise RecordingError(f"{name}: the body holds {size // WIDTH} records, should be {meta.records}")
    return meta, data[-36:-4].hex(), buffer, offset, sums


def _check_content(recording: Recording) -> Iterator[RecordingProblem]:
    before = -(2**62)
    longest = (0, -1)
    counts = {QUOTE: 0, TRADE: 0, STATUS: 0}
    meta = recording.meta
    for index, event in enumerate(recording.events()):
        ts, _, rtype, flags, _, price, size, bid_px, ask_px, bid_sz, ask_sz = event
        if ts < before:
            yield RecordingProblem(index, f"time goes back by {before - ts} ns")
        elif index and meta.open_ns <= before and ts <= meta.close_ns and ts - before > longest[0]:
            longest = (ts - before, index)
        before = ts
        if rtype not in counts:
            yield RecordingProblem(index, f"record type {rtype} is none of quote, trade, status")
            continue
        counts[rtype] += 1
        if rtype == TRADE and (price <= 0 or size <= 0):
            yield RecordingProblem(index, f"a trade of {size} lots at {price} ticks is impossible")
        if rtype == STATUS and flags not in (TRADING, HALT, DISABLED, CLOSED):
            yield RecordingProblem(index, f"status {flags} is none of trading, halt, disabled, closed")
        if min(bid_sz, ask_sz) < 0 or bid_px <= 0 or ask_px <= 0:
            yield RecordingProblem(index, f"a quote of {bid_sz}@{bid_px} to {ask_sz}@{ask_px} is impossible")
    header_counts = {QUOTE: meta.quotes, TRADE: meta.trades, STATUS: meta.statuses}
    for rtype, name in ((QUOTE, "quotes"), (TRADE, "trades"), (STATUS, "statuses")):
        if counts[rtype] != header_counts[rtype]:
            yield RecordingProblem(
                -1, f"the header tells of {header_counts[rtype]} {name}, the body holds {counts[rtype]}"
            )
    if longest[0] > 60_000_000_000:
        yield RecordingProblem(longest[1], f"nothing for {longest[0] / 1e9:.0f} s inside the session", notable=True)


class RecordingWriter:
    """Collects one day and writes it at once: to a temporary file, synced, then renamed.

    Times in ns, prices in ticks, sizes in lots. Raises `RecordingError` for a time before the last one.
    """

    def __init__(self, path: Path, meta: Meta) -> None:
        if problem := _check_meta(meta):
            raise RecordingError(f"{path.name}: the header contradicts itself: {problem}")
        self.path, self.meta = path, meta
        self._body = bytearray()
        self._counts = {QUOTE: 0, TRADE: 0, STATUS: 0}
        self._traded = 0
        self._last_ns = 0
        self._top_of_book: tuple[int, int, int, int] = (UNDEF_PRICE, UNDEF_PRICE, 0, 0)

    def __len__(self) -> int:
        return len(self._body) // WIDTH

    def quote(self, ts_ns: int, bid_px: int, bid_sz: int, ask_px: int, ask_sz: int) -> None:
        """Add a quote: the best bid and offer after an event. A side without a price has `UNDEF_PRICE` and size 0."""
        flags = 0
        if bid_sz == 0 or ask_sz == 0:
            flags |= FLAG_ONE_SIDED
        elif bid_px > ask_px:
            flags |= FLAG_CROSSED
        self._top_of_book = (bid_px, ask_px, bid_sz, ask_sz)
        self._add(ts_ns, QUOTE, flags, 0, 0)

    def trade(self, ts_ns: int, price: int, size: int, flags: int = 0) -> None:
        """Add a trade; it carries the current best bid and offer."""
        self._traded += size
        self._add(ts_ns, TRADE, flags, price, size)

    def status(self, ts_ns: int, status: int) -> None:
        """Add a status: the book opens, halts, is disabled or closes."""
        self._add(ts_ns, STATUS, status, 0, 0)

    def copy_event(self, event: MarketEvent) -> None:
        """Add a record unchanged."""
        self._top_of_book = event[7:11]
        if event[2] == TRADE:
            self._traded += event[6]
        self._add(event[0], event[2], event[3], event[5], event[6])

    def _add(self, ts_ns: int, rtype: int, flags: int, price: int, size: int) -> None:
        if rtype not in self._counts:
            raise RecordingError(f"{self.path.name}: record type {rtype} is none of quote, trade, status")
        if ts_ns < self._last_ns:
            raise RecordingError(
                f"{self.path.name}: record {len(self)} goes back in time by {self._last_ns - ts_ns} ns"
            )
        check_event_range(ts_ns, price, size, *self._top_of_book)
        self._last_ns = ts_ns
        self._body += RECORD.pack(ts_ns, 0, rtype, flags, len(self) & 0xFFFFFFFF, price, size, *self._top_of_book)
        self._counts[rtype] += 1

    def close(self) -> Recording:
        """Write the file and open it for reading.

        Raises `RecordingError` when the counts do not add up, or the file that was written is not the day collected.
        """
        body = bytes(self._body)
        if sum(self._counts.values()) != len(self) or len(body) % WIDTH:
            raise RecordingError(f"{self.path.name}: {self._counts} do not add up to {len(self)} records")
        stored = zlib.compress(body, 9) if self.meta.encoding == "zlib" else body
        first = RECORD.unpack_from(body, 0)[0] if body else 0
        meta = msgspec.structs.replace(
            self.meta,
            records=len(self),
            body_bytes=len(stored),
            quotes=self._counts[QUOTE],
            trades=self._counts[TRADE],
            statuses=self._counts[STATUS],
            traded_qty=self._traded,
            first_ns=first,
            last_ns=self._last_ns,
        )
        header = _encode_meta(meta)
        step = BLOCK * WIDTH
        sums = [zlib.crc32(body[place : place + step]) for place in range(0, len(body), step)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".writing")
        with open(part, "wb") as file:
            file.write(_MAGIC + struct.pack("<II", VERSION, len(header)) + header + stored)
            file.write(struct.pack(f"<{len(sums)}I", *sums) + struct.pack("<I", zlib.crc32(header)))
            file.write(hashlib.sha256(header + body).digest() + _END)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path)
        recording = Recording.open(self.path)
        if recording.meta != meta:
            raise RecordingError(f"{self.path.name}: the file has another header than the one that was written")
        return recording


def check_event_range(ts_ns: int, *values: int) -> None:
    """Raise `RecordingError` when a time, price or size of an event does not fit into its 64 bits."""
    if ts_ns < 0:
        raise RecordingError(f"the time {ts_ns} ns is before 1970")
    for value in (ts_ns, *values):
        if not -(2**63) <= value < 2**63:
            raise RecordingError(f"{str(value)[:40]} is too large for a recording, whose numbers have 64 bits")


def _encode_meta(meta: Meta) -> bytes:
    fields = msgspec.to_builtins(meta)
    if not meta.instrument.negative_prices:
        del fields["instrument"]["negative_prices"]  # a header without it has the bytes that it always had
    return msgspec.json.encode(fields)
