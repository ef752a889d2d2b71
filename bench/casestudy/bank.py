"""The bank: lives and gates that were really run, one file each, written whole; what is there is not run again.

A file counts for one state of the code: its folder is named after a digest of the package, of this study's own running
parts, of the recorded days and of what was asked for. What was stopped, by whatever, goes on from there.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from casestudy.gates import ARMS, Gate, fresh_gate, holdover_gate
from casestudy.life import Life, Stage, run_life
from holdover.desk.faults import FAULTS
from holdover.recording import RecordingStore, bundled
from holdover.runtime.files import write_whole

ROOT: Final = Path(__file__).resolve().parents[2]
T = TypeVar("T", Life, Gate)
_MADE_BY: Final = ("reel.py", "model.py", "life.py", "gates.py")


class Ground(NamedTuple):
    """What a bank is made on: a folder of recordings (empty: the bundled ones), instruments, days of a life, plays.

    `long` is how many days a life has whose fault Holdover's gate lets pass: it may be rare, and is what the second
    half is made of.
    """

    recordings: str
    symbols: tuple[str, ...]
    days: int
    plays: int
    long: int

    def store(self) -> RecordingStore:
        """The recordings."""
        return RecordingStore(self.recordings) if self.recordings else bundled()


class Task(NamedTuple):
    """One thing to run: `life` or `guarded` life of a number and so many days, `fresh`, or `gate` in an arm."""

    kind: str
    fault: str
    number: int = 0
    arm: str = ""
    days: int = 0

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.kind}-{self.fault or 'healthy'}-{self.arm or self.number}.json"


class Bank:
    """A folder of what has been run."""

    def __init__(self, out: Path, ground: Ground, faults: Sequence[str] = ()) -> None:
        self.ground, self.faults = ground, list(faults or FAULTS)
        self.out, self.code = out, code_digest()
        self._keys: dict[tuple[str, int], str] = {}

    def _key(self, kind: str, days: int) -> str:
        told: list[object] = [self.code, kind]
        if kind == "fresh":
            told += [_digest([*_files("tests/unit/desk_fresh", ".py"), ROOT / "tests" / "desk_bench.py"])]
        else:
            store = self.ground.store()
            told += [self.ground.symbols, [store.get(s, d).digest for s in self.ground.symbols for d in store.days(s)]]
            told.append(self.ground.plays if kind == "gate" else days)
        return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]

    def path(self, task: Task) -> Path:
        """Where its file is."""
        known = (task.kind, task.days)
        if known not in self._keys:
            self._keys[known] = self._key(*known)
        return self.out / f"{task.kind}-{self._keys[known]}" / task.name

    def run(self, tasks: Iterable[Task], workers: int, said: Callable[[Task], None] = lambda task: None) -> None:
        """Run what is not there yet. Raises what a task raises."""
        waiting = [task for task in tasks if not self.path(task).exists()]
        if not waiting:
            return
        if workers == 1:
            for task in waiting:
                do(self.ground, task, str(self.path(task)))
                said(task)
            return
        with ProcessPoolExecutor(max_workers=workers) as pool:
            done = {pool.submit(do, self.ground, task, str(self.path(task))): task for task in waiting}
            try:
                for future in as_completed(done):
                    future.result()
                    said(done[future])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def task(self, kind: str, fault: str, number: int) -> Task:
        """A life, as long as its fault asks for."""
        rare = bool(fault) and not self.gate(fault, ARMS[0]).found
        return Task(kind, fault, number, days=self.ground.long if rare else self.ground.days)

    def life(self, fault: str, number: int, *, guarded: bool = False) -> Life:
        """A life that was run."""
        return self._read(self.task("guarded" if guarded else "life", fault, number), Life)

    def gate(self, fault: str, arm: str) -> Gate:
        """What a gate said; the arm `fresh` is the first half's."""
        return self._read(Task("fresh", fault) if arm == "fresh" else Task("gate", fault, arm=arm), Gate)

    def fill(self, lives: int, workers: int, said: Callable[[Task], None] = lambda task: None) -> None:
        """Run everything that a case study needs and is not there: so many lives a fault, and what each gate says.

        An arm's gate is asked about the faults that any life shows: the others make no incident, whatever it says.
        """
        faults = ["", *self.faults]
        self.run([Task("gate", fault, arm=ARMS[0]) for fault in faults], workers, said)
        self.run([self.task("life", fault, number) for number in range(lives) for fault in faults], workers, said)
        shown = [fault for fault in self.faults if self.shows(fault, lives)]
        self.run([Task("gate", fault, arm=arm) for arm in ARMS[1:] for fault in ["", *shown]], workers, said)
        first = [(fault, self.guarded_number(fault, lives)) for fault in shown]
        self.run([self.task("guarded", fault, number) for fault, number in first if number is not None], workers, said)
        self.run([Task("fresh", fault) for fault in self.faults], workers, said)

    def shows(self, fault: str, lives: int) -> bool:
        """Whether anybody finds the fault in any of its lives."""
        each = [self.life(fault, number) for number in range(lives)]
        return any(one.breach is not None or one.found is not None for one in each)

    def guarded_number(self, fault: str, lives: int) -> int | None:
        """Which life of a fault is run again with a guard that acts: the first that it breaches in."""
        return next((number for number in range(lives) if self.life(fault, number).breach is not None), None)

    def _read(self, task: Task, kind: type[T]) -> T:
        return msgspec.json.decode(self.path(task).read_bytes(), type=kind)


_STAGES: dict[tuple[Ground, int], Stage] = {}


def do(ground: Ground, task: Task, path: str) -> None:
    """Run one task and write it down; on the disk on return."""
    with tempfile.TemporaryDirectory(prefix="holdover-casestudy-") as scratch:
        done = _done(ground, task, Path(scratch))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(path), msgspec.json.format(msgspec.json.encode(done), indent=1))


def _done(ground: Ground, task: Task, scratch: Path) -> Life | Gate:
    if task.kind == "fresh":
        return fresh_gate(ROOT, task.fault)
    if task.kind == "gate":
        return holdover_gate(ground.store(), ground.symbols, scratch, task.fault, task.arm, ground.plays)
    known = (ground, task.days)
    if known not in _STAGES:
        _STAGES[known] = Stage(ground.store(), ground.symbols, task.days, scratch)
    stage = _STAGES[known]
    stage.place = scratch
    return run_life(stage, task.fault, task.number, guarded=task.kind == "guarded")


def code_digest() -> str:
    """SHA-256 of everything that a life or a gate depends on."""
    own = [Path(__file__).parent / name for name in _MADE_BY]
    return _digest([*_files("src/holdover", ".py"), *_files("src/holdover/catalogue", ".toml"), *own])


def _files(folder: str, suffix: str) -> list[Path]:
    return sorted((ROOT / folder).rglob(f"*{suffix}"))


def _digest(paths: Sequence[Path]) -> str:
    told = hashlib.sha256()
    for path in paths:
        told.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return told.hexdigest()


__all__ = ["Bank", "Ground", "Task", "code_digest"]
