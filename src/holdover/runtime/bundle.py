"""A bundle: what a breach leaves behind, in one file that shows it again on another machine.

A guard in production writes one for each breach: its memory, the last mutations with what stood before each, the
breach, the catalogue's digest, the versions. `replay` takes the memory back by those mutations and does them
again: the same predicates over the same records. A bundle made of a schedule holds that, too, with the snapshot it
starts from and the recordings it runs on; `holdover.explore.reproduce` plays it.

The file is a ZIP archive: `bundle.json` says what it is about and the SHA-256 of every other part.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import zipfile
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdover import __version__
from holdover.catalogue import Catalogue
from holdover.model import Record
from holdover.runtime.breach import Breach
from holdover.runtime.files import write_whole
from holdover.runtime.redaction import Rules

if TYPE_CHECKING:
    from holdover.runtime.guard import Guard

VERSION: Final = 1
SUFFIX: Final = ".hbundle"
_ABOUT: Final = "bundle.json"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the same content makes the same file


class BadBundle(ValueError):
    """A bundle that is missing, damaged or of another version; the message says which and why."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself. `mark` is `subsystem/invariant`; times in ns since the epoch, UTC.

    `cell` and `after` are the breach's. `versions` names what ran; `redacted` counts the rules that were applied before
    anything was written.
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
    parts: dict[str, str] = {}
    version: int = VERSION


class Mutated(msgspec.Struct, frozen=True, array_like=True):
    """One of the last mutations, as a bundle keeps it: a line of `mutations.jsonl`."""

    seq: int
    time_ns: int
    subsystem: str
    kind: str
    record: dict[str, Any]
    cause: str
    before: dict[str, Any] | None
    step: int


class Bundle:
    """What it is about, and its parts by name."""

    def __init__(self, about: About, parts: Mapping[str, bytes]) -> None:
        self.parts = dict(sorted(parts.items()))
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.parts.items()}
        self.about = msgspec.structs.replace(about, parts=digests)

    def encode(self) -> bytes:
        """The file's content: the same for the same parts."""
        into = io.BytesIO()
        with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
            about = json.dumps(msgspec.to_builtins(self.about), indent=1, sort_keys=True).encode()
            for name, content in {_ABOUT: about, **self.parts}.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
        return into.getvalue()

    def save(self, path: Path) -> Path:
        """Write it whole, synced and renamed; returns the path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.encode())
        return path

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read one. Raises `BadBundle` when it is missing, damaged or of another version."""
        try:
            with zipfile.ZipFile(path) as archive:
                parts = {name: archive.read(name) for name in archive.namelist()}
        except OSError as problem:
            raise BadBundle(f"{path}: cannot be read: {problem.strerror or problem}") from problem
        except (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, EOFError) as problem:
            raise BadBundle(f"{path.name}: not a bundle, or damaged: {problem}") from problem
        except Exception as problem:  # zlib.error and struct.error, by a damaged archive
            raise BadBundle(f"{path.name}: damaged: {problem}") from problem
        try:
            about = msgspec.json.decode(parts.pop(_ABOUT), type=About)
        except (KeyError, msgspec.MsgspecError) as problem:
            raise BadBundle(f"{path.name}: not a bundle: its {_ABOUT} is missing or wrong ({problem})") from problem
        if about.version != VERSION:
            raise BadBundle(f"{path.name}: written in version {about.version}, this Holdover reads version {VERSION}")
        for name, digest in about.parts.items():
            if name not in parts or hashlib.sha256(parts[name]).hexdigest() != digest:
                raise BadBundle(f"{path.name}: damaged: {name} is not what {_ABOUT} says it was")
        return cls(about, {name: content for name, content in parts.items() if name in about.parts})

    def __repr__(self) -> str:
        return f"<Bundle {self.about.mark} {len(self.parts)} parts>"


def about(breach: Breach, rules: Rules, trade_date: str = "") -> About:
    """What a bundle of a breach says of itself."""
    return About(
        mark=breach.mark,
        scope=rules.value(breach.scope),
        key=rules.value(breach.key),
        explanation=rules.value(breach.explanation),
        time_ns=breach.time_ns,
        catalogue=breach.digest,
        boundary=breach.boundary,
        cause=rules.value(breach.cause),
        trade_date=trade_date,
        cell=breach.cell,
        after=breach.after,
        versions={"holdover": __version__, "python": platform.python_version(), "msgspec": msgspec.__version__},
        redacted=len(rules.fields) + len(rules.patterns),
    )


def guard_parts(guard: Guard, rules: Rules) -> dict[str, bytes]:
    """What a guard has to say of any breach just now: its memory and its last mutations; redacted."""
    lines = [
        msgspec.json.encode(
            rules.value(
                msgspec.to_builtins(
                    Mutated(
                        one.seq,
                        one.time_ns,
                        one.subsystem,
                        type(one.record).__name__,
                        msgspec.to_builtins(one.record),
                        one.cause,
                        None if one.before is None else msgspec.to_builtins(one.before),
                        one.step,
                    )
                )
            )
        )
        for one in guard.recorder.noted()
        if one.seq > guard.restored_at  # what an earlier life did is in the memory, and is not done again
    ]
    return {
        "memory.msgpack": rules.redacted(guard.monitor.dump()),
        "mutations.jsonl": b"\n".join([*lines, b""]),
    }


def breach_part(breach: Breach, rules: Rules) -> dict[str, bytes]:
    """The breach itself, as a part of its bundle; redacted."""
    return {"breach.json": rules.redacted(msgspec.json.encode(breach))}


def replay(bundle: Bundle, catalogue: Catalogue) -> list[Breach]:
    """Do a guard's last mutations again; the breaches that it comes to, oldest first.

    Raises `BadBundle` when the bundle holds no memory, or records of kinds that nobody here has defined.
    """
    from holdover.runtime.freezes import FreezeStore
    from holdover.runtime.guard import Guard
    from holdover.runtime.monitor import kinds_by_name

    try:
        memory, lines = bundle.parts["memory.msgpack"], bundle.parts["mutations.jsonl"].splitlines()
    except KeyError as problem:
        raise BadBundle(f"the bundle of {bundle.about.mark} holds no {problem}: nothing can be done again") from problem
    mutations = [msgspec.json.decode(line, type=Mutated) for line in lines]
    kinds = kinds_by_name()
    unknown = ", ".join(sorted({one.kind for one in mutations} - set(kinds)))
    if unknown:
        raise BadBundle(f"records of the kinds {unknown} are not defined here: name what defines them with --catalogue")
    now = [mutations[0].time_ns if mutations else bundle.about.time_ns]
    guard = Guard(Path("."), catalogue=catalogue, clock=lambda: now[0], channels=[], store=FreezeStore.in_memory())
    guard.quiet = True
    try:
        guard.monitor.load(memory)
        for one in reversed(mutations):
            kind = kinds[one.kind]
            guard.monitor.layout.put_back((one.subsystem, kind), _record(kind, one.record).key, _before(one, kind))
        for _, step in groupby(mutations, key=lambda one: one.step):
            together = list(step)
            with guard.step(together[0].cause):
                for one in together:
                    now[0] = one.time_ns
                    guard.record(one.subsystem, _record(kinds[one.kind], one.record))
        now[0] = max(now[0], bundle.about.time_ns)
        guard.tick()
        guard.quiescent()
        if bundle.about.boundary:
            guard.boundary(bundle.about.boundary, bundle.about.trade_date)
        return list(guard.breaches)
    finally:
        guard.close()


def _record(kind: type[Record], told: dict[str, Any]) -> Record:
    return msgspec.convert(told, kind)


def _before(one: Mutated, kind: type[Record]) -> Record | None:
    return None if one.before is None else msgspec.convert(one.before, kind)
