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
from holdover.harness import Session, SessionConfig
from holdover.harness.player import Player
from holdover.harness.schedule import open_store_for, read_schedule
from holdover.model import Order, OrdStatus, Side
from holdover.recording import bundled_store

STORIES = Path(__file__).parents[2] / "docs" / "findings" / "freqtrade"
DAYS = ["2024-11-27", "2024-11-29"]
MINUTE_NS = 60_000_000_000


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    new_session = Session(FreqtradeSubject, bundled_store(), ["ACME"], tmp_path, SessionConfig(days=DAYS))
    new_session.begin(DAYS[0])
    yield new_session
    new_session.close()


def run_minutes(session: Session, count: float) -> None:
    session.run(session.clock.now_ns + int(count * MINUTE_NS))


def verify_orders(session: Session) -> list[Order]:
    """Its orders; each of them is what the venue has of it."""
    orders = session.orders()
    for order in orders:
        truth = session.venue.order_record(order.cl_ord_id)
        assert truth is not None
        assert (order.cum_qty, order.ord_status) == (truth.cum_qty, truth.ord_status)
    return orders


def test_a_few_minutes_a_kill_a_cut_and_a_night_hold(session: Session) -> None:
    run_minutes(session, 9)
    before = verify_orders(session)
    assert {order.side for order in before} == {Side.BUY, Side.SELL}
    assert {order.ord_status for order in before} >= {OrdStatus.FILLED, OrdStatus.CANCELED}
    session.restart(kill=True)
    run_minutes(session, 3)
    assert len(verify_orders(session)) > len(before)
    session.disconnect()
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 4)
    position = session.position("A1", "ACME")
    assert position == session.venue.positions["A1/ACME"].net_qty != 0
    session.end(immediately=True)
    session.overnight()
    session.begin()
    assert session.position("A1", "ACME") == position
    run_minutes(session, 4)
    verify_orders(session)
    assert session.breaches == []


def test_what_it_believes_is_what_is_in_its_own_database(session: Session) -> None:
    run_minutes(session, 6)
    with closing(sqlite3.connect(session.disk.directory / FILE)) as database:
        stored = dict(database.execute("SELECT order_id, filled FROM orders"))
        (fills,) = database.execute("SELECT COUNT(*) FROM holdover_fill").fetchone()
    assert {order.key: float(order.cum_qty) for order in session.orders() if order.key in stored} == stored
    assert fills >= sum(1 for order in session.orders() if order.cum_qty)


def test_the_adapter_is_under_sixty_lines() -> None:
    """Hooks, record, restore: the lines that do something, without documentation."""
    lines, in_docstring = inspect.getsource(subject.FreqtradeSubject).splitlines(), False
    count = 0
    for line in (raw_line.strip() for raw_line in lines):
        quotes = line.count('"""')
        count += bool(line) and not in_docstring and not quotes and not line.startswith("#")
        in_docstring = in_docstring != (quotes == 1)
    assert 30 < count < 60


@pytest.mark.parametrize("story", sorted(STORIES.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_found_is_found_again(story: Path, tmp_path: Path) -> None:
    schedule = read_schedule(story)
    player = Player(schedule, open_store_for(schedule, None), tmp_path, journal=False, scratch=True, to_breach=True)
    player.end_at = (0, 480)
    result = player.play()
    player.close()
    assert result.mark == schedule.expect
