"""`holdover subject check`: lists every problem of a subject's adapter."""

from __future__ import annotations

import argparse
import json
from typing import Any

from holdover.harness.contract import check_subject


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("subject", help="check that a system can be put under test")
    subparsers = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    check = subparsers.add_parser("check", help="list every problem of a subject's adapter at once")
    check.add_argument("name", help="desk, or MODULE:NAME")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when the subject keeps the contract, else 1."""
    problems = check_subject(arguments.name)
    if arguments.json:
        print(json.dumps({"subject": arguments.name, "problems": problems}))
    elif problems:
        for problem in problems:
            print(f"- {problem}")
        print(f"{arguments.name}: {len(problems)} problem{'s' if len(problems) > 1 else ''}")
    else:
        print(f"{arguments.name} keeps the contract")
    return 1 if problems else 0
