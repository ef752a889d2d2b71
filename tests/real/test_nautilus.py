"""NautilusTrader itself, live stack and all, under the harness; what it is known to get wrong is named."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="needs the extra nautilus")

from nautilus_trader.model.enums import TradingState

from holdover.adapters.nautilus import NautilusSubject
from holdover.adapters.nautilus.backing import SqliteBacking
from holdover.adapters.nautilus.database import open_cache_database
from holdover.adapters.nautilus.stack import TRADER
from holdover.harness import Condition, Session, SessionConfig
from holdover.harness.player import Player
from holdover.harness.schedule import open_store_for, read_schedule
from holdover.model import Order, OrdStatus, Position, Request, Side, TimeInForce
from holdover.recording import bundled_store

STORIES = Path(__file__).parents[2] / "docs" / "findings" / "nautilus"
DAYS = ["2024-11-27", "2024-11-29"]
MINUTE_NS = 60_000_000_000


def make_session(directory: Path, **settings: Any) -> Session:
    return Session(NautilusSubject, bundled_store(), ["ACME"], directory, SessionConfig(days=DAYS, settings=settings))


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    new_session = make_session(tmp_path)
    new_session.begin(DAYS[0])
    yield new_session
    new_session.close()


def run_minutes(session: Session, count: float) -> None:
    session.run(session.clock.now_ns + int(count * MINUTE_NS))


def test_two_short_days_with_a_night_between_them_hold(session: Session) -> None:
    """Orders are amended, cancelled, filled in parts and carried; the books are the venue's throughout."""
    run_minutes(session, 12)
    orders = session.orders()
    assert {order.ord_status for order in orders} >= {OrdStatus.FILLED, OrdStatus.NEW}
    assert {order.time_in_force for order in orders} == {TimeInForce.GTC, TimeInForce.DAY}
    session.end(immediately=True)
    session.overnight()
    session.begin()
    run_minutes(session, 4)
    assert session.breaches == []
    assert session.host.env is not None
    assert session.position("A1", "ACME") == session.venue.positions["A1/ACME"].net_qty


def test_a_restart_brings_orders_and_positions_back_from_the_cache_database(session: Session) -> None:
    """What the restarted process holds before the venue has said anything is what was written."""
    run_minutes(session, 8)
    orders = {order.key: order for order in session.orders()}
    net_qty = session.position("A1", "ACME")
    assert net_qty != 0
    session.restart(kill=True)
    subject = session.subject
    assert isinstance(subject, NautilusSubject)
    assert subject.stack is not None
    assert not subject.stack.is_running  # it has not reconciled yet
    restored_orders = {
        subject.names.order_key(order): subject.names.to_order(order) for order in subject.stack.cache.orders()
    }
    assert {key: (order.cum_qty, order.ord_status, order.price) for key, order in restored_orders.items()} == {
        key: (order.cum_qty, order.ord_status, order.price) for key, order in orders.items()
    }
    assert sum(int(position.signed_qty) for position in subject.stack.cache.positions()) == net_qty
    run_minutes(session, 2)
    assert subject.stack.is_running
    assert session.breaches == []


def test_a_position_flips_and_comes_back_the_same(session: Session) -> None:
    """A netting position goes through flat under one id; its stored events are replayed to the same figure."""
    signs: list[int] = []
    session.host.on_record = lambda subsystem, record: (
        signs.append(record.net_qty) if isinstance(record, Position) else None
    )
    run_minutes(session, 10)
    assert min(signs) < 0 < max(signs)
    session.host.on_record = None
    net_qty = session.position("A1", "ACME")
    session.restart("clean")
    subject = session.subject
    assert isinstance(subject, NautilusSubject)
    assert subject.stack is not None
    assert sum(int(position.signed_qty) for position in subject.stack.cache.positions()) == net_qty
    run_minutes(session, 0.5)
    assert session.breaches == []


def test_a_trade_by_hand_at_the_venue_becomes_an_external_order(session: Session) -> None:
    run_minutes(session, 2)
    price = session.venue.top("ACME").ask_px
    name = session.venue.manual_trade("A1", "ACME", Side.BUY, 100, price)
    run_minutes(session, 1)
    adopted = session.order(name)
    assert adopted.foreign
    assert adopted.cum_qty == 100
    assert session.breaches == []


def test_a_trade_by_hand_while_it_was_down_is_found_by_its_own_reconciliation(session: Session) -> None:
    session.run(Condition("an order", lambda subsystem, record: isinstance(record, Request), 6), kill=True)
    name = session.venue.manual_trade("A1", "ACME", Side.SELL, 100, session.venue.top("ACME").bid_px)
    session.restart("kill")
    run_minutes(session, 1)
    assert session.order(name).foreign
    assert session.position("A1", "ACME") == session.venue.positions["A1/ACME"].net_qty


def test_a_freeze_is_in_force_before_a_restarted_one_does_anything(session: Session) -> None:
    """Its own trading state is ACTIVE after every start; the guard's freeze is not forgotten."""
    run_minutes(session, 2)
    session.guard.freeze("account:A1", operator="ops", reason="test")
    session.restart(kill=True)
    subject = session.subject
    assert isinstance(subject, NautilusSubject)
    assert subject.stack is not None
    assert subject.stack.risk.is_bypassed is False
    assert subject.stack.risk.trading_state == TradingState.HALTED
    order_count = len(session.venue.orders)
    run_minutes(session, 5)
    assert len(session.venue.orders) == order_count
    assert session.host.leaked_requests == []


def test_hedging_and_cash_hold_undisturbed(tmp_path: Path) -> None:
    """Virtual positions sum to the venue's net one; the cash account's ledger is the fills' to the cent."""
    for settings in ({"oms": "hedging"}, {"account": "cash"}):
        session = make_session(tmp_path / "-".join(settings), **settings)
        session.begin(DAYS[0])
        run_minutes(session, 6)
        assert session.breaches == []
        assert session.venue.trades
        session.close()


def test_settings_that_it_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="oms is 'both', should be one of netting, hedging"):
        make_session(tmp_path, oms="both")


@pytest.mark.parametrize("name", sorted(path.stem for path in STORIES.glob("*.json")))
def test_a_known_finding_shows(name: str, tmp_path: Path) -> None:
    """Each story still ends in the breach that it is told for; when a release mends it, the page has to say so."""
    schedule = read_schedule(STORIES / f"{name}.json")
    player = Player(schedule, open_store_for(schedule, None), tmp_path, journal=False, scratch=True, to_breach=True)
    about = tomllib.loads((STORIES / "about.toml").read_text())
    player.end_at = (0, about[name].get("minutes", 15) * 60)
    played = player.play()
    player.close()
    assert bool(played.crash) == schedule.expect.startswith("crash/")
    assert played.mark == schedule.expect


def _run_until_killed(directory: Path) -> None:
    session = make_session(directory)
    session.begin(DAYS[0])
    count = [0]

    def on_record(subsystem: str, record: Any) -> None:
        count[0] += isinstance(record, Order)
        if count[0] == 40:
            os.kill(os.getpid(), signal.SIGKILL)

    session.host.on_record = on_record
    run_minutes(session, 30)


def test_what_a_killed_process_has_written_is_read_by_another(tmp_path: Path) -> None:
    """SIGKILL in the middle of a write's report; a new process loads the store with their own code."""
    process = multiprocessing.get_context("fork").Process(target=_run_until_killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    backing = SqliteBacking(tmp_path / "subject", TRADER)
    database = open_cache_database(backing, TRADER)
    orders, positions = database.load_orders(), database.load_positions()
    assert len(orders) == len(backing.keys("orders:*")) > 5
    filled = sum(int(order.filled_qty) * (1 if order.is_buy else -1) for order in orders.values())
    last = next(reversed(orders.values()))
    unwritten = int(last.filled_qty)  # the kill may stand between the write of a fill to its order and to its position
    assert abs(filled - sum(int(position.signed_qty) for position in positions.values())) <= unwritten
    backing.close()
