"""The corpus: every schedule that once showed something holds, every witness reaches its cells; nothing goes unsaid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.coverage import find_lock, read_lock
from holdover.explore import Operation, play, schedule_on
from holdover.explore.corpus import WITNESSES, BadCorpus, Corpus, replay
from holdover.explore.schedule import BadSchedule, Schedule
from holdover.explore.witness import Candidate, Reached, Witnesses, cover, reach
from holdover.recording import BadRecording, RecordingStore, bundled
from tests.days import short_days

AXES = ["orders", "link"]
CORPUS = Corpus(Path(__file__).resolve().parents[2] / "corpus")


def _is_bundled(schedule: Schedule) -> bool:
    try:
        return all(bundled().get(one.symbol, one.trade_date).digest == one.digest for one in schedule.recordings)
    except BadRecording:
        return False


PLAYED = {name: schedule for name, schedule in CORPUS.schedules() if _is_bundled(schedule)}


def test_the_corpus_is_whole() -> None:
    """Nothing in it has been emptied, taken away, changed or slipped in."""
    assert CORPUS.check() == []


@pytest.mark.parametrize("name", PLAYED)
def test_every_schedule_of_the_corpus_holds(tmp_path: Path, catalogue: Catalogue, name: str) -> None:
    """What has failed once does not fail again."""
    played = play(PLAYED[name], tmp_path / "run", catalogue=catalogue, journal=False, scratch=True)
    assert [one.explanation for one in played.breaches] == []
    assert played.crash == ""
    assert played.verdict == "holds"


@pytest.mark.slow
def test_every_witness_reaches_its_cells(tmp_path: Path, catalogue: Catalogue) -> None:
    """Of the committed ones each third, by the axes of the lock file, without a breach; the gate plays all of them."""
    held = CORPUS.witnesses()
    lock = read_lock(find_lock(CORPUS.directory.parent))
    assert held.head.axes == lock.axes
    assert CORPUS.counts()["witnessed"] >= lock.thresholds["witnessed"] > 0
    for one in held.lines[::3]:
        reached = reach(held.schedule(one), bundled(), tmp_path / "run", held.head.axes, catalogue)
        assert reached.marks == []
        assert set(one.reaches) - reached.cells.keys() == set()


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> RecordingStore:
    """A short day of BOLT."""
    return short_days(tmp_path_factory.mktemp("days"), "BOLT", 4)


@pytest.fixture
def made(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> Corpus:
    """A corpus of one regression and two witnesses."""
    corpus = Corpus(tmp_path / "corpus")
    corpus.add(killed(days, catalogue, 100), "regressions/one.json", "it failed once")
    held = Witnesses(AXES)
    for second, cells in ((50, ["restart:kill unfilled up"]), (60, ["being unfilled up", "being unfilled down"])):
        held.add(killed(days, catalogue, second), cells)
    corpus.keep(held)
    return Corpus(tmp_path / "corpus")


def killed(days: RecordingStore, catalogue: Catalogue, second: int, **fields: object) -> Schedule:
    """A schedule of one kill."""
    kill = Operation(at="second", n=second, do="kill")
    return schedule_on(days, ["BOLT"], ["2024-11-27"], catalogue, operations=[kill], **fields)


def test_witnesses_are_read_as_they_were_written(made: Corpus, days: RecordingStore, catalogue: Catalogue) -> None:
    """A line a witness, with its days by name; and the very schedule comes out of it."""
    lines = (made.directory / WITNESSES).read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[1])["on"] == ["BOLT 2024-11-27"]
    held = made.witnesses()
    assert {held.schedule(one).operations[0].n for one in held.lines} == {50, 60}
    assert held.schedule(held.lines[0]).recordings == killed(days, catalogue, 1).recordings
    assert made.check() == []
    assert made.counts() == {"regressions": 1, "witnessed": 3}


def test_witnesses_that_go_unsaid_are_a_problem(made: Corpus) -> None:
    """The file gone, a line gone, a cell gone, or a file that nobody has listed."""
    path = made.directory / WITNESSES
    whole = path.read_bytes()
    path.write_bytes(b"\n".join(whole.splitlines()[:-1]) + b"\n")
    assert "1 witnesses of" in made.check()[0]
    assert "should be 2 of 3" in made.check()[0]
    path.write_bytes(whole.replace(b'"being unfilled up"', b'"being none up"'))
    assert "was changed by hand" in made.check()[0]
    path.write_bytes(whole.replace(b'"being unfilled up"', b'"restart:kill unfilled up"'))
    assert "has two witnesses" in made.check()[0]
    path.write_bytes(b"nonsense")
    assert "no witness" in made.check()[0]
    path.unlink()
    assert made.check() == [f"{WITNESSES}: is gone, with the witnesses of 3 cells"]
    path.write_bytes(whole)
    shutil.copy(path, made.directory.parent / WITNESSES)
    assert "is not on the list" in Corpus(made.directory.parent).check()[-1]


def test_a_cell_is_let_go_only_with_a_reason(made: Corpus) -> None:
    """By its name, or with its witness; it counts as held, and has one again when it is found again."""
    with pytest.raises(BadCorpus, match="reason and a name"):
        made.retire("being unfilled up", "", "kim")
    with pytest.raises(BadCorpus, match="is not in the corpus"):
        made.retire("being nowhere", "no", "kim")
    made.retire("being unfilled up", "the desk is never there", "kim")
    again = Corpus(made.directory)
    assert again.check() == []
    assert again.retired_cells["being unfilled up"].by == "kim"
    assert again.counts()["witnessed"] == 3
    name = again.witnesses().cells["restart:kill unfilled up"]
    again.retire(name, "nor there", "kim")
    assert len(again.witnesses().lines) == 1
    held = again.witnesses()
    held.lines = [held.lines[0].replace(reaches=["being unfilled down", "being unfilled up"])]
    again.keep(held)
    assert list(again.retired_cells) == ["restart:kill unfilled up"]


def test_a_witness_that_does_not_reach_its_cell_is_named(
    made: Corpus, tmp_path: Path, days: RecordingStore, catalogue: Catalogue
) -> None:
    """By cell and witness; a regression that breaches again is named, too; what is late is told."""
    whole = replay(made, tmp_path, catalogue=catalogue, recordings=days)
    assert (whole.problems, whole.schedules, whole.witnesses) == ([], 1, 2)
    held = made.witnesses()
    wrong = held.lines[0]
    held.lines[0] = wrong.replace(reaches=[*wrong.reaches, "restart:stale partial up"])
    made.keep(held)
    made.add(killed(days, catalogue, 90, faults=["snapshot-then-fills-again"]), "regressions/two.json", "it did")
    told = replay(made, tmp_path, catalogue=catalogue, recordings=days)
    assert [one.partition(":")[0] for one in told.breached] == ["regressions/two.json"]
    assert told.lost[0].startswith(f"restart:stale partial up: its witness {wrong.name} does not reach it any more")
    assert replay(made, tmp_path, catalogue=catalogue).not_at_hand == [
        "regressions/one.json",
        "regressions/two.json",
        *(one.name for one in held.lines),
    ]
    late = replay(made, tmp_path, catalogue=catalogue, recordings=days, bound_s=1e-9)
    assert late.left == 4
    assert "could not be played" in late.problems[-1]


def test_search_and_sweep_play_the_corpus_first(
    made: Corpus, tmp_path: Path, days: RecordingStore, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    """A regression that breaches again ends them, with exit code 1; witnesses are begun from, and new ones kept."""
    ground = ["--recordings", str(days.directory), "--instrument", "BOLT", "--corpus", str(made.directory)]
    out = ["--out", str(tmp_path / "out")]
    assert main(["search", *ground, *out, "--bursts", "6", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["taken_up"] == 2
    assert told["witnesses"]["cells"] > 3
    assert told["witnesses"]["schedules"] > 2
    again = Corpus(made.directory)
    assert again.check() == []
    assert replay(again, tmp_path, catalogue=catalogue, recordings=days).problems == []
    assert main(["corpus", "list", "--corpus", str(made.directory)]) == 0
    assert "it failed once" in capsys.readouterr().out
    again.add(killed(days, catalogue, 90, faults=["snapshot-then-fills-again"]), "regressions/two.json", "it did")
    for verb in (["search", "--bursts", "6"], ["sweep", "--kinds", "kill", "--until", "0.1"]):
        assert main([verb[0], *ground, *out, *verb[1:]]) == 1
        told_of = capsys.readouterr()
        assert "regressions/two.json: positions/position-equals-carried-plus-fills, should hold" in told_of.err
        assert told_of.out == ""


def test_a_cover_is_few_and_cheap() -> None:
    """What one schedule reaches is not reached by another again; each cell is told once."""
    schedule = Schedule(recordings=[])

    def one(cost: int, *cells: str) -> Candidate:
        return Candidate(
            schedule=schedule.replace(seed=cost),
            reached=Reached(cells=dict.fromkeys(cells, (0, 1)), marks=[], cost=cost),
        )

    several = [one(9000, "a", "b", "c"), one(100, "a", "b"), one(120, "c", "d"), one(90, "a"), one(95, "d")]
    chosen = cover(several, {"a", "b", "c", "d", "e"})
    assert [(each.reached.cost, cells) for each, cells in chosen] == [(100, ["a", "b"]), (120, ["c", "d"])]


def test_a_witness_begins_fresh(days: RecordingStore, catalogue: Catalogue) -> None:
    """And has no seeded fault: what a broken system reaches says nothing."""
    with pytest.raises(BadSchedule, match="no seeded fault"):
        Witnesses(AXES).add(killed(days, catalogue, 5, faults=["snapshot-then-fills-again"]), ["being none up"])
