"""`holdover shadow`: runs a candidate as a shadow of the incumbent, notes faults, compares and reports."""

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

from holdover.cli.commands import add_command, add_subcommands, add_verb
from holdover.cli.cycle import select_days, select_symbols
from holdover.cli.options import add_json_option
from holdover.harness.subject import Plan, resolve_factory
from holdover.recording import RecordingStore, bundled_store
from holdover.runtime.files import write_report
from holdover.shadow import (
    ComponentNote,
    ShadowConfig,
    ShadowRun,
    check_cutover,
    compare_orders,
    cutover_text,
    follow_candidate,
    healthy_time_text,
    read_shadow_config,
    read_state,
    run_live,
    run_recordings,
    shadow_json,
    shadow_markdown,
    shadow_page,
)
from holdover.shadow.components import FAULTS
from holdover.shadow.runner import NOTES_FILE


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "shadow",
        "holdover shadow run --config shadow.toml",
        {0: "done, and nothing is unexplained", 1: "a breach, an unmet condition or an unexplained difference"},
    )
    commands = add_subcommands(parser, "what")
    running = add_command(
        commands,
        "run",
        "Run the candidate live or over recordings, or follow one that runs elsewhere.",
        "holdover shadow run --config shadow.toml --hours 72",
        {0: "no new breach", 1: "a new breach"},
        run=run_run,
    )
    running.add_argument(
        "--hours", type=float, default=72.0, metavar="N", help="over recordings: N further healthy hours (default 72)"
    )
    running.add_argument(
        "--seconds",
        type=float,
        default=0.0,
        metavar="N",
        help="live: stop after N seconds (default never)",
    )
    _add_report_and_note(commands)
    for subparser in commands.choices.values():
        subparser.add_argument(
            "--config", type=Path, required=True, metavar="FILE", help="the configuration of the shadow run, TOML"
        )
    _add_diff(commands)
    for subparser in commands.choices.values():
        add_json_option(subparser)


def _add_report_and_note(commands: Any) -> None:
    report = add_command(
        commands,
        "report",
        "Report whether the candidate may go live, and everything behind the answer.",
        "holdover shadow report --config shadow.toml --html shadow.html",
        {0: "eligible for the cutover", 1: "not eligible", 3: "no condition is unmet, but one is unknown"},
        run=run_report,
    )
    report.add_argument("--html", type=Path, metavar="FILE", help="write the report as an HTML page")
    report.add_argument("--markdown", type=Path, metavar="FILE", help="write the report as Markdown")
    note = add_command(
        commands,
        "note",
        "Tell a running shadow that a component works, or which fault it has.",
        "holdover shadow note --config shadow.toml --component orders --fault crash",
        {0: "noted"},
        run=run_note,
    )
    note.add_argument("--component", required=True, metavar="NAME", help="the component, as the configuration names it")
    note.add_argument(
        "--fault",
        default="",
        choices=["", *FAULTS],
        metavar="CLASS",
        help=f"the class of the fault, of {', '.join(FAULTS)}; default: the component works",
    )
    note.add_argument("--detail", default="", metavar="TEXT", help="what happened, for the report")


def _add_diff(commands: Any) -> None:
    diff = add_command(
        commands,
        "diff",
        "Compare the orders of two journals or FIX logs.",
        "holdover shadow diff candidate.jsonl incumbent.jsonl --tolerance price=1",
        {0: "every difference is explained", 1: "a difference is not explained", 3: "there are no orders"},
        run=run_diff,
    )
    diff.add_argument("candidate", type=Path, metavar="CANDIDATE", help="the candidate's journal or FIX log")
    diff.add_argument("incumbent", type=Path, metavar="INCUMBENT", help="the incumbent's journal or FIX log")
    diff.add_argument(
        "--noise", type=Path, metavar="JOURNAL", help="a second run of the candidate, whose differences are noise"
    )
    diff.add_argument(
        "--tolerance",
        action="append",
        default=[],
        metavar="FIELD=N",
        help="allow a difference of N lots, ticks or ns in a field of the order; may be repeated",
    )
    diff.add_argument(
        "--match",
        choices=("id", "sequence"),
        default="id",
        help="pair orders by their ClOrdID, or by their sequence per account, symbol and side (default id)",
    )


def run_run(arguments: argparse.Namespace) -> int:
    """Run the shadow; returns 0 when no invariant was breached, else 1."""
    config = read_shadow_config(arguments.config)
    before = read_state(config.state_path).breach_count if config.state_path.exists() else 0
    shadow_run = (
        _run_recordings(config, arguments.hours) if config.is_virtual else _run_in_real_time(config, arguments.seconds)
    )
    state = shadow_run.state
    summary = {
        "clock": healthy_time_text(state.clock.healthy_ns),
        "breaches": state.breach_count,
        "orders": state.orders,
    }
    if arguments.json:
        print(json.dumps(summary))
    else:
        print(f"{summary['clock']}, {state.sessions} sessions, {state.orders:,} orders, {state.breach_count} breaches")
    return 1 if state.breach_count > before else 0


def _run_recordings(config: ShadowConfig, hours: float) -> ShadowRun:
    if hours <= 0:
        raise ValueError(f"--hours {hours:g}: it should be above 0")
    candidate = config.candidate
    store = RecordingStore(config.resolve_path(candidate.recordings)) if candidate.recordings else bundled_store()
    symbols = select_symbols(store, ",".join(candidate.instruments) or None)
    days = select_days(store, symbols, None, candidate.days or None)
    factory = resolve_factory(candidate.subject)
    metas = [store.get(symbol, day).meta for day in days for symbol in symbols]
    plan = Plan(days=metas, seed=candidate.seed, faults=tuple(candidate.faults), settings=candidate.settings)
    factory(plan)  # reports unknown faults before the run
    with tqdm(unit="day", disable=None, file=sys.stderr, leave=False) as bar:

        def progress(description: str) -> None:
            bar.set_description(description)
            bar.update(1)

        return run_recordings(config, factory, store, symbols, days, hours=hours, progress=progress)


def _run_in_real_time(config: ShadowConfig, seconds: float) -> ShadowRun:
    factory = resolve_factory(config.candidate.subject) if config.is_live else None
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if factory is not None:
            return run_live(config, factory, seconds=seconds, stop=stop)
        return follow_candidate(config, seconds=seconds, stop=stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_report(arguments: argparse.Namespace) -> int:
    """Write the report; returns 0 when eligible, 1 when not, 3 when undecided, like `holdover cutover`."""
    config = read_shadow_config(arguments.config)
    state, answer = read_state(config.state_path), check_cutover(config, time.time_ns())
    if arguments.html is not None:
        write_report(arguments.html, shadow_page(answer, state, config))
    if arguments.markdown is not None:
        write_report(arguments.markdown, shadow_markdown(answer, state))
    print(json.dumps(shadow_json(answer, state)) if arguments.json else cutover_text(answer))
    return answer.exit_code


def run_note(arguments: argparse.Namespace) -> int:
    """Write a note durably; returns 0. A running shadow reads it on its next poll."""
    config = read_shadow_config(arguments.config)
    config.directory.mkdir(parents=True, exist_ok=True)
    note = ComponentNote(component=arguments.component, fault=arguments.fault, detail=arguments.detail)
    handle = os.open(config.directory / NOTES_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, msgspec.json.encode(note) + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
    print(json.dumps({"noted": arguments.component}) if arguments.json else f"noted {arguments.component}")
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Compare orders; returns 0 when all differences are explained, 1 when one is not, 3 when there are no orders."""
    tolerance: dict[str, int] = {}
    for setting in arguments.tolerance:
        name, _, bound = setting.partition("=")
        if not bound.isdigit():
            raise ValueError(f"--tolerance {setting}: it should be FIELD=N, like price=1")
        tolerance[name] = int(bound)
    comparison = compare_orders(
        arguments.candidate,
        arguments.incumbent,
        tolerance=tolerance,
        noise=arguments.noise,
        match=arguments.match,
    )
    if arguments.json:
        print(msgspec.json.encode(comparison).decode())
    else:
        for difference in comparison.first:
            reason = f" ({difference.reason})" if difference.reason else ""
            print(
                f"{difference.order} {difference.field}: {difference.candidate}, "
                f"the incumbent {difference.incumbent}{reason}"
            )
        noise = f"; noise floor {comparison.noise:.4%}" if comparison.noise is not None else ""
        print(
            f"{comparison.orders} orders, {comparison.differing} differ, "
            f"{comparison.unexplained} without an explanation{noise}"
        )
    if not comparison.orders:
        return 3
    return 1 if comparison.unexplained else 0
