"""Takes the inputs of a live shadow from their feeds to the candidate, in five stages.

1. *collect*: `InputMerge` reads the feeds side by side and gives each item its time.
2. *arrive*: what sent something is alive; the latest time stamp moves the feed's clock.
3. *split*: items are cut where the running day ends.
4. *store*: `InputStore` writes the items and the offsets of the feeds, synced.
5. *apply*: `InputApplier` lets time pass to each item and hands it to the sessions.

A shadow that was killed begins again at stage 5 with what was stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from holdover.harness.live_session import LiveSession
from holdover.recording.format import QUOTE
from holdover.runtime.journal import JOURNAL_FILE
from holdover.shadow.candidate_journal import CandidateJournal
from holdover.shadow.incumbent import IncumbentReader, IncumbentReportError
from holdover.shadow.input_merge import InputMerge
from holdover.shadow.input_store import InputItem, InputStore
from holdover.shadow.live_day import LiveDay
from holdover.shadow.shadow_run import ShadowCounts, ShadowRun
from holdover.world import ReplicatingVenue


class InputApplier:
    """Applies stored inputs to the running day. `counts` is where faults and events of an input are counted."""

    def __init__(self, day: LiveDay, merge: InputMerge, run: ShadowRun, journal: CandidateJournal) -> None:
        self.day, self.merge, self.run, self.journal = day, merge, run, journal
        self.incumbent = IncumbentReader({instrument.symbol: instrument for instrument in day.instruments})
        self.counts: ShadowCounts = run
        self.is_replaying = False
        self._seqs: dict[int, int] = {}
        self._subject_error = ""

    def apply(self, now_ns: int, items: Sequence[InputItem]) -> None:
        """Apply items in order, then let time pass to `now_ns`."""
        for item in items:
            _APPLY.get(item.kind, InputApplier._apply_event)(self, item, now_ns)
        self.day.now_ns = max(self.day.now_ns, now_ns)
        self._pass_time()

    def _apply_event(self, item: InputItem, now_ns: int) -> None:
        """Apply one item of market data; before the day has begun the latest quote of each instrument is kept."""
        day = self.day
        reading = self.merge.read_market(item, day.now_ns)
        if reading.problem:
            self.counts.record_fault("gap", reading.problem, "market data")
        day.now_ns = max(day.now_ns, reading.time_ns)
        if reading.event is None:
            return
        number = reading.event[1]
        previous_seq = self._seqs.get(number, 0)
        if reading.seq:
            self._seqs[number] = reading.seq
            if previous_seq and reading.seq > previous_seq + 1:
                symbol = day.instruments[number].symbol
                self.counts.record_fault("gap", f"{symbol}: {reading.seq} came after {previous_seq}", "market data")
        self.counts.state.market_events += 1
        self._begin_if_due()
        if day.session is None:
            if reading.event[2] == QUOTE:
                day.early_quotes[number] = reading.event
            return
        for arm in day.arms:
            if arm.session is not None:
                arm.session.push_event(reading.event)

    def _apply_report(self, item: InputItem, now_ns: int) -> None:
        """Apply the reports of one line about the incumbent's orders to the simulated venues."""
        try:
            reports = self.incumbent.read_line(item.data)
        except IncumbentReportError as problem:
            self.counts.record_fault("gap", f"a line of the incumbent's cannot be read: {problem}"[:300], "incumbent")
            reports = problem.reports
        if not reports:
            return
        self.day.now_ns = max(self.day.now_ns, min(reports[0].time_ns, now_ns))
        self._pass_time()
        for arm in self.day.arms:
            if arm.session is not None and isinstance(arm.session.venue, ReplicatingVenue):
                for report in reports:
                    arm.session.venue.apply_report(report)

    def _apply_freezes(self, item: InputItem, now_ns: int) -> None:
        """Let a session's guard read its freeze store after an outside change."""
        session = self.day.arms[item.number].session
        if session is not None:
            if self.is_replaying:
                session.guard.store.restore_bytes(item.data)
            session.guard.reload()

    def _pass_time(self) -> None:
        self._begin_if_due()
        self.day.play()
        self._report_subject_error()

    def _begin_if_due(self) -> None:
        if not self.day.begin_if_due():
            return
        session, state = self.day.session, self.run.state
        assert session is not None
        state.digest = session.guard.catalogue.digest
        state.guard = str(session.directory / "guard")
        self.journal.open(session.directory / JOURNAL_FILE)
        self._subject_error = ""
        if not state.since_ns:
            state.since_ns = self.day.now_ns
        self.run.components.mark_alive("market data", self.run.monotonic())
        self._report_subject_error()

    def _report_subject_error(self) -> None:
        session = self.day.session
        if session is not None and session.subject_error != self._subject_error:
            self._subject_error = session.subject_error
            self.counts.record_fault("crash", session.subject_error, "candidate")

    def end_day(self) -> None:
        """Run the close and the night, and go to the next day, which starts from the snapshots alone."""
        day, state = self.day, self.run.state

        def count_night(session: LiveSession) -> None:
            self.counts.record_night(session.carried[-1])
            self.counts.state.sessions += 1
            self.journal.read(day.trade_date)

        day.end(self._report_subject_error, count_night)
        self.journal.close()
        following = day.next_date()
        state.counted_lines, state.counted_lines_date = 0, following
        self.run.save()
        day.start = msgspec.structs.replace(day.start, incumbent=self.incumbent.to_bytes())
        self.journal.counted_lines = 0
        day.set_date(following)


_APPLY: Final[dict[str, Callable[[InputApplier, InputItem, int], None]]] = {
    "m": InputApplier._apply_event,
    "t": InputApplier._apply_event,
    "r": InputApplier._apply_report,
    "g": InputApplier._apply_freezes,
}
"""How an item is applied, by its kind."""


class InputPipeline:
    """The five stages; see the module. `run` takes new inputs through all of them."""

    def __init__(self, merge: InputMerge, inputs: InputStore, applier: InputApplier, run: ShadowRun) -> None:
        self.merge, self.inputs, self.applier, self.day, self.shadow_run = merge, inputs, applier, applier.day, run

    def run(self) -> bool:
        """Apply new inputs and let time pass. Returns whether there were new inputs."""
        merge = self.merge
        earlier = list(merge.waiting) if merge.clock_offset_ns is None else []
        new = merge.collect(self.day.now_ns, is_day_known=bool(self.day.trade_date))
        if earlier or new:
            self._arrive([item for _, item in [*earlier, *new]])
        if self.day.trade_date:  # only market data determines the day
            due = merge.due_items()
            while due:
                batch = self._split(due)
                due = due[len(batch) :]
                merge.drop(len(batch))
                self.store(batch, merge.offsets())
            if not new and merge.clock_offset_ns is not None:
                self.store([], {})
        return bool(new)

    def _arrive(self, items: Sequence[InputItem]) -> None:
        """Mark what sent something as alive; the first market data determines the first day."""
        components, day = self.shadow_run.components, self.day
        monotonic_ns = self.shadow_run.monotonic()
        if any(item.kind == "r" for item in items) and "incumbent" in components.names:
            components.mark_alive("incumbent", monotonic_ns)
        times = self.merge.note_times(items, day.now_ns, monotonic_ns)
        if times:
            components.mark_alive("market data", monotonic_ns)
            if not day.trade_date:
                day.set_date(day.session_at(min(times)))
                day.start = day.first_start(self.applier.incumbent.to_bytes())
                self._begin_stored_day()

    def _begin_stored_day(self) -> None:
        self.inputs.begin_day(self.day.trade_date, self.day.start, self.day.config.input.keep_days)
        self.trim_days()

    def trim_days(self) -> None:
        """Delete the files of days that are older than the configuration keeps."""
        state = self.shadow_run.state
        state.compared_since_ns = max(state.compared_since_ns, self.day.trim(self.inputs.needed_snapshots()))

    def _split(self, items: list[InputItem]) -> list[InputItem]:
        """Return the items before the first event after the end of the running day.

        When the first item is such an event, the days that are over end, and the item belongs to the next one.
        """
        for number, item in enumerate(items):
            if item.kind != "r":
                time_ns = self.merge.read_market(item, self.day.now_ns).time_ns
                if time_ns >= self.day.end_ns:
                    if number:
                        return items[:number]
                    while time_ns >= self.day.end_ns:
                        self.store([], {}, now_ns=self.day.end_ns)
                    return [item]
        return items

    def store(self, items: list[InputItem], offsets: dict[str, bytes], *, now_ns: int | None = None) -> None:
        """Store inputs with the offsets of the feeds after them, then apply them."""
        day, merge = self.day, self.merge
        if now_ns is None:
            # With a backlog, time advances only as far as it has been read.
            feed_ns = self.shadow_run.monotonic() + (merge.clock_offset_ns or 0)
            now_ns = min(feed_ns, day.end_ns, merge.horizon_ns)
        now_ns = max(now_ns, day.now_ns)
        if not items and not offsets and now_ns == day.now_ns:
            return
        number = self.inputs.add_batch(day.trade_date, now_ns, items, offsets, merge.waiting)
        self.apply(number, now_ns, items)

    def apply(self, number: int, now_ns: int, items: Sequence[InputItem]) -> None:
        """Apply a stored batch; at its end the day may end."""
        self.applier.apply(now_ns, items)
        self.shadow_run.state.batch = max(self.shadow_run.state.batch, number)
        if self.day.is_over:
            self.applier.end_day()
            self._begin_stored_day()
