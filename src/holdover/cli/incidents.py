"""`holdover incidents`: the ledger of incidents in a guard's store, the operator's actions on it, and its
figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdover.cli.commands import CommandParser, Run, add_command, add_subcommands, add_verb
from holdover.cli.options import add_guard_option, add_json_option, add_operator_option
from holdover.incidents import (
    Incident,
    IncidentLedger,
    compute_figures,
    figures_json,
    figures_page,
    figures_text,
    read_csv,
    to_csv,
    to_json,
)
from holdover.incidents.interchange import format_time, parse_time
from holdover.runtime.files import write_report
from holdover.runtime.thaw_requests import find_guard_config


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    listed = {0: "no incident is open", 1: "at least one incident is open"}
    parser = add_verb(
        verbs,
        "incidents",
        "holdover incidents list --guard guard.toml",
        {0: "done", 1: "list: at least one incident is open", 3: "report: there is neither an incident nor a period"},
        details="Each breach opens an incident or is added to one with the same cause.",
    )
    commands = add_subcommands(parser, "what")
    done = {0: "done"}

    def command(name: str, run: Run, sentence: str, example: str, exits: dict[int, str] = done) -> CommandParser:
        subparser = add_command(commands, name, sentence, f"holdover incidents {example}", exits, run=run)
        add_guard_option(subparser)
        add_json_option(subparser)
        return subparser

    command(
        "take",
        run_take,
        "Add new breaches of the store to the ledger; every other command does this first.",
        "take --guard guard.toml",
    )
    listing = command("list", run_list, "List the incidents, oldest first.", "list --guard guard.toml --all", listed)
    listing.add_argument("--all", action="store_true", help="also list resolved incidents")
    listing.add_argument("--csv", type=Path, metavar="FILE", help="write all incidents as CSV")
    number_help = "the number of the incident, as `holdover incidents list` shows it"
    show = command("show", run_show, "Show one incident and everything done about it.", "show 3 --guard guard.toml")
    show.add_argument("number", type=int, metavar="NUMBER", help=number_help)
    for name, run, sentence, options in (
        ("acknowledge", run_acknowledge, "Acknowledge an incident and its alerts.", ""),
        (
            "diagnose",
            run_diagnose,
            "Record the cause of an incident: a tag and a sentence.",
            ' --cause lost-fill --diagnosis "The fill came while the link was down."',
        ),
        ("resolve", run_resolve, "Mark an incident as resolved.", ""),
    ):
        acting = command(name, run, sentence, f"{name} 3 --guard guard.toml --operator ann{options}")
        acting.add_argument("number", type=int, metavar="NUMBER", help=number_help)
        add_operator_option(acting)
        if name == "diagnose":
            acting.add_argument("--cause", required=True, metavar="TAG", help="a short tag, such as lost-fill")
            acting.add_argument("--diagnosis", required=True, metavar="SENTENCE", help="the cause in one sentence")
    _add_report(command)
    importing = command(
        "import",
        run_import,
        "Add earlier incidents from CSV: the whole file, or nothing.",
        "import earlier.csv --guard guard.toml --operator ann",
    )
    importing.add_argument("file", type=Path, metavar="FILE", help="the incidents, CSV, as --csv writes them")
    add_operator_option(importing)


def _add_report(command: Callable[..., CommandParser]) -> None:
    report = command(
        "report",
        run_report,
        "Report how often incidents occur, how long they last, and how many recur.",
        "report --guard guard.toml --since 2026-01-01",
        {0: "done", 3: "there is neither an incident nor a period"},
    )
    report.add_argument(
        "--since",
        metavar="DATE",
        help="the begin of the period: YYYY-MM-DD, or ISO 8601 with an offset (default: the first incident)",
    )
    report.add_argument("--until", metavar="DATE", help="the end of the period (default now)")
    report.add_argument("--before", metavar="DATE", help="compare the rates before this date and from it on")
    report.add_argument("--html", type=Path, metavar="FILE", help="write the report as an HTML page")
    report.add_argument("--csv", type=Path, metavar="FILE", help="write the incidents of the period as CSV")


def _open_ledger(arguments: argparse.Namespace) -> IncidentLedger:
    return IncidentLedger(find_guard_config(arguments.guard).open_store())


def run_take(arguments: argparse.Namespace) -> int:
    """Add new breaches to the ledger; always returns 0."""
    count = _open_ledger(arguments).import_breaches()
    print(json.dumps({"taken": count}) if arguments.json else f"{count} new breaches added")
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print the incidents; returns 0 when none is open, else 1."""
    ledger = _open_ledger(arguments)
    ledger.import_breaches()
    incidents = ledger.list_incidents()
    if arguments.csv is not None:
        write_report(arguments.csv, to_csv(incidents))
    shown = [incident for incident in incidents if arguments.all or incident.resolved_ns is None]
    if arguments.json:
        print(to_json(shown))
    else:
        for incident in shown:
            print(_format_incident(incident))
        unresolved_count = sum(incident.resolved_ns is None for incident in incidents)
        print(f"{len(incidents)} incidents, {unresolved_count} not resolved")
    return 1 if any(incident.resolved_ns is None for incident in incidents) else 0


def _format_incident(incident: Incident) -> str:
    recurrence = f"recurs: {incident.recurs}" if incident.recurs else "novel"
    breaches_text = f", {len(incident.breaches)} breaches" if len(incident.breaches) > 1 else ""
    opened = f"{format_time(incident.opened_ns)[:19]}Z"
    return (
        f"{incident.number:5} {opened} {incident.state:12} {recurrence:10} "
        f"{incident.invariant} {incident.cell_class}{breaches_text}"
    )


def run_show(arguments: argparse.Namespace) -> int:
    """Print one incident; returns 0."""
    ledger = _open_ledger(arguments)
    ledger.import_breaches()
    incident = ledger.get_incident(arguments.number)
    if arguments.json:
        print(json.dumps(json.loads(to_json([incident]))[0]))
        return 0
    print(_format_incident(incident))
    print(f"      {incident.explanation or incident.name}")
    if incident.carried_state_text:
        print(f"      state: {incident.carried_state_text}")
    for breach in incident.breaches:
        print(f"      breach {breach}")
    for time_ns, action in ledger.list_actions(incident.number):
        print(f"      {format_time(time_ns)[:19]}Z {action}")
    if incident.diagnosis:
        print(f"      {incident.cause}: {incident.diagnosis}")
    return 0


def run_acknowledge(arguments: argparse.Namespace) -> int:
    """Acknowledge an incident; returns 0."""
    return _apply(arguments, lambda ledger, now_ns: ledger.acknowledge(arguments.number, arguments.operator, now_ns))


def run_diagnose(arguments: argparse.Namespace) -> int:
    """Record the cause of an incident; returns 0."""
    return _apply(
        arguments,
        lambda ledger, now_ns: ledger.diagnose(
            arguments.number, arguments.operator, arguments.cause, arguments.diagnosis, now_ns
        ),
    )


def run_resolve(arguments: argparse.Namespace) -> int:
    """Resolve an incident; returns 0."""
    return _apply(arguments, lambda ledger, now_ns: ledger.resolve(arguments.number, arguments.operator, now_ns))


def _apply(arguments: argparse.Namespace, operation: Callable[[IncidentLedger, int], None]) -> int:
    ledger = _open_ledger(arguments)
    ledger.import_breaches()
    operation(ledger, time.time_ns())
    incident = ledger.get_incident(arguments.number)
    message = f"incident {incident.number} is {incident.state} by {arguments.operator}"
    print(json.dumps({"number": incident.number, "state": incident.state}) if arguments.json else message)
    return 0


def run_import(arguments: argparse.Namespace) -> int:
    """Import incidents from CSV, all or none; returns 0."""
    incidents = read_csv(arguments.file)
    ledger = _open_ledger(arguments)
    ledger.import_breaches()
    added = ledger.add_incidents(incidents, arguments.operator, time.time_ns())
    print(json.dumps({"imported": added}) if arguments.json else f"{added} incidents imported")
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    """Print the figures of a period; returns 0, or 3 when there is neither an incident nor a period."""
    ledger = _open_ledger(arguments)
    ledger.import_breaches()
    incidents = ledger.list_incidents()
    end_ns = parse_date_or_time(arguments.until) if arguments.until else time.time_ns()
    begin_ns = (
        parse_date_or_time(arguments.since)
        if arguments.since
        else min((incident.opened_ns for incident in incidents), default=None)
    )
    if begin_ns is None:
        print("no incident yet; with --since DATE the rate is that of a period without any")
        return 3
    split_ns = parse_date_or_time(arguments.before) if arguments.before else None
    incident_figures = compute_figures(incidents, begin_ns, end_ns, split_ns)
    if arguments.html is not None:
        write_report(arguments.html, figures_page(incident_figures))
    if arguments.csv is not None:
        write_report(arguments.csv, to_csv(incident_figures.incidents))
    print(json.dumps(figures_json(incident_figures)) if arguments.json else figures_text(incident_figures))
    return 0


def parse_date_or_time(text: str) -> int:
    """Return ns since the epoch for a date (midnight UTC) or an ISO 8601 time with an offset. Raises `ValueError`."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return parse_time(text)
    return int(day.timestamp()) * 1_000_000_000
