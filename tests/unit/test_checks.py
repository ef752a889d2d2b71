"""Impossible values are refused with a sentence, and the share of checks in state-bearing code may only grow."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import holdover
from holdover.catalogue import Boundary
from holdover.desk.config import DeskConfig
from holdover.desk.faults.fault import replace_methods
from holdover.desk.parents import _base36
from holdover.explore.corpus import Corpus, CorpusError, WitnessSummary
from holdover.explore.judge import TrialResult
from holdover.explore.pool import PoolError, make_process_pool
from holdover.explore.sweep import PieceLog, PieceResult, SweepError, kind_group
from holdover.explore.walk import SweepSpec
from holdover.explore.witness import ReachResult, Witnesses, truncate_schedule
from holdover.harness import disk
from holdover.harness.condition import Condition, PartialFill, nth
from holdover.harness.schedule import Operation, Schedule, ScheduleError
from holdover.harness.snapshot import Snapshot, SnapshotError, SnapshotInfo
from holdover.harness.subject_disk import SubjectDisk
from holdover.harness.tape import Tape
from holdover.model import (
    ExecType,
    ImpossibleStateError,
    Instrument,
    MsgType,
    OrdStatus,
    OrdType,
    Query,
    Request,
    Side,
    TimeInForce,
)
from holdover.runtime.axes import FreezeLevelAxis
from holdover.runtime.background import BackgroundWriter
from holdover.runtime.cells import CellCounter
from holdover.runtime.deadlines import Deadlines
from holdover.runtime.effort import EffortTracker, LinkEffort
from holdover.runtime.freeze_cache import make_memory_freeze
from holdover.runtime.freeze_store import FreezeStore, ThawRequest
from holdover.runtime.freeze_watcher import FreezeWatcher
from holdover.runtime.guard import Guard
from holdover.runtime.journal import FlightRecorder, Journal
from holdover.runtime.journal_replay import replay_journal
from holdover.runtime.metrics import Backlog, GuardCost
from holdover.runtime.reach import describe_missing
from holdover.runtime.recent import WindowCounter
from holdover.runtime.record_text import format_window
from holdover.runtime.table_copy import KeyLog, MutationCapture, TableCopier
from holdover.state import StateError
from holdover.world import SimulatedLink, TopOfBook, Venue, VenuePolicy, VirtualClock, WorkingOrder
from holdover.world.counterparts import Counterparts
from holdover.world.order_lifecycle import divide_exactly

X, Y = Instrument(symbol="X"), Instrument(symbol="Y")
DAY, OPEN_NS, CLOSE_NS = "2024-01-02", 1_000, 2_000_000

CHECKS_PER_FUNCTION = {"world": 0.417, "desk": 0.174, "harness": 0.235, "explore": 0.215, "runtime": 0.229}
"""Raise and assert statements a function, by package: a new value may be higher, never lower."""


def count_checks(package: str) -> float:
    functions = checks = 0
    for path in sorted((Path(holdover.__file__).parent / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            functions += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            checks += isinstance(node, ast.Raise | ast.Assert)
    return checks / functions


@pytest.mark.parametrize("package", CHECKS_PER_FUNCTION)
def test_the_checks_a_function_never_fall(package: str) -> None:
    assert count_checks(package) >= CHECKS_PER_FUNCTION[package]


@pytest.mark.parametrize("package", CHECKS_PER_FUNCTION)
def test_optimized_python_has_every_check(package: str) -> None:
    for path in sorted((Path(holdover.__file__).parent / package).rglob("*.py")):
        assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)], path


def make_venue(*, is_open: bool = True) -> Venue:
    venue = Venue(VirtualClock(OPEN_NS), [X, Y])
    if is_open:
        venue.begin(DAY, OPEN_NS, CLOSE_NS)
    return venue


def make_request(**fields: Any) -> Request:
    values: dict[str, Any] = {
        "msg_type": MsgType.NEW_ORDER_SINGLE,
        "cl_ord_id": "C1",
        "root_cl_ord_id": "C1",
        "symbol": "X",
        "side": Side.BUY,
        "order_qty": 10,
        "price": 100,
        "account": "A",
    }
    return Request(**values | fields)


def make_order(**fields: Any) -> WorkingOrder:
    values: dict[str, Any] = {
        "root_cl_ord_id": "C1",
        "cl_ord_id": "C1",
        "order_id": "O1",
        "account": "A",
        "symbol": "X",
        "side": Side.BUY,
        "order_qty": 10,
        "ord_type": OrdType.LIMIT,
        "time_in_force": TimeInForce.DAY,
        "entered": 1,
        "price": 100,
    }
    return WorkingOrder(**values | fields)


def make_link() -> SimulatedLink:
    venue = make_venue(is_open=False)
    return SimulatedLink(venue.reports.clock, venue, ["A"])


def make_entered(venue: Venue) -> WorkingOrder:
    return venue.lifecycle.enter_request(make_request())


def add_twice() -> None:
    book, order = TopOfBook(X), make_order()
    book.add_order(order)
    book.add_order(order)


def replace_ended() -> None:
    venue = make_venue()
    order = make_entered(venue)
    venue.lifecycle.close_order(order, OrdStatus.CANCELED, ExecType.CANCELED)
    venue.lifecycle.replace_order(order, make_request(cl_ord_id="C2"))


def enter_known_id() -> None:
    venue = make_venue()
    make_entered(venue)
    venue.roots["C2"] = "C1"
    venue.lifecycle.enter_request(make_request(cl_ord_id="C2"))


def fail_query() -> None:
    make_venue().receive(Query(msg_type=MsgType.POSITION_REPORT, req_id="Q1", account="A"))


WORLD_CHECKS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: VirtualClock(-1), ValueError, "a clock at -1 ns"),
    (lambda: VirtualClock(5).run_until(4), ValueError, "cannot go back to 4"),
    (lambda: VirtualClock().cancel_timer(1), ValueError, "no timer has the number 1; 0 were set"),
    (lambda: VirtualClock().register("", lambda name, args: None), ValueError, "name of their owner"),
    (lambda: TopOfBook(Instrument(symbol="")), ValueError, "an instrument with a symbol"),
    (lambda: TopOfBook(Instrument(symbol="X", price_increment=0)), ValueError, "price_increment is 0"),
    (lambda: TopOfBook(Y).add_order(make_order()), ImpossibleStateError, "this is the book of Y"),
    (add_twice, ImpossibleStateError, "rests in the book of X already"),
    (lambda: Venue(VirtualClock(), [X, X]), ValueError, "listed twice: X, X"),
    (lambda: make_venue(is_open=False).end(), ImpossibleStateError, "but none is open"),
    (lambda: make_venue(is_open=False).begin("", OPEN_NS, CLOSE_NS), ImpossibleStateError, "begins ''"),
    (lambda: make_venue(is_open=False).begin(DAY, CLOSE_NS, CLOSE_NS), ValueError, "should close later"),
    (lambda: make_venue().overnight(), ImpossibleStateError, "has not ended"),
    (lambda: make_venue(is_open=False).overnight({"Z": (2, 1)}), ValueError, "it has X, Y"),
    (lambda: make_venue(is_open=False).overnight({"X": (2, 0)}), ValueError, "both should be from 1 on"),
    (lambda: make_venue().receive(make_request(msg_type=MsgType.EXECUTION_REPORT)), ImpossibleStateError, "no request"),
    (fail_query, ImpossibleStateError, "no query"),
    (lambda: make_venue().manual_trade("A", "X", Side.BUY, 0, 1), ImpossibleStateError, "a manual trade of 0 X"),
    (lambda: make_venue().correct_trade("E1", -1, 1), ValueError, "should be from 0 on"),
    (lambda: make_venue().lifecycle.enter_request(make_request(order_qty=0)), ImpossibleStateError, "of 0 lots"),
    (enter_known_id, ImpossibleStateError, "ClOrdID C2 belongs to order C1"),
    (replace_ended, ImpossibleStateError, "is CANCELED and cannot be replaced"),
    (
        lambda: make_venue().matching.enter_order(make_order(ord_status=OrdStatus.CANCELED)),
        ImpossibleStateError,
        "cannot be entered",
    ),
    (
        lambda: make_venue().lifecycle.close_order(make_order(), OrdStatus.NEW, ExecType.CANCELED),
        ImpossibleStateError,
        "an open status",
    ),
    (lambda: divide_exactly(4, 0, "it"), ValueError, "should be from 1 on"),
    (lambda: VenuePolicy(latency_ns=-1), ValueError, "latency is -1 ns"),
    (lambda: VenuePolicy(heartbeat_ns=0), ValueError, "should be above 0"),
    (lambda: VenuePolicy(recovery="forget"), ValueError, "should be replay or drop"),  # type: ignore[arg-type]
    (lambda: make_venue().reports.send_cancel_reject(make_request(), None, "3"), ImpossibleStateError, "1 or 2"),
    (lambda: make_venue().reports.send_rejection(make_request(), 0, ""), ImpossibleStateError, "with text ''"),
    (lambda: make_link().logon(0), ValueError, "sequence numbers begin with 1"),
    (lambda: make_link().request_resend(0), ValueError, "sequence numbers begin with 1"),
    (lambda: make_link().refuse_logons("", 1), ValueError, "needs a reason"),
    (lambda: make_link()._timer("nap", ()), ImpossibleStateError, "no timer called 'nap'"),
    (lambda: Counterparts("name"), ValueError, "should be id or sequence"),  # type: ignore[arg-type]
    (lambda: Counterparts("id").count(reports=-1), ImpossibleStateError, "counts only grow"),
    (lambda: Counterparts("id").add_request("C1", "C1", make_request(), 1), ImpossibleStateError, "as number 1 of 0"),
]


def sweep_spec(**fields: Any) -> SweepSpec:
    return SweepSpec(**{"symbols": ["X"], "days": [DAY], "day": DAY} | fields)


TRIAL: dict[str, Any] = {"number": 1, "kind": "kill", "at": "sent", "n": 1, "time_ns": 0, "verdict": "unknown"}

EXPLORE_CHECKS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: make_process_pool(0), PoolError, "should be at least 1"),
    (lambda: PieceResult(low=0, high=2), ValueError, "points count from 1"),
    (lambda: PieceResult(low=2, high=2), ValueError, "points count from 1"),
    (lambda: PieceResult(low=1, high=2, counts={"kill/holds": 0}), ValueError, "never occurred"),
    (lambda: PieceResult(low=1, high=2, shared=1), ValueError, "1 shared of 0 trials"),
    (lambda: kind_group("nap"), SweepError, "no kind of trial is called 'nap'"),
    (lambda: sweep_spec(day="2024-01-03"), ValueError, "should be one of 2024-01-02"),
    (lambda: sweep_spec(kinds=["nap"]), ValueError, "no kind of trial is called nap"),
    (lambda: sweep_spec(begin_fraction=0.5, end_fraction=0.4), ValueError, "should be 0.0 to 1.0"),
    (lambda: sweep_spec(grid_ns=0), ValueError, "grid_ns is 0, should be above 0"),
    (lambda: TrialResult(**TRIAL | {"verdict": "good"}), ValueError, "is 'good', should be"),
    (lambda: TrialResult(**TRIAL | {"number": -1}), ValueError, "at point -1"),
    (lambda: WitnessSummary(sha256="", schedules=2, cells=1), ValueError, "2 witnesses of 1 cells"),
    (lambda: ReachResult(cells={}, marks=[], cost=-1), ValueError, "costs -1"),
    (lambda: truncate_schedule(Schedule(), (0, 1)), ValueError, "cannot end on day 0"),
    (lambda: Witnesses().add(Schedule(), []), ScheduleError, "this names none"),
]

HARNESS_CHECKS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: nth(0, PartialFill), ValueError, "should be from 1 on"),
    (lambda: Tape([], 0, 1, (0, -1)), ValueError, "event -1 on"),
    (lambda: Operation(at="second", do="nap").kind, ScheduleError, "no operation is called 'nap'"),
    (lambda: Operation(at="second", do="kill").time_ns(2, 2), ValueError, "should close after it opens"),
    (lambda: Schedule(version=1).save(Path("nowhere/x.json")), ScheduleError, "version 1 cannot be written"),
    (
        lambda: Snapshot(SnapshotInfo(trade_date=DAY, phase="open", time_ns=-1, catalogue=""), {}),
        SnapshotError,
        "a snapshot at -1 ns",
    ),
    (
        lambda: Snapshot(SnapshotInfo(trade_date=DAY, phase="open", time_ns=0, catalogue=""), {"": b""}),
        SnapshotError,
        "has no name",
    ),
    (lambda: disk.write_image({"../x": b""}, Path("nowhere")), ValueError, "outside nowhere"),
    (lambda: disk.copy_directory(Path("x"), Path("x")), ValueError, "onto itself"),
]

DESK_CHECKS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: _base36(-1), ImpossibleStateError, "cannot contain -1"),
    (lambda: DeskConfig(instruments=[X], strategies=[], link=""), ValueError, "should not be empty"),
    (lambda: replace_methods("engine", run=None), AttributeError, "a desk has no part 'engine'"),
    (lambda: replace_methods("orders"), AttributeError, "replaces no method"),
]


def make_store() -> FreezeStore:
    return FreezeStore.in_memory()


REQUEST = ThawRequest(number=0, scope="system", operator="ann", reason="r", evidence="e", answer="done")

RUNTIME_CHECKS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: Deadlines().restart_all(lambda number: 1, -1), StateError, "resume at -1 ns"),
    (lambda: make_store().freeze("", [], "ann", "r", 1), ValueError, "needs a scope and an operator"),
    (lambda: make_store().freeze("system", [], " ", "r", 1), ValueError, "needs a scope and an operator"),
    (lambda: make_store().freeze("system", ["buy"], "ann", "r", 1), ValueError, "cannot allow buy"),
    (lambda: make_store().freeze("system", [], "ann", "r", -1), ValueError, "at -1 ns"),
    (lambda: make_store().thaw("", "ann", "r", "e", "", 1), ValueError, "needs a scope"),
    (lambda: make_store().request_thaw(REQUEST, "guard", 1), ValueError, "with its answer: 'done'"),
    (lambda: make_store().answer_request(0, "", 1), ValueError, "they count from 1"),
    (lambda: make_store().deliveries_before(0, 0), ValueError, "at least 1"),
    (lambda: make_store().audit_rows_before(-1, 1), ValueError, "0 for the end"),
    (lambda: make_store().mark_delivered(0, 1), ValueError, "pages count from 1"),
    (lambda: make_store().acknowledge("k", " ", 1), ValueError, "needs an operator"),
    (lambda: make_store().resolve("k", "", 1), ValueError, "that resolves it"),
    (lambda: make_store().log_action("act", "", -1), ValueError, "of act at -1 ns"),
    (lambda: FreezeWatcher(lambda: None, -1), ValueError, "the bound is 0 or above"),
    (lambda: FlightRecorder(-1), ValueError, "a flight recorder of -1"),
    (lambda: FlightRecorder().describe_last(-1), ValueError, "the last -1 mutations"),
    (lambda: make_memory_freeze("i", [], 0, 1, "g"), ValueError, "breaches count from 1"),
    (lambda: Backlog(-1, 0), ValueError, "a backlog of -1 pages"),
    (lambda: GuardCost().add(-1), ValueError, "took -1 ns"),
    (lambda: CellCounter().encode_cell(-1), ValueError, "no cell has the number -1"),
    (lambda: CellCounter([]).encode_cell(1), ValueError, "the axes have fewer"),
    (lambda: FreezeLevelAxis().on_event("freeze", "half"), ValueError, "no freeze level is called 'half'"),
    (lambda: BackgroundWriter(0), ValueError, "room for at least 1"),
    (lambda: BackgroundWriter().submit("", lambda pace: None), ValueError, "work needs a name"),
    (lambda: BackgroundWriter().drain(-1), ValueError, "for -1 s"),
    (lambda: WindowCounter(0), ValueError, "needs a time"),
    (lambda: format_window(0), ValueError, "within 0 ns"),
    (lambda: describe_missing("orders"), ValueError, "'orders' names no table or field"),
    (lambda: describe_missing("orders.Order.price.x"), ValueError, "names no table or field"),
]


@pytest.mark.parametrize(
    ("attempt", "error", "sentence"),
    [*WORLD_CHECKS, *DESK_CHECKS, *HARNESS_CHECKS, *EXPLORE_CHECKS, *RUNTIME_CHECKS],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_an_impossible_value_is_refused(attempt: Callable[[], object], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as problem:
        attempt()
    assert sentence in str(problem.value)


def test_a_state_that_contradicts_itself_is_not_restored(tmp_path: Path) -> None:
    clock = VirtualClock(5)
    clock.set_timer(6, "owner", "name")
    state = clock.to_state()
    damaged: list[tuple[Any, Any, str]] = [
        (clock, msgspec.structs.replace(state, timers_run=2), "2 of 1 timers"),
        (clock, msgspec.structs.replace(state, heap=[*state.heap, *state.heap]), "two timers have one number"),
    ]
    book = TopOfBook(X)
    damaged += [
        (book, msgspec.structs.replace(book.to_state(), bid_sz=1, bid_remaining_qty=2), "2 of 1 lots"),
        (book, msgspec.structs.replace(book.to_state(), traded_qty=-1), "-1 lots traded"),
    ]
    condition = Condition("any", lambda subsystem, record: True)
    damaged.append((condition, msgspec.structs.replace(condition.to_state(), match_count=-1), "-1 matches"))
    subject_disk = SubjectDisk(tmp_path / "subject")
    damaged.append((subject_disk, msgspec.structs.replace(subject_disk.to_state(), synced={"x": -1}), "-1 bytes"))
    deadlines = Deadlines()
    damaged.append((deadlines, msgspec.structs.replace(deadlines.to_state(), due_by_key={(0, "s", "k"): 1}), "timer"))
    link = make_link()
    damaged += [
        (link, msgspec.structs.replace(link.to_state(), recovery="forget"), "replay or drop"),
        (link, msgspec.structs.replace(link.to_state(), is_up=True), "up for the subject"),
        (link, msgspec.structs.replace(link.to_state(), received_seq=-1), "is negative"),
    ]
    window, efforts = WindowCounter(10), EffortTracker()
    window.add("A1", 1)
    damaged += [
        (window, msgspec.structs.replace(window.to_state(), counts={"A1": 2}), "1 records, but its counts add up to 2"),
        (efforts, msgspec.structs.replace(efforts.to_state(), by_link={"L": LinkEffort(attempts=-1)}), "-1 attempts"),
    ]
    counterparts = Counterparts("id")
    damaged += [
        (counterparts, msgspec.structs.replace(counterparts.to_state(), keys_by_root={"a": "k", "b": "k"}), "one key"),
        (counterparts, msgspec.structs.replace(counterparts.to_state(), counts={"own A": 0}), "has none"),
    ]
    for part, damaged_state, sentence in damaged:
        with pytest.raises(StateError) as problem:
            part.take_state(damaged_state)
        assert sentence in str(problem.value)


@pytest.mark.parametrize(
    ("side", "fields", "sentence"),
    [
        ("buys", {"side": Side.SELL}, "on the wrong side"),
        ("stops", {}, "was triggered"),
    ],
)
def test_a_book_refuses_an_order_that_cannot_be_there(side: str, fields: dict[str, Any], sentence: str) -> None:
    book, order = TopOfBook(X), make_order(**fields)
    getattr(book, side).append(order)
    with pytest.raises(StateError, match=sentence):
        book.adopt_orders({"C1": order})


def test_a_guard_refuses_what_its_parts_cannot_have_made(tmp_path: Path) -> None:
    guard, capture = Guard(tmp_path, channels=[]), MutationCapture()
    capture.is_complete = False
    attempts: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: TableCopier(guard.monitor.tables, KeyLog(), capture), ValueError, "one that begins now"),
        (lambda: replay_journal(guard.monitor, tmp_path / "x.jsonl", ""), StateError, "no mark by which x.jsonl"),
        (lambda: guard.monitor.boundary(Boundary("", DAY, 1)), ValueError, "a boundary needs a name"),
        (lambda: guard.services.memory.lose_journal(""), ValueError, "needs its reason"),
    ]
    for attempt, error, sentence in attempts:
        with pytest.raises(error, match=sentence):
            attempt()
    guard.close()


def test_a_piece_is_logged_once(tmp_path: Path) -> None:
    log = PieceLog(tmp_path / "sweep.jsonl", "key")
    log.add(PieceResult(low=1, high=2))
    with pytest.raises(SweepError, match="logged already"):
        log.add(PieceResult(low=1, high=2))


@pytest.mark.parametrize("name", ["../x.json", "/x.json", "x.txt"])
def test_a_corpus_takes_no_file_outside_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorpusError, match=r"should be a \.json file inside"):
        Corpus(tmp_path).add(Schedule(), name, "because")


def test_a_disk_refuses_an_unknown_damage_and_a_branch_onto_itself(tmp_path: Path) -> None:
    subject_disk = SubjectDisk(tmp_path / "subject")
    with pytest.raises(ValueError, match="is called 'flood'"):
        subject_disk.damage("flood", tmp_path)
    with pytest.raises(ValueError, match="needs another directory"):
        subject_disk.branch(tmp_path / "subject", None)


def test_a_journal_is_synced_by_one_thread(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0 \(never\) or above"):
        Journal(tmp_path / "x.jsonl", -1)
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(ValueError, match="should be above 0"):
        journal.start_syncing(0)
    journal.start_syncing(60)
    with pytest.raises(RuntimeError, match="synced periodically already"):
        journal.start_syncing(60)
    journal.close()
