"""How often incidents come and how long they last, with intervals that are exact and not taken from a normal curve.

Rates: incidents are counted as a Poisson process over the time that was watched, with Garwood's interval (SciPy's
quantiles of chi-squared). Two periods are compared by the conditional exact test: of all incidents in both, those after
the date are binomial, and the Clopper-Pearson interval of that share (`scipy.stats.binomtest`) becomes one of the
ratio of the rates. Times: the median of those that came, with the interval of order statistics
(`scipy.stats.quantile_test`); there is none below six.
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
    """Incidents in a period and how many that is per two weeks, with its interval."""

    since_ns: int
    until_ns: int
    count: int
    rate: float
    low: float
    high: float

    @property
    def fortnights(self) -> float:
        """The length of the period."""
        return (self.until_ns - self.since_ns) / FORTNIGHT_NS


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """The rate after a date over that before it. None for what cannot be told: no incident before, or none at all."""

    ratio: float | None
    low: float
    high: float | None
    p: float


class Lasted(msgspec.Struct, frozen=True, kw_only=True):
    """How long something took from the opening on, in s: of `count` it came in `came`; None where too few came."""

    count: int
    came: int
    median: float | None
    low: float | None
    high: float | None
    each: list[float] = []


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says of a period. `before`, `after` and `ratio` where a date parts it."""

    since_ns: int
    until_ns: int
    at_ns: int | None
    whole: Rate
    novel: int
    recurrent: int
    open: int
    lasted: dict[str, Lasted]
    before: Rate | None = None
    after: Rate | None = None
    ratio: Ratio | None = None
    lasted_before: dict[str, Lasted] = {}
    lasted_after: dict[str, Lasted] = {}
    incidents: list[Incident] = []


def figures(incidents: Sequence[Incident], since_ns: int, until_ns: int, at_ns: int | None = None) -> Figures:
    """The figures of the incidents that were opened from `since_ns` up to, not including, `until_ns`.

    Raises `ValueError` for a period that is none, a date that does not part it, and where SciPy is not installed.
    """
    if until_ns <= since_ns:
        raise ValueError("the period ends before it begins: --until should be later than --since")
    if at_ns is not None and not since_ns < at_ns < until_ns:
        raise ValueError("--before should be a date inside the period that --since and --until tell")
    inside = [one for one in incidents if since_ns <= one.opened_ns < until_ns]
    told = Figures(
        since_ns=since_ns,
        until_ns=until_ns,
        at_ns=at_ns,
        whole=rate(len(inside), since_ns, until_ns),
        novel=sum(not one.recurs for one in inside),
        recurrent=sum(bool(one.recurs) for one in inside),
        open=sum(one.resolved_ns is None for one in inside),
        lasted=lasted(inside),
        incidents=inside,
    )
    if at_ns is None:
        return told
    earlier = [one for one in inside if one.opened_ns < at_ns]
    later = [one for one in inside if one.opened_ns >= at_ns]
    before, after = rate(len(earlier), since_ns, at_ns), rate(len(later), at_ns, until_ns)
    return msgspec.structs.replace(
        told,
        before=before,
        after=after,
        ratio=rate_ratio(before.count, before.fortnights, after.count, after.fortnights),
        lasted_before=lasted(earlier),
        lasted_after=lasted(later),
    )


def rate(count: int, since_ns: int, until_ns: int) -> Rate:
    """The rate per two weeks of `count` incidents in a period."""
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


def rate_ratio(before: int, before_time: float, after: int, after_time: float) -> Ratio:
    """The rate of `after` incidents in a time over that of `before` in another, with its exact interval and p-value.

    Given both together, `after` is binomial with the share r·T2/(T1 + r·T2), whatever the rates are: each end of that
    share's interval gives an end of the interval of r.
    """
    both = before + after
    if not both:
        return Ratio(ratio=None, low=0.0, high=None, p=1.0)
    tested = _scipy().binomtest(after, both, after_time / (before_time + after_time))
    interval = tested.proportion_ci(confidence_level=CONFIDENCE, method="exact")

    def as_ratio(share: float) -> float | None:
        return None if share >= 1 else share / (1 - share) * before_time / after_time

    return Ratio(
        ratio=as_ratio(after / both),
        low=as_ratio(float(interval.low)) or 0.0,
        high=as_ratio(float(interval.high)),
        p=float(tested.pvalue),
    )


def lasted(incidents: Sequence[Incident]) -> dict[str, Lasted]:
    """How long it took to acknowledge, to diagnose and to resolve."""
    steps: dict[str, Callable[[Incident], int | None]] = {
        "acknowledge": lambda one: one.acknowledged_ns,
        "diagnose": lambda one: one.diagnosed_ns,
        "resolve": lambda one: one.resolved_ns,
    }
    return {name: _lasted(len(incidents), _spans(incidents, when)) for name, when in steps.items()}


def _spans(incidents: Sequence[Incident], when: Callable[[Incident], int | None]) -> list[float]:
    found = [(at - one.opened_ns) / 1e9 for one in incidents if (at := when(one)) is not None]
    return sorted(found)


def _lasted(count: int, each: list[float]) -> Lasted:
    if not each:
        return Lasted(count=count, came=0, median=None, low=None, high=None)
    interval = _scipy().quantile_test(each, q=0, p=0.5).confidence_interval(confidence_level=CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    known = not (math.isnan(low) or math.isnan(high))
    return Lasted(
        count=count,
        came=len(each),
        median=statistics.median(each),
        low=low if known else None,
        high=high if known else None,
        each=each,
    )


def _scipy() -> Any:
    try:
        import scipy.stats
    except ImportError as problem:
        raise ValueError("figures with intervals need SciPy: pip install 'holdover[statistics]'") from problem
    return scipy.stats
