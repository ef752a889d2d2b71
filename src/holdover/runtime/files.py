"""Atomic file writes, TOML reading and lock files."""

from __future__ import annotations

import fcntl
import os
import tomllib
from pathlib import Path
from typing import IO, Any


def read_toml(path: Path, error_type: type[Exception]) -> dict[str, Any]:
    """Return the content of a TOML file. Raises `error_type` with a sentence when the file cannot be read or parsed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise error_type(f"{path.name}: cannot be read: {problem.strerror}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise error_type(f"{path.name}: not a TOML file: {problem}") from problem


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: after a crash it has either its new or its old content."""
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Sync a directory, so that its names survive a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock_file(path: Path) -> IO[bytes] | None:
    """Lock a lock file until the returned file is closed or the process ends. Returns None when another process
    holds it.
    """
    file = open(path, "ab")  # noqa: SIM115 - lives as long as whoever holds it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
