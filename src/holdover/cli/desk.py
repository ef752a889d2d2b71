"""`holdover desk`: runs the reference desk live over FIX, and sends requests of its operator to it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    desk = verbs.add_parser("desk", help="the reference desk live, over FIX")
    acts = desk.add_subparsers(dest="act", metavar="ACT", required=True)
    start = acts.add_parser(
        "run",
        help="trade until it is stopped",
        description="A daemon by one TOML file: [desk], [fix], [[strategy]] beside a guard's tables. It comes up from "
        "its store and reconciles after each logon; a freeze outlives it.",
    )
    start.add_argument("--config", type=Path, required=True, metavar="FILE")
    start.add_argument("--fault", default="", metavar="NAME", help="a drill: switch a seeded fault on, see faults")
    start.add_argument(
        "--fault-after", type=float, metavar="SECONDS", help="so long after it has begun; without it from the start"
    )
    start.set_defaults(run=run)
    submit = _add_request(acts, "submit", "send a slice of a strategy at once")
    submit.add_argument("strategy", metavar="STRATEGY")
    submit.add_argument("quantity", metavar="QUANTITY")
    submit.add_argument("--offset", type=int, default=0, metavar="N", help="price increments behind the touch")
    cancel = _add_request(acts, "cancel", "cancel an order")
    cancel.add_argument("order", metavar="CLORDID", help="any ClOrdID of its chain")
    _add_request(acts, "status", "how it stands: link, orders, positions, what is frozen")


def _add_request(acts: Any, name: str, help_text: str) -> Any:
    parser = acts.add_parser(name, help=help_text, description="0 done, 1 not done, 3 no desk answers.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run_request)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the daemon; returns 0 after a clean stop, 1 when a scope is frozen, 3 when its store is lost."""
    from holdover.adapters.fix.config import read_live_config
    from holdover.adapters.fix.live_desk import LiveDesk
    from holdover.desk.tables import DeskStoreError

    try:
        live = LiveDesk(read_live_config(arguments.config), fault=arguments.fault, fault_after_s=arguments.fault_after)
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
    from holdover.adapters.fix.live_desk import DeskNotRunningError
    from holdover.adapters.fix.live_desk import send_command as asked

    request: dict[str, Any] = {"act": arguments.act}
    if arguments.act == "submit":
        request |= {"strategy": arguments.strategy, "quantity": arguments.quantity, "offset": arguments.offset}
    elif arguments.act == "cancel":
        request["order"] = arguments.order
    try:
        answer = asked(read_live_config(arguments.config).directory, request)
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
    trading = "" if status["trading"] else ", waiting for its feed"
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
