"""`holdover cycle`: runs a system over recorded days, carried from day to day, and compares it with a fresh
start each day.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

from holdover.catalogue import Catalogue
from holdover.cli.commands import add_verb
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
from holdover.coverage import CoverageCollector
from holdover.harness.cycle import CycleResult, run_cycle
from holdover.harness.schedule import DEFAULT_SCHEDULE, Schedule, open_store_for, read_schedule
from holdover.harness.subject import Plan, resolve_factory
from holdover.harness.trust import check_trust
from holdover.model.spelling import suggest_spelling
from holdover.recording import RecordingError, RecordingStore, bundled_store
from holdover.report import cycle_json, cycle_page, cycle_text
from holdover.runtime.files import claim_output_directory, write_report


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "cycle",
        "holdover cycle --instrument ACME --days 2",
        {0: "every invariant holds", 1: "an invariant is breached", 3: "could not tell: a run failed or was empty"},
        details="The carried arm keeps its state from day to day, the fresh arm starts each day from an empty state. "
        "The first difference between the two points to the bug.",
        run=run,
    )
    add_subject_option(parser)
    add_recordings_option(parser)
    add_instrument_option(parser)
    parser.add_argument(
        "--from", dest="first", metavar="DAY", help="the first trading day, YYYY-MM-DD; default: the first one recorded"
    )
    parser.add_argument("--days", type=int, metavar="N", help="the number of consecutive days; default: all recorded")
    parser.add_argument(
        "--schedule",
        type=Path,
        metavar="FILE",
        help="a schedule, JSON, on its own days unless an option names others; default: two cuts and a kill every day",
    )
    add_seed_option(parser)
    add_fault_option(parser)
    parser.add_argument(
        "--arm", choices=("both", "carried", "fresh"), default="both", help="which runs to make (default both)"
    )
    add_catalogue_option(parser)
    add_trust_option(parser)
    add_out_option(parser, "out/cycle", "journals, snapshots and the report")
    parser.add_argument("--state-cov", type=Path, metavar="FILE", help="write the state coverage of the runs to FILE")
    add_json_option(parser)
    parser.set_defaults(subject=None, seed=None)  # without the option the schedule decides


def run(arguments: argparse.Namespace) -> int:
    """Run the cycle; returns 0 holds, 1 breach, 3 undecided."""
    schedule = read_schedule(arguments.schedule) if arguments.schedule else DEFAULT_SCHEDULE
    store, symbols, days = select_recordings(arguments, schedule)
    subject = arguments.subject or schedule.subject
    if arguments.schedule:
        trusted_subjects = [arguments.subject] if arguments.subject else []
        check_trust(
            schedule.replace(subject=subject),
            arguments.schedule.name,
            is_trusted=arguments.trust,
            trusted_subjects=trusted_subjects,
        )
    seed = schedule.seed if arguments.seed is None else arguments.seed
    faults = list(dict.fromkeys([*schedule.faults, *arguments.fault]))
    factory = resolve_factory(subject)
    catalogue = Catalogue.load(*arguments.catalogue)
    metas = [store.get(symbol, day).meta for day in days for symbol in symbols]
    factory(
        Plan(days=metas, seed=seed, faults=tuple(faults), settings=dict(schedule.settings))
    )  # reports unknown faults before the run
    arms = ("carried", "fresh") if arguments.arm == "both" else (arguments.arm,)
    claim_output_directory(arguments.out)
    began = time.perf_counter()
    collector = CoverageCollector(catalogue).open() if arguments.state_cov else None
    with tqdm(total=len(arms) * len(days), unit="day", disable=None, file=sys.stderr, leave=False) as bar:

        def progress(description: str) -> None:
            bar.set_description(description)
            bar.update(1)

        result = run_cycle(
            factory,
            store,
            symbols,
            days,
            arguments.out,
            subject=subject,
            schedule=schedule,
            seed=seed,
            faults=faults,
            arms=arms,
            catalogue=catalogue,
            progress=progress,
        )
    seconds = time.perf_counter() - began
    if collector is not None:
        collector.close()
        collector.collect(f"schedule {schedule.name}")
        collector.data.write(arguments.state_cov)
    report = arguments.out / "report.html"
    instruments = {meta.instrument.symbol: meta.instrument for meta in metas}
    write_report(report, cycle_page(result, catalogue, instruments))
    write_report(arguments.out / "result.json", json.dumps(cycle_json(result, str(report)), indent=1))
    if arguments.json:
        print(json.dumps(cycle_json(result, str(report))))
    else:
        print(cycle_text(result, str(report), seconds))
    return exit_code(result)


def select_recordings(arguments: argparse.Namespace, schedule: Schedule) -> tuple[RecordingStore, list[str], list[str]]:
    """Return the store, the instruments and the days: those of the options, else those that the schedule names.

    Raises `RecordingError` for what is not recorded, and `ScheduleError` for a recording with another digest.
    """
    if schedule.recordings and not (arguments.instrument or arguments.first or arguments.days is not None):
        return open_store_for(schedule, arguments.recordings), schedule.symbols, schedule.days
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled_store()
    symbols = select_symbols(store, arguments.instrument)
    return store, symbols, select_days(store, symbols, arguments.first, arguments.days)


def exit_code(result: CycleResult) -> int:
    """Return 0 for holds, 1 for breach, 3 for undecided."""
    return {"holds": 0, "breach": 1}.get(result.verdict, 3)


def select_symbols(store: RecordingStore, instruments: str | None) -> list[str]:
    """Return the requested instruments, or the first recorded one. Raises `RecordingError` for one without a
    recording.
    """
    available = store.symbols()
    if not available:
        raise RecordingError(
            f"{store.directory}: no recording (*.hrec) in it. To import some, run: holdover recording import --help"
        )
    symbols = (
        [symbol.strip().upper() for symbol in instruments.split(",") if symbol.strip()]
        if instruments
        else available[:1]
    )
    for symbol in symbols:
        if symbol not in available:
            hint = suggest_spelling(symbol, available) or f"; available: {', '.join(available)}"
            raise RecordingError(f"no recording of {symbol} in {store.directory}{hint}")
    return list(dict.fromkeys(symbols))


def select_days(store: RecordingStore, symbols: list[str], first: str | None, count: int | None) -> list[str]:
    """Return consecutive days on which all instruments are recorded.

    Raises `RecordingError` that lists the available days.
    """
    common = [day for day in store.days(symbols[0]) if all(day in store.days(symbol) for symbol in symbols)]
    if count is not None and count < 1:
        raise RecordingError(f"--days is {count}, should be 1 or more")
    if first is not None and first not in common:
        raise RecordingError(f"no recording of {', '.join(symbols)} on {first}; available: {', '.join(common)}")
    days = common[common.index(first) if first else 0 :]
    if count is not None and len(days) < count:
        raise RecordingError(
            f"--days {count} from {days[0] if days else first}, but only {len(days)} are recorded: {', '.join(days)}"
        )
    days = days[:count]
    if not days:
        raise RecordingError(f"no day on which all of {', '.join(symbols)} are recorded")
    for day, after in pairwise(days):
        expected = store.get(symbols[0], day).meta.next_session
        if expected and expected < after:
            raise RecordingError(
                f"{expected} follows {day} in the calendar and is not recorded (the next recorded day is {after}); "
                f"choose consecutive days"
            )
    return days
