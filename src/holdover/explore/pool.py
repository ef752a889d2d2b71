"""Who does a sweep's pieces: processes of this machine, or the workers of a Dask cluster.

What this starts ends with what has started it: a worker whose sweep was killed would otherwise work on, in folders that
the next run of the same sweep takes for its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any, Final

_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG of Linux, prctl(2)."""


class BadPool(ValueError):
    """Workers that cannot be had; the message says why."""


def die_with(parent: int) -> None:
    """From here on this process is killed when its parent dies, where the machine offers that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it was quicker


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and is the sweep's to answer
    die_with(parent)


class Processes(ProcessPoolExecutor):
    """Processes of this machine, which end when the sweep does, whatever ends it."""

    def __init__(self, workers: int, **options: Any) -> None:
        super().__init__(max_workers=workers, initializer=_begin, initargs=(os.getpid(),), **options)

    def kill_workers(self) -> None:
        """End them in the middle of what they do."""
        for process in list((self._processes or {}).values()):
            process.kill()
        self.shutdown(wait=True, cancel_futures=True)


def processes(workers: int) -> Executor:
    """That many processes of this machine."""
    return Processes(workers)


def dask(scheduler: str) -> Any:
    """A client of a Dask cluster: `get_executor` makes the pool. Raises `BadPool` when there is none to be had."""
    try:
        from distributed import Client
    except ImportError as problem:
        raise BadPool("Dask is not installed: pip install 'holdover[dask]'") from problem
    try:
        return Client(scheduler, timeout=5, set_as_default=False)
    except (OSError, ValueError) as problem:
        raise BadPool(f"no Dask scheduler answers at {scheduler}: {problem}") from problem
