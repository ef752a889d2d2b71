"""A directory as a place of state: its files, byte for byte, databases with their logs taken in when redacted."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from holdover.adapters.process.engine_store import redacted_store
from holdover.adapters.process.place import BadPlace, redacted
from holdover.adapters.process.sqlite import image
from holdover.runtime.files import sync_directory
from holdover.runtime.redaction import Rules, is_database

_TRIES: Final = 20
_SIDE: Final = ("-wal", "-shm", "-journal")
"""What stands beside an SQLite database and belongs to it."""


class Directory:
    """The regular files below a directory, without those whose name or path a pattern of `exclude` fits.

    An SQLite database in it is taken by the online backup, so that it is whole whoever writes it; files that change
    while they are read are read again.
    """

    def __init__(self, name: str, path: Path, exclude: Iterable[str] = ()) -> None:
        self.name, self.path, self.exclude = name, path, list(exclude)

    def capture(self, rules: Rules | None) -> dict[str, bytes]:
        """Raises `BadPlace` where it is none, cannot be read, or is never at rest."""
        try:
            for _ in range(_TRIES):
                before = self._look()
                databases = {name for name in before if self._is_database(name)}
                side = {f"{name}{suffix}" for name in databases for suffix in _SIDE}
                plain = {
                    name: (self.path / name).read_bytes()
                    for name in before
                    if name not in databases and name not in side
                }
                if {name: before[name] for name in plain} == {
                    name: seen for name, seen in self._look().items() if name in plain
                }:
                    parts = {**plain, **{name: image(self.path / name) for name in databases}}
                    return self._redacted(dict(sorted(parts.items())), rules)
        except FileNotFoundError as problem:
            raise BadPlace(f"{self.name}: {problem.filename}: is not there") from problem
        except OSError as problem:
            raise BadPlace(f"{self.name}: {problem.filename}: {problem.strerror}") from problem
        raise BadPlace(f"{self.name}: {self.path} changes all the time; take it while nobody writes, or exclude files")

    def _redacted(self, parts: Mapping[str, bytes], rules: Rules | None) -> dict[str, bytes]:
        store = redacted_store(parts, rules) if rules is not None else {}
        others = {name: content for name, content in parts.items() if name not in store}
        return dict(sorted({**redacted(others, rules), **store}.items()))

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """The directory is there whole, or not at all: it is made beside its place and renamed."""
        part = self.path.with_name(f".{self.path.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, content in parts.items():
            path = part / name
            if not path.resolve().is_relative_to(part.resolve()):
                raise BadPlace(f"{self.name}: a part is called {name}, which leads out of its directory")
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for folder in [*(one for one in part.rglob("*") if one.is_dir()), part]:
            sync_directory(folder)
        self.clear()
        os.replace(part, self.path)
        sync_directory(self.path.parent)

    def clear(self) -> None:
        """The directory is gone."""
        aside = self.path.with_name(f".{self.path.name}.gone")
        shutil.rmtree(aside, ignore_errors=True)
        if self.path.exists():
            os.replace(self.path, aside)
            sync_directory(self.path.parent)
            shutil.rmtree(aside)

    def _is_database(self, name: str) -> bool:
        with open(self.path / name, "rb") as file:
            return is_database(file.read(16))

    def _look(self) -> dict[str, tuple[int, int, int]]:
        found: dict[str, tuple[int, int, int]] = {}
        if not self.path.is_dir():
            raise BadPlace(f"{self.name}: {self.path} is no directory")
        for path in sorted(self.path.rglob("*")):
            told = path.stat()
            name = path.relative_to(self.path).as_posix()
            if stat.S_ISREG(told.st_mode) and not any(
                fnmatch(name, one) or fnmatch(path.name, one) for one in self.exclude
            ):
                found[name] = (told.st_size, told.st_mtime_ns, told.st_ino)
        return found
