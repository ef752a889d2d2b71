"""Plays a schedule: recorded days one after the other, with each operation at its place.

The same schedule gives the same journal in any process: nothing here knows the time of day or a random number.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from holdover.catalogue import Catalogue
from holdover.explore.hand import Hand
from holdover.explore.schedule import AT_MESSAGES, BadSchedule, Operation, Schedule
from holdover.harness import Killed, Session, Transition, factory_named
from holdover.harness.snapshot import Snapshot
from holdover.model import Outbound, Record
from holdover.recording import RecordingStore, bundled
from holdover.runtime import Breach

_SECOND_NS: Final = 1_000_000_000
_IN_THE_SUBJECT: Final = ("mutation", "sent", "delivered", "out")
"""Places that lie inside a call of the subject: there a kill comes in the middle of it."""


@dataclass
class Played:
    """What became of a schedule."""

    schedule: Schedule
    breaches: list[Breach] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    crash: str = ""
    mutations: int = 0
    market_events: int = 0
    done: int = 0
    journal: Path | None = None

    @property
    def verdict(self) -> str:
        """`holds`, `breach`, or `unknown` when nothing was recorded that could have been checked."""
        if self.breaches or self.crash:
            return "breach"
        return "holds" if self.mutations else "unknown"

    @property
    def mark(self) -> str:
        """What was found first: `subsystem/invariant`, or `crash/` and the exception; empty when it holds."""
        if self.breaches:
            return self.breaches[0].mark
        return f"crash/{self.crash.partition(':')[0]}" if self.crash else ""

    def journal_digest(self) -> str:
        """SHA-256 of the journal; empty when none was kept."""
        return hashlib.sha256(self.journal.read_bytes()).hexdigest() if self.journal is not None else ""


def store_for(schedule: Schedule, recordings: Path | None) -> RecordingStore:
    """The folder of recordings that has a schedule's days; without one named, the bundled days.

    Raises `BadRecording` when a day is missing and `BadSchedule` when it is there and is another one.
    """
    store = RecordingStore(recordings) if recordings else bundled()
    for one in schedule.recordings:
        found = store.get(one.symbol, one.trade_date)
        if one.digest and found.digest != one.digest:
            raise BadSchedule(
                f"{schedule.name or 'the schedule'}: {one.symbol} on {one.trade_date} is another recording than the "
                f"one it was found on ({found.digest[:12]}, should be {one.digest[:12]})"
            )
    return store


class Player:
    """Plays one schedule on a session of its own in `directory`.

    `to_breach` ends at the first breach, `until` (day, second) there, with the session as it then is; `also` hears each
    mutation, `on_place` each place as it is reached, `on_operation` each operation. `session` is there to be asked when
    it has been played (or is given, and not made); `close` it then.
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
            raise BadSchedule(f"{schedule.name or 'the schedule'}: starts from {schedule.start}, which was not given")
        self.schedule, self.to_breach = schedule, to_breach
        self.session = session or session_for(
            schedule,
            store,
            directory,
            catalogue=catalogue,
            journal=journal,
            scratch=scratch,
            settings=schedule.settings,
        )
        if snapshot is not None:
            self.session.load(snapshot.parts)
        self.hand = Hand(self.session)
        self.on_begin: Callable[[], None] | None = None
        self.also: Callable[[str, Record], None] | None = None
        self.on_place: Callable[[str], None] | None = None
        self.on_operation: Callable[[Operation], None] | None = None
        self.until: tuple[int, int] | None = None
        self._waiting: dict[tuple[str, int], list[Operation]] = {}
        self._seconds: list[Operation] = []
        self._pending: list[Operation] = []
        self.counts = {"mutation": 0, "in": 0, "out": 0, "delivered": 0, "sent": 0, "instant": 0}
        self._instants = False
        self._done = 0
        self._sending: Callable[[Outbound], None] | None = None
        self.ended = False

    def play(self) -> Played:
        """Play it to the end, or to the first breach; what the subject raises ends it, and is told."""
        session = self.session
        played = Played(self.schedule)
        before = session.guard.monitor.mutations
        begun = self.schedule.days.index(session.trade_date) + 1 if session.trade_date else 0
        try:
            if session.phase == "open" and not self._comes_up(begun - 1):
                begun = len(self.schedule.days)
            for number, day in list(enumerate(self.schedule.days))[begun:]:
                if not self._day(number, day):
                    break
        except Exception as problem:
            played.crash = f"{type(problem).__name__}: {problem}"
        played.breaches = list(session.guard.breaches)
        played.transitions = list(session.transitions)
        played.mutations = session.guard.monitor.mutations - before
        played.market_events = session.market_events
        played.done = self._done
        if session.guard.journal is not None:
            session.guard.journal.flush()
            played.journal = session.guard.journal.path
        return played

    def close(self) -> None:
        """Let go of the session."""
        self.session.close()

    # -- a day ----------------------------------------------------------------------------------------------------

    def day(self, number: int, day: str) -> bool:
        """Play one day by itself, with the night after it; False when that was the end of it all."""
        return self._day(number, day)

    def resume(self, counts: dict[str, int], operation: Operation | None = None) -> bool:
        """Go on in the middle of a day, in a session that stands where these many places had been passed.

        `operation` is the restart with which the subject comes up first. Returns False when that day ended it all.
        """
        number = self.schedule.days.index(self.session.trade_date)
        return self._day(number, self.session.trade_date, counts, operation)

    def _comes_up(self, number: int) -> bool:
        """Go on from a snapshot inside a day, at which the subject was down: it comes up first."""
        up = Operation(day=number, at="second", n=0, do="kill")
        return self._day(number, self.session.trade_date, dict.fromkeys(self.counts, 0), up)

    def _day(self, number: int, day: str, counts: dict[str, int] | None = None, first: Operation | None = None) -> bool:
        session = self.session
        self._lay_out(number, counts)
        session.on_record = None
        if counts is None:
            session.begin(day)
        elif first is not None:
            self._pending.append(first)
        session.on_record = self._mutation
        session.link.on_launch, session.link.on_deliver = self._launched, self._delivered
        sending = self._sending = session.link.on_send

        def sent(message: Outbound) -> None:
            if sending is not None:
                sending(message)
            self._reached("sent")

        session.link.on_send = sent
        try:
            if self.on_begin is not None:
                self.on_begin()
            if self._run_day(number):
                self._deaf()
                session.end()
                session.overnight()
        finally:
            self._deaf()
        return not (self.to_breach and session.guard.breaches) and not self.ended

    def _deaf(self) -> None:
        """The day's places are over: what the close brings counts no more."""
        session = self.session
        session.on_record = session.link.on_launch = session.link.on_deliver = None
        session.link.on_send = self._sending

    def _lay_out(self, number: int, counts: dict[str, int] | None = None) -> None:
        self.ended = False
        self.counts = dict(counts) if counts is not None else dict.fromkeys(self.counts, 0)
        self._waiting, self._pending = {}, []
        self._instants = any(one.day == number and one.at == "instant" for one in self.schedule.operations)
        today = [one for one in self.schedule.operations if one.day == number]
        self._seconds = sorted((one for one in today if one.at == "second"), key=lambda one: one.n)
        for one in today:
            if one.at != "second":
                self._waiting.setdefault((one.at, one.n), []).append(one)

    def _run_day(self, number: int) -> bool:
        """Run to the close; False when the day has been ended on the way, or something ends it all."""
        session = self.session
        open_ns, close_ns = session.hours()
        if self.until is not None and self.until[0] == number:
            close_ns = min(open_ns + self.until[1] * _SECOND_NS, close_ns)
            self.ended = True
        while True:
            while self._pending:
                if not self._between(self._pending.pop(0)):
                    return False
            if self.to_breach and session.guard.breaches:
                return False
            next_ns = open_ns + self._seconds[0].n * _SECOND_NS if self._seconds else close_ns
            try:
                session.play(min(max(next_ns, session.clock.now_ns), close_ns))
            except Killed:
                session.bury()
                session.stop()
            if not session.stopped:
                if not self._seconds or next_ns >= close_ns:
                    return not (self.to_breach and session.guard.breaches) and not self.ended
                self._told(self._seconds[0])
                self._pending.append(self._seconds.pop(0))
            elif self._instants:
                self._reached("instant")

    # -- at a place -----------------------------------------------------------------------------------------------

    def _mutation(self, subsystem: str, record: Record) -> None:
        if self.also is not None:
            self.also(subsystem, record)
        self._reached("mutation")
        if self.to_breach and self.session.guard.breaches:
            self.session.stop()

    def _launched(self, direction: str) -> None:
        self._reached(direction)

    def _delivered(self, direction: str) -> None:
        if direction == "in":
            self._reached("delivered")

    def _reached(self, place: str) -> None:
        self.counts[place] += 1
        if self.on_place is not None:
            self.on_place(place)
        if not self._waiting:
            return
        if self._instants:
            self.session.stop()
        for one in self._waiting.pop((place, self.counts[place]), ()):
            self._told(one)
            if one.do in AT_MESSAGES:
                self._done += 1
                self.hand.to_the_message(one, place)
            elif one.do == "disconnect":
                self._done += 1
                self.hand.cut(one)
            else:
                self._pending.append(one)
                if one.kind.family == "restart" and one.do not in ("clean", "upgrade") and place in _IN_THE_SUBJECT:
                    self.session.die()
                self.session.stop()

    def _told(self, one: Operation) -> None:
        if self.on_operation is not None:
            self.on_operation(one)

    def _between(self, one: Operation) -> bool:
        """Do what is done between two events; False when it has ended the day."""
        session = self.session
        if session.subject is None and one.kind.family != "restart" and one.do != "overnight-down":
            try:
                session.restart("kill")
            except Killed:  # coming up: this one is done when what brings it up again has been
                session.bury()
                self._pending.append(one)
                return True
        self._done += 1
        if one.do in ("overnight", "overnight-down"):
            if one.do == "overnight-down" and session.subject is not None:
                session.bury()
            self._deaf()
            session.end(now=True)
            session.overnight()
            return False
        try:
            if one.do == "disconnect":
                self.hand.cut(one)
            elif one.kind.family == "restart":
                self.hand.restart(one)
            elif one.do not in AT_MESSAGES:
                self.hand.idle(one)
        except Killed:  # in the middle of it; what brings the subject up again is pending
            session.bury()
        return True


class Stage(Protocol):
    """What a session is made for: a schedule, or the ground of a sweep."""

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


def session_for(
    stage: Stage,
    store: RecordingStore,
    directory: Path,
    *,
    catalogue: Catalogue | None = None,
    journal: bool = True,
    scratch: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Session:
    """A session for a schedule or a ground, in a directory that is emptied first; `settings` go to the subject."""
    if directory.exists():
        shutil.rmtree(directory)
    return Session(
        factory_named(stage.subject),
        store,
        stage.symbols,
        directory,
        days=stage.days,
        seed=stage.seed,
        faults=stage.faults,
        catalogue=catalogue,
        settings=settings,
        journal=journal,
        scratch=scratch,
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
) -> Played:
    """Play a schedule in a directory and let go of everything but its files."""
    player = Player(
        schedule,
        store or store_for(schedule, recordings),
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


def marks_of(played: Played) -> list[str]:
    """What a schedule breached, as `subsystem/invariant`, in the order of finding; a crash is `crash/` and its kind."""
    found = [one.mark for one in played.breaches]
    if played.crash:
        found.append(f"crash/{played.crash.partition(':')[0]}")
    return list(dict.fromkeys(found))
