"""Counting a run: every guard that is made while a collector is open is watched, whoever makes it.

What production pays for is the counter alone. A run that is measured also wants to know the shortest way to each cell,
which fields were written, and in which cells each invariant had occasion; that is attached here, to the guards of the
run only.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT

from holdover.catalogue import Catalogue
from holdover.coverage.data import Data, Witness
from holdover.model import Record
from holdover.runtime import Guard
from holdover.runtime.axes import Axis, axes_in_use
from holdover.runtime.cells import OPENED
from holdover.runtime.layout import TableKey

NOT_THE_SUBJECTS: Final = ("guard", "venue")
"""Subsystems whose records are not the subject's own state."""


class _Watched:
    """One guard of the run, and what has been taken from it so far."""

    def __init__(self, guard: Guard) -> None:
        layout = guard.monitor.layout
        self.guard = weakref.ref(guard)
        self.cells = guard.cells
        self.digest = guard.catalogue.digest
        self.names = [check.entry.name for check in layout.checks]
        self.recorded: set[str] = set()
        self.written: set[str] = set()
        self.path: list[str] = []
        self._monitor = weakref.ref(guard.monitor)
        self._tally, self._told = layout.tally, list(layout.tally)
        self._occasions: dict[int, list[int]] = {}
        self._ways: dict[Any, tuple[str, ...]] = {}
        self._entered: tuple[str, ...] = ()
        self._taken: tuple[dict[int, int], dict[tuple[str, int], int], dict[tuple[str, str], int]] = ({}, {}, {})
        self._played = 0
        self._told_left_out = False
        self.cells.on_change, self.cells.on_transition = self._change, self._transition
        self.cells.on_put_back = self._put_back
        layout.observe(self._watch)

    # -- while it runs ------------------------------------------------------------------------------------------

    def _change(self, cell: int) -> None:
        self._shortest(cell, self._entered)
        if len(self._entered) != len(self.path):
            self._entered = tuple(self.path)
        if self._tally != self._told:
            counts = self._occasions.setdefault(cell, [0] * len(self._tally))
            for number, (now, was) in enumerate(zip(self._tally, self._told, strict=True)):
                counts[number] += now - was
            self._told = list(self._tally)

    def _transition(self, label: str, cell: int) -> None:
        monitor = self._monitor()
        self.path.append(f"{label}@{monitor.mutations if monitor is not None else 0}")
        way = tuple(self.path)
        self._shortest((label, cell), way)
        if self.cells.last:
            self._shortest((self.cells.last, label), way)

    def _shortest(self, what: Any, way: tuple[str, ...]) -> None:
        known = self._ways.get(what)
        if known is None or len(way) < len(known):
            self._ways[what] = way

    def _put_back(self) -> None:
        """A trial is over: what it has shown was shown, and the way goes on from where it began."""
        del self.path[self.cells.steps :]
        self._entered = tuple(self.path)
        self._told = list(self._tally)

    def _watch(self, table: TableKey) -> Callable[[Record], None]:
        name = f"{table[0]}.{table[1].__name__}"
        fields = {} if table[0] in NOT_THE_SUBJECTS else _defaults(table[1])
        recorded, written = self.recorded, self.written

        def seen(record: Record) -> None:
            if name not in recorded:
                recorded.add(name)
            if fields:
                for field in [field for field, default in fields.items() if getattr(record, field) != default]:
                    written.add(f"{name}.{field}")
                    del fields[field]

        return seen

    # -- taking -------------------------------------------------------------------------------------------------

    def take(self, data: Data, source: str, digest: str) -> int:
        """Add what is new to the data; returns how many recorded market events were played."""
        played, self._played = self.cells.played - self._played, self.cells.played
        if self.cells.broken:
            self.cells.left_out = f"a broken axis: {', '.join(self.cells.broken)}"
        if self.cells.left_out:
            if not self._told_left_out:
                data.left_out[self.cells.left_out] = data.left_out.get(self.cells.left_out, 0) + 1
                self._told_left_out = True
            return played
        self._change(self.cells.cell)
        self._take_counts(data, source)
        if self.digest != digest:
            data.others.add(self.digest)
            return played
        for cell, counts in self._occasions.items():
            code = self.cells.code(cell)
            for number, count in enumerate(counts):
                if count:
                    data.add_occasion(self.names[number], code, count)
        self._occasions.clear()
        data.recorded |= self.recorded
        data.written |= self.written
        return played

    def _take_counts(self, data: Data, source: str) -> None:
        cells, (visits, transitions, pairs) = self.cells, self._taken

        def way(what: Any) -> Witness:
            path = self._ways.get(what, ())
            return Witness(len(path), source, path)

        for cell, count in cells.visits.items():
            if count > visits.get(cell, 0):
                data.add_visit(cells.code(cell), count - visits.get(cell, 0), way(cell))
        for mark, count in cells.transitions.items():
            if count > transitions.get(mark, 0):
                data.add_transition(mark[0], cells.code(mark[1]), count - transitions.get(mark, 0), way(mark))
        for pair, count in cells.pairs.items():
            if count > pairs.get(pair, 0):
                data.add_pair(" > ".join(pair), count - pairs.get(pair, 0), way(pair))
        self._taken = (dict(cells.visits), dict(cells.transitions), dict(cells.pairs))


class Collector:
    """Watches every guard made while it is open; `take` moves what they have seen into `data`, naming the source."""

    def __init__(self, catalogue: Catalogue, axes: Sequence[type[Axis]] | None = None) -> None:
        self.digest = catalogue.digest
        self.data = Data.empty(self.digest, axes if axes is not None else axes_in_use())
        self._watched: list[_Watched] = []

    def open(self) -> Collector:
        """Begin to watch."""
        OPENED.append(self._opened)
        return self

    def close(self) -> None:
        """Watch no guard that is made from now on."""
        OPENED.remove(self._opened)

    def __enter__(self) -> Collector:
        return self.open()

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _opened(self, guard: Any) -> None:
        if [(one.name, one.values) for one in guard.cells.axes] != [(one.name, one.values) for one in self.data.axes]:
            guard.cells.left_out = guard.cells.left_out or "a guard with axes of its own"
        self._watched.append(_Watched(guard))

    def take(self, source: str) -> int:
        """Move what is new into `data`; returns how many recorded market events were played meanwhile."""
        # A guard that nobody holds any more has nothing further to say.
        last = [one for one in self._watched if one.guard() is None]
        played = sum(one.take(self.data, source, self.digest) for one in self._watched)
        self._watched = [one for one in self._watched if one not in last]
        return played


def _defaults(kind: type[Record]) -> dict[str, Any]:
    """The fields of a kind and their defaults; what has none is written by the first record."""
    return {
        one.name: one.default_factory() if one.default_factory is not NODEFAULT else one.default
        for one in msgspec.structs.fields(kind)
    }
