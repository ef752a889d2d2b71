"""Play random schedules of many faults over two short days; the correct desk must hold under all of them.

    python bench/random_schedules.py [FIRST [COUNT [FAULT]]]

The script prints every seed that breaches, with its schedule, and the totals. The same seed gives the same
schedule in every process.
"""

from __future__ import annotations

import logging
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from holdover.catalogue import Catalogue
from holdover.harness import SubjectKilledError
from holdover.harness.player import Player, PlayResult
from holdover.harness.schedule import Operation, Schedule, make_schedule
from holdover.recording import bundled_store

DAYS: Final = ("2024-11-27", "2024-11-29")
_RESTARTS: Final = ("kill", "kill-unsynced", "torn", "stale", "kill-during-recovery", "clean", "upgrade")
_MESSAGES: Final = ("lose", "hold", "duplicate", "reorder", "not-found")
_VENUE: Final = ("venue-cancel", "by-hand", "bust", "correct", "refuse", "disable", "refuse-logon")
_OPERATOR: Final = ("cancel", "replace", "submit")


def random_schedule(seed: int, catalogue: Catalogue, *faults: str) -> Schedule:
    """A schedule of three to ten operations over two days that end early, the same for the same seed."""
    rng = random.Random(seed)
    symbol = rng.choice(("ACME", "BOLT"))
    operations: list[Operation] = []
    for day in range(2):
        seconds = rng.randint(900, 4000)
        operations += [_operation(rng, day, seconds) for _ in range(rng.randint(1, 5))]
        if day == 0:
            operations.append(Operation(day=day, at="second", n=seconds, do="overnight"))
        else:
            # The last day goes on for a while after the last operation, and is not played to its close.
            operations.append(Operation(day=day, at="second", n=seconds + 300, do="overnight"))
    return make_schedule(
        bundled_store(),
        [symbol],
        DAYS,
        catalogue,
        name=f"random {seed}",
        seed=seed,
        operations=operations,
        faults=list(faults),
    )


def _operation(rng: random.Random, day: int, seconds: int) -> Operation:
    family = rng.choice((_RESTARTS, _RESTARTS, _MESSAGES, _VENUE, _OPERATOR, ("disconnect",)))
    do = rng.choice(family)
    mutations, messages = max(seconds // 4, 10), max(seconds // 30, 5)
    if family is _MESSAGES:
        with_ = [rng.choice((200, 3_000, 10_000))] if do == "hold" else []
        return Operation(day=day, at=rng.choice(("in", "out")), n=rng.randint(1, messages), do=do, with_=with_)
    if family in (_VENUE, _OPERATOR):
        return Operation(day=day, at="second", n=rng.randint(1, seconds), do=do, with_=_integers(rng, do))
    at = rng.choice(("mutation", "mutation", "delivered", "sent"))
    n = rng.randint(1, mutations if at == "mutation" else messages)
    with_ = []
    if do == "disconnect":
        with_ = [rng.choice((1, 20, 90, 600)), rng.randint(0, 2), rng.randint(0, 1)]
    elif do in ("kill", "kill-unsynced", "torn", "stale"):
        with_ = [rng.choice((0, 0, 5, 120, 900))]
    elif do == "kill-during-recovery":
        with_ = [rng.randint(1, 30)]
    return Operation(day=day, at=at, n=n, do=do, with_=with_)


def _integers(rng: random.Random, do: str) -> list[int]:
    if do in ("venue-cancel", "cancel"):
        return [rng.randint(0, 4)]
    if do == "by-hand":
        return [rng.randint(0, 1), 0, rng.randint(0, 1), rng.choice((1, 50, 2_000))]
    if do == "bust":
        return [rng.randint(0, 8)]
    if do == "correct":
        return [rng.randint(0, 8), rng.choice((-20, -1, 0)), rng.choice((-1, 0, 3))]
    if do == "replace":
        return [rng.randint(0, 4), rng.choice((-3, 1, 5))]
    if do == "submit":
        return [rng.randint(0, 2), rng.choice((1, 100, 1_000)), rng.randint(-2, 5)]
    if do == "disable":
        return [0, rng.choice((10, 120, 900))]
    if do == "refuse-logon":
        return [rng.choice((1, 30, 200))]
    return []


def play_seed(seed: int, catalogue: Catalogue, directory: Path, *faults: str) -> PlayResult:
    """Play one seed's schedule to its end or its first breach."""
    schedule = random_schedule(seed, catalogue, *faults)
    player = Player(
        schedule, bundled_store(), directory, catalogue=catalogue, journal=False, scratch=True, to_breach=True
    )
    try:
        return player.play()
    finally:
        player.close()


def main() -> None:
    """Play the seeds asked for."""
    first = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    faults = sys.argv[3:4]
    logging.getLogger("holdover").setLevel(logging.CRITICAL + 1)
    catalogue = Catalogue.load()
    marks: Counter[str] = Counter()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(first, first + count):
            try:
                played = play_seed(seed, catalogue, Path(directory) / "session", *faults)
            except SubjectKilledError:
                marks["killed in an operator's act"] += 1
                continue
            marks[played.mark or "holds"] += 1
            if played.mark:
                explanation = played.breaches[0].explanation if played.breaches else played.crash
                print(f"{seed}: {explanation}")
                print(f"   {played.schedule.operations}", flush=True)
    duration_s = time.perf_counter() - began
    print(f"{count} seeds in {duration_s:.0f} s: {dict(marks)}")


if __name__ == "__main__":
    main()
