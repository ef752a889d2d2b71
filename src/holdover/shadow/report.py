"""The shadow report as HTML, Markdown, JSON and text: the verdict first, the details below."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec
from markupsafe import Markup

from holdover.pages import element, make_environment
from holdover.shadow.clock import HOUR_NS, healthy_time_text
from holdover.shadow.components import FAULTS
from holdover.shadow.config import ShadowConfig
from holdover.shadow.cutover import CutoverAnswer
from holdover.shadow.state import OrderComparison, ShadowState
from holdover.shadow.workstreams import find_contradictions, open_boundaries_text, workstreams_text

_WIDTH: Final = 1000
_ROWS_MAX: Final = 20
_CONDITION_MARKS: Final = {
    True: ("good", "✓", "met"),
    False: ("bad", "✗", "not met"),
    None: ("odd", "?", "cannot tell"),
}
"""The tone, the sign and the words of a condition that is met, not met or unknown."""
_CONDITION_ORDER: Final = {False: 0, None: 1, True: 2}
_WORKSTREAM_ORDER: Final = ("blocked", "active", "ready", "complete")


def cutover_text(answer: CutoverAnswer) -> str:
    """Returns the verdict and all conditions, unmet and unknown ones first."""
    lines = [f"{answer.verdict.upper()}  {answer.clock}"]
    ordered = sorted(answer.conditions, key=lambda condition: _CONDITION_ORDER[condition.met])
    lines += [
        f"  {_CONDITION_MARKS[condition.met][2]:<12}{condition.name}: {condition.detail}" for condition in ordered
    ]
    return "\n".join(lines)


def shadow_json(answer: CutoverAnswer, state: ShadowState) -> dict[str, Any]:
    """Returns the answer and the saved state as one JSON object."""
    state_fields: dict[str, Any] = msgspec.to_builtins(state)
    for name in ("magic", "version", "offsets"):
        state_fields.pop(name)
    streams = answer.workstreams
    return {
        **answer.to_json(),
        "uptime": healthy_share(state),
        "workstreams": {
            "counted": workstreams_text(streams),
            "boundary": open_boundaries_text(streams),
            "contradictions": find_contradictions(streams),
        }
        if streams
        else None,
        "state": state_fields,
    }


def healthy_share(state: ShadowState) -> float | None:
    """Returns the healthy share of the watched time, 0 to 1; None when nothing was watched."""
    return state.clock.ever_ns / state.clock.watched_ns if state.clock.watched_ns else None


def uptime_text(state: ShadowState) -> str:
    """Returns the watched time and its healthy share in words."""
    share = healthy_share(state)
    if share is None:
        return "nothing watched yet"
    watched = f"{int(share * 100_000) / 1000:.2f} % of {state.clock.watched_ns / HOUR_NS:.1f} h watched"
    return f"{watched}, starts of the shadow: {state.clock.run_count}"


def comparison_text(comparison: OrderComparison) -> str:
    """Returns the result of the comparison with the incumbent in words."""
    noise = "the noise floor was not measured"
    if comparison.noise is not None:
        noise = f"two copies of the candidate differ in {comparison.noise:.4%}"
    return (
        f"{comparison.orders:,} orders, {comparison.differing:,} differ ({comparison.share:.4%}), "
        f"{comparison.unexplained:,} of them without an explanation; "
        f"{comparison.only_candidate:,} only the candidate's, {comparison.only_incumbent:,} only the "
        f"incumbent's; {noise}"
        + (f"; {comparison.moving:,} that had only just moved are not compared yet" if comparison.moving else "")
    )


def inputs_text(state: ShadowState) -> str:
    """Returns the inputs of a live candidate in words; empty for any other candidate."""
    if not state.batch:
        return ""
    text = f"{state.market_events:,} market events"
    if (stats := state.followed) is not None:
        text += f", {stats.reports:,} reports of the incumbent's orders"
        if stats.discarded or stats.unmatched_requests:
            text += (
                f"; {stats.discarded:,} of them ({stats.discarded_qty:,} lots) found no order of the candidate's, "
                f"{stats.unmatched_requests:,} of its requests no counterpart"
            )
    return text


def shadow_markdown(answer: CutoverAnswer, state: ShadowState) -> str:
    """The report as Markdown."""
    lines = [
        f"# {answer.verdict.capitalize()}: {answer.clock}",
        "",
        "| | condition | how it stands |",
        "|---|---|---|",
        *(
            f"| {_CONDITION_MARKS[condition.met][1]} | {condition.name} | {_escape_cell(condition.detail)} |"
            for condition in answer.conditions
        ),
        "",
        f"**Uptime healthy** {uptime_text(state)}{' (virtual clock)' if state.virtual else ''}.",
        *([f"\n**Live inputs** {inputs}."] if (inputs := inputs_text(state)) else []),
        "",
        "| faults | count | last |",
        "|---|---|---|",
    ]
    for name in FAULTS:
        faults = state.faults.get(name)
        last = (
            f"{_time_text(faults.last[-1].time_ns)} {faults.last[-1].detail}"
            if faults is not None and faults.last
            else ""
        )
        lines.append(f"| {name} | {faults.count if faults is not None else 0} | {_escape_cell(last)} |")
    lines += ["", "| component | |", "|---|---|"]
    lines += [
        f"| {_escape_cell(component.name)} | {_health_text(component.healthy, component.silent_s)} |"
        for component in state.components
    ]
    if answer.workstreams:
        lines += [
            "",
            f"**Workstreams** {workstreams_text(answer.workstreams)}; "
            f"required: {open_boundaries_text(answer.workstreams)}.",
        ]
    if state.compared is not None:
        lines += ["", f"**Divergence** {comparison_text(state.compared)}."]
    lines += ["", f"**Breaches** {state.breach_count} in all."]
    if state.nights:
        lines += ["", "| after | open orders carried | partly filled |", "|---|---|---|"]
        lines += [f"| {n['after']} | {n['open_orders']} | {n['partially_filled']} |" for n in state.nights[-_ROWS_MAX:]]
    return "\n".join(lines) + "\n"


def shadow_page(answer: CutoverAnswer, state: ShadowState, config: ShadowConfig) -> str:
    """Returns the report as one self-contained page."""
    streams = answer.workstreams
    return (
        _environment()
        .get_template("shadow_report.html")
        .render(
            answer=answer,
            state=state,
            candidate=state.subject or config.candidate.subject or "candidate",
            conditions=sorted(answer.conditions, key=lambda condition: _CONDITION_ORDER[condition.met]),
            unmet_count=sum(not condition.met for condition in answer.conditions),
            marks=_CONDITION_MARKS,
            healthy=healthy_time_text(state.clock.healthy_ns),
            required_hours=config.cutover.hours,
            clock_chart=_clock_chart(state.clock.healthy_ns / HOUR_NS, config.cutover.hours),
            uptime=uptime_text(state),
            inputs=inputs_text(state),
            resets=[(reset, healthy_time_text(reset.lost_ns)) for reset in reversed(state.clock.resets[-_ROWS_MAX:])],
            fault_classes=FAULTS,
            components_health=[
                (component, _health_text(component.healthy, component.silent_s)) for component in state.components
            ],
            workstreams=sorted(streams, key=lambda stream: _WORKSTREAM_ORDER.index(stream.state)),
            workstreams_summary=workstreams_text(streams),
            boundaries=open_boundaries_text(streams),
            contradictions=find_contradictions(streams),
            comparison=comparison_text(state.compared) if state.compared is not None else "",
            rows_max=_ROWS_MAX,
            breaches=[(breach.time_ns, breach.detail) for breach in reversed(state.breaches[-_ROWS_MAX:])],
            nights=state.nights[-_ROWS_MAX:][::-1],
        )
    )


@cache
def _environment() -> jinja2.Environment:
    return make_environment(Path(__file__).parent)


def _clock_chart(hours: float, required: float) -> Markup:
    """Return a bar of the healthy hours, with a stroke where the required ones are."""
    full = max(hours, required) * 1.05
    goal = required / full * _WIDTH
    return element(
        "svg",
        element("rect", class_="track", width=_WIDTH, height=18, rx=4),
        element(
            "rect",
            class_="healthy" if hours >= required else "short",
            width=hours / full * _WIDTH,
            height=18,
            rx=4,
        ),
        element("line", class_="goal", x1=goal, x2=goal, y1=-2, y2=22),
        element("text", f"{required:g} h", class_="tick", x=goal, y=35, text_anchor="middle"),
        viewBox=f"0 0 {_WIDTH} 38",
        role="img",
        aria_label=f"{hours:.1f} of {required:g} hours",
    )


def _health_text(healthy: bool, silent_s: float | None) -> str:
    if healthy:
        return "heard within its deadline"
    if silent_s == 0:
        return "refuses the credentials"
    return "not heard since the start" if silent_s is None else f"silent for {silent_s:,.0f} s"


def _time_text(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _escape_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
