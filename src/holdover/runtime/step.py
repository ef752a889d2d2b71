"""Steps: one cause and the mutations that it brings about; the end of a step settles them.

Steps nest; each thread and each asyncio task has its own. If several open steps touch a key, the last of them
settles it, because only then is everything that touches it done.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec

from holdover.model import ClockReading, Record
from holdover.runtime.check import Touched
from holdover.state import Owned, Stateful

if TYPE_CHECKING:
    from holdover.runtime.guard import Guard


class StepError(ValueError):
    """A step ended that the guard does not know as open."""


class StepState(msgspec.Struct):
    """The state of a step."""

    touched: Touched
    began_ns: int
    is_open: bool
    outer: object


class Step(Stateful[StepState]):
    """One cause and its mutations; a context manager. Inside another step it joins that one."""

    State = StepState
    IN_PROCESS: ClassVar = {"_token": "a token of this process's context variable"}
    DERIVED: ClassVar = {
        "_steps": "the guard's steps",
        "cause": "given when the step is made",
        "_task": "the asyncio task of this process in which the step began",
    }

    __slots__ = ("_steps", "_task", "_token", "began_ns", "cause", "is_open", "outer", "touched")

    def __init__(self, steps: StepRunner, cause: str) -> None:
        self._steps = steps
        self.cause = cause
        self.touched: Touched = {}
        self.began_ns = 0
        self.is_open = False
        self.outer: Step | None = None
        self._token: Token[Step | None] | None = None
        self._task: object = None

    def __enter__(self) -> Step:
        outer = _STEP.get()
        task = _running_task()
        # A task started inside a step inherits it and may outlive it: its own step must not end with the other one.
        # A worker thread that the step's task waits for (asyncio.to_thread) has no task of its own.
        if (
            outer is not None
            and outer.is_open
            and outer._steps is self._steps
            and (task is None or task is outer._task)
        ):
            self.outer = outer
            return outer
        self._task = task
        self.is_open = True
        self._token = _STEP.set(self)
        self._steps.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.outer is not None:
            self.outer = None
            return
        if self._token is not None:
            with contextlib.suppress(ValueError):  # left in another context, as by an async generator that is closed
                _STEP.reset(self._token)
            self._token = None
        self.is_open = False
        self._steps.settle(self)


def _running_task() -> object:
    """Return the asyncio task that runs in this thread; None when there is none."""
    asyncio = sys.modules.get("asyncio")  # not imported here: a program without it needs none of it
    if asyncio is None:
        return None
    loop = asyncio._get_running_loop()
    return None if loop is None else asyncio.current_task(loop)


_STEP: ContextVar[Step | None] = ContextVar("holdover_step", default=None)


class StepRunnerState(msgspec.Struct):
    """The state of a guard's steps."""

    open_steps: Annotated[list[Step], Owned]
    count: int
    last_ns: int
    last_tick_ns: int
    last_settled_mutation: int
    restored_at_mutation: int
    is_jump_declared: bool


class StepRunner(Stateful[StepRunnerState]):
    """The steps of one guard. `lock` serialises everything that the guard does.

    `count` is the number of outermost steps so far. `restored_at_mutation` is the number of the last mutation that a
    restored process reported. `on_mutation` receives each mutation after its evaluation.
    """

    State = StepRunnerState
    DERIVED: ClassVar = {
        "_guard": "the guard that this is a part of",
        "lock": "a lock of this process",
        "on_mutation": "a function of whoever follows the guard",
        "_add_to_recorder": "a method of the flight recorder",
    }

    def __init__(self, guard: Guard) -> None:
        self.lock = threading.RLock()
        self.on_mutation: Callable[[int, str, Record], None] | None = None
        self.open_steps: list[Step] = []
        self.count = 0
        self.restored_at_mutation = 0
        self._last_ns = 0
        self._last_tick_ns = 0
        self._last_settled_mutation = 0
        self._is_jump_declared = False
        self._guard = guard
        self._add_to_recorder = guard.recorder.add

    # -- mutations ----------------------------------------------------------------------------------------------

    def record(self, subsystem: str, record: Record) -> None:
        """Record a change of one subsystem's record; see `Guard.record`."""
        step = _STEP.get()
        if step is None or not step.is_open or step._steps is not self:
            with Step(self, "record"):
                self.record(subsystem, record)
            return
        with self.lock:
            guard = self._guard
            monitor, journal = guard.monitor, guard.journal
            now_ns = guard.clock()
            monitor.cause = step.cause
            before = monitor.mutate(subsystem, record, now_ns, step.touched)
            entry = (monitor.mutations, now_ns, subsystem, record, step.cause, before, self.count)
            self._add_to_recorder(entry)
            for capture in monitor.captures:
                if capture.is_complete:
                    capture.recorded.append(entry)
            if journal is not None:
                journal.write_mutation(monitor.mutations, now_ns, subsystem, record, step.cause)
            if self.on_mutation is not None:
                self.on_mutation(monitor.mutations, subsystem, record)

    def restore(self, subsystem: str, records: Iterable[Record]) -> None:
        """Report the records that a restarted subsystem read back; see `Guard.restore`."""
        step = _STEP.get()
        if step is None or not step.is_open or step._steps is not self:
            with Step(self, "restore"):
                self.restore(subsystem, records)
            return
        with self.lock:
            guard = self._guard
            guard.monitor.cause = "restore"
            records = list(records)
            guard.monitor.restore(subsystem, records, guard.clock(), step.touched)
            self.restored_at_mutation = guard.monitor.mutations
            if guard.journal is not None:
                guard.journal.write_restored(guard.monitor.mutations, guard.clock(), subsystem, records)

    # -- steps --------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether any step is open."""
        return bool(self.open_steps)

    @property
    def newest_ns(self) -> int:
        """The time of the last step or tick, in ns; 0 before the first."""
        return max(self._last_ns, self._last_tick_ns)

    def begin(self, step: Step) -> None:
        """Begin a step."""
        with self.lock:
            monitor = self._guard.monitor
            now_ns = self._guard.clock()
            if now_ns >= monitor.deadlines.next_ns:
                monitor.tick(now_ns)
            if now_ns < self._last_ns:
                self._record_clock_reading(now_ns)
            self._last_ns = step.began_ns = now_ns
            if not self.open_steps:
                self.count += 1
                if monitor.recovery.undo_log:
                    monitor.recovery.undo_log.clear()
            self.open_steps.append(step)

    def settle(self, step: Step) -> None:
        """End a step: evaluate what must hold now. Raises `StepError` when the step is not open."""
        with self.lock:
            try:
                self.open_steps.remove(step)
            except ValueError:
                raise StepError(f"the step {step.cause} ends, but it was abandoned or has ended before") from None
            guard, touched = self._guard, step.touched
            if self.open_steps:
                for open_step in self.open_steps:
                    for mark in [mark for mark in touched if mark in open_step.touched]:
                        del touched[mark]
            monitor, journal = guard.monitor, guard.journal
            monitor.cause = step.cause
            monitor.settle(touched, guard.clock())
            if journal is not None:
                if not self.open_steps and monitor.mutations != self._last_settled_mutation:
                    self._last_settled_mutation = monitor.mutations
                    journal.write_settled(self._last_settled_mutation, monitor.now_ns)
                journal.flush()
            guard.evidence.close_settle()
            guard.evidence.write_bundles()

    def abandon(self, has_left: Callable[[Record], bool] = lambda record: True, *, discard_steps: bool = False) -> None:
        """Undo the open steps of a process that has died; they will not settle.

        `has_left` tells whether a recorded request has left the process. `discard_steps` drops the steps because no
        code will leave them.
        """
        with self.lock:
            self._guard.monitor.undo_open_steps(has_left)
            for step in self.open_steps:
                step.touched.clear()
            if discard_steps:
                self.open_steps.clear()

    # -- time ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Evaluate the invariants whose time has run out; see `Guard.tick`."""
        with self.lock:
            monitor = self._guard.monitor
            now_ns = self._last_tick_ns = self._guard.clock()
            if now_ns >= monitor.deadlines.next_ns:
                monitor.cause = "tick"
                monitor.tick(now_ns)
            self._guard.evidence.close_settle()
            self._guard.evidence.write_bundles()

    def mark_subject_down(self) -> None:
        """Mark the guarded process as down: no deadline expires until its first step after the restart."""
        with self.lock:
            monitor = self._guard.monitor
            monitor.deadlines.is_paused = True
            monitor.efforts.pause(monitor.now_ns)

    def declare_clock_jump(self) -> None:
        """Announce that the next backward jump of the clock is intended (a manually set clock, a replayed day)."""
        self._is_jump_declared = True

    def record_boundary_time(self, now_ns: int) -> None:
        """Record the reading of the clock at a boundary, for `clock-monotone`."""
        self._record_clock_reading(now_ns)
        self._last_ns = max(self._last_ns, now_ns)

    def continue_from(self, time_ns: int) -> None:
        """Continue after a restored state: the clock must not be behind this time, in ns."""
        self._last_ns = time_ns

    def _record_clock_reading(self, now_ns: int) -> None:
        self._guard.monitor.cause = "clock"
        self._guard.monitor.record_self_check(
            ClockReading(time_ns=now_ns, previous_ns=self._last_ns, declared=self._is_jump_declared), now_ns
        )
        self._is_jump_declared = False
