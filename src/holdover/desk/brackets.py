"""Brackets: an entry, and a take-profit and a stop that close what it has bought.

The entry is the primary order of a list (OTO), the exits are its alternatives (OUO). The exits are sent when the venue
has acknowledged the entry, so that they never work before it, and they are GTC: the venue carries them overnight. What
they have to cover follows from the store alone, so a restart continues where a kill has stopped.

After each change of a bracketed position the desk reviews it. A part without a working stop, for example after a bust
or a cancel by the venue, gets one as soon as the book accepts orders; closing orders beyond the position are cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdover.desk.accounting import Positions, Risk
from holdover.desk.config import DeskConfig, Strategy
from holdover.desk.gateway import Gateway
from holdover.desk.orders import Orders
from holdover.desk.parents import Parents, near_touch
from holdover.desk.ports import Clock, Market
from holdover.model import (
    ContingencyType,
    ImpossibleStateError,
    MsgType,
    Order,
    OrdType,
    PositionEffect,
    Protection,
    Request,
    Side,
    TimeInForce,
)
from holdover.runtime import Guard

_OTO = ContingencyType.ONE_TRIGGERS_THE_OTHER
_OUO = ContingencyType.ONE_UPDATES_THE_OTHER_ABSOLUTE


class Brackets:
    """The exits of every strategy with the algorithm `bracket`. It has no state of its own beyond `unfinished`."""

    subsystem = "risk"

    def __init__(
        self,
        config: DeskConfig,
        guard: Guard,
        clock: Clock,
        market: Market,
        orders: Orders,
        gateway: Gateway,
        positions: Positions,
        risk: Risk,
        parents: Parents,
    ) -> None:
        self._config, self._guard, self._clock, self._market = config, guard, clock, market
        self._orders, self._gateway, self._positions = orders, gateway, positions
        self._risk, self._parents = risk, parents
        self._strategies = {
            strategy.book_key: strategy for strategy in config.strategies if strategy.algorithm == "bracket"
        }
        self.unfinished: set[str] = set()
        self._new_roots: set[str] = set()
        self.is_ready: Callable[[], bool] = lambda: False

    def load(self) -> None:
        """Record that each bracketed position must be protected, and review all of them once the desk is ready."""
        for strategy in self._strategies.values():
            self._guard.record(
                self.subsystem,
                Protection(
                    account=strategy.account,
                    symbol=strategy.symbol,
                    position_side=strategy.position_side,
                    link=self._config.link,
                ),
            )
        self.unfinished = set(self._strategies)

    def owns(self, book_key: str) -> bool:
        """Return whether the positions of this book are bracketed."""
        return book_key in self._strategies

    def review(self, book_key: str) -> None:
        """Send the exits that are missing for a position, and cancel the closing orders that exceed it."""
        strategy = self._strategies.get(book_key)
        if strategy is None:
            raise ImpossibleStateError(f"position {book_key} is not bracketed; {', '.join(self._strategies)} are")
        orders = self._orders.contingent_orders(book_key)
        self.unfinished.discard(book_key)
        self._new_roots.clear()
        net_qty = self.net_qty(book_key)
        if net_qty < 0 if strategy.side == Side.BUY else net_qty > 0:
            self.unfinished.add(book_key)  # a bust took back what was closed since: no order can mend that
        elif self.is_ready() and self._parents.may_trade(strategy.symbol, self._market.top(strategy.symbol)):
            self._send_missing_exits(strategy, orders)
            self._protect(strategy, orders)
        else:
            self.unfinished.add(book_key)
        self._cancel_surplus(book_key)

    def net_qty(self, book_key: str) -> int:
        """Return the position in a book, in lots."""
        position = self._positions.get(book_key)
        return position.net_qty if position is not None else 0

    # -- exits ------------------------------------------------------------------------------------------------------

    def _send_missing_exits(self, strategy: Strategy, orders: list[Order]) -> None:
        """Send the exits of each entry that the venue has acknowledged and that has none yet."""
        for entry in orders:
            if entry.contingency_type != _OTO or not entry.is_open or not entry.order_id or entry.price is None:
                continue
            if not any(order.list_id == entry.list_id for order in orders if order is not entry):
                self._send_pair(strategy, entry.side, entry.order_qty, entry.list_id, entry.price)

    def _protect(self, strategy: Strategy, orders: list[Order]) -> None:
        """Send a stop for the part of the position that no working stop covers.

        It joins a take-profit that has lost its stop; without one it gets a take-profit of its own.
        """
        net_qty = self.net_qty(strategy.book_key)
        side = Side.SELL if net_qty > 0 else Side.BUY
        exits = [order for order in self._orders.closing_orders(strategy.book_key) if order.side == side]
        stopped = stop_qty_by_list(exits)
        uncovered = abs(net_qty) - sum(stopped.values())
        price = near_touch(side, self._market.top(strategy.symbol))
        if uncovered <= 0:
            return
        if price is None or self._is_recently_refused(orders):
            self.unfinished.add(strategy.book_key)
            return
        entry_side = Side.BUY if side == Side.SELL else Side.SELL
        lists = [order.list_id for order in exits if order.list_id not in stopped]
        if lists:
            list_id = lists[0]
            filled_qty = sum(order.alternatives_filled_qty for order in orders if order.list_id == list_id)
            self._send_stop(strategy, entry_side, uncovered + filled_qty, list_id, price)
        else:
            self._make_room(strategy.book_key, uncovered, exits)
            self._send_pair(strategy, entry_side, uncovered, "", price)

    def _make_room(self, book_key: str, quantity: int, exits: list[Order]) -> None:
        """Cancel take-profits, the newest first, until further closing orders of this quantity fit the position."""
        targets = [order for order in exits if order.ord_type == OrdType.LIMIT]
        room = self._closable_qty(book_key) - quantity
        while targets and closing_qty_together(self._orders.contingent_orders(book_key)) > room:
            self._parents.reset_tick()
            self._parents.send_cancel(targets.pop())

    def _is_recently_refused(self, orders: Iterable[Order]) -> bool:
        """Return whether the venue has refused an exit so recently that the next one would repeat it."""
        since_ns = self._clock.now_ns - self._config.answer_ns
        return any(
            order.is_rejected and self._parents.entered_ns(order.root_cl_ord_id) > since_ns
            for order in orders
            if order.position_effect == PositionEffect.CLOSE
        )

    def _send_pair(self, strategy: Strategy, entry_side: Side, quantity: int, list_id: str, price: int) -> None:
        list_id = self._send_stop(strategy, entry_side, quantity, list_id, price)
        distance = self._distance(strategy, strategy.take_profit)
        target_px = price + distance if entry_side == Side.BUY else price - distance
        if list_id and target_px > 0:
            self._send_exit(strategy, entry_side, quantity, list_id, OrdType.LIMIT, target_px)

    def _send_stop(self, strategy: Strategy, entry_side: Side, quantity: int, list_id: str, price: int) -> str:
        """Send a stop order behind a price; return its list, or "" when it is not sent."""
        distance = self._distance(strategy, strategy.stop_loss)
        stop_px = price - distance if entry_side == Side.BUY else price + distance
        return self._send_exit(strategy, entry_side, quantity, list_id, OrdType.STOP, max(stop_px, 1))

    def _distance(self, strategy: Strategy, increments: int) -> int:
        instrument = self._config.instrument(strategy.symbol)
        return increments * (instrument.price_increment if instrument is not None else 1)

    def _send_exit(
        self, strategy: Strategy, entry_side: Side, quantity: int, list_id: str, ord_type: OrdType, price: int
    ) -> str:
        """Send one exit if guard and limits allow it; return its list, or "" when it is not sent."""
        if quantity <= 0 or price <= 0:
            raise ImpossibleStateError(f"an exit of {quantity} lots at {price} ticks for {strategy.name}")
        self._parents.reset_tick()
        cl_ord_id = self._parents.new_id(strategy.name)
        side = Side.SELL if entry_side == Side.BUY else Side.BUY
        is_stop = ord_type == OrdType.STOP
        request = Request(
            msg_type=MsgType.NEW_ORDER_SINGLE,
            cl_ord_id=cl_ord_id,
            root_cl_ord_id=cl_ord_id,
            symbol=strategy.symbol,
            side=side,
            order_qty=quantity,
            ord_type=ord_type,
            price=None if is_stop else price,
            stop_px=price if is_stop else None,
            account=strategy.account,
            strategy=strategy.name,
            time_in_force=TimeInForce.GTC,
            position_effect=PositionEffect.CLOSE,
            position_side=strategy.position_side,
            list_id=list_id or cl_ord_id,
            contingency_type=_OUO,
            link=self._config.link,
            link_epoch=self._gateway.epoch,
            trade_date=self._orders.trade_date,
            transact_time_ns=self._clock.now_ns,
        )
        leg = strategy.position_side or ""
        is_allowed = self._risk.allows(strategy.account, strategy.symbol, side == Side.BUY, quantity, leg)
        if not is_allowed or not self._gateway.permits(request):
            self.unfinished.add(strategy.book_key)
            return ""
        self._new_roots.add(cl_ord_id)
        self._orders.create(request)
        self._gateway.queue(request)
        return request.list_id

    # -- surplus ----------------------------------------------------------------------------------------------------

    def _cancel_surplus(self, book_key: str) -> None:
        """Cancel closing orders beyond the position: take-profits before stops, the newest first."""
        exits = [order for order in self._orders.closing_orders(book_key) if order.key not in self._new_roots]
        exits.sort(key=lambda order: order.ord_type == OrdType.STOP, reverse=True)
        while exits and closing_qty_together(self._orders.contingent_orders(book_key)) > self._closable_qty(book_key):
            self._parents.reset_tick()
            self._parents.send_cancel(exits.pop())

    def _closable_qty(self, book_key: str) -> int:
        """Return the position, or what it becomes when the entries fill, whichever is larger."""
        net_qty = self.net_qty(book_key)
        entering_qty = sum(order.triggering_qty for order in self._orders.contingent_orders(book_key))
        return max(abs(net_qty), abs(net_qty + entering_qty))


def stop_qty_by_list(exits: Iterable[Order]) -> dict[str, int]:
    """Return what the working stops among closing orders cover, by list: of one list, the largest."""
    stopped: dict[str, int] = {}
    for order in exits:
        if order.protecting_qty:
            stopped[order.list_id] = max(stopped.get(order.list_id, 0), abs(order.protecting_qty))
    return stopped


def closing_qty_together(orders: Iterable[Order]) -> int:
    """Return what the closing orders among `orders` can fill together: of alternatives only the largest counts."""
    alone_qty, claimed, filled = 0, dict[str, int](), dict[str, int]()
    for order in orders:
        group = order.alternatives_key
        if group:
            claimed[group] = max(claimed.get(group, 0), order.closing_claimed_qty)
            filled[group] = filled.get(group, 0) + order.closing_filled_qty
        else:
            alone_qty += order.closing_uncancelled_qty
    return alone_qty + sum(claimed.values()) - sum(filled.values())
