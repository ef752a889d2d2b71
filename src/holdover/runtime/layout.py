"""Generated check functions: one straight-line function for each kind of mutation, written when the catalogue is
bound.

A monitor that iterates over a table of invariants at every mutation spends its time on the iteration. This
module instead generates Python source for each (subsystem, kind): store the record, update the running
totals, evaluate the on-mutation predicates, mark the keys whose settled invariants must be evaluated again.
The source is compiled once and has its tables and totals as globals. `Layout.source` keeps it for inspection.

The tables and totals are plain dictionaries that the layout owns, so memory can be dumped, restored and
recomputed without changing generated code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from holdover.catalogue import BoundPredicate, Catalogue, Entry, PredicateError, Sum
from holdover.model import Record
from holdover.runtime.cells import CellCounter

Table = dict[str, Record]
TableKey = tuple[str, type[Record]]
Touched = dict[tuple[int, str], None]
Mutate = Callable[[Any, str, int, Touched], Any]
Settle = Callable[[str, int], None]
_BY_ORDER: Final = "root_cl_ord_id"


@dataclass
class Check:
    """One predicate of one invariant, with its index in the tally."""

    number: int
    entry: Entry
    bound: BoundPredicate

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


class Layout:
    """Tables, totals and generated functions of one catalogue.

    The layout calls `fail(check, subsystem, key, arguments, error)` for a predicate that did not hold or raised,
    and `arm(check, subsystem, key, now_ns, result)` for a predicate that must become true within a time.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        fail: Callable[[Check, str, str, tuple[Any, ...], BaseException | None], None],
        arm: Callable[[Check, str, str, int, bool | None], None],
        frozen: object,
        cells: CellCounter | None = None,
    ) -> None:
        self.cells = cells if cells is not None else CellCounter(())
        self.checks: list[Check] = []
        for invariant in catalogue:
            for bound in invariant.predicates:
                self.checks.append(Check(len(self.checks), invariant.entry, bound))
        self.tables: dict[TableKey, Table] = {}
        self.contributions: dict[TableKey, dict[str, tuple[Any, ...]]] = {}
        self.totals: dict[Sum, dict[str, int]] = {}
        self.retired: dict[Sum, dict[str, int]] = {}
        self.groups: list[CheckGroup] = []
        self.evaluated = [0]
        self.tally = [0] * len(self.checks)
        self.source: dict[TableKey, str] = {}
        self._fail, self._arm, self._frozen = fail, arm, frozen
        self._group_of: dict[tuple[TableKey, bool], CheckGroup] = {}
        self._observers: list[Callable[[TableKey], Callable[[Record], None] | None]] = []
        self._mutate_functions: dict[TableKey, Mutate] = {}
        for check in self.checks:
            anchor = check.bound.anchor
            if anchor.subsystem is not None and anchor.kind is not None:
                self._assign_group(check, (anchor.subsystem, anchor.kind))
            for read in check.bound.reads:
                if read.total is not None:
                    self.totals.setdefault(read.total.sum, {})

    # -- what the monitor calls ---------------------------------------------------------------------------------

    def mutate_function(self, table: TableKey) -> Mutate:
        """Return the function for one kind of mutation; generate it on first use."""
        function = self._mutate_functions.get(table)
        if function is None:
            for check in self.checks:
                anchor = check.bound.anchor
                if anchor.subsystem is None and anchor.kind is table[1]:
                    self._assign_group(check, table)
            function = self._mutate_functions[table] = self._write_mutate(table)
        return function

    def records_of(self, table: TableKey) -> Table:
        """Return the last record of each key of one subsystem and kind."""
        return self.tables.setdefault(table, {})

    def settle_function(self, group: CheckGroup) -> Settle:
        """Return the function that evaluates one group's checks on one key; generate it on first use."""
        if group.settle is None:
            group.settle = self._write_settle(group)
        return group.settle

    def forget_record(self, table: TableKey, key: str) -> None:
        """Remove one record and its contribution to the totals."""
        self._drop_record(table, key)
        contribution = self.contributions.get(table, {}).pop(key, None)
        if contribution is not None:
            self._add_contribution(table, contribution, -1)

    def retire_record(self, table: TableKey, key: str) -> None:
        """Remove one record but keep its contribution to the totals, because it will not change again."""
        self._drop_record(table, key)
        contribution = self.contributions.get(table, {}).pop(key, None)
        if contribution is not None:
            for summed, by, of in self._split_contribution(table, contribution):
                base = self.retired.setdefault(summed, {})
                base[by] = base.get(by, 0) + of

    def forget_retired_order(self, subsystem: str, key: str) -> None:
        """Remove the contribution of a long-retired order from the totals by order."""
        for summed, base in self.retired.items():
            if summed.subsystem == subsystem and summed.by == _BY_ORDER and key in base:
                amount = base.pop(key)
                totals = self.totals.get(summed, {})
                totals[key] = totals.get(key, 0) - amount
                if not totals[key]:
                    del totals[key]

    def _drop_record(self, table: TableKey, key: str) -> None:
        record = self.tables[table].pop(key, None)
        watch, _ = self.cells.observer_of(table)
        if record is not None and watch is not None:
            watch(record, None)

    def add_observer(self, observer: Callable[[TableKey], Callable[[Record], None] | None]) -> None:
        """Call the function that `observer` returns for a table at every mutation of that table."""
        self._observers.append(observer)
        self._mutate_functions.clear()

    def reset_record(self, table: TableKey, key: str, record: Record | None) -> None:
        """Reset one record and the totals, or remove the record when it is None. Evaluates no predicate."""
        if key in self.tables.get(table, {}):
            self.forget_record(table, key)
        if record is None:
            return
        self.records_of(table)[key] = record
        watch, _ = self.cells.observer_of(table)
        if watch is not None:
            watch(None, record)
        sums = self._sums_of(table)
        if sums:
            keys = list(dict.fromkeys(summed.by for summed in sums))
            adds = (*(getattr(record, by) for by in keys), *(getattr(record, summed.of) for summed in sums))
            self.contributions.setdefault(table, {})[key] = adds
            self._add_contribution(table, adds, 1)

    def checkpoint(self) -> Any:
        """Return the layout's state for `rollback` in the same process."""
        owned = (self.tables, self.contributions, self.totals, self.retired)
        copies: list[dict[Any, Any]] = [{name: dict(values) for name, values in mapping.items()} for mapping in owned]
        return copies, list(self.tally), self.evaluated[0]

    def rollback(self, checkpoint: Any) -> None:
        """Restore a checkpoint in place, because the generated functions hold these dictionaries."""
        copies, tally, evaluated = checkpoint
        owned: tuple[dict[Any, Any], ...] = (self.tables, self.contributions, self.totals, self.retired)
        for mapping, saved in zip(owned, copies, strict=True):
            for name, values in mapping.items():
                before = saved.get(name, {})
                if values != before:
                    values.clear()
                    values.update(before)
        self.tally[:] = tally
        self.evaluated[0] = evaluated

    def recompute_totals(self) -> dict[Sum, dict[str, int]]:
        """Return every total, recomputed from the attributes of the current records."""
        totals: dict[Sum, dict[str, int]] = {summed: dict(base) for summed, base in self.retired.items()}
        for summed in self.totals:
            by_key = totals.setdefault(summed, {})
            for record in self.tables.get((summed.subsystem, summed.kind), {}).values():
                by = getattr(record, summed.by)
                by_key[by] = by_key.get(by, 0) + getattr(record, summed.of)
        return totals

    def arguments(self, check: Check, table: TableKey, key: str, boundary: object) -> tuple[Any, ...] | None:
        """Return the current arguments of one predicate for one key; None when a required record is missing."""
        anchor = self.tables.get(table, {}).get(key)
        values: list[Any] = []
        for read in check.bound.reads:
            value: Any
            if read.source == "anchor":
                value = anchor
            elif read.source == "held":
                value = self._find_record(read.subsystem, read.kind, key)
            elif read.source == "via" and read.via is not None and anchor is not None:
                value = self._find_record(read.subsystem, read.kind, getattr(anchor, read.via.by))
            elif read.source == "total" and read.total is not None and anchor is not None:
                value = self.totals[read.total.sum].get(getattr(anchor, read.total.key), 0)
            elif read.source == "before":
                return None
            else:
                value = {"boundary": boundary, "frozen": self._frozen}.get(read.source)
            if value is None and not read.optional:
                return None
            values.append(value)
        return tuple(values)

    def _find_record(self, subsystem: str | None, kind: type[Record] | None, key: str) -> Record | None:
        if subsystem is None or kind is None:
            return None
        return self.tables.get((subsystem, kind), {}).get(key)

    # -- groups -------------------------------------------------------------------------------------------------

    def _assign_group(self, check: Check, table: TableKey) -> None:
        if check.asserted == "on-mutation" or check.asserted == "at-boundary":
            return
        reconciled = check.asserted == "when-reconciled"
        group = self._group_of.get((table, reconciled))
        if group is None:
            group = self._group_of[(table, reconciled)] = CheckGroup(len(self.groups), table, reconciled)
            self.groups.append(group)
        if check not in group.checks:
            group.checks.append(check)
            group.settle = None
            self._mutate_functions.clear()  # functions generated before do not evaluate this check

    def _touched_groups(self, table: TableKey) -> list[tuple[int, str]]:
        """Return (group, expression of the anchor's key) for every group that a mutation of this table affects."""
        touched: dict[tuple[int, str], None] = {}
        for group in self.groups:
            if group.table == table:
                touched[group.number, "key"] = None
            for check in group.checks:
                for read in check.bound.reads[1:]:
                    if read.source == "held" and (read.subsystem, read.kind) == table:
                        touched[group.number, "key"] = None
                    elif read.total is not None and (read.subsystem, read.kind) == table:
                        touched[group.number, f"after.{read.total.touches}"] = None
        return list(touched)

    # -- totals -------------------------------------------------------------------------------------------------

    def _sums_of(self, table: TableKey) -> list[Sum]:
        return [summed for summed in self.totals if (summed.subsystem, summed.kind) == table]

    def _split_contribution(self, table: TableKey, contribution: tuple[Any, ...]) -> list[tuple[Sum, str, int]]:
        sums = self._sums_of(table)
        keys = list(dict.fromkeys(summed.by for summed in sums))
        return [
            (summed, contribution[keys.index(summed.by)], contribution[len(keys) + number])
            for number, summed in enumerate(sums)
        ]

    def _add_contribution(self, table: TableKey, contribution: tuple[Any, ...], sign: int) -> None:
        for summed, by, of in self._split_contribution(table, contribution):
            totals = self.totals[summed]
            totals[by] = totals.get(by, 0) + sign * of

    # -- writing ------------------------------------------------------------------------------------------------

    def _write_mutate(self, table: TableKey) -> Mutate:
        names: dict[str, Any] = {
            "T": self.records_of(table),
            "N": self.evaluated,
            "A": self.tally,
            "FAIL": self._fail,
            "FROZEN": self._frozen,
        }
        lines = ["def mutate(after, key, now, touched):", "    before = T.get(key)", "    T[key] = after"]
        lines += self._write_totals(table, names)
        lines += self._write_cells(table, names)
        checks = [c for c in self.checks if c.asserted == "on-mutation" and self._is_anchored_at(c, table)]
        # Checks that read the freezes come first: the freezes before a message decide, not those that it causes.
        checks.sort(key=lambda check: all(read.source != "frozen" for read in check.bound.reads))
        for check in checks:
            lines += self._write_check(check, table, names, anchor="after")
        if checks:
            lines.append(f"    N[0] += {len(checks)}")
        lines += [f"    touched[{group}, {expression}] = None" for group, expression in self._touched_groups(table)]
        lines.append("    return before")
        return cast(Mutate, self._compile(table, lines, names, "mutate"))

    def _write_cells(self, table: TableKey, names: dict[str, Any]) -> list[str]:
        """Generate source that calls the axes of this kind when an expression that they depend on has changed."""
        lines: list[str] = []
        watch, depends = self.cells.observer_of(table)
        if watch is not None:
            names["WATCH"] = watch
            sides = [
                [re.sub(r"\br\.", f"{side}.", expression) for expression in depends] for side in ("before", "after")
            ]
            differ = [f"({before}) != ({after})" for before, after in zip(*sides, strict=True)]
            lines.append(f"    if before is None or {' or '.join(differ)}:" if differ else "    if True:")
            lines.append("        WATCH(before, after)")
        for number, observer in enumerate(self._observers):
            callback = observer(table)
            if callback is not None:
                names[f"SEEN{number}"] = callback
                lines.append(f"    SEEN{number}(after)")
        return lines

    def _write_totals(self, table: TableKey, names: dict[str, Any]) -> list[str]:
        sums = self._sums_of(table)
        if not sums:
            return []
        keys = list(dict.fromkeys(summed.by for summed in sums))
        parts = ", ".join([f"after.{by}" for by in keys] + [f"after.{summed.of}" for summed in sums])
        names["C"] = self.contributions.setdefault(table, {})
        lines = [
            "    was = C.get(key)",
            f"    now_adds = ({parts},)",
            "    if was != now_adds:",
            "        C[key] = now_adds",
        ]
        for number, summed in enumerate(sums):
            names[f"S{number}"] = self.totals[summed]
            by, of = keys.index(summed.by), len(keys) + number
            lines += [
                "        if was is None:",
                f"            S{number}[now_adds[{by}]] = S{number}.get(now_adds[{by}], 0) + now_adds[{of}]",
                f"        elif was[{by}] != now_adds[{by}] or was[{of}] != now_adds[{of}]:",
                f"            S{number}[was[{by}]] -= was[{of}]",
                f"            S{number}[now_adds[{by}]] = S{number}.get(now_adds[{by}], 0) + now_adds[{of}]",
            ]
        return lines

    def _write_settle(self, group: CheckGroup) -> Settle:
        names: dict[str, Any] = {
            "T": self.records_of(group.table),
            "N": self.evaluated,
            "A": self.tally,
            "FAIL": self._fail,
            "ARM": self._arm,
            "FROZEN": self._frozen,
        }
        lines = ["def settle(key, now):", "    after = T.get(key)"]
        if not any(check.bound.anchor.optional for check in group.checks):
            lines += ["    if after is None:", "        return"]
        for check in group.checks:
            lines += self._write_check(check, group.table, names, anchor="after")
        lines.append(f"    N[0] += {len(group.checks)}")
        return cast(Settle, self._compile(group.table, lines, names, "settle"))

    def _write_check(self, check: Check, table: TableKey, names: dict[str, Any], anchor: str) -> list[str]:
        """Generate source that evaluates one predicate if all records that it requires exist."""
        number = check.number
        names[f"P{number}"], names[f"K{number}"] = check.bound.function, check
        lines: list[str] = []
        arguments: list[str] = []
        conditions: list[str] = []
        for index, read in enumerate(check.bound.reads):
            name = f"v{number}_{index}"
            if read.source == "anchor":
                arguments.append(anchor)
                continue
            if read.source == "before" and check.asserted != "on-mutation":
                raise PredicateError(
                    f"{check.entry.name}: the previous record can be read only by an invariant asserted on-mutation"
                )
            if read.source in ("before", "frozen"):
                arguments.append("before" if read.source == "before" else "FROZEN")
                continue
            if read.source == "total" and read.total is not None:
                names[f"Z{number}_{index}"] = self.totals[read.total.sum]
                key = "key" if read.total.key == "key" else f"after.{read.total.key}"
                arguments.append(f"Z{number}_{index}.get({key}, 0)")
                continue
            if read.subsystem is None or read.kind is None:
                raise ValueError(
                    f"{check.entry.name}: a boundary can be read only by an invariant asserted at-boundary"
                )
            names[f"H{number}_{index}"] = self.records_of((read.subsystem, read.kind))
            key = f"after.{read.via.by}" if read.via else "key"
            lines.append(f"    {name} = H{number}_{index}.get({key})")
            arguments.append(name)
            if not read.optional:
                conditions.append(f"{name} is not None")
        indent = "    "
        if conditions:
            lines.append(f"    if {' and '.join(conditions)}:")
            indent = "        "
        argument_list = ", ".join(arguments)
        has_deadline = check.asserted == "within"
        lines += [
            f"{indent}try:",
            f"{indent}    r = P{number}({argument_list})",
            f"{indent}except Exception as raised:",
        ]
        lines.append(f"{indent}    FAIL(K{number}, {table[0]!r}, key, ({argument_list},), raised)")
        lines.append(f"{indent}else:")
        if has_deadline:
            lines += [f"{indent}    ARM(K{number}, {table[0]!r}, key, now, r)", f"{indent}    A[{number}] += 1"]
        else:
            lines += [
                f"{indent}    if r:",
                f"{indent}        A[{number}] += 1",
                f"{indent}    elif r is not None:",
                f"{indent}        FAIL(K{number}, {table[0]!r}, key, ({argument_list},), None)",
            ]
        return lines

    def _is_anchored_at(self, check: Check, table: TableKey) -> bool:
        anchor = check.bound.anchor
        return anchor.kind is table[1] and anchor.subsystem in (None, table[0])

    def _compile(
        self, table: TableKey, lines: list[str], names: dict[str, Any], function_name: str
    ) -> Callable[..., Any]:
        source = "\n".join(lines) + "\n"
        self.source[table] = source
        exec(compile(source, f"<{function_name} {table[0]}.{table[1].__name__}>", "exec"), names)
        return cast(Callable[..., Any], names[function_name])
