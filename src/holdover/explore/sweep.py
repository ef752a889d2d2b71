"""The sweep: every kind of trial at every point of a recorded day.

The day is walked once to find its points and classes (`walk.survey`), then cut into pieces, which are handed to any
`concurrent.futures.Executor`. A piece that is done is written down, synced, before it is counted: a sweep that was
stopped, by whatever, goes on with what is missing. A worker that dies is reported, and its piece is done again.
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

from holdover.explore.pairs import Pairs, crossings
from holdover.explore.schedule import Schedule, schedule_on
from holdover.explore.trial import Trials, Tried, run_trials
from holdover.explore.walk import ALL_KINDS, GROUPS, Ground, Map, catalogue_of, night_before, store_of, survey
from holdover.harness.snapshot import Snapshot

_PIECES_MIN: Final = 8
_PIECES: Final = 240
_PIECE: Final = 400
"""How many trials make a piece, between so few and so many: each piece walks to where it begins."""
_PIECE_OF_PAIRS: Final = 8
"""How many first faults make a piece of pairs: each has a second one at all that comes after it."""
_TRIES_MAX: Final = 3
_FOUND_MAX: Final = 400
"""How many trials that are neither transparent nor converged are kept whole in a piece; all are counted."""


class BadSweep(ValueError):
    """A sweep that cannot be begun or gone on with; the message says why."""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a sweep: the points from `low` up to but not including `high`; what was found there.

    `again` counts who had begun it before and died of something. `cells` are the transitions in cells, as codes, that
    the undisturbed day had not seen.
    """

    low: int
    high: int
    counts: dict[str, int] = {}
    shared: int = 0
    proved: int = 0
    found: list[Tried] = []
    examples: list[Tried] = []
    again: int = 0
    cells: list[tuple[str, str]] = []


class Swept(msgspec.Struct, kw_only=True):
    """What a sweep found, whole."""

    ground: Ground
    points: dict[str, int]
    classes: dict[str, int]
    pieces: int
    done: int
    counts: dict[str, int]
    shared: int
    proved: int
    found: list[Tried]
    examples: list[Tried]
    died: int
    round_trips: int
    problems: list[str]
    seconds: float
    stopped: bool = False
    cells: set[tuple[str, str]] = set()

    @property
    def verdict(self) -> str:
        """`breach` when any was found; `unknown` when something could not be told, or nothing was tried; `holds`."""
        if any(key.split("/")[1] == "breach" for key in self.counts) or self.problems:
            return "breach"
        if not self.counts or any(key.split("/")[1] == "unknown" for key in self.counts):
            return "unknown"
        return "holds"

    def count(self, kind: str, verdict: str) -> int:
        """How many trials of a kind came to a verdict."""
        return self.counts.get(f"{kind}/{verdict}", 0)

    @property
    def trials(self) -> int:
        """How many trials there were."""
        return sum(self.counts.values())

    @property
    def exhaustive(self) -> bool:
        """Whether every point ran: all pieces are done, and a cut was tried at each mutation and not at one a class."""
        return self.done == self.pieces and (self.ground.every or "disconnect" not in self.ground.kinds)

    @property
    def points_all(self) -> int:
        """At how many points the kinds asked for can come, all kinds together."""
        return sum(points_of(self.points, kind) for kind in self.ground.kinds)

    @property
    def points_run(self) -> int:
        """How many of these points have run: as one of their own, or as one whose state was the very same."""
        if self.exhaustive:
            return self.points_all
        if self.done < self.pieces:
            return min(self.trials, self.points_all)
        return self.points_all - self.points["mutation"] + self.classes["cut"]

    @property
    def classes_all(self) -> int:
        """How many different trials there are."""
        return sum(trials_of(self.classes, kind) for kind in self.ground.kinds)


def group_of(kind: str) -> str:
    """The group of a kind: kinds of one group are tried at the same points."""
    return next(group for group, kinds in GROUPS.items() if kind in kinds)


def points_of(points: dict[str, int], kind: str) -> int:
    """At how many points of a day a kind can come."""
    if group_of(kind) == "message":
        return points["in"] + points["out"]
    if group_of(kind) == "after":
        return points["instant"]
    places = ("mutation", "instant") if group_of(kind) == "cut" else ("mutation", "sent", "delivered", "instant")
    return sum(points[place] for place in places)


def do_piece(ground: bytes, found: bytes, snapshot: bytes, low: int, high: int, place: str) -> bytes:
    """Do one piece in this process, or in one of its own where this one has other threads: a fork needs to be alone."""
    if threading.active_count() > 1 or threading.current_thread() is not threading.main_thread():
        given = msgspec.msgpack.encode([os.getpid(), ground, found, snapshot, low, high, place])
        done = subprocess.run([sys.executable, "-m", "holdover.explore.piece"], input=given, capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"a worker died with {done.returncode}: {done.stderr.decode(errors='replace')[-600:]}")
        return done.stdout
    again = _bury_dead(Path(place))
    where = Path(place) / str(os.getpid())
    where.mkdir(parents=True)
    night = where / "night.hsnap"
    night.write_bytes(snapshot)
    try:
        known = msgspec.msgpack.decode(ground, type=Ground)
        tried, cells = run_trials(
            known,
            where,
            Snapshot.open(night) if snapshot else None,
            msgspec.msgpack.decode(found, type=Map),
            low,
            high,
            Pairs if known.pairs else Trials,
        )
    finally:
        shutil.rmtree(where, ignore_errors=True)
    return msgspec.msgpack.encode(msgspec.structs.replace(_piece(low, high, tried, again), cells=cells))


def _bury_dead(place: Path) -> int:
    """Take away what those have left who had begun this piece and died; how many they were."""
    left = list(place.iterdir()) if place.is_dir() else []
    for one in left:
        shutil.rmtree(one, ignore_errors=True)
    return len(left)


def _piece(low: int, high: int, tried: Iterable[Tried], again: int = 0) -> Piece:
    counts: Counter[str] = Counter()
    found: list[Tried] = []
    examples: dict[tuple[str, str, str], Tried] = {}
    shared = proved = 0
    for one in tried:
        counts[f"{one.named}/{one.verdict}"] += 1
        shared += bool(one.same_as)
        proved += one.proved
        if one.verdict in ("breach", "unknown"):
            if len(found) < _FOUND_MAX:
                found.append(one)
        elif one.verdict == "converged":
            examples.setdefault((one.named, one.verdict, one.explanation), one)
    return Piece(
        low=low,
        high=high,
        counts=dict(sorted(counts.items())),
        shared=shared,
        proved=proved,
        found=found,
        examples=list(examples.values())[:20],
        again=again,
    )


class Log:
    """The pieces that are done, one JSON object a line, synced: what a stopped sweep goes on from."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.pieces: dict[tuple[int, int], Piece] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._read(key)
        else:
            part = path.with_name(path.name + ".writing")
            with open(part, "wb") as file:
                file.write(msgspec.json.encode({"sweep": key}) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)

    def _read(self, key: str) -> None:
        lines = self.path.read_bytes().split(b"\n")
        try:
            head = msgspec.json.decode(lines[0])["sweep"]
        except (msgspec.MsgspecError, KeyError, TypeError) as problem:
            raise BadSweep(f"{self.path}: not the log of a sweep; name another --out") from problem
        if head != key:
            raise BadSweep(
                f"{self.path}: belongs to another sweep (other days, kinds, catalogue or subject); "
                f"name another --out, or take it away with --fresh"
            )
        whole = len(lines[0]) + 1
        for line in lines[1:-1]:
            try:
                piece = msgspec.json.decode(line, type=Piece)
            except msgspec.MsgspecError:
                break  # cut off by a kill in the middle of the write
            self.pieces[piece.low, piece.high] = piece
            whole += len(line) + 1
        os.truncate(self.path, whole)

    def add(self, piece: Piece) -> None:
        """Write one down; it is on the disk on return."""
        with open(self.path, "ab") as file:
            file.write(msgspec.json.encode(piece) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.pieces[piece.low, piece.high] = piece


def sweep(
    ground: Ground,
    out: Path,
    executor: Callable[[], Executor],
    *,
    workers: int = 1,
    budget_s: float = 0,
    progress: Callable[[Swept, int, str], None] = lambda swept, of, said: None,
    to_breach: bool = False,
) -> Swept:
    """Sweep a day; `out` keeps the log, `executor` makes the pool that the pieces are handed to.

    `budget_s` is how long to go on handing out pieces, 0 without end; `to_breach` ends at the first breach. Ctrl-C ends
    it too, `stopped`. Raises `BadSweep` when `out` holds the log of another sweep, or another process sweeps in it.
    """
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "sweep.lock", "w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise BadSweep(f"{out}: another process sweeps in it; name another --out") from problem
        base = Path(scratch(out, 0)).parent
        shutil.rmtree(base, ignore_errors=True)  # what a run that was killed has left
        try:
            run = _Run(ground, out, executor, workers, progress)
            run.began, run.budget_s, run.to_breach = began, budget_s, to_breach
            run.go()
        finally:
            shutil.rmtree(base, ignore_errors=True)
    swept = run.swept
    swept.found.sort(key=lambda one: (one.number, ALL_KINDS.index(one.kind)))
    swept.seconds = time.monotonic() - began
    return swept


def sweep_pairs(
    ground: Ground,
    out: Path,
    executor: Callable[[], Executor],
    *,
    workers: int = 1,
    budget_s: float = 0,
    progress: Callable[[Swept, int, str], None] = lambda swept, of, said: None,
    to_breach: bool = False,
) -> list[Swept]:
    """Sweep a ground's pairs, one crossing after the other (`crossings`), each in a folder of `out`.

    The budget is for all of them; what was stopped, or has found its breach, ends it. Raises as `sweep` does.
    """
    began = time.monotonic()
    done: list[Swept] = []
    for number, crossed in enumerate(crossings(ground)):
        left_s = budget_s - (time.monotonic() - began)
        if (budget_s and left_s <= 0) or (done and (done[-1].stopped or (to_breach and done[-1].found))):
            break
        done.append(
            sweep(
                crossed,
                out / f"crossing-{number}",
                executor,
                workers=workers,
                budget_s=left_s if budget_s else 0,
                progress=progress,
                to_breach=to_breach,
            )
        )
    return done


class _Run:
    """One run of a sweep: what every piece is given, which pieces are left, who has which."""

    budget_s, to_breach = 0.0, False

    def __init__(
        self,
        ground: Ground,
        out: Path,
        executor: Callable[[], Executor],
        workers: int,
        progress: Callable[[Swept, int, str], None],
    ) -> None:
        self.out, self.executor, self.workers, self.progress = out, executor, workers, progress
        self.began = time.monotonic()
        snapshot = night_before(ground, out / "night")
        found = survey(ground, out / "survey", snapshot)
        for left in ("night", "survey"):
            shutil.rmtree(out / left, ignore_errors=True)
        pieces = cut(found, ground.kinds, pairs=bool(ground.pairs))
        key = hashlib.sha256(
            msgspec.json.encode([ground, catalogue_of(ground).digest, found.points, pieces])
        ).hexdigest()
        self.log = Log(out / "sweep.jsonl", key)
        self.swept = swept = Swept(
            ground=ground,
            points=found.points,
            classes={group: len(numbers) for group, numbers in found.classes.items()},
            pieces=len(pieces),
            done=0,
            counts={},
            shared=0,
            proved=0,
            found=[],
            examples=[],
            died=0,
            round_trips=found.round_trips,
            problems=[*found.breaches, *([found.round_trip_problem] if found.round_trip_problem else [])],
            seconds=0,
        )
        for piece in self.log.pieces.values():
            _count(swept, piece)
        self.given = (
            msgspec.msgpack.encode(ground),
            msgspec.msgpack.encode(found),
            snapshot.save(out / "night").read_bytes() if snapshot is not None else b"",
        )
        self.waiting = [piece for piece in spread(pieces) if piece not in self.log.pieces]
        self.running: dict[Future[bytes], tuple[int, int]] = {}
        self.tries: Counter[tuple[int, int]] = Counter()

    def go(self) -> None:
        """Keep the pool busy until nothing is left, the budget is spent, a breach or somebody ends it."""
        done = len(self.log.pieces)
        self._tell(f"{done} of {self.swept.pieces} pieces were done before" if done else "")
        pool = self.executor()
        try:
            while self._hand_out(pool):
                ready, _ = wait(self.running, timeout=0.5, return_when=FIRST_COMPLETED)
                broken = any(isinstance(_problem(future), BrokenExecutor) for future in ready)
                if broken:  # with it go all that it had not begun
                    ready = set(self.running)
                    pool.shutdown(wait=True)
                    pool = self.executor()
                self._tell(self._take([(future, self.running.pop(future)) for future in ready], broken))
        except KeyboardInterrupt:
            self.swept.stopped = True
        finally:
            if self.running:
                getattr(pool, "kill_workers", lambda: None)()
                for future in self.running:
                    future.cancel()
            pool.shutdown(wait=False)

    def _tell(self, said: str) -> None:
        self.swept.seconds = time.monotonic() - self.began
        self.progress(self.swept, self.swept.classes_all, said)

    def _hand_out(self, pool: Executor) -> bool:
        """Give each worker a piece; whether any has one."""
        over = self.budget_s and time.monotonic() - self.began >= self.budget_s
        if not over and not (self.to_breach and self.swept.found):
            while self.waiting and len(self.running) < self.workers:
                piece = self.waiting.pop(0)
                place = scratch(self.out, piece[0])
                try:
                    self.running[pool.submit(do_piece, *self.given, *piece, place)] = piece
                except BrokenExecutor:
                    self.waiting.insert(0, piece)
                    break  # one that is running has died: `wait` tells which
        return bool(self.running)

    def _take(self, ready: list[tuple[Future[bytes], tuple[int, int]]], broken: bool) -> str:
        """Write down what workers have done; what is to be told of those that have died."""
        died: list[tuple[int, int]] = []
        ran_again = 0
        for future, piece in ready:
            problem = _problem(future)
            if problem is None:
                done = msgspec.msgpack.decode(future.result(), type=Piece)
                self.log.add(done)
                _count(self.swept, done)
                ran_again += done.again
                continue
            if not isinstance(problem, _DEATHS):
                raise problem
            died.append(piece)
            self.tries[piece] += 1
            if self.tries[piece] >= _TRIES_MAX:
                raise BadSweep(
                    f"points {piece[0]} to {piece[1]} have killed {_TRIES_MAX} workers: {problem}"
                ) from problem
            shutil.rmtree(scratch(self.out, piece[0]), ignore_errors=True)
            self.waiting.insert(0, piece)
        self.swept.died += ran_again + (1 if broken else len(died))
        if died:
            points = " and ".join(f"{low} to {high}" for low, high in died)
            return f"a worker died; points {points} run again"
        return "a worker died; what it had begun ran again" if ran_again else ""


_DEATHS: Final = (BrokenExecutor, RuntimeError, OSError, CancelledError)


def _problem(future: Future[bytes]) -> BaseException | None:
    """What a piece ended with instead of an answer."""
    if not future.done():
        return BrokenExecutor("not begun")
    return CancelledError("cancelled") if future.cancelled() else future.exception()


def scratch(out: Path, low: int) -> str:
    """A folder for one piece, in memory where the machine offers that; the same for the same sweep and piece."""
    shm = Path("/dev/shm")
    base = shm if shm.is_dir() else out
    return str(base / f"holdover-{hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:12]}" / str(low))


def _count(swept: Swept, piece: Piece) -> None:
    swept.done += 1
    for key, count in piece.counts.items():
        swept.counts[key] = swept.counts.get(key, 0) + count
    swept.shared += piece.shared
    swept.proved += piece.proved
    swept.found += piece.found
    swept.cells.update(piece.cells)
    known = {(one.named, one.explanation) for one in swept.examples}
    swept.examples += [one for one in piece.examples if (one.named, one.explanation) not in known][:20]


def trials_of(classes: dict[str, int], kind: str) -> int:
    """How many trials of one kind there are: one a class."""
    group = group_of(kind)
    return classes[group] + (classes["after"] if group == "cut" else 0)


def cut(found: Map, kinds: Iterable[str], *, pairs: bool = False) -> list[tuple[int, int]]:
    """Ranges of points with about the same number of trials each; the same whoever does them."""
    groups = [
        group for kind in kinds for group in ((group_of(kind), "after") if kind == "disconnect" else (group_of(kind),))
    ]
    standing = sorted(number for group in groups for number in found.classes[group])
    if not standing:
        return []
    size = max(len(standing) // _PIECES, min(len(standing) // _PIECES_MIN, _PIECE), 1) if not pairs else _PIECE_OF_PAIRS
    bounds = [1, *sorted({standing[place] for place in range(size, len(standing), size)} - {1}), found.total + 1]
    return list(pairwise(bounds))


def spread(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pieces in an order in which any beginning is spread over the whole day."""
    width = max(len(pieces) - 1, 1).bit_length()
    return [
        pieces[place] for place in sorted(range(len(pieces)), key=lambda number: int(f"{number:0{width}b}"[::-1], 2))
    ]


def schedule_of(ground: Ground, tried: Tried) -> Schedule:
    """The schedule that does what a trial did, on all days of the ground: a subject trades by what days it is given."""
    day = ground.days.index(ground.day)
    return schedule_on(
        store_of(ground),
        ground.symbols,
        ground.days,
        catalogue_of(ground),
        name=", then ".join(f"{one.do} at {one.at} {one.n}" for one in tried.operations(day)),
        subject=ground.subject,
        seed=ground.seed,
        faults=list(ground.faults),
        expect=f"{tried.subsystem}/{tried.invariant}" if tried.invariant else "",
        operations=tried.operations(day),
    )
