"""Work that a guard does off its caller's path: bundles, counts, the saved memory.

A guard of `Guard.open` has one such thread; any other guard does the same work at once, so that simulations stay
deterministic. The queue is bounded: work that does not fit is refused and reported, and the caller never waits. Nothing
that a freeze depends on goes through here.

The interpreter runs one thread at a time, so the thread must also give way while it works: `Pace.give_way` is called
between small pieces, and sleeps as long as the last pieces took.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

log = logging.getLogger("holdover.guard")

QUEUE_MAX: Final = 16
_PIECE_S: Final = 0.0003


class Pace:
    """Gives way to other threads between pieces of work, when it is `active`; else it does nothing."""

    def __init__(self, *, active: bool) -> None:
        self._active = active
        self._began_s = time.perf_counter()

    def give_way(self) -> None:
        """Sleep when the work since the last sleep took a fraction of a millisecond."""
        if not self._active:
            return
        worked_s = time.perf_counter() - self._began_s
        if worked_s >= _PIECE_S:
            time.sleep(min(worked_s, 0.002))
            self._began_s = time.perf_counter()


Work = Callable[[Pace], None]


class BackgroundWriter:
    """A bounded queue of work and the thread that does it; without `start`, `submit` does the work itself.

    `problem` says what was last refused or failed; `refused_count` counts work that the full queue refused.
    """

    def __init__(self, queue_max: int = QUEUE_MAX) -> None:
        if queue_max < 1:
            raise ValueError(f"a queue of {queue_max} works would refuse all work; it needs room for at least 1")
        self.problem = ""
        self._queue_max = queue_max
        self.refused_count = 0
        self._queue: deque[tuple[str, Work]] = deque()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._is_busy = False
        self._thread: threading.Thread | None = None
        self._is_started = False

    @property
    def is_started(self) -> bool:
        """Whether a thread does the work."""
        return self._is_started

    def start(self) -> None:
        """Do all further work in a daemon thread; what is queued when the interpreter exits is still done."""
        if self._is_started:
            raise RuntimeError("the background writer runs already")
        self._is_started, self._is_stopping = True, False
        self._start_thread()
        atexit.register(self.stop)

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._run, name="holdover-background", daemon=True)
        self._thread.start()

    def submit(self, name: str, work: Work, *, replaces: bool = False) -> bool:
        """Queue work, or do it at once when there is no thread. Returns False when the queue is full.

        Args:
            name: what the work is, for the report of a failure.
            work: receives the pace at which it must give way.
            replaces: whether queued work of the same name is dropped, because this makes it unnecessary.
        """
        if not name:
            raise ValueError("work needs a name: the report of its failure states it")
        if not self._is_started:
            self._do(name, work, Pace(active=False))
            return True
        with self._changed:
            if replaces:
                self._queue = deque(entry for entry in self._queue if entry[0] != name)
            if len(self._queue) >= self._queue_max:
                self.refused_count += 1
                self.problem = f"{name} was not written: {self._queue_max} others are waiting for the disk"
                log.error("%s", self.problem)
                return False
            self._queue.append((name, work))
            if self._thread is None or not self._thread.is_alive():
                log.error("the background thread had ended; it is started again")
                self._start_thread()
            self._changed.notify_all()
        return True

    def drain(self, timeout_s: float = 30.0) -> bool:
        """Wait until all queued work is done. Returns False when that takes longer than `timeout_s`."""
        if timeout_s < 0:
            raise ValueError(f"the queue cannot be awaited for {timeout_s:g} s; the time is 0 or above")
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._is_busy, timeout_s)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Finish the queued work and end the thread; later work is done at once."""
        if not self._is_started:
            return
        atexit.unregister(self.stop)
        if not self.drain(timeout_s):
            self.problem = f"work was not finished within {timeout_s:g} s"
            log.error("%s: %s", self.problem, ", ".join(name for name, _ in self._queue) or "the current one")
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._is_started = False

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_stopping)
                if not self._queue:
                    return
                name, work = self._queue.popleft()
                self._is_busy = True
            try:
                self._do(name, work, Pace(active=True))
            finally:
                with self._changed:
                    self._is_busy = False
                    self._changed.notify_all()

    def _do(self, name: str, work: Work, pace: Pace) -> None:
        try:
            work(pace)
        except Exception as error:  # what is written here must never stop trading or undo a freeze
            self.problem = f"{name} could not be written: {error}"
            log.error("%s", self.problem)
