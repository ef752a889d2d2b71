"""One recorded day of a process under test: venue, wire, process and operations, in real time or accelerated."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.adapters.fix.fix_message import (
    FixMessage as Said,
)
from holdover.adapters.fix.fix_message import (
    ParsedMessage,
)
from holdover.adapters.fix.venue import VenueConfig, VenueServer
from holdover.adapters.process.child import ChildProcess
from holdover.adapters.process.config import ProcessConfig, fill_template
from holdover.adapters.process.judge import Era, Transcript, WireMessage
from holdover.adapters.process.ports import free_ports
from holdover.adapters.process.state_store import StateStores
from holdover.adapters.process.wire import DIRECTIONS, INBOUND, OUTBOUND, WireProxy
from holdover.fix.engine import (
    FixApplication,
    FixEngineError,
    SessionName,
    SessionSetting,
    import_quickfix,
    make_engine_application,
    make_settings,
)
from holdover.model import fix_tags as tags
from holdover.recording import Recording
from holdover.runtime import FreezeStore
from holdover.runtime.files import write_whole
from holdover.runtime.redaction import RedactionRules

_SECOND: Final = 1_000_000_000
_POLL_S: Final = 0.05
_QUIET_S: Final = 0.3
_COPY: Final = "DROP"
_CLOSE_TIMEOUT_S: Final = 30.0


class ProcessOperation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation on the process, `at_s` seconds of the day after its open, lasting `for_s` seconds.

    `kill` (the process is down for that long), `cut` (no connection for that long) or `stall` (nothing flows for
    that long in `directions`). Operations run one after the other: when one takes longer than planned, the next
    one waits.
    """

    kind: str
    at_s: float
    for_s: float = 0.0
    directions: tuple[str, ...] = DIRECTIONS

    def __str__(self) -> str:
        directions = f" {' and '.join(self.directions)}" if self.kind == "stall" else ""
        return f"{self.kind}{directions} at {self.at_s:g} s" + (f" for {self.for_s:g} s" if self.for_s else "")


class DayStart(msgspec.Struct, frozen=True, kw_only=True):
    """The start of a day: the state of the process, of the venue and of the audit; empty parts for a fresh start.

    `eras` are those of the days before, for messages that refer to their times.
    """

    parts: dict[str, bytes] = {}
    night: bytes = b""
    memory: bytes = b""
    eras: list[Era] = []


class DayResult(msgspec.Struct, kw_only=True):
    """The result of a day. `problems` says in sentences why the day was not completed."""

    arm: str
    trade_date: str
    open_ns: int = 0
    close_ns: int = 0
    problems: list[str] = []
    logons: int = 0
    incarnations: int = 0
    is_ready: bool = False
    exit_code: int | None = None
    messages: list[WireMessage] = []
    drop_copy_messages: list[WireMessage] = []
    operation_log: list[tuple[int, str]] = []
    parts: dict[str, bytes] = {}
    night: bytes = b""
    eras: list[Era] = []
    guard_breaches: list[dict[str, Any]] = []
    seconds: float = 0.0


class ProcessDay:
    """Runs one day in its own directory. With `rules` the final state is captured and redacted.

    Raises `StateStoreError`, `VenueStateError`, `FixEngineError` or `ProcessStartError`.
    """

    def __init__(
        self,
        config: ProcessConfig,
        recordings: Sequence[Recording],
        directory: Path,
        arm: str,
        *,
        day_start: DayStart | None = None,
        operations: Sequence[ProcessOperation] = (),
        rules: RedactionRules | None = None,
        progress: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.config, self.recordings, self.directory, self.arm = config, list(recordings), directory, arm
        self.day_start = day_start or DayStart()
        self.operations = sorted(operations, key=lambda operation: operation.at_s)
        self.rules = rules
        self.progress = progress
        metas = [recording.meta for recording in recordings]
        self.day_result = DayResult(
            arm=arm,
            trade_date=metas[0].trade_date,
            open_ns=min(meta.open_ns for meta in metas),
            close_ns=max(meta.close_ns for meta in metas),
        )
        self.home = directory / "run" / config.process.directory
        self.values = {
            "host": "127.0.0.1",
            "day": self.day_result.trade_date,
            "open": _format_time(self.day_result.open_ns),
            "close": _format_time(self.day_result.close_ns),
            "accelerate": f"{config.venue.accelerate!r}",
            "arm": arm,
            "directory": str(self.home.resolve()),
            "here": str(config.config_directory),
        }
        self.state_stores = StateStores(config, self.home, self.values, owns_folder=True)
        self._tick = threading.Event()

    def run(self) -> DayResult:
        """Run the day; return its result with the final state of the process and the venue."""
        began_s = time.monotonic()
        self.state_stores.check()
        if self.directory.exists():
            shutil.rmtree(self.directory)
        self.home.mkdir(parents=True)
        if self.day_start.parts:
            self.state_stores.restore(self.day_start.parts)
        else:
            self.state_stores.clear()
        earlier_breaches = self._read_guard_breaches()
        self._start_venue()
        try:
            self._run_operations()
        finally:
            self._stop_all()
        self.day_result.guard_breaches = [
            breach
            for breach in self._read_guard_breaches()
            if breach["number"] > max((k["number"] for k in earlier_breaches), default=0)
        ]
        if self.rules is not None and not self.day_result.problems:
            self.day_result.parts = self.state_stores.capture(self.rules)
        self.day_result.night = self.server.end_day(numbers=self.config.venue.numbers == "carried").to_bytes()
        self.day_result.seconds = time.monotonic() - began_s
        return self.day_result

    # -- coming up ----------------------------------------------------------------------------------------------

    def _start_venue(self) -> None:
        config = self.config
        port, copy_port = free_ports(2)
        self.server = _DayVenueServer(
            VenueConfig(
                directory=self.directory / "venue",
                port=port,
                name=config.venue.name,
                clients=config.venue.clients,
                users=config.users,
                accelerate=config.venue.accelerate,
                heartbeat_s=config.venue.heartbeat_s,
                drop_copy=_COPY,
                drop_copy_port=copy_port,
                waits_for_logon=True,
                end_of_day=self.day_start.night,
            ),
            self.recordings,
        )
        self.server.start()
        self.wire = WireProxy(port)
        self.values["port"] = str(self.wire.port)
        self.transcript = Transcript(self.directory / "wire.fix", self.server.now_ns)
        self.drop_copy = _DropCopyClient(config.venue.name, copy_port, self.directory / "copy", self.server.now_ns)
        self.wire.on_message = self._on_wire_message
        self.drop_copy.start()
        environment = {name: fill_template(value, self.values) for name, value in config.process.environment.items()}
        self.child = ChildProcess(
            [fill_template(argument, self.values) for argument in config.process.command],
            self.home,
            environment,
            self.directory / "process.log",
            config.process.stop_s,
        )

    def _on_wire_message(self, direction: str, text: bytes) -> None:
        self.transcript.record(direction, text)
        if direction == OUTBOUND and b"\x0135=A\x01" in text:
            self.server.announce_logon(ParsedMessage(text.decode("utf-8", "replace")))

    def _start_process(self) -> bool:
        """Start the process; return whether it logged on in time."""
        for file in self.config.file:
            path = self.home / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (self.config.config_directory / file.source).read_text(encoding="utf-8")
            write_whole(path, fill_template(text, self.values).encode())
        earlier_logons = dict(self.server.logons)
        self.child.start()
        return self._wait_for_logons(earlier_logons)

    def _wait_for_logons(self, earlier_logons: dict[str, int]) -> bool:
        """Return whether every client has logged on again within `ready_s`."""
        end_s = time.monotonic() + self.config.process.ready_s
        while missing := [
            client
            for client in self.config.venue.clients
            if self.server.logons.get(client, 0) <= earlier_logons.get(client, 0)
        ]:
            if not self.child.is_running:
                self._add_problem(f"the process ended with {self.child.exit_code} before it had logged on")
                return False
            if time.monotonic() > end_s:
                self._add_problem(f"{', '.join(missing)} had not logged on after {self.config.process.ready_s:g} s")
                return False
            self.server.logon_event.wait(_POLL_S)
            self.server.logon_event.clear()
        return True

    # -- the day ------------------------------------------------------------------------------------------------

    def _run_operations(self) -> None:
        self.progress(f"{self.arm} {self.day_result.trade_date}")
        self.day_result.is_ready = self._start_process()
        if not self.day_result.is_ready:
            return
        for operation in self.operations:
            if not self._perform_operation(operation):
                return
        if not self._wait_until(self.day_result.close_ns):
            return
        end_s = time.monotonic() + _CLOSE_TIMEOUT_S
        while not self.server.venue_engine.is_ended and time.monotonic() < end_s:
            self._tick.wait(_POLL_S)
        self._wait_until_quiet()

    def _perform_operation(self, operation: ProcessOperation) -> bool:
        """Perform an operation, wait, undo it and wait for the logon; return whether the day continues.

        An operation that would begin after the close is skipped, and one that lasts past the close is not undone.
        """
        at_ns = self.day_result.open_ns + int(operation.at_s * _SECOND)
        if max(at_ns, self.server.now_ns()) >= self.day_result.close_ns:
            self.day_result.operation_log.append((self.day_result.close_ns, f"{operation}: not done, the day was over"))
            return True
        if not self._wait_until(at_ns):
            return False
        earlier_logons = dict(self.server.logons)
        began_ns = self.server.now_ns()
        self.day_result.operation_log.append((began_ns, str(operation)))
        if operation.kind == "kill":
            self.child.kill()
        elif operation.kind == "cut":
            self.wire.drop_connections()
        else:
            self.wire.stall(*operation.directions)
        until_ns = began_ns + int(operation.for_s * _SECOND)
        if not self._wait_until(min(until_ns, self.day_result.close_ns)):
            return False
        if until_ns >= self.day_result.close_ns:
            return True
        self.day_result.operation_log.append((self.server.now_ns(), f"{operation.kind} over"))
        if operation.kind == "kill":
            return self._start_process()
        self.wire.heal()
        return operation.kind == "stall" or self._wait_for_logons(earlier_logons)

    def _wait_until(self, time_ns: int) -> bool:
        """Wait for a time of the day; return False when the process has ended by itself."""
        is_down = not self.child.is_running
        while True:
            left_s = (time_ns - self.server.now_ns()) / _SECOND / self.config.venue.accelerate
            if left_s <= 0:
                return True
            if not is_down and not self.child.is_running:
                at = _format_time(self.server.now_ns())
                self._add_problem(f"the process ended by itself with {self.child.exit_code}, at {at} of the day")
                return False
            self._tick.wait(min(left_s, _POLL_S))

    def _wait_until_quiet(self) -> None:
        """Wait until the venue's last messages have reached the process, at most `settle_s`."""
        end_s = time.monotonic() + self.config.venue.settle_s
        message_count, since_s = -1, time.monotonic()
        while time.monotonic() < end_s:
            if len(self.transcript.messages) != message_count:
                message_count, since_s = len(self.transcript.messages), time.monotonic()
            if time.monotonic() - since_s > _QUIET_S:
                return
            self._tick.wait(_POLL_S)

    def _stop_all(self) -> None:
        self.day_result.exit_code = self.child.stop()
        self.day_result.incarnations = self.child.incarnations
        self.wire.close()
        self.drop_copy.stop()
        self.server.stop()
        self.server.release_engine()
        self.transcript.close()
        self.day_result.logons = sum(self.server.logons.get(client, 0) for client in self.config.venue.clients)
        self.day_result.messages, self.day_result.drop_copy_messages = self.transcript.messages, self.drop_copy.messages
        self.day_result.eras = [*self.day_start.eras, *self.server.era()]

    def _add_problem(self, problem: str) -> None:
        last = self.child.read_output_end().splitlines()
        self.day_result.problems.append(f"{problem}: {last[-1]}" if last else problem)

    def _read_guard_breaches(self) -> list[dict[str, Any]]:
        """Return the breaches that the process's own guard has recorded, if it has one."""
        path = self.home / fill_template(self.config.process.guard, self.values) / "guard.db"
        if not self.config.process.guard or not path.exists():
            return []
        store = FreezeStore(path)
        try:
            return [
                {
                    "number": breach.number,
                    "invariant": breach.invariant,
                    "key": breach.key,
                    "explanation": breach.explanation,
                }
                for breach in store.breaches()
            ]
        finally:
            store.close()


class _DayVenueServer(VenueServer):
    """The venue of a day. It counts logons, and its clock starts with the first logon.

    Messages for a client that has not logged on yet wait for its logon. When a client's first Logon has the
    number 1, the client has reset its session overnight, as engines do by date; the venue then resets too.
    """

    def __init__(self, config: VenueConfig, recordings: Sequence[Recording]) -> None:
        self.logons: dict[str, int] = {}
        self.logon_event = threading.Event()
        self._era: list[Era] = []
        self._announced_clients: set[str] = set()
        self._deferred: list[tuple[str, int, Said]] = []
        super().__init__(config, recordings)

    def announce_logon(self, logon: ParsedMessage) -> None:
        """Reset the session before a client's first Logon arrives, if the client has reset it."""
        client = logon.get(tags.SENDER_COMP_ID)
        if client in self._ids and client not in self._announced_clients:
            self._announced_clients.add(client)
            session = import_quickfix().Session.lookupSession(self._ids[client])
            if (
                logon.get(tags.MSG_SEQ_NUM) == "1"
                and logon.get(tags.RESET_SEQ_NUM_FLAG) != "Y"
                and session.getExpectedTargetNum() > 1
            ):
                session.reset()

    def _flush(self) -> None:
        entries, self.venue_engine.outgoing, self._deferred = [*self._deferred, *self.venue_engine.outgoing], [], []
        for entry in entries:
            is_absent = entry[0] in self.config.clients and entry[0] not in self.logons
            (self._deferred if is_absent else self.venue_engine.outgoing).append(entry)
        super()._flush()

    def on_logon(self, name: SessionName) -> None:
        """Count a logon. The first one, also for market data, starts the day; the drop copy does not."""
        client = name[1]
        self.logons[client] = self.logons.get(client, 0) + 1
        if client != _COPY:
            if not self._era:
                self._era.append(Era(time.time_ns(), self.venue_engine.clock.now_ns, self.config.accelerate))
            super().on_logon(name)
        self.logon_event.set()

    def era(self) -> list[Era]:
        """Return how wall-clock time maps to the recorded day."""
        return list(self._era)

    def release_engine(self) -> None:
        """Release the engine, so that this process can serve another venue of the same name."""
        del self._engine, self._store


class _DropCopyClient(FixApplication):
    """Receives the venue's drop copy over its own session."""

    def __init__(self, venue: str, port: int, directory: Path, now_ns: Callable[[], int]) -> None:
        quickfix = import_quickfix()
        self.messages: list[WireMessage] = []
        self._now_ns = now_ns
        session_settings = make_settings(
            [SessionSetting(sender=_COPY, target=venue, host="127.0.0.1", port=port, options={"ResetOnLogon": "Y"})],
            directory,
            heartbeat_s=30,
        )
        self._application = make_engine_application(self)
        self._store = quickfix.FileStoreFactory(session_settings)
        try:
            self._engine: Any = quickfix.SocketInitiator(self._application, self._store, session_settings)
        except (quickfix.ConfigError, quickfix.RuntimeError) as error:
            raise FixEngineError(f"the FIX engine of the drop copy does not start: {error}") from error

    def start(self) -> None:
        """Connect to the venue."""
        self._engine.start()

    def stop(self) -> None:
        """Log out and release the engine."""
        self._engine.stop()
        del self._engine, self._store

    def on_message(self, name: SessionName, text: str) -> None:
        """Store a report."""
        self.messages.append(WireMessage(self._now_ns(), INBOUND, text.encode()))


def _format_time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // _SECOND, UTC):%H:%M:%S}"


__all__ = ["DayStart", "ProcessDay", "ProcessOperation", "DayResult"]
