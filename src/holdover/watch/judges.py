"""What judges the lines of a source: a guard's journal and its like as mutations, a FIX log as an audit does."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, Protocol

import msgspec

from holdover.audit import Audit
from holdover.catalogue import Boundary, Catalogue, Frozen
from holdover.model import Record, Request, scope_of
from holdover.runtime import Breach, CellCounter, Monitor
from holdover.runtime.axes import FreezeLevel, axes_in_use
from holdover.runtime.layout import Check, Touched
from holdover.runtime.monitor import kinds_by_name

_BOUNDARIES: Final = frozenset(("begin", "end", "overnight", "restart", "disconnect", "reconnect", "reconciled"))
_JUDGED: Final = _BOUNDARIES | {"settled", "restore"}
_TRANSITION: Final = "transition:"
_RECOVERED: Final = ("orders", "positions", "ledger")


def _tells(what: object) -> bool:
    return isinstance(what, str) and (what in _JUDGED or what.startswith(_TRANSITION))


class Judge(Protocol):
    """Judges lines. `settled` says whether nothing is half done, so that a memory may be kept; `skipped` what could
    not be used, in sentences, since it was last emptied."""

    skipped: list[str]
    on_breach: Callable[[Breach], None]

    @property
    def settled(self) -> bool:
        """Whether the last line ended a step."""

    @property
    def mutations(self) -> int:
        """How many mutations have been judged."""

    @property
    def monitor(self) -> Monitor:
        """What judges them."""

    def line(self, line: bytes, number: int) -> None:
        """Judge one line."""

    def end(self) -> None:
        """Nothing more will come."""

    def dump(self) -> bytes:
        """The memory, for `load`."""

    def load(self, memory: bytes) -> None:
        """Take up a memory. Raises `ValueError` when it is damaged."""


class _NothingFrozen(Frozen):
    def forbids(self, request: Request) -> str:
        return ""


class MutationJudge:
    """Mutations as a journal says them: `{"subsystem": ..., "kind": ..., "record": {...}}`, one a line.

    A journal marks the last mutation of a step with `settled`. With `alone`, for lines that come through a pipe, one
    that says nothing of it is a step by itself. With `once`, for lines that may come again, one was judged before
    whose `seq` is not above the last one's and whose time is not later: a guard that begins its numbers anew does so
    at a later time.
    """

    def __init__(self, catalogue: Catalogue, *, alone: bool = False, once: bool = False) -> None:
        self.skipped: list[str] = []
        self.on_breach: Callable[[Breach], None] = lambda breach: None
        # A journal tells a freeze before the mutation that has caused it, so what is frozen just then is not known.
        cells = CellCounter([one for one in axes_in_use() if one is not FreezeLevel])
        self.monitor = Monitor(catalogue, self._breached, _NothingFrozen(), cells=cells)
        self._kinds = kinds_by_name()
        self._alone, self._once = alone, once
        self._touched: Touched = {}
        self._seq, self._time_ns = -1, 0
        self._said_since: list[bytes] = []

    @property
    def settled(self) -> bool:
        """Whether the last line ended a step."""
        return not self._touched

    @property
    def mutations(self) -> int:
        """How many mutations have been judged."""
        return self.monitor.mutations

    def line(self, line: bytes, number: int) -> None:
        """Judge one line."""
        if not line.strip():
            return
        try:
            told = msgspec.json.decode(line)
            if not isinstance(told, dict):
                raise ValueError("an object was expected")
            time_ns, seq = int(told.get("time_ns", 0)), told.get("seq")
            if "record" in told:
                self._mutation(told, time_ns, seq)
            elif _tells(told.get("what")) and not self._again(seq, time_ns, line):
                self._said(told, time_ns)
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as problem:
            self.skipped.append(f"line {number} is no mutation: {problem}")

    def _mutation(self, told: dict[str, Any], time_ns: int, seq: int | None) -> None:
        record = self._record(told)
        subsystem = str(told["subsystem"])
        if self._again(seq, time_ns):
            return
        monitor = self.monitor
        if time_ns >= monitor.next_ns:
            monitor.cause = "tick"
            monitor.tick(time_ns)
        monitor.cause = str(told.get("cause", ""))
        monitor.mutate(subsystem, record, time_ns, self._touched)
        if told.get("settled", self._alone):
            self._settle(time_ns)

    def _again(self, seq: int | None, time_ns: int, said: bytes = b"") -> bool:
        """Whether a line was judged before. What is no mutation has the number of the last one before it."""
        if seq is None or not self._once:
            return False
        mark = blake2b(said.strip(), digest_size=16).digest() if said else b""
        if time_ns <= self._time_ns and (seq < self._seq or (seq == self._seq and mark in (b"", *self._said_since))):
            return True
        if seq != self._seq:
            self._said_since.clear()
        if said:
            self._said_since.append(mark)
        self._seq, self._time_ns = seq, max(time_ns, self._time_ns)
        return False

    def _said(self, told: dict[str, Any], time_ns: int) -> None:
        what, detail = str(told.get("what", "")), str(told.get("detail", ""))
        if what == "settled":
            self._settle(time_ns)
        elif what == "restore":
            records = [self._record(one) for one in told.get("restored", [])]
            self.monitor.cause = "restore"
            self.monitor.restore(detail, records, time_ns, self._touched)
        elif what.startswith(_TRANSITION):
            self.monitor.cells.transition(what.removeprefix(_TRANSITION), detail)
        elif what in _BOUNDARIES:
            self._settle(time_ns)
            self._came_by(what, detail)
            self.monitor.cause = what
            recovered = _RECOVERED if what == "reconciled" else ()
            self.monitor.boundary(Boundary(what, detail, time_ns), recovered=recovered)

    def _came_by(self, what: str, detail: str) -> None:
        """A boundary is a transition, too, unless a harness has told that one just before it, with its kind."""
        cells = self.monitor.cells
        if cells.last.partition(":")[0] == what:
            cells.tell(what, detail)
        elif cells.transition(what, detail) and what == "restart":
            cells.last = what  # of which kind it was is not known here

    def _record(self, told: dict[str, Any]) -> Record:
        kind = self._kinds.get(str(told.get("kind")))
        if kind is None:
            raise ValueError(f"kind {told.get('kind')!r} is none that is known here")
        record: Record = msgspec.convert(told["record"], kind)
        return record

    def _settle(self, time_ns: int) -> None:
        touched, self._touched = self._touched, {}
        self.monitor.settle(touched, time_ns)

    def _breached(self, breach: Breach, check: Check) -> None:
        self.on_breach(located(self.monitor, breach, check.entry.scope))

    def end(self) -> None:
        """What is settled by the end of its step is settled now."""
        self._settle(self.monitor.now_ns)

    def dump(self) -> bytes:
        """The memory, for `load`."""
        return msgspec.msgpack.encode([self._seq, self._time_ns, self._said_since, self.monitor.dump()])

    def load(self, memory: bytes) -> None:
        """Take up a memory. Raises `ValueError` when it is damaged."""
        try:
            self._seq, self._time_ns, self._said_since, held = msgspec.msgpack.decode(
                memory, type=tuple[int, int, list[bytes], bytes]
            )
        except msgspec.MsgspecError as problem:
            raise ValueError(f"the watch's memory is damaged: {problem}") from problem
        self.monitor.load(held)


class FixJudge:
    """A FIX log, judged as `holdover audit` does."""

    settled = True

    def __init__(self, catalogue: Catalogue, name: str) -> None:
        self.skipped: list[str] = []
        self.on_breach: Callable[[Breach], None] = lambda breach: None
        self.audit = Audit(catalogue)
        self.audit.on_breach = self._breached
        self.audit.begin(name)
        self._catalogue = catalogue

    @property
    def mutations(self) -> int:
        """How many mutations have been judged."""
        return self.audit.monitor.mutations

    @property
    def monitor(self) -> Monitor:
        """What judges them."""
        return self.audit.monitor

    def line(self, line: bytes, number: int) -> None:
        """Judge one line."""
        self.audit.lines((line,), number)
        if self.audit.skipped:
            self.skipped += [f"line {one.line}: {one.reason}" for one in self.audit.skipped]
            self.audit.skipped.clear()

    def _breached(self, breach: Breach) -> None:
        scope = self._catalogue.invariants[breach.invariant].entry.scope
        self.on_breach(located(self.audit.monitor, breach, scope))

    def end(self) -> None:
        """Judge what was held back for messages that never came."""
        self.audit.end()

    def dump(self) -> bytes:
        """The memory, for `load`."""
        return self.audit.dump()

    def load(self, memory: bytes) -> None:
        """Take up a memory. Raises `ValueError` when it is damaged."""
        self.audit.load(memory)


def located(monitor: Monitor, breach: Breach, scope: str) -> Breach:
    """The breach with the scope that it affects."""
    record = next(
        (
            kept[breach.key]
            for table, kept in monitor.layout.tables.items()
            if table[0] == breach.subsystem and table[1].__name__ == breach.kind and breach.key in kept
        ),
        None,
    )
    return msgspec.structs.replace(breach, scope=scope_of(scope, breach.subsystem, record))
