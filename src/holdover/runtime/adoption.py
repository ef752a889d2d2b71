"""What a restarted system need not bring back, and what the guard does not know of what it did bring back.

Systems store different things. Some keep every execution and every closed order, some only working orders and
positions; some were trading before the guard was there. A guard that takes what is not stored for lost freezes all of
them at their first restart. The rules:

- *Archived* are remembered records that this system never brings back: closed orders when it has only ever restored
  working ones (and not the executions of the closed ones), executions inside a restored order when it has never
  restored an execution, completed parent orders, adjustments and cash movements that a restored position or balance
  contains. They are facts, and the guard keeps them in its totals, unless the restored position is short of exactly
  these fills: then the store is older, and they are lost.
- *Adopted* is a restored order or position whose history the guard has not seen. Its executions may be incomplete, so
  its quantities are not compared with them exactly.

A position that was known before and comes back otherwise is adopted only when the orders explain the difference: their
filled quantities contain fills that no recorded execution states.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from holdover.catalogue import Adoption
from holdover.model import (
    Balance,
    CashMovement,
    Execution,
    Order,
    ParentOrder,
    Position,
    PositionAdjustment,
    Record,
    Side,
)
from holdover.runtime.tables import RecordTables, TableKey

RestoredTables = Mapping[TableKey, Mapping[str, Record]]
CLOSED_ORDERS: Final = "closed Order"
"""The kind of record that a system restores when it restores an order that cannot fill any more."""


def list_restored_kinds(restored_tables: RestoredTables) -> set[str]:
    """Return the kinds that a system has brought back, as `subsystem.Kind`; closed orders are a kind of their own."""
    kinds: set[str] = set()
    for (subsystem, kind), records in restored_tables.items():
        if records:
            kinds.add(f"{subsystem}.{kind.__name__}")
        if any(isinstance(record, Order) and not record.is_open for record in records.values()):
            kinds.add(f"{subsystem}.{CLOSED_ORDERS}")
    return kinds


def find_archived(
    tables: RecordTables, subsystem: str, restored_tables: RestoredTables, restored_kinds: set[str]
) -> set[tuple[TableKey, str]]:
    """Return the remembered records, as (table, key), that did not come back and are not lost."""
    orders, executions = (subsystem, Order), (subsystem, Execution)
    restored_orders = restored_tables.get(orders, {})
    restored_executions = restored_tables.get(executions, {}).values()
    traded = {record.root_cl_ord_id for record in restored_executions if isinstance(record, Execution)}
    archived: set[tuple[TableKey, str]] = set()
    closed: dict[str, Order] = {}
    if f"{subsystem}.{CLOSED_ORDERS}" not in restored_kinds:
        closed = {
            key: order
            for key, order in tables.by_table.get(orders, {}).items()
            if isinstance(order, Order) and not order.is_open and key not in restored_orders and key not in traded
        }
        archived |= {(orders, key) for key, order in closed.items() if order.cum_qty}
    for root, booked in _executions_by_order(tables, subsystem).items():
        restored_order = restored_orders.get(root)
        if root in closed:  # an order whose fills were all taken back ended unfilled, and has executions
            archived |= {(executions, execution.key) for execution in booked}
        elif f"{subsystem}.Execution" not in restored_kinds and isinstance(restored_order, Order):
            contained = _executions_within(booked, restored_order.cum_qty)
            archived |= {(executions, execution.key) for execution in contained}
    archived |= _find_contained_facts(tables, subsystem, restored_tables)
    return archived


def is_archived_parent(tables: RecordTables, subsystem: str, parent: Record) -> bool:
    """Whether a parent order that did not come back is complete, and its children in the tables show that it is."""
    if not isinstance(parent, ParentOrder) or not parent.is_complete:
        return False
    sums = [summed for summed in tables.sums_of((subsystem, Order)) if summed.by == "cl_ord_link_id"]
    return all(tables.total_of(summed, parent.key) == parent.filled_qty for summed in sums if summed.of == "cum_qty")


def find_lost_orders(
    tables: RecordTables, archived: Iterable[tuple[TableKey, str]], *, are_positions_restored: bool
) -> set[str]:
    """Return the keys of archived orders whose fills a restored position does not contain: they are lost after all.

    That is the case when a position is short of exactly the fills of archived orders, and when the positions came back
    without it.
    """
    moved_qty = _moved_by_day(tables)
    by_day: dict[tuple[str, str], dict[str, int]] = {}
    for table, key in archived:
        execution = tables.find(table, key)
        if isinstance(execution, Execution):
            fills = by_day.setdefault((execution.book_key, execution.day_key), {})
            root = execution.root_cl_ord_id
            fills[root] = fills.get(root, 0) + execution.signed_qty
    lost: set[str] = set()
    for (book_key, day_key), fills in by_day.items():
        position = tables.find(("positions", Position), book_key)
        if isinstance(position, Position):
            is_same_day = position.day_key == day_key
            difference = position.net_qty - position.carried_qty - moved_qty.get(day_key, 0) if is_same_day else 0
        else:
            difference = -moved_qty.get(day_key, 0) if are_positions_restored else 0
        if difference and difference == -sum(fills.values()):
            lost |= set(fills)
    return lost


def _find_contained_facts(
    tables: RecordTables, subsystem: str, restored_tables: RestoredTables
) -> set[tuple[TableKey, str]]:
    """Return the adjustments and cash movements that the restored position or balance contains.

    Those of an earlier session are in what was carried; one of this session is when the position or balance has come
    back as it was. One that is not contained is lost unless the system learns it again.
    """
    contained: set[tuple[TableKey, str]] = set()
    positions, balances = (subsystem, Position), (subsystem, Balance)
    for key, fact in tables.by_table.get((subsystem, PositionAdjustment), {}).items():
        if isinstance(fact, PositionAdjustment):
            before, after = tables.find(positions, fact.book_key), restored_tables.get(positions, {}).get(fact.book_key)
            if isinstance(before, Position) and isinstance(after, Position):
                is_carried = "" < fact.trade_date < after.trade_date
                if is_carried or (before.net_qty, before.trade_date) == (after.net_qty, after.trade_date):
                    contained.add(((subsystem, PositionAdjustment), key))
    for key, fact in tables.by_table.get((subsystem, CashMovement), {}).items():
        if isinstance(fact, CashMovement):
            earlier, later = (
                tables.find(balances, fact.balance_key),
                restored_tables.get(balances, {}).get(fact.balance_key),
            )
            if isinstance(earlier, Balance) and isinstance(later, Balance):
                is_carried = "" < fact.trade_date < later.trade_date
                if is_carried or (earlier.cash, earlier.trade_date) == (later.cash, later.trade_date):
                    contained.add(((subsystem, CashMovement), key))
    return contained


def adopt_order(tables: RecordTables, subsystem: str, order: Order, *, is_known: bool, stores_executions: bool) -> None:
    """Mark a restored order as adopted, unless the guard has seen its requests and knows its executions.

    A system that stores its executions brings those of a known order back with it; what is missing is lost.
    """
    executed_qty = sum(
        execution.qty_delta
        for execution in tables.records_of((subsystem, Execution)).values()
        if isinstance(execution, Execution) and execution.root_cl_ord_id == order.key
    )
    knows_executions = order.cum_qty == executed_qty or (stores_executions and is_known)
    if not is_known or not knows_executions:
        tables.adopted[subsystem, order.key] = Adoption(order.trade_date, knows_executions)


def adopt_positions(tables: RecordTables, restored: Mapping[str, bool], *, are_orders_restored: bool) -> list[str]:
    """Mark the restored positions as adopted of a system that does not store its executions.

    Args:
        tables: the records.
        restored: the keys of the positions that came back; true for one that was known before.
        are_orders_restored: whether the orders came back as well; until then every position is adopted.

    Returns:
        The keys of the positions that neither the executions nor the orders explain; these are not adopted.
    """
    moved_qty = _moved_by_day(tables)
    unbooked_qty = _unbooked_by_book(tables)
    unexplained: list[str] = []
    for key, is_known in restored.items():
        position = tables.find(("positions", Position), key)
        if not isinstance(position, Position):
            continue
        difference = position.net_qty - position.carried_qty - moved_qty.get(position.day_key, 0)
        if is_known and are_orders_restored and difference != unbooked_qty.get(key, 0):
            tables.adopted.pop(("positions", key), None)
            unexplained.append(key)
        elif difference or not is_known:
            tables.adopted["positions", key] = Adoption(position.trade_date, False)
    return unexplained


def _executions_by_order(tables: RecordTables, subsystem: str) -> dict[str, list[Execution]]:
    by_order: dict[str, list[Execution]] = {}
    for record in tables.by_table.get((subsystem, Execution), {}).values():
        if isinstance(record, Execution):
            by_order.setdefault(record.root_cl_ord_id, []).append(record)
    return by_order


def _executions_within(executions: list[Execution], cum_qty: int) -> Iterable[Execution]:
    """Return the longest beginning of an order's executions that adds up to its quantity.

    Returns all when they are no more than that, and none when no number of them adds up to it. A bust makes the sum
    fall, so several beginnings may add up to the same.
    """
    booked_qty, count = 0, 0
    for number, execution in enumerate(executions, 1):
        booked_qty += execution.qty_delta
        count = number if booked_qty == cum_qty else count
    return executions if booked_qty <= cum_qty else executions[:count]


def _moved_by_day(tables: RecordTables) -> dict[str, int]:
    """Return what executions and adjustments moved, by account, instrument, leg and trade date."""
    moved: dict[str, int] = {}
    for record in tables.by_table.get(("orders", Execution), {}).values():
        if isinstance(record, Execution):
            moved[record.day_key] = moved.get(record.day_key, 0) + record.signed_qty
    for record in tables.by_table.get(("positions", PositionAdjustment), {}).values():
        if isinstance(record, PositionAdjustment):
            moved[record.day_key] = moved.get(record.day_key, 0) + record.qty_delta
    return moved


def _unbooked_by_book(tables: RecordTables) -> dict[str, int]:
    """Return the signed filled quantity of adopted orders that no execution states, by the key of the position."""
    executions = _executions_by_order(tables, "orders")
    unbooked: dict[str, int] = {}
    for (subsystem, key), adoption in tables.adopted.items():
        order = tables.find((subsystem, Order), key)
        if isinstance(order, Order) and not adoption.knows_executions:
            qty = order.cum_qty - sum(execution.qty_delta for execution in executions.get(key, []))
            unbooked[order.book_key] = unbooked.get(order.book_key, 0) + (qty if order.side == Side.BUY else -qty)
    return unbooked
