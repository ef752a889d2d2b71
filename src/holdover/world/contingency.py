"""Contingent orders at the venue: what a fill, end, bust or replace of an order changes in the others of its list.

The orders of one list share ListID (66), or ClOrdLinkID (583) without one, within an account. Each order states its
ContingencyType (1385). Where FIX 5.0 SP2 leaves the choice to the venue, this one chooses:

- **OTO, one triggers the other.** The first order of the list with this type is its primary order, all others are
  secondary. A secondary order is acknowledged at once, as New, and as much of it works as the primary order has filled;
  the rest is held and cannot fill. A primary order that is filled releases everything. One that ends before reduces the
  secondary orders to what it has filled, and cancels them when that is nothing. A bust of its fill holds the quantity
  again.
- **OCO, one cancels the other.** Any fill of an order, also a partial one, cancels its alternatives.
- **OUO, one updates the other.** A fill takes the same quantity (absolute) or the same share, rounded up (proportional)
  from each alternative. A bust gives it back to those that are still open.

A bracket is a primary order with two alternatives as secondary orders. An order of which nothing remains is cancelled;
a changed quantity is reported as Restated, with ExecRestatementReason 5 (partial decline of OrderQty) when it falls.
Cancel, expiry and rejection of one alternative leave the others as they are, and a cancelled order stays cancelled. A
replace keeps the list, and never raises the quantity of an order whose alternatives have filled. An order whose list
has no primary order at the venue works at once.

Everything follows from the fields of the orders, so the links survive a restart of the venue. This class has no state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from holdover.model import ContingencyType, ExecRestatementReason, ExecType, ImpossibleStateError, OrdStatus
from holdover.world.book import TopOfBook, WorkingOrder
from holdover.world.order_lifecycle import OrderLifecycle

_OTO = ContingencyType.ONE_TRIGGERS_THE_OTHER
_OCO = ContingencyType.ONE_CANCELS_THE_OTHER
_PROPORTIONAL = ContingencyType.ONE_UPDATES_THE_OTHER_PROPORTIONAL


class Contingencies:
    """Applies the contingencies of a venue's orders; see the module. `release` lets a held order work."""

    def __init__(
        self, lifecycle: OrderLifecycle, books: Mapping[str, TopOfBook], release: Callable[[WorkingOrder], None]
    ) -> None:
        self.lifecycle, self.books, self.release = lifecycle, books, release
        lifecycle.on_list_change = self.review_list

    def list_orders(self, order: WorkingOrder) -> list[WorkingOrder]:
        """Return the orders of the list of an order, in the order of entry."""
        key = order.list_key
        return [member for member in self.lifecycle.orders.values() if key and member.list_key == key]

    def replace_qty(self, order: WorkingOrder, order_qty: int) -> int:
        """Return the OrderQty that a replace gives an order, and note what the client has asked for."""
        if not order.is_open:
            raise ImpossibleStateError(f"order {order.cl_ord_id} is {order.ord_status.name} and cannot be replaced")
        if _filled_qty(alternatives_of(order, self.list_orders(order))):
            order_qty = max(min(order_qty, order.order_qty), order.cum_qty)
            order.requested_qty -= order.order_qty - order_qty
        elif order.contingency_type != _OTO or order_qty > order.requested_qty:
            order.requested_qty = max(order_qty, order.cum_qty)
        return order_qty

    def review_list(self, changed: WorkingOrder) -> None:
        """Bring the orders of a list into line after a change of one of them, which its cause lets work again."""
        members = self.list_orders(changed)
        if not members:
            raise ImpossibleStateError(f"order {changed.cl_ord_id} belongs to no list of the venue")
        primary = next((member for member in members if member.contingency_type == _OTO), None)
        for order in members:
            if order.is_open and order is not primary:
                self._review_quantity(order, primary, alternatives_of(order, members))
                if order is not changed:
                    self.release(order)

    def _review_quantity(
        self, order: WorkingOrder, primary: WorkingOrder | None, alternatives: list[WorkingOrder]
    ) -> None:
        quantity = _quantity_limit(order, primary, alternatives)
        if quantity <= order.cum_qty or (order.contingency_type == _OCO and _filled_qty(alternatives)):
            self.lifecycle.close_order(order, OrdStatus.CANCELED, ExecType.CANCELED)
            return
        is_lower, is_changed = quantity < order.order_qty, quantity != order.order_qty
        order.order_qty = quantity
        order.held_qty = _held_qty(order, primary, alternatives)
        if not 0 <= order.held_qty <= order.leaves_qty:
            raise ImpossibleStateError(f"{order.held_qty} of {order.leaves_qty} lots of {order.cl_ord_id} are held")
        if is_changed:
            reason = ExecRestatementReason.PARTIAL_DECLINE if is_lower else ExecRestatementReason.OTHER
            self.lifecycle.restate_quantity(order, reason)
        if not order.fillable_qty:
            self.books[order.symbol].remove_order(order)


def alternatives_of(order: WorkingOrder, members: Iterable[WorkingOrder]) -> list[WorkingOrder]:
    """Return the orders of a list of which only one can fill in full if this one does not."""
    if order.contingency_type in (None, _OTO):
        return []
    return [member for member in members if member is not order and member.contingency_type == order.contingency_type]


def _filled_qty(orders: Iterable[WorkingOrder]) -> int:
    return sum(order.cum_qty for order in orders)


def _quantity_limit(order: WorkingOrder, primary: WorkingOrder | None, alternatives: list[WorkingOrder]) -> int:
    """Return the OrderQty that the other orders of the list leave to an order."""
    requested_qty = order.requested_qty
    if primary is not None and not primary.is_open and primary.cum_qty < primary.requested_qty:
        requested_qty = min(requested_qty, primary.cum_qty)
    if order.contingency_type != _PROPORTIONAL:
        return requested_qty - _filled_qty(alternatives)
    taken_qty = sum(-(-requested_qty * other.cum_qty // max(other.requested_qty, 1)) for other in alternatives)
    return requested_qty - taken_qty


def _held_qty(order: WorkingOrder, primary: WorkingOrder | None, alternatives: list[WorkingOrder]) -> int:
    """Return how much of LeavesQty waits for the primary order."""
    if primary is None or not primary.is_open:
        return 0
    released_qty = primary.cum_qty - order.cum_qty - _filled_qty(alternatives)
    return order.leaves_qty - min(max(released_qty, 0), order.leaves_qty)
