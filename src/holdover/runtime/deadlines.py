"""Running deadlines: which predicates must become true by when."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from holdover.state import StateError, Stateful

NEVER_NS: Final = 2**63 - 1
DeadlineKey = tuple[int, str, str]
"""Number of the check, subsystem, key."""


class DeadlinesState(msgspec.Struct):
    """The state of the deadlines. The timers are a heap with entries that no longer count."""

    next_ns: int
    is_paused: bool
    timers: list[tuple[int, int, str, str]]
    due_by_key: dict[DeadlineKey, int]


class Deadlines(Stateful[DeadlinesState]):
    """The deadlines that are running. `next_ns` is the time of the next timer; `NEVER_NS` when there is none.

    While `is_paused`, because the guarded process is down, no deadline expires.
    """

    State = DeadlinesState

    def __init__(self) -> None:
        self.next_ns = NEVER_NS
        self.is_paused = False
        self._timers: list[tuple[int, int, str, str]] = []
        self._due_by_key: dict[DeadlineKey, int] = {}

    def start(self, key: DeadlineKey, due_ns: int) -> None:
        """Start a deadline, or move one that is running."""
        self._due_by_key[key] = due_ns
        heapq.heappush(self._timers, (due_ns, *key))
        if due_ns < self.next_ns:
            self.next_ns = due_ns

    def stop(self, key: DeadlineKey) -> None:
        """Stop a deadline, if it is running."""
        if self._due_by_key:
            self._due_by_key.pop(key, None)

    def is_running(self, key: DeadlineKey) -> bool:
        """Whether a deadline is running."""
        return key in self._due_by_key

    def pop_due(self, now_ns: int) -> DeadlineKey | None:
        """Remove and return the next deadline that has run out; None when there is none. Updates `next_ns`."""
        while self._timers and self._timers[0][0] <= now_ns:
            due_ns, number, subsystem, key = heapq.heappop(self._timers)
            if self._due_by_key.get((number, subsystem, key)) == due_ns:
                del self._due_by_key[number, subsystem, key]
                return number, subsystem, key
        self._update_next()
        return None

    def restart_all(self, duration_ns_of: Callable[[int], int], now_ns: int) -> None:
        """Resume after a pause: every running deadline starts over. Raises `StateError` for a time before 0."""
        if now_ns < 0:
            raise StateError(f"the deadlines resume at {now_ns} ns, should be ns since the epoch")
        self.is_paused = False
        self.restore({key: now_ns + duration_ns_of(key[0]) for key in self._due_by_key})

    def restore(self, due_by_key: Mapping[DeadlineKey, int]) -> None:
        """Replace all deadlines. Raises `StateError` for a time that no clock shows."""
        if any(not 0 <= due_ns < NEVER_NS for due_ns in due_by_key.values()):
            raise StateError("a deadline has a time that no clock shows")
        self._due_by_key = dict(due_by_key)
        self._timers = [(due_ns, *key) for key, due_ns in self._due_by_key.items()]
        heapq.heapify(self._timers)
        self._update_next()

    def running(self) -> dict[DeadlineKey, int]:
        """Return the time of every running deadline, in ns."""
        return dict(self._due_by_key)

    def take_state(self, state: DeadlinesState) -> None:
        """Take over a decoded state. Raises `StateError` for a running deadline without a timer."""
        timers = set(state.timers)
        for key, due_ns in state.due_by_key.items():
            if (due_ns, *key) not in timers:
                raise StateError(f"the stored state of Deadlines is damaged: {key} at {due_ns} ns has no timer")
        super().take_state(state)

    def _update_next(self) -> None:
        self.next_ns = self._timers[0][0] if self._timers else NEVER_NS
