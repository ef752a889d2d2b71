"""A candidate that is run here, live, on the incumbent's inputs: market data and the reports about its orders.

The candidate's orders go to a simulated venue, which answers them as the incumbent's orders were answered
(`world/replicating_venue.py`). The time of this world is the feed's: the latest time stamp of an event, carried on by
the monotonic clock, so that neither a silent feed nor a jump of the host's clock distorts it. Every input is stored
before it is applied. A shadow that was killed replays its day from the day's start state, in no counted time, and
continues: for the candidate the kill does not happen.

The parts: `InputPipeline` takes an input from its feed to the candidate, `LiveDay` has the day and the candidate's
sessions, `CandidateJournal` counts what the candidate recorded, `BackgroundComparison` compares its orders with the
incumbent's. This module puts them together, recovers after a kill, and runs the checks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from holdover.catalogue import Catalogue
from holdover.harness.live_session import FutureDayStore, LiveSession
from holdover.harness.subject import Factory
from holdover.model import Instrument
from holdover.runtime.journal import JOURNAL_FILE
from holdover.shadow.background_comparison import BackgroundComparison
from holdover.shadow.candidate_journal import CandidateJournal
from holdover.shadow.config import ShadowConfig
from holdover.shadow.feed import IncumbentFeed
from holdover.shadow.input_merge import InputMerge
from holdover.shadow.input_pipeline import InputApplier, InputPipeline
from holdover.shadow.input_store import InputItem, InputStore
from holdover.shadow.live_day import CandidateArm, LiveDay
from holdover.shadow.probe import ProbeThreads
from holdover.shadow.runner import NOTES_FILE
from holdover.shadow.setup import (
    INPUTS,
    average_traded,
    check_subject,
    list_components,
    open_feeds,
    read_instruments,
    session_hours_on,
)
from holdover.shadow.shadow_run import DiscardedCounts, ShadowRun, lock_directory
from holdover.shadow.state import ShadowStateError
from holdover.state import DECODE_ERRORS, StateError
from holdover.watch.tail import Tail
from holdover.world import ReplicatingVenue

_ACTIONS_OF_PERSONS: Final = ("acknowledge", "approval failed", "incident", "step", "thaw", "thaw refused")
_COMPARED_AT_ONCE: Final = 1 << 20


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
        self.config, self.monotonic = config, monotonic
        instruments = read_instruments(config)
        days = FutureDayStore(instruments, average_traded(config, instruments), partial(session_hours_on, config))
        self.day = LiveDay(config, factory, instruments, days, catalogue)
        check_subject(config, factory, days, instruments, self.day.session_at(wall()))
        self.shadow_run = ShadowRun(
            config,
            components=list_components(config),
            monotonic=monotonic,
            wall=wall,
            kind="run live",
            instruments=[instrument.symbol for instrument in instruments],
        )
        self.shadow_run.state.subject = config.candidate.subject
        self.inputs = InputStore(config.directory / INPUTS)
        self.journal = CandidateJournal(self.shadow_run)
        self.comparison = BackgroundComparison(self.day, self.shadow_run)
        self._probes = ProbeThreads(config.components)
        self._notes = Tail(config.directory / NOTES_FILE, self.shadow_run.state.offsets.get("notes"))
        self._checked_ns: int | None = None
        self._stored_actions: dict[Path, int] = {}
        merge = InputMerge(self._open_feeds(instruments), instruments, self.inputs.waiting_items())
        applier = InputApplier(self.day, merge, self.shadow_run, self.journal)
        self.pipeline = InputPipeline(merge, self.inputs, applier, self.shadow_run)
        self._recover()

    def _open_feeds(self, instruments: list[Instrument]) -> dict[str, IncumbentFeed]:
        """Open the feeds where the last run of this shadow stopped; a first run may skip what is there already."""
        config, offsets = self.config, self.inputs.offsets()
        try:
            feeds = open_feeds(config, instruments, offsets)
        except DECODE_ERRORS as problem:
            raise ShadowStateError(
                f"{config.directory / INPUTS}: where a source of [input] stood cannot be read ({problem}): it was "
                f"another kind of source, or the file is damaged"
            ) from problem
        if not offsets and config.input.begin == "now":
            for feed in feeds.values():
                feed.skip()
        return feeds

    @property
    def arms(self) -> list[CandidateArm]:
        """The copies of the candidate; the first one is the candidate."""
        return self.day.arms

    @property
    def days(self) -> FutureDayStore:
        """The calendar days of the instruments."""
        return self.day.days

    @property
    def trade_date(self) -> str:
        """The running day; empty before the first market data."""
        return self.day.trade_date

    @property
    def feeds(self) -> dict[str, IncumbentFeed]:
        """The feeds by name."""
        return self.pipeline.merge.feeds

    def poll(self) -> bool:
        """Apply new inputs and let time pass; run the checks when they are due.

        Returns whether there were new inputs.
        """
        is_new = self.pipeline.run()
        now_ns = self.monotonic()
        if self._checked_ns is None or now_ns - self._checked_ns >= self.config.clock.tick_s * 1e9:
            self._checked_ns = now_ns
            self._check()
        return is_new

    # -- recovery -----------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Replay the running day up to the last stored input."""
        stored_day = self.inputs.running_day()
        if stored_day is None:
            return
        day, applier, run = self.day, self.pipeline.applier, self.shadow_run
        trade_date, day.start = stored_day
        day.set_date(trade_date)
        if day.start.incumbent:
            try:
                applier.incumbent.restore_bytes(day.start.incumbent)
            except StateError as problem:
                raise ShadowStateError(f"{self.config.directory / INPUTS}: {problem}") from problem
        counted_batch = run.state.batch
        self.journal.skip_counted(trade_date)
        former_journal = day.arms[0].journal_of(trade_date)
        applier.is_replaying = True
        for batch in self.inputs.read_batches(trade_date):
            applier.counts = DiscardedCounts() if batch.number <= counted_batch else run
            self.pipeline.apply(batch.number, batch.now_ns, batch.items)
        applier.counts, applier.is_replaying = run, False
        self._stored_actions = {
            arm.session.directory: _last_action_number(arm.session) for arm in self.arms if arm.session is not None
        }
        if day.session is None or day.trade_date != trade_date:
            return
        self.journal.read(trade_date)
        if former_journal is not None and not _is_prefix(former_journal, day.session.directory / JOURNAL_FILE):
            detail = (
                f"{trade_date} played again came out otherwise: the candidate does not do the same on the same input"
            )
            run.record_fault("divergence", detail, "candidate")

    # -- checks -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        run, day = self.shadow_run, self.day
        for number, arm in enumerate(self.arms):
            if arm.session is not None:
                self._store_outside_changes(number, arm.session)
        self._mark_components()
        while lines := self._notes.read_lines():
            for line in lines:
                run.record_note(line)
        run.state.offsets["notes"] = self._notes.offset
        run.take_findings(self._probes)
        for name, feed in self.feeds.items():
            for loss in feed.drain_losses():
                run.record_fault("gap", loss, name)
        self.journal.read(day.trade_date)
        if day.session is not None and isinstance(day.session.venue, ReplicatingVenue):
            run.state.followed = day.session.venue.stats
        self.comparison.compare_when_due()
        run.check()

    def _mark_components(self) -> None:
        """Mark the candidate as alive while it runs, and its inputs outside of the day, when none are expected."""
        components, session = self.shadow_run.components, self.day.session
        now_ns = self.shadow_run.monotonic()
        if session is None or session.subject is not None:
            components.mark_alive("candidate", now_ns)
        if session is None or self.day.now_ns >= self.day.close_ns:
            for name in {"market data", "incumbent"} & set(components.names):
                components.mark_alive(name, now_ns)

    def _store_outside_changes(self, number: int, session: LiveSession) -> None:
        """Store outside changes of the candidate's freezes, and what persons did, as inputs.

        An acknowledgement or a ticked step changes no freeze. It is found by its row in the audit log.
        """
        marks = {freeze.identity for freeze in session.guard.store.active_freezes()}
        action_number = _last_action_number(session)
        is_changed = marks != {freeze.identity for freeze in session.guard.active_freezes}
        if is_changed or action_number > self._stored_actions.get(session.directory, 0):
            self._stored_actions[session.directory] = action_number
            self.pipeline.store([InputItem("g", number, session.guard.store.to_bytes())], {})

    def compare(self) -> None:
        """Compare all orders up to now and wait for the result."""
        self.comparison.compare_now()

    def close(self) -> None:
        """End this run in good order. The next run continues the candidate's day."""
        self.journal.read(self.day.trade_date)
        self.compare()
        self.shadow_run.state.stopped = True
        self.shadow_run.save()
        self._probes.close()
        self._notes.close()
        for feed in self.feeds.values():
            feed.close()
        self.day.close()
        self.journal.close()
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


def _last_action_number(session: LiveSession) -> int:
    """The number of the last audit row about what a person did to the candidate's freeze store; 0 without one."""
    marks = ",".join("?" * len(_ACTIONS_OF_PERSONS))
    rows = session.guard.store.database.read(
        f"SELECT COALESCE(MAX(number), 0) FROM audit WHERE act IN ({marks})", *_ACTIONS_OF_PERSONS
    )
    return int(rows[0][0])


def _is_prefix(left_path: Path, right_path: Path) -> bool:
    """Whether the shorter of two journals is a prefix of the longer one."""
    size = min(left_path.stat().st_size, right_path.stat().st_size)
    with open(left_path, "rb") as left_file, open(right_path, "rb") as right_file:
        while size > 0:
            part = min(size, _COMPARED_AT_ONCE)
            if left_file.read(part) != right_file.read(part):
                return False
            size -= part
    return True
