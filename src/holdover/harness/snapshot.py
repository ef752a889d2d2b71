"""Snapshots: the full state at an instant, content-addressed, restorable, comparable, redactable.

    magic "HSNP" + version (u32)    8 bytes
    SHA-256 of the body             32 bytes
    body                            zlib over msgpack: {"about": {...}, "parts": {name: bytes}}

The name of a snapshot is the first twelve digits of its digest: the same state has the same name anywhere.
Redaction is a step of taking one: named fields are replaced, in database columns and in encoded records alike, by a
mark made of their content, so that equal values stay equal and nothing can be read back.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.runtime.files import sync_directory
from holdover.runtime.redaction import Rules, is_database

try:  # the same format at several times the speed, where it is installed; either reads what the other wrote
    from isal.isal_zlib import compress as _fast
except ImportError:
    _fast = zlib.compress

_MAGIC: Final = b"HSNP"
VERSION: Final = 1


class BadSnapshot(ValueError):
    """A snapshot that is damaged, foreign or missing; the message says which and why."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot says of itself. Times in ns since the epoch, UTC; `catalogue` is the digest in force."""

    trade_date: str
    phase: str
    time_ns: int
    catalogue: str
    subject: str = ""
    symbols: list[str] = []
    redacted: list[str] = []
    simulated: bool = False


class Snapshot:
    """A full state: its parts by name, and what it is about."""

    def __init__(self, about: About, parts: Mapping[str, bytes]) -> None:
        self.about, self.parts = about, dict(parts)
        self._body = msgspec.msgpack.encode({"about": about, "parts": dict(sorted(self.parts.items()))})
        self.digest = hashlib.sha256(self._body).hexdigest()

    @property
    def name(self) -> str:
        """The first twelve digits of its digest."""
        return self.digest[:12]

    def save(self, directory: Path) -> Path:
        """Write it whole into a directory, synced and renamed; returns the file."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}.hsnap"
        part = path.with_suffix(".writing")
        with open(part, "wb") as file:
            file.write(_MAGIC + struct.pack("<I", VERSION) + bytes.fromhex(self.digest))
            file.write(_compressed(self._body))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_directory(directory)
        return path

    @classmethod
    def open(cls, path: Path) -> Snapshot:
        """Read one. Raises `BadSnapshot` when it is missing, damaged or of another version."""
        try:
            data = path.read_bytes()
        except OSError as problem:
            raise BadSnapshot(f"{path}: cannot be read: {problem.strerror}") from problem
        if data[:4] != _MAGIC:
            raise BadSnapshot(f"{path.name}: not a Holdover snapshot")
        version = struct.unpack("<I", data[4:8])[0] if len(data) >= 8 else 0
        if version != VERSION:
            raise BadSnapshot(f"{path.name}: written in version {version}, this Holdover reads version {VERSION}")
        try:
            body = zlib.decompress(data[40:])
        except zlib.error as problem:
            raise BadSnapshot(f"{path.name}: damaged: {problem}") from problem
        if hashlib.sha256(body).digest() != data[8:40]:
            raise BadSnapshot(f"{path.name}: damaged: its content does not match its digest")
        held = msgspec.msgpack.decode(body)
        return cls(msgspec.convert(held["about"], About), held["parts"])

    def __repr__(self) -> str:
        size = sum(len(part) for part in self.parts.values())
        return f"<Snapshot {self.name} {self.about.trade_date} {self.about.phase} {len(self.parts)} parts {size} bytes>"


def _compressed(body: bytes) -> bytes:
    return bytes(_fast(body, 1))


def take(session: Any, *, redact: Iterable[str] = (), subject: str = "") -> Snapshot:
    """The full state of a session now, with the named fields redacted."""
    names = sorted(set(redact))
    parts = session.state()
    if names:
        rules = Rules(fields=names)
        parts = {name: rules.redacted(content) for name, content in _checkpointed(parts).items()}
    return Snapshot(
        About(
            trade_date=session.trade_date,
            phase=session.phase,
            time_ns=session.clock.now_ns,
            catalogue=session.guard.catalogue.digest,
            subject=subject,
            symbols=list(session.symbols),
            redacted=names,
            simulated=any(meta.simulated for meta in session.plan.days),
        ),
        parts,
    )


class SnapshotStore:
    """A folder of snapshots."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def list(self) -> list[Path]:
        """Every snapshot file, oldest name first."""
        return sorted(self.directory.glob("*.hsnap"))

    def get(self, name: str) -> Snapshot:
        """By name or the beginning of one. Raises `BadSnapshot` when there is none, or more than one."""
        found = [path for path in self.list() if path.stem.startswith(name)]
        if len(found) != 1:
            at_hand = ", ".join(path.stem for path in self.list()) or "nothing"
            said = "no snapshot is" if not found else "several snapshots are"
            raise BadSnapshot(f"{said} called {name} in {self.directory}; at hand: {at_hand}")
        return Snapshot.open(found[0])


# -- comparing --------------------------------------------------------------------------------------------------------


def difference(left: Snapshot, right: Snapshot) -> list[str]:
    """What differs between two states, a line a thing: parts, rows of databases, entries of encoded parts."""
    found: list[str] = []
    for name in sorted({*left.parts, *right.parts}):
        one, other = left.parts.get(name), right.parts.get(name)
        if one is None or other is None:
            found.append(f"{name}: only in {(left if other is None else right).name}")
        elif one != other:
            found += list(_differing(name, _opened(one), _opened(other)))
    return found


def _opened(content: bytes) -> Any:
    if is_database(content):
        return _rows(content)
    try:
        return msgspec.msgpack.decode(content)
    except msgspec.MsgspecError:
        return content


def _differing(name: str, one: Any, other: Any) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *[key for key in other if key not in one]]:
            if one.get(key) != other.get(key):
                yield from _differing(f"{name}.{key}", one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                yield from _differing(f"{name}[{number}]", left, right)
    else:
        yield f"{name}: {_short(one)} / {_short(other)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


# -- databases --------------------------------------------------------------------------------------------------------


def _rows(content: bytes) -> dict[str, Any]:
    memory = sqlite3.connect(":memory:")
    try:
        memory.deserialize(content[:18] + b"\x01\x01" + content[20:])
        tables = [row[0] for row in memory.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")]
        return {
            table: {str(row[:2]): list(row) for row in memory.execute(f'SELECT * FROM "{table}" ORDER BY 1, 2')}
            for table in tables
        }
    finally:
        memory.close()


def _checkpointed(parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """The parts with every write-ahead log taken into its database: a log cannot be redacted in place."""
    found = {name: part for name, part in parts.items() if not name.endswith(("-wal", "-shm"))}
    for name, log in parts.items():
        owner = name.removesuffix("-wal")
        if not name.endswith("-wal") or owner not in found:
            continue
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "part.db"
            path.write_bytes(found[owner])
            path.with_name("part.db-wal").write_bytes(log)
            database = sqlite3.connect(path)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.close()
            found[owner] = path.read_bytes()
    return found
