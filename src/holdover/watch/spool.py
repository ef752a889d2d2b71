"""What came over a wire, on the disk before whoever brought it goes on: written by one thread, read by another.

A spool is a folder of numbered files. A message is its length in eight digits, a space, its bytes and a line end, so
that line ends inside a message do no harm and `holdover audit` can read the files as FIX logs. When a file has grown
long another is begun; those before the one that is being read may be taken away.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO, Final

import msgspec

from holdover.runtime.files import sync_directory
from holdover.watch.source import BadSource, Place

_HEAD: Final = 9
_SUFFIX: Final = ".fix"


class Spool:
    """One folder. `append` and `lines` may be called from different threads; what is read has been synced."""

    def __init__(self, directory: Path, place: Place | None = None, *, longest: int = 64 << 20) -> None:
        self.place = msgspec.structs.replace(place) if place is not None else Place()
        self._directory, self._longest = directory, longest
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        numbers = sorted(int(one.stem) for one in directory.glob(f"*{_SUFFIX}") if one.stem.isdigit())
        last = numbers[-1] if numbers else 1
        path = self._path(last)
        self._writing: IO[bytes] = open(path, "ab")  # noqa: SIM115 - lives until `close`
        sync_directory(directory)
        whole = _whole(path)
        self._writing.truncate(whole)  # what a kill left of a message that nobody was told to have taken
        self._end = (last, whole)
        self._reading: IO[bytes] | None = None
        if not self.place.sequence:
            self.place.sequence = numbers[0] if numbers else last
        there = self._path(self.place.sequence)
        if not there.exists() or there.stat().st_size < self.place.offset:
            raise BadSource(f"{there}: is shorter than what was judged of it; put it back, or begin a new state folder")

    def append(self, message: bytes) -> None:
        """Add one message; it is on the disk on return. Raises `OSError` when the disk does not take it."""
        number, size = self._end
        record = b"%08d %s\n" % (len(message), message)
        self._writing.write(record)
        self._writing.flush()
        os.fsync(self._writing.fileno())
        size += len(record)
        if size >= self._longest:
            self._writing.close()
            number, size = number + 1, 0
            self._writing = open(self._path(number), "ab")  # noqa: SIM115 - lives until `close`
            sync_directory(self._directory)
        with self._lock:
            self._end = (number, size)

    def lines(self, most: int = 5000) -> list[bytes]:
        """The messages that are there and have not been given yet, at most so many, a line end after each."""
        with self._lock:
            last, size = self._end
        place = self.place
        found: list[bytes] = []
        while len(found) < most:
            if self._reading is None:
                self._reading = open(self._path(place.sequence), "rb")  # noqa: SIM115 - lives until `close`
                self._reading.seek(place.offset)
            if place.sequence == last and place.offset >= size:
                break
            head = self._reading.read(_HEAD)
            if not head and place.sequence < last:
                self._reading.close()
                self._reading = None
                place.sequence, place.offset = place.sequence + 1, 0
                continue
            message = self._reading.read(int(head) + 1)
            found.append(message)
            place.offset += len(head) + len(message)
            place.line += 1
        return found

    def close(self) -> None:
        """Let go of the files."""
        self._writing.close()
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:06d}{_SUFFIX}"


def _whole(path: Path) -> int:
    """How many bytes of a file are whole messages."""
    size = path.stat().st_size
    end = 0
    with open(path, "rb") as file:
        while True:
            head = file.read(_HEAD)
            if len(head) < _HEAD or not head[:8].isdigit():
                return end
            following = end + _HEAD + int(head[:8]) + 1
            if following > size:
                return end
            end = following
            file.seek(end)
