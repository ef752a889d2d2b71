"""Judges: evaluate the lines of a source, a guard's journal as mutations or a FIX log as an audit."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, ClassVar, Final, Protocol

import msgspec

from holdover.audit import Audit
from holdover.audit.audit import UNUSABLE_MAX
from holdover.catalogue import Boundary, Catalogue, Frozen
from holdover.model import Record, Request, scope_of
from holdover.runtime import Breach, CellCounter, Monitor
from holdover.runtime.axes import FreezeLevelAxis, axes_in_use
from holdover.runtime.check import Check, Touched
from holdover.runtime.journal import find_version_problem
from holdover.runtime.memory import kinds_by_name
from holdover.state import DECODE_ERRORS, StateError, Stateful, StoredFormat, decode_stored, encode_stored

_BOUNDARIES: Final = frozenset(("begin", "end", "overnight", "restart", "disconnect", "reconnect", "reconciled"))
_JUDGED: Final = _BOUNDARIES | {"settled", "restore"}
_TRANSITION: Final = "transition:"
_PROBLEM_MAX: Final = 300
_RECOVERED: Final = ("orders", "positions", "ledger")


def _is_judged_event(event: object) -> bool:
    return isinstance(event, str) and (event in _JUDGED or event.startswith(_TRANSITION))


class Judge(Protocol):
    """Evaluates lines.

    `is_settled` is true when no step is open, so that the state may be saved. `skipped` lists the unusable lines,
    in sentences, since it was last emptied.
    """

    skipped: list[str]
    on_breach: Callable[[Breach], None]

    @property
    def is_settled(self) -> bool:
        """Whether the last line ended a step."""

    @property
    def mutations(self) -> int:
        """The number of mutations evaluated."""

    @property
    def is_undecided(self) -> bool:
        """Whether too large a share of the lines could not be used to say that every invariant holds."""

    @property
    def monitor(self) -> Monitor:
        """The monitor that evaluates the mutations."""

    def judge_line(self, line: bytes, number: int) -> None:
        """Evaluate one line."""

    def end(self) -> None:
        """End the source: no more lines follow."""

    def to_bytes(self) -> bytes:
        """Return the state, for `restore_bytes`."""

    def restore_bytes(self, data: bytes) -> None:
        """Restore a state. Raises `StateError` when it is damaged or of another version."""


JUDGE_FORMAT: Final = StoredFormat(
    name="memory of a watch", version=2, next_step="remove the state folder to begin again at the start of the source"
)


class MutationJudgeState(msgspec.Struct):
    """The state of a judge between two steps."""

    seq: int
    time_ns: int
    event_digests: list[bytes]
    refusal: str
    monitor: bytes


class _WatchFreezes(Frozen):
    def forbids(self, request: Request) -> str:
        return ""


class MutationJudge(Stateful[MutationJudgeState]):
    """Evaluates mutations in the form of a journal: `{"subsystem": ..., "kind": ..., "record": {...}}`, one per line.

    A journal marks the last mutation of a step with `settled`. With `line_is_step`, for lines from a pipe, a
    mutation without that field is a step of its own. With `skip_repeats`, for lines that may come again, the
    judge skips a line whose `seq` is not above the last one and whose time is not later; a guard that restarts
    its numbers does so at a later time.
    """

    State = MutationJudgeState
    DERIVED: ClassVar = {
        "skipped": "results of this process, which the watch takes away",
        "on_breach": "a function of the watch",
        "_kinds": "the kinds of records defined here",
        "_line_is_step": "given when the judge is made",
        "_line_count": "a count of this process, for its verdict",
        "_unusable_count": "a count of this process, for its verdict",
        "_skip_repeats": "given when the judge is made",
        "_touched": "empty between two steps, and nothing is stored inside one",
    }

    def __init__(self, catalogue: Catalogue, *, line_is_step: bool = False, skip_repeats: bool = False) -> None:
        self.skipped: list[str] = []
        self.on_breach: Callable[[Breach], None] = lambda breach: None
        # A journal holds a freeze before the mutation that caused it, so the freeze level at that point is unknown.
        cells = CellCounter([axis for axis in axes_in_use() if axis is not FreezeLevelAxis])
        self.monitor = Monitor(catalogue, self._report_breach, _WatchFreezes(), cells=cells)
        self._kinds = kinds_by_name()
        self._line_is_step, self._skip_repeats = line_is_step, skip_repeats
        self._touched: Touched = {}
        self._seq, self._time_ns = -1, 0
        self._event_digests: list[bytes] = []
        self._refusal = ""
        self._line_count = self._unusable_count = 0

    @property
    def is_settled(self) -> bool:
        """Whether the last line ended a step."""
        return not self._touched

    @property
    def mutations(self) -> int:
        """The number of mutations evaluated."""
        return self.monitor.mutations

    @property
    def is_undecided(self) -> bool:
        """Whether too large a share of the lines could not be used to say that every invariant holds."""
        return self._unusable_count > UNUSABLE_MAX * self._line_count

    def judge_line(self, line: bytes, number: int) -> None:
        """Evaluate one line."""
        if not line.strip():
            return
        self._line_count += 1
        try:
            entry = msgspec.json.decode(line)
            if not isinstance(entry, dict):
                raise ValueError("an object was expected")
            if "format" in entry:
                self._refusal = find_version_problem(entry)
                if self._refusal:
                    self.skipped.append(f"line {number} and all that follow: {self._refusal}")
            if self._refusal:
                self._unusable_count += 1
                return
            time_ns, seq = int(entry.get("time_ns", 0)), entry.get("seq")
            if "record" in entry:
                self._judge_mutation(entry, time_ns, seq)
            elif _is_judged_event(entry.get("what")) and not self._is_repeat(seq, time_ns, line):
                self._judge_event(entry, time_ns)
        except (*DECODE_ERRORS, ValueError, TypeError, KeyError) as problem:
            self._unusable_count += 1
            self.skipped.append(f"line {number} is no mutation: {str(problem)[:_PROBLEM_MAX]}")

    def _judge_mutation(self, entry: dict[str, Any], time_ns: int, seq: int | None) -> None:
        record = self._decode_record(entry)
        subsystem = str(entry["subsystem"])
        if self._is_repeat(seq, time_ns):
            return
        monitor = self.monitor
        if time_ns >= monitor.deadlines.next_ns:
            monitor.cause = "tick"
            monitor.tick(time_ns)
        monitor.cause = str(entry.get("cause", ""))
        monitor.mutate(subsystem, record, time_ns, self._touched)
        if entry.get("settled", self._line_is_step):
            self._settle(time_ns)

    def _is_repeat(self, seq: int | None, time_ns: int, line: bytes = b"") -> bool:
        """Whether a line was evaluated before.

        A line without a mutation has the number of the last mutation before it.
        """
        if seq is None or not self._skip_repeats:
            return False
        mark = blake2b(line.strip(), digest_size=16).digest() if line else b""
        if time_ns <= self._time_ns and (seq < self._seq or (seq == self._seq and mark in (b"", *self._event_digests))):
            return True
        if seq != self._seq:
            self._event_digests.clear()
        if line:
            self._event_digests.append(mark)
        self._seq, self._time_ns = seq, max(time_ns, self._time_ns)
        return False

    def _judge_event(self, entry: dict[str, Any], time_ns: int) -> None:
        event, detail = str(entry.get("what", "")), str(entry.get("detail", ""))
        if event == "settled":
            self._settle(time_ns)
        elif event == "restore":
            records = [self._decode_record(item) for item in entry.get("restored", [])]
            self.monitor.cause = "restore"
            self.monitor.restore(detail, records, time_ns, self._touched)
        elif event.startswith(_TRANSITION):
            self.monitor.cells.count_transition(event.removeprefix(_TRANSITION), detail)
        elif event in _BOUNDARIES:
            self._settle(time_ns)
            self._came_by(event, detail)
            self.monitor.cause = event
            recovered = _RECOVERED if event == "reconciled" else ()
            self.monitor.boundary(Boundary(event, detail, time_ns), recovered=recovered)

    def _came_by(self, event: str, detail: str) -> None:
        """Count a boundary as a transition, unless a harness reported that transition just before, with its kind."""
        cells = self.monitor.cells
        if cells.last_transition.partition(":")[0] == event:
            cells.notify(event, detail)
        elif cells.count_transition(event, detail) and event == "restart":
            cells.last_transition = event  # the kind of the restart is unknown here

    def _decode_record(self, entry: dict[str, Any]) -> Record:
        kind = self._kinds.get(str(entry.get("kind")))
        if kind is None:
            raise ValueError(f"kind {entry.get('kind')!r} is none that is known here")
        record: Record = msgspec.convert(entry["record"], kind)
        return record

    def _settle(self, time_ns: int) -> None:
        touched, self._touched = self._touched, {}
        self.monitor.settle(touched, time_ns)

    def _report_breach(self, breach: Breach, check: Check) -> None:
        self.on_breach(with_scope(self.monitor, breach, check.entry.scope))

    def end(self) -> None:
        """Settle the last step."""
        self._settle(self.monitor.now_ns)

    def to_bytes(self) -> bytes:
        """Return the state, for `restore_bytes`."""
        if self._touched:
            raise StateError("a step is open: the state of a judge is stored only between two steps")
        return encode_stored(JUDGE_FORMAT, self.to_state())

    def restore_bytes(self, data: bytes) -> None:
        """Restore a state. Raises `StateError` when it is damaged or of another version."""
        self.take_state(decode_stored(JUDGE_FORMAT, MutationJudgeState, data))

    def _encode_field(self, name: str, value: Any) -> Any:
        return value.to_bytes() if name == "monitor" else value

    def _decode_field(self, name: str, value: Any) -> Any:
        if name != "monitor":
            return value
        self.monitor.restore_bytes(value)
        return self.monitor


class FixJudge:
    """Evaluates a FIX log as `holdover audit` does."""

    is_settled = True

    def __init__(self, catalogue: Catalogue, name: str) -> None:
        self.skipped: list[str] = []
        self.on_breach: Callable[[Breach], None] = lambda breach: None
        self.audit = Audit(catalogue)
        self.audit.on_breach = self._report_breach
        self.audit.begin_log(name)
        self._catalogue = catalogue

    @property
    def mutations(self) -> int:
        """The number of mutations evaluated."""
        return self.audit.monitor.mutations

    @property
    def is_undecided(self) -> bool:
        """Whether too large a share of the messages could not be used to say that every invariant holds."""
        return self.audit.is_undecided

    @property
    def monitor(self) -> Monitor:
        """The monitor that evaluates the mutations."""
        return self.audit.monitor

    def judge_line(self, line: bytes, number: int) -> None:
        """Evaluate one line."""
        self.audit.read_lines((line,), number)
        if self.audit.skipped:
            self.skipped += [f"line {skipped.line}: {skipped.reason}" for skipped in self.audit.skipped]
            self.audit.skipped.clear()
        self.audit.breaches.clear()  # they were reported

    def _report_breach(self, breach: Breach) -> None:
        scope = self._catalogue.invariants[breach.invariant].entry.scope
        self.on_breach(with_scope(self.audit.monitor, breach, scope))

    def end(self) -> None:
        """Evaluate the messages that waited for missing numbers."""
        self.audit.end()

    def to_bytes(self) -> bytes:
        """Return the state, for `restore_bytes`."""
        return self.audit.to_bytes()

    def restore_bytes(self, data: bytes) -> None:
        """Restore a state. Raises `StateError` when it is damaged or of another version."""
        self.audit.restore_bytes(data)


def with_scope(monitor: Monitor, breach: Breach, scope: str) -> Breach:
    """Return the breach with the scope that it affects."""
    record = next(
        (
            records[breach.key]
            for table, records in monitor.all_records().items()
            if table[0] == breach.subsystem and table[1].__name__ == breach.kind and breach.key in records
        ),
        None,
    )
    return msgspec.structs.replace(breach, scope=scope_of(scope, breach.subsystem, record))
