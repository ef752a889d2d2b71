"""One recorded day, walked from point to point: where a trial can branch off, and what the day was like without one.

A *point* is a mutation of the subject, a message of its own about to leave, a message that it has taken in, the end of
an instant at which anything happened, or a message being put on the way. At each of them the subject can be killed, cut
off, or have something done to the message. The walk counts the points, and tells which of them stand in the same state:
between two mutations of one step nothing that survives a kill has changed (the disk, the world, what the guard holds
the subject to), so killing it at either is the same trial. Such points form a *class*, and one of them stands for it.

At round times the state is summed (`StateSum`): a trial that comes to the same sum at the same time has rejoined.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.explore.hand import Hand
from holdover.explore.play import session_for
from holdover.explore.state import StateSum
from holdover.harness import Session, disk
from holdover.harness.snapshot import Snapshot, take
from holdover.model import Order, Outbound, Record
from holdover.recording import RecordingStore, bundled

KILLS: Final[tuple[str, ...]] = ("kill", "kill-unsynced", "torn", "stale", "kill-during-recovery")
"""What comes at any point, in the middle of whatever the subject does."""
AFTERWARDS: Final[tuple[str, ...]] = ("clean", "upgrade", "overnight", "overnight-down")
"""What comes when the subject has done what it was doing."""
MESSAGES: Final[tuple[str, ...]] = ("lose", "hold", "duplicate", "reorder", "not-found")
"""What is done to a message as it is put on the way."""
ALL_KINDS: Final[tuple[str, ...]] = (*KILLS, *AFTERWARDS, "disconnect", *MESSAGES)
"""Every kind of trial."""

PLACES: Final = ("mutation", "sent", "delivered", "instant", "in", "out")
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "kill": ("kill", "kill-unsynced", "torn", "kill-during-recovery"),
    "stale": ("stale",),
    "after": AFTERWARDS,
    "cut": ("disconnect",),
    "message": MESSAGES,
}
"""Which kinds are tried at the same points."""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep walks on: plain data, so that it can be handed to another process or machine.

    `days` are consecutive recorded days, `day` is walked; the days before it give it its carried state, the
    one after it is where `overnight` leads. Sums are taken every `grid_ns`; a trial that has not rejoined is followed
    for `horizon_ns`. One trial in `prove_every` is run to the close all the same. With `every` the link is cut at every
    mutation, without it at one of each step. Points count from `since` up to `until`, fractions of the session.

    With `pairs`, kinds too, each fault is followed by a second one of these, at every class of points that comes within
    `within_ns` of the first.
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
    since: float = 0.0
    until: float = 1.0
    pairs: list[str] = []
    within_ns: int = 30_000_000_000
    every: bool = True
    grid_ns: int = 30_000_000_000
    horizon_ns: int = 120_000_000_000
    bound_ns: int = 120_000_000_000
    prove_every: int = 100
    snapshot: str = ""
    desk: dict[str, Any] = {}


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """What the undisturbed day was like at one round time: the sum of its state, and four counts that explain one."""

    time_ns: int
    state: int
    orders: int
    trades: int
    open_orders: int
    position: int


class Map(msgspec.Struct, frozen=True):
    """What the first walk over a day finds: the marks, how many points of each place, and where each class begins.

    `classes` has for each of `GROUPS` the numbers of the points that stand for one;
    `cuts` says in which run of the clock's timers a cut at a mutation has to be prepared; `cells` are the transitions
    that the day has seen in cells.
    """

    marks: list[Mark]
    points: dict[str, int]
    classes: dict[str, list[int]]
    cuts: list[tuple[int, int, int]]
    cells: list[tuple[str, int]]
    total: int
    breaches: list[str]
    round_trips: int
    round_trip_problem: str
    seconds_virtual: float


def catalogue_of(ground: Ground) -> Catalogue:
    """The catalogue that a ground names."""
    return Catalogue.load(*ground.catalogue)


def store_of(ground: Ground) -> RecordingStore:
    """The recordings that a ground names; without a name the bundled ones."""
    return RecordingStore(ground.recordings) if ground.recordings else bundled()


def scratch_place() -> Path:
    """A folder for what is thrown away, in memory where the machine offers that."""
    shm = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="holdover-", dir=shm if shm.is_dir() else None))


def new_session(ground: Ground, place: Path, catalogue: Catalogue, store: RecordingStore) -> Session:
    """A session on a ground that leaves no trace."""
    return session_for(ground, store, place, catalogue=catalogue, settings=ground.desk, journal=False, scratch=True)


def night_before(ground: Ground, place: Path) -> Snapshot | None:
    """The state in which the walked day begins: that of the night before it; None when it is the first day."""
    before = ground.days[: ground.days.index(ground.day)]
    if not before:
        return None
    session = new_session(ground, place / "before", catalogue_of(ground), store_of(ground))
    try:
        for day in before:
            session.begin(day)
            session.run()
            session.end()
            session.overnight()
        return take(session)
    finally:
        session.close()


class Walk:
    """Goes over one day and calls `at_point`, `at_instant` and `at_mark` on its way; see `Survey` and `Trials`."""

    def __init__(self, ground: Ground, place: Path, snapshot: Snapshot | None) -> None:
        self.ground, self.place = ground, place
        self.session = session = new_session(ground, place / "walk", catalogue_of(ground), store_of(ground))
        if snapshot is not None:
            session.load(snapshot.parts)
        self.hand = Hand(session)
        self.sums = StateSum()
        self.counts = dict.fromkeys(PLACES, 0)
        self.number = 0
        self.unrolled = 0
        self._keys: dict[str, Any] = {}
        self._happened = False
        self._sending = session.link.on_send

    def go(self) -> None:
        """Walk the day to its close, or as far as the ground says."""
        session = self.session
        session.begin(self.ground.day)
        self.hook()
        for time_ns in self.grid():
            while True:
                session.play(time_ns)
                self.came_back()
                if not session.stopped:
                    break
                if self._happened:
                    self._happened = False
                    self._point("instant")
            self.at_mark(time_ns)
            if self.over():
                break
        self.unhook()

    def grid(self) -> Iterator[int]:
        """The round times of the day, half a grid off the open, and the close.

        They go on for a horizon after the last point that counts, so that what is tried there can rejoin.
        """
        ground = self.ground
        open_ns, close_ns = self.session.hours()
        end_ns = min(self.at(ground.until) + ground.horizon_ns + ground.grid_ns, close_ns)
        yield from range(open_ns + ground.grid_ns // 2, end_ns, ground.grid_ns)
        if end_ns == close_ns:
            yield close_ns

    def at(self, fraction: float) -> int:
        """The time of a fraction of the session, ns."""
        open_ns, close_ns = self.session.hours()
        return open_ns + int((close_ns - open_ns) * fraction)

    def hook(self) -> None:
        """Hear of everything that happens."""
        session = self.session
        session.on_record = self._mutation
        session.link.on_deliver = self._delivered
        session.link.on_launch = self._launched
        session.link.on_send = self._sent

    def unhook(self) -> None:
        """Hear of nothing any more."""
        session = self.session
        session.on_record = session.link.on_deliver = session.link.on_launch = None
        session.link.on_send = self._sending
        session.clock.before = None

    # -- what a walk does on its way --------------------------------------------------------------------------------

    def at_point(self, place: str, classes: dict[str, bool]) -> None:
        """A point has been reached; `classes` says for each group that applies whether it is the first of its class."""

    def at_mark(self, time_ns: int) -> None:
        """A round time has been reached."""

    def came_back(self) -> None:
        """`play` has returned."""

    def over(self) -> bool:
        """Whether to end here."""
        return False

    # -- counting ---------------------------------------------------------------------------------------------------

    def _mutation(self, subsystem: str, record: Record) -> None:
        if not (record.durable or record.derived):
            self.unrolled += 1
        self._point("mutation")

    def _sent(self, message: Outbound) -> None:
        if self._sending is not None:
            self._sending(message)
        self._point("sent")

    def _delivered(self, direction: str) -> None:
        if direction == "in":
            self._point("delivered")

    def _launched(self, direction: str) -> None:
        self._point(direction)

    def _point(self, place: str) -> None:
        self.number += 1
        self.counts[place] += 1
        if place != "instant":
            self._happened = True
            self.session.stop()
        self.at_point(place, self.classes_here(place))

    def classes_here(self, place: str) -> dict[str, bool]:
        """For each group that can come here, whether this point is the first of its class."""
        if place in ("in", "out"):
            return {"message": True}
        session = self.session
        world = (
            session.clock.ran,
            session.clock.now_ns,
            session.clock.timers_set,
            session.link.sent["out"],
            session.link.sent["in"],
            session.place,
        )
        disk_now = disk.signature(session.subject_directory)
        classes = {
            "kill": self._first("kill", (world, disk_now, self.unrolled, session.guard.in_step)),
            "stale": self._first("stale", (world, self.unrolled)),
        }
        if place == "instant":
            classes["after"] = True
        elif place == "mutation":
            classes["cut"] = self._first("cut", (world, session.guard.begun))
        return classes

    def _first(self, group: str, key: Any) -> bool:
        if self._keys.get(group) == key:
            return False
        self._keys[group] = key
        return True


class Survey(Walk):
    """The first walk: marks, points and classes; and the round trip of the world's state."""

    _ROUND_TRIP_EVERY: Final = 25

    def __init__(self, ground: Ground, place: Path, snapshot: Snapshot | None) -> None:
        super().__init__(ground, place, snapshot)
        self.marks: list[Mark] = []
        self.classes: dict[str, list[int]] = {group: [] for group in GROUPS}
        self.cuts: list[tuple[int, int, int]] = []
        self.points = dict.fromkeys(PLACES, 0)
        self.window = (0, 0)
        self.round_trips = 0
        self.problem = ""

    def hook(self) -> None:
        """Note from when to when the points count: all of a whole day, those before the open too."""
        super().hook()
        ground = self.ground
        self.window = (self.at(ground.since) if ground.since else 0, self.at(ground.until))

    def at_point(self, place: str, classes: dict[str, bool]) -> None:
        """Note where each class begins."""
        if not self.window[0] <= self.session.clock.now_ns <= self.window[1]:
            return
        self.points[place] += 1
        for group, first in classes.items():
            if first or (self.ground.every and group == "cut"):
                self.classes[group].append(self.number)
                if group == "cut":
                    self.cuts.append((self.session.clock.ran, self.counts["mutation"], self.number))

    def at_mark(self, time_ns: int) -> None:
        """Sum the state."""
        self.marks.append(mark(self.session, self.sums, time_ns))
        if len(self.marks) % self._ROUND_TRIP_EVERY == 0:
            self.round_trips += 1
            self.problem = self.problem or round_trip(self.session)

    def map(self) -> Map:
        """What was found."""
        session = self.session
        return Map(
            marks=self.marks,
            points=self.points,
            classes=self.classes,
            cuts=self.cuts,
            cells=sorted(session.guard.cells.transitions),
            total=self.number,
            breaches=[breach.explanation for breach in session.guard.breaches],
            round_trips=self.round_trips,
            round_trip_problem=self.problem,
            seconds_virtual=(session.clock.now_ns - session.hours()[0]) / 1e9,
        )


def mark(session: Session, sums: StateSum, time_ns: int) -> Mark:
    """How a session stands now."""
    venue = session.venue
    tables = session.guard.monitor.layout.tables
    kept = tables.get(("orders", Order), {})
    return Mark(
        time_ns,
        sums.of(session) or 0,
        len(venue.orders),
        len(venue.trades),
        sum(1 for order in kept.values() if isinstance(order, Order) and order.is_open),
        sum(held.net_qty for held in venue.positions.values()),
    )


def round_trip(session: Session) -> str:
    """Whether what is dumped and loaded is what was dumped; what differs, in words, or nothing."""
    for name, part, dump in (
        ("clock", session.clock, session.clock.dump()),
        ("venue", session.venue, session.venue.dump()),
        ("link", session.link, session.link.dump()),
    ):
        kept = part.keep()
        part.load(dump)
        again = part.dump()
        part.put_back(kept)
        if again != dump:
            return f"{name}: dumped, loaded and dumped again it is not the same"
    return ""


def survey(ground: Ground, place: Path, snapshot: Snapshot | None) -> Map:
    """Walk the day once, undisturbed."""
    walk = Survey(ground, place, snapshot)
    try:
        walk.go()
        return walk.map()
    finally:
        walk.session.close()
