"""Converts NautilusTrader's objects to records, and the venue's messages to its types."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from nautilus_trader.model.enums import OrderSide, OrderStatus, OrderType
from nautilus_trader.model.enums import TimeInForce as NautilusTif
from nautilus_trader.model.events import OrderFilled
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import Equity
from nautilus_trader.model.objects import Currency, Price, Quantity

from holdover.model import (
    ExecType,
    Execution,
    Instrument,
    Order,
    OrdStatus,
    OrdType,
    Side,
    TimeInForce,
)
from holdover.recording import Meta

STATUS: Final = {
    OrderStatus.INITIALIZED: OrdStatus.PENDING_NEW,
    OrderStatus.SUBMITTED: OrdStatus.PENDING_NEW,
    OrderStatus.DENIED: OrdStatus.REJECTED,
    OrderStatus.REJECTED: OrdStatus.REJECTED,
    OrderStatus.ACCEPTED: OrdStatus.NEW,
    OrderStatus.TRIGGERED: OrdStatus.NEW,
    OrderStatus.PENDING_UPDATE: OrdStatus.PENDING_REPLACE,
    OrderStatus.PENDING_CANCEL: OrdStatus.PENDING_CANCEL,
    OrderStatus.PARTIALLY_FILLED: OrdStatus.PARTIALLY_FILLED,
    OrderStatus.FILLED: OrdStatus.FILLED,
    OrderStatus.CANCELED: OrdStatus.CANCELED,
    OrderStatus.EXPIRED: OrdStatus.EXPIRED,
}
TO_STATUS: Final = {
    OrdStatus.NEW: OrderStatus.ACCEPTED,
    OrdStatus.PENDING_NEW: OrderStatus.SUBMITTED,
    OrdStatus.PARTIALLY_FILLED: OrderStatus.PARTIALLY_FILLED,
    OrdStatus.FILLED: OrderStatus.FILLED,
    OrdStatus.CANCELED: OrderStatus.CANCELED,
    OrdStatus.EXPIRED: OrderStatus.EXPIRED,
    OrdStatus.REJECTED: OrderStatus.REJECTED,
}
SIDE: Final = {OrderSide.BUY: Side.BUY, OrderSide.SELL: Side.SELL}
TO_SIDE: Final = {Side.BUY: OrderSide.BUY, Side.SELL: OrderSide.SELL, Side.SELL_SHORT: OrderSide.SELL}
TYPE: Final = {OrderType.MARKET: OrdType.MARKET, OrderType.LIMIT: OrdType.LIMIT}
TO_TYPE: Final = {OrdType.MARKET: OrderType.MARKET, OrdType.LIMIT: OrderType.LIMIT}
TIF: Final = {
    NautilusTif.DAY: TimeInForce.DAY,
    NautilusTif.GTC: TimeInForce.GTC,
    NautilusTif.IOC: TimeInForce.IOC,
    NautilusTif.FOK: TimeInForce.FOK,
}
TO_TIF: Final = {tif: nautilus_tif for nautilus_tif, tif in TIF.items()}
_EXEC_TYPE: Final = {
    "OrderFilled": ExecType.TRADE,
    "OrderUpdated": ExecType.REPLACED,
    "OrderAccepted": ExecType.NEW,
    "OrderCanceled": ExecType.CANCELED,
    "OrderExpired": ExecType.EXPIRED,
    "OrderRejected": ExecType.REJECTED,
    "OrderDenied": ExecType.REJECTED,
    "OrderPendingCancel": ExecType.PENDING_CANCEL,
    "OrderPendingUpdate": ExecType.PENDING_REPLACE,
}
_EXTERNAL_OWNERS: Final = ("EXTERNAL", "INTERNAL-DIFF")
"""The owners that NautilusTrader assigns to orders that no strategy sent."""
_UUID_LENGTH: Final = 36


class UnsupportedInstrumentError(ValueError):
    """This adapter has no NautilusTrader type for the instrument."""


class NautilusUnits:
    """Unit conversion of one instrument: lots and ticks here, `Quantity` and `Price` in NautilusTrader.

    Raises `UnsupportedInstrumentError` when a lot is not a whole number of shares.
    """

    def __init__(self, instrument: Instrument, ts_ns: int) -> None:
        lot, tick = Decimal(instrument.lot_size), Decimal(instrument.tick_size)
        if lot != lot.to_integral_value():
            raise UnsupportedInstrumentError(
                f"{instrument.symbol}: the lot size is {lot}; this adapter trades equities, in lots of whole shares"
            )
        self.instrument = instrument
        self.lot, self.tick = lot, tick
        self.decimal_places = max(0, -int(tick.normalize().as_tuple().exponent))
        self.id = InstrumentId(Symbol(instrument.symbol), Venue(instrument.venue))
        self.currency = Currency.from_str(instrument.currency)
        self.equity = Equity(
            instrument_id=self.id,
            raw_symbol=Symbol(instrument.symbol),
            currency=self.currency,
            price_precision=self.decimal_places,
            price_increment=Price(float(tick * instrument.price_increment), self.decimal_places),
            lot_size=Quantity.from_int(int(lot)),
            ts_event=ts_ns,
            ts_init=ts_ns,
        )

    def quantity(self, lots: int) -> Any:
        """Convert lots to a `Quantity`."""
        return Quantity.from_int(int(lots * self.lot))

    def price(self, ticks: int) -> Any:
        """Convert ticks to a `Price`."""
        return Price.from_str(f"{ticks * self.tick:.{self.decimal_places}f}")

    def lots(self, quantity: Any) -> int:
        """Convert a `Quantity` to lots."""
        return int(Decimal(str(quantity)) / self.lot)

    def ticks(self, price: Any) -> int:
        """Convert a `Price` to ticks."""
        return int(Decimal(str(price)) / self.tick)

    def notional(self, avg_px: Any, lots: int) -> int:
        """Returns the notional of an average price (a float) over so many lots, rounded to the nearest whole number."""
        return round(float(avg_px) / float(self.tick) * lots) if lots and avg_px is not None else 0


class RecordMapper:
    """Converts the objects of one account to records."""

    def __init__(self, units: dict[str, NautilusUnits], account: str, link: str, days: list[Meta]) -> None:
        self.units, self.account, self.link = units, account, link
        days = sorted({meta.trade_date: meta for meta in days}.values(), key=lambda meta: meta.open_ns)
        self._begins = [meta.open_ns - 3_600_000_000_000 for meta in days]
        self._dates = [meta.trade_date for meta in days]
        self.done_for_day: set[str] = set()

    def trade_date_of(self, ts_ns: int) -> str:
        """Returns the trade date of a time: the last session that had begun."""
        number = bisect_right(self._begins, ts_ns) - 1
        if number >= 0:
            return self._dates[number]
        return datetime.fromtimestamp(ts_ns / 1e9, UTC).date().isoformat()

    def order_key(self, order: Any) -> str:
        """Returns the order's key: its ClientOrderId, or a deterministic name when NautilusTrader made up a
        random one.
        """
        name = str(order.client_order_id.value)
        owner = str(order.strategy_id.value)
        if owner in _EXTERNAL_OWNERS and len(name) == 2 + _UUID_LENGTH:
            side = "B" if order.side == OrderSide.BUY else "S"
            venue_id = order.venue_order_id.value if order.venue_order_id is not None else ""
            if owner == "EXTERNAL" and venue_id and len(venue_id) != _UUID_LENGTH:
                return f"EXTERNAL-{venue_id}"
            return f"{owner}-{order.ts_init}-{side}{order.quantity}"
        return name

    def to_order(self, order: Any) -> Order:
        """Returns an order as a record."""
        units = self.units[order.instrument_id.symbol.value]
        name, owner = self.order_key(order), str(order.strategy_id.value)
        status = STATUS[order.status]
        cum_qty = units.lots(order.filled_qty)
        is_open = status not in (OrdStatus.REJECTED, OrdStatus.FILLED, OrdStatus.CANCELED, OrdStatus.EXPIRED)
        if name in self.done_for_day and status in (OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED):
            status = OrdStatus.DONE_FOR_DAY
        event = order.last_event
        fill = event if isinstance(event, OrderFilled) else None
        return Order(
            root_cl_ord_id=name,
            cl_ord_id=name,
            order_id=order.venue_order_id.value if order.venue_order_id is not None else "",
            symbol=units.instrument.symbol,
            account=self.account,
            strategy="" if owner in _EXTERNAL_OWNERS else owner,
            foreign=owner in _EXTERNAL_OWNERS,
            side=SIDE[order.side],
            order_qty=units.lots(order.quantity),
            cum_qty=cum_qty,
            leaves_qty=units.lots(order.leaves_qty) if is_open else 0,
            notional=units.notional(order.avg_px, cum_qty),
            ord_status=status,
            ord_type=TYPE[order.order_type],
            time_in_force=TIF[order.time_in_force],
            price=units.ticks(order.price) if order.has_price else None,
            link=self.link,
            trade_date=self.trade_date_of(order.ts_init),
            reference_version=units.instrument.reference_version,
            exec_type=_EXEC_TYPE.get(type(event).__name__),
            exec_id=self.to_exec_id(order, fill) if fill is not None else f"{order.event_count}",
            transact_time_ns=order.ts_last,
        )

    def to_exec_id(self, order: Any, fill: Any) -> str:
        """Returns the ExecID of a fill: the venue's, or a deterministic one for an inferred fill."""
        name = str(fill.trade_id.value)
        if len(name) != _UUID_LENGTH:
            return name.partition("/")[2] or name
        return f"INFERRED-{self.order_key(order)}-{fill.ts_init}"

    def to_execution(self, order: Any, fill: Any) -> Execution:
        """Returns a fill as a record. TradeIds are `DATE/EXECID`, as the client creates them."""
        units = self.units[fill.instrument_id.symbol.value]
        quantity, price = units.lots(fill.last_qty), units.ticks(fill.last_px)
        trade_date, _, exec_id = str(fill.trade_id.value).partition("/")
        book_date = self.trade_date_of(fill.ts_init)
        side = SIDE[fill.order_side]
        owner = str(fill.strategy_id.value)
        cash = units.instrument.cash(quantity * price)
        return Execution(
            exec_id=self.to_exec_id(order, fill),
            exec_type=ExecType.TRADE,
            root_cl_ord_id=self.order_key(order),
            cl_ord_id=self.order_key(order),
            order_id=str(fill.venue_order_id.value),
            symbol=units.instrument.symbol,
            side=side,
            account=self.account,
            strategy="" if owner in _EXTERNAL_OWNERS else owner,
            foreign=owner in _EXTERNAL_OWNERS,
            venue=units.instrument.venue,
            currency=units.instrument.currency,
            trade_date=trade_date if exec_id else book_date,
            book_date=book_date,
            last_qty=quantity,
            last_px=price,
            qty_delta=quantity,
            notional_delta=quantity * price,
            cash_delta=-cash if side == Side.BUY else cash,
            transact_time_ns=fill.ts_event,
        )
