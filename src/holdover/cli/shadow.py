"""`holdover shadow`: run a candidate in the shadow of the incumbent, tell it of faults, compare, report."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from holdover.cli.cycle import chosen_days, chosen_symbols
from holdover.harness.subject import Plan, factory_named
from holdover.recording import RecordingStore, bundled
from holdover.report.style import STYLE
from holdover.shadow import (
    Life,
    Note,
    ShadowConfig,
    ask,
    compare,
    cutover_text,
    follow,
    read_shadow,
    read_state,
    run_live,
    run_recordings,
    shadow_json,
    shadow_markdown,
    shadow_page,
    since_text,
)
from holdover.shadow.components import FAULTS
from holdover.shadow.run import NOTES


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("shadow", help="a candidate beside the incumbent, for days, before it goes live")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    running = what.add_parser("run", help="run the candidate: live, over recordings; or follow one that runs by itself")
    running.add_argument("--hours", type=float, default=72.0, help="over recordings: how many healthy hours more (72)")
    running.add_argument("--seconds", type=float, default=0.0, help="live, following: for so long (until stopped)")
    running.set_defaults(run=run_run)

    report = what.add_parser("report", help="one page: may it go live? and everything behind the answer")
    report.add_argument("--html", type=Path, metavar="FILE")
    report.add_argument("--markdown", type=Path, metavar="FILE")
    report.set_defaults(run=run_report)

    note = what.add_parser("note", help="tell a running shadow that a component lives, or which fault it has met")
    note.add_argument("--component", required=True)
    note.add_argument("--fault", default="", choices=["", *FAULTS], metavar="CLASS", help=", ".join(FAULTS))
    note.add_argument("--detail", default="")
    note.set_defaults(run=run_note)
    for one in (running, report, note):
        one.add_argument("--config", type=Path, required=True, metavar="FILE", help="the shadow's configuration")
        one.add_argument("--json", action="store_true")

    diff = what.add_parser("diff", help="order by order, from two journals or FIX logs")
    diff.add_argument("candidate", type=Path)
    diff.add_argument("incumbent", type=Path)
    diff.add_argument("--noise", type=Path, metavar="JOURNAL", help="a second copy of the candidate on the same input")
    diff.add_argument("--tolerance", action="append", default=[], metavar="FIELD=N", help="in lots, ticks or ns")
    diff.add_argument("--match", choices=("id", "sequence"), default="id")
    diff.add_argument("--json", action="store_true")
    diff.set_defaults(run=run_diff)


def run_run(arguments: argparse.Namespace) -> int:
    """0 when nothing broke, 1 when an invariant did."""
    config = read_shadow(arguments.config)
    before = read_state(config.state).breach_count if config.state.exists() else 0
    life = _recordings(config, arguments.hours) if config.is_virtual else _in_real_time(config, arguments.seconds)
    state = life.state
    told = {"clock": since_text(state.clock.healthy_ns), "breaches": state.breach_count, "orders": state.orders}
    if arguments.json:
        print(json.dumps(told))
    else:
        print(f"{told['clock']}, {state.sessions} sessions, {state.orders:,} orders, {state.breach_count} breaches")
    return 1 if state.breach_count > before else 0


def _recordings(config: ShadowConfig, hours: float) -> Life:
    if hours <= 0:
        raise ValueError(f"--hours {hours:g}: it should be above 0")
    told = config.candidate
    store = RecordingStore(config.path(told.recordings)) if told.recordings else bundled()
    symbols = chosen_symbols(store, ",".join(told.instruments) or None)
    days = chosen_days(store, symbols, None, told.days or None)
    factory = factory_named(told.subject)
    metas = [store.get(symbol, day).meta for day in days for symbol in symbols]
    plan = Plan(days=metas, seed=told.seed, faults=tuple(told.faults), settings=told.settings)
    factory(plan)  # bad faults are said before the run
    with tqdm(unit="day", disable=None, file=sys.stderr, leave=False) as bar:

        def progress(what: str) -> None:
            bar.set_description(what)
            bar.update(1)

        return run_recordings(config, factory, store, symbols, days, hours=hours, progress=progress)


def _in_real_time(config: ShadowConfig, seconds: float) -> Life:
    factory = factory_named(config.candidate.subject) if config.is_live else None
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if factory is not None:
            return run_live(config, factory, seconds=seconds, stop=stop)
        return follow(config, seconds=seconds, stop=stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_report(arguments: argparse.Namespace) -> int:
    """0 eligible, 1 not, 3 cannot tell: as `holdover cutover`."""
    config = read_shadow(arguments.config)
    state, answer = read_state(config.state), ask(config, time.time_ns())
    if arguments.html is not None:
        arguments.html.write_text(shadow_page(answer, state, config, STYLE), encoding="utf-8")
    if arguments.markdown is not None:
        arguments.markdown.write_text(shadow_markdown(answer, state), encoding="utf-8")
    print(json.dumps(shadow_json(answer, state)) if arguments.json else cutover_text(answer))
    return answer.exit_code


def run_note(arguments: argparse.Namespace) -> int:
    """0: it is on the disk, and a running shadow takes it up at its next look."""
    config = read_shadow(arguments.config)
    config.directory.mkdir(parents=True, exist_ok=True)
    note = Note(component=arguments.component, fault=arguments.fault, detail=arguments.detail)
    handle = os.open(config.directory / NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, msgspec.json.encode(note) + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
    print(json.dumps({"noted": arguments.component}) if arguments.json else f"noted {arguments.component}")
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """0 when no order differs without an explanation, 1 when one does, 3 when there is none."""
    tolerance: dict[str, int] = {}
    for told in arguments.tolerance:
        name, _, most = told.partition("=")
        if not most.isdigit():
            raise ValueError(f"--tolerance {told}: it should be FIELD=N, like price=1")
        tolerance[name] = int(most)
    found = compare(
        arguments.candidate,
        arguments.incumbent,
        tolerance=tolerance,
        noise=arguments.noise,
        match=arguments.match,
    )
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        for one in found.first:
            why = f" ({one.reason})" if one.reason else ""
            print(f"{one.order} {one.field}: {one.candidate}, the incumbent {one.incumbent}{why}")
        noise = f"; noise floor {found.noise:.4%}" if found.noise is not None else ""
        print(f"{found.orders} orders, {found.differing} differ, {found.unexplained} without an explanation{noise}")
    if not found.orders:
        return 3
    return 1 if found.unexplained else 0
