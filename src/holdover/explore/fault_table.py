"""The fault table: how well each detection method finds each seeded fault.

There are five methods: the fresh-state unit tests of the desk, a synthetic stateful test, the cycle, the
sweep and the search. The first two are tests of this project and run only where its test folder exists. The
other three need only recorded days. A schedule that the sweep or the search finds is shrunk. Each cell of the
table shows whether the method found the fault, by which invariant, after how many runs and seconds, and how
many operations remain.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.desk.faults import FAULTS
from holdover.explore.judge import TrialResult
from holdover.explore.search import Search, SearchResult, failure_marks
from holdover.explore.shrink import NotFailingError, Shrinker
from holdover.explore.sweep import schedule_from_result, sweep
from holdover.explore.walk import SweepSpec
from holdover.harness import resolve_factory
from holdover.harness.cycle import run_cycle
from holdover.harness.player import play
from holdover.harness.schedule import Operation, Schedule, make_schedule
from holdover.recording import RecordingStore
from holdover.runtime.files import PUBLIC_FILE, write_whole
from holdover.state import DECODE_ERRORS

DETECTION_METHODS: Final = ("fresh", "stateful", "cycle", "sweep", "search")
"""In the order of the table."""


_SESSION_SHARES: Final = (0.02, 0.2, 0.45, 0.7, 0.97)
"""The times at which a declared operation happens, as shares of the session."""


def _operation_at(seconds: int, do: str, *numbers: int) -> Operation:
    return Operation(at="second", n=seconds, do=do, with_=list(numbers))


INTERVENTIONS: Final = (
    _operation_at(0, "freeze"),
    _operation_at(0, "venue-cancel"),
    _operation_at(0, "bust", 2),
    _operation_at(0, "correct", 4, -1, 1),
    _operation_at(0, "by-hand", 0, 0, 0, 7),
    _operation_at(0, "disable", 0, 1800),
    _operation_at(0, "refuse"),
)
"""Operations of an operator or of the venue that recorded days never contain."""

AMENDMENTS: Final = (_operation_at(0, "bust", 5), _operation_at(0, "correct", 5, -1, 1))
"""Amendments that the venue may still make to a closed order."""

REQUESTS: Final = (_operation_at(0, "cancel"), _operation_at(0, "replace"), _operation_at(0, "submit", 0, 1, 0))
"""Requests of the strategy that are in flight when a transition happens."""

_STORY_TEMPLATES: Final = (
    (
        "after a cancel and a cut",
        AMENDMENTS,
        (_operation_at(-60, "venue-cancel", 0), _operation_at(-50, "disconnect", 20, 2, 0)),
    ),
    ("inside a cut", INTERVENTIONS, (_operation_at(-30, "disconnect", 90, 2, 0),)),
    ("lost in a cut", REQUESTS, (_operation_at(0, "disconnect", 20, 2, 1),)),
    ("not answered in a cut", REQUESTS, (_operation_at(0, "disconnect", 20, 2, 0),)),
    ("before a kill", INTERVENTIONS, (_operation_at(120, "kill"),)),
)
"""Story templates: title, main operations, and the transition around them."""

SWEEP_KIND_GROUPS: Final = (
    ("kill", "disconnect", "lose"),
    ("overnight", "overnight-down"),
    ("torn", "not-found", "hold", "reorder", "duplicate"),
    ("clean", "kill-during-recovery", "stale", "kill-unsynced", "upgrade"),
)
"""Groups of kinds in sweep order: the most informative in the least time come first."""

_FIRST_SHARE: Final = 0.15
"""The share of the first day that is swept first; a sweep finds most faults there."""

_GROUP_BUDGET_SHARE: Final = 0.4
"""The largest share of the budget for one group of kinds on one day, so that later groups get time too."""


_SEED_COUNT: Final = 4
"""The number of seeds of the search; each gets an equal share of the budget."""


def build_stories(length_s: Sequence[int]) -> list[tuple[str, list[Operation]]]:
    """Return the declared stories of a sweep as (title, operations); `length_s` has the length of each day in
    seconds.

    Each story repeats one intervention or request, with one transition, at a few times of every day. The shrinker
    finds the one that matters.
    """
    declared_stories: list[tuple[str, list[Operation]]] = []
    for words, main_operations, transitions in _STORY_TEMPLATES:
        for main_operation in main_operations:
            operations = [
                msgspec.structs.replace(operation, day=day, n=max(int(seconds * share) + operation.n, 1))
                for day, seconds in enumerate(length_s)
                for share in _SESSION_SHARES
                for operation in sorted((main_operation, *transitions), key=lambda operation: operation.n)
            ]
            declared_stories.append((f"{main_operation.do} {words}", operations))
    return declared_stories


class FaultCell(msgspec.Struct, kw_only=True):
    """The result of one method for one fault. `is_found` is None when the method could not run."""

    is_found: bool | None = None
    found_by: str = ""
    runs: int = 0
    seconds: float = 0.0
    operations: int | None = None
    is_named: bool = False
    trigger: str = ""
    budget_s: float = 0.0


class FaultRow(msgspec.Struct, kw_only=True):
    """The results of all methods for one fault."""

    fault: str
    category: str
    catches: list[str]
    cells: dict[str, FaultCell] = {}
    schedule: Schedule | None = None
    key: str = ""


class FaultRowStore:
    """Stores the rows of a fault table in a folder, one file each, so that an interrupted run continues.

    Each file is written atomically, so several processes can share the folder. A row that was made on other days
    or with another catalogue is ignored.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.directory, self.key = directory, key
        directory.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> FaultRow | None:
        """Return the row of a fault; None when there is none, it is out of date or it is damaged."""
        try:
            row = msgspec.json.decode((self.directory / f"{name}.row.json").read_bytes(), type=FaultRow)
        except (*DECODE_ERRORS, OSError):
            return None
        return row if row.key == self.key else None

    def write(self, row: FaultRow) -> None:
        """Write a row durably."""
        row.key = self.key
        write_whole(
            self.directory / f"{row.fault}.row.json",
            msgspec.json.format(msgspec.json.encode(row), indent=1),
            PUBLIC_FILE,
        )

    def delete(self, name: str) -> None:
        """Delete the row of a fault."""
        (self.directory / f"{name}.row.json").unlink(missing_ok=True)


class FaultTable:
    """Looks for seeded faults on recorded days. `budget_s` is the time for one method and fault, in seconds."""

    def __init__(
        self,
        store: RecordingStore,
        recordings: str,
        symbols: Sequence[str],
        days: Sequence[str],
        directory: Path,
        *,
        budget_s: float,
        plays_max: int = 600,
        tests: Path | None = None,
        workers: int = 2,
    ) -> None:
        self.store, self.recordings, self.directory = store, recordings, directory
        self.symbols, self.days = list(symbols), list(days)
        self.budget_s, self.plays_max, self.tests, self.workers = budget_s, plays_max, tests, workers
        self.catalogue = Catalogue.load()

    @property
    def key(self) -> str:
        """Return a hash of the days and the catalogue; a stored row with another key is out of date."""
        key_parts = [self.symbols, self.days, self.catalogue.digest]
        return hashlib.sha256(msgspec.json.encode(key_parts)).hexdigest()[:16]

    def find_fault(
        self,
        name: str,
        methods: Sequence[str],
        progress: Callable[[str], None] = lambda message: None,
        before: FaultRow | None = None,
        on_row: Callable[[FaultRow], None] = lambda row: None,
    ) -> FaultRow:
        """Look for one fault with some methods and return its row.

        Results that `before` already has are reused. `on_row` receives the row after each method.
        """
        detectors: dict[str, Callable[[str], tuple[FaultCell, Schedule | None]]] = {
            "fresh": self._fresh,
            "stateful": self._stateful,
            "cycle": self._cycle,
            "sweep": self._sweep,
            "search": self._search,
        }
        fault = FAULTS[name]
        row = before or FaultRow(fault=name, category=fault.category, catches=[])
        row.catches = list(fault.catches)
        for method in methods:
            if method in row.cells:
                continue
            progress(f"{name}: {method}")
            began = time.monotonic()
            cell, schedule = detectors[method](name)
            cell.seconds = round(time.monotonic() - began, 2)
            if schedule is not None:
                progress(f"{name}: shrinking what {method} found")
                shrunk = self._shrink(schedule)
                cell.operations = len(shrunk.operations)
                cell.found_by = _invariant_names([shrunk.expect or cell.found_by, *cell.found_by.split(", ")])
                if row.schedule is None or len(shrunk.operations) < len(row.schedule.operations):
                    row.schedule = shrunk
            cell.budget_s = self.budget_s if method in ("sweep", "search") else 0.0
            row.cells[method] = cell
            on_row(row)
        for method, cell in row.cells.items():
            # A sweep or search counts by what its shortest story breaches, the other methods by any breach.
            by = cell.found_by.split(", ")
            cell.is_named = bool(set(by[:1] if method in ("sweep", "search") else by) & set(fault.catches))
        return row

    # -- detection methods --------------------------------------------------------------------------------------------

    def _fresh(self, name: str) -> tuple[FaultCell, None]:
        directory = self.tests / "unit" / "desk_fresh" if self.tests is not None else None
        if directory is None or not directory.is_dir():
            return FaultCell(), None
        process = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", str(directory)],
            env={**os.environ, "HOLDOVER_FAULTS": name},
            capture_output=True,
            text=True,
            check=False,
        )
        failed = [line for line in process.stdout.splitlines() if line.startswith("FAILED")]
        by = failed[0].split("::")[-1].split(" ")[0] if failed else ""
        return FaultCell(is_found=process.returncode == 1, found_by=by, runs=1), None

    def _stateful(self, name: str) -> tuple[FaultCell, None]:
        if self.tests is None or not (self.tests / "unit" / "test_desk_stateful.py").exists():
            return FaultCell(), None
        sys.path.insert(0, str(self.tests.parent))
        try:
            module = importlib.import_module("tests.unit.test_desk_stateful")
        except ImportError:
            return FaultCell(), None
        finally:
            sys.path.pop(0)
        invariant, runs, _, steps = module.run_stateful(name, 20)
        return FaultCell(
            is_found=invariant is not None, found_by=invariant or "", runs=runs, operations=steps or None
        ), None

    def _cycle(self, name: str) -> tuple[FaultCell, None]:
        try:
            result = run_cycle(
                resolve_factory("desk"),
                self.store,
                self.symbols,
                self.days,
                self.directory / "cycle",
                faults=[name],
                catalogue=self.catalogue,
                arms=("carried",),
            )
        except Exception as problem:  # an exception of the subject counts as found, although no invariant was breached
            return FaultCell(is_found=True, found_by=f"crash: {type(problem).__name__}", runs=1), None
        by = list(dict.fromkeys(cycle_breach.breach.invariant for cycle_breach in result.breaches))
        return FaultCell(is_found=bool(by), found_by=", ".join(by[:6]), runs=1), None

    def _sweep(self, name: str) -> tuple[FaultCell, Schedule | None]:
        """Play the days as they are, sweep the start of the first day, play the declared stories, then sweep all.

        The first breach ends it.
        """
        began = time.monotonic()
        metas = [self.store.get(self.symbols[0], day).meta for day in self.days]
        declared_stories = build_stories([(meta.close_ns - meta.open_ns) // 1_000_000_000 for meta in metas])
        early = [partial(self._run_sweep, name, kinds, 0, _FIRST_SHARE) for kinds in SWEEP_KIND_GROUPS[:2]]
        all_of_it = [(kinds, number, 1.0) for kinds in SWEEP_KIND_GROUPS for number in range(len(self.days))]
        attempts: list[Callable[[float], tuple[FaultCell, Schedule | None]]] = [
            lambda left_s: self._play_story(name, "", []),
            early[0],
            *(lambda left_s, story=story: self._play_story(name, *story) for story in declared_stories),
            early[1],
            *(partial(self._run_sweep, name, *sweep_arguments) for sweep_arguments in all_of_it),
        ]
        runs = 0
        for attempt in attempts:
            left_s = self.budget_s - (time.monotonic() - began)
            if runs and left_s <= 0:
                break
            cell, schedule = attempt(left_s)
            runs += cell.runs
            if cell.is_found:
                cell.runs = runs
                return cell, schedule
        return FaultCell(is_found=False, runs=runs), None

    def _play_story(self, name: str, title: str, operations: list[Operation]) -> tuple[FaultCell, Schedule | None]:
        schedule = make_schedule(
            self.store,
            self.symbols,
            self.days,
            self.catalogue,
            name=title or "the days as they are",
            faults=[name],
            operations=operations,
        )
        marks = self._play_marks(schedule)
        if not marks:
            return FaultCell(is_found=False, runs=1), None
        return self._positive_cell(name, marks, 1, title), schedule.replace(expect=self._best_mark(name, marks))

    def _run_sweep(
        self, name: str, kinds: tuple[str, ...], number: int, end_fraction: float, left_s: float
    ) -> tuple[FaultCell, Schedule | None]:
        if kinds[0] == "overnight" and number + 1 == len(self.days):
            return FaultCell(is_found=False), None
        day = self.days[number]
        spec = SweepSpec(
            symbols=self.symbols,
            days=self.days[max(number - 1, 0) : number + 2],
            day=day,
            recordings=self.recordings,
            faults=[name],
            kinds=list(kinds),
            every_mutation=False,
            prove_every=0,
            end_fraction=end_fraction,
        )
        sweep_result = sweep(
            spec,
            self.directory / "sweep" / name / f"{day}-{kinds[0]}-{end_fraction:g}",
            lambda: ProcessPoolExecutor(max_workers=self.workers),
            workers=self.workers,
            budget_s=min(left_s, self.budget_s * _GROUP_BUDGET_SHARE),
            to_breach=True,
        )
        # A breach without an invariant may come from the fault's own memory, which a restarted subject lacks.
        breaches = [result for result in sweep_result.findings if result.verdict == "breach" and result.invariant]
        if not breaches:
            return FaultCell(is_found=False, runs=sweep_result.trials), None
        best = _best_result(breaches, FAULTS[name].catches)
        by = [best.invariant, *(result.invariant for result in breaches)]
        return self._positive_cell(name, by, sweep_result.trials, best.kind), schedule_from_result(
            sweep_result.spec, best
        )

    def _play_marks(self, schedule: Schedule) -> list[str]:
        play_result = play(
            schedule,
            self.directory / "story",
            store=self.store,
            catalogue=self.catalogue,
            journal=False,
            scratch=True,
            to_breach=True,
        )
        return failure_marks(play_result)

    def _best_mark(self, name: str, marks: Sequence[str]) -> str:
        return next((mark for mark in marks if mark.rpartition("/")[2] in FAULTS[name].catches), marks[0])

    def _positive_cell(self, name: str, marks: Sequence[str], runs: int, trigger: str = "") -> FaultCell:
        best = self._best_mark(name, marks)
        by = _invariant_names([best, *marks]).split(", ")
        return FaultCell(is_found=True, found_by=", ".join(by[:6]), runs=runs, trigger=trigger)

    def _search(self, name: str) -> tuple[FaultCell, Schedule | None]:
        """Search from several seeds, one after the other; each seed explores other states."""
        bursts = 0
        for seed in range(_SEED_COUNT):
            searcher = Search(
                self.store,
                self.symbols,
                self.days,
                self.directory / "search" / name,
                seed=seed,
                faults=[name],
                catalogue=self.catalogue,
            )
            try:
                result = self._run_search(searcher, FAULTS[name].catches, self.budget_s / _SEED_COUNT)
            finally:
                searcher.close()
            confirmed = [finding for finding in result.findings if finding.confirmed]
            if confirmed:
                best = min(confirmed, key=lambda finding: _invariant_names([finding.mark]) not in FAULTS[name].catches)
                return self._positive_cell(name, [best.mark], bursts + best.burst), best.schedule
            bursts += result.bursts
        return FaultCell(is_found=False, runs=bursts), None

    def _run_search(self, searcher: Search, named: Sequence[str], budget_s: float) -> SearchResult:
        """Search until a named invariant is breached; after a breach of another invariant, use half of the budget at
        most.
        """
        began = time.monotonic()
        result = searcher.result
        while True:
            invariants = [_invariant_names([finding.mark]) for finding in result.findings if finding.confirmed]
            spent_s = time.monotonic() - began
            share = 0.5 if invariants else 1.0
            if any(invariant in named for invariant in invariants) or spent_s >= budget_s * share:
                return result
            result = searcher.run(budget_s=budget_s * share - spent_s, bursts=result.bursts + 10)

    # -- shrinking ----------------------------------------------------------------------------------------------------

    def _shrink(self, schedule: Schedule) -> Schedule:
        try:
            shrinker = Shrinker(
                schedule, self.store, self.directory, catalogue=self.catalogue, plays_max=self.plays_max
            )
        except NotFailingError:
            return schedule
        return shrinker.shrink().schedule


def _invariant_names(marks: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(mark.rpartition("/")[2] for mark in marks))


def _best_result(results: Sequence[TrialResult], catches: Sequence[str]) -> TrialResult:
    """Return the trial to report: a breach of a named invariant first, then the earliest point."""
    return min(results, key=lambda result: (result.invariant not in catches, result.number))
