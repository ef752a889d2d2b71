"""Shadow runs: a candidate over recordings on the virtual clock, or followed by its journal next to the incumbent."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from holdover.catalogue import Catalogue
from holdover.harness.player import MarketSlices, Player
from holdover.harness.schedule import FRESH_SCHEDULE, Schedule, bind_schedule
from holdover.harness.session import Session, SessionConfig
from holdover.harness.subject import Factory
from holdover.recording import RecordingStore
from holdover.runtime import StoreError
from holdover.runtime.heartbeat import Health, read_health
from holdover.runtime.journal import JOURNAL_FILE, rotated_files
from holdover.runtime.thaw_requests import find_guard_config
from holdover.shadow.components import ComponentTable
from holdover.shadow.config import ShadowConfig, ShadowConfigError
from holdover.shadow.divergence import ComparisonError, ComparisonWindow, OrderUpdate, compare_orders, read_orders
from holdover.shadow.incumbent import IncumbentReader, IncumbentReportError
from holdover.shadow.probe import ProbeThreads
from holdover.shadow.setup import make_venue
from holdover.shadow.shadow_run import CandidateJournalReader, ShadowRun, lock_directory
from holdover.shadow.state import OrderComparison
from holdover.watch.tail import Tail
from holdover.world import IncumbentReport, ReplicatingVenue

NOTES_FILE: Final = "notes.jsonl"
VIRTUAL_COMPONENTS: Final = ("market data", "venue")
"""The built-in components of a run over recordings."""
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
    schedule: Schedule = FRESH_SCHEDULE,
    progress: Progress = lambda message: None,
) -> ShadowRun:
    """Run the days repeatedly until the healthy clock has counted `hours` more of open sessions.

    State is carried from day to day; after the last day the candidate starts fresh on the first. The run stops when
    something is frozen, because healthy time would no longer accumulate. Raises `ShadowConfigError` for a component
    that a run over recordings does not have.
    """
    unknown = [component.name for component in config.components if component.name not in VIRTUAL_COMPONENTS]
    if unknown:
        raise ShadowConfigError(
            f"[[component]] {unknown[0]}: a run over recordings has {' and '.join(VIRTUAL_COMPONENTS)}, "
            "and knows of no other"
        )
    with lock_directory(config.directory):
        return _run_laps(config, factory, recordings, symbols, days, hours, catalogue, schedule, progress)


def _run_laps(
    config: ShadowConfig,
    factory: Factory,
    recordings: RecordingStore,
    symbols: Sequence[str],
    days: Sequence[str],
    hours: float,
    catalogue: Catalogue | None,
    schedule: Schedule,
    progress: Progress,
) -> ShadowRun:
    now_ns = [0]
    run = ShadowRun(
        config, monotonic=lambda: now_ns[0], wall=lambda: now_ns[0], virtual=True, kind="run over recordings"
    )
    run.state.subject = config.candidate.subject
    target_ns = run.state.clock.ever_ns + round(hours * 3.6e12)
    lap = 0
    while run.state.clock.ever_ns < target_ns:
        counted_ns = run.state.clock.ever_ns
        lap_directory = config.directory / f"lap-{lap % 2}"
        shutil.rmtree(lap_directory, ignore_errors=True)
        session = Session(
            factory,
            recordings,
            symbols,
            lap_directory,
            SessionConfig(
                days=days,
                seed=config.candidate.seed,
                faults=config.candidate.faults,
                settings=config.candidate.settings,
                catalogue=catalogue,
                venue=partial(make_venue, config),
            ),
        )
        try:
            lap_schedule = bind_schedule(schedule, recordings, symbols, days)
            frozen = _run_lap(run, session, recordings, lap_schedule, now_ns, target_ns, progress)
        finally:
            session.close()
        if config.incumbent.journal:
            run.record_comparison(compare_journals(config, [lap_directory / JOURNAL_FILE]))
        run.save()
        if frozen or run.state.clock.ever_ns == counted_ns:
            break
        lap += 1
    run.state.stopped = True
    run.save()
    return run


def _run_lap(
    run: ShadowRun,
    session: Session,
    recordings: RecordingStore,
    schedule: Schedule,
    now_ns: list[int],
    target_ns: int,
    progress: Progress,
) -> bool:
    """Run the days of a schedule once. Returns whether something is frozen."""
    state = run.state
    state.digest, state.guard = session.guard.catalogue.digest, str(session.directory / "guard")
    journal = CandidateJournalReader(run, nights=False)
    tail = Tail(session.directory / JOURNAL_FILE)
    checks = session.guard.monitor.check_count
    last_event_count = [-1]
    reports = _IncumbentReports(run.config, session) if run.config.input.reports else None

    def look_now() -> None:
        now_ns[0] = session.clock.now_ns
        if session.player.market_events != last_event_count[0]:
            last_event_count[0] = session.player.market_events
            _mark_alive(run, "market data", now_ns[0])
        if session.link.is_up:
            _mark_alive(run, "venue", now_ns[0])
        while lines := tail.read_lines():
            for line in lines:
                journal.read_line(line)
        run.check(save=False)

    def read_reports(until_ns: int, is_close: bool) -> None:
        if reports is not None:
            reports.run_to(until_ns, last=is_close)

    player = Player(schedule, recordings, session.directory, session=session)
    player.slices = MarketSlices(round(run.config.clock.tick_s * 1e9), read_reports, look_now)
    try:
        for number, day in enumerate(schedule.days):
            progress(day)
            player.play_day(number, day)
            run.record_night(session.carried[-1])
            run.save()
            state.sessions += 1
            if session.guard.frozen_scopes() or state.clock.ever_ns >= target_ns:
                break
    finally:
        tail.close()
        if isinstance(session.venue, ReplicatingVenue):
            state.followed = session.venue.stats
        state.checks += session.guard.monitor.check_count - checks
    return bool(session.guard.frozen_scopes())


class _IncumbentReports:
    """The reports about the incumbent's orders on the recorded days, each applied at its time."""

    def __init__(self, config: ShadowConfig, session: Session) -> None:
        self._session = session
        self._after_ns = round(config.input.after_close_s * 1e9)
        path = config.resolve_path(config.input.reports)
        self._reports = self._read_reports(
            path, IncumbentReader({instrument.symbol: instrument for instrument in session.host.plan.instruments()})
        )
        self._next = next(self._reports, None)

    def _read_reports(self, path: Path, incumbent: IncumbentReader) -> Iterator[IncumbentReport]:
        try:
            for part in [*rotated_files(path), path]:
                with open(part, "rb") as file:
                    for line in file:
                        yield from incumbent.read_line(line)
        except OSError as problem:
            raise ShadowConfigError(f"[input] reports: {path}: cannot be read: {problem.strerror}") from problem
        except IncumbentReportError as problem:
            raise ShadowConfigError(f"[input] reports: {path.name}: {problem}") from problem

    def run_to(self, until_ns: int, *, last: bool) -> None:
        """Run the market to each report up to a time. The `last` reports of a day may come a little after its close."""
        venue = self._session.venue
        assert isinstance(venue, ReplicatingVenue)
        end_ns = until_ns + self._after_ns if last else until_ns
        while self._next is not None and self._next.time_ns <= end_ns:
            at_ns = min(self._next.time_ns, until_ns)
            if at_ns > self._session.clock.now_ns:
                self._session.run(at_ns)
            venue.apply_report(self._next)
            self._next = next(self._reports, None)


def _mark_alive(run: ShadowRun, name: str, now_ns: int) -> None:
    if name in run.components.names:
        run.components.mark_alive(name, now_ns)


# -- next to the incumbent ----------------------------------------------------------------------------------------


class FollowedShadow:
    """Follows a candidate in its own process: its journal, its guard's heartbeat, the incumbent's journal and
    the notes.
    """

    def __init__(self, config: ShadowConfig, run: ShadowRun | None = None) -> None:
        deadline_s = config.clock.deadline_s
        builtin_components = [ComponentTable(name="candidate", deadline_s=deadline_s)]
        if config.incumbent.journal and "incumbent" not in [component.name for component in config.components]:
            builtin_components.append(ComponentTable(name="incumbent", deadline_s=deadline_s))
        self.config = config
        self.shadow_run = run or ShadowRun(
            config, components=[*builtin_components, *config.components], kind="followed"
        )
        self.store = find_guard_config(config.resolve_path(config.candidate.guard)).open_store()
        offsets = self.shadow_run.state.offsets
        self._tails = {
            name: Tail(path, offsets.get(name))
            for name, path in (
                ("candidate", config.resolve_path(config.candidate.journal)),
                ("incumbent", config.resolve_path(config.incumbent.journal) if config.incumbent.journal else None),
                ("notes", config.directory / NOTES_FILE),
            )
            if path is not None
        }
        self._journal = CandidateJournalReader(self.shadow_run, nights=True)
        self._probes = ProbeThreads(config.components)
        self._compared_ns: int | None = None

    def poll(self) -> bool:
        """Read new lines, run the checks and save. Returns whether everything is healthy now."""
        run = self.shadow_run
        for name, tail in self._tails.items():
            while lines := tail.read_lines():
                if name == "incumbent":
                    run.components.mark_alive(name, run.monotonic())
                for line in lines if name != "incumbent" else ():
                    self._journal.read_line(line) if name == "candidate" else run.record_note(line)
            run.state.offsets[name] = tail.offset
        run.take_findings(self._probes)
        self._check_guard()
        interval_ns = round(COMPARE_EVERY_S * 1e9)
        now_ns = run.monotonic()
        if self.config.incumbent.journal and (self._compared_ns is None or now_ns - self._compared_ns >= interval_ns):
            self._compared_ns = now_ns
            self.compare()
        return run.check()

    def _check_guard(self) -> None:
        """Mark the candidate as alive when its guard reports it."""
        run = self.shadow_run
        try:
            statuses = read_health(self.store, run.wall())
        except StoreError:
            return  # without a sign of life the candidate becomes silent
        for status in statuses:
            if status.health in (Health.HEALTHY, Health.FROZEN):
                run.components.mark_alive("candidate", run.monotonic())
                run.state.digest, run.state.policy = status.beat.digest, status.beat.policy

    def compare(self) -> None:
        """Compare all orders up to now. When they cannot be compared, the last comparison is discarded."""
        try:
            self.shadow_run.record_comparison(
                compare_journals(self.config, [self.config.resolve_path(self.config.candidate.journal)])
            )
        except ComparisonError:
            self.shadow_run.state.compared = None

    def close(self) -> None:
        """End this run in good order."""
        self._probes.close()
        if self.config.incumbent.journal:
            self.compare()
        self.shadow_run.state.stopped = True
        self.shadow_run.save()
        for tail in self._tails.values():
            tail.close()


def follow_candidate(config: ShadowConfig, *, seconds: float = 0.0, stop: threading.Event | None = None) -> ShadowRun:
    """Follow the candidate until `stop` is set, or for the given seconds."""
    stop = stop or threading.Event()
    with lock_directory(config.directory):
        shadow = FollowedShadow(config)
        run = shadow.shadow_run
        end = run.monotonic() + round(seconds * 1e9) if seconds else None
        try:
            while True:
                shadow.poll()
                if (end is not None and run.monotonic() >= end) or stop.wait(config.clock.tick_s):
                    return run
        finally:
            shadow.close()


def compare_journals(
    config: ShadowConfig,
    candidate: Sequence[Path],
    *,
    noise: Sequence[Path] | None = None,
    window: ComparisonWindow | None = None,
) -> OrderComparison:
    """Compare the candidate's journals with the incumbent's, as the configuration says. Raises `ComparisonError`.

    The candidate's journal may consist of several files. `noise` is the journal of its second copy, unless the
    configuration names one.
    """
    divergence = config.divergence
    if divergence.noise:
        noise = [config.resolve_path(divergence.noise)]

    def whole(journals: Sequence[Path]) -> Iterator[OrderUpdate]:
        for path in journals:
            for part in [*rotated_files(path), path]:
                yield from read_orders(part)

    return compare_orders(
        whole(candidate),
        whole([config.resolve_path(config.incumbent.journal)]),
        tolerance=divergence.tolerance,
        explained=divergence.explained,
        noise=whole(noise) if noise else None,
        match=divergence.match,
        window=window,
    )
