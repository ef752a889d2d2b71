"""`holdover sweep`, `replay`: every point of a day tried; a schedule played again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from holdover.catalogue import Catalogue
from holdover.cli.cycle import chosen_days, chosen_symbols
from holdover.cli.kept import played_first
from holdover.explore.corpus import Corpus
from holdover.explore.pairs import SECONDS
from holdover.explore.play import Played, play
from holdover.explore.pool import dask, processes
from holdover.explore.schedule import read_schedule
from holdover.explore.sweep import Swept, schedule_of, sweep, sweep_pairs
from holdover.explore.walk import ALL_KINDS, Ground, store_of
from holdover.harness.snapshot import Snapshot
from holdover.harness.subject import BadSubject, Plan, factory_named
from holdover.recording import RecordingStore, bundled
from holdover.report import pairs_json, pairs_text, played_text, sweep_json, sweep_text


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    parser = verbs.add_parser("sweep", help="every fault at every mutation and message of a recorded day")
    add_ground(parser)
    parser.add_argument("--kinds", help=f"some of {','.join(ALL_KINDS)}; without it all")
    parser.add_argument("--day", help="the day that is swept; without it the first that has a recorded day before it")
    parser.add_argument("--budget", type=float, default=0, help="seconds; without it until every point has run")
    parser.add_argument("--workers", type=int, help="how many pieces at a time; without it 2, or what the cluster has")
    parser.add_argument("--executor", choices=("processes", "dask"), default="processes", help="who does the pieces")
    parser.add_argument("--scheduler", default="", help="HOST:PORT of the Dask scheduler")
    parser.add_argument("--classes", action="store_true", help="cut the link once a step, and not at every mutation")
    parser.add_argument(
        "--pairs",
        nargs="?",
        const=",".join(SECONDS),
        help=f"after each fault a second one of these kinds; without a value {','.join(SECONDS)}",
    )
    parser.add_argument(
        "--within", type=float, default=30, help="how long after the first the second may come, seconds"
    )
    parser.add_argument("--since", type=float, help="from where in the day, as a fraction; 0.0, and 0.5 for pairs")
    parser.add_argument("--until", type=float, help="up to where in the day; 1.0, and 0.505 for pairs")
    parser.add_argument("--upgrade", default="", help="MODULE:NAME that `upgrade` brings up; without it the subject")
    parser.add_argument("--to-breach", action="store_true", help="stop at the first breach")
    parser.add_argument("--corpus", type=Path, help="a corpus that is played first")
    parser.add_argument("--fresh", action="store_true", help="begin anew where an earlier sweep has left its log")
    parser.add_argument("--out", type=Path, default=Path("out/sweep"))
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(run=run_sweep)
    again = verbs.add_parser("replay", help="play a schedule, to the same journal anywhere")
    again.add_argument("schedule", type=Path)
    again.add_argument("--recordings", type=Path, help="a folder of recordings; without it the bundled simulated ones")
    again.add_argument("--catalogue", action="append", default=[], help="a folder or package of further invariants")
    again.add_argument("--out", type=Path, default=Path("out/replay"))
    again.add_argument("--to-breach", action="store_true", help="end at the first breach")
    again.add_argument("--json", action="store_true")
    again.set_defaults(run=run_replay)


def add_ground(parser: argparse.ArgumentParser) -> None:
    """The options that say on what to explore."""
    parser.add_argument("--subject", default="desk", help="desk (the default), or MODULE:NAME")
    parser.add_argument("--recordings", type=Path, help="a folder of recordings; without it the bundled simulated ones")
    parser.add_argument("--instrument", help="SYM[,SYM...]; without it the first at hand")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], help="switch a seeded fault of the desk on")
    parser.add_argument("--catalogue", action="append", default=[], help="a folder or package of further invariants")


def ground_of(arguments: argparse.Namespace, day: str | None = None, kinds: str | None = None) -> Ground:
    """What the options name. Raises `ValueError` with what is at hand instead."""
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled()
    symbols = chosen_symbols(store, arguments.instrument)
    days = chosen_days(store, symbols, None, None)
    if day is not None and day not in days:
        raise ValueError(f"no recording of {', '.join(symbols)} on {day}; at hand: {', '.join(days)}")
    swept = days.index(day) if day is not None else min(1, len(days) - 1)
    if day is None and len(days) == 2:
        swept = 0  # so that there is a day to go over the night into
    metas = [store.get(symbol, one).meta for one in days for symbol in symbols]
    factory_named(arguments.subject)(Plan(days=metas, seed=arguments.seed, faults=tuple(arguments.fault)))
    wanted = kinds_named(kinds) if kinds else list(ALL_KINDS)
    return Ground(
        symbols=symbols,
        days=days[max(swept - 1, 0) : swept + 2],
        day=days[swept],
        recordings=str(arguments.recordings.resolve()) if arguments.recordings else "",
        subject=arguments.subject,
        seed=arguments.seed,
        faults=arguments.fault,
        catalogue=arguments.catalogue,
        kinds=wanted,
    )


def kinds_named(said: str) -> list[str]:
    """The kinds in a list with commas. Raises `ValueError` for one that there is not."""
    wanted = [one.strip() for one in said.split(",") if one.strip()]
    for one in wanted:
        if one not in ALL_KINDS:
            raise ValueError(f"no kind is called {one!r}; there are {', '.join(ALL_KINDS)}")
    return wanted


@contextmanager
def pool_of(arguments: argparse.Namespace) -> Iterator[tuple[Callable[[], Executor], int]]:
    """What makes the pool that the options ask for, and how many pieces to give it at a time."""
    if arguments.workers is not None and arguments.workers < 1:
        raise ValueError(f"--workers is {arguments.workers}, should be 1 or more")
    if arguments.executor == "processes":
        if arguments.scheduler:
            raise ValueError("--scheduler is for --executor dask")
        workers = arguments.workers or 2
        yield lambda: processes(workers), workers
        return
    if not arguments.scheduler:
        raise ValueError("--executor dask needs --scheduler HOST:PORT")
    with dask(arguments.scheduler) as client:
        workers = arguments.workers or max(sum(client.nthreads().values()), 1)
        yield lambda: client.get_executor(pure=False), workers


class Bar:
    """The progress line: trials, rate, new cells, breaches, time left; nothing where standard error is no terminal.

    How many pairs there will be nobody knows before they are tried: there it counts the first faults that are done.
    """

    def __init__(self, unit: str) -> None:
        self._bar: Any = None
        self._unit = unit
        self._of: Any = None

    def __call__(self, swept: Swept, whole: int, said: str) -> None:
        """Show how far it has come."""
        if self._of != swept.ground:
            self.close()
            self._of = swept.ground
            self._bar = tqdm(total=whole, unit=self._unit, disable=None, file=sys.stderr, leave=False, smoothing=0.1)
        if said:
            tqdm.write(f"holdover: {said}", file=sys.stderr)
        done = min(swept.done * whole // max(swept.pieces, 1), whole) if swept.ground.pairs else swept.trials
        self._bar.update(done - self._bar.n)
        breaches = sum(count for key, count in swept.counts.items() if key.endswith("/breach"))
        pairs = f"{swept.trials:,} pairs, " if swept.ground.pairs else ""
        self._bar.set_postfix_str(f"{pairs}{len(swept.cells)} new cells, {breaches} breaches", refresh=False)

    def close(self) -> None:
        """Take the line away."""
        if self._bar is not None:
            self._bar.close()


def run_sweep(arguments: argparse.Namespace) -> int:
    """0 when every trial holds, 1 at a breach, 3 when it could not be told."""
    ground = swept_ground(arguments)
    if arguments.corpus is not None and not played_first(
        Corpus(arguments.corpus), store_of(ground), Catalogue.load(*arguments.catalogue)
    ):
        return 1
    if arguments.fresh:
        for log in (arguments.out / "sweep.jsonl", *arguments.out.glob("crossing-*/sweep.jsonl")):
            log.unlink(missing_ok=True)
    bar = Bar("first" if ground.pairs else "trial")
    try:
        with pool_of(arguments) as (executor, workers):
            does = sweep_pairs if ground.pairs else sweep
            done = does(
                ground,
                arguments.out,
                executor,
                workers=workers,
                budget_s=arguments.budget,
                progress=bar,
                to_breach=arguments.to_breach,
            )
    finally:
        bar.close()
    every = done if isinstance(done, list) else [done]
    found = [(swept, one) for swept in every for one in first_of_each(swept)]
    for number, (swept, one) in enumerate(found):
        schedule_of(swept.ground, one).save(arguments.out / f"found-{number}.json")
    out = str(arguments.out)
    told = pairs_json(done, ground, out) if isinstance(done, list) else sweep_json(done, out)
    (arguments.out / "sweep.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    text = pairs_text(done, ground, out) if isinstance(done, list) else sweep_text(done, out)
    print(json.dumps(told) if arguments.json else text)
    verdicts = [swept.verdict for swept in every]
    if any(swept.stopped for swept in every):
        pieces = f"{sum(one.done for one in every)} of {sum(one.pieces for one in every)}"
        print(
            f"holdover: stopped; {pieces} pieces are kept in {arguments.out}, and the same command goes on from there",
            file=sys.stderr,
        )
        return 1 if "breach" in verdicts else 3
    return 1 if "breach" in verdicts else 3 if "unknown" in verdicts or not verdicts else 0


def swept_ground(arguments: argparse.Namespace) -> Ground:
    """The ground that the options of a sweep name. Raises `ValueError` for options that make no sense together."""
    pairs = kinds_named(arguments.pairs) if arguments.pairs is not None else []
    since = arguments.since if arguments.since is not None else 0.5 if pairs else 0.0
    until = arguments.until if arguments.until is not None else max(since + 0.005, 0.505) if pairs else 1.0
    if not 0.0 <= since < until <= 1.0:
        raise ValueError(f"--since {since} --until {until}: should be fractions of the day, the first below the second")
    if arguments.within <= 0:
        raise ValueError(f"--within is {arguments.within}, should be more than 0 seconds")
    if arguments.upgrade:
        factory_named(arguments.upgrade)
    return msgspec.structs.replace(
        ground_of(arguments, arguments.day, arguments.kinds),
        every=not arguments.classes and not pairs,
        since=since,
        until=until,
        pairs=pairs,
        within_ns=int(arguments.within * 1_000_000_000),
        upgrade=arguments.upgrade,
    )


def first_of_each(swept: Swept) -> list[Any]:
    """The first trial of each thing found: kind, oracle and invariant."""
    found: dict[tuple[str, str, str], Any] = {}
    for one in swept.found:
        found.setdefault((one.named, one.oracle, one.invariant), one)
    return list(found.values())


def run_replay(arguments: argparse.Namespace) -> int:
    """0 holds, 1 breach, 3 could not tell."""
    schedule = read_schedule(arguments.schedule)
    try:
        factory_named(schedule.subject)
    except BadSubject as problem:
        raise ValueError(f"{arguments.schedule.name}: {problem}") from problem
    began = None if schedule.start == "fresh" else Snapshot.open(arguments.schedule.parent / schedule.start)
    played = play(
        schedule,
        arguments.out,
        snapshot=began,
        recordings=arguments.recordings,
        catalogue=Catalogue.load(*arguments.catalogue),
        to_breach=arguments.to_breach,
    )
    print(json.dumps(played_json(played)) if arguments.json else played_text(played))
    return {"holds": 0, "breach": 1}.get(played.verdict, 3)


def played_json(played: Played) -> dict[str, Any]:
    """What became of a schedule, as one object."""
    return {
        "verdict": played.verdict,
        "schedule": played.schedule.digest,
        "expect": played.schedule.expect,
        "found": played.mark,
        "mutations": played.mutations,
        "market_events": played.market_events,
        "operations_done": played.done,
        "breaches": [
            {
                "invariant": one.invariant,
                "subsystem": one.subsystem,
                "scope": one.scope,
                "key": one.key,
                "time_ns": one.time_ns,
                "mutation": one.mutation,
                "explanation": one.explanation,
                "cell": one.cell,
                "after": one.after,
            }
            for one in played.breaches
        ],
        "crash": played.crash,
        "journal": str(played.journal or ""),
        "journal_sha256": played.journal_digest(),
    }
