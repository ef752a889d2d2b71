"""A venue's drop copy side, built of QuickFIX, as a process: `python -m tests.real.fix_venue PORT STORE VERSION KIND`.

It sends what it is told on standard input, one JSON list of [tag, value] a line, and says on standard output what
becomes of its session: logon, logout, resend.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from typing import Any

import quickfix

VERSIONS = {"4.2": "FIX.4.2", "4.4": "FIX.4.4", "5.0": "FIXT.1.1"}


def print_line(line: str) -> None:
    """One line in one write: the engine's threads speak, too."""
    os.write(1, f"{line}\n".encode())


class Venue(quickfix.Application):
    """Says what happens."""

    def onCreate(self, session: Any) -> None:
        """There is one session."""
        self.session = session

    def onLogon(self, session: Any) -> None:
        """Somebody has logged on."""
        print_line("logon")

    def onLogout(self, session: Any) -> None:
        """Somebody is gone."""
        print_line("logout")

    def toAdmin(self, message: Any, session: Any) -> None:
        """Nothing to add."""

    def toApp(self, message: Any, session: Any) -> None:
        """Something is sent again when it has PossDupFlag."""
        if message.getHeader().isSetField(43):
            print_line("again")

    def fromAdmin(self, message: Any, session: Any) -> None:
        """A ResendRequest is told, with what it asks from, and a Logon's user."""
        kind = message.getHeader().getField(35)
        if kind == "2":
            print_line(f"resend {message.getField(7)}")
        if kind == "A" and message.isSetField(554):
            print_line(f"user {message.getField(553)} {message.getField(554)}")

    def fromApp(self, message: Any, session: Any) -> None:
        """A drop copy takes nothing."""


def main(port: str, store: str, version: str, kind: str) -> None:
    """Run until standard input ends."""
    options = {
        "ConnectionType": kind,
        "BeginString": VERSIONS[version],
        "SenderCompID": "VENUE",
        "TargetCompID": "WATCH",
        "StartTime": "00:00:00",
        "EndTime": "00:00:00",
        "UseDataDictionary": "N",
        "HeartBtInt": "30",
        "FileStorePath": store,
        "SocketReuseAddress": "Y",
        "SocketAcceptPort": port,
        "SocketConnectHost": "127.0.0.1",
        "SocketConnectPort": port,
    }
    if version == "5.0":
        options["DefaultApplVerID"] = "FIX.5.0"
    settings = quickfix.SessionSettings()
    # How soon to call again is read of the defaults only.
    default = "[DEFAULT]\nReconnectInterval=1\n[SESSION]\n"
    settings.setFromString(default + "".join(f"{name}={value}\n" for name, value in options.items()))
    venue, stores = Venue(), quickfix.FileStoreFactory(settings)
    engine_class = quickfix.SocketAcceptor if kind == "acceptor" else quickfix.SocketInitiator
    engine = engine_class(venue, stores, settings)
    engine.start()
    print_line("ready")
    for line in sys.stdin:
        message = quickfix.Message()
        for tag, value in json.loads(line):
            (message.getHeader() if tag == 35 else message).setField(tag, str(value))
        faulthandler.dump_traceback_later(30)  # where it hangs, if it ever does
        quickfix.Session.sendToTarget(message, venue.session)
        print_line("sent")
        faulthandler.cancel_dump_traceback_later()
    engine.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
