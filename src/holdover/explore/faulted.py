"""The fault table: each seeded fault against each way of looking for it.

Five ways: the fresh-state unit tests of the desk, a synthetic stateful test, the cycle, the sweep, the search. The
first two are tests of the project and are run where they are at hand; the others need only the recorded days. What the
sweep or the search finds is shrunk. Each cell tells whether the fault was found, by which invariant, after how many
runs and seconds, and how many operations are left.
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
from holdover.explore.play import play
from holdover.explore.schedule import Operation, Schedule, schedule_on
from holdover.explore.search import Search, Searched, marks_of
from holdover.explore.shrink import NotFailing, Shrinker
from holdover.explore.sweep import schedule_of, sweep
from holdover.explore.trial import Tried
from holdover.explore.walk import Ground
from holdover.harness import factory_named
from holdover.harness.cycle import run_cycle
from holdover.recording import RecordingStore
from holdover.runtime.files import write_whole

WAYS: Final = ("fresh", "stateful", "cycle", "sweep", "search")
"""In the order of the table."""


_SHARES: Final = (0.02, 0.2, 0.45, 0.7, 0.97)
"""Where in each day a declared act stands, as a share of the session."""


def _at(seconds: int, do: str, *numbers: int) -> Operation:
    return Operation(at="second", n=seconds, do=do, with_=list(numbers))


ACTS: Final = (
    _at(0, "freeze"),
    _at(0, "venue-cancel"),
    _at(0, "bust", 2),
    _at(0, "correct", 4, -1, 1),
    _at(0, "by-hand", 0, 0, 0, 7),
    _at(0, "disable", 0, 1800),
    _at(0, "refuse"),
)
"""What a recorded day never has in it: an act of an operator or of the venue."""

AMENDS: Final = (_at(0, "bust", 5), _at(0, "correct", 5, -1, 1))
"""What the venue may still say of an order that is over."""

REQUESTS: Final = (_at(0, "cancel"), _at(0, "replace"), _at(0, "submit", 0, 1, 0))
"""A request of the strategy that is on its way when something happens."""

_AROUND: Final = (
    ("after a cancel and a cut", AMENDS, (_at(-60, "venue-cancel", 0), _at(-50, "disconnect", 20, 2, 0))),
    ("inside a cut", ACTS, (_at(-30, "disconnect", 90, 2, 0),)),
    ("lost in a cut", REQUESTS, (_at(0, "disconnect", 20, 2, 1),)),
    ("not answered in a cut", REQUESTS, (_at(0, "disconnect", 20, 2, 0),)),
    ("before a kill", ACTS, (_at(120, "kill"),)),
)
"""How an act and a transition make a story, and which acts."""

SWEPT: Final = (
    ("kill", "disconnect", "lose"),
    ("overnight", "overnight-down"),
    ("torn", "not-found", "hold", "reorder", "duplicate"),
    ("clean", "kill-during-recovery", "stale", "kill-unsynced", "upgrade"),
)
"""The kinds in the order in which the sweep is taken through them: what tells most in the least time comes first."""

_FIRST: Final = 0.15
"""How much of the first day is swept before anything else: most of what a sweep can find it finds there."""

_SLICE: Final = 0.4
"""What share of the budget one group of kinds may take on one day, so that the next have their turn."""


_SEEDS: Final = 4
"""From how many seeds the search is begun, each with its share of the budget."""


def stories(length_s: Sequence[int]) -> list[tuple[str, list[Operation]]]:
    """The declared stories of a sweep, of days so many seconds long: acts and requests, each with one transition.

    Each has one kind of act at a few places of every day; the shrinker tells which of them it was.
    """
    found: list[tuple[str, list[Operation]]] = []
    for words, acts, around in _AROUND:
        for act in acts:
            operations = [
                msgspec.structs.replace(one, day=day, n=max(int(seconds * share) + one.n, 1))
                for day, seconds in enumerate(length_s)
                for share in _SHARES
                for one in sorted((act, *around), key=lambda one: one.n)
            ]
            found.append((f"{act.do} {words}", operations))
    return found


class Cell(msgspec.Struct, kw_only=True):
    """One fault looked for in one way. `found` is None where the way was not at hand."""

    found: bool | None = None
    by: str = ""
    runs: int = 0
    seconds: float = 0.0
    operations: int | None = None
    named: bool = False
    how: str = ""
    budget_s: float = 0.0


class Row(msgspec.Struct, kw_only=True):
    """One fault."""

    fault: str
    category: str
    catches: list[str]
    cells: dict[str, Cell] = {}
    schedule: Schedule | None = None
    key: str = ""


class Rows:
    """The rows of a table in a folder, one file each, written whole: what was stopped goes on from there.

    Several processes may look for different faults over one folder. A row that was made on other days, or with another
    catalogue, is not read.
    """

    def __init__(self, place: Path, key: str) -> None:
        self.place, self.key = place, key
        place.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> Row | None:
        """The row of one fault; None where there is none that still counts. A damaged one is made again."""
        try:
            row = msgspec.json.decode((self.place / f"{name}.row.json").read_bytes(), type=Row)
        except (OSError, msgspec.MsgspecError):
            return None
        return row if row.key == self.key else None

    def write(self, row: Row) -> None:
        """Keep a row; it is on the disk on return."""
        row.key = self.key
        write_whole(self.place / f"{row.fault}.row.json", msgspec.json.format(msgspec.json.encode(row), indent=1))

    def forget(self, name: str) -> None:
        """Make this one anew."""
        (self.place / f"{name}.row.json").unlink(missing_ok=True)


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
        plays_max: int = 600,
        tests: Path | None = None,
        workers: int = 2,
    ) -> None:
        self.store, self.recordings, self.place = store, recordings, place
        self.symbols, self.days = list(symbols), list(days)
        self.budget_s, self.plays_max, self.tests, self.workers = budget_s, plays_max, tests, workers
        self.catalogue = Catalogue.load()

    @property
    def key(self) -> str:
        """What a row must have been made with to stand: these days and this catalogue."""
        told = [self.symbols, self.days, self.catalogue.digest]
        return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]

    def row(
        self,
        name: str,
        ways: Sequence[str],
        said: Callable[[str], None] = lambda what: None,
        before: Row | None = None,
        kept: Callable[[Row], None] = lambda row: None,
    ) -> Row:
        """Look for one fault in some ways; what `before` has told already stands, and `kept` hears of each way done."""
        fault = FAULTS[name]
        row = before or Row(fault=name, category=fault.category, catches=[])
        row.catches = list(fault.catches)
        for way in ways:
            if way in row.cells:
                continue
            said(f"{name}: {way}")
            began = time.monotonic()
            cell, schedule = getattr(self, "_" + way)(name)
            cell.seconds = round(time.monotonic() - began, 2)
            if schedule is not None:
                said(f"{name}: shrinking what {way} found")
                shrunk = self._shrunk(schedule)
                cell.operations = len(shrunk.operations)
                cell.by = _invariants([shrunk.expect or cell.by, *cell.by.split(", ")])
                if row.schedule is None or len(shrunk.operations) < len(row.schedule.operations):
                    row.schedule = shrunk
            cell.budget_s = self.budget_s if way in ("sweep", "search") else 0.0
            row.cells[way] = cell
            kept(row)
        for way, cell in row.cells.items():
            # What was shrunk is judged by what the shortest story breaches, the rest by any that was breached.
            by = cell.by.split(", ")
            cell.named = bool(set(by[:1] if way in ("sweep", "search") else by) & set(fault.catches))
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
        """The days as they are, the first hour of the first under faults and the declared stories, then all of it.

        The first trial or story that breaches anything ends it.
        """
        began = time.monotonic()
        metas = [self.store.get(self.symbols[0], day).meta for day in self.days]
        told = stories([(meta.close_ns - meta.open_ns) // 1_000_000_000 for meta in metas])
        early = [partial(self._swept, name, kinds, 0, _FIRST) for kinds in SWEPT[:2]]
        all_of_it = [(kinds, number, 1.0) for kinds in SWEPT for number in range(len(self.days))]
        looks: list[Callable[[float], tuple[Cell, Schedule | None]]] = [
            lambda left_s: self._story(name, "", []),
            early[0],
            *(lambda left_s, one=one: self._story(name, *one) for one in told),
            early[1],
            *(partial(self._swept, name, *one) for one in all_of_it),
        ]
        runs = 0
        for look in looks:
            left_s = self.budget_s - (time.monotonic() - began)
            if runs and left_s <= 0:
                break
            cell, schedule = look(left_s)
            runs += cell.runs
            if cell.found:
                cell.runs = runs
                return cell, schedule
        return Cell(found=False, runs=runs), None

    def _story(self, name: str, title: str, operations: list[Operation]) -> tuple[Cell, Schedule | None]:
        schedule = schedule_on(
            self.store,
            self.symbols,
            self.days,
            self.catalogue,
            name=title or "the days as they are",
            faults=[name],
            operations=operations,
        )
        marks = self._marks(schedule)
        if not marks:
            return Cell(found=False, runs=1), None
        return self._told(name, marks, 1, title), schedule.replace(expect=self._best_mark(name, marks))

    def _swept(
        self, name: str, kinds: tuple[str, ...], number: int, until: float, left_s: float
    ) -> tuple[Cell, Schedule | None]:
        if kinds[0] == "overnight" and number + 1 == len(self.days):
            return Cell(found=False), None
        day = self.days[number]
        ground = Ground(
            symbols=self.symbols,
            days=self.days[max(number - 1, 0) : number + 2],
            day=day,
            recordings=self.recordings,
            faults=[name],
            kinds=list(kinds),
            every=False,
            prove_every=0,
            until=until,
        )
        swept = sweep(
            ground,
            self.place / "sweep" / name / f"{day}-{kinds[0]}-{until:g}",
            lambda: ProcessPoolExecutor(max_workers=self.workers),
            workers=self.workers,
            budget_s=min(left_s, self.budget_s * _SLICE),
            to_breach=True,
        )
        # What an oracle alone says may come of the memory that a fault keeps, and no other life has: it proves nothing.
        breaches = [one for one in swept.found if one.verdict == "breach" and one.invariant]
        if not breaches:
            return Cell(found=False, runs=swept.trials), None
        best = _best(breaches, FAULTS[name].catches)
        by = [best.invariant, *(one.invariant for one in breaches)]
        return self._told(name, by, swept.trials, best.kind), schedule_of(swept.ground, best)

    def _marks(self, schedule: Schedule) -> list[str]:
        played = play(
            schedule,
            self.place / "story",
            store=self.store,
            catalogue=self.catalogue,
            journal=False,
            scratch=True,
            to_breach=True,
        )
        return marks_of(played)

    def _best_mark(self, name: str, marks: Sequence[str]) -> str:
        return next((one for one in marks if one.rpartition("/")[2] in FAULTS[name].catches), marks[0])

    def _told(self, name: str, marks: Sequence[str], runs: int, how: str = "") -> Cell:
        best = self._best_mark(name, marks)
        by = _invariants([best, *marks]).split(", ")
        return Cell(found=True, by=", ".join(by[:6]), runs=runs, how=how)

    def _search(self, name: str) -> tuple[Cell, Schedule | None]:
        """Search from one seed after the other: each goes its own way into the states there are."""
        bursts = 0
        for seed in range(_SEEDS):
            searcher = Search(
                self.store,
                self.symbols,
                self.days,
                self.place / "search" / name,
                seed=seed,
                faults=[name],
                catalogue=self.catalogue,
            )
            try:
                done = self._searched(searcher, FAULTS[name].catches, self.budget_s / _SEEDS)
            finally:
                searcher.close()
            confirmed = [one for one in done.found if one.confirmed]
            if confirmed:
                found = min(confirmed, key=lambda one: _invariants([one.mark]) not in FAULTS[name].catches)
                return self._told(name, [found.mark], bursts + found.burst), found.schedule
            bursts += done.bursts
        return Cell(found=False, runs=bursts), None

    def _searched(self, searcher: Search, named: Sequence[str], budget_s: float) -> Searched:
        """Search until something has been found by a named invariant; for half of the budget by any other."""
        began = time.monotonic()
        done = searcher.done
        while True:
            found = [_invariants([one.mark]) for one in done.found if one.confirmed]
            spent_s = time.monotonic() - began
            share = 0.5 if found else 1.0
            if any(one in named for one in found) or spent_s >= budget_s * share:
                return done
            done = searcher.run(budget_s=budget_s * share - spent_s, bursts=done.bursts + 10)

    # -- shrinking ----------------------------------------------------------------------------------------------------

    def _shrunk(self, schedule: Schedule) -> Schedule:
        try:
            shrinker = Shrinker(schedule, self.store, self.place, catalogue=self.catalogue, plays_max=self.plays_max)
        except NotFailing:
            return schedule
        return shrinker.shrink().schedule


def _invariants(marks: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(mark.rpartition("/")[2] for mark in marks))


def _best(found: Sequence[Tried], catches: Sequence[str]) -> Tried:
    """The trial to tell of: one that breached the named invariant before any other, of the plainest kind."""
    return min(found, key=lambda one: (one.invariant not in catches, one.number))
