"""Parent orders: worked in slices, by time or by participation, over one or more sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from holdover.desk.accounting import Positions, Risk
from holdover.desk.config import DeskConfig, Strategy
from holdover.desk.gateway import Gateway
from holdover.desk.orders import CHAIN, Orders
from holdover.desk.ports import UNDEF_PRICE, Clock, Market, Top
from holdover.desk.store import Store
from holdover.model import (
    ContingencyType,
    ImpossibleStateError,
    Intent,
    MsgType,
    Order,
    OrdStatus,
    ParentOrder,
    PositionEffect,
    Record,
    Request,
    Side,
)
from holdover.runtime import Guard

_LATE_PATIENCE: Final = 4
"""The number of looks after which an order near the close is repriced to the touch."""

_STEPS_BACK: Final = 10
"""The factor on its distance by which an order moves away from the market once its day quantity is filled."""


class Parents:
    """Every parent order, and the slices that it sends."""

    subsystem = "orders"

    def __init__(
        self,
        config: DeskConfig,
        store: Store,
        guard: Guard,
        clock: Clock,
        market: Market,
        orders: Orders,
        gateway: Gateway,
        positions: Positions,
        risk: Risk,
    ) -> None:
        self._config, self._store, self._guard = config, store, guard
        self._clock, self._market, self._orders, self._gateway = clock, market, orders, gateway
        self._positions, self._risk = positions, risk
        self._parents: dict[str, ParentOrder] = {}
        self._intents: dict[str, Intent] = {}
        self._children: dict[str, dict[str, None]] = {}
        self._filled_before: dict[str, int] = {}
        self._tick_ns = 0
        self._number = 0
        self.new_id: Callable[[str], str] = self._new_id

    def load(self, orders: list[Order]) -> list[Record]:
        """Read the parents and their intents from the store; return them."""
        self._parents = {parent.key: self.restore_parent(parent) for parent in self._store.load_all(ParentOrder)}
        self._intents = {intent.key: intent for intent in self._store.load_all(Intent)}
        self._children = {}
        for order in orders:
            self._track_child(order)
        return [*self._parents.values(), *self._intents.values()]

    def restore_parent(self, parent: ParentOrder) -> ParentOrder:
        """Return a parent as it was stored."""
        return parent

    def all_parents(self) -> list[ParentOrder]:
        """Return every parent order."""
        return list(self._parents.values())

    def begin(self, trade_date: str) -> None:
        """Begin a session: store the filled quantity of each parent, and create new parents with their intents."""
        if not trade_date:
            raise ImpossibleStateError("a session of the parent orders begins without a trade date")
        for strategy in self._config.strategies:
            parent = self._parents.get(strategy.parent_id)
            if parent is None:
                parent = ParentOrder(
                    parent_id=strategy.parent_id,
                    symbol=strategy.symbol,
                    side=strategy.side,
                    order_qty=strategy.order_qty,
                    account=strategy.account,
                    strategy=strategy.name,
                    algorithm=strategy.algorithm,
                )
            if parent.trade_date != trade_date:
                self._store.set(f"filled-before/{parent.key}", str(parent.filled_qty))
                self._save_intent(self._intents.get(parent.key) or self.build_intent(parent), parent)
                self._save(replace(parent, trade_date=trade_date))

    def build_intent(self, parent: ParentOrder) -> Intent:
        """Return the intent of a new parent order: its whole quantity, over all sessions."""
        if parent.order_qty <= 0:
            raise ImpossibleStateError(f"{parent!r} means to trade {parent.order_qty} lots, should be above 0")
        return Intent(
            intent_id=parent.key,
            strategy=parent.strategy,
            symbol=parent.symbol,
            side=parent.side,
            target_qty=parent.order_qty,
            account=parent.account,
        )

    def load_filled_before(self) -> None:
        """Read what each parent had filled before this session."""
        for key in self._parents:
            self._filled_before[key] = int(self._store.get(f"filled-before/{key}", "0"))

    def apply_order_change(self, before: Order | None, after: Order) -> None:
        """Update the sums of a parent after a change of a child."""
        parent = self._parents.get(after.cl_ord_link_id)
        if parent is None:
            return
        self._track_child(after)
        filled = after.cum_qty - (before.cum_qty if before else 0)
        working = after.working_qty - (before.working_qty if before else 0)
        if filled or working:
            self._save(replace(parent, filled_qty=parent.filled_qty + filled, working_qty=parent.working_qty + working))

    # -- working ------------------------------------------------------------------------------------------------

    def is_missed(self, strategy: Strategy, tick_ns: int) -> bool:
        """Return whether the look that was due at `tick_ns` was not run, although the one before it was."""
        return self._store.get(f"worked/{strategy.name}") == str(tick_ns - strategy.interval_ns)

    def work_parent(self, strategy: Strategy, tick_ns: int, open_ns: int, close_ns: int, number: int = 0) -> None:
        """Run one look at a parent, due at `tick_ns`: reprice or pull waiting slices, and send what is due.

        Every decision depends only on the store, the market and the tick, so a desk that was killed inside a look
        repeats the same look after its restart. The ids of the look count from `number`.
        """
        if number < 0 or open_ns >= close_ns:
            raise ImpossibleStateError(
                f"a look at {strategy.name} with ids from {number}, from {open_ns} to {close_ns} ns"
            )
        self._store.set(f"worked/{strategy.name}", str(tick_ns))
        self._tick_ns, self._number = tick_ns, number
        parent = self._parents.get(strategy.parent_id)
        top = self._market.top(strategy.symbol)
        if parent is None or not self.may_trade(strategy.symbol, top):
            return
        now_ns = self._clock.now_ns
        if not open_ns <= now_ns < close_ns:
            return
        working = self._manage_slices(strategy, parent, top, open_ns, close_ns)
        if working >= strategy.slices_working_max or self._has_unknown_outcome(strategy):
            return
        due = self._due_qty(strategy, parent, top, open_ns, close_ns)
        quantity = min(strategy.slice_qty, self.remaining_qty(parent))
        if due < quantity or (strategy.algorithm == "bracket" and not self._is_flat(strategy)):
            return
        if strategy.position_effect == PositionEffect.CLOSE:
            quantity = min(quantity, self._closable_qty(strategy))
        price = self._offset_price(strategy, near_touch(strategy.side, top))
        if quantity > 0 and price is not None and price > 0:
            self._send_slice(strategy, parent, quantity, price)

    def remaining_qty(self, parent: ParentOrder) -> int:
        """Return the quantity of a parent that is neither filled nor working."""
        return parent.order_qty - parent.filled_qty - parent.working_qty

    def pull_surplus(self, book_key: str) -> None:
        """Cancel closing orders that exceed the position, for example after a bust or a manual trade.

        The newest order is cancelled first, because the oldest is ahead in its queue.
        """
        closing = self._orders.closing_orders(book_key)
        if not closing:
            return
        self.reset_tick()
        position = self._positions.get(book_key)
        net_qty = position.net_qty if position is not None else 0
        for order in reversed(closing):
            covered = -net_qty if order.side == Side.BUY else net_qty
            if sum(closing_order.closing_uncancelled_qty for closing_order in closing) <= covered:
                return
            closing.remove(order)
            self.send_cancel(order)

    def may_trade(self, symbol: str, top: Top) -> bool:
        """Return whether the book accepts orders, by the market data and by the venue's last status."""
        return top.trading and self._gateway.is_trading(symbol)

    def _offset_price(self, strategy: Strategy, touch: int | None) -> int | None:
        instrument = self._config.instrument(strategy.symbol)
        if touch is None or instrument is None:
            return None
        step = strategy.offset * instrument.price_increment
        price = touch - step if strategy.side == Side.BUY else touch + step
        # A touch inside the increment (a mid-price print) is rounded away from the market, never into it.
        rest = price % instrument.price_increment
        return price - rest if strategy.side == Side.BUY or not rest else price - rest + instrument.price_increment

    def _due_qty(self, strategy: Strategy, parent: ParentOrder, top: Top, open_ns: int, close_ns: int) -> int:
        if strategy.algorithm == "standing":
            return parent.order_qty
        today = self._filled_today(parent)
        if strategy.algorithm == "participation":
            target = min(strategy.day_qty, top.traded_qty * strategy.participation_bp // 10_000)
        else:
            elapsed = self._tick_ns - open_ns
            target = strategy.day_qty * elapsed // (close_ns - open_ns) + strategy.slice_qty
        return target - today - parent.working_qty

    def _filled_today(self, parent: ParentOrder) -> int:
        return parent.filled_qty - self._filled_before.get(parent.key, 0)

    def _closable_qty(self, strategy: Strategy) -> int:
        position = self._positions.get(strategy.book_key)
        if position is None:
            return 0
        net_qty = position.net_qty if strategy.side != Side.BUY else -position.net_qty
        return net_qty - position.reserved_qty

    def _is_flat(self, strategy: Strategy) -> bool:
        """Return whether a strategy has neither a position nor an order that would close one."""
        position = self._positions.get(strategy.book_key)
        return (position is None or position.net_qty == 0) and not self._orders.closing_orders(strategy.book_key)

    def _has_unknown_outcome(self, strategy: Strategy) -> bool:
        """Return whether an order of this parent is unacknowledged; another one might duplicate it."""
        children = [self._orders.get(root) for root in self._children.get(strategy.parent_id, {})]
        return any(order is not None and order.ord_status == OrdStatus.PENDING_NEW for order in children)

    def _manage_slices(self, strategy: Strategy, parent: ParentOrder, top: Top, open_ns: int, close_ns: int) -> int:
        """Reprice or cancel waiting slices; return how many are working."""
        working = 0
        children = self._children.get(strategy.parent_id, {})
        for root in sorted(children, key=lambda root: (self.entered_ns(root), root)):
            order = self._orders.get(root)
            if order is None or not order.is_open:
                children.pop(root, None)
                continue
            working += 1
            if order.is_pending or order.ord_status == OrdStatus.DONE_FOR_DAY:
                continue
            intervals = (self._tick_ns - max(self.entered_ns(root), open_ns)) // strategy.interval_ns
            if strategy.algorithm == "bracket":
                if intervals >= strategy.patience:
                    self.send_cancel(order)
            elif strategy.late_ns and self._filled_today(parent) >= strategy.day_qty:
                self._step_back(strategy, order, near_touch(strategy.side, top))
            elif strategy.late_ns:
                is_late = close_ns - self._tick_ns <= strategy.late_ns
                if intervals == 1 or intervals % (_LATE_PATIENCE if is_late else strategy.patience) == 0:
                    touch = near_touch(strategy.side, top)
                    self._reprice_order(order, touch if is_late else self._offset_price(strategy, touch))
            elif intervals > 0 and intervals % strategy.patience == 0:
                patience_count = intervals // strategy.patience
                if patience_count >= (2 if strategy.rests else 4):
                    self.send_cancel(order)
                else:
                    self._reprice_order(
                        order,
                        _far_touch(strategy.side, top) if patience_count >= 2 else near_touch(strategy.side, top),
                    )
        return working

    def _step_back(self, strategy: Strategy, order: Order, touch: int | None) -> None:
        """Move a slice out of the market's reach once the day quantity is filled, unless it is already there."""
        instrument = self._config.instrument(strategy.symbol)
        if touch is None or order.price is None or instrument is None:
            return
        distance = abs(order.price - touch) // max(strategy.offset * instrument.price_increment, 1)
        if distance < _STEPS_BACK // 2:
            self._reprice_order(
                order, self._offset_price(replace(strategy, offset=strategy.offset * _STEPS_BACK), touch)
            )

    def _reprice_order(self, order: Order, price: int | None) -> None:
        if price is not None and price != order.price:
            self._send_replace(order, price)

    def _send_slice(self, strategy: Strategy, parent: ParentOrder, quantity: int, price: int) -> None:
        cl_ord_id = self.new_id(strategy.name)
        request = Request(
            msg_type=MsgType.NEW_ORDER_SINGLE,
            cl_ord_id=cl_ord_id,
            root_cl_ord_id=cl_ord_id,
            symbol=strategy.symbol,
            side=strategy.side,
            order_qty=quantity,
            price=price,
            account=strategy.account,
            strategy=strategy.name,
            time_in_force=strategy.time_in_force,
            position_effect=strategy.position_effect,
            position_side=strategy.position_side,
            list_id=cl_ord_id if strategy.algorithm == "bracket" else "",
            contingency_type=ContingencyType.ONE_TRIGGERS_THE_OTHER if strategy.algorithm == "bracket" else None,
            intent_id=parent.key,
            cl_ord_link_id=parent.key,
            link=self._config.link,
            link_epoch=self._gateway.epoch,
            trade_date=self._orders.trade_date,
            transact_time_ns=self._clock.now_ns,
        )
        if quantity <= 0 or parent.symbol != strategy.symbol or parent.side != strategy.side:
            raise ImpossibleStateError(f"a slice of {quantity} for {strategy.name} under {parent!r}")
        buy = strategy.side == Side.BUY
        if self._gateway.permits(request) and self._risk.allows(
            strategy.account, strategy.symbol, buy, quantity, strategy.position_side or ""
        ):
            self._orders.create(request)
            self._gateway.queue(request)

    def send_cancel(self, order: Order) -> None:
        """Request the cancel of an order, if the guard permits it."""
        request = self._build_change(order, MsgType.ORDER_CANCEL_REQUEST, order.price)
        if self._gateway.permits(request):
            self._orders.request_cancel(order, request)
            self._gateway.queue(request)

    def _send_replace(self, order: Order, price: int) -> None:
        request = self._build_change(order, MsgType.ORDER_CANCEL_REPLACE_REQUEST, price)
        if self._gateway.permits(request):
            self._orders.request_replace(order, request)
            self._gateway.queue(request)

    def _build_change(self, order: Order, msg_type: MsgType, price: int | None) -> Request:
        return Request(
            msg_type=msg_type,
            cl_ord_id=self.change_id(order),
            orig_cl_ord_id=order.cl_ord_id,
            root_cl_ord_id=order.root_cl_ord_id,
            symbol=order.symbol,
            side=order.side,
            order_qty=order.order_qty,
            price=price,
            stop_px=order.stop_px,
            account=order.account,
            strategy=order.strategy,
            ord_type=order.ord_type,
            time_in_force=order.time_in_force,
            expire_date=order.expire_date,
            cl_ord_link_id=order.cl_ord_link_id,
            position_effect=order.position_effect,
            position_side=order.position_side,
            position_id=order.position_id,
            list_id=order.list_id,
            contingency_type=order.contingency_type,
            intent_id=order.intent_id,
            link=self._config.link,
            link_epoch=self._gateway.epoch,
            trade_date=self._orders.trade_date,
            transact_time_ns=self._clock.now_ns,
        )

    # -- operator requests ------------------------------------------------------------------------------------------

    def cancel(self, root: str) -> None:
        """Cancel an order that is open and has no pending request."""
        order = self._workable_order(root)
        if order is not None:
            self.send_cancel(order)

    def reprice(self, root: str, price: int) -> None:
        """Change the price of an order that is open and has no pending request."""
        order = self._workable_order(root)
        if order is not None:
            self._reprice_order(order, price)

    def submit(self, strategy: Strategy, quantity: int, ticks: int) -> None:
        """Send a slice at once, `ticks` price increments behind the touch, if the parent has quantity left."""
        parent = self._parents.get(strategy.parent_id)
        top = self._market.top(strategy.symbol)
        if parent is None or not self.may_trade(strategy.symbol, top) or self._has_unknown_outcome(strategy):
            return
        quantity = min(quantity, self.remaining_qty(parent))
        if strategy.position_effect == PositionEffect.CLOSE:
            quantity = min(quantity, self._closable_qty(strategy))
        if strategy.algorithm == "bracket" and not self._is_flat(strategy):
            return
        price = self._offset_price(replace(strategy, offset=ticks), near_touch(strategy.side, top))
        if quantity > 0 and price is not None and price > 0:
            self.reset_tick()
            self._send_slice(strategy, parent, quantity, price)

    def _workable_order(self, root: str) -> Order | None:
        order = self._orders.get(root)
        self.reset_tick()
        is_workable = order is not None and order.is_open and not order.is_pending and not order.foreign
        return order if is_workable else None

    def reset_tick(self) -> None:
        """Use the current time for ids, because what is sent now belongs to no look."""
        self._tick_ns, self._number = self._clock.now_ns, 0

    # -- inside -------------------------------------------------------------------------------------------------

    def _new_id(self, strategy: str) -> str:
        """Return a unique ClOrdID: the time of the look, which runs only once, and a count within it."""
        return self._unused_id(f"{strategy}-{_base36(self._tick_ns // 1_000_000)}-")

    def change_id(self, order: Order) -> str:
        """Return the ClOrdID of a cancel or replace. It contains the root ClOrdID, in case all else is lost."""
        return self._unused_id(f"{order.root_cl_ord_id}{CHAIN}{_base36(self._tick_ns // 1_000_000)}.")

    def entered_ns(self, root: str) -> int:
        """Return the time of the look that entered an order, from its ClOrdID; 0 when the ClOrdID has none."""
        parts = root.rsplit("-", 2)
        if len(parts) != 3 or not parts[1].isalnum() or not parts[1].isascii():
            return 0
        return int(parts[1], 36) * 1_000_000

    def _unused_id(self, stem: str) -> str:
        # After a lost write (power failure) the venue may have an order of this very look.
        while True:
            self._number += 1
            cl_ord_id = f"{stem}{self._number}"
            if not self._orders.is_known_id(cl_ord_id):
                return cl_ord_id

    def _track_child(self, order: Order) -> None:
        if order.cl_ord_link_id and order.is_open:
            self._children.setdefault(order.cl_ord_link_id, {})[order.key] = None

    def _save(self, parent: ParentOrder) -> None:
        parent = replace(parent, is_complete=parent.filled_qty >= parent.order_qty)
        self._parents[parent.key] = parent
        self._store.save(parent)
        self._guard.record(self.subsystem, parent)
        intent = self._intents.get(parent.key)
        if intent is not None and intent.is_working == parent.is_complete:
            self._save_intent(intent, parent)

    def _save_intent(self, intent: Intent, parent: ParentOrder) -> None:
        intent = replace(intent, is_working=not parent.is_complete)
        if self._intents.get(intent.key) != intent:
            self._intents[intent.key] = intent
            self._store.save(intent)
            self._guard.record(self.subsystem, intent)


def near_touch(side: Side, top: Top) -> int | None:
    """Return the best price of the side that an order rests on; None when that side is empty."""
    price = top.bid_px if side == Side.BUY else top.ask_px
    return None if price == UNDEF_PRICE else price


def _far_touch(side: Side, top: Top) -> int | None:
    price = top.ask_px if side == Side.BUY else top.bid_px
    return None if price == UNDEF_PRICE else price


def _base36(number: int) -> str:
    if number < 0:
        raise ImpossibleStateError(f"a ClOrdID cannot contain {number}, should be from 0 on")
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    text = ""
    while number:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
    return text or "0"
