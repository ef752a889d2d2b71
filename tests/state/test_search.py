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
from holdover.explore.schedule import (
    KINDS,
    BadSchedule,
    Operation,
    Recorded,
    Schedule,
    check,
    read_schedule,
    schedule_on,
)
from holdover.explore.search import Search
from holdover.explore.shrink import NotFailing, Shrinker, from_a_snapshot, pytest_function
from holdover.harness.snapshot import Snapshot, take
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("second", [300, 907])
def test_a_snapshot_inside_a_day_is_gone_on_from(
    tmp_path: Path, days: RecordingStore, catalogue: Catalogue, second: int
) -> None:
    """From where the subject was down it goes on as the fresh story goes on that has a kill there."""
    kill = Operation(at="second", n=second, do="kill")
    later = [Operation(at="second", n=second + 90, do="stale", with_=[20]), Operation(at="second", n=1500, do="torn")]
    fresh = schedule_on(days, ["ACME"], days.days("ACME"), catalogue, operations=[kill, *later])
    before = Player(fresh.replace(operations=[]), days, tmp_path / "before", catalogue=catalogue, scratch=True)
    before.until = (0, second)
    before.play()
    before.session.bury()
    path = take(before.session).save(tmp_path)
    before.close()
    ends = []
    for schedule, snapshot in (
        (fresh, None),
        (fresh.replace(start=path.name, operations=later), Snapshot.open(path)),
    ):
        player = Player(schedule, days, tmp_path / "run", catalogue=catalogue, snapshot=snapshot, scratch=True)
        played = player.play()
        assert played.mark == ""
        session = player.session
        tables = session.guard.monitor.layout.tables
        ends.append(
            (
                session.venue.dump(),
                [timer[:3] for timer in session.clock.timers()],
                session.market_events,
                {table: kept for table, kept in tables.items() if kept and table[0] != "guard"},
            )
        )
        player.close()
    assert ends[0] == ends[1]


def test_a_story_is_told_from_the_latest_snapshot_and_with_fewer_orders(
    tmp_path: Path, days: RecordingStore, catalogue: Catalogue
) -> None:
    """A cut and a kill: the snapshot is of that very second, one strategy is left, and the snapshot story fails too."""
    schedule = schedule_on(
        days,
        ["ACME"],
        days.days("ACME")[:1],
        catalogue,
        faults=["snapshot-then-fills-again"],
        operations=[Operation(at="mutation", n=700, do="disconnect"), Operation(at="second", n=1100, do="kill")],
    )
    shrunk = Shrinker(schedule, days, tmp_path, catalogue=catalogue, plays_max=60).shrink()
    assert len(shrunk.schedule.settings["strategies"]) == 1
    assert len(shrunk.schedule.operations) == 1
    assert f"The subject's strategies: {shrunk.schedule.settings['strategies'][0]}." in shrunk.schedule.story()
    later = from_a_snapshot(shrunk.schedule, days, tmp_path, tmp_path / "kept", catalogue, shrunk.mark)
    assert later is not None
    snapshot = Snapshot.open(tmp_path / "kept" / later.start)
    assert snapshot.about.phase == "open"
    path = later.save(tmp_path / "kept" / "later.json")
    assert main(["replay", str(path), "--recordings", str(days.directory), "--out", str(tmp_path / "replayed")]) == 1
    mended = later.replace(faults=[])
    assert play(mended, tmp_path / "mended", store=days, catalogue=catalogue, snapshot=snapshot).verdict == "holds"


def test_a_place_is_told_from_the_snapshot_on(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """The first operation, at a mutation, comes at the same time, whether told from the open or from a snapshot."""
    schedule = schedule_on(
        days,
        ["ACME"],
        days.days("ACME")[:1],
        catalogue,
        faults=["parent-restarts-from-zero"],
        operations=[
            Operation(at="mutation", n=400, do="disconnect", with_=[60, 0, 0]),
            Operation(at="mutation", n=700, do="kill", with_=[30]),
        ],
    )
    times = []
    marks = marks_of(play(schedule, tmp_path / "run", store=days, catalogue=catalogue, to_breach=True))
    later = from_a_snapshot(schedule, days, tmp_path, tmp_path / "kept", catalogue, marks[0])
    assert later is not None
    assert 0 < later.operations[0].n < 400
    for one, snapshot in ((schedule, None), (later, Snapshot.open(tmp_path / "kept" / later.start))):
        player = Player(one, days, tmp_path / "run", catalogue=catalogue, snapshot=snapshot, scratch=True)
        at: list[int] = []
        player.on_operation = lambda operation, p=player, at=at: at.append(p.session.clock.now_ns)  # type: ignore[misc]
        player.play()
        player.close()
        times.append(at[0])
    assert times[0] == times[1]


def test_settings_that_cannot_be_are_refused(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """With what there is."""
    schedule = schedule_on(days, ["ACME"], days.days("ACME")[:1], catalogue, settings={"strategies": ["nobody"]})
    with pytest.raises(ValueError, match=r"it has accumulate.ACME, distribute.ACME, short.ACME"):
        play(schedule, tmp_path / "run", store=days, catalogue=catalogue)


def test_a_search_begins_from_what_is_known(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """Witnesses are taken up: their cells are not new again, and a state of theirs is as a fresh play gives it."""
    axes = ["orders", "in-flight", "link", "reconciliation"]
    first = searched(days, tmp_path / "one", catalogue, seed=5, axes=axes)
    known = first.run(bursts=25).witnesses
    told = set(first.told)
    first.close()
    again = searched(days, tmp_path / "other", catalogue, seed=6, axes=axes)
    again.take_up(known)
    assert again.done.taken_up > 3
    assert told <= again.told | {cell for cell in told if cell.startswith(("end ", "overnight "))}
    kept = again.archive[-1]
    assert len(again.archive) > 4
    again._put_back(kept)
    player = Player(
        again.base.replace(operations=kept.path[:-1]), days, tmp_path / "fresh", catalogue=catalogue, scratch=True
    )
    player.until = (kept.path[-1].day, kept.path[-1].n)
    player.play()
    if player.session.subject is not None:
        player.session.bury()
    assert again.session.venue.dump() == player.session.venue.dump()
    player.close()
    again.close()


def test_every_kind_is_chosen(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """Each alone in the palette is put into bursts, at a place where it can be."""
    search = searched(days, tmp_path / "search", catalogue)
    search._beginning()
    for kind in KINDS:
        search._palette = [kind]
        chosen = [one for _ in range(30) for one in search._choose(search.archive[0], [], 0, 60, 400)]
        assert {one.do for one in chosen} == {kind}
        assert check(search.base.replace(operations=chosen)) == []
    search.close()


def test_what_strategy_and_operator_do_is_done(tmp_path: Path, catalogue: Catalogue) -> None:
    """Submit, replace and cancel reach the venue; a freeze by hand is there, and a thaw takes it away."""
    operations = [
        Operation(at="second", n=300, do="submit", with_=[0, 7, 0]),
        Operation(at="second", n=310, do="replace", with_=[0, 2]),
        Operation(at="second", n=320, do="cancel", with_=[0]),
        Operation(at="second", n=330, do="freeze"),
    ]
    frozen = schedule_on(bundled(), ["ACME"], ["2024-11-27"], catalogue, operations=operations)
    thaw = Operation(at="second", n=340, do="thaw")
    left = []
    for schedule in (frozen.replace(operations=[]), frozen, frozen.replace(operations=[*operations, thaw])):
        player = Player(schedule, bundled(), tmp_path / "run", catalogue=catalogue, scratch=True)
        player.until = (0, 400)
        assert player.play().mark == ""
        session = player.session
        sizes = sorted(order.order_qty for order in session.orders())
        left.append((sizes.count(7), player.counts["sent"], [one.scope for one in session.guard.frozen]))
        player.close()
    assert left[0][0] == 0
    assert left[1][0] == 1
    assert left[1][1] >= left[0][1] + 3
    assert left[1][2] == ["instrument:ACME"]
    assert left[2][2] == []
