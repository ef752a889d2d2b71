"""One process at a time on one directory: a lock that lasts as long as whoever holds it, and no longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdover.runtime.files import held_alone


class Occupied(RuntimeError):
    """Another process has the directory; the message says which directory and what runs there."""


def alone(directory: Path, what: str) -> Any:
    """Hold the directory for one `what`, until the file that is returned is closed. Raises `Occupied`."""
    directory.mkdir(parents=True, exist_ok=True)
    file = held_alone(directory / f"{what}.lock")
    if file is None:
        raise Occupied(f"{directory}: another {what} runs there")
    return file
