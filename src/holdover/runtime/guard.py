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

Steps nest; each thread and each asyncio task has its own. If several open steps touch a key, the last of them
settles it, because only then is everything that touches it done.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar, Token
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from holdover.catalogue import Boundary, Catalogue, Frozen
from holdover.model import (
    SYSTEM,
    ClockReading,
    Instrument,
    MsgType,
    Position,
    Query,
    Record,
    Request,
    Side,
    scope_of,
)
from holdover.runtime.axes import Axis, freeze_level_of, import_axes
from holdover.runtime.breach import Breach, make_page
from holdover.runtime.bundle import SUFFIX, Bundle, collect_guard_parts, encode_breach_part, make_bundle_info
from holdover.runtime.cells import GUARD_CREATED_HOOKS, CellCounter, CellCountFile
from holdover.runtime.channels import Channel, FileChannel, LogChannel
from holdover.runtime.config import GuardConfig, read_config
from holdover.runtime.database import StoreError
from holdover.runtime.files import write_whole
from holdover.runtime.freeze_cache import FreezeCache, make_memory_freeze
from holdover.runtime.freeze_store import Freeze, FreezeIdentity, FreezeStore
from holdover.runtime.freeze_watcher import FreezeWatcher
from holdover.runtime.heartbeat import Heartbeat
from holdover.runtime.journal import FlightRecorder, Journal
from holdover.runtime.layout import Check, Touched
from holdover.runtime.metrics import attach_metrics
from holdover.runtime.monitor import Monitor
from holdover.runtime.pager import EscalationLevel, Pager
from holdover.runtime.redaction import RedactionRules

log = logging.getLogger("holdover.guard")

_MEMORY_FILE = "monitor.memory"
_REQUEST_AGE_MAX_NS = 30_000_000_000


class ThawRefusedError(RuntimeError):
    """A thaw was refused; the message says why."""


class Step:
    """One cause and its mutations; a context manager. Inside another step it joins that one."""

    __slots__ = ("_guard", "_token", "began_ns", "cause", "is_open", "outer", "touched")

    def __init__(self, guard: Guard, cause: str) -> None:
        self._guard = guard
        self.cause = cause
        self.touched: Touched = {}
        self.began_ns = 0
        self.is_open = False
        self.outer: Step | None = None
        self._token: Token[Step | None] | None = None

    def __enter__(self) -> Step:
        outer = _STEP.get()
        # A task started inside a step inherits it and may outlive it: ignore a closed step.
        if outer is not None and outer.is_open and outer._guard is self._guard:
            self.outer = outer
            return outer
        self.is_open = True
        self._token = _STEP.set(self)
        self._guard._begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.outer is not None:
            self.outer = None
            return
        if self._token is not None:
            _STEP.reset(self._token)
            self._token = None
        self.is_open = False
        self._guard._settle(self)


_STEP: ContextVar[Step | None] = ContextVar("holdover_step", default=None)


class _GuardFreezes(Frozen):
    """The guard's freezes, as predicates may query them."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def forbids(self, request: Request) -> str:
        """Return the frozen scope that forbids the message, or an empty string."""
        return self._guard.forbids(request)


class Guard:
    """Monitor, freezes, pager and flight recorder of one system, in its own directory.

    `name` identifies the guard to others that share the store. `clock` returns the time in nanoseconds. `journal`
    records every mutation. `store` replaces the one in the directory. `axes` are those of the cell counter; the
    default is the built-in and registered axes. With `bundles`, a folder, each breach leaves a bundle, redacted
    by `rules`. `levels` and `repeat_s` configure the pager. The guard is safe to share between threads.
    """

    def __init__(
        self,
        directory: Path,
        *,
        catalogue: Catalogue | None = None,
        clock: Callable[[], int] = time.time_ns,
        channels: Sequence[Channel] | None = None,
        instruments: Iterable[Instrument] = (),
        journal: Journal | None = None,
        recorder_size: int = 256,
        axes: Sequence[type[Axis]] | None = None,
        store: FreezeStore | None = None,
        bundles: Path | None = None,
        rules: RedactionRules | None = None,
        name: str = "guard",
        levels: Sequence[EscalationLevel] = (),
        repeat_s: float = 0.0,
    ) -> None:
        self.directory = directory
        self.name = name
        self.bundles, self.rules = bundles, rules or RedactionRules.with_defaults()
        self._unbundled_breaches: list[Breach] = []
        self.restored_at_mutation = 0
        self.catalogue = catalogue if catalogue is not None else Catalogue.load()
        self.clock = clock
        self.journal = journal
        self.recorder = FlightRecorder(recorder_size)
        self.cells = CellCounter(axes)
        self.monitor = Monitor(
            self.catalogue,
            self._handle_breach,
            _GuardFreezes(self),
            {instrument.symbol: instrument for instrument in instruments},
            self.cells,
        )
        self.breaches: list[Breach] = []
        self.repeat_counts: dict[tuple[str, str], int] = {}
        self.unfrozen_breaches = 0
        self.on_mutation: Callable[[int, str, Record], None] | None = None
        self.on_breach: Callable[[Breach], None] | None = None
        self.problem = ""
        self.is_quiet = False
        self.step_count = 0
        self._lock = threading.RLock()
        self._steps: list[Step] = []
        self._last_ns = 0
        self._last_tick_ns = 0
        self._last_settled_mutation = 0
        self._is_jump_declared = False
        self._add_to_recorder = self.recorder.add
        self.freeze_watcher: FreezeWatcher | None = None
        self.heartbeat: Heartbeat | None = None
        self._unwritten_breaches: list[tuple[Breach, Check]] = []
        self._store_state = 0
        self._store_states = itertools.count(1)  # each value is unique: a restored state is recognised by its number
        self._cell_count_file: CellCountFile | None = None
        self.store = store or FreezeStore(directory / "guard.db", name)
        page_channels: Sequence[Channel] = (
            channels if channels is not None else [FileChannel(directory / "pages.jsonl"), LogChannel()]
        )
        self.pager = Pager(self.store, page_channels, clock, levels, repeat_s)
        self._freeze_cache = FreezeCache(self.store, self._reduces_position)
        self._breach_number = self.store.last_breach_number()
        self._load_freezes()
        if self._freeze_cache.by_identity or self._breach_number:
            self._mark_store_changed()
        for opened in list(GUARD_CREATED_HOOKS):
            opened(self)

    @classmethod
    def open(cls, config: str | Path | GuardConfig) -> Guard:
        """Open the guard that a TOML file describes.

        Loads a saved memory, so that the records of the previous process are still known. Raises `GuardConfigError`
        with every problem in the configuration, and `StoreError` when the store cannot be used.
        """
        guard_config = config if isinstance(config, GuardConfig) else read_config(Path(config))
        directory = guard_config.directory
        directory.mkdir(parents=True, exist_ok=True)
        import_axes(guard_config.guard.axes)
        guard = cls(
            directory,
            catalogue=Catalogue.load(*guard_config.catalogue),
            channels=guard_config.make_channels(),
            instruments=guard_config.instruments,
            journal=guard_config.open_journal(),
            recorder_size=guard_config.guard.recorder_size,
            bundles=directory / "bundles" if guard_config.guard.bundles else None,
            rules=RedactionRules.with_defaults(guard_config.redact.fields, guard_config.redact.patterns),
            store=guard_config.open_store(),
            name=guard_config.name,
            levels=guard_config.pages.level,
            repeat_s=guard_config.pages.repeat_s,
        )
        guard.load_memory()
        guard._cell_count_file = CellCountFile(directory, guard.cells, guard.catalogue.digest)
        if guard_config.metrics is not None:
            attach_metrics(guard, guard_config.metrics)
        guard.heartbeat = Heartbeat(guard, guard_config.heartbeat, guard_config.heartbeat_url())
        guard.freeze_watcher = FreezeWatcher(guard._follow_store, round(guard_config.guard.obey_within_ms * 1e6))
        if guard.journal is not None and guard_config.guard.journal_sync_ms:
            guard.journal.start_syncing(guard_config.guard.journal_sync_ms / 1000)
        guard.heartbeat.start()
        guard.freeze_watcher.start()
        guard.pager.start()
        return guard

    # -- mutations ----------------------------------------------------------------------------------------------

    def step(self, cause: str) -> Step:
        """Open a step with one cause: its end settles the mutations recorded inside it."""
        if self.monitor.is_subject_down:
            self.monitor.mark_subject_up(self.clock())
        return Step(self, cause)

    def record(self, subsystem: str, record: Record) -> None:
        """Record a change of one subsystem's record. Outside a step it is a step of its own."""
        step = _STEP.get()
        if step is None or not step.is_open or step._guard is not self:
            with Step(self, "record"):
                self.record(subsystem, record)
            return
        with self._lock:
            monitor = self.monitor
            now_ns = self.clock()
            monitor.cause = step.cause
            before = monitor.mutate(subsystem, record, now_ns, step.touched)
            self._add_to_recorder((monitor.mutations, now_ns, subsystem, record, step.cause, before, self.step_count))
            if self.journal is not None:
                self.journal.write_mutation(monitor.mutations, now_ns, subsystem, record, step.cause)
            if self.on_mutation is not None:
                self.on_mutation(monitor.mutations, subsystem, record)

    def restore(self, subsystem: str, records: Iterable[Record]) -> None:
        """Report the records that a restarted subsystem read back from its store; see `Monitor.restore`.

        The end of a step settles all subsystems restored in it together.
        """
        step = _STEP.get()
        if step is None or not step.is_open or step._guard is not self:
            with Step(self, "restore"):
                self.restore(subsystem, records)
            return
        with self._lock:
            self.monitor.cause = "restore"
            records = list(records)
            self.monitor.restore(subsystem, records, self.clock(), step.touched)
            self.restored_at_mutation = self.monitor.mutations
            if self.journal is not None:
                self.journal.write_restored(self.monitor.mutations, self.clock(), subsystem, records)

    def mark_subject_down(self) -> None:
        """Mark the guarded process as down: no deadline expires until its first step after the restart."""
        with self._lock:
            self.monitor.is_subject_down = True

    def _begin(self, step: Step) -> None:
        with self._lock:
            now_ns = self.clock()
            if now_ns >= self.monitor.next_ns:
                self.monitor.tick(now_ns)
            if now_ns < self._last_ns:
                self._record_clock_reading(now_ns)
            self._last_ns = step.began_ns = now_ns
            if not self._steps:
                self.step_count += 1
                if self.monitor.undo_log:
                    self.monitor.undo_log.clear()
            self._steps.append(step)

    def abandon_steps(
        self, has_left: Callable[[Record], bool] = lambda record: True, *, discard_steps: bool = False
    ) -> None:
        """Undo the open steps of a process that has died; they will not settle.

        `has_left` tells whether a recorded request has left the process. `discard_steps` drops the steps because no
        code will leave them.
        """
        with self._lock:
            self.monitor.undo_open_steps(has_left)
            for step in self._steps:
                step.touched.clear()
            if discard_steps:
                self._steps.clear()

    def _settle(self, step: Step) -> None:
        with self._lock:
            self._steps.remove(step)
            touched = step.touched
            if self._steps:
                for open_step in self._steps:
                    for mark in [mark for mark in touched if mark in open_step.touched]:
                        del touched[mark]
            self.monitor.cause = step.cause
            self.monitor.settle(touched, self.clock())
            if self.journal is not None:
                if not self._steps and self.monitor.mutations != self._last_settled_mutation:
                    self._last_settled_mutation = self.monitor.mutations
                    self.journal.write_settled(self._last_settled_mutation, self.monitor.now_ns)
                self.journal.flush()
            self._write_bundles()

    # -- time and boundaries ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Evaluate the invariants whose time has run out. Call it when nothing else happens."""
        with self._lock:
            now_ns = self._last_tick_ns = self.clock()
            if now_ns >= self.monitor.next_ns:
                self.monitor.cause = "tick"
                self.monitor.tick(now_ns)
            self._write_bundles()

    def declare_clock_jump(self) -> None:
        """Announce that the next backward jump of the clock is intended (a manually set clock, a replayed day)."""
        self._is_jump_declared = True

    def _record_clock_reading(self, now_ns: int) -> None:
        self.monitor.cause = "clock"
        self.monitor.record_self_check(
            ClockReading(time_ns=now_ns, previous_ns=self._last_ns, declared=self._is_jump_declared), now_ns
        )
        self._is_jump_declared = False

    def quiescent(self) -> None:
        """Report that nothing is in flight: all that changed since the last time must now agree with the venue."""
        with self._lock:
            self.monitor.cause = "quiescent"
            self.monitor.settle_reconciled(self.clock())
            self._write_bundles()

    def boundary(self, name: str, trade_date: str, *, recovered: Iterable[str] = ()) -> None:
        """Report a lifecycle boundary. `recovered` names the subsystems whose recovery it completes."""
        with self._lock:
            now_ns = self.clock()
            if not self.cells.has_explicit_transitions:
                kind = self._cell_count_file.restart_kind if self._cell_count_file is not None else "kill"
                self.count_transition(name, kind if name == "restart" else trade_date)
            self.monitor.cause = name
            self._record_clock_reading(now_ns)
            self._last_ns = max(self._last_ns, now_ns)
            self.monitor.boundary(Boundary(name, trade_date, now_ns), recovered=recovered)
            self._check_freezes(name)
            if self.journal is not None:
                self.journal.write_event(self.monitor.mutations, now_ns, name, trade_date)
                self.journal.flush()
            self._write_bundles()

    def count_transition(self, transition: str, detail: str = "") -> None:
        """Count the cell in which a lifecycle transition finds the system; see `CellCounter.count_transition`.

        `boundary` does this itself. A harness that knows more (the kind of a restart, the moment before it) sets
        `cells.has_explicit_transitions` and reports its transitions here.
        """
        with self._lock:
            if self.cells.count_transition(transition, detail) and self._cell_count_file is not None:
                self._cell_count_file.write(running=True)

    def reconciled(self, trade_date: str, recovered: Iterable[str] = ("orders", "positions", "ledger")) -> None:
        """Report that the reconciliation with the venue is complete, and with it the recovery of these subsystems."""
        self.boundary("reconciled", trade_date, recovered=recovered)

    # -- freezes ------------------------------------------------------------------------------------------------

    def permits(self, message: Request | Query) -> bool:
        """Whether a message may leave. A query always may; a request may when no frozen scope forbids it.

        With a shared store, no request may leave while the freezes cannot be read; see `FreezeWatcher`.
        """
        if isinstance(message, Query):
            return True
        if self.freeze_watcher is not None and not self.freeze_watcher.ensure_fresh():
            return False
        return not self._freeze_cache.by_scope or not self._freeze_cache.forbids(message)

    def forbids(self, request: Request) -> str:
        """Return the widest frozen scope that forbids the request, or an empty string."""
        return self._freeze_cache.forbids(request)

    def _reduces_position(self, request: Request) -> bool:
        position = self.monitor.layout.tables.get(("positions", Position), {}).get(request.book_key)
        if not isinstance(position, Position) or request.msg_type != MsgType.NEW_ORDER_SINGLE:
            return False
        unreserved_qty = abs(position.net_qty) - position.reserved_qty
        is_opposite = position.net_qty < 0 if request.side == Side.BUY else position.net_qty > 0
        return is_opposite and request.order_qty <= unreserved_qty

    @property
    def is_in_step(self) -> bool:
        """Whether any step is open."""
        return bool(self._steps)

    @property
    def active_freezes(self) -> list[Freeze]:
        """The freezes in force, oldest first."""
        return self._freeze_cache.active_freezes()

    def freeze(self, scope: str, *, operator: str, reason: str, allows: Sequence[str] = ("cancel", "query")) -> None:
        """Freeze a scope on an operator's request.

        Raises `StoreError` when the freeze cannot be written.
        """
        with self._lock:
            self._mark_store_changed()
            freeze = self.store.freeze(scope, list(allows), operator, reason, self.clock())
            self._freeze_cache.add(freeze)
            self._publish_freeze_level()

    def thaw(self, scope: str, *, operator: str, reason: str, evidence: str, forced_by: str = "") -> int:
        """End the freezes of a scope.

        Returns how many freezes it ended. The audit log records the thaw; nothing else ends a freeze.

        Raises `ThawRefusedError` when operator, reason or evidence is missing, when the scope is not frozen, or when
        the invariant still does not hold and no second person forces the thaw by name.
        """
        for field_name, value in (("operator", operator), ("reason", reason), ("evidence", evidence)):
            if not value.strip():
                raise ThawRefusedError(f"a thaw needs {field_name}: say who, why and on what evidence")
        with self._lock:
            freezes = self._freeze_cache.freezes_of(scope)
            if not freezes:
                frozen = ", ".join(dict.fromkeys(freeze.scope for freeze in self.active_freezes)) or "nothing"
                raise ThawRefusedError(f"{scope} is not frozen; frozen is: {frozen}")
            if forced_by and forced_by.strip() == operator.strip():
                raise ThawRefusedError("a forced thaw needs the name of a second person")
            if not forced_by:
                self._refuse_while_failing(freezes)
            self._mark_store_changed()
            ended_count = self.store.thaw(scope, operator, reason, evidence, forced_by, self.clock())
            if self._freeze_cache.memory_freeze is not None and scope == SYSTEM:
                self._freeze_cache.memory_freeze = None
                self._unwritten_breaches.clear()
                self.problem = ""
            self._load_freezes(thawed=[freeze.identity for freeze in freezes])
            self._reset_repeat_counts(scope)
            self._publish_freeze_level()
        log.warning("thawed %s by %s: %s", scope, operator, reason)
        return ended_count

    def _reset_repeat_counts(self, scope: str) -> None:
        """Treat the next failure in the scope as a new breach."""
        self.repeat_counts = {mark: count for mark, count in self.repeat_counts.items() if mark[1] != scope}

    def _refuse_while_failing(self, freezes: list[Freeze]) -> None:
        breaches = {breach.number: breach for breach in self.store.breaches()}
        for freeze in freezes:
            breach = breaches.get(freeze.breach)
            if breach is None:
                continue
            if self.monitor.holds(breach.invariant, breach.subsystem, breach.kind, breach.key) is False:
                raise ThawRefusedError(
                    f"{breach.invariant} still does not hold of {breach.key}: put it right first, "
                    f"or have a second person force the thaw"
                )

    def _handle_breach(self, breach: Breach, check: Check) -> None:
        entry = check.entry
        anchor = self.monitor.layout.tables.get((breach.subsystem, check.bound.anchor.kind or Record), {})
        scope = scope_of(entry.scope, breach.subsystem, anchor.get(breach.key))
        mark = (f"{breach.invariant}/{breach.subsystem}/{breach.key}", scope)
        self.repeat_counts[mark] = self.repeat_counts.get(mark, 0) + 1
        if self.repeat_counts[mark] > 1:
            return
        self._mark_store_changed()
        breach = self._freeze_and_number(_with_scope(breach, scope, self._breach_number + 1), check)
        self._breach_number = max(self._breach_number, breach.number)
        self.breaches.append(breach)
        if not self.is_quiet:
            log.error("BREACH %s; state: %s; frozen: %s", breach.explanation, breach.state or "not known", scope)
        if self.journal is not None:
            self.journal.write_event(self.monitor.mutations, breach.time_ns, "breach", breach.explanation)
        self._publish_freeze_level()
        if self.bundles is not None:
            self._unbundled_breaches.append(breach)  # written when the step ends: then the recorder has its mutation
        if self.on_breach is not None:
            self.on_breach(breach)

    def _freeze_and_number(self, breach: Breach, check: Check) -> Breach:
        """Freeze the breach's scope on disk, or everything in memory. Returns the breach with the store's number."""
        try:
            if self._freeze_cache.is_frozen_by(breach.scope, breach.invariant):
                return _with_scope(breach, breach.scope, self.store.record_repeated_breach(breach))
            freeze = self._write_freeze(breach, check)
        except StoreError as problem:
            self._freeze_in_memory(breach, check, problem)
            return breach
        return _with_scope(breach, breach.scope, freeze.breach)

    def _write_freeze(self, breach: Breach, check: Check) -> Freeze:
        page = make_page(breach, check.entry, breach.number)
        freeze = self.store.record_breach(breach, list(check.entry.allows), page, self.pager.channel_names())
        self._freeze_cache.add(freeze)
        self.pager.wake()
        return freeze

    def _freeze_in_memory(self, breach: Breach, check: Check, problem: StoreError) -> None:
        """Freeze the whole system in memory and page on-call, because the freeze cannot be made durable."""
        self.problem = f"the freeze for {breach.invariant} could not be written: {problem}"
        self._unwritten_breaches.append((breach, check))
        allows = list(check.entry.allows)
        memory_freeze = make_memory_freeze(breach.invariant, allows, breach.number, breach.time_ns, self.name)
        self._freeze_cache.memory_freeze = memory_freeze
        self._freeze_cache.add(memory_freeze)
        log.critical("%s; the whole system is frozen in memory", self.problem)
        page = make_page(_with_scope(breach, SYSTEM, breach.number), check.entry, breach.number)
        self.pager.send_directly(page)

    def _write_pending_freezes(self) -> None:
        """Write the freezes that so far exist only in memory, now that the store accepts writes again.

        The freeze of the whole system stays until a thaw, because an operator must look at the failure of the store.
        """
        while self._unwritten_breaches:
            breach, check = self._unwritten_breaches[0]
            self._mark_store_changed()
            self._write_freeze(breach, check)
            memory_freeze = self._freeze_cache.memory_freeze
            if memory_freeze is not None and not self._freeze_cache.is_system_frozen_durably():
                self._freeze_cache.add(
                    self.store.freeze(SYSTEM, memory_freeze.allows, self.name, self.problem, self.clock())
                )
            del self._unwritten_breaches[0]

    def _write_bundles(self) -> None:
        if not self._unbundled_breaches or self.bundles is None or self._steps:
            return
        breaches, self._unbundled_breaches = self._unbundled_breaches, []
        parts: dict[str, bytes] = {}
        for breach in breaches:
            path = self.bundles / f"breach-{breach.number}{SUFFIX}"
            try:
                parts = parts or collect_guard_parts(self, self.rules)
                info = make_bundle_info(breach, self.rules, self.monitor.trade_date)
                Bundle(info, {**parts, **encode_breach_part(breach, self.rules)}).save(path)
            except Exception as problem:  # a failed bundle must not undo the freeze or the page
                log.error("the bundle of breach %d could not be written: %s", breach.number, problem)

    def _mark_store_changed(self) -> None:
        self._store_state = next(self._store_states)

    def _publish_freeze_level(self) -> None:
        level = freeze_level_of(self._freeze_cache.scopes())
        self.cells.notify("freeze", level)
        if self.journal is not None:
            self.journal.write_event(self.monitor.mutations, self.clock(), "freeze", level)

    def _load_freezes(
        self, stored_freezes: Sequence[Freeze] | None = None, thawed: Sequence[FreezeIdentity] = ()
    ) -> None:
        self._freeze_cache.reload(stored_freezes, thawed)
        self.cells.notify("freeze", freeze_level_of(self._freeze_cache.scopes()))

    def reload(self) -> None:
        """Read the freezes in force again, after a restart or when another process may have acted.

        A freeze that another process thawed is thawed here too. A freeze that this guard knows and the store does not
        have stays in force, and its loss is a breach. Raises `StoreError`.
        """
        changed = self._freeze_cache.find_changes()
        if changed is None:
            return
        stored_freezes, thawed = changed
        with self._lock:
            scopes = {scope for _, scope, _, _ in thawed}
            self._mark_store_changed()
            self._load_freezes(stored_freezes, thawed)
            for scope in scopes:
                if not self._freeze_cache.freezes_of(scope):
                    self._reset_repeat_counts(scope)

    def _follow_store(self) -> None:
        """Run one round of the freeze watcher: reload freezes, write pending freezes, answer thaw requests."""
        self.reload()
        if self._unwritten_breaches:
            with self._lock:
                self._write_pending_freezes()
        since_ns = self.clock() - _REQUEST_AGE_MAX_NS
        for request in self.store.open_thaw_requests(self.name, since_ns):
            refusal = ""
            try:
                self.thaw(
                    request.scope,
                    operator=request.operator,
                    reason=request.reason,
                    evidence=request.evidence,
                    forced_by=request.forced_by,
                )
            except ThawRefusedError as problem:
                refusal = str(problem)
            self.store.answer_request(request.number, refusal, self.clock())

    @property
    def last_ns(self) -> int:
        """The time of the last step or tick, in ns; 0 before the first."""
        return max(self._last_ns, self._last_tick_ns)

    def frozen_scopes(self) -> list[str]:
        """Return the frozen scopes, oldest freeze first. Takes no lock."""
        return self._freeze_cache.scopes()

    def _check_freezes(self, boundary: str) -> None:
        try:
            stored_identities = {freeze.identity for freeze in self.store.active_freezes()}
        except StoreError as problem:
            self.problem = str(problem)
            stored_identities = set()
        lost_freezes = [
            repr(freeze)
            for mark, freeze in self._freeze_cache.durable_freezes().items()
            if mark not in stored_identities
        ]
        self.monitor.record_freeze_check(boundary, len(stored_identities), lost_freezes)

    # -- memory -------------------------------------------------------------------------------------------------

    def save_memory(self) -> None:
        """Save the monitor's memory atomically and synced in the directory, for the next process."""
        with self._lock:
            data = self.monitor.to_bytes()
            if self._cell_count_file is not None:
                self._cell_count_file.write(running=True)
        write_whole(self.directory / _MEMORY_FILE, data)

    def load_memory(self) -> bool:
        """Load a memory that `save_memory` wrote. Returns False when there is none. Raises `ValueError` when it is
        damaged.
        """
        path = self.directory / _MEMORY_FILE
        if not path.exists():
            return False
        with self._lock:
            self.monitor.restore_bytes(path.read_bytes())
        return True

    def restore_state(self, store: bytes, memory: bytes) -> None:
        """Restore a state of store and memory that came from elsewhere, for a restored snapshot.

        A freeze that this guard knows stays in force, whatever the older state contains. Raises `ValueError`, and
        `StoreError` when the image is not a freeze store.
        """
        with self._lock:
            self._mark_store_changed()
            self.store.restore_bytes(store)
            self.monitor.restore_bytes(memory)
            self.breaches = self.store.breaches()
            self._breach_number = self.store.last_breach_number()
            self._last_ns = self.monitor.now_ns
            self._load_freezes()

    def checkpoint(self) -> Any:
        """Return the guard's state for `rollback` in the same process."""
        image = self.store.to_bytes() if self._store_state else b""
        return (
            self.monitor.checkpoint(),
            (self._store_state, image, self._freeze_cache.checkpoint(), self.problem),
            len(self.breaches),
            dict(self.repeat_counts),
            list(self._steps),
            [dict(step.touched) for step in self._steps],
            (self._last_ns, self._is_jump_declared, self._breach_number),
            self.recorder.checkpoint(),
        )

    def rollback(self, checkpoint: Any) -> None:
        """Restore the guard to a checkpoint; freezes set since then no longer exist."""
        monitor, freezes, breaches, repeat_counts, steps, touched, numbers, recorder = checkpoint
        self.monitor.rollback(monitor)
        state, image, freeze_cache, self.problem = freezes
        self._freeze_cache.rollback(freeze_cache, restore_store_freezes=self._store_state != state)
        if self._store_state != state:
            if image:
                self.store.restore_bytes(image)
            else:
                self.store.clear()
            self._store_state = state
        del self.breaches[breaches:]
        self.repeat_counts = dict(repeat_counts)
        self._steps[:] = steps
        for step, touched_keys in zip(steps, touched, strict=True):
            step.touched.clear()
            step.touched.update(touched_keys)
        self._last_ns, self._is_jump_declared, self._breach_number = numbers
        self.recorder.rollback(recorder)

    def close(self) -> None:
        """Deliver due pages, write the counts and the final heartbeat, and close all files."""
        if self.freeze_watcher is not None:
            self.freeze_watcher.stop()
        self.pager.stop()
        if self.heartbeat is not None:
            self.heartbeat.stop()
        if self._cell_count_file is not None:
            self._cell_count_file.write(running=False)
        if self.journal is not None:
            self.journal.close()
        self.store.close()

    def __repr__(self) -> str:
        frozen = self._freeze_cache.scopes()
        state = "FROZEN " + ", ".join(frozen) if frozen else "running"
        return f"<Guard {state} {self.monitor.mutations} mutations {len(self.breaches)} breaches>"


def _with_scope(breach: Breach, scope: str, number: int) -> Breach:
    return msgspec.structs.replace(breach, scope=scope, number=number)
