"""Plays a schedule: its recorded days in order, with each operation at its point.

The same schedule gives the same journal in every process: the player uses no wall-clock time and no random
numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from holdover.catalogue import Catalogue
from holdover.harness.operations import DayOperations
from holdover.harness.schedule import Operation, PointKind, Schedule, ScheduleError, bind_schedule, open_store_for
from holdover.harness.session import Session, SessionConfig, Transition
from holdover.harness.snapshot import Snapshot
from holdover.harness.subject import SubjectKilledError, resolve_factory
from holdover.model import Outbound, Record
from holdover.recording import RecordingStore
from holdover.runtime import Breach
from holdover.runtime.files import renew_output_directory

_SECOND_NS: Final = 1_000_000_000


@dataclass
class PlayResult:
    """The result of playing a schedule."""

    schedule: Schedule
    breaches: list[Breach] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    crash: str = ""
    mutations: int = 0
    market_events: int = 0
    operations_done: int = 0
    journal: Path | None = None

    @property
    def verdict(self) -> str:
        """Return `breach`, `holds`, or `unknown` when there was no mutation to check."""
        if self.breaches or self.crash:
            return "breach"
        return "holds" if self.mutations else "unknown"

    @property
    def mark(self) -> str:
        """Return the first failure: `subsystem/invariant`, or `crash/` and the exception; empty when all holds."""
        if self.breaches:
            return self.breaches[0].mark
        return f"crash/{self.crash.partition(':')[0]}" if self.crash else ""

    def journal_digest(self) -> str:
        """Return the SHA-256 of the journal; empty when none was written."""
        return hashlib.sha256(self.journal.read_bytes()).hexdigest() if self.journal is not None else ""


class MarketSlices:
    """Cuts a day into slices of `length_ns` from the open, for an observer of a run.

    `before` receives the end of each slice, ns, and whether it is the close; `after` is called when it has run.
    """

    def __init__(self, length_ns: int, before: Callable[[int, bool], None], after: Callable[[], None]) -> None:
        if length_ns <= 0:
            raise ValueError(f"a slice of {length_ns} ns, should be longer than 0")
        self.length_ns, self.before, self.after = length_ns, before, after

    def next_end_ns(self, open_ns: int, now_ns: int) -> int:
        """Return the end of the slice that is running at a time; what comes before the open is a slice of its own."""
        return open_ns if now_ns < open_ns else now_ns + self.length_ns - (now_ns - open_ns) % self.length_ns


class Player:
    """Plays one schedule in its own session, whose files are in `directory`.

    `to_breach` stops at the first breach; `end_at` (day, second) stops there. `on_mutation` receives each
    mutation, `on_point` each point, `operations.on_operation` each operation; `slices` cuts the days for an observer.
    Points do not count while a day begins and ends. After `play`, inspect `session`, then call `close`. Raises
    `ScheduleError` when the schedule starts from a snapshot and none is given.
    """

    def __init__(
        self,
        schedule: Schedule,
        store: RecordingStore,
        directory: Path,
        *,
        catalogue: Catalogue | None = None,
        snapshot: Snapshot | None = None,
        journal: bool = True,
        scratch: bool = False,
        to_breach: bool = False,
        session: Session | None = None,
    ) -> None:
        if schedule.start != "fresh" and snapshot is None and session is None:
            raise ScheduleError(f"{schedule.name or 'the schedule'}: starts from {schedule.start}, which was not given")
        self.schedule, self.to_breach = bind_schedule(schedule, store), to_breach
        self.session = session or make_session(
            self.schedule,
            store,
            directory,
            catalogue=catalogue,
            journal=journal,
            scratch=scratch,
            settings=schedule.settings,
        )
        if snapshot is not None:
            self.session.restore(snapshot.parts)
        self.operations = DayOperations(self.session, self._end_day)
        self.on_begin: Callable[[], None] | None = None
        self.on_mutation: Callable[[str, Record], None] | None = None
        self.on_point: Callable[[str], None] | None = None
        self.slices: MarketSlices | None = None
        self.end_at: tuple[int, int] | None = None
        self._link_on_send: Callable[[Outbound], None] | None = None
        self.is_ended = False

    @property
    def counts(self) -> dict[str, int]:
        """The points of each kind that the current day has passed."""
        return self.operations.counts

    def play(self) -> PlayResult:
        """Play to the end, or to the first breach. An exception of the subject ends it and is in the result."""
        session = self.session
        play_result = PlayResult(self.schedule)
        before = session.guard.monitor.mutations
        first_day = self.schedule.days.index(session.trade_date) + 1 if session.trade_date else 0
        try:
            if session.phase == "open" and not self._start_subject(first_day - 1):
                first_day = len(self.schedule.days)
            for number, day in list(enumerate(self.schedule.days))[first_day:]:
                if not self._play_day(number, day):
                    break
        except Exception as problem:
            play_result.crash = f"{type(problem).__name__}: {problem}"
        play_result.breaches = list(session.guard.breaches)
        play_result.transitions = list(session.transitions)
        play_result.mutations = session.guard.monitor.mutations - before
        play_result.market_events = session.player.market_events
        play_result.operations_done = self.operations.done_count
        if session.guard.journal is not None:
            session.guard.journal.flush()
            play_result.journal = session.guard.journal.path
        return play_result

    def resolved_schedule(self) -> Schedule:
        """Return the played schedule with plain points only: each operation where it happened in this run.

        An operation whose point has a fraction or a selection, and that did not happen, is left out.
        """
        plain = [operation for operation in self.schedule.operations if operation.is_plain]
        return self.schedule.replace(operations=[*plain, *self.operations.resolved])

    def close(self) -> None:
        """Close the session."""
        self.session.close()

    # -- a day ----------------------------------------------------------------------------------------------------

    def play_day(self, number: int, day: str) -> bool:
        """Play one day and the night after it; returns False when the run is over."""
        return self._play_day(number, day)

    def resume(self, counts: dict[str, int], operation: Operation | None = None) -> bool:
        """Continue in the middle of a day, in a session that has passed `counts` points of each kind.

        `operation` is the restart that starts the subject first. Returns False when the run is over.
        """
        number = self.schedule.days.index(self.session.trade_date)
        return self._play_day(number, self.session.trade_date, counts, operation)

    def _start_subject(self, number: int) -> bool:
        """Start the subject of a snapshot that was taken during a day, while the subject was down."""
        restart = Operation(day=number, at="second", n=0, do="kill")
        return self._play_day(number, self.session.trade_date, dict.fromkeys(self.counts, 0), restart)

    def _play_day(
        self, number: int, day: str, counts: dict[str, int] | None = None, first: Operation | None = None
    ) -> bool:
        session = self.session
        self.is_ended = False
        session.host.on_record = self.on_mutation
        if counts is None:
            session.begin(day)
        self.operations.plan((operation for operation in self.schedule.operations if operation.day == number), counts)
        if first is not None:
            self.operations.add_due(first)
        session.host.on_record = self._on_mutation
        session.link.on_launch, session.link.on_deliver = self._on_launch, self._on_deliver
        sending = self._link_on_send = session.link.on_send

        def on_send(message: Outbound) -> None:
            if sending is not None:
                sending(message)
            self._on_point("sent")

        session.link.on_send = on_send
        try:
            if self.on_begin is not None:
                self.on_begin()
            if self._run_day(number):
                self._end_day(False)
        finally:
            self._unhook()
        return not (self.to_breach and session.guard.breaches) and not self.is_ended

    def _unhook(self) -> None:
        """Stop counting points: the end of the day is not part of them."""
        session = self.session
        session.host.on_record = self.on_mutation
        session.link.on_launch = session.link.on_deliver = None
        session.link.on_send = self._link_on_send

    def _end_day(self, immediately: bool) -> None:
        """End the day and run the night after it."""
        self._unhook()
        self.session.end(immediately=immediately)
        self.session.overnight(self.operations.runner.take_splits())

    def _run_day(self, number: int) -> bool:
        """Run to the close; returns False when an operation ended the day, or the run is over."""
        session, operations = self.session, self.operations
        open_ns, close_ns = session.hours()
        if self.end_at is not None and self.end_at[0] == number:
            close_ns = min(open_ns + self.end_at[1] * _SECOND_NS, close_ns)
            self.is_ended = True
        while True:
            if not operations.perform_due() or (self.to_breach and session.guard.breaches):
                return False
            time_ns = operations.next_time_ns(close_ns)
            try:
                self._play_to(max(close_ns if time_ns is None else time_ns, session.clock.now_ns), close_ns)
            except SubjectKilledError:
                session.trials.discard_subject()
                session.stop()
            if not session.is_stopped:
                if time_ns is None:
                    return not (self.to_breach and session.guard.breaches) and not self.is_ended
                operations.start_next_timed()
            elif operations.has_instants:
                self._on_point("instant")

    def _play_to(self, until_ns: int, close_ns: int) -> None:
        """Run the market to a time; with `slices`, slice by slice."""
        session, slices = self.session, self.slices
        end_ns = min(until_ns, close_ns)
        if slices is None:
            session.play(end_ns)
            return
        while True:
            slice_end_ns = min(end_ns, slices.next_end_ns(session.hours()[0], session.clock.now_ns))
            slices.before(slice_end_ns, slice_end_ns == close_ns)
            session.play(slice_end_ns)
            slices.after()
            if session.is_stopped or slice_end_ns >= end_ns:
                return

    # -- at a point -----------------------------------------------------------------------------------------------

    def _on_mutation(self, subsystem: str, record: Record) -> None:
        if self.on_mutation is not None:
            self.on_mutation(subsystem, record)
        if self.on_point is not None:
            self.on_point("mutation")
        self.operations.pass_point("mutation", subsystem, record)
        if self.to_breach and self.session.guard.breaches:
            self.session.stop()

    def _on_launch(self, direction: str) -> None:
        self._on_point("in" if direction == "in" else "out")

    def _on_deliver(self, direction: str) -> None:
        if direction == "in":
            self._on_point("delivered")

    def _on_point(self, point_kind: PointKind) -> None:
        if self.on_point is not None:
            self.on_point(point_kind)
        self.operations.pass_point(point_kind)


class SessionSpec(Protocol):
    """The specification of a session: a schedule, or the specification of a sweep."""

    @property
    def subject(self) -> str:
        """The subject's name."""

    @property
    def symbols(self) -> list[str]:
        """The instruments."""

    @property
    def days(self) -> list[str]:
        """The trading days."""

    @property
    def seed(self) -> int:
        """The seed."""

    @property
    def faults(self) -> list[str]:
        """The seeded faults to switch on."""


def make_session(
    spec: SessionSpec,
    store: RecordingStore,
    directory: Path,
    *,
    catalogue: Catalogue | None = None,
    journal: bool = True,
    scratch: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Session:
    """Make a session for a specification in an emptied directory; `settings` go to the subject.

    Raises `OutputDirectoryError` when the directory has content that Holdover did not write.
    """
    renew_output_directory(directory)
    return Session(
        resolve_factory(spec.subject),
        store,
        spec.symbols,
        directory,
        SessionConfig(
            days=spec.days,
            seed=spec.seed,
            faults=spec.faults,
            catalogue=catalogue,
            settings=settings,
            journal=journal,
            scratch=scratch,
        ),
    )


def play(
    schedule: Schedule,
    directory: Path,
    *,
    recordings: Path | None = None,
    store: RecordingStore | None = None,
    catalogue: Catalogue | None = None,
    snapshot: Snapshot | None = None,
    journal: bool = True,
    scratch: bool = False,
    to_breach: bool = False,
) -> PlayResult:
    """Play a schedule in a directory, close the session and return the result."""
    player = Player(
        schedule,
        store or open_store_for(schedule, recordings),
        directory,
        catalogue=catalogue,
        snapshot=snapshot,
        journal=journal,
        scratch=scratch,
        to_breach=to_breach,
    )
    try:
        return player.play()
    finally:
        player.close()


def failure_marks(play_result: PlayResult) -> list[str]:
    """Return the failures of a run in order, as `subsystem/invariant` or `crash/` and the exception."""
    marks = [breach.mark for breach in play_result.breaches]
    if play_result.crash:
        marks.append(f"crash/{play_result.crash.partition(':')[0]}")
    return list(dict.fromkeys(marks))
