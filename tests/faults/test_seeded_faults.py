"""Each seeded fault: a fresh day holds, its story ends in the breach that it names, and without it the story holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.desk import Parts
from holdover.desk.faults import FAULTS, parts_with
from holdover.harness import Session, SessionConfig, resolve_factory
from holdover.recording import bundled_store
from tests.faults.stories import STORIES

DAYS = ("2024-11-27", "2024-11-29")
each_fault = pytest.mark.parametrize("name", FAULTS)


def make_session(directory: Path, catalogue: Catalogue, name: str, *faults: str) -> Session:
    """A session of the desk as the fault's story needs it, with faults on or not."""
    settings = STORIES[name].settings
    desk = resolve_factory("desk")
    options = {"days": DAYS, "faults": faults, "catalogue": catalogue, "settings": settings, "journal": False}
    return Session(desk, bundled_store(), ["ACME"], directory, SessionConfig(**options))  # type: ignore[arg-type]


@each_fault
def test_a_seeded_fault_is_caught(tmp_path: Path, catalogue: Catalogue, name: str) -> None:
    """Its story breaches the named invariant and those it is evidence of, freezes, pages the steps, leaks nothing."""
    session = make_session(tmp_path, catalogue, name, name)
    STORIES[name].play(session)
    invariants = {breach.invariant for breach in session.breaches}
    assert FAULTS[name].catches[0] in invariants
    assert session.guard.active_freezes
    assert session.host.leaked_requests == []
    pages = {page.invariant: page for page in session.guard.store.all_pages()}
    first = next(breach.invariant for breach in session.breaches if not breach.consequence_of)
    assert len(pages[first].steps) == len(catalogue[first].entry.response)
    assert {invariant.name for invariant in catalogue if name in invariant.entry.evidence.seeded_faults} <= invariants
    session.close()


@each_fault
def test_the_same_story_holds_without_the_fault(tmp_path: Path, catalogue: Catalogue, name: str) -> None:
    """What exposes the fault is nothing that the desk itself cannot take."""
    session = make_session(tmp_path, catalogue, name)
    STORIES[name].play(session)
    assert session.breaches == []
    assert session.host.leaked_requests == []
    session.close()


@pytest.mark.slow
@each_fault
def test_a_fresh_day_does_not_show_it(tmp_path: Path, catalogue: Catalogue, name: str) -> None:
    """From a fresh state and without a transition, the faulty desk trades the whole day and nothing is breached."""
    session = make_session(tmp_path, catalogue, name, name)
    session.begin()
    session.run()
    session.end()
    assert len(session.venue.trades) > 100
    assert session.breaches == []
    session.close()


def test_no_fault_is_on_any_path_when_off() -> None:
    """Without a name the parts are the desk's own classes, and a fault changes only those that it is about."""
    assert parts_with([]) == Parts()
    for fault in FAULTS.values():
        parts, default_parts = fault.parts(Parts()), Parts()
        for part in default_parts.__dataclass_fields__:
            part_value, before = getattr(parts, part), getattr(default_parts, part)
            assert part_value is before or part_value.__mro__[1] is before


def test_every_fault_has_its_story_and_its_words() -> None:
    """Name, category, what the faulty code does, what exposes it; and a story that does."""
    assert set(STORIES) == set(FAULTS)
    assert {fault.category for fault in FAULTS.values()} == {
        "carried-partial-fill",
        "restart-reconciliation",
        "partition",
    }
    for fault in FAULTS.values():
        assert len(fault.description) > 20
        assert len(fault.exposed_by) > 10


def test_every_invariant_is_tripped_by_a_fault(catalogue: Catalogue) -> None:
    """None of the catalogue is there for show: each entry has evidence, and what it calls so exists."""
    named = {name for invariant in catalogue for name in invariant.entry.evidence.seeded_faults}
    assert named <= set(FAULTS)
    assert {name for fault in FAULTS.values() for name in fault.catches} <= set(catalogue.invariants)
    assert [invariant.name for invariant in catalogue if not invariant.entry.evidence.seeded_faults] == []
