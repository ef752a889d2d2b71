"""The words of the pages: times, durations, counts and the headline of a breach, as people say them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from holdover.runtime import Breach

_NANOSECONDS: Final = 1_000_000_000
_REPRESENTATION: Final = re.compile(r"<([A-Z]\w*)( [^<>]*)?>")
_WORD_START: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


def format_count(value: int) -> str:
    """Returns a whole number with separators."""
    return f"{value:,}"


def format_clock(time_ns: int) -> str:
    """Returns the time of day with milliseconds, in UTC."""
    seconds, rest = divmod(time_ns, _NANOSECONDS)
    day = seconds % 86_400
    return f"{day // 3600:02d}:{day // 60 % 60:02d}:{day % 60:02d}.{rest // 1_000_000:03d} UTC"


def format_time(time_ns: int) -> str:
    """Returns date and time to the second, in UTC. Raises `ValueError` or `OverflowError` beyond the calendar."""
    return datetime.fromtimestamp(time_ns / _NANOSECONDS, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_duration(seconds: float) -> str:
    """Returns a duration in the largest whole unit."""
    whole_seconds = max(0, round(seconds))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if whole_seconds >= size:
            count = whole_seconds // size
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{whole_seconds} second{'s' if whole_seconds != 1 else ''}"


def breach_headline(breach: Breach) -> str:
    """Returns the explanation of a breach without its invariant; the raw records are shown below it."""
    return strip_invariant(breach.explanation, breach.invariant)


def strip_invariant(explanation: str, invariant: str) -> str:
    """Returns an explanation without the invariant's name in front and without the brackets of records."""
    text, count = explanation.removeprefix(f"{invariant}: "), 1
    while count:  # a record may contain another
        text, count = _REPRESENTATION.subn(lambda match: f"{_noun(match[1])}{match[2] or ''}", text)
    return text


def _noun(class_name: str) -> str:
    return _WORD_START.sub(" ", class_name).capitalize()
