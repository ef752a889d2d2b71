"""An SQLite database as a place of state, taken by the online backup while others write."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from holdover.adapters.process.place import BadPlace, only, redacted
from holdover.runtime.files import sync_directory, write_whole
from holdover.runtime.redaction import Rules, is_database

_PART: Final = "database"
_WAIT_S: Final = 10.0


class SqlitePlace:
    """One database file; its write-ahead log, where there is one, is taken with it."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    def capture(self, rules: Rules | None) -> dict[str, bytes]:
        """Raises `BadPlace` where there is no database, or it is locked for long."""
        if not self.path.is_file():
            raise BadPlace(f"{self.name}: {self.path} is not there")
        try:
            return redacted({_PART: image(self.path)}, rules)
        except sqlite3.Error as problem:
            raise BadPlace(f"{self.name}: {self.path}: {problem}") from problem

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Write it whole; a log of what stood there before goes first."""
        only(parts, [_PART], self)
        if not is_database(parts[_PART]):
            raise BadPlace(f"{self.name}: what the snapshot has is no SQLite database")
        self.clear()
        write_whole(self.path, parts[_PART])

    def clear(self) -> None:
        """The file is gone, and what belongs to it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", "-wal", "-shm", "-journal"):  # the database first: its log alone is nothing to anybody
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        sync_directory(self.path.parent)


def image(path: Path) -> bytes:
    """A database's content as one file, its log taken in. Raises `sqlite3.Error`."""
    content = path.read_bytes()
    if content[18:20] != b"\x02\x02" or path.with_name(path.name + "-wal").exists():
        source = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_WAIT_S)
        with contextlib.closing(source), contextlib.closing(sqlite3.connect(":memory:")) as copy:
            source.backup(copy)
            content = copy.serialize()
    # else nobody has it open, all of it is in the one file, and opening it would leave a log beside it.
    # How often it was written is no part of its state: the change counter, and the same where it was last valid.
    return content[:24] + b"\0\0\0\1" + content[28:92] + b"\0\0\0\1" + content[96:]
