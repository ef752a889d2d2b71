"""The rate and duration of incidents, with exact intervals that do not assume a normal distribution.

Rates: incidents are counted as a Poisson process over the watched time, with Garwood's interval (SciPy's quantiles of
chi-squared). Two periods are compared by the conditional exact test: given all incidents of both periods, those after
the date are binomial, and the Clopper-Pearson interval of that share (`scipy.stats.binomtest`) is converted into one
for the ratio of the rates. Durations: the median of the observed ones, with the interval of order statistics
(`scipy.stats.quantile_test`), which needs at least six.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from holdover.incidents.ledger import Incident

FORTNIGHT_NS: Final = 14 * 86_400 * 1_000_000_000
CONFIDENCE: Final = 0.95
METHOD: Final = (
    "Rates: Garwood's exact Poisson interval. Ratio: conditional exact test of two Poisson rates, the "
    "Clopper-Pearson interval of the share after the date turned into one of the ratio. "
    "Times: median of those that came, interval of order statistics. All at 95 %."
)


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Incidents in a period and their rate per two weeks, with its interval."""

    since_ns: int
    until_ns: int
    count: int
    rate: float
    low: float
    high: float

    @property
    def fortnights(self) -> float:
        """The length of the period in units of two weeks."""
        return (self.until_ns - self.since_ns) / FORTNIGHT_NS


class RateRatio(msgspec.Struct, frozen=True, kw_only=True):
    """The rate after a date divided by the rate before it. None when undefined: no incident before, or none at all."""

    ratio: float | None
    low: float
    high: float | None
    p: float


class DurationStats(msgspec.Struct, frozen=True, kw_only=True):
    """Durations from the opening to a step, in s: `observed_count` of `count` incidents reached it; None when
    too few did.
    """

    count: int
    observed_count: int
    median: float | None
    low: float | None
    high: float | None
    values_s: list[float] = []


class IncidentFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a period. `before`, `after` and `ratio` are set when a date divides it."""

    since_ns: int
    until_ns: int
    at_ns: int | None
    whole: Rate
    novel: int
    recurrent: int
    open: int
    lasted: dict[str, DurationStats]
    before: Rate | None = None
    after: Rate | None = None
    ratio: RateRatio | None = None
    lasted_before: dict[str, DurationStats] = {}
    lasted_after: dict[str, DurationStats] = {}
    incidents: list[Incident] = []


def compute_figures(
    incidents: Sequence[Incident], since_ns: int, until_ns: int, at_ns: int | None = None
) -> IncidentFigures:
    """Returns the figures of the incidents opened from `since_ns` up to, but not including, `until_ns`.

    Raises `ValueError` when the period is empty, the date is not inside it, or SciPy is not installed.
    """
    if until_ns <= since_ns:
        raise ValueError("the period ends before it begins: --until should be later than --since")
    if at_ns is not None and not since_ns < at_ns < until_ns:
        raise ValueError("--before should be a date inside the period that --since and --until tell")
    period_incidents = [incident for incident in incidents if since_ns <= incident.opened_ns < until_ns]
    result = IncidentFigures(
        since_ns=since_ns,
        until_ns=until_ns,
        at_ns=at_ns,
        whole=incident_rate(len(period_incidents), since_ns, until_ns),
        novel=sum(not incident.recurs for incident in period_incidents),
        recurrent=sum(bool(incident.recurs) for incident in period_incidents),
        open=sum(incident.resolved_ns is None for incident in period_incidents),
        lasted=duration_stats(period_incidents),
        incidents=period_incidents,
    )
    if at_ns is None:
        return result
    earlier = [incident for incident in period_incidents if incident.opened_ns < at_ns]
    later = [incident for incident in period_incidents if incident.opened_ns >= at_ns]
    before, after = incident_rate(len(earlier), since_ns, at_ns), incident_rate(len(later), at_ns, until_ns)
    return msgspec.structs.replace(
        result,
        before=before,
        after=after,
        ratio=compare_rates(before.count, before.fortnights, after.count, after.fortnights),
        lasted_before=duration_stats(earlier),
        lasted_after=duration_stats(later),
    )


def incident_rate(count: int, since_ns: int, until_ns: int) -> Rate:
    """Returns the rate per two weeks of `count` incidents in a period. Raises `ValueError` without SciPy."""
    chi2 = _scipy().chi2
    length = (until_ns - since_ns) / FORTNIGHT_NS
    tail = (1 - CONFIDENCE) / 2
    return Rate(
        since_ns=since_ns,
        until_ns=until_ns,
        count=count,
        rate=count / length,
        low=float(chi2.ppf(tail, 2 * count)) / 2 / length if count else 0.0,
        high=float(chi2.ppf(1 - tail, 2 * count + 2)) / 2 / length,
    )


def compare_rates(before: int, before_time: float, after: int, after_time: float) -> RateRatio:
    """Returns the rate after divided by the rate before, with its exact interval and p-value.

    Given the total, `after` is binomial with the share r·T2/(T1 + r·T2), whatever the rates are: each end of the
    interval of that share gives an end of the interval of r. Raises `ValueError` without SciPy.
    """
    total = before + after
    if not total:
        return RateRatio(ratio=None, low=0.0, high=None, p=1.0)
    test_result = _scipy().binomtest(after, total, after_time / (before_time + after_time))
    interval = test_result.proportion_ci(confidence_level=CONFIDENCE, method="exact")

    def as_ratio(share: float) -> float | None:
        return None if share >= 1 else share / (1 - share) * before_time / after_time

    return RateRatio(
        ratio=as_ratio(after / total),
        low=as_ratio(float(interval.low)) or 0.0,
        high=as_ratio(float(interval.high)),
        p=float(test_result.pvalue),
    )


def duration_stats(incidents: Sequence[Incident]) -> dict[str, DurationStats]:
    """Returns the durations until acknowledgement, diagnosis and resolution. Raises `ValueError` without SciPy."""
    steps: dict[str, Callable[[Incident], int | None]] = {
        "acknowledge": lambda incident: incident.acknowledged_ns,
        "diagnose": lambda incident: incident.diagnosed_ns,
        "resolve": lambda incident: incident.resolved_ns,
    }
    return {
        name: _duration_stats_of(len(incidents), _durations_s(incidents, step_time))
        for name, step_time in steps.items()
    }


def _durations_s(incidents: Sequence[Incident], step_time: Callable[[Incident], int | None]) -> list[float]:
    spans = [(at - incident.opened_ns) / 1e9 for incident in incidents if (at := step_time(incident)) is not None]
    return sorted(spans)


def _duration_stats_of(count: int, values: list[float]) -> DurationStats:
    if not values:
        return DurationStats(count=count, observed_count=0, median=None, low=None, high=None)
    interval = _scipy().quantile_test(values, q=0, p=0.5).confidence_interval(confidence_level=CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    is_bounded = not (math.isnan(low) or math.isnan(high))
    return DurationStats(
        count=count,
        observed_count=len(values),
        median=statistics.median(values),
        low=low if is_bounded else None,
        high=high if is_bounded else None,
        values_s=values,
    )


def _scipy() -> Any:
    try:
        import scipy.stats
    except ImportError as problem:
        raise ValueError("figures with intervals need SciPy: pip install 'holdover[statistics]'") from problem
    return scipy.stats
