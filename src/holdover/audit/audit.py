"""The audit of FIX logs: every message of them in the order in which it was taken, judged by the catalogue."""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from holdover.audit.fields import BadReport
from holdover.audit.framing import Fields, Framing
from holdover.audit.judged import judged_by_a_log
from holdover.audit.orders import Orders
from holdover.audit.sessions import Message, Sessions
from holdover.audit.units import NoNumber
from holdover.catalogue import Catalogue, Frozen
from holdover.model import Link, LinkState, Request
from holdover.runtime import Breach, CellCounter, Monitor
from holdover.runtime.layout import Check

_PLAIN: Final = frozenset((("builtins", "set"), ("msgspec._utils", "rebuild")))
_GZIP: Final = b"\x1f\x8b"


class BadLog(ValueError):
    """A log that cannot be read; the message says which and why."""


class Found(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A breach and its place: the file's name and the line, counted from 1, of the message that showed it."""

    invariant: str
    key: str
    line: int
    explanation: str
    file: str = ""


class Skipped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line, or a message in it, that could not be used, and why."""

    line: int
    reason: str
    file: str = ""


class OwnUnpickler(pickle.Unpickler):
    """Reads memories of this package: no class but Holdover's own records and readers is made."""

    def find_class(self, module: str, name: str) -> Any:
        """Raises `UnpicklingError` for a class that has no place in a memory."""
        if module.startswith(("holdover.audit.", "holdover.model.")) or (module, name) in _PLAIN:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a memory")


class _NothingFrozen(Frozen):
    """An audit freezes nothing."""

    def forbids(self, request: Request) -> str:
        """No scope is frozen."""
        return ""


class Audit:
    """Reads logs and keeps what it found. `breaches` and `skipped` are in the order in which they were found.

    A breach of one invariant by one order is told once, where it first showed.
    """

    def __init__(self, catalogue: Catalogue | None = None) -> None:
        self.catalogue = catalogue if catalogue is not None else Catalogue.load()
        self.judged = judged_by_a_log(self.catalogue)
        self.monitor = Monitor(self.judged, self._breached, _NothingFrozen(), cells=CellCounter(()))
        self.framing = Framing()
        self.sessions = Sessions(self._passed_over)
        self.orders = Orders(self.monitor)
        self.files: list[str] = []
        self.messages = 0
        self.breaches: list[Found] = []
        self.skipped: list[Skipped] = []
        self.on_breach: Callable[[Breach], None] | None = None
        self._line = 0
        self._told: set[tuple[str, str, int]] = set()

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, name: str, stream: IO[bytes]) -> None:
        """Read one log to its end; gzip is recognised by its content. Raises `BadLog`."""
        self.begin(name)
        try:
            self.lines(_unpacked(stream))
        except (OSError, EOFError, zlib.error) as problem:
            reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
            raise BadLog(f"{name}: cannot be read after line {self._line}: {reason}") from problem

    def read_file(self, path: Path) -> None:
        """Read one file to its end. Raises `BadLog`."""
        try:
            with open(path, "rb") as stream:
                self.read(str(path), stream)
        except OSError as problem:
            raise BadLog(f"{path}: cannot be read: {problem.strerror or problem}") from problem

    def begin(self, name: str) -> None:
        """Another log begins: what is missing between the two is nobody's fault."""
        self.files.append(name)
        self.sessions.break_off()

    def lines(self, lines: Iterable[bytes], first: int = 1) -> None:
        """Take lines of the log that `begin` named, from line number `first` on."""
        take, one = self.framing.take, self._message
        file = len(self.files) - 1
        for number, line in enumerate(lines, first):
            self._line = number
            for found in take(line):
                if found.__class__ is dict:
                    one(found, (file, number))
                else:
                    self._skip((file, number), str(found))

    def end(self) -> None:
        """The logs are at their end: judge what was held back for messages that never came."""
        for message in self.sessions.end():
            self._judge(message)
        self.orders.end(self.sessions)

    def dump(self) -> bytes:
        """Everything that the messages still to come are judged by, for `load` in another process."""
        parts = (self.files, self.messages, self._told, self.framing, self.sessions, self.orders)
        return pickle.dumps((self.monitor.dump(), parts))

    def load(self, memory: bytes) -> None:
        """Take up a memory dumped before. Raises `ValueError` when it is none."""
        try:
            monitor, parts = OwnUnpickler(io.BytesIO(memory)).load()
            self.files, self.messages, self._told, self.framing, self.sessions, self.orders = parts
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError) as problem:
            raise ValueError(f"the audit's memory is damaged: {problem}") from problem
        self.monitor.load(monitor)
        self.sessions.passed_over = self._passed_over
        self.orders.monitor = self.monitor
        self.orders.show_instruments()

    # -- what was found -----------------------------------------------------------------------------------------

    @property
    def verdict(self) -> str:
        """`breach`, `holds`, or `unknown` when the logs hold no execution report that could be judged."""
        if self.breaches:
            return "breach"
        return "holds" if self.orders.executions else "unknown"

    def notes(self) -> list[str]:
        """What a reader must know of the logs to know how far the verdict goes, in sentences."""
        found = []
        if self.framing.unproved:
            found.append(
                f"{self.framing.unproved} messages came without CheckSum (10) or BodyLength (9): taken as they are"
            )
        if self.sessions.copies:
            found.append(f"{self.sessions.copies} messages are in the logs more than once: taken once")
        gaps = sum(one.gaps for named in self.sessions.named.values() for one in (named.one, named.other))
        if gaps:
            found.append(f"{gaps} gaps in the message numbers may be the logs' own: what they hide is not judged")
        return found

    def as_json(self) -> dict[str, Any]:
        """The result as one object."""
        return {
            "verdict": self.verdict,
            "files": self.files,
            "messages": self.messages,
            "executions": self.orders.executions,
            "orders": len(self.orders.lives),
            "sessions": len(self.sessions.named),
            "breaches": [_placed(one) for one in self.breaches],
            "skipped": [_placed(one) for one in self.skipped],
            "notes": self.notes(),
            "catalogue": {
                "digest": self.catalogue.digest,
                "invariants": len(self.catalogue.invariants),
                "judged": sorted(self.judged.invariants),
            },
        }

    # -- inside -------------------------------------------------------------------------------------------------

    def _message(self, fields: Fields | str, line: tuple[int, int]) -> None:
        self.messages += 1
        try:
            ready = self.sessions.take(fields, line)  # type: ignore[arg-type]
        except ValueError as problem:
            self._skip(line, str(problem))
            return
        for message in ready:
            self._judge(message)

    def _judge(self, message: Message) -> None:
        try:
            self.orders.read(message)
        except (BadReport, NoNumber) as problem:
            self._skip(message.line, f"{_NAMES.get(message.kind, 'message')}: {problem}")

    def _skip(self, line: tuple[int, int], reason: str) -> None:
        self.sessions.break_off()
        self.skipped.append(Skipped(line=line[1], reason=reason, file=self._file(line)))

    def _file(self, line: tuple[int, int]) -> str:
        return self.files[line[0]] if len(self.files) > 1 else ""

    def _breached(self, breach: Breach, check: Check) -> None:
        line = self.orders.at
        mark = (breach.invariant, breach.key, line[1] if breach.kind == "Link" else 0)
        if mark in self._told:
            return
        self._told.add(mark)
        self.breaches.append(
            Found(
                invariant=breach.invariant,
                key=breach.key,
                line=line[1],
                explanation=breach.explanation,
                file=self._file(line),
            )
        )
        if self.on_breach is not None:
            self.on_breach(breach)

    def _passed_over(self, message: Message, expected: int) -> None:
        """Tell the catalogue of a number that never came: the link as it stood, and as this message found it."""
        self.orders.at = message.line
        name = message.direction.session.name
        table = ("gateway", Link)
        self.monitor.cause = "sequence"
        if name in self.monitor.layout.tables.get(table, {}):
            self.monitor.layout.forget(table, name)
        before = Link(name=name, up=True, in_seq=expected - 1, change=LinkState.LOGON)
        for link in (before, Link(name=name, up=True, in_seq=message.seq or 0)):
            self.monitor.mutate("gateway", link, 0, {})


_NAMES: Final = {
    b"8": "execution report",
    b"9": "cancel reject",
    b"D": "new order",
    b"F": "cancel request",
    b"G": "replace request",
}


def _placed(found: Found | Skipped) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(found)
    return told


def _unpacked(stream: IO[bytes]) -> IO[bytes]:
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    if buffered.peek(2)[:2] == _GZIP:
        return io.BufferedReader(gzip.GzipFile(fileobj=buffered), 1 << 20)
    return buffered
