"""A session whose market comes in as it happens: the same lifecycle and guard, over a day that is not recorded yet.

Whoever drives it says what time it is, in the order in which things came in, so that the same order gives the same
journal in any process. A subject that raises has died: the world goes on without it, and the guard with it.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from holdover.harness.session import Session
from holdover.harness.tape import Place, Tape
from holdover.model import Instrument
from holdover.recording import MarketEvent, Meta, Provenance, Recording, RecordingStore
from holdover.recording.calendar import Hours, hours


class DaysToCome(RecordingStore):
    """Days with the hours of their instruments' calendar and nothing recorded.

    `traded` (by symbol) is what a plan may suppose of a day: lots and trades of the days before.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        traded: dict[str, tuple[int, int]] | None = None,
        hours_of: Callable[[str, str], Hours] = hours,
    ) -> None:
        self._instruments = {one.symbol: one for one in instruments}
        self._traded, self._hours_of = traded or {}, hours_of

    def get(self, symbol: str, trade_date: str) -> Recording:
        """One day, empty. Raises `BadRecording` where the calendar has no such session."""
        instrument = self._instruments[symbol]
        told = self._hours_of(instrument.calendar, trade_date)
        traded_qty, trades = self._traded.get(symbol, (0, 0))
        meta = Meta(
            instrument=instrument,
            trade_date=trade_date,
            open_ns=told.open_ns,
            close_ns=told.close_ns,
            previous_session=told.previous_session,
            next_session=told.next_session,
            early_close=told.early_close,
            provenance=Provenance(source="live"),
            traded_qty=traded_qty,
            trades=trades,
        )
        return Recording(Path(trade_date), meta, "", b"", 0, ())


class Incoming(Tape):
    """What has come in and has not been played yet. It ends whenever there is no more now, and goes on after that."""

    def __init__(self) -> None:
        super().__init__((), 0, 0)
        self._waiting: deque[MarketEvent] = deque()
        self._given = 0

    @property
    def place(self) -> Place:
        """How many events have been played."""
        return 0, self._given

    def events(self) -> Iterator[MarketEvent]:
        """Itself."""
        return self

    def __iter__(self) -> Incoming:
        return self

    def __next__(self) -> MarketEvent:
        if not self._waiting:
            raise StopIteration
        self._given += 1
        return self._waiting.popleft()

    def push(self, event: MarketEvent) -> None:
        """One more has come in."""
        self._waiting.append(event)


class LiveSession(Session):
    """A `Session` over `DaysToCome`: `market` what comes in, then `play` up to the time that it is."""

    problem = ""
    """What the subject died of, when it did so by itself."""

    before: Sequence[MarketEvent] = ()
    """The market as it stood before the day began."""

    def market(self, event: MarketEvent) -> None:
        """An event has come in; its second field is the instrument's place in the order given."""
        assert isinstance(self._tape, Incoming)
        self._tape.push(event)

    def play(self, until_ns: int) -> None:
        """Let what has come in and the timers run up to a time; a subject that raises in it has died."""
        while True:
            try:
                super().play(until_ns)
                return
            except Exception as problem:
                self._died(problem)

    def begin(self, trade_date: str | None = None) -> None:
        """See `Session.begin`."""
        try:
            super().begin(trade_date)
        except Exception as problem:
            if self.phase != "open":
                raise
            self._died(problem)

    def end(self, *, now: bool = False) -> None:
        """The venue ends its day, the subject is stopped. What was to come of the day has come."""
        self.play(self.hours()[1])
        try:
            super().end(now=True)
        except Exception as problem:
            self._died(problem)
            if self.venue.is_open:
                super().end(now=True)
            self.phase = "ended"

    def _died(self, problem: Exception) -> None:
        if self.subject is None and self.env is None:
            raise problem  # not the subject's doing: there is none
        where = traceback.extract_tb(problem.__traceback__)[-1]
        self.problem = f"{type(problem).__name__}: {problem} ({Path(where.filename).name}:{where.lineno})"
        self._said("kill", f"died of {self.problem}")
        self._dead()

    def _market_before_the_open(self, now_ns: int) -> None:
        for event in self.before:
            self.venue.on_market(event)

    def _read_on(self, place: Place | None = None) -> None:
        self._tape = Incoming()
        self._events = self._tape.events()
