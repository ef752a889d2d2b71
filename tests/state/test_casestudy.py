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
FOUND, SILENT = "rolls-yesterdays-opening", "forget-carried-partial"
GROUND = bank.Ground("", ("ACME",), 1, 1, 1)
TASKS = [
    bank.Task("life", FOUND, 0, days=1),
    bank.Task("life", SILENT, 0, days=1),
    bank.Task("guarded", FOUND, 0, days=1),
    bank.Task("gate", FOUND, arm="holdover"),
    bank.Task("gate", SILENT, arm="holdover"),
    bank.Task("gate", FOUND, arm="no-overnight"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A bank of a few lives of one day, and of two gates."""
    pytest.importorskip("exchange_calendars")
    one = bank.Bank(tmp_path_factory.mktemp("bank"), GROUND, [FOUND, SILENT])
    one.run(TASKS, 1)
    return one


def test_lives_tell_who_finds_out(made: Any) -> None:
    """One fault is found by both, another by the guard alone; a guard that acts lets nothing out."""
    found, silent = (made.life(fault, 0) for fault in (FOUND, SILENT))
    assert found.breach.by == "carried-in-equals-carried-out"
    assert found.found.by == "position"
    assert found.found.records > 20 * found.breach.records
    assert found.sent_after > 0
    assert silent.breach.by == "order-quantity-conserved"
    assert silent.found is None
    guarded = made.life(FOUND, 0, guarded=True)
    assert guarded.breach == found.breach  # up to the first breach nothing is different
    assert guarded.sent_after == 0


def test_the_gate_needs_the_night_for_what_comes_of_it(made: Any) -> None:
    """The whole gate finds the fault on the second morning; one without a night has none."""
    assert made.gate(FOUND, "holdover").by == "carried-in-equals-carried-out"
    assert not made.gate(FOUND, "no-overnight").found


def test_what_is_there_is_not_run_again_and_would_be_the_same(made: Any) -> None:
    """A file that is gone is made again, byte for byte, and no other is touched."""
    gone, kept = (made.path(task) for task in TASKS[:2])
    before, when = gone.read_bytes(), kept.stat().st_mtime_ns
    gone.unlink()
    ran: list[Any] = []
    made.run(TASKS, 1, ran.append)
    assert ran == [TASKS[0]]
    assert gone.read_bytes() == before
    assert kept.stat().st_mtime_ns == when
    assert not made.path(TASKS[0]._replace(days=2)).exists()  # a life of another length is another
