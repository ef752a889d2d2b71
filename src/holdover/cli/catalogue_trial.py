"""`holdover catalogue try`: judges a new or changed entry over the recorded history of a guard."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdover.catalogue import Catalogue, Policy
from holdover.cli.commands import add_command

if TYPE_CHECKING:
    from holdover.watch.trial import JournalTrial

_SHOWN_MAX: Final = 50


def add_trial_parser(commands: Any) -> None:
    """Add the subcommand `try` of `holdover catalogue`."""
    parser = add_command(
        commands,
        "try",
        "Judge a new or changed entry over the journal of a guard.",
        "holdover catalogue try our_invariants --journal guard",
        {
            0: "every entry holds, and each was evaluated",
            1: "an entry is breached",
            3: "an entry was never evaluated: the journal is no evidence for it",
        },
        details="An entry in a folder replaces the one of the same name, and keeps its predicate if it has none.",
        run=run_try,
    )
    parser.add_argument(
        "entry", metavar="ENTRY", help="the name of an invariant, or a folder or package with entries of your own"
    )
    parser.add_argument(
        "--journal",
        type=Path,
        required=True,
        metavar="DIR|FILE",
        help="the journal, or a guard's directory; its rotated files are read first",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the guard's configuration, for its catalogue and its thresholds"
    )


def run_try(arguments: argparse.Namespace) -> int:
    """Print the verdict of each entry; returns 0 when all hold, 1 for a breach, 3 when one was never evaluated."""
    from holdover.cli.observe import read_trial  # loads the sidecar, which no other verb of this module needs

    catalogue, names = _select_entries(arguments)
    others = [name for name in catalogue.invariants if name not in names]
    trial = read_trial(catalogue.without(*others), arguments.journal)
    verdicts = {name: _verdict_of(trial, name) for name in names}
    if arguments.json:
        print(json.dumps(_to_json(trial, verdicts)))
    else:
        print("\n".join(_text_lines(trial, verdicts)))
    if "BREACH" in verdicts.values():
        return 1
    return 3 if "NEVER EVALUATED" in verdicts.values() else 0


def _select_entries(arguments: argparse.Namespace) -> tuple[Catalogue, list[str]]:
    """Return the catalogue with the thresholds of the configuration, and the names of the entries to try."""
    from holdover.runtime import read_config

    config = read_config(arguments.config) if arguments.config is not None else None
    sources = [*(config.catalogue if config is not None else []), *arguments.catalogue]
    catalogue = Catalogue.load(*sources)
    if arguments.entry in catalogue.invariants:
        names = [arguments.entry]
    elif Path(arguments.entry).is_dir() or _is_package(arguments.entry):
        catalogue, names = catalogue.with_source(arguments.entry)
    else:
        names = [catalogue[arguments.entry].name]  # raises with the nearest name
    policies = [_without_mode(policy) for policy in (config.policy if config is not None else [])]
    return catalogue.with_policy([policy for policy in policies if policy.invariant in names]), names


def _is_package(name: str) -> bool:
    """Return whether a module of this name can be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _without_mode(policy: Policy) -> Policy:
    """Return the thresholds of a policy alone: a trial evaluates the entry, whatever its mode."""
    return msgspec.structs.replace(policy, mode="enforce", expires=None)


def _verdict_of(trial: JournalTrial, name: str) -> str:
    if any(breach.invariant == name for breach in trial.breaches):
        return "BREACH"
    return "HOLDS" if trial.evaluation_counts().get(name) else "NEVER EVALUATED"


def _to_json(trial: JournalTrial, verdicts: dict[str, str]) -> dict[str, Any]:
    counts = trial.evaluation_counts()
    return {
        "begin_ns": trial.first_ns,
        "end_ns": trial.last_ns,
        "mutations": trial.mutations,
        "skipped": len(trial.skipped),
        "entries": [
            {
                "name": name,
                "verdict": verdict,
                "evaluations": counts.get(name, 0),
                "breaches": [msgspec.to_builtins(breach) for breach in trial.breaches if breach.invariant == name],
            }
            for name, verdict in verdicts.items()
        ],
    }


def _text_lines(trial: JournalTrial, verdicts: dict[str, str]) -> list[str]:
    from holdover.runtime.record_text import format_time

    counts = trial.evaluation_counts()
    lines = [f"{trial.mutations:,} mutations, {format_time(trial.first_ns)} to {format_time(trial.last_ns)}"]
    for name, verdict in verdicts.items():
        breaches = [breach for breach in trial.breaches if breach.invariant == name]
        lines.append(f"{verdict:<8}{name}: {counts.get(name, 0):,} evaluations, {len(breaches):,} breaches")
        for breach in breaches[:_SHOWN_MAX]:
            place = f"{breach.scope}, {breach.subsystem} {breach.kind} {breach.key}"
            lines += [f"  {format_time(breach.time_ns)} {place}", f"    {breach.explanation}"]
        if len(breaches) > _SHOWN_MAX:
            lines.append(f"  and {len(breaches) - _SHOWN_MAX:,} more; --json has all")
    return lines
