"""One life of a shadow: what it hears, which faults it meets, what its clock counts; kept whole after each look."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from holdover.model import OrdStatus
from holdover.recording.calendar import is_session
from holdover.runtime.files import held_alone
from holdover.shadow.clock import HealthyClock
from holdover.shadow.components import FAULTS, Components, ComponentTable, Fault, Faults, fault_of
from holdover.shadow.config import ShadowConfig
from holdover.shadow.probe import Probes
from holdover.shadow.state import BREACHES_KEPT, NIGHTS_KEPT, BadState, Broke, Compared, Heard, State, read_state

_CLOSED: Final = frozenset({"2", "4", "8", "C"})


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold a shadow's directory: two would both write there. Raises `BadState` when another process has it."""
    directory.mkdir(parents=True, exist_ok=True)
    file = held_alone(directory / "shadow.lock")
    if file is None:
        raise BadState(f"{directory}: another shadow runs on this directory; stop it first, or take another")
    with file:
        yield


class Life:
    """A shadow between its start and its end. `monotonic` and `wall` give ns; `save` is called after each look."""

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
            self.state = read_state(config.state)
        except BadState:
            if config.state.exists():
                raise
            self.state = State(virtual=virtual, began_ns=wall())
        if self.state.virtual != virtual:
            raise BadState(
                f"{config.state}: was counted on the {'virtual' if self.state.virtual else 'real'} clock, and the two "
                f"cannot be added up; take another [shadow] directory"
            )
        if kind and (self.state.kind or kind) != kind:
            raise BadState(
                f"{config.state}: is of a candidate that was {self.state.kind}, this one is {kind}, and the two "
                f"cannot be added up; take another [shadow] directory"
            )
        if instruments and (self.state.instruments or list(instruments)) != list(instruments):
            raise BadState(
                f"{config.state}: was counted on {', '.join(self.state.instruments)}, and [input] says "
                f"{', '.join(instruments)}; take another [shadow] directory"
            )
        self.state.kind = kind or self.state.kind
        self.state.instruments = list(instruments) or self.state.instruments
        self.state.stopped = False
        self._tables = {table.name: table for table in (components if components is not None else config.components)}
        self.components = Components(list(self._tables.values()))
        self.clock = HealthyClock(self.state.clock, round(config.clock.deadline_s * 1e9))
        self._offset: int | None = None

    def fault(self, name: str, detail: str, component: str = "") -> None:
        """A fault of a class; it resets the clock where the configuration says so. Raises `KeyError` for another."""
        if name not in FAULTS:
            raise KeyError(f"no class of fault is called {name!r}; there are {', '.join(FAULTS)}")
        now = self.wall()
        self.state.faults.setdefault(name, Faults()).add(Fault(time_ns=now, component=component, detail=detail))
        if name == "breach":
            self.state.breach_count += 1
            self.state.breaches = [*self.state.breaches, Broke(time_ns=now, told=detail)][-BREACHES_KEPT:]
        if name in self.config.clock.resets_on:
            self.clock.reset(name, detail, now)
            self.state.breaches_since_reset = 0
        if name == "breach":
            # The breach that resets the clock is what this count of it begins after; any other stands in its way.
            self.state.breaches_since_reset += name not in self.config.clock.resets_on

    def look(self, *, save: bool = True) -> bool:
        """Look at everything once: silence, the host's clock, the healthy clock; whether all is healthy now."""
        now, wall = self.monotonic(), self.wall()
        for name, table in self._tables.items():
            if table.calendar and not is_session(table.calendar, wall):
                self.components.heard(name, now)
        silent = self.components.silent(now)
        for name in self.components.newly_silent(silent):
            self.fault("silence", f"nothing for {silent[name]:.0f} s", name)
        if self._offset is not None and abs(wall - now - self._offset) > self.config.clock.skew_ms * 1e6:
            moved = (wall - now - self._offset) / 1e9
            self.fault("clock-skew", f"the host's clock moved by {moved:+.3f} s", "host")
        self._offset = wall - now
        ailing = self.components.ailing
        healthy = not silent and not ailing
        self.clock.tick(now, healthy=healthy)
        self.state.components = [
            Heard(
                name=name,
                silent_s=None if silent.get(name) == float("inf") else round(silent.get(name, 0.0), 3),
                deadline_s=table.deadline_s,
                healthy=name not in silent and name not in ailing,
            )
            for name, table in self._tables.items()
        ]
        self.state.told_ns = wall
        if save:
            self.save()
        return healthy

    def ask(self, probes: Probes) -> None:
        """What the venues that are asked have answered since it was asked last."""
        for component, fault, detail in probes.found():
            if fault:
                self.fault(fault, detail, component)
            else:
                self.components.heard(component, self.monotonic())
        self.components.ailing = {one.table.name for one in probes.probes if one.refusing}

    def save(self) -> None:
        """Keep it, whole and synced."""
        self.state.save(self.config.state)

    def compared(self, found: Compared) -> None:
        """The orders were compared; a fault where more differ without an explanation than before."""
        before = self.state.compared.unexplained if self.state.compared is not None else 0
        self.state.compared = found
        if found.unexplained > before:
            first = next((one for one in found.first if not one.reason), None)
            told = f", first {first.order} in {first.field}" if first is not None else ""
            self.fault("divergence", f"unexplained are {found.unexplained}, {before} before{told}", "candidate")

    def night(self, carried: dict[str, Any]) -> None:
        """What was carried over a night."""
        told = {name: carried[name] for name in ("after", "open_orders", "partially_filled", "positions", "frozen")}
        self.state.nights = [*self.state.nights, told][-NIGHTS_KEPT:]

    def note(self, line: bytes) -> None:
        """A line of the notes: `{"component": ..., "fault": ..., "detail": ...}`. What cannot be read is left out."""
        try:
            told = msgspec.json.decode(line, type=Note)
        except msgspec.MsgspecError:
            return
        if told.component in self._tables and not told.fault:
            self.components.heard(told.component, self.monotonic())
        if told.fault in FAULTS:
            self.fault(told.fault, told.detail, told.component)


class Note(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody else tells a shadow: a component lives, or has met a fault."""

    component: str
    fault: str = ""
    detail: str = ""


class _Line(msgspec.Struct, kw_only=True, gc=False):
    seq: int = 0
    time_ns: int = 0
    what: str = ""
    detail: str = ""
    subsystem: str = ""
    kind: str = ""
    record: dict[str, Any] = {}


_WANTED: Final = (b'"kind":"Order"', b'"kind":"Link"', b'"kind":"Book"', b'"what":"')


class Counts(Protocol):
    """Where a journal's faults, orders and nights are counted."""

    state: State

    def fault(self, name: str, detail: str, component: str = "") -> None:
        """See `Life.fault`."""

    def night(self, carried: dict[str, Any]) -> None:
        """See `Life.night`."""


class Uncounted:
    """Counts nothing that anybody keeps: for lines that have been counted before."""

    def __init__(self) -> None:
        self.state = State()

    def fault(self, name: str, detail: str, component: str = "") -> None:
        """Nothing."""

    def night(self, carried: dict[str, Any]) -> None:
        """Nothing."""


class Journalled:
    """Reads the candidate's journal for faults, orders and nights. `into` may be changed between two lines."""

    def __init__(self, life: Counts, *, nights: bool) -> None:
        self.into, self._nights = life, nights
        self._decode = msgspec.json.Decoder(_Line).decode
        self._links: dict[str, tuple[int, int]] = {}
        self._open: dict[str, int] = {}
        self._shut: set[str] = set()

    def line(self, line: bytes) -> None:
        """One whole line. What is no journal line counts as a fault where its words are known, and else as nothing."""
        if not any(wanted in line for wanted in _WANTED):
            self.into.state.mutations += b'"kind":"' in line
            return
        try:
            told = self._decode(line)
        except msgspec.MsgspecError:
            said = line.decode("utf-8", "replace").strip()
            if (name := fault_of(said)) != "":
                self.into.fault(name, said[:200], "candidate")
            return
        if told.what:
            self._said(told)
            return
        self.into.state.mutations += 1
        {"Order": self._order, "Link": self._link, "Book": self._book}[told.kind](told)

    def _said(self, told: _Line) -> None:
        if told.what == "breach":
            self.into.fault("breach", told.detail, "candidate")
        elif told.what == "disconnect":
            self.into.fault("disconnect", told.detail, "candidate")
        elif told.what == "overnight" and self._nights:
            partial = sum(1 for cum in self._open.values() if cum)
            night = {"after": told.detail, "open_orders": len(self._open), "partially_filled": partial}
            self.into.night({**night, "positions": {}, "frozen": []})

    def _order(self, told: _Line) -> None:
        if told.subsystem != "orders":
            return
        key = str(told.record.get("root_cl_ord_id", ""))
        status = str(told.record.get("ord_status", OrdStatus.PENDING_NEW.value))
        if key not in self._open and told.record.get("cum_qty", 0) == 0 and status == OrdStatus.PENDING_NEW.value:
            self.into.state.orders += 1
        if status in _CLOSED:
            self._open.pop(key, None)
        else:
            self._open[key] = int(told.record.get("cum_qty", 0))
        if status == OrdStatus.REJECTED.value:
            self.into.fault("reject", f"order {key}", "candidate")

    def _link(self, told: _Line) -> None:
        name, epoch, seq = told.record.get("name", ""), told.record.get("epoch", 0), told.record.get("in_seq", 0)
        before = self._links.get(name)
        self._links[name] = (epoch, seq)
        if told.record.get("change") == "gap-fill":
            self.into.fault("gap", f"{name}: filled up to {seq}", name)
        elif before is not None and before[0] == epoch and seq > before[1] + 1:
            self.into.fault("gap", f"{name}: {seq} came after {before[1]}", name)

    def _book(self, told: _Line) -> None:
        symbol, reason = str(told.record.get("symbol", "")), str(told.record.get("reason", ""))
        shut = not told.record.get("trading", True) and "disabled" in reason
        if shut and symbol not in self._shut:
            self.into.fault("disabled-book", f"{symbol}: {reason}", "venue")
        (self._shut.add if shut else self._shut.discard)(symbol)
