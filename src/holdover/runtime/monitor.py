"""The monitor evaluates a catalogue over a stream of mutations, incrementally, and remembers.

It knows nothing of testing or of production. Its memory is its own: what a subsystem last recorded stays here when the
subsystem's process dies, so that what a restart lost is noticed. A restarted subsystem says what it read back with
`restore`; from then on it is judged by that, and whatever is missing or older than remembered must have come back by
the time its recovery is declared done, else `store-agrees-with-memory` is breached.

The cost of a mutation does not grow with the number of records: see `layout`.
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
from holdover.runtime.again import Again
from holdover.runtime.breach import Breach, Shown
from holdover.runtime.cells import CellCounter
from holdover.runtime.explain import explain
from holdover.runtime.layout import Check, Layout, TableKey, Touched

NEVER = 2**63 - 1
_NIGHTS: Final = 5  # for so long an order that is over is known by what it came to


class Monitor:
    """Evaluates one catalogue. `on_breach` is called at once, inside the mutation or the settling that found it.

    `undo`, when it is a list, notes what the open steps changed, for `roll_back`. `recomputes` says whether each
    boundary computes the running totals again in full.
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
        self.layout = Layout(catalogue, self._fail, self._arm, frozen, self.cells)
        self.mutations = 0
        self.breaches = 0
        self.next_ns = NEVER
        self.cause = ""
        self.now_ns = 0
        self._on_breach = on_breach
        self.trade_date = ""
        self._boundary = ""
        self._due: list[tuple[int, int, str, str]] = []
        self._armed: dict[tuple[int, str, str], int] = {}
        self._reconcile: Touched = {}
        self._lost: dict[TableKey, dict[str, Record]] = {}
        self._restored: dict[str, int] = {}
        self.undo: list[tuple[TableKey, str, Record | None]] | None = None
        self.gone = False
        self.recomputes = True
        self._again = Again()
        self._over: list[tuple[str, str, str]] = []

    # -- mutations ----------------------------------------------------------------------------------------------

    def mutate(self, subsystem: str, record: Record, now_ns: int, touched: Touched) -> Record | None:
        """One subsystem's record changed: keep it, evaluate what is asserted on mutation, mark what must settle.

        Returns the record that stood there before.
        """
        self.mutations += 1
        self.now_ns = now_ns
        table = (subsystem, record.__class__)
        mutate = self.layout._mutate.get(table) or self.layout.mutate(table)
        before: Record | None = mutate(record, record.key, now_ns, touched)
        if self.undo is not None and (record.durable or record.derived or record.__class__ is Request):
            self.undo.append((table, record.key, before))
        return before

    def settle(self, touched: Iterable[tuple[int, str]], now_ns: int) -> None:
        """The step is over: evaluate the settled invariants of what it touched."""
        self.now_ns = now_ns
        groups = self.layout.groups
        for mark in touched:
            group = groups[mark[0]]
            if group.reconciled:
                self._reconcile[mark] = None
            else:
                (group.settle or self.layout.settle(group))(mark[1], now_ns)

    # -- boundaries ---------------------------------------------------------------------------------------------

    def reconciled(self, now_ns: int) -> None:
        """Nothing is in flight and all that the venue said has been taken in: compare what changed since last time.

        While a reconciliation says that it is not done, nothing is claimed: `reconciled-within` sees to its end.
        """
        self.now_ns = now_ns
        if self._reconcile and not self._still_asking():
            marks, self._reconcile = self._reconcile, {}
            for number, key in marks:
                group = self.layout.groups[number]
                (group.settle or self.layout.settle(group))(key, now_ns)

    def _still_asking(self) -> bool:
        return any(
            isinstance(record, Reconciliation) and not record.done
            for table, kept in self.layout.tables.items()
            if table[1] is Reconciliation
            for record in kept.values()
        )

    def boundary(self, boundary: Boundary, *, recovered: Iterable[str] = ()) -> None:
        """A lifecycle boundary: whatever is asserted at it, over every key; at `reconciled` everything reconcilable.

        `recovered` names the subsystems whose recovery is complete with this boundary.
        """
        self.now_ns, self._boundary = boundary.time_ns, boundary.name
        self.trade_date = boundary.trade_date or self.trade_date
        try:
            for subsystem in recovered:
                self._recovered(subsystem, boundary.time_ns)
            for check in self.layout.checks:
                if check.asserted == "at-boundary" and boundary.name in (check.entry.at or (boundary.name,)):
                    self._sweep(check, boundary)
            if boundary.name == "reconciled":
                self._reconcile.clear()
                for group in self.layout.groups:
                    if group.reconciled:
                        settle = self.layout.settle(group)
                        for key in list(self.layout.table(group.table)):
                            settle(key, boundary.time_ns)
                repetition = self._again.look(self.layout.tables, self.trade_date)
                if repetition is not None:
                    self._own(repetition)
            self._recompute(boundary)
            if boundary.name == "overnight":
                self.retire(self.trade_date)
        finally:
            self._boundary = ""

    def _sweep(self, check: Check, boundary: Boundary) -> None:
        anchor = check.bound.anchor
        for table in [t for t in self.layout.tables if t[1] is anchor.kind and anchor.subsystem in (None, t[0])]:
            for key in list(self.layout.tables[table]):
                self.evaluate(check, table, key, boundary)

    def evaluate(self, check: Check, table: TableKey, key: str, boundary: Boundary | None = None) -> bool | None:
        """Evaluate one predicate on one key as things stand; a failure is a breach like any other."""
        arguments = self.layout.arguments(check, table, key, boundary)
        if arguments is None:
            return None
        self.layout.evaluated[0] += 1
        try:
            result = check.bound.function(*arguments)
        except Exception as raised:
            self._fail(check, table[0], key, arguments, raised)
            return False
        if result:
            self.layout.tally[check.number] += 1
        elif result is not None:
            self._fail(check, table[0], key, arguments, None)
        return result

    def holds(self, invariant: str, subsystem: str, kind: str, key: str) -> bool | None:
        """Whether one invariant holds of one key now, without a breach if not; None where it cannot be told."""
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
        if not self.recomputes:
            return
        found = self.layout.recompute()
        differing: list[str] = []
        count = 0
        for summed, kept in self.layout.totals.items():
            again = found.get(summed, {})
            for key in dict.fromkeys([*kept, *again]):
                count += 1
                if kept.get(key, 0) != again.get(key, 0):
                    name = f"{summed.subsystem}.{summed.kind.__name__}.{summed.of}[{key}]"
                    differing.append(f"{name} kept {kept.get(key, 0)} recomputed {again.get(key, 0)}")
        self._own(
            Recompute(
                boundary=boundary.name,
                totals=count,
                differences=len(differing),
                first=differing[0] if differing else "",
            )
        )

    def freezes_checked(self, boundary: str, in_force: int, lost: list[str]) -> None:
        """What the guard found when it compared the freezes in force with those that it had set."""
        self._own(FreezeSet(boundary=boundary, in_force=in_force, lost=len(lost), first=lost[0] if lost else ""))

    def _own(self, record: Record) -> None:
        touched: Touched = {}
        self.mutate("guard", record, self.now_ns, touched)
        self.settle(touched, self.now_ns)

    def own(self, record: Record, now_ns: int) -> None:
        """A record that the guard makes about itself."""
        self.now_ns = now_ns
        self._own(record)

    # -- restarts -----------------------------------------------------------------------------------------------

    def restore(self, subsystem: str, records: Iterable[Record], now_ns: int, touched: Touched) -> None:
        """A restarted subsystem has read this back: from now on it is judged by it.

        What it had recorded of the durable kinds and has not brought back, or has brought back older, is remembered
        as lost until its recovery is declared complete.
        """
        with self.cells.quietly():
            self._restore(subsystem, records, now_ns, touched)

    def _restore(self, subsystem: str, records: Iterable[Record], now_ns: int, touched: Touched) -> None:
        self.now_ns = now_ns
        back: dict[TableKey, dict[str, Record]] = {}
        for record in records:
            back.setdefault((subsystem, type(record)), {})[record.key] = record
        count = sum(len(mine) for mine in back.values())
        latest = self.trade_date or self._latest_trade_date(subsystem)
        executed = self._executed_since(subsystem, latest, back.get((subsystem, Execution), {}))
        for table in list(self.layout.tables):
            if table[0] != subsystem or not (table[1].durable or table[1].derived):
                continue
            kept = self.layout.tables[table]
            mine = back.get(table, {})
            lost = self._lost.setdefault(table, {})
            for key, record in list(kept.items()):
                if key not in mine and not self._concerns_us(record, latest, executed):
                    continue
                back_again = mine.get(key)
                if back_again == record:
                    del mine[key]  # as it was: nothing has changed, and there is nothing to look at again
                    continue
                if self._was_settled(table, record):
                    lost[key] = record
                before_today = None if back_again is not None else self._before_today(record, latest, executed)
                if before_today is not None:
                    self.layout.put_back(table, key, before_today)
                    continue
                self.layout.forget(table, key)
                for group in self.layout.groups:
                    if group.table == table:
                        touched[group.number, key] = None
        self._restored[subsystem] = count
        for mine in back.values():
            for record in mine.values():
                self.mutate(subsystem, record, now_ns, touched)

    def roll_back(self, left: Callable[[Record], bool]) -> None:
        """The process died inside the steps noted in `undo`: what it must bring back is what stood before them.

        Its store may have the records of the open step or not, and both are right; older than that it may not be. A
        request of which `left` says that it has left is not undone: it is out.
        """
        noted, self.undo = self.undo or [], []
        with self.cells.quietly():
            for table, key, before in reversed(noted):
                if table[0] != "venue" and not (table[1] is Request and left(self.layout.tables[table][key])):
                    self.layout.put_back(table, key, before)

    def _was_settled(self, table: TableKey, record: Record) -> bool:
        """Whether a restarted system must bring this record back.

        Not when its kind is derived, and not when it is an order that the venue never acknowledged (if it has it all
        the same, the reconciliation will say so) or that ended unfilled.
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
            for table, kept in self.layout.tables.items()
            if table[0] == subsystem and table[1] is Execution
            for record in kept.values()
            if isinstance(record, Execution)
        ]
        return max(dates, default="")

    def _executed_since(self, subsystem: str, latest: str, back: Mapping[str, Record]) -> dict[str, tuple[int, int]]:
        """The orders with executions booked on a day or later: an order of yesterday may be learnt of today only.

        With each the lots and the notional of those that have not been brought `back`.
        """
        found: dict[str, tuple[int, int]] = {}
        for one in self.layout.tables.get((subsystem, Execution), {}).values():
            if isinstance(one, Execution) and one.booked_on >= latest:
                lots, notional = found.get(one.root_cl_ord_id, (0, 0))
                gone = one.key not in back
                found[one.root_cl_ord_id] = (lots + gone * one.qty_delta, notional + gone * one.notional_delta)
        return found

    def _before_today(self, record: Record, latest: str, executed: Mapping[str, tuple[int, int]]) -> Order | None:
        """An order of an earlier day as it was filled then, when a bust or a correction of today had reopened it.

        A system that has lost today's change holds the closed order in its archive, and need not read it back.
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

    def _concerns_us(self, record: Record, latest: str, executed: Mapping[str, tuple[int, int]]) -> bool:
        """Whether a restarted system still needs it: what is open, what is of the last day, what is not flat.

        An order that ended unfilled adds to nothing: one that is not brought back may be learnt of anew from its start.
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

    def _recovered(self, subsystem: str, now_ns: int) -> None:
        if subsystem not in self._restored:
            return
        missing: list[str] = []
        regressed: list[str] = []
        for table in [t for t in self._lost if t[0] == subsystem]:
            kept = self.layout.tables.get(table, {})
            for key, was in self._lost.pop(table).items():
                if self._ended_unfilled(was):
                    continue
                now = kept.get(key)
                if now is None:
                    missing.append(repr(was))
                elif _regressed(was, now) and not self._amended(subsystem, key):
                    regressed.append(f"{was!r} came back as {now!r}")
        first = next(iter([*missing, *regressed]), "")
        self._own(
            Recovery(
                subsystem=subsystem,
                restored=self._restored.pop(subsystem),
                missing=len(missing),
                regressed=len(regressed),
                first=first,
            )
        )

    def _amended(self, subsystem: str, root: str) -> bool:
        """Whether an execution of this order has been busted or corrected: then it may rightly be behind."""
        return any(
            isinstance(one, Execution) and one.root_cl_ord_id == root and one.exec_ref_id != ""
            for one in self.layout.tables.get((subsystem, Execution), {}).values()
        )

    def _ended_unfilled(self, was: Record) -> bool:
        """Whether the venue has meanwhile ended an order without a fill: nobody will speak of it again."""
        if not isinstance(was, Order) or was.cum_qty:
            return False
        known = self.layout.tables.get(("venue", Order), {}).get(was.key)
        return isinstance(known, Order) and not known.is_open and known.cum_qty == 0

    # -- time ---------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """Evaluate what should have come to hold by now."""
        self.now_ns = now_ns
        if self.gone:
            return
        while self._due and self._due[0][0] <= now_ns:
            due, number, subsystem, key = heapq.heappop(self._due)
            if self._armed.get((number, subsystem, key)) != due:
                continue
            check = self.layout.checks[number]
            table = self._table_of(check, subsystem)
            arguments = self.layout.arguments(check, table, key, None) if table else None
            del self._armed[number, subsystem, key]
            if arguments is None:
                continue
            try:
                result = check.bound.function(*arguments)
            except Exception as raised:
                self._fail(check, subsystem, key, arguments, raised)
                continue
            if result is None:
                self._arm(check, subsystem, key, now_ns, None)
            elif not result:
                self._fail(check, subsystem, key, arguments, None)
        self.next_ns = self._due[0][0] if self._due else NEVER

    def back(self, now_ns: int) -> None:
        """The guarded process is up again: what it was to do in a time, it has that time for from now on."""
        self.gone = False
        self._armed = {mark: now_ns + self.layout.checks[mark[0]].entry.within_ns for mark in self._armed}
        self._due = [(due, *mark) for mark, due in self._armed.items()]
        heapq.heapify(self._due)
        self.next_ns = self._due[0][0] if self._due else NEVER

    def _arm(self, check: Check, subsystem: str, key: str, now_ns: int, result: bool | None) -> None:
        mark = (check.number, subsystem, key)
        if result:
            if self._armed:
                self._armed.pop(mark, None)
        elif result is None or mark not in self._armed:
            due = now_ns + check.entry.within_ns
            self._armed[mark] = due
            heapq.heappush(self._due, (due, *mark))
            if due < self.next_ns:
                self.next_ns = due

    def _table_of(self, check: Check, subsystem: str) -> TableKey | None:
        return next(
            (table for table in self.layout.tables if table[0] == subsystem and table[1] is check.bound.anchor.kind),
            None,
        )

    # -- breaches -----------------------------------------------------------------------------------------------

    def _fail(
        self, check: Check, subsystem: str, key: str, arguments: tuple[Any, ...], raised: BaseException | None
    ) -> None:
        self.breaches += 1
        anchor = arguments[0] if arguments else None
        if raised is None:
            explanation = explain(check.bound, arguments, self.instruments)
        else:
            said = f"{type(raised).__name__}: {raised}"
            explanation = f"{check.entry.name}: {anchor!r}: the predicate raised {said}, which is a breach, not a pass"
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
                Shown(read.parameter, type(value).__name__, repr(value), msgspec.to_builtins(value))
                for read, value in zip(check.bound.reads, arguments, strict=True)
                if isinstance(value, Record)
            ],
            boundary=self._boundary,
            cell=self.cells.here(),
            after=self.cells.last,
        )
        self._on_breach(breach, check)

    # -- memory -------------------------------------------------------------------------------------------------

    def retire(self, before_date: str) -> int:
        """Let go of closed orders last touched before a trading day, of their executions and of the requests for them.

        Totals stay as they are. Returns how many records were let go. Each night does this for the day that it ends:
        without it memory would grow for as long as a process lives.
        """
        gone = 0
        for table, kept in list(self.layout.tables.items()):
            if table[1] is not Order:
                continue
            executions = (table[0], Execution)
            by_order: dict[str, list[str]] = {}
            for key, execution in self.layout.tables.get(executions, {}).items():
                if isinstance(execution, Execution):
                    by_order.setdefault(execution.root_cl_ord_id, []).append(key)
            for key, order in list(kept.items()):
                if not isinstance(order, Order) or order.is_open:
                    continue
                booked = by_order.get(key, [])
                dates = [getattr(self.layout.tables[executions][one], "booked_on", "") for one in booked]
                if max([order.trade_date, *dates]) >= before_date:
                    continue
                for one in booked:
                    self.layout.retire(executions, one)
                self.layout.retire(table, key)
                self._over.append((before_date, table[0], key))
                gone += 1 + len(booked)
        self._let_go()
        there = {key for table, kept in self.layout.tables.items() if table[1] is Order for key in kept}
        for table, kept in list(self.layout.tables.items()):
            if table[1] is Request:
                for key, request in list(kept.items()):
                    # One without a date is of no day that could be told from today.
                    dated = isinstance(request, Request) and "" < request.trade_date < before_date
                    if dated and getattr(request, "root_cl_ord_id", "") not in there:
                        self.layout.retire(table, key)
                        gone += 1
        return gone

    def _let_go(self) -> None:
        """Forget what closed orders came to, some nights later: nobody takes a trade back so late."""
        groups = self.layout.groups
        for mark in [one for one in self._reconcile if one[1] not in self.layout.table(groups[one[0]].table)]:
            del self._reconcile[mark]
        nights = sorted({night for night, _, _ in self._over})[:-_NIGHTS]
        for night, subsystem, key in self._over:
            if night in nights:
                self.layout.let_go(subsystem, key)
        if nights:
            self._over = [one for one in self._over if one[0] not in nights]

    @property
    def checks(self) -> int:
        """How many predicates have been evaluated."""
        return self.layout.evaluated[0]

    def active(self) -> dict[str, int]:
        """How often each invariant was evaluated with its precondition given; 0 means that nothing has shown it yet."""
        found: dict[str, int] = {}
        for check in self.layout.checks:
            found[check.entry.name] = found.get(check.entry.name, 0) + self.layout.tally[check.number]
        return found

    def keep(self) -> Any:
        """What may change from here on, for `put_back` in the same process."""
        return (
            self.layout.keep(),
            (self.mutations, self.breaches, self.next_ns, self.cause, self.now_ns, self.trade_date, self._boundary),
            list(self._due),
            dict(self._armed),
            dict(self._reconcile),
            {table: dict(kept) for table, kept in self._lost.items()},
            dict(self._restored),
            None if self.undo is None else list(self.undo),
            self.cells.keep(),
            self.gone,
            self._again.kept,
            list(self._over),
        )

    def put_back(self, kept: Any) -> None:
        """Make it what it was when `keep` was called."""
        layout, counts, due, armed, reconcile, lost, restored, undo, cells, self.gone, self._again.kept, over = kept
        self._over = list(over)
        self.cells.put_back(cells)
        self.layout.put_back_all(layout)
        if self.cells.on_put_back is not None:
            self.cells.on_put_back()
        self.mutations, self.breaches, self.next_ns, self.cause, self.now_ns, self.trade_date, self._boundary = counts
        self._due, self._armed, self._reconcile = list(due), dict(armed), dict(reconcile)
        self._lost = {table: dict(records) for table, records in lost.items()}
        self._restored, self.undo = dict(restored), None if undo is None else list(undo)

    def state_armed(self) -> list[list[object]]:
        """What has still to come to hold: invariant, subsystem, key and the time that is left, ns."""
        return sorted(
            [self.layout.checks[number].entry.name, subsystem, key, due - self.now_ns]
            for (number, subsystem, key), due in self._armed.items()
        )

    def dump(self) -> bytes:
        """The whole memory, for `load` in another process with the same catalogue."""
        return msgspec.msgpack.encode(
            {
                "digest": self.catalogue.digest,
                "trade_date": self.trade_date,
                "counts": [self.mutations, self.breaches, self.now_ns, self.checks],
                "tables": [
                    [table[0], table[1].__name__, list(kept.values())] for table, kept in self.layout.tables.items()
                ],
                "retired": [
                    [summed.subsystem, summed.kind.__name__, summed.of, summed.by, base]
                    for summed, base in self.layout.retired.items()
                ],
                "armed": [[*mark, due] for mark, due in self._armed.items()],
                "over": self._over,
                "gone": self.gone,
                "lost": [[table[0], table[1].__name__, list(kept.values())] for table, kept in self._lost.items()],
                "restored": self._restored,
                "reconcile": [[*self.layout.groups[number].table_name, key] for number, key in self._reconcile],
                "tally": self.active(),
                "cells": self.cells.dump(),
            }
        )

    def load(self, memory: bytes) -> None:
        """Take up a memory dumped before. Raises `ValueError` when it is damaged."""
        with self.cells.quietly():
            self._load(memory)

    def _load(self, memory: bytes) -> None:
        try:
            held = msgspec.msgpack.decode(memory)
            kinds = kinds_by_name()
            self.layout.retired = {
                summed: base
                for subsystem, kind, of, by, base in held["retired"]
                for summed in self.layout.totals
                if (summed.subsystem, summed.kind.__name__, summed.of, summed.by) == (subsystem, kind, of, by)
            }
            for summed, base in self.layout.retired.items():
                self.layout.totals[summed].update(base)
            scratch: Touched = {}
            muted, self._on_breach = self._on_breach, lambda breach, check: None
            for subsystem, kind, records in held["tables"]:
                for record in records:
                    self.mutate(subsystem, msgspec.convert(record, kinds[kind]), held["counts"][2], scratch)
            self._on_breach = muted
            self._lost = {
                (subsystem, kinds[kind]): {r.key: r for r in (msgspec.convert(one, kinds[kind]) for one in records)}
                for subsystem, kind, records in held["lost"]
            }
            self._restored = held["restored"]
            self._over = [(night, place, key) for night, place, key in held.get("over", [])]
            for number, subsystem, key, due in held["armed"]:
                self._armed[number, subsystem, key] = due
                heapq.heappush(self._due, (due, number, subsystem, key))
            for subsystem, kind, key in held["reconcile"]:
                for group in self.layout.groups:
                    if group.reconciled and group.table == (subsystem, kinds[kind]):
                        self._reconcile[group.number, key] = None
            self.cells.load(held.get("cells", {}))
        except (msgspec.MsgspecError, KeyError, IndexError, TypeError) as problem:
            raise ValueError(f"the monitor's memory is damaged: {problem}") from problem
        self.trade_date, self.gone = held["trade_date"], held.get("gone", False)
        self.next_ns = self._due[0][0] if self._due else NEVER
        self.mutations, self.breaches, self.now_ns, self.layout.evaluated[0] = held["counts"]


def kinds_by_name() -> dict[str, type[Record]]:
    """Every kind of record known in this process, a user's own included, by class name."""
    found: dict[str, type[Record]] = {}
    waiting = list(Record.__subclasses__())
    while waiting:
        kind = waiting.pop(0)
        found.setdefault(kind.__name__, kind)
        waiting += kind.__subclasses__()
    return found


def _regressed(was: Record, now: Record) -> bool:
    """Whether a record that came back is behind what was remembered of it."""
    if isinstance(was, Order) and isinstance(now, Order):
        return now.cum_qty < was.cum_qty or (now.is_open and not was.is_open)
    if isinstance(was, Execution) and isinstance(now, Execution):
        # Learnt again of the venue after an older backup, it is booked in the session in which that happens.
        return msgspec.structs.replace(now, book_date=was.book_date) != was
    return False
