"""Ends a process group when this process dies without a chance to do it itself, by SIGKILL or out of memory.

A small process of its own reads a pipe whose other end only this process has. When the pipe closes, it sends SIGKILL
to the group that was named last. `PR_SET_PDEATHSIG` was rejected: it exists on Linux only, ends with the thread that
started the process, and does not reach the children of the process.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Final

_SCRIPT: Final = """
import os, signal, sys
group = 0
for line in sys.stdin:
    group = int(line)
if group:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class GroupWatchdog:
    """Watches over one process group at a time. Start it before the group, so that no moment is unwatched for long."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def watch(self, group: int) -> None:
        """End this group, in place of any earlier one, when this process dies."""
        self._write(group)

    def close(self) -> None:
        """End nothing any more, and wait for the watchdog to end."""
        self._write(0)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process.wait()

    def _write(self, group: int) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(f"{group}\n")
                self._process.stdin.flush()
