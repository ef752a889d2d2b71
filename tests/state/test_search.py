"""The search finds what it is to find, believes only what shows from the beginning, and what it finds is made small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.explore.corpus import Corpus, CorpusError
from holdover.explore.search import SEARCH_KINDS, Search
from holdover.explore.shrink import NotFailingError, Shrinker, render_pytest, shorten_from_snapshot
from holdover.harness.player import Player, failure_marks, play
from holdover.harness.schedule import (
    Operation,
    RecordedDay,
    Schedule,
    ScheduleError,
    check_schedule,
    make_schedule,
    read_schedule,
)
from holdover.harness.snapshot import Snapshot, take_snapshot
from holdover.recording import RecordingStore, bundled_store
from tests.days import write_short_days


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> RecordingStore:
    """Both bundled days of ACME, half an hour each."""
    return write_short_days(tmp_path_factory.mktemp("days"), "ACME", 30)


def make_search(store: RecordingStore, directory: Path, catalogue: Catalogue, **options: object) -> Search:
    """A search over both days."""
    return Search(store, ["ACME"], store.days("ACME"), directory, catalogue=catalogue, **options)  # type: ignore[arg-type]


def test_a_kept_state_is_what_playing_from_the_beginning_gives(
    tmp_path: Path, days: RecordingStore, catalogue: Catalogue
) -> None:
    """Records, timers, venue and places of each state in the archive, beside the same operations from a fresh start."""
    search = make_search(days, tmp_path / "search", catalogue, seed=3)
    search.run(bursts=14)
    assert len(search.archive) > 4
    for entry in search.archive[3::4]:
        search._rollback(entry)
        last = entry.operations[-1]
        player = Player(
            search.base_schedule.replace(operations=entry.operations[:-1]),
            days,
            tmp_path / "fresh",
            catalogue=catalogue,
            journal=False,
            scratch=True,
        )
        player.end_at = (last.day, last.n)
        player.play()
        if player.session.subject is not None:
            player.session.trials.discard_subject()
        searched_session, played_session = search.session, player.session
        assert searched_session.venue.to_bytes() == played_session.venue.to_bytes()
        assert [timer[:3] for timer in searched_session.clock.pending_timers()] == [
            timer[:3] for timer in played_session.clock.pending_timers()
        ]
        assert entry.point_counts == player.counts
        searched_tables, played_tables = (
            searched_session.guard.monitor.all_records(),
            played_session.guard.monitor.all_records(),
        )
        assert {t: k for t, k in searched_tables.items() if k and t[0] != "guard"} == {
            t: k for t, k in played_tables.items() if k and t[0] != "guard"
        }
        player.close()
    search.close()


def test_the_same_seed_searches_the_same(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """Two searches of one seed reach the same cells by the same operations."""
    results = []
    for name in ("one", "other"):
        search = make_search(days, tmp_path / name, catalogue, seed=5)
        result = search.run(bursts=10)
        results.append((result.cells, result.transitions, [schedule.digest for schedule in result.witnesses]))
        search.close()
    assert results[0] == results[1]
    assert results[0][1] > 0


def test_a_seeded_fault_is_found_and_made_small(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """The search finds it, it shows from the beginning, and what is left of the story breaches the same invariant."""
    search = make_search(days, tmp_path / "search", catalogue, faults=["snapshot-then-fills-again"])
    result = search.run(bursts=60, to_breach=True)
    search.close()
    assert result.verdict == "breach"
    finding = next(candidate for candidate in result.findings if candidate.confirmed)
    assert finding.mark == "positions/position-equals-carried-plus-fills"
    shrunk = Shrinker(finding.schedule, days, tmp_path, catalogue=catalogue, plays_max=60).shrink()
    assert len(shrunk.schedule.operations) <= 2
    assert shrunk.operations_before >= len(shrunk.schedule.operations)
    assert play(shrunk.schedule, tmp_path / "again", store=days, catalogue=catalogue).mark == finding.mark
    mended_schedule = shrunk.schedule.replace(faults=[])
    assert play(mended_schedule, tmp_path / "held", store=days, catalogue=catalogue).verdict == "holds"


def test_what_does_not_fail_is_not_shrunk(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """It is said in a sentence."""
    schedule = make_schedule(days, ["ACME"], days.days("ACME"), catalogue, operations=[])
    with pytest.raises(NotFailingError, match="does not fail"):
        Shrinker(schedule, days, tmp_path, catalogue=catalogue)


@pytest.mark.slow
def test_the_pasted_test_fails_as_the_schedule_does(tmp_path: Path, catalogue: Catalogue) -> None:
    """The function that is handed back runs under pytest as it stands, and fails for as long as the fault is there."""
    store = bundled_store()
    schedule = make_schedule(
        store,
        ["BOLT"],
        store.days("BOLT")[:1],
        catalogue,
        faults=["snapshot-then-fills-again"],
        expect="positions/position-equals-carried-plus-fills",
        operations=[Operation(at="second", n=9000, do="kill")],
    )
    file = tmp_path / "test_pasted.py"
    file.write_text(render_pytest(schedule, "what was found"))
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
    store = bundled_store()
    kill = Operation(at="second", n=9000, do="kill")
    noise = [Operation(at="in", n=5, do="duplicate"), Operation(at="second", n=600, do="disconnect")]
    schedule = make_schedule(
        store,
        ["BOLT"],
        store.days("BOLT")[:1],
        catalogue,
        faults=["snapshot-then-fills-again"],
        operations=[*noise, kill],
    )
    path = schedule.save(tmp_path / "one.json")
    assert main(["shrink", str(path), "--out", str(tmp_path / "out"), "--plays", "30", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["operations"] == {"before": 3, "after": 1}
    assert read_schedule(Path(result["schedule"])).expect == "positions/position-equals-carried-plus-fills"
    page = Path(result["timeline"]).read_text()
    assert "position-equals-carried-plus-fills" in page
    assert "<script" not in page
    compile(Path(result["test"]).read_text(), "test_shrunk.py", "exec")


def test_a_story_of_the_second_day_starts_from_the_night_before(
    tmp_path: Path, days: RecordingStore, catalogue: Catalogue
) -> None:
    """The snapshot of the night and the second day alone fail as both days do; without its snapshot it is refused."""
    schedule = make_schedule(
        days,
        ["ACME"],
        days.days("ACME"),
        catalogue,
        faults=["snapshot-then-fills-again"],
        operations=[Operation(day=1, at="second", n=900, do="kill")],
    )
    mark = "positions/position-equals-carried-plus-fills"
    night = shorten_from_snapshot(schedule, days, tmp_path, tmp_path / "kept", catalogue, mark)
    assert night is not None
    assert night.start.endswith(".hsnap")
    snapshot = Snapshot.open(tmp_path / "kept" / night.start)
    assert mark in failure_marks(play(night, tmp_path / "run", store=days, catalogue=catalogue, snapshot=snapshot))
    with pytest.raises(ScheduleError, match="which was not given"):
        play(night, tmp_path / "none", store=days, catalogue=catalogue)


def _kill_schedule(n: int) -> Schedule:
    """A schedule of one kill."""
    return Schedule(
        recordings=[RecordedDay(symbol="BOLT", trade_date="2024-11-29", digest="")],
        operations=[Operation(at="second", n=n, do="kill")],
    )


def test_a_corpus_loses_nothing_unsaid(tmp_path: Path) -> None:
    """Emptied, taken away, changed or slipped in: each is a problem by name; retiring needs a reason and a name."""
    corpus = Corpus(tmp_path / "corpus")
    assert "no such folder" in corpus.check()[0]
    corpus.add(_kill_schedule(1), "regressions/one.json", "it failed once")
    corpus.add(_kill_schedule(2), "regressions/two.json", "it failed, too")
    assert Corpus(tmp_path / "corpus").check() == []
    with pytest.raises(CorpusError, match="does the same as"):
        corpus.add(_kill_schedule(1), "regressions/again.json", "again")
    with pytest.raises(CorpusError, match="say why"):
        corpus.add(_kill_schedule(3), "regressions/three.json", " ")
    _kill_schedule(4).save(tmp_path / "corpus" / "regressions" / "slipped.json")
    _kill_schedule(5).save(tmp_path / "corpus" / "regressions" / "two.json")
    (tmp_path / "corpus" / "regressions" / "one.json").unlink()
    problem_text = "\n".join(Corpus(tmp_path / "corpus").check())
    assert "one.json: is gone" in problem_text
    assert "two.json: does something else" in problem_text
    assert "slipped.json: is not on the list" in problem_text
    with pytest.raises(CorpusError, match="reason and a name"):
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
    fresh = make_schedule(days, ["ACME"], days.days("ACME"), catalogue, operations=[kill, *later])
    before = Player(fresh.replace(operations=[]), days, tmp_path / "before", catalogue=catalogue, scratch=True)
    before.end_at = (0, second)
    before.play()
    before.session.trials.discard_subject()
    path = take_snapshot(before.session).save(tmp_path)
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
        tables = session.guard.monitor.all_records()
        ends.append(
            (
                session.venue.to_bytes(),
                [timer[:3] for timer in session.clock.pending_timers()],
                session.player.market_events,
                {table: records for table, records in tables.items() if records and table[0] != "guard"},
            )
        )
        player.close()
    assert ends[0] == ends[1]


def test_a_story_is_told_from_the_latest_snapshot_and_with_fewer_orders(
    tmp_path: Path, days: RecordingStore, catalogue: Catalogue
) -> None:
    """A cut and a kill: the snapshot is of that very second, one strategy is left, and the snapshot story fails too."""
    schedule = make_schedule(
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
    assert f"The subject's strategies: {shrunk.schedule.settings['strategies'][0]}." in shrunk.schedule.describe()
    later = shorten_from_snapshot(shrunk.schedule, days, tmp_path, tmp_path / "kept", catalogue, shrunk.mark)
    assert later is not None
    snapshot = Snapshot.open(tmp_path / "kept" / later.start)
    assert snapshot.info.phase == "open"
    path = later.save(tmp_path / "kept" / "later.json")
    assert main(["replay", str(path), "--recordings", str(days.directory), "--out", str(tmp_path / "replayed")]) == 1
    mended = later.replace(faults=[])
    assert play(mended, tmp_path / "mended", store=days, catalogue=catalogue, snapshot=snapshot).verdict == "holds"


def test_a_place_is_told_from_the_snapshot_on(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """The first operation, at a mutation, comes at the same time, whether told from the open or from a snapshot."""
    schedule = make_schedule(
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
    marks = failure_marks(play(schedule, tmp_path / "run", store=days, catalogue=catalogue, to_breach=True))
    later = shorten_from_snapshot(schedule, days, tmp_path, tmp_path / "kept", catalogue, marks[0])
    assert later is not None
    assert 0 < later.operations[0].n < 400
    for variant, snapshot in ((schedule, None), (later, Snapshot.open(tmp_path / "kept" / later.start))):
        player = Player(variant, days, tmp_path / "run", catalogue=catalogue, snapshot=snapshot, scratch=True)
        at: list[int] = []
        player.operations.on_operation = lambda operation, p=player, at=at: at.append(p.session.clock.now_ns)  # type: ignore[misc]
        player.play()
        player.close()
        times.append(at[0])
    assert times[0] == times[1]


def test_settings_that_cannot_be_are_refused(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """With what there is."""
    schedule = make_schedule(days, ["ACME"], days.days("ACME")[:1], catalogue, settings={"strategies": ["nobody"]})
    with pytest.raises(ValueError, match=r"it has accumulate.ACME, distribute.ACME, short.ACME"):
        play(schedule, tmp_path / "run", store=days, catalogue=catalogue)


def test_a_search_begins_from_what_is_known(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """Witnesses are taken up: their cells are not new again, and a state of theirs is as a fresh play gives it."""
    axes = ["orders", "in-flight", "link", "reconciliation"]
    first = make_search(days, tmp_path / "one", catalogue, seed=5, axes=axes)
    witnesses = first.run(bursts=25).witnesses
    cells = set(first.reached_cells)
    first.close()
    second = make_search(days, tmp_path / "other", catalogue, seed=6, axes=axes)
    second.replay_schedules(witnesses)
    assert second.result.schedules_replayed > 3
    assert cells <= second.reached_cells | {cell for cell in cells if cell.startswith(("end ", "overnight "))}
    entry = second.archive[-1]
    assert len(second.archive) > 4
    second._rollback(entry)
    player = Player(
        second.base_schedule.replace(operations=entry.operations[:-1]),
        days,
        tmp_path / "fresh",
        catalogue=catalogue,
        scratch=True,
    )
    player.end_at = (entry.operations[-1].day, entry.operations[-1].n)
    player.play()
    if player.session.subject is not None:
        player.session.trials.discard_subject()
    assert second.session.venue.to_bytes() == player.session.venue.to_bytes()
    player.close()
    second.close()


def test_every_kind_is_chosen(tmp_path: Path, days: RecordingStore, catalogue: Catalogue) -> None:
    """Each alone in the palette is put into bursts, at a place where it can be."""
    search = make_search(days, tmp_path / "search", catalogue)
    search._build_initial_states()
    for kind in SEARCH_KINDS:
        search._palette = [kind]
        operations = [
            operation for _ in range(30) for operation in search._choose_operations(search.archive[0], [], 0, 60, 400)
        ]
        assert {operation.do for operation in operations} == {kind}
        assert check_schedule(search.base_schedule.replace(operations=operations)) == []
    search.close()


def test_what_strategy_and_operator_do_is_done(tmp_path: Path, catalogue: Catalogue) -> None:
    """Submit, replace and cancel reach the venue; a freeze by hand is there, and a thaw takes it away."""
    operations = [
        Operation(at="second", n=300, do="submit", with_=[0, 7, 0]),
        Operation(at="second", n=310, do="replace", with_=[0, 2]),
        Operation(at="second", n=320, do="cancel", with_=[0]),
        Operation(at="second", n=330, do="freeze"),
    ]
    frozen = make_schedule(bundled_store(), ["ACME"], ["2024-11-27"], catalogue, operations=operations)
    thaw = Operation(at="second", n=340, do="thaw")
    outcomes = []
    for schedule in (frozen.replace(operations=[]), frozen, frozen.replace(operations=[*operations, thaw])):
        player = Player(schedule, bundled_store(), tmp_path / "run", catalogue=catalogue, scratch=True)
        player.end_at = (0, 400)
        assert player.play().mark == ""
        session = player.session
        sizes = sorted(order.order_qty for order in session.orders())
        outcomes.append(
            (sizes.count(7), player.counts["sent"], [freeze.scope for freeze in session.guard.active_freezes])
        )
        player.close()
    assert outcomes[0][0] == 0
    assert outcomes[1][0] == 1
    assert outcomes[1][1] >= outcomes[0][1] + 3
    assert outcomes[1][2] == ["instrument:ACME"]
    assert outcomes[2][2] == []
