"""`holdover catalogue`: the invariants as a list, one by one, as the operator's book; and whether they all load."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import BadCatalogue, BadPredicate, Catalogue, Entry, Invariant
from holdover.catalogue.book import Form, allows_words, asserted_words, book, freezes_words

FORMS: Final[dict[str, Form]] = {".html": "html", ".md": "markdown"}
"""What the book is written as, by the suffix of its file."""

_WIDTH_MAX: Final = 100
"""Wider lines of prose are hard to read, however wide the terminal."""


def add_parser(verbs: argparse._SubParsersAction[Any]) -> None:
    """Add the verb `catalogue` and what can be asked of it."""
    parser = verbs.add_parser("catalogue", help="the invariants: list, show, book, check")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    listed = what.add_parser("list", help="every invariant on a line")
    shown = what.add_parser("show", help="one invariant, with the operator's steps")
    shown.add_argument("name", metavar="NAME")
    booked = what.add_parser("book", help="write the operator's document")
    booked.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.html or FILE.md")
    checked = what.add_parser("check", help="load everything, and say all that is wrong")
    for each, run in ((listed, run_list), (shown, run_show), (booked, run_book), (checked, run_check)):
        each.add_argument(
            "--catalogue",
            action="append",
            default=[],
            metavar="SOURCE",
            help="a folder or package with invariants of your own; may be given more than once",
        )
        each.add_argument("--json", action="store_true", help="tell a program and not a person")
        each.set_defaults(run=run)


def run_list(arguments: argparse.Namespace) -> int:
    """Name, family, asserted, freezes and severity of every invariant; always 0."""
    catalogue = Catalogue.load(*arguments.catalogue)
    if arguments.json:
        print(json.dumps([_as_json(one) for one in catalogue], indent=2))
        return 0
    rows = [
        (one.name, one.entry.family, _asserted(one.entry), one.entry.scope, one.entry.severity) for one in catalogue
    ]
    for line in _table(("name", "family", "asserted", "freezes", "severity"), rows):
        print(line)
    print(f"{len(catalogue)} invariants, digest {catalogue.digest[:12]}")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """One invariant whole; 0. Raises `BadCatalogue` for a name that there is not."""
    invariant = Catalogue.load(*arguments.catalogue)[arguments.name]
    if arguments.json:
        print(json.dumps(_as_json(invariant), indent=2))
        return 0
    width = min(shutil.get_terminal_size((96, 24)).columns, _WIDTH_MAX)
    print("\n".join(_shown(invariant.entry, max(width, 40))))
    return 0


def run_book(arguments: argparse.Namespace) -> int:
    """Write the operator's document whole or not at all; 0. Raises `BadCatalogue` for a file of another kind."""
    path: Path = arguments.out
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise BadCatalogue(f"{path.name}: the book is written as .html or .md, name a file that ends so")
    catalogue = Catalogue.load(*arguments.catalogue)
    _write_whole(path, book(catalogue, form=form))
    if arguments.json:
        told = {"file": str(path), "form": form, "invariants": len(catalogue), "digest": catalogue.digest}
        print(json.dumps(told))
    else:
        print(f"{len(catalogue)} invariants written to {path}")
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """0 when everything loads; 2 with every problem, one a line, when it does not."""
    try:
        catalogue = Catalogue.load(*arguments.catalogue)
    except (BadCatalogue, BadPredicate) as problem:
        problems = str(problem).splitlines()
        if arguments.json:
            print(json.dumps({"problems": problems}))
        for line in [] if arguments.json else problems:
            print(f"holdover: {line}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps({"invariants": len(catalogue), "digest": catalogue.digest, "problems": []}))
    else:
        print(f"{len(catalogue)} invariants, every one bound and told; digest {catalogue.digest}")
    return 0


def _as_json(invariant: Invariant) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(invariant.entry)
    told["predicates"] = [bound.function.__qualname__ for bound in invariant.predicates]
    return told


def _asserted(entry: Entry) -> str:
    return f"within {entry.within}" if entry.asserted == "within" else entry.asserted


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shown(entry: Entry, width: int) -> Iterable[str]:
    def told(text: str, first: str = "  ", rest: str = "") -> list[str]:
        # A command or a name that is broken over two lines cannot be copied.
        return textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=rest or " " * len(first), break_on_hyphens=False
        )

    yield f"{entry.name}  ({entry.family}, {entry.severity})"
    yield from told(entry.statement)
    yield ""
    yield from told(f"Freezes {freezes_words(entry)}; still allowed: {allows_words(entry)}.")
    yield from told(f"Asserted: {asserted_words(entry)}.")
    yield from ("", "What it says", *told(entry.description))
    yield from ("", "What it means when it does not hold", *told(entry.implication))
    yield from ("", "What to do, in this order")
    for number, one in enumerate(entry.response, 1):
        yield from told(one.step, first=f"  {number}. ")
        yield from told(f"Done when: {one.done_when}", first="     ")
    background = {
        "Guards": ", ".join(entry.categories),
        "Shown to fail by": ", ".join(entry.evidence.seeded_faults),
        "Source": entry.source,
        "Since": entry.since,
    }
    yield ""
    for label, text in background.items():
        if text:
            yield from told(f"{label}: {text}", first="", rest="  ")


def _write_whole(path: Path, text: str) -> None:
    """A reader finds the old file or the new one, never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
