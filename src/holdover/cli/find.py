"""`holdover search`, `shrink`, `corpus`, `faults`: find what fails, make it small, keep it, show that it is found."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from holdover.catalogue import Catalogue
from holdover.cli.cycle import chosen_days, chosen_symbols
from holdover.cli.explore import add_ground
from holdover.cli.kept import axes_of, keep_witnesses, played_first, replayed
from holdover.coverage.lock import NAME
from holdover.desk.faults import FAULTS
from holdover.explore.corpus import Corpus
from holdover.explore.faulted import WAYS, Row, Rows, Table
from holdover.explore.play import store_for
from holdover.explore.schedule import KINDS, Schedule, read_schedule
from holdover.explore.search import SEARCHED, Search, Searched
from holdover.explore.shrink import Shrinker, from_a_snapshot, pytest_function
from holdover.explore.walk import scratch_place
from holdover.explore.witness import Witnesses
from holdover.harness.subject import Plan, factory_named
from holdover.recording import RecordingStore, bundled
from holdover.report import (
    corpus_json,
    corpus_text,
    faults_page,
    faults_text,
    search_json,
    search_text,
    timeline_page,
)
from holdover.runtime.files import write_whole


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    search = verbs.add_parser("search", help="look for what fails, from an archive of states")
    add_ground(search)
    search.add_argument("--budget", type=float, default=60, help="seconds")
    search.add_argument("--bursts", type=int, default=0, help="so many bursts, whatever the time")
    search.add_argument("--kinds", help=f"some of {','.join(SEARCHED)}; without it all")
    search.add_argument("--until", type=float, default=1.0, help="only so far into each day, as a fraction")
    search.add_argument("--to-breach", action="store_true", help="stop at the first breach")
    search.add_argument("--corpus", type=Path, help="a corpus: played first; gets a witness for each new cell")
    search.add_argument("--out", type=Path, default=Path("out/search"))
    search.add_argument("--json", action="store_true")
    search.set_defaults(run=run_search)
    shrink = verbs.add_parser("shrink", help="the shortest story that fails in the same way")
    shrink.add_argument("schedule", type=Path)
    shrink.add_argument("--recordings", type=Path)
    shrink.add_argument("--catalogue", action="append", default=[])
    shrink.add_argument("--mark", default="", help="SUBSYSTEM/INVARIANT to shrink for; without it the first breached")
    shrink.add_argument("--plays", type=int, default=400, help="how many plays it may take")
    shrink.add_argument("--out", type=Path, default=Path("out/shrink"))
    shrink.add_argument("--json", action="store_true")
    shrink.set_defaults(run=run_shrink)
    _corpus(verbs.add_parser("corpus", help="schedules that are kept: check, play, add, retire"))
    faults = verbs.add_parser("faults", help="each seeded fault of the desk, looked for in each way")
    faults.add_argument("--fault", action="append", default=[], help="only these; without it all")
    faults.add_argument("--ways", default=",".join(WAYS), help=f"some of {','.join(WAYS)}")
    faults.add_argument("--budget", type=float, default=60, help="seconds for each way and fault")
    faults.add_argument("--plays", type=int, default=600, help="how many plays shrinking may take")
    faults.add_argument("--tests", type=Path, default=Path("tests"), help="where the project's own tests are")
    faults.add_argument("--recordings", type=Path)
    faults.add_argument("--instrument")
    faults.add_argument("--out", type=Path, default=Path("out/faults"), help="rows that are there already stand")
    faults.add_argument("--again", action="store_true", help="look again for what has a row already")
    faults.add_argument("--as-is", action="store_true", help="look for nothing, tell what is there")
    faults.add_argument("--markdown", type=Path, help="a file for the table as a page")
    faults.add_argument("--json", action="store_true")
    faults.set_defaults(run=run_faults)


def _corpus(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    check = what.add_parser("check", help="whether anything is gone, changed or slipped in")
    told = what.add_parser("list", help="what is in it, and what was taken out, with the reasons")
    told.add_argument("--cells", action="store_true", help="each cell with its witness")
    replay = what.add_parser(
        "play", help="play all of it: schedules must end as they should, witnesses reach their cells"
    )
    replay.add_argument("--recordings", type=Path)
    add = what.add_parser("add", help="add a schedule")
    add.add_argument("schedule", type=Path)
    kind = add.add_mutually_exclusive_group(required=True)
    kind.add_argument("--name", help="such as regressions/NAME.json")
    kind.add_argument("--witness", action="store_true", help="as the witness of the cells that have none")
    add.add_argument("--why", default="", help="why it is there; a witness needs none")
    add.add_argument("--recordings", type=Path)
    retire = what.add_parser("retire", help="take a schedule, a witness or a cell out, with a reason")
    retire.add_argument("name")
    retire.add_argument("--why", required=True)
    retire.add_argument("--by", required=True)
    for one in (check, told, replay, add, retire):
        one.add_argument("--corpus", type=Path, default=Path("corpus"))
        one.add_argument("--lock", type=Path, help=f"the lock file that names the axes, without it {NAME} here")
        one.add_argument("--catalogue", action="append", default=[])
        one.add_argument("--json", action="store_true")
        one.set_defaults(run=run_corpus)


def run_search(arguments: argparse.Namespace) -> int:
    """0 when nothing was found, 1 when something was, 3 when what was found does not show from the beginning."""
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled()
    symbols = chosen_symbols(store, arguments.instrument)
    days = chosen_days(store, symbols, None, None)[:2]
    if not 0.0 < arguments.until <= 1.0:
        raise ValueError(f"--until is {arguments.until}, should be over 0.0 and up to 1.0")
    kinds = [one.strip() for one in arguments.kinds.split(",")] if arguments.kinds else list(SEARCHED)
    for one in kinds:
        if one not in KINDS:
            raise ValueError(f"no kind is called {one!r}; there are {', '.join(SEARCHED)}")
    metas = [store.get(symbol, day).meta for day in days for symbol in symbols]
    factory_named(arguments.subject)(Plan(days=metas, seed=arguments.seed, faults=tuple(arguments.fault)))
    catalogue = Catalogue.load(*arguments.catalogue)
    corpus = None
    if arguments.corpus is not None:
        corpus = Corpus(arguments.corpus)
        if arguments.corpus.exists() and not played_first(corpus, store, catalogue, witnesses=False):
            return 1
    searcher = Search(
        store,
        symbols,
        days,
        scratch_place(),
        subject=arguments.subject,
        seed=arguments.seed,
        faults=arguments.fault,
        catalogue=catalogue,
        kinds=kinds,
        axes=axes_of(corpus),
        until=arguments.until,
    )
    doubtful: set[str] = set()
    line = SearchLine(0 if arguments.bursts else arguments.budget, arguments.bursts)
    try:
        if corpus is not None:
            held = corpus.witnesses()
            searcher.take_up([held.schedule(one) for one in held.lines], line.taking_up)
            doubtful = held.cells.keys() - searcher.told
        done = searcher.run(
            budget_s=0 if arguments.bursts else arguments.budget,
            bursts=arguments.bursts,
            to_breach=arguments.to_breach,
            progress=line,
        )
    finally:
        line.close()
        searcher.close()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, found in enumerate(done.found):
        found.schedule.save(arguments.out / f"found-{number}.json")
    told = search_json(done, str(arguments.out))
    if corpus is not None and not arguments.fault:
        told["witnesses"] = keep_witnesses(corpus, done.witnesses, store, catalogue, doubtful=doubtful)
    if arguments.json:
        print(json.dumps(told))
    else:
        print(search_text(done, symbols, days, str(arguments.out)))
        if "witnesses" in told:
            print("{schedules} witnesses of {cells} cells, {new} of them new".format(**told["witnesses"]))
    return {"holds": 0, "breach": 1}.get(done.verdict, 3)


class SearchLine:
    """The progress line: bursts, rate, cells and new ones, breaches, time left; nothing where there is no terminal."""

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

    def taking_up(self, schedule: Schedule) -> None:
        """A schedule that is known is being played."""
        self._bar.set_postfix_str(f"playing {schedule.name}")

    def __call__(self, done: Searched) -> None:
        """Show how far it has come."""
        left = self._budget_s - done.seconds
        if self._bursts:
            left = (self._bursts - done.bursts) * done.seconds / max(done.bursts, 1)
        self._bar.set_postfix_str(
            f"{done.cells} cells, {done.transitions} transitions in cells, {done.new} new, "
            f"{done.breaches} breaches, {max(left, 0):.0f} s left",
            refresh=False,
        )
        self._bar.update(done.bursts - self._bar.n)

    def close(self) -> None:
        """Take the line away."""
        self._bar.close()


def run_shrink(arguments: argparse.Namespace) -> int:
    """1: what was shrunk fails, as it must; 2 when it does not fail at all."""
    schedule = read_schedule(arguments.schedule)
    store = store_for(schedule, arguments.recordings)
    catalogue = Catalogue.load(*arguments.catalogue)
    with tqdm(total=arguments.plays, unit="play", disable=None, file=sys.stderr, leave=False) as bar:

        def progress(plays: int, operations: int) -> None:
            bar.update(plays - bar.n)
            bar.set_postfix_str(f"{operations} operations", refresh=False)

        shrunk = Shrinker(
            schedule,
            store,
            scratch_place(),
            catalogue=catalogue,
            mark=arguments.mark,
            plays_max=arguments.plays,
            progress=progress,
        ).shrink()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = shrunk.schedule.save(arguments.out / "shrunk.json")
    later = from_a_snapshot(shrunk.schedule, store, scratch_place(), arguments.out, catalogue, shrunk.mark)
    if later is not None:
        later.save(arguments.out / "shrunk-from-a-snapshot.json")
    test = pytest_function(shrunk.schedule, shrunk.explanation)
    (arguments.out / "test_shrunk.py").write_text(test, encoding="utf-8")
    page = timeline_page(shrunk.schedule, store, arguments.out / "timeline", catalogue)
    (arguments.out / "timeline.html").write_text(page, encoding="utf-8")
    if arguments.json:
        told = {
            "mark": shrunk.mark,
            "operations": {"before": shrunk.before, "after": len(shrunk.schedule.operations)},
            "plays": shrunk.plays,
            "whole": shrunk.whole,
            "explanation": shrunk.explanation,
            "story": shrunk.schedule.story(),
            "schedule": str(path),
            "settings": shrunk.schedule.settings,
            "from_a_snapshot": str(arguments.out / "shrunk-from-a-snapshot.json") if later is not None else "",
            "test": str(arguments.out / "test_shrunk.py"),
            "timeline": str(arguments.out / "timeline.html"),
        }
        print(json.dumps(told))
    else:
        entry = catalogue[shrunk.mark.rpartition("/")[2]].entry if not shrunk.mark.startswith("crash/") else None
        spent = "" if shrunk.whole else " (all that were allowed)"
        left = len(shrunk.schedule.operations)
        print(f"{shrunk.mark}: {shrunk.before} operations, now {left}, in {shrunk.plays} plays{spent}")
        print("\n".join(f"  {line}" for line in shrunk.schedule.story()))
        print(f"BREACH  {shrunk.explanation}")
        if entry is not None:
            print(f"        {entry.statement}\n        {' '.join(entry.implication.split())}")
        if later is not None:
            print(f"from a snapshot: {arguments.out / 'shrunk-from-a-snapshot.json'}")
            print("\n".join(f"  {line}" for line in later.story()))
        print(f"schedule {path}, test {arguments.out / 'test_shrunk.py'}, timeline {arguments.out / 'timeline.html'}")
    return 1


def run_corpus(arguments: argparse.Namespace) -> int:
    """0 when it is whole and all of it is as expected, 1 when not."""
    corpus = Corpus(arguments.corpus)
    catalogue = Catalogue.load(*arguments.catalogue)
    store = RecordingStore(arguments.recordings) if getattr(arguments, "recordings", None) else None
    problems: list[str] = []
    not_at_hand: list[str] = []
    if arguments.what == "add" and arguments.witness:
        schedule = read_schedule(arguments.schedule)
        kept = keep_witnesses(
            corpus, [schedule], store_for(schedule, arguments.recordings), catalogue, lock=arguments.lock
        )
        if not kept["new"]:
            raise ValueError(f"{arguments.schedule.name}: reaches no cell that has no witness yet")
    elif arguments.what == "add":
        corpus.add(read_schedule(arguments.schedule), arguments.name, arguments.why)
    elif arguments.what == "retire":
        corpus.retire(arguments.name, arguments.why, arguments.by)
    else:
        problems = corpus.check()
    if arguments.what == "play" and not problems:
        done = replayed(corpus, store, catalogue)
        problems, not_at_hand = done.problems, done.not_at_hand
    held = corpus.witnesses() if not problems else Witnesses()
    if arguments.json:
        told: dict[str, Any] = {"corpus": str(arguments.corpus), "schedules": len(corpus.listed)}
        told |= {"witnesses": len(held.lines), "cells": len(held.cells)}
        told |= {"problems": problems, "not_at_hand": not_at_hand}
        if arguments.what == "list":
            told |= corpus_json(corpus, held)
        print(json.dumps(told))
        return 1 if problems else 0
    if arguments.what == "list":
        print(corpus_text(corpus, held, cells=arguments.cells))
    for problem in problems:
        print(f"- {problem}")
    if not_at_hand:
        print(f"not played, since their recordings are not at hand: {', '.join(not_at_hand)}")
    print(
        f"{len(corpus.listed)} schedules, {len(held.lines)} witnesses of {len(held.cells)} cells"
        + ("" if problems else ", whole")
    )
    return 1 if problems else 0


def run_faults(arguments: argparse.Namespace) -> int:
    """0 when each fault was found by the sweep or the search (of those asked for), 1 when one was not."""
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled()
    symbols = chosen_symbols(store, arguments.instrument)
    days = chosen_days(store, symbols, None, None)[:2]
    ways = [one.strip() for one in arguments.ways.split(",") if one.strip()]
    for one in ways:
        if one not in WAYS:
            raise ValueError(f"no way is called {one!r}; there are {', '.join(WAYS)}")
    names = arguments.fault or list(FAULTS)
    for one in names:
        if one not in FAULTS:
            raise ValueError(f"no seeded fault is called {one!r}; there are {', '.join(FAULTS)}")
    table = Table(
        store,
        str(arguments.recordings.resolve()) if arguments.recordings else "",
        symbols,
        days,
        scratch_place(),
        budget_s=arguments.budget,
        plays_max=arguments.plays,
        tests=arguments.tests if arguments.tests.is_dir() else None,
    )
    kept = Rows(arguments.out, table.key)
    rows: list[Row] = []
    with tqdm(total=len(names), unit="fault", disable=None, file=sys.stderr, leave=False) as bar:
        for name in names:
            if arguments.again:
                kept.forget(name)
            row = table.row(name, [] if arguments.as_is else ways, bar.set_description, kept.read(name), kept.write)
            rows.append(row)
            bar.update(1)
            if row.schedule is not None:
                row.schedule.save(arguments.out / f"{name}.json")
    if arguments.markdown is not None:
        asked = f"holdover faults --ways {arguments.ways}"
        asked += f" --instrument {arguments.instrument}" if arguments.instrument else ""
        page = faults_page(rows, ways, asked, symbols, days)
        write_whole(arguments.markdown, page.encode())
    print(msgspec.json.encode(rows).decode() if arguments.json else faults_text(rows, ways))
    deep = [way for way in ways if way in ("sweep", "search", "cycle")]
    missed = [row for row in rows if deep and not any(way in row.cells and row.cells[way].found for way in deep)]
    return 1 if missed else 0
