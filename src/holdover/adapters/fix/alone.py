"""One process at a time on one directory: a lock that lasts as long as whoever holds it, and no longer."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any


class Occupied(RuntimeError):
    """Another process has the directory; the message says which directory and what runs there."""


def alone(directory: Path, what: str) -> Any:
    """Hold the directory for one `what`, until the file that is returned is closed. Raises `Occupied`."""
    directory.mkdir(parents=True, exist_ok=True)
    file = open(directory / f"{what}.lock", "w")  # noqa: SIM115 - held as long as the daemon lives
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise Occupied(f"{directory}: another {what} runs there") from None
    return file
