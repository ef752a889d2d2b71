"""The ledger of incidents, in the store that holds the freezes: SQLite and PostgreSQL alike.

A breach opens an incident, or joins the one that is open with its invariant and its cell class. The life of an incident
is opened, acknowledged, diagnosed, resolved; it is acknowledged when one of its pages is. Whether it is recurrent is
never said by anybody: it is when an incident of the same invariant and the same cell class had been resolved before.
Classes are the same by the parts that both have (`classes.same_class`). An incident imported without any class is
joined by none, and repeated by each of its invariant: doubt opens an incident more, and does not call it novel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from holdover.incidents.classes import cell_class, same_class
from holdover.runtime import Breach, FreezeStore
from holdover.runtime.breach import state_in_words
from holdover.runtime.database import Row, Run

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS incident (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, invariant TEXT NOT NULL, cell_class TEXT NOT NULL,
    scope TEXT NOT NULL, severity TEXT NOT NULL, told TEXT NOT NULL, opened_ns INTEGER NOT NULL,
    acknowledged_ns INTEGER, acknowledged_by TEXT NOT NULL DEFAULT '',
    diagnosed_ns INTEGER, diagnosed_by TEXT NOT NULL DEFAULT '', cause TEXT NOT NULL DEFAULT '',
    diagnosis TEXT NOT NULL DEFAULT '', resolved_ns INTEGER, resolved_by TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS incident_breach (
    breach INTEGER PRIMARY KEY, incident INTEGER NOT NULL, dedup_key TEXT NOT NULL, time_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS incident_place (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
_FIELDS: Final = (
    "number, name, invariant, cell_class, scope, severity, told, opened_ns, acknowledged_ns, acknowledged_by, "
    "diagnosed_ns, diagnosed_by, cause, diagnosis, resolved_ns, resolved_by"
)
_TAG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_SENTENCE_MAX: Final = 2000


class BadIncident(ValueError):
    """An act that an incident does not allow, or an incident that is not there; the message says why."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One incident as it stands; times in ns since the epoch, UTC, None for what has not come yet.

    `name` is by which it is known elsewhere, where it was imported; `cause` the tag and `diagnosis` the sentence of
    whoever diagnosed it; `breaches` the numbers of the breaches in it; `recurs` the number of the incident that it
    repeats, 0 when it is novel; `cell` and `after` what the first breach in it tells of the state.
    """

    number: int
    name: str
    invariant: str
    cell_class: str
    scope: str
    severity: str
    told: str
    opened_ns: int
    acknowledged_ns: int | None = None
    acknowledged_by: str = ""
    diagnosed_ns: int | None = None
    diagnosed_by: str = ""
    cause: str = ""
    diagnosis: str = ""
    resolved_ns: int | None = None
    resolved_by: str = ""
    breaches: list[int] = []
    recurs: int = 0
    cell: dict[str, str] = {}
    after: str = ""

    @property
    def found_in(self) -> str:
        """The carried state in which it was found, in words; empty where no breach tells it."""
        return state_in_words(self.cell, self.after)

    @property
    def state(self) -> str:
        """How far it has come: opened, acknowledged, diagnosed or resolved."""
        if self.resolved_ns is not None:
            return "resolved"
        if self.diagnosed_ns is not None:
            return "diagnosed"
        return "acknowledged" if self.acknowledged_ns is not None else "opened"

    @property
    def recurrence(self) -> str:
        """`recurrent` or `novel`."""
        return "recurrent" if self.recurs else "novel"


class Ledger:
    """The incidents in a store. Every act is in the audit log, in the transaction of the act itself.

    Raises `StoreProblem` from every method when the store cannot be read or written.
    """

    def __init__(self, store: FreezeStore) -> None:
        self.store = store
        store.database.create(_SCHEMA)

    # -- taking up what the guard has written -------------------------------------------------------------------

    def take(self) -> int:
        """Take up the breaches and acknowledgements that are new in the store; how many breaches.

        Idempotent, and safe to be called by several processes at once.
        """
        if not self._anything_new():
            return 0
        return self.store.database.write(self._take)

    def _anything_new(self) -> bool:
        """Whether `_take` would do anything: asked first, so that looking costs no synced transaction."""
        read = self.store.database.read
        untaken = read(f"SELECT COUNT(*) FROM breach b WHERE {_UNTAKEN}")[0][0]
        said = read("SELECT COUNT(*) FROM audit WHERE act='acknowledge' AND number > " + _PLACE)[0][0]
        return bool(untaken or said)

    def _take(self, run: Run) -> int:
        rows = run(f"SELECT body FROM breach b WHERE {_UNTAKEN} ORDER BY number")
        for (body,) in rows:
            self._join(run, msgspec.json.decode(body, type=Breach))
        last = 0
        for number, time_ns, detail in run(
            "SELECT number, time_ns, detail FROM audit WHERE act='acknowledge' AND number > "
            + _PLACE
            + " ORDER BY number"
        ):
            self._acknowledged(run, int(time_ns), str(detail))
            last = int(number)
        if last:
            run(
                "INSERT INTO incident_place VALUES ('audit', ?) ON CONFLICT (name) DO UPDATE SET value=excluded.value",
                last,
            )
        return len(rows)

    def _join(self, run: Run, breach: Breach) -> None:
        mark = (breach.invariant, cell_class(breach))
        open_ones = run(
            "SELECT number, cell_class FROM incident WHERE invariant=? AND resolved_ns IS NULL ORDER BY number", mark[0]
        )
        found = [number for number, told in open_ones if told == mark[1]]  # its very own class comes first
        found += [number for number, told in open_ones if told and same_class(str(told), mark[1])]
        if found:
            number, how = int(found[0]), "joined by"
        else:
            number, how = _next(run), "opened by"
            self._insert(
                run,
                Incident(
                    number=number,
                    name="",
                    invariant=mark[0],
                    cell_class=mark[1],
                    scope=breach.scope,
                    severity=breach.severity,
                    told=breach.explanation,
                    opened_ns=breach.time_ns,
                ),
            )
        key = f"{breach.invariant}/{breach.scope}"
        run("INSERT INTO incident_breach VALUES (?,?,?,?)", breach.number, number, key, breach.time_ns)
        told = f"{number} {how} breach {breach.number}: {mark[0]} in {mark[1]}"
        self.store.say_within(run, "incident", told, breach.time_ns)

    def _acknowledged(self, run: Run, time_ns: int, detail: str) -> None:
        """An alert was acknowledged: with it the incidents whose breaches it had paged by then."""
        for number, key in run(
            "SELECT DISTINCT i.number, b.dedup_key FROM incident i JOIN incident_breach b ON b.incident = i.number "
            "WHERE i.acknowledged_ns IS NULL AND b.time_ns <= ? ORDER BY i.number",
            time_ns,
        ):
            if detail.startswith(f"{key} by "):
                self._step(run, int(number), "acknowledged", time_ns, detail.removeprefix(f"{key} by "))

    # -- acts ---------------------------------------------------------------------------------------------------

    def acknowledge(self, number: int, operator: str, time_ns: int) -> None:
        """Somebody is on it: the incident and the pages open about it. Raises `BadIncident`."""
        _who(operator)
        incident = self.get(number)
        if incident.state != "opened":
            by = incident.acknowledged_by or incident.diagnosed_by or incident.resolved_by
            raise BadIncident(f"incident {number} is {incident.state} already, by {by}")
        for (key,) in self.store.database.read(
            "SELECT DISTINCT dedup_key FROM incident_breach WHERE incident=? ORDER BY dedup_key", number
        ):
            self.store.acknowledge(str(key), operator, time_ns)

        def work(run: Run) -> None:
            self._take(run)
            if self._known(run, number).acknowledged_ns is None:  # nothing was paged about it, or that is over
                self._step(run, number, "acknowledged", time_ns, operator)

        self.store.database.write(work)

    def diagnose(self, number: int, operator: str, cause: str, diagnosis: str, time_ns: int) -> None:
        """Why it came about: a tag and a sentence. Who diagnoses has acknowledged. A later diagnosis replaces it.

        Raises `BadIncident`.
        """
        _who(operator)
        if not _TAG.fullmatch(cause):
            raise BadIncident(
                f"{cause!r} is no cause tag; it should be a word in small letters, digits and hyphens, like lost-fill"
            )
        told = " ".join(diagnosis.split())
        if not told or len(told) > _SENTENCE_MAX:
            raise BadIncident(f"a diagnosis needs a sentence of at most {_SENTENCE_MAX} characters: say what was wrong")

        def work(run: Run) -> None:
            self._take(run)
            incident = self._known(run, number)
            if incident.resolved_ns is not None:
                raise BadIncident(
                    f"incident {number} is resolved by {incident.resolved_by}; it is diagnosed before that"
                )
            if incident.acknowledged_ns is None:
                self._step(run, number, "acknowledged", time_ns, operator)
            run("UPDATE incident SET cause=?, diagnosis=? WHERE number=?", cause, told, number)
            self._step(run, number, "diagnosed", time_ns, operator, f": {cause}: {told}")

        self.store.database.write(work)

    def resolve(self, number: int, operator: str, time_ns: int) -> None:
        """It is over. Raises `BadIncident` where nobody has diagnosed it, or it is over already."""
        _who(operator)

        def work(run: Run) -> None:
            self._take(run)
            incident = self._known(run, number)
            if incident.resolved_ns is not None:
                raise BadIncident(f"incident {number} is resolved already, by {incident.resolved_by}")
            if incident.diagnosed_ns is None:
                raise BadIncident(f"incident {number} has no diagnosis yet: holdover incidents diagnose {number} first")
            self._step(run, number, "resolved", time_ns, operator)

        self.store.database.write(work)

    def add(self, incidents: Sequence[Incident], by: str, time_ns: int) -> int:
        """Add earlier incidents, all of them or none; how many. Their numbers are given here.

        Raises `BadIncident` naming each that is in the ledger already by its name.
        """
        _who(by)

        def work(run: Run) -> int:
            there = {str(name) for (name,) in run("SELECT name FROM incident WHERE name <> ''")}
            known = [one.name for one in incidents if one.name in there]
            if known:
                raise BadIncident("\n".join(f"an incident {name} is in the ledger already" for name in known))
            first = _next(run)
            for number, one in enumerate(sorted(incidents, key=lambda one: one.opened_ns), first):
                self._insert(run, msgspec.structs.replace(one, number=number))
            if incidents:
                told = f"{len(incidents)} imported by {by}: {first} to {first + len(incidents) - 1}"
                self.store.say_within(run, "incident", told, time_ns)
            return len(incidents)

        return self.store.database.write(work)

    # -- asking -------------------------------------------------------------------------------------------------

    def all(self) -> list[Incident]:
        """Every incident, the oldest first."""
        return self._read(self.store.database.read)

    def get(self, number: int) -> Incident:
        """The incident of that number. Raises `BadIncident` when there is none."""
        return self._known(self.store.database.read, number)

    def acts(self, number: int) -> list[tuple[int, str]]:
        """(time in ns, what was done) of one incident as the audit log has it, oldest first."""
        rows = self.store.database.read(
            "SELECT time_ns, detail FROM audit WHERE act='incident' AND detail LIKE ? ORDER BY number", f"{number} %"
        )
        return [
            (int(time_ns), str(detail).partition(" ")[2]) for time_ns, detail in rows if " imported by " not in detail
        ]

    def of_breach(self, breach: int) -> int:
        """The incident that a breach is in; 0 while it has not been taken."""
        rows = self.store.database.read("SELECT incident FROM incident_breach WHERE breach=?", breach)
        return int(rows[0][0]) if rows else 0

    # -- inside -------------------------------------------------------------------------------------------------

    def _known(self, run: Run, number: int) -> Incident:
        found = next((one for one in self._read(run) if one.number == number), None)
        if found is None:
            raise BadIncident(f"there is no incident {number}; see holdover incidents list")
        return found

    def _read(self, run: Run) -> list[Incident]:
        inside: dict[int, list[int]] = {}
        for breach, incident in run("SELECT breach, incident FROM incident_breach ORDER BY breach"):
            inside.setdefault(int(incident), []).append(int(breach))
        first = run(
            "SELECT t.incident, b.body FROM breach b JOIN incident_breach t ON t.breach = b.number "
            "WHERE b.number IN (SELECT MIN(breach) FROM incident_breach GROUP BY incident)"
        )
        found = {int(incident): msgspec.json.decode(body, type=_Found) for incident, body in first}
        rows = run(f"SELECT {_FIELDS} FROM incident ORDER BY opened_ns, number")
        return _with_recurrence([_incident(row, inside, found) for row in rows])

    def _insert(self, run: Run, one: Incident) -> None:
        values = [getattr(one, name.strip()) for name in _FIELDS.split(",")]
        run(f"INSERT INTO incident ({_FIELDS}) VALUES ({','.join('?' * len(values))})", *values)

    def _step(self, run: Run, number: int, step: str, time_ns: int, by: str, told: str = "") -> None:
        run(f"UPDATE incident SET {step}_ns=?, {step}_by=? WHERE number=?", time_ns, by, number)
        self.store.say_within(run, "incident", f"{number} {step} by {by}{told}", time_ns)


_UNTAKEN: Final = "NOT EXISTS (SELECT 1 FROM incident_breach t WHERE t.breach = b.number)"
_PLACE: Final = "COALESCE((SELECT value FROM incident_place WHERE name='audit'), 0)"


def _with_recurrence(incidents: Iterable[Incident]) -> list[Incident]:
    """Each with the one that it repeats: the latest of its invariant and class that was resolved when it was opened."""
    found: list[Incident] = []
    over: dict[str, dict[str, list[Incident]]] = {}
    for one in incidents:
        mine = over.setdefault(one.invariant, {})
        before = [
            other
            for told, others in mine.items()
            if not told or not one.cell_class or same_class(told, one.cell_class)
            for other in others
            if other.resolved_ns is not None and other.resolved_ns <= one.opened_ns
        ]
        recurs = max(before, key=lambda other: (other.resolved_ns or 0, other.number)).number if before else 0
        found.append(msgspec.structs.replace(one, recurs=recurs))
        mine.setdefault(one.cell_class, []).append(one)
    return found


class _Found(msgspec.Struct, frozen=True):
    """What is read of a breach's body here."""

    cell: dict[str, str] = {}
    after: str = ""


def _incident(row: Row, inside: dict[int, list[int]], found: dict[int, _Found]) -> Incident:
    told: dict[str, Any] = dict(zip([name.strip() for name in _FIELDS.split(",")], row, strict=True))
    number = int(row[0])
    first = found.get(number, _Found())
    return Incident(**told, breaches=inside.get(number, []), cell=first.cell, after=first.after)


def _next(run: Run) -> int:
    return int(run("SELECT COALESCE(MAX(number), 0) + 1 FROM incident")[0][0])


def _who(operator: str) -> None:
    if not operator.strip():
        raise BadIncident("an act on an incident needs operator: say who")
