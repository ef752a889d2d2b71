"""Follows a file while it is written: whole lines, through rotation and truncation, from a resumable offset."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from pathlib import Path
from typing import IO

import msgspec

from holdover.audit.log_lines import LINE_MAX
from holdover.watch.source import Offset

_HEAD = 1024
_BEGIN = b"8=FIX"
_ROTATION_SUFFIX = re.compile(r"[.-][0-9][0-9T_:.-]*")  # what rotation adds to a name: a number, a date, a time


class Tail:
    """Follows one path. `offset` is after the last line returned; `notices` lists what was lost.

    A line without an end is returned in pieces when it is long, each of which counts as a line.
    """

    def __init__(self, path: Path, offset: Offset | None = None) -> None:
        self.path = path
        self.offset = msgspec.structs.replace(offset) if offset is not None else Offset()
        self.notices: list[str] = []
        self._file: IO[bytes] | None = None
        if offset is not None and offset.inode:
            self._resume(self.offset)

    def read_lines(self, count_max: int = 5000) -> list[bytes]:
        """Return at most `count_max` new whole lines; empty when there are none."""
        lines = self._read_lines(count_max)
        while not lines and self._is_rotated():
            # What was written between the last read and the rotation belongs to the old file.
            lines = self._read_lines(count_max)
            if not lines:
                self._open_next()
                lines = self._read_lines(count_max)
        return lines

    @property
    def is_exhausted(self) -> bool:
        """Always True: a file that returns nothing has nothing more now."""
        return True

    def wait(self, seconds: float) -> None:
        """Wait for `seconds`; nothing signals a write."""
        threading.Event().wait(seconds)

    def forget(self, saved: Offset) -> None:
        """Nothing: the file and the stream belong to others."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # -- inside -------------------------------------------------------------------------------------------------

    def _read_lines(self, count_max: int) -> list[bytes]:
        if self._file is None:
            return []
        offset = self.offset
        size = os.fstat(self._file.fileno()).st_size
        if size < offset.byte_offset or not self._head_matches(self._file, offset):
            self.notices.append(f"{self.path}: was cut short; reading it again from its beginning")
            self._start_file(self._file)
        self._file.seek(offset.byte_offset)
        lines: list[bytes] = []
        while len(lines) < count_max:
            line = self._file.readline(LINE_MAX)
            if not line.endswith(b"\n"):
                line = _whole_messages(line)
                if not line:
                    break
                self._file.seek(offset.byte_offset + len(line))
            lines.append(line)
            offset.byte_offset += len(line)
            offset.line += 1
        if offset.head_size < _HEAD and offset.byte_offset > offset.head_size:
            offset.head_size = min(offset.byte_offset, _HEAD)
            offset.head_digest = _digest(self._file, offset.head_size)
        return lines

    def _is_rotated(self) -> bool:
        """Whether the path now names another file than the open one."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return False
        return self._file is None or os.fstat(self._file.fileno()).st_ino != status.st_ino

    def _next_file(self) -> Path:
        """Return the file that follows the open one after a rotation: of several, the next.

        The last write time orders them: a rotated file is not written again.
        """
        if self._file is None:
            return self.path
        current = os.fstat(self._file.fileno())
        candidates: list[tuple[int, str, Path]] = []
        for path in self.path.parent.iterdir():
            if _ROTATION_SUFFIX.fullmatch(path.name.removeprefix(self.path.name)):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    if status.st_ino != current.st_ino and status.st_mtime_ns >= current.st_mtime_ns and status.st_size:
                        candidates.append((status.st_mtime_ns, path.name, path))
        return min(candidates)[2] if candidates else self.path

    def _open_next(self) -> None:
        next_file = self._next_file()
        self.close()
        self._file = open(next_file, "rb")  # noqa: SIM115 - lives until `close`
        self._start_file(self._file)

    def _start_file(self, file: IO[bytes]) -> None:
        offset = self.offset
        offset.inode, offset.head_digest, offset.head_size = os.fstat(file.fileno()).st_ino, "", 0
        offset.byte_offset = offset.line = 0

    def _resume(self, offset: Offset) -> None:
        """Find the file that the last reader had open: at the path, or rotated to another name."""
        candidates = [self.path]
        if self.path.parent.is_dir():
            candidates += sorted(
                sibling for sibling in self.path.parent.iterdir() if sibling.name.startswith(self.path.name)
            )
        for path in candidates:
            try:
                file = open(path, "rb")  # noqa: SIM115 - lives until `close`
            except OSError:
                continue
            status = os.fstat(file.fileno())
            if (
                status.st_ino == offset.inode
                and status.st_size >= offset.byte_offset
                and self._head_matches(file, offset)
            ):
                self._file = file
                return
            file.close()
        self.notices.append(f"{self.path}: the file that was being read is gone; what it held after that is not known")
        self.offset = Offset(break_count=offset.break_count + 1)

    def _head_matches(self, file: IO[bytes], offset: Offset) -> bool:
        return not offset.head_size or _digest(file, offset.head_size) == offset.head_digest


def _whole_messages(line: bytes) -> bytes:
    """Return the part of a line without an end that can be judged now; empty when there is none.

    In a FIX log without line ends this is everything before the last message. A line longer than `LINE_MAX` is judged
    in pieces, which are then no messages.
    """
    end = line.rfind(_BEGIN, 1) if not line.startswith(b"{") else 0
    if end > 0:
        return line[:end]
    return line if len(line) >= LINE_MAX else b""


def _digest(file: IO[bytes], size: int) -> str:
    file.seek(0)
    return hashlib.sha256(file.read(size)).hexdigest()
