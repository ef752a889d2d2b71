"""The case study: a simulated year of operating the desk, half without Holdover and half with it.

    python bench/casestudy.py [--lives 2] [--years 400] [--recordings DIR] [--quick]

Each seeded fault is given lives: the real desk on recorded days, under operations that a stated model draws, from a
healthy carried state on until somebody finds out. Each merge gate is run on each fault. Years are composed of these.
What has been run is kept in --out, and not run again for the same code: a study that was stopped goes on. The table
goes to standard output; figures, seeds and plots to --out. The model is in docs/casestudy.md.
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
from casestudy.bank import ROOT, Bank, Ground
from casestudy.figures import Figures, figures
from casestudy.gates import ARMS
from casestudy.page import into_page, markdown, novel_plot, ratio_plot, text
from casestudy.year import Lives
from tqdm import tqdm

from holdover import __version__
from holdover.catalogue import Catalogue
from holdover.desk.faults import FAULTS
from holdover.recording import BadRecording
from holdover.runtime.files import write_whole

_LINES_UNDER = 90.0
"""The line coverage that the first half's gate asks for."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, live the years, say what came of it. 0, or 2 for bad input."""
    asked = _parser().parse_args(arguments)
    if asked.quick:
        asked.lives, asked.days, asked.long, asked.plays, asked.years = 1, 2, 2, 2, 50
    unknown = [name for name in asked.fault if name not in FAULTS]
    if unknown:
        print(f"no seeded fault is called {unknown[0]!r}; there are {', '.join(FAULTS)}", file=sys.stderr)
        return 2
    for name in ("lives", "days", "long", "plays", "years", "workers"):
        if getattr(asked, name) < 1:
            print(f"--{name} is {getattr(asked, name)}, should be 1 or more", file=sys.stderr)
            return 2
    began = time.monotonic()
    try:
        bank = _bank(asked)
        tasks = 0

        with tqdm(unit=" run", disable=None, file=sys.stderr, leave=False) as bar:

            def said(task: Any) -> None:
                nonlocal tasks
                tasks += 1
                bar.set_description(f"{task.kind} {task.fault or 'healthy'}")
                bar.update(1)

            bank.fill(asked.lives, asked.workers, said)
        problems = false_alarms(bank, asked.lives)
        shown = frozenset(fault for fault in bank.faults if bank.shows(fault, asked.lives))
        told = figures(composed(bank, asked.lives), shown, asked.seed, asked.years)
    except (BadRecording, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    lines = None if asked.quick else measure("fresh", [FRESH], asked.out)["lines"]
    first_gate = bool(lines is None or lines >= _LINES_UNDER)
    result = _result(asked, bank, told, lines, problems)
    result["seconds"], result["run"] = round(time.monotonic() - began, 1), tasks
    write_whole(asked.out / "casestudy.json", json.dumps(result, indent=1).encode() + b"\n")
    for name, plot in (("casestudy-ratio.svg", ratio_plot(told)), ("casestudy-novel.svg", novel_plot(told))):
        write_whole(asked.out / name, plot.encode())
        if asked.docs is not None:
            write_whole(asked.docs.parent / "images" / name, plot.encode())
    if asked.docs is not None:
        into_page(asked.docs, markdown(told) + "\n\n" + "\n".join(f"- {line}" for line in _notes(result)))
    print(text(told))
    print("\n".join(_notes(result)))
    print(f"{asked.out / 'casestudy.json'}, {asked.out / 'casestudy-ratio.svg'}, {asked.out / 'casestudy-novel.svg'}")
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


def _bank(asked: argparse.Namespace) -> Bank:
    ground = Ground(
        str(asked.recordings.resolve()) if asked.recordings else "", (), asked.days, asked.plays, asked.long
    )
    at_hand = ground.store().symbols()
    if not at_hand or (asked.instrument and asked.instrument not in at_hand):
        raise BadRecording(
            f"{ground.recordings or 'the bundled recordings'}: no recording of {asked.instrument or 'anything'}; "
            f"at hand: {', '.join(at_hand) or 'nothing'}"
        )
    return Bank(asked.out, ground._replace(symbols=(asked.instrument or at_hand[0],)), asked.fault)


def composed(bank: Bank, lives: int) -> Lives:
    """The bank as the years take it; what an arm's gate was not asked about makes no incident."""
    caught = {}
    for arm in ("fresh", *ARMS):
        asked = bank.faults if arm in ("fresh", ARMS[0]) else [one for one in bank.faults if bank.shows(one, lives)]
        caught[arm] = frozenset(fault for fault in asked if bank.gate(fault, arm).found)
    return Lives({fault: [bank.life(fault, number) for number in range(lives)] for fault in bank.faults}, caught)


def false_alarms(bank: Bank, lives: int) -> list[str]:
    """What was said of the desk without any fault; there should be nothing."""
    found = [
        f"healthy life {number}: {one.breach or one.found}"
        for number in range(lives)
        if (one := bank.life("", number)).breach is not None or one.found is not None
    ]
    return found + [f"gate {arm}: {bank.gate('', arm).by}" for arm in ARMS if bank.gate("", arm).found]


def _result(
    asked: argparse.Namespace, bank: Bank, told: Figures, lines: float | None, problems: list[str]
) -> dict[str, Any]:
    """Everything: what was asked for, on what, each fault, each figure."""
    faults = {}
    for fault in bank.faults:
        each = [bank.life(fault, number) for number in range(asked.lives)]
        number = bank.guarded_number(fault, asked.lives)
        shown = bank.shows(fault, asked.lives)
        faults[fault] = {
            "category": FAULTS[fault].category,
            "gates": {arm: bank.gate(fault, arm).by or None for arm in ("fresh", *(ARMS if shown else ARMS[:1]))},
            "breached": sum(one.breach is not None for one in each),
            "found": sum(one.found is not None for one in each),
            "lives": msgspec.to_builtins(each),
            "left_a_frozen_scope": None if number is None else bank.life(fault, number, guarded=True).sent_after,
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
        "code": bank.code,
        "recordings": bank.ground.recordings or "bundled",
        "instruments": list(bank.ground.symbols),
        "simulated": any(one.meta.simulated for one in bank.ground.store().list()),
        "lives": asked.lives,
        "days": asked.days,
        "days_of_long_lives": asked.long,
        "plays": asked.plays,
        "seeds": {
            "lives": "'FAULT N', 'reel N', 'healthy N', N from 0 to lives - 1",
            "gate": "'gate N', N from 0 to plays - 1",
            "years": f"'year {asked.seed} N', N from 0 to years - 1",
        },
        "model": {
            "rates": [
                {"name": r.name, "a_day": r.a_day, "kinds": dict(r.kinds), "source": r.source} for r in model.RATES
            ],
            "category_weights": model.CATEGORY_WEIGHTS,
            "again": model.AGAIN,
            "fix_days": model.FIX_DAYS,
            "days_a_half": model.DAYS_A_HALF,
        },
        "line_coverage": lines,
        "false_alarms": problems,
        "figures": msgspec.to_builtins(told),
        "faults": faults,
    }


def _notes(result: dict[str, Any]) -> list[str]:
    """What a reader must know beside the table."""
    faults, told = result["faults"], result["figures"]
    shown = {name: one for name, one in faults.items() if one["breached"] or one["found"]}
    passed = [name for name, one in shown.items() if not one["gates"]["holdover"]]
    silent = [name for name, one in shown.items() if not one["found"]]
    people = [name for name, one in shown.items() if one["found"] and not one["breached"]]
    never = [name for name in faults if name not in shown]
    guarded = [one["left_a_frozen_scope"] for one in faults.values() if one["left_a_frozen_scope"] is not None]
    fresh = sum(one["gates"]["fresh"] is not None for one in faults.values())
    gate = sum(one["gates"]["holdover"] is not None for one in faults.values())
    lines = "not measured" if result["line_coverage"] is None else f"{result['line_coverage']:.1f} %"
    a_day = told["changes_a_day"]
    return [
        f"{len(faults)} faults, {result['lives']} lives each, of {result['days']} days, and of "
        f"{result['days_of_long_lives']} for what Holdover's gate lets pass; {result['plays']} plays a gate, "
        f"{told['years']} years from seed {told['seed']}; recordings: {result['recordings']}"
        f"{' (simulated)' if result['simulated'] else ''}, {', '.join(result['instruments'])}",
        f"faulty changes a day, set by calibration: {a_day:.3f}; at {model.CHANGES_A_DAY:g} change a day "
        f"{a_day / model.CHANGES_A_DAY:.0%} of them carry a fault and "
        f"{told['rows'][0]['mean'] / model.DAYS_A_HALF / model.CHANGES_A_DAY:.0%} end in an incident of the first half "
        f"(DORA's change failure rate: up to 5 % elite, 10 % high, 15 % medium)",
        f"first half's gate: {fresh} of {len(faults)} faults found, line coverage {lines}; "
        f"Holdover's: {gate} of {len(faults)}",
        f"shown in a life: {len(shown)}; of these Holdover's gate lets {len(passed)} pass: {_names(passed)}",
        f"breached and found by nobody without a guard: {len(silent)}: {_names(silent)}",
        f"found by people and not by the guard: {len(people)}: {_names(people)}",
        f"never shown, so without incident in either half: {len(never)}: {_names(never)}",
        f"with a guard that acts, messages that left a frozen scope: {sum(guarded)} in {len(guarded)} lives",
        f"false alarms on the desk without a fault: {len(result['false_alarms'])}",
        f"made on {result['machine']}, Python {result['versions']['python']}, catalogue {result['catalogue'][:12]}, "
        f"code {result['code'][:12]}",
    ]


def _names(of: list[str]) -> str:
    return ", ".join(of) or "none"


if __name__ == "__main__":
    sys.exit(main())
