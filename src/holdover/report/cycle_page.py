"""The report of the cycle as one self-contained page.

It starts with the verdict and the breach cards with the operator's steps. For each day it shows the positions
by subsystem and venue, with the restarts and disconnects of the session, the order lifelines and the first
breach; then what was carried over each night, and the fresh arm of the same day. The charts are inline SVG,
so the page needs no script.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from holdover.catalogue import Catalogue, Entry, ResponseStep
from holdover.explore.timeline import build_timeline
from holdover.harness.cycle import Arm, CycleBreach, CycleResult, DayRun, group_by_cause
from holdover.harness.schedule import Schedule
from holdover.model import Instrument
from holdover.pages import format_count
from holdover.recording import RecordingStore
from holdover.report.cycle_charts import lifeline_chart, position_charts, series_keys
from holdover.report.environment import render_template
from holdover.runtime.pasted_commands import fill_commands

_CARDS_MAX: Final = 4
_REST_MAX: Final = 36
_VERDICT_SENTENCES: Final = {
    "holds": "Every invariant held, with yesterday's state carried along.",
    "breach": "An invariant did not hold. The scopes that it touched are frozen.",
    "unknown": "Nothing was recorded that could have been checked.",
}
_ARM_NOTES: Final = {"carried": "yesterday's state carried along", "fresh": "what a fresh-state test sees"}


def cycle_page(result: CycleResult, catalogue: Catalogue, instruments: Mapping[str, Instrument]) -> str:
    """Return the page as HTML."""
    carried, fresh = result.arm("carried"), result.arm("fresh")
    arm = carried or fresh
    incidents = result.incidents
    return render_template(
        "cycle.html",
        result=result,
        catalogue=catalogue,
        sentence=_VERDICT_SENTENCES[result.verdict],
        arm_notes=_ARM_NOTES,
        arm_rows=_arm_rows(result),
        cards=incidents[:_CARDS_MAX],
        rest=incidents[_CARDS_MAX : _CARDS_MAX + _REST_MAX],
        rest_count=max(0, len(incidents) - _CARDS_MAX),
        consequences_max=_REST_MAX,
        steps_of=_steps_of,
        arm=arm,
        series=series_keys(arm) if arm is not None else [],
        days=_days(arm, fresh if arm is carried else None, instruments) if arm is not None else [],
        activities=[
            (name, bool(count), format_count(count))
            for name, count in (result.arms[0].active.items() if result.arms else ())
        ],
    )


def _arm_rows(result: CycleResult) -> list[tuple[str, list[str]]]:
    """Return the name of each figure with its value in every arm."""
    sums = {
        "Market events": "market_events",
        "Mutations, each checked": "mutations",
        "Checks": "checks",
        "Executions booked": "fills",
        "Orders": "orders",
        "Orders partly filled on the way": "partially_filled_orders",
    }
    rows = [
        (name, [format_count(sum(getattr(day, field) for day in arm.days)) for arm in result.arms])
        for name, field in sums.items()
    ]
    return [
        *rows,
        ("Transitions", [str(len(arm.transitions)) for arm in result.arms]),
        ("Open orders carried over nights", [_carried_orders(arm) for arm in result.arms]),
        ("Breaches", [str(len(arm.breaches)) for arm in result.arms]),
        ("Incidents: breaches with one cause", [str(len(group_by_cause(arm.breaches))) for arm in result.arms]),
        ("Frozen", [", ".join(arm.frozen) or "nothing" for arm in result.arms]),
        ("Orders that left a frozen scope", [str(arm.leaked) for arm in result.arms]),
        ("Alerts", [str(len(arm.pages)) for arm in result.arms]),
    ]


def _steps_of(item: CycleBreach, entry: Entry) -> list[ResponseStep]:
    """Return the operator's steps with the real scope and directory in their commands."""
    guard = Path(item.guard) if item.guard else None
    return [
        ResponseStep(
            step=fill_commands(step.step, item.breach.scope, guard),
            done_when=fill_commands(step.done_when, item.breach.scope, guard),
        )
        for step in entry.response
    ]


def _carried_orders(arm: Arm) -> str:
    if arm.name == "fresh":
        return "nothing is carried"
    nights = arm.carried[:-1] or arm.carried
    return ", ".join(str(night["open_orders"]) for night in nights) or "none"


def _days(arm: Arm, fresh: Arm | None, instruments: Mapping[str, Instrument]) -> list[dict[str, Any]]:
    """Return what the page shows of each day: its charts, the fresh arm's day, and the night after it."""
    return [
        {
            "run": day,
            "fresh": _fresh_day(fresh, index),
            "charts": position_charts(day, arm, instruments),
            "lifelines": lifeline_chart(day.lifelines, day, arm) if day.lifelines else None,
            "night": arm.carried[index] if arm.name == "carried" and index < len(arm.carried) else None,
        }
        for index, day in enumerate(arm.days)
    ]


def _fresh_day(fresh: Arm | None, index: int) -> DayRun | None:
    return fresh.days[index] if fresh is not None and index < len(fresh.days) else None


def timeline_page(schedule: Schedule, store: RecordingStore, directory: Path, catalogue: Catalogue) -> str:
    """Return the page of one schedule, played to its first breach."""
    instruments = {
        recording.symbol: store.get(recording.symbol, recording.trade_date).meta.instrument
        for recording in schedule.recordings
    }
    return cycle_page(build_timeline(schedule, store, directory, catalogue), catalogue, instruments)
