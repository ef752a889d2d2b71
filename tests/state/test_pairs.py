"""Two faults, one after the other: a crash during the recovery from a crash, and what replays of it come to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from holdover.cli import main
from holdover.explore.judge import TrialResult
from holdover.explore.pairs import SecondFaults, split_crossings
from holdover.explore.sweep import schedule_from_result
from holdover.explore.trial import TrialRunner
from holdover.explore.walk import SweepSpec, survey_day
from holdover.harness.player import play
from holdover.harness.schedule import read_schedule
from holdover.recording import bundled_store

DAYS = ["2024-11-27", "2024-11-29"]
SECOND_NS = 1_000_000_000
WINDOW = SweepSpec(
    symbols=["ACME"],
    days=DAYS,
    day=DAYS[0],
    pair_window_ns=2 * SECOND_NS,
    begin_fraction=0.5,
    end_fraction=0.5002,
    prove_every=0,
    every_mutation=False,
)


def run_pairs(
    directory: Path, kinds: list[str], second_kinds: list[str], faults: list[str] | None = None
) -> list[TrialResult]:
    """Every pair of some kinds in the window."""
    spec = msgspec.structs.replace(WINDOW, kinds=kinds, pairs=second_kinds, faults=faults or [])
    survey_map = survey_day(spec, directory / "survey", None)
    count = survey_map.point_count
    pairs = TrialRunner(spec, directory / "pairs", None, survey_map, 1, count + 1, SecondFaults(spec))
    try:
        pairs.run()
    finally:
        pairs.session.close()
    return pairs.results


@pytest.mark.slow
def test_a_crash_during_the_recovery_from_a_crash_is_tried_at_every_class_of_it(tmp_path: Path) -> None:
    results = run_pairs(tmp_path, ["kill"], ["kill"])
    assert results
    assert {result.verdict for result in results} <= {"transparent", "converged"}
    first = next(result for result in results if result.at == "mutation")
    recovery = [result.second for result in results if (result.at, result.n) == (first.at, first.n)]
    # Between the first crash and the end of the reconciliation there are the begin, the logon and four questions.
    assert len({(operation.at, operation.n) for operation in recovery if operation is not None}) > 20


@pytest.mark.slow
def test_the_correct_desk_holds_over_pairs_of_every_family(tmp_path: Path) -> None:
    results = run_pairs(tmp_path / "torn", ["torn"], ["kill", "hold"])
    results += run_pairs(tmp_path / "clean", ["clean"], ["kill", "clean", "disconnect"])
    named = {result.kind_name for result in results}
    assert {"torn+kill", "torn+hold", "clean+kill", "clean+clean", "clean+disconnect"} <= named
    assert [result for result in results if result.verdict not in ("transparent", "converged")] == []


@pytest.mark.slow
def test_what_a_pair_finds_its_schedule_finds_again(tmp_path: Path) -> None:
    """Each pair does both of its faults, and comes to what the trial came to, in a session of its own."""
    faults = ["position-before-order"]
    results = run_pairs(tmp_path, ["overnight-down"], ["kill"], faults)
    breaches = [result for result in results if result.verdict == "breach"]
    assert breaches, "the kill between two writes on the morning after was not found"
    sound_results = [result for result in results if result.verdict != "breach"][::25]
    spec = msgspec.structs.replace(WINDOW, faults=faults)
    for result in [*breaches[:2], *sound_results]:
        played = play(schedule_from_result(spec, result), tmp_path / "play", journal=False, scratch=True)
        assert played.operations_done == 2
        assert played.mark == (f"{result.subsystem}/{result.invariant}" if result.verdict == "breach" else "")


def test_transitions_of_the_lifecycle_are_crossed_first() -> None:
    spec = msgspec.structs.replace(WINDOW, kinds=["lose", "kill", "clean"], pairs=["hold", "kill"])
    crossed = [(crossing.kinds, crossing.pairs) for crossing in split_crossings(spec)]
    assert crossed == [
        (["kill", "clean"], ["kill"]),
        (["kill", "clean"], ["hold"]),
        (["lose"], ["kill"]),
        (["lose"], ["hold"]),
    ]


@pytest.mark.slow
def test_the_command_tells_the_pairs_and_goes_on_from_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out_directory = tmp_path / "out"
    command = f"sweep --instrument ACME --kinds overnight-down --pairs kill --within 2 --out {out_directory}"
    command += " --since 0.05 --until 0.0502 --fault position-before-order --workers 1"
    assert main(command.split()) == 1
    text = capsys.readouterr().out
    assert "overnight-down, then kill" in text
    assert "every pair" in text
    schedule = read_schedule(out_directory / "found-0.json")
    assert play(schedule, tmp_path / "again", store=bundled_store(), journal=False).mark == schedule.expect
    logs = [path.read_bytes() for path in out_directory.glob("crossing-*/sweep.jsonl")]
    assert main(command.split()) == 1
    assert [path.read_bytes() for path in out_directory.glob("crossing-*/sweep.jsonl")] == logs


def test_a_window_that_is_none_is_refused(tmp_path: Path) -> None:
    assert main(["sweep", "--pairs", "kill", "--since", "0.6", "--until", "0.5", "--out", str(tmp_path / "o")]) == 2
    assert main(["sweep", "--pairs", "knock", "--out", str(tmp_path / "o")]) == 2
