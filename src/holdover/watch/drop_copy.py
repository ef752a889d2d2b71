"""A FIX drop copy session: a QuickFIX engine receives the venue's messages, and the watch evaluates them like an
audit.

The engine runs the session: Logon, Heartbeats, sequence numbers on disk, a ResendRequest for missed messages.
Each received message is synced into a spool before the engine counts it, and is evaluated from there. After a
kill the engine is at the spool's end or one message behind; a message that it requests again carries
PossDupFlag and is evaluated once. The spool holds only received messages: the engine checks the session's own
order.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from holdover.fix.engine import (
    FixApplication,
    FixEngineError,
    SessionName,
    SessionSetting,
    import_quickfix,
    make_engine_application,
    make_settings,
)
from holdover.fix.listener import EngineListeners, listen
from holdover.fix.tls_relay import LOOPBACK, TlsConfig, TlsRelay
from holdover.model import fix_tags as tags
from holdover.runtime.config_file import read_config_file
from holdover.runtime.files import make_private_directory
from holdover.watch.source import Offset, SourceError
from holdover.watch.spool import Spool
from holdover.watch.tail import Tail

_VERSIONS: Final = {"4.2": "FIX.4.2", "4.4": "FIX.4.4", "5.0": "FIXT.1.1"}
_ANSWER_TIMEOUT_S: Final = 10.0
_SCHEMES: Final = {
    "fix": (False, False),
    "fixs": (False, True),
    "fix-listen": (True, False),
    "fixs-listen": (True, True),
}
URL_SCHEMES: Final = tuple(f"{scheme}://" for scheme in _SCHEMES)
"""The beginnings of a drop copy's URL; those with an s are over TLS."""

_REFUSED_EVENT: Final = b"Session not found for incoming message: "
_RESERVED_SETTINGS: Final = frozenset(
    ("BeginString", "SenderCompID", "TargetCompID", "HeartBtInt", "StartTime", "EndTime")
)
_TimeOfDay = Annotated[str, msgspec.Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$")]


class FixConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table [fix]: the FIX version, both parties, and further session settings.

    `start` and `end` are the session's hours, UTC; if they are equal, the sequence numbers restart daily at that
    time. `settings` are additional QuickFIX settings by their QuickFIX names. `tls` is for the URLs with TLS. Messages
    that have been judged are kept for `spool_days`, and as long as all take less than `spool_mb`.
    """

    version: str = "4.4"
    sender: str = ""
    target: str = ""
    heartbeat_s: Annotated[int, msgspec.Meta(gt=0)] = 30
    start: _TimeOfDay = "00:00:00"
    end: _TimeOfDay = "00:00:00"
    username: str = ""
    password_env: str = ""
    settings: dict[str, str] = {}
    tls: TlsConfig = TlsConfig()
    spool_days: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    spool_mb: Annotated[int, msgspec.Meta(ge=0)] = 1024

    @classmethod
    def load(cls, path: Path | None, **overrides: str | None) -> FixConfig:
        """Load the table of a TOML file; non-empty `overrides` replace its values. Raises `SourceError`."""
        name = path.name if path is not None else "the drop copy"
        config = cls()
        if path is not None:
            config = read_config_file(path, _DropCopyTables, SourceError, lambda file: None, other_tables=None).fix
        config = msgspec.structs.replace(config, **{key: value for key, value in overrides.items() if value})
        if config.version not in _VERSIONS:
            raise SourceError(f"{name}: version {config.version} of FIX is none of {', '.join(_VERSIONS)}")
        if not config.sender or not config.target:
            raise SourceError(
                f"{name}: needs SenderCompID and TargetCompID: --sender and --target, or [fix] in the file"
            )
        for setting in sorted(_RESERVED_SETTINGS & config.settings.keys()):
            raise SourceError(f"{name}: [fix.settings] {setting} has a name of its own in [fix]")
        if config.password_env and config.password_env not in os.environ:
            raise SourceError(f"{name}: [fix] password_env: the environment does not set {config.password_env}")
        return config


class _DropCopyTables(msgspec.Struct, frozen=True):
    fix: FixConfig = FixConfig()


class DropCopy:
    """One session over TCP and its received messages, in `directory`. Raises `SourceError` when it cannot be opened."""

    def __init__(self, url: str, config: FixConfig, directory: Path, offset: Offset | None = None) -> None:
        try:
            quickfix = import_quickfix()
        except FixEngineError as problem:
            raise SourceError(str(problem)) from problem
        self.notices: list[str] = []
        self.url, self.config = url, config
        address = _parse_address(url)
        self._listeners: EngineListeners | None = None
        self._relay: TlsRelay | None = None
        self._spool = Spool(directory / "spool", offset)
        self._engine_notices: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._refusals: Tail | None = None
        self._refused_parties: set[str] = set()
        if config.settings.get("ResetOnLogon") == "Y":
            self.notices.append(f"{url}: with ResetOnLogon what is sent while nobody watches cannot be had again")
        self._handler = _SpoolingApplication(self._spool, config, self._engine_notices.put)
        try:
            self._start_engine(quickfix, address, directory)
        except (FixEngineError, quickfix.ConfigError, quickfix.RuntimeError) as problem:
            self._close_parts()
            raise SourceError(f"{url}: the FIX engine does not start: {problem}") from problem
        self._silent_since_s = float("inf") if address.listens else time.monotonic()

    def _start_engine(self, quickfix: Any, address: _Address, directory: Path) -> None:
        """Start the engine, bound to its address, and the relay when the session is over TLS."""
        config = self.config
        host, port = ("", 0) if address.listens else (address.host, address.port)
        context = config.tls.server_context() if address.listens and address.is_tls else None
        client_context = config.tls.client_context() if address.is_tls and not address.listens else None
        bound = (LOOPBACK, 0) if address.is_tls else (address.host, address.port)
        if address.listens:
            self._listeners = EngineListeners(bound[0], [bound[1]])
            port = self._listeners.engine_port(bound[1])
        relay_listener = _listen_for_relay(address) if address.is_tls else None
        if client_context is not None and relay_listener is not None:
            host, port = LOOPBACK, int(relay_listener.getsockname()[1])
        settings = _engine_settings(config, host, port, directory)
        store = quickfix.FileStoreFactory(settings)
        self._application = make_engine_application(self._handler)
        engine_arguments: tuple[Any, ...] = (self._application, store, settings)
        if address.listens:
            self._refusals = _prepare_event_log(directory / "events", config)
            engine_arguments += (quickfix.FileLogFactory(settings),)
        engine = quickfix.SocketAcceptor if address.listens else quickfix.SocketInitiator
        if reason := _check_engine_settings(engine, engine_arguments):
            raise FixEngineError(reason)
        self._engine: Any = engine(*engine_arguments)
        if relay_listener is not None and self._listeners is None:
            target = (address.host, address.port)
            self._relay = TlsRelay(
                relay_listener,
                target,
                client=client_context,
                server_name=config.tls.name,
                notify=self._engine_notices.put,
            )
        self._engine.start()
        if self._listeners is None:
            return
        try:
            self._listeners.attach()
        except FixEngineError:
            self._engine.stop(True)
            raise
        if relay_listener is not None:
            target = (LOOPBACK, self._listeners.bound_port(0))
            self._relay = TlsRelay(relay_listener, target, server=context, notify=self._engine_notices.put)

    def _close_parts(self) -> None:
        """Close everything but the engine."""
        self._spool.close()
        for part in (self._refusals, self._listeners, self._relay):
            if part is not None:
                part.close()

    @property
    def offset(self) -> Offset:
        """The position after the last message returned."""
        return self._spool.offset

    @property
    def is_exhausted(self) -> bool:
        """Always False: a session has no end."""
        return False

    def read_lines(self, count_max: int = 5000) -> list[bytes]:
        """Return at most `count_max` received messages that were not returned yet."""
        while not self._engine_notices.empty():
            self.notices.append(f"{self.url}: {self._engine_notices.get()}")
        if self._refusals is not None:
            self._report_refusals(self._refusals)
        if self._handler.has_answered:
            self._silent_since_s = float("inf")
        elif time.monotonic() - self._silent_since_s > _ANSWER_TIMEOUT_S:
            self._silent_since_s = float("inf")
            self.notices.append(
                f"{self.url}: nobody has answered for {_ANSWER_TIMEOUT_S:.0f} seconds; trying until somebody does"
            )
        return self._spool.read_lines(count_max)

    def wait(self, seconds: float) -> None:
        """Wait until a message arrives, at most `seconds`."""
        self._handler.message_arrived.wait(seconds)
        self._handler.message_arrived.clear()

    def close(self) -> None:
        """Log out and close the engine."""
        self._engine.stop()
        self._close_parts()

    def forget(self, saved: Offset) -> None:
        """Delete the oldest messages that a saved state no longer needs, as the configuration says."""
        self._spool.trim(saved, time.time_ns(), self.config.spool_days, self.config.spool_mb << 20)

    def _report_refusals(self, events: Tail) -> None:
        for line in events.read_lines():
            if _REFUSED_EVENT not in line:
                continue
            fields = dict(
                field.split(b"=", 1) for field in line.split(_REFUSED_EVENT)[1].split(b"\x01") if b"=" in field
            )
            parties = " to ".join(fields.get(tag, b"nobody").decode("utf-8", "replace") for tag in (b"49", b"56"))
            if parties not in self._refused_parties:
                self._refused_parties.add(parties)
                right = f"{self.config.target} to {self.config.sender}"
                self.notices.append(f"{self.url}: a Logon from {parties} was refused; expected is one from {right}")


class _Address(msgspec.Struct, frozen=True):
    """The address in a URL, whether we listen there, and whether the session is over TLS."""

    host: str
    port: int
    listens: bool
    is_tls: bool


def _parse_address(url: str) -> _Address:
    """Return the address in a URL. Raises `SourceError`."""
    parts = urlsplit(url)
    listens, is_tls = _SCHEMES[parts.scheme]
    try:
        port = parts.port
    except ValueError:
        port = None
    host = parts.hostname or ""
    if not port or parts.path.strip("/") or not host:
        secure = "s" if is_tls else ""
        raise SourceError(
            f"{url}: it should be fix{secure}://HOST:PORT or fix{secure}-listen://ADDRESS:PORT, with the address "
            f"0.0.0.0 for every interface"
        )
    return _Address(host, port, listens, is_tls)


def _listen_for_relay(address: _Address) -> socket.socket:
    """Return the socket at which the relay listens: for the counterparty, or for our engine over loopback."""
    if address.listens:
        return listen(address.host, address.port)
    return listen(LOOPBACK, 0)


def _engine_settings(config: FixConfig, host: str, port: int, directory: Path) -> Any:
    """Return the settings of the engine, without a dictionary: a venue's extra fields are not rejected."""
    options: dict[str, Any] = {"StartTime": config.start, "EndTime": config.end}
    if config.version == "5.0":
        options["DefaultApplVerID"] = "FIX.5.0"
    if not host:
        options["FileLogPath"] = directory / "events"
    session = SessionSetting(
        sender=config.sender,
        target=config.target,
        host=host,
        port=port,
        begin=_VERSIONS[config.version],
        options=config.settings,
    )
    return make_settings(
        [session], directory / "session", heartbeat_s=config.heartbeat_s, options={**options, **config.settings}
    )


def _check_engine_settings(engine: Any, arguments: tuple[Any, ...]) -> str:
    """Return why QuickFIX rejects these settings; empty when it accepts them.

    QuickFIX ends the process on a value that it cannot parse, so a child process tries the settings first.
    """
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write_fd, 2)
        faulthandler.disable()  # the child process may end here
        try:
            engine(*arguments)
            os._exit(0)
        except BaseException as problem:
            os.write(2, f"what(): {problem}".encode())
            os._exit(1)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        output = pipe.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if not status:
        return ""
    reason = re.search(r"what\(\):\s*(.+)", output)
    return reason[1].strip() if reason else "one of its settings cannot be read"


def _prepare_event_log(directory: Path, config: FixConfig) -> Tail:
    """Prepare the engine's log folder so that it keeps only events: the spool already has the messages."""
    make_private_directory(directory)
    for prefix in ("GLOBAL", f"{_VERSIONS[config.version]}-{config.sender}-{config.target}"):
        unused = directory / f"{prefix}.messages.current.log"
        if not unused.is_symlink():
            unused.symlink_to(os.devnull)
    events = directory / "GLOBAL.event.current.log"
    events.unlink(missing_ok=True)
    return Tail(events)


class _SpoolingApplication(FixApplication):
    """Stores every received message before the engine counts it, and reports how the session goes.

    The engine calls it from its own threads. `has_answered` is set after the first answer; `message_arrived` is set
    when a message arrives.
    """

    def __init__(self, spool: Spool, config: FixConfig, notify: Callable[[str], None]) -> None:
        self._spool, self._config, self._notify = spool, config, notify
        self.has_answered, self.message_arrived = False, threading.Event()
        self._is_logged_on, self._was_logged_on, self._last_notice = False, False, ""

    def on_logon(self, name: SessionName) -> None:
        """Report a logon that follows a notice."""
        if self._last_notice:
            self._notify("logged on again" if self._was_logged_on else "logged on")
        self._is_logged_on, self._was_logged_on, self._last_notice = True, True, ""

    def on_logout(self, name: SessionName, reason: str) -> None:
        """Report why there is no session, once for each reason."""
        self.has_answered = True
        if self._is_logged_on:
            notice = "the session has ended" + (f": {reason}" if reason else "")
        elif reason:
            notice = f"no session: {reason}"
        elif self._last_notice:
            return  # already reported, and no new reason since
        else:
            notice = (
                f"nobody answers the Logon of {name[0]}: nobody is at the address, or another "
                f"SenderCompID (49) or TargetCompID (56) is expected there"
            )
        self._is_logged_on = False
        if notice != self._last_notice:
            self._last_notice = notice
            self._notify(f"{notice}; trying until it can be opened")

    def add_credentials(self, name: SessionName, message: Any) -> None:
        """Add user and password to our Logon."""
        if self._config.username:
            message.setField(tags.USERNAME, self._config.username)
        if self._config.password_env:
            message.setField(tags.PASSWORD, os.environ[self._config.password_env])

    def on_admin_message(self, name: SessionName, text: str) -> None:
        """Store a session message."""
        self.has_answered = True
        self._store(text)

    def on_message(self, name: SessionName, text: str) -> None:
        """Store an application message."""
        self._store(text)

    def _store(self, text: str) -> None:
        self._spool.append(text.encode("utf-8", "surrogateescape"))
        self.message_arrived.set()
