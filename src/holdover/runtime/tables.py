"""The records that a monitor knows, by subsystem and kind, and the running totals over them.

The tables and totals are plain dicts that generated functions hold; see `check_compiler`. They are therefore changed
in place only, also by a rollback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final

import msgspec

from holdover.catalogue import Adoption, Sum
from holdover.model import Execution, Order, Record, Request
from holdover.runtime.cells import CellCounter
from holdover.state import InPlace, Stateful

Table = dict[str, Record]
TableKey = tuple[str, type[Record]]
_BY_ORDER: Final = "root_cl_ord_id"
_RETIRED_NIGHTS_MAX: Final = 5  # nights for which the totals of a retired order are kept


class TotalsError(RuntimeError):
    """The records and the totals do not belong together; the message says which."""


class RecordTablesState(msgspec.Struct):
    """The state of the tables. Their totals follow from the contributions, but are held by generated functions."""

    by_table: Annotated[dict[TableKey, Table], InPlace]
    contributions: Annotated[dict[TableKey, dict[str, tuple[Any, ...]]], InPlace]
    totals: Annotated[dict[Sum, dict[str, int]], InPlace]
    retired: Annotated[dict[Sum, dict[str, int]], InPlace]
    retired_orders: list[tuple[str, str, str]]
    removal_count: int
    alternatives: dict[tuple[Sum, str, str], dict[str, int]]
    adopted: dict[tuple[str, str], Adoption]
    unconfirmed: set[tuple[str, str]]
    is_restoring: bool


class Contributions(dict[str, tuple[Any, ...]]):
    """The contributions of one table.

    A full garbage collection stops tracking a plain dict whose values are tuples of numbers, and the next insertion
    tracks it again as a young object: the next two collections then look through all of it, 30 ms for a million
    records each. It never stops tracking an instance of a subclass.
    """

    __slots__ = ()


class RecordTables(Stateful[RecordTablesState]):
    """The last record of each key by (subsystem, kind), and the totals of the given sums.

    `contributions` holds what each record adds to the totals of its table: the keys, then the amounts. `retired` holds
    the contributions of records that were retired; `retired_orders` lists retired orders as (night, subsystem, key).
    `alternatives` holds the amounts of records of which only the largest counts, by (sum, total, group). `adopted`
    holds, by (subsystem, key), the restored records whose history is not known; `unconfirmed` holds the
    executions that a restarted system may record once again; `is_restoring` is true while records are restored.
    """

    State = RecordTablesState
    DERIVED: ClassVar = {
        "_cells": "the counter, which is part of the monitor's state itself",
        "_sums_by_table": "the sums that are maintained now, by their table; from the catalogue and what exists",
        "_maintained": "the maintained sum for each sum of the catalogue",
        "change_count": "tells a copier of this process that records were removed or reset",
    }

    def __init__(self, sums: Iterable[Sum], cells: CellCounter) -> None:
        self.by_table: dict[TableKey, Table] = {}
        self.contributions: dict[TableKey, dict[str, tuple[Any, ...]]] = {}
        declared = list(sums)
        names = dict.fromkeys([*declared, *(summed.plain for summed in declared)])
        self.totals: dict[Sum, dict[str, int]] = {summed: {} for summed in names}
        self.retired: dict[Sum, dict[str, int]] = {}
        self.retired_orders: list[tuple[str, str, str]] = []
        self.alternatives: dict[tuple[Sum, str, str], dict[str, int]] = {}
        self.adopted: dict[tuple[str, str], Adoption] = {}
        self.unconfirmed: set[tuple[str, str]] = set()
        self.is_restoring = False
        self._removal_count = 0
        self.change_count = 0
        self._cells = cells
        self._maintained: dict[Sum, Sum] = {}
        self._sums_by_table: dict[TableKey, list[Sum]] = {}
        self.select_sums({summed: summed for summed in declared})

    # -- reading ------------------------------------------------------------------------------------------------

    def records_of(self, table: TableKey) -> Table:
        """Return the last record of each key of one subsystem and kind; the dict stays the same object."""
        return self.by_table.setdefault(table, {})

    def record_count(self) -> int:
        """Return the number of records in all tables."""
        return sum(len(records) for records in self.by_table.values())

    def find(self, table: TableKey, key: str) -> Record | None:
        """Return one record, or None."""
        return self.by_table.get(table, {}).get(key)

    def contributions_of(self, table: TableKey) -> dict[str, tuple[Any, ...]]:
        """Return what each record of a table adds to the totals; the dict stays the same object."""
        return self.contributions.setdefault(table, Contributions())

    def sums_of(self, table: TableKey) -> list[Sum]:
        """Return the maintained sums over the records of a table, in the order of the catalogue."""
        return self._sums_by_table.get(table, [])

    def totals_of(self, summed: Sum) -> dict[str, int]:
        """Return the totals of a sum by key; the dict stays the same object while the same sums are maintained."""
        return self.totals[self._maintained.get(summed, summed)]

    def total_of(self, summed: Sum, key: str) -> int:
        """Return one total; 0 when nothing contributes to it."""
        return self.totals_of(summed).get(key, 0)

    def select_sums(self, maintained: Mapping[Sum, Sum]) -> list[TableKey]:
        """Maintain these sums only; the values are the sums that are computed, the keys those that are read.

        Returns the tables whose sums changed. Their contributions fit only the former sums: see `rebuild_totals`.
        """
        sums_by_table: dict[TableKey, list[Sum]] = {}
        for summed in dict.fromkeys(maintained.values()):
            sums_by_table.setdefault((summed.subsystem, summed.kind), []).append(summed)
        tables = dict.fromkeys([*self._sums_by_table, *sums_by_table])
        changed = [table for table in tables if self._sums_by_table.get(table) != sums_by_table.get(table)]
        self._maintained, self._sums_by_table = dict(maintained), sums_by_table
        return changed

    def rebuild_totals(self, tables: Iterable[TableKey]) -> None:
        """Compute the contributions and totals of tables again, after their sums changed."""
        for table in tables:
            self.contributions_of(table).clear()
            for mark in [mark for mark in self.alternatives if (mark[0].subsystem, mark[0].kind) == table]:
                del self.alternatives[mark]
            sums = self.sums_of(table)
            for summed in sums:
                totals = self.totals[summed]
                totals.clear()
                totals.update(self.retired.get(summed, {}) or self.retired.get(summed.plain, {}))
            attributes = contribution_attributes(sums)
            for key, record in self.by_table.get(table, {}).items():
                contribution = tuple(getattr(record, name) for name in attributes)
                self.contributions_of(table)[key] = contribution
                self._add_contribution(table, key, contribution, 1)

    def recompute_totals(self) -> dict[Sum, dict[str, int]]:
        """Return every total, recomputed from the attributes of the current records."""
        totals: dict[Sum, dict[str, int]] = {summed: dict(base) for summed, base in self.retired.items()}
        for summed in dict.fromkeys(self._maintained.values()):
            by_key = totals.setdefault(summed, {})
            largest: dict[tuple[str, str], int] = {}
            for record in self.by_table.get((summed.subsystem, summed.kind), {}).values():
                by, amount = getattr(record, summed.by), getattr(record, summed.of)
                group = getattr(record, summed.alternatives) if summed.alternatives else ""
                if group:
                    largest[by, group] = max(largest.get((by, group), 0), amount)
                else:
                    by_key[by] = by_key.get(by, 0) + amount
            for (by, _), amount in largest.items():
                by_key[by] = by_key.get(by, 0) + amount
        return totals

    def find_total_differences(self) -> tuple[int, list[str]]:
        """Recompute all totals. Returns their number, and a description of each that differs from the running one."""
        recomputed = self.recompute_totals()
        differences: list[str] = []
        count = 0
        for summed in dict.fromkeys(self._maintained.values()):
            totals = self.totals[summed]
            expected = recomputed.get(summed, {})
            for key in dict.fromkeys([*totals, *expected]):
                count += 1
                if totals.get(key, 0) != expected.get(key, 0):
                    name = f"{summed.subsystem}.{summed.kind.__name__}.{summed.of}[{key}]"
                    differences.append(f"{name} kept {totals.get(key, 0)} recomputed {expected.get(key, 0)}")
        return count, differences

    # -- changing -----------------------------------------------------------------------------------------------

    def forget_record(self, table: TableKey, key: str) -> None:
        """Remove one record and its contribution to the totals."""
        self._remove(table, key)
        contribution = self.contributions.get(table, {}).pop(key, None)
        if contribution is not None:
            self._add_contribution(table, key, contribution, -1)

    def confirm_record(self, table: TableKey, key: str) -> None:
        """Let a record be recorded once more as if it were new; its contribution to the totals stays."""
        self.unconfirmed.discard((table[0], key))
        self._removal_count += 1
        self.by_table.get(table, {}).pop(key, None)

    def retire_record(self, table: TableKey, key: str) -> None:
        """Remove one record but keep its contribution to the totals, because it will not change again."""
        self._remove(table, key)
        contribution = self.contributions.get(table, {}).pop(key, None)
        if contribution is not None:
            for summed, by, amount, group in self._split_contribution(table, contribution):
                if group:  # a group that is over: what it could have filled together does not outlive it
                    self.replace_alternative(summed, key, (by, amount, group), None)
                    continue
                base = self.retired.setdefault(summed, {})
                base[by] = base.get(by, 0) + amount

    def reset_record(self, table: TableKey, key: str, record: Record | None) -> None:
        """Reset one record and the totals, or remove the record when it is None. Evaluates no predicate."""
        if record is not None and record.key != key:
            raise TotalsError(f"{table[0]}.{table[1].__name__}: a record of {record.key} cannot be reset as {key}")
        self.change_count += 1
        if key in self.by_table.get(table, {}):
            self.forget_record(table, key)
        if record is None:
            return
        self.records_of(table)[key] = record
        self._observe(table, None, record)
        sums = self.sums_of(table)
        if sums:
            contribution = tuple(getattr(record, name) for name in contribution_attributes(sums))
            self.contributions_of(table)[key] = contribution
            self._add_contribution(table, key, contribution, 1)

    def clear(self) -> None:
        """Remove every record, contribution and total, in place."""
        for table, records in self.by_table.items():
            for key in list(records):
                self._remove(table, key)
        for by_name in (self.contributions, self.totals, self.retired):
            for content in by_name.values():
                content.clear()
        self.retired_orders.clear()
        self.alternatives.clear()
        self.adopted.clear()
        self.unconfirmed.clear()

    def restore_retired(self, retired: Mapping[Sum, Mapping[str, int]]) -> None:
        """Take over the contributions of retired records into empty tables.

        Raises `TotalsError` when records are there already: their totals would be counted twice.
        """
        if any(self.by_table.values()) or any(self.retired.values()):
            raise TotalsError("the totals of retired records can be restored only before any record")
        for summed, base in retired.items():
            if summed in self.totals:
                self.retired[summed] = dict(base)
                self.totals[summed].update(base)

    def rollback(self, checkpoint: Any) -> None:
        """Restore the tables of a checkpoint, in their order."""
        removal_count = self._removal_count
        super().rollback(checkpoint)
        if self._removal_count != removal_count:
            # A record that was removed and came back is at the end: comparing the order always would cost more.
            for by_name in (self.by_table, self.contributions, self.totals, self.retired):
                for content in by_name.values():
                    content.clear()
            super().rollback(checkpoint)

    def _remove(self, table: TableKey, key: str) -> None:
        self._removal_count += 1
        self.adopted.pop((table[0], key), None)
        self.unconfirmed.discard((table[0], key))
        self.change_count += 1
        record = self.by_table.get(table, {}).pop(key, None)
        if record is not None:
            self._observe(table, record, None)

    def _observe(self, table: TableKey, before: Record | None, after: Record | None) -> None:
        observer, _ = self._cells.observer_of(table)
        if observer is not None:
            observer(before, after)

    # -- contributions ------------------------------------------------------------------------------------------

    def _split_contribution(self, table: TableKey, contribution: tuple[Any, ...]) -> list[tuple[Sum, str, int, str]]:
        """Return (sum, key of the total, amount, group of alternatives) for each sum of the table."""
        sums = self.sums_of(table)
        attributes = contribution_attributes(sums)
        if len(contribution) != len(attributes):
            raise TotalsError(f"{table[0]}.{table[1].__name__}: a contribution of {len(contribution)} values")
        values = dict(zip(attributes, contribution, strict=True))
        return [
            (summed, values[summed.by], values[summed.of], values[summed.alternatives] if summed.alternatives else "")
            for summed in sums
        ]

    def _add_contribution(self, table: TableKey, key: str, contribution: tuple[Any, ...], sign: int) -> None:
        for summed, by, amount, group in self._split_contribution(table, contribution):
            if group:
                entry = (by, amount, group)
                self.replace_alternative(summed, key, None if sign > 0 else entry, entry if sign > 0 else None)
                continue
            totals = self.totals[summed]
            totals[by] = totals.get(by, 0) + sign * amount

    def replace_alternative(
        self, summed: Sum, key: str, before: tuple[str, int, str] | None, after: tuple[str, int, str] | None
    ) -> None:
        """Update one total for a record that has alternatives, before or after.

        `before` and `after` are (key of the total, amount, group); an empty group means that the record counts alone.
        """
        totals = self.totals[summed]
        if before is not None:
            by, amount, group = before
            if group:
                members = self.alternatives.get((summed, by, group), {})
                if members.get(key) != amount:
                    raise TotalsError(f"{summed.subsystem}.{summed.of}[{by}]: {key} is no alternative in {group}")
                largest = max(members.values())
                del members[key]
                amount = largest - max(members.values(), default=0)
                if not members:
                    del self.alternatives[summed, by, group]
            totals[by] = totals.get(by, 0) - amount
        if after is not None:
            by, amount, group = after
            if group:
                members = self.alternatives.setdefault((summed, by, group), {})
                largest = max(members.values(), default=0)
                members[key] = amount
                amount = max(largest, amount) - largest
            totals[by] = totals.get(by, 0) + amount

    # -- retiring -----------------------------------------------------------------------------------------------

    def retire_orders(self, before_date: str) -> int:
        """Retire closed orders last touched before a trading day, with their executions and requests.

        Totals stay unchanged. Returns how many records were retired. Each night does this for its day; without it,
        memory would grow for as long as the process runs.
        """
        retired_count = 0
        for table in [table for table in self.by_table if table[1] is Order]:
            retired_count += self._retire_orders_of(table, before_date)
        self._forget_retired_orders()
        order_keys = {key for table, records in self.by_table.items() if table[1] is Order for key in records}
        for table in [table for table in self.by_table if table[1] is Request]:
            for key, request in list(self.by_table[table].items()):
                # A request without a date cannot be told apart from one of today.
                is_dated = isinstance(request, Request) and "" < request.trade_date < before_date
                if is_dated and getattr(request, "root_cl_ord_id", "") not in order_keys:
                    self.retire_record(table, key)
                    retired_count += 1
        return retired_count

    def _retire_orders_of(self, table: TableKey, before_date: str) -> int:
        executions = (table[0], Execution)
        booked_by_order: dict[str, list[tuple[str, str]]] = {}
        for key, execution in self.by_table.get(executions, {}).items():
            if isinstance(execution, Execution):
                booked_by_order.setdefault(execution.root_cl_ord_id, []).append((execution.booked_on, key))
        retired_count = 0
        for key, order in list(self.by_table[table].items()):
            if not isinstance(order, Order) or order.is_open:
                continue
            booked = booked_by_order.get(key, [])
            if max([order.trade_date, *(date for date, _ in booked)]) >= before_date:
                continue
            for _, execution_key in booked:
                self.retire_record(executions, execution_key)
            self.retire_record(table, key)
            self.retired_orders.append((before_date, table[0], key))
            retired_count += 1 + len(booked)
        return retired_count

    def _forget_retired_orders(self) -> None:
        """Forget the totals of retired orders some nights later; no trade is busted so late."""
        nights = set(sorted({night for night, _, _ in self.retired_orders})[:-_RETIRED_NIGHTS_MAX])
        for night, subsystem, key in self.retired_orders:
            if night in nights:
                self._forget_retired_order(subsystem, key)
        if nights:
            self.retired_orders[:] = [entry for entry in self.retired_orders if entry[0] not in nights]

    def _forget_retired_order(self, subsystem: str, key: str) -> None:
        for summed, base in self.retired.items():
            if summed.subsystem == subsystem and summed.by == _BY_ORDER and key in base:
                amount = base.pop(key)
                totals = self.totals.get(summed, {})
                totals[key] = totals.get(key, 0) - amount
                if not totals[key]:
                    del totals[key]


def contribution_attributes(sums: Iterable[Sum]) -> list[str]:
    """Return the attributes of a record that its contribution to the sums of its table consists of, each once."""
    names = [name for summed in sums for name in (summed.by, summed.of, summed.alternatives) if name]
    return list(dict.fromkeys(names))


Observer = Callable[[TableKey], Callable[[Record], None] | None]
"""Returns the function to call at every mutation of a table, or None."""
