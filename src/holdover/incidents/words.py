"""The words of the incident figures: dates, durations, rates and ratios."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from holdover.incidents.figures import DurationStats, Rate, RateRatio

STEP_WORDS: Final = {"acknowledge": "acknowledged", "diagnose": "diagnosed", "resolve": "resolved"}
"""What an incident is after each step."""


def duration_text(seconds: float | None) -> str:
    """Returns a duration in a fitting unit; a dash for None."""
    if seconds is None:
        return "–"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def date_text(time_ns: int) -> str:
    """Returns the date of a time, in UTC."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d")


def rate_text(rate: Rate) -> str:
    """Returns a rate with its interval."""
    return f"{rate.rate:.2f} per two weeks ({rate.low:.2f} to {rate.high:.2f})"


def ratio_text(rate_ratio: RateRatio) -> str:
    """Returns the ratio of two rates with its interval and p-value."""
    if rate_ratio.ratio is None and rate_ratio.high is None and not rate_ratio.low:
        return "cannot be told: no incident in either period"
    ratio = "none before" if rate_ratio.ratio is None else f"{rate_ratio.ratio:.2f}"
    high = "no bound" if rate_ratio.high is None else f"{rate_ratio.high:.2f}"
    return f"{ratio} ({rate_ratio.low:.2f} to {high}), p = {rate_ratio.p:.2g}"


def ratio_sentence(rate_ratio: RateRatio) -> str:
    """Returns the meaning of the ratio as a sentence."""
    if rate_ratio.high is not None and rate_ratio.high < 1:
        return "Incidents are rarer since then."
    if rate_ratio.low > 1:
        return "Incidents are more frequent since then."
    return "No change of the rate can be told from this: the interval holds 1."


def duration_stats_text(stats: DurationStats) -> str:
    """Returns the median of durations with its interval and the number of incidents that it covers."""
    if stats.median is None:
        return f"never yet, of {stats.count}"
    interval = (
        f" ({duration_text(stats.low)} to {duration_text(stats.high)})"
        if stats.low is not None
        else ", too few for an interval"
    )
    return f"median {duration_text(stats.median)}{interval}, {stats.observed_count} of {stats.count}"
