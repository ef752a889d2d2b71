"""The model: how often operations happen, how often changes ship, and how often they carry a fault, with the
sources.

No rate here is a result. `ASSUMED` marks a rate without a public source.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Final, NamedTuple

from holdover.harness.schedule import Operation

ASSUMED: Final = "assumed"
FIELD: Final = "weights: field evidence, entries that need the primitive"


class Rate(NamedTuple):
    """How often a trading day a group of operations comes, which kinds it has by weight, and where that is from."""

    name: str
    a_day: float
    kinds: Mapping[str, float]
    source: str


RATES: Final = (
    Rate(
        "disconnect and reconnect",
        1.0,
        {"disconnect": 1},
        "venues: 'a single connection is only valid for 24 hours' (Binance API), 'very likely to loose connectivity at "
        "least once a day' (Interactive Brokers, TWS API)",
    ),
    Rate(
        "restart in good order, in the session",
        0.5,
        {"clean": 1},
        "a deploy every other day: 'high' of DORA's State of DevOps, between once a day and once a week",
    ),
    Rate(
        "crash",
        0.1,
        {"kill": 6, "torn": 5, "stale": 6, "kill-unsynced": 2, "kill-during-recovery": 2},
        f"{ASSUMED}: one in two weeks; {FIELD}",
    ),
    Rate(
        "a message lost, late, doubled or out of order",
        0.5,
        {"reorder": 12, "lose": 19, "duplicate": 8, "hold": 8, "not-found": 5},
        f"{ASSUMED}; {FIELD}",
    ),
    Rate(
        "an act of the venue",
        0.25,
        {"by-hand": 7, "bust": 5, "correct": 5, "refuse": 5, "venue-cancel": 4, "refuse-logon": 4, "disable": 4},
        f"{ASSUMED}; {FIELD}",
    ),
    Rate("an operator's cancel, replace or order", 2.0, {"cancel": 5, "replace": 5, "submit": 1}, ASSUMED),
    Rate("an operator's freeze by hand, for half an hour", 0.05, {"freeze": 1}, f"{ASSUMED}: one a month"),
)
"""What happens on a trading day, beside what is always: the night with its restart and its restated orders."""

CATEGORY_WEIGHTS: Final = {"carried-partial-fill": 26, "restart-reconciliation": 42, "partition": 35}
"""Field evidence, 103 defects by kind: PF, DB, CA, PC; RR, TP, SQ, SC; DX, ND, UO, EX. Alike inside a category."""

UNSEEN_OF_103: Final = 11
"""Of the 103 defects of the field, those that need what neither catalogue nor harness has: a protective order for
each position (8), many orders or hours (3). An upper bound, as an entry may be caught by several invariants."""

DAYS_A_HALF: Final = 126
"""Trading days of a half-year."""
FORTNIGHT: Final = 10
"""Trading days of two weeks."""
REPEAT_SHARE: Final = 0.2
"""ASSUMED: the share of faulty changes that bring back a fault that an earlier change had."""
FIX_DAYS: Final = 5
"""ASSUMED, the same in both halves: trading days from an incident to its resolution."""
CHANGES_A_DAY: Final = 1.0
"""'High' and 'elite' of DORA: at least one change a day."""
WARM_DAYS: Final = 2
"""Healthy days of a life before the fault is shipped: it begins from what they carry."""

_EDGE_S: Final = 900
_DOWN_S: Final = (0, 0, 30, 300)
_CUT_S: Final = (1, 20, 90, 400)


def poisson(rng: random.Random, mean: float) -> int:
    """How many came, by Knuth's product of uniforms."""
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count, product = count + 1, product * rng.random()
    return count


def draw_day_operations(rng: random.Random, day: int, length_s: int) -> list[Operation]:
    """The operations of one trading day of so many seconds, the last quarter of an hour left alone.

    A time is uniform over the day. A restart or a cut comes half of the time at a mutation instead: what fails
    under load fails where something is going on. A message is any of the first thousand of the day.
    """
    operations: list[Operation] = []
    for rate in RATES:
        for _ in range(poisson(rng, rate.a_day)):
            kind = rng.choices(list(rate.kinds), list(rate.kinds.values()))[0]
            operations += _operations(rng, kind, day, length_s)
    return operations


def _operations(rng: random.Random, kind: str, day: int, length_s: int) -> list[Operation]:
    second = rng.randint(60, max(length_s - _EDGE_S, 61))
    if kind == "freeze":
        later = min(second + 1800, length_s - 60)
        return [
            Operation(day=day, at="second", n=second, do="freeze", with_=[0]),
            Operation(day=day, at="second", n=later, do="thaw", with_=[0]),
        ]
    if kind in ("lose", "hold", "duplicate", "reorder", "not-found"):
        at = rng.choice(("in", "in", "out"))
        return [Operation(day=day, at=at, n=rng.randint(1, 1000 if at == "in" else 300), do=kind)]  # type: ignore[arg-type]
    under_load = kind in ("kill", "torn", "stale", "kill-unsynced", "kill-during-recovery", "disconnect")
    numbers = _numbers(rng, kind)
    if under_load and rng.random() < 0.5:
        return [Operation(day=day, at="mutation", n=rng.randint(1, length_s // 8), do=kind, with_=numbers)]
    return [Operation(day=day, at="second", n=second, do=kind, with_=numbers)]


def _numbers(rng: random.Random, kind: str) -> list[int]:
    choices: dict[str, tuple[tuple[int, ...], ...]] = {
        "disconnect": (_CUT_S, (1, 2), (0, 1)),
        "kill": (_DOWN_S,),
        "torn": (_DOWN_S,),
        "stale": (_DOWN_S,),
        "kill-unsynced": (_DOWN_S,),
        "kill-during-recovery": ((1, 5, 20),),
        "refuse-logon": ((1, 30, 200),),
        "venue-cancel": ((0, 1, 2, 3),),
        "by-hand": ((0, 1), (0,), (0, 1), (1, 50, 2000)),
        "bust": ((0, 1, 5),),
        "correct": ((0, 1, 5), (-20, -1, 0), (-1, 0, 1)),
        "disable": ((0,), (60, 900)),
        "cancel": ((0, 1, 2, 3),),
        "replace": ((0, 1, 2, 3), (-3, 1, 5)),
        "submit": ((0, 1, 2), (1, 100), (0, 1)),
    }
    return [rng.choice(values) for values in choices.get(kind, ())]


__all__ = ["CATEGORY_WEIGHTS", "RATES", "Rate", "draw_day_operations", "poisson"]
