"""Generated check functions: one straight-line function for each kind of mutation, written when the catalogue is
bound.

A monitor that iterates over a table of invariants at every mutation spends its time on the iteration. This
module instead generates Python source for each (subsystem, kind): store the record, update the running
totals, evaluate the on-mutation predicates, mark the keys whose settled invariants must be evaluated again.
The source is compiled once and has the tables and totals as globals. Tracebacks show its lines, and `list_sources`
returns it.
"""

from __future__ import annotations

import hashlib
import linecache
import re
from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any, ClassVar, cast

import msgspec

from holdover.catalogue import Catalogue, PredicateError, Sum
from holdover.model import Record
from holdover.runtime.cells import CellCounter
from holdover.runtime.check import Check, CheckGroup, Settle, Touched
from holdover.runtime.tables import Observer, RecordTables, TableKey, keys_of
from holdover.state import Stateful

Mutate = Callable[[Any, str, int, Touched], Any]


class CheckCountsState(msgspec.Struct):
    """How often predicates were evaluated: in all, and by check with the precondition met."""

    evaluated: list[int]
    tally: list[int]


class CheckCompiler(Stateful[CheckCountsState]):
    """The checks of one catalogue, and the functions that are generated for them.

    The functions call `fail(check, subsystem, key, arguments, error)` for a predicate that did not hold or raised,
    and `arm(check, subsystem, key, now_ns, result)` for a predicate that must become true within a time.
    """

    State = CheckCountsState
    DERIVED: ClassVar = {
        "checks": "the predicates of the catalogue",
        "groups": "the checks by their anchor's table, made when a table first appears",
        "_tables": "the records, which are part of the monitor's state themselves",
        "_cells": "the counter, which is part of the monitor's state itself",
        "_fail": "a function of the monitor",
        "_arm": "a function of the monitor",
        "_frozen": "the guard's freezes, which are part of its own state",
        "_group_of": "the groups by table",
        "_observers": "functions of whoever measures coverage",
        "_mutate_functions": "generated from the checks",
        "_sources": "the source of what was generated",
    }

    def __init__(
        self,
        catalogue: Catalogue,
        tables: RecordTables,
        fail: Callable[[Check, str, str, tuple[Any, ...], BaseException | None], None],
        arm: Callable[[Check, str, str, int, bool | None], None],
        frozen: object,
        cells: CellCounter,
    ) -> None:
        self.checks: list[Check] = []
        for invariant in catalogue:
            for bound in invariant.predicates:
                self.checks.append(Check(len(self.checks), invariant.entry, bound))
        self.groups: list[CheckGroup] = []
        self.evaluated = [0]
        self.tally = [0] * len(self.checks)
        self._tables, self._cells = tables, cells
        self._fail, self._arm, self._frozen = fail, arm, frozen
        self._group_of: dict[tuple[TableKey, bool], CheckGroup] = {}
        self._observers: list[Observer] = []
        self._mutate_functions: dict[TableKey, Mutate] = {}
        self._sources: dict[str, str] = {}
        for check in self.checks:
            anchor = check.bound.anchor
            if anchor.subsystem is not None and anchor.kind is not None:
                self._assign_group(check, (anchor.subsystem, anchor.kind))

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

    def settle_function(self, group: CheckGroup) -> Settle:
        """Return the function that evaluates one group's checks on one key; generate it on first use."""
        if group.settle is None:
            group.settle = self._write_settle(group)
        return group.settle

    def add_observer(self, observer: Observer) -> None:
        """Call the function that `observer` returns for a table at every mutation of that table."""
        self._observers.append(observer)
        self._mutate_functions.clear()

    def list_sources(self) -> dict[str, str]:
        """Return the source of the functions generated so far, by their name in tracebacks."""
        return dict(self._sources)

    def arguments(self, check: Check, table: TableKey, key: str, boundary: object) -> tuple[Any, ...] | None:
        """Return the current arguments of one predicate for one key; None when a required record is missing."""
        anchor = self._tables.find(table, key)
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
                value = self._tables.total_of(read.total.sum, getattr(anchor, read.total.key))
            elif read.source == "before":
                return None
            else:
                value = {"boundary": boundary, "frozen": self._frozen}.get(read.source)
            if value is None and not read.optional:
                return None
            values.append(value)
        return tuple(values)

    def _find_record(self, subsystem: str | None, kind: type[Record] | None, key: str) -> Record | None:
        return None if subsystem is None or kind is None else self._tables.find((subsystem, kind), key)

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

    # -- writing ------------------------------------------------------------------------------------------------

    def _write_mutate(self, table: TableKey) -> Mutate:
        names: dict[str, Any] = {
            "T": self._tables.records_of(table),
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
        watch, depends = self._cells.observer_of(table)
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
        sums = self._tables.sums_of(table)
        if not sums:
            return []
        keys = keys_of(sums)
        parts = ", ".join([f"after.{by}" for by in keys] + [f"after.{summed.of}" for summed in sums])
        names["C"] = self._tables.contributions_of(table)
        lines = [
            "    was = C.get(key)",
            f"    now_adds = ({parts},)",
            "    if was != now_adds:",
            "        C[key] = now_adds",
        ]
        for number, summed in enumerate(sums):
            names[f"S{number}"] = self._tables.totals[summed]
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
            "T": self._tables.records_of(group.table),
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
        lines, arguments, conditions = self._write_arguments(check, names, anchor)
        indent = "    "
        if conditions:
            lines.append(f"    if {' and '.join(conditions)}:")
            indent = "        "
        argument_list = ", ".join(arguments)
        lines += [
            f"{indent}try:",
            f"{indent}    r = P{number}({argument_list})",
            f"{indent}except Exception as raised:",
            f"{indent}    FAIL(K{number}, {table[0]!r}, key, ({argument_list},), raised)",
            f"{indent}else:",
        ]
        if check.asserted == "within":
            lines += [f"{indent}    ARM(K{number}, {table[0]!r}, key, now, r)", f"{indent}    A[{number}] += 1"]
        else:
            lines += [
                f"{indent}    if r:",
                f"{indent}        A[{number}] += 1",
                f"{indent}    elif r is not None:",
                f"{indent}        FAIL(K{number}, {table[0]!r}, key, ({argument_list},), None)",
            ]
        return lines

    def _write_arguments(
        self, check: Check, names: dict[str, Any], anchor: str
    ) -> tuple[list[str], list[str], list[str]]:
        """Return source that looks up a predicate's records, its arguments, and the conditions on which it applies."""
        lines: list[str] = []
        arguments: list[str] = []
        conditions: list[str] = []
        for index, read in enumerate(check.bound.reads):
            name = f"{check.number}_{index}"
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
                names[f"Z{name}"] = self._tables.totals[read.total.sum]
                key = "key" if read.total.key == "key" else f"after.{read.total.key}"
                arguments.append(f"Z{name}.get({key}, 0)")
                continue
            if read.subsystem is None or read.kind is None:
                raise ValueError(
                    f"{check.entry.name}: a boundary can be read only by an invariant asserted at-boundary"
                )
            names[f"H{name}"] = self._tables.records_of((read.subsystem, read.kind))
            key = f"after.{read.via.by}" if read.via else "key"
            lines.append(f"    v{name} = H{name}.get({key})")
            arguments.append(f"v{name}")
            if not read.optional:
                conditions.append(f"v{name} is not None")
        return lines, arguments, conditions

    def _is_anchored_at(self, check: Check, table: TableKey) -> bool:
        anchor = check.bound.anchor
        return anchor.kind is table[1] and anchor.subsystem in (None, table[0])

    def _compile(
        self, table: TableKey, lines: list[str], names: dict[str, Any], function_name: str
    ) -> Callable[..., Any]:
        source = "\n".join(lines) + "\n"
        # The name contains the content's digest: two catalogues may generate different functions for one table.
        content = hashlib.sha256(source.encode()).hexdigest()[:8]
        filename = f"<holdover {function_name} {table[0]}.{table[1].__name__} {content}>"
        self._sources[filename] = source
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        exec(_compile_source(source, filename), names)
        return cast(Callable[..., Any], names[function_name])


@lru_cache(maxsize=1024)
def _compile_source(source: str, filename: str) -> CodeType:
    return compile(source, filename, "exec")


def list_needed_sums(catalogue: Catalogue) -> list[Sum]:
    """Return the sums that the predicates of a catalogue read, each once."""
    return list(
        dict.fromkeys(
            read.total.sum
            for invariant in catalogue
            for bound in invariant.predicates
            for read in bound.reads
            if read.total is not None
        )
    )
