"""`holdover audit`: checks existing FIX logs against the catalogue."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from holdover.audit import Audit
from holdover.catalogue import Catalogue
from holdover.report import audit_text


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "audit",
        help="judge FIX logs that are there already",
        description="Reads raw FIX logs (4.2, 4.4, 5.0; SOH, | or ^A between fields; any prefix; gzip) and judges the "
        "orders in them by the catalogue. 0 holds, 1 breach, 2 unreadable, 3 no execution report that can be judged.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a log; - for standard input")
    parser.add_argument("--catalogue", action="append", default=[], help="a folder or package beside the built-in one")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check all logs, in order, as one; returns the exit code."""
    audit = Audit(Catalogue.load(*arguments.catalogue))
    for name in arguments.files:
        if name == "-":
            audit.read("standard input", sys.stdin.buffer)
        else:
            audit.read_file(Path(name))
    audit.end()
    summary = audit.as_json()
    print(json.dumps(summary) if arguments.json else audit_text(summary))
    return {"holds": 0, "breach": 1}.get(audit.verdict, 3)
