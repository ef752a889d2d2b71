"""The result of an audit as a screen of text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_SHOWN_MAX = 10
_WIDTH = 98


def audit_text(summary: Mapping[str, Any]) -> str:
    """Return the verdict, the counts, the first breaches and the first lines that could not be used."""
    catalogue = summary["catalogue"]
    counts = ", ".join(f"{summary[name]:,} {name}" for name in ("messages", "executions", "orders", "sessions"))
    lines = [
        f"{summary['verdict'].upper():<8}{counts}",
        f"        catalogue {catalogue['digest'][:12]}, {catalogue['invariants']} invariants, "
        f"of which a log shows {len(catalogue['judged'])}",
    ]
    if summary["verdict"] == "unknown":
        lines.append("        no execution report that could be judged")
    lines += [f"        {note}" for note in summary["notes"]]
    lines += _entry_lines(summary["breaches"], "breaches")
    for name in dict.fromkeys(breach["invariant"] for breach in summary["breaches"][:_SHOWN_MAX]):
        lines.append(f"  what it means: holdover catalogue show {name}")
    lines += _entry_lines(summary["skipped"], "lines that could not be used")
    return "\n".join(lines)


def _entry_lines(entries: list[Mapping[str, Any]], title: str) -> list[str]:
    if not entries:
        return []
    lines = ["", f"  {len(entries):,} {title}"]
    for entry in entries[:_SHOWN_MAX]:
        location = f"{entry['file']}:{entry['line']}" if entry.get("file") else f"line {entry['line']}"
        lines.append(f"  {location}  {entry.get('invariant') or entry['reason']}")
        explanation = entry.get("explanation", "").partition(": ")[2]
        lines += [f"    {line}" for line in textwrap.wrap(explanation, _WIDTH - 4)]
    if len(entries) > _SHOWN_MAX:
        lines.append(f"  and {len(entries) - _SHOWN_MAX:,} more: --json has all of them")
    return lines
