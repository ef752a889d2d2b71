"""Records: immutable statements about one thing, each with a `key`.

A record states what one subsystem believes. Two subsystems may hold a record of the same key; much of the
catalogue checks that the two agree. Users add kinds by subclassing `Record`.

Records are `msgspec.Struct`s, not dataclasses: construction, comparison and encoding run in C, and a trading
process makes tens of thousands of records a second. Records hold only scalars, so they need no garbage
collection.
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import msgspec

from holdover.model.fix import (
    OPEN,
    PENDING,
    TRADES,
    AdjustmentReason,
    CashReason,
    ContingencyType,
    ExecRestatementReason,
    ExecType,
    MsgType,
    OrderOrigin,
    OrdStatus,
    OrdType,
    PositionEffect,
    PositionSide,
    Side,
    TimeInForce,
    status_from_quantities,
)

_CARRIED = frozenset({TimeInForce.GTC, TimeInForce.GTD})
_STOPS = frozenset({OrdType.STOP, OrdType.STOP_LIMIT})
_ALTERNATIVES = frozenset(
    {
        ContingencyType.ONE_CANCELS_THE_OTHER,
        ContingencyType.ONE_UPDATES_THE_OTHER_ABSOLUTE,
        ContingencyType.ONE_UPDATES_THE_OTHER_PROPORTIONAL,
    }
)
"""The contingencies in which the fill of one order takes the same quantity from the others."""


def alternatives_key(contingency_type: ContingencyType | None, list_id: str, cl_ord_link_id: str) -> str:
    """Return the key of the orders of which only one can fill in full; empty for an order without alternatives."""
    return (list_id or cl_ord_link_id) if contingency_type in _ALTERNATIVES else ""


def position_key(account: str, symbol: str, leg: str) -> str:
    """Return the key of a position: account and instrument, and the leg when the venue keeps several."""
    return f"{account}/{symbol}/{leg}" if leg else f"{account}/{symbol}"


class ImpossibleStateError(RuntimeError):
    """A state that the code's author has excluded. The message says what it is; the program has a defect."""


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The base of every kind of record. `key` names the subject; it is a string that survives restarts.

    A system must read back a `durable` kind after a restart; the guard reports what does not come back. A system
    computes a `derived` kind again at every start, so its absence after a restart is no loss. `provenance_fields`
    are the fields that state how the system learnt a state; two records that differ only in these fields are
    equivalent. `alternatives_field` is the field without which a record has no alternatives. `per_connection` marks a
    kind that describes one connection and restarts with the next.
    """

    durable: ClassVar[bool] = False
    derived: ClassVar[bool] = False
    per_connection: ClassVar[bool] = False
    provenance_fields: ClassVar[frozenset[str]] = frozenset()
    alternatives_field: ClassVar[str] = ""

    @property
    def key(self) -> str:
        """The subject of the record. Raises `NotImplementedError` on a kind that does not define it."""
        raise NotImplementedError(f"{type(self).__name__} has no key: define the property `key`")


class Order(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True, repr_omit_defaults=True):
    """An order as one subsystem holds it.

    `root_cl_ord_id` is the first ClOrdID of the replace chain. It stays while `cl_ord_id` changes, so it is the
    key. `exec_type`, `exec_id`, `exec_ref_id` and `exec_restatement_reason` come from the last report applied;
    they show what allowed a quantity to fall. `notional` is the sum of LastQty x LastPx (lots x ticks).
    `trade_date` is the session of the order's entry; `cl_ord_link_id` is its parent order, and for contingent orders
    without a ListID their common ClOrdLinkID (583).

    Contingent orders (brackets, OCO, OTO) share `list_id` (ListID 66) and state their `contingency_type`
    (ContingencyType 1385). `position_side` or `position_id` names the leg in hedge mode. `origin` says who made a
    `foreign` order. `intent_id` names the `Intent` that the order works for.
    """

    durable: ClassVar[bool] = True
    alternatives_field: ClassVar[str] = "contingency_type"
    provenance_fields: ClassVar[frozenset[str]] = frozenset(
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
    position_side: PositionSide | None = None
    position_id: str = ""
    list_id: str = ""
    contingency_type: ContingencyType | None = None
    origin: OrderOrigin | None = None
    intent_id: str = ""

    @property
    def key(self) -> str:
        """The first ClOrdID of the replace chain."""
        return self.root_cl_ord_id

    @property
    def leg(self) -> str:
        """The leg of the position that the order moves; empty for a net position."""
        return self.position_id or self.position_side or ""

    @property
    def request_key(self) -> str:
        """The key of the request that made this version of the order."""
        return f"{self.account}/{self.cl_ord_id}"

    @property
    def root_request_key(self) -> str:
        """The key of the request for the new order."""
        return f"{self.account}/{self.root_cl_ord_id}"

    @property
    def is_rejected(self) -> bool:
        """Whether the venue refused the order."""
        return self.ord_status == OrdStatus.REJECTED

    @property
    def alternatives_key(self) -> str:
        """The key of the orders of which only one can fill in full; empty for an order without alternatives."""
        return alternatives_key(self.contingency_type, self.list_id, self.cl_ord_link_id)

    @property
    def is_open(self) -> bool:
        """Whether the order may still fill. A done-for-day order is open only if it is carried (GTC, GTD)."""
        status = self.ord_status
        return status in OPEN or (status == OrdStatus.DONE_FOR_DAY and self.time_in_force in _CARRIED)

    @property
    def is_pending(self) -> bool:
        """Whether a request for the order waits for the venue's answer."""
        return self.ord_status in PENDING

    @property
    def status_by_quantities(self) -> OrdStatus:
        """The status that the quantities imply while the order is neither closed nor pending."""
        return status_from_quantities(self.cum_qty, self.order_qty)

    @property
    def unacknowledged(self) -> int:
        """1 while the venue has not acknowledged the new order, else 0. A sum over orders counts them."""
        return int(self.ord_status == OrdStatus.PENDING_NEW)

    @property
    def is_carried(self) -> bool:
        """Whether the time in force carries the order overnight (GTC, GTD)."""
        return self.time_in_force in _CARRIED

    @property
    def book_key(self) -> str:
        """Account, instrument and leg: the key of the position that this order moves."""
        return position_key(self.account, self.symbol, self.position_id or self.position_side or "")

    @property
    def working_qty(self) -> int:
        """LeavesQty while the order may still fill, else 0."""
        return self.leaves_qty if self.is_open else 0

    @property
    def claimed_qty(self) -> int:
        """The quantity that the order has filled or may still fill: its claim on the parent's quantity."""
        return self.cum_qty + (self.leaves_qty if self.is_open else 0)

    @property
    def open_buy_qty(self) -> int:
        """The quantity that the order may still add to a position."""
        return self.leaves_qty if self.side == Side.BUY and self.is_open else 0

    @property
    def open_sell_qty(self) -> int:
        """The quantity that the order may still take from a position."""
        return self.leaves_qty if self.side != Side.BUY and self.is_open else 0

    @property
    def closing_qty(self) -> int:
        """The quantity that the order reserves of the position that it reduces."""
        return self.leaves_qty if self.position_effect == PositionEffect.CLOSE and self.is_open else 0

    @property
    def alternatives_filled_qty(self) -> int:
        """CumQty of an order with alternatives, else 0: summed, it shows two alternatives that both filled."""
        return self.cum_qty if self.alternatives_key else 0

    @property
    def filled_alternative_count(self) -> int:
        """1 for an order with alternatives that is filled whole, else 0. A sum counts those of a group."""
        return int(self.ord_status == OrdStatus.FILLED and self.alternatives_key != "")

    @property
    def alternatives_working_qty(self) -> int:
        """LeavesQty of an open order with alternatives, without a pending cancel; else 0."""
        is_counted = self.is_open and self.ord_status != OrdStatus.PENDING_CANCEL and self.alternatives_key != ""
        return self.leaves_qty if is_counted else 0

    @property
    def triggering_qty(self) -> int:
        """The signed quantity that a primary order (OTO) has not filled, in lots; 0 for any other order.

        Secondary orders may stand for it, until the venue has cancelled them after the end of the primary order.
        """
        if self.contingency_type != ContingencyType.ONE_TRIGGERS_THE_OTHER:
            return 0
        unfilled_qty = self.order_qty - self.cum_qty
        return unfilled_qty if self.side == Side.BUY else -unfilled_qty

    @property
    def closing_alone_qty(self) -> int:
        """`closing_uncancelled_qty` of an order that depends on no other one, else 0."""
        return self.closing_uncancelled_qty if self.contingency_type is None else 0

    @property
    def closing_claimed_qty(self) -> int:
        """The quantity of a position that a closing order takes, or has taken as one of several alternatives.

        Of alternatives only the largest amount counts; what they have filled is subtracted once for the group, see
        `closing_filled_qty`. So a fill counts before the venue has reported what it takes from the other orders.
        """
        return self.closing_uncancelled_qty + self.closing_filled_qty

    @property
    def closing_filled_qty(self) -> int:
        """CumQty of a closing order with alternatives, else 0."""
        is_counted = self.position_effect == PositionEffect.CLOSE and self.alternatives_key != ""
        return self.cum_qty if is_counted else 0

    @property
    def stop_buy_qty(self) -> int:
        """LeavesQty of a working stop order that buys, else 0: what protects a short position."""
        return max(self.protecting_qty, 0)

    @property
    def stop_sell_qty(self) -> int:
        """LeavesQty of a working stop order that sells, else 0: what protects a long position."""
        return max(-self.protecting_qty, 0)

    @property
    def protecting_qty(self) -> int:
        """The signed quantity that a working stop order takes from or adds to a position, in lots."""
        if self.ord_type not in _STOPS or not self.is_open:
            return 0
        return self.leaves_qty if self.side == Side.BUY else -self.leaves_qty

    @property
    def closing_uncancelled_qty(self) -> int:
        """`closing_qty`, or 0 while a cancel of the order is pending."""
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
    """An execution report as the system booked it: one fact that never changes.

    `qty_delta` and `notional_delta` are what the execution adds to the order's CumQty and notional: LastQty for a
    trade, minus the original for a trade cancel (bust), new minus old for a trade correct, the added lots for a
    split restatement. Sums over executions are sums of facts, and a bust rewrites no record. `cash_delta` and
    `fee` are in `CASH_UNIT`s of `currency`. `book_date` is the session that booked the execution, if that is not
    its trade date: a fill of yesterday that arrives today moves today's position.
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
    position_side: PositionSide | None = None
    position_id: str = ""

    @property
    def leg(self) -> str:
        """The leg of the position that the execution moves; empty for a net position."""
        return self.position_id or self.position_side or ""

    @property
    def request_key(self) -> str:
        """The key of the request whose order this execution fills; empty when the ClOrdID is not known."""
        return f"{self.account}/{self.cl_ord_id}" if self.cl_ord_id else ""

    @property
    def signed_notional(self) -> int:
        """The notional that the execution adds to the net position: positive for a buy (lots x ticks)."""
        if self.exec_type not in TRADES:
            return 0
        return self.notional_delta if self.side == Side.BUY else -self.notional_delta

    @property
    def key(self) -> str:
        """Venue, trade date and ExecID; a venue may reuse an ExecID on another day."""
        return f"{self.venue}/{self.trade_date}/{self.exec_id}"

    @property
    def ref_key(self) -> str:
        """The key of the execution that this one busts or corrects; empty if there is none."""
        return f"{self.venue}/{self.exec_ref_date or self.trade_date}/{self.exec_ref_id}" if self.exec_ref_id else ""

    @property
    def signed_qty(self) -> int:
        """The change of the net position, in lots: positive for a buy."""
        if self.exec_type not in TRADES:
            return 0
        return self.qty_delta if self.side == Side.BUY else -self.qty_delta

    @property
    def book_key(self) -> str:
        """Account, instrument and leg."""
        return position_key(self.account, self.symbol, self.position_id or self.position_side or "")

    @property
    def day_key(self) -> str:
        """Account, instrument, leg and booking session."""
        return f"{self.book_key}/{self.book_date or self.trade_date}"

    @property
    def cash_key(self) -> str:
        """Account, currency and booking session."""
        return f"{self.account}/{self.currency}/{self.book_date or self.trade_date}"

    @property
    def booked_on(self) -> str:
        """The session that booked the execution."""
        return self.book_date or self.trade_date

    @property
    def balance_key(self) -> str:
        """Account and currency: the key of the balance that the execution moves."""
        return f"{self.account}/{self.currency}"

    def __repr__(self) -> str:
        return (
            f"<Execution {self.exec_id} {self.exec_type.name} {self.cl_ord_id or self.root_cl_ord_id} "
            f"{self.last_qty}@{self.last_px} {self.trade_date}>"
        )


class Position(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A net position in lots, positive when long.

    `carried_qty` is the quantity at the start of the session `trade_date`; `reserved_qty` is the quantity that
    working closing orders reserve. In hedge mode `position_side` or `position_id` names the leg, which is part of the
    key: the long and the short leg of one instrument are two positions, the short one with a negative quantity.
    """

    durable: ClassVar[bool] = True

    account: str
    symbol: str
    net_qty: int
    carried_qty: int = 0
    reserved_qty: int = 0
    trade_date: str = ""
    reference_version: str = ""
    position_side: PositionSide | None = None
    position_id: str = ""

    @property
    def leg(self) -> str:
        """The leg in hedge mode; empty for a net position."""
        return self.position_id or self.position_side or ""

    @property
    def key(self) -> str:
        """Account, instrument and leg."""
        return position_key(self.account, self.symbol, self.position_id or self.position_side or "")

    @property
    def day_key(self) -> str:
        """Account, instrument, leg and trade date."""
        return f"{self.key}/{self.trade_date}"

    def __repr__(self) -> str:
        quantities = f"{self.net_qty:+d} carried {self.carried_qty:+d}"
        leg = f" {self.leg}" if self.leg else ""
        return f"<Position {self.account} {self.symbol}{leg} {quantities} {self.trade_date}>"


class PositionAdjustment(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A change of a position that is no trade: one fact that never changes, in lots, positive when the position grows.

    Examples are a fee taken in the coin bought, a transfer, a deposit into a pool, an expiry, an exercise, a ticker
    change, a merger, a spin-off or a split. `trade_date` is the session in which it was booked: a system that learns
    today of an adjustment of yesterday books it today. `exec_id` names the execution that a fee was charged for.
    Source: FIX 5.0 SP2, PositionMaintenanceReport (AM).
    """

    durable: ClassVar[bool] = True

    adjustment_id: str
    reason: AdjustmentReason
    account: str
    symbol: str
    qty_delta: int
    trade_date: str = ""
    position_side: PositionSide | None = None
    position_id: str = ""
    exec_id: str = ""
    text: str = ""
    transact_time_ns: int = 0

    @property
    def key(self) -> str:
        """Account and the adjustment's id."""
        return f"{self.account}/{self.adjustment_id}"

    @property
    def book_key(self) -> str:
        """The key of the position that it moves."""
        return position_key(self.account, self.symbol, self.position_id or self.position_side or "")

    @property
    def day_key(self) -> str:
        """Account, instrument, leg and trade date."""
        return f"{self.book_key}/{self.trade_date}"

    def __repr__(self) -> str:
        return f"<PositionAdjustment {self.adjustment_id} {self.reason.value} {self.qty_delta:+d} {self.symbol}>"


class RealizedPnl(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The realized profit and loss of one position, and what its open quantity cost; all as notional (lots x ticks).

    `open_cost` has the sign of the position and is 0 when it is flat. `carried_realized` and `carried_cost` are the
    values at the start of the session `trade_date`. Whatever the method (average cost, FIFO), the sum is conserved:
    `realized - carried_realized = (open_cost - carried_cost) - (bought - sold)` over the session's executions. A
    `PositionAdjustment` moves lots at no cost.
    """

    durable: ClassVar[bool] = True

    account: str
    symbol: str
    realized: int
    open_cost: int
    carried_realized: int = 0
    carried_cost: int = 0
    trade_date: str = ""
    position_side: PositionSide | None = None
    position_id: str = ""

    @property
    def key(self) -> str:
        """Account, instrument and leg: the key of the position."""
        return position_key(self.account, self.symbol, self.position_id or self.position_side or "")

    @property
    def day_key(self) -> str:
        """Account, instrument, leg and trade date."""
        return f"{self.key}/{self.trade_date}"

    def __repr__(self) -> str:
        return f"<RealizedPnl {self.key} {self.realized:+d} cost {self.open_cost:+d} {self.trade_date}>"


class Balance(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An account's cash in one currency, in `CASH_UNIT`s: carried in, then changed by trades, fees and transfers.

    `transfers` is the sum of all movements that are no trade, positive when cash comes in: funding, dividends,
    interest, fees that no execution states, deposits. A `CashMovement` records each of them. `link` names the link to
    the venue of the account: while it is down, or a reconciliation is in progress, the venue may know more.
    """

    durable: ClassVar[bool] = True

    account: str
    currency: str
    cash: int
    carried_cash: int = 0
    fees: int = 0
    transfers: int = 0
    trade_date: str = ""
    link: str = ""

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


class CashMovement(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A movement of cash that is no trade: one fact that never changes, in `CASH_UNIT`s, positive when it comes in.

    `trade_date` is the session in which it was booked: a system that learns today of a movement of yesterday books it
    today.
    """

    durable: ClassVar[bool] = True

    movement_id: str
    reason: CashReason
    account: str
    currency: str
    amount: int
    trade_date: str = ""
    symbol: str = ""
    text: str = ""
    transact_time_ns: int = 0

    @property
    def key(self) -> str:
        """Account and the movement's id."""
        return f"{self.account}/{self.movement_id}"

    @property
    def balance_key(self) -> str:
        """Account and currency: the key of the balance that it moves."""
        return f"{self.account}/{self.currency}"

    @property
    def cash_key(self) -> str:
        """Account, currency and trade date."""
        return f"{self.account}/{self.currency}/{self.trade_date}"

    def __repr__(self) -> str:
        return f"<CashMovement {self.movement_id} {self.reason.value} {self.amount:+d} {self.currency}>"


class Margin(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An account's margin in one currency, in `CASH_UNIT`s.

    `equity` is cash and unrealized profit, `used` the initial margin of positions and orders, `maintenance` the equity
    below which the venue liquidates. `leverage` is notional divided by equity, rounded up, and `leverage_max` what the
    account may use; 0 means not stated.
    """

    account: str
    currency: str
    equity: int
    used: int = 0
    maintenance: int = 0
    leverage: int = 0
    leverage_max: int = 0

    @property
    def key(self) -> str:
        """Account and currency."""
        return f"{self.account}/{self.currency}"

    def __repr__(self) -> str:
        return f"<Margin {self.account} {self.currency} equity {self.equity} maintenance {self.maintenance}>"


class Exposure(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Risk's view of a position: the net position and what the open orders may still add to it, in lots.

    `position_side` or `position_id` names the leg in hedge mode.
    """

    derived: ClassVar[bool] = True

    account: str
    symbol: str
    net_qty: int
    open_buy_qty: int = 0
    open_sell_qty: int = 0
    position_side: PositionSide | None = None
    position_id: str = ""

    @property
    def key(self) -> str:
        """Account, instrument and leg."""
        return position_key(self.account, self.symbol, self.position_id or self.position_side or "")

    @property
    def limit_key(self) -> str:
        """Account and instrument: the key of the limits."""
        return f"{self.account}/{self.symbol}"

    def __repr__(self) -> str:
        working = f"open +{self.open_buy_qty} -{self.open_sell_qty}"
        return f"<Exposure {self.account} {self.symbol} {self.net_qty:+d} {working}>"


class Limit(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The configured limits of an account in an instrument, in lots: position, one order, all open orders."""

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


class Protection(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The rule that a position must have working stop orders of its whole size. Without the record there is no rule.

    `link` names the link over which the stop orders are sent; the time to send them does not run while it is down.
    """

    account: str
    symbol: str
    is_required: bool = True
    link: str = ""
    position_side: PositionSide | None = None
    position_id: str = ""

    @property
    def key(self) -> str:
        """Account, instrument and leg: the key of the position."""
        return position_key(self.account, self.symbol, self.position_id or self.position_side or "")

    def __repr__(self) -> str:
        return f"<Protection {self.key} {'required' if self.is_required else 'not required'}>"


class Intent(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What a strategy means to trade: a quantity in lots, for a day or until it is done, across restarts and reprices.

    A system records it in `orders` or in a subsystem of its own. Orders name it in `Order.intent_id`. While
    `is_working`, its orders claim the whole quantity: what they have filled and what they may still fill; or a
    `ParentOrder` of the same id has this quantity. An intent that is not working any more may have traded less, never
    more.
    """

    durable: ClassVar[bool] = True

    intent_id: str
    strategy: str
    symbol: str
    side: Side
    target_qty: int
    account: str = ""
    trade_date: str = ""
    is_working: bool = True

    @property
    def key(self) -> str:
        """The intent's id."""
        return self.intent_id

    def __repr__(self) -> str:
        state = "working" if self.is_working else "ended"
        return f"<Intent {self.intent_id} {self.side.name} {self.target_qty} {self.symbol} {state}>"


class ParentOrder(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An order worked in slices, possibly over days. Filled and working quantities are sums over its children."""

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
    is_complete: bool = False

    @property
    def key(self) -> str:
        """The parent's id."""
        return self.parent_id

    def __repr__(self) -> str:
        return f"<ParentOrder {self.parent_id} {self.filled_qty}/{self.order_qty} working {self.working_qty}>"


class LinkState:
    """The values of `Link.change`: why a link's sequence number moved."""

    LOGON = "logon"
    LOGOUT = "logout"
    MESSAGE = "message"
    GAP_FILL = "gap-fill"
    RESET = "reset"


class Link(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A connection to the venue: whether it is up, its epoch (how often it came up) and the last sequence numbers."""

    per_connection: ClassVar[bool] = True

    name: str
    is_up: bool
    epoch: int = 0
    in_seq: int = 0
    out_seq: int = 0
    change: str = LinkState.MESSAGE

    @property
    def key(self) -> str:
        """The link's name."""
        return self.name

    def __repr__(self) -> str:
        state = "UP" if self.is_up else "DOWN"
        return f"<Link {self.name} {state} epoch {self.epoch} in {self.in_seq} out {self.out_seq}>"


class Reconciliation(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The progress of a link's reconciliation: complete for the link's epoch, or still in progress."""

    per_connection: ClassVar[bool] = True

    link: str
    epoch: int
    is_complete: bool
    adopted: int = 0

    @property
    def key(self) -> str:
        """The link's name."""
        return self.link

    def __repr__(self) -> str:
        return f"<Reconciliation {self.link} epoch {self.epoch} {'DONE' if self.is_complete else 'PENDING'}>"


class ReconciliationEffort(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """How long a link was up without a complete reconciliation, in ns, and how often it was tried since the last one.

    The guard records it about a link when the link or its reconciliation changes.
    """

    per_connection: ClassVar[bool] = True

    link: str
    attempts: int
    unreconciled_ns: int

    @property
    def key(self) -> str:
        """The link's name."""
        return self.link

    def __repr__(self) -> str:
        return f"<ReconciliationEffort {self.link} attempts {self.attempts} for {self.unreconciled_ns} ns>"


class TradingSession(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The trading session that a system believes it is in."""

    trade_date: str
    phase: str

    @property
    def key(self) -> str:
        """Always `session`: there is one."""
        return "session"

    def __repr__(self) -> str:
        return f"<TradingSession {self.trade_date} {self.phase}>"


class Book(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Whether the venue takes orders in an instrument (open, halted or disabled), and the version of its reference
    data. `transact_time_ns` is the time of the statement, if it is not the time at which it arrived.
    """

    symbol: str
    trading: bool
    reason: str = ""
    reference_version: str = ""
    transact_time_ns: int = 0

    @property
    def key(self) -> str:
        """The symbol."""
        return self.symbol

    def __repr__(self) -> str:
        return f"<Book {self.symbol} {'TRADING' if self.trading else 'NOT TRADING ' + self.reason}>"


__all__ = [
    "Balance",
    "Book",
    "CashMovement",
    "Execution",
    "Exposure",
    "Intent",
    "Limit",
    "Link",
    "LinkState",
    "Margin",
    "MsgType",
    "Order",
    "ParentOrder",
    "Position",
    "PositionAdjustment",
    "Protection",
    "RealizedPnl",
    "Reconciliation",
    "ReconciliationEffort",
    "Record",
    "TradingSession",
]
