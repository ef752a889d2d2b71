"""The incident figures as text, as one JSON object, and as one self-contained page with SVG plots."""

# ruff: noqa: E501 - markup reads better in whole elements than cut to a width
from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

import msgspec

from holdover import __version__
from holdover.incidents.figures import FORTNIGHT_NS, METHOD, DurationStats, IncidentFigures, Rate, RateRatio
from holdover.incidents.interchange import format_time
from holdover.incidents.ledger import Incident

_WIDTH: Final = 1000
_MARGIN_LEFT: Final = 106
_MARGIN_RIGHT: Final = 14
_STEP_WORDS: Final = {"acknowledge": "acknowledged", "diagnose": "diagnosed", "resolve": "resolved"}


def duration_text(seconds: float | None) -> str:
    """Returns a duration in a fitting unit; a dash for None."""
    if seconds is None:
        return "–"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _date_text(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d")


def _rate_text(rate: Rate) -> str:
    return f"{rate.rate:.2f} per two weeks ({rate.low:.2f} to {rate.high:.2f})"


def _ratio_text(rate_ratio: RateRatio) -> str:
    if rate_ratio.ratio is None and rate_ratio.high is None and not rate_ratio.low:
        return "cannot be told: no incident in either period"
    ratio = "none before" if rate_ratio.ratio is None else f"{rate_ratio.ratio:.2f}"
    high = "no bound" if rate_ratio.high is None else f"{rate_ratio.high:.2f}"
    return f"{ratio} ({rate_ratio.low:.2f} to {high}), p = {rate_ratio.p:.2g}"


def ratio_sentence(rate_ratio: RateRatio) -> str:
    """Returns the meaning of the ratio as a sentence."""
    if rate_ratio.high is not None and rate_ratio.high < 1:
        return "Incidents are rarer since then."
    if rate_ratio.low > 1:
        return "Incidents are more frequent since then."
    return "No change of the rate can be told from this: the interval holds 1."


def _duration_stats_text(stats: DurationStats) -> str:
    if stats.median is None:
        return f"never yet, of {stats.count}"
    interval = (
        f" ({duration_text(stats.low)} to {duration_text(stats.high)})"
        if stats.low is not None
        else ", too few for an interval"
    )
    return f"median {duration_text(stats.median)}{interval}, {stats.observed_count} of {stats.count}"


def figures_text(figures: IncidentFigures) -> str:
    """Returns the figures as text."""
    lines = [
        f"{figures.whole.count} incident{'' if figures.whole.count == 1 else 's'} from {_date_text(figures.since_ns)} to {_date_text(figures.until_ns)}, {figures.open} not resolved",
        f"  {'rate':<14}{_rate_text(figures.whole)}",
        f"  {'recurrent':<14}{figures.recurrent}, novel {figures.novel}",
        *(f"  {_STEP_WORDS[name]:<14}{_duration_stats_text(stats)}" for name, stats in figures.lasted.items()),
    ]
    if (
        figures.at_ns is not None
        and figures.before is not None
        and figures.after is not None
        and figures.ratio is not None
    ):
        lines += [
            f"before and after {_date_text(figures.at_ns)}",
            f"  {'before':<14}{figures.before.count}: {_rate_text(figures.before)}",
            f"  {'after':<14}{figures.after.count}: {_rate_text(figures.after)}",
            f"  {'rate ratio':<14}{_ratio_text(figures.ratio)}",
            f"  {ratio_sentence(figures.ratio)}",
            *(
                f"  {_STEP_WORDS[name]:<14}before: {_duration_stats_text(figures.lasted_before[name])}; after: {_duration_stats_text(stats)}"
                for name, stats in figures.lasted_after.items()
            ),
        ]
    return "\n".join([*lines, METHOD])


def figures_json(figures: IncidentFigures) -> dict[str, Any]:
    """Returns the figures as one JSON object: times in ns, durations in s, incidents by number."""
    document: dict[str, Any] = msgspec.to_builtins(figures)
    for group in (document["lasted"], document["lasted_before"], document["lasted_after"]):
        for stats in group.values():
            del stats["values_s"]
    document["incidents"] = [incident.number for incident in figures.incidents]
    return {**document, "per": "two weeks", "confidence": 0.95, "method": METHOD}


def figures_page(figures: IncidentFigures, style: str) -> str:
    """Returns the page as HTML with the given style sheet."""
    verdict, tone = "Incidents", "holds" if not figures.open else "odd"
    open_text = f"{figures.open} not resolved" if figures.open else "none open"
    head = (
        f'<header class="{tone}"><p class="verdict">{figures.whole.count}</p><div><h1>{verdict} from {_date_text(figures.since_ns)} to '
        f"{_date_text(figures.until_ns)}</h1><p>{escape(_rate_text(figures.whole))}; {open_text}.</p>"
        f"<p class='quiet'>{figures.novel} novel, {figures.recurrent} recurrent: the same invariant in the same cell class as one that "
        f"had been resolved.</p></div></header>"
    )
    parts = [head, "<section><h2>How often</h2>", _bars_html(figures), "</section>"]
    if (
        figures.before is not None
        and figures.after is not None
        and figures.ratio is not None
        and figures.at_ns is not None
    ):
        parts.append(_comparison_html(figures.before, figures.after, figures.ratio, figures.at_ns))
    parts += ["<section><h2>How long</h2>", _durations_html(figures), "</section>", _list_html(figures.incidents)]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Holdover: incidents</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}{_STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main><footer>{escape(METHOD)}<br>Holdover {__version__}</footer></body></html>"
    )


_STYLE: Final = """
.bar-novel{fill:var(--v1)}.bar-again{fill:var(--v2)}.at{stroke:var(--fg);stroke-width:1.5;stroke-dasharray:4 3}
.range{stroke:var(--v1);stroke-width:2.5}.dot{fill:var(--v1);opacity:.75}.median{stroke:var(--fg);stroke-width:2.5}
.key.novel i{background:var(--v1)}.key.again i{background:var(--v2)}.label{font-size:12px;fill:var(--fg)}
"""


def _bars_html(figures: IncidentFigures) -> str:
    """Incidents per two weeks: novel below, recurrent on top, the date as a line."""
    count = max(1, math.ceil((figures.until_ns - figures.since_ns) / FORTNIGHT_NS))
    bars = [[0, 0] for _ in range(count)]
    for incident in figures.incidents:
        bars[(incident.opened_ns - figures.since_ns) // FORTNIGHT_NS][1 if incident.recurs else 0] += 1
    height, top = 150, max(1, max(sum(pair) for pair in bars))
    width = (_WIDTH - _MARGIN_LEFT - _MARGIN_RIGHT) / count
    elements = [
        f"<text class='axis' x='{_MARGIN_LEFT - 8}' y='14' text-anchor='end'>{top}</text>"
        f"<text class='axis' x='{_MARGIN_LEFT - 8}' y='{height}' text-anchor='end'>0</text>"
        f"<line class='zero' x1='{_MARGIN_LEFT}' x2='{_WIDTH - _MARGIN_RIGHT}' y1='{height}' y2='{height}'/>"
    ]
    for index, (novel, recurrent) in enumerate(bars):
        x = _MARGIN_LEFT + index * width
        begins = _date_text(figures.since_ns + index * FORTNIGHT_NS)
        low = height - (height - 8) * novel / top
        high = low - (height - 8) * recurrent / top
        title = f"<title>two weeks from {begins}: {novel} novel, {recurrent} recurrent</title>"
        gap = min(2.0, width / 6)
        for css, y, bottom in (("bar-novel", low, height), ("bar-again", high, low)):
            if bottom > y:
                elements.append(
                    f"<rect class='{css}' x='{x + gap:.1f}' y='{y:.1f}' width='{width - 2 * gap:.1f}' "
                    f"height='{bottom - y:.1f}'>{title}</rect>"
                )
        if index % max(1, -(-count // 10)) == 0:
            elements.append(f"<text class='tick' x='{x:.1f}' y='{height + 15}'>{begins}</text>")
    if figures.at_ns is not None:
        x = _MARGIN_LEFT + (figures.at_ns - figures.since_ns) / FORTNIGHT_NS * width
        elements.append(
            f"<line class='at' x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{height}'/>"
            f"<text class='axis' x='{x + 5:.1f}' y='11'>{_date_text(figures.at_ns)}</text>"
        )
    keys = '<span class="key novel"><i></i>novel</span><span class="key again"><i></i>recurrent</span>'
    return (
        f"<figure><figcaption>Incidents opened in each two weeks <span class='legend'>{keys}</span></figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} {height + 20}' role='img' aria-label='incidents by two weeks'>{''.join(elements)}</svg></figure>"
    )


def _comparison_html(before: Rate, after: Rate, ratio: RateRatio, at_ns: int) -> str:
    top = max(before.high, after.high)
    rows = []
    for index, (name, period_rate) in enumerate((("before", before), ("after", after))):
        y = 22 + index * 34
        low, mid, high = (
            _MARGIN_LEFT + value / top * (_WIDTH - _MARGIN_LEFT - 60)
            for value in (period_rate.low, period_rate.rate, period_rate.high)
        )
        rows.append(
            f"<text class='label' x='{_MARGIN_LEFT - 10}' y='{y + 4}' text-anchor='end'>{name}</text>"
            f"<line class='range' x1='{low:.1f}' x2='{high:.1f}' y1='{y}' y2='{y}'/>"
            f"<circle class='dot' cx='{mid:.1f}' cy='{y}' r='6'><title>{escape(_rate_text(period_rate))}</title></circle>"
            f"<text class='tick' x='{low:.1f}' y='{y - 8}' text-anchor='middle'>{period_rate.low:.2f}</text>"
            f"<text class='tick' x='{mid:.1f}' y='{y - 8}' text-anchor='middle'>{period_rate.rate:.2f}</text>"
            f"<text class='tick' x='{high:.1f}' y='{y - 8}' text-anchor='middle'>{period_rate.high:.2f}</text>"
        )
    body = "".join(
        f"<tr><th scope='row'>{name}</th><td>{period_rate.count}</td><td>{period_rate.fortnights:.1f}</td><td>{escape(_rate_text(period_rate))}</td></tr>"
        for name, period_rate in (("before", before), ("after", after))
    )
    return (
        f"<section><h2>Before and after {_date_text(at_ns)}</h2><p><b>{ratio_sentence(ratio)}</b> Rate after over rate before: "
        f"{escape(_ratio_text(ratio))}.</p><figure><figcaption>Incidents per two weeks, with the interval</figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} 76' role='img' aria-label='rates before and after'>{''.join(rows)}</svg></figure>"
        f"<table class='plain'><thead><tr><td></td><th scope='col'>incidents</th><th scope='col'>times two weeks</th>"
        f"<th scope='col'>rate</th></tr></thead><tbody>{body}</tbody></table></section>"
    )


def _durations_html(figures: IncidentFigures) -> str:
    """One dot per incident on a logarithmic axis, the medians as strokes."""
    spans_s = [max(value, 1.0) for stats in figures.lasted.values() for value in stats.values_s]
    if not spans_s:
        return "<p>None has been acknowledged, diagnosed or resolved.</p>"
    low, high = math.log(min(spans_s)), math.log(max(spans_s) * 1.01)

    def x(seconds: float) -> float:
        return (
            _MARGIN_LEFT
            + 8
            + (math.log(max(seconds, 1.0)) - low) / max(high - low, 1e-9) * (_WIDTH - _MARGIN_LEFT - _MARGIN_RIGHT - 16)
        )

    elements = []
    for index, (name, stats) in enumerate(figures.lasted.items()):
        y = 16 + index * 30
        dots = "".join(f"<circle class='dot' cx='{x(value):.1f}' cy='{y}' r='4'/>" for value in stats.values_s)
        elements.append(
            f"<text class='label' x='{_MARGIN_LEFT - 10}' y='{y + 4}' text-anchor='end'>{_STEP_WORDS[name]}</text>{dots}"
        )
        if stats.median is not None:
            at = f"{x(stats.median):.1f}"
            elements.append(f"<line class='median' x1='{at}' x2='{at}' y1='{y - 11}' y2='{y + 11}'/>")
    ticks = [
        value for value in (1, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000) if low <= math.log(value) <= high
    ]
    elements += [
        f"<text class='tick' x='{x(t):.1f}' y='100' text-anchor='middle'>{duration_text(t)}</text>" for t in ticks
    ]
    rows = "".join(
        f"<tr><th scope='row'>{_STEP_WORDS[name]}</th><td>{escape(_duration_stats_text(stats))}</td>"
        + (
            f"<td>{escape(_duration_stats_text(figures.lasted_before[name]))}</td><td>{escape(_duration_stats_text(figures.lasted_after[name]))}</td>"
            if figures.lasted_after
            else ""
        )
        + "</tr>"
        for name, stats in figures.lasted.items()
    )
    heads = "<th scope='col'>before</th><th scope='col'>after</th>" if figures.lasted_after else ""
    return (
        f"<figure><figcaption>From the opening, a dot an incident, the stroke their median</figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} 106' role='img' aria-label='how long it took'>{''.join(elements)}</svg></figure>"
        f"<table class='plain'><thead><tr><td></td><th scope='col'>whole period</th>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _list_html(incidents: Sequence[Incident]) -> str:
    rows = "".join(
        f"<tr><td>{incident.number}</td><td>{escape(format_time(incident.opened_ns)[:19])}</td><td><code>{escape(incident.invariant)}</code>"
        f"<br><small style='margin:0'>{escape(incident.cell_class)}</small></td><td>{incident.state}</td><td>"
        f"{f'recurs: {incident.recurs}' if incident.recurs else 'novel'}</td><td>{escape(incident.cause)}<br>{escape(incident.diagnosis)}</td></tr>"
        for incident in reversed(incidents)
    )
    if not rows:
        return ""
    return (
        "<section><h2>Each, the latest first</h2><table class='plain'><thead><tr><th>number</th><th>opened, UTC</th>"
        f"<th>invariant, cell class</th><th>state</th><th>recurrence</th><th>diagnosis</th></tr></thead><tbody>{rows}</tbody>"
        "</table></section>"
    )
