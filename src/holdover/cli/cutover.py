"""`holdover cutover`: checks whether the candidate may go live; lists every condition."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from holdover.shadow import check_cutover, cutover_text, read_shadow_config


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "cutover",
        help="may the candidate go live?",
        description="Exit codes: 0 eligible, 1 not eligible, 3 when no condition is unmet but one cannot be told.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the shadow's configuration")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when eligible, 1 when not, 3 when undecided."""
    answer = check_cutover(read_shadow_config(arguments.config), time.time_ns())
    print(json.dumps(answer.to_json()) if arguments.json else cutover_text(answer))
    return answer.exit_code
