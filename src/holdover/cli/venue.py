"""`holdover venue serve`: the simulated venue behind FIX 4.4."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from holdover.cli.commands import add_command, add_subcommands, add_verb
from holdover.recording import RecordingStore, bundled_store


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    example = "holdover venue serve --instrument ACME --day 2024-11-29"
    exits = {0: "stopped"}
    venue = add_verb(verbs, "venue", example, exits)
    serve = add_command(
        add_subcommands(venue, "act"),
        "serve",
        "Serve a recorded day over FIX 4.4 until stopped.",
        example,
        exits,
        details="A FIX 4.4 acceptor that fills orders from a recorded day. Its clock begins half a minute before the "
        "open. It listens at loopback; --host opens it to a network.",
        run=run,
    )
    serve.add_argument(
        "--recordings", default="bundled", metavar="DIR", help="a folder of recordings (default: the bundled ones)"
    )
    serve.add_argument(
        "--instrument", action="append", required=True, metavar="SYM", help="an instrument to trade; may be repeated"
    )
    serve.add_argument("--day", required=True, metavar="DAY", help="the recorded day, YYYY-MM-DD")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="the IPv4 address to listen at (default 127.0.0.1); 0.0.0.0 is every network interface",
    )
    serve.add_argument("--port", type=_parse_port, default=9880, metavar="PORT", help="the port (default 9880)")
    serve.add_argument(
        "--accelerate",
        type=_parse_factor,
        default=1.0,
        metavar="N",
        help="seconds of the recorded day per second (default 1)",
    )
    serve.add_argument("--real", action="store_true", help="use the host's clock, for a recording of today")
    serve.add_argument(
        "--state", type=Path, metavar="DIR", help="keep the state here, and continue from it after a kill"
    )
    serve.add_argument(
        "--after", type=Path, metavar="DIR", help="the --state of the day before: start from its end of day"
    )
    _add_session_options(serve)


def _add_session_options(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--name", default="VENUE", metavar="ID", help="the CompID of the venue (default VENUE)")
    serve.add_argument(
        "--client", action="append", metavar="ID", help="the CompID of a client; may be repeated (default DESK)"
    )
    serve.add_argument(
        "--user",
        action="append",
        default=[],
        metavar="CLIENT:USER:VARIABLE",
        help="the user of a client, and the environment variable that has the password; may be repeated",
    )
    serve.add_argument(
        "--drop-copy-port",
        type=_parse_port,
        default=0,
        metavar="PORT",
        help="also serve a drop copy of every report at this port",
    )
    serve.add_argument(
        "--drop-copy", default="DROP", metavar="ID", help="the CompID that receives the drop copy (default DROP)"
    )
    serve.add_argument("--wait", action="store_true", help="start the clock when the first client logs on")
    serve.add_argument(
        "--heartbeat", type=int, default=30, metavar="SECONDS", help="the heartbeat interval (default 30)"
    )


def _parse_port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port; it should be from 1 to 65535")
    return int(text)


def _parse_factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 100_000:
        raise argparse.ArgumentTypeError(f"{text} should be a number above 0 and at most 100000")
    return factor


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped; returns 0."""
    from holdover.adapters.fix.end_of_day import end_of_day_after
    from holdover.adapters.fix.venue import VenueConfig, VenueServer

    store = bundled_store() if arguments.recordings == "bundled" else RecordingStore(arguments.recordings)
    recordings = [store.get(symbol, arguments.day) for symbol in dict.fromkeys(arguments.instrument)]
    night = end_of_day_after(arguments.after, store).to_bytes() if arguments.after else b""
    with contextlib.ExitStack() as stack:
        directory = arguments.state or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = VenueServer(
            VenueConfig(
                directory=directory,
                port=arguments.port,
                host=arguments.host,
                name=arguments.name,
                clients=arguments.client or ["DESK"],
                users=_parse_users(arguments.user),
                accelerate=arguments.accelerate,
                uses_real_time=arguments.real,
                drop_copy=arguments.drop_copy,
                drop_copy_port=arguments.drop_copy_port,
                heartbeat_s=arguments.heartbeat,
                waits_for_logon=arguments.wait,
                end_of_day=night,
            ),
            recordings,
        )
        stopped = threading.Event()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, lambda *signal_arguments: stopped.set())
        server.start()
        stack.callback(server.stop)
        print(
            f"holdover: {arguments.name} serves {arguments.day} at port {arguments.port}", file=sys.stderr, flush=True
        )
        while not stopped.wait(0.5):
            pass
    return 0


def _parse_users(user_options: list[str]) -> dict[str, tuple[str, str]]:
    import os

    users = {}
    for option in user_options:
        client, _, rest = option.partition(":")
        user, _, variable = rest.partition(":")
        if not client or not user or variable not in os.environ:
            raise ValueError(f"--user {option} should be CLIENT:USER:VARIABLE, and the environment set VARIABLE")
        users[client] = (user, os.environ[variable])
    return users
