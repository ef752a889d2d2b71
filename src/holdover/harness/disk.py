"""The state of the disk after a restart: intact, or with what each kind of restart loses.

The harness copies a directory at the moment of a kill. `lose_unsynced` and `tear_last_write` then remove what
a power failure would lose. In an SQLite write-ahead log that is every frame after the last commit, or half of
the last frame. In any other file it is every byte after the last sync, or half of the last line.

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


class SyncTracker:
    """Records the size of every file at its last sync, by replacing `os.fsync` in this process."""

    def __init__(self) -> None:
        self.sizes: dict[tuple[int, int], int] = {}
        self._original_fsync: Callable[[Any], None] | None = None

    def start(self) -> None:
        """Start recording; `stop` undoes it."""
        if self._original_fsync is None:
            self._original_fsync = os.fsync
            setattr(os, "fsync", self._fsync)  # noqa: B010 - the name os.fsync is typed as a function

    def stop(self) -> None:
        """Stop recording."""
        if self._original_fsync is not None:
            setattr(os, "fsync", self._original_fsync)  # noqa: B010
            self._original_fsync = None

    def _fsync(self, handle: Any) -> None:
        if self._original_fsync is not None:
            self._original_fsync(handle)
        file_stat = os.fstat(handle if isinstance(handle, int) else handle.fileno())
        self.sizes[file_stat.st_dev, file_stat.st_ino] = file_stat.st_size

    def sizes_in(self, directory: Path) -> dict[str, int]:
        """Return the synced size of every file in a directory that was ever synced, by relative name."""
        sizes: dict[str, int] = {}
        for path in list_files(directory):
            file_stat = path.stat()
            size = self.sizes.get((file_stat.st_dev, file_stat.st_ino))
            if size is not None:
                sizes[path.relative_to(directory).as_posix()] = size
        return sizes


def list_files(directory: Path) -> list[Path]:
    """Return every file below a directory, sorted."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def read_image(directory: Path) -> dict[str, bytes]:
    """Return the content of every file below a directory, by relative name."""
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in list_files(directory)}


def directory_signature(directory: Path) -> tuple[Any, ...]:
    """Return a value that stays equal while nothing is written to the directory. It is valid within one process.

    For an SQLite database it covers what every commit changes: the counters in the header, and the header and
    index of the write-ahead log. For any other file it covers the content.
    """
    signatures: list[tuple[Any, ...]] = []
    directories = [str(directory)]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    directories.append(entry.path)
                else:
                    signatures.append((entry.name, *_content(entry.path)))
    return tuple(sorted(signatures, key=str))


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


def write_image(image: Mapping[str, bytes], directory: Path) -> None:
    """Replace a directory with the files of an image. No process may have the directory in use."""
    for name in image:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"an image names the file {name!r}, which is outside {directory}")
    remove_directory(directory)
    directory.mkdir(parents=True)
    for name, content in image.items():
        if "/" in name:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
        with open(directory / name, "wb", buffering=0) as file:
            file.write(content)


class DirectoryCheckpoint:
    """A checkpoint of a directory that `restore` puts back into the same files.

    Open handles stay valid, for example a database connection of this process that has a file mapped into memory.
    Hard links preserve the inodes when names change, and `restore` writes the content back in place.
    """

    def __init__(self, directory: Path, links: Path) -> None:
        if links.is_relative_to(directory):
            raise ValueError(f"the links of a checkpoint cannot be inside its directory: {links}")
        self.directory, self.links = directory, links
        self.image = read_image(directory)
        if links.exists():
            shutil.rmtree(links)
        for name in self.image:
            link = links / name
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(directory / name, link)

    def restore(self) -> None:
        """Restore the directory to its state at the checkpoint."""
        for path in list_files(self.directory):
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


def copy_directory(directory: Path, destination: Path) -> None:
    """Copy a directory byte for byte."""
    if directory == destination:
        raise ValueError(f"{directory} cannot be copied onto itself")
    remove_directory(destination)
    if directory.exists():
        shutil.copytree(directory, destination)
    else:
        destination.mkdir(parents=True)


def replace_directory(image: Path, directory: Path) -> None:
    """Replace the directory with the image directory, which no longer exists afterwards."""
    remove_directory(directory)
    os.replace(image, directory)


def lose_unsynced(directory: Path, synced: dict[str, int]) -> None:
    """Remove what was not synced: uncommitted frames, and the bytes after a file's last sync."""
    for path in list_files(directory):
        if path.name.endswith("-shm"):
            path.unlink()
        elif path.name.endswith("-wal"):
            _truncate(path, _last_commit(path))
        elif not is_sqlite(path):
            size = synced.get(path.relative_to(directory).as_posix())
            if size is not None and size < path.stat().st_size:
                _truncate(path, size)


def tear_last_write(directory: Path) -> None:
    """Cut the last write in half: the last frame of a write-ahead log, and the last line of the newest other file."""
    plain: list[Path] = []
    for path in list_files(directory):
        if path.name.endswith("-shm"):
            continue
        if path.name.endswith("-wal"):
            end = _last_commit(path)
            if end > _WAL_HEADER and end > _checkpointed_end(path):
                _truncate(path, end - _frame_size(path) // 2)
            path.with_name(path.name.removesuffix("-wal") + "-shm").unlink(missing_ok=True)
        elif not is_sqlite(path):
            plain.append(path)
    if plain:
        newest = max(plain, key=lambda path: (path.stat().st_mtime_ns, path.name))
        data = newest.read_bytes()
        start = data.rstrip(b"\n").rfind(b"\n") + 1
        _truncate(newest, start + (len(data) - start) // 2)


def is_sqlite(path: Path) -> bool:
    """Return whether a file has the header of an SQLite database."""
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def remove_directory(directory: Path) -> None:
    """Remove a directory at once, also when files in it are open.

    The directory is renamed first. Otherwise a database connection of a former incarnation that is garbage
    collected during the removal would delete its log under the same name.
    """
    if directory.exists():
        trash = directory.with_name(f".{directory.name}.gone")
        shutil.rmtree(trash, ignore_errors=True)
        os.replace(directory, trash)
        shutil.rmtree(trash, ignore_errors=True)


def _frame_size(path: Path) -> int:
    with open(path, "rb") as file:
        return _FRAME_HEADER + int(struct.unpack(">I", file.read(12)[8:12])[0])


def _last_commit(path: Path) -> int:
    """Return the offset at which the last committed transaction of a write-ahead log ends, or the end of its header."""
    size = path.stat().st_size
    if size < _WAL_HEADER:
        return 0
    with open(path, "rb") as file:
        header = file.read(_WAL_HEADER)
        frame_bytes = _FRAME_HEADER + int(struct.unpack(">I", header[8:12])[0])
        salts = header[16:24]
        end = offset = _WAL_HEADER
        while offset + frame_bytes <= size:
            file.seek(offset)
            head = file.read(_FRAME_HEADER)
            if head[8:16] != salts:
                break  # frames of an earlier pass over the log
            offset += frame_bytes
            if struct.unpack(">I", head[4:8])[0]:
                end = offset
        return end


def _checkpointed_end(path: Path) -> int:
    """Return the offset up to which the write-ahead log is checkpointed.

    Pages that are already in the database cannot be torn in the log.

    Source: the WAL-index file format. The index has the salts of the log at byte 32, the number of checkpointed
    frames at byte 96, and the number of frames that may be checkpointed at byte 128. An index that was rebuilt at
    a start has only the last number.
    """
    index = path.with_name(path.name.removesuffix("-wal") + "-shm")
    if not index.exists() or index.stat().st_size < 132:
        return 0
    with open(index, "rb") as file:
        header = file.read(132)
    with open(path, "rb") as file:
        if file.read(24)[16:24] != header[32:40]:
            return path.stat().st_size  # a new pass without a frame: every frame in the file is checkpointed
    frames = max(struct.unpack("=I", header[96:100])[0], struct.unpack("=I", header[128:132])[0])
    return _WAL_HEADER + int(frames) * _frame_size(path)


def _truncate(path: Path, size: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size)
