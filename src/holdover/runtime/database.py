"""Where the freeze store lies: one SQLite file, or a PostgreSQL server that several processes and hosts share.

Both take the same statements, written with `?` for a value. A read is a list of rows; a write is a function that is
given `run` and is done whole or not at all, on the disk when `write` returns. Whatever goes wrong is a `StoreProblem`
within a bounded time, so that who asks can fail closed.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")
Row = tuple[Any, ...]
Run = Callable[..., list[Row]]
"""`run(statement, values...)`: the rows that it returns, if any."""

_BUSY_S: Final = 5.0
_LOCK: Final = 0x686F6C64  # of the writes in one schema: numbers and the hash chain are given out one after another


class StoreProblem(RuntimeError):
    """The freeze store cannot be opened, read or written; the message says which one and why."""


class Database(Protocol):
    """What the freeze store needs of a database."""

    name: str

    def read(self, statement: str, *values: object) -> list[Row]:
        """The rows of a question. Raises `StoreProblem`."""

    def write(self, work: Callable[[Run], T], *, durable: bool = True) -> T:
        """Do `work` as one transaction; synced on return, unless it need not be `durable`. Raises `StoreProblem`."""

    def create(self, schema: str) -> None:
        """Create the tables that are not there yet. Raises `StoreProblem`."""

    def close(self) -> None:
        """Let go of it."""


def next_number(run: Run, table: str) -> int:
    """The number after the last in a table, inside a write: nobody else is given it."""
    return int(run(f'SELECT COALESCE(MAX(number), 0) + 1 FROM "{table}"')[0][0])


class SqliteDatabase:
    """One file (`:memory:` for none): WAL, synced at every commit. Safe to share between threads.

    `what` is what a problem calls it.
    """

    def __init__(self, path: Path, what: str = "the freeze store") -> None:
        self.path, self._what = path, what
        self.name = path.name
        self.in_memory = str(path) == ":memory:"
        self._lock = threading.RLock()
        self._idle: sqlite3.Connection | None = None
        with self._said():
            if not self.in_memory:
                path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = self._connect("FULL")

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        return connection

    def create(self, schema: str) -> None:
        """Create the tables that are not there yet."""
        with self._said():
            self.connection.executescript(schema)

    def read(self, statement: str, *values: object) -> list[Row]:
        """The rows of a question."""
        with self._said():
            return self.connection.execute(statement, values).fetchall()

    def write(self, work: Callable[[Run], T], *, durable: bool = True) -> T:
        """Do `work` as one transaction. What is not durable is committed on a connection that does not wait."""
        with self._said():
            connection = self.connection
            if not durable and not self.in_memory:
                if self._idle is None:
                    self._idle = self._connect("NORMAL")
                connection = self._idle
            connection.execute("BEGIN IMMEDIATE")
            try:
                done = work(lambda statement, *values: connection.execute(statement, values).fetchall())
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            return done

    def image(self) -> bytes:
        """The whole database as one image."""
        with self._said():
            return self.connection.serialize()

    def take_image(self, image: bytes, proof: str) -> None:
        """Take up an image in place of what is there; `proof` is a statement that only the right kind answers."""
        with self._said():
            other = sqlite3.connect(":memory:")
            try:
                # An image of a database in WAL mode can be opened in memory only when its header says otherwise.
                other.deserialize(image[:18] + b"\x01\x01" + image[20:])
                other.execute(proof)
                other.backup(self.connection)
            finally:
                other.close()
            self.connection.execute("PRAGMA journal_mode=WAL")

    def close(self) -> None:
        """Close the file; nothing is pending in it."""
        with self._lock:
            self.connection.close()
            if self._idle is not None:
                self._idle.close()

    @contextlib.contextmanager
    def _said(self) -> Any:
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError) as problem:
                raise StoreProblem(f"{self.name}: {self._what} cannot be used: {problem}") from problem


class PostgresDatabase:
    """A schema on a PostgreSQL server, over one connection in a thread of its own.

    No answer within `timeout_s` is a `StoreProblem`, whatever the network or the server does: the connection is given
    up, and the next question opens another one. What was asked may then have been done or not: a write that must not be
    done twice says in its own statements how it knows itself again.

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
        self._worker: _Worker | None = None
        try:
            told = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as problem:
            raise ValueError("the store's URL is none that PostgreSQL understands: postgresql://host/base") from problem
        self.name = f"postgresql:{told.get('host', 'localhost')}/{told.get('dbname', '')}"

    def create(self, schema: str) -> None:
        """Create the schema and the tables that are not there yet."""
        told = schema.replace("BLOB", "BYTEA").replace("INTEGER", "BIGINT")
        statements = [one for one in told.split(";") if one.strip()]

        def make(run: Run) -> None:
            run(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
            for one in statements:
                run(one)

        self.write(make)

    def read(self, statement: str, *values: object) -> list[Row]:
        """The rows of a question; asked again once when the connection was gone."""
        return self._ask(lambda run: run(statement, *values), begin=False, durable=True)

    def write(self, work: Callable[[Run], T], *, durable: bool = True) -> T:
        """Do `work` as one transaction, after every other write to the schema and before the next."""
        return self._ask(work, begin=True, durable=durable)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._worker is not None:
                self._worker.close()
                self._worker = None

    def _ask(self, work: Callable[[Run], T], *, begin: bool, durable: bool) -> T:
        with self._lock:
            for last in (False, True):
                begun = [False]
                try:
                    if self._worker is None:
                        self._worker = _Worker(self._connect)
                    return self._worker.ask(partial(self._do, work, begin, durable, begun), self._timeout_s)
                except (TooLate, self._psycopg.Error, OSError) as problem:
                    lost = isinstance(problem, (TooLate, self._psycopg.OperationalError, OSError))
                    if lost and self._worker is not None:
                        self._worker.abandon()
                        self._worker = None
                    # Only a connection found dead at the first word may be followed by another try.
                    if last or not lost or begun[0] or isinstance(problem, TooLate):
                        said = f"no answer within {self._timeout_s:g} s" if isinstance(problem, TooLate) else problem
                        raise StoreProblem(f"{self.name}: the freeze store cannot be used: {said}") from problem
        raise AssertionError("the second try returns or raises")

    def _do(self, work: Callable[[Run], T], begin: bool, durable: bool, begun: list[bool], run: Run) -> T:
        if not begin:
            return work(run)
        run("BEGIN")
        begun[0] = True
        try:
            if not durable:
                run("SET LOCAL synchronous_commit TO off")
            run("SELECT pg_advisory_xact_lock(?, hashtext(?))", _LOCK, self._schema)
            done = work(run)
            run("COMMIT")
        except BaseException:
            with contextlib.suppress(self._psycopg.Error):
                run("ROLLBACK")
            raise
        return done

    def _connect(self) -> tuple[Run, Callable[[], None]]:
        within = max(1, round(self._timeout_s))
        milliseconds = round(self._timeout_s * 1000)
        connection = self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=within,
            tcp_user_timeout=milliseconds,
            options=f"-c search_path={self._schema} -c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
        )

        def run(statement: str, *values: object) -> list[Row]:
            cursor = connection.execute(statement.replace("?", "%s"), values or None)
            return cursor.fetchall() if cursor.description is not None else []

        return run, connection.close


class _Worker:
    """A daemon thread with a connection: it may hang for ever without anybody waiting for it longer than he likes."""

    def __init__(self, connect: Callable[[], tuple[Run, Callable[[], None]]]) -> None:
        self._connect = connect
        self._work: queue.SimpleQueue[tuple[Callable[[Run], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._go, name="holdover-store", daemon=True).start()

    def ask(self, work: Callable[[Run], T], timeout_s: float) -> T:
        """What `work` returns. Raises what it raises, and `TimeoutError` when it is not done in time."""
        answer: Future[T] = Future()
        self._work.put((work, answer))
        return answer.result(timeout_s)

    def abandon(self) -> None:
        """Nobody waits any more: the thread ends when it comes back from where it hangs."""
        self._work.put(None)

    close = abandon

    def _go(self) -> None:
        run: Run | None = None
        close: Callable[[], None] = lambda: None  # noqa: E731
        while (told := self._work.get()) is not None:
            work, answer = told
            try:
                if run is None:
                    run, close = self._connect()
                answer.set_result(work(run))
            except BaseException as problem:
                answer.set_exception(problem)
        with contextlib.suppress(Exception):
            close()
