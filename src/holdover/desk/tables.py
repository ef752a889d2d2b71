"""The database of the desk: a SQLite file, or a schema on a PostgreSQL server.

Both run the same statements, with `?` for a value. A lost server raises `DeskStoreError`: uncommitted changes
are lost, and a desk without its store sends nothing. A server that does not answer blocks the desk, which
then sends nothing either.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

_LOCK: Final = 0x6465736B  # the advisory lock of the one desk that uses a schema
_TAKE_S: Final = 10  # how long the server may need to notice that the last desk has ended


class DeskStoreError(RuntimeError):
    """The desk's store cannot be opened, read or written. The message says which one and why."""


class RowCursor(Protocol):
    """The rows that a statement returned."""

    def fetchone(self) -> Any:
        """Return the next row; None after the last."""

    def fetchall(self) -> list[Any]:
        """Return all remaining rows."""


class Tables(Protocol):
    """The database operations that the store needs."""

    name: str

    def execute(self, statement: str, values: Sequence[object] = ()) -> RowCursor:
        """Run one statement. Raises `DeskStoreError`."""

    def replace_statement(self, table: str, key: Sequence[str], rest: Sequence[str]) -> str:
        """Return the statement that inserts a row or replaces the one of the same key."""

    def create(self, schema: str) -> None:
        """Create missing tables. Raises `DeskStoreError`."""

    def close(self) -> None:
        """Close the database."""


class SqliteTables:
    """`desk.db` in a directory. With `synced` every commit waits for the disk."""

    name = "desk.db"

    def __init__(self, directory: Path, *, synced: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(directory / self.name, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'FULL' if synced else 'OFF'}")
        if not synced:
            self._db.execute("PRAGMA wal_autocheckpoint=32")  # cheap without syncs, and the log stays short
        self.execute = self._db.execute  # direct: every mutation of the desk goes through it

    def replace_statement(self, table: str, key: Sequence[str], rest: Sequence[str]) -> str:
        """Return the statement that inserts a row or replaces the one of the same key."""
        return f"INSERT OR REPLACE INTO {table} VALUES ({','.join('?' * (len(key) + len(rest)))})"

    def create(self, schema: str) -> None:
        """Create missing tables."""
        self._db.executescript(schema)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class PostgresTables:
    """A schema on a PostgreSQL server, for one desk at a time; a second desk is refused.

    `url` is a libpq connection string. It may contain a password and never appears in a message.
    """

    def __init__(self, url: str, schema: str = "desk") -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ValueError(
                "a desk's store on PostgreSQL needs psycopg: pip install 'holdover[postgresql]'"
            ) from error
        if not schema.isidentifier():
            raise ValueError(f"[desk] schema: {schema!r} is no plain name; take letters, digits and underscores")
        try:
            parameters = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as error:
            raise ValueError("the desk's URL is none that PostgreSQL understands: postgresql://host/base") from error
        self.name = f"postgresql:{parameters.get('host', 'localhost')}/{parameters.get('dbname', '')}"
        self._error = psycopg.Error
        self._schema = schema
        try:
            self._db = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=_TAKE_S,
                options=f"-c search_path={schema} -c lock_timeout={_TAKE_S * 1000}",
            )
            self._db.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (_LOCK, schema))
        except psycopg.errors.LockNotAvailable:
            raise DeskStoreError(f"{self.name}: another desk has the schema {schema}") from None
        except psycopg.Error as error:
            raise DeskStoreError(f"{self.name}: the desk's store cannot be opened: {error}") from error

    def replace_statement(self, table: str, key: Sequence[str], rest: Sequence[str]) -> str:
        """Return the statement that inserts a row or replaces the one of the same key."""
        values = ",".join("?" * (len(key) + len(rest)))
        changed = ", ".join(f"{name}=excluded.{name}" for name in rest)
        return f"INSERT INTO {table} VALUES ({values}) ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}"

    def create(self, schema: str) -> None:
        """Create missing tables. Keys are ordered by their bytes, as in SQLite."""
        adapted_schema = schema.replace("BLOB", "BYTEA").replace("WITHOUT ROWID", "").replace("INTEGER", "BIGINT")
        self.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
        for statement in adapted_schema.replace("TEXT", 'TEXT COLLATE "C"').split(";"):
            if statement.strip():
                self.execute(statement)

    def execute(self, statement: str, values: Sequence[object] = ()) -> RowCursor:
        """Run one statement. Raises `DeskStoreError`."""
        query = "BEGIN" if statement == "BEGIN IMMEDIATE" else statement.replace("?", "%s")
        try:
            return self._db.execute(query, values or None)
        except self._error as error:
            raise DeskStoreError(f"{self.name}: the desk's store cannot be used: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._db.close()
