"""The argument: line coverage says nothing of the states in which a system was restarted, cut off or carried overnight.

    python bench/argument.py

A suite of unit tests, each from a fresh state, is measured twice at once: by coverage.py over the desk's lines (seeded
faults aside) and by state coverage. Then the same suite together with the state tests. Exit code 1 when the argument
does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import coverage

from holdover.catalogue import Catalogue
from holdover.coverage import Numbers, read, read_lock

ROOT = Path(__file__).resolve().parents[1]
DESK = ROOT / "src" / "holdover" / "desk"
FRESH = "tests/unit/desk_fresh"
STATE = "tests/state"


def measure(name: str, tests: list[str], out: Path) -> dict[str, float]:
    """Run the tests once, under both measures."""
    lines, state = out / f"{name}.lines", out / f"{name}.coverage.json"
    run = [sys.executable, "-m", "coverage", "run", "--data-file", str(lines), "--source", str(DESK)]
    run += ["--omit", "*/desk/faults/*", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    run += ["--state-cov", "--state-cov-report", "none", "--state-cov-file", str(state)]
    # What coverage.py traces must be traced by its C tracer, whatever the machine's settings are.
    subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "COVERAGE_CORE": "ctrace"})
    measured = coverage.Coverage(data_file=str(lines), source=[str(DESK)], omit=["*/desk/faults/*"])
    measured.load()
    with open(os.devnull, "w") as nowhere:
        percent = measured.report(file=nowhere)
    numbers = Numbers(read(state), read_lock(ROOT / "state-coverage.toml"), Catalogue.load())
    return {
        "lines": percent,
        "c1": numbers.c1.percent,
        "c1_done": numbers.c1.done,
        "c1_of": numbers.c1.of,
        "pairs": numbers.pairs.percent,
        "c2": numbers.c2.percent,
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "argument")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    suites = {"fresh-state unit tests": ("fresh", [FRESH]), "the same and the state tests": ("both", [FRESH, STATE])}
    print(f"{'suite':<32}{'lines':>8}{'C1':>8}{'cells x transitions':>22}{'pairs':>8}")
    found = {}
    for title, (name, tests) in suites.items():
        told = found[name] = measure(name, tests, out)
        places = f"{told['c1_done']:.0f} of {told['c1_of']:.0f}"
        figures = f"{told['lines']:>7.1f}%{told['c1']:>7.1f}%{places:>22}{told['pairs']:>7.1f}%"
        print(f"{title:<32}{figures}", flush=True)
    (out / "argument.json").write_text(json.dumps(found, indent=1) + "\n")
    fresh, both = found["fresh"], found["both"]
    holds = fresh["lines"] > 90 and fresh["c1"] < 1 and both["c1"] > 10 * max(fresh["c1"], 1)
    print("The argument holds." if holds else "The argument does not hold.")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
