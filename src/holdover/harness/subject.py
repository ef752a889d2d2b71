"""The system under test, behind a small adapter.

A subject has `accounts` and two methods: `start(env)` and `stop()`. It keeps what must survive in `env.directory`, says
to `env.guard` what changed and what it read back, and reaches the outside through `env.clock`, `env.link` and
`env.market` only. When it is killed, its `env` goes dead: whatever still runs inside it has no effect any more.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from holdover.model import Instrument, Query, Record, Request
from holdover.recording import Meta
from holdover.runtime import Guard
from holdover.world import Book, Clock, End, Venue


class BadSubject(ValueError):
    """A subject that cannot be used; the message lists every problem, one a line."""


class Killed(BaseException):
    """The subject's process is gone at this very point. Nothing of it may catch this and live on."""


class SubjectClock:
    """Virtual time as the subject sees it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.dead = False

    @property
    def now_ns(self) -> int:
        """The time now, ns since the epoch, UTC."""
        return self._clock.now_ns

    def call_at(self, time_ns: int, name: str, *args: Any) -> None:
        """Have the timer handler called at a time; a time that has passed means at once."""
        if not self.dead:
            self._clock.at(max(time_ns, self._clock.now_ns), "subject", name, *args)

    def on_timer(self, handler: Callable[[str, tuple[Any, ...]], None]) -> None:
        """Who is called when a timer is due."""
        if not self.dead:
            self._clock.register("subject", handler)


class Market:
    """The recorded market as last seen."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    def top(self, symbol: str) -> Book:
        """Best bid and offer, last price, traded quantity, whether it trades. Raises `KeyError` for a stranger."""
        return self._venue.top(symbol)


class _NoStep:
    """The step of a dead subject."""

    def __enter__(self) -> _NoStep:
        return self

    def __exit__(self, *raised: object) -> None:
        return None


class SubjectGuard:
    """The guard as the subject holds it: the real one, until the subject is dead.

    What the venue knows is recorded by the venue itself here, so a subject's own word on it is left out; and what the
    subject calls reconciled is compared with the venue at the next moment when nothing is in flight.
    """

    def __init__(self, guard: Guard, on_record: Callable[[str, Record], None]) -> None:
        self.real = guard
        self.dead = False
        self.reconciled_date = ""
        self.recovered: list[str] = []
        self.restored: list[str] = []
        self._on_record = on_record

    def step(self, cause: str) -> Any:
        """One cause; see `Guard.step`."""
        return _NoStep() if self.dead else self.real.step(cause)

    def record(self, subsystem: str, record: Record) -> None:
        """One subsystem's record has changed; see `Guard.record`."""
        if self.dead or subsystem == "venue":
            return
        self.real.record(subsystem, record)
        self._on_record(subsystem, record)

    def restore(self, subsystem: str, records: Iterable[Record]) -> None:
        """What a subsystem read back; see `Guard.restore`."""
        if not self.dead:
            self.restored.append(subsystem)
            self.real.restore(subsystem, records)

    def permits(self, message: Request | Query) -> bool:
        """Whether a message may leave; see `Guard.permits`."""
        return not self.dead and self.real.permits(message)

    def reconciled(self, trade_date: str, recovered: Iterable[str] = ("orders", "positions", "ledger")) -> None:
        """Reconciliation is complete; asserted at the next quiescent moment."""
        if not self.dead:
            self.reconciled_date, self.recovered = trade_date, list(recovered)

    def tick(self) -> None:
        """Let time pass; see `Guard.tick`."""
        if not self.dead:
            self.real.tick()

    def quiescent(self) -> None:
        """The harness knows better than the subject when nothing is in flight."""

    def boundary(self, name: str, trade_date: str, *, recovered: Iterable[str] = ()) -> None:
        """Boundaries are the harness's here."""

    def transition(self, what: str, detail: str = "") -> None:
        """Transitions are the harness's here."""

    def declare_jump(self) -> None:
        """See `Guard.declare_jump`."""
        if not self.dead:
            self.real.declare_jump()


@dataclass
class Env:
    """All that a subject has of the outside, for one life."""

    clock: SubjectClock
    link: End
    market: Market
    directory: Path
    guard: SubjectGuard
    trade_date: str
    open_ns: int
    close_ns: int
    instruments: list[Instrument]

    def kill(self) -> None:
        """From here on nothing that the subject does has any effect."""
        self.clock.dead = self.guard.dead = self.link.dead = True


@dataclass(frozen=True)
class Plan:
    """What a subject is made for: the instruments and days that it will see, the seed, faults to switch on."""

    days: list[Meta]
    seed: int = 0
    faults: Sequence[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def instruments(self) -> list[Instrument]:
        """The instruments, in the order of first mention."""
        return list({meta.instrument.symbol: meta.instrument for meta in self.days}.values())


@runtime_checkable
class Subject(Protocol):
    """A system under test: one object a life."""

    accounts: Sequence[str]

    def start(self, env: Env) -> None:
        """Come up on what `env.directory` holds."""

    def stop(self) -> None:
        """Go down in good order."""


OWN: Final = {
    "desk": "holdover.adapters.desk:DeskSubject",
    "nautilus": "holdover.adapters.nautilus:NautilusSubject",
    "freqtrade": "holdover.adapters.freqtrade:FreqtradeSubject",
}
"""The subjects that Holdover brings along, by their short names."""

Factory = Callable[[Plan], Subject]
"""Makes a new subject for a new life."""


def factory_named(name: str) -> Factory:
    """The factory of a subject: `desk`, `nautilus`, `freqtrade`, or `MODULE:NAME` of a callable that takes a `Plan`.

    Raises `BadSubject` when it cannot be imported or is not callable.
    """
    name = OWN.get(name, name)
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise BadSubject(
            f"{name!r} is no subject: write {', '.join(OWN)}, or MODULE:NAME of a callable that takes a plan"
        )
    here = os.getcwd()
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)  # a module of one's own, beside which one stands; last, so that it hides nothing
    try:
        module = importlib.import_module(module_name)
    except Exception as problem:
        raise BadSubject(f"{module_name} cannot be imported: {type(problem).__name__}: {problem}") from problem
    found = getattr(module, attribute, None)
    if not callable(found):
        raise BadSubject(f"{module_name} has no callable {attribute}")
    factory: Factory = found
    return factory
