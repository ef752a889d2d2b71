"""Exchange calendars: sessions, holidays, early closes and daylight saving.

`exchange_calendars` is an optional extra and is loaded only when a recording is made. A recording carries its
own hours.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Any

import msgspec

from holdover.model import Instrument
from holdover.recording.format import Meta, Provenance, RecordingError


class SessionHours(msgspec.Struct, frozen=True):
    """The regular hours of one session (ns, UTC), and the sessions before and after it."""

    open_ns: int
    close_ns: int
    previous_session: str
    next_session: str
    early_close: bool

    def to_meta(
        self,
        instrument: Instrument,
        trade_date: str,
        provenance: Provenance,
        *,
        simulated: bool = False,
        encoding: str = "raw",
        traded_qty: int = 0,
        trades: int = 0,
    ) -> Meta:
        """Return the header of a recording of this session; the writer adds what it counts."""
        return Meta(
            instrument=instrument,
            trade_date=trade_date,
            open_ns=self.open_ns,
            close_ns=self.close_ns,
            previous_session=self.previous_session,
            next_session=self.next_session,
            early_close=self.early_close,
            provenance=provenance,
            simulated=simulated,
            encoding=encoding,
            traded_qty=traded_qty,
            trades=trades,
        )


@lru_cache(maxsize=32)
def _calendar(name: str, year: int) -> Any:
    try:
        import exchange_calendars
    except ImportError as problem:
        raise RecordingError("exchange calendars are not installed: pip install 'holdover[calendars]'") from problem
    if not 1971 <= year <= 2260:
        raise RecordingError(f"the calendar {name} has no year {year}")
    try:
        return exchange_calendars.get_calendar(name, start=f"{year - 1}-12-01", end=f"{year + 1}-02-01")
    except exchange_calendars.errors.InvalidCalendarName as problem:
        raise RecordingError(
            f"no exchange calendar is called {name!r}; XNYS, XLON, 24/5 and 24/7 are some"
        ) from problem


def hours(calendar: str, trade_date: str) -> SessionHours:
    """Return the hours of a session. Raises `RecordingError` when the day is not a session of the calendar."""
    import pandas as pd

    try:
        session_calendar, day = _calendar(calendar, date.fromisoformat(trade_date).year), pd.Timestamp(trade_date)
    except ValueError as problem:
        if isinstance(problem, RecordingError):
            raise
        raise RecordingError(f"the day {trade_date[:20]!r} should be a date, YYYY-MM-DD") from problem
    if not session_calendar.is_session(day):
        nearest = session_calendar.date_to_session(day, direction="next").strftime("%Y-%m-%d")
        raise RecordingError(f"{trade_date} is no session of {calendar}; the next one is {nearest}")
    usual = session_calendar.session_close(day) - session_calendar.session_open(day)
    lengths = [
        session_calendar.session_close(session) - session_calendar.session_open(session)
        for session in session_calendar.sessions_window(day, -10)
    ]
    return SessionHours(
        open_ns=int(session_calendar.session_open(day).value),
        close_ns=int(session_calendar.session_close(day).value),
        previous_session=session_calendar.previous_session(day).strftime("%Y-%m-%d"),
        next_session=session_calendar.next_session(day).strftime("%Y-%m-%d"),
        early_close=usual < max(lengths),
    )


def hours_or_span(calendar: str, trade_date: str, open_ns: int, close_ns: int) -> SessionHours:
    """Return the hours of a session; for a day that is none, the span given (ns) and the sessions around it.

    Raises `RecordingError` when there is no such calendar.
    """
    try:
        return hours(calendar, trade_date)
    except RecordingError:
        before, after = neighbouring_sessions(calendar, trade_date)
        return SessionHours(open_ns, close_ns, before, after, False)


def session_at(calendar: str, time_ns: int) -> str:
    """Return the trade date of the session that is open at a time (ns, UTC), or of the next session."""
    import pandas as pd

    at = pd.Timestamp(time_ns, tz="UTC")
    closes = _calendar(calendar, at.year).closes
    return str(closes.index[closes > at][0].strftime("%Y-%m-%d"))


def is_session(calendar: str, time_ns: int) -> bool:
    """Return whether a session is open at a time (ns, UTC)."""
    return hours(calendar, session_at(calendar, time_ns)).open_ns <= time_ns


def neighbouring_sessions(calendar: str, trade_date: str) -> tuple[str, str]:
    """Return the sessions before and after a day, which need not be a session."""
    import pandas as pd

    session_calendar = _calendar(calendar, int(trade_date[:4]))
    day = pd.Timestamp(trade_date)
    before = session_calendar.date_to_session(day - pd.Timedelta(days=1), direction="previous")
    after = session_calendar.date_to_session(day + pd.Timedelta(days=1), direction="next")
    return before.strftime("%Y-%m-%d"), after.strftime("%Y-%m-%d")


def midnight_ns(trade_date: str, zone: str) -> int:
    """Return midnight of a date in a time zone, in ns since the epoch."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    return int(datetime.fromisoformat(trade_date).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000_000
