"""Checks laid out once: for each kind of mutation one straight function, written when the catalogue is bound.

A monitor that walked a table of invariants at every mutation would spend its time on the walk. Instead this module
writes, as Python source, what concerns one (subsystem, kind): keep the record, move the running totals, evaluate the
on-mutation predicates, mark the keys whose settled invariants must be looked at again. The source is compiled once
and holds its tables and totals as globals. `Layout.source` keeps it for whoever wants to read it.

The tables and totals themselves are plain dictionaries owned by the layout, so that memory can be dumped, restored and
recomputed without touching generated code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from holdover.catalogue import BadPredicate, BoundPredicate, Catalogue, Entry, Sum
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
    """One predicate of one invariant, with its place in the tally."""

    number: int
    entry: Entry
    bound: BoundPredicate

    @property
    def asserted(self) -> str:
        """When this predicate is evaluated."""
        return self.bound.asserted or self.entry.asserted


@dataclass
class Group:
    """The checks of one anchor table that are evaluated together: when settled, or when reconciled."""

    number: int
    table: TableKey
    reconciled: bool
    checks: list[Check] = field(default_factory=list)
    settle: Settle | None = None

    @property
    def table_name(self) -> tuple[str, str]:
        """Subsystem and kind, as names."""
        return self.table[0], self.table[1].__name__


class Layout:
    """Tables, totals and generated functions of one catalogue.

    `fail(check, subsystem, key, arguments, error)` is called for a predicate that did not hold or raised;
    `arm(check, subsystem, key, now_ns, result)` for a predicate with a time in which it must come to hold.
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
        self.groups: list[Group] = []
        self.evaluated = [0]
        self.tally = [0] * len(self.checks)
        self.source: dict[TableKey, str] = {}
        self._fail, self._arm, self._frozen = fail, arm, frozen
        self._group_of: dict[tuple[TableKey, bool], Group] = {}
        self._observers: list[Callable[[TableKey], Callable[[Record], None] | None]] = []
        self._mutate: dict[TableKey, Mutate] = {}
        for check in self.checks:
            anchor = check.bound.anchor
            if anchor.subsystem is not None and anchor.kind is not None:
                self._join(check, (anchor.subsystem, anchor.kind))
            for read in check.bound.reads:
                if read.total is not None:
                    self.totals.setdefault(read.total.sum, {})

    # -- what the monitor calls ---------------------------------------------------------------------------------

    def mutate(self, table: TableKey) -> Mutate:
        """The function for one kind of mutation, written on its first appearance."""
        found = self._mutate.get(table)
        if found is None:
            for check in self.checks:
                anchor = check.bound.anchor
                if anchor.subsystem is None and anchor.kind is table[1]:
                    self._join(check, table)
            found = self._mutate[table] = self._write(table)
        return found

    def table(self, table: TableKey) -> Table:
        """The last record of each key of one subsystem and kind."""
        return self.tables.setdefault(table, {})

    def settle(self, group: Group) -> Settle:
        """The function that evaluates one group's checks on one key."""
        if group.settle is None:
            group.settle = self._write_settle(group)
        return group.settle

    def forget(self, table: TableKey, key: str) -> None:
        """Drop one record and what it added to the totals."""
        self._drop(table, key)
        gone = self.contributions.get(table, {}).pop(key, None)
        if gone is not None:
            self._add(table, gone, -1)

    def retire(self, table: TableKey, key: str) -> None:
        """Drop one record and keep what it added to the totals: for what is over and will not change again."""
        self._drop(table, key)
        gone = self.contributions.get(table, {}).pop(key, None)
        if gone is not None:
            for summed, by, of in self._parts(table, gone):
                base = self.retired.setdefault(summed, {})
                base[by] = base.get(by, 0) + of

    def let_go(self, subsystem: str, key: str) -> None:
        """Drop what an order that was retired long ago has added to the totals that are told by order."""
        for summed, base in self.retired.items():
            if summed.subsystem == subsystem and summed.by == _BY_ORDER and key in base:
                gone = base.pop(key)
                into = self.totals.get(summed, {})
                into[key] = into.get(key, 0) - gone
                if not into[key]:
                    del into[key]

    def _drop(self, table: TableKey, key: str) -> None:
        record = self.tables[table].pop(key, None)
        watch, _ = self.cells.watch(table)
        if record is not None and watch is not None:
            watch(record, None)

    def observe(self, observer: Callable[[TableKey], Callable[[Record], None] | None]) -> None:
        """Have every mutation of the tables for which `observer` gives a function shown to that function."""
        self._observers.append(observer)
        self._mutate.clear()

    def put_back(self, table: TableKey, key: str, record: Record | None) -> None:
        """Make one record what it was, or nothing, and the totals with it; no predicate is evaluated."""
        if key in self.tables.get(table, {}):
            self.forget(table, key)
        if record is None:
            return
        self.table(table)[key] = record
        watch, _ = self.cells.watch(table)
        if watch is not None:
            watch(None, record)
        sums = self._sums_of(table)
        if sums:
            keys = list(dict.fromkeys(summed.by for summed in sums))
            adds = (*(getattr(record, by) for by in keys), *(getattr(record, summed.of) for summed in sums))
            self.contributions.setdefault(table, {})[key] = adds
            self._add(table, adds, 1)

    def keep(self) -> Any:
        """What may change from here on, for `put_back_all` in the same process."""
        owned = (self.tables, self.contributions, self.totals, self.retired)
        copies: list[dict[Any, Any]] = [{name: dict(kept) for name, kept in one.items()} for one in owned]
        return copies, list(self.tally), self.evaluated[0]

    def put_back_all(self, kept: Any) -> None:
        """Make it what it was when `keep` was called, in place: the generated functions hold these dictionaries."""
        copies, tally, evaluated = kept
        owned: tuple[dict[Any, Any], ...] = (self.tables, self.contributions, self.totals, self.retired)
        for one, was in zip(owned, copies, strict=True):
            for name, held in one.items():
                before = was.get(name, {})
                if held != before:
                    held.clear()
                    held.update(before)
        self.tally[:] = tally
        self.evaluated[0] = evaluated

    def recompute(self) -> dict[Sum, dict[str, int]]:
        """Every total from the records as they are, by the attributes themselves and not from what was kept."""
        found: dict[Sum, dict[str, int]] = {summed: dict(base) for summed, base in self.retired.items()}
        for summed in self.totals:
            into = found.setdefault(summed, {})
            for record in self.tables.get((summed.subsystem, summed.kind), {}).values():
                by = getattr(record, summed.by)
                into[by] = into.get(by, 0) + getattr(record, summed.of)
        return found

    def arguments(self, check: Check, table: TableKey, key: str, boundary: object) -> tuple[Any, ...] | None:
        """The arguments of one predicate for one key as things stand; None where a record that it needs is missing."""
        anchor = self.tables.get(table, {}).get(key)
        found: list[Any] = []
        for read in check.bound.reads:
            value: Any
            if read.what == "anchor":
                value = anchor
            elif read.what == "held":
                value = self._held(read.subsystem, read.kind, key)
            elif read.what == "via" and read.via is not None and anchor is not None:
                value = self._held(read.subsystem, read.kind, getattr(anchor, read.via.by))
            elif read.what == "total" and read.total is not None and anchor is not None:
                value = self.totals[read.total.sum].get(getattr(anchor, read.total.key), 0)
            elif read.what == "before":
                return None
            else:
                value = {"boundary": boundary, "frozen": self._frozen}.get(read.what)
            if value is None and not read.optional:
                return None
            found.append(value)
        return tuple(found)

    def _held(self, subsystem: str | None, kind: type[Record] | None, key: str) -> Record | None:
        if subsystem is None or kind is None:
            return None
        return self.tables.get((subsystem, kind), {}).get(key)

    # -- groups -------------------------------------------------------------------------------------------------

    def _join(self, check: Check, table: TableKey) -> None:
        if check.asserted == "on-mutation" or check.asserted == "at-boundary":
            return
        reconciled = check.asserted == "when-reconciled"
        group = self._group_of.get((table, reconciled))
        if group is None:
            group = self._group_of[(table, reconciled)] = Group(len(self.groups), table, reconciled)
            self.groups.append(group)
        if check not in group.checks:
            group.checks.append(check)
            group.settle = None
            self._mutate.clear()  # what was written before does not bring this check up

    def _touches(self, table: TableKey) -> list[tuple[int, str]]:
        """(group, expression of the anchor's key) for every group that a mutation of this table brings up."""
        found: dict[tuple[int, str], None] = {}
        for group in self.groups:
            if group.table == table:
                found[group.number, "key"] = None
            for check in group.checks:
                for read in check.bound.reads[1:]:
                    if read.what == "held" and (read.subsystem, read.kind) == table:
                        found[group.number, "key"] = None
                    elif read.total is not None and (read.subsystem, read.kind) == table:
                        found[group.number, f"after.{read.total.touches}"] = None
        return list(found)

    # -- totals -------------------------------------------------------------------------------------------------

    def _sums_of(self, table: TableKey) -> list[Sum]:
        return [summed for summed in self.totals if (summed.subsystem, summed.kind) == table]

    def _parts(self, table: TableKey, contribution: tuple[Any, ...]) -> list[tuple[Sum, str, int]]:
        sums = self._sums_of(table)
        keys = list(dict.fromkeys(summed.by for summed in sums))
        return [
            (summed, contribution[keys.index(summed.by)], contribution[len(keys) + number])
            for number, summed in enumerate(sums)
        ]

    def _add(self, table: TableKey, contribution: tuple[Any, ...], sign: int) -> None:
        for summed, by, of in self._parts(table, contribution):
            into = self.totals[summed]
            into[by] = into.get(by, 0) + sign * of

    # -- writing ------------------------------------------------------------------------------------------------

    def _write(self, table: TableKey) -> Mutate:
        names: dict[str, Any] = {
            "T": self.table(table),
            "N": self.evaluated,
            "A": self.tally,
            "FAIL": self._fail,
            "FROZEN": self._frozen,
        }
        lines = ["def mutate(after, key, now, touched):", "    before = T.get(key)", "    T[key] = after"]
        lines += self._write_totals(table, names)
        lines += self._write_cells(table, names)
        checks = [c for c in self.checks if c.asserted == "on-mutation" and self._anchored(c, table)]
        # What asks for the freezes comes first: a message is judged by those that stood before it, not by its own.
        checks.sort(key=lambda check: all(read.what != "frozen" for read in check.bound.reads))
        for check in checks:
            lines += self._write_check(check, table, names, anchor="after")
        if checks:
            lines.append(f"    N[0] += {len(checks)}")
        lines += [f"    touched[{group}, {expression}] = None" for group, expression in self._touches(table)]
        lines.append("    return before")
        return cast(Mutate, self._compile(table, lines, names, "mutate"))

    def _write_cells(self, table: TableKey, names: dict[str, Any]) -> list[str]:
        """Source that calls the axes of this kind when something that they depend on has changed."""
        lines: list[str] = []
        watch, depends = self.cells.watch(table)
        if watch is not None:
            names["WATCH"] = watch
            sides = [[re.sub(r"\br\.", f"{side}.", one) for one in depends] for side in ("before", "after")]
            differ = [f"({was}) != ({now})" for was, now in zip(*sides, strict=True)]
            lines.append(f"    if before is None or {' or '.join(differ)}:" if differ else "    if True:")
            lines.append("        WATCH(before, after)")
        for number, observer in enumerate(self._observers):
            seen = observer(table)
            if seen is not None:
                names[f"SEEN{number}"] = seen
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

    def _write_settle(self, group: Group) -> Settle:
        names: dict[str, Any] = {
            "T": self.table(group.table),
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
        """Source that evaluates one predicate; the records that it needs and that may be missing guard it."""
        number = check.number
        names[f"P{number}"], names[f"K{number}"] = check.bound.function, check
        lines: list[str] = []
        arguments: list[str] = []
        needed: list[str] = []
        for place, read in enumerate(check.bound.reads):
            name = f"v{number}_{place}"
            if read.what == "anchor":
                arguments.append(anchor)
                continue
            if read.what == "before" and check.asserted != "on-mutation":
                raise BadPredicate(
                    f"{check.entry.name}: the previous record can be read only by an invariant asserted on-mutation"
                )
            if read.what in ("before", "frozen"):
                arguments.append("before" if read.what == "before" else "FROZEN")
                continue
            if read.what == "total" and read.total is not None:
                names[f"Z{number}_{place}"] = self.totals[read.total.sum]
                key = "key" if read.total.key == "key" else f"after.{read.total.key}"
                arguments.append(f"Z{number}_{place}.get({key}, 0)")
                continue
            if read.subsystem is None or read.kind is None:
                raise ValueError(
                    f"{check.entry.name}: a boundary can be read only by an invariant asserted at-boundary"
                )
            names[f"H{number}_{place}"] = self.table((read.subsystem, read.kind))
            key = f"after.{read.via.by}" if read.via else "key"
            lines.append(f"    {name} = H{number}_{place}.get({key})")
            arguments.append(name)
            if not read.optional:
                needed.append(f"{name} is not None")
        indent = "    "
        if needed:
            lines.append(f"    if {' and '.join(needed)}:")
            indent = "        "
        given = ", ".join(arguments)
        timed = check.asserted == "within"
        lines += [f"{indent}try:", f"{indent}    r = P{number}({given})", f"{indent}except Exception as raised:"]
        lines.append(f"{indent}    FAIL(K{number}, {table[0]!r}, key, ({given},), raised)")
        lines.append(f"{indent}else:")
        if timed:
            lines += [f"{indent}    ARM(K{number}, {table[0]!r}, key, now, r)", f"{indent}    A[{number}] += 1"]
        else:
            lines += [
                f"{indent}    if r:",
                f"{indent}        A[{number}] += 1",
                f"{indent}    elif r is not None:",
                f"{indent}        FAIL(K{number}, {table[0]!r}, key, ({given},), None)",
            ]
        return lines

    def _anchored(self, check: Check, table: TableKey) -> bool:
        anchor = check.bound.anchor
        return anchor.kind is table[1] and anchor.subsystem in (None, table[0])

    def _compile(self, table: TableKey, lines: list[str], names: dict[str, Any], what: str) -> Callable[..., Any]:
        source = "\n".join(lines) + "\n"
        self.source[table] = source
        exec(compile(source, f"<{what} {table[0]}.{table[1].__name__}>", "exec"), names)
        return cast(Callable[..., Any], names[what])
