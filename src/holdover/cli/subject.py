"""`holdover subject check`: lists the problems of a subject's adapter, and which invariants can fire on it."""

from __future__ import annotations

import argparse
import json
from typing import Any

import msgspec

from holdover.cli.catalogue import reach_lines
from holdover.cli.commands import add_command, add_subcommands, add_verb
from holdover.cli.errors import find_missing_extra
from holdover.cli.options import add_json_option
from holdover.harness.contract import check_subject
from holdover.harness.subject import SubjectError, resolve_factory


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    exits = {0: "the adapter meets the contract", 1: "it has problems; each one is listed"}
    parser = add_verb(verbs, "subject", "holdover subject check desk", exits)
    check = add_command(
        add_subcommands(parser, "what"),
        "check",
        "List the problems of a subject's adapter, and which invariants can fire on it.",
        "holdover subject check desk",
        exits,
        run=run,
    )
    check.add_argument(
        "name", metavar="NAME", help="the subject: desk, nautilus, freqtrade, or MODULE:NAME of your own"
    )
    add_json_option(check)


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when the subject meets the contract, else 1."""
    try:
        resolve_factory(arguments.name)
    except SubjectError as error:
        if find_missing_extra(error) is not None:
            raise  # what is missing is no problem of the adapter
    report = check_subject(arguments.name)
    problems = report.problems
    if arguments.json:
        reach = msgspec.to_builtins(report.reach)
        print(json.dumps({"subject": arguments.name, "problems": problems, "invariants": reach}))
        return 1 if problems else 0
    if report.reach:
        for line in reach_lines(report.reach):
            print(line)
        print()
    for problem in problems:
        print(f"- {problem}")
    if problems:
        print(f"{arguments.name}: {len(problems)} problem{'s' if len(problems) > 1 else ''}")
    else:
        print(f"{arguments.name} meets the contract")
    return 1 if problems else 0
