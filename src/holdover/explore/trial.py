"""Trials: what happens to the subject if a fault occurs at a point of the walked day.

A kill is tried inside the process. The runner sets the running subject aside in the middle of its call,
starts a new one on a copy of the disk at that instant, follows it, rolls everything back and continues the
walk. A fault that the running subject itself has to handle (a dropped link, a lost message, a clean stop) is
tried in a fork, which continues from inside that call; the disk is restored when the fork ends. A subject
without `isolated`, which means that two instances cannot share a process, is tried in forks only.

A trial ends when its state equals that of the undisturbed day (*transparent*), when an invariant or an oracle
fails (*breach*), or at the horizon (*converged*: it agrees with the venue, and the result lists the
differences).
"""

from __future__ import annotations

import contextvars
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.explore.pool import exit_with_parent
from holdover.explore.schedule import Operation
from holdover.explore.walk import (
    INSTANT_KINDS,
    KILL_KINDS,
    MESSAGE_KINDS,
    Baseline,
    DayMap,
    DayWalk,
    SweepSpec,
    measure_baseline,
)
from holdover.harness import disk, resolve_factory
from holdover.harness.snapshot import Snapshot
from holdover.model import Order, Position

VERDICTS: Final = ("transparent", "converged", "breach", "unknown")
_IDEMPOTENCE_INTERVAL: Final = 20


class TrialResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of one trial: the point, the fault and the verdict.

    `number` is the number of the point; `at` and `n` name it as a schedule does. `oracle` names the check that
    failed: `catalogue`, `convergence`, `idempotence`, `crash`, `rejoin`. `same_as` is the kind whose trial had
    the same disk image. `second` is the second fault of a pair; its day counts from the swept one.
    """

    number: int
    kind: str
    at: str
    n: int
    time_ns: int
    verdict: str
    oracle: str = ""
    invariant: str = ""
    subsystem: str = ""
    explanation: str = ""
    rejoined_ns: int = 0
    is_proved: bool = False
    same_as: str = ""
    second: Operation | None = None

    @property
    def kind_name(self) -> str:
        """Return the kind; for a pair, both kinds."""
        return self.kind if self.second is None else f"{self.kind}+{self.second.do}"

    def operations(self, day: int) -> list[Operation]:
        """Return the operations of a schedule that repeats the trial."""
        first = Operation(day=day, at=self.at, n=self.n, do=self.kind)  # type: ignore[arg-type]
        return (
            [first] if self.second is None else [first, msgspec.structs.replace(self.second, day=day + self.second.day)]
        )


class ForkAnswer(msgspec.Struct, array_like=True):
    """The answer of a fork: its trials and the transitions in cells that it reached."""

    results: list[TrialResult]
    cells: list[tuple[str, int]]


class TrialRunner(DayWalk):
    """Walks the day again and tries the requested kinds at the points from `low` up to but not including `high`."""

    def __init__(
        self, spec: SweepSpec, directory: Path, snapshot: Snapshot | None, day_map: DayMap, low: int, high: int
    ) -> None:
        super().__init__(spec, directory, snapshot)
        self.day_map, self.low, self.high = day_map, low, high
        self.baselines = {baseline.time_ns: baseline for baseline in day_map.baselines}
        self.grid_times_ns = [baseline.time_ns for baseline in day_map.baselines]
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
        self.is_isolated = False
        self.fork_state: tuple[Operation, int, int] | None = None
        self._cut_mutation, self._is_fault_pending = 0, False
        self._image: tuple[Any, dict[str, bytes]] = (None, {})
        self._directory_counts: dict[str, int] = {}
        self.level, self.level_max = 0, 1
        self.directory_prefix = "trial"

    def is_possible(self, kind: str) -> bool:
        return not kind.startswith("overnight") or self.spec.days.index(self.spec.day) + 1 < len(self.spec.days)

    def run(self) -> None:
        """Walk the day and run the trials.

        In a forked child this never returns; an unexpected exception is sent to the parent as the result.
        """
        try:
            super().run()
        except BaseException as problem:
            if self.fork_state is None:
                raise
            operation, number, pipe = self.fork_state
            self._send_answer(pipe, [self._crash_result(operation, number, problem)])
        if self.fork_state is not None:
            os._exit(1)

    # -- points -----------------------------------------------------------------------------------------------------

    def hook(self) -> None:
        """Observe every event, and each timer before it runs."""
        super().hook()
        if self.session.subject is not None:
            self.is_isolated = bool(getattr(self.session.subject, "is_isolated", False))
        self.session.clock.before_timer = self._fork_at_cuts

    def is_over(self) -> bool:
        """Return whether the walk is past the last point of this piece."""
        return self.number >= self.high

    def classes_at(self, point_kind: str) -> dict[str, bool]:
        """Return nothing: the survey has already determined the classes."""
        return {}

    def on_point(self, point_kind: str, classes: dict[str, bool]) -> None:
        """Run the trials of a point."""
        if self.fork_state is not None and point_kind == "mutation" and self._cut_mutation == self.counts["mutation"]:
            self._cut_mutation = 0
            self.operation_runner.drop_link(self.fork_state[0])
            self.session.stop()
        elif self.level == 0:
            self._try_point(point_kind)

    def _try_point(self, point_kind: str) -> None:
        number = self.number
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
        if self.fork_state is not None and self._is_fault_pending:
            operation, number, pipe = self.fork_state
            self._send_answer(pipe, self.run_in_fork(operation, number))

    def _fork_at_cuts(self) -> None:
        """Before a timer in which the link is dropped at a mutation: fork, and drop it in the child."""
        if self.level == 0:
            for mutation, number in self.cuts.get(self.session.clock.timers_run, ()):
                if self.level:
                    return  # in a fork: the other trials belong to the walk
                self.try_in_forks(["disconnect"], "mutation", number, n=mutation, cut_at=mutation)

    def try_kills_or_fork(self, kinds: Sequence[str], point_kind: str, number: int) -> None:
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

    def try_kills(self, kinds: Sequence[str], point_kind: str, number: int) -> None:
        session = self.session
        before, image = self._image
        signature = disk.directory_signature(session.disk.directory)
        if signature != before:
            image = disk.read_image(session.disk.directory)
            self._image = (signature, image)
        checkpoint, level, directory = session.trials.checkpoint(), self.level, session.directory
        results_by_kind: dict[str, list[TrialResult]] = {}
        recomputes = session.guard.monitor.recomputes_totals
        self.unhook()
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
            operation = Operation(day=0, at=point_kind, n=self.counts[point_kind], do=kind)  # type: ignore[arg-type]
            results = contextvars.Context().run(self.try_kill, operation, number, image)
            session.trials.rollback(checkpoint)
            session.host.on_record = None
            self.level, session.directory = level, directory
            results_by_kind[kind] = results
            self.results += results
        session.guard.monitor.recomputes_totals = recomputes
        self.hook()

    def copy_as_kind(self, result: TrialResult, kind: str) -> TrialResult:
        """Return a copy of a result for a kind that leaves the same disk image."""
        return msgspec.structs.replace(result, kind=kind, same_as=result.kind)

    def _has_same_image(self, kind: str, other_kind: str) -> bool:
        """Return whether two kinds of kill leave the same disk image here, so that one trial covers both."""
        return kind == "kill-unsynced" and other_kind == "kill" and self._unsynced_is_whole

    def try_kill(self, operation: Operation, number: int, image: dict[str, bytes]) -> list[TrialResult]:
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
            self.enter_branch(operation, number)
            if operation.do == "overnight-down":
                session.directory = self._make_directory("night")
                self._run_overnight(operation)
            else:
                session.restart(operation.do, during=5)
            return self.follow_fault(operation, number)
        except Exception as problem:
            return [self._crash_result(operation, number, problem)]

    def enter_branch(self, operation: Operation, number: int) -> None:
        """Mark that the fault happens: from here on the run differs from the undisturbed day."""
        self.level += 1

    def follow_fault(self, operation: Operation, number: int) -> list[TrialResult]:
        """Follow the subject after the fault and return the results."""
        return [self.follow(operation, number)]

    # -- trials in a fork -------------------------------------------------------------------------------------------

    def try_in_forks(self, kinds: Sequence[str], point_kind: str, number: int, *, n: int = 0, cut_at: int = 0) -> None:
        saved_disk = (
            disk.DirectoryCheckpoint(self.session.disk.directory, self.directory / f"held-{self.level}")
            if kinds
            else None
        )
        for kind in kinds:
            operation = Operation(day=0, at=point_kind, n=n or self.counts[point_kind], do=kind)  # type: ignore[arg-type]
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
                    self.make_result(operation, number, "unknown", oracle="crash", explanation="the fork died")
                )

    def _begin_fork(self, operation: Operation, number: int, pipe: int, cut_at: int) -> None:
        session = self.session
        self.fork_state = (operation, number, pipe)
        self.results = []
        session.guard.monitor.recomputes_totals = False
        self.enter_branch(operation, number)
        self._is_fault_pending = True
        if cut_at:
            self._cut_mutation = cut_at
            return
        if operation.do in MESSAGE_KINDS:
            self.operation_runner.apply_to_message(operation, operation.at)
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
            self.unhook()
        elif operation.at != "instant":
            self.counts["instant"] += 1  # the instant in which the fault happened
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
                self.operation_runner.drop_link(operation)
            return self.follow_fault(operation, number)
        except Exception as problem:
            return [self._crash_result(operation, number, problem)]

    def _make_directory(self, name: str) -> Path:
        """Return an empty directory for the files of a trial, so that the backup of the walk is not changed."""
        directory = self.directory / f"{name}-{self.level}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory

    def _run_overnight(self, operation: Operation) -> None:
        session = self.session
        self.unhook()
        if operation.do == "overnight-down" and session.subject is not None:
            session.trials.discard_subject()
        session.end(immediately=True)
        session.overnight()
        session.begin()
        if self.level < self.level_max:
            self.counts = dict.fromkeys(self.counts, 0)
            self.hook()

    # -- following --------------------------------------------------------------------------------------------------

    def follow(self, operation: Operation, number: int) -> TrialResult:
        """Run on until the trial rejoins the undisturbed day, fails, or reaches the horizon."""
        session = self.session
        if session.trade_date != self.spec.day:
            session.play(max(session.hours()[0], session.clock.now_ns) + self.spec.convergence_timeout_ns)
            return self.make_judged_result(
                operation, number, "converged", f"the next day began on what {self.spec.day} left"
            )
        began_ns = session.clock.now_ns
        horizon_ns = began_ns + self.spec.horizon_ns
        quiet = False
        differs = "the day was over before it could rejoin"
        for time_ns in [grid_time_ns for grid_time_ns in self.grid_times_ns if grid_time_ns > began_ns]:
            session.play(time_ns)
            if session.guard.breaches:
                return self.make_judged_result(operation, number, "breach", "")
            base = self.baselines[time_ns]
            if base.state and self.state_sum.compute(session) == base.state:
                return self._check_rejoined(operation, number, time_ns)
            if session.link.is_quiet and not quiet:
                quiet = True
                differs = self._baseline_difference(base)
            if not quiet and time_ns > began_ns + self.spec.convergence_timeout_ns:
                return self.make_result(
                    operation,
                    number,
                    "breach",
                    oracle="convergence",
                    explanation=f"not quiet {self.spec.convergence_timeout_ns // 1_000_000_000} s after it",
                )
            if time_ns >= horizon_ns:
                break
        if _is_sampled(number, operation.do, self.spec.prove_every):
            session.play(self.grid_times_ns[-1])
        return self.make_judged_result(operation, number, "converged", differs)

    def _check_rejoined(self, operation: Operation, number: int, time_ns: int) -> TrialResult:
        session = self.session
        if operation.do in KILL_KINDS and _is_sampled(number, f"{operation.do} again", _IDEMPOTENCE_INTERVAL):
            after = [grid_time_ns for grid_time_ns in self.grid_times_ns if grid_time_ns > time_ns][:1]
            if after:
                session.restart("kill" if operation.do == "kill" else "clean")
                session.play(after[0])
                if self.state_sum.compute(session) != self.baselines[after[0]].state:
                    return self.make_result(
                        operation,
                        number,
                        "breach",
                        oracle="idempotence",
                        explanation="restarted once more, it is not what it was after the first restart",
                    )
        proved = False
        if _is_sampled(number, operation.do, self.spec.prove_every):
            proved = True
            session.play(self.grid_times_ns[-1])
            if session.guard.breaches:
                return self.make_judged_result(operation, number, "breach", "")
            if self.state_sum.compute(session) != (self.day_map.baselines[-1].state or None):
                return self.make_result(
                    operation,
                    number,
                    "unknown",
                    oracle="rejoin",
                    explanation="it had rejoined, and at the close its state is another: the sum misses something",
                )
        return self.make_result(operation, number, "transparent", rejoined_ns=time_ns, is_proved=proved)

    def make_judged_result(self, operation: Operation, number: int, verdict: str, explanation: str) -> TrialResult:
        """Return the result, as a breach when the catalogue or the comparison with the venue fails."""
        session = self.session
        if session.guard.breaches:
            first = session.guard.breaches[0]
            return self.make_result(
                operation,
                number,
                "breach",
                oracle="catalogue",
                invariant=first.invariant,
                subsystem=first.subsystem,
                explanation=first.explanation,
            )
        differs = self._venue_disagreement()
        if differs:
            return self.make_result(operation, number, "breach", oracle="convergence", explanation=differs)
        return self.make_result(operation, number, verdict, explanation=explanation)

    def _venue_disagreement(self) -> str:
        """Describe where subject and venue differ with nothing in flight, without using an invariant; empty when they
        agree.
        """
        session = self.session
        if not session.link.is_quiet:
            return ""
        monitor = session.guard.monitor
        subject_orders = monitor.records(Order, "orders")
        for root, venue_order in monitor.records(Order, "venue").items():
            subject_order = subject_orders.get(root)
            if venue_order.is_open and subject_order is not None:
                if (subject_order.cum_qty, subject_order.leaves_qty) != (venue_order.cum_qty, venue_order.leaves_qty):
                    return f"the venue has {venue_order!r}, the subject {subject_order!r}"
            elif venue_order.is_open:
                return f"the venue works {venue_order!r}, of which the subject knows nothing"
        subject_positions = monitor.records(Position, "positions")
        for key, position in session.venue.positions.items():
            subject_position = subject_positions.get(key)
            if position.net_qty != (subject_position.net_qty if subject_position is not None else 0):
                return f"the venue holds {position!r}, the subject {subject_position!r}"
        return ""

    def _baseline_difference(self, base: Baseline) -> str:
        """Describe how the state differs from that of the undisturbed day."""
        current = measure_baseline(self.session, self.state_sum, base.time_ns)
        differences = [
            f"{abs(value - base_value)} {'more' if value > base_value else 'fewer'} {name}"
            for name, value, base_value in (
                ("orders entered", current.orders, base.orders),
                ("trades", current.trades, base.trades),
                ("orders open", current.open_orders, base.open_orders),
            )
            if value != base_value
        ]
        return ", ".join(differences) or "the same orders and trades, otherwise known or priced"

    def _crash_result(self, operation: Operation, number: int, problem: BaseException) -> TrialResult:
        return self.make_result(
            operation,
            number,
            "breach",
            oracle="crash",
            explanation=f"the subject raised {type(problem).__name__}: {problem}",
        )

    def make_result(self, operation: Operation, number: int, verdict: str, **fields: Any) -> TrialResult:
        return TrialResult(
            number=number,
            kind=operation.do,
            at=operation.at,
            n=operation.n,
            time_ns=self.session.clock.now_ns,
            verdict=verdict,
            **fields,
        )

    _unsynced_is_whole = False


def _without_shm_files(image: dict[str, bytes]) -> dict[str, bytes]:
    """Return an image without the indexes of write-ahead logs, which every start rebuilds."""
    return {name: part for name, part in image.items() if not name.endswith("-shm")}


def _is_sampled(number: int, kind: str, interval: int) -> bool:
    """Return whether a trial is in the sample of one in `interval`, by its point and kind only."""
    mixed = (number * 2_654_435_761 + sum(kind.encode()) * 40_503) & 0xFFFFFFFF
    return interval > 0 and (mixed >> 8) % interval == 0


def run_trials(
    spec: SweepSpec,
    directory: Path,
    snapshot: Snapshot | None,
    day_map: DayMap,
    low: int,
    high: int,
    kind: type[TrialRunner] = TrialRunner,
) -> tuple[list[TrialResult], list[tuple[str, str]]]:
    """Run every requested trial at the points from `low` up to but not including `high`.

    Returns the results, and the transitions in cells, as codes, that the undisturbed day did not reach.
    """
    runner = kind(spec, directory, snapshot, day_map, low, high)
    try:
        runner.run()
        cells = runner.session.guard.cells
        new_cells = {*cells.transitions, *runner.cells} - set(day_map.cells)
        return runner.results, sorted((label, cells.encode_cell(cell)) for label, cell in new_cells)
    finally:
        runner.session.close()
