"""Proposes rules from cells that no run reached. A person accepts or rejects them: that something never happened
does not prove that it cannot.

There are two kinds of proposals: a value of one axis that a frequent transition never found, and a pair of
values of two axes that are frequent but never occurred together. Rules in force are not proposed again, and a
pair is left out when one of its values alone explains it.
"""

from __future__ import annotations

import itertools
from typing import Final

import msgspec

from holdover.coverage.lock import Rule
from holdover.coverage.numbers import Cell, CoverageNumbers
from holdover.runtime.cells import TRANSITIONS

CHANCES_MIN: Final = 20
"""How many chances something must have had before its absence leads to a proposal."""


class Proposal(msgspec.Struct, frozen=True):
    """A rule that fits the measured cells.

    `removed_places` is the number of cells it removes from the denominator, `chances` how often it could have
    been refuted.
    """

    rule: Rule
    removed_places: int
    chances: int
    words: str


def propose_rules(numbers: CoverageNumbers, *, chances_min: int = CHANCES_MIN) -> list[Proposal]:
    """Return the proposals, those that remove most cells first."""
    proposals = [*_propose_pairs(numbers, chances_min), *_propose_values(numbers, chances_min)]
    return sorted(
        (proposal for proposal in proposals if proposal.removed_places),
        key=lambda proposal: (-proposal.removed_places, -proposal.chances, proposal.rule.name),
    )


def find_proposal(numbers: CoverageNumbers, name: str, *, chances_min: int = CHANCES_MIN) -> Proposal | None:
    """Return the proposal of that name, or None."""
    return next(
        (proposal for proposal in propose_rules(numbers, chances_min=chances_min) if proposal.rule.name == name), None
    )


def _propose_pairs(numbers: CoverageNumbers, chances_min: int) -> list[Proposal]:
    product = numbers.product
    visited = product.project(numbers.data, numbers.data.visits)
    single_counts: dict[tuple[str, str], int] = {}
    together: set[tuple[tuple[str, str], tuple[str, str]]] = set()
    for cell, tally in visited.items():
        marks = list(product.values_by_axis(cell).items())
        for mark in marks:
            single_counts[mark] = single_counts.get(mark, 0) + tally.count
        together.update(itertools.combinations(marks, 2))
    proposals = []
    for first_axis, second_axis in itertools.combinations(product.axes, 2):
        for value, second_value in itertools.product(first_axis.values, second_axis.values):
            first, second = (first_axis.name, value), (second_axis.name, second_value)
            chances = min(single_counts.get(first, 0), single_counts.get(second, 0))
            if chances < chances_min or (first, second) in together:
                continue
            rule = _make_rule(
                f"no-{first_axis.name}-{value}-with-{second_axis.name}-{second_value}", [first, second], []
            )
            words = f"never seen together: {_describe_value(numbers, first)}, and {_describe_value(numbers, second)}"
            proposals.append(Proposal(rule, _count_removed(numbers, rule), chances, words))
    return proposals


def _propose_values(numbers: CoverageNumbers, chances_min: int) -> list[Proposal]:
    product = numbers.product
    proposals = []
    for label in TRANSITIONS:
        tallies = product.project(numbers.data, numbers.data.transitions.get(label, {}))
        chances = sum(tally.count for tally in tallies.values())
        if chances < chances_min:
            continue
        for position, axis in enumerate(product.axes):
            reached_values = {cell[position] for cell in tallies}
            for value in axis.values:
                if value not in reached_values:
                    mark = (axis.name, value)
                    rule = _make_rule(f"no-{axis.name}-{value}-at-{label.replace(':', '-')}", [mark], [label])
                    words = f"never found when {TRANSITIONS[label]}: {_describe_value(numbers, mark)}"
                    proposals.append(Proposal(rule, _count_removed(numbers, rule), chances, words))
    return proposals


def _make_rule(name: str, marks: list[tuple[str, str]], transitions: list[str]) -> Rule:
    return Rule(name=name, reason="", axis_values={axis: [value] for axis, value in marks}, transitions=transitions)


def _count_removed(numbers: CoverageNumbers, rule: Rule) -> int:
    def is_removed(cell: Cell) -> bool:
        return rule.matches(numbers.product.values_by_axis(cell))

    return sum(
        sum(1 for cell in line.feasible if is_removed(cell))
        for line in numbers.lines
        if not rule.transitions or line.label in rule.transitions
    )


def _describe_value(numbers: CoverageNumbers, mark: tuple[str, str]) -> str:
    axis = next(axis for axis in numbers.product.axes if axis.name == mark[0])
    return axis.words[axis.values.index(mark[1])]


__all__ = ["CHANCES_MIN", "Proposal", "propose_rules", "find_proposal"]
