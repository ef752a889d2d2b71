"""The fixture `play_schedule`: a test that plays a schedule file."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.harness.schedule import Operation, make_schedule, read_schedule
from tests.days import write_short_days

pytest_plugins = ["pytester"]

TEST = """
def test_one(play_schedule):
    assert play_schedule("one.json").operations_done == {done}
"""


@pytest.mark.parametrize(
    ("faults", "expect", "outcome"),
    [
        ([], "", "passed"),
        (["snapshot-then-fills-again"], "", "failed"),
        (["snapshot-then-fills-again"], "positions/position-equals-carried-plus-fills", "passed"),
        ([], "positions/position-equals-carried-plus-fills", "failed"),
    ],
)
def test_a_schedule_ends_as_it_expects(
    pytester: pytest.Pytester, catalogue: Catalogue, faults: list[str], expect: str, outcome: str
) -> None:
    """The played schedule is written for replay and shrink; a failure names the file and the breach."""
    store = write_short_days(pytester.path / "days", minutes=4)
    operation = Operation(at="fill", n=2, do="clean")
    schedule = make_schedule(
        store, ["BOLT"], ["2024-11-27"], catalogue, faults=faults, expect=expect, operations=[operation]
    )
    schedule.save(pytester.path / "one.json")
    pytester.makepyfile(TEST.format(done=1))
    result = pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "--holdover-recordings", "days", "--basetemp", str(pytester.path / "temp")
    )
    result.assert_outcomes(**{outcome: 1})
    written = next((pytester.path / "temp").rglob("schedule.json"))
    assert read_schedule(Path(written)) == schedule
    if outcome == "failed":
        result.stdout.fnmatch_lines([f"*schedule.json: should {'breach ' + expect if expect else 'hold'}"])
