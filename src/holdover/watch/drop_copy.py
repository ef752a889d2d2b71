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
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from holdover.model import fix_tags as tags
from holdover.model.spelling import suggest_spelling
from holdover.runtime.config_file import read_config_file
from holdover.watch.source import Offset, SourceError
from holdover.watch.spool import Spool
from holdover.watch.tail import Tail

_VERSIONS: Final = {"4.2": "FIX.4.2", "4.4": "FIX.4.4", "5.0": "FIXT.1.1"}
_ANSWER_TIMEOUT_S: Final = 10.0
_ALL_INTERFACES: Final = ("0.0.0.0", "::", "")
_REFUSED_EVENT: Final = b"Session not found for incoming message: "
_RESERVED_SETTINGS: Final = frozenset(
    ("BeginString", "SenderCompID", "TargetCompID", "HeartBtInt", "StartTime", "EndTime")
)
_TimeOfDay = Annotated[str, msgspec.Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$")]


class FixConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table [fix]: the FIX version, both parties, and further session settings.

    `start` and `end` are the session's hours, UTC; if they are equal, the sequence numbers restart daily at that
    time. `settings` are additional QuickFIX settings by their QuickFIX names.
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

    @classmethod
    def load(cls, path: Path | None, **overrides: str | None) -> FixConfig:
        """Load the table of a TOML file; non-empty `overrides` replace its values. Raises `SourceError`."""
        name = path.name if path is not None else "the drop copy"
        config = cls()
        if path is not None:
            config = read_config_file(path, _DropCopyTables, SourceError, lambda file: None, other_tables=None).fix
        config = msgspec.structs.replace(config, **{key: value for key, value in overrides.items() if value})
        if config.version not in _VERSIONS:
            hint = suggest_spelling(config.version, _VERSIONS) or f"; there are {', '.join(_VERSIONS)}"
            raise SourceError(f"{name}: version {config.version} of FIX is not supported{hint}")
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
            import quickfix
        except ImportError as problem:
            raise SourceError("a FIX drop copy needs QuickFIX: pip install 'holdover[fix]'") from problem
        self.notices: list[str] = []
        self.url, self.config = url, config
        listens, host, port = _parse_address(url)
        self._spool = Spool(directory / "spool", offset)
        self._engine_notices: queue.SimpleQueue[str] = queue.SimpleQueue()
        settings = quickfix.SessionSettings()
        settings.setFromString(_quickfix_settings(config, listens, host, port, directory))
        self._refusals: Tail | None = None
        self._refused_parties: set[str] = set()
        store = quickfix.FileStoreFactory(settings)
        self._application = _make_application(quickfix, self._spool, config, self._engine_notices.put)
        if config.settings.get("ResetOnLogon") == "Y":
            self.notices.append(f"{url}: with ResetOnLogon what is sent while nobody watches cannot be had again")
        engine_arguments: tuple[Any, ...] = (self._application, store, settings)
        if listens:
            self._refusals = _prepare_event_log(directory / "events", config)
            engine_arguments += (quickfix.FileLogFactory(settings),)
        engine = quickfix.SocketAcceptor if listens else quickfix.SocketInitiator
        reason = _check_engine_settings(engine, engine_arguments)
        try:
            if not reason:
                self._engine: Any = engine(*engine_arguments)
                self._engine.start()
        except (quickfix.ConfigError, quickfix.RuntimeError) as problem:
            reason = str(problem)
        if reason:
            self._spool.close()
            raise SourceError(f"{url}: the FIX engine does not start: {reason}")
        self._silent_since_s = float("inf") if listens else time.monotonic()

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
        if self._application.has_answered:
            self._silent_since_s = float("inf")
        elif time.monotonic() - self._silent_since_s > _ANSWER_TIMEOUT_S:
            self._silent_since_s = float("inf")
            self.notices.append(
                f"{self.url}: nobody has answered for {_ANSWER_TIMEOUT_S:.0f} seconds; trying until somebody does"
            )
        return self._spool.read_lines(count_max)

    def wait(self, seconds: float) -> None:
        """Wait until a message arrives, at most `seconds`."""
        self._application.message_arrived.wait(seconds)
        self._application.message_arrived.clear()

    def close(self) -> None:
        """Log out and close the engine."""
        self._engine.stop()
        self._spool.close()
        if self._refusals is not None:
            self._refusals.close()

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


def _parse_address(url: str) -> tuple[bool, str, int]:
    """Return (whether it listens, host, port) of a URL. Raises `SourceError`."""
    parts = urlsplit(url)
    listens = parts.scheme == "fix-listen"
    try:
        port = parts.port
    except ValueError:
        port = None
    host = parts.hostname or ""
    if not port or parts.path.strip("/") or (not host and not listens):
        raise SourceError(f"{url}: it should be fix://HOST:PORT or fix-listen://0.0.0.0:PORT")
    if listens and host not in _ALL_INTERFACES:
        raise SourceError(f"{url}: QuickFIX listens on every interface; say fix-listen://0.0.0.0:{port} to allow that")
    return listens, host, port


def _quickfix_settings(config: FixConfig, listens: bool, host: str, port: int, directory: Path) -> str:
    """Return the session as QuickFIX settings, without a dictionary: a venue's extra fields are not rejected."""
    names = {
        "BeginString": _VERSIONS[config.version],
        "SenderCompID": config.sender,
        "TargetCompID": config.target,
    }
    session: dict[str, Any] = {
        "ConnectionType": "acceptor" if listens else "initiator",
        "HeartBtInt": config.heartbeat_s,
        "StartTime": config.start,
        "EndTime": config.end,
        "UseDataDictionary": "N",
        "CheckLatency": "N",
        "ReconnectInterval": 1,
        "FileStorePath": directory / "session",
    }
    if config.version == "5.0":
        session["DefaultApplVerID"] = "FIX.5.0"
    if listens:
        session |= {"SocketAcceptPort": port, "SocketReuseAddress": "Y", "FileLogPath": directory / "events"}
    else:
        session |= {"SocketConnectHost": host, "SocketConnectPort": port}
    session |= config.settings
    lines = ["[DEFAULT]", *(f"{name}={value}" for name, value in session.items())]
    lines += ["[SESSION]", *(f"{name}={value}" for name, value in names.items())]
    return "\n".join([*lines, ""])


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
    directory.mkdir(parents=True, exist_ok=True)
    for prefix in ("GLOBAL", f"{_VERSIONS[config.version]}-{config.sender}-{config.target}"):
        unused = directory / f"{prefix}.messages.current.log"
        if not unused.is_symlink():
            unused.symlink_to(os.devnull)
    events = directory / "GLOBAL.event.current.log"
    events.unlink(missing_ok=True)
    return Tail(events)


def _make_application(quickfix: Any, spool: Spool, config: FixConfig, notify: Any) -> Any:
    """Make the QuickFIX application, which the engine calls from its own threads.

    `has_answered` is set after the first answer; `message_arrived` is set when a message arrives.
    """

    class DropCopyApplication(quickfix.Application):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.has_answered, self.message_arrived = False, threading.Event()
            self._is_logged_on, self._was_logged_on, self._reason, self._last_notice = False, False, "", ""

        def onCreate(self, session: Any) -> None:
            pass

        def onLogon(self, session: Any) -> None:
            if self._last_notice:
                notify("logged on again" if self._was_logged_on else "logged on")
            self._is_logged_on, self._was_logged_on, self._reason, self._last_notice = True, True, "", ""

        def onLogout(self, session: Any) -> None:
            self.has_answered = True
            if self._is_logged_on:
                notice = "the session has ended" + (f": {self._reason}" if self._reason else "")
            elif self._reason:
                notice = f"no session: {self._reason}"
            elif self._last_notice:
                return  # already reported, and no new reason since
            else:
                notice = (
                    f"nobody answers the Logon of {config.sender}: nobody is at the address, or another "
                    f"SenderCompID (49) or TargetCompID (56) is expected there"
                )
            self._is_logged_on, self._reason = False, ""
            if notice != self._last_notice:
                self._last_notice = notice
                notify(f"{notice}; trying until it can be opened")

        def toAdmin(self, message: Any, session: Any) -> None:
            kind = message.getHeader().getField(tags.MSG_TYPE)
            if kind == "A" and config.username:
                message.setField(tags.USERNAME, config.username)
            if kind == "A" and config.password_env:
                message.setField(tags.PASSWORD, os.environ[config.password_env])
            if kind in ("3", "5") and message.isSetField(tags.TEXT):
                self._reason = f"{config.sender} said {message.getField(tags.TEXT)}"

        def toApp(self, message: Any, session: Any) -> None:
            pass

        def fromAdmin(self, message: Any, session: Any) -> None:
            self.has_answered = True
            if message.getHeader().getField(tags.MSG_TYPE) in ("3", "5") and message.isSetField(tags.TEXT):
                self._reason = f"{config.target} said {message.getField(tags.TEXT)}"
            self._spool_message(message)

        def fromApp(self, message: Any, session: Any) -> None:
            self._spool_message(message)

        def _spool_message(self, message: Any) -> None:
            try:
                spool.append(message.toString().encode("utf-8", "surrogateescape"))
            except BaseException as problem:
                # The engine would count a message that is not stored: end the process, so that it asks again.
                print(f"holdover: a message could not be kept: {problem}", file=sys.stderr, flush=True)
                os._exit(2)
            self.message_arrived.set()

    return DropCopyApplication()
