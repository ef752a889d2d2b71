"""What the verbs do with a corpus: play it before anything else, and give it the witnesses that are new."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

from tqdm import tqdm

from holdover.catalogue import Catalogue
from holdover.coverage import find_lock, read_lock
from holdover.explore.corpus import Corpus, Replayed, replay
from holdover.explore.schedule import Schedule
from holdover.explore.walk import scratch_place
from holdover.explore.witness import Candidate, Reached, Witnesses, cover, reach, trimmed
from holdover.recording import RecordingStore


def axes_of(corpus: Corpus | None, lock: Path | None = None) -> list[str]:
    """The axes by which a corpus tells its cells: those of its witnesses; where it has none, those of the lock file."""
    held = corpus.witnesses().head.axes if corpus is not None else []
    return held or list(read_lock(lock or find_lock(Path())).axes)


def replayed(
    corpus: Corpus,
    store: RecordingStore | None,
    catalogue: Catalogue,
    *,
    witnesses: bool = True,
    bound_s: float = 0.0,
) -> Replayed:
    """Play a corpus, with a progress line where there is a terminal."""
    place = scratch_place()
    try:
        with tqdm(unit="schedule", disable=None, file=sys.stderr, leave=False) as bar:

            def progress(name: str) -> None:
                bar.set_postfix_str(name, refresh=False)
                bar.update(1)

            return replay(
                corpus,
                place,
                catalogue=catalogue,
                recordings=store,
                witnesses=witnesses,
                bound_s=bound_s,
                progress=progress,
            )
    finally:
        shutil.rmtree(place, ignore_errors=True)


def played_first(corpus: Corpus, store: RecordingStore | None, catalogue: Catalogue, *, witnesses: bool = True) -> bool:
    """Check and play a corpus before anything else, and say on standard error what is wrong; whether nothing is."""
    problems = corpus.check()
    if not problems:
        done = replayed(corpus, store, catalogue, witnesses=witnesses)
        problems = done.breached
        for told in done.lost:
            print(f"holdover: {told}", file=sys.stderr)
        if done.not_at_hand:
            told = ", ".join(done.not_at_hand)
            print(f"holdover: not played, since their recordings are not at hand: {told}", file=sys.stderr)
    for told in problems:
        print(f"holdover: {corpus.directory}: {told}", file=sys.stderr)
    return not problems


def keep_witnesses(
    corpus: Corpus,
    found: Sequence[Schedule],
    store: RecordingStore,
    catalogue: Catalogue,
    *,
    lock: Path | None = None,
    doubtful: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Give a corpus witnesses for the cells that have none, of the schedules found; what it holds then, what is new.

    Each is played from the beginning, and only what it reaches there counts. A `doubtful` cell has a witness that may
    not reach it any more: where that is so, and a schedule found does, it gets that one.
    """
    held = corpus.witnesses()
    held = held if held.head.axes else Witnesses(axes_of(None, lock))
    place = scratch_place()

    def try_it(schedule: Schedule) -> Reached:
        return reach(schedule, store, place / "reach", held.head.axes, catalogue)

    try:
        bar = tqdm(total=2 * len(found), unit="schedule", disable=None, file=sys.stderr, leave=False)
        candidates = []
        for schedule in found:
            reached = try_it(schedule)
            if not reached.marks:
                candidates.append(Candidate(schedule=schedule, reached=reached))
            bar.update(1)
        reachable = {cell for one in candidates for cell in one.reached.cells}
        _without_lost(held, doubtful & reachable, try_it)
        wanted = reachable - held.cells.keys()
        chosen = cover(candidates, wanted)
        bar.total = len(found) + len(chosen)
        for one, cells in chosen:
            held.add(trimmed(one, cells, try_it).schedule, cells)
            bar.update(1)
        bar.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if chosen:
        corpus.keep(held)
    return {"schedules": len(held.lines), "cells": len(held.cells), "new": len(wanted)}


def _without_lost(held: Witnesses, doubtful: Set[str], try_it: Callable[[Schedule], Reached]) -> None:
    """Take those cells from their witnesses that these do not reach any more."""
    left = []
    for one in held.lines:
        asked = doubtful & set(one.reaches)
        lost = asked - try_it(held.schedule(one)).cells.keys() if asked else set()
        left.append(one.replace(reaches=[cell for cell in one.reaches if cell not in lost]))
    held.lines = [one for one in left if one.reaches]
