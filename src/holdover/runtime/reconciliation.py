"""Comparison with the venue: what must agree when nothing is in flight, and what a second reconciliation must not
change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from holdover.model import Reconciliation, Repetition
from holdover.runtime.check import Touched
from holdover.runtime.idempotence import ReconciliationIdempotence
from holdover.runtime.tables import RecordTables
from holdover.state import Stateful

if TYPE_CHECKING:
    from holdover.runtime.check_compiler import CheckCompiler


class VenueComparisonState(msgspec.Struct):
    """The state of the comparison."""

    uncompared: Touched
    idempotence: ReconciliationIdempotence


class VenueComparison(Stateful[VenueComparisonState]):
    """The keys that changed since the last comparison with the venue, as (group, key), and their evaluation."""

    State = VenueComparisonState
    DERIVED: ClassVar = {
        "_compiler": "the checks, which are part of the monitor's state themselves",
        "_tables": "the records, which are part of the monitor's state themselves",
    }

    def __init__(self, compiler: CheckCompiler, tables: RecordTables) -> None:
        self.uncompared: Touched = {}
        self.idempotence = ReconciliationIdempotence()
        self._compiler, self._tables = compiler, tables

    def compare_changed(self, now_ns: int) -> None:
        """Evaluate the changed keys, unless a reconciliation is in progress; `reconciled-within` covers its end."""
        if self.uncompared and not self._is_reconciling():
            marks = list(self.uncompared)
            self.uncompared.clear()
            for number, key in marks:
                group = self._compiler.groups[number]
                (group.settle or self._compiler.settle_function(group))(key, now_ns)

    def compare_all(self, trade_date: str, now_ns: int) -> Repetition | None:
        """Evaluate every key. Returns what this reconciliation changed, if it should not have changed anything."""
        self.uncompared.clear()
        for group in self._compiler.groups:
            if group.reconciled:
                settle = self._compiler.settle_function(group)
                for key in list(self._tables.records_of(group.table)):
                    settle(key, now_ns)
        return self.idempotence.compare(self._tables.by_table, trade_date)

    def forget_removed_keys(self) -> None:
        """Forget the keys whose records were removed."""
        groups = self._compiler.groups
        for mark in [mark for mark in self.uncompared if self._tables.find(groups[mark[0]].table, mark[1]) is None]:
            del self.uncompared[mark]

    def _is_reconciling(self) -> bool:
        return any(
            isinstance(record, Reconciliation) and not record.is_complete
            for table, records in self._tables.by_table.items()
            if table[1] is Reconciliation
            for record in records.values()
        )
