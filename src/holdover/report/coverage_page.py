"""The state map: a matrix of cells by transitions, on one page without scripts and without external resources.

Each cell links to its own panel, which the style sheet shows when it is the target of the page. The panel of
a covered cell shows the shortest path; that of a missing one shows the nearest covered cell and the
differences.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

from holdover.coverage.lock import Rule
from holdover.coverage.numbers import Cell, CoverageNumbers, possible_pairs
from holdover.report.environment import render_template
from holdover.runtime.cells import TRANSITIONS


def coverage_page(numbers: CoverageNumbers, today: date) -> str:
    """Return the state map as HTML; `today` decides which waivers are valid."""
    state_map = _StateMap(numbers, today)
    lock = numbers.lock
    return render_template(
        "state_map.html",
        numbers=numbers,
        today=today,
        transitions=TRANSITIONS,
        axes=numbers.product.axes,
        open_gaps=state_map.open_gaps,
        waived_count=len(numbers.carry_gaps) - len(state_map.open_gaps),
        rows=[state_map.row(cell) for cell in state_map.cells],
        infeasible_count=len(numbers.product.cells) - len(state_map.cells),
        pairs=_pairs(numbers),
        activities=[
            (
                activity.invariant,
                activity.state == "ACTIVE",
                f"{activity.count:,} in {len(activity.cells)} cells" if activity.count else activity.state,
            )
            for activity in numbers.activities
        ],
        rules=[_describe_rule(rule) for rule in lock.rule],
        waivers=[f"{waiver.name}: up to {waiver.last_day}, {waiver.reason} ({waiver.by})" for waiver in lock.waiver],
        panels=state_map.panels(),
    )


class _StateMap:
    """The places of the map (a cell at a transition) with their kinds, signs and addresses."""

    def __init__(self, numbers: CoverageNumbers, today: date) -> None:
        self.numbers, self.product = numbers, numbers.product
        self.cells = [cell for cell in self.product.cells if self.product.forbidding_rule(cell) is None]
        self.rows = {cell: row for row, cell in enumerate(self.cells)}
        self.columns = {label: column for column, label in enumerate(TRANSITIONS)}
        self.feasible = {line.label: set(line.feasible) for line in numbers.lines}
        self.covered = {line.label: line.covered for line in numbers.lines}
        self.gaps = {gap.name: gap for gap in numbers.carry_gaps}
        self.open_gaps = {gap.name for gap in numbers.unwaived_gaps(today)[0]}

    def row(self, cell: Cell) -> dict[str, Any]:
        heads = [
            {
                "value": value,
                "words": axis.words[axis.values.index(value)],
                "is_zero": value == axis.values[0],
            }
            for axis, value in zip(self.product.axes, cell, strict=True)
        ]
        places = []
        for label in TRANSITIONS:
            kind, sign = self._kind_and_sign(cell, label)
            places.append({"kind": kind, "sign": sign, "label": label, "id": self._id(cell, label)})
        return {"heads": heads, "places": places}

    def panels(self) -> Iterator[dict[str, Any]]:
        """Yield what the panel of each feasible place shows."""
        for cell in self.cells:
            phrases = self.product.describe(cell).split("; ")
            for label in TRANSITIONS:
                kind, _ = self._kind_and_sign(cell, label)
                if kind == "infeasible":
                    continue
                nearest = self.numbers.nearest_cell(label, cell) if kind != "covered" else None
                yield {
                    "id": self._id(cell, label),
                    "label": label,
                    "kind": kind,
                    "phrases": phrases,
                    "tally": self.covered[label][cell] if kind == "covered" else None,
                    "gap": self.gaps.get(self.product.place_name(cell, label)),
                    "nearest": nearest,
                    "nearest_id": self._id(nearest.cell, nearest.label) if nearest is not None else "",
                }

    def _kind_and_sign(self, cell: Cell, label: str) -> tuple[str, str]:
        tally = self.covered[label].get(cell)
        if tally is not None:
            return "covered", _short_count(tally.count)
        name = self.product.place_name(cell, label)
        if name in self.gaps:
            return ("production", "!") if name in self.open_gaps else ("waived", "w")
        return ("missing", "·") if cell in self.feasible[label] else ("infeasible", "")

    def _id(self, cell: Cell, label: str) -> str:
        return f"p{self.rows[cell]}-{self.columns[label]}"


def _describe_rule(rule: Rule) -> str:
    values = ", ".join(f"{axis}={value}" for axis, values in rule.axis_values.items() for value in values)
    transitions = f" at {', '.join(rule.transitions)}" if rule.transitions else ""
    return f"{rule.name}: {rule.reason} ({values}{transitions}; accepted by {rule.accepted_by})"


def _pairs(numbers: CoverageNumbers) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return for each transition the kind and the sign of every transition right after it."""
    possible = set(possible_pairs())

    def kind_and_sign(first: str, second: str) -> tuple[str, str]:
        tally = numbers.data.pairs.get(f"{first} > {second}")
        if tally:
            return "covered", _short_count(tally.count)
        return ("missing", "·") if (first, second) in possible else ("infeasible", "")

    return [(first, [kind_and_sign(first, second) for second in TRANSITIONS]) for first in TRANSITIONS]


def _short_count(count: int) -> str:
    return str(count) if count < 1000 else f"{count // 1000}k"
