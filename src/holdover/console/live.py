"""What has changed, told to open pages within a second: server-sent events over a picture of how everything stands."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool

from holdover.runtime import FreezeStore, StoreProblem
from holdover.runtime.heartbeat import Seen, look

_EVERY_S: Final = 0.3
_STILL_S: Final = 10.0  # a comment at least this often, so that both ends notice a dead connection
STREAMS_MAX: Final = 64
STREAMS_OF_ONE_MAX: Final = 8


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """How everything stands: `version` differs when anything does that a page shows."""

    version: str
    frozen: dict[str, str]
    open_pages: dict[str, str]
    health: dict[str, str]
    seen: list[Seen] = []


def picture(store: FreezeStore, now_ns: int) -> Picture:
    """How everything stands at `now_ns`. Raises `StoreProblem`."""
    freezes = store.in_force()
    alerts = store.alerts()
    seen = look(store, now_ns)
    frozen = {
        f"{freeze.number}": f"{freeze.scope} {'by ' if freeze.breach else ''}{freeze.invariant}" for freeze in freezes
    }
    open_pages = {alert.page.dedup_key: alert.acknowledged_by for alert in alerts}
    health = {one.name: str(one.health) for one in seen}
    ticks = [store.ticks(freeze.breach) for freeze in freezes if freeze.breach]
    sent = [(one.number, one.attempts, one.delivered_ns) for one in store.deliveries_before(0, 20)]
    told = repr((frozen, open_pages, [alert.level for alert in alerts], health, ticks, sent, store.last_breach()))
    version = hashlib.sha256(told.encode()).hexdigest()[:16]
    return Picture(version=version, frozen=frozen, open_pages=open_pages, health=health, seen=seen)


def news(before: Picture, after: Picture) -> str:
    """What has changed between two pictures, in sentences; empty for what needs none."""
    said = [f"Frozen: {told}." for mark, told in after.frozen.items() if mark not in before.frozen]
    said += [f"Thawed: {told}." for mark, told in before.frozen.items() if mark not in after.frozen]
    said += [
        f"{key} is acknowledged by {by}."
        for key, by in after.open_pages.items()
        if by and before.open_pages.get(key) != by
    ]
    said += [f"New page: {key}." for key in after.open_pages if key not in before.open_pages]
    said += [f"{name} is {now}." for name, now in after.health.items() if before.health.get(name) != now]
    return " ".join(said)


class Live:
    """Looks at the store while anybody listens, once for all of them, and tells each what is new."""

    def __init__(self, look: Callable[[], Picture], stream_s: float, every_s: float = _EVERY_S) -> None:
        self._look = look
        self._stream_s = stream_s
        self._every_s = every_s
        self._listening: dict[asyncio.Queue[str], str] = {}
        self._watching: asyncio.Task[None] | None = None

    def is_full(self, whose: str) -> bool:
        """Whether no further stream is taken, of this user or at all."""
        of_one = sum(one == whose for one in self._listening.values())
        return len(self._listening) >= STREAMS_MAX or of_one >= STREAMS_OF_ONE_MAX

    async def events(self, whose: str, still_there: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
        """The stream for one browser: at first how it stands, then every change; ends when `still_there` says no."""
        mine: asyncio.Queue[str] = asyncio.Queue(16)
        self._listening[mine] = whose
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        until = time.monotonic() + self._stream_s
        try:
            yield "retry: 1000\n\n" + await self._first()
            while (left := until - time.monotonic()) > 0:
                try:
                    yield await asyncio.wait_for(mine.get(), min(_STILL_S, left))
                except TimeoutError:
                    yield ": still here\n\n"
                if not await still_there():
                    yield _event("over", {})
                    return
        finally:
            self._listening.pop(mine, None)
            if not self._listening and self._watching is not None:
                self._watching.cancel()
                self._watching = None

    async def _first(self) -> str:
        try:
            return _event("now", {"version": (await run_in_threadpool(self._look)).version, "said": ""})
        except StoreProblem as problem:
            return _event("lost", {"said": str(problem)})

    async def _watch(self) -> None:
        before: Picture | None = None
        lost = ""
        while True:
            try:
                after = await run_in_threadpool(self._look)
            except StoreProblem as problem:
                if not lost:
                    self._tell(_event("lost", {"said": str(problem)}))
                lost = str(problem)
            else:
                if before is not None and (lost or before.version != after.version):
                    self._tell(_event("now", {"version": after.version, "said": news(before, after)}))
                before, lost = after, ""
            await asyncio.sleep(self._every_s)

    def _tell(self, event: str) -> None:
        for queue in list(self._listening):
            with contextlib.suppress(asyncio.QueueFull):  # whoever does not read gets his own stream anew
                queue.put_nowait(event)


def _event(kind: str, told: dict[str, str]) -> str:
    return f"event: {kind}\ndata: {json.dumps(told)}\n\n"
