"""The built-in catalogue: every entry speaks, for itself, to somebody who has to act."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from holdover import catalogue as package
from holdover.catalogue import Catalogue, Invariant
from holdover.catalogue.entry import CATEGORIES, FAMILIES
from holdover.desk.faults import FAULTS
from holdover.model import enclosing_scopes
from holdover.model.fix import MsgType, Side
from holdover.model.message import Request

ENTRIES = Path(package.__file__).parent / "entries"
BUILTIN = Catalogue.load()
_SHORTEST = {"statement": 20, "description": 120, "implication": 100}
each_invariant = pytest.mark.parametrize("invariant", list(BUILTIN), ids=lambda invariant: invariant.name)


def test_there_are_at_least_forty_over_all_families() -> None:
    """The catalogue has at least forty invariants, and none of the families is empty."""
    assert len(BUILTIN) >= 40
    assert {invariant.entry.family for invariant in BUILTIN} == set(FAMILIES)


def test_the_order_is_that_of_the_families() -> None:
    """The catalogue is in the order of family, then name, however its files are read."""
    names = [(FAMILIES.index(invariant.entry.family), invariant.name) for invariant in BUILTIN]
    assert names == sorted(names)


@each_invariant
def test_every_file_stands_in_its_family(invariant: Invariant) -> None:
    """An entry is the file of its own name in the folder of its own family."""
    assert (ENTRIES / invariant.entry.family / f"{invariant.name}.toml").is_file()


@each_invariant
def test_every_text_says_something(invariant: Invariant) -> None:
    """No text is a placeholder or too short to act upon."""
    entry = invariant.entry
    for field, shortest in _SHORTEST.items():
        assert len(getattr(entry, field)) >= shortest, field
    steps = [text for step in entry.response for text in (step.step, step.done_when)]
    assert all(len(text) >= 15 for text in steps)
    for text in [entry.statement, entry.description, entry.implication, entry.source, *steps]:
        assert "to be written" not in text
        assert text == text.strip()
        assert "  " not in text
        assert "\n" not in text


@each_invariant
def test_every_response_ends_in_a_thaw_of_what_was_frozen(invariant: Invariant) -> None:
    """There are three to six steps, the last is the thaw of the entry's own scope, and no other one thaws."""
    entry = invariant.entry
    *first, last = [step.step for step in entry.response]
    assert 2 <= len(first) <= 5
    match = re.search(r"`holdover thaw (\S+) --guard DIR --operator NAME --reason \.\.\. --evidence \.\.\.`", last)
    assert match is not None
    assert [part.partition(":")[0] for part in match[1].split("/")] == entry.scope.split("+")
    assert not any("holdover thaw" in step for step in first)


@each_invariant
def test_what_an_entry_refers_to_is_there(invariant: Invariant) -> None:
    """An invariant that is named in another's description is in the catalogue."""
    for named in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", invariant.entry.description):
        assert named in BUILTIN.invariants


@each_invariant
def test_every_invariant_guards_a_category(invariant: Invariant) -> None:
    """Each entry belongs to at least one kind of carried state, and to none twice."""
    categories = invariant.entry.categories
    assert categories
    assert set(categories) <= set(CATEGORIES)
    assert len(categories) == len(set(categories))


@each_invariant
def test_cancels_and_questions_always_pass(invariant: Invariant) -> None:
    """No freeze holds back a cancel or a question: neither can add to what is at risk."""
    assert {"cancel", "query"} <= set(invariant.entry.allows)


@each_invariant
def test_what_is_frozen_can_hold_a_message_back(invariant: Invariant) -> None:
    """A message lies in a scope of the kind that the entry freezes; a freeze of anything else would stop nothing."""
    request = Request(msg_type=MsgType.NEW_ORDER_SINGLE, cl_ord_id="1", symbol="S", side=Side.BUY, order_qty=1)
    kinds = {re.sub(r":[^/]*", "", scope).replace("/", "+") for scope in enclosing_scopes(request)}
    assert invariant.entry.scope in kinds
    assert invariant.entry.scope != "subsystem", "only the gateway's and the order manager's hold messages back"


@pytest.mark.parametrize("field", ["statement", "description", "implication"])
def test_no_two_entries_say_the_same(field: str) -> None:
    """Statement, description and implication are each entry's own."""
    counted = Counter(getattr(invariant.entry, field) for invariant in BUILTIN)
    assert [text for text, count in counted.items() if count > 1] == []


def test_no_two_entries_respond_the_same() -> None:
    """But for the thaw, a step is written for one invariant; what begins alike goes on differently."""
    counted = Counter(step.step for invariant in BUILTIN for step in invariant.entry.response[:-1])
    assert [text for text, count in counted.items() if count > 1] == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_every_seeded_fault_is_evidence(fault: object) -> None:
    """The invariant that a seeded fault is said to trip names that fault as its evidence."""
    assert fault.name in BUILTIN[fault.catches[0]].entry.evidence.seeded_faults  # type: ignore[attr-defined]


@each_invariant
def test_evidence_is_a_fault_that_can_be_switched_on(invariant: Invariant) -> None:
    """An entry names no seeded fault that there is not: whoever doubts the evidence can run it."""
    assert set(invariant.entry.evidence.seeded_faults) <= set(FAULTS)


def test_the_digest_is_the_same_in_every_process(tmp_path: Path) -> None:
    """The digest depends on nothing but the catalogue: not on the process and not on its hash seed."""
    script = "from holdover.catalogue import Catalogue; print(Catalogue.load().digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "4242")
    }
    assert digests == {BUILTIN.digest}


def test_the_digest_changes_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One word of one entry is another catalogue; the same words somewhere else are the same one."""
    copy = tmp_path / "copy"
    shutil.copytree(ENTRIES, copy / "entries")
    monkeypatch.setattr("holdover.catalogue.catalogue.__file__", str(copy / "load.py"))
    assert Catalogue.load().digest == BUILTIN.digest
    path = copy / "entries" / "quantity" / "order-quantity-conserved.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("Leave the instrument frozen", "Leave this instrument frozen", 1), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != text
    assert Catalogue.load().digest != BUILTIN.digest


def test_less_one_invariant_is_another_catalogue() -> None:
    """Leaving an invariant out shows in the digest, and leaving out what is not there is refused."""
    reduced = BUILTIN.without("clock-monotone")
    assert len(reduced) == len(BUILTIN) - 1
    assert reduced.digest != BUILTIN.digest
    with pytest.raises(package.CatalogueError, match="no invariant is called 'clock'; did you mean clock-monotone"):
        BUILTIN.without("clock")
