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
from holdover.coverage import CellWitness, CoverageData, CoverageLock, CoverageNumbers, Waiver, read_coverage
from holdover.coverage.gate import CorpusStatus, Gate, judge_gate
from holdover.coverage.results import ResultsError, StateTest, StateTestResults, read_results
from holdover.report import coverage_page
from holdover.runtime import Journal
from holdover.runtime.axes import axes_in_use

DAY = date(2024, 1, 2)
CELL = "1010022110" + "0"
"""An order unfilled, a cancel in flight, the link up; in a session, not reconciled."""


@pytest.fixture
def whole(catalogue: Catalogue) -> CoverageData:
    """A run in which every invariant had occasion and one kill was covered."""
    data = CoverageData.empty(catalogue.digest, axes_in_use())
    witness = CellWitness(1, "tests/state/test_it.py::test_it", ("restart:kill@7",))
    data.add_visit(CELL, 1, witness)
    data.add_transition("restart:kill", CELL, 1, witness)
    data.add_pair("begin > restart:kill", 1, witness)
    for invariant in catalogue:
        data.add_activation(invariant.name, CELL, 1)
    return data


def passing_results(catalogue: Catalogue, **fields: Any) -> StateTestResults:
    """One state test that passed on a recorded day."""
    test_fields = {"outcome": "passed", "events_played": 100, **fields}
    return StateTestResults(catalogue=catalogue.digest, tests=[StateTest("test_it.py::test_it", **test_fields)])


def judge_run(
    data: CoverageData,
    catalogue: Catalogue,
    results: StateTestResults | None,
    lock: CoverageLock | None = None,
    **options: Any,
) -> Gate:
    """The gate over a run."""
    about = {name: options.pop(name) for name in ("profile", "base") if name in options}
    return judge_gate(
        CoverageNumbers(data, lock or CoverageLock(), catalogue, **about), results, options.pop("today", DAY), **options
    )


def failing_checks(gate: Gate) -> dict[str, list[str]]:
    """The checks that are not met, with their reasons."""
    return {check.name: check.reasons for check in gate.checks if not check.is_met}


def test_a_whole_run_meets_the_gate(whole: CoverageData, catalogue: Catalogue) -> None:
    """Nothing is asked for that this run has not."""
    assert judge_run(whole, catalogue, passing_results(catalogue), corpus=CorpusStatus()).is_met


def test_no_state_test_is_not_met(whole: CoverageData, catalogue: Catalogue) -> None:
    """No file, no test, only skipped ones, a failed one, a dead worker."""
    assert "no results" in failing_checks(judge_run(whole, catalogue, None))["state-tests"][0]
    assert "no state test ran" in failing_checks(judge_run(whole, catalogue, StateTestResults()))["state-tests"][0]
    assert (
        "no state test ran"
        in failing_checks(judge_run(whole, catalogue, passing_results(catalogue, outcome="skipped")))["state-tests"][0]
    )
    assert failing_checks(judge_run(whole, catalogue, passing_results(catalogue, outcome="failed")))["state-tests"] == [
        "test_it.py::test_it failed"
    ]
    results = passing_results(catalogue)
    results.failed_other_tests = ["test_other.py::test_other"]
    assert failing_checks(judge_run(whole, catalogue, results))["state-tests"] == ["test_other.py::test_other failed"]
    lost_results = passing_results(catalogue)
    lost_results.lost_workers = 1
    assert (
        "workers of the test run died (1)"
        in failing_checks(judge_run(whole, catalogue, lost_results))["state-tests"][0]
    )


def test_a_state_test_without_a_recording_is_named(whole: CoverageData, catalogue: Catalogue) -> None:
    """Synthetic input only is not met, unless the test is marked as logic."""
    reasons = failing_checks(judge_run(whole, catalogue, passing_results(catalogue, events_played=0)))["recorded-days"]
    assert reasons[0].startswith("test_it.py::test_it replayed no recording")
    assert judge_run(whole, catalogue, passing_results(catalogue, events_played=0, is_logic=True)).is_met


def test_a_broken_corpus_is_not_met(whole: CoverageData, catalogue: Catalogue) -> None:
    """What the corpus says is wrong with it is a reason each."""
    assert failing_checks(
        judge_run(whole, catalogue, passing_results(catalogue), corpus=CorpusStatus(["a.json is gone"]))
    ) == {"corpus": ["a.json is gone"]}


def test_a_corpus_that_holds_less_than_it_did_is_not_met(whole: CoverageData, catalogue: Catalogue) -> None:
    """Its counts are thresholds of the lock file, in numbers; without a corpus named they are not asked for."""
    lock = CoverageLock()
    lock.ratchet("regressions", 5, by="a", day=DAY, reason="kept")
    lock.ratchet("witnessed", 213, by="a", day=DAY, reason="kept")
    shrunk = CorpusStatus(counts={"regressions": 5, "witnessed": 212})
    assert failing_checks(judge_run(whole, catalogue, passing_results(catalogue), lock, corpus=shrunk)) == {
        "corpus": ["witnessed are 212, should be at least 213: the corpus has shrunk without a reason"]
    }
    assert judge_run(
        whole,
        catalogue,
        passing_results(catalogue),
        lock,
        corpus=CorpusStatus(counts={**shrunk.counts, "witnessed": 213}),
    ).is_met
    assert judge_run(whole, catalogue, passing_results(catalogue), lock).is_met


def test_thresholds_are_asked_for(whole: CoverageData, catalogue: Catalogue) -> None:
    """The lock file's, and one given by hand."""
    lock = CoverageLock()
    lock.ratchet("c1", 50.0, by="a", day=DAY, reason="reached")
    gate = judge_run(whole, catalogue, passing_results(catalogue), lock, fail_under=60)
    assert [reason.partition("should")[2] for reason in failing_checks(gate)["coverage"]] == [
        " be at least 50%",
        " be at least 60%",
    ]


def test_an_invariant_without_occasion_is_not_met(whole: CoverageData, catalogue: Catalogue) -> None:
    """VACUOUS and UNKNOWN fail, by name; a waiver lets one pass up to its date."""
    del whole.invariants["positions-agree"]
    whole.recorded_kinds = {"positions.Position"}
    del whole.invariants["clock-monotone"]
    reasons = failing_checks(judge_run(whole, catalogue, passing_results(catalogue)))["catalogue"]
    assert [reason.partition(":")[0] for reason in reasons] == [
        "positions-agree is VACUOUS",
        "clock-monotone is UNKNOWN",
    ]
    lock = CoverageLock()
    for name in ("positions-agree", "clock-monotone"):
        lock.waive(Waiver(name=f"invariant {name}", last_day=DAY, reason="soon", by="me"), day=DAY)
    assert judge_run(whole, catalogue, passing_results(catalogue), lock).is_met
    late = failing_checks(judge_run(whole, catalogue, passing_results(catalogue), lock, today=date(2024, 1, 3)))[
        "catalogue"
    ]
    assert all("its waiver ran out on 2024-01-02" in reason for reason in late)


def test_another_catalogue_is_not_met(whole: CoverageData, catalogue: Catalogue) -> None:
    """Coverage and results must be of the catalogue that is now in force."""
    whole.catalogue = "old"
    assert "digest" in failing_checks(judge_run(whole, catalogue, passing_results(catalogue)))
    stale = passing_results(catalogue)
    stale.catalogue = "older"
    assert len(failing_checks(judge_run(whole, catalogue, stale))["digest"]) == 2


def test_a_production_only_cell_fails_by_name(whole: CoverageData, catalogue: Catalogue) -> None:
    """And a lost one does, against a base."""
    production_data = CoverageData.empty(catalogue.digest, axes_in_use())
    production_data.add_transition("overnight", CELL, 3, CellWitness(0, "journal.jsonl"))
    gate = judge_run(whole, catalogue, passing_results(catalogue), profile=production_data)
    name = (
        "overnight in orders=unfilled, carried-partial=no, in-flight=cancel, unacknowledged=none, link=up, "
        "reconciliation=pending"
    )
    assert failing_checks(gate)["carry-gap"][0].startswith(
        f"production has seen and no test has: {name} (the night passes: "
    )
    lock = CoverageLock()
    lock.waive(Waiver(name=name, last_day=DAY, reason="soon", by="me"), day=DAY)
    assert judge_run(whole, catalogue, passing_results(catalogue), lock, profile=production_data).is_met
    late = failing_checks(
        judge_run(whole, catalogue, passing_results(catalogue), lock, profile=production_data, today=date(2024, 1, 3))
    )
    assert late["carry-gap"][-1] == f"the waiver of {name} ran out on 2024-01-02"
    reasons = failing_checks(judge_run(whole, catalogue, passing_results(catalogue), base=production_data))["base"]
    assert reasons[0].startswith(f"this change loses {name}")


# -- the verbs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: CoverageData, catalogue: Catalogue) -> Path:
    """A folder with a coverage file and its results."""
    monkeypatch.chdir(tmp_path)
    whole.write(tmp_path / ".state-coverage.json")
    passing_results(catalogue).write(tmp_path / ".state-results.json")
    return tmp_path


def run_verb(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code, and what was said on either stream."""
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_gate_says_one_line_a_reason(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes 0 and 1; JSON, JUnit XML and Markdown say the same."""
    assert run_verb(capsys, "gate")[0] == 0
    code, output = run_verb(capsys, "gate", "--junit", "g/junit.xml", "--summary", "g/gate.md", "--fail-under", "99")
    assert code == 1
    assert "c1 is 0.03%" in output
    suite = ET.parse(project / "g" / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("8", "1")
    assert "should be at least 99%" in next(suite.iter("failure")).get("message", "")
    summary = (project / "g" / "gate.md").read_text()
    assert "not met" in summary.splitlines()[0]
    assert "| restart:kill | 256 | 255 |" in summary
    code, output = run_verb(capsys, "gate", "--json")
    assert (code, json.loads(output)["verdict"]) == (0, "met")


def test_the_gate_without_anything_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder where nothing has run it is not met, and no traceback."""
    monkeypatch.chdir(tmp_path)
    code, output = run_verb(capsys, "gate")
    assert code == 1
    assert "run `pytest --state-cov`" in output
    assert "invariants are UNKNOWN" in output
    assert "not met: 2 reasons" in output
    (tmp_path / ".state-results.json").write_text("{}")
    assert run_verb(capsys, "gate")[0] in (1, 2)
    (tmp_path / ".state-results.json").write_text("nonsense")
    code, output = run_verb(capsys, "gate")
    assert code == 2
    assert output.startswith("holdover: .state-results.json: is no results file")


def test_the_gate_asks_the_corpus(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it is told is wrong is a reason; where this Holdover has no corpus that is a sentence."""
    parser = argparse.ArgumentParser()
    gate_verb.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["gate", "--corpus", "corpus"])
    assert gate_verb.run(arguments, check_corpus=lambda place: CorpusStatus([f"{place}: is empty"])) == 1
    assert "corpus: is empty" in capsys.readouterr().out
    assert gate_verb.run(arguments, check_corpus=lambda place: CorpusStatus()) == 0


def test_the_table_names_what_is_missing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Worst first, as a coverage table; in words when asked; not met under a number."""
    code, output = run_verb(capsys, "coverage", "report", "--show-missing")
    assert code == 0
    lines = output.splitlines()
    assert lines[0].split() == ["Transition", "Cells", "Miss", "Cover"]
    assert "    open orders unfilled; no partial fill to carry; a cancel in flight;" in output
    assert [line for line in lines if line[:1].isalpha()][-1] is not None
    assert run_verb(capsys, "coverage", "report", "--fail-under", "50")[0] == 1
    assert "1  orders=unfilled, carried-partial=no" in run_verb(capsys, "coverage", "report", "--invariants")[1]
    code, output = run_verb(capsys, "coverage", "report", "--json")
    assert json.loads(output)["c1"] == {"covered": 1, "of": 3072, "percent": 0.03}


def test_the_state_map_is_one_page(project: Path, capsys: pytest.CaptureFixture[str], whole: CoverageData) -> None:
    """No script, nothing loaded; each place leads to a panel, and each panel is there once."""
    assert run_verb(capsys, "coverage", "html", "--out", "map.html")[0] == 0
    page = (project / "map.html").read_text()
    assert "<script" not in page
    assert "http" not in page
    assert "tests/state/test_it.py::test_it" in page
    assert page == coverage_page(CoverageNumbers(whole, CoverageLock(), Catalogue.load()), date.today())
    targets = [part.partition('"')[0] for part in page.split('href="#p')[1:]]
    panels = [part.partition('"')[0] for part in page.split('<section class="panel" id="p')[1:]]
    assert sorted(set(targets)) == sorted(panels)


def test_files_are_combined_and_compared(
    project: Path, capsys: pytest.CaptureFixture[str], catalogue: Catalogue
) -> None:
    """`combine` adds up; `diff` names what is lost and ends with 1."""
    CoverageData.empty(catalogue.digest, axes_in_use()).write(project / "empty.json")
    coverage_file = ".state-coverage.json"
    assert (
        run_verb(capsys, "coverage", "combine", coverage_file, coverage_file, "empty.json", "--out", "all.json")[0] == 0
    )
    assert read_coverage(project / "all.json").transitions["restart:kill"][CELL].count == 2
    assert run_verb(capsys, "coverage", "diff", coverage_file, "all.json")[0] == 0
    code, output = run_verb(capsys, "coverage", "diff", coverage_file, "empty.json")
    assert code == 1
    assert "- restart:kill in orders=unfilled" in output
    assert "loses 2 and gains 0" in output
    (project / "cut.json").write_bytes((project / coverage_file).read_bytes()[:300])
    code, output = run_verb(capsys, "coverage", "combine", coverage_file, "cut.json")
    assert code == 2
    assert output.startswith("holdover: cut.json: is cut off or damaged")


def test_rules_waivers_and_thresholds_go_through_the_verbs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Accept, retire, waive, ratchet; each recorded; bad ones are sentences."""
    signature = ["--by", "me", "--reason", "because", "--today", "2024-01-02"]
    accept = ["coverage", "accept", "--name", "r", "--when", "orders=none", "--when", "in-flight=cancel,both"]
    assert run_verb(capsys, *accept, *signature)[0] == 0
    assert run_verb(capsys, *accept, *signature) == (2, "holdover: r: a rule of this name is accepted already\n")
    assert "no rule of this name is proposed" in run_verb(capsys, "coverage", "accept", "--name", "x", *signature)[1]
    assert (
        "is none of the axes"
        in run_verb(capsys, *accept[:2], "--name", "y", "--when", "orders=no,x=1", "--when", "b=1", *signature)[1]
    )
    assert run_verb(capsys, "coverage", "waive", "--name", "gap", "--until", "2024-03-01", *signature)[0] == 0
    assert "c2 100%" in run_verb(capsys, "coverage", "ratchet", *signature)[1]
    assert run_verb(capsys, "coverage", "ratchet", "--lower", "c2=50", *signature)[0] == 0
    assert "--reason is empty" in run_verb(capsys, "coverage", "ratchet", "--lower", "c2=10", "--by", "me")[1]
    assert "should be NAME=N" in run_verb(capsys, "coverage", "ratchet", "--lower", "c2", *signature)[1]
    assert run_verb(capsys, "coverage", "retire", "--name", "r", *signature)[0] == 0
    text = (project / "state-coverage.toml").read_text()
    actions = [line.partition("= ")[2].strip('"') for line in text.splitlines() if line.startswith("action ")]
    assert actions == ["accepted", "waived", "threshold", "threshold", "threshold", "retired"]
    (project / "state-coverage.toml").write_text(text.replace("c2 = 50.0", "c2 = 5.0"))
    code, output = run_verb(capsys, "gate")
    assert code == 2
    assert "threshold c2: was changed by hand" in output


def test_propose_and_axes_are_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both for reading and as JSON."""
    assert "0 proposals" in run_verb(capsys, "coverage", "propose")[1]
    assert json.loads(run_verb(capsys, "coverage", "propose", "--min", "1", "--json")[1])[0]["removes"] > 0
    assert "a partial fill to carry over the night" in run_verb(capsys, "coverage", "axes")[1]
    assert len(json.loads(run_verb(capsys, "coverage", "axes", "--json")[1])) >= 11


def test_profile_and_gap(project: Path, capsys: pytest.CaptureFixture[str], make_guard: Callable[..., Any]) -> None:
    """From a journal to the names of what is missing."""
    guard = make_guard(journal=Journal(project / "prod" / "journal.jsonl"))
    guard.boundary("overnight", "2024-01-02")
    guard.close()
    assert run_verb(capsys, "coverage", "profile", "prod", "--out", "prod.json")[0] == 0
    code, output = run_verb(capsys, "coverage", "gap", "prod.json")
    assert code == 1
    assert "overnight in orders=none" in output
    assert "2 reached in production and in no test" in output
    report = json.loads(run_verb(capsys, "coverage", "gap", "prod.json", "--json")[1])
    assert len(report["gap"]) == 2
    for gap in report["gap"]:
        assert (
            run_verb(
                capsys,
                "coverage",
                "waive",
                "--name",
                gap["name"],
                "--until",
                "2024-03-01",
                "--by",
                "me",
                "--reason",
                "r",
            )[0]
            == 0
        )
    assert run_verb(capsys, "coverage", "gap", "prod.json", "--today", "2024-03-01")[0] == 0
    code, output = run_verb(capsys, "coverage", "gap", "prod.json", "--today", "2024-03-02")
    assert code == 1
    assert "ran out on 2024-03-01" in output


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
    file_contents = []
    for name, options in (("one", ["-p", "no:xdist"]), ("two", ["-n", "2"])):
        result = pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", "--state-cov", "--state-cov-file", f"{name}-coverage.json", *options
        )
        result.assert_outcomes(passed=5)
        assert "C1 cell x transition" in result.stdout.str()
        assert "seeded faults: forget-carried-partial" in result.stdout.str()
        file_contents.append([(pytester.path / f"{name}-{kind}.json").read_bytes() for kind in ("coverage", "results")])
    assert file_contents[0] == file_contents[1]
    data = read_coverage(pytester.path / "one-coverage.json")
    assert {label: len(cells) for label, cells in data.transitions.items()} == {
        "begin": 1,
        "end": 1,
        "restart:kill": 1,
        "restart:torn": 1,
    }
    tests = {
        test_entry["test"].partition("::")[2]: test_entry for test_entry in json.loads(file_contents[0][1])["tests"]
    }
    assert set(tests) == {"test_it[kill]", "test_it[torn]", "test_broken", "test_logic"}
    assert tests["test_it[kill]"]["events_played"] > 0
    assert tests["test_broken"]["events_played"] == 0


def test_the_options_make_a_run_fail(pytester: pytest.Pytester) -> None:
    """Under a number, against a gap and against a base; with the reason in the summary."""
    pytester.makepyfile(SUITE)
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-k", "torn", "--state-cov-report=none"]
    first = pytester.runpytest_inprocess(
        *options[:4], "-k", "kill or torn", "--state-cov", "--state-cov-file", "base.json"
    )
    assert first.ret == 0
    result = pytester.runpytest_inprocess(*options, "--state-cov-fail-under", "50")
    assert result.ret == 1
    assert "should be at least 50%" in result.stdout.str()
    result = pytester.runpytest_inprocess(*options, "--state-cov-base", "base.json")
    assert result.ret == 1
    assert "this change loses restart:kill in orders=" in result.stdout.str()
    result = pytester.runpytest_inprocess(*options, "--state-cov-gap", "base.json", "--state-cov-report=json:j.json")
    assert result.ret == 1
    assert "production has seen and no test has: restart:kill in orders=" in result.stdout.str()
    assert json.loads((pytester.path / "j.json").read_text())["unwaived"]
    result = pytester.runpytest_inprocess(*options, "--state-cov-gap", "nowhere.json")
    assert result.ret == 4


def test_a_wrong_denominator_fails_the_run(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    """A rule that the run contradicts makes it fail, though every test has passed."""
    pytester.makepyfile(SUITE)
    accept = ["coverage", "accept", "--name", "never-torn", "--at", "restart:torn", "--reason", "we hope", "--by", "me"]
    assert main([*accept, "--when", "link=up"]) == 0
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", "-k", "torn", "--state-cov")
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    assert "denominator wrong: rule never-torn" in result.stdout.str()


def test_the_gate_runs_pytest_itself(pytester: pytest.Pytester, capfd: pytest.CaptureFixture[str]) -> None:
    """One command; what an earlier run left does not count, and standard output is the gate's alone."""
    pytester.makepyfile(SUITE)
    options = ["-p", "no:cacheprovider", "-k"]
    assert main(["gate", "--json", "--", *options, "torn or logic"]) == 1
    gate_json = json.loads(capfd.readouterr().out)
    assert (gate_json["state_tests"], gate_json["checks"][0]["met"], gate_json["checks"][1]["met"]) == (2, True, True)
    assert main(["gate", "--json", "--", *options, "unmarked"]) == 1
    gate_json = json.loads(capfd.readouterr().out)
    assert gate_json["checks"][0]["reasons"] == ["no state test ran; mark at least one with @pytest.mark.state"]
    assert main(["gate", "--", "--no-such-option"]) == 2


def test_results_of_a_former_version_are_refused(tmp_path: Path) -> None:
    """The sentence names both versions and the command that writes the file again."""
    path = tmp_path / "results.json"
    path.write_text('{"magic": "holdover-state-results", "version": 1, "tests": [{"test": "t", "outcome": "passed"}]}')
    with pytest.raises(ResultsError, match="written as version 1, this Holdover reads version 2; run `pytest"):
        read_results(path)
