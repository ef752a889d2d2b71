"""Whether a reconciliation changes anything that the one before it had settled, when there was nothing to tell.

Between two reconciliations of one session in which the venue's records have not moved and nothing was sent, there is
nothing to learn; what an order, a position, a balance or a parent amounts to must then be what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from holdover.model import Balance, Order, ParentOrder, Position, Record, Repetition, Request

Tables = Mapping[tuple[str, type[Record]], Mapping[str, Record]]

_AMOUNTS: Final[dict[type[Record], Callable[[Any], tuple[int, ...]]]] = {
    Order: lambda order: (order.cum_qty, order.leaves_qty, order.notional),
    Position: lambda position: (position.net_qty,),
    Balance: lambda balance: (balance.cash,),
    ParentOrder: lambda parent: (parent.filled_qty, parent.working_qty),
}
"""What a record amounts to; how it was learnt, and in which words it is told, may change."""


class Again:
    """Remembers the tables as the last reconciliation left them. `kept` is never changed, only replaced."""

    def __init__(self) -> None:
        self.kept: tuple[str, dict[tuple[str, type[Record]], dict[str, Record]]] = ("", {})

    def look(self, tables: Tables, trade_date: str) -> Repetition | None:
        """A reconciliation is complete: what it has changed, or None where there was something to tell or to wait for.

        Where nothing is recorded of the venue it cannot be told whether there was.
        """
        before_date, before = self.kept
        now = {
            table: dict(records)
            for table, records in tables.items()
            if table[0] == "venue" or table[1] is Request or table[1] in _AMOUNTS
        }
        self.kept = (trade_date, now)
        told = [table for table in now if table[0] == "venue" or table[1] is Request]
        if before_date != trade_date or not any(table[0] == "venue" for table in told):
            return None
        if any(before.get(table) != now[table] for table in told) or _waiting(before) or _waiting(now):
            return None
        return _compared(trade_date, before, now)


def _waiting(tables: Tables) -> bool:
    """Whether any order waits for an answer: that may come without anything else."""
    return any(
        isinstance(record, Order) and record.is_pending
        for table, records in tables.items()
        if table[1] is Order and table[0] != "venue"
        for record in records.values()
    )


def _compared(trade_date: str, before: Tables, now: Tables) -> Repetition:
    compared = 0
    changed: list[str] = []
    for table, records in now.items():
        amounts = _AMOUNTS.get(table[1])
        if table[0] == "venue" or amounts is None:
            continue
        known = before.get(table, {})
        for key, record in records.items():
            was = known.get(key)
            if was is None and table[1] is not Position:
                continue
            compared += 1
            if record is not was and amounts(record) != ((0,) if was is None else amounts(was)):
                changed.append(f"{was!r} became {record!r}")
    return Repetition(
        trade_date=trade_date, compared=compared, changed=len(changed), first=changed[0] if changed else ""
    )
