"""Reconciling again: what is compared with what, and when there is nothing to be said."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from holdover.model import MsgType, Order, OrdStatus, Position, Record, Request, Side
from holdover.runtime.again import Again

DAY = "2024-11-27"
ORDER = Order(
    root_cl_ord_id="C1",
    cl_ord_id="C1",
    symbol="X",
    side=Side.BUY,
    order_qty=10,
    leaves_qty=6,
    cum_qty=4,
    ord_status=OrdStatus.PARTIALLY_FILLED,
    account="A",
)
HELD = Position(account="A", symbol="X", net_qty=4, trade_date=DAY)
REQUEST = Request(
    msg_type=MsgType.NEW_ORDER_SINGLE,
    cl_ord_id="C1",
    root_cl_ord_id="C1",
    symbol="X",
    side=Side.BUY,
    order_qty=10,
    account="A",
)


def tables(*ours: Record, venue: Order | None = ORDER, sent: int = 1) -> dict[Any, dict[str, Record]]:
    """What a monitor holds: our records, the venue's order, so many requests sent."""
    found: dict[Any, dict[str, Record]] = {}
    for record in ours:
        subsystem = "orders" if isinstance(record, Order) else "positions"
        found.setdefault((subsystem, type(record)), {})[record.key] = record
    if venue is not None:
        found["venue", Order] = {venue.key: venue}
    found["gateway", Request] = {f"C{number}": REQUEST for number in range(sent)}
    return found


def test_the_first_has_none_before_it() -> None:
    """Nor has the first of another session."""
    again = Again()
    assert again.look(tables(ORDER, HELD), DAY) is None
    assert again.look(tables(ORDER, HELD), "2024-11-29") is None


def test_nothing_has_changed() -> None:
    """The same amounts, learnt in another way."""
    again = Again()
    again.look(tables(ORDER, HELD), DAY)
    told = again.look(tables(replace(ORDER, exec_id="S1", price=7), HELD), DAY)
    assert told is not None
    assert (told.compared, told.changed, told.first) == (2, 0, "")


@pytest.mark.parametrize("now", [replace(HELD, net_qty=8), replace(HELD, symbol="Y")])
def test_a_position_has_changed(now: Position) -> None:
    """It is another amount, or one that was not there; the venue has said nothing meanwhile."""
    again = Again()
    again.look(tables(ORDER, HELD), DAY)
    told = again.look(tables(ORDER, now), DAY)
    assert told is not None
    assert told.changed == 1
    assert repr(now) in told.first
    assert "changed 1" in repr(told)


@pytest.mark.parametrize(
    "now",
    [
        tables(replace(ORDER, cum_qty=5), venue=replace(ORDER, cum_qty=5)),
        tables(replace(ORDER, cum_qty=5), sent=2),
        tables(replace(ORDER, ord_status=OrdStatus.PENDING_CANCEL)),
        tables(replace(ORDER, cum_qty=5), venue=None),
    ],
    ids=["the venue has moved", "something was sent", "an answer is waited for", "the venue is not recorded"],
)
def test_there_was_something_to_tell(now: dict[Any, dict[str, Record]]) -> None:
    """Then nothing is claimed."""
    again = Again()
    again.look(tables(ORDER), DAY)
    assert again.look(now, DAY) is None


def test_what_is_kept_is_not_what_goes_on() -> None:
    """The monitor's own tables move on under it."""
    again = Again()
    first = tables(ORDER, HELD)
    again.look(first, DAY)
    first["positions", Position][HELD.key] = replace(HELD, net_qty=9)
    told = again.look(first, DAY)
    assert told is not None
    assert told.changed == 1
