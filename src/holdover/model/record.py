"""Records: immutable statements about one thing, each with a `key`.

A record says what one subsystem believes. Two subsystems may hold a record of the same key; that they agree is
what much of the catalogue is about. A user adds kinds by subclassing `Record`.

`msgspec.Struct` rather than a dataclass: construction, comparison and encoding are C, and a trading process makes
tens of thousands of these a second. Records hold only scalars, so they need no garbage collection.
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import msgspec

from holdover.model.fix import (
    OPEN,
    PENDING,
    TRADES,
    ExecRestatementReason,
    ExecType,
    MsgType,
    OrdStatus,
    OrdType,
    PositionEffect,
    Side,
    TimeInForce,
)

_CARRIED = frozenset({TimeInForce.GTC, TimeInForce.GTD})


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The base of every kind of record. `key` names the thing; it must be a string that outlives restarts.

    A `durable` kind is one that a system must read back after a restart; what it does not bring back is missed. A
    `derived` kind is made anew at every start: what a restarted system does not make again is simply gone.
    `told_by` are the fields that say how a state was learnt and not what it is: two records that differ in these alone
    say the same. `passing` marks a kind that speaks of one connection, and that the next one begins anew.
    """

    durable: ClassVar[bool] = False
    derived: ClassVar[bool] = False
    passing: ClassVar[bool] = False
    told_by: ClassVar[frozenset[str]] = frozenset()

    @property
    def key(self) -> str:
        """What the record is about. Raises `NotImplementedError` on a kind that does not say."""
        raise NotImplementedError(f"{type(self).__name__} has no key: define the property `key`")


class Order(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True, repr_omit_defaults=True):
    """An order as one subsystem holds it.

    `root_cl_ord_id` is the ClOrdID with which the replace chain began: it stays while `cl_ord_id` moves along, so it
    is the key. `exec_type`, `exec_id`, `exec_ref_id` and `exec_restatement_reason` are those of the last report
    applied; they say what allowed a quantity to fall. `notional` is the sum of LastQty x LastPx (lots x ticks).
    `trade_date` is the session in which the order was entered, `cl_ord_link_id` its parent order.
    """

    durable: ClassVar[bool] = True
    told_by: ClassVar[frozenset[str]] = frozenset(
        {"exec_type", "exec_id", "exec_ref_id", "exec_restatement_reason", "transact_time_ns"}
    )

    root_cl_ord_id: str
    cl_ord_id: str
    symbol: str
    side: Side
    order_qty: int
    leaves_qty: int
    cum_qty: int = 0
    notional: int = 0
    ord_status: OrdStatus = OrdStatus.PENDING_NEW
    account: str = ""
    strategy: str = ""
    ord_type: OrdType = OrdType.LIMIT
    time_in_force: TimeInForce = TimeInForce.DAY
    price: int | None = None
    stop_px: int | None = None
    orig_cl_ord_id: str = ""
    order_id: str = ""
    cl_ord_link_id: str = ""
    position_effect: PositionEffect = PositionEffect.OPEN
    link: str = ""
    trade_date: str = ""
    expire_date: str = ""
    exec_type: ExecType | None = None
    exec_id: str = ""
    exec_ref_id: str = ""
    exec_restatement_reason: ExecRestatementReason | None = None
    foreign: bool = False
    reference_version: str = ""
    transact_time_ns: int = 0

    @property
    def key(self) -> str:
        """The ClOrdID with which the chain began."""
        return self.root_cl_ord_id

    @property
    def is_open(self) -> bool:
        """Whether it may still fill: done-for-day is open when the order is carried (GTC, GTD) and closed when not."""
        status = self.ord_status
        return status in OPEN or (status == OrdStatus.DONE_FOR_DAY and self.time_in_force in _CARRIED)

    @property
    def is_pending(self) -> bool:
        """Whether a request of ours waits for the venue's answer."""
        return self.ord_status in PENDING

    @property
    def unacknowledged(self) -> int:
        """1 while the venue has not said what became of the new order, else 0: summed, it counts them."""
        return int(self.ord_status == OrdStatus.PENDING_NEW)

    @property
    def is_carried(self) -> bool:
        """Whether its time in force takes it over the night."""
        return self.time_in_force in _CARRIED

    @property
    def book_key(self) -> str:
        """Account and instrument: the key of the position that this order moves."""
        return f"{self.account}/{self.symbol}"

    @property
    def working_qty(self) -> int:
        """LeavesQty while it may still fill, else nothing."""
        return self.leaves_qty if self.is_open else 0

    @property
    def taken_qty(self) -> int:
        """What it has filled and could still fill: its claim on a parent's quantity."""
        return self.cum_qty + (self.leaves_qty if self.is_open else 0)

    @property
    def open_buy_qty(self) -> int:
        """What it could still add to a position."""
        return self.leaves_qty if self.side == Side.BUY and self.is_open else 0

    @property
    def open_sell_qty(self) -> int:
        """What it could still take from a position."""
        return self.leaves_qty if self.side != Side.BUY and self.is_open else 0

    @property
    def closing_qty(self) -> int:
        """What it reserves of the position that it reduces."""
        return self.leaves_qty if self.position_effect == PositionEffect.CLOSE and self.is_open else 0

    @property
    def closing_kept_qty(self) -> int:
        """The same without orders whose cancel is on its way: what we still mean to have working."""
        return 0 if self.ord_status == OrdStatus.PENDING_CANCEL else self.closing_qty

    @property
    def avg_px(self) -> Fraction | None:
        """AvgPx in ticks, exact; None while nothing is filled."""
        return Fraction(self.notional, self.cum_qty) if self.cum_qty else None

    def __repr__(self) -> str:
        return (
            f"<Order {self.cl_ord_id} {self.ord_status.name} {self.cum_qty}/{self.order_qty} leaves {self.leaves_qty}>"
        )


class Execution(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An execution report as it was booked: one fact, never changed afterwards.

    `qty_delta` and `notional_delta` say what booking it adds to the order's CumQty and notional: LastQty for a trade,
    minus the original for a trade cancel (bust), new minus old for a trade correct, the added lots for a split
    restatement. Sums over executions are therefore sums of facts, and a bust needs no record to be rewritten.
    `cash_delta` and `fee` are in `CASH_UNIT`s of `currency`. `book_date` is the session in which it was booked, where
    that is not its trade date: a fill of yesterday that is learnt of today moves today's position.
    """

    durable: ClassVar[bool] = True

    exec_id: str
    exec_type: ExecType
    root_cl_ord_id: str
    symbol: str
    side: Side
    trade_date: str
    account: str = ""
    strategy: str = ""
    venue: str = ""
    currency: str = ""
    cl_ord_id: str = ""
    order_id: str = ""
    exec_ref_id: str = ""
    exec_ref_date: str = ""
    last_qty: int = 0
    last_px: int = 0
    qty_delta: int = 0
    notional_delta: int = 0
    cash_delta: int = 0
    fee: int = 0
    book_date: str = ""
    foreign: bool = False
    transact_time_ns: int = 0

    @property
    def key(self) -> str:
        """Venue, trade date and ExecID: ExecIDs may start again the next day."""
        return f"{self.venue}/{self.trade_date}/{self.exec_id}"

    @property
    def ref_key(self) -> str:
        """The key of the execution that this one busts or corrects."""
        return f"{self.venue}/{self.exec_ref_date or self.trade_date}/{self.exec_ref_id}" if self.exec_ref_id else ""

    @property
    def signed_qty(self) -> int:
        """What booking it adds to the net position, in lots: positive when bought."""
        if self.exec_type not in TRADES:
            return 0
        return self.qty_delta if self.side == Side.BUY else -self.qty_delta

    @property
    def book_key(self) -> str:
        """Account and instrument."""
        return f"{self.account}/{self.symbol}"

    @property
    def day_key(self) -> str:
        """Account, instrument and the session in which it was booked."""
        return f"{self.account}/{self.symbol}/{self.book_date or self.trade_date}"

    @property
    def cash_key(self) -> str:
        """Account, currency and the session in which it was booked."""
        return f"{self.account}/{self.currency}/{self.book_date or self.trade_date}"

    @property
    def booked_on(self) -> str:
        """The session in which it was booked."""
        return self.book_date or self.trade_date

    @property
    def balance_key(self) -> str:
        """Account and currency: the key of the balance that it moves."""
        return f"{self.account}/{self.currency}"

    def __repr__(self) -> str:
        return (
            f"<Execution {self.exec_id} {self.exec_type.name} {self.cl_ord_id or self.root_cl_ord_id} "
            f"{self.last_qty}@{self.last_px} {self.trade_date}>"
        )


class Position(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A net position in lots, positive when long.

    `carried_qty` is what came into the session `trade_date`; `reserved_qty` is what working orders that close the
    position have claimed of it.
    """

    durable: ClassVar[bool] = True

    account: str
    symbol: str
    net_qty: int
    carried_qty: int = 0
    reserved_qty: int = 0
    trade_date: str = ""
    reference_version: str = ""

    @property
    def key(self) -> str:
        """Account and instrument."""
        return f"{self.account}/{self.symbol}"

    @property
    def day_key(self) -> str:
        """Account, instrument and trade date."""
        return f"{self.account}/{self.symbol}/{self.trade_date}"

    def __repr__(self) -> str:
        held = f"{self.net_qty:+d} carried {self.carried_qty:+d}"
        return f"<Position {self.account} {self.symbol} {held} {self.trade_date}>"


class Balance(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An account's cash in one currency, in `CASH_UNIT`s: carried in, moved by trades, fees and transfers."""

    durable: ClassVar[bool] = True

    account: str
    currency: str
    cash: int
    carried_cash: int = 0
    fees: int = 0
    transfers: int = 0
    trade_date: str = ""

    @property
    def key(self) -> str:
        """Account and currency."""
        return f"{self.account}/{self.currency}"

    @property
    def cash_key(self) -> str:
        """Account, currency and trade date."""
        return f"{self.account}/{self.currency}/{self.trade_date}"

    def __repr__(self) -> str:
        return f"<Balance {self.account} {self.currency} {self.cash} carried {self.carried_cash} {self.trade_date}>"


class Exposure(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What risk believes: the net position and what the open orders could still add to it, in lots."""

    derived: ClassVar[bool] = True

    account: str
    symbol: str
    net_qty: int
    open_buy_qty: int = 0
    open_sell_qty: int = 0

    @property
    def key(self) -> str:
        """Account and instrument."""
        return f"{self.account}/{self.symbol}"

    def __repr__(self) -> str:
        working = f"open +{self.open_buy_qty} -{self.open_sell_qty}"
        return f"<Exposure {self.account} {self.symbol} {self.net_qty:+d} {working}>"


class Limit(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The configured limits of an account in an instrument, in lots: what may be held, one order, all open orders."""

    account: str
    symbol: str
    position_max: int
    order_qty_max: int
    open_qty_max: int

    @property
    def key(self) -> str:
        """Account and instrument."""
        return f"{self.account}/{self.symbol}"

    def __repr__(self) -> str:
        return f"<Limit {self.account} {self.symbol} position {self.position_max} order {self.order_qty_max}>"


class ParentOrder(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An order worked in slices, possibly over days: filled and working are sums over its children."""

    durable: ClassVar[bool] = True

    parent_id: str
    symbol: str
    side: Side
    order_qty: int
    filled_qty: int = 0
    working_qty: int = 0
    account: str = ""
    strategy: str = ""
    algorithm: str = ""
    trade_date: str = ""
    done: bool = False

    @property
    def key(self) -> str:
        """The parent's id."""
        return self.parent_id

    def __repr__(self) -> str:
        return f"<ParentOrder {self.parent_id} {self.filled_qty}/{self.order_qty} working {self.working_qty}>"


class LinkState:
    """Why a link's sequence number moved as it did: the values of `Link.change`."""

    LOGON = "logon"
    LOGOUT = "logout"
    MESSAGE = "message"
    GAP_FILL = "gap-fill"
    RESET = "reset"


class Link(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A connection to the venue: up or down, its epoch (how often it came up) and the last sequence numbers."""

    passing: ClassVar[bool] = True

    name: str
    up: bool
    epoch: int = 0
    in_seq: int = 0
    out_seq: int = 0
    change: str = LinkState.MESSAGE

    @property
    def key(self) -> str:
        """The link's name."""
        return self.name

    def __repr__(self) -> str:
        state = "UP" if self.up else "DOWN"
        return f"<Link {self.name} {state} epoch {self.epoch} in {self.in_seq} out {self.out_seq}>"


class Reconciliation(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """How far the reconciliation of a link has come: done for the link's epoch or still asking."""

    passing: ClassVar[bool] = True

    link: str
    epoch: int
    done: bool
    adopted: int = 0

    @property
    def key(self) -> str:
        """The link's name."""
        return self.link

    def __repr__(self) -> str:
        return f"<Reconciliation {self.link} epoch {self.epoch} {'DONE' if self.done else 'PENDING'}>"


class TradingSession(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The trading session a system believes it is in."""

    trade_date: str
    phase: str

    @property
    def key(self) -> str:
        """There is one."""
        return "session"

    def __repr__(self) -> str:
        return f"<TradingSession {self.trade_date} {self.phase}>"


class Book(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Whether the venue takes orders in an instrument: open, halted or disabled; and its reference data's version."""

    symbol: str
    trading: bool
    reason: str = ""
    reference_version: str = ""

    @property
    def key(self) -> str:
        """The symbol."""
        return self.symbol

    def __repr__(self) -> str:
        return f"<Book {self.symbol} {'TRADING' if self.trading else 'NOT TRADING ' + self.reason}>"


__all__ = [
    "Balance",
    "Book",
    "Execution",
    "Exposure",
    "Limit",
    "Link",
    "LinkState",
    "MsgType",
    "Order",
    "ParentOrder",
    "Position",
    "Reconciliation",
    "Record",
    "TradingSession",
]
