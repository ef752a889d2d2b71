"""`holdover gate`: the merge gate in one command."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.cli.coverage import DATA
from holdover.cli.kept import replayed
from holdover.coverage import BadCoverage, Data, Numbers, find_lock, read, read_lock
from holdover.coverage.gate import Gate, Kept, judge
from holdover.coverage.lock import NAME
from holdover.coverage.results import read_results, results_beside
from holdover.explore.corpus import WITNESSES, Corpus
from holdover.recording import RecordingStore
from holdover.report import gate_junit, gate_markdown, gate_text
from holdover.runtime.axes import axes_in_use


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "gate",
        help="what a merge needs: state tests, coverage, carry gap, catalogue, corpus",
        description="Judges what `pytest --state-cov` has left; with `-- ARGUMENTS` it runs pytest with them first.",
    )
    parser.add_argument("--data", type=Path, default=DATA, help=f"the coverage file, without it {DATA}")
    parser.add_argument("--results", type=Path, help="the results file, without it the one beside the coverage file")
    parser.add_argument("--lock", type=Path, help=f"the lock file, without it {NAME} here")
    parser.add_argument("--gap", type=Path, metavar="PROFILE", help="a profile of production: nothing in it uncovered")
    parser.add_argument("--base", type=Path, metavar="FILE", help="a coverage file: none of its cells lost")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="a corpus that must be intact, and hold")
    parser.add_argument("--corpus-seconds", type=float, default=60, metavar="S", help="processor time for playing it")
    parser.add_argument("--recordings", type=Path, metavar="DIR", help="recorded days of the corpus beside the bundled")
    parser.add_argument("--fail-under", type=float, metavar="N", help="C1 at least N percent, beside the lock file's")
    parser.add_argument("--today", type=date.fromisoformat, default=None, help="the day by which waivers are judged")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write Markdown for a pull request")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("pytest", nargs="*", metavar="-- ARGUMENTS", help="run pytest with these first")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, *, check_corpus: Callable[[Path], Kept] | None = None) -> int:
    """Judge; 0 met, 1 not. `check_corpus` says how a corpus is; without it the corpus is checked and played."""
    lock_path = arguments.lock or find_lock(Path())
    lock = read_lock(lock_path)
    results_file = arguments.results or results_beside(arguments.data)
    if arguments.pytest:
        _run_pytest(arguments, lock_path)
    catalogue = Catalogue.load(*lock.catalogue)
    numbers = Numbers(
        _data(arguments.data, catalogue),
        lock,
        catalogue,
        profile=read(arguments.gap) if arguments.gap else None,
        base=read(arguments.base) if arguments.base else None,
    )
    gate = judge(
        numbers,
        read_results(results_file),
        arguments.today or date.today(),
        corpus=_kept(arguments, catalogue, lock.axes, check_corpus) if arguments.corpus else None,
        fail_under=arguments.fail_under,
    )
    _write(arguments, gate)
    print(json.dumps(gate.as_json()) if arguments.json else gate_text(gate))
    return 0 if gate.met else 1


def _data(path: Path, catalogue: Catalogue) -> Data:
    """The coverage; nothing at all where there is no file, which the gate then says."""
    if not path.exists():
        return Data.empty(catalogue.digest, axes_in_use())
    return read(path)


def _run_pytest(arguments: argparse.Namespace, lock: Path | None) -> None:
    """Run pytest and keep what it says off standard output, which is the gate's. What an earlier run left is not
    mistaken for this one's."""
    results = arguments.results or results_beside(arguments.data)
    for old in (arguments.data, results):
        old.unlink(missing_ok=True)
    told = ["--state-cov", "--state-cov-file", str(arguments.data), "--state-cov-report", "none"]
    told += ["--state-cov-lock", str(lock)] if lock is not None else []
    ended = subprocess.run([sys.executable, "-m", "pytest", *told, *arguments.pytest], stdout=sys.stderr, check=False)
    if ended.returncode not in (0, 1, 5):
        raise BadCoverage(f"pytest ended with exit code {ended.returncode}: it did not run the tests")


def _kept(
    arguments: argparse.Namespace,
    catalogue: Catalogue,
    axes: list[str],
    check_corpus: Callable[[Path], Kept] | None,
) -> Kept:
    """How the corpus is: whole, and every schedule and witness of it as it should be."""
    if check_corpus is not None:
        return check_corpus(arguments.corpus)
    corpus = Corpus(arguments.corpus)
    kept = Kept(problems=corpus.check(), counts=corpus.counts())
    if kept.problems:
        return kept
    held = corpus.witnesses()
    if held.lines and held.head.axes != axes:
        kept.problems.append(
            f"{WITNESSES}: tells cells by {', '.join(held.head.axes)}, and {NAME} by {', '.join(axes)}; "
            f"take it out and have holdover search --corpus make it anew"
        )
    store = RecordingStore(arguments.recordings) if arguments.recordings else None
    done = replayed(corpus, store, catalogue, bound_s=arguments.corpus_seconds)
    kept.problems += done.problems
    kept.notes.append(
        f"{done.schedules} schedules, {done.witnesses} witnesses of {len(held.cells)} cells played in "
        f"{done.seconds:.0f} s"
    )
    if done.not_at_hand:
        kept.notes.append(f"{len(done.not_at_hand)} not played: their recordings are not at hand (--recordings)")
    return kept


def _write(arguments: argparse.Namespace, gate: Gate) -> None:
    for path, made in ((arguments.junit, gate_junit), (arguments.summary, gate_markdown)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made(gate), encoding="utf-8")
