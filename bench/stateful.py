"""How soon a seeded fault shows, and in how short a story: the sweep beside Hypothesis' rule-based state machine.

    python bench/stateful.py [--faults NAME,...] [--budget 45] [--examples 60] [--plays 30]

The subject is the same desk, the oracle the same catalogue. `tests/unit/test_desk_stateful.py` is the machine: made-up
markets, requests, cuts and restarts, each example from a fresh state within one day, of 40 rules. The sweep begins from
the recorded days of ACME as they are. Time is to the first failure, before either shrinks; size is after both have,
in operations of a schedule and rules of an example. A state machine that has found nothing in its examples is written
with the time that it had, and its ratio is what it is at least. A fault that neither finds is in the table too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from table import machine, show

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.unit.test_desk_stateful import run_stateful

from holdover.desk.faults import FAULTS
from holdover.explore.faulted import Table
from holdover.recording import bundled

SOME = (
    "forget-carried-partial",
    "expire-gtc-with-day",
    "average-over-today-only",
    "exec-id-unique-forever",
    "parent-restarts-from-zero",
    "position-before-order",
    "missed-cancel-on-restart",
    "lost-unsent-order",
    "resent-fill-booked-again",
    "replace-applied-on-send",
    "risk-starts-flat",
    "reused-client-id",
)
"""Some of each category: five that are carried over a night, five of a restart, two of a partition."""


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", default=",".join(SOME), help="names with commas; or all, which takes hours")
    parser.add_argument("--plays", type=int, default=30, help="of the shrinker, a fault")
    parser.add_argument("--budget", type=float, default=45.0, help="seconds of the sweep, a fault")
    parser.add_argument("--examples", type=int, default=60, help="of the state machine, a fault")
    told = parser.parse_args()
    names = list(FAULTS) if told.faults == "all" else told.faults.split(",")
    rows = []
    for name in names:
        rows.append(one(name, told.budget, told.examples, told.plays))
        print(f"{name}: {rows[-1]['sweep s']:.1f} s, {rows[-1]['stateful s']:.1f} s", file=sys.stderr, flush=True)
    found = [row for row in rows if row["sweep"] and row["stateful"]]
    alone = [row for row in rows if row["sweep"] and not row["stateful"]]
    show("stateful", [{**row, "times sweep": _ratio(row)} for row in rows], machine("hypothesis"))
    print(f"found by both {len(found)}, by the sweep alone {len(alone)}, of {len(rows)}")
    if found:
        print(f"median of the ratios where both found: {statistics.median(row['ratio'] for row in found):.1f}")
    if found + alone:
        print(f"median of all, unfound at least: {statistics.median(row['ratio'] for row in found + alone):.1f}")


def one(name: str, budget_s: float, examples: int, plays: int) -> dict[str, Any]:
    """One fault, both ways."""
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
        days = ["2024-11-27", "2024-11-29"]
        table = Table(bundled(), "", ["ACME"], days, Path(place), budget_s=budget_s, plays_max=plays, workers=2)
        cell = table.row(name, ["sweep"]).cells["sweep"]
    began = time.perf_counter()
    by, _, _, _ = run_stateful(name, examples, shrink=False)
    stateful_s = time.perf_counter() - began
    rules = run_stateful(name, examples)[3] if by else ""
    return {
        "fault": name,
        "sweep": cell.by.split(",")[0] if cell.found else "",
        "sweep s": cell.seconds,
        "operations": cell.operations if cell.found else "",
        "stateful": by or "",
        "stateful s": stateful_s,
        "rules": rules,
        "ratio": stateful_s / cell.seconds if cell.found else 0.0,
    }


def _ratio(row: dict[str, Any]) -> str:
    if not row["sweep"]:
        return "not found" if not row["stateful"] else "by the other"
    return f"{'' if row['stateful'] else '>= '}{row['ratio']:.1f}"


if __name__ == "__main__":
    main()
