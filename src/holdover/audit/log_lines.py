"""Lines of a log in bounded memory: a log without line ends is cut between its messages.

A FIX engine may write its messages one after the other without a line end. Such a log is one line of any length, so a
reader that waits for the line end holds the whole log. `read_log_lines` cuts a line that has become longer than
`PIECE_MIN` at the beginning of its last message. A message longer than `LINE_MAX` is no order message; it is dropped,
and an `OverlongLine` stands in its place.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import IO, Final

from holdover.runtime.size_limits import EXPANDED_FREE, RATIO_MAX, SizeLimitError, format_size

_BEGIN: Final = b"8=FIX"
_CHUNK: Final = 1 << 16
PIECE_MIN: Final = 1 << 16
"""Bytes from which a line without an end is cut between its messages."""
LINE_MAX: Final = 1 << 20
"""Bytes of the longest message or line that is judged; a line of an order message has 200 to 2,000."""
_GZIP: Final = b"\x1f\x8b"


class OverlongLine:
    """Stands for a line or a message that is longer than `LINE_MAX` and was dropped."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


def read_log_lines(
    stream: IO[bytes], first: int = 1, piece_min: int = PIECE_MIN
) -> Iterator[tuple[int, bytes | OverlongLine]]:
    """Yield each line of a log with its number; the pieces of one long line have the same number.

    Args:
        stream: the log; a line of a pipe is yielded as soon as it is there.
        first: the number of the first line.
        piece_min: bytes from which a line without an end is cut between its messages.
    """
    number, rest, dropped = first, b"", 0
    read = getattr(stream, "read1", stream.read)
    while chunk := read(_CHUNK):
        lines = chunk.split(b"\n")
        if len(lines) > 1:
            if dropped:
                yield number, OverlongLine(dropped + len(lines[0]))
            else:
                yield number, rest + lines[0] + b"\n"
            number, dropped = number + 1, 0
            for line in lines[1:-1]:
                yield number, line + b"\n"
                number += 1
            rest = lines[-1]
            continue
        if dropped:
            begin = chunk.find(_BEGIN)
            if begin < 0:
                dropped += len(chunk)
                continue
            yield number, OverlongLine(dropped + begin)
            rest, dropped = chunk[begin:], 0
            continue
        rest += chunk
        if len(rest) >= piece_min:
            begin = rest.rfind(_BEGIN, 1)
            if begin > 0:
                yield number, rest[:begin]
                rest = rest[begin:]
            elif len(rest) > LINE_MAX:
                rest, dropped = b"", len(rest)
    if dropped:
        yield number, OverlongLine(dropped)
    elif rest:
        yield number, rest


class BoundedGzip(io.RawIOBase):
    """A gzip stream that refuses to expand further than its file explains. Reading raises `SizeLimitError`."""

    def __init__(self, stream: IO[bytes], size_max: int | None = None) -> None:
        self._counted = _CountedStream(stream)
        self._gzip = gzip.GzipFile(fileobj=self._counted)
        self._size_max = size_max
        self._size = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read the next bytes."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._gzip.read(len(view))
        view[: len(data)] = data
        self._size += len(data)
        bound = self._size_max or max(EXPANDED_FREE, RATIO_MAX * self._counted.size)
        if self._size > bound:
            raise SizeLimitError(
                f"expands to more than {format_size(bound)} from {format_size(self._counted.size)}; "
                f"if it should, unpack it first: gunzip -c FILE | holdover audit -"
            )
        return len(data)


class _CountedStream(io.RawIOBase):
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self.size += len(data)
        return len(data)


def unpack_log(stream: IO[bytes]) -> IO[bytes]:
    """Return a log's content; gzip is recognised by its first bytes, and unpacked within its bound."""
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    if buffered.peek(2)[:2] == _GZIP:
        return io.BufferedReader(BoundedGzip(buffered), 1 << 20)
    return buffered
