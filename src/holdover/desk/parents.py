"""Parent orders: worked in slices, by time or by participation, over as many sessions as it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from holdover.desk.books import Positions, Risk
from holdover.desk.config import DeskConfig, Strategy
from holdover.desk.gateway import Gateway
from holdover.desk.orders import CHAIN, Orders
from holdover.desk.outside import UNDEF_PRICE, Clock, Market, Top
from holdover.desk.store import Store
from holdover.model import (
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
"""After how many looks an order near the close follows the touch."""

_STEPS_BACK: Final = 10
"""How many times its distance an order goes away from the market that has had its quantity of the day."""


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
        self._children: dict[str, dict[str, None]] = {}
        self._filled_before: dict[str, int] = {}
        self._tick_ns = 0
        self._number = 0
        self.new_id: Callable[[str], str] = self._new_id

    def load(self, orders: list[Order]) -> list[Record]:
        """Read the parents back."""
        self._parents = {parent.key: self.restored(parent) for parent in self._store.all(ParentOrder)}
        self._children = {}
        for order in orders:
            self._watch(order)
        return list(self._parents.values())

    def restored(self, parent: ParentOrder) -> ParentOrder:
        """A parent as it was stored."""
        return parent

    def all(self) -> list[ParentOrder]:
        """Every parent order."""
        return list(self._parents.values())

    def begin(self, trade_date: str) -> None:
        """A new session: note where each parent stands, and open those that are new."""
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
                self._keep(replace(parent, trade_date=trade_date))

    def resume(self) -> None:
        """Read what each parent had filled before this session and what the market had traded when it began."""
        for key in self._parents:
            self._filled_before[key] = int(self._store.get(f"filled-before/{key}", "0"))

    def follow(self, before: Order | None, after: Order) -> None:
        """A child has changed: its parent's sums change with it."""
        parent = self._parents.get(after.cl_ord_link_id)
        if parent is None:
            return
        self._watch(after)
        filled = after.cum_qty - (before.cum_qty if before else 0)
        working = after.working_qty - (before.working_qty if before else 0)
        if filled or working:
            self._keep(replace(parent, filled_qty=parent.filled_qty + filled, working_qty=parent.working_qty + working))

    # -- working ------------------------------------------------------------------------------------------------

    def missed(self, strategy: Strategy, tick_ns: int) -> bool:
        """Whether the look that was due at `tick_ns` has not been taken, though the one before it was."""
        return self._store.get(f"worked/{strategy.name}") == str(tick_ns - strategy.interval_ns)

    def work(self, strategy: Strategy, tick_ns: int, open_ns: int, close_ns: int, number: int = 0) -> None:
        """Look at one parent, as was due at `tick_ns`: reprice or pull what has waited too long, send what is due.

        All that it decides by is in the store, in the market or in the tick, so that a desk that was killed inside a
        look takes the same look again when it has come up. Its ids are counted from `number` on.
        """
        self._store.set(f"worked/{strategy.name}", str(tick_ns))
        self._tick_ns, self._number = tick_ns, number
        parent = self._parents.get(strategy.parent_id)
        top = self._market.top(strategy.symbol)
        if parent is None or not self.may_trade(strategy.symbol, top):
            return
        now_ns = self._clock.now_ns
        if not open_ns <= now_ns < close_ns:
            return
        working = self._tend(strategy, parent, top, open_ns, close_ns)
        if working >= strategy.slices_working_max or self._outcome_unknown(strategy):
            return
        due = self._due(strategy, parent, top, open_ns, close_ns)
        quantity = min(strategy.slice_qty, self.left(parent))
        if due < quantity:
            return
        if strategy.position_effect == PositionEffect.CLOSE:
            quantity = min(quantity, self._free(strategy))
        price = self._behind(strategy, _near(strategy.side, top))
        if quantity > 0 and price is not None and price > 0:
            self._send_slice(strategy, parent, quantity, price)

    def left(self, parent: ParentOrder) -> int:
        """What of a parent is neither filled nor at work."""
        return parent.order_qty - parent.filled_qty - parent.working_qty

    def pull_surplus(self, book_key: str) -> None:
        """Cancel what is at work to close more than there is: a bust or a trade by hand has taken it from under us.

        The newest order goes first, because the oldest stands first in its queue.
        """
        closing = self._orders.closing(book_key)
        if not closing:
            return
        self._at_this_moment()
        position = self._positions.get(book_key)
        held = position.net_qty if position is not None else 0
        for order in reversed(closing):
            covered = -held if order.side == Side.BUY else held
            if sum(one.closing_kept_qty for one in closing) <= covered:
                return
            closing.remove(order)
            self._cancel(order)

    def may_trade(self, symbol: str, top: Top) -> bool:
        """Whether the book takes orders: by the market's word and by what the venue has told us."""
        return top.trading and self._gateway.trading(symbol)

    def _behind(self, strategy: Strategy, touch: int | None) -> int | None:
        instrument = self._config.instrument(strategy.symbol)
        if touch is None or instrument is None:
            return None
        step = strategy.offset * instrument.price_increment
        price = touch - step if strategy.side == Side.BUY else touch + step
        # A touch inside the increment (a mid-price print) is moved away from the market, never into it.
        rest = price % instrument.price_increment
        return price - rest if strategy.side == Side.BUY or not rest else price - rest + instrument.price_increment

    def _due(self, strategy: Strategy, parent: ParentOrder, top: Top, open_ns: int, close_ns: int) -> int:
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

    def _free(self, strategy: Strategy) -> int:
        position = self._positions.get(f"{strategy.account}/{strategy.symbol}")
        if position is None:
            return 0
        held = position.net_qty if strategy.side != Side.BUY else -position.net_qty
        return held - position.reserved_qty

    def _outcome_unknown(self, strategy: Strategy) -> bool:
        """Whether an order of this parent is still unacknowledged: another might double it."""
        children = [self._orders.get(root) for root in self._children.get(strategy.parent_id, {})]
        return any(order is not None and order.ord_status == OrdStatus.PENDING_NEW for order in children)

    def _tend(self, strategy: Strategy, parent: ParentOrder, top: Top, open_ns: int, close_ns: int) -> int:
        """Reprice or cancel slices that have waited; returns how many are working."""
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
            waited = (self._tick_ns - max(self.entered_ns(root), open_ns)) // strategy.interval_ns
            if strategy.late_ns and self._filled_today(parent) >= strategy.day_qty:
                self._step_back(strategy, order, _near(strategy.side, top))
            elif strategy.late_ns:
                late = close_ns - self._tick_ns <= strategy.late_ns
                if waited == 1 or waited % (_LATE_PATIENCE if late else strategy.patience) == 0:
                    near = _near(strategy.side, top)
                    self._reprice(order, near if late else self._behind(strategy, near))
            elif waited > 0 and waited % strategy.patience == 0:
                times = waited // strategy.patience
                if times >= (2 if strategy.rests else 4):
                    self._cancel(order)
                else:
                    self._reprice(order, _far(strategy.side, top) if times >= 2 else _near(strategy.side, top))
        return working

    def _step_back(self, strategy: Strategy, order: Order, near: int | None) -> None:
        """The day's quantity is done: out of the market's reach, and not again while it stands there."""
        instrument = self._config.instrument(strategy.symbol)
        if near is None or order.price is None or instrument is None:
            return
        distance = abs(order.price - near) // max(strategy.offset * instrument.price_increment, 1)
        if distance < _STEPS_BACK // 2:
            self._reprice(order, self._behind(replace(strategy, offset=strategy.offset * _STEPS_BACK), near))

    def _reprice(self, order: Order, price: int | None) -> None:
        if price is not None and price != order.price:
            self._replace(order, price)

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
            cl_ord_link_id=parent.key,
            link=self._config.link,
            link_epoch=self._gateway.epoch,
            trade_date=self._orders.trade_date,
            transact_time_ns=self._clock.now_ns,
        )
        buy = strategy.side == Side.BUY
        if self._gateway.permits(request) and self._risk.allows(strategy.account, strategy.symbol, buy, quantity):
            self._orders.create(request)
            self._gateway.queue(request)

    def _cancel(self, order: Order) -> None:
        request = self._change(order, MsgType.ORDER_CANCEL_REQUEST, order.price)
        if self._gateway.permits(request):
            self._orders.ask_cancel(order, request)
            self._gateway.queue(request)

    def _replace(self, order: Order, price: int) -> None:
        request = self._change(order, MsgType.ORDER_CANCEL_REPLACE_REQUEST, price)
        if self._gateway.permits(request):
            self._orders.ask_replace(order, request)
            self._gateway.queue(request)

    def _change(self, order: Order, msg_type: MsgType, price: int | None) -> Request:
        return Request(
            msg_type=msg_type,
            cl_ord_id=self.change_id(order),
            orig_cl_ord_id=order.cl_ord_id,
            root_cl_ord_id=order.root_cl_ord_id,
            symbol=order.symbol,
            side=order.side,
            order_qty=order.order_qty,
            price=price,
            account=order.account,
            strategy=order.strategy,
            ord_type=order.ord_type,
            time_in_force=order.time_in_force,
            expire_date=order.expire_date,
            cl_ord_link_id=order.cl_ord_link_id,
            position_effect=order.position_effect,
            link=self._config.link,
            link_epoch=self._gateway.epoch,
            trade_date=self._orders.trade_date,
            transact_time_ns=self._clock.now_ns,
        )

    # -- at an operator's word ------------------------------------------------------------------------------------

    def cancel(self, root: str) -> None:
        """Cancel an order that is open and has no request under way."""
        order = self._asked_for(root)
        if order is not None:
            self._cancel(order)

    def reprice(self, root: str, price: int) -> None:
        """Replace an order that is open and has no request under way at another price."""
        order = self._asked_for(root)
        if order is not None:
            self._reprice(order, price)

    def submit(self, strategy: Strategy, quantity: int, ticks: int) -> None:
        """Send a slice of a strategy at once, so many price increments behind the touch, where the parent has room."""
        parent = self._parents.get(strategy.parent_id)
        top = self._market.top(strategy.symbol)
        if parent is None or not self.may_trade(strategy.symbol, top) or self._outcome_unknown(strategy):
            return
        quantity = min(quantity, self.left(parent))
        if strategy.position_effect == PositionEffect.CLOSE:
            quantity = min(quantity, self._free(strategy))
        price = self._behind(replace(strategy, offset=ticks), _near(strategy.side, top))
        if quantity > 0 and price is not None and price > 0:
            self._at_this_moment()
            self._send_slice(strategy, parent, quantity, price)

    def _asked_for(self, root: str) -> Order | None:
        order = self._orders.get(root)
        self._at_this_moment()
        workable = order is not None and order.is_open and not order.is_pending and not order.foreign
        return order if workable else None

    def _at_this_moment(self) -> None:
        """What is sent now comes from no look: its ids are of the moment."""
        self._tick_ns, self._number = self._clock.now_ns, 0

    # -- inside -------------------------------------------------------------------------------------------------

    def _new_id(self, strategy: str) -> str:
        """Never the same twice: the look that it comes from, which is never taken twice, and a count within it."""
        return self._unused(f"{strategy}-{_base36(self._tick_ns // 1_000_000)}-")

    def change_id(self, order: Order) -> str:
        """The ClOrdID of a cancel or a replace: it tells which order began the chain, should all else be lost."""
        return self._unused(f"{order.root_cl_ord_id}{CHAIN}{_base36(self._tick_ns // 1_000_000)}.")

    def entered_ns(self, root: str) -> int:
        """When the look was due in which an order of ours was entered: its ClOrdID tells. 0 where it does not."""
        told = root.rsplit("-", 2)
        if len(told) != 3 or not told[1].isalnum() or not told[1].isascii():
            return 0
        return int(told[1], 36) * 1_000_000

    def _unused(self, stem: str) -> str:
        # After a write that a machine lost with its power, the venue may have an order of this very look.
        while True:
            self._number += 1
            cl_ord_id = f"{stem}{self._number}"
            if not self._orders.knows(cl_ord_id):
                return cl_ord_id

    def _watch(self, order: Order) -> None:
        if order.cl_ord_link_id and order.is_open:
            self._children.setdefault(order.cl_ord_link_id, {})[order.key] = None

    def _keep(self, parent: ParentOrder) -> None:
        parent = replace(parent, done=parent.filled_qty >= parent.order_qty)
        self._parents[parent.key] = parent
        self._store.put(parent)
        self._guard.record(self.subsystem, parent)


def _near(side: Side, top: Top) -> int | None:
    price = top.bid_px if side == Side.BUY else top.ask_px
    return None if price == UNDEF_PRICE else price


def _far(side: Side, top: Top) -> int | None:
    price = top.ask_px if side == Side.BUY else top.bid_px
    return None if price == UNDEF_PRICE else price


def _base36(number: int) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    found = ""
    while number:
        number, rest = divmod(number, 36)
        found = digits[rest] + found
    return found or "0"
