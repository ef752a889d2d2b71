"""What came in, in its order, before anything is made of it: from this a killed shadow plays its day again.

One SQLite file, synced at each write: the day that is running, with the state that it began with, what came in since,
and where each source stood after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from holdover.runtime.database import Run, SqliteDatabase, StoreProblem, next_number

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS day (trade_date TEXT PRIMARY KEY, began BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS batch (
    number INTEGER PRIMARY KEY, trade_date TEXT NOT NULL, now_ns INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS waiting (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS place (source TEXT PRIMARY KEY, body BLOB NOT NULL);
"""


class Item(NamedTuple):
    """One thing that came in.

    `kind` is `m` for a line of market data, `t` for records of a tap, `r` for a line of the incumbent's, `g` for the
    freeze store as somebody else has left it; `number` says which instrument or copy it is about.
    """

    kind: str
    number: int
    data: bytes


Timed = tuple[int, Item]
"""A thing that came in, and the time (ns) that it tells."""


class Began(msgspec.Struct, frozen=True, kw_only=True):
    """What a day began with: a snapshot's name for each copy of the candidate, and what was known of the incumbent."""

    snapshots: list[str] = []
    incumbent: bytes = b""


class Batch(NamedTuple):
    """Things that came in together, and the time of the feed (ns) when they had."""

    number: int
    now_ns: int
    items: list[Item]


class Inputs:
    """The file. Raises `StoreProblem` when it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = SqliteDatabase(path, "what has come in")
        self._database.create(_SCHEMA)
        self._waits = True

    def day(self) -> tuple[str, Began] | None:
        """The day that is running and what it began with; None before the first."""
        rows = self._database.read("SELECT trade_date, began FROM day ORDER BY trade_date DESC LIMIT 1")
        with self._read():
            return (str(rows[0][0]), msgspec.msgpack.decode(rows[0][1], type=Began)) if rows else None

    def begin(self, trade_date: str, began: Began, keep: int) -> None:
        """Another day is running; of those before it `keep` stay."""

        def work(run: Run) -> None:
            run("INSERT OR REPLACE INTO day VALUES (?, ?)", trade_date, msgspec.msgpack.encode(began))
            kept = [str(row[0]) for row in run("SELECT trade_date FROM day ORDER BY trade_date DESC LIMIT ?", keep + 1)]
            run("DELETE FROM day WHERE trade_date < ?", kept[-1])
            run("DELETE FROM batch WHERE trade_date < ?", kept[-1])

        self._database.write(work)

    def add(
        self,
        trade_date: str,
        now_ns: int,
        items: Sequence[Item],
        places: dict[str, bytes],
        waiting: Sequence[Timed] = (),
    ) -> int:
        """What has come in, where the sources stand after it, and what they gave that waits still; its number."""

        def work(run: Run) -> int:
            number = next_number(run, "batch")
            run("INSERT INTO batch VALUES (?, ?, ?, ?)", number, trade_date, now_ns, msgspec.msgpack.encode(items))
            if self._waits or waiting:
                run("INSERT OR REPLACE INTO waiting VALUES (0, ?)", msgspec.msgpack.encode(list(waiting)))
            for source, place in places.items():
                run("INSERT OR REPLACE INTO place VALUES (?, ?)", source, place)
            return number

        number = self._database.write(work)
        self._waits = bool(waiting)
        return number

    def waiting(self) -> list[Timed]:
        """What the sources had given and nobody has taken yet."""
        rows = self._database.read("SELECT body FROM waiting")
        with self._read():
            return msgspec.msgpack.decode(rows[0][0], type=list[Timed]) if rows else []

    def batches(self, trade_date: str) -> Iterator[Batch]:
        """Everything of a day, in its order."""
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
                with self._read():
                    items = msgspec.msgpack.decode(body, type=list[Item])
                yield Batch(last, int(now_ns), items)

    def places(self) -> dict[str, bytes]:
        """Where each source stood when its last line was taken."""
        return {str(source): bytes(body) for source, body in self._database.read("SELECT source, body FROM place")}

    @contextlib.contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except (msgspec.MsgspecError, TypeError) as problem:
            raise StoreProblem(f"{self._database.name}: what has come in is damaged: {problem}") from problem

    def close(self) -> None:
        """Let go of it."""
        self._database.close()
