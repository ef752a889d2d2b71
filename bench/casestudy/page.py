"""Format the figures as a plain table, as the tables of the docs page, and as two SVG plots."""

# ruff: noqa: E501 - markup reads better in whole elements than cut to a width
from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from casestudy.figures import UNSEEN, Figures, Row, per_fortnight
from casestudy.year import BEFORE, HOLDOVER, Interval
from holdover.runtime.files import write_whole

PUBLISHED: Final = {"rate": 1.0, "ratio": 0.2}
"""The published case: incidents in two weeks before, and the ratio of the rates after to before."""
BEGIN: Final = "<!-- made by `make casestudy` -->"
END: Final = "<!-- end of what it made -->"


def tables(figures: Figures) -> list[tuple[str, list[str], list[list[str]]]]:
    """What there is to say, as tables: a title, the heads, the lines."""
    before, holdover = _row(figures, BEFORE.name), _row(figures, HOLDOVER.name)
    first, second, ratio, low, high = figures.single
    main = [
        [
            "incidents in two weeks, first half",
            "about 1",
            f"{_format_per_fortnight(before.incidents)} (calibrated: an input)",
        ],
        ["incidents in two weeks, second half", "", _format_per_fortnight(holdover.incidents)],
        ["faulty changes that the gate caught, second half", "", _format_percent(holdover.caught)],
        ["rate ratio, second half to first", "about 0.2", _format_interval(holdover.ratio, 2)],
        ["rate ratio, the same changes without and with Holdover", "", _format_interval(holdover.paired, 2)],
        ["rate ratio, all years together", "", f"{holdover.pooled:.2f}"],
        [f"rate ratio of one firm with {first} and {second}, exact interval", "", _format_exact(ratio, low, high)],
        ["share of novel, first half", "", _format_share(before.novel)],
        [
            "share of novel among what remains",
            "mostly",
            f"{_format_share(holdover.novel)}, a year: {_format_interval(figures.novel, 2)}",
        ],
        ["the same, without knowledge of the first half", "", _format_share(figures.novel_alone)],
        ["records to look at, first half", "", _format_interval(before.records)],
        ["records to look at, second half", "fewer", _format_interval(holdover.records)],
        ["trading days from the ship day to the incident, first half", "", _format_interval(before.waited)],
        ["the same, second half", "", _format_interval(holdover.waited)],
        ["messages sent between breach and detection, first half", "", _format_interval(before.sent_after)],
        ["the same, second half", "", _format_interval(holdover.sent_after)],
        ["of what shipped in the first half, detected by nobody in it", "", _format_share(figures.silent)],
    ]
    arms = [
        [
            row.name,
            f"{row.finds} of {row.of}",
            f"{row.mean:.1f}",
            _format_interval(row.incidents),
            _format_interval(row.ratio, 2),
            _format_share(row.novel),
            _format_number(row.records.median),
            _format_number(row.waited.median),
        ]
        for row in figures.rows
    ]
    shares = [
        [words, f"{a_day:.3f}", _format_interval(ratio_of, 2), _format_share(novel)]
        for words, a_day, ratio_of, novel in figures.sensitivity
    ]
    return [
        ("Compared with the published case", ["figure", "published", "here: median (95 % of years)"], main),
        (
            "What each part is worth",
            [
                "half-year",
                "gate finds",
                "incidents, mean",
                "incidents",
                "rate ratio",
                "novel",
                "records",
                "days to find",
            ],
            arms,
        ),
        (
            "If more faults are undetectable",
            ["of the faulty changes", "faulty changes a day (calibrated)", "rate ratio", "novel"],
            shares,
        ),
    ]


def text(figures: Figures) -> str:
    """The tables as a screen of text."""
    parts = []
    for title, heads, lines in tables(figures):
        widths = [max(len(line[place]) for line in [heads, *lines]) for place in range(len(heads))]
        parts.append(title)
        for line in [heads, ["-" * width for width in widths], *lines]:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            parts.append("  " + "  ".join(cells).rstrip())
        parts.append("")
    return "\n".join(parts)


def markdown(figures: Figures) -> str:
    """The tables as a page has them."""
    parts = []
    for title, heads, lines in tables(figures):
        rows = ["| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *lines]]
        parts.append(f"**{title}**\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def write_into_page(path: Path, content: str) -> None:
    """Put what was made between the two marks of a page. Raises `ValueError` when it has not both."""
    page = path.read_text(encoding="utf-8")
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: has no place for the tables; it should have the lines {BEGIN} and {END}")
    write_whole(path, f"{head}{begin}\n\n{content}\n\n{end}{tail}".encode())


def _row(figures: Figures, name: str) -> Row:
    return next(row for row in figures.rows if row.name == name)


def _format_number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _format_interval(interval: Interval, digits: int = 0) -> str:
    if interval.median is None:
        return "–"
    return f"{_format_number(interval.median, digits)} ({_format_number(interval.low, digits)} to {_format_number(interval.high, digits)})"


def _format_per_fortnight(interval: Interval) -> str:
    values = [None if value is None else per_fortnight(value) for value in interval]
    return _format_interval(Interval(*values), 2)


def _format_share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _format_percent(interval: Interval) -> str:
    return _format_interval(Interval(*(None if value is None else value * 100 for value in interval))) + " %"


def _format_exact(ratio: float | None, low: float, high: float | None) -> str:
    return f"{_format_number(ratio, 2)} ({low:.2f} to {'no bound' if high is None else f'{high:.2f}'})"


# -- plots ------------------------------------------------------------------------------------------------------------

_WIDTH: Final = 920
_LEFT_MARGIN: Final = 270
_RIGHT_MARGIN: Final = 70
_RATIO_TOP: Final = 2.6
_STYLE: Final = """<style>
text{font:14px system-ui,sans-serif;fill:#1c2430}.title{font-size:17px;font-weight:600}.quiet{fill:#5a6675;font-size:13px}
.range{stroke:#2b6cb0;stroke-width:3}.dot{fill:#2b6cb0}.ours{fill:#0b3d6e}.published{stroke:#b7410e;stroke-width:2;
stroke-dasharray:6 4}.said{fill:#b7410e;font-size:13px}.grid{stroke:#e2e6eb}.novel{fill:#2b6cb0}.again{fill:#d98a3d}
</style>"""


def _svg(height: int, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">{_STYLE}<rect width="{_WIDTH}" height="{height}" fill="#fff"/>'
        f'<text class="title" x="16" y="28">{escape(title)}</text>{"".join(body)}</svg>\n'
    )


def ratio_plot(figures: Figures) -> str:
    """The rate ratio of each arm with its interval over years, and the published one as a line.

    What lies beyond the axis is cut off there, and its end is written.
    """
    rows = [row for row in figures.rows if row.name != BEFORE.name and row.ratio.median is not None]
    top = min(max(1.2, *(row.ratio.high or 0 for row in rows)), _RATIO_TOP)
    bottom = 62 + 34 * len(rows)

    def x(value: float) -> float:
        return _LEFT_MARGIN + min(value, top) / top * (_WIDTH - _LEFT_MARGIN - _RIGHT_MARGIN - 60)

    body = []
    step = 0.2 if top <= 2.4 else 0.5
    for index in range(int(top / step) + 1):
        at = x(index * step)
        body.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="52" y2="{bottom - 10}"/>')
        body.append(f'<text class="quiet" x="{at:.1f}" y="{bottom + 8}" text-anchor="middle">{index * step:.1f}</text>')
    at = x(PUBLISHED["ratio"])
    body.append(f'<line class="published" x1="{at:.1f}" x2="{at:.1f}" y1="46" y2="{bottom - 10}"/>')
    body.append(f'<text class="said" x="{at + 6:.1f}" y="49">published: about {PUBLISHED["ratio"]:g}</text>')
    for index, row in enumerate(rows):
        y = 74 + 34 * index
        low, mid, high = row.ratio.low or 0.0, row.ratio.median or 0.0, row.ratio.high or 0.0
        beyond = f", up to {high:.1f} →" if high > top else ""
        css = "dot ours" if row.name == HOLDOVER.name else "dot"
        name = "nothing changed" if row.name == "the same, second half" else row.name
        body.append(f'<text x="{_LEFT_MARGIN - 14}" y="{y + 5}" text-anchor="end">{escape(name)}</text>')
        body.append(f'<line class="range" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>')
        body.append(f'<circle class="{css}" cx="{x(mid):.1f}" cy="{y}" r="6"/>')
        body.append(f'<text class="quiet" x="{x(high) + 10:.1f}" y="{y + 5}">{mid:.2f}{beyond}</text>')
    words = f"median and 95 % of {figures.years} years; {UNSEEN:.0%} of the faulty changes can be seen by nothing here"
    body.append(f'<text class="quiet" x="{_LEFT_MARGIN}" y="{bottom + 30}">{escape(words)}</text>')
    return _svg(bottom + 44, "Incidents of the second half-year over those of the first", body)


def novel_plot(figures: Figures) -> str:
    """Incidents of a half-year on average, novel and recurrent."""
    top = max(row.mean for row in figures.rows) * 1.05
    bottom = 62 + 34 * len(figures.rows)

    def x(value: float) -> float:
        return _LEFT_MARGIN + value / top * (_WIDTH - _LEFT_MARGIN - _RIGHT_MARGIN)

    body = [
        f'<rect class="novel" x="{_LEFT_MARGIN}" y="38" width="12" height="12"/><text class="quiet" x="{_LEFT_MARGIN + 18}" y="49">novel</text>',
        f'<rect class="again" x="{_LEFT_MARGIN + 80}" y="38" width="12" height="12"/><text class="quiet" x="{_LEFT_MARGIN + 98}" y="49">'
        "recurrent: the same invariant and cell class had been resolved before</text>",
    ]
    for index, row in enumerate(figures.rows):
        y = 62 + 34 * index
        name = {BEFORE.name: "first half-year", "the same, second half": "nothing changed"}.get(row.name, row.name)
        body.append(f'<text x="{_LEFT_MARGIN - 14}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        body.append(
            f'<rect class="novel" x="{_LEFT_MARGIN}" y="{y}" width="{x(row.mean_novel) - _LEFT_MARGIN:.1f}" height="22"/>'
            f'<rect class="again" x="{x(row.mean_novel):.1f}" y="{y}" width="{x(row.mean) - x(row.mean_novel):.1f}" height="22"/>'
        )
        label = f"{row.mean:.1f}, {_format_share(row.novel)} novel"
        inside = x(row.mean) > _WIDTH - 150
        anchor = f'x="{x(row.mean) - 8:.1f}" text-anchor="end"' if inside else f'x="{x(row.mean) + 8:.1f}"'
        body.append(f'<text {anchor} y="{y + 16}">{label}</text>')
    words = f"mean of {figures.years} years; published: about 13 before, about a fifth of that after, and mostly novel"
    body.append(f'<text class="said" x="{_LEFT_MARGIN}" y="{bottom + 12}">{escape(words)}</text>')
    return _svg(bottom + 28, "Incidents in a half-year, novel and recurrent", body)


__all__ = ["BEGIN", "END", "PUBLISHED", "write_into_page", "markdown", "novel_plot", "ratio_plot", "tables", "text"]
