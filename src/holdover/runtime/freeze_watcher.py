"""The freeze watcher: keeps a guard's view of the freezes in a shared store fresh.

A guard that shares its store reads the freezes in force repeatedly. The bound applies to the message, not to
the read: a message leaves only if the freezes were read at most `obey_within_ns` before. If they cannot be
read for longer, nothing leaves until they can be: the process has lost the store and does not know what is
frozen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from holdover.runtime.database import StoreError

log = logging.getLogger("holdover.guard")

_READS_PER_BOUND: Final = 5  # reads per bound: one may fail, and one more, before a message has to wait for a read
_INTERVAL_MIN_S: Final = 0.005


class FreezeWatcher:
    """Calls `read_freezes` in a thread between `start` and `stop`, and from `ensure_fresh` when necessary.

    `read_freezes` raises `StoreError` when the store cannot be read. With a bound of 0 every message causes its
    own read. `timeout_s` bounds how long a message waits for a read of another thread.
    """

    def __init__(self, read_freezes: Callable[[], None], obey_within_ns: int, timeout_s: float = 5.0) -> None:
        if obey_within_ns < 0:
            raise ValueError(f"freezes should be at most {obey_within_ns} ns old: the bound is 0 or above")
        self.obey_within_ns = obey_within_ns
        self.problem = ""
        self._read_freezes = read_freezes
        self._timeout_s = timeout_s
        self._failed_ns = 0  # monotonic: the end of the last read that failed
        self._read_ns = 0  # monotonic: the start of the read that gave the current freezes
        self._stop = threading.Event()
        self._read_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ensure_fresh(self) -> bool:
        """Whether the known freezes are fresh enough for a message to leave; reads them again when they are not."""
        if self.obey_within_ns and time.monotonic_ns() - self._read_ns <= self.obey_within_ns:
            return True
        if self.problem and self.obey_within_ns:
            return False  # the thread is retrying; a message does not wait for a read that has just failed
        return self.refresh()

    def refresh(self) -> bool:
        """Read the freezes now. Returns False when the store cannot be read.

        While another thread reads, it waits for `timeout_s` at most; a read that fails meanwhile is its own result.
        """
        began_ns = time.monotonic_ns()
        if not self._read_lock.acquire(timeout=self._timeout_s):
            return False
        try:
            if self._failed_ns > began_ns:
                return False
            started_ns = time.monotonic_ns()
            try:
                self._read_freezes()
            except StoreError as problem:
                if not self.problem:
                    log.critical("%s; nothing is let out until the freezes can be read again", problem)
                self.problem = str(problem)
                self._failed_ns = time.monotonic_ns()
                return False
            if self.problem:
                log.warning("the freezes can be read again")
            self.problem = ""
            self._read_ns = started_ns
            return True
        finally:
            self._read_lock.release()

    def start(self) -> None:
        """Read the freezes now, and then periodically in a daemon thread."""
        if self._thread is not None:
            raise RuntimeError("the freeze watcher runs already")
        self.refresh()
        self._thread = threading.Thread(target=self._run, name="holdover-following", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        interval_s = max(self.obey_within_ns / 1e9 / _READS_PER_BOUND, _INTERVAL_MIN_S) if self.obey_within_ns else 0.25
        while not self._stop.wait(interval_s):
            try:
                self.refresh()
            except Exception:  # the thread goes on after any error; freezes that it could not read are not fresh
                log.exception("looking for freezes failed")
