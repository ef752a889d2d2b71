"""Pairs: after a first fault a second one, at every class of points that comes in some time after it.

A subject is at its weakest while it is coming back: a crash during the recovery from a crash, a link that goes down
between the questions of a reconciliation, a kill on the first minute of the morning after. The number of pairs is the
square of the number of faults, so they are tried inside a window of the day, and those that cross one transition of the
lifecycle with another come first (`crossings`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.explore.schedule import Operation
from holdover.explore.trial import Trials, Tried
from holdover.explore.walk import AFTERWARDS, KILLS, MESSAGES, Ground, Map, Walk
from holdover.harness.snapshot import Snapshot

LIFECYCLE: Final[tuple[str, ...]] = (*KILLS, *AFTERWARDS, "disconnect")
"""The kinds that are transitions of the lifecycle: what is crossed first."""

SECONDS: Final[tuple[str, ...]] = ("kill", "torn", "kill-during-recovery", "clean", "overnight-down", "disconnect")
"""The second faults where nobody says which."""


def crossings(ground: Ground) -> list[Ground]:
    """The grounds on which a ground's pairs are tried, in this order; each pair of kinds is in one of them."""
    first = [kind for kind in ground.kinds if kind in LIFECYCLE]
    others = [kind for kind in ground.kinds if kind not in LIFECYCLE]
    second = [kind for kind in ground.pairs if kind in LIFECYCLE]
    others_second = [kind for kind in ground.pairs if kind not in LIFECYCLE]
    crossed = [(first, second), (first, others_second), (others, second), (others, others_second)]
    return [msgspec.structs.replace(ground, kinds=one, pairs=other) for one, other in crossed if one and other]


class Pairs(Trials):
    """Trials of two faults: what `Trials` does once, and what comes after it once more."""

    def __init__(self, ground: Ground, place: Path, snapshot: Snapshot | None, found: Map, low: int, high: int) -> None:
        super().__init__(ground, place, snapshot, found, low, high)
        self.levels = 2
        self.first: tuple[Operation, int] | None = None
        self.second_day = ground.day
        self.then_kills = [kind for kind in KILLS if kind in ground.pairs]
        self.then_messages = [kind for kind in MESSAGES if kind in ground.pairs]
        self.then_afterwards = [
            kind for kind in (*AFTERWARDS, "disconnect") if kind in ground.pairs and self.possible(kind)
        ]

    # -- the first fault ------------------------------------------------------------------------------------------

    def killed(self, operation: Operation, number: int, image: dict[str, bytes]) -> list[Tried]:
        """A first kill is gone on from with everything counted; what was counted is put back afterwards."""
        if self.level:
            return super().killed(operation, number, image)
        held = (self.number, self.counts, self.unrolled, self._keys, self._happened, self.tried, self.trials_place)
        self.counts, self._keys, self.tried = dict(self.counts), {}, []
        try:
            return super().killed(operation, number, image)
        finally:
            self.number, self.counts, self.unrolled, self._keys, self._happened, self.tried, self.trials_place = held
            self.first = None

    def branched(self, operation: Operation, number: int) -> None:
        """From the first fault on every point is heard of again."""
        super().branched(operation, number)
        self.second_day = self.session.trade_date
        if self.level == 1:
            self.first = (operation, number)
            self.trials_place = "second"
            if operation.do in KILLS:
                if operation.at != "instant":
                    self.counts["instant"] += 1  # the one in which it was done
                self.hook()

    def after(self, operation: Operation, number: int) -> list[Tried]:
        """After the first fault: on, with a second one at each class of points; after the second: follow."""
        if self.level == self.levels:
            return super().after(operation, number)
        session = self.session
        again = session.trade_date != self.ground.day
        end_ns = max(session.hours()[0], session.clock.now_ns) if again else session.clock.now_ns
        self.came_back()
        while True:
            session.play(end_ns + self.ground.within_ns)
            self.came_back()
            if not session.stopped or session.guard.breaches:
                break
            self._point("instant")
        self.unhook()
        if session.guard.breaches:  # it needs no second one
            self.tried.append(self.judged(operation, number, "converged", ""))
        return self.tried

    # -- the second -------------------------------------------------------------------------------------------------

    def classes_here(self, place: str) -> dict[str, bool]:
        """On the day itself the survey has told; after a first fault it has to be seen here."""
        return Walk.classes_here(self, place) if self.level == 1 else super().classes_here(place)

    def at_point(self, place: str, classes: dict[str, bool]) -> None:
        """Try the second faults that belong here."""
        if self.level != 1 or self._due:
            super().at_point(place, classes)
            return
        if self.session.guard.breaches or self.session.subject is None:
            return
        if place in ("in", "out"):
            self.fork(self.then_messages, place, self.number)
            return
        kinds = [kind for kind in self.then_kills if classes["stale" if kind == "stale" else "kill"]]
        self.try_either_way(kinds, place, self.number)
        if place == "instant":
            later = self.session.trade_date != self.ground.day  # there is no night after that one
            wanted = [kind for kind in self.then_afterwards if not (later and kind.startswith("overnight"))]
            self.try_afterwards(wanted, self.number)

    def as_kind(self, one: Tried, kind: str) -> Tried:
        """A trial told again for a kind that leaves the very same disk: of the fault that is being tried."""
        if self.level == 0 or one.then is None:
            return super().as_kind(one, kind)
        then = msgspec.structs.replace(one.then, do=kind)
        return msgspec.structs.replace(one, then=then, same_as=one.then.do)

    def say(self, operation: Operation, number: int, verdict: str, **fields: Any) -> Tried:
        """Of a pair: where the first was done, and then the second."""
        told = super().say(operation, number, verdict, **fields)
        if self.level < self.levels or self.first is None:
            return told
        first, at = self.first
        day = self.ground.days.index(self.second_day) - self.ground.days.index(self.ground.day)
        then = msgspec.structs.replace(operation, day=day)
        return msgspec.structs.replace(told, number=at, kind=first.do, place=first.at, n=first.n, then=then)
