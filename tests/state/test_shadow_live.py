"""A candidate run live beside an incumbent, on the same market data and the same executions, over recorded days."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from holdover.adapters.desk import DeskSubject
from holdover.desk.config import Strategy
from holdover.desk.parents import Parents
from holdover.harness import Session
from holdover.harness.subject import Env, Plan
from holdover.model import ParentOrder
from holdover.shadow import check_cutover, read_shadow_config, read_state
from tests.incumbent_desk import CandidateHost, IncumbentDesk, S
from tests.waits import make_wait

MakeShadow = Callable[..., tuple[IncumbentDesk, CandidateHost]]
KILLS = int(os.environ.get("HOLDOVER_KILLS", "5"))


@pytest.fixture
def make_shadow(tmp_path: Path) -> Iterator[MakeShadow]:
    """Makes an incumbent and the candidate's host."""
    resources: list[Any] = []

    def make(factory: Any = None, **options: Any) -> tuple[IncumbentDesk, CandidateHost]:
        incumbent = IncumbentDesk(tmp_path, **options)
        resources.append(incumbent)
        host = CandidateHost(tmp_path, factory)
        resources.append(host)
        return incumbent, host

    yield make
    for resource in resources:
        resource.close() if isinstance(resource, IncumbentDesk) else resource.live.close()


def play_day(incumbent: IncumbentDesk, host: CandidateHost, day: str, *, minutes: float = 60.0) -> None:
    """A day beside each other."""
    for passed in incumbent.steps(day, minutes=minutes):
        host.advance(passed)


def play_into_second_day(incumbent: IncumbentDesk, host: CandidateHost) -> Session:
    """A day, the night and the beginning of the next day; returns the candidate's session."""
    play_day(incumbent, host, incumbent.days[0])
    incumbent.pass_night()
    for _ in range(20):
        host.advance(S)
    for passed in islice(incumbent.steps(incumbent.days[1]), 60):
        host.advance(passed)
    session = host.live.arms[0].session
    assert session is not None
    return session


def first_steps(incumbent: IncumbentDesk, steps: int) -> Iterator[int]:
    """The first steps of the first day."""
    return islice(incumbent.steps(incumbent.days[0]), steps)


def test_an_identical_candidate_is_not_called_different(make_shadow: MakeShadow) -> None:
    """Two days and the night between: every order the same, the same carried, and none of it by chance."""
    incumbent, host = make_shadow(extra_config="", candidate="")
    for day in incumbent.days:
        play_day(incumbent, host, day)
        incumbent.pass_night()
        for _ in range(20):
            host.advance(S)
    host.live.compare()
    state = host.live.shadow_run.state
    assert state.compared is not None
    assert state.compared.orders == state.orders > 100
    assert (state.compared.differing, state.compared.moving) == (0, 0)
    assert state.followed is not None
    assert state.followed.reports > state.orders
    assert (state.followed.discarded, state.followed.unmatched_requests) == (0, 0)
    assert [night["after"] for night in state.nights] == incumbent.days
    for night, incumbent_night in zip(state.nights, incumbent.session.carried, strict=True):
        assert night["open_orders"] == incumbent_night["open_orders"] > 0
        assert night["positions"] == incumbent_night["positions"]
    assert state.nights[0]["partially_filled"] > 0
    assert (state.faults, state.breach_count, state.sessions) == ({}, 0, 2)
    assert not state.virtual
    assert host.live.days.get("ACME", host.live.trade_date).meta.previous_session == incumbent.days[-1]


def test_a_second_copy_of_the_candidate_shows_what_differs_by_chance(make_shadow: MakeShadow) -> None:
    """Both copies get the same; the desk does the same on the same input."""
    incumbent, host = make_shadow(extra_config="[divergence]\ncopy = true", days=1)
    for passed in first_steps(incumbent, 60):
        host.advance(passed)
    host.live.compare()
    compared = host.live.shadow_run.state.compared
    assert compared is not None
    assert compared.noise == 0.0
    assert compared.noise_orders >= compared.orders > 10


def test_a_candidate_that_rounds_one_order_another_way_is_found(make_shadow: MakeShadow) -> None:
    """One lot less on one order: that order differs, in its quantity first, and no other order before it does."""

    class RoundingParents(Parents):
        slice_count = 0

        def _send_slice(self, strategy: Strategy, parent: ParentOrder, quantity: int, price: int) -> None:
            self.slice_count += 1
            super()._send_slice(strategy, parent, quantity - (self.slice_count == 8), price)

    def make_rounding_desk(plan: Plan) -> DeskSubject:
        subject = DeskSubject(plan)
        subject.parts = replace(subject.parts, parents=RoundingParents)
        return subject

    incumbent, host = make_shadow(make_rounding_desk, days=1)
    for passed in first_steps(incumbent, 90):
        host.advance(passed)
    host.live.compare()
    compared = host.live.shadow_run.state.compared
    assert compared is not None
    assert compared.orders > 10
    assert 1 <= compared.unexplained == compared.differing < compared.orders / 2
    assert "order_qty" in compared.fields
    assert host.live.shadow_run.state.faults["divergence"].count == 1


def test_a_candidate_that_dies_stays_dead(make_shadow: MakeShadow) -> None:
    """It raises in the middle of a day: one fault, and a restart of the shadow heals nothing."""

    class DyingSubject(DeskSubject):
        def start(self, env: Env) -> None:
            sent_count, send = [0], env.link.send

            def count_sends(message: Any) -> int:
                sent_count[0] += 1
                if sent_count[0] == 30:
                    raise RuntimeError("told to die")
                return send(message)

            env.link.send = count_sends  # type: ignore[method-assign]
            super().start(env)

    incumbent, host = make_shadow(DyingSubject, days=1)
    for number, passed in enumerate(first_steps(incumbent, 60)):
        host.advance(passed)
        if number == 45:
            host.kill()
    state = host.live.shadow_run.state
    assert state.faults["crash"].count == 1
    assert "told to die" in state.faults["crash"].last[0].detail
    assert host.live.arms[0].session is not None
    assert host.live.arms[0].session.subject is None
    assert not next(component for component in state.components if component.name == "candidate").healthy
    assert state.clock.healthy_ns == 0
    assert check_cutover(read_shadow_config(host.directory / "shadow.toml"), host.wall).eligible is False


@pytest.mark.parametrize("at", [(3, 40, 41, 61), pytest.param((17, 60), marks=pytest.mark.slow)])
def test_a_killed_shadow_plays_its_day_again_and_goes_on(make_shadow: MakeShadow, at: tuple[int, ...]) -> None:
    """Killed at any moment, in the night, too: what is counted and what the candidate did are as without a kill."""
    incumbent, host = make_shadow()
    for number, passed in enumerate(incumbent.steps(incumbent.days[0], minutes=60)):
        host.advance(passed)
        if number in at:
            host.kill()
    incumbent.pass_night()
    for second in range(20):
        host.advance(S)
        if second in (8, 11, 15):
            host.kill()
    for passed in islice(incumbent.steps(incumbent.days[1]), 60):
        host.advance(passed)
    host.kill()
    host.advance(S)
    host.live.compare()
    state = host.live.shadow_run.state
    assert state.clock.run_count == len(at) + 5
    assert state.compared is not None
    assert state.compared.orders + state.compared.moving == state.orders > 50
    assert state.compared.differing == 0
    assert state.faults == {}
    assert (state.sessions, len(state.nights)) == (1, 1)
    assert state.market_events == incumbent.seq
    journal = host.live.arms[0].journals[-1].read_bytes()
    assert state.mutations >= journal.count(b'"kind":"')
    assert state.followed is not None
    assert (state.followed.discarded, state.followed.unmatched_requests) == (0, 0)


def test_a_feed_that_skips_and_lines_that_nobody_can_read_are_gaps(make_shadow: MakeShadow) -> None:
    """Each is one fault, and is not counted again when its day is played again."""
    incumbent, host = make_shadow(days=1)
    for number, passed in enumerate(first_steps(incumbent, 30)):
        if number == 10:
            incumbent.feed.write(b'{"symbol": "ACME", "ts_event": 1, "price": "twelve"}\n')
        if number == 12:
            incumbent.seq += 5
        host.advance(passed)
        if number in (11, 20):
            host.kill()
    state = host.live.shadow_run.state
    assert state.faults["gap"].count == 2
    assert state.faults["gap"].last[0].detail.startswith("a line of market data cannot be read")
    assert "came after" in state.faults["gap"].last[1].detail
    assert state.clock.reset_count == 2


def test_what_an_operator_does_to_a_freeze_is_an_input_like_any_other(make_shadow: MakeShadow) -> None:
    """A fault freezes; thawed from outside it stays thawed when the shadow has been killed and plays its day again."""
    incumbent, host = make_shadow(candidate='faults = ["forget-carried-partial"]')
    session = play_into_second_day(incumbent, host)
    frozen = session.guard.frozen_scopes()
    assert frozen
    state = host.live.shadow_run.state
    breaches = state.breach_count
    assert breaches == state.faults["breach"].count > 0
    for scope in frozen:
        session.guard.store.thaw(scope, "olga", "seen and understood", "the broker's statement", "", host.wall)
    host.advance(2 * S)
    assert session.guard.frozen_scopes() == []
    host.kill()
    session = host.live.arms[0].session
    assert session is not None
    assert session.guard.frozen_scopes() == []
    assert session.guard.store.active_freezes() == []
    assert host.live.shadow_run.state.breach_count == breaches


def test_what_a_person_does_survives_a_replay(make_shadow: MakeShadow) -> None:
    """Acknowledged and ticked off, without any change of a freeze: the same after a kill, with who did it."""
    incumbent, host = make_shadow(candidate='faults = ["forget-carried-partial"]')
    session = play_into_second_day(incumbent, host)
    store = session.guard.store
    number = store.active_freezes()[0].breach
    key = store.alerts()[0].page.dedup_key
    assert store.acknowledge(key, "olga", host.wall)
    assert store.mark_step_done(number, 1, "vera", host.wall)
    frozen = session.guard.frozen_scopes()
    host.advance(2 * S)
    for _ in range(2):  # also after a second kill, which replays what the first one replayed
        host.kill()
        host.advance(2 * S)
        session = host.live.arms[0].session
        assert session is not None
        store = session.guard.store
        assert [alert.acknowledged_by for alert in store.alerts() if alert.page.dedup_key == key] == ["olga"]
        assert {step: name for step, (name, _) in store.done_steps(number).items()} == {1: "vera"}
        assert session.guard.frozen_scopes() == frozen
        assert store.verify_audit() == ""
    batches = list(host.live.inputs.read_batches(incumbent.days[1]))
    assert sum(item.kind == "g" for batch in batches for item in batch.items) == 1  # stored once, not at every check


def test_days_are_trimmed_and_what_is_left_is_compared(make_shadow: MakeShadow) -> None:
    """With one day to keep the first one is deleted when the second begins; a kill still replays, nothing differs."""
    incumbent, host = make_shadow(shadow="keep_days = 1")
    play_day(incumbent, host, incumbent.days[0])
    incumbent.pass_night()
    for _ in range(20):
        host.advance(S)
    root = host.live.arms[0].root
    for passed in islice(incumbent.steps(incumbent.days[1]), 60):
        host.advance(passed)
    host.kill()
    host.advance(S)
    host.live.inputs.begin_day(host.live.day.trade_date, host.live.day.start, 0)
    host.live.pipeline.trim_days()
    assert [path.name for path in root.glob("????-??-??")] == [incumbent.days[1]]
    names = set(host.live.inputs.needed_snapshots())
    assert names <= {path.stem for path in (root / "snapshots").glob("*.hsnap")}
    host.live.compare()
    compared = host.live.shadow_run.state.compared
    assert compared is not None
    assert compared.orders > 0
    assert (compared.differing, compared.only_candidate, compared.only_incumbent) == (0, 0, 0)


def test_a_jump_of_the_host_s_clock_is_a_fault_and_moves_nothing(make_shadow: MakeShadow) -> None:
    """The candidate's time is the feed's."""
    incumbent, host = make_shadow(days=1)
    for number, passed in enumerate(first_steps(incumbent, 40)):
        if number == 15:
            host.wall += 86_400 * S
        if number == 25:
            host.wall -= 4_000 * S
        host.advance(passed)
    state = host.live.shadow_run.state
    assert {name: faults.count for name, faults in state.faults.items()} == {"clock-skew": 2}
    assert host.live.trade_date == incumbent.days[0]
    session = host.live.arms[0].session
    assert session is not None
    assert session.clock.now_ns - incumbent.session.clock.now_ns <= 60 * S
    assert state.clock.reset_count == 0


def test_a_silent_feed_stops_the_healthy_clock_and_not_the_day(make_shadow: MakeShadow) -> None:
    """Time goes on for the candidate, its timers with it; healthy it is not, until the feed is back."""
    incumbent, host = make_shadow(days=1, extra_config="[[component]]\nname = 'market data'\ndeadline_s = 120")
    for passed in first_steps(incumbent, 20):
        host.advance(passed)
    session = host.live.arms[0].session
    assert session is not None
    before_ns = session.clock.now_ns
    for _ in range(10):
        host.advance(60 * S)
    assert session.clock.now_ns - before_ns == pytest.approx(600 * S, abs=2 * S)
    assert host.live.shadow_run.state.faults["silence"].count == 1
    assert host.live.shadow_run.state.clock.healthy_ns == 0


def _has_counted(state: Path, events: int, written_ns: int) -> bool:
    """Whether a shadow has counted so many events, and has written since."""
    return state.exists() and state.stat().st_mtime_ns > written_ns and read_state(state).market_events >= events


def test_a_shadow_that_is_killed_again_and_again_as_a_process(tmp_path: Path) -> None:
    """SIGKILL at random moments of a day that comes in: at the end nothing is missing, twice, or different."""
    incumbent = IncumbentDesk(tmp_path, days=1)
    config = tmp_path / "shadow.toml"
    text = config.read_text().replace("tick_s = 1\n", "tick_s = 0.05\n")
    config.write_text(text.replace("[input]", '[input]\nbegin = "start"'))
    state = read_shadow_config(config).state_path
    draw, wait = random.Random(7), make_wait(60.0)
    command = [sys.executable, "-m", "holdover", "shadow", "run", "--config", str(config)]

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    process, kills, written_ns = begin(), 0, 0
    try:
        for number, _ in enumerate(first_steps(incumbent, 90)):
            if number % max(80 // KILLS, 1) == 0 and number:
                wait(
                    partial(_has_counted, state, draw.randrange(incumbent.seq), written_ns if draw.randrange(2) else 0)
                )
                written_ns = state.stat().st_mtime_ns
                process.kill()
                process.wait()
                process, kills = begin(), kills + 1
        wait(lambda: state.exists() and read_state(state).market_events == incumbent.seq)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        incumbent.close()
    final_state = read_state(state)
    assert 1 + kills // 4 <= final_state.clock.run_count <= kills + 1
    assert final_state.compared is not None
    assert final_state.compared.orders + final_state.compared.moving == final_state.orders > 10
    assert final_state.compared.differing == 0
    assert {name: faults.count for name, faults in final_state.faults.items()} == {}
    assert final_state.followed is not None
    assert (final_state.followed.discarded, final_state.followed.unmatched_requests) == (0, 0)
