"""Two faults, one after the other: a crash during the recovery from a crash, and what replays of it come to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from holdover.cli import main
from holdover.explore.pairs import Pairs, crossings
from holdover.explore.play import play
from holdover.explore.schedule import read_schedule
from holdover.explore.sweep import schedule_of
from holdover.explore.trial import Tried
from holdover.explore.walk import Ground, survey
from holdover.recording import bundled

DAYS = ["2024-11-27", "2024-11-29"]
SECOND_NS = 1_000_000_000
WINDOW = Ground(
    symbols=["ACME"],
    days=DAYS,
    day=DAYS[0],
    within_ns=2 * SECOND_NS,
    since=0.5,
    until=0.5002,
    prove_every=0,
    every=False,
)


def tried(place: Path, kinds: list[str], then: list[str], faults: list[str] | None = None) -> list[Tried]:
    """Every pair of some kinds in the window."""
    ground = msgspec.structs.replace(WINDOW, kinds=kinds, pairs=then, faults=faults or [])
    found = survey(ground, place / "survey", None)
    pairs = Pairs(ground, place / "pairs", None, found, 1, found.total + 1)
    try:
        pairs.go()
    finally:
        pairs.session.close()
    return pairs.tried


@pytest.mark.slow
def test_a_crash_during_the_recovery_from_a_crash_is_tried_at_every_class_of_it(tmp_path: Path) -> None:
    found = tried(tmp_path, ["kill"], ["kill"])
    assert found
    assert {one.verdict for one in found} <= {"transparent", "converged"}
    first = next(one for one in found if one.place == "mutation")
    recovery = [one.then for one in found if (one.place, one.n) == (first.place, first.n)]
    # Between the first crash and the end of the reconciliation there are the begin, the logon and four questions.
    assert len({(one.at, one.n) for one in recovery if one is not None}) > 20


@pytest.mark.slow
def test_the_correct_desk_holds_over_pairs_of_every_family(tmp_path: Path) -> None:
    found = tried(tmp_path / "torn", ["torn"], ["kill", "hold"])
    found += tried(tmp_path / "clean", ["clean"], ["kill", "clean", "disconnect"])
    named = {one.named for one in found}
    assert {"torn+kill", "torn+hold", "clean+kill", "clean+clean", "clean+disconnect"} <= named
    assert [one for one in found if one.verdict not in ("transparent", "converged")] == []


@pytest.mark.slow
def test_what_a_pair_finds_its_schedule_finds_again(tmp_path: Path) -> None:
    """Each pair does both of its faults, and comes to what the trial came to, in a session of its own."""
    faults = ["position-before-order"]
    found = tried(tmp_path, ["overnight-down"], ["kill"], faults)
    breaches = [one for one in found if one.verdict == "breach"]
    assert breaches, "the kill between two writes on the morning after was not found"
    held = [one for one in found if one.verdict != "breach"][::25]
    ground = msgspec.structs.replace(WINDOW, faults=faults)
    for one in [*breaches[:2], *held]:
        played = play(schedule_of(ground, one), tmp_path / "play", journal=False, scratch=True)
        assert played.done == 2
        assert played.mark == (f"{one.subsystem}/{one.invariant}" if one.verdict == "breach" else "")


def test_transitions_of_the_lifecycle_are_crossed_first() -> None:
    ground = msgspec.structs.replace(WINDOW, kinds=["lose", "kill", "clean"], pairs=["hold", "kill"])
    crossed = [(one.kinds, one.pairs) for one in crossings(ground)]
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
    out = tmp_path / "out"
    told = f"sweep --instrument ACME --kinds overnight-down --pairs kill --within 2 --out {out}"
    told += " --since 0.05 --until 0.0502 --fault position-before-order --workers 1"
    assert main(told.split()) == 1
    text = capsys.readouterr().out
    assert "overnight-down, then kill" in text
    assert "every pair" in text
    schedule = read_schedule(out / "found-0.json")
    assert play(schedule, tmp_path / "again", store=bundled(), journal=False).mark == schedule.expect
    logs = [path.read_bytes() for path in out.glob("crossing-*/sweep.jsonl")]
    assert main(told.split()) == 1
    assert [path.read_bytes() for path in out.glob("crossing-*/sweep.jsonl")] == logs


def test_a_window_that_is_none_is_refused(tmp_path: Path) -> None:
    assert main(["sweep", "--pairs", "kill", "--since", "0.6", "--until", "0.5", "--out", str(tmp_path / "o")]) == 2
    assert main(["sweep", "--pairs", "knock", "--out", str(tmp_path / "o")]) == 2
