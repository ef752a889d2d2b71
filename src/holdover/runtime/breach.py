"""Breaches, and the pages that on-call gets about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from holdover.catalogue import Entry
from holdover.runtime.axes import describe_cell

TRIGGER: Final = "trigger"
ACKNOWLEDGE: Final = "acknowledge"
RESOLVE: Final = "resolve"
"""The events of a page: something is wrong, somebody acknowledged it, it is resolved; named as in PagerDuty's
Events v2.
"""

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
    lifecycle transition before it (`restart:kill`), empty if none was reported.
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

    `dedup_key` is the same for every page about one invariant in one scope, so that a receiver can join them.
    `event` is `trigger`, and later `acknowledge` or `resolve` with the person in `by`. `state` is the carried
    state, in words.
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
        """Return the title and the state of the alert in one line."""
        if self.event == ACKNOWLEDGE:
            return f"ACKNOWLEDGED by {self.by}: {self.title}"
        return f"RESOLVED by {self.by}: {self.title}" if self.event == RESOLVE else self.title

    def text(self) -> str:
        """Return the page as plain text, for channels that carry only text."""
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.steps, 1))
        state = f"State: {self.state}\n" if self.state else ""
        return (
            f"{self.explanation}\n{state}\nWhat must hold: {self.statement}\nWhat it means: {self.implication}\n"
            f"Frozen: {self.scope} (still allowed: {', '.join(self.allows) or 'nothing'})\n\n"
            f"Do, in this order:\n{steps}\n\n"
            f"Next: {self.next_command}\n"
        )


def make_page(breach: Breach, entry: Entry, number: int) -> Page:
    """Make the page for a breach, in the words of its catalogue entry."""
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
