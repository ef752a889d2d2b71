"""The sweep: its trials are what a schedule does, however they are tried, and it finds what is wrong."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdover.adapters.desk import DeskSubject
from holdover.cli import main
from holdover.explore import play
from holdover.explore.judge import TrialResult
from holdover.explore.pool import make_process_pool
from holdover.explore.state import StateSum
from holdover.explore.sweep import count_points, count_trials, cut_pieces, schedule_from_result, sweep
from holdover.explore.trial import run_trials
from holdover.explore.walk import (
    KILL_KINDS,
    DayMap,
    SweepSpec,
    load_catalogue,
    make_walk_session,
    open_recordings,
    survey_day,
)
from holdover.harness import Session, SubjectKilledError
from holdover.harness.player import Player
from holdover.model import Position
from tests.days import write_short_days

FAULT = "forget-carried-partial"


class Together(DeskSubject):
    """The desk, of which no two lives can be in one process: it is tried in forks."""

    is_isolated = False


class Raises(DeskSubject):
    """A desk that cannot bear to be cut off."""

    def start(self, env: Any) -> None:
        """Come up, and replace what hears of a cut."""
        super().start(env)
        assert self.desk is not None
        self.desk.on_down = self._raise  # type: ignore[method-assign]

    def _raise(self, reason: str) -> None:
        raise ArithmeticError(f"never heard of {reason}")


Make = Callable[..., SweepSpec]


@pytest.fixture(scope="module")
def make_spec(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A short day, or its first minutes: up to `end_fraction`."""
    directory = tmp_path_factory.mktemp("days")
    write_short_days(directory, minutes=4)

    def make(**fields: Any) -> SweepSpec:
        defaults: dict[str, Any] = {"symbols": ["BOLT"], "days": ["2024-11-27"], "day": "2024-11-27", "prove_every": 40}
        return SweepSpec(**({"recordings": str(directory), "end_fraction": 0.4} | defaults | fields))

    return make


def one_worker() -> Executor:
    """A process of its own: a fork needs to be alone."""
    return make_process_pool(1)


def run_all_trials(directory: Path, spec: SweepSpec) -> list[TrialResult]:
    """Every trial of a ground whose kinds need no fork, tried here."""
    survey_map = survey_day(spec, directory / "survey", None)
    return run_trials(spec, directory / "trials", None, survey_map, 1, survey_map.point_count + 1)[0]


@pytest.mark.parametrize("day_share", [0.08, pytest.param(0.17, marks=pytest.mark.slow)])
def test_the_desk_holds_wherever_it_is_tried(make_spec: Make, tmp_path: Path, day_share: float) -> None:
    """Every kind at every point of the first minutes: no breach, nothing unknown, as many trials as classes."""
    swept = sweep(make_spec(days=["2024-11-27", "2024-11-29"], end_fraction=day_share), tmp_path, one_worker)
    assert (swept.verdict, swept.findings, swept.problems) == ("holds", [], [])
    assert swept.is_exhaustive
    for kind in swept.spec.kinds:
        trial_count = sum(swept.count(kind, verdict) for verdict in ("transparent", "converged"))
        assert trial_count == count_trials(swept.classes, kind), kind
        assert 0 < trial_count <= count_points(swept.points, kind), kind
    assert swept.points["in"] == swept.points["delivered"]  # nothing is lost on the undisturbed day
    assert swept.points["out"] == swept.points["sent"]
    assert swept.trials == swept.classes_all
    assert swept.proved


@pytest.mark.slow
@pytest.mark.parametrize("faults", [[], [FAULT]])
def test_a_trial_is_what_its_schedule_does(make_spec: Make, tmp_path: Path, faults: list[str]) -> None:
    """Tried in the middle of a walk or played from the open: the same verdict, by the same invariant, at each place."""
    spec = make_spec(kinds=list(KILL_KINDS), faults=faults)
    results = run_all_trials(tmp_path, spec)
    sample = [
        result
        for place in ("mutation", "sent", "delivered", "instant")
        for result in [result for result in results if result.at == place][:: 80 if place == "mutation" else 40]
    ]
    assert len(sample) >= 8
    assert {result.at for result in sample} == {"mutation", "sent", "delivered", "instant"}
    for result in sample:
        played = play(
            schedule_from_result(spec, result),
            tmp_path / "played",
            recordings=Path(spec.recordings),
            scratch=True,
            journal=False,
            to_breach=True,
        )
        assert played.operations_done == 1
        # Played to the close: what a trial shows until it has rejoined, the rest of the day must not contradict.
        if result.verdict == "breach":
            assert played.mark == f"{result.subsystem}/{result.invariant}", result
        elif not faults:
            assert played.verdict == "holds", (result, played.breaches)
    if faults:
        assert {result.verdict for result in sample} >= {"breach", "transparent"}


def test_a_trial_comes_to_the_state_that_its_schedule_comes_to(make_spec: Make, tmp_path: Path) -> None:
    """Where a trial has rejoined, its schedule has the very state of the undisturbed day at that time."""
    spec = make_spec(kinds=["kill", "torn"])
    survey_map = survey_day(spec, tmp_path / "survey", None)
    marks = {mark.time_ns: mark.state for mark in survey_map.baselines}
    results, _ = run_trials(spec, tmp_path / "trials", None, survey_map, 1, survey_map.point_count + 1)
    rejoined = [result for result in results if result.verdict == "transparent"]
    for result in rejoined[5::31]:
        player = Player(
            schedule_from_result(spec, result), open_recordings(spec), tmp_path / "played", journal=False, scratch=True
        )
        assert state_at(player, result.rejoined_ns) == marks[result.rejoined_ns]


def state_at(player: Player, time_ns: int) -> int | None:
    """The state that a schedule has come to at a time."""
    states: list[int | None] = []
    session = player.session

    def look(name: str, args: tuple[Any, ...]) -> None:
        if name == "early":  # once more, so that it comes after all that is due at this time
            session.clock.set_timer(time_ns, "probe", "late")
        else:
            states.append(StateSum().compute(session))
            raise TimeoutError("seen enough")

    session.clock.register("probe", look)
    player.on_begin = lambda: session.clock.set_timer(time_ns, "probe", "early") and None
    player.play()
    player.close()
    return states[0]


@pytest.mark.slow
def test_forks_and_kills_in_the_process_agree(make_spec: Make, tmp_path: Path) -> None:
    """A subject that cannot live beside itself is tried in forks, with the same verdict and rejoin at every point."""
    spec = make_spec(kinds=["kill"], faults=[FAULT], end_fraction=0.4)
    local_results = {(result.number, result.kind): result for result in run_all_trials(tmp_path, spec)}
    forked = sweep(
        msgspec.structs.replace(spec, subject="tests.state.test_sweep:Together"), tmp_path / "forked", one_worker
    )
    assert forked.counts == count_verdicts(local_results.values())
    breaches = {number: result for number, result in local_results.items() if result.verdict == "breach"}
    assert breaches
    assert {(result.number, result.kind) for result in forked.findings} == set(breaches)
    for result in forked.findings:
        local_result = breaches[result.number, result.kind]
        assert (result.invariant, result.subsystem, result.time_ns) == (
            local_result.invariant,
            local_result.subsystem,
            local_result.time_ns,
        )


def count_verdicts(results: Any) -> dict[str, int]:
    """As a sweep counts."""
    counts: dict[str, int] = {}
    for result in results:
        key = f"{result.kind}/{result.verdict}"
        counts[key] = counts.get(key, 0) + 1
    return counts


def test_a_seeded_fault_is_found_and_its_schedule_shows_it(make_spec: Make, tmp_path: Path) -> None:
    """The sweep ends at the first breach, says which invariant, and the schedule of it breaches the same."""
    swept = sweep(make_spec(kinds=["kill"], faults=[FAULT]), tmp_path, one_worker, to_breach=True)
    assert swept.verdict == "breach"
    first = swept.findings[0]
    schedule = schedule_from_result(swept.spec, first)
    assert schedule.expect == f"{first.subsystem}/{first.invariant}"
    assert schedule.operations == [first.operations(0)[0]]
    assert play(schedule, tmp_path / "played", store=open_recordings(swept.spec), scratch=True).mark == schedule.expect


def test_what_a_subject_raises_is_its_breach(make_spec: Make, tmp_path: Path) -> None:
    """In a fork too: the fork answers, and nothing of it comes back into the walk."""
    spec = make_spec(kinds=["disconnect"], subject="tests.state.test_sweep:Raises", end_fraction=0.15)
    swept = sweep(spec, tmp_path, one_worker)
    assert swept.count("disconnect", "breach") == count_trials(swept.classes, "disconnect")
    assert {result.oracle for result in swept.findings} == {"crash"}
    assert "ArithmeticError: never heard of" in swept.findings[0].explanation


def test_a_cut_during_the_first_logon_is_survived(make_spec: Make, tmp_path: Path) -> None:
    """A cut that takes the venue's answer to a logon away is heard of: the subject tries again."""
    spec = make_spec()
    session = make_walk_session(spec, tmp_path, load_catalogue(spec), open_recordings(spec))
    session.begin("2024-11-27")
    session.play(session.clock.now_ns + session.link.latency_ns)
    assert session.link.is_venue_up
    assert not session.link.is_up
    session.disconnect()
    session.play(session.clock.now_ns + 5_000_000_000)
    session.reconnect()
    session.play(session.clock.now_ns + 5_000_000_000)
    assert session.link.is_quiet
    session.close()


# -- the state, summed ------------------------------------------------------------------------------------------------


@pytest.fixture
def running_session(make_spec: Make, tmp_path: Path) -> Any:
    """A session in the middle of a quiet moment."""
    spec = make_spec()
    session = make_walk_session(spec, tmp_path / "running", load_catalogue(spec), open_recordings(spec))
    session.begin("2024-11-27")
    session.play(session.hours()[0] + 135_000_000_000)
    while not session.link.is_quiet:
        session.play(session.clock.now_ns + 10_000_000)
    yield session
    session.close()


def test_the_sum_is_of_the_state_and_not_of_how_it_came_about(
    make_spec: Make, running_session: Session, tmp_path: Path
) -> None:
    """The same a second time, and after a kill that has rejoined."""
    spec = make_spec()
    calm = make_walk_session(spec, tmp_path / "calm", load_catalogue(spec), open_recordings(spec))
    calm.begin("2024-11-27")
    calm.play(running_session.clock.now_ns)
    assert StateSum().compute(calm) == StateSum().compute(running_session) == StateSum().compute(running_session)
    running_session.restart("kill")
    later = running_session.hours()[0] + 165_000_000_000
    calm.play(later)
    running_session.play(later)
    assert running_session.link.epoch != calm.link.epoch
    assert StateSum().compute(running_session) == StateSum().compute(calm) is not None
    calm.close()


def _change_record(session: Session) -> None:
    position = next(iter(session.guard.monitor.records(Position, "positions").values()))
    assert isinstance(position, Position)
    with session.guard.step("test"):
        session.guard.record("positions", msgspec.structs.replace(position, net_qty=position.net_qty + 1))


def _change_row(session: Session) -> None:
    with sqlite3.connect(session.disk.directory / "desk.db") as db:
        db.execute("UPDATE meta SET value = value || '1' WHERE name = 'session'")


def _add_timer(session: Session) -> None:
    session.clock.set_timer(session.clock.now_ns + 77, "subject", "other")


def _disable_book(session: Session) -> None:
    session.venue.disable_book("BOLT")


@pytest.mark.parametrize("change", [_change_record, _change_row, _add_timer, _disable_book])
def test_the_sum_differs_after_any_real_change(running_session: Session, change: Callable[[Session], None]) -> None:
    """One record, one row, one timer, one book."""
    sums = StateSum()
    before = sums.compute(running_session)
    change(running_session)
    running_session.link._inbound.clear()  # a word of the venue on its way would make it no moment to compare
    running_session.link.in_seq = running_session.link.received_seq
    assert sums.compute(running_session) not in (before, None)
    assert sums.compute(running_session) == StateSum().compute(running_session)


# -- the same anywhere ------------------------------------------------------------------------------------------------

SURVEY = """
import sys, msgspec
from pathlib import Path
from holdover.explore.walk import SweepSpec, survey_day
spec = msgspec.json.decode(sys.argv[1], type=SweepSpec)
sys.stdout.buffer.write(msgspec.msgpack.encode(survey_day(spec, Path(sys.argv[2]), None)))
"""


def test_two_surveys_give_one_map(make_spec: Make, tmp_path: Path) -> None:
    """In this process and in another with another hash seed: marks, points, classes and pieces."""
    spec = make_spec(end_fraction=1.0)
    local_map = survey_day(spec, tmp_path / "mine", None)
    assert local_map == survey_day(spec, tmp_path / "again", None)
    completed = subprocess.run(
        [sys.executable, "-c", SURVEY, msgspec.json.encode(spec).decode(), str(tmp_path / "other")],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )
    remote_map = msgspec.msgpack.decode(completed.stdout, type=DayMap)
    assert remote_map == local_map
    assert cut_pieces(remote_map, spec.kinds) == cut_pieces(local_map, spec.kinds)
    bounds = [bound for piece in cut_pieces(local_map, spec.kinds) for bound in piece]
    assert (bounds[0], bounds[-1], bounds) == (1, local_map.point_count + 1, sorted(bounds))


def test_a_schedule_replays_to_one_journal(make_spec: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`replay` twice here and once in a new process with another hash seed: the same journal, byte for byte."""
    spec = make_spec()
    result = TrialResult(number=0, kind="kill", at="sent", n=4, time_ns=0, verdict="transparent")
    path = schedule_from_result(spec, result).save(tmp_path / "one.json")
    replay = ["replay", str(path), "--recordings", spec.recordings, "--json"]
    digests = set()
    for number in range(2):
        assert main([*replay, "--out", str(tmp_path / str(number))]) == 0
        digests.add(msgspec.json.decode(capsys.readouterr().out)["journal_sha256"])
    completed = subprocess.run(
        [sys.executable, "-m", "holdover", *replay, "--out", str(tmp_path / "new")],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "99"},
    )
    digests.add(msgspec.json.decode(completed.stdout)["journal_sha256"])
    assert len(digests) == 1


def test_a_kill_is_not_survived_by_what_it_interrupts(running_session: Session) -> None:
    """`die` raises what no subject may catch."""
    with pytest.raises(SubjectKilledError):
        running_session.trials.kill()
