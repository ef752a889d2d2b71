"""The cycle's report: one self-contained page.

The verdict first; then, a day at a time, position by subsystem and venue over the session's bands (restarts,
disconnects), the lives of orders, the breach where it happened; the breach card with the operator's steps; what was
carried over each night; the fresh arm beside it all. Drawn as SVG here, so that it needs no script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Final

from holdover import __version__
from holdover.catalogue import Catalogue
from holdover.explore.schedule import Schedule
from holdover.explore.timeline import timeline
from holdover.harness.cycle import Arm, DayRun, Found, Lifeline, Point, Result
from holdover.harness.session import Transition
from holdover.model import Instrument
from holdover.recording import RecordingStore
from holdover.report.style import STYLE
from holdover.report.summary import _clock, _number

_W: Final = 1000
_LEFT: Final = 92
_RIGHT: Final = 14
_COLOURS: Final = {"venue": "v0", "positions": "v1", "risk": "v2", "orders": "v3", "ledger": "v4"}


def cycle_page(result: Result, catalogue: Catalogue, instruments: Mapping[str, Instrument]) -> str:
    """The page as HTML."""
    carried, fresh = result.arm("carried"), result.arm("fresh")
    main = carried or fresh
    parts = [_head(result), _side_by_side(result)]
    if result.breaches:
        parts.append("<section><h2>What broke</h2>")
        parts += [_card(found, catalogue) for found in result.breaches[:4]]
        if len(result.breaches) > 4:
            rest = "".join(
                f"<li>{escape(found.day)} {_clock(found.breach.time_ns)} {escape(found.breach.explanation)}</li>"
                for found in result.breaches[4:40]
            )
            parts.append(
                f"<details><summary>{len(result.breaches) - 4} more that followed</summary><ul>{rest}</ul></details>"
            )
        parts.append("</section>")
    if main is not None:
        parts.append(f"<section><h2>The sessions, {escape(main.name)} state</h2>{_legend(main)}")
        for number, day in enumerate(main.days):
            other = fresh.days[number] if fresh is not None and main is carried and number < len(fresh.days) else None
            parts.append(_day(day, main, other, instruments))
            if main is carried and number < len(main.carried):
                parts.append(_night(main.carried[number], instruments))
        parts.append("</section>")
    parts.append(_parting(result))
    parts.append(_coverage(result))
    title = f"Holdover: {result.verdict}, {', '.join(result.symbols)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main><footer>Holdover {__version__} · catalogue {result.digest}</footer></body></html>"
    )


def _head(result: Result) -> str:
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


def _side_by_side(result: Result) -> str:
    rows: list[tuple[str, Callable[[Arm], str]]] = [
        ("Market events", lambda arm: _number(sum(day.market_events for day in arm.days))),
        ("Mutations, each checked", lambda arm: _number(sum(day.mutations for day in arm.days))),
        ("Checks", lambda arm: _number(sum(day.checks for day in arm.days))),
        ("Executions booked", lambda arm: _number(sum(day.fills for day in arm.days))),
        ("Orders", lambda arm: _number(sum(day.orders for day in arm.days))),
        ("of them partly filled on the way", lambda arm: _number(sum(d.partially_filled_orders for d in arm.days))),
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


def _card(found: Found, catalogue: Catalogue) -> str:
    breach = found.breach
    entry = catalogue[breach.invariant].entry
    records = "".join(
        f"<tr><th scope='row'>{escape(one.role)}</th><td><code>{escape(one.state)}</code></td></tr>"
        for one in breach.records
    )
    steps = "".join(
        f"<li>{escape(step.step)}<span class='done'>Done when: {escape(step.done_when)}</span></li>"
        for step in entry.response
    )
    last = "".join(
        f"<tr><td>{line['seq']}</td><td>{_clock(line['time_ns'])}</td><td>{escape(line['cause'])}</td>"
        f"<td>{escape(line['subsystem'])}</td><td><code>{escape(line['state'])}</code></td></tr>"
        for line in found.last[-14:]
    )
    return (
        f"<article class='breach' id='breach-{breach.number}-{escape(found.arm)}'><h3>{escape(breach.invariant)}</h3>"
        f"<p class='quiet'>{escape(found.arm)} state, {escape(found.day)} {_clock(breach.time_ns)}, mutation "
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
    seen = list(dict.fromkeys(point.series.rpartition(" ")[2] for day in arm.days for point in day.points))
    series = "".join(f'<span class="key {_COLOURS.get(one, "v3")}"><i></i>{escape(one)}</span>' for one in seen)
    bands = "".join(
        f'<span class="key band {kind}"><i></i>{name}</span>'
        for kind, name in (("b-disconnect", "disconnected"), ("b-restart", "killed, restarted"), ("b-breach", "breach"))
    )
    return f"<p class='legend'>Net position by {series} {bands}</p>"


def _day(day: DayRun, arm: Arm, other: DayRun | None, instruments: Mapping[str, Instrument]) -> str:
    keys = list(dict.fromkeys(point.series.rpartition(" ")[0] for point in day.points))
    beside = ""
    if other is not None:
        beside = (
            f"<p class='quiet'>The same day from a fresh state: {_number(other.fills)} executions, "
            f"{_number(other.orders)} orders, {_number(other.mutations)} mutations.</p>"
        )
    charts = "".join(_chart(key, day, arm, instruments) for key in keys)
    lives = _lifelines(day.lifelines, day, arm)
    return (
        f"<div class='day'><h3>{escape(day.trade_date)}<small>{_number(day.market_events)} market events, "
        f"{_number(day.fills)} executions, {_number(day.orders)} orders</small></h3>{charts}{lives}{beside}</div>"
    )


def _x(time_ns: int, day: DayRun) -> float:
    share = (time_ns - day.open_ns) / max(day.close_ns - day.open_ns, 1)
    return _LEFT + min(max(share, -0.01), 1.01) * (_W - _LEFT - _RIGHT)


def _bands(day: DayRun, arm: Arm, height: int) -> str:
    drawn: list[str] = []
    cut: Transition | None = None
    for one in (t for t in arm.transitions if t.trade_date == day.trade_date):
        if one.what == "disconnect":
            cut = one
        elif one.what == "reconnect" and cut is not None:
            x = _x(cut.time_ns, day)
            width = max(_x(one.time_ns, day) - x, 3)
            drawn.append(
                f"<rect class='b-disconnect' x='{x:.1f}' y='0' width='{width:.1f}' height='{height}'>"
                f"<title>disconnected {_clock(cut.time_ns)}, back {_clock(one.time_ns)}, {escape(one.detail)}</title></rect>"
            )
            cut = None
        elif one.what in ("kill", "restart"):
            x = _x(one.time_ns, day)
            drawn.append(
                f"<rect class='b-restart' x='{x - 1.5:.1f}' y='0' width='3' height='{height}'>"
                f"<title>{escape(one.what)} {escape(one.detail)} {_clock(one.time_ns)}</title></rect>"
            )
    for found in [f for f in arm.breaches if f.day == day.trade_date][:1]:
        x = _x(found.breach.time_ns, day)
        drawn.append(
            f"<g class='b-breach'><line x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{height}'/>"
            f"<path d='M{x - 6:.1f} 0h12l-6 10z'/><title>{escape(found.breach.explanation)}</title></g>"
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
        lines.append(f"<path class='line {_COLOURS.get(name, 'v3')}' d='{path}'/>")
    instrument = instruments.get(key.rpartition("/")[2])
    top = instrument.quantity_text(high) if instrument else str(high)
    bottom = instrument.quantity_text(low) if instrument else str(low)
    return (
        f"<figure><figcaption>{escape(key)}</figcaption><svg viewBox='0 0 {_W} {height + 18}' role='img' "
        f"aria-label='net position of {escape(key)} over {escape(day.trade_date)}'>{_hours(day, height)}{_bands(day, arm, height)}"
        f"<text class='axis' x='{_LEFT - 6}' y='12' text-anchor='end'>{escape(top)}</text>"
        f"<text class='axis' x='{_LEFT - 6}' y='{height - 2}' text-anchor='end'>{escape(bottom)}</text>"
        f"<line class='zero' x1='{_LEFT}' x2='{_W - _RIGHT}' y1='{y(0):.1f}' y2='{y(0):.1f}'/>{''.join(lines)}</svg></figure>"
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
        yield f"H{_W - _RIGHT}"


_STATES: Final = {
    "NEW": "s-new",
    "PENDING_NEW": "s-pending",
    "PENDING_CANCEL": "s-pending",
    "PENDING_REPLACE": "s-pending",
    "PARTIALLY_FILLED": "s-partial",
    "FILLED": "s-filled",
    "DONE_FOR_DAY": "s-dfd",
}


def _lifelines(lives: list[Lifeline], day: DayRun, arm: Arm) -> str:
    if not lives:
        return ""
    row = 15
    height = row * len(lives)
    drawn = []
    for number, life in enumerate(lives):
        at = number * row + 4
        drawn.append(
            f"<text class='axis' x='{_LEFT - 6}' y='{at + 7}' text-anchor='end'>{escape(_shortened(life))}</text>"
        )
        for place, (time_ns, status, cum, order_qty) in enumerate(life.states):
            x = _x(time_ns, day)
            ends = life.states[place + 1][0] if place + 1 < len(life.states) else None
            closed = status in ("FILLED", "CANCELED", "EXPIRED", "REJECTED")
            to = _x(ends, day) if ends is not None else (x + 5 if closed else _W - _RIGHT)
            drawn.append(
                f"<rect class='{_STATES.get(status, 's-closed')}' x='{x:.1f}' y='{at}' width='{max(to - x, 1.5):.1f}' "
                f"height='8'><title>{escape(life.cl_ord_id)} {status} {cum}/{order_qty} {_clock(time_ns)}</title></rect>"
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
        f"<figure><figcaption>Order lifelines <span class='legend'>{keys}</span></figcaption><svg viewBox='0 0 {_W} {height + 16}' "
        f"role='img' aria-label='order lifelines of {escape(day.trade_date)}'>{_hours(day, height)}{_bands(day, arm, height)}"
        f"{''.join(drawn)}</svg></figure>"
    )


def _shortened(life: Lifeline) -> str:
    name, _, rest = life.cl_ord_id.partition(".")
    return f"{name[:5]} {rest.rpartition('-')[2][:5]} {life.time_in_force}"


def _night(carried: Mapping[str, object], instruments: Mapping[str, Instrument]) -> str:
    orders = carried["orders"] if isinstance(carried["orders"], list) else []
    positions = carried["positions"] if isinstance(carried["positions"], dict) else {}
    held = ", ".join(f"{escape(str(key))} {value:+,d}" for key, value in positions.items() if value) or "nothing held"
    listed = "".join(f"<li><code>{escape(str(order))}</code></li>" for order in orders[:8])
    return (
        f"<div class='night'><b>Overnight</b> after {escape(str(carried['after']))}: {carried['open_orders']} open orders "
        f"carried, {carried['partially_filled']} of them partly filled; {held}<ul>{listed}</ul></div>"
    )


def _parting(result: Result) -> str:
    if not result.divergences:
        return ""
    rows = "".join(
        f"<tr><td>{escape(one.day)}</td><td>{_clock(one.time_ns)}</td><td>{escape(one.cause)}</td>"
        f"<td><code>{escape(one.carried)}</code></td><td><code>{escape(one.fresh)}</code></td></tr>"
        for one in result.divergences
    )
    return (
        "<section><h2>Where the arms first part</h2><p>The first mutation of each day that one arm has and the other has "
        "not: from here on the two test different systems.</p><table class='plain'><thead><tr><th>day</th><th>time</th>"
        f"<th>cause</th><th>carried</th><th>fresh</th></tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _coverage(result: Result) -> str:
    arm = result.arms[0] if result.arms else None
    if arm is None:
        return ""
    cells = "".join(
        f"<li class='{'on' if count else 'off'}'><code>{escape(name)}</code><span>{_number(count)}</span></li>"
        for name, count in arm.active.items()
    )
    return (
        "<section><h2>How often each invariant had occasion</h2><p>An invariant without occasion has shown nothing yet."
        f"</p><ul class='active'>{cells}</ul></section>"
    )


def timeline_page(schedule: Schedule, store: RecordingStore, place: Path, catalogue: Catalogue) -> str:
    """The page of one schedule, played up to its first breach."""
    instruments = {one.symbol: store.get(one.symbol, one.trade_date).meta.instrument for one in schedule.recordings}
    return cycle_page(timeline(schedule, store, place, catalogue), catalogue, instruments)
