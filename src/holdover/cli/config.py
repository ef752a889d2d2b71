"""`holdover config check`: lists every problem of a configuration before a guard uses it."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.catalogue.policy import date_of
from holdover.cli.commands import add_command, add_subcommands, add_verb
from holdover.cli.options import add_json_option
from holdover.runtime import GuardConfigError, StoreError, read_config
from holdover.runtime.axes import AxisError, import_axes


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    exits = {0: "a guard can use it", 2: "it has problems; each one is listed"}
    parser = add_verb(verbs, "config", "holdover config check guard.toml", exits)
    check = add_command(
        add_subcommands(parser, "act"),
        "check",
        "List every problem of a guard's configuration.",
        "holdover config check guard.toml --connect",
        exits,
        details="Reads FILE and the environment as a guard does. Checks that secrets exist and never shows them.",
        run=run,
    )
    check.add_argument("file", type=Path, metavar="FILE", help="the configuration, TOML")
    check.add_argument("--connect", action="store_true", help="also open the store of the freezes")
    add_json_option(check)


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when a guard can use the configuration, else 2."""
    problems = _problems(arguments.file, connect=arguments.connect)
    name = arguments.file.name
    if arguments.json:
        print(json.dumps({"file": name, "problems": problems}))
    else:
        for problem in problems:
            print(f"{name}: {problem}")
        print(f"{name}: {len(problems)} problems" if problems else f"{name}: a guard can use it")
    return 2 if problems else 0


def _problems(path: Path, *, connect: bool) -> list[str]:
    try:
        config = read_config(path, date_of(time.time_ns()))
    except GuardConfigError as problem:
        return [line.removeprefix(f"{path.name}: ") for line in str(problem).splitlines()]
    problems = config.find_problems()
    for name, check in (
        ("catalogue", lambda: Catalogue.load(*config.catalogue)),
        ("axes", lambda: import_axes(config.guard.axes)),
    ):
        try:
            check()
        except (ValueError, LookupError, ImportError, AxisError) as problem:
            problems += [f"[guard] {name}: {line}" for line in str(problem).splitlines()]
    if connect and not any(problem.startswith("[store]") for problem in problems):
        try:
            config.open_store().close()
        except (StoreError, GuardConfigError) as problem:
            problems.append(f"[store] {problem}")
    return problems
