"""Intent: what a strategy means to trade, over restarts and reprices, and what its orders claim of it."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Sum, Via
from holdover.model import Intent, Order, ParentOrder

INTENT_CLAIMED = Sum(Order, "orders", of="claimed_qty", by="intent_id")
VENUE_INTENT_CLAIMED = Sum(Order, "venue", of="claimed_qty", by="intent_id")


@predicate("intent-not-exceeded")
def intent_not_exceeded(
    intent: Intent,
    claimed: Annotated[int, INTENT_CLAIMED.total_at("intent_id")],
    venue_claimed: Annotated[int, VENUE_INTENT_CLAIMED.total_at("intent_id", required=False)],
) -> bool:
    """A cancelled remainder may be sent again; a filled quantity counts for good, whichever incarnation sent it."""
    return claimed <= intent.target_qty and venue_claimed <= intent.target_qty


@predicate("intent-not-shrunk")
def intent_not_shrunk(
    intent: Intent,
    claimed: Annotated[int, INTENT_CLAIMED.total_at("intent_id")],
    parent: Annotated[ParentOrder | None, Via("orders", by="intent_id", required=False)],
) -> bool:
    """A parent order of the same id holds what is not sent yet; without one, the orders claim the whole target."""
    return not intent.is_working or parent is not None or claimed >= intent.target_qty


@predicate("intent-not-shrunk")
def parent_has_the_whole_intent(parent: Annotated[ParentOrder, "orders"], intent: Annotated[Intent, "orders"]) -> bool:
    """Of a parent order and an intent with the same id; both are records of `orders` then."""
    return not intent.is_working or parent.order_qty == intent.target_qty
