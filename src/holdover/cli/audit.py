"""`holdover audit`: checks existing FIX logs against the catalogue."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from holdover.audit import Audit
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
        {0: "every invariant holds", 1: "an invariant is breached", 3: "no execution report that can be judged"},
        details="Reads raw FIX logs of FIX 4.2, 4.4 and 5.0 with SOH, | or ^A between the fields, any prefix before a "
        "message, plain or compressed with gzip. Several logs are judged in order, as one.",
        run=run,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a FIX log; - for standard input")
    add_catalogue_option(parser)
    add_json_option(parser)


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
