"""The ledger of incidents, in the store that holds the freezes, on SQLite and PostgreSQL.

A breach opens an incident or joins the open incident with its invariant and cell class; a consequence joins the
incident of its cause, and a breach that was only observed joins none. An incident is opened,
acknowledged, diagnosed and resolved; acknowledging one of its alerts acknowledges it. Recurrence is computed: an
incident is recurrent when an earlier one with the same invariant and cell class had been resolved. Classes are compared
by the parts that both have (`classes.is_same_class`). An imported incident without a class is never joined, and every
later incident of its invariant recurs on it: when in doubt, a breach opens a new incident that does not count as novel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from holdover.incidents.classes import cell_class, is_same_class
from holdover.runtime import Breach, FreezeStore
from holdover.runtime.breach import describe_carried_state
from holdover.runtime.database import Row, RunStatement

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS incident (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, invariant TEXT NOT NULL, cell_class TEXT NOT NULL,
    scope TEXT NOT NULL, severity TEXT NOT NULL, explanation TEXT NOT NULL, opened_ns INTEGER NOT NULL,
    acknowledged_ns INTEGER, acknowledged_by TEXT NOT NULL DEFAULT '',
    diagnosed_ns INTEGER, diagnosed_by TEXT NOT NULL DEFAULT '', cause TEXT NOT NULL DEFAULT '',
    diagnosis TEXT NOT NULL DEFAULT '', resolved_ns INTEGER, resolved_by TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS incident_breach (
    breach INTEGER PRIMARY KEY, incident INTEGER NOT NULL, dedup_key TEXT NOT NULL, time_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS incident_place (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS incident_open ON incident (opened_ns, number) WHERE resolved_ns IS NULL;
CREATE INDEX IF NOT EXISTS incident_resolved ON incident (opened_ns, number) WHERE resolved_ns IS NOT NULL;
CREATE INDEX IF NOT EXISTS incident_class ON incident (invariant, cell_class, resolved_ns, opened_ns, number);
CREATE INDEX IF NOT EXISTS incident_breaches ON incident_breach (incident, breach);
CREATE INDEX IF NOT EXISTS incident_action ON audit (number) WHERE act='incident';
CREATE INDEX IF NOT EXISTS incident_acknowledgement ON audit (number) WHERE act='acknowledge';
"""
_COLUMNS: Final = (
    "number, name, invariant, cell_class, scope, severity, explanation, opened_ns, acknowledged_ns, acknowledged_by, "
    "diagnosed_ns, diagnosed_by, cause, diagnosis, resolved_ns, resolved_by"
)
_TAG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_SENTENCE_MAX: Final = 2000


class IncidentError(ValueError):
    """The incident does not exist or does not allow the action; the message says why."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One incident; times in ns since the epoch, UTC, None for steps that have not happened.

    `name` is the name elsewhere of an imported incident; `cause` is the tag and `diagnosis` the sentence of the
    diagnosis; `breaches` are the numbers of its breaches, and `consequences` those of them that followed from another
    one; `recurs` is the number of the incident that it repeats, 0
    when it is novel; `cell` and `after` are the state that its first breach records.
    """

    number: int
    name: str
    invariant: str
    cell_class: str
    scope: str
    severity: str
    explanation: str
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
    consequences: list[int] = []
    recurs: int = 0
    cell: dict[str, str] = {}
    after: str = ""

    @property
    def carried_state_text(self) -> str:
        """The carried state of the first breach in words; empty when no breach records it."""
        return describe_carried_state(self.cell, self.after)

    @property
    def state(self) -> str:
        """The last step: opened, acknowledged, diagnosed or resolved."""
        if self.resolved_ns is not None:
            return "resolved"
        if self.diagnosed_ns is not None:
            return "diagnosed"
        return "acknowledged" if self.acknowledged_ns is not None else "opened"

    @property
    def recurrence(self) -> str:
        """`recurrent` or `novel`."""
        return "recurrent" if self.recurs else "novel"


class IncidentLedger:
    """The incidents in a store. Every action is written to the audit log in the same transaction.

    Every method raises `StoreError` when the store cannot be read or written.
    """

    def __init__(self, store: FreezeStore) -> None:
        self.store = store
        store.database.create(_SCHEMA)

    # -- importing from the guard -------------------------------------------------------------------------------

    def import_breaches(self) -> int:
        """Import new breaches and acknowledgements from the store. Returns the number of breaches.

        Idempotent; several processes may call it at once.
        """
        if not self._has_new_rows():
            return 0
        return self.store.database.write(self._import_breaches)

    def _has_new_rows(self) -> bool:
        """Whether there is anything to import; checked first, because reading needs no synced transaction."""
        read = self.store.database.read
        new_breaches = read(f"SELECT COUNT(*) FROM breach b WHERE {_NEW_BREACHES}")[0][0]
        new_acknowledgements = read(
            "SELECT COUNT(*) FROM audit WHERE act='acknowledge' AND number > " + _LAST_AUDIT_NUMBER
        )[0][0]
        return bool(new_breaches or new_acknowledgements)

    def _import_breaches(self, run: RunStatement) -> int:
        # Causes first: a consequence joins the incident of its cause, whichever of them was found first.
        rows = run(f"SELECT body FROM breach b WHERE {_NEW_BREACHES} ORDER BY b.cause <> b.number, b.number")
        for (body,) in rows:
            self._add_breach(run, msgspec.json.decode(body, type=Breach))
        last = 0
        for number, time_ns, detail in run(
            "SELECT number, time_ns, detail FROM audit WHERE act='acknowledge' AND number > "
            + _LAST_AUDIT_NUMBER
            + " ORDER BY number"
        ):
            self._apply_acknowledgement(run, int(time_ns), str(detail))
            last = int(number)
        if last:
            run(
                "INSERT INTO incident_place VALUES ('audit', ?) ON CONFLICT (name) DO UPDATE SET value=excluded.value",
                last,
            )
        return len(rows)

    def _add_breach(self, run: RunStatement, breach: Breach) -> None:
        mark = (breach.invariant, cell_class(breach))
        matches = _incidents_of_cause(run, breach) or _incidents_of_class(run, *mark)
        if matches:
            number, verb = int(matches[0]), "joined by"
        else:
            number, verb = _next_number(run), "opened by"
            self._insert_incident(
                run,
                Incident(
                    number=number,
                    name="",
                    invariant=mark[0],
                    cell_class=mark[1],
                    scope=breach.scope,
                    severity=breach.severity,
                    explanation=breach.explanation,
                    opened_ns=breach.time_ns,
                ),
            )
        alerts = run("SELECT dedup_key FROM alert WHERE breach=?", breach.cause_number)
        key = str(alerts[0][0]) if alerts else f"{breach.invariant}/{breach.scope}"
        run("INSERT INTO incident_breach VALUES (?,?,?,?)", breach.number, number, key, breach.time_ns)
        follows = f", which follows from breach {breach.consequence_of}" if breach.consequence_of else ""
        detail = f"{number} {verb} breach {breach.number}: {mark[0]} in {mark[1]}{follows}"
        self.store.log_action_in(run, "incident", detail, breach.time_ns)

    def _apply_acknowledgement(self, run: RunStatement, time_ns: int, detail: str) -> None:
        """Acknowledge the incidents whose breaches an alert had reported by the time it was acknowledged."""
        for number, key in run(
            "SELECT DISTINCT i.number, b.dedup_key FROM incident i JOIN incident_breach b ON b.incident = i.number "
            "WHERE i.acknowledged_ns IS NULL AND b.time_ns <= ? ORDER BY i.number",
            time_ns,
        ):
            if detail.startswith(f"{key} by "):
                self._record_step(run, int(number), "acknowledged", time_ns, detail.removeprefix(f"{key} by "))

    # -- actions ------------------------------------------------------------------------------------------------

    def acknowledge(self, number: int, operator: str, time_ns: int) -> None:
        """Acknowledge the incident and its open alerts. Raises `IncidentError` when it is acknowledged already."""
        _require_operator(operator)
        incident = self.get_incident(number)
        if incident.state != "opened":
            by = incident.acknowledged_by or incident.diagnosed_by or incident.resolved_by
            raise IncidentError(f"incident {number} is {incident.state} already, by {by}")
        for (key,) in self.store.database.read(
            "SELECT DISTINCT dedup_key FROM incident_breach WHERE incident=? ORDER BY dedup_key", number
        ):
            self.store.acknowledge(str(key), operator, time_ns)

        def work(run: RunStatement) -> None:
            self._import_breaches(run)
            if self._require(run, number).acknowledged_ns is None:  # it had no alert, or the alert is resolved
                self._record_step(run, number, "acknowledged", time_ns, operator)

        self.store.database.write(work)

    def diagnose(self, number: int, operator: str, cause: str, diagnosis: str, time_ns: int) -> None:
        """Record the cause: a tag and a sentence.

        This also acknowledges the incident. A later diagnosis replaces this one.

        Raises `IncidentError` when the tag or the sentence is not valid or the incident is resolved.
        """
        _require_operator(operator)
        if not _TAG.fullmatch(cause):
            raise IncidentError(
                f"{cause!r} is no cause tag; it should be a word in small letters, digits and hyphens, like lost-fill"
            )
        sentence = " ".join(diagnosis.split())
        if not sentence or len(sentence) > _SENTENCE_MAX:
            raise IncidentError(
                f"a diagnosis needs a sentence of at most {_SENTENCE_MAX} characters: say what was wrong"
            )

        def work(run: RunStatement) -> None:
            self._import_breaches(run)
            incident = self._require(run, number)
            if incident.resolved_ns is not None:
                raise IncidentError(
                    f"incident {number} is resolved by {incident.resolved_by}; it is diagnosed before that"
                )
            if incident.acknowledged_ns is None:
                self._record_step(run, number, "acknowledged", time_ns, operator)
            run("UPDATE incident SET cause=?, diagnosis=? WHERE number=?", cause, sentence, number)
            self._record_step(run, number, "diagnosed", time_ns, operator, f": {cause}: {sentence}")

        self.store.database.write(work)

    def resolve(self, number: int, operator: str, time_ns: int) -> None:
        """Resolve the incident. Raises `IncidentError` when it has no diagnosis or is resolved already."""
        _require_operator(operator)

        def work(run: RunStatement) -> None:
            self._import_breaches(run)
            incident = self._require(run, number)
            if incident.resolved_ns is not None:
                raise IncidentError(f"incident {number} is resolved already, by {incident.resolved_by}")
            if incident.diagnosed_ns is None:
                raise IncidentError(
                    f"incident {number} has no diagnosis yet: holdover incidents diagnose {number} first"
                )
            self._record_step(run, number, "resolved", time_ns, operator)

        self.store.database.write(work)

    def add_incidents(self, incidents: Sequence[Incident], by: str, time_ns: int) -> int:
        """Add earlier incidents, all of them or none, and number them. Returns their count.

        Raises `IncidentError` with every name that is in the ledger already.
        """
        _require_operator(by)

        def work(run: RunStatement) -> int:
            names = {str(name) for (name,) in run("SELECT name FROM incident WHERE name <> ''")}
            duplicates = [incident.name for incident in incidents if incident.name in names]
            if duplicates:
                raise IncidentError("\n".join(f"an incident {name} is in the ledger already" for name in duplicates))
            first = _next_number(run)
            for number, incident in enumerate(sorted(incidents, key=lambda incident: incident.opened_ns), first):
                self._insert_incident(run, msgspec.structs.replace(incident, number=number))
            if incidents:
                detail = f"{len(incidents)} imported by {by}: {first} to {first + len(incidents) - 1}"
                self.store.log_action_in(run, "incident", detail, time_ns)
            return len(incidents)

        return self.store.database.write(work)

    # -- queries ------------------------------------------------------------------------------------------------

    def list_incidents(self) -> list[Incident]:
        """Returns every incident, the oldest first."""
        return self._read_incidents(self.store.database.read)

    def incident_page(self, *, resolved: bool, offset: int, limit: int) -> list[Incident]:
        """Returns a part of the open incidents, oldest first, or of the resolved ones, latest first.

        Reads only these incidents, however many there are.

        Args:
            resolved: which of the two lists.
            offset: how many incidents of the list to skip, from 0.
            limit: how many to return at most, from 1.
        """
        if offset < 0 or limit < 1:
            raise ValueError(f"{limit} incidents from {offset}: at least 1, from 0 on")
        condition, order = ("IS NOT NULL", " DESC") if resolved else ("IS NULL", "")
        return self._select_incidents(
            self.store.database.read,
            f"resolved_ns {condition} ORDER BY opened_ns{order}, number{order} LIMIT ? OFFSET ?",
            limit,
            offset,
        )

    def count_incidents(self, *, resolved: bool) -> int:
        """Returns the number of open or of resolved incidents."""
        condition = "IS NOT NULL" if resolved else "IS NULL"
        return int(self.store.database.read(f"SELECT COUNT(*) FROM incident WHERE resolved_ns {condition}")[0][0])

    def get_incident(self, number: int) -> Incident:
        """Returns the incident with that number. Raises `IncidentError` when there is none."""
        return self._require(self.store.database.read, number)

    def list_actions(self, number: int) -> list[tuple[int, str]]:
        """Returns (time in ns, action) of one incident from the audit log, oldest first."""
        rows = self.store.database.read(
            "SELECT time_ns, detail FROM audit WHERE act='incident' AND detail LIKE ? ORDER BY number", f"{number} %"
        )
        return [
            (int(time_ns), str(detail).partition(" ")[2]) for time_ns, detail in rows if " imported by " not in detail
        ]

    def incident_of_breach(self, breach: int) -> int:
        """Returns the incident of a breach; 0 while the breach has not been imported."""
        rows = self.store.database.read("SELECT incident FROM incident_breach WHERE breach=?", breach)
        return int(rows[0][0]) if rows else 0

    # -- internals ----------------------------------------------------------------------------------------------

    def _require(self, run: RunStatement, number: int) -> Incident:
        incidents = self._select_incidents(run, "number=?", number)
        if not incidents:
            raise IncidentError(f"there is no incident {number}; see holdover incidents list")
        return incidents[0]

    def _select_incidents(self, run: RunStatement, condition: str, *values: object) -> list[Incident]:
        """The incidents that a condition selects, each with its breaches, first state and recurrence."""
        rows = run(f"SELECT {_COLUMNS} FROM incident WHERE {condition}", *values)
        incidents = []
        for row in rows:
            breaches = [
                (int(breach), cause not in (None, breach))
                for breach, cause in run(
                    "SELECT t.breach, b.cause FROM incident_breach t LEFT JOIN breach b ON b.number = t.breach "
                    "WHERE t.incident=? ORDER BY t.breach",
                    row[0],
                )
            ]
            body = run("SELECT body FROM breach WHERE number=?", breaches[0][0]) if breaches else []
            state = msgspec.json.decode(body[0][0], type=_BreachState) if body else _BreachState()
            incident = _incident_of_row(row, {int(row[0]): breaches}, {int(row[0]): state})
            incidents.append(msgspec.structs.replace(incident, recurs=_find_recurrence(run, incident)))
        return incidents

    def _read_incidents(self, run: RunStatement) -> list[Incident]:
        breaches_of: dict[int, list[tuple[int, bool]]] = {}
        for incident, breach, cause in run(
            "SELECT t.incident, t.breach, b.cause FROM incident_breach t LEFT JOIN breach b ON b.number = t.breach "
            "ORDER BY t.breach"
        ):
            breaches_of.setdefault(int(incident), []).append((int(breach), cause not in (None, breach)))
        first = run(
            "SELECT t.incident, b.body FROM breach b JOIN incident_breach t ON t.breach = b.number "
            "WHERE b.number IN (SELECT MIN(breach) FROM incident_breach GROUP BY incident)"
        )
        states = {int(incident): msgspec.json.decode(body, type=_BreachState) for incident, body in first}
        rows = run(f"SELECT {_COLUMNS} FROM incident ORDER BY opened_ns, number")
        return _link_recurrences([_incident_of_row(row, breaches_of, states) for row in rows])

    def _insert_incident(self, run: RunStatement, incident: Incident) -> None:
        values = [getattr(incident, name.strip()) for name in _COLUMNS.split(",")]
        run(f"INSERT INTO incident ({_COLUMNS}) VALUES ({','.join('?' * len(values))})", *values)

    def _record_step(self, run: RunStatement, number: int, step: str, time_ns: int, by: str, detail: str = "") -> None:
        run(f"UPDATE incident SET {step}_ns=?, {step}_by=? WHERE number=?", time_ns, by, number)
        self.store.log_action_in(run, "incident", f"{number} {step} by {by}{detail}", time_ns)


_NEW_BREACHES: Final = "b.mode = 'enforce' AND NOT EXISTS (SELECT 1 FROM incident_breach t WHERE t.breach = b.number)"
_LAST_AUDIT_NUMBER: Final = "COALESCE((SELECT value FROM incident_place WHERE name='audit'), 0)"


def _find_recurrence(run: RunStatement, incident: Incident) -> int:
    """The number of the incident that this one repeats, as `_link_recurrences` finds it; 0 when it is novel."""
    earlier = (
        "FROM incident WHERE invariant=? AND resolved_ns IS NOT NULL AND resolved_ns<=? "
        "AND (opened_ns<? OR (opened_ns=? AND number<?))"
    )
    opened_ns = incident.opened_ns
    values = (incident.invariant, opened_ns, opened_ns, opened_ns, incident.number)
    latest: tuple[int, int] = (-1, 0)
    for class_text, resolved_ns in run(f"SELECT cell_class, MAX(resolved_ns) {earlier} GROUP BY cell_class", *values):
        if class_text and incident.cell_class and not is_same_class(str(class_text), incident.cell_class):
            continue
        if int(resolved_ns) >= latest[0]:
            number = run(
                f"SELECT MAX(number) {earlier} AND cell_class=? AND resolved_ns=?", *values, class_text, resolved_ns
            )[0][0]
            latest = max(latest, (int(resolved_ns), int(number)))
    return latest[1]


def _link_recurrences(incidents: Iterable[Incident]) -> list[Incident]:
    """Set `recurs`: the latest incident of the same invariant and class that was resolved before this one opened."""
    result: list[Incident] = []
    by_invariant: dict[str, dict[str, list[Incident]]] = {}
    for incident in incidents:
        by_class = by_invariant.setdefault(incident.invariant, {})
        before = [
            candidate
            for class_text, earlier in by_class.items()
            if not class_text or not incident.cell_class or is_same_class(class_text, incident.cell_class)
            for candidate in earlier
            if candidate.resolved_ns is not None and candidate.resolved_ns <= incident.opened_ns
        ]
        recurs = (
            max(before, key=lambda candidate: (candidate.resolved_ns or 0, candidate.number)).number if before else 0
        )
        result.append(msgspec.structs.replace(incident, recurs=recurs))
        by_class.setdefault(incident.cell_class, []).append(incident)
    return result


class _BreachState(msgspec.Struct, frozen=True):
    """The fields of a breach that the ledger reads."""

    cell: dict[str, str] = {}
    after: str = ""


def _incidents_of_cause(run: RunStatement, breach: Breach) -> list[int]:
    """Return the open incidents that have another breach of the same cause."""
    rows = run(
        "SELECT DISTINCT t.incident FROM incident_breach t JOIN breach b ON b.number = t.breach "
        "JOIN incident i ON i.number = t.incident WHERE b.cause=? AND i.resolved_ns IS NULL ORDER BY t.incident",
        breach.cause_number,
    )
    return [int(number) for (number,) in rows]


def _incidents_of_class(run: RunStatement, invariant: str, class_text: str) -> list[int]:
    """Return the open incidents of an invariant in a cell class, those of exactly the same class first."""
    rows = run(
        "SELECT MIN(number), cell_class FROM incident WHERE invariant=? AND resolved_ns IS NULL "
        "GROUP BY cell_class ORDER BY MIN(number)",
        invariant,
    )
    exact = [int(number) for number, open_class in rows if open_class == class_text]
    return exact + [
        int(number) for number, open_class in rows if open_class and is_same_class(str(open_class), class_text)
    ]


def _incident_of_row(
    row: Row, breaches_of: dict[int, list[tuple[int, bool]]], states: dict[int, _BreachState]
) -> Incident:
    fields: dict[str, Any] = dict(zip([name.strip() for name in _COLUMNS.split(",")], row, strict=True))
    number = int(row[0])
    first = states.get(number, _BreachState())
    breaches = breaches_of.get(number, [])
    return Incident(
        **fields,
        breaches=[breach for breach, _ in breaches],
        consequences=[breach for breach, is_consequence in breaches if is_consequence],
        cell=first.cell,
        after=first.after,
    )


def _next_number(run: RunStatement) -> int:
    return int(run("SELECT COALESCE(MAX(number), 0) + 1 FROM incident")[0][0])


def _require_operator(operator: str) -> None:
    if not operator.strip():
        raise IncidentError("an act on an incident needs operator: say who")
