"""Bundles: one file per breach that reproduces the breach on another machine.

A guard in production writes one for each breach: its memory, the last mutations with the record before each,
the breach, the catalogue's digest, the versions. `replay` undoes those mutations in the memory and applies
them again: the same predicates over the same records. A bundle of a schedule also holds the schedule, its
starting snapshot and its recordings; `holdover.explore.reproduction` runs it.

The file is a ZIP archive: `bundle.json` describes it and holds the SHA-256 of every other part.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdover import __version__
from holdover.catalogue import Catalogue, Policy
from holdover.catalogue.policy import ENFORCE, GuardMode
from holdover.model import Record
from holdover.runtime.breach import Breach
from holdover.runtime.files import make_private_directory, open_whole, write_whole
from holdover.runtime.journal import RecordedMutation
from holdover.runtime.memory import MemorySnapshot
from holdover.runtime.redaction import RedactionRules
from holdover.runtime.size_limits import (
    ARCHIVE_ERRORS,
    FILE_MAX,
    PartNameError,
    SizeLimitError,
    read_archive,
    read_bounded,
)
from holdover.runtime.table_copy import MutationCapture, TableCopier
from holdover.state import DECODE_ERRORS, StateError

if TYPE_CHECKING:
    from holdover.runtime.guard import Guard

VERSION: Final = 2
SUFFIX: Final = ".hbundle"
_INFO_PART: Final = "bundle.json"
_SETTLED_TRIES: Final = 100
_ZIP64_BYTES: Final = 2**31 - 1
_ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # a fixed time, so that the same content makes the same file


class BundleError(ValueError):
    """A bundle is missing, damaged or of another version; the message says which and why."""


class BundleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a bundle. `mark` is `subsystem/invariant`; times are in ns since the epoch, UTC.

    `cell` and `after` are the breach's. `versions` names what ran; `redacted` counts the redaction rules applied
    before writing. `mode` and `policies` are those of the guard's catalogue.
    """

    mark: str
    scope: str
    key: str
    explanation: str
    time_ns: int
    catalogue: str
    boundary: str = ""
    cause: str = ""
    trade_date: str = ""
    cell: dict[str, str] = {}
    after: str = ""
    versions: dict[str, str] = {}
    redacted: int = 0
    mode: GuardMode = "enforce"
    policies: list[Policy] = []
    parts: dict[str, str] = {}
    version: int = VERSION


class _BundleHeader(msgspec.Struct):
    version: int = 0


class BundledMutation(msgspec.Struct, frozen=True, array_like=True):
    """One of the last mutations in a bundle: a line of `mutations.jsonl`."""

    seq: int
    time_ns: int
    subsystem: str
    kind: str
    record: dict[str, Any]
    cause: str
    before: dict[str, Any] | None
    step: int


class Bundle:
    """A bundle: its description and its parts by name."""

    def __init__(self, info: BundleInfo, parts: Mapping[str, bytes]) -> None:
        self.parts = dict(sorted(parts.items()))
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.parts.items()}
        self.info = msgspec.structs.replace(info, parts=digests)

    def encode(self) -> bytes:
        """Return the file's content; the same parts give the same bytes."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in {_INFO_PART: _encode_info(self.info), **self.parts}.items():
                archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def save(self, path: Path) -> Path:
        """Write the bundle atomically and synced. Returns the path."""
        make_private_directory(path.parent)
        write_whole(path, self.encode())
        return path

    @classmethod
    def open(cls, path: Path, size_max: int | None = None) -> Bundle:
        """Read a bundle; `size_max` replaces the bound on what it expands to, in bytes.

        Raises `BundleError` when it is missing, damaged, of another version, larger than its bound, or has a part
        whose name leads outside its folder.
        """
        try:
            content = read_bounded(path, size_max or FILE_MAX)
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                parts = read_archive(archive, len(content), size_max)
        except OSError as problem:
            raise BundleError(f"{path}: cannot be read: {problem.strerror or problem}") from problem
        except (SizeLimitError, PartNameError) as problem:
            raise BundleError(f"{path.name}: {problem}") from problem
        except ARCHIVE_ERRORS as problem:
            raise BundleError(f"{path.name}: not a bundle, or damaged: {problem}") from problem
        try:
            content = parts.pop(_INFO_PART)
            version = msgspec.json.decode(content, type=_BundleHeader).version
            if version != VERSION:
                raise BundleError(f"{path.name}: written in version {version}, this Holdover reads version {VERSION}")
            info = msgspec.json.decode(content, type=BundleInfo)
        except (*DECODE_ERRORS, KeyError) as problem:
            raise BundleError(
                f"{path.name}: not a bundle: its {_INFO_PART} is missing or wrong ({problem})"
            ) from problem
        for name, digest in info.parts.items():
            if name not in parts or hashlib.sha256(parts[name]).hexdigest() != digest:
                raise BundleError(f"{path.name}: damaged: {name} is not what {_INFO_PART} says it was")
        return cls(info, {name: content for name, content in parts.items() if name in info.parts})

    def __repr__(self) -> str:
        return f"<Bundle {self.info.mark} {len(self.parts)} parts>"


def save_in_pieces(
    path: Path, info: BundleInfo, parts: Mapping[str, Sequence[bytes]], give_way: Callable[[], None] = lambda: None
) -> Path:
    """Write a bundle whose parts are lists of pieces, as `Bundle.save` does, without joining the pieces."""
    digests: dict[str, str] = {}
    for name, pieces in sorted(parts.items()):
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
            give_way()
        digests[name] = digest.hexdigest()
    make_private_directory(path.parent)
    with open_whole(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        info_part = _encode_info(msgspec.structs.replace(info, parts=digests))
        for name, pieces in {_INFO_PART: (info_part,), **dict(sorted(parts.items()))}.items():
            part_info = zipfile.ZipInfo(name, _ZIP_EPOCH)
            part_info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(part_info, "w", force_zip64=sum(map(len, pieces)) >= _ZIP64_BYTES) as part:
                for piece in pieces:
                    part.write(piece)
                    give_way()
    return path


def _encode_info(info: BundleInfo) -> bytes:
    return json.dumps(msgspec.to_builtins(info), indent=1, sort_keys=True).encode()


def make_bundle_info(
    breach: Breach, rules: RedactionRules, trade_date: str = "", catalogue: Catalogue | None = None
) -> BundleInfo:
    """Make the description of a breach's bundle; `catalogue` is the one that found the breach, with its policy."""
    policies = catalogue.policies.values() if catalogue is not None else ()
    return BundleInfo(
        mark=breach.mark,
        scope=rules.redact_value(breach.scope),
        key=rules.redact_value(breach.key),
        explanation=rules.redact_value(breach.explanation),
        time_ns=breach.time_ns,
        catalogue=breach.digest,
        boundary=breach.boundary,
        cause=rules.redact_value(breach.cause),
        trade_date=trade_date,
        cell=breach.cell,
        after=breach.after,
        versions={"holdover": __version__, "python": platform.python_version(), "msgspec": msgspec.__version__},
        redacted=len(rules.fields) + len(rules.patterns),
        mode=catalogue.mode if catalogue is not None else ENFORCE,
        policies=[msgspec.structs.replace(policy, reason=rules.redact_value(policy.reason)) for policy in policies],
    )


class GuardSnapshot:
    """A guard's last mutations and its memory, from which another thread may write bundles.

    Make it under the guard's lock. Then `take` the memory: a guard with a background thread copies its records there,
    in slices, and what is recorded meanwhile belongs to the bundle too.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        # The memory already contains what an earlier process did.
        restored_at = guard.steps.restored_at_mutation
        self._mutations = [mutation for mutation in guard.recorder.mutations() if mutation.seq > restored_at]
        self._memory: MemorySnapshot | None = None
        self._capture: MutationCapture | None = None
        self._copier: TableCopier | None = None
        key_log = guard.monitor.key_log
        if key_log is not None:
            self._capture = MutationCapture()
            self._copier = TableCopier(guard.monitor.tables, key_log, self._capture)
            guard.monitor.captures.append(self._capture)

    @property
    def trade_date(self) -> str:
        """The trading day of the guard."""
        return self._guard.monitor.trade_date

    @property
    def memory(self) -> MemorySnapshot:
        """The memory. Raises `BundleError` before `take`."""
        if self._memory is None:
            raise BundleError("a snapshot of a guard has no memory before it is taken")
        return self._memory

    def take(self, give_way: Callable[[], None] = lambda: None, on_taken: Callable[[], None] = lambda: None) -> None:
        """Take the memory. Calls `on_taken` at that moment, under the guard's lock."""
        guard, copier = self._guard, self._copier
        try:
            if copier is not None:
                copier.copy_slices(guard.steps.lock, give_way)
                _wait_for_settled(guard)
            with guard.steps.lock:
                self._memory = MemorySnapshot(guard.monitor, copier.finish() if copier is not None else None)
                self.discard()
                on_taken()
        finally:
            self.discard()

    def discard(self) -> None:
        """Stop collecting what is recorded."""
        with self._guard.steps.lock:
            if self._capture is not None:
                self._guard.monitor.captures.remove(self._capture)
                self._mutations += [RecordedMutation(*entry) for entry in self._capture.recorded]
                self._capture = self._copier = None

    def encode_parts(
        self, rules: RedactionRules, give_way: Callable[[], None] = lambda: None
    ) -> dict[str, list[bytes]]:
        """Return the parts that describe the guard's state, redacted, in pieces: its memory and last mutations."""

        rules.learn_records()

        def redact(value: Any) -> Any:
            return rules.redact_value(msgspec.to_builtins(value))

        memory = self.memory
        lines: list[bytes] = []
        for mutation in self._mutations:
            lines.append(msgspec.json.encode(redact(_bundle_mutation(mutation))) + b"\n")
            give_way()
        return {"memory.msgpack": list(memory.encode(redact, give_way)), "mutations.jsonl": lines}


def _wait_for_settled(guard: Guard) -> None:
    """Wait a moment for an instant at which no step is open; a bundle of a half-done step shows breaches of its own."""
    for _ in range(_SETTLED_TRIES):
        if not guard.steps.open_steps:
            return
        time.sleep(0.001)


def _bundle_mutation(mutation: RecordedMutation) -> BundledMutation:
    return BundledMutation(
        mutation.seq,
        mutation.time_ns,
        mutation.subsystem,
        type(mutation.record).__name__,
        msgspec.to_builtins(mutation.record),
        mutation.cause,
        None if mutation.before is None else msgspec.to_builtins(mutation.before),
        mutation.step,
    )


def collect_guard_parts(guard: Guard, rules: RedactionRules) -> dict[str, bytes]:
    """Return the parts that describe the guard's current state, redacted: its memory and its last mutations."""
    snapshot = GuardSnapshot(guard)
    snapshot.take()
    return {name: b"".join(pieces) for name, pieces in snapshot.encode_parts(rules).items()}


def encode_breach_part(breach: Breach, rules: RedactionRules) -> dict[str, bytes]:
    """Return the breach as a part of its bundle, redacted."""
    shared = msgspec.structs.replace(breach, subjects=[], feeds=[])  # keys of records, which no rule can redact
    return {"breach.json": rules.redact_content(msgspec.json.encode(shared))}


def replay(bundle: Bundle, catalogue: Catalogue) -> list[Breach]:
    """Apply a guard's last mutations again. Returns the resulting breaches, oldest first.

    Raises `BundleError` when the bundle holds no memory or holds records of undefined kinds.
    """
    from holdover.runtime.freeze_store import FreezeStore
    from holdover.runtime.guard import Guard
    from holdover.runtime.memory import kinds_by_name

    try:
        memory, lines = bundle.parts["memory.msgpack"], bundle.parts["mutations.jsonl"].splitlines()
    except KeyError as problem:
        raise BundleError(
            f"the bundle of {bundle.info.mark} holds no {problem}: nothing can be done again"
        ) from problem
    mutations = _decode_mutations(lines)
    kinds = kinds_by_name()
    unknown_kinds = ", ".join(sorted({mutation.kind for mutation in mutations} - set(kinds)))
    if unknown_kinds:
        raise BundleError(
            f"records of the kinds {unknown_kinds} are not defined here: name what defines them with --catalogue"
        )
    clock_ns = [mutations[0].time_ns if mutations else bundle.info.time_ns]
    guard = Guard(Path("."), catalogue=catalogue, clock=lambda: clock_ns[0], channels=[], store=FreezeStore.in_memory())
    guard.evidence.is_quiet = True
    try:
        _restore_memory(guard, memory)
        for mutation in reversed(mutations):
            kind = kinds[mutation.kind]
            guard.monitor.tables.reset_record(
                (mutation.subsystem, kind), _decode_record(kind, mutation.record).key, _decode_previous(mutation, kind)
            )
        for _, step in groupby(mutations, key=lambda mutation: mutation.step):
            step_mutations = list(step)
            with guard.step(step_mutations[0].cause):
                for mutation in step_mutations:
                    clock_ns[0] = mutation.time_ns
                    guard.record(mutation.subsystem, _decode_record(kinds[mutation.kind], mutation.record))
        clock_ns[0] = max(clock_ns[0], bundle.info.time_ns)
        guard.tick()
        guard.quiescent()
        if bundle.info.boundary:
            guard.boundary(bundle.info.boundary, bundle.info.trade_date)
        return list(guard.breaches)
    finally:
        guard.close()


def _decode_mutations(lines: list[bytes]) -> list[BundledMutation]:
    """Decode the lines of `mutations.jsonl`. Raises `BundleError`, which names the line."""
    mutations: list[BundledMutation] = []
    for number, line in enumerate(lines, 1):
        try:
            mutations.append(msgspec.json.decode(line, type=BundledMutation))
        except DECODE_ERRORS as problem:
            raise BundleError(f"mutations.jsonl: line {number} is no mutation: {problem}") from problem
    return mutations


def _restore_memory(guard: Guard, memory: bytes) -> None:
    try:
        guard.monitor.restore_bytes(memory)
    except StateError as problem:
        raise BundleError(f"memory.msgpack: {problem}") from problem


def _decode_record(kind: type[Record], fields: dict[str, Any]) -> Record:
    try:
        return msgspec.convert(fields, kind)
    except DECODE_ERRORS as problem:
        raise BundleError(f"mutations.jsonl: a record is no {kind.__name__}: {problem}") from problem


def _decode_previous(mutation: BundledMutation, kind: type[Record]) -> Record | None:
    return None if mutation.before is None else _decode_record(kind, mutation.before)
