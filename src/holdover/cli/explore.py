"""`holdover sweep`, `replay`: try faults at every point of a day; play a schedule again."""

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
from holdover.cli.corpus_replay import replay_corpus_first
from holdover.cli.cycle import select_days, select_symbols
from holdover.explore.corpus import Corpus
from holdover.explore.pairs import SECOND_KINDS
from holdover.explore.player import PlayResult, play
from holdover.explore.pool import connect_dask, make_process_pool
from holdover.explore.schedule import read_schedule
from holdover.explore.sweep import SweepResult, schedule_from_result, sweep, sweep_pairs
from holdover.explore.walk import ALL_KINDS, SweepSpec, open_recordings
from holdover.harness.snapshot import Snapshot
from holdover.harness.subject import Plan, SubjectError, resolve_factory
from holdover.recording import RecordingStore, bundled_store
from holdover.report import pairs_json, pairs_text, play_text, sweep_json, sweep_text


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    parser = verbs.add_parser("sweep", help="every fault at every mutation and message of a recorded day")
    add_spec_options(parser)
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
        const=",".join(SECOND_KINDS),
        help=f"after each fault a second one of these kinds; without a value {','.join(SECOND_KINDS)}",
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
    replay_parser = verbs.add_parser("replay", help="play a schedule, to the same journal anywhere")
    replay_parser.add_argument("schedule", type=Path)
    replay_parser.add_argument(
        "--recordings", type=Path, help="a folder of recordings; without it the bundled simulated ones"
    )
    replay_parser.add_argument(
        "--catalogue", action="append", default=[], help="a folder or package of further invariants"
    )
    replay_parser.add_argument("--out", type=Path, default=Path("out/replay"))
    replay_parser.add_argument("--to-breach", action="store_true", help="end at the first breach")
    replay_parser.add_argument("--json", action="store_true")
    replay_parser.set_defaults(run=run_replay)


def add_spec_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select what to explore."""
    parser.add_argument("--subject", default="desk", help="desk (the default), or MODULE:NAME")
    parser.add_argument("--recordings", type=Path, help="a folder of recordings; without it the bundled simulated ones")
    parser.add_argument("--instrument", help="SYM[,SYM...]; without it the first at hand")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], help="switch a seeded fault of the desk on")
    parser.add_argument("--catalogue", action="append", default=[], help="a folder or package of further invariants")


def spec_from_options(arguments: argparse.Namespace, day: str | None = None, kinds: str | None = None) -> SweepSpec:
    """Return the sweep specification of the options. Raises `ValueError` that lists the available days."""
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled_store()
    symbols = select_symbols(store, arguments.instrument)
    days = select_days(store, symbols, None, None)
    if day is not None and day not in days:
        raise ValueError(f"no recording of {', '.join(symbols)} on {day}; at hand: {', '.join(days)}")
    day_index = days.index(day) if day is not None else min(1, len(days) - 1)
    if day is None and len(days) == 2:
        day_index = 0  # leaves a day after it for the overnight faults
    metas = [store.get(symbol, trade_date).meta for trade_date in days for symbol in symbols]
    resolve_factory(arguments.subject)(Plan(days=metas, seed=arguments.seed, faults=tuple(arguments.fault)))
    kind_names = parse_kinds(kinds) if kinds else list(ALL_KINDS)
    return SweepSpec(
        symbols=symbols,
        days=days[max(day_index - 1, 0) : day_index + 2],
        day=days[day_index],
        recordings=str(arguments.recordings.resolve()) if arguments.recordings else "",
        subject=arguments.subject,
        seed=arguments.seed,
        faults=arguments.fault,
        catalogue=arguments.catalogue,
        kinds=kind_names,
    )


def parse_kinds(text: str) -> list[str]:
    """Return the kinds in a comma-separated list. Raises `ValueError` for an unknown kind."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ALL_KINDS:
            raise ValueError(f"no kind is called {name!r}; there are {', '.join(ALL_KINDS)}")
    return names


@contextmanager
def open_pool(arguments: argparse.Namespace) -> Iterator[tuple[Callable[[], Executor], int]]:
    """Yield a function that makes the requested pool, and the number of pieces to submit at a time.

    Raises `ValueError` for options that do not fit together, and `PoolError` when there is no Dask scheduler.
    """
    if arguments.workers is not None and arguments.workers < 1:
        raise ValueError(f"--workers is {arguments.workers}, should be 1 or more")
    if arguments.executor == "processes":
        if arguments.scheduler:
            raise ValueError("--scheduler is for --executor dask")
        workers = arguments.workers or 2
        yield lambda: make_process_pool(workers), workers
        return
    if not arguments.scheduler:
        raise ValueError("--executor dask needs --scheduler HOST:PORT")
    with connect_dask(arguments.scheduler) as client:
        workers = arguments.workers or max(sum(client.nthreads().values()), 1)
        yield lambda: client.get_executor(pure=False), workers


class SweepProgress:
    """The progress line of a sweep: trials, rate, new cells, breaches, time left; hidden without a terminal.

    For pairs it counts the finished first faults, since the number of pairs is unknown beforehand.
    """

    def __init__(self, unit: str) -> None:
        self._bar: Any = None
        self._unit = unit
        self._spec: Any = None

    def __call__(self, sweep_result: SweepResult, total: int, message: str) -> None:
        """Update the line and print a message, if any."""
        if self._spec != sweep_result.spec:
            self.close()
            self._spec = sweep_result.spec
            self._bar = tqdm(total=total, unit=self._unit, disable=None, file=sys.stderr, leave=False, smoothing=0.1)
        if message:
            tqdm.write(f"holdover: {message}", file=sys.stderr)
        progress = (
            min(sweep_result.pieces_done * total // max(sweep_result.pieces, 1), total)
            if sweep_result.spec.pairs
            else sweep_result.trials
        )
        self._bar.update(progress - self._bar.n)
        breaches = sum(count for key, count in sweep_result.counts.items() if key.endswith("/breach"))
        pairs = f"{sweep_result.trials:,} pairs, " if sweep_result.spec.pairs else ""
        self._bar.set_postfix_str(f"{pairs}{len(sweep_result.cells)} new cells, {breaches} breaches", refresh=False)

    def close(self) -> None:
        """Remove the line."""
        if self._bar is not None:
            self._bar.close()


def run_sweep(arguments: argparse.Namespace) -> int:
    """Return 0 when every trial holds, 1 for a breach, 3 when undecided."""
    spec = sweep_spec_from_options(arguments)
    if arguments.corpus is not None and not replay_corpus_first(
        Corpus(arguments.corpus), open_recordings(spec), Catalogue.load(*arguments.catalogue)
    ):
        return 1
    if arguments.fresh:
        for log in (arguments.out / "sweep.jsonl", *arguments.out.glob("crossing-*/sweep.jsonl")):
            log.unlink(missing_ok=True)
    bar = SweepProgress("first" if spec.pairs else "trial")
    try:
        with open_pool(arguments) as (executor, workers):
            sweep_function = sweep_pairs if spec.pairs else sweep
            result = sweep_function(
                spec,
                arguments.out,
                executor,
                workers=workers,
                budget_s=arguments.budget,
                progress=bar,
                to_breach=arguments.to_breach,
            )
    finally:
        bar.close()
    results = result if isinstance(result, list) else [result]
    findings = [(sweep_result, trial) for sweep_result in results for trial in list_first_trials(sweep_result)]
    for number, (sweep_result, trial) in enumerate(findings):
        schedule_from_result(sweep_result.spec, trial).save(arguments.out / f"found-{number}.json")
    output_directory = str(arguments.out)
    summary = (
        pairs_json(result, spec, output_directory) if isinstance(result, list) else sweep_json(result, output_directory)
    )
    (arguments.out / "sweep.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    text = (
        pairs_text(result, spec, output_directory) if isinstance(result, list) else sweep_text(result, output_directory)
    )
    print(json.dumps(summary) if arguments.json else text)
    verdicts = [swept.verdict for swept in results]
    if any(swept.is_stopped for swept in results):
        pieces = f"{sum(sweep_result.pieces_done for sweep_result in results)} of {sum(one.pieces for one in results)}"
        print(
            f"holdover: stopped; {pieces} pieces are kept in {arguments.out}, and the same command goes on from there",
            file=sys.stderr,
        )
        return 1 if "breach" in verdicts else 3
    return 1 if "breach" in verdicts else 3 if "unknown" in verdicts or not verdicts else 0


def sweep_spec_from_options(arguments: argparse.Namespace) -> SweepSpec:
    """Return the specification of the sweep options. Raises `ValueError` for options that do not fit together."""
    pairs = parse_kinds(arguments.pairs) if arguments.pairs is not None else []
    begin_fraction = arguments.since if arguments.since is not None else 0.5 if pairs else 0.0
    end_fraction = (
        arguments.until if arguments.until is not None else max(begin_fraction + 0.005, 0.505) if pairs else 1.0
    )
    if not 0.0 <= begin_fraction < end_fraction <= 1.0:
        raise ValueError(
            f"--since {begin_fraction} --until {end_fraction}: "
            "should be fractions of the day, the first below the second"
        )
    if arguments.within <= 0:
        raise ValueError(f"--within is {arguments.within}, should be more than 0 seconds")
    if arguments.upgrade:
        resolve_factory(arguments.upgrade)
    return msgspec.structs.replace(
        spec_from_options(arguments, arguments.day, arguments.kinds),
        every_mutation=not arguments.classes and not pairs,
        begin_fraction=begin_fraction,
        end_fraction=end_fraction,
        pairs=pairs,
        pair_window_ns=int(arguments.within * 1_000_000_000),
        upgrade=arguments.upgrade,
    )


def list_first_trials(sweep_result: SweepResult) -> list[Any]:
    """Return the first trial of each kind, oracle and invariant."""
    first_trials: dict[tuple[str, str, str], Any] = {}
    for trial in sweep_result.findings:
        first_trials.setdefault((trial.kind_name, trial.oracle, trial.invariant), trial)
    return list(first_trials.values())


def run_replay(arguments: argparse.Namespace) -> int:
    """Play a schedule; returns 0 holds, 1 breach, 3 undecided."""
    schedule = read_schedule(arguments.schedule)
    try:
        resolve_factory(schedule.subject)
    except SubjectError as problem:
        raise ValueError(f"{arguments.schedule.name}: {problem}") from problem
    snapshot = None if schedule.start == "fresh" else Snapshot.open(arguments.schedule.parent / schedule.start)
    play_result = play(
        schedule,
        arguments.out,
        snapshot=snapshot,
        recordings=arguments.recordings,
        catalogue=Catalogue.load(*arguments.catalogue),
        to_breach=arguments.to_breach,
    )
    print(json.dumps(play_json(play_result)) if arguments.json else play_text(play_result))
    return {"holds": 0, "breach": 1}.get(play_result.verdict, 3)


def play_json(play_result: PlayResult) -> dict[str, Any]:
    """Return the result of playing a schedule as one JSON object."""
    return {
        "verdict": play_result.verdict,
        "schedule": play_result.schedule.digest,
        "expect": play_result.schedule.expect,
        "found": play_result.mark,
        "mutations": play_result.mutations,
        "market_events": play_result.market_events,
        "operations_done": play_result.operations_done,
        "breaches": [
            {
                "invariant": breach.invariant,
                "subsystem": breach.subsystem,
                "scope": breach.scope,
                "key": breach.key,
                "time_ns": breach.time_ns,
                "mutation": breach.mutation,
                "explanation": breach.explanation,
                "cell": breach.cell,
                "after": breach.after,
            }
            for breach in play_result.breaches
        ],
        "crash": play_result.crash,
        "journal": str(play_result.journal or ""),
        "journal_sha256": play_result.journal_digest(),
    }
