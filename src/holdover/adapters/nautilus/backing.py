"""The keys and values of NautilusTrader's cache database, in one SQLite file instead of a Redis server.

NautilusTrader's own `CacheDatabaseAdapter` writes through this: its code decides what is stored under which key and how
it is read back; only the server is replaced. Collections behave as in its Redis backing: orders, positions, accounts
and snapshots are growing lists, an update of a missing list does nothing (RPUSHX), indexes are sets or maps, and
everything else is one value. Unlike in Redis, each call writes one transaction.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

FILE: Final = "nautilus.db"
_LISTS: Final = ("orders", "positions", "accounts", "snapshots")
_MAPS: Final = ("index:order_ids", "index:order_position", "index:order_client")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS list (key TEXT NOT NULL, n INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (key, n));
CREATE TABLE IF NOT EXISTS member (key TEXT NOT NULL, member BLOB NOT NULL, value BLOB, PRIMARY KEY (key, member));
CREATE TABLE IF NOT EXISTS single (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ours (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class SqliteBacking:
    """The counterpart of `RedisCacheDatabase` in `directory`.

    The table `ours` holds values of the integration itself.
    """

    def __init__(self, directory: Path, trader_id: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._prefix = f"trader-{trader_id}:"
        self._db = sqlite3.connect(directory / FILE, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA wal_autocheckpoint=32")
        self._db.executescript(_SCHEMA)
        self._depth = 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all writes inside the block together, or none of them."""
        if self._depth:
            yield
            return
        self._db.execute("BEGIN")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        else:
            self._db.execute("COMMIT")
        finally:
            self._depth -= 1

    # -- the integration's own values -----------------------------------------------------------------------------

    def get(self, name: str, default: str = "") -> str:
        """Returns a value of the integration."""
        row = self._db.execute("SELECT value FROM ours WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else default

    def set(self, name: str, value: str) -> None:
        """Store a value of the integration."""
        self._db.execute("INSERT OR REPLACE INTO ours VALUES (?, ?)", (name, value))

    # -- interface of the adapter ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def flushdb(self) -> None:
        """Delete everything."""
        with self.transaction():
            for table in ("list", "member", "single"):
                self._db.execute(f"DELETE FROM {table}")

    def keys(self, pattern: str) -> list[str]:
        """Returns every matching key, with the trader's prefix, in the order of creation."""
        like_pattern = pattern.replace("_", "\\_").replace("*", "%")
        key_rows = self._db.execute(
            "SELECT DISTINCT key FROM list WHERE key LIKE :like ESCAPE '\\' UNION ALL "
            "SELECT key FROM single WHERE key LIKE :like ESCAPE '\\'",
            {"like": like_pattern},
        ).fetchall()
        return [self._prefix + key for (key,) in sorted(key_rows)]

    def read(self, key: str) -> list[bytes]:
        """Returns the values of a list, or one value; an index as JSON."""
        key = key.removeprefix(self._prefix)
        if key.startswith("index:"):
            rows = self._db.execute("SELECT member, value FROM member WHERE key = ? ORDER BY rowid", (key,)).fetchall()
            if not rows:
                return []
            if key in _MAPS:
                return [json.dumps({bytes(member).decode(): bytes(value).decode() for member, value in rows}).encode()]
            return [json.dumps([bytes(member).decode() for member, _ in rows]).encode()]
        if key.split(":", 1)[0] in _LISTS:
            rows = self._db.execute("SELECT value FROM list WHERE key = ? ORDER BY n", (key,)).fetchall()
        else:
            rows = self._db.execute("SELECT value FROM single WHERE key = ?", (key,)).fetchall()
        return [bytes(value) for (value,) in rows]

    def read_bulk(self, keys: list[str]) -> list[bytes | None]:
        """Returns the single values of several keys."""
        values = [self.read(key) for key in keys]
        return [value[0] if value else None for value in values]

    def insert(self, key: str, payload: list[bytes] | None = None) -> None:
        """Add to a key."""
        values = [bytes(value) for value in payload or []]
        if key in _MAPS:
            self._db.execute("INSERT OR REPLACE INTO member VALUES (?, ?, ?)", (key, values[0], values[1]))
        elif key.startswith("index:"):
            self._db.execute("INSERT OR IGNORE INTO member VALUES (?, ?, NULL)", (key, values[0]))
        elif key.split(":", 1)[0] in _LISTS:
            self._append(key, values)
        else:
            self._db.execute("INSERT OR REPLACE INTO single VALUES (?, ?)", (key, values[0]))

    def update(self, key: str, payload: list[bytes] | None = None) -> None:
        """Append to an existing list."""
        if self._db.execute("SELECT 1 FROM list WHERE key = ? LIMIT 1", (key,)).fetchone():
            self._append(key, [bytes(value) for value in payload or []])

    def delete(self, key: str, payload: list[bytes] | None = None) -> None:
        """Delete members of an index, or a whole key."""
        if key.startswith("index:"):
            for member in payload or []:
                self._db.execute("DELETE FROM member WHERE key = ? AND member = ?", (key, bytes(member)))
            return
        self._db.execute("DELETE FROM list WHERE key = ?", (key,))
        self._db.execute("DELETE FROM single WHERE key = ?", (key,))

    def delete_order(self, client_order_id: str) -> None:
        """Delete an order."""
        self._delete_rows(f"orders:{client_order_id}", client_order_id)

    def delete_position(self, position_id: str) -> None:
        """Delete a position."""
        self._delete_rows(f"positions:{position_id}", position_id)

    def _delete_rows(self, key: str, name: str) -> None:
        with self.transaction():
            self._db.execute("DELETE FROM list WHERE key = ?", (key,))
            self._db.execute("DELETE FROM member WHERE member = ?", (name.encode(),))

    def _append(self, key: str, values: list[bytes]) -> None:
        (last,) = self._db.execute("SELECT COALESCE(MAX(n), 0) FROM list WHERE key = ?", (key,)).fetchone()
        self._db.executemany(
            "INSERT INTO list VALUES (?, ?, ?)", [(key, last + number, value) for number, value in enumerate(values, 1)]
        )


def read_rows(directory: Path) -> Iterator[tuple[Any, ...]]:
    """Yield every row of the file, to compare two stores."""
    reader = sqlite3.connect(f"file:{directory / FILE}?mode=ro", uri=True)
    try:
        for table in ("list", "member", "single", "ours"):
            for row in reader.execute(f"SELECT * FROM {table}"):
                yield (table, *row)
    finally:
        reader.close()
