"""The guard's view of the venue over two incarnations of a live desk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdover.adapters.fix.venue_view import VenueView
from holdover.model import ExecType, ExecutionReport, Instrument, Order, OrdStatus, Side
from holdover.runtime import Guard, GuardSettings


def make_fill(number: int, last: int, cum: int, **overrides: Any) -> ExecutionReport:
    """The venue's report of a fill of an order of 2,000 lots, the number of the second in which it happened."""
    fields: dict[str, Any] = {
        "exec_type": ExecType.TRADE,
        "ord_status": OrdStatus.PARTIALLY_FILLED if cum < 2000 else OrdStatus.FILLED,
        "cl_ord_id": "S-1",
        "exec_id": f"E{number}",
        "symbol": "ACME",
        "side": Side.SELL,
        "order_qty": 2000,
        "cum_qty": cum,
        "leaves_qty": 2000 - cum,
        "notional": cum * 100,
        "last_qty": last,
        "last_px": 100,
        "order_id": "O1",
        "account": "A",
        "trade_date": "2024-11-27",
        "transact_time_ns": number * 10**9,
    }
    return ExecutionReport(**(fields | overrides))


def make_trade_capture(number: int, last: int) -> ExecutionReport:
    """The same told again in an answer, which says nothing of what the order came to by it."""
    return make_fill(number, last, 0, leaves_qty=0, notional=0, req_id="Q1", ord_status=OrdStatus.PARTIALLY_FILLED)


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    """A guard with the whole catalogue."""
    return Guard(tmp_path, GuardSettings(instruments=[Instrument(symbol="ACME", venue="V")]))


def venue_order(guard: Guard) -> Order:
    """Return the venue's order as the guard has recorded it."""
    return next(record for (sub, kind), table in guard.monitor.all_records().items() if (sub, kind) == ("venue", Order)
                for record in table.values())  # fmt: skip


def test_what_a_report_has_stated_is_not_counted_again(guard: Guard) -> None:
    """A new life hears a late fill first, then the answer to what it missed: fills before it are in it already."""
    venue_view = VenueView(guard, lambda cl_ord_id: None)
    venue_view.apply_message(make_fill(41, 61, 1261))
    for answer in (make_trade_capture(39, 700), make_trade_capture(40, 500), make_trade_capture(41, 61)):
        venue_view.apply_message(answer)
    assert venue_order(guard).cum_qty == 1261
    assert guard.breaches == []


def test_what_came_after_it_is(guard: Guard) -> None:
    """A fill that only the answer tells counts once, and the next report states it."""
    venue_view = VenueView(guard, lambda cl_ord_id: None)
    venue_view.apply_message(make_fill(41, 61, 1261))
    venue_view.apply_message(make_trade_capture(42, 400))
    venue_view.apply_message(make_trade_capture(42, 400))
    assert venue_order(guard).cum_qty == 1661
    venue_view.apply_message(make_fill(43, 339, 2000))
    assert venue_order(guard).cum_qty == 2000
    assert guard.breaches == []
