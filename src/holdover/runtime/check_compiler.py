"""Generated check functions: one straight-line function for each kind of mutation, written when the catalogue is
bound.

A monitor that iterates over a table of invariants at every mutation spends its time on the iteration. This
module instead generates Python source for each (subsystem, kind): store the record, update the running
totals, evaluate the on-mutation predicates, mark the keys whose settled invariants must be evaluated again.
The source is compiled once and has the tables and totals as globals. Tracebacks show its lines, and `list_sources`
returns it.

A predicate that does not apply, because the system does not record what it reads (see `presence`), is not generated at
all. When a table or field appears for the first time, the functions are generated again; those of each state of
presence are kept, so that a rollback only selects them.
"""

from __future__ import annotations

import hashlib
import linecache
import logging
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache, partial
from types import CodeType
from typing import Any, ClassVar, cast

import msgspec

from holdover.catalogue import Catalogue, Invariant, PredicateError, Read, Recent, Sum, Threshold
from holdover.model import CASH_UNIT, SUBSYSTEMS, Instrument, Record
from holdover.model.spelling import suggest_spelling
from holdover.runtime.cells import CellCounter
from holdover.runtime.check import Check, CheckGroup, Settle, Touched
from holdover.runtime.presence import Presence
from holdover.runtime.recent import RecentRecords
from holdover.runtime.tables import Observer, RecordTables, TableKey, contribution_attributes
from holdover.state import Stateful

log = logging.getLogger("holdover.guard")

Mutate = Callable[[Any, str, int, Touched], Any]


class CheckCountsState(msgspec.Struct):
    """How often predicates were evaluated, in all and by check with the precondition met; what exists and is recent."""

    evaluated: list[int]
    tally: list[int]
    presence: Presence
    recent: RecentRecords


class _FunctionCache:
    """The functions generated for one state of presence: by table, and by group."""

    def __init__(self) -> None:
        self.mutate: dict[TableKey, Mutate] = {}
        self.settle: dict[int, Settle] = {}


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
        "_instruments": "reference data, which the monitor's owner keeps",
        "_mutate_functions": "generated from the checks",
        "_functions": "generated from the checks, by what exists",
        "_requirements": "from the catalogue",
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
        presence: Presence,
        instruments: Mapping[str, Instrument],
    ) -> None:
        self.presence = presence
        self.recent = RecentRecords(_list_recents(catalogue))
        self.checks: list[Check] = []
        for invariant in catalogue:
            for bound in invariant.predicates:
                self.checks.append(Check(len(self.checks), invariant.entry, bound, threshold_of(invariant)))
        self.groups: list[CheckGroup] = []
        self.evaluated = [0]
        self.tally = [0] * len(self.checks)
        self._tables, self._cells = tables, cells
        self._fail, self._arm, self._frozen = fail, arm, frozen
        self._instruments = instruments
        self._functions: dict[frozenset[str], _FunctionCache] = {}
        self._requirements: dict[tuple[int, str], frozenset[str]] = {}
        presence.on_extension, presence.on_return = self._extend_functions, self._return_to_functions
        self._group_of: dict[tuple[TableKey, bool], CheckGroup] = {}
        self._observers: list[Observer] = []
        self._sources: dict[str, str] = {}
        for check in self.checks:
            anchor = check.bound.anchor
            if anchor.subsystem is not None and anchor.kind is not None:
                self._assign_group(check, (anchor.subsystem, anchor.kind))
        self._mutate_functions: dict[TableKey, Mutate] = {}
        self._extend_functions()

    # -- what the monitor calls ---------------------------------------------------------------------------------

    def mutate_function(self, table: TableKey) -> Mutate:
        """Return the function for one kind of mutation; generate it on first use."""
        function = self._mutate_functions.get(table)
        if function is None:
            for check in self.checks:
                anchor = check.bound.anchor
                if anchor.subsystem is None and anchor.kind is table[1]:
                    self._assign_group(check, table)
            self.presence.add_table(table)
            _warn_of_misspelling(table[0])
            function = self._mutate_functions[table] = self._write_mutate(table)
        return function

    def settle_function(self, group: CheckGroup) -> Settle:
        """Return the function that evaluates one group's checks on one key; generate it on first use."""
        if group.settle is None:
            group.settle = self._write_settle(group)
            self._functions[self.presence.present].settle[group.number] = group.settle
        return group.settle

    def is_applicable(self, check: Check, subsystem: str) -> bool:
        """Whether everything exists that a predicate reads, for an anchor of one subsystem."""
        return self.requirements(check, subsystem) <= self.presence.present

    def requirements(self, check: Check, subsystem: str) -> frozenset[str]:
        """Return the names of the tables and fields that must exist for a predicate to apply."""
        required = self._requirements.get((check.number, subsystem))
        if required is None:
            required = frozenset(check.bound.requirements(subsystem))
            self._requirements[check.number, subsystem] = required
        return required

    def add_observer(self, observer: Observer) -> None:
        """Call the function that `observer` returns for a table at every mutation of that table."""
        self._observers.append(observer)
        self._discard_functions()

    def list_sources(self) -> dict[str, str]:
        """Return the source of the functions generated so far, by their name in tracebacks."""
        return dict(self._sources)

    def arguments(self, check: Check, table: TableKey, key: str, boundary: object) -> tuple[Any, ...] | None:
        """Return the current arguments of one predicate for one key.

        Returns None when a required record is missing, or when the predicate does not apply.
        """
        if not self.is_applicable(check, table[0]):
            return None
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
            elif read.source in ("boundary", "frozen"):
                value = boundary if read.source == "boundary" else self._frozen
            else:
                value = self._value_of(check, read, table, key, anchor)
            if value is None and not read.optional:
                return None
            values.append(value)
        return tuple(values)

    def _value_of(self, check: Check, read: Read, table: TableKey, key: str, anchor: Record | None) -> object:
        """Return what a read gives that is no record and no total."""
        if read.source == "threshold":
            return check.threshold
        if read.source == "adopted":
            if read.via is not None:
                return self._tables.adopted.get((read.via.subsystem, getattr(anchor, read.via.by, "")))
            return self._tables.adopted.get((table[0], key))
        if read.used is not None:
            return self.presence.used_fields(read.subsystem or "", read.used.kind.__name__, read.used.fields)
        if read.reference is not None:
            return self._instruments.get(getattr(anchor, read.reference.by, ""))
        if read.recent is not None:
            counter = self.recent.counters[read.recent]
            return counter.counts.get(getattr(anchor, read.recent.by, ""), 0)
        raise PredicateError(f"{check.entry.name}: nothing can be read from {read.source!r}")

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
            self._discard_functions()  # functions generated before do not evaluate this check

    def _discard_functions(self) -> None:
        """Discard the generated functions: they will be generated again."""
        self._functions.clear()
        self._select_functions()

    def _extend_functions(self) -> None:
        """Select the functions after something has appeared, and compute the totals that it needs."""
        self._tables.rebuild_totals(self._tables.select_sums(self._list_maintained_sums()))
        self._select_functions()

    def _return_to_functions(self) -> None:
        """Select the functions after a rollback, whose totals are those of what existed then."""
        self._tables.select_sums(self._list_maintained_sums())
        self._select_functions()

    def _list_maintained_sums(self) -> dict[Sum, Sum]:
        """Return the sums that applicable predicates read, each with the sum that is computed for it."""
        present = self.presence.present
        maintained: dict[Sum, Sum] = {}
        for check in self.checks:
            anchor = check.bound.anchor
            totals = [read.total for read in check.bound.reads if read.total is not None]
            if not totals or (check.bound.anchor_table and check.bound.anchor_table not in present):
                continue
            if anchor.subsystem is not None and not self.is_applicable(check, anchor.subsystem):
                continue
            for total in totals:
                summed = total.sum
                field = f"{summed.subsystem}.{summed.kind.__name__}.{summed.alternatives_field}"
                has_alternatives = bool(summed.alternatives) and (not summed.alternatives_field or field in present)
                maintained[summed] = summed if has_alternatives else summed.plain
        return maintained

    def _select_functions(self) -> None:
        """Select the functions for what exists now."""
        cache = self._functions.setdefault(self.presence.present, _FunctionCache())
        self._mutate_functions = cache.mutate
        for group in self.groups:
            group.settle = cache.settle.get(group.number)

    def _set_fields(self, table: TableKey, after: Record, key: str, now_ns: int, touched: Touched) -> Any:
        """Note the fields that a record sets for the first time, then record it."""
        defaults = _defaults_of(table[1])
        names = self.presence.unused_fields(table)
        self.presence.add_fields(table, [name for name in names if getattr(after, name) != defaults[name]])
        return self.mutate_function(table)(after, key, now_ns, touched)

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
        lines = ["def mutate(after, key, now, touched):"]
        lines += self._write_first_uses(table, names)
        lines += ["    before = T.get(key)", "    T[key] = after"]
        lines += self._write_recents(table, names)
        lines += self._write_totals(table, names)
        lines += self._write_cells(table, names)
        checks = [
            check
            for check in self.checks
            if check.asserted == "on-mutation"
            and self._is_anchored_at(check, table)
            and self.is_applicable(check, table[0])
        ]
        # Checks that read the freezes come first: the freezes before a message decide, not those that it causes.
        checks.sort(key=lambda check: all(read.source != "frozen" for read in check.bound.reads))
        for check in checks:
            lines += self._write_check(check, table, names, anchor="after")
        if checks:
            lines.append(f"    N[0] += {len(checks)}")
        lines += [f"    touched[{group}, {expression}] = None" for group, expression in self._touched_groups(table)]
        lines.append("    return before")
        return cast(Mutate, self._compile(table, lines, names, "mutate"))

    def _write_first_uses(self, table: TableKey, names: dict[str, Any]) -> list[str]:
        """Generate source that notes the first use of a field that an invariant needs."""
        fields = self.presence.unused_fields(table)
        if not fields:
            return []
        names["SET"] = partial(self._set_fields, table)
        defaults = _defaults_of(table[1])
        conditions = []
        for number, name in enumerate(fields):
            names[f"D{number}"] = defaults[name]
            conditions.append(f"after.{name}" if not defaults[name] else f"after.{name} != D{number}")
        return [f"    if {' or '.join(conditions)}:", "        return SET(after, key, now, touched)"]

    def _write_recents(self, table: TableKey, names: dict[str, Any]) -> list[str]:
        """Generate source that counts the record in the windows of its table."""
        lines: list[str] = []
        for number, (recent, counter) in enumerate(self.recent.counters.items()):
            if (recent.subsystem, recent.kind) != table:
                continue
            names[f"R{number}"], names["TABLES"] = counter, self._tables
            condition = "not TABLES.is_restoring"
            if recent.where:
                condition += f" and after.{recent.where} and not (before is not None and before.{recent.where})"
            lines += [f"    if {condition}:", f"        R{number}.add(after.{recent.by}, now)"]
        return lines

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
        attributes = contribution_attributes(sums)
        names["C"] = self._tables.contributions_of(table)
        lines = [
            "    was = C.get(key)",
            f"    now_adds = ({', '.join(f'after.{name}' for name in attributes)},)",
            "    if was != now_adds:",
            "        C[key] = now_adds",
        ]
        first: list[str] = []
        later: list[str] = []
        for number, summed in enumerate(sums):
            names[f"S{number}"] = self._tables.totals[summed]
            by, of = attributes.index(summed.by), attributes.index(summed.of)
            if summed.alternatives:
                group = attributes.index(summed.alternatives)
                names[f"ALT{number}"] = partial(self._tables.replace_alternative, summed)
                sides = [f"({side}[{by}], {side}[{of}], {side}[{group}])" for side in ("was", "now_adds")]
                differ = " or ".join(f"was[{index}] != now_adds[{index}]" for index in (by, of, group))
                lines += [
                    f"        if was is None or {differ}:",
                    f"            ALT{number}(key, None if was is None else {sides[0]}, {sides[1]})",
                ]
                continue
            added = f"S{number}[now_adds[{by}]] = S{number}.get(now_adds[{by}], 0) + now_adds[{of}]"
            first.append(f"            {added}")
            later += [
                f"            if was[{by}] != now_adds[{by}] or was[{of}] != now_adds[{of}]:",
                f"                S{number}[was[{by}]] -= was[{of}]",
                f"                {added}",
            ]
        if first:
            lines += ["        if was is None:", *first, "        else:", *later]
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
        checks = [check for check in group.checks if self.is_applicable(check, group.table[0])]
        for check in checks:
            lines += self._write_check(check, group.table, names, anchor="after")
        lines.append(f"    N[0] += {len(checks)}")
        return cast(Settle, self._compile(group.table, lines, names, "settle"))

    def _write_check(self, check: Check, table: TableKey, names: dict[str, Any], anchor: str) -> list[str]:
        """Generate source that evaluates one predicate if all records that it requires exist."""
        number = check.number
        names[f"P{number}"], names[f"K{number}"] = check.bound.function, check
        lines, arguments, conditions = self._write_arguments(check, table, names, anchor)
        if not check.bound.at_restore:
            names["TABLES"] = self._tables
            conditions.insert(0, "not TABLES.is_restoring")
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
            lines += [
                f"{indent}    ARM(K{number}, {table[0]!r}, key, now, r)",
                f"{indent}    if r is not None:",
                f"{indent}        A[{number}] += 1",
            ]
        else:
            lines += [
                f"{indent}    if r:",
                f"{indent}        A[{number}] += 1",
                f"{indent}    elif r is not None:",
                f"{indent}        FAIL(K{number}, {table[0]!r}, key, ({argument_list},), None)",
            ]
        return lines

    def _write_arguments(
        self, check: Check, table: TableKey, names: dict[str, Any], anchor: str
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
                names[f"Z{name}"] = self._tables.totals_of(read.total.sum)
                key = "key" if read.total.key == "key" else f"after.{read.total.key}"
                arguments.append(f"Z{name}.get({key}, 0)")
                continue
            if read.recent is not None and read.recent.where:
                conditions.append(f"after.{read.recent.where}")
            if read.source in ("threshold", "used", "reference", "recent", "adopted"):
                arguments.append(self._write_value(check, read, table, names, f"{name}"))
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

    def _write_value(self, check: Check, read: Read, table: TableKey, names: dict[str, Any], name: str) -> str:
        """Return the expression of an argument that is no record and no total."""
        if read.source == "threshold":
            names[f"B{check.number}"] = check.threshold
            return f"B{check.number}"
        if read.source == "adopted":
            names["ADOPTED"] = self._tables.adopted
            subsystem, key = (read.via.subsystem, f"after.{read.via.by}") if read.via else (table[0], "key")
            return f"ADOPTED.get(({subsystem!r}, {key}))"
        if read.used is not None:
            names[f"U{name}"] = self._value_of(check, read, table, "", None)
            return f"U{name}"
        if read.recent is not None:
            names[f"R{name}"] = self.recent.counters[read.recent]
            return f"R{name}.count(after.{read.recent.by}, now)"
        if read.reference is None:
            raise PredicateError(f"{check.entry.name}: nothing can be read from {read.source!r}")
        names["INSTRUMENTS"] = self._instruments
        return f"INSTRUMENTS.get(after.{read.reference.by})"

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


def _warn_of_misspelling(subsystem: str) -> None:
    """Log a subsystem that no invariant reads and whose name is nearly that of one that they read."""
    hint = "" if subsystem in SUBSYSTEMS else suggest_spelling(subsystem, SUBSYSTEMS)
    if hint:
        log.warning("records of the subsystem %r are read by no built-in invariant%s", subsystem, hint)


def _defaults_of(kind: type[Record]) -> dict[str, Any]:
    """Return the default of each field of a kind; a field without one counts as empty."""
    fields, defaults = kind.__struct_fields__, kind.__struct_defaults__
    values = dict.fromkeys(fields[: len(fields) - len(defaults)])
    return {**values, **dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))}


def threshold_of(invariant: Invariant) -> Threshold:
    """Return the thresholds of an invariant: those of its entry, and the tolerances of its policy."""
    tolerance = invariant.policy.tolerance if invariant.policy is not None else {}
    return Threshold(
        limit=invariant.entry.limit or 0,
        tolerances={currency: int(Decimal(amount) / CASH_UNIT) for currency, amount in tolerance.items()},
    )


def _list_recents(catalogue: Catalogue) -> list[Recent]:
    reads = [read for invariant in catalogue for bound in invariant.predicates for read in bound.reads]
    return list(dict.fromkeys(read.recent for read in reads if read.recent is not None))


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
