"""The charts of the incident report as inline SVG: incidents by two weeks, rates with intervals, durations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from markupsafe import Markup

from holdover.incidents.figures import FORTNIGHT_NS, IncidentFigures, Rate
from holdover.incidents.words import STEP_WORDS, date_text, duration_text, rate_text
from holdover.pages import element

_WIDTH: Final = 1000
_MARGIN_LEFT: Final = 106
_MARGIN_RIGHT: Final = 14
_BARS_HEIGHT: Final = 150
_LABELS_MAX: Final = 10
_TICKS_S: Final = (1, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000)


def fortnight_chart(figures: IncidentFigures) -> Markup:
    """Returns the incidents of every two weeks, novel below and recurrent on top, and the dividing date as a line."""
    counts = _count_by_fortnight(figures)
    height, top = _BARS_HEIGHT, max(1, max(novel + recurrent for novel, recurrent in counts))
    width = (_WIDTH - _MARGIN_LEFT - _MARGIN_RIGHT) / len(counts)
    elements = [
        element("text", str(top), class_="axis", x=_MARGIN_LEFT - 8, y=14, text_anchor="end"),
        element("text", "0", class_="axis", x=_MARGIN_LEFT - 8, y=height, text_anchor="end"),
        element("line", class_="zero", x1=_MARGIN_LEFT, x2=_WIDTH - _MARGIN_RIGHT, y1=height, y2=height),
    ]
    for index, (novel, recurrent) in enumerate(counts):
        x, start = _MARGIN_LEFT + index * width, date_text(figures.since_ns + index * FORTNIGHT_NS)
        words = f"two weeks from {start}: {novel} novel, {recurrent} recurrent"
        elements += _bar(x, width, height, (height - 8) * novel / top, "bar-novel", words)
        middle = height - (height - 8) * novel / top
        elements += _bar(x, width, middle, (height - 8) * recurrent / top, "bar-recurrent", words)
        if index % max(1, -(-len(counts) // _LABELS_MAX)) == 0:
            elements.append(element("text", start, class_="tick", x=x, y=height + 15))
    if figures.at_ns is not None:
        x = _MARGIN_LEFT + (figures.at_ns - figures.since_ns) / FORTNIGHT_NS * width
        elements.append(element("line", class_="divider", x1=x, x2=x, y1=0, y2=height))
        elements.append(element("text", date_text(figures.at_ns), class_="axis", x=x + 5, y=11))
    return _svg(height + 20, "incidents by two weeks", *elements)


def rates_chart(before: Rate, after: Rate) -> Markup:
    """Returns the rates before and after a date, each a dot on its interval."""
    top = max(before.high, after.high)
    rows = [*_rate_row("before", before, top, 22), *_rate_row("after", after, top, 56)]
    return _svg(76, "rates before and after", *rows)


def durations_chart(figures: IncidentFigures) -> Markup | None:
    """Returns a dot for each incident on a logarithmic axis, with the medians as strokes; None without incidents."""
    durations_s = [max(value, 1.0) for stats in figures.lasted.values() for value in stats.values_s]
    if not durations_s:
        return None
    low, high = math.log(min(durations_s)), math.log(max(durations_s) * 1.01)

    def x_of(seconds: float) -> float:
        share = (math.log(max(seconds, 1.0)) - low) / max(high - low, 1e-9)
        return _MARGIN_LEFT + 8 + share * (_WIDTH - _MARGIN_LEFT - _MARGIN_RIGHT - 16)

    elements = []
    for index, (name, stats) in enumerate(figures.lasted.items()):
        y = 16 + index * 30
        elements.append(_row_label(STEP_WORDS[name], y))
        elements += [element("circle", class_="dot", cx=x_of(value), cy=y, r=4) for value in stats.values_s]
        if stats.median is not None:
            x = x_of(stats.median)
            elements.append(element("line", class_="median", x1=x, x2=x, y1=y - 11, y2=y + 11))
    elements += [
        element("text", duration_text(tick_s), class_="tick", x=x_of(tick_s), y=100, text_anchor="middle")
        for tick_s in _TICKS_S
        if low <= math.log(tick_s) <= high
    ]
    return _svg(106, "durations of the incidents", *elements)


def _svg(height: int, label: str, *children: str) -> Markup:
    return element("svg", *children, viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label=label)


def _count_by_fortnight(figures: IncidentFigures) -> list[list[int]]:
    """Return [novel, recurrent] of each two weeks."""
    counts = [[0, 0] for _ in range(max(1, math.ceil((figures.until_ns - figures.since_ns) / FORTNIGHT_NS)))]
    for incident in figures.incidents:
        counts[(incident.opened_ns - figures.since_ns) // FORTNIGHT_NS][1 if incident.recurs else 0] += 1
    return counts


def _bar(x: float, width: float, bottom: float, height: float, style: str, words: str) -> Iterator[Markup]:
    gap = min(2.0, width / 6)
    if height > 0:
        title = element("title", words)
        yield element(
            "rect", title, class_=style, x=x + gap, y=bottom - height, width=width - 2 * gap, height=float(height)
        )


def _row_label(words: str, y: int) -> Markup:
    return element("text", words, class_="label", x=_MARGIN_LEFT - 10, y=y + 4, text_anchor="end")


def _rate_row(name: str, rate: Rate, top: float, y: int) -> Iterator[Markup]:
    values = (rate.low, rate.rate, rate.high)
    low, middle, high = (_MARGIN_LEFT + value / top * (_WIDTH - _MARGIN_LEFT - 60) for value in values)
    yield _row_label(name, y)
    yield element("line", class_="range", x1=low, x2=high, y1=y, y2=y)
    yield element("circle", element("title", rate_text(rate)), class_="dot", cx=middle, cy=y, r=6)
    for x, value in zip((low, middle, high), values, strict=True):
        yield element("text", f"{value:.2f}", class_="tick", x=x, y=y - 8, text_anchor="middle")
