"""freqtrade itself, worker, bot and database, under the harness; what it is known to get wrong is named."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("freqtrade", reason="needs the extra freqtrade")
pytest.importorskip("time_machine", reason="needs the extra freqtrade")

from holdover.adapters.freqtrade import FreqtradeSubject, subject
from holdover.adapters.freqtrade.configuration import FILE
from holdover.explore.play import Player, store_for
from holdover.explore.schedule import read_schedule
from holdover.harness import Session
from holdover.model import Order, OrdStatus, Side
from holdover.recording import bundled

STORIES = Path(__file__).parents[2] / "docs" / "findings" / "freqtrade"
DAYS = ["2024-11-27", "2024-11-29"]
MINUTE_NS = 60_000_000_000


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = Session(FreqtradeSubject, bundled(), ["ACME"], tmp_path, days=DAYS)
    made.begin(DAYS[0])
    yield made
    made.close()


def minutes(session: Session, count: float) -> None:
    session.run(session.clock.now_ns + int(count * MINUTE_NS))


def known(session: Session) -> list[Order]:
    """Its orders; each of them is what the venue has of it."""
    found = session.orders()
    for order in found:
        truth = session.venue.order(order.cl_ord_id)
        assert truth is not None
        assert (order.cum_qty, order.ord_status) == (truth.cum_qty, truth.ord_status)
    return found


def test_a_few_minutes_a_kill_a_cut_and_a_night_hold(session: Session) -> None:
    minutes(session, 9)
    before = known(session)
    assert {one.side for one in before} == {Side.BUY, Side.SELL}
    assert {one.ord_status for one in before} >= {OrdStatus.FILLED, OrdStatus.CANCELED}
    session.restart(kill=True)
    minutes(session, 3)
    assert len(known(session)) > len(before)
    session.disconnect()
    minutes(session, 1)
    session.reconnect()
    minutes(session, 4)
    held = session.position("A1", "ACME")
    assert held == session.venue.positions["A1/ACME"].net_qty != 0
    session.end(now=True)
    session.overnight()
    session.begin()
    assert session.position("A1", "ACME") == held
    minutes(session, 4)
    known(session)
    assert session.breaches == []


def test_what_it_believes_is_what_is_in_its_own_database(session: Session) -> None:
    minutes(session, 6)
    with closing(sqlite3.connect(session.subject_directory / FILE)) as database:
        stored = dict(database.execute("SELECT order_id, filled FROM orders"))
        (fills,) = database.execute("SELECT COUNT(*) FROM holdover_fill").fetchone()
    assert {one.key: float(one.cum_qty) for one in session.orders() if one.key in stored} == stored
    assert fills >= sum(1 for one in session.orders() if one.cum_qty)


def test_the_adapter_is_under_sixty_lines() -> None:
    """Hooks, record, restore: the lines that do something, without documentation."""
    lines, told = inspect.getsource(subject.FreqtradeSubject).splitlines(), False
    count = 0
    for line in (one.strip() for one in lines):
        quotes = line.count('"""')
        count += bool(line) and not told and not quotes and not line.startswith("#")
        told = told != (quotes == 1)
    assert 30 < count < 60


@pytest.mark.parametrize("story", sorted(STORIES.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_found_is_found_again(story: Path, tmp_path: Path) -> None:
    schedule = read_schedule(story)
    player = Player(schedule, store_for(schedule, None), tmp_path, journal=False, scratch=True, to_breach=True)
    player.until = (0, 480)
    told = player.play()
    player.close()
    assert told.mark == schedule.expect
