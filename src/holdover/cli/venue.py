"""`holdover venue serve`: our simulated venue behind FIX, for any client of FIX 4.4."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from holdover.recording import RecordingStore, bundled


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    venue = verbs.add_parser("venue", help="our simulated venue behind FIX, for any client of FIX 4.4")
    acts = venue.add_subparsers(dest="act", metavar="ACT", required=True)
    serve = acts.add_parser(
        "serve",
        help="serve a recorded day until it is stopped",
        description="A FIX 4.4 acceptor that fills orders from a recorded day. Its clock begins half a minute before "
        "the open. It listens on every interface: let a firewall say who may call.",
    )
    serve.add_argument("--recordings", default="bundled", metavar="DIR", help="a folder of recordings, or bundled")
    serve.add_argument("--instrument", action="append", required=True, metavar="SYMBOL", help="may be said repeatedly")
    serve.add_argument("--day", required=True, metavar="DATE")
    serve.add_argument("--port", type=_port, default=9880)
    serve.add_argument("--accelerate", type=_factor, default=1.0, metavar="N", help="seconds of the day in a second")
    serve.add_argument("--real", action="store_true", help="its time is the host's: for a day of today's date")
    serve.add_argument("--state", type=Path, metavar="DIR", help="kept here, and taken up again after a kill")
    serve.add_argument("--after", type=Path, metavar="DIR", help="the --state of the day before: begin with its night")
    serve.add_argument("--name", default="VENUE", metavar="ID", help="its CompID")
    serve.add_argument("--client", action="append", metavar="ID", help="a client's CompID, repeatedly; else DESK")
    serve.add_argument(
        "--user", action="append", default=[], metavar="CLIENT:USER:VARIABLE", help="and its password's variable"
    )
    serve.add_argument("--drop-copy-port", type=_port, default=0, metavar="PORT", help="every report of every account")
    serve.add_argument("--drop-copy", default="DROP", metavar="ID", help="the CompID that takes the drop copy")
    serve.add_argument("--wait", action="store_true", help="its clock stands until somebody has logged on")
    serve.add_argument("--heartbeat", type=int, default=30, metavar="SECONDS")
    serve.set_defaults(run=run)


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port; it should be from 1 to 65535")
    return int(text)


def _factor(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 100_000:
        raise argparse.ArgumentTypeError(f"{text} should be a number above 0 and at most 100000")
    return found


def run(arguments: argparse.Namespace) -> int:
    """Serve; 0 when it was stopped."""
    from holdover.adapters.fix.night import night_after
    from holdover.adapters.fix.venue import VenueConfig, VenueServer

    store = bundled() if arguments.recordings == "bundled" else RecordingStore(arguments.recordings)
    recordings = [store.get(symbol, arguments.day) for symbol in dict.fromkeys(arguments.instrument)]
    night = night_after(arguments.after, store).encoded() if arguments.after else b""
    with contextlib.ExitStack() as stack:
        directory = arguments.state or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = VenueServer(
            VenueConfig(
                directory=directory,
                port=arguments.port,
                name=arguments.name,
                clients=arguments.client or ["DESK"],
                users=_users(arguments.user),
                accelerate=arguments.accelerate,
                real=arguments.real,
                drop_copy=arguments.drop_copy,
                drop_copy_port=arguments.drop_copy_port,
                heartbeat_s=arguments.heartbeat,
                waits=arguments.wait,
                night=night,
            ),
            recordings,
        )
        stopped = threading.Event()
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *told: stopped.set())
        server.start()
        stack.callback(server.stop)
        print(
            f"holdover: {arguments.name} serves {arguments.day} at port {arguments.port}", file=sys.stderr, flush=True
        )
        while not stopped.wait(0.5):
            pass
    return 0


def _users(told: list[str]) -> dict[str, tuple[str, str]]:
    import os

    found = {}
    for one in told:
        client, _, rest = one.partition(":")
        user, _, variable = rest.partition(":")
        if not client or not user or variable not in os.environ:
            raise ValueError(f"--user {one} should be CLIENT:USER:VARIABLE, and the environment set VARIABLE")
        found[client] = (user, os.environ[variable])
    return found
