"""freqtrade's orders and trades as records, taken at each commit of its own database session.

freqtrade keeps no executions: an order has what it has filled. A rise of it is recorded as one, and kept in a table of
ours in the same file and the same transaction. So are orders that freqtrade deletes (an entry that was cancelled
without a fill), the position that came into the day, and which orders were done for the day: what the guard has been
told must come back, and freqtrade has no place for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec
from freqtrade.persistence import Order as TheirOrder
from freqtrade.persistence import Trade, init_db
from msgspec.structs import replace
from sqlalchemy import event, text

from holdover.model import (
    ExecType,
    Execution,
    Exposure,
    Order,
    OrdStatus,
    OrdType,
    Position,
    Record,
    Side,
    TimeInForce,
)

if TYPE_CHECKING:
    from holdover.adapters.freqtrade.exchange import Gateway

_STATUS: Final = {
    "closed": OrdStatus.FILLED,
    "canceled": OrdStatus.CANCELED,
    "cancelled": OrdStatus.CANCELED,
    "expired": OrdStatus.EXPIRED,
    "rejected": OrdStatus.REJECTED,
}
_SUBSYSTEMS: Final[dict[type, str]] = {Position: "positions", Exposure: "risk"}
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS holdover_fill (n INTEGER PRIMARY KEY, name TEXT, fill BLOB)",
    "CREATE TABLE IF NOT EXISTS holdover_gone (name TEXT PRIMARY KEY, was BLOB)",
    "CREATE TABLE IF NOT EXISTS holdover_day (only INTEGER PRIMARY KEY CHECK (only = 1), day TEXT)",
)


def open_database(url: str) -> None:
    """As freqtrade opens it, without waiting for the disk: what a kill leaves is the harness's matter."""
    init_db(url)
    engine = Trade.session.get_bind()
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    engine.dispose()


class Books:
    """What one life of freqtrade believes. `read` says it once; `attach` has each commit of a session recorded."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.env = gateway, gateway.env
        self.executed: dict[str, tuple[int, int, int]] = {}
        self.carried: dict[str, int] = {}
        self.day = self._kept = ""
        self._held: dict[str, Position] = {}
        self._exposed: dict[str, Exposure] = {}
        self._changed: dict[str, Order] = {}
        self._staged: list[Record] = []

    @property
    def working(self) -> set[str]:
        """The orders that it holds open."""
        return {name for name, one in self._changed.items() if one.is_open}

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, session: Any, orders: Iterable[Any]) -> list[tuple[str, list[Any]]]:
        """Orders with their fills, and positions, as the database has them now."""
        for table in _TABLES:
            session.execute(text(table))
        told = session.execute(text("SELECT day FROM holdover_day")).scalar()
        kept: dict[str, Any] = json.loads(told) if told else {"date": "", "carried": {}, "done": []}
        self._kept = told
        self.day, self.carried = kept["date"], kept["carried"]
        self.gateway.done_for_day = set(kept["done"])
        found: list[Record] = []
        for (blob,) in session.execute(text("SELECT was FROM holdover_gone ORDER BY rowid")):
            found.append(msgspec.msgpack.decode(blob, type=Order))
        self._changed = {one.order_id: self.order(one) for one in orders}
        found += self._changed.values()
        for name, blob in session.execute(text("SELECT name, fill FROM holdover_fill ORDER BY n")):
            fill = msgspec.msgpack.decode(blob, type=Execution)
            found.append(fill)
            number, lots, notional = self.executed.get(name, (0, 0, 0))
            self.executed[name] = (number + 1, lots + fill.qty_delta, notional + fill.notional_delta)
        return [("orders", found), ("positions", self.positions(session))]

    def roll(self, session: Any) -> list[tuple[str, Any]]:
        """What a start makes anew: in a new session, what is held is what was carried in."""
        if self.day != self.env.trade_date:
            self.carried = {symbol: one.net_qty for symbol, one in self._held.items()}
            self.day, self.gateway.done_for_day = self.env.trade_date, set()
            self.keep(session)
        made = [*self.positions(session), *self.exposures(session)]
        return [(_SUBSYSTEMS[type(one)], one) for one in made]

    def keep(self, session: Any) -> None:
        """The day and what came into it."""
        day = json.dumps({"date": self.day, "carried": self.carried, "done": sorted(self.gateway.done_for_day)})
        if day != self._kept:
            self._kept = day
            session.execute(text("INSERT OR REPLACE INTO holdover_day VALUES (1, :day)"), {"day": day})

    # -- their objects as records -------------------------------------------------------------------------------------

    def order(self, one: Any) -> Order:
        """An order as it stands there."""
        gateway, symbol = self.gateway, one.ft_pair
        units = gateway.symbols[symbol]
        order_qty = gateway.lots(symbol, one.amount or one.ft_amount)
        cum_qty = gateway.lots(symbol, one.filled)
        status = _STATUS.get(one.status or "open")
        is_open = status is None
        if status is None:
            status = OrdStatus.PARTIALLY_FILLED if cum_qty else OrdStatus.NEW
            if one.order_id in gateway.done_for_day:
                status = OrdStatus.DONE_FOR_DAY
        unit = float(Decimal(units.lot_size) * Decimal(units.tick_size))
        return Order(
            root_cl_ord_id=one.order_id,
            cl_ord_id=one.order_id,
            symbol=units.symbol,
            side=Side.BUY if (one.side or one.ft_order_side) == "buy" else Side.SELL,
            order_qty=order_qty,
            leaves_qty=gateway.lots(symbol, one.safe_remaining) if is_open else 0,
            cum_qty=cum_qty,
            notional=round((one.cost or 0.0) / unit) if cum_qty else 0,
            ord_status=status,
            account=gateway.account,
            strategy=gateway.strategy,
            ord_type=OrdType.MARKET if one.order_type == "market" else OrdType.LIMIT,
            time_in_force=TimeInForce.GTC,
            price=gateway.ticks(symbol, one.price) if one.price and one.order_type != "market" else None,
        )

    def positions(self, session: Any) -> list[Position]:
        """What its open trades hold, with what has filled of their open orders; only those that have changed."""
        held = dict.fromkeys(self._held, 0)
        # Until an entry has come to something, older releases have the amount asked for there.
        opened = (
            "SELECT pair, amount FROM trades WHERE is_open AND EXISTS (SELECT 1 FROM orders "
            "WHERE orders.ft_trade_id = trades.id AND NOT ft_is_open AND filled > 0)"
        )
        for pair, amount in session.execute(text(opened)):
            symbol = self.gateway.symbols[pair].symbol
            held[symbol] = held.get(symbol, 0) + self.gateway.lots(pair, amount)
        working = "SELECT ft_pair, side, filled FROM orders WHERE ft_is_open AND filled > 0"
        for pair, side, filled in session.execute(text(working)):
            symbol, lots = self.gateway.symbols[pair].symbol, self.gateway.lots(pair, filled)
            held[symbol] = held.get(symbol, 0) + (lots if side == "buy" else -lots)
        found = []
        for symbol, lots in held.items():
            position = Position(
                account=self.gateway.account,
                symbol=symbol,
                net_qty=lots,
                carried_qty=self.carried.get(symbol, 0),
                trade_date=self.day,
            )
            if self._held.get(symbol) != position:
                self._held[symbol] = position
                found.append(position)
        return found

    def exposures(self, session: Any) -> list[Exposure]:
        """What its orders come to, all together, beside what its trades say; only those that have changed."""
        summed = (
            "SELECT ft_pair, SUM(CASE side WHEN 'buy' THEN filled ELSE -filled END), "
            "SUM(CASE WHEN ft_is_open AND side = 'buy' THEN remaining ELSE 0 END), "
            "SUM(CASE WHEN ft_is_open AND side = 'sell' THEN remaining ELSE 0 END) FROM orders GROUP BY ft_pair"
        )
        come_to = dict.fromkeys(self._exposed, (0, 0, 0))
        for pair, *amounts in session.execute(text(summed)):
            net, buying, selling = (self.gateway.lots(pair, one) for one in amounts)
            come_to[self.gateway.symbols[pair].symbol] = (net, buying, selling)
        found = []
        for symbol, (net, buying, selling) in come_to.items():
            exposure = Exposure(
                account=self.gateway.account,
                symbol=symbol,
                net_qty=net,
                open_buy_qty=buying,
                open_sell_qty=selling,
            )
            if self._exposed.get(symbol) != exposure:
                self._exposed[symbol] = exposure
                found.append(exposure)
        return found

    def fill(self, order: Order) -> Execution | None:
        """What an order has filled since the last time, as one execution."""
        number, lots, notional = self.executed.get(order.key, (0, 0, 0))
        more, paid = order.cum_qty - lots, order.notional - notional
        if more <= 0:
            return None
        self.executed[order.key] = (number + 1, order.cum_qty, order.notional)
        return Execution(
            exec_id=f"{order.key}-{number + 1}",
            exec_type=ExecType.TRADE,
            root_cl_ord_id=order.key,
            cl_ord_id=order.key,
            symbol=order.symbol,
            side=order.side,
            trade_date=self.day,
            account=order.account,
            strategy=order.strategy,
            venue=self.env.link.name,
            last_qty=more,
            last_px=round(paid / more),
            qty_delta=more,
            notional_delta=paid,
        )

    # -- at each commit -----------------------------------------------------------------------------------------------

    def attach(self, sessions: Any, record: Callable[[str, Record], None]) -> None:
        """Have what every commit makes durable recorded; what is rolled back was never said."""

        def flushed(session: Any, _: Any) -> None:
            gone = {one.order_id for one in session.deleted if isinstance(one, TheirOrder)}
            for one in [*session.new, *session.dirty, *session.deleted]:
                if isinstance(one, TheirOrder):
                    self._note(session, self.order(one), one.order_id in gone)
            self.keep(session)
            self._staged += [*self.positions(session), *self.exposures(session)]

        def committed(session: Any) -> None:
            staged, self._staged = self._staged, []
            for one in staged:
                record(_SUBSYSTEMS.get(type(one), "orders"), one)

        event.listen(sessions, "after_flush", flushed)
        event.listen(sessions, "after_commit", committed)
        event.listen(sessions, "after_rollback", lambda session: self._staged.clear())

    def _note(self, session: Any, order: Order, gone: bool) -> None:
        if gone and order.is_open:  # it deletes what it holds for cancelled without a fill
            order = replace(order, ord_status=OrdStatus.CANCELED, leaves_qty=0)
        fill = self.fill(order)
        if self._changed.get(order.key) == order and fill is None and not gone:
            return
        self._changed[order.key] = order
        self._staged.append(order)
        if gone:
            told = {"name": order.key, "was": msgspec.msgpack.encode(order)}
            session.execute(text("INSERT OR REPLACE INTO holdover_gone VALUES (:name, :was)"), told)
        if fill is not None:
            self._staged.append(fill)
            told = {"name": order.key, "fill": msgspec.msgpack.encode(fill)}
            session.execute(text("INSERT INTO holdover_fill (name, fill) VALUES (:name, :fill)"), told)
