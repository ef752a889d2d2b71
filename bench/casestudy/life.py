"""A life: a healthy desk, then a change with one fault, day after day, until somebody finds out.

One run tells both stories. The guard watches and does not act, so that the desk goes on as it would without one; the
first breach is where it would have frozen and paged, for up to there nothing is different. Without it, people find out
by what they have anyway: the day's end, when the desk's own store is set beside the venue's statement; an order that
the venue refuses; a desk that dies or does not come back; an order out past the operator's own freeze.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from casestudy.model import WARM_DAYS, day_of
from casestudy.reel import Reel, drawn_reel
from holdover.adapters.desk import DeskSubject
from holdover.catalogue import Catalogue
from holdover.explore.play import Player, session_for
from holdover.explore.schedule import Operation, Schedule, schedule_on
from holdover.harness.snapshot import Snapshot, take
from holdover.incidents.classes import cell_class
from holdover.model import ExecType, ExecutionReport, Position, Record, Request
from holdover.model.scope import scope_of
from holdover.recording import RecordingStore
from holdover.runtime import Breach

_REFUSED_BY_THE_MODEL: Final = "refused by the venue"
"""What the venue says when an operation of the model has it refuse: that is no incident."""
_CLOSED: Final = 2
"""OrdRejReason (103) of an order that came while the book took none: a race that every desk loses now and then."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """How and when somebody found out: the day from the ship day on (from 0), by what, in words, its class."""

    day: int
    second: int
    by: str
    told: str
    cell_class: str
    records: int
    """How many records a person must look at: those that the breach names; or all that changed since books agreed."""


class Life(msgspec.Struct, kw_only=True):
    """One life. `breach` is the guard's, `found` that of people without one; None where it was not in these days."""

    fault: str
    number: int
    seed: str
    first: str
    sources: list[str]
    days: int
    operations: int
    breach: Seen | None = None
    found: Seen | None = None
    sent_after: int = 0
    """Orders, cancels and replaces that left between the breach and the finding, or the end of the life."""


class Stage:
    """What lives are run on: the recorded days, the catalogue, a folder for what is scratch."""

    def __init__(self, store: RecordingStore, symbols: Sequence[str], days: int, place: Path) -> None:
        self.store, self.symbols, self.days, self.place = store, list(symbols), days, place
        self.catalogue = Catalogue.load()
        self._nights: dict[int, Snapshot] = {}
        logging.getLogger("holdover").setLevel(logging.CRITICAL + 1)

    def reel(self, number: int) -> Reel:
        """The sessions of the lives of one number: the same for every fault."""
        return drawn_reel(self.store, self.symbols, random.Random(f"reel {number}"), WARM_DAYS + self.days)

    def night(self, number: int) -> Snapshot:
        """The state of a healthy desk on the night before its ship day."""
        if number not in self._nights:
            reel = self.reel(number)
            rng = random.Random(f"healthy {number}")
            operations = [one for day in range(WARM_DAYS) for one in day_of(rng, day, _length_s(reel, self, day))]
            run = _Run(self, reel, self.schedule(reel, "", operations), None)
            try:
                for day in range(WARM_DAYS):
                    run.day(day)
                if run.breach is not None or run.found is not None:
                    raise RuntimeError(f"the healthy desk was not: {run.breach or run.found}")
                self._nights[number] = take(run.session)
            finally:
                run.close()
        return self._nights[number]

    def schedule(self, reel: Reel, fault: str, operations: list[Operation]) -> Schedule:
        """A schedule over all days of a reel."""
        days = reel.days(self.symbols[0])
        faults = [fault] if fault else []
        return schedule_on(
            reel, self.symbols, days, self.catalogue, name="life", start="night", faults=faults, operations=operations
        )


def run_life(stage: Stage, fault: str, number: int, *, guarded: bool = False) -> Life:
    """The life of a fault of that number; an empty name is the desk without any.

    `guarded` lets the guard act: it freezes at the first breach, the life ends with that day, and `sent_after` counts
    what left a frozen scope nevertheless.
    """
    reel = stage.reel(number)
    seed = f"{fault} {number}"
    rng = random.Random(seed)
    numbers = range(WARM_DAYS, WARM_DAYS + stage.days)
    operations = [one for day in numbers for one in day_of(rng, day, _length_s(reel, stage, day))]
    dates = reel.days(stage.symbols[0])
    life = Life(
        fault=fault,
        number=number,
        seed=seed,
        first=dates[WARM_DAYS],
        sources=[reel.source(dates[day]) for day in numbers],
        days=0,
        operations=0,
    )
    run = _Run(stage, reel, stage.schedule(reel, fault, operations), stage.night(number), acts=guarded)
    try:
        for day in numbers:
            run.day(day)
            life.days += 1
            if run.found is not None or (guarded and run.breach is not None):
                break
    finally:
        run.close()
    life.operations = sum(1 for one in operations if one.day < WARM_DAYS + life.days)
    life.breach, life.found, life.sent_after = run.breach, run.found, run.sent_after
    return life


def _length_s(reel: Reel, stage: Stage, day: int) -> int:
    meta = reel.get(stage.symbols[0], reel.days(stage.symbols[0])[day]).meta
    return (meta.close_ns - meta.open_ns) // 1_000_000_000


class _Run:
    """A session that is watched: by a guard that does not act, and by what people have without one."""

    def __init__(
        self, stage: Stage, reel: Reel, schedule: Schedule, night: Snapshot | None, *, acts: bool = False
    ) -> None:
        self.place = stage.place / "life"
        self.session = session_for(schedule, reel, self.place, catalogue=stage.catalogue, journal=False, scratch=True)
        self.player = Player(schedule, reel, self.place, snapshot=night, session=self.session)
        self.schedule = schedule
        self.breach: Seen | None = None
        self.found: Seen | None = None
        self.sent_after = 0
        self._day = 0
        self._changed: dict[tuple[str, str, str], None] = {}
        guard, venue = self.session.guard, self.session.venue
        self._judge = guard.monitor._on_breach if acts else None
        # Unless it acts, the guard judges as ever and freezes nothing: its monitor tells this run, and not the guard.
        guard.monitor._on_breach = self._breached
        guard.on_mutation = self._mutation
        self._boundary, guard.boundary = guard.boundary, self._at_boundary  # type: ignore[method-assign]
        self._send, venue._send = venue._send, self._venue_sends  # type: ignore[method-assign]

    def day(self, number: int) -> None:
        """Play one day and the night after it."""
        self._day = number - WARM_DAYS
        leaked = len(self.session.leaked)
        try:
            self.player.day(number, self.schedule.days[number])
        except Exception as problem:
            self._find("crash", f"{type(problem).__name__}: {problem}")
        if self._judge is not None:
            self.sent_after = len(self.session.leaked)
            return
        for request in self.session.leaked[leaked:]:
            self._find("frozen", f"{request.cl_ord_id} left past the operator's freeze")

    def close(self) -> None:
        """Let go of the session and its folder."""
        self.session.close()
        shutil.rmtree(self.place, ignore_errors=True)

    # -- the guard ------------------------------------------------------------------------------------------------

    def _breached(self, breach: Breach, check: Any) -> None:
        if self._judge is not None:
            self._judge(breach, check)
        if self.breach is not None:
            return
        table = self.session.guard.monitor.layout.tables.get((breach.subsystem, check.bound.anchor.kind or Record), {})
        scope = scope_of(check.entry.scope, breach.subsystem, table.get(breach.key))
        self.breach = Seen(
            day=self._day,
            second=self._second(),
            by=breach.invariant,
            told=breach.explanation,
            cell_class=cell_class(msgspec.structs.replace(breach, scope=scope)),
            records=len(breach.records),
        )

    # -- people ---------------------------------------------------------------------------------------------------

    def _find(self, by: str, told: str) -> None:
        if self.found is None:
            self.found = Seen(
                day=self._day,
                second=self._second(),
                by=by,
                told=told,
                cell_class=f"by people/{by}",
                records=len(self._changed),
            )

    def _second(self) -> int:
        return (self.session.clock.now_ns - self.session.hours()[0]) // 1_000_000_000

    def _mutation(self, number: int, subsystem: str, record: Record) -> None:
        if self.found is not None or subsystem == "venue":
            return
        self._changed[subsystem, type(record).__name__, record.key] = None
        if self.breach is not None and self._judge is None and isinstance(record, Request):
            self.sent_after += 1

    def _venue_sends(self, account: str, message: Any) -> None:
        if isinstance(message, ExecutionReport) and message.exec_type == ExecType.REJECTED:
            known = message.text == _REFUSED_BY_THE_MODEL or message.ord_rej_reason == _CLOSED
            if not known:
                self._find("reject", f"{message.cl_ord_id}: {message.text}")
        self._send(account, message)

    def _at_boundary(self, name: str, trade_date: str, **told: Any) -> None:
        self._boundary(name, trade_date, **told)
        if name == "end":
            problems = self._close_of_day(trade_date)
            if problems:
                self._find(*problems[0])
            elif problems is not None:
                self._changed.clear()

    def _close_of_day(self, trade_date: str) -> list[tuple[str, str]] | None:
        """What does not agree at the close; None when nobody can say, as the desk or its link is down."""
        session = self.session
        subject = session.subject
        if not isinstance(subject, DeskSubject) or subject.desk is None or not session.link.up:
            return None
        desk, venue = subject.desk, session.venue
        if not desk.reconciler.done:
            return [("stuck", "the desk has not finished its reconciliation by the close")]
        found: list[tuple[str, str]] = []
        held = {one.key: one.net_qty for one in desk.store.all(Position)}
        for key, position in venue.positions.items():
            if held.get(key, 0) != position.net_qty:
                found.append(("position", f"{key}: {held.get(key, 0)}, the venue says {position.net_qty}"))
        today = {venue.roots.get(one.cl_ord_id, "") for one in venue.trades if one.trade_date == trade_date}
        for root, order in venue.orders.items():
            if root.startswith("HAND-") or not (order.is_open or root in today):
                continue
            kept = desk.store.order(root)
            if kept is None:
                found.append(("order", f"{root}: not in the desk's store"))
            elif (kept.cum_qty, kept.notional, kept.leaves_qty) != (order.cum_qty, order.notional, order.leaves_qty):
                found.append(("order", f"{kept!r}, the venue says {order.record()!r}"))
        for kept in desk.store.orders(trade_date):
            there = venue.orders.get(kept.root_cl_ord_id)
            if kept.is_open and (there is None or not there.is_open):
                found.append(("order", f"{kept!r} is open, and not at the venue"))
        return found + self._over_limits(subject)

    def _over_limits(self, subject: DeskSubject) -> list[tuple[str, str]]:
        """What the venue's truth says of the desk's own limits: a parent filled beyond its quantity, a position."""
        venue, config = self.session.venue, subject.config
        filled: dict[str, int] = {}
        for order in venue.orders.values():
            filled[order.cl_ord_link_id] = filled.get(order.cl_ord_link_id, 0) + order.cum_qty
        found = [
            ("overfilled", f"{one.name}: {filled[one.parent_id]} of {one.order_qty}")
            for one in config.strategies
            if filled.get(one.parent_id, 0) > one.order_qty
        ]
        for key, position in venue.positions.items():
            if abs(position.net_qty) > config.position_max:
                found.append(("limit", f"{key}: {position.net_qty}, the limit is {config.position_max}"))
        return found


__all__ = ["Life", "Seen", "Stage", "run_life"]
