"""The healthy clock: how long the candidate has run, checked and healthy, since the last fault that reset the clock.

Only ticks of a monotonic clock move the healthy clock, so jumps of the host's clock do not affect it. The time between
two ticks counts when everything was healthy at both ticks and the gap is at most the deadline. Longer gaps never count,
because nothing was checked during them. Each run starts with a tick that counts nothing. The totals are written whole
after each tick: a kill loses at most the time since the last tick and never adds any.
"""

from __future__ import annotations

from typing import Final

import msgspec

HOUR_NS: Final = 3_600_000_000_000
_RESETS_MAX: Final = 100


class ClockReset(msgspec.Struct, frozen=True, kw_only=True):
    """One reset of the clock: the time by the host's clock (ns), the fault, and the healthy time that was lost (ns)."""

    time_ns: int
    fault: str
    detail: str
    lost_ns: int


class ClockTotals(msgspec.Struct, kw_only=True):
    """The totals of the clock, in ns: healthy since the last reset, healthy in all, and watched in all."""

    healthy_ns: int = 0
    ever_ns: int = 0
    watched_ns: int = 0
    run_count: int = 0
    resets: list[ClockReset] = []
    reset_count: int = 0


class HealthyClock:
    """The clock of one run, on top of the totals of earlier runs. `deadline_ns` is the longest gap between two ticks.

    Raises `ValueError` when the deadline is not above 0.
    """

    def __init__(self, totals: ClockTotals, deadline_ns: int) -> None:
        if deadline_ns <= 0:
            raise ValueError(f"the clock's deadline is {deadline_ns} ns, should be above 0")
        self.totals = totals
        self.deadline_ns = deadline_ns
        totals.run_count += 1
        self._last_ns: int | None = None
        self._was_healthy = False

    def tick(self, monotonic_ns: int, *, healthy: bool) -> int:
        """Advance to a monotonic time (ns). Returns how much healthy time was added, in ns."""
        last_ns, was_healthy = self._last_ns, self._was_healthy
        self._last_ns, self._was_healthy = monotonic_ns, healthy
        if last_ns is None:
            return 0
        elapsed_ns = monotonic_ns - last_ns
        if not 0 < elapsed_ns <= self.deadline_ns:
            return 0
        self.totals.watched_ns += elapsed_ns
        if not (healthy and was_healthy):
            return 0
        self.totals.healthy_ns += elapsed_ns
        self.totals.ever_ns += elapsed_ns
        return elapsed_ns

    def reset(self, fault: str, detail: str, time_ns: int) -> None:
        """Set the healthy time back to zero because of a fault at `time_ns` (host's clock)."""
        reset = ClockReset(time_ns=time_ns, fault=fault, detail=detail, lost_ns=self.totals.healthy_ns)
        self.totals.resets = [*self.totals.resets, reset][-_RESETS_MAX:]
        self.totals.reset_count += 1
        self.totals.healthy_ns = 0
        self._was_healthy = False


def healthy_time_text(healthy_ns: int) -> str:
    """Returns the healthy time as `T+83.5h`: hours to one decimal, never rounded up."""
    tenths = healthy_ns * 10 // HOUR_NS
    return f"T+{tenths // 10}.{tenths % 10}h"
