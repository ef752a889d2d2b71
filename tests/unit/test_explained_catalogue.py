"""Every predicate of the catalogue, failed at random: what its explanation says is true of the values, and in words."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from holdover.catalogue import Boundary, BoundPredicate, Catalogue, Frozen, Threshold
from holdover.catalogue.predicate import Read, parse_reads
from holdover.catalogue.reads import Adoption
from holdover.model import Instrument, Order, Record, Request, Side
from holdover.runtime.explain import explain

IBM = Instrument(symbol="IBM", lot_size="0.1", tick_size="0.01")
BOUNDARY = Boundary("reconciled", "2024-01-03", 1_704_300_000_000_000_000)
DATES = ["2024-01-02", "2024-01-03", "2024-01-04"]
TEXTS = {
    "symbol": ["IBM"],
    "currency": ["USD"],
    "account": ["A1", "A2"],
    "first": ["", "<Order R1 NEW 0/100 leaves 100>", "a <Position A1 IBM +40> came back as None"],
    "change": ["message", "gap-fill"],
}
RECORD_SOURCES = {"anchor", "held", "via", "before"}
TRIES, FAILURES = 3_000, 60
NUMBER = r"-?[\d,]+(?:\.\d+)?"
BOUND = re.compile(
    rf"is ({NUMBER})(?: \(before: [^)]*\))?, but must be (above|below|at least|at most) (?:the [^,;]*, )?({NUMBER})"
)
HOLDS: dict[str, Any] = {
    "above": lambda value, bound: value > bound,
    "below": lambda value, bound: value < bound,
    "at least": lambda value, bound: value >= bound,
    "at most": lambda value, bound: value <= bound,
}


class AnyFreeze(Frozen):
    """Freezes that forbid everything."""

    def forbids(self, request: Request) -> str:
        """The frozen scope."""
        return "account:A1"


def make_value(name: str, hint: Any, random: Random) -> Any:
    """A value of one field of a record."""
    if name.endswith("_date"):
        return random.choice(DATES)
    if hint is str:
        return random.choice(TEXTS.get(name, ["", "R1", "R2"]))
    if hint is bool:
        return random.random() < 0.5
    if hint is int:
        if name.endswith("_ns"):
            return random.choice([0, 1_500_000, 1_704_200_000_000_000_000, 1_704_200_000_000_000_001])
        return random.choice([random.randint(-1, 3), random.randint(-3, 12), random.randint(-30_000, 30_000)])
    if isinstance(hint, type) and issubclass(hint, Enum):
        return random.choice(list(hint))
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return None if random.random() < 0.3 else make_value(name, random.choice(parts), random)


@lru_cache
def hints_of(kind: type[Record]) -> dict[str, Any]:
    """The types of a record's fields."""
    return typing.get_type_hints(kind)


def make_record(kind: type[Record], random: Random) -> Record:
    """A record of a kind with any values."""
    return kind(**{name: make_value(name, hints_of(kind)[name], random) for name in kind.__struct_fields__})


def make_argument(read: Read, random: Random) -> Any:
    """What a parameter reads that is no record."""
    match read.source:
        case "total":
            return random.choice([random.randint(-3, 12), random.randint(-30_000, 30_000)])
        case "recent":
            return random.choice([random.randint(1, 12), random.randint(1, 30_000)])
        case "threshold":
            tolerances = {"USD": random.randint(0, 12)} if random.random() < 0.5 else {}
            return Threshold(random.choice([0, 1, 5, 100]), tolerances)
        case "adopted":
            return Adoption(random.choice(DATES), random.random() < 0.5)
        case "used":
            assert read.used is not None
            return frozenset(field for field in read.used.fields if random.random() < 0.7)
        case "reference":
            return IBM
        case "boundary":
            return BOUNDARY
        case "frozen":
            return AnyFreeze()
    raise AssertionError(f"{read.parameter} reads {read.source}, of which this test can make no value")


def make_arguments(bound: BoundPredicate, random: Random) -> tuple[Any, ...]:
    """Arguments of a predicate; a second record of a kind often equals the first in all but some fields."""
    arguments: list[Any] = []
    for read in bound.reads:
        if read.optional and random.random() < 0.3:
            arguments.append(None)
        elif read.source not in RECORD_SOURCES:
            arguments.append(make_argument(read, random))
        else:
            assert read.kind is not None
            record = make_record(read.kind, random)
            if arguments and type(record) is type(arguments[0]) and random.random() < 0.7:
                names = random.sample(record.__struct_fields__, random.randint(1, 3))
                record = msgspec.structs.replace(arguments[0], **{name: getattr(record, name) for name in names})
            arguments.append(record)
    return tuple(arguments)


def _predicates() -> list[BoundPredicate]:
    return [bound for invariant in Catalogue.load() for bound in invariant.predicates]


PREDICATES = _predicates()


def failing_arguments(bound: BoundPredicate) -> Iterator[tuple[Any, ...]]:
    """Random arguments for which a predicate is false."""
    random, count = Random(bound.name), 0
    for _ in range(TRIES):
        arguments = make_arguments(bound, random)
        try:
            result = bound.function(*arguments)
        except (KeyError, AttributeError):
            continue
        if result is False:
            count += 1
            yield arguments
        if count == FAILURES:
            return


@pytest.mark.parametrize("bound", PREDICATES, ids=[f"{bound.name}:{bound.function.__name__}" for bound in PREDICATES])
@pytest.mark.parametrize("is_known", [True, False], ids=["instrument", "no-instrument"])
def test_an_explanation_is_in_words_and_true(bound: BoundPredicate, is_known: bool) -> None:
    """No name of a variable, no `repr`, no None, each number on its side, one unit, no two sides that read alike."""
    problems: dict[str, str] = {}
    count = 0
    for arguments in failing_arguments(bound):
        text = explain(bound, arguments, {"IBM": IBM} if is_known else {})
        count += 1
        for problem in find_problems(text.removeprefix(f"{bound.name}: ")):
            problems.setdefault(problem, text)
    assert problems == {}
    assert count, "no arguments failed the predicate"


def find_problems(reason: str) -> Iterator[str]:
    """What is wrong with an explanation."""
    if "_" in reason:
        yield "a name of a variable"
    if re.search(r"[<>]", reason):
        yield "a repr"
    if re.search(r"\b(None|True|False)\b", reason):
        yield "a value of Python"
    if re.search("while explaining|the rule does not hold|the condition|the value of", reason):
        yield "no explanation"
    time = r"[\d-]+ [\d:]+\.\d+ UTC|[\d.]+ m?s"
    money = rf"(?:cash flow|fee) is {NUMBER}, it was {NUMBER}"  # has decimals whatever is known of the instrument
    if re.search(r"\bticks?\b", reason) and re.search(r"\d\.\d", re.sub(f"{money}|{time}", "", reason)):
        yield "two units"
    for value, relation, limit in BOUND.findall(reason):
        value_number, right = (Decimal(number.replace(",", "")) for number in (value, limit))
        if HOLDS[relation](value_number, right):
            yield "a bound that holds"
    for clause in re.split(r"; |, and | while ", reason):
        bound_alike = re.fullmatch(r".* is (.+), but must (?:not )?be [a-z ]+, (.+)", clause)
        if bound_alike is not None and bound_alike[1] == bound_alike[2]:
            yield "a bound that reads like the value"
        alike = re.fullmatch(r".* is (.+), (?:but .* is|it was|on the other side it is) (.+)", clause)
        if alike is not None and alike[1] == alike[2]:
            yield "two sides that read alike"


CHAINS: list[tuple[str, int, int, int, str]] = [
    ("{low} < order.cum_qty < order.order_qty", 0, 0, 10, "the filled quantity is 0, but must be above 0"),
    ("{low} <= order.cum_qty <= order.order_qty", 0, -1, 10, "the filled quantity is -1, but must be at least 0"),
    (
        "{low} < order.cum_qty < order.order_qty", 0, 10, 10,
        "the filled quantity is 10, but must be below the order quantity, 10",
    ),
    (
        "order.order_qty >= order.cum_qty > {low}", 0, 11, 10,
        "the order quantity is 10, but must be at least the filled quantity, 11",
    ),
    ("order.order_qty > order.cum_qty > {low}", 3, 2, 10, "the filled quantity is 2, but must be above 3"),
    ("{low} != order.cum_qty", 2, 2, 10, "the filled quantity is 2, but must not be 2"),
    ("{low} == order.cum_qty <= order.order_qty", 1, 2, 10, "the filled quantity is 2, but must be 1"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "low", "cum_qty", "order_qty", "reason"), CHAINS)
def test_a_chained_comparison_fails_on_its_right_side(
    tmp_path: Path, source: str, low: int, cum_qty: int, order_qty: int, reason: str
) -> None:
    """The pair that failed is explained, whichever side its literal is on."""
    path = tmp_path / "chained.py"
    path.write_text(
        f"from holdover.model import Order\n\n\ndef rule(order: Order):\n    return {source.format(low=low)}\n"
    )
    namespace: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    rule = namespace["rule"]
    order = Order(
        root_cl_ord_id="A1", cl_ord_id="A1", symbol="IBM", side=Side.BUY,
        order_qty=order_qty, cum_qty=cum_qty, leaves_qty=0,
    )  # fmt: skip
    assert rule(order) is False
    text = explain(BoundPredicate("rule", rule, parse_reads(rule)), (order,), {})
    assert text == f"rule: Order A1 (BUY {order_qty} IBM): {reason}"
