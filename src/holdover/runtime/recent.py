"""Records of the last seconds, counted by a key: the basis of invariants about rates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Annotated, ClassVar

import msgspec

from holdover.catalogue import Recent
from holdover.state import Owned, StateError, Stateful


class WindowCounterState(msgspec.Struct):
    """The records inside the window, oldest first, and their count by key."""

    events: deque[tuple[int, str]]
    counts: dict[str, int]


class WindowCounter(Stateful[WindowCounterState]):
    """Counts the records of the last `within_ns` nanoseconds by a key; its memory is bounded by that time."""

    State = WindowCounterState
    DERIVED: ClassVar = {"_within_ns": "from the declaration in the catalogue"}

    def __init__(self, within_ns: int) -> None:
        if within_ns <= 0:
            raise ValueError("a window needs a time such as 10s")
        self.events: deque[tuple[int, str]] = deque()
        self.counts: dict[str, int] = {}
        self._within_ns = within_ns

    def add(self, key: str, now_ns: int) -> None:
        """Count one record."""
        self.events.append((now_ns, key))
        self.counts[key] = self.counts.get(key, 0) + 1

    def count(self, key: str, now_ns: int) -> int:
        """Return how many records of the key came within the time before now."""
        events, counts = self.events, self.counts
        oldest_ns = now_ns - self._within_ns
        while events and events[0][0] <= oldest_ns:
            _, old_key = events.popleft()
            if counts[old_key] == 1:
                del counts[old_key]
            else:
                counts[old_key] -= 1
        return counts.get(key, 0)

    def _after_restore(self) -> None:
        count = sum(self.counts.values())
        if count != len(self.events):
            raise StateError(f"the window has {len(self.events)} records, but its counts add up to {count}")


class RecentRecordsState(msgspec.Struct):
    """The counters."""

    counters: Annotated[dict[Recent, WindowCounter], Owned]


class RecentRecords(Stateful[RecentRecordsState]):
    """One counter for each declaration of the catalogue."""

    State = RecentRecordsState

    def __init__(self, declarations: Iterable[Recent]) -> None:
        self.counters = {recent: WindowCounter(recent.within_ns) for recent in declarations}

    def clear(self) -> None:
        """Forget every record: the counts begin again in a new process."""
        for counter in self.counters.values():
            counter.events.clear()
            counter.counts.clear()
