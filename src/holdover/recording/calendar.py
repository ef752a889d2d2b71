"""When an exchange trades: sessions, holidays, early closes, daylight saving, from a maintained library.

`exchange_calendars` is an optional extra, loaded only when a recording is made; a recording carries its own hours.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from holdover.recording.format import BadRecording


class Hours(msgspec.Struct, frozen=True):
    """One session's regular hours (ns, UTC) and its neighbours."""

    open_ns: int
    close_ns: int
    previous_session: str
    next_session: str
    early_close: bool


@lru_cache(maxsize=32)
def _calendar(name: str, year: int) -> Any:
    try:
        import exchange_calendars
    except ImportError as problem:
        raise BadRecording("exchange calendars are not installed: pip install 'holdover[calendars]'") from problem
    try:
        return exchange_calendars.get_calendar(name, start=f"{year - 1}-12-01", end=f"{year + 1}-02-01")
    except exchange_calendars.errors.InvalidCalendarName as problem:
        raise BadRecording(f"no exchange calendar is called {name!r}; XNYS, XLON, 24/5 and 24/7 are some") from problem


def hours(calendar: str, trade_date: str) -> Hours:
    """The hours of a session. Raises `BadRecording` when the day is none."""
    import pandas as pd

    kept = _calendar(calendar, int(trade_date[:4]))
    day = pd.Timestamp(trade_date)
    if not kept.is_session(day):
        nearest = kept.date_to_session(day, direction="next").strftime("%Y-%m-%d")
        raise BadRecording(f"{trade_date} is no session of {calendar}; the next one is {nearest}")
    usual = kept.session_close(day) - kept.session_open(day)
    lengths = [kept.session_close(session) - kept.session_open(session) for session in kept.sessions_window(day, -10)]
    return Hours(
        open_ns=int(kept.session_open(day).value),
        close_ns=int(kept.session_close(day).value),
        previous_session=kept.previous_session(day).strftime("%Y-%m-%d"),
        next_session=kept.next_session(day).strftime("%Y-%m-%d"),
        early_close=usual < max(lengths),
    )


def session_at(calendar: str, time_ns: int) -> str:
    """The session that is open at a time, or else the next one (ns, UTC); its trade date."""
    import pandas as pd

    at = pd.Timestamp(time_ns, tz="UTC")
    closes = _calendar(calendar, at.year).closes
    return str(closes.index[closes > at][0].strftime("%Y-%m-%d"))


def is_session(calendar: str, time_ns: int) -> bool:
    """Whether a session is open at a time (ns, UTC)."""
    return hours(calendar, session_at(calendar, time_ns)).open_ns <= time_ns


def neighbours(calendar: str, trade_date: str) -> tuple[str, str]:
    """The sessions before and after a day that need not be one itself."""
    import pandas as pd

    kept = _calendar(calendar, int(trade_date[:4]))
    day = pd.Timestamp(trade_date)
    before = kept.date_to_session(day - pd.Timedelta(days=1), direction="previous")
    after = kept.date_to_session(day + pd.Timedelta(days=1), direction="next")
    return before.strftime("%Y-%m-%d"), after.strftime("%Y-%m-%d")


def midnight_ns(trade_date: str, zone: str) -> int:
    """Midnight of a date in a time zone, in ns since the epoch."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    return int(datetime.fromisoformat(trade_date).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000_000
