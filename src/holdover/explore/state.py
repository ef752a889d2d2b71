"""The full state of a session as one number, to detect that two runs are in the same state again.

The sum covers every record of the subsystems and the venue, the queue position of each open order, the
market, the timers, the subject's disk, and the memory that the subject declares. It leaves out how a state
became known (`Record.told_by`), and counters of the connection: sequence numbers, epochs, messages received.
Two runs with equal sums continue alike; the sweep checks this by running a share of its rejoined trials to
the close.

The sum adds hashes of single records, so each record is hashed once, however often the state is taken.
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
from holdover.state import encode_msgpack

_MASK: Final = 2**64 - 1
_CACHE_MAX: Final = 400_000
_encode = encode_msgpack


def _hash(value: Any) -> int:
    return int.from_bytes(hashlib.blake2b(_encode(value), digest_size=8).digest(), "little")


class StateSum:
    """Computes state sums of one session and its branches. The result is the same in every process."""

    def __init__(self) -> None:
        self._record_hashes: dict[int, tuple[Record, int]] = {}
        self._row_hashes: dict[tuple[str, tuple[Any, ...]], int] = {}
        self._bare_fields: dict[type[Record], dict[str, Any]] = {}

    def compute(self, session: Session) -> int | None:
        """Return the sum of the current state; None while a message is in flight or the subject is down."""
        if session.subject is None or not session.link.is_quiet:
            return None
        return (self._sum_records(session) + _hash(self._world_state(session)) + self._sum_disk(session)) & _MASK

    # -- records and world --------------------------------------------------------------------------------------

    def _sum_records(self, session: Session) -> int:
        total = 0
        hashes = self._record_hashes
        for (subsystem, kind), records in session.guard.monitor.all_records().items():
            if kind.per_connection or subsystem == "guard":
                continue
            for record in records.values():
                entry = hashes.get(id(record))
                total += entry[1] if entry is not None else self._hash_record(subsystem, kind, record)
        if len(hashes) > _CACHE_MAX:
            hashes.clear()
        return total

    def _hash_record(self, subsystem: str, kind: type[Record], record: Record) -> int:
        bare_record = record
        if kind.provenance_fields:
            bare = self._bare_fields.get(kind)
            if bare is None:
                bare = self._bare_fields[kind] = {
                    field.name: field.default
                    for field in msgspec.structs.fields(kind)
                    if field.name in kind.provenance_fields
                }
            bare_record = msgspec.structs.replace(record, **bare)
        value = _hash([subsystem, kind.__name__, bare_record])
        self._record_hashes[id(record)] = (record, value)
        return value

    def _world_state(self, session: Session) -> list[Any]:
        venue, link = session.venue, session.link
        books = [
            [
                book.market_data(),
                [
                    [order.root_cl_ord_id, order.queue_ahead, order.is_triggered]
                    for side in (book.buys, book.sells, book.stops)
                    for order in side
                ],
            ]
            for book in venue.books.values()
        ]
        timers = [
            [after_ns, owner, name, args if owner == "subject" else None]
            for after_ns, owner, name, args in session.clock.pending_timers()
        ]
        volatile = getattr(session.subject, "volatile_state", None)
        return [
            session.phase,
            session.trade_date,
            books,
            venue.trade_date,
            venue.is_open,
            len(venue.trades),
            [venue.not_found_count, venue.refuse_count],
            [link.is_allowed, link.recovery, max(link.refused_until_ns - session.clock.now_ns, 0)],
            timers,
            session.guard.monitor.remaining_times(),
            sorted(freeze.scope for freeze in session.guard.active_freezes),
            volatile() if volatile is not None else None,
        ]

    # -- the disk -----------------------------------------------------------------------------------------------

    def _sum_disk(self, session: Session) -> int:
        rows: Callable[[Path], Iterable[tuple[Any, ...]]] | None = getattr(session.subject, "rows", None)
        if rows is not None:
            normal: Callable[[tuple[Any, ...]], Any] = getattr(session.subject, "normalize_row", list)
            return self._sum_rows("", rows(session.disk.directory), normal)
        total = 0
        for path in disk.list_files(session.disk.directory):
            if path.name.endswith(("-wal", "-shm", "-journal")):
                continue
            name = path.relative_to(session.disk.directory).as_posix()
            if disk.is_sqlite(path):
                total += self._sum_database(name, path)
            else:
                total += _hash([name, hashlib.blake2b(path.read_bytes()).digest()])
        return total

    def _sum_database(self, name: str, path: Path) -> int:
        reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            tables = [row[0] for row in reader.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY 1")]
            return sum(
                self._sum_rows(f"{name}/{table}", reader.execute(f'SELECT * FROM "{table}"'), list) for table in tables
            )
        finally:
            reader.close()

    def _sum_rows(self, table: str, rows: Iterable[tuple[Any, ...]], normal: Callable[[tuple[Any, ...]], Any]) -> int:
        total = 0
        hashes = self._row_hashes
        for row in rows:
            mark = (table, row)
            value = hashes.get(mark)
            if value is None:
                value = hashes[mark] = _hash([table, normal(row)])
            total += value
        if len(hashes) > _CACHE_MAX:
            hashes.clear()
        return total
