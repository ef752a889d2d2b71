"""Agreement: the subsystems of one system agree, and so do memory, store and reference data."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Sum, Via
from holdover.model import Book, Exposure, Order, Position, Recompute, Recovery, Restored, RestoredOrders

OPEN_BUY = Sum(Order, "orders", of="open_buy_qty", by="book_key")
OPEN_SELL = Sum(Order, "orders", of="open_sell_qty", by="book_key")
CLOSING = Sum(Order, "orders", of="closing_qty", by="book_key")
OPEN_BUY_TOGETHER = Sum(Order, "orders", of="open_buy_qty", by="book_key", alternatives="alternatives_key")
OPEN_SELL_TOGETHER = Sum(Order, "orders", of="open_sell_qty", by="book_key", alternatives="alternatives_key")
CLOSING_TOGETHER = Sum(Order, "orders", of="closing_qty", by="book_key", alternatives="alternatives_key")


@predicate("positions-agree")
def positions_agree(position: Annotated[Position, "positions"], risk: Annotated[Exposure | None, "risk"]) -> bool:
    """A subsystem without a record counts as flat."""
    return position.net_qty == (risk.net_qty if risk else 0)


@predicate("positions-agree")
def risk_only_position_is_flat(
    risk: Annotated[Exposure, "risk"], position: Annotated[Position | None, "positions"]
) -> bool | None:
    """The reverse case: a position that only risk holds must be flat."""
    return None if position else risk.net_qty == 0


@predicate("open-quantity-agrees", needs=("open_buy_qty",))
def open_buy_quantity_agrees(
    risk: Annotated[Exposure, "risk"],
    buying: Annotated[int, OPEN_BUY.total_at("key")],
    buying_together: Annotated[int, OPEN_BUY_TOGETHER.total_at("key")],
) -> bool:
    """Compared by side: an order to buy does not offset a missing order to sell.

    Of the orders of which only one can fill whole, risk counts each or the largest.
    """
    return risk.open_buy_qty == buying or risk.open_buy_qty == buying_together


@predicate("open-quantity-agrees", needs=("open_sell_qty",))
def open_sell_quantity_agrees(
    risk: Annotated[Exposure, "risk"],
    selling: Annotated[int, OPEN_SELL.total_at("key")],
    selling_together: Annotated[int, OPEN_SELL_TOGETHER.total_at("key")],
) -> bool:
    """The same for orders to sell."""
    return risk.open_sell_qty == selling or risk.open_sell_qty == selling_together


@predicate("reservations-follow-orders", needs=("reserved_qty",))
def reservations_follow_orders(
    position: Annotated[Position, "positions"],
    closing: Annotated[int, CLOSING.total_at("key")],
    closing_together: Annotated[int, CLOSING_TOGETHER.total_at("key")],
) -> bool:
    """The reserved quantity equals the working quantity of the orders that close the position.

    Of the orders of which only one can fill whole, the system may reserve for each or for the largest.
    """
    return position.reserved_qty == closing or position.reserved_qty == closing_together


@predicate("reference-data-current", needs=("gateway.Book.reference_version",))
def orders_reference_current(
    order: Annotated[Order, "orders"], book: Annotated[Book | None, Via("gateway", by="symbol")]
) -> bool | None:
    """Only an open order can fill in the wrong units."""
    if book is None or not order.is_open:
        return None
    return order.reference_version == book.reference_version


@predicate("reference-data-current", needs=("gateway.Book.reference_version",))
def positions_reference_current(
    position: Annotated[Position, "positions"], book: Annotated[Book | None, Via("gateway", by="symbol")]
) -> bool | None:
    """Only a position that is not flat has a size."""
    if book is None or position.net_qty == 0:
        return None
    return position.reference_version == book.reference_version


@predicate("store-agrees-with-memory")
def store_agrees_with_memory(recovery: Recovery) -> bool:
    """The guard records the recovery when a restarted subsystem has finished it."""
    return recovery.missing == 0 and recovery.regressed == 0


@predicate("restored-order-unchanged")
def restored_order_unchanged(restored: RestoredOrders) -> bool:
    """The guard compares every field of the working orders when a recovery is complete."""
    return restored.changed == 0


@predicate("restored-equals-persisted")
def restored_equals_persisted(restored: Restored) -> bool:
    """The system records at each start what it has read back."""
    return restored.restored == restored.stored and restored.differing == 0


@predicate("recompute-agrees")
def recompute_agrees(recompute: Recompute) -> bool:
    """The guard recomputes the totals at each boundary."""
    return recompute.differences == 0
