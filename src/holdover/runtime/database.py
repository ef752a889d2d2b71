"""Databases for the freeze store: one SQLite file, or a PostgreSQL server that several processes and hosts share.

Both accept the same statements, with `?` for a value. A read returns a list of rows. A write runs a function
with `run` as one transaction, which is on disk when `write` returns. Every failure is a `StoreError` within a
bounded time, so that the caller can fail closed.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from holdover.runtime.files import make_private, make_private_directory

T = TypeVar("T")
Row = tuple[Any, ...]
RunStatement = Callable[..., list[Row]]
"""`run(statement, values...)` returns the rows of the statement, if any."""

_BUSY_S: Final = 5.0
_LOCK: Final = 0x686F6C64  # advisory lock for the writes in one schema: serializes numbers and the hash chain


class StoreError(RuntimeError):
    """The freeze store cannot be opened, read or written; the message says which one and why."""


class Database(Protocol):
    """The database operations that the freeze store needs."""

    name: str

    def read(self, statement: str, *values: object) -> list[Row]:
        """Return the rows of a query. Raises `StoreError`."""

    def write(self, work: Callable[[RunStatement], T], *, durable: bool = True) -> T:
        """Run `work` as one transaction, synced on return unless `durable` is False.

        Returns what `work` returns. Raises `StoreError`.
        """

    def create(self, schema: str) -> None:
        """Create the missing tables. Raises `StoreError`."""

    def close(self) -> None:
        """Close the database."""


def next_number(run: RunStatement, table: str) -> int:
    """Return the next number of a table. Inside a write, no other process gets the same number."""
    return int(run(f'SELECT COALESCE(MAX(number), 0) + 1 FROM "{table}"')[0][0])


class SqliteDatabase:
    """One file (`:memory:` for none) in WAL mode, synced at every commit. Safe to share between threads.

    `description` names the database in error messages.
    """

    def __init__(self, path: Path, description: str = "the freeze store") -> None:
        self.path, self._description = path, description
        self.name = path.name
        self.in_memory = str(path) == ":memory:"
        self._lock = threading.RLock()
        self._relaxed_connection: sqlite3.Connection | None = None
        with self._translate_errors():
            if not self.in_memory:
                make_private_directory(path.parent)
                make_private(path)  # SQLite gives its log the permissions of the database
            self.connection = self._connect("FULL")

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        return connection

    def create(self, schema: str) -> None:
        """Create the missing tables. Raises `StoreError`."""
        with self._translate_errors():
            self.connection.executescript(schema)

    def read(self, statement: str, *values: object) -> list[Row]:
        """Return the rows of a query. Raises `StoreError`."""
        with self._translate_errors():
            return self.connection.execute(statement, values).fetchall()

    def write(self, work: Callable[[RunStatement], T], *, durable: bool = True) -> T:
        """Run `work` as one transaction. A write that is not durable uses a connection that does not sync.

        Raises `StoreError`.
        """
        with self._translate_errors():
            connection = self.connection
            if not durable and not self.in_memory:
                if self._relaxed_connection is None:
                    self._relaxed_connection = self._connect("NORMAL")
                connection = self._relaxed_connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(lambda statement, *values: connection.execute(statement, values).fetchall())
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            return result

    def export_image(self) -> bytes:
        """Return the whole database as one image. Raises `StoreError`."""
        with self._translate_errors():
            return self.connection.serialize()

    def restore_image(self, image: bytes, proof: str) -> None:
        """Replace the content with an image. `proof` is a statement that only the right kind of database answers.

        Raises `StoreError`.
        """
        with self._translate_errors():
            image_connection = sqlite3.connect(":memory:")
            try:
                # An in-memory database opens the image of a WAL database only if its header names the rollback journal.
                image_connection.deserialize(image[:18] + b"\x01\x01" + image[20:])
                image_connection.execute(proof)
                image_connection.backup(self.connection)
            finally:
                image_connection.close()
            self.connection.execute("PRAGMA journal_mode=WAL")

    def close(self) -> None:
        """Close the file; no write is pending."""
        with self._lock:
            self.connection.close()
            if self._relaxed_connection is not None:
                self._relaxed_connection.close()

    @contextlib.contextmanager
    def _translate_errors(self) -> Any:
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError) as problem:
                raise StoreError(f"{self.name}: {self._description} cannot be used: {problem}") from problem


class PostgresDatabase:
    """A schema on a PostgreSQL server, over one connection in its own thread.

    A missing answer within `timeout_s` raises `StoreError`, whatever the network or the server does: the database
    gives up the connection, and the next statement opens another. The lost statement may or may not have run; a
    write that must not run twice has to recognise its own earlier result.

    `url` is a libpq connection string; it may hold a password and is never part of a message.
    """

    def __init__(self, url: str, schema: str = "holdover", timeout_s: float = 2.0) -> None:
        try:
            import psycopg
        except ImportError as problem:
            raise ValueError("a store on PostgreSQL needs psycopg: pip install 'holdover[postgresql]'") from problem
        if not schema.isidentifier():
            raise ValueError(f"[store] schema: {schema!r} is no plain name; take letters, digits and underscores")
        self._psycopg = psycopg
        self._url = url
        self._schema = schema
        self._timeout_s = timeout_s
        self._lock = threading.RLock()
        self._worker: _DatabaseWorker | None = None
        try:
            parameters = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as problem:
            raise ValueError("the store's URL is none that PostgreSQL understands: postgresql://host/base") from problem
        self.name = f"postgresql:{parameters.get('host', 'localhost')}/{parameters.get('dbname', '')}"

    def create(self, schema: str) -> None:
        """Create the schema and the missing tables. Raises `StoreError`."""
        dialect_schema = schema.replace("BLOB", "BYTEA").replace("INTEGER", "BIGINT")
        statements = [statement for statement in dialect_schema.split(";") if statement.strip()]

        def make(run: RunStatement) -> None:
            run(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
            for statement in statements:
                run(statement)

        self.write(make)

    def read(self, statement: str, *values: object) -> list[Row]:
        """Return the rows of a query; retry once when the connection was lost. Raises `StoreError`."""
        return self._submit(lambda run: run(statement, *values), begin=False, durable=True)

    def write(self, work: Callable[[RunStatement], T], *, durable: bool = True) -> T:
        """Run `work` as one transaction, serialized with every other write to the schema. Raises `StoreError`."""
        return self._submit(work, begin=True, durable=durable)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._worker is not None:
                self._worker.close()
                self._worker = None

    def _submit(self, work: Callable[[RunStatement], T], *, begin: bool, durable: bool) -> T:
        deadline_s = time.monotonic() + self._timeout_s
        # Other threads wait for the same server: their time counts too.
        if not self._lock.acquire(timeout=self._timeout_s):
            raise StoreError(f"{self.name}: the freeze store cannot be used: no answer within {self._timeout_s:g} s")
        try:
            for is_last_try in (False, True):
                has_begun = [False]
                try:
                    if self._worker is None:
                        self._worker = _DatabaseWorker(self._connect)
                    return self._worker.submit(
                        partial(self._run_transaction, work, begin, durable, has_begun),
                        max(deadline_s - time.monotonic(), 0.0),
                    )
                except (TooLate, self._psycopg.Error, OSError) as problem:
                    is_connection_lost = isinstance(problem, (TooLate, self._psycopg.OperationalError, OSError))
                    if is_connection_lost and self._worker is not None:
                        self._worker.abandon()
                        self._worker = None
                    # Retry only when the connection was already dead at the first statement.
                    if is_last_try or not is_connection_lost or has_begun[0] or isinstance(problem, TooLate):
                        reason = f"no answer within {self._timeout_s:g} s" if isinstance(problem, TooLate) else problem
                        raise StoreError(f"{self.name}: the freeze store cannot be used: {reason}") from problem
        finally:
            self._lock.release()
        raise AssertionError("the second try returns or raises")

    def _run_transaction(
        self, work: Callable[[RunStatement], T], begin: bool, durable: bool, has_begun: list[bool], run: RunStatement
    ) -> T:
        if not begin:
            return work(run)
        run("BEGIN")
        has_begun[0] = True
        try:
            if not durable:
                run("SET LOCAL synchronous_commit TO off")
            run("SELECT pg_advisory_xact_lock(?, hashtext(?))", _LOCK, self._schema)
            result = work(run)
            run("COMMIT")
        except BaseException:
            with contextlib.suppress(self._psycopg.Error):
                run("ROLLBACK")
            raise
        return result

    def _connect(self) -> tuple[RunStatement, Callable[[], None]]:
        timeout_s = max(1, round(self._timeout_s))
        milliseconds = round(self._timeout_s * 1000)
        connection = self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=timeout_s,
            tcp_user_timeout=milliseconds,
            options=f"-c search_path={self._schema} -c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
        )

        def run(statement: str, *values: object) -> list[Row]:
            cursor = connection.execute(statement.replace("?", "%s"), values or None)
            return cursor.fetchall() if cursor.description is not None else []

        return run, connection.close


class _DatabaseWorker:
    """A daemon thread with a connection: it may hang forever without blocking a caller beyond the timeout."""

    def __init__(self, connect: Callable[[], tuple[RunStatement, Callable[[], None]]]) -> None:
        self._connect = connect
        self._jobs: queue.SimpleQueue[tuple[Callable[[RunStatement], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="holdover-store", daemon=True).start()

    def submit(self, work: Callable[[RunStatement], T], timeout_s: float) -> T:
        """Return what `work` returns. Raises what it raises, and `TimeoutError` when it is not done in time."""
        answer: Future[T] = Future()
        self._jobs.put((work, answer))
        return answer.result(timeout_s)

    def abandon(self) -> None:
        """Stop waiting: the thread ends when its current call returns."""
        self._jobs.put(None)

    close = abandon

    def _run(self) -> None:
        run: RunStatement | None = None
        close: Callable[[], None] = lambda: None  # noqa: E731
        while (job := self._jobs.get()) is not None:
            work, answer = job
            try:
                if run is None:
                    run, close = self._connect()
                answer.set_result(work(run))
            except BaseException as problem:
                answer.set_exception(problem)
        with contextlib.suppress(Exception):
            close()
