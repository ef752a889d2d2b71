"""The pager: delivers pages from the outbox with levels and retries, at least once, with one key to join repeats.

The outbox is in the freeze store, written in the breach's own transaction. Delivery runs in its own thread:
the guard never waits for a network. A failed delivery is retried with growing delays until it succeeds. An
unacknowledged alert escalates level by level and then repeats the last level, unless its urgency is low.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from holdover.runtime.breach import Page
from holdover.runtime.channels import Channel
from holdover.runtime.database import StoreError
from holdover.runtime.freeze_store import FreezeStore
from holdover.runtime.outbox import RETRY_NS_MAX

log = logging.getLogger("holdover.pager")

_FIRST_RETRY_NS = 1_000_000_000


class EscalationLevel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An escalation level: the channels to page when nobody has acknowledged for `after_s` seconds."""

    after_s: float = 0.0
    channels: list[str]


class _DirectPage:
    """A page that is in no outbox, and the channels that have not accepted it. Times are monotonic."""

    def __init__(self, page: Page, channels: list[str]) -> None:
        self.page, self.channels = page, channels
        self.attempts = 0
        self.next_ns = 0


class Pager:
    """Delivers the outbox. `deliver_due` is one round; `start` runs rounds in a thread.

    Without `levels`, every channel is paged at once and there is no escalation. The last level is paged again
    every `repeat_s` seconds until somebody acknowledges; 0 is never. `redact` is applied to each page on its way out.
    """

    def __init__(
        self,
        store: FreezeStore,
        channels: Sequence[Channel],
        clock: Callable[[], int],
        levels: Sequence[EscalationLevel] = (),
        repeat_s: float = 0.0,
    ) -> None:
        self.store = store
        self.channels = {channel.name: channel for channel in channels}
        if len(self.channels) < len(channels):
            raise ValueError(f"two channels have one name: {', '.join(channel.name for channel in channels)}")
        if repeat_s < 0:
            raise ValueError(f"alerts repeat every {repeat_s} s, should be 0 (once) or above")
        if any(level.after_s < 0 for level in levels):
            raise ValueError(f"a level pages after {min(level.after_s for level in levels)} s, should be 0 or above")
        self.levels = list(levels) or [EscalationLevel(channels=list(self.channels))]
        self.repeat_s = repeat_s
        self.redact: Callable[[Page], Page] = lambda page: page
        self._clock = clock
        self._wake = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None
        self._direct_pages: list[_DirectPage] = []
        self._first_seen_s: dict[tuple[str, int], float] = {}

    def channel_names(self) -> list[str]:
        """Return the channels of a new page, in the configured order."""
        return self.levels[0].channels

    def deliver_due(self) -> int:
        """Try every due page once. Returns how many were delivered. Never raises for a channel's failure."""
        delivered_count = 0
        for direct_page in list(self._direct_pages):
            delivered_count += self._deliver_directly(direct_page)
        self._direct_pages[:] = [direct_page for direct_page in self._direct_pages if direct_page.channels]
        self._escalate()
        # Other processes deliver the pages of channels that this process does not have.
        for pending in self.store.due_pages(self._clock(), list(self.channels)):
            if not self.store.claim(pending.number, self._clock()):
                continue
            try:
                self.channels[pending.channel].deliver(self.redact(pending.page))
            except Exception as problem:
                wait = min(_FIRST_RETRY_NS << min(pending.attempts, 12), RETRY_NS_MAX)
                self.store.mark_failed(pending.number, self._clock() + wait, f"{type(problem).__name__}: {problem}")
                log.warning("page %s not delivered by %s: %s", pending.number, pending.channel, problem)
            else:
                self.store.mark_delivered(pending.number, self._clock())
                delivered_count += 1
        return delivered_count

    def _escalate(self) -> None:
        if len(self.levels) == 1 and not self.repeat_s:
            return
        now_ns = self._clock()
        alerts = [
            alert for alert in self.store.alerts() if alert.acknowledged_ns is None and alert.page.urgency != "low"
        ]
        first_seen_s = {
            mark: self._first_seen_s.get(mark, time.monotonic())
            for mark in [(alert.page.dedup_key, max(alert.escalated_ns, alert.opened_ns)) for alert in alerts]
        }
        self._first_seen_s = first_seen_s
        for alert in alerts:
            level = alert.level
            since_ns = max(alert.escalated_ns, alert.opened_ns)
            seen_s = time.monotonic() - first_seen_s[alert.page.dedup_key, since_ns]
            if level + 1 < len(self.levels):
                level += 1
                due_ns = alert.opened_ns + round(self.levels[level].after_s * 1e9)
                wait_s = self.levels[level].after_s - self.levels[level - 1].after_s
            elif self.repeat_s:
                due_ns, wait_s = since_ns + round(self.repeat_s * 1e9), self.repeat_s
            else:
                continue
            # A clock that was set back delays nothing: the time since this process has seen the alert counts too.
            if now_ns >= due_ns or seen_s >= wait_s:
                self.store.escalate(alert, level, self.levels[level].channels, now_ns)

    def send_directly(self, page: Page) -> None:
        """Deliver a page that could not be written to the outbox as soon as possible, from memory."""
        self._direct_pages.append(_DirectPage(page, list(self.channels)))
        self._wake.set()

    def _deliver_directly(self, direct_page: _DirectPage) -> int:
        """Try the channels that have not accepted a page yet, with growing delays."""
        if time.monotonic_ns() < direct_page.next_ns:
            return 0
        delivered_count = 0
        for name in list(direct_page.channels):
            try:
                self.channels[name].deliver(self.redact(direct_page.page))
            except Exception as problem:
                log.error("page not delivered by %s: %s", name, problem)
            else:
                direct_page.channels.remove(name)
                delivered_count += 1
        wait_ns = min(_FIRST_RETRY_NS << min(direct_page.attempts, 12), RETRY_NS_MAX)
        direct_page.attempts += 1
        direct_page.next_ns = time.monotonic_ns() + wait_ns
        return delivered_count

    def wake(self) -> None:
        """Start a round now, because the outbox has a new page."""
        self._wake.set()

    def start(self) -> None:
        """Deliver in a daemon thread until `stop`."""
        if self._thread is None:
            self._stop = False
            self._thread = threading.Thread(target=self._run, name="holdover-pager", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread after its current round; undelivered pages stay in the outbox."""
        self._stop = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None

    def _run(self) -> None:
        while not self._stop:
            self._wake.wait(1.0)
            self._wake.clear()
            try:
                self.deliver_due()
            except StoreError as problem:  # the guard reports it; the next round retries
                log.warning("the outbox cannot be read: %s", problem)
            except Exception:  # the thread goes on after any error: without it nobody is alerted
                log.exception("a round of alerts failed")
