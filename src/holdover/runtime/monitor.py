"""The monitor: evaluates a catalogue over a stream of mutations, incrementally, with its own memory.

It is independent of testing and production. Its memory survives the death of a subsystem's process, so it
detects what a restart lost. A restarted subsystem reports what it read back with `restore`; from then on the
monitor evaluates those records. A record that is missing or older than remembered must be up to date when the
recovery is declared complete, or `store-agrees-with-memory` is breached.

The monitor is composed of the records and totals (`tables`), the generated checks (`check_compiler`), the running
deadlines, the restarts (`recovery`) and the comparison with the venue (`reconciliation`). The cost of a mutation does
not grow with the number of records; see `check_compiler`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final, TypeVar, cast

import msgspec

from holdover.catalogue import Boundary, Catalogue
from holdover.model import (
    CashMovement,
    Execution,
    FreezeSet,
    Link,
    Position,
    PositionAdjustment,
    Recompute,
    Reconciliation,
    Record,
    Request,
)
from holdover.runtime.breach import Breach, BreachRecord
from holdover.runtime.cells import CellCounter
from holdover.runtime.check import Check, Touched
from holdover.runtime.check_compiler import CheckCompiler, list_needed_sums
from holdover.runtime.deadlines import Deadlines
from holdover.runtime.effort import EffortTracker
from holdover.runtime.explain import explain, explain_error
from holdover.runtime.memory import (
    decode_memory,
    encode_memory,
    restore_deadlines,
    restore_marks,
    restore_retired,
    restore_tables,
)
from holdover.runtime.presence import Presence
from holdover.runtime.reconciliation import VenueComparison
from holdover.runtime.recovery import RecoveryTracker
from holdover.runtime.table_copy import KeyLog, MutationCapture
from holdover.runtime.tables import RecordTables, TableKey
from holdover.state import Stateful

KindT = TypeVar("KindT", bound=Record)

_FACTS: Final = frozenset({Execution, PositionAdjustment, CashMovement})
"""The kinds of record that never change, and that a restarted system may record once more."""


class MonitorState(msgspec.Struct):
    """The state of a monitor. The cells come first: they tell their observers about the cell that is left."""

    cells: CellCounter
    tables: RecordTables
    compiler: CheckCompiler
    deadlines: Deadlines
    recovery: RecoveryTracker
    comparison: VenueComparison
    efforts: EffortTracker
    mutations: int
    breaches: int
    cause: str
    now_ns: int
    trade_date: str
    boundary: str


class Monitor(Stateful[MonitorState]):
    """Evaluates one catalogue. Calls `on_breach` immediately, inside the mutation or settling that found the breach.

    `recomputes_totals` enables a full recomputation of the running totals at each boundary.
    """

    State = MonitorState
    DERIVED: ClassVar = {
        "catalogue": "given when the monitor is made",
        "instruments": "reference data of the explanations, which the monitor's owner keeps",
        "recomputes_totals": "a setting of the harness",
        "_on_breach": "a function of the monitor's owner",
        "exercised": "the names of the invariants that earlier processes have exercised, from their memory",
        "key_log": "follows from the tables; only a guard with a background thread has one",
        "captures": "collect mutations for a copy that is being made in this process",
    }

    def __init__(
        self,
        catalogue: Catalogue,
        on_breach: Callable[[Breach, Check], None],
        frozen: object,
        instruments: dict[str, Any] | None = None,
        cells: CellCounter | None = None,
        subsystems: Iterable[str] = (),
    ) -> None:
        self.catalogue = catalogue
        self.instruments = instruments if instruments is not None else {}
        self.cells = cells if cells is not None else CellCounter()
        self.tables = RecordTables(list_needed_sums(catalogue), self.cells)
        self.compiler = CheckCompiler(
            catalogue,
            self.tables,
            self._report_breach,
            self._set_deadline,
            frozen,
            self.cells,
            Presence(catalogue, subsystems),
            self.instruments,
        )
        self.deadlines = Deadlines()
        self.recovery = RecoveryTracker(self, self.tables)
        self.comparison = VenueComparison(self.compiler, self.tables)
        self.efforts = EffortTracker()
        self.compiler.add_observer(self._observe_effort)
        self.mutations = 0
        self.breaches = 0
        self.cause = ""
        self.now_ns = 0
        self.trade_date = ""
        self.recomputes_totals = True
        self.exercised: frozenset[str] = frozenset()
        self._boundary = ""
        self._on_breach = on_breach
        self.key_log: KeyLog | None = None
        self.captures: list[MutationCapture] = []

    # -- records ------------------------------------------------------------------------------------------------

    def records(self, kind: type[KindT], subsystem: str) -> Mapping[str, KindT]:
        """Return the last record of each key of one kind and subsystem; empty when there is none.

        The mapping is the monitor's own: it changes with the next mutation and must not be changed.
        """
        return cast("Mapping[str, KindT]", self.tables.by_table.get((subsystem, kind), {}))

    def all_records(self) -> Mapping[TableKey, Mapping[str, Record]]:
        """Return all records by (subsystem, kind), then by key. The mappings are the monitor's own."""
        return self.tables.by_table

    # -- mutations ----------------------------------------------------------------------------------------------

    def mutate(self, subsystem: str, record: Record, now_ns: int, touched: Touched) -> Record | None:
        """Store a subsystem's changed record, evaluate the on-mutation invariants and mark what must settle.

        Returns the previous record.
        """
        self.mutations += 1
        self.now_ns = now_ns
        table = (subsystem, record.__class__)
        if table[1] in _FACTS:
            record = self._prepare_fact(table, record)
        if self.recovery.archived and not self.tables.is_restoring:
            self.recovery.find_relearned(table, record, touched)
        compiler = self.compiler
        mutate = compiler._mutate_functions.get(table) or compiler.mutate_function(table)
        before: Record | None = mutate(record, record.key, now_ns, touched)
        if before is None and self.key_log is not None:
            self.key_log.add(table, record.key)
        if self.captures:
            for capture in self.captures:
                capture.add(table, record)
        undo_log = self.recovery.undo_log
        if undo_log is not None and (record.durable or record.derived or record.__class__ is Request):
            undo_log.append((table, record.key, before))
        return before

    def _prepare_fact(self, table: TableKey, record: Record) -> Record:
        """Return the record of a fact as it is stored.

        A fact that a restarted system has not brought back, and records once more, counts as new. A late execution that
        does not state its session gets the one that books it.
        """
        if self.tables.unconfirmed and (table[0], record.key) in self.tables.unconfirmed:
            self.tables.confirm_record(table, record.key)
        if isinstance(record, Execution) and table[0] == "orders" and not self.tables.is_restoring:
            return self._book_execution(record)
        return record

    def _book_execution(self, execution: Execution) -> Execution:
        """Return an execution with the session that books it, when it is late and does not state one.

        A fill of yesterday that the system learns of today moves today's position. The session is that of the position
        or of the last boundary, whichever is later.
        """
        if execution.book_date or not execution.trade_date:
            return execution
        position = self.tables.find(("positions", Position), execution.book_key)
        position_date = position.trade_date if isinstance(position, Position) else ""
        session = max(self.trade_date, position_date)
        return execution if session <= execution.trade_date else msgspec.structs.replace(execution, book_date=session)

    def settle(self, touched: Iterable[tuple[int, str]], now_ns: int) -> None:
        """Evaluate the settled invariants of the keys that a finished step touched."""
        self.now_ns = now_ns
        groups = self.compiler.groups
        for mark in touched:
            group = groups[mark[0]]
            if group.reconciled:
                self.comparison.uncompared[mark] = None
            else:
                (group.settle or self.compiler.settle_function(group))(mark[1], now_ns)

    # -- boundaries ---------------------------------------------------------------------------------------------

    def settle_reconciled(self, now_ns: int) -> None:
        """Compare with the venue what changed since the last time. Call it when nothing is in flight.

        Does nothing while a reconciliation is in progress; `reconciled-within` covers its end.
        """
        self.now_ns = now_ns
        self.comparison.compare_changed(now_ns)

    def boundary(self, boundary: Boundary, *, recovered: Iterable[str] = ()) -> None:
        """Evaluate the invariants of a lifecycle boundary over every key; at `reconciled` also those of the
        reconciliation.

        `recovered` names the subsystems whose recovery this boundary completes.
        """
        if not boundary.name:
            raise ValueError("a boundary needs a name, such as restart: the entries state theirs")
        if self._boundary:
            raise RuntimeError(f"the boundary {boundary.name} was reported inside {self._boundary}")
        self.now_ns, self._boundary = boundary.time_ns, boundary.name
        self.trade_date = boundary.trade_date or self.trade_date
        try:
            for subsystem in recovered:
                for record in self.recovery.complete(subsystem):
                    self._record_and_settle(record)
            for check in self.compiler.checks:
                if check.asserted == "at-boundary" and boundary.name in (check.entry.at or (boundary.name,)):
                    self._evaluate_all_keys(check, boundary)
            if boundary.name == "reconciled":
                self._record_and_settle(self.comparison.compare_all(self.trade_date, boundary.time_ns))
            if self.recomputes_totals:
                self._recompute_totals(boundary.name)
            if boundary.name == "overnight":
                self.retire_orders(self.trade_date)
        finally:
            self._boundary = ""

    def _evaluate_all_keys(self, check: Check, boundary: Boundary) -> None:
        anchor = check.bound.anchor
        by_table = self.tables.by_table
        for table in [table for table in by_table if table[1] is anchor.kind and anchor.subsystem in (None, table[0])]:
            for key in list(by_table[table]):
                self.evaluate(check, table, key, boundary)

    def evaluate(self, check: Check, table: TableKey, key: str, boundary: Boundary | None = None) -> bool | None:
        """Evaluate one predicate on one key in the current state. A failure is a breach.

        Returns the result; None when the predicate does not apply.
        """
        arguments = self.compiler.arguments(check, table, key, boundary)
        if arguments is None:
            return None
        self.compiler.evaluated[0] += 1
        try:
            result = check.bound.function(*arguments)
        except Exception as raised:
            self._report_breach(check, table[0], key, arguments, raised)
            return False
        if result:
            self.compiler.tally[check.number] += 1
        elif result is not None:
            self._report_breach(check, table[0], key, arguments, None)
        return result

    def holds(self, invariant: str, subsystem: str, kind: str, key: str) -> bool | None:
        """Whether one invariant holds for one key now, without reporting a breach; None when that is unknown."""
        answers: list[bool] = []
        for check in self.compiler.checks:
            if check.entry.name != invariant:
                continue
            for table in [t for t in self.tables.by_table if t[0] == subsystem and t[1].__name__ == kind]:
                if check.bound.anchor.kind is not table[1]:
                    continue  # another predicate of the invariant judges records of this kind
                arguments = self.compiler.arguments(check, table, key, None)
                if arguments is None:
                    continue
                try:
                    result = check.bound.function(*arguments)
                except Exception:
                    return False
                if result is not None:
                    answers.append(bool(result))
        return all(answers) if answers else None

    def lacks_records(self, invariant: str, subsystem: str, kind: str, key: str) -> bool:
        """Whether an invariant cannot be evaluated for one key now because records that it compares are missing.

        False for a predicate over a change or a boundary: what it judged is over.
        """
        checks = [
            (check, table)
            for check in self.compiler.checks
            if check.entry.name == invariant
            for table in self.tables.by_table
            if table[0] == subsystem and table[1].__name__ == kind and check.bound.anchor.kind is table[1]
        ]
        return all(
            self.compiler.arguments(check, table, key, None) is None
            and not any(read.source in ("before", "boundary") for read in check.bound.reads)
            for check, table in checks
        )

    def _recompute_totals(self, boundary: str) -> None:
        count, differences = self.tables.find_total_differences()
        self._record_and_settle(
            Recompute(
                boundary=boundary,
                totals=count,
                differences=len(differences),
                first=differences[0] if differences else "",
            )
        )

    def record_freeze_check(self, boundary: str, in_force: int, lost_freezes: list[str]) -> None:
        """Record the guard's comparison of the freezes in force with those that it had set."""
        self._record_and_settle(
            FreezeSet(
                boundary=boundary,
                in_force=in_force,
                lost_count=len(lost_freezes),
                first=lost_freezes[0] if lost_freezes else "",
            )
        )

    def record_self_check(self, record: Record, now_ns: int) -> None:
        """Record the result of one of the guard's own checks."""
        self.now_ns = now_ns
        self._record_and_settle(record)

    def _record_and_settle(self, record: Record | None) -> None:
        if record is not None:
            touched: Touched = {}
            self.mutate("guard", record, self.now_ns, touched)
            self.settle(touched, self.now_ns)

    # -- restarts and nights ------------------------------------------------------------------------------------

    def restore(self, subsystem: str, records: Iterable[Record], now_ns: int, touched: Touched) -> None:
        """Take the records that a restarted subsystem read back; the monitor evaluates these from now on.

        A durable record that did not come back, or came back older, counts as unrestored until the recovery is
        declared complete.
        """
        self.now_ns = now_ns
        self.compiler.presence.add_subsystem(subsystem)
        self.tables.is_restoring = True
        try:
            with self.cells.suspend_counting():
                self.recovery.restore(subsystem, records, now_ns, touched)
        finally:
            self.tables.is_restoring = False

    def undo_open_steps(self, has_left: Callable[[Record], bool]) -> None:
        """Undo the steps in the undo log after their process died: it must bring back the records from before them.

        The process's store may or may not contain the records of the open step, and both are correct; it must not be
        older. A request for which `has_left` is true is not undone, because it has been sent.
        """
        with self.cells.suspend_counting():
            self.recovery.undo_open_steps(has_left)

    def retire_orders(self, before_date: str) -> int:
        """Retire closed orders last touched before a trading day; see `RecordTables.retire_orders`."""
        retired_count = self.tables.retire_orders(before_date)
        self.comparison.forget_removed_keys()
        if self.key_log is not None:
            self.key_log.reset(self.tables.by_table)
        return retired_count

    # -- time ---------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """Evaluate the invariants whose time has run out."""
        self.now_ns = now_ns
        if self.deadlines.is_paused:
            return
        while (due := self.deadlines.pop_due(now_ns)) is not None:
            number, subsystem, key = due
            check = self.compiler.checks[number]
            table = self._table_of(check, subsystem)
            arguments = self.compiler.arguments(check, table, key, None) if table else None
            if arguments is None:
                continue
            try:
                result = check.bound.function(*arguments)
            except Exception as raised:
                self._report_breach(check, subsystem, key, arguments, raised)
                continue
            if result is None:
                self._set_deadline(check, subsystem, key, now_ns, None)
            elif not result:
                self._report_breach(check, subsystem, key, arguments, None)

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Report no breach while records are restored: the process that recorded them has reported its breaches."""
        on_breach, self._on_breach = self._on_breach, _ignore_breach
        try:
            yield
        finally:
            self._on_breach = on_breach

    def mark_subject_up(self, now_ns: int) -> None:
        """Mark the guarded process as up again: every running deadline starts over."""
        checks = self.compiler.checks
        self.deadlines.restart_all(lambda number: checks[number].entry.within_ns, now_ns)

    def remaining_times(self) -> list[list[object]]:
        """Return the running deadlines: invariant, subsystem, key and remaining time in ns."""
        return sorted(
            [self.compiler.checks[number].entry.name, subsystem, key, due_ns - self.now_ns]
            for (number, subsystem, key), due_ns in self.deadlines.running().items()
        )

    def _set_deadline(self, check: Check, subsystem: str, key: str, now_ns: int, result: bool | None) -> None:
        mark = (check.number, subsystem, key)
        if result:
            self.deadlines.stop(mark)
        elif result is None or not self.deadlines.is_running(mark):
            self.deadlines.start(mark, now_ns + check.entry.within_ns)

    def _observe_effort(self, table: TableKey) -> Callable[[Record], None] | None:
        """Return what follows the reconciliation effort of links, for the tables that it depends on."""
        if table[1] is Link or table[1] is Reconciliation:
            return self._record_effort
        return None

    def _record_effort(self, record: Record) -> None:
        if self.tables.is_restoring:
            return
        effort = None
        if isinstance(record, Link):
            effort = self.efforts.observe_link(record, self.now_ns)
        elif isinstance(record, Reconciliation):
            effort = self.efforts.observe_reconciliation(record, self.now_ns)
        self._record_and_settle(effort)

    def _table_of(self, check: Check, subsystem: str) -> TableKey | None:
        kind = check.bound.anchor.kind
        table = (subsystem, kind) if kind is not None else None
        return table if table in self.tables.by_table else None

    # -- breaches -----------------------------------------------------------------------------------------------

    def _report_breach(
        self, check: Check, subsystem: str, key: str, arguments: tuple[Any, ...], raised: BaseException | None
    ) -> None:
        self.breaches += 1
        anchor = arguments[0] if arguments else None
        if raised is None:
            explanation = explain(check.bound, arguments, self.instruments)
        else:
            explanation = explain_error(check.bound, arguments, raised, self.instruments)
        breach = Breach(
            number=self.breaches,
            invariant=check.entry.name,
            scope="",
            subsystem=subsystem,
            kind=type(anchor).__name__,
            key=key,
            time_ns=self.now_ns,
            mutation=self.mutations,
            cause=self.cause,
            explanation=explanation,
            severity=check.entry.severity,
            digest=self.catalogue.digest,
            records=[
                BreachRecord(read.parameter, type(value).__name__, repr(value), msgspec.to_builtins(value))
                for read, value in zip(check.bound.reads, arguments, strict=True)
                if isinstance(value, Record)
            ],
            boundary=self._boundary,
            cell=self.cells.known_values(),
            after=self.cells.last_transition,
        )
        self._on_breach(breach, check)

    @property
    def check_count(self) -> int:
        """The number of predicates evaluated."""
        return self.compiler.evaluated[0]

    def evaluation_counts(self) -> dict[str, int]:
        """Return how often each invariant was evaluated with its precondition met; 0 when nothing exercised it."""
        counts: dict[str, int] = {}
        for check in self.compiler.checks:
            counts[check.entry.name] = counts.get(check.entry.name, 0) + self.compiler.tally[check.number]
        return counts

    # -- memory -------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Return the whole memory, for `restore_bytes` in another process; see `memory`."""
        return encode_memory(self)

    def restore_bytes(self, data: bytes) -> None:
        """Replace the memory by one that `to_bytes` returned.

        Raises `StateError` when it is damaged or of another version; the monitor is then unchanged.
        """
        memory = decode_memory(data)
        tables = restore_tables(memory.by_table)
        unrestored = restore_tables(memory.unrestored)
        deadlines = restore_deadlines(memory.due_by_key, self)
        scratch: Touched = {}
        with self.cells.suspend_counting(), self.silence():
            self.tables.clear()
            self.tables.restore_retired(restore_retired(memory.retired, list(self.tables.totals)))
            self.tables.is_restoring = True
            try:
                self.compiler.presence.restore(memory.present)
                for (subsystem, _), records in tables.items():
                    for record in records.values():
                        self.mutate(subsystem, record, memory.now_ns, scratch)
            finally:
                self.tables.is_restoring = False
            self.compiler.recent.clear()
            self.tables.adopted.update({(subsystem, key): adoption for subsystem, key, adoption in memory.adopted})
            self.tables.unconfirmed.update(memory.unconfirmed)
            self.cells.restore_state(memory.cells)
        self.tables.retired_orders[:] = memory.retired_orders
        self.recovery.unrestored, self.recovery.restored_counts = unrestored, memory.restored_counts
        self.recovery.restored_kinds = set(memory.restored_kinds)
        self.recovery.restored_orders.clear()
        self.deadlines.restore(deadlines)
        self.deadlines.is_paused = memory.is_paused
        self.efforts.by_link.clear()
        self.efforts.by_link.update(memory.efforts)
        self.exercised = frozenset(memory.exercised)
        self.compiler.tally[:] = [0] * len(self.compiler.tally)
        self.comparison.uncompared = restore_marks(memory.uncompared, self)
        self.trade_date = memory.trade_date
        self.mutations, self.breaches, self.now_ns = memory.mutations, memory.breaches, memory.now_ns
        self.compiler.evaluated[0] = memory.evaluated

    def _after_restore(self) -> None:
        if self.cells.on_rollback is not None:
            self.cells.on_rollback()


def _ignore_breach(breach: Breach, check: Check) -> None:
    """Ignore a breach."""
