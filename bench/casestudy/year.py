"""Simulate a year: changes merge, faults ship, are detected, fixed and come back; incidents come from real runs.

A change whose fault the merge gate catches never ships. A shipped fault takes one of its recorded runs; when
that run ends without a detection it takes another, until somebody detects it or the half-year ends. A fault
that is already active cannot ship a second time. Faults do not affect one another.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from casestudy.life import Detection, FaultRun
from casestudy.model import CATEGORY_WEIGHTS, DAYS_A_HALF, FIX_DAYS, FORTNIGHT, REPEAT_SHARE, UNSEEN_OF_103, poisson
from holdover.desk.faults import FAULTS
from holdover.incidents.classes import is_same_class

_CHANGES_A_DAY_MAX: Final = 5.0
Mark = tuple[str, str]
"""An invariant and a cell class: what two incidents must share to be the same thing again."""
TARGET: Final = DAYS_A_HALF / FORTNIGHT
"""Incidents of a first half-year at the published rate, one in two weeks."""


class Arm(NamedTuple):
    """How the second half is run: which gate (empty: that of the first half), and whether a guard is in production."""

    name: str
    gate: str
    guard: bool


BEFORE: Final = Arm("unit tests and line coverage", "fresh", False)
HOLDOVER: Final = Arm("Holdover", "holdover", True)
ARMS: Final = (
    HOLDOVER,
    Arm("without recorded data", "no-recorded", True),
    Arm("without restarts", "no-restarts", True),
    Arm("without overnight", "no-overnight", True),
    Arm("without invariants in production", "holdover", False),
    Arm("invariants in production alone", "fresh", True),
)
"""The second half, whole, and with one part taken out."""


class Change(NamedTuple):
    """A faulty change: its day in the half, its fault, the seeded fault that it is found like, a seed of its own."""

    day: int
    fault: str
    seeded_fault: str
    seed: str

    @property
    def is_unseen(self) -> bool:
        """Whether neither gate nor guard can see it, being of a kind that the catalogue has nothing to say of."""
        return self.fault != self.seeded_fault


@dataclass
class Incident:
    """An incident: opened and resolved on a day of the year, what it is, how many records a person looks at, how many
    messages had left meanwhile, how many days after its change had shipped it was found."""

    opened: int
    resolved: int
    fault: str
    mark: Mark
    by: str
    records: int
    sent_after: int
    waited: int
    is_recurrent: bool = False
    is_joined: bool = False


@dataclass
class Half:
    """What became of a half-year's faulty changes."""

    changes: int = 0
    caught: int = 0
    shipped: int = 0
    incidents: list[Incident] = field(default_factory=list)
    latent: list[Change] = field(default_factory=list)

    @property
    def counted(self) -> list[Incident]:
        """The incidents, without those that joined an open one."""
        return [incident for incident in self.incidents if not incident.is_joined]


class FaultRuns:
    """The lives of each fault and what each gate finds."""

    def __init__(self, runs_by_fault: Mapping[str, Sequence[FaultRun]], caught: Mapping[str, frozenset[str]]) -> None:
        self.runs_by_fault, self.caught = runs_by_fault, caught
        self.faults = list(runs_by_fault)
        self.weights = fault_weights(self.faults)

    def resample(self, rng: random.Random) -> FaultRuns:
        """Another bank as it might have been: of each fault as many of its lives, drawn with replacement."""
        samples = {name: rng.choices(list(runs), k=len(runs)) for name, runs in self.runs_by_fault.items()}
        return FaultRuns(samples, self.caught)

    def catches(self, gate: str, change: Change) -> bool:
        """Whether a gate finds the fault of a change."""
        return not change.is_unseen and change.fault in self.caught[gate]


def fault_weights(faults: Sequence[str]) -> list[float]:
    """How often each fault is the one that a faulty change carries: by category, alike inside it."""
    categories = [FAULTS[name].category for name in faults]
    return [CATEGORY_WEIGHTS[category] / categories.count(category) for category in categories]


def draw_changes(
    rng: random.Random, fault_runs: FaultRuns, a_day: float, unseen: float, earlier: Sequence[Change], seed: str
) -> list[Change]:
    """The faulty changes of a half-year, `a_day` of them, a share `unseen` of a kind that nothing here can see."""
    changes = list(earlier)
    for day in range(DAYS_A_HALF):
        for _ in range(poisson(rng, a_day)):
            seeded_fault = rng.choices(fault_runs.faults, fault_runs.weights)[0]
            fault = f"unseen-{rng.randrange(UNSEEN_OF_103)}" if rng.random() < unseen else seeded_fault
            if changes and rng.random() < REPEAT_SHARE:
                before = rng.choice(changes)
                fault, seeded_fault = before.fault, before.seeded_fault
            changes.append(Change(day, fault, seeded_fault, f"{seed} {len(changes)}"))
    return changes[len(earlier) :]


def simulate_half(changes: Sequence[Change], fault_runs: FaultRuns, arm: Arm, start: int = 0) -> Half:
    """Live a half-year that begins on day `start` of the year; days of changes count from there."""
    result = Half(changes=len(changes))
    at_work: dict[str, int] = {}
    regressions: dict[str, int] = {}
    for change in sorted(changes, key=lambda entry: entry.day):
        has_regression = change.fault in regressions and regressions[change.fault] <= change.day
        if has_regression or fault_runs.catches(arm.gate, change):
            result.caught += 1
            continue
        if at_work.get(change.fault, -1) > change.day:
            continue
        result.shipped += 1
        outcome = _find_detection(change, fault_runs, arm.guard)
        if outcome is None:
            result.latent.append(change)
            at_work[change.fault] = DAYS_A_HALF
            continue
        day, fault_run, detection = outcome
        resolved = day + FIX_DAYS
        at_work[change.fault] = resolved
        if arm.guard and arm.gate != BEFORE.gate and not change.is_unseen and detection is fault_run.breach:
            regressions[change.fault] = resolved  # its bundle is played by the gate from then on
        result.incidents.append(_incident(change, fault_run, detection, start + day, day - change.day))
    result.incidents.sort(key=lambda incident: incident.opened)
    return result


def _find_detection(change: Change, fault_runs: FaultRuns, guard: bool) -> tuple[int, FaultRun, Detection] | None:
    """On which day of the half somebody finds out, in which life and how; None when nobody does."""
    rng = random.Random(change.seed)
    day = change.day
    while day < DAYS_A_HALF:
        fault_run = rng.choice(fault_runs.runs_by_fault[change.seeded_fault])
        detection = (
            fault_run.breach if guard and not change.is_unseen and fault_run.breach is not None else fault_run.discovery
        )
        if detection is not None:
            return (day + detection.day, fault_run, detection) if day + detection.day < DAYS_A_HALF else None
        day += fault_run.days
    return None


def _incident(change: Change, fault_run: FaultRun, detection: Detection, opened: int, waited: int) -> Incident:
    if change.is_unseen:
        mark = (change.fault, "outside the catalogue")
    else:
        # What people found is classified afterwards, by what the catalogue says of the same life.
        classed = fault_run.breach or detection
        mark = (classed.by, classed.cell_class)
    sent_after = 0 if detection is fault_run.breach else fault_run.sent_after
    return Incident(opened, opened + FIX_DAYS, change.fault, mark, detection.by, detection.records, sent_after, waited)


def mark_recurrence(incidents: Sequence[Incident]) -> None:
    """Holdover's own rule over a whole year: an incident joins an open one of its mark; it is recurrent when one of
    its mark had been resolved before it was opened."""
    incidents_by_invariant: dict[str, list[Incident]] = {}
    for incident in sorted(incidents, key=lambda entry: entry.opened):
        earlier = incidents_by_invariant.setdefault(incident.mark[0], [])
        before = [previous for previous in earlier if is_same_class(previous.mark[1], incident.mark[1])]
        incident.is_joined = any(previous.opened <= incident.opened < previous.resolved for previous in before)
        incident.is_recurrent = any(previous.resolved <= incident.opened for previous in before)
        if not incident.is_joined:
            earlier.append(incident)


@dataclass
class Year:
    """One replication: the first half, the second in each arm, and the second half's very changes without Holdover."""

    first: Half
    second: dict[str, Half]
    unchanged: Half
    without_history: Half
    """The second half with Holdover, judged as if nothing had been known of before it: for the share of novel."""


def simulate_year(fault_runs: FaultRuns, a_day: float, unseen: float, seed: str, *, arms: Sequence[Arm] = ARMS) -> Year:
    """One year. The same seed gives the same year."""
    rng = random.Random(f"year {seed}")
    fault_runs = fault_runs.resample(rng)
    early = draw_changes(rng, fault_runs, a_day, unseen, (), f"{seed} life")
    late = draw_changes(rng, fault_runs, a_day, unseen, early, f"{seed} life")
    first = simulate_half(early, fault_runs, BEFORE)
    mark_recurrence(first.incidents)
    carried = [change._replace(day=0, seed=f"{change.seed} on") for change in first.latent]

    def second(arm: Arm) -> Half:
        result = simulate_half([*carried, *late], fault_runs, arm, DAYS_A_HALF)
        mark_recurrence([*first.incidents, *result.incidents])
        return result

    second_halves = {arm.name: second(arm) for arm in arms}
    without_history = simulate_half([*carried, *late], fault_runs, HOLDOVER, DAYS_A_HALF)
    mark_recurrence(without_history.incidents)
    return Year(first, second_halves, second(BEFORE), without_history)


def calibrate(fault_runs: FaultRuns, unseen: float, seed: str, years: int = 200) -> float:
    """How many faulty changes a day make as many incidents of the first half as were published, on average.

    An input, set by bisection over the same years. Raises `ValueError` when no rate up to some a day does.
    """

    def incidents(a_day: float) -> float:
        counts = []
        for number in range(years):
            rng = random.Random(f"calibrate {seed} {number}")
            result = simulate_half(
                draw_changes(rng, fault_runs, a_day, unseen, (), f"{seed} {number}"), fault_runs, BEFORE
            )
            mark_recurrence(result.incidents)
            counts.append(len(result.counted))
        return statistics.fmean(counts)

    low, high = 0.0, 0.05
    while incidents(high) < TARGET:
        low, high = high, high * 2
        if high > _CHANGES_A_DAY_MAX:
            raise ValueError(
                f"people find too few of these faults: at {low:g} faulty changes a day there are fewer incidents than "
                f"were published; give each fault more lives or longer ones"
            )
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if incidents(middle) < TARGET else (low, middle)
    return (low + high) / 2


class Interval(NamedTuple):
    """A median over years and the 2.5th and 97.5th percentile; None where there was no year to count."""

    median: float | None
    low: float | None
    high: float | None


def interval(values: Sequence[float]) -> Interval:
    """Of some values: the nearest ranks, nothing interpolated but the median."""
    if not values:
        return Interval(None, None, None)
    ranked = sorted(values)
    last = len(ranked) - 1
    return Interval(statistics.median(ranked), ranked[round(last * 0.025)], ranked[round(last * 0.975)])


def ratios(before: Sequence[Half], after: Sequence[Half]) -> list[float]:
    """The ratio of incidents, year by year; a year without any before has none."""
    counts = [
        (len(first_half.counted), len(second_half.counted))
        for first_half, second_half in zip(before, after, strict=True)
    ]
    return [second / first for first, second in counts if first]


__all__ = [
    "ARMS",
    "BEFORE",
    "HOLDOVER",
    "Arm",
    "Change",
    "Half",
    "Incident",
    "FaultRuns",
    "Year",
    "calibrate",
    "interval",
    "ratios",
]
