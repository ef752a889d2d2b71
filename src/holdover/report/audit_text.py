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
        lines.append(
            "        too many messages could not be used to say that the rest holds"
            if summary["executions"]
            else "        no execution report that could be judged"
        )
    lines += [f"        {note}" for note in summary["notes"]]
    lines += _entry_lines(summary["breaches"], "breaches", summary["breach_count"])
    for name in dict.fromkeys(breach["invariant"] for breach in summary["breaches"][:_SHOWN_MAX]):
        lines.append(f"  what it means: holdover catalogue show {name}")
    lines += _entry_lines(summary["skipped"], "lines that could not be used", summary["skipped_count"])
    return "\n".join(lines)


def _entry_lines(entries: list[Mapping[str, Any]], title: str, count: int) -> list[str]:
    if not entries:
        return []
    lines = ["", f"  {count:,} {title}"]
    for entry in entries[:_SHOWN_MAX]:
        location = f"{entry['file']}:{entry['line']}" if entry.get("file") else f"line {entry['line']}"
        lines.append(f"  {location}  {entry.get('invariant') or entry['reason']}")
        explanation = entry.get("explanation", "").partition(": ")[2]
        lines += [f"    {line}" for line in textwrap.wrap(explanation, _WIDTH - 4)]
    if count > _SHOWN_MAX:
        listed = "all of them" if count == len(entries) else f"the first {len(entries):,}"
        lines.append(f"  and {count - _SHOWN_MAX:,} more: --json has {listed}")
    return lines
