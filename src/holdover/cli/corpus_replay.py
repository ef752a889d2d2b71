"""What several verbs do with a corpus: play it first, and add witnesses for new cells."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection, Sequence, Set
from pathlib import Path
from typing import Any

from tqdm import tqdm

from holdover.catalogue import Catalogue
from holdover.coverage import find_lock, read_lock
from holdover.explore.corpus import Corpus, CorpusReplay, replay_corpus
from holdover.explore.walk import make_scratch_directory
from holdover.explore.witness import Candidate, ReachResult, Witnesses, measure_reach, select_witnesses, trim_candidate
from holdover.harness.schedule import Schedule
from holdover.recording import RecordingStore


def load_axes(corpus: Corpus | None, lock: Path | None = None) -> list[str]:
    """Return the axes of a corpus: those of its witnesses, or those of the lock file when it has none."""
    axes = corpus.witnesses().head.axes if corpus is not None else []
    return axes or list(read_lock(lock or find_lock(Path())).axes)


def replay_with_progress(
    corpus: Corpus,
    store: RecordingStore | None,
    catalogue: Catalogue,
    *,
    witnesses: bool = True,
    time_limit_s: float = 0.0,
    trusted_subjects: Collection[str] | None = (),
) -> CorpusReplay:
    """Play a corpus, with a progress line on a terminal; `trusted_subjects` as for `replay_corpus`."""
    directory = make_scratch_directory()
    try:
        with tqdm(unit="schedule", disable=None, file=sys.stderr, leave=False) as bar:

            def progress(name: str) -> None:
                bar.set_postfix_str(name, refresh=False)
                bar.update(1)

            return replay_corpus(
                corpus,
                directory,
                catalogue=catalogue,
                recordings=store,
                witnesses=witnesses,
                time_limit_s=time_limit_s,
                trusted_subjects=trusted_subjects,
                progress=progress,
            )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def replay_corpus_first(
    corpus: Corpus,
    store: RecordingStore | None,
    catalogue: Catalogue,
    *,
    witnesses: bool = True,
    trusted_subjects: Collection[str] | None = (),
) -> bool:
    """Check and play a corpus and print its problems on standard error; returns whether it has none.

    Raises `UntrustedCodeError` as `replay_corpus` does.
    """
    problems = corpus.check()
    if not problems:
        result = replay_with_progress(corpus, store, catalogue, witnesses=witnesses, trusted_subjects=trusted_subjects)
        problems = result.failures
        for message in result.lost_cells:
            print(f"holdover: {message}", file=sys.stderr)
        if result.without_recordings:
            message = ", ".join(result.without_recordings)
            print(f"holdover: not played, because their recordings are missing: {message}", file=sys.stderr)
    for message in problems:
        print(f"holdover: {corpus.directory}: {message}", file=sys.stderr)
    return not problems


def save_new_witnesses(
    corpus: Corpus,
    schedules: Sequence[Schedule],
    store: RecordingStore,
    catalogue: Catalogue,
    *,
    lock: Path | None = None,
    doubtful: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Add witnesses for uncovered cells to a corpus, from candidate schedules; returns its sizes and the number of
    new cells.

    Each schedule is played from a fresh state, and only the cells that it reaches then count. The witness of a
    `doubtful` cell may no longer reach it; when that is so and a candidate does, the candidate replaces it.
    """
    witnesses = corpus.witnesses()
    witnesses = witnesses if witnesses.head.axes else Witnesses(load_axes(None, lock))
    directory = make_scratch_directory()

    def measure(schedule: Schedule) -> ReachResult:
        return measure_reach(schedule, store, directory / "reach", witnesses.head.axes, catalogue)

    try:
        bar = tqdm(total=2 * len(schedules), unit="schedule", disable=None, file=sys.stderr, leave=False)
        candidates = []
        for schedule in schedules:
            reached = measure(schedule)
            if not reached.marks:
                candidates.append(Candidate(schedule=schedule, reached=reached))
            bar.update(1)
        reachable = {cell for candidate in candidates for cell in candidate.reached.cells}
        _drop_lost_cells(witnesses, doubtful & reachable, measure)
        new_cells = reachable - witnesses.cells.keys()
        selection = select_witnesses(candidates, new_cells)
        bar.total = len(schedules) + len(selection)
        for candidate, cells in selection:
            witnesses.add(trim_candidate(candidate, cells, measure).schedule, cells)
            bar.update(1)
        bar.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if selection:
        corpus.save_witnesses(witnesses)
    return {"schedules": len(witnesses.lines), "cells": len(witnesses.cells), "new": len(new_cells)}


def _drop_lost_cells(witnesses: Witnesses, doubtful: Set[str], measure: Callable[[Schedule], ReachResult]) -> None:
    """Remove from each witness the doubtful cells that it no longer reaches."""
    lines = []
    for witness in witnesses.lines:
        doubtful_cells = doubtful & set(witness.reaches)
        lost_cells = doubtful_cells - measure(witnesses.schedule(witness)).cells.keys() if doubtful_cells else set()
        lines.append(witness.replace(reaches=[cell for cell in witness.reaches if cell not in lost_cells]))
    witnesses.lines = [witness for witness in lines if witness.reaches]
