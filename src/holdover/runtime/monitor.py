"""The monitor: evaluates a catalogue over a stream of mutations, incrementally, with its own memory.

It is independent of testing and production. Its memory survives the death of a subsystem's process, so it
detects what a restart lost. A restarted subsystem reports what it read back with `restore`; from then on the
monitor evaluates those records. A record that is missing or older than remembered must be up to date when the
recovery is declared complete, or `store-agrees-with-memory` is breached.

The cost of a mutation does not grow with the number of records; see `layout`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from holdover.catalogue import Boundary, Catalogue
from holdover.model import (
    ExecType,
    Execution,
    FreezeSet,
    Order,
    OrdStatus,
    Position,
    Recompute,
    Reconciliation,
    Record,
    Recovery,
    Request,
)
from holdover.runtime.breach import Breach, BreachRecord
from holdover.runtime.cells import CellCounter
from holdover.runtime.explain import explain
from holdover.runtime.idempotence import ReconciliationIdempotence
from holdover.runtime.layout import Check, Layout, TableKey, Touched

NEVER_NS = 2**63 - 1
_RETIRED_NIGHTS_MAX: Final = 5  # nights for which the totals of a retired order are kept


class Monitor:
    """Evaluates one catalogue. Calls `on_breach` immediately, inside the mutation or settling that found the breach.

    `undo_log`, when it is a list, records what the open steps changed, for `undo_open_steps`. `recomputes_totals`
    enables a full recomputation of the running totals at each boundary.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        on_breach: Callable[[Breach, Check], None],
        frozen: object,
        instruments: dict[str, Any] | None = None,
        cells: CellCounter | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.instruments = instruments if instruments is not None else {}
        self.cells = cells if cells is not None else CellCounter()
        self.layout = Layout(catalogue, self._report_breach, self._set_timer, frozen, self.cells)
        self.mutations = 0
        self.breaches = 0
        self.next_ns = NEVER_NS
        self.cause = ""
        self.now_ns = 0
        self._on_breach = on_breach
        self.trade_date = ""
        self._boundary = ""
        self._timers: list[tuple[int, int, str, str]] = []
        self._deadlines: dict[tuple[int, str, str], int] = {}
        self._unreconciled: Touched = {}
        self._unrestored: dict[TableKey, dict[str, Record]] = {}
        self._restored_counts: dict[str, int] = {}
        self.undo_log: list[tuple[TableKey, str, Record | None]] | None = None
        self.is_subject_down = False
        self.recomputes_totals = True
        self._idempotence = ReconciliationIdempotence()
        self._retired_orders: list[tuple[str, str, str]] = []

    # -- mutations ----------------------------------------------------------------------------------------------

    def mutate(self, subsystem: str, record: Record, now_ns: int, touched: Touched) -> Record | None:
        """Store a subsystem's changed record, evaluate the on-mutation invariants and mark what must settle.

        Returns the previous record.
        """
        self.mutations += 1
        self.now_ns = now_ns
        table = (subsystem, record.__class__)
        mutate = self.layout._mutate_functions.get(table) or self.layout.mutate_function(table)
        before: Record | None = mutate(record, record.key, now_ns, touched)
        if self.undo_log is not None and (record.durable or record.derived or record.__class__ is Request):
            self.undo_log.append((table, record.key, before))
        return before

    def settle(self, touched: Iterable[tuple[int, str]], now_ns: int) -> None:
        """Evaluate the settled invariants of the keys that a finished step touched."""
        self.now_ns = now_ns
        groups = self.layout.groups
        for mark in touched:
            group = groups[mark[0]]
            if group.reconciled:
                self._unreconciled[mark] = None
            else:
                (group.settle or self.layout.settle_function(group))(mark[1], now_ns)

    # -- boundaries ---------------------------------------------------------------------------------------------

    def settle_reconciled(self, now_ns: int) -> None:
        """Compare with the venue what changed since the last time. Call it when nothing is in flight.

        Does nothing while a reconciliation is in progress; `reconciled-within` covers its end.
        """
        self.now_ns = now_ns
        if self._unreconciled and not self._is_reconciling():
            marks, self._unreconciled = self._unreconciled, {}
            for number, key in marks:
                group = self.layout.groups[number]
                (group.settle or self.layout.settle_function(group))(key, now_ns)

    def _is_reconciling(self) -> bool:
        return any(
            isinstance(record, Reconciliation) and not record.is_complete
            for table, records in self.layout.tables.items()
            if table[1] is Reconciliation
            for record in records.values()
        )

    def boundary(self, boundary: Boundary, *, recovered: Iterable[str] = ()) -> None:
        """Evaluate the invariants of a lifecycle boundary over every key; at `reconciled` also those of the
        reconciliation.

        `recovered` names the subsystems whose recovery this boundary completes.
        """
        self.now_ns, self._boundary = boundary.time_ns, boundary.name
        self.trade_date = boundary.trade_date or self.trade_date
        try:
            for subsystem in recovered:
                self._complete_recovery(subsystem, boundary.time_ns)
            for check in self.layout.checks:
                if check.asserted == "at-boundary" and boundary.name in (check.entry.at or (boundary.name,)):
                    self._evaluate_all_keys(check, boundary)
            if boundary.name == "reconciled":
                self._unreconciled.clear()
                for group in self.layout.groups:
                    if group.reconciled:
                        settle = self.layout.settle_function(group)
                        for key in list(self.layout.records_of(group.table)):
                            settle(key, boundary.time_ns)
                repetition = self._idempotence.compare(self.layout.tables, self.trade_date)
                if repetition is not None:
                    self._mutate_and_settle(repetition)
            self._recompute(boundary)
            if boundary.name == "overnight":
                self.retire_orders(self.trade_date)
        finally:
            self._boundary = ""

    def _evaluate_all_keys(self, check: Check, boundary: Boundary) -> None:
        anchor = check.bound.anchor
        for table in [t for t in self.layout.tables if t[1] is anchor.kind and anchor.subsystem in (None, t[0])]:
            for key in list(self.layout.tables[table]):
                self.evaluate(check, table, key, boundary)

    def evaluate(self, check: Check, table: TableKey, key: str, boundary: Boundary | None = None) -> bool | None:
        """Evaluate one predicate on one key in the current state. A failure is a breach.

        Returns the result; None when the predicate does not apply.
        """
        arguments = self.layout.arguments(check, table, key, boundary)
        if arguments is None:
            return None
        self.layout.evaluated[0] += 1
        try:
            result = check.bound.function(*arguments)
        except Exception as raised:
            self._report_breach(check, table[0], key, arguments, raised)
            return False
        if result:
            self.layout.tally[check.number] += 1
        elif result is not None:
            self._report_breach(check, table[0], key, arguments, None)
        return result

    def holds(self, invariant: str, subsystem: str, kind: str, key: str) -> bool | None:
        """Whether one invariant holds for one key now, without reporting a breach; None when that is unknown."""
        answers: list[bool] = []
        for check in self.layout.checks:
            if check.entry.name != invariant:
                continue
            for table in [t for t in self.layout.tables if t[0] == subsystem and t[1].__name__ == kind]:
                arguments = self.layout.arguments(check, table, key, None)
                if check.bound.anchor.kind is not table[1] or arguments is None:
                    continue
                try:
                    result = check.bound.function(*arguments)
                except Exception:
                    return False
                if result is not None:
                    answers.append(bool(result))
        return all(answers) if answers else None

    def _recompute(self, boundary: Boundary) -> None:
        if not self.recomputes_totals:
            return
        recomputed = self.layout.recompute_totals()
        differing: list[str] = []
        count = 0
        for summed, totals in self.layout.totals.items():
            expected = recomputed.get(summed, {})
            for key in dict.fromkeys([*totals, *expected]):
                count += 1
                if totals.get(key, 0) != expected.get(key, 0):
                    name = f"{summed.subsystem}.{summed.kind.__name__}.{summed.of}[{key}]"
                    differing.append(f"{name} kept {totals.get(key, 0)} recomputed {expected.get(key, 0)}")
        self._mutate_and_settle(
            Recompute(
                boundary=boundary.name,
                totals=count,
                differences=len(differing),
                first=differing[0] if differing else "",
            )
        )

    def record_freeze_check(self, boundary: str, in_force: int, lost_freezes: list[str]) -> None:
        """Record the guard's comparison of the freezes in force with those that it had set."""
        self._mutate_and_settle(
            FreezeSet(
                boundary=boundary,
                in_force=in_force,
                lost_count=len(lost_freezes),
                first=lost_freezes[0] if lost_freezes else "",
            )
        )

    def _mutate_and_settle(self, record: Record) -> None:
        touched: Touched = {}
        self.mutate("guard", record, self.now_ns, touched)
        self.settle(touched, self.now_ns)

    def record_self_check(self, record: Record, now_ns: int) -> None:
        """Record the result of one of the guard's own checks."""
        self.now_ns = now_ns
        self._mutate_and_settle(record)

    # -- restarts -----------------------------------------------------------------------------------------------

    def restore(self, subsystem: str, records: Iterable[Record], now_ns: int, touched: Touched) -> None:
        """Take the records that a restarted subsystem read back; the monitor evaluates these from now on.

        A durable record that did not come back, or came back older, counts as unrestored until the recovery is
        declared complete.
        """
        with self.cells.suspend_counting():
            self._restore(subsystem, records, now_ns, touched)

    def _restore(self, subsystem: str, records: Iterable[Record], now_ns: int, touched: Touched) -> None:
        self.now_ns = now_ns
        restored_tables: dict[TableKey, dict[str, Record]] = {}
        for record in records:
            restored_tables.setdefault((subsystem, type(record)), {})[record.key] = record
        count = sum(len(table_records) for table_records in restored_tables.values())
        latest = self.trade_date or self._latest_trade_date(subsystem)
        executed = self._executed_since(subsystem, latest, restored_tables.get((subsystem, Execution), {}))
        for table in list(self.layout.tables):
            if table[0] != subsystem or not (table[1].durable or table[1].derived):
                continue
            remembered = self.layout.tables[table]
            restored = restored_tables.get(table, {})
            unrestored = self._unrestored.setdefault(table, {})
            for key, record in list(remembered.items()):
                if key not in restored and not self._is_still_needed(record, latest, executed):
                    continue
                restored_record = restored.get(key)
                if restored_record == record:
                    del restored[key]  # unchanged: nothing to evaluate again
                    continue
                if self._must_be_restored(table, record):
                    unrestored[key] = record
                order_before_today = (
                    None if restored_record is not None else self._order_before_today(record, latest, executed)
                )
                if order_before_today is not None:
                    self.layout.reset_record(table, key, order_before_today)
                    continue
                self.layout.forget_record(table, key)
                for group in self.layout.groups:
                    if group.table == table:
                        touched[group.number, key] = None
        self._restored_counts[subsystem] = count
        for restored in restored_tables.values():
            for record in restored.values():
                self.mutate(subsystem, record, now_ns, touched)

    def undo_open_steps(self, has_left: Callable[[Record], bool]) -> None:
        """Undo the steps in `undo_log` after their process died: it must bring back the records from before them.

        The process's store may or may not contain the records of the open step, and both are correct; it must not be
        older. A request for which `has_left` is true is not undone, because it has been sent.
        """
        undo_log, self.undo_log = self.undo_log or [], []
        with self.cells.suspend_counting():
            for table, key, before in reversed(undo_log):
                if table[0] != "venue" and not (table[1] is Request and has_left(self.layout.tables[table][key])):
                    self.layout.reset_record(table, key, before)

    def _must_be_restored(self, table: TableKey, record: Record) -> bool:
        """Whether a restarted system must bring this record back.

        It need not bring back a derived record, an order that the venue never acknowledged (if the venue has it
        anyway, the reconciliation reports it), or an order that ended unfilled.
        """
        if not table[1].durable:
            return False
        if not isinstance(record, Order):
            return True
        unacknowledged = record.ord_status == OrdStatus.PENDING_NEW and not record.order_id
        return not unacknowledged and (record.is_open or record.cum_qty != 0)

    def _latest_trade_date(self, subsystem: str) -> str:
        dates = [
            record.booked_on
            for table, records in self.layout.tables.items()
            if table[0] == subsystem and table[1] is Execution
            for record in records.values()
            if isinstance(record, Execution)
        ]
        return max(dates, default="")

    def _executed_since(
        self, subsystem: str, latest: str, restored: Mapping[str, Record]
    ) -> dict[str, tuple[int, int]]:
        """Return the orders with executions booked on a day or later; yesterday's order may fill in today's session.

        For each order: the lots and the notional of the executions that were not restored.
        """
        executed: dict[str, tuple[int, int]] = {}
        for execution in self.layout.tables.get((subsystem, Execution), {}).values():
            if isinstance(execution, Execution) and execution.booked_on >= latest:
                lots, notional = executed.get(execution.root_cl_ord_id, (0, 0))
                is_missing = execution.key not in restored
                executed[execution.root_cl_ord_id] = (
                    lots + is_missing * execution.qty_delta,
                    notional + is_missing * execution.notional_delta,
                )
        return executed

    def _order_before_today(self, record: Record, latest: str, executed: Mapping[str, tuple[int, int]]) -> Order | None:
        """Return an order of an earlier day as it was filled then, if a bust or correction of today had reopened it.

        A system that lost today's change has the closed order in its archive and need not read it back.
        """
        if not isinstance(record, Order) or record.trade_date >= latest or record.key not in executed:
            return None
        lots, notional = executed[record.key]
        if not lots or record.cum_qty - lots < record.order_qty:
            return None
        return replace(
            record,
            cum_qty=record.cum_qty - lots,
            notional=record.notional - notional,
            leaves_qty=0,
            ord_status=OrdStatus.FILLED,
            exec_type=ExecType.TRADE,
            exec_id="",
            exec_ref_id="",
        )

    def _is_still_needed(self, record: Record, latest: str, executed: Mapping[str, tuple[int, int]]) -> bool:
        """Whether a restarted system still needs the record: it is open, of the last day, or not flat.

        An order that ended unfilled contributes nothing: if it is not brought back, it may be learnt again from its
        start.
        """
        if isinstance(record, Order):
            recent = record.trade_date >= latest or record.root_cl_ord_id in executed
            return recent or record.is_open or record.cum_qty == 0
        if isinstance(record, Execution):
            order = self.layout.tables.get(("orders", Order), {}).get(record.root_cl_ord_id)
            return record.booked_on >= latest or (isinstance(order, Order) and order.is_open)
        if isinstance(record, Position):
            return record.net_qty != 0
        return True

    def _complete_recovery(self, subsystem: str, now_ns: int) -> None:
        if subsystem not in self._restored_counts:
            return
        missing: list[str] = []
        regressed: list[str] = []
        for table in [t for t in self._unrestored if t[0] == subsystem]:
            records = self.layout.tables.get(table, {})
            for key, previous in self._unrestored.pop(table).items():
                if self._has_ended_unfilled(previous):
                    continue
                current = records.get(key)
                if current is None:
                    missing.append(repr(previous))
                elif _has_regressed(previous, current) and not self._is_amended(subsystem, key):
                    regressed.append(f"{previous!r} came back as {current!r}")
        first = next(iter([*missing, *regressed]), "")
        self._mutate_and_settle(
            Recovery(
                subsystem=subsystem,
                restored=self._restored_counts.pop(subsystem),
                missing=len(missing),
                regressed=len(regressed),
                first=first,
            )
        )

    def _is_amended(self, subsystem: str, root: str) -> bool:
        """Whether an execution of this order was busted or corrected; the order may then be behind."""
        return any(
            isinstance(execution, Execution) and execution.root_cl_ord_id == root and execution.exec_ref_id != ""
            for execution in self.layout.tables.get((subsystem, Execution), {}).values()
        )

    def _has_ended_unfilled(self, record: Record) -> bool:
        """Whether the venue has ended the order without a fill; no further report will come for it."""
        if not isinstance(record, Order) or record.cum_qty:
            return False
        venue_order = self.layout.tables.get(("venue", Order), {}).get(record.key)
        return isinstance(venue_order, Order) and not venue_order.is_open and venue_order.cum_qty == 0

    # -- time ---------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """Evaluate the invariants whose time has run out."""
        self.now_ns = now_ns
        if self.is_subject_down:
            return
        while self._timers and self._timers[0][0] <= now_ns:
            due, number, subsystem, key = heapq.heappop(self._timers)
            if self._deadlines.get((number, subsystem, key)) != due:
                continue
            check = self.layout.checks[number]
            table = self._table_of(check, subsystem)
            arguments = self.layout.arguments(check, table, key, None) if table else None
            del self._deadlines[number, subsystem, key]
            if arguments is None:
                continue
            try:
                result = check.bound.function(*arguments)
            except Exception as raised:
                self._report_breach(check, subsystem, key, arguments, raised)
                continue
            if result is None:
                self._set_timer(check, subsystem, key, now_ns, None)
            elif not result:
                self._report_breach(check, subsystem, key, arguments, None)
        self.next_ns = self._timers[0][0] if self._timers else NEVER_NS

    def mark_subject_up(self, now_ns: int) -> None:
        """Mark the guarded process as up again: every running deadline starts over."""
        self.is_subject_down = False
        self._deadlines = {mark: now_ns + self.layout.checks[mark[0]].entry.within_ns for mark in self._deadlines}
        self._timers = [(due, *mark) for mark, due in self._deadlines.items()]
        heapq.heapify(self._timers)
        self.next_ns = self._timers[0][0] if self._timers else NEVER_NS

    def _set_timer(self, check: Check, subsystem: str, key: str, now_ns: int, result: bool | None) -> None:
        mark = (check.number, subsystem, key)
        if result:
            if self._deadlines:
                self._deadlines.pop(mark, None)
        elif result is None or mark not in self._deadlines:
            due = now_ns + check.entry.within_ns
            self._deadlines[mark] = due
            heapq.heappush(self._timers, (due, *mark))
            if due < self.next_ns:
                self.next_ns = due

    def _table_of(self, check: Check, subsystem: str) -> TableKey | None:
        return next(
            (table for table in self.layout.tables if table[0] == subsystem and table[1] is check.bound.anchor.kind),
            None,
        )

    # -- breaches -----------------------------------------------------------------------------------------------

    def _report_breach(
        self, check: Check, subsystem: str, key: str, arguments: tuple[Any, ...], raised: BaseException | None
    ) -> None:
        self.breaches += 1
        anchor = arguments[0] if arguments else None
        if raised is None:
            explanation = explain(check.bound, arguments, self.instruments)
        else:
            error_text = f"{type(raised).__name__}: {raised}"
            explanation = (
                f"{check.entry.name}: {anchor!r}: the predicate raised {error_text}, which is a breach, not a pass"
            )
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

    # -- memory -------------------------------------------------------------------------------------------------

    def retire_orders(self, before_date: str) -> int:
        """Retire closed orders last touched before a trading day, with their executions and requests.

        Totals stay unchanged. Returns how many records were retired. Each night does this for its day; without it,
        memory would grow for as long as the process runs.
        """
        retired_count = 0
        for table, records in list(self.layout.tables.items()):
            if table[1] is not Order:
                continue
            executions = (table[0], Execution)
            by_order: dict[str, list[str]] = {}
            for key, execution in self.layout.tables.get(executions, {}).items():
                if isinstance(execution, Execution):
                    by_order.setdefault(execution.root_cl_ord_id, []).append(key)
            for key, order in list(records.items()):
                if not isinstance(order, Order) or order.is_open:
                    continue
                booked = by_order.get(key, [])
                dates = [
                    getattr(self.layout.tables[executions][execution_key], "booked_on", "") for execution_key in booked
                ]
                if max([order.trade_date, *dates]) >= before_date:
                    continue
                for execution_key in booked:
                    self.layout.retire_record(executions, execution_key)
                self.layout.retire_record(table, key)
                self._retired_orders.append((before_date, table[0], key))
                retired_count += 1 + len(booked)
        self._forget_retired_orders()
        order_keys = {key for table, records in self.layout.tables.items() if table[1] is Order for key in records}
        for table, records in list(self.layout.tables.items()):
            if table[1] is Request:
                for key, request in list(records.items()):
                    # A request without a date cannot be told apart from one of today.
                    dated = isinstance(request, Request) and "" < request.trade_date < before_date
                    if dated and getattr(request, "root_cl_ord_id", "") not in order_keys:
                        self.layout.retire_record(table, key)
                        retired_count += 1
        return retired_count

    def _forget_retired_orders(self) -> None:
        """Forget the totals of retired orders some nights later; no trade is busted so late."""
        groups = self.layout.groups
        for mark in [
            mark for mark in self._unreconciled if mark[1] not in self.layout.records_of(groups[mark[0]].table)
        ]:
            del self._unreconciled[mark]
        nights = sorted({night for night, _, _ in self._retired_orders})[:-_RETIRED_NIGHTS_MAX]
        for night, subsystem, key in self._retired_orders:
            if night in nights:
                self.layout.forget_retired_order(subsystem, key)
        if nights:
            self._retired_orders = [entry for entry in self._retired_orders if entry[0] not in nights]

    @property
    def check_count(self) -> int:
        """The number of predicates evaluated."""
        return self.layout.evaluated[0]

    def evaluation_counts(self) -> dict[str, int]:
        """Return how often each invariant was evaluated with its precondition met; 0 when nothing exercised it."""
        counts: dict[str, int] = {}
        for check in self.layout.checks:
            counts[check.entry.name] = counts.get(check.entry.name, 0) + self.layout.tally[check.number]
        return counts

    def checkpoint(self) -> Any:
        """Return the monitor's state for `rollback` in the same process."""
        return (
            self.layout.checkpoint(),
            (self.mutations, self.breaches, self.next_ns, self.cause, self.now_ns, self.trade_date, self._boundary),
            list(self._timers),
            dict(self._deadlines),
            dict(self._unreconciled),
            {table: dict(records) for table, records in self._unrestored.items()},
            dict(self._restored_counts),
            None if self.undo_log is None else list(self.undo_log),
            self.cells.checkpoint(),
            self.is_subject_down,
            self._idempotence.last_tables,
            list(self._retired_orders),
        )

    def rollback(self, checkpoint: Any) -> None:
        """Restore the monitor to a checkpoint."""
        (
            layout,
            counts,
            timers,
            deadlines,
            unreconciled,
            unrestored,
            restored_counts,
            undo_log,
            cells,
            self.is_subject_down,
            self._idempotence.last_tables,
            retired_orders,
        ) = checkpoint
        self._retired_orders = list(retired_orders)
        self.cells.rollback(cells)
        self.layout.rollback(layout)
        if self.cells.on_rollback is not None:
            self.cells.on_rollback()
        self.mutations, self.breaches, self.next_ns, self.cause, self.now_ns, self.trade_date, self._boundary = counts
        self._timers, self._deadlines, self._unreconciled = list(timers), dict(deadlines), dict(unreconciled)
        self._unrestored = {table: dict(records) for table, records in unrestored.items()}
        self._restored_counts, self.undo_log = dict(restored_counts), None if undo_log is None else list(undo_log)

    def remaining_times(self) -> list[list[object]]:
        """Return the running deadlines: invariant, subsystem, key and remaining time in ns."""
        return sorted(
            [self.layout.checks[number].entry.name, subsystem, key, due - self.now_ns]
            for (number, subsystem, key), due in self._deadlines.items()
        )

    def to_bytes(self) -> bytes:
        """Return the whole memory, for `restore_bytes` in another process with the same catalogue."""
        return msgspec.msgpack.encode(
            {
                "digest": self.catalogue.digest,
                "trade_date": self.trade_date,
                "counts": [self.mutations, self.breaches, self.now_ns, self.check_count],
                "tables": [
                    [table[0], table[1].__name__, list(records.values())]
                    for table, records in self.layout.tables.items()
                ],
                "retired": [
                    [summed.subsystem, summed.kind.__name__, summed.of, summed.by, base]
                    for summed, base in self.layout.retired.items()
                ],
                "armed": [[*mark, due] for mark, due in self._deadlines.items()],
                "over": self._retired_orders,
                "gone": self.is_subject_down,
                "lost": [
                    [table[0], table[1].__name__, list(records.values())] for table, records in self._unrestored.items()
                ],
                "restored": self._restored_counts,
                "reconcile": [[*self.layout.groups[number].table_name, key] for number, key in self._unreconciled],
                "tally": self.evaluation_counts(),
                "cells": self.cells.export_state(),
            }
        )

    def restore_bytes(self, memory: bytes) -> None:
        """Restore a memory that `to_bytes` returned. Raises `ValueError` when it is damaged."""
        with self.cells.suspend_counting():
            self._restore_state(memory)

    def _restore_state(self, memory: bytes) -> None:
        try:
            state = msgspec.msgpack.decode(memory)
            kinds = kinds_by_name()
            self.layout.retired = {
                summed: base
                for subsystem, kind, of, by, base in state["retired"]
                for summed in self.layout.totals
                if (summed.subsystem, summed.kind.__name__, summed.of, summed.by) == (subsystem, kind, of, by)
            }
            for summed, base in self.layout.retired.items():
                self.layout.totals[summed].update(base)
            scratch: Touched = {}
            on_breach, self._on_breach = self._on_breach, lambda breach, check: None
            for subsystem, kind, records in state["tables"]:
                for record in records:
                    self.mutate(subsystem, msgspec.convert(record, kinds[kind]), state["counts"][2], scratch)
            self._on_breach = on_breach
            self._unrestored = {
                (subsystem, kinds[kind]): {
                    r.key: r for r in (msgspec.convert(fields, kinds[kind]) for fields in records)
                }
                for subsystem, kind, records in state["lost"]
            }
            self._restored_counts = state["restored"]
            self._retired_orders = [(night, place, key) for night, place, key in state.get("over", [])]
            for number, subsystem, key, due in state["armed"]:
                self._deadlines[number, subsystem, key] = due
                heapq.heappush(self._timers, (due, number, subsystem, key))
            for subsystem, kind, key in state["reconcile"]:
                for group in self.layout.groups:
                    if group.reconciled and group.table == (subsystem, kinds[kind]):
                        self._unreconciled[group.number, key] = None
            self.cells.restore_state(state.get("cells", {}))
        except (msgspec.MsgspecError, KeyError, IndexError, TypeError) as problem:
            raise ValueError(f"the monitor's memory is damaged: {problem}") from problem
        self.trade_date, self.is_subject_down = state["trade_date"], state.get("gone", False)
        self.next_ns = self._timers[0][0] if self._timers else NEVER_NS
        self.mutations, self.breaches, self.now_ns, self.layout.evaluated[0] = state["counts"]


def kinds_by_name() -> dict[str, type[Record]]:
    """Return every kind of record defined in this process, including users' kinds, by class name."""
    kinds: dict[str, type[Record]] = {}
    waiting = list(Record.__subclasses__())
    while waiting:
        kind = waiting.pop(0)
        kinds.setdefault(kind.__name__, kind)
        waiting += kind.__subclasses__()
    return kinds


def _has_regressed(previous: Record, current: Record) -> bool:
    """Whether a restored record is older than the remembered one."""
    if isinstance(previous, Order) and isinstance(current, Order):
        return current.cum_qty < previous.cum_qty or (current.is_open and not previous.is_open)
    if isinstance(previous, Execution) and isinstance(current, Execution):
        # After an older backup the venue reports it again, and the current session books it.
        return msgspec.structs.replace(current, book_date=previous.book_date) != previous
    return False
