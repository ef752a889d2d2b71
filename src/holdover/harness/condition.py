"""When to stop: conditions on what the subject records, for `Session.run(until=...)`.

session.run(until=first(PartialFill, tif="GTC"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holdover.model import ExecType, Execution, Order, OrdStatus, Record, TimeInForce


@dataclass
class Condition:
    """Something that becomes true at a mutation of the subject. `count` says at which of those that match."""

    what: str
    matches: Callable[[str, Record], bool]
    count: int = 1
    seen: int = field(default=0, compare=False)

    def met(self, subsystem: str, record: Record) -> bool:
        """Whether this mutation is the one."""
        if self.matches(subsystem, record):
            self.seen += 1
            return self.seen == self.count
        return False


def _tif(order: Order, tif: str) -> bool:
    return not tif or order.time_in_force == TimeInForce[tif]


def PartialFill(subsystem: str, record: Record, *, tif: str = "", strategy: str = "") -> bool:
    """An order that is partly filled."""
    return (
        subsystem == "orders"
        and isinstance(record, Order)
        and record.exec_type == ExecType.TRADE
        and 0 < record.cum_qty < record.order_qty
        and _tif(record, tif)
        and (not strategy or record.strategy == strategy)
    )


def Fill(subsystem: str, record: Record, *, tif: str = "", strategy: str = "") -> bool:
    """An execution that was booked."""
    return (
        subsystem == "orders"
        and isinstance(record, Execution)
        and record.exec_type == ExecType.TRADE
        and (not strategy or record.strategy == strategy)
    )


def Pending(subsystem: str, record: Record, *, tif: str = "", strategy: str = "") -> bool:
    """An order of which a request waits for its answer."""
    return (
        subsystem == "orders"
        and isinstance(record, Order)
        and record.is_pending
        and _tif(record, tif)
        and (not strategy or record.strategy == strategy)
    )


def Cancelled(subsystem: str, record: Record, *, tif: str = "", strategy: str = "") -> bool:
    """An order that was cancelled."""
    return subsystem == "orders" and isinstance(record, Order) and record.ord_status == OrdStatus.CANCELED


KINDS: dict[str, Callable[..., bool]] = {
    "partial-fill": PartialFill,
    "fill": Fill,
    "pending": Pending,
    "cancelled": Cancelled,
}
"""The conditions that a schedule can name."""


def first(kind: Callable[..., bool], **filters: Any) -> Condition:
    """The first mutation that is of a kind."""
    return nth(1, kind, **filters)


def nth(count: int, kind: Callable[..., bool], **filters: Any) -> Condition:
    """The `count`-th mutation that is of a kind."""
    return Condition(kind.__name__, lambda subsystem, record: kind(subsystem, record, **filters), count)
