"""Contingency: alternatives, brackets, stops that protect a position, and the legs of hedge mode.

Source: FIX 5.0 SP2, ContingencyType (1385) and ListID (66).
"""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Before, Sum, Via
from holdover.model import (
    Book,
    ContingencyType,
    ExecType,
    Execution,
    Link,
    Order,
    Position,
    PositionSide,
    Protection,
    Reconciliation,
)

ALTERNATIVES_FILLED = Sum(Order, "orders", of="alternatives_filled_qty", by="alternatives_key")
ALTERNATIVES_LARGEST = Sum(Order, "orders", of="order_qty", by="alternatives_key", alternatives="alternatives_key")
ALTERNATIVES_WHOLE = Sum(Order, "orders", of="filled_alternative_count", by="alternatives_key")
ALTERNATIVES_WORKING = Sum(Order, "orders", of="alternatives_working_qty", by="alternatives_key")
LIST_CLOSING = Sum(Order, "orders", of="closing_uncancelled_qty", by="list_id", alternatives="alternatives_key")
STOP_BUY = Sum(Order, "orders", of="stop_buy_qty", by="book_key", alternatives="alternatives_key")
STOP_SELL = Sum(Order, "orders", of="stop_sell_qty", by="book_key", alternatives="alternatives_key")


@predicate("alternatives-not-both-filled", needs=("contingency_type",))
def alternatives_not_both_filled(
    order: Annotated[Order, "orders"],
    filled: Annotated[int, ALTERNATIVES_FILLED.total_at("alternatives_key", touches="root_cl_ord_id")],
    largest: Annotated[int, ALTERNATIVES_LARGEST.total_at("alternatives_key", touches="root_cl_ord_id")],
) -> bool | None:
    """An OCO order keeps its OrderQty, so the largest one of the group is all that the group can fill."""
    if order.contingency_type != ContingencyType.ONE_CANCELS_THE_OTHER:
        return None
    return filled <= largest


@predicate("alternatives-not-both-filled", needs=("contingency_type",), at_restore=False)
def no_fill_after_the_whole_fill_of_an_alternative(
    order: Annotated[Order, "orders"],
    before: Before[Order],
    filled: Annotated[int, ALTERNATIVES_FILLED.total_at("alternatives_key", touches="root_cl_ord_id")],
    largest: Annotated[int, ALTERNATIVES_LARGEST.total_at("alternatives_key", touches="root_cl_ord_id")],
    whole: Annotated[int, ALTERNATIVES_WHOLE.total_at("alternatives_key", touches="root_cl_ord_id")],
) -> bool | None:
    """The fills of an OUO order reduce the others, so that the quantity of the group cannot be read from OrderQty."""
    filled_before = before.cum_qty if before is not None else 0
    if not order.alternatives_key or order.cum_qty <= filled_before:
        return None
    return whole - order.filled_alternative_count == 0 or filled <= largest


@predicate("alternative-ends-with-its-group", needs=("contingency_type",))
def alternative_ends_with_its_group(
    order: Annotated[Order, "orders"],
    working: Annotated[int, ALTERNATIVES_WORKING.total_at("alternatives_key", touches="root_cl_ord_id")],
    link: Annotated[Link | None, Via("gateway", by="link", required=False)],
    reconciliation: Annotated[Reconciliation | None, Via("reconciler", by="link", required=False)],
) -> bool | None:
    """Judged on the filled order. While the link is down the cancel of the others cannot arrive."""
    if not order.filled_alternative_count:
        return True
    if working and _is_out_of_contact(link, reconciliation):
        return None
    return working == 0


@predicate("alternative-ends-with-its-group", needs=("contingency_type", "list_id"))
def exits_end_with_their_entry(
    order: Annotated[Order, "orders"],
    closing: Annotated[int, LIST_CLOSING.total_at("list_id", touches="root_cl_ord_id")],
    link: Annotated[Link | None, Via("gateway", by="link", required=False)],
    reconciliation: Annotated[Reconciliation | None, Via("reconciler", by="link", required=False)],
) -> bool | None:
    """An entry that has ended leaves exits for what it has filled."""
    is_entry = order.contingency_type == ContingencyType.ONE_TRIGGERS_THE_OTHER and order.list_id != ""
    if not is_entry or order.is_open:
        return True
    if closing > order.cum_qty and _is_out_of_contact(link, reconciliation):
        return None
    return closing <= order.cum_qty


def _is_out_of_contact(link: Link | None, reconciliation: Reconciliation | None) -> bool:
    """Return whether the system is known to be without its venue: the link is down, or not reconciled."""
    is_down = link is not None and not link.is_up
    return is_down or (reconciliation is not None and not reconciliation.is_complete)


@predicate("position-protected")
def position_protected(
    protection: Annotated[Protection, "risk"],
    position: Annotated[Position | None, "positions"],
    selling: Annotated[int, STOP_SELL.total_at("key", touches="book_key")],
    buying: Annotated[int, STOP_BUY.total_at("key", touches="book_key")],
    book: Annotated[Book | None, Via("gateway", by="symbol", required=False)],
    link: Annotated[Link | None, Via("gateway", by="link", required=False)],
    reconciliation: Annotated[Reconciliation | None, Via("reconciler", by="link", required=False)],
) -> bool | None:
    """No stop can be sent while the instrument takes no orders or the link is down."""
    if position is None or not protection.is_required or _is_on_wrong_side(position):
        return True
    protecting = selling if position.net_qty > 0 else buying
    is_halted = book is not None and not book.trading
    if protecting < abs(position.net_qty) and (is_halted or _is_out_of_contact(link, reconciliation)):
        return None
    return protecting >= abs(position.net_qty)


def _is_on_wrong_side(position: Position) -> bool:
    """Whether a bust has left a leg on the side that it does not hold; no stop protects that."""
    if position.position_side is None:
        return False
    return position.net_qty < 0 if position.position_side == PositionSide.LONG else position.net_qty > 0


@predicate("leg-keeps-its-side", needs=("position_side",), at_restore=False)
def leg_keeps_its_side(
    execution: Annotated[Execution, "orders"],
    position: Annotated[Position | None, Via("positions", by="book_key")],
) -> bool | None:
    """Source: FIX 4.4, PositionQty (702): LongQty (704) and ShortQty (705) are separate in hedge mode.

    Only a fill is judged: a bust may take back an opening trade whose quantity was closed since.
    """
    if execution.position_side is None or execution.exec_type != ExecType.TRADE or position is None:
        return None
    if execution.position_side == PositionSide.LONG:
        return execution.signed_qty >= 0 or position.net_qty >= 0
    return execution.signed_qty <= 0 or position.net_qty <= 0
