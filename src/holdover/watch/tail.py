"""A file followed as it is written: whole lines, through rotation and truncation, from a place that can be kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from pathlib import Path
from typing import IO

import msgspec

from holdover.watch.source import Place

_HEAD = 1024
_ASIDE = re.compile(r"[.-][0-9][0-9T_:.-]*")  # what rotation adds to a name: a number, a date, a time


class Tail:
    """Follows one path. `place` is after the last line that `lines` gave; `told` says what was lost on the way."""

    def __init__(self, path: Path, place: Place | None = None) -> None:
        self.path = path
        self.place = msgspec.structs.replace(place) if place is not None else Place()
        self.told: list[str] = []
        self._file: IO[bytes] | None = None
        if place is not None and place.inode:
            self._resume(self.place)

    def lines(self, most: int = 5000) -> list[bytes]:
        """The whole lines that are there now and have not been given yet, at most so many; empty when there is none."""
        found = self._read(most)
        while not found and self._another():
            # What was written between the last look and the rotation belongs to the old file.
            found = self._read(most)
            if not found:
                self._move_on()
                found = self._read(most)
        return found

    @property
    def ended(self) -> bool:
        """Always: a file that gives nothing has nothing more now."""
        return True

    def wait(self, seconds: float) -> None:
        """Wait so long; nothing tells of a write."""
        threading.Event().wait(seconds)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # -- inside -------------------------------------------------------------------------------------------------

    def _read(self, most: int) -> list[bytes]:
        if self._file is None:
            return []
        place = self.place
        size = os.fstat(self._file.fileno()).st_size
        if size < place.offset or not self._same_head(self._file, place):
            self.told.append(f"{self.path}: was cut short; reading it again from its beginning")
            self._start(self._file)
        self._file.seek(place.offset)
        found: list[bytes] = []
        while len(found) < most:
            line = self._file.readline()
            if not line.endswith(b"\n"):
                break
            found.append(line)
            place.offset += len(line)
            place.line += 1
        if place.head_size < _HEAD and place.offset > place.head_size:
            place.head_size = min(place.offset, _HEAD)
            place.head = _digest(self._file, place.head_size)
        return found

    def _another(self) -> bool:
        """Whether the file that stands at the path is another than the one that is being read."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return self._file is None or os.fstat(self._file.fileno()).st_ino != there.st_ino

    def _after(self) -> Path:
        """The file that was begun when this one was put aside; a slow reader may find several, and takes the next.

        They are told by when each was last written: nothing is written to a file after it has been put aside.
        """
        if self._file is None:
            return self.path
        now = os.fstat(self._file.fileno())
        found: list[tuple[int, str, Path]] = []
        for path in self.path.parent.iterdir():
            if _ASIDE.fullmatch(path.name.removeprefix(self.path.name)):
                with contextlib.suppress(FileNotFoundError):
                    there = path.stat()
                    if there.st_ino != now.st_ino and there.st_mtime_ns >= now.st_mtime_ns and there.st_size:
                        found.append((there.st_mtime_ns, path.name, path))
        return min(found)[2] if found else self.path

    def _move_on(self) -> None:
        after = self._after()
        self.close()
        self._file = open(after, "rb")  # noqa: SIM115 - lives until `close`
        self._start(self._file)

    def _start(self, file: IO[bytes]) -> None:
        place = self.place
        place.inode, place.head, place.head_size = os.fstat(file.fileno()).st_ino, "", 0
        place.offset = place.line = 0

    def _resume(self, place: Place) -> None:
        """Find the file again in which the last reader stood: at the path, or beside it under another name."""
        beside = [self.path]
        if self.path.parent.is_dir():
            beside += sorted(one for one in self.path.parent.iterdir() if one.name.startswith(self.path.name))
        for path in beside:
            try:
                file = open(path, "rb")  # noqa: SIM115 - lives until `close`
            except OSError:
                continue
            status = os.fstat(file.fileno())
            if status.st_ino == place.inode and status.st_size >= place.offset and self._same_head(file, place):
                self._file = file
                return
            file.close()
        self.told.append(f"{self.path}: the file that was being read is gone; what it held after that is not known")
        self.place = Place()

    def _same_head(self, file: IO[bytes], place: Place) -> bool:
        return not place.head_size or _digest(file, place.head_size) == place.head


def _digest(file: IO[bytes], size: int) -> str:
    file.seek(0)
    return hashlib.sha256(file.read(size)).hexdigest()
