"""Checks: predicates with their index, and the groups of those that are evaluated together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from holdover.catalogue import BoundPredicate, Entry, Threshold
from holdover.runtime.tables import TableKey

Touched = dict[tuple[int, str], None]
"""The keys that must settle, as (group, key)."""
Settle = Callable[[str, int], None]


@dataclass
class Check:
    """One predicate of one invariant, with its index in the tally and the thresholds of its entry."""

    number: int
    entry: Entry
    bound: BoundPredicate
    threshold: Threshold

    @property
    def asserted(self) -> str:
        """When this predicate is evaluated."""
        return self.bound.asserted or self.entry.asserted


@dataclass
class CheckGroup:
    """The checks of one anchor table that are evaluated together: when settled, or when reconciled."""

    number: int
    table: TableKey
    reconciled: bool
    checks: list[Check] = field(default_factory=list)
    settle: Settle | None = None

    @property
    def table_name(self) -> tuple[str, str]:
        """The names of subsystem and kind."""
        return self.table[0], self.table[1].__name__
