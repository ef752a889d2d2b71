"""A session over a live market: the lifecycle and guard of `Session`, over a day that is not recorded yet.

The driver passes the time of each event, in the order of arrival, so that the same order gives the same
journal in any process. A subject that raises counts as killed; the world and the guard go on without it.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from holdover.harness.market_player import MarketPlayer
from holdover.harness.session import Session
from holdover.harness.subject_host import SubjectHost
from holdover.harness.tape import Tape, TapeOffset
from holdover.model import ImpossibleStateError, Instrument
from holdover.recording import MarketEvent, Provenance, Recording, RecordingStore
from holdover.recording.calendar import SessionHours, hours


class FutureDayStore(RecordingStore):
    """Future days: the calendar hours of each instrument and no recorded events.

    `traded` gives lots and trades of the days before, by symbol; a plan may size its orders by them.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        traded: dict[str, tuple[int, int]] | None = None,
        hours_of: Callable[[str, str], SessionHours] = hours,
    ) -> None:
        self._instruments = {instrument.symbol: instrument for instrument in instruments}
        self._traded_quantities, self._hours_of = traded or {}, hours_of

    def get(self, symbol: str, trade_date: str) -> Recording:
        """Return one empty day. Raises `RecordingError` when the calendar has no such session."""
        instrument = self._instruments[symbol]
        session_hours = self._hours_of(instrument.calendar, trade_date)
        traded_qty, trades = self._traded_quantities.get(symbol, (0, 0))
        meta = session_hours.to_meta(
            instrument, trade_date, Provenance(source="live"), traded_qty=traded_qty, trades=trades
        )
        return Recording(Path(trade_date), meta, "", b"", 0, ())


class IncomingTape(Tape):
    """A tape of live events. Iteration ends when no event is waiting, and continues after the next `push`."""

    def __init__(self) -> None:
        super().__init__((), 0, 0)
        self._pending_events: deque[MarketEvent] = deque()
        self._played_count = 0

    @property
    def offset(self) -> TapeOffset:
        """The number of events that have been played."""
        return 0, self._played_count

    def events(self) -> Iterator[MarketEvent]:
        """Return the tape as its own iterator."""
        return self

    def __iter__(self) -> IncomingTape:
        return self

    def __next__(self) -> MarketEvent:
        if not self._pending_events:
            raise StopIteration
        self._played_count += 1
        return self._pending_events.popleft()

    def push(self, event: MarketEvent) -> None:
        """Add an event."""
        self._pending_events.append(event)


class LiveMarketPlayer(MarketPlayer):
    """A `MarketPlayer` for a day whose events come in while it is played.

    `opening_events` describe the market before the day began.
    """

    DERIVED: ClassVar = {"opening_events": "input of the driver, given before each day"}

    def __init__(self, host: SubjectHost) -> None:
        super().__init__(host)
        self.opening_events: Sequence[MarketEvent] = ()

    def push_event(self, event: MarketEvent) -> None:
        """Add an incoming event. Raises `ImpossibleStateError` before the day has begun."""
        if not isinstance(self._tape, IncomingTape):
            raise ImpossibleStateError("a market event came in before the day of a live session began")
        self._tape.push(event)

    def open_tape(self, offset: TapeOffset | None = None, next_event: MarketEvent | None = None) -> None:
        """Open an empty tape; the offset of another process says nothing about events to come."""
        self._tape = IncomingTape()
        self._events = self._tape.events()
        self.next_event = next_event if offset is not None else self.next_event

    def show_opening_market(self) -> None:
        """Give the venue the events that describe the market before the day began."""
        for event in self.opening_events:
            self.world.venue.on_market(event)


class LiveSession(Session):
    """A `Session` over a `FutureDayStore`.

    Call `push_event` for each incoming event, then `play` up to the current time.
    """

    player_type = LiveMarketPlayer
    player: LiveMarketPlayer

    DERIVED: ClassVar = {"subject_error": "a message about this process"}
    subject_error = ""
    """The exception that ended the subject, in words; empty while it runs."""

    def push_event(self, event: MarketEvent) -> None:
        """Add an incoming event. Its second field is the index of the instrument in the session's symbols."""
        self.player.push_event(event)

    def play(self, until_ns: int) -> None:
        """Run the incoming events and the timers up to a time. A subject that raises counts as killed."""
        while True:
            try:
                super().play(until_ns)
                return
            except Exception as error:
                self._on_subject_error(error)

    def begin(self, trade_date: str | None = None) -> None:
        """See `Session.begin`."""
        try:
            super().begin(trade_date)
        except Exception as error:
            if self.phase != "open":
                raise
            self._on_subject_error(error)

    def end(self, *, immediately: bool = False) -> None:
        """Play the rest of the day, then end the day at the venue and stop the subject."""
        self.play(self.hours()[1])
        try:
            super().end(immediately=True)
        except Exception as error:
            self._on_subject_error(error)
            if self.venue.is_open:
                super().end(immediately=True)
            self.phase = "ended"

    def _on_subject_error(self, error: Exception) -> None:
        if self.subject is None and self.host.env is None:
            raise error  # there is no subject, so the harness or the venue raised
        frame = traceback.extract_tb(error.__traceback__)[-1]
        self.subject_error = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
        self.record_transition("kill", f"died of {self.subject_error}")
        self.host.finish_kill()
