"""The fault table: each seeded fault against each way of looking for it.

Five ways: the fresh-state unit tests of the desk, a synthetic stateful test, the cycle, the sweep, the search. The
first two are tests of the project and are run where they are at hand; the others need only the recorded days. What the
sweep or the search finds is shrunk. Each cell tells whether the fault was found, by which invariant, after how many
runs and seconds, and how many operations are left.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.desk.faults import FAULTS
from holdover.explore.play import play
from holdover.explore.schedule import Schedule, schedule_on
from holdover.explore.search import Search, marks_of
from holdover.explore.shrink import NotFailing, Shrinker
from holdover.explore.sweep import Swept, schedule_of, sweep
from holdover.explore.trial import Tried
from holdover.explore.walk import Ground
from holdover.harness import factory_named
from holdover.harness.cycle import run_cycle
from holdover.recording import RecordingStore

WAYS: Final = ("fresh", "stateful", "cycle", "sweep", "search")
"""In the order of the table."""


SWEPT: Final = (
    ("overnight", "overnight-down"),
    ("kill", "torn"),
    ("lose",),
    ("disconnect",),
    ("clean", "kill-during-recovery", "stale"),
    ("hold", "duplicate", "reorder", "not-found"),
    ("kill-unsynced", "upgrade"),
)
"""The kinds in the order in which the sweep is taken through them: what tells most in the least time comes first."""


class Cell(msgspec.Struct, kw_only=True):
    """One fault looked for in one way. `found` is None where the way was not at hand."""

    found: bool | None = None
    by: str = ""
    runs: int = 0
    seconds: float = 0.0
    operations: int | None = None
    named: bool = False


class Row(msgspec.Struct, kw_only=True):
    """One fault."""

    fault: str
    category: str
    catches: str
    cells: dict[str, Cell] = {}
    schedule: Schedule | None = None


class Table:
    """Looks for faults on some recorded days; what each way may spend on one fault is `budget_s`."""

    def __init__(
        self,
        store: RecordingStore,
        recordings: str,
        symbols: Sequence[str],
        days: Sequence[str],
        place: Path,
        *,
        budget_s: float,
        plays_max: int = 80,
        tests: Path | None = None,
        workers: int = 2,
    ) -> None:
        self.store, self.recordings, self.place = store, recordings, place
        self.symbols, self.days = list(symbols), list(days)
        self.budget_s, self.plays_max, self.tests, self.workers = budget_s, plays_max, tests, workers
        self.catalogue = Catalogue.load()

    def row(self, name: str, ways: Sequence[str], said: Callable[[str], None] = lambda what: None) -> Row:
        """Look for one fault in some ways."""
        fault = FAULTS[name]
        row = Row(fault=name, category=fault.category, catches=fault.catches)
        for way in ways:
            said(f"{name}: {way}")
            began = time.monotonic()
            cell, schedule = getattr(self, "_" + way)(name)
            cell.seconds = round(time.monotonic() - began, 2)
            cell.named = fault.catches in cell.by.split(", ")
            if schedule is not None:
                said(f"{name}: shrinking what {way} found")
                cell.operations, shrunk = self._shrunk(schedule)
                if row.schedule is None or len(shrunk.operations) < len(row.schedule.operations):
                    row.schedule = shrunk
            row.cells[way] = cell
        return row

    # -- the ways -----------------------------------------------------------------------------------------------------

    def _fresh(self, name: str) -> tuple[Cell, None]:
        where = self.tests / "unit" / "desk_fresh" if self.tests is not None else None
        if where is None or not where.is_dir():
            return Cell(), None
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", str(where)],
            env={**os.environ, "HOLDOVER_FAULTS": name},
            capture_output=True,
            text=True,
            check=False,
        )
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        by = failed[0].split("::")[-1].split(" ")[0] if failed else ""
        return Cell(found=done.returncode == 1, by=by, runs=1), None

    def _stateful(self, name: str) -> tuple[Cell, None]:
        if self.tests is None or not (self.tests / "unit" / "test_desk_stateful.py").exists():
            return Cell(), None
        sys.path.insert(0, str(self.tests.parent))
        try:
            module = importlib.import_module("tests.unit.test_desk_stateful")
        except ImportError:
            return Cell(), None
        finally:
            sys.path.pop(0)
        found, runs, _, steps = module.run_stateful(name, 20)
        return Cell(found=found is not None, by=found or "", runs=runs, operations=steps or None), None

    def _cycle(self, name: str) -> tuple[Cell, None]:
        try:
            result = run_cycle(
                factory_named("desk"),
                self.store,
                self.symbols,
                self.days,
                self.place / "cycle",
                faults=[name],
                catalogue=self.catalogue,
                arms=("carried",),
            )
        except Exception as problem:  # the subject raised: that is seen, too, though no invariant says it
            return Cell(found=True, by=f"crash: {type(problem).__name__}", runs=1), None
        by = list(dict.fromkeys(found.breach.invariant for found in result.breaches))
        return Cell(found=bool(by), by=", ".join(by[:6]), runs=1), None

    def _sweep(self, name: str) -> tuple[Cell, Schedule | None]:
        """First the days as they are, with the night between them; then every kind at every class of each day."""
        plain = schedule_on(
            self.store, self.symbols, self.days, self.catalogue, name="the days as they are", faults=[name]
        )
        played = play(
            plain,
            self.place / "plain",
            store=self.store,
            catalogue=self.catalogue,
            journal=False,
            scratch=True,
            to_breach=True,
        )
        if played.mark:
            return Cell(found=True, by=_invariants(marks_of(played)), runs=1), plain
        runs = 1
        began = time.monotonic()
        for kinds in SWEPT:
            for number, day in enumerate(self.days):
                left_s = self.budget_s - (time.monotonic() - began)
                if left_s <= 0 or (kinds[0] == "overnight" and number + 1 == len(self.days)):
                    continue
                swept = self._swept(name, number, day, kinds, left_s)
                runs += swept.trials
                breaches = [one for one in swept.found if one.verdict == "breach"]
                if breaches:
                    best = _best(breaches, FAULTS[name].catches)
                    by = list(dict.fromkeys(one.invariant or one.oracle for one in breaches))
                    return Cell(found=True, by=", ".join(by[:6]), runs=runs), schedule_of(swept.ground, best)
        return Cell(found=False, runs=runs), None

    def _swept(self, name: str, number: int, day: str, kinds: tuple[str, ...], budget_s: float) -> Swept:
        ground = Ground(
            symbols=self.symbols,
            days=self.days[max(number - 1, 0) : number + 2],
            day=day,
            recordings=self.recordings,
            faults=[name],
            kinds=list(kinds),
            every=False,
            prove_every=0,
        )
        return sweep(
            ground,
            self.place / "sweep" / name / day / kinds[0],
            lambda: ProcessPoolExecutor(max_workers=self.workers),
            workers=self.workers,
            budget_s=budget_s,
            to_breach=True,
        )

    def _search(self, name: str) -> tuple[Cell, Schedule | None]:
        searcher = Search(
            self.store, self.symbols, self.days, self.place / "search" / name, faults=[name], catalogue=self.catalogue
        )
        try:
            done = searcher.run(budget_s=self.budget_s, to_breach=True)
        finally:
            searcher.close()
        found = next((one for one in done.found if one.confirmed), None)
        if found is None:
            return Cell(found=False, runs=done.bursts), None
        return Cell(found=True, by=_invariants([found.mark]), runs=done.bursts), found.schedule

    # -- shrinking ----------------------------------------------------------------------------------------------------

    def _shrunk(self, schedule: Schedule) -> tuple[int, Schedule]:
        try:
            shrinker = Shrinker(schedule, self.store, self.place, catalogue=self.catalogue, plays_max=self.plays_max)
        except NotFailing:
            return len(schedule.operations), schedule
        shrunk = shrinker.shrink().schedule
        return len(shrunk.operations), shrunk


def _invariants(marks: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(mark.rpartition("/")[2] for mark in marks))


def _best(found: Sequence[Tried], catches: str) -> Tried:
    """The trial to tell of: one that breached the named invariant before any other, of the plainest kind."""
    return min(found, key=lambda one: (one.invariant != catches, one.oracle != "catalogue", one.number))
