"""Store of the runs and gate results: one file each, written atomically, never run twice.

A file is valid for one state of the code: its folder is named after a digest of the package, of the study's
own modules, of the recorded days and of the parameters. A study that was stopped continues from the stored
files.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from casestudy.gates import ARMS, GateResult, fresh_gate, holdover_gate
from casestudy.life import FaultRun, RunContext, run_life
from holdover.desk.faults import FAULTS
from holdover.recording import RecordingStore, bundled_store
from holdover.runtime.files import write_whole

ROOT: Final = Path(__file__).resolve().parents[2]
T = TypeVar("T", FaultRun, GateResult)
_STUDY_FILES: Final = ("reel.py", "model.py", "life.py", "gates.py")


class StudySpec(NamedTuple):
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
        return RecordingStore(self.recordings) if self.recordings else bundled_store()


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


class RunStore:
    """A folder of what has been run."""

    def __init__(self, directory: Path, spec: StudySpec, faults: Sequence[str] = ()) -> None:
        self.spec, self.faults = spec, list(faults or FAULTS)
        self.directory, self.code = directory, code_digest()
        self._keys: dict[tuple[str, int], str] = {}

    def _key(self, kind: str, days: int) -> str:
        parts: list[object] = [self.code, kind]
        if kind == "fresh":
            parts += [_digest([*_files("tests/unit/desk_fresh", ".py"), ROOT / "tests" / "desk_bench.py"])]
        else:
            store = self.spec.store()
            parts += [self.spec.symbols, [store.get(s, d).digest for s in self.spec.symbols for d in store.days(s)]]
            parts.append(self.spec.plays if kind == "gate" else days)
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]

    def path(self, task: Task) -> Path:
        """Where its file is."""
        key = (task.kind, task.days)
        if key not in self._keys:
            self._keys[key] = self._key(*key)
        return self.directory / f"{task.kind}-{self._keys[key]}" / task.name

    def run(
        self, tasks: Iterable[Task], workers: int, on_task_done: Callable[[Task], None] = lambda task: None
    ) -> None:
        """Run what is not there yet. Raises what a task raises."""
        waiting = [task for task in tasks if not self.path(task).exists()]
        if not waiting:
            return
        if workers == 1:
            for task in waiting:
                run_task(self.spec, task, str(self.path(task)))
                on_task_done(task)
            return
        with ProcessPoolExecutor(max_workers=workers) as pool:
            futures = {pool.submit(run_task, self.spec, task, str(self.path(task))): task for task in waiting}
            try:
                for future in as_completed(futures):
                    future.result()
                    on_task_done(futures[future])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def task(self, kind: str, fault: str, number: int) -> Task:
        """A life, as long as its fault asks for."""
        rare = bool(fault) and not self.gate(fault, ARMS[0]).is_caught
        return Task(kind, fault, number, days=self.spec.long if rare else self.spec.days)

    def read_run(self, fault: str, number: int, *, guarded: bool = False) -> FaultRun:
        """A life that was run."""
        return self._read(self.task("guarded" if guarded else "life", fault, number), FaultRun)

    def gate(self, fault: str, arm: str) -> GateResult:
        """What a gate said; the arm `fresh` is the first half's."""
        return self._read(Task("fresh", fault) if arm == "fresh" else Task("gate", fault, arm=arm), GateResult)

    def run_missing(
        self, run_count: int, workers: int, on_task_done: Callable[[Task], None] = lambda task: None
    ) -> None:
        """Run everything that a case study needs and is not there: so many lives a fault, and what each gate says.

        An arm's gate is asked about the faults that any life shows: the others make no incident, whatever it says.
        """
        faults = ["", *self.faults]
        self.run([Task("gate", fault, arm=ARMS[0]) for fault in faults], workers, on_task_done)
        self.run(
            [self.task("life", fault, number) for number in range(run_count) for fault in faults], workers, on_task_done
        )
        shown = [fault for fault in self.faults if self.is_shown(fault, run_count)]
        self.run([Task("gate", fault, arm=arm) for arm in ARMS[1:] for fault in ["", *shown]], workers, on_task_done)
        first = [(fault, self.guarded_number(fault, run_count)) for fault in shown]
        self.run(
            [self.task("guarded", fault, number) for fault, number in first if number is not None],
            workers,
            on_task_done,
        )
        self.run([Task("fresh", fault) for fault in self.faults], workers, on_task_done)

    def is_shown(self, fault: str, run_count: int) -> bool:
        """Whether anybody finds the fault in any of its lives."""
        runs = [self.read_run(fault, number) for number in range(run_count)]
        return any(run.breach is not None or run.discovery is not None for run in runs)

    def guarded_number(self, fault: str, run_count: int) -> int | None:
        """Which life of a fault is run again with a guard that acts: the first that it breaches in."""
        return next((number for number in range(run_count) if self.read_run(fault, number).breach is not None), None)

    def _read(self, task: Task, kind: type[T]) -> T:
        return msgspec.json.decode(self.path(task).read_bytes(), type=kind)


_CONTEXTS: dict[tuple[StudySpec, int], RunContext] = {}


def run_task(spec: StudySpec, task: Task, path: str) -> None:
    """Run one task and write it down; on the disk on return."""
    with tempfile.TemporaryDirectory(prefix="holdover-casestudy-") as scratch:
        result = _run_task(spec, task, Path(scratch))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(path), msgspec.json.format(msgspec.json.encode(result), indent=1))


def _run_task(spec: StudySpec, task: Task, scratch: Path) -> FaultRun | GateResult:
    if task.kind == "fresh":
        return fresh_gate(ROOT, task.fault)
    if task.kind == "gate":
        return holdover_gate(spec.store(), spec.symbols, scratch, task.fault, task.arm, spec.plays)
    key = (spec, task.days)
    if key not in _CONTEXTS:
        _CONTEXTS[key] = RunContext(spec.store(), spec.symbols, task.days, scratch)
    context = _CONTEXTS[key]
    context.directory = scratch
    return run_life(context, task.fault, task.number, guarded=task.kind == "guarded")


def code_digest() -> str:
    """SHA-256 of everything that a life or a gate depends on."""
    own_files = [Path(__file__).parent / name for name in _STUDY_FILES]
    return _digest([*_files("src/holdover", ".py"), *_files("src/holdover/catalogue", ".toml"), *own_files])


def _files(folder: str, suffix: str) -> list[Path]:
    return sorted((ROOT / folder).rglob(f"*{suffix}"))


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


__all__ = ["RunStore", "StudySpec", "Task", "code_digest"]
