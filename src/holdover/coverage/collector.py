"""Collects coverage: while a collector is open, it observes every new guard.

Production pays only for the cell counter. A measured run also records the shortest path to each cell, the
fields that were written, and the cells in which each invariant was exercised. The collector attaches that to
the guards of the run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT

from holdover.catalogue import Catalogue
from holdover.coverage.data import CellWitness, CoverageData
from holdover.model import Record
from holdover.runtime import Guard
from holdover.runtime.axes import Axis, axes_in_use
from holdover.runtime.cells import GUARD_CREATED_HOOKS
from holdover.runtime.tables import TableKey

NON_SUBJECT_SUBSYSTEMS: Final = ("guard", "venue")
"""Subsystems whose records are not state of the subject."""


class _WatchedGuard:
    """One guard of the run, and the counts that have been collected from it."""

    def __init__(self, guard: Guard) -> None:
        compiler = guard.monitor.compiler
        self.guard = weakref.ref(guard)
        self.cells = guard.cells
        self.digest = guard.catalogue.digest
        self.names = [check.entry.name for check in compiler.checks]
        self.recorded_kinds: set[str] = set()
        self.written_fields: set[str] = set()
        self.path: list[str] = []
        self._monitor = weakref.ref(guard.monitor)
        self._tally, self._last_tally = compiler.tally, list(compiler.tally)
        self._activations: dict[int, list[int]] = {}
        self._paths: dict[Any, tuple[str, ...]] = {}
        self._entry_path: tuple[str, ...] = ()
        self._taken_counts: tuple[dict[int, int], dict[tuple[str, int], int], dict[tuple[str, str], int]] = ({}, {}, {})
        self._events_played = 0
        self._has_reported_exclusion = False
        self.cells.on_change, self.cells.on_transition = self._on_change, self._on_transition
        self.cells.on_rollback = self._on_rollback
        compiler.add_observer(self._observe_table)

    # -- while it runs ------------------------------------------------------------------------------------------

    def _on_change(self, cell: int) -> None:
        self._note_path(cell, self._entry_path)
        if len(self._entry_path) != len(self.path):
            self._entry_path = tuple(self.path)
        if self._tally != self._last_tally:
            counts = self._activations.setdefault(cell, [0] * len(self._tally))
            for number, (count, previous_count) in enumerate(zip(self._tally, self._last_tally, strict=True)):
                counts[number] += count - previous_count
            self._last_tally = list(self._tally)

    def _on_transition(self, label: str, cell: int) -> None:
        monitor = self._monitor()
        self.path.append(f"{label}@{monitor.mutations if monitor is not None else 0}")
        path = tuple(self.path)
        self._note_path((label, cell), path)
        if self.cells.last_transition:
            self._note_path((self.cells.last_transition, label), path)

    def _note_path(self, key: Any, path: tuple[str, ...]) -> None:
        shortest = self._paths.get(key)
        if shortest is None or len(path) < len(shortest):
            self._paths[key] = path

    def _on_rollback(self) -> None:
        """A trial ended: keep its counts, and continue the path from before the trial."""
        del self.path[self.cells.transition_count :]
        self._entry_path = tuple(self.path)
        self._last_tally = list(self._tally)

    def _observe_table(self, table: TableKey) -> Callable[[Record], None]:
        name = f"{table[0]}.{table[1].__name__}"
        fields = {} if table[0] in NON_SUBJECT_SUBSYSTEMS else _defaults(table[1])
        recorded, written_fields = self.recorded_kinds, self.written_fields

        def on_record(record: Record) -> None:
            if name not in recorded:
                recorded.add(name)
            if fields:
                for field in [field for field, default in fields.items() if getattr(record, field) != default]:
                    written_fields.add(f"{name}.{field}")
                    del fields[field]

        return on_record

    # -- collecting ---------------------------------------------------------------------------------------------

    def collect_into(self, data: CoverageData, source: str, digest: str) -> int:
        """Add the new counts to the data; returns the number of recorded market events played since the last call."""
        events_played, self._events_played = self.cells.market_events - self._events_played, self.cells.market_events
        if self.cells.failed_axes:
            self.cells.exclusion_reason = f"a broken axis: {', '.join(self.cells.failed_axes)}"
        if self.cells.exclusion_reason:
            if not self._has_reported_exclusion:
                data.excluded_guards[self.cells.exclusion_reason] = (
                    data.excluded_guards.get(self.cells.exclusion_reason, 0) + 1
                )
                self._has_reported_exclusion = True
            return events_played
        self._on_change(self.cells.cell)
        self._collect_counts(data, source)
        if self.digest != digest:
            data.other_catalogues.add(self.digest)
            return events_played
        for cell, counts in self._activations.items():
            code = self.cells.encode_cell(cell)
            for number, count in enumerate(counts):
                if count:
                    data.add_activation(self.names[number], code, count)
        self._activations.clear()
        data.recorded_kinds |= self.recorded_kinds
        data.written_fields |= self.written_fields
        return events_played

    def _collect_counts(self, data: CoverageData, source: str) -> None:
        cells, (visits, transitions, pairs) = self.cells, self._taken_counts

        def witness_of(key: Any) -> CellWitness:
            path = self._paths.get(key, ())
            return CellWitness(len(path), source, path)

        for cell, count in cells.visits.items():
            if count > visits.get(cell, 0):
                data.add_visit(cells.encode_cell(cell), count - visits.get(cell, 0), witness_of(cell))
        for mark, count in cells.transitions.items():
            if count > transitions.get(mark, 0):
                data.add_transition(
                    mark[0], cells.encode_cell(mark[1]), count - transitions.get(mark, 0), witness_of(mark)
                )
        for pair, count in cells.pairs.items():
            if count > pairs.get(pair, 0):
                data.add_pair(" > ".join(pair), count - pairs.get(pair, 0), witness_of(pair))
        self._taken_counts = (dict(cells.visits), dict(cells.transitions), dict(cells.pairs))


class CoverageCollector:
    """Observes every guard made while it is open; `collect` moves the counts into `data` under the name of a source."""

    def __init__(self, catalogue: Catalogue, axes: Sequence[type[Axis]] | None = None) -> None:
        self.digest = catalogue.digest
        self.data = CoverageData.empty(self.digest, axes if axes is not None else axes_in_use())
        self._watched_guards: list[_WatchedGuard] = []

    def open(self) -> CoverageCollector:
        """Start to observe new guards; returns itself."""
        GUARD_CREATED_HOOKS.append(self._on_guard_opened)
        return self

    def close(self) -> None:
        """Stop observing new guards."""
        GUARD_CREATED_HOOKS.remove(self._on_guard_opened)

    def __enter__(self) -> CoverageCollector:
        return self.open()

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _on_guard_opened(self, guard: Any) -> None:
        if [(axis.name, axis.values) for axis in guard.cells.axes] != [
            (axis.name, axis.values) for axis in self.data.axes
        ]:
            guard.cells.exclusion_reason = guard.cells.exclusion_reason or "a guard with axes of its own"
        self._watched_guards.append(_WatchedGuard(guard))

    def collect(self, source: str) -> int:
        """Move new counts into `data`; returns the number of recorded market events played since the last call."""
        # A guard without references cannot record anything more.
        last = [watched_guard for watched_guard in self._watched_guards if watched_guard.guard() is None]
        events_played = sum(
            watched_guard.collect_into(self.data, source, self.digest) for watched_guard in self._watched_guards
        )
        self._watched_guards = [watched_guard for watched_guard in self._watched_guards if watched_guard not in last]
        return events_played


def _defaults(kind: type[Record]) -> dict[str, Any]:
    """Return the fields of a record kind with their defaults; every record writes a field without a default."""
    return {
        field.name: field.default_factory() if field.default_factory is not NODEFAULT else field.default
        for field in msgspec.structs.fields(kind)
    }
