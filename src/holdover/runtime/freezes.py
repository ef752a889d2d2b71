"""The durable store of what is frozen, why, who was told and who acted: one SQLite file, synced at every commit.

A breach, the freeze that it causes, the page that it sends and the audit of all three are one transaction: either all
of them survive a kill or none was ever said to have happened. The audit log is a hash chain: each row's hash covers
the row before, so that a row changed or taken out is found by `verify_audit`.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from holdover.runtime.breach import Breach, Page

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS breach (number INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS freeze (
    number INTEGER PRIMARY KEY, scope TEXT NOT NULL, allows TEXT NOT NULL, invariant TEXT NOT NULL,
    breach INTEGER, time_ns INTEGER NOT NULL, thawed_ns INTEGER);
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY, dedup_key TEXT NOT NULL, body BLOB NOT NULL, time_ns INTEGER NOT NULL,
    channel TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_ns INTEGER NOT NULL DEFAULT 0,
    delivered_ns INTEGER, problem TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, act TEXT NOT NULL, detail TEXT NOT NULL, hash TEXT NOT NULL);
"""
_VERSION = "1"


class StoreProblem(RuntimeError):
    """The freeze store cannot be opened, read or written; the message says which file and why."""


class Freeze(msgspec.Struct, frozen=True, kw_only=True):
    """A durable latch on a scope, with what it still allows. Ended by a thaw and never otherwise."""

    number: int
    scope: str
    allows: list[str]
    invariant: str
    breach: int
    time_ns: int

    def __repr__(self) -> str:
        return f"<Freeze {self.number} {self.scope} by {self.invariant}>"


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A page that one channel has not delivered yet."""

    number: int
    channel: str
    page: Page
    attempts: int
    next_ns: int
    problem: str = ""


class FreezeStore:
    """What is frozen, in one file. Safe against a kill at any moment: SQLite's WAL, synced at every commit.

    Raises `StoreProblem` from every method when the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._said():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (_VERSION,))
            found = self._db.execute("SELECT value FROM meta WHERE name='version'").fetchone()[0]
        if found != _VERSION:
            raise StoreProblem(f"{path.name}: written as version {found}, this Holdover reads version {_VERSION}")

    def close(self) -> None:
        """Close the file; nothing is pending in it."""
        self._db.close()

    def record(self, breach: Breach, allows: list[str], page: Page, channels: list[str]) -> Freeze:
        """Write breach, freeze, page (once a channel) and audit in one transaction; it is on the disk on return."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO breach VALUES (?,?,?)", (breach.number, breach.time_ns, msgspec.json.encode(breach))
            )
            number = self._insert_freeze(db, breach.scope, allows, breach.invariant, breach.number, breach.time_ns)
            for channel in channels:
                db.execute(
                    "INSERT INTO outbox (dedup_key, body, time_ns, channel) VALUES (?,?,?,?)",
                    (page.dedup_key, msgspec.json.encode(page), page.time_ns, channel),
                )
            self._audit(db, breach.time_ns, "breach", f"{breach.invariant} {breach.scope} breach {breach.number}")
            self._audit(db, breach.time_ns, "freeze", f"{breach.scope} freeze {number} by {breach.invariant}")
        return Freeze(
            number=number,
            scope=breach.scope,
            allows=allows,
            invariant=breach.invariant,
            breach=breach.number,
            time_ns=breach.time_ns,
        )

    def note(self, breach: Breach) -> None:
        """Write a breach whose scope is frozen already for the same invariant."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO breach VALUES (?,?,?)", (breach.number, breach.time_ns, msgspec.json.encode(breach))
            )
            self._audit(db, breach.time_ns, "breach", f"{breach.invariant} {breach.scope} breach {breach.number}")

    def freeze(self, scope: str, allows: list[str], by: str, reason: str, time_ns: int) -> Freeze:
        """A freeze by hand."""
        with self._transaction() as db:
            number = self._insert_freeze(db, scope, allows, f"by hand: {by}", 0, time_ns)
            self._audit(db, time_ns, "freeze", f"{scope} freeze {number} by hand: {by}: {reason}")
        return Freeze(number=number, scope=scope, allows=allows, invariant=f"by hand: {by}", breach=0, time_ns=time_ns)

    def thaw(self, scope: str, operator: str, reason: str, evidence: str, forced_by: str, time_ns: int) -> int:
        """End every freeze of a scope; returns how many there were. The audit keeps who, why and on what evidence."""
        with self._transaction() as db:
            done = db.execute(
                "UPDATE freeze SET thawed_ns=? WHERE scope=? AND thawed_ns IS NULL", (time_ns, scope)
            ).rowcount
            said = {"scope": scope, "operator": operator, "reason": reason, "evidence": evidence}
            if forced_by:
                said["forced_by"] = forced_by
            self._audit(db, time_ns, "thaw", msgspec.json.encode(said).decode())
        return done

    def in_force(self) -> list[Freeze]:
        """The freezes that nobody has thawed, oldest first."""
        with self._said():
            rows = self._db.execute(
                "SELECT number, scope, allows, invariant, breach, time_ns FROM freeze "
                "WHERE thawed_ns IS NULL ORDER BY number"
            ).fetchall()
        return [
            Freeze(number=n, scope=s, allows=a.split(",") if a else [], invariant=i, breach=b or 0, time_ns=t)
            for n, s, a, i, b, t in rows
        ]

    def breaches(self) -> list[Breach]:
        """Every breach kept, oldest first."""
        with self._said():
            rows = self._db.execute("SELECT body FROM breach ORDER BY number").fetchall()
        return [msgspec.json.decode(body, type=Breach) for (body,) in rows]

    def last_breach(self) -> int:
        """The number of the last breach, 0 when there is none."""
        with self._said():
            return int(self._db.execute("SELECT COALESCE(MAX(number), 0) FROM breach").fetchone()[0])

    def undelivered(self, now_ns: int) -> list[Pending]:
        """The pages that are due for a try, oldest first."""
        with self._said():
            rows = self._db.execute(
                "SELECT number, channel, body, attempts, next_ns, problem FROM outbox "
                "WHERE delivered_ns IS NULL AND next_ns <= ? ORDER BY number",
                (now_ns,),
            ).fetchall()
        return [
            Pending(number=n, channel=c, page=msgspec.json.decode(b, type=Page), attempts=a, next_ns=at, problem=p)
            for n, c, b, a, at, p in rows
        ]

    def outbox(self) -> list[Page]:
        """Every page ever put into the outbox, oldest first, once however many channels it has."""
        with self._said():
            rows = self._db.execute("SELECT body FROM outbox ORDER BY number").fetchall()
        pages = [msgspec.json.decode(body, type=Page) for (body,) in rows]
        return list({page.number: page for page in pages}.values())

    def delivered(self, number: int, time_ns: int) -> None:
        """A channel has taken the page."""
        with self._transaction() as db:
            db.execute("UPDATE outbox SET delivered_ns=?, attempts=attempts+1 WHERE number=?", (time_ns, number))

    def failed(self, number: int, next_ns: int, problem: str) -> None:
        """A channel has not taken the page; try again from `next_ns` on."""
        with self._transaction() as db:
            db.execute(
                "UPDATE outbox SET attempts=attempts+1, next_ns=?, problem=? WHERE number=?",
                (next_ns, problem[:500], number),
            )

    def audit(self) -> list[tuple[int, int, str, str]]:
        """(number, time in ns, act, detail) of every act, oldest first."""
        with self._said():
            return self._db.execute("SELECT number, time_ns, act, detail FROM audit ORDER BY number").fetchall()

    def verify_audit(self) -> str:
        """What is wrong with the audit log's hash chain, in a sentence; empty when it is whole."""
        with self._said():
            rows = self._db.execute("SELECT number, time_ns, act, detail, hash FROM audit ORDER BY number").fetchall()
        before = ""
        for expected, (number, time_ns, act, detail, kept) in enumerate(rows, 1):
            if number != expected:
                return f"audit row {expected} is missing"
            before = _chain(before, number, time_ns, act, detail)
            if before != kept:
                return f"audit row {number} was changed: its hash does not follow from the row before"
        return ""

    @classmethod
    def in_memory(cls) -> FreezeStore:
        """A store that lives as long as the process: for what must leave no trace."""
        return cls(Path(":memory:"))

    def forget(self) -> None:
        """Empty it: for a store in memory, whose trial is over. Raises `StoreProblem` for one on the disk."""
        if str(self.path) != ":memory:":
            raise StoreProblem(f"{self.path.name}: a store on the disk forgets nothing")
        with self._transaction() as db:
            for table in ("breach", "freeze", "outbox", "audit"):
                db.execute(f"DELETE FROM {table}")

    def dump(self) -> bytes:
        """The whole store as one image."""
        with self._said():
            return self._db.serialize()

    def load(self, image: bytes) -> None:
        """Take up an image in place of what is there. Raises `StoreProblem` when it is none."""
        with self._said():
            other = sqlite3.connect(":memory:")
            try:
                # An image of a database in WAL mode can be opened in memory only when its header says otherwise.
                other.deserialize(image[:18] + b"\x01\x01" + image[20:])
                other.execute("SELECT COUNT(*) FROM freeze")
                other.backup(self._db)
            finally:
                other.close()
            self._db.execute("PRAGMA journal_mode=WAL")

    # -- inside -------------------------------------------------------------------------------------------------

    def _insert_freeze(
        self, db: sqlite3.Connection, scope: str, allows: list[str], invariant: str, breach: int, time_ns: int
    ) -> int:
        done = db.execute(
            "INSERT INTO freeze (scope, allows, invariant, breach, time_ns) VALUES (?,?,?,?,?)",
            (scope, ",".join(allows), invariant, breach, time_ns),
        )
        return int(done.lastrowid or 0)

    def _audit(self, db: sqlite3.Connection, time_ns: int, act: str, detail: str) -> None:
        last = db.execute("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1").fetchone() or (0, "")
        number = last[0] + 1
        db.execute(
            "INSERT INTO audit VALUES (?,?,?,?,?)",
            (number, time_ns, act, detail, _chain(last[1], number, time_ns, act, detail)),
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._said():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as problem:
            raise StoreProblem(f"{self.path.name}: the freeze store cannot be used: {problem}") from problem


def _chain(before: str, number: int, time_ns: int, act: str, detail: str) -> str:
    return hashlib.sha256(f"{before}|{number}|{time_ns}|{act}|{detail}".encode()).hexdigest()
