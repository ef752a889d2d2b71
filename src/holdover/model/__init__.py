"""Records in FIX terms: immutable, exact, one line each.

Quantities are integers in lots and prices are integers in ticks, as the `Instrument` defines them. A record
stores the notional (lots x ticks) and derives the average price, so equality is exact. Times are integer
nanoseconds since the epoch, UTC. Dates are ISO strings (`2013-10-07`) and name the venue's trading day.
"""

from holdover.model.fix import (
    CLOSED,
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
from holdover.model.instrument import CASH_UNIT, Instrument, InstrumentUnitError
from holdover.model.message import (
    CancelReject,
    ExecutionReport,
    Inbound,
    Outbound,
    PositionReport,
    Query,
    Request,
    SecurityStatus,
)
from holdover.model.record import (
    Balance,
    Book,
    Execution,
    Exposure,
    Limit,
    Link,
    LinkState,
    Order,
    ParentOrder,
    Position,
    Reconciliation,
    Record,
    TradingSession,
)
from holdover.model.scope import KINDS, SYSTEM, enclosing_scopes, scope_of
from holdover.model.self_check import ClockReading, FreezeSet, Recompute, Recovery, Repetition, Restored

__all__ = [
    "CASH_UNIT",
    "KINDS",
    "SYSTEM",
    "TRADES",
    "ClockReading",
    "FreezeSet",
    "Recompute",
    "Recovery",
    "Repetition",
    "scope_of",
    "enclosing_scopes",
    "CLOSED",
    "OPEN",
    "PENDING",
    "Balance",
    "Book",
    "CancelReject",
    "ExecRestatementReason",
    "ExecType",
    "Execution",
    "ExecutionReport",
    "Exposure",
    "Inbound",
    "Instrument",
    "Limit",
    "Link",
    "LinkState",
    "MsgType",
    "OrdStatus",
    "OrdType",
    "Order",
    "Outbound",
    "ParentOrder",
    "Position",
    "PositionEffect",
    "PositionReport",
    "Query",
    "Reconciliation",
    "Record",
    "Request",
    "Restored",
    "SecurityStatus",
    "Side",
    "TimeInForce",
    "TradingSession",
    "InstrumentUnitError",
]
