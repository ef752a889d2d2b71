"""The shrinker: from a schedule that fails to the shortest story that fails in the same way.

Passes, each of which keeps only what still breaches the same invariant in the same subsystem: fewer operations (delta
debugging over the list: any part of a schedule is a schedule), fewer days, fewer instruments, fewer orders (what the
subject offers as `fewer`), plainer kinds, smaller numbers. The passes are gone through again until none helps, or the
plays are used up. `from_a_snapshot` then tells what is left from the latest instant from which it still fails.

Source of the first pass: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002), `ddmin`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.explore.play import Played, Player, marks_of, play
from holdover.explore.schedule import Operation, Schedule
from holdover.harness.snapshot import Snapshot, take
from holdover.harness.subject import Plan, factory_named
from holdover.recording import RecordingStore

_SECOND_NS: Final = 1_000_000_000
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
            changed = self._orders() or changed
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

    def _orders(self) -> bool:
        """Settings with which the subject does less, where it offers any."""
        changed = False
        again = True
        while again and self.plays < self.plays_max:
            again = False
            for settings in self._fewer():
                if self._fails(self.schedule.replace(settings=settings)):
                    again = changed = True
                    break
        return changed

    def _fewer(self) -> list[dict[str, Any]]:
        schedule = self.schedule
        metas = [self.store.get(one.symbol, one.trade_date).meta for one in schedule.recordings]
        plan = Plan(days=metas, seed=schedule.seed, faults=schedule.faults, settings=schedule.settings)
        fewer = getattr(factory_named(schedule.subject)(plan), "fewer", None)
        return list(fewer()) if fewer is not None else []

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
        try:
            played = self._play(schedule)
        except ValueError:  # settings that name what is not there any more
            self._tried[digest] = False
            return False
        fails = self.mark in marks_of(played)
        self._tried[digest] = fails
        if fails:
            self.schedule, self._told = schedule, _explanation(played, self.mark)
        return fails


_BACK_S: Final = (0, 1, 2, 5, 20, 60, 300, 900, 3600)
"""So long before the first operation a story may begin, the latest tried first."""


def from_a_snapshot(
    schedule: Schedule, store: RecordingStore, place: Path, into: Path, catalogue: Catalogue, mark: str
) -> Schedule | None:
    """The same story from the latest snapshot before its first operation from which it still fails, saved in `into`.

    At an instant inside the day the subject is down, as a kill leaves it, and comes up first; a first operation that
    is a plain kill is that very kill. Where it fails from none of these, the night before is tried. None when it fails
    from there neither, or when it does not begin fresh.
    """
    if schedule.start != "fresh":
        return None
    teller = _Teller(schedule, store, place, catalogue, mark)
    first = teller.first
    night = min((one.day for one in schedule.operations), default=0) > 0
    if first is None:  # it fails before, or has none
        return _from_the_night(schedule, store, place, into, catalogue, mark) if night else None
    one = schedule.operations[0]
    found = None
    if (one.do, one.at, one.day, one.n) == ("kill", "second", *first) and not any(one.with_):
        found = teller.tell(*first, schedule.operations[1:], into)
    for back in _BACK_S:
        if found is None and first[1] - back > 0:
            found = teller.tell(first[0], first[1] - back, schedule.operations, into)
    if found is not None:
        return found
    return _from_the_night(schedule, store, place, into, catalogue, mark) if night else None


class _Teller:
    """Tells one story from snapshots inside the day of its first operation."""

    def __init__(self, schedule: Schedule, store: RecordingStore, place: Path, catalogue: Catalogue, mark: str) -> None:
        self.schedule, self.store, self.place, self.catalogue, self.mark = schedule, store, place, catalogue, mark
        self.first: tuple[int, int] | None = None
        self._first_ns = 0
        player = self._player(schedule)
        reached: list[tuple[int, str]] = []

        def begun() -> None:
            reached.clear()

        def done(operation: Operation) -> None:
            if self.first is None:
                session = player.session
                self._first_ns = session.clock.now_ns
                second = (self._first_ns - session.hours()[0]) // _SECOND_NS
                self.first = schedule.days.index(session.trade_date), second
                player.until = self.first[0], second + 1

        player.on_begin, player.on_operation = begun, done
        player.on_place = lambda at: reached.append((player.session.clock.now_ns, at)) if self.first is None else None
        try:
            player.play()
        finally:
            player.close()
        self._before = self._count(reached)

    def _player(self, schedule: Schedule, snapshot: Snapshot | None = None) -> Player:
        return Player(
            schedule,
            self.store,
            self.place / "told",
            catalogue=self.catalogue,
            snapshot=snapshot,
            journal=False,
            scratch=True,
            to_breach=True,
        )

    def _count(self, reached: list[tuple[int, str]]) -> Counter[str]:
        """How many of each place were reached in the instants before the first operation's."""
        return Counter(at for now_ns, at in reached if now_ns < self._first_ns)

    def tell(self, day: int, second: int, operations: list[Operation], into: Path) -> Schedule | None:
        """The story from a snapshot at that second, saved with it, if it fails from there."""
        snapshot = self._taken(day, second)
        if snapshot is None:
            return None
        # That day's places are counted from the snapshot on, and coming up passes some of them.
        bare = self.schedule.replace(start=f"{snapshot.name}.hsnap", operations=[])
        player = self._player(bare, snapshot)
        reached: list[tuple[int, str]] = []
        player.on_place = lambda at: reached.append((player.session.clock.now_ns, at))
        player.until = day, (self.first or (0, 0))[1] + 1
        try:
            player.play()
        finally:
            player.close()
        coming_up = self._count(reached)
        moved = [
            one
            if one.day != day or one.at == "second"
            else msgspec.structs.replace(one, n=one.n - self._before[one.at] + coming_up[one.at])
            for one in operations
        ]
        if any(one.n < 0 for one in moved):
            return None
        shorter = bare.replace(operations=moved)
        player = self._player(shorter, snapshot)
        try:
            fails = self.mark in marks_of(player.play())
        finally:
            player.close()
        if fails:
            snapshot.save(into)
        return shorter if fails else None

    def _taken(self, day: int, second: int) -> Snapshot | None:
        """The state at that second of the undisturbed day with the subject down; None where something fails before."""
        player = self._player(self.schedule.replace(operations=[]))
        player.until = day, second
        try:
            if player.play().mark or player.session.phase != "open":
                return None
            player.session.bury()
            return take(player.session, subject=self.schedule.subject)
        finally:
            player.close()


def _from_the_night(
    schedule: Schedule, store: RecordingStore, place: Path, into: Path, catalogue: Catalogue, mark: str
) -> Schedule | None:
    """The same story from a snapshot of the night before its first operation, where it still fails."""
    first = min(one.day for one in schedule.operations)
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
    found = [one.explanation for one in played.breaches if one.mark == mark]
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
