"""`holdover catalogue`: list, show, book, check."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from holdover.catalogue import BadCatalogue, Catalogue
from holdover.catalogue.book import book


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("catalogue", help="the invariants: list, show, book, check")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    listed = what.add_parser("list", help="every invariant on a line")
    shown = what.add_parser("show", help="one invariant with the operator's steps")
    shown.add_argument("name")
    booked = what.add_parser("book", help="write the operator's document")
    booked.add_argument("--out", type=Path, required=True, help="FILE.html or FILE.md")
    checked = what.add_parser("check", help="load everything and say what is wrong")
    for each in (listed, shown, booked, checked):
        each.add_argument("--catalogue", action="append", default=[], help="a folder or package of further invariants")
        each.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 done; a catalogue that does not load is told and exits with 2."""
    catalogue = Catalogue.load(*arguments.catalogue)
    act = {"list": _list, "show": _show, "book": _book, "check": _check}[arguments.what]
    act(arguments, catalogue)
    return 0


def _list(arguments: argparse.Namespace, catalogue: Catalogue) -> None:
    if arguments.json:
        print(json.dumps([msgspec.to_builtins(one.entry) for one in catalogue]))
        return
    print(f"{'invariant':<38}{'family':<16}{'asserted':<17}{'freezes':<20}severity")
    for one in catalogue:
        entry = one.entry
        print(f"{entry.name:<38}{entry.family:<16}{entry.asserted:<17}{entry.scope:<20}{entry.severity}")
    print(f"{len(catalogue)} invariants, digest {catalogue.digest[:12]}")


def _show(arguments: argparse.Namespace, catalogue: Catalogue) -> None:
    entry = catalogue[arguments.name].entry
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(entry)))
        return
    width = min(shutil.get_terminal_size((96, 24)).columns, 100)

    def told(title: str, text: str) -> None:
        print(f"\n{title}")
        print(textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  "))

    print(f"{entry.name}   {entry.family}, {entry.severity}")
    told("What must hold", entry.statement)
    told("What it is", entry.description)
    told("What it means when it does not", entry.implication)
    told(
        "On a breach",
        f"asserted {entry.asserted}{' ' + entry.within if entry.within else ''}; freezes the {entry.scope}; "
        f"still allows {', '.join(entry.allows) or 'nothing'}",
    )
    print("\nWhat to do, in this order")
    for number, step in enumerate(entry.response, 1):
        print(textwrap.fill(step.step, width, initial_indent=f"  {number}. ", subsequent_indent="     "))
        print(textwrap.fill(f"done when: {step.done_when}", width, initial_indent="     ", subsequent_indent="     "))
    if entry.source:
        told("Source", entry.source)


def _book(arguments: argparse.Namespace, catalogue: Catalogue) -> None:
    form = {".html": "html", ".md": "markdown"}.get(arguments.out.suffix)
    if form is None:
        raise BadCatalogue(f"{arguments.out.name}: the book is written as .html or .md")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    part = arguments.out.with_suffix(".writing")
    part.write_text(book(catalogue, form=form), encoding="utf-8")
    os.replace(part, arguments.out)
    print(f"{len(catalogue)} invariants written to {arguments.out}")


def _check(arguments: argparse.Namespace, catalogue: Catalogue) -> None:
    if arguments.json:
        print(json.dumps({"invariants": len(catalogue), "digest": catalogue.digest}))
    else:
        print(f"{len(catalogue)} invariants, every one bound and told; digest {catalogue.digest}")
