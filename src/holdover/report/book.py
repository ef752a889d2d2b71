"""The operator's document, generated from the catalogue: complete and printable.

It has one section per invariant, in the order that an operator needs: what must hold, what is frozen and what
may still leave, what a breach means, what to do. The maintainer's part (predicates, evidence, source)
follows. The same catalogue gives the same document, byte for byte: it carries a digest and no date.
"""

from __future__ import annotations

import inspect
from typing import Final, Literal

from holdover import __version__
from holdover.catalogue import BoundPredicate, Catalogue, Entry, Invariant
from holdover.catalogue.words import (
    CATEGORY_WORDS,
    describe_allowed,
    describe_assertion,
    describe_freeze,
    group_families,
)
from holdover.report.environment import render_template

Form = Literal["html", "markdown"]
"""The output formats of the document."""

TITLE: Final = "Invariant catalogue"
_INTRODUCTION: Final = (
    "What must hold of a live execution system, what it means for the capital when it does not, and what to do then. "
    "The same catalogue is asserted in test and in production; the digest says which one this is."
)
_INSTRUCTIONS: Final = (
    "Find the invariant that the alert names. Its scope is already frozen, and stays frozen over restarts and nights.",
    "Do the steps in their order. A step is done when the sentence under it is true, and not before.",
    "Put what you find into the incident as you go: the thaw asks for it as evidence.",
    "Thaw last, and only the scope that the alert names. A refused thaw says what still does not hold.",
)


def render_book(catalogue: Catalogue, *, form: Form) -> str:
    """Render the document as `html` (one file without external resources) or `markdown`.

    Raises `ValueError` for any other form.
    """
    if form == "html":
        return _render_html(catalogue)
    if form == "markdown":
        return _render_markdown(catalogue)
    raise ValueError(f"the book's form is {form!r}, should be html or markdown")


def _list_facts(catalogue: Catalogue) -> list[tuple[str, str]]:
    families = len(group_families(catalogue))
    return [
        ("Invariants", f"{len(catalogue)} in {families} {'family' if families == 1 else 'families'}"),
        ("Digest", f"`{catalogue.digest}`"),
        ("Version", f"Holdover {__version__}"),
    ]


def _list_background(entry: Entry) -> list[tuple[str, str]]:
    """Return the label and text of each maintainer's fact; empty facts are omitted."""
    categories = "; ".join(CATEGORY_WORDS.get(category, category) for category in entry.categories)
    faults = ", ".join(f"`{fault}`" for fault in entry.evidence.seeded_faults)
    rows = [("Guards", categories), ("Shown to fail by", faults), ("Source", entry.source), ("Since", entry.since)]
    return [(label, text) for label, text in rows if text]


def _describe_predicate(invariant: Invariant, bound: BoundPredicate) -> str:
    summary = (inspect.getdoc(bound.function) or "").partition("\n")[0]
    timing = f"{describe_assertion(invariant.entry, bound.asserted)}" if bound.asserted else ""
    return " ".join(part for part in (f"`{bound.function.__name__}`", f"({timing})" if timing else "", summary) if part)


def _render_html(catalogue: Catalogue) -> str:
    return render_template(
        "book.html",
        title=TITLE,
        introduction=_INTRODUCTION,
        instructions=_INSTRUCTIONS,
        facts=_list_facts(catalogue),
        families=group_families(catalogue),
        links={invariant.name: f"#{invariant.name}" for invariant in catalogue},
        describe_allowed=describe_allowed,
        describe_assertion=describe_assertion,
        describe_freeze=describe_freeze,
        describe_predicate=_describe_predicate,
        list_background=_list_background,
    )


def _render_markdown(catalogue: Catalogue) -> str:
    families = group_families(catalogue)
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
