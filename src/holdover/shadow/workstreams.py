"""Workstreams: what has to be done before a cutover, by people and by systems, from TOML; counted and checked.

[[workstream]]
name = "kill switch tested"
owner = "olga"
state = "complete"                 # ready, active, blocked
kind = "runtime"                   # or governance
blocked_by = ["venue certification"]
reason = ""                        # why it is blocked, where no other workstream is
required = true
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal

import msgspec

from holdover.runtime.files import read_toml


class BadWorkstreams(ValueError):
    """A list of workstreams that cannot be read; the message names the file and all that is wrong."""


class Workstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One workstream."""

    name: str
    owner: str
    state: Literal["complete", "ready", "active", "blocked"]
    kind: Literal["governance", "runtime"]
    blocked_by: list[str] = []
    reason: str = ""
    required: bool = True


def read_workstreams(path: Path) -> list[Workstream]:
    """The workstreams in a TOML file. Raises `BadWorkstreams`."""
    told = read_toml(path, BadWorkstreams)
    problems = [
        f"{path.name}: {name} is not known here; there is [[workstream]]" for name in told if name != "workstream"
    ]
    found: list[Workstream] = []
    for number, one in enumerate(told.get("workstream", []), 1):
        try:
            found.append(msgspec.convert(one, Workstream))
        except msgspec.ValidationError as problem:
            problems.append(f"{path.name}: [[workstream]] {number}: {problem}")
    if problems:
        raise BadWorkstreams("\n".join(problems))
    return found


def counted(workstreams: Sequence[Workstream]) -> str:
    """`19 / 31 complete, 11 ready, 1 blocked`; what there is none of is left out, but for complete."""
    states = Counter(one.state for one in workstreams)
    rest = "".join(f", {states[state]} {state}" for state in ("ready", "active", "blocked") if states[state])
    return f"{states['complete']} / {len(workstreams)} complete{rest}"


def boundary(workstreams: Sequence[Workstream]) -> str:
    """What stands in the way by its boundary: `2 of governance and 1 of runtime instability are open`."""
    left = Counter(one.kind for one in workstreams if one.required and one.state != "complete")
    if not left:
        return "nothing that is required is open, of governance or of runtime instability"
    return f"{left['governance']} of governance and {left['runtime']} of runtime instability are open"


def contradictions(workstreams: Sequence[Workstream]) -> list[str]:
    """What of it cannot be true together, a sentence each."""
    known = {one.name: one for one in workstreams}
    names = Counter(one.name for one in workstreams)
    found = [f"{name}: there are {count} of that name" for name, count in names.items() if count > 1]
    for one in workstreams:
        found += [
            f"{one.name}: is blocked by {name}, which is not there" for name in one.blocked_by if name not in known
        ]
        waits = [name for name in one.blocked_by if name in known and known[name].state != "complete"]
        if one.state == "blocked" and not waits and not one.reason.strip():
            found.append(f"{one.name}: is blocked, and neither by what is not complete nor for a reason")
        if one.state in ("ready", "active", "complete") and waits:
            found.append(f"{one.name}: is {one.state}, but blocked by {', '.join(waits)}, which is not complete")
        if not one.owner.strip():
            found.append(f"{one.name}: has no owner")
    try:
        TopologicalSorter({one.name: one.blocked_by for one in workstreams}).prepare()
    except CycleError as problem:
        found.append(f"{' waits for '.join(reversed(problem.args[1]))}: none of them can ever begin")
    return found
