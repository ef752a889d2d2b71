"""The search: short bursts from an archive of states, each towards cells that no burst has reached.

A recorded day never cancels at the wrong moment. A burst takes the least used state of the archive, starts
the subject on it, and applies a seeded choice of operations for some minutes of the recorded market: faults,
and operations of the venue, the strategy and the operator. A burst that reaches a new cell, or a new
transition in a cell, adds its state to the archive. A failure becomes a schedule from a fresh state; it
counts as confirmed when that schedule fails too. `replay_schedules` plays known schedules first (the
witnesses of a corpus), so that the search need not find their cells again.

All bursts run in one process on one session. The search checkpoints states and rolls back to them as the
sweep does, so continuing from a state costs a millisecond and not a day.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.explore.witness import CellNames, truncate_schedule
from holdover.harness import Session, disk
from holdover.harness.player import Player, failure_marks, make_session, play
from holdover.harness.schedule import DRAWN_KINDS, KINDS, MESSAGE_OPERATIONS, Operation, Schedule, make_schedule
from holdover.model import ImpossibleStateError
from holdover.recording import RecordingStore

SEARCH_KINDS: Final[tuple[str, ...]] = DRAWN_KINDS
"""Every kind that a search draws; each group of bursts uses some of them."""

_ARCHIVE_MAX: Final = 160
_SECOND_NS: Final = 1_000_000_000
_SPANS_S: Final = (40, 120, 300, 900)
_BURSTS_PER_PALETTE: Final = 12
"""The number of bursts that share one choice of kinds."""
LOSSY_KINDS: Final = ("lose", "not-found", "reorder")
LOST_MAX: Final = 2
"""How many messages may be lost or delayed to the next heartbeat in a short time. A subject that repeats a
request has to wait first, and repeated losses would use up the time limit of a reconciliation.
"""
_UNKNOWN_MAX: Final = 2
"""How often in a row the venue may deny an order that it has. A desk cannot tell endless denials from the truth;
they need a person.
"""


class SearchFinding(msgspec.Struct, kw_only=True):
    """A failure that a burst found: its schedule from a fresh state, and the result of playing that schedule."""

    schedule: Schedule
    mark: str
    explanation: str
    confirmed: bool
    burst: int
    seconds: float


class SearchResult(msgspec.Struct, kw_only=True):
    """The result of a search."""

    bursts: int = 0
    operations: int = 0
    cells: int = 0
    transitions: int = 0
    archived: int = 0
    findings: list[SearchFinding] = []
    seconds: float = 0.0
    schedules_replayed: int = 0
    new_cells: int = 0
    witnesses: list[Schedule] = []

    @property
    def breaches(self) -> int:
        """Return the number of confirmed failures."""
        return sum(1 for finding in self.findings if finding.confirmed)

    @property
    def verdict(self) -> str:
        """Return `breach` for a confirmed failure, `unknown` for an unconfirmed one or no burst, else `holds`."""
        if any(finding.confirmed for finding in self.findings):
            return "breach"
        return "unknown" if self.findings or not self.bursts else "holds"


class _ArchivedState:
    """A state of the archive: the checkpoint of the session, its disk image, and the operations that lead to it."""

    def __init__(
        self,
        state: Any,
        image: dict[str, bytes],
        backup: dict[str, bytes],
        operations: list[Operation],
        point_counts: dict[str, int],
    ) -> None:
        self.state, self.image, self.backup, self.operations, self.point_counts = (
            state,
            image,
            backup,
            operations,
            point_counts,
        )
        self.attempts = 0


class Search:
    """A search over recorded days; call `run` with a budget or a number of bursts.

    It uses the share `end_fraction` of each day, from the open. `axes` name the cells of its witnesses. Raises
    `RecordingError` when a day is not recorded.
    """

    def __init__(
        self,
        store: RecordingStore,
        symbols: Sequence[str],
        days: Sequence[str],
        directory: Path,
        *,
        subject: str = "desk",
        seed: int = 0,
        faults: Sequence[str] = (),
        catalogue: Catalogue | None = None,
        kinds: Sequence[str] = SEARCH_KINDS,
        axes: Sequence[str] = (),
        end_fraction: float = 1.0,
    ) -> None:
        self.catalogue = catalogue or Catalogue.load()
        self.store, self.directory, self.kinds = store, directory, list(kinds)
        self.base_schedule = make_schedule(
            store, symbols, days, self.catalogue, name="search", subject=subject, seed=seed, faults=list(faults)
        )
        self.end_fraction = end_fraction
        self.rng = random.Random(seed)
        self.result = SearchResult()
        self.visited: set[Any] = set()
        self.archive: list[_ArchivedState] = []
        self._reported_marks: set[str] = set()
        self._palette: list[str] = []
        self._directory_number = 0
        self.session: Session = make_session(
            self.base_schedule, store, directory / "search", catalogue=self.catalogue, journal=False, scratch=True
        )
        self.session.guard.monitor.recomputes_totals = False
        self._cell_names = CellNames(self.session.guard.cells, axes)
        self.reached_cells: set[str] = set()
        self._counted_sizes = (0, 0)
        self._initial_state: _ArchivedState | None = None

    def run(
        self,
        *,
        budget_s: float = 0.0,
        bursts: int = 0,
        to_breach: bool = False,
        progress: Callable[[SearchResult], None] = lambda result: None,
    ) -> SearchResult:
        """Search until the budget is spent, the number of bursts is reached, or (`to_breach`) a failure is confirmed.

        `budget_s` is in seconds; 0 means no limit. `bursts` counts the bursts of earlier calls too.
        """
        began = time.monotonic()
        if not self.archive:
            self._build_initial_states()
        while True:
            self.result.seconds = time.monotonic() - began
            progress(self.result)
            if budget_s and self.result.seconds >= budget_s:
                break
            if bursts and self.result.bursts >= bursts:
                break
            if to_breach and any(finding.confirmed for finding in self.result.findings):
                break
            self._run_burst()
        self.result.seconds = time.monotonic() - began
        return self.result

    def replay_schedules(
        self, schedules: Sequence[Schedule], progress: Callable[[Schedule], None] = lambda schedule: None
    ) -> None:
        """Play known schedules and archive the states that they reach; call it before the first burst.

        Schedules on other instruments or days are skipped. A schedule that ends during a day is archived as it is
        there. A template is played on the days of the search.
        """
        if not self.archive:
            self._build_initial_states()
        if self._initial_state is None:
            raise ImpossibleStateError("the search has an archive without its initial state")
        for known_schedule in schedules:
            schedule = known_schedule
            if not schedule.recordings:
                schedule = schedule.replace(recordings=self.base_schedule.recordings)
            schedule = schedule.expand()
            days = self.base_schedule.days[: len(schedule.days)]
            if (schedule.symbols, schedule.days, schedule.subject) != (
                self.base_schedule.symbols,
                days,
                self.base_schedule.subject,
            ):
                continue
            progress(schedule)
            self.result.schedules_replayed += 1
            operations, (day, second) = list(schedule.operations), (len(days) - 1, 0)
            ends = operations[-1] if operations else None
            if ends is None or ends.do != "overnight" or ends.day != day or ends.at != "second":
                second = self._searched_length_s(day)
            else:
                second = operations.pop().n
            self._rollback(self._initial_state)
            player = self._make_player(operations, second, day)
            play_result = player.play()
            operations = player.resolved_schedule().operations
            if play_result.mark:
                self._confirm(operations, play_result.crash)
                self._take_new_cells()
            else:
                self._note_reached(operations, (day, second), player, witness=False)

    def close(self) -> None:
        """Close the session."""
        self.session.close()

    # -- states -----------------------------------------------------------------------------------------------------

    def _build_initial_states(self) -> None:
        """Archive the first states: the undisturbed day at a few times, each with the subject killed."""
        path: list[Operation] = []
        point_counts = dict.fromkeys(("mutation", "in", "out", "delivered", "sent", "instant"), 0)
        length_s = self._searched_length_s(0)
        self._initial_state = _ArchivedState(self.session.trials.checkpoint(), {}, {}, [], dict(point_counts))
        for number, share in enumerate((0.02, 0.15, 0.5, 0.9)):
            second = int(length_s * share)
            player = self._make_player([], second, 0)
            if number == 0:
                player.play()
            else:
                self._rollback(self.archive[-1])
                player.resume(self.archive[-1].point_counts, self.archive[-1].operations[-1])
            _, cell_names = self._take_new_cells()
            self._add_witness(path, (0, second), cell_names)
            path = [*path, Operation(at="second", n=second, do="kill")]
            point_counts = dict(player.counts)
            self._archive_state(path, point_counts)

    def _searched_length_s(self, day: int) -> int:
        """Return the searched length of a day in seconds."""
        meta = self.store.get(self.base_schedule.symbols[0], self.base_schedule.days[day]).meta
        return int((meta.close_ns - meta.open_ns) // _SECOND_NS * self.end_fraction)

    def _make_player(self, operations: list[Operation], second: int, day: int) -> Player:
        player = Player(
            self.base_schedule.replace(operations=operations),
            self.store,
            self.directory,
            session=self.session,
            to_breach=True,
        )
        player.end_at = (day, second)
        return player

    def _archive_state(self, path: list[Operation], point_counts: dict[str, int]) -> None:
        """Discard the subject and archive the state."""
        session = self.session
        if session.subject is not None:
            session.trials.discard_subject()
        backup = session.directory / "backup"
        self.archive.append(
            _ArchivedState(
                session.trials.checkpoint(),
                disk.read_image(session.disk.directory),
                disk.read_image(backup) if backup.exists() else {},
                path,
                point_counts,
            )
        )
        self.result.archived = len(self.archive)
        if len(self.archive) > _ARCHIVE_MAX:
            worn = max(range(4, len(self.archive)), key=lambda number: (self.archive[number].attempts, -number))
            del self.archive[worn]

    def _rollback(self, archived_state: _ArchivedState) -> None:
        session = self.session
        if session.subject is not None:
            session.trials.discard_subject()
        session.trials.rollback(archived_state.state)
        if session.trade_date:
            session.trials.fork_tape()
        self._directory_number += 1
        directory = self.directory / f"burst-{self._directory_number}"
        disk.remove_directory(self.directory / f"burst-{self._directory_number - 1}")
        disk.write_image(archived_state.image, directory)
        session.disk.directory = directory
        disk.write_image(archived_state.backup, session.directory / "backup")

    # -- a burst ----------------------------------------------------------------------------------------------------

    def _run_burst(self) -> None:
        if self.result.bursts % _BURSTS_PER_PALETTE == 0:
            # Use a few kinds at a time: all kinds together mostly undo each other.
            kind_count = self.rng.randint(2, max(2, min(7, len(self.kinds))))
            self._palette = self.rng.sample(self.kinds, min(kind_count, len(self.kinds)))
        self.result.bursts += 1
        fewest = min(candidate.attempts for candidate in self.archive)
        archived_state = self.rng.choice([candidate for candidate in self.archive if candidate.attempts <= fewest + 1])
        archived_state.attempts += 1
        self._rollback(archived_state)
        session = self.session
        day = self.base_schedule.days.index(session.trade_date)
        open_ns, close_ns = session.hours()
        now_s = max((session.clock.now_ns - open_ns) // _SECOND_NS, 0)
        last_s = max(int((close_ns - open_ns) // _SECOND_NS * self.end_fraction), now_s + 2)
        end_s = min(now_s + self.rng.choice(_SPANS_S), last_s)
        # Operations of the path that are still to come, and the new ones; the state contains the past ones.
        coming = [
            operation
            for operation in archived_state.operations
            if operation.day == day
            and operation.at != "second"
            and operation.n > archived_state.point_counts.get(operation.at, 0)
        ]
        added = self._choose_operations(archived_state, coming, day, now_s, end_s)
        night = any(operation.do.startswith("overnight") for operation in added) and day + 1 < len(
            self.base_schedule.days
        )
        end_at = (day, end_s)
        if night:
            end_at = (day + 1, min(self.rng.choice((60, 600, 3600)), self._searched_length_s(day + 1)))
        path = [*archived_state.operations, *added]
        player = self._make_player([*coming, *added], end_at[1], end_at[0])
        crash = ""
        try:
            continues = player.resume(archived_state.point_counts, archived_state.operations[-1])
            if night and continues:
                player.play_day(day + 1, self.base_schedule.days[day + 1])
        except Exception as problem:
            crash = f"{type(problem).__name__}: {problem}"
        self.result.operations += len(added)
        if session.guard.breaches or crash:
            self._confirm(path, crash)
            self._take_new_cells()  # cells of a failing burst have no witness
        else:
            self._note_reached(path, end_at, player)

    def _note_reached(
        self, path: list[Operation], end_at: tuple[int, int], player: Player, *, witness: bool = True
    ) -> None:
        """Archive the state when it or its path is new, and keep the schedule as a witness."""
        new, cell_names = self._take_new_cells()
        if witness:
            self._add_witness(path, end_at, cell_names)
        if new and self.session.phase == "open" and end_at[1] < self._searched_length_s(end_at[0]):
            self._archive_state(
                [*path, Operation(day=end_at[0], at="second", n=end_at[1], do="kill")], dict(player.counts)
            )

    def _add_witness(self, path: list[Operation], end_at: tuple[int, int], cell_names: set[str]) -> None:
        if cell_names:
            self.result.new_cells += len(cell_names)
            self.result.witnesses.append(
                truncate_schedule(self.base_schedule.replace(operations=path, name="reaches"), end_at)
            )

    def _take_new_cells(self) -> tuple[bool, set[str]]:
        """Return whether the last burst reached a new state, and the names of the new cells on the witness axes."""
        counter = self.session.guard.cells
        visits, transitions = self._counted_sizes
        # Both are in the order of first mention.
        passed = list(islice(counter.transitions, transitions, None))
        new_visits = list(islice(counter.visits, visits, None))
        self._counted_sizes = len(counter.visits), len(counter.transitions)
        current = ("cell", counter.cell)
        new = bool(passed) or current not in self.visited
        self.visited.update(passed, [current])
        self.result.transitions = len(counter.transitions)
        self.result.cells = len(self.visited) - self.result.transitions
        cell_names = {self._cell_names(cell) for cell in new_visits} | {
            self._cell_names(cell, label) for label, cell in passed
        }
        cell_names -= self.reached_cells
        self.reached_cells |= cell_names
        return new, cell_names

    def _choose_operations(
        self, archived_state: _ArchivedState, coming: list[Operation], day: int, now_s: int, end_s: int
    ) -> list[Operation]:
        added: list[Operation] = []
        for _ in range(self.rng.randint(1, 5)):
            kind = self.rng.choice(self._palette)
            at, number = "second", self.rng.randint(now_s + 1, max(end_s - 1, now_s + 1))
            near = self.rng.choice((3, 20, 120))
            if kind in MESSAGE_OPERATIONS:
                lost_count = sum(1 for operation in (*coming, *added) if operation.do in LOSSY_KINDS)
                unknown = (
                    sum(1 for operation in (*coming, *added) if operation.do == "not-found")
                    + self.session.venue.not_found_count
                )
                if (kind in LOSSY_KINDS and lost_count >= LOST_MAX) or (
                    kind == "not-found" and unknown >= _UNKNOWN_MAX
                ):
                    continue
                at = self.rng.choice(("in", "in", "out"))
                number = archived_state.point_counts[at] + self.rng.randint(1, near)
            elif kind.startswith("overnight"):
                if day + 1 >= len(self.base_schedule.days) or any(
                    operation.do.startswith("overnight") for operation in added
                ):
                    continue
                number = max(end_s - 1, now_s + 1)
            elif KINDS[kind].family in ("restart", "link") and self.rng.random() < 0.7:
                at = self.rng.choice(("mutation", "mutation", "delivered", "sent"))
                number = archived_state.point_counts[at] + self.rng.randint(1, near if at == "sent" else near * 4)
            numbers = [self._choose_number(name, default) for name, default in KINDS[kind].parameters]
            added.append(Operation(day=day, at=at, n=number, do=kind, with_=numbers))  # type: ignore[arg-type]
        return added

    def _choose_number(self, name: str, default: int) -> int:
        choices: dict[str, tuple[int, ...]] = {
            "down_seconds": (0, 0, 1, 30, 300),
            "mutations": (1, 2, 5, 9),
            "seconds": (1, 20, 90, 400),
            "recovery": (0, 1, 2),
            "lose_out": (0, 1),
            "milliseconds": (1, 700, 3000),
            "order": (0, 1, 2, 3),
            "account": (0, 1),
            "symbol": (0, 1),
            "side": (0, 1),
            "lots": (1, 100, 500),
            "trade": (0, 1, 5, 40),
            "ticks": (-5, -1, 1, 5),
            "strategy": (0, 1, 2),
            "freeze": (0,),
        }
        return self.rng.choice(choices.get(name, (default,)))

    # -- findings -----------------------------------------------------------------------------------------------------

    def _confirm(self, path: list[Operation], crash: str) -> None:
        """Play a failing schedule from a fresh state and record whether it fails there too."""
        session = self.session
        mark = session.guard.breaches[0].mark if session.guard.breaches else f"crash/{crash.partition(':')[0]}"
        explanation = session.guard.breaches[0].explanation if session.guard.breaches else crash
        if mark in self._reported_marks:
            return
        self._reported_marks.add(mark)
        # Keep all days: a subject may size its orders by the days of its plan.
        schedule = self.base_schedule.replace(operations=path, name=f"search found {mark}")
        play_result = play(
            schedule,
            self.directory / "confirm",
            store=self.store,
            catalogue=self.catalogue,
            journal=False,
            scratch=True,
            to_breach=True,
        )
        if play_result.mark and mark not in failure_marks(play_result):
            mark = play_result.mark  # from a fresh state another failure comes first
        confirmed = bool(play_result.mark)
        self.result.findings.append(
            SearchFinding(
                schedule=schedule.replace(expect=mark),
                mark=mark,
                explanation=explanation
                if confirmed
                else f"{explanation}; from the beginning: {play_result.mark or 'holds'}",
                confirmed=confirmed,
                burst=self.result.bursts,
                seconds=self.result.seconds,
            )
        )


__all__ = ["LOSSY_KINDS", "LOST_MAX", "SEARCH_KINDS", "SearchFinding", "Search", "SearchResult", "failure_marks"]
