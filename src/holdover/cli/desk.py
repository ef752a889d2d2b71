"""`holdover desk`: the reference desk live, over FIX; and what its operator asks of it while it runs."""

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
    submit = _asking(acts, "submit", "send a slice of a strategy at once")
    submit.add_argument("strategy", metavar="STRATEGY")
    submit.add_argument("quantity", metavar="QUANTITY")
    submit.add_argument("--offset", type=int, default=0, metavar="N", help="price increments behind the touch")
    cancel = _asking(acts, "cancel", "cancel an order")
    cancel.add_argument("order", metavar="CLORDID", help="any ClOrdID of its chain")
    _asking(acts, "status", "how it stands: link, orders, positions, what is frozen")


def _asking(acts: Any, name: str, told: str) -> Any:
    parser = acts.add_parser(name, help=told, description="0 done, 1 not done, 3 no desk answers.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=ask)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the daemon; 0 when stopped in good order with nothing frozen, 1 when something is, 3 without its store."""
    from holdover.adapters.fix.config import read_live
    from holdover.adapters.fix.live import LiveDesk
    from holdover.desk.tables import StoreLost

    try:
        live = LiveDesk(read_live(arguments.config), fault=arguments.fault, fault_after_s=arguments.fault_after)
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *told: live.stop())
        live.run()
    except StoreLost as problem:
        print(f"holdover: {problem}", file=sys.stderr)
        return 3
    return 1 if live.guard.frozen else 0


def ask(arguments: argparse.Namespace) -> int:
    """Ask the running daemon; returns the exit code."""
    from holdover.adapters.fix.config import read_live
    from holdover.adapters.fix.live import NoDesk
    from holdover.adapters.fix.live import ask as asked

    told: dict[str, Any] = {"act": arguments.act}
    if arguments.act == "submit":
        told |= {"strategy": arguments.strategy, "quantity": arguments.quantity, "offset": arguments.offset}
    elif arguments.act == "cancel":
        told["order"] = arguments.order
    try:
        said = asked(read_live(arguments.config).directory, told)
    except NoDesk as problem:
        print(f"holdover: {problem}", file=sys.stderr)
        return 3
    if "problem" in said:
        print(f"holdover: {said['problem']}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(said))
    elif arguments.act == "status":
        _show(said)
    else:
        print(f"{said['order']} {said['status']}")
    return 0


def _show(said: dict[str, Any]) -> None:
    link = said["link"]
    state = f"UP epoch {link['epoch']} in {link['in_seq']}" if link["up"] else "DOWN"
    trading = "" if said["trading"] else ", waiting for its feed"
    print(f"{said['trade_date']}  link {state}  reconciled {'yes' if said['reconciled'] else 'no'}{trading}")
    for order in said["open_orders"]:
        done = f"{order.get('cum_qty', 0)}/{order['order_qty']}"
        print(f"order     {order['cl_ord_id']:40} {order['symbol']:8} {done}")
    for held in said["positions"]:
        print(f"position  {held['account'] + ' ' + held['symbol']:40} {held['net_qty']:+d}")
    for parent in said["parents"]:
        print(f"parent    {parent['parent_id']:40} {parent.get('filled_qty', 0)}/{parent['order_qty']}")
    for one in said["frozen"]:
        print(f"FROZEN    {one['scope']:40} {one['invariant']} (breach {one['breach']})")
