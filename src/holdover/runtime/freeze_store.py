"""The durable store of breaches, freezes, pages, heartbeats and the audit, in one SQLite file or on PostgreSQL.

A breach, its freeze, its pages and the audit rows are one transaction: after a kill either all of them exist
or none. `outbox` holds the pages, `audit_log` the audit; both are part of this store. Several processes may
share the store, which assigns all numbers. `observed_freezes` holds the freezes that were only observed.
share the store, which assigns all numbers. Only a cause has an alert; its consequences are lines of that alert.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue.entry import ALLOWS
from holdover.runtime.breach import Breach, Page
from holdover.runtime.database import Database, RunStatement, SqliteDatabase, StoreError, next_number
from holdover.runtime.observed_freezes import ObservationLog
from holdover.runtime.persons import check_person

_META_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS breach (
    number INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, body BLOB NOT NULL, mode TEXT NOT NULL DEFAULT 'enforce',
    cause INTEGER NOT NULL, scope TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS "freeze" (
    number INTEGER PRIMARY KEY, scope TEXT NOT NULL, allows TEXT NOT NULL, invariant TEXT NOT NULL,
    breach INTEGER, time_ns INTEGER NOT NULL, thawed_ns INTEGER, holder TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS observed (
    number INTEGER PRIMARY KEY, scope TEXT NOT NULL, invariant TEXT NOT NULL, time_ns INTEGER NOT NULL,
    holder TEXT NOT NULL, body BLOB NOT NULL, breaches INTEGER NOT NULL DEFAULT 1, refused INTEGER NOT NULL DEFAULT 0,
    seen_ns INTEGER NOT NULL DEFAULT 0, ended_ns INTEGER, ended_by TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY, dedup_key TEXT NOT NULL, body BLOB NOT NULL, time_ns INTEGER NOT NULL,
    channel TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_ns INTEGER NOT NULL DEFAULT 0,
    delivered_ns INTEGER, problem TEXT NOT NULL DEFAULT '', event TEXT NOT NULL DEFAULT 'trigger');
CREATE TABLE IF NOT EXISTS alert (
    dedup_key TEXT PRIMARY KEY, body BLOB NOT NULL, opened_ns INTEGER NOT NULL, level INTEGER NOT NULL DEFAULT 0,
    escalated_ns INTEGER NOT NULL DEFAULT 0, acknowledged_ns INTEGER, acknowledged_by TEXT NOT NULL DEFAULT '',
    resolved_ns INTEGER, breach INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS request (
    number INTEGER PRIMARY KEY, scope TEXT NOT NULL, holder TEXT NOT NULL, body BLOB NOT NULL, time_ns INTEGER NOT NULL,
    answer TEXT, answered_ns INTEGER);
CREATE TABLE IF NOT EXISTS tick (
    breach INTEGER NOT NULL, step INTEGER NOT NULL, operator TEXT NOT NULL, time_ns INTEGER NOT NULL,
    PRIMARY KEY (breach, step));
CREATE TABLE IF NOT EXISTS beat (name TEXT PRIMARY KEY, time_ns INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, act TEXT NOT NULL, detail TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS breach_cause ON breach (cause);
CREATE INDEX IF NOT EXISTS alert_cause ON alert (breach);
CREATE INDEX IF NOT EXISTS in_force ON "freeze" (number) WHERE thawed_ns IS NULL;
CREATE INDEX IF NOT EXISTS due ON outbox (number) WHERE delivered_ns IS NULL;
"""
_TABLES: Final = ("breach", "freeze", "observed", "outbox", "alert", "request", "tick", "beat", "audit")
_VERSION: Final = "4"


AGREES: Final = "holds again: breaches "
"""The beginning of a guard's answer when it was only to judge; the numbers of the breaches follow."""

FreezeIdentity = tuple[int, str, str, int]


class Freeze(msgspec.Struct, frozen=True, kw_only=True):
    """A durable latch on a scope, with what it still allows. Only a thaw ends it.

    `holder` is the name of the guard that froze; that guard can evaluate whether the invariant holds again.
    """

    number: int
    scope: str
    allows: list[str]
    invariant: str
    breach: int
    time_ns: int
    holder: str = ""

    @property
    def identity(self) -> FreezeIdentity:
        """The values that identify this freeze even if a restored store assigns its number again."""
        return (self.number, self.scope, self.invariant, self.time_ns)

    def __repr__(self) -> str:
        return f"<Freeze {self.number} {self.scope} by {self.invariant}>"


class ThawRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A thaw requested from outside the process that froze; that process decides on it.

    With `judges_only` a guard judges its own breaches and thaws nothing; its answer is then `AGREES` with the numbers
    of the breaches that it knows to hold again. `agreed` are the breaches of which other guards said so.
    """

    number: int
    scope: str
    operator: str
    reason: str
    evidence: str
    forced_by: str = ""
    answer: str | None = None
    judges_only: bool = False
    agreed: list[int] = []


def _check_time(action: str, time_ns: int) -> None:
    """Raise `ValueError` for a time before the epoch."""
    if time_ns < 0:
        raise ValueError(f"{action} at {time_ns} ns, should be ns since the epoch")


class FreezeStore(ObservationLog):
    """What is frozen, in one file or on a server. Safe against a kill at any moment and between threads.

    `name` is the guard's; it distinguishes the guard's freezes from those of others. Every method raises
    `StoreError` when the store cannot be read or written.
    """

    def __init__(self, location: Path | Database, name: str = "") -> None:
        self.database = SqliteDatabase(location) if isinstance(location, Path) else location
        self.name = name
        self.database.create(_META_SCHEMA)
        self._check_version()
        self.database.create(_SCHEMA)

    def _check_version(self) -> None:
        """Write the version into a new store; refuse a store of another version before anything else touches it."""

        def read_or_write_version(run: RunStatement) -> str:
            run("INSERT INTO meta VALUES ('version', ?) ON CONFLICT DO NOTHING", _VERSION)
            return str(run("SELECT value FROM meta WHERE name='version'")[0][0])

        version = self.database.write(read_or_write_version)
        if version != _VERSION:
            raise StoreError(
                f"{self.database.name}: written as version {version}, this Holdover reads version {_VERSION}; "
                f"thaw what is frozen with the Holdover that wrote it, then give the guard a new store"
            )

    def close(self) -> None:
        """Close the store; no write is pending."""
        self.database.close()

    # -- breaches and freezes -----------------------------------------------------------------------------------

    def record_breach(self, breach: Breach, allows: list[str], page: Page, channels: Sequence[str]) -> Freeze:
        """Write breach, freeze, page (once per channel) and audit in one transaction, on disk on return.

        Returns the freeze; its `breach` is the number that the store assigned. A breach that the store already has,
        after an answer that was lost, is not written again. The breach is a cause: its page opens an alert.
        """

        _check_breach(breach)

        def work(run: RunStatement) -> Freeze:
            existing = self._find_freeze(run, breach)
            if existing is not None:
                return existing
            number = self._insert_breach(run, msgspec.structs.replace(breach, consequence_of=0))
            freeze = self._insert_freeze(run, breach.scope, allows, breach.invariant, number, breach.time_ns)
            numbered_page = msgspec.structs.replace(page, number=number)
            self._open_alert(run, self._free_key(run, numbered_page, breach.key), channels)
            return freeze

        return self.database.write(work)

    def record_repeated_breach(self, breach: Breach, *, durable: bool = True) -> int:
        """Write a breach whose scope is already frozen for the same invariant. Returns its number."""
        _check_breach(breach)
        return self.database.write(lambda run: self._insert_breach(run, breach), durable=durable)

    def record_consequence(self, breach: Breach, allows: list[str] | None) -> tuple[int, Freeze | None]:
        """Write a breach that another one caused, with its freeze, and add it to the alert of its cause.

        Args:
            breach: the breach; `consequence_of` is the number of its cause.
            allows: what the freeze still allows; None when its scope is frozen already and needs no second freeze.

        Returns its number and the freeze; the number is 0 when the store does not have the cause, and then nothing is
        written. Raises `ValueError` for a breach without a cause.
        """
        _check_breach(breach)
        if not breach.consequence_of:
            raise ValueError(f"{breach!r} is a cause; `record_breach` writes it")

        def work(run: RunStatement) -> tuple[int, Freeze | None]:
            if not run("SELECT number FROM breach WHERE number=?", breach.consequence_of):
                return 0, None
            existing = self._find_freeze(run, breach) if allows is not None else None
            if existing is not None:
                return existing.breach, existing
            number, freeze = self._insert_breach(run, breach), None
            if allows is not None:
                freeze = self._insert_freeze(run, breach.scope, allows, breach.invariant, number, breach.time_ns)
            self._add_consequence(run, breach.consequence_of, breach.consequence_line, breach.time_ns)
            return number, freeze

        return self.database.write(work)

    def regroup(self, breaches: Sequence[Breach], pages: Sequence[Page], channels: Sequence[str]) -> bool:
        """Write the causes of the breaches of one settle anew, with one alert for each cause.

        Args:
            breaches: the breaches with their final `consequence_of`.
            pages: the page of each cause; `number` is the cause's.
            channels: where new pages go.

        Returns False, and changes nothing, when a page of them has been delivered, because on-call has read which is
        the cause, or when the store does not have all of them.
        The write is not synced: what it replaces is complete, too. Raises `ValueError` when the pages are not those of
        the causes.
        """
        causes = {breach.number for breach in breaches if not breach.consequence_of}
        if {page.number for page in pages} != causes:
            raise ValueError(f"pages of {sorted(page.number for page in pages)} for the causes {sorted(causes)}")

        def work(run: RunStatement) -> bool:
            numbers = [breach.number for breach in breaches]
            if not all(run("SELECT number FROM breach WHERE number=?", number) for number in numbers):
                return False  # they exist only in memory so far
            if not self._withdraw_alerts(run, numbers):
                return False
            for breach in breaches:
                body = msgspec.json.encode(breach)
                run("UPDATE breach SET body=?, cause=? WHERE number=?", body, breach.cause_number, breach.number)
            keys = {breach.number: breach.key for breach in breaches}
            for page in pages:
                self._open_alert(run, self._free_key(run, page, keys[page.number]), channels)
            detail = ", ".join(
                f"breach {breach.number} follows from {breach.consequence_of}"
                if breach.consequence_of
                else f"breach {breach.number} is a cause"
                for breach in breaches
            )
            self._append_audit_row(run, max(breach.time_ns for breach in breaches), "cause", detail)
            return True

        return self.database.write(work, durable=False)

    def freeze(self, scope: str, allows: list[str], by: str, reason: str, time_ns: int) -> Freeze:
        """Write an operator's freeze. Raises `ValueError` without a scope, an operator, or a time from 0 on."""

        if not scope.strip() or not by.strip():
            raise ValueError(f"a freeze of {scope!r} by {by!r} needs a scope and an operator")
        check_person(by)
        _check_time("a freeze", time_ns)
        if unknown := [permission for permission in allows if permission not in ALLOWS]:
            raise ValueError(f"a freeze of {scope} cannot allow {', '.join(unknown)}; it can allow {', '.join(ALLOWS)}")

        def work(run: RunStatement) -> Freeze:
            return self._insert_freeze(run, scope, allows, f"by hand: {by}", 0, time_ns, detail=f": {reason}")

        return self.database.write(work)

    def thaw(self, scope: str, operator: str, reason: str, evidence: str, forced_by: str, time_ns: int) -> int:
        """End every freeze of a scope and resolve its alerts. Returns how many freezes it ended.

        The audit records who thawed, why and on what evidence.
        """

        if not (operator.strip() and reason.strip() and evidence.strip()):
            raise ValueError(f"a thaw of {scope} needs operator, reason and evidence")
        if not scope.strip():
            raise ValueError(f"a thaw by {operator} needs a scope")
        check_person(operator)
        check_person(forced_by or operator, "second person")
        _check_time("a thaw", time_ns)

        def work(run: RunStatement) -> int:
            ended = run(
                'UPDATE "freeze" SET thawed_ns=? WHERE scope=? AND thawed_ns IS NULL RETURNING number', time_ns, scope
            )
            detail = {"scope": scope, "operator": operator, "reason": reason, "evidence": evidence}
            if forced_by:
                detail["forced_by"] = forced_by
            self._append_audit_row(run, time_ns, "thaw", msgspec.json.encode(detail).decode())
            self._resolve_finished_alerts(run, scope, operator, time_ns)
            return len(ended)

        return self.database.write(work)

    def _resolve_finished_alerts(self, run: RunStatement, scope: str, operator: str, time_ns: int) -> None:
        """Resolve the alerts with a breach in a thawed scope whose other scopes are thawed, too."""
        for key, cause in run(
            "SELECT dedup_key, breach FROM alert WHERE resolved_ns IS NULL AND breach IN "
            "(SELECT cause FROM breach WHERE scope=?) ORDER BY dedup_key",
            scope,
        ):
            frozen = run(
                'SELECT COUNT(*) FROM "freeze" WHERE thawed_ns IS NULL AND breach <> 0 AND scope IN '
                "(SELECT scope FROM breach WHERE cause=?)",
                cause,
            )
            if not frozen[0][0]:
                self._resolve(run, str(key), operator, time_ns)

    def active_freezes(self) -> list[Freeze]:
        """Return the freezes that no thaw has ended, oldest first."""
        rows = self.database.read(
            'SELECT number, scope, allows, invariant, breach, time_ns, holder FROM "freeze" '
            "WHERE thawed_ns IS NULL ORDER BY number"
        )
        return [_freeze_from_row(row) for row in rows]

    def is_thawed(self, freeze: Freeze) -> bool:
        """Whether a thaw has ended this freeze; False when it is in force and when the store has lost it."""
        rows = self.database.read(
            'SELECT thawed_ns FROM "freeze" WHERE number=? AND scope=? AND invariant=? AND time_ns=?', *freeze.identity
        )
        return bool(rows) and rows[0][0] is not None

    def breaches(self) -> list[Breach]:
        """Return every stored breach, oldest first."""
        rows = self.database.read("SELECT body FROM breach ORDER BY number")
        return [msgspec.json.decode(body, type=Breach) for (body,) in rows]

    def find_breach(self, number: int) -> Breach | None:
        """Return the breach with a number; None when there is none."""
        rows = self.database.read("SELECT body FROM breach WHERE number=?", number)
        return msgspec.json.decode(rows[0][0], type=Breach) if rows else None

    def breaches_by_cause(self, cause: int) -> list[Breach]:
        """Return a cause and its consequences, the cause first and then the oldest first."""
        rows = self.database.read("SELECT body FROM breach WHERE cause=? ORDER BY number", cause)
        breaches = [msgspec.json.decode(body, type=Breach) for (body,) in rows]
        return sorted(breaches, key=lambda breach: breach.number != cause)

    def last_breach_number(self) -> int:
        """Return the number of the last breach; 0 when there is none."""
        return int(self.database.read("SELECT COALESCE(MAX(number), 0) FROM breach")[0][0])

    # -- thaws asked for from outside -----------------------------------------------------------------------------

    def request_thaw(self, request: ThawRequest, holder: str, time_ns: int) -> int:
        """Request a thaw from the guard called `holder`. Returns the number of the request."""

        if not (request.scope and request.operator.strip()):
            raise ValueError("a request for a thaw needs a scope and an operator")
        check_person(request.operator)
        check_person(request.forced_by or request.operator, "second person")
        if request.answer is not None:
            raise ValueError(f"a request to thaw {request.scope} cannot be made with its answer: {request.answer!r}")
        _check_time("a request for a thaw", time_ns)

        def work(run: RunStatement) -> int:
            number = next_number(run, "request")
            body = msgspec.json.encode(request)
            run("INSERT INTO request VALUES (?,?,?,?,?,NULL,NULL)", number, request.scope, holder, body, time_ns)
            return number

        return self.database.write(work)

    def open_thaw_requests(self, holder: str, since_ns: int) -> list[ThawRequest]:
        """Return the unanswered thaw requests to a guard since a time (ns), oldest first."""
        rows = self.database.read(
            "SELECT number, body FROM request WHERE answer IS NULL AND holder=? AND time_ns>=? ORDER BY number",
            holder,
            since_ns,
        )
        return [
            msgspec.structs.replace(msgspec.json.decode(body, type=ThawRequest), number=number) for number, body in rows
        ]

    def answer_request(self, number: int, refusal: str, time_ns: int) -> None:
        """Answer a thaw request: an empty refusal means that the thaw was done."""

        if number < 1:
            raise ValueError(f"no request for a thaw has the number {number}; they count from 1")
        _check_time("an answer", time_ns)

        def work(run: RunStatement) -> None:
            run(
                "UPDATE request SET answer=?, answered_ns=? WHERE number=? AND answer IS NULL", refusal, time_ns, number
            )

        self.database.write(work)

    def find_answer(self, number: int) -> str | None:
        """Return the answer to a thaw request; None while there is none."""
        rows = self.database.read("SELECT answer FROM request WHERE number=?", number)
        return rows[0][0] if rows else None

    def withdraw_request(self, number: int, time_ns: int) -> str | None:
        """Withdraw a thaw request, so that no guard acts on it later. Returns the answer if there already was one."""

        def work(run: RunStatement) -> str | None:
            rows = run("SELECT answer FROM request WHERE number=?", number)
            if rows and rows[0][0] is not None:
                return str(rows[0][0])
            run("UPDATE request SET answer='withdrawn', answered_ns=? WHERE number=?", time_ns, number)
            return None

        return self.database.write(work)

    # -- steps ticked off, signs of life ---------------------------------------------------------------------------

    def mark_step_done(self, breach: int, step: int, operator: str, time_ns: int) -> bool:
        """Record that an operator has done a response step of a breach (from 1).

        Returns False when the step was already done.
        """

        if step < 1 or not operator.strip():
            raise ValueError(f"step {step} by {operator!r}: steps count from 1, and an operator does them")
        check_person(operator)

        def work(run: RunStatement) -> bool:
            rows = run(
                "INSERT INTO tick VALUES (?,?,?,?) ON CONFLICT DO NOTHING RETURNING step",
                breach,
                step,
                operator,
                time_ns,
            )
            if rows:
                self._append_audit_row(run, time_ns, "step", f"breach {breach} step {step} by {operator}")
            return bool(rows)

        return self.database.write(work)

    def done_steps(self, breach: int) -> dict[int, tuple[str, int]]:
        """Return the completed response steps of a breach: number -> (operator, time in ns)."""
        rows = self.database.read("SELECT step, operator, time_ns FROM tick WHERE breach=? ORDER BY step", breach)
        return {step: (operator, time_ns) for step, operator, time_ns in rows}

    def write_heartbeat(self, name: str, time_ns: int, body: bytes) -> None:
        """Write a process's heartbeat. Not synced: after a crash a heartbeat is worthless."""
        if not name or time_ns < 0:
            raise ValueError(f"a heartbeat of {name!r} at {time_ns}")

        def work(run: RunStatement) -> None:
            run(
                "INSERT INTO beat VALUES (?,?,?) ON CONFLICT (name) DO UPDATE SET time_ns=excluded.time_ns, "
                "body=excluded.body",
                name,
                time_ns,
                body,
            )

        self.database.write(work, durable=False)

    def heartbeats(self) -> list[tuple[str, int, bytes]]:
        """Return (name, time in ns, body) of the last heartbeat of every process, by name."""
        rows = self.database.read("SELECT name, time_ns, body FROM beat ORDER BY name")
        return [(str(name), int(time_ns), bytes(body)) for name, time_ns, body in rows]

    # -- the store as a whole -----------------------------------------------------------------------------------

    @classmethod
    def in_memory(cls) -> FreezeStore:
        """Return a store in memory, for a run that must leave no trace."""
        return cls(Path(":memory:"))

    def _sqlite_database(self) -> SqliteDatabase:
        if not isinstance(self.database, SqliteDatabase):
            raise StoreError(f"{self.database.name}: only a store in a file can be taken as an image")
        return self.database

    def clear(self) -> None:
        """Empty a store in memory after a trial. Raises `StoreError` for a store on disk."""
        if not self._sqlite_database().in_memory:
            raise StoreError(f"{self.database.name}: a store on the disk forgets nothing")

        def work(run: RunStatement) -> None:
            for table in _TABLES:
                run(f'DELETE FROM "{table}"')
            run("DELETE FROM meta WHERE name='audit'")

        self.database.write(work)

    def to_bytes(self) -> bytes:
        """Return the whole store as one image. Raises `StoreError` for a store that is not in a file."""
        return self._sqlite_database().export_image()

    def restore_bytes(self, image: bytes) -> None:
        """Replace the content with an image. Raises `StoreError` when the image is not a freeze store."""
        file = self._sqlite_database()
        file.restore_image(image, 'SELECT COUNT(*) FROM "freeze"')
        file.create(_SCHEMA)
        self._check_version()

    # -- inside -------------------------------------------------------------------------------------------------

    def _find_freeze(self, run: RunStatement, breach: Breach) -> Freeze | None:
        """Return the freeze that this breach caused if an earlier attempt to write it succeeded."""
        rows = run(
            "SELECT f.number, f.scope, f.allows, f.invariant, f.breach, f.time_ns, f.holder, b.body "
            'FROM "freeze" f JOIN breach b ON b.number = f.breach WHERE f.scope=? AND f.invariant=? AND f.time_ns=?',
            breach.scope,
            breach.invariant,
            breach.time_ns,
        )
        for *row, body in rows:
            if msgspec.json.decode(body, type=Breach).identity == breach.identity:
                return _freeze_from_row(row)
        return None

    def _insert_freeze(
        self,
        run: RunStatement,
        scope: str,
        allows: list[str],
        invariant: str,
        breach: int,
        time_ns: int,
        detail: str = "",
    ) -> Freeze:
        if not scope or not set(allows) <= set(ALLOWS):
            raise ValueError(f"a freeze of {scope!r} that allows {', '.join(allows)}; it may allow {', '.join(ALLOWS)}")
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
        by = invariant if detail else f"by {invariant}"
        self._append_audit_row(run, time_ns, "freeze", f"{scope} freeze {number} {by}{detail}")
        return Freeze(
            number=number,
            scope=scope,
            allows=allows,
            invariant=invariant,
            breach=breach,
            time_ns=time_ns,
            holder=self.name,
        )


def _check_breach(breach: Breach) -> None:
    """Raise `ValueError` for a breach that freezes nothing or names no invariant."""
    if not breach.scope or not breach.invariant:
        raise ValueError(f"{breach!r} has no scope or no invariant")


def _freeze_from_row(row: Sequence[Any]) -> Freeze:
    """Return the freeze of a row: number, scope, allows, invariant, breach, time_ns, holder."""
    number, scope, allows, invariant, breach, time_ns, holder = row
    allowed = allows.split(",") if allows else []
    if number < 1 or not scope or not set(allowed) <= set(ALLOWS):
        raise StoreError(f"freeze {number} of {scope!r} is damaged: it allows {allows!r}")
    return Freeze(
        number=number,
        scope=scope,
        allows=allowed,
        invariant=invariant,
        breach=breach or 0,
        time_ns=time_ns,
        holder=holder,
    )
