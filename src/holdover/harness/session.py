"""The session: the explicit lifecycle of a subject over recorded days.

    begin  run  disconnect  reconnect  restart  end  overnight

The session checks each transition and refuses an illegal one with the list of the legal ones. Between
transitions the recorded market runs on the virtual clock and the venue fills orders from it. The guard
evaluates its catalogue on every mutation, whenever no message is in flight, and at every boundary, as it does
in production.

A kill is exact: the session copies the subject's directory at that instant and disables its environment. Code
of the subject that still unwinds (a `finally`, a `with`, a database rollback) cannot change any state that
survives.
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
from holdover.harness.subject import (
    Env,
    Factory,
    Plan,
    RecordedMarket,
    Subject,
    SubjectClock,
    SubjectGuard,
    SubjectKilledError,
)
from holdover.harness.tape import Tape
from holdover.model import SYSTEM, Instrument, Order, Outbound, Position, Record, Request
from holdover.recording import MarketEvent, Recording, RecordingError, RecordingStore
from holdover.runtime import Breach, Channel, FileChannel, FreezeStore, Guard, Journal
from holdover.world import SimulatedLink, Venue, VenuePolicy, VirtualClock

RESTARTS: Final = ("clean", "kill", "kill-unsynced", "torn", "stale", "kill-during-recovery", "upgrade")
"""The kinds of restart; see `Session.restart`."""

_LEGAL: Final[dict[str, tuple[str, ...]]] = {
    "new": ("begin",),
    "open": ("run", "disconnect", "reconnect", "restart", "end", "snapshot"),
    "ended": ("overnight", "restart", "snapshot"),
    "night": ("begin", "snapshot"),
}
_SETTLE_NS: Final = 120_000_000_000
"""How long the world runs on after the close, so that the last messages of the venue arrive."""
_BEFORE_OPEN_NS: Final = 30_000_000_000
"""How long before the open the subject starts."""


class IllegalTransitionError(ValueError):
    """The session cannot make this transition in its phase. The message lists the legal transitions."""


class Transition(msgspec.Struct, frozen=True):
    """One lifecycle transition that has happened."""

    kind: str
    detail: str
    trade_date: str
    time_ns: int
    mutation: int


class Session:
    """One subject, one venue and one guard over consecutive recorded days.

    `recordings` provides the days, `symbols` names the instruments, and `directory` belongs to the session alone.
    Alerts go to the outbox and to `pages.jsonl`. A `scratch` session keeps the guard's store in memory and sends
    no alerts. `venue` is the constructor of the venue.
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
        venue: Callable[[VirtualClock, Sequence[Instrument], VenuePolicy], Venue] = Venue,
    ) -> None:
        self.recordings, self.symbols, self.directory = recordings, list(symbols), directory
        self.days = list(days)
        day_recordings = [recordings.get(symbol, day) for day in self.days for symbol in self.symbols]
        self.plan = Plan(
            days=[recording.meta for recording in day_recordings],
            seed=seed,
            faults=tuple(faults),
            settings=dict(settings or {}),
        )
        self.rng = random.Random(seed)
        self.factory = factory
        self.policy = policy or VenuePolicy()
        self.clock = VirtualClock(day_recordings[0].meta.open_ns - _BEFORE_OPEN_NS)
        instruments = self.plan.instruments()
        self.venue = venue(self.clock, instruments, self.policy)
        self.accounts = list(factory(self.plan).accounts)
        self.link = SimulatedLink(self.clock, self.venue, self.accounts)
        self.subject_directory = directory / "subject"
        self.subject_directory.mkdir(parents=True, exist_ok=True)
        self.guard = self._open_guard(catalogue, journal, scratch)
        self.venue.reports.observe = self._on_venue_record
        self.link.on_send = self._on_send
        self.phase = "new"
        self.trade_date = ""
        self.market_events = 0
        self.transitions: list[Transition] = []
        self.leaked_requests: list[Request] = []
        self.expected: set[str] = set()
        self.carried: list[dict[str, Any]] = []
        self.on_record: Callable[[str, Record], None] | None = None
        self.subject: Subject | None = None
        self.env: Env | None = None
        self._sync_tracker = disk.SyncTracker()
        self.synced: dict[str, int] = {}
        self._last_sent: Outbound | None = None
        self._tape = Tape([], 0, 0)
        self._events: Iterator[MarketEvent] = iter(())
        self._next_event: MarketEvent | None = None
        self._day: list[Recording] = []
        self._stop_condition: Condition | None = None
        self._kill_condition: Condition | None = None
        self._is_stopped = False
        self._killed_directory: Path | None = None
        self._quiet_mutation = -1
        self._incarnation = 0

    def _open_guard(self, catalogue: Catalogue | None, journal: bool, scratch: bool) -> Guard:
        guard_directory = self.directory / "guard"
        channels: list[Channel] = [] if scratch else [FileChannel(self.directory / "pages.jsonl")]
        guard = Guard(
            guard_directory,
            catalogue=catalogue,
            clock=lambda: self.clock.now_ns,
            channels=channels,
            instruments=self.plan.instruments(),
            journal=Journal(self.directory / "journal.jsonl") if journal else None,
            store=FreezeStore.in_memory() if scratch else None,
        )
        guard.is_quiet = True
        guard.cells.has_explicit_transitions = True
        if self.plan.faults:
            guard.cells.exclusion_reason = f"a subject with seeded faults: {', '.join(self.plan.faults)}"
        guard.monitor.undo_log = []  # the harness can kill the subject inside a step, and the guard has to undo it
        return guard

    # -- transitions --------------------------------------------------------------------------------------------

    def begin(self, trade_date: str | None = None) -> None:
        """Begin a trading day: the venue opens its session and the subject starts from its directory.

        Raises `IllegalTransitionError` when the session is not new or overnight, or when the day is not a later
        one.
        """
        self._check_legal("begin")
        trade_date = trade_date or self.days[0 if not self.trade_date else self.days.index(self.trade_date) + 1]
        self._day = [self.recordings.get(symbol, trade_date) for symbol in self.symbols]
        if self.trade_date and trade_date <= self.trade_date:
            raise IllegalTransitionError(f"begin {trade_date}: days go forward, and {self.trade_date} has been")
        open_ns, close_ns = self.hours()
        self.trade_date = trade_date
        self.clock.run_until(max(open_ns - _BEFORE_OPEN_NS, self.clock.now_ns))
        self._open_tape()
        self._next_event = None
        self._show_opening_market(self.clock.now_ns)
        disk.copy_directory(self.subject_directory, self.directory / "backup")
        self.venue.begin(trade_date, open_ns, close_ns)
        self.phase = "open"
        self._record_transition("begin", trade_date)
        self._start_subject()
        self.guard.boundary("begin", trade_date)

    def run(
        self,
        until: Condition | str | float | int | None = None,
        *,
        kill: bool = False,
        limit: str | float | int = "close",
    ) -> bool:
        """Run the recorded market; return whether the condition was met.

        `until` is a condition on the subject's mutations, a fraction of the session (0.0 to 1.0), a time in ns,
        or `"close"` (the default). With `kill` the subject is killed inside the mutation that meets the
        condition; `restart` starts it again. Without a match the run ends at `limit`. Raises
        `IllegalTransitionError` when the session is not open or the subject is not running.
        """
        self._check_legal("run")
        if isinstance(until, Condition):
            self._stop_condition, self._kill_condition = (None, until) if kill else (until, None)
            end_ns = self._parse_time(limit)
        else:
            end_ns = self._parse_time("close" if until is None else until)
        self._is_stopped = False
        try:
            self._play(end_ns)
        except SubjectKilledError:
            self._finish_kill()
            self._is_stopped = True
        is_met = self._is_stopped
        self._stop_condition = self._kill_condition = None
        return is_met

    def run_without_subject(self, seconds: float) -> None:
        """Run the market for a while without the subject; the venue may fill, cancel and expire orders meanwhile.

        Raises `IllegalTransitionError` while the subject is running.
        """
        self._check_legal("restart")
        if self.subject is not None:
            raise IllegalTransitionError(
                "stay_down is not legal while the subject is up; legal is: run(..., kill=True)"
            )
        self._is_stopped = False
        self._play(self.clock.now_ns + int(seconds * 1_000_000_000))

    def restart(
        self, kind: str = "clean", *, kill: bool = False, during: int = 5, factory: Factory | None = None
    ) -> None:
        """Stop the subject and start it again from its disk.

        `clean` stops it in good order; `kill` kills it. `kill-unsynced` also loses the unsynced tail of its
        files, and `torn` cuts the last write in half. `stale` restores the backup of the morning.
        `kill-during-recovery` kills it again at the `during`-th mutation of its recovery. `upgrade` starts
        another version (`factory`). Raises `IllegalTransitionError` for any other kind.
        """
        self._check_legal("restart")
        kind = "kill" if kill and kind == "clean" else kind
        if kind not in RESTARTS:
            raise IllegalTransitionError(f"no restart is called {kind!r}; legal are {', '.join(RESTARTS)}")
        self._record_transition("restart", kind)
        if kind in ("clean", "upgrade"):
            self._stop_subject()
        else:
            self._finish_kill()
            self._damage_disk(kind)
        self.factory = factory or self.factory
        self.guard.reload()
        self.guard.boundary("restart", self.trade_date)
        if kind == "kill-during-recovery":
            self._kill_condition = Condition("recovery", lambda subsystem, record: True, during)
            try:
                self._start_subject()
                self._play(self.clock.now_ns + 1_000_000_000)
            except SubjectKilledError:
                pass
            self._kill_condition = None
            self._finish_kill()
        self._start_subject()

    def disconnect(self, *, lose_out: bool = False, recovery: str = "") -> None:
        """Cut the link with everything in flight; it stays cut until `reconnect`.

        `recovery` (`replay` or `drop`) sets what the venue does about missed messages from now on.
        """
        self._check_legal("disconnect")
        self.link.recovery = recovery or self.link.recovery
        self._record_transition("disconnect", f"in flight {self.link.in_flight}")
        self.link.disconnect(lose_out=lose_out)
        self.guard.boundary("disconnect", self.trade_date)

    def reconnect(self) -> None:
        """Allow connections again. The subject connects by itself; the venue's policy decides what it receives."""
        self._check_legal("reconnect")
        self._record_transition("reconnect", self.link.recovery)
        self.link.reconnect()
        self.guard.boundary("reconnect", self.trade_date)

    def end(self, *, immediately: bool = False) -> None:
        """Run to the close: the venue ends its session, the subject receives the last messages and stops.

        With `immediately` the venue closes now (an early close), and the events recorded after it are not played.
        """
        self._check_legal("end")
        if self.subject is not None and not immediately:
            self._play(self._parse_time("close"))
        self._drain_in_flight()
        self.venue.end()
        self.clock.run_until(self.clock.now_ns + _SETTLE_NS)
        self._check_quiescence()
        self._record_transition("end", self.trade_date)
        self.guard.boundary("end", self.trade_date)
        if self.subject is not None:
            self._stop_subject()
        self.phase = "ended"

    def overnight(self, splits: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Run the night between two sessions of the exchange calendar, with its corporate actions.

        Raises `ValueError` when a split does not divide an open quantity or a price exactly.
        """
        self._check_legal("overnight")
        self.carried.append(self._summarize_carried())
        self.link.overnight()
        self.venue.overnight(splits)
        self.guard.reload()
        self._record_transition("overnight", self._day[0].meta.next_session)
        self.guard.boundary("overnight", self.trade_date)
        self.phase = "night"

    # -- asking -------------------------------------------------------------------------------------------------

    def order(self, cl_ord_id: str) -> Order:
        """Return an order as the subject's order manager last recorded it.

        Raises `KeyError` when the subject has never recorded that order.
        """
        for (subsystem, kind), records in self.guard.monitor.layout.tables.items():
            if subsystem == "orders" and kind is Order:
                for order in records.values():
                    if isinstance(order, Order) and cl_ord_id in (order.root_cl_ord_id, order.cl_ord_id):
                        return order
        raise KeyError(f"the subject has never spoken of an order {cl_ord_id}")

    def orders(self) -> list[Order]:
        """Return every order as the subject's order manager last recorded it."""
        records = self.guard.monitor.layout.tables.get(("orders", Order), {})
        return [order for order in records.values() if isinstance(order, Order)]

    def position(self, account: str, symbol: str) -> int:
        """Return a net position in lots, as the subject last recorded it; 0 when it has recorded none."""
        position = self.guard.monitor.layout.tables.get(("positions", Position), {}).get(f"{account}/{symbol}")
        return position.net_qty if isinstance(position, Position) else 0

    @property
    def breaches(self) -> list[Breach]:
        """The breaches so far, oldest first."""
        return self.guard.breaches

    def hours(self) -> tuple[int, int]:
        """Return open and close of the day in ns; for several instruments the earliest open and the latest close."""
        return min(recording.meta.open_ns for recording in self._day), max(one.meta.close_ns for one in self._day)

    def close(self) -> None:
        """Close the session and its guard. The directory stays."""
        if self.subject is not None:
            self._finish_kill()
        self.guard.pager.deliver_due()
        self.guard.close()
        self._sync_tracker.stop()

    # -- the full state -----------------------------------------------------------------------------------------

    def to_parts(self) -> dict[str, bytes]:
        """Return every part of the full state by name: the subject's files, venue, link, clock, guard and session.

        While the subject is running, its directory is taken as a kill would leave it. Raises
        `IllegalTransitionError` before the first `begin`.
        """
        self._check_legal("snapshot")
        parts = {
            "clock": self.clock.to_bytes(),
            "venue": self.venue.to_bytes(),
            "link": self.link.to_bytes(),
            "guard/memory": self.guard.monitor.to_bytes(),
            "guard/store": self.guard.store.to_bytes(),
            "session": msgspec.msgpack.encode(
                {
                    "phase": self.phase,
                    "trade_date": self.trade_date,
                    "market_events": self.market_events,
                    "transitions": self.transitions,
                    "carried": self.carried,
                    "leaked": self.leaked_requests,
                    "rng": self.rng.getstate(),
                    "symbols": self.symbols,
                    "days": self.days,
                    "subject_up": self.subject is not None,
                    "position": self._next_event[0] if self._next_event else 0,
                    "tape": self._tape.offset,
                    "held": self._next_event,
                    "synced": self.synced,
                    "quiet_at": self._quiet_mutation,
                }
            ),
        }
        for path in disk.list_files(self.subject_directory):
            parts[f"subject/{path.relative_to(self.subject_directory).as_posix()}"] = path.read_bytes()
        if self.phase == "open":
            backup = self.directory / "backup"
            for path in disk.list_files(backup):
                parts[f"backup/{path.relative_to(backup).as_posix()}"] = path.read_bytes()
        return parts

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Restore a full state into a new session over the same recordings.

        Inside a day, `restart` continues from it.

        Raises `ValueError` when a part is missing or damaged, or when the state was taken while the subject was
        running.
        """
        try:
            state = msgspec.msgpack.decode(parts["session"])
            if state["subject_up"]:
                raise ValueError(
                    f"this state was taken in the middle of {state['trade_date']} while the subject was up; "
                    f"only from between days, or from where it was down, can it run on"
                )
            self.clock.restore_bytes(parts["clock"])
            self.venue.restore_bytes(parts["venue"])
            self.link.restore_bytes(parts["link"])
            self.guard.restore_state(parts["guard/store"], parts["guard/memory"])
            self.phase, self.trade_date = state["phase"], state["trade_date"]
            self.market_events, self._quiet_mutation = state["market_events"], state["quiet_at"]
            self.transitions = [msgspec.convert(transition, Transition) for transition in state["transitions"]]
            self.carried = state["carried"]
            self.leaked_requests = msgspec.convert(state["leaked"], list[Request])
            version, internal, gauss = state["rng"]
            self.rng.setstate((version, tuple(internal), gauss))
        except (KeyError, msgspec.MsgspecError) as error:
            raise ValueError(f"the state is damaged: {type(error).__name__} {error}") from error
        self._day = [self.recordings.get(symbol, self.trade_date) for symbol in self.symbols]
        for kind, directory in (("subject/", self.subject_directory), ("backup/", self.directory / "backup")):
            disk.write_image({n.removeprefix(kind): part for n, part in parts.items() if n.startswith(kind)}, directory)
        if self.phase == "open":
            self.synced = state["synced"]
            self._open_tape(tuple(state["tape"]))
            self._next_event = tuple(state["held"]) if state["held"] else None

    # -- trials -------------------------------------------------------------------------------------------------

    @property
    def tape_offset(self) -> tuple[int, int]:
        """The position in the recorded market."""
        return self._tape.offset

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` ended the last `play` early."""
        return self._is_stopped

    def stop(self) -> None:
        """End `play` after the current event or timer."""
        self._is_stopped = True

    def kill(self) -> None:
        """Kill the subject at this point, from inside one of its calls.

        Raises `SubjectKilledError`; call `discard_subject` next.
        """
        self._record_transition("kill", "here")
        self._capture_disk()
        raise SubjectKilledError

    def discard_subject(self) -> None:
        """Discard the killed subject and restore its disk to the instant of the kill."""
        self._finish_kill()

    def drop_link(self, *, lose_out: bool = False, recovery: str = "") -> None:
        """Cut the link in the middle of a call of the subject. The subject is notified after that call."""
        self.link.recovery = recovery or self.link.recovery
        self._record_transition("disconnect", f"in flight {self.link.in_flight}")
        self.link.drop_deferred(lose_out=lose_out)

    def crash(self, crash_directory: Path, image: Mapping[str, bytes] | None = None) -> None:
        """Kill the subject at this instant, from inside one of its calls, for a trial that `rollback` ends.

        The next incarnation runs on a copy of the disk in `crash_directory`, made from `image` when that is
        given. Files and objects of the killed incarnation are not touched. `restart` starts the next incarnation.
        """
        disk.write_image(disk.read_image(self.subject_directory) if image is None else image, crash_directory)
        self.synced = self._sync_tracker.sizes_in(self.subject_directory)
        self.subject_directory = crash_directory
        if self.env is not None:
            self.env.kill()
        self._kill_condition = None
        self.guard.abandon_steps(self._was_sent, discard_steps=True)
        self._detach_subject()

    def checkpoint(self) -> Any:
        """Return a checkpoint of everything in this process that may change, for `rollback`.

        It excludes the subject's own objects.

        `rollback` can only end a trial in which the present incarnation does nothing because it is killed at
        once.
        """
        env = self.env
        subject_guard = env.guard if env is not None else None
        return (
            (self.clock.checkpoint(), self.link.checkpoint(), self.venue.checkpoint(), self.guard.checkpoint()),
            (self._tape.offset, self._next_event, self._tape, self._events),
            (self.phase, self.trade_date, self.market_events, self._day, self.subject_directory),
            (list(self.transitions), list(self.leaked_requests), list(self.carried), self.rng.getstate()),
            (
                self.subject,
                env,
                self.factory,
                self._stop_condition,
                self._kill_condition,
                self._is_stopped,
                self._quiet_mutation,
                self._incarnation,
            ),
            self._last_sent,
            (
                subject_guard.reconciled_date,
                list(subject_guard.recovered_subsystems),
                list(subject_guard.restored_subsystems),
            )
            if subject_guard is not None
            else None,
        )

    def rollback(self, checkpoint: Any) -> None:
        """Restore the state of a checkpoint."""
        (clock, link, venue, guard), tape, market_day, history, subject_state, self._last_sent, guard_state = checkpoint
        self.venue.rollback(venue)
        self.guard.rollback(guard)
        self.link.rollback(link)
        self.clock.rollback(clock)
        _, self._next_event, self._tape, self._events = tape
        self.phase, self.trade_date, self.market_events, self._day, self.subject_directory = market_day
        self.transitions, self.leaked_requests, self.carried = (list(entries) for entries in history[:3])
        self.rng.setstate(history[3])
        (self.subject, self.env, self.factory, self._stop_condition, self._kill_condition, self._is_stopped) = (
            subject_state[:6]
        )
        self._quiet_mutation, self._incarnation = subject_state[6:]
        if self.env is not None:
            self.env.clock.is_dead = self.env.guard.is_dead = self.env.link.is_dead = False
            self.env.guard.reconciled_date, recovered, restored = guard_state
            self.env.guard.recovered_subsystems, self.env.guard.restored_subsystems = list(recovered), list(restored)

    def fork_tape(self) -> None:
        """Continue the market on a new tape, so that the present tape stays where it is."""
        self._open_tape(self._tape.offset)

    def play(self, until_ns: int) -> None:
        """Run market events and timers up to a time, whether or not the subject is running."""
        self._is_stopped = False
        self._play(until_ns)

    # -- running ------------------------------------------------------------------------------------------------

    def _play(self, end_ns: int) -> None:
        """Run market events and timers in time order, up to `end_ns` or until `stop`."""
        clock, on_market = self.clock, self.venue.on_market
        events = self._events
        event = self._next_event or next(events, None)
        self._next_event = None
        count = 0
        try:
            while event is not None:
                time_ns = event[0]
                if time_ns >= end_ns:
                    break
                if clock.next_ns <= time_ns:
                    self._next_event = event
                    self._run_timers(time_ns)
                    self._next_event = None
                    if self._is_stopped:
                        break
                if time_ns > clock.now_ns:
                    clock.now_ns = time_ns
                count += 1
                current, event = event, None
                on_market(current)
                event = next(events, None)
                if self._is_stopped:
                    break
        finally:
            self._next_event = event if event is not None else next(events, None)
            self.market_events += count
            self.guard.cells.market_events += count
        if not self._is_stopped:
            self._run_timers(max(end_ns, clock.now_ns))

    def _run_timers(self, time_ns: int) -> None:
        clock = self.clock
        while clock.next_ns <= time_ns and not self._is_stopped:
            clock.run_until(clock.next_ns)
            if self.link.is_quiet and self._quiet_mutation != self.guard.monitor.mutations:
                self._check_quiescence()
        if not self._is_stopped:
            clock.run_until(time_ns)

    def _check_quiescence(self) -> None:
        """If no message is in flight, let the guard compare the subject's records with the venue's."""
        if not self.link.is_quiet or self.env is None:
            return
        subject_guard = self.env.guard
        if subject_guard.reconciled_date:
            recovered, subject_guard.recovered_subsystems = subject_guard.recovered_subsystems, []
            date, subject_guard.reconciled_date = subject_guard.reconciled_date, ""
            self.guard.reconciled(date, recovered)
        else:
            self.guard.quiescent()
        self._quiet_mutation = self.guard.monitor.mutations

    def _drain_in_flight(self) -> None:
        """Let the messages in flight at the close arrive before the venue ends the day."""
        self.clock.run_until(self.clock.now_ns + 4 * self.link.latency_ns)
        self._check_quiescence()

    def _parse_time(self, time_point: str | float | int) -> int:
        open_ns, close_ns = self.hours()
        if time_point == "close":
            return close_ns
        if time_point == "open":
            return open_ns
        if isinstance(time_point, float) and 0.0 <= time_point <= 1.0:
            return open_ns + int((close_ns - open_ns) * time_point)
        if isinstance(time_point, int):
            return time_point
        raise IllegalTransitionError(
            f"run until {time_point!r}: say a condition, a fraction of the session, ns, or 'close'"
        )

    def _open_tape(self, offset: tuple[int, int] | None = None) -> None:
        """Open the tape of the day at the current time, or at an offset."""
        self._tape = Tape(self._day, self.clock.now_ns, self.hours()[1], offset)
        self._events = self._tape.events()

    def _show_opening_market(self, now_ns: int) -> None:
        """Give the venue the last event of each instrument before the subject starts."""
        for number, recording in enumerate(self._day):
            index = recording.index_at(now_ns) - 1
            if index >= 0:
                event = recording.event_at(index)
                self.venue.on_market((event[0], number, 1, *event[3:]))

    # -- the subject's lives ------------------------------------------------------------------------------------

    def _start_subject(self) -> None:
        self._incarnation += 1
        self._sync_tracker.start()
        open_ns, close_ns = self.hours()
        self.env = Env(
            clock=SubjectClock(self.clock),
            link=self.link.attach(),
            market=RecordedMarket(self.venue),
            directory=self.subject_directory,
            guard=SubjectGuard(self.guard, self._on_subject_record),
            trade_date=self.trade_date,
            open_ns=open_ns,
            close_ns=close_ns,
            instruments=self.plan.instruments(),
        )
        self.subject = self.factory(self.plan)
        self.subject.start(self.env)

    def _stop_subject(self) -> None:
        if self.subject is not None:
            self.subject.stop()
        self._detach_subject()

    def _finish_kill(self) -> None:
        """Complete a kill: take the disk image if there is none, detach the subject, and restore the image."""
        if self._killed_directory is None and self.subject is not None:
            self._capture_disk()
        self._detach_subject()
        if self._killed_directory is not None:
            disk.replace_directory(self._killed_directory, self.subject_directory)
            self._killed_directory = None

    def _detach_subject(self) -> None:
        if self.env is not None:
            self.env.kill()
        self.guard.mark_subject_down()
        self.link.detach()
        self.clock.unregister("subject")
        self.clock.cancel_owner("subject")
        self.subject = self.env = None

    def _capture_disk(self) -> None:
        self._killed_directory = self.directory / "killed"
        disk.copy_directory(self.subject_directory, self._killed_directory)
        self.synced = self._sync_tracker.sizes_in(self.subject_directory)
        if self.env is not None:
            self.env.kill()
        self.guard.abandon_steps(self._was_sent)

    def _damage_disk(self, kind: str) -> None:
        if kind == "kill-unsynced":
            disk.lose_unsynced(self.subject_directory, self.synced)
        elif kind == "torn":
            disk.tear_last_write(self.subject_directory)
        elif kind == "stale":
            disk.copy_directory(self.directory / "backup", self.subject_directory)

    def _on_subject_record(self, subsystem: str, record: Record) -> None:
        """Handle one mutation of the subject: stop or kill when a condition is met."""
        if self.on_record is not None:
            self.on_record(subsystem, record)
        if self._stop_condition is not None and self._stop_condition.observe(subsystem, record):
            self._is_stopped = True
        if self._kill_condition is not None and self._kill_condition.observe(subsystem, record):
            self._record_transition("kill", f"at {record!r}")
            self._capture_disk()
            raise SubjectKilledError

    # -- what the world says ------------------------------------------------------------------------------------

    def _on_venue_record(self, record: Record) -> None:
        self.guard.record("venue", record)

    def _on_send(self, message: Outbound) -> None:
        """Note a message that leaves the subject, and whether a frozen scope should have blocked it."""
        self._last_sent = message
        if isinstance(message, Request) and self.guard.forbids(message):
            self.leaked_requests.append(message)

    def _was_sent(self, record: Record) -> bool:
        # A kill inside the send happens before the message is in flight; then no one else has seen the record.
        return record is self._last_sent and self.link.is_message_in_flight(self._last_sent)

    def _summarize_carried(self) -> dict[str, Any]:
        """Return a summary of what is carried overnight."""
        tables = self.guard.monitor.layout.tables
        orders = [order for order in tables.get(("orders", Order), {}).values() if isinstance(order, Order)]
        positions = [p for p in tables.get(("positions", Position), {}).values() if isinstance(p, Position)]
        working = [order for order in orders if order.is_open]
        return {
            "after": self.trade_date,
            "open_orders": len(working),
            "partially_filled": sum(1 for order in working if order.cum_qty),
            "orders": [repr(order) for order in working],
            "positions": {position.key: position.net_qty for position in positions},
            "frozen": [freeze.scope for freeze in self.guard.active_freezes],
        }

    def _record_transition(self, kind: str, detail: str) -> None:
        mutations = self.guard.monitor.mutations
        self.transitions.append(Transition(kind, detail, self.trade_date, self.clock.now_ns, mutations))
        self.guard.count_transition(kind, detail)
        if self.guard.journal is not None:
            self.guard.journal.write_event(mutations, self.clock.now_ns, f"transition:{kind}", detail)

    def _check_legal(self, action: str) -> None:
        legal = _LEGAL[self.phase]
        if action not in legal:
            raise IllegalTransitionError(
                f"{action} is not legal when the session is {self.phase}; legal is: {', '.join(legal)}"
            )
        if action == "run" and self.subject is None:
            raise IllegalTransitionError("run is not legal while the subject is dead; legal is: restart")

    def __repr__(self) -> str:
        frozen = any(freeze.scope == SYSTEM for freeze in self.guard.active_freezes)
        return f"<Session {self.trade_date} {self.phase}{' FROZEN' if frozen else ''} {self.guard!r}>"


__all__ = ["RESTARTS", "RecordingError", "IllegalTransitionError", "Session", "Transition"]
