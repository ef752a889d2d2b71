"""`holdover incidents`: the ledger in a guard's store, what an operator does with it, and its figures."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdover.incidents import (
    Incident,
    Ledger,
    figures,
    figures_json,
    figures_page,
    figures_text,
    from_csv,
    to_csv,
    to_json,
)
from holdover.incidents.exchange import time_of, time_text
from holdover.report.style import STYLE
from holdover.runtime.thawing import guard_at


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("incidents", help="the ledger of incidents: each breach opens one or joins one")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int], told: str) -> Any:
        made = what.add_parser(name, help=told)
        made.add_argument(
            "--guard", type=Path, required=True, metavar="DIR|TOML", help="the guard's directory, or its configuration"
        )
        made.add_argument("--json", action="store_true")
        made.set_defaults(run=run)
        return made

    verb("take", run_take, "take up the breaches that are new in the store; every other verb does so first")
    listing = verb("list", run_list, "the incidents, the oldest first")
    listing.add_argument("--all", action="store_true", help="those that are resolved, too")
    listing.add_argument("--csv", type=Path, metavar="FILE", help="write all of them as CSV")
    verb("show", run_show, "one incident with all that was done").add_argument("number", type=int)
    for name, run, told in (
        ("acknowledge", run_acknowledge, "somebody is on it; acknowledges its pages, too"),
        ("diagnose", run_diagnose, "why it came about: a cause tag and a sentence"),
        ("resolve", run_resolve, "it is over"),
    ):
        acting = verb(name, run, told)
        acting.add_argument("number", type=int)
        acting.add_argument("--operator", required=True)
        if name == "diagnose":
            acting.add_argument("--cause", required=True, metavar="TAG", help="a word like lost-fill")
            acting.add_argument("--diagnosis", required=True, metavar="SENTENCE")
    report = verb("report", run_report, "how often, how long, recurrent against novel; before and after a date")
    report.add_argument(
        "--since", metavar="DATE", help="YYYY-MM-DD or ISO 8601 with an offset; else the first incident"
    )
    report.add_argument("--until", metavar="DATE", help="where the period ends; else now")
    report.add_argument("--before", metavar="DATE", help="compare the rates before this date and from it on")
    report.add_argument("--html", type=Path, metavar="FILE", help="write it as a page")
    report.add_argument("--csv", type=Path, metavar="FILE", help="write the incidents of the period as CSV")
    importing = verb("import", run_import, "add earlier incidents from CSV: all of the file, or nothing")
    importing.add_argument("file", type=Path)
    importing.add_argument("--operator", required=True)


def _ledger(arguments: argparse.Namespace) -> Ledger:
    return Ledger(guard_at(arguments.guard).open_store())


def run_take(arguments: argparse.Namespace) -> int:
    """Always 0."""
    taken = _ledger(arguments).take()
    print(json.dumps({"taken": taken}) if arguments.json else f"{taken} new breaches taken up")
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """0 when none is open, 1 when one is."""
    ledger = _ledger(arguments)
    ledger.take()
    found = ledger.all()
    if arguments.csv is not None:
        arguments.csv.write_text(to_csv(found), encoding="utf-8")
    shown = [one for one in found if arguments.all or one.resolved_ns is None]
    if arguments.json:
        print(to_json(shown))
    else:
        for one in shown:
            print(_line(one))
        left = sum(one.resolved_ns is None for one in found)
        print(f"{len(found)} incidents, {left} not resolved")
    return 1 if any(one.resolved_ns is None for one in found) else 0


def _line(one: Incident) -> str:
    again = f"recurs: {one.recurs}" if one.recurs else "novel"
    many = f", {len(one.breaches)} breaches" if len(one.breaches) > 1 else ""
    opened = f"{time_text(one.opened_ns)[:19]}Z"
    return f"{one.number:5} {opened} {one.state:12} {again:10} {one.invariant} {one.cell_class}{many}"


def run_show(arguments: argparse.Namespace) -> int:
    """Always 0."""
    ledger = _ledger(arguments)
    ledger.take()
    one = ledger.get(arguments.number)
    if arguments.json:
        print(json.dumps(json.loads(to_json([one]))[0]))
        return 0
    print(_line(one))
    print(f"      {one.told or one.name}")
    if one.found_in:
        print(f"      state: {one.found_in}")
    for breach in one.breaches:
        print(f"      breach {breach}")
    for time_ns, told in ledger.acts(one.number):
        print(f"      {time_text(time_ns)[:19]}Z {told}")
    if one.diagnosis:
        print(f"      {one.cause}: {one.diagnosis}")
    return 0


def run_acknowledge(arguments: argparse.Namespace) -> int:
    """0 when it is this operator's now."""
    return _act(arguments, lambda ledger, now: ledger.acknowledge(arguments.number, arguments.operator, now))


def run_diagnose(arguments: argparse.Namespace) -> int:
    """0 when it is written down."""
    return _act(
        arguments,
        lambda ledger, now: ledger.diagnose(
            arguments.number, arguments.operator, arguments.cause, arguments.diagnosis, now
        ),
    )


def run_resolve(arguments: argparse.Namespace) -> int:
    """0 when it is over."""
    return _act(arguments, lambda ledger, now: ledger.resolve(arguments.number, arguments.operator, now))


def _act(arguments: argparse.Namespace, act: Callable[[Ledger, int], None]) -> int:
    ledger = _ledger(arguments)
    ledger.take()
    act(ledger, time.time_ns())
    one = ledger.get(arguments.number)
    told = f"incident {one.number} is {one.state} by {arguments.operator}"
    print(json.dumps({"number": one.number, "state": one.state}) if arguments.json else told)
    return 0


def run_import(arguments: argparse.Namespace) -> int:
    """0 when all of the file is in the ledger."""
    found = from_csv(arguments.file)
    ledger = _ledger(arguments)
    ledger.take()
    added = ledger.add(found, arguments.operator, time.time_ns())
    print(json.dumps({"imported": added}) if arguments.json else f"{added} incidents imported")
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    """0; 3 where there is no incident and no period to speak of."""
    ledger = _ledger(arguments)
    ledger.take()
    found = ledger.all()
    until = moment(arguments.until) if arguments.until else time.time_ns()
    since = moment(arguments.since) if arguments.since else min((one.opened_ns for one in found), default=None)
    if since is None:
        print("no incident yet; with --since DATE the rate is that of a period without any")
        return 3
    told = figures(found, since, until, moment(arguments.before) if arguments.before else None)
    if arguments.html is not None:
        arguments.html.write_text(figures_page(told, STYLE), encoding="utf-8")
    if arguments.csv is not None:
        arguments.csv.write_text(to_csv(told.incidents), encoding="utf-8")
    print(json.dumps(figures_json(told)) if arguments.json else figures_text(told))
    return 0


def moment(told: str) -> int:
    """ns since the epoch of a date (its midnight, UTC) or a time in ISO 8601 with an offset. Raises `ValueError`."""
    try:
        day = datetime.strptime(told, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return time_of(told)
    return int(day.timestamp()) * 1_000_000_000
