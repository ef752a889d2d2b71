"""Explanations of breaches: words, the right side of an inequality, one unit in a sentence, and never an exception."""

from __future__ import annotations

import ast
import inspect
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.catalogue.predicate import BoundPredicate, parse_reads
from holdover.catalogue.reads import Before, Recent, Sum, Via
from holdover.model import (
    ContingencyType,
    ExecRestatementReason,
    ExecType,
    Execution,
    Exposure,
    Instrument,
    Order,
    OrdStatus,
    Position,
    PositionSide,
    Request,
    Side,
    TimeInForce,
)
from holdover.runtime.explain import explain
from holdover.runtime.read_words import describe_recent
from holdover.runtime.record_text import (
    describe_example,
    describe_record,
    field_words,
    format_duration,
    format_time,
    format_value,
)

IBM = Instrument(symbol="IBM", lot_size="0.1", tick_size="0.01")
INSTRUMENTS = {"IBM": IBM}
ORDER = Order(
    root_cl_ord_id="A1", cl_ord_id="A1", symbol="IBM", side=Side.BUY, order_qty=1000, leaves_qty=1000, price=14_000
)
FILLS = Sum(Execution, "orders", of="qty_delta", by="root_cl_ord_id")


def bind(name: str, function: Any) -> BoundPredicate:
    """A predicate with its reads, as a catalogue binds it."""
    return BoundPredicate(name, function, parse_reads(function))


def filled_at_all(order: Order) -> bool:
    """A literal on the left."""
    return order.cum_qty > 0


def filled_as_executed(
    order: Annotated[Order, "orders"], executed: Annotated[int, FILLS.total_at("root_cl_ord_id")]
) -> bool:
    """A running total."""
    return order.cum_qty == executed


def same_price(order: Annotated[Order, "orders"], venue: Annotated[Order, "venue"]) -> bool:
    """The same field of two subsystems."""
    return order.price == venue.price


def same_order(order: Annotated[Order, "orders"], venue: Annotated[Order, "venue"]) -> bool:
    """Whole records."""
    return order == venue


def has_execution(order: Order, execution: Annotated[Execution | None, Via("orders", by="exec_id")]) -> bool:
    """A record that may be missing."""
    return execution is not None


def never_falls(order: Order, before: Before[Order]) -> bool:
    """The record that was replaced."""
    return before is None or order.cum_qty >= before.cum_qty


def is_open(order: Order) -> bool:
    """A statement about the order."""
    return order.is_open


def status_is_working(order: Order) -> bool:
    """A set of statuses."""
    return order.ord_status in (OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED)


CASES: list[tuple[Any, tuple[Any, ...], str]] = [
    (filled_at_all, (ORDER,), "the filled quantity is 0.0, but must be above 0.0"),
    (
        filled_as_executed,
        (ORDER, 300),
        "the filled quantity is 0.0, but the total booked quantity of its executions is 30.0",
    ),
    (
        same_price,
        (ORDER, replace(ORDER, price=14_050)),
        "the limit price is 140.00, but the venue's limit price is 140.50",
    ),
    (
        same_order,
        (ORDER, replace(ORDER, account="B")),
        "the account is empty, on the other side it is B",
    ),
    (has_execution, (ORDER, None), "there is no execution in the order manager"),
    (
        never_falls,
        (ORDER, replace(ORDER, cum_qty=20)),
        "it is recorded already: the filled quantity is 0.0, it was 2.0, "
        "and the filled quantity is 0.0, but must be at least the previous filled quantity, 2.0",
    ),
    (
        is_open,
        (replace(ORDER, ord_status=OrdStatus.CANCELED),),
        "the order is not open",
    ),
    (status_is_working, (ORDER,), "the status is pending new, but must be one of: new, partially filled"),
]


@pytest.mark.parametrize(("function", "arguments", "reason"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_reason_is_a_sentence(function: Any, arguments: tuple[Any, ...], reason: str) -> None:
    """Fields, values and the bound are in words, with the instrument's decimals."""
    text = explain(bind("example", function), arguments, INSTRUMENTS)
    assert text == f"example: Order A1 (BUY 100.0 IBM): {reason}"


def test_without_an_instrument_amounts_are_whole_numbers() -> None:
    """Lots and ticks are printed as they are, with separators."""
    text = explain(bind("example", filled_as_executed), (ORDER, 2500), {})
    assert text.endswith("the filled quantity is 0, but the total booked quantity of its executions is 2,500")


def test_an_explanation_never_raises() -> None:
    """A predicate whose source asks too much is explained by its records alone."""

    def strange(order: Order) -> bool:
        return [1][order.order_qty] == 2

    text = explain(bind("strange", strange), (ORDER,), INSTRUMENTS)
    assert text == "strange: Order A1 (BUY 100.0 IBM): the rule does not hold (IndexError while explaining)"


def test_no_variable_of_the_catalogue_appears_in_its_phrases(catalogue: Catalogue) -> None:
    """What a reader sees of each comparison in the catalogue has no attribute access and no underscore in it."""
    from holdover.runtime.explain import _PredicateReader

    for invariant in catalogue:
        for bound in invariant.predicates:
            source = ast.parse(inspect.cleandoc(inspect.getsource(bound.function))).body[0]
            reader = _PredicateReader(bound.function, bound.reads, (None,) * len(bound.reads), None, {})  # type: ignore[arg-type]
            for node in ast.walk(source):
                if (
                    isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name)
                    and node.value.id in reader.reads
                ):
                    phrase = reader.phrase(node)
                    assert "_" not in phrase, f"{bound.name}: {phrase}"
                    assert "." not in phrase, f"{bound.name}: {phrase}"


def test_records_are_named_by_what_identifies_them() -> None:
    """Each built-in kind has words, and a kind of the user's own gets its name."""
    execution = Execution(
        exec_id="E1",
        exec_type=ExecType.TRADE,
        root_cl_ord_id="A1",
        symbol="IBM",
        side=Side.SELL,
        trade_date="2024-11-27",
        last_qty=12_345,
        last_px=1_400_000,
    )
    assert describe_record(execution, IBM) == "Execution E1 of order A1 (SELL 1,234.5 IBM at 14,000.00)"
    assert describe_record(Position(account="A", symbol="IBM", net_qty=1)) == "Position of account A in IBM"
    assert field_words("open_buy_qty") == "open buy quantity"
    assert field_words("is_up") == "up"


def test_times_and_durations_are_as_people_say_them() -> None:
    """A time has its zone, a duration its largest units."""
    assert format_time(1_732_718_919_740_000_000) == "2024-11-27 14:48:39.740 UTC"
    durations = (250_000_000, 1_500_000_000, 125_000_000_000, 12_000_000_000_000, -60_000_000_000)
    assert [format_duration(ns) for ns in durations] == ["250 ms", "1.5 s", "2 min 5 s", "3 h 20 min", "-1 min"]
    assert format_value(1_500_000_000, "latency_ns", None) == "1.5 s"


@given(st.integers(-(10**24), 10**24), st.sampled_from(["order_qty", "price", "cash", "count"]))
def test_a_formatted_amount_is_exact(value: int, name: str) -> None:
    """Without separators and in the field's unit, the text is the number: nothing is rounded."""
    unit = {"order_qty": "0.1", "price": "0.01", "cash": "0.0000000001", "count": "1"}[name]
    text = format_value(value, name, IBM).replace(",", "")
    with localcontext(prec=60):
        assert Decimal(text) == value * Decimal(unit)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (TimeInForce.GTC, "GTC"),
        (TimeInForce.DAY, "day"),
        (ExecRestatementReason.GT_CORPORATE_ACTION, "corporate action"),
        (ContingencyType.ONE_CANCELS_THE_OTHER, "one cancels the other"),
        (OrdStatus.PENDING_NEW, "pending new"),
    ],
)
def test_a_code_of_fix_is_in_words_or_in_the_letters_that_people_write(value: StrEnum, words: str) -> None:
    """An abbreviation stays in capitals, everything else is in words."""
    assert format_value(value, "", None) == words


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ("<Order R1 DONE_FOR_DAY 700/1909 leaves 1209>", "order R1 (done for day, 700 of 1,909 filled, 1,209 open)"),
        ("<ParentOrder P_1 0/90900 working 209>", "parent order P_1 (0 of 90,900 filled, 209 working)"),
        (
            "<Balance A1 USD 995684572700000000 carried 0 2024-11-27> became <Balance A1 USD 0 carried 5 2024>",
            "balance of account A1 in USD (99,568,457.27, carried 0) "
            "became balance of account A1 in USD (0, carried 0.0000000005)",
        ),
        (
            "orders.Order.cum_qty[P-1] kept 5245 recomputed 4545",
            "the total filled quantity of the orders of P-1 is 5,245, computed again 4,545",
        ),
        ("<Freeze 1 account:A1 by by hand: kay>", "freeze 1 of account:A1, by hand: kay"),
        ("<Freeze 2 system by clock-monotone>", "freeze 2 of system, by clock-monotone"),
        ("a <Position A1 IBM +40> came back as None", "a position A1 IBM +40 came back as nothing"),
    ],
)
def test_the_example_of_a_self_check_is_in_words(example: str, words: str) -> None:
    """Cash in the currency, quantities with separators, statuses in words; the raw text stays in the record."""
    assert describe_example(example) == words


@pytest.mark.parametrize(
    ("recent", "words"),
    [
        (Recent(Request, "gateway", "account", "1s"), "the number of requests of its account in the last second"),
        (Recent(Request, "gateway", "terms_key", "10s"), "the number of requests with the same terms in the last 10 s"),
        (
            Recent(Order, "orders", "strategy", "2m", where="is_rejected"),
            "the number of rejected orders with the same strategy in the last 2 min",
        ),
    ],
)
def test_a_count_within_a_time_is_in_words(recent: Recent, words: str) -> None:
    """What is counted, of what it is counted, and the time as people say it."""
    assert describe_recent(recent) == words


def test_the_terms_of_a_long_sum_show_their_values() -> None:
    """A sum of three terms that is wrong by one of them shows which."""
    bound = find_predicate("position_equals_carried_plus_fills")
    position = Position(account="A1", symbol="IBM", net_qty=12, carried_qty=5, trade_date="2024-01-02")
    assert explain(bound, (position, 4, 2, None), {}) == (
        "position-equals-carried-plus-fills: Position of account A1 in IBM: the net position is 12, but the carried "
        "position (5) plus the total signed quantity of the day's executions (4) plus the total booked quantity of "
        "the day's position adjustments (2) is 11"
    )


@pytest.mark.parametrize(
    ("together", "words"),
    [
        (7, "the total open buy quantity of its orders is 7"),
        (
            5,
            "the total open buy quantity of its orders is 7, and the total open buy quantity of its orders "
            "(of alternatives only the largest) is 5",
        ),
    ],
)
def test_two_ways_to_hold_are_one_sentence(together: int, words: str) -> None:
    """The statement stands once; a second way that demands the same is left out."""
    bound = find_predicate("open_buy_quantity_agrees")
    exposure = Exposure(account="A1", symbol="IBM", net_qty=0, open_buy_qty=3, position_side=PositionSide.LONG)
    assert explain(bound, (exposure, 7, together), {}) == (
        f"open-quantity-agrees: Exposure of account A1 in IBM, long leg: the open buy quantity is 3, but {words}"
    )


def find_predicate(name: str) -> BoundPredicate:
    """Return a predicate of the catalogue by the name of its function."""
    return next(
        bound for invariant in Catalogue.load() for bound in invariant.predicates if bound.function.__name__ == name
    )
