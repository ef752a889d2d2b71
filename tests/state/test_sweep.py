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
from holdover.explore.play import Player
from holdover.explore.pool import processes
from holdover.explore.state import StateSum
from holdover.explore.sweep import cut, points_of, schedule_of, sweep, trials_of
from holdover.explore.trial import Tried, run_trials
from holdover.explore.walk import KILLS, Ground, Map, catalogue_of, new_session, store_of, survey
from holdover.harness import Killed, Session
from holdover.model import Position
from tests.days import short_days

FAULT = "forget-carried-partial"


class Together(DeskSubject):
    """The desk, of which no two lives can be in one process: it is tried in forks."""

    isolated = False


class Raises(DeskSubject):
    """A desk that cannot bear to be cut off."""

    def start(self, env: Any) -> None:
        """Come up, and replace what hears of a cut."""
        super().start(env)
        assert self.desk is not None
        self.desk.on_down = self._raise  # type: ignore[method-assign]

    def _raise(self, reason: str) -> None:
        raise ArithmeticError(f"never heard of {reason}")


Make = Callable[..., Ground]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A short day, or its first minutes: what `until` says."""
    place = tmp_path_factory.mktemp("days")
    short_days(place, minutes=4)

    def make(**fields: Any) -> Ground:
        told: dict[str, Any] = {"symbols": ["BOLT"], "days": ["2024-11-27"], "day": "2024-11-27", "prove_every": 40}
        return Ground(**({"recordings": str(place), "until": 0.4} | told | fields))

    return make


def one_worker() -> Executor:
    """A process of its own: a fork needs to be alone."""
    return processes(1)


def tried_in(place: Path, told: Ground) -> list[Tried]:
    """Every trial of a ground whose kinds need no fork, tried here."""
    found = survey(told, place / "survey", None)
    return run_trials(told, place / "trials", None, found, 1, found.total + 1)[0]


@pytest.mark.parametrize("until", [0.08, pytest.param(0.17, marks=pytest.mark.slow)])
def test_the_desk_holds_wherever_it_is_tried(ground: Make, tmp_path: Path, until: float) -> None:
    """Every kind at every point of the first minutes: no breach, nothing unknown, as many trials as classes."""
    swept = sweep(ground(days=["2024-11-27", "2024-11-29"], until=until), tmp_path, one_worker)
    assert (swept.verdict, swept.found, swept.problems) == ("holds", [], [])
    assert swept.exhaustive
    for kind in swept.ground.kinds:
        done = sum(swept.count(kind, verdict) for verdict in ("transparent", "converged"))
        assert done == trials_of(swept.classes, kind), kind
        assert 0 < done <= points_of(swept.points, kind), kind
    assert swept.points["in"] == swept.points["delivered"]  # nothing is lost on the undisturbed day
    assert swept.points["out"] == swept.points["sent"]
    assert swept.trials == swept.classes_all
    assert swept.proved


@pytest.mark.slow
@pytest.mark.parametrize("faults", [[], [FAULT]])
def test_a_trial_is_what_its_schedule_does(ground: Make, tmp_path: Path, faults: list[str]) -> None:
    """Tried in the middle of a walk or played from the open: the same verdict, by the same invariant, at each place."""
    told = ground(kinds=list(KILLS), faults=faults)
    tried = tried_in(tmp_path, told)
    chosen = [
        one
        for place in ("mutation", "sent", "delivered", "instant")
        for one in [one for one in tried if one.place == place][:: 80 if place == "mutation" else 40]
    ]
    assert len(chosen) >= 8
    assert {one.place for one in chosen} == {"mutation", "sent", "delivered", "instant"}
    for one in chosen:
        played = play(
            schedule_of(told, one),
            tmp_path / "played",
            recordings=Path(told.recordings),
            scratch=True,
            journal=False,
            to_breach=True,
        )
        assert played.done == 1
        # Played to the close: what a trial shows until it has rejoined, the rest of the day must not contradict.
        if one.verdict == "breach":
            assert played.mark == f"{one.subsystem}/{one.invariant}", one
        elif not faults:
            assert played.verdict == "holds", (one, played.breaches)
    if faults:
        assert {one.verdict for one in chosen} >= {"breach", "transparent"}


def test_a_trial_comes_to_the_state_that_its_schedule_comes_to(ground: Make, tmp_path: Path) -> None:
    """Where a trial has rejoined, its schedule has the very state of the undisturbed day at that time."""
    told = ground(kinds=["kill", "torn"])
    found = survey(told, tmp_path / "survey", None)
    marks = {one.time_ns: one.state for one in found.marks}
    tried, _ = run_trials(told, tmp_path / "trials", None, found, 1, found.total + 1)
    rejoined = [one for one in tried if one.verdict == "transparent"]
    for one in rejoined[5::31]:
        player = Player(schedule_of(told, one), store_of(told), tmp_path / "played", journal=False, scratch=True)
        assert state_at(player, one.rejoined_ns) == marks[one.rejoined_ns]


def state_at(player: Player, time_ns: int) -> int | None:
    """The state that a schedule has come to at a time."""
    told: list[int | None] = []
    session = player.session

    def look(name: str, args: tuple[Any, ...]) -> None:
        if name == "early":  # once more, so that it comes after all that is due at this time
            session.clock.at(time_ns, "probe", "late")
        else:
            told.append(StateSum().of(session))
            raise TimeoutError("seen enough")

    session.clock.register("probe", look)
    player.on_begin = lambda: session.clock.at(time_ns, "probe", "early") and None
    player.play()
    player.close()
    return told[0]


@pytest.mark.slow
def test_forks_and_kills_in_the_process_agree(ground: Make, tmp_path: Path) -> None:
    """A subject that cannot live beside itself is tried in forks, with the same verdict and rejoin at every point."""
    told = ground(kinds=["kill"], faults=[FAULT], until=0.4)
    here = {(one.number, one.kind): one for one in tried_in(tmp_path, told)}
    forked = sweep(
        msgspec.structs.replace(told, subject="tests.state.test_sweep:Together"), tmp_path / "forked", one_worker
    )
    assert forked.counts == counted(here.values())
    breaches = {number: one for number, one in here.items() if one.verdict == "breach"}
    assert breaches
    assert {(one.number, one.kind) for one in forked.found} == set(breaches)
    for one in forked.found:
        mine = breaches[one.number, one.kind]
        assert (one.invariant, one.subsystem, one.time_ns) == (mine.invariant, mine.subsystem, mine.time_ns)


def counted(tried: Any) -> dict[str, int]:
    """As a sweep counts."""
    found: dict[str, int] = {}
    for one in tried:
        key = f"{one.kind}/{one.verdict}"
        found[key] = found.get(key, 0) + 1
    return found


def test_a_seeded_fault_is_found_and_its_schedule_shows_it(ground: Make, tmp_path: Path) -> None:
    """The sweep ends at the first breach, says which invariant, and the schedule of it breaches the same."""
    swept = sweep(ground(kinds=["kill"], faults=[FAULT]), tmp_path, one_worker, to_breach=True)
    assert swept.verdict == "breach"
    first = swept.found[0]
    schedule = schedule_of(swept.ground, first)
    assert schedule.expect == f"{first.subsystem}/{first.invariant}"
    assert schedule.operations == [first.operations(0)[0]]
    assert play(schedule, tmp_path / "played", store=store_of(swept.ground), scratch=True).mark == schedule.expect


def test_what_a_subject_raises_is_its_breach(ground: Make, tmp_path: Path) -> None:
    """In a fork too: the fork answers, and nothing of it comes back into the walk."""
    told = ground(kinds=["disconnect"], subject="tests.state.test_sweep:Raises", until=0.15)
    swept = sweep(told, tmp_path, one_worker)
    assert swept.count("disconnect", "breach") == trials_of(swept.classes, "disconnect")
    assert {one.oracle for one in swept.found} == {"crash"}
    assert "ArithmeticError: never heard of" in swept.found[0].explanation


def test_a_cut_during_the_first_logon_is_survived(ground: Make, tmp_path: Path) -> None:
    """A cut that takes the venue's answer to a logon away is heard of: the subject tries again."""
    told = ground()
    session = new_session(told, tmp_path, catalogue_of(told), store_of(told))
    session.begin("2024-11-27")
    session.play(session.clock.now_ns + session.link.latency_ns)
    assert session.link.venue_up
    assert not session.link.up
    session.disconnect()
    session.play(session.clock.now_ns + 5_000_000_000)
    session.reconnect()
    session.play(session.clock.now_ns + 5_000_000_000)
    assert session.link.quiet
    session.close()


# -- the state, summed ------------------------------------------------------------------------------------------------


@pytest.fixture
def running(ground: Make, tmp_path: Path) -> Any:
    """A session in the middle of a quiet moment."""
    told = ground()
    session = new_session(told, tmp_path / "running", catalogue_of(told), store_of(told))
    session.begin("2024-11-27")
    session.play(session.hours()[0] + 135_000_000_000)
    while not session.link.quiet:
        session.play(session.clock.now_ns + 10_000_000)
    yield session
    session.close()


def test_the_sum_is_of_the_state_and_not_of_how_it_came_about(ground: Make, running: Session, tmp_path: Path) -> None:
    """The same a second time, and after a kill that has rejoined."""
    told = ground()
    calm = new_session(told, tmp_path / "calm", catalogue_of(told), store_of(told))
    calm.begin("2024-11-27")
    calm.play(running.clock.now_ns)
    assert StateSum().of(calm) == StateSum().of(running) == StateSum().of(running)
    running.restart("kill")
    later = running.hours()[0] + 165_000_000_000
    calm.play(later)
    running.play(later)
    assert running.link.epoch != calm.link.epoch
    assert StateSum().of(running) == StateSum().of(calm) is not None
    calm.close()


def _a_record(session: Session) -> None:
    held = next(iter(session.guard.monitor.layout.tables["positions", Position].values()))
    assert isinstance(held, Position)
    with session.guard.step("test"):
        session.guard.record("positions", msgspec.structs.replace(held, net_qty=held.net_qty + 1))


def _a_row(session: Session) -> None:
    with sqlite3.connect(session.subject_directory / "desk.db") as db:
        db.execute("UPDATE meta SET value = value || '1' WHERE name = 'session'")


def _a_timer(session: Session) -> None:
    session.clock.at(session.clock.now_ns + 77, "subject", "other")


def _a_book(session: Session) -> None:
    session.venue.disable("BOLT")


@pytest.mark.parametrize("change", [_a_record, _a_row, _a_timer, _a_book])
def test_the_sum_differs_after_any_real_change(running: Session, change: Callable[[Session], None]) -> None:
    """One record, one row, one timer, one book."""
    sums = StateSum()
    before = sums.of(running)
    change(running)
    running.link._in.clear()  # a word of the venue on its way would make it no moment to compare
    running.link.in_seq = running.link.heard
    assert sums.of(running) not in (before, None)
    assert sums.of(running) == StateSum().of(running)


# -- the same anywhere ------------------------------------------------------------------------------------------------

SURVEY = """
import sys, msgspec
from pathlib import Path
from holdover.explore.walk import Ground, survey
ground = msgspec.json.decode(sys.argv[1], type=Ground)
sys.stdout.buffer.write(msgspec.msgpack.encode(survey(ground, Path(sys.argv[2]), None)))
"""


def test_two_surveys_give_one_map(ground: Make, tmp_path: Path) -> None:
    """In this process and in another with another hash seed: marks, points, classes and pieces."""
    told = ground(until=1.0)
    mine = survey(told, tmp_path / "mine", None)
    assert mine == survey(told, tmp_path / "again", None)
    other = subprocess.run(
        [sys.executable, "-c", SURVEY, msgspec.json.encode(told).decode(), str(tmp_path / "other")],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )
    theirs = msgspec.msgpack.decode(other.stdout, type=Map)
    assert theirs == mine
    assert cut(theirs, told.kinds) == cut(mine, told.kinds)
    bounds = [bound for piece in cut(mine, told.kinds) for bound in piece]
    assert (bounds[0], bounds[-1], bounds) == (1, mine.total + 1, sorted(bounds))


def test_a_schedule_replays_to_one_journal(ground: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`replay` twice here and once in a new process with another hash seed: the same journal, byte for byte."""
    told = ground()
    one = Tried(number=0, kind="kill", place="sent", n=4, time_ns=0, verdict="transparent")
    path = schedule_of(told, one).save(tmp_path / "one.json")
    replay = ["replay", str(path), "--recordings", told.recordings, "--json"]
    digests = set()
    for number in range(2):
        assert main([*replay, "--out", str(tmp_path / str(number))]) == 0
        digests.add(msgspec.json.decode(capsys.readouterr().out)["journal_sha256"])
    again = subprocess.run(
        [sys.executable, "-m", "holdover", *replay, "--out", str(tmp_path / "new")],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "99"},
    )
    digests.add(msgspec.json.decode(again.stdout)["journal_sha256"])
    assert len(digests) == 1


def test_a_kill_is_not_survived_by_what_it_interrupts(running: Session) -> None:
    """`die` raises what no subject may catch."""
    with pytest.raises(Killed):
        running.die()
