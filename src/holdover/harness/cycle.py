"""The cycle: persist, replay, assert, freeze; and the control arm from a fresh state beside it.

The carried arm runs the schedule over consecutive days. Each night its full state is taken, written as a snapshot, and
the next day begins in a new world that has nothing but that snapshot. The fresh arm begins every day from nothing and
knows no transition: what a fresh-state test of the same day would have seen. Both write journals, and where these first
part on a day is the diagnosis.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdover.catalogue import Catalogue
from holdover.harness.schedule import DEFAULT, FRESH, Schedule, perform
from holdover.harness.session import Session, Transition
from holdover.harness.snapshot import Snapshot, take
from holdover.harness.subject import Factory
from holdover.model import Execution, Order
from holdover.recording import RecordingStore
from holdover.runtime import Breach, Page, read_journal

Progress = Callable[[str], None]


class Point(msgspec.Struct, frozen=True):
    """One point of a timeline: a position, by subsystem."""

    time_ns: int
    series: str
    value: int


class Lifeline(msgspec.Struct):
    """One order's life as the report draws it: its states by time."""

    cl_ord_id: str
    account: str
    symbol: str
    time_in_force: str
    states: list[tuple[int, str, int, int]] = []


class DayRun(msgspec.Struct):
    """One day of one arm."""

    trade_date: str
    open_ns: int
    close_ns: int
    market_events: int
    mutations: int
    checks: int
    fills: int
    orders: int
    partially_filled_orders: int
    journal_from: int = 0
    journal_to: int = 0
    points: list[Point] = []
    lifelines: list[Lifeline] = []


class Found(msgspec.Struct, frozen=True):
    """A breach with where it was found: arm, day, what led up to it, what it froze."""

    arm: str
    day: str
    breach: Breach
    last: list[dict[str, Any]] = []
    times: int = 1


class Arm(msgspec.Struct):
    """One arm of the cycle."""

    name: str
    days: list[DayRun] = []
    breaches: list[Found] = []
    transitions: list[Transition] = []
    carried: list[dict[str, Any]] = []
    frozen: list[str] = []
    leaked: int = 0
    pages: list[Page] = []
    active: dict[str, int] = {}
    snapshots: list[str] = []
    journals: list[str] = []


class Divergence(msgspec.Struct, frozen=True):
    """Where the arms first part on a day: the first mutation of the subject that one has and the other has not."""

    day: str
    time_ns: int
    carried: str
    fresh: str
    cause: str


class Result(msgspec.Struct):
    """What the cycle found, whole."""

    verdict: str
    subject: str
    symbols: list[str]
    days: list[str]
    seed: int
    faults: list[str]
    schedule: str
    simulated: bool
    digest: str
    invariants: int
    arms: list[Arm]
    divergences: list[Divergence]

    def arm(self, name: str) -> Arm | None:
        """One arm by name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    @property
    def breaches(self) -> list[Found]:
        """Every breach of every arm, the carried arm's first."""
        return [found for arm in self.arms for found in arm.breaches]


def run_cycle(
    factory: Factory,
    recordings: RecordingStore,
    symbols: Sequence[str],
    days: Sequence[str],
    out: Path,
    *,
    subject: str = "desk",
    schedule: Schedule = DEFAULT,
    seed: int = 0,
    faults: Sequence[str] = (),
    arms: Sequence[str] = ("carried", "fresh"),
    catalogue: Catalogue | None = None,
    progress: Progress = lambda what: None,
) -> Result:
    """Run both arms over the days; journals, snapshots, pages and guard stores are left below `out`.

    The verdict is `breach` when any invariant was breached in the carried arm, or in the fresh one; `unknown` when
    nothing was recorded that could have been checked; else `holds`.
    """
    catalogue = catalogue or Catalogue.load()
    found: list[Arm] = []
    for name in arms:
        place = out / name
        if place.exists():
            shutil.rmtree(place)
        place.mkdir(parents=True)
        run = _carried_arm if name == "carried" else _fresh_arm
        chosen = schedule if name == "carried" else FRESH
        found.append(run(_Maker(factory, recordings, symbols, days, seed, faults, catalogue), place, chosen, progress))
    metas = [recordings.get(symbol, day).meta for day in days for symbol in symbols]
    result = Result(
        verdict="holds",
        subject=subject,
        symbols=list(symbols),
        days=list(days),
        seed=seed,
        faults=list(faults),
        schedule=schedule.name,
        simulated=any(meta.simulated for meta in metas),
        digest=catalogue.digest,
        invariants=len(catalogue),
        arms=found,
        divergences=_divergences(found),
    )
    if result.breaches:
        result.verdict = "breach"
    elif not any(day.mutations for arm in found for day in arm.days):
        result.verdict = "unknown"
    return result


class _Maker:
    """Makes sessions that are alike but for their directory."""

    def __init__(
        self,
        factory: Factory,
        recordings: RecordingStore,
        symbols: Sequence[str],
        days: Sequence[str],
        seed: int,
        faults: Sequence[str],
        catalogue: Catalogue,
    ) -> None:
        self.factory, self.recordings, self.symbols, self.days = factory, recordings, symbols, list(days)
        self.seed, self.faults, self.catalogue = seed, faults, catalogue

    def session(self, directory: Path, first: str) -> Session:
        # Both arms plan for the same days, so that their strategies are the same.
        session = Session(
            self.factory,
            self.recordings,
            self.symbols,
            directory,
            days=self.days,
            seed=self.seed,
            faults=self.faults,
            catalogue=self.catalogue,
        )
        session.clock.now_ns = self.recordings.get(self.symbols[0], first).meta.open_ns - 60_000_000_000
        return session


def _carried_arm(maker: _Maker, place: Path, schedule: Schedule, progress: Progress) -> Arm:
    arm = Arm("carried")
    state: Snapshot | None = None
    for number, day in enumerate(maker.days):
        directory = place / day
        session = maker.session(directory, day)
        try:
            if state is not None:
                session.load(state.parts)
            arm.days.append(_run_day(session, schedule, number, day, arm, progress))
            if number + 1 < len(maker.days):
                state = take(session)
                state.save(place / "snapshots")
                arm.snapshots.append(state.name)
        finally:
            session.close()
        _collect(session, arm)
        arm.transitions, arm.carried = session.transitions, session.carried
    return arm


def _fresh_arm(maker: _Maker, place: Path, schedule: Schedule, progress: Progress) -> Arm:
    arm = Arm("fresh")
    for number, day in enumerate(maker.days):
        session = maker.session(place / day, day)
        try:
            arm.days.append(_run_day(session, schedule, number, day, arm, progress))
        finally:
            session.close()
        _collect(session, arm)
        arm.transitions += session.transitions
        session.guard.breaches.clear()
    return arm


def _run_day(session: Session, schedule: Schedule, number: int, day: str, arm: Arm, progress: Progress) -> DayRun:
    progress(f"{arm.name} {day}")
    run = DayRun(day, 0, 0, 0, 0, 0, 0, 0, 0)
    before = (session.market_events, session.guard.monitor.mutations, session.guard.monitor.checks)
    known = len(session.guard.breaches)
    watch = Watch(session, run)
    session.on_record = watch.record
    session.guard.on_breach = lambda breach: arm.breaches.append(
        Found(arm.name, day, breach, session.guard.recorder.last(24))
    )
    for operation in schedule.operations(number):
        perform(session, operation, day=day)
    run.open_ns, run.close_ns = session.hours()
    run.market_events = session.market_events - before[0]
    run.mutations = session.guard.monitor.mutations - before[1]
    run.checks = session.guard.monitor.checks - before[2]
    watch.finish()
    assert len(session.guard.breaches) - known == sum(1 for found in arm.breaches if found.day == day)
    return run


def _collect(session: Session, arm: Arm) -> None:
    """What the guard of a finished day leaves."""
    arm.frozen = list(dict.fromkeys([*arm.frozen, *(freeze.scope for freeze in session.guard.frozen)]))
    arm.leaked += len(session.leaked)
    known = {(page.number, page.dedup_key, page.time_ns) for page in arm.pages}
    for line in _pages(session.directory / "pages.jsonl"):
        if (line.number, line.dedup_key, line.time_ns) not in known:
            arm.pages.append(line)
    for name, count in session.guard.monitor.active().items():
        arm.active[name] = arm.active.get(name, 0) + count
    arm.journals.append(str(session.directory / "journal.jsonl"))
    if arm.name == "carried":
        session.leaked.clear()


def _pages(path: Path) -> list[Page]:
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=Page) for line in path.read_bytes().splitlines()]


class Watch:
    """Keeps what the report draws: positions by subsystem and the lives of the orders that tell most."""

    _LIVES_MAX = 14

    def __init__(self, session: Session, run: DayRun) -> None:
        self.session, self.run = session, run
        self._last: dict[str, int] = {}
        self._lives: dict[str, Lifeline] = {}
        self._partial: set[str] = set()
        self._orders: set[str] = set()
        observe = session.venue.observe

        def observed(record: Any) -> None:
            observe(record)
            self._position("venue", record)

        session.venue.observe = observed

    def record(self, subsystem: str, record: Any) -> None:
        """One mutation of the subject."""
        if isinstance(record, Order):
            self._order(record)
        elif isinstance(record, Execution):
            self.run.fills += 1 if record.qty_delta else 0
        else:
            self._position(subsystem, record)

    def _position(self, subsystem: str, record: Any) -> None:
        net_qty = getattr(record, "net_qty", None)
        if net_qty is None:
            return
        series = f"{record.key} {subsystem}"
        if self._last.get(series) != net_qty:
            self._last[series] = net_qty
            self.run.points.append(Point(self.session.clock.now_ns, series, net_qty))

    def _order(self, order: Order) -> None:
        self._orders.add(order.key)
        if 0 < order.cum_qty < order.order_qty:
            self._partial.add(order.key)
        life = self._lives.get(order.key)
        if life is None:
            life = self._lives[order.key] = Lifeline(
                order.cl_ord_id, order.account, order.symbol, order.time_in_force.name
            )
        state = (self.session.clock.now_ns, order.ord_status.name, order.cum_qty, order.order_qty)
        life.states.append(state)

    def finish(self) -> None:
        """Keep the lives with the most in them."""
        self.run.orders = len(self._orders)
        self.run.partially_filled_orders = len(self._partial)
        told = sorted(self._lives.values(), key=lambda life: (life.time_in_force == "GTC", len(life.states)))
        kept = told[-self._LIVES_MAX :]
        for life in kept:
            life.states = life.states[:60]
        self.run.lifelines = sorted(kept, key=lambda life: life.states[0][0])


def _divergences(arms: list[Arm]) -> list[Divergence]:
    carried = next((arm for arm in arms if arm.name == "carried"), None)
    fresh = next((arm for arm in arms if arm.name == "fresh"), None)
    if carried is None or fresh is None:
        return []
    found = []
    for run, one, other in zip(carried.days, carried.journals, fresh.journals, strict=False):
        divergence = _first_difference(run.trade_date, Path(one), Path(other))
        if divergence is not None:
            found.append(divergence)
    return found


def _first_difference(day: str, carried: Path, fresh: Path) -> Divergence | None:
    lines, others = (_subject_lines(path) for path in (carried, fresh))
    while True:
        one, other = next(lines, None), next(others, None)
        if one is None and other is None:
            return None
        if one is None or other is None or _said(one) != _said(other):
            first = one or other or {}
            return Divergence(
                day, int(first.get("time_ns", 0)), _words(one), _words(other), str(first.get("cause", ""))
            )


def _subject_lines(path: Path) -> Any:
    for line in read_journal(path):
        if line.get("subsystem") not in (None, "", "venue", "guard") and line.get("kind") in (
            "Order",
            "Execution",
            "Position",
            "ParentOrder",
        ):
            yield line


def _said(line: dict[str, Any]) -> tuple[Any, ...]:
    return (line["subsystem"], line["kind"], line["record"])


def _words(line: dict[str, Any] | None) -> str:
    if line is None:
        return "nothing"
    told = line["record"]
    if line["kind"] == "Order":
        return (
            f"{line['subsystem']}: Order {told['cl_ord_id']} {told.get('ord_status', 'A')} "
            f"{told.get('cum_qty', 0)}/{told['order_qty']} leaves {told['leaves_qty']}"
        )
    if line["kind"] == "Position":
        held = f"{told['net_qty']:+d} carried {told.get('carried_qty', 0):+d}"
        return f"{line['subsystem']}: Position {told['account']} {told['symbol']} {held}"
    fields = ", ".join(f"{key} {value}" for key, value in list(told.items())[:5])
    return f"{line['subsystem']}: {line['kind']} {fields}"
