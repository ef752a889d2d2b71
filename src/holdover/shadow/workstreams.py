"""Workstreams: the tasks that people and systems must complete before a cutover, read from TOML, counted and checked.

[[workstream]]
name = "kill switch tested"
owner = "olga"
state = "complete"                 # ready, active, blocked
kind = "runtime"                   # or governance
blocked_by = ["venue certification"]
reason = ""                        # why it is blocked, when no workstream blocks it
required = true
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal

import msgspec

from holdover.runtime.config_file import read_toml


class WorkstreamsError(ValueError):
    """A list of workstreams cannot be read; the message names the file and every problem."""


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
    """Read the workstreams from a TOML file. Raises `WorkstreamsError`."""
    document = read_toml(path, WorkstreamsError)
    problems = [
        f"{path.name}: {name} is not known here; there is [[workstream]]" for name in document if name != "workstream"
    ]
    workstreams: list[Workstream] = []
    for number, table in enumerate(document.get("workstream", []), 1):
        try:
            workstreams.append(msgspec.convert(table, Workstream))
        except msgspec.ValidationError as problem:
            problems.append(f"{path.name}: [[workstream]] {number}: {problem}")
    if problems:
        raise WorkstreamsError("\n".join(problems))
    return workstreams


def workstreams_text(workstreams: Sequence[Workstream]) -> str:
    """Returns `19 / 31 complete, 11 ready, 1 blocked`; states without workstreams are left out, except complete."""
    states = Counter(workstream.state for workstream in workstreams)
    counts_text = "".join(f", {states[state]} {state}" for state in ("ready", "active", "blocked") if states[state])
    return f"{states['complete']} / {len(workstreams)} complete{counts_text}"


def open_boundaries_text(workstreams: Sequence[Workstream]) -> str:
    """Returns the open required workstreams by kind: `2 of governance and 1 of runtime instability are open`."""
    incomplete = Counter(
        workstream.kind for workstream in workstreams if workstream.required and workstream.state != "complete"
    )
    if not incomplete:
        return "nothing that is required is open, of governance or of runtime instability"
    return f"{incomplete['governance']} of governance and {incomplete['runtime']} of runtime instability are open"


def find_contradictions(workstreams: Sequence[Workstream]) -> list[str]:
    """Returns the contradictions among the workstreams, one sentence each."""
    by_name = {workstream.name: workstream for workstream in workstreams}
    names = Counter(workstream.name for workstream in workstreams)
    problems = [f"{name}: there are {count} of that name" for name, count in names.items() if count > 1]
    for workstream in workstreams:
        problems += [
            f"{workstream.name}: is blocked by {name}, which is not there"
            for name in workstream.blocked_by
            if name not in by_name
        ]
        incomplete_names = [
            name for name in workstream.blocked_by if name in by_name and by_name[name].state != "complete"
        ]
        if workstream.state == "blocked" and not incomplete_names and not workstream.reason.strip():
            problems.append(f"{workstream.name}: is blocked, and neither by what is not complete nor for a reason")
        if workstream.state in ("ready", "active", "complete") and incomplete_names:
            problems.append(
                f"{workstream.name}: is {workstream.state}, but blocked by {', '.join(incomplete_names)}, "
                "which is not complete"
            )
        if not workstream.owner.strip():
            problems.append(f"{workstream.name}: has no owner")
    try:
        TopologicalSorter({workstream.name: workstream.blocked_by for workstream in workstreams}).prepare()
    except CycleError as problem:
        problems.append(f"{' waits for '.join(reversed(problem.args[1]))}: none of them can ever begin")
    return problems
