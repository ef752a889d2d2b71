"""What did not hold, and what on-call is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from holdover.catalogue import Entry
from holdover.runtime.axes import in_words

TRIGGER: Final = "trigger"
ACKNOWLEDGE: Final = "acknowledge"
RESOLVE: Final = "resolve"
"""What a page says: something is wrong, somebody is on it, it is over. The words are those of PagerDuty's Events v2."""

CARRIED: Final = ("carried-partial", "link", "reconciliation")
"""The axes that say what kind of carried state the system was in: what a page tells, and an incident is classed by."""


def state_in_words(cell: Mapping[str, str], after: str) -> str:
    """The carried state that a cell and the transition before it say; empty where neither says any."""
    told = ", ".join(in_words(cell, CARRIED).values())
    return "; ".join(part for part in (told, f"after {after}" if after else "") if part)


class Shown(msgspec.Struct, frozen=True):
    """One record involved in a breach: its role (the predicate's parameter), its state on a line, its fields."""

    role: str
    kind: str
    state: str
    fields: dict[str, Any]


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """An invariant that did not hold: which, where, when, the records involved, the mutation that did it.

    `mutation` is the sequence number of the mutation after which it was found, `boundary` the boundary's name when it
    was found at one. `cell` is the cell of the state coverage in which it was found, axis -> value, of the axes that
    were known; `after` the last lifecycle transition before it (`restart:kill`), empty where none was said.
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
    records: list[Shown] = []
    boundary: str = ""
    cell: dict[str, str] = {}
    after: str = ""

    @property
    def state(self) -> str:
        """The carried state in which it was found, in words; empty for a breach that does not tell any."""
        return state_in_words(self.cell, self.after)

    @property
    def mark(self) -> str:
        """What was breached, and where: `subsystem/invariant`."""
        return f"{self.subsystem}/{self.invariant}"

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes it this breach and no other, whatever number it has been given."""
        return (self.invariant, self.subsystem, self.key, self.time_ns, self.mutation, self.explanation)

    def __repr__(self) -> str:
        return f"<Breach {self.number} {self.invariant} {self.scope} at mutation {self.mutation}>"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What on-call gets: the catalogue's words, the facts of the breach, the first step and the rest of them.

    `dedup_key` is the same for every page about one invariant in one scope, so that a receiver can join them. `event`
    is `trigger`, or later `acknowledge` or `resolve`, `by` whom. `state` is the carried state, in words.
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

    def headline(self) -> str:
        """One line: the title, and how it stands with it."""
        if self.event == ACKNOWLEDGE:
            return f"ACKNOWLEDGED by {self.by}: {self.title}"
        return f"RESOLVED by {self.by}: {self.title}" if self.event == RESOLVE else self.title

    def text(self) -> str:
        """The page as plain text, for channels that carry nothing else."""
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.steps, 1))
        state = f"State: {self.state}\n" if self.state else ""
        return (
            f"{self.explanation}\n{state}\nWhat must hold: {self.statement}\nWhat it means: {self.implication}\n"
            f"Frozen: {self.scope} (still allowed: {', '.join(self.allows) or 'nothing'})\n\n"
            f"Do, in this order:\n{steps}\n\n"
            f"Next: {self.next_command}\n"
        )


def page_for(breach: Breach, entry: Entry, number: int) -> Page:
    """The page that a breach sends, in the words of its catalogue entry."""
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
        steps=[f"{step.step} Done when: {step.done_when}" for step in entry.response],
        allows=list(entry.allows),
        next_command=f"holdover catalogue show {breach.invariant}",
        digest=breach.digest,
        state=breach.state,
    )
