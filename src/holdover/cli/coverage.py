"""`holdover coverage`: reports the coverage of a measured run, and manages rules, waivers and thresholds."""

from __future__ import annotations

import argparse
import getpass
import json
from datetime import date
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.cli.commands import CommandParser, Run, add_command, add_subcommands, add_verb
from holdover.cli.options import add_json_option
from holdover.coverage import (
    CoverageData,
    CoverageLock,
    CoverageNumbers,
    LockError,
    Rule,
    Waiver,
    build_profile,
    combine_coverage,
    find_lock,
    find_proposal,
    propose_rules,
    read_coverage,
    read_lock,
)
from holdover.coverage.lock import CORPUS_THRESHOLDS, LOCK_NAME, THRESHOLDS
from holdover.explore.corpus import Corpus
from holdover.report import coverage_page, coverage_text, occasions_text
from holdover.runtime.axes import axes_in_use
from holdover.runtime.files import write_report

DATA_FILE = Path(".state-coverage.json")


def add_parser(verbs: Any) -> None:
    """Add the verb and its subcommands."""
    parser = add_verb(
        verbs,
        "coverage",
        "holdover coverage report --show-missing",
        {0: "done, and no check failed", 1: "a check of the subcommand failed"},
    )
    commands = add_subcommands(parser, "part")
    for add in (_add_reports, _add_files, _add_rules, _add_thresholds):
        add(commands)


def _add_part(
    commands: Any,
    name: str,
    run: Run,
    sentence: str,
    example: str,
    exits: dict[int, str] | None = None,
    *,
    data: bool = True,
) -> CommandParser:
    parser = add_command(commands, name, sentence, f"holdover coverage {example}", exits or {0: "done"}, run=run)
    _add_lock_option(parser)
    parser.add_argument(
        "--today",
        type=_parse_date,
        default=None,
        metavar="DATE",
        help="the day on which waivers are judged, YYYY-MM-DD (default today)",
    )
    if data:
        _add_data_argument(parser)
    return parser


def _add_lock_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lock",
        type=Path,
        metavar="FILE",
        help=f"the lock file; default: {LOCK_NAME} of this directory or the nearest above it",
    )


def _add_data_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        default=DATA_FILE,
        metavar="FILE",
        help=f"the coverage file of the run (default {DATA_FILE})",
    )


def _add_reports(commands: Any) -> None:
    failed = {0: "no rule is violated and C1 is high enough", 1: "a rule is violated, or C1 is below --fail-under"}
    for name, run, sentence, example, exits in (
        ("report", run_report, "Print the coverage table, worst first.", "report --show-missing", failed),
        ("html", run_html, "Write the state map as one HTML page.", "html --out state-map.html", None),
        ("json", run_json, "Print or write all numbers as one JSON object.", "json", None),
    ):
        parser = _add_part(commands, name, run, sentence, example, exits)
        parser.add_argument("--gap", type=Path, metavar="PROFILE", help="a production profile to compare with")
        parser.add_argument("--base", type=Path, metavar="FILE", help="an earlier coverage file to compare with")
        if name == "report":
            parser.add_argument("--show-missing", action="store_true", help="name each missing cell in words")
            parser.add_argument(
                "--invariants", action="store_true", help="show in which cells each invariant was exercised"
            )
            parser.add_argument("--fail-under", type=float, metavar="N", help="exit with 1 when C1 is below N percent")
            add_json_option(parser)
        else:
            default = "out/state-coverage.html" if name == "html" else "standard output"
            parser.add_argument("--out", type=Path, metavar="FILE", help=f"where to write it (default {default})")
    gap = add_command(
        commands,
        "gap",
        "List what production has reached and no test has.",
        "holdover coverage gap production.json",
        {0: "the gap is empty or waived", 1: "part of the gap is not waived"},
        run=run_gap,
    )
    gap.add_argument("profile", type=Path, metavar="PROFILE", help="what `holdover coverage profile` has written")
    _add_data_argument(gap)
    _add_lock_option(gap)
    gap.add_argument(
        "--today",
        type=_parse_date,
        default=None,
        metavar="DATE",
        help="the day on which waivers are judged, YYYY-MM-DD (default today)",
    )
    add_json_option(gap)


def _add_files(commands: Any) -> None:
    done = {0: "done"}
    parser = add_command(
        commands,
        "combine",
        "Combine several coverage files into one.",
        "holdover coverage combine worker-1.json worker-2.json",
        done,
        details="Use it for the files of several workers, machines or suites.",
        run=run_combine,
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="the coverage files")
    parser.add_argument(
        "--out", type=Path, default=DATA_FILE, metavar="FILE", help=f"where to write the result (default {DATA_FILE})"
    )
    parser = add_command(
        commands,
        "diff",
        "List the cells that a change loses and gains.",
        "holdover coverage diff base.json",
        {0: "no cell is lost", 1: "at least one cell is lost"},
        run=run_diff,
    )
    parser.add_argument("base", type=Path, metavar="BASE", help="the coverage file from before the change")
    _add_data_argument(parser)
    _add_lock_option(parser)
    add_json_option(parser)
    parser = add_command(
        commands,
        "profile",
        "Write the cells that production has reached.",
        "holdover coverage profile /var/lib/desk/guard",
        done,
        run=run_profile,
    )
    parser.add_argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="SOURCE",
        help="a guard's journal.jsonl or cells.json, or a directory that contains them",
    )
    _add_lock_option(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("production.json"),
        metavar="FILE",
        help="where to write the profile (default production.json)",
    )
    parser = add_command(
        commands, "axes", "List the axes with their values in words.", "holdover coverage axes", done, run=run_axes
    )
    _add_lock_option(parser)
    add_json_option(parser)


def _add_rules(commands: Any) -> None:
    parser = _add_part(
        commands,
        "propose",
        run_propose,
        "Propose rules for cells that were never reached; a person accepts them.",
        "propose --min 50",
    )
    parser.add_argument(
        "--min", type=int, default=20, metavar="N", help="propose only what had at least N chances (default 20)"
    )
    add_json_option(parser)
    parser = _add_part(
        commands,
        "accept",
        run_accept,
        "Accept a rule: its cells cannot occur, and a run that reaches one fails.",
        'accept --name no-orders-when-flat --when orders=none --reason "the desk cancels first"',
    )
    parser.add_argument(
        "--name", required=True, help="the name of the rule; a proposed one, unless --when or --at defines it"
    )
    parser.add_argument(
        "--when",
        action="append",
        default=[],
        metavar="AXIS=VALUE[,VALUE]",
        help="the values that cannot occur together; may be repeated",
    )
    parser.add_argument(
        "--at", action="append", default=[], metavar="TRANSITION", help="only after this transition; may be repeated"
    )
    parser.add_argument(
        "--min", type=int, default=20, metavar="N", help="consider proposals with at least N chances (default 20)"
    )
    _add_operator_options(parser)
    parser = _add_part(
        commands,
        "retire",
        run_retire,
        "Remove an accepted rule, with a reason.",
        'retire --name no-orders-when-flat --reason "the desk changed"',
        data=False,
    )
    parser.add_argument("--name", required=True, help="the name of the rule")
    _add_operator_options(parser)


def _add_thresholds(commands: Any) -> None:
    parser = _add_part(
        commands,
        "waive",
        run_waive,
        "Let a gap, or an invariant that was never exercised, pass until a date.",
        'waive --name "invariant clock-monotone" --until 2027-01-31 --reason "test follows"',
        data=False,
    )
    parser.add_argument("--name", required=True, help="the name of the gap, or `invariant NAME`")
    parser.add_argument(
        "--until", type=_parse_date, required=True, metavar="DATE", help="the last day of the waiver, YYYY-MM-DD"
    )
    _add_operator_options(parser)
    parser = _add_part(
        commands,
        "ratchet",
        run_ratchet,
        "Raise the thresholds to the current coverage, or lower one with a reason.",
        "ratchet",
    )
    parser.add_argument(
        "--lower",
        action="append",
        default=[],
        metavar="NAME=N",
        help=f"lower one of {', '.join(THRESHOLDS)}; may be repeated",
    )
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="also raise the thresholds of this corpus")
    _add_operator_options(parser, reason=False)


def _add_operator_options(parser: argparse.ArgumentParser, *, reason: bool = True) -> None:
    parser.add_argument("--reason", required=reason, default="", help="why; it is written into the lock file")
    parser.add_argument("--by", default=None, metavar="NAME", help="who decides this (default: the user logged in)")


# -- reports --------------------------------------------------------------------------------------------------------


def run_report(arguments: argparse.Namespace) -> int:
    """Print the coverage table; returns 1 when C1 is below `--fail-under` or a rule is violated."""
    numbers = _load_numbers(arguments)
    if arguments.json:
        print(json.dumps(numbers.as_json(_today(arguments))))
    else:
        print(coverage_text(numbers, _today(arguments), show_missing=arguments.show_missing))
        if arguments.invariants:
            print("\n" + occasions_text(numbers))
    short = arguments.fail_under is not None and numbers.c1.percent < arguments.fail_under
    if short and not arguments.json:
        print(f"\nC1 is {numbers.c1.percent:.2f}%, should be at least {arguments.fail_under:g}%")
    return int(short or bool(numbers.rule_violations))


def run_html(arguments: argparse.Namespace) -> int:
    """Write the state map."""
    path = arguments.out or Path("out/state-coverage.html")
    write_report(path, coverage_page(_load_numbers(arguments), _today(arguments)))
    print(f"wrote {path}")
    return 0


def run_json(arguments: argparse.Namespace) -> int:
    """Print or write all numbers as one JSON object."""
    text = json.dumps(_load_numbers(arguments).as_json(_today(arguments)), indent=1)
    if arguments.out is None:
        print(text)
    else:
        write_report(arguments.out, text + "\n")
        print(f"wrote {arguments.out}")
    return 0


def run_gap(arguments: argparse.Namespace) -> int:
    """Print the carry gap; returns 1 when any of it is not waived."""
    arguments.gap, arguments.base = arguments.profile, None
    numbers, today = _load_numbers(arguments), _today(arguments)
    open_, expired = numbers.unwaived_gaps(today)
    if arguments.json:
        gaps = [{"name": gap.name, "words": gap.words, "seen": gap.count, "source": gap.source} for gap in open_]
        print(json.dumps({"gap": gaps, "waived": len(numbers.waived_gaps(today)), "expired": expired}))
        return int(bool(open_))
    for gap in open_:
        print(
            f"{gap.name}\n    {gap.words}; seen {'once' if gap.count == 1 else f'{gap.count} times'}, in {gap.source}"
        )
    for message in expired:
        print(message)
    waived = len(numbers.waived_gaps(today))
    print(f"{len(open_)} reached in production and in no test" + (f", and {waived} waived" if waived else ""))
    return int(bool(open_))


# -- files ----------------------------------------------------------------------------------------------------------


def run_combine(arguments: argparse.Namespace) -> int:
    """Combine several coverage files into one."""
    data = combine_coverage([read_coverage(path) for path in arguments.files])
    data.write(arguments.out)
    print(f"wrote {arguments.out}: {len(arguments.files)} files")
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Print the cells that a change loses and gains; returns 1 when it loses any."""
    arguments.gap = None
    numbers = _load_numbers(arguments)
    if arguments.json:
        print(
            json.dumps(
                {"lost": numbers.lost_places, "won": numbers.gained_places, "c1": numbers.ratios()["c1"].percent}
            )
        )
        return int(bool(numbers.lost_places))
    for place in numbers.lost_places:
        print(f"- {place}")
    for place in numbers.gained_places:
        print(f"+ {place}")
    print(f"this change loses {len(numbers.lost_places)} and gains {len(numbers.gained_places)}")
    return int(bool(numbers.lost_places))


def run_profile(arguments: argparse.Namespace) -> int:
    """Write the profile of production."""
    lock = _load_lock(arguments)
    data = build_profile(arguments.sources, Catalogue.load(*lock.catalogue).digest)
    data.write(arguments.out)
    transition_count = sum(len(cells) for cells in data.transitions.values())
    print(f"wrote {arguments.out}: {len(data.visits)} cells, {transition_count} transitions in cells")
    return 0


def run_axes(arguments: argparse.Namespace) -> int:
    """Print the axes and their values."""
    lock = _load_lock(arguments)
    if arguments.json:
        rows = [
            {
                "name": axis.name,
                "title": axis.title,
                "values": dict(zip(axis.values, axis.words, strict=True)),
                "product": axis.name in lock.axes,
            }
            for axis in axes_in_use()
        ]
        print(json.dumps(rows))
        return 0
    for axis in axes_in_use():
        print(f"{axis.name:<18}{axis.title}{'' if axis.name in lock.axes else '  (not in the product)'}")
        for value, words in zip(axis.values, axis.words, strict=True):
            print(f"    {value:<14}{words}")
    return 0


# -- the lock file --------------------------------------------------------------------------------------------------


def run_propose(arguments: argparse.Namespace) -> int:
    """Print proposed rules without changing anything."""
    arguments.gap = arguments.base = None
    proposals = propose_rules(_load_numbers(arguments), chances_min=arguments.min)
    if arguments.json:
        rows = [
            {
                "name": proposal.rule.name,
                "when": proposal.rule.axis_values,
                "transitions": proposal.rule.transitions,
                "removes": proposal.removed_places,
                "chances": proposal.chances,
                "words": proposal.words,
            }
            for proposal in proposals
        ]
        print(json.dumps(rows))
        return 0
    for proposal in proposals:
        print(
            f"{proposal.rule.name}\n    {proposal.words}; had {proposal.chances} chances; "
            f"would take out {proposal.removed_places} places"
        )
    print(f"{len(proposals)} proposals. Accept one that cannot be: holdover coverage accept --name NAME --reason WHY")
    return 0


def run_accept(arguments: argparse.Namespace) -> int:
    """Add one rule to the lock file. Raises `LockError` when there is no such proposal."""
    lock, path = _load_lock(arguments), _lock_path(arguments)
    if arguments.when or arguments.at:
        rule = Rule(
            name=arguments.name,
            reason=arguments.reason,
            axis_values=_parse_axis_values(arguments.when),
            transitions=arguments.at,
        )
    else:
        arguments.gap = arguments.base = None
        proposal = find_proposal(_load_numbers(arguments), arguments.name, chances_min=arguments.min)
        if proposal is None:
            raise LockError(
                f"{arguments.name}: no rule of this name is proposed; "
                f"say what cannot be with --when AXIS=VALUE, or see `holdover coverage propose`"
            )
        rule = Rule(
            name=proposal.rule.name,
            reason=arguments.reason,
            axis_values=proposal.rule.axis_values,
            transitions=proposal.rule.transitions,
        )
    lock.accept(rule, by=_operator_name(arguments), day=_today(arguments))
    lock.write(path)
    print(f"{path}: rule {rule.name} accepted, {len(lock.rule)} rules")
    return 0


def run_retire(arguments: argparse.Namespace) -> int:
    """Remove one rule from the lock file."""
    lock, path = _load_lock(arguments), _lock_path(arguments)
    lock.retire(arguments.name, by=_operator_name(arguments), day=_today(arguments), reason=arguments.reason)
    lock.write(path)
    print(f"{path}: rule {arguments.name} retired, {len(lock.rule)} rules")
    return 0


def run_waive(arguments: argparse.Namespace) -> int:
    """Waive one gap until a date."""
    lock, path = _load_lock(arguments), _lock_path(arguments)
    operator = _operator_name(arguments)
    waiver = Waiver(name=arguments.name, last_day=arguments.until, reason=arguments.reason, by=operator)
    lock.waive(waiver, day=_today(arguments))
    lock.write(path)
    print(f"{path}: {arguments.name} is waived up to {arguments.until}")
    return 0


def run_ratchet(arguments: argparse.Namespace) -> int:
    """Raise the thresholds to the current coverage, or lower one."""
    lock, path = _load_lock(arguments), _lock_path(arguments)
    by, day = _operator_name(arguments), _today(arguments)
    for setting in arguments.lower:
        name, _, value = setting.partition("=")
        try:
            threshold = float(value)
        except ValueError:
            raise LockError(f"--lower {setting}: should be NAME=N, such as c1=12.5") from None
        lock.ratchet(name, threshold, by=by, day=day, reason=arguments.reason)
    if not arguments.lower:
        arguments.gap = arguments.base = None
        for name, ratio in _load_numbers(arguments).ratios().items():
            # Truncate, do not round: the current coverage must meet the new threshold.
            reached = int(ratio.percent * 10) / 10
            if reached > lock.thresholds.get(name, 0.0):
                lock.ratchet(name, reached, by=by, day=day, reason=arguments.reason or "reached")
        for name, count in (Corpus(arguments.corpus).counts() if arguments.corpus else {}).items():
            if count > lock.thresholds.get(name, 0.0):
                lock.ratchet(name, float(count), by=by, day=day, reason=arguments.reason or "kept")
    lock.write(path)
    texts = [f"{name} {lock.thresholds[name]:g}" for name in THRESHOLDS if name in lock.thresholds]
    print(f"{path}: " + ", ".join(text if text.split()[0] in CORPUS_THRESHOLDS else f"{text}%" for text in texts))
    return 0


# -- what they share ------------------------------------------------------------------------------------------------


def _load_numbers(arguments: argparse.Namespace) -> CoverageNumbers:
    lock = _load_lock(arguments)
    data: CoverageData = read_coverage(arguments.file)
    return CoverageNumbers(
        data,
        lock,
        Catalogue.load(*lock.catalogue),
        profile=read_coverage(arguments.gap) if arguments.gap else None,
        base=read_coverage(arguments.base) if arguments.base else None,
    )


def _load_lock(arguments: argparse.Namespace) -> CoverageLock:
    path = arguments.lock or find_lock(Path())
    if arguments.lock is not None and not arguments.lock.exists() and arguments.part in ("accept", "waive", "ratchet"):
        path = None  # these subcommands create the file
    return read_lock(path)


def _lock_path(arguments: argparse.Namespace) -> Path:
    return arguments.lock or Path(LOCK_NAME)


def _today(arguments: argparse.Namespace) -> date:
    return arguments.today or date.today()


def _operator_name(arguments: argparse.Namespace) -> str:
    return str(arguments.by if arguments.by is not None else getpass.getuser())


def _parse_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date, YYYY-MM-DD") from None


def _parse_axis_values(conditions: list[str]) -> dict[str, list[str]]:
    axis_values: dict[str, list[str]] = {}
    for condition in conditions:
        axis, _, values = condition.partition("=")
        if not values:
            raise LockError(f"--when {condition}: should be AXIS=VALUE[,VALUE]")
        axis_values[axis] = values.split(",")
    return axis_values


__all__ = ["DATA_FILE", "add_parser"]
