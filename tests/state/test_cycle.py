"""The main job: both arms over consecutive recorded days, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdover.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The cycle's exit code and its JSON."""
    code = main(["cycle", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_the_desk_holds_with_yesterday_carried_along(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Both arms hold on the bundled sessions; orders really trade and are carried over the night."""
    code, result = run(capsys, "--out", str(tmp_path))
    assert (code, result["verdict"], result["breaches"]) == (0, "holds", [])
    carried = result["arms"]["carried"]
    assert carried["partially_filled_orders"] > 100
    assert carried["carried"][0]["open_orders"] >= 1
    assert {transition["what"] for transition in carried["transitions"]} >= {
        "begin",
        "disconnect",
        "reconnect",
        "kill",
        "restart",
        "end",
        "overnight",
    }
    assert result["catalogue"]["invariants"] >= 24
    assert result["divergences"][-1]["cause"] == "begin"
    page = Path(result["report"]).read_text()
    assert "simulated recordings" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_real_days_hold(capsys: pytest.CaptureFixture[str], tmp_path: Path, lean: Path) -> None:
    """Two real IBM days, all ticks, the whole catalogue: holds, with hundreds of partial fills a day."""
    directory = str(tmp_path / "days")
    assert main(["recording", "import", "lean", str(lean), "--into", directory, "--symbol", "IBM", "--json"]) == 0
    capsys.readouterr()
    code, result = run(
        capsys,
        "--recordings",
        directory,
        "--instrument",
        "IBM",
        "--from",
        "2013-10-07",
        "--days",
        "2",
        "--out",
        str(tmp_path / "o"),
    )
    assert (code, result["verdict"]) == (0, "holds")
    assert result["arms"]["carried"]["fills"] > 1000
    assert not result["simulated"]


def schedule(tmp_path: Path, *operations: dict[str, Any]) -> list[str]:
    """A schedule file, as arguments."""
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps({"name": "own", "every_day": list(operations)}))
    return ["--schedule", str(path), "--out", str(tmp_path / "out")]


def test_a_schedule_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What the file says is what happens."""
    arguments = schedule(
        tmp_path,
        {"op": "begin"},
        {"op": "run", "until": {"kind": "partial-fill", "nth": 5}, "kill": True},
        {"op": "restart", "kind": "torn"},
        {"op": "end"},
        {"op": "overnight"},
    )
    code, result = run(capsys, *arguments, "--arm", "carried", "--instrument", "BOLT")
    assert code == 0
    kinds = [
        transition["detail"]
        for transition in result["arms"]["carried"]["transitions"]
        if transition["what"] == "restart"
    ]
    assert kinds == ["torn", "torn"]


@pytest.mark.parametrize(
    ("operations", "reason"),
    [
        ([{"op": "begin"}, {"op": "overnight"}], "not legal when the session is open"),
        ([{"op": "begin"}, {"op": "dance"}], "no operation is called so"),
        ([{"op": "begin"}, {"op": "reconnect"}], "the link has not been cut"),
        ([{"op": "begin"}, {"op": "end"}], "it should end with end, overnight"),
        ([{"op": "begin"}, {"op": "run", "until": 1.5}], "should be a fraction"),
        ([{"op": "begin", "colour": "red"}], "colour"),
        ([], "no operation in it"),
    ],
)
def test_a_bad_schedule_is_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, operations: list[dict[str, Any]], reason: str
) -> None:
    """An operation that makes no sense is named before anything runs; exit code 2, no traceback."""
    assert main(["cycle", *schedule(tmp_path, *operations)]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("holdover: schedule.json")
    assert reason in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--instrument", "NOPE"], "no recording of NOPE"),
        (["--from", "2024-11-28"], "no recording of ACME on 2024-11-28"),
        (["--days", "9"], "only 2 are recorded"),
        (["--days", "0"], "should be 1 or more"),
        (["--fault", "nonsense"], "no seeded fault is called 'nonsense'"),
        (["--subject", "nowhere:Nothing"], "cannot be imported"),
        (["--subject", "nothing"], "is no subject"),
        (["--recordings", "/nonexistent"], "no such folder"),
        (["--catalogue", "/nonexistent"], "neither a folder nor a package"),
        (["--schedule", "/nonexistent.json"], "cannot be read"),
    ],
)
def test_bad_input_is_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], reason: str
) -> None:
    """What is wrong, where, and what would be right; exit code 2."""
    assert main(["cycle", "--out", str(tmp_path), *arguments]) == 2
    stderr = capsys.readouterr().err
    assert reason in stderr
    assert "Traceback" not in stderr
