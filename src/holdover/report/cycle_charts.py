"""The charts of the cycle report: positions over a day and the lifelines of orders, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from markupsafe import Markup

from holdover.harness.cycle import Arm, DayRun, Lifeline, Point
from holdover.harness.session import Transition
from holdover.model import Instrument
from holdover.pages import breach_headline, element, format_clock

_WIDTH: Final = 1000
_MARGIN_LEFT: Final = 92
_MARGIN_RIGHT: Final = 14
_HOUR_NS: Final = 3_600_000_000_000
_CHART_HEIGHT: Final = 92
_ROW_HEIGHT: Final = 15
_SERIES_CLASSES: Final = {"venue": "v0", "positions": "v1", "risk": "v2", "orders": "v3", "ledger": "v4"}
_STATUS_CLASSES: Final = {
    "NEW": "s-new",
    "PENDING_NEW": "s-pending",
    "PENDING_CANCEL": "s-pending",
    "PENDING_REPLACE": "s-pending",
    "PARTIALLY_FILLED": "s-partial",
    "FILLED": "s-filled",
    "DONE_FOR_DAY": "s-dfd",
}
_FINAL_STATUSES: Final = ("FILLED", "CANCELED", "EXPIRED", "REJECTED")


def series_keys(arm: Arm) -> list[tuple[str, str]]:
    """Returns the style class and the name of every subsystem whose positions the charts show."""
    subsystems = dict.fromkeys(point.series.rpartition(" ")[2] for day in arm.days for point in day.points)
    return [(_series_class(subsystem), subsystem) for subsystem in subsystems]


def position_charts(day: DayRun, arm: Arm, instruments: Mapping[str, Instrument]) -> list[tuple[str, Markup]]:
    """Returns a title and a chart for each account and instrument that had a position on the day."""
    titles = list(dict.fromkeys(point.series.rpartition(" ")[0] for point in day.points))
    return [(title, _position_chart(title, day, arm, instruments)) for title in titles]


def lifeline_chart(lifelines: list[Lifeline], day: DayRun, arm: Arm) -> Markup:
    """Returns a chart with one row for each order: its statuses over the day."""
    height = _ROW_HEIGHT * len(lifelines)
    rows = [part for index, lifeline in enumerate(lifelines) for part in _lifeline_row(lifeline, day, index)]
    label = f"order lifelines of {day.trade_date}"
    return _svg(height + 16, label, *_hour_lines(day, height), *_bands(day, arm, height), *rows)


def _svg(height: int, label: str, *children: str) -> Markup:
    return element("svg", *children, viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label=label)


def _series_class(subsystem: str) -> str:
    return _SERIES_CLASSES.get(subsystem, "v3")


def _x(time_ns: int, day: DayRun) -> float:
    share = (time_ns - day.open_ns) / max(day.close_ns - day.open_ns, 1)
    return _MARGIN_LEFT + min(max(share, -0.01), 1.01) * (_WIDTH - _MARGIN_LEFT - _MARGIN_RIGHT)


def _hour_lines(day: DayRun, height: int) -> Iterator[Markup]:
    for time_ns in range(-(-day.open_ns // _HOUR_NS) * _HOUR_NS, day.close_ns + 1, _HOUR_NS):
        x = _x(time_ns, day)
        yield element("line", class_="grid", x1=x, x2=x, y1=0, y2=height)
        hour = f"{time_ns // _HOUR_NS % 24:02d}:00"
        yield element("text", hour, class_="tick", x=x, y=height + 13, text_anchor="middle")


def _bands(day: DayRun, arm: Arm, height: int) -> Iterator[Markup]:
    """Yield the disconnects and restarts of the day, and its first breach."""
    cut: Transition | None = None
    for transition in (transition for transition in arm.transitions if transition.trade_date == day.trade_date):
        x, clock = _x(transition.time_ns, day), format_clock(transition.time_ns)
        if transition.kind == "disconnect":
            cut = transition
        elif transition.kind == "reconnect" and cut is not None:
            start = _x(cut.time_ns, day)
            words = f"disconnected {format_clock(cut.time_ns)}, back {clock}, {transition.detail}"
            yield _band("b-disconnect", start, max(x - start, 3.0), height, words)
            cut = None
        elif transition.kind in ("kill", "restart"):
            yield _band("b-restart", x - 1.5, 3.0, height, f"{transition.kind} {transition.detail} {clock}")
    first = next((cycle_breach for cycle_breach in arm.breaches if cycle_breach.day == day.trade_date), None)
    if first is not None:
        x = _x(first.breach.time_ns, day)
        yield element(
            "g",
            element("line", x1=x, x2=x, y1=0, y2=height),
            element("path", d=f"M{x - 6:.1f} 0h12l-6 10z"),
            element("title", f"{first.breach.invariant}: {breach_headline(first.breach)}"),
            class_="b-breach",
        )


def _band(style: str, x: float, width: float, height: int, words: str) -> Markup:
    return element("rect", element("title", words), class_=style, x=x, y=0, width=width, height=height)


def _position_chart(title: str, day: DayRun, arm: Arm, instruments: Mapping[str, Instrument]) -> Markup:
    points = [point for point in day.points if point.series.rpartition(" ")[0] == title]
    low = min(0, *(point.value for point in points), 0)
    high = max(0, *(point.value for point in points), 1)

    def y_of(value: int) -> float:
        return 6 + (high - value) / max(high - low, 1) * (_CHART_HEIGHT - 12)

    lines = [
        element(
            "path",
            class_=f"line {_series_class(series.rpartition(' ')[2])}",
            d="".join(_path_steps([point for point in points if point.series == series], day, y_of)),
        )
        for series in dict.fromkeys(point.series for point in points)
    ]
    instrument = instruments.get(title.rpartition("/")[2])
    top, bottom = (instrument.quantity_text(value) if instrument else str(value) for value in (high, low))
    left, right = _MARGIN_LEFT, _WIDTH - _MARGIN_RIGHT
    return _svg(
        _CHART_HEIGHT + 18,
        f"net position of {title} over {day.trade_date}",
        *_hour_lines(day, _CHART_HEIGHT),
        *_bands(day, arm, _CHART_HEIGHT),
        element("text", top, class_="axis", x=left - 6, y=12, text_anchor="end"),
        element("text", bottom, class_="axis", x=left - 6, y=_CHART_HEIGHT - 2, text_anchor="end"),
        element("line", class_="zero", x1=left, x2=right, y1=y_of(0), y2=y_of(0)),
        *lines,
    )


def _path_steps(points: list[Point], day: DayRun, y_of: Callable[[int], float]) -> Iterator[str]:
    last_x = -1.0
    for index, point in enumerate(points):
        x, y = _x(point.time_ns, day), y_of(point.value)
        if index == 0:
            yield f"M{x:.1f} {y:.1f}"
        elif x - last_x >= 0.6 or index == len(points) - 1:
            yield f"H{x:.1f}V{y:.1f}"
        else:
            continue
        last_x = x
    if points:
        yield f"H{_WIDTH - _MARGIN_RIGHT}"


def _lifeline_row(lifeline: Lifeline, day: DayRun, index: int) -> Iterator[Markup]:
    y = index * _ROW_HEIGHT + 4
    yield element("text", _short_name(lifeline), class_="axis", x=_MARGIN_LEFT - 6, y=y + 7, text_anchor="end")
    ends = [state[0] for state in lifeline.states[1:]] + [None]
    for (time_ns, status, cum_qty, order_qty), end_ns in zip(lifeline.states, ends, strict=True):
        x = _x(time_ns, day)
        right = x + 5 if status in _FINAL_STATUSES else float(_WIDTH - _MARGIN_RIGHT)
        if end_ns is not None:
            right = _x(end_ns, day)
        words = f"{lifeline.cl_ord_id} {_status_words(status)}, {cum_qty:,} of {order_qty:,}, {format_clock(time_ns)}"
        style = _STATUS_CLASSES.get(status, "s-closed")
        yield element("rect", element("title", words), class_=style, x=x, y=y, width=max(right - x, 1.5), height=8)


def _status_words(status: str) -> str:
    return status.replace("_", " ").lower()


def _short_name(lifeline: Lifeline) -> str:
    name, _, rest = lifeline.cl_ord_id.partition(".")
    return f"{name[:5]} {rest.rpartition('-')[2][:5]} {lifeline.time_in_force}"
