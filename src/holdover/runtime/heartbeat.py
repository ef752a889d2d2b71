"""Signs of life, so that silence is noticed: HEALTHY, FROZEN, WEDGED and SILENT are told apart.

A thread of the guarded process writes how it stands into the store, without waiting for anything that the process
itself may be stuck in. Somebody else reads it: `holdover health`, the console, and outside the house a dead man's
switch, which is called as long as the process is not wedged and pages by itself when the calls stop.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdover.runtime.breach import Page
from holdover.runtime.database import StoreProblem
from holdover.runtime.freezes import FreezeStore

if TYPE_CHECKING:
    from holdover.runtime.guard import Guard

log = logging.getLogger("holdover.guard")

_PING_TIMEOUT_S: Final = 5.0


class Health(StrEnum):
    """How a guarded process stands, the best first."""

    HEALTHY = "HEALTHY"
    STOPPED = "STOPPED"
    FROZEN = "FROZEN"
    WEDGED = "WEDGED"
    SILENT = "SILENT"

    @property
    def is_known(self) -> bool:
        """Whether the process itself says how it stands; a wedged or silent one cannot be trusted to."""
        return self not in (Health.WEDGED, Health.SILENT)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long what may last, in seconds. `progress_within_s` is between two steps or ticks; 0 is for ever."""

    every_s: float = 1.0
    silent_after_s: float = 15.0
    wedged_after_s: float = 30.0
    progress_within_s: float = 0.0
    url_env: str = ""
    url_file: str = ""
    ping_every_s: float = 30.0


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says of itself; times in ns of its own clock. `open_ns`: since when its oldest step is open."""

    pid: int
    host: str
    version: str
    digest: str
    time_ns: int
    mutations: int
    breaches: int
    last_ns: int
    open_ns: int
    frozen: list[str]
    problem: str
    limits: Limits
    stopped: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A process as its last sign of life shows it: how it stands, and why in a sentence."""

    name: str
    health: Health
    why: str
    age_s: float
    beat: Beat


def judge(beat: Beat, now_ns: int) -> tuple[Health, str]:
    """How a process stands at `now_ns`, and why."""
    limits = beat.limits
    age_s = (now_ns - beat.time_ns) / 1e9
    if beat.stopped:
        return Health.STOPPED, "it was stopped in good order"
    if age_s > limits.silent_after_s:
        return Health.SILENT, f"no sign of life for {age_s:.0f} s; {limits.silent_after_s:g} s is the limit"
    open_s = (now_ns - beat.open_ns) / 1e9 if beat.open_ns else 0.0
    if open_s > limits.wedged_after_s:
        return Health.WEDGED, f"a step has been open for {open_s:.0f} s; {limits.wedged_after_s:g} s is the limit"
    still_s = (now_ns - beat.last_ns) / 1e9 if beat.last_ns else 0.0
    if limits.progress_within_s and still_s > limits.progress_within_s:
        return Health.WEDGED, f"no step for {still_s:.0f} s; {limits.progress_within_s:g} s is the limit"
    if beat.problem:
        return Health.FROZEN, beat.problem
    if beat.frozen:
        return Health.FROZEN, "frozen: " + ", ".join(beat.frozen)
    return Health.HEALTHY, f"{beat.mutations} mutations, nothing frozen"


def look(store: FreezeStore, now_ns: int) -> list[Seen]:
    """Every process that has ever said that it lives, the worst first. Raises `StoreProblem`."""
    found = []
    for name, _, body in store.beats():
        try:
            beat = msgspec.json.decode(body, type=Beat)
        except msgspec.MsgspecError as problem:
            raise StoreProblem(f"{store.database.name}: the sign of life of {name} cannot be read: {problem}") from None
        health, why = judge(beat, now_ns)
        found.append(Seen(name=name, health=health, why=why, age_s=(now_ns - beat.time_ns) / 1e9, beat=beat))
    worst = list(Health)
    return sorted(found, key=lambda one: (-worst.index(one.health), one.name))


def page_silence(store: FreezeStore, seen: Seen, channels: Sequence[str], now_ns: int) -> bool:
    """Page on-call about a process that is wedged or silent; resolves by itself when it is not any more.

    Returns whether a page went into the outbox: there is one as long as it lasts, whoever looks how often.
    """
    key = f"heartbeat/{seen.name}"
    if seen.health.is_known:
        store.resolve(key, "itself", now_ns)
        return False
    page = Page(
        number=0,
        dedup_key=key,
        time_ns=now_ns,
        severity="critical",
        invariant="heartbeat",
        scope=f"process {seen.name}",
        title=f"{seen.health} {seen.name}",
        explanation=f"{seen.name} (process {seen.beat.pid} on {seen.beat.host}): {seen.why}.",
        statement="A guarded process says that it lives, and finishes what it begins.",
        implication="Whether anything is frozen there, and whether it trades, cannot be told from here.",
        steps=[
            "Look whether the process is there and what it waits for. Done when: you know.",
            "Look at the venue which of its orders are working. Done when: they are as they should be, or cancelled.",
            "Restart it; what was frozen stays frozen. Done when: it says HEALTHY or FROZEN.",
        ],
        allows=[],
        next_command="holdover health",
        digest=seen.beat.digest,
    )
    return store.page(page, channels)


class Heartbeat:
    """Writes a guard's signs of life, and calls the dead man's switch at `url` while the process is not wedged."""

    def __init__(self, guard: Guard, limits: Limits, url: str = "") -> None:
        self.limits = limits
        self._guard = guard
        self._url = url
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pinged = float("-inf")
        self._told: dict[str, Any] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "version": importlib.metadata.version("holdover"),
            "limits": limits,
        }

    def beat(self, *, stopped: bool = False) -> Beat:
        """How the process stands now. Takes no lock: whoever holds one may be what is stuck."""
        guard = self._guard
        steps = list(guard._steps)
        following = guard.following
        lost = following.problem if following is not None else ""
        return Beat(
            time_ns=guard.clock(),
            digest=guard.catalogue.digest,
            mutations=guard.monitor.mutations,
            breaches=len(guard.breaches),
            last_ns=guard.last_ns,
            open_ns=min((step.began_ns for step in steps), default=0),
            frozen=list(guard.frozen_scopes()),
            problem=guard.problem or lost,
            stopped=stopped,
            **self._told,
        )

    def once(self, *, stopped: bool = False) -> None:
        """Say it now. Raises `StoreProblem`."""
        beat = self.beat(stopped=stopped)
        self._guard.store.beat(self._guard.name, beat.time_ns, msgspec.json.encode(beat))

    def start(self) -> None:
        """Say it now and then again and again, in a daemon thread."""
        self._thread = threading.Thread(target=self._run, name="holdover-heartbeat", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Say that the process stops in good order, and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with contextlib.suppress(StoreProblem):
            self.once(stopped=True)

    def _run(self) -> None:
        while True:
            try:
                self.once()
            except StoreProblem as problem:
                log.warning("no sign of life could be written: %s", problem)
            except Exception:
                log.exception("the sign of life failed")
            self._ping()
            if self._stop.wait(self.limits.every_s):
                return

    def _ping(self) -> None:
        if not self._url or time.monotonic() - self._pinged < self.limits.ping_every_s:
            return
        beat = self.beat()
        if not judge(beat, beat.time_ns)[0].is_known:
            return  # its silence is what the switch is there for
        self._pinged = time.monotonic()
        ping(self._url)


def ping(url: str) -> bool:
    """Call a dead man's switch; whether it answered."""
    try:
        with urllib.request.urlopen(url, timeout=_PING_TIMEOUT_S):
            return True
    except (urllib.error.URLError, OSError, ValueError) as problem:
        # The URL is a secret, so only what went wrong is said.
        log.warning("the dead man's switch was not reached: %s", getattr(problem, "reason", type(problem).__name__))
        return False
