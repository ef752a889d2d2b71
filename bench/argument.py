"""Compare line coverage with state coverage on the same test suites.

    python bench/argument.py

The script measures a suite of fresh-state unit tests twice in one run: coverage.py counts the lines of the
desk (without the seeded faults), and state coverage counts the states. Then it measures the same suite
together with the state tests. It exits with 1 when high line coverage and low state coverage do not occur
together.
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
from holdover.coverage import CoverageNumbers, read_coverage, read_lock

ROOT = Path(__file__).resolve().parents[1]
DESK = ROOT / "src" / "holdover" / "desk"
FRESH = "tests/unit/desk_fresh"
STATE = "tests/state"


def measure(name: str, tests: list[str], directory: Path) -> dict[str, float]:
    """Run the tests once, under both measures."""
    lines, state = directory / f"{name}.lines", directory / f"{name}.coverage.json"
    run = [sys.executable, "-m", "coverage", "run", "--data-file", str(lines), "--source", str(DESK)]
    run += ["--omit", "*/desk/faults/*", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    run += ["--state-cov", "--state-cov-report", "none", "--state-cov-file", str(state)]
    # What coverage.py traces must be traced by its C tracer, whatever the machine's settings are.
    subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "COVERAGE_CORE": "ctrace"})
    measured = coverage.Coverage(data_file=str(lines), source=[str(DESK)], omit=["*/desk/faults/*"])
    measured.load()
    with open(os.devnull, "w") as nowhere:
        percent = measured.report(file=nowhere)
    numbers = CoverageNumbers(read_coverage(state), read_lock(ROOT / "state-coverage.toml"), Catalogue.load())
    return {
        "lines": percent,
        "c1": numbers.c1.percent,
        "c1_done": numbers.c1.covered,
        "c1_of": numbers.c1.total,
        "pairs": numbers.pairs.percent,
        "c2": numbers.c2.percent,
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "argument")
    directory = parser.parse_args().out.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    suites = {"fresh-state unit tests": ("fresh", [FRESH]), "the same and the state tests": ("both", [FRESH, STATE])}
    print(f"{'suite':<32}{'lines':>8}{'C1':>8}{'cells x transitions':>22}{'pairs':>8}")
    results = {}
    for title, (name, tests) in suites.items():
        result = results[name] = measure(name, tests, directory)
        places = f"{result['c1_done']:.0f} of {result['c1_of']:.0f}"
        figures = f"{result['lines']:>7.1f}%{result['c1']:>7.1f}%{places:>22}{result['pairs']:>7.1f}%"
        print(f"{title:<32}{figures}", flush=True)
    (directory / "argument.json").write_text(json.dumps(results, indent=1) + "\n")
    fresh, combined = results["fresh"], results["both"]
    holds = fresh["lines"] > 90 and fresh["c1"] < 1 and combined["c1"] > 10 * max(fresh["c1"], 1)
    print("The argument holds." if holds else "The argument does not hold.")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
