"""`holdover coverage`: what a measured run has covered; the rules, waivers and thresholds that it is judged by."""

from __future__ import annotations

import argparse
import getpass
import json
from datetime import date
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.coverage import (
    BadLock,
    Data,
    Lock,
    Numbers,
    Rule,
    Waiver,
    combine,
    find_lock,
    profile,
    proposal_named,
    propose,
    read,
    read_lock,
)
from holdover.coverage.lock import KEPT, NAME, THRESHOLDS
from holdover.explore.corpus import Corpus
from holdover.report import coverage_page, coverage_text, occasions_text
from holdover.runtime.axes import axes_in_use

DATA = Path(".state-coverage.json")


def add_parser(verbs: Any) -> None:
    """Add the verb and its own verbs."""
    parser = verbs.add_parser("coverage", help="state coverage: report, compare, gap, rules")
    parts = parser.add_subparsers(dest="part", metavar="WHAT", required=True)
    for add in (_add_reports, _add_files, _add_lock):
        add(parts)


def _part(parts: Any, name: str, run: Any, about: str, *, data: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parts.add_parser(name, help=about)
    parser.add_argument("--lock", type=Path, help=f"the lock file, without it {NAME} here")
    parser.add_argument("--today", type=_date, default=None, help="the day by which waivers are judged, YYYY-MM-DD")
    if data:
        parser.add_argument("file", type=Path, nargs="?", default=DATA, help=f"the coverage file, without it {DATA}")
    parser.set_defaults(run=run)
    return parser


def _add_reports(parts: Any) -> None:
    for name, run, about in (
        ("report", run_report, "the table, worst first"),
        ("html", run_html, "the state map as one HTML page"),
        ("json", run_json, "everything as one JSON object"),
    ):
        one = _part(parts, name, run, about)
        one.add_argument("--gap", type=Path, metavar="PROFILE", help="a profile of production to compare with")
        one.add_argument("--base", type=Path, metavar="FILE", help="a coverage file to compare with")
        if name == "report":
            one.add_argument("--show-missing", action="store_true", help="name what is missing, in words")
            one.add_argument("--invariants", action="store_true", help="in which cells each invariant had occasion")
            one.add_argument("--fail-under", type=float, metavar="N", help="exit 1 when C1 is under N percent")
            one.add_argument("--json", action="store_true", help="one JSON object on standard output")
        else:
            one.add_argument("--out", type=Path, help="where to write it")
    gap = parts.add_parser("gap", help="what production has seen and no test has")
    gap.add_argument("profile", type=Path, help="a profile, as `holdover coverage profile` writes it")
    gap.add_argument("file", type=Path, nargs="?", default=DATA, help=f"the coverage file, without it {DATA}")
    gap.add_argument("--lock", type=Path, help=f"the lock file, without it {NAME} here")
    gap.add_argument("--today", type=_date, default=None, help="the day by which waivers are judged, YYYY-MM-DD")
    gap.add_argument("--json", action="store_true", help="one JSON object on standard output")
    gap.set_defaults(run=run_gap)


def _add_files(parts: Any) -> None:
    one = parts.add_parser("combine", help="several coverage files as one: workers, machines, suites")
    one.add_argument("files", type=Path, nargs="+")
    one.add_argument("--out", type=Path, default=DATA, help=f"where to write, without it {DATA}")
    one.set_defaults(run=run_combine)
    one = parts.add_parser("diff", help="which cells a change loses, against a base")
    one.add_argument("base", type=Path, help="the coverage file of the base")
    one.add_argument("file", type=Path, nargs="?", default=DATA, help=f"the coverage file, without it {DATA}")
    one.add_argument("--lock", type=Path, help=f"the lock file, without it {NAME} here")
    one.add_argument("--json", action="store_true", help="one JSON object on standard output")
    one.set_defaults(run=run_diff)
    one = parts.add_parser("profile", help="the cells seen in production, from journals and the guard's counter")
    one.add_argument("sources", type=Path, nargs="+", help="journal.jsonl, cells.json, or folders that hold them")
    one.add_argument("--lock", type=Path, help=f"the lock file, without it {NAME} here")
    one.add_argument("--out", type=Path, default=Path("production.json"), help="where to write the profile")
    one.set_defaults(run=run_profile)
    one = parts.add_parser("axes", help="the axes there are, their values in words")
    one.add_argument("--lock", type=Path, help=f"the lock file, without it {NAME} here")
    one.add_argument("--json", action="store_true", help="one JSON object on standard output")
    one.set_defaults(run=run_axes)


def _add_lock(parts: Any) -> None:
    one = _part(parts, "propose", run_propose, "rules that would fit what was never reached; a person accepts them")
    one.add_argument("--min", type=int, default=20, metavar="N", help="how many chances something must have had")
    one.add_argument("--json", action="store_true", help="one JSON object on standard output")
    one = _part(
        parts, "accept", run_accept, "accept a rule: what it speaks of cannot be, and a run that gets there fails"
    )
    one.add_argument("--name", required=True, help="the rule's name; a proposal's, unless --when or --at says the rule")
    one.add_argument("--when", action="append", default=[], metavar="AXIS=VALUE[,VALUE]", help="what cannot be")
    one.add_argument("--at", action="append", default=[], metavar="TRANSITION", help="only when this comes about")
    one.add_argument("--min", type=int, default=20, metavar="N", help="as for propose")
    _add_who(one)
    one = _part(parts, "retire", run_retire, "take an accepted rule out, with a reason", data=False)
    one.add_argument("--name", required=True, help="the rule's name")
    _add_who(one)
    one = _part(parts, "waive", run_waive, "let a gap, or an invariant without occasion, pass until a date", data=False)
    one.add_argument("--name", required=True, help="as the gap is named; `invariant NAME` for an invariant")
    one.add_argument("--until", type=_date, required=True, help="the last day on which it passes, YYYY-MM-DD")
    _add_who(one)
    one = _part(parts, "ratchet", run_ratchet, "raise the thresholds to what is covered; lower one with a reason")
    one.add_argument(
        "--lower", action="append", default=[], metavar="NAME=N", help=f"set one of {', '.join(THRESHOLDS)} lower"
    )
    one.add_argument("--corpus", type=Path, metavar="DIR", help="raise those of the corpus, too")
    _add_who(one, reason=False)


def _add_who(parser: argparse.ArgumentParser, *, reason: bool = True) -> None:
    parser.add_argument("--reason", required=reason, default="", help="why")
    parser.add_argument("--by", default=None, help="who; without it the user logged in")


# -- reports --------------------------------------------------------------------------------------------------------


def run_report(arguments: argparse.Namespace) -> int:
    """The table; 1 when C1 is under what was asked for, or when a denominator is wrong."""
    numbers = _numbers(arguments)
    if arguments.json:
        print(json.dumps(numbers.as_json(_today(arguments))))
    else:
        print(coverage_text(numbers, _today(arguments), show_missing=arguments.show_missing))
        if arguments.invariants:
            print("\n" + occasions_text(numbers))
    short = arguments.fail_under is not None and numbers.c1.percent < arguments.fail_under
    if short and not arguments.json:
        print(f"\nC1 is {numbers.c1.percent:.2f}%, should be at least {arguments.fail_under:g}%")
    return int(short or bool(numbers.wrong))


def run_html(arguments: argparse.Namespace) -> int:
    """The state map."""
    path = arguments.out or Path("out/state-coverage.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(coverage_page(_numbers(arguments), _today(arguments)), encoding="utf-8")
    print(f"wrote {path}")
    return 0


def run_json(arguments: argparse.Namespace) -> int:
    """Everything as one object, on standard output or in a file."""
    told = json.dumps(_numbers(arguments).as_json(_today(arguments)), indent=1)
    if arguments.out is None:
        print(told)
    else:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(told + "\n", encoding="utf-8")
        print(f"wrote {arguments.out}")
    return 0


def run_gap(arguments: argparse.Namespace) -> int:
    """What production alone has seen; 1 while any of it is not waived."""
    arguments.gap, arguments.base = arguments.profile, None
    numbers, today = _numbers(arguments), _today(arguments)
    open_, expired = numbers.unwaived(today)
    if arguments.json:
        told = [{"name": one.name, "words": one.words, "seen": one.count, "source": one.source} for one in open_]
        print(json.dumps({"gap": told, "waived": len(numbers.waived(today)), "expired": expired}))
        return int(bool(open_))
    for one in open_:
        print(
            f"{one.name}\n    {one.words}; seen {'once' if one.count == 1 else f'{one.count} times'}, in {one.source}"
        )
    for said in expired:
        print(said)
    waived = len(numbers.waived(today))
    print(f"{len(open_)} seen in production and in no test" + (f", and {waived} waived" if waived else ""))
    return int(bool(open_))


# -- files ----------------------------------------------------------------------------------------------------------


def run_combine(arguments: argparse.Namespace) -> int:
    """Several files as one."""
    data = combine([read(path) for path in arguments.files])
    data.write(arguments.out)
    print(f"wrote {arguments.out}: {len(arguments.files)} files")
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """What the change loses; 1 when anything."""
    arguments.gap = None
    numbers = _numbers(arguments)
    if arguments.json:
        print(json.dumps({"lost": numbers.lost, "won": numbers.won, "c1": numbers.ratios()["c1"].percent}))
        return int(bool(numbers.lost))
    for one in numbers.lost:
        print(f"- {one}")
    for one in numbers.won:
        print(f"+ {one}")
    print(f"this change loses {len(numbers.lost)} and wins {len(numbers.won)}")
    return int(bool(numbers.lost))


def run_profile(arguments: argparse.Namespace) -> int:
    """The cells seen in production."""
    lock = _lock(arguments)
    found = profile(arguments.sources, Catalogue.load(*lock.catalogue).digest)
    found.write(arguments.out)
    seen = sum(len(cells) for cells in found.transitions.values())
    print(f"wrote {arguments.out}: {len(found.visits)} cells, {seen} transitions in cells")
    return 0


def run_axes(arguments: argparse.Namespace) -> int:
    """The axes."""
    lock = _lock(arguments)
    if arguments.json:
        told = [
            {
                "name": one.name,
                "title": one.title,
                "values": dict(zip(one.values, one.words, strict=True)),
                "product": one.name in lock.axes,
            }
            for one in axes_in_use()
        ]
        print(json.dumps(told))
        return 0
    for one in axes_in_use():
        print(f"{one.name:<18}{one.title}{'' if one.name in lock.axes else '  (not in the product)'}")
        for value, words in zip(one.values, one.words, strict=True):
            print(f"    {value:<14}{words}")
    return 0


# -- the lock file --------------------------------------------------------------------------------------------------


def run_propose(arguments: argparse.Namespace) -> int:
    """Proposals; nothing is changed."""
    arguments.gap = arguments.base = None
    found = propose(_numbers(arguments), occasions_min=arguments.min)
    if arguments.json:
        told = [
            {
                "name": one.rule.name,
                "when": one.rule.when,
                "transitions": one.rule.transitions,
                "removes": one.removes,
                "chances": one.chances,
                "words": one.words,
            }
            for one in found
        ]
        print(json.dumps(told))
        return 0
    for one in found:
        print(f"{one.rule.name}\n    {one.words}; had {one.chances} chances; would take out {one.removes} places")
    print(f"{len(found)} proposals. Accept one that cannot be: holdover coverage accept --name NAME --reason WHY")
    return 0


def run_accept(arguments: argparse.Namespace) -> int:
    """Accept one rule into the lock file."""
    lock, path = _lock(arguments), _lock_path(arguments)
    if arguments.when or arguments.at:
        rule = Rule(name=arguments.name, reason=arguments.reason, when=_when(arguments.when), transitions=arguments.at)
    else:
        arguments.gap = arguments.base = None
        found = proposal_named(_numbers(arguments), arguments.name, occasions_min=arguments.min)
        if found is None:
            raise BadLock(
                f"{arguments.name}: no rule of this name is proposed; "
                f"say what cannot be with --when AXIS=VALUE, or see `holdover coverage propose`"
            )
        rule = Rule(
            name=found.rule.name, reason=arguments.reason, when=found.rule.when, transitions=found.rule.transitions
        )
    lock.accept(rule, by=_who(arguments), on=_today(arguments))
    lock.write(path)
    print(f"{path}: rule {rule.name} accepted, {len(lock.rule)} rules")
    return 0


def run_retire(arguments: argparse.Namespace) -> int:
    """Take one rule out of the lock file."""
    lock, path = _lock(arguments), _lock_path(arguments)
    lock.retire(arguments.name, by=_who(arguments), on=_today(arguments), reason=arguments.reason)
    lock.write(path)
    print(f"{path}: rule {arguments.name} retired, {len(lock.rule)} rules")
    return 0


def run_waive(arguments: argparse.Namespace) -> int:
    """Waive one gap until a date."""
    lock, path = _lock(arguments), _lock_path(arguments)
    waiver = Waiver(name=arguments.name, until=arguments.until, reason=arguments.reason, by=_who(arguments))
    lock.waive(waiver, on=_today(arguments))
    lock.write(path)
    print(f"{path}: {arguments.name} is waived up to {arguments.until}")
    return 0


def run_ratchet(arguments: argparse.Namespace) -> int:
    """Raise the thresholds, or lower one."""
    lock, path = _lock(arguments), _lock_path(arguments)
    by, on = _who(arguments), _today(arguments)
    for said in arguments.lower:
        name, _, value = said.partition("=")
        try:
            wanted = float(value)
        except ValueError:
            raise BadLock(f"--lower {said}: should be NAME=N, such as c1=12.5") from None
        lock.ratchet(name, wanted, by=by, on=on, reason=arguments.reason)
    if not arguments.lower:
        arguments.gap = arguments.base = None
        for name, ratio in _numbers(arguments).ratios().items():
            # A tenth is cut off, not rounded: what is covered today must meet the threshold tomorrow.
            reached = int(ratio.percent * 10) / 10
            if reached > lock.thresholds.get(name, 0.0):
                lock.ratchet(name, reached, by=by, on=on, reason=arguments.reason or "reached")
        for name, count in (Corpus(arguments.corpus).counts() if arguments.corpus else {}).items():
            if count > lock.thresholds.get(name, 0.0):
                lock.ratchet(name, float(count), by=by, on=on, reason=arguments.reason or "kept")
    lock.write(path)
    told = [f"{name} {lock.thresholds[name]:g}" for name in THRESHOLDS if name in lock.thresholds]
    print(f"{path}: " + ", ".join(one if one.split()[0] in KEPT else f"{one}%" for one in told))
    return 0


# -- what they share ------------------------------------------------------------------------------------------------


def _numbers(arguments: argparse.Namespace) -> Numbers:
    lock = _lock(arguments)
    data: Data = read(arguments.file)
    return Numbers(
        data,
        lock,
        Catalogue.load(*lock.catalogue),
        profile=read(arguments.gap) if arguments.gap else None,
        base=read(arguments.base) if arguments.base else None,
    )


def _lock(arguments: argparse.Namespace) -> Lock:
    path = arguments.lock or find_lock(Path())
    if arguments.lock is not None and not arguments.lock.exists() and arguments.part in ("accept", "waive", "ratchet"):
        path = None  # these write the first one
    return read_lock(path)


def _lock_path(arguments: argparse.Namespace) -> Path:
    return arguments.lock or Path(NAME)


def _today(arguments: argparse.Namespace) -> date:
    return arguments.today or date.today()


def _who(arguments: argparse.Namespace) -> str:
    return str(arguments.by if arguments.by is not None else getpass.getuser())


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date, should be YYYY-MM-DD") from None


def _when(told: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in told:
        axis, _, values = one.partition("=")
        if not values:
            raise BadLock(f"--when {one}: should be AXIS=VALUE[,VALUE]")
        found[axis] = values.split(",")
    return found


__all__ = ["DATA", "add_parser"]
