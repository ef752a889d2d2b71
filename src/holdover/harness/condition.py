"""Stop conditions for `Session.run(until=...)`, evaluated on the records of the subject.

session.run(until=first(PartialFill, tif="GTC"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdover.model import ExecType, Execution, Order, OrdStatus, Record, TimeInForce
from holdover.state import StateError, Stateful


class ConditionState(msgspec.Struct):
    """The state of a `Condition`."""

    match_count: int


@dataclass
class Condition(Stateful[ConditionState]):
    """A condition on the subject's mutations. It is met at the `count`-th mutation that matches."""

    State = ConditionState

    description: str
    matches: Callable[[str, Record], bool]
    count: int = 1
    match_count: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"condition {self.description}: met at match {self.count}, should be from 1 on")

    def take_state(self, state: ConditionState) -> None:
        """Take over a decoded state. Raises `StateError` for a negative count."""
        if state.match_count < 0:
            raise StateError(
                f"the stored state of condition {self.description} is damaged: {state.match_count} matches"
            )
        super().take_state(state)

    def observe(self, subsystem: str, record: Record) -> bool:
        """Count a mutation if it matches; return whether this mutation meets the condition."""
        if self.matches(subsystem, record):
            self.match_count += 1
            return self.match_count == self.count
        return False


def _has_tif(order: Order, tif: str) -> bool:
    return not tif or order.time_in_force == TimeInForce[tif]


def PartialFill(subsystem: str, record: Record, *, tif: str = "", strategy: str = "") -> bool:
    """Match an order that a trade has partly filled."""
    return (
        subsystem == "orders"
        and isinstance(record, Order)
        and record.exec_type == ExecType.TRADE
        and 0 < record.cum_qty < record.order_qty
        and _has_tif(record, tif)
        and (not strategy or record.strategy == strategy)
    )


def Fill(subsystem: str, record: Record, *, tif: str = "", strategy: str = "") -> bool:
    """Match a booked execution."""
    return (
        subsystem == "orders"
        and isinstance(record, Execution)
        and record.exec_type == ExecType.TRADE
        and (not strategy or record.strategy == strategy)
    )


def Pending(subsystem: str, record: Record, *, tif: str = "", strategy: str = "") -> bool:
    """Match an order that has a request without an answer."""
    return (
        subsystem == "orders"
        and isinstance(record, Order)
        and record.is_pending
        and _has_tif(record, tif)
        and (not strategy or record.strategy == strategy)
    )


def Cancelled(subsystem: str, record: Record, *, tif: str = "", strategy: str = "") -> bool:
    """Match a cancelled order."""
    return subsystem == "orders" and isinstance(record, Order) and record.ord_status == OrdStatus.CANCELED


KINDS: dict[str, Callable[..., bool]] = {
    "partial-fill": PartialFill,
    "fill": Fill,
    "pending": Pending,
    "cancelled": Cancelled,
}
"""The conditions that a schedule can name."""


def first(kind: Callable[..., bool], **filters: Any) -> Condition:
    """Return the condition that the first matching mutation meets."""
    return nth(1, kind, **filters)


def nth(count: int, kind: Callable[..., bool], **filters: Any) -> Condition:
    """Return the condition that the `count`-th matching mutation meets."""
    return Condition(kind.__name__, lambda subsystem, record: kind(subsystem, record, **filters), count)
