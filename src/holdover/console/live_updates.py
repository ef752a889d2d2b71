"""Live updates of open pages within a second: server-sent events computed from pictures of the current state."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool

from holdover.runtime import FreezeStore, StoreError
from holdover.runtime.heartbeat import ProcessHealth, read_health

_POLL_INTERVAL_S: Final = 0.3
_KEEPALIVE_S: Final = 10.0  # a comment at least this often, so that both ends notice a dead connection
_DELIVERIES_SHOWN: Final = 20
STREAMS_MAX: Final = 64
STREAMS_PER_USER_MAX: Final = 8


class StatusPicture(msgspec.Struct, frozen=True, kw_only=True):
    """The state that pages show; `version` changes with any part of it."""

    version: str
    frozen: dict[str, str]
    open_alerts: dict[str, str]
    health: dict[str, str]
    statuses: list[ProcessHealth] = []


class PictureCache:
    """Takes pictures of a store. Freezes and alerts are read again only when the store says that they changed.

    Every freeze, thaw, breach, step and acknowledgement writes an audit row, so the head of the audit log changes
    with each. Counts are compared as well, because an alert can be resolved without an audit row.
    """

    def __init__(self, store: FreezeStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._mark: tuple[object, ...] = ()
        self._frozen: dict[str, str] = {}
        self._open_alerts: dict[str, str] = {}

    def take_picture(self, now_ns: int) -> StatusPicture:
        """Returns the state at `now_ns`. Raises `StoreError`."""
        store = self._store
        mark = _change_mark(store)
        with self._lock:
            if mark != self._mark:
                self._frozen = {
                    f"{freeze.number}": f"{freeze.scope} {'by ' if freeze.breach else ''}{freeze.invariant}"
                    for freeze in store.active_freezes()
                }
                self._open_alerts = {alert.page.dedup_key: alert.acknowledged_by for alert in store.alerts()}
                self._mark = mark
            frozen, open_alerts = self._frozen, self._open_alerts
        statuses = read_health(store, now_ns)
        health = {status.name: str(status.health) for status in statuses}
        deliveries = store.database.read(
            "SELECT number, attempts, delivered_ns FROM outbox ORDER BY number DESC LIMIT ?", _DELIVERIES_SHOWN
        )
        text = repr((mark, health, deliveries))
        version = hashlib.sha256(text.encode()).hexdigest()[:16]
        return StatusPicture(version=version, frozen=frozen, open_alerts=open_alerts, health=health, statuses=statuses)


def _change_mark(store: FreezeStore) -> tuple[object, ...]:
    """What differs whenever freezes, alerts or ticked steps differ; read from indices, not from the rows."""
    read = store.database.read
    freezes = read('SELECT COUNT(*), MAX(number) FROM "freeze" WHERE thawed_ns IS NULL')[0]
    alerts = read(
        "SELECT COUNT(*), SUM(level), MAX(opened_ns), MAX(acknowledged_ns), COUNT(acknowledged_ns) FROM alert "
        "WHERE resolved_ns IS NULL"
    )[0]
    ticks = read("SELECT COUNT(*) FROM tick")[0]
    return (store.audit_head(), store.last_breach_number(), *freezes, *alerts, *ticks)


def describe_changes(before: StatusPicture, after: StatusPicture) -> str:
    """Returns the changes between two pictures in sentences; empty when none needs one."""
    sentences = [f"Frozen: {freeze_text}." for mark, freeze_text in after.frozen.items() if mark not in before.frozen]
    sentences += [f"Thawed: {freeze_text}." for mark, freeze_text in before.frozen.items() if mark not in after.frozen]
    sentences += [
        f"{key} is acknowledged by {by}."
        for key, by in after.open_alerts.items()
        if by and before.open_alerts.get(key) != by
    ]
    sentences += [f"New page: {key}." for key in after.open_alerts if key not in before.open_alerts]
    sentences += [f"{name} is {health}." for name, health in after.health.items() if before.health.get(name) != health]
    return " ".join(sentences)


class LiveUpdates:
    """Polls the store while any browser listens, once for all of them, and sends each the changes."""

    def __init__(
        self, take_picture: Callable[[], StatusPicture], stream_s: float, every_s: float = _POLL_INTERVAL_S
    ) -> None:
        self._take_picture = take_picture
        self._stream_s = stream_s
        self._every_s = every_s
        self._queues: dict[asyncio.Queue[str], str] = {}
        self._watch_task: asyncio.Task[None] | None = None

    def is_full(self, user_name: str) -> bool:
        """Whether no further stream is accepted, for this user or in all."""
        user_streams = sum(name == user_name for name in self._queues.values())
        return len(self._queues) >= STREAMS_MAX or user_streams >= STREAMS_PER_USER_MAX

    async def stream_events(self, user_name: str, is_logged_in: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
        """Yield the events for one browser: first the current state, then every change; ends when `is_logged_in`
        returns False.
        """
        queue: asyncio.Queue[str] = asyncio.Queue(16)
        self._queues[queue] = user_name
        if self._watch_task is None:
            self._watch_task = asyncio.create_task(self._watch())
        end_s = time.monotonic() + self._stream_s
        try:
            yield "retry: 1000\n\n" + await self._first_event()
            while (remaining_s := end_s - time.monotonic()) > 0:
                try:
                    yield await asyncio.wait_for(queue.get(), min(_KEEPALIVE_S, remaining_s))
                except TimeoutError:
                    yield ": still here\n\n"
                if not await is_logged_in():
                    yield _event_text("over", {})
                    return
        finally:
            self._queues.pop(queue, None)
            if not self._queues and self._watch_task is not None:
                self._watch_task.cancel()
                self._watch_task = None

    async def _first_event(self) -> str:
        try:
            return _event_text("now", {"version": (await run_in_threadpool(self._take_picture)).version, "message": ""})
        except StoreError as problem:
            return _event_text("lost", {"message": str(problem)})

    async def _watch(self) -> None:
        before: StatusPicture | None = None
        last_problem = ""
        while True:
            try:
                after = await run_in_threadpool(self._take_picture)
            except StoreError as problem:
                if not last_problem:
                    self._publish(_event_text("lost", {"message": str(problem)}))
                last_problem = str(problem)
            else:
                if before is not None and (last_problem or before.version != after.version):
                    self._publish(
                        _event_text("now", {"version": after.version, "message": describe_changes(before, after)})
                    )
                before, last_problem = after, ""
            await asyncio.sleep(self._every_s)

    def _publish(self, event: str) -> None:
        for queue in list(self._queues):
            with contextlib.suppress(asyncio.QueueFull):  # a browser that does not read opens a new stream
                queue.put_nowait(event)


def _event_text(kind: str, data: dict[str, str]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
