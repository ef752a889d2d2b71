"""Somebody else's FIX acceptor, built of QuickFIX alone: `python -m tests.real.fix_executor PORT STORE DICT`.

In the spirit of the library's own executor: it fills every order at once and whole, at its limit, and answers nothing
else; asked for market data it tells one price that never moves. It says on standard output what it fills.
"""

from __future__ import annotations

import sys
from typing import Any

import quickfix


class Executor(quickfix.Application):
    """Fills."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def onCreate(self, session: Any) -> None:
        """Nothing."""

    def onLogon(self, session: Any) -> None:
        """Somebody is there."""
        print(f"logon {session.getTargetCompID().getString()}", flush=True)

    def onLogout(self, session: Any) -> None:
        """Nothing."""

    def toAdmin(self, message: Any, session: Any) -> None:
        """Nothing."""

    def toApp(self, message: Any, session: Any) -> None:
        """Nothing."""

    def fromAdmin(self, message: Any, session: Any) -> None:
        """Nothing."""

    def fromApp(self, message: Any, session: Any) -> None:
        """An order is filled, a subscription answered, anything else not supported."""
        kind = message.getHeader().getField(35)
        if kind == "V":
            snapshot = quickfix.Message()
            snapshot.getHeader().setField(35, "W")
            snapshot.setField(262, message.getField(262))
            snapshot.setField(55, "ACME")
            for entry, price in (("0", "100.00"), ("1", "100.02")):
                group = quickfix.Group(268, 269)
                group.setField(269, entry)
                group.setField(270, price)
                group.setField(271, "500")
                snapshot.addGroup(group)
            quickfix.Session.sendToTarget(snapshot, session)
            return
        if kind != "D":
            refused = quickfix.Message()
            refused.getHeader().setField(35, "j")
            refused.setField(45, message.getHeader().getField(34))
            refused.setField(372, kind)
            refused.setField(380, "3")
            quickfix.Session.sendToTarget(refused, session)
            return
        self.number += 1
        report = quickfix.Message()
        report.getHeader().setField(35, "8")
        quantity, price = message.getField(38), message.getField(44)
        for tag, value in (
            (37, f"X{self.number}"),
            (17, f"F{self.number}"),
            (150, "F"),
            (39, "2"),
            (11, message.getField(11)),
            (55, message.getField(55)),
            (54, message.getField(54)),
            (38, quantity),
            (32, quantity),
            (31, price),
            (151, "0"),
            (14, quantity),
            (6, price),
        ):
            report.setField(tag, value)
        quickfix.Session.sendToTarget(report, session)
        print(f"filled {message.getField(54)} {quantity} {price}", flush=True)


def main(port: str, store: str, dictionary: str) -> None:
    """Run until standard input ends."""
    lines = [
        "[DEFAULT]",
        "ConnectionType=acceptor",
        "BeginString=FIX.4.4",
        "SenderCompID=EXEC",
        "StartTime=00:00:00",
        "EndTime=00:00:00",
        f"DataDictionary={dictionary}",
        f"FileStorePath={store}",
        f"SocketAcceptPort={port}",
        "SocketReuseAddress=Y",
        "[SESSION]",
        "TargetCompID=DESK",
        "[SESSION]",
        "TargetCompID=DESK.FEED",
        "",
    ]
    settings = quickfix.SessionSettings()
    settings.setFromString("\n".join(lines))
    application, stores = Executor(), quickfix.FileStoreFactory(settings)
    engine = quickfix.SocketAcceptor(application, stores, settings)
    engine.start()
    print("ready", flush=True)
    sys.stdin.read()
    engine.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
