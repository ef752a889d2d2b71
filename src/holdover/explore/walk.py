"""Walks a recorded day from point to point: finds where a trial can branch off, and measures the undisturbed
day.

A *point* is a mutation of the subject, a message that it is about to send, a message that it has received,
the end of an instant with an event, or a message put on the link. At each point the subject can be killed or
cut off, or the message can be changed. The walk counts the points and groups those with the same state:
between two mutations of one step nothing changes that survives a kill (the disk, the world, the guard's
records of the subject), so a kill at either is the same trial. Such points form a *class*, and one of them
represents it.

At regular times the walk sums the state (`StateSum`); a trial with the same sum at the same time has
rejoined.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from holdover.catalogue import Catalogue
from holdover.explore.state import StateSum
from holdover.harness import Session, disk
from holdover.harness.operations import OperationRunner
from holdover.harness.player import make_session
from holdover.harness.schedule import PointKind
from holdover.harness.snapshot import Snapshot, take_snapshot
from holdover.model import ImpossibleStateError, Order, Outbound, Record
from holdover.recording import RecordingStore, bundled_store

KILL_KINDS: Final[tuple[str, ...]] = ("kill", "kill-unsynced", "torn", "stale", "kill-during-recovery")
"""Faults that can happen at any point, in the middle of the subject's work."""
INSTANT_KINDS: Final[tuple[str, ...]] = ("clean", "upgrade", "overnight", "overnight-down")
"""Faults that happen at the end of an instant, when the subject is idle."""
MESSAGE_KINDS: Final[tuple[str, ...]] = ("lose", "hold", "duplicate", "reorder", "not-found")
"""Faults of a message as it is sent."""
ALL_KINDS: Final[tuple[str, ...]] = (*KILL_KINDS, *INSTANT_KINDS, "disconnect", *MESSAGE_KINDS)
"""Every kind of trial."""

POINT_KINDS: Final = ("mutation", "sent", "delivered", "instant", "in", "out")
KIND_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "kill": ("kill", "kill-unsynced", "torn", "kill-during-recovery"),
    "stale": ("stale",),
    "after": INSTANT_KINDS,
    "cut": ("disconnect",),
    "message": MESSAGE_KINDS,
}
"""The kinds that are tried at the same points, by group."""


class SweepSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The specification of a sweep: plain data that can go to another process or machine.

    `days` are consecutive recorded days and `day` is the swept one; earlier days give it its carried state, and
    `overnight` continues on the day after it. The state is summed every `grid_ns`. A trial that has not rejoined
    is followed for `horizon_ns`; one trial in `prove_every` runs to the close in any case. With `every_mutation`
    the link is dropped at every mutation, else at one mutation of each step. Points count from `begin_fraction`
    to `end_fraction` of the session.

    With `pairs` (kinds), each fault is followed by a second one of these kinds, at every class of points within
    `pair_window_ns` of the first. `settings` go to the subject.
    """

    symbols: list[str]
    days: list[str]
    day: str
    recordings: str = ""
    subject: str = "desk"
    upgrade: str = ""
    seed: int = 0
    faults: list[str] = []
    catalogue: list[str] = []
    kinds: list[str] = msgspec.field(default_factory=lambda: list(ALL_KINDS))
    begin_fraction: float = 0.0
    end_fraction: float = 1.0
    pairs: list[str] = []
    pair_window_ns: int = 30_000_000_000
    every_mutation: bool = True
    grid_ns: int = 30_000_000_000
    horizon_ns: int = 120_000_000_000
    convergence_timeout_ns: int = 120_000_000_000
    prove_every: int = 100
    snapshot: str = ""
    settings: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.day not in self.days or not self.symbols:
            raise ValueError(f"a sweep of {self.symbols} on {self.day!r}, should be one of {', '.join(self.days)}")
        unknown = [kind for kind in (*self.kinds, *self.pairs) if kind not in ALL_KINDS]
        if unknown:
            raise ValueError(f"no kind of trial is called {', '.join(unknown)}; there are {', '.join(ALL_KINDS)}")
        if not 0.0 <= self.begin_fraction <= self.end_fraction <= 1.0:
            raise ValueError(
                f"points count from {self.begin_fraction} to {self.end_fraction} of the session, should be 0.0 to 1.0"
            )
        for field in ("grid_ns", "horizon_ns", "convergence_timeout_ns", "pair_window_ns"):
            if getattr(self, field) <= 0:
                raise ValueError(f"a sweep's {field} is {getattr(self, field)}, should be above 0")


class Baseline(msgspec.Struct, frozen=True, array_like=True):
    """The undisturbed day at one time of the grid: the sum of its state, and four counts that explain a difference."""

    time_ns: int
    state: int
    orders: int
    trades: int
    open_orders: int
    position: int


class DayMap(msgspec.Struct, frozen=True):
    """What the survey of a day finds: the baselines, the number of points of each kind, and the classes.

    `classes` has, for each group of `KIND_GROUPS`, the numbers of the points that represent a class. `cuts` names
    the run of the clock's timers in which a drop of the link at a mutation must be prepared. `cells` are the
    transitions in cells of the undisturbed day.
    """

    baselines: list[Baseline]
    points: dict[str, int]
    classes: dict[str, list[int]]
    cuts: list[tuple[int, int, int]]
    cells: list[tuple[str, int]]
    point_count: int
    breaches: list[str]
    round_trips: int
    round_trip_problem: str
    seconds_virtual: float


def load_catalogue(spec: SweepSpec) -> Catalogue:
    """Load the catalogue of a specification."""
    return Catalogue.load(*spec.catalogue)


def open_recordings(spec: SweepSpec) -> RecordingStore:
    """Open the recordings of a specification; the bundled ones when it names none."""
    return RecordingStore(spec.recordings) if spec.recordings else bundled_store()


def make_scratch_directory() -> Path:
    """Make a temporary directory, in memory where possible."""
    shm = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="holdover-", dir=shm if shm.is_dir() else None))


def make_walk_session(spec: SweepSpec, directory: Path, catalogue: Catalogue, store: RecordingStore) -> Session:
    """Make a session for a specification, without a journal and without syncing."""
    return make_session(
        spec, store, directory, catalogue=catalogue, settings=spec.settings, journal=False, scratch=True
    )


def overnight_snapshot(spec: SweepSpec, directory: Path) -> Snapshot | None:
    """Return a snapshot of the night before the walked day; None when it is the first day."""
    before = spec.days[: spec.days.index(spec.day)]
    if not before:
        return None
    session = make_walk_session(spec, directory / "before", load_catalogue(spec), open_recordings(spec))
    try:
        for day in before:
            session.begin(day)
            session.run()
            session.end()
            session.overnight()
        return take_snapshot(session)
    finally:
        session.close()


class WalkObserver(Protocol):
    """Receives what a walk passes; see `Survey` and `TrialRunner`."""

    def on_hook(self) -> None:
        """Called each time that the walk begins to observe the session."""

    def on_point(self, point_kind: PointKind, classes: dict[str, bool]) -> None:
        """Called at each point; `classes` says for each group that applies whether the point is the first of its class.

        It is empty unless the walk is classifying.
        """

    def on_play_returned(self) -> None:
        """Called when `play` returns."""

    def on_grid_time(self, time_ns: int) -> None:
        """Called at each time of the grid."""

    def is_over(self) -> bool:
        """Return whether to end the walk."""
        return False


class WalkPosition(msgspec.Struct):
    """How far a walk has come: the number of the last point, the points of each kind, and the last class of each group.

    `volatile_mutations` counts the mutations that are neither on the disk nor derived. `has_events` is whether
    anything has happened since the last instant.
    """

    number: int = 0
    counts: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(POINT_KINDS, 0))
    volatile_mutations: int = 0
    class_keys: dict[str, Any] = {}
    has_events: bool = False

    def branch(self) -> WalkPosition:
        """Return the position from which a branch of the walk counts on, with no class seen yet."""
        return msgspec.structs.replace(self, counts=dict(self.counts), class_keys={})


class DayWalk:
    """Walks one day in its own session, counts its points and tells them to an observer."""

    def __init__(self, spec: SweepSpec, directory: Path, snapshot: Snapshot | None) -> None:
        if spec.day not in spec.days:
            raise ValueError(f"the swept day {spec.day} is not one of {', '.join(spec.days)}")
        self.spec, self.directory = spec, directory
        self.session = session = make_walk_session(
            spec, directory / "walk", load_catalogue(spec), open_recordings(spec)
        )
        if snapshot is not None:
            session.restore(snapshot.parts)
        self.operation_runner = OperationRunner(session)
        self.state_sum = StateSum()
        self.position = WalkPosition()
        self.is_classifying = False
        self._observer: WalkObserver | None = None
        self._link_on_send = session.link.on_send

    def run(self, observer: WalkObserver) -> None:
        """Walk the day to its close, or to the end of the specified window."""
        self._observer = observer
        session = self.session
        session.begin(self.spec.day)
        self.hook()
        for time_ns in self.grid_times():
            while True:
                session.play(time_ns)
                observer.on_play_returned()
                if not session.is_stopped:
                    break
                if self.position.has_events:
                    self.position.has_events = False
                    self.count_point("instant")
            observer.on_grid_time(time_ns)
            if observer.is_over():
                break
        self.unhook()

    def grid_times(self) -> Iterator[int]:
        """Yield the times of the grid, ns, offset by half a step from the open, and the close.

        They continue for a horizon after the last point, so that trials there can rejoin.
        """
        spec = self.spec
        open_ns, close_ns = self.session.hours()
        end_ns = min(self.time_at(spec.end_fraction) + spec.horizon_ns + spec.grid_ns, close_ns)
        yield from range(open_ns + spec.grid_ns // 2, end_ns, spec.grid_ns)
        if end_ns == close_ns:
            yield close_ns

    def time_at(self, fraction: float) -> int:
        """Return the time of a fraction of the session, ns."""
        open_ns, close_ns = self.session.hours()
        return open_ns + int((close_ns - open_ns) * fraction)

    def hook(self) -> None:
        """Observe every event of the session."""
        session = self.session
        session.host.on_record = self._on_mutation
        session.link.on_deliver = self._on_deliver
        session.link.on_launch = self._on_launch
        session.link.on_send = self._on_sent
        if self._observer is not None:
            self._observer.on_hook()

    def unhook(self) -> None:
        """Stop observing the session."""
        session = self.session
        session.host.on_record = session.link.on_deliver = session.link.on_launch = None
        session.link.on_send = self._link_on_send
        session.clock.before_timer = None

    def count_point(self, point_kind: PointKind) -> None:
        """Count a point and tell it to the observer; a play stops at it unless it is the end of an instant."""
        position = self.position
        position.number += 1
        position.counts[point_kind] += 1
        if point_kind != "instant":
            position.has_events = True
            self.session.stop()
        if self._observer is None:
            raise ImpossibleStateError("a point is counted before the walk has begun")
        self._observer.on_point(point_kind, self._classes_at(point_kind) if self.is_classifying else {})

    # -- counting ---------------------------------------------------------------------------------------------------

    def _on_mutation(self, subsystem: str, record: Record) -> None:
        if not (record.durable or record.derived):
            self.position.volatile_mutations += 1
        self.count_point("mutation")

    def _on_sent(self, message: Outbound) -> None:
        if self._link_on_send is not None:
            self._link_on_send(message)
        self.count_point("sent")

    def _on_deliver(self, direction: str) -> None:
        if direction == "in":
            self.count_point("delivered")

    def _on_launch(self, direction: str) -> None:
        self.count_point("in" if direction == "in" else "out")

    def _classes_at(self, point_kind: str) -> dict[str, bool]:
        """Return for each group that applies at a point whether the point is the first of its class."""
        if point_kind in ("in", "out"):
            return {"message": True}
        session, volatile_mutations = self.session, self.position.volatile_mutations
        world = (
            session.clock.timers_run,
            session.clock.now_ns,
            session.clock.timers_set,
            session.link.sent_counts["out"],
            session.link.sent_counts["in"],
            session.player.tape_offset,
        )
        disk_now = disk.directory_signature(session.disk.directory)
        classes = {
            "kill": self._is_first("kill", (world, disk_now, volatile_mutations, session.guard.steps.is_open)),
            "stale": self._is_first("stale", (world, volatile_mutations)),
        }
        if point_kind == "instant":
            classes["after"] = True
        elif point_kind == "mutation":
            classes["cut"] = self._is_first("cut", (world, session.guard.steps.count))
        return classes

    def _is_first(self, group: str, key: Any) -> bool:
        class_keys = self.position.class_keys
        if class_keys.get(group) == key:
            return False
        class_keys[group] = key
        return True


class Survey:
    """The first walk: finds baselines, points and classes, and checks the round trip of the world's state."""

    _ROUND_TRIP_EVERY: Final = 25

    def __init__(self, spec: SweepSpec, directory: Path, snapshot: Snapshot | None) -> None:
        self.spec = spec
        self.walk = DayWalk(spec, directory, snapshot)
        self.walk.is_classifying = True
        self.session = self.walk.session
        self.baselines: list[Baseline] = []
        self.classes: dict[str, list[int]] = {group: [] for group in KIND_GROUPS}
        self.cuts: list[tuple[int, int, int]] = []
        self.points = dict.fromkeys(POINT_KINDS, 0)
        self.window_ns = (0, 0)
        self.round_trips = 0
        self.round_trip_problem = ""

    def run(self) -> DayMap:
        """Walk the day and return its map."""
        self.walk.run(self)
        return self.build_map()

    def on_hook(self) -> None:
        """Set the window in which points count; a whole day includes the time before the open."""
        spec = self.spec
        self.window_ns = (
            self.walk.time_at(spec.begin_fraction) if spec.begin_fraction else 0,
            self.walk.time_at(spec.end_fraction),
        )

    def on_point(self, point_kind: PointKind, classes: dict[str, bool]) -> None:
        """Record the first point of each class."""
        if not self.window_ns[0] <= self.session.clock.now_ns <= self.window_ns[1]:
            return
        position = self.walk.position
        self.points[point_kind] += 1
        for group, first in classes.items():
            if first or (self.spec.every_mutation and group == "cut"):
                self.classes[group].append(position.number)
                if group == "cut":
                    self.cuts.append((self.session.clock.timers_run, position.counts["mutation"], position.number))

    def on_play_returned(self) -> None:
        """Do nothing: a survey changes nothing."""

    def is_over(self) -> bool:
        """Return False: a survey walks to the end."""
        return False

    def on_grid_time(self, time_ns: int) -> None:
        """Measure a baseline."""
        self.baselines.append(measure_baseline(self.session, self.walk.state_sum, time_ns))
        if len(self.baselines) % self._ROUND_TRIP_EVERY == 0:
            self.round_trips += 1
            self.round_trip_problem = self.round_trip_problem or check_round_trip(self.session)

    def build_map(self) -> DayMap:
        """Return what the survey found."""
        session = self.session
        return DayMap(
            baselines=self.baselines,
            points=self.points,
            classes=self.classes,
            cuts=self.cuts,
            cells=sorted(session.guard.cells.transitions),
            point_count=self.walk.position.number,
            breaches=[breach.explanation for breach in session.guard.breaches],
            round_trips=self.round_trips,
            round_trip_problem=self.round_trip_problem,
            seconds_virtual=(session.clock.now_ns - session.hours()[0]) / 1e9,
        )


def measure_baseline(session: Session, state_sum: StateSum, time_ns: int) -> Baseline:
    """Measure the current state of a session."""
    venue = session.venue
    orders = session.guard.monitor.records(Order, "orders")
    return Baseline(
        time_ns,
        state_sum.compute(session) or 0,
        len(venue.orders),
        len(venue.trades),
        sum(1 for order in orders.values() if order.is_open),
        sum(position.net_qty for position in venue.positions.values()),
    )


def check_round_trip(session: Session) -> str:
    """Check that dumping, loading and dumping the world's state gives the same bytes; returns the difference, or
    nothing.
    """
    for name, part, dump in (
        ("clock", session.clock, session.clock.to_bytes()),
        ("venue", session.venue, session.venue.to_bytes()),
        ("link", session.link, session.link.to_bytes()),
    ):
        checkpoint = part.checkpoint()
        part.restore_bytes(dump)
        second_dump = part.to_bytes()
        part.rollback(checkpoint)
        if second_dump != dump:
            return f"{name}: dumped, loaded and dumped again it is not the same"
    return ""


def survey_day(spec: SweepSpec, directory: Path, snapshot: Snapshot | None) -> DayMap:
    """Walk the undisturbed day once and return its map."""
    survey = Survey(spec, directory, snapshot)
    try:
        return survey.run()
    finally:
        survey.session.close()
