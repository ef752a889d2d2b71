"""Restarts: which records a restarted subsystem brought back, and which it lost.

The monitor's memory survives the death of a subsystem's process. A restarted subsystem reports what it read back;
a durable record that is missing or older than remembered must be up to date when the recovery is declared complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec
from msgspec.structs import replace

from holdover.catalogue import Adoption
from holdover.model import (
    Balance,
    ExecType,
    Execution,
    Order,
    OrdStatus,
    ParentOrder,
    Position,
    Record,
    Recovery,
    Request,
    RestoredOrders,
)
from holdover.runtime.adoption import (
    RestoredTables,
    adopt_order,
    adopt_positions,
    find_archived,
    find_lost_orders,
    is_archived_parent,
    list_restored_kinds,
)
from holdover.runtime.check import Touched
from holdover.runtime.record_text import field_words, format_value
from holdover.runtime.tables import RecordTables, TableKey
from holdover.state import Stateful

if TYPE_CHECKING:
    from holdover.runtime.monitor import Monitor

_NOT_COMPARED: Final = frozenset({"root_cl_ord_id", "ord_status", "leaves_qty", "cum_qty", "notional", "foreign"})
"""Fields of an order that other invariants check after a restart."""
_RESTORED_FIELDS: Final = tuple(
    name for name in Order.__struct_fields__ if name not in _NOT_COMPARED | Order.provenance_fields
)
_DEFAULTS: Final = {field.name: field.default for field in msgspec.structs.fields(Order)}


class RecoveryTrackerState(msgspec.Struct):
    """The state of the restarts."""

    unrestored: dict[TableKey, dict[str, Record]]
    restored_counts: dict[str, int]
    restored_orders: dict[TableKey, dict[str, Order]]
    restored_kinds: set[str]
    restored_positions: dict[str, bool]
    archived: set[tuple[TableKey, str]]
    restored_parents: set[str]
    undo_log: list[tuple[TableKey, str, Record | None]] | None


class RecoveryTracker(Stateful[RecoveryTrackerState]):
    """Compares what restarted subsystems bring back with what the monitor remembers.

    `undo_log`, when it is a list, records what the open steps changed, for `undo_open_steps`. `unrestored` holds the
    remembered records that a restarted subsystem has not brought back yet, `restored_counts` how many records each
    recovering subsystem read back, `restored_orders` its working orders as they came back. `restored_kinds` names what
    subsystems bring back at all: a system that never stores its executions or closed orders has not lost them.
    `restored_positions` holds the restored positions of a system that does not store its executions, and whether each
    was known; `archived` the records that these restarts were not expected to bring back, `restored_parents` the keys
    of the parent orders that came back.
    """

    State = RecoveryTrackerState
    DERIVED: ClassVar = {
        "_monitor": "the monitor that this is a part of",
        "_tables": "the records, which are part of the monitor's state themselves",
    }

    def __init__(self, monitor: Monitor, tables: RecordTables) -> None:
        self.unrestored: dict[TableKey, dict[str, Record]] = {}
        self.restored_counts: dict[str, int] = {}
        self.restored_orders: dict[TableKey, dict[str, Order]] = {}
        self.restored_kinds: set[str] = set()
        self.restored_positions: dict[str, bool] = {}
        self.archived: set[tuple[TableKey, str]] = set()
        self.restored_parents: set[str] = set()
        self.undo_log: list[tuple[TableKey, str, Record | None]] | None = None
        self._monitor, self._tables = monitor, tables

    def restore(self, subsystem: str, records: Iterable[Record], now_ns: int, touched: Touched) -> None:
        """Take the records that a restarted subsystem read back; see `Monitor.restore`."""
        tables = self._tables
        restored_tables: dict[TableKey, dict[str, Record]] = {}
        for record in self._without_retired(subsystem, list(records)):
            table = (subsystem, type(record))
            restored_tables.setdefault(table, {})[record.key] = self._with_known_session(table, record)
        self._note_restored(subsystem, restored_tables)
        archived = find_archived(tables, subsystem, restored_tables, self.restored_kinds)
        adopted = {key for owner, key in tables.adopted if owner == subsystem}
        known = {key for table, by_key in tables.by_table.items() if table[0] == subsystem for key in by_key} - adopted
        latest = self._monitor.trade_date or self._latest_trade_date(subsystem)
        executed = self._executed_since(subsystem, latest, restored_tables.get((subsystem, Execution), {}))
        for table in list(tables.by_table):
            if table[0] != subsystem or not (table[1].durable or table[1].derived):
                continue
            restored = restored_tables.get(table, {})
            self.unrestored.setdefault(table, {})
            for key, record in list(tables.by_table[table].items()):
                if key not in restored:
                    if (table, key) in archived or table[1] is ParentOrder:
                        if table[1] is Execution:
                            tables.unconfirmed.add((subsystem, key))
                        continue
                    if not self._is_still_needed(record, latest, executed):
                        continue
                restored_record = restored.get(key)
                if restored_record == record:
                    del restored[key]  # unchanged: nothing to evaluate again
                    continue
                order_before_today = (
                    None if restored_record is not None else _order_before_today(record, latest, executed)
                )
                if order_before_today is None:
                    self._forget_unrestored(table, key, record, touched)
                    continue
                if _must_be_restored(table, record):
                    self.unrestored.setdefault(table, {})[key] = record
                tables.reset_record(table, key, order_before_today)
        for restored in restored_tables.values():
            for record in restored.values():
                self._monitor.mutate(subsystem, record, now_ns, touched)
        self.archived |= archived
        if subsystem in ("orders", "positions") and "orders" in self.restored_counts:
            self._forget_lost_orders(touched)
            self._forget_lost_parents("orders", touched)
        if subsystem == "ledger":
            self._forget_orders_of_lost_balances(touched)
        self._adopt_restored(subsystem, restored_tables, known, touched)

    def _without_retired(self, subsystem: str, records: list[Record]) -> list[Record]:
        """Return the restored records without closed orders that the guard has retired, and their executions.

        Their totals are kept, so that they would count twice.
        """
        retired = {key for _, owner, key in self._tables.retired_orders if owner == subsystem}
        if not retired:
            return records
        retired -= {record.key for record in records if isinstance(record, Order) and record.is_open}
        return [
            record
            for record in records
            if not isinstance(record, Order | Execution) or record.root_cl_ord_id not in retired
        ]

    def _with_known_session(self, table: TableKey, record: Record) -> Record:
        """Return a restored execution with the session that booked it, when only the guard remembers which it was."""
        if isinstance(record, Execution) and not record.book_date:
            known = self._tables.find(table, record.key)
            if isinstance(known, Execution) and known.book_date:
                return replace(record, book_date=known.book_date)
        return record

    def _note_restored(self, subsystem: str, restored_tables: RestoredTables) -> None:
        """Note what came back, for the end of the recovery."""
        self.restored_counts[subsystem] = sum(len(table_records) for table_records in restored_tables.values())
        self.restored_kinds |= list_restored_kinds(restored_tables)
        if subsystem == "orders":
            self.restored_parents = set(restored_tables.get((subsystem, ParentOrder), ()))
        for table, records in restored_tables.items():
            if table[1] is Order:
                self.restored_orders[table] = {
                    key: record for key, record in records.items() if isinstance(record, Order) and record.is_open
                }

    def _forget_lost_orders(self, touched: Touched) -> None:
        """Forget the orders that were taken for archived and whose fills the restored position does not contain."""
        are_positions_restored = "positions" in self.restored_counts
        lost = find_lost_orders(self._tables, self.archived, are_positions_restored=are_positions_restored)
        self._forget_archived(lost, touched)

    def _forget_orders_of_lost_balances(self, touched: Touched) -> None:
        """Forget the archived orders of the accounts whose balance did not come back: the store is older than both."""
        lost_balances = self.unrestored.get(("ledger", Balance), {}).values()
        accounts = {balance.account for balance in lost_balances if isinstance(balance, Balance)}
        orders = (self._tables.find(table, key) for table, key in self.archived)
        lost = {order.key for order in orders if isinstance(order, Order) and order.account in accounts}
        self._forget_archived(lost, touched)

    def _forget_archived_since(self, relearned: set[str], touched: Touched) -> None:
        """Forget archived orders of which the store knows nothing, and those that traded after the first of them.

        The store is older than these orders, so that what traded later is not in it either.
        """
        table: TableKey = ("orders", Execution)
        traded = [
            execution.root_cl_ord_id
            for execution in self._executions_of("orders")
            if (table, execution.key) in self.archived
        ]
        first = next((place for place, key in enumerate(traded) if key in relearned), len(traded))
        self._forget_archived(relearned | set(traded[first:]), touched)

    def _forget_archived(self, lost: set[str], touched: Touched) -> None:
        """Forget the archived orders of these root ClOrdIDs, and their executions, because they are lost."""
        for table, key in sorted(self.archived, key=lambda mark: (mark[0][1].__name__, mark[1])):
            record = self._tables.find(table, key)
            if isinstance(record, Order | Execution) and record.root_cl_ord_id in lost:
                self.archived.discard((table, key))
                self._forget_unrestored(table, key, record, touched)

    def _forget_lost_parents(self, subsystem: str, touched: Touched) -> None:
        """Forget the parent orders that did not come back and are not complete by their children.

        A store without an incomplete parent is older than the parent, and so than the parent's children.
        """
        table = (subsystem, ParentOrder)
        lost_parents = {
            key
            for key, parent in self._tables.by_table.get(table, {}).items()
            if key not in self.restored_parents and not is_archived_parent(self._tables, subsystem, parent)
        }
        for key in sorted(lost_parents):
            self._forget_unrestored(table, key, self._tables.by_table[table][key], touched)
        children = (self._tables.find(archived_table, key) for archived_table, key in self.archived)
        self._forget_archived_since(
            {child.key for child in children if isinstance(child, Order) and child.cl_ord_link_id in lost_parents},
            touched,
        )

    def find_relearned(self, table: TableKey, record: Record, touched: Touched) -> None:
        """Forget an archived order, and its executions, when its system records it from its start: then it was lost.

        A bust opens an archived order as well, but is no reason to forget it. An execution that is recorded once more
        is known again, so that it stays when its order is forgotten.
        """
        if (table, record.key) not in self.archived:
            return
        if isinstance(record, Execution):
            self.archived.discard((table, record.key))
        elif isinstance(record, Order) and record.is_open and not record.cum_qty:
            is_busted = record.exec_ref_id != "" or record.exec_type in (ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT)
            if not is_busted and not self._is_amended(table[0], record.key):
                self._forget_archived_since({record.key}, touched)

    def _forget_unrestored(self, table: TableKey, key: str, record: Record, touched: Touched) -> None:
        """Forget a record that did not come back; the system must bring it back until its recovery is complete."""
        if _must_be_restored(table, record):
            self.unrestored.setdefault(table, {})[key] = record
        self._tables.forget_record(table, key)
        for group in self._monitor.compiler.groups:
            if group.table == table:
                touched[group.number, key] = None

    def _adopt_restored(
        self, subsystem: str, restored_tables: RestoredTables, known: set[str], touched: Touched
    ) -> None:
        """Mark the restored orders and positions whose history the guard does not know; see `adoption`."""
        stores_executions = "orders.Execution" in self.restored_kinds
        for records in restored_tables.values():
            for record in records.values():
                if isinstance(record, Order):
                    adopt_order(
                        self._tables,
                        subsystem,
                        record,
                        is_known=record.key in known,
                        stores_executions=stores_executions,
                    )
                elif isinstance(record, Position) and subsystem == "positions" and not stores_executions:
                    self.restored_positions[record.key] = record.key in known
                elif record.key not in known and (
                    isinstance(record, ParentOrder) or (isinstance(record, Balance) and not stores_executions)
                ):
                    self._tables.adopted[subsystem, record.key] = Adoption(record.trade_date, False)
        if self.restored_positions and subsystem in ("orders", "positions"):
            are_orders_restored = "orders" in self.restored_counts
            unexplained = adopt_positions(
                self._tables, self.restored_positions, are_orders_restored=are_orders_restored
            )
            for group in self._monitor.compiler.groups:
                if group.table == ("positions", Position):
                    touched.update(((group.number, key), None) for key in unexplained)

    def undo_open_steps(self, has_left: Callable[[Record], bool]) -> None:
        """Undo the steps in `undo_log` after their process died; see `Monitor.undo_open_steps`."""
        undo_log, self.undo_log = self.undo_log or [], []
        for table, key, before in reversed(undo_log):
            if table[0] != "venue" and not (table[1] is Request and has_left(self._tables.by_table[table][key])):
                self._tables.reset_record(table, key, before)

    def complete(self, subsystem: str) -> list[Record]:
        """End the recovery of a subsystem. Returns what is missing, older or changed; nothing without a recovery."""
        if subsystem not in self.restored_counts:
            return []
        if subsystem == "positions":
            self.restored_positions.clear()
        self.archived = {mark for mark in self.archived if mark[0][0] != subsystem}
        missing: list[str] = []
        regressed: list[str] = []
        changed: list[str] = []
        compared = 0
        for table in [table for table in self.unrestored if table[0] == subsystem]:
            records = self._tables.by_table.get(table, {})
            restored_orders = self.restored_orders.pop(table, {})
            compared += len(restored_orders)
            for key, previous in self.unrestored.pop(table).items():
                if self._has_ended_unfilled(previous):
                    continue
                current = records.get(key)
                if current is None:
                    missing.append(repr(previous))
                    continue
                if _has_regressed(previous, current) and not self._is_amended(subsystem, key):
                    regressed.append(f"{previous!r} came back as {current!r}")
                if isinstance(previous, Order) and isinstance(current, Order) and key in restored_orders:
                    changed += self._find_changes(previous, restored_orders[key], current)
        for table in [table for table in self.restored_orders if table[0] == subsystem]:
            del self.restored_orders[table]
        recovery = Recovery(
            subsystem=subsystem,
            restored=self.restored_counts.pop(subsystem),
            missing=len(missing),
            regressed=len(regressed),
            first=next(iter([*missing, *regressed]), ""),
        )
        restored_orders_check = RestoredOrders(
            subsystem=subsystem, compared=compared, changed=len(changed), first=next(iter(changed), "")
        )
        return [recovery, restored_orders_check] if compared else [recovery]

    def _find_changes(self, previous: Order, restored: Order, current: Order) -> list[str]:
        """Describe the fields of a working order that came back otherwise and that nothing since explains.

        A field that was recorded again after the restart is explained by the report that changed it, and one that the
        venue states as the system does by a change while the system was down.
        """
        if not previous.is_open or not current.is_open:
            return []
        venue_order = self._tables.find(("venue", Order), current.key)
        texts = []
        for name in _RESTORED_FIELDS:
            before, now = getattr(previous, name), getattr(current, name)
            if now == before or now != getattr(restored, name):
                continue
            if isinstance(venue_order, Order) and self._states(venue_order, name, now):
                continue
            instrument = self._monitor.instruments.get(current.symbol)
            sides = [format_value(value, name, instrument) for value in (before, now)]
            return_text = sides[1] if now in ("", None) else f"as {sides[1]}"
            texts.append(f"order {current.key}: the {field_words(name)} was {sides[0]} and came back {return_text}")
        return texts

    def _states(self, venue_order: Order, name: str, value: object) -> bool:
        """Whether the venue states a value; a default does not count in a field that the venue never sets."""
        if getattr(venue_order, name) != value:
            return False
        is_default = value == _DEFAULTS.get(name, msgspec.NODEFAULT)
        return not is_default or bool(self._monitor.compiler.presence.used_fields("venue", "Order", (name,)))

    # -- what the tables show -----------------------------------------------------------------------------------

    def _executions_of(self, subsystem: str) -> list[Execution]:
        records = self._tables.by_table.get((subsystem, Execution), {}).values()
        return [record for record in records if isinstance(record, Execution)]

    def _latest_trade_date(self, subsystem: str) -> str:
        return max((execution.booked_on for execution in self._executions_of(subsystem)), default="")

    def _executed_since(
        self, subsystem: str, latest: str, restored: Mapping[str, Record]
    ) -> dict[str, tuple[int, int]]:
        """Return the orders with executions booked on a day or later; yesterday's order may fill in today's session.

        For each order: the lots and the notional of the executions that were not restored.
        """
        executed: dict[str, tuple[int, int]] = {}
        for execution in self._executions_of(subsystem):
            if execution.booked_on >= latest:
                lots, notional = executed.get(execution.root_cl_ord_id, (0, 0))
                is_missing = execution.key not in restored
                executed[execution.root_cl_ord_id] = (
                    lots + is_missing * execution.qty_delta,
                    notional + is_missing * execution.notional_delta,
                )
        return executed

    def _is_still_needed(self, record: Record, latest: str, executed: Mapping[str, tuple[int, int]]) -> bool:
        """Whether a restarted system still needs the record: it is open, of the last day, or not flat.

        An order that ended unfilled contributes nothing: if it is not brought back, it may be learnt again from its
        start.
        """
        if isinstance(record, Order):
            is_recent = record.trade_date >= latest or record.root_cl_ord_id in executed
            return is_recent or record.is_open or record.cum_qty == 0
        if isinstance(record, Execution):
            order = self._tables.find(("orders", Order), record.root_cl_ord_id)
            return record.booked_on >= latest or (isinstance(order, Order) and order.is_open)
        if isinstance(record, Position):
            return record.net_qty != 0
        return True

    def _is_amended(self, subsystem: str, root: str) -> bool:
        """Whether an execution of this order was busted or corrected; the order may then be behind."""
        return any(
            execution.root_cl_ord_id == root and execution.exec_ref_id != ""
            for execution in self._executions_of(subsystem)
        )

    def _has_ended_unfilled(self, record: Record) -> bool:
        """Whether the venue has ended the order without a fill; no further report will come for it."""
        if not isinstance(record, Order) or record.cum_qty:
            return False
        venue_order = self._tables.find(("venue", Order), record.key)
        return isinstance(venue_order, Order) and not venue_order.is_open and venue_order.cum_qty == 0


def _must_be_restored(table: TableKey, record: Record) -> bool:
    """Whether a restarted system must bring this record back.

    It need not bring back a derived record, an order that the venue never acknowledged (if the venue has it anyway,
    the reconciliation reports it), or an order that ended unfilled.
    """
    if not table[1].durable:
        return False
    if not isinstance(record, Order):
        return True
    is_unacknowledged = record.ord_status == OrdStatus.PENDING_NEW and not record.order_id
    return not is_unacknowledged and (record.is_open or record.cum_qty != 0)


def _order_before_today(record: Record, latest: str, executed: Mapping[str, tuple[int, int]]) -> Order | None:
    """Return an order of an earlier day as it was filled then, if a bust or correction of today had reopened it.

    A system that lost today's change has the closed order in its archive and need not read it back.
    """
    if not isinstance(record, Order) or record.trade_date >= latest or record.key not in executed:
        return None
    lots, notional = executed[record.key]
    if not lots or record.cum_qty - lots < record.order_qty:
        return None
    return replace(
        record,
        cum_qty=record.cum_qty - lots,
        notional=record.notional - notional,
        leaves_qty=0,
        ord_status=OrdStatus.FILLED,
        exec_type=ExecType.TRADE,
        exec_id="",
        exec_ref_id="",
    )


def _has_regressed(previous: Record, current: Record) -> bool:
    """Whether a restored record is older than the remembered one."""
    if isinstance(previous, Order) and isinstance(current, Order):
        return current.cum_qty < previous.cum_qty or (current.is_open and not previous.is_open)
    if isinstance(previous, Execution) and isinstance(current, Execution):
        # After an older backup the venue reports it again, and the current session books it.
        return replace(current, book_date=previous.book_date) != previous
    return False
