"""The sweep: every kind of trial at every point of a recorded day.

`walk.survey_day` walks the day once to find its points and classes. The sweep cuts them into pieces and
submits the pieces to any `concurrent.futures.Executor`. It logs each finished piece durably before counting
it, so an interrupted sweep continues with the missing pieces. When a worker dies, the sweep reports it and
runs its piece again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from holdover.explore.judge import TrialResult
from holdover.explore.pairs import SecondFaults, split_crossings
from holdover.explore.trial import run_trials
from holdover.explore.walk import (
    ALL_KINDS,
    KIND_GROUPS,
    DayMap,
    SweepSpec,
    load_catalogue,
    open_recordings,
    overnight_snapshot,
    survey_day,
)
from holdover.harness.schedule import Schedule, make_schedule
from holdover.harness.snapshot import Snapshot
from holdover.state import DECODE_ERRORS

_PIECES_MIN: Final = 8
_PIECES_MAX: Final = 240
_PIECE_TRIALS: Final = 400
"""Trials in a piece, between the smallest and largest number of pieces: each piece walks to its first point."""
_PIECE_PAIRS: Final = 8
"""First faults in a piece of pairs: each is followed by many second faults."""
_TRIES_MAX: Final = 3
_FINDINGS_MAX: Final = 400
"""Breaches and undecided trials that a piece keeps in full; all are counted."""


class SweepError(ValueError):
    """A sweep that cannot start or continue; the message gives the reason."""


class PieceResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one piece of a sweep: the points from `low` up to but not including `high`.

    `earlier_deaths` counts the workers that died on this piece before. `cells` are the transitions in cells, as
    codes, that the undisturbed day did not reach.
    """

    low: int
    high: int
    counts: dict[str, int] = {}
    shared: int = 0
    proved: int = 0
    findings: list[TrialResult] = []
    examples: list[TrialResult] = []
    earlier_deaths: int = 0
    cells: list[tuple[str, str]] = []

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"a piece from point {self.low} up to {self.high}: points count from 1")
        if any(count < 1 for count in self.counts.values()):
            raise ValueError(f"the piece from point {self.low}: a result that never occurred is counted: {self.counts}")
        if min(self.shared, self.proved, self.earlier_deaths) < 0 or self.shared > sum(self.counts.values()):
            raise ValueError(
                f"the piece from point {self.low}: {self.shared} shared of {sum(self.counts.values())} trials"
            )


class SweepResult(msgspec.Struct, kw_only=True):
    """The result of a sweep."""

    spec: SweepSpec
    points: dict[str, int]
    classes: dict[str, int]
    pieces: int
    pieces_done: int
    counts: dict[str, int]
    shared: int
    proved: int
    findings: list[TrialResult]
    examples: list[TrialResult]
    worker_deaths: int
    round_trips: int
    problems: list[str]
    seconds: float
    is_stopped: bool = False
    cells: set[tuple[str, str]] = set()

    @property
    def verdict(self) -> str:
        """Return `breach` for any breach or problem, `unknown` for no trial or an undecided one, else `holds`."""
        if any(key.split("/")[1] == "breach" for key in self.counts) or self.problems:
            return "breach"
        if not self.counts or any(key.split("/")[1] == "unknown" for key in self.counts):
            return "unknown"
        return "holds"

    def count(self, kind: str, verdict: str) -> int:
        """Return the number of trials of a kind with a verdict."""
        return self.counts.get(f"{kind}/{verdict}", 0)

    @property
    def trials(self) -> int:
        """Return the number of trials."""
        return sum(self.counts.values())

    @property
    def is_exhaustive(self) -> bool:
        """Return whether every point was tried: all pieces are done, and the link was dropped at every mutation."""
        return self.pieces_done == self.pieces and (self.spec.every_mutation or "disconnect" not in self.spec.kinds)

    @property
    def points_all(self) -> int:
        """Return the number of points of all requested kinds together."""
        return sum(count_points(self.points, kind) for kind in self.spec.kinds)

    @property
    def points_run(self) -> int:
        """Return the number of those points that were tried, directly or by another point of their class."""
        if self.is_exhaustive:
            return self.points_all
        if self.pieces_done < self.pieces:
            return min(self.trials, self.points_all)
        return self.points_all - self.points["mutation"] + self.classes["cut"]

    @property
    def classes_all(self) -> int:
        """Return the number of different trials."""
        return sum(count_trials(self.classes, kind) for kind in self.spec.kinds)


def kind_group(kind: str) -> str:
    """Return the group of a kind; kinds of one group are tried at the same points."""
    groups = [group for group, kinds in KIND_GROUPS.items() if kind in kinds]
    if len(groups) != 1:
        raise SweepError(f"no kind of trial is called {kind!r}; there are {', '.join(ALL_KINDS)}")
    return groups[0]


def count_points(points: dict[str, int], kind: str) -> int:
    """Return the number of points of a day at which a kind can happen."""
    if kind_group(kind) == "message":
        return points["in"] + points["out"]
    if kind_group(kind) == "after":
        return points["instant"]
    point_kinds = ("mutation", "instant") if kind_group(kind) == "cut" else ("mutation", "sent", "delivered", "instant")
    return sum(points[point_kind] for point_kind in point_kinds)


def run_piece(encoded_spec: bytes, day_map: bytes, snapshot: bytes, low: int, high: int, directory: str) -> bytes:
    """Run one piece; in a new process when this one has other threads, since a fork needs a single-threaded process."""
    if threading.active_count() > 1 or threading.current_thread() is not threading.main_thread():
        payload = msgspec.msgpack.encode([os.getpid(), encoded_spec, day_map, snapshot, low, high, directory])
        process = subprocess.run([sys.executable, "-m", "holdover.explore.piece"], input=payload, capture_output=True)
        if process.returncode != 0:
            raise RuntimeError(
                f"a worker died with {process.returncode}: {process.stderr.decode(errors='replace')[-600:]}"
            )
        return process.stdout
    earlier_deaths = _remove_leftovers(Path(directory))
    work_directory = Path(directory) / str(os.getpid())
    work_directory.mkdir(parents=True)
    night = work_directory / "night.hsnap"
    night.write_bytes(snapshot)
    try:
        sweep_spec = msgspec.msgpack.decode(encoded_spec, type=SweepSpec)
        results, cells = run_trials(
            sweep_spec,
            work_directory,
            Snapshot.open(night) if snapshot else None,
            msgspec.msgpack.decode(day_map, type=DayMap),
            low,
            high,
            SecondFaults(sweep_spec) if sweep_spec.pairs else None,
        )
    finally:
        shutil.rmtree(work_directory, ignore_errors=True)
    return msgspec.msgpack.encode(
        msgspec.structs.replace(_summarize_piece(low, high, results, earlier_deaths), cells=cells)
    )


def _remove_leftovers(directory: Path) -> int:
    """Remove the directories of workers that died on this piece; returns how many there were."""
    leftovers = list(directory.iterdir()) if directory.is_dir() else []
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)
    return len(leftovers)


def _summarize_piece(low: int, high: int, results: Iterable[TrialResult], earlier_deaths: int = 0) -> PieceResult:
    counts: Counter[str] = Counter()
    findings: list[TrialResult] = []
    examples: dict[tuple[str, str, str], TrialResult] = {}
    shared = proved = 0
    for result in results:
        counts[f"{result.kind_name}/{result.verdict}"] += 1
        shared += bool(result.same_as)
        proved += result.is_proved
        if result.verdict in ("breach", "unknown"):
            if len(findings) < _FINDINGS_MAX:
                findings.append(result)
        elif result.verdict == "converged":
            examples.setdefault((result.kind_name, result.verdict, result.explanation), result)
    return PieceResult(
        low=low,
        high=high,
        counts=dict(sorted(counts.items())),
        shared=shared,
        proved=proved,
        findings=findings,
        examples=list(examples.values())[:20],
        earlier_deaths=earlier_deaths,
    )


LOG_VERSION: Final = 2
"""The version of the log of finished pieces."""


class _PieceLogHead(msgspec.Struct, frozen=True):
    """The first line of the log: its version, and the key of the sweep that it belongs to."""

    sweep: int
    key: str


class PieceLog:
    """The log of finished pieces, one JSON object a line, synced; an interrupted sweep continues from it."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.pieces: dict[tuple[int, int], PieceResult] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._read(key)
        else:
            part = path.with_name(path.name + ".writing")
            with open(part, "wb") as file:
                file.write(msgspec.json.encode(_PieceLogHead(LOG_VERSION, key)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)

    def _read(self, key: str) -> None:
        lines = self.path.read_bytes().split(b"\n")
        try:
            content = msgspec.json.decode(lines[0])
            version = 1 if isinstance(content["sweep"], str) else content["sweep"]
            if version != LOG_VERSION:
                raise SweepError(
                    f"{self.path}: written in version {version}, this Holdover reads version {LOG_VERSION}; "
                    f"name another --out, or take it away with --fresh"
                )
            head = msgspec.convert(content, _PieceLogHead)
        except (*DECODE_ERRORS, KeyError, TypeError) as problem:
            raise SweepError(f"{self.path}: not the log of a sweep; name another --out") from problem
        if head.key != key:
            raise SweepError(
                f"{self.path}: belongs to another sweep (other days, kinds, catalogue or subject); "
                f"name another --out, or take it away with --fresh"
            )
        whole = len(lines[0]) + 1
        for line in lines[1:-1]:
            try:
                piece = msgspec.json.decode(line, type=PieceResult)
            except DECODE_ERRORS:
                break  # cut off by a kill during the write
            self.pieces[piece.low, piece.high] = piece
            whole += len(line) + 1
        os.truncate(self.path, whole)

    def add(self, piece: PieceResult) -> None:
        """Append a piece durably. Raises `SweepError` when the log has it already."""
        if (piece.low, piece.high) in self.pieces:
            raise SweepError(f"{self.path}: the piece from point {piece.low} up to {piece.high} is logged already")
        with open(self.path, "ab") as file:
            file.write(msgspec.json.encode(piece) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.pieces[piece.low, piece.high] = piece


def sweep(
    spec: SweepSpec,
    output_directory: Path,
    executor: Callable[[], Executor],
    *,
    workers: int = 1,
    budget_s: float = 0,
    progress: Callable[[SweepResult, int, str], None] = lambda result, total, message: None,
    to_breach: bool = False,
) -> SweepResult:
    """Sweep a day; the log is in `output_directory`, and `executor` makes the pool of workers.

    `budget_s` limits how long new pieces are submitted, in seconds; 0 means no limit. `to_breach` stops at the
    first breach. Ctrl-C stops the sweep and sets `is_stopped`. Raises `SweepError` when the directory has the log
    of another sweep, or another process sweeps there.
    """
    if workers < 1 or budget_s < 0:
        raise SweepError(f"a sweep with {workers} workers for {budget_s} s: at least 1 worker, and 0 s for no limit")
    began = time.monotonic()
    output_directory.mkdir(parents=True, exist_ok=True)
    with open(output_directory / "sweep.lock", "w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise SweepError(f"{output_directory}: another process sweeps in it; name another --out") from problem
        base = Path(scratch_directory(output_directory, 0)).parent
        shutil.rmtree(base, ignore_errors=True)  # leftovers of a run that was killed
        try:
            run = _SweepRun(spec, output_directory, executor, workers, progress)
            run.began, run.budget_s, run.to_breach = began, budget_s, to_breach
            run.run()
        finally:
            shutil.rmtree(base, ignore_errors=True)
    sweep_result = run.result
    sweep_result.findings.sort(key=lambda result: (result.number, ALL_KINDS.index(result.kind)))
    sweep_result.seconds = time.monotonic() - began
    return sweep_result


def sweep_pairs(
    spec: SweepSpec,
    output_directory: Path,
    executor: Callable[[], Executor],
    *,
    workers: int = 1,
    budget_s: float = 0,
    progress: Callable[[SweepResult, int, str], None] = lambda swept, of, message: None,
    to_breach: bool = False,
) -> list[SweepResult]:
    """Sweep the pairs of a specification, one crossing after the other, each in its own folder of
    `output_directory`.

    The budget is for all crossings together. A stopped crossing, or a breach with `to_breach`, ends it. Raises
    `SweepError` as `sweep` does.
    """
    began = time.monotonic()
    results: list[SweepResult] = []
    for number, crossing_spec in enumerate(split_crossings(spec)):
        left_s = budget_s - (time.monotonic() - began)
        if (budget_s and left_s <= 0) or (results and (results[-1].is_stopped or (to_breach and results[-1].findings))):
            break
        results.append(
            sweep(
                crossing_spec,
                output_directory / f"crossing-{number}",
                executor,
                workers=workers,
                budget_s=left_s if budget_s else 0,
                progress=progress,
                to_breach=to_breach,
            )
        )
    return results


class _SweepRun:
    """One run of a sweep: the common input of the pieces, the waiting pieces and the running ones."""

    budget_s, to_breach = 0.0, False

    def __init__(
        self,
        spec: SweepSpec,
        output_directory: Path,
        executor: Callable[[], Executor],
        workers: int,
        progress: Callable[[SweepResult, int, str], None],
    ) -> None:
        self.output_directory, self.executor, self.workers, self.progress = (
            output_directory,
            executor,
            workers,
            progress,
        )
        self.began = time.monotonic()
        snapshot = overnight_snapshot(spec, output_directory / "night")
        day_map = survey_day(spec, output_directory / "survey", snapshot)
        for name in ("night", "survey"):
            shutil.rmtree(output_directory / name, ignore_errors=True)
        pieces = cut_pieces(day_map, spec.kinds, pairs=bool(spec.pairs))
        key = hashlib.sha256(
            msgspec.json.encode([spec, load_catalogue(spec).digest, day_map.points, pieces])
        ).hexdigest()
        self.log = PieceLog(output_directory / "sweep.jsonl", key)
        self.result = result = SweepResult(
            spec=spec,
            points=day_map.points,
            classes={group: len(numbers) for group, numbers in day_map.classes.items()},
            pieces=len(pieces),
            pieces_done=0,
            counts={},
            shared=0,
            proved=0,
            findings=[],
            examples=[],
            worker_deaths=0,
            round_trips=day_map.round_trips,
            problems=[*day_map.breaches, *([day_map.round_trip_problem] if day_map.round_trip_problem else [])],
            seconds=0,
        )
        for piece in self.log.pieces.values():
            _add_piece(result, piece)
        self.common_arguments = (
            msgspec.msgpack.encode(spec),
            msgspec.msgpack.encode(day_map),
            snapshot.save(output_directory / "night").read_bytes() if snapshot is not None else b"",
        )
        self.waiting_pieces = [piece for piece in spread_pieces(pieces) if piece not in self.log.pieces]
        self.running_pieces: dict[Future[bytes], tuple[int, int]] = {}
        self.tries: Counter[tuple[int, int]] = Counter()

    def run(self) -> None:
        """Submit pieces until none is left, the budget is spent, a breach ends the sweep or the user stops it."""
        pieces_done = len(self.log.pieces)
        self._report_progress(f"{pieces_done} of {self.result.pieces} pieces were done before" if pieces_done else "")
        pool = self.executor()
        try:
            while self._submit_pieces(pool):
                ready, _ = wait(self.running_pieces, timeout=0.5, return_when=FIRST_COMPLETED)
                broken = any(isinstance(_future_error(future), BrokenExecutor) for future in ready)
                if broken:  # a broken pool loses its waiting pieces too
                    ready = set(self.running_pieces)
                    pool.shutdown(wait=True)
                    pool = self.executor()
                self._report_progress(
                    self._collect_results([(future, self.running_pieces.pop(future)) for future in ready], broken)
                )
        except KeyboardInterrupt:
            self.result.is_stopped = True
        finally:
            if self.running_pieces:
                getattr(pool, "kill_workers", lambda: None)()
                for future in self.running_pieces:
                    future.cancel()
            pool.shutdown(wait=False)

    def _report_progress(self, message: str) -> None:
        self.result.seconds = time.monotonic() - self.began
        self.progress(self.result, self.result.classes_all, message)

    def _submit_pieces(self, pool: Executor) -> bool:
        """Submit a piece for each free worker; returns whether any piece is running."""
        budget_spent = self.budget_s and time.monotonic() - self.began >= self.budget_s
        if not budget_spent and not (self.to_breach and self.result.findings):
            while self.waiting_pieces and len(self.running_pieces) < self.workers:
                piece = self.waiting_pieces.pop(0)
                directory = scratch_directory(self.output_directory, piece[0])
                try:
                    self.running_pieces[pool.submit(run_piece, *self.common_arguments, *piece, directory)] = piece
                except BrokenExecutor:
                    self.waiting_pieces.insert(0, piece)
                    break  # a running worker died: `wait` reports it
        return bool(self.running_pieces)

    def _collect_results(self, ready: list[tuple[Future[bytes], tuple[int, int]]], broken: bool) -> str:
        """Log the finished pieces and return a message about workers that died."""
        died: list[tuple[int, int]] = []
        ran_again = 0
        for future, piece in ready:
            problem = _future_error(future)
            if problem is None:
                result = msgspec.msgpack.decode(future.result(), type=PieceResult)
                self.log.add(result)
                _add_piece(self.result, result)
                ran_again += result.earlier_deaths
                continue
            if not isinstance(problem, _WORKER_DEATH_ERRORS):
                raise problem
            died.append(piece)
            self.tries[piece] += 1
            if self.tries[piece] >= _TRIES_MAX:
                raise SweepError(
                    f"points {piece[0]} to {piece[1]} have killed {_TRIES_MAX} workers: {problem}"
                ) from problem
            shutil.rmtree(scratch_directory(self.output_directory, piece[0]), ignore_errors=True)
            self.waiting_pieces.insert(0, piece)
        self.result.worker_deaths += ran_again + (1 if broken else len(died))
        if died:
            points = " and ".join(f"{low} to {high}" for low, high in died)
            return f"a worker died; points {points} run again"
        return "a worker died; what it had begun ran again" if ran_again else ""


_WORKER_DEATH_ERRORS: Final = (BrokenExecutor, RuntimeError, OSError, CancelledError)


def _future_error(future: Future[bytes]) -> BaseException | None:
    """Return the error that ended a piece, or None."""
    if not future.done():
        return BrokenExecutor("not begun")
    return CancelledError("cancelled") if future.cancelled() else future.exception()


def scratch_directory(output_directory: Path, low: int) -> str:
    """Return the directory for one piece, in memory where possible; the same sweep and piece give the same one."""
    shm = Path("/dev/shm")
    base = shm if shm.is_dir() else output_directory
    return str(
        base / f"holdover-{hashlib.sha256(str(output_directory.resolve()).encode()).hexdigest()[:12]}" / str(low)
    )


def _add_piece(result: SweepResult, piece: PieceResult) -> None:
    if result.pieces_done >= result.pieces:
        raise SweepError(f"the piece from point {piece.low} is one too many: the sweep has {result.pieces}")
    result.pieces_done += 1
    for key, count in piece.counts.items():
        result.counts[key] = result.counts.get(key, 0) + count
    result.shared += piece.shared
    result.proved += piece.proved
    result.findings += piece.findings
    result.cells.update(piece.cells)
    known_examples = {(example.kind_name, example.explanation) for example in result.examples}
    result.examples += [
        example for example in piece.examples if (example.kind_name, example.explanation) not in known_examples
    ][:20]


def count_trials(classes: dict[str, int], kind: str) -> int:
    """Return the number of trials of one kind: one for each class."""
    group = kind_group(kind)
    return classes[group] + (classes["after"] if group == "cut" else 0)


def cut_pieces(day_map: DayMap, kinds: Iterable[str], *, pairs: bool = False) -> list[tuple[int, int]]:
    """Return ranges of points with about the same number of trials each. The result is deterministic."""
    groups = [
        group
        for kind in kinds
        for group in ((kind_group(kind), "after") if kind == "disconnect" else (kind_group(kind),))
    ]
    representatives = sorted(number for group in groups for number in day_map.classes[group])
    if not representatives:
        return []
    size = (
        max(len(representatives) // _PIECES_MAX, min(len(representatives) // _PIECES_MIN, _PIECE_TRIALS), 1)
        if not pairs
        else _PIECE_PAIRS
    )
    bounds = [
        1,
        *sorted({representatives[index] for index in range(size, len(representatives), size)} - {1}),
        day_map.point_count + 1,
    ]
    return list(pairwise(bounds))


def spread_pieces(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the pieces in an order whose every prefix is spread over the whole day."""
    width = max(len(pieces) - 1, 1).bit_length()
    return [
        pieces[index] for index in sorted(range(len(pieces)), key=lambda number: int(f"{number:0{width}b}"[::-1], 2))
    ]


def schedule_from_result(spec: SweepSpec, result: TrialResult) -> Schedule:
    """Return the schedule that repeats a trial, on all days of the specification.

    All days are needed, since a subject may size its orders by the days of its plan.
    """
    if spec.day not in spec.days:
        raise SweepError(f"{spec.day} is swept, and is none of the days {', '.join(spec.days)}")
    day = spec.days.index(spec.day)
    return make_schedule(
        open_recordings(spec),
        spec.symbols,
        spec.days,
        load_catalogue(spec),
        name=", then ".join(f"{operation.do} at {operation.at} {operation.n}" for operation in result.operations(day)),
        subject=spec.subject,
        seed=spec.seed,
        faults=list(spec.faults),
        expect=f"{result.subsystem}/{result.invariant}" if result.invariant else "",
        operations=result.operations(day),
    )
