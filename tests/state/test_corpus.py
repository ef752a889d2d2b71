"""The corpus: every schedule that once showed something holds, every witness reaches its cells; nothing goes unsaid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.coverage import find_lock, read_lock
from holdover.explore import Operation, make_schedule, play
from holdover.explore.corpus import WITNESSES_FILE, Corpus, CorpusError, replay_corpus
from holdover.explore.witness import Candidate, ReachResult, Witnesses, measure_reach, select_witnesses
from holdover.harness.schedule import Schedule, ScheduleError
from holdover.recording import RecordingError, RecordingStore, bundled_store
from tests.days import write_short_days

AXES = ["orders", "link"]
CORPUS = Corpus(Path(__file__).resolve().parents[2] / "corpus")


def _is_bundled(schedule: Schedule) -> bool:
    try:
        return all(
            bundled_store().get(recording.symbol, recording.trade_date).digest == recording.digest
            for recording in schedule.recordings
        )
    except RecordingError:
        return False


PLAYABLE = {name: schedule for name, schedule in CORPUS.schedules() if _is_bundled(schedule)}


def test_the_corpus_is_whole() -> None:
    """Nothing in it has been emptied, taken away, changed or slipped in."""
    assert CORPUS.check() == []


@pytest.mark.parametrize("name", PLAYABLE)
def test_every_schedule_of_the_corpus_holds(tmp_path: Path, catalogue: Catalogue, name: str) -> None:
    """What has failed once does not fail again."""
    played = play(PLAYABLE[name], tmp_path / "run", catalogue=catalogue, journal=False, scratch=True)
    assert [breach.explanation for breach in played.breaches] == []
    assert played.crash == ""
    assert played.verdict == "holds"


@pytest.mark.slow
def test_every_witness_reaches_its_cells(tmp_path: Path, catalogue: Catalogue) -> None:
    """Of the committed ones each third, by the axes of the lock file, without a breach; the gate plays all of them."""
    witnesses = CORPUS.witnesses()
    lock = read_lock(find_lock(CORPUS.directory.parent))
    assert witnesses.head.axes == lock.axes
    assert CORPUS.counts()["witnessed"] >= lock.thresholds["witnessed"] > 0
    for witness in witnesses.lines[::3]:
        reached = measure_reach(
            witnesses.schedule(witness), bundled_store(), tmp_path / "run", witnesses.head.axes, catalogue
        )
        assert reached.marks == []
        assert set(witness.reaches) - reached.cells.keys() == set()


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> RecordingStore:
    """A short day of BOLT."""
    return write_short_days(tmp_path_factory.mktemp("days"), "BOLT", 4)


@pytest.fixture
def small_corpus(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> Corpus:
    """A corpus of one regression and two witnesses."""
    corpus = Corpus(tmp_path / "corpus")
    corpus.add(make_kill_schedule(days, catalogue, 100), "regressions/one.json", "it failed once")
    witnesses = Witnesses(AXES)
    for second, cells in ((50, ["restart:kill unfilled up"]), (60, ["being unfilled up", "being unfilled down"])):
        witnesses.add(make_kill_schedule(days, catalogue, second), cells)
    corpus.save_witnesses(witnesses)
    return Corpus(tmp_path / "corpus")


def make_kill_schedule(days: RecordingStore, catalogue: Catalogue, second: int, **fields: object) -> Schedule:
    """A schedule of one kill."""
    kill = Operation(at="second", n=second, do="kill")
    return make_schedule(days, ["BOLT"], ["2024-11-27"], catalogue, operations=[kill], **fields)


def test_witnesses_are_read_as_they_were_written(
    small_corpus: Corpus, days: RecordingStore, catalogue: Catalogue
) -> None:
    """A line a witness, with its days by name; and the very schedule comes out of it."""
    lines = (small_corpus.directory / WITNESSES_FILE).read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[1])["recordings"] == ["BOLT 2024-11-27"]
    witnesses = small_corpus.witnesses()
    assert {witnesses.schedule(witness).operations[0].n for witness in witnesses.lines} == {50, 60}
    assert witnesses.schedule(witnesses.lines[0]).recordings == make_kill_schedule(days, catalogue, 1).recordings
    assert small_corpus.check() == []
    assert small_corpus.counts() == {"regressions": 1, "witnessed": 3}


def test_witnesses_that_go_unsaid_are_a_problem(small_corpus: Corpus) -> None:
    """The file gone, a line gone, a cell gone, or a file that nobody has listed."""
    path = small_corpus.directory / WITNESSES_FILE
    whole = path.read_bytes()
    path.write_bytes(b"\n".join(whole.splitlines()[:-1]) + b"\n")
    assert "1 witnesses of" in small_corpus.check()[0]
    assert "should be 2 of 3" in small_corpus.check()[0]
    path.write_bytes(whole.replace(b'"being unfilled up"', b'"being none up"'))
    assert "was changed by hand" in small_corpus.check()[0]
    path.write_bytes(whole.replace(b'"being unfilled up"', b'"restart:kill unfilled up"'))
    assert "has two witnesses" in small_corpus.check()[0]
    path.write_bytes(b"nonsense")
    assert "no witness" in small_corpus.check()[0]
    path.unlink()
    assert small_corpus.check() == [f"{WITNESSES_FILE}: is gone, with the witnesses of 3 cells"]
    path.write_bytes(whole)
    shutil.copy(path, small_corpus.directory.parent / WITNESSES_FILE)
    assert "is not on the list" in Corpus(small_corpus.directory.parent).check()[-1]


def test_files_of_a_former_version_are_refused(small_corpus: Corpus) -> None:
    """The list and the witnesses, each with a sentence that names both versions."""
    path = small_corpus.directory / WITNESSES_FILE
    path.write_bytes(path.read_bytes().replace(b'"version":2', b'"version":1', 1))
    with pytest.raises(ScheduleError, match=r"witnesses.jsonl: written in version 1, this Holdover reads version 2"):
        small_corpus.witnesses()
    path = small_corpus.directory / "corpus.json"
    path.write_bytes(path.read_bytes().replace(b'"corpus": 2', b'"corpus": 1', 1))
    with pytest.raises(CorpusError, match=r"corpus.json: written in version 1, this Holdover reads version 2"):
        Corpus(small_corpus.directory)


def test_a_cell_is_let_go_only_with_a_reason(small_corpus: Corpus) -> None:
    """By its name, or with its witness; it counts as held, and has one again when it is found again."""
    with pytest.raises(CorpusError, match="reason and a name"):
        small_corpus.retire("being unfilled up", "", "kim")
    with pytest.raises(CorpusError, match="is not in the corpus"):
        small_corpus.retire("being nowhere", "no", "kim")
    small_corpus.retire("being unfilled up", "the desk is never there", "kim")
    reopened_corpus = Corpus(small_corpus.directory)
    assert reopened_corpus.check() == []
    assert reopened_corpus.retired_cells["being unfilled up"].by == "kim"
    assert reopened_corpus.counts()["witnessed"] == 3
    name = reopened_corpus.witnesses().cells["restart:kill unfilled up"]
    reopened_corpus.retire(name, "nor there", "kim")
    assert len(reopened_corpus.witnesses().lines) == 1
    witnesses = reopened_corpus.witnesses()
    witnesses.lines = [witnesses.lines[0].replace(reaches=["being unfilled down", "being unfilled up"])]
    reopened_corpus.save_witnesses(witnesses)
    assert list(reopened_corpus.retired_cells) == ["restart:kill unfilled up"]


def test_a_witness_that_does_not_reach_its_cell_is_named(
    small_corpus: Corpus, tmp_path: Path, days: RecordingStore, catalogue: Catalogue
) -> None:
    """By cell and witness; a regression that breaches again is named, too; what is late is told."""
    whole = replay_corpus(small_corpus, tmp_path, catalogue=catalogue, recordings=days)
    assert (whole.problems, whole.schedules, whole.witnesses) == ([], 1, 2)
    witnesses = small_corpus.witnesses()
    wrong = witnesses.lines[0]
    witnesses.lines[0] = wrong.replace(reaches=[*wrong.reaches, "restart:stale partial up"])
    small_corpus.save_witnesses(witnesses)
    small_corpus.add(
        make_kill_schedule(days, catalogue, 90, faults=["snapshot-then-fills-again"]), "regressions/two.json", "it did"
    )
    result = replay_corpus(small_corpus, tmp_path, catalogue=catalogue, recordings=days)
    assert [breach_text.partition(":")[0] for breach_text in result.failures] == ["regressions/two.json"]
    assert result.lost_cells[0].startswith(
        f"restart:stale partial up: its witness {wrong.name} does not reach it any more"
    )
    assert replay_corpus(small_corpus, tmp_path, catalogue=catalogue).without_recordings == [
        "regressions/one.json",
        "regressions/two.json",
        *(witness.name for witness in witnesses.lines),
    ]
    late = replay_corpus(small_corpus, tmp_path, catalogue=catalogue, recordings=days, time_limit_s=1e-9)
    assert late.unplayed_count == 4
    assert "could not be played" in late.problems[-1]


def test_search_and_sweep_play_the_corpus_first(
    small_corpus: Corpus, tmp_path: Path, days: RecordingStore, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    """A regression that breaches again ends them, with exit code 1; witnesses are begun from, and new ones kept."""
    common_options = [
        "--recordings",
        str(days.directory),
        "--instrument",
        "BOLT",
        "--corpus",
        str(small_corpus.directory),
    ]
    out_options = ["--out", str(tmp_path / "out")]
    assert main(["search", *common_options, *out_options, "--bursts", "6", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["taken_up"] == 2
    assert result["witnesses"]["cells"] > 3
    assert result["witnesses"]["schedules"] > 2
    reopened_corpus = Corpus(small_corpus.directory)
    assert reopened_corpus.check() == []
    assert replay_corpus(reopened_corpus, tmp_path, catalogue=catalogue, recordings=days).problems == []
    assert main(["corpus", "list", "--corpus", str(small_corpus.directory)]) == 0
    assert "it failed once" in capsys.readouterr().out
    reopened_corpus.add(
        make_kill_schedule(days, catalogue, 90, faults=["snapshot-then-fills-again"]), "regressions/two.json", "it did"
    )
    for verb in (["search", "--bursts", "6"], ["sweep", "--kinds", "kill", "--until", "0.1"]):
        assert main([verb[0], *common_options, *out_options, *verb[1:]]) == 1
        told_of = capsys.readouterr()
        assert "regressions/two.json: positions/position-equals-carried-plus-fills, should hold" in told_of.err
        assert told_of.out == ""


def test_a_cover_is_few_and_cheap() -> None:
    """What one schedule reaches is not reached by another again; each cell is told once."""
    schedule = Schedule(recordings=[])

    def make_candidate(cost: int, *cells: str) -> Candidate:
        return Candidate(
            schedule=schedule.replace(seed=cost),
            reached=ReachResult(cells=dict.fromkeys(cells, (0, 1)), marks=[], cost=cost),
        )

    several = [
        make_candidate(9000, "a", "b", "c"),
        make_candidate(100, "a", "b"),
        make_candidate(120, "c", "d"),
        make_candidate(90, "a"),
        make_candidate(95, "d"),
    ]
    choices = select_witnesses(several, {"a", "b", "c", "d", "e"})
    assert [(candidate.reached.cost, cells) for candidate, cells in choices] == [(100, ["a", "b"]), (120, ["c", "d"])]


def test_a_witness_begins_fresh(days: RecordingStore, catalogue: Catalogue) -> None:
    """And has no seeded fault: what a broken system reaches says nothing."""
    with pytest.raises(ScheduleError, match="no seeded fault"):
        Witnesses(AXES).add(
            make_kill_schedule(days, catalogue, 5, faults=["snapshot-then-fills-again"]), ["being none up"]
        )
