"""The search finds what it is to find, believes only what shows from the beginning, and what it finds is made small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.explore.corpus import BadCorpus, Corpus
from holdover.explore.play import Player, marks_of, play
from holdover.explore.schedule import BadSchedule, Operation, Recorded, Schedule, read_schedule, schedule_on
from holdover.explore.search import Search
from holdover.explore.shrink import NotFailing, Shrinker, from_a_snapshot, pytest_function
from holdover.harness.snapshot import Snapshot
from holdover.recording import RecordingStore, bundled
from tests.days import short_days


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> RecordingStore:
    """Both bundled days of ACME, half an hour each."""
    return short_days(tmp_path_factory.mktemp("days"), "ACME", 30)


def searched(store: RecordingStore, place: Path, catalogue: Catalogue, **options: object) -> Search:
    """A search over both days."""
    return Search(store, ["ACME"], store.days("ACME"), place, catalogue=catalogue, **options)  # type: ignore[arg-type]


def test_a_kept_state_is_what_playing_from_the_beginning_gives(
    tmp_path: Path, days: RecordingStore, catalogue: Catalogue
) -> None:
    """Records, timers, venue and places of each state in the archive, beside the same operations from a fresh start."""
    search = searched(days, tmp_path / "search", catalogue, seed=3)
    search.run(bursts=14)
    assert len(search.archive) > 4
    for kept in search.archive[3::4]:
        search._put_back(kept)
        last = kept.path[-1]
        player = Player(
            search.base.replace(operations=kept.path[:-1]),
            days,
            tmp_path / "fresh",
            catalogue=catalogue,
            journal=False,
            scratch=True,
        )
        player.until = (last.day, last.n)
        player.play()
        if player.session.subject is not None:
            player.session.bury()
        one, other = search.session, player.session
        assert one.venue.dump() == other.venue.dump()
        assert [timer[:3] for timer in one.clock.timers()] == [timer[:3] for timer in other.clock.timers()]
        assert kept.place == player.counts
        mine, theirs = one.guard.monitor.layout.tables, other.guard.monitor.layout.tables
        assert {t: k for t, k in mine.items() if k and t[0] != "guard"} == {
            t: k for t, k in theirs.items() if k and t[0] != "guard"
        }
        player.close()
    search.close()


def test_the_same_seed_searches_the_same(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """Two searches of one seed reach the same cells by the same operations."""
    told = []
    for name in ("one", "other"):
        search = searched(days, tmp_path / name, catalogue, seed=5)
        done = search.run(bursts=10)
        told.append((done.cells, done.transitions, [schedule.digest for schedule in done.witnesses]))
        search.close()
    assert told[0] == told[1]
    assert told[0][1] > 0


def test_a_seeded_fault_is_found_and_made_small(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """The search finds it, it shows from the beginning, and what is left of the story breaches the same invariant."""
    search = searched(days, tmp_path / "search", catalogue, faults=["snapshot-then-fills-again"])
    done = search.run(bursts=60, to_breach=True)
    search.close()
    assert done.verdict == "breach"
    found = next(one for one in done.found if one.confirmed)
    assert found.mark == "positions/position-equals-carried-plus-fills"
    shrunk = Shrinker(found.schedule, days, tmp_path, catalogue=catalogue, plays_max=60).shrink()
    assert len(shrunk.schedule.operations) <= 2
    assert shrunk.before >= len(shrunk.schedule.operations)
    assert play(shrunk.schedule, tmp_path / "again", store=days, catalogue=catalogue).mark == found.mark
    held = shrunk.schedule.replace(faults=[])
    assert play(held, tmp_path / "held", store=days, catalogue=catalogue).verdict == "holds"


def test_what_does_not_fail_is_not_shrunk(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """It is said in a sentence."""
    schedule = schedule_on(days, ["ACME"], days.days("ACME"), catalogue, operations=[])
    with pytest.raises(NotFailing, match="does not fail"):
        Shrinker(schedule, days, tmp_path, catalogue=catalogue)


def test_the_pasted_test_fails_as_the_schedule_does(tmp_path: Path, catalogue: Catalogue) -> None:
    """The function that is handed back runs under pytest as it stands, and fails for as long as the fault is there."""
    store = bundled()
    schedule = schedule_on(
        store,
        ["BOLT"],
        store.days("BOLT")[:1],
        catalogue,
        faults=["snapshot-then-fills-again"],
        expect="positions/position-equals-carried-plus-fills",
        operations=[Operation(at="second", n=9000, do="kill")],
    )
    file = tmp_path / "test_pasted.py"
    file.write_text(pytest_function(schedule, "what was found"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    failing = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert failing.returncode == 1
    assert "position-equals-carried-plus-fills" in failing.stdout
    file.write_text(file.read_text().replace('["snapshot-then-fills-again"]', "[]"))
    assert subprocess.run(command, capture_output=True, cwd=tmp_path, check=False).returncode == 0


def test_shrink_writes_story_test_and_timeline(
    tmp_path: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verb: fewer operations, exit code 1, a schedule that reads, a page that loads nothing."""
    store = bundled()
    kill = Operation(at="second", n=9000, do="kill")
    noise = [Operation(at="in", n=5, do="duplicate"), Operation(at="second", n=600, do="disconnect")]
    schedule = schedule_on(
        store,
        ["BOLT"],
        store.days("BOLT")[:1],
        catalogue,
        faults=["snapshot-then-fills-again"],
        operations=[*noise, kill],
    )
    path = schedule.save(tmp_path / "one.json")
    assert main(["shrink", str(path), "--out", str(tmp_path / "out"), "--plays", "30", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["operations"] == {"before": 3, "after": 1}
    assert read_schedule(Path(told["schedule"])).expect == "positions/position-equals-carried-plus-fills"
    page = Path(told["timeline"]).read_text()
    assert "position-equals-carried-plus-fills" in page
    assert "<script" not in page
    compile(Path(told["test"]).read_text(), "test_shrunk.py", "exec")


def test_a_story_of_the_second_day_starts_from_the_night_before(
    tmp_path: Path, days: RecordingStore, catalogue: Catalogue
) -> None:
    """The snapshot of the night and the second day alone fail as both days do; without its snapshot it is refused."""
    schedule = schedule_on(
        days,
        ["ACME"],
        days.days("ACME"),
        catalogue,
        faults=["snapshot-then-fills-again"],
        operations=[Operation(day=1, at="second", n=900, do="kill")],
    )
    mark = "positions/position-equals-carried-plus-fills"
    night = from_a_snapshot(schedule, days, tmp_path, tmp_path / "kept", catalogue, mark)
    assert night is not None
    assert night.start.endswith(".hsnap")
    snapshot = Snapshot.open(tmp_path / "kept" / night.start)
    assert mark in marks_of(play(night, tmp_path / "run", store=days, catalogue=catalogue, snapshot=snapshot))
    with pytest.raises(BadSchedule, match="which was not given"):
        play(night, tmp_path / "none", store=days, catalogue=catalogue)


def _one(n: int) -> Schedule:
    """A schedule of one kill."""
    return Schedule(
        recordings=[Recorded(symbol="BOLT", trade_date="2024-11-29", digest="")],
        operations=[Operation(at="second", n=n, do="kill")],
    )


def test_a_corpus_loses_nothing_unsaid(tmp_path: Path) -> None:
    """Emptied, taken away, changed or slipped in: each is a problem by name; retiring needs a reason and a name."""
    corpus = Corpus(tmp_path / "corpus")
    assert "no such folder" in corpus.check()[0]
    corpus.add(_one(1), "regressions/one.json", "it failed once")
    corpus.add(_one(2), "regressions/two.json", "it failed, too")
    assert Corpus(tmp_path / "corpus").check() == []
    with pytest.raises(BadCorpus, match="does the same as"):
        corpus.add(_one(1), "regressions/again.json", "again")
    with pytest.raises(BadCorpus, match="say why"):
        corpus.add(_one(3), "regressions/three.json", " ")
    _one(4).save(tmp_path / "corpus" / "regressions" / "slipped.json")
    _one(5).save(tmp_path / "corpus" / "regressions" / "two.json")
    (tmp_path / "corpus" / "regressions" / "one.json").unlink()
    found = "\n".join(Corpus(tmp_path / "corpus").check())
    assert "one.json: is gone" in found
    assert "two.json: does something else" in found
    assert "slipped.json: is not on the list" in found
    with pytest.raises(BadCorpus, match="reason and a name"):
        corpus.retire("regressions/one.json", "", "kim")
    corpus.retire("regressions/one.json", "the venue does not do that any more", "kim")
    corpus.retire("regressions/two.json", "nor that", "kim")
    assert "the corpus is empty" in Corpus(tmp_path / "corpus").check()[0]
