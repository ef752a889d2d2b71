"""The desk's fresh-state suite sees none of the seeded faults: what they get wrong is what is carried.

The whole table is made by `holdover faults --ways fresh`; here are some of each category, one after the other in one
process of their own, so that no fault's module or fixture outlives it here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdover.desk.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]
FRESH = ROOT / "tests" / "unit" / "desk_fresh"
SAMPLE_FAULTS = (
    "trust-local-when-flat",
    "lost-unsent-order",
    "freeze-in-memory",
    "resubmit-on-silence",
    "resent-fill-booked-again",
)
"""Those that come nearest to what a fresh state shows."""

_SUITE_SCRIPT = """
import json, os, sys
import pytest
told = {}
for name in sys.argv[2:]:
    os.environ["HOLDOVER_FAULTS"] = name
    told[name] = int(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", sys.argv[1]]))
print("TOLD " + json.dumps(told))
"""


def run_fresh_suite(*names: str) -> dict[str, int]:
    """The exit code of the fresh-state suite with each fault on; 0 is green, 1 is a test that failed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    result = subprocess.run(
        [sys.executable, "-c", _SUITE_SCRIPT, str(FRESH), *names],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    output_lines = [line for line in result.stdout.splitlines() if line.startswith("TOLD ")]
    assert output_lines, result.stdout[-2000:] + result.stderr[-2000:]
    exit_codes: dict[str, int] = json.loads(output_lines[0].removeprefix("TOLD "))
    return exit_codes


@pytest.mark.slow
def test_the_fresh_suite_is_green_with_a_fault_on() -> None:
    """Not one test fails; and the switch is heard, for with a fault that there is not none can come up."""
    assert set(SAMPLE_FAULTS) <= set(FAULTS)
    assert run_fresh_suite(*SAMPLE_FAULTS, "no-such-fault") == {**dict.fromkeys(SAMPLE_FAULTS, 0), "no-such-fault": 1}
