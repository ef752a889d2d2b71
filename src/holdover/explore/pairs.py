"""Pairs: a second fault at every class of points that follows a first fault.

A subject is weakest while it recovers: a crash during the recovery from a crash, a link that drops during a
reconciliation, a kill in the first minute of the next morning. The number of pairs is the square of the
number of faults, so pairs are tried in a window of the day. Pairs of two lifecycle transitions come first
(`split_crossings`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.explore.schedule import Operation
from holdover.explore.trial import TrialResult, TrialRunner
from holdover.explore.walk import INSTANT_KINDS, KILL_KINDS, MESSAGE_KINDS, DayMap, DayWalk, SweepSpec
from holdover.harness.snapshot import Snapshot

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


class PairRunner(TrialRunner):
    """Runs trials of two faults: after each first fault it looks for points for a second one."""

    def __init__(
        self, spec: SweepSpec, directory: Path, snapshot: Snapshot | None, day_map: DayMap, low: int, high: int
    ) -> None:
        super().__init__(spec, directory, snapshot, day_map, low, high)
        self.level_max = 2
        self.first_fault: tuple[Operation, int] | None = None
        self.second_day = spec.day
        self.second_kill_kinds = [kind for kind in KILL_KINDS if kind in spec.pairs]
        self.second_message_kinds = [kind for kind in MESSAGE_KINDS if kind in spec.pairs]
        self.second_instant_kinds = [
            kind for kind in (*INSTANT_KINDS, "disconnect") if kind in spec.pairs and self.is_possible(kind)
        ]

    # -- the first fault ------------------------------------------------------------------------------------------

    def try_kill(self, operation: Operation, number: int, image: dict[str, bytes]) -> list[TrialResult]:
        """Try a kill. After a first kill it continues with its own counters and restores the old ones at the end."""
        if self.level:
            return super().try_kill(operation, number, image)
        saved_state = (
            self.number,
            self.counts,
            self.volatile_mutations,
            self._keys,
            self._has_events,
            self.results,
            self.directory_prefix,
        )
        self.counts, self._keys, self.results = dict(self.counts), {}, []
        try:
            return super().try_kill(operation, number, image)
        finally:
            (
                self.number,
                self.counts,
                self.volatile_mutations,
                self._keys,
                self._has_events,
                self.results,
                self.directory_prefix,
            ) = saved_state
            self.first_fault = None

    def enter_branch(self, operation: Operation, number: int) -> None:
        """Begin a fault. After the first fault, watch every point again."""
        super().enter_branch(operation, number)
        self.second_day = self.session.trade_date
        if self.level == 1:
            self.first_fault = (operation, number)
            self.directory_prefix = "second"
            if operation.do in KILL_KINDS:
                if operation.at != "instant":
                    self.counts["instant"] += 1  # the instant in which the fault happened
                self.hook()

    def follow_fault(self, operation: Operation, number: int) -> list[TrialResult]:
        """After the first fault, try a second one at each class of points; after the second, follow the subject."""
        if self.level == self.level_max:
            return super().follow_fault(operation, number)
        session = self.session
        is_next_day = session.trade_date != self.spec.day
        end_ns = max(session.hours()[0], session.clock.now_ns) if is_next_day else session.clock.now_ns
        self.on_play_returned()
        while True:
            session.play(end_ns + self.spec.pair_window_ns)
            self.on_play_returned()
            if not session.is_stopped or session.guard.breaches:
                break
            self._count_point("instant")
        self.unhook()
        if session.guard.breaches:  # a breach needs no second fault
            self.results.append(self.make_judged_result(operation, number, "converged", ""))
        return self.results

    # -- the second fault -------------------------------------------------------------------------------------------

    def classes_at(self, point_kind: str) -> dict[str, bool]:
        """Return the classes of a point: on the swept day from the survey, after a first fault computed."""
        return DayWalk.classes_at(self, point_kind) if self.level == 1 else super().classes_at(point_kind)

    def on_point(self, point_kind: str, classes: dict[str, bool]) -> None:
        """Try the second faults that apply at a point."""
        if self.level != 1 or self._is_fault_pending:
            super().on_point(point_kind, classes)
            return
        if self.session.guard.breaches or self.session.subject is None:
            return
        if point_kind in ("in", "out"):
            self.try_in_forks(self.second_message_kinds, point_kind, self.number)
            return
        kinds = [kind for kind in self.second_kill_kinds if classes["stale" if kind == "stale" else "kill"]]
        self.try_kills_or_fork(kinds, point_kind, self.number)
        if point_kind == "instant":
            later = self.session.trade_date != self.spec.day  # the recording ends before another night
            afterwards_kinds = [
                kind for kind in self.second_instant_kinds if not (later and kind.startswith("overnight"))
            ]
            self.try_at_instant(afterwards_kinds, self.number)

    def copy_as_kind(self, result: TrialResult, kind: str) -> TrialResult:
        """Return a copy of a result for a kind that leaves the same disk image; it replaces the current fault of the
        pair.
        """
        if self.level == 0 or result.second is None:
            return super().copy_as_kind(result, kind)
        second = msgspec.structs.replace(result.second, do=kind)
        return msgspec.structs.replace(result, second=second, same_as=result.second.do)

    def make_result(self, operation: Operation, number: int, verdict: str, **fields: Any) -> TrialResult:
        """Return the result of a trial; for a pair, with the point of the first fault and the second fault."""
        result = super().make_result(operation, number, verdict, **fields)
        if self.level < self.level_max or self.first_fault is None:
            return result
        first, at = self.first_fault
        day = self.spec.days.index(self.second_day) - self.spec.days.index(self.spec.day)
        second = msgspec.structs.replace(operation, day=day)
        return msgspec.structs.replace(result, number=at, kind=first.do, at=first.at, n=first.n, second=second)
