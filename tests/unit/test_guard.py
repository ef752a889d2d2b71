"""The guard: every mutation checked, frozen before anything else, thawed by a person only."""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.model import (
    ContingencyType,
    ExecType,
    Execution,
    Exposure,
    MsgType,
    Order,
    OrdStatus,
    Position,
    PositionEffect,
    Query,
    Side,
)
from holdover.runtime import (
    FileChannel,
    FreezeStore,
    Guard,
    GuardConfigError,
    Journal,
    StoreError,
    ThawRefusedError,
    ThawRequest,
    read_journal,
)

from .orders import BAD, GOOD, order, request

MakeGuard = Callable[..., Guard]


def breached_invariants(guard: Guard) -> list[str]:
    """The invariants breached, in order."""
    return [breach.invariant for breach in guard.breaches]


def test_a_breach_explains_itself_in_decimals(make_guard: MakeGuard) -> None:
    """The explanation names both sides, without the predicate's author having written a message."""
    guard = make_guard()
    guard.record("orders", BAD)
    assert guard.breaches[0].explanation == (
        "order-quantity-conserved: Order A1 (BUY 60 IBM) of account A: "
        "the open quantity is 60, but the order quantity less the filled quantity is 20"
    )


def test_a_breach_freezes_before_the_step_returns(make_guard: MakeGuard) -> None:
    """Inside the step, right after the mutation, nothing may leave any more, and the disk has it."""
    guard = make_guard()
    with guard.step("fill"):
        guard.record("orders", BAD)
        assert not guard.permits(request())
        assert [freeze.scope for freeze in FreezeStore(guard.directory / "guard.db").active_freezes()] == [
            "instrument:IBM"
        ]


def test_a_freeze_lets_through_what_its_entry_allows(make_guard: MakeGuard) -> None:
    """Cancels and questions may leave, other instruments are not touched."""
    guard = make_guard()
    guard.record("orders", BAD)
    assert guard.permits(request(MsgType.ORDER_CANCEL_REQUEST))
    assert guard.permits(Query(msg_type=MsgType.ORDER_STATUS_REQUEST, req_id="Q"))
    assert guard.permits(request(symbol="BAC"))
    assert not guard.permits(request(MsgType.ORDER_CANCEL_REPLACE_REQUEST))


def test_a_reducing_order_passes_only_while_it_reduces(make_guard: MakeGuard) -> None:
    """`reduce` lets an order through against the position, up to what is not reserved."""
    guard = make_guard()
    with guard.step("open"):
        guard.record("positions", Position(account="A", symbol="IBM", net_qty=100, carried_qty=100))
        guard.record("risk", Exposure(account="A", symbol="IBM", net_qty=100))
    guard.freeze("account:A", operator="op", reason="test", allows=["reduce"])
    assert guard.permits(request(side=Side.SELL, order_qty=100))
    assert not guard.permits(request(side=Side.SELL, order_qty=101))
    assert not guard.permits(request(side=Side.BUY, order_qty=1))


def test_a_stop_may_join_its_take_profit_under_a_freeze(make_guard: MakeGuard) -> None:
    """An alternative shares what its list reserves of the position; an order of another list does not."""
    guard = make_guard()
    exit_fields = {"side": Side.SELL, "contingency_type": ContingencyType.ONE_CANCELS_THE_OTHER}
    target = Order(
        root_cl_ord_id="T",
        cl_ord_id="T",
        symbol="IBM",
        order_qty=100,
        leaves_qty=100,
        account="A",
        ord_status=OrdStatus.NEW,
        position_effect=PositionEffect.CLOSE,
        price=10,
        list_id="L",
        **exit_fields,
    )
    with guard.step("open"):
        position = Position(account="A", symbol="IBM", net_qty=100, carried_qty=100, reserved_qty=100)
        guard.record("positions", position)
        guard.record("risk", Exposure(account="A", symbol="IBM", net_qty=100, open_sell_qty=100))
        guard.record("orders", target)
    guard.freeze("account:A", operator="op", reason="test", allows=["reduce"])
    assert guard.permits(request(order_qty=100, list_id="L", **exit_fields))
    assert not guard.permits(request(order_qty=101, list_id="L", **exit_fields))
    assert not guard.permits(request(order_qty=100, list_id="M", **exit_fields))
    assert not guard.permits(request(order_qty=100, list_id="L", side=Side.SELL))


def test_freezes_survive_a_new_process(make_guard: MakeGuard) -> None:
    """Another guard over the same directory is frozen from its first moment."""
    first = make_guard()
    first.record("orders", BAD)
    first.close()
    assert not make_guard().permits(request())


def test_settled_invariants_wait_for_the_step(make_guard: MakeGuard) -> None:
    """Positions and risk may differ inside a step; only when it is over do they have to agree."""
    guard = make_guard()
    with guard.step("fill"):
        guard.record("positions", Position(account="A", symbol="IBM", net_qty=5, carried_qty=5))
        assert breached_invariants(guard) == []
        guard.record("risk", Exposure(account="A", symbol="IBM", net_qty=5))
    assert breached_invariants(guard) == []
    guard.record("risk", Exposure(account="A", symbol="IBM", net_qty=6))
    assert breached_invariants(guard) == ["positions-agree"]


def test_an_inner_step_joins_the_outer_one(make_guard: MakeGuard) -> None:
    """Leaving an inner step settles nothing yet."""
    guard = make_guard()
    with guard.step("outer"):
        with guard.step("inner"):
            guard.record("positions", Position(account="A", symbol="IBM", net_qty=5, carried_qty=5))
        assert breached_invariants(guard) == []
        guard.record("risk", Exposure(account="A", symbol="IBM", net_qty=5))
    assert breached_invariants(guard) == []


def test_a_key_touched_by_two_threads_settles_with_the_last(make_guard: MakeGuard) -> None:
    """One thread's settled step does not judge what another is in the middle of."""
    guard = make_guard()
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with guard.step("first"):
            guard.record("positions", Position(account="A", symbol="IBM", net_qty=5, carried_qty=5))
            inside.set()
            leave.wait(10)
            guard.record("risk", Exposure(account="A", symbol="IBM", net_qty=5))

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with guard.step("second"):
        guard.record("positions", Position(account="A", symbol="IBM", net_qty=5, carried_qty=5))
    assert breached_invariants(guard) == []
    leave.set()
    thread.join(10)
    assert breached_invariants(guard) == []


def test_steps_of_asyncio_tasks_are_their_own(make_guard: MakeGuard) -> None:
    """Two tasks interleave inside their steps, and neither settles the other's."""
    guard = make_guard()

    async def task(symbol: str) -> None:
        with guard.step(symbol):
            guard.record("positions", Position(account="A", symbol=symbol, net_qty=5, carried_qty=5))
            await asyncio.sleep(0)
            guard.record("risk", Exposure(account="A", symbol=symbol, net_qty=5))

    async def run_tasks() -> None:
        await asyncio.gather(task("IBM"), task("BAC"))

    asyncio.run(run_tasks())
    assert breached_invariants(guard) == []


def test_a_predicate_that_raises_is_a_breach(make_guard: MakeGuard, tmp_path: Path) -> None:
    """An error in a check is never a pass."""
    place = tmp_path / "own"
    place.mkdir()
    entry = (Path(__file__).parents[2] / "src/holdover/catalogue/entries/quantity/quantities-in-range.toml").read_text()
    (place / "always-raises.toml").write_text(entry.replace("quantities-in-range", "always-raises"))
    (place / "own.py").write_text(
        "from holdover.catalogue import predicate\nfrom holdover.model import Order\n"
        "@predicate('always-raises')\ndef raises(order: Order) -> bool:\n    return order.no_such_field\n"
    )
    guard = make_guard(catalogue=Catalogue.load(place))
    guard.record("orders", GOOD)
    assert breached_invariants(guard) == ["always-raises"]
    assert "the predicate raised AttributeError" in guard.breaches[0].explanation


def test_the_same_breach_is_paged_once(make_guard: MakeGuard, tmp_path: Path) -> None:
    """A broken record that is recorded again adds no page and no freeze, only a count."""
    guard = make_guard(channels=[FileChannel(tmp_path / "pages.jsonl")])
    for _ in range(5):
        guard.record("orders", BAD)
    invariants = [page.invariant for page in guard.store.all_pages()]
    assert invariants == ["order-quantity-conserved"]
    assert max(guard.evidence.repeat_counts.values()) == 5


def test_a_freeze_that_cannot_be_written_freezes_everything(make_guard: MakeGuard, tmp_path: Path) -> None:
    """Without the disk the whole system stops in memory, says so, and pages all the same."""
    guard = make_guard(channels=[FileChannel(tmp_path / "pages.jsonl")])
    guard.store.database.connection.execute("PRAGMA query_only=ON")
    guard.record("orders", BAD)
    assert "could not be written" in guard.freezes.problem
    assert not guard.permits(request(symbol="BAC", account="Z"))
    guard.store.database.connection.execute("PRAGMA query_only=OFF")
    assert guard.pager.deliver_due() >= 1
    assert "FROZEN system" in (tmp_path / "pages.jsonl").read_text()


def test_a_thaw_needs_a_name_a_reason_and_evidence(make_guard: MakeGuard) -> None:
    """And is refused while the invariant still fails, unless a second person forces it."""
    guard = make_guard()
    guard.record("orders", BAD)
    scope = "instrument:IBM"
    for missing in ("operator", "reason", "evidence"):
        thaw_arguments = {"operator": "op", "reason": "why", "evidence": "what", missing: " "}
        with pytest.raises(ThawRefusedError, match=missing):
            guard.thaw(scope, **thaw_arguments)
    with pytest.raises(ThawRefusedError, match="still does not hold"):
        guard.thaw(scope, operator="op", reason="why", evidence="what")
    with pytest.raises(ThawRefusedError, match="second person"):
        guard.thaw(scope, operator="op", reason="why", evidence="what", forced_by="op")
    assert guard.thaw(scope, operator="op", reason="why", evidence="what", forced_by="other") == 1
    assert guard.permits(request())
    with pytest.raises(ThawRefusedError, match="is not frozen"):
        guard.thaw(scope, operator="op", reason="why", evidence="what")


def test_a_thaw_passes_once_the_invariant_holds(make_guard: MakeGuard) -> None:
    """What was put right can be thawed by one person, and the audit says who."""
    guard = make_guard()
    guard.record("orders", BAD)
    with guard.step("put right"):
        guard.record(
            "orders", replace(GOOD, exec_type=ExecType.TRADE_CANCEL, exec_ref_id="E1", ord_status=OrdStatus.NEW)
        )
    assert guard.thaw("instrument:IBM", operator="op", reason="busted", evidence="ticket 7") >= 1
    assert '"operator":"op"' in guard.store.audit_rows()[-1][3]


def test_a_changed_audit_row_is_found(make_guard: MakeGuard) -> None:
    """The audit is a chain: a row changed or taken out breaks it."""
    guard = make_guard()
    guard.record("orders", BAD)
    assert guard.store.verify_audit() == ""
    with sqlite3.connect(guard.directory / "guard.db") as db:
        db.execute("UPDATE audit SET detail='nothing' WHERE number=2")
    assert "row 2 was changed" in guard.store.verify_audit()
    with sqlite3.connect(guard.directory / "guard.db") as db:
        db.execute("DELETE FROM audit WHERE number=1")
    assert "row 1 is missing" in guard.store.verify_audit()


def test_a_freeze_taken_from_the_store_is_a_breach(make_guard: MakeGuard) -> None:
    """At the next boundary the guard notices that a freeze it set is gone, and keeps obeying it."""
    guard = make_guard()
    guard.record("orders", BAD)
    with sqlite3.connect(guard.directory / "guard.db") as db:
        db.execute("DELETE FROM freeze")
    guard.reload()
    guard.boundary("restart", "2024-01-02")
    assert "freeze-survives" in breached_invariants(guard)
    assert not guard.permits(request())


def test_memory_outlives_the_process(make_guard: MakeGuard) -> None:
    """A guard that takes up a memory knows what was booked before, and sees it booked again."""
    execution = Execution(
        exec_id="E1",
        exec_type=ExecType.NEW,
        root_cl_ord_id="A1",
        symbol="IBM",
        side=Side.BUY,
        trade_date="d",
        account="A",
    )
    first = make_guard()
    with first.step("report"):
        first.record("orders", GOOD)
        first.record("orders", execution)
    first.save_memory()
    first.close()
    second = make_guard()
    assert second.load_memory()
    second.record("orders", execution)
    assert breached_invariants(second) == ["execution-booked-once"]


def test_what_a_restart_lost_is_missed(make_guard: MakeGuard) -> None:
    """An acknowledged order that does not come back is a breach once recovery is declared complete."""
    guard = make_guard()
    acknowledged_order = replace(GOOD, ord_status=OrdStatus.NEW, order_id="O1")
    guard.record("orders", acknowledged_order)
    guard.restore("orders", [])
    assert breached_invariants(guard) == []
    guard.reconciled("2024-01-02", ["orders"])
    assert "store-agrees-with-memory" in breached_invariants(guard)


def test_time_that_goes_back_is_a_breach_unless_declared(make_guard: MakeGuard, time_ns: Any) -> None:
    """A step that begins before the last one trips clock-monotone; an announced jump does not."""
    guard = make_guard()
    guard.record("orders", GOOD)
    time_ns.now_ns -= 10
    guard.steps.declare_clock_jump()
    guard.record("orders", GOOD)
    assert breached_invariants(guard) == []
    time_ns.now_ns -= 10
    guard.record("orders", GOOD)
    assert breached_invariants(guard) == ["clock-monotone"]


def test_an_unanswered_request_is_a_breach_after_its_time(make_guard: MakeGuard, time_ns: Any) -> None:
    """Thirty seconds on a live link; time on a dead link does not count."""
    from holdover.model import Link

    guard = make_guard()
    guard.record("gateway", Link(name="L", is_up=True, epoch=1))
    guard.record("orders", replace(GOOD, link="L"))
    time_ns.now_ns += 29_000_000_000
    guard.tick()
    assert breached_invariants(guard) == []
    guard.record("gateway", Link(name="L", is_up=False, epoch=1, change="logout"))
    time_ns.now_ns += 2_000_000_000
    guard.tick()
    assert breached_invariants(guard) == []
    guard.record("gateway", Link(name="L", is_up=True, epoch=2, change="reset"))
    time_ns.now_ns += 31_000_000_000
    guard.tick()
    assert "acknowledged-within" in breached_invariants(guard)


def test_what_a_step_has_handed_over_is_soon_on_the_disk(
    make_guard: MakeGuard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the steps, which do not wait for it; over a rotation, and at the close all of it."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, max_bytes=1)
    synced: queue.SimpleQueue[int] = queue.SimpleQueue()
    real = os.fsync

    def fsync(handle: int) -> None:
        size = os.fstat(handle).st_size
        real(handle)
        synced.put(size)

    monkeypatch.setattr("holdover.runtime.journal.os.fsync", fsync)
    journal.start_syncing(0.001)
    for number in range(3):
        journal.write_event(number, 0, "begin", "2024-11-27")
        journal.flush()
        while synced.get(timeout=10) < path.stat().st_size:
            pass
    journal.write_event(3, 0, "end")
    journal.close()
    while not synced.empty():
        last = synced.get()
    assert last == path.stat().st_size


def test_the_journal_keeps_whole_lines(make_guard: MakeGuard, tmp_path: Path) -> None:
    """Each step is on the file when it is left, and a cut last line is left out when reading."""
    path = tmp_path / "journal.jsonl"
    guard = make_guard(journal=Journal(path))
    guard.record("orders", GOOD)
    assert [line["kind"] for line in read_journal(path)] == ["Order"]
    path.write_bytes(path.read_bytes() + b'{"seq": 2, "ti')
    assert len(list(read_journal(path))) == 1


def test_a_guard_opens_from_its_file(tmp_path: Path) -> None:
    """One TOML file; every problem in it is said at once."""
    (tmp_path / "desk.toml").write_text('[guard]\ndirectory = "g"\n[pages]\nlog = false\n')
    guard = Guard.open(tmp_path / "desk.toml")
    guard.record("orders", BAD)
    assert guard.active_freezes
    guard.close()
    (tmp_path / "bad.toml").write_text('[guard]\ndirectoy = "g"\n[pages]\nfiles = 1\n')
    with pytest.raises(GuardConfigError) as error:
        Guard.open(tmp_path / "bad.toml")
    assert len(str(error.value).splitlines()) == 2


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    """A file written by another version is named and not touched."""
    FreezeStore(tmp_path / "guard.db").close()
    with sqlite3.connect(tmp_path / "guard.db") as db:
        db.execute("UPDATE meta SET value='99'")
    with pytest.raises(StoreError, match="version 99"):
        FreezeStore(tmp_path / "guard.db")


@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_a_store_of_a_former_version_is_refused_untouched(tmp_path: Path, version: str) -> None:
    """Its rows have other columns: it is named with its version, and not a byte of its tables changes."""
    path = tmp_path / "guard.db"
    with sqlite3.connect(path) as db:
        db.executescript(
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
            "CREATE TABLE incident (number INTEGER PRIMARY KEY, told TEXT NOT NULL);"
            f"INSERT INTO meta VALUES ('version', '{version}');"
        )
        before = list(db.iterdump())
    with pytest.raises(StoreError, match=f"written as version {version}, this Holdover reads version 4; thaw what"):
        FreezeStore(path)
    with sqlite3.connect(path) as db:
        assert list(db.iterdump()) == before


def test_cost_does_not_grow_with_the_orders(make_guard: MakeGuard) -> None:
    """One mutation evaluates as many predicates with ten thousand open orders as with ten."""
    guard = make_guard()

    def cost() -> int:
        before = guard.monitor.check_count
        guard.record("orders", GOOD)
        return guard.monitor.check_count - before

    for number in range(10):
        guard.record("orders", order(root_cl_ord_id=f"X{number}", cl_ord_id=f"X{number}", strategy="S", account="A"))
    baseline_cost = cost()
    for number in range(10_000):
        guard.record("orders", order(root_cl_ord_id=f"Y{number}", cl_ord_id=f"Y{number}", strategy="S", account="A"))
    assert cost() == baseline_cost


def test_totals_agree_with_a_recompute(make_guard: MakeGuard) -> None:
    """After retirements the running totals are what a recompute gives; a wrong one is a breach."""
    guard = make_guard()
    filled_order: Order = replace(
        GOOD, ord_status=OrdStatus.FILLED, cum_qty=60, leaves_qty=0, trade_date="2024-01-01", foreign=False
    )
    guard.record("orders", replace(filled_order, root_cl_ord_id="Z", cl_ord_id="Z", foreign=True, strategy=""))
    guard.record("positions", Position(account="A", symbol="IBM", net_qty=0, reserved_qty=0))
    guard.monitor.retire_orders("2024-01-02")
    guard.boundary("end", "2024-01-02")
    assert breached_invariants(guard) == []
    totals = guard.monitor.tables.totals_of(guard.monitor.tables.sums_of(("orders", Order))[0])
    totals["nonsense"] = 5
    guard.boundary("end", "2024-01-02")
    assert breached_invariants(guard) == ["recompute-agrees"]


def test_a_journal_is_put_aside_and_followed_through(tmp_path: Path) -> None:
    """Past its size a new file is begun between two steps; a slow follower reads all of them in their order."""
    from holdover.runtime.journal import rotated_files
    from holdover.watch.tail import Tail

    path = tmp_path / "journal.jsonl"
    journal = Journal(path, max_bytes=2_000, rotated_max=4)
    tail = Tail(path)
    journal.write_mutation(0, 0, "orders", GOOD, "first")
    journal.flush()
    tail_lines = [line for line in tail.read_lines() if line]
    for number in range(1, 24):
        journal.write_mutation(number, number, "orders", GOOD, "later")
        journal.write_mutation(number, number, "orders", GOOD, "later")
        journal.flush()
    aside = rotated_files(path)
    assert 2 <= len(aside) <= 4
    assert sorted(aside) == aside
    first = [line["seq"] for line in read_journal(aside[0])]
    assert first == sorted(first)
    while lines := tail.read_lines(3):
        tail_lines += lines
    journal.close()
    journal_seqs = [line["seq"] for file in (*aside, path) for line in read_journal(file)]
    tail_seqs = [msgspec.json.decode(line)["seq"] for line in tail_lines if b"seq" in line]
    if len(aside) < 4:
        assert tail_seqs == journal_seqs
    assert tail_seqs[-1] == journal_seqs[-1] == 23
    assert tail_seqs == sorted(tail_seqs)


def test_each_night_lets_go_of_what_is_over(make_guard: MakeGuard) -> None:
    """Closed orders of an earlier day, their executions and requests go; open ones and totals stay."""
    guard = make_guard()
    for number, day in enumerate(("2024-01-02", "2024-01-03", "2024-01-04")):
        with guard.step("trade"):
            for state, key in ((OrdStatus.CANCELED, f"C{number}"), (OrdStatus.NEW, f"O{number}")):
                leaves = 0 if state == OrdStatus.CANCELED else 60
                guard.record(
                    "orders",
                    replace(
                        GOOD,
                        cl_ord_id=key,
                        root_cl_ord_id=key,
                        ord_status=state,
                        exec_type=ExecType.CANCELED if not leaves else ExecType.NEW,
                        leaves_qty=leaves,
                        order_qty=60,
                        cum_qty=0,
                        notional=0,
                        trade_date=day,
                    ),
                )
        guard.boundary("end", day)
        guard.boundary("overnight", day)
    assert breached_invariants(guard) == []
    order_keys = sorted(guard.monitor.records(Order, "orders"))
    assert order_keys == ["C2", "O0", "O1", "O2"]


def test_a_freeze_on_any_scope_of_a_message_holds_it(make_guard: MakeGuard) -> None:
    """System, subsystem, account, strategy, instrument, both, order and link: the children of each, no others."""
    inside = request(link="VENUE", root_cl_ord_id="R1")
    outside_requests = {
        "account:A": request(account="B", symbol="ZZZ"),
        "instrument:IBM": request(symbol="ZZZ"),
        "account:A/instrument:IBM": request(account="A", symbol="ZZZ"),
        "strategy:S": request(strategy="T"),
        "link:VENUE": request(link="OTHER"),
        "order:R1": request(link="VENUE", root_cl_ord_id="R2"),
    }
    guard = make_guard()
    for scope in ("system", "subsystem:positions", *outside_requests):
        guard.freeze(scope, operator="ann", reason="to see")
        assert not guard.permits(inside), scope
        assert guard.permits(Query(msg_type=MsgType.ORDER_STATUS_REQUEST, req_id="Q")), scope
        if scope in outside_requests:
            assert guard.permits(outside_requests[scope]), scope
        guard.thaw(scope, operator="ann", reason="seen", evidence="this test")
        assert guard.permits(inside), scope


def test_a_thaw_asked_for_is_judged_by_the_running_guard(make_guard: MakeGuard, time_ns: Any) -> None:
    """Refused while the invariant does not hold, done when it does; the answer goes back to who asked."""
    guard = make_guard()
    guard.record("orders", BAD)
    (scope, *_) = guard.frozen_scopes()
    thaw_request = ThawRequest(number=0, scope=scope, operator="ann", reason="mended", evidence="ticket 7")
    first = guard.store.request_thaw(thaw_request, guard.name, time_ns())
    guard.freezes.follow_store()
    assert "still does not hold" in str(guard.store.find_answer(first))
    assert scope in guard.frozen_scopes()
    forced = replace(thaw_request, forced_by="bob")
    withdrawn = guard.store.request_thaw(forced, guard.name, time_ns())
    assert guard.store.withdraw_request(withdrawn, time_ns()) is None
    guard.freezes.follow_store()
    assert scope in guard.frozen_scopes()
    second = guard.store.request_thaw(forced, guard.name, time_ns())
    guard.freezes.follow_store()
    assert guard.store.find_answer(second) == ""
    assert scope not in guard.frozen_scopes()


def test_a_sidecars_freeze_is_obeyed_and_paged_by_the_running_guard(tmp_path: Path, catalogue: Catalogue) -> None:
    """By the guard's own configuration: the freeze holds the next message, the page goes to the guard's channels."""
    from holdover.watch import FreezeHook

    config = tmp_path / "desk.toml"
    config.write_text('[guard]\ndirectory = "g"\nname = "desk"\nobey_within_ms = 0\n[pages]\nlog = false\n')
    guard = Guard.open(config)
    judged = Guard(tmp_path / "other", catalogue=catalogue, channels=[])
    judged.record("orders", BAD)
    hook = FreezeHook(config, catalogue)
    assert guard.permits(request())
    for breach in judged.breaches:
        hook.run(breach, "key")
        hook.run(breach, "key")
    assert not guard.permits(request())
    scopes = {breach.scope for breach in judged.breaches}
    assert set(guard.frozen_scopes()) == scopes
    assert len(guard.store.breaches()) == len(judged.breaches)
    guard.pager.stop()
    guard.pager.deliver_due()
    paged = [msgspec.json.decode(line) for line in (tmp_path / "g" / "pages.jsonl").read_text().splitlines()]
    assert {page["scope"] for page in paged} == scopes
    guard.close()
    judged.close()


def test_what_closed_orders_came_to_is_let_go_of_some_nights_later(make_guard: MakeGuard) -> None:
    """Totals by order are kept for a late bust for five nights; after that memory is as it was."""
    guard = make_guard()
    sizes = []
    for number in range(1, 13):
        day = f"2024-01-{number:02d}"
        key = f"C{number}"
        filled = replace(
            GOOD,
            cl_ord_id=key,
            root_cl_ord_id=key,
            ord_status=OrdStatus.FILLED,
            exec_type=ExecType.TRADE,
            order_qty=60,
            leaves_qty=0,
            cum_qty=60,
            notional=600,
            trade_date=day,
        )
        execution = Execution(
            exec_id=f"E{number}",
            exec_type=ExecType.TRADE,
            root_cl_ord_id=key,
            symbol="IBM",
            side=Side.BUY,
            trade_date=day,
            account="A",
            strategy="S",
            last_qty=60,
            last_px=10,
            qty_delta=60,
            notional_delta=600,
            cash_delta=-600,
        )
        with guard.step("fill"):
            guard.record("orders", execution)
            guard.record("orders", filled)
        guard.boundary("overnight", day)
        tables = guard.monitor.tables
        by_order = [len(sums) for summed, sums in tables.totals.items() if summed.by == "root_cl_ord_id"]
        sizes.append((sum(by_order), sum(len(table) for table in tables.by_table.values())))
    assert not [name for name in breached_invariants(guard) if name in ("cumulative-equals-executions", "totals-agree")]
    assert sizes[-1] == sizes[-2] == sizes[-3]
    restored_guard = make_guard(name="again")
    restored_guard.monitor.restore_bytes(guard.monitor.to_bytes())
    assert restored_guard.monitor.tables.retired_orders == guard.monitor.tables.retired_orders != []
