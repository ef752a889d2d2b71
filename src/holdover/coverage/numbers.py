"""The three coverage numbers and their details. They are never averaged.

C1  cell x transition: the share of feasible cells in which a lifecycle transition found the system; as a second line,
    the share of possible pairs of transitions that happened
C2  checked state: the share of written fields that an exercised invariant reads
C3  carry gap: what production reached and no measured run did
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from holdover.catalogue import Catalogue
from holdover.coverage.data import CellWitness, CoverageData, CoverageError, WitnessedCount
from holdover.coverage.field_reads import find_fields_read, select_checked_fields
from holdover.coverage.lock import CoverageLock, Rule
from holdover.runtime.cells import RESTART_KINDS, TRANSITIONS

Cell = tuple[str, ...]
"""One value of each axis of the product, in its order."""


@dataclass(frozen=True)
class CoverageRatio:
    """A count and its total."""

    covered: int
    total: int

    @property
    def percent(self) -> float:
        """Returns a percentage; 100 when the denominator is zero."""
        return 100.0 * self.covered / self.total if self.total else 100.0

    def __str__(self) -> str:
        """Returns the rounded percentage; a partial ratio is never shown as 0% or 100%."""
        if 0 < self.covered < self.total:
            return f"{min(max(self.percent, 0.1), 99.9):.1f}%"
        return f"{self.percent:.0f}%"


@dataclass(frozen=True)
class RuleViolation:
    """A cell that a rule calls infeasible and that a run reached: the denominator is wrong."""

    rule: Rule
    place: str
    witness: CellWitness

    def __str__(self) -> str:
        return (
            f"denominator wrong: rule {self.rule.name} says that this cannot be, and {self.witness.source} "
            f"reached it: {self.place}"
        )


@dataclass(frozen=True)
class CarryGap:
    """A cell or transition that production reached and no measured run did. A waiver refers to `name`."""

    name: str
    words: str
    count: int
    source: str


@dataclass(frozen=True)
class InvariantActivity:
    """How often the precondition of an invariant was true, and in which cells. `state` is ACTIVE, VACUOUS or
    UNKNOWN.
    """

    invariant: str
    state: str
    count: int
    cells: dict[str, int]


@dataclass
class TransitionCoverage:
    """The coverage of one transition: its feasible cells and the covered ones."""

    label: str
    feasible: list[Cell]
    covered: dict[Cell, WitnessedCount]

    @property
    def ratio(self) -> CoverageRatio:
        """Return the number of covered cells and of feasible cells."""
        return CoverageRatio(len(self.covered), len(self.feasible))

    @property
    def missing(self) -> list[Cell]:
        """Return the feasible cells that are not covered."""
        return [cell for cell in self.feasible if cell not in self.covered]


@dataclass
class NearestCell:
    """The covered cell that is closest to a missing one, and the differences."""

    label: str
    cell: Cell
    tally: WitnessedCount
    differences: list[str] = field(default_factory=list)


class AxisProduct:
    """The product of the axes of a lock file, with its infeasible cells. Raises `LockError` for an unknown axis."""

    def __init__(self, lock: CoverageLock) -> None:
        self.lock = lock
        self.axes = lock.product_axes()
        self.names = [axis.name for axis in self.axes]

    @cached_property
    def cells(self) -> list[Cell]:
        """Return every cell of the product in order, feasible or not."""
        return list(itertools.product(*(axis.values for axis in self.axes)))

    @cached_property
    def _always(self) -> list[Rule]:
        return [rule for rule in self.lock.rule if not rule.transitions]

    def values_by_axis(self, cell: Cell) -> dict[str, str]:
        """Return the cell as axis -> value."""
        return dict(zip(self.names, cell, strict=True))

    def forbidding_rule(self, cell: Cell, label: str = "") -> Rule | None:
        """Return the first rule that makes a cell, or a transition in it, infeasible; None when there is none."""
        values = self.values_by_axis(cell)
        for rule in self.lock.rule:
            if (not rule.transitions or label in rule.transitions) and rule.matches(values):
                return rule
        return None

    def feasible_cells(self, label: str) -> list[Cell]:
        """Return the cells in which a transition can find the system."""
        return [cell for cell in self.cells if self.forbidding_rule(cell, label) is None]

    def place_name(self, cell: Cell, label: str = "") -> str:
        """Return the name of a cell and transition, like `restart:kill in orders=partial, link=up`."""
        values_text = ", ".join(f"{axis}={value}" for axis, value in zip(self.names, cell, strict=True))
        return f"{label or 'being'} in {values_text}"

    def describe(self, cell: Cell, label: str = "") -> str:
        """Return a cell and transition in words."""
        text = "; ".join(axis.words[axis.values.index(value)] for axis, value in zip(self.axes, cell, strict=True))
        return f"{TRANSITIONS[label]}: {text}" if label else text

    def axis_positions(self, data: CoverageData) -> list[int]:
        """Return the position of each axis of the product in the cells of a file.

        Raises `CoverageError` when the file lacks an axis or has other values for it.
        """
        measured = {axis.name: (position, axis.values) for position, axis in enumerate(data.axes)}
        for axis in self.axes:
            if axis.name not in measured:
                raise CoverageError(f"measured without the axis {axis.name!r}; measure again with it")
            if measured[axis.name][1] != axis.values:
                raise CoverageError(
                    f"measured with another axis {axis.name!r}: its values are {', '.join(measured[axis.name][1])}, "
                    f"should be {', '.join(axis.values)}; measure again"
                )
        return [measured[axis.name][0] for axis in self.axes]

    def project(self, data: CoverageData, cells: Mapping[str, WitnessedCount]) -> dict[Cell, WitnessedCount]:
        """Project the cells of a file onto the product; cells that differ only in other axes are added up."""
        positions = self.axis_positions(data)
        tallies: dict[Cell, WitnessedCount] = {}
        for code, tally in cells.items():
            cell = tuple(
                axis.values[int(code[position], 36)] for axis, position in zip(self.axes, positions, strict=True)
            )
            tallies[cell] = tallies[cell] + tally if cell in tallies else tally
        return tallies


def possible_pairs() -> list[tuple[str, str]]:
    """Return the pairs of transitions that can follow each other directly in the lifecycle of a session."""
    restarts = [f"restart:{kind}" for kind in RESTART_KINDS]
    running = [*restarts, "end"]
    after = {
        "begin": ["disconnect", *running],
        "disconnect": ["reconnect", *running],
        "reconnect": ["disconnect", *running],
        "end": ["overnight", *restarts],
        "overnight": ["begin"],
        **{restart: ["disconnect", "reconnect", "overnight", *running] for restart in restarts},
    }
    return [(first, second) for first in TRANSITIONS for second in TRANSITIONS if second in after[first]]


class CoverageNumbers:
    """The coverage of a run under a lock file and a catalogue."""

    def __init__(
        self,
        data: CoverageData,
        lock: CoverageLock,
        catalogue: Catalogue,
        *,
        profile: CoverageData | None = None,
        base: CoverageData | None = None,
    ) -> None:
        self.data, self.lock, self.catalogue = data, lock, catalogue
        self.profile, self.base = profile, base
        self.product = AxisProduct(lock)
        self.lines = [self._transition_coverage(label) for label in TRANSITIONS]

    def _transition_coverage(self, label: str) -> TransitionCoverage:
        feasible = self.product.feasible_cells(label)
        tallies = self.product.project(self.data, self.data.transitions.get(label, {}))
        return TransitionCoverage(label, feasible, {cell: tallies[cell] for cell in feasible if cell in tallies})

    # -- C1 -----------------------------------------------------------------------------------------------------

    @property
    def c1(self) -> CoverageRatio:
        """Return C1: covered and feasible cells over all transitions."""
        return CoverageRatio(
            sum(len(line.covered) for line in self.lines), sum(len(line.feasible) for line in self.lines)
        )

    @property
    def pairs(self) -> CoverageRatio:
        """Return the covered and possible pairs of transitions."""
        possible = possible_pairs()
        return CoverageRatio(len(possible) - len(self.missing_pairs), len(possible))

    @cached_property
    def missing_pairs(self) -> list[str]:
        """Return the possible pairs that never happened."""
        return [
            f"{first} > {second}" for first, second in possible_pairs() if f"{first} > {second}" not in self.data.pairs
        ]

    def lines_worst_first(self) -> list[TransitionCoverage]:
        """Return the lines, least covered first."""
        order = {label: number for number, label in enumerate(TRANSITIONS)}
        return sorted(self.lines, key=lambda line: (line.ratio.percent, -len(line.missing), order[line.label]))

    @cached_property
    def rule_violations(self) -> list[RuleViolation]:
        """Return every reached cell that a rule calls infeasible."""
        violations = list(self._find_violations(self.data))
        if self.profile is not None:
            violations += self._find_violations(self.profile)
        return violations

    def _find_violations(self, data: CoverageData) -> Iterator[RuleViolation]:
        product = self.product
        for cell, tally in sorted(product.project(data, data.visits).items()):
            rule = product.forbidding_rule(cell)
            if rule is not None:
                yield RuleViolation(rule, product.place_name(cell), tally.witness)
        for label in TRANSITIONS:
            for cell, tally in sorted(product.project(data, data.transitions.get(label, {})).items()):
                rule = product.forbidding_rule(cell, label)
                if rule is not None and rule.transitions:
                    yield RuleViolation(rule, product.place_name(cell, label), tally.witness)

    def nearest_cell(self, label: str, cell: Cell) -> NearestCell | None:
        """Return the covered cell closest to a missing one, or None.

        Another transition counts like one differing axis.
        """
        best: tuple[tuple[int, int, int, Cell], NearestCell] | None = None
        for number, line in enumerate(self.lines):
            for covered_cell, tally in line.covered.items():
                distance = sum(1 for value, other_value in zip(cell, covered_cell, strict=True) if value != other_value)
                rank = (distance + (line.label != label), int(line.label != label), number, covered_cell)
                if best is None or rank < best[0]:
                    best = (rank, NearestCell(line.label, covered_cell, tally))
        if best is None:
            return None
        nearest = best[1]
        if nearest.label != label:
            nearest.differences.append(f"{TRANSITIONS[nearest.label]} (wanted: {TRANSITIONS[label]})")
        for axis, expected, actual in zip(self.product.axes, cell, nearest.cell, strict=True):
            if expected != actual:
                nearest.differences.append(
                    f"{axis.words[axis.values.index(actual)]} (wanted: {axis.words[axis.values.index(expected)]})"
                )
        return nearest

    # -- C2 and non-vacuity -------------------------------------------------------------------------------------

    @cached_property
    def checked_fields(self) -> list[str]:
        """Return the written fields that an exercised invariant reads."""
        active = [name for name, cells in self.data.invariants.items() if any(cells.values())]
        return select_checked_fields(self.data.written_fields, find_fields_read(self.catalogue, active))

    @property
    def unchecked_fields(self) -> list[str]:
        """Return the written fields that no exercised invariant reads."""
        return sorted(self.data.written_fields - set(self.checked_fields))

    @property
    def c2(self) -> CoverageRatio:
        """Return C2: checked and written fields."""
        return CoverageRatio(len(self.checked_fields), len(self.data.written_fields))

    @cached_property
    def activities(self) -> list[InvariantActivity]:
        """Return the activity of each invariant.

        ACTIVE: its precondition was true. VACUOUS: its records occurred, but the precondition was never true.
        UNKNOWN: its records never occurred.
        """
        kinds = {name.split(".")[1] for name in self.data.recorded_kinds}
        activities = []
        for invariant in self.catalogue:
            cells = self.data.invariants.get(invariant.name, {})
            count = sum(cells.values())
            came_up = any(
                f"{bound.anchor.subsystem}.{bound.anchor.kind.__name__}" in self.data.recorded_kinds
                if bound.anchor.subsystem
                else bound.anchor.kind.__name__ in kinds
                for bound in invariant.predicates
                if bound.anchor.kind is not None
            )
            state = "ACTIVE" if count else "VACUOUS" if came_up else "UNKNOWN"
            activities.append(InvariantActivity(invariant.name, state, count, dict(sorted(cells.items()))))
        return activities

    def activity_cells(self, occasion: InvariantActivity) -> dict[str, int]:
        """Return the cells of the product in which an invariant was exercised, by name, with counts."""
        tallies = {code: WitnessedCount(count, CellWitness(0, "")) for code, count in occasion.cells.items()}
        projection = self.product.project(self.data, tallies)
        return {
            self.product.place_name(cell).removeprefix("being in "): tally.count
            for cell, tally in sorted(projection.items())
        }

    # -- C3 -----------------------------------------------------------------------------------------------------

    @cached_property
    def carry_gaps(self) -> list[CarryGap]:
        """Return what the production profile reached and the run did not; empty without a profile."""
        if self.profile is None:
            return []
        product, gaps = self.product, []
        visited_cells = product.project(self.data, self.data.visits)
        for cell, tally in sorted(product.project(self.profile, self.profile.visits).items()):
            if cell not in visited_cells:
                gaps.append(
                    CarryGap(product.place_name(cell), product.describe(cell), tally.count, tally.witness.source)
                )
        for label in TRANSITIONS:
            exercised_cells = product.project(self.data, self.data.transitions.get(label, {}))
            for cell, tally in sorted(product.project(self.profile, self.profile.transitions.get(label, {})).items()):
                if cell not in exercised_cells:
                    names = product.place_name(cell, label), product.describe(cell, label)
                    gaps.append(CarryGap(*names, tally.count, tally.witness.source))
        return gaps

    def unwaived_gaps(self, today: date) -> tuple[list[CarryGap], list[str]]:
        """Return the gaps without a valid waiver on a day, and a sentence for each expired waiver."""
        waived = {waiver.name: waiver for waiver in self.lock.waiver}
        open_ = [gap for gap in self.carry_gaps if gap.name not in waived or waived[gap.name].last_day < today]
        return open_, [
            f"the waiver of {gap.name} ran out on {waived[gap.name].last_day}" for gap in open_ if gap.name in waived
        ]

    def waived_gaps(self, today: date) -> list[CarryGap]:
        """Return the gaps with a valid waiver on a day."""
        open_ = {gap.name for gap in self.unwaived_gaps(today)[0]}
        return [gap for gap in self.carry_gaps if gap.name not in open_]

    # -- against a base -----------------------------------------------------------------------------------------

    @cached_property
    def lost_places(self) -> list[str]:
        """Return the cells and pairs that the base covers and the run does not, in words."""
        if self.base is None:
            return []
        before = CoverageNumbers(self.base, self.lock, self.catalogue)
        places = [
            f"{self.product.place_name(cell, old.label)} ({self.product.describe(cell, old.label)})"
            for old, new in zip(before.lines, self.lines, strict=True)
            for cell in old.feasible
            if cell in old.covered and cell not in new.covered
        ]
        lost_pairs = set(self.missing_pairs) - set(before.missing_pairs)
        return places + [f"{pair} (a pair of transitions)" for pair in self.missing_pairs if pair in lost_pairs]

    @cached_property
    def gained_places(self) -> list[str]:
        """Return the cells and pairs that the run covers and the base does not, in words."""
        if self.base is None:
            return []
        return CoverageNumbers(self.base_data(), self.lock, self.catalogue, base=self.data).lost_places

    def base_data(self) -> CoverageData:
        """Return the coverage of the base. Raises `CoverageError` when there is none."""
        if self.base is None:
            raise CoverageError("there is no base to compare with")
        return self.base

    # -- thresholds ---------------------------------------------------------------------------------------------

    def ratios(self) -> dict[str, CoverageRatio]:
        """Return the ratios by threshold name."""
        return {"c1": self.c1, "pairs": self.pairs, "c2": self.c2}

    def unmet_thresholds(self) -> list[str]:
        """Return the thresholds that are not met, in words."""
        ratios = self.ratios()
        return [
            f"{name} is {ratios[name].percent:.2f}% ({ratios[name].covered} of {ratios[name].total}), "
            f"should be at least {minimum:g}%"
            for name, minimum in sorted(self.lock.thresholds.items())
            if name in ratios and ratios[name].percent < minimum
        ]

    def as_json(self, today: date) -> dict[str, Any]:
        """Return all numbers as one JSON object."""
        open_, _ = self.unwaived_gaps(today)
        return {
            "catalogue": self.data.catalogue,
            "axes": self.product.names,
            "c1": _ratio_json(self.c1),
            "pairs": _ratio_json(self.pairs),
            "c2": _ratio_json(self.c2),
            "c3": None if self.profile is None else {"gap": len(open_), "waived": len(self.carry_gaps) - len(open_)},
            "transitions": {
                line.label: {
                    **_ratio_json(line.ratio),
                    "missing": [self.product.values_by_axis(cell) for cell in line.missing],
                }
                for line in self.lines_worst_first()
            },
            "missing_pairs": self.missing_pairs,
            "unchecked_fields": self.unchecked_fields,
            "gap": [
                {"name": gap.name, "words": gap.words, "seen": gap.count, "source": gap.source}
                for gap in self.carry_gaps
            ],
            "unwaived": [gap.name for gap in open_],
            "invariants": {
                activity.invariant: {
                    "state": activity.state,
                    "occasions": activity.count,
                    "cells": self.activity_cells(activity),
                }
                for activity in self.activities
            },
            "denominator_wrong": [str(violation) for violation in self.rule_violations],
            "left_out": dict(sorted(self.data.excluded_guards.items())),
            "lost": self.lost_places,
        }


def _ratio_json(ratio: CoverageRatio) -> dict[str, Any]:
    return {"covered": ratio.covered, "of": ratio.total, "percent": round(ratio.percent, 2)}


def gap_names(gaps: Iterable[CarryGap]) -> list[str]:
    """Return the names of gaps."""
    return [gap.name for gap in gaps]
