"""A bundle of a schedule: all that the breach needs, in one file that plays in another place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.harness.schedule import Operation, make_schedule
from holdover.recording import bundled_store


@pytest.mark.slow
def test_a_bundle_plays_elsewhere_and_writes_the_regression_test(
    tmp_path: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = make_schedule(
        bundled_store(),
        ["ACME"],
        ["2024-11-27", "2024-11-29"],
        catalogue,
        name="a carried partial is forgotten",
        faults=["forget-carried-partial"],
        operations=[Operation(day=0, at="second", n=600, do="kill")],
    )
    schedule_path = schedule.save(tmp_path / "here" / "found.json")
    assert main(["bundle", str(schedule_path), "--out", str(tmp_path / "one.hbundle")]) == 0
    schedule_path.unlink()
    capsys.readouterr()
    completed = subprocess.run(
        [sys.executable, "-m", "holdover", "reproduce", "one.hbundle", "--out", "again", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    result = json.loads(completed.stdout)
    assert completed.returncode == 1, completed.stderr
    assert (result["verdict"], result["by"], result["expected"]) == ("breach", "its schedule", result["found"])
    assert result["after"] == "begin"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", result["test"]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 1, "the regression test passes on the faulty desk"
    assert result["expected"] in tested.stdout


def test_a_schedule_that_holds_has_no_bundle(tmp_path: Path, catalogue: Catalogue) -> None:
    schedule = make_schedule(bundled_store(), ["BOLT"], ["2024-11-29"], catalogue, name="a day")
    assert main(["bundle", str(schedule.save(tmp_path / "day.json"))]) == 3
    assert not (tmp_path / "day.hbundle").exists()
