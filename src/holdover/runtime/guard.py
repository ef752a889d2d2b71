"""The guard: what a live system holds on to.

    guard = Guard.open("desk.toml")

    with guard.step("execution-report"):        # one cause
        guard.record("orders", order)           # a mutation: on-mutation invariants run here
        guard.record("positions", position)
                                                # leaving the step settles it
    if guard.permits(request):                  # the gate at the last line before the wire
        link.send(request)

On a breach the freeze is on the disk before `record` or the step returns, before the page, before anything else can be
sent. Where it cannot be put on the disk, the whole system is frozen in memory, and that is said. Nothing but a thaw,
a named operator's act, ends a freeze.

Steps nest; in threads and asyncio tasks each has its own. A key touched by several open steps is settled by the last
of them, because only then has everything that touches it been done.
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
from holdover.runtime.axes import Axis, freeze_level, import_axes
from holdover.runtime.breach import Breach, page_for
from holdover.runtime.bundle import SUFFIX, Bundle, about, breach_part, guard_parts
from holdover.runtime.cells import OPENED, CellCounter, KeptCells
from holdover.runtime.channels import Channel, FileChannel, LogChannel
from holdover.runtime.config import GuardConfig, read_config
from holdover.runtime.database import StoreProblem
from holdover.runtime.files import write_whole
from holdover.runtime.following import Following
from holdover.runtime.freezes import Freeze, FreezeStore, Mark
from holdover.runtime.heartbeat import Heartbeat
from holdover.runtime.journal import FlightRecorder, Journal
from holdover.runtime.latches import Latches, in_memory
from holdover.runtime.layout import Check, Touched
from holdover.runtime.metrics import attach
from holdover.runtime.monitor import Monitor
from holdover.runtime.pager import Level, Pager
from holdover.runtime.redaction import Rules

log = logging.getLogger("holdover.guard")

_MEMORY = "monitor.memory"
_ANSWER_WITHIN_NS = 30_000_000_000


class ThawRefused(RuntimeError):
    """A thaw that was not done, and why."""


class Step:
    """One cause and the mutations it brings about; a context manager. Inside another step it joins that one."""

    __slots__ = ("_guard", "_token", "began_ns", "cause", "open", "outer", "touched")

    def __init__(self, guard: Guard, cause: str) -> None:
        self._guard = guard
        self.cause = cause
        self.touched: Touched = {}
        self.began_ns = 0
        self.open = False
        self.outer: Step | None = None
        self._token: Token[Step | None] | None = None

    def __enter__(self) -> Step:
        outer = _STEP.get()
        # A task started inside a step inherits it and may outlive it: a closed step is nobody's.
        if outer is not None and outer.open and outer._guard is self._guard:
            self.outer = outer
            return outer
        self.open = True
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
        self.open = False
        self._guard._settle(self)


_STEP: ContextVar[Step | None] = ContextVar("holdover_step", default=None)


class _Forbidding(Frozen):
    """What predicates may ask about the guard's freezes."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def forbids(self, request: Request) -> str:
        """The frozen scope that this message must not leave, or an empty string."""
        return self._guard.forbids(request)


class Guard:
    """Monitor, freezes, pager and flight recorder of one system, over one directory of its own.

    `name` is the one under which others that share the store know it. `clock` gives the time in nanoseconds; `journal`
    keeps every mutation; `store` stands in for the one in the directory; `axes` are those of the cell counter, without
    it the built-in ones and those registered. In `bundles`, a folder, each breach leaves a bundle, redacted by `rules`.
    `levels` and `repeat_s` are the pager's. The guard is safe to share between threads.
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
        rules: Rules | None = None,
        name: str = "guard",
        levels: Sequence[Level] = (),
        repeat_s: float = 0.0,
    ) -> None:
        self.directory = directory
        self.name = name
        self.bundles, self.rules = bundles, rules or Rules.usual()
        self._to_bundle: list[Breach] = []
        self.restored_at = 0
        self.catalogue = catalogue if catalogue is not None else Catalogue.load()
        self.clock = clock
        self.journal = journal
        self.recorder = FlightRecorder(recorder_size)
        self.cells = CellCounter(axes)
        self.monitor = Monitor(
            self.catalogue, self._breached, _Forbidding(self), {one.symbol: one for one in instruments}, self.cells
        )
        self.breaches: list[Breach] = []
        self.repeated: dict[tuple[str, str], int] = {}
        self.unfrozen_breaches = 0
        self.on_mutation: Callable[[int, str, Record], None] | None = None
        self.on_breach: Callable[[Breach], None] | None = None
        self.problem = ""
        self.quiet = False
        self.begun = 0
        self._lock = threading.RLock()
        self._steps: list[Step] = []
        self._last_ns = 0
        self._ticked_ns = 0
        self._settled = 0
        self._jump_declared = False
        self._add = self.recorder.add
        self.following: Following | None = None
        self.heartbeat: Heartbeat | None = None
        self._unwritten: list[tuple[Breach, Check]] = []
        self._store_state = 0
        self._store_states = itertools.count(1)  # never the same twice: one that is put back is known by its number
        self._kept_cells: KeptCells | None = None
        self.store = store or FreezeStore(directory / "guard.db", name)
        given: Sequence[Channel] = (
            channels if channels is not None else [FileChannel(directory / "pages.jsonl"), LogChannel()]
        )
        self.pager = Pager(self.store, given, clock, levels, repeat_s)
        self._latches = Latches(self.store, self._reduces)
        self._breach_number = self.store.last_breach()
        self._load_freezes()
        if self._latches.known or self._breach_number:
            self._stored()
        for opened in list(OPENED):
            opened(self)

    @classmethod
    def open(cls, config: str | Path | GuardConfig) -> Guard:
        """The guard that a TOML file describes; raises `BadConfig` with every problem found in it.

        A memory saved before is taken up again, so that what the last process recorded is still known.
        """
        told = config if isinstance(config, GuardConfig) else read_config(Path(config))
        directory = told.directory
        directory.mkdir(parents=True, exist_ok=True)
        import_axes(told.axes)
        guard = cls(
            directory,
            catalogue=Catalogue.load(*told.catalogue),
            channels=told.channels(),
            instruments=told.instruments,
            journal=told.open_journal(),
            recorder_size=told.recorder_size,
            bundles=directory / "bundles" if told.bundles else None,
            rules=Rules.usual(told.redact_fields, told.redact_patterns),
            store=told.open_store(),
            name=told.name,
            levels=told.levels,
            repeat_s=told.repeat_s,
        )
        guard.recall()
        guard._kept_cells = KeptCells(directory, guard.cells, guard.catalogue.digest)
        if told.metrics is not None:
            attach(guard, told.metrics)
        guard.heartbeat = Heartbeat(guard, told.heartbeat, told.heartbeat_url())
        guard.following = Following(guard._look, round(told.obey_within_ms * 1e6))
        if guard.journal is not None and told.journal_sync_ms:
            guard.journal.keep_synced(told.journal_sync_ms / 1000)
        guard.heartbeat.start()
        guard.following.start()
        guard.pager.start()
        return guard

    # -- mutations ----------------------------------------------------------------------------------------------

    def step(self, cause: str) -> Step:
        """One cause: the mutations recorded inside are settled together when it is left."""
        if self.monitor.gone:
            self.monitor.back(self.clock())
        return Step(self, cause)

    def record(self, subsystem: str, record: Record) -> None:
        """One subsystem's record has changed. Outside any step it is a step by itself."""
        step = _STEP.get()
        if step is None or not step.open or step._guard is not self:
            with Step(self, "record"):
                self.record(subsystem, record)
            return
        with self._lock:
            monitor = self.monitor
            now_ns = self.clock()
            monitor.cause = step.cause
            before = monitor.mutate(subsystem, record, now_ns, step.touched)
            self._add((monitor.mutations, now_ns, subsystem, record, step.cause, before, self.begun))
            if self.journal is not None:
                self.journal.mutation(monitor.mutations, now_ns, subsystem, record, step.cause)
            if self.on_mutation is not None:
                self.on_mutation(monitor.mutations, subsystem, record)

    def restore(self, subsystem: str, records: Iterable[Record]) -> None:
        """A subsystem that has come up says what it read back from its store; see `Monitor.restore`.

        Several subsystems restored in one step are settled together, when all of them are back.
        """
        step = _STEP.get()
        if step is None or not step.open or step._guard is not self:
            with Step(self, "restore"):
                self.restore(subsystem, records)
            return
        with self._lock:
            self.monitor.cause = "restore"
            records = list(records)
            self.monitor.restore(subsystem, records, self.clock(), step.touched)
            self.restored_at = self.monitor.mutations
            if self.journal is not None:
                self.journal.restored(self.monitor.mutations, self.clock(), subsystem, records)

    def subject_gone(self) -> None:
        """The guarded process is down: nothing is late until its first step after it has come up again."""
        with self._lock:
            self.monitor.gone = True

    def _begin(self, step: Step) -> None:
        with self._lock:
            now_ns = self.clock()
            if now_ns >= self.monitor.next_ns:
                self.monitor.tick(now_ns)
            if now_ns < self._last_ns:
                self._clock_read(now_ns)
            self._last_ns = step.began_ns = now_ns
            if not self._steps:
                self.begun += 1
                if self.monitor.undo:
                    self.monitor.undo.clear()
            self._steps.append(step)

    def abandon_steps(self, left: Callable[[Record], bool] = lambda record: True, *, gone: bool = False) -> None:
        """The process whose steps are open is dead: what they did is undone here, and will not be settled by them.

        `left` says whether a request that they recorded is out, `gone` that nobody will even leave the steps.
        """
        with self._lock:
            self.monitor.roll_back(left)
            for step in self._steps:
                step.touched.clear()
            if gone:
                self._steps.clear()

    def _settle(self, step: Step) -> None:
        with self._lock:
            self._steps.remove(step)
            touched = step.touched
            if self._steps:
                for other in self._steps:
                    for mark in [mark for mark in touched if mark in other.touched]:
                        del touched[mark]
            self.monitor.cause = step.cause
            self.monitor.settle(touched, self.clock())
            if self.journal is not None:
                if not self._steps and self.monitor.mutations != self._settled:
                    self._settled = self.monitor.mutations
                    self.journal.settled(self._settled, self.monitor.now_ns)
                self.journal.flush()
            self._write_bundles()

    # -- time and boundaries ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let time pass: what should have come to hold by now is evaluated. Call it when nothing else happens."""
        with self._lock:
            now_ns = self._ticked_ns = self.clock()
            if now_ns >= self.monitor.next_ns:
                self.monitor.cause = "tick"
                self.monitor.tick(now_ns)
            self._write_bundles()

    def declare_jump(self) -> None:
        """The next time that goes back is an announced one (a clock set by hand, a day replayed)."""
        self._jump_declared = True

    def _clock_read(self, now_ns: int) -> None:
        self.monitor.cause = "clock"
        self.monitor.own(ClockReading(time_ns=now_ns, previous_ns=self._last_ns, declared=self._jump_declared), now_ns)
        self._jump_declared = False

    def quiescent(self) -> None:
        """Nothing is in flight: what changed since the last time must agree with the venue now."""
        with self._lock:
            self.monitor.cause = "quiescent"
            self.monitor.reconciled(self.clock())
            self._write_bundles()

    def boundary(self, name: str, trade_date: str, *, recovered: Iterable[str] = ()) -> None:
        """A lifecycle boundary has been reached; `recovered` names subsystems whose recovery it completes."""
        with self._lock:
            now_ns = self.clock()
            if not self.cells.explicit:
                kind = self._kept_cells.restart_kind if self._kept_cells is not None else "kill"
                self.transition(name, kind if name == "restart" else trade_date)
            self.monitor.cause = name
            self._clock_read(now_ns)
            self._last_ns = max(self._last_ns, now_ns)
            self.monitor.boundary(Boundary(name, trade_date, now_ns), recovered=recovered)
            self._check_freezes(name)
            if self.journal is not None:
                self.journal.say(self.monitor.mutations, now_ns, name, trade_date)
                self.journal.flush()
            self._write_bundles()

    def transition(self, what: str, detail: str = "") -> None:
        """Count the cell in which a lifecycle transition finds the system; see `CellCounter.transition`.

        `boundary` does this by itself. A harness that knows more (the kind of a restart, the moment before it) sets
        `cells.explicit` and says its transitions here.
        """
        with self._lock:
            if self.cells.transition(what, detail) and self._kept_cells is not None:
                self._kept_cells.write(running=True)

    def reconciled(self, trade_date: str, recovered: Iterable[str] = ("orders", "positions", "ledger")) -> None:
        """Reconciliation with the venue is complete, and with it the recovery of these subsystems."""
        self.boundary("reconciled", trade_date, recovered=recovered)

    # -- freezes ------------------------------------------------------------------------------------------------

    def permits(self, message: Request | Query) -> bool:
        """Whether a message may leave. Questions may always; a request may when no frozen scope forbids it.

        Where the guard follows a store, nothing may while what is frozen there cannot be read; see `Following`.
        """
        if isinstance(message, Query):
            return True
        if self.following is not None and not self.following.fresh():
            return False
        return not self._latches.by_scope or not self._latches.forbids(message)

    def forbids(self, request: Request) -> str:
        """The widest frozen scope that this request must not leave, or an empty string."""
        return self._latches.forbids(request)

    def _reduces(self, request: Request) -> bool:
        held = self.monitor.layout.tables.get(("positions", Position), {}).get(request.book_key)
        if not isinstance(held, Position) or request.msg_type != MsgType.NEW_ORDER_SINGLE:
            return False
        free = abs(held.net_qty) - held.reserved_qty
        against = held.net_qty < 0 if request.side == Side.BUY else held.net_qty > 0
        return against and request.order_qty <= free

    @property
    def in_step(self) -> bool:
        """Whether any step is open."""
        return bool(self._steps)

    @property
    def frozen(self) -> list[Freeze]:
        """The freezes in force, oldest first."""
        return self._latches.all()

    def freeze(self, scope: str, *, operator: str, reason: str, allows: Sequence[str] = ("cancel", "query")) -> None:
        """An operator's own freeze. Raises `StoreProblem` after freezing in memory when it cannot be written."""
        with self._lock:
            self._stored()
            freeze = self.store.freeze(scope, list(allows), operator, reason, self.clock())
            self._latches.add(freeze)
            self._say_freezes()

    def thaw(self, scope: str, *, operator: str, reason: str, evidence: str, forced_by: str = "") -> int:
        """End the freezes of a scope; returns how many. An audited act, and the only thing that ends one.

        Raises `ThawRefused` when operator, reason or evidence is missing, when nothing is frozen there, or when the
        invariant that froze it still does not hold, unless a second person forces it by name.
        """
        for what, said in (("operator", operator), ("reason", reason), ("evidence", evidence)):
            if not said.strip():
                raise ThawRefused(f"a thaw needs {what}: say who, why and on what evidence")
        with self._lock:
            kept = self._latches.of(scope)
            if not kept:
                frozen = ", ".join(dict.fromkeys(freeze.scope for freeze in self.frozen)) or "nothing"
                raise ThawRefused(f"{scope} is not frozen; frozen is: {frozen}")
            if forced_by and forced_by.strip() == operator.strip():
                raise ThawRefused("a forced thaw needs the name of a second person")
            if not forced_by:
                self._refuse_while_failing(kept)
            self._stored()
            done = self.store.thaw(scope, operator, reason, evidence, forced_by, self.clock())
            if self._latches.memory is not None and scope == SYSTEM:
                self._latches.memory = None
                self._unwritten.clear()
                self.problem = ""
            self._load_freezes(gone=[freeze.mark for freeze in kept])
            self._forget_repeats(scope)
            self._say_freezes()
        log.warning("thawed %s by %s: %s", scope, operator, reason)
        return done

    def _forget_repeats(self, scope: str) -> None:
        """What fails there from now on is a new breach."""
        self.repeated = {mark: count for mark, count in self.repeated.items() if mark[1] != scope}

    def _refuse_while_failing(self, kept: list[Freeze]) -> None:
        caused = {breach.number: breach for breach in self.store.breaches()}
        for freeze in kept:
            breach = caused.get(freeze.breach)
            if breach is None:
                continue
            if self.monitor.holds(breach.invariant, breach.subsystem, breach.kind, breach.key) is False:
                raise ThawRefused(
                    f"{breach.invariant} still does not hold of {breach.key}: put it right first, "
                    f"or have a second person force the thaw"
                )

    def _breached(self, breach: Breach, check: Check) -> None:
        entry = check.entry
        anchor = self.monitor.layout.tables.get((breach.subsystem, check.bound.anchor.kind or Record), {})
        scope = scope_of(entry.scope, breach.subsystem, anchor.get(breach.key))
        mark = (f"{breach.invariant}/{breach.subsystem}/{breach.key}", scope)
        self.repeated[mark] = self.repeated.get(mark, 0) + 1
        if self.repeated[mark] > 1:
            return
        self._stored()
        breach = self._frozen_for(_located(breach, scope, self._breach_number + 1), check)
        self._breach_number = max(self._breach_number, breach.number)
        self.breaches.append(breach)
        if not self.quiet:
            log.error("BREACH %s; state: %s; frozen: %s", breach.explanation, breach.state or "not known", scope)
        if self.journal is not None:
            self.journal.say(self.monitor.mutations, breach.time_ns, "breach", breach.explanation)
        self._say_freezes()
        if self.bundles is not None:
            self._to_bundle.append(breach)  # written when the step is over: then the mutation that did it is noted, too
        if self.on_breach is not None:
            self.on_breach(breach)

    def _frozen_for(self, breach: Breach, check: Check) -> Breach:
        """The breach as the store has numbered it, its scope frozen: on the disk, or else everything in memory."""
        try:
            if self._latches.by(breach.scope, breach.invariant):
                return _located(breach, breach.scope, self.store.note(breach))
            freeze = self._record(breach, check)
        except StoreProblem as problem:
            self._freeze_in_memory(breach, check, problem)
            return breach
        return _located(breach, breach.scope, freeze.breach)

    def _record(self, breach: Breach, check: Check) -> Freeze:
        page = page_for(breach, check.entry, breach.number)
        freeze = self.store.record(breach, list(check.entry.allows), page, self.pager.names())
        self._latches.add(freeze)
        self.pager.wake()
        return freeze

    def _freeze_in_memory(self, breach: Breach, check: Check, problem: StoreProblem) -> None:
        """The freeze could not be made durable: everything stops, in memory, and on-call hears of both."""
        self.problem = f"the freeze for {breach.invariant} could not be written: {problem}"
        self._unwritten.append((breach, check))
        allows = list(check.entry.allows)
        latch = in_memory(breach.invariant, allows, breach.number, breach.time_ns, self.name)
        self._latches.memory = latch
        self._latches.add(latch)
        log.critical("%s; the whole system is frozen in memory", self.problem)
        page = page_for(_located(breach, SYSTEM, breach.number), check.entry, breach.number)
        self.pager.direct(page)

    def _write_unwritten(self) -> None:
        """What could be frozen only in memory is frozen on the disk as well, now that it can be.

        The freeze of the whole system stays until a thaw: that the store failed is for people to look at.
        """
        while self._unwritten:
            breach, check = self._unwritten[0]
            self._stored()
            self._record(breach, check)
            latch = self._latches.memory
            if latch is not None and not self._latches.written_for_all():
                self._latches.add(self.store.freeze(SYSTEM, latch.allows, self.name, self.problem, self.clock()))
            del self._unwritten[0]

    def _write_bundles(self) -> None:
        if not self._to_bundle or self.bundles is None or self._steps:
            return
        waiting, self._to_bundle = self._to_bundle, []
        parts: dict[str, bytes] = {}
        for breach in waiting:
            path = self.bundles / f"breach-{breach.number}{SUFFIX}"
            try:
                parts = parts or guard_parts(self, self.rules)
                told = about(breach, self.rules, self.monitor.trade_date)
                Bundle(told, {**parts, **breach_part(breach, self.rules)}).save(path)
            except Exception as problem:  # the freeze is durable and the page is out: what explains it must not undo it
                log.error("the bundle of breach %d could not be written: %s", breach.number, problem)

    def _stored(self) -> None:
        self._store_state = next(self._store_states)

    def _say_freezes(self) -> None:
        level = freeze_level(self._latches.scopes())
        self.cells.tell("freeze", level)
        if self.journal is not None:
            self.journal.say(self.monitor.mutations, self.clock(), "freeze", level)

    def _load_freezes(self, there: Sequence[Freeze] | None = None, gone: Sequence[Mark] = ()) -> None:
        self._latches.load(there, gone)
        self.cells.tell("freeze", freeze_level(self._latches.scopes()))

    def reload(self) -> None:
        """Read the freezes in force again: after a restart, or when another process may have acted.

        What somebody has thawed is thawed here, too. A freeze that this guard knows and the store does not stays in
        force, and its loss is a breach. Raises `StoreProblem`.
        """
        changed = self._latches.changed()
        if changed is None:
            return
        there, thawed = changed
        with self._lock:
            scopes = {scope for _, scope, _, _ in thawed}
            self._stored()
            self._load_freezes(there, thawed)
            for scope in scopes:
                if not self._latches.of(scope):
                    self._forget_repeats(scope)

    def _look(self) -> None:
        """One look of the following thread: the freezes, what waits to be written, the thaws asked of this guard."""
        self.reload()
        if self._unwritten:
            with self._lock:
                self._write_unwritten()
        since_ns = self.clock() - _ANSWER_WITHIN_NS
        for asked in self.store.asked_of(self.name, since_ns):
            said = ""
            try:
                self.thaw(
                    asked.scope,
                    operator=asked.operator,
                    reason=asked.reason,
                    evidence=asked.evidence,
                    forced_by=asked.forced_by,
                )
            except ThawRefused as problem:
                said = str(problem)
            self.store.answer(asked.number, said, self.clock())

    @property
    def last_ns(self) -> int:
        """When the last step began or the last tick was, in ns; 0 before the first."""
        return max(self._last_ns, self._ticked_ns)

    def frozen_scopes(self) -> list[str]:
        """The scopes that are frozen, oldest freeze first; takes no lock."""
        return self._latches.scopes()

    def _check_freezes(self, boundary: str) -> None:
        try:
            there = {freeze.mark for freeze in self.store.in_force()}
        except StoreProblem as problem:
            self.problem = str(problem)
            there = set()
        lost = [repr(freeze) for mark, freeze in self._latches.written().items() if mark not in there]
        self.monitor.freezes_checked(boundary, len(there), lost)

    # -- memory -------------------------------------------------------------------------------------------------

    def remember(self) -> None:
        """Write the monitor's memory whole, synced, beside the freezes: for the next process to take up."""
        with self._lock:
            data = self.monitor.dump()
            if self._kept_cells is not None:
                self._kept_cells.write(running=True)
        write_whole(self.directory / _MEMORY, data)

    def recall(self) -> bool:
        """Take up a memory written by `remember`; False when there is none. Raises `ValueError` when it is damaged."""
        path = self.directory / _MEMORY
        if not path.exists():
            return False
        with self._lock:
            self.monitor.load(path.read_bytes())
        return True

    def load_state(self, store: bytes, memory: bytes) -> None:
        """Take up a state of store and memory dumped elsewhere: for a restored snapshot.

        A freeze that this guard knows stays in force, whatever the older state says. Raises `ValueError`.
        """
        with self._lock:
            self._stored()
            self.store.load(store)
            self.monitor.load(memory)
            self.breaches = self.store.breaches()
            self._breach_number = self.store.last_breach()
            self._last_ns = self.monitor.now_ns
            self._load_freezes()

    def keep(self) -> Any:
        """What may change from here on, for `put_back` in the same process."""
        image = self.store.dump() if self._store_state else b""
        return (
            self.monitor.keep(),
            (self._store_state, image, self._latches.keep(), self.problem),
            len(self.breaches),
            dict(self.repeated),
            list(self._steps),
            [dict(step.touched) for step in self._steps],
            (self._last_ns, self._jump_declared, self._breach_number),
            self.recorder.keep(),
        )

    def put_back(self, kept: Any) -> None:
        """Make it what it was when `keep` was called; what was frozen since is not any more."""
        monitor, freezes, breaches, repeated, steps, touched, numbers, recorder = kept
        self.monitor.put_back(monitor)
        state, image, latches, self.problem = freezes
        self._latches.put_back(latches, stored=self._store_state != state)
        if self._store_state != state:
            if image:
                self.store.load(image)
            else:
                self.store.forget()
            self._store_state = state
        del self.breaches[breaches:]
        self.repeated = dict(repeated)
        self._steps[:] = steps
        for step, was in zip(steps, touched, strict=True):
            step.touched.clear()
            step.touched.update(was)
        self._last_ns, self._jump_declared, self._breach_number = numbers
        self.recorder.put_back(recorder)

    def close(self) -> None:
        """Deliver what is due, write the memory, say that it was in good order and let go of the files."""
        if self.following is not None:
            self.following.stop()
        self.pager.stop()
        if self.heartbeat is not None:
            self.heartbeat.stop()
        if self._kept_cells is not None:
            self._kept_cells.write(running=False)
        if self.journal is not None:
            self.journal.close()
        self.store.close()

    def __repr__(self) -> str:
        frozen = self._latches.scopes()
        state = "FROZEN " + ", ".join(frozen) if frozen else "running"
        return f"<Guard {state} {self.monitor.mutations} mutations {len(self.breaches)} breaches>"


def _located(breach: Breach, scope: str, number: int) -> Breach:
    return msgspec.structs.replace(breach, scope=scope, number=number)
