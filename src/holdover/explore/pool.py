"""Workers for the pieces of a sweep: local processes, or a Dask cluster.

Workers end when the sweep that started them ends. An orphaned worker would keep writing to folders that the
next run of the same sweep uses.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
"""PR_SET_PDEATHSIG of Linux, prctl(2)."""


class PoolError(ValueError):
    """A worker pool that cannot be created; the message gives the reason."""


def exit_with_parent(parent: int) -> None:
    """Kill this process when its parent dies, where the operating system supports that (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before prctl took effect


def _start_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the sweep handles it
    exit_with_parent(parent)


class WorkerProcesses(ProcessPoolExecutor):
    """A pool of local processes that end when the sweep process ends."""

    def __init__(self, workers: int, **options: Any) -> None:
        super().__init__(max_workers=workers, initializer=_start_worker, initargs=(os.getpid(),), **options)

    def kill_workers(self) -> None:
        """Kill all workers at once, also in the middle of a piece."""
        for process in list((self._processes or {}).values()):
            process.kill()
        self.shutdown(wait=True, cancel_futures=True)


def make_process_pool(workers: int) -> Executor:
    """Return a pool of that many local processes."""
    if workers < 1:
        raise PoolError(f"a pool of {workers} processes, should be at least 1")
    return WorkerProcesses(workers)


def connect_dask(scheduler: str) -> Any:
    """Return a client of a Dask cluster; its `get_executor` makes the pool.

    Raises `PoolError` when Dask is not installed or no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as problem:
        raise PoolError("Dask is not installed: pip install 'holdover[dask]'") from problem
    try:
        return Client(scheduler, timeout=5, set_as_default=False)
    except (OSError, ValueError) as problem:
        raise PoolError(f"no Dask scheduler answers at {scheduler}: {problem}") from problem
