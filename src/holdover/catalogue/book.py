"""The operator's document, made from the catalogue: generated, complete, printable."""

from __future__ import annotations

from html import escape
from itertools import groupby

from holdover.catalogue.entry import Entry
from holdover.catalogue.load import Catalogue

_STYLE = """
:root{--bg:#fbfbf9;--fg:#1c1f23;--quiet:#5d646d;--rule:#dfe1dc;--bad:#b3261e;--odd:#8a6d00}
@media (prefers-color-scheme:dark){:root{--bg:#15181c;--fg:#e6e8ea;--quiet:#9aa2ab;--rule:#2e343b;--bad:#ff8a80;--odd:#e6c34d}}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
main{max-width:46rem;margin:0 auto;padding:2rem 1.4rem}h1{font-size:1.7rem;margin-bottom:.2rem}h2{margin-top:2.6rem;
border-bottom:1px solid var(--rule)}h3{margin:2rem 0 .2rem;font-size:1.15rem}h4{margin:.9rem 0 .1rem;font-size:.8rem;
text-transform:uppercase;letter-spacing:.04em;color:var(--quiet)}p{margin:.2rem 0}.quiet{color:var(--quiet);font-size:.88rem}
.law{font-weight:600}.critical{color:var(--bad)}.error{color:var(--odd)}ol{margin:.2rem 0;padding-left:1.3rem}li{margin:.35rem 0}
.done{display:block;color:var(--quiet);font-size:.9rem}nav{columns:2;font-size:.9rem}nav a{display:block;color:inherit}
nav b{display:block;margin-top:.6rem;break-after:avoid}@media print{nav a{text-decoration:none}section{break-before:page}
article,li{break-inside:avoid}body{background:#fff;color:#000}}
"""


def book(catalogue: Catalogue, *, form: str) -> str:
    """The document as `html` or `markdown`. Raises `ValueError` for another form."""
    if form == "html":
        return _html(catalogue)
    if form == "markdown":
        return _markdown(catalogue)
    raise ValueError(f"the book's form is {form!r}, should be html or markdown")


def _families(catalogue: Catalogue) -> list[tuple[str, list[Entry]]]:
    entries = [one.entry for one in catalogue]
    return [(family, list(found)) for family, found in groupby(entries, key=lambda entry: entry.family)]


def _when(entry: Entry) -> str:
    told = {
        "on-mutation": "at every mutation",
        "when-settled": "when a step has settled",
        "when-reconciled": "whenever nothing is in flight, and in full when a reconciliation is complete",
        "at-boundary": f"at the boundary {', '.join(entry.at) or 'of every kind'}",
        "within": f"must come to hold within {entry.within}",
    }
    return told[entry.asserted]


def _html(catalogue: Catalogue) -> str:
    families = _families(catalogue)
    contents = "".join(
        f"<b>{escape(family)}</b>" + "".join(f"<a href='#{entry.name}'>{escape(entry.name)}</a>" for entry in found)
        for family, found in families
    )
    body = "".join(
        f"<section><h2>{escape(family)}</h2>{''.join(_article(entry) for entry in found)}</section>"
        for family, found in families
    )
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Invariant catalogue</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{_STYLE}</style></head><body><main>"
        f"<h1>Invariant catalogue</h1><p class='quiet'>{len(catalogue)} invariants · digest <code>{catalogue.digest}</code></p>"
        f"<p>What must hold of a live execution system, what it means when it does not, and what to do then. The same "
        f"catalogue is asserted in test and in production.</p><nav>{contents}</nav>{body}</main></body></html>"
    )


def _article(entry: Entry) -> str:
    steps = "".join(
        f"<li>{escape(step.step)}<span class='done'>Done when: {escape(step.done_when)}</span></li>"
        for step in entry.response
    )
    rest = [f"guards against {escape(', '.join(entry.categories))}"] if entry.categories else []
    rest += [f"source: {escape(entry.source)}"] if entry.source else []
    rest += (
        [f"shown to fail by {escape(', '.join(entry.evidence.seeded_faults))}"] if entry.evidence.seeded_faults else []
    )
    return (
        f"<article id='{entry.name}'><h3>{escape(entry.name)}</h3><p class='quiet'><b class='{entry.severity}'>{entry.severity}"
        f"</b> · asserted {escape(_when(entry))} · freezes the {escape(entry.scope)} · still allows "
        f"{escape(', '.join(entry.allows) or 'nothing')} · since {escape(entry.since)}</p><p class='law'>{escape(entry.statement)}</p>"
        f"<p>{escape(entry.description)}</p><h4>What it means</h4><p>{escape(entry.implication)}</p><h4>What to do, in this order"
        f"</h4><ol>{steps}</ol><p class='quiet'>{' · '.join(rest)}</p></article>"
    )


def _markdown(catalogue: Catalogue) -> str:
    lines = ["# Invariant catalogue", "", f"{len(catalogue)} invariants, digest `{catalogue.digest}`", ""]
    for family, found in _families(catalogue):
        lines += [f"## {family}", ""]
        for entry in found:
            lines += [
                f"### {entry.name}",
                "",
                f"{entry.severity}; asserted {_when(entry)}; freezes the {entry.scope}; "
                f"still allows {', '.join(entry.allows) or 'nothing'}; since {entry.since}",
                "",
                f"**{entry.statement}**",
                "",
                entry.description,
                "",
                f"What it means: {entry.implication}",
                "",
                *[
                    f"{number}. {step.step} *Done when: {step.done_when}*"
                    for number, step in enumerate(entry.response, 1)
                ],
                "",
            ]
            if entry.source:
                lines += [f"Source: {entry.source}", ""]
    return "\n".join(lines)
