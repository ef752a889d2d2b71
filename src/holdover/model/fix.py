"""FIX enumerations with their wire codes.

Source: FIX 4.4 with errata 20030618, volume 6 (field definitions); FIX 5.0 SP2 keeps the same codes. Each
member is a `str` equal to its wire code, so a code read off the wire compares and hashes like the member.
"""

from __future__ import annotations

from enum import StrEnum


class MsgType(StrEnum):
    """MsgType (35): the application messages that Holdover uses."""

    NEW_ORDER_SINGLE = "D"
    ORDER_CANCEL_REQUEST = "F"
    ORDER_CANCEL_REPLACE_REQUEST = "G"
    ORDER_STATUS_REQUEST = "H"
    ORDER_MASS_STATUS_REQUEST = "AF"
    REQUEST_FOR_POSITIONS = "AN"
    TRADE_CAPTURE_REPORT_REQUEST = "AD"
    EXECUTION_REPORT = "8"
    ORDER_CANCEL_REJECT = "9"
    POSITION_REPORT = "AP"
    SECURITY_STATUS = "f"
    COLLATERAL_INQUIRY = "BB"
    ACCOUNT_SUMMARY_REPORT = "CQ"


class Side(StrEnum):
    """Side (54)."""

    BUY = "1"
    SELL = "2"
    SELL_SHORT = "5"


class OrdType(StrEnum):
    """OrdType (40)."""

    MARKET = "1"
    LIMIT = "2"
    STOP = "3"
    STOP_LIMIT = "4"


class TimeInForce(StrEnum):
    """TimeInForce (59)."""

    DAY = "0"
    GTC = "1"
    IOC = "3"
    FOK = "4"
    GTD = "6"


class PositionEffect(StrEnum):
    """PositionEffect (77): whether the order opens a position or closes one."""

    OPEN = "O"
    CLOSE = "C"


class PositionSide(StrEnum):
    """The leg of a position at a venue that keeps a long and a short position of one instrument (hedge mode).

    FIX has no such field; a venue names it `positionSide`. FIX's LongQty (704) and ShortQty (705) are its quantities.
    """

    LONG = "LONG"
    SHORT = "SHORT"


class ContingencyType(StrEnum):
    """ContingencyType (1385), FIX 5.0 SP2: how the orders of one ListID (66) depend on each other."""

    ONE_CANCELS_THE_OTHER = "1"
    ONE_TRIGGERS_THE_OTHER = "2"
    ONE_UPDATES_THE_OTHER_ABSOLUTE = "3"
    ONE_UPDATES_THE_OTHER_PROPORTIONAL = "4"


class OrderOrigin(StrEnum):
    """Who made an order that the system did not request; the system adopts such an order as foreign."""

    MANUAL = "manual"
    LIQUIDATION = "liquidation"
    AUTO_DELEVERAGING = "auto-deleveraging"
    VENUE = "venue"


class AdjustmentReason(StrEnum):
    """Why a position moved without a trade. FIX has AdjustmentType (718) and PosAmtType (707) for some of them."""

    FEE = "fee"
    TRANSFER = "transfer"
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    EXPIRY = "expiry"
    ASSIGNMENT = "assignment"
    EXERCISE = "exercise"
    DELIVERY = "delivery"
    SYMBOL_CHANGE = "symbol-change"
    MERGER = "merger"
    SPIN_OFF = "spin-off"
    SPLIT = "split"
    OTHER = "other"


class CashReason(StrEnum):
    """Why cash moved without a trade."""

    FUNDING = "funding"
    DIVIDEND = "dividend"
    INTEREST = "interest"
    FEE = "fee"
    REBATE = "rebate"
    TRANSFER = "transfer"
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    SETTLEMENT = "settlement"
    OTHER = "other"


class OrdStatus(StrEnum):
    """OrdStatus (39)."""

    NEW = "0"
    PARTIALLY_FILLED = "1"
    FILLED = "2"
    DONE_FOR_DAY = "3"
    CANCELED = "4"
    REPLACED = "5"
    PENDING_CANCEL = "6"
    STOPPED = "7"
    REJECTED = "8"
    SUSPENDED = "9"
    PENDING_NEW = "A"
    CALCULATED = "B"
    EXPIRED = "C"
    ACCEPTED_FOR_BIDDING = "D"
    PENDING_REPLACE = "E"


class ExecType(StrEnum):
    """ExecType (150)."""

    NEW = "0"
    DONE_FOR_DAY = "3"
    CANCELED = "4"
    REPLACED = "5"
    PENDING_CANCEL = "6"
    STOPPED = "7"
    REJECTED = "8"
    SUSPENDED = "9"
    PENDING_NEW = "A"
    CALCULATED = "B"
    EXPIRED = "C"
    RESTATED = "D"
    PENDING_REPLACE = "E"
    TRADE = "F"
    TRADE_CORRECT = "G"
    TRADE_CANCEL = "H"
    ORDER_STATUS = "I"


class ExecRestatementReason(StrEnum):
    """ExecRestatementReason (378)."""

    GT_CORPORATE_ACTION = "0"
    GT_RENEWAL = "1"
    VERBAL_CHANGE = "2"
    REPRICING = "3"
    BROKER_OPTION = "4"
    PARTIAL_DECLINE = "5"
    CANCEL_ON_TRADING_HALT = "6"
    OTHER = "99"


PENDING = frozenset({OrdStatus.PENDING_NEW, OrdStatus.PENDING_CANCEL, OrdStatus.PENDING_REPLACE})
"""Statuses of an order that waits for the venue's answer to a request."""

OPEN = frozenset(
    {
        OrdStatus.NEW,
        OrdStatus.PARTIALLY_FILLED,
        OrdStatus.PENDING_NEW,
        OrdStatus.PENDING_CANCEL,
        OrdStatus.PENDING_REPLACE,
        OrdStatus.STOPPED,
        OrdStatus.SUSPENDED,
        OrdStatus.ACCEPTED_FOR_BIDDING,
    }
)
"""Statuses in which an order may still fill. DONE_FOR_DAY is open only for a GTC or GTD order; see
`Order.is_open`.
"""

CLOSED = frozenset(
    {
        OrdStatus.FILLED,
        OrdStatus.CANCELED,
        OrdStatus.REPLACED,
        OrdStatus.REJECTED,
        OrdStatus.EXPIRED,
        OrdStatus.CALCULATED,
    }
)
"""Statuses in which an order cannot fill any more, unless a replace reopens it."""

TRADES = frozenset({ExecType.TRADE, ExecType.TRADE_CORRECT, ExecType.TRADE_CANCEL})
"""The executions that move a position."""


def status_from_quantities(cum_qty: int, order_qty: int) -> OrdStatus:
    """Return the status that an order's quantities imply while it is neither closed nor waiting for an answer."""
    if cum_qty == 0:
        return OrdStatus.NEW
    return OrdStatus.FILLED if cum_qty >= order_qty else OrdStatus.PARTIALLY_FILLED
