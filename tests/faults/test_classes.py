"""The cell class on real breaches of seeded faults: the same defect recurs, another state is another class."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.desk.faults import FAULTS
from holdover.harness import Fill, Session, SessionConfig, first, resolve_factory
from holdover.incidents import Incident, IncidentLedger, cell_class
from holdover.model import OrdStatus
from holdover.recording import bundled_store
from holdover.runtime import Breach, FreezeStore
from tests.faults.stories import STORIES, pass_night, run_minutes

DAYS = ("2024-11-27", "2024-11-29")


def make_session(directory: Path, catalogue: Catalogue, symbol: str, fault: str) -> Session:
    """A session of the desk with a fault on one instrument: other prices, other quantities, another day's tape."""
    desk = resolve_factory("desk")
    settings = dict(STORIES[fault].settings)
    if "strategies" in settings:
        settings["strategies"] = [name.replace("ACME", symbol) for name in settings["strategies"]]
    options = {"days": DAYS, "faults": (fault,), "catalogue": catalogue, "settings": settings}
    return Session(desk, bundled_store(), [symbol], directory / symbol, SessionConfig(journal=False, **options))  # type: ignore[arg-type]


def play_story(directory: Path, catalogue: Catalogue, symbol: str, fault: str) -> dict[str, Breach]:
    """The first breach of each invariant as a fault's story is told on an instrument."""
    session = make_session(directory, catalogue, symbol, fault)
    STORIES[fault].play(session)
    first_breaches: dict[str, Breach] = {}
    for breach in session.breaches:
        first_breaches.setdefault(breach.invariant, breach)
    session.close()
    return first_breaches


@pytest.mark.parametrize(
    ("fault", "invariant", "counts"),
    [
        ("forget-carried-partial", "order-quantity-conserved", "carried-partial=yes,after=begin"),
        ("exec-id-set-cleared-nightly", "execution-booked-once", "link=up,reconciliation=pending,after=begin"),
        ("resent-fill-booked-again", "execution-booked-once", "link=up,reconciliation=pending,after=reconnect"),
        ("reservations-in-memory", "reservations-follow-orders", "link=down,reconciliation=pending,after=restart"),
        ("missed-cancel-on-restart", "books-agree-with-venue", "link=up,reconciliation=done,after=restart"),
        ("risk-starts-flat", "positions-agree", "link=down,reconciliation=pending,after=restart"),
    ],
)
def test_one_defect_is_one_class_wherever_it_comes(
    tmp_path: Path, catalogue: Catalogue, fault: str, invariant: str, counts: str
) -> None:
    """On two instruments nothing is alike but what the fault does, and the state in which it does it."""
    acme, bolt = (play_story(tmp_path, catalogue, symbol, fault)[invariant] for symbol in ("ACME", "BOLT"))
    assert acme.key != bolt.key
    assert acme.explanation != bolt.explanation
    assert cell_class(acme) == cell_class(bolt)
    assert cell_class(acme).endswith(counts)


ACME_ALONE = {
    "keep-day-orders-open",
    "correction-of-yesterday-as-new",
    "split-passes-by",
    "left-without-carried-work",
    "claims-foreign-orders",
    "closed-orders-not-restored",
    "disabled-book-forgotten",
    "external-order-not-adopted",
    "limit-on-the-day-only",
    "replace-applied-on-send",
    "old-price-after-replace",
    "stranger-taken-for-own",
    "manual-trade-joins-parent",
    "chases-its-own-quote",
}
"""Faults whose story is made for one instrument: it names it, or the other's market does not bring it about."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ACME_ALONE])
def test_the_cell_takes_no_defect_apart(tmp_path: Path, catalogue: Catalogue, fault: str) -> None:
    """Where two occurrences are the same by all but the cell, they are the same with it."""
    acme, bolt = (play_story(tmp_path, catalogue, symbol, fault) for symbol in ("ACME", "BOLT"))
    shared_invariants = [name for name in acme if name in bolt]
    assert shared_invariants
    for name in shared_invariants:
        without = [cell_class(replace(breach, cell={}, after="")) for breach in (acme[name], bolt[name])]
        if without[0] == without[1]:
            assert cell_class(acme[name]) == cell_class(bolt[name])


def test_a_breach_carries_the_cell_of_its_session(tmp_path: Path, catalogue: Catalogue) -> None:
    """What is said of orders, positions, link, session and restart is how it stood in the session."""
    session = make_session(tmp_path, catalogue, "ACME", "risk-starts-flat")
    session.begin()
    session.run(0.2)
    session.run(until=first(Fill))
    run_minutes(session, 0.1)
    working = [order for order in session.orders() if order.is_open]
    assert session.guard.cells.known_values()["link"] == "up"
    session.restart("kill")
    breach = session.breaches[0]
    assert breach.after == "restart:kill"
    assert (breach.cell["link"], breach.cell["reconciliation"]) == ("down", "pending")
    assert (breach.cell["session"], breach.cell["freeze"]) == ("open", "nothing")
    assert (breach.cell["orders"] == "none") == (not working)
    assert (breach.cell["in-flight"] == "none") == all(
        order.ord_status not in (OrdStatus.PENDING_CANCEL, OrdStatus.PENDING_REPLACE) for order in working
    )
    page = next(page for page in session.guard.store.all_pages() if page.invariant == breach.invariant)
    assert f"State: {breach.state}\n" in page.text()
    assert breach.state.endswith("link down, not reconciled; after restart:kill")
    session.close()


def test_the_same_story_tells_the_same_cell(tmp_path: Path, catalogue: Catalogue) -> None:
    """Byte for byte, however often it is told."""
    fault = "forget-carried-partial"
    first_run, second_run = (
        [msgspec.json.encode(breach) for breach in play_story(tmp_path / place, catalogue, "ACME", fault).values()]
        for place in ("once", "again")
    )
    assert first_run == second_run
    assert b'"after":"begin"' in first_run[0]


def test_fresh_and_over_a_night_are_two_classes(tmp_path: Path, catalogue: Catalogue) -> None:
    """The same fault breaches the same invariant on its first day and in the morning: the second is novel."""
    classes = {}
    for symbol, is_overnight in (("ACME", False), ("BOLT", True)):
        session = make_session(tmp_path, catalogue, symbol, "snapshot-then-fills-again")
        session.begin()
        session.run(0.2)
        session.run(until=first(Fill))
        run_minutes(session, 0.1)
        if is_overnight:
            pass_night(session)
        else:
            session.restart("kill")
        run_minutes(session, 1)
        classes[is_overnight] = next(b for b in session.breaches if b.invariant == "position-equals-carried-plus-fills")
        session.close()
    fresh, carried = cell_class(classes[False]), cell_class(classes[True])
    assert fresh.endswith("after=restart")
    assert carried.endswith("after=begin")
    assert fresh.split("/")[:3] == carried.split("/")[:3]  # but for the state they are the same


def test_one_invariant_breached_by_two_faults_is_two_incidents(tmp_path: Path, catalogue: Catalogue) -> None:
    """An execution is booked twice: after a night by one defect, after a cut by another; each recurs as itself."""
    nightly, cut = "exec-id-set-cleared-nightly", "resent-fill-booked-again"
    order = [(nightly, "ACME"), (cut, "ACME"), (nightly, "BOLT"), (cut, "BOLT")]
    breach_list = [
        play_story(tmp_path / fault, catalogue, symbol, fault)["execution-booked-once"] for fault, symbol in order
    ]
    ledger = _ledger_of(tmp_path, breach_list)
    assert [(incident.recurrence, incident.recurs) for incident in ledger] == [
        ("novel", 0),
        ("novel", 0),
        ("recurrent", 1),
        ("recurrent", 2),
    ]


def _ledger_of(directory: Path, ordered_breaches: list[Breach]) -> list[Incident]:
    """The incidents of breaches that came one after the other, each resolved before the next."""
    ledger = IncidentLedger(FreezeStore(directory / "incidents" / "guard.db", "desk"))
    for number, breach in enumerate(ordered_breaches, 1):
        ledger.store.record_repeated_breach(replace(breach, time_ns=number * 10))
        assert ledger.import_breaches() == 1
        ledger.diagnose(number, "olga", "booked-twice", "It was booked twice.", number * 10 + 1)
        ledger.resolve(number, "olga", number * 10 + 2)
    return ledger.list_incidents()
