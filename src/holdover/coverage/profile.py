"""What production or a shadow has been through: from journals, and from the counter that every guard keeps.

A journal is read through the axes alone, one mutation after another; nothing is checked again. Journals made by a
session say each transition with its kind, those of a production guard say boundaries: where a journal has the former
the latter are not counted too. A journal does not hold what a restarted subsystem read back, so an axis goes on from
what was last recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.coverage.data import MAGIC, BadCoverage, Data, Witness, add_counter, combine, decode
from holdover.model import Record
from holdover.runtime.axes import Axis, axes_in_use
from holdover.runtime.cells import TRANSITIONS, CellCounter, KeptCells
from holdover.runtime.journal import read_journal
from holdover.runtime.monitor import kinds_by_name

CELLS: Final = KeptCells.NAME
JOURNAL: Final = "journal.jsonl"
_SAID: Final = "transition:"


def profile(sources: Sequence[Path], catalogue: str, *, axes: Iterable[type[Axis]] | None = None) -> Data:
    """The cells seen in journals, counters, earlier profiles, or folders of these. `catalogue` is the digest to note
    where a source does not say its own. Raises `BadCoverage` for what cannot be read, and when nothing was found."""
    chosen = list(axes) if axes is not None else axes_in_use()
    parts = [_read(path, catalogue, chosen) for source in sources for path in _files(source)]
    if not parts:
        raise BadCoverage(
            f"no journal ({JOURNAL}) and no counter ({CELLS}) in {', '.join(map(str, sources)) or 'nothing'}"
        )
    digests = list(dict.fromkeys(part.catalogue for part in parts))
    for part in parts:
        part.others |= {digest for digest in digests if digest != digests[0]}
        part.catalogue = digests[0]
    return combine(parts)


def _files(source: Path) -> list[Path]:
    if not source.exists():
        raise BadCoverage(f"{source}: there is no such file or folder")
    if source.is_file():
        return [source]
    return sorted(path for path in source.rglob("*") if path.name in (CELLS, JOURNAL))


def _read(path: Path, catalogue: str, axes: list[type[Axis]]) -> Data:
    with open(path, "rb") as file:
        head = file.read(200)
    if MAGIC.encode() in head:
        return decode(path.read_bytes(), path.name)
    if b"holdover-cells" in head:
        return _read_counter(path, axes)
    return read_mutations(path, catalogue, axes)


def _read_counter(path: Path, axes: list[type[Axis]]) -> Data:
    counter = CellCounter(axes)
    try:
        kept = msgspec.json.decode(path.read_bytes())
        if kept["version"] != 1:
            raise BadCoverage(f"{path.name}: was written as version {kept['version']}, should be 1")
        counter.visits.clear()
        counter.add(kept)
        data = Data.empty(str(kept["catalogue"]), axes)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError) as problem:
        raise BadCoverage(f"{path.name}: the counter is cut off or damaged: {problem}") from problem
    except ValueError as problem:
        raise BadCoverage(f"{path.name}: {problem}") from problem
    add_counter(data, counter, path.name)
    return data


def read_mutations(path: Path, catalogue: str, axes: Sequence[type[Axis]]) -> Data:
    """The cells seen in one journal. Raises `BadCoverage` for what is none."""
    counter = CellCounter(axes)
    data = Data.empty(catalogue, axes)
    replay = _Replay(counter, path.name)
    try:
        for number, line in enumerate(read_journal(path), 1):
            replay.line(line, number)
    except ValueError as problem:
        told = str(problem)
        raise BadCoverage(told if told.startswith(path.name) else f"{path.name}: {told}") from problem
    if not replay.understood:
        raise BadCoverage(f"{path.name}: no journal: there is no mutation and no boundary in it")
    add_counter(data, replay.counted(), path.name)
    for mark, witness in replay.witnesses.items():
        seen = data.transitions[mark[0]][counter.code(mark[1])]
        data.transitions[mark[0]][counter.code(mark[1])] = msgspec.structs.replace(seen, witness=witness)
    return data


class _Replay:
    """Shows the mutations of one journal to the axes that read them."""

    def __init__(self, counter: CellCounter, name: str) -> None:
        self.counter, self.name = counter, name
        self.understood = 0
        self.witnesses: dict[tuple[str, int], Witness] = {}
        self._kinds = kinds_by_name()
        self._tables: dict[tuple[str, type[Record]], dict[str, Record]] = {}
        self._explicit = False
        self._path: list[str] = []
        self._seq = 0
        counter.on_transition = self._transition

    def _transition(self, label: str, cell: int) -> None:
        self._path.append(f"{label}@{self._seq}")
        self.witnesses.setdefault((label, cell), Witness(len(self._path), self.name, tuple(self._path)))

    def line(self, line: Any, number: int) -> None:
        """One line. Raises `ValueError` for one that is none of a journal."""
        if not isinstance(line, dict):
            raise ValueError(f"line {number} is no journal line: an object was expected")
        self._seq = line.get("seq", 0)
        if "record" in line:
            self._mutation(line, number)
        elif "what" in line:
            self._said(str(line["what"]), str(line.get("detail", "")))

    def _mutation(self, line: dict[str, Any], number: int) -> None:
        self.understood += 1
        kind = self._kinds.get(line.get("kind", ""))
        if kind is None:
            return  # a kind of the user's own that this process does not know is read by no axis that it knows
        table = (str(line.get("subsystem", "")), kind)
        watch, _ = self.counter.watch(table)
        if watch is None:
            return
        try:
            after = msgspec.convert(line["record"], kind)
        except msgspec.ValidationError as problem:
            raise ValueError(f"line {number}: {kind.__name__}: {problem}") from problem
        kept = self._tables.setdefault(table, {})
        watch(kept.get(after.key), after)
        kept[after.key] = after

    def _said(self, what: str, detail: str) -> None:
        if what.startswith(_SAID):
            self._explicit = True
            self.understood += 1
            self.counter.transition(what.removeprefix(_SAID), detail)
        elif what == "freeze":
            self.counter.tell("freeze", detail)
        elif what in TRANSITIONS or what == "restart":
            self.understood += 1
            if not self._explicit:
                self.counter.transition(what, "kill" if what == "restart" else detail)

    def counted(self) -> CellCounter:
        """The counter, after the last line."""
        return self.counter
