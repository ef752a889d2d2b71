"""A candidate that is run here, live, on what the incumbent gets: market data and the reports of its orders.

Its orders go to a simulated venue, which answers them as the incumbent's were answered (`world/mirror.py`). The time of
its world is that of the feed: the time stamp of the most timely event so far, carried on by the monotonic clock, so
that neither a silent feed nor a jump of the host's clock moves it wrongly. All that comes in is on the disk before
anything is made of it. A shadow that was killed plays its day again from the state that the day began with, in no time
that anybody counts, and goes on: its own kill is nothing that happens to the candidate.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.harness.live import DaysToCome, LiveSession
from holdover.harness.snapshot import Snapshot, take
from holdover.harness.subject import Factory
from holdover.recording import MarketEvent
from holdover.recording.calendar import session_at
from holdover.recording.format import QUOTE
from holdover.shadow.config import BadShadow, ShadowConfig
from holdover.shadow.divergence import BadComparison, Window
from holdover.shadow.feeds import MarketReader, Told
from holdover.shadow.ground import (
    INPUTS,
    begins_with,
    components_of,
    feeds_of,
    hours_of,
    instruments_of,
    traded,
    try_subject,
    venue_of,
)
from holdover.shadow.incumbent import BadReport, Incumbent, told_at
from holdover.shadow.inputs import Began, Inputs, Item, Timed
from holdover.shadow.life import Counts, Journalled, Life, Uncounted, alone
from holdover.shadow.probe import Probes
from holdover.shadow.run import COMPARE_EVERY_S, NOTES, compared
from holdover.shadow.state import BadState, Compared
from holdover.watch.tail import Tail
from holdover.world import Mirror

DAYS: Final = "days"
COPY: Final = "copy"
_LEAD_NS: Final = 30_000_000_000
_FAR_NS: Final = 30 * 86_400_000_000_000
"""No exchange is shut for so long: what tells a time so far ahead tells a wrong one."""


class _Arm:
    """One copy of the candidate: its sessions, one a day, a directory for each life of each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.session: LiveSession | None = None
        self.place = root

    def begin(self, trade_date: str) -> Path:
        """A directory for another life of a day. What an earlier one left stays: its guard's audit is in it."""
        day = self.root / trade_date
        self.place = day / f"{len(list(day.glob('[0-9]*'))) + 1:03d}"
        self.place.mkdir(parents=True)
        return self.place

    @property
    def journals(self) -> list[Path]:
        """Every day's journal, of its last life."""
        days = sorted(day for day in self.root.glob("????-??-??"))
        return [max(day.glob("[0-9]*")) / "journal.jsonl" for day in days]


class Live:
    """See the module. `once` takes what has come in; `close` is the end of this life in good order.

    Raises `BadShadow`, `BadState`, `BadRecording`, `BadSnapshot`, `StoreProblem`, `BadSource`.
    """

    def __init__(
        self,
        config: ShadowConfig,
        factory: Factory,
        *,
        catalogue: Catalogue | None = None,
        monotonic: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self.config, self.factory, self.catalogue, self.monotonic = config, factory, catalogue, monotonic
        self.instruments = instruments_of(config)
        self.days = DaysToCome(self.instruments, traded(config, self.instruments), partial(hours_of, config))
        try_subject(config, factory, self.days, self.instruments, self._session_at(wall()))
        symbols = [one.symbol for one in self.instruments]
        self.life = Life(
            config,
            components=components_of(config),
            monotonic=monotonic,
            wall=wall,
            kind="run live",
            instruments=symbols,
        )
        self.life.state.subject = config.candidate.subject
        self.inputs = Inputs(config.directory / INPUTS)
        self.arms = [_Arm(config.directory / DAYS)]
        if config.divergence.copy:
            self.arms.append(_Arm(config.directory / COPY))
        self.trade_date = ""
        self._began = Began()
        self._now = self._open = self._end = 0
        self._ahead: int | None = None
        self._horizon = sys.maxsize
        self._market = MarketReader(self.instruments)
        self._incumbent = Incumbent({one.symbol: one for one in self.instruments})
        self._waiting: list[Timed] = []
        self._uncounted = 0
        self._early: dict[int, MarketEvent] = {}
        self._seqs: dict[int, int] = {}
        self._replaying = False
        self._into: Counts = self.life
        self._journal = Journalled(self.life, nights=False)
        self._tail: Tail | None = None
        self._tail_line = 0
        self._problem = ""
        self._looked: int | None = None
        self._compared: int | None = None
        self._comparing: threading.Thread | None = None
        self._comparison: Compared | BadComparison | None = None
        self._probes = Probes(config.components)
        self._notes = Tail(config.directory / NOTES, self.life.state.places.get("notes"))
        places = self.inputs.places()
        try:
            self.feeds = feeds_of(config, self.instruments, places)
        except msgspec.MsgspecError as problem:
            raise BadState(
                f"{config.directory / INPUTS}: where a source of [input] stood cannot be read ({problem}): it was "
                f"another kind of source, or the file is damaged"
            ) from problem
        self._waiting = self.inputs.waiting()
        if not places and config.input.begin == "now":
            for feed in self.feeds.values():
                feed.skip()
        self._recover()

    # -- what comes in ------------------------------------------------------------------------------------------

    def once(self) -> bool:
        """Take what has come in, let its time pass; whether anything had. Looks at everything when that is due."""
        new, self._horizon = self._read()
        known = self._waiting if self._ahead is None else []
        if known or new:
            self._hear([item for _, item in [*known, *new]])
        self._waiting = sorted([*self._waiting, *new], key=lambda one: one[0])
        if self.trade_date:  # which day it is, only the market says
            due = [item for time_ns, item in self._waiting if time_ns <= self._horizon]
            while due:
                taken = self._until_the_end(due)
                due = due[len(taken) :]
                self._waiting = self._waiting[len(taken) :]
                self._take(taken, {name: feed.place for name, feed in self.feeds.items()})
            if not new and self._ahead is not None:
                self._take([], {})
        now = self.monotonic()
        if self._looked is None or now - self._looked >= self.config.clock.tick_s * 1e9:
            self._looked = now
            self._look()
        return bool(new)

    def _read(self) -> tuple[list[Timed], int]:
        """What has come in, with the times that it tells, and up to which time all of it is here.

        Behind a backlog the sources are read side by side: none runs ahead of another.
        """
        found: list[Timed] = []
        horizon = sys.maxsize
        for name, feed in self.feeds.items():
            mine = [time_ns for time_ns, item in self._waiting if (item.kind == "r") == (name == "incumbent")]
            if mine and self.trade_date:
                horizon = min(horizon, mine[-1])  # what it has behind that is not known yet
                continue
            timed = self._timed(feed.read())
            if feed.behind and timed:
                horizon = min(horizon, timed[-1][0])
            found += timed
        return found, horizon

    def _timed(self, items: list[Item]) -> list[Timed]:
        """With the time that each tells; one that tells none stays behind the one before it."""
        found: list[Timed] = []
        last = 0
        for item in items:
            if item.kind != "r":
                last = max(last, self._told(item, last).time_ns)
            elif told := told_at(item.data):
                last = max(last, told)
            elif not last:
                last = sys.maxsize  # when all that came in with it has been taken
            found.append((last, item))
        return found

    def _told(self, item: Item, after_ns: int = 0) -> Told:
        """What an item of market data says; where it says a time that cannot be yet, only that."""
        told = self._market.read(item)
        before = max(after_ns, self._now)
        if before and told.time_ns > before + _FAR_NS:
            return Told(0, problem=f"market data of {(told.time_ns - before) // 86_400_000_000_000} days ahead")
        return told

    def _hear(self, items: Sequence[Item]) -> None:
        """Which components are alive, and what time it is at the most timely event."""
        mono = self.monotonic()
        if any(item.kind == "r" for item in items) and "incumbent" in self.life.components.names:
            self.life.components.heard("incumbent", mono)
        times: list[int] = []
        latest = 0
        for item in items:
            if item.kind != "r" and (told := self._told(item, latest).time_ns):
                times.append(told)
                latest = max(latest, told)
        if times:
            self.life.components.heard("market data", mono)
            ahead = max(times) - mono
            self._ahead = ahead if self._ahead is None else max(self._ahead, ahead)
            if not self.trade_date:
                self._name_day(self._session_at(min(times)))
                self._began = self._first()
                self.inputs.begin(self.trade_date, self._began, self.config.input.keep_days)

    def _until_the_end(self, items: list[Item]) -> list[Item]:
        """The items of the running day: up to the first event after its end."""
        for number, item in enumerate(items):
            if item.kind != "r" and self._told(item).time_ns >= self._end:
                return items[:number] if number else self._ended_before(item)
        return items

    def _ended_before(self, item: Item) -> list[Item]:
        """The running day is over and nothing more of it has come: it ends, and the item is one of the next."""
        time_ns = self._told(item).time_ns
        while time_ns >= self._end:
            self._take([], {}, now_ns=self._end)
        return [item]

    def _take(self, items: list[Item], places: dict[str, bytes], *, now_ns: int | None = None) -> None:
        """Write down what has come in, then let it come about."""
        if now_ns is None:
            # Behind a backlog it is not yet as late as it will be when that has been read.
            now_ns = min(self.monotonic() + (self._ahead or 0), self._end, self._horizon)
        now_ns = max(now_ns, self._now)
        if not items and not places and now_ns == self._now:
            return
        number = self.inputs.add(self.trade_date, now_ns, items, places, self._waiting)
        self._apply(number, now_ns, items)

    def _apply(self, number: int, now_ns: int, items: Sequence[Item]) -> None:
        for item in items:
            if item.kind == "r":
                self._report(item, now_ns)
            elif item.kind == "g":
                self._store(item)
            else:
                self._event(item)
        self._now = max(self._now, now_ns)
        self._play()
        self.life.state.batch = max(self.life.state.batch, number)
        if self._now >= self._end:
            self._end_day()

    def _event(self, item: Item) -> None:
        told = self._told(item)
        if told.problem:
            self._into.fault("gap", told.problem, "market data")
        self._now = max(self._now, told.time_ns)
        if told.event is None:
            return
        number = told.event[1]
        before = self._seqs.get(number, 0)
        if told.seq:
            self._seqs[number] = told.seq
            if before and told.seq > before + 1:
                symbol = self.instruments[number].symbol
                self._into.fault("gap", f"{symbol}: {told.seq} came after {before}", "market data")
        self._into.state.market_events += 1
        self._begin_if_due()
        if self.arms[0].session is None:
            if told.event[2] == QUOTE:
                self._early[number] = told.event
            return
        for arm in self.arms:
            if arm.session is not None:
                arm.session.market(told.event)

    def _report(self, item: Item, now_ns: int) -> None:
        try:
            found = self._incumbent.line(item.data)
        except BadReport as problem:
            self._into.fault("gap", f"a line of the incumbent's cannot be read: {problem}"[:300], "incumbent")
            found = problem.reports
        if not found:
            return
        self._now = max(self._now, min(found[0].time_ns, now_ns))
        self._play()
        for arm in self.arms:
            if arm.session is not None and isinstance(arm.session.venue, Mirror):
                for report in found:
                    arm.session.venue.hear(report)

    def _store(self, item: Item) -> None:
        session = self.arms[item.number].session
        if session is not None:
            if self._replaying:
                session.guard.store.load(item.data)
            session.guard.reload()

    def _play(self) -> None:
        """Let the time of the day come as far as it has come."""
        self._begin_if_due()
        close = self._end - self._grace_ns
        for arm in self.arms:
            if arm.session is not None:
                arm.session.play(min(self._now + 1, close))
        self._say_crash()

    def _say_crash(self) -> None:
        session = self.arms[0].session
        if session is not None and session.problem != self._problem:
            self._problem = session.problem
            self._into.fault("crash", session.problem, "candidate")

    # -- the day ------------------------------------------------------------------------------------------------

    @property
    def _grace_ns(self) -> int:
        return round(self.config.input.after_close_s * 1e9)

    def _first(self) -> Began:
        """What the first day begins with."""
        told = self.config.candidate.snapshot
        names: list[str] = []
        for arm in self.arms if told else ():
            state = begins_with(self.config, self.instruments)
            if state.about.trade_date >= self.trade_date:
                raise BadShadow(
                    f"[candidate] snapshot {told} was taken at the end of {state.about.trade_date}; what comes in is "
                    f"of {self.trade_date}, which should be a later day"
                )
            state.save(arm.root / "snapshots")
            names.append(state.name)
        return Began(snapshots=names, incumbent=self._incumbent.dump())

    def _session_at(self, time_ns: int) -> str:
        """The session that is open at a time, or the next one."""
        one = self.instruments[0]
        day = session_at(one.calendar, time_ns)
        while (meta := self.days.get(one.symbol, day).meta).close_ns <= time_ns:
            day = meta.next_session
        return day

    def _name_day(self, trade_date: str) -> None:
        days = [self.days.get(one.symbol, trade_date).meta for one in self.instruments]
        self.trade_date = trade_date
        self._open = min(day.open_ns for day in days)
        self._end = max(day.close_ns for day in days) + self._grace_ns

    def _begin_if_due(self) -> None:
        if self.arms[0].session is None and self._now >= self._open - _LEAD_NS:
            for number, arm in enumerate(self.arms):
                arm.session = self._session(number, arm)
            first = self.arms[0].session
            assert first is not None
            self.life.state.digest = first.guard.catalogue.digest
            self.life.state.guard = str(first.directory / "guard")
            self._journal = Journalled(self.life, nights=False)
            self._tail, self._tail_line = Tail(first.directory / "journal.jsonl"), 0
            self._problem = ""
            if not self.life.state.since_ns:
                self.life.state.since_ns = self._now
            self.life.components.heard("market data", self.monotonic())
            self._say_crash()

    def _session(self, number: int, arm: _Arm) -> LiveSession:
        told = self.config.candidate
        session = LiveSession(
            self.factory,
            self.days,
            [one.symbol for one in self.instruments],
            arm.begin(self.trade_date),
            days=[self.trade_date],
            seed=told.seed,
            faults=told.faults,
            catalogue=self.catalogue,
            settings=told.settings,
            venue=partial(venue_of, self.config),
        )
        if self._began.snapshots:
            state = Snapshot.open(arm.root / "snapshots" / f"{self._began.snapshots[number]}.hsnap")
            session.load(state.parts)
        session.clock.run_until(max(self._now, session.clock.now_ns))
        session.before = [self._early[one] for one in sorted(self._early)]
        session.begin(self.trade_date)
        return session

    def _end_day(self) -> None:
        """The close and the night: the state goes into a snapshot, the next day begins with nothing else."""
        names: list[str] = []
        following = self.days.get(self.instruments[0].symbol, self.trade_date).meta.next_session
        first = self.arms[0].session
        for arm in self.arms:
            session = arm.session
            if session is None:
                continue
            session.end()
            if session is first:
                self._say_crash()
            session.overnight()
            state = take(session, subject=self.config.candidate.subject)
            state.save(arm.root / "snapshots")
            names.append(state.name)
            if session is first:
                self._into.night(session.carried[-1])
                self._into.state.sessions += 1
                self._read_journal()
            session.close()
            arm.session = None
        if self._tail is not None:
            self._tail.close()
            self._tail = None
        self._early.clear()
        self.life.state.lines, self.life.state.lines_of = 0, following
        self.life.save()
        self._began = Began(snapshots=names or self._began.snapshots, incumbent=self._incumbent.dump())
        self._uncounted = 0
        self._name_day(following)
        self.inputs.begin(self.trade_date, self._began, self.config.input.keep_days)

    # -- after a kill -------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Play the running day again, up to where it had come."""
        kept = self.inputs.day()
        if kept is None:
            return
        trade_date, self._began = kept
        self._name_day(trade_date)
        if self._began.incumbent:
            self._incumbent.load(self._began.incumbent)
        state = self.life.state
        counted = state.batch
        if state.lines_of == trade_date:
            self._uncounted = state.lines
        elif state.lines_of > trade_date:  # it had ended, and was counted to its end
            self._uncounted = sys.maxsize
        old = self.arms[0].root / trade_date
        journal = max(old.glob("[0-9]*")) / "journal.jsonl" if old.exists() else None
        self._replaying = True
        for batch in self.inputs.batches(trade_date):
            self._into = Uncounted() if batch.number <= counted else self.life
            self._apply(batch.number, batch.now_ns, batch.items)
        self._into, self._replaying = self.life, False
        session = self.arms[0].session
        if session is None or self.trade_date != trade_date:
            return
        self._read_journal()
        if journal is not None and not _same(journal, session.directory / "journal.jsonl"):
            told = f"{trade_date} played again came out otherwise: the candidate does not do the same on the same input"
            self.life.fault("divergence", told, "candidate")

    # -- looking ------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        life, names = self.life, self.life.components.names
        for arm_number, arm in enumerate(self.arms):
            if arm.session is not None:
                self._acts(arm_number, arm.session)
        session = self.arms[0].session
        if session is None or session.subject is not None:
            life.components.heard("candidate", life.monotonic())
        if session is None or self._now >= self._end - self._grace_ns:
            for name in {"market data", "incumbent"} & set(names):
                life.components.heard(name, life.monotonic())  # nobody expects a word of them now
        while lines := self._notes.lines():
            for line in lines:
                life.note(line)
        life.state.places["notes"] = self._notes.place
        life.ask(self._probes)
        for name, feed in self.feeds.items():
            for said in feed.told():
                life.fault("gap", said, name)
        self._read_journal()
        if session is not None and isinstance(session.venue, Mirror):
            life.state.followed = session.venue.followed
        self._compare_now_and_then()
        life.look()

    def _acts(self, number: int, session: LiveSession) -> None:
        """What somebody else has done to the candidate's freezes is an input like any other."""
        there = {freeze.mark for freeze in session.guard.store.in_force()}
        if there != {freeze.mark for freeze in session.guard.frozen}:
            self._take([Item("g", number, session.guard.store.dump())], {})

    def _read_journal(self) -> None:
        """Count what the candidate's journal says; its first lines not, where they have been counted before."""
        if self._tail is None:
            return
        while lines := self._tail.lines():
            for line in lines:
                self._journal.into = Uncounted() if self._tail_line < self._uncounted else self.life
                self._tail_line += 1
                self._journal.line(line)
        if self._tail_line >= self._uncounted:
            self.life.state.lines, self.life.state.lines_of = self._tail_line, self.trade_date

    def _compare_now_and_then(self) -> None:
        """Compare beside the running candidate, which does not wait for it."""
        if self._comparison is not None:
            if isinstance(self._comparison, Compared):
                self.life.compared(self._comparison)
            else:
                self.life.state.compared = None
            self._comparison = None
        now = self.monotonic()
        due = self._compared is None or now - self._compared >= COMPARE_EVERY_S * 1e9
        busy = self._comparing is not None and self._comparing.is_alive()
        if self.config.incumbent.journal and due and not busy and self.arms[0].session is not None:
            self._compared = now
            self._comparing = threading.Thread(target=self._compare, name="shadow-compare", daemon=True)
            self._comparing.start()

    def _compare(self) -> None:
        noise = self.arms[1].journals if len(self.arms) > 1 else None
        try:
            self._comparison = compared(self.config, self.arms[0].journals, noise=noise, window=self._window())
        except BadComparison as problem:
            self._comparison = problem

    def _window(self) -> Window:
        """Orders of before the candidate began are not its; what moves now may be on its way to the other."""
        settled_ns = round(self.config.input.patience_ms * 1e6) + 1_000_000_000
        played_ns = self._now if self.arms[0].session is None else min(self._now, self._end - self._grace_ns)
        return Window(since_ns=self.life.state.since_ns, until_ns=played_ns - settled_ns)

    def compare(self) -> None:
        """Compare all orders up to now, at once."""
        if self._comparing is not None:
            self._comparing.join()
        if self.config.incumbent.journal:
            self._compare()
            self._compared = self.monotonic()
            self._compare_now_and_then()

    def close(self) -> None:
        """The end of this life, in good order. The candidate's day goes on with the next one."""
        self._read_journal()
        self.compare()
        self.life.state.stopped = True
        self.life.save()
        self._probes.close()
        self._notes.close()
        for feed in self.feeds.values():
            feed.close()
        for arm in self.arms:
            if arm.session is not None:
                arm.session.close()
                arm.session = None
        if self._tail is not None:
            self._tail.close()
        self.inputs.close()


def run_live(
    config: ShadowConfig,
    factory: Factory,
    *,
    seconds: float = 0.0,
    stop: threading.Event | None = None,
    wall: Callable[[], int] = time.time_ns,
) -> Life:
    """Run until `stop` is set, or for so many seconds. `wall` is the host's clock, ns."""
    stop = stop or threading.Event()
    with alone(config.directory):
        live = Live(config, factory, wall=wall)
        end = live.monotonic() + round(seconds * 1e9) if seconds else None
        try:
            while not (stop.is_set() or (end is not None and live.monotonic() >= end)):
                if not live.once():
                    stop.wait(0.02)
        finally:
            live.close()
        return live.life


def _same(one: Path, other: Path) -> bool:
    """Whether the shorter of two journals is how the other begins."""
    size = min(one.stat().st_size, other.stat().st_size)
    with open(one, "rb") as left, open(other, "rb") as right:
        while size > 0:
            part = min(size, 1 << 20)
            if left.read(part) != right.read(part):
                return False
            size -= part
    return True
