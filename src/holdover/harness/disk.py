"""What a restart finds on the disk: exactly what was there, or what the kind of restart leaves of it.

A directory is copied at the instant of a kill. `unsynced` and `torn` then take away what a machine that lost its power
would have lost: of an SQLite write-ahead log the frames after the last commit, or the last transaction whose write was
cut in half; of any other file what came after its last sync, or half of the last line.

Source of the frame layout: the SQLite file format, section 4 (write-ahead log).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_WAL_HEADER = 32
_FRAME_HEADER = 24


class Syncs:
    """Which size every file had when this process last synced it, noted by standing in for `os.fsync`."""

    def __init__(self) -> None:
        self.sizes: dict[tuple[int, int], int] = {}
        self._real: Callable[[Any], None] | None = None

    def watch(self) -> None:
        """Begin to note. Undone by `leave`."""
        if self._real is None:
            self._real = os.fsync
            setattr(os, "fsync", self._fsync)  # noqa: B010 - the name os.fsync is typed as a function

    def leave(self) -> None:
        """Stop noting."""
        if self._real is not None:
            setattr(os, "fsync", self._real)  # noqa: B010
            self._real = None

    def _fsync(self, handle: Any) -> None:
        if self._real is not None:
            self._real(handle)
        told = os.fstat(handle if isinstance(handle, int) else handle.fileno())
        self.sizes[told.st_dev, told.st_ino] = told.st_size

    def of(self, directory: Path) -> dict[str, int]:
        """The synced size of every file of a directory that was ever synced, by relative name."""
        found: dict[str, int] = {}
        for path in files_in(directory):
            told = path.stat()
            size = self.sizes.get((told.st_dev, told.st_ino))
            if size is not None:
                found[path.relative_to(directory).as_posix()] = size
        return found


def files_in(directory: Path) -> list[Path]:
    """Every file below a directory, sorted."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def image(directory: Path) -> dict[str, bytes]:
    """Every file below a directory with its content, by relative name."""
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files_in(directory)}


def signature(directory: Path) -> tuple[Any, ...]:
    """What a directory holds, for comparing within one process: equal as long as nothing has been written.

    Of an SQLite database it is what every commit changes (its header's counters, the write-ahead log's header and
    index), of any other file its content.
    """
    found: list[tuple[Any, ...]] = []
    waiting = [str(directory)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    found.append((entry.name, *_content(entry.path)))
    return tuple(sorted(found, key=str))


def _content(path: str) -> tuple[int, bytes]:
    handle = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        head = os.pread(handle, 100, 0)
        if head[:15] == b"SQLite format 3" or path.endswith(("-wal", "-shm")):
            return (0 if path.endswith("-wal") else size), head[:100]
        return size, hashlib.blake2b(head + os.pread(handle, size, len(head))).digest()
    finally:
        os.close(handle)


def lay_down(image: Mapping[str, bytes], directory: Path) -> None:
    """Make a directory that is nobody's what the image has."""
    remove(directory)
    directory.mkdir(parents=True)
    for name, content in image.items():
        if "/" in name:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
        with open(directory / name, "wb", buffering=0) as file:
            file.write(content)


class Held:
    """A directory as it is now, for giving it back after somebody else has worked in it: the very same files.

    Whoever has them open (a database connection of this process, with a file mapped into memory) finds them as they
    were: links keep the files themselves, whatever becomes of their names, and their content is written back in place.
    """

    def __init__(self, directory: Path, links: Path) -> None:
        self.directory, self.links = directory, links
        self.image = image(directory)
        if links.exists():
            shutil.rmtree(links)
        for name in self.image:
            link = links / name
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(directory / name, link)

    def give_back(self) -> None:
        """Make it what it was."""
        for path in files_in(self.directory):
            if path.relative_to(self.directory).as_posix() not in self.image:
                path.unlink()
        for name, content in self.image.items():
            path, link = self.directory / name, self.links / name
            if not path.exists() or path.stat().st_ino != link.stat().st_ino:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                os.link(link, path)
            if path.read_bytes() != content:
                with open(path, "r+b") as file:
                    file.write(content)
                    file.truncate()


def copy(directory: Path, to: Path) -> None:
    """The directory as it is now, byte for byte."""
    remove(to)
    if directory.exists():
        shutil.copytree(directory, to)
    else:
        to.mkdir(parents=True)


def put_back(image: Path, directory: Path) -> None:
    """Make the directory what the image is; the image is used up."""
    remove(directory)
    os.replace(image, directory)


def lose_unsynced(directory: Path, synced: dict[str, int]) -> None:
    """Take away what had not been synced: uncommitted frames, and bytes after a file's last sync."""
    for path in files_in(directory):
        if path.name.endswith("-shm"):
            path.unlink()
        elif path.name.endswith("-wal"):
            _cut(path, _last_commit(path))
        elif not is_sqlite(path):
            size = synced.get(path.relative_to(directory).as_posix())
            if size is not None and size < path.stat().st_size:
                _cut(path, size)


def tear(directory: Path) -> None:
    """Leave the last write half there: the last frame of a write-ahead log, the last line of the newest other file."""
    plain: list[Path] = []
    for path in files_in(directory):
        if path.name.endswith("-shm"):
            continue
        if path.name.endswith("-wal"):
            end = _last_commit(path)
            if end > _WAL_HEADER and end > _taken_over(path):
                _cut(path, end - _frame_size(path) // 2)
            path.with_name(path.name.removesuffix("-wal") + "-shm").unlink(missing_ok=True)
        elif not is_sqlite(path):
            plain.append(path)
    if plain:
        newest = max(plain, key=lambda path: (path.stat().st_mtime_ns, path.name))
        data = newest.read_bytes()
        start = data.rstrip(b"\n").rfind(b"\n") + 1
        _cut(newest, start + (len(data) - start) // 2)


def is_sqlite(path: Path) -> bool:
    """Whether a file begins as an SQLite database does."""
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def remove(directory: Path) -> None:
    """Take a directory away at once, whoever has files of it open.

    It is moved first: a database connection of a life that is over, collected in the middle of this, would take away
    its own log's name, and must find that its database is not where it was.
    """
    if directory.exists():
        aside = directory.with_name(f".{directory.name}.gone")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(directory, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _frame_size(path: Path) -> int:
    with open(path, "rb") as file:
        return _FRAME_HEADER + int(struct.unpack(">I", file.read(12)[8:12])[0])


def _last_commit(path: Path) -> int:
    """Where the last committed transaction of a write-ahead log ends; its header's end when there is none."""
    size = path.stat().st_size
    if size < _WAL_HEADER:
        return 0
    with open(path, "rb") as file:
        header = file.read(_WAL_HEADER)
        frame = _FRAME_HEADER + int(struct.unpack(">I", header[8:12])[0])
        salts = header[16:24]
        end = place = _WAL_HEADER
        while place + frame <= size:
            file.seek(place)
            head = file.read(_FRAME_HEADER)
            if head[8:16] != salts:
                break  # frames of an earlier lap of the log
            place += frame
            if struct.unpack(">I", head[4:8])[0]:
                end = place
        return end


def _taken_over(path: Path) -> int:
    """Up to where a write-ahead log has been checkpointed: what is in the database itself cannot be torn in the log.

    Source: the WAL-index file format; the index tells the log's salts at byte 32, the frames taken over at 96, and at
    128 those that may have been: an index that was made anew at a start knows only these.
    """
    index = path.with_name(path.name.removesuffix("-wal") + "-shm")
    if not index.exists() or index.stat().st_size < 132:
        return 0
    with open(index, "rb") as file:
        told = file.read(132)
    with open(path, "rb") as file:
        if file.read(24)[16:24] != told[32:40]:
            return path.stat().st_size  # a new lap has begun, none of which is written yet: all that is here is over
    frames = max(struct.unpack("=I", told[96:100])[0], struct.unpack("=I", told[128:132])[0])
    return _WAL_HEADER + int(frames) * _frame_size(path)


def _cut(path: Path, size: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size)
