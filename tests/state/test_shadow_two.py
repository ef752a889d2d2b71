"""Two instruments live beside an incumbent, out of a tap or in lines, over a night; and lines of another time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.incumbent_desk import CandidateHost, IncumbentDesk, S

MakeShadow = Callable[..., tuple[IncumbentDesk, CandidateHost]]


@pytest.fixture
def make_shadow(tmp_path: Path) -> Iterator[MakeShadow]:
    """Makes an incumbent of two instruments and the candidate's host."""
    resources: list[Any] = []

    def make(**options: Any) -> tuple[IncumbentDesk, CandidateHost]:
        incumbent = IncumbentDesk(tmp_path, symbols=("ACME", "BOLT"), **options)
        host = CandidateHost(tmp_path)
        resources[:] = incumbent, host.live
        return incumbent, host

    yield make
    resources[0].close()


@pytest.mark.parametrize("tap", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_two_instruments_over_a_night(make_shadow: MakeShadow, tap: bool) -> None:
    """Killed in either day and in the night: the candidate's orders in both are the incumbent's."""
    incumbent, host = make_shadow(tap=tap)
    for number, passed in enumerate(incumbent.steps(incumbent.days[0], 120.0, minutes=20)):
        host.advance(passed)
        if number == 7:
            host.kill()
    incumbent.pass_night()
    for second in range(20):
        host.advance(S)
        if second == 15:
            host.kill()
    for number, passed in enumerate(islice(incumbent.steps(incumbent.days[1], 120.0), 15)):
        host.advance(passed)
        if number == 9:
            host.kill()
    host.live.compare()
    state = host.live.shadow_run.state
    assert state.market_events == incumbent.seq
    assert state.faults == {}
    assert state.compared is not None
    assert state.compared.orders > 50
    assert state.compared.differing == 0
    assert state.followed is not None
    assert (state.followed.discarded, state.followed.unmatched_requests) == (0, 0)
    (night,) = state.nights
    (incumbent_night,) = incumbent.session.carried
    assert (night["open_orders"], night["positions"]) == (incumbent_night["open_orders"], incumbent_night["positions"])
    assert {key.split("/")[1] for key, quantity in night["positions"].items() if quantity} == {"ACME", "BOLT"}
    journal = b"".join(path.read_bytes() for path in host.live.arms[0].journals)
    assert b'"symbol":"BOLT"' in journal
    host.live.close()


def test_a_time_that_cannot_be_yet_is_a_gap_and_moves_nothing(make_shadow: MakeShadow) -> None:
    """A line of months ahead, a heartbeat of the next century: neither ends the day."""
    incumbent, host = make_shadow()
    for number, passed in enumerate(islice(incumbent.steps(incumbent.days[0]), 12)):
        if number in (4, 6):
            ahead = incumbent.session.clock.now_ns + (60 if number == 4 else 36_500) * 86_400 * S
            incumbent.feed.write(b'{"ts_event": %d}\n' % ahead)
        host.advance(passed)
        if number == 8:
            host.kill()
    state = host.live.shadow_run.state
    assert host.live.trade_date == incumbent.days[0]
    assert [event.detail for event in state.faults["gap"].last] == [
        "market data of 60 days ahead",
        "market data of 36500 days ahead",
    ]
    assert state.market_events == incumbent.seq
    host.live.compare()
    assert state.compared is not None
    assert state.compared.differing == 0
    host.live.close()
