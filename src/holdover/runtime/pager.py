"""Pages on their way to people: an outbox, levels, retries; at least once, with one key to join repeats.

The outbox lives in the freeze store, written in the breach's own transaction. Delivery is somebody else's thread: the
guard never waits for a network. A channel that fails is tried again, later each time, for as long as it takes. What
nobody acknowledges goes up, level by level, and then to the last level again and again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence

import msgspec

from holdover.runtime.breach import Page
from holdover.runtime.channels import Channel
from holdover.runtime.database import StoreProblem
from holdover.runtime.freezes import FreezeStore

log = logging.getLogger("holdover.pager")

_FIRST_RETRY_NS = 1_000_000_000
_RETRY_NS_MAX = 300_000_000_000


class Level(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is paged when nobody has acknowledged for `after_s` seconds: names of channels."""

    after_s: float = 0.0
    channels: list[str]


class Pager:
    """Delivers what is in the outbox. `deliver_due` is one round; `start` runs rounds in a thread of its own.

    Without `levels` every channel is paged at once and it ends there. The last level is paged again every `repeat_s`
    seconds until somebody acknowledges; 0 is never.
    """

    def __init__(
        self,
        store: FreezeStore,
        channels: Sequence[Channel],
        clock: Callable[[], int],
        levels: Sequence[Level] = (),
        repeat_s: float = 0.0,
    ) -> None:
        self.store = store
        self.channels = {channel.name: channel for channel in channels}
        self.levels = list(levels) or [Level(channels=list(self.channels))]
        self.repeat_s = repeat_s
        self._clock = clock
        self._wake = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None
        self._direct: list[Page] = []

    def names(self) -> list[str]:
        """The channels that a new page goes to, in the order given."""
        return self.levels[0].channels

    def deliver_due(self) -> int:
        """Try every page that is due once; returns how many were delivered. Never raises for a channel's failure."""
        done = 0
        while self._direct:
            done += self._deliver_directly(self._direct.pop(0))
        self._escalate()
        # What is for channels that this process does not know is left to those that do.
        for pending in self.store.undelivered(self._clock(), list(self.channels)):
            if not self.store.claim(pending.number, self._clock()):
                continue
            try:
                self.channels[pending.channel].deliver(pending.page)
            except Exception as problem:
                wait = min(_FIRST_RETRY_NS << min(pending.attempts, 12), _RETRY_NS_MAX)
                self.store.failed(pending.number, self._clock() + wait, f"{type(problem).__name__}: {problem}")
                log.warning("page %s not delivered by %s: %s", pending.number, pending.channel, problem)
            else:
                self.store.delivered(pending.number, self._clock())
                done += 1
        return done

    def _escalate(self) -> None:
        if len(self.levels) == 1 and not self.repeat_s:
            return
        now_ns = self._clock()
        for alert in self.store.alerts():
            if alert.acknowledged_ns is not None:
                continue
            level = alert.level
            if level + 1 < len(self.levels):
                level += 1
                due_ns = alert.opened_ns + round(self.levels[level].after_s * 1e9)
            elif self.repeat_s:
                due_ns = max(alert.escalated_ns, alert.opened_ns) + round(self.repeat_s * 1e9)
            else:
                continue
            if now_ns >= due_ns:
                self.store.escalate(alert, level, self.levels[level].channels, now_ns)

    def direct(self, page: Page) -> None:
        """A page that could not be put into the outbox: kept in memory and delivered as soon as possible."""
        self._direct.append(page)
        self._wake.set()

    def _deliver_directly(self, page: Page) -> int:
        done = 0
        for channel in self.channels.values():
            try:
                channel.deliver(page)
                done += 1
            except Exception as problem:
                log.error("page not delivered by %s: %s", channel.name, problem)
        return done

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    def start(self) -> None:
        """Deliver in a daemon thread until `stop`."""
        if self._thread is None:
            self._stop = False
            self._thread = threading.Thread(target=self._run, name="holdover-pager", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread after its present round; what is undelivered stays in the outbox."""
        self._stop = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None

    def _run(self) -> None:
        while not self._stop:
            self._wake.wait(1.0)
            self._wake.clear()
            with contextlib.suppress(StoreProblem):  # the guard itself says so; the next round tries again
                self.deliver_due()
