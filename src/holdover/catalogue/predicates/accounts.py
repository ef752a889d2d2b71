"""Accounts: positions and cash that move without a trade, margin, realized profit, and prices."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Before, ReferenceData, Sum, Threshold, Via
from holdover.model import (
    TRADES,
    Balance,
    CashMovement,
    Execution,
    Instrument,
    Link,
    Margin,
    Order,
    OrdType,
    Position,
    PositionAdjustment,
    RealizedPnl,
    Reconciliation,
)

MOVED = Sum(CashMovement, "ledger", of="amount", by="cash_key")
TRADED_NOTIONAL = Sum(Execution, "orders", of="signed_notional", by="day_key")
_LIMIT_TYPES = frozenset({OrdType.LIMIT, OrdType.STOP_LIMIT})
_STOP_TYPES = frozenset({OrdType.STOP, OrdType.STOP_LIMIT})


# -- positions and cash that move without a trade -------------------------------------------------------------------


@predicate("adjustments-agree-with-venue")
def adjustment_is_the_venues(
    adjustment: Annotated[PositionAdjustment, "positions"],
    venue: Annotated[PositionAdjustment | None, "venue"],
    position: Annotated[Position | None, Via("positions", by="book_key", required=False)],
) -> bool | None:
    """An adjustment of an earlier session may be older than what the guard knows of the venue."""
    if venue is None and position is not None and "" < adjustment.trade_date < position.trade_date:
        return None
    return (
        venue is not None
        and adjustment.qty_delta == venue.qty_delta
        and adjustment.book_key == venue.book_key
        and adjustment.reason == venue.reason
    )


@predicate("adjustments-agree-with-venue")
def venue_adjustment_is_known(
    venue: Annotated[PositionAdjustment, "venue"],
    adjustment: Annotated[PositionAdjustment | None, "positions"],
    position: Annotated[Position | None, Via("positions", by="book_key", required=False)],
) -> bool | None:
    """The reverse case. A system need not read back those of earlier sessions; its position contains them."""
    if position is not None and "" < venue.trade_date < position.trade_date:
        return None
    return adjustment is not None


@predicate("movements-agree-with-venue")
def movement_is_the_venues(
    movement: Annotated[CashMovement, "ledger"],
    venue: Annotated[CashMovement | None, "venue"],
    balance: Annotated[Balance | None, Via("ledger", by="balance_key", required=False)],
) -> bool | None:
    """A movement of an earlier session may be older than what the guard knows of the venue."""
    if venue is None and balance is not None and "" < movement.trade_date < balance.trade_date:
        return None
    return (
        venue is not None
        and movement.amount == venue.amount
        and movement.balance_key == venue.balance_key
        and movement.reason == venue.reason
    )


@predicate("movements-agree-with-venue")
def venue_movement_is_known(
    venue: Annotated[CashMovement, "venue"],
    movement: Annotated[CashMovement | None, "ledger"],
    balance: Annotated[Balance | None, Via("ledger", by="balance_key", required=False)],
) -> bool | None:
    """The reverse case. A system need not read back those of earlier sessions; its balance contains them."""
    if balance is not None and "" < venue.trade_date < balance.trade_date:
        return None
    return movement is not None


@predicate("transfers-equal-movements", needs=("trade_date", "ledger.CashMovement.trade_date"))
def transfers_equal_movements(
    balance: Annotated[Balance, "ledger"], moved: Annotated[int, MOVED.total_at("cash_key", touches="balance_key")]
) -> bool:
    """The movements are those booked on the balance's own trade date."""
    return balance.transfers == moved


@predicate("balances-agree-with-venue")
def balances_agree_with_venue(
    balance: Annotated[Balance, "ledger"],
    venue: Annotated[Balance, "venue"],
    link: Annotated[Link | None, Via("gateway", by="link", required=False)],
    reconciliation: Annotated[Reconciliation | None, Via("reconciler", by="link", required=False)],
    threshold: Threshold,
) -> bool | None:
    """The time starts again while the link is down or a reconciliation is in progress."""
    link_is_down = link is not None and not link.is_up
    is_reconciling = reconciliation is not None and not reconciliation.is_complete
    tolerance = threshold.tolerance(balance.currency)
    if balance.cash != venue.cash and (link_is_down or is_reconciling):
        return None
    if tolerance == 0:
        return balance.cash == venue.cash
    return abs(balance.cash - venue.cash) <= tolerance


# -- margin -----------------------------------------------------------------------------------------------------------


@predicate("margin-sufficient")
def equity_covers_maintenance(margin: Annotated[Margin, "risk"]) -> bool:
    """Below the maintenance margin the venue may liquidate."""
    return margin.equity >= margin.maintenance


@predicate("margin-sufficient", needs=("leverage_max",))
def leverage_within_maximum(margin: Annotated[Margin, "risk"]) -> bool | None:
    """A maximum of 0 means that none is stated."""
    if margin.leverage_max == 0:
        return None
    return margin.leverage <= margin.leverage_max


@predicate("margin-agrees-with-venue")
def equity_agrees_with_venue(
    margin: Annotated[Margin, "risk"], venue: Annotated[Margin, "venue"], threshold: Threshold
) -> bool:
    """Both sides value positions at their own prices, so a share of the venue's equity may differ."""
    tolerance = max(threshold.tolerance(margin.currency), abs(venue.equity) * threshold.limit // 100)
    return abs(margin.equity - venue.equity) <= tolerance


@predicate("margin-agrees-with-venue", needs=("maintenance", "venue.Margin.maintenance"))
def maintenance_agrees_with_venue(
    margin: Annotated[Margin, "risk"], venue: Annotated[Margin, "venue"], threshold: Threshold
) -> bool:
    """The same share, of the venue's equity again: near no position a share of the maintenance would be nothing."""
    tolerance = max(threshold.tolerance(margin.currency), abs(venue.equity) * threshold.limit // 100)
    return abs(margin.maintenance - venue.maintenance) <= tolerance


# -- realized profit --------------------------------------------------------------------------------------------------


@predicate("realized-pnl-conserved", needs=("trade_date", "orders.Execution.notional_delta"))
def realized_pnl_conserved(
    profit: Annotated[RealizedPnl, "ledger"],
    traded: Annotated[int, TRADED_NOTIONAL.total_at("day_key", touches="book_key")],
) -> bool:
    """`traded` is what was bought minus what was sold; an adjustment of a position moves lots at no cost."""
    return profit.realized == profit.carried_realized + profit.open_cost - profit.carried_cost - traded


@predicate("realized-pnl-conserved")
def flat_position_costs_nothing(
    profit: Annotated[RealizedPnl, "ledger"], position: Annotated[Position, "positions"]
) -> bool | None:
    """What a closed position has cost is realized."""
    if position.net_qty:
        return None
    return profit.open_cost == 0


@predicate("realized-pnl-conserved", asserted="on-mutation", needs=("trade_date",))
def realized_pnl_carried_in(profit: Annotated[RealizedPnl, "ledger"], before: Before[RealizedPnl]) -> bool | None:
    """A session begins with what the last one ended with."""
    if before is None:
        return None
    if profit.trade_date == before.trade_date:
        return profit.carried_realized == before.carried_realized and profit.carried_cost == before.carried_cost
    return profit.carried_realized == before.realized and profit.carried_cost == before.open_cost


# -- prices -----------------------------------------------------------------------------------------------------------


@predicate("prices-positive", asserted="on-mutation", needs=("last_px",))
def trade_price_positive(
    execution: Annotated[Execution, "orders"],
    instrument: Annotated[Instrument | None, ReferenceData(by="symbol")],
) -> bool | None:
    """Source: FIX 4.4, LastPx (31). A bust states no price of its own."""
    if execution.exec_type not in TRADES or not execution.last_qty or execution.qty_delta <= 0:
        return None
    if instrument is not None and instrument.negative_prices:
        return None
    return execution.last_px > 0


@predicate("prices-positive", asserted="on-mutation", needs=("price",))
def limit_price_positive(
    order: Annotated[Order, "orders"], instrument: Annotated[Instrument | None, ReferenceData(by="symbol")]
) -> bool | None:
    """Source: FIX 4.4, Price (44)."""
    if order.price is None or order.ord_type not in _LIMIT_TYPES:
        return None
    if instrument is not None and instrument.negative_prices:
        return None
    return order.price > 0


@predicate("prices-positive", asserted="on-mutation", needs=("stop_px",))
def stop_price_positive(
    order: Annotated[Order, "orders"], instrument: Annotated[Instrument | None, ReferenceData(by="symbol")]
) -> bool | None:
    """Source: FIX 4.4, StopPx (99)."""
    if order.stop_px is None or order.ord_type not in _STOP_TYPES:
        return None
    if instrument is not None and instrument.negative_prices:
        return None
    return order.stop_px > 0


@predicate("prices-positive")
def cost_price_has_the_sign_of_its_position(
    profit: Annotated[RealizedPnl, "ledger"],
    position: Annotated[Position, "positions"],
    instrument: Annotated[Instrument | None, ReferenceData(by="symbol")],
) -> bool | None:
    """A deposit in kind has cost nothing, so a cost of 0 is legal."""
    if not position.net_qty or (instrument is not None and instrument.negative_prices):
        return None
    return profit.open_cost >= 0 if position.net_qty > 0 else profit.open_cost <= 0
