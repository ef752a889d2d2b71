"""The full state of a session as one number, so that two runs can be seen to have come together again.

What is summed: every record that any subsystem and the venue hold, what the venue keeps of each open order, the market
as it stands, what waits on the clock, the subject's disk, and what the subject says of its memory. What is left out is
what says how a state was learnt (`Record.told_by`) and what counts connections: sequence numbers, epochs, messages
that have been heard. Two runs whose states are equal in this sense go on alike; `sweep` proves it on a share of its
branches by running them to the end all the same.

The sum is over hashes of single records, so that a record is hashed once, however often the state is taken.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.harness import Session, disk
from holdover.model import Record

_MASK: Final = 2**64 - 1
_KEPT_MAX: Final = 400_000
_encode = msgspec.msgpack.Encoder().encode


def _hash(value: Any) -> int:
    return int.from_bytes(hashlib.blake2b(_encode(value), digest_size=8).digest(), "little")


class StateSum:
    """Sums the states of one session and of its branches. Deterministic in any process."""

    def __init__(self) -> None:
        self._records: dict[int, tuple[Record, int]] = {}
        self._rows: dict[tuple[str, tuple[Any, ...]], int] = {}
        self._bare: dict[type[Record], dict[str, Any]] = {}

    def of(self, session: Session) -> int | None:
        """The state now; None while something is in flight, when no two runs can be compared."""
        if session.subject is None or not session.link.quiet:
            return None
        return (self._held(session) + _hash(self._world(session)) + self._durable(session)) & _MASK

    # -- what is held -------------------------------------------------------------------------------------------

    def _held(self, session: Session) -> int:
        total = 0
        known = self._records
        for (subsystem, kind), kept in session.guard.monitor.layout.tables.items():
            if kind.passing or subsystem == "guard":
                continue
            for record in kept.values():
                found = known.get(id(record))
                total += found[1] if found is not None else self._record(subsystem, kind, record)
        if len(known) > _KEPT_MAX:
            known.clear()
        return total

    def _record(self, subsystem: str, kind: type[Record], record: Record) -> int:
        said = record
        if kind.told_by:
            bare = self._bare.get(kind)
            if bare is None:
                bare = self._bare[kind] = {
                    field.name: field.default for field in msgspec.structs.fields(kind) if field.name in kind.told_by
                }
            said = msgspec.structs.replace(record, **bare)
        value = _hash([subsystem, kind.__name__, said])
        self._records[id(record)] = (record, value)
        return value

    def _world(self, session: Session) -> list[Any]:
        venue, link = session.venue, session.link
        books = [
            [
                book.state(),
                [
                    [order.root_cl_ord_id, order.queue_ahead, order.triggered]
                    for side in (book.buys, book.sells, book.stops)
                    for order in side
                ],
            ]
            for book in venue.by_id
        ]
        timers = [
            [after_ns, owner, name, args if owner == "subject" else None]
            for after_ns, owner, name, args in session.clock.timers()
        ]
        volatile = getattr(session.subject, "volatile", None)
        return [
            session.phase,
            session.trade_date,
            books,
            venue.trade_date,
            venue.is_open,
            len(venue.trades),
            [venue.not_found, venue.refuse_next],
            [link.allowed, link.recovery, max(link.refused_until_ns - session.clock.now_ns, 0)],
            timers,
            session.guard.monitor.state_armed(),
            sorted(freeze.scope for freeze in session.guard.frozen),
            volatile() if volatile is not None else None,
        ]

    # -- the disk -----------------------------------------------------------------------------------------------

    def _durable(self, session: Session) -> int:
        rows: Callable[[Path], Iterable[tuple[Any, ...]]] | None = getattr(session.subject, "rows", None)
        if rows is not None:
            normal: Callable[[tuple[Any, ...]], Any] = getattr(session.subject, "normal_row", list)
            return self._rows_sum("", rows(session.subject_directory), normal)
        total = 0
        for path in disk.files_in(session.subject_directory):
            if path.name.endswith(("-wal", "-shm", "-journal")):
                continue
            name = path.relative_to(session.subject_directory).as_posix()
            if disk.is_sqlite(path):
                total += self._database(name, path)
            else:
                total += _hash([name, hashlib.blake2b(path.read_bytes()).digest()])
        return total

    def _database(self, name: str, path: Path) -> int:
        reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            tables = [row[0] for row in reader.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY 1")]
            return sum(
                self._rows_sum(f"{name}/{table}", reader.execute(f'SELECT * FROM "{table}"'), list) for table in tables
            )
        finally:
            reader.close()

    def _rows_sum(self, table: str, rows: Iterable[tuple[Any, ...]], normal: Callable[[tuple[Any, ...]], Any]) -> int:
        total = 0
        known = self._rows
        for row in rows:
            mark = (table, row)
            value = known.get(mark)
            if value is None:
                value = known[mark] = _hash([table, normal(row)])
            total += value
        if len(known) > _KEPT_MAX:
            known.clear()
        return total
