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
from holdover.cli.commands import add_verb
from holdover.cli.corpus_replay import replay_corpus_first
from holdover.cli.cycle import select_days, select_symbols
from holdover.cli.options import (
    add_catalogue_option,
    add_fault_option,
    add_instrument_option,
    add_json_option,
    add_out_option,
    add_recordings_option,
    add_seed_option,
    add_subject_option,
    add_trust_option,
)
from holdover.explore.corpus import Corpus
from holdover.explore.pairs import SECOND_KINDS
from holdover.explore.pool import connect_dask, make_process_pool
from holdover.explore.sweep import SweepResult, schedule_from_result, sweep, sweep_pairs
from holdover.explore.walk import ALL_KINDS, SweepSpec, open_recordings
from holdover.harness.player import PlayResult, play
from holdover.harness.schedule import read_schedule
from holdover.harness.snapshot import Snapshot
from holdover.harness.subject import Plan, SubjectError, resolve_factory
from holdover.harness.trust import check_trust
from holdover.model.spelling import suggest_spelling
from holdover.recording import RecordingStore, bundled_store
from holdover.report import pairs_json, pairs_text, play_text, sweep_json, sweep_text
from holdover.runtime.files import check_output_directory, claim_output_directory, write_report


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    parser = add_verb(
        verbs,
        "sweep",
        "holdover sweep --instrument ACME --kinds kill,disconnect --budget 60",
        {0: "every trial holds", 1: "a trial has a breach", 3: "could not tell: stopped early or a trial is undecided"},
        details="Each trial does one fault at one point of the day and follows the run until its state is again that "
        "of the undisturbed day. A sweep that was stopped continues when the same command runs again.",
        run=run_sweep,
    )
    add_spec_options(parser)
    _add_sweep_options(parser)
    _add_pool_options(parser)
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="play this corpus first")
    add_trust_option(parser)
    parser.add_argument("--fresh", action="store_true", help="start over instead of continuing an earlier sweep")
    add_out_option(parser, "out/sweep", "the log, the summary and failing schedules")
    add_json_option(parser)
    replay_parser = add_verb(
        verbs,
        "replay",
        "holdover replay out/sweep/found-0.json",
        {0: "every invariant holds", 1: "an invariant is breached", 3: "could not tell: the run failed"},
        run=run_replay,
    )
    replay_parser.add_argument("schedule", type=Path, metavar="SCHEDULE", help="the schedule to play, JSON")
    add_recordings_option(replay_parser)
    add_catalogue_option(replay_parser)
    add_trust_option(replay_parser)
    add_out_option(replay_parser, "out/replay", "the journal")
    replay_parser.add_argument("--to-breach", action="store_true", help="stop at the first breach")
    add_json_option(replay_parser)


def _add_sweep_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kinds", metavar="KIND[,KIND...]", help=f"the kinds of fault, of {','.join(ALL_KINDS)}; default: all"
    )
    parser.add_argument(
        "--day", metavar="DAY", help="the day to sweep, YYYY-MM-DD; default: the first that follows a recorded day"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=0,
        metavar="SECONDS",
        help="stop after so many seconds; default: no limit",
    )
    parser.add_argument("--classes", action="store_true", help="cut the link once a step instead of at every mutation")
    parser.add_argument(
        "--pairs",
        nargs="?",
        const=",".join(SECOND_KINDS),
        metavar="KIND[,KIND...]",
        help=f"try a second fault of these kinds after each first one; without a value {','.join(SECOND_KINDS)}",
    )
    parser.add_argument(
        "--within",
        type=float,
        default=30,
        metavar="SECONDS",
        help="for --pairs: the longest time between the two faults (default 30)",
    )
    parser.add_argument(
        "--since",
        type=float,
        metavar="FRACTION",
        help="the begin of the swept part of the day (default 0.0; with --pairs 0.5)",
    )
    parser.add_argument(
        "--until",
        type=float,
        metavar="FRACTION",
        help="the end of the swept part of the day (default 1.0; with --pairs 0.505)",
    )
    parser.add_argument(
        "--upgrade",
        default="",
        metavar="MODULE:NAME",
        help="the version that the fault `upgrade` starts; default: the subject itself",
    )
    parser.add_argument("--to-breach", action="store_true", help="stop at the first breach")


def _add_pool_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, metavar="N", help="pieces to run at a time; default: 2, or what the cluster has"
    )
    parser.add_argument(
        "--executor",
        choices=("processes", "dask"),
        default="processes",
        help="what runs the pieces (processes)",
    )
    parser.add_argument("--scheduler", default="", metavar="HOST:PORT", help="the Dask scheduler, for --executor dask")


def add_spec_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select what to explore."""
    add_subject_option(parser)
    add_recordings_option(parser)
    add_instrument_option(parser)
    add_seed_option(parser)
    add_fault_option(parser)
    add_catalogue_option(parser)


def spec_from_options(arguments: argparse.Namespace, day: str | None = None, kinds: str | None = None) -> SweepSpec:
    """Return the sweep specification of the options. Raises `ValueError` that lists the available days."""
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled_store()
    symbols = select_symbols(store, arguments.instrument)
    days = select_days(store, symbols, None, None)
    if day is not None and day not in days:
        raise ValueError(f"no recording of {', '.join(symbols)} on {day}; available: {', '.join(days)}")
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
            hint = suggest_spelling(name, ALL_KINDS) or f"; there are {', '.join(ALL_KINDS)}"
            raise ValueError(f"no kind is called {name!r}{hint}")
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
    claim_output_directory(arguments.out)
    if arguments.corpus is not None and not replay_corpus_first(
        Corpus(arguments.corpus),
        open_recordings(spec),
        Catalogue.load(*arguments.catalogue),
        trusted_subjects=None if arguments.trust else [arguments.subject],
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
    write_report(arguments.out / "sweep.json", json.dumps(summary, indent=1))
    text = (
        pairs_text(result, spec, output_directory) if isinstance(result, list) else sweep_text(result, output_directory)
    )
    print(json.dumps(summary) if arguments.json else text)
    verdicts = [swept.verdict for swept in results]
    if any(swept.is_stopped for swept in results):
        done, total = sum(swept.pieces_done for swept in results), sum(swept.pieces for swept in results)
        print(
            f"holdover: stopped; {done} of {total} pieces are saved in {arguments.out}; to continue, run it again",
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
    check_trust(schedule, arguments.schedule.name, is_trusted=arguments.trust)
    check_output_directory(arguments.out)
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
