"""`holdover observe`: what a guard in observe mode, or a journal, shows would have been frozen; and its end by hand."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

from holdover.catalogue import Catalogue
from holdover.catalogue.policy import OBSERVE
from holdover.cli.commands import add_command, add_subcommands, add_verb
from holdover.cli.errors import print_problem
from holdover.cli.guard import check_scope
from holdover.cli.incidents import parse_date_or_time
from holdover.cli.options import add_catalogue_option, add_guard_option, add_json_option, add_operator_option
from holdover.report.observation import (
    ObservationReport,
    list_arming_steps,
    observation_json,
    observation_text,
    select_period,
)
from holdover.runtime import FreezeStore, GuardConfig, read_config
from holdover.runtime.heartbeat import read_health
from holdover.runtime.observation import EVERYTHING_ENFORCED
from holdover.runtime.thaw_requests import find_guard_config
from holdover.watch.trial import JournalTrial

_SKIPPED_SHOWN_MAX: Final = 10


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    exits = {
        0: "nothing would have been frozen",
        1: "something would have been frozen",
        3: "nothing was recorded in the period",
    }
    parser = add_verb(verbs, "observe", "holdover observe report --guard guard.toml", exits)
    commands = add_subcommands(parser, "act")
    report = add_command(
        commands,
        "report",
        "Report what would have been frozen, when, for how long, and on what evidence.",
        "holdover observe report --guard guard.toml --since 2026-11-01",
        exits,
        details="Ends with the entries that had no breach, and with the lines of the configuration that enforce them.",
        run=run_report,
    )
    source = report.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--guard", type=Path, metavar="DIR|TOML", help="a guard in observe mode: its directory, or its configuration"
    )
    source.add_argument(
        "--journal", type=Path, metavar="DIR|FILE", help="judge this journal, or that of a guard's directory, instead"
    )
    report.add_argument(
        "--config", type=Path, metavar="FILE", help="the guard's configuration, for its catalogue and its policy"
    )
    add_catalogue_option(report)
    report.add_argument(
        "--since",
        metavar="DATE",
        help="the begin of the period: YYYY-MM-DD, or ISO 8601 with an offset (default: the first record)",
    )
    report.add_argument("--until", metavar="DATE", help="the end of the period (default: the last record)")
    add_json_option(report)
    clear = add_command(
        commands,
        "clear",
        "End the observed freezes of a scope, as a named operator.",
        "holdover observe clear instrument:IBM --guard guard.toml --operator ann",
        {0: "ended"},
        details="In observe mode this is what a thaw is in enforce mode: the next breach counts as a new one.",
        run=run_clear,
    )
    clear.add_argument("scope", metavar="SCOPE", help="the scope, as `holdover observe report` shows it")
    add_guard_option(clear)
    add_operator_option(clear)
    add_json_option(clear)


def run_report(arguments: argparse.Namespace) -> int:
    """Print the report; returns 0 when nothing would have been frozen, 1 when something would, 3 without a record."""
    begin_ns = parse_date_or_time(arguments.since) if arguments.since else 0
    end_ns = parse_date_or_time(arguments.until) if arguments.until else 0
    if begin_ns and end_ns and end_ns <= begin_ns:
        raise ValueError(f"--until {arguments.until} is not after --since {arguments.since}")
    if arguments.journal is not None:
        report = _report_journal(arguments, begin_ns, end_ns)
    else:
        report = _report_guard(arguments, begin_ns, end_ns)
    print(json.dumps(observation_json(report)) if arguments.json else observation_text(report))
    return 3 if report.is_empty else 1 if report.freezes else 0


def load_configured_catalogue(config: GuardConfig | None, sources: list[str]) -> Catalogue:
    """Load the catalogue of a configuration and further sources, under the policy of the configuration."""
    if config is None:
        return Catalogue.load(*sources)
    catalogue = Catalogue.load(*config.catalogue, *sources)
    return catalogue.with_policy(config.policy, config.guard.mode)


# -- a journal --------------------------------------------------------------------------------------------------------


def read_trial(catalogue: Catalogue, path: Path) -> JournalTrial:
    """Judge a journal by a catalogue; prints the first lines that cannot be used on standard error."""
    trial = JournalTrial(catalogue)
    trial.read(path)
    trial.end()
    for problem in trial.skipped[:_SKIPPED_SHOWN_MAX]:
        print_problem(problem)
    if len(trial.skipped) > _SKIPPED_SHOWN_MAX:
        print_problem(f"and {len(trial.skipped) - _SKIPPED_SHOWN_MAX} more lines that cannot be used")
    return trial


def _report_journal(arguments: argparse.Namespace, begin_ns: int, end_ns: int) -> ObservationReport:
    path: Path = arguments.journal
    config = read_config(arguments.config) if arguments.config is not None else None
    catalogue = load_configured_catalogue(config, arguments.catalogue)
    trial = read_trial(catalogue, path)
    freezes = select_period(trial.freezes(), begin_ns, end_ns)
    breached = {freeze.invariant for freeze in freezes}
    counts = trial.evaluation_counts()
    first_ns, last_ns = max(begin_ns, trial.first_ns), min(end_ns or trial.last_ns, trial.last_ns)
    return ObservationReport(
        source=f"journal of {path}",
        begin_ns=first_ns,
        end_ns=last_ns,
        freezes=freezes,
        holding=[name for name in catalogue.invariants if name not in breached and counts.get(name)],
        unevaluated=[name for name in catalogue.invariants if name not in breached and not counts.get(name)],
        evaluations=counts,
        arming=list_arming_steps(arguments.config, catalogue, breached, last_ns) if arguments.config else [],
    )


# -- a guard ----------------------------------------------------------------------------------------------------------


def _report_guard(arguments: argparse.Namespace, begin_ns: int, end_ns: int) -> ObservationReport:
    path: Path = arguments.guard
    config = find_guard_config(path)
    config_path = arguments.config or (path if path.is_file() else None)
    if arguments.config is not None:
        config = read_config(arguments.config)
    catalogue = load_configured_catalogue(config, arguments.catalogue)
    store = config.open_store()
    first_ns, last_ns = _find_observed_period(store)
    first_ns, last_ns = max(begin_ns, first_ns), min(end_ns or last_ns, last_ns)
    freezes = select_period(store.observed_freezes(), begin_ns, end_ns)
    breached = {freeze.invariant for freeze in freezes}
    observed = [name for name in catalogue.invariants if catalogue.mode_of(name) == OBSERVE]
    return ObservationReport(
        source=f"guard {config.name}",
        begin_ns=first_ns,
        end_ns=last_ns,
        freezes=freezes,
        holding=[name for name in observed if name not in breached],
        arming=list_arming_steps(config_path, catalogue, breached, last_ns or time.time_ns()),
        bundles=str(config.directory / "bundles") if config.guard.bundles else "",
    )


def _find_observed_period(store: FreezeStore) -> tuple[int, int]:
    """Return when a guard began to observe and when the last sign of it was; two zeros when none has observed.

    A guard that has recorded no mutation has observed nothing.
    """
    freezes = store.observed_freezes()
    rows = store.audit_rows()
    begins = [
        time_ns
        for _, time_ns, action, detail in rows
        if action == "observe" and "begins; " in detail and EVERYTHING_ENFORCED not in detail
    ]
    begins += [freeze.time_ns for freeze in freezes]
    if not begins:
        return 0, 0
    beats = [process.beat.time_ns for process in read_health(store, time.time_ns()) if process.beat.mutations]
    ends = [max(freeze.time_ns, freeze.seen_ns, freeze.ended_ns or 0) for freeze in freezes]
    return min(begins), max([*beats, *ends, 0])


def run_clear(arguments: argparse.Namespace) -> int:
    """End the observed freezes of a scope; returns 0. Raises `ValueError` when none is open."""
    scope = check_scope(arguments.scope)
    if not arguments.operator.strip():
        raise ValueError("clear needs --operator")
    store = find_guard_config(arguments.guard).open_store()
    freezes = store.observed_freezes(open_only=True)
    numbers = [freeze.number for freeze in freezes if freeze.scope == scope]
    if not numbers:
        scopes = ", ".join(dict.fromkeys(freeze.scope for freeze in freezes)) or "nothing"
        raise ValueError(f"no observed freeze of {scope} is open; open is: {scopes}")
    count = store.end_observed_freezes(numbers, arguments.operator, time.time_ns())
    if arguments.json:
        print(json.dumps({"scope": scope, "ended": count}))
    else:
        print(f"ended {count} observed freezes of {scope}; a running guard takes it up within a minute")
    return 0
