"""The main job: both arms over consecutive recorded days, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdover.catalogue import Catalogue
from holdover.cli import main
from tests.days import write_short_days


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


def test_the_screen_names_every_invariant_that_was_not_exercised(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whole names, however many there are, on lines of the screen's width."""
    assert main(["cycle", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next(number for number, line in enumerate(lines) if "Never exercised: " in line)
    names = " ".join(lines[begin:-1]).partition("Never exercised: ")[2].replace(",", " ").split()
    assert len(names) > 3
    assert set(names) <= set(Catalogue.load().invariants)
    assert max(len(line) for line in lines[begin:-1]) <= 98


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
    path.write_text(json.dumps({"holdover": "schedule", "version": 2, "name": "own", "operations": list(operations)}))
    return ["--schedule", str(path), "--out", str(tmp_path / "out")]


def test_a_schedule_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What the file says is what happens."""
    arguments = schedule(
        tmp_path,
        {"every_day": True, "at": "partial-fill", "n": 5, "do": "torn"},
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
        ([{"at": "second", "do": "dance"}], "no operation is called 'dance'"),
        ([{"at": "noon", "do": "kill"}], "Invalid enum value 'noon'"),
        ([{"at": "fraction", "after": 1.5, "do": "kill"}], "should be a fraction"),
        ([{"at": "second", "do": "kill", "colour": "red"}], "colour"),
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


def test_an_operation_of_a_day_that_the_run_does_not_have_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It would never happen, and the run would hold by that alone."""
    arguments = schedule(tmp_path, {"day": 2, "at": "second", "do": "kill"})
    assert main(["cycle", *arguments, "--instrument", "BOLT", "--days", "2"]) == 2
    assert "operation 0 (kill) is on day 2, counted from 0; the run has 2" in capsys.readouterr().err


def test_the_schedule_of_a_cycle_before_version_2_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With a sentence that names both versions."""
    path = tmp_path / "former.json"
    path.write_text(json.dumps({"name": "own", "every_day": [{"op": "begin"}]}))
    assert main(["cycle", "--schedule", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "former.json: written in version 1, this Holdover reads version 2" in capsys.readouterr().err


def test_cycle_replay_and_shrink_read_what_the_others_write(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A seeded fault that a template finds in the cycle is found by replay, and by the cycle when it is shrunk."""
    write_short_days(tmp_path / "days", minutes=6)
    place = ["--recordings", str(tmp_path / "days")]
    template = schedule(tmp_path, {"every_day": True, "at": "fill", "n": 2, "after": 0.1, "limit": 0.9, "do": "clean"})
    fault = ["--fault", "snapshot-then-fills-again"]
    code, result = run(capsys, *place, *template, *fault, "--arm", "carried")
    assert (code, result["verdict"]) == (1, "breach")
    invariant = result["breaches"][0]["invariant"]
    written = str(tmp_path / "out" / "schedule.json")
    assert main(["replay", written, *place, "--to-breach", "--json", "--out", str(tmp_path / "replayed")]) == 1
    assert json.loads(capsys.readouterr().out)["found"].endswith(f"/{invariant}")
    assert main(["shrink", written, *place, "--json", "--plays", "20", "--out", str(tmp_path / "shrunk")]) == 1
    shrunk = json.loads(capsys.readouterr().out)
    code, again = run(
        capsys, *place, "--schedule", shrunk["schedule"], "--arm", "carried", "--out", str(tmp_path / "o")
    )
    assert (code, again["breaches"][0]["invariant"], again["faults"]) == (1, invariant, fault[1:])
    file = str(tmp_path / "schedule.json")
    assert main(["replay", file, *place, "--json", "--out", str(tmp_path / "template")]) == 0
    assert json.loads(capsys.readouterr().out)["operations_done"] == 2


def test_a_schedule_of_the_corpus_plays_in_the_cycle(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """On the days that it names, with its seed; it holds there as it does in the corpus."""
    path = Path(__file__).parents[2] / "corpus" / "regressions" / "look-forgotten-with-its-request.json"
    code, result = run(capsys, "--schedule", str(path), "--arm", "carried", "--out", str(tmp_path))
    assert (code, result["verdict"], result["trade_dates"]) == (0, "holds", ["2024-11-27", "2024-11-29"])
    assert (result["seed"], result["schedule"]) == (2, "look forgotten with its request")
    written = json.loads((tmp_path / "schedule.json").read_text())
    assert written["operations"] == json.loads(path.read_text())["operations"]


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
