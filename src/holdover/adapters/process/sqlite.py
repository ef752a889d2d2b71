"""An SQLite database as a state store, captured by the online backup while others write."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from holdover.adapters.process.state_store import StateStoreError, redact_files, require_parts
from holdover.runtime.files import sync_directory, write_whole
from holdover.runtime.redaction import RedactionRules, is_database

_PART: Final = "database"
_WAIT_S: Final = 10.0


class SqliteStore:
    """One database file; the capture includes its write-ahead log."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    def capture(self, rules: RedactionRules | None) -> dict[str, bytes]:
        """Capture the database. Raises `StateStoreError` when there is none or it stays locked."""
        if not self.path.is_file():
            raise StateStoreError(f"{self.name}: {self.path} is not there")
        try:
            return redact_files({_PART: read_database(self.path)}, rules)
        except sqlite3.Error as problem:
            raise StateStoreError(f"{self.name}: {self.path}: {problem}") from problem

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Write the database; remove the former one and its log first.

        Raises `StateStoreError` when the part is not an SQLite database.
        """
        require_parts(parts, [_PART], self)
        if not is_database(parts[_PART]):
            raise StateStoreError(f"{self.name}: what the snapshot has is no SQLite database")
        self.clear()
        write_whole(self.path, parts[_PART])

    def clear(self) -> None:
        """Remove the database and the files that belong to it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", "-wal", "-shm", "-journal"):  # the database first: a log without it is useless
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        sync_directory(self.path.parent)


def read_database(path: Path) -> bytes:
    """Return the content of a database as one file, its log included. Raises `sqlite3.Error`."""
    content = path.read_bytes()
    if content[18:20] != b"\x02\x02" or path.with_name(path.name + "-wal").exists():
        source = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_WAIT_S)
        with contextlib.closing(source), contextlib.closing(sqlite3.connect(":memory:")) as copy:
            source.backup(copy)
            content = copy.serialize()
    # Otherwise no one has it open and the file is complete; opening it would leave a log next to it.
    # The change counter and its copy are reset: how often the file was written is not part of its state.
    return content[:24] + b"\0\0\0\1" + content[28:92] + b"\0\0\0\1" + content[96:]
