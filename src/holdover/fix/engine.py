"""QuickFIX sessions: settings, the data dictionary, and an application that forwards the engine's calls."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.model import fix_tags as tags

BEGIN: Final = "FIX.4.4"
REJECT, SEQUENCE_RESET, LOGOUT, LOGON = "3", "4", "5", "A"
"""MsgType (35) of the messages of a session."""

SessionName = tuple[str, str]
"""Our CompID and the counterparty's."""


class FixEngineError(RuntimeError):
    """QuickFIX is not installed or does not start; the message says why."""


def import_quickfix() -> Any:
    """Returns the module `quickfix`. Raises `FixEngineError` when it is not installed."""
    try:
        import quickfix
    except ImportError as problem:
        raise FixEngineError("FIX needs QuickFIX: pip install 'holdover[fix]'") from problem
    return quickfix


def find_dictionary() -> Path | None:
    """Returns the FIX 4.4 data dictionary that comes with QuickFIX; None when its wheel has none."""
    for package in ("quickfix-ssl", "quickfix"):
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate()))
            if file.name == "FIX44.xml" and path.exists():
                return path.resolve()
    return None


class SessionSetting(msgspec.Struct, frozen=True, kw_only=True):
    """One session: FIX version, both CompIDs, host (empty to listen) and port, and further QuickFIX options."""

    sender: str
    target: str
    port: int
    host: str = ""
    begin: str = BEGIN
    options: Mapping[str, str] = {}


def make_settings(
    sessions: Iterable[SessionSetting], directory: Path, *, heartbeat_s: int, options: Mapping[str, Any] | None = None
) -> Any:
    """Return the settings of an engine.

    Args:
        sessions: its sessions; either all of them listen, or none does.
        directory: where the sessions keep their sequence numbers.
        heartbeat_s: HeartBtInt (108).
        options: further options of all sessions, by their QuickFIX names; default: `strict_options()`.
    """
    quickfix = import_quickfix()
    sessions = list(sessions)
    is_acceptor = not any(session.host for session in sessions)
    shared: dict[str, Any] = {
        "ConnectionType": "acceptor" if is_acceptor else "initiator",
        "StartTime": "00:00:00",
        "EndTime": "00:00:00",
        "HeartBtInt": heartbeat_s,
        "ReconnectInterval": 1,
        "CheckLatency": "N",
        "FileStorePath": directory,
        "SocketReuseAddress": "Y",
        "UseDataDictionary": "N",
        **(strict_options() if options is None else options),
    }
    lines = ["[DEFAULT]", *(f"{name}={value}" for name, value in shared.items())]
    for session in sessions:
        address: dict[str, Any] = {"SocketAcceptPort": session.port}
        if not is_acceptor:
            address = {"SocketConnectHost": session.host, "SocketConnectPort": session.port}
        values = {
            "BeginString": session.begin,
            "SenderCompID": session.sender,
            "TargetCompID": session.target,
            **address,
            **session.options,
        }
        lines += ["[SESSION]", *(f"{name}={value}" for name, value in values.items())]
    session_settings = quickfix.SessionSettings()
    session_settings.setFromString("\n".join([*lines, ""]))
    return session_settings


def strict_options() -> dict[str, Any]:
    """Return the options of a session between two of our own ends: nanoseconds, short timeouts, a data dictionary."""
    options: dict[str, Any] = {
        "LogonTimeout": 5,
        "LogoutTimeout": 2,
        "TimestampPrecision": 9,
        "SocketNodelay": "Y",
    }
    dictionary_path = find_dictionary()
    if dictionary_path is not None:
        # An extra field of a counterparty is no reason to reject its message.
        options |= {
            "UseDataDictionary": "Y",
            "DataDictionary": dictionary_path,
            "ValidateUserDefinedFields": "N",
            "AllowUnknownMsgFields": "Y",
            "ValidateFieldsOutOfOrder": "N",
            "ValidateUnorderedGroupFields": "N",
        }
    return options


class FixApplication:
    """The callbacks of an application; all are called on the engine's thread, and all are optional."""

    def on_logon(self, name: SessionName) -> None:
        """A session is up."""

    def on_logout(self, name: SessionName, reason: str) -> None:
        """A session is down."""

    def check_logon(self, name: SessionName, message: Any) -> str:
        """Check a received Logon. Returns an empty string to accept it, or the Text of the refusal."""
        return ""

    def add_credentials(self, name: SessionName, message: Any) -> None:
        """Add credentials to our Logon before it is sent."""

    def on_admin_message(self, name: SessionName, text: str) -> None:
        """A session message has arrived."""

    def on_message(self, name: SessionName, text: str) -> None:
        """An application message has arrived. An exception ends the process: the message would be counted and lost."""


def make_engine_application(handler: FixApplication) -> Any:
    """Returns the engine's application, which forwards all calls to `handler`."""
    return _make_engine_application(import_quickfix(), handler)


def _make_engine_application(quickfix: Any, handler: FixApplication) -> Any:
    class Application(quickfix.Application):  # type: ignore[misc]
        # No exception may leave these: the library would end the process. So a Logon is refused manually: our answer
        # becomes a Logout with the reason, and the connection is closed where the session would begin.

        def __init__(self) -> None:
            super().__init__()
            self._reasons: dict[SessionName, str] = {}
            self._refused: dict[SessionName, str] = {}

        def onCreate(self, session: Any) -> None:
            pass

        def onLogon(self, session: Any) -> None:
            name = _session_name(session)
            if name in self._refused:
                quickfix.Session.lookupSession(session).disconnect()
                return
            self._reasons.pop(name, None)
            _call_or_exit(handler.on_logon, name)

        def onLogout(self, session: Any) -> None:
            name = _session_name(session)
            if self._refused.pop(name, None) is None:
                _call_or_exit(handler.on_logout, name, self._reasons.pop(name, ""))

        def toAdmin(self, message: Any, session: Any) -> None:
            _call_or_exit(self._to_admin, message, _session_name(session))

        def _to_admin(self, message: Any, name: SessionName) -> None:
            kind = message.getHeader().getField(tags.MSG_TYPE)
            if kind == LOGON and name in self._refused:
                _turn_into_logout(message, self._refused[name])
            elif kind == LOGON:
                handler.add_credentials(name, message)
            elif kind in (REJECT, LOGOUT) and message.isSetField(tags.TEXT):
                self._reasons[name] = f"{name[0]} said {message.getField(tags.TEXT)}"

        def toApp(self, message: Any, session: Any) -> None:
            pass

        def fromAdmin(self, message: Any, session: Any) -> None:
            _call_or_exit(self._from_admin, message, _session_name(session))

        def _from_admin(self, message: Any, name: SessionName) -> None:
            kind = message.getHeader().getField(tags.MSG_TYPE)
            if kind == LOGON and (refused := handler.check_logon(name, message)):
                self._refused[name] = refused
                return
            if kind in (REJECT, LOGOUT) and message.isSetField(tags.TEXT):
                self._reasons[name] = f"{name[1]} said {message.getField(tags.TEXT)}"
            elif kind == LOGOUT:
                self._reasons.setdefault(name, f"{name[1]} logged out")
            handler.on_admin_message(name, message.toString())

        def fromApp(self, message: Any, session: Any) -> None:
            _call_or_exit(handler.on_message, _session_name(session), message.toString())

    return Application()


def _turn_into_logout(logon: Any, reason: str) -> None:
    logon.getHeader().setField(tags.MSG_TYPE, LOGOUT)
    for tag in (tags.ENCRYPT_METHOD, tags.HEART_BT_INT, tags.RESET_SEQ_NUM_FLAG):
        logon.removeField(tag)
    logon.setField(tags.TEXT, reason)


def _session_name(session: Any) -> SessionName:
    return session.getSenderCompID().getString(), session.getTargetCompID().getString()


def _call_or_exit(function: Any, *args: Any) -> None:
    """Call the function, or end the process on an exception: the engine would count a message that was never
    applied.
    """
    try:
        function(*args)
    except BaseException as problem:
        import traceback

        if os.environ.get("HOLDOVER_TRACEBACK"):
            traceback.print_exc()
        print(f"holdover: a FIX message could not be processed: {problem}", file=sys.stderr, flush=True)
        os._exit(2)
