"""What other processes have done to the freezes: looked up often enough that no message leaves on old knowledge.

A guard that follows its store reads the freezes in force again and again. The bound is on the message, not on the
look: what leaves was permitted by freezes read at most `obey_within_ns` before. Where they cannot be read for longer,
nothing leaves at all until they can: the process has lost the store, and does not know what is frozen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from holdover.runtime.database import StoreProblem

log = logging.getLogger("holdover.guard")

_LOOKS: Final = 5  # within the bound: one may be lost, and one more, before a message has to wait for a look
_LEAST_S: Final = 0.005


class Following:
    """Looks into the store by calling `look`, in a thread between `start` and `stop`, and by `fresh` where it must.

    `look` raises `StoreProblem` when the store cannot be read. With a bound of 0 every message has its own look.
    """

    def __init__(self, look: Callable[[], None], obey_within_ns: int) -> None:
        self.obey_within_ns = obey_within_ns
        self.problem = ""
        self._look = look
        self._seen_ns = 0  # monotonic: when the freezes now known were asked for
        self._stop = threading.Event()
        self._one = threading.Lock()
        self._thread: threading.Thread | None = None

    def fresh(self) -> bool:
        """Whether what is known of the freezes is new enough for a message to leave; looks where it is not."""
        if self.obey_within_ns and time.monotonic_ns() - self._seen_ns <= self.obey_within_ns:
            return True
        if self.problem and self.obey_within_ns:
            return False  # the thread is trying; a message does not wait for what has just failed
        return self.look()

    def look(self) -> bool:
        """Look now; False when the store cannot be read."""
        with self._one:
            asked_ns = time.monotonic_ns()
            try:
                self._look()
            except StoreProblem as problem:
                if not self.problem:
                    log.critical("%s; nothing is let out until the freezes can be read again", problem)
                self.problem = str(problem)
                return False
            if self.problem:
                log.warning("the freezes can be read again")
            self.problem = ""
            self._seen_ns = asked_ns
            return True

    def start(self) -> None:
        """Look now and then again and again, in a daemon thread."""
        self.look()
        self._thread = threading.Thread(target=self._run, name="holdover-following", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        every = max(self.obey_within_ns / 1e9 / _LOOKS, _LEAST_S) if self.obey_within_ns else 0.25
        while not self._stop.wait(every):
            try:
                self.look()
            except Exception:  # whatever it is: the thread lives on, and what it did not read is not fresh
                log.exception("looking for freezes failed")
