"""The guard: runs the invariant catalogue inside a live system and freezes what a breach affects.

    guard = Guard.open("desk.toml")

    with guard.step("execution-report"):        # one cause
        guard.record("orders", order)           # a mutation: on-mutation invariants run here
        guard.record("positions", position)
                                                # the end of the step settles it
    if guard.permits(request):                  # the last check before the wire
        link.send(request)

On a breach, the freeze is on disk before `record` or the step returns, before the page, and before any other
message can leave. If the freeze cannot be written, the guard freezes the whole system in memory and reports
it. Only a thaw by a named operator ends a freeze.

A guard is composed of its steps (`step`), its freezes and thaws (`freeze_control`), the evidence of its breaches
(`evidence`), the monitor, and the services that run beside it (`guard_services`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import ClassVar

import msgspec

from holdover.catalogue import Boundary, Catalogue, Frozen
from holdover.catalogue.policy import OBSERVE, date_of
from holdover.model import Instrument, Query, Record, Request
from holdover.runtime.axes import Axis, import_axes
from holdover.runtime.cells import GUARD_CREATED_HOOKS, CellCounter
from holdover.runtime.channels import Channel, FileChannel, LogChannel
from holdover.runtime.config import GuardConfig, read_config
from holdover.runtime.database import StoreError
from holdover.runtime.evidence import BreachEvidence
from holdover.runtime.files import make_private_directory
from holdover.runtime.freeze_control import FreezeControl, ThawRefusedError
from holdover.runtime.freeze_store import Freeze, FreezeStore
from holdover.runtime.guard_folder import FolderLock, GuardFolder
from holdover.runtime.guard_memory import NOTHING_MARK
from holdover.runtime.guard_services import GuardServices
from holdover.runtime.journal import FlightRecorder, Journal
from holdover.runtime.journal_replay import replay_journal
from holdover.runtime.memory_file import read_memory_file
from holdover.runtime.monitor import Monitor
from holdover.runtime.observed_freezes import ObservedFreeze
from holdover.runtime.pager import EscalationLevel, Pager
from holdover.runtime.reach import Reach, list_reach, summarize_reach
from holdover.runtime.redaction import RedactionRules
from holdover.runtime.step import Step, StepRunner
from holdover.state import StateError, Stateful

__all__ = ["Guard", "GuardSettings", "Step", "ThawRefusedError"]

log = logging.getLogger("holdover.guard")


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a guard.

    `name` identifies the guard to others that share the store. `subsystems` declares those that must exist, such as
    `risk`, or `venue.Position` for one kind of record; without it those exist that were ever recorded.

    `axes` are those of the cell counter; None means the
    built-in and registered axes. With `bundles`, a folder, each breach leaves a bundle, redacted by `rules`. `levels`
    and `repeat_s` configure the pager. `recorder_size` is the number of mutations that the flight recorder keeps.
    `location` is the configuration file that names the guard in printed commands; None means its directory.
    """

    name: str = "guard"
    instruments: Sequence[Instrument] = ()
    subsystems: Sequence[str] = ()
    recorder_size: int = 256
    axes: Sequence[type[Axis]] | None = None
    bundles: Path | None = None
    rules: RedactionRules | None = None
    levels: Sequence[EscalationLevel] = ()
    repeat_s: float = 0.0
    location: Path | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a guard needs a name")
        if self.recorder_size < 0 or self.repeat_s < 0:
            raise ValueError("recorder_size and repeat_s must not be negative")


def read_saved_monitor(config: GuardConfig, catalogue: Catalogue) -> Monitor:
    """Return a monitor with what the guard of a configuration has recorded: its saved memory, then its journal.

    It does not open the store. Raises `StateError`, which names the file, for a damaged memory.
    """
    monitor = Monitor(catalogue, lambda breach, check: None, Frozen(), subsystems=config.guard.subsystems)
    folder = GuardFolder(config.directory, config.name)
    mark = NOTHING_MARK
    if folder.memory.exists():
        header, data = read_memory_file(folder.memory)
        try:
            monitor.restore_bytes(data)
        except StateError as problem:
            raise StateError(f"{folder.memory}: {problem}") from problem
        mark = header.mark
    replay_journal(monitor, folder.journal, mark)
    return monitor


class _GuardFreezes(Frozen):
    """The guard's freezes, as predicates may query them."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def forbids(self, request: Request) -> str:
        """Return the frozen scope that forbids the message, or an empty string."""
        return self._guard.forbids(request)


class GuardState(msgspec.Struct):
    """The state of a guard."""

    monitor: Monitor
    freezes: FreezeControl
    evidence: BreachEvidence
    steps: StepRunner
    recorder: FlightRecorder


class Guard(Stateful[GuardState]):
    """Monitor, freezes, pager and flight recorder of one system, in its own directory.

    The guard is safe to share between threads. `breaches` lists its breaches, oldest first.

    Args:
        directory: the folder of the store, the memory and the pages.
        settings: names and sizes; see `GuardSettings`.
        catalogue: the invariants; the built-in catalogue when None.
        clock: returns the time in nanoseconds since the epoch.
        channels: where pages go; a file in the directory and the log when None.
        journal: records every mutation.
        store: replaces the store in the directory.
    """

    State = GuardState
    DERIVED: ClassVar = {
        "directory": "where the guard was opened",
        "name": "a setting of the guard",
        "location": "where the guard was opened",
        "catalogue": "given when the guard is made",
        "clock": "a function of the guard's owner",
        "journal": "a file, which is only appended to",
        "store": "saved with the freezes, as the image of the store",
        "pager": "what it still has to deliver is in the store",
        "cells": "part of the monitor's state",
        "breaches": "the evidence's own list",
        "services": "threads and files of this process",
    }

    def __init__(
        self,
        directory: Path,
        settings: GuardSettings | None = None,
        *,
        catalogue: Catalogue | None = None,
        clock: Callable[[], int] = time.time_ns,
        channels: Sequence[Channel] | None = None,
        journal: Journal | None = None,
        store: FreezeStore | None = None,
    ) -> None:
        settings = settings if settings is not None else GuardSettings()
        self.directory, self.name = directory, settings.name
        self.location = settings.location or directory.absolute()
        self.catalogue = catalogue if catalogue is not None else Catalogue.load()
        self.clock, self.journal = clock, journal
        self.recorder = FlightRecorder(settings.recorder_size)
        self.cells = CellCounter(settings.axes)
        self.services = GuardServices(self)
        self.store = store or FreezeStore(directory / "guard.db", settings.name)
        if channels is None:
            channels = [FileChannel(directory / "pages.jsonl"), LogChannel()]
        self.pager = Pager(self.store, channels, clock, settings.levels, settings.repeat_s)
        self.freezes = FreezeControl(self)
        self.evidence = BreachEvidence(self, settings.bundles, settings.rules or RedactionRules.with_defaults())
        self.pager.redact = self.evidence.rules.redact_struct
        self.breaches = self.evidence.breaches
        self.monitor = Monitor(
            self.catalogue,
            self.evidence.handle_breach,
            _GuardFreezes(self),
            {instrument.symbol: instrument for instrument in settings.instruments},
            self.cells,
            settings.subsystems,
        )
        self.steps = StepRunner(self)
        self.freezes.load()
        if self.catalogue.mode == OBSERVE or self.catalogue.policies:
            self.freezes.observation.load()
        if self.freezes.cache.by_identity or self.evidence.last_number:
            self.freezes.image.mark_changed()
        for opened in list(GUARD_CREATED_HOOKS):
            opened(self)

    @classmethod
    def open(cls, config: str | Path | GuardConfig) -> Guard:
        """Open the guard that a TOML file describes.

        Loads a saved memory and continues it by the journal, so that the records of the previous process are still
        known, also after a kill. Raises `GuardConfigError` with every problem in the configuration, `StoreError` when
        the store cannot be used or another process has opened this guard, and `StateError` for a damaged memory. An
        expired policy is a problem of the configuration.
        """
        today = date_of(time.time_ns())
        guard_config = config if isinstance(config, GuardConfig) else read_config(Path(config), today)
        directory = guard_config.directory
        make_private_directory(directory)
        import_axes(guard_config.guard.axes)
        lock = FolderLock(directory, guard_config.name)
        try:
            return cls._open_locked(guard_config, lock, today)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open_locked(cls, guard_config: GuardConfig, lock: FolderLock, today: date) -> Guard:
        directory = guard_config.directory
        guard = cls(
            directory,
            GuardSettings(
                name=guard_config.name,
                instruments=guard_config.instruments,
                subsystems=guard_config.guard.subsystems,
                recorder_size=guard_config.guard.recorder_size,
                bundles=directory / "bundles" if guard_config.guard.bundles else None,
                rules=guard_config.redaction_rules(),
                levels=guard_config.pages.level,
                repeat_s=guard_config.pages.repeat_s,
                location=guard_config.location,
            ),
            catalogue=guard_config.load_catalogue(today),
            channels=guard_config.make_channels(),
            journal=guard_config.open_journal(lock.folder.journal),
            store=guard_config.open_store(),
        )
        guard.services.memory.lock = lock
        guard.load_memory()
        guard.log_reach()
        guard.freezes.observation.begin()
        if guard.monitor.mutations:
            guard.steps.mark_subject_down()  # deadlines do not run while nothing is guarded
        guard.services.start(guard, guard_config)
        guard.services.memory.begin()
        return guard

    def log_reach(self) -> None:
        """Log how many invariants can fire, and why each of the others cannot."""
        reaches = list_reach(self.monitor)
        log.info("invariants: %s", summarize_reach(reaches))
        for entry in reaches:
            if entry.reach is Reach.INAPPLICABLE:
                log.info("%s is inapplicable: %s", entry.name, entry.reason)

    # -- mutations ----------------------------------------------------------------------------------------------

    def step(self, cause: str) -> Step:
        """Open a step with one cause: its end settles the mutations recorded inside it."""
        if self.monitor.deadlines.is_paused:
            self.monitor.mark_subject_up(self.clock())
        return Step(self.steps, cause)

    def record(self, subsystem: str, record: Record) -> None:
        """Record a change of one subsystem's record. Outside a step it is a step of its own."""
        self.steps.record(subsystem, record)

    def restore(self, subsystem: str, records: Iterable[Record]) -> None:
        """Report the records that a restarted subsystem read back from its store; see `Monitor.restore`.

        The end of a step settles all subsystems restored in it together.
        """
        self.steps.restore(subsystem, records)

    # -- time and boundaries ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Evaluate the invariants whose time has run out. Call it when nothing else happens."""
        self.steps.tick()
        self._review_observation()

    def quiescent(self) -> None:
        """Report that nothing is in flight: all that changed since the last time must now agree with the venue."""
        with self.steps.lock:
            self.monitor.cause = "quiescent"
            self.monitor.settle_reconciled(self.clock())
            self.evidence.close_settle()
            self.evidence.write_bundles()
        self._review_observation()

    def boundary(self, name: str, trade_date: str, *, recovered: Iterable[str] = ()) -> None:
        """Report a lifecycle boundary. `recovered` names the subsystems whose recovery it completes."""
        with self.steps.lock:
            now_ns = self.clock()
            if not self.cells.has_explicit_transitions:
                self.count_transition(name, self.services.restart_kind if name == "restart" else trade_date)
            self.steps.record_boundary_time(now_ns)
            self.freezes.observation.apply_expiry(name)
            self.monitor.boundary(Boundary(name, trade_date, now_ns), recovered=recovered)
            self.freezes.check_store(name)
            self.freezes.observation.review()
            if self.journal is not None:
                self.journal.write_event(self.monitor.mutations, now_ns, name, trade_date)
                self.journal.flush()
            self.evidence.close_settle()
            if name == "reconciled":
                self.services.memory.reconciled()
            self.evidence.write_bundles()

    def count_transition(self, transition: str, detail: str = "") -> None:
        """Count the cell in which a lifecycle transition finds the system; see `CellCounter.count_transition`.

        `boundary` does this itself. A harness that knows more (the kind of a restart, the moment before it) sets
        `cells.has_explicit_transitions` and reports its transitions here.
        """
        with self.steps.lock:
            if self.cells.count_transition(transition, detail):
                self.services.write_cell_counts(running=True)

    def reconciled(self, trade_date: str, recovered: Iterable[str] = ("orders", "positions", "ledger")) -> None:
        """Report that the reconciliation with the venue is complete, and with it the recovery of these subsystems."""
        self.boundary("reconciled", trade_date, recovered=recovered)

    # -- freezes ------------------------------------------------------------------------------------------------

    def permits(self, message: Request | Query) -> bool:
        """Whether a message may leave. A query always may; a request may when no frozen scope forbids it.

        A scope whose freeze is only observed forbids nothing; see `would_refuse`.

        With a shared store, no request may leave while the freezes cannot be read; see `FreezeWatcher`.
        """
        return self.freezes.permits(message)

    def forbids(self, request: Request) -> str:
        """Return the widest frozen scope that forbids the request, or an empty string."""
        return self.freezes.cache.forbids(request)

    def would_refuse(self, request: Request) -> str:
        """Return the widest scope that forbids the request, or would if every entry were enforced; empty for none.

        `permits` counts such a request, lets it pass, and records it in the journal.
        """
        return self.forbids(request) or self.freezes.observation.freezes.forbids(request)

    def observed_freezes(self) -> list[ObservedFreeze]:
        """Return the freezes that would be in force if every entry were enforced, oldest first."""
        return self.freezes.observation.freezes.freezes()

    def _review_observation(self) -> None:
        if self.freezes.observation.freezes.by_scope:
            with self.steps.lock:
                self.freezes.observation.review()

    @property
    def active_freezes(self) -> list[Freeze]:
        """The freezes in force, oldest first."""
        return self.freezes.cache.active_freezes()

    def frozen_scopes(self) -> list[str]:
        """Return the frozen scopes, oldest freeze first. Takes no lock."""
        return self.freezes.cache.scopes()

    def freeze(self, scope: str, *, operator: str, reason: str, allows: Sequence[str] = ("cancel", "query")) -> None:
        """Freeze a scope on an operator's request.

        Raises `StoreError` when the freeze cannot be written. It holds nevertheless, in memory, and is written as soon
        as the store accepts it. Raises `ValueError` for an invalid scope or name.
        """
        self.freezes.freeze(scope, operator, reason, allows)

    def thaw(self, scope: str, *, operator: str, reason: str, evidence: str, forced_by: str = "") -> int:
        """End the freezes of a scope.

        Returns how many freezes it ended. The audit log records the thaw; nothing else ends a freeze.

        Raises `ThawRefusedError` when operator, reason or evidence is missing, when the scope is not frozen, or when
        the invariant still does not hold, or nobody can tell whether it does, and no second person forces the thaw by
        name. The audit log records the refusal.
        """
        return self.freezes.thaw(scope, operator, reason, evidence, forced_by)

    def reload(self) -> None:
        """Read the freezes in force again, after a restart or when another process may have acted.

        A freeze that another process thawed is thawed here too. A freeze that this guard knows and the store does not
        have stays in force, and its loss is a breach. Raises `StoreError`.
        """
        self.freezes.reload()

    # -- memory -------------------------------------------------------------------------------------------------

    def save_memory(self) -> None:
        """Save the monitor's memory atomically and synced in the directory, for the next process."""
        self.services.memory.save()

    def load_memory(self) -> bool:
        """Load a memory that `save_memory` wrote, and what the journal has after it. Returns False when there is none.

        Reports no breach: the process that recorded has done so. `memory_problem` then says whether the memory is
        current. Raises `StateError`, which names the file, when it is damaged or of another version.
        """
        return self.services.memory.load()

    @property
    def memory_is_current(self) -> bool:
        """Whether the guard knows everything that was recorded before it was opened; see `memory_problem`."""
        return not self.services.memory.problem

    @property
    def memory_problem(self) -> str:
        """Why the guard does not know everything that was recorded; empty when it does.

        Until the next `reconciled`, a thaw then needs a second person, because nobody can tell whether the invariant
        holds again.
        """
        return self.services.memory.problem

    def restore_state(self, store: bytes, memory: bytes) -> None:
        """Restore a state of store and memory that came from elsewhere, for a restored snapshot.

        A freeze that this guard knows stays in force, whatever the older state contains. Raises `StateError`, and
        `StoreError` when the image is not a freeze store.
        """
        with self.steps.lock:
            self.freezes.image.mark_changed()
            self.store.restore_bytes(store)
            self.monitor.restore_bytes(memory)
            self.services.memory.reconciled()
            self.evidence.load()
            self.steps.continue_from(self.monitor.now_ns)
            self.freezes.load()
            self.freezes.observation.load()

    def close(self) -> None:
        """Deliver due pages, save the memory, write the counts and the final heartbeat, and close all files.

        Only a guard of `Guard.open` saves its memory here.
        """
        self.services.stop(self.pager)
        with contextlib.suppress(StoreError):
            self.freezes.observation.write_counts()
        if self.journal is not None:
            self.journal.close()
        self.store.close()

    def __repr__(self) -> str:
        frozen = self.frozen_scopes()
        state = "FROZEN " + ", ".join(frozen) if frozen else "running"
        return f"<Guard {state} {self.monitor.mutations} mutations {len(self.breaches)} breaches>"
