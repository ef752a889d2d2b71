"""Heartbeats: HEALTHY, FROZEN, WEDGED and SILENT processes are told apart.

A thread of the guarded process writes its state into the store, without taking a lock that the process may be
stuck in. Others read it: `holdover health`, the console, and outside the installation a dead man's switch,
which is called while the process makes progress and pages when the calls stop.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdover.catalogue.policy import OBSERVE
from holdover.runtime.breach import Page
from holdover.runtime.config_file import NonNegativeFloat, PositiveFloat
from holdover.runtime.database import StoreError
from holdover.runtime.freeze_store import FreezeStore
from holdover.runtime.observation import describe_policy
from holdover.runtime.pasted_commands import guard_command
from holdover.runtime.reach import EntryReach, list_reach, summarize_reach
from holdover.state import DECODE_ERRORS

if TYPE_CHECKING:
    from holdover.runtime.guard import Guard

log = logging.getLogger("holdover.guard")

_PING_TIMEOUT_S: Final = 5.0


class Health(StrEnum):
    """The state of a guarded process, best first."""

    HEALTHY = "HEALTHY"
    STOPPED = "STOPPED"
    FROZEN = "FROZEN"
    WEDGED = "WEDGED"
    SILENT = "SILENT"

    @property
    def is_known(self) -> bool:
        """Whether the process itself reports its state; a wedged or silent process cannot."""
        return self not in (Health.WEDGED, Health.SILENT)


class HeartbeatLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time limits, in seconds. `progress_within_s` is the limit between two steps or ticks; 0 means no limit."""

    every_s: PositiveFloat = 1.0
    silent_after_s: PositiveFloat = 15.0
    wedged_after_s: PositiveFloat = 30.0
    progress_within_s: NonNegativeFloat = 0.0
    url_env: str = ""
    url_file: str = ""
    ping_every_s: PositiveFloat = 30.0


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """The report of a process about itself; times in ns of its own clock.

    `open_ns` is when its oldest open step began. `reach` says how many invariants are active, waiting and inapplicable,
    `invariants` lists them. `policy` describes the policy in lines, `exceptions` of which are
    about what is not enforced; `observed` are the scopes that would be frozen.
    """

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
    limits: HeartbeatLimits
    stopped: bool = False
    reach: str = ""
    invariants: list[EntryReach] = []
    policy: list[str] = []
    exceptions: int = 0
    observed: list[str] = []


class ProcessHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The health of a process by its last heartbeat, with the reason in a sentence."""

    name: str
    health: Health
    reason: str
    age_s: float
    beat: Beat


def judge_health(beat: Beat, now_ns: int) -> tuple[Health, str]:
    """Return the health of a process at `now_ns`, and the reason."""
    limits = beat.limits
    age_s = (now_ns - beat.time_ns) / 1e9
    if beat.stopped:
        return Health.STOPPED, "it was stopped in good order"
    if age_s > limits.silent_after_s:
        return Health.SILENT, f"no sign of life for {age_s:.0f} s; {limits.silent_after_s:g} s is the limit"
    if age_s < -limits.silent_after_s:
        return Health.SILENT, f"no sign of life since the clock was set back by {-age_s:.0f} s or more"
    open_s = (now_ns - beat.open_ns) / 1e9 if beat.open_ns else 0.0
    if open_s > limits.wedged_after_s:
        return Health.WEDGED, f"a step has been open for {open_s:.0f} s; {limits.wedged_after_s:g} s is the limit"
    idle_s = (now_ns - beat.last_ns) / 1e9 if beat.last_ns else 0.0
    if limits.progress_within_s and idle_s > limits.progress_within_s:
        return Health.WEDGED, f"no step for {idle_s:.0f} s; {limits.progress_within_s:g} s is the limit"
    if beat.problem:
        return Health.FROZEN, beat.problem
    if beat.frozen:
        return Health.FROZEN, "frozen: " + ", ".join(beat.frozen)
    reach = f"; invariants: {beat.reach}" if beat.reach else ""
    return Health.HEALTHY, f"{beat.mutations} mutations, nothing frozen{reach}{_describe_observation(beat)}"


def _describe_observation(beat: Beat) -> str:
    if not beat.exceptions:
        return ""
    would_be = f"; it would have frozen {', '.join(beat.observed)}" if beat.observed else ""
    return f"; not everything is enforced ({beat.policy[0]}{', ...' if beat.exceptions > 1 else ''}){would_be}"


def read_health(store: FreezeStore, now_ns: int) -> list[ProcessHealth]:
    """Return the health of every process that ever sent a heartbeat, worst first. Raises `StoreError`."""
    processes = []
    for name, _, body in store.heartbeats():
        try:
            beat = msgspec.json.decode(body, type=Beat)
        except DECODE_ERRORS as problem:
            raise StoreError(f"{store.database.name}: the sign of life of {name} cannot be read: {problem}") from None
        health, reason = judge_health(beat, now_ns)
        processes.append(
            ProcessHealth(name=name, health=health, reason=reason, age_s=(now_ns - beat.time_ns) / 1e9, beat=beat)
        )
    worst = list(Health)
    return sorted(processes, key=lambda process: (-worst.index(process.health), process.name))


def page_unhealthy_process(
    store: FreezeStore, process: ProcessHealth, channels: Sequence[str], now_ns: int, guard: Path | None = None
) -> bool:
    """Page on-call about a wedged or silent process; resolve the alert when the process recovers.

    Returns whether a page went into the outbox. One alert is open per outage, however often the health is read. `guard`
    is the configuration file or directory that the page's command names.
    """
    key = f"heartbeat/{process.name}"
    if process.health.is_known:
        store.resolve(key, "itself", now_ns)
        return False
    page = Page(
        number=0,
        dedup_key=key,
        time_ns=now_ns,
        severity="critical",
        invariant="heartbeat",
        scope=f"process {process.name}",
        title=f"{process.health} {process.name}",
        explanation=f"{process.name} (process {process.beat.pid} on {process.beat.host}): {process.reason}.",
        statement="A guarded process says that it lives, and finishes what it begins.",
        implication="Whether anything is frozen there, and whether it trades, cannot be told from here.",
        steps=[
            "Look whether the process is there and what it waits for. Done when: you know.",
            "Look at the venue which of its orders are working. Done when: they are as they should be, or cancelled.",
            "Restart it; what was frozen stays frozen. Done when: it says HEALTHY or FROZEN.",
        ],
        allows=[],
        next_command=guard_command("health", guard),
        digest=process.beat.digest,
    )
    return store.send_page(page, channels)


class Heartbeat:
    """Writes a guard's heartbeats, and calls the dead man's switch at `url` while the process is not wedged."""

    def __init__(self, guard: Guard, limits: HeartbeatLimits, url: str = "") -> None:
        self.limits = limits
        self._guard = guard
        self._url = url
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_ping_s = float("-inf")
        self._static_fields: dict[str, Any] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "version": importlib.metadata.version("holdover"),
            "limits": limits,
        }

    def current_beat(self, *, stopped: bool = False) -> Beat:
        """Return the current state of the process. Takes no lock, because the holder of a lock may be what is stuck."""
        guard = self._guard
        steps = list(guard.steps.open_steps)
        following = guard.services.freeze_watcher
        store_problem = following.problem if following is not None else ""
        reaches = list_reach(guard.monitor)
        return Beat(
            time_ns=guard.clock(),
            digest=guard.catalogue.digest,
            mutations=guard.monitor.mutations,
            breaches=len(guard.breaches),
            last_ns=guard.steps.newest_ns,
            open_ns=min((step.began_ns for step in steps), default=0),
            frozen=list(guard.frozen_scopes()),
            policy=describe_policy(guard.catalogue),
            exceptions=len(guard.catalogue.exceptions()) + (guard.catalogue.mode == OBSERVE),
            observed=list(guard.freezes.observation.freezes.by_scope),
            problem=guard.freezes.problem or store_problem,
            reach=summarize_reach(reaches),
            invariants=reaches,
            stopped=stopped,
            **self._static_fields,
        )

    def write_beat(self, *, stopped: bool = False) -> None:
        """Write a heartbeat now. Raises `StoreError`."""
        beat = self.current_beat(stopped=stopped)
        self._guard.store.write_heartbeat(self._guard.name, beat.time_ns, msgspec.json.encode(beat))

    def start(self) -> None:
        """Write a heartbeat now and then periodically, in a daemon thread."""
        if self._thread is not None:
            raise RuntimeError("the heartbeat runs already")
        self._thread = threading.Thread(target=self._run, name="holdover-heartbeat", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Write that the process stops in good order, and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with contextlib.suppress(StoreError):
            self.write_beat(stopped=True)

    def _run(self) -> None:
        while True:
            try:
                self.write_beat()
            except StoreError as problem:
                log.warning("no sign of life could be written: %s", problem)
            except Exception:
                log.exception("the sign of life failed")
            self._guard.services.memory.save_if_due()
            self._ping()
            if self._stop.wait(self.limits.every_s):
                return

    def _ping(self) -> None:
        if not self._url or time.monotonic() - self._last_ping_s < self.limits.ping_every_s:
            return
        beat = self.current_beat()
        if not judge_health(beat, beat.time_ns)[0].is_known:
            return  # the switch pages when the calls stop
        self._last_ping_s = time.monotonic()
        ping(self._url)


def ping(url: str) -> bool:
    """Call a dead man's switch. Returns whether it answered."""
    try:
        with urllib.request.urlopen(url, timeout=_PING_TIMEOUT_S):
            return True
    except (urllib.error.URLError, OSError, ValueError) as problem:
        # The URL is a secret, so the log shows only the error.
        log.warning("the dead man's switch was not reached: %s", getattr(problem, "reason", type(problem).__name__))
        return False
