"""What a system records at all: the tables and fields on which the applicability of invariants depends.

A guard that takes an absent subsystem for one full of zeros freezes every system that does not have it. So an invariant
applies only where all that it reads exists: each table (subsystem and kind) was recorded or restored at least once, or
its subsystem is declared, and each field that it needs was set at least once. What existed once exists for good, over
restarts: a subsystem that stops recording is found because its last records stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import ClassVar, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.model import SUBSYSTEM_KINDS
from holdover.runtime.tables import TableKey
from holdover.state import StateError, Stateful

FIELD_PARTS: Final = 2
"""The number of dots in the name of a field: `subsystem.Kind.field`."""


class PresenceState(msgspec.Struct):
    """The state: one immutable set, so that a checkpoint holds it by reference."""

    present: frozenset[str]


class Presence(Stateful[PresenceState]):
    """The names of the tables (`risk.Exposure`) and fields (`positions.Position.reserved_qty`) that exist.

    Only names on which an invariant of the catalogue depends are counted. `on_extension` is called after something has
    appeared, `on_return` after a rollback.
    """

    State = PresenceState
    DERIVED: ClassVar = {
        "_tables": "the tables that invariants read, from the catalogue",
        "_fields": "the fields that invariants need, from the catalogue",
        "_declared": "a setting of the guard",
        "on_extension": "a function of the check compiler",
        "on_return": "a function of the check compiler",
    }

    def __init__(self, catalogue: Catalogue, declared: Iterable[str] = ()) -> None:
        self._tables: set[str] = set()
        self._fields: dict[tuple[str, str], list[str]] = {}
        for invariant in catalogue:
            for bound in invariant.predicates:
                self._tables |= {read.table for read in bound.reads[1:] if read.required and read.table}
                if bound.anchor_table and any(read.total is not None for read in bound.reads):
                    self._tables.add(bound.anchor_table)
                for read in bound.reads:
                    if read.used is not None:
                        self._need_fields(read.subsystem or "", read.used.kind.__name__, read.used.fields)
                    if read.total is not None and read.total.sum.alternatives_field:
                        summed = read.total.sum
                        self._need_fields(summed.subsystem, summed.kind.__name__, (summed.alternatives_field,))
                for need in bound.needs:
                    self._need(bound.anchor.subsystem or "", bound.anchor.kind, need)
        self._declared = tuple(declared)
        self.on_extension: Callable[[], None] = lambda: None
        self.on_return: Callable[[], None] = lambda: None
        self.present: frozenset[str] = frozenset()
        self.present = self._principal_tables(self._declared)

    def _need(self, subsystem: str, kind: type | None, need: str) -> None:
        if need.count(".") == FIELD_PARTS:
            other, kind_name, field = need.split(".")
            self._need_fields(other, kind_name, (field,))
        elif kind is not None:
            self._need_fields(subsystem, kind.__name__, (need,))

    def _need_fields(self, subsystem: str, kind_name: str, fields: Iterable[str]) -> None:
        known = self._fields.setdefault((subsystem, kind_name), [])
        known += [field for field in fields if field not in known]

    def _principal_tables(self, subsystems: Iterable[str]) -> frozenset[str]:
        """Return the tables that a subsystem must have, of those that invariants read."""
        tables: set[str] = set()
        for subsystem in subsystems:
            name, _, kind_name = subsystem.partition(".")
            kinds = [kind_name] if kind_name else SUBSYSTEM_KINDS.get(name, ())
            tables |= {f"{name}.{kind}" for kind in kinds}
        return frozenset(tables & self._tables)

    # -- what exists --------------------------------------------------------------------------------------------

    def unused_fields(self, table: TableKey) -> list[str]:
        """Return the fields of a table that an invariant needs and no record has set yet."""
        subsystem, kind = table
        names = [*self._fields.get((subsystem, kind.__name__), ()), *self._fields.get(("", kind.__name__), ())]
        return [name for name in dict.fromkeys(names) if f"{subsystem}.{kind.__name__}.{name}" not in self.present]

    def used_fields(self, subsystem: str, kind_name: str, fields: Iterable[str]) -> frozenset[str]:
        """Return those of the fields that some record of the table has set."""
        return frozenset(field for field in fields if f"{subsystem}.{kind_name}.{field}" in self.present)

    # -- changes ------------------------------------------------------------------------------------------------

    def add_table(self, table: TableKey) -> None:
        """Note that a record of the table exists."""
        self._add([f"{table[0]}.{table[1].__name__}"])

    def add_subsystem(self, subsystem: str) -> None:
        """Note that a subsystem exists, although it may have no record: it was restored, or it is declared."""
        self._add(self._principal_tables([subsystem]))

    def add_fields(self, table: TableKey, fields: Collection[str]) -> None:
        """Note that a record of the table has set these fields."""
        unknown = set(fields) - set(table[1].__struct_fields__)
        if unknown:
            raise StateError(f"{table[1].__name__} has no field {min(unknown)}")
        self._add([f"{table[0]}.{table[1].__name__}.{field}" for field in fields], known=True)

    def restore(self, present: Iterable[str]) -> None:
        """Take over what existed for the process before, beside what is declared."""
        names = frozenset(present)
        wrong = sorted(name for name in names if not 1 <= name.count(".") <= FIELD_PARTS)
        if wrong:
            raise StateError(f"the stored presence is damaged: {wrong[0]!r} is neither a table nor a field")
        self.present = names | self._principal_tables(self._declared)
        self.on_extension()

    def _add(self, names: Iterable[str], *, known: bool = False) -> None:
        added = {name for name in names if known or name in self._tables} - self.present
        if added:
            self.present |= added
            self.on_extension()

    def _after_restore(self) -> None:
        self.on_return()
