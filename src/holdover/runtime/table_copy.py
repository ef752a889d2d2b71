"""Copies of a monitor's tables that are made in slices, while other threads go on recording.

A copy of a million records in one piece holds the interpreter, and with it every thread, for 20 to 100 ms. `KeyLog`
therefore knows the keys of each table in chunks; `TableCopier` copies chunk by chunk, takes the guard's lock for each,
and afterwards applies the mutations that were recorded meanwhile. If anything else has changed the tables meanwhile (a
restart, an overnight boundary), the tables are copied in one piece instead: correct, but slower.

The containers are dicts of strings and records and tuples of strings on purpose: the garbage collector does not look
into them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

from holdover.model import Record
from holdover.runtime.journal import MutationEntry
from holdover.runtime.tables import RecordTables, Table, TableKey

_CHUNK_KEYS: Final = 4_096
_CAPTURE_MAX: Final = 200_000


class KeyLog:
    """The keys of each table in the order of their arrival, in chunks. It may list a key twice, or one that is gone."""

    def __init__(self) -> None:
        self._chunks: dict[TableKey, list[tuple[str, ...]]] = {}
        self._newest: dict[TableKey, list[str]] = {}

    def add(self, table: TableKey, key: str) -> None:
        """Add the key of a record that is new in its table."""
        newest = self._newest.get(table)
        if newest is None:
            newest = self._newest[table] = []
        newest.append(key)
        if len(newest) >= _CHUNK_KEYS:
            self._chunks.setdefault(table, []).append(tuple(newest))
            newest.clear()

    def reset(self, by_table: Mapping[TableKey, Table]) -> None:
        """List the keys of these tables and no others."""
        self._chunks.clear()
        self._newest.clear()
        for table, records in by_table.items():
            for key in records:
                self.add(table, key)

    def chunks_of(self, table: TableKey) -> list[tuple[str, ...]]:
        """Return the keys of a table in chunks."""
        return [*self._chunks.get(table, ()), tuple(self._newest.get(table, ()))]


class MutationCapture:
    """Collects the mutations from one moment on, for `TableCopier`. It gives up when there are too many.

    `recorded` are those of the guard's steps, as the flight recorder has them.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[TableKey, Record]] = []
        self.recorded: list[MutationEntry] = []
        self.is_complete = True

    def add(self, table: TableKey, record: Record) -> None:
        """Add a mutation."""
        if len(self.entries) < _CAPTURE_MAX:
            self.entries.append((table, record))
        elif self.is_complete:
            self.is_complete = False


class TableCopier:
    """Copies tables: `copy_slices` first, then `finish` under the guard's lock.

    `capture` has collected the mutations since the copier was made.
    """

    def __init__(self, tables: RecordTables, key_log: KeyLog, capture: MutationCapture) -> None:
        if capture.entries or not capture.is_complete:
            raise ValueError(
                f"the capture has {len(capture.entries)} older mutations; a copy needs one that begins now"
            )
        self._tables, self._key_log, self._capture = tables, key_log, capture
        self._change_count = tables.change_count
        self._copied: dict[TableKey, Table] = {}

    def copy_slices(self, lock: AbstractContextManager[object], give_way: Callable[[], None]) -> None:
        """Copy every table in slices, each under the lock."""
        with lock:
            chunks_by_table = {table: self._key_log.chunks_of(table) for table in self._tables.by_table}
        for table, chunks in chunks_by_table.items():
            copied = self._copied.setdefault(table, {})
            for chunk in chunks:
                with lock:
                    get = self._tables.by_table[table].get
                    for key in chunk:
                        record = get(key)
                        if record is not None:
                            copied[key] = record
                give_way()

    def finish(self) -> dict[TableKey, Table]:
        """Return the tables as they are now. Call it under the lock."""
        by_table, copied = self._tables.by_table, self._copied
        if self._capture.is_complete and self._tables.change_count == self._change_count:
            for table, record in self._capture.entries:
                copied.setdefault(table, {})[record.key] = record
            if all(len(copied.get(table, ())) == len(records) for table, records in by_table.items()):
                return copied
        self._key_log.reset(by_table)
        return {table: records.copy() for table, records in by_table.items()}
