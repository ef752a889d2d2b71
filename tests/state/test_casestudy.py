"""The case study's lives and gates are real runs, the same every time, and are run once."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
bank = importlib.import_module("casestudy.bank")

pytestmark = pytest.mark.slow  # whole days, and a gate's every trial of them
FOUND_FAULT, SILENT_FAULT = "rolls-yesterdays-opening", "forget-carried-partial"
SPEC = bank.StudySpec("", ("ACME",), 1, 1, 1)
TASKS = [
    bank.Task("life", FOUND_FAULT, 0, days=1),
    bank.Task("life", SILENT_FAULT, 0, days=1),
    bank.Task("guarded", FOUND_FAULT, 0, days=1),
    bank.Task("gate", FOUND_FAULT, arm="holdover"),
    bank.Task("gate", SILENT_FAULT, arm="holdover"),
    bank.Task("gate", FOUND_FAULT, arm="no-overnight"),
]


@pytest.fixture(scope="module")
def run_store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A bank of a few lives of one day, and of two gates."""
    pytest.importorskip("exchange_calendars")
    new_store = bank.RunStore(tmp_path_factory.mktemp("bank"), SPEC, [FOUND_FAULT, SILENT_FAULT])
    new_store.run(TASKS, 1)
    return new_store


def test_lives_tell_who_finds_out(run_store: Any) -> None:
    """One fault is found by both, another by the guard alone; a guard that acts lets nothing out."""
    found_run, silent_run = (run_store.read_run(fault, 0) for fault in (FOUND_FAULT, SILENT_FAULT))
    assert found_run.breach.by == "carried-in-equals-carried-out"
    assert found_run.discovery.by == "position"
    assert found_run.discovery.records > 20 * found_run.breach.records
    assert found_run.sent_after > 0
    assert silent_run.breach.by == "order-quantity-conserved"
    assert silent_run.discovery is None
    guarded = run_store.read_run(FOUND_FAULT, 0, guarded=True)
    assert guarded.breach == found_run.breach  # up to the first breach nothing is different
    assert guarded.sent_after == 0


def test_the_gate_needs_the_night_for_what_comes_of_it(run_store: Any) -> None:
    """The whole gate finds the fault on the second morning; one without a night has none."""
    assert run_store.gate(FOUND_FAULT, "holdover").by == "carried-in-equals-carried-out"
    assert not run_store.gate(FOUND_FAULT, "no-overnight").is_caught


def test_what_is_there_is_not_run_again_and_would_be_the_same(run_store: Any) -> None:
    """A file that is gone is made again, byte for byte, and no other is touched."""
    removed_path, untouched_path = (run_store.path(task) for task in TASKS[:2])
    before, modified_ns = removed_path.read_bytes(), untouched_path.stat().st_mtime_ns
    removed_path.unlink()
    ran: list[Any] = []
    run_store.run(TASKS, 1, ran.append)
    assert ran == [TASKS[0]]
    assert removed_path.read_bytes() == before
    assert untouched_path.stat().st_mtime_ns == modified_ns
    assert not run_store.path(TASKS[0]._replace(days=2)).exists()  # a life of another length is another
