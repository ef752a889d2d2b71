"""The shadow report as HTML, Markdown, JSON and text: the verdict first, the details below."""

# ruff: noqa: E501 - markup reads better in whole elements than cut to a width
from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

import msgspec

from holdover import __version__
from holdover.shadow.clock import HOUR_NS, healthy_time_text
from holdover.shadow.components import FAULTS
from holdover.shadow.config import ShadowConfig
from holdover.shadow.cutover import CutoverAnswer, CutoverCondition
from holdover.shadow.state import OrderComparison, ShadowState
from holdover.shadow.workstreams import Workstream, find_contradictions, open_boundaries_text, workstreams_text

_WIDTH: Final = 1000
_ROWS_MAX: Final = 20
_STYLE: Final = """
.holds .verdict,.good{--tone:var(--ok)}table.asked td:first-child{width:2.2em;font-weight:700}.met{color:var(--ok)}.unmet{color:var(--bad)}
.unknown{color:var(--odd)}.track{fill:var(--rule)}.run{fill:var(--ok)}.short{fill:var(--odd)}.goal{stroke:var(--fg);stroke-width:2}
.num{text-align:right}
"""
_CONDITION_MARKS: Final = {
    True: ("met", "✓", "met"),
    False: ("unmet", "✗", "not met"),
    None: ("unknown", "?", "cannot tell"),
}


def cutover_text(answer: CutoverAnswer) -> str:
    """Returns the verdict and all conditions, unmet and unknown ones first."""
    lines = [f"{answer.verdict.upper()}  {answer.clock}"]
    ordered = sorted(answer.conditions, key=lambda condition: {False: 0, None: 1, True: 2}[condition.met])
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
    return f"{int(share * 100_000) / 1000:.2f} % of {state.clock.watched_ns / HOUR_NS:.1f} h watched, lives of the shadow: {state.clock.run_count}"


def comparison_text(comparison: OrderComparison) -> str:
    """Returns the result of the comparison with the incumbent in words."""
    noise = "the noise floor was not measured"
    if comparison.noise is not None:
        noise = f"two copies of the candidate differ in {comparison.noise:.4%}"
    return (
        f"{comparison.orders:,} orders, {comparison.differing:,} differ ({comparison.share:.4%}), {comparison.unexplained:,} of them without an explanation; "
        f"{comparison.only_candidate:,} only the candidate's, {comparison.only_incumbent:,} only the incumbent's; {noise}"
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
            f"**Workstreams** {workstreams_text(answer.workstreams)}; required: {open_boundaries_text(answer.workstreams)}.",
        ]
    if state.compared is not None:
        lines += ["", f"**Divergence** {comparison_text(state.compared)}."]
    lines += ["", f"**Breaches** {state.breach_count} in all."]
    if state.nights:
        lines += ["", "| after | open orders carried | partly filled |", "|---|---|---|"]
        lines += [f"| {n['after']} | {n['open_orders']} | {n['partially_filled']} |" for n in state.nights[-_ROWS_MAX:]]
    return "\n".join(lines) + "\n"


def shadow_page(answer: CutoverAnswer, state: ShadowState, config: ShadowConfig, style: str) -> str:
    """Returns the report as one self-contained page with the given style sheet."""
    tone = {True: "holds", False: "breach", None: "unknown"}[answer.eligible]
    unmet = [condition for condition in answer.conditions if not condition.met]
    reason = (
        "Every condition is met."
        if not unmet
        else f"{len(unmet)} of {len(answer.conditions)} conditions are not met or cannot be told."
    )
    virtual = '<span class="tag">virtual clock</span>' if state.virtual else ""
    parts = [
        f'<header class="{tone}"><p class="verdict">{answer.verdict}</p><div><h1>May it go live? '
        f"{ {True: 'Yes', False: 'Not yet', None: 'It cannot be told'}[answer.eligible] }: {answer.clock}</h1><p>{reason}</p><p class='quiet'>"
        f"{escape(state.subject or config.candidate.subject or 'candidate')} · last look {_time_text(state.checked_ns)} · {state.orders:,} orders, {state.mutations:,} mutations"
        f" {virtual}</p></div></header>",
        _clock_html(state, config),
        _conditions_html(answer.conditions),
        f"<section><h2>Uptime healthy</h2><p>{escape(uptime_text(state))}; resets of the clock: {state.clock.reset_count}.</p>{_inputs_html(state)}{_resets_html(state)}</section>",
        _faults_html(state),
        _components_html(state),
        _workstreams_html(answer.workstreams),
        _divergence_html(state.compared),
        _breaches_html(state),
        _nights_html(state),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Holdover: {answer.verdict}, {answer.clock}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}{_STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main><footer>Holdover {__version__} · catalogue {escape(state.digest or 'not told')}</footer></body></html>"
    )


def _clock_html(state: ShadowState, config: ShadowConfig) -> str:
    hours, required = state.clock.healthy_ns / HOUR_NS, config.cutover.hours
    full = max(hours, required) * 1.05
    width, goal = hours / full * _WIDTH, required / full * _WIDTH
    css = "run" if hours >= required else "short"
    return (
        f"<figure><figcaption>Cutover clock: {healthy_time_text(state.clock.healthy_ns)} healthy since the last reset, {required:g} h asked for</figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} 38' role='img' aria-label='{hours:.1f} of {required:g} hours'><rect class='track' width='{_WIDTH}' height='18' rx='4'/>"
        f"<rect class='{css}' width='{width:.1f}' height='18' rx='4'/><line class='goal' x1='{goal:.1f}' x2='{goal:.1f}' y1='-2' y2='22'/>"
        f"<text class='tick' x='{goal:.1f}' y='35' text-anchor='middle'>{required:g} h</text></svg></figure>"
    )


def _conditions_html(conditions: Sequence[CutoverCondition]) -> str:
    rows = "".join(
        f"<tr><td class='{_CONDITION_MARKS[condition.met][0]}' title='{_CONDITION_MARKS[condition.met][2]}'>{_CONDITION_MARKS[condition.met][1]}</td><th scope='row'>{escape(condition.name)}</th><td>{escape(condition.detail)}</td></tr>"
        for condition in sorted(conditions, key=lambda condition: {False: 0, None: 1, True: 2}[condition.met])
    )
    return f"<section><h2>What is asked</h2><table class='asked'><tbody>{rows}</tbody></table></section>"


def _resets_html(state: ShadowState) -> str:
    rows = "".join(
        f"<tr><td>{_time_text(reset.time_ns)}</td><td>{reset.fault}</td><td>{escape(reset.detail)}</td><td>{healthy_time_text(reset.lost_ns)}</td></tr>"
        for reset in reversed(state.clock.resets[-_ROWS_MAX:])
    )
    head = "<thead><tr><th>reset at</th><th>by</th><th></th><th>had counted</th></tr></thead>"
    return f"<table class='plain'>{head}<tbody>{rows}</tbody></table>" if rows else ""


def _inputs_html(state: ShadowState) -> str:
    text = inputs_text(state)
    return f"<p>Run live on what the incumbent got: {escape(text)}.</p>" if text else ""


def _faults_html(state: ShadowState) -> str:
    rows = []
    for name, words in FAULTS.items():
        faults = state.faults.get(name)
        count = faults.count if faults is not None else 0
        last = faults.last[-1] if faults is not None and faults.last else None
        last_text = (
            f"{_time_text(last.time_ns)} {escape(last.component)}: {escape(last.detail)}" if last is not None else ""
        )
        rows.append(
            f"<tr><th scope='row'>{name}<small style='display:block;margin:0'>{words}</small></th><td class='num'>{count:,}</td><td>{last_text}</td></tr>"
        )
    head = "<thead><tr><th>class</th><th>count</th><th>the last</th></tr></thead>"
    return (
        f"<section><h2>Faults by class</h2><table class='plain'>{head}<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _components_html(state: ShadowState) -> str:
    rows = "".join(
        f"<tr><td class='{'met' if component.healthy else 'unmet'}'>{'✓' if component.healthy else '✗'}</td><th scope='row'>{escape(component.name)}</th>"
        f"<td>{_health_text(component.healthy, component.silent_s)}</td><td>deadline {component.deadline_s:g} s</td></tr>"
        for component in state.components
    )
    body = (
        f"<table class='plain asked'><tbody>{rows}</tbody></table>"
        if rows
        else "<p class='quiet'>None is configured.</p>"
    )
    return f"<section><h2>Components</h2>{body}</section>"


def _health_text(healthy: bool, silent_s: float | None) -> str:
    if healthy:
        return "heard within its deadline"
    if silent_s == 0:
        return "refuses the credentials"
    return "not heard in this life" if silent_s is None else f"silent for {silent_s:,.0f} s"


def _workstreams_html(streams: Sequence[Workstream]) -> str:
    if not streams:
        return ""
    rows = "".join(
        f"<tr><td class='{'met' if stream.state == 'complete' else 'unknown'}'>{stream.state}</td><th scope='row'>{escape(stream.name)}</th><td>{escape(stream.owner)}</td>"
        f"<td>{stream.kind}{'' if stream.required else ', not required'}</td><td>{escape(', '.join(stream.blocked_by) or stream.reason)}</td></tr>"
        for stream in sorted(streams, key=lambda stream: ("blocked", "active", "ready", "complete").index(stream.state))
    )
    contradictions_html = "".join(
        f"<li class='unmet'>{escape(contradiction)}</li>" for contradiction in find_contradictions(streams)
    )
    head = "<thead><tr><th>state</th><th>workstream</th><th>owner</th><th>kind</th><th>blocked by</th></tr></thead>"
    return (
        f"<section><h2>Workstreams: {workstreams_text(streams)}</h2><p>Required: {open_boundaries_text(streams)}.</p>{f'<ul>{contradictions_html}</ul>' if contradictions_html else ''}"
        f"<table class='plain'>{head}<tbody>{rows}</tbody></table></section>"
    )


def _divergence_html(comparison: OrderComparison | None) -> str:
    if comparison is None:
        return "<section><h2>Divergence from the incumbent</h2><p class='quiet'>No order has been compared yet.</p></section>"
    rows = "".join(
        f"<tr><td><code>{escape(difference.order)}</code></td><td>{escape(difference.field)}</td><td>{escape(difference.candidate)}</td><td>{escape(difference.incumbent)}</td>"
        f"<td class='{'' if difference.reason else 'unmet'}'>{escape(difference.reason) or 'not explained'}</td></tr>"
        for difference in comparison.first[:_ROWS_MAX]
    )
    fields = ", ".join(f"{name} {count:,}" for name, count in comparison.fields.items())
    head = "<thead><tr><th>order</th><th>field</th><th>candidate</th><th>incumbent</th><th></th></tr></thead>"
    return (
        f"<section><h2>Divergence from the incumbent</h2><p>{escape(comparison_text(comparison))}.</p>{f'<p>By field: {escape(fields)}.</p>' if fields else ''}"
        f"{f'<table class=plain>{head}<tbody>{rows}</tbody></table>' if rows else ''}</section>"
    )


def _breaches_html(state: ShadowState) -> str:
    rows = "".join(
        f"<li>{_time_text(breach.time_ns)} <code>{escape(breach.detail)}</code></li>"
        for breach in reversed(state.breaches[-_ROWS_MAX:])
    )
    return f"<section><h2>Breaches: {state.breach_count}</h2>{f'<ul>{rows}</ul>' if rows else '<p>None.</p>'}</section>"


def _nights_html(state: ShadowState) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(str(night['after']))}</th><td class='num'>{night['open_orders']}</td><td class='num'>{night['partially_filled']}</td>"
        f"<td>{escape(', '.join(f'{key} {value:+,d}' for key, value in night['positions'].items() if value))}</td><td>{escape(', '.join(night['frozen']) or 'nothing')}</td></tr>"
        for night in reversed(state.nights[-_ROWS_MAX:])
    )
    head = (
        "<thead><tr><th>after</th><th>open orders</th><th>partly filled</th><th>held</th><th>frozen</th></tr></thead>"
    )
    body = f"<table class='plain'>{head}<tbody>{rows}</tbody></table>" if rows else "<p class='quiet'>No night yet.</p>"
    return f"<section><h2>Carried over each night</h2>{body}</section>"


def _time_text(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _escape_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
