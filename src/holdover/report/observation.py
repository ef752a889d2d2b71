"""The report of what was observed: what would have been frozen, when, for how long, on what evidence, and what can be
enforced.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import Catalogue, Policy
from holdover.catalogue.policy import OBSERVE, date_of
from holdover.runtime.bundle import SUFFIX
from holdover.runtime.config_file import find_lines
from holdover.runtime.observed_freezes import ObservedFreeze
from holdover.runtime.record_text import format_duration, format_time

SHOWN_MAX: Final = 20
"""How many freezes of one invariant the text shows; the JSON has all."""
_WIDTH: Final = 100
_EXPIRES_DAYS: Final = 30


class ObservationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed in a period; times in ns since the epoch.

    `freezes` are those that were open in the period, oldest first. `evaluations` counts the evaluations of each
    invariant, None when the source does not have them. `holding` are the invariants without a breach, `unevaluated`
    those that nothing exercised. `arming` says in lines what to change.
    """

    source: str
    begin_ns: int
    end_ns: int
    freezes: list[ObservedFreeze]
    holding: list[str] = []
    unevaluated: list[str] = []
    evaluations: dict[str, int] | None = None
    arming: list[str] = []
    bundles: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was recorded in the period."""
        return not self.end_ns or self.end_ns < self.begin_ns

    def last_ns_of(self, freeze: ObservedFreeze) -> int:
        """Return the end of a freeze; the end of the period for one that is open."""
        return freeze.ended_ns if freeze.ended_ns is not None else max(self.end_ns, freeze.time_ns)


def select_period(freezes: Iterable[ObservedFreeze], begin_ns: int, end_ns: int) -> list[ObservedFreeze]:
    """Return the freezes that were open at some time of a period; 0 is no limit."""
    return [
        freeze
        for freeze in freezes
        if (not end_ns or freeze.time_ns <= end_ns) and (freeze.ended_ns is None or freeze.ended_ns >= begin_ns)
    ]


def observation_json(report: ObservationReport) -> dict[str, Any]:
    """Return the report as an object for JSON, with the duration of each freeze in seconds."""
    document: dict[str, Any] = msgspec.to_builtins(report)
    for row, freeze in zip(document["freezes"], report.freezes, strict=True):
        row["duration_s"] = (report.last_ns_of(freeze) - freeze.time_ns) / 1e9
        row["is_open"] = freeze.ended_ns is None
    return document


def observation_text(report: ObservationReport) -> str:
    """Return the report as text, grouped by invariant."""
    if report.is_empty:
        return f"{report.source}: nothing was recorded in this period"
    invariants = {freeze.invariant for freeze in report.freezes}
    period = f"{format_time(report.begin_ns)} to {format_time(report.end_ns)}"
    lines = [f"{report.source}, {period}"]
    if not report.freezes:
        lines.append("nothing would have been frozen")
    else:
        lines.append(
            f"would have frozen {_count(len(report.freezes), 'time')}, by {_count(len(invariants), 'invariant')}"
        )
    by_invariant = sorted(report.freezes, key=lambda freeze: (freeze.invariant, freeze.time_ns, freeze.number))
    for invariant, group in groupby(by_invariant, key=lambda freeze: freeze.invariant):
        lines += ["", *_group_lines(report, invariant, list(group))]
    if report.holding:
        lines += ["", *_wrap(f"no breach, can be enforced ({len(report.holding)}):", report.holding)]
    if report.unevaluated:
        lines += ["", *_wrap(f"never evaluated, no evidence ({len(report.unevaluated)}):", report.unevaluated)]
    if report.arming:
        lines += ["", "to enforce:", *(f"  {line}".rstrip() for line in report.arming)]
    return "\n".join(lines)


def _group_lines(report: ObservationReport, invariant: str, freezes: Sequence[ObservedFreeze]) -> list[str]:
    total_ns = sum(report.last_ns_of(freeze) - freeze.time_ns for freeze in freezes)
    refused = sum(freeze.refused for freeze in freezes)
    evaluated = f", {report.evaluations.get(invariant, 0):,} evaluations" if report.evaluations is not None else ""
    lines = [
        f"{invariant}: {_count(len(freezes), 'freeze')}, {_format_length(total_ns)} in all, "
        f"{_count(refused, 'request')} refused{evaluated}"
    ]
    for freeze in freezes[:SHOWN_MAX]:
        duration = _format_length(report.last_ns_of(freeze) - freeze.time_ns)
        if freeze.ended_ns is None:
            end = f"still open after {duration}"
        else:
            end = f"for at least {duration}; ended: {freeze.ended_by}"
        refusals = f"{_count(freeze.refused, 'request')} refused"
        lines.append(f"  {format_time(freeze.time_ns)} {freeze.scope}, {end}; {refusals}")
        lines.append(f"    {freeze.explanation}")
        repeated = f", breached {freeze.breaches:,} times" if freeze.breaches > 1 else ""
        lines.append(f"    breach {freeze.breach} of {freeze.subsystem} {freeze.kind} {freeze.key}{repeated}")
        bundle = Path(report.bundles) / f"breach-{freeze.breach}{SUFFIX}"
        if report.bundles and bundle.exists():
            lines.append(f"    holdover reproduce {bundle}")
    if len(freezes) > SHOWN_MAX:
        lines.append(f"  and {len(freezes) - SHOWN_MAX} more; --json has all")
    return lines


def _format_length(duration_ns: int) -> str:
    """Return a duration in words, to the millisecond below a second and to the second above."""
    unit_ns = 1_000_000 if duration_ns < 1_000_000_000 else 1_000_000_000
    return format_duration(duration_ns // unit_ns * unit_ns)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _wrap(title: str, names: Sequence[str]) -> list[str]:
    text, indent = ", ".join(names), "  "
    return [
        title,
        *textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False),
    ]


def list_arming_steps(path: Path | None, catalogue: Catalogue, breached: set[str], now_ns: int) -> list[str]:
    """Return what to change in a configuration so that the entries without a breach are enforced.

    Args:
        path: the configuration; None when it is not known.
        catalogue: the catalogue under its policy.
        breached: the invariants that would have frozen.
        now_ns: the time, from which a new policy expires.
    """
    if path is None:
        return ["name the configuration to see the lines to change: --guard guard.toml"]
    places = find_lines(path.read_text(encoding="utf-8"))
    names = list(catalogue.policies)
    steps: list[str] = []
    for policy in catalogue.exceptions():
        if policy.mode != OBSERVE or policy.invariant in breached:
            continue
        place = f"policy[{names.index(policy.invariant)}]"
        line = places.get(f"{place}.mode") or places.get(place, 0)
        has_thresholds = bool(policy.within or policy.tolerance) or policy.limit is not None
        change = 'set mode = "enforce" and remove expires' if has_thresholds else "remove the [[policy]] table"
        steps.append(f"{path.name}, line {line}: {change} of {policy.invariant}")
    if catalogue.mode == OBSERVE:
        steps.append(f'{path.name}, line {places.get("guard.mode", 0)}: set mode = "enforce" in [guard]')
        excluded = sorted(breached - set(catalogue.policies))
        if excluded:
            steps += ["and keep what would have frozen under observation until it is understood:"]
        for name in excluded:
            steps += ["", *_policy_lines(name, now_ns)]
    return steps


def _policy_lines(name: str, now_ns: int) -> list[str]:
    expires = date_of(now_ns + _EXPIRES_DAYS * 86_400_000_000_000)
    policy = Policy(invariant=name, mode=OBSERVE, reason="WHY", expires=expires)
    return [
        "[[policy]]",
        f'invariant = "{policy.invariant}"',
        f'mode = "{policy.mode}"',
        f'reason = "{policy.reason}"',
        f'expires = "{policy.expires}"',
    ]
