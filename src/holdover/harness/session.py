"""The session: the explicit lifecycle of a subject over recorded days.

    begin  run  disconnect  reconnect  restart  end  overnight

Each transition is checked: what makes no sense is refused with what was legal. Between them the recorded market runs
on the virtual clock, the venue fills from it, and the guard evaluates its catalogue on every mutation, at every
quiescent moment and at every boundary, the same guard with the same catalogue as in production.

A kill is exactly a kill: the subject's directory is copied at the instant, its env goes dead, and whatever still
unwinds inside it (a `finally`, a `with`, a rollback) has no effect on anything that survives.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.harness import disk
from holdover.harness.condition import Condition
from holdover.harness.subject import Env, Factory, Killed, Market, Plan, Subject, SubjectClock, SubjectGuard
from holdover.harness.tape import Tape
from holdover.model import SYSTEM, Instrument, Order, Outbound, Position, Record, Request
from holdover.recording import BadRecording, MarketEvent, Recording, RecordingStore
from holdover.runtime import Breach, Channel, FileChannel, FreezeStore, Guard, Journal
from holdover.world import Clock, Link, Venue, VenuePolicy

RESTARTS: Final = ("clean", "kill", "kill-unsynced", "torn", "stale", "kill-during-recovery", "upgrade")
"""The kinds of restart; see `Session.restart`."""

_LEGAL: Final[dict[str, tuple[str, ...]]] = {
    "new": ("begin",),
    "open": ("run", "disconnect", "reconnect", "restart", "end", "snapshot"),
    "ended": ("overnight", "restart", "snapshot"),
    "night": ("begin", "snapshot"),
}
_SETTLE_NS: Final = 120_000_000_000
"""How long after the close the world runs on, so that what the venue said at the close arrives."""
_BEFORE_OPEN_NS: Final = 30_000_000_000
"""How long before the open the subject is started."""


class IllegalTransition(ValueError):
    """A transition that makes no sense here; the message says what was legal."""


class Transition(msgspec.Struct, frozen=True):
    """One lifecycle transition as it happened."""

    what: str
    detail: str
    trade_date: str
    time_ns: int
    mutation: int


class Session:
    """One subject, one venue, one guard, over consecutive recorded days.

    `recordings` gives the days, `symbols` the instruments that trade, `directory` a folder of its own. Pages are in the
    outbox and in `pages.jsonl`; a `scratch` session keeps its guard's store in memory and pages nobody. `venue` makes
    the venue.
    """

    def __init__(
        self,
        factory: Factory,
        recordings: RecordingStore,
        symbols: Sequence[str],
        directory: Path,
        *,
        days: Sequence[str],
        seed: int = 0,
        faults: Sequence[str] = (),
        policy: VenuePolicy | None = None,
        catalogue: Catalogue | None = None,
        settings: Mapping[str, Any] | None = None,
        journal: bool = True,
        scratch: bool = False,
        venue: Callable[[Clock, Sequence[Instrument], VenuePolicy], Venue] = Venue,
    ) -> None:
        self.recordings, self.symbols, self.directory = recordings, list(symbols), directory
        self.days = list(days)
        found = [recordings.get(symbol, day) for day in self.days for symbol in self.symbols]
        self.plan = Plan(
            days=[one.meta for one in found], seed=seed, faults=tuple(faults), settings=dict(settings or {})
        )
        self.rng = random.Random(seed)
        self.factory = factory
        self.policy = policy or VenuePolicy()
        self.clock = Clock(found[0].meta.open_ns - _BEFORE_OPEN_NS)
        instruments = self.plan.instruments()
        self.venue = venue(self.clock, instruments, self.policy)
        self.accounts = list(factory(self.plan).accounts)
        self.link = Link(self.clock, self.venue, self.accounts)
        self.subject_directory = directory / "subject"
        self.subject_directory.mkdir(parents=True, exist_ok=True)
        self.guard = self._open_guard(catalogue, journal, scratch)
        self.venue.observe = self._observe
        self.link.on_send = self._sending
        self.phase = "new"
        self.trade_date = ""
        self.market_events = 0
        self.transitions: list[Transition] = []
        self.leaked: list[Request] = []
        self.expected: set[str] = set()
        self.carried: list[dict[str, Any]] = []
        self.on_record: Callable[[str, Record], None] | None = None
        self.subject: Subject | None = None
        self.env: Env | None = None
        self._syncs = disk.Syncs()
        self.synced: dict[str, int] = {}
        self._left: Outbound | None = None
        self._tape = Tape([], 0, 0)
        self._events: Iterator[MarketEvent] = iter(())
        self._held: MarketEvent | None = None
        self._day: list[Recording] = []
        self._until: Condition | None = None
        self._kill_at: Condition | None = None
        self._stopped = False
        self._image: Path | None = None
        self._quiet_at = -1
        self._lives = 0

    def _open_guard(self, catalogue: Catalogue | None, journal: bool, scratch: bool) -> Guard:
        place = self.directory / "guard"
        channels: list[Channel] = [] if scratch else [FileChannel(self.directory / "pages.jsonl")]
        guard = Guard(
            place,
            catalogue=catalogue,
            clock=lambda: self.clock.now_ns,
            channels=channels,
            instruments=self.plan.instruments(),
            journal=Journal(self.directory / "journal.jsonl") if journal else None,
            store=FreezeStore.in_memory() if scratch else None,
        )
        guard.quiet = True
        guard.cells.explicit = True
        if self.plan.faults:
            guard.cells.left_out = f"a subject with seeded faults: {', '.join(self.plan.faults)}"
        guard.monitor.undo = []  # a subject can be killed here, and its guard lives on
        return guard

    # -- transitions --------------------------------------------------------------------------------------------

    def begin(self, trade_date: str | None = None) -> None:
        """Begin a trading day: the venue opens its session, the subject comes up on what it has kept."""
        self._check("begin")
        trade_date = trade_date or self.days[0 if not self.trade_date else self.days.index(self.trade_date) + 1]
        self._day = [self.recordings.get(symbol, trade_date) for symbol in self.symbols]
        if self.trade_date and trade_date <= self.trade_date:
            raise IllegalTransition(f"begin {trade_date}: days go forward, and {self.trade_date} has been")
        open_ns, close_ns = self.hours()
        self.trade_date = trade_date
        self.clock.run_until(max(open_ns - _BEFORE_OPEN_NS, self.clock.now_ns))
        self._read_on()
        self._held = None
        self._market_before_the_open(self.clock.now_ns)
        disk.copy(self.subject_directory, self.directory / "backup")
        self.venue.begin(trade_date, open_ns, close_ns)
        self.phase = "open"
        self._said("begin", trade_date)
        self._start()
        self.guard.boundary("begin", trade_date)

    def run(
        self,
        until: Condition | str | float | int | None = None,
        *,
        kill: bool = False,
        limit: str | float | int = "close",
    ) -> bool:
        """Let the recorded market run; returns whether the condition was met.

        `until` is a condition on the subject's mutations, a fraction of the session (0.0 to 1.0), a time in ns, or
        `"close"`, the default. With `kill` the subject dies at the very mutation that meets the condition, inside
        whatever it was doing; `restart` brings it up again. A condition that is not met ends at `limit`.
        """
        self._check("run")
        if isinstance(until, Condition):
            self._until, self._kill_at = (None, until) if kill else (until, None)
            end_ns = self._time(limit)
        else:
            end_ns = self._time("close" if until is None else until)
        self._stopped = False
        try:
            self._play(end_ns)
        except Killed:
            self._dead()
            self._stopped = True
        met = self._stopped
        self._until = self._kill_at = None
        return met

    def stay_down(self, seconds: float) -> None:
        """Let the market run on for a while without the subject: the venue fills, cancels and expires as it may.

        Raises `IllegalTransition` while the subject is up.
        """
        self._check("restart")
        if self.subject is not None:
            raise IllegalTransition("stay_down is not legal while the subject is up; legal is: run(..., kill=True)")
        self._stopped = False
        self._play(self.clock.now_ns + int(seconds * 1_000_000_000))

    def restart(
        self, kind: str = "clean", *, kill: bool = False, during: int = 5, factory: Factory | None = None
    ) -> None:
        """Bring the subject down and up again on what its disk holds.

        `clean` stops it in good order; `kill` at once; `kill-unsynced`, `torn`: the disk loses its unsynced tail, or
        the last write is half there; `stale`: the backup of this morning comes back; `kill-during-recovery` kills it
        again at the `during`-th mutation of its recovery; `upgrade` brings up another version (`factory`).
        Raises `IllegalTransition` for another kind.
        """
        self._check("restart")
        kind = "kill" if kill and kind == "clean" else kind
        if kind not in RESTARTS:
            raise IllegalTransition(f"no restart is called {kind!r}; legal are {', '.join(RESTARTS)}")
        self._said("restart", kind)
        if kind in ("clean", "upgrade"):
            self._stop()
        else:
            self._dead()
            self._damage(kind)
        self.factory = factory or self.factory
        self.guard.reload()
        self.guard.boundary("restart", self.trade_date)
        if kind == "kill-during-recovery":
            self._kill_at = Condition("recovery", lambda subsystem, record: True, during)
            try:
                self._start()
                self._play(self.clock.now_ns + 1_000_000_000)
            except Killed:
                pass
            self._kill_at = None
            self._dead()
        self._start()

    def disconnect(self, *, lose_out: bool = False, recovery: str = "") -> None:
        """Cut the link with whatever is in flight; it stays cut until `reconnect`.

        `recovery` (`replay` or `drop`) says what the venue will do about the messages missed, from now on.
        """
        self._check("disconnect")
        self.link.recovery = recovery or self.link.recovery
        self._said("disconnect", f"in flight {self.link.in_flight}")
        self.link.disconnect(lose_out=lose_out)
        self.guard.boundary("disconnect", self.trade_date)

    def reconnect(self) -> None:
        """Connections are possible again; the subject connects by itself, and gets what the venue's policy gives."""
        self._check("reconnect")
        self._said("reconnect", self.link.recovery)
        self.link.reconnect()
        self.guard.boundary("reconnect", self.trade_date)

    def end(self, *, now: bool = False) -> None:
        """Run to the close: the venue ends its session, the subject hears of it and is stopped in good order.

        With `now` the venue closes at this very moment (an early close), and what was recorded after it is left out.
        """
        self._check("end")
        if self.subject is not None and not now:
            self._play(self._time("close"))
        self._drain()
        self.venue.end()
        self.clock.run_until(self.clock.now_ns + _SETTLE_NS)
        self._quiesce()
        self._said("end", self.trade_date)
        self.guard.boundary("end", self.trade_date)
        if self.subject is not None:
            self._stop()
        self.phase = "ended"

    def overnight(self, splits: Mapping[str, tuple[int, int]] | None = None) -> None:
        """The night between two days of the exchange's calendar, with the corporate actions that it brings."""
        self._check("overnight")
        self.carried.append(self._carry())
        self.link.overnight()
        self.venue.overnight(splits)
        self.guard.reload()
        self._said("overnight", self._day[0].meta.next_session)
        self.guard.boundary("overnight", self.trade_date)
        self.phase = "night"

    # -- asking -------------------------------------------------------------------------------------------------

    def order(self, cl_ord_id: str) -> Order:
        """An order as the subject's order manager last said. Raises `KeyError` for one that it never spoke of."""
        for (subsystem, kind), kept in self.guard.monitor.layout.tables.items():
            if subsystem == "orders" and kind is Order:
                for order in kept.values():
                    if isinstance(order, Order) and cl_ord_id in (order.root_cl_ord_id, order.cl_ord_id):
                        return order
        raise KeyError(f"the subject has never spoken of an order {cl_ord_id}")

    def orders(self) -> list[Order]:
        """Every order as the subject's order manager last said."""
        kept = self.guard.monitor.layout.tables.get(("orders", Order), {})
        return [order for order in kept.values() if isinstance(order, Order)]

    def position(self, account: str, symbol: str) -> int:
        """A net position in lots, as the subject's position keeper last said."""
        kept = self.guard.monitor.layout.tables.get(("positions", Position), {}).get(f"{account}/{symbol}")
        return kept.net_qty if isinstance(kept, Position) else 0

    @property
    def breaches(self) -> list[Breach]:
        """The breaches so far, oldest first."""
        return self.guard.breaches

    def hours(self) -> tuple[int, int]:
        """Open and close of the day, ns; over several instruments the earliest and the latest."""
        return min(one.meta.open_ns for one in self._day), max(one.meta.close_ns for one in self._day)

    def close(self) -> None:
        """Let go of everything; the directory stays."""
        if self.subject is not None:
            self._dead()
        self.guard.pager.deliver_due()
        self.guard.close()
        self._syncs.leave()

    # -- the full state -----------------------------------------------------------------------------------------

    def state(self) -> dict[str, bytes]:
        """Every part of the full state by name: subject's files, venue, link, clock, guard, and the session itself.

        While the subject is up its directory is taken as a kill would leave it. Raises `IllegalTransition` before the
        first begin.
        """
        self._check("snapshot")
        parts = {
            "clock": self.clock.dump(),
            "venue": self.venue.dump(),
            "link": self.link.dump(),
            "guard/memory": self.guard.monitor.dump(),
            "guard/store": self.guard.store.dump(),
            "session": msgspec.msgpack.encode(
                {
                    "phase": self.phase,
                    "trade_date": self.trade_date,
                    "market_events": self.market_events,
                    "transitions": self.transitions,
                    "carried": self.carried,
                    "leaked": self.leaked,
                    "rng": self.rng.getstate(),
                    "symbols": self.symbols,
                    "days": self.days,
                    "subject_up": self.subject is not None,
                    "position": self._held[0] if self._held else 0,
                    "tape": self._tape.place,
                    "held": self._held,
                    "synced": self.synced,
                    "quiet_at": self._quiet_at,
                }
            ),
        }
        for path in disk.files_in(self.subject_directory):
            parts[f"subject/{path.relative_to(self.subject_directory).as_posix()}"] = path.read_bytes()
        if self.phase == "open":
            backup = self.directory / "backup"
            for path in disk.files_in(backup):
                parts[f"backup/{path.relative_to(backup).as_posix()}"] = path.read_bytes()
        return parts

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Take up a full state in a new session over the same recordings; inside a day `restart` goes on from it.

        Raises `ValueError` when a part is missing or damaged, or when the state was taken while the subject was up.
        """
        try:
            held = msgspec.msgpack.decode(parts["session"])
            if held["subject_up"]:
                raise ValueError(
                    f"this state was taken in the middle of {held['trade_date']} while the subject was up; "
                    f"only from between days, or from where it was down, can it run on"
                )
            self.clock.load(parts["clock"])
            self.venue.load(parts["venue"])
            self.link.load(parts["link"])
            self.guard.load_state(parts["guard/store"], parts["guard/memory"])
            self.phase, self.trade_date = held["phase"], held["trade_date"]
            self.market_events, self._quiet_at = held["market_events"], held["quiet_at"]
            self.transitions = [msgspec.convert(one, Transition) for one in held["transitions"]]
            self.carried = held["carried"]
            self.leaked = msgspec.convert(held["leaked"], list[Request])
            version, internal, gauss = held["rng"]
            self.rng.setstate((version, tuple(internal), gauss))
        except (KeyError, msgspec.MsgspecError) as problem:
            raise ValueError(f"the state is damaged: {type(problem).__name__} {problem}") from problem
        self._day = [self.recordings.get(symbol, self.trade_date) for symbol in self.symbols]
        for kind, directory in (("subject/", self.subject_directory), ("backup/", self.directory / "backup")):
            disk.lay_down({n.removeprefix(kind): part for n, part in parts.items() if n.startswith(kind)}, directory)
        if self.phase == "open":
            self.synced = held["synced"]
            self._read_on(tuple(held["tape"]))
            self._held = tuple(held["held"]) if held["held"] else None

    # -- trials -------------------------------------------------------------------------------------------------

    @property
    def place(self) -> tuple[int, int]:
        """Where the recorded market stands."""
        return self._tape.place

    @property
    def stopped(self) -> bool:
        """Whether the last `play` ended before its time: by `stop`."""
        return self._stopped

    def stop(self) -> None:
        """Have `play` end after the event or the instant that is running now."""
        self._stopped = True

    def die(self) -> None:
        """Kill the subject at this very point, from inside a call of its own: raises `Killed`; then `bury`."""
        self._said("kill", "here")
        self._take_image()
        raise Killed

    def bury(self) -> None:
        """The subject is dead, its disk is as it was at that instant."""
        self._dead()

    def sever(self, *, lose_out: bool = False, recovery: str = "") -> None:
        """Cut the link in the middle of whatever is going on; the subject hears of it when it has done."""
        self.link.recovery = recovery or self.link.recovery
        self._said("disconnect", f"in flight {self.link.in_flight}")
        self.link.sever(lose_out=lose_out)

    def crash(self, into: Path, image: Mapping[str, bytes] | None = None) -> None:
        """The subject dies at this very instant, from inside a call of its own, for a trial that `put_back` ends.

        Its disk as it is now (or the `image` of it, where one has been taken already) is laid down in `into`, on which
        the next life will run; the old life's own files and objects are not touched. `restart` brings it up.
        """
        disk.lay_down(disk.image(self.subject_directory) if image is None else image, into)
        self.synced = self._syncs.of(self.subject_directory)
        self.subject_directory = into
        if self.env is not None:
            self.env.kill()
        self._kill_at = None
        self.guard.abandon_steps(self._has_left, gone=True)
        self._bury()

    def keep(self) -> Any:
        """All that may change from here on, in this process, for `put_back`; the subject's own insides left out.

        Only a trial in which the present life does nothing (it is killed at once) can be ended by `put_back`.
        """
        env = self.env
        told = env.guard if env is not None else None
        return (
            (self.clock.keep(), self.link.keep(), self.venue.keep(), self.guard.keep()),
            (self._tape.place, self._held, self._tape, self._events),
            (self.phase, self.trade_date, self.market_events, self._day, self.subject_directory),
            (list(self.transitions), list(self.leaked), list(self.carried), self.rng.getstate()),
            (self.subject, env, self.factory, self._until, self._kill_at, self._stopped, self._quiet_at, self._lives),
            self._left,
            (told.reconciled_date, list(told.recovered), list(told.restored)) if told is not None else None,
        )

    def put_back(self, kept: Any) -> None:
        """Make everything what it was when `keep` was called."""
        (clock, link, venue, guard), tape, day, said, life, self._left, told = kept
        self.venue.put_back(venue)
        self.guard.put_back(guard)
        self.link.put_back(link)
        self.clock.put_back(clock)
        _, self._held, self._tape, self._events = tape
        self.phase, self.trade_date, self.market_events, self._day, self.subject_directory = day
        self.transitions, self.leaked, self.carried = (list(told) for told in said[:3])
        self.rng.setstate(said[3])
        (self.subject, self.env, self.factory, self._until, self._kill_at, self._stopped) = life[:6]
        self._quiet_at, self._lives = life[6:]
        if self.env is not None:
            self.env.clock.dead = self.env.guard.dead = self.env.link.dead = False
            self.env.guard.reconciled_date, recovered, restored = told
            self.env.guard.recovered, self.env.guard.restored = list(recovered), list(restored)

    def own_tape(self) -> None:
        """Read the market on from here by a tape of its own, so that whoever holds the present one finds it unmoved."""
        self._read_on(self._tape.place)

    def play(self, until_ns: int) -> None:
        """Let the market and the timers run up to a time, whether the subject is up or not."""
        self._stopped = False
        self._play(until_ns)

    # -- running ------------------------------------------------------------------------------------------------

    def _play(self, end_ns: int) -> None:
        """Market events and timers in the order of their times, up to `end_ns` or until something stops it."""
        clock, on_market = self.clock, self.venue.on_market
        events = self._events
        event = self._held or next(events, None)
        self._held = None
        count = 0
        try:
            while event is not None:
                time_ns = event[0]
                if time_ns >= end_ns:
                    break
                if clock.next_ns <= time_ns:
                    self._held = event
                    self._run_timers(time_ns)
                    self._held = None
                    if self._stopped:
                        break
                if time_ns > clock.now_ns:
                    clock.now_ns = time_ns
                count += 1
                current, event = event, None
                on_market(current)
                event = next(events, None)
                if self._stopped:
                    break
        finally:
            self._held = event if event is not None else next(events, None)
            self.market_events += count
            self.guard.cells.played += count
        if not self._stopped:
            self._run_timers(max(end_ns, clock.now_ns))

    def _run_timers(self, time_ns: int) -> None:
        clock = self.clock
        while clock.next_ns <= time_ns and not self._stopped:
            clock.run_until(clock.next_ns)
            if self.link.quiet and self._quiet_at != self.guard.monitor.mutations:
                self._quiesce()
        if not self._stopped:
            clock.run_until(time_ns)

    def _quiesce(self) -> None:
        """If nothing is in flight: what the subject believes and what the venue knows must agree now."""
        if not self.link.quiet or self.env is None:
            return
        told = self.env.guard
        if told.reconciled_date:
            recovered, told.recovered = told.recovered, []
            date, told.reconciled_date = told.reconciled_date, ""
            self.guard.reconciled(date, recovered)
        else:
            self.guard.quiescent()
        self._quiet_at = self.guard.monitor.mutations

    def _drain(self) -> None:
        """Let what is in flight at the close arrive before the venue ends the day."""
        self.clock.run_until(self.clock.now_ns + 4 * self.link.latency_ns)
        self._quiesce()

    def _time(self, when: str | float | int) -> int:
        open_ns, close_ns = self.hours()
        if when == "close":
            return close_ns
        if when == "open":
            return open_ns
        if isinstance(when, float) and 0.0 <= when <= 1.0:
            return open_ns + int((close_ns - open_ns) * when)
        if isinstance(when, int):
            return when
        raise IllegalTransition(f"run until {when!r}: say a condition, a fraction of the session, ns, or 'close'")

    def _read_on(self, place: tuple[int, int] | None = None) -> None:
        """Read the market of the day from now on, or from a place in it."""
        self._tape = Tape(self._day, self.clock.now_ns, self.hours()[1], place)
        self._events = self._tape.events()

    def _market_before_the_open(self, now_ns: int) -> None:
        """The market as it stands when the subject comes up: the last quote before."""
        for number, recording in enumerate(self._day):
            index = recording.index_at(now_ns) - 1
            if index >= 0:
                event = recording.at(index)
                self.venue.on_market((event[0], number, 1, *event[3:]))

    # -- the subject's lives ------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._lives += 1
        self._syncs.watch()
        open_ns, close_ns = self.hours()
        self.env = Env(
            clock=SubjectClock(self.clock),
            link=self.link.attach(),
            market=Market(self.venue),
            directory=self.subject_directory,
            guard=SubjectGuard(self.guard, self._recorded),
            trade_date=self.trade_date,
            open_ns=open_ns,
            close_ns=close_ns,
            instruments=self.plan.instruments(),
        )
        self.subject = self.factory(self.plan)
        self.subject.start(self.env)

    def _stop(self) -> None:
        if self.subject is not None:
            self.subject.stop()
        self._bury()

    def _dead(self) -> None:
        """The subject has died: by a kill in the middle of something, or now."""
        if self._image is None and self.subject is not None:
            self._take_image()
        self._bury()
        if self._image is not None:
            disk.put_back(self._image, self.subject_directory)
            self._image = None

    def _bury(self) -> None:
        if self.env is not None:
            self.env.kill()
        self.guard.subject_gone()
        self.link.detach()
        self.clock.unregister("subject")
        self.clock.cancel_owner("subject")
        self.subject = self.env = None

    def _take_image(self) -> None:
        self._image = self.directory / "killed"
        disk.copy(self.subject_directory, self._image)
        self.synced = self._syncs.of(self.subject_directory)
        if self.env is not None:
            self.env.kill()
        self.guard.abandon_steps(self._has_left)

    def _damage(self, kind: str) -> None:
        if kind == "kill-unsynced":
            disk.lose_unsynced(self.subject_directory, self.synced)
        elif kind == "torn":
            disk.tear(self.subject_directory)
        elif kind == "stale":
            disk.copy(self.directory / "backup", self.subject_directory)

    def _recorded(self, subsystem: str, record: Record) -> None:
        """Called after each mutation of the subject."""
        if self.on_record is not None:
            self.on_record(subsystem, record)
        if self._until is not None and self._until.met(subsystem, record):
            self._stopped = True
        if self._kill_at is not None and self._kill_at.met(subsystem, record):
            self._said("kill", f"at {record!r}")
            self._take_image()
            raise Killed

    # -- what the world says ------------------------------------------------------------------------------------

    def _observe(self, record: Record) -> None:
        self.guard.record("venue", record)

    def _sending(self, message: Outbound) -> None:
        """What really leaves, seen by the world and not by the subject: nothing may leave a frozen scope."""
        self._left = message
        if isinstance(message, Request) and self.guard.forbids(message):
            self.leaked.append(message)

    def _has_left(self, record: Record) -> bool:
        # A kill inside the sending comes before the message is on the way: then nobody else has seen it.
        return record is self._left and self.link.is_on_its_way(self._left)

    def _carry(self) -> dict[str, Any]:
        """What goes into the night."""
        tables = self.guard.monitor.layout.tables
        kept = [order for order in tables.get(("orders", Order), {}).values() if isinstance(order, Order)]
        held = [p for p in tables.get(("positions", Position), {}).values() if isinstance(p, Position)]
        working = [order for order in kept if order.is_open]
        return {
            "after": self.trade_date,
            "open_orders": len(working),
            "partially_filled": sum(1 for order in working if order.cum_qty),
            "orders": [repr(order) for order in working],
            "positions": {position.key: position.net_qty for position in held},
            "frozen": [freeze.scope for freeze in self.guard.frozen],
        }

    def _said(self, what: str, detail: str) -> None:
        mutations = self.guard.monitor.mutations
        self.transitions.append(Transition(what, detail, self.trade_date, self.clock.now_ns, mutations))
        self.guard.transition(what, detail)
        if self.guard.journal is not None:
            self.guard.journal.say(mutations, self.clock.now_ns, f"transition:{what}", detail)

    def _check(self, what: str) -> None:
        legal = _LEGAL[self.phase]
        if what not in legal:
            raise IllegalTransition(
                f"{what} is not legal when the session is {self.phase}; legal is: {', '.join(legal)}"
            )
        if what == "run" and self.subject is None:
            raise IllegalTransition("run is not legal while the subject is dead; legal is: restart")

    def __repr__(self) -> str:
        frozen = any(freeze.scope == SYSTEM for freeze in self.guard.frozen)
        return f"<Session {self.trade_date} {self.phase}{' FROZEN' if frozen else ''} {self.guard!r}>"


__all__ = ["RESTARTS", "BadRecording", "IllegalTransition", "Session", "Transition"]
