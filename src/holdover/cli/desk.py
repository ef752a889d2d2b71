"""`holdover desk`: runs the reference desk live over FIX, and sends requests of its operator to it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from holdover.cli.commands import CommandParser, add_command, add_subcommands, add_verb
from holdover.cli.options import add_json_option


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    desk = add_verb(
        verbs,
        "desk",
        "holdover desk status --config desk.toml",
        {0: "done", 1: "not done, or a scope is frozen", 3: "no desk answers, or its store is lost"},
    )
    commands = add_subcommands(desk, "act")
    start = add_command(
        commands,
        "run",
        "Trade until stopped.",
        "holdover desk run --config desk.toml",
        {0: "stopped, and nothing is frozen", 1: "stopped, and a scope is frozen", 3: "its store is lost"},
        details="A daemon with one TOML file: the tables [desk], [fix] and [[strategy]], and those of a guard. It "
        "restores its state from its store and reconciles after each logon. A freeze outlives it.",
        run=run,
    )
    start.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration, TOML")
    start.add_argument(
        "--fault", default="", metavar="NAME", help="for a drill: enable a seeded fault; see `holdover faults`"
    )
    start.add_argument(
        "--fault-after",
        type=float,
        metavar="SECONDS",
        help="enable it so long after trading has begun; default: from the start",
    )
    submit = _add_request(
        commands, "submit", "Send a slice of a strategy now.", "submit accumulate 100 --config desk.toml"
    )
    submit.add_argument("strategy", metavar="STRATEGY", help="the name of the strategy in the configuration")
    submit.add_argument("quantity", metavar="QUANTITY", help="the quantity, as a decimal number")
    submit.add_argument(
        "--offset", type=int, default=0, metavar="N", help="price increments behind the best price (default 0)"
    )
    cancel = _add_request(commands, "cancel", "Cancel an order.", "cancel A1-17 --config desk.toml")
    cancel.add_argument("order", metavar="CLORDID", help="any ClOrdID of the order's replace chain")
    _add_request(
        commands,
        "status",
        "Show the link, open orders, positions and freezes.",
        "status --config desk.toml",
    )


def _add_request(commands: Any, name: str, sentence: str, example: str) -> CommandParser:
    exits = {0: "done", 1: "not done; the reason is printed", 3: "no desk answers"}
    parser = add_command(commands, name, sentence, f"holdover desk {example}", exits, run=run_request)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration of the desk")
    add_json_option(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the daemon; returns 0 after a clean stop, 1 when a scope is frozen, 3 when its store is lost."""
    from holdover.adapters.fix.config import read_live_config
    from holdover.adapters.fix.drill import FaultDrill
    from holdover.adapters.fix.live_desk import LiveDesk
    from holdover.desk.tables import DeskStoreError

    try:
        config = read_live_config(arguments.config)
        drill = FaultDrill(arguments.fault, arguments.fault_after, config.directory) if arguments.fault else None
        live = LiveDesk(config, parts=drill.parts if drill is not None else None)
        if drill is not None:
            drill.attach(live)
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, lambda *signal_arguments: live.stop())
        live.run()
    except DeskStoreError as problem:
        print(f"holdover: {problem}", file=sys.stderr)
        return 3
    return 1 if live.guard.active_freezes else 0


def run_request(arguments: argparse.Namespace) -> int:
    """Send a request to the running daemon; returns the exit code."""
    from holdover.adapters.fix.config import read_live_config
    from holdover.adapters.fix.live_desk import DeskNotRunningError, send_command

    request: dict[str, Any] = {"act": arguments.act}
    if arguments.act == "submit":
        request |= {"strategy": arguments.strategy, "quantity": arguments.quantity, "offset": arguments.offset}
    elif arguments.act == "cancel":
        request["order"] = arguments.order
    try:
        answer = send_command(read_live_config(arguments.config).directory, request)
    except DeskNotRunningError as problem:
        print(f"holdover: {problem}", file=sys.stderr)
        return 3
    if "problem" in answer:
        print(f"holdover: {answer['problem']}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(answer))
    elif arguments.act == "status":
        _print_status(answer)
    else:
        print(f"{answer['order']} {answer['status']}")
    return 0


def _print_status(status: dict[str, Any]) -> None:
    link = status["link"]
    state = f"UP epoch {link['epoch']} in {link['in_seq']}" if link["up"] else "DOWN"
    trading = "" if status["trading"] else ", waiting for the feed"
    print(f"{status['trade_date']}  link {state}  reconciled {'yes' if status['reconciled'] else 'no'}{trading}")
    for order in status["open_orders"]:
        progress = f"{order.get('cum_qty', 0)}/{order['order_qty']}"
        print(f"order     {order['cl_ord_id']:40} {order['symbol']:8} {progress}")
    for position in status["positions"]:
        print(f"position  {position['account'] + ' ' + position['symbol']:40} {position['net_qty']:+d}")
    for parent in status["parents"]:
        print(f"parent    {parent['parent_id']:40} {parent.get('filled_qty', 0)}/{parent['order_qty']}")
    for freeze in status["frozen"]:
        print(f"FROZEN    {freeze['scope']:40} {freeze['invariant']} (breach {freeze['breach']})")
