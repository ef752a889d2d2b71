"""Witnesses: for each cell that is covered, a short schedule that reaches it, a line each, in one file.

    {"holdover": "witnesses", "version": 1, "axes": ["orders", "link"], "recordings": {"ACME 2024-11-27": "..."}}
    {"name": "5b1c09d2", "on": ["ACME 2024-11-27"], "reaches": ["being unfilled up", "restart:kill unfilled up"],
     "operations": [{"at": "second", "n": 61, "do": "kill"}]}

A cell is told by its values, in the order of the file's axes, behind the lifecycle transition that found the system in
it, or `being` where it was only there. Each cell stands on one line, its witness. Lines are few: a schedule reaches
many cells, and each is cut off where it has reached its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from holdover.catalogue import Catalogue
from holdover.explore.play import Player, marks_of
from holdover.explore.schedule import BadSchedule, Operation, Recorded, Schedule, check
from holdover.recording import RecordingStore
from holdover.runtime.cells import CellCounter
from holdover.runtime.files import write_whole

VERSION: Final = 1
BEING: Final = "being"
_SECOND_NS: Final = 1_000_000_000


class Witness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line: a schedule, told shortly, and the cells whose witness it is."""

    name: str
    on: list[str]
    subject: str = "desk"
    seed: int = 0
    reaches: list[str]
    operations: list[Operation] = []

    def replace(self, **changes: Any) -> Witness:
        """The witness with some fields changed."""
        return msgspec.structs.replace(self, **changes)


class _Head(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    holdover: Literal["witnesses"] = "witnesses"
    version: int = VERSION
    axes: list[str] = []
    recordings: dict[str, str] = {}


class Witnesses:
    """The witnesses of a corpus. Raises `BadSchedule` when a file of them cannot be read."""

    def __init__(self, axes: Sequence[str] = ()) -> None:
        self.head = _Head(axes=list(axes))
        self.lines: list[Witness] = []

    @classmethod
    def read(cls, path: Path) -> Witnesses:
        """What a file holds."""
        found = cls()
        try:
            first, *rest = path.read_bytes().splitlines() or [b""]
            found.head = msgspec.json.decode(first, type=_Head)
            for line in rest:
                found.lines.append(msgspec.json.decode(line, type=Witness))
        except OSError as problem:
            raise BadSchedule(f"{path}: cannot be read: {problem.strerror}") from problem
        except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
            where = f"{path.name}, line {len(found.lines) + 2}" if found.head.axes else path.name
            raise BadSchedule(f"{where}: no witness: {problem}") from problem
        if found.head.version != VERSION:
            raise BadSchedule(f"{path.name}: written in version {found.head.version}, this Holdover reads {VERSION}")
        problems = found.problems()
        if problems:
            raise BadSchedule("\n".join(f"{path.name}: {problem}" for problem in problems))
        return found

    def problems(self) -> list[str]:
        """What is wrong with it, in words."""
        found: list[str] = []
        names: set[str] = set()
        cells: dict[str, str] = {}
        for one in self.lines:
            if one.name in names:
                found.append(f"two witnesses are called {one.name}")
            names.add(one.name)
            missing = [name for name in one.on if name not in self.head.recordings]
            if missing:
                found.append(f"{one.name}: is on {missing[0]}, which the first line does not name")
                continue
            found += [f"{one.name}: {problem}" for problem in check(self.schedule(one))]
            if not one.reaches:
                found.append(f"{one.name}: is the witness of no cell")
            for cell in one.reaches:
                if cell in cells:
                    found.append(f"{cell}: has two witnesses, {cells[cell]} and {one.name}")
                cells[cell] = one.name
        return found

    @property
    def cells(self) -> dict[str, str]:
        """Each cell that has a witness, and its name."""
        return {cell: one.name for one in self.lines for cell in one.reaches}

    def schedule(self, one: Witness) -> Schedule:
        """The schedule of a line."""
        recorded = []
        for name in one.on:
            symbol, _, day = name.rpartition(" ")
            recorded.append(Recorded(symbol=symbol, trade_date=day, digest=self.head.recordings[name]))
        return Schedule(
            name=f"witness {one.name}",
            subject=one.subject,
            seed=one.seed,
            recordings=recorded,
            operations=one.operations,
        )

    def add(self, schedule: Schedule, reaches: Iterable[str]) -> Witness:
        """A line for a schedule. Raises `BadSchedule` for one from a snapshot, with faults, or on another recording."""
        if schedule.start != "fresh" or schedule.faults:
            raise BadSchedule(f"{schedule.name or 'the schedule'}: a witness begins fresh, with no seeded fault")
        on = []
        for one in schedule.recordings:
            name = f"{one.symbol} {one.trade_date}"
            if self.head.recordings.setdefault(name, one.digest) != one.digest:
                raise BadSchedule(f"{name}: is another recording than the one that the other witnesses are on")
            on.append(name)
        digest = hashlib.sha256(msgspec.json.encode([on, schedule.subject, schedule.seed, schedule.operations]))
        line = Witness(
            name=digest.hexdigest()[:8],
            on=on,
            subject=schedule.subject,
            seed=schedule.seed,
            reaches=sorted(reaches),
            operations=schedule.operations,
        )
        self.lines = sorted(
            [*(kept for kept in self.lines if kept.name != line.name), line], key=lambda kept: (kept.on, kept.name)
        )
        return line

    def encode(self) -> bytes:
        """As it is written: the head, then a line a witness."""
        used = {name for one in self.lines for name in one.on}
        recordings = {name: digest for name, digest in sorted(self.head.recordings.items()) if name in used}
        head = _Head(axes=self.head.axes, recordings=recordings)
        return b"\n".join([*map(msgspec.json.encode, (head, *self.lines)), b""])

    def save(self, path: Path) -> None:
        """Write it whole, synced and renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.encode())


class Reached(msgspec.Struct, kw_only=True):
    """What playing a schedule reached: each cell with the place (day, second) by which it had; and what it cost."""

    cells: dict[str, tuple[int, int]]
    marks: list[str]
    cost: int
    explanation: str = ""


class Cells:
    """Tells a counter's cells by their values on some axes. Raises `BadSchedule` for an axis that there is not."""

    def __init__(self, counter: CellCounter, axes: Sequence[str]) -> None:
        self._steps: list[tuple[int, tuple[str, ...]]] = []
        known = {one.name: one for one in counter.axes}
        for name in axes:
            if name not in known:
                raise BadSchedule(f"no axis is called {name!r}; there are {', '.join(known)}")
            stride = 1
            for one in counter.axes[: counter.axes.index(known[name])]:
                stride *= len(one.values)
            self._steps.append((stride, known[name].values))
        self._known: dict[int, str] = {}

    def __call__(self, cell: int, label: str = BEING) -> str:
        """A cell, behind the transition that found the system in it."""
        told = self._known.get(cell)
        if told is None:
            told = " ".join(values[cell // stride % len(values)] for stride, values in self._steps)
            self._known[cell] = told
        return f"{label} {told}"

    def all(self, counter: CellCounter) -> set[str]:
        """Every cell that a counter has seen."""
        return {self(cell) for cell in counter.visits} | {self(cell, label) for label, cell in counter.transitions}


def reach(schedule: Schedule, store: RecordingStore, place: Path, axes: Sequence[str], catalogue: Catalogue) -> Reached:
    """Play a schedule and tell what it reaches, and by when."""
    player = Player(schedule, store, place, catalogue=catalogue, journal=False, scratch=True)
    session, counter = player.session, player.session.guard.cells
    cells = Cells(counter, axes)
    when: dict[str, tuple[int, int]] = {}
    # What the close brings is reached by where the schedule has it come.
    ends = {one.day: one.n - 1 for one in schedule.operations if one.do == "overnight" and one.at == "second"}

    def now() -> tuple[int, int]:
        if not session.trade_date:
            return 0, 0
        day = schedule.days.index(session.trade_date)
        second = max((session.clock.now_ns - session.hours()[0]) // _SECOND_NS, 0)
        return day, min(second, ends.get(day, second))

    def left(cell: int) -> None:
        when.setdefault(cells(cell), now())

    def passed(label: str, cell: int) -> None:
        when.setdefault(cells(cell, label), now())

    counter.on_change, counter.on_transition = left, passed
    try:
        played = player.play()
        for cell in sorted(cells.all(counter)):
            when.setdefault(cell, now())
        # `on_change` is told of cells, too, that were only passed through while records were read back.
        seen = cells.all(counter)
        return Reached(
            cells={cell: at for cell, at in when.items() if cell in seen},
            marks=marks_of(played),
            cost=played.market_events + 2 * played.mutations + 300 * len(session.transitions),
            explanation=played.breaches[0].explanation if played.breaches else played.crash,
        )
    finally:
        counter.on_change = counter.on_transition = None
        player.close()


class Candidate(msgspec.Struct, kw_only=True):
    """A schedule that may become a witness, and what it reaches when it is played from the beginning."""

    schedule: Schedule
    reached: Reached


def cover(candidates: Sequence[Candidate], wanted: set[str]) -> list[tuple[Candidate, list[str]]]:
    """Few and cheap candidates that reach all that is wanted and can be, each with the cells that are its own.

    Greedy: always the one that adds most for what it costs; then those are left out whose cells others reach, too.
    """
    left = set(wanted)
    chosen: list[Candidate] = []
    open_ = list(candidates)
    while left and open_:
        # The first of the best: `max` keeps the earlier of two that are alike.
        best = max(open_, key=lambda one: len(left & one.reached.cells.keys()) / (one.reached.cost + 500))
        if not left & best.reached.cells.keys():
            break
        chosen.append(best)
        open_.remove(best)
        left -= best.reached.cells.keys()
    for one in sorted(chosen, key=lambda each: -each.reached.cost):
        others = {cell for other in chosen if other is not one for cell in other.reached.cells}
        if not (wanted & one.reached.cells.keys()) - others:
            chosen.remove(one)
    told: set[str] = set()
    found = []
    for one in sorted(chosen, key=lambda each: each.reached.cost):
        mine = sorted((wanted & one.reached.cells.keys()) - told)
        told.update(mine)
        found.append((one, mine))
    return found


def cut_off(schedule: Schedule, after: tuple[int, int]) -> Schedule:
    """The same up to a place (day, second), where the venue closes early and it ends; later days are left out."""
    day, second = after
    before = [
        one
        for one in schedule.operations
        if one.day < day or (one.day == day and (one.at != "second" or one.n <= second))
    ]
    left = [one for one in schedule.recordings if one.trade_date <= schedule.days[day]]
    return schedule.replace(
        recordings=left, operations=[*before, Operation(day=day, at="second", n=second + 1, do="overnight")]
    )


def trimmed(one: Candidate, cells: Sequence[str], try_it: Callable[[Schedule], Reached], plays: int = 12) -> Candidate:
    """A candidate cut off where it has reached its cells, and without the operations that it does not need for them."""
    wanted = set(cells)
    best = one

    def tried(schedule: Schedule) -> bool:
        nonlocal best
        reached = try_it(schedule)
        if not wanted <= reached.cells.keys() or reached.marks or reached.cost > best.reached.cost:
            return False
        best = Candidate(schedule=schedule, reached=reached)
        return True

    def cut() -> bool:
        return tried(cut_off(best.schedule, max(best.reached.cells[cell] for cell in cells)))

    cut()
    place = 0
    while place < len(best.schedule.operations) - 1 and plays:
        plays -= 1
        operations = best.schedule.operations
        if not tried(best.schedule.replace(operations=operations[:place] + operations[place + 1 :])):
            place += 1
    cut()
    return best
