"""Witnesses: short schedules that reach the covered cells, one a line, in one file.

    {"holdover": "witnesses", "version": 2, "axes": ["orders", "link"], "recordings": {"ACME 2024-11-27": "..."}}
    {"name": "5b1c09d2", "recordings": ["ACME 2024-11-27"],
     "reaches": ["being unfilled up", "restart:kill unfilled up"],
     "operations": [{"at": "second", "n": 61, "do": "kill"}]}

A cell is named by its values, in the order of the file's axes. Before them stands the lifecycle transition
that found the system in the cell, or `being` when there was none. Each cell is on one line. A schedule
reaches many cells, so there are few lines; each schedule is truncated after the last of its cells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from holdover.catalogue import Catalogue
from holdover.harness.player import Player, failure_marks
from holdover.harness.schedule import Operation, RecordedDay, Schedule, ScheduleError, check_schedule
from holdover.recording import RecordingStore
from holdover.runtime.cells import CellCounter
from holdover.runtime.files import PUBLIC_FILE, write_whole
from holdover.runtime.size_limits import DOCUMENT_MAX, SizeLimitError, read_bounded
from holdover.state import DECODE_ERRORS

VERSION: Final = 2
NO_TRANSITION: Final = "being"
_SECOND_NS: Final = 1_000_000_000


class Witness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of the file: a short form of a schedule, and the cells that it covers."""

    name: str
    recordings: list[str]
    subject: str = "desk"
    seed: int = 0
    reaches: list[str]
    operations: list[Operation] = []

    def replace(self, **changes: Any) -> Witness:
        """Return a copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


class _WitnessesHead(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    holdover: Literal["witnesses"] = "witnesses"
    version: int = VERSION
    axes: list[str] = []
    recordings: dict[str, str] = {}


class Witnesses:
    """The witnesses of a corpus."""

    def __init__(self, axes: Sequence[str] = ()) -> None:
        self.head = _WitnessesHead(axes=list(axes))
        self.lines: list[Witness] = []

    @classmethod
    def read(cls, path: Path) -> Witnesses:
        """Read and check a file. Raises `ScheduleError` with every problem of it."""
        witnesses = cls()
        try:
            first, *rest = read_bounded(path, DOCUMENT_MAX).splitlines() or [b""]
            witnesses.head = msgspec.json.decode(first, type=_WitnessesHead)
            if witnesses.head.version != VERSION:
                raise ScheduleError(
                    f"{path.name}: written in version {witnesses.head.version}, this Holdover reads version {VERSION}; "
                    f"holdover search --corpus finds witnesses again"
                )
            for line in rest:
                witnesses.lines.append(msgspec.json.decode(line, type=Witness))
        except OSError as problem:
            raise ScheduleError(f"{path}: cannot be read: {problem.strerror}") from problem
        except SizeLimitError as problem:
            raise ScheduleError(str(problem)) from problem
        except DECODE_ERRORS as problem:
            location = f"{path.name}, line {len(witnesses.lines) + 2}" if witnesses.head.axes else path.name
            raise ScheduleError(f"{location}: no witness: {problem}") from problem
        problems = witnesses.problems()
        if problems:
            raise ScheduleError("\n".join(f"{path.name}: {problem}" for problem in problems))
        return witnesses

    def problems(self) -> list[str]:
        """Return the problems of the witnesses as sentences."""
        problems: list[str] = []
        names: set[str] = set()
        cells: dict[str, str] = {}
        for witness in self.lines:
            if witness.name in names:
                problems.append(f"two witnesses are called {witness.name}")
            names.add(witness.name)
            missing = [name for name in witness.recordings if name not in self.head.recordings]
            if missing:
                problems.append(f"{witness.name}: is on {missing[0]}, which the first line does not name")
                continue
            problems += [f"{witness.name}: {problem}" for problem in check_schedule(self.schedule(witness))]
            if not witness.reaches:
                problems.append(f"{witness.name}: is the witness of no cell")
            for cell in witness.reaches:
                if cell in cells:
                    problems.append(f"{cell}: has two witnesses, {cells[cell]} and {witness.name}")
                cells[cell] = witness.name
        return problems

    @property
    def cells(self) -> dict[str, str]:
        """Return the name of the witness of each covered cell."""
        return {cell: witness.name for witness in self.lines for cell in witness.reaches}

    def schedule(self, witness: Witness) -> Schedule:
        """Return the schedule of a witness."""
        recorded = []
        for name in witness.recordings:
            symbol, _, day = name.rpartition(" ")
            recorded.append(RecordedDay(symbol=symbol, trade_date=day, digest=self.head.recordings[name]))
        return Schedule(
            name=f"witness {witness.name}",
            subject=witness.subject,
            seed=witness.seed,
            recordings=recorded,
            operations=witness.operations,
        )

    def add(self, schedule: Schedule, reaches: Iterable[str]) -> Witness:
        """Add a schedule as a witness and return its line.

        Raises `ScheduleError` for a schedule that starts from a snapshot, has faults, or runs on other recordings.
        """
        if schedule.start != "fresh" or schedule.faults:
            raise ScheduleError(f"{schedule.name or 'the schedule'}: a witness begins fresh, with no seeded fault")
        if not schedule.recordings:
            raise ScheduleError(f"{schedule.name or 'the schedule'}: a witness runs on recorded days, this names none")
        recording_names = []
        for recording in schedule.recordings:
            name = f"{recording.symbol} {recording.trade_date}"
            if self.head.recordings.setdefault(name, recording.digest) != recording.digest:
                raise ScheduleError(f"{name}: is another recording than the one that the other witnesses are on")
            recording_names.append(name)
        digest = hashlib.sha256(
            msgspec.json.encode([recording_names, schedule.subject, schedule.seed, schedule.operations])
        )
        line = Witness(
            name=digest.hexdigest()[:8],
            recordings=recording_names,
            subject=schedule.subject,
            seed=schedule.seed,
            reaches=sorted(reaches),
            operations=schedule.operations,
        )
        self.lines = sorted(
            [*(witness for witness in self.lines if witness.name != line.name), line],
            key=lambda witness: (witness.recordings, witness.name),
        )
        return line

    def encode(self) -> bytes:
        """Return the content of the file: the header, then one witness a line."""
        used = {name for witness in self.lines for name in witness.recordings}
        recordings = {name: digest for name, digest in sorted(self.head.recordings.items()) if name in used}
        head = _WitnessesHead(axes=self.head.axes, recordings=recordings)
        return b"\n".join([*map(msgspec.json.encode, (head, *self.lines)), b""])

    def save(self, path: Path) -> None:
        """Write the file atomically and durably."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.encode(), PUBLIC_FILE)


class ReachResult(msgspec.Struct, kw_only=True):
    """The cells that a schedule reached, each with the time (day, second) of its first visit, and the cost of
    playing it.
    """

    cells: dict[str, tuple[int, int]]
    marks: list[str]
    cost: int
    explanation: str = ""

    def __post_init__(self) -> None:
        if self.cost < 0:
            raise ValueError(f"playing a schedule costs {self.cost}, should be from 0 on")


class CellNames:
    """Names cells by their values on some axes. Raises `ScheduleError` for an unknown axis."""

    def __init__(self, counter: CellCounter, axes: Sequence[str]) -> None:
        self._strides: list[tuple[int, tuple[str, ...]]] = []
        axes_by_name = {axis.name: axis for axis in counter.axes}
        for name in axes:
            if name not in axes_by_name:
                raise ScheduleError(f"no axis is called {name!r}; there are {', '.join(axes_by_name)}")
            stride = 1
            for axis in counter.axes[: counter.axes.index(axes_by_name[name])]:
                stride *= len(axis.values)
            self._strides.append((stride, axes_by_name[name].values))
        self._names: dict[int, str] = {}

    def __call__(self, cell: int, label: str = NO_TRANSITION) -> str:
        """Return the name of a cell, after the label of the transition that found the system in it."""
        if cell < 0:
            raise ValueError(f"no cell has the number {cell}; cells count from 0")
        name = self._names.get(cell)
        if name is None:
            name = " ".join(values[cell // stride % len(values)] for stride, values in self._strides)
            self._names[cell] = name
        return f"{label} {name}"

    def names_of(self, counter: CellCounter) -> set[str]:
        """Return the names of all cells of a counter."""
        return {self(cell) for cell in counter.visits} | {self(cell, label) for label, cell in counter.transitions}


def measure_reach(
    schedule: Schedule, store: RecordingStore, directory: Path, axes: Sequence[str], catalogue: Catalogue
) -> ReachResult:
    """Play a schedule and return the cells that it reaches, with their times."""
    player = Player(schedule, store, directory, catalogue=catalogue, journal=False, scratch=True)
    session, counter = player.session, player.session.guard.cells
    cells = CellNames(counter, axes)
    reached_at: dict[str, tuple[int, int]] = {}
    # Cells of an early close count at the time that the schedule gives for it.
    ends = {
        operation.day: operation.n - 1
        for operation in schedule.operations
        if operation.do == "overnight" and operation.at == "second"
    }

    def current_time() -> tuple[int, int]:
        if not session.trade_date:
            return 0, 0
        day = schedule.days.index(session.trade_date)
        second = max((session.clock.now_ns - session.hours()[0]) // _SECOND_NS, 0)
        return day, min(second, ends.get(day, second))

    def on_change(cell: int) -> None:
        reached_at.setdefault(cells(cell), current_time())

    def passed(label: str, cell: int) -> None:
        reached_at.setdefault(cells(cell, label), current_time())

    counter.on_change, counter.on_transition = on_change, passed
    try:
        play_result = player.play()
        for cell in sorted(cells.names_of(counter)):
            reached_at.setdefault(cell, current_time())
        # `on_change` also reports cells that were only passed through while records were restored.
        seen_cells = cells.names_of(counter)
        return ReachResult(
            cells={cell: at for cell, at in reached_at.items() if cell in seen_cells},
            marks=failure_marks(play_result),
            cost=play_result.market_events + 2 * play_result.mutations + 300 * len(session.transitions),
            explanation=play_result.breaches[0].explanation if play_result.breaches else play_result.crash,
        )
    finally:
        counter.on_change = counter.on_transition = None
        player.close()


class Candidate(msgspec.Struct, kw_only=True):
    """A schedule that may become a witness, and what it reaches from a fresh state."""

    schedule: Schedule
    reached: ReachResult


def select_witnesses(candidates: Sequence[Candidate], target_cells: set[str]) -> list[tuple[Candidate, list[str]]]:
    """Select few and cheap candidates that reach the target cells, each with the cells assigned to it.

    The selection is greedy by new cells for each unit of cost; candidates whose cells others cover are then
    removed.
    """
    remaining = set(target_cells)
    selection: list[Candidate] = []
    open_ = list(candidates)
    while remaining and open_:
        # `max` returns the first of equal candidates.
        best = max(
            open_,
            key=lambda candidate: len(remaining & candidate.reached.cells.keys()) / (candidate.reached.cost + 500),
        )
        if not remaining & best.reached.cells.keys():
            break
        selection.append(best)
        open_.remove(best)
        remaining -= best.reached.cells.keys()
    for candidate in sorted(selection, key=lambda candidate: -candidate.reached.cost):
        rival_cells = {cell for rival in selection if rival is not candidate for cell in rival.reached.cells}
        if not (target_cells & candidate.reached.cells.keys()) - rival_cells:
            selection.remove(candidate)
    assigned_cells: set[str] = set()
    assignments = []
    for candidate in sorted(selection, key=lambda candidate: candidate.reached.cost):
        own_cells = sorted((target_cells & candidate.reached.cells.keys()) - assigned_cells)
        assigned_cells.update(own_cells)
        assignments.append((candidate, own_cells))
    return assignments


def truncate_schedule(schedule: Schedule, after: tuple[int, int]) -> Schedule:
    """Return the schedule truncated at a time (day, second): there the venue closes early, and later days are
    removed.
    """
    day, second = after
    if second < 0 or not 0 <= day < len(schedule.days):
        raise ValueError(f"a schedule of {len(schedule.days)} days cannot end on day {day} at second {second}")
    before = [
        operation
        for operation in schedule.operations
        if operation.day < day or (operation.day == day and (operation.at != "second" or operation.n <= second))
    ]
    recordings = [recording for recording in schedule.recordings if recording.trade_date <= schedule.days[day]]
    return schedule.replace(
        recordings=recordings, operations=[*before, Operation(day=day, at="second", n=second + 1, do="overnight")]
    )


def trim_candidate(
    candidate: Candidate, cells: Sequence[str], measure: Callable[[Schedule], ReachResult], plays: int = 12
) -> Candidate:
    """Truncate a candidate after its last cell and remove the operations that its cells do not need."""
    target_cells = set(cells)
    best = candidate

    def improves(schedule: Schedule) -> bool:
        nonlocal best
        reached = measure(schedule)
        if not target_cells <= reached.cells.keys() or reached.marks or reached.cost > best.reached.cost:
            return False
        best = Candidate(schedule=schedule, reached=reached)
        return True

    def cut() -> bool:
        return improves(truncate_schedule(best.schedule, max(best.reached.cells[cell] for cell in cells)))

    cut()
    index = 0
    while index < len(best.schedule.operations) - 1 and plays:
        plays -= 1
        operations = best.schedule.operations
        if not improves(best.schedule.replace(operations=operations[:index] + operations[index + 1 :])):
            index += 1
    cut()
    return best
