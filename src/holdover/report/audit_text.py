"""The audit's result as a screen of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN = 10
_WIDTH = 98


def audit_text(told: Mapping[str, Any]) -> str:
    """A verdict, what was read, the first breaches and the first lines that could not be used."""
    catalogue = told["catalogue"]
    counts = ", ".join(f"{told[name]:,} {name}" for name in ("messages", "executions", "orders", "sessions"))
    lines = [
        f"{told['verdict'].upper():<8}{counts}",
        f"        catalogue {catalogue['digest'][:12]}, {catalogue['invariants']} invariants, "
        f"of which a log shows {len(catalogue['judged'])}",
    ]
    if told["verdict"] == "unknown":
        lines.append("        no execution report that could be judged")
    lines += [f"        {note}" for note in told["notes"]]
    lines += _part(told["breaches"], "breaches")
    for name in dict.fromkeys(one["invariant"] for one in told["breaches"][:_SHOWN]):
        lines.append(f"  what it means: holdover catalogue show {name}")
    lines += _part(told["skipped"], "lines that could not be used")
    return "\n".join(lines)


def _part(found: list[Mapping[str, Any]], what: str) -> list[str]:
    if not found:
        return []
    lines = ["", f"  {len(found):,} {what}"]
    for one in found[:_SHOWN]:
        place = f"{one['file']}:{one['line']}" if one.get("file") else f"line {one['line']}"
        lines.append(f"  {place}  {one.get('invariant') or one['reason']}")
        said = one.get("explanation", "").partition(": ")[2]
        lines += [f"    {said[start : start + _WIDTH - 4]}" for start in range(0, len(said), _WIDTH - 4)]
    if len(found) > _SHOWN:
        lines.append(f"  and {len(found) - _SHOWN:,} more: --json has all of them")
    return lines
