"""The result of a carry as text: the arms side by side, the breaches, and the first difference between the arms."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

_SHOWN_MAX: Final = 8
_WIDTH: Final = 34


def carry_text(result: Mapping[str, Any]) -> str:
    """Return the verdict with its reason, the arms in columns, the first breaches and the first difference of the
    arms.
    """
    arms = result["arms"]
    days = "simulated " if result["simulated"] else ""
    lines = [
        f"{result['verdict'].upper():<8}{result['reason']}",
        f"        {', '.join(result['symbols'])} on {days}{result['day']}, {result['accelerate']:g} seconds "
        "of it in one; "
        f"catalogue {result['digest'][:12]}; snapshot {result['snapshot'] or 'none'}",
    ]
    lines += [f"        {operation}" for operation in result["operations"]]
    lines += ["", _row("", [f"{arm['name']} {arm['trade_date']}" for arm in arms])]
    for name, field in (("verdict", "verdict"), ("carried orders", "began_with"), ("logons", "logons")):
        lines.append(_row(name, [_format_value(arm[field]) for arm in arms]))
    lines.append(_row("asked for", [f"{arm['requests']} requests" for arm in arms]))
    lines.append(_row("told", [f"{arm['executions']} reports" for arm in arms]))
    lines.append(_row("breaches", [str(len(arm["breaches"])) for arm in arms]))
    lines.append(_row("open at the end", [_format_value(arm["ended_with"]) for arm in arms]))
    lines.append(_row("took", [f"{arm['seconds']:.1f} s" for arm in arms]))
    for arm in arms:
        lines += _arm_lines(arm)
    if {"carried", "control"} <= {arm["name"] for arm in arms}:
        lines += ["", *_divergence_lines(result["divergence"])]
    if result["noise"] is not None:
        lines.append(f"  the control parts from itself, by timing alone, at {format_clock(result['noise']['time_ns'])}")
    return "\n".join(lines)


def _row(name: str, cells: list[str]) -> str:
    return f"  {name:<18}" + "".join(f"{cell:<{_WIDTH}}" for cell in cells).rstrip()


def _format_value(value: Any) -> str:
    return str(len(value)) if isinstance(value, list) else str(value)


def _arm_lines(arm: Mapping[str, Any]) -> list[str]:
    lines = [f"  {order_text}" for order_text in arm["began_with"][:_SHOWN_MAX]]
    if lines:
        lines = ["", f"  {arm['name']}: carried over the night", *[f"  {line}" for line in lines]]
    lines += [f"  {arm['name']}: {problem}" for problem in arm["problems"]]
    for breach in arm["breaches"][:_SHOWN_MAX]:
        at = f" at {format_clock(breach['time_ns'])}" if breach["time_ns"] else ""
        lines += ["", f"  {arm['name']}: {breach['invariant']} ({breach['by']}{at})", f"    {breach['explanation']}"]
    if len(arm["breaches"]) > _SHOWN_MAX:
        lines.append(f"  and {len(arm['breaches']) - _SHOWN_MAX} more: --json has all of them")
    lines += [f"  {arm['name']}: cannot be judged: line {skipped_line}" for skipped_line in arm["skipped"][:_SHOWN_MAX]]
    return lines + [f"  {arm['name']}: {note}" for note in arm["notes"]]


def _divergence_lines(point: Mapping[str, Any] | None) -> list[str]:
    if point is None:
        return ["  the arms do not part"]
    action = "asked for" if point["direction"] == "out" else "were told"
    return [
        f"  the arms first part at {format_clock(point['time_ns'])}, in what they {action}",
        f"    carried  {point['carried'] or 'nothing'}",
        f"    control  {point['control'] or 'nothing'}",
    ]


def format_clock(time_ns: int) -> str:
    """Return a time of day, UTC, to the millisecond."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}.{rest // 1_000_000:03d}"
