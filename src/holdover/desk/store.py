"""The persistent state of the desk: one row a record, one transaction a step, in SQLite or PostgreSQL.

All changes of a step are committed together, and nothing is sent before the commit. A kill therefore leaves
the state from before or after the step, and never a sent message that the store does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from holdover.desk.tables import DeskStoreError, SqliteTables, Tables
from holdover.model import (
    Balance,
    CashMovement,
    Execution,
    Intent,
    Order,
    ParentOrder,
    Position,
    PositionAdjustment,
    RealizedPnl,
    Record,
    Restored,
)

R = TypeVar("R", bound=Record)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    kind TEXT NOT NULL, key TEXT NOT NULL, live INTEGER NOT NULL, date TEXT NOT NULL, root TEXT NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS record_live ON record (kind, live, date);
CREATE INDEX IF NOT EXISTS record_root ON record (kind, root);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


_RESTORED_KINDS = (Balance, CashMovement, Intent, Order, ParentOrder, Position, PositionAdjustment, RealizedPnl)
"""The kinds of which a start restores every open record."""


class Store:
    """The records of the desk and a few named values, in `desk.db` of a directory or in other tables."""

    def __init__(self, directory: Path, *, synced: bool, tables: Tables | None = None) -> None:
        self._db = tables or SqliteTables(directory, synced=synced)
        self._db.create(_SCHEMA)
        self._save_statement = self._db.replace_statement("record", ("kind", "key"), ("live", "date", "root", "body"))
        self._set_statement = self._db.replace_statement("meta", ("name",), ("value",))
        self._encode = msgspec.msgpack.Encoder().encode
        self._depth = 0
        self._in_transaction = False
        self._values: dict[str, str] = dict(self._db.execute("SELECT name, value FROM meta").fetchall())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a transaction; a nested one joins the outer one."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        self._depth = 1
        try:
            yield
        except BaseException:
            self._depth = 0
            if self._in_transaction:
                self._in_transaction = False
                self._values.clear()
                self._db.execute("ROLLBACK")
                self._values.update(self._db.execute("SELECT name, value FROM meta").fetchall())
            raise
        self._depth = 0
        self.commit()

    def commit(self) -> None:
        """Commit the writes. A correct desk calls this only at the end of a transaction."""
        if self._in_transaction:
            self._in_transaction = False
            self._db.execute("COMMIT")

    def _execute_write(self, statement: str, values: tuple[object, ...]) -> None:
        if self._depth and not self._in_transaction:  # most steps of a quiet market write nothing
            self._db.execute("BEGIN IMMEDIATE")
            self._in_transaction = True
        self._db.execute(statement, values)

    def save(self, record: Record) -> None:
        """Write a record, replacing the one of the same kind and key.

        Raises `DeskStoreError` when the record has no key: it could never be read back.
        """
        if not record.key:
            raise DeskStoreError(f"{self._db.name}: a record of {type(record).__name__} without a key")
        live, date, root = 1, "", ""
        if isinstance(record, Order):
            live, date, root = int(record.is_open), record.trade_date, record.root_cl_ord_id
        elif isinstance(record, Execution):
            date, root = record.booked_on, record.root_cl_ord_id
        self._execute_write(
            self._save_statement, (type(record).__name__, record.key, live, date, root, self._encode(record))
        )

    def load_all(self, kind: type[R]) -> list[R]:
        """Read every record of a kind, by key."""
        rows = self._db.execute("SELECT key, body FROM record WHERE kind=? ORDER BY key", (kind.__name__,)).fetchall()
        return [self._decode(kind, key, body) for key, body in rows]

    def orders(self, since_date: str) -> list[Order]:
        """Read the orders that are open, or were entered or filled on or after a date, by key."""
        rows = self._db.execute(
            "SELECT key, body FROM record WHERE kind='Order' AND (live=1 OR date>=? OR key IN "
            "(SELECT root FROM record WHERE kind='Execution' AND date>=?)) ORDER BY key",
            (since_date, since_date),
        ).fetchall()
        return [self._decode(Order, key, body) for key, body in rows]

    def order(self, root: str) -> Order | None:
        """Read one order by key, open or closed."""
        row = self._db.execute("SELECT body FROM record WHERE kind='Order' AND key=?", (root,)).fetchone()
        return self._decode(Order, root, row[0]) if row else None

    def executions(self, since_date: str) -> list[Execution]:
        """Read the executions since a date, and all of each order that `orders(since_date)` returns, by key."""
        rows = self._db.execute(
            "SELECT key, body FROM record WHERE kind='Execution' AND (date>=? OR root IN (SELECT key FROM record "
            "WHERE kind='Order' AND (live=1 OR date>=?)) OR root IN (SELECT root FROM record WHERE kind='Execution' "
            "AND date>=?)) ORDER BY key",
            (since_date, since_date, since_date),
        ).fetchall()
        return [self._decode(Execution, key, body) for key, body in rows]

    def execution(self, key: str) -> Execution | None:
        """Read one execution by key, of any age."""
        row = self._db.execute("SELECT body FROM record WHERE kind='Execution' AND key=?", (key,)).fetchone()
        return self._decode(Execution, key, row[0]) if row else None

    def _decode(self, kind: type[R], key: str, body: bytes) -> R:
        """Decode a record. Raises `DeskStoreError` when its row is damaged or holds another record."""
        try:
            record = msgspec.msgpack.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise DeskStoreError(f"{self._db.name}: the row of {kind.__name__} {key} is damaged: {error}") from error
        if record.key != key:
            raise DeskStoreError(f"{self._db.name}: the row of {kind.__name__} {key} holds {record.key}")
        return record

    def compare_restored(self, records: Iterable[Record]) -> Restored:
        """Compare the open records in the store with what a start has restored from them (`records`)."""
        restored_records = {
            (type(record).__name__, record.key): record for record in records if not isinstance(record, Execution)
        }
        rows = self._db.execute(
            "SELECT kind, key, body FROM record WHERE kind IN (?,?,?,?,?,?,?,?) AND live=1 ORDER BY kind, key",
            [kind.__name__ for kind in _RESTORED_KINDS],
        ).fetchall()
        stored = {(kind, key): body for kind, key, body in rows}
        restored_keys = [
            key for key in restored_records if key in stored or getattr(restored_records[key], "is_open", True)
        ]
        differing = [
            restored_records[key]
            for key in restored_keys
            if key in stored and self._encode(restored_records[key]) != stored[key]
        ]
        return Restored(
            store=self._db.name,
            stored=len(stored),
            restored=len(restored_keys),
            differing=len(differing),
            first=repr(differing[0]) if differing else "",
        )

    def get(self, name: str, default: str = "") -> str:
        """Return a named value."""
        return self._values.get(name, default)

    def get_int(self, name: str) -> int:
        """Return a named value that is a count; 0 when there is none. Raises `DeskStoreError` when it is none."""
        text = self.get(name, "0")
        if not text.isdecimal():
            raise DeskStoreError(f"{self._db.name}: {name} is {text!r}, should be a whole number from 0 on")
        return int(text)

    def set(self, name: str, value: str) -> None:
        """Write a named value. Raises `DeskStoreError` when the name is empty."""
        if not name:
            raise DeskStoreError(f"{self._db.name}: a value {value!r} without a name")
        self._execute_write(self._set_statement, (name, value))
        self._values[name] = value

    def close(self) -> None:
        """Close the database."""
        self._db.close()
