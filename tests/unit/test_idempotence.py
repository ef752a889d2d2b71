"""Reconciliation idempotence: what two reconciliations compare, and when they are not comparable."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from holdover.model import MsgType, Order, OrdStatus, Position, Record, Request, Side
from holdover.runtime.idempotence import ReconciliationIdempotence

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
POSITION = Position(account="A", symbol="X", net_qty=4, trade_date=DAY)
REQUEST = Request(
    msg_type=MsgType.NEW_ORDER_SINGLE,
    cl_ord_id="C1",
    root_cl_ord_id="C1",
    symbol="X",
    side=Side.BUY,
    order_qty=10,
    account="A",
)


def make_tables(*records: Record, venue: Order | None = ORDER, request_count: int = 1) -> dict[Any, dict[str, Record]]:
    """Return the tables of a monitor: the desk's records, the venue's order, and a number of requests."""
    monitor_tables: dict[Any, dict[str, Record]] = {}
    for record in records:
        subsystem = "orders" if isinstance(record, Order) else "positions"
        monitor_tables.setdefault((subsystem, type(record)), {})[record.key] = record
    if venue is not None:
        monitor_tables["venue", Order] = {venue.key: venue}
    monitor_tables["gateway", Request] = {f"C{number}": REQUEST for number in range(request_count)}
    return monitor_tables


def test_the_first_has_none_before_it() -> None:
    """Nor has the first of another session."""
    idempotence = ReconciliationIdempotence()
    assert idempotence.compare(make_tables(ORDER, POSITION), DAY) is None
    assert idempotence.compare(make_tables(ORDER, POSITION), "2024-11-29") is None


def test_nothing_has_changed() -> None:
    """The same amounts, learnt in another way."""
    idempotence = ReconciliationIdempotence()
    idempotence.compare(make_tables(ORDER, POSITION), DAY)
    comparison = idempotence.compare(make_tables(replace(ORDER, exec_id="S1", price=7), POSITION), DAY)
    assert comparison is not None
    assert (comparison.compared, comparison.changed, comparison.first) == (2, 0, "")


@pytest.mark.parametrize("position", [replace(POSITION, net_qty=8), replace(POSITION, symbol="Y")])
def test_a_position_has_changed(position: Position) -> None:
    """It is another amount, or one that was not there; the venue has said nothing meanwhile."""
    idempotence = ReconciliationIdempotence()
    idempotence.compare(make_tables(ORDER, POSITION), DAY)
    comparison = idempotence.compare(make_tables(ORDER, position), DAY)
    assert comparison is not None
    assert comparison.changed == 1
    assert repr(position) in comparison.first
    assert "changed 1" in repr(comparison)


@pytest.mark.parametrize(
    "changed_tables",
    [
        make_tables(replace(ORDER, cum_qty=5), venue=replace(ORDER, cum_qty=5)),
        make_tables(replace(ORDER, cum_qty=5), request_count=2),
        make_tables(replace(ORDER, ord_status=OrdStatus.PENDING_CANCEL)),
        make_tables(replace(ORDER, cum_qty=5), venue=None),
    ],
    ids=["the venue has moved", "something was sent", "an answer is waited for", "the venue is not recorded"],
)
def test_there_was_something_to_tell(changed_tables: dict[Any, dict[str, Record]]) -> None:
    """Then nothing is claimed."""
    idempotence = ReconciliationIdempotence()
    idempotence.compare(make_tables(ORDER), DAY)
    assert idempotence.compare(changed_tables, DAY) is None


def test_what_is_kept_is_not_what_goes_on() -> None:
    """The monitor's own tables move on under it."""
    idempotence = ReconciliationIdempotence()
    first = make_tables(ORDER, POSITION)
    idempotence.compare(first, DAY)
    first["positions", Position][POSITION.key] = replace(POSITION, net_qty=9)
    comparison = idempotence.compare(first, DAY)
    assert comparison is not None
    assert comparison.changed == 1
