"""`holdover config check`: lists every problem of a configuration before a guard uses it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.runtime import GuardConfigError, StoreError, read_config
from holdover.runtime.axes import AxisError, import_axes


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    config = verbs.add_parser("config", help="check a guard's configuration")
    acts = config.add_subparsers(dest="act", metavar="ACT", required=True)
    check = acts.add_parser(
        "check",
        help="list everything that is wrong with it",
        description="Reads FILE and the environment as a guard would. 0 it can run by it, 2 it cannot; each problem is "
        "listed. Secrets are looked for, and never shown.",
    )
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument("--connect", action="store_true", help="open the store as well")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when a guard can use the configuration, else 2."""
    problems = _problems(arguments.file, connect=arguments.connect)
    name = arguments.file.name
    if arguments.json:
        print(json.dumps({"file": name, "problems": problems}))
    else:
        for problem in problems:
            print(f"{name}: {problem}")
        print(f"{name}: {len(problems)} problems" if problems else f"{name}: a guard can run by it")
    return 2 if problems else 0


def _problems(path: Path, *, connect: bool) -> list[str]:
    try:
        config = read_config(path)
    except GuardConfigError as problem:
        return [line.removeprefix(f"{path.name}: ") for line in str(problem).splitlines()]
    problems = config.find_problems()
    for name, check in (
        ("catalogue", lambda: Catalogue.load(*config.catalogue)),
        ("axes", lambda: import_axes(config.axes)),
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
