"""`holdover audit`: checks existing FIX logs against the catalogue."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from holdover.audit import Audit
from holdover.audit.audit import UNUSABLE_MAX
from holdover.audit.closed_orders import CLOSED_MAX
from holdover.catalogue import Catalogue
from holdover.cli.commands import add_verb
from holdover.cli.options import add_catalogue_option, add_json_option
from holdover.report import audit_text


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "audit",
        "holdover audit fix.log",
        {
            0: "every invariant holds",
            1: "an invariant is breached",
            3: "no execution report that can be judged, or too many messages that cannot be used",
        },
        details="Reads raw FIX logs of FIX 4.2, 4.4 and 5.0 with SOH, | or ^A between the fields, any prefix before a "
        "message, plain or compressed with gzip. Several logs are judged in order, as one.",
        run=run,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a FIX log; - for standard input")
    parser.add_argument(
        "--unusable-max",
        type=float,
        default=100 * UNUSABLE_MAX,
        metavar="PERCENT",
        help="the percentage of messages that may be unusable before the result is undecided (default 1)",
    )
    parser.add_argument(
        "--closed-orders",
        type=int,
        default=CLOSED_MAX,
        metavar="N",
        help=f"remember the last N closed orders (default {CLOSED_MAX}); more takes more memory",
    )
    add_catalogue_option(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check all logs, in order, as one; returns the exit code."""
    if not 0 <= arguments.unusable_max <= 100:
        raise ValueError(f"--unusable-max is {arguments.unusable_max:g}, should be a percentage from 0 to 100")
    if arguments.closed_orders < 1:
        raise ValueError(f"--closed-orders is {arguments.closed_orders}, should be 1 or more")
    audit = Audit(
        Catalogue.load(*arguments.catalogue),
        unusable_max=arguments.unusable_max / 100,
        closed_max=arguments.closed_orders,
    )
    for name in arguments.files:
        if name == "-":
            audit.read("standard input", sys.stdin.buffer)
        else:
            audit.read_file(Path(name))
    audit.end()
    summary = audit.as_json()
    print(json.dumps(summary) if arguments.json else audit_text(summary))
    return {"holds": 0, "breach": 1}.get(audit.verdict, 3)
