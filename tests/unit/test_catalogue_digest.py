"""The digest of a catalogue: it changes with everything that a verdict depends on, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.catalogue.predicates import lifecycle, quantity
from holdover.model import Order, OrdStatus

ENTRY = """\
name = "few-lots"
family = "conduct"
statement = "An order is small."
description = "Looks at each order."
implication = "The venue charges for lots."
asserted = "within"
within = "30s"
scope = "strategy"
severity = "warning"
[[response]]
step = "Stop the strategy."
done_when = "It is stopped."
"""

PREDICATES = '''\
"""Small orders."""

from enum import StrEnum
from fractions import Fraction
from functools import cache
from typing import Annotated

import digest_helpers
from digest_helpers import Limits, is_small
from holdover.catalogue import Before, Held, Sum, predicate
from holdover.model import Record

LOTS_MAX = 100  # by contract
SHARE = Fraction(1, 3)
LIMITS = Limits(floor=1)
LEGAL = {"A": {"B", "C"}, "B": {"C"}}


class Phase(StrEnum):
    """The phases of a lot."""

    OPEN = "o"
    CLOSED = "c"


class Lot(Record, frozen=True, kw_only=True):
    """Some lots."""

    STEP = 5
    name: str
    count: int = 0
    phase: Phase = Phase.OPEN

    @property
    def key(self) -> str:
        """The name."""
        return self.name

    @property
    def size(self) -> int:
        """The lots in steps."""
        return self.count // self.STEP

    @property
    def weight(self) -> int:
        return self.count * 2

    @property
    def unrelated(self) -> int:
        return self.count - 1


TOTAL = Sum(Lot, "orders", of="count", by="name")


@cache
def scaled(value: int, factor: int = 2) -> int:
    """Scale a number."""
    return value * factor


def unrelated_helper(value: int) -> int:
    return value + 1


def make_test(bound: int):
    return lambda lot: lot.weight < bound


is_light = make_test(1000)


@predicate("few-lots")
def few_lots(lot: Lot, before: Before[Lot], total: Annotated[int, TOTAL.total_at("name")]) -> bool:
    """Few lots."""
    if before is not None and lot.phase not in LEGAL.get(before.phase, ()):
        return False
    small = is_small(lot.size) and digest_helpers.is_even(total)
    return small and is_light(lot) and scaled(total) <= LOTS_MAX * SHARE and lot.count >= LIMITS.floor
'''

HELPERS = '''\
"""Helpers in a module of their own."""

from dataclasses import dataclass

BOUND = 7


@dataclass(frozen=True)
class Limits:
    floor: int

    def unused(self) -> int:
        return self.floor


def is_small(size: int) -> bool:
    return size < BOUND


def is_even(number: int) -> bool:
    return number % 2 == 0


def unrelated(number: int) -> bool:
    return number > 1
'''

FILES = {"few-lots.toml": ENTRY, "predicates.py": PREDICATES, "digest_helpers.py": HELPERS}

CHANGES = {
    "threshold": ("few-lots.toml", 'within = "30s"', 'within = "31s"'),
    "setting": ("few-lots.toml", 'severity = "warning"', 'severity = "error"'),
    "constant": ("predicates.py", "LOTS_MAX = 100", "LOTS_MAX = 101"),
    "fraction": ("predicates.py", "Fraction(1, 3)", "Fraction(1, 4)"),
    "table": ("predicates.py", '"B": {"C"}', '"B": {"A", "C"}'),
    "object": ("predicates.py", "Limits(floor=1)", "Limits(floor=2)"),
    "enum-member": ("predicates.py", 'CLOSED = "c"', 'CLOSED = "d"'),
    "class-constant": ("predicates.py", "STEP = 5", "STEP = 6"),
    "key": ("predicates.py", "return self.name", "return self.name.lower()"),
    "property": ("predicates.py", "self.count // self.STEP", "self.count / self.STEP"),
    "property-by-lambda": ("predicates.py", "self.count * 2", "self.count * 3"),
    "field-default": ("predicates.py", "count: int = 0", "count: int = 1"),
    "sum-field": ("predicates.py", 'of="count", by="name"', 'of="weight", by="name"'),
    "sum-key": ("predicates.py", 'of="count", by="name"', 'of="count", by="key"'),
    "sum-subsystem": ("predicates.py", 'Sum(Lot, "orders"', 'Sum(Lot, "positions"'),
    "helper-body": ("predicates.py", "value * factor", "value + factor"),
    "helper-default": ("predicates.py", "factor: int = 2", "factor: int = 3"),
    "closure": ("predicates.py", "make_test(1000)", "make_test(1001)"),
    "lambda": ("predicates.py", "lot.weight < bound", "lot.weight <= bound"),
    "predicate": ("predicates.py", "scaled(total) <=", "scaled(total) <"),
    "asserted": ("predicates.py", '@predicate("few-lots")', '@predicate("few-lots", asserted="when-settled")'),
    "other-module-constant": ("digest_helpers.py", "BOUND = 7", "BOUND = 8"),
    "other-module-function": ("digest_helpers.py", "% 2 == 0", "% 2 == 1"),
    "reads": ("predicates.py", "lot: Lot, before", 'lot: Held[Lot, "orders"], before'),
}

SAME = {
    "comment": ("predicates.py", "  # by contract", "  # by another contract"),
    "docstring": ("predicates.py", '"""Few lots."""', '"""Not many lots."""'),
    "helper-docstring": ("predicates.py", '    """Scale a number."""\n', ""),
    "class-docstring": ("digest_helpers.py", "class Limits:\n", 'class Limits:\n    """The limits."""\n\n'),
    "format": (
        "predicates.py",
        "    return value * factor",
        "\n\n    return (\n        value\n        * factor\n    )",
    ),
    "annotation": ("predicates.py", "def make_test(bound: int):", "def make_test(bound: object) -> object:"),
    "blank-lines": ("predicates.py", "TOTAL = Sum", "\n\n\nTOTAL = Sum"),
    "unrelated-function": ("predicates.py", "value + 1", "value + 2"),
    "unrelated-property": ("predicates.py", "self.count - 1", "self.count - 2"),
    "unrelated-in-other-module": ("digest_helpers.py", "number > 1", "number > 2"),
    "new-constant": ("predicates.py", "LOTS_MAX =", "OTHER = 3\nLOTS_MAX ="),
    "order-of-a-table": ("predicates.py", '{"B", "C"}, "B": {"C"}', '{"C", "B"}, "B": {"C"}'),
}

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from holdover.catalogue import Catalogue
print(Catalogue.load(sys.argv[1], builtin=False).digest)
"""


def digest_of(directory: Path, change: tuple[str, str, str] | None = None, *options: str) -> str:
    """Write the catalogue with one change and return its digest, computed in a process of its own."""
    directory.mkdir(exist_ok=True)
    for name, text in FILES.items():
        if change is not None and change[0] == name:
            assert change[1] in text
            text = text.replace(change[1], change[2])
        (directory / name).write_text(text, encoding="utf-8")
    command = [sys.executable, *options, "-c", SCRIPT, str(directory)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the unchanged catalogue."""
    return digest_of(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("name", CHANGES)
def test_the_digest_changes_with_what_is_judged(tmp_path: Path, base: str, name: str) -> None:
    """Each kind of thing that a predicate reaches is in the digest."""
    assert digest_of(tmp_path / "changed", CHANGES[name]) != base


@pytest.mark.parametrize("name", SAME)
def test_the_digest_stays_without_a_change_of_what_is_judged(tmp_path: Path, base: str, name: str) -> None:
    """Comments, docstrings, formatting, annotations and unrelated code are not in the digest."""
    assert digest_of(tmp_path / "changed", SAME[name]) == base


def test_the_digest_is_the_same_in_another_folder_and_optimised(tmp_path: Path, base: str) -> None:
    """Neither the path of a catalogue nor the options of the interpreter are in the digest."""
    assert digest_of(tmp_path / "elsewhere", None, "-OO") == base


def test_the_status_table_is_in_the_built_in_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another legal status step is another catalogue."""
    before = Catalogue.load().digest
    assert Catalogue.load().digest == before
    monkeypatch.setitem(lifecycle.STATUS_STEPS, OrdStatus.FILLED, frozenset({OrdStatus.FILLED, OrdStatus.CANCELED}))
    assert Catalogue.load().digest != before


def test_a_record_property_is_in_the_built_in_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another meaning of an open order is another catalogue."""
    before = Catalogue.load().digest
    monkeypatch.setattr(Order, "is_open", property(lambda order: order.leaves_qty > 0))
    assert Catalogue.load().digest != before


def test_a_table_that_a_property_reads_is_in_the_built_in_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A property's own constants are followed, too."""
    before = Catalogue.load().digest
    monkeypatch.setattr("holdover.model.record.OPEN", frozenset({OrdStatus.NEW}))
    assert Catalogue.load().digest != before


def test_a_helper_is_in_the_built_in_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper function with another body is another catalogue; one that no predicate calls is not."""
    before = Catalogue.load().digest
    monkeypatch.setattr(quantity, "unrelated", lambda order: True, raising=False)
    assert Catalogue.load().digest == before
    monkeypatch.setattr(lifecycle, "legal_statuses_after", lambda status, exec_type: frozenset(OrdStatus))
    assert Catalogue.load().digest != before
