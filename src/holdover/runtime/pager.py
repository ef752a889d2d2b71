"""Pages on their way to people: an outbox, channels, retries; at least once, with one key to join repeats.

The outbox lives in the freeze store, written in the breach's own transaction. Delivery is somebody else's thread: the
guard never waits for a network. A channel that fails is tried again, later each time, for as long as it takes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from holdover.runtime.breach import Page
from holdover.runtime.freezes import FreezeStore, StoreProblem

log = logging.getLogger("holdover.pager")

_FIRST_RETRY_NS = 1_000_000_000
_RETRY_NS_MAX = 300_000_000_000


class Channel(Protocol):
    """Somewhere a page can go. `deliver` raises when it did not get there."""

    name: str

    def deliver(self, page: Page) -> None:
        """Hand the page over."""


class FileChannel:
    """Appends each page to a file, one JSON object a line, synced before it counts as delivered."""

    def __init__(self, path: Path) -> None:
        self.name = f"file:{path.name}"
        self.path = path

    def deliver(self, page: Page) -> None:
        """Append and sync. Raises `OSError` when the disk does not take it."""
        line = msgspec.json.encode(page) + b"\n"
        with open(self.path, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


class LogChannel:
    """Writes each page to the log at the level of an error."""

    name = "log"

    def deliver(self, page: Page) -> None:
        """Log title and text."""
        log.error("%s\n%s", page.title, page.text())


class AppriseChannel:
    """Any of the services that Apprise knows (PagerDuty, Opsgenie, Slack, mail and some hundred others), by URL."""

    def __init__(self, url: str, name: str = "") -> None:
        try:
            import apprise
        except ImportError as problem:
            raise ValueError("paging by URL needs Apprise: pip install 'holdover[paging]'") from problem
        self._apprise = apprise.Apprise()
        if not self._apprise.add(url):
            # The URL carries secrets, so only its scheme is said.
            raise ValueError(f"the paging URL {url.split(':', 1)[0]}:... is not one that Apprise understands")
        self.name = name or f"apprise:{url.split(':', 1)[0]}"

    def deliver(self, page: Page) -> None:
        """Notify. Raises `ConnectionError` when the service did not take it."""
        body = f"{page.text()}\nkey: {page.dedup_key}\n"
        if not self._apprise.notify(title=page.title, body=body):
            raise ConnectionError(f"{self.name} did not take the page")


class Pager:
    """Delivers what is in the outbox. `deliver_due` is one round; `start` runs rounds in a thread of its own."""

    def __init__(self, store: FreezeStore, channels: Sequence[Channel], clock: Callable[[], int]) -> None:
        self.store = store
        self.channels = {channel.name: channel for channel in channels}
        self._clock = clock
        self._wake = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None
        self._direct: list[Page] = []

    def names(self) -> list[str]:
        """The channels' names, in the order given."""
        return list(self.channels)

    def deliver_due(self) -> int:
        """Try every page that is due once; returns how many were delivered. Never raises for a channel's failure."""
        done = 0
        while self._direct:
            done += self._deliver_directly(self._direct.pop(0))
        for pending in self.store.undelivered(self._clock()):
            channel = self.channels.get(pending.channel)
            try:
                if channel is None:
                    raise LookupError(f"no channel is called {pending.channel} any more")
                channel.deliver(pending.page)
            except Exception as problem:
                wait = min(_FIRST_RETRY_NS << min(pending.attempts, 12), _RETRY_NS_MAX)
                self.store.failed(pending.number, self._clock() + wait, f"{type(problem).__name__}: {problem}")
                log.warning("page %s not delivered by %s: %s", pending.number, pending.channel, problem)
            else:
                self.store.delivered(pending.number, self._clock())
                done += 1
        return done

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
