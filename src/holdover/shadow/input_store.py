"""The stored inputs of a live shadow, in order and before they are applied. A killed shadow replays its day from them.

One SQLite file, synced at each write: the running day with its start state, the inputs since then, and the offset of
each source after them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from holdover.runtime.database import RunStatement, SqliteDatabase, StoreError, next_number
from holdover.runtime.files import make_private_directory
from holdover.state import DECODE_ERRORS, decode_msgpack, encode_msgpack

VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (version INTEGER NOT NULL);
INSERT INTO meta SELECT 2 WHERE NOT EXISTS (SELECT * FROM meta);
CREATE TABLE IF NOT EXISTS day (trade_date TEXT PRIMARY KEY, began BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS batch (
    number INTEGER PRIMARY KEY, trade_date TEXT NOT NULL, now_ns INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS waiting (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS feed_offset (source TEXT PRIMARY KEY, body BLOB NOT NULL);
"""


class InputItem(NamedTuple):
    """One input.

    `kind` is `m` for a line of market data, `t` for records of a tap, `r` for a line of the incumbent's reports,
    `g` for the freeze store after an outside change. `number` is the instrument or the copy of the candidate that
    it is about.
    """

    kind: str
    number: int
    data: bytes


TimedItem = tuple[int, InputItem]
"""The time (ns) of an input, and the input."""


class ShadowDayStart(msgspec.Struct, frozen=True, kw_only=True):
    """The start state of a day: one snapshot name per copy of the candidate, and the state of the incumbent's
    reader.
    """

    snapshots: list[str] = []
    incumbent: bytes = b""


class InputBatch(NamedTuple):
    """Inputs that arrived together, and the feed's time (ns) at that moment."""

    number: int
    now_ns: int
    items: list[InputItem]


class InputStore:
    """The store of inputs. Raises `StoreError` when it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        make_private_directory(path.parent)
        self._database = SqliteDatabase(path, "what has come in")
        self._check_version()
        self._database.create(_SCHEMA)
        self._has_waiting = True

    def _check_version(self) -> None:
        """Refuse a file of another version. Version 1 had a table `place` and no version in it."""
        tables = {str(row[0]) for row in self._database.read("SELECT name FROM sqlite_master")}
        versions = self._database.read("SELECT version FROM meta") if "meta" in tables else []
        version = int(versions[0][0]) if versions else 1 if "place" in tables else VERSION
        if version != VERSION:
            self._database.close()
            raise StoreError(
                f"{self._database.name}: what has come in was stored in version {version}, this Holdover reads version "
                f"{VERSION}; take another [shadow] directory"
            )

    def running_day(self) -> tuple[str, ShadowDayStart] | None:
        """Returns the running day and its start state; None before the first day."""
        rows = self._database.read("SELECT trade_date, began FROM day ORDER BY trade_date DESC LIMIT 1")
        with self._decoding():
            return (str(rows[0][0]), decode_msgpack(rows[0][1], ShadowDayStart)) if rows else None

    def needed_snapshots(self) -> list[str]:
        """Returns the names of the snapshots with which the stored days begin."""
        rows = self._database.read("SELECT began FROM day")
        with self._decoding():
            return [name for (began,) in rows for name in decode_msgpack(began, ShadowDayStart).snapshots]

    def begin_day(self, trade_date: str, day_start: ShadowDayStart, days_max: int) -> None:
        """Start a day; at most `days_max` earlier days are kept."""

        def work(run: RunStatement) -> None:
            run("INSERT OR REPLACE INTO day VALUES (?, ?)", trade_date, encode_msgpack(day_start))
            dates = [
                str(row[0]) for row in run("SELECT trade_date FROM day ORDER BY trade_date DESC LIMIT ?", days_max + 1)
            ]
            run("DELETE FROM day WHERE trade_date < ?", dates[-1])
            run("DELETE FROM batch WHERE trade_date < ?", dates[-1])

        self._database.write(work)

    def add_batch(
        self,
        trade_date: str,
        now_ns: int,
        items: Sequence[InputItem],
        offsets: dict[str, bytes],
        waiting: Sequence[TimedItem] = (),
    ) -> int:
        """Store inputs, the offsets of the sources after them, and the items that still wait.

        Returns the batch number.
        """

        def work(run: RunStatement) -> int:
            number = next_number(run, "batch")
            run("INSERT INTO batch VALUES (?, ?, ?, ?)", number, trade_date, now_ns, encode_msgpack(items))
            if self._has_waiting or waiting:
                run("INSERT OR REPLACE INTO waiting VALUES (0, ?)", encode_msgpack(list(waiting)))
            for source, offset in offsets.items():
                run("INSERT OR REPLACE INTO feed_offset VALUES (?, ?)", source, offset)
            return number

        number = self._database.write(work)
        self._has_waiting = bool(waiting)
        return number

    def waiting_items(self) -> list[TimedItem]:
        """Returns the items that were read from the sources and not applied yet."""
        rows = self._database.read("SELECT body FROM waiting")
        with self._decoding():
            return decode_msgpack(rows[0][0], list[TimedItem]) if rows else []

    def read_batches(self, trade_date: str) -> Iterator[InputBatch]:
        """Yield every batch of a day, in order."""
        last = -1
        while True:
            rows = self._database.read(
                "SELECT number, now_ns, body FROM batch WHERE trade_date = ? AND number > ? ORDER BY number LIMIT 500",
                trade_date,
                last,
            )
            if not rows:
                return
            for number, now_ns, body in rows:
                last = int(number)
                with self._decoding():
                    items = decode_msgpack(body, list[InputItem])
                yield InputBatch(last, int(now_ns), items)

    def offsets(self) -> dict[str, bytes]:
        """Returns the offset of each source after the last stored batch."""
        return {
            str(source): bytes(body) for source, body in self._database.read("SELECT source, body FROM feed_offset")
        }

    @contextlib.contextmanager
    def _decoding(self) -> Iterator[None]:
        try:
            yield
        except (*DECODE_ERRORS, TypeError) as problem:
            raise StoreError(f"{self._database.name}: what has come in is damaged: {problem}") from problem

    def close(self) -> None:
        """Close the store."""
        self._database.close()
