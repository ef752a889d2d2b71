"""Sessions of QuickFIX: their settings, the dictionary, and an application that passes on what the engine calls."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

BEGIN: Final = "FIX.4.4"
Name = tuple[str, str]
"""Our CompID and theirs."""


class NoEngine(RuntimeError):
    """QuickFIX is not installed, or does not start; the message says why."""


def engine() -> Any:
    """QuickFIX. Raises `NoEngine`."""
    try:
        import quickfix
    except ImportError as problem:
        raise NoEngine("FIX needs QuickFIX: pip install 'holdover[fix]'") from problem
    return quickfix


def dictionary() -> Path | None:
    """The data dictionary of FIX 4.4 that comes with QuickFIX, None where its wheel has none."""
    for package in ("quickfix-ssl", "quickfix"):
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for one in files:
            path = Path(str(one.locate()))
            if one.name == "FIX44.xml" and path.exists():
                return path.resolve()
    return None


class SessionSetting(msgspec.Struct, frozen=True, kw_only=True):
    """One session: who we are, who they are, where, and any settings of QuickFIX's beside that."""

    sender: str
    target: str
    port: int
    host: str = ""
    more: Mapping[str, str] = {}


def settings(sessions: Iterable[SessionSetting], directory: Path, *, heartbeat_s: int) -> Any:
    """The settings of an engine whose sessions keep their numbers in `directory`."""
    quickfix = engine()
    sessions = list(sessions)
    listens = not any(one.host for one in sessions)
    shared: dict[str, Any] = {
        "ConnectionType": "acceptor" if listens else "initiator",
        "StartTime": "00:00:00",
        "EndTime": "00:00:00",
        "HeartBtInt": heartbeat_s,
        "ReconnectInterval": 1,
        "LogonTimeout": 5,
        "LogoutTimeout": 2,
        "CheckLatency": "N",
        "TimestampPrecision": 9,
        "FileStorePath": directory,
        "SocketReuseAddress": "Y",
        "SocketNodelay": "Y",
        "UseDataDictionary": "N",
    }
    found = dictionary()
    if found is not None:
        # A field that a counterparty adds is no reason to refuse its message.
        shared |= {
            "UseDataDictionary": "Y",
            "DataDictionary": found,
            "ValidateUserDefinedFields": "N",
            "AllowUnknownMsgFields": "Y",
            "ValidateFieldsOutOfOrder": "N",
            "ValidateUnorderedGroupFields": "N",
        }
    lines = ["[DEFAULT]", *(f"{name}={value}" for name, value in shared.items())]
    for one in sessions:
        place = {"SocketAcceptPort": one.port}
        if not listens:
            place = {"SocketConnectPort": one.port}
            lines += ["[SESSION]", f"SocketConnectHost={one.host}"]
        else:
            lines.append("[SESSION]")
        own = {"BeginString": BEGIN, "SenderCompID": one.sender, "TargetCompID": one.target, **place, **one.more}
        lines += [f"{name}={value}" for name, value in own.items()]
    made = quickfix.SessionSettings()
    made.setFromString("\n".join([*lines, ""]))
    return made


class Heard:
    """What an application does when the engine calls; all of it on the engine's own thread, all of it optional."""

    def logged_on(self, name: Name) -> None:
        """A session is up."""

    def logged_out(self, name: Name, reason: str) -> None:
        """A session is down."""

    def logon(self, name: Name, message: Any) -> str:
        """A Logon of theirs has come: an empty string takes it, another is the Text with which it is refused."""
        return ""

    def logging_on(self, name: Name, message: Any) -> None:
        """Our Logon leaves: credentials may be added."""

    def admin(self, name: Name, text: str) -> None:
        """A message of the session itself has come."""

    def message(self, name: Name, text: str) -> None:
        """An application message has come. What is raised here ends the process: it would be counted and lost."""


def application(heard: Heard) -> Any:
    """The engine's application that passes all on to `heard`."""
    return _application(engine(), heard)


def _application(quickfix: Any, heard: Heard) -> Any:
    class Application(quickfix.Application):  # type: ignore[misc]
        # No exception may leave these: the library ends the process over one. So a Logon is refused by hand: our
        # answer to it becomes a Logout with the reason, and the connection is cut where the session would begin.

        def __init__(self) -> None:
            super().__init__()
            self._reasons: dict[Name, str] = {}
            self._refused: dict[Name, str] = {}

        def onCreate(self, session: Any) -> None:
            pass

        def onLogon(self, session: Any) -> None:
            name = _name(session)
            if name in self._refused:
                quickfix.Session.lookupSession(session).disconnect()
                return
            self._reasons.pop(name, None)
            _whole(heard.logged_on, name)

        def onLogout(self, session: Any) -> None:
            name = _name(session)
            if self._refused.pop(name, None) is None:
                _whole(heard.logged_out, name, self._reasons.pop(name, ""))

        def toAdmin(self, message: Any, session: Any) -> None:
            _whole(self._to_admin, message, _name(session))

        def _to_admin(self, message: Any, name: Name) -> None:
            kind = message.getHeader().getField(35)
            if kind == "A" and name in self._refused:
                message.getHeader().setField(35, "5")
                for tag in (98, 108, 141):
                    message.removeField(tag)
                message.setField(58, self._refused[name])
            elif kind == "A":
                heard.logging_on(name, message)
            elif kind == "5" and message.isSetField(58):
                self._reasons[name] = f"we said {message.getField(58)}"

        def toApp(self, message: Any, session: Any) -> None:
            pass

        def fromAdmin(self, message: Any, session: Any) -> None:
            _whole(self._from_admin, message, _name(session))

        def _from_admin(self, message: Any, name: Name) -> None:
            kind = message.getHeader().getField(35)
            if kind == "A":
                refused = heard.logon(name, message)
                if refused:
                    self._refused[name] = refused
                    return
            if kind == "5":
                told = message.getField(58) if message.isSetField(58) else "no reason given"
                self._reasons[name] = f"{name[1]} said {told}"
            heard.admin(name, message.toString())

        def fromApp(self, message: Any, session: Any) -> None:
            _whole(heard.message, _name(session), message.toString())

    return Application()


def _name(session: Any) -> Name:
    return session.getSenderCompID().getString(), session.getTargetCompID().getString()


def _whole(act: Any, *told: Any) -> None:
    """Do it, or end: the engine would count a message that nobody has, and there is no way on but to ask again."""
    try:
        act(*told)
    except BaseException as problem:
        import traceback

        if os.environ.get("HOLDOVER_DEBUG"):
            traceback.print_exc()
        print(f"holdover: a FIX message could not be taken: {problem}", file=sys.stderr, flush=True)
        os._exit(2)
