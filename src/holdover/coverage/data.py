"""The coverage file: what a run reached, as deterministic JSON with a checksum.

Two runs of one suite give the same bytes. Combining files adds the counts and keeps the shortest witness of
each entry, so the order of the files does not matter. A file that is truncated, damaged, of another kind or
of a newer version is refused with an explanation.

    magic, version              the kind of file; a reader refuses an unknown version
    catalogue, axes             the catalogue and axes of the run; only files that agree in both can be combined
    visits                      cell -> how often it was entered, and the first path to it
    transitions                 transition -> cell -> how often it happened there, and the shortest path to it
    pairs                       "first > second" -> the same
    invariants                  name -> cell -> how often its precondition was true
    recorded_kinds              subsystem.Kind that was recorded
    written_fields              subsystem.Kind.field that was given a value
    other_catalogues            digests of other catalogues in the run; their invariants are not counted
    excluded_guards             reason -> how many guards were not counted
    checksum                    SHA-256 over all of the above
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from holdover.runtime.axes import Axis
from holdover.runtime.cells import CellCounter
from holdover.state import DECODE_ERRORS

MAGIC: Final = "holdover-state-coverage"
VERSION: Final = 2
T = TypeVar("T")


class CoverageError(ValueError):
    """A coverage file that cannot be used; the message names the file and the reason."""


class CellWitness(msgspec.Struct, frozen=True, order=True, array_like=True):
    """The shortest path to a cell: its number of transitions, the test or journal, and the transitions."""

    length: int
    source: str
    path: tuple[str, ...] = ()


class WitnessedCount(msgspec.Struct, frozen=True, array_like=True):
    """A count and the shortest path."""

    count: int
    witness: CellWitness

    def __add__(self, addend: WitnessedCount) -> WitnessedCount:
        return WitnessedCount(self.count + addend.count, min(self.witness, addend.witness))


class AxisValues(msgspec.Struct, frozen=True):
    """The name and values of an axis in a coverage file."""

    name: str
    values: tuple[str, ...]


class CoverageData(msgspec.Struct, kw_only=True):
    """The coverage of one or more runs."""

    catalogue: str
    axes: list[AxisValues]
    visits: dict[str, WitnessedCount] = {}
    transitions: dict[str, dict[str, WitnessedCount]] = {}
    pairs: dict[str, WitnessedCount] = {}
    invariants: dict[str, dict[str, int]] = {}
    recorded_kinds: set[str] = set()
    written_fields: set[str] = set()
    other_catalogues: set[str] = set()
    excluded_guards: dict[str, int] = {}

    @classmethod
    def empty(cls, catalogue: str, axes: Iterable[type[Axis]]) -> CoverageData:
        """Return coverage without any count."""
        return cls(catalogue=catalogue, axes=[AxisValues(axis.name, axis.values) for axis in axes])

    def add_visit(self, cell: str, count: int, witness: CellWitness) -> None:
        """Count visits of a cell."""
        self.visits[cell] = _add_counts(self.visits.get(cell), WitnessedCount(count, witness))

    def add_transition(self, label: str, cell: str, count: int, witness: CellWitness) -> None:
        """Count a transition that found the system in a cell."""
        cells = self.transitions.setdefault(label, {})
        cells[cell] = _add_counts(cells.get(cell), WitnessedCount(count, witness))

    def add_pair(self, pair: str, count: int, witness: CellWitness) -> None:
        """Count a transition that came directly after another."""
        self.pairs[pair] = _add_counts(self.pairs.get(pair), WitnessedCount(count, witness))

    def add_activation(self, invariant: str, cell: str, count: int) -> None:
        """Count how often the precondition of an invariant was true in a cell."""
        cells = self.invariants.setdefault(invariant, {})
        cells[cell] = cells.get(cell, 0) + count

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        body = msgspec.to_builtins(self, order="deterministic")
        return msgspec.json.format(
            msgspec.json.encode({"magic": MAGIC, "version": VERSION, **body, "checksum": _checksum(body)}), indent=1
        ) + bytes([10])

    def write(self, path: Path) -> None:
        """Write the file atomically. Raises `OSError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(self.encode())
        part.replace(path)


def _add_counts(first: WitnessedCount | None, second: WitnessedCount) -> WitnessedCount:
    return second if first is None else first + second


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()


def decode_coverage(content: bytes, name: str) -> CoverageData:
    """Return the coverage in the bytes of a file; `name` is used in messages.

    Raises `CoverageError` when the bytes are not a coverage file, are damaged, or have another version.
    """
    if not content.strip():
        raise CoverageError(f"{name}: is empty; a coverage file was expected, as `pytest --state-cov` writes it")
    try:
        document = msgspec.json.decode(content)
    except DECODE_ERRORS as problem:
        cut = MAGIC.encode() in content[:200]
        reason = "is cut off or damaged" if cut else "is no coverage file"
        raise CoverageError(f"{name}: {reason}: {problem}") from problem
    if not isinstance(document, dict) or document.get("magic") != MAGIC:
        raise CoverageError(f"{name}: is no coverage file; its magic should be {MAGIC!r}")
    version = document.get("version")
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        advice = (
            f"; it needs a newer Holdover (this one reads version {VERSION})" if newer else f", should be {VERSION}"
        )
        raise CoverageError(f"{name}: was written as version {version}{advice}")
    body = {key: value for key, value in document.items() if key not in ("magic", "version", "checksum")}
    if document.get("checksum") != _checksum(body):
        raise CoverageError(f"{name}: is damaged: its contents do not match their checksum; measure again")
    try:
        return msgspec.convert(body, CoverageData)
    except DECODE_ERRORS as problem:
        raise CoverageError(f"{name}: is damaged: {problem}") from problem


def read_coverage(path: Path) -> CoverageData:
    """Return the coverage in a file. Raises `CoverageError` when it cannot be read."""
    try:
        return decode_coverage(path.read_bytes(), path.name)
    except OSError as problem:
        raise CoverageError(
            f"{path}: cannot be read: {problem.strerror}; `pytest --state-cov` writes a coverage file"
        ) from problem


def combine_coverage(parts: Iterable[CoverageData]) -> CoverageData:
    """Return the coverage of all runs together.

    Raises `CoverageError` when there is no run, and when axes or catalogues differ.
    """
    rest = list(parts)
    if not rest:
        raise CoverageError("nothing to combine: name at least one coverage file")
    first = rest[0]
    total = CoverageData(catalogue=first.catalogue, axes=first.axes)
    for part in rest:
        if part.axes != first.axes:
            raise CoverageError(
                f"measured with other axes: {', '.join(axis.name for axis in part.axes)} against "
                f"{', '.join(axis.name for axis in first.axes)}; measure both with the same"
            )
        if part.catalogue != first.catalogue:
            raise CoverageError(
                f"measured with another catalogue: {part.catalogue[:12]} against {first.catalogue[:12]}; "
                f"measure both with the same"
            )
        _merge(total, part)
    return total


def _merge(target: CoverageData, part: CoverageData) -> None:
    for cell, tally in part.visits.items():
        target.add_visit(cell, tally.count, tally.witness)
    for label, cells in part.transitions.items():
        for cell, tally in cells.items():
            target.add_transition(label, cell, tally.count, tally.witness)
    for pair, tally in part.pairs.items():
        target.add_pair(pair, tally.count, tally.witness)
    for name, occasions in part.invariants.items():
        for cell, count in occasions.items():
            target.add_activation(name, cell, count)
    target.recorded_kinds |= part.recorded_kinds
    target.written_fields |= part.written_fields
    target.other_catalogues |= part.other_catalogues
    for reason, count in part.excluded_guards.items():
        target.excluded_guards[reason] = target.excluded_guards.get(reason, 0) + count


def add_counter(data: CoverageData, counter: CellCounter, source: str) -> None:
    """Add the counts of a cell counter, as production keeps them: without paths."""
    witness = CellWitness(0, source)
    for cell, count in counter.visits.items():
        data.add_visit(counter.encode_cell(cell), count, witness)
    for (label, cell), count in counter.transitions.items():
        data.add_transition(label, counter.encode_cell(cell), count, witness)
    for (first, second), count in counter.pairs.items():
        data.add_pair(f"{first} > {second}", count, witness)
