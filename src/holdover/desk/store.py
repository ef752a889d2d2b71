"""The desk's memory on disk: one row a record, one transaction a step, in SQLite or PostgreSQL.

Everything that a step changes is committed together, and nothing is sent before the commit: a kill at any moment
leaves the books as they were before the step or as they are after it, and never a message out that nobody remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from holdover.desk.tables import SqliteTables, Tables
from holdover.model import Balance, Execution, Order, ParentOrder, Position, Record, Restored

R = TypeVar("R", bound=Record)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    kind TEXT NOT NULL, key TEXT NOT NULL, live INTEGER NOT NULL, date TEXT NOT NULL, root TEXT NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS record_live ON record (kind, live, date);
CREATE INDEX IF NOT EXISTS record_root ON record (kind, root);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Store:
    """The desk's records and a few named values, in `desk.db` of a directory or in other tables."""

    def __init__(self, directory: Path, *, synced: bool, tables: Tables | None = None) -> None:
        self._db = tables or SqliteTables(directory, synced=synced)
        self._db.create(_SCHEMA)
        self._put = self._db.replacing("record", ("kind", "key"), ("live", "date", "root", "body"))
        self._set = self._db.replacing("meta", ("name",), ("value",))
        self._encode = msgspec.msgpack.Encoder().encode
        self._depth = 0
        self._begun = False
        self._named: dict[str, str] = dict(self._db.execute("SELECT name, value FROM meta").fetchall())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; inside another transaction it is part of that one."""
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
            if self._begun:
                self._begun = False
                self._named.clear()
                self._db.execute("ROLLBACK")
                self._named.update(self._db.execute("SELECT name, value FROM meta").fetchall())
            raise
        self._depth = 0
        self.commit()

    def commit(self) -> None:
        """What has been written is on the disk: at a transaction's end, and nowhere else in a desk that is right."""
        if self._begun:
            self._begun = False
            self._db.execute("COMMIT")

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        if self._depth and not self._begun:  # most steps of a quiet market change nothing that must be kept
            self._db.execute("BEGIN IMMEDIATE")
            self._begun = True
        self._db.execute(statement, values)

    def put(self, record: Record) -> None:
        """Write one record over the one of its kind and key."""
        live, date, root = 1, "", ""
        if isinstance(record, Order):
            live, date, root = int(record.is_open), record.trade_date, record.root_cl_ord_id
        elif isinstance(record, Execution):
            date, root = record.booked_on, record.root_cl_ord_id
        self._write(self._put, (type(record).__name__, record.key, live, date, root, self._encode(record)))

    def all(self, kind: type[R]) -> list[R]:
        """Every record of a kind, by key."""
        rows = self._db.execute("SELECT body FROM record WHERE kind=? ORDER BY key", (kind.__name__,)).fetchall()
        return [msgspec.msgpack.decode(body, type=kind) for (body,) in rows]

    def orders(self, since: str) -> list[Order]:
        """The orders that are open, were entered or were filled on or after a date, by key."""
        rows = self._db.execute(
            "SELECT body FROM record WHERE kind='Order' AND (live=1 OR date>=? OR key IN "
            "(SELECT root FROM record WHERE kind='Execution' AND date>=?)) ORDER BY key",
            (since, since),
        ).fetchall()
        return [msgspec.msgpack.decode(body, type=Order) for (body,) in rows]

    def order(self, root: str) -> Order | None:
        """One order by its key, open or not."""
        row = self._db.execute("SELECT body FROM record WHERE kind='Order' AND key=?", (root,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=Order) if row else None

    def executions(self, since: str) -> list[Execution]:
        """The executions booked on or after a date, and all of every order that `orders(since)` gives; by key."""
        rows = self._db.execute(
            "SELECT body FROM record WHERE kind='Execution' AND (date>=? OR root IN (SELECT key FROM record "
            "WHERE kind='Order' AND (live=1 OR date>=?)) OR root IN (SELECT root FROM record WHERE kind='Execution' "
            "AND date>=?)) ORDER BY key",
            (since, since, since),
        ).fetchall()
        return [msgspec.msgpack.decode(body, type=Execution) for (body,) in rows]

    def execution(self, key: str) -> Execution | None:
        """One execution by its key, however old."""
        row = self._db.execute("SELECT body FROM record WHERE kind='Execution' AND key=?", (key,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=Execution) if row else None

    def compared(self, records: Iterable[Record]) -> Restored:
        """What is open and held there, beside what a start has made of it: `records`."""
        made = {(type(one).__name__, one.key): one for one in records if not isinstance(one, Execution)}
        rows = self._db.execute(
            "SELECT kind, key, body FROM record WHERE kind IN (?,?,?,?) AND live=1 ORDER BY kind, key",
            [kind.__name__ for kind in (Balance, Order, ParentOrder, Position)],
        ).fetchall()
        stored = {(kind, key): body for kind, key, body in rows}
        back = [one for one in made if one in stored or getattr(made[one], "is_open", True)]
        differing = [made[one] for one in back if one in stored and self._encode(made[one]) != stored[one]]
        return Restored(
            store=self._db.name,
            stored=len(stored),
            restored=len(back),
            differing=len(differing),
            first=repr(differing[0]) if differing else "",
        )

    def get(self, name: str, default: str = "") -> str:
        """A named value."""
        return self._named.get(name, default)

    def set(self, name: str, value: str) -> None:
        """Write a named value."""
        self._write(self._set, (name, value))
        self._named[name] = value

    def close(self) -> None:
        """Let go of it."""
        self._db.close()
