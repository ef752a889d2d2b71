"""The figures as a screen of text, one JSON object, and one self-contained page with its plots drawn as SVG."""

# ruff: noqa: E501 - markup reads better in whole elements than cut to a width
from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

import msgspec

from holdover import __version__
from holdover.incidents.exchange import time_text
from holdover.incidents.figures import FORTNIGHT_NS, METHOD, Figures, Lasted, Rate, Ratio
from holdover.incidents.ledger import Incident

_W: Final = 1000
_LEFT: Final = 106
_RIGHT: Final = 14
_STEP_WORDS: Final = {"acknowledge": "acknowledged", "diagnose": "diagnosed", "resolve": "resolved"}


def span_text(seconds: float | None) -> str:
    """How long, in the unit that suits it; a dash for what is not known."""
    if seconds is None:
        return "–"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _day(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d")


def _rate(one: Rate) -> str:
    return f"{one.rate:.2f} per two weeks ({one.low:.2f} to {one.high:.2f})"


def _ratio(one: Ratio) -> str:
    if one.ratio is None and one.high is None and not one.low:
        return "cannot be told: no incident in either period"
    ratio = "none before" if one.ratio is None else f"{one.ratio:.2f}"
    high = "no bound" if one.high is None else f"{one.high:.2f}"
    return f"{ratio} ({one.low:.2f} to {high}), p = {one.p:.2g}"


def ratio_words(one: Ratio) -> str:
    """What the ratio says, in a sentence."""
    if one.high is not None and one.high < 1:
        return "Incidents are rarer since then."
    if one.low > 1:
        return "Incidents are more frequent since then."
    return "No change of the rate can be told from this: the interval holds 1."


def _lasted(one: Lasted) -> str:
    if one.median is None:
        return f"never yet, of {one.count}"
    interval = (
        f" ({span_text(one.low)} to {span_text(one.high)})" if one.low is not None else ", too few for an interval"
    )
    return f"median {span_text(one.median)}{interval}, {one.came} of {one.count}"


def figures_text(told: Figures) -> str:
    """A screen of text."""
    lines = [
        f"{told.whole.count} incident{'' if told.whole.count == 1 else 's'} from {_day(told.since_ns)} to {_day(told.until_ns)}, {told.open} not resolved",
        f"  {'rate':<14}{_rate(told.whole)}",
        f"  {'recurrent':<14}{told.recurrent}, novel {told.novel}",
        *(f"  {_STEP_WORDS[name]:<14}{_lasted(one)}" for name, one in told.lasted.items()),
    ]
    if told.at_ns is not None and told.before is not None and told.after is not None and told.ratio is not None:
        lines += [
            f"before and after {_day(told.at_ns)}",
            f"  {'before':<14}{told.before.count}: {_rate(told.before)}",
            f"  {'after':<14}{told.after.count}: {_rate(told.after)}",
            f"  {'rate ratio':<14}{_ratio(told.ratio)}",
            f"  {ratio_words(told.ratio)}",
            *(
                f"  {_STEP_WORDS[name]:<14}before: {_lasted(told.lasted_before[name])}; after: {_lasted(one)}"
                for name, one in told.lasted_after.items()
            ),
        ]
    return "\n".join([*lines, METHOD])


def figures_json(told: Figures) -> dict[str, Any]:
    """One object: times in ns, lengths in s; the incidents themselves by number."""
    found: dict[str, Any] = msgspec.to_builtins(told)
    for group in (found["lasted"], found["lasted_before"], found["lasted_after"]):
        for one in group.values():
            del one["each"]
    found["incidents"] = [one.number for one in told.incidents]
    return {**found, "per": "two weeks", "confidence": 0.95, "method": METHOD}


def figures_page(told: Figures, style: str) -> str:
    """The page as HTML under a style sheet."""
    verdict, tone = "Incidents", "holds" if not told.open else "odd"
    said = f"{told.open} not resolved" if told.open else "none open"
    head = (
        f'<header class="{tone}"><p class="verdict">{told.whole.count}</p><div><h1>{verdict} from {_day(told.since_ns)} to '
        f"{_day(told.until_ns)}</h1><p>{escape(_rate(told.whole))}; {said}.</p>"
        f"<p class='quiet'>{told.novel} novel, {told.recurrent} recurrent: the same invariant in the same cell class as one that "
        f"had been resolved.</p></div></header>"
    )
    parts = [head, "<section><h2>How often</h2>", _bars(told), "</section>"]
    if told.before is not None and told.after is not None and told.ratio is not None and told.at_ns is not None:
        parts.append(_before_and_after(told.before, told.after, told.ratio, told.at_ns))
    parts += ["<section><h2>How long</h2>", _spans(told), "</section>", _listed(told.incidents)]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Holdover: incidents</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}{_OWN}</style></head>'
        f"<body><main>{''.join(parts)}</main><footer>{escape(METHOD)}<br>Holdover {__version__}</footer></body></html>"
    )


_OWN: Final = """
.bar-novel{fill:var(--v1)}.bar-again{fill:var(--v2)}.at{stroke:var(--fg);stroke-width:1.5;stroke-dasharray:4 3}
.range{stroke:var(--v1);stroke-width:2.5}.dot{fill:var(--v1);opacity:.75}.median{stroke:var(--fg);stroke-width:2.5}
.key.novel i{background:var(--v1)}.key.again i{background:var(--v2)}.label{font-size:12px;fill:var(--fg)}
"""


def _bars(told: Figures) -> str:
    """Incidents by fortnight: novel below, recurrent on top, the date as a line."""
    count = max(1, math.ceil((told.until_ns - told.since_ns) / FORTNIGHT_NS))
    each = [[0, 0] for _ in range(count)]
    for one in told.incidents:
        each[(one.opened_ns - told.since_ns) // FORTNIGHT_NS][1 if one.recurs else 0] += 1
    height, top = 150, max(1, max(sum(pair) for pair in each))
    width = (_W - _LEFT - _RIGHT) / count
    drawn = [
        f"<text class='axis' x='{_LEFT - 8}' y='14' text-anchor='end'>{top}</text>"
        f"<text class='axis' x='{_LEFT - 8}' y='{height}' text-anchor='end'>0</text>"
        f"<line class='zero' x1='{_LEFT}' x2='{_W - _RIGHT}' y1='{height}' y2='{height}'/>"
    ]
    for place, (novel, again) in enumerate(each):
        x = _LEFT + place * width
        begins = _day(told.since_ns + place * FORTNIGHT_NS)
        low = height - (height - 8) * novel / top
        high = low - (height - 8) * again / top
        title = f"<title>two weeks from {begins}: {novel} novel, {again} recurrent</title>"
        gap = min(2.0, width / 6)
        for css, y, until in (("bar-novel", low, height), ("bar-again", high, low)):
            if until > y:
                drawn.append(
                    f"<rect class='{css}' x='{x + gap:.1f}' y='{y:.1f}' width='{width - 2 * gap:.1f}' "
                    f"height='{until - y:.1f}'>{title}</rect>"
                )
        if place % max(1, -(-count // 10)) == 0:
            drawn.append(f"<text class='tick' x='{x:.1f}' y='{height + 15}'>{begins}</text>")
    if told.at_ns is not None:
        x = _LEFT + (told.at_ns - told.since_ns) / FORTNIGHT_NS * width
        drawn.append(
            f"<line class='at' x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{height}'/>"
            f"<text class='axis' x='{x + 5:.1f}' y='11'>{_day(told.at_ns)}</text>"
        )
    keys = '<span class="key novel"><i></i>novel</span><span class="key again"><i></i>recurrent</span>'
    return (
        f"<figure><figcaption>Incidents opened in each two weeks <span class='legend'>{keys}</span></figcaption>"
        f"<svg viewBox='0 0 {_W} {height + 20}' role='img' aria-label='incidents by two weeks'>{''.join(drawn)}</svg></figure>"
    )


def _before_and_after(before: Rate, after: Rate, ratio: Ratio, at_ns: int) -> str:
    top = max(before.high, after.high)
    rows = []
    for place, (name, one) in enumerate((("before", before), ("after", after))):
        y = 22 + place * 34
        low, mid, high = (_LEFT + value / top * (_W - _LEFT - 60) for value in (one.low, one.rate, one.high))
        rows.append(
            f"<text class='label' x='{_LEFT - 10}' y='{y + 4}' text-anchor='end'>{name}</text>"
            f"<line class='range' x1='{low:.1f}' x2='{high:.1f}' y1='{y}' y2='{y}'/>"
            f"<circle class='dot' cx='{mid:.1f}' cy='{y}' r='6'><title>{escape(_rate(one))}</title></circle>"
            f"<text class='tick' x='{low:.1f}' y='{y - 8}' text-anchor='middle'>{one.low:.2f}</text>"
            f"<text class='tick' x='{mid:.1f}' y='{y - 8}' text-anchor='middle'>{one.rate:.2f}</text>"
            f"<text class='tick' x='{high:.1f}' y='{y - 8}' text-anchor='middle'>{one.high:.2f}</text>"
        )
    body = "".join(
        f"<tr><th scope='row'>{name}</th><td>{one.count}</td><td>{one.fortnights:.1f}</td><td>{escape(_rate(one))}</td></tr>"
        for name, one in (("before", before), ("after", after))
    )
    return (
        f"<section><h2>Before and after {_day(at_ns)}</h2><p><b>{ratio_words(ratio)}</b> Rate after over rate before: "
        f"{escape(_ratio(ratio))}.</p><figure><figcaption>Incidents per two weeks, with the interval</figcaption>"
        f"<svg viewBox='0 0 {_W} 76' role='img' aria-label='rates before and after'>{''.join(rows)}</svg></figure>"
        f"<table class='plain'><thead><tr><td></td><th scope='col'>incidents</th><th scope='col'>times two weeks</th>"
        f"<th scope='col'>rate</th></tr></thead><tbody>{body}</tbody></table></section>"
    )


def _spans(told: Figures) -> str:
    """A dot for each incident on a logarithmic axis, the medians as strokes."""
    known = [max(value, 1.0) for one in told.lasted.values() for value in one.each]
    if not known:
        return "<p>None has been acknowledged, diagnosed or resolved.</p>"
    low, high = math.log(min(known)), math.log(max(known) * 1.01)

    def x(seconds: float) -> float:
        return _LEFT + 8 + (math.log(max(seconds, 1.0)) - low) / max(high - low, 1e-9) * (_W - _LEFT - _RIGHT - 16)

    drawn = []
    for place, (name, one) in enumerate(told.lasted.items()):
        y = 16 + place * 30
        dots = "".join(f"<circle class='dot' cx='{x(value):.1f}' cy='{y}' r='4'/>" for value in one.each)
        drawn.append(
            f"<text class='label' x='{_LEFT - 10}' y='{y + 4}' text-anchor='end'>{_STEP_WORDS[name]}</text>{dots}"
        )
        if one.median is not None:
            at = f"{x(one.median):.1f}"
            drawn.append(f"<line class='median' x1='{at}' x2='{at}' y1='{y - 11}' y2='{y + 11}'/>")
    ticks = [
        value for value in (1, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000) if low <= math.log(value) <= high
    ]
    drawn += [f"<text class='tick' x='{x(t):.1f}' y='100' text-anchor='middle'>{span_text(t)}</text>" for t in ticks]
    rows = "".join(
        f"<tr><th scope='row'>{_STEP_WORDS[name]}</th><td>{escape(_lasted(one))}</td>"
        + (
            f"<td>{escape(_lasted(told.lasted_before[name]))}</td><td>{escape(_lasted(told.lasted_after[name]))}</td>"
            if told.lasted_after
            else ""
        )
        + "</tr>"
        for name, one in told.lasted.items()
    )
    heads = "<th scope='col'>before</th><th scope='col'>after</th>" if told.lasted_after else ""
    return (
        f"<figure><figcaption>From the opening, a dot an incident, the stroke their median</figcaption>"
        f"<svg viewBox='0 0 {_W} 106' role='img' aria-label='how long it took'>{''.join(drawn)}</svg></figure>"
        f"<table class='plain'><thead><tr><td></td><th scope='col'>whole period</th>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _listed(incidents: Sequence[Incident]) -> str:
    rows = "".join(
        f"<tr><td>{one.number}</td><td>{escape(time_text(one.opened_ns)[:19])}</td><td><code>{escape(one.invariant)}</code>"
        f"<br><small style='margin:0'>{escape(one.cell_class)}</small></td><td>{one.state}</td><td>"
        f"{f'recurs: {one.recurs}' if one.recurs else 'novel'}</td><td>{escape(one.cause)}<br>{escape(one.diagnosis)}</td></tr>"
        for one in reversed(incidents)
    )
    if not rows:
        return ""
    return (
        "<section><h2>Each, the latest first</h2><table class='plain'><thead><tr><th>number</th><th>opened, UTC</th>"
        f"<th>invariant, cell class</th><th>state</th><th>recurrence</th><th>diagnosis</th></tr></thead><tbody>{rows}</tbody>"
        "</table></section>"
    )
