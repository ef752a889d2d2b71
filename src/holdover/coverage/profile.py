"""The profile of production or a shadow: the cells that it reached, from journals and from the counter of each
guard.

A journal is replayed through the axes only, mutation by mutation, without checks. A session's journal names
each transition with its kind; a production guard's journal names boundaries, which count only when there are
no transitions. A journal does not contain the records that a restarted subsystem read back, so an axis
continues from the last records.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.coverage.data import (
    MAGIC,
    CellWitness,
    CoverageData,
    CoverageError,
    add_counter,
    combine_coverage,
    decode_coverage,
)
from holdover.model import Record
from holdover.runtime.axes import Axis, axes_in_use
from holdover.runtime.cells import TRANSITIONS, CellCounter, CellCountFile
from holdover.runtime.journal import JOURNAL_FILE, read_journal
from holdover.runtime.memory import kinds_by_name
from holdover.state import DECODE_ERRORS

log = logging.getLogger("holdover.coverage")

CELLS_FILE: Final = CellCountFile.NAME
_TRANSITION_PREFIX: Final = "transition:"


def build_profile(sources: Sequence[Path], catalogue: str, *, axes: Iterable[type[Axis]] | None = None) -> CoverageData:
    """Return the cells in journals, counters, earlier profiles, or folders of these.

    `catalogue` is the digest for sources without one. Raises `CoverageError` when a source cannot be read or
    nothing was found.
    """
    axis_list = list(axes) if axes is not None else axes_in_use()
    parts = [_read_source(path, catalogue, axis_list) for source in sources for path in _find_files(source)]
    if not parts:
        raise CoverageError(
            f"no journal ({JOURNAL_FILE}) and no counter ({CELLS_FILE}) in {', '.join(map(str, sources)) or 'nothing'}"
        )
    digests = list(dict.fromkeys(part.catalogue for part in parts))
    for part in parts:
        part.other_catalogues |= {digest for digest in digests if digest != digests[0]}
        part.catalogue = digests[0]
    return combine_coverage(parts)


def _find_files(source: Path) -> list[Path]:
    if not source.exists():
        raise CoverageError(f"{source}: there is no such file or folder")
    if source.is_file():
        return [source]
    return sorted(path for path in source.rglob("*") if path.name in (CELLS_FILE, JOURNAL_FILE))


def _read_source(path: Path, catalogue: str, axes: list[type[Axis]]) -> CoverageData:
    with open(path, "rb") as file:
        head = file.read(200)
    if MAGIC.encode() in head:
        return decode_coverage(path.read_bytes(), path.name)
    if b"holdover-cells" in head:
        return _read_counter(path, axes)
    return read_journal_coverage(path, catalogue, axes)


def _read_counter(path: Path, axes: list[type[Axis]]) -> CoverageData:
    counter = CellCounter(axes)
    try:
        counts = msgspec.json.decode(path.read_bytes())
        if counts["version"] != 1:
            raise CoverageError(f"{path.name}: was written as version {counts['version']}, should be 1")
        counter.visits.clear()
        counter.add_counts(counts)
        data = CoverageData.empty(str(counts["catalogue"]), axes)
    except (*DECODE_ERRORS, KeyError, TypeError, AttributeError) as problem:
        raise CoverageError(f"{path.name}: the counter is cut off or damaged: {problem}") from problem
    except ValueError as problem:
        raise CoverageError(f"{path.name}: {problem}") from problem
    add_counter(data, counter, path.name)
    return data


def read_journal_coverage(path: Path, catalogue: str, axes: Sequence[type[Axis]]) -> CoverageData:
    """Return the cells of one journal. Raises `CoverageError` when the file is not a journal."""
    counter = CellCounter(axes)
    data = CoverageData.empty(catalogue, axes)
    replay = _JournalReplay(counter, path.name)
    damaged: list[str] = []

    def add_damaged(number: int, problem: str) -> None:
        damaged.append(f"line {number} is no journal line: {problem}")

    try:
        for number, line in enumerate(read_journal(path, add_damaged), 2):
            replay.replay_line(line, number)
    except ValueError as problem:
        message = str(problem)
        raise CoverageError(message if message.startswith(path.name) else f"{path.name}: {message}") from problem
    if not replay.events_read:
        reason = damaged[0] if damaged else "no journal: there is no mutation and no boundary in it"
        raise CoverageError(f"{path.name}: {reason}")
    for sentence in damaged:
        log.warning("%s: %s; it is left out", path.name, sentence)
    add_counter(data, replay.final_counter(), path.name)
    for mark, witness in replay.witnesses.items():
        tally = data.transitions[mark[0]][counter.encode_cell(mark[1])]
        data.transitions[mark[0]][counter.encode_cell(mark[1])] = msgspec.structs.replace(tally, witness=witness)
    return data


class _JournalReplay:
    """Replays the mutations of one journal through the axes."""

    def __init__(self, counter: CellCounter, name: str) -> None:
        self.counter, self.name = counter, name
        self.events_read = 0
        self.witnesses: dict[tuple[str, int], CellWitness] = {}
        self._kinds = kinds_by_name()
        self._tables: dict[tuple[str, type[Record]], dict[str, Record]] = {}
        self._has_transitions = False
        self._path: list[str] = []
        self._seq = 0
        counter.on_transition = self._on_transition

    def _on_transition(self, label: str, cell: int) -> None:
        self._path.append(f"{label}@{self._seq}")
        self.witnesses.setdefault((label, cell), CellWitness(len(self._path), self.name, tuple(self._path)))

    def replay_line(self, line: Any, number: int) -> None:
        """Replay one line. Raises `ValueError` when it is not a journal line."""
        if not isinstance(line, dict):
            raise ValueError(f"line {number} is no journal line: an object was expected")
        self._seq = line.get("seq", 0)
        if "record" in line:
            self._replay_mutation(line, number)
        elif "what" in line:
            self._note_event(str(line["what"]), str(line.get("detail", "")))

    def _replay_mutation(self, line: dict[str, Any], number: int) -> None:
        self.events_read += 1
        kind = self._kinds.get(line.get("kind", ""))
        if kind is None:
            return  # no axis of this process reads a record kind that the process does not know
        table = (str(line.get("subsystem", "")), kind)
        watch, _ = self.counter.observer_of(table)
        if watch is None:
            return
        try:
            after = msgspec.convert(line["record"], kind)
        except DECODE_ERRORS as problem:
            raise ValueError(f"line {number}: {kind.__name__}: {problem}") from problem
        records = self._tables.setdefault(table, {})
        watch(records.get(after.key), after)
        records[after.key] = after

    def _note_event(self, event: str, detail: str) -> None:
        if event.startswith(_TRANSITION_PREFIX):
            self._has_transitions = True
            self.events_read += 1
            self.counter.count_transition(event.removeprefix(_TRANSITION_PREFIX), detail)
        elif event == "freeze":
            self.counter.notify("freeze", detail)
        elif event in TRANSITIONS or event == "restart":
            self.events_read += 1
            if not self._has_transitions:
                self.counter.count_transition(event, "kill" if event == "restart" else detail)

    def final_counter(self) -> CellCounter:
        """Return the counter after the last line."""
        return self.counter
