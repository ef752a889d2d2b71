"""Each seeded fault is caught in the carried arm, by the invariant that is named for it, and nothing leaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.desk.faults import FAULTS
from holdover.harness import factory_named
from holdover.harness.cycle import Result, run_cycle
from holdover.recording import bundled


def cycle(place: Path, fault: str) -> Result:
    """Both arms with one fault on."""
    store = bundled()
    return run_cycle(factory_named("desk"), store, ["ACME"], store.days("ACME"), place, faults=[fault])


@pytest.mark.parametrize("name", FAULTS)
def test_a_seeded_fault_is_caught(tmp_path: Path, catalogue: Catalogue, name: str) -> None:
    """The fresh arm holds; the carried one breaches the named invariant, freezes, pages the steps, leaks nothing."""
    result = cycle(tmp_path, name)
    carried, fresh = result.arm("carried"), result.arm("fresh")
    assert carried is not None
    assert fresh is not None
    assert fresh.breaches == []
    assert FAULTS[name].catches in {found.breach.invariant for found in carried.breaches}
    assert carried.frozen
    assert carried.leaked == 0
    page = next(page for page in carried.pages if page.invariant == carried.breaches[0].breach.invariant)
    assert len(page.steps) == len(catalogue[page.invariant].entry.response)
    for entry in (one.entry for one in catalogue if name in one.entry.evidence.seeded_faults):
        assert entry.name in {found.breach.invariant for found in carried.breaches}


def test_every_category_has_its_fault() -> None:
    """A carried partial fill, a reconciliation across a restart, a partition: each is shown to be found."""
    assert {fault.category for fault in FAULTS.values()} == {
        "carried-partial-fill",
        "restart-reconciliation",
        "partition",
    }


def test_evidence_names_real_faults(catalogue: Catalogue) -> None:
    """What the catalogue calls evidence exists."""
    named = {name for one in catalogue for name in one.entry.evidence.seeded_faults}
    assert named <= set(FAULTS)
    assert {fault.catches for fault in FAULTS.values()} <= set(catalogue.invariants)
