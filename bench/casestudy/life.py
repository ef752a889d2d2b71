"""One run of a fault: a healthy desk, then a change with one fault, day after day, until somebody detects it.

One run measures both sides. The guard watches and does not act, so that the desk continues as it would
without a guard; its first breach marks where it would have frozen the desk. Without a guard, people detect a
fault by other means: the desk's store differs from the venue's statement at the end of the day; the venue
refuses an order; the desk crashes or does not restart; an order leaves despite the operator's own freeze.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from casestudy.model import WARM_DAYS, draw_day_operations
from casestudy.reel import Reel, draw_reel
from holdover.adapters.desk import DeskSubject
from holdover.catalogue import Catalogue
from holdover.harness.player import Player, make_session
from holdover.harness.schedule import Operation, Schedule, make_schedule
from holdover.harness.snapshot import Snapshot, take_snapshot
from holdover.incidents.classes import cell_class
from holdover.model import ExecType, ExecutionReport, Position, Record, Request
from holdover.model.scope import scope_of
from holdover.recording import RecordingStore
from holdover.runtime import Breach

_REFUSED_BY_THE_MODEL: Final = "refused by the venue"
"""What the venue says when an operation of the model has it refuse: that is no incident."""
_CLOSED: Final = 2
"""OrdRejReason (103) of an order that came while the book took none: a race that every desk loses now and then."""


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """How and when somebody found out: the day from the ship day on (from 0), by what, in words, its class."""

    day: int
    second: int
    by: str
    explanation: str
    cell_class: str
    records: int
    """How many records a person must look at: those that the breach names; or all that changed since books agreed."""


class FaultRun(msgspec.Struct, kw_only=True):
    """One life. `breach` is the guard's, `found` that of people without one; None where it was not in these days."""

    fault: str
    number: int
    seed: str
    first: str
    sources: list[str]
    days: int
    operations: int
    breach: Detection | None = None
    discovery: Detection | None = None
    sent_after: int = 0
    """Orders, cancels and replaces that left between the breach and the finding, or the end of the life."""


class RunContext:
    """What lives are run on: the recorded days, the catalogue, a folder for what is scratch."""

    def __init__(self, store: RecordingStore, symbols: Sequence[str], days: int, directory: Path) -> None:
        self.store, self.symbols, self.days, self.directory = store, list(symbols), days, directory
        self.catalogue = Catalogue.load()
        self._nights: dict[int, Snapshot] = {}
        logging.getLogger("holdover").setLevel(logging.CRITICAL + 1)

    def reel(self, number: int) -> Reel:
        """The sessions of the lives of one number: the same for every fault."""
        return draw_reel(self.store, self.symbols, random.Random(f"reel {number}"), WARM_DAYS + self.days)

    def night(self, number: int) -> Snapshot:
        """The state of a healthy desk on the night before its ship day."""
        if number not in self._nights:
            reel = self.reel(number)
            rng = random.Random(f"healthy {number}")
            operations = [
                operation
                for day in range(WARM_DAYS)
                for operation in draw_day_operations(rng, day, _length_s(reel, self, day))
            ]
            run = _WatchedSession(self, reel, self.schedule(reel, "", operations), None)
            try:
                for day in range(WARM_DAYS):
                    run.day(day)
                if run.breach is not None or run.discovery is not None:
                    raise RuntimeError(f"the healthy desk was not: {run.breach or run.discovery}")
                self._nights[number] = take_snapshot(run.session)
            finally:
                run.close()
        return self._nights[number]

    def schedule(self, reel: Reel, fault: str, operations: list[Operation]) -> Schedule:
        """A schedule over all days of a reel."""
        days = reel.days(self.symbols[0])
        faults = [fault] if fault else []
        return make_schedule(
            reel, self.symbols, days, self.catalogue, name="life", start="night", faults=faults, operations=operations
        )


def run_life(context: RunContext, fault: str, number: int, *, guarded: bool = False) -> FaultRun:
    """The life of a fault of that number; an empty name is the desk without any.

    `guarded` lets the guard act: it freezes at the first breach, the life ends with that day, and `sent_after` counts
    what left a frozen scope nevertheless.
    """
    reel = context.reel(number)
    seed = f"{fault} {number}"
    rng = random.Random(seed)
    numbers = range(WARM_DAYS, WARM_DAYS + context.days)
    operations = [
        operation for day in numbers for operation in draw_day_operations(rng, day, _length_s(reel, context, day))
    ]
    dates = reel.days(context.symbols[0])
    fault_run = FaultRun(
        fault=fault,
        number=number,
        seed=seed,
        first=dates[WARM_DAYS],
        sources=[reel.source(dates[day]) for day in numbers],
        days=0,
        operations=0,
    )
    run = _WatchedSession(context, reel, context.schedule(reel, fault, operations), context.night(number), acts=guarded)
    try:
        for day in numbers:
            run.day(day)
            fault_run.days += 1
            if run.discovery is not None or (guarded and run.breach is not None):
                break
    finally:
        run.close()
    fault_run.operations = sum(1 for operation in operations if operation.day < WARM_DAYS + fault_run.days)
    fault_run.breach, fault_run.discovery, fault_run.sent_after = run.breach, run.discovery, run.sent_after
    return fault_run


def _length_s(reel: Reel, context: RunContext, day: int) -> int:
    meta = reel.get(context.symbols[0], reel.days(context.symbols[0])[day]).meta
    return (meta.close_ns - meta.open_ns) // 1_000_000_000


class _WatchedSession:
    """A session that is watched: by a guard that does not act, and by what people have without one."""

    def __init__(
        self, context: RunContext, reel: Reel, schedule: Schedule, night: Snapshot | None, *, acts: bool = False
    ) -> None:
        self.directory = context.directory / "life"
        self.session = make_session(
            schedule, reel, self.directory, catalogue=context.catalogue, journal=False, scratch=True
        )
        self.player = Player(schedule, reel, self.directory, snapshot=night, session=self.session)
        self.schedule = schedule
        self.breach: Detection | None = None
        self.discovery: Detection | None = None
        self.sent_after = 0
        self._day = 0
        self._changed_records: dict[tuple[str, str, str], None] = {}
        guard, venue = self.session.guard, self.session.venue
        self._judge = guard.monitor._on_breach if acts else None
        # Unless it acts, the guard judges as ever and freezes nothing: its monitor tells this run, and not the guard.
        guard.monitor._on_breach = self._on_breach
        guard.steps.on_mutation = self._on_mutation
        self._boundary, guard.boundary = guard.boundary, self._on_boundary  # type: ignore[method-assign]
        self._send, venue.reports.send = venue.reports.send, self._on_venue_send  # type: ignore[method-assign]

    def day(self, number: int) -> None:
        """Play one day and the night after it."""
        self._day = number - WARM_DAYS
        leaked = len(self.session.host.leaked_requests)
        try:
            self.player.play_day(number, self.schedule.days[number])
        except Exception as problem:
            self._record_discovery("crash", f"{type(problem).__name__}: {problem}")
        if self._judge is not None:
            self.sent_after = len(self.session.host.leaked_requests)
            return
        for request in self.session.host.leaked_requests[leaked:]:
            self._record_discovery("frozen", f"{request.cl_ord_id} left past the operator's freeze")

    def close(self) -> None:
        """Let go of the session and its folder."""
        self.session.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- the guard ------------------------------------------------------------------------------------------------

    def _on_breach(self, breach: Breach, check: Any) -> None:
        if self._judge is not None:
            self._judge(breach, check)
        if self.breach is not None:
            return
        table = self.session.guard.monitor.records(check.bound.anchor.kind or Record, breach.subsystem)
        scope = scope_of(check.entry.scope, breach.subsystem, table.get(breach.key))
        self.breach = Detection(
            day=self._day,
            second=self._second(),
            by=breach.invariant,
            explanation=breach.explanation,
            cell_class=cell_class(msgspec.structs.replace(breach, scope=scope)),
            records=len(breach.records),
        )

    # -- people ---------------------------------------------------------------------------------------------------

    def _record_discovery(self, by: str, explanation: str) -> None:
        if self.discovery is None:
            self.discovery = Detection(
                day=self._day,
                second=self._second(),
                by=by,
                explanation=explanation,
                cell_class=f"by people/{by}",
                records=len(self._changed_records),
            )

    def _second(self) -> int:
        return (self.session.clock.now_ns - self.session.hours()[0]) // 1_000_000_000

    def _on_mutation(self, number: int, subsystem: str, record: Record) -> None:
        if self.discovery is not None or subsystem == "venue":
            return
        self._changed_records[subsystem, type(record).__name__, record.key] = None
        if self.breach is not None and self._judge is None and isinstance(record, Request):
            self.sent_after += 1

    def _on_venue_send(self, account: str, message: Any) -> None:
        if isinstance(message, ExecutionReport) and message.exec_type == ExecType.REJECTED:
            is_expected = message.text == _REFUSED_BY_THE_MODEL or message.ord_rej_reason == _CLOSED
            if not is_expected:
                self._record_discovery("reject", f"{message.cl_ord_id}: {message.text}")
        self._send(account, message)

    def _on_boundary(self, name: str, trade_date: str, **details: Any) -> None:
        self._boundary(name, trade_date, **details)
        if name == "end":
            problems = self._close_of_day(trade_date)
            if problems:
                self._record_discovery(*problems[0])
            elif problems is not None:
                self._changed_records.clear()

    def _close_of_day(self, trade_date: str) -> list[tuple[str, str]] | None:
        """What does not agree at the close; None when nobody can say, as the desk or its link is down."""
        session = self.session
        subject = session.subject
        if not isinstance(subject, DeskSubject) or subject.desk is None or not session.link.is_up:
            return None
        desk, venue = subject.desk, session.venue
        if not desk.reconciler.is_done:
            return [("stuck", "the desk has not finished its reconciliation by the close")]
        problems: list[tuple[str, str]] = []
        net_quantities = {position.key: position.net_qty for position in desk.store.load_all(Position)}
        for key, position in venue.positions.items():
            if net_quantities.get(key, 0) != position.net_qty:
                problems.append(("position", f"{key}: {net_quantities.get(key, 0)}, the venue says {position.net_qty}"))
        today = {venue.roots.get(trade.cl_ord_id, "") for trade in venue.trades if trade.trade_date == trade_date}
        for root, order in venue.orders.items():
            if root.startswith("HAND-") or not (order.is_open or root in today):
                continue
            stored_order = desk.store.order(root)
            if stored_order is None:
                problems.append(("order", f"{root}: not in the desk's store"))
            elif (stored_order.cum_qty, stored_order.notional, stored_order.leaves_qty) != (
                order.cum_qty,
                order.notional,
                order.leaves_qty,
            ):
                problems.append(("order", f"{stored_order!r}, the venue says {order.record()!r}"))
        for stored_order in desk.store.orders(trade_date):
            venue_order = venue.orders.get(stored_order.root_cl_ord_id)
            if stored_order.is_open and (venue_order is None or not venue_order.is_open):
                problems.append(("order", f"{stored_order!r} is open, and not at the venue"))
        return problems + self._over_limits(subject)

    def _over_limits(self, subject: DeskSubject) -> list[tuple[str, str]]:
        """What the venue's truth says of the desk's own limits: a parent filled beyond its quantity, a position."""
        venue, config = self.session.venue, subject.config
        filled: dict[str, int] = {}
        for order in venue.orders.values():
            filled[order.cl_ord_link_id] = filled.get(order.cl_ord_link_id, 0) + order.cum_qty
        problems = [
            ("overfilled", f"{strategy.name}: {filled[strategy.parent_id]} of {strategy.order_qty}")
            for strategy in config.strategies
            if filled.get(strategy.parent_id, 0) > strategy.order_qty
        ]
        for key, position in venue.positions.items():
            if abs(position.net_qty) > config.position_max:
                problems.append(("limit", f"{key}: {position.net_qty}, the limit is {config.position_max}"))
        return problems


__all__ = ["FaultRun", "Detection", "RunContext", "run_life"]
