"""A candidate that is run here, live, on the incumbent's inputs: market data and the reports about its orders.

The candidate's orders go to a simulated venue, which answers them as the incumbent's orders were answered
(`world/replicating_venue.py`). The time of this world is the feed's: the latest time stamp of an event, carried on by
the monotonic clock, so that neither a silent feed nor a jump of the host's clock distorts it. Every input is stored
before it is applied. A shadow that was killed replays its day from the day's start state, in no counted time, and
continues: for the candidate the kill does not happen.
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
from holdover.harness.live_session import FutureDayStore, LiveSession
from holdover.harness.session import SessionConfig
from holdover.harness.snapshot import Snapshot, take_snapshot
from holdover.harness.subject import Factory
from holdover.recording import MarketEvent
from holdover.recording.calendar import session_at
from holdover.recording.format import QUOTE
from holdover.shadow.config import ShadowConfig, ShadowConfigError
from holdover.shadow.divergence import ComparisonError, ComparisonWindow
from holdover.shadow.feed import MarketReader, MarketReading
from holdover.shadow.incumbent import IncumbentReader, IncumbentReportError, time_of_line
from holdover.shadow.input_store import InputItem, InputStore, ShadowDayStart, TimedItem
from holdover.shadow.probe import ProbeThreads
from holdover.shadow.runner import COMPARE_EVERY_S, NOTES_FILE, compare_journals
from holdover.shadow.setup import (
    INPUTS,
    average_traded,
    check_subject,
    list_components,
    load_start_snapshot,
    make_venue,
    open_feeds,
    read_instruments,
    session_hours_on,
)
from holdover.shadow.shadow_run import CandidateJournalReader, DiscardedCounts, ShadowCounts, ShadowRun, lock_directory
from holdover.shadow.state import OrderComparison, ShadowStateError
from holdover.watch.tail import Tail
from holdover.world import ReplicatingVenue

DAYS: Final = "days"
COPY: Final = "copy"
_LEAD_NS: Final = 30_000_000_000
_AHEAD_MAX_NS: Final = 30 * 86_400_000_000_000
"""No exchange is closed for so long: a later time stamp is wrong."""


class _ShadowArm:
    """One copy of the candidate: one session a day, with a directory for each run of a day."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.session: LiveSession | None = None
        self.directory = root

    def begin(self, trade_date: str) -> Path:
        """Create the directory for another run of a day. Earlier ones stay, because they hold the guard's audit log."""
        day = self.root / trade_date
        self.directory = day / f"{len(list(day.glob('[0-9]*'))) + 1:03d}"
        self.directory.mkdir(parents=True)
        return self.directory

    @property
    def journals(self) -> list[Path]:
        """The journal of every day, from the last run of the day."""
        days = sorted(day for day in self.root.glob("????-??-??"))
        return [max(day.glob("[0-9]*")) / "journal.jsonl" for day in days]


class LiveShadow:
    """The live shadow; see the module. `poll` applies new inputs, `close` ends the run in good order.

    Raises `ShadowConfigError`, `ShadowStateError`, `RecordingError`, `SnapshotError`, `StoreError` or `SourceError`.
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
        self.instruments = read_instruments(config)
        self.days = FutureDayStore(
            self.instruments, average_traded(config, self.instruments), partial(session_hours_on, config)
        )
        check_subject(config, factory, self.days, self.instruments, self._session_at(wall()))
        symbols = [instrument.symbol for instrument in self.instruments]
        self.shadow_run = ShadowRun(
            config,
            components=list_components(config),
            monotonic=monotonic,
            wall=wall,
            kind="run live",
            instruments=symbols,
        )
        self.shadow_run.state.subject = config.candidate.subject
        self.inputs = InputStore(config.directory / INPUTS)
        self.arms = [_ShadowArm(config.directory / DAYS)]
        if config.divergence.copy:
            self.arms.append(_ShadowArm(config.directory / COPY))
        self.trade_date = ""
        self._day_start = ShadowDayStart()
        self._now_ns = self._open_ns = self._end_ns = 0
        self._feed_offset_ns: int | None = None
        self._horizon_ns = sys.maxsize
        self._market = MarketReader(self.instruments)
        self._incumbent = IncumbentReader({instrument.symbol: instrument for instrument in self.instruments})
        self._waiting_items: list[TimedItem] = []
        self._counted_lines = 0
        self._early_quotes: dict[int, MarketEvent] = {}
        self._seqs: dict[int, int] = {}
        self._replaying = False
        self._counts: ShadowCounts = self.shadow_run
        self._journal = CandidateJournalReader(self.shadow_run, nights=False)
        self._tail: Tail | None = None
        self._tail_line = 0
        self._problem = ""
        self._checked_ns: int | None = None
        self._compared_ns: int | None = None
        self._comparison_thread: threading.Thread | None = None
        self._comparison: OrderComparison | ComparisonError | None = None
        self._probes = ProbeThreads(config.components)
        self._notes = Tail(config.directory / NOTES_FILE, self.shadow_run.state.offsets.get("notes"))
        offsets = self.inputs.offsets()
        try:
            self.feeds = open_feeds(config, self.instruments, offsets)
        except msgspec.MsgspecError as problem:
            raise ShadowStateError(
                f"{config.directory / INPUTS}: where a source of [input] stood cannot be read ({problem}): it was "
                f"another kind of source, or the file is damaged"
            ) from problem
        self._waiting_items = self.inputs.waiting_items()
        if not offsets and config.input.begin == "now":
            for feed in self.feeds.values():
                feed.skip()
        self._recover()

    # -- inputs -------------------------------------------------------------------------------------------------

    def poll(self) -> bool:
        """Apply new inputs and let time pass; run the checks when they are due.

        Returns whether there were new inputs.
        """
        new, self._horizon_ns = self._read_feeds()
        waiting = self._waiting_items if self._feed_offset_ns is None else []
        if waiting or new:
            self._record_arrivals([item for _, item in [*waiting, *new]])
        self._waiting_items = sorted([*self._waiting_items, *new], key=lambda entry: entry[0])
        if self.trade_date:  # only market data determines the day
            due = [item for time_ns, item in self._waiting_items if time_ns <= self._horizon_ns]
            while due:
                batch = self._items_of_day(due)
                due = due[len(batch) :]
                self._waiting_items = self._waiting_items[len(batch) :]
                self._store_and_apply(batch, {name: feed.offset for name, feed in self.feeds.items()})
            if not new and self._feed_offset_ns is not None:
                self._store_and_apply([], {})
        now_ns = self.monotonic()
        if self._checked_ns is None or now_ns - self._checked_ns >= self.config.clock.tick_s * 1e9:
            self._checked_ns = now_ns
            self._check()
        return bool(new)

    def _read_feeds(self) -> tuple[list[TimedItem], int]:
        """Read the feeds. Returns the new items with their times, and the time up to which all inputs are complete.

        With a backlog the feeds are read side by side: none runs ahead of another.
        """
        timed_items: list[TimedItem] = []
        horizon_ns = sys.maxsize
        for name, feed in self.feeds.items():
            times = [time_ns for time_ns, item in self._waiting_items if (item.kind == "r") == (name == "incumbent")]
            if times and self.trade_date:
                horizon_ns = min(horizon_ns, times[-1])  # later items of this feed have not been read yet
                continue
            timed = self._add_times(feed.read())
            if feed.is_behind and timed:
                horizon_ns = min(horizon_ns, timed[-1][0])
            timed_items += timed
        return timed_items, horizon_ns

    def _add_times(self, items: list[InputItem]) -> list[TimedItem]:
        """Add each item's time; an item without one gets the time of the item before it."""
        timed_items: list[TimedItem] = []
        last_ns = 0
        for item in items:
            if item.kind != "r":
                last_ns = max(last_ns, self._read_market(item, last_ns).time_ns)
            elif time_ns := time_of_line(item.data):
                last_ns = max(last_ns, time_ns)
            elif not last_ns:
                last_ns = sys.maxsize  # applied after all items that arrived with it
            timed_items.append((last_ns, item))
        return timed_items

    def _read_market(self, item: InputItem, after_ns: int = 0) -> MarketReading:
        """Decode an item of market data; an impossible time is returned as a problem."""
        reading = self._market.read(item)
        before = max(after_ns, self._now_ns)
        if before and reading.time_ns > before + _AHEAD_MAX_NS:
            return MarketReading(
                0, problem=f"market data of {(reading.time_ns - before) // 86_400_000_000_000} days ahead"
            )
        return reading

    def _record_arrivals(self, items: Sequence[InputItem]) -> None:
        """Mark the components that sent something as alive, and update the time from the latest event."""
        monotonic_ns = self.monotonic()
        if any(item.kind == "r" for item in items) and "incumbent" in self.shadow_run.components.names:
            self.shadow_run.components.mark_alive("incumbent", monotonic_ns)
        times: list[int] = []
        latest_ns = 0
        for item in items:
            if item.kind != "r" and (time_ns := self._read_market(item, latest_ns).time_ns):
                times.append(time_ns)
                latest_ns = max(latest_ns, time_ns)
        if times:
            self.shadow_run.components.mark_alive("market data", monotonic_ns)
            offset_ns = max(times) - monotonic_ns
            self._feed_offset_ns = offset_ns if self._feed_offset_ns is None else max(self._feed_offset_ns, offset_ns)
            if not self.trade_date:
                self._set_day(self._session_at(min(times)))
                self._day_start = self._first_day_start()
                self.inputs.begin_day(self.trade_date, self._day_start, self.config.input.keep_days)

    def _items_of_day(self, items: list[InputItem]) -> list[InputItem]:
        """The items of the running day: those before the first event after its end."""
        for number, item in enumerate(items):
            if item.kind != "r" and self._read_market(item).time_ns >= self._end_ns:
                return items[:number] if number else self._end_empty_days(item)
        return items

    def _end_empty_days(self, item: InputItem) -> list[InputItem]:
        """End the days that are over without further items; the item belongs to the next day."""
        time_ns = self._read_market(item).time_ns
        while time_ns >= self._end_ns:
            self._store_and_apply([], {}, now_ns=self._end_ns)
        return [item]

    def _store_and_apply(self, items: list[InputItem], offsets: dict[str, bytes], *, now_ns: int | None = None) -> None:
        """Store the inputs, then apply them."""
        if now_ns is None:
            # With a backlog, time advances only as far as it has been read.
            now_ns = min(self.monotonic() + (self._feed_offset_ns or 0), self._end_ns, self._horizon_ns)
        now_ns = max(now_ns, self._now_ns)
        if not items and not offsets and now_ns == self._now_ns:
            return
        number = self.inputs.add_batch(self.trade_date, now_ns, items, offsets, self._waiting_items)
        self._apply(number, now_ns, items)

    def _apply(self, number: int, now_ns: int, items: Sequence[InputItem]) -> None:
        for item in items:
            if item.kind == "r":
                self._apply_report(item, now_ns)
            elif item.kind == "g":
                self._apply_freezes(item)
            else:
                self._apply_event(item)
        self._now_ns = max(self._now_ns, now_ns)
        self._advance()
        self.shadow_run.state.batch = max(self.shadow_run.state.batch, number)
        if self._now_ns >= self._end_ns:
            self._end_day()

    def _apply_event(self, item: InputItem) -> None:
        reading = self._read_market(item)
        if reading.problem:
            self._counts.record_fault("gap", reading.problem, "market data")
        self._now_ns = max(self._now_ns, reading.time_ns)
        if reading.event is None:
            return
        number = reading.event[1]
        previous_seq = self._seqs.get(number, 0)
        if reading.seq:
            self._seqs[number] = reading.seq
            if previous_seq and reading.seq > previous_seq + 1:
                symbol = self.instruments[number].symbol
                self._counts.record_fault("gap", f"{symbol}: {reading.seq} came after {previous_seq}", "market data")
        self._counts.state.market_events += 1
        self._begin_if_due()
        if self.arms[0].session is None:
            if reading.event[2] == QUOTE:
                self._early_quotes[number] = reading.event
            return
        for arm in self.arms:
            if arm.session is not None:
                arm.session.push_event(reading.event)

    def _apply_report(self, item: InputItem, now_ns: int) -> None:
        try:
            reports = self._incumbent.read_line(item.data)
        except IncumbentReportError as problem:
            self._counts.record_fault("gap", f"a line of the incumbent's cannot be read: {problem}"[:300], "incumbent")
            reports = problem.reports
        if not reports:
            return
        self._now_ns = max(self._now_ns, min(reports[0].time_ns, now_ns))
        self._advance()
        for arm in self.arms:
            if arm.session is not None and isinstance(arm.session.venue, ReplicatingVenue):
                for report in reports:
                    arm.session.venue.apply_report(report)

    def _apply_freezes(self, item: InputItem) -> None:
        session = self.arms[item.number].session
        if session is not None:
            if self._replaying:
                session.guard.store.restore_bytes(item.data)
            session.guard.reload()

    def _advance(self) -> None:
        """Advance the sessions to the current time."""
        self._begin_if_due()
        close_ns = self._end_ns - self._grace_ns
        for arm in self.arms:
            if arm.session is not None:
                arm.session.play(min(self._now_ns + 1, close_ns))
        self._report_crash()

    def _report_crash(self) -> None:
        session = self.arms[0].session
        if session is not None and session.subject_error != self._problem:
            self._problem = session.subject_error
            self._counts.record_fault("crash", session.subject_error, "candidate")

    # -- the day ------------------------------------------------------------------------------------------------

    @property
    def _grace_ns(self) -> int:
        return round(self.config.input.after_close_s * 1e9)

    def _first_day_start(self) -> ShadowDayStart:
        """The start state of the first day."""
        snapshot_path = self.config.candidate.snapshot
        names: list[str] = []
        for arm in self.arms if snapshot_path else ():
            state = load_start_snapshot(self.config, self.instruments)
            if state.info.trade_date >= self.trade_date:
                raise ShadowConfigError(
                    f"[candidate] snapshot {snapshot_path} was taken at the end of {state.info.trade_date}; "
                    f"what comes in is of {self.trade_date}, which should be a later day"
                )
            state.save(arm.root / "snapshots")
            names.append(state.name)
        return ShadowDayStart(snapshots=names, incumbent=self._incumbent.to_bytes())

    def _session_at(self, time_ns: int) -> str:
        """The session that is open at a time, or the next one."""
        instrument = self.instruments[0]
        day = session_at(instrument.calendar, time_ns)
        while (meta := self.days.get(instrument.symbol, day).meta).close_ns <= time_ns:
            day = meta.next_session
        return day

    def _set_day(self, trade_date: str) -> None:
        days = [self.days.get(instrument.symbol, trade_date).meta for instrument in self.instruments]
        self.trade_date = trade_date
        self._open_ns = min(day.open_ns for day in days)
        self._end_ns = max(day.close_ns for day in days) + self._grace_ns

    def _begin_if_due(self) -> None:
        if self.arms[0].session is None and self._now_ns >= self._open_ns - _LEAD_NS:
            for number, arm in enumerate(self.arms):
                arm.session = self._begin_session(number, arm)
            first = self.arms[0].session
            assert first is not None
            self.shadow_run.state.digest = first.guard.catalogue.digest
            self.shadow_run.state.guard = str(first.directory / "guard")
            self._journal = CandidateJournalReader(self.shadow_run, nights=False)
            self._tail, self._tail_line = Tail(first.directory / "journal.jsonl"), 0
            self._problem = ""
            if not self.shadow_run.state.since_ns:
                self.shadow_run.state.since_ns = self._now_ns
            self.shadow_run.components.mark_alive("market data", self.monotonic())
            self._report_crash()

    def _begin_session(self, number: int, arm: _ShadowArm) -> LiveSession:
        candidate = self.config.candidate
        session = LiveSession(
            self.factory,
            self.days,
            [instrument.symbol for instrument in self.instruments],
            arm.begin(self.trade_date),
            SessionConfig(
                days=[self.trade_date],
                seed=candidate.seed,
                faults=candidate.faults,
                catalogue=self.catalogue,
                settings=candidate.settings,
                venue=partial(make_venue, self.config),
            ),
        )
        if self._day_start.snapshots:
            state = Snapshot.open(arm.root / "snapshots" / f"{self._day_start.snapshots[number]}.hsnap")
            session.restore(state.parts)
        session.clock.run_until(max(self._now_ns, session.clock.now_ns))
        session.player.opening_events = [
            self._early_quotes[instrument_number] for instrument_number in sorted(self._early_quotes)
        ]
        session.begin(self.trade_date)
        return session

    def _end_day(self) -> None:
        """Run the close and the end of day.

        The state goes into a snapshot, and the next day starts from the snapshot alone.
        """
        names: list[str] = []
        following = self.days.get(self.instruments[0].symbol, self.trade_date).meta.next_session
        first = self.arms[0].session
        for arm in self.arms:
            session = arm.session
            if session is None:
                continue
            session.end()
            if session is first:
                self._report_crash()
            session.overnight()
            state = take_snapshot(session, subject=self.config.candidate.subject)
            state.save(arm.root / "snapshots")
            names.append(state.name)
            if session is first:
                self._counts.record_night(session.carried[-1])
                self._counts.state.sessions += 1
                self._read_journal()
            session.close()
            arm.session = None
        if self._tail is not None:
            self._tail.close()
            self._tail = None
        self._early_quotes.clear()
        self.shadow_run.state.counted_lines, self.shadow_run.state.counted_lines_date = 0, following
        self.shadow_run.save()
        self._day_start = ShadowDayStart(
            snapshots=names or self._day_start.snapshots, incumbent=self._incumbent.to_bytes()
        )
        self._counted_lines = 0
        self._set_day(following)
        self.inputs.begin_day(self.trade_date, self._day_start, self.config.input.keep_days)

    # -- recovery -----------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Replay the running day up to the last stored input."""
        day = self.inputs.running_day()
        if day is None:
            return
        trade_date, self._day_start = day
        self._set_day(trade_date)
        if self._day_start.incumbent:
            self._incumbent.restore_bytes(self._day_start.incumbent)
        state = self.shadow_run.state
        counted_batch = state.batch
        if state.counted_lines_date == trade_date:
            self._counted_lines = state.counted_lines
        elif state.counted_lines_date > trade_date:  # the day had ended and was counted to its end
            self._counted_lines = sys.maxsize
        day_directory = self.arms[0].root / trade_date
        journal = max(day_directory.glob("[0-9]*")) / "journal.jsonl" if day_directory.exists() else None
        self._replaying = True
        for batch in self.inputs.read_batches(trade_date):
            self._counts = DiscardedCounts() if batch.number <= counted_batch else self.shadow_run
            self._apply(batch.number, batch.now_ns, batch.items)
        self._counts, self._replaying = self.shadow_run, False
        session = self.arms[0].session
        if session is None or self.trade_date != trade_date:
            return
        self._read_journal()
        if journal is not None and not _is_prefix(journal, session.directory / "journal.jsonl"):
            detail = (
                f"{trade_date} played again came out otherwise: the candidate does not do the same on the same input"
            )
            self.shadow_run.record_fault("divergence", detail, "candidate")

    # -- checks -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        run, names = self.shadow_run, self.shadow_run.components.names
        for arm_number, arm in enumerate(self.arms):
            if arm.session is not None:
                self._take_freeze_changes(arm_number, arm.session)
        session = self.arms[0].session
        if session is None or session.subject is not None:
            run.components.mark_alive("candidate", run.monotonic())
        if session is None or self._now_ns >= self._end_ns - self._grace_ns:
            for name in {"market data", "incumbent"} & set(names):
                run.components.mark_alive(name, run.monotonic())  # no data is expected from them now
        while lines := self._notes.read_lines():
            for line in lines:
                run.record_note(line)
        run.state.offsets["notes"] = self._notes.offset
        run.take_findings(self._probes)
        for name, feed in self.feeds.items():
            for loss in feed.drain_losses():
                run.record_fault("gap", loss, name)
        self._read_journal()
        if session is not None and isinstance(session.venue, ReplicatingVenue):
            run.state.followed = session.venue.stats
        self._compare_when_due()
        run.check()

    def _take_freeze_changes(self, number: int, session: LiveSession) -> None:
        """Store outside changes of the candidate's freezes as inputs."""
        marks = {freeze.identity for freeze in session.guard.store.active_freezes()}
        if marks != {freeze.identity for freeze in session.guard.active_freezes}:
            self._store_and_apply([InputItem("g", number, session.guard.store.to_bytes())], {})

    def _read_journal(self) -> None:
        """Count the lines of the candidate's journal; lines that were counted before are skipped."""
        if self._tail is None:
            return
        while lines := self._tail.read_lines():
            for line in lines:
                self._journal.counts = DiscardedCounts() if self._tail_line < self._counted_lines else self.shadow_run
                self._tail_line += 1
                self._journal.read_line(line)
        if self._tail_line >= self._counted_lines:
            self.shadow_run.state.counted_lines, self.shadow_run.state.counted_lines_date = (
                self._tail_line,
                self.trade_date,
            )

    def _compare_when_due(self) -> None:
        """Compare in a thread, when due, without blocking the candidate."""
        if self._comparison is not None:
            if isinstance(self._comparison, OrderComparison):
                self.shadow_run.record_comparison(self._comparison)
            else:
                self.shadow_run.state.compared = None
            self._comparison = None
        now_ns = self.monotonic()
        due = self._compared_ns is None or now_ns - self._compared_ns >= COMPARE_EVERY_S * 1e9
        busy = self._comparison_thread is not None and self._comparison_thread.is_alive()
        if self.config.incumbent.journal and due and not busy and self.arms[0].session is not None:
            self._compared_ns = now_ns
            self._comparison_thread = threading.Thread(target=self._compare, name="shadow-compare", daemon=True)
            self._comparison_thread.start()

    def _compare(self) -> None:
        noise = self.arms[1].journals if len(self.arms) > 1 else None
        try:
            self._comparison = compare_journals(self.config, self.arms[0].journals, noise=noise, window=self._window())
        except ComparisonError as problem:
            self._comparison = problem

    def _window(self) -> ComparisonWindow:
        """Leave out orders from before the candidate began, and orders that changed only now: the other log may lag."""
        settled_ns = round(self.config.input.patience_ms * 1e6) + 1_000_000_000
        played_ns = self._now_ns if self.arms[0].session is None else min(self._now_ns, self._end_ns - self._grace_ns)
        return ComparisonWindow(since_ns=self.shadow_run.state.since_ns, until_ns=played_ns - settled_ns)

    def compare(self) -> None:
        """Compare all orders up to now and wait for the result."""
        if self._comparison_thread is not None:
            self._comparison_thread.join()
        if self.config.incumbent.journal:
            self._compare()
            self._compared_ns = self.monotonic()
            self._compare_when_due()

    def close(self) -> None:
        """End this run in good order. The next run continues the candidate's day."""
        self._read_journal()
        self.compare()
        self.shadow_run.state.stopped = True
        self.shadow_run.save()
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
) -> ShadowRun:
    """Run until `stop` is set, or for the given seconds. `wall` returns the host's clock, ns.

    Raises what `LiveShadow` raises.
    """
    stop = stop or threading.Event()
    with lock_directory(config.directory):
        shadow = LiveShadow(config, factory, wall=wall)
        end = shadow.monotonic() + round(seconds * 1e9) if seconds else None
        try:
            while not (stop.is_set() or (end is not None and shadow.monotonic() >= end)):
                if not shadow.poll():
                    stop.wait(0.02)
        finally:
            shadow.close()
        return shadow.shadow_run


def _is_prefix(left_path: Path, right_path: Path) -> bool:
    """Whether the shorter of two journals is a prefix of the longer one."""
    size = min(left_path.stat().st_size, right_path.stat().st_size)
    with open(left_path, "rb") as left_file, open(right_path, "rb") as right_file:
        while size > 0:
            part = min(size, 1 << 20)
            if left_file.read(part) != right_file.read(part):
                return False
            size -= part
    return True
