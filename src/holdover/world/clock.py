"""Virtual time: a strictly first-in-first-out scheduler whose timers are data.

Nothing sleeps. A timer is (time, sequence, owner, name, args): no closure, so that the whole queue can be dumped with a
snapshot and taken up again in another process. Who owns a name registers one handler for all of its timers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import msgspec

NEVER = 2**63 - 1
Handler = Callable[[str, tuple[Any, ...]], None]


class Clock:
    """The time of a simulated world, in nanoseconds since the epoch, UTC.

    `next_ns` is the time of the earliest timer, `NEVER` when there is none: read once a market event. `ran` counts the
    timers that have run, and `before` is called before each.
    """

    __slots__ = ("_cancelled", "_handlers", "_heap", "_number", "before", "next_ns", "now_ns", "ran")

    def __init__(self, now_ns: int = 0) -> None:
        self.now_ns = now_ns
        self.next_ns = NEVER
        self.ran = 0
        self.before: Callable[[], None] | None = None
        self._heap: list[tuple[int, int, str, str, tuple[Any, ...]]] = []
        self._number = 0
        self._handlers: dict[str, Handler] = {}
        self._cancelled: set[int] = set()

    def register(self, owner: str, handler: Handler) -> None:
        """Who is called for an owner's timers."""
        self._handlers[owner] = handler

    def unregister(self, owner: str) -> None:
        """Nobody is, any more: its timers pass unheard."""
        self._handlers.pop(owner, None)

    def at(self, time_ns: int, owner: str, name: str, *args: Any) -> int:
        """Set a timer; returns its number. Timers of the same time run in the order in which they were set.

        Raises `ValueError` for a time that has passed.
        """
        if time_ns < self.now_ns:
            raise ValueError(f"timer {owner}/{name} at {time_ns} is before now, {self.now_ns}")
        self._number += 1
        heapq.heappush(self._heap, (time_ns, self._number, owner, name, args))
        if time_ns < self.next_ns:
            self.next_ns = time_ns
        return self._number

    def cancel(self, number: int) -> None:
        """A timer that is not to run."""
        self._cancelled.add(number)

    def cancel_owner(self, owner: str) -> None:
        """None of an owner's timers is to run."""
        self._heap[:] = [timer for timer in self._heap if timer[2] != owner]  # in place: it may be running
        heapq.heapify(self._heap)
        self.next_ns = self._heap[0][0] if self._heap else NEVER

    def run_until(self, time_ns: int) -> None:
        """Run everything due up to and including a time, in order, and stand at that time."""
        heap = self._heap
        while heap and heap[0][0] <= time_ns:
            due, number, owner, name, args = heapq.heappop(heap)
            self.next_ns = heap[0][0] if heap else NEVER
            if number in self._cancelled:
                self._cancelled.discard(number)
                continue
            self.now_ns = due
            self.ran += 1
            if self.before is not None:
                self.before()
            handler = self._handlers.get(owner)
            if handler is not None:
                handler(name, args)
        self.next_ns = heap[0][0] if heap else NEVER
        self.now_ns = time_ns

    def pending(self, owner: str) -> int:
        """How many timers of an owner wait."""
        return sum(1 for timer in self._heap if timer[2] == owner and timer[1] not in self._cancelled)

    @property
    def timers_set(self) -> int:
        """How many timers have been set so far."""
        return self._number

    def keep(self) -> Any:
        """What may change from here on, for `put_back` in the same process."""
        return self.now_ns, self._number, self.ran, list(self._heap), set(self._cancelled), dict(self._handlers)

    def put_back(self, kept: Any) -> None:
        """Make it what it was when `keep` was called."""
        self.now_ns, self._number, self.ran, heap, cancelled, handlers = kept
        self._heap[:], self._cancelled, self._handlers = heap, set(cancelled), dict(handlers)
        self.next_ns = self._heap[0][0] if self._heap else NEVER

    def timers(self) -> list[tuple[int, str, str, tuple[Any, ...]]]:
        """Every timer that waits: its time from now, its owner, its name, its arguments; in the order of running."""
        waiting = sorted(timer for timer in self._heap if timer[1] not in self._cancelled)
        return [(due - self.now_ns, owner, name, args) for due, _, owner, name, args in waiting]

    def dump(self) -> bytes:
        """The time and every timer."""
        timers = sorted(timer for timer in self._heap if timer[1] not in self._cancelled)
        return msgspec.msgpack.encode([self.now_ns, self._number, timers])

    def load(self, state: bytes) -> None:
        """Take up a dumped state; handlers stay as they are registered."""
        self.now_ns, self._number, timers = msgspec.msgpack.decode(state)
        self._heap[:] = [(time_ns, number, owner, name, tuple(args)) for time_ns, number, owner, name, args in timers]
        heapq.heapify(self._heap)
        self._cancelled.clear()
        self.next_ns = self._heap[0][0] if self._heap else NEVER
