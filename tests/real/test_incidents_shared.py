"""The ledger of incidents where several processes share a store: on PostgreSQL, and in a file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from holdover.incidents import Incident, IncidentLedger
from holdover.runtime import FreezeStore
from holdover.runtime.database import PostgresDatabase

from ..servers import PostgresServer
from ..unit.test_incidents import S, make_breach, make_breach_page, resolve_incident


@pytest.fixture(params=["file", "postgresql"])
def stores(request: pytest.FixtureRequest, tmp_path: Path, schema: str) -> list[FreezeStore]:
    """One store, opened as two processes would."""
    if request.param == "file":
        return [FreezeStore(tmp_path / "guard.db", name) for name in ("one", "two")]
    server: PostgresServer = request.getfixturevalue("postgres")
    return [FreezeStore(PostgresDatabase(server.url, schema, timeout_s=20.0), name) for name in ("one", "two")]


def test_the_life_of_an_incident(stores: list[FreezeStore]) -> None:
    """Opened, joined, acknowledged with its page, diagnosed, resolved, recurrent; the audit log stays whole."""
    store, second_store = stores
    ledger = IncidentLedger(store)
    first = make_breach(10)
    store.record_breach(first, [], make_breach_page(first), ["log"])
    store.record_repeated_breach(make_breach(11, key="C-2"))
    assert ledger.import_breaches() == 2
    second_store.acknowledge("order-quantity-conserved/instrument:IBM", "amir", 20 * S)
    assert IncidentLedger(second_store).import_breaches() == 0
    assert ledger.get_incident(1).acknowledged_by == "amir"
    resolve_incident(ledger, 1, 30)
    store.record_repeated_breach(make_breach(40))
    ledger.import_breaches()
    assert [(incident.state, incident.recurs, incident.breaches) for incident in ledger.list_incidents()] == [
        ("resolved", 0, [1, 2]),
        ("opened", 1, [3]),
    ]
    old = Incident(
        number=0, name="A-1", invariant="x", cell_class="", scope="", severity="", explanation="", opened_ns=S
    )
    assert ledger.add_incidents([old], "olga", 50 * S) == 1
    assert [words.split()[0] for _, words in ledger.list_actions(1)] == [
        "opened",
        "joined",
        "acknowledged",
        "diagnosed",
        "resolved",
    ]
    assert store.verify_audit() == ""
    for opened_store in stores:
        opened_store.close()


def test_two_that_look_at_once_take_each_breach_once(stores: list[FreezeStore]) -> None:
    """Whoever comes second finds nothing to take."""
    for at in range(20):
        stores[0].record_repeated_breach(make_breach(at, invariant=f"i{at % 4}"))
    ledgers = [IncidentLedger(store) for store in stores]
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda ledger=ledger: counts.append(ledger.import_breaches())) for ledger in ledgers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 20
    assert [len(incident.breaches) for incident in ledgers[0].list_incidents()] == [5, 5, 5, 5]
    for store in stores:
        store.close()
