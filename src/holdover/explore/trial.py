"""Trials: what happens to the subject if a fault occurs at a point of the walked day.

A kill is tried inside the process. The runner sets the running subject aside in the middle of its call,
starts a new one on a copy of the disk at that instant, follows it, rolls everything back and continues the
walk. A fault that the running subject itself has to handle (a dropped link, a lost message, a clean stop) is
tried in a fork, which continues from inside that call; the disk is restored when the fork ends. A subject
without `is_isolated`, which means that two instances cannot share a process, is tried in forks only.

`DayWalk` passes the points, `TrialJudge` follows each trial to its verdict, and a `FaultSequence`, when there is
one, tries a second fault after each first one.
"""

from __future__ import annotations

import contextvars
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import msgspec

from holdover.explore.judge import TrialJudge, TrialResult
from holdover.explore.pool import exit_with_parent
from holdover.explore.walk import INSTANT_KINDS, KILL_KINDS, MESSAGE_KINDS, DayMap, DayWalk, SweepSpec
from holdover.harness import disk, resolve_factory
from holdover.harness.schedule import Operation, PointKind
from holdover.harness.snapshot import Snapshot


class ForkAnswer(msgspec.Struct, array_like=True):
    """The answer of a fork: its trials and the transitions in cells that it reached."""

    results: list[TrialResult]
    cells: list[tuple[str, int]]


class FaultSequence(Protocol):
    """Continues a trial after its first fault, as `pairs.SecondFaults` does."""

    def attach(self, runner: TrialRunner) -> None:
        """Take the runner whose trials it continues."""

    def branch(self) -> AbstractContextManager[None]:
        """Return a context in which a first kill counts points of its own, on their own results."""

    def on_enter(self, operation: Operation, number: int) -> None:
        """Called when a fault happens."""

    def follow_first(self, operation: Operation, number: int) -> list[TrialResult]:
        """Follow the subject after the first fault and return the results of the second ones."""

    def on_point(self, point_kind: PointKind, classes: dict[str, bool]) -> None:
        """Called at each point after a first fault."""


class ForkTask(msgspec.Struct, frozen=True):
    """The fault of a forked child, the number of its point, and the pipe of its answer."""

    operation: Operation
    number: int
    pipe: int


class TrialRunner:
    """Walks the day again and tries the requested kinds at the points from `low` up to but not including `high`.

    `level` is how many faults the present branch has had, `level_max` how many a trial has.
    """

    def __init__(
        self,
        spec: SweepSpec,
        directory: Path,
        snapshot: Snapshot | None,
        day_map: DayMap,
        low: int,
        high: int,
        sequence: FaultSequence | None = None,
    ) -> None:
        self.walk = DayWalk(spec, directory, snapshot)
        self.spec, self.directory, self.session = spec, directory, self.walk.session
        self.judge = TrialJudge(self.walk, day_map)
        self.day_map, self.high = day_map, high
        self.results: list[TrialResult] = []
        self.cells: set[tuple[str, int]] = set()
        self.representatives = {
            group: {n for n in numbers if low <= n < high} for group, numbers in day_map.classes.items()
        }
        self.cuts: dict[int, list[tuple[int, int]]] = {}
        for ran, mutation, number in day_map.cuts:
            if low <= number < high and "disconnect" in spec.kinds:
                self.cuts.setdefault(ran, []).append((mutation, number))
        self.kill_kinds = [kind for kind in KILL_KINDS if kind in spec.kinds]
        self.instant_kinds = [
            kind for kind in (*INSTANT_KINDS, "disconnect") if kind in spec.kinds and self.is_possible(kind)
        ]
        self.message_kinds = [kind for kind in MESSAGE_KINDS if kind in spec.kinds]
        self.allows_isolation, self.is_isolated = True, False
        self.fork_task: ForkTask | None = None
        self.level, self.level_max = 0, 1 if sequence is None else 2
        self.directory_prefix = "trial"
        self.sequence = sequence
        self._cut_mutation, self._is_fault_pending, self._unsynced_is_whole = 0, False, False
        self._image: tuple[Any, dict[str, bytes]] = (None, {})
        self._directory_counts: dict[str, int] = {}
        if sequence is not None:
            sequence.attach(self)

    def is_possible(self, kind: str) -> bool:
        """Return whether a kind can happen: a night needs a recorded day after the swept one."""
        return not kind.startswith("overnight") or self.spec.days.index(self.spec.day) + 1 < len(self.spec.days)

    def run(self) -> None:
        """Walk the day and run the trials.

        In a forked child this never returns; an unexpected exception is sent to the parent as the result.
        """
        try:
            self.walk.run(self)
        except BaseException as problem:
            task = self.fork_task
            if task is None:
                raise
            self._send_answer(task.pipe, [self.judge.make_crash_result(task.operation, task.number, problem)])
        if self.fork_task is not None:
            os._exit(1)

    # -- points -----------------------------------------------------------------------------------------------------

    def on_hook(self) -> None:
        """Observe each timer before it runs, and ask the subject whether it is isolated."""
        if self.session.subject is not None:
            self.is_isolated = self.allows_isolation and bool(getattr(self.session.subject, "is_isolated", False))
        self.session.clock.before_timer = self._fork_at_cuts

    def is_over(self) -> bool:
        """Return whether the walk is past the last point of this piece."""
        return self.walk.position.number >= self.high

    def on_grid_time(self, time_ns: int) -> None:
        """Do nothing: the baselines are those of the survey."""

    def on_point(self, point_kind: PointKind, classes: dict[str, bool]) -> None:
        """Run the trials of a point."""
        is_cut = point_kind == "mutation" and self._cut_mutation == self.walk.position.counts["mutation"]
        if self.fork_task is not None and is_cut:
            self._cut_mutation = 0
            self.walk.operation_runner.drop_link(self.fork_task.operation)
            self.session.stop()
        elif self.level == 0:
            self._try_point(point_kind)
        elif self.sequence is not None and self.level == 1 and not self._is_fault_pending:
            self.sequence.on_point(point_kind, classes)

    def _try_point(self, point_kind: PointKind) -> None:
        number = self.walk.position.number
        if number in self.representatives["message"] and point_kind in ("in", "out"):
            self.try_in_forks(self.message_kinds, point_kind, number)
        if point_kind not in ("in", "out"):
            kinds = [
                kind
                for kind in self.kill_kinds
                if number in self.representatives["stale" if kind == "stale" else "kill"]
            ]
            self.try_kills_or_fork(kinds, point_kind, number)
        if number in self.representatives["after"] and point_kind == "instant":
            self.try_at_instant(self.instant_kinds, number)

    def on_play_returned(self) -> None:
        """In a fork: follow the trial and exit."""
        task = self.fork_task
        if task is not None and self._is_fault_pending:
            self._send_answer(task.pipe, self.run_in_fork(task.operation, task.number))

    def _fork_at_cuts(self) -> None:
        """Before a timer in which the link is dropped at a mutation: fork, and drop it in the child."""
        if self.level == 0:
            for mutation, number in self.cuts.get(self.session.clock.timers_run, ()):
                if self.level:
                    return  # in a fork: the other trials belong to the walk
                self.try_in_forks(["disconnect"], "mutation", number, n=mutation, cut_at=mutation)

    def try_kills_or_fork(self, kinds: Sequence[str], point_kind: PointKind, number: int) -> None:
        """Try kills inside the process when the subject is isolated, else in forks."""
        if kinds and self.is_isolated:
            self.try_kills(kinds, point_kind, number)
        else:
            self.try_in_forks(kinds, point_kind, number)

    def try_at_instant(self, kinds: Sequence[str], number: int) -> None:
        """At the end of an instant, try the kinds that happen when the subject is idle."""
        same_version = "clean" in kinds and "upgrade" in kinds and not self.spec.upgrade
        buried = [kind for kind in kinds if kind == "overnight-down" and self.is_isolated]
        began = len(self.results)
        self.try_in_forks(
            [kind for kind in kinds if kind not in buried and not (same_version and kind == "upgrade")],
            "instant",
            number,
        )
        if same_version:  # without another version, an upgrade is the same trial as a clean restart
            self.results += [
                self.copy_as_kind(result, "upgrade") for result in self.results[began:] if result.kind == "clean"
            ]
        if buried:
            self.try_kills(buried, "instant", number)

    # -- kills in the process ---------------------------------------------------------------------------------------

    def try_kills(self, kinds: Sequence[str], point_kind: PointKind, number: int) -> None:
        """Try kills one after the other in this process; kinds that leave the same disk image share one trial."""
        session = self.session
        before, image = self._image
        signature = disk.directory_signature(session.disk.directory)
        if signature != before:
            image = disk.read_image(session.disk.directory)
            self._image = (signature, image)
        checkpoint, level, directory = session.trials.checkpoint(), self.level, session.directory
        results_by_kind: dict[str, list[TrialResult]] = {}
        recomputes = session.guard.monitor.recomputes_totals
        self.walk.unhook()
        session.guard.monitor.recomputes_totals = False
        for kind in kinds:
            same_results = next(
                (
                    kind_results
                    for other_kind, kind_results in results_by_kind.items()
                    if self._has_same_image(kind, other_kind)
                ),
                None,
            )
            if same_results is not None:
                self.results += [self.copy_as_kind(result, kind) for result in same_results]
                continue
            operation = Operation(day=0, at=point_kind, n=self.walk.position.counts[point_kind], do=kind)
            results = contextvars.Context().run(self._try_kill, operation, number, image)
            session.trials.rollback(checkpoint)
            session.host.on_record = None
            self._set_level(level)
            session.directory = directory
            results_by_kind[kind] = results
            self.results += results
        session.guard.monitor.recomputes_totals = recomputes
        self.walk.hook()

    def copy_as_kind(self, result: TrialResult, kind: str) -> TrialResult:
        """Return a copy of a result for a kind that leaves the same disk image; it replaces the fault of this level."""
        if self.level == 0 or result.second is None:
            return msgspec.structs.replace(result, kind=kind, same_as=result.kind)
        second = msgspec.structs.replace(result.second, do=kind)
        return msgspec.structs.replace(result, second=second, same_as=result.second.do)

    def _has_same_image(self, kind: str, other_kind: str) -> bool:
        """Return whether two kinds of kill leave the same disk image here, so that one trial covers both."""
        return kind == "kill-unsynced" and other_kind == "kill" and self._unsynced_is_whole

    def _try_kill(self, operation: Operation, number: int, image: dict[str, bytes]) -> list[TrialResult]:
        with nullcontext() if self.sequence is None or self.level else self.sequence.branch():
            return self._kill_and_follow(operation, number, image)

    def _kill_and_follow(self, operation: Operation, number: int, image: dict[str, bytes]) -> list[TrialResult]:
        session = self.session
        # Use a new directory: when an earlier subject's database connection is collected, it removes its write-ahead
        # log by name, and that must not be the log of this trial.
        directory_number = self._directory_counts[self.directory_prefix] = (
            self._directory_counts.get(self.directory_prefix, 0) + 1
        )
        directory = self.directory / f"{self.directory_prefix}-{directory_number}"
        disk.remove_directory(self.directory / f"{self.directory_prefix}-{directory_number - 1}")
        try:
            session.trials.fork_tape()
            session.trials.crash(directory, image)
            if operation.do == "kill" and "kill-unsynced" in self.kill_kinds:
                probe = self.directory / "probe"
                disk.write_image(image, probe)
                disk.lose_unsynced(probe, session.disk.synced)
                self._unsynced_is_whole = _without_shm_files(disk.read_image(probe)) == _without_shm_files(image)
            self._enter_branch(operation, number)
            if operation.do == "overnight-down":
                session.directory = self._make_directory("night")
                self._run_overnight(operation)
            else:
                session.restart(operation.do, during=5)
            return self._follow_fault(operation, number)
        except Exception as problem:
            return [self.judge.make_crash_result(operation, number, problem)]

    def _enter_branch(self, operation: Operation, number: int) -> None:
        """Mark that the fault happens: from here on the run differs from the undisturbed day."""
        if self.level >= self.level_max:
            raise RuntimeError(f"a trial of {self.level_max} faults has another one: {operation!r}")
        self._set_level(self.level + 1)
        if self.sequence is not None:
            self.sequence.on_enter(operation, number)

    def _set_level(self, level: int) -> None:
        """Set how many faults have happened. Only the survey and a branch after a first fault have to find classes."""
        self.level = level
        self.walk.is_classifying = level == 1 and self.level_max > 1

    def _follow_fault(self, operation: Operation, number: int) -> list[TrialResult]:
        """Follow the subject after the fault and return the results."""
        if self.sequence is not None and self.level < self.level_max:
            return self.sequence.follow_first(operation, number)
        return [self.judge.follow(operation, number)]

    # -- trials in a fork -------------------------------------------------------------------------------------------

    def try_in_forks(
        self, kinds: Sequence[str], point_kind: PointKind, number: int, *, n: int = 0, cut_at: int = 0
    ) -> None:
        """Try kinds one after the other, each in a fork; with `cut_at` it happens at that mutation.

        Returns in the child too, which continues the walk up to `on_play_returned`.
        """
        saved_disk = (
            disk.DirectoryCheckpoint(self.session.disk.directory, self.directory / f"held-{self.level}")
            if kinds
            else None
        )
        for kind in kinds:
            operation = Operation(day=0, at=point_kind, n=n or self.walk.position.counts[point_kind], do=kind)
            read, write = os.pipe()
            parent = os.getpid()
            child = os.fork()
            if child == 0:
                os.close(read)
                exit_with_parent(parent)
                self._begin_fork(operation, number, write, cut_at)
                return  # the child continues the walk, up to `on_play_returned`
            os.close(write)
            with os.fdopen(read, "rb") as answers:
                payload = answers.read()
            os.waitpid(child, 0)
            if saved_disk is not None:
                saved_disk.restore()
            if payload:
                answer = msgspec.msgpack.decode(payload, type=ForkAnswer)
                self.results += answer.results
                self.cells.update(answer.cells)
            else:
                self.results.append(
                    self.judge.make_result(operation, number, "unknown", oracle="crash", explanation="the fork died")
                )

    def _begin_fork(self, operation: Operation, number: int, pipe: int, cut_at: int) -> None:
        session = self.session
        self.fork_task = ForkTask(operation, number, pipe)
        self.results = []
        session.guard.monitor.recomputes_totals = False
        self._enter_branch(operation, number)
        self._is_fault_pending = True
        if cut_at:
            self._cut_mutation = cut_at
            return
        if operation.do in MESSAGE_KINDS:
            self.walk.operation_runner.apply_to_message(operation, operation.at)
            session.stop()
            return
        self._send_answer(pipe, contextvars.Context().run(self.run_in_fork, operation, number))

    def _send_answer(self, pipe: int, results: list[TrialResult]) -> None:
        cells = sorted({*self.session.guard.cells.transitions, *self.cells})
        with os.fdopen(pipe, "wb") as answers:
            answers.write(msgspec.msgpack.encode(ForkAnswer(results, cells)))
        os._exit(0)

    def run_in_fork(self, operation: Operation, number: int) -> list[TrialResult]:
        """In a fork: perform the operation unless it has happened already, and follow the subject."""
        session = self.session
        self._is_fault_pending = False
        if self.level == self.level_max:
            self.walk.unhook()
        elif operation.at != "instant":
            self.walk.position.counts["instant"] += 1  # the instant in which the fault happened
        session.directory = self._make_directory("fork")
        try:
            if operation.do in KILL_KINDS:
                shutil.copytree(self.directory / "walk" / "backup", session.directory / "backup")
                session.trials.fork_tape()
                session.trials.crash(session.directory / "trial")
                session.restart(operation.do, during=5)
            elif operation.do in ("clean", "upgrade"):
                factory = (
                    resolve_factory(self.spec.upgrade) if operation.do == "upgrade" and self.spec.upgrade else None
                )
                session.restart(operation.do, factory=factory)
            elif operation.do in ("overnight", "overnight-down"):
                self._run_overnight(operation)
            elif operation.do == "disconnect" and operation.at == "instant":
                self.walk.operation_runner.drop_link(operation)
            return self._follow_fault(operation, number)
        except Exception as problem:
            return [self.judge.make_crash_result(operation, number, problem)]

    def _make_directory(self, name: str) -> Path:
        """Return an empty directory for the files of a trial, so that the backup of the walk is not changed."""
        directory = self.directory / f"{name}-{self.level}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory

    def _run_overnight(self, operation: Operation) -> None:
        session = self.session
        self.walk.unhook()
        if operation.do == "overnight-down" and session.subject is not None:
            session.trials.discard_subject()
        session.end(immediately=True)
        session.overnight()
        session.begin()
        if self.level < self.level_max:
            self.walk.position.counts = dict.fromkeys(self.walk.position.counts, 0)
            self.walk.hook()


def _without_shm_files(image: dict[str, bytes]) -> dict[str, bytes]:
    """Return an image without the indexes of write-ahead logs, which every start rebuilds."""
    return {name: part for name, part in image.items() if not name.endswith("-shm")}


def run_trials(
    spec: SweepSpec,
    directory: Path,
    snapshot: Snapshot | None,
    day_map: DayMap,
    low: int,
    high: int,
    sequence: FaultSequence | None = None,
) -> tuple[list[TrialResult], list[tuple[str, str]]]:
    """Run every requested trial at the points from `low` up to but not including `high`.

    Returns the results, and the transitions in cells, as codes, that the undisturbed day did not reach.
    """
    runner = TrialRunner(spec, directory, snapshot, day_map, low, high, sequence)
    try:
        runner.run()
        cells = runner.session.guard.cells
        new_cells = {*cells.transitions, *runner.cells} - set(day_map.cells)
        return runner.results, sorted((label, cells.encode_cell(cell)) for label, cell in new_cells)
    finally:
        runner.session.close()
