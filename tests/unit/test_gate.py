"""The gate, the verbs of coverage, and the pytest options: what they say, and how they end."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from holdover.catalogue import Catalogue
from holdover.cli import gate as gate_verb
from holdover.cli import main
from holdover.coverage import Data, Lock, Numbers, Waiver, Witness, read
from holdover.coverage.gate import Gate, Kept, judge
from holdover.coverage.results import Results, StateTest
from holdover.report import coverage_page
from holdover.runtime import Journal
from holdover.runtime.axes import axes_in_use

DAY = date(2024, 1, 2)
CELL = "1010022110" + "0"
"""An order unfilled, a cancel in flight, the link up; in a session, not reconciled."""


@pytest.fixture
def whole(catalogue: Catalogue) -> Data:
    """A run in which every invariant had occasion and one kill was covered."""
    data = Data.empty(catalogue.digest, axes_in_use())
    way = Witness(1, "tests/state/test_it.py::test_it", ("restart:kill@7",))
    data.add_visit(CELL, 1, way)
    data.add_transition("restart:kill", CELL, 1, way)
    data.add_pair("begin > restart:kill", 1, way)
    for one in catalogue:
        data.add_occasion(one.name, CELL, 1)
    return data


def passed(catalogue: Catalogue, **fields: Any) -> Results:
    """One state test that passed on a recorded day."""
    told = {"outcome": "passed", "played": 100, **fields}
    return Results(catalogue=catalogue.digest, tests=[StateTest("test_it.py::test_it", **told)])


def judged(data: Data, catalogue: Catalogue, results: Results | None, lock: Lock | None = None, **more: Any) -> Gate:
    """The gate over a run."""
    about = {name: more.pop(name) for name in ("profile", "base") if name in more}
    return judge(Numbers(data, lock or Lock(), catalogue, **about), results, more.pop("today", DAY), **more)


def failing(gate: Gate) -> dict[str, list[str]]:
    """The checks that are not met, with their reasons."""
    return {check.name: check.reasons for check in gate.checks if not check.met}


def test_a_whole_run_meets_the_gate(whole: Data, catalogue: Catalogue) -> None:
    """Nothing is asked for that this run has not."""
    assert judged(whole, catalogue, passed(catalogue), corpus=Kept()).met


def test_no_state_test_is_not_met(whole: Data, catalogue: Catalogue) -> None:
    """No file, no test, only skipped ones, a failed one, a dead worker."""
    assert "no results" in failing(judged(whole, catalogue, None))["state-tests"][0]
    assert "no state test ran" in failing(judged(whole, catalogue, Results()))["state-tests"][0]
    assert (
        "no state test ran" in failing(judged(whole, catalogue, passed(catalogue, outcome="skipped")))["state-tests"][0]
    )
    assert failing(judged(whole, catalogue, passed(catalogue, outcome="failed")))["state-tests"] == [
        "test_it.py::test_it failed"
    ]
    other = passed(catalogue)
    other.others_failed = ["test_other.py::test_other"]
    assert failing(judged(whole, catalogue, other))["state-tests"] == ["test_other.py::test_other failed"]
    lost = passed(catalogue)
    lost.lost_workers = 1
    assert "workers of the test run died (1)" in failing(judged(whole, catalogue, lost))["state-tests"][0]


def test_a_state_test_without_a_recording_is_named(whole: Data, catalogue: Catalogue) -> None:
    """Synthetic input only is not met, unless the test is marked as logic."""
    said = failing(judged(whole, catalogue, passed(catalogue, played=0)))["recorded-days"]
    assert said[0].startswith("test_it.py::test_it replayed no recording")
    assert judged(whole, catalogue, passed(catalogue, played=0, logic=True)).met


def test_a_broken_corpus_is_not_met(whole: Data, catalogue: Catalogue) -> None:
    """What the corpus says is wrong with it is a reason each."""
    assert failing(judged(whole, catalogue, passed(catalogue), corpus=Kept(["a.json is gone"]))) == {
        "corpus": ["a.json is gone"]
    }


def test_a_corpus_that_holds_less_than_it_did_is_not_met(whole: Data, catalogue: Catalogue) -> None:
    """Its counts are thresholds of the lock file, in numbers; without a corpus named they are not asked for."""
    lock = Lock()
    lock.ratchet("regressions", 5, by="a", on=DAY, reason="kept")
    lock.ratchet("witnessed", 213, by="a", on=DAY, reason="kept")
    less = Kept(counts={"regressions": 5, "witnessed": 212})
    assert failing(judged(whole, catalogue, passed(catalogue), lock, corpus=less)) == {
        "corpus": ["witnessed are 212, should be at least 213: the corpus has shrunk without a reason"]
    }
    assert judged(whole, catalogue, passed(catalogue), lock, corpus=Kept(counts={**less.counts, "witnessed": 213})).met
    assert judged(whole, catalogue, passed(catalogue), lock).met


def test_thresholds_are_asked_for(whole: Data, catalogue: Catalogue) -> None:
    """The lock file's, and one given by hand."""
    lock = Lock()
    lock.ratchet("c1", 50.0, by="a", on=DAY, reason="reached")
    gate = judged(whole, catalogue, passed(catalogue), lock, fail_under=60)
    assert [reason.partition("should")[2] for reason in failing(gate)["coverage"]] == [
        " be at least 50%",
        " be at least 60%",
    ]


def test_an_invariant_without_occasion_is_not_met(whole: Data, catalogue: Catalogue) -> None:
    """VACUOUS and UNKNOWN fail, by name; a waiver lets one pass up to its date."""
    del whole.invariants["positions-agree"]
    whole.recorded = {"positions.Position"}
    del whole.invariants["clock-monotone"]
    said = failing(judged(whole, catalogue, passed(catalogue)))["catalogue"]
    assert [one.partition(":")[0] for one in said] == ["positions-agree is VACUOUS", "clock-monotone is UNKNOWN"]
    lock = Lock()
    for name in ("positions-agree", "clock-monotone"):
        lock.waive(Waiver(name=f"invariant {name}", until=DAY, reason="soon", by="me"), on=DAY)
    assert judged(whole, catalogue, passed(catalogue), lock).met
    late = failing(judged(whole, catalogue, passed(catalogue), lock, today=date(2024, 1, 3)))["catalogue"]
    assert all("its waiver ran out on 2024-01-02" in one for one in late)


def test_another_catalogue_is_not_met(whole: Data, catalogue: Catalogue) -> None:
    """Coverage and results must be of the catalogue that is now in force."""
    whole.catalogue = "old"
    assert "digest" in failing(judged(whole, catalogue, passed(catalogue)))
    stale = passed(catalogue)
    stale.catalogue = "older"
    assert len(failing(judged(whole, catalogue, stale))["digest"]) == 2


def test_a_production_only_cell_fails_by_name(whole: Data, catalogue: Catalogue) -> None:
    """And a lost one does, against a base."""
    seen = Data.empty(catalogue.digest, axes_in_use())
    seen.add_transition("overnight", CELL, 3, Witness(0, "journal.jsonl"))
    gate = judged(whole, catalogue, passed(catalogue), profile=seen)
    name = (
        "overnight in orders=unfilled, carried-partial=no, in-flight=cancel, unacknowledged=none, link=up, "
        "reconciliation=pending"
    )
    assert failing(gate)["carry-gap"][0].startswith(f"production has seen and no test has: {name} (the night passes: ")
    lock = Lock()
    lock.waive(Waiver(name=name, until=DAY, reason="soon", by="me"), on=DAY)
    assert judged(whole, catalogue, passed(catalogue), lock, profile=seen).met
    late = failing(judged(whole, catalogue, passed(catalogue), lock, profile=seen, today=date(2024, 1, 3)))
    assert late["carry-gap"][-1] == f"the waiver of {name} ran out on 2024-01-02"
    lost = failing(judged(whole, catalogue, passed(catalogue), base=seen))["base"]
    assert lost[0].startswith(f"this change loses {name}")


# -- the verbs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Data, catalogue: Catalogue) -> Path:
    """A folder with a coverage file and its results."""
    monkeypatch.chdir(tmp_path)
    whole.write(tmp_path / ".state-coverage.json")
    passed(catalogue).write(tmp_path / ".state-results.json")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code, and what was said on either stream."""
    code = main(list(arguments))
    told = capsys.readouterr()
    return code, told.out + told.err


def test_the_gate_says_one_line_a_reason(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes 0 and 1; JSON, JUnit XML and Markdown say the same."""
    assert said(capsys, "gate")[0] == 0
    code, out = said(capsys, "gate", "--junit", "g/junit.xml", "--summary", "g/gate.md", "--fail-under", "99")
    assert code == 1
    assert "c1 is 0.03%" in out
    suite = ET.parse(project / "g" / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("8", "1")
    assert "should be at least 99%" in next(suite.iter("failure")).get("message", "")
    summary = (project / "g" / "gate.md").read_text()
    assert "not met" in summary.splitlines()[0]
    assert "| restart:kill | 256 | 255 |" in summary
    code, out = said(capsys, "gate", "--json")
    assert (code, json.loads(out)["verdict"]) == (0, "met")


def test_the_gate_without_anything_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder where nothing has run it is not met, and no traceback."""
    monkeypatch.chdir(tmp_path)
    code, out = said(capsys, "gate")
    assert code == 1
    assert "run `pytest --state-cov`" in out
    assert "invariants are UNKNOWN" in out
    assert "not met: 2 reasons" in out
    (tmp_path / ".state-results.json").write_text("{}")
    assert said(capsys, "gate")[0] in (1, 2)
    (tmp_path / ".state-results.json").write_text("nonsense")
    code, out = said(capsys, "gate")
    assert code == 2
    assert out.startswith("holdover: .state-results.json: is no results file")


def test_the_gate_asks_the_corpus(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it is told is wrong is a reason; where this Holdover has no corpus that is a sentence."""
    parser = argparse.ArgumentParser()
    gate_verb.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["gate", "--corpus", "corpus"])
    assert gate_verb.run(arguments, check_corpus=lambda place: Kept([f"{place}: is empty"])) == 1
    assert "corpus: is empty" in capsys.readouterr().out
    assert gate_verb.run(arguments, check_corpus=lambda place: Kept()) == 0


def test_the_table_names_what_is_missing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Worst first, as a coverage table; in words when asked; not met under a number."""
    code, out = said(capsys, "coverage", "report", "--show-missing")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["Transition", "Cells", "Miss", "Cover"]
    assert "    open orders unfilled; no partial fill to carry; a cancel in flight;" in out
    assert [line for line in lines if line[:1].isalpha()][-1] is not None
    assert said(capsys, "coverage", "report", "--fail-under", "50")[0] == 1
    assert "1  orders=unfilled, carried-partial=no" in said(capsys, "coverage", "report", "--invariants")[1]
    code, out = said(capsys, "coverage", "report", "--json")
    assert json.loads(out)["c1"] == {"covered": 1, "of": 3072, "percent": 0.03}


def test_the_state_map_is_one_page(project: Path, capsys: pytest.CaptureFixture[str], whole: Data) -> None:
    """No script, nothing loaded; each place leads to a panel, and each panel is there once."""
    assert said(capsys, "coverage", "html", "--out", "map.html")[0] == 0
    page = (project / "map.html").read_text()
    assert "<script" not in page
    assert "http" not in page
    assert "tests/state/test_it.py::test_it" in page
    assert page == coverage_page(Numbers(whole, Lock(), Catalogue.load()), date.today())
    targets = [part.partition("'")[0] for part in page.split("href='#p")[1:]]
    panels = [part.partition("'")[0] for part in page.split("<section class='place' id='p")[1:]]
    assert sorted(set(targets)) == sorted(panels)


def test_files_are_combined_and_compared(
    project: Path, capsys: pytest.CaptureFixture[str], catalogue: Catalogue
) -> None:
    """`combine` adds up; `diff` names what is lost and ends with 1."""
    Data.empty(catalogue.digest, axes_in_use()).write(project / "empty.json")
    own = ".state-coverage.json"
    assert said(capsys, "coverage", "combine", own, own, "empty.json", "--out", "all.json")[0] == 0
    assert read(project / "all.json").transitions["restart:kill"][CELL].count == 2
    assert said(capsys, "coverage", "diff", own, "all.json")[0] == 0
    code, out = said(capsys, "coverage", "diff", own, "empty.json")
    assert code == 1
    assert "- restart:kill in orders=unfilled" in out
    assert "loses 2 and wins 0" in out
    (project / "cut.json").write_bytes((project / own).read_bytes()[:300])
    code, out = said(capsys, "coverage", "combine", own, "cut.json")
    assert code == 2
    assert out.startswith("holdover: cut.json: is cut off or damaged")


def test_rules_waivers_and_thresholds_go_through_the_verbs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Accept, retire, waive, ratchet; each recorded; bad ones are sentences."""
    who = ["--by", "me", "--reason", "because", "--today", "2024-01-02"]
    accept = ["coverage", "accept", "--name", "r", "--when", "orders=none", "--when", "in-flight=cancel,both"]
    assert said(capsys, *accept, *who)[0] == 0
    assert said(capsys, *accept, *who) == (2, "holdover: r: a rule of this name is accepted already\n")
    assert "no rule of this name is proposed" in said(capsys, "coverage", "accept", "--name", "x", *who)[1]
    assert (
        "is none of the axes"
        in said(capsys, *accept[:2], "--name", "y", "--when", "orders=no,x=1", "--when", "b=1", *who)[1]
    )
    assert said(capsys, "coverage", "waive", "--name", "gap", "--until", "2024-03-01", *who)[0] == 0
    assert "c2 100%" in said(capsys, "coverage", "ratchet", *who)[1]
    assert said(capsys, "coverage", "ratchet", "--lower", "c2=50", *who)[0] == 0
    assert "--reason is empty" in said(capsys, "coverage", "ratchet", "--lower", "c2=10", "--by", "me")[1]
    assert "should be NAME=N" in said(capsys, "coverage", "ratchet", "--lower", "c2", *who)[1]
    assert said(capsys, "coverage", "retire", "--name", "r", *who)[0] == 0
    text = (project / "state-coverage.toml").read_text()
    acts = [line.partition("= ")[2].strip('"') for line in text.splitlines() if line.startswith("act ")]
    assert acts == ["accepted", "waived", "threshold", "threshold", "threshold", "retired"]
    (project / "state-coverage.toml").write_text(text.replace("c2 = 50.0", "c2 = 5.0"))
    code, out = said(capsys, "gate")
    assert code == 2
    assert "threshold c2: was changed by hand" in out


def test_propose_and_axes_are_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both for reading and as JSON."""
    assert "0 proposals" in said(capsys, "coverage", "propose")[1]
    assert json.loads(said(capsys, "coverage", "propose", "--min", "1", "--json")[1])[0]["removes"] > 0
    assert "a partial fill to carry over the night" in said(capsys, "coverage", "axes")[1]
    assert len(json.loads(said(capsys, "coverage", "axes", "--json")[1])) >= 11


def test_profile_and_gap(project: Path, capsys: pytest.CaptureFixture[str], make_guard: Callable[..., Any]) -> None:
    """From a journal to the names of what is missing."""
    guard = make_guard(journal=Journal(project / "prod" / "journal.jsonl"))
    guard.boundary("overnight", "2024-01-02")
    guard.close()
    assert said(capsys, "coverage", "profile", "prod", "--out", "prod.json")[0] == 0
    code, out = said(capsys, "coverage", "gap", "prod.json")
    assert code == 1
    assert "overnight in orders=none" in out
    assert "2 seen in production and in no test" in out
    told = json.loads(said(capsys, "coverage", "gap", "prod.json", "--json")[1])
    assert len(told["gap"]) == 2
    for one in told["gap"]:
        assert (
            said(
                capsys,
                "coverage",
                "waive",
                "--name",
                one["name"],
                "--until",
                "2024-03-01",
                "--by",
                "me",
                "--reason",
                "r",
            )[0]
            == 0
        )
    assert said(capsys, "coverage", "gap", "prod.json", "--today", "2024-03-01")[0] == 0
    code, out = said(capsys, "coverage", "gap", "prod.json", "--today", "2024-03-02")
    assert code == 1
    assert "ran out on 2024-03-01" in out


# -- under pytest ---------------------------------------------------------------------------------------------------

SUITE = """
import pytest
from holdover.harness import PartialFill, first

@pytest.mark.state(instrument="BOLT", days=["2024-11-27"])
@pytest.mark.parametrize("kind", ["kill", "torn"])
def test_it(session, kind):
    session.begin()
    assert session.run(first(PartialFill), kill=True)
    session.restart(kind)
    session.run(session.clock.now_ns + 5_000_000_000)

@pytest.mark.state(instrument="BOLT", days=["2024-11-27"], faults=["forget-carried-partial"])
def test_broken(session):
    session.begin()

@pytest.mark.state(logic=True)
def test_logic():
    pass

def test_unmarked(tmp_path):
    from holdover.runtime import Guard
    Guard(tmp_path, channels=[]).boundary("end", "2024-11-27")
"""


@pytest.mark.slow
def test_workers_and_one_process_give_the_same_bytes(pytester: pytest.Pytester) -> None:
    """Under pytest-xdist and without: the same file, the same results; every guard is counted but the broken ones."""
    pytester.makepyfile(SUITE)
    found = []
    for name, more in (("one", ["-p", "no:xdist"]), ("two", ["-n", "2"])):
        told = pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", "--state-cov", "--state-cov-file", f"{name}-coverage.json", *more
        )
        told.assert_outcomes(passed=5)
        assert "C1 cell x transition" in told.stdout.str()
        assert "seeded faults: forget-carried-partial" in told.stdout.str()
        found.append([(pytester.path / f"{name}-{what}.json").read_bytes() for what in ("coverage", "results")])
    assert found[0] == found[1]
    data = read(pytester.path / "one-coverage.json")
    assert {label: len(cells) for label, cells in data.transitions.items()} == {
        "begin": 1,
        "end": 1,
        "restart:kill": 1,
        "restart:torn": 1,
    }
    tests = {one["test"].partition("::")[2]: one for one in json.loads(found[0][1])["tests"]}
    assert set(tests) == {"test_it[kill]", "test_it[torn]", "test_broken", "test_logic"}
    assert tests["test_it[kill]"]["played"] > 0
    assert tests["test_broken"]["played"] == 0


def test_the_options_make_a_run_fail(pytester: pytest.Pytester) -> None:
    """Under a number, against a gap and against a base; with the reason in the summary."""
    pytester.makepyfile(SUITE)
    only = ["-p", "no:cacheprovider", "-p", "no:xdist", "-k", "torn", "--state-cov-report=none"]
    first = pytester.runpytest_inprocess(
        *only[:4], "-k", "kill or torn", "--state-cov", "--state-cov-file", "base.json"
    )
    assert first.ret == 0
    told = pytester.runpytest_inprocess(*only, "--state-cov-fail-under", "50")
    assert told.ret == 1
    assert "should be at least 50%" in told.stdout.str()
    told = pytester.runpytest_inprocess(*only, "--state-cov-base", "base.json")
    assert told.ret == 1
    assert "this change loses restart:kill in orders=" in told.stdout.str()
    told = pytester.runpytest_inprocess(*only, "--state-cov-gap", "base.json", "--state-cov-report=json:j.json")
    assert told.ret == 1
    assert "production has seen and no test has: restart:kill in orders=" in told.stdout.str()
    assert json.loads((pytester.path / "j.json").read_text())["unwaived"]
    told = pytester.runpytest_inprocess(*only, "--state-cov-gap", "nowhere.json")
    assert told.ret == 4


def test_a_wrong_denominator_fails_the_run(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    """A rule that the run contradicts makes it fail, though every test has passed."""
    pytester.makepyfile(SUITE)
    accept = ["coverage", "accept", "--name", "never-torn", "--at", "restart:torn", "--reason", "we hope", "--by", "me"]
    assert main([*accept, "--when", "link=up"]) == 0
    told = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", "-k", "torn", "--state-cov")
    told.assert_outcomes(passed=1)
    assert told.ret == 1
    assert "denominator wrong: rule never-torn" in told.stdout.str()


def test_the_gate_runs_pytest_itself(pytester: pytest.Pytester, capfd: pytest.CaptureFixture[str]) -> None:
    """One command; what an earlier run left does not count, and standard output is the gate's alone."""
    pytester.makepyfile(SUITE)
    told = ["-p", "no:cacheprovider", "-k"]
    assert main(["gate", "--json", "--", *told, "torn or logic"]) == 1
    out = json.loads(capfd.readouterr().out)
    assert (out["state_tests"], out["checks"][0]["met"], out["checks"][1]["met"]) == (2, True, True)
    assert main(["gate", "--json", "--", *told, "unmarked"]) == 1
    out = json.loads(capfd.readouterr().out)
    assert out["checks"][0]["reasons"] == ["no state test ran; mark at least one with @pytest.mark.state"]
    assert main(["gate", "--", "--no-such-option"]) == 2
