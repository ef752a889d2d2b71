"""`holdover coverage`: reports the coverage of a measured run, and manages rules, waivers and thresholds."""

from __future__ import annotations

import argparse
import getpass
import json
from datetime import date
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
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

DATA_FILE = Path(".state-coverage.json")


def add_parser(verbs: Any) -> None:
    """Add the verb and its subcommands."""
    parser = verbs.add_parser("coverage", help="state coverage: report, compare, gap, rules")
    parts = parser.add_subparsers(dest="part", metavar="WHAT", required=True)
    for add in (_add_reports, _add_files, _add_lock):
        add(parts)


def _add_part(parts: Any, name: str, run: Any, about: str, *, data: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parts.add_parser(name, help=about)
    parser.add_argument("--lock", type=Path, help=f"the lock file, without it {LOCK_NAME} here")
    parser.add_argument(
        "--today", type=_parse_date, default=None, help="the day by which waivers are judged, YYYY-MM-DD"
    )
    if data:
        parser.add_argument(
            "file", type=Path, nargs="?", default=DATA_FILE, help=f"the coverage file, without it {DATA_FILE}"
        )
    parser.set_defaults(run=run)
    return parser


def _add_reports(parts: Any) -> None:
    for name, run, about in (
        ("report", run_report, "the table, worst first"),
        ("html", run_html, "the state map as one HTML page"),
        ("json", run_json, "everything as one JSON object"),
    ):
        report_parser = _add_part(parts, name, run, about)
        report_parser.add_argument(
            "--gap", type=Path, metavar="PROFILE", help="a profile of production to compare with"
        )
        report_parser.add_argument("--base", type=Path, metavar="FILE", help="a coverage file to compare with")
        if name == "report":
            report_parser.add_argument("--show-missing", action="store_true", help="name what is missing, in words")
            report_parser.add_argument(
                "--invariants", action="store_true", help="in which cells each invariant had occasion"
            )
            report_parser.add_argument(
                "--fail-under", type=float, metavar="N", help="exit 1 when C1 is under N percent"
            )
            report_parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
        else:
            report_parser.add_argument("--out", type=Path, help="where to write it")
    gap = parts.add_parser("gap", help="what production has seen and no test has")
    gap.add_argument("profile", type=Path, help="a profile, as `holdover coverage profile` writes it")
    gap.add_argument("file", type=Path, nargs="?", default=DATA_FILE, help=f"the coverage file, without it {DATA_FILE}")
    gap.add_argument("--lock", type=Path, help=f"the lock file, without it {LOCK_NAME} here")
    gap.add_argument("--today", type=_parse_date, default=None, help="the day by which waivers are judged, YYYY-MM-DD")
    gap.add_argument("--json", action="store_true", help="one JSON object on standard output")
    gap.set_defaults(run=run_gap)


def _add_files(parts: Any) -> None:
    file_parser = parts.add_parser("combine", help="several coverage files as one: workers, machines, suites")
    file_parser.add_argument("files", type=Path, nargs="+")
    file_parser.add_argument("--out", type=Path, default=DATA_FILE, help=f"where to write, without it {DATA_FILE}")
    file_parser.set_defaults(run=run_combine)
    file_parser = parts.add_parser("diff", help="which cells a change loses, against a base")
    file_parser.add_argument("base", type=Path, help="the coverage file of the base")
    file_parser.add_argument(
        "file", type=Path, nargs="?", default=DATA_FILE, help=f"the coverage file, without it {DATA_FILE}"
    )
    file_parser.add_argument("--lock", type=Path, help=f"the lock file, without it {LOCK_NAME} here")
    file_parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    file_parser.set_defaults(run=run_diff)
    file_parser = parts.add_parser(
        "profile", help="the cells seen in production, from journals and the guard's counter"
    )
    file_parser.add_argument(
        "sources", type=Path, nargs="+", help="journal.jsonl, cells.json, or folders that hold them"
    )
    file_parser.add_argument("--lock", type=Path, help=f"the lock file, without it {LOCK_NAME} here")
    file_parser.add_argument("--out", type=Path, default=Path("production.json"), help="where to write the profile")
    file_parser.set_defaults(run=run_profile)
    file_parser = parts.add_parser("axes", help="the axes there are, their values in words")
    file_parser.add_argument("--lock", type=Path, help=f"the lock file, without it {LOCK_NAME} here")
    file_parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    file_parser.set_defaults(run=run_axes)


def _add_lock(parts: Any) -> None:
    lock_parser = _add_part(
        parts, "propose", run_propose, "rules that would fit what was never reached; a person accepts them"
    )
    lock_parser.add_argument(
        "--min", type=int, default=20, metavar="N", help="how many chances something must have had"
    )
    lock_parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    lock_parser = _add_part(
        parts, "accept", run_accept, "accept a rule: what it speaks of cannot be, and a run that gets there fails"
    )
    lock_parser.add_argument(
        "--name", required=True, help="the rule's name; a proposal's, unless --when or --at says the rule"
    )
    lock_parser.add_argument("--when", action="append", default=[], metavar="AXIS=VALUE[,VALUE]", help="what cannot be")
    lock_parser.add_argument(
        "--at", action="append", default=[], metavar="TRANSITION", help="only when this comes about"
    )
    lock_parser.add_argument("--min", type=int, default=20, metavar="N", help="as for propose")
    _add_operator_options(lock_parser)
    lock_parser = _add_part(parts, "retire", run_retire, "take an accepted rule out, with a reason", data=False)
    lock_parser.add_argument("--name", required=True, help="the rule's name")
    _add_operator_options(lock_parser)
    lock_parser = _add_part(
        parts, "waive", run_waive, "let a gap, or an invariant without occasion, pass until a date", data=False
    )
    lock_parser.add_argument("--name", required=True, help="as the gap is named; `invariant NAME` for an invariant")
    lock_parser.add_argument(
        "--until", type=_parse_date, required=True, help="the last day on which it passes, YYYY-MM-DD"
    )
    _add_operator_options(lock_parser)
    lock_parser = _add_part(
        parts, "ratchet", run_ratchet, "raise the thresholds to what is covered; lower one with a reason"
    )
    lock_parser.add_argument(
        "--lower", action="append", default=[], metavar="NAME=N", help=f"set one of {', '.join(THRESHOLDS)} lower"
    )
    lock_parser.add_argument("--corpus", type=Path, metavar="DIR", help="raise those of the corpus, too")
    _add_operator_options(lock_parser, reason=False)


def _add_operator_options(parser: argparse.ArgumentParser, *, reason: bool = True) -> None:
    parser.add_argument("--reason", required=reason, default="", help="why")
    parser.add_argument("--by", default=None, help="who; without it the user logged in")


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
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(coverage_page(_load_numbers(arguments), _today(arguments)), encoding="utf-8")
    print(f"wrote {path}")
    return 0


def run_json(arguments: argparse.Namespace) -> int:
    """Print or write all numbers as one JSON object."""
    text = json.dumps(_load_numbers(arguments).as_json(_today(arguments)), indent=1)
    if arguments.out is None:
        print(text)
    else:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")
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
    print(f"{len(open_)} seen in production and in no test" + (f", and {waived} waived" if waived else ""))
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
    print(f"this change loses {len(numbers.lost_places)} and wins {len(numbers.gained_places)}")
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
        raise argparse.ArgumentTypeError(f"{text!r} is no date, should be YYYY-MM-DD") from None


def _parse_axis_values(conditions: list[str]) -> dict[str, list[str]]:
    axis_values: dict[str, list[str]] = {}
    for condition in conditions:
        axis, _, values = condition.partition("=")
        if not values:
            raise LockError(f"--when {condition}: should be AXIS=VALUE[,VALUE]")
        axis_values[axis] = values.split(",")
    return axis_values


__all__ = ["DATA_FILE", "add_parser"]
