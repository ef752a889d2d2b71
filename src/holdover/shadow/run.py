"""Shadow runs: a candidate over recordings on the virtual clock, or followed by its journal beside the incumbent's."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from holdover.catalogue import Catalogue
from holdover.harness.schedule import FRESH, Schedule, perform
from holdover.harness.session import Session
from holdover.harness.subject import Factory
from holdover.recording import RecordingStore
from holdover.runtime import StoreProblem
from holdover.runtime.heartbeat import Health, look
from holdover.runtime.journal import put_aside
from holdover.runtime.thawing import guard_at
from holdover.shadow.components import ComponentTable
from holdover.shadow.config import BadShadow, ShadowConfig
from holdover.shadow.divergence import BadComparison, Told, Window, compare, orders_of
from holdover.shadow.ground import venue_of
from holdover.shadow.incumbent import BadReport, Incumbent
from holdover.shadow.life import Journalled, Life, alone
from holdover.shadow.probe import Probes
from holdover.shadow.state import Compared
from holdover.watch.tail import Tail
from holdover.world import Mirror, Reported

NOTES: Final = "notes.jsonl"
VIRTUAL: Final = ("market data", "venue")
"""The components that a run over recordings knows of itself."""
COMPARE_EVERY_S: Final = 3600.0

Progress = Callable[[str], None]


# -- over recordings ----------------------------------------------------------------------------------------------


def run_recordings(
    config: ShadowConfig,
    factory: Factory,
    recordings: RecordingStore,
    symbols: Sequence[str],
    days: Sequence[str],
    *,
    hours: float,
    catalogue: Catalogue | None = None,
    schedule: Schedule = FRESH,
    progress: Progress = lambda what: None,
) -> Life:
    """Run the days again and again until the healthy clock has counted `hours` more of open sessions.

    The state is carried from day to day; after the last day the candidate begins anew on the first. Stops at once when
    something is frozen: no healthy time would come of it.
    """
    unknown = [one.name for one in config.components if one.name not in VIRTUAL]
    if unknown:
        raise BadShadow(
            f"[[component]] {unknown[0]}: a run over recordings has {' and '.join(VIRTUAL)}, and knows of no other"
        )
    with alone(config.directory):
        return _laps(config, factory, recordings, symbols, days, hours, catalogue, schedule, progress)


def _laps(
    config: ShadowConfig,
    factory: Factory,
    recordings: RecordingStore,
    symbols: Sequence[str],
    days: Sequence[str],
    hours: float,
    catalogue: Catalogue | None,
    schedule: Schedule,
    progress: Progress,
) -> Life:
    now = [0]
    life = Life(config, monotonic=lambda: now[0], wall=lambda: now[0], virtual=True, kind="run over recordings")
    life.state.subject = config.candidate.subject
    wanted = life.state.clock.ever_ns + round(hours * 3.6e12)
    lap = 0
    while life.state.clock.ever_ns < wanted:
        counted = life.state.clock.ever_ns
        place = config.directory / f"lap-{lap % 2}"
        shutil.rmtree(place, ignore_errors=True)
        session = Session(
            factory,
            recordings,
            symbols,
            place,
            days=days,
            seed=config.candidate.seed,
            faults=config.candidate.faults,
            settings=config.candidate.settings,
            catalogue=catalogue,
            venue=partial(venue_of, config),
        )
        try:
            frozen = _lap(life, session, days, schedule, now, wanted, progress)
        finally:
            session.close()
        if config.incumbent.journal:
            life.compared(compared(config, [place / "journal.jsonl"]))
        life.save()
        if frozen or life.state.clock.ever_ns == counted:
            break
        lap += 1
    life.state.stopped = True
    life.save()
    return life


def _lap(
    life: Life,
    session: Session,
    days: Sequence[str],
    schedule: Schedule,
    now: list[int],
    wanted: int,
    progress: Progress,
) -> bool:
    """The days once; whether something is frozen."""
    state = life.state
    state.digest, state.guard = session.guard.catalogue.digest, str(session.directory / "guard")
    journal = Journalled(life, nights=False)
    tail = Tail(session.directory / "journal.jsonl")
    slices = round(life.config.clock.tick_s * 1e9)
    checks = session.guard.monitor.checks
    seen = [-1]
    reports = _Reports(life.config, session) if life.config.input.reports else None

    def look_now() -> None:
        now[0] = session.clock.now_ns
        if session.market_events != seen[0]:
            seen[0] = session.market_events
            _heard(life, "market data", now[0])
        if session.link.up:
            _heard(life, "venue", now[0])
        while lines := tail.lines():
            for line in lines:
                journal.line(line)
        life.look(save=False)

    try:
        for number, day in enumerate(days):
            progress(day)
            for operation in schedule.operations(number):
                if operation.op == "run" and operation.until in (None, "close"):
                    open_ns, close_ns = session.hours()
                    for until in _slices(max(open_ns, session.clock.now_ns), close_ns, slices):
                        if reports is not None:
                            reports.run(until, last=until == close_ns)
                        session.run(until)
                        look_now()
                else:
                    perform(session, operation, day=day)
                    if operation.op == "overnight":
                        life.night(session.carried[-1])
                        life.save()
            state.sessions += 1
            if session.guard.frozen_scopes() or state.clock.ever_ns >= wanted:
                break
    finally:
        tail.close()
        if isinstance(session.venue, Mirror):
            state.followed = session.venue.followed
        state.checks += session.guard.monitor.checks - checks
    return bool(session.guard.frozen_scopes())


class _Reports:
    """What the incumbent was told on the recorded days, each report when it was told."""

    def __init__(self, config: ShadowConfig, session: Session) -> None:
        self._session = session
        self._after_ns = round(config.input.after_close_s * 1e9)
        path = config.path(config.input.reports)
        self._told = self._of(path, Incumbent({one.symbol: one for one in session.plan.instruments()}))
        self._next = next(self._told, None)

    def _of(self, path: Path, incumbent: Incumbent) -> Iterator[Reported]:
        try:
            for part in [*put_aside(path), path]:
                with open(part, "rb") as file:
                    for line in file:
                        yield from incumbent.line(line)
        except OSError as problem:
            raise BadShadow(f"[input] reports: {path}: cannot be read: {problem.strerror}") from problem
        except BadReport as problem:
            raise BadShadow(f"[input] reports: {path.name}: {problem}") from problem

    def run(self, until_ns: int, *, last: bool) -> None:
        """Let the market run to each report up to a time; the `last` of a day may come a little after its close."""
        venue = self._session.venue
        assert isinstance(venue, Mirror)
        end_ns = until_ns + self._after_ns if last else until_ns
        while self._next is not None and self._next.time_ns <= end_ns:
            at_ns = min(self._next.time_ns, until_ns)
            if at_ns > self._session.clock.now_ns:
                self._session.run(at_ns)
            venue.hear(self._next)
            self._next = next(self._told, None)


def _slices(begin_ns: int, end_ns: int, step_ns: int) -> Iterator[int]:
    at = begin_ns
    while at < end_ns:
        yield at
        at += step_ns
    yield end_ns


def _heard(life: Life, name: str, now_ns: int) -> None:
    if name in life.components.names:
        life.components.heard(name, now_ns)


# -- beside the incumbent -----------------------------------------------------------------------------------------


class Following:
    """Follows a candidate that runs by itself: its journal, its guard's signs of life, the incumbent, the notes."""

    def __init__(self, config: ShadowConfig, life: Life | None = None) -> None:
        deadline_s = config.clock.deadline_s
        own = [ComponentTable(name="candidate", deadline_s=deadline_s)]
        if config.incumbent.journal and "incumbent" not in [one.name for one in config.components]:
            own.append(ComponentTable(name="incumbent", deadline_s=deadline_s))
        self.config = config
        self.life = life or Life(config, components=[*own, *config.components], kind="followed")
        self.store = guard_at(config.path(config.candidate.guard)).open_store()
        places = self.life.state.places
        self._tails = {
            name: Tail(path, places.get(name))
            for name, path in (
                ("candidate", config.path(config.candidate.journal)),
                ("incumbent", config.path(config.incumbent.journal) if config.incumbent.journal else None),
                ("notes", config.directory / NOTES),
            )
            if path is not None
        }
        self._journal = Journalled(self.life, nights=True)
        self._probes = Probes(config.components)
        self._compared_ns: int | None = None

    def once(self) -> bool:
        """Read what is new, look once, keep everything; whether all is healthy now."""
        life = self.life
        for name, tail in self._tails.items():
            while lines := tail.lines():
                if name == "incumbent":
                    life.components.heard(name, life.monotonic())
                for line in lines if name != "incumbent" else ():
                    self._journal.line(line) if name == "candidate" else life.note(line)
            life.state.places[name] = tail.place
        life.ask(self._probes)
        self._signs()
        every = round(COMPARE_EVERY_S * 1e9)
        now = life.monotonic()
        if self.config.incumbent.journal and (self._compared_ns is None or now - self._compared_ns >= every):
            self._compared_ns = now
            self.compare()
        return life.look()

    def _signs(self) -> None:
        """The candidate runs and checks when its guard says so."""
        life = self.life
        try:
            seen = look(self.store, life.wall())
        except StoreProblem:
            return  # then it is not heard, and falls silent
        for one in seen:
            if one.health in (Health.HEALTHY, Health.FROZEN):
                life.components.heard("candidate", life.monotonic())
                life.state.digest = one.beat.digest

    def compare(self) -> None:
        """Compare all orders up to now. What cannot be compared leaves the last comparison as it is."""
        try:
            self.life.compared(compared(self.config, [self.config.path(self.config.candidate.journal)]))
        except BadComparison:
            self.life.state.compared = None

    def close(self) -> None:
        """The end of this life, in good order."""
        self._probes.close()
        if self.config.incumbent.journal:
            self.compare()
        self.life.state.stopped = True
        self.life.save()
        for tail in self._tails.values():
            tail.close()


def follow(config: ShadowConfig, *, seconds: float = 0.0, stop: threading.Event | None = None) -> Life:
    """Follow until `stop` is set, or for so many seconds."""
    stop = stop or threading.Event()
    with alone(config.directory):
        following = Following(config)
        life = following.life
        end = life.monotonic() + round(seconds * 1e9) if seconds else None
        try:
            while True:
                following.once()
                if (end is not None and life.monotonic() >= end) or stop.wait(config.clock.tick_s):
                    return life
        finally:
            following.close()


def compared(
    config: ShadowConfig,
    candidate: Sequence[Path],
    *,
    noise: Sequence[Path] | None = None,
    window: Window | None = None,
) -> Compared:
    """The candidate's orders against the incumbent's, as the configuration says. Raises `BadComparison`.

    The candidate's journal may be in several files. `noise` is that of its second copy, where the configuration names
    none.
    """
    told = config.divergence
    if told.noise:
        noise = [config.path(told.noise)]

    def whole(paths: Sequence[Path]) -> Iterator[Told]:
        for path in paths:
            for part in [*put_aside(path), path]:
                yield from orders_of(part)

    return compare(
        whole(candidate),
        whole([config.path(config.incumbent.journal)]),
        tolerance=told.tolerance,
        explained=told.explained,
        noise=whole(noise) if noise else None,
        match=told.match,
        window=window,
    )
