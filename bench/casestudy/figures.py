"""The figures of many years: medians and intervals, by arm and by share of what cannot be seen."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from casestudy.life import Seen
from casestudy.model import DAYS_A_HALF, FORTNIGHT, UNSEEN_OF_103
from casestudy.year import ARMS, BEFORE, HOLDOVER, Half, Interval, Lives, Year, calibrated, interval, live, ratios
from holdover.incidents.figures import rate_ratio

UNSEEN: Final = UNSEEN_OF_103 / 103
SHARES: Final = (0.0, UNSEEN, 0.2, 0.3)
"""Shares of faulty changes that neither gate nor guard can see: none, that of the field evidence, more."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A half-year as it is run in one way. `gate` is how many faults the gate finds, of those that any life shows."""

    name: str
    finds: int
    of: int
    caught: Interval
    incidents: Interval
    mean: float
    mean_novel: float
    ratio: Interval
    pooled: float
    paired: Interval
    novel: float | None
    records: Interval
    waited: Interval
    sent_after: Interval


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that the table says."""

    years: int
    seed: str
    unseen: float
    changes_a_day: float
    rows: list[Row]
    novel: Interval
    novel_alone: float | None
    single: tuple[int, int, float | None, float, float | None]
    silent: float
    sensitivity: list[tuple[str, float, Interval, float | None]]


def figures(
    lives: Lives, shown: frozenset[str], seed: str, years: int, said: Callable[[str], None] = lambda what: None
) -> Figures:
    """Live so many years, and again with other shares of what cannot be seen. The same seed gives the same figures."""
    sensitivity = []
    main: list[Year] = []
    rate = 0.0
    asked = [(f"{share:.0%} unseen", share, lives) for share in SHARES]
    asked.append((f"{UNSEEN:.0%} unseen, and what no life shows is found at the end of its last", UNSEEN, worst(lives)))
    for words, share, bank in asked:
        said(words)
        a_day = calibrated(bank, share, seed, min(years, 200))
        arms = ARMS if share == UNSEEN and bank is lives else (HOLDOVER,)
        lived = [live(bank, a_day, share, f"{seed} {number}", arms=arms) for number in range(years)]
        seconds = [year.second[HOLDOVER.name] for year in lived]
        firsts = [year.first for year in lived]
        told = interval(ratios(firsts, seconds))
        sensitivity.append((words, a_day, told, _novel(seconds)))
        if arms is ARMS:
            main, rate = lived, a_day
    firsts = [year.first for year in main]
    rows = [_row(BEFORE.name, firsts, firsts, None, lives, shown, BEFORE.gate)]
    rows.append(
        _row("the same, second half", firsts, [year.unchanged for year in main], None, lives, shown, BEFORE.gate)
    )
    for arm in ARMS:
        halves = [year.second[arm.name] for year in main]
        rows.append(_row(arm.name, firsts, halves, [year.unchanged for year in main], lives, shown, arm.gate))
    seconds = [year.second[HOLDOVER.name] for year in main]
    before = round(statistics.median(len(one.counted) for one in firsts))
    after = round(statistics.median(len(one.counted) for one in seconds))
    exact = rate_ratio(before, 1.0, after, 1.0)
    return Figures(
        years=years,
        seed=seed,
        unseen=UNSEEN,
        changes_a_day=rate,
        rows=rows,
        novel=interval([_share(one) for one in seconds if one.counted]),
        novel_alone=_novel([year.alone for year in main]),
        single=(before, after, exact.ratio, exact.low, exact.high),
        silent=statistics.fmean(len(one.latent) / max(one.shipped, 1) for one in firsts),
        sensitivity=sensitivity,
    )


def worst(lives: Lives) -> Lives:
    """The bank, if every fault that no life shows had been found on the last day of its last life: for a bound.

    How rare such a fault is, nobody knows; this is the most that its lives could have shown and did not.
    """
    bank = {}
    for fault, each in lives.lives.items():
        kept = list(each)
        if all(one.breach is None and one.found is None for one in each):
            last = kept[-1]
            told = Seen(day=last.days - 1, second=0, by="assumed", told="", cell_class=fault, records=0)
            kept[-1] = msgspec.structs.replace(last, breach=told, found=told)
        bank[fault] = kept
    return Lives(bank, lives.caught)


def _row(
    name: str,
    firsts: Sequence[Half],
    halves: Sequence[Half],
    unchanged: Sequence[Half] | None,
    lives: Lives,
    shown: frozenset[str],
    gate: str,
) -> Row:
    incidents = [one for half in halves for one in half.counted]
    counts = [len(half.counted) for half in halves]
    return Row(
        name=name,
        finds=len(lives.caught[gate] & shown),
        of=len(shown),
        caught=interval([half.caught / half.changes for half in halves if half.changes]),
        incidents=interval(counts),
        mean=statistics.fmean(counts),
        mean_novel=statistics.fmean(sum(not one.recurrent for one in half.counted) for half in halves),
        ratio=interval(ratios(firsts, halves)),
        pooled=sum(counts) / max(sum(len(half.counted) for half in firsts), 1),
        paired=interval(ratios(unchanged, halves) if unchanged is not None else []),
        novel=_novel(halves),
        records=interval([one.records for one in incidents]),
        waited=interval([one.waited for one in incidents]),
        sent_after=interval([one.sent_after for one in incidents]),
    )


def _share(half: Half) -> float:
    return sum(not one.recurrent for one in half.counted) / len(half.counted)


def _novel(halves: Sequence[Half]) -> float | None:
    """The share of novel among all incidents of these halves together."""
    each = [one.recurrent for half in halves for one in half.counted]
    return each.count(False) / len(each) if each else None


def a_fortnight(incidents: float) -> float:
    """Incidents of a half-year as incidents in two weeks."""
    return incidents * FORTNIGHT / DAYS_A_HALF


__all__ = ["SHARES", "UNSEEN", "Figures", "Row", "a_fortnight", "figures"]
