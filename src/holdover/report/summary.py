"""The result of the cycle as a screen of text and as one JSON object."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from holdover.harness.cycle import Arm, CycleIncident, CycleResult, group_by_cause
from holdover.model import Instrument
from holdover.pages import format_clock, format_count

_WIDTH = 98
_CONSEQUENCES_MAX = 6


def cycle_json(result: CycleResult, report: str) -> dict[str, Any]:
    """Return one object; the counts are of all arms together, and each breach names its arm."""
    days = [day for arm in result.arms for day in arm.days]
    return {
        "verdict": result.verdict,
        "subject": result.subject,
        "instruments": result.symbols,
        "simulated": result.simulated,
        "schedule": result.schedule,
        "seed": result.seed,
        "faults": result.faults,
        "catalogue": {"digest": result.digest, "invariants": result.invariants},
        "days": len(result.days),
        "trade_dates": result.days,
        "market_events": sum(day.market_events for day in days),
        "mutations": sum(day.mutations for day in days),
        "checks": sum(day.checks for day in days),
        "fills": sum(day.fills for day in days),
        "transitions": sum(len(arm.transitions) for arm in result.arms),
        "arms": {arm.name: _arm(arm) for arm in result.arms},
        "breaches": [
            {
                "invariant": cycle_breach.breach.invariant,
                "scope": cycle_breach.breach.scope,
                "key": cycle_breach.breach.key,
                "arm": cycle_breach.arm,
                "day": cycle_breach.day,
                "time_ns": cycle_breach.breach.time_ns,
                "mutation": cycle_breach.breach.mutation,
                "explanation": cycle_breach.breach.explanation,
                "number": cycle_breach.breach.number,
                "consequence_of": cycle_breach.breach.consequence_of,
                "subsystem": cycle_breach.breach.subsystem,
                "cause": cycle_breach.breach.cause,
                "cell": cycle_breach.breach.cell,
                "after": cycle_breach.breach.after,
            }
            for cycle_breach in result.breaches
        ],
        "frozen": list(dict.fromkeys(scope for arm in result.arms for scope in arm.frozen)),
        "leaked": sum(arm.leaked for arm in result.arms),
        "pages": sum(len(arm.pages) for arm in result.arms),
        "divergences": [
            {
                "day": divergence.day,
                "time_ns": divergence.time_ns,
                "carried": divergence.carried,
                "fresh": divergence.fresh,
                "cause": divergence.cause,
            }
            for divergence in result.divergences
        ],
        "report": report,
    }


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "market_events": sum(day.market_events for day in arm.days),
        "mutations": sum(day.mutations for day in arm.days),
        "checks": sum(day.checks for day in arm.days),
        "fills": sum(day.fills for day in arm.days),
        "orders": sum(day.orders for day in arm.days),
        "partially_filled_orders": sum(day.partially_filled_orders for day in arm.days),
        "transitions": [
            {"what": transition.kind, "detail": transition.detail, "day": transition.trade_date}
            for transition in arm.transitions
        ],
        "breaches": len(arm.breaches),
        "frozen": arm.frozen,
        "leaked": arm.leaked,
        "pages": len(arm.pages),
        "carried": arm.carried,
        "inactive": sorted(name for name, count in arm.active.items() if not count),
    }


def cycle_text(
    result: CycleResult, report: str, seconds: float, instruments: Mapping[str, Instrument] | None = None
) -> str:
    """Return the verdict and the counts by arm as one screen."""
    lines = [
        f"{'BREACH' if result.verdict == 'breach' else result.verdict.upper():<8}"
        f"{result.subject} on {', '.join(result.symbols)}, {len(result.days)} days "
        f"{result.days[0]} to {result.days[-1]}{'  (simulated recordings)' if result.simulated else ''}",
        f"        catalogue {result.digest[:12]}, {result.invariants} invariants; schedule {result.schedule}, "
        f"seed {result.seed}{'; faults ' + ', '.join(result.faults) if result.faults else ''}",
        "",
        "  " + f"{'':<28}" + "".join(f"{arm.name + ' state':>20}" for arm in result.arms),
    ]
    rows: list[tuple[str, list[str]]] = [
        ("market events", [format_count(sum(d.market_events for d in arm.days)) for arm in result.arms]),
        ("mutations", [format_count(sum(d.mutations for d in arm.days)) for arm in result.arms]),
        ("checks", [format_count(sum(d.checks for d in arm.days)) for arm in result.arms]),
        ("executions booked", [format_count(sum(d.fills for d in arm.days)) for arm in result.arms]),
        (
            "orders, partly filled",
            [
                f"{format_count(sum(d.orders for d in arm.days))}, "
                f"{format_count(sum(d.partially_filled_orders for d in arm.days))}"
                for arm in result.arms
            ],
        ),
        ("transitions survived", [str(_transition_count(arm)) for arm in result.arms]),
        ("carried over nights", [_nights(arm) for arm in result.arms]),
        ("breaches", [str(len(arm.breaches)) for arm in result.arms]),
        ("incidents", [str(len(group_by_cause(arm.breaches))) for arm in result.arms]),
        ("frozen scopes", [str(len(arm.frozen)) for arm in result.arms]),
        ("left a frozen scope", [str(arm.leaked) for arm in result.arms]),
        ("alerts", [str(len(arm.pages)) for arm in result.arms]),
    ]
    lines += ["  " + f"{name:<28}" + "".join(f"{value:>20}" for value in values) for name, values in rows]
    lines.append("")
    lines += _breaches(result)
    if result.divergences:
        first = result.divergences[-1] if len(result.divergences) > 1 else result.divergences[0]
        lines += [
            f"  First difference between the arms on {first.day} at {format_clock(first.time_ns)} ({first.cause}):",
            f"    carried  {first.carried}"[:_WIDTH],
            f"    fresh    {first.fresh}"[:_WIDTH],
            "",
        ]
    quiet = sorted(name for name, count in result.arms[0].active.items() if not count) if result.arms else []
    if quiet:
        text = f"Never exercised: {', '.join(quiet)}"
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
        )
    lines.append(f"  {seconds:.1f} s; report {report}")
    return "\n".join(lines)


def _breaches(result: CycleResult) -> list[str]:
    lines: list[str] = []
    incidents = result.incidents
    shown = incidents[:3]
    for incident in shown:
        item = incident.cause
        breach = item.breach
        lines.append(f"  {item.arm} {item.day} {format_clock(breach.time_ns)}  {breach.invariant}  ({breach.cause})")
        explanation = breach.explanation.partition(": ")[2]
        lines += [f"    {line}" for line in textwrap.wrap(explanation, _WIDTH - 4)[:3]]
        if breach.state:
            lines.append(f"    state: {breach.state}"[:_WIDTH])
        lines.append(f"    frozen {breach.scope}; what to do: holdover catalogue show {breach.invariant}")
        lines += _consequence_lines(incident)
    if len(incidents) > len(shown):
        lines.append(f"  and {len(incidents) - len(shown)} more with other causes")
    return [*lines, ""] if lines else []


def _consequence_lines(incident: CycleIncident) -> list[str]:
    """Return one line for each invariant and scope that a consequence breached, with the number of breaches."""
    counts: dict[str, int] = {}
    for item in incident.consequences:
        place = f"{item.breach.invariant} in {item.breach.scope}"
        counts[place] = counts.get(place, 0) + 1
    lines = [f"    followed by {place}" + (f", {count} times" if count > 1 else "") for place, count in counts.items()]
    hidden_count = len(lines) - _CONSEQUENCES_MAX
    return lines[:_CONSEQUENCES_MAX] + ([f"    and {hidden_count} more"] if hidden_count > 0 else [])


def _transition_count(arm: Arm) -> int:
    return len(arm.transitions)


def _nights(arm: Arm) -> str:
    if arm.name == "fresh":
        return "nothing"
    nights = arm.carried[:-1] or arm.carried
    return f"{sum(night['open_orders'] for night in nights)} orders"
