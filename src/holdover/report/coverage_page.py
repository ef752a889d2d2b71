"""The state map: a matrix of cells by transitions, on one page without scripts and without external resources.

Each cell links to its own panel, which the style sheet shows when it is the target of the page. The panel of
a covered cell shows the shortest path; that of a missing one shows the nearest covered cell and the
differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from html import escape
from typing import Final

from holdover.coverage.data import WitnessedCount
from holdover.coverage.numbers import Cell, CoverageNumbers, CoverageRatio, possible_pairs
from holdover.report.style import STYLE
from holdover.runtime.cells import TRANSITIONS

_STYLE: Final = """
main{max-width:1240px}.cards{display:grid;grid-template-columns:repeat(4,1fr);gap:14px;margin:18px 0}
@media (max-width:760px){.cards{grid-template-columns:1fr 1fr}}
.card{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:12px 16px}.card b{display:block;font-size:28px;
font-variant-numeric:tabular-nums;line-height:1.25}.card span{color:var(--quiet);font-size:13px;display:block}
.bar{height:7px;background:var(--rule);border-radius:4px;overflow:hidden;margin-top:8px}.bar i{display:block;height:100%;background:var(--ok)}
.scroll{overflow:auto;max-height:78vh;border:1px solid var(--rule);border-radius:6px}
.map{font-size:12.5px;border-collapse:separate;border-spacing:0}.map th,.map td{padding:0;border:0;border-bottom:1px solid var(--rule)}
.map thead th{position:sticky;top:0;background:var(--card);z-index:2;vertical-align:bottom;padding:8px 4px;border-bottom:2px solid var(--rule)}
.map thead th.t{height:184px;min-width:34px}.map thead th.t div{writing-mode:vertical-rl;transform:rotate(180deg);font-weight:600;
white-space:nowrap}.map tbody th{font-weight:400;padding:3px 8px;white-space:nowrap}
.map tbody th.zero{color:var(--quiet)}.map tbody tr:hover th,.map tbody tr:hover td{background:color-mix(in srgb,var(--fg) 6%,transparent)}
.map a{display:block;height:25px;line-height:25px;margin:1px;text-align:center;border-radius:3px;text-decoration:none;color:inherit;
font-variant-numeric:tabular-nums;font-size:11px}.map a:focus-visible{outline:3px solid var(--v1);outline-offset:0}
.covered{background:color-mix(in srgb,var(--ok) 72%,var(--card));color:#fff!important}.missing{background:color-mix(in srgb,var(--rule) 55%,transparent);
color:var(--quiet)!important}.production{background:var(--bad);color:#fff!important;font-weight:700}.waived{background:var(--odd);color:#fff!important}
@media (prefers-color-scheme:dark){.covered,.production,.waived{color:#0d1013!important}}
.infeasible{display:block;height:25px;margin:1px;border-radius:3px;background:repeating-linear-gradient(135deg,transparent 0 4px,var(--rule) 4px 5px)}
.legend .covered,.legend .missing,.legend .production,.legend .waived,.legend .infeasible{display:inline-block;width:26px;height:18px;
line-height:18px;text-align:center;border-radius:3px;font-size:11px;margin:0 6px 0 14px;vertical-align:middle}
.place{display:none;position:fixed;right:18px;bottom:18px;width:min(560px,calc(100vw - 36px));max-height:72vh;overflow:auto;z-index:9;
background:var(--card);border:1px solid var(--quiet);border-radius:8px;padding:12px 20px 16px;box-shadow:0 8px 40px rgba(0,0,0,.35)}
.place:target{display:block}.place h3{margin:4px 30px 6px 0}.place .shut{position:absolute;right:14px;top:10px;text-decoration:none;
color:var(--quiet);font-size:20px;padding:0 6px}.place ul{margin:4px 0;padding-left:18px}.place .differs{color:var(--odd)}
.pairs a,.pairs span{height:20px;line-height:20px;margin:1px;display:block;border-radius:3px;text-align:center;font-size:11px}
.lines td,.lines thead th{text-align:right}.lines tbody th{font-weight:400;text-align:left}.wrong{color:var(--bad);font-weight:600}
@media print{.scroll{max-height:none;overflow:visible;border:0}.place{display:none!important}.map thead th{position:static}
.covered,.production,.waived,.missing,.infeasible,.bar i{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def coverage_page(numbers: CoverageNumbers, today: date) -> str:
    """Return the state map as HTML; `today` decides which waivers are valid."""
    page = _CoveragePage(numbers, today)
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1"><title>State map</title>',
            f"<style>{STYLE}{_STYLE}</style></head><body><main>",
            page.head(),
            page.cards(),
            page.lines(),
            page.map(),
            page.pairs(),
            page.gap(),
            page.invariants(),
            page.fields(),
            page.rules(),
            "</main>",
            page.places(),
            f"<footer>Catalogue {escape(numbers.data.catalogue)}; judged by {today.isoformat()}</footer></body></html>\n",
        ]
    )


class _CoveragePage:
    """Builds the page."""

    def __init__(self, numbers: CoverageNumbers, today: date) -> None:
        self.numbers, self.today, self.product = numbers, today, numbers.product
        self.rows = [cell for cell in self.product.cells if self.product.forbidding_rule(cell) is None]
        self.labels = list(TRANSITIONS)
        self.feasible = {line.label: set(line.feasible) for line in numbers.lines}
        self.covered = {line.label: line.covered for line in numbers.lines}
        self.gaps = {gap.name: gap for gap in numbers.carry_gaps}
        self.open = {gap.name for gap in numbers.unwaived_gaps(today)[0]}
        self.number = {cell: row for row, cell in enumerate(self.rows)}

    # -- above the map ------------------------------------------------------------------------------------------

    def head(self) -> str:
        wrong = "".join(f"<p class='wrong'>{escape(str(violation))}</p>" for violation in self.numbers.rule_violations)
        return (
            "<header id='map-top'><div><h1>State map</h1><p>In which states has each lifecycle transition found the "
            "system? A row is a state, a column a transition.</p></div></header>" + wrong
        )

    def cards(self) -> str:
        numbers = self.numbers
        if numbers.profile is None:
            carry = (
                "<div class='card'><span>C3 carry gap</span><b>–</b><span>no profile of production given</span></div>"
            )
        else:
            waived = len(numbers.carry_gaps) - len(self.open)
            text = f"seen in production, in no test{f'; {waived} waived' if waived else ''}"
            carry = f"<div class='card'><span>C3 carry gap</span><b>{len(self.open)}</b><span>{text}</span></div>"
        return (
            "<div class='cards'>"
            + _card("C1 cell × transition", numbers.c1, "places covered")
            + _card("Pairs of transitions", numbers.pairs, "seen one right after the other")
            + _card("C2 checked state", numbers.c2, "fields written that an invariant reads")
            + carry
            + "</div>"
        )

    def lines(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(TRANSITIONS[line.label])} <code>{line.label}</code></th><td>{line.ratio.total}</td>"
            f"<td>{line.ratio.total - line.ratio.covered}</td><td>{line.ratio}</td></tr>"
            for line in self.numbers.lines_worst_first()
        )
        return (
            "<section><h2>Worst first</h2><table class='lines'><thead><tr><th></th><th>Cells</th><th>Missing</th>"
            f"<th>Cover</th></tr></thead><tbody>{rows}</tbody></table></section>"
        )

    # -- the map ------------------------------------------------------------------------------------------------

    def map(self) -> str:
        heads = "".join(f"<th scope='col'>{escape(axis.title)}</th>" for axis in self.product.axes)
        heads += "".join(
            f"<th scope='col' class='t' title='{escape(TRANSITIONS[label], quote=True)}'><div>{label}</div></th>"
            for label in self.labels
        )
        rows = "".join(self._row(cell) for cell in self.rows)
        hidden = len(self.product.cells) - len(self.rows)
        return (
            f"<section id='map'><h2>The map</h2>{_LEGEND}"
            f"<div class='scroll'><table class='map'><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
            f"<p class='quiet'>{len(self.rows)} states; {hidden} more are infeasible at every transition, by the rules "
            f"below.</p></section>"
        )

    def _row(self, cell: Cell) -> str:
        heads = "".join(
            f"<th scope='row'{' class=zero' if value == axis.values[0] else ''} "
            f"title='{escape(axis.words[axis.values.index(value)], quote=True)}'>{escape(value)}</th>"
            for axis, value in zip(self.product.axes, cell, strict=True)
        )
        return f"<tr>{heads}{''.join(self._place(cell, label) for label in self.labels)}</tr>"

    def _place(self, cell: Cell, label: str) -> str:
        kind, sign = self._place_kind(cell, label)
        if kind == "infeasible":
            return "<td><span class='infeasible' title='infeasible'></span></td>"
        aria_label = escape(f"{label}: {kind}", quote=True)
        return f"<td><a class='{kind}' href='#{self._id(cell, label)}' aria-label='{aria_label}'>{sign}</a></td>"

    def _place_kind(self, cell: Cell, label: str) -> tuple[str, str]:
        tally = self.covered[label].get(cell)
        if tally is not None:
            return "covered", _short_count(tally.count)
        name = self.product.place_name(cell, label)
        if name in self.gaps:
            return ("production", "!") if name in self.open else ("waived", "w")
        return ("missing", "·") if cell in self.feasible[label] else ("infeasible", "")

    def _id(self, cell: Cell, label: str) -> str:
        return f"p{self.number[cell]}-{self.labels.index(label)}"

    # -- the panels ---------------------------------------------------------------------------------------------

    def places(self) -> str:
        return "".join(self._panel(cell, label) for cell in self.rows for label in self.labels)

    def _panel(self, cell: Cell, label: str) -> str:
        kind, _ = self._place_kind(cell, label)
        if kind == "infeasible":
            return ""
        words = "".join(f"<li>{escape(phrase)}</li>" for phrase in self.product.describe(cell).split("; "))
        body = (
            self._covered_panel(self.covered[label][cell])
            if kind == "covered"
            else self._missing_panel(cell, label, kind)
        )
        return (
            f"<section class='place' id='{self._id(cell, label)}' role='dialog'><a class='shut' href='#map' "
            f"aria-label='close'>×</a><h3>{escape(TRANSITIONS[label])} <code>{label}</code></h3><ul>{words}</ul>{body}</section>"
        )

    def _covered_panel(self, tally: WitnessedCount) -> str:
        witness = tally.witness
        times = "once" if tally.count == 1 else f"{tally.count:,} times"
        return (
            f"<p>Covered {times}. The shortest way takes {witness.length} "
            f"transition{'' if witness.length == 1 else 's'}:<br><code>{escape(witness.source)}</code></p>{_path(witness.path)}"
        )

    def _missing_panel(self, cell: Cell, label: str, kind: str) -> str:
        gap = self.gaps.get(self.product.place_name(cell, label))
        text = "<p>Never exercised.</p>"
        if gap is not None:
            state = "Waived" if kind == "waived" else "In no test"
            text = f"<p><b>{state}, and seen {gap.count:,} times in production</b> ({escape(gap.source)}).</p>"
        near = self.numbers.nearest_cell(label, cell)
        if near is None:
            return text + "<p>Nothing is covered yet that comes close.</p>"
        differs = "".join(f"<li>{escape(difference)}</li>" for difference in near.differences)
        return (
            f"{text}<p>The nearest that is: <a href='#{self._id(near.cell, near.label)}'>{near.label}</a>, with</p>"
            f"<ul class='differs'>{differs}</ul><p><code>{escape(near.tally.witness.source)}</code></p>"
        )

    # -- below the map ------------------------------------------------------------------------------------------

    def pairs(self) -> str:
        possible, pair_tallies = set(possible_pairs()), self.numbers.data.pairs
        heads = "".join(f"<th scope='col' class='t'><div>{label}</div></th>" for label in self.labels)
        rows = ""
        for first in self.labels:
            tds = ""
            for second in self.labels:
                tally = pair_tallies.get(f"{first} > {second}")
                kind = "covered" if tally else "missing" if (first, second) in possible else "infeasible"
                sign = _short_count(tally.count) if tally else "·" if kind == "missing" else ""
                tds += f"<td><span class='{kind}'>{sign}</span></td>"
            rows += f"<tr><th scope='row'>{first}</th>{tds}</tr>"
        return (
            "<section><h2>One transition right after another</h2><div class='scroll'><table class='map pairs'>"
            f"<thead><tr><th>then →</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>"
        )

    def gap(self) -> str:
        if not self.numbers.carry_gaps:
            return ""
        rows = "".join(
            f"<li><code>{escape(gap.name)}</code>{'' if gap.name in self.open else ' <span class=tag>waived</span>'}<br>"
            f"<small>{escape(gap.words)}; {gap.count:,} times</small></li>"
            for gap in self.numbers.carry_gaps
        )
        return f"<section><h2>Seen in production and in no test</h2><ul>{rows}</ul></section>"

    def invariants(self) -> str:
        items = "".join(
            f"<li class='{'on' if activity.state == 'ACTIVE' else 'off'}'><code>{escape(activity.invariant)}</code>"
            f"<span>{f'{activity.count:,} in {len(activity.cells)} cells' if activity.count else activity.state}</span></li>"
            for activity in self.numbers.activities
        )
        return (
            "<section><h2>How often each invariant had occasion</h2><p>One without occasion has shown nothing yet.</p>"
            f"<ul class='active'>{items}</ul></section>"
        )

    def fields(self) -> str:
        return _list_section("Fields written that no invariant with occasion reads", self.numbers.unchecked_fields)

    def rules(self) -> str:
        lock = self.numbers.lock
        rules = [
            f"{rule.name}: {rule.reason} ({', '.join(f'{axis}={value}' for axis, v in rule.axis_values.items() for value in v)}"
            f"{' at ' + ', '.join(rule.transitions) if rule.transitions else ''}; accepted by {rule.accepted_by})"
            for rule in lock.rule
        ]
        waivers = [f"{waiver.name}: up to {waiver.last_day}, {waiver.reason} ({waiver.by})" for waiver in lock.waiver]
        return _list_section("What is infeasible, and why", rules) + _list_section("Waivers", waivers)


_STEPS_MAX: Final = 8
_LEGEND: Final = (
    "<p class='legend'><span class='covered'>3</span>covered, so many times<span class='production'>!</span>seen in "
    "production only<span class='waived'>w</span>the same, waived<span class='missing'>·</span>missing"
    "<span class='infeasible'></span>infeasible. Choose a place to see the shortest way there, or the nearest that is "
    "covered.</p>"
)


def _card(title: str, ratio: CoverageRatio, caption: str) -> str:
    return (
        f"<div class='card'><span>{title}</span><b>{ratio}</b><span>{ratio.covered:,} of {ratio.total:,} {caption}</span>"
        f"<div class='bar'><i style='width:{ratio.percent:.1f}%'></i></div></div>"
    )


def _path(path: Sequence[str]) -> str:
    """Return the transitions in order; of a long path only the end, which a reader needs to repeat it."""
    first = max(len(path) - _STEPS_MAX, 0)
    steps = "".join(
        f"<li>{escape(label)} <small>after {int(mutation):,} mutations</small></li>"
        for label, _, mutation in (step.partition("@") for step in path[first:])
    )
    before = f"<p class='quiet'>{first} transitions before, and then</p>" if first else ""
    return f"{before}<ol start='{first + 1}'>{steps}</ol>" if steps else ""


def _short_count(count: int) -> str:
    return str(count) if count < 1000 else f"{count // 1000}k"


def _list_section(title: str, items: list[str]) -> str:
    if not items:
        return ""
    rows = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<section><h2>{title}</h2><ul class='plain'>{rows}</ul></section>"
