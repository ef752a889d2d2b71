"""One run of a shadow: component silence, faults and the healthy clock. The state is saved whole after each check."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from holdover.model import OrdStatus
from holdover.recording.calendar import is_session
from holdover.runtime.files import lock_file, make_private_directory
from holdover.shadow.clock import HealthyClock
from holdover.shadow.components import (
    FAULTS,
    ComponentFault,
    ComponentMonitor,
    ComponentTable,
    FaultHistory,
    classify_fault,
)
from holdover.shadow.config import ShadowConfig
from holdover.shadow.probe import ProbeThreads
from holdover.shadow.state import (
    BREACHES_MAX,
    NIGHTS_MAX,
    ComponentStatus,
    OrderComparison,
    ShadowBreach,
    ShadowState,
    ShadowStateError,
    read_state,
)
from holdover.state import DECODE_ERRORS

_CLOSED: Final = frozenset({"2", "4", "8", "C"})


@contextlib.contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Lock the directory of a shadow for one process. Raises `ShadowStateError` when another process has it."""
    make_private_directory(directory)
    file = lock_file(directory / "shadow.lock")
    if file is None:
        raise ShadowStateError(f"{directory}: another shadow runs on this directory; stop it first, or take another")
    with file:
        yield


class ShadowRun:
    """A shadow between start and end. `monotonic` and `wall` return ns.

    Raises `ShadowStateError` when the saved state cannot be read or belongs to another kind of run.
    """

    def __init__(
        self,
        config: ShadowConfig,
        *,
        components: list[ComponentTable] | None = None,
        monotonic: Callable[[], int] = time.monotonic_ns,
        wall: Callable[[], int] = time.time_ns,
        virtual: bool = False,
        kind: str = "",
        instruments: Sequence[str] = (),
    ) -> None:
        self.config, self.monotonic, self.wall = config, monotonic, wall
        try:
            self.state = read_state(config.state_path)
        except ShadowStateError:
            if config.state_path.exists():
                raise
            self.state = ShadowState(virtual=virtual, began_ns=wall())
        if self.state.virtual != virtual:
            raise ShadowStateError(
                f"{config.state_path}: was counted on the {'virtual' if self.state.virtual else 'real'} clock, "
                "and the two cannot be added up; take another [shadow] directory"
            )
        if kind and (self.state.kind or kind) != kind:
            raise ShadowStateError(
                f"{config.state_path}: is of a candidate that was {self.state.kind}, this one is {kind}, and the two "
                f"cannot be added up; take another [shadow] directory"
            )
        if instruments and (self.state.instruments or list(instruments)) != list(instruments):
            raise ShadowStateError(
                f"{config.state_path}: was counted on {', '.join(self.state.instruments)}, and [input] says "
                f"{', '.join(instruments)}; take another [shadow] directory"
            )
        self.state.kind = kind or self.state.kind
        self.state.instruments = list(instruments) or self.state.instruments
        self.state.stopped = False
        self._tables = {table.name: table for table in (components if components is not None else config.components)}
        self.components = ComponentMonitor(list(self._tables.values()))
        self.clock = HealthyClock(self.state.clock, round(config.clock.deadline_s * 1e9))
        self._clock_offset_ns: int | None = None

    def record_fault(self, name: str, detail: str, component: str = "") -> None:
        """Record a fault of a class; it resets the clock when `resets_on` lists it.

        Raises `KeyError` for an unknown class.
        """
        if name not in FAULTS:
            raise KeyError(f"no class of fault is called {name!r}; there are {', '.join(FAULTS)}")
        now_ns = self.wall()
        self.state.faults.setdefault(name, FaultHistory()).add(
            ComponentFault(time_ns=now_ns, component=component, detail=detail)
        )
        if name == "breach":
            self.state.breach_count += 1
            self.state.breaches = [*self.state.breaches, ShadowBreach(time_ns=now_ns, detail=detail)][-BREACHES_MAX:]
        if name in self.config.clock.resets_on:
            self.clock.reset(name, detail, now_ns)
            self.state.breaches_since_reset = 0
        if name == "breach":
            # A breach that resets the clock starts a new count; one that does not reset it blocks the cutover.
            self.state.breaches_since_reset += name not in self.config.clock.resets_on

    def check(self, *, save: bool = True) -> bool:
        """Check silence, the host's clock and the healthy clock once. Returns whether everything is healthy now."""
        now_ns, wall_ns = self.monotonic(), self.wall()
        for name, table in self._tables.items():
            if table.calendar and not is_session(table.calendar, wall_ns):
                self.components.mark_alive(name, now_ns)
        silent = self.components.silent_components(now_ns)
        for name in self.components.newly_silent_components(silent):
            self.record_fault("silence", f"nothing for {silent[name]:.0f} s", name)
        if (
            self._clock_offset_ns is not None
            and abs(wall_ns - now_ns - self._clock_offset_ns) > self.config.clock.skew_ms * 1e6
        ):
            moved_s = (wall_ns - now_ns - self._clock_offset_ns) / 1e9
            self.record_fault("clock-skew", f"the host's clock moved by {moved_s:+.3f} s", "host")
        self._clock_offset_ns = wall_ns - now_ns
        ailing = self.components.refusing_components
        healthy = not silent and not ailing
        self.clock.tick(now_ns, healthy=healthy)
        self.state.components = [
            ComponentStatus(
                name=name,
                silent_s=None if silent.get(name) == float("inf") else round(silent.get(name, 0.0), 3),
                deadline_s=table.deadline_s,
                healthy=name not in silent and name not in ailing,
            )
            for name, table in self._tables.items()
        ]
        self.state.checked_ns = wall_ns
        if save:
            self.save()
        return healthy

    def take_findings(self, probes: ProbeThreads) -> None:
        """Record what the probes have found since the last call."""
        for component, fault, detail in probes.drain_findings():
            if fault:
                self.record_fault(fault, detail, component)
            else:
                self.components.mark_alive(component, self.monotonic())
        self.components.refusing_components = {probe.table.name for probe in probes.probes if probe.refusing}

    def save(self) -> None:
        """Write the state: whole and synced."""
        self.state.save(self.config.state_path)

    def record_comparison(self, comparison: OrderComparison) -> None:
        """Record a comparison; it is a fault when more orders differ without an explanation than before."""
        before = self.state.compared.unexplained if self.state.compared is not None else 0
        self.state.compared = comparison
        if comparison.unexplained > before:
            first = next((difference for difference in comparison.first if not difference.reason), None)
            detail = f", first {first.order} in {first.field}" if first is not None else ""
            self.record_fault(
                "divergence", f"unexplained are {comparison.unexplained}, {before} before{detail}", "candidate"
            )

    def record_night(self, carried: dict[str, Any]) -> None:
        """Record what was carried over a night."""
        summary = {name: carried[name] for name in ("after", "open_orders", "partially_filled", "positions", "frozen")}
        self.state.nights = [*self.state.nights, summary][-NIGHTS_MAX:]

    def record_note(self, line: bytes) -> None:
        """Apply a line of the notes: `{"component": ..., "fault": ..., "detail": ...}`.

        Unreadable lines are ignored.
        """
        try:
            note = msgspec.json.decode(line, type=ComponentNote)
        except DECODE_ERRORS:
            return
        if note.component in self._tables and not note.fault:
            self.components.mark_alive(note.component, self.monotonic())
        if note.fault in FAULTS:
            self.record_fault(note.fault, note.detail, note.component)


class ComponentNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A note from another process: a component is alive or has a fault."""

    component: str
    fault: str = ""
    detail: str = ""


class _CandidateJournalLine(msgspec.Struct, kw_only=True, gc=False):
    seq: int = 0
    time_ns: int = 0
    what: str = ""
    detail: str = ""
    subsystem: str = ""
    kind: str = ""
    record: dict[str, Any] = {}


_RELEVANT_MARKERS: Final = (b'"kind":"Order"', b'"kind":"Link"', b'"kind":"Book"', b'"what":"')


class ShadowCounts(Protocol):
    """Where the faults, orders and nights of a journal are counted."""

    state: ShadowState

    def record_fault(self, name: str, detail: str, component: str = "") -> None:
        """See `ShadowRun.record_fault`."""

    def record_night(self, carried: dict[str, Any]) -> None:
        """See `ShadowRun.record_night`."""


class DiscardedCounts:
    """Discards all counts: for lines that were counted before."""

    def __init__(self) -> None:
        self.state = ShadowState()

    def record_fault(self, name: str, detail: str, component: str = "") -> None:
        """Does nothing."""

    def record_night(self, carried: dict[str, Any]) -> None:
        """Does nothing."""


class CandidateJournalReader:
    """Reads the candidate's journal for faults, orders and nights. `counts` may be replaced between two lines."""

    def __init__(self, counts: ShadowCounts, *, nights: bool) -> None:
        self.counts, self._counts_nights = counts, nights
        self._decode = msgspec.json.Decoder(_CandidateJournalLine).decode
        self._links: dict[str, tuple[int, int]] = {}
        self._open_orders: dict[str, int] = {}
        self._disabled_books: set[str] = set()

    def read_line(self, line: bytes) -> None:
        """Read one complete line.

        A line that is not a journal line is a fault when its words match a class, else ignored.
        """
        if not any(marker in line for marker in _RELEVANT_MARKERS):
            self.counts.state.mutations += b'"kind":"' in line
            return
        try:
            entry = self._decode(line)
        except DECODE_ERRORS:
            text = line.decode("utf-8", "replace").strip()
            if (name := classify_fault(text)) != "":
                self.counts.record_fault(name, text[:200], "candidate")
            return
        if entry.what:
            self._count_event(entry)
            return
        self.counts.state.mutations += 1
        {"Order": self._count_order, "Link": self._count_link, "Book": self._count_book}[entry.kind](entry)

    def _count_event(self, entry: _CandidateJournalLine) -> None:
        if entry.what == "breach":
            self.counts.record_fault("breach", entry.detail, "candidate")
        elif entry.what == "disconnect":
            self.counts.record_fault("disconnect", entry.detail, "candidate")
        elif entry.what == "overnight" and self._counts_nights:
            partial = sum(1 for cum in self._open_orders.values() if cum)
            night = {"after": entry.detail, "open_orders": len(self._open_orders), "partially_filled": partial}
            self.counts.record_night({**night, "positions": {}, "frozen": []})

    def _count_order(self, entry: _CandidateJournalLine) -> None:
        if entry.subsystem != "orders":
            return
        key = str(entry.record.get("root_cl_ord_id", ""))
        status = str(entry.record.get("ord_status", OrdStatus.PENDING_NEW.value))
        if (
            key not in self._open_orders
            and entry.record.get("cum_qty", 0) == 0
            and status == OrdStatus.PENDING_NEW.value
        ):
            self.counts.state.orders += 1
        if status in _CLOSED:
            self._open_orders.pop(key, None)
        else:
            self._open_orders[key] = int(entry.record.get("cum_qty", 0))
        if status == OrdStatus.REJECTED.value:
            self.counts.record_fault("reject", f"order {key}", "candidate")

    def _count_link(self, entry: _CandidateJournalLine) -> None:
        name, epoch, seq = entry.record.get("name", ""), entry.record.get("epoch", 0), entry.record.get("in_seq", 0)
        before = self._links.get(name)
        self._links[name] = (epoch, seq)
        if entry.record.get("change") == "gap-fill":
            self.counts.record_fault("gap", f"{name}: filled up to {seq}", name)
        elif before is not None and before[0] == epoch and seq > before[1] + 1:
            self.counts.record_fault("gap", f"{name}: {seq} came after {before[1]}", name)

    def _count_book(self, entry: _CandidateJournalLine) -> None:
        symbol, reason = str(entry.record.get("symbol", "")), str(entry.record.get("reason", ""))
        is_disabled = not entry.record.get("trading", True) and "disabled" in reason
        if is_disabled and symbol not in self._disabled_books:
            self.counts.record_fault("disabled-book", f"{symbol}: {reason}", "venue")
        (self._disabled_books.add if is_disabled else self._disabled_books.discard)(symbol)
