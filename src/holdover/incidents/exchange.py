"""Incidents from CSV and to CSV and JSON: what came before Holdover, and what goes on to other tools.

A file is taken whole or not at all, and every line that is wrong is named. Columns: `name` (by which it is known
elsewhere), `invariant` and `opened` are needed; `cell_class`, `scope`, `severity`, `told`, `acknowledged`,
`acknowledged_by`, `diagnosed`, `diagnosed_by`, `cause`, `diagnosis`, `resolved`, `resolved_by` may be missing or empty.
Times are ISO 8601 with an offset (`2024-11-27T14:31:05Z`). An export has the same columns, and some that an import
reads over because they follow from the rest: `number`, `recurrence`, `breaches`; `cell` (`axis=value`, a space between
them) and `after`, the state that the first breach tells.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from holdover.incidents.ledger import Incident

COLUMNS: Final = (
    "name",
    "invariant",
    "cell_class",
    "scope",
    "severity",
    "told",
    "opened",
    "acknowledged",
    "acknowledged_by",
    "diagnosed",
    "diagnosed_by",
    "cause",
    "diagnosis",
    "resolved",
    "resolved_by",
)
_NEEDED: Final = ("name", "invariant", "opened")
_FOLLOWS: Final = ("number", "recurrence", "breaches", "cell", "after")
_STEPS: Final = ("opened", "acknowledged", "diagnosed", "resolved")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION: Final = re.compile(r"\.(\d{1,9})")


class BadImport(ValueError):
    """A file that cannot be imported; the message names the file and every line that is wrong."""


def from_csv(path: Path) -> list[Incident]:
    """The incidents in a file, in its order, without numbers. Raises `BadImport` with all that is wrong at once."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            problems = _columns_wrong(columns)
            rows = [] if problems else [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        told = problem.strerror if isinstance(problem, OSError) else problem
        raise BadImport(f"{path.name}: cannot be read as CSV in UTF-8: {told}") from problem
    found: list[Incident] = []
    seen: dict[str, int] = {}
    for line, row in rows:
        one, wrong = _parsed(row)
        if one is not None and one.name in seen:
            wrong.append(f"name {one.name} stands on line {seen[one.name]} already")
        problems += [f"line {line}: {said}" for said in wrong]
        if one is not None:
            seen.setdefault(one.name, line)
            found.append(one)
    if problems:
        raise BadImport("\n".join(f"{path.name}: {said}" for said in problems))
    return found


def _columns_wrong(columns: Sequence[str]) -> list[str]:
    if not columns:
        return ["is empty; its first line should name the columns"]
    wrong = [f"has no column {name}" for name in _NEEDED if name not in columns]
    wrong += [
        f"column {name!r} is not known here; there are {', '.join(COLUMNS)}"
        for name in columns
        if name not in COLUMNS and name not in _FOLLOWS
    ]
    return wrong + [f"column {name} stands there twice" for name in sorted(set(columns)) if columns.count(name) > 1]


def _parsed(row: Mapping[str | None, str | list[str] | None]) -> tuple[Incident | None, list[str]]:
    """The incident on a line, or what is wrong with it."""
    if None in row:
        return None, ["has more fields than there are columns"]
    if any(value is None for value in row.values()):
        return None, ["has fewer fields than there are columns"]
    told = {name: str(row.get(name) or "").strip() for name in COLUMNS}
    wrong = [f"{name} is empty" for name in _NEEDED if not told[name]]
    times: dict[str, int | None] = {}
    for step in _STEPS:
        try:
            times[step] = time_of(told[step]) if told[step] else None
        except ValueError as problem:
            wrong.append(f"{step} {problem}")
    for earlier, later in (*(("opened", step) for step in _STEPS[1:]), ("diagnosed", "resolved")):
        first, second = times.get(earlier), times.get(later)
        if first is not None and second is not None and second < first:
            wrong.append(f"{later} is before {earlier}")
    wrong += [f"{step}_by is said, but not when" for step in _STEPS[1:] if told[f"{step}_by"] and not told[step]]
    if wrong:
        return None, wrong
    fields: dict[str, Any] = {name: told[name] for name in COLUMNS if name not in _STEPS}
    fields |= {f"{step}_ns": times[step] for step in _STEPS}
    return Incident(number=0, **fields), []


def time_of(told: str) -> int:
    """ns since the epoch of a time in ISO 8601 with an offset. Raises `ValueError` for anything else."""
    fraction = _FRACTION.search(told)
    try:
        moment = datetime.fromisoformat(_FRACTION.sub("", told, count=1))
    except ValueError:
        raise ValueError(f"{told!r} is no time; it should be like 2024-11-27T14:31:05Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{told!r} has no offset from UTC; it should be like 2024-11-27T14:31:05Z")
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + (int(fraction[1].ljust(9, "0")) if fraction else 0)


def time_text(time_ns: int | None) -> str:
    """A time as `time_of` reads it, to the ns; empty for None."""
    if time_ns is None:
        return ""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{(_EPOCH + timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%S')}{fraction}Z"


def _told(one: Incident) -> dict[str, str | int]:
    told: dict[str, str | int] = {"number": one.number}
    for name in COLUMNS:
        told[name] = time_text(getattr(one, f"{name}_ns")) if name in _STEPS else getattr(one, name)
    told["name"] = one.name or f"holdover-{one.number}"
    told["recurrence"] = one.recurrence
    told["breaches"] = " ".join(str(number) for number in one.breaches)
    told["cell"] = " ".join(f"{axis}={value}" for axis, value in one.cell.items())
    told["after"] = one.after
    return told


def to_csv(incidents: Sequence[Incident]) -> str:
    """The incidents as CSV, in their order, with a line of names first."""
    file = io.StringIO()
    writer = csv.DictWriter(file, ["number", *COLUMNS, *_FOLLOWS[1:]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_told(one) for one in incidents)
    return file.getvalue()


def to_json(incidents: Sequence[Incident]) -> str:
    """The incidents as a JSON array of objects with the columns of the CSV, and how far each has come."""
    told = [
        {
            **_told(one),
            "state": one.state,
            "breaches": one.breaches,
            "recurs": one.recurs,
            "cell": one.cell,
            "found_in": one.found_in,
        }
        for one in incidents
    ]
    return json.dumps(told, indent=1)
