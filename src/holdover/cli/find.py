"""`holdover search`, `shrink`, `corpus`, `faults`: find failures, shrink them, keep them, measure what finds
them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from holdover.catalogue import Catalogue
from holdover.cli.commands import CommandParser, add_command, add_subcommands, add_verb
from holdover.cli.corpus_replay import load_axes, replay_corpus_first, replay_with_progress, save_new_witnesses
from holdover.cli.cycle import select_days, select_symbols
from holdover.cli.explore import add_spec_options
from holdover.cli.options import (
    add_catalogue_option,
    add_instrument_option,
    add_json_option,
    add_out_option,
    add_recordings_option,
    add_trust_option,
)
from holdover.coverage.lock import LOCK_NAME
from holdover.desk.faults import FAULTS
from holdover.explore.corpus import Corpus
from holdover.explore.fault_table import DETECTION_METHODS, FaultRow, FaultRowStore, FaultTable
from holdover.explore.search import SEARCH_KINDS, Search, SearchResult
from holdover.explore.shrink import Shrinker, ShrinkResult, render_pytest, shorten_from_snapshot
from holdover.explore.walk import make_scratch_directory
from holdover.explore.witness import Witnesses
from holdover.harness.schedule import KINDS, Schedule, load_schedule, read_schedule
from holdover.harness.subject import Plan, resolve_factory
from holdover.harness.trust import check_trust
from holdover.model.spelling import suggest_spelling
from holdover.recording import RecordingStore, bundled_store
from holdover.report import (
    corpus_json,
    corpus_text,
    faults_page,
    faults_text,
    search_json,
    search_text,
    timeline_page,
)
from holdover.runtime.files import check_output_directory, claim_output_directory, write_report


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    _add_search(verbs)
    shrink = add_verb(
        verbs,
        "shrink",
        "holdover shrink out/search/found-0.json",
        {1: "the shrunk schedule is written; it fails", 2: "usage error, bad input, or a schedule that does not fail"},
        run=run_shrink,
    )
    shrink.add_argument("schedule", type=Path, metavar="SCHEDULE", help="the failing schedule, JSON")
    add_trust_option(shrink)
    add_recordings_option(shrink)
    add_catalogue_option(shrink)
    shrink.add_argument(
        "--mark",
        default="",
        metavar="SUBSYSTEM/INVARIANT",
        help="the breach to preserve; default: the first one of the schedule",
    )
    shrink.add_argument("--plays", type=int, default=400, metavar="N", help="play at most N schedules (default 400)")
    add_out_option(shrink, "out/shrink", "the schedule, its test and its timeline")
    add_json_option(shrink)
    _add_corpus(
        add_verb(
            verbs,
            "corpus",
            "holdover corpus check",
            {0: "the corpus is intact, and its schedules end as expected", 1: "there are problems; each one is listed"},
        )
    )
    _add_faults(verbs)


def _add_search(verbs: Any) -> None:
    search = add_verb(
        verbs,
        "search",
        "holdover search --instrument ACME --budget 60",
        {0: "nothing found", 1: "a failure found and confirmed", 3: "a failure found that did not repeat"},
        run=run_search,
    )
    add_spec_options(search)
    search.add_argument(
        "--budget", type=float, default=60, metavar="SECONDS", help="stop after so many seconds (default 60)"
    )
    search.add_argument(
        "--bursts", type=int, default=0, metavar="N", help="stop after N bursts instead of after a time"
    )
    search.add_argument(
        "--kinds", metavar="KIND[,KIND...]", help=f"the kinds of operation, of {','.join(SEARCH_KINDS)}; default: all"
    )
    search.add_argument(
        "--until", type=float, default=1.0, metavar="FRACTION", help="stop each day at this fraction (default 1.0)"
    )
    search.add_argument("--to-breach", action="store_true", help="stop at the first breach")
    search.add_argument(
        "--corpus", type=Path, metavar="DIR", help="play this corpus first, and add a witness for each new cell"
    )
    add_trust_option(search)
    add_out_option(search, "out/search", "failing schedules")
    add_json_option(search)


def _add_faults(verbs: Any) -> None:
    faults = add_verb(
        verbs,
        "faults",
        "holdover faults --fault forget-carried-partial --ways cycle",
        {0: "every fault was found by a sweep, a search or a cycle", 1: "at least one fault was missed"},
        run=run_faults,
    )
    faults.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME",
        help="look only for this fault; may be repeated",
    )
    faults.add_argument(
        "--ways",
        default=",".join(DETECTION_METHODS),
        metavar="WAY[,WAY...]",
        help=f"the methods to try, of {','.join(DETECTION_METHODS)} (default all)",
    )
    faults.add_argument(
        "--budget", type=float, default=60, metavar="SECONDS", help="time for each method and fault (default 60)"
    )
    faults.add_argument(
        "--plays", type=int, default=600, metavar="N", help="play at most N schedules to shrink (default 600)"
    )
    faults.add_argument(
        "--tests", type=Path, default=Path("tests"), metavar="DIR", help="the project's own tests (default tests)"
    )
    add_recordings_option(faults)
    add_instrument_option(faults)
    add_out_option(faults, "out/faults", "the rows; existing rows are reused")
    faults.add_argument("--again", action="store_true", help="repeat the faults that already have a row")
    faults.add_argument("--as-is", action="store_true", help="only show the existing rows")
    faults.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as a Markdown page")
    add_json_option(faults)


def _add_corpus(parser: CommandParser) -> None:
    exits = {0: "the corpus is intact", 1: "there are problems; each one is listed"}
    commands = add_subcommands(parser, "what")
    add_command(
        commands,
        "check",
        "Check that no schedule is missing, changed or unlisted.",
        "holdover corpus check",
        exits,
        run=run_corpus,
    )
    list_parser = add_command(
        commands,
        "list",
        "List the schedules, and the removed ones with the reasons.",
        "holdover corpus list --cells",
        exits,
        run=run_corpus,
    )
    list_parser.add_argument("--cells", action="store_true", help="also list each cell with its witness")
    replay = add_command(
        commands,
        "play",
        "Play the corpus: schedules end as expected, witnesses reach their cells.",
        "holdover corpus play",
        {0: "everything ended as expected", 1: "there are problems; each one is listed"},
        run=run_corpus,
    )
    add_recordings_option(replay)
    add_trust_option(replay)
    _add_corpus_changes(commands)
    for subparser in commands.choices.values():
        subparser.add_argument(
            "--corpus", type=Path, default=Path("corpus"), metavar="DIR", help="the corpus (default corpus)"
        )
        subparser.add_argument(
            "--lock",
            type=Path,
            metavar="FILE",
            help=f"the lock file that names the axes; default: {LOCK_NAME} of this directory or the nearest above it",
        )
        add_catalogue_option(subparser)
        add_json_option(subparser)


def _add_corpus_changes(commands: Any) -> None:
    add = add_command(
        commands,
        "add",
        "Add a schedule.",
        'holdover corpus add found-0.json --name regressions/lost-fill.json --why "found in review"',
        {0: "added"},
        run=run_corpus,
    )
    add.add_argument("schedule", type=Path, metavar="SCHEDULE", help="the schedule, JSON")
    kind = add.add_mutually_exclusive_group(required=True)
    kind.add_argument("--name", metavar="PATH", help="its path in the corpus, such as regressions/lost-fill.json")
    kind.add_argument("--witness", action="store_true", help="add it as the witness of the cells that have none")
    add.add_argument("--why", default="", metavar="REASON", help="why it is added; a witness needs no reason")
    add_recordings_option(add)
    add_trust_option(add)
    retire = add_command(
        commands,
        "retire",
        "Remove a schedule, a witness or a cell, with a reason.",
        'holdover corpus retire regressions/lost-fill.json --why "the feature is gone" --by ann',
        {0: "removed"},
        run=run_corpus,
    )
    retire.add_argument("name", metavar="NAME", help="the name, as `holdover corpus list` shows it")
    retire.add_argument("--why", required=True, metavar="REASON", help="why it is removed")
    retire.add_argument("--by", required=True, metavar="NAME", help="who removes it")


def run_search(arguments: argparse.Namespace) -> int:
    """Return 0 when nothing was found, 1 for a confirmed failure, 3 for an unconfirmed one."""
    claim_output_directory(arguments.out)
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled_store()
    symbols = select_symbols(store, arguments.instrument)
    days = select_days(store, symbols, None, None)[:2]
    if not 0.0 < arguments.until <= 1.0:
        raise ValueError(f"--until is {arguments.until}, should be above 0.0 and at most 1.0")
    kinds = _parse_search_kinds(arguments.kinds)
    metas = [store.get(symbol, day).meta for day in days for symbol in symbols]
    resolve_factory(arguments.subject)(Plan(days=metas, seed=arguments.seed, faults=tuple(arguments.fault)))
    catalogue = Catalogue.load(*arguments.catalogue)
    corpus = None
    if arguments.corpus is not None:
        corpus = Corpus(arguments.corpus)
        trusted_subjects = None if arguments.trust else [arguments.subject]
        if arguments.corpus.exists() and not replay_corpus_first(
            corpus, store, catalogue, witnesses=False, trusted_subjects=trusted_subjects
        ):
            return 1
    searcher = Search(
        store,
        symbols,
        days,
        make_scratch_directory(),
        subject=arguments.subject,
        seed=arguments.seed,
        faults=arguments.fault,
        catalogue=catalogue,
        kinds=kinds,
        axes=load_axes(corpus),
        end_fraction=arguments.until,
    )
    doubtful: set[str] = set()
    line = SearchProgress(0 if arguments.bursts else arguments.budget, arguments.bursts)
    try:
        if corpus is not None:
            witnesses = corpus.witnesses()
            for witness in witnesses.lines:
                check_trust(
                    witnesses.schedule(witness),
                    f"{corpus.directory}: witness {witness.name}",
                    is_trusted=arguments.trust,
                    trusted_subjects=[arguments.subject],
                )
            searcher.replay_schedules([witnesses.schedule(witness) for witness in witnesses.lines], line.on_replay)
            doubtful = witnesses.cells.keys() - searcher.reached_cells
        result = searcher.run(
            budget_s=0 if arguments.bursts else arguments.budget,
            bursts=arguments.bursts,
            to_breach=arguments.to_breach,
            progress=line,
        )
    finally:
        line.close()
        searcher.close()
    for number, finding in enumerate(result.findings):
        finding.schedule.save(arguments.out / f"found-{number}.json")
    summary = search_json(result, str(arguments.out))
    if corpus is not None and not arguments.fault:
        summary["witnesses"] = save_new_witnesses(corpus, result.witnesses, store, catalogue, doubtful=doubtful)
    if arguments.json:
        print(json.dumps(summary))
    else:
        print(search_text(result, symbols, days, str(arguments.out)))
        if "witnesses" in summary:
            print("{schedules} witnesses of {cells} cells, {new} of them new".format(**summary["witnesses"]))
    return {"holds": 0, "breach": 1}.get(result.verdict, 3)


def _parse_search_kinds(text: str | None) -> list[str]:
    if not text:
        return list(SEARCH_KINDS)
    kinds = [kind.strip() for kind in text.split(",")]
    for kind in kinds:
        if kind not in KINDS:
            hint = suggest_spelling(kind, SEARCH_KINDS) or f"; there are {', '.join(SEARCH_KINDS)}"
            raise ValueError(f"no kind is called {kind!r}{hint}")
    return kinds


class SearchProgress:
    """The progress line of a search: bursts, rate, cells, breaches, time left; hidden without a terminal."""

    def __init__(self, budget_s: float, bursts: int) -> None:
        self._budget_s, self._bursts = budget_s, bursts
        self._bar = tqdm(
            total=bursts or None,
            unit="burst",
            disable=None,
            file=sys.stderr,
            leave=False,
            bar_format="{n_fmt} bursts, {rate_fmt}, {postfix}",
        )

    def on_replay(self, schedule: Schedule) -> None:
        """Show the name of a known schedule that is being played."""
        self._bar.set_postfix_str(f"playing {schedule.name}")

    def __call__(self, result: SearchResult) -> None:
        """Update the line."""
        remaining_s = self._budget_s - result.seconds
        if self._bursts:
            remaining_s = (self._bursts - result.bursts) * result.seconds / max(result.bursts, 1)
        self._bar.set_postfix_str(
            f"{result.cells} cells, {result.transitions} transitions in cells, {result.new_cells} new, "
            f"{result.breaches} breaches, {max(remaining_s, 0):.0f} s left",
            refresh=False,
        )
        self._bar.update(result.bursts - self._bar.n)

    def close(self) -> None:
        """Remove the line."""
        self._bar.close()


def run_shrink(arguments: argparse.Namespace) -> int:
    """Shrink a schedule and write the results; always returns 1, since the schedule fails.

    Raises `NotFailingError` (exit code 2) when it does not fail.
    """
    schedule, store = load_schedule(arguments.schedule, arguments.recordings)
    check_trust(schedule, arguments.schedule.name, is_trusted=arguments.trust)
    check_output_directory(arguments.out)
    catalogue = Catalogue.load(*arguments.catalogue)
    with tqdm(total=arguments.plays, unit="play", disable=None, file=sys.stderr, leave=False) as bar:

        def progress(plays: int, operations: int) -> None:
            bar.update(plays - bar.n)
            bar.set_postfix_str(f"{operations} operations", refresh=False)

        shrunk = Shrinker(
            schedule,
            store,
            make_scratch_directory(),
            catalogue=catalogue,
            mark=arguments.mark,
            plays_max=arguments.plays,
            progress=progress,
        ).shrink()
    claim_output_directory(arguments.out)
    path = shrunk.schedule.save(arguments.out / "shrunk.json")
    later = shorten_from_snapshot(
        shrunk.schedule, store, make_scratch_directory(), arguments.out, catalogue, shrunk.mark
    )
    if later is not None:
        later.save(arguments.out / "shrunk-from-a-snapshot.json")
    test = render_pytest(shrunk.schedule, shrunk.explanation)
    write_report(arguments.out / "test_shrunk.py", test)
    page = timeline_page(shrunk.schedule, store, arguments.out / "timeline", catalogue)
    write_report(arguments.out / "timeline.html", page)
    if arguments.json:
        summary = {
            "mark": shrunk.mark,
            "operations": {"before": shrunk.operations_before, "after": len(shrunk.schedule.operations)},
            "plays": shrunk.plays,
            "whole": shrunk.is_complete,
            "explanation": shrunk.explanation,
            "story": shrunk.schedule.describe(),
            "schedule": str(path),
            "settings": shrunk.schedule.settings,
            "from_a_snapshot": str(arguments.out / "shrunk-from-a-snapshot.json") if later is not None else "",
            "test": str(arguments.out / "test_shrunk.py"),
            "timeline": str(arguments.out / "timeline.html"),
        }
        print(json.dumps(summary))
    else:
        _print_shrunk(shrunk, later, catalogue, arguments.out, path)
    return 1


def _print_shrunk(
    shrunk: ShrinkResult, later: Schedule | None, catalogue: Catalogue, directory: Path, path: Path
) -> None:
    entry = catalogue[shrunk.mark.rpartition("/")[2]].entry if not shrunk.mark.startswith("crash/") else None
    spent = "" if shrunk.is_complete else " (the limit)"
    operation_count = len(shrunk.schedule.operations)
    print(
        f"{shrunk.mark}: {shrunk.operations_before} operations, now {operation_count}, in {shrunk.plays} plays{spent}"
    )
    print("\n".join(f"  {line}" for line in shrunk.schedule.describe()))
    print(f"BREACH  {shrunk.explanation}")
    if entry is not None:
        print(f"        {entry.statement}\n        {' '.join(entry.implication.split())}")
    if later is not None:
        print(f"from a snapshot: {directory / 'shrunk-from-a-snapshot.json'}")
        print("\n".join(f"  {line}" for line in later.describe()))
    print(f"schedule {path}, test {directory / 'test_shrunk.py'}, timeline {directory / 'timeline.html'}")


def run_corpus(arguments: argparse.Namespace) -> int:
    """Return 0 when the corpus is intact and its schedules end as expected, else 1."""
    corpus = Corpus(arguments.corpus)
    catalogue = Catalogue.load(*arguments.catalogue)
    store = RecordingStore(arguments.recordings) if getattr(arguments, "recordings", None) else None
    problems: list[str] = []
    not_at_hand: list[str] = []
    if arguments.what == "add" and arguments.witness:
        schedule, schedule_store = load_schedule(arguments.schedule, arguments.recordings)
        check_trust(schedule, arguments.schedule.name, is_trusted=arguments.trust)
        counts = save_new_witnesses(corpus, [schedule], schedule_store, catalogue, lock=arguments.lock)
        if not counts["new"]:
            raise ValueError(f"{arguments.schedule.name}: every cell that it reaches has a witness already")
    elif arguments.what == "add":
        corpus.add(read_schedule(arguments.schedule), arguments.name, arguments.why)
    elif arguments.what == "retire":
        corpus.retire(arguments.name, arguments.why, arguments.by)
    else:
        problems = corpus.check()
    if arguments.what == "play" and not problems:
        result = replay_with_progress(corpus, store, catalogue, trusted_subjects=None if arguments.trust else ())
        problems, not_at_hand = result.problems, result.without_recordings
    witnesses = corpus.witnesses() if not problems else Witnesses()
    if arguments.json:
        summary: dict[str, Any] = {"corpus": str(arguments.corpus), "schedules": len(corpus.entries)}
        summary |= {"witnesses": len(witnesses.lines), "cells": len(witnesses.cells)}
        summary |= {"problems": problems, "not_at_hand": not_at_hand}
        if arguments.what == "list":
            summary |= corpus_json(corpus, witnesses)
        print(json.dumps(summary))
        return 1 if problems else 0
    if arguments.what == "list":
        print(corpus_text(corpus, witnesses, cells=arguments.cells))
    for problem in problems:
        print(f"- {problem}")
    if not_at_hand:
        print(f"not played, because their recordings are missing: {', '.join(not_at_hand)}")
    print(
        f"{len(corpus.entries)} schedules, {len(witnesses.lines)} witnesses of {len(witnesses.cells)} cells"
        + ("" if problems else ", intact")
    )
    return 1 if problems else 0


def run_faults(arguments: argparse.Namespace) -> int:
    """Return 0 when the sweep, the search or the cycle (of those requested) found each fault, else 1."""
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled_store()
    symbols = select_symbols(store, arguments.instrument)
    days = select_days(store, symbols, None, None)[:2]
    ways = [method.strip() for method in arguments.ways.split(",") if method.strip()]
    for method in ways:
        if method not in DETECTION_METHODS:
            hint = suggest_spelling(method, DETECTION_METHODS) or f"; there are {', '.join(DETECTION_METHODS)}"
            raise ValueError(f"no way is called {method!r}{hint}")
    names = arguments.fault or list(FAULTS)
    for fault in names:
        if fault not in FAULTS:
            hint = suggest_spelling(fault, FAULTS) or f"; there are {', '.join(FAULTS)}"
            raise ValueError(f"no seeded fault is called {fault!r}{hint}")
    table = FaultTable(
        store,
        str(arguments.recordings.resolve()) if arguments.recordings else "",
        symbols,
        days,
        make_scratch_directory(),
        budget_s=arguments.budget,
        plays_max=arguments.plays,
        tests=arguments.tests if arguments.tests.is_dir() else None,
    )
    row_store = FaultRowStore(arguments.out, table.key)
    rows: list[FaultRow] = []
    with tqdm(total=len(names), unit="fault", disable=None, file=sys.stderr, leave=False) as bar:
        for name in names:
            if arguments.again:
                row_store.delete(name)
            row = table.find_fault(
                name, [] if arguments.as_is else ways, bar.set_description, row_store.read(name), row_store.write
            )
            rows.append(row)
            bar.update(1)
            if row.schedule is not None:
                row.schedule.save(arguments.out / f"{name}.json")
    if arguments.markdown is not None:
        command = f"holdover faults --ways {arguments.ways}"
        command += f" --instrument {arguments.instrument}" if arguments.instrument else ""
        page = faults_page(rows, ways, command, symbols, days)
        write_report(arguments.markdown, page)
    print(msgspec.json.encode(rows).decode() if arguments.json else faults_text(rows, ways))
    deep = [method for method in ways if method in ("sweep", "search", "cycle")]
    missed = [
        row for row in rows if deep and not any(method in row.cells and row.cells[method].is_found for method in deep)
    ]
    return 1 if missed else 0
