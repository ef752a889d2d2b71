"""The shrinker: from a schedule that fails to the shortest story that fails in the same way.

Four passes, each of which keeps only what still breaches the same invariant in the same subsystem: fewer operations
(delta debugging over the list: any part of a schedule is a schedule), fewer days and instruments, plainer kinds,
smaller numbers. The passes are gone through again until none helps, or the plays are used up.

Source of the first pass: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002), `ddmin`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.explore.play import Played, Player, play
from holdover.explore.schedule import Operation, Schedule
from holdover.explore.search import marks_of
from holdover.harness.snapshot import take
from holdover.recording import RecordingStore

_PLAINER: Final = {
    "torn": ("kill",),
    "stale": ("kill",),
    "kill-unsynced": ("kill",),
    "kill-during-recovery": ("kill",),
    "upgrade": ("clean", "kill"),
    "clean": ("kill",),
    "not-found": ("lose",),
    "reorder": ("lose",),
    "hold": ("lose",),
    "correct": ("bust",),
}
"""Which kinds are tried in the place of one: those that need less to be imagined."""


class NotFailing(ValueError):
    """The schedule that was to be shrunk does not fail."""


class Shrunk(msgspec.Struct, kw_only=True):
    """What is left of a schedule, and how it was come to."""

    schedule: Schedule
    mark: str
    explanation: str
    before: int
    plays: int
    whole: bool = True


class Shrinker:
    """Shrinks one schedule. `plays_max` is how many plays it may take; what is then reached is told as not whole."""

    def __init__(
        self,
        schedule: Schedule,
        store: RecordingStore,
        place: Path,
        *,
        catalogue: Catalogue | None = None,
        mark: str = "",
        plays_max: int = 400,
        progress: Callable[[int, int], None] = lambda plays, operations: None,
    ) -> None:
        self.store, self.place, self.plays_max, self.progress = store, place, plays_max, progress
        self.catalogue = catalogue or Catalogue.load()
        self.plays = 0
        self._tried: dict[str, bool] = {}
        self._told = ""
        first = self._play(schedule)
        marks = marks_of(first)
        if not marks:
            raise NotFailing(f"{schedule.name or 'the schedule'} does not fail; there is nothing to shrink")
        wanted = mark or (schedule.expect if schedule.expect in marks else "")
        if wanted and wanted not in marks:
            raise NotFailing(
                f"{schedule.name or 'the schedule'} does not breach {wanted}; it breaches {', '.join(marks)}"
            )
        self.mark = wanted or marks[0]
        self.schedule = schedule
        self.before = len(schedule.operations)
        self._told = _explanation(first, self.mark)

    def shrink(self) -> Shrunk:
        """Shrink as far as it goes."""
        changed = True
        while changed and self.plays < self.plays_max:
            changed = self._operations()
            changed = self._days() or changed
            changed = self._instruments() or changed
            changed = self._each(self._plainer) or changed
            changed = self._each(self._smaller) or changed
        name = f"{self.mark.replace('/', ': ')}, in {len(self.schedule.operations)} operations"
        return Shrunk(
            schedule=self.schedule.replace(name=name, expect=self.mark, catalogue=self.catalogue.digest),
            mark=self.mark,
            explanation=self._told,
            before=self.before,
            plays=self.plays,
            whole=self.plays < self.plays_max,
        )

    # -- the passes ---------------------------------------------------------------------------------------------------

    def _operations(self) -> bool:
        """Take out as many operations as can be, in ever smaller runs of them."""
        changed = False
        run = max(len(self.schedule.operations) // 2, 1)
        while run >= 1 and self.schedule.operations:
            place = 0
            removed = False
            while place < len(self.schedule.operations):
                kept = self.schedule.operations[:place] + self.schedule.operations[place + run :]
                if self._fails(self.schedule.replace(operations=kept)):
                    removed = changed = True
                else:
                    place += run
            if not removed or run > len(self.schedule.operations):
                if run == 1:
                    break
                run = max(min(run // 2, len(self.schedule.operations)), 1)
        return changed

    def _days(self) -> bool:
        """Leave out the days after the last that is needed, and those before the first."""
        changed = False
        while len(self.schedule.days) > 1:
            days = self.schedule.days
            if not self._fails(self._without({days[-1]})):
                break
            changed = True
        while len(self.schedule.days) > 1 and all(one.day > 0 for one in self.schedule.operations):
            earlier = [msgspec.structs.replace(one, day=one.day - 1) for one in self.schedule.operations]
            if not self._fails(self._without({self.schedule.days[0]}).replace(operations=earlier)):
                break
            changed = True
        return changed

    def _without(self, days: set[str]) -> Schedule:
        left = [one for one in self.schedule.recordings if one.trade_date not in days]
        last = len(self.schedule.days) - len(days)
        return self.schedule.replace(
            recordings=left, operations=[one for one in self.schedule.operations if one.day < last]
        )

    def _instruments(self) -> bool:
        changed = False
        for symbol in self.schedule.symbols[::-1]:
            if len(self.schedule.symbols) > 1:
                left = [one for one in self.schedule.recordings if one.symbol != symbol]
                changed = self._fails(self.schedule.replace(recordings=left)) or changed
        return changed

    def _each(self, smaller: Callable[[Operation], Iterator[Operation]]) -> bool:
        """For each operation, the first of its smaller ones that still fails, as long as there is one."""
        changed = False
        for place in range(len(self.schedule.operations)):
            again = True
            while again:
                again = False
                for one in smaller(self.schedule.operations[place]):
                    operations = list(self.schedule.operations)
                    operations[place] = one
                    if self._fails(self.schedule.replace(operations=operations)):
                        again = changed = True
                        break
        return changed

    def _plainer(self, one: Operation) -> Iterator[Operation]:
        for kind in _PLAINER.get(one.do, ()):
            yield msgspec.structs.replace(one, do=kind, with_=[])

    def _smaller(self, one: Operation) -> Iterator[Operation]:
        takes = one.kind.takes
        if one.with_ and one.with_ != [default for _, default in takes]:
            yield msgspec.structs.replace(one, with_=[])
        for number in _towards_one(one.n):
            yield msgspec.structs.replace(one, n=number)
        for place, value in enumerate(one.with_):
            for less in _towards_nothing(value):
                numbers = [*one.with_[:place], less, *one.with_[place + 1 :]]
                yield msgspec.structs.replace(one, with_=numbers)

    # -- playing ------------------------------------------------------------------------------------------------------

    def _play(self, schedule: Schedule) -> Played:
        self.plays += 1
        self.progress(self.plays, len(schedule.operations))
        return play(
            schedule,
            self.place / "shrink",
            store=self.store,
            catalogue=self.catalogue,
            journal=False,
            scratch=True,
            to_breach=True,
        )

    def _fails(self, schedule: Schedule) -> bool:
        """Whether it fails in the same way; if so it is what we go on from."""
        digest = schedule.digest
        known = self._tried.get(digest)
        if known is not None or self.plays >= self.plays_max:
            return False  # what failed is what we have; what did not need not be tried again
        played = self._play(schedule)
        fails = self.mark in marks_of(played)
        self._tried[digest] = fails
        if fails:
            self.schedule, self._told = schedule, _explanation(played, self.mark)
        return fails


def from_the_night(
    schedule: Schedule, store: RecordingStore, place: Path, into: Path, catalogue: Catalogue, mark: str
) -> Schedule | None:
    """The same story from a snapshot of the night before its first operation, saved in `into`, where it still fails.

    None when its first day has an operation, or when it does not fail from there.
    """
    first = min((one.day for one in schedule.operations), default=0)
    if schedule.start != "fresh" or first == 0:
        return None
    player = Player(schedule.replace(operations=[]), store, place / "night", catalogue=catalogue, scratch=True)
    try:
        for number, day in enumerate(schedule.days[:first]):
            player.day(number, day)
        snapshot = take(player.session, subject=schedule.subject)
    finally:
        player.close()
    path = snapshot.save(into)
    left = [one for one in schedule.recordings if one.trade_date >= schedule.days[first - 1]]
    moved = [msgspec.structs.replace(one, day=one.day - first + 1) for one in schedule.operations]
    shorter = schedule.replace(start=path.name, recordings=left, operations=moved)
    played = play(
        shorter, place / "from", store=store, catalogue=catalogue, snapshot=snapshot, journal=False, scratch=True
    )
    return shorter if mark in marks_of(played) else None


def _explanation(played: Played, mark: str) -> str:
    found = [one.explanation for one in played.breaches if f"{one.subsystem}/{one.invariant}" == mark]
    return found[0] if found else played.crash


def _towards_one(value: int) -> list[int]:
    """Smaller places to try: the first at all, half, and a step less in tens, hundreds and ones."""
    return list(
        dict.fromkeys(one for one in (1, value // 4, value // 2, value - 100, value - 10, value - 1) if 0 < one < value)
    )


def _towards_nothing(value: int) -> list[int]:
    return list(dict.fromkeys(one for one in (0, 1, value // 2) if abs(one) < abs(value)))


def pytest_function(schedule: Schedule, explanation: str) -> str:
    """A test, ready to paste, that fails for as long as the schedule does."""
    name = "".join(part if part.isalnum() else "_" for part in schedule.expect.rpartition("/")[2] or "schedule")
    body = schedule.encode().decode()
    story = "\n".join(f"    {line}" for line in schedule.story())
    return (
        f"from pathlib import Path\n\nimport msgspec\n\nfrom holdover.explore import Schedule, play\n\n"
        f'SCHEDULE = r"""{body}"""\n\n\n'
        f"def test_{name}(tmp_path: Path) -> None:\n"
        f'    """{explanation.splitlines()[0] if explanation else schedule.name}\n\n{story}\n    """\n'
        f"    schedule = msgspec.json.decode(SCHEDULE, type=Schedule)\n"
        f"    assert play(schedule, tmp_path / 'run').mark == ''\n"
    )
