"""A FIX drop copy session: a QuickFIX engine takes what the venue sends, the watch judges it as the audit of a log.

The engine keeps the session: Logon, Heartbeats, sequence numbers on the disk, a ResendRequest for what was missed.
Each message that it takes, in its order, is synced into a spool before the engine counts it, and judged from there.
After a kill the engine is where the spool is or one message behind; what it asks for again comes with PossDupFlag and
is judged once. Only what was received is spooled: of the session's own order the engine is the judge.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import re
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

from holdover.watch.source import BadSource, Place
from holdover.watch.spool import Spool
from holdover.watch.tail import Tail

_VERSIONS: Final = {"4.2": "FIX.4.2", "4.4": "FIX.4.4", "5.0": "FIXT.1.1"}
_SILENT_S: Final = 10.0
_EVERYWHERE: Final = ("0.0.0.0", "::", "")
_REFUSED: Final = b"Session not found for incoming message: "
_OWN: Final = frozenset(("BeginString", "SenderCompID", "TargetCompID", "HeartBtInt", "StartTime", "EndTime"))
_Clock = Annotated[str, msgspec.Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$")]


class FixConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The [fix] table: version of FIX, who is who, and what the session needs beside that.

    `start` and `end` are the session's hours, UTC; where they are equal its numbers begin anew at that time each day.
    `settings` are any others of QuickFIX's, by their names there.
    """

    version: str = "4.4"
    sender: str = ""
    target: str = ""
    heartbeat_s: Annotated[int, msgspec.Meta(gt=0)] = 30
    start: _Clock = "00:00:00"
    end: _Clock = "00:00:00"
    username: str = ""
    password_env: str = ""
    settings: dict[str, str] = {}

    @classmethod
    def of(cls, path: Path | None, **said: str | None) -> FixConfig:
        """The table of a TOML file, with what was `said` beside it. Raises `BadSource`."""
        name = path.name if path is not None else "the drop copy"
        try:
            told = tomllib.loads(path.read_text(encoding="utf-8")).get("fix", {}) if path is not None else {}
            found = msgspec.convert({**told, **{key: one for key, one in said.items() if one}}, cls)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as problem:
            raise BadSource(f"{name}: not a TOML file with a table [fix]: {problem}") from problem
        except msgspec.ValidationError as problem:
            raise BadSource(f"{name}: [fix] {problem}") from problem
        if found.version not in _VERSIONS:
            raise BadSource(f"{name}: version {found.version} of FIX is none of {', '.join(_VERSIONS)}")
        if not found.sender or not found.target:
            raise BadSource(f"{name}: needs SenderCompID and TargetCompID: --sender and --target, or [fix] in the file")
        for setting in sorted(_OWN & found.settings.keys()):
            raise BadSource(f"{name}: [fix.settings] {setting} has a name of its own in [fix]")
        if found.password_env and found.password_env not in os.environ:
            raise BadSource(f"{name}: [fix] password_env: the environment does not set {found.password_env}")
        return found


class DropCopy:
    """One session over TCP and what came through it, in `directory`. Raises `BadSource` for what cannot be opened."""

    def __init__(self, url: str, config: FixConfig, directory: Path, place: Place | None = None) -> None:
        try:
            import quickfix
        except ImportError as problem:
            raise BadSource("a FIX drop copy needs QuickFIX: pip install 'holdover[fix]'") from problem
        self.told: list[str] = []
        self.url, self.config = url, config
        listens, host, port = _address(url)
        self._spool = Spool(directory / "spool", place)
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        settings = quickfix.SessionSettings()
        settings.setFromString(_settings(config, listens, host, port, directory))
        self._refusals: Tail | None = None
        self._refused: set[str] = set()
        store = quickfix.FileStoreFactory(settings)
        self._application = _application(quickfix, self._spool, config, self._said.put)
        if config.settings.get("ResetOnLogon") == "Y":
            self.told.append(f"{url}: with ResetOnLogon what is sent while nobody watches cannot be had again")
        given: tuple[Any, ...] = (self._application, store, settings)
        if listens:
            self._refusals = _only_events(directory / "events", config)
            given += (quickfix.FileLogFactory(settings),)
        engine = quickfix.SocketAcceptor if listens else quickfix.SocketInitiator
        reason = _refused(engine, given)
        try:
            if not reason:
                self._engine: Any = engine(*given)
                self._engine.start()
        except (quickfix.ConfigError, quickfix.RuntimeError) as problem:
            reason = str(problem)
        if reason:
            self._spool.close()
            raise BadSource(f"{url}: the FIX engine does not start: {reason}")
        self._since = float("inf") if listens else time.monotonic()

    @property
    def place(self) -> Place:
        """After the last message given."""
        return self._spool.place

    @property
    def ended(self) -> bool:
        """A session has no end."""
        return False

    def lines(self, most: int = 5000) -> list[bytes]:
        """The messages that have come and have not been given yet, at most so many."""
        while not self._said.empty():
            self.told.append(f"{self.url}: {self._said.get()}")
        if self._refusals is not None:
            self._tell_refusals(self._refusals)
        if self._application.heard:
            self._since = float("inf")
        elif time.monotonic() - self._since > _SILENT_S:
            self._since = float("inf")
            self.told.append(f"{self.url}: nobody has answered for {_SILENT_S:.0f} seconds; trying until somebody does")
        return self._spool.lines(most)

    def wait(self, seconds: float) -> None:
        """Until a message comes, at most so long."""
        self._application.came.wait(seconds)
        self._application.came.clear()

    def close(self) -> None:
        """Log out and let go."""
        self._engine.stop()
        self._spool.close()
        if self._refusals is not None:
            self._refusals.close()

    def _tell_refusals(self, events: Tail) -> None:
        for line in events.lines():
            if _REFUSED not in line:
                continue
            fields = dict(one.split(b"=", 1) for one in line.split(_REFUSED)[1].split(b"\x01") if b"=" in one)
            who = " to ".join(fields.get(tag, b"nobody").decode("utf-8", "replace") for tag in (b"49", b"56"))
            if who not in self._refused:
                self._refused.add(who)
                right = f"{self.config.target} to {self.config.sender}"
                self.told.append(f"{self.url}: a Logon from {who} was refused; expected is one from {right}")


def _address(url: str) -> tuple[bool, str, int]:
    """(whether it listens, host, port). Raises `BadSource`."""
    parts = urlsplit(url)
    listens = parts.scheme == "fix-listen"
    try:
        port = parts.port
    except ValueError:
        port = None
    host = parts.hostname or ""
    if not port or parts.path.strip("/") or (not host and not listens):
        raise BadSource(f"{url}: it should be fix://HOST:PORT or fix-listen://0.0.0.0:PORT")
    if listens and host not in _EVERYWHERE:
        raise BadSource(f"{url}: QuickFIX listens on every interface; say fix-listen://0.0.0.0:{port} to allow that")
    return listens, host, port


def _settings(config: FixConfig, listens: bool, host: str, port: int, directory: Path) -> str:
    """The session in QuickFIX's own words, without a dictionary: a field that a venue adds is no reason to refuse."""
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


def _refused(engine: Any, given: tuple[Any, ...]) -> str:
    """Why QuickFIX does not take these settings; empty when it does.

    It ends the process over a value that it cannot read, so another one is asked first.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 2)
        faulthandler.disable()  # that it may end here is what the child is for
        try:
            engine(*given)
            os._exit(0)
        except BaseException as problem:
            os.write(2, f"what(): {problem}".encode())
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        said = told.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if not status:
        return ""
    reason = re.search(r"what\(\):\s*(.+)", said)
    return reason[1].strip() if reason else "one of its settings cannot be read"


def _only_events(directory: Path, config: FixConfig) -> Tail:
    """A folder for the engine's log in which only its events are kept: the messages are in the spool already."""
    directory.mkdir(parents=True, exist_ok=True)
    for one in ("GLOBAL", f"{_VERSIONS[config.version]}-{config.sender}-{config.target}"):
        unused = directory / f"{one}.messages.current.log"
        if not unused.is_symlink():
            unused.symlink_to(os.devnull)
    events = directory / "GLOBAL.event.current.log"
    events.unlink(missing_ok=True)
    return Tail(events)


def _application(quickfix: Any, spool: Spool, config: FixConfig, say: Any) -> Any:
    """What the engine calls, from threads of its own. `heard` once anybody has answered, `came` when a message came."""

    class Received(quickfix.Application):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.heard, self.came = False, threading.Event()
            self._on, self._was_on, self._reason, self._last = False, False, "", ""

        def onCreate(self, session: Any) -> None:
            pass

        def onLogon(self, session: Any) -> None:
            if self._last:
                say("logged on again" if self._was_on else "logged on")
            self._on, self._was_on, self._reason, self._last = True, True, "", ""

        def onLogout(self, session: Any) -> None:
            self.heard = True
            if self._on:
                told = "the session has ended" + (f": {self._reason}" if self._reason else "")
            elif self._reason:
                told = f"no session: {self._reason}"
            elif self._last:
                return  # said already, and no reason has been given since
            else:
                told = (
                    f"nobody answers the Logon of {config.sender}: nobody is at the address, or another "
                    f"SenderCompID (49) or TargetCompID (56) is expected there"
                )
            self._on, self._reason = False, ""
            if told != self._last:
                self._last = told
                say(f"{told}; trying until it can be opened")

        def toAdmin(self, message: Any, session: Any) -> None:
            kind = message.getHeader().getField(35)
            if kind == "A" and config.username:
                message.setField(553, config.username)
            if kind == "A" and config.password_env:
                message.setField(554, os.environ[config.password_env])
            if kind in ("3", "5") and message.isSetField(58):
                self._reason = f"{config.sender} said {message.getField(58)}"

        def toApp(self, message: Any, session: Any) -> None:
            pass

        def fromAdmin(self, message: Any, session: Any) -> None:
            self.heard = True
            if message.getHeader().getField(35) in ("3", "5") and message.isSetField(58):
                self._reason = f"{config.target} said {message.getField(58)}"
            self._keep(message)

        def fromApp(self, message: Any, session: Any) -> None:
            self._keep(message)

        def _keep(self, message: Any) -> None:
            try:
                spool.append(message.toString().encode("utf-8", "surrogateescape"))
            except BaseException as problem:
                # The engine would count a message that nobody has: there is no way on but to ask for it again.
                print(f"holdover: a message could not be kept: {problem}", file=sys.stderr, flush=True)
                os._exit(2)
            self.came.set()

    return Received()
