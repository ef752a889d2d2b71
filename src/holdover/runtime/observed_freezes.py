"""Freezes that a guard in observe mode would have set: their form, the open ones in memory, and their table.

An observed freeze begins with the breach that would have set it. It ends when a thaw would have been accepted, because
the invariant holds again, or when an operator clears it. A real freeze would have lasted at least as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, Final

import msgspec

from holdover.catalogue.entry import ALLOWS
from holdover.catalogue.policy import OBSERVE
from holdover.model import Request
from holdover.runtime.breach import Breach, Page
from holdover.runtime.database import RunStatement, StoreError, next_number
from holdover.runtime.freeze_scope import find_forbidding_scope, iterate_forbidding_freezes
from holdover.runtime.outbox import Outbox
from holdover.state import Stateful

_COUNTED: Final = ("breaches", "refused", "seen_ns", "ended_ns", "ended_by")
"""The fields of an observed freeze that change, each a column of the table."""


class ObservedFreeze(msgspec.Struct, frozen=True, kw_only=True):
    """A freeze that the guard would have set, with the evidence for it; times in ns since the epoch.

    `subsystem`, `kind`, `key` and `explanation` are those of its first breach, `breaches` counts it and its
    repetitions, `refused` the requests that the guard would have refused. `ended_ns` is None while it is open;
    `seen_ns` is the last time at which the guard wrote that it is.
    """

    number: int
    scope: str
    invariant: str
    allows: list[str]
    breach: int
    time_ns: int
    subsystem: str
    kind: str
    key: str
    explanation: str
    holder: str = ""
    breaches: int = 1
    refused: int = 0
    seen_ns: int = 0
    ended_ns: int | None = None
    ended_by: str = ""

    def __post_init__(self) -> None:
        if not (self.scope and self.invariant and self.number):
            raise ValueError(f"{self!r} has no scope, no invariant or no number: it would have frozen nothing")
        if self.time_ns < 0 or (self.ended_ns is not None and self.ended_ns < 0):
            raise ValueError(f"{self!r} lasts from {self.time_ns} to {self.ended_ns} ns, should be ns since the epoch")
        if self.breaches < 1 or self.refused < 0:
            raise ValueError(f"{self!r} has {self.breaches} breaches, of which there is 1, and {self.refused} refusals")
        if unknown := [permission for permission in self.allows if permission not in ALLOWS]:
            raise ValueError(f"{self!r} cannot allow {', '.join(unknown)}; it can allow {', '.join(ALLOWS)}")

    @property
    def mark(self) -> tuple[str, str]:
        """The scope and the invariant: one freeze of this pair is open at a time."""
        return (self.scope, self.invariant)

    def __repr__(self) -> str:
        return f"<ObservedFreeze {self.number} {self.scope} by {self.invariant}>"


def alert_key(scope: str, invariant: str) -> str:
    """Return the key of the alert about an observed freeze; that of a real freeze differs.

    Raises `ValueError` without a scope or an invariant: alerts about different things would be joined.
    """
    if not (scope and invariant):
        raise ValueError(f"an alert about an observed freeze of {scope!r} by {invariant!r} needs both")
    return f"observed/{invariant}/{scope}"


def make_observed_freeze(breach: Breach, allows: Sequence[str], number: int, holder: str) -> ObservedFreeze:
    """Make the freeze that a breach would have caused. Raises `ValueError` for a breach that is not an observed one."""
    if breach.mode != OBSERVE:
        raise ValueError(f"{breach!r} was not observed: its entry is enforced")
    return ObservedFreeze(
        number=number,
        scope=breach.scope,
        invariant=breach.invariant,
        allows=list(allows),
        breach=breach.number,
        time_ns=breach.time_ns,
        subsystem=breach.subsystem,
        kind=breach.kind,
        key=breach.key,
        explanation=breach.explanation,
        holder=holder,
    )


class ObservedFreezesState(msgspec.Struct):
    """The state of the open observed freezes: values, because each change replaces them."""

    by_scope: Mapping[str, Sequence[ObservedFreeze]]
    last_requests: Mapping[tuple[str, str], str]


class ObservedFreezes(Stateful[ObservedFreezesState]):
    """The open observed freezes. Each change replaces the dictionaries, so other threads may read the old ones.

    `reduces` tells whether a request only reduces a position.
    """

    State = ObservedFreezesState
    DERIVED: ClassVar = {"_reduces": "a function of whoever observes"}

    def __init__(self, reduces: Callable[[Request], bool]) -> None:
        self.by_scope: dict[str, list[ObservedFreeze]] = {}
        self.last_requests: dict[tuple[str, str], str] = {}
        self._reduces = reduces

    def freezes(self) -> list[ObservedFreeze]:
        """Return the open observed freezes, oldest first."""
        freezes = [freeze for same_scope in self.by_scope.values() for freeze in same_scope]
        return sorted(freezes, key=lambda freeze: (freeze.time_ns, freeze.number))

    def find(self, scope: str, invariant: str) -> ObservedFreeze | None:
        """Return the open freeze of a scope by an invariant; None when there is none."""
        return next((freeze for freeze in self.by_scope.get(scope, ()) if freeze.invariant == invariant), None)

    def set_freeze(self, freeze: ObservedFreeze) -> None:
        """Add a freeze, or replace the one of the same scope and invariant.

        Raises `ValueError` for one that has ended.
        """
        if freeze.ended_ns is not None:
            raise ValueError(f"{freeze!r} has ended and cannot be open")
        rest = [other for other in self.by_scope.get(freeze.scope, ()) if other.invariant != freeze.invariant]
        self.by_scope = {**self.by_scope, freeze.scope: [*rest, freeze]}

    def remove(self, scope: str, invariant: str) -> None:
        """Remove the freeze of a scope by an invariant, because it has ended. Raises `ValueError` when none is open."""
        if self.find(scope, invariant) is None:
            raise ValueError(f"no observed freeze of {scope} by {invariant} is open")
        rest = [freeze for freeze in self.by_scope.get(scope, ()) if freeze.invariant != invariant]
        by_scope = {name: freezes for name, freezes in self.by_scope.items() if name != scope}
        self.by_scope = {**by_scope, scope: rest} if rest else by_scope
        self.last_requests = {place: name for place, name in self.last_requests.items() if place[0] in self.by_scope}

    def forbids(self, request: Request) -> str:
        """Return the widest scope whose freeze would have forbidden the request, or an empty string."""
        return find_forbidding_scope(self.by_scope, request, self._reduces)

    def count_refusal(self, request: Request) -> str:
        """Count a request that would have been refused, once for each freeze that forbids it.

        Returns the widest of their scopes, or an empty string. A system that tries the same message again at once is
        counted once.
        """
        forbidding = list(iterate_forbidding_freezes(self.by_scope, request, self._reduces))
        if not forbidding:
            return ""
        widest = forbidding[0][0]
        place = (widest, request.msg_type.name)
        if self.last_requests.get(place) != request.cl_ord_id:
            self.last_requests = {**self.last_requests, place: request.cl_ord_id}
            for _, freeze in forbidding:
                self.set_freeze(msgspec.structs.replace(freeze, refused=freeze.refused + 1))
        return widest


class ObservationLog(Outbox):
    """Observed freezes in the table `observed` of a store. Raises `StoreError` when it cannot be used.

    `name` is the guard's; several guards may share the store.
    """

    name: str

    def record_observed_breach(
        self, breach: Breach, allows: Sequence[str], page: Page, channels: Sequence[str]
    ) -> ObservedFreeze:
        """Write a breach, the freeze that it would have caused, its alert and the audit rows in one transaction.

        A breach that the store already has, after an answer that was lost, is not written again.

        Raises `ValueError` for an alert that would be escalated.
        """
        if page.urgency != "low" or page.is_frozen:
            raise ValueError(f"the alert {page.title!r} is about an observed breach: its urgency should be low")

        def work(run: RunStatement) -> ObservedFreeze:
            for freeze in self._select(run, "WHERE scope=? AND invariant=? AND time_ns=?", *_place_of(breach)):
                if (freeze.explanation, freeze.key, freeze.holder) == (breach.explanation, breach.key, self.name):
                    return freeze
            number = self._insert_breach(run, breach)
            freeze = make_observed_freeze(
                msgspec.structs.replace(breach, number=number), allows, next_number(run, "observed"), self.name
            )
            run(
                "INSERT INTO observed (number, scope, invariant, time_ns, holder, body) VALUES (?,?,?,?,?,?)",
                freeze.number,
                freeze.scope,
                freeze.invariant,
                freeze.time_ns,
                freeze.holder,
                msgspec.json.encode(freeze),
            )
            self._open_alert(run, msgspec.structs.replace(page, number=number), channels)
            return freeze

        return self.database.write(work)

    def observed_freezes(self, *, open_only: bool = False, holder: str | None = None) -> list[ObservedFreeze]:
        """Return the observed freezes, oldest first; with `holder` those of one guard."""
        condition = "WHERE ended_ns IS NULL" if open_only else ""
        freezes = self._select(self.database.read, condition)
        return [freeze for freeze in freezes if holder is None or freeze.holder == holder]

    def last_observation_begin(self) -> str:
        """Return the last policy that a guard of this name began with, from the audit log; empty when there is none."""
        rows = self.database.read("SELECT detail FROM audit WHERE act='observe' ORDER BY number DESC")
        details = (str(detail) for (detail,) in rows)
        return next((detail for detail in details if detail.startswith(f"{self.name} begins; ")), "")

    def write_observed_counts(self, freezes: Iterable[ObservedFreeze], time_ns: int) -> None:
        """Write how many breaches and refused requests the open freezes have. Not synced: the breach itself was."""

        counts = [(freeze.breaches, freeze.refused, freeze.number) for freeze in freezes]
        if any(breaches < 1 or refused < 0 for breaches, refused, _ in counts):
            raise ValueError("an observed freeze has at least one breach, and not fewer than 0 refused requests")

        def work(run: RunStatement) -> None:
            for breaches, refused, number in counts:
                run(
                    "UPDATE observed SET breaches=?, refused=?, seen_ns=? WHERE number=?",
                    breaches,
                    refused,
                    time_ns,
                    number,
                )

        self.database.write(work, durable=False)

    def end_observed_freezes(self, numbers: Sequence[int], by: str, time_ns: int, resolved_by: str = "") -> int:
        """End observed freezes by their numbers and resolve their alerts. Returns how many were open.

        `by` is the operator or the reason; `resolved_by` is who resolves the alerts, the operator by default.

        Raises `ValueError` without the person or the reason that ends them.
        """
        if not by.strip() or time_ns < 0:
            raise ValueError(f"an observed freeze ends at {time_ns} ns by {by!r}: name who or what ends it")

        def work(run: RunStatement) -> int:
            ended: list[ObservedFreeze] = []
            for number in numbers:
                ended += self._select(run, "WHERE number=? AND ended_ns IS NULL", number)
                run(
                    "UPDATE observed SET ended_ns=?, ended_by=? WHERE number=? AND ended_ns IS NULL",
                    time_ns,
                    by,
                    number,
                )
            for freeze in ended:
                detail = f"{freeze.scope} observed freeze {freeze.number} of {freeze.invariant} ended by {by}"
                self._append_audit_row(run, time_ns, "observe", detail)
                self._resolve(run, alert_key(freeze.scope, freeze.invariant), resolved_by or by, time_ns)
            return len(ended)

        return self.database.write(work)

    def _insert_breach(self, run: RunStatement, breach: Breach) -> int:
        number = next_number(run, "breach")
        body = msgspec.json.encode(msgspec.structs.replace(breach, number=number))
        cause = breach.consequence_of or number
        run("INSERT INTO breach VALUES (?,?,?,?,?,?)", number, breach.time_ns, body, breach.mode, cause, breach.scope)
        follows = f", follows from {cause}" if breach.consequence_of else ""
        detail = f"{breach.invariant} {breach.scope} breach {number}{follows}"
        self._append_audit_row(run, breach.time_ns, "breach", detail)
        return number

    def _select(self, run: RunStatement, condition: str, *values: object) -> list[ObservedFreeze]:
        rows = run(f"SELECT number, body, {', '.join(_COUNTED)} FROM observed {condition} ORDER BY number", *values)
        freezes: list[ObservedFreeze] = []
        for number, body, *counts in rows:
            try:
                freeze = msgspec.json.decode(body, type=ObservedFreeze)
            except msgspec.MsgspecError as problem:
                raise StoreError(f"{self.database.name}: observed freeze {number} cannot be read: {problem}") from None
            freezes.append(msgspec.structs.replace(freeze, **dict(zip(_COUNTED, counts, strict=True))))
        return freezes


def _place_of(breach: Breach) -> tuple[str, str, int]:
    return (breach.scope, breach.invariant, breach.time_ns)
