"""`holdover bundle`, `reproduce`: a breach in one file, and the same breach again on another machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.explore.play import store_for
from holdover.explore.reproduce import bundle_of, reproduce
from holdover.explore.schedule import read_schedule
from holdover.harness.snapshot import Snapshot
from holdover.runtime.breach import state_in_words
from holdover.runtime.bundle import Bundle
from holdover.runtime.redaction import Rules


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    made = verbs.add_parser("bundle", help="play a schedule to its breach, and put all that it needs into one file")
    made.add_argument("schedule", type=Path)
    made.add_argument("--recordings", type=Path, help="a folder of recordings; without it the bundled simulated ones")
    made.add_argument("--redact", action="append", default=[], metavar="FIELD", help="a field to take out by name")
    made.add_argument("--pattern", action="append", default=[], metavar="REGEX", help="what else to blank out")
    made.add_argument("--out", type=Path, help="the file; without it beside the schedule")
    made.set_defaults(run=run_bundle)
    again = verbs.add_parser("reproduce", help="a bundle's breach again, here, and the regression test for it")
    again.add_argument("bundle", type=Path)
    again.add_argument("--out", type=Path, default=Path("out/reproduce"))
    again.set_defaults(run=run_reproduce)
    for parser in (made, again):
        parser.add_argument("--catalogue", action="append", default=[], help="a folder or package of invariants")
        parser.add_argument("--json", action="store_true")


def run_bundle(arguments: argparse.Namespace) -> int:
    """0 when the bundle is written, 3 when the schedule has no breach to bundle."""
    schedule = read_schedule(arguments.schedule)
    snapshot = None if schedule.start == "fresh" else Snapshot.open(arguments.schedule.parent / schedule.start)
    out = arguments.out or arguments.schedule.with_suffix(".hbundle")
    bundle = bundle_of(
        schedule,
        store_for(schedule, arguments.recordings),
        out.with_suffix(".work"),
        catalogue=Catalogue.load(*arguments.catalogue),
        snapshot=snapshot,
        rules=Rules.usual(arguments.redact, arguments.pattern),
    )
    if bundle is None:
        print(json.dumps({"verdict": "holds"}) if arguments.json else "HOLDS   no breach, and nothing to bundle")
        return 3
    bundle.save(out)
    told = {"mark": bundle.about.mark, "file": str(out), "bytes": out.stat().st_size, "parts": sorted(bundle.parts)}
    if arguments.json:
        print(json.dumps(told))
    else:
        print(f"{bundle.about.explanation}\n{out}: {told['bytes']:,} bytes; holdover reproduce {out}")
    return 0


def run_reproduce(arguments: argparse.Namespace) -> int:
    """1 when the breach is there again, 0 when nothing is, 3 when it is another, or under another catalogue nothing."""
    bundle = Bundle.open(arguments.bundle)
    done = reproduce(bundle, arguments.out, catalogue=Catalogue.load(*arguments.catalogue))
    test = ""
    if done.test:
        invariant = bundle.about.mark.rpartition("/")[2].replace("-", "_")
        path = arguments.out / f"test_{invariant}.py"
        path.write_text(done.test, encoding="utf-8")
        test = str(path)
    told = {
        "verdict": done.verdict,
        "expected": done.mark,
        "found": done.found,
        "by": done.by,
        "explanation": done.explanation,
        "cell": bundle.about.cell,
        "after": bundle.about.after,
        "same_catalogue": done.same_catalogue,
        "test": test,
    }
    if arguments.json:
        print(json.dumps(told))
    else:
        print(text(bundle, told))
    if done.verdict == "holds" and not done.same_catalogue:
        return 3
    return {"breach": 1, "holds": 0, "unknown": 3}[done.verdict]


def text(bundle: Bundle, told: dict[str, Any]) -> str:
    """What became of it, on one screen."""
    said = {"breach": "REPRODUCED", "holds": "NOT THERE", "unknown": "ANOTHER"}[told["verdict"]]
    lines = [f"{said}  {told['expected']}, by {told['by']}", "", f"then  {bundle.about.explanation}"]
    state = state_in_words(bundle.about.cell, bundle.about.after)
    if state:
        lines.append(f"      state: {state}")
    lines.append(f"now   {told['explanation'] or 'nothing was breached'}")
    if not told["same_catalogue"]:
        lines.append("the catalogue here is not the one that it was found under")
    if told["test"]:
        lines.append(f"regression test  {told['test']}")
    return "\n".join(lines)
