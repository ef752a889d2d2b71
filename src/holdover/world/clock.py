"""Virtual time: a first-in-first-out scheduler whose timers are data.

Nothing sleeps. A timer is (time, sequence, owner, name, args) and contains no closure, so the queue can be
stored in a snapshot and restored in another process. Each owner registers one handler for all its timers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from holdover.state import StateError, Stateful

NEVER = 2**63 - 1
Handler = Callable[[str, tuple[Any, ...]], None]
Timer = tuple[int, int, str, str, tuple[Any, ...]]
"""A timer: due time in ns, number, owner, name and arguments."""


class ClockState(msgspec.Struct):
    """The state of a `VirtualClock`."""

    now_ns: int
    number: int
    timers_run: int
    heap: list[Timer]
    cancelled: set[int]


class VirtualClock(Stateful[ClockState]):
    """The time of a simulated world, in ns since the epoch, UTC.

    `next_ns` is the time of the earliest timer, or `NEVER`. `timers_run` counts the timers that have run, and
    `before_timer` is called before each of them.
    """

    State = ClockState
    IN_PROCESS: ClassVar = {
        "_handlers": "functions of the running process; replaced as a whole, never changed in place"
    }
    DERIVED: ClassVar = {
        "next_ns": "the time of the first timer",
        "before_timer": "a hook of whoever drives the clock, set and removed by it",
    }

    __slots__ = ("_cancelled", "_handlers", "_heap", "_number", "before_timer", "next_ns", "now_ns", "timers_run")

    def __init__(self, now_ns: int = 0) -> None:
        if not 0 <= now_ns < NEVER:
            raise ValueError(f"a clock at {now_ns} ns, should be ns since the epoch, from 0 on")
        self.now_ns = now_ns
        self.next_ns = NEVER
        self.timers_run = 0
        self.before_timer: Callable[[], None] | None = None
        self._heap: list[Timer] = []
        self._number = 0
        self._handlers: Mapping[str, Handler] = {}
        self._cancelled: set[int] = set()

    def register(self, owner: str, handler: Handler) -> None:
        """Register the handler for the timers of an owner."""
        if not owner:
            raise ValueError("the handler of timers needs the name of their owner")
        self._handlers = {**self._handlers, owner: handler}

    def unregister(self, owner: str) -> None:
        """Remove the handler of an owner; its timers then run without effect."""
        self._handlers = {name: handler for name, handler in self._handlers.items() if name != owner}

    def set_timer(self, time_ns: int, owner: str, name: str, *args: Any) -> int:
        """Set a timer; return its number. Timers of the same time run in the order in which they were set.

        Raises `ValueError` when the time has passed.
        """
        if time_ns < self.now_ns:
            raise ValueError(f"timer {owner}/{name} at {time_ns} is before now, {self.now_ns}")
        self._number += 1
        heapq.heappush(self._heap, (time_ns, self._number, owner, name, args))
        if time_ns < self.next_ns:
            self.next_ns = time_ns
        return self._number

    def cancel_timer(self, number: int) -> None:
        """Cancel a timer by number."""
        if not 0 < number <= self._number:
            raise ValueError(f"no timer has the number {number}; {self._number} were set")
        self._cancelled.add(number)

    def cancel_owner(self, owner: str) -> None:
        """Cancel every timer of an owner."""
        self._heap[:] = [timer for timer in self._heap if timer[2] != owner]  # in place: `run_until` uses it
        heapq.heapify(self._heap)
        self.next_ns = self._heap[0][0] if self._heap else NEVER

    def run_until(self, time_ns: int) -> None:
        """Run every timer that is due up to and including `time_ns`, in order, and set the time to `time_ns`.

        Raises `ValueError` when that time has passed.
        """
        if time_ns < self.now_ns:
            raise ValueError(f"the clock is at {self.now_ns} ns and cannot go back to {time_ns}")
        heap = self._heap
        while heap and heap[0][0] <= time_ns:
            due_ns, number, owner, name, args = heapq.heappop(heap)
            self.next_ns = heap[0][0] if heap else NEVER
            if number in self._cancelled:
                self._cancelled.discard(number)
                continue
            self.now_ns = due_ns
            self.timers_run += 1
            if self.before_timer is not None:
                self.before_timer()
            handler = self._handlers.get(owner)
            if handler is not None:
                handler(name, args)
        self.next_ns = heap[0][0] if heap else NEVER
        self.now_ns = time_ns

    def pending_count(self, owner: str) -> int:
        """Return the number of waiting timers of an owner."""
        return sum(1 for timer in self._heap if timer[2] == owner and timer[1] not in self._cancelled)

    @property
    def timers_set(self) -> int:
        """The number of timers set so far."""
        return self._number

    def pending_timers(self) -> list[tuple[int, str, str, tuple[Any, ...]]]:
        """Return every waiting timer in running order: its time from now in ns, owner, name and arguments."""
        waiting = sorted(timer for timer in self._heap if timer[1] not in self._cancelled)
        return [(due - self.now_ns, owner, name, args) for due, _, owner, name, args in waiting]

    # -- state --------------------------------------------------------------------------------------------------

    def to_state(self) -> ClockState:
        """Return the state without cancelled timers and in running order, so that equal clocks have equal bytes."""
        state = super().to_state()
        state.heap = sorted(timer for timer in self._heap if timer[1] not in self._cancelled)
        state.cancelled = set()
        return state

    def take_state(self, state: ClockState) -> None:
        """Take over a decoded state; registered handlers stay.

        Raises `StateError` when a timer is due before the state's time or carries a number that was never given.
        """
        if state.now_ns < 0 or not 0 <= state.timers_run <= state.number:
            raise StateError(
                f"the stored state of VirtualClock is damaged: {state.timers_run} of {state.number} timers have run at "
                f"{state.now_ns} ns"
            )
        numbers = [timer[1] for timer in state.heap]
        if len(set(numbers)) < len(numbers):
            raise StateError(f"the stored state of VirtualClock is damaged: two timers have one number: {numbers}")
        for time_ns, number, owner, name, _ in state.heap:
            if time_ns < state.now_ns or not 0 < number <= state.number:
                raise StateError(
                    f"the stored state of VirtualClock is damaged: timer {number} ({owner}/{name}) at {time_ns} ns "
                    f"does not belong to a clock at {state.now_ns} ns that has set {state.number} timers"
                )
        self.now_ns, self._number, self.timers_run = state.now_ns, state.number, state.timers_run
        self._heap[:] = state.heap  # in place: `run_until` uses it
        heapq.heapify(self._heap)
        self._cancelled = state.cancelled
        self._after_restore()

    def _after_restore(self) -> None:
        self.next_ns = self._heap[0][0] if self._heap else NEVER
