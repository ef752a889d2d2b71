"""A scope that two guards froze: each judges its own breaches, and both have to agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from holdover.catalogue import Catalogue
from holdover.runtime import FreezeStore, Guard, GuardConfig, ThawRefusedError, ThawRequest
from holdover.runtime.guard import GuardSettings
from holdover.runtime.heartbeat import Heartbeat, HeartbeatLimits
from holdover.runtime.thaw_requests import ThawResult, thaw

from .orders import BAD, GOOD

SCOPE = "instrument:IBM"


class TwoGuards:
    """Guards called east and west on one store, whose watchers run whenever a thaw waits."""

    def __init__(self, directory: Path) -> None:
        self.now_ns = 1_000_000_000_000
        self.config = GuardConfig.for_directory(directory / "east")
        table = msgspec.structs.replace(self.config.guard, name="east")
        self.config = msgspec.structs.replace(self.config, guard=table)
        path = directory / "east" / "guard.db"
        self.guards = {name: self._make_guard(directory / name, name, path) for name in ("east", "west")}
        self.answering = set(self.guards)
        self.store = FreezeStore(path)
        self.pauses = 0
        for guard in self.guards.values():
            guard.reconciled("2024-11-29")

    def _make_guard(self, directory: Path, name: str, path: Path) -> Guard:
        return Guard(
            directory,
            GuardSettings(name=name),
            catalogue=Catalogue.load(),
            clock=self.clock,
            channels=[],
            store=FreezeStore(path, name),
        )

    def clock(self) -> int:
        """A time that goes on."""
        self.now_ns += 1_000
        return self.now_ns

    def record(self, name: str, order: object) -> None:
        """Let a guard record an order, and all of them see what is frozen."""
        self.guards[name].record("orders", order)
        self.follow()

    def follow(self) -> None:
        """One round of the watcher of each guard that answers, and its heartbeat."""
        for name, guard in self.guards.items():
            if name in self.answering:
                guard.freezes.follow_store()
                Heartbeat(guard, HeartbeatLimits()).write_beat()

    def thaw(self, before_answer: Callable[[], None] | None = None, **fields: str) -> ThawResult:
        """Request a thaw; `before_answer` runs before the second round."""

        def pause(seconds: float) -> None:
            self.pauses += 1
            if self.pauses == 2 and before_answer is not None:
                before_answer()
            self.follow()

        self.follow()
        self.pauses = 0
        values = {"scope": SCOPE, "operator": "olga", "reason": "mended", "evidence": "seen", **fields}
        request = ThawRequest(number=0, **values)
        return thaw(self.config, self.store, request, wait_s=0.3, clock=self.clock, pause=pause)

    def frozen(self) -> list[str]:
        """The guards whose freezes of the scope are in force."""
        return sorted({freeze.holder for freeze in self.store.active_freezes() if freeze.scope == SCOPE})


@pytest.fixture
def both(tmp_path: Path) -> Iterator[TwoGuards]:
    """Both have frozen the scope."""
    guards = TwoGuards(tmp_path)
    for name in ("east", "west"):
        guards.record(name, BAD)
    assert guards.frozen() == ["east", "west"]
    yield guards
    for guard in guards.guards.values():
        guard.close()


@pytest.mark.parametrize("failing", ["east", "west"])
def test_a_thaw_is_refused_while_one_of_them_fails(both: TwoGuards, failing: str) -> None:
    """Whichever it is, and the other one's agreement does not help."""
    both.record("west" if failing == "east" else "east", GOOD)
    with pytest.raises(ThawRefusedError, match="still does not hold"):
        both.thaw()
    assert both.frozen() == ["east", "west"]
    assert all(guard.frozen_scopes() for guard in both.guards.values())


def test_a_thaw_passes_when_both_agree(both: TwoGuards) -> None:
    """The freezes of both end, and both let messages out again."""
    for name in ("east", "west"):
        both.record(name, GOOD)
    result = both.thaw()
    assert sorted(result.judged_by.split(" and ")) == ["east", "west"]
    assert result.ended_count == 2
    assert both.frozen() == []
    both.follow()
    assert all(SCOPE not in guard.frozen_scopes() for guard in both.guards.values())


def test_one_that_does_not_answer_keeps_it_frozen(both: TwoGuards) -> None:
    """An agreement is not presumed."""
    for name in ("east", "west"):
        both.record(name, GOOD)
    both.answering.discard("west")
    with pytest.raises(ThawRefusedError, match="the guard west has not answered"):
        both.thaw()
    assert both.frozen() == ["east", "west"]
    assert both.store.open_thaw_requests("west", 0) == []


def test_a_breach_after_the_agreement_is_not_covered_by_it(both: TwoGuards) -> None:
    """The first guard agrees, then finds another breach before the second one thaws: refused."""
    for name in ("east", "west"):
        both.record(name, GOOD)

    def breach_again() -> None:
        both.guards["west"].record("orders", msgspec.structs.replace(BAD, cl_ord_id="A2", root_cl_ord_id="A2"))

    with pytest.raises(ThawRefusedError):
        both.thaw(before_answer=breach_again)
    assert both.frozen() == ["east", "west"]


def test_every_invariant_can_be_asked_of_every_record(both: TwoGuards) -> None:
    """An invariant with predicates over several kinds of records is asked by those of the kind; none raises."""
    guard = both.guards["east"]
    for invariant in guard.catalogue:
        for table, records in guard.monitor.all_records().items():
            for key in records:
                answer = guard.monitor.holds(invariant.entry.name, table[0], table[1].__name__, key)
                assert answer in (True, False, None)


def test_a_second_person_needs_no_agreement(both: TwoGuards) -> None:
    """As before: a forced thaw ends all freezes of the scope."""
    both.thaw(forced_by="amir")
    assert both.frozen() == []
