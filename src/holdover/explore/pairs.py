"""Pairs: a second fault at every class of points that follows a first fault.

A subject is weakest while it recovers: a crash during the recovery from a crash, a link that drops during a
reconciliation, a kill in the first minute of the next morning. The number of pairs is the square of the
number of faults, so pairs are tried in a window of the day. Pairs of two lifecycle transitions come first
(`split_crossings`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from holdover.explore.judge import TrialResult
from holdover.explore.trial import TrialRunner
from holdover.explore.walk import INSTANT_KINDS, KILL_KINDS, MESSAGE_KINDS, SweepSpec
from holdover.harness.schedule import Operation, PointKind

LIFECYCLE_KINDS: Final[tuple[str, ...]] = (*KILL_KINDS, *INSTANT_KINDS, "disconnect")
"""Kinds that are transitions of the lifecycle; their pairs come first."""

SECOND_KINDS: Final[tuple[str, ...]] = ("kill", "torn", "kill-during-recovery", "clean", "overnight-down", "disconnect")
"""The second faults when the options name none."""


def split_crossings(spec: SweepSpec) -> list[SweepSpec]:
    """Split the pairs of a sweep into up to four sweeps, lifecycle kinds first; each pair of kinds is in exactly
    one.
    """
    first = [kind for kind in spec.kinds if kind in LIFECYCLE_KINDS]
    other_kinds = [kind for kind in spec.kinds if kind not in LIFECYCLE_KINDS]
    second = [kind for kind in spec.pairs if kind in LIFECYCLE_KINDS]
    other_second = [kind for kind in spec.pairs if kind not in LIFECYCLE_KINDS]
    crossed = [(first, second), (first, other_second), (other_kinds, second), (other_kinds, other_second)]
    return [
        msgspec.structs.replace(spec, kinds=first_kinds, pairs=second_kinds)
        for first_kinds, second_kinds in crossed
        if first_kinds and second_kinds
    ]


class SecondFaults:
    """Tries a second fault at each class of points that follows a first one, for the trials of one runner."""

    def __init__(self, spec: SweepSpec) -> None:
        self.spec = spec
        self.first_fault: tuple[Operation, int] | None = None
        self.second_day = spec.day
        self.kill_kinds = [kind for kind in KILL_KINDS if kind in spec.pairs]
        self.message_kinds = [kind for kind in MESSAGE_KINDS if kind in spec.pairs]
        self.instant_kinds: list[str] = []

    def attach(self, runner: TrialRunner) -> None:
        """Take the runner whose trials it continues, and complete its results."""
        self.runner, self.session = runner, runner.session
        runner.judge.complete_result = self._complete_result
        self.instant_kinds = [
            kind for kind in (*INSTANT_KINDS, "disconnect") if kind in self.spec.pairs and runner.is_possible(kind)
        ]

    # -- the first fault ------------------------------------------------------------------------------------------

    @contextmanager
    def branch(self) -> Iterator[None]:
        """Let a first kill count points of its own, on its own results, and restore the runner's at the end."""
        runner = self.runner
        position, results, directory_prefix = runner.walk.position, runner.results, runner.directory_prefix
        runner.walk.position, runner.results = position.branch(), []
        try:
            yield
        finally:
            runner.walk.position, runner.results, runner.directory_prefix = position, results, directory_prefix
            self.first_fault = None

    def on_enter(self, operation: Operation, number: int) -> None:
        """After the first fault, watch every point again."""
        runner = self.runner
        self.second_day = self.session.trade_date
        if runner.level == 1:
            self.first_fault = (operation, number)
            runner.directory_prefix = "second"
            if operation.do in KILL_KINDS:
                if operation.at != "instant":
                    runner.walk.position.counts["instant"] += 1  # the instant in which the fault happened
                runner.walk.hook()

    def follow_first(self, operation: Operation, number: int) -> list[TrialResult]:
        """Run for the window of the pairs, in which `on_point` tries the second faults, and return their results."""
        runner, session = self.runner, self.session
        is_next_day = session.trade_date != self.spec.day
        end_ns = max(session.hours()[0], session.clock.now_ns) if is_next_day else session.clock.now_ns
        runner.on_play_returned()
        while True:
            session.play(end_ns + self.spec.pair_window_ns)
            runner.on_play_returned()
            if not session.is_stopped or session.guard.breaches:
                break
            runner.walk.count_point("instant")
        runner.walk.unhook()
        if session.guard.breaches:  # a breach needs no second fault
            runner.results.append(runner.judge.make_judged_result(operation, number, "converged", ""))
        return runner.results

    # -- the second fault -------------------------------------------------------------------------------------------

    def on_point(self, point_kind: PointKind, classes: dict[str, bool]) -> None:
        """Try the second faults that apply at a point."""
        runner = self.runner
        if self.session.guard.breaches or self.session.subject is None:
            return
        number = runner.walk.position.number
        if point_kind in ("in", "out"):
            runner.try_in_forks(self.message_kinds, point_kind, number)
            return
        kinds = [kind for kind in self.kill_kinds if classes["stale" if kind == "stale" else "kill"]]
        runner.try_kills_or_fork(kinds, point_kind, number)
        if point_kind == "instant":
            later = self.session.trade_date != self.spec.day  # the recording ends before another night
            afterwards_kinds = [kind for kind in self.instant_kinds if not (later and kind.startswith("overnight"))]
            runner.try_at_instant(afterwards_kinds, number)

    def _complete_result(self, result: TrialResult, operation: Operation) -> TrialResult:
        """Return the result with the point of the first fault, and its operation as the second fault."""
        if self.runner.level < self.runner.level_max or self.first_fault is None:
            return result
        first, number = self.first_fault
        day = self.spec.days.index(self.second_day) - self.spec.days.index(self.spec.day)
        second = msgspec.structs.replace(operation, day=day)
        return msgspec.structs.replace(result, number=number, kind=first.do, at=first.at, n=first.n, second=second)
