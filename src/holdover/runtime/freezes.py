"""The durable store of what is frozen, why, who was told and who acted; in one SQLite file or on PostgreSQL.

A breach, the freeze that it causes, the pages that it sends and the audit of all three are one transaction: either all
of them survive a kill or none was ever said to have happened. Pages are `outbox.py`'s, the audit log `auditlog.py`'s;
both are part of this store. Several processes may share it; numbers are given out by it, not by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.runtime.breach import Breach, Page
from holdover.runtime.database import Database, Run, SqliteDatabase, StoreProblem, next_number
from holdover.runtime.outbox import Outbox

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS breach (number INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS "freeze" (
    number INTEGER PRIMARY KEY, scope TEXT NOT NULL, allows TEXT NOT NULL, invariant TEXT NOT NULL,
    breach INTEGER, time_ns INTEGER NOT NULL, thawed_ns INTEGER, holder TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY, dedup_key TEXT NOT NULL, body BLOB NOT NULL, time_ns INTEGER NOT NULL,
    channel TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_ns INTEGER NOT NULL DEFAULT 0,
    delivered_ns INTEGER, problem TEXT NOT NULL DEFAULT '', event TEXT NOT NULL DEFAULT 'trigger');
CREATE TABLE IF NOT EXISTS alert (
    dedup_key TEXT PRIMARY KEY, body BLOB NOT NULL, opened_ns INTEGER NOT NULL, level INTEGER NOT NULL DEFAULT 0,
    escalated_ns INTEGER NOT NULL DEFAULT 0, acknowledged_ns INTEGER, acknowledged_by TEXT NOT NULL DEFAULT '',
    resolved_ns INTEGER);
CREATE TABLE IF NOT EXISTS request (
    number INTEGER PRIMARY KEY, scope TEXT NOT NULL, holder TEXT NOT NULL, body BLOB NOT NULL, time_ns INTEGER NOT NULL,
    answer TEXT, answered_ns INTEGER);
CREATE TABLE IF NOT EXISTS tick (
    breach INTEGER NOT NULL, step INTEGER NOT NULL, operator TEXT NOT NULL, time_ns INTEGER NOT NULL,
    PRIMARY KEY (breach, step));
CREATE TABLE IF NOT EXISTS beat (name TEXT PRIMARY KEY, time_ns INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, act TEXT NOT NULL, detail TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS in_force ON "freeze" (number) WHERE thawed_ns IS NULL;
CREATE INDEX IF NOT EXISTS due ON outbox (number) WHERE delivered_ns IS NULL;
"""
_TABLES: Final = ("breach", "freeze", "outbox", "alert", "request", "tick", "beat", "audit")
_VERSION: Final = "2"
_FROM_1: Final = (
    "ALTER TABLE \"freeze\" ADD COLUMN holder TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE outbox ADD COLUMN event TEXT NOT NULL DEFAULT 'trigger'",
)


Mark = tuple[int, str, str, int]


class Freeze(msgspec.Struct, frozen=True, kw_only=True):
    """A durable latch on a scope, with what it still allows. Ended by a thaw and never otherwise.

    `holder` is the name of the guard that froze: it knows whether the invariant holds again.
    """

    number: int
    scope: str
    allows: list[str]
    invariant: str
    breach: int
    time_ns: int
    holder: str = ""

    @property
    def mark(self) -> Mark:
        """What makes it this freeze and no other, also where a store that was put back gives its number anew."""
        return (self.number, self.scope, self.invariant, self.time_ns)

    def __repr__(self) -> str:
        return f"<Freeze {self.number} {self.scope} by {self.invariant}>"


class ThawRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A thaw asked for from outside the process that froze, to be judged by that process."""

    number: int
    scope: str
    operator: str
    reason: str
    evidence: str
    forced_by: str = ""
    answer: str | None = None


class FreezeStore(Outbox):
    """What is frozen, in one file or on a server. Safe against a kill at any moment and between threads.

    `name` is the guard's, by which its freezes are known among those of others. Raises `StoreProblem` from every
    method when the store cannot be read or written.
    """

    def __init__(self, where: Path | Database, name: str = "") -> None:
        self.database = SqliteDatabase(where) if isinstance(where, Path) else where
        self.name = name
        self.database.create(_SCHEMA)
        self._migrate()

    def _migrate(self) -> None:
        def work(run: Run) -> str:
            run("INSERT INTO meta VALUES ('version', ?) ON CONFLICT DO NOTHING", _VERSION)
            found = str(run("SELECT value FROM meta WHERE name='version'")[0][0])
            if found == "1":
                for statement in _FROM_1:
                    run(statement)
                run("UPDATE meta SET value=? WHERE name='version'", _VERSION)
                found = _VERSION
            return found

        found = self.database.write(work)
        if found != _VERSION:
            raise StoreProblem(
                f"{self.database.name}: written as version {found}, this Holdover reads version {_VERSION}"
            )

    def close(self) -> None:
        """Let go of it; nothing is pending."""
        self.database.close()

    # -- breaches and freezes -----------------------------------------------------------------------------------

    def record(self, breach: Breach, allows: list[str], page: Page, channels: Sequence[str]) -> Freeze:
        """Write breach, freeze, page (once a channel) and audit in one transaction; it is on the disk on return.

        The breach gets the store's next number, which the freeze that is returned tells. One that the store has
        already, as it may after an answer that never came, is not written again.
        """

        def work(run: Run) -> Freeze:
            there = self._found(run, breach)
            if there is not None:
                return there
            number = self._breach(run, breach)
            freeze = self._freeze(run, breach.scope, allows, breach.invariant, number, breach.time_ns)
            numbered = msgspec.structs.replace(page, number=number)
            self._open_alert(run, numbered, channels)
            return freeze

        return self.database.write(work)

    def note(self, breach: Breach) -> int:
        """Write a breach whose scope is frozen already for the same invariant; returns its number."""
        return self.database.write(lambda run: self._breach(run, breach))

    def freeze(self, scope: str, allows: list[str], by: str, reason: str, time_ns: int) -> Freeze:
        """A freeze by hand."""

        def work(run: Run) -> Freeze:
            return self._freeze(run, scope, allows, f"by hand: {by}", 0, time_ns, said=f": {reason}")

        return self.database.write(work)

    def thaw(self, scope: str, operator: str, reason: str, evidence: str, forced_by: str, time_ns: int) -> int:
        """End every freeze of a scope and resolve what was paged for them; returns how many there were.

        The audit keeps who, why and on what evidence.
        """

        def work(run: Run) -> int:
            ended = run(
                'UPDATE "freeze" SET thawed_ns=? WHERE scope=? AND thawed_ns IS NULL RETURNING invariant',
                time_ns,
                scope,
            )
            said = {"scope": scope, "operator": operator, "reason": reason, "evidence": evidence}
            if forced_by:
                said["forced_by"] = forced_by
            self._audit(run, time_ns, "thaw", msgspec.json.encode(said).decode())
            for invariant in sorted({str(one) for (one,) in ended}):
                self._resolve(run, f"{invariant}/{scope}", operator, time_ns)
            return len(ended)

        return self.database.write(work)

    def in_force(self) -> list[Freeze]:
        """The freezes that nobody has thawed, oldest first."""
        rows = self.database.read(
            'SELECT number, scope, allows, invariant, breach, time_ns, holder FROM "freeze" '
            "WHERE thawed_ns IS NULL ORDER BY number"
        )
        return [_freeze_of(row) for row in rows]

    def thawed(self, freeze: Freeze) -> bool:
        """Whether a thaw has ended this freeze; False when it is in force, and when the store has lost it."""
        rows = self.database.read(
            'SELECT thawed_ns FROM "freeze" WHERE number=? AND scope=? AND invariant=? AND time_ns=?', *freeze.mark
        )
        return bool(rows) and rows[0][0] is not None

    def breaches(self) -> list[Breach]:
        """Every breach kept, oldest first."""
        rows = self.database.read("SELECT body FROM breach ORDER BY number")
        return [msgspec.json.decode(body, type=Breach) for (body,) in rows]

    def breach(self, number: int) -> Breach | None:
        """The breach of that number, if there is one."""
        rows = self.database.read("SELECT body FROM breach WHERE number=?", number)
        return msgspec.json.decode(rows[0][0], type=Breach) if rows else None

    def last_breach(self) -> int:
        """The number of the last breach, 0 when there is none."""
        return int(self.database.read("SELECT COALESCE(MAX(number), 0) FROM breach")[0][0])

    # -- thaws asked for from outside -----------------------------------------------------------------------------

    def ask_thaw(self, request: ThawRequest, holder: str, time_ns: int) -> int:
        """Ask the guard called `holder` for a thaw; returns the number under which it will answer."""

        def work(run: Run) -> int:
            number = next_number(run, "request")
            body = msgspec.json.encode(request)
            run("INSERT INTO request VALUES (?,?,?,?,?,NULL,NULL)", number, request.scope, holder, body, time_ns)
            return number

        return self.database.write(work)

    def asked_of(self, holder: str, since_ns: int) -> list[ThawRequest]:
        """The thaws asked of a guard since then that it has not answered yet, oldest first."""
        rows = self.database.read(
            "SELECT number, body FROM request WHERE answer IS NULL AND holder=? AND time_ns>=? ORDER BY number",
            holder,
            since_ns,
        )
        return [
            msgspec.structs.replace(msgspec.json.decode(body, type=ThawRequest), number=number) for number, body in rows
        ]

    def answer(self, number: int, said: str, time_ns: int) -> None:
        """What became of a thaw asked for: an empty word is done, any other why not."""

        def work(run: Run) -> None:
            run("UPDATE request SET answer=?, answered_ns=? WHERE number=? AND answer IS NULL", said, time_ns, number)

        self.database.write(work)

    def answered(self, number: int) -> str | None:
        """The answer to a thaw asked for; None while there is none."""
        rows = self.database.read("SELECT answer FROM request WHERE number=?", number)
        return rows[0][0] if rows else None

    def withdraw(self, number: int, time_ns: int) -> str | None:
        """Nobody waits for this answer any more: it will not be acted on later. Returns the answer if it was there."""

        def work(run: Run) -> str | None:
            found = run("SELECT answer FROM request WHERE number=?", number)
            if found and found[0][0] is not None:
                return str(found[0][0])
            run("UPDATE request SET answer='withdrawn', answered_ns=? WHERE number=?", time_ns, number)
            return None

        return self.database.write(work)

    # -- steps ticked off, signs of life ---------------------------------------------------------------------------

    def tick(self, breach: int, step: int, operator: str, time_ns: int) -> bool:
        """An operator has done a step of a breach's response (counted from 1); False when it was ticked before."""

        def work(run: Run) -> bool:
            done = run(
                "INSERT INTO tick VALUES (?,?,?,?) ON CONFLICT DO NOTHING RETURNING step",
                breach,
                step,
                operator,
                time_ns,
            )
            if done:
                self._audit(run, time_ns, "step", f"breach {breach} step {step} by {operator}")
            return bool(done)

        return self.database.write(work)

    def ticks(self, breach: int) -> dict[int, tuple[str, int]]:
        """The steps done of a breach's response: number -> (who, when in ns)."""
        rows = self.database.read("SELECT step, operator, time_ns FROM tick WHERE breach=? ORDER BY step", breach)
        return {step: (operator, time_ns) for step, operator, time_ns in rows}

    def beat(self, name: str, time_ns: int, body: bytes) -> None:
        """A process says that it lives, and how. Not synced: a sign of life is worth nothing after a crash."""

        def work(run: Run) -> None:
            run(
                "INSERT INTO beat VALUES (?,?,?) ON CONFLICT (name) DO UPDATE SET time_ns=excluded.time_ns, "
                "body=excluded.body",
                name,
                time_ns,
                body,
            )

        self.database.write(work, durable=False)

    def beats(self) -> list[tuple[str, int, bytes]]:
        """(name, time in ns, what it said) of the last sign of life of every process, by name."""
        rows = self.database.read("SELECT name, time_ns, body FROM beat ORDER BY name")
        return [(str(name), int(time_ns), bytes(body)) for name, time_ns, body in rows]

    # -- the store as a whole -----------------------------------------------------------------------------------

    @classmethod
    def in_memory(cls) -> FreezeStore:
        """A store that lives as long as the process: for what must leave no trace."""
        return cls(Path(":memory:"))

    def _file(self) -> SqliteDatabase:
        if not isinstance(self.database, SqliteDatabase):
            raise StoreProblem(f"{self.database.name}: only a store in a file can be taken as an image")
        return self.database

    def forget(self) -> None:
        """Empty it: for a store in memory, whose trial is over. Raises `StoreProblem` for one on the disk."""
        if not self._file().in_memory:
            raise StoreProblem(f"{self.database.name}: a store on the disk forgets nothing")

        def work(run: Run) -> None:
            for table in _TABLES:
                run(f'DELETE FROM "{table}"')
            run("DELETE FROM meta WHERE name='audit'")

        self.database.write(work)

    def dump(self) -> bytes:
        """The whole store as one image."""
        return self._file().image()

    def load(self, image: bytes) -> None:
        """Take up an image in place of what is there. Raises `StoreProblem` when it is none."""
        file = self._file()
        file.take_image(image, 'SELECT COUNT(*) FROM "freeze"')
        file.create(_SCHEMA)
        self._migrate()

    # -- inside -------------------------------------------------------------------------------------------------

    def _found(self, run: Run, breach: Breach) -> Freeze | None:
        """The freeze that this very breach caused, where an earlier try to write it got through."""
        rows = run(
            "SELECT f.number, f.scope, f.allows, f.invariant, f.breach, f.time_ns, f.holder, b.body "
            'FROM "freeze" f JOIN breach b ON b.number = f.breach WHERE f.scope=? AND f.invariant=? AND f.time_ns=?',
            breach.scope,
            breach.invariant,
            breach.time_ns,
        )
        for *row, body in rows:
            if msgspec.json.decode(body, type=Breach).identity == breach.identity:
                return _freeze_of(row)
        return None

    def _breach(self, run: Run, breach: Breach) -> int:
        number = next_number(run, "breach")
        body = msgspec.json.encode(msgspec.structs.replace(breach, number=number))
        run("INSERT INTO breach VALUES (?,?,?)", number, breach.time_ns, body)
        self._audit(run, breach.time_ns, "breach", f"{breach.invariant} {breach.scope} breach {number}")
        return number

    def _freeze(
        self, run: Run, scope: str, allows: list[str], invariant: str, breach: int, time_ns: int, said: str = ""
    ) -> Freeze:
        number = next_number(run, "freeze")
        run(
            'INSERT INTO "freeze" (number, scope, allows, invariant, breach, time_ns, holder) VALUES (?,?,?,?,?,?,?)',
            number,
            scope,
            ",".join(allows),
            invariant,
            breach,
            time_ns,
            self.name,
        )
        by = invariant if said else f"by {invariant}"
        self._audit(run, time_ns, "freeze", f"{scope} freeze {number} {by}{said}")
        return Freeze(
            number=number,
            scope=scope,
            allows=allows,
            invariant=invariant,
            breach=breach,
            time_ns=time_ns,
            holder=self.name,
        )


def _freeze_of(row: Sequence[Any]) -> Freeze:
    """A freeze of its row: number, scope, allows, invariant, breach, time_ns, holder."""
    number, scope, allows, invariant, breach, time_ns, holder = row
    return Freeze(
        number=number,
        scope=scope,
        allows=allows.split(",") if allows else [],
        invariant=invariant,
        breach=breach or 0,
        time_ns=time_ns,
        holder=holder,
    )
