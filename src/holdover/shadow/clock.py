"""The healthy clock: how long a candidate has been running, checked and healthy, since the last fault that resets it.

It is moved by ticks of a monotonic clock and by nothing else, so that the host's clock may jump as it likes. The time
between two ticks counts when everything was healthy at both, and when they are no further apart than the deadline: what
nobody looked at for longer is never counted. A new life begins with a tick that counts nothing. What is kept is
written whole after each tick, so that a kill loses at most the time since the last one and never adds any.
"""

from __future__ import annotations

from typing import Final

import msgspec

HOUR_NS: Final = 3_600_000_000_000
_RESETS_KEPT: Final = 100


class Reset(msgspec.Struct, frozen=True, kw_only=True):
    """The clock was set back to nothing: when by the host's clock (ns), by which fault, and how much it had counted."""

    time_ns: int
    fault: str
    detail: str
    lost_ns: int


class Counted(msgspec.Struct, kw_only=True):
    """What the clock has counted, in ns: since the last reset, ever, and how long it was watching at all."""

    healthy_ns: int = 0
    ever_ns: int = 0
    watched_ns: int = 0
    lives: int = 0
    resets: list[Reset] = []
    reset_count: int = 0


class HealthyClock:
    """One life of the clock over what earlier ones have counted. `deadline_ns` is the longest gap between two ticks."""

    def __init__(self, counted: Counted, deadline_ns: int) -> None:
        if deadline_ns <= 0:
            raise ValueError(f"the clock's deadline is {deadline_ns} ns, should be above 0")
        self.counted = counted
        self.deadline_ns = deadline_ns
        counted.lives += 1
        self._last_ns: int | None = None
        self._was_healthy = False

    def tick(self, monotonic_ns: int, *, healthy: bool) -> int:
        """It is this late by the monotonic clock, and all is healthy or not; how much was counted, ns."""
        last, was_healthy = self._last_ns, self._was_healthy
        self._last_ns, self._was_healthy = monotonic_ns, healthy
        if last is None:
            return 0
        passed = monotonic_ns - last
        if not 0 < passed <= self.deadline_ns:
            return 0
        self.counted.watched_ns += passed
        if not (healthy and was_healthy):
            return 0
        self.counted.healthy_ns += passed
        self.counted.ever_ns += passed
        return passed

    def reset(self, fault: str, detail: str, time_ns: int) -> None:
        """A fault that resets the clock: what comes from now on counts anew."""
        one = Reset(time_ns=time_ns, fault=fault, detail=detail, lost_ns=self.counted.healthy_ns)
        self.counted.resets = [*self.counted.resets, one][-_RESETS_KEPT:]
        self.counted.reset_count += 1
        self.counted.healthy_ns = 0
        self._was_healthy = False


def since_text(healthy_ns: int) -> str:
    """`T+83.5h`: hours to one decimal, never rounded up."""
    tenths = healthy_ns * 10 // HOUR_NS
    return f"T+{tenths // 10}.{tenths % 10}h"
