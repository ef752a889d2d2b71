"""A lock file: one process at a time works in a directory.

The operating system releases the lock when the process ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdover.runtime.files import lock_file, make_private_directory


class AlreadyRunningError(RuntimeError):
    """Another process works in the directory; the message names both."""


def lock_directory(directory: Path, program: str) -> Any:
    """Lock the directory for one `program`, until the returned file is closed. Raises `AlreadyRunningError`."""
    make_private_directory(directory)
    file = lock_file(directory / f"{program}.lock")
    if file is None:
        raise AlreadyRunningError(f"{directory}: another {program} runs there")
    return file
