"""Snapshots: the full state at an instant, content-addressed, restorable, comparable and redactable.

    magic "HSNP" + version (u32)    8 bytes
    SHA-256 of the body             32 bytes
    body                            zlib over msgpack: {"about": {...}, "parts": {name: bytes}}

The name of a snapshot is the first twelve hex digits of its digest, so equal states have equal names
everywhere. Redaction happens when a snapshot is taken. It replaces the named fields, in database columns and
in encoded records, with a mark derived from their content and a salt of this user: equal values stay equal, and
nobody without the salt can find a value by trying.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.runtime.files import PUBLIC_FILE, write_whole
from holdover.runtime.redaction import RedactionRules, is_database, load_user_salt, quote_name
from holdover.runtime.size_limits import (
    FILE_MAX,
    SNAPSHOT_EXPANDED_MAX,
    PartNameError,
    SizeLimitError,
    check_part_names,
    decompress_bounded,
    read_bounded,
)
from holdover.state import DECODE_ERRORS, decode_msgpack

try:  # isal compresses the same format several times faster; zlib and isal read each other's output
    from isal.isal_zlib import compress as _fast
except ImportError:
    _fast = zlib.compress

_MAGIC: Final = b"HSNP"
VERSION: Final = 2


class SnapshotError(ValueError):
    """A snapshot is damaged, foreign or missing. The message says which snapshot and why."""


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a snapshot. Times are ns since the epoch, UTC; `catalogue` is the digest in force."""

    trade_date: str
    phase: str
    time_ns: int
    catalogue: str
    subject: str = ""
    symbols: list[str] = []
    redacted: list[str] = []
    simulated: bool = False


class _SnapshotBody(msgspec.Struct):
    about: SnapshotInfo
    parts: dict[str, bytes]


class Snapshot:
    """A full state: its parts by name, and its description."""

    def __init__(self, info: SnapshotInfo, parts: Mapping[str, bytes]) -> None:
        if info.time_ns < 0:
            raise SnapshotError(f"a snapshot at {info.time_ns} ns, should be ns since the epoch")
        if not all(parts):
            raise SnapshotError("a part of a snapshot has no name")
        self.info, self.parts = info, dict(parts)
        self._body = msgspec.msgpack.encode({"about": info, "parts": dict(sorted(self.parts.items()))})
        self.digest = hashlib.sha256(self._body).hexdigest()

    @property
    def name(self) -> str:
        """The first twelve hex digits of the digest."""
        return self.digest[:12]

    def save(self, directory: Path) -> Path:
        """Write the snapshot into a directory, synced and renamed into place; return the path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}.hsnap"
        head = _MAGIC + struct.pack("<I", VERSION) + bytes.fromhex(self.digest)
        write_whole(path, head + _compress(self._body), PUBLIC_FILE)
        return path

    @classmethod
    def open(cls, path: Path, size_max: int | None = None) -> Snapshot:
        """Read a snapshot; `size_max` replaces the bound on what it expands to, in bytes.

        Raises `SnapshotError` when it is missing, damaged, of another version, larger than its bound, or has a part
        whose name leads outside its folder.
        """
        try:
            data = read_bounded(path, size_max or FILE_MAX)
        except OSError as error:
            raise SnapshotError(f"{path}: cannot be read: {error.strerror}") from error
        except SizeLimitError as error:
            raise SnapshotError(str(error)) from error
        if data[:4] != _MAGIC:
            raise SnapshotError(f"{path.name}: not a Holdover snapshot")
        version = struct.unpack("<I", data[4:8])[0] if len(data) >= 8 else 0
        if version != VERSION:
            raise SnapshotError(f"{path.name}: written in version {version}, this Holdover reads version {VERSION}")
        try:
            body = decompress_bounded(data[40:], SNAPSHOT_EXPANDED_MAX, size_max)
        except zlib.error as error:
            raise SnapshotError(f"{path.name}: damaged: {error}") from error
        except SizeLimitError as error:
            raise SnapshotError(f"{path.name}: {error}") from error
        if hashlib.sha256(body).digest() != data[8:40]:
            raise SnapshotError(f"{path.name}: damaged: its content does not match its digest")
        try:
            content = msgspec.msgpack.decode(body, type=_SnapshotBody)
            check_part_names(list(content.parts))
        except DECODE_ERRORS as error:
            raise SnapshotError(f"{path.name}: damaged: its body is none of a snapshot: {error}") from error
        except PartNameError as error:
            raise SnapshotError(f"{path.name}: {error}") from error
        return cls(content.about, content.parts)

    def __repr__(self) -> str:
        size = sum(len(part) for part in self.parts.values())
        return f"<Snapshot {self.name} {self.info.trade_date} {self.info.phase} {len(self.parts)} parts {size} bytes>"


def _compress(body: bytes) -> bytes:
    return bytes(_fast(body, 1))


def take_snapshot(session: Any, *, redact: Iterable[str] = (), subject: str = "") -> Snapshot:
    """Take the full state of a session, with the named fields redacted."""
    names = sorted(set(redact))
    parts = session.to_parts()
    if names:
        rules = RedactionRules(fields=names, salt=load_user_salt())
        parts = {name: rules.redact_content(content) for name, content in _checkpoint_databases(parts).items()}
    return Snapshot(
        SnapshotInfo(
            trade_date=session.trade_date,
            phase=session.phase,
            time_ns=session.clock.now_ns,
            catalogue=session.guard.catalogue.digest,
            subject=subject,
            symbols=list(session.symbols),
            redacted=names,
            simulated=any(meta.simulated for meta in session.host.plan.days),
        ),
        parts,
    )


class SnapshotStore:
    """A directory of snapshots."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def list_paths(self) -> list[Path]:
        """Return every snapshot file, sorted by name."""
        return sorted(self.directory.glob("*.hsnap"))

    def find(self, name: str, size_max: int | None = None) -> Snapshot:
        """Open the snapshot with that name or name prefix; `size_max` as for `Snapshot.open`.

        Raises `SnapshotError` when none or several match.
        """
        matches = [path for path in self.list_paths() if path.stem.startswith(name)]
        if len(matches) != 1:
            at_hand = ", ".join(path.stem for path in self.list_paths()) or "nothing"
            description = "no snapshot is" if not matches else "several snapshots are"
            raise SnapshotError(f"{description} called {name} in {self.directory}; at hand: {at_hand}")
        return Snapshot.open(matches[0], size_max)


# -- comparing --------------------------------------------------------------------------------------------------------


def compare_snapshots(first: Snapshot, second: Snapshot) -> list[str]:
    """Return the differences between two states, one a line: parts, database rows, and entries of encoded parts."""
    lines: list[str] = []
    for name in sorted({*first.parts, *second.parts}):
        first_part, second_part = first.parts.get(name), second.parts.get(name)
        if first_part is None or second_part is None:
            lines.append(f"{name}: only in {(first if second_part is None else second).name}")
        elif first_part != second_part:
            lines += list(_describe_differences(name, _decode_part(first_part), _decode_part(second_part)))
    return lines


def _decode_part(content: bytes) -> Any:
    if is_database(content):
        try:
            return _read_rows(content)
        except (sqlite3.Error, ValueError, OverflowError):  # a damaged database is compared as bytes
            return content
    try:
        return decode_msgpack(content)
    except (*DECODE_ERRORS, ValueError):
        return content


def _describe_differences(name: str, first: Any, second: Any) -> Iterator[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *[key for key in second if key not in first]]:
            if first.get(key) != second.get(key):
                yield from _describe_differences(f"{name}.{key}", first.get(key), second.get(key))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (first_item, second_item) in enumerate(zip(first, second, strict=True)):
            if first_item != second_item:
                yield from _describe_differences(f"{name}[{number}]", first_item, second_item)
    else:
        yield f"{name}: {_shorten(first)} / {_shorten(second)}"


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


# -- databases --------------------------------------------------------------------------------------------------------


def _read_rows(content: bytes) -> dict[str, Any]:
    memory = sqlite3.connect(":memory:")
    try:
        memory.deserialize(content[:18] + b"\x01\x01" + content[20:])
        memory.execute("PRAGMA trusted_schema=OFF")
        tables = [row[0] for row in memory.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")]
        return {
            table: {
                str(row[:2]): list(row) for row in memory.execute(f"SELECT * FROM {quote_name(table)} ORDER BY 1, 2")
            }
            for table in tables
        }
    finally:
        memory.close()


def _checkpoint_databases(parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the parts with every write-ahead log checkpointed into its database; a log cannot be redacted in place."""
    merged_parts = {name: part for name, part in parts.items() if not name.endswith(("-wal", "-shm"))}
    for name, log in parts.items():
        owner = name.removesuffix("-wal")
        if not name.endswith("-wal") or owner not in merged_parts:
            continue
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "part.db"
            path.write_bytes(merged_parts[owner])
            path.with_name("part.db-wal").write_bytes(log)
            database = sqlite3.connect(path)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.close()
            merged_parts[owner] = path.read_bytes()
    return merged_parts
