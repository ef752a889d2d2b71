"""Files that are there whole, or as they were before."""

from __future__ import annotations

import fcntl
import os
import tomllib
from pathlib import Path
from typing import IO, Any


def read_toml(path: Path, bad: type[Exception]) -> dict[str, Any]:
    """What a TOML file holds. Raises `bad` with a sentence when it cannot be read or is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise bad(f"{path.name}: cannot be read: {problem.strerror}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise bad(f"{path.name}: not a TOML file: {problem}") from problem


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or as it was before, whatever happens meanwhile."""
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a folder survive the machine."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def held_alone(path: Path) -> IO[bytes] | None:
    """A lock file, held until what is returned is closed or its process ends; None when another process has it."""
    file = open(path, "ab")  # noqa: SIM115 - lives as long as whoever holds it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
