"""The interface between the harness and the system under test.

A subject has `accounts` and two methods: `start(env)` and `stop()`. It keeps the state that must survive a
restart in `env.directory`, reports its records to `env.guard`, and uses only `env.clock`, `env.link` and
`env.market` to reach the outside. When the harness kills a subject, it disables the subject's `env`; code of
the subject that still runs then has no effect.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

import msgspec

from holdover.model import Instrument, Query, Record, Request
from holdover.recording import Meta
from holdover.runtime import Guard
from holdover.state import Stateful
from holdover.world import SimulatedLinkEnd, TopOfBook, Venue, VirtualClock


class SubjectError(ValueError):
    """A subject cannot be used. The message lists every problem, one a line."""


class SubjectKilledError(BaseException):
    """The subject's process was killed at this point. The subject must not catch this exception."""


class SubjectClockState(msgspec.Struct):
    """The state of a `SubjectClock`."""

    is_dead: bool


class SubjectClock(Stateful[SubjectClockState]):
    """The virtual clock that a subject uses."""

    State = SubjectClockState
    DERIVED: ClassVar = {"_clock": "a part of the world that saves itself"}

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.is_dead = False

    @property
    def now_ns(self) -> int:
        """The current time, in ns since the epoch, UTC."""
        return self._clock.now_ns

    def call_at(self, time_ns: int, name: str, *args: Any) -> None:
        """Call the timer handler at `time_ns`, or at once when that time has passed."""
        if not self.is_dead:
            self._clock.set_timer(max(time_ns, self._clock.now_ns), "subject", name, *args)

    def on_timer(self, handler: Callable[[str, tuple[Any, ...]], None]) -> None:
        """Register the handler that receives the subject's timers."""
        if not self.is_dead:
            self._clock.register("subject", handler)


class RecordedMarket:
    """The recorded market: the latest quote, trade and status of each instrument."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    def top(self, symbol: str) -> TopOfBook:
        """Return best bid and offer, last price, traded quantity and trading status of an instrument.

        Raises `KeyError` when the market does not have the symbol.
        """
        return self._venue.top(symbol)


class _NullStep:
    """The step of a killed subject: it does nothing."""

    def __enter__(self) -> _NullStep:
        return self

    def __exit__(self, *raised: object) -> None:
        return None


class SubjectGuardState(msgspec.Struct):
    """The state of a `SubjectGuard`."""

    is_dead: bool
    reconciled_date: str
    recovered_subsystems: list[str]
    restored_subsystems: list[str]


class SubjectGuard(Stateful[SubjectGuardState]):
    """The guard that a subject uses. It forwards to the real guard until the subject is killed.

    The venue records its own state in a harness session, so `record` ignores what the subject records for the
    subsystem `venue`. `reconciled` only notes the claim; the harness compares subject and venue the next time
    that no message is in flight.
    """

    State = SubjectGuardState
    DERIVED: ClassVar = {"wrapped_guard": "a part that saves itself", "_on_record": "a function of the host"}

    def __init__(self, guard: Guard, on_record: Callable[[str, Record], None]) -> None:
        self.wrapped_guard = guard
        self.is_dead = False
        self.reconciled_date = ""
        self.recovered_subsystems: list[str] = []
        self.restored_subsystems: list[str] = []
        self._on_record = on_record

    def step(self, cause: str) -> Any:
        """Open a step for one cause; see `Guard.step`."""
        return _NullStep() if self.is_dead else self.wrapped_guard.step(cause)

    def record(self, subsystem: str, record: Record) -> None:
        """Record a change of one subsystem; see `Guard.record`."""
        if self.is_dead or subsystem == "venue":
            return
        self.wrapped_guard.record(subsystem, record)
        self._on_record(subsystem, record)

    def restore(self, subsystem: str, records: Iterable[Record]) -> None:
        """Report the records that a subsystem read back; see `Guard.restore`."""
        if not self.is_dead:
            self.restored_subsystems.append(subsystem)
            self.wrapped_guard.restore(subsystem, records)

    def permits(self, message: Request | Query) -> bool:
        """Return whether a message may be sent; see `Guard.permits`."""
        return not self.is_dead and self.wrapped_guard.permits(message)

    def reconciled(self, trade_date: str, recovered: Iterable[str] = ("orders", "positions", "ledger")) -> None:
        """Note that reconciliation is complete. The guard checks it when no message is in flight."""
        if not self.is_dead:
            self.reconciled_date, self.recovered_subsystems = trade_date, list(recovered)

    def tick(self) -> None:
        """Let the guard evaluate its time limits; see `Guard.tick`."""
        if not self.is_dead:
            self.wrapped_guard.tick()

    def quiescent(self) -> None:
        """Do nothing: the harness decides when no message is in flight."""

    def boundary(self, name: str, trade_date: str, *, recovered: Iterable[str] = ()) -> None:
        """Do nothing: the harness reports the boundaries."""

    def transition(self, kind: str, detail: str = "") -> None:
        """Do nothing: the harness reports the transitions."""

    def declare_jump(self) -> None:
        """Accept a jump of the clock; see `Guard.declare_jump`."""
        if not self.is_dead:
            self.wrapped_guard.steps.declare_clock_jump()


@dataclass
class Env:
    """Everything outside the subject that one incarnation of it can use."""

    clock: SubjectClock
    link: SimulatedLinkEnd
    market: RecordedMarket
    directory: Path
    guard: SubjectGuard
    trade_date: str
    open_ns: int
    close_ns: int
    instruments: list[Instrument]

    def kill(self) -> None:
        """Disable the environment: nothing that the subject does has an effect afterwards."""
        self.clock.is_dead = self.guard.is_dead = self.link.is_dead = True


@dataclass(frozen=True)
class Plan:
    """The plan of a subject: the instruments and days that it will see, the seed, and the seeded faults."""

    days: list[Meta]
    seed: int = 0
    faults: Sequence[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def instruments(self) -> list[Instrument]:
        """Return the instruments in the order in which the days first mention them."""
        return list({meta.instrument.symbol: meta.instrument for meta in self.days}.values())


@runtime_checkable
class Subject(Protocol):
    """A system under test. The harness creates one object for each incarnation."""

    accounts: Sequence[str]

    def start(self, env: Env) -> None:
        """Start from the state in `env.directory`."""

    def stop(self) -> None:
        """Shut down in good order."""


BUILTIN_SUBJECTS: Final = {
    "desk": "holdover.adapters.desk:DeskSubject",
    "nautilus": "holdover.adapters.nautilus:NautilusSubject",
    "freqtrade": "holdover.adapters.freqtrade:FreqtradeSubject",
}
"""The subjects that Holdover ships, by short name."""

Factory = Callable[[Plan], Subject]
"""Creates the subject object for a new incarnation."""


def resolve_factory(name: str) -> Factory:
    """Return the factory of a subject.

    `name` is `desk`, `nautilus`, `freqtrade`, or `MODULE:NAME` of a callable that takes a `Plan`. Raises
    `SubjectError` when the module cannot be imported or the attribute is not callable.
    """
    name = BUILTIN_SUBJECTS.get(name, name)
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise SubjectError(
            f"{name!r} is no subject: write {', '.join(BUILTIN_SUBJECTS)}, "
            "or MODULE:NAME of a callable that takes a plan"
        )
    working_directory = os.getcwd()
    if "" not in sys.path and working_directory not in sys.path:
        sys.path.append(working_directory)  # finds modules in the working directory; last, so that it shadows nothing
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise SubjectError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    candidate = getattr(module, attribute, None)
    if not callable(candidate):
        raise SubjectError(f"{module_name} has no callable {attribute}")
    factory: Factory = candidate
    return factory
