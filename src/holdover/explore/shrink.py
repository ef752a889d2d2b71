"""The shrinker: finds the shortest schedule that fails in the same way.

Each pass keeps a change only if the schedule still breaches the same invariant in the same subsystem: fewer
operations (delta debugging over the list), fewer days, fewer instruments, fewer orders (settings that the
subject's `fewer` offers), simpler kinds, smaller numbers. The passes repeat until none helps or `plays_max`
is reached. `shorten_from_snapshot` then restarts the result from the latest snapshot from which it still
fails.

Source of the first pass: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002),
`ddmin`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.harness.player import Player, PlayResult, failure_marks, play
from holdover.harness.schedule import Operation, Schedule, bind_schedule
from holdover.harness.snapshot import Snapshot, take_snapshot
from holdover.harness.subject import Plan, resolve_factory
from holdover.recording import RecordingStore

_SECOND_NS: Final = 1_000_000_000
_SIMPLER_KINDS: Final = {
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
"""The simpler kinds to try in place of a kind."""


class NotFailingError(ValueError):
    """The schedule to shrink does not fail, or not with the requested mark."""


class ShrinkResult(msgspec.Struct, kw_only=True):
    """The result of shrinking a schedule. `is_complete` is False when the plays ran out."""

    schedule: Schedule
    mark: str
    explanation: str
    operations_before: int
    plays: int
    is_complete: bool = True


class Shrinker:
    """Shrinks one schedule in at most `plays_max` plays. Raises `NotFailingError` when the schedule does not fail."""

    def __init__(
        self,
        schedule: Schedule,
        store: RecordingStore,
        directory: Path,
        *,
        catalogue: Catalogue | None = None,
        mark: str = "",
        plays_max: int = 400,
        progress: Callable[[int, int], None] = lambda plays, operations: None,
    ) -> None:
        self.store, self.directory, self.plays_max, self.progress = store, directory, plays_max, progress
        if plays_max < 1:
            raise ValueError(f"a schedule cannot be shrunk in {plays_max} plays, should be at least 1")
        self.catalogue = catalogue or Catalogue.load()
        schedule = bind_schedule(schedule, store)
        self.plays = 0
        self._outcomes: dict[str, bool] = {}
        self._explanation_text = ""
        first = self._play(schedule)
        marks = failure_marks(first)
        if not marks:
            raise NotFailingError(f"{schedule.name or 'the schedule'} does not fail; there is nothing to shrink")
        target_mark = mark or (schedule.expect if schedule.expect in marks else "")
        if target_mark and target_mark not in marks:
            raise NotFailingError(
                f"{schedule.name or 'the schedule'} does not breach {target_mark}; it breaches {', '.join(marks)}"
            )
        self.mark = target_mark or marks[0]
        self.schedule = schedule
        self.operations_before = len(schedule.operations)
        self._explanation_text = _find_explanation(first, self.mark)

    def shrink(self) -> ShrinkResult:
        """Shrink as far as possible and return the result."""
        changed = True
        while changed and self.plays < self.plays_max:
            changed = self._remove_operations()
            changed = self._remove_days() or changed
            changed = self._remove_instruments() or changed
            changed = self._remove_orders() or changed
            changed = self._shrink_operations(self._simpler_kinds) or changed
            changed = self._shrink_operations(self._smaller_numbers) or changed
        name = f"{self.mark.replace('/', ': ')}, in {len(self.schedule.operations)} operations"
        return ShrinkResult(
            schedule=self.schedule.replace(name=name, expect=self.mark, catalogue=self.catalogue.digest),
            mark=self.mark,
            explanation=self._explanation_text,
            operations_before=self.operations_before,
            plays=self.plays,
            is_complete=self.plays < self.plays_max,
        )

    # -- the passes ---------------------------------------------------------------------------------------------------

    def _remove_operations(self) -> bool:
        """Remove runs of operations, in ever shorter runs."""
        changed = False
        length = max(len(self.schedule.operations) // 2, 1)
        while length >= 1 and self.schedule.operations:
            index = 0
            removed = False
            while index < len(self.schedule.operations):
                operations = self.schedule.operations[:index] + self.schedule.operations[index + length :]
                if self._fails(self.schedule.replace(operations=operations)):
                    removed = changed = True
                else:
                    index += length
            if not removed or length > len(self.schedule.operations):
                if length == 1:
                    break
                length = max(min(length // 2, len(self.schedule.operations)), 1)
        return changed

    def _remove_days(self) -> bool:
        """Remove the days after the last needed one and before the first."""
        changed = False
        while len(self.schedule.days) > 1:
            days = self.schedule.days
            if not self._fails(self._without_days({days[-1]})):
                break
            changed = True
        while len(self.schedule.days) > 1 and all(operation.day > 0 for operation in self.schedule.operations):
            earlier = [
                msgspec.structs.replace(operation, day=operation.day - 1) for operation in self.schedule.operations
            ]
            if not self._fails(self._without_days({self.schedule.days[0]}).replace(operations=earlier)):
                break
            changed = True
        return changed

    def _without_days(self, days: set[str]) -> Schedule:
        recordings = [recording for recording in self.schedule.recordings if recording.trade_date not in days]
        last = len(self.schedule.days) - len(days)
        return self.schedule.replace(
            recordings=recordings,
            operations=[operation for operation in self.schedule.operations if operation.day < last],
        )

    def _remove_instruments(self) -> bool:
        changed = False
        for symbol in self.schedule.symbols[::-1]:
            if len(self.schedule.symbols) > 1:
                recordings = [recording for recording in self.schedule.recordings if recording.symbol != symbol]
                changed = self._fails(self.schedule.replace(recordings=recordings)) or changed
        return changed

    def _remove_orders(self) -> bool:
        """Try the settings with fewer orders that the subject offers."""
        changed = False
        improved = True
        while improved and self.plays < self.plays_max:
            improved = False
            for settings in self._fewer_settings():
                if self._fails(self.schedule.replace(settings=settings)):
                    improved = changed = True
                    break
        return changed

    def _fewer_settings(self) -> list[dict[str, Any]]:
        schedule = self.schedule
        metas = [self.store.get(recording.symbol, recording.trade_date).meta for recording in schedule.recordings]
        plan = Plan(days=metas, seed=schedule.seed, faults=schedule.faults, settings=schedule.settings)
        fewer = getattr(resolve_factory(schedule.subject)(plan), "reduced_settings", None)
        return list(fewer()) if fewer is not None else []

    def _shrink_operations(self, smaller: Callable[[Operation], Iterator[Operation]]) -> bool:
        """Replace each operation by its first smaller variant that still fails, as long as there is one."""
        changed = False
        for index in range(len(self.schedule.operations)):
            improved = True
            while improved:
                improved = False
                for candidate in smaller(self.schedule.operations[index]):
                    operations = list(self.schedule.operations)
                    operations[index] = candidate
                    if self._fails(self.schedule.replace(operations=operations)):
                        improved = changed = True
                        break
        return changed

    def _simpler_kinds(self, operation: Operation) -> Iterator[Operation]:
        for kind in _SIMPLER_KINDS.get(operation.do, ()):
            yield msgspec.structs.replace(operation, do=kind, with_=[])

    def _smaller_numbers(self, operation: Operation) -> Iterator[Operation]:
        takes = operation.kind.parameters
        if operation.with_ and operation.with_ != [default for _, default in takes]:
            yield msgspec.structs.replace(operation, with_=[])
        for number in _smaller_positions(operation.n):
            yield msgspec.structs.replace(operation, n=number)
        for index, value in enumerate(operation.with_):
            for smaller_value in _smaller_values(value):
                numbers = [*operation.with_[:index], smaller_value, *operation.with_[index + 1 :]]
                yield msgspec.structs.replace(operation, with_=numbers)

    # -- playing ------------------------------------------------------------------------------------------------------

    def _play(self, schedule: Schedule) -> PlayResult:
        self.plays += 1
        self.progress(self.plays, len(schedule.operations))
        return play(
            schedule,
            self.directory / "shrink",
            store=self.store,
            catalogue=self.catalogue,
            journal=False,
            scratch=True,
            to_breach=True,
        )

    def _fails(self, schedule: Schedule) -> bool:
        """Return whether a schedule fails in the same way; if it does, it becomes the current schedule."""
        digest = schedule.digest
        outcome = self._outcomes.get(digest)
        if outcome is not None or self.plays >= self.plays_max:
            return False  # a failing variant is the current schedule already; one that did not fail need not run again
        try:
            play_result = self._play(schedule)
        except ValueError:  # settings that name something that was removed
            self._outcomes[digest] = False
            return False
        fails = self.mark in failure_marks(play_result)
        self._outcomes[digest] = fails
        if fails:
            self.schedule, self._explanation_text = schedule, _find_explanation(play_result, self.mark)
        return fails


_SNAPSHOT_OFFSETS_S: Final = (0, 1, 2, 5, 20, 60, 300, 900, 3600)
"""Seconds between the snapshot and the first operation, shortest first."""


def shorten_from_snapshot(
    schedule: Schedule, store: RecordingStore, directory: Path, output_directory: Path, catalogue: Catalogue, mark: str
) -> Schedule | None:
    """Shorten a schedule by starting it from the latest snapshot before its first operation from which it still
    fails.

    The snapshot goes to `output_directory`. At an instant during a day the subject is down, as after a kill, and
    starts first; a first operation that is a plain kill is that kill. When no such instant works, the night
    before is tried. Returns None when that fails too, or when the schedule does not start fresh.
    """
    if schedule.start != "fresh":
        return None
    if not all(operation.is_plain for operation in schedule.operations):
        schedule = _resolve_points(schedule, store, directory, catalogue)
    shortener = _SnapshotShortener(schedule, store, directory, catalogue, mark)
    first = shortener.first_fault
    night = min((operation.day for operation in schedule.operations), default=0) > 0
    if first is None:  # the schedule fails before its first operation, or has none
        return _shorten_from_overnight(schedule, store, directory, output_directory, catalogue, mark) if night else None
    first_operation = schedule.operations[0]
    shortened = None
    if (first_operation.do, first_operation.at, first_operation.day, first_operation.n) == (
        "kill",
        "second",
        *first,
    ) and not any(first_operation.with_):
        shortened = shortener.shorten(*first, schedule.operations[1:], output_directory)
    for offset_s in _SNAPSHOT_OFFSETS_S:
        if shortened is None and first[1] - offset_s > 0:
            shortened = shortener.shorten(first[0], first[1] - offset_s, schedule.operations, output_directory)
    if shortened is not None:
        return shortened
    return _shorten_from_overnight(schedule, store, directory, output_directory, catalogue, mark) if night else None


def _resolve_points(schedule: Schedule, store: RecordingStore, directory: Path, catalogue: Catalogue) -> Schedule:
    """Return a schedule with each operation at the plain point where it happens before the first breach."""
    player = Player(schedule, store, directory / "resolved", catalogue=catalogue, scratch=True, to_breach=True)
    try:
        player.play()
        return player.resolved_schedule()
    finally:
        player.close()


class _SnapshotShortener:
    """Restarts one schedule from snapshots during the day of its first operation."""

    def __init__(
        self, schedule: Schedule, store: RecordingStore, directory: Path, catalogue: Catalogue, mark: str
    ) -> None:
        self.schedule, self.store, self.directory, self.catalogue, self.mark = (
            schedule,
            store,
            directory,
            catalogue,
            mark,
        )
        self.first_fault: tuple[int, int] | None = None
        self._first_ns = 0
        player = self._make_player(schedule)
        reached: list[tuple[int, str]] = []

        def clear_reached() -> None:
            reached.clear()

        def note_first_operation(operation: Operation) -> None:
            if self.first_fault is None:
                session = player.session
                self._first_ns = session.clock.now_ns
                second = (self._first_ns - session.hours()[0]) // _SECOND_NS
                self.first_fault = schedule.days.index(session.trade_date), second
                player.end_at = self.first_fault[0], second + 1

        player.on_begin, player.operations.on_operation = clear_reached, note_first_operation
        player.on_point = lambda at: (
            reached.append((player.session.clock.now_ns, at)) if self.first_fault is None else None
        )
        try:
            player.play()
        finally:
            player.close()
        self._counts_before = self._count_points(reached)

    def _make_player(self, schedule: Schedule, snapshot: Snapshot | None = None) -> Player:
        return Player(
            schedule,
            self.store,
            self.directory / "told",
            catalogue=self.catalogue,
            snapshot=snapshot,
            journal=False,
            scratch=True,
            to_breach=True,
        )

    def _count_points(self, reached: list[tuple[int, str]]) -> Counter[str]:
        """Count the points of each kind before the instant of the first operation."""
        return Counter(at for now_ns, at in reached if now_ns < self._first_ns)

    def shorten(self, day: int, second: int, operations: list[Operation], output_directory: Path) -> Schedule | None:
        """Return the schedule from a snapshot at that second and save the snapshot; None when it does not fail from
        there.
        """
        snapshot = self._take_snapshot(day, second)
        if snapshot is None:
            return None
        # Points of that day count from the snapshot, and the start of the subject passes some of them.
        bare = self.schedule.replace(start=f"{snapshot.name}.hsnap", operations=[])
        player = self._make_player(bare, snapshot)
        reached: list[tuple[int, str]] = []
        player.on_point = lambda at: reached.append((player.session.clock.now_ns, at))
        player.end_at = day, (self.first_fault or (0, 0))[1] + 1
        try:
            player.play()
        finally:
            player.close()
        coming_up = self._count_points(reached)
        moved = [
            operation
            if operation.day != day or operation.at == "second"
            else msgspec.structs.replace(
                operation, n=operation.n - self._counts_before[operation.at] + coming_up[operation.at]
            )
            for operation in operations
        ]
        if any(operation.n < 0 for operation in moved):
            return None
        shorter = bare.replace(operations=moved)
        player = self._make_player(shorter, snapshot)
        try:
            fails = self.mark in failure_marks(player.play())
        finally:
            player.close()
        if fails:
            snapshot.save(output_directory)
        return shorter if fails else None

    def _take_snapshot(self, day: int, second: int) -> Snapshot | None:
        """Take a snapshot of the undisturbed day with the subject down; None when the day fails before that second."""
        player = self._make_player(self.schedule.replace(operations=[]))
        player.end_at = day, second
        try:
            if player.play().mark or player.session.phase != "open":
                return None
            player.session.trials.discard_subject()
            return take_snapshot(player.session, subject=self.schedule.subject)
        finally:
            player.close()


def _shorten_from_overnight(
    schedule: Schedule, store: RecordingStore, directory: Path, output_directory: Path, catalogue: Catalogue, mark: str
) -> Schedule | None:
    """Return the schedule from a snapshot of the night before its first operation; None when it does not fail from
    there.
    """
    first = min(operation.day for operation in schedule.operations)
    player = Player(schedule.replace(operations=[]), store, directory / "night", catalogue=catalogue, scratch=True)
    try:
        for number, day in enumerate(schedule.days[:first]):
            player.play_day(number, day)
        snapshot = take_snapshot(player.session, subject=schedule.subject)
    finally:
        player.close()
    path = snapshot.save(output_directory)
    recordings = [recording for recording in schedule.recordings if recording.trade_date >= schedule.days[first - 1]]
    moved = [msgspec.structs.replace(operation, day=operation.day - first + 1) for operation in schedule.operations]
    shorter = schedule.replace(start=path.name, recordings=recordings, operations=moved)
    play_result = play(
        shorter, directory / "from", store=store, catalogue=catalogue, snapshot=snapshot, journal=False, scratch=True
    )
    return shorter if mark in failure_marks(play_result) else None


def _find_explanation(play_result: PlayResult, mark: str) -> str:
    explanations = [breach.explanation for breach in play_result.breaches if breach.mark == mark]
    return explanations[0] if explanations else play_result.crash


def _smaller_positions(value: int) -> list[int]:
    """Return smaller positions to try: 1, a quarter, half, and steps of 100, 10 and 1 less."""
    return list(
        dict.fromkeys(
            number for number in (1, value // 4, value // 2, value - 100, value - 10, value - 1) if 0 < number < value
        )
    )


def _smaller_values(value: int) -> list[int]:
    return list(dict.fromkeys(number for number in (0, 1, value // 2) if abs(number) < abs(value)))


def render_pytest(schedule: Schedule, explanation: str) -> str:
    """Return the source of a test that fails as long as the schedule does."""
    story = [explanation.splitlines()[0] if explanation.splitlines() else schedule.name, *schedule.describe()]
    return (
        "from pathlib import Path\n\nfrom holdover.explore import decode_schedule, play\n\n"
        f"STORY = {_render_literal(story)}\n\n"
        f"SCHEDULE = {_render_literal(schedule.encode().decode().splitlines(keepends=True))}\n\n\n"
        f"def {name_test(schedule.expect)}(tmp_path: Path) -> None:\n"
        '    schedule = decode_schedule("".join(SCHEDULE).encode())\n'
        "    played = play(schedule, tmp_path / 'run')\n"
        "    assert played.mark == '', '\\n'.join(STORY)\n"
    )


def name_test(mark: str) -> str:
    """Return the name of the test of a breach: a Python identifier of ASCII letters."""
    words = re.sub(r"[^a-z0-9]+", "_", mark.rpartition("/")[2].lower()).strip("_")[:80]
    return f"test_{words or 'schedule'}"


def _render_literal(lines: Sequence[str]) -> str:
    """Return the source of a tuple of strings: ASCII, one literal a line, so that no text in it can become code."""
    return "(\n" + "".join(f"    {line!a},\n" for line in lines) + ")"
