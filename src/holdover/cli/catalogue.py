"""`holdover catalogue`: lists the invariants, shows one, writes the operator's book, checks that all load."""

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
from typing import Any, Final, Literal

import msgspec

from holdover.catalogue import Catalogue, CatalogueError, Entry, Invariant, PredicateError
from holdover.catalogue.words import describe_allowed, describe_assertion, describe_freeze
from holdover.cli.catalogue_trial import add_trial_parser
from holdover.cli.commands import add_command, add_subcommands, add_verb
from holdover.cli.options import add_catalogue_option, add_json_option
from holdover.runtime.guard import read_saved_monitor
from holdover.runtime.reach import REACH_WORDS, EntryReach, Reach, list_reach, list_requirements, summarize_reach
from holdover.runtime.thaw_requests import find_guard_config

BOOK_FORMS: Final[dict[str, Literal["html", "markdown"]]] = {".html": "html", ".md": "markdown"}
"""The format of the book by the suffix of its file."""

_WIDTH_MAX: Final = 100
"""Longer lines of prose are hard to read, even on a wide terminal."""


def add_parser(verbs: argparse._SubParsersAction[Any]) -> None:
    """Add the verb `catalogue` and its subcommands."""
    exits = {0: "done"}
    parser = add_verb(verbs, "catalogue", "holdover catalogue list", {0: "done", 2: "the catalogue does not load"})
    commands = add_subcommands(parser, "what")
    add_command(commands, "list", "List every invariant on one line.", "holdover catalogue list", exits, run=run_list)
    show = add_command(
        commands,
        "show",
        "Show one invariant with the operator's steps.",
        "holdover catalogue show order-quantity-conserved",
        exits,
        run=run_show,
    )
    show.add_argument("name", metavar="NAME", help="the name of the invariant, as `holdover catalogue list` shows it")
    book = add_command(
        commands,
        "book",
        "Write the operator's book of all invariants.",
        "holdover catalogue book --out catalogue.html",
        exits,
        run=run_book,
    )
    book.add_argument("--out", type=Path, required=True, metavar="FILE", help="the book: FILE.html or FILE.md")
    add_command(
        commands,
        "check",
        "Load the catalogue and list every problem.",
        "holdover catalogue check --catalogue our_invariants",
        {0: "everything loads", 2: "there are problems; each one is listed"},
        run=run_check,
    )
    active = add_command(
        commands,
        "active",
        "List which invariants can fire on a guarded system, and what each of the others needs.",
        "holdover catalogue active --config guard.toml",
        {0: "listed", 3: "the guard has recorded nothing yet"},
        run=run_active,
    )
    active.add_argument(
        "--config", "--guard", type=Path, required=True, metavar="TOML|DIR", help="the guard's configuration or folder"
    )
    add_command(
        commands,
        "requirements",
        "List each table and field of records with the invariants that need it.",
        "holdover catalogue requirements",
        exits,
        run=run_requirements,
    )
    commands.choices["requirements"].add_argument(
        "--markdown", action="store_true", help="print a Markdown table, as in docs/records.md"
    )
    add_trial_parser(commands)
    for subparser in commands.choices.values():
        add_catalogue_option(subparser)
        add_json_option(subparser)


def run_list(arguments: argparse.Namespace) -> int:
    """Print name, family, assertion, scope and severity of every invariant; always returns 0."""
    catalogue = Catalogue.load(*arguments.catalogue)
    if arguments.json:
        print(json.dumps([_as_json(invariant) for invariant in catalogue], indent=2))
        return 0
    rows = [
        (
            invariant.name,
            invariant.entry.family,
            _asserted_text(invariant.entry),
            invariant.entry.scope,
            invariant.entry.severity,
        )
        for invariant in catalogue
    ]
    for line in _table(("name", "family", "asserted", "freezes", "severity"), rows):
        print(line)
    print(f"{len(catalogue)} invariants, digest {catalogue.digest[:12]}")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print one invariant in full; returns 0. Raises `CatalogueError` for an unknown name."""
    invariant = Catalogue.load(*arguments.catalogue)[arguments.name]
    if arguments.json:
        print(json.dumps(_as_json(invariant), indent=2))
        return 0
    width = min(shutil.get_terminal_size((96, 24)).columns, _WIDTH_MAX)
    print("\n".join(_show_lines(invariant.entry, max(width, 40))))
    return 0


def run_book(arguments: argparse.Namespace) -> int:
    """Write the operator's book atomically; returns 0. Raises `CatalogueError` for another file suffix."""
    path: Path = arguments.out
    form = BOOK_FORMS.get(path.suffix.lower())
    if form is None:
        raise CatalogueError(f"{path.name}: the book is written as .html or .md, name a file that ends so")
    catalogue = Catalogue.load(*arguments.catalogue)
    from holdover.report.book import render_book  # loads the reports, which no other verb of this module needs

    _write_whole(path, render_book(catalogue, form=form))
    if arguments.json:
        summary = {"file": str(path), "form": form, "invariants": len(catalogue), "digest": catalogue.digest}
        print(json.dumps(summary))
    else:
        print(f"{len(catalogue)} invariants written to {path}")
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Return 0 when everything loads, else print every problem and return 2."""
    try:
        catalogue = Catalogue.load(*arguments.catalogue)
    except (CatalogueError, PredicateError) as problem:
        problems = str(problem).splitlines()
        if arguments.json:
            print(json.dumps({"problems": problems}))
        for line in [] if arguments.json else problems:
            print(f"holdover: {line}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps({"invariants": len(catalogue), "digest": catalogue.digest, "problems": []}))
    else:
        print(f"{len(catalogue)} invariants, all loaded; digest {catalogue.digest}")
    return 0


def run_active(arguments: argparse.Namespace) -> int:
    """Print the reach of every invariant, by the memory of a guard; returns 3 when the guard has no memory."""
    config = find_guard_config(arguments.config)
    catalogue = Catalogue.load(*config.catalogue, *arguments.catalogue)
    monitor = read_saved_monitor(config, catalogue)
    reaches = list_reach(monitor)
    if arguments.json:
        print(json.dumps({"summary": summarize_reach(reaches), "invariants": msgspec.to_builtins(reaches)}, indent=2))
    else:
        for line in reach_lines(reaches):
            print(line)
        if not monitor.mutations:
            print(f"{config.directory}: no memory is saved there; record something, then call guard.save_memory()")
    return 0 if monitor.mutations else 3


def reach_lines(reaches: Sequence[EntryReach]) -> Iterable[str]:
    """Yield the invariants by their reach: the active ones by name, each of the others with its reason."""
    width = min(shutil.get_terminal_size((96, 24)).columns, _WIDTH_MAX)
    yield f"{len(reaches)} invariants: {summarize_reach(reaches)}"
    for reach in Reach:
        entries = [entry for entry in reaches if entry.reach is reach]
        if not entries:
            continue
        yield ""
        yield f"{reach}: {REACH_WORDS[reach]}"
        if reach is Reach.ACTIVE:
            names = ", ".join(entry.name for entry in entries)
            yield from textwrap.wrap(names, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
            continue
        for entry in entries:
            yield from textwrap.wrap(
                f"{entry.name}: {entry.reason}",
                width,
                initial_indent="  ",
                subsequent_indent="      ",
                break_on_hyphens=False,
            )


def run_requirements(arguments: argparse.Namespace) -> int:
    """Print what each table and field switches on; returns 0."""
    requirements = list_requirements(Catalogue.load(*arguments.catalogue))
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(requirements), indent=2))
        return 0
    if arguments.markdown:
        print("| record or field | invariants that need it |\n|---|---|")
        for requirement in requirements:
            print(f"| `{requirement.name}` | {', '.join(f'`{name}`' for name in requirement.invariants)} |")
        return 0
    width = min(shutil.get_terminal_size((96, 24)).columns, _WIDTH_MAX)
    for requirement in requirements:
        print(requirement.name)
        names = ", ".join(requirement.invariants)
        for line in textwrap.wrap(
            names, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
        ):
            print(line)
    return 0


def _as_json(invariant: Invariant) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(invariant.entry)
    document["predicates"] = [bound.function.__qualname__ for bound in invariant.predicates]
    return document


def _asserted_text(entry: Entry) -> str:
    return f"within {entry.within}" if entry.asserted == "within" else entry.asserted


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _show_lines(entry: Entry, width: int) -> Iterable[str]:
    def wrap(text: str, first: str = "  ", rest: str = "") -> list[str]:
        # Do not break commands and names at hyphens: a broken one cannot be copied.
        return textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=rest or " " * len(first), break_on_hyphens=False
        )

    yield f"{entry.name}  ({entry.family}, {entry.severity})"
    yield from wrap(entry.statement)
    yield ""
    yield from wrap(f"Freezes {describe_freeze(entry)}; still allowed: {describe_allowed(entry)}.")
    yield from wrap(f"Asserted: {describe_assertion(entry)}.")
    yield from ("", "What it says", *wrap(entry.description))
    yield from ("", "What it means when it does not hold", *wrap(entry.implication))
    yield from ("", "What to do, in this order")
    for number, response_step in enumerate(entry.response, 1):
        yield from wrap(response_step.step, first=f"  {number}. ")
        yield from wrap(f"Done when: {response_step.done_when}", first="     ")
    background = {
        "Guards": ", ".join(entry.categories),
        "Shown to fail by": ", ".join(entry.evidence.seeded_faults),
        "Source": entry.source,
        "Since": entry.since,
    }
    yield ""
    for label, text in background.items():
        if text:
            yield from wrap(f"{label}: {text}", first="", rest="  ")


def _write_whole(path: Path, text: str) -> None:
    """Write a file atomically: a reader finds the old content or the new one."""
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
