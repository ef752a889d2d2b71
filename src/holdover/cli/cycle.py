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
from holdover.coverage import CoverageCollector
from holdover.harness.cycle import CycleResult, run_cycle
from holdover.harness.schedule import DEFAULT_SCHEDULE, read_schedule
from holdover.harness.subject import Plan, resolve_factory
from holdover.recording import RecordingError, RecordingStore, bundled_store
from holdover.report import cycle_json, cycle_page, cycle_text


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("cycle", help="persist, replay, assert, freeze: the carried arm beside the fresh one")
    parser.add_argument("--subject", default="desk", help="desk (the default), or MODULE:NAME")
    parser.add_argument("--recordings", type=Path, help="a folder of recordings; without it the bundled simulated ones")
    parser.add_argument("--instrument", help="SYM[,SYM...]; without it the first at hand")
    parser.add_argument("--from", dest="first", help="the first trading day, YYYY-MM-DD")
    parser.add_argument("--days", type=int, help="how many consecutive recorded days; without it all")
    parser.add_argument("--schedule", type=Path, help="a schedule in JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], help="switch a seeded fault of the desk on")
    parser.add_argument("--arm", choices=("both", "carried", "fresh"), default="both")
    parser.add_argument("--catalogue", action="append", default=[], help="a folder or package of further invariants")
    parser.add_argument("--out", type=Path, default=Path("out/cycle"), help="where journals, snapshots and report go")
    parser.add_argument("--state-cov", type=Path, metavar="FILE", help="write what the cycle covers of the states")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the cycle; returns 0 holds, 1 breach, 3 undecided."""
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled_store()
    symbols = select_symbols(store, arguments.instrument)
    days = select_days(store, symbols, arguments.first, arguments.days)
    schedule = read_schedule(arguments.schedule) if arguments.schedule else DEFAULT_SCHEDULE
    factory = resolve_factory(arguments.subject)
    catalogue = Catalogue.load(*arguments.catalogue)
    metas = [store.get(symbol, day).meta for day in days for symbol in symbols]
    factory(
        Plan(days=metas, seed=arguments.seed, faults=tuple(arguments.fault))
    )  # reports unknown faults before the run
    arms = ("carried", "fresh") if arguments.arm == "both" else (arguments.arm,)
    arguments.out.mkdir(parents=True, exist_ok=True)
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
            subject=arguments.subject,
            schedule=schedule,
            seed=arguments.seed or schedule.seed,
            faults=arguments.fault,
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
    report.write_text(cycle_page(result, catalogue, instruments), encoding="utf-8")
    (arguments.out / "result.json").write_text(json.dumps(cycle_json(result, str(report)), indent=1), encoding="utf-8")
    if arguments.json:
        print(json.dumps(cycle_json(result, str(report))))
    else:
        print(cycle_text(result, str(report), seconds))
    return exit_code(result)


def exit_code(result: CycleResult) -> int:
    """Return 0 for holds, 1 for breach, 3 for undecided."""
    return {"holds": 0, "breach": 1}.get(result.verdict, 3)


def select_symbols(store: RecordingStore, instruments: str | None) -> list[str]:
    """Return the requested instruments, or the first recorded one. Raises `RecordingError` for one without a
    recording.
    """
    at_hand = store.symbols()
    if not at_hand:
        raise RecordingError(f"{store.directory}: no recording (*.hrec) in it; import some: holdover recording import")
    symbols = (
        [symbol.strip().upper() for symbol in instruments.split(",") if symbol.strip()] if instruments else at_hand[:1]
    )
    for symbol in symbols:
        if symbol not in at_hand:
            raise RecordingError(f"no recording of {symbol} in {store.directory}; at hand: {', '.join(at_hand)}")
    return list(dict.fromkeys(symbols))


def select_days(store: RecordingStore, symbols: list[str], first: str | None, count: int | None) -> list[str]:
    """Return consecutive days on which all instruments are recorded.

    Raises `RecordingError` that lists the available days.
    """
    common = [day for day in store.days(symbols[0]) if all(day in store.days(symbol) for symbol in symbols)]
    if count is not None and count < 1:
        raise RecordingError(f"--days is {count}, should be 1 or more")
    if first is not None and first not in common:
        raise RecordingError(f"no recording of {', '.join(symbols)} on {first}; at hand: {', '.join(common)}")
    days = common[common.index(first) if first else 0 :]
    if count is not None and len(days) < count:
        raise RecordingError(
            f"{count} days asked for from {days[0] if days else first}, at hand are {len(days)}: {', '.join(days)}"
        )
    days = days[:count]
    if not days:
        raise RecordingError(f"no day on which all of {', '.join(symbols)} are recorded")
    for day, after in pairwise(days):
        expected = store.get(symbols[0], day).meta.next_session
        if expected and expected < after:
            raise RecordingError(
                f"{expected} follows {day} in the calendar and is not recorded (the next at hand is {after}); "
                f"choose days that follow each other"
            )
    return days
