"""The year: changes are merged, faults ship, are found, fixed and come back; incidents are those of lives really run.

A half-year takes its changes as they come. A change whose fault the merge gate finds never ships. What ships lives one
of its fault's lives, and another one when that one ended without anybody finding out, until somebody does or the half
is over. A fault that is at work already cannot be shipped a second time. Faults do not act on one another.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from casestudy.life import Life, Seen
from casestudy.model import AGAIN, CATEGORY_WEIGHTS, DAYS_A_HALF, FIX_DAYS, FORTNIGHT, UNSEEN_OF_103, poisson
from holdover.desk.faults import FAULTS
from holdover.incidents.classes import same_class

_MOST_A_DAY: Final = 5.0
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
    like: str
    seed: str

    @property
    def unseen(self) -> bool:
        """Whether neither gate nor guard can see it, being of a kind that the catalogue has nothing to say of."""
        return self.fault != self.like


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
    recurrent: bool = False
    joined: bool = False


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
        return [one for one in self.incidents if not one.joined]


class Lives:
    """The lives of each fault and what each gate finds."""

    def __init__(self, lives: Mapping[str, Sequence[Life]], caught: Mapping[str, frozenset[str]]) -> None:
        self.lives, self.caught = lives, caught
        self.faults = list(lives)
        self.weights = weights(self.faults)

    def resampled(self, rng: random.Random) -> Lives:
        """Another bank as it might have been: of each fault as many of its lives, drawn with replacement."""
        again = {name: rng.choices(list(lives), k=len(lives)) for name, lives in self.lives.items()}
        return Lives(again, self.caught)

    def catches(self, gate: str, change: Change) -> bool:
        """Whether a gate finds the fault of a change."""
        return not change.unseen and change.fault in self.caught[gate]


def weights(faults: Sequence[str]) -> list[float]:
    """How often each fault is the one that a faulty change carries: by category, alike inside it."""
    of = [FAULTS[name].category for name in faults]
    return [CATEGORY_WEIGHTS[category] / of.count(category) for category in of]


def stream(
    rng: random.Random, lives: Lives, a_day: float, unseen: float, earlier: Sequence[Change], seed: str
) -> list[Change]:
    """The faulty changes of a half-year, `a_day` of them, a share `unseen` of a kind that nothing here can see."""
    known = list(earlier)
    for day in range(DAYS_A_HALF):
        for _ in range(poisson(rng, a_day)):
            like = rng.choices(lives.faults, lives.weights)[0]
            fault = f"unseen-{rng.randrange(UNSEEN_OF_103)}" if rng.random() < unseen else like
            if known and rng.random() < AGAIN:
                before = rng.choice(known)
                fault, like = before.fault, before.like
            known.append(Change(day, fault, like, f"{seed} {len(known)}"))
    return known[len(earlier) :]


def half(changes: Sequence[Change], lives: Lives, arm: Arm, start: int = 0) -> Half:
    """Live a half-year that begins on day `start` of the year; days of changes count from there."""
    told = Half(changes=len(changes))
    at_work: dict[str, int] = {}
    regressions: dict[str, int] = {}
    for change in sorted(changes, key=lambda one: one.day):
        kept = change.fault in regressions and regressions[change.fault] <= change.day
        if kept or lives.catches(arm.gate, change):
            told.caught += 1
            continue
        if at_work.get(change.fault, -1) > change.day:
            continue
        told.shipped += 1
        lived = _lived(change, lives, arm.guard)
        if lived is None:
            told.latent.append(change)
            at_work[change.fault] = DAYS_A_HALF
            continue
        day, life, seen = lived
        resolved = day + FIX_DAYS
        at_work[change.fault] = resolved
        if arm.guard and arm.gate != BEFORE.gate and not change.unseen and seen is life.breach:
            regressions[change.fault] = resolved  # its bundle is played by the gate from then on
        told.incidents.append(_incident(change, life, seen, start + day, day - change.day))
    told.incidents.sort(key=lambda one: one.opened)
    return told


def _lived(change: Change, lives: Lives, guard: bool) -> tuple[int, Life, Seen] | None:
    """On which day of the half somebody finds out, in which life and how; None when nobody does."""
    rng = random.Random(change.seed)
    day = change.day
    while day < DAYS_A_HALF:
        life = rng.choice(lives.lives[change.like])
        seen = life.breach if guard and not change.unseen and life.breach is not None else life.found
        if seen is not None:
            return (day + seen.day, life, seen) if day + seen.day < DAYS_A_HALF else None
        day += life.days
    return None


def _incident(change: Change, life: Life, seen: Seen, opened: int, waited: int) -> Incident:
    if change.unseen:
        mark = (change.fault, "outside the catalogue")
    else:
        # What people found is classified afterwards, by what the catalogue says of the same life.
        classed = life.breach or seen
        mark = (classed.by, classed.cell_class)
    sent_after = 0 if seen is life.breach else life.sent_after
    return Incident(opened, opened + FIX_DAYS, change.fault, mark, seen.by, seen.records, sent_after, waited)


def judge(incidents: Sequence[Incident]) -> None:
    """Holdover's own rule over a whole year: an incident joins an open one of its mark; it is recurrent when one of
    its mark had been resolved before it was opened."""
    taken: dict[str, list[Incident]] = {}
    for one in sorted(incidents, key=lambda one: one.opened):
        known = taken.setdefault(one.mark[0], [])
        before = [other for other in known if same_class(other.mark[1], one.mark[1])]
        one.joined = any(other.opened <= one.opened < other.resolved for other in before)
        one.recurrent = any(other.resolved <= one.opened for other in before)
        if not one.joined:
            known.append(one)


@dataclass
class Year:
    """One replication: the first half, the second in each arm, and the second half's very changes without Holdover."""

    first: Half
    second: dict[str, Half]
    unchanged: Half
    alone: Half
    """The second half with Holdover, judged as if nothing had been known of before it: for the share of novel."""


def live(lives: Lives, a_day: float, unseen: float, seed: str, *, arms: Sequence[Arm] = ARMS) -> Year:
    """One year. The same seed gives the same year."""
    rng = random.Random(f"year {seed}")
    lives = lives.resampled(rng)
    early = stream(rng, lives, a_day, unseen, (), f"{seed} life")
    late = stream(rng, lives, a_day, unseen, early, f"{seed} life")
    first = half(early, lives, BEFORE)
    judge(first.incidents)
    carried = [one._replace(day=0, seed=f"{one.seed} on") for one in first.latent]

    def second(arm: Arm) -> Half:
        told = half([*carried, *late], lives, arm, DAYS_A_HALF)
        judge([*first.incidents, *told.incidents])
        return told

    found = {arm.name: second(arm) for arm in arms}
    alone = half([*carried, *late], lives, HOLDOVER, DAYS_A_HALF)
    judge(alone.incidents)
    return Year(first, found, second(BEFORE), alone)


def calibrated(lives: Lives, unseen: float, seed: str, years: int = 200) -> float:
    """How many faulty changes a day make as many incidents of the first half as were published, on average.

    An input, set by bisection over the same years. Raises `ValueError` when no rate up to some a day does.
    """

    def incidents(a_day: float) -> float:
        counts = []
        for number in range(years):
            rng = random.Random(f"calibrate {seed} {number}")
            told = half(stream(rng, lives, a_day, unseen, (), f"{seed} {number}"), lives, BEFORE)
            judge(told.incidents)
            counts.append(len(told.counted))
        return statistics.fmean(counts)

    low, high = 0.0, 0.05
    while incidents(high) < TARGET:
        low, high = high, high * 2
        if high > _MOST_A_DAY:
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
    counts = [(len(one.counted), len(other.counted)) for one, other in zip(before, after, strict=True)]
    return [second / first for first, second in counts if first]


__all__ = [
    "ARMS",
    "BEFORE",
    "HOLDOVER",
    "Arm",
    "Change",
    "Half",
    "Incident",
    "Lives",
    "Year",
    "calibrated",
    "interval",
    "ratios",
]
