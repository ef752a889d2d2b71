"""freqtrade's orders and trades as records, taken at each commit of its database session.

freqtrade stores no executions, only the filled quantity of an order. An increase is recorded as one execution and
stored in a table of ours, in the same file and transaction. So are orders that freqtrade deletes (an entry that was
cancelled without a fill), the position carried into the day, and the orders that are done for the day: the guard must
get back what was recorded, and freqtrade has no place for it.
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
    from holdover.adapters.freqtrade.exchange import ExchangeGateway

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
    """Open the database as freqtrade does, without disk syncs: the harness controls what a kill leaves."""
    init_db(url)
    engine = Trade.session.get_bind()
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    engine.dispose()


class FreqtradeRecords:
    """The state of one incarnation of freqtrade. `read_records` reads it once; `record_commits` records each commit."""

    def __init__(self, gateway: ExchangeGateway) -> None:
        self.gateway, self.env = gateway, gateway.env
        self.fill_totals: dict[str, tuple[int, int, int]] = {}
        self.carried_lots: dict[str, int] = {}
        self.trade_date = self._saved_day = ""
        self._positions: dict[str, Position] = {}
        self._exposures: dict[str, Exposure] = {}
        self._orders: dict[str, Order] = {}
        self._staged_records: list[Record] = []

    @property
    def open_order_ids(self) -> set[str]:
        """The IDs of the orders that freqtrade has open."""
        return {name for name, order in self._orders.items() if order.is_open}

    # -- reading ----------------------------------------------------------------------------------------------------

    def read_records(self, session: Any, orders: Iterable[Any]) -> list[tuple[str, list[Any]]]:
        """Returns orders with their fills, and positions, as stored in the database, by subsystem."""
        for table in _TABLES:
            session.execute(text(table))
        day_text = session.execute(text("SELECT day FROM holdover_day")).scalar()
        day: dict[str, Any] = json.loads(day_text) if day_text else {"date": "", "carried": {}, "done": []}
        self._saved_day = day_text
        self.trade_date, self.carried_lots = day["date"], day["carried"]
        self.gateway.done_for_day = set(day["done"])
        records: list[Record] = []
        for (blob,) in session.execute(text("SELECT was FROM holdover_gone ORDER BY rowid")):
            records.append(msgspec.msgpack.decode(blob, type=Order))
        self._orders = {order.order_id: self.to_order(order) for order in orders}
        records += self._orders.values()
        for name, blob in session.execute(text("SELECT name, fill FROM holdover_fill ORDER BY n")):
            fill = msgspec.msgpack.decode(blob, type=Execution)
            records.append(fill)
            number, lots, notional = self.fill_totals.get(name, (0, 0, 0))
            self.fill_totals[name] = (number + 1, lots + fill.qty_delta, notional + fill.notional_delta)
        return [("orders", records), ("positions", self.read_positions(session))]

    def begin_trade_date(self, session: Any) -> list[tuple[str, Any]]:
        """Returns the records that a start changes: in a new session the held quantity becomes the carried quantity."""
        if self.trade_date != self.env.trade_date:
            self.carried_lots = {symbol: position.net_qty for symbol, position in self._positions.items()}
            self.trade_date, self.gateway.done_for_day = self.env.trade_date, set()
            self.save_day(session)
        records = [*self.read_positions(session), *self.read_exposures(session)]
        return [(_SUBSYSTEMS[type(record)], record) for record in records]

    def save_day(self, session: Any) -> None:
        """Store the trade date and what was carried into it."""
        day = json.dumps(
            {"date": self.trade_date, "carried": self.carried_lots, "done": sorted(self.gateway.done_for_day)}
        )
        if day != self._saved_day:
            self._saved_day = day
            session.execute(text("INSERT OR REPLACE INTO holdover_day VALUES (1, :day)"), {"day": day})

    # -- freqtrade's objects as records -------------------------------------------------------------------------------

    def to_order(self, row: Any) -> Order:
        """Returns a freqtrade order as a record."""
        gateway, symbol = self.gateway, row.ft_pair
        units = gateway.symbols[symbol]
        order_qty = gateway.lots(symbol, row.amount or row.ft_amount)
        cum_qty = gateway.lots(symbol, row.filled)
        status = _STATUS.get(row.status or "open")
        is_open = status is None
        if status is None:
            status = OrdStatus.PARTIALLY_FILLED if cum_qty else OrdStatus.NEW
            if row.order_id in gateway.done_for_day:
                status = OrdStatus.DONE_FOR_DAY
        unit = float(Decimal(units.lot_size) * Decimal(units.tick_size))
        return Order(
            root_cl_ord_id=row.order_id,
            cl_ord_id=row.order_id,
            symbol=units.symbol,
            side=Side.BUY if (row.side or row.ft_order_side) == "buy" else Side.SELL,
            order_qty=order_qty,
            leaves_qty=gateway.lots(symbol, row.safe_remaining) if is_open else 0,
            cum_qty=cum_qty,
            notional=round((row.cost or 0.0) / unit) if cum_qty else 0,
            ord_status=status,
            account=gateway.account,
            strategy=gateway.strategy,
            ord_type=OrdType.MARKET if row.order_type == "market" else OrdType.LIMIT,
            time_in_force=TimeInForce.GTC,
            price=gateway.ticks(symbol, row.price) if row.price and row.order_type != "market" else None,
        )

    def read_positions(self, session: Any) -> list[Position]:
        """Returns the changed positions: from open trades and the fills of their open orders."""
        lots_by_symbol = dict.fromkeys(self._positions, 0)
        # Until an entry is filled, older releases store the requested amount there.
        opened = (
            "SELECT pair, amount FROM trades WHERE is_open AND EXISTS (SELECT 1 FROM orders "
            "WHERE orders.ft_trade_id = trades.id AND NOT ft_is_open AND filled > 0)"
        )
        for pair, amount in session.execute(text(opened)):
            symbol = self.gateway.symbols[pair].symbol
            lots_by_symbol[symbol] = lots_by_symbol.get(symbol, 0) + self.gateway.lots(pair, amount)
        working = "SELECT ft_pair, side, filled FROM orders WHERE ft_is_open AND filled > 0"
        for pair, side, filled in session.execute(text(working)):
            symbol, lots = self.gateway.symbols[pair].symbol, self.gateway.lots(pair, filled)
            lots_by_symbol[symbol] = lots_by_symbol.get(symbol, 0) + (lots if side == "buy" else -lots)
        changed_positions = []
        for symbol, lots in lots_by_symbol.items():
            position = Position(
                account=self.gateway.account,
                symbol=symbol,
                net_qty=lots,
                carried_qty=self.carried_lots.get(symbol, 0),
                trade_date=self.trade_date,
            )
            if self._positions.get(symbol) != position:
                self._positions[symbol] = position
                changed_positions.append(position)
        return changed_positions

    def read_exposures(self, session: Any) -> list[Exposure]:
        """Returns the changed exposures: from all orders, independently of the trades."""
        statement = (
            "SELECT ft_pair, SUM(CASE side WHEN 'buy' THEN filled ELSE -filled END), "
            "SUM(CASE WHEN ft_is_open AND side = 'buy' THEN remaining ELSE 0 END), "
            "SUM(CASE WHEN ft_is_open AND side = 'sell' THEN remaining ELSE 0 END) FROM orders GROUP BY ft_pair"
        )
        totals = dict.fromkeys(self._exposures, (0, 0, 0))
        for pair, *amounts in session.execute(text(statement)):
            net, buying, selling = (self.gateway.lots(pair, amount) for amount in amounts)
            totals[self.gateway.symbols[pair].symbol] = (net, buying, selling)
        changed_exposures = []
        for symbol, (net, buying, selling) in totals.items():
            exposure = Exposure(
                account=self.gateway.account,
                symbol=symbol,
                net_qty=net,
                open_buy_qty=buying,
                open_sell_qty=selling,
            )
            if self._exposures.get(symbol) != exposure:
                self._exposures[symbol] = exposure
                changed_exposures.append(exposure)
        return changed_exposures

    def next_execution(self, order: Order) -> Execution | None:
        """Returns the increase of an order's filled quantity as one execution; None without an increase."""
        number, lots, notional = self.fill_totals.get(order.key, (0, 0, 0))
        quantity, notional_delta = order.cum_qty - lots, order.notional - notional
        if quantity <= 0:
            return None
        self.fill_totals[order.key] = (number + 1, order.cum_qty, order.notional)
        return Execution(
            exec_id=f"{order.key}-{number + 1}",
            exec_type=ExecType.TRADE,
            root_cl_ord_id=order.key,
            cl_ord_id=order.key,
            symbol=order.symbol,
            side=order.side,
            trade_date=self.trade_date,
            account=order.account,
            strategy=order.strategy,
            venue=self.env.link.name,
            last_qty=quantity,
            last_px=round(notional_delta / quantity),
            qty_delta=quantity,
            notional_delta=notional_delta,
        )

    # -- at each commit -----------------------------------------------------------------------------------------------

    def record_commits(self, sessions: Any, record: Callable[[str, Record], None]) -> None:
        """Record what every commit makes durable; rolled-back changes are never recorded."""

        def on_flush(session: Any, _: Any) -> None:
            deleted_ids = {entity.order_id for entity in session.deleted if isinstance(entity, TheirOrder)}
            for entity in [*session.new, *session.dirty, *session.deleted]:
                if isinstance(entity, TheirOrder):
                    self._stage_order(session, self.to_order(entity), entity.order_id in deleted_ids)
            self.save_day(session)
            self._staged_records += [*self.read_positions(session), *self.read_exposures(session)]

        def on_commit(session: Any) -> None:
            staged, self._staged_records = self._staged_records, []
            for entry in staged:
                record(_SUBSYSTEMS.get(type(entry), "orders"), entry)

        event.listen(sessions, "after_flush", on_flush)
        event.listen(sessions, "after_commit", on_commit)
        event.listen(sessions, "after_rollback", lambda session: self._staged_records.clear())

    def _stage_order(self, session: Any, order: Order, is_deleted: bool) -> None:
        if is_deleted and order.is_open:  # freqtrade deletes an order that was cancelled without a fill
            order = replace(order, ord_status=OrdStatus.CANCELED, leaves_qty=0)
        fill = self.next_execution(order)
        if self._orders.get(order.key) == order and fill is None and not is_deleted:
            return
        self._orders[order.key] = order
        self._staged_records.append(order)
        if is_deleted:
            values = {"name": order.key, "was": msgspec.msgpack.encode(order)}
            session.execute(text("INSERT OR REPLACE INTO holdover_gone VALUES (:name, :was)"), values)
        if fill is not None:
            self._staged_records.append(fill)
            values = {"name": order.key, "fill": msgspec.msgpack.encode(fill)}
            session.execute(text("INSERT INTO holdover_fill (name, fill) VALUES (:name, :fill)"), values)
