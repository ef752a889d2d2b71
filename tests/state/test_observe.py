"""A guard in observe mode over days of the desk with a seeded fault: it watches, trading goes on, the report tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue, Policy
from holdover.cli import main
from holdover.desk.faults import FAULTS
from holdover.harness import Session, SessionConfig, resolve_factory
from holdover.recording import bundled_store
from tests.faults.stories import STORIES

DAYS = ("2024-11-27", "2024-11-29")
FAULT, INVARIANT = "risk-starts-flat", "positions-agree"
assert INVARIANT in FAULTS[FAULT].catches


def play(directory: Path, catalogue: Catalogue, *faults: str, share: float = 0.3) -> Session:
    """The story of the fault with and without it, and trading after it."""
    options = {"days": DAYS, "faults": faults, "catalogue": catalogue, "settings": STORIES[FAULT].settings}
    session = Session(resolve_factory("desk"), bundled_store(), ["ACME"], directory, SessionConfig(**options))  # type: ignore[arg-type]
    STORIES[FAULT].play(session)
    session.run(share)
    return session


def test_a_day_under_observation(tmp_path: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is frozen, the desk trades on as if there were no guard, and both reports say what would have been."""
    session = play(tmp_path / "observed", catalogue.with_policy([], "observe"), FAULT)
    guard = session.guard
    assert guard.active_freezes == []
    assert session.host.leaked_requests == []
    observed = guard.observed_freezes()
    assert {freeze.invariant for freeze in observed} == {INVARIANT}
    freeze = next(freeze for freeze in observed if freeze.scope == "account:A1/instrument:ACME")
    assert freeze.refused > 0
    trades = len(session.venue.trades)
    session.close()

    enforced = play(tmp_path / "enforced", catalogue, FAULT)
    assert {(freeze.invariant, freeze.scope) for freeze in enforced.guard.active_freezes} == {
        (freeze.invariant, freeze.scope) for freeze in observed
    }
    assert enforced.breaches[0].time_ns == min(freeze.time_ns for freeze in observed)
    enforced.close()

    unguarded = play(tmp_path / "off", catalogue.without(*catalogue.invariants), FAULT)
    assert len(unguarded.venue.trades) == trades
    unguarded.close()

    reports = []
    for words in (["--guard", str(tmp_path / "observed/guard")], ["--journal", str(tmp_path / "observed")]):
        assert main(["observe", "report", *words, "--json"]) == 1
        rows = json.loads(capsys.readouterr().out)["freezes"]
        names = ("scope", "invariant", "key", "time_ns", "refused", "explanation")
        reports.append([{name: row[name] for name in names} for row in rows])
    assert reports[0] == reports[1]
    assert main(["catalogue", "try", INVARIANT, "--journal", str(tmp_path / "observed")]) == 1


def test_the_same_day_without_the_fault(
    tmp_path: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    """The legal twin: nothing would have been frozen, over the guard's days and over its journal."""
    session = play(tmp_path, catalogue.with_policy([], "observe"))
    assert session.guard.observed_freezes() == []
    assert session.breaches == []
    session.close()
    assert main(["observe", "report", "--journal", str(tmp_path)]) == 0
    assert "nothing would have been frozen" in capsys.readouterr().out
    assert main(["catalogue", "try", INVARIANT, "--journal", str(tmp_path)]) == 0


def test_one_entry_under_observation(tmp_path: Path, catalogue: Catalogue) -> None:
    """Only the entry that the policy names freezes nothing; a killed subject changes nothing about that."""
    policy = Policy(invariant=INVARIANT, mode="observe", reason="the risk check is new", expires="2999-01-31")  # type: ignore[arg-type]
    session = play(tmp_path, catalogue.with_policy([policy]), FAULT)
    assert session.guard.active_freezes == []
    assert {freeze.invariant for freeze in session.guard.observed_freezes()} == {INVARIANT}
    session.restart("kill")
    session.run(0.1)
    assert INVARIANT in {freeze.invariant for freeze in session.guard.store.observed_freezes()}
    assert all(freeze.invariant != INVARIANT for freeze in session.guard.active_freezes)
    session.close()
