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
    BadCoverage,
    BadLock,
    Collector,
    Data,
    Lock,
    Numbers,
    Rule,
    Seen,
    Waiver,
    Witness,
    combine,
    decode,
    profile,
    propose,
    read,
    read_lock,
)
from holdover.coverage.numbers import possible_pairs
from holdover.coverage.reads import fields_of, fields_read
from holdover.harness.session import RESTARTS
from holdover.model import SYSTEM, Book, Link, Order, OrdStatus, Position, TimeInForce
from holdover.runtime import BadAxis, CellCounter, FreezeStore, Guard, Journal
from holdover.runtime.axes import BUILT_IN, Axis, CarriedPartial, LinkUp, OrdersOpen, axes_in_use, register
from holdover.runtime.axes import axis as declare
from holdover.runtime.cells import RESTART_KINDS, TRANSITIONS

from .orders import order

DAY = date(2024, 1, 2)
THREE: list[type[Axis]] = [OrdersOpen, CarriedPartial, LinkUp]
"""4 x 2 x 2 values: sixteen cells."""
NO_PARTIAL = Rule(
    name="partial-is-partial",
    reason="by definition",
    when={"carried-partial": ["yes"], "orders": ["none", "unfilled"]},
)
NO_LINK_AT_BEGIN = Rule(name="no-link-yet", reason="not connected", when={"link": ["up"]}, transitions=["begin"])
NEW = order(account="A", strategy="S", ord_status=OrdStatus.NEW, time_in_force=TimeInForce.GTC)
PARTIAL = replace(NEW, ord_status=OrdStatus.PARTIALLY_FILLED, cum_qty=10, leaves_qty=NEW.order_qty - 10)
UP = Link(name="V", up=True, epoch=1)


def accepted(*rules: Rule, axes: list[str] | None = None) -> Lock:
    """A lock file with these rules."""
    lock = Lock(axes=axes or ["orders", "carried-partial", "link"])
    for rule in rules:
        lock.accept(rule, by="somebody", on=DAY)
    return lock


def measured(place: Path, *, with_partial: bool = True) -> Data:
    """A small subject with three axes: a session, an order, a partial fill, a cut, a kill, a night."""
    catalogue = Catalogue.load()
    with Collector(catalogue, THREE) as collector:
        guard = Guard(place, catalogue=catalogue, clock=lambda: 1, channels=[], axes=THREE)
        guard.boundary("begin", "2024-01-02")
        guard.record("gateway", UP)
        guard.record("orders", NEW)
        guard.boundary("disconnect", "2024-01-02")
        if with_partial:
            guard.record("orders", PARTIAL)
        guard.transition("restart", "torn")
        guard.boundary("overnight", "2024-01-02")
        collector.take("by hand")
    return collector.data


# -- by hand --------------------------------------------------------------------------------------------------------


def test_a_count_by_hand_agrees(tmp_path: Path, catalogue: Catalogue) -> None:
    """Three axes, sixteen cells, two rules: numerator and denominator are those on paper.

    Of 4 x 2 x 2 cells, those with a partial fill carried and no partial order are out: 2 x 1 x 2 of them, so 12 are
    left. A session cannot begin with the link up: of its 12, those with the link up are out, so 6. Twelve transitions
    make 11 x 12 + 6 = 138 places. Covered are begin (nothing open, down), disconnect (unfilled, up), restart:torn
    (partial, carried, up) and overnight (partial, carried, down: a restarted process has no link).
    """
    numbers = Numbers(measured(tmp_path), accepted(NO_PARTIAL, NO_LINK_AT_BEGIN), catalogue)
    assert len(numbers.product.cells) == 16
    assert (numbers.c1.done, numbers.c1.of) == (4, 11 * 12 + 6)
    covered = {line.label: [numbers.product.name(cell) for cell in line.covered] for line in numbers.lines}
    assert {label: names for label, names in covered.items() if names} == {
        "begin": ["being in orders=none, carried-partial=no, link=down"],
        "disconnect": ["being in orders=unfilled, carried-partial=no, link=up"],
        "overnight": ["being in orders=partial, carried-partial=yes, link=down"],
        "restart:torn": ["being in orders=partial, carried-partial=yes, link=up"],
    }
    assert (numbers.pairs.done, numbers.pairs.of) == (3, len(possible_pairs()))
    assert numbers.wrong == []
    visited = numbers.product.project(numbers.data, numbers.data.visits)
    assert {numbers.product.name(cell): seen.count for cell, seen in visited.items()} == {
        "being in orders=none, carried-partial=no, link=down": 1,
        "being in orders=none, carried-partial=no, link=up": 1,
        "being in orders=unfilled, carried-partial=no, link=up": 1,
        "being in orders=partial, carried-partial=yes, link=up": 1,
        "being in orders=partial, carried-partial=yes, link=down": 1,
    }


def test_pairs_follow_the_lifecycle() -> None:
    """Nothing follows a night but a beginning, and every transition both follows and is followed."""
    pairs = possible_pairs()
    assert [other for one, other in pairs if one == "overnight"] == ["begin"]
    assert {one for one, _ in pairs} == {other for _, other in pairs} == set(TRANSITIONS)
    # begin, disconnect, reconnect: 7 restarts, end, one of the cut; end: overnight, 7 restarts; restarts: 11 each.
    assert len(pairs) == 3 * 9 + 8 + 1 + 7 * 11


def test_a_wrong_rule_is_found_by_the_run_that_reaches_it(tmp_path: Path, catalogue: Catalogue) -> None:
    """The denominator is wrong, says the run, and names the rule, the place and the test."""
    wrong = Rule(
        name="never-cut-with-an-order", reason="we hope", when={"orders": ["unfilled"]}, transitions=["disconnect"]
    )
    never = Rule(name="never-partial", reason="we hope", when={"orders": ["partial"]})
    numbers = Numbers(measured(tmp_path), accepted(wrong, never), catalogue)
    said = [str(one) for one in numbers.wrong]
    assert any(
        "rule never-cut-with-an-order" in one and "by hand reached it: disconnect in orders=unfilled" in one
        for one in said
    )
    assert sum("rule never-partial" in one for one in said) == 2
    assert all(one.startswith("denominator wrong: ") for one in said)


def test_what_a_rule_forbids_is_not_counted_as_covered(tmp_path: Path, catalogue: Catalogue) -> None:
    """The place that a wrong rule takes out of the denominator is not in the numerator either."""
    rule = Rule(name="never", reason="we hope", when={"orders": ["unfilled"]}, transitions=["disconnect"])
    numbers = Numbers(measured(tmp_path), accepted(rule), catalogue)
    assert (numbers.c1.done, numbers.c1.of) == (3, 12 * 16 - 4)


def test_the_shortest_way_wins(tmp_path: Path, catalogue: Catalogue) -> None:
    """A place keeps the way with the fewest transitions, and says what came on it."""
    data = measured(tmp_path / "long")
    cell, torn = next(iter(data.transitions["restart:torn"].items()))
    assert torn.witness.length == 3
    assert [step.partition("@")[0] for step in torn.witness.path] == ["begin", "disconnect", "restart:torn"]
    shorter = Witness(1, "other")
    data.add_transition("restart:torn", cell, 1, shorter)
    assert data.transitions["restart:torn"][cell] == Seen(2, shorter)


def test_the_nearest_says_what_differs(tmp_path: Path, catalogue: Catalogue) -> None:
    """For a missing place: the covered one that differs least, and in what, in words."""
    numbers = Numbers(measured(tmp_path), accepted(NO_PARTIAL), catalogue)
    near = numbers.nearest("restart:torn", ("both", "yes", "up"))
    assert near is not None
    assert (near.label, near.cell) == ("restart:torn", ("partial", "yes", "up"))
    assert near.differs == ["open orders partly filled (wanted: open orders unfilled and partial)"]
    assert Numbers(Data.empty("", BUILT_IN), Lock(), catalogue).nearest("end", ("none",) * 6) is None


# -- axes -----------------------------------------------------------------------------------------------------------


def here(counter: CellCounter) -> dict[str, str]:
    """The present cell."""
    return {one.name: one.values[one.value] for one in counter.axes}


def test_every_built_in_axis_follows_what_is_recorded(make_guard: Callable[..., Guard]) -> None:
    """From a fresh system through a day with a carried order, a breach by hand, a restart and a second session."""
    guard = make_guard()
    assert set(here(guard.cells).values()) == {"none", "no", "flat", "down", "before", "pending", "nothing"}
    guard.boundary("begin", "2024-01-02")
    mine = replace(NEW, trade_date="2024-01-02", ord_status=OrdStatus.PENDING_NEW)
    guard.record("orders", mine)
    assert here(guard.cells)["unacknowledged"] == "some"
    assert here(guard.cells)["age"] == "today"
    day = order(root_cl_ord_id="B", cl_ord_id="B", ord_status=OrdStatus.PENDING_CANCEL, account="A", strategy="S")
    guard.record("orders", day)
    guard.record("orders", replace(PARTIAL, trade_date="2024-01-02"))
    guard.record("positions", Position(account="A", symbol="X", net_qty=-1))
    guard.record("positions", Position(account="A", symbol="Y", net_qty=1))
    now = here(guard.cells)
    assert (now["orders"], now["carried-partial"], now["in-flight"]) == ("both", "yes", "cancel")
    assert (now["unacknowledged"], now["position"], now["tif"], now["session"]) == ("none", "both", "both", "open")
    guard.freeze("account:A", operator="op", reason="test")
    assert here(guard.cells)["freeze"] == "part"
    guard.freeze(SYSTEM, operator="op", reason="test")
    assert here(guard.cells)["freeze"] == "system"
    guard.thaw(SYSTEM, operator="op", reason="r", evidence="e")
    assert here(guard.cells)["freeze"] == "part"
    for boundary in ("end", "overnight", "begin"):
        guard.boundary(boundary, "2024-01-03" if boundary == "begin" else "2024-01-02")
    assert here(guard.cells)["age"] == "one"
    guard.boundary("begin", "2024-01-04")
    assert here(guard.cells)["age"] == "more"
    assert len(guard.cells.visits) > 8


def test_a_restart_takes_the_link_down_until_it_is_said_again() -> None:
    """What a dead process last said of its link is not believed, though the record stays."""
    counter = CellCounter()
    watch, depends = counter.watch(("gateway", Link))
    assert watch is not None
    assert depends == ("r.up", "r.epoch")
    watch(None, UP)
    assert here(counter)["link"] == "up"
    counter.transition("restart", "kill")
    assert here(counter)["link"] == "down"
    watch(UP, replace(UP, epoch=2))
    assert here(counter)["link"] == "up"


def test_axes_agree_with_a_count_over_all_records(make_guard: Callable[..., Guard]) -> None:
    """After many changes the incremental value is what a walk over every record gives."""
    guard = make_guard()
    statuses = [OrdStatus.PENDING_NEW, OrdStatus.NEW, OrdStatus.PENDING_CANCEL, OrdStatus.CANCELED]
    for number in range(200):
        key = f"K{number % 23}"
        status = statuses[(number * 7) % 4]
        tif = TimeInForce.GTC if number % 3 else TimeInForce.DAY
        guard.record("orders", order(root_cl_ord_id=key, cl_ord_id=key, ord_status=status, time_in_force=tif))
        kept = [one for one in guard.monitor.layout.tables["orders", Order].values() if isinstance(one, Order)]
        assert (here(guard.cells)["in-flight"] == "cancel") == any(o.ord_status == statuses[2] for o in kept)
        assert (here(guard.cells)["unacknowledged"] == "some") == any(o.ord_status == statuses[0] for o in kept)
        assert (here(guard.cells)["orders"] == "none") == (not any(o.is_open for o in kept))
        counter = guard.cells
        assert counter.cell_of(counter.code(counter.cell)) == counter.cell


def test_an_axis_of_ones_own(make_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch) -> None:
    """A few lines; and one that cannot be used is refused with what is wrong."""
    monkeypatch.setattr("holdover.runtime.axes._REGISTERED", {})

    @declare("halted", values=("no", "yes"), reads=[("gateway", Book)])
    def halted(book: Book) -> bool:
        return not book.trading

    guard = make_guard()
    guard.record("gateway", Book(symbol="X", trading=False))
    assert here(guard.cells)["halted"] == "yes"
    guard.record("gateway", Book(symbol="X", trading=True))
    assert here(guard.cells)["halted"] == "no"
    assert axes_in_use()[-1].words == ("halted no", "halted yes")
    with pytest.raises(BadAxis, match="2, 4 or 8"):
        declare("odd", values=("a", "b", "c"), reads=[("gateway", Book)])(lambda book: 0)
    with pytest.raises(BadAxis, match="taken by a built-in"):
        register(OrdersOpen)


def test_restart_kinds_are_those_of_the_harness() -> None:
    """The counter knows each kind of restart that a session can do."""
    assert RESTART_KINDS == RESTARTS
    assert {f"restart:{kind}" for kind in RESTARTS} <= set(TRANSITIONS)


# -- what invariants read -------------------------------------------------------------------------------------------


def test_fields_behind_properties_are_read() -> None:
    """`is_open` reads the status and the time in force; `key` what it is made of."""
    assert fields_of(Order, "is_open") == {"ord_status", "time_in_force"}
    assert fields_of(Order, "book_key") == {"account", "symbol"}
    assert fields_of(Order, "no_such_thing") == frozenset()


def test_fields_of_a_predicate(catalogue: Catalogue) -> None:
    """Of the anchor, of what it is joined with, and of a total's records."""
    read_ = fields_read(catalogue, ["order-quantity-conserved"])
    assert read_ == {
        (None, "Order", name) for name in ("leaves_qty", "order_qty", "cum_qty", "ord_status", "time_in_force")
    }
    summed = fields_read(catalogue, ["position-equals-carried-plus-fills"])
    assert {("positions", "Position", "net_qty"), ("orders", "Execution", "qty_delta")} <= summed


def test_checked_state_and_occasions(tmp_path: Path, catalogue: Catalogue) -> None:
    """A field that is written and read counts; an invariant without occasion is VACUOUS or UNKNOWN."""
    numbers = Numbers(measured(tmp_path), accepted(), catalogue)
    assert "orders.Order.leaves_qty" in numbers.checked_fields
    assert set(numbers.checked_fields) | set(numbers.unchecked_fields) == numbers.data.written
    states = {one.invariant: one.state for one in numbers.occasions}
    assert states["order-quantity-conserved"] == "ACTIVE"
    assert states["positions-agree"] == "UNKNOWN"
    assert states["replace-chain-unbroken"] == "VACUOUS"
    cells = next(one.cells for one in numbers.occasions if one.invariant == "order-quantity-conserved")
    assert sum(cells.values()) == 2
    assert len(cells) == 2


# -- the file -------------------------------------------------------------------------------------------------------

WITNESSES = st.builds(Witness, st.integers(0, 3), st.sampled_from("ab"), st.just(()))
SEEN = st.builds(Seen, st.integers(1, 9), WITNESSES)
CELLS = st.dictionaries(st.sampled_from(["000", "100", "311"]), SEEN, max_size=3)
DATA = st.builds(
    lambda visits, transitions, pairs, occasions, written: Data(
        catalogue="c",
        axes=Data.empty("c", THREE).axes,
        visits=visits,
        transitions=transitions,
        pairs=pairs,
        invariants=occasions,
        written=written,
        recorded={name.rpartition(".")[0] for name in written},
    ),
    CELLS,
    st.dictionaries(st.sampled_from(["begin", "restart:kill"]), CELLS, max_size=2),
    st.dictionaries(st.sampled_from(["begin > end", "end > overnight"]), SEEN, max_size=2),
    st.dictionaries(
        st.sampled_from("xy"), st.dictionaries(st.sampled_from(["000", "311"]), st.integers(1, 5)), max_size=2
    ),
    st.sets(st.sampled_from(["orders.Order.price", "orders.Order.cum_qty", "risk.Exposure.net_qty"])),
)


@settings(max_examples=60, deadline=None)
@given(DATA, DATA, DATA)
def test_combine_is_associative_and_commutative(one: Data, two: Data, three: Data) -> None:
    """In whatever order and grouping runs are joined, the bytes are the same."""
    together = combine([one, two, three]).encode()
    assert combine([combine([one, two]), three]).encode() == together
    assert combine([one, combine([two, three])]).encode() == together
    assert combine([three, one, two]).encode() == together
    assert decode(together, "x").encode() == together


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """The file holds nothing of when or where it was made."""
    assert measured(tmp_path / "a").encode() == measured(tmp_path / "b").encode()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[: len(text) // 2], "is cut off or damaged"),
        (lambda text: b"", "is empty"),
        (lambda text: b'{"some": "json"}', "is no coverage file"),
        (lambda text: b"\x00\x01 not json", "is no coverage file"),
        (lambda text: text.replace(b'"version": 1', b'"version": 2'), "needs a newer Holdover"),
        (lambda text: text.replace(b"restart:torn", b"restart:kill"), "is damaged"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes], said: str) -> None:
    """Cut off, empty, foreign, newer, changed: each is told by its name and in a sentence."""
    path = tmp_path / "cov.json"
    path.write_bytes(spoil(measured(tmp_path / "g").encode()))
    with pytest.raises(BadCoverage, match=said) as refused:
        read(path)
    assert str(refused.value).startswith("cov.json: ")


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    """Other axes, another catalogue, no file at all."""
    one = measured(tmp_path / "g")
    with pytest.raises(BadCoverage, match="measured with other axes"):
        combine([one, Data.empty(one.catalogue, BUILT_IN)])
    with pytest.raises(BadCoverage, match="measured with another catalogue"):
        combine([one, Data(catalogue="other", axes=one.axes)])
    with pytest.raises(BadCoverage, match="nothing to combine"):
        combine([])
    with pytest.raises(BadCoverage, match="measured without the axis 'position'"):
        Numbers(one, Lock(axes=["position"]), Catalogue.load())


# -- the lock -------------------------------------------------------------------------------------------------------


def test_the_lock_file_reads_back_as_written(tmp_path: Path) -> None:
    """Rules, thresholds, waivers and log; and the same bytes again."""
    lock = accepted(NO_PARTIAL, NO_LINK_AT_BEGIN)
    lock.ratchet("c1", 12.5, by="a", on=DAY, reason='reached "it"')
    lock.waive(Waiver(name="begin in orders=none", until=DAY, reason="later", by="b"), on=DAY)
    path = tmp_path / "state-coverage.toml"
    lock.write(path)
    back = read_lock(path)
    assert back == lock
    assert back.text() == path.read_text()


@pytest.mark.parametrize(
    ("change", "said"),
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
        (lambda text: text.replace("version = 1", "version = 7"), "this Holdover reads version 1"),
        (lambda text: text + "\n[[", "not a TOML file"),
        (lambda text: text.replace("axes = ", "axis = "), "axis"),
    ],
)
def test_a_lock_changed_by_hand_is_refused(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    """What the log does not record has no force, and the message says what to do."""
    lock = accepted(NO_PARTIAL)
    lock.ratchet("c1", 12.5, by="a", on=DAY, reason="reached")
    path = tmp_path / "state-coverage.toml"
    path.write_text(change(lock.text()))
    with pytest.raises(BadLock, match=said):
        read_lock(path)


def test_a_rule_is_retired_with_a_reason(tmp_path: Path) -> None:
    """The set shrinks only so; and what was done stays in the log."""
    lock = accepted(NO_PARTIAL)
    with pytest.raises(BadLock, match="--reason is empty"):
        lock.retire(NO_PARTIAL.name, by="a", on=DAY, reason=" ")
    with pytest.raises(BadLock, match="no rule is called 'x'"):
        lock.retire("x", by="a", on=DAY, reason="r")
    lock.retire(NO_PARTIAL.name, by="a", on=DAY, reason="it was reached")
    lock.write(tmp_path / "l.toml")
    assert [act.act for act in read_lock(tmp_path / "l.toml").log] == ["accepted", "retired"]


def test_what_was_never_reached_is_proposed(tmp_path: Path, catalogue: Catalogue) -> None:
    """A pair never seen together and a value never found at a transition; accepted ones are not proposed again."""
    data = Data.empty("c", THREE)
    way = Witness(0, "t")
    for cell in ("000", "100", "201", "211"):
        data.add_visit(cell, 30, way)
        data.add_transition("begin", "000", 10, way)
    names = {one.rule.name: one for one in propose(Numbers(data, accepted(), catalogue))}
    assert "no-orders-none-with-carried-partial-yes" in names
    assert "no-link-up-at-begin" in names
    assert names["no-link-up-at-begin"].removes == 8
    assert names["no-orders-none-with-carried-partial-yes"].removes == 12 * 2
    rule = replace(names["no-link-up-at-begin"].rule, reason="not connected yet")
    again = {one.rule.name for one in propose(Numbers(data, accepted(rule), catalogue))}
    assert "no-link-up-at-begin" not in again


# -- production -----------------------------------------------------------------------------------------------------


def production(place: Path, catalogue: Catalogue) -> Path:
    """A journal of a guard that was restarted with an order in flight."""
    guard = Guard(place, catalogue=catalogue, clock=lambda: 1, channels=[], journal=Journal(place / "journal.jsonl"))
    guard.boundary("begin", "2024-01-02")
    guard.record("gateway", UP)
    guard.record("orders", replace(NEW, ord_status=OrdStatus.PENDING_CANCEL))
    guard.boundary("restart", "2024-01-02")
    guard.close()
    return place / "journal.jsonl"


def test_a_journal_gives_the_cells_that_its_guard_counted(tmp_path: Path, catalogue: Catalogue) -> None:
    """Reading the journal back comes to the very cells."""
    path = production(tmp_path, catalogue)
    found = profile([path], catalogue.digest)
    assert {label: list(cells) for label, cells in found.transitions.items()} == {
        "begin": ["00000000000"],
        "restart:kill": ["10100221100"],
    }
    numbers = Numbers(found, Lock(), catalogue)
    kill = next(line for line in numbers.lines if line.label == "restart:kill")
    assert [numbers.product.name(cell) for cell in kill.covered] == [
        "being in orders=unfilled, carried-partial=no, in-flight=cancel, unacknowledged=none, link=up, "
        "reconciliation=pending"
    ]


def test_the_gap_is_named_waived_and_comes_back(tmp_path: Path, catalogue: Catalogue) -> None:
    """What production alone has seen; a waiver lets it pass up to its date, and not a day longer."""
    seen = profile([production(tmp_path, catalogue)], catalogue.digest)
    lock = Lock()
    numbers = Numbers(Data.empty(catalogue.digest, axes_in_use()), lock, catalogue, profile=seen)
    open_, _ = numbers.unwaived(DAY)
    names = [gap.name for gap in open_]
    kill = next(name for name in names if name.startswith("restart:kill in orders=unfilled"))
    for name in names:
        lock.waive(Waiver(name=name, until=date(2024, 2, 1), reason="next sprint", by="me"), on=DAY)
    assert numbers.unwaived(date(2024, 2, 1)) == ([], [])
    late, expired = numbers.unwaived(date(2024, 2, 2))
    assert [gap.name for gap in late] == names
    assert f"the waiver of {kill} ran out on 2024-02-01" in expired
    covered = Numbers(seen, lock, catalogue, profile=seen)
    assert covered.gap == []


def test_the_guards_own_counter_goes_on_over_restarts(tmp_path: Path, catalogue: Catalogue) -> None:
    """Kept in a file beside the memory, with how the process ended; damaged, it is set aside and trading goes on."""
    config = tmp_path / "desk.toml"
    config.write_text('[guard]\ndirectory = "guard"\njournal = false\n')
    guard = Guard.open(config)
    guard.record("orders", NEW)
    guard.boundary("begin", "2024-01-02")
    guard.remember()
    guard.close()
    kept = tmp_path / "guard" / "cells.json"
    assert not json.loads(kept.read_bytes())["running"]
    again = Guard.open(config)
    assert here(again.cells)["orders"] == "unfilled"
    again.boundary("restart", "2024-01-02")
    assert json.loads(kept.read_bytes())["running"]
    third = Guard.open(config)  # the second one was never closed: it was killed
    third.boundary("restart", "2024-01-02")
    third.close()
    again.close()
    found = profile([tmp_path / "guard"], catalogue.digest)
    assert found.catalogue == catalogue.digest
    assert {label: sum(one.count for one in cells.values()) for label, cells in found.transitions.items()} == {
        "begin": 1,
        "restart:clean": 1,
    }
    kept.write_bytes(b"{broken")
    Guard.open(config).close()
    assert (tmp_path / "guard" / "cells.aside").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"magic": "holdover-cells", "version": 1', "cut off or damaged"),
        (b'{"magic": "holdover-cells", "version": 9, "axes": []}', "version 9"),
        (
            b'{"magic":"holdover-cells","version":1,"catalogue":"c","axes":[],"visits":{},"transitions":[],"pairs":[]}',
            "other axes",
        ),
        (b"[1]\n[2]\n", "line 1 is no journal line"),
        (b"not json\nat all\n", "line 1 is no journal line"),
        (b'{"seq": 1}\n', "no journal: there is no mutation"),
        (
            b'{"seq":1,"time_ns":1,"subsystem":"orders","kind":"Order","record":{"side":"9"},"cause":""}\n',
            "line 1: Order",
        ),
    ],
)
def test_a_source_that_is_none_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    """With its name and, where there is one, its line."""
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadCoverage, match=said):
        profile([path], "c")


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Neither a missing file nor an empty folder passes for a production without any cell."""
    with pytest.raises(BadCoverage, match="no such file"):
        profile([tmp_path / "nowhere"], "c")
    with pytest.raises(BadCoverage, match="no journal"):
        profile([tmp_path], "c")


def numbers_of(data: Data, catalogue: Catalogue, **more: Any) -> Numbers:
    """Under the default lock."""
    return Numbers(data, Lock(axes=["orders", "carried-partial", "link"]), catalogue, **more)


def test_what_a_change_loses_is_named(tmp_path: Path, catalogue: Catalogue) -> None:
    """Against a base: the places and the pairs that are gone, in words; and what was won."""
    base, now = measured(tmp_path / "a"), measured(tmp_path / "b", with_partial=False)
    numbers = numbers_of(now, catalogue, base=base)
    assert numbers.lost[0].startswith("overnight in orders=partial, carried-partial=yes, link=down (the night passes: ")
    assert len(numbers.lost) == 2
    assert len(numbers.won) == 2
    assert numbers_of(base, catalogue, base=base).lost == []


def test_a_trial_that_is_undone_stays_counted(tmp_path: Path, catalogue: Catalogue) -> None:
    """What a trial has seen was seen; the axes, the way and the occasions go on from where it began."""
    with Collector(catalogue, THREE) as collector:
        store = FreezeStore.in_memory()
        guard = Guard(tmp_path, catalogue=catalogue, clock=lambda: 1, channels=[], axes=THREE, store=store)
        guard.boundary("begin", "2024-01-02")
        guard.record("orders", NEW)
        kept, before = guard.keep(), here(guard.cells)
        guard.record("orders", PARTIAL)
        guard.transition("restart", "torn")
        guard.put_back(kept)
        assert here(guard.cells) == before
        guard.transition("restart", "kill")
        collector.take("trial")
    found = {label: next(iter(cells.items())) for label, cells in collector.data.transitions.items()}
    assert found["restart:torn"][0] != found["restart:kill"][0]
    assert [step.partition("@")[0] for step in found["restart:kill"][1].witness.path] == ["begin", "restart:kill"]
    assert collector.data.invariants["order-quantity-conserved"] == {"100": 1, "210": 1}


def test_counting_never_stops_what_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An axis that raises stands still and is named; a counter that the disk does not take is only said."""
    monkeypatch.setattr("holdover.runtime.axes._REGISTERED", {})

    @declare("broken", values=("no", "yes"), reads=[("orders", Order)])
    def broken(record: Order) -> bool:
        raise ZeroDivisionError

    config = tmp_path / "desk.toml"
    config.write_text('[guard]\ndirectory = "guard"\njournal = false\n')
    with Collector(Catalogue.load()) as collector:
        guard = Guard.open(config)
        guard.record("orders", NEW)
        assert here(guard.cells)["orders"] == "unfilled"
        assert guard.cells.broken == ["broken"]
        (tmp_path / "guard" / "cells.part").mkdir()
        guard.boundary("begin", "2024-01-02")
        guard.close()
        collector.take("t")
    assert collector.data.left_out == {"a broken axis: broken": 1}
    assert guard.breaches == []


def test_a_cycle_writes_what_it_covers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the name of its schedule, the same bytes each time."""
    from holdover.cli import main

    for name in ("a", "b"):
        told = ["--instrument", "BOLT", "--days", "1", "--arm", "carried", "--state-cov", str(tmp_path / name)]
        assert main(["cycle", "--out", str(tmp_path / "out"), *told]) == 0
    capsys.readouterr()
    data = read(tmp_path / "a")
    assert {"begin", "disconnect", "restart:kill", "overnight"} <= set(data.transitions)
    assert {one.witness.source for cells in data.transitions.values() for one in cells.values()} == {"schedule default"}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
