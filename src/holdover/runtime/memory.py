"""The stored form of a monitor's memory: what a later process must know of everything that came before.

Tables are stored by the names of subsystem and kind, because the classes of another process are other objects. The
totals are not stored: they follow from the records, except for those of retired records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from holdover.catalogue import Adoption, Sum
from holdover.model import Record
from holdover.runtime.cells import StoredAxes
from holdover.runtime.check import Touched
from holdover.runtime.deadlines import NEVER_NS, DeadlineKey
from holdover.runtime.effort import LinkEffort
from holdover.runtime.tables import Table, TableKey
from holdover.state import StateError, StoredFormat, decode_stored, encode_msgpack, encode_stored
from holdover.state.encoding import encode_header, encode_in_pieces

if TYPE_CHECKING:
    from holdover.runtime.monitor import Monitor

MEMORY_FORMAT: Final = StoredFormat(
    name="monitor memory",
    version=3,
    next_step="remove it to begin without the records of the previous process",
)


class StoredTable(msgspec.Struct, array_like=True):
    """The records of one subsystem and kind."""

    subsystem: str
    kind: str
    records: list[dict[str, Any]]


class StoredRetired(msgspec.Struct, array_like=True):
    """What retired records contribute to one sum, by key."""

    subsystem: str
    kind: str
    of: str
    by: str
    amounts: dict[str, int]


class StoredDeadline(msgspec.Struct, array_like=True):
    """One running deadline. `index` counts the predicates of the invariant from 0."""

    invariant: str
    index: int
    subsystem: str
    key: str
    due_ns: int


class MonitorMemory(msgspec.Struct, kw_only=True):
    """The stored form of a monitor's state."""

    NOT_STORED: ClassVar[Mapping[str, str]] = {
        "cause": "set by whoever records next",
        "boundary": "empty between two boundaries, and nothing is stored inside one",
        "undo_log": "open steps do not outlive the process",
        "idempotence": "the first reconciliation after a restart has nothing to be compared with",
        "totals": "recomputed from the records",
        "contributions": "recomputed from the records",
        "removal_count": "counts what a rollback of this process must put in order",
        "timers": "rebuilt from the deadlines",
        "next_ns": "rebuilt from the deadlines",
        "tally": "the counts of one process; coverage adds the processes up",
        "recent": "the counts of the last seconds begin again",
        "alternatives": "recomputed from the records",
        "is_restoring": "false between two calls",
        "restored_orders": "a recovery that the process did not complete begins again in the next one",
        "restored_parents": "a recovery that the process did not complete begins again in the next one",
        "archived": "a recovery that the process did not complete begins again in the next one",
        "restored_positions": "a recovery that the process did not complete begins again in the next one",
    }

    digest: str
    trade_date: str
    mutations: int
    breaches: int
    now_ns: int
    evaluated: int
    by_table: list[StoredTable]
    retired: list[StoredRetired]
    retired_orders: list[tuple[str, str, str]]
    due_by_key: list[StoredDeadline]
    is_paused: bool
    unrestored: list[StoredTable]
    restored_counts: dict[str, int]
    uncompared: list[tuple[str, str, str]]
    cells: StoredAxes
    present: list[str] = []
    adopted: list[tuple[str, str, Adoption]] = []
    unconfirmed: list[tuple[str, str]] = []
    restored_kinds: list[str] = []
    efforts: dict[str, LinkEffort] = {}
    exercised: list[str] = []


def encode_memory(monitor: Monitor) -> bytes:
    """Encode a monitor's memory. Raises `StateError` when it is in a state that cannot be."""
    memory = _store_memory(monitor)
    memory.by_table = _store_tables(monitor.tables.by_table)
    memory.due_by_key = _store_deadlines(_name_checks(monitor), monitor.deadlines.running())
    groups = monitor.compiler.groups
    memory.uncompared = [(*groups[number].table_name, key) for number, key in monitor.comparison.uncompared]
    _check_memory(memory)
    return encode_stored(MEMORY_FORMAT, memory)


class MemorySnapshot:
    """A monitor's memory at one moment, which another thread may encode while the monitor goes on.

    Make it under the guard's lock. It holds references only, because records never change. `tables` are the records,
    when another thread has copied them in slices; see `table_copy`.
    """

    def __init__(self, monitor: Monitor, tables: dict[TableKey, Table] | None = None) -> None:
        by_table = monitor.tables.by_table
        self._tables = {table: records.copy() for table, records in by_table.items()} if tables is None else tables
        self._memory = _store_memory(monitor)
        self._memory.retired = [
            msgspec.structs.replace(entry, amounts=entry.amounts.copy()) for entry in self._memory.retired
        ]
        self._memory.retired_orders = self._memory.retired_orders.copy()
        self._memory.restored_counts = self._memory.restored_counts.copy()
        self._deadlines = monitor.deadlines.running()
        self._uncompared = tuple(monitor.comparison.uncompared)
        self._check_names = _name_checks(monitor)
        self._table_names = [group.table_name for group in monitor.compiler.groups]
        self.mutations = monitor.mutations

    def encode(
        self, convert: Callable[[Any], Any] | None = None, give_way: Callable[[], None] = lambda: None
    ) -> Iterator[bytes]:
        """Yield the memory encoded in pieces, as `encode_memory` encodes it; see `encode_in_pieces`.

        Raises `StateError` when the memory is in a state that cannot be.
        """
        memory = self._memory
        memory.by_table = _store_tables(self._tables, lambda records: records)
        memory.due_by_key = _store_deadlines(self._check_names, self._deadlines)
        memory.uncompared = [(*self._table_names[number], key) for number, key in self._uncompared]
        _check_memory(memory)
        fields = {"format": MEMORY_FORMAT.name, "version": MEMORY_FORMAT.version}
        fields |= {name: getattr(memory, name) for name in memory.__struct_fields__}
        yield encode_header(len(fields), dict)
        for name, value in fields.items():
            yield encode_msgpack(name)
            if convert is not None and not isinstance(value, list | tuple | dict):
                yield encode_msgpack(convert({name: value})[name])
            else:
                yield from encode_in_pieces(value, convert, give_way)


def _store_memory(monitor: Monitor) -> MonitorMemory:
    tables = monitor.tables
    return MonitorMemory(
        digest=monitor.catalogue.digest,
        trade_date=monitor.trade_date,
        mutations=monitor.mutations,
        breaches=monitor.breaches,
        now_ns=monitor.now_ns,
        evaluated=monitor.check_count,
        by_table=[],
        retired=[
            StoredRetired(summed.subsystem, summed.kind.__name__, summed.of, summed.by, amounts)
            for summed, amounts in tables.retired.items()
            if amounts
        ],
        retired_orders=tables.retired_orders,
        due_by_key=[],
        is_paused=monitor.deadlines.is_paused,
        unrestored=_store_tables(monitor.recovery.unrestored),
        restored_counts=monitor.recovery.restored_counts,
        uncompared=[],
        cells=monitor.cells.export_state(),
        present=sorted(monitor.compiler.presence.present),
        adopted=[(*mark, adoption) for mark, adoption in sorted(tables.adopted.items(), key=lambda item: item[0])],
        unconfirmed=sorted(tables.unconfirmed),
        exercised=sorted({name for name, count in monitor.evaluation_counts().items() if count} | monitor.exercised),
        efforts={name: msgspec.structs.replace(effort) for name, effort in monitor.efforts.by_link.items()},
        restored_kinds=sorted(monitor.recovery.restored_kinds),
    )


def decode_memory(data: bytes) -> MonitorMemory:
    """Decode a monitor's memory. Raises `StateError` when it is damaged or of another version."""
    memory = decode_stored(MEMORY_FORMAT, MonitorMemory, data)
    _check_memory(memory)
    return memory


def _check_memory(memory: MonitorMemory) -> None:
    """Raise `StateError` for a memory that cannot be; checked before writing and after reading."""
    problem = ""
    if min(memory.mutations, memory.breaches, memory.now_ns, memory.evaluated) < 0:
        problem = "a count or the time is negative"
    elif any(not 0 <= deadline.due_ns < NEVER_NS for deadline in memory.due_by_key):
        problem = "a deadline has a time that no clock shows"
    elif any(count < 0 for count in memory.restored_counts.values()):
        problem = "a subsystem restored less than no record"
    elif len({(table.subsystem, table.kind) for table in memory.by_table}) != len(memory.by_table):
        problem = "a table occurs twice"
    elif any(not table.records for table in (*memory.by_table, *memory.unrestored)):
        problem = "a table without a record is stored"
    elif len({(entry.invariant, entry.index, entry.subsystem, entry.key) for entry in memory.due_by_key}) != len(
        memory.due_by_key
    ):
        problem = "a deadline runs twice"
    elif any(deadline.index < 0 for deadline in memory.due_by_key):
        problem = "a predicate has a negative index"
    elif not memory.digest:
        problem = "the digest of the catalogue is missing"
    if problem:
        raise StateError(f"the {MEMORY_FORMAT.name} is damaged: {problem}; {MEMORY_FORMAT.next_step}")


def kinds_by_name() -> dict[str, type[Record]]:
    """Return every kind of record defined in this process, including users' kinds, by class name."""
    kinds: dict[str, type[Record]] = {}
    waiting = list(Record.__subclasses__())
    while waiting:
        kind = waiting.pop(0)
        kinds.setdefault(kind.__name__, kind)
        waiting += kind.__subclasses__()
    return kinds


def restore_tables(stored_tables: list[StoredTable]) -> dict[TableKey, Table]:
    """Convert stored tables to records.

    Raises `StateError` for a kind that is not defined here, and for a record that does not fit it.
    """
    kinds = kinds_by_name()
    tables: dict[TableKey, Table] = {}
    for stored in stored_tables:
        kind = kinds.get(stored.kind)
        if kind is None:
            raise StateError(
                f"the {MEMORY_FORMAT.name} holds records of the kind {stored.kind}, which is not defined here; "
                f"name the catalogue that defines it"
            )
        table = tables.setdefault((stored.subsystem, kind), {})
        for fields in stored.records:
            try:
                record = msgspec.convert(fields, kind)
            except msgspec.ValidationError as error:
                raise StateError(f"the {MEMORY_FORMAT.name} is damaged: a record of {stored.kind}: {error}") from error
            if record.key in table:
                raise StateError(f"the {MEMORY_FORMAT.name} is damaged: {stored.kind} {record.key} is stored twice")
            table[record.key] = record
    return tables


def restore_retired(stored: list[StoredRetired], sums: list[Sum]) -> dict[Sum, dict[str, int]]:
    """Return what retired records contribute to the sums of this catalogue; other sums are dropped."""
    by_name = {(summed.subsystem, summed.kind.__name__, summed.of, summed.by): summed for summed in sums}
    named = {(entry.subsystem, entry.kind, entry.of, entry.by): entry.amounts for entry in stored}
    return {summed: named[name] for name, summed in by_name.items() if name in named}


def restore_deadlines(stored: list[StoredDeadline], monitor: Monitor) -> dict[DeadlineKey, int]:
    """Return the running deadlines by the checks of this catalogue; those of an unknown predicate are dropped."""
    numbers = {name: number for number, name in enumerate(_name_checks(monitor))}
    return {
        (numbers[deadline.invariant, deadline.index], deadline.subsystem, deadline.key): deadline.due_ns
        for deadline in stored
        if (deadline.invariant, deadline.index) in numbers
    }


def _store_deadlines(names: list[tuple[str, int]], due_by_key: Mapping[DeadlineKey, int]) -> list[StoredDeadline]:
    return [
        StoredDeadline(*names[number], subsystem, key, due_ns)
        for (number, subsystem, key), due_ns in due_by_key.items()
    ]


def _name_checks(monitor: Monitor) -> list[tuple[str, int]]:
    """Return the invariant of each check and the index of its predicate, by the check's number."""
    counts: dict[str, int] = {}
    names: list[tuple[str, int]] = []
    for check in monitor.compiler.checks:
        index = counts.get(check.entry.name, 0)
        counts[check.entry.name] = index + 1
        names.append((check.entry.name, index))
    return names


def restore_marks(names: list[tuple[str, str, str]], monitor: Monitor) -> Touched:
    """Return the keys that wait for a comparison with the venue, by the groups of this process."""
    return {
        (group.number, key): None
        for subsystem, kind, key in names
        for group in monitor.compiler.groups
        if group.reconciled and group.table_name == (subsystem, kind)
    }


def _store_tables(
    tables: Mapping[TableKey, Mapping[str, Record]], copy: Callable[[Iterable[Record]], Any] = list
) -> list[StoredTable]:
    """Return the tables that hold records, sorted: which empty tables exist depends on what was generated when."""
    return [
        StoredTable(table[0], table[1].__name__, copy(records.values()))
        for table, records in sorted(tables.items(), key=lambda item: (item[0][0], item[0][1].__name__))
        if records
    ]
