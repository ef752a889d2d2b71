"""The brackets of the desk over restarts, cuts, nights and what a venue does by itself.

The bracket strategy trades alone, so that each session is short.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.harness import Session, SessionConfig, resolve_factory
from holdover.harness.condition import Condition
from holdover.model import Order, OrdType, Side
from holdover.recording import bundled_store
from holdover.world import WorkingOrder
from tests.faults.stories import MINUTE, is_filled_entry, run_minutes

pytestmark = pytest.mark.state

SETTINGS = {"strategies": ["bracket.ACME"]}
Bench = Callable[..., Session]


@pytest.fixture
def make_session(tmp_path: Path, catalogue: Catalogue) -> Bench:
    """Make sessions of the desk with its bracket strategy alone."""

    def make(name: str) -> Session:
        options = {
            "days": ("2024-11-27", "2024-11-29"),
            "catalogue": catalogue,
            "settings": SETTINGS,
            "journal": False,
        }
        config = SessionConfig(**options)  # type: ignore[arg-type]
        return Session(resolve_factory("desk"), bundled_store(), ["ACME"], tmp_path / name, config)

    return make


def run_until_position(session: Session) -> None:
    """Begin, and run until an entry has filled and its exits work."""
    session.begin()
    assert session.run(until=Condition("a filled entry", is_filled_entry, 1))
    run_minutes(session, 0.1)


def working_exits(session: Session) -> list[WorkingOrder]:
    """Return the closing orders that are open at the venue."""
    return [order for order in session.venue.lifecycle.open_orders() if order.side == Side.SELL]


def find_exit(session: Session, ord_type: OrdType) -> WorkingOrder:
    """Return the open stop or take-profit at the venue."""
    return next(order for order in working_exits(session) if order.ord_type == ord_type)


def check_covered(session: Session) -> None:
    """Stops cover the position, and nothing that fills together exceeds it; nothing is breached."""
    net_qty = session.venue.positions["A3/ACME/LONG"].net_qty
    by_list: dict[str, int] = {}
    stopped: dict[str, int] = {}
    for order in working_exits(session):
        by_list[order.list_id] = max(by_list.get(order.list_id, 0), order.leaves_qty)
        if order.ord_type == OrdType.STOP:
            stopped[order.list_id] = max(stopped.get(order.list_id, 0), order.leaves_qty)
    assert sum(by_list.values()) == net_qty
    assert sum(stopped.values()) == net_qty
    assert session.breaches == []


@pytest.mark.parametrize("ord_type", [OrdType.STOP, OrdType.LIMIT], ids=["the stop", "the take-profit"])
@pytest.mark.parametrize("is_cut", [False, True], ids=["at once", "in a cut"])
def test_an_exit_that_the_venue_cancels(make_session: Bench, ord_type: OrdType, is_cut: bool) -> None:
    """A cancelled stop is sent again, into the list of the take-profit; a cancelled take-profit is not."""
    session = make_session("s")
    run_until_position(session)
    if is_cut:
        session.disconnect(recovery="drop")
    assert session.venue.cancel_order(find_exit(session, ord_type).cl_ord_id)
    if is_cut:
        run_minutes(session, 1)
        session.reconnect()
    run_minutes(session, 0.2)
    check_covered(session)
    types = sorted(order.ord_type.name for order in working_exits(session))
    assert types == (["LIMIT", "STOP"] if ord_type == OrdType.STOP else ["STOP"])
    session.close()


def test_a_partial_fill_of_an_exit_reduces_the_other(make_session: Bench) -> None:
    """The stop covers what is left, through a restart."""
    session = make_session("s")
    run_until_position(session)
    session.venue.lifecycle.fill(find_exit(session, OrdType.LIMIT), 100, 10_059)
    session.restart("kill")
    run_minutes(session, 0.2)
    check_covered(session)
    assert {order.leaves_qty for order in working_exits(session)} == {203}
    session.close()


def test_a_bust_of_an_exit_brings_back_a_position_that_is_protected(make_session: Bench) -> None:
    """The take-profit works again, its stop was cancelled: a new one joins its list."""
    session = make_session("s")
    run_until_position(session)
    target = find_exit(session, OrdType.LIMIT)
    session.venue.lifecycle.fill(target, target.leaves_qty, 10_059)
    exec_id = session.venue.reports.last_exec_id
    fills = [trade.exec_id for trade in session.venue.trades if trade.cl_ord_id == target.cl_ord_id]
    run_minutes(session, 0.05)
    assert working_exits(session) == []
    assert exec_id
    assert session.venue.bust_trade(fills[-1])
    run_minutes(session, 0.2)
    check_covered(session)
    assert {order.list_id for order in working_exits(session)} == {target.list_id}
    session.close()


def test_an_entry_that_ends_partly_filled_keeps_exits_for_it(make_session: Bench) -> None:
    """Cancelled by the venue after its first fill: the exits shrink to the position."""
    session = make_session("s")
    session.begin()
    assert session.run(until=Condition("a bracket", lambda s, r: isinstance(r, Order) and bool(r.protecting_qty), 2))
    run_minutes(session, 0.01)
    entry = next(order for order in session.venue.lifecycle.open_orders() if order.side == Side.BUY)
    session.venue.lifecycle.fill(entry, 50, entry.price or 1)
    assert session.venue.cancel_order(entry.cl_ord_id)
    run_minutes(session, 0.2)
    check_covered(session)
    assert {order.order_qty for order in working_exits(session)} == {50}
    session.close()


def test_a_bracket_is_carried_over_the_night(make_session: Bench) -> None:
    """Position and exits come back the next day, with their list, and the desk sends no further ones."""
    session = make_session("s")
    session.begin()
    session.run()
    session.end()
    carried = {order.cl_ord_id for order in working_exits(session)}
    assert len(carried) == 2
    session.overnight()
    session.begin()
    session.run(0.001)
    assert {order.cl_ord_id for order in working_exits(session)} == carried
    check_covered(session)
    session.close()


@pytest.mark.parametrize("ending", ["kill", "clean"])
def test_a_restart_anywhere_in_a_bracket_leaves_it_covered(make_session: Bench, ending: str) -> None:
    """From the first look to the filled entry, a restart at each mutation: the exits fit what is and may be bought.

    An order that died unsent is not sent again at the same price, so the orders may differ from those of a day without
    a restart; what they cover may not.
    """
    undisturbed = make_session("undisturbed")
    run_until_position(undisturbed)
    end_ns, restarted = undisturbed.clock.now_ns, 0
    undisturbed.close()
    for point in range(20, 200, 4):
        session = make_session(f"{ending}-{point}")
        session.begin()
        point_reached = Condition("here", lambda subsystem, record: True, point)
        is_met = session.run(until=point_reached, limit=end_ns, kill=ending == "kill") or session.subject is None
        if is_met:
            restarted += 1
            session.restart(ending)
            session.run(end_ns + MINUTE)
            position = session.venue.positions.get("A3/ACME/LONG")
            net_qty = position.net_qty if position is not None else 0
            exits = working_exits(session)
            entering = sum(
                order.leaves_qty for order in session.venue.lifecycle.open_orders() if order.side == Side.BUY
            )
            stops = sum(order.leaves_qty for order in exits if order.ord_type == OrdType.STOP)
            targets = sum(order.leaves_qty for order in exits if order.ord_type == OrdType.LIMIT)
            assert net_qty <= stops <= net_qty + entering, point
            assert targets <= net_qty + entering, point
            assert session.breaches == [], point
        session.close()
        if not is_met:
            break
    assert restarted > 8
