"""What a carry found, for a terminal: both arms side by side, the breaches, and where the arms part."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

_SHOWN: Final = 8
_WIDTH: Final = 34


def carry_text(told: Mapping[str, Any]) -> str:
    """A verdict and why, the arms in columns, the first breaches, the first point where the arms part."""
    arms = told["arms"]
    days = "simulated " if told["simulated"] else ""
    lines = [
        f"{told['verdict'].upper():<8}{told['why']}",
        f"        {', '.join(told['symbols'])} on {days}{told['day']}, {told['accelerate']:g} seconds of it in one; "
        f"catalogue {told['digest'][:12]}; snapshot {told['snapshot'] or 'none'}",
    ]
    lines += [f"        {one}" for one in told["operations"]]
    lines += ["", _row("", [f"{one['name']} {one['trade_date']}" for one in arms])]
    for name, field in (("verdict", "verdict"), ("carried orders", "began_with"), ("logons", "logons")):
        lines.append(_row(name, [_short(one[field]) for one in arms]))
    lines.append(_row("asked for", [f"{one['requests']} requests" for one in arms]))
    lines.append(_row("told", [f"{one['executions']} reports" for one in arms]))
    lines.append(_row("breaches", [str(len(one["breaches"])) for one in arms]))
    lines.append(_row("open at the end", [_short(one["ended_with"]) for one in arms]))
    lines.append(_row("took", [f"{one['seconds']:.1f} s" for one in arms]))
    for one in arms:
        lines += _arm(one)
    if {"carried", "control"} <= {one["name"] for one in arms}:
        lines += ["", *_parted(told["parted"])]
    if told["noise"] is not None:
        lines.append(f"  the control parts from itself, by timing alone, at {clock(told['noise']['time_ns'])}")
    return "\n".join(lines)


def _row(name: str, cells: list[str]) -> str:
    return f"  {name:<18}" + "".join(f"{cell:<{_WIDTH}}" for cell in cells).rstrip()


def _short(value: Any) -> str:
    return str(len(value)) if isinstance(value, list) else str(value)


def _arm(arm: Mapping[str, Any]) -> list[str]:
    lines = [f"  {one}" for one in arm["began_with"][:_SHOWN]]
    if lines:
        lines = ["", f"  {arm['name']}: carried over the night", *[f"  {line}" for line in lines]]
    lines += [f"  {arm['name']}: {one}" for one in arm["problems"]]
    for one in arm["breaches"][:_SHOWN]:
        at = f" at {clock(one['time_ns'])}" if one["time_ns"] else ""
        lines += ["", f"  {arm['name']}: {one['invariant']} ({one['by']}{at})", f"    {one['explanation']}"]
    if len(arm["breaches"]) > _SHOWN:
        lines.append(f"  and {len(arm['breaches']) - _SHOWN} more: --json has all of them")
    lines += [f"  {arm['name']}: cannot be judged: line {one}" for one in arm["skipped"][:_SHOWN]]
    return lines + [f"  {arm['name']}: {one}" for one in arm["notes"]]


def _parted(point: Mapping[str, Any] | None) -> list[str]:
    if point is None:
        return ["  the arms do not part"]
    what = "asked for" if point["direction"] == "out" else "were told"
    return [
        f"  the arms first part at {clock(point['time_ns'])}, in what they {what}",
        f"    carried  {point['carried'] or 'nothing'}",
        f"    control  {point['control'] or 'nothing'}",
    ]


def clock(time_ns: int) -> str:
    """A time of day, UTC, to the millisecond."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}.{rest // 1_000_000:03d}"
