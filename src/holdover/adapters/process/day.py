"""One recorded day of a process under test, in real time or quicker: venue, wire, process, and what is done to them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.adapters.fix.messages import Fields
from holdover.adapters.fix.messages import Wire as Said
from holdover.adapters.fix.session import (
    Heard,
    Name,
    NoEngine,
    SessionSetting,
    application,
    engine,
    settings,
)
from holdover.adapters.fix.venue import VenueConfig, VenueServer
from holdover.adapters.process.child import Child
from holdover.adapters.process.config import ProcessConfig, filled
from holdover.adapters.process.judge import Era, Passed, Transcript
from holdover.adapters.process.place import Places
from holdover.adapters.process.ports import free_ports
from holdover.adapters.process.wire import DIRECTIONS, IN, OUT, Wire
from holdover.recording import Recording
from holdover.runtime import FreezeStore
from holdover.runtime.files import write_whole
from holdover.runtime.redaction import Rules

_SECOND: Final = 1_000_000_000
_LOOK_S: Final = 0.05
_QUIET_S: Final = 0.3
_COPY: Final = "DROP"
_OVER_S: Final = 30.0


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to the process `at_s` seconds of the day after its open, for `for_s` of them.

    `kill` (it is down so long), `cut` (no connection so long), `stall` (nothing flows so long, in `directions`). One is
    done after the other: where one has taken longer than it should, the next begins when it is over.
    """

    what: str
    at_s: float
    for_s: float = 0.0
    directions: tuple[str, ...] = DIRECTIONS

    def __str__(self) -> str:
        held = f" {' and '.join(self.directions)}" if self.what == "stall" else ""
        return f"{self.what}{held} at {self.at_s:g} s" + (f" for {self.for_s:g} s" if self.for_s else "")


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """What a day begins with: the process's state, the venue's, and the judgement's memory; nothing for an empty one.

    `eras` are those of the days before, for times that messages of theirs name.
    """

    parts: dict[str, bytes] = {}
    night: bytes = b""
    memory: bytes = b""
    eras: list[Era] = []


class Ran(msgspec.Struct, kw_only=True):
    """What a day came to. `problems` says in sentences why it could not be run to its end, where it could not."""

    arm: str
    trade_date: str
    open_ns: int = 0
    close_ns: int = 0
    problems: list[str] = []
    logons: int = 0
    lives: int = 0
    ready: bool = False
    returned: int | None = None
    passed: list[Passed] = []
    copied: list[Passed] = []
    done: list[tuple[int, str]] = []
    parts: dict[str, bytes] = {}
    night: bytes = b""
    eras: list[Era] = []
    guarded: list[dict[str, Any]] = []
    seconds: float = 0.0


class LiveDay:
    """Runs one day below a directory of its own. With `rules` the state that it ends with is taken, and redacted.

    Raises `BadPlace`, `BadState`, `NoEngine`, `NotStarted`.
    """

    def __init__(
        self,
        config: ProcessConfig,
        recordings: Sequence[Recording],
        directory: Path,
        arm: str,
        *,
        begin: Begin | None = None,
        operations: Sequence[Operation] = (),
        rules: Rules | None = None,
        progress: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.config, self.recordings, self.directory, self.arm = config, list(recordings), directory, arm
        self.begin = begin or Begin()
        self.operations = sorted(operations, key=lambda one: one.at_s)
        self.rules = rules
        self.progress = progress
        metas = [one.meta for one in recordings]
        self.ran = Ran(
            arm=arm,
            trade_date=metas[0].trade_date,
            open_ns=min(one.open_ns for one in metas),
            close_ns=max(one.close_ns for one in metas),
        )
        self.home = directory / "run" / config.directory
        self.values = {
            "host": "127.0.0.1",
            "day": self.ran.trade_date,
            "open": _clock(self.ran.open_ns),
            "close": _clock(self.ran.close_ns),
            "accelerate": f"{config.accelerate!r}",
            "arm": arm,
            "directory": str(self.home.resolve()),
            "here": str(config.here),
        }
        self.places = Places(config, self.home, self.values, ours=True)
        self._tick = threading.Event()

    def run(self) -> Ran:
        """Run the day, and leave the process's state and the venue's in what is returned."""
        began_s = time.monotonic()
        self.places.check()
        if self.directory.exists():
            shutil.rmtree(self.directory)
        self.home.mkdir(parents=True)
        if self.begin.parts:
            self.places.restore(self.begin.parts)
        else:
            self.places.clear()
        known = self._breaches()
        self._serve()
        try:
            self._live()
        finally:
            self._end()
        self.ran.guarded = [
            one for one in self._breaches() if one["number"] > max((k["number"] for k in known), default=0)
        ]
        if self.rules is not None and not self.ran.problems:
            self.ran.parts = self.places.capture(self.rules)
        self.ran.night = self.server.night(numbers=self.config.numbers == "carried").encoded()
        self.ran.seconds = time.monotonic() - began_s
        return self.ran

    # -- coming up ----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        config = self.config
        port, copy_port = free_ports(2)
        self.server = _Served(
            VenueConfig(
                directory=self.directory / "venue",
                port=port,
                name=config.venue,
                clients=config.clients,
                users=config.users,
                accelerate=config.accelerate,
                heartbeat_s=config.heartbeat_s,
                drop_copy=_COPY,
                drop_copy_port=copy_port,
                waits=True,
                night=self.begin.night,
            ),
            self.recordings,
        )
        self.server.start()
        self.wire = Wire(port)
        self.values["port"] = str(self.wire.port)
        self.transcript = Transcript(self.directory / "wire.fix", self.server.now_ns)
        self.copy = _Copy(config.venue, copy_port, self.directory / "copy", self.server.now_ns)
        self.wire.heard = self._heard
        self.copy.start()
        environment = {name: filled(value, self.values) for name, value in config.environment.items()}
        self.child = Child(
            [filled(one, self.values) for one in config.command],
            self.home,
            environment,
            self.directory / "process.log",
            config.stop_s,
        )

    def _heard(self, direction: str, text: bytes) -> None:
        self.transcript.heard(direction, text)
        if direction == OUT and b"\x0135=A\x01" in text:
            self.server.called(Fields(text.decode("utf-8", "replace")))

    def _start(self) -> bool:
        """Bring the process up; whether it has logged on in time."""
        for one in self.config.files:
            path = self.home / one.path
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (self.config.here / one.source).read_text(encoding="utf-8")
            write_whole(path, filled(text, self.values).encode())
        before = dict(self.server.logons)
        self.child.start()
        return self._logged_on(before)

    def _logged_on(self, before: dict[str, int]) -> bool:
        """Whether every client has logged on anew, within `ready_s`."""
        end_s = time.monotonic() + self.config.ready_s
        while missing := [one for one in self.config.clients if self.server.logons.get(one, 0) <= before.get(one, 0)]:
            if not self.child.runs:
                self._said(f"the process ended with {self.child.returned} before it had logged on")
                return False
            if time.monotonic() > end_s:
                self._said(f"{', '.join(missing)} had not logged on after {self.config.ready_s:g} s")
                return False
            self.server.told.wait(_LOOK_S)
            self.server.told.clear()
        return True

    # -- the day ------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        self.progress(f"{self.arm} {self.ran.trade_date}")
        self.ran.ready = self._start()
        if not self.ran.ready:
            return
        for one in self.operations:
            if not self._operate(one):
                return
        if not self._until(self.ran.close_ns):
            return
        end_s = time.monotonic() + _OVER_S
        while not self.server.core.ended and time.monotonic() < end_s:
            self._tick.wait(_LOOK_S)
        self._settle()

    def _operate(self, one: Operation) -> bool:
        """Do it, wait as long as it lasts, undo it, wait for the logon that it has cost; whether the day goes on.

        One that begins after the close is not done, and one that lasts over it is not undone.
        """
        at_ns = self.ran.open_ns + int(one.at_s * _SECOND)
        if max(at_ns, self.server.now_ns()) >= self.ran.close_ns:
            self.ran.done.append((self.ran.close_ns, f"{one}: not done, the day was over"))
            return True
        if not self._until(at_ns):
            return False
        before = dict(self.server.logons)
        began_ns = self.server.now_ns()
        self.ran.done.append((began_ns, str(one)))
        if one.what == "kill":
            self.child.kill()
        elif one.what == "cut":
            self.wire.cut()
        else:
            self.wire.stall(*one.directions)
        until_ns = began_ns + int(one.for_s * _SECOND)
        if not self._until(min(until_ns, self.ran.close_ns)):
            return False
        if until_ns >= self.ran.close_ns:
            return True
        self.ran.done.append((self.server.now_ns(), f"{one.what} over"))
        if one.what == "kill":
            return self._start()
        self.wire.heal()
        return one.what == "stall" or self._logged_on(before)

    def _until(self, time_ns: int) -> bool:
        """Wait for a time of the day; False when the process has ended by itself meanwhile."""
        down = not self.child.runs
        while True:
            left_s = (time_ns - self.server.now_ns()) / _SECOND / self.config.accelerate
            if left_s <= 0:
                return True
            if not down and not self.child.runs:
                at = _clock(self.server.now_ns())
                self._said(f"the process ended by itself with {self.child.returned}, at {at} of the day")
                return False
            self._tick.wait(min(left_s, _LOOK_S))

    def _settle(self) -> None:
        """What the venue has said at the close reaches the process: until it is quiet, and `settle_s` at most."""
        end_s = time.monotonic() + self.config.settle_s
        seen, since_s = -1, time.monotonic()
        while time.monotonic() < end_s:
            if len(self.transcript.passed) != seen:
                seen, since_s = len(self.transcript.passed), time.monotonic()
            if time.monotonic() - since_s > _QUIET_S:
                return
            self._tick.wait(_LOOK_S)

    def _end(self) -> None:
        self.ran.returned = self.child.stop()
        self.ran.lives = self.child.lives
        self.wire.close()
        self.copy.stop()
        self.server.stop()
        self.server.let_go()
        self.transcript.close()
        self.ran.logons = sum(self.server.logons.get(one, 0) for one in self.config.clients)
        self.ran.passed, self.ran.copied = self.transcript.passed, self.copy.passed
        self.ran.eras = [*self.begin.eras, *self.server.era()]

    def _said(self, problem: str) -> None:
        last = self.child.last_words().splitlines()
        self.ran.problems.append(f"{problem}: {last[-1]}" if last else problem)

    def _breaches(self) -> list[dict[str, Any]]:
        """What a guard of the process's own has found, where it has one."""
        path = self.home / filled(self.config.guard, self.values) / "guard.db"
        if not self.config.guard or not path.exists():
            return []
        store = FreezeStore(path)
        try:
            return [
                {"number": one.number, "invariant": one.invariant, "key": one.key, "explanation": one.explanation}
                for one in store.breaches()
            ]
        finally:
            store.close()


class _Served(VenueServer):
    """The venue of a day: it counts logons, and its clock stands until the process is there.

    What it has to say to a client before it has logged on at all, it says then. A client whose first Logon has the
    number 1 has begun its session anew over the night, as engines do with the date: then so does the venue.
    """

    def __init__(self, config: VenueConfig, recordings: Sequence[Recording]) -> None:
        self.logons: dict[str, int] = {}
        self.told = threading.Event()
        self._era: list[Era] = []
        self._called: set[str] = set()
        self._later: list[tuple[str, int, Said]] = []
        super().__init__(config, recordings)

    def called(self, logon: Fields) -> None:
        """A Logon is on its way here."""
        client = logon.get(49)
        if client in self._ids and client not in self._called:
            self._called.add(client)
            session = engine().Session.lookupSession(self._ids[client])
            if logon.get(34) == "1" and logon.get(141) != "Y" and session.getExpectedTargetNum() > 1:
                session.reset()

    def _flush(self) -> None:
        waiting, self.core.out, self._later = [*self._later, *self.core.out], [], []
        for one in waiting:
            away = one[0] in self.config.clients and one[0] not in self.logons
            (self._later if away else self.core.out).append(one)
        super()._flush()

    def logged_on(self, name: Name) -> None:
        """A client is there; the day begins with the first, be it for market data; the drop copy's begins none."""
        client = name[1]
        self.logons[client] = self.logons.get(client, 0) + 1
        if client != _COPY:
            if not self._era:
                self._era.append(Era(time.time_ns(), self.core.clock.now_ns, self.config.accelerate))
            super().logged_on(name)
        self.told.set()

    def era(self) -> list[Era]:
        """How the wall clock's time was the day's."""
        return list(self._era)

    def let_go(self) -> None:
        """Let go of the engine: another venue of the same name may be served in this process."""
        del self._engine, self._store


class _Copy(Heard):
    """Takes the venue's drop copy, over a session of its own."""

    def __init__(self, venue: str, port: int, directory: Path, now_ns: Callable[[], int]) -> None:
        quickfix = engine()
        self.passed: list[Passed] = []
        self._now_ns = now_ns
        given = settings(
            [SessionSetting(sender=_COPY, target=venue, host="127.0.0.1", port=port, more={"ResetOnLogon": "Y"})],
            directory,
            heartbeat_s=30,
        )
        self._application = application(self)
        self._store = quickfix.FileStoreFactory(given)
        try:
            self._engine: Any = quickfix.SocketInitiator(self._application, self._store, given)
        except (quickfix.ConfigError, quickfix.RuntimeError) as problem:
            raise NoEngine(f"the FIX engine of the drop copy does not start: {problem}") from problem

    def start(self) -> None:
        """Call the venue."""
        self._engine.start()

    def stop(self) -> None:
        """Log out, and let go of the engine."""
        self._engine.stop()
        del self._engine, self._store

    def message(self, name: Name, text: str) -> None:
        """A report."""
        self.passed.append(Passed(self._now_ns(), IN, text.encode()))


def _clock(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // _SECOND, UTC):%H:%M:%S}"


__all__ = ["Begin", "LiveDay", "Operation", "Ran"]
