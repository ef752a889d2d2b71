"""The audit of FIX logs: the catalogue evaluates every message in the order in which a receiver would take it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, ClassVar, Final

import msgspec

from holdover.audit.closed_orders import CLOSED_MAX
from holdover.audit.fields import ReportError
from holdover.audit.fix_sessions import FixSessions, FixSessionsState, LogMessage
from holdover.audit.framing import PLAIN_TEXT, FieldMap, FixFramer, FixFramerState
from holdover.audit.log_catalogue import AUDIT_SUBSYSTEMS, select_log_invariants
from holdover.audit.log_lines import OverlongLine, read_log_lines, unpack_log
from holdover.audit.reported_orders import ReportedOrders, ReportedOrdersState
from holdover.audit.units import NumberError
from holdover.catalogue import Catalogue, Frozen
from holdover.model import Link, LinkState, Request
from holdover.runtime import Breach, CellCounter, Monitor
from holdover.runtime.check import Check
from holdover.runtime.size_limits import SizeLimitError
from holdover.state import Stateful, StoredFormat, decode_stored, encode_stored

AUDIT_FORMAT: Final = StoredFormat(
    name="audit memory", version=3, next_step="remove it and audit the logs again from their beginning"
)
UNUSABLE_MAX: Final = 0.01
"""The share of messages that may be unusable before an audit without a breach is undecided."""
_ORDER_MESSAGE: Final = re.compile(rb"(?:^|[^0-9])35=[89DFG](?:[^0-9A-Za-z]|$)")
"""What looks like an order message without a BeginString (8)."""
LISTED_MAX: Final = 10_000
"""Breaches and unusable lines that an audit lists; it counts all of them."""


class FixLogError(ValueError):
    """A log cannot be read; the message says which and why."""


class AuditBreach(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A breach and its position: the file's name and the line, counted from 1, of the message that showed it."""

    invariant: str
    key: str
    line: int
    explanation: str
    file: str = ""


class SkippedLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line, or a message in it, that could not be used, and the reason."""

    line: int
    reason: str
    file: str = ""


class _AuditFreezes(Frozen):
    """No freezes: an audit freezes nothing."""

    def forbids(self, request: Request) -> str:
        """Return an empty string: no scope is frozen."""
        return ""


class AuditState(msgspec.Struct):
    """The state of an audit. A reported breach is stored as (invariant, key, line or 0)."""

    files: list[str]
    messages: int
    unusable: int
    first_unusable: str
    skipped_count: int
    breach_count: int
    reported: list[tuple[str, str, int]]
    framing: FixFramerState
    sessions: FixSessionsState
    orders: ReportedOrdersState
    monitor: bytes


class Audit(Stateful[AuditState]):
    """Reads logs and collects the results. `breaches` and `skipped` are in the order of discovery.

    A breach of one invariant by one order is reported once, where it first appears. The lists end at `LISTED_MAX`
    entries; `breach_count` and `skipped_count` count all. `unusable` counts the messages that could not be judged and
    may be about orders; when their share is above `unusable_max`, the verdict is never `holds`. Memory is bounded: the
    audit remembers open orders and the last `closed_max` closed ones.
    """

    State = AuditState
    DERIVED: ClassVar = {
        "catalogue": "given when the audit is made",
        "judged_catalogue": "the part of the catalogue that a log can show",
        "breaches": "results of this process, which its owner takes away",
        "skipped": "results of this process, which its owner takes away",
        "on_breach": "a function of the audit's owner",
        "unusable_max": "given when the audit is made",
        "_line": "the line being read, for messages",
    }

    def __init__(
        self,
        catalogue: Catalogue | None = None,
        *,
        unusable_max: float = UNUSABLE_MAX,
        closed_max: int = CLOSED_MAX,
    ) -> None:
        self.catalogue = catalogue if catalogue is not None else Catalogue.load()
        self.judged_catalogue = select_log_invariants(self.catalogue)
        self.monitor = Monitor(
            self.judged_catalogue,
            self._record_breach,
            _AuditFreezes(),
            cells=CellCounter(()),
            subsystems=AUDIT_SUBSYSTEMS,
        )
        self.framing = FixFramer()
        self.sessions = FixSessions(self._report_missing_number)
        self.orders = ReportedOrders(self.monitor, closed_max)
        self.unusable_max = unusable_max
        self.files: list[str] = []
        self.messages = 0
        self.unusable = self.skipped_count = self.breach_count = 0
        self.first_unusable = ""
        self.breaches: list[AuditBreach] = []
        self.skipped: list[SkippedLine] = []
        self.on_breach: Callable[[Breach], None] | None = None
        self._line = 0
        self._reported: set[tuple[str, str, int]] = set()

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, name: str, stream: IO[bytes]) -> None:
        """Read one log to its end; gzip is recognised by its content. Raises `FixLogError`."""
        self.begin_log(name)
        try:
            for number, line in read_log_lines(unpack_log(stream)):
                if isinstance(line, OverlongLine):
                    self._skip_line(
                        (len(self.files) - 1, number), f"a line or message of {line.size:,} bytes is not judged"
                    )
                    self._count_unusable((len(self.files) - 1, number))
                else:
                    self.read_lines((line,), number)
        except SizeLimitError as problem:
            raise FixLogError(f"{name}: {problem}") from problem
        except (OSError, EOFError, zlib.error) as problem:
            reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
            raise FixLogError(f"{name}: cannot be read after line {self._line}: {reason}") from problem

    def read_file(self, path: Path) -> None:
        """Read one file to its end. Raises `FixLogError`."""
        try:
            with open(path, "rb") as stream:
                self.read(str(path), stream)
        except OSError as problem:
            raise FixLogError(f"{path}: cannot be read: {problem.strerror or problem}") from problem

    def begin_log(self, name: str) -> None:
        """Begin another log. Messages missing between two logs are not a fault of either party."""
        self.files.append(name)
        self.sessions.mark_break()

    def read_lines(self, lines: Iterable[bytes], first: int = 1) -> None:
        """Take lines of the current log, from line number `first` on."""
        split_line, handle = self.framing.split_line, self._take_message
        file = len(self.files) - 1
        for number, line in enumerate(lines, first):
            self._line = number
            for message in split_line(line):
                if message.__class__ is dict:
                    handle(message, (file, number))
                else:
                    self._skip_line((file, number), str(message))
                    if not str(message).startswith(PLAIN_TEXT) or _ORDER_MESSAGE.search(line):
                        self._count_unusable((file, number))

    def end(self) -> None:
        """Finish the logs: evaluate the messages that waited for missing numbers."""
        for message in self.sessions.end():
            self._judge_message(message)
        self.orders.end(self.sessions)

    def to_bytes(self) -> bytes:
        """Return the state that later messages need, for `restore_bytes` in another process."""
        return encode_stored(AUDIT_FORMAT, self.to_state())

    def restore_bytes(self, data: bytes) -> None:
        """Restore a state that `to_bytes` returned. Raises `StateError` when it is damaged or of another version."""
        self.take_state(decode_stored(AUDIT_FORMAT, AuditState, data))

    def _encode_field(self, name: str, value: Any) -> Any:
        if name == "monitor":
            return value.to_bytes()
        if name == "reported":
            return sorted(value)
        return value.to_state() if name in ("framing", "sessions", "orders") else value

    def _decode_field(self, name: str, value: Any) -> Any:
        if name == "reported":
            return set(value)
        if name == "monitor":
            self.monitor.restore_bytes(value)
            return self.monitor
        if name in ("framing", "sessions", "orders"):
            part: Stateful[Any] = getattr(self, name)
            part.take_state(value)
            return part
        return value

    def _after_restore(self) -> None:
        self.orders.publish_instruments()

    # -- what was found -----------------------------------------------------------------------------------------

    @property
    def verdict(self) -> str:
        """`breach`, `holds`, or `unknown` when the logs hold no execution report that could be evaluated."""
        if self.breach_count:
            return "breach"
        return "holds" if self.orders.executions and not self.is_undecided else "unknown"

    @property
    def is_undecided(self) -> bool:
        """Whether too large a share of the messages could not be used to say that every invariant holds."""
        return self.unusable > self.unusable_max * max(self.messages, self.unusable)

    def list_notes(self) -> list[str]:
        """Return the limits of the verdict that follow from the logs, in sentences."""
        notes = []
        if self.unusable:
            share = 100 * self.unusable / max(self.messages, self.unusable)
            notes.append(
                f"{self.unusable:,} messages could not be used ({share:.3g} % of them), the first at "
                f"{self.first_unusable}"
            )
        if self.framing.unverified:
            notes.append(
                f"{self.framing.unverified} messages came without CheckSum (10) or BodyLength (9): taken as they are"
            )
        if self.sessions.copy_count:
            notes.append(f"{self.sessions.copy_count} messages are in the logs more than once: taken once")
        gaps = sum(
            direction.gaps
            for session in self.sessions.by_name.values()
            for direction in (session.forward, session.reverse)
        )
        if gaps:
            notes.append(f"{gaps} gaps in the message numbers may be the logs' own: what they hide is not judged")
        return notes

    def as_json(self) -> dict[str, Any]:
        """Return the result as one object."""
        return {
            "verdict": self.verdict,
            "files": self.files,
            "messages": self.messages,
            "executions": self.orders.executions,
            "orders": self.orders.order_count,
            "sessions": len(self.sessions.by_name),
            "breaches": [_to_dict(breach) for breach in self.breaches],
            "skipped": [_to_dict(skipped) for skipped in self.skipped],
            "breach_count": self.breach_count,
            "skipped_count": self.skipped_count,
            "unusable": self.unusable,
            "notes": self.list_notes(),
            "catalogue": {
                "digest": self.catalogue.digest,
                "invariants": len(self.catalogue.invariants),
                "judged": sorted(self.judged_catalogue.invariants),
            },
        }

    # -- inside -------------------------------------------------------------------------------------------------

    def _take_message(self, fields: FieldMap | str, line: tuple[int, int]) -> None:
        self.messages += 1
        try:
            ready = self.sessions.take_message(fields, line)  # type: ignore[arg-type]
        except ValueError as problem:
            self._skip_line(line, str(problem))
            self._count_unusable(line)
            return
        for message in ready:
            self._judge_message(message)

    def _judge_message(self, message: LogMessage) -> None:
        try:
            self.orders.read(message)
        except (ReportError, NumberError) as problem:
            self._skip_line(message.line, f"{_NAMES.get(message.kind, 'message')}: {problem}")
            self._count_unusable(message.line)

    def _skip_line(self, line: tuple[int, int], reason: str) -> None:
        self.sessions.mark_break()
        self.skipped_count += 1
        if len(self.skipped) < LISTED_MAX:
            self.skipped.append(SkippedLine(line=line[1], reason=reason, file=self._file_of(line)))

    def _count_unusable(self, line: tuple[int, int]) -> None:
        """Count a message that may be about an order and that nothing could be learned from."""
        self.unusable += 1
        if not self.first_unusable:
            file = self._file_of(line)
            self.first_unusable = f"{file}:{line[1]}" if file else f"line {line[1]}"

    def _file_of(self, line: tuple[int, int]) -> str:
        return self.files[line[0]] if len(self.files) > 1 else ""

    def _record_breach(self, breach: Breach, check: Check) -> None:
        line = self.orders.current_line
        mark = (breach.invariant, breach.key, line[1] if breach.kind == "Link" else 0)
        if mark in self._reported:
            return
        self._reported.add(mark)
        self.breach_count += 1
        if len(self.breaches) < LISTED_MAX:
            self.breaches.append(
                AuditBreach(
                    invariant=breach.invariant,
                    key=breach.key,
                    line=line[1],
                    explanation=breach.explanation,
                    file=self._file_of(line),
                )
            )
        if self.on_breach is not None:
            self.on_breach(breach)

    def _report_missing_number(self, message: LogMessage, expected: int) -> None:
        """Report a missing sequence number to the catalogue: the link before it, and the link after this message."""
        self.orders.current_line = message.line
        name = message.direction.session.name
        table = ("gateway", Link)
        self.monitor.cause = "sequence"
        if name in self.monitor.records(Link, "gateway"):
            self.monitor.tables.forget_record(table, name)
        before = Link(name=name, is_up=True, in_seq=expected - 1, change=LinkState.LOGON)
        for link in (before, Link(name=name, is_up=True, in_seq=message.seq or 0)):
            self.monitor.mutate("gateway", link, 0, {})


_NAMES: Final = {
    b"8": "execution report",
    b"9": "cancel reject",
    b"D": "new order",
    b"F": "cancel request",
    b"G": "replace request",
}


def _to_dict(finding: AuditBreach | SkippedLine) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(finding)
    return fields
