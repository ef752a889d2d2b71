"""State coverage: counts made by hand, the file, the lock, the gap."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.coverage import (
    CellWitness,
    CoverageCollector,
    CoverageData,
    CoverageError,
    CoverageLock,
    CoverageNumbers,
    LockError,
    Rule,
    Waiver,
    WitnessedCount,
    build_profile,
    combine_coverage,
    decode_coverage,
    propose_rules,
    read_coverage,
    read_lock,
)
from holdover.coverage.field_reads import find_fields_read, resolve_fields
from holdover.coverage.numbers import possible_pairs
from holdover.harness.session import RESTARTS
from holdover.model import SYSTEM, Book, Link, Order, OrdStatus, Position, TimeInForce
from holdover.runtime import AxisError, CellCounter, FreezeStore, Guard, GuardSettings, Journal
from holdover.runtime.axes import (
    BUILT_IN,
    Axis,
    CarriedPartialAxis,
    LinkUpAxis,
    OpenOrdersAxis,
    axes_in_use,
    register_axis,
)
from holdover.runtime.axes import axis as declare
from holdover.runtime.cells import RESTART_KINDS, TRANSITIONS

from .orders import order

DAY = date(2024, 1, 2)
THREE_AXES: list[type[Axis]] = [OpenOrdersAxis, CarriedPartialAxis, LinkUpAxis]
"""4 x 2 x 2 values: sixteen cells."""
NO_PARTIAL = Rule(
    name="partial-is-partial",
    reason="by definition",
    axis_values={"carried-partial": ["yes"], "orders": ["none", "unfilled"]},
)
NO_LINK_AT_BEGIN = Rule(name="no-link-yet", reason="not connected", axis_values={"link": ["up"]}, transitions=["begin"])
NEW = order(account="A", strategy="S", ord_status=OrdStatus.NEW, time_in_force=TimeInForce.GTC)
PARTIAL = replace(NEW, ord_status=OrdStatus.PARTIALLY_FILLED, cum_qty=10, leaves_qty=NEW.order_qty - 10)
LINK_UP = Link(name="V", is_up=True, epoch=1)


def make_lock(*rules: Rule, axes: list[str] | None = None) -> CoverageLock:
    """A lock file with these rules."""
    lock = CoverageLock(axes=axes or ["orders", "carried-partial", "link"])
    for rule in rules:
        lock.accept(rule, by="somebody", day=DAY)
    return lock


def measure_coverage(directory: Path, *, with_partial: bool = True) -> CoverageData:
    """A small subject with three axes: a session, an order, a partial fill, a cut, a kill, a night."""
    catalogue = Catalogue.load()
    with CoverageCollector(catalogue, THREE_AXES) as collector:
        guard = Guard(directory, GuardSettings(axes=THREE_AXES), catalogue=catalogue, clock=lambda: 1, channels=[])
        guard.boundary("begin", "2024-01-02")
        guard.record("gateway", LINK_UP)
        guard.record("orders", NEW)
        guard.boundary("disconnect", "2024-01-02")
        if with_partial:
            guard.record("orders", PARTIAL)
        guard.count_transition("restart", "torn")
        guard.boundary("overnight", "2024-01-02")
        collector.collect("by hand")
    return collector.data


# -- by hand --------------------------------------------------------------------------------------------------------


def test_a_count_by_hand_agrees(tmp_path: Path, catalogue: Catalogue) -> None:
    """Three axes, sixteen cells, two rules: numerator and denominator are those on paper.

    Of 4 x 2 x 2 cells, those with a partial fill carried and no partial order are out: 2 x 1 x 2 of them, so 12 are
    left. A session cannot begin with the link up: of its 12, those with the link up are out, so 6. Twelve transitions
    make 11 x 12 + 6 = 138 places. Covered are begin (nothing open, down), disconnect (unfilled, up), restart:torn
    (partial, carried, up) and overnight (partial, carried, down: a restarted process has no link).
    """
    numbers = CoverageNumbers(measure_coverage(tmp_path), make_lock(NO_PARTIAL, NO_LINK_AT_BEGIN), catalogue)
    assert len(numbers.product.cells) == 16
    assert (numbers.c1.covered, numbers.c1.total) == (4, 11 * 12 + 6)
    covered = {line.label: [numbers.product.place_name(cell) for cell in line.covered] for line in numbers.lines}
    assert {label: names for label, names in covered.items() if names} == {
        "begin": ["being in orders=none, carried-partial=no, link=down"],
        "disconnect": ["being in orders=unfilled, carried-partial=no, link=up"],
        "overnight": ["being in orders=partial, carried-partial=yes, link=down"],
        "restart:torn": ["being in orders=partial, carried-partial=yes, link=up"],
    }
    assert (numbers.pairs.covered, numbers.pairs.total) == (3, len(possible_pairs()))
    assert numbers.rule_violations == []
    visited = numbers.product.project(numbers.data, numbers.data.visits)
    assert {numbers.product.place_name(cell): visit.count for cell, visit in visited.items()} == {
        "being in orders=none, carried-partial=no, link=down": 1,
        "being in orders=none, carried-partial=no, link=up": 1,
        "being in orders=unfilled, carried-partial=no, link=up": 1,
        "being in orders=partial, carried-partial=yes, link=up": 1,
        "being in orders=partial, carried-partial=yes, link=down": 1,
    }


def test_pairs_follow_the_lifecycle() -> None:
    """Nothing follows a night but a beginning, and every transition both follows and is followed."""
    pairs = possible_pairs()
    assert [following for transition, following in pairs if transition == "overnight"] == ["begin"]
    assert {transition for transition, _ in pairs} == {following for _, following in pairs} == set(TRANSITIONS)
    # begin, disconnect, reconnect: 7 restarts, end, one of the cut; end: overnight, 7 restarts; restarts: 11 each.
    assert len(pairs) == 3 * 9 + 8 + 1 + 7 * 11


def test_a_wrong_rule_is_found_by_the_run_that_reaches_it(tmp_path: Path, catalogue: Catalogue) -> None:
    """The denominator is wrong, says the run, and names the rule, the place and the test."""
    wrong = Rule(
        name="never-cut-with-an-order",
        reason="we hope",
        axis_values={"orders": ["unfilled"]},
        transitions=["disconnect"],
    )
    never = Rule(name="never-partial", reason="we hope", axis_values={"orders": ["partial"]})
    numbers = CoverageNumbers(measure_coverage(tmp_path), make_lock(wrong, never), catalogue)
    messages = [str(violation) for violation in numbers.rule_violations]
    assert any(
        "rule never-cut-with-an-order" in message and "by hand reached it: disconnect in orders=unfilled" in message
        for message in messages
    )
    assert sum("rule never-partial" in message for message in messages) == 2
    assert all(message.startswith("denominator wrong: ") for message in messages)


def test_what_a_rule_forbids_is_not_counted_as_covered(tmp_path: Path, catalogue: Catalogue) -> None:
    """The place that a wrong rule takes out of the denominator is not in the numerator either."""
    rule = Rule(name="never", reason="we hope", axis_values={"orders": ["unfilled"]}, transitions=["disconnect"])
    numbers = CoverageNumbers(measure_coverage(tmp_path), make_lock(rule), catalogue)
    assert (numbers.c1.covered, numbers.c1.total) == (3, 12 * 16 - 4)


def test_the_shortest_way_wins(tmp_path: Path, catalogue: Catalogue) -> None:
    """A place keeps the way with the fewest transitions, and says what came on it."""
    data = measure_coverage(tmp_path / "long")
    cell, torn = next(iter(data.transitions["restart:torn"].items()))
    assert torn.witness.length == 3
    assert [step.partition("@")[0] for step in torn.witness.path] == ["begin", "disconnect", "restart:torn"]
    shorter = CellWitness(1, "other")
    data.add_transition("restart:torn", cell, 1, shorter)
    assert data.transitions["restart:torn"][cell] == WitnessedCount(2, shorter)


def test_the_nearest_says_what_differs(tmp_path: Path, catalogue: Catalogue) -> None:
    """For a missing place: the covered one that differs least, and in what, in words."""
    numbers = CoverageNumbers(measure_coverage(tmp_path), make_lock(NO_PARTIAL), catalogue)
    near = numbers.nearest_cell("restart:torn", ("both", "yes", "up"))
    assert near is not None
    assert (near.label, near.cell) == ("restart:torn", ("partial", "yes", "up"))
    assert near.differences == ["open orders partly filled (wanted: open orders unfilled and partial)"]
    assert (
        CoverageNumbers(CoverageData.empty("", BUILT_IN), CoverageLock(), catalogue).nearest_cell("end", ("none",) * 6)
        is None
    )


# -- axes -----------------------------------------------------------------------------------------------------------


def current_cell(counter: CellCounter) -> dict[str, str]:
    """The present cell."""
    return {axis.name: axis.values[axis.value] for axis in counter.axes}


def test_every_built_in_axis_follows_what_is_recorded(make_guard: Callable[..., Guard]) -> None:
    """From a fresh system through a day with a carried order, a breach by hand, a restart and a second session."""
    guard = make_guard()
    assert set(current_cell(guard.cells).values()) == {"none", "no", "flat", "down", "before", "pending", "nothing"}
    guard.boundary("begin", "2024-01-02")
    pending_order = replace(NEW, trade_date="2024-01-02", ord_status=OrdStatus.PENDING_NEW)
    guard.record("orders", pending_order)
    assert current_cell(guard.cells)["unacknowledged"] == "some"
    assert current_cell(guard.cells)["age"] == "today"
    day = order(root_cl_ord_id="B", cl_ord_id="B", ord_status=OrdStatus.PENDING_CANCEL, account="A", strategy="S")
    guard.record("orders", day)
    guard.record("orders", replace(PARTIAL, trade_date="2024-01-02"))
    guard.record("positions", Position(account="A", symbol="X", net_qty=-1))
    guard.record("positions", Position(account="A", symbol="Y", net_qty=1))
    cell = current_cell(guard.cells)
    assert (cell["orders"], cell["carried-partial"], cell["in-flight"]) == ("both", "yes", "cancel")
    assert (cell["unacknowledged"], cell["position"], cell["tif"], cell["session"]) == ("none", "both", "both", "open")
    guard.freeze("account:A", operator="op", reason="test")
    assert current_cell(guard.cells)["freeze"] == "part"
    guard.freeze(SYSTEM, operator="op", reason="test")
    assert current_cell(guard.cells)["freeze"] == "system"
    guard.thaw(SYSTEM, operator="op", reason="r", evidence="e")
    assert current_cell(guard.cells)["freeze"] == "part"
    for boundary in ("end", "overnight", "begin"):
        guard.boundary(boundary, "2024-01-03" if boundary == "begin" else "2024-01-02")
    assert current_cell(guard.cells)["age"] == "one"
    guard.boundary("begin", "2024-01-04")
    assert current_cell(guard.cells)["age"] == "more"
    assert len(guard.cells.visits) > 8


def test_a_restart_takes_the_link_down_until_it_is_said_again() -> None:
    """What a dead process last said of its link is not believed, though the record stays."""
    counter = CellCounter()
    watch, depends = counter.observer_of(("gateway", Link))
    assert watch is not None
    assert depends == ("r.is_up", "r.epoch")
    watch(None, LINK_UP)
    assert current_cell(counter)["link"] == "up"
    counter.count_transition("restart", "kill")
    assert current_cell(counter)["link"] == "down"
    watch(LINK_UP, replace(LINK_UP, epoch=2))
    assert current_cell(counter)["link"] == "up"


def test_axes_agree_with_a_count_over_all_records(make_guard: Callable[..., Guard]) -> None:
    """After many changes the incremental value is what a walk over every record gives."""
    guard = make_guard()
    statuses = [OrdStatus.PENDING_NEW, OrdStatus.NEW, OrdStatus.PENDING_CANCEL, OrdStatus.CANCELED]
    for number in range(200):
        key = f"K{number % 23}"
        status = statuses[(number * 7) % 4]
        tif = TimeInForce.GTC if number % 3 else TimeInForce.DAY
        guard.record("orders", order(root_cl_ord_id=key, cl_ord_id=key, ord_status=status, time_in_force=tif))
        orders = [record for record in guard.monitor.records(Order, "orders").values() if isinstance(record, Order)]
        assert (current_cell(guard.cells)["in-flight"] == "cancel") == any(o.ord_status == statuses[2] for o in orders)
        assert (current_cell(guard.cells)["unacknowledged"] == "some") == any(
            o.ord_status == statuses[0] for o in orders
        )
        assert (current_cell(guard.cells)["orders"] == "none") == (not any(o.is_open for o in orders))
        counter = guard.cells
        assert counter.decode_cell(counter.encode_cell(counter.cell)) == counter.cell


def test_an_axis_of_ones_own(make_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A few lines; and one that cannot be used is refused with what is wrong."""
    monkeypatch.setattr("holdover.runtime.axes._REGISTERED", {})

    @declare("halted", values=("no", "yes"), reads=[("gateway", Book)])
    def halted(book: Book) -> bool:
        return not book.trading

    guard = make_guard()
    guard.record("gateway", Book(symbol="X", trading=False))
    assert current_cell(guard.cells)["halted"] == "yes"
    guard.record("gateway", Book(symbol="X", trading=True))
    assert current_cell(guard.cells)["halted"] == "no"
    assert axes_in_use()[-1].words == ("halted no", "halted yes")
    with pytest.raises(AxisError, match="2, 4 or 8"):
        declare("odd", values=("a", "b", "c"), reads=[("gateway", Book)])(lambda book: 0)
    with pytest.raises(AxisError, match="taken by a built-in"):
        register_axis(OpenOrdersAxis)


def test_restart_kinds_are_those_of_the_harness() -> None:
    """The counter knows each kind of restart that a session can do."""
    assert RESTART_KINDS == RESTARTS
    assert {f"restart:{kind}" for kind in RESTARTS} <= set(TRANSITIONS)


# -- what invariants read -------------------------------------------------------------------------------------------


def test_fields_behind_properties_are_read() -> None:
    """`is_open` reads the status and the time in force; `key` what it is made of."""
    assert resolve_fields(Order, "is_open") == {"ord_status", "time_in_force"}
    assert resolve_fields(Order, "book_key") == {"account", "symbol", "position_id", "position_side"}
    assert resolve_fields(Order, "no_such_thing") == frozenset()


def test_fields_of_a_predicate(catalogue: Catalogue) -> None:
    """Of the anchor, of what it is joined with, and of a total's records."""
    read_ = find_fields_read(catalogue, ["order-quantity-conserved"])
    assert read_ == {
        (None, "Order", name) for name in ("leaves_qty", "order_qty", "cum_qty", "ord_status", "time_in_force")
    }
    summed = find_fields_read(catalogue, ["position-equals-carried-plus-fills"])
    assert {("positions", "Position", "net_qty"), ("orders", "Execution", "qty_delta")} <= summed


def test_checked_state_and_occasions(tmp_path: Path, catalogue: Catalogue) -> None:
    """A field that is written and read counts; an invariant without occasion is VACUOUS or UNKNOWN."""
    numbers = CoverageNumbers(measure_coverage(tmp_path), make_lock(), catalogue)
    assert "orders.Order.leaves_qty" in numbers.checked_fields
    assert set(numbers.checked_fields) | set(numbers.unchecked_fields) == numbers.data.written_fields
    states = {occasion.invariant: occasion.state for occasion in numbers.activities}
    assert states["order-quantity-conserved"] == "ACTIVE"
    assert states["positions-agree"] == "UNKNOWN"
    assert states["replace-chain-unbroken"] == "VACUOUS"
    cells = next(occasion.cells for occasion in numbers.activities if occasion.invariant == "order-quantity-conserved")
    assert sum(cells.values()) == 2
    assert len(cells) == 2


# -- the file -------------------------------------------------------------------------------------------------------

WITNESSES = st.builds(CellWitness, st.integers(0, 3), st.sampled_from("ab"), st.just(()))
CELL_COUNTS = st.builds(WitnessedCount, st.integers(1, 9), WITNESSES)
CELLS = st.dictionaries(st.sampled_from(["000", "100", "311"]), CELL_COUNTS, max_size=3)
DATA = st.builds(
    lambda visits, transitions, pairs, occasions, written_fields: CoverageData(
        catalogue="c",
        axes=CoverageData.empty("c", THREE_AXES).axes,
        visits=visits,
        transitions=transitions,
        pairs=pairs,
        invariants=occasions,
        written_fields=written_fields,
        recorded_kinds={name.rpartition(".")[0] for name in written_fields},
    ),
    CELLS,
    st.dictionaries(st.sampled_from(["begin", "restart:kill"]), CELLS, max_size=2),
    st.dictionaries(st.sampled_from(["begin > end", "end > overnight"]), CELL_COUNTS, max_size=2),
    st.dictionaries(
        st.sampled_from("xy"), st.dictionaries(st.sampled_from(["000", "311"]), st.integers(1, 5)), max_size=2
    ),
    st.sets(st.sampled_from(["orders.Order.price", "orders.Order.cum_qty", "risk.Exposure.net_qty"])),
)


@settings(max_examples=60, deadline=None)
@given(DATA, DATA, DATA)
def test_combine_is_associative_and_commutative(first: CoverageData, second: CoverageData, third: CoverageData) -> None:
    """In whatever order and grouping runs are joined, the bytes are the same."""
    together = combine_coverage([first, second, third]).encode()
    assert combine_coverage([combine_coverage([first, second]), third]).encode() == together
    assert combine_coverage([first, combine_coverage([second, third])]).encode() == together
    assert combine_coverage([third, first, second]).encode() == together
    assert decode_coverage(together, "x").encode() == together


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """The file holds nothing of when or where it was made."""
    assert measure_coverage(tmp_path / "a").encode() == measure_coverage(tmp_path / "b").encode()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[: len(text) // 2], "is cut off or damaged"),
        (lambda text: b"", "is empty"),
        (lambda text: b'{"some": "json"}', "is no coverage file"),
        (lambda text: b"\x00\x01 not json", "is no coverage file"),
        (lambda text: text.replace(b'"version": 2', b'"version": 3'), "needs a newer Holdover"),
        (lambda text: text.replace(b"restart:torn", b"restart:kill"), "is damaged"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes], message: str) -> None:
    """Cut off, empty, foreign, newer, changed: each is told by its name and in a sentence."""
    path = tmp_path / "cov.json"
    path.write_bytes(spoil(measure_coverage(tmp_path / "g").encode()))
    with pytest.raises(CoverageError, match=message) as refused:
        read_coverage(path)
    assert str(refused.value).startswith("cov.json: ")


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    """Other axes, another catalogue, no file at all."""
    data = measure_coverage(tmp_path / "g")
    with pytest.raises(CoverageError, match="measured with other axes"):
        combine_coverage([data, CoverageData.empty(data.catalogue, BUILT_IN)])
    with pytest.raises(CoverageError, match="measured with another catalogue"):
        combine_coverage([data, CoverageData(catalogue="other", axes=data.axes)])
    with pytest.raises(CoverageError, match="nothing to combine"):
        combine_coverage([])
    with pytest.raises(CoverageError, match="measured without the axis 'position'"):
        CoverageNumbers(data, CoverageLock(axes=["position"]), Catalogue.load())


# -- the lock -------------------------------------------------------------------------------------------------------


def test_the_lock_file_reads_back_as_written(tmp_path: Path) -> None:
    """Rules, thresholds, waivers and log; and the same bytes again."""
    lock = make_lock(NO_PARTIAL, NO_LINK_AT_BEGIN)
    lock.ratchet("c1", 12.5, by="a", day=DAY, reason='reached "it"')
    lock.waive(Waiver(name="begin in orders=none", last_day=DAY, reason="later", by="b"), day=DAY)
    path = tmp_path / "state-coverage.toml"
    lock.write(path)
    restored_lock = read_lock(path)
    assert restored_lock == lock
    assert restored_lock.to_toml() == path.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: text.index("[[rule]]")] + text[text.index("[[log]]") :], "is gone without a reason"),
        (lambda text: text.replace("c1 = 12.5", "c1 = 2.5"), "threshold c1: was changed by hand"),
        (lambda text: text.replace('"none", "unfilled"', '"none", "both"'), "is not what was accepted"),
        (lambda text: text.replace('\nby = "somebody"', '\nby = "another"', 1), "was changed by hand"),
        (lambda text: text[: text.index("[[log]]")], "nobody has accepted it"),
        (
            lambda text: text.replace('"carried-partial", "link"]', '"carried-partial", "links"]'),
            "no axis is called 'links'",
        ),
        (lambda text: text.replace("version = 2", "version = 7"), "this Holdover reads version 2"),
        (lambda text: text + "\n[[", "not a TOML file"),
        (lambda text: text.replace("axes = ", "axis = "), "axis"),
    ],
)
def test_a_lock_changed_by_hand_is_refused(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    """What the log does not record has no force, and the message says what to do."""
    lock = make_lock(NO_PARTIAL)
    lock.ratchet("c1", 12.5, by="a", day=DAY, reason="reached")
    path = tmp_path / "state-coverage.toml"
    path.write_text(change(lock.to_toml()))
    with pytest.raises(LockError, match=message):
        read_lock(path)


def test_a_rule_is_retired_with_a_reason(tmp_path: Path) -> None:
    """The set shrinks only so; and what was done stays in the log."""
    lock = make_lock(NO_PARTIAL)
    with pytest.raises(LockError, match="--reason is empty"):
        lock.retire(NO_PARTIAL.name, by="a", day=DAY, reason=" ")
    with pytest.raises(LockError, match="no rule is called 'x'"):
        lock.retire("x", by="a", day=DAY, reason="r")
    lock.retire(NO_PARTIAL.name, by="a", day=DAY, reason="it was reached")
    lock.write(tmp_path / "l.toml")
    assert [entry.action for entry in read_lock(tmp_path / "l.toml").log] == ["accepted", "retired"]


def test_what_was_never_reached_is_proposed(tmp_path: Path, catalogue: Catalogue) -> None:
    """A pair never seen together and a value never found at a transition; accepted ones are not proposed again."""
    data = CoverageData.empty("c", THREE_AXES)
    witness = CellWitness(0, "t")
    for cell in ("000", "100", "201", "211"):
        data.add_visit(cell, 30, witness)
        data.add_transition("begin", "000", 10, witness)
    names = {proposal.rule.name: proposal for proposal in propose_rules(CoverageNumbers(data, make_lock(), catalogue))}
    assert "no-orders-none-with-carried-partial-yes" in names
    assert "no-link-up-at-begin" in names
    assert names["no-link-up-at-begin"].removed_places == 8
    assert names["no-orders-none-with-carried-partial-yes"].removed_places == 12 * 2
    rule = replace(names["no-link-up-at-begin"].rule, reason="not connected yet")
    numbers = CoverageNumbers(data, make_lock(rule), catalogue)
    assert "no-link-up-at-begin" not in {proposal.rule.name for proposal in propose_rules(numbers)}


# -- production -----------------------------------------------------------------------------------------------------


def write_production_journal(directory: Path, catalogue: Catalogue) -> Path:
    """A journal of a guard that was restarted with an order in flight."""
    guard = Guard(
        directory, catalogue=catalogue, clock=lambda: 1, channels=[], journal=Journal(directory / "journal.jsonl")
    )
    guard.boundary("begin", "2024-01-02")
    guard.record("gateway", LINK_UP)
    guard.record("orders", replace(NEW, ord_status=OrdStatus.PENDING_CANCEL))
    guard.boundary("restart", "2024-01-02")
    guard.close()
    return directory / "journal.jsonl"


def test_a_journal_gives_the_cells_that_its_guard_counted(tmp_path: Path, catalogue: Catalogue) -> None:
    """Reading the journal back comes to the very cells."""
    path = write_production_journal(tmp_path, catalogue)
    data = build_profile([path], catalogue.digest)
    assert {label: list(cells) for label, cells in data.transitions.items()} == {
        "begin": ["00000000000"],
        "restart:kill": ["10100221100"],
    }
    numbers = CoverageNumbers(data, CoverageLock(), catalogue)
    kill = next(line for line in numbers.lines if line.label == "restart:kill")
    assert [numbers.product.place_name(cell) for cell in kill.covered] == [
        "being in orders=unfilled, carried-partial=no, in-flight=cancel, unacknowledged=none, link=up, "
        "reconciliation=pending"
    ]


def test_the_gap_is_named_waived_and_comes_back(tmp_path: Path, catalogue: Catalogue) -> None:
    """What production alone has seen; a waiver lets it pass up to its date, and not a day longer."""
    production_data = build_profile([write_production_journal(tmp_path, catalogue)], catalogue.digest)
    lock = CoverageLock()
    numbers = CoverageNumbers(
        CoverageData.empty(catalogue.digest, axes_in_use()), lock, catalogue, profile=production_data
    )
    open_, _ = numbers.unwaived_gaps(DAY)
    names = [gap.name for gap in open_]
    kill = next(name for name in names if name.startswith("restart:kill in orders=unfilled"))
    for name in names:
        lock.waive(Waiver(name=name, last_day=date(2024, 2, 1), reason="next sprint", by="me"), day=DAY)
    assert numbers.unwaived_gaps(date(2024, 2, 1)) == ([], [])
    late, expired = numbers.unwaived_gaps(date(2024, 2, 2))
    assert [gap.name for gap in late] == names
    assert f"the waiver of {kill} ran out on 2024-02-01" in expired
    covered = CoverageNumbers(production_data, lock, catalogue, profile=production_data)
    assert covered.carry_gaps == []


def test_the_guards_own_counter_goes_on_over_restarts(tmp_path: Path, catalogue: Catalogue) -> None:
    """Kept in a file beside the memory, with how the process ended; damaged, it is set aside and trading goes on."""
    config = tmp_path / "desk.toml"
    config.write_text('[guard]\ndirectory = "guard"\njournal = false\n')
    guard = Guard.open(config)
    guard.record("orders", NEW)
    guard.boundary("begin", "2024-01-02")
    guard.save_memory()
    guard.close()
    cells_path = tmp_path / "guard" / "cells.json"
    assert not json.loads(cells_path.read_bytes())["running"]
    second_guard = Guard.open(config)
    assert current_cell(second_guard.cells)["orders"] == "unfilled"
    second_guard.boundary("restart", "2024-01-02")
    assert second_guard.services.background.drain()
    assert json.loads(cells_path.read_bytes())["running"]
    third = Guard.open(config)  # the second one was never closed: it was killed
    third.boundary("restart", "2024-01-02")
    third.close()
    second_guard.close()
    data = build_profile([tmp_path / "guard"], catalogue.digest)
    assert data.catalogue == catalogue.digest
    assert {label: sum(visit.count for visit in cells.values()) for label, cells in data.transitions.items()} == {
        "begin": 1,
        "restart:clean": 1,
    }
    cells_path.write_bytes(b"{broken")
    Guard.open(config).close()
    assert (tmp_path / "guard" / "cells.aside").exists()


JOURNAL_HEADER = b'{"format":"holdover-journal","version":2}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"magic": "holdover-cells", "version": 1', "cut off or damaged"),
        (b'{"magic": "holdover-cells", "version": 9, "axes": []}', "version 9"),
        (
            b'{"magic":"holdover-cells","version":1,"catalogue":"c","axes":[],"visits":{},"transitions":[],"pairs":[]}',
            "other axes",
        ),
        (b"[1]\n[2]\n", "does not begin with the header of a journal"),
        (b'{"format":"holdover-journal","version":1}\n', "a journal of version 1; this build reads version 2"),
        (JOURNAL_HEADER + b"[1]\n[2]\n", "line 2 is no journal line"),
        (JOURNAL_HEADER + b"not json\nat all\n", "line 2 is no journal line"),
        (JOURNAL_HEADER + b'{"seq": 1}\n', "no journal: there is no mutation"),
        (
            JOURNAL_HEADER
            + b'{"seq":1,"time_ns":1,"subsystem":"orders","kind":"Order","record":{"side":"9"},"cause":""}\n',
            "line 2: Order",
        ),
    ],
)
def test_a_source_that_is_none_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """With its name and, where there is one, its line."""
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(CoverageError, match=message):
        build_profile([path], "c")


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Neither a missing file nor an empty folder passes for a production without any cell."""
    with pytest.raises(CoverageError, match="no such file"):
        build_profile([tmp_path / "nowhere"], "c")
    with pytest.raises(CoverageError, match="no journal"):
        build_profile([tmp_path], "c")


def make_numbers(data: CoverageData, catalogue: Catalogue, **options: Any) -> CoverageNumbers:
    """Under the default lock."""
    return CoverageNumbers(data, CoverageLock(axes=["orders", "carried-partial", "link"]), catalogue, **options)


def test_what_a_change_loses_is_named(tmp_path: Path, catalogue: Catalogue) -> None:
    """Against a base: the places and the pairs that are gone, in words; and what was won."""
    base, changed = measure_coverage(tmp_path / "a"), measure_coverage(tmp_path / "b", with_partial=False)
    numbers = make_numbers(changed, catalogue, base=base)
    assert numbers.lost_places[0].startswith(
        "overnight in orders=partial, carried-partial=yes, link=down (the night passes: "
    )
    assert len(numbers.lost_places) == 2
    assert len(numbers.gained_places) == 2
    assert make_numbers(base, catalogue, base=base).lost_places == []


def test_a_trial_that_is_undone_stays_counted(tmp_path: Path, catalogue: Catalogue) -> None:
    """What a trial has seen was seen; the axes, the way and the occasions go on from where it began."""
    with CoverageCollector(catalogue, THREE_AXES) as collector:
        store = FreezeStore.in_memory()
        guard = Guard(
            tmp_path, GuardSettings(axes=THREE_AXES), catalogue=catalogue, clock=lambda: 1, channels=[], store=store
        )
        guard.boundary("begin", "2024-01-02")
        guard.record("orders", NEW)
        checkpoint, before = guard.checkpoint(), current_cell(guard.cells)
        guard.record("orders", PARTIAL)
        guard.count_transition("restart", "torn")
        guard.rollback(checkpoint)
        assert current_cell(guard.cells) == before
        guard.count_transition("restart", "kill")
        collector.collect("trial")
    first_visits = {label: next(iter(cells.items())) for label, cells in collector.data.transitions.items()}
    assert first_visits["restart:torn"][0] != first_visits["restart:kill"][0]
    assert [step.partition("@")[0] for step in first_visits["restart:kill"][1].witness.path] == [
        "begin",
        "restart:kill",
    ]
    assert collector.data.invariants["order-quantity-conserved"] == {"100": 1, "210": 1}


def test_counting_never_stops_what_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An axis that raises stands still and is named; a counter that the disk does not take is only said."""
    monkeypatch.setattr("holdover.runtime.axes._REGISTERED", {})

    @declare("broken", values=("no", "yes"), reads=[("orders", Order)])
    def broken(record: Order) -> bool:
        raise ZeroDivisionError

    config = tmp_path / "desk.toml"
    config.write_text('[guard]\ndirectory = "guard"\njournal = false\n')
    with CoverageCollector(Catalogue.load()) as collector:
        guard = Guard.open(config)
        guard.record("orders", NEW)
        assert current_cell(guard.cells)["orders"] == "unfilled"
        assert guard.cells.failed_axes == ["broken"]
        (tmp_path / "guard" / "cells.part").mkdir()
        guard.boundary("begin", "2024-01-02")
        guard.close()
        collector.collect("t")
    assert collector.data.excluded_guards == {"a broken axis: broken": 1}
    assert guard.breaches == []


def test_a_cycle_writes_what_it_covers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the name of its schedule, the same bytes each time."""
    from holdover.cli import main

    for name in ("a", "b"):
        arguments = ["--instrument", "BOLT", "--days", "1", "--arm", "carried", "--state-cov", str(tmp_path / name)]
        assert main(["cycle", "--out", str(tmp_path / "out"), *arguments]) == 0
    capsys.readouterr()
    data = read_coverage(tmp_path / "a")
    assert {"begin", "disconnect", "restart:kill", "overnight"} <= set(data.transitions)
    assert {visit.witness.source for cells in data.transitions.values() for visit in cells.values()} == {
        "schedule default"
    }
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
