"""The cycle: persist, replay, assert and freeze over consecutive days, with a fresh-state arm for comparison.

The carried arm runs the schedule over consecutive days. After each day it writes its full state as a
snapshot, and the next day starts in a new world from that snapshot alone. The fresh arm starts every day from
an empty state and runs no transitions, as a fresh-state test does. Both arms write journals. The first
difference between the two journals of a day points to the bug.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdover.catalogue import Catalogue
from holdover.harness.player import Player
from holdover.harness.schedule import DEFAULT_SCHEDULE, FRESH_SCHEDULE, Schedule, ScheduleError, bind_schedule
from holdover.harness.session import Session, SessionConfig, Transition
from holdover.harness.snapshot import Snapshot, take_snapshot
from holdover.harness.subject import Factory
from holdover.model import Execution, ImpossibleStateError, Order
from holdover.recording import RecordingStore
from holdover.runtime import Breach, Page, read_journal
from holdover.runtime.breach import TRIGGER
from holdover.runtime.files import claim_output_directory, renew_output_directory
from holdover.runtime.journal import JOURNAL_FILE

Progress = Callable[[str], None]


class Point(msgspec.Struct, frozen=True):
    """One point of a timeline: the position of one subsystem at one time."""

    time_ns: int
    series: str
    value: int


class Lifeline(msgspec.Struct):
    """The states of one order over time, as the report draws them."""

    cl_ord_id: str
    account: str
    symbol: str
    time_in_force: str
    states: list[tuple[int, str, int, int]] = []


class DayRun(msgspec.Struct):
    """The run of one day in one arm."""

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


class CycleBreach(msgspec.Struct, frozen=True):
    """A breach with its arm and day, the journal lines before it, and the number of times that it occurred.

    `guard` is the directory of the guard that found it, for the commands in the operator's steps.
    """

    arm: str
    day: str
    breach: Breach
    last: list[dict[str, Any]] = []
    times: int = 1
    guard: str = ""


class CycleIncident(msgspec.Struct, frozen=True):
    """Breaches with one cause, in one arm."""

    cause: CycleBreach
    consequences: list[CycleBreach] = []


class Arm(msgspec.Struct):
    """The results of one arm of the cycle."""

    name: str
    days: list[DayRun] = []
    breaches: list[CycleBreach] = []
    transitions: list[Transition] = []
    carried: list[dict[str, Any]] = []
    frozen: list[str] = []
    leaked: int = 0
    pages: list[Page] = []
    active: dict[str, int] = {}
    snapshots: list[str] = []
    journals: list[str] = []


class Divergence(msgspec.Struct, frozen=True):
    """The first difference between the arms on a day: the first subject mutation that only one arm has."""

    day: str
    time_ns: int
    carried: str
    fresh: str
    cause: str


class CycleResult(msgspec.Struct):
    """The complete result of a cycle."""

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
        """Return the arm of that name, or None."""
        return next((arm for arm in self.arms if arm.name == name), None)

    @property
    def breaches(self) -> list[CycleBreach]:
        """Every breach of every arm, those of the carried arm first."""
        return [breach for arm in self.arms for breach in arm.breaches]

    @property
    def incidents(self) -> list[CycleIncident]:
        """The breaches by their causes, those of the carried arm first."""
        return [incident for arm in self.arms for incident in group_by_cause(arm.breaches)]


def group_by_cause(breaches: Sequence[CycleBreach]) -> list[CycleIncident]:
    """Return the breaches of one arm by their causes, the oldest cause first.

    The carried arm numbers its breaches over all days, the fresh arm from 1 on every day. A breach whose cause is not
    among them is a cause here. Raises `ValueError` for breaches of several arms.
    """
    if len({item.arm for item in breaches}) > 1:
        raise ValueError(f"breaches of the arms {', '.join(sorted({item.arm for item in breaches}))}, should be of one")
    by_guard: dict[tuple[str, int], CycleIncident] = {}
    incidents: list[CycleIncident] = []
    for item in sorted(breaches, key=lambda item: bool(item.breach.consequence_of)):
        guard = item.day if item.arm == "fresh" else ""
        incident = by_guard.get((guard, item.breach.consequence_of))
        if incident is None:
            incident = by_guard[guard, item.breach.number] = CycleIncident(item, [])
            incidents.append(incident)
        else:
            incident.consequences.append(item)
    order = {id(item): index for index, item in enumerate(breaches)}
    return sorted(incidents, key=lambda incident: order[id(incident.cause)])


def run_cycle(
    factory: Factory,
    recordings: RecordingStore,
    symbols: Sequence[str],
    days: Sequence[str],
    output_directory: Path,
    *,
    subject: str = "desk",
    schedule: Schedule = DEFAULT_SCHEDULE,
    seed: int = 0,
    faults: Sequence[str] = (),
    arms: Sequence[str] = ("carried", "fresh"),
    catalogue: Catalogue | None = None,
    progress: Progress = lambda message: None,
) -> CycleResult:
    """Run the arms over the days. Journals, snapshots, alerts and guard stores stay below `output_directory`.

    The carried arm plays `schedule` on these days, whichever it names, and from an empty state; it is written to
    `schedule.json` in `output_directory`, for `replay` and `shrink`. Raises `ScheduleError` when an operation is on
    a day that the run does not have.

    Returns a result whose verdict is `breach` when an invariant was breached in any arm, `unknown` when no
    mutation was recorded that could be checked, and `holds` otherwise.
    """
    catalogue = catalogue or Catalogue.load()
    if schedule.start != "fresh":
        raise ScheduleError(
            f"{schedule.name or 'the schedule'}: starts from {schedule.start}, and a cycle starts from an empty state; "
            f"play it with: holdover replay"
        )
    spec = {"subject": subject, "seed": seed, "faults": list(faults), "catalogue": catalogue.digest}
    played_schedule = bind_schedule(schedule, recordings, symbols, days).replace(**spec)
    claim_output_directory(output_directory)
    played_schedule.save(output_directory / "schedule.json")
    fresh_schedule = bind_schedule(FRESH_SCHEDULE, recordings, symbols, days).replace(**spec)
    settings = schedule.settings
    sessions = _SessionFactory(factory, recordings, symbols, days, seed, faults, catalogue, settings)
    arm_results: list[Arm] = []
    for name in arms:
        run, arm_schedule = (_carried_arm, played_schedule) if name == "carried" else (_fresh_arm, fresh_schedule)
        renew_output_directory(output_directory / name)
        arm_results.append(run(sessions, output_directory / name, arm_schedule, progress))
    metas = [recordings.get(symbol, day).meta for day in days for symbol in symbols]
    return CycleResult(
        verdict=_verdict_of(arm_results),
        subject=subject,
        symbols=list(symbols),
        days=list(days),
        seed=seed,
        faults=list(faults),
        schedule=schedule.name,
        simulated=any(meta.simulated for meta in metas),
        digest=catalogue.digest,
        invariants=len(catalogue),
        arms=arm_results,
        divergences=_divergences(arm_results),
    )


def _verdict_of(arms: Sequence[Arm]) -> str:
    if any(arm.breaches for arm in arms):
        return "breach"
    return "holds" if any(day.mutations for arm in arms for day in arm.days) else "unknown"


class _SessionFactory:
    """Creates sessions that differ only in their directory."""

    def __init__(
        self,
        factory: Factory,
        recordings: RecordingStore,
        symbols: Sequence[str],
        days: Sequence[str],
        seed: int,
        faults: Sequence[str],
        catalogue: Catalogue,
        settings: Mapping[str, Any],
    ) -> None:
        self.settings = settings
        self.factory, self.recordings, self.symbols, self.days = factory, recordings, symbols, list(days)
        self.seed, self.faults, self.catalogue = seed, faults, catalogue

    def create_session(self, directory: Path, first: str) -> Session:
        # Both arms plan for the same days, so that their strategies are the same.
        session = Session(
            self.factory,
            self.recordings,
            self.symbols,
            directory,
            SessionConfig(
                days=self.days,
                seed=self.seed,
                faults=self.faults,
                catalogue=self.catalogue,
                settings=self.settings,
            ),
        )
        session.clock.now_ns = self.recordings.get(self.symbols[0], first).meta.open_ns - 60_000_000_000
        return session


def _carried_arm(maker: _SessionFactory, arm_directory: Path, schedule: Schedule, progress: Progress) -> Arm:
    arm = Arm("carried")
    state: Snapshot | None = None
    for number, day in enumerate(maker.days):
        directory = arm_directory / day
        session = maker.create_session(directory, day)
        try:
            if state is not None:
                session.restore(state.parts)
            arm.days.append(_run_day(session, maker.recordings, schedule, number, arm, progress))
            if number + 1 < len(maker.days):
                state = take_snapshot(session)
                state.save(arm_directory / "snapshots")
                arm.snapshots.append(state.name)
        finally:
            session.close()
        _collect_guard_results(session, arm)
        arm.transitions, arm.carried = session.transitions, session.carried
    return arm


def _fresh_arm(maker: _SessionFactory, arm_directory: Path, schedule: Schedule, progress: Progress) -> Arm:
    arm = Arm("fresh")
    for number, day in enumerate(maker.days):
        session = maker.create_session(arm_directory / day, day)
        try:
            arm.days.append(_run_day(session, maker.recordings, schedule, number, arm, progress))
        finally:
            session.close()
        _collect_guard_results(session, arm)
        arm.transitions += session.transitions
        session.guard.breaches.clear()
    return arm


def _run_day(
    session: Session, store: RecordingStore, schedule: Schedule, number: int, arm: Arm, progress: Progress
) -> DayRun:
    day = schedule.days[number]
    progress(f"{arm.name} {day}")
    run = DayRun(day, 0, 0, 0, 0, 0, 0, 0, 0)
    before = (session.player.market_events, session.guard.monitor.mutations, session.guard.monitor.check_count)
    breach_count = len(session.guard.breaches)
    observer = DayObserver(session, run)
    session.guard.evidence.on_breach = lambda breach: arm.breaches.append(
        CycleBreach(arm.name, day, breach, session.guard.recorder.describe_last(24), guard=str(session.guard.location))
    )
    player = Player(schedule, store, session.directory, session=session)
    player.on_mutation = observer.record
    player.play_day(number, day)
    run.open_ns, run.close_ns = session.hours()
    run.market_events = session.player.market_events - before[0]
    run.mutations = session.guard.monitor.mutations - before[1]
    run.checks = session.guard.monitor.check_count - before[2]
    observer.finish_day()
    new_count, noted_count = len(session.guard.breaches) - breach_count, sum(item.day == day for item in arm.breaches)
    if new_count != noted_count:
        raise ImpossibleStateError(f"{day}: the guard found {new_count} breaches, and {noted_count} were noted")
    arm.breaches[:] = [item if item.day != day else with_final_cause(item, session) for item in arm.breaches]
    return run


def with_final_cause(item: CycleBreach, session: Session) -> CycleBreach:
    """Return a breach with its final cause, which is decided when the step is over that reported the breach."""
    breaches = (breach for breach in session.guard.breaches if breach.number == item.breach.number)
    final = next(breaches, item.breach)
    if (final.invariant, final.key) != (item.breach.invariant, item.breach.key):
        raise ImpossibleStateError(f"the guard has {final!r} under the number of {item.breach!r}")
    return msgspec.structs.replace(item, breach=final)


def _collect_guard_results(session: Session, arm: Arm) -> None:
    """Add what the guard of a finished day recorded to the arm."""
    arm.frozen = list(dict.fromkeys([*arm.frozen, *(freeze.scope for freeze in session.guard.active_freezes)]))
    arm.leaked += len(session.host.leaked_requests)
    known_pages = {(page.number, page.dedup_key, page.time_ns) for page in arm.pages}
    for line in _read_alerts(session.directory / "pages.jsonl"):
        if (line.number, line.dedup_key, line.time_ns) not in known_pages:
            arm.pages.append(line)
    for name, count in session.guard.monitor.evaluation_counts().items():
        arm.active[name] = arm.active.get(name, 0) + count
    arm.journals.append(str(session.directory / JOURNAL_FILE))
    if arm.name == "carried":
        session.host.leaked_requests.clear()


def _read_alerts(path: Path) -> list[Page]:
    if not path.exists():
        return []
    pages = [msgspec.json.decode(line, type=Page) for line in path.read_bytes().splitlines()]
    return [page for page in pages if page.event == TRIGGER]


class DayObserver:
    """Collects the data of the report: positions by subsystem, and the lifelines of the most eventful orders."""

    _LIFELINES_MAX = 14

    def __init__(self, session: Session, run: DayRun) -> None:
        self.session, self.run = session, run
        self._last_positions: dict[str, int] = {}
        self._lifelines: dict[str, Lifeline] = {}
        self._partially_filled: set[str] = set()
        self._order_keys: set[str] = set()
        observe = session.venue.reports.observe

        def observed(record: Any) -> None:
            observe(record)
            self._record_position("venue", record)

        session.venue.reports.observe = observed

    def record(self, subsystem: str, record: Any) -> None:
        """Record one mutation of the subject."""
        if isinstance(record, Order):
            self._record_order(record)
        elif isinstance(record, Execution):
            self.run.fills += 1 if record.qty_delta else 0
        else:
            self._record_position(subsystem, record)

    def _record_position(self, subsystem: str, record: Any) -> None:
        net_qty = getattr(record, "net_qty", None)
        if net_qty is None:
            return
        series = f"{record.key} {subsystem}"
        if self._last_positions.get(series) != net_qty:
            self._last_positions[series] = net_qty
            self.run.points.append(Point(self.session.clock.now_ns, series, net_qty))

    def _record_order(self, order: Order) -> None:
        self._order_keys.add(order.key)
        if 0 < order.cum_qty < order.order_qty:
            self._partially_filled.add(order.key)
        lifeline = self._lifelines.get(order.key)
        if lifeline is None:
            lifeline = self._lifelines[order.key] = Lifeline(
                order.cl_ord_id, order.account, order.symbol, order.time_in_force.name
            )
        state = (self.session.clock.now_ns, order.ord_status.name, order.cum_qty, order.order_qty)
        lifeline.states.append(state)

    def finish_day(self) -> None:
        """Keep the lifelines with the most states; GTC orders rank first."""
        self.run.orders = len(self._order_keys)
        self.run.partially_filled_orders = len(self._partially_filled)
        lifelines = sorted(
            self._lifelines.values(), key=lambda lifeline: (lifeline.time_in_force == "GTC", len(lifeline.states))
        )
        selected = lifelines[-self._LIFELINES_MAX :]
        for lifeline in selected:
            lifeline.states = lifeline.states[:60]
        self.run.lifelines = sorted(selected, key=lambda lifeline: lifeline.states[0][0])


def _divergences(arms: list[Arm]) -> list[Divergence]:
    carried = next((arm for arm in arms if arm.name == "carried"), None)
    fresh = next((arm for arm in arms if arm.name == "fresh"), None)
    if carried is None or fresh is None:
        return []
    divergences = []
    for run, carried_journal, fresh_journal in zip(carried.days, carried.journals, fresh.journals, strict=False):
        divergence = _first_difference(run.trade_date, Path(carried_journal), Path(fresh_journal))
        if divergence is not None:
            divergences.append(divergence)
    return divergences


def _first_difference(day: str, carried: Path, fresh: Path) -> Divergence | None:
    carried_lines, fresh_lines = (_subject_lines(path) for path in (carried, fresh))
    while True:
        carried_line, fresh_line = next(carried_lines, None), next(fresh_lines, None)
        if carried_line is None and fresh_line is None:
            return None
        if carried_line is None or fresh_line is None or _line_key(carried_line) != _line_key(fresh_line):
            first = carried_line or fresh_line or {}
            return Divergence(
                day,
                int(first.get("time_ns", 0)),
                _describe_line(carried_line),
                _describe_line(fresh_line),
                str(first.get("cause", "")),
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


def _line_key(line: dict[str, Any]) -> tuple[Any, ...]:
    return (line["subsystem"], line["kind"], line["record"])


def _describe_line(line: dict[str, Any] | None) -> str:
    if line is None:
        return "nothing"
    record = line["record"]
    if line["kind"] == "Order":
        return (
            f"{line['subsystem']}: Order {record['cl_ord_id']} {record.get('ord_status', 'A')} "
            f"{record.get('cum_qty', 0)}/{record['order_qty']} leaves {record['leaves_qty']}"
        )
    if line["kind"] == "Position":
        quantities = f"{record['net_qty']:+d} carried {record.get('carried_qty', 0):+d}"
        return f"{line['subsystem']}: Position {record['account']} {record['symbol']} {quantities}"
    fields = ", ".join(f"{key} {value}" for key, value in list(record.items())[:5])
    return f"{line['subsystem']}: {line['kind']} {fields}"
