"""Idempotence of reconciliation: a second reconciliation without new input must change nothing.

If the venue's records have not moved and the system has sent nothing between two reconciliations of one
session, the second one has nothing to learn. The amounts of orders, positions, balances and parent orders
must then stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from holdover.model import Balance, Order, ParentOrder, Position, Record, Repetition, Request
from holdover.state import Stateful

Tables = Mapping[tuple[str, type[Record]], Mapping[str, Record]]

_AMOUNTS: Final[dict[type[Record], Callable[[Any], tuple[int, ...]]]] = {
    Order: lambda order: (order.cum_qty, order.leaves_qty, order.notional),
    Position: lambda position: (position.net_qty,),
    Balance: lambda balance: (balance.cash,),
    ParentOrder: lambda parent: (parent.filled_qty, parent.working_qty),
}
"""The amounts of a record that a second reconciliation must not change; its provenance may change."""


class ReconciliationIdempotenceState(msgspec.Struct):
    """The state of the comparison: a value, because it is only ever replaced."""

    last_tables: tuple[str, dict[tuple[str, type[Record]], dict[str, Record]]]


class ReconciliationIdempotence(Stateful[ReconciliationIdempotenceState]):
    """Holds the trade date and the tables of the last reconciliation. `last_tables` is only ever replaced."""

    State = ReconciliationIdempotenceState

    def __init__(self) -> None:
        self.last_tables: tuple[str, dict[tuple[str, type[Record]], dict[str, Record]]] = ("", {})

    def compare(self, tables: Tables, trade_date: str) -> Repetition | None:
        """Compare the tables of a complete reconciliation with those of the one before it.

        Returns None when there was new input or an order still waits for an answer, and when the venue's records are
        not recorded, because new input could not be detected then.
        """
        before_date, before = self.last_tables
        current_tables = {
            table: dict(records)
            for table, records in tables.items()
            if table[0] == "venue" or table[1] is Request or table[1] in _AMOUNTS
        }
        self.last_tables = (trade_date, current_tables)
        input_tables = [table for table in current_tables if table[0] == "venue" or table[1] is Request]
        if before_date != trade_date or not any(
            table[0] == "venue" and current_tables[table] for table in input_tables
        ):
            return None
        if (
            any(before.get(table) != current_tables[table] for table in input_tables)
            or _has_pending_order(before)
            or _has_pending_order(current_tables)
        ):
            return None
        return _compare_tables(trade_date, before, current_tables)


def _has_pending_order(tables: Tables) -> bool:
    """Whether any order waits for an answer; the answer may arrive without any other input."""
    return any(
        isinstance(record, Order) and record.is_pending
        for table, records in tables.items()
        if table[1] is Order and table[0] != "venue"
        for record in records.values()
    )


def _compare_tables(trade_date: str, before: Tables, current: Tables) -> Repetition:
    compared = 0
    changed: list[str] = []
    for table, records in current.items():
        amounts = _AMOUNTS.get(table[1])
        if table[0] == "venue" or amounts is None:
            continue
        previous_records = before.get(table, {})
        for key, record in records.items():
            previous = previous_records.get(key)
            if previous is None and table[1] is not Position:
                continue
            compared += 1
            if record is not previous and amounts(record) != ((0,) if previous is None else amounts(previous)):
                changed.append(f"{previous!r} became {record!r}")
    return Repetition(
        trade_date=trade_date, compared=compared, changed=len(changed), first=changed[0] if changed else ""
    )
