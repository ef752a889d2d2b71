"""The orders of a venue from acceptance to their end, with the trades and positions that they lead to.

Every change is reported under a new ExecID. Source of the order states: FIX 4.4 and 5.0 SP2 volume 4, order state
change matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import msgspec

from holdover.model import (
    ExecRestatementReason,
    ExecType,
    ExecutionReport,
    ImpossibleStateError,
    OrderOrigin,
    OrdStatus,
    OrdType,
    Position,
    PositionSide,
    Request,
    Side,
    TimeInForce,
)
from holdover.state import Owned, StateError, Stateful
from holdover.world.book import TopOfBook, WorkingOrder
from holdover.world.venue_reports import VenueReports

_FOREIGN_PREFIXES = {
    OrderOrigin.MANUAL: "HAND",
    OrderOrigin.LIQUIDATION: "LIQ",
    OrderOrigin.AUTO_DELEVERAGING: "ADL",
    OrderOrigin.VENUE: "VENUE",
}
"""How the ClOrdIDs of orders begin that no client requested."""

CARRIED_TIFS = (TimeInForce.GTC, TimeInForce.GTD)
"""The times in force of orders that are carried overnight."""


class OrderLifecycleState(msgspec.Struct):
    """The state of `OrderLifecycle`."""

    orders: Annotated[dict[str, WorkingOrder], Owned]
    roots: dict[str, str]
    trades: list[ExecutionReport]
    positions: dict[str, Position]
    order_number: int


class OrderLifecycle(Stateful[OrderLifecycleState]):
    """The orders, trades and positions of a venue.

    `orders` are keyed by the ClOrdID that began their chain, and `roots` maps each ClOrdID of a chain to it. `rest`
    puts an order back into its book. `on_list_change` is called after a change of an order that belongs to a list.
    """

    State = OrderLifecycleState
    DERIVED: ClassVar = {
        "books": "the venue's books, which save themselves",
        "reports": "a part of the venue that saves itself",
        "rest": "a function of the venue",
        "on_list_change": "a function of the venue",
    }

    def __init__(
        self, books: Mapping[str, TopOfBook], reports: VenueReports, rest: Callable[[WorkingOrder], None]
    ) -> None:
        self.books, self.reports, self.rest = books, reports, rest
        self.on_list_change: Callable[[WorkingOrder], None] = lambda order: None
        self.orders: dict[str, WorkingOrder] = {}
        self.roots: dict[str, str] = {}
        self.trades: list[ExecutionReport] = []
        self.positions: dict[str, Position] = {}
        self.order_number = 0

    def find_order(self, cl_ord_id: str) -> WorkingOrder | None:
        """Return an order by any ClOrdID of its chain, or None."""
        root = self.roots.get(cl_ord_id)
        return self.orders.get(root) if root else None

    def open_orders(self) -> list[WorkingOrder]:
        """Return the orders that may still fill."""
        return [order for order in self.orders.values() if order.is_open]

    # -- new orders and changes ---------------------------------------------------------------------------------

    def enter_request(self, request: Request) -> WorkingOrder:
        """Enter the order of a new-order request, and report it."""
        number = self._next_number()
        order = WorkingOrder.from_request(
            request,
            order_id=f"O{number}",
            entered=number,
            trade_date=self.reports.trade_date,
            reference_version=self.books[request.symbol].reference_version,
        )
        self._add_order(order)
        self._notify_list(order)
        return order

    def _add_order(self, order: WorkingOrder) -> None:
        if order.root_cl_ord_id in self.orders:
            raise ImpossibleStateError(f"the venue already has an order {order.root_cl_ord_id}")
        if order.cl_ord_id in self.roots:
            raise ImpossibleStateError(
                f"ClOrdID {order.cl_ord_id} belongs to order {self.roots[order.cl_ord_id]} already"
            )
        self.orders[order.root_cl_ord_id] = order
        self.roots[order.cl_ord_id] = order.root_cl_ord_id
        self.reports.send_change(order, ExecType.NEW)

    def _notify_list(self, order: WorkingOrder) -> None:
        if order.contingency_type is not None:
            self.on_list_change(order)

    def _next_number(self) -> int:
        self.order_number += 1
        return self.order_number

    def replace_order(self, order: WorkingOrder, request: Request) -> None:
        """Replace quantity, price and stop price of an order, which loses its place in the book, and report it."""
        if not order.is_open:
            raise ImpossibleStateError(f"order {order.cl_ord_id} is {order.ord_status.name} and cannot be replaced")
        if request.cl_ord_id in self.roots:
            raise ImpossibleStateError(f"ClOrdID {request.cl_ord_id} belongs to order {self.roots[request.cl_ord_id]}")
        self.roots[request.cl_ord_id] = order.root_cl_ord_id
        order.orig_cl_ord_id, order.cl_ord_id = order.cl_ord_id, request.cl_ord_id
        # A quantity below the filled quantity becomes the filled quantity: FIX 5.0 volume 4, C.3.c.
        order.order_qty = max(request.order_qty, order.cum_qty)
        order.price = request.price
        if request.stop_px is not None and not order.is_triggered:
            order.stop_px = request.stop_px
        order.ord_status = order.status_by_quantities
        self.books[order.symbol].remove_order(order)
        order.entered = self._next_number()
        self.reports.send_change(order, ExecType.REPLACED)

    def restate_quantity(self, order: WorkingOrder, reason: ExecRestatementReason) -> None:
        """Report an OrderQty that the venue has changed. The order keeps its place in the book."""
        if not order.is_open:
            raise ImpossibleStateError(f"order {order.cl_ord_id} is {order.ord_status.name} and cannot be restated")
        if order.order_qty <= order.cum_qty:
            raise ImpossibleStateError(
                f"order {order.cl_ord_id} is restated to {order.order_qty} lots, and {order.cum_qty} are filled"
            )
        if order.ord_status != OrdStatus.DONE_FOR_DAY:
            order.ord_status = order.status_by_quantities
        self.reports.send_change(order, ExecType.RESTATED, exec_restatement_reason=reason)

    def close_order(self, order: WorkingOrder, status: OrdStatus, exec_type: ExecType) -> None:
        """End an open order, and report it. Raises `ImpossibleStateError` when the order has ended."""
        if status in (OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED, OrdStatus.DONE_FOR_DAY):
            raise ImpossibleStateError(f"order {order.cl_ord_id} cannot end as {status.name}, which is an open status")
        if not order.is_open:
            raise ImpossibleStateError(f"order {order.cl_ord_id} ends twice: {order.ord_status.name}, {status.name}")
        self.books[order.symbol].remove_order(order)
        order.ord_status = status
        self.reports.send_change(order, exec_type)
        self._notify_list(order)

    def restate_orders(self, trade_date: str, *, is_reported: bool) -> None:
        """Begin a day: expire GTD orders past their date, and restate the orders that are carried into it."""
        if not trade_date:
            raise ValueError("the orders of a day cannot be restated without its trade date")
        for order in self.open_orders():
            if not order.is_open:
                continue  # it has ended with another order of its list
            if order.time_in_force == TimeInForce.GTD and order.expire_date and order.expire_date < trade_date:
                self.close_order(order, OrdStatus.EXPIRED, ExecType.EXPIRED)
                continue
            order.ord_status = order.status_by_quantities
            if is_reported:
                self.reports.send_change(
                    order, ExecType.RESTATED, exec_restatement_reason=ExecRestatementReason.GT_RENEWAL
                )
            else:
                self.reports.observe_order(order)

    def end_orders(self, *, is_reported: bool) -> None:
        """End a day: expire DAY orders, and report carried orders done for the day."""
        for order in self.open_orders():
            if not order.is_open:
                continue  # it has ended with another order of its list
            if order.time_in_force not in CARRIED_TIFS:
                self.close_order(order, OrdStatus.EXPIRED, ExecType.EXPIRED)
            elif is_reported:
                order.ord_status = OrdStatus.DONE_FOR_DAY
                self.reports.send_change(order, ExecType.DONE_FOR_DAY)

    def split_orders(self, symbol: str, new: int, old: int, version: str) -> None:
        """Restate open orders in the lots of a split.

        Raises `ValueError` when it does not divide a quantity or price exactly.
        """
        for order in self.open_orders():
            if order.symbol != symbol:
                continue
            order.order_qty = divide_exactly(order.order_qty * new, old, f"OrderQty of {order.cl_ord_id}")
            order.cum_qty = divide_exactly(order.cum_qty * new, old, f"CumQty of {order.cl_ord_id}")
            order.requested_qty = divide_exactly(order.requested_qty * new, old, f"quantity of {order.cl_ord_id}")
            order.held_qty = divide_exactly(order.held_qty * new, old, f"held quantity of {order.cl_ord_id}")
            if order.price is not None:
                order.price = divide_exactly(order.price * old, new, f"price of {order.cl_ord_id}")
            if order.stop_px is not None:
                order.stop_px = divide_exactly(order.stop_px * old, new, f"stop price of {order.cl_ord_id}")
            order.reference_version = version
            self.reports.send_change(
                order, ExecType.RESTATED, exec_restatement_reason=ExecRestatementReason.GT_CORPORATE_ACTION
            )

    # -- trades -------------------------------------------------------------------------------------------------

    def fill(self, order: WorkingOrder, quantity: int, price: int) -> None:
        """Fill an open order, and report the trade.

        Raises `ImpossibleStateError` when the quantity is not positive or more than may still fill.
        """
        if not 0 < quantity <= order.leaves_qty:
            raise ImpossibleStateError(f"a fill of {quantity} for {order.cl_ord_id}, which has {order.leaves_qty} open")
        self._add_fill(order, quantity, price)
        order.ord_status = order.status_by_quantities
        self._update_position(order, quantity)
        self.trades.append(self.reports.send_change(order, ExecType.TRADE, last_qty=quantity, last_px=price))
        if not order.fillable_qty:
            self.books[order.symbol].remove_order(order)
        self._notify_list(order)

    def manual_trade(
        self,
        account: str,
        symbol: str,
        side: Side,
        quantity: int,
        price: int,
        origin: OrderOrigin = OrderOrigin.MANUAL,
        position_side: PositionSide | None = None,
    ) -> str:
        """Enter and fill an order at the venue; return its ClOrdID, which no client has assigned.

        `position_side` names the leg that it moves in an account in hedge mode.
        """
        if quantity <= 0 or symbol not in self.books:
            raise ImpossibleStateError(
                f"a manual trade of {quantity} {symbol}, should be above 0 and one of {', '.join(self.books)}"
            )
        number = self._next_number()
        order = WorkingOrder(
            root_cl_ord_id=f"{_FOREIGN_PREFIXES[origin]}-{number}",
            cl_ord_id=f"{_FOREIGN_PREFIXES[origin]}-{number}",
            order_id=f"O{number}",
            account=account,
            symbol=symbol,
            side=side,
            order_qty=quantity,
            ord_type=OrdType.LIMIT,
            time_in_force=TimeInForce.DAY,
            entered=number,
            price=price,
            trade_date=self.reports.trade_date,
            reference_version=self.books[symbol].reference_version,
            origin=origin,
            position_side=position_side,
        )
        self._add_order(order)
        self.fill(order, quantity, price)
        return order.cl_ord_id

    def late_fill(self, cl_ord_id: str, quantity: int, price: int | None = None) -> bool:
        """Report a fill after the cancel that it crossed; see `Venue.late_fill`."""
        order = self.find_order(cl_ord_id)
        price = price if price is not None or order is None else order.price
        if order is None or order.ord_status != OrdStatus.CANCELED or price is None:
            return False
        quantity = min(quantity, order.order_qty - order.cum_qty)
        if quantity <= 0:
            return False
        self._add_fill(order, quantity, price)
        self._update_position(order, quantity)
        self.trades.append(self.reports.send_change(order, ExecType.TRADE, last_qty=quantity, last_px=price))
        self._notify_list(order)
        return True

    def amend_trade(self, exec_id: str, trade_date: str, replacement: tuple[int, int] | None) -> bool:
        """Bust a trade, or correct it to (quantity, price). Returns False when it cannot be amended."""
        if replacement is not None and replacement[0] < 0:
            raise ValueError(f"trade {exec_id} cannot be corrected to {replacement[0]} lots, should be from 0 on")
        trade = self._amendable_trade(exec_id, trade_date)
        order = self.find_order(trade.cl_ord_id) if trade else None
        if trade is None or order is None:
            return False
        if order.time_in_force not in CARRIED_TIFS and order.trade_date < self.reports.trade_date:
            return False  # the order's day is over, so a reopened quantity could not trade again
        quantity, price = replacement or (0, 0)
        order.cum_qty += quantity - trade.last_qty
        order.notional += quantity * price - trade.last_qty * trade.last_px
        if order.ord_status in (OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED, OrdStatus.FILLED):
            order.ord_status = order.status_by_quantities
            if not order.is_open:
                self.books[order.symbol].remove_order(order)
        self._update_position(order, quantity - trade.last_qty)
        report = self.reports.send_change(
            order,
            ExecType.TRADE_CANCEL if replacement is None else ExecType.TRADE_CORRECT,
            last_qty=quantity,
            last_px=price,
            exec_ref_id=exec_id,
            exec_ref_date=trade_date,
        )
        self.trades.append(report)
        self._notify_list(order)
        if order.is_open:
            self.rest(order)
        return True

    def find_trade(self, exec_id: str, trade_date: str) -> ExecutionReport | None:
        """Return the first trade, bust or correction of a day with that ExecID, or None."""
        return next(
            (trade for trade in self.trades if (trade.exec_id, trade.trade_date) == (exec_id, trade_date)), None
        )

    def _amendable_trade(self, exec_id: str, trade_date: str) -> ExecutionReport | None:
        """Return a trade that is neither busted nor corrected; an amended one continues under its new ExecID."""
        trade = next(
            (
                trade
                for trade in self.trades
                if (trade.exec_id, trade.trade_date) == (exec_id, trade_date)
                and trade.exec_type != ExecType.TRADE_CANCEL
            ),
            None,
        )
        is_amended = any((trade.exec_ref_id, trade.exec_ref_date) == (exec_id, trade_date) for trade in self.trades)
        return None if is_amended else trade

    @staticmethod
    def _add_fill(order: WorkingOrder, quantity: int, price: int) -> None:
        order.cum_qty += quantity
        order.notional += quantity * price

    # -- positions ----------------------------------------------------------------------------------------------

    def begin_positions(self, trade_date: str) -> None:
        """Begin a day: the present quantity of each position becomes the carried quantity."""
        if not trade_date:
            raise ValueError("positions cannot be carried into a day without a trade date")
        for key, position in self.positions.items():
            self._set_position(
                msgspec.structs.replace(position, carried_qty=position.net_qty, trade_date=trade_date), key
            )

    def split_positions(self, symbol: str, new: int, old: int, version: str) -> None:
        """Restate positions in the lots of a split. Raises `ValueError` when it does not divide one exactly."""
        for key, position in self.positions.items():
            if position.symbol == symbol:
                net_qty = divide_exactly(position.net_qty * new, old, f"position {key}")
                self._set_position(msgspec.structs.replace(position, net_qty=net_qty, reference_version=version), key)

    def _update_position(self, order: WorkingOrder, quantity: int) -> None:
        key = order.position_key
        position = self.positions.get(key) or Position(
            account=order.account,
            symbol=order.symbol,
            net_qty=0,
            trade_date=self.reports.trade_date,
            reference_version=self.books[order.symbol].reference_version,
            position_side=order.position_side,
            position_id=order.position_id,
        )
        signed_qty = quantity if order.side == Side.BUY else -quantity
        self._set_position(msgspec.structs.replace(position, net_qty=position.net_qty + signed_qty), key)

    def _set_position(self, position: Position, key: str) -> None:
        if position.key != key:
            raise ImpossibleStateError(f"position {position.key} cannot be stored as {key}")
        self.positions[key] = position
        self.reports.observe(position)

    # -- state --------------------------------------------------------------------------------------------------

    def take_state(self, state: OrderLifecycleState) -> None:
        """Take over a decoded state. Raises `StateError` when orders, chains and positions contradict each other."""
        problem = _find_contradiction(state, self.books)
        if problem:
            raise StateError(f"the stored state of OrderLifecycle is damaged: {problem}")
        for attribute, content in (("orders", state.orders), ("roots", state.roots), ("positions", state.positions)):
            container = getattr(self, attribute)  # in place: the venue refers to these containers
            container.clear()
            container.update(content)
        self.trades[:] = state.trades
        self.order_number = state.order_number


def _find_contradiction(state: OrderLifecycleState, books: Mapping[str, TopOfBook]) -> str:
    """Return what cannot be true in the orders of a venue; empty when nothing contradicts it."""
    for key, order in state.orders.items():
        if order.root_cl_ord_id != key or state.roots.get(order.cl_ord_id) != key:
            return f"order {key} is stored under another key than its chain's"
        if order.symbol not in books:
            return f"order {key} is in {order.symbol}, which the venue does not have"
        if not 0 < order.entered <= state.order_number:
            return f"order {key} was entered as number {order.entered} of {state.order_number}"
    for cl_ord_id, root in state.roots.items():
        if root not in state.orders:
            return f"ClOrdID {cl_ord_id} belongs to {root}, which the venue does not have"
    for key, position in state.positions.items():
        if position.key != key:
            return f"position {position.key} is stored as {key}"
    return ""


def divide_exactly(value: int, divisor: int, description: str) -> int:
    """Return a quotient. Raises `ValueError` for a divisor below 1, and when the division leaves a remainder."""
    if divisor < 1:
        raise ValueError(f"a split divides {description} by {divisor}, should be from 1 on")
    quotient, remainder = divmod(value, divisor)
    if remainder:
        raise ValueError(f"a split leaves {description} at {value}/{divisor}, which is no whole number")
    return quotient
