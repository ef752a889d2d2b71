"""Figures over many simulated years: medians and intervals, by arm and by share of faults that nothing can
detect.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from casestudy.life import Detection
from casestudy.model import DAYS_A_HALF, FORTNIGHT, UNSEEN_OF_103
from casestudy.year import (
    ARMS,
    BEFORE,
    HOLDOVER,
    FaultRuns,
    Half,
    Interval,
    Year,
    calibrate,
    interval,
    ratios,
    simulate_year,
)
from holdover.incidents.figures import compare_rates

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
    fault_runs: FaultRuns,
    shown: frozenset[str],
    seed: str,
    years: int,
    on_progress: Callable[[str], None] = lambda message: None,
) -> Figures:
    """Live so many years, and again with other shares of what cannot be seen. The same seed gives the same figures."""
    sensitivity = []
    main: list[Year] = []
    rate = 0.0
    scenarios = [(f"{share:.0%} unseen", share, fault_runs) for share in SHARES]
    scenarios.append(
        (
            f"{UNSEEN:.0%} unseen, and faults that no run shows are detected at the end of their last run",
            UNSEEN,
            worst_case(fault_runs),
        )
    )
    for words, share, scenario_runs in scenarios:
        on_progress(words)
        a_day = calibrate(scenario_runs, share, seed, min(years, 200))
        arms = ARMS if share == UNSEEN and scenario_runs is fault_runs else (HOLDOVER,)
        simulated_years = [
            simulate_year(scenario_runs, a_day, share, f"{seed} {number}", arms=arms) for number in range(years)
        ]
        seconds = [year.second[HOLDOVER.name] for year in simulated_years]
        firsts = [year.first for year in simulated_years]
        ratio_interval = interval(ratios(firsts, seconds))
        sensitivity.append((words, a_day, ratio_interval, _pooled_novel_share(seconds)))
        if arms is ARMS:
            main, rate = simulated_years, a_day
    firsts = [year.first for year in main]
    rows = [_row(BEFORE.name, firsts, firsts, None, fault_runs, shown, BEFORE.gate)]
    rows.append(
        _row("the same, second half", firsts, [year.unchanged for year in main], None, fault_runs, shown, BEFORE.gate)
    )
    for arm in ARMS:
        halves = [year.second[arm.name] for year in main]
        rows.append(_row(arm.name, firsts, halves, [year.unchanged for year in main], fault_runs, shown, arm.gate))
    seconds = [year.second[HOLDOVER.name] for year in main]
    before = round(statistics.median(len(half.counted) for half in firsts))
    after = round(statistics.median(len(half.counted) for half in seconds))
    exact = compare_rates(before, 1.0, after, 1.0)
    return Figures(
        years=years,
        seed=seed,
        unseen=UNSEEN,
        changes_a_day=rate,
        rows=rows,
        novel=interval([_novel_share(half) for half in seconds if half.counted]),
        novel_alone=_pooled_novel_share([year.without_history for year in main]),
        single=(before, after, exact.ratio, exact.low, exact.high),
        silent=statistics.fmean(len(half.latent) / max(half.shipped, 1) for half in firsts),
        sensitivity=sensitivity,
    )


def worst_case(fault_runs: FaultRuns) -> FaultRuns:
    """The bank, if every fault that no life shows had been found on the last day of its last life: for a bound.

    How rare such a fault is, nobody knows; this is the most that its lives could have shown and did not.
    """
    bounded_by_fault = {}
    for fault, runs in fault_runs.runs_by_fault.items():
        bounded_runs = list(runs)
        if all(run.breach is None and run.discovery is None for run in runs):
            last = bounded_runs[-1]
            detection = Detection(
                day=last.days - 1, second=0, by="assumed", explanation="", cell_class=fault, records=0
            )
            bounded_runs[-1] = msgspec.structs.replace(last, breach=detection, discovery=detection)
        bounded_by_fault[fault] = bounded_runs
    return FaultRuns(bounded_by_fault, fault_runs.caught)


def _row(
    name: str,
    firsts: Sequence[Half],
    halves: Sequence[Half],
    unchanged: Sequence[Half] | None,
    fault_runs: FaultRuns,
    shown: frozenset[str],
    gate: str,
) -> Row:
    incidents = [incident for half in halves for incident in half.counted]
    counts = [len(half.counted) for half in halves]
    return Row(
        name=name,
        finds=len(fault_runs.caught[gate] & shown),
        of=len(shown),
        caught=interval([half.caught / half.changes for half in halves if half.changes]),
        incidents=interval(counts),
        mean=statistics.fmean(counts),
        mean_novel=statistics.fmean(sum(not incident.is_recurrent for incident in half.counted) for half in halves),
        ratio=interval(ratios(firsts, halves)),
        pooled=sum(counts) / max(sum(len(half.counted) for half in firsts), 1),
        paired=interval(ratios(unchanged, halves) if unchanged is not None else []),
        novel=_pooled_novel_share(halves),
        records=interval([incident.records for incident in incidents]),
        waited=interval([incident.waited for incident in incidents]),
        sent_after=interval([incident.sent_after for incident in incidents]),
    )


def _novel_share(half: Half) -> float:
    return sum(not incident.is_recurrent for incident in half.counted) / len(half.counted)


def _pooled_novel_share(halves: Sequence[Half]) -> float | None:
    """The share of novel among all incidents of these halves together."""
    recurrences = [incident.is_recurrent for half in halves for incident in half.counted]
    return recurrences.count(False) / len(recurrences) if recurrences else None


def per_fortnight(incidents: float) -> float:
    """Incidents of a half-year as incidents in two weeks."""
    return incidents * FORTNIGHT / DAYS_A_HALF


__all__ = ["SHARES", "UNSEEN", "Figures", "Row", "per_fortnight", "figures"]
