"""Observed freezes on a shared store: the same on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdover.catalogue import Catalogue
from holdover.runtime import FreezeStore, Guard, GuardSettings
from holdover.runtime.database import PostgresDatabase
from tests.servers import PostgresServer
from tests.unit.orders import BAD, request

INVARIANT = "order-quantity-conserved"


@pytest.fixture(params=["file", "postgresql"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path, schema: str) -> Callable[[str], FreezeStore]:
    """Opens the shared store as the guard of a name."""
    if request.param == "file":
        return lambda name: FreezeStore(tmp_path / "shared.db", name)
    server: PostgresServer = request.getfixturevalue("postgres")
    return lambda name: FreezeStore(PostgresDatabase(server.url, schema, timeout_s=20.0), name)


def test_two_guards_observe_on_one_store(
    open_store: Callable[[str], FreezeStore], tmp_path: Path, catalogue: Catalogue, time_ns: Any
) -> None:
    """Each remembers its own; a clear from elsewhere is taken up; counts and ends are in the store."""
    small = catalogue.without(*(name for name in catalogue.invariants if name != INVARIANT)).with_policy([], "observe")

    def open_guard(name: str) -> Guard:
        settings = GuardSettings(name=name)
        store = open_store(name)
        return Guard(tmp_path / name, settings, catalogue=small, clock=time_ns, channels=[], store=store)

    first, second = open_guard("first"), open_guard("second")
    first.record("orders", BAD)
    assert first.permits(request())
    assert second.would_refuse(request()) == ""
    second.record("orders", BAD)
    assert [freeze.holder for freeze in first.store.observed_freezes()] == ["first", "second"]
    first.close()
    restarted = open_guard("first")
    (freeze,) = restarted.observed_freezes()
    assert (freeze.refused, freeze.breaches, freeze.holder) == (1, 1, "first")
    assert second.store.end_observed_freezes([freeze.number], "ann", 7) == 1
    assert second.store.end_observed_freezes([freeze.number], "ann", 8) == 0
    time_ns.now_ns += 61_000_000_000
    restarted.tick()
    assert restarted.observed_freezes() == []
    assert len(second.observed_freezes()) == 1
    stored = restarted.store.observed_freezes()[0]
    assert (stored.ended_ns, stored.ended_by) == (7, "ann")
    assert restarted.store.active_freezes() == []
    assert restarted.store.verify_audit() == ""
    restarted.close()
    second.close()
