"""Imports incidents from CSV and exports them as CSV and JSON.

A file is imported completely or not at all, and every wrong line is reported. Columns: `name` (the name elsewhere),
`invariant` and `opened` are required; `cell_class`, `scope`, `severity`, `explanation`, `acknowledged`,
`acknowledged_by`, `diagnosed`, `diagnosed_by`, `cause`, `diagnosis`, `resolved`, `resolved_by` may be missing or empty.
Times are ISO 8601 with an offset (`2024-11-27T14:31:05Z`). An export has the same columns and some that an import
ignores because they are derived: `number`, `recurrence`, `breaches`, `cell` (`axis=value`, separated by spaces) and
`after`, the state that the first breach records.
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
    "explanation",
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
_REQUIRED_COLUMNS: Final = ("name", "invariant", "opened")
_DERIVED_COLUMNS: Final = ("number", "recurrence", "breaches", "cell", "after")
_STEPS: Final = ("opened", "acknowledged", "diagnosed", "resolved")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION: Final = re.compile(r"\.(\d{1,9})")


class IncidentImportError(ValueError):
    """A file cannot be imported; the message names the file and every wrong line."""


def read_csv(path: Path) -> list[Incident]:
    """Read the incidents of a file, in its order, without numbers.

    Raises `IncidentImportError` with all problems at once.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            problems = _find_column_problems(columns)
            rows = [] if problems else [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise IncidentImportError(f"{path.name}: cannot be read as CSV in UTF-8: {reason}") from problem
    incidents: list[Incident] = []
    line_by_name: dict[str, int] = {}
    for line, row in rows:
        incident, row_problems = _parse_row(row)
        if incident is not None and incident.name in line_by_name:
            row_problems.append(f"name {incident.name} stands on line {line_by_name[incident.name]} already")
        problems += [f"line {line}: {problem}" for problem in row_problems]
        if incident is not None:
            line_by_name.setdefault(incident.name, line)
            incidents.append(incident)
    if problems:
        raise IncidentImportError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return incidents


def _find_column_problems(columns: Sequence[str]) -> list[str]:
    if not columns:
        return ["is empty; its first line should name the columns"]
    problems = [f"has no column {name}" for name in _REQUIRED_COLUMNS if name not in columns]
    problems += [
        f"column {name!r} is not known here; there are {', '.join(COLUMNS)}"
        for name in columns
        if name not in COLUMNS and name not in _DERIVED_COLUMNS
    ]
    return problems + [f"column {name} stands there twice" for name in sorted(set(columns)) if columns.count(name) > 1]


def _parse_row(row: Mapping[str | None, str | list[str] | None]) -> tuple[Incident | None, list[str]]:
    """The incident on a line, or the problems of the line."""
    if None in row:
        return None, ["has more fields than there are columns"]
    if any(value is None for value in row.values()):
        return None, ["has fewer fields than there are columns"]
    values = {name: str(row.get(name) or "").strip() for name in COLUMNS}
    problems = [f"{name} is empty" for name in _REQUIRED_COLUMNS if not values[name]]
    times: dict[str, int | None] = {}
    for step in _STEPS:
        try:
            times[step] = parse_time(values[step]) if values[step] else None
        except ValueError as problem:
            problems.append(f"{step} {problem}")
    for earlier, later in (*(("opened", step) for step in _STEPS[1:]), ("diagnosed", "resolved")):
        first, second = times.get(earlier), times.get(later)
        if first is not None and second is not None and second < first:
            problems.append(f"{later} is before {earlier}")
    problems += [f"{step}_by is said, but not when" for step in _STEPS[1:] if values[f"{step}_by"] and not values[step]]
    if problems:
        return None, problems
    fields: dict[str, Any] = {name: values[name] for name in COLUMNS if name not in _STEPS}
    fields |= {f"{step}_ns": times[step] for step in _STEPS}
    return Incident(number=0, **fields), []


def parse_time(text: str) -> int:
    """Returns a time in ISO 8601 with an offset as ns since the epoch. Raises `ValueError` for anything else."""
    fraction = _FRACTION.search(text)
    try:
        moment = datetime.fromisoformat(_FRACTION.sub("", text, count=1))
    except ValueError:
        raise ValueError(f"{text!r} is no time; it should be like 2024-11-27T14:31:05Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC; it should be like 2024-11-27T14:31:05Z")
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + (int(fraction[1].ljust(9, "0")) if fraction else 0)


def format_time(time_ns: int | None) -> str:
    """Returns a time in the format of `parse_time`, to the ns; empty for None."""
    if time_ns is None:
        return ""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{(_EPOCH + timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%S')}{fraction}Z"


def _row_of(incident: Incident) -> dict[str, str | int]:
    row: dict[str, str | int] = {"number": incident.number}
    for name in COLUMNS:
        row[name] = format_time(getattr(incident, f"{name}_ns")) if name in _STEPS else getattr(incident, name)
    row["name"] = incident.name or f"holdover-{incident.number}"
    row["recurrence"] = incident.recurrence
    row["breaches"] = " ".join(str(number) for number in incident.breaches)
    row["cell"] = " ".join(f"{axis}={value}" for axis, value in incident.cell.items())
    row["after"] = incident.after
    return row


def to_csv(incidents: Sequence[Incident]) -> str:
    """Returns the incidents as CSV, in their order, with a header line."""
    file = io.StringIO()
    writer = csv.DictWriter(file, ["number", *COLUMNS, *_DERIVED_COLUMNS[1:]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row_of(incident) for incident in incidents)
    return file.getvalue()


def to_json(incidents: Sequence[Incident]) -> str:
    """Returns the incidents as a JSON array of objects with the columns of the CSV and their state."""
    rows = [
        {
            **_row_of(incident),
            "state": incident.state,
            "breaches": incident.breaches,
            "recurs": incident.recurs,
            "cell": incident.cell,
            "found_in": incident.carried_state_text,
        }
        for incident in incidents
    ]
    return json.dumps(rows, indent=1)
