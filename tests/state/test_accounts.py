"""Accounts over restarts, cuts and nights: what moves without a trade is booked once, and agrees with the venue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdover.catalogue import Catalogue
from holdover.harness import Fill, Session, SessionConfig, first, resolve_factory
from holdover.harness.player import play
from holdover.harness.schedule import Operation, make_schedule
from holdover.harness.session import RESTARTS
from holdover.model import (
    AdjustmentReason,
    Balance,
    CashMovement,
    CashReason,
    Margin,
    Order,
    OrderOrigin,
    Position,
    PositionAdjustment,
    RealizedPnl,
    Record,
)
from holdover.recording import bundled_store
from holdover.world import VenuePolicy

DAYS = ("2024-11-27", "2024-11-29")
ACCOUNT_INVARIANTS = (
    "adjustments-agree-with-venue",
    "balances-agree-with-venue",
    "margin-agrees-with-venue",
    "margin-sufficient",
    "movements-agree-with-venue",
    "prices-positive",
    "realized-pnl-conserved",
    "transfers-equal-movements",
)
MINUTE = 60_000_000_000
pytestmark = pytest.mark.state(instrument="ACME")


@pytest.fixture
def make_session(tmp_path: Path, catalogue: Catalogue) -> Callable[..., Session]:
    """Return a function that makes a session of the desk over two days."""

    def make(**policy: Any) -> Session:
        config = SessionConfig(days=DAYS, catalogue=catalogue, policy=VenuePolicy(**policy), journal=False)
        return Session(resolve_factory("desk"), bundled_store(), ["ACME"], tmp_path / "session", config)

    return make


def run_minutes(session: Session, count: float) -> None:
    """Run the session for some minutes."""
    session.run(session.clock.now_ns + int(count * MINUTE))


def facts(session: Session, kind: type[Record], subsystem: str) -> dict[str, Record]:
    """Return the records of a kind by key."""
    return dict(session.guard.monitor.records(kind, subsystem))


def assert_agreement(session: Session) -> None:
    """Assert that desk and venue have the same cash, facts and margin, and that nothing was breached."""
    assert [breach.explanation for breach in session.breaches] == []
    for key, balance in session.guard.monitor.records(Balance, "ledger").items():
        assert balance.cash == session.venue.accounts.balances[key].cash
    for kind, subsystem in ((PositionAdjustment, "positions"), (CashMovement, "ledger"), (Margin, "risk")):
        own, venue = facts(session, kind, subsystem), facts(session, kind, "venue")
        assert own.keys() == venue.keys()
    positions = session.guard.monitor.records(Position, "positions")
    for key, position in session.venue.positions.items():
        assert positions[key].net_qty == position.net_qty


def let_the_venue_act(session: Session) -> None:
    """One adjustment, one movement and one liquidation of a part."""
    accounts = session.venue.accounts
    assert accounts.adjust_position("A1", "ACME", -3, AdjustmentReason.FEE)
    assert accounts.move_cash("A2", "USD", -5_000_000, CashReason.FUNDING, "ACME")
    assert session.venue.liquidate("A1", "ACME", lots=5)


def test_two_days_of_an_account(make_session: Callable[..., Session]) -> None:
    """Deposits, interest, commissions in kind and in cash, and margin: each invariant of accounts is exercised."""
    session = make_session(
        commission_bp=20, commission_in_kind=True, maintenance_margin_bp=2_500, initial_margin_bp=5_000, leverage_max=5
    )
    for _ in DAYS:
        session.begin()
        session.run(0.4)
        let_the_venue_act(session)
        run_minutes(session, 1)
        session.restart("kill")
        session.run()
        session.end()
        assert_agreement(session)
        session.overnight()
    counts = session.guard.monitor.evaluation_counts()
    assert [name for name in ACCOUNT_INVARIANTS if not counts[name]] == []
    reasons = {movement.reason for movement in session.venue.accounts.movements}
    assert reasons >= {CashReason.DEPOSIT, CashReason.INTEREST, CashReason.FEE, CashReason.FUNDING}
    assert any(adjustment.exec_id for adjustment in session.venue.accounts.adjustments)
    assert any(profit.realized for profit in session.guard.monitor.records(RealizedPnl, "ledger").values())


@pytest.mark.parametrize("kind", RESTARTS)
@pytest.mark.parametrize("recovery", ["replay", "drop"])
def test_what_moved_while_it_was_away_is_booked_once(
    make_session: Callable[..., Session], kind: str, recovery: str
) -> None:
    """The venue acts before, during and after an absence, and may not tell again what it told meanwhile."""
    session = make_session()
    session.begin()
    session.run(0.2)
    session.run(until=first(Fill))
    let_the_venue_act(session)
    run_minutes(session, 1)
    session.disconnect(recovery=recovery)
    let_the_venue_act(session)
    run_minutes(session, 1)
    session.restart(kind)
    let_the_venue_act(session)
    session.reconnect()
    run_minutes(session, 3)
    assert_agreement(session)
    assert len(facts(session, PositionAdjustment, "positions")) == 3


def test_what_moved_after_the_close_is_booked_the_next_day(make_session: Callable[..., Session]) -> None:
    """The desk dies before the venue's last acts of the day; the next session books them under its own date."""
    session = make_session()
    session.begin()
    session.run(0.3)
    assert session.run(until=first(Fill), kill=True)
    let_the_venue_act(session)
    session.run_without_subject(60)
    session.end()
    session.overnight()
    session.begin()
    run_minutes(session, 45)
    assert_agreement(session)
    booked = {fact.trade_date for fact in session.guard.monitor.records(PositionAdjustment, "positions").values()}
    assert booked == {DAYS[1]}


def test_a_liquidation_is_adopted_as_a_foreign_order(make_session: Callable[..., Session]) -> None:
    """Its origin is on the order, its fill moves position, cash and profit like any other."""
    session = make_session()
    session.begin()
    session.run(0.5)
    cl_ord_id = session.venue.liquidate("A1", "ACME", OrderOrigin.AUTO_DELEVERAGING)
    run_minutes(session, 1)
    order = session.guard.monitor.records(Order, "orders")[cl_ord_id]
    assert (order.foreign, order.origin) == (True, OrderOrigin.AUTO_DELEVERAGING)
    assert_agreement(session)
    session.restart("kill")
    run_minutes(session, 1)
    assert session.order(cl_ord_id).origin == OrderOrigin.AUTO_DELEVERAGING
    assert_agreement(session)


OPERATIONS = st.lists(
    st.tuples(
        st.integers(60, 3_000),
        st.one_of(
            st.tuples(st.just("move-cash"), st.tuples(st.integers(0, 1), st.integers(-500, 500), st.integers(0, 9))),
            st.tuples(
                st.just("adjust-position"),
                st.tuples(st.integers(0, 1), st.just(0), st.integers(-400, 400), st.integers(0, 12)),
            ),
            st.tuples(st.just("liquidate"), st.tuples(st.integers(0, 1), st.just(0), st.sampled_from((0, 20)))),
            st.tuples(st.sampled_from(("kill", "torn", "kill-unsynced")), st.tuples(st.sampled_from((0, 5, 200)))),
            st.tuples(st.just("clean"), st.tuples()),
            st.tuples(st.just("bust"), st.tuples(st.integers(0, 5))),
            st.tuples(st.just("disconnect"), st.tuples(st.sampled_from((1, 90)), st.integers(0, 2), st.integers(0, 1))),
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(day_operations=st.tuples(OPERATIONS, OPERATIONS))
def test_cash_agrees_after_any_schedule(tmp_path: Path, catalogue: Catalogue, day_operations: Any) -> None:
    """Movements, adjustments, liquidations, busts, restarts and cuts in any order, over two days: nothing breaks."""
    operations = [
        Operation(day=day, at="second", n=second, do=do, with_=list(numbers))
        for day, of_day in enumerate(day_operations)
        for second, (do, numbers) in of_day
    ]
    operations += [Operation(day=day, at="second", n=3_400, do="overnight") for day in range(2)]
    schedule = make_schedule(bundled_store(), ["ACME"], DAYS, catalogue, operations=operations)
    played = play(schedule, tmp_path / "play", catalogue=catalogue, journal=False, scratch=True)
    assert (played.mark, [breach.explanation for breach in played.breaches]) == ("", [])


@pytest.mark.state(logic=True)
def test_operations_of_accounts_read_as_sentences() -> None:
    """Each kind says what it does, with its numbers."""
    sentences = [
        Operation(at="second", n=60, do="move-cash", with_=[1, -100]).describe(),
        Operation(at="second", n=60, do="adjust-position", with_=[0, 0, -3]).describe(),
        Operation(at="second", n=60, do="liquidate", with_=[0, 0, 5]).describe(),
    ]
    assert sentences == [
        "day 1, 60 s after the open: the venue moves -100 millionths of the cash of account 1 without a trade",
        "day 1, 60 s after the open: the venue changes the position of account 0 in instrument 0 by -3 lots "
        "without a trade",
        "day 1, 60 s after the open: the venue liquidates 5 lots (0: all) of the position of account 0 in instrument 0",
    ]


def test_a_day_without_account_reports_is_as_before(tmp_path: Path, catalogue: Catalogue) -> None:
    """A desk that does not take them gets none, and the venue records no cash."""
    config = SessionConfig(days=DAYS, catalogue=catalogue, settings={"account_reports": False}, journal=False)
    session = Session(resolve_factory("desk"), bundled_store(), ["ACME"], tmp_path / "session", config)
    session.begin()
    session.run(0.2)
    assert session.breaches == []
    assert not facts(session, Balance, "venue")
    assert facts(session, Balance, "ledger")
