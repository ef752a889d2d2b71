"""Rules proposed from what was never reached. A person accepts them, or does not: that something was never seen is no
proof that it cannot be.

Two kinds are proposed: a value of one axis that a transition, exercised often enough, never once found; and a pair of
values of two axes that were never seen together, though each was seen by itself often enough. What a rule in force
says already is not said again, and a pair is left out where one of its values alone explains it.
"""

from __future__ import annotations

import itertools
from typing import Final

import msgspec

from holdover.coverage.lock import Rule
from holdover.coverage.numbers import Cell, Numbers
from holdover.runtime.cells import TRANSITIONS

OCCASIONS_MIN: Final = 20
"""How often something must have had its chance before its absence is worth a proposal."""


class Proposal(msgspec.Struct, frozen=True):
    """A rule that would fit what was seen: how many places it would take out of the denominator, and what speaks for
    it: how often it had a chance to be contradicted."""

    rule: Rule
    removes: int
    chances: int
    words: str


def propose(numbers: Numbers, *, occasions_min: int = OCCASIONS_MIN) -> list[Proposal]:
    """Proposals, those that take most out of the denominator first."""
    found = [*_never_together(numbers, occasions_min), *_never_at(numbers, occasions_min)]
    return sorted((one for one in found if one.removes), key=lambda one: (-one.removes, -one.chances, one.rule.name))


def proposal_named(numbers: Numbers, name: str, *, occasions_min: int = OCCASIONS_MIN) -> Proposal | None:
    """One proposal by its name."""
    return next((one for one in propose(numbers, occasions_min=occasions_min) if one.rule.name == name), None)


def _never_together(numbers: Numbers, occasions_min: int) -> list[Proposal]:
    product = numbers.product
    visited = product.project(numbers.data, numbers.data.visits)
    alone: dict[tuple[str, str], int] = {}
    together: set[tuple[tuple[str, str], tuple[str, str]]] = set()
    for cell, seen in visited.items():
        marks = list(product.said(cell).items())
        for mark in marks:
            alone[mark] = alone.get(mark, 0) + seen.count
        together.update(itertools.combinations(marks, 2))
    found = []
    for one, other in itertools.combinations(product.axes, 2):
        for value, another in itertools.product(one.values, other.values):
            first, second = (one.name, value), (other.name, another)
            chances = min(alone.get(first, 0), alone.get(second, 0))
            if chances < occasions_min or (first, second) in together:
                continue
            rule = _rule(f"no-{one.name}-{value}-with-{other.name}-{another}", [first, second], [])
            words = f"never seen together: {_words(numbers, first)}, and {_words(numbers, second)}"
            found.append(Proposal(rule, _removes(numbers, rule), chances, words))
    return found


def _never_at(numbers: Numbers, occasions_min: int) -> list[Proposal]:
    product = numbers.product
    found = []
    for label in TRANSITIONS:
        seen = product.project(numbers.data, numbers.data.transitions.get(label, {}))
        chances = sum(one.count for one in seen.values())
        if chances < occasions_min:
            continue
        for place, axis in enumerate(product.axes):
            there = {cell[place] for cell in seen}
            for value in axis.values:
                if value not in there:
                    mark = (axis.name, value)
                    rule = _rule(f"no-{axis.name}-{value}-at-{label.replace(':', '-')}", [mark], [label])
                    words = f"never found when {TRANSITIONS[label]}: {_words(numbers, mark)}"
                    found.append(Proposal(rule, _removes(numbers, rule), chances, words))
    return found


def _rule(name: str, marks: list[tuple[str, str]], transitions: list[str]) -> Rule:
    return Rule(name=name, reason="", when={axis: [value] for axis, value in marks}, transitions=transitions)


def _removes(numbers: Numbers, rule: Rule) -> int:
    def gone(cell: Cell) -> bool:
        return rule.holds(numbers.product.said(cell))

    return sum(
        sum(1 for cell in line.feasible if gone(cell))
        for line in numbers.lines
        if not rule.transitions or line.label in rule.transitions
    )


def _words(numbers: Numbers, mark: tuple[str, str]) -> str:
    axis = next(one for one in numbers.product.axes if one.name == mark[0])
    return axis.words[axis.values.index(mark[1])]


__all__ = ["OCCASIONS_MIN", "Proposal", "propose", "proposal_named"]
