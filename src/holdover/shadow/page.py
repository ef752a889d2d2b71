"""The shadow's report: may it go live? answered at the top, everything else below; as HTML, Markdown and JSON."""

# ruff: noqa: E501 - markup reads better in whole elements than cut to a width
from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

import msgspec

from holdover import __version__
from holdover.shadow.clock import HOUR_NS, since_text
from holdover.shadow.components import FAULTS
from holdover.shadow.config import ShadowConfig
from holdover.shadow.cutover import Answer, Condition
from holdover.shadow.state import Compared, State
from holdover.shadow.workstreams import Workstream, boundary, contradictions, counted

_W: Final = 1000
_SHOWN: Final = 20
_OWN: Final = """
.holds .verdict,.good{--tone:var(--ok)}table.asked td:first-child{width:2.2em;font-weight:700}.met{color:var(--ok)}.unmet{color:var(--bad)}
.unknown{color:var(--odd)}.track{fill:var(--rule)}.run{fill:var(--ok)}.short{fill:var(--odd)}.goal{stroke:var(--fg);stroke-width:2}
.num{text-align:right}
"""
_MARK: Final = {True: ("met", "✓", "met"), False: ("unmet", "✗", "not met"), None: ("unknown", "?", "cannot tell")}


def cutover_text(answer: Answer) -> str:
    """The answer, and every condition that is not met or cannot be told; then those that are."""
    lines = [f"{answer.verdict.upper()}  {answer.clock}"]
    ordered = sorted(answer.conditions, key=lambda one: {False: 0, None: 1, True: 2}[one.met])
    lines += [f"  {_MARK[one.met][2]:<12}{one.name}: {one.told}" for one in ordered]
    return "\n".join(lines)


def shadow_json(answer: Answer, state: State) -> dict[str, Any]:
    """One object: the answer, and all that is kept."""
    told: dict[str, Any] = msgspec.to_builtins(state)
    for name in ("magic", "version", "places"):
        told.pop(name)
    streams = answer.workstreams
    return {
        **answer.as_json(),
        "uptime": uptime(state),
        "workstreams": {
            "counted": counted(streams),
            "boundary": boundary(streams),
            "contradictions": contradictions(streams),
        }
        if streams
        else None,
        "state": told,
    }


def uptime(state: State) -> float | None:
    """The share of the time watched that was healthy, 0 to 1; None where nothing was watched."""
    return state.clock.ever_ns / state.clock.watched_ns if state.clock.watched_ns else None


def uptime_text(state: State) -> str:
    """How long it was watched and how much of that was healthy."""
    share = uptime(state)
    if share is None:
        return "nothing watched yet"
    return f"{int(share * 100_000) / 1000:.2f} % of {state.clock.watched_ns / HOUR_NS:.1f} h watched, lives of the shadow: {state.clock.lives}"


def compared_text(one: Compared) -> str:
    """What the comparison with the incumbent came to."""
    noise = "the noise floor was not measured"
    if one.noise is not None:
        noise = f"two copies of the candidate differ in {one.noise:.4%}"
    return (
        f"{one.orders:,} orders, {one.differing:,} differ ({one.share:.4%}), {one.unexplained:,} of them without an explanation; "
        f"{one.only_candidate:,} only the candidate's, {one.only_incumbent:,} only the incumbent's; {noise}"
        + (f"; {one.moving:,} that had only just moved are not compared yet" if one.moving else "")
    )


def inputs_text(state: State) -> str:
    """What a live candidate got; empty for any other."""
    if not state.batch:
        return ""
    told = f"{state.market_events:,} market events"
    if (one := state.followed) is not None:
        told += f", {one.reports:,} reports of the incumbent's orders"
        if one.left_out or one.alone:
            told += (
                f"; {one.left_out:,} of them ({one.left_out_qty:,} lots) found no order of the candidate's, "
                f"{one.alone:,} of its requests no counterpart"
            )
    return told


def shadow_markdown(answer: Answer, state: State) -> str:
    """The report as Markdown."""
    lines = [
        f"# {answer.verdict.capitalize()}: {answer.clock}",
        "",
        "| | condition | how it stands |",
        "|---|---|---|",
        *(f"| {_MARK[one.met][1]} | {one.name} | {_cell(one.told)} |" for one in answer.conditions),
        "",
        f"**Uptime healthy** {uptime_text(state)}{' (virtual clock)' if state.virtual else ''}.",
        *([f"\n**Live inputs** {told}."] if (told := inputs_text(state)) else []),
        "",
        "| faults | count | last |",
        "|---|---|---|",
    ]
    for name in FAULTS:
        faults = state.faults.get(name)
        last = (
            f"{_moment(faults.last[-1].time_ns)} {faults.last[-1].detail}" if faults is not None and faults.last else ""
        )
        lines.append(f"| {name} | {faults.count if faults is not None else 0} | {_cell(last)} |")
    lines += ["", "| component | |", "|---|---|"]
    lines += [f"| {_cell(one.name)} | {_heard(one.healthy, one.silent_s)} |" for one in state.components]
    if answer.workstreams:
        lines += ["", f"**Workstreams** {counted(answer.workstreams)}; required: {boundary(answer.workstreams)}."]
    if state.compared is not None:
        lines += ["", f"**Divergence** {compared_text(state.compared)}."]
    lines += ["", f"**Breaches** {state.breach_count} in all."]
    if state.nights:
        lines += ["", "| after | open orders carried | partly filled |", "|---|---|---|"]
        lines += [f"| {n['after']} | {n['open_orders']} | {n['partially_filled']} |" for n in state.nights[-_SHOWN:]]
    return "\n".join(lines) + "\n"


def shadow_page(answer: Answer, state: State, config: ShadowConfig, style: str) -> str:
    """The report as one self-contained page under a style sheet."""
    tone = {True: "holds", False: "breach", None: "unknown"}[answer.eligible]
    unmet = [one for one in answer.conditions if not one.met]
    why = (
        "Every condition is met."
        if not unmet
        else f"{len(unmet)} of {len(answer.conditions)} conditions are not met or cannot be told."
    )
    virtual = '<span class="tag">virtual clock</span>' if state.virtual else ""
    parts = [
        f'<header class="{tone}"><p class="verdict">{answer.verdict}</p><div><h1>May it go live? '
        f"{ {True: 'Yes', False: 'Not yet', None: 'It cannot be told'}[answer.eligible] }: {answer.clock}</h1><p>{why}</p><p class='quiet'>"
        f"{escape(state.subject or config.candidate.subject or 'candidate')} · last look {_moment(state.told_ns)} · {state.orders:,} orders, {state.mutations:,} mutations"
        f" {virtual}</p></div></header>",
        _clock_bar(state, config),
        _conditions(answer.conditions),
        f"<section><h2>Uptime healthy</h2><p>{escape(uptime_text(state))}; resets of the clock: {state.clock.reset_count}.</p>{_inputs(state)}{_resets(state)}</section>",
        _faults(state),
        _components(state),
        _streams(answer.workstreams),
        _divergence(state.compared),
        _broke(state),
        _nights(state),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Holdover: {answer.verdict}, {answer.clock}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}{_OWN}</style></head>'
        f"<body><main>{''.join(parts)}</main><footer>Holdover {__version__} · catalogue {escape(state.digest or 'not told')}</footer></body></html>"
    )


def _clock_bar(state: State, config: ShadowConfig) -> str:
    hours, wanted = state.clock.healthy_ns / HOUR_NS, config.cutover.hours
    full = max(hours, wanted) * 1.05
    width, goal = hours / full * _W, wanted / full * _W
    css = "run" if hours >= wanted else "short"
    return (
        f"<figure><figcaption>Cutover clock: {since_text(state.clock.healthy_ns)} healthy since the last reset, {wanted:g} h asked for</figcaption>"
        f"<svg viewBox='0 0 {_W} 38' role='img' aria-label='{hours:.1f} of {wanted:g} hours'><rect class='track' width='{_W}' height='18' rx='4'/>"
        f"<rect class='{css}' width='{width:.1f}' height='18' rx='4'/><line class='goal' x1='{goal:.1f}' x2='{goal:.1f}' y1='-2' y2='22'/>"
        f"<text class='tick' x='{goal:.1f}' y='35' text-anchor='middle'>{wanted:g} h</text></svg></figure>"
    )


def _conditions(conditions: Sequence[Condition]) -> str:
    rows = "".join(
        f"<tr><td class='{_MARK[one.met][0]}' title='{_MARK[one.met][2]}'>{_MARK[one.met][1]}</td><th scope='row'>{escape(one.name)}</th><td>{escape(one.told)}</td></tr>"
        for one in sorted(conditions, key=lambda one: {False: 0, None: 1, True: 2}[one.met])
    )
    return f"<section><h2>What is asked</h2><table class='asked'><tbody>{rows}</tbody></table></section>"


def _resets(state: State) -> str:
    rows = "".join(
        f"<tr><td>{_moment(one.time_ns)}</td><td>{one.fault}</td><td>{escape(one.detail)}</td><td>{since_text(one.lost_ns)}</td></tr>"
        for one in reversed(state.clock.resets[-_SHOWN:])
    )
    head = "<thead><tr><th>reset at</th><th>by</th><th></th><th>had counted</th></tr></thead>"
    return f"<table class='plain'>{head}<tbody>{rows}</tbody></table>" if rows else ""


def _inputs(state: State) -> str:
    told = inputs_text(state)
    return f"<p>Run live on what the incumbent got: {escape(told)}.</p>" if told else ""


def _faults(state: State) -> str:
    rows = []
    for name, words in FAULTS.items():
        faults = state.faults.get(name)
        count = faults.count if faults is not None else 0
        last = faults.last[-1] if faults is not None and faults.last else None
        said = f"{_moment(last.time_ns)} {escape(last.component)}: {escape(last.detail)}" if last is not None else ""
        rows.append(
            f"<tr><th scope='row'>{name}<small style='display:block;margin:0'>{words}</small></th><td class='num'>{count:,}</td><td>{said}</td></tr>"
        )
    head = "<thead><tr><th>class</th><th>count</th><th>the last</th></tr></thead>"
    return (
        f"<section><h2>Faults by class</h2><table class='plain'>{head}<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _components(state: State) -> str:
    rows = "".join(
        f"<tr><td class='{'met' if one.healthy else 'unmet'}'>{'✓' if one.healthy else '✗'}</td><th scope='row'>{escape(one.name)}</th>"
        f"<td>{_heard(one.healthy, one.silent_s)}</td><td>deadline {one.deadline_s:g} s</td></tr>"
        for one in state.components
    )
    body = (
        f"<table class='plain asked'><tbody>{rows}</tbody></table>"
        if rows
        else "<p class='quiet'>None is configured.</p>"
    )
    return f"<section><h2>Components</h2>{body}</section>"


def _heard(healthy: bool, silent_s: float | None) -> str:
    if healthy:
        return "heard within its deadline"
    if silent_s == 0:
        return "refuses the credentials"
    return "not heard in this life" if silent_s is None else f"silent for {silent_s:,.0f} s"


def _streams(streams: Sequence[Workstream]) -> str:
    if not streams:
        return ""
    rows = "".join(
        f"<tr><td class='{'met' if one.state == 'complete' else 'unknown'}'>{one.state}</td><th scope='row'>{escape(one.name)}</th><td>{escape(one.owner)}</td>"
        f"<td>{one.kind}{'' if one.required else ', not required'}</td><td>{escape(', '.join(one.blocked_by) or one.reason)}</td></tr>"
        for one in sorted(streams, key=lambda one: ("blocked", "active", "ready", "complete").index(one.state))
    )
    wrong = "".join(f"<li class='unmet'>{escape(told)}</li>" for told in contradictions(streams))
    head = "<thead><tr><th>state</th><th>workstream</th><th>owner</th><th>kind</th><th>blocked by</th></tr></thead>"
    return (
        f"<section><h2>Workstreams: {counted(streams)}</h2><p>Required: {boundary(streams)}.</p>{f'<ul>{wrong}</ul>' if wrong else ''}"
        f"<table class='plain'>{head}<tbody>{rows}</tbody></table></section>"
    )


def _divergence(one: Compared | None) -> str:
    if one is None:
        return "<section><h2>Divergence from the incumbent</h2><p class='quiet'>No order has been compared yet.</p></section>"
    rows = "".join(
        f"<tr><td><code>{escape(it.order)}</code></td><td>{escape(it.field)}</td><td>{escape(it.candidate)}</td><td>{escape(it.incumbent)}</td>"
        f"<td class='{'' if it.reason else 'unmet'}'>{escape(it.reason) or 'not explained'}</td></tr>"
        for it in one.first[:_SHOWN]
    )
    fields = ", ".join(f"{name} {count:,}" for name, count in one.fields.items())
    head = "<thead><tr><th>order</th><th>field</th><th>candidate</th><th>incumbent</th><th></th></tr></thead>"
    return (
        f"<section><h2>Divergence from the incumbent</h2><p>{escape(compared_text(one))}.</p>{f'<p>By field: {escape(fields)}.</p>' if fields else ''}"
        f"{f'<table class=plain>{head}<tbody>{rows}</tbody></table>' if rows else ''}</section>"
    )


def _broke(state: State) -> str:
    rows = "".join(
        f"<li>{_moment(one.time_ns)} <code>{escape(one.told)}</code></li>" for one in reversed(state.breaches[-_SHOWN:])
    )
    return f"<section><h2>Breaches: {state.breach_count}</h2>{f'<ul>{rows}</ul>' if rows else '<p>None.</p>'}</section>"


def _nights(state: State) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(str(night['after']))}</th><td class='num'>{night['open_orders']}</td><td class='num'>{night['partially_filled']}</td>"
        f"<td>{escape(', '.join(f'{key} {value:+,d}' for key, value in night['positions'].items() if value))}</td><td>{escape(', '.join(night['frozen']) or 'nothing')}</td></tr>"
        for night in reversed(state.nights[-_SHOWN:])
    )
    head = (
        "<thead><tr><th>after</th><th>open orders</th><th>partly filled</th><th>held</th><th>frozen</th></tr></thead>"
    )
    body = f"<table class='plain'>{head}<tbody>{rows}</tbody></table>" if rows else "<p class='quiet'>No night yet.</p>"
    return f"<section><h2>Carried over each night</h2>{body}</section>"


def _moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _cell(told: str) -> str:
    return told.replace("|", "\\|").replace("\n", " ")
