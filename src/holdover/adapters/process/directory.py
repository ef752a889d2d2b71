"""A directory as a state store: its files byte for byte; with redaction, database logs are checkpointed first."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from holdover.adapters.process.engine_store import redact_engine_store
from holdover.adapters.process.sqlite import read_database
from holdover.adapters.process.state_store import StateStoreError, redact_files
from holdover.runtime.files import sync_directory
from holdover.runtime.redaction import RedactionRules, is_database

_ATTEMPTS: Final = 20
_SIDE_FILES: Final = ("-wal", "-shm", "-journal")
"""Suffixes of the files that belong to an SQLite database."""


class DirectoryStore:
    """The regular files below a directory, except those that match a pattern of `exclude` by name or path.

    An SQLite database is captured by the online backup, so it is consistent while others write to it. Files that
    change during the capture are read again.
    """

    def __init__(self, name: str, path: Path, exclude: Iterable[str] = ()) -> None:
        self.name, self.path, self.exclude = name, path, list(exclude)

    def capture(self, rules: RedactionRules | None) -> dict[str, bytes]:
        """Capture the files. Raises `StateStoreError` when they are missing, unreadable or change all the time."""
        try:
            for _ in range(_ATTEMPTS):
                earlier_files = self._scan()
                databases = {name for name in earlier_files if self._is_database(name)}
                side_files = {f"{name}{suffix}" for name in databases for suffix in _SIDE_FILES}
                plain = {
                    name: (self.path / name).read_bytes()
                    for name in earlier_files
                    if name not in databases and name not in side_files
                }
                if {name: earlier_files[name] for name in plain} == {
                    name: signature for name, signature in self._scan().items() if name in plain
                }:
                    parts = {**plain, **{name: read_database(self.path / name) for name in databases}}
                    return self._redact(dict(sorted(parts.items())), rules)
        except FileNotFoundError as error:
            raise StateStoreError(f"{self.name}: {error.filename}: is not there") from error
        except OSError as error:
            raise StateStoreError(f"{self.name}: {error.filename}: {error.strerror}") from error
        raise StateStoreError(
            f"{self.name}: {self.path} changes all the time; take it while nobody writes, or exclude files"
        )

    def _redact(self, parts: Mapping[str, bytes], rules: RedactionRules | None) -> dict[str, bytes]:
        store = redact_engine_store(parts, rules) if rules is not None else {}
        plain_parts = {name: content for name, content in parts.items() if name not in store}
        return dict(sorted({**redact_files(plain_parts, rules), **store}.items()))

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Restore the directory atomically: it is built next to the target and renamed.

        Raises `StateStoreError` when a part's name leads out of the directory.
        """
        part = self.path.with_name(f".{self.path.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, content in parts.items():
            path = part / name
            if not path.resolve().is_relative_to(part.resolve()):
                raise StateStoreError(f"{self.name}: a part is called {name}, which leads out of its directory")
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for folder in [*(entry for entry in part.rglob("*") if entry.is_dir()), part]:
            sync_directory(folder)
        self.clear()
        os.replace(part, self.path)
        sync_directory(self.path.parent)

    def clear(self) -> None:
        """Remove the directory."""
        trash = self.path.with_name(f".{self.path.name}.gone")
        shutil.rmtree(trash, ignore_errors=True)
        if self.path.exists():
            os.replace(self.path, trash)
            sync_directory(self.path.parent)
            shutil.rmtree(trash)

    def _is_database(self, name: str) -> bool:
        with open(self.path / name, "rb") as file:
            return is_database(file.read(16))

    def _scan(self) -> dict[str, tuple[int, int, int]]:
        files: dict[str, tuple[int, int, int]] = {}
        if not self.path.is_dir():
            raise StateStoreError(f"{self.name}: {self.path} is no directory")
        for path in sorted(self.path.rglob("*")):
            file_stat = path.stat()
            name = path.relative_to(self.path).as_posix()
            if stat.S_ISREG(file_stat.st_mode) and not any(
                fnmatch(name, pattern) or fnmatch(path.name, pattern) for pattern in self.exclude
            ):
                files[name] = (file_stat.st_size, file_stat.st_mtime_ns, file_stat.st_ino)
        return files
