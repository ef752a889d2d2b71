"""`holdover gate`: the merge gate."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.cli.commands import add_verb
from holdover.cli.corpus_replay import replay_with_progress
from holdover.cli.coverage import DATA_FILE
from holdover.cli.options import (
    add_json_option,
    add_trust_option,
)
from holdover.coverage import CoverageData, CoverageError, CoverageNumbers, find_lock, read_coverage, read_lock
from holdover.coverage.gate import CorpusStatus, Gate, judge_gate
from holdover.coverage.lock import LOCK_NAME
from holdover.coverage.results import read_results, results_path
from holdover.explore.corpus import WITNESSES_FILE, Corpus
from holdover.recording import RecordingStore
from holdover.report import gate_junit, gate_markdown, gate_text
from holdover.runtime.axes import axes_in_use
from holdover.runtime.files import write_report


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "gate",
        "holdover gate --corpus corpus -- tests",
        {0: "the gate is met", 1: "the gate is not met; each failed check is listed"},
        details="Judges what `pytest --state-cov` has written. With `-- ARGUMENTS` it runs pytest with them first.",
        run=run,
    )
    parser.add_argument(
        "--data", type=Path, default=DATA_FILE, metavar="FILE", help=f"the coverage file (default {DATA_FILE})"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="the results of the tests; default: the file next to --data"
    )
    parser.add_argument(
        "--lock",
        type=Path,
        metavar="FILE",
        help=f"the lock file; default: {LOCK_NAME} of this directory or the nearest above it",
    )
    parser.add_argument(
        "--gap", type=Path, metavar="PROFILE", help="a production profile; every cell of it must be covered"
    )
    parser.add_argument("--base", type=Path, metavar="FILE", help="a coverage file; none of its cells may be lost")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="a corpus that must be intact and hold")
    add_trust_option(parser)
    parser.add_argument(
        "--corpus-seconds",
        type=float,
        default=60,
        metavar="SECONDS",
        help="processor time for playing the corpus (default 60)",
    )
    parser.add_argument(
        "--recordings", type=Path, metavar="DIR", help="recordings for the corpus, in addition to the bundled ones"
    )
    parser.add_argument(
        "--fail-under", type=float, metavar="N", help="C1 must be at least N percent, in addition to the lock file"
    )
    parser.add_argument(
        "--today",
        type=date.fromisoformat,
        default=None,
        metavar="DATE",
        help="the day on which waivers are judged, YYYY-MM-DD (default today)",
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the checks as JUnit XML")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write a Markdown summary for a pull request")
    add_json_option(parser)
    parser.add_argument("pytest", nargs="*", metavar="-- ARGUMENTS", help="run pytest with these arguments first")


def run(arguments: argparse.Namespace, *, check_corpus: Callable[[Path], CorpusStatus] | None = None) -> int:
    """Run the gate; returns 0 when it is met, else 1. `check_corpus` replaces checking and playing the corpus."""
    lock_path = arguments.lock or find_lock(Path())
    lock = read_lock(lock_path)
    results_file = arguments.results or results_path(arguments.data)
    if arguments.pytest:
        _run_pytest(arguments, lock_path)
    catalogue = Catalogue.load(*lock.catalogue)
    numbers = CoverageNumbers(
        _load_data(arguments.data, catalogue),
        lock,
        catalogue,
        profile=read_coverage(arguments.gap) if arguments.gap else None,
        base=read_coverage(arguments.base) if arguments.base else None,
    )
    gate = judge_gate(
        numbers,
        read_results(results_file),
        arguments.today or date.today(),
        corpus=_corpus_status(arguments, catalogue, lock.axes, check_corpus) if arguments.corpus else None,
        fail_under=arguments.fail_under,
    )
    _write_reports(arguments, gate)
    print(json.dumps(gate.as_json()) if arguments.json else gate_text(gate))
    return 0 if gate.is_met else 1


def _load_data(path: Path, catalogue: Catalogue) -> CoverageData:
    """Return the coverage; empty when there is no file, which the gate reports."""
    if not path.exists():
        return CoverageData.empty(catalogue.digest, axes_in_use())
    return read_coverage(path)


def _run_pytest(arguments: argparse.Namespace, lock: Path | None) -> None:
    """Run pytest with its output on standard error. Old results are removed first."""
    results = arguments.results or results_path(arguments.data)
    for old in (arguments.data, results):
        old.unlink(missing_ok=True)
    options = ["--state-cov", "--state-cov-file", str(arguments.data), "--state-cov-report", "none"]
    options += ["--state-cov-lock", str(lock)] if lock is not None else []
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments.pytest], stdout=sys.stderr, check=False
    )
    if ended.returncode not in (0, 1, 5):
        raise CoverageError(f"pytest ended with exit code {ended.returncode}: it did not run the tests")


def _corpus_status(
    arguments: argparse.Namespace,
    catalogue: Catalogue,
    axes: list[str],
    check_corpus: Callable[[Path], CorpusStatus] | None,
) -> CorpusStatus:
    """Check and play the corpus, and return its status."""
    if check_corpus is not None:
        return check_corpus(arguments.corpus)
    corpus = Corpus(arguments.corpus)
    status = CorpusStatus(problems=corpus.check(), counts=corpus.counts())
    if status.problems:
        return status
    witnesses = corpus.witnesses()
    if witnesses.lines and witnesses.head.axes != axes:
        status.problems.append(
            f"{WITNESSES_FILE}: uses the axes {', '.join(witnesses.head.axes)}, {LOCK_NAME} uses {', '.join(axes)}; "
            f"delete it, then run: holdover search --corpus {shlex.quote(str(arguments.corpus))}"
        )
    store = RecordingStore(arguments.recordings) if arguments.recordings else None
    result = replay_with_progress(
        corpus,
        store,
        catalogue,
        time_limit_s=arguments.corpus_seconds,
        trusted_subjects=None if arguments.trust else (),
    )
    status.problems += result.problems
    status.notes.append(
        f"{result.schedules} schedules, {result.witnesses} witnesses of {len(witnesses.cells)} cells played in "
        f"{result.seconds:.0f} s"
    )
    if result.without_recordings:
        status.notes.append(
            f"{len(result.without_recordings)} not played, because their recordings are missing (--recordings)"
        )
    return status


def _write_reports(arguments: argparse.Namespace, gate: Gate) -> None:
    for path, render in ((arguments.junit, gate_junit), (arguments.summary, gate_markdown)):
        if path is not None:
            write_report(path, render(gate))
