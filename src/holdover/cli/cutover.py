"""`holdover cutover`: checks whether the candidate may go live; lists every condition."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from holdover.cli.commands import add_verb
from holdover.cli.options import add_json_option
from holdover.shadow import check_cutover, cutover_text, read_shadow_config


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "cutover",
        "holdover cutover --config shadow.toml",
        {0: "eligible", 1: "not eligible", 3: "no condition is unmet, but one is unknown"},
        details="Lists every condition of the cutover and whether it is met.",
        run=run,
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the configuration of the shadow run, TOML"
    )
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when eligible, 1 when not, 3 when undecided."""
    answer = check_cutover(read_shadow_config(arguments.config), time.time_ns())
    print(json.dumps(answer.to_json()) if arguments.json else cutover_text(answer))
    return answer.exit_code
