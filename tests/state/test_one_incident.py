"""A day of the desk with a seeded fault: one lost quantity is one incident, one page, and the rest under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.harness.cycle import CycleBreach, group_by_cause
from holdover.incidents import IncidentLedger
from holdover.runtime.pasted_commands import thaw_command
from tests.faults.stories import STORIES
from tests.faults.test_seeded_faults import make_session

ONE_CAUSE = {
    "forget-carried-partial": "order-quantity-conserved",
    "reset-cum-on-restatement": "cumulative-never-falls",
    "carried-changed-in-place": "cumulative-equals-executions",
    "resent-fill-booked-again": "execution-booked-once",
    "position-before-order": "position-equals-carried-plus-fills",
}
"""Faults that lose or repeat one quantity, and the invariant that is nearest to the cause."""


@pytest.mark.parametrize("name", ONE_CAUSE)
def test_one_lost_quantity_is_one_incident_and_one_page(tmp_path: Path, catalogue: Catalogue, name: str) -> None:
    """Every other breach is a consequence: listed in the alert and the incident, and frozen."""
    session = make_session(tmp_path, catalogue, name, name)
    STORIES[name].play(session)
    guard = session.guard
    causes = [breach for breach in session.breaches if not breach.consequence_of]
    assert [breach.invariant for breach in causes] == [ONE_CAUSE[name]]
    consequences = [breach for breach in session.breaches if breach.consequence_of]
    assert consequences
    ledger = IncidentLedger(guard.store)
    ledger.import_breaches()
    (incident,) = ledger.list_incidents()
    assert incident.consequences == [breach.number for breach in consequences]
    (page,) = guard.store.all_pages()
    assert page.number == causes[0].number
    assert page.consequence_count == len(consequences)
    text = page.text()
    for breach in consequences[: len(page.consequences)]:
        assert breach.consequence_line in text
    assert thaw_command(causes[0].scope, guard.location) in text
    assert {breach.scope for breach in session.breaches} == set(guard.frozen_scopes())
    (grouped,) = group_by_cause([CycleBreach("carried", "2024-11-27", breach) for breach in session.breaches])
    assert grouped.cause.breach == causes[0]
    assert [item.breach for item in grouped.consequences] == consequences
    session.close()


def test_faults_of_two_accounts_are_two_incidents(tmp_path: Path, catalogue: Catalogue) -> None:
    """The desk forgets orders of two accounts over one night: neither account's operator loses the page."""
    session = make_session(tmp_path, catalogue, "expire-gtc-with-day", "expire-gtc-with-day")
    STORIES["expire-gtc-with-day"].play(session)
    causes = [breach for breach in session.breaches if not breach.consequence_of]
    assert len(causes) == 2
    assert len({breach.key for breach in causes}) == 2
    assert len(session.guard.store.all_pages()) == 2
    session.close()
