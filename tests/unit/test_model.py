"""Records and instruments: exact, immutable, one line each."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdover.model import (
    Instrument,
    InstrumentUnitError,
    OrdStatus,
    Position,
    Request,
    Side,
    TimeInForce,
    enclosing_scopes,
    scope_of,
)

from .orders import order


def test_an_order_reads_as_its_state() -> None:
    """The repr is one line that says id, status, filled of ordered, and what is left."""
    partial_order = order(cum_qty=40, ord_status=OrdStatus.PARTIALLY_FILLED)
    assert repr(partial_order) == "<Order A1 PARTIALLY_FILLED 40/60 leaves 60>"


def test_records_cannot_be_changed() -> None:
    """A record is a statement: there is no way to change it."""
    with pytest.raises(AttributeError):
        order().cum_qty = 1  # type: ignore[misc]


def test_the_average_price_is_exact() -> None:
    """AvgPx is the notional over CumQty as a fraction, and none while nothing is filled."""
    assert order(cum_qty=3, notional=10).avg_px == Fraction(10, 3)
    assert order().avg_px is None


@pytest.mark.parametrize(
    ("tif", "is_open"), [(TimeInForce.DAY, False), (TimeInForce.GTC, True), (TimeInForce.GTD, True)]
)
def test_done_for_day_is_open_only_when_carried(tif: TimeInForce, is_open: bool) -> None:
    """A GTC order that is done for the day is still open; a DAY order is over."""
    assert order(ord_status=OrdStatus.DONE_FOR_DAY, time_in_force=tif).is_open is is_open


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_decimals_and_ticks_are_opposites(ticks: int) -> None:
    """What is printed reads back to the same number of ticks."""
    instrument = Instrument(symbol="X", tick_size="0.0001", lot_size="0.00000001")
    assert instrument.ticks(instrument.price_text(ticks)) == ticks
    assert instrument.lots(instrument.quantity_text(ticks)) == ticks


@pytest.mark.parametrize("price", ["0.00005", "abc", "NaN", "Infinity"])
def test_what_does_not_fit_is_refused(price: str) -> None:
    """A price between two ticks, or none at all, is refused and never rounded."""
    with pytest.raises(InstrumentUnitError, match="X: price"):
        Instrument(symbol="X", tick_size="0.0001").ticks(price)


def test_cash_is_whole() -> None:
    """One share at one ten-thousandth of a dollar is a whole number of cash units."""
    assert Instrument(symbol="X", tick_size="0.0001").cash(1) == Decimal("0.0001") / Decimal("0.0000000001")


def test_a_scope_is_never_narrower_than_known() -> None:
    """A record without an account cannot narrow a freeze to one: the whole system is frozen."""
    position = Position(account="A", symbol="IBM", net_qty=1)
    assert scope_of("account+instrument", "positions", position) == "account:A/instrument:IBM"
    assert scope_of("account", "orders", order()) == "system"
    assert scope_of("link", "orders", order(link="VENUE")) == "link:VENUE"


def test_a_request_lies_in_all_its_scopes() -> None:
    """From the whole system down to its own order."""
    request = Request(
        msg_type="D",
        cl_ord_id="B",
        symbol="IBM",
        side=Side.BUY,
        order_qty=1,
        account="A",
        strategy="S",
        link="L",  # type: ignore[arg-type]
    )
    around = enclosing_scopes(request)
    assert around[0] == "system"
    assert {"account:A", "instrument:IBM", "account:A/instrument:IBM", "strategy:S", "link:L"} <= set(around)
