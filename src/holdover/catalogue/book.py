"""The operator's document, generated from the catalogue: complete and printable.

It has one section per invariant, in the order that an operator needs: what must hold, what is frozen and what
may still leave, what a breach means, what to do. The maintainer's part (predicates, evidence, source)
follows. The same catalogue gives the same document, byte for byte: it carries a digest and no date.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from html import escape
from itertools import groupby
from typing import Final, Literal

from holdover import __version__
from holdover.catalogue.catalogue import Catalogue, Invariant
from holdover.catalogue.entry import Entry
from holdover.catalogue.predicate import BoundPredicate

Form = Literal["html", "markdown"]
"""The output formats of the document."""

TITLE: Final = "Invariant catalogue"
_INTRODUCTION: Final = (
    "What must hold of a live execution system, what it means for the capital when it does not, and what to do then. "
    "The same catalogue is asserted in test and in production; the digest says which one this is."
)
_INSTRUCTIONS: Final = (
    "Find the invariant that the page names. What it freezes is frozen already, and stays so over restarts and nights.",
    "Do the steps in their order. A step is done when what stands under it is true, and not before.",
    "Put what you find into the incident as you go: the thaw asks for it as evidence.",
    "Thaw last, and only the scope that the page names. A thaw that is refused says what still does not hold.",
)
_FAMILIES: Final = {
    "quantity": ("Quantity", "What an order, a position, an account and a parent order are made of adds up."),
    "agreement": ("Agreement", "The parts of one system tell the same story, and so do memory, store and venue units."),
    "reconciliation": ("Reconciliation", "What the system believes is what the venue knows."),
    "lifecycle": ("Lifecycle", "An order moves as FIX says it may, and ends when its time in force says so."),
    "identity": ("Identity", "An execution is booked once, a ClOrdID used once, and everything has one owner."),
    "session": ("Session", "Nothing is missed on the link, and nothing is sent where nobody hears it."),
    "exposure": ("Exposure", "What could still happen stays inside what was allowed."),
    "freeze": ("Freeze discipline", "What is frozen stays frozen, and nothing leaves it."),
    "timing": ("Timing", "Answers come in time, and time goes forward."),
}
_FREEZES: Final = {
    "system": "the whole system",
    "subsystem": "the subsystem",
    "account": "the account",
    "account+instrument": "the instrument in that account",
    "strategy": "the strategy",
    "instrument": "the instrument, in every account",
    "order": "the order",
    "link": "the link to the venue",
}
_ALLOWS: Final = {"cancel": "cancels", "reduce": "orders that reduce a position", "query": "questions to the venue"}
_CATEGORIES: Final = {
    "carried-partial-fill": "partial fills carried overnight",
    "restart-reconciliation": "reconciliation across a restart",
    "partition": "order state over a disconnect",
}


def render_book(catalogue: Catalogue, *, form: Form) -> str:
    """Render the document as `html` (one file without external resources) or `markdown`.

    Raises `ValueError` for any other form.
    """
    if form == "html":
        return _render_html(catalogue)
    if form == "markdown":
        return _render_markdown(catalogue)
    raise ValueError(f"the book's form is {form!r}, should be html or markdown")


# -- words for both forms ---------------------------------------------------------------------------------------------


def describe_assertion(entry: Entry, asserted: str = "") -> str:
    """Describe when the invariant is evaluated. A non-empty `asserted` overrides the entry's own."""
    phrases = {
        "on-mutation": "on every mutation",
        "when-settled": "when a step has settled",
        "when-reconciled": "whenever nothing is in flight, and in full when a reconciliation is complete",
        "at-boundary": f"at the boundary {', '.join(entry.at)}" if entry.at else "at every boundary",
        "within": f"must come to hold within {entry.within}",
    }
    return phrases[asserted or entry.asserted]


def describe_freeze(entry: Entry) -> str:
    """Describe what a breach freezes."""
    return _FREEZES.get(entry.scope, entry.scope)


def describe_allowed(entry: Entry) -> str:
    """Describe what the freeze still allows."""
    return ", ".join(_ALLOWS.get(action, action) for action in entry.allows) or "nothing"


def _group_families(catalogue: Catalogue) -> list[tuple[str, str, str, list[Invariant]]]:
    """Return each family with its title, its sentence and its invariants, in the catalogue's order."""
    families = []
    for family, invariants in groupby(catalogue, key=lambda invariant: invariant.entry.family):
        title, lede = _FAMILIES.get(family, (family.replace("-", " ").capitalize(), ""))
        families.append((family, title, lede, list(invariants)))
    return families


def _list_facts(catalogue: Catalogue) -> list[tuple[str, str]]:
    families = len(_group_families(catalogue))
    return [
        ("Invariants", f"{len(catalogue)} in {families} {'family' if families == 1 else 'families'}"),
        ("Digest", f"`{catalogue.digest}`"),
        ("Version", f"Holdover {__version__}"),
    ]


def _list_background(entry: Entry) -> list[tuple[str, str]]:
    """Return the label and text of each maintainer's fact; empty facts are omitted."""
    categories = "; ".join(_CATEGORIES.get(category, category) for category in entry.categories)
    faults = ", ".join(f"`{fault}`" for fault in entry.evidence.seeded_faults)
    rows = [("Guards", categories), ("Shown to fail by", faults), ("Source", entry.source), ("Since", entry.since)]
    return [(label, text) for label, text in rows if text]


def _describe_predicate(invariant: Invariant, bound: BoundPredicate) -> str:
    summary = (inspect.getdoc(bound.function) or "").partition("\n")[0]
    timing = f"{describe_assertion(invariant.entry, bound.asserted)}" if bound.asserted else ""
    return " ".join(part for part in (f"`{bound.function.__name__}`", f"({timing})" if timing else "", summary) if part)


# -- HTML -------------------------------------------------------------------------------------------------------------

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #1d2126; --quiet: #5a626b; --rule: #dcdfd9; --wash: #f3f4f0;
  --accent: #1f5673; --critical: #a3201a; --error: #8a5a00; --warning: #4d5b2c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e4e6e8; --quiet: #9aa3ac; --rule: #2d343a; --wash: #1c2125;
    --accent: #86c1e0; --critical: #ff9189; --error: #e9bd5b; --warning: #b9cc8a;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; text-rendering: optimizeLegibility; overflow-wrap: break-word;
}
code { font: .88em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
a { color: var(--accent); text-underline-offset: .15em; }
a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
h1, h2, h3, h4 { line-height: 1.25; text-wrap: balance; break-after: avoid; }
.skip { position: absolute; left: -999rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--paper); padding: .4rem .8rem; }
.page { max-width: 74rem; margin: 0 auto; padding: 2.5rem 1.5rem 5rem; }
header h1 { font-size: 2.1rem; margin: 0 0 .4rem; letter-spacing: -.015em; }
header p { max-width: 44rem; margin: 0 0 1.2rem; color: var(--quiet); font-size: 1.06rem; }
.facts {
  display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0;
  padding: .9rem 0; border-block: 1px solid var(--rule); font-size: .92rem;
}
.facts dt, .key dt, .background dt { color: var(--quiet); }
.facts dd, .key dd, .background dd { margin: 0; }
.paged { max-width: 44rem; margin: 1.6rem 0 0; }
.paged h2 { font-size: 1.05rem; margin: 0 0 .3rem; }
.paged ol { margin: 0; padding-left: 1.3rem; }
nav { margin-top: 2.2rem; font-size: .92rem; }
nav h2 { font-size: 1.05rem; margin: 0 0 .4rem; }
nav > ul { columns: 3 15rem; column-gap: 2rem; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav > ul > li { break-inside: avoid; margin-bottom: 1rem; }
nav > ul > li > a { font-weight: 650; color: inherit; text-decoration: none; }
nav ul ul a { display: block; padding: .12rem 0; color: var(--quiet); text-decoration: none; }
nav a:hover { color: var(--accent); text-decoration: underline; }
main > section { margin-top: 4rem; }
main > section > h2 { font-size: 1.55rem; margin: 0; padding-bottom: .35rem; border-bottom: 2px solid var(--ink); }
.lede { color: var(--quiet); margin: .6rem 0 0; }
article { max-width: 46rem; padding: 2.2rem 0 1.6rem; border-bottom: 1px solid var(--rule); }
article:last-child { border-bottom: 0; }
.name { display: flex; flex-wrap: wrap; align-items: baseline; gap: .3rem .9rem; }
.name h3 { font-size: 1.28rem; margin: 0; }
.name h3 a { color: inherit; text-decoration: none; }
.name h3 a:hover { text-decoration: underline; }
.severity {
  font-size: .74rem; font-weight: 650; letter-spacing: .05em; text-transform: uppercase; padding: .08rem .5rem;
  border: 1px solid currentColor; border-radius: .25rem;
}
.critical { color: var(--critical); } .error { color: var(--error); } .warning { color: var(--warning); }
.law { font-size: 1.1rem; font-weight: 550; margin: .8rem 0; padding-left: .9rem; border-left: 3px solid var(--accent); }
.key {
  display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.1rem; margin: 1rem 0;
  padding: .75rem .95rem; background: var(--wash); border-radius: .35rem; font-size: .93rem;
}
article h4 { font-size: .95rem; margin: 1.3rem 0 .25rem; }
article p { margin: .25rem 0; }
.steps { margin: .4rem 0 0; padding: 0; list-style: none; counter-reset: step; }
.steps > li {
  counter-increment: step; position: relative; padding: .55rem 0 .55rem 2.4rem; break-inside: avoid;
  border-top: 1px solid var(--rule);
}
.steps > li::before {
  content: counter(step); position: absolute; left: 0; top: .55rem; width: 1.55rem; height: 1.55rem; line-height: 1.5rem;
  text-align: center; font-size: .85rem; font-weight: 650; border: 1px solid var(--quiet); border-radius: 50%;
}
.done { display: block; margin-top: .15rem; color: var(--quiet); font-size: .93rem; }
.done b { font-weight: 600; }
.background {
  display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.1rem; margin: 1.2rem 0 0; font-size: .85rem;
}
.background ul { margin: 0; padding: 0; list-style: none; }
@media (max-width: 34rem) {
  .facts, .key, .background { grid-template-columns: 1fr; }
  .facts dd, .key dd, .background dd { margin-bottom: .4rem; }
}
@page { margin: 18mm 16mm; }
@media print {
  :root {
    --paper: #fff; --ink: #000; --quiet: #444; --rule: #bbb; --wash: #f4f4f4; --accent: #000; --critical: #000;
    --error: #000; --warning: #000;
  }
  body { font-size: 9.5pt; line-height: 1.4; }
  html { font-size: 9.5pt; }
  article p, .lede { max-width: none; }
  .page { max-width: none; padding: 0; }
  .skip { display: none; }
  a { color: inherit; text-decoration: none; }
  main > section { break-before: page; margin: 0; }
  article { max-width: none; }
  .name, .steps > li, .key, .law, .background, .facts { break-inside: avoid; }
  .name, .law { break-after: avoid; }
  article { padding: 1.2rem 0 .8rem; }
  p { orphans: 3; widows: 3; }
  .steps > li::after {
    content: ""; position: absolute; right: 0; top: .6rem; width: .8rem; height: .8rem; border: 1px solid #000;
  }
  .steps > li { padding-right: 1.6rem; }
}
"""


def _render_html(catalogue: Catalogue) -> str:
    prose = _make_prose_renderer(catalogue)
    families = _group_families(catalogue)
    facts = "\n".join(f"<dt>{escape(label)}</dt><dd>{prose(text)}</dd>" for label, text in _list_facts(catalogue))
    instructions = "\n".join(f"<li>{prose(instruction)}</li>" for instruction in _INSTRUCTIONS)
    contents = "\n".join(
        f'<li><a href="#family-{escape(family)}">{escape(title)}</a>\n<ul>\n'
        + "\n".join(
            f'<li><a href="#{escape(invariant.name)}">{escape(invariant.name)}</a></li>' for invariant in invariants
        )
        + "\n</ul></li>"
        for family, title, _, invariants in families
    )
    sections = "\n".join(
        f'<section aria-labelledby="family-{escape(family)}">\n<h2 id="family-{escape(family)}">{escape(title)}</h2>\n'
        + (f'<p class="lede">{prose(lede)}</p>\n' if lede else "")
        + "\n".join(_render_article(invariant, prose) for invariant in invariants)
        + "\n</section>"
        for family, title, lede, invariants in families
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{TITLE}</title>
<style>{_STYLE}</style>
</head>
<body>
<a class="skip" href="#invariants">To the invariants</a>
<div class="page">
<header>
<h1>{TITLE}</h1>
<p>{escape(_INTRODUCTION)}</p>
<dl class="facts">
{facts}
</dl>
<section class="paged" aria-labelledby="paged">
<h2 id="paged">When you have been paged</h2>
<ol>
{instructions}
</ol>
</section>
</header>
<nav aria-labelledby="contents">
<h2 id="contents">Contents</h2>
<ul>
{contents}
</ul>
</nav>
<main id="invariants">
{sections}
</main>
</div>
</body>
</html>
"""


def _render_article(invariant: Invariant, prose: Callable[[str], str]) -> str:
    entry = invariant.entry
    name = escape(entry.name)
    steps = "\n".join(
        f'<li>{prose(step.step)}\n<span class="done"><b>Done when:</b> {prose(step.done_when)}</span></li>'
        for step in entry.response
    )
    checked = "".join(f"<li>{prose(_describe_predicate(invariant, bound))}</li>" for bound in invariant.predicates)
    background = "\n".join(f"<dt>{escape(label)}</dt><dd>{prose(text)}</dd>" for label, text in _list_background(entry))
    return f"""<article id="{name}" aria-labelledby="{name}-name">
<div class="name"><h3 id="{name}-name"><a href="#{name}">{name}</a></h3>
<span class="severity {escape(entry.severity)}">{escape(entry.severity)}</span></div>
<p class="law">{prose(entry.statement)}</p>
<dl class="key">
<dt>Freezes</dt><dd>{escape(describe_freeze(entry))}</dd>
<dt>Still allowed</dt><dd>{escape(describe_allowed(entry))}</dd>
<dt>Asserted</dt><dd>{escape(describe_assertion(entry))}</dd>
</dl>
<p>{prose(entry.description)}</p>
<h4>What it means when it does not hold</h4>
<p>{prose(entry.implication)}</p>
<h4>What to do, in this order</h4>
<ol class="steps">
{steps}
</ol>
<dl class="background">
{background}
<dt>Checked by</dt><dd><ul>{checked}</ul></dd>
</dl>
</article>"""


def _make_prose_renderer(catalogue: Catalogue) -> Callable[[str], str]:
    """Return a function that renders text as HTML: escaped, with `code` marked up and invariant names linked."""

    def marked(match: re.Match[str]) -> str:
        code = f"<code>{match[1]}</code>"
        return f'<a href="#{match[1]}">{code}</a>' if match[1] in catalogue.invariants else code

    return lambda text: re.sub(r"`([^`]+)`", marked, escape(text))


# -- Markdown ---------------------------------------------------------------------------------------------------------


def _render_markdown(catalogue: Catalogue) -> str:
    families = _group_families(catalogue)
    lines = [f"# {TITLE}", "", _INTRODUCTION, ""]
    lines += [f"- {label}: {text}" for label, text in _list_facts(catalogue)]
    lines += ["", "## When you have been paged", ""]
    lines += [f"{number}. {instruction}" for number, instruction in enumerate(_INSTRUCTIONS, 1)]
    lines += ["", "## Contents", ""]
    for _, title, _, invariants in families:
        lines += [f"- {title}", *(f"  - [{invariant.name}](#{invariant.name})" for invariant in invariants)]
    for _, title, lede, invariants in families:
        lines += ["", f"## {title}"]
        lines += ["", lede] if lede else []
        for invariant in invariants:
            lines += ["", *_render_markdown_section(invariant)]
    return "\n".join(lines) + "\n"


def _render_markdown_section(invariant: Invariant) -> list[str]:
    entry = invariant.entry
    lines = [f"### {entry.name}", "", f"**{entry.statement}**", ""]
    lines += [
        f"- Severity: {entry.severity}",
        f"- Freezes: {describe_freeze(entry)}",
        f"- Still allowed: {describe_allowed(entry)}",
        f"- Asserted: {describe_assertion(entry)}",
        "",
        entry.description,
        "",
        "#### What it means when it does not hold",
        "",
        entry.implication,
        "",
        "#### What to do, in this order",
        "",
    ]
    for number, step in enumerate(entry.response, 1):
        lines += [f"{number}. {step.step}", f"   *Done when: {step.done_when}*"]
    lines += ["", *(f"- {label}: {text}" for label, text in _list_background(entry))]
    lines += [f"- Checked by: {_describe_predicate(invariant, bound)}" for bound in invariant.predicates]
    return lines
