"""Run the case study: a simulated year of operations, half without Holdover and half with it.

    python bench/casestudy.py [--lives 2] [--years 400] [--recordings DIR] [--quick]

For each seeded fault the study runs the real desk on recorded days, with operations drawn from a stated
model, from a healthy carried state until somebody detects the fault. It runs each merge gate on each fault,
and composes years of these runs. `--out` stores every run; the study does not repeat a run for the same code
and continues where it was stopped. The table goes to standard output; figures, seeds and plots go to `--out`.
The model is described in docs/casestudy.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import scipy
from argument import FRESH, measure
from casestudy import model
from casestudy.bank import ROOT, RunStore, StudySpec
from casestudy.figures import Figures, figures
from casestudy.gates import ARMS
from casestudy.page import markdown, novel_plot, ratio_plot, text, write_into_page
from casestudy.year import FaultRuns
from tqdm import tqdm

from holdover import __version__
from holdover.catalogue import Catalogue
from holdover.desk.faults import FAULTS
from holdover.recording import RecordingError
from holdover.runtime.files import write_whole

_LINE_COVERAGE_MIN = 90.0
"""The line coverage that the first half's gate asks for."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, live the years, say what came of it. 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.lives, options.days, options.long, options.plays, options.years = 1, 2, 2, 2, 50
    unknown = [name for name in options.fault if name not in FAULTS]
    if unknown:
        print(f"no seeded fault is called {unknown[0]!r}; there are {', '.join(FAULTS)}", file=sys.stderr)
        return 2
    for name in ("lives", "days", "long", "plays", "years", "workers"):
        if getattr(options, name) < 1:
            print(f"--{name} is {getattr(options, name)}, should be 1 or more", file=sys.stderr)
            return 2
    began = time.monotonic()
    try:
        run_store = _open_store(options)
        tasks = 0

        with tqdm(unit=" run", disable=None, file=sys.stderr, leave=False) as bar:

            def on_task_done(task: Any) -> None:
                nonlocal tasks
                tasks += 1
                bar.set_description(f"{task.kind} {task.fault or 'healthy'}")
                bar.update(1)

            run_store.run_missing(options.lives, options.workers, on_task_done)
        problems = false_alarms(run_store, options.lives)
        shown = frozenset(fault for fault in run_store.faults if run_store.is_shown(fault, options.lives))
        case_figures = figures(compose_runs(run_store, options.lives), shown, options.seed, options.years)
    except (RecordingError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    lines = None if options.quick else measure("fresh", [FRESH], options.out)["lines"]
    first_gate = bool(lines is None or lines >= _LINE_COVERAGE_MIN)
    result = _result(options, run_store, case_figures, lines, problems)
    result["seconds"], result["run"] = round(time.monotonic() - began, 1), tasks
    write_whole(options.out / "casestudy.json", json.dumps(result, indent=1).encode() + b"\n")
    for name, plot in (
        ("casestudy-ratio.svg", ratio_plot(case_figures)),
        ("casestudy-novel.svg", novel_plot(case_figures)),
    ):
        write_whole(options.out / name, plot.encode())
        if options.docs is not None:
            write_whole(options.docs.parent / "images" / name, plot.encode())
    if options.docs is not None:
        write_into_page(
            options.docs, markdown(case_figures) + "\n\n" + "\n".join(f"- {line}" for line in _notes(result))
        )
    print(text(case_figures))
    print("\n".join(_notes(result)))
    names = ("casestudy.json", "casestudy-ratio.svg", "casestudy-novel.svg")
    print(", ".join(str(options.out / name) for name in names))
    return 0 if first_gate and not problems else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=2, help="lives of each fault (2)")
    parser.add_argument("--days", type=int, default=6, help="trading days of a life (6)")
    parser.add_argument("--long", type=int, default=24, help="of one whose fault Holdover's gate lets pass (24)")
    parser.add_argument("--plays", type=int, default=12, help="drawn schedules that Holdover's gate plays (12)")
    parser.add_argument("--years", type=int, default=400, help="replications (400)")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fault", action="append", default=[], help="only these faults; without it all")
    parser.add_argument("--recordings", type=Path, help="a folder of recordings; without it the bundled simulated ones")
    parser.add_argument("--instrument", help="without it the first at hand")
    parser.add_argument(
        "--quick", action="store_true", help="one life of two days, two plays, fifty years: shows that it runs"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "casestudy")
    parser.add_argument("--docs", type=Path, help="a page with a place for the tables; plots go to images beside it")
    return parser


def _open_store(options: argparse.Namespace) -> RunStore:
    spec = StudySpec(
        str(options.recordings.resolve()) if options.recordings else "", (), options.days, options.plays, options.long
    )
    at_hand = spec.store().symbols()
    if not at_hand or (options.instrument and options.instrument not in at_hand):
        raise RecordingError(
            f"{spec.recordings or 'the bundled recordings'}: no recording of {options.instrument or 'anything'}; "
            f"at hand: {', '.join(at_hand) or 'nothing'}"
        )
    return RunStore(options.out, spec._replace(symbols=(options.instrument or at_hand[0],)), options.fault)


def compose_runs(run_store: RunStore, run_count: int) -> FaultRuns:
    """The bank as the years take it; what an arm's gate was not asked about makes no incident."""
    caught = {}
    for arm in ("fresh", *ARMS):
        faults = (
            run_store.faults
            if arm in ("fresh", ARMS[0])
            else [fault for fault in run_store.faults if run_store.is_shown(fault, run_count)]
        )
        caught[arm] = frozenset(fault for fault in faults if run_store.gate(fault, arm).is_caught)
    return FaultRuns(
        {fault: [run_store.read_run(fault, number) for number in range(run_count)] for fault in run_store.faults},
        caught,
    )


def false_alarms(run_store: RunStore, run_count: int) -> list[str]:
    """What was said of the desk without any fault; there should be nothing."""
    alarms = [
        f"healthy life {number}: {run.breach or run.discovery}"
        for number in range(run_count)
        if (run := run_store.read_run("", number)).breach is not None or run.discovery is not None
    ]
    return alarms + [f"gate {arm}: {run_store.gate('', arm).by}" for arm in ARMS if run_store.gate("", arm).is_caught]


def _result(
    options: argparse.Namespace, run_store: RunStore, case_figures: Figures, lines: float | None, problems: list[str]
) -> dict[str, Any]:
    """Everything: what was asked for, on what, each fault, each figure."""
    faults = {}
    for fault in run_store.faults:
        runs = [run_store.read_run(fault, number) for number in range(options.lives)]
        number = run_store.guarded_number(fault, options.lives)
        shown = run_store.is_shown(fault, options.lives)
        faults[fault] = {
            "category": FAULTS[fault].category,
            "gates": {arm: run_store.gate(fault, arm).by or None for arm in ("fresh", *(ARMS if shown else ARMS[:1]))},
            "breached": sum(run.breach is not None for run in runs),
            "found": sum(run.discovery is not None for run in runs),
            "lives": msgspec.to_builtins(runs),
            "left_a_frozen_scope": None
            if number is None
            else run_store.read_run(fault, number, guarded=True).sent_after,
        }
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "versions": {
            "holdover": __version__,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "scipy": scipy.__version__,
        },
        "catalogue": Catalogue.load().digest,
        "code": run_store.code,
        "recordings": run_store.spec.recordings or "bundled",
        "instruments": list(run_store.spec.symbols),
        "simulated": any(recording.meta.simulated for recording in run_store.spec.store().list_recordings()),
        "lives": options.lives,
        "days": options.days,
        "days_of_long_lives": options.long,
        "plays": options.plays,
        "seeds": {
            "lives": "'FAULT N', 'reel N', 'healthy N', N from 0 to lives - 1",
            "gate": "'gate N', N from 0 to plays - 1",
            "years": f"'year {options.seed} N', N from 0 to years - 1",
        },
        "model": {
            "rates": [
                {"name": r.name, "a_day": r.a_day, "kinds": dict(r.kinds), "source": r.source} for r in model.RATES
            ],
            "category_weights": model.CATEGORY_WEIGHTS,
            "again": model.REPEAT_SHARE,
            "fix_days": model.FIX_DAYS,
            "days_a_half": model.DAYS_A_HALF,
        },
        "line_coverage": lines,
        "false_alarms": problems,
        "figures": msgspec.to_builtins(case_figures),
        "faults": faults,
    }


def _notes(result: dict[str, Any]) -> list[str]:
    """What a reader must know beside the table."""
    faults, figure_values = result["faults"], result["figures"]
    shown = {name: entry for name, entry in faults.items() if entry["breached"] or entry["found"]}
    passed = [name for name, entry in shown.items() if not entry["gates"]["holdover"]]
    silent = [name for name, entry in shown.items() if not entry["found"]]
    people = [name for name, entry in shown.items() if entry["found"] and not entry["breached"]]
    never = [name for name in faults if name not in shown]
    guarded = [entry["left_a_frozen_scope"] for entry in faults.values() if entry["left_a_frozen_scope"] is not None]
    fresh = sum(entry["gates"]["fresh"] is not None for entry in faults.values())
    gate = sum(entry["gates"]["holdover"] is not None for entry in faults.values())
    lines = "not measured" if result["line_coverage"] is None else f"{result['line_coverage']:.1f} %"
    a_day = figure_values["changes_a_day"]
    return [
        f"{len(faults)} faults, {result['lives']} runs each, of {result['days']} days, and of "
        f"{result['days_of_long_lives']} for faults that Holdover's gate lets pass; "
        f"{result['plays']} schedules per gate, "
        f"{figure_values['years']} years from seed {figure_values['seed']}; recordings: {result['recordings']}"
        f"{' (simulated)' if result['simulated'] else ''}, {', '.join(result['instruments'])}",
        f"faulty changes a day, set by calibration: {a_day:.3f}; at {model.CHANGES_A_DAY:g} change a day "
        f"{a_day / model.CHANGES_A_DAY:.0%} of them carry a fault and "
        f"{figure_values['rows'][0]['mean'] / model.DAYS_A_HALF / model.CHANGES_A_DAY:.0%} end in an incident of the "
        f"first half (DORA's change failure rate: up to 5 % elite, 10 % high, 15 % medium)",
        f"first half's gate: {fresh} of {len(faults)} faults found, line coverage {lines}; "
        f"Holdover's: {gate} of {len(faults)}",
        f"shown in a run: {len(shown)}; of these Holdover's gate lets {len(passed)} pass: {_names(passed)}",
        f"breached and detected by nobody without a guard: {len(silent)}: {_names(silent)}",
        f"detected by people and not by the guard: {len(people)}: {_names(people)}",
        f"never shown, so without an incident in either half: {len(never)}: {_names(never)}",
        f"with a guard that acts, messages that left a frozen scope: {sum(guarded)} in {len(guarded)} runs",
        f"false alarms on the desk without a fault: {len(result['false_alarms'])}",
        f"made on {result['machine']}, Python {result['versions']['python']}, catalogue {result['catalogue'][:12]}, "
        f"code {result['code'][:12]}",
    ]


def _names(of: list[str]) -> str:
    return ", ".join(of) or "none"


if __name__ == "__main__":
    sys.exit(main())
