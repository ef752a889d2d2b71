"""The ledger of incidents where several processes share a store: on PostgreSQL, and in a file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from holdover.incidents import Incident, Ledger
from holdover.runtime import FreezeStore
from holdover.runtime.database import PostgresDatabase

from ..servers import Postgres
from ..unit.test_incidents import S, breach, finish, page


@pytest.fixture(params=["file", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path, schema: str) -> list[FreezeStore]:
    """One store, opened as two processes would."""
    if request.param == "file":
        return [FreezeStore(tmp_path / "guard.db", name) for name in ("one", "two")]
    server: Postgres = request.getfixturevalue("postgres")
    return [FreezeStore(PostgresDatabase(server.url, schema, timeout_s=20.0), name) for name in ("one", "two")]


def test_the_life_of_an_incident(where: list[FreezeStore]) -> None:
    """Opened, joined, acknowledged with its page, diagnosed, resolved, recurrent; the audit log stays whole."""
    store, other = where
    ledger = Ledger(store)
    first = breach(10)
    store.record(first, [], page(first), ["log"])
    store.note(breach(11, key="C-2"))
    assert ledger.take() == 2
    other.acknowledge("order-quantity-conserved/instrument:IBM", "amir", 20 * S)
    assert Ledger(other).take() == 0
    assert ledger.get(1).acknowledged_by == "amir"
    finish(ledger, 1, 30)
    store.note(breach(40))
    ledger.take()
    assert [(one.state, one.recurs, one.breaches) for one in ledger.all()] == [
        ("resolved", 0, [1, 2]),
        ("opened", 1, [3]),
    ]
    old = Incident(number=0, name="A-1", invariant="x", cell_class="", scope="", severity="", told="", opened_ns=S)
    assert ledger.add([old], "olga", 50 * S) == 1
    assert [words.split()[0] for _, words in ledger.acts(1)] == [
        "opened",
        "joined",
        "acknowledged",
        "diagnosed",
        "resolved",
    ]
    assert store.verify_audit() == ""
    for one in where:
        one.close()


def test_two_that_look_at_once_take_each_breach_once(where: list[FreezeStore]) -> None:
    """Whoever comes second finds nothing to take."""
    for at in range(20):
        where[0].note(breach(at, invariant=f"i{at % 4}"))
    ledgers = [Ledger(store) for store in where]
    taken: list[int] = []
    threads = [threading.Thread(target=lambda ledger=one: taken.append(ledger.take())) for one in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 20
    assert [len(one.breaches) for one in ledgers[0].all()] == [5, 5, 5, 5]
    for store in where:
        store.close()
