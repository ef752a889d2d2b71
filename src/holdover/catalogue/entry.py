"""One invariant as an operator reads it: the TOML entry, its schema and its reading."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec

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
"""What a freeze may still let through: cancels, orders that reduce the position, questions to the venue."""

Asserted = Literal["on-mutation", "when-settled", "when-reconciled", "at-boundary", "within"]
_DURATION = re.compile(r"^(\d+)(ms|s|m|h)$")
_UNIT_NS: Final = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}


class BadCatalogue(ValueError):
    """A catalogue that does not load; the message lists every problem, one a line."""


class ResponseStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing the operator does, and how it is known to be done."""

    step: str
    done_when: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shows that the invariant can fail: the seeded faults it must catch."""

    seeded_faults: list[str] = []


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One invariant of the catalogue, in the words that the operator gets.

    `asserted` says when it is evaluated, `at` the boundaries (for `at-boundary`), `within` the time in which it must
    come to hold (`30s`), `scope` what a breach freezes and `allows` what that freeze still lets through.
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
    categories: list[str] = []
    since: str = "0.1"
    source: str = ""
    evidence: Evidence = Evidence()

    @property
    def within_ns(self) -> int:
        """The time in which it must come to hold, in nanoseconds; 0 when it has none."""
        found = _DURATION.match(self.within)
        return int(found[1]) * _UNIT_NS[found[2]] if found else 0

    def problems(self) -> list[str]:
        """What is wrong with the entry's content, in words; empty when it is whole."""
        found = [
            f"{field} is empty: an operator needs it"
            for field in ("name", "family", "statement", "description", "implication", "since")
            if not getattr(self, field).strip()
        ]
        if not self.response:
            found.append("response has no step: an operator needs at least one [[response]] with step and done_when")
        found += [
            f"response step {number} is empty: step and done_when must both say something"
            for number, step in enumerate(self.response, 1)
            if not step.step.strip() or not step.done_when.strip()
        ]
        if self.scope not in KINDS:
            found.append(f"scope is {self.scope!r}, should be one of {', '.join(KINDS)}")
        found += [f"allows {a!r}, should be among {', '.join(ALLOWS)}" for a in self.allows if a not in ALLOWS]
        found += [f"at {b!r}, should be among {', '.join(BOUNDARIES)}" for b in self.at if b not in BOUNDARIES]
        if self.asserted == "within" and not self.within_ns:
            found.append(f"within is {self.within!r}, should be a time such as 500ms, 30s, 5m")
        if self.asserted != "within" and self.within:
            found.append(f"within is given, but asserted is {self.asserted!r}, should be 'within'")
        if self.tolerance != "0":
            found.append(f"tolerance is {self.tolerance!r}, should be '0': amounts are exact integers")
        found += [
            f"category {c!r}, should be among {', '.join(CATEGORIES)}" for c in self.categories if c not in CATEGORIES
        ]
        return found


def read_entry(path: Path, text: str) -> Entry:
    """The entry in a TOML file. Raises `BadCatalogue` naming the file and everything that is wrong in it."""
    try:
        entry = msgspec.convert(tomllib.loads(text), Entry)
    except tomllib.TOMLDecodeError as problem:
        raise BadCatalogue(f"{path.name}: not a TOML file: {problem}") from problem
    except msgspec.ValidationError as problem:
        raise BadCatalogue(f"{path.name}: {problem}") from problem
    problems = entry.problems()
    if path.stem != entry.name:
        problems.insert(0, f"name is {entry.name!r}, should be the file's own: {path.stem!r}")
    if problems:
        raise BadCatalogue("\n".join(f"{path.name}: {problem}" for problem in problems))
    return entry
