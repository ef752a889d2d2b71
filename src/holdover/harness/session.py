"""The session: the explicit lifecycle of a subject over recorded days.

    begin  run  disconnect  reconnect  restart  end  overnight

The session checks each transition and refuses an illegal one with the list of the legal ones. Between transitions the
recorded market runs on the virtual clock (`market_player`) and the venue fills orders from it. The guard evaluates its
catalogue on every mutation, whenever no message is in flight, and at every boundary, as it does in production.

`subject_host` runs the subject and kills it, `subject_disk` is its directory, and `trials` is what only exploration
does. Rejected: one class for all of them, whose checkpoint had to name forty attributes by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.harness import disk
from holdover.harness.condition import Condition
from holdover.harness.market_player import MarketPlayer
from holdover.harness.subject import Factory, Plan, Subject, SubjectKilledError
from holdover.harness.subject_disk import SubjectDisk
from holdover.harness.subject_host import SubjectHost, World
from holdover.harness.tape import TapeOffset
from holdover.harness.trials import SessionTrials
from holdover.model import SYSTEM, Instrument, Order, Position
from holdover.recording import RecordingError, RecordingStore
from holdover.runtime import Breach, Channel, FileChannel, FreezeStore, Guard, GuardSettings, Journal
from holdover.runtime.journal import JOURNAL_FILE
from holdover.state import DECODE_ERRORS, StateError, Stateful
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


VenueFactory = Callable[[VirtualClock, Sequence[Instrument], VenuePolicy], Venue]


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """What a session runs: the days and instruments, the seed, and what judges.

    `faults` are seeded faults of the subject and `settings` go to it. A `scratch` session keeps the guard's store in
    memory and sends no alerts. `venue` makes the venue.
    """

    days: Sequence[str]
    seed: int = 0
    faults: Sequence[str] = ()
    policy: VenuePolicy | None = None
    catalogue: Catalogue | None = None
    settings: Mapping[str, Any] | None = None
    journal: bool = True
    scratch: bool = False
    venue: VenueFactory = Venue


class SessionState(msgspec.Struct):
    """The state of a `Session`, without that of its parts."""

    phase: str
    trade_date: str
    transitions: list[Transition]
    carried: list[dict[str, Any]]


class SessionHeader(msgspec.Struct, frozen=True):
    """The part of a snapshot that says how a session continues from it."""

    symbols: list[str]
    days: list[str]
    is_subject_running: bool
    tape_offset: TapeOffset


class Session(Stateful[SessionState]):
    """One subject, one venue and one guard over consecutive recorded days.

    `recordings` provides the days, `symbols` names the instruments, and `directory` belongs to the session alone.
    Alerts go to the outbox and to `pages.jsonl`.
    """

    State = SessionState
    IN_PROCESS: ClassVar = {"directory": "a path of this machine; a trial may use another"}
    DERIVED: ClassVar = {
        "config": "configuration, set once",
        "symbols": "configuration, set once",
        "recordings": "configuration, set once",
        "clock": "a part that saves itself",
        "venue": "a part that saves itself",
        "link": "a part that saves itself",
        "guard": "a part that saves itself",
        "disk": "a part that saves itself",
        "host": "a part that saves itself",
        "player": "a part that saves itself",
        "trials": "has no state of its own",
        "expected": "what a test expects, not what happens",
    }
    player_type: ClassVar[type[MarketPlayer]] = MarketPlayer

    def __init__(
        self,
        factory: Factory,
        recordings: RecordingStore,
        symbols: Sequence[str],
        directory: Path,
        config: SessionConfig,
    ) -> None:
        self.recordings, self.symbols, self.directory, self.config = recordings, list(symbols), directory, config
        if not self.symbols or not config.days:
            raise ValueError(f"a session needs instruments and days: {self.symbols}, {list(config.days)}")
        if len(set(self.symbols)) < len(self.symbols):
            raise ValueError(f"an instrument of the session is listed twice: {', '.join(self.symbols)}")
        metas = [recordings.get(symbol, day).meta for day in config.days for symbol in self.symbols]
        plan = Plan(days=metas, seed=config.seed, faults=tuple(config.faults), settings=dict(config.settings or {}))
        self.clock = VirtualClock(metas[0].open_ns - _BEFORE_OPEN_NS)
        self.venue = config.venue(self.clock, plan.instruments(), config.policy or VenuePolicy())
        subject = factory(plan)
        self.link = SimulatedLink(self.clock, self.venue, subject.accounts)
        if getattr(subject, "takes_account_reports", False):
            if not subject.accounts:
                raise ValueError("a subject that takes account reports should name its accounts")
            self.venue.accounts.open(subject.accounts)
        self.disk = SubjectDisk(directory / "subject")
        self.guard = _open_guard(directory, config, plan, self.clock)
        self.host = SubjectHost(factory, plan, World(self.clock, self.venue, self.link), self.guard, self.disk)
        self.player = self.player_type(self.host)
        self.trials = SessionTrials(self)
        self.phase = "new"
        self.trade_date = ""
        self.transitions: list[Transition] = []
        self.carried: list[dict[str, Any]] = []
        self.expected: set[str] = set()
        self.venue.reports.observe = partial(self.guard.record, "venue")
        self.host.on_kill = partial(self.record_transition, "kill")
        self.host.on_stop = self.player.stop

    # -- transitions --------------------------------------------------------------------------------------------

    def begin(self, trade_date: str | None = None) -> None:
        """Begin a trading day: the venue opens its session and the subject starts from its directory.

        Raises `IllegalTransitionError` when the session is not new or overnight, or when the day is not a later
        one.
        """
        self._check_legal("begin")
        trade_date = trade_date or _next_day(self)
        self.player.load_day([self.recordings.get(symbol, trade_date) for symbol in self.symbols])
        if self.trade_date and trade_date <= self.trade_date:
            raise IllegalTransitionError(f"begin {trade_date}: days go forward, and {self.trade_date} has been")
        open_ns, close_ns = self.hours()
        self.trade_date = trade_date
        self.clock.run_until(max(open_ns - _BEFORE_OPEN_NS, self.clock.now_ns))
        self.player.open_tape()
        self.player.show_opening_market()
        disk.copy_directory(self.disk.directory, self.directory / "backup")
        self.venue.begin(trade_date, open_ns, close_ns)
        self.phase = "open"
        self.record_transition("begin", trade_date)
        self.host.start(self.trade_date, *self.hours())
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
            self.host.stop_condition, self.host.kill_condition = (None, until) if kill else (until, None)
            end_ns = _parse_time(self.hours(), limit)
        else:
            end_ns = _parse_time(self.hours(), "close" if until is None else until)
        self.player.resume()
        try:
            self.player.play(end_ns)
        except SubjectKilledError:
            self.host.finish_kill()
            self.player.stop()
        self.host.stop_condition = self.host.kill_condition = None
        return self.player.is_stopped

    def run_without_subject(self, seconds: float) -> None:
        """Run the market for a while without the subject; the venue may fill, cancel and expire orders meanwhile.

        Raises `IllegalTransitionError` while the subject is running.
        """
        self._check_legal("restart")
        if seconds < 0:
            raise ValueError(f"the market cannot run for {seconds} s, should be from 0 on")
        if self.subject is not None:
            raise IllegalTransitionError(
                "stay_down is not legal while the subject is up; legal is: run(..., kill=True)"
            )
        self.player.resume()
        self.player.play(self.clock.now_ns + int(seconds * 1_000_000_000))

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
        if during < 1:
            raise ValueError(f"a recovery is killed at its mutation {during}, should be from 1 on")
        self.record_transition("restart", kind)
        if kind in ("clean", "upgrade"):
            self.host.stop()
        else:
            self.host.finish_kill()
            self.disk.damage(kind, self.directory / "backup")
        self.host.factory = factory or self.host.factory
        self.guard.reload()
        self.guard.boundary("restart", self.trade_date)
        if kind == "kill-during-recovery":
            self.host.kill_condition = Condition("recovery", lambda subsystem, record: True, during)
            try:
                self.host.start(self.trade_date, *self.hours())
                self.player.play(self.clock.now_ns + 1_000_000_000)
            except SubjectKilledError:
                pass
            self.host.kill_condition = None
            self.host.finish_kill()
        self.host.start(self.trade_date, *self.hours())

    def disconnect(self, *, lose_out: bool = False, recovery: str = "") -> None:
        """Cut the link with everything in flight; it stays cut until `reconnect`.

        `recovery` (`replay` or `drop`) sets what the venue does about missed messages from now on.
        """
        self._check_legal("disconnect")
        if recovery not in ("", "replay", "drop"):
            raise ValueError(f"no recovery is called {recovery!r}; there are replay and drop")
        self.link.recovery = recovery or self.link.recovery
        self.record_transition("disconnect", f"in flight {self.link.in_flight}")
        self.link.disconnect(lose_out=lose_out)
        self.guard.boundary("disconnect", self.trade_date)

    def reconnect(self) -> None:
        """Allow connections again. The subject connects by itself; the venue's policy decides what it receives."""
        self._check_legal("reconnect")
        self.record_transition("reconnect", self.link.recovery)
        self.link.reconnect()
        self.guard.boundary("reconnect", self.trade_date)

    def end(self, *, immediately: bool = False) -> None:
        """Run to the close: the venue ends its session, the subject receives the last messages and stops.

        With `immediately` the venue closes now (an early close), and the events recorded after it are not played.
        """
        self._check_legal("end")
        if self.subject is not None and not immediately:
            self.player.play(_parse_time(self.hours(), "close"))
        self.player.drain_in_flight()
        self.venue.end()
        self.player.run_for(_SETTLE_NS)
        self.record_transition("end", self.trade_date)
        self.guard.boundary("end", self.trade_date)
        if self.subject is not None:
            self.host.stop()
        self.phase = "ended"

    def overnight(self, splits: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Run the night between two sessions of the exchange calendar, with its corporate actions.

        Raises `ValueError` when a split does not divide an open quantity or a price exactly.
        """
        self._check_legal("overnight")
        self.carried.append(_summarize_carried(self))
        self.link.overnight()
        self.venue.overnight(splits)
        self.guard.reload()
        self.record_transition("overnight", self.player.day[0].meta.next_session)
        self.guard.boundary("overnight", self.trade_date)
        self.phase = "night"

    # -- questions -------------------------------------------------------------------------------------------------

    def order(self, cl_ord_id: str) -> Order:
        """Return an order as the subject's order manager last recorded it.

        Raises `KeyError` when the subject has never recorded that order.
        """
        for (subsystem, kind), records in self.guard.monitor.all_records().items():
            if subsystem == "orders" and kind is Order:
                for order in records.values():
                    if isinstance(order, Order) and cl_ord_id in (order.root_cl_ord_id, order.cl_ord_id):
                        return order
        raise KeyError(f"the subject has never spoken of an order {cl_ord_id}")

    def orders(self) -> list[Order]:
        """Return every order as the subject's order manager last recorded it."""
        records = self.guard.monitor.records(Order, "orders")
        return [order for order in records.values() if isinstance(order, Order)]

    def position(self, account: str, symbol: str) -> int:
        """Return a net position in lots, as the subject last recorded it; 0 when it has recorded none."""
        position = self.guard.monitor.records(Position, "positions").get(f"{account}/{symbol}")
        return position.net_qty if isinstance(position, Position) else 0

    @property
    def subject(self) -> Subject | None:
        """The running subject, or None."""
        return self.host.subject

    @property
    def breaches(self) -> list[Breach]:
        """The breaches so far, oldest first."""
        return self.guard.breaches

    def hours(self) -> tuple[int, int]:
        """Return open and close of the day in ns; for several instruments the earliest open and the latest close."""
        return self.player.hours()

    def close(self) -> None:
        """Close the session and its guard. The directory stays."""
        self.host.close()
        self.guard.pager.deliver_due()
        self.guard.close()

    # -- the full state -----------------------------------------------------------------------------------------

    def to_parts(self) -> dict[str, bytes]:
        """Return every part of the full state by name: the subject's files, venue, link, clock, guard and session.

        While the subject is running, its directory is taken as a kill would leave it. Raises
        `IllegalTransitionError` before the first `begin`.
        """
        self._check_legal("snapshot")
        header = SessionHeader(self.symbols, list(self.config.days), self.subject is not None, self.player.tape_offset)
        parts = {name: part.to_bytes() for name, part in _stateful_parts(self).items()}
        parts["header"] = msgspec.msgpack.encode(header)
        parts["guard/memory"], parts["guard/store"] = self.guard.monitor.to_bytes(), self.guard.store.to_bytes()
        for path in disk.list_files(self.disk.directory):
            parts[f"subject/{path.relative_to(self.disk.directory).as_posix()}"] = path.read_bytes()
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
            header = msgspec.msgpack.decode(parts["header"], type=SessionHeader)
            if header.is_subject_running:
                raise ValueError(
                    "this state was taken in the middle of a day while the subject was running; a session continues "
                    "only from a state between days, or from one in which the subject was not running"
                )
            for name, part in _stateful_parts(self).items():
                part.restore_bytes(parts[name])
            self.guard.restore_state(parts["guard/store"], parts["guard/memory"])
        except (*DECODE_ERRORS, KeyError) as error:
            raise ValueError(f"the state is damaged: {type(error).__name__} {error}") from error
        next_event = self.player.next_event
        self.player.load_day([self.recordings.get(symbol, self.trade_date) for symbol in self.symbols])
        for kind, directory in (("subject/", self.disk.directory), ("backup/", self.directory / "backup")):
            disk.write_image({n.removeprefix(kind): part for n, part in parts.items() if n.startswith(kind)}, directory)
        if self.phase == "open":
            self.player.open_tape(header.tape_offset, next_event)

    def take_state(self, state: SessionState) -> None:
        """Take over a decoded state. Raises `StateError` when its phase is unknown or precedes the first day."""
        if state.phase not in _LEGAL or (state.phase == "new") != (not state.trade_date):
            raise StateError(f"the stored state of Session is damaged: phase {state.phase!r} on {state.trade_date!r}")
        super().take_state(state)

    # -- playing ------------------------------------------------------------------------------------------------

    def play(self, until_ns: int) -> None:
        """Play market events and timers up to a time, whether or not the subject is running."""
        self.player.resume()
        self.player.play(until_ns)

    def stop(self) -> None:
        """End `play` after the current event or timer."""
        self.player.stop()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` ended the last `play` early."""
        return self.player.is_stopped

    # -- inside -------------------------------------------------------------------------------------------------

    def record_transition(self, kind: str, detail: str) -> None:
        """Note a transition in the history, the coverage and the journal."""
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


def _open_guard(directory: Path, config: SessionConfig, plan: Plan, clock: VirtualClock) -> Guard:
    guard_directory = directory / "guard"
    channels: list[Channel] = [] if config.scratch else [FileChannel(directory / "pages.jsonl")]
    guard = Guard(
        guard_directory,
        GuardSettings(instruments=plan.instruments()),
        catalogue=config.catalogue,
        clock=lambda: clock.now_ns,
        channels=channels,
        journal=Journal(directory / JOURNAL_FILE) if config.journal else None,
        store=FreezeStore.in_memory() if config.scratch else None,
    )
    guard.evidence.is_quiet = True
    guard.cells.has_explicit_transitions = True
    if plan.faults:
        guard.cells.exclusion_reason = f"a subject with seeded faults: {', '.join(plan.faults)}"
    # The harness can kill the subject inside a step, and the guard has to undo it.
    guard.monitor.recovery.undo_log = []
    return guard


def _summarize_carried(session: Session) -> dict[str, Any]:
    """Return a summary of what is carried overnight."""
    monitor = session.guard.monitor
    positions = monitor.records(Position, "positions").values()
    working = [order for order in monitor.records(Order, "orders").values() if order.is_open]
    return {
        "after": session.trade_date,
        "open_orders": len(working),
        "partially_filled": sum(1 for order in working if order.cum_qty),
        "orders": [repr(order) for order in working],
        "positions": {position.key: position.net_qty for position in positions},
        "frozen": [freeze.scope for freeze in session.guard.active_freezes],
    }


def _stateful_parts(session: Session) -> dict[str, Stateful[Any]]:
    """Return the parts that a snapshot encodes, in the order in which they are restored."""
    return {
        "clock": session.clock,
        "venue": session.venue,
        "link": session.link,
        "session": session,
        "player": session.player,
        "disk": session.disk,
        "host": session.host,
    }


def _next_day(session: Session) -> str:
    days = list(session.config.days)
    if session.trade_date and session.trade_date not in days:
        raise IllegalTransitionError(f"begin: no day follows {session.trade_date}, which is none of {', '.join(days)}")
    index = days.index(session.trade_date) + 1 if session.trade_date else 0
    if index >= len(days):
        raise IllegalTransitionError(f"begin: {session.trade_date} was the last of the session's days")
    return days[index]


def _parse_time(hours: tuple[int, int], time_point: str | float | int) -> int:
    open_ns, close_ns = hours
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


__all__ = ["RESTARTS", "IllegalTransitionError", "RecordingError", "Session", "SessionConfig", "Transition"]
