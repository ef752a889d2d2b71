"""The three numbers, which are never averaged, and what is behind each.

C1  cell x transition: in how many of the cells in which a lifecycle transition can find the system it has found it;
    and, as a second line, how many of the possible pairs of transitions have been seen
C2  checked state: how many of the fields written are read by an invariant that had occasion
C3  carry gap: what production has seen and no measured run has
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from holdover.catalogue import Catalogue
from holdover.coverage.data import BadCoverage, Data, Seen, Witness
from holdover.coverage.lock import Lock, Rule
from holdover.coverage.reads import checked, fields_read
from holdover.runtime.cells import RESTART_KINDS, TRANSITIONS

Cell = tuple[str, ...]
"""One value of each axis of the product, in its order."""


@dataclass(frozen=True)
class Ratio:
    """So many of so many."""

    done: int
    of: int

    @property
    def percent(self) -> float:
        """In percent; nothing of nothing is all of it."""
        return 100.0 * self.done / self.of if self.of else 100.0

    def __str__(self) -> str:
        """Rounded, but never up to 100% or down to 0%."""
        if 0 < self.done < self.of:
            return f"{min(max(self.percent, 0.1), 99.9):.1f}%"
        return f"{self.percent:.0f}%"


@dataclass(frozen=True)
class Wrong:
    """A rule calls something infeasible that was reached: the denominator is wrong."""

    rule: Rule
    what: str
    witness: Witness

    def __str__(self) -> str:
        return (
            f"denominator wrong: rule {self.rule.name} says that this cannot be, and {self.witness.source} "
            f"reached it: {self.what}"
        )


@dataclass(frozen=True)
class Gap:
    """Something that production has seen and no measured run has. `name` is what a waiver names."""

    name: str
    words: str
    count: int
    source: str


@dataclass(frozen=True)
class Occasion:
    """How often an invariant's precondition arose, in how many cells; VACUOUS, UNKNOWN or ACTIVE."""

    invariant: str
    state: str
    count: int
    cells: dict[str, int]


@dataclass
class Line:
    """One transition: the cells in which it can find the system, and those in which it has."""

    label: str
    feasible: list[Cell]
    covered: dict[Cell, Seen]

    @property
    def ratio(self) -> Ratio:
        """Covered of feasible."""
        return Ratio(len(self.covered), len(self.feasible))

    @property
    def missing(self) -> list[Cell]:
        """The feasible cells in which it was never exercised."""
        return [cell for cell in self.feasible if cell not in self.covered]


@dataclass
class Near:
    """The covered place that comes closest to a missing one, and what differs."""

    label: str
    cell: Cell
    seen: Seen
    differs: list[str] = field(default_factory=list)


class Product:
    """The product of the lock file's axes, with what of it can be."""

    def __init__(self, lock: Lock) -> None:
        self.lock = lock
        self.axes = lock.product()
        self.names = [one.name for one in self.axes]

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell of the product, feasible or not, in order."""
        return list(itertools.product(*(one.values for one in self.axes)))

    @cached_property
    def _always(self) -> list[Rule]:
        return [rule for rule in self.lock.rule if not rule.transitions]

    def said(self, cell: Cell) -> dict[str, str]:
        """The cell as axis -> value."""
        return dict(zip(self.names, cell, strict=True))

    def forbids(self, cell: Cell, label: str = "") -> Rule | None:
        """The first rule that says that a cell, or a transition in it, cannot be."""
        said = self.said(cell)
        for rule in self.lock.rule:
            if (not rule.transitions or label in rule.transitions) and rule.holds(said):
                return rule
        return None

    def feasible(self, label: str) -> list[Cell]:
        """The cells in which a transition can find the system."""
        return [cell for cell in self.cells if self.forbids(cell, label) is None]

    def name(self, cell: Cell, label: str = "") -> str:
        """A place by name: `restart:kill in orders=partial, link=up`."""
        here = ", ".join(f"{axis}={value}" for axis, value in zip(self.names, cell, strict=True))
        return f"{label or 'being'} in {here}"

    def words(self, cell: Cell, label: str = "") -> str:
        """A place in words."""
        here = "; ".join(one.words[one.values.index(value)] for one, value in zip(self.axes, cell, strict=True))
        return f"{TRANSITIONS[label]}: {here}" if label else here

    def places(self, data: Data) -> list[int]:
        """Where in a file's cells each axis of the product is. Raises `BadCoverage` when one was not measured."""
        there = {one.name: (place, one.values) for place, one in enumerate(data.axes)}
        for one in self.axes:
            if one.name not in there:
                raise BadCoverage(f"measured without the axis {one.name!r}; measure again with it")
            if there[one.name][1] != one.values:
                raise BadCoverage(
                    f"measured with another axis {one.name!r}: its values are {', '.join(there[one.name][1])}, "
                    f"should be {', '.join(one.values)}; measure again"
                )
        return [there[one.name][0] for one in self.axes]

    def project(self, data: Data, cells: Mapping[str, Seen]) -> dict[Cell, Seen]:
        """A file's cells in this product; those that differ in other axes only come together."""
        places = self.places(data)
        found: dict[Cell, Seen] = {}
        for code, seen in cells.items():
            cell = tuple(one.values[int(code[place], 36)] for one, place in zip(self.axes, places, strict=True))
            found[cell] = found[cell] + seen if cell in found else seen
        return found


def possible_pairs() -> list[tuple[str, str]]:
    """Which transition can come right after which, by the lifecycle of a session."""
    restarts = [f"restart:{kind}" for kind in RESTART_KINDS]
    running = [*restarts, "end"]
    after = {
        "begin": ["disconnect", *running],
        "disconnect": ["reconnect", *running],
        "reconnect": ["disconnect", *running],
        "end": ["overnight", *restarts],
        "overnight": ["begin"],
        **{one: ["disconnect", "reconnect", "overnight", *running] for one in restarts},
    }
    return [(one, other) for one in TRANSITIONS for other in TRANSITIONS if other in after[one]]


class Numbers:
    """What a run has covered, under a lock file and a catalogue."""

    def __init__(
        self, data: Data, lock: Lock, catalogue: Catalogue, *, profile: Data | None = None, base: Data | None = None
    ) -> None:
        self.data, self.lock, self.catalogue = data, lock, catalogue
        self.profile, self.base = profile, base
        self.product = Product(lock)
        self.lines = [self._line(label) for label in TRANSITIONS]

    def _line(self, label: str) -> Line:
        feasible = self.product.feasible(label)
        seen = self.product.project(self.data, self.data.transitions.get(label, {}))
        return Line(label, feasible, {cell: seen[cell] for cell in feasible if cell in seen})

    # -- C1 -----------------------------------------------------------------------------------------------------

    @property
    def c1(self) -> Ratio:
        """Cell x transition."""
        return Ratio(sum(len(line.covered) for line in self.lines), sum(len(line.feasible) for line in self.lines))

    @property
    def pairs(self) -> Ratio:
        """Pairs of transitions."""
        possible = possible_pairs()
        return Ratio(len(possible) - len(self.missing_pairs), len(possible))

    @cached_property
    def missing_pairs(self) -> list[str]:
        """The possible pairs that were never seen."""
        return [f"{one} > {other}" for one, other in possible_pairs() if f"{one} > {other}" not in self.data.pairs]

    def worst_first(self) -> list[Line]:
        """The lines, least covered first."""
        order = {label: number for number, label in enumerate(TRANSITIONS)}
        return sorted(self.lines, key=lambda line: (line.ratio.percent, -len(line.missing), order[line.label]))

    @cached_property
    def wrong(self) -> list[Wrong]:
        """Everything reached that a rule calls infeasible."""
        found = list(self._wrong_of(self.data))
        if self.profile is not None:
            found += self._wrong_of(self.profile)
        return found

    def _wrong_of(self, data: Data) -> Iterator[Wrong]:
        product = self.product
        for cell, seen in sorted(product.project(data, data.visits).items()):
            rule = product.forbids(cell)
            if rule is not None:
                yield Wrong(rule, product.name(cell), seen.witness)
        for label in TRANSITIONS:
            for cell, seen in sorted(product.project(data, data.transitions.get(label, {})).items()):
                rule = product.forbids(cell, label)
                if rule is not None and rule.transitions:
                    yield Wrong(rule, product.name(cell, label), seen.witness)

    def nearest(self, label: str, cell: Cell) -> Near | None:
        """The covered place that comes closest to a missing one; a transition that differs counts as an axis would."""
        best: tuple[tuple[int, int, int, Cell], Near] | None = None
        for number, line in enumerate(self.lines):
            for other, seen in line.covered.items():
                apart = sum(1 for one, two in zip(cell, other, strict=True) if one != two)
                rank = (apart + (line.label != label), int(line.label != label), number, other)
                if best is None or rank < best[0]:
                    best = (rank, Near(line.label, other, seen))
        if best is None:
            return None
        near = best[1]
        if near.label != label:
            near.differs.append(f"{TRANSITIONS[near.label]} (wanted: {TRANSITIONS[label]})")
        for one, wanted, there in zip(self.product.axes, cell, near.cell, strict=True):
            if wanted != there:
                near.differs.append(
                    f"{one.words[one.values.index(there)]} (wanted: {one.words[one.values.index(wanted)]})"
                )
        return near

    # -- C2 and non-vacuity -------------------------------------------------------------------------------------

    @cached_property
    def checked_fields(self) -> list[str]:
        """The fields written that an invariant with occasion reads."""
        active = [name for name, cells in self.data.invariants.items() if any(cells.values())]
        return checked(self.data.written, fields_read(self.catalogue, active))

    @property
    def unchecked_fields(self) -> list[str]:
        """The fields written that none reads."""
        return sorted(self.data.written - set(self.checked_fields))

    @property
    def c2(self) -> Ratio:
        """Checked state."""
        return Ratio(len(self.checked_fields), len(self.data.written))

    @cached_property
    def occasions(self) -> list[Occasion]:
        """Each invariant: ACTIVE, VACUOUS (what it is about came up, its precondition never did) or UNKNOWN (what it
        is about never came up)."""
        kinds = {name.split(".")[1] for name in self.data.recorded}
        found = []
        for invariant in self.catalogue:
            cells = self.data.invariants.get(invariant.name, {})
            count = sum(cells.values())
            came_up = any(
                f"{bound.anchor.subsystem}.{bound.anchor.kind.__name__}" in self.data.recorded
                if bound.anchor.subsystem
                else bound.anchor.kind.__name__ in kinds
                for bound in invariant.predicates
                if bound.anchor.kind is not None
            )
            state = "ACTIVE" if count else "VACUOUS" if came_up else "UNKNOWN"
            found.append(Occasion(invariant.name, state, count, dict(sorted(cells.items()))))
        return found

    def cells_of(self, occasion: Occasion) -> dict[str, int]:
        """The cells of the product in which an invariant had occasion, by name, and how often."""
        seen = {code: Seen(count, Witness(0, "")) for code, count in occasion.cells.items()}
        found = self.product.project(self.data, seen)
        return {self.product.name(cell).removeprefix("being in "): one.count for cell, one in sorted(found.items())}

    # -- C3 -----------------------------------------------------------------------------------------------------

    @cached_property
    def gap(self) -> list[Gap]:
        """What the profile has seen and the data have not; empty also where there is no profile."""
        if self.profile is None:
            return []
        product, found = self.product, []
        known = product.project(self.data, self.data.visits)
        for cell, seen in sorted(product.project(self.profile, self.profile.visits).items()):
            if cell not in known:
                found.append(Gap(product.name(cell), product.words(cell), seen.count, seen.witness.source))
        for label in TRANSITIONS:
            mine = product.project(self.data, self.data.transitions.get(label, {}))
            for cell, seen in sorted(product.project(self.profile, self.profile.transitions.get(label, {})).items()):
                if cell not in mine:
                    said = product.name(cell, label), product.words(cell, label)
                    found.append(Gap(*said, seen.count, seen.witness.source))
        return found

    def unwaived(self, today: date) -> tuple[list[Gap], list[str]]:
        """The gaps that no waiver covers on a day, and the waivers that have run out, in words."""
        waived = {one.name: one for one in self.lock.waiver}
        open_ = [gap for gap in self.gap if gap.name not in waived or waived[gap.name].until < today]
        return open_, [
            f"the waiver of {gap.name} ran out on {waived[gap.name].until}" for gap in open_ if gap.name in waived
        ]

    def waived(self, today: date) -> list[Gap]:
        """The gaps that a waiver covers on a day."""
        open_ = {gap.name for gap in self.unwaived(today)[0]}
        return [gap for gap in self.gap if gap.name not in open_]

    # -- against a base -----------------------------------------------------------------------------------------

    @cached_property
    def lost(self) -> list[str]:
        """Places and pairs that the base covers and the data do not, in words."""
        if self.base is None:
            return []
        before = Numbers(self.base, self.lock, self.catalogue)
        found = [
            f"{self.product.name(cell, old.label)} ({self.product.words(cell, old.label)})"
            for old, new in zip(before.lines, self.lines, strict=True)
            for cell in old.feasible
            if cell in old.covered and cell not in new.covered
        ]
        gone = set(self.missing_pairs) - set(before.missing_pairs)
        return found + [f"{pair} (a pair of transitions)" for pair in self.missing_pairs if pair in gone]

    @cached_property
    def won(self) -> list[str]:
        """Places that the data cover and the base does not."""
        if self.base is None:
            return []
        return Numbers(self.data_of_base(), self.lock, self.catalogue, base=self.data).lost

    def data_of_base(self) -> Data:
        """The base's data. Raises `BadCoverage` where there is none."""
        if self.base is None:
            raise BadCoverage("there is no base to compare with")
        return self.base

    # -- thresholds ---------------------------------------------------------------------------------------------

    def ratios(self) -> dict[str, Ratio]:
        """The ratios by the names that thresholds have."""
        return {"c1": self.c1, "pairs": self.pairs, "c2": self.c2}

    def short(self) -> list[str]:
        """The thresholds of the lock file that are not met, in words."""
        ratios = self.ratios()
        return [
            f"{name} is {ratios[name].percent:.2f}% ({ratios[name].done} of {ratios[name].of}), "
            f"should be at least {wanted:g}%"
            for name, wanted in sorted(self.lock.thresholds.items())
            if name in ratios and ratios[name].percent < wanted
        ]

    def as_json(self, today: date) -> dict[str, Any]:
        """Everything as one object."""
        open_, _ = self.unwaived(today)
        return {
            "catalogue": self.data.catalogue,
            "axes": self.product.names,
            "c1": _ratio(self.c1),
            "pairs": _ratio(self.pairs),
            "c2": _ratio(self.c2),
            "c3": None if self.profile is None else {"gap": len(open_), "waived": len(self.gap) - len(open_)},
            "transitions": {
                line.label: {
                    **_ratio(line.ratio),
                    "missing": [self.product.said(cell) for cell in line.missing],
                }
                for line in self.worst_first()
            },
            "missing_pairs": self.missing_pairs,
            "unchecked_fields": self.unchecked_fields,
            "gap": [
                {"name": gap.name, "words": gap.words, "seen": gap.count, "source": gap.source} for gap in self.gap
            ],
            "unwaived": [gap.name for gap in open_],
            "invariants": {
                one.invariant: {"state": one.state, "occasions": one.count, "cells": self.cells_of(one)}
                for one in self.occasions
            },
            "denominator_wrong": [str(one) for one in self.wrong],
            "left_out": dict(sorted(self.data.left_out.items())),
            "lost": self.lost,
        }


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return {"covered": ratio.done, "of": ratio.of, "percent": round(ratio.percent, 2)}


def names_of(gaps: Iterable[Gap]) -> list[str]:
    """The names of gaps."""
    return [gap.name for gap in gaps]
