"""Compare the sweep with Hypothesis' rule-based state machine: time to a seeded fault, size of the case.

    python bench/stateful.py [--faults NAME,...] [--budget 45] [--examples 60] [--plays 30]

Both use the same desk and the same catalogue. The state machine is `tests/unit/test_desk_stateful.py`:
made-up markets, requests, link drops and restarts, each example from a fresh state within one day, of 40
rules. The sweep starts from the recorded days of ACME. Time is measured to the first failure, before
shrinking. Size is measured after shrinking, in operations of a schedule and rules of an example. When the
state machine finds nothing, the table shows the time that it had, and the ratio is a lower bound. The table
also lists a fault that neither finds.
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

from table import machine, report_table

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.unit.test_desk_stateful import run_stateful

from holdover.desk.faults import FAULTS
from holdover.explore.fault_table import FaultTable
from holdover.recording import bundled_store

SAMPLE_FAULTS = (
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
    parser.add_argument(
        "--faults", default=",".join(SAMPLE_FAULTS), help="names with commas; or all, which takes hours"
    )
    parser.add_argument("--plays", type=int, default=30, help="of the shrinker, a fault")
    parser.add_argument("--budget", type=float, default=45.0, help="seconds of the sweep, a fault")
    parser.add_argument("--examples", type=int, default=60, help="of the state machine, a fault")
    arguments = parser.parse_args()
    names = list(FAULTS) if arguments.faults == "all" else arguments.faults.split(",")
    rows = []
    for name in names:
        rows.append(measure_fault(name, arguments.budget, arguments.examples, arguments.plays))
        print(f"{name}: {rows[-1]['sweep s']:.1f} s, {rows[-1]['stateful s']:.1f} s", file=sys.stderr, flush=True)
    shared_rows = [row for row in rows if row["sweep"] and row["stateful"]]
    sweep_only_rows = [row for row in rows if row["sweep"] and not row["stateful"]]
    report_table("stateful", [{**row, "times sweep": _ratio(row)} for row in rows], machine("hypothesis"))
    print(f"found by both {len(shared_rows)}, by the sweep alone {len(sweep_only_rows)}, of {len(rows)}")
    if shared_rows:
        print(f"median of the ratios where both found: {statistics.median(row['ratio'] for row in shared_rows):.1f}")
    if shared_rows + sweep_only_rows:
        ratio = statistics.median(row["ratio"] for row in shared_rows + sweep_only_rows)
        print(f"median of all, unfound at least: {ratio:.1f}")


def measure_fault(name: str, budget_s: float, examples: int, plays: int) -> dict[str, Any]:
    """One fault, both ways."""
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stderr(io.StringIO()):
        days = ["2024-11-27", "2024-11-29"]
        table = FaultTable(
            bundled_store(), "", ["ACME"], days, Path(directory), budget_s=budget_s, plays_max=plays, workers=2
        )
        cell = table.find_fault(name, ["sweep"]).cells["sweep"]
    began = time.perf_counter()
    by, _, _, _ = run_stateful(name, examples, shrink=False)
    stateful_s = time.perf_counter() - began
    rules = run_stateful(name, examples)[3] if by else ""
    return {
        "fault": name,
        "sweep": cell.found_by.split(",")[0] if cell.is_found else "",
        "sweep s": cell.seconds,
        "operations": cell.operations if cell.is_found else "",
        "stateful": by or "",
        "stateful s": stateful_s,
        "rules": rules,
        "ratio": stateful_s / cell.seconds if cell.is_found else 0.0,
    }


def _ratio(row: dict[str, Any]) -> str:
    if not row["sweep"]:
        return "not found" if not row["stateful"] else "by the other"
    return f"{'' if row['stateful'] else '>= '}{row['ratio']:.1f}"


if __name__ == "__main__":
    main()
