"""The coverage file: what a run has seen, as deterministic JSON that proves itself.

Two runs of one suite give the same bytes. Counts add up when files are combined and the shortest witness of each thing
wins, so that the order in which files are combined does not matter. A file that is cut off, damaged, foreign or of a
newer version is refused with a sentence.

    magic, version     what it is; a reader refuses a version that it does not know
    catalogue, axes    what it was measured with; only files alike in both can be combined
    visits             cell -> how often it was entered, and where first
    transitions        transition -> cell -> how often it was exercised there, and the shortest way to it
    pairs              "one > other" -> the same
    invariants         name -> cell -> how often its precondition arose
    recorded, written  subsystem.Kind that was recorded; subsystem.Kind.field that was given a value
    checksum           SHA-256 over all of the above
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from holdover.runtime.axes import Axis
from holdover.runtime.cells import CellCounter

MAGIC: Final = "holdover-state-coverage"
VERSION: Final = 1
T = TypeVar("T")


class BadCoverage(ValueError):
    """A coverage file that cannot be used; the message names it and says why."""


class Witness(msgspec.Struct, frozen=True, order=True, array_like=True):
    """The shortest way to something: how many transitions it took, in which test or journal, and which they were."""

    length: int
    source: str
    path: tuple[str, ...] = ()


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """How often, and the shortest way to it."""

    count: int
    witness: Witness

    def __add__(self, other: Seen) -> Seen:
        return Seen(self.count + other.count, min(self.witness, other.witness))


class AxisSaid(msgspec.Struct, frozen=True):
    """An axis as a file says it."""

    name: str
    values: tuple[str, ...]


class Data(msgspec.Struct, kw_only=True):
    """What runs have seen."""

    catalogue: str
    axes: list[AxisSaid]
    visits: dict[str, Seen] = {}
    transitions: dict[str, dict[str, Seen]] = {}
    pairs: dict[str, Seen] = {}
    invariants: dict[str, dict[str, int]] = {}
    recorded: set[str] = set()
    written: set[str] = set()
    others: set[str] = set()
    left_out: dict[str, int] = {}

    @classmethod
    def empty(cls, catalogue: str, axes: Iterable[type[Axis]]) -> Data:
        """Nothing seen yet."""
        return cls(catalogue=catalogue, axes=[AxisSaid(one.name, one.values) for one in axes])

    def add_visit(self, cell: str, count: int, witness: Witness) -> None:
        """A cell was entered."""
        self.visits[cell] = _plus(self.visits.get(cell), Seen(count, witness))

    def add_transition(self, label: str, cell: str, count: int, witness: Witness) -> None:
        """A transition found the system in a cell."""
        cells = self.transitions.setdefault(label, {})
        cells[cell] = _plus(cells.get(cell), Seen(count, witness))

    def add_pair(self, pair: str, count: int, witness: Witness) -> None:
        """One transition came right after another."""
        self.pairs[pair] = _plus(self.pairs.get(pair), Seen(count, witness))

    def add_occasion(self, invariant: str, cell: str, count: int) -> None:
        """An invariant's precondition arose in a cell."""
        cells = self.invariants.setdefault(invariant, {})
        cells[cell] = cells.get(cell, 0) + count

    def encode(self) -> bytes:
        """The file's bytes."""
        body = msgspec.to_builtins(self, order="deterministic")
        return msgspec.json.format(
            msgspec.json.encode({"magic": MAGIC, "version": VERSION, **body, "checksum": _checksum(body)}), indent=1
        ) + bytes([10])

    def write(self, path: Path) -> None:
        """Write the file whole. Raises `OSError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(self.encode())
        part.replace(path)


def _plus(one: Seen | None, other: Seen) -> Seen:
    return other if one is None else one + other


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()


def decode(content: bytes, name: str) -> Data:
    """The data in a file's bytes; `name` is for the message. Raises `BadCoverage`."""
    if not content.strip():
        raise BadCoverage(f"{name}: is empty; a coverage file was expected, as `pytest --state-cov` writes it")
    try:
        told = msgspec.json.decode(content)
    except msgspec.MsgspecError as problem:
        cut = MAGIC.encode() in content[:200]
        why = "is cut off or damaged" if cut else "is no coverage file"
        raise BadCoverage(f"{name}: {why}: {problem}") from problem
    if not isinstance(told, dict) or told.get("magic") != MAGIC:
        raise BadCoverage(f"{name}: is no coverage file; its magic should be {MAGIC!r}")
    version = told.get("version")
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        said = f"; it needs a newer Holdover (this one reads version {VERSION})" if newer else f", should be {VERSION}"
        raise BadCoverage(f"{name}: was written as version {version}{said}")
    body = {key: value for key, value in told.items() if key not in ("magic", "version", "checksum")}
    if told.get("checksum") != _checksum(body):
        raise BadCoverage(f"{name}: is damaged: its contents do not match their checksum; measure again")
    try:
        return msgspec.convert(body, Data)
    except msgspec.ValidationError as problem:
        raise BadCoverage(f"{name}: is damaged: {problem}") from problem


def read(path: Path) -> Data:
    """The data in a file. Raises `BadCoverage`."""
    try:
        return decode(path.read_bytes(), path.name)
    except OSError as problem:
        raise BadCoverage(
            f"{path}: cannot be read: {problem.strerror}; `pytest --state-cov` writes a coverage file"
        ) from problem


def combine(parts: Iterable[Data]) -> Data:
    """All of the runs together. Raises `BadCoverage` for none, and for runs measured with other axes or invariants."""
    rest = list(parts)
    if not rest:
        raise BadCoverage("nothing to combine: name at least one coverage file")
    first = rest[0]
    found = Data(catalogue=first.catalogue, axes=first.axes)
    for part in rest:
        if part.axes != first.axes:
            raise BadCoverage(
                f"measured with other axes: {', '.join(one.name for one in part.axes)} against "
                f"{', '.join(one.name for one in first.axes)}; measure both with the same"
            )
        if part.catalogue != first.catalogue:
            raise BadCoverage(
                f"measured with another catalogue: {part.catalogue[:12]} against {first.catalogue[:12]}; "
                f"measure both with the same"
            )
        _merge(found, part)
    return found


def _merge(into: Data, part: Data) -> None:
    for cell, seen in part.visits.items():
        into.add_visit(cell, seen.count, seen.witness)
    for label, cells in part.transitions.items():
        for cell, seen in cells.items():
            into.add_transition(label, cell, seen.count, seen.witness)
    for pair, seen in part.pairs.items():
        into.add_pair(pair, seen.count, seen.witness)
    for name, occasions in part.invariants.items():
        for cell, count in occasions.items():
            into.add_occasion(name, cell, count)
    into.recorded |= part.recorded
    into.written |= part.written
    into.others |= part.others
    for why, count in part.left_out.items():
        into.left_out[why] = into.left_out.get(why, 0) + count


def add_counter(data: Data, counter: CellCounter, source: str) -> None:
    """Add a counter's own counts, as production keeps them: without the way that led there."""
    witness = Witness(0, source)
    for cell, count in counter.visits.items():
        data.add_visit(counter.code(cell), count, witness)
    for (label, cell), count in counter.transitions.items():
        data.add_transition(label, counter.code(cell), count, witness)
    for (one, other), count in counter.pairs.items():
        data.add_pair(f"{one} > {other}", count, witness)
