"""Breaches, and the pages that on-call gets about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import Entry
from holdover.runtime.axes import describe_cell
from holdover.runtime.pasted_commands import fill_commands, guard_command

TRIGGER: Final = "trigger"
UPDATE: Final = "update"
ACKNOWLEDGE: Final = "acknowledge"
RESOLVE: Final = "resolve"
"""The events of a page: something is wrong, more followed from it, somebody acknowledged it, it is resolved. The names
are PagerDuty's (Events v2), which has no update: it takes a second trigger of one key for that.
"""

CONSEQUENCES_MAX: Final = 12
"""How many consequences a page lists; the rest are counted."""

CARRIED: Final = ("carried-partial", "link", "reconciliation")
"""The axes that describe the carried state: a page shows them, and they classify an incident."""


def describe_carried_state(cell: Mapping[str, str], after: str) -> str:
    """Describe the carried state of a cell and the transition before it; empty when neither is known."""
    cell_text = ", ".join(describe_cell(cell, CARRIED).values())
    return "; ".join(part for part in (cell_text, f"after {after}" if after else "") if part)


class BreachRecord(msgspec.Struct, frozen=True):
    """One record involved in a breach: its role (the predicate's parameter), kind, one-line state and fields."""

    role: str
    kind: str
    state: str
    fields: dict[str, Any]


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """An invariant that did not hold: which, where, when, the records involved, the mutation that caused it.

    `mutation` is the sequence number of the last mutation before the breach, `boundary` the boundary's name when
    a boundary found it. `cell` is the state-coverage cell (axis -> value) of the known axes; `after` is the last
    lifecycle transition before it (`restart:kill`), empty if none was reported. `mode` is `observe` when the policy of
    the invariant made the guard record the breach without a freeze. `consequence_of` is the number of the
    breach that caused this one, 0 for a cause; `subjects` and `feeds` are what that was decided by (see `causes`).
    """

    number: int
    invariant: str
    scope: str
    subsystem: str
    kind: str
    key: str
    time_ns: int
    mutation: int
    cause: str
    explanation: str
    severity: str
    digest: str
    records: list[BreachRecord] = []
    boundary: str = ""
    cell: dict[str, str] = {}
    after: str = ""
    mode: str = "enforce"
    consequence_of: int = 0
    subjects: list[str] = []
    feeds: list[str] = []

    def __post_init__(self) -> None:
        if self.consequence_of < 0 or (self.consequence_of and self.consequence_of == self.number):
            raise ValueError(f"breach {self.number} cannot follow from breach {self.consequence_of}")

    @property
    def cause_number(self) -> int:
        """The number of the breach that caused this one: its own number when it is a cause itself."""
        return self.consequence_of or self.number

    @property
    def consequence_line(self) -> str:
        """This breach as a consequence, in one line: the frozen scope and the explanation."""
        return f"{self.scope}: {self.explanation}"

    @property
    def state(self) -> str:
        """The carried state in words; empty when it is unknown."""
        return describe_carried_state(self.cell, self.after)

    @property
    def mark(self) -> str:
        """What was breached and where: `subsystem/invariant`."""
        return f"{self.subsystem}/{self.invariant}"

    @property
    def identity(self) -> tuple[object, ...]:
        """The values that identify this breach independently of its number."""
        return (self.invariant, self.subsystem, self.key, self.time_ns, self.mutation, self.explanation)

    def __repr__(self) -> str:
        return f"<Breach {self.number} {self.invariant} {self.scope} at mutation {self.mutation}>"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What on-call gets: the catalogue's text, the facts of the breach, the operator's steps.

    `dedup_key` is the same for every page about one alert, so that a receiver can join them. `event` is `trigger`, and
    later `update`, or `acknowledge` or `resolve` with the person in `by`. `state` is the carried state, in words.
    An alert of `low` urgency is never escalated; `is_frozen` is False when nothing was frozen.
    `consequences` has a line for each breach that followed from this one, at most `CONSEQUENCES_MAX` of the
    `consequence_count`.
    """

    number: int
    dedup_key: str
    time_ns: int
    severity: str
    invariant: str
    scope: str
    title: str
    explanation: str
    statement: str
    implication: str
    steps: list[str]
    allows: list[str]
    next_command: str
    digest: str
    event: str = TRIGGER
    by: str = ""
    state: str = ""
    urgency: str = "high"
    is_frozen: bool = True
    consequences: list[str] = []
    consequence_count: int = 0

    def with_consequences(self, lines: Iterable[str]) -> Page:
        """Return the page with more consequences. Raises `ValueError` for an empty line."""
        added = list(lines)
        if not all(added):
            raise ValueError(f"a consequence of {self.invariant} in {self.scope} has no text")
        return msgspec.structs.replace(
            self,
            consequences=[*self.consequences, *added][:CONSEQUENCES_MAX],
            consequence_count=self.consequence_count + len(added),
        )

    def consequence_lines(self) -> list[str]:
        """Return a line for each listed consequence, and one for the number of the others."""
        hidden_count = self.consequence_count - len(self.consequences)
        return [*self.consequences, *([f"and {hidden_count:,} more"] if hidden_count > 0 else [])]

    def headline(self) -> str:
        """Return the title and the state of the alert in one line."""
        if self.event == ACKNOWLEDGE:
            return f"ACKNOWLEDGED by {self.by}: {self.title}"
        if self.event == UPDATE:
            breaches = "1 breach" if self.consequence_count == 1 else f"{self.consequence_count:,} breaches"
            return f"UPDATED, {breaches} followed: {self.title}"
        return f"RESOLVED by {self.by}: {self.title}" if self.event == RESOLVE else self.title

    def _freeze_text(self) -> str:
        allowed = f"(still allowed: {', '.join(self.allows) or 'nothing'})"
        if self.is_frozen:
            return f"Frozen: {self.scope} {allowed}"
        would_be = f" If the entry were enforced, the guard would have frozen {self.scope} {allowed}."
        return f"Nothing is frozen.{would_be if self.scope else ''}"

    def text(self) -> str:
        """Return the page as plain text, for channels that carry only text."""
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.steps, 1))
        state = f"State: {self.state}\n" if self.state else ""
        lines = "".join(f"  - {line}\n" for line in self.consequence_lines())
        followed = f"What followed from it, each scope frozen too:\n{lines}" if lines else ""
        return (
            f"{self.explanation}\n{state}\nWhat must hold: {self.statement}\nWhat it means: {self.implication}\n"
            f"{self._freeze_text()}\n{followed}\n"
            f"Do, in this order:\n{steps}\n\n"
            f"Next: {self.next_command}\n"
        )


def make_page(breach: Breach, entry: Entry, number: int, guard: Path | None = None) -> Page:
    """Make the page for a breach, in the words of its catalogue entry.

    Args:
        breach: the breach.
        entry: the catalogue entry of its invariant.
        number: the number of the breach.
        guard: the guard's configuration file or directory, for the commands in the steps; None leaves `DIR` in them.

    Raises `ValueError` for a negative number, or an entry of another invariant.
    """
    if number < 0 or entry.name != breach.invariant:
        raise ValueError(f"a page {number} about {breach.invariant} cannot have the words of {entry.name}")
    return Page(
        number=number,
        dedup_key=f"{breach.invariant}/{breach.scope}",
        time_ns=breach.time_ns,
        severity=entry.severity,
        invariant=breach.invariant,
        scope=breach.scope,
        title=f"FROZEN {breach.scope}: {breach.invariant}",
        explanation=breach.explanation,
        statement=entry.statement,
        implication=entry.implication,
        steps=[
            fill_commands(f"{step.step} Done when: {step.done_when}", breach.scope, guard) for step in entry.response
        ],
        allows=list(entry.allows),
        next_command=guard_command("status", guard) if guard else f"holdover catalogue show {breach.invariant}",
        digest=breach.digest,
        state=breach.state,
    )


def make_journal_page(name: str, reason: str, time_ns: int, digest: str) -> Page:
    """Make the page about a journal that cannot be written."""
    return Page(
        number=0,
        dedup_key=f"journal/{name}",
        time_ns=time_ns,
        severity="warning",
        invariant="journal",
        scope=f"process {name}",
        title=f"The journal of {name} cannot be written",
        explanation=f"The journal of {name} cannot be written: {reason}. Trading goes on.",
        statement="Every mutation is in the journal.",
        implication="After a kill, the next process does not know what was recorded, and a thaw needs a second person.",
        steps=[
            "Make room on the disk, or make the directory writable. Done when: the journal grows again.",
            "Reconcile with the venue. Done when: `reconciled` was reported.",
        ],
        allows=[],
        next_command="df -h",
        digest=digest,
    )
