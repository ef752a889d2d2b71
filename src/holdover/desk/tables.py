"""Where the desk's rows lie: a SQLite file of its own, or a schema on a PostgreSQL server.

Both take the same statements, with `?` for a value. A server that is lost is a `StoreLost`: what was not committed is
not so, and a desk without its store sends nothing. A server that does not answer holds the desk still, which lets
nothing out either.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

_LOCK: Final = 0x6465736B  # of the one desk that has a schema
_TAKE_S: Final = 10  # how long the last desk's end may take to be known to the server


class StoreLost(RuntimeError):
    """The desk's store cannot be opened, read or written; the message says which one and why."""


class Rows(Protocol):
    """What a statement has returned."""

    def fetchone(self) -> Any:
        """The next row, None after the last."""

    def fetchall(self) -> list[Any]:
        """All of them."""


class Tables(Protocol):
    """What the store needs of a database."""

    name: str

    def execute(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """Run one statement. Raises `StoreLost`."""

    def replacing(self, table: str, key: Sequence[str], rest: Sequence[str]) -> str:
        """The statement that writes a row over the one of the same key, all columns in their order."""

    def create(self, schema: str) -> None:
        """Create what is not there yet. Raises `StoreLost`."""

    def close(self) -> None:
        """Let go of it."""


class SqliteTables:
    """`desk.db` of a directory. `synced` waits for the disk at every commit."""

    name = "desk.db"

    def __init__(self, directory: Path, *, synced: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(directory / self.name, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'FULL' if synced else 'OFF'}")
        if not synced:
            self._db.execute("PRAGMA wal_autocheckpoint=32")  # without syncs it costs little, and the log stays short
        self.execute = self._db.execute  # nothing between: every mutation of the desk goes through it

    def replacing(self, table: str, key: Sequence[str], rest: Sequence[str]) -> str:
        """The statement that writes a row over the one of the same key."""
        return f"INSERT OR REPLACE INTO {table} VALUES ({','.join('?' * (len(key) + len(rest)))})"

    def create(self, schema: str) -> None:
        """Create what is not there yet."""
        self._db.executescript(schema)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class PostgresTables:
    """A schema on a PostgreSQL server, for one desk at a time: a second one is refused.

    `url` is a libpq connection string; it may hold a password and is never part of a message.
    """

    def __init__(self, url: str, schema: str = "desk") -> None:
        try:
            import psycopg
        except ImportError as problem:
            raise ValueError(
                "a desk's store on PostgreSQL needs psycopg: pip install 'holdover[postgresql]'"
            ) from problem
        if not schema.isidentifier():
            raise ValueError(f"[desk] schema: {schema!r} is no plain name; take letters, digits and underscores")
        try:
            told = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as problem:
            raise ValueError("the desk's URL is none that PostgreSQL understands: postgresql://host/base") from problem
        self.name = f"postgresql:{told.get('host', 'localhost')}/{told.get('dbname', '')}"
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
            raise StoreLost(f"{self.name}: another desk has the schema {schema}") from None
        except psycopg.Error as problem:
            raise StoreLost(f"{self.name}: the desk's store cannot be opened: {problem}") from problem

    def replacing(self, table: str, key: Sequence[str], rest: Sequence[str]) -> str:
        """The statement that writes a row over the one of the same key."""
        values = ",".join("?" * (len(key) + len(rest)))
        changed = ", ".join(f"{name}=excluded.{name}" for name in rest)
        return f"INSERT INTO {table} VALUES ({values}) ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}"

    def create(self, schema: str) -> None:
        """Create what is not there yet: keys are ordered by their bytes, as SQLite orders them."""
        told = schema.replace("BLOB", "BYTEA").replace("WITHOUT ROWID", "").replace("INTEGER", "BIGINT")
        self.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
        for statement in told.replace("TEXT", 'TEXT COLLATE "C"').split(";"):
            if statement.strip():
                self.execute(statement)

    def execute(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """Run one statement."""
        said = "BEGIN" if statement == "BEGIN IMMEDIATE" else statement.replace("?", "%s")
        try:
            return self._db.execute(said, values or None)
        except self._error as problem:
            raise StoreLost(f"{self.name}: the desk's store cannot be used: {problem}") from problem

    def close(self) -> None:
        """Close the connection."""
        self._db.close()
