"""A spool: stores received messages on disk before the receiver continues. One thread writes it, another reads it.

A spool is a folder of numbered files. A message is its length in eight digits, a space, its bytes and a line
end, so line ends inside a message do no harm and `holdover audit` can read the files as FIX logs. A file that
has reached its maximum size is followed by another; files before the one being read may be deleted.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO, Final

import msgspec

from holdover.runtime.files import make_private_directory, open_private, sync_directory
from holdover.watch.source import Offset, SourceError

_HEAD: Final = 9
_SUFFIX: Final = ".fix"


class Spool:
    """One folder. `append` and `read_lines` may run in different threads; everything read has been synced.

    Raises `SourceError` when the folder is shorter than `offset`.
    """

    def __init__(self, directory: Path, offset: Offset | None = None, *, size_max: int = 64 << 20) -> None:
        self.offset = msgspec.structs.replace(offset) if offset is not None else Offset()
        self._directory, self._size_max = directory, size_max
        self._lock = threading.Lock()
        make_private_directory(directory)
        numbers = sorted(int(path.stem) for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdigit())
        last = numbers[-1] if numbers else 1
        path = self._path(last)
        self._write_file: IO[bytes] = open_private(path)
        sync_directory(directory)
        whole_size = _whole_size(path)
        self._write_file.truncate(whole_size)  # what a kill left of a message that nobody was told is stored
        self._end = (last, whole_size)
        self._read_file: IO[bytes] | None = None
        if not self.offset.sequence:
            self.offset.sequence = numbers[0] if numbers else last
        reading_path = self._path(self.offset.sequence)
        if not reading_path.exists() or reading_path.stat().st_size < self.offset.byte_offset:
            raise SourceError(
                f"{reading_path}: is shorter than what was judged of it; put it back, or begin a new state folder"
            )

    def append(self, message: bytes) -> None:
        """Append one message; it is on disk on return. Raises `OSError` when the write fails."""
        number, size = self._end
        record = b"%08d %s\n" % (len(message), message)
        self._write_file.write(record)
        self._write_file.flush()
        os.fsync(self._write_file.fileno())
        size += len(record)
        if size >= self._size_max:
            self._write_file.close()
            number, size = number + 1, 0
            self._write_file = open_private(self._path(number))
            sync_directory(self._directory)
        with self._lock:
            self._end = (number, size)

    def read_lines(self, count_max: int = 5000) -> list[bytes]:
        """Return at most `count_max` new messages, with a line end after each."""
        with self._lock:
            last, size = self._end
        offset = self.offset
        messages: list[bytes] = []
        while len(messages) < count_max:
            if self._read_file is None:
                self._read_file = open(self._path(offset.sequence), "rb")  # noqa: SIM115 - lives until `close`
                self._read_file.seek(offset.byte_offset)
            if offset.sequence == last and offset.byte_offset >= size:
                break
            head = self._read_file.read(_HEAD)
            if not head and offset.sequence < last:
                self._read_file.close()
                self._read_file = None
                offset.sequence, offset.byte_offset = offset.sequence + 1, 0
                continue
            message = self._read_file.read(int(head) + 1)
            messages.append(message)
            offset.byte_offset += len(head) + len(message)
            offset.line += 1
        return messages

    def trim(self, saved: Offset, now_ns: int, days: float, size_max: int) -> int:
        """Delete the oldest files that a reader which continues at `saved` no longer needs. Returns their count.

        Args:
            saved: an offset that is on disk; the file in which it is, and every later one, stays.
            now_ns: the current time.
            days: a file is deleted when its last message is older than this.
            size_max: the oldest files are deleted, however new, until the folder has at most this many bytes.
        """
        paths = sorted(path for path in self._directory.glob(f"*{_SUFFIX}") if path.stem.isdigit())
        statuses = [(path, path.stat()) for path in paths]
        size = sum(status.st_size for _, status in statuses)
        deleted = 0
        for path, status in statuses:
            is_old = now_ns - status.st_mtime_ns > days * 86_400e9
            if int(path.stem) >= saved.sequence or not (is_old or size > size_max):
                break
            path.unlink()
            size -= status.st_size
            deleted += 1
        if deleted:
            sync_directory(self._directory)
        return deleted

    def close(self) -> None:
        """Close the files."""
        self._write_file.close()
        if self._read_file is not None:
            self._read_file.close()
            self._read_file = None

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:06d}{_SUFFIX}"


def _whole_size(path: Path) -> int:
    """Return how many bytes of a file are whole messages."""
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
