"""Plays a schedule: its recorded days in order, with each operation at its point.

The same schedule gives the same journal in every process: the player uses no wall-clock time and no random
numbers.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from holdover.catalogue import Catalogue
from holdover.explore.operations import OperationRunner
from holdover.explore.schedule import MESSAGE_OPERATIONS, Operation, Schedule, ScheduleError
from holdover.harness import Session, SessionConfig, SubjectKilledError, Transition, resolve_factory
from holdover.harness.snapshot import Snapshot
from holdover.model import Outbound, Record
from holdover.recording import RecordingStore, bundled_store
from holdover.runtime import Breach

_SECOND_NS: Final = 1_000_000_000
_SUBJECT_POINT_KINDS: Final = ("mutation", "sent", "delivered", "out")
"""Points inside a call of the subject: a kill there interrupts the call."""


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
        """Return the first failure: `subsystem/invariant`, or `crash/` and the exception; empty without a failure."""
        if self.breaches:
            return self.breaches[0].mark
        return f"crash/{self.crash.partition(':')[0]}" if self.crash else ""

    def journal_digest(self) -> str:
        """Return the SHA-256 of the journal; empty when none was written."""
        return hashlib.sha256(self.journal.read_bytes()).hexdigest() if self.journal is not None else ""


def open_store_for(schedule: Schedule, recordings: Path | None) -> RecordingStore:
    """Open the recordings of a schedule: the given folder, or the bundled ones.

    Raises `RecordingError` when a day is missing and `ScheduleError` when a day has another digest.
    """
    store = RecordingStore(recordings) if recordings else bundled_store()
    for recorded_day in schedule.recordings:
        recording = store.get(recorded_day.symbol, recorded_day.trade_date)
        if recorded_day.digest and recording.digest != recorded_day.digest:
            raise ScheduleError(
                f"{schedule.name or 'the schedule'}: {recorded_day.symbol} on {recorded_day.trade_date} is "
                f"another recording than the one it was found on ({recording.digest[:12]}, "
                f"should be {recorded_day.digest[:12]})"
            )
    return store


class Player:
    """Plays one schedule in its own session, whose files are in `directory`.

    `to_breach` stops at the first breach; `end_at` (day, second) stops there. `on_mutation` receives each
    mutation, `on_point` each point and `on_operation` each operation. After `play`, inspect `session`, then call
    `close`. Raises `ScheduleError` when the schedule starts from a snapshot and none is given.
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
        self.schedule, self.to_breach = schedule, to_breach
        self.session = session or make_session(
            schedule,
            store,
            directory,
            catalogue=catalogue,
            journal=journal,
            scratch=scratch,
            settings=schedule.settings,
        )
        if snapshot is not None:
            self.session.restore(snapshot.parts)
        self.operation_runner = OperationRunner(self.session)
        self.on_begin: Callable[[], None] | None = None
        self.on_mutation: Callable[[str, Record], None] | None = None
        self.on_point: Callable[[str], None] | None = None
        self.on_operation: Callable[[Operation], None] | None = None
        self.end_at: tuple[int, int] | None = None
        self._waiting_operations: dict[tuple[str, int], list[Operation]] = {}
        self._timed_operations: list[Operation] = []
        self._pending_operations: list[Operation] = []
        self.counts = {"mutation": 0, "in": 0, "out": 0, "delivered": 0, "sent": 0, "instant": 0}
        self._has_instants = False
        self._operations_done = 0
        self._link_on_send: Callable[[Outbound], None] | None = None
        self.is_ended = False

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
        play_result.operations_done = self._operations_done
        if session.guard.journal is not None:
            session.guard.journal.flush()
            play_result.journal = session.guard.journal.path
        return play_result

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
        self._plan_day(number, counts)
        session.host.on_record = None
        if counts is None:
            session.begin(day)
        elif first is not None:
            self._pending_operations.append(first)
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
                self._unhook()
                session.end()
                session.overnight()
        finally:
            self._unhook()
        return not (self.to_breach and session.guard.breaches) and not self.is_ended

    def _unhook(self) -> None:
        """Stop counting points: the end of the day is not part of them."""
        session = self.session
        session.host.on_record = session.link.on_launch = session.link.on_deliver = None
        session.link.on_send = self._link_on_send

    def _plan_day(self, number: int, counts: dict[str, int] | None = None) -> None:
        self.is_ended = False
        self.counts = dict(counts) if counts is not None else dict.fromkeys(self.counts, 0)
        self._waiting_operations, self._pending_operations = {}, []
        self._has_instants = any(
            operation.day == number and operation.at == "instant" for operation in self.schedule.operations
        )
        today = [operation for operation in self.schedule.operations if operation.day == number]
        self._timed_operations = sorted(
            (operation for operation in today if operation.at == "second"), key=lambda operation: operation.n
        )
        for operation in today:
            if operation.at != "second":
                self._waiting_operations.setdefault((operation.at, operation.n), []).append(operation)

    def _run_day(self, number: int) -> bool:
        """Run to the close; returns False when an operation ended the day, or the run is over."""
        session = self.session
        open_ns, close_ns = session.hours()
        if self.end_at is not None and self.end_at[0] == number:
            close_ns = min(open_ns + self.end_at[1] * _SECOND_NS, close_ns)
            self.is_ended = True
        while True:
            while self._pending_operations:
                if not self._run_between_events(self._pending_operations.pop(0)):
                    return False
            if self.to_breach and session.guard.breaches:
                return False
            next_ns = open_ns + self._timed_operations[0].n * _SECOND_NS if self._timed_operations else close_ns
            try:
                session.play(min(max(next_ns, session.clock.now_ns), close_ns))
            except SubjectKilledError:
                session.trials.discard_subject()
                session.stop()
            if not session.is_stopped:
                if not self._timed_operations or next_ns >= close_ns:
                    return not (self.to_breach and session.guard.breaches) and not self.is_ended
                self._notify_operation(self._timed_operations[0])
                self._pending_operations.append(self._timed_operations.pop(0))
            elif self._has_instants:
                self._on_point("instant")

    # -- at a point -----------------------------------------------------------------------------------------------

    def _on_mutation(self, subsystem: str, record: Record) -> None:
        if self.on_mutation is not None:
            self.on_mutation(subsystem, record)
        self._on_point("mutation")
        if self.to_breach and self.session.guard.breaches:
            self.session.stop()

    def _on_launch(self, direction: str) -> None:
        self._on_point(direction)

    def _on_deliver(self, direction: str) -> None:
        if direction == "in":
            self._on_point("delivered")

    def _on_point(self, point_kind: str) -> None:
        self.counts[point_kind] += 1
        if self.on_point is not None:
            self.on_point(point_kind)
        if not self._waiting_operations:
            return
        if self._has_instants:
            self.session.stop()
        for operation in self._waiting_operations.pop((point_kind, self.counts[point_kind]), ()):
            self._notify_operation(operation)
            if operation.do in MESSAGE_OPERATIONS:
                self._operations_done += 1
                self.operation_runner.apply_to_message(operation, point_kind)
            elif operation.do == "disconnect":
                self._operations_done += 1
                self.operation_runner.drop_link(operation)
            else:
                self._pending_operations.append(operation)
                if (
                    operation.kind.family == "restart"
                    and operation.do not in ("clean", "upgrade")
                    and point_kind in _SUBJECT_POINT_KINDS
                ):
                    self.session.trials.kill()
                self.session.stop()

    def _notify_operation(self, operation: Operation) -> None:
        if self.on_operation is not None:
            self.on_operation(operation)

    def _run_between_events(self, operation: Operation) -> bool:
        """Perform an operation between two events; returns False when it ended the day."""
        session = self.session
        if session.subject is None and operation.kind.family != "restart" and operation.do != "overnight-down":
            try:
                session.restart("kill")
            except SubjectKilledError:  # killed again while it started: do the operation after the next start
                session.trials.discard_subject()
                self._pending_operations.append(operation)
                return True
        self._operations_done += 1
        if operation.do in ("overnight", "overnight-down"):
            if operation.do == "overnight-down" and session.subject is not None:
                session.trials.discard_subject()
            self._unhook()
            session.end(immediately=True)
            session.overnight()
            return False
        try:
            if operation.do == "disconnect":
                self.operation_runner.drop_link(operation)
            elif operation.kind.family == "restart":
                self.operation_runner.restart_subject(operation)
            elif operation.do not in MESSAGE_OPERATIONS:
                self.operation_runner.run_between_events(operation)
        except SubjectKilledError:  # killed during the operation; the restart is pending
            session.trials.discard_subject()
        return True


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
    """Make a session for a specification in an emptied directory; `settings` go to the subject."""
    if directory.exists():
        shutil.rmtree(directory)
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
