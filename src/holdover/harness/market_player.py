"""Plays a recorded day: market events and timers in the order of their times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import msgspec

from holdover.harness.subject_host import SubjectHost
from holdover.harness.tape import Tape, TapeOffset
from holdover.recording import MarketEvent, Recording
from holdover.state import StateError, Stateful


class MarketPlayerState(msgspec.Struct):
    """The state of a `MarketPlayer`. `next_event` has been taken from the tape and not been played."""

    next_event: MarketEvent | None
    market_events: int
    is_stopped: bool


class MarketPlayer(Stateful[MarketPlayerState]):
    """Runs the recorded market of one day on the clock; the venue receives its events.

    `market_events` counts the events of all days. `is_stopped` says that `stop` ended the last run early.
    """

    State = MarketPlayerState
    IN_PROCESS: ClassVar = {
        "_day": "files of recordings; a list that each day replaces",
        "_tape": "an iterator over files; a trial plays on a new one",
        "_events": "the iterator of the tape",
    }
    DERIVED: ClassVar = {"host": "a part that saves itself", "world": "parts that save themselves"}

    def __init__(self, host: SubjectHost) -> None:
        self.host, self.world = host, host.world
        self.market_events = 0
        self.is_stopped = False
        self._day: list[Recording] = []
        self._tape = Tape([], 0, 0)
        self._events: Iterator[MarketEvent] = iter(())
        self.next_event: MarketEvent | None = None

    # -- the day ------------------------------------------------------------------------------------------------

    def load_day(self, recordings: list[Recording]) -> None:
        """Use the recordings of a day, one for each instrument. `open_tape` follows."""
        metas = [recording.meta for recording in recordings]
        if len({meta.trade_date for meta in metas}) != 1:
            raise ValueError(f"one day is played at a time, these are {[meta.trade_date for meta in metas]}")
        symbols = [meta.instrument.symbol for meta in metas]
        if len(set(symbols)) < len(symbols):
            raise ValueError(f"{metas[0].trade_date}: an instrument is recorded twice: {', '.join(symbols)}")
        self._day = recordings
        self.next_event = None

    @property
    def day(self) -> list[Recording]:
        """The recordings of the day."""
        return self._day

    def hours(self) -> tuple[int, int]:
        """Return open and close of the day in ns; for several instruments the earliest open and the latest close."""
        if not self._day:
            raise ValueError("no day is loaded, so there are no hours; load_day comes first")
        metas = [recording.meta for recording in self._day]
        return min(meta.open_ns for meta in metas), max(meta.close_ns for meta in metas)

    def open_tape(self, offset: TapeOffset | None = None, next_event: MarketEvent | None = None) -> None:
        """Open the tape of the day at the current time, or at an offset with the event that was taken before it."""
        self._tape = Tape(self._day, self.world.clock.now_ns, self.hours()[1], offset)
        self._events = self._tape.events()
        if offset is not None and next_event is not None:
            self.next_event = next_event

    @property
    def tape_offset(self) -> TapeOffset:
        """The position in the recorded market."""
        return self._tape.offset

    def show_opening_market(self) -> None:
        """Give the venue the last event of each instrument before the subject starts."""
        now_ns = self.world.clock.now_ns
        for number, recording in enumerate(self._day):
            index = recording.index_at(now_ns) - 1
            if index >= 0:
                event = recording.event_at(index)
                self.world.venue.on_market((event[0], number, 1, *event[3:]))

    # -- state --------------------------------------------------------------------------------------------------

    def take_state(self, state: MarketPlayerState) -> None:
        """Take over a decoded state. Raises `StateError` for a negative count of events."""
        if state.market_events < 0:
            raise StateError(f"the stored state of MarketPlayer is damaged: {state.market_events} events")
        super().take_state(state)

    # -- playing ------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the run after the current event or timer."""
        self.is_stopped = True

    def resume(self) -> None:
        """Forget an earlier `stop`."""
        self.is_stopped = False

    def play(self, end_ns: int) -> None:
        """Run market events and timers in time order, up to `end_ns` or until `stop`.

        After a `stop` it plays one event and ends, until `resume`: a session that a condition stopped ends its day
        there, and not at the recorded close.
        """
        clock, on_market = self.world.clock, self.world.venue.matching.on_market
        events = self._events
        event = self.next_event or next(events, None)
        self.next_event = None
        count = 0
        try:
            while event is not None:
                time_ns = event[0]
                if time_ns >= end_ns:
                    break
                if clock.next_ns <= time_ns:
                    self.next_event = event
                    self._run_timers(time_ns)
                    self.next_event = None
                    if self.is_stopped:
                        break
                if time_ns > clock.now_ns:
                    clock.now_ns = time_ns
                count += 1
                current, event = event, None
                on_market(current)
                event = next(events, None)
                if self.is_stopped:
                    break
        finally:
            self.next_event = event if event is not None else next(events, None)
            self.market_events += count
            self.host.guard.cells.market_events += count
        if not self.is_stopped:
            self._run_timers(max(end_ns, clock.now_ns))

    def _run_timers(self, time_ns: int) -> None:
        host, clock, link = self.host, self.world.clock, self.world.link
        while clock.next_ns <= time_ns and not self.is_stopped:
            clock.run_until(clock.next_ns)
            if link.is_quiet and host.quiet_mutation != host.guard.monitor.mutations:
                host.check_quiescence()
        if not self.is_stopped:
            clock.run_until(time_ns)

    def drain_in_flight(self) -> None:
        """Let the messages in flight at the close arrive before the venue ends the day."""
        self.run_for(4 * self.world.link.latency_ns)

    def run_for(self, duration_ns: int) -> None:
        """Run the timers of a while without market events; then the guard compares the records."""
        if duration_ns < 0:
            raise ValueError(f"the world cannot run for {duration_ns} ns, should be from 0 on")
        self.world.clock.run_until(self.world.clock.now_ns + duration_ns)
        self.host.check_quiescence()
