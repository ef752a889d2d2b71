"""The records that everything else speaks of, in FIX terms: immutable, exact, one line each.

Quantities are integers in lots, prices integers in ticks, as the `Instrument` defines both; the
notional (lots x ticks) is stored and the average price derived, so that equality is exact. Times are
integer nanoseconds since the epoch, UTC. Dates are ISO strings (`2013-10-07`), the venue's trading day.
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
from holdover.model.instrument import CASH_UNIT, Instrument, Unfit
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
from holdover.model.own import ClockReading, FreezeSet, Recompute, Recovery, Repetition, Restored
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
from holdover.model.scope import KINDS, SYSTEM, scope_of, scopes_around

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
    "scopes_around",
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
    "Unfit",
]
