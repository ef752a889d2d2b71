"""The report of the cycle as one self-contained page.

It starts with the verdict and the breach cards with the operator's steps. For each day it shows the positions
by subsystem and venue, with the restarts and disconnects of the session, the order lifelines and the first
breach; then what was carried over each night, and the fresh arm of the same day. The charts are inline SVG,
so the page needs no script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Final

from holdover import __version__
from holdover.catalogue import Catalogue
from holdover.explore.schedule import Schedule
from holdover.explore.timeline import build_timeline
from holdover.harness.cycle import Arm, CycleBreach, CycleResult, DayRun, Lifeline, Point
from holdover.harness.session import Transition
from holdover.model import Instrument
from holdover.recording import RecordingStore
from holdover.report.style import STYLE
from holdover.report.summary import _format_clock, _format_number

_WIDTH: Final = 1000
_MARGIN_LEFT: Final = 92
_MARGIN_RIGHT: Final = 14
_SERIES_CLASSES: Final = {"venue": "v0", "positions": "v1", "risk": "v2", "orders": "v3", "ledger": "v4"}


def cycle_page(result: CycleResult, catalogue: Catalogue, instruments: Mapping[str, Instrument]) -> str:
    """Return the page as HTML."""
    carried, fresh = result.arm("carried"), result.arm("fresh")
    main = carried or fresh
    parts = [_head(result), _side_by_side(result)]
    if result.breaches:
        parts.append("<section><h2>What broke</h2>")
        parts += [_card(cycle_breach, catalogue) for cycle_breach in result.breaches[:4]]
        if len(result.breaches) > 4:
            rest = "".join(
                f"<li>{escape(cycle_breach.day)} {_format_clock(cycle_breach.breach.time_ns)} {escape(cycle_breach.breach.explanation)}</li>"
                for cycle_breach in result.breaches[4:40]
            )
            parts.append(
                f"<details><summary>{len(result.breaches) - 4} more that followed</summary><ul>{rest}</ul></details>"
            )
        parts.append("</section>")
    if main is not None:
        parts.append(f"<section><h2>The sessions, {escape(main.name)} state</h2>{_legend(main)}")
        for number, day in enumerate(main.days):
            fresh_day = (
                fresh.days[number] if fresh is not None and main is carried and number < len(fresh.days) else None
            )
            parts.append(_day(day, main, fresh_day, instruments))
            if main is carried and number < len(main.carried):
                parts.append(_night(main.carried[number], instruments))
        parts.append("</section>")
    parts.append(_divergences(result))
    parts.append(_coverage(result))
    title = f"Holdover: {result.verdict}, {', '.join(result.symbols)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main><footer>Holdover {__version__} · catalogue {result.digest}</footer></body></html>"
    )


def _head(result: CycleResult) -> str:
    words = {
        "holds": "Every invariant held, with yesterday carried along.",
        "breach": "An invariant did not hold. What it touched is frozen.",
        "unknown": "Nothing was recorded that could have been checked.",
    }
    mark = '<span class="tag">simulated recordings</span>' if result.simulated else ""
    faults = "".join(f'<span class="tag fault">fault: {escape(name)}</span>' for name in result.faults)
    return (
        f'<header class="{result.verdict}"><p class="verdict">{result.verdict}</p><div><h1>{escape(result.subject)} on '
        f"{escape(', '.join(result.symbols))}</h1><p>{words[result.verdict]}</p><p class='quiet'>{escape(result.days[0])} "
        f"to {escape(result.days[-1])}, {len(result.days)} trading days · schedule {escape(result.schedule)}, seed "
        f"{result.seed} · {result.invariants} invariants {mark}{faults}</p></div></header>"
    )


def _side_by_side(result: CycleResult) -> str:
    rows: list[tuple[str, Callable[[Arm], str]]] = [
        ("Market events", lambda arm: _format_number(sum(day.market_events for day in arm.days))),
        ("Mutations, each checked", lambda arm: _format_number(sum(day.mutations for day in arm.days))),
        ("Checks", lambda arm: _format_number(sum(day.checks for day in arm.days))),
        ("Executions booked", lambda arm: _format_number(sum(day.fills for day in arm.days))),
        ("Orders", lambda arm: _format_number(sum(day.orders for day in arm.days))),
        (
            "of them partly filled on the way",
            lambda arm: _format_number(sum(d.partially_filled_orders for d in arm.days)),
        ),
        ("Transitions", lambda arm: str(len(arm.transitions))),
        ("Open orders carried over nights", _carried_orders),
        ("Breaches", lambda arm: str(len(arm.breaches))),
        ("Frozen", lambda arm: ", ".join(arm.frozen) or "nothing"),
        ("Left a frozen scope", lambda arm: str(arm.leaked)),
        ("Pages", lambda arm: str(len(arm.pages))),
    ]
    body = "".join(
        f"<tr><th scope='row'>{name}</th>" + "".join(f"<td>{escape(cell(arm))}</td>" for arm in result.arms) + "</tr>"
        for name, cell in rows
    )
    heads = "".join(
        f"<th scope='col'>{escape(arm.name)} state<small>{'yesterday carried along' if arm.name == 'carried' else 'what a fresh-state test sees'}</small></th>"
        for arm in result.arms
    )
    return (
        f"<section><h2>Side by side</h2><table class='arms'><thead><tr><td></td>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table></section>"
    )


def _carried_orders(arm: Arm) -> str:
    if arm.name == "fresh":
        return "nothing is carried"
    nights = arm.carried[:-1] or arm.carried
    return ", ".join(str(night["open_orders"]) for night in nights) or "none"


def _card(cycle_breach: CycleBreach, catalogue: Catalogue) -> str:
    breach = cycle_breach.breach
    entry = catalogue[breach.invariant].entry
    records = "".join(
        f"<tr><th scope='row'>{escape(record.role)}</th><td><code>{escape(record.state)}</code></td></tr>"
        for record in breach.records
    )
    steps = "".join(
        f"<li>{escape(step.step)}<span class='done'>Done when: {escape(step.done_when)}</span></li>"
        for step in entry.response
    )
    last = "".join(
        f"<tr><td>{line['seq']}</td><td>{_format_clock(line['time_ns'])}</td><td>{escape(line['cause'])}</td>"
        f"<td>{escape(line['subsystem'])}</td><td><code>{escape(line['state'])}</code></td></tr>"
        for line in cycle_breach.last[-14:]
    )
    return (
        f"<article class='breach' id='breach-{breach.number}-{escape(cycle_breach.arm)}'><h3>{escape(breach.invariant)}</h3>"
        f"<p class='quiet'>{escape(cycle_breach.arm)} state, {escape(cycle_breach.day)} {_format_clock(breach.time_ns)}, mutation "
        f"{breach.mutation}, during {escape(breach.cause)} · {escape(breach.severity)} · froze <b>{escape(breach.scope)}</b>, "
        f"still allows {escape(', '.join(entry.allows) or 'nothing')}</p>"
        f"<p class='why'>{escape(breach.explanation.partition(': ')[2])}</p>"
        f"<p>State: {escape(breach.state or 'not known')}.</p>"
        f"<div class='two'><div><h4>What must hold</h4><p>{escape(entry.statement)}</p><h4>What it means</h4>"
        f"<p>{escape(entry.implication)}</p></div><div><h4>What to do, in this order</h4><ol>{steps}</ol></div></div>"
        f"<h4>The records</h4><table class='plain'><tbody>{records}</tbody></table>"
        f"<details><summary>The last mutations before it</summary><table class='plain'><tbody>{last}</tbody></table></details>"
        "</article>"
    )


def _legend(arm: Arm) -> str:
    subsystems = list(dict.fromkeys(point.series.rpartition(" ")[2] for day in arm.days for point in day.points))
    series = "".join(
        f'<span class="key {_SERIES_CLASSES.get(subsystem, "v3")}"><i></i>{escape(subsystem)}</span>'
        for subsystem in subsystems
    )
    bands = "".join(
        f'<span class="key band {kind}"><i></i>{name}</span>'
        for kind, name in (("b-disconnect", "disconnected"), ("b-restart", "killed, restarted"), ("b-breach", "breach"))
    )
    return f"<p class='legend'>Net position by {series} {bands}</p>"


def _day(day: DayRun, arm: Arm, fresh_day: DayRun | None, instruments: Mapping[str, Instrument]) -> str:
    keys = list(dict.fromkeys(point.series.rpartition(" ")[0] for point in day.points))
    comparison = ""
    if fresh_day is not None:
        comparison = (
            f"<p class='quiet'>The same day from a fresh state: {_format_number(fresh_day.fills)} executions, "
            f"{_format_number(fresh_day.orders)} orders, {_format_number(fresh_day.mutations)} mutations.</p>"
        )
    charts = "".join(_chart(key, day, arm, instruments) for key in keys)
    lifelines_svg = _lifelines(day.lifelines, day, arm)
    return (
        f"<div class='day'><h3>{escape(day.trade_date)}<small>{_format_number(day.market_events)} market events, "
        f"{_format_number(day.fills)} executions, {_format_number(day.orders)} orders</small></h3>{charts}{lifelines_svg}{comparison}</div>"
    )


def _x(time_ns: int, day: DayRun) -> float:
    share = (time_ns - day.open_ns) / max(day.close_ns - day.open_ns, 1)
    return _MARGIN_LEFT + min(max(share, -0.01), 1.01) * (_WIDTH - _MARGIN_LEFT - _MARGIN_RIGHT)


def _bands(day: DayRun, arm: Arm, height: int) -> str:
    drawn: list[str] = []
    cut: Transition | None = None
    for transition in (t for t in arm.transitions if t.trade_date == day.trade_date):
        if transition.kind == "disconnect":
            cut = transition
        elif transition.kind == "reconnect" and cut is not None:
            x = _x(cut.time_ns, day)
            width = max(_x(transition.time_ns, day) - x, 3)
            drawn.append(
                f"<rect class='b-disconnect' x='{x:.1f}' y='0' width='{width:.1f}' height='{height}'>"
                f"<title>disconnected {_format_clock(cut.time_ns)}, back {_format_clock(transition.time_ns)}, {escape(transition.detail)}</title></rect>"
            )
            cut = None
        elif transition.kind in ("kill", "restart"):
            x = _x(transition.time_ns, day)
            drawn.append(
                f"<rect class='b-restart' x='{x - 1.5:.1f}' y='0' width='3' height='{height}'>"
                f"<title>{escape(transition.kind)} {escape(transition.detail)} {_format_clock(transition.time_ns)}</title></rect>"
            )
    for cycle_breach in [f for f in arm.breaches if f.day == day.trade_date][:1]:
        x = _x(cycle_breach.breach.time_ns, day)
        drawn.append(
            f"<g class='b-breach'><line x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{height}'/>"
            f"<path d='M{x - 6:.1f} 0h12l-6 10z'/><title>{escape(cycle_breach.breach.explanation)}</title></g>"
        )
    return "".join(drawn)


def _hours(day: DayRun, height: int) -> str:
    hour = 3_600_000_000_000
    ticks = range(-(-day.open_ns // hour) * hour, day.close_ns + 1, hour)
    return "".join(
        f"<line class='grid' x1='{_x(at, day):.1f}' x2='{_x(at, day):.1f}' y1='0' y2='{height}'/>"
        f"<text class='tick' x='{_x(at, day):.1f}' y='{height + 13}' text-anchor='middle'>{at // hour % 24:02d}:00</text>"
        for at in ticks
    )


def _chart(key: str, day: DayRun, arm: Arm, instruments: Mapping[str, Instrument]) -> str:
    height = 92
    points = [point for point in day.points if point.series.rpartition(" ")[0] == key]
    low = min(0, *(point.value for point in points), 0)
    high = max(0, *(point.value for point in points), 1)

    def y(value: int) -> float:
        return 6 + (high - value) / max(high - low, 1) * (height - 12)

    lines = []
    for series in dict.fromkeys(point.series for point in points):
        name = series.rpartition(" ")[2]
        path = "".join(_steps([p for p in points if p.series == series], day, y))
        lines.append(f"<path class='line {_SERIES_CLASSES.get(name, 'v3')}' d='{path}'/>")
    instrument = instruments.get(key.rpartition("/")[2])
    top = instrument.quantity_text(high) if instrument else str(high)
    bottom = instrument.quantity_text(low) if instrument else str(low)
    return (
        f"<figure><figcaption>{escape(key)}</figcaption><svg viewBox='0 0 {_WIDTH} {height + 18}' role='img' "
        f"aria-label='net position of {escape(key)} over {escape(day.trade_date)}'>{_hours(day, height)}{_bands(day, arm, height)}"
        f"<text class='axis' x='{_MARGIN_LEFT - 6}' y='12' text-anchor='end'>{escape(top)}</text>"
        f"<text class='axis' x='{_MARGIN_LEFT - 6}' y='{height - 2}' text-anchor='end'>{escape(bottom)}</text>"
        f"<line class='zero' x1='{_MARGIN_LEFT}' x2='{_WIDTH - _MARGIN_RIGHT}' y1='{y(0):.1f}' y2='{y(0):.1f}'/>{''.join(lines)}</svg></figure>"
    )


def _steps(points: list[Point], day: DayRun, y: Callable[[int], float]) -> Iterator[str]:
    last_x = -1.0
    for number, point in enumerate(points):
        x = _x(point.time_ns, day)
        height = y(point.value)
        if number == 0:
            yield f"M{x:.1f} {height:.1f}"
        elif x - last_x >= 0.6 or number == len(points) - 1:
            yield f"H{x:.1f}V{height:.1f}"
        else:
            continue
        last_x = x
    if points:
        yield f"H{_WIDTH - _MARGIN_RIGHT}"


_STATES: Final = {
    "NEW": "s-new",
    "PENDING_NEW": "s-pending",
    "PENDING_CANCEL": "s-pending",
    "PENDING_REPLACE": "s-pending",
    "PARTIALLY_FILLED": "s-partial",
    "FILLED": "s-filled",
    "DONE_FOR_DAY": "s-dfd",
}


def _lifelines(lifelines: list[Lifeline], day: DayRun, arm: Arm) -> str:
    if not lifelines:
        return ""
    row = 15
    height = row * len(lifelines)
    drawn = []
    for number, lifeline in enumerate(lifelines):
        at = number * row + 4
        drawn.append(
            f"<text class='axis' x='{_MARGIN_LEFT - 6}' y='{at + 7}' text-anchor='end'>{escape(_short_name(lifeline))}</text>"
        )
        for index, (time_ns, status, cum, order_qty) in enumerate(lifeline.states):
            x = _x(time_ns, day)
            ends = lifeline.states[index + 1][0] if index + 1 < len(lifeline.states) else None
            closed = status in ("FILLED", "CANCELED", "EXPIRED", "REJECTED")
            to = _x(ends, day) if ends is not None else (x + 5 if closed else _WIDTH - _MARGIN_RIGHT)
            drawn.append(
                f"<rect class='{_STATES.get(status, 's-closed')}' x='{x:.1f}' y='{at}' width='{max(to - x, 1.5):.1f}' "
                f"height='8'><title>{escape(lifeline.cl_ord_id)} {status} {cum}/{order_qty} {_format_clock(time_ns)}</title></rect>"
            )
    keys = "".join(
        f'<span class="key state {css}"><i></i>{name}</span>'
        for css, name in (
            ("s-pending", "pending"),
            ("s-new", "new"),
            ("s-partial", "partly filled"),
            ("s-filled", "filled"),
            ("s-dfd", "done for day, carried"),
            ("s-closed", "cancelled, expired"),
        )
    )
    return (
        f"<figure><figcaption>Order lifelines <span class='legend'>{keys}</span></figcaption><svg viewBox='0 0 {_WIDTH} {height + 16}' "
        f"role='img' aria-label='order lifelines of {escape(day.trade_date)}'>{_hours(day, height)}{_bands(day, arm, height)}"
        f"{''.join(drawn)}</svg></figure>"
    )


def _short_name(lifeline: Lifeline) -> str:
    name, _, rest = lifeline.cl_ord_id.partition(".")
    return f"{name[:5]} {rest.rpartition('-')[2][:5]} {lifeline.time_in_force}"


def _night(carried: Mapping[str, object], instruments: Mapping[str, Instrument]) -> str:
    orders = carried["orders"] if isinstance(carried["orders"], list) else []
    positions = carried["positions"] if isinstance(carried["positions"], dict) else {}
    positions_text = (
        ", ".join(f"{escape(str(key))} {value:+,d}" for key, value in positions.items() if value) or "nothing held"
    )
    listed = "".join(f"<li><code>{escape(str(order))}</code></li>" for order in orders[:8])
    return (
        f"<div class='night'><b>Overnight</b> after {escape(str(carried['after']))}: {carried['open_orders']} open orders "
        f"carried, {carried['partially_filled']} of them partly filled; {positions_text}<ul>{listed}</ul></div>"
    )


def _divergences(result: CycleResult) -> str:
    if not result.divergences:
        return ""
    rows = "".join(
        f"<tr><td>{escape(divergence.day)}</td><td>{_format_clock(divergence.time_ns)}</td><td>{escape(divergence.cause)}</td>"
        f"<td><code>{escape(divergence.carried)}</code></td><td><code>{escape(divergence.fresh)}</code></td></tr>"
        for divergence in result.divergences
    )
    return (
        "<section><h2>Where the arms first part</h2><p>The first mutation of each day that one arm has and the other has "
        "not: from here on the two test different systems.</p><table class='plain'><thead><tr><th>day</th><th>time</th>"
        f"<th>cause</th><th>carried</th><th>fresh</th></tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _coverage(result: CycleResult) -> str:
    arm = result.arms[0] if result.arms else None
    if arm is None:
        return ""
    cells = "".join(
        f"<li class='{'on' if count else 'off'}'><code>{escape(name)}</code><span>{_format_number(count)}</span></li>"
        for name, count in arm.active.items()
    )
    return (
        "<section><h2>How often each invariant had occasion</h2><p>An invariant without occasion has shown nothing yet."
        f"</p><ul class='active'>{cells}</ul></section>"
    )


def timeline_page(schedule: Schedule, store: RecordingStore, directory: Path, catalogue: Catalogue) -> str:
    """Return the page of one schedule, played to its first breach."""
    instruments = {
        recording.symbol: store.get(recording.symbol, recording.trade_date).meta.instrument
        for recording in schedule.recordings
    }
    return cycle_page(build_timeline(schedule, store, directory, catalogue), catalogue, instruments)
