"""`holdover bundle`, `reproduce`: pack a breach into one file, and reproduce it on another machine."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.cli.commands import add_verb
from holdover.cli.options import (
    add_catalogue_option,
    add_json_option,
    add_out_option,
    add_recordings_option,
    add_size_option,
    add_trust_option,
)
from holdover.explore.reproduction import make_bundle, reproduce
from holdover.explore.shrink import name_test
from holdover.harness.schedule import load_schedule
from holdover.harness.snapshot import Snapshot
from holdover.harness.trust import check_trust
from holdover.runtime.breach import describe_carried_state
from holdover.runtime.bundle import Bundle
from holdover.runtime.files import write_report
from holdover.runtime.redaction import RedactionRules, load_user_salt


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    bundle_parser = add_verb(
        verbs,
        "bundle",
        "holdover bundle out/sweep/found-0.json",
        {0: "the bundle is written", 3: "the schedule has no breach, so there is nothing to bundle"},
        run=run_bundle,
    )
    bundle_parser.add_argument("schedule", type=Path, metavar="SCHEDULE", help="the schedule that has the breach")
    add_recordings_option(bundle_parser)
    bundle_parser.add_argument(
        "--redact", action="append", default=[], metavar="FIELD", help="a field to remove by name; may be repeated"
    )
    bundle_parser.add_argument(
        "--pattern", action="append", default=[], metavar="REGEX", help="a pattern to blank; may be repeated"
    )
    bundle_parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the bundle; default: SCHEDULE with the suffix .hbundle"
    )
    reproduce_parser = add_verb(
        verbs,
        "reproduce",
        "holdover reproduce out/sweep/found-0.hbundle",
        {
            0: "the breach does not occur here",
            1: "the same breach occurs",
            3: "another breach occurs, or none does and the catalogue differs",
        },
        run=run_reproduce,
    )
    reproduce_parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle to reproduce")
    add_out_option(reproduce_parser, "out/reproduce", "the journal and the regression test")
    add_size_option(reproduce_parser)
    for parser in (bundle_parser, reproduce_parser):
        add_trust_option(parser)
        add_catalogue_option(parser)
        add_json_option(parser)


def run_bundle(arguments: argparse.Namespace) -> int:
    """Return 0 when the bundle is written, 3 when the schedule has no breach."""
    schedule, store = load_schedule(arguments.schedule, arguments.recordings)
    check_trust(schedule, arguments.schedule.name, is_trusted=arguments.trust)
    snapshot = None if schedule.start == "fresh" else Snapshot.open(arguments.schedule.parent / schedule.start)
    path = arguments.out or arguments.schedule.with_suffix(".hbundle")
    bundle = make_bundle(
        schedule,
        store,
        catalogue=Catalogue.load(*arguments.catalogue),
        snapshot=snapshot,
        rules=RedactionRules.with_defaults(arguments.redact, arguments.pattern, load_user_salt()),
    )
    if bundle is None:
        print(json.dumps({"verdict": "holds"}) if arguments.json else "HOLDS   no breach to bundle")
        return 3
    bundle.save(path)
    summary = {"mark": bundle.info.mark, "file": str(path), "bytes": path.stat().st_size, "parts": sorted(bundle.parts)}
    if arguments.json:
        print(json.dumps(summary))
    else:
        print(f"{bundle.info.explanation}\n{path}: {summary['bytes']:,} bytes")
        print(f"To reproduce it, run: holdover reproduce {shlex.quote(str(path))}")
    return 0


def run_reproduce(arguments: argparse.Namespace) -> int:
    """Return 1 for the same breach, 0 for none, 3 for another one or for none under another catalogue."""
    bundle = Bundle.open(arguments.bundle, arguments.max_size)
    result = reproduce(
        bundle,
        arguments.out,
        catalogue=Catalogue.load(*arguments.catalogue),
        is_trusted=arguments.trust,
        origin=arguments.bundle.name,
    )
    test = ""
    if result.test:
        path = arguments.out / f"{name_test(bundle.info.mark)}.py"
        write_report(path, result.test)
        test = str(path)
    summary = {
        "verdict": result.verdict,
        "expected": result.mark,
        "found": result.found_mark,
        "by": result.source,
        "explanation": result.explanation,
        "cell": bundle.info.cell,
        "after": bundle.info.after,
        "same_catalogue": result.same_catalogue,
        "test": test,
    }
    if arguments.json:
        print(json.dumps(summary))
    else:
        print(reproduction_text(bundle, summary))
    if result.verdict == "holds" and not result.same_catalogue:
        return 3
    return {"breach": 1, "holds": 0, "unknown": 3}[result.verdict]


def reproduction_text(bundle: Bundle, summary: dict[str, Any]) -> str:
    """Return the result of a reproduction as a screen of text."""
    verdict = {"breach": "REPRODUCED", "holds": "NOT REPRODUCED", "unknown": "DIFFERENT"}[summary["verdict"]]
    lines = [f"{verdict}  {summary['expected']}, by {summary['by']}", "", f"then  {bundle.info.explanation}"]
    state = describe_carried_state(bundle.info.cell, bundle.info.after)
    if state:
        lines.append(f"      state: {state}")
    lines.append(f"now   {summary['explanation'] or 'nothing was breached'}")
    if not summary["same_catalogue"]:
        lines.append("the catalogue here differs from the one that found the breach")
    if summary["test"]:
        lines.append(f"regression test  {summary['test']}")
    return "\n".join(lines)
