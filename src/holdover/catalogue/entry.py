"""Catalogue entries: the schema of one invariant's TOML file and its reader."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec

from holdover.catalogue.reads import duration_ns
from holdover.model import KINDS

FAMILIES: Final = (
    "quantity",
    "agreement",
    "reconciliation",
    "lifecycle",
    "identity",
    "session",
    "exposure",
    "freeze",
    "timing",
)
"""The families of the built-in catalogue, in the order of the book; a user's entries may add families."""

CATEGORIES: Final = ("carried-partial-fill", "restart-reconciliation", "partition")
"""The three kinds of carried state that an invariant guards."""

BOUNDARIES: Final = ("begin", "end", "overnight", "restart", "disconnect", "reconnect", "reconciled", "quiescent")
"""The boundaries at which an invariant can be asserted."""

ALLOWS: Final = ("cancel", "reduce", "query")
"""What a freeze may still allow: cancels, orders that reduce the position, queries to the venue."""

Asserted = Literal["on-mutation", "when-settled", "when-reconciled", "at-boundary", "within"]


class CatalogueError(ValueError):
    """The catalogue does not load; the message lists every problem, one per line."""


class ResponseStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One action of the operator, and the condition that shows it is done."""

    step: str
    done_when: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Evidence that the invariant can fail: the seeded faults that it must catch."""

    seeded_faults: list[str] = []


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One invariant of the catalogue, in the operator's words.

    `asserted` states when it is evaluated, `at` the boundaries (for `at-boundary`), `within` the time in which it
    must become true (`30s`), `scope` what a breach freezes and `allows` what that freeze still permits. `limit` is the
    threshold of an entry that counts something; a policy can replace `within`, `limit` and, by currency, `tolerance`.
    """

    name: str
    family: str
    statement: str
    description: str
    implication: str
    asserted: Asserted
    scope: str
    severity: Literal["critical", "error", "warning"]
    response: list[ResponseStep]
    allows: list[str] = []
    at: list[str] = []
    within: str = ""
    tolerance: str = "0"
    limit: int | None = None
    categories: list[str] = []
    since: str = "0.1"
    source: str = ""
    evidence: Evidence = Evidence()

    @property
    def within_ns(self) -> int:
        """The time in which the invariant must become true, in nanoseconds; 0 when it has none."""
        return duration_ns(self.within)

    def find_problems(self) -> list[str]:
        """Return what is wrong with the entry's content, in words; empty when nothing is."""
        problems = [
            f"{field} is empty: an operator needs it"
            for field in ("name", "family", "statement", "description", "implication", "since")
            if not getattr(self, field).strip()
        ]
        if not self.response:
            problems.append("response has no step: an operator needs at least one [[response]] with step and done_when")
        problems += [
            f"response step {number} is empty: step and done_when must both say something"
            for number, step in enumerate(self.response, 1)
            if not step.step.strip() or not step.done_when.strip()
        ]
        if self.scope not in KINDS:
            problems.append(f"scope is {self.scope!r}, should be one of {', '.join(KINDS)}")
        problems += [f"allows {a!r}, should be among {', '.join(ALLOWS)}" for a in self.allows if a not in ALLOWS]
        problems += [f"at {b!r}, should be among {', '.join(BOUNDARIES)}" for b in self.at if b not in BOUNDARIES]
        if self.asserted == "within" and not self.within_ns:
            problems.append(f"within is {self.within!r}, should be a time such as 500ms, 30s, 5m")
        if self.asserted != "within" and self.within:
            problems.append(f"within is given, but asserted is {self.asserted!r}, should be 'within'")
        if self.tolerance != "0":
            problems.append(f"tolerance is {self.tolerance!r}, should be '0': amounts are exact integers")
        if self.limit is not None and self.limit < 0:
            problems.append(f"limit is {self.limit}, should be 0 or above")
        problems += [
            f"category {c!r}, should be among {', '.join(CATEGORIES)}" for c in self.categories if c not in CATEGORIES
        ]
        return problems


def read_entry(path: Path, text: str) -> Entry:
    """Read the entry in a TOML file. Raises `CatalogueError` with the file and every problem in it."""
    try:
        entry = msgspec.convert(tomllib.loads(text), Entry)
    except tomllib.TOMLDecodeError as problem:
        raise CatalogueError(f"{path.name}: not a TOML file: {problem}") from problem
    except msgspec.ValidationError as problem:
        raise CatalogueError(f"{path.name}: {problem}") from problem
    problems = entry.find_problems()
    if path.stem != entry.name:
        problems.insert(0, f"name is {entry.name!r}, should be the file's own: {path.stem!r}")
    if problems:
        raise CatalogueError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return entry
