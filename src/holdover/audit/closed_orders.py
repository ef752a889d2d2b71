"""The closed orders that an audit still remembers: the last ones, so that its memory does not grow with the log.

A closed order can be changed once more: a trade is busted or corrected, an identifier is used again, a report is
resent. That happens soon after. An older order is forgotten as a whole, with its executions and requests; a later
message about it is then about an order from before the log, of which nothing is claimed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdover.model import Execution, Order, Request

if TYPE_CHECKING:
    from holdover.audit.reported_orders import OrderState
    from holdover.runtime import Monitor

CLOSED_MAX: Final = 10_000
"""Closed orders that an audit remembers: about 100 MB."""


class ClosedOrders:
    """The keys of closed and unanswered orders in the order in which they were last touched."""

    def __init__(self, closed_max: int = CLOSED_MAX) -> None:
        self.keys: dict[str, None] = {}
        self.closed_max = closed_max

    def note(self, state: OrderState) -> str:
        """Note what is known of an order now; return the key of the order to forget, or an empty string."""
        self.keys.pop(state.key, None)
        if state.order is not None and state.order.is_open:
            return ""
        self.keys[state.key] = None
        if len(self.keys) <= self.closed_max:
            return ""
        oldest = next(iter(self.keys))
        del self.keys[oldest]
        return oldest


def forget_records(monitor: Monitor, state: OrderState) -> None:
    """Remove the records of an order from the monitor: the order, its executions and its requests."""
    tables = monitor.tables
    executions = tables.by_table.get(("orders", Execution), {})
    for key in [*(execution.key for execution in state.executions.values()), *state.other_executions]:
        if key in executions:
            tables.forget_record(("orders", Execution), key)
    if state.key in tables.by_table.get(("orders", Order), {}):
        tables.forget_record(("orders", Order), state.key)
    requests = tables.by_table.get(("gateway", Request), {})
    for name in state.names:
        key = f"{state.session}/{name}"
        if key in requests:
            tables.forget_record(("gateway", Request), key)
    for totals in tables.totals.values():
        if totals.get(state.key) == 0:
            del totals[state.key]
