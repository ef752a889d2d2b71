"""Orders, accounting, parents, reconciliation and gateway of the desk, each test from a fresh state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdover.desk import DeskConfig
from holdover.desk.store import Store
from holdover.desk.tables import DeskStoreError
from holdover.model import (
    CancelReject,
    ExecType,
    ExecutionReport,
    MsgType,
    OrdStatus,
    Position,
    Query,
    SecurityStatus,
    Side,
)
from tests.desk_bench import (
    BUYER,
    CLOSE_NS,
    DAY,
    OPEN_NS,
    SELLER,
    STANDING_SELLER,
    DeskBench,
    first_order_text,
    status_report,
)

Make = Callable[..., DeskBench]


def make_trade(cl_ord_id: str, **fields: Any) -> ExecutionReport:
    """A fill that nobody here has asked for: seven sold at 99."""
    report_fields = {
        "side": Side.SELL,
        "order_qty": 7,
        "cum_qty": 7,
        "last_qty": 7,
        "last_px": 99,
        "notional": 693,
        **fields,
    }
    report = status_report(cl_ord_id, OrdStatus.FILLED, account="A", exec_id="H1", **report_fields)
    return replace(report, exec_type=ExecType.TRADE)


# -- orders ---------------------------------------------------------------------------------------------------------


def test_a_slice_is_sent_when_it_is_due(make_bench: Make) -> None:
    """At the touch, of the slice's size, and nothing before the first look."""
    bench = make_bench(BUYER)
    bench.start()
    bench.ports.advance(20)
    assert bench.ports.requests == []
    new_order = bench.first_order()
    assert (new_order.msg_type, new_order.order_qty, new_order.price, new_order.side) == (
        MsgType.NEW_ORDER_SINGLE,
        100,
        100,
        Side.BUY,
    )
    assert "PENDING_NEW 0/100 leaves 100" in first_order_text(bench)


def test_fills_move_every_book(make_bench: Make) -> None:
    """Order, position, cash, exposure and parent follow two fills to the lot."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    assert "NEW 0/100 leaves 100" in first_order_text(bench)
    bench.ports.fill(new_order, 30, 100, 30)
    assert "PARTIALLY_FILLED 30/100 leaves 70" in first_order_text(bench)
    bench.ports.fill(new_order, 70, 99, 100)
    assert "FILLED 100/100 leaves 0" in first_order_text(bench)
    position = bench.desk.positions.get("A/X")
    assert position is not None
    assert position.net_qty == 100
    assert bench.desk.ledger.balances()[0].cash < 0
    assert bench.desk.parents.all_parents()[0].filled_qty == 100
    assert bench.desk.orders.open_orders() == []


def test_a_fill_told_twice_is_booked_once(make_bench: Make) -> None:
    """The same ExecID on the same day moves nothing again."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    fill_report = bench.ports.fill(new_order, 30, 100, 30)
    bench.ports.deliver(fill_report)
    assert "30/100 leaves 70" in first_order_text(bench)
    assert len(bench.desk.orders.executions()) == 1


def test_a_fill_acknowledges(make_bench: Make) -> None:
    """A trade before the acknowledgement makes the order partly filled; the late acknowledgement changes nothing."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.fill(new_order, 30, 100, 30)
    bench.ports.accept(new_order)
    assert "PARTIALLY_FILLED 30/100 leaves 70" in first_order_text(bench)


@pytest.mark.parametrize(
    ("exec_type", "ord_status"),
    [
        (ExecType.CANCELED, OrdStatus.CANCELED),
        (ExecType.EXPIRED, OrdStatus.EXPIRED),
        (ExecType.REJECTED, OrdStatus.REJECTED),
    ],
)
def test_an_order_ends(make_bench: Make, exec_type: ExecType, ord_status: OrdStatus) -> None:
    """Nothing is left, nothing is reserved, and what comes afterwards does not open it."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.deliver_report(new_order, exec_type, ord_status)
    assert f"{ord_status.name} 0/100 leaves 0" in first_order_text(bench)
    bench.ports.accept(new_order)
    bench.ports.deliver_report(new_order, exec_type, ord_status)
    assert bench.desk.orders.open_orders() == []


@pytest.mark.parametrize("exec_type", [ExecType.STOPPED, ExecType.SUSPENDED])
def test_a_status_without_a_quantity(make_bench: Make, exec_type: ExecType) -> None:
    """Stopped and suspended keep what is left."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    bench.ports.deliver_report(new_order, exec_type, OrdStatus[exec_type.name])
    assert f"{exec_type.name} 0/100 leaves 100" in first_order_text(bench)


def test_done_for_day_ends_a_day_order(make_bench: Make) -> None:
    """It cannot fill any more, so nothing is left of it."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    bench.ports.deliver_report(new_order, ExecType.DONE_FOR_DAY, OrdStatus.DONE_FOR_DAY)
    assert "DONE_FOR_DAY 0/100 leaves 0" in first_order_text(bench)


def test_a_bust_takes_a_fill_back(make_bench: Make) -> None:
    """The order is open again with what the bust freed; the position is flat."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    fill_report = bench.ports.fill(new_order, 100, 100, 100)
    bench.ports.deliver_report(
        new_order,
        ExecType.TRADE_CANCEL,
        OrdStatus.NEW,
        exec_ref_id=fill_report.exec_id,
        leaves_qty=100,
    )
    assert "NEW 0/100 leaves 100" in first_order_text(bench)
    position = bench.desk.positions.get("A/X")
    assert position is not None
    assert position.net_qty == 0


def test_a_correction_moves_the_difference(make_bench: Make) -> None:
    """From thirty at a hundred to twenty at a hundred and one."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    fill_report = bench.ports.fill(new_order, 30, 100, 30)
    bench.ports.deliver_report(
        new_order,
        ExecType.TRADE_CORRECT,
        OrdStatus.PARTIALLY_FILLED,
        exec_ref_id=fill_report.exec_id,
        last_qty=20,
        last_px=101,
        cum_qty=20,
        leaves_qty=80,
    )
    assert "PARTIALLY_FILLED 20/100 leaves 80" in first_order_text(bench)
    assert bench.desk.orders.all_orders()[0].notional == 2020


def test_a_bust_of_an_unknown_fill_is_asked_about(make_bench: Make) -> None:
    """What it refers to is missing: the venue is asked again, and nothing is booked."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    bench.ports.deliver_report(new_order, ExecType.TRADE_CANCEL, OrdStatus.NEW, exec_ref_id="E-nowhere")
    assert not bench.desk.reconciler.is_done
    assert bench.desk.orders.executions() == []


def test_a_foreign_order_is_adopted(make_bench: Make) -> None:
    """An order entered by hand at the venue is taken in and marked so; its fill is a fill."""
    bench = make_bench(BUYER)
    bench.start()
    bench.ports.deliver(make_trade("HAND-1"))
    assert bench.desk.orders.all_orders()[0].foreign
    position = bench.desk.positions.get("A/X")
    assert position is not None
    assert position.net_qty == -7


# -- working a parent -----------------------------------------------------------------------------------------------


def test_a_slice_that_waits_is_repriced_and_then_pulled(make_bench: Make) -> None:
    """To the touch, across the spread, and away: a replace at a time, each after an answer."""
    bench = make_bench(BUYER, answer_ns=600_000_000_000)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    bench.ports.top("X").bid_px = 101
    changes: list[tuple[str, int | None]] = []
    number = len(bench.ports.requests)
    for _ in range(12):
        bench.ports.advance(30)
        for request in bench.ports.requests[number:]:
            number += 1
            if request.root_cl_ord_id != new_order.root_cl_ord_id:
                bench.ports.accept(request)
                continue
            changes.append((request.msg_type.name, request.price))
            if request.msg_type == MsgType.ORDER_CANCEL_REPLACE_REQUEST:
                bench.ports.deliver_report(request, ExecType.REPLACED, OrdStatus.NEW, leaves_qty=100)
            else:
                bench.ports.deliver_report(request, ExecType.CANCELED, OrdStatus.CANCELED)
    assert changes[0] == ("ORDER_CANCEL_REPLACE_REQUEST", 101)
    assert ("ORDER_CANCEL_REPLACE_REQUEST", 102) in changes
    assert changes[-1][0] == "ORDER_CANCEL_REQUEST"
    assert "CANCELED 0/100 leaves 0" in first_order_text(bench)


def test_a_refused_change_leaves_the_order_as_it_stood(make_bench: Make) -> None:
    """A replace that the venue refuses: pending no more, quantity and price as before."""
    bench = make_bench(BUYER, answer_ns=600_000_000_000)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    bench.ports.top("X").bid_px = 101
    bench.ports.advance(70)
    change = next(
        request for request in bench.ports.requests if request.msg_type == MsgType.ORDER_CANCEL_REPLACE_REQUEST
    )
    assert "PENDING_REPLACE" in first_order_text(bench)
    bench.ports.deliver(
        CancelReject(
            cl_ord_id=change.cl_ord_id, orig_cl_ord_id=new_order.cl_ord_id, ord_status=OrdStatus.NEW, account="A"
        )
    )
    assert "NEW 0/100 leaves 100" in first_order_text(bench)
    assert bench.desk.orders.all_orders()[0].price == 100


def test_a_closing_order_takes_no_more_than_is_held(make_bench: Make) -> None:
    """Nothing while flat; then what is free; and what it works is reserved."""
    bench = make_bench(BUYER, SELLER)
    bench.start()
    bench.ports.top("X").traded_qty = 10_000
    new_order = bench.first_order()
    assert {request.strategy for request in bench.ports.requests} == {"buyer"}
    bench.ports.accept(new_order)
    bench.ports.fill(new_order, 30, 100, 30)
    bench.ports.advance(30)
    sold = next(request for request in bench.ports.requests if request.strategy == "seller")
    assert (sold.order_qty, sold.price) == (30, 102)
    position = bench.desk.positions.get("A/X")
    assert position is not None
    assert position.reserved_qty == 30
    bench.ports.deliver_report(sold, ExecType.REJECTED, OrdStatus.REJECTED)
    position = bench.desk.positions.get("A/X")
    assert position is not None
    assert position.reserved_qty == 0


def test_a_standing_order_stands_behind_the_touch(make_bench: Make) -> None:
    """One at a time, above the offer by its offset."""
    bench = make_bench(STANDING_SELLER)
    bench.start()
    new_order = bench.first_order()
    assert (new_order.order_qty, new_order.side) == (300, Side.SELL)
    assert new_order.price is not None
    assert new_order.price > 102
    bench.ports.accept(new_order)
    bench.ports.advance(60)
    assert len([request for request in bench.ports.requests if request.msg_type == MsgType.NEW_ORDER_SINGLE]) == 1


def test_nothing_is_sent_into_an_empty_or_closed_book(make_bench: Make) -> None:
    """No price on our side, a halted book, a day that is over."""
    bench = make_bench(BUYER)
    bench.start()
    bench.ports.top("X").bid_px = 2**63 - 1
    bench.ports.advance(31)
    assert bench.ports.requests == []
    bench.ports.top("X").bid_px = 100
    bench.ports.deliver(SecurityStatus(symbol="X", trading=False, reason="halt"))
    bench.ports.advance(31)
    assert bench.ports.requests == []
    bench.ports.deliver(SecurityStatus(symbol="X", trading=True, reason="open"))
    bench.ports.top("X").trading = False
    bench.ports.advance(31)
    bench.ports.now_ns = CLOSE_NS
    bench.ports.advance(31)
    assert bench.ports.requests == []


def test_limits_hold_an_order_back(make_bench: Make) -> None:
    """What would take the account over its limit is not sent."""
    bench = make_bench(BUYER, position_max=99)
    bench.start()
    bench.ports.advance(31)
    assert bench.ports.requests == []
    assert bench.desk.orders.all_orders() == []


def test_a_freeze_holds_everything_back(make_bench: Make) -> None:
    """Nothing leaves a frozen account, and nothing is remembered as sent."""
    bench = make_bench(BUYER)
    bench.start()
    bench.guard.freeze("account:A", operator="op", reason="test")
    bench.ports.advance(31)
    assert bench.ports.requests == []


# -- at an operator's word ------------------------------------------------------------------------------------------


def test_an_operator_reprices_and_cancels(make_bench: Make) -> None:
    """One order, by its key: a replace at another price, a cancel; nothing while a request is under way."""
    bench = make_bench(BUYER, answer_ns=600_000_000_000)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    bench.desk.reprice(new_order.root_cl_ord_id, 100)
    assert len(bench.ports.requests) == 1
    bench.desk.reprice(new_order.root_cl_ord_id, 99)
    change = bench.ports.requests[-1]
    assert (change.msg_type, change.price) == (MsgType.ORDER_CANCEL_REPLACE_REQUEST, 99)
    bench.desk.cancel(new_order.root_cl_ord_id)
    assert bench.ports.requests[-1] is change
    bench.ports.deliver_report(change, ExecType.REPLACED, OrdStatus.NEW, leaves_qty=100)
    assert bench.desk.orders.all_orders()[0].price == 99
    bench.desk.cancel(new_order.root_cl_ord_id)
    assert bench.ports.requests[-1].msg_type == MsgType.ORDER_CANCEL_REQUEST
    assert "PENDING_CANCEL 0/100 leaves 100" in first_order_text(bench)


def test_an_operator_sends_a_slice(make_bench: Make) -> None:
    """At once, so many increments behind the touch, no more than the parent has left; none beside an unknown one."""
    bench = make_bench(BUYER)
    bench.start()
    bench.desk.submit(0, 5_000, 3)
    new_order = bench.ports.requests[-1]
    assert (new_order.order_qty, new_order.price) == (1_000, 97)
    bench.desk.submit(0, 1, 0)
    assert len(bench.ports.requests) == 1
    bench.ports.now_ns = CLOSE_NS
    bench.desk.submit(0, 1, 0)
    assert len(bench.ports.requests) == 1


def test_a_late_strategy_comes_to_the_touch_near_the_close(make_bench: Make) -> None:
    """Behind the touch by its offset for the day, at the touch from so long before the close on."""
    bench = make_bench(replace(STANDING_SELLER, late_ns=600 * 1_000_000_000, patience=1_000))
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    assert new_order.price is not None
    assert new_order.price > 102
    for _ in range(120):
        bench.ports.advance(30)
        change = bench.ports.requests[-1]
        if "PENDING_REPLACE" in first_order_text(bench):
            bench.ports.deliver_report(change, ExecType.REPLACED, OrdStatus.NEW, leaves_qty=300)
    assert bench.desk.orders.all_orders()[0].price == 102
    assert change.transact_time_ns >= CLOSE_NS - 600 * 1_000_000_000


# -- the link -------------------------------------------------------------------------------------------------------


def test_what_cannot_leave_is_over(make_bench: Make) -> None:
    """The wire refuses an order at the last moment: it was not sent, and is rejected here."""
    bench = make_bench(BUYER)
    bench.start()

    def broken(message: object) -> int:
        raise ConnectionError("gone")

    bench.ports.send = broken  # type: ignore[method-assign]
    bench.ports.advance(31)
    assert bench.ports.requests == []
    assert "REJECTED 0/100 leaves 0" in first_order_text(bench)
    assert bench.desk.parents.all_parents()[0].working_qty == 0


def test_messages_are_taken_in_their_order(make_bench: Make) -> None:
    """An old one is dropped, one too early asked for, a heartbeat ahead of us too."""
    bench = make_bench(BUYER)
    bench.start()
    halt = SecurityStatus(symbol="X", trading=False, reason="halt")
    bench.ports.deliver(halt, seq=1)
    assert bench.desk.gateway.is_trading("X")
    bench.ports.deliver(halt, seq=bench.ports.seq + 5)
    assert bench.ports.resends == [bench.ports.seq + 1]
    bench.desk.on_heartbeat(bench.ports.seq + 5)
    bench.desk.on_heartbeat(bench.ports.seq)
    assert len(bench.ports.resends) == 2
    assert bench.desk.gateway.is_trading("X")


def test_what_is_passed_over_is_asked_for(make_bench: Make) -> None:
    """A sequence reset over messages that will not come makes the desk ask what is so."""
    bench = make_bench(BUYER)
    bench.start()
    bench.desk.on_sequence_reset(bench.ports.seq + 1)
    assert bench.desk.reconciler.is_done
    bench.desk.on_sequence_reset(bench.ports.seq + 4)
    assert not bench.desk.reconciler.is_done
    bench.ports.seq += 3
    bench.ports.answer_queries()
    assert bench.desk.reconciler.is_done


def test_a_lost_link_is_asked_for_again(make_bench: Make) -> None:
    """The desk tries until it is let in, and believes nothing before it has asked."""
    bench = make_bench(BUYER)
    bench.start()
    bench.ports.refuses_logon = True
    bench.ports.drop_link()
    assert not bench.desk.reconciler.is_done
    bench.ports.advance(5)
    assert not bench.ports.is_up
    bench.ports.refuses_logon = False
    bench.ports.advance(2)
    assert bench.ports.is_up
    bench.ports.answer_queries()
    assert bench.desk.reconciler.is_done


def test_a_desk_stops_in_good_order(make_bench: Make) -> None:
    """It logs out."""
    bench = make_bench(BUYER)
    bench.start()
    bench.desk.stop()
    assert not bench.ports.is_up


# -- reconciliation -------------------------------------------------------------------------------------------------


def test_the_questions_come_one_after_another(make_bench: Make) -> None:
    """Executions, orders, positions; of each account."""
    bench = make_bench(BUYER, STANDING_SELLER)
    bench.start()
    queries = [(query.msg_type.name, query.account) for query in bench.ports.sent_messages if isinstance(query, Query)]
    assert queries == [
        (name, account)
        for name in ("TRADE_CAPTURE_REPORT_REQUEST", "ORDER_MASS_STATUS_REQUEST", "REQUEST_FOR_POSITIONS")
        for account in ("A", "B")
    ]


def test_a_question_without_an_answer_is_asked_again(make_bench: Make) -> None:
    """After a while the desk begins its questions anew."""
    bench = make_bench(BUYER)
    bench.desk.start(DAY, OPEN_NS, CLOSE_NS)
    sent_count = len(bench.ports.sent_messages)
    bench.ports.advance(16)
    assert len(bench.ports.sent_messages) > sent_count
    bench.ports._answered_count = len(bench.ports.sent_messages) - 1
    bench.ports.answer_queries()
    assert bench.desk.reconciler.is_done


def test_an_unanswered_request_is_asked_about(make_bench: Make) -> None:
    """A live link and a request without an answer: its status is asked for, and taken over."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.order_reports.append(
        status_report(
            new_order.cl_ord_id,
            OrdStatus.NEW,
            account="A",
            order_qty=100,
            leaves_qty=100,
            price=100,
            side=Side.BUY,
            order_id="O1",
        )
    )
    for _ in range(3):
        bench.ports.advance(6)
        bench.ports.answer_queries()
    assert "NEW 0/100 leaves 100" in first_order_text(bench)


def test_a_report_ahead_of_us_makes_the_desk_ask(make_bench: Make) -> None:
    """A cancel that tells of more than we have booked: an execution is missing."""
    bench = make_bench(BUYER, venue=False)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    bench.ports.deliver_report(new_order, ExecType.CANCELED, OrdStatus.CANCELED, cum_qty=10)
    assert not bench.desk.reconciler.is_done
    bench.ports.executions.append(
        make_trade(new_order.cl_ord_id, side=Side.BUY, order_qty=100, cum_qty=10, last_qty=10)
    )
    bench.ports.answer_queries()
    assert bench.desk.orders.all_orders()[0].cum_qty == 10


def test_a_config_tells_its_accounts_and_instruments() -> None:
    """In the order of first mention; a stranger is None."""
    config = DeskConfig(instruments=[], strategies=[BUYER, STANDING_SELLER, SELLER])
    assert config.accounts() == ["A", "B"]
    assert config.instrument("X") is None


def test_a_request_that_the_venue_never_got_is_over(make_bench: Make) -> None:
    """A live link and no answer; the venue does not know the order, and says so each time that it is asked."""
    bench = make_bench(BUYER)
    bench.start()
    bench.first_order()
    for _ in range(6):
        bench.ports.advance(6)
        bench.ports.answer_queries()
    assert "REJECTED 0/100 leaves 0" in first_order_text(bench)


def test_a_restatement_takes_over_the_terms(make_bench: Make) -> None:
    """The venue restates an order at another price: what has filled of it stays."""
    bench = make_bench(BUYER)
    bench.start()
    new_order = bench.first_order()
    bench.ports.accept(new_order)
    bench.ports.fill(new_order, 30, 100, 30)
    bench.ports.deliver_report(
        new_order, ExecType.RESTATED, OrdStatus.PARTIALLY_FILLED, price=98, cum_qty=30, leaves_qty=70
    )
    assert "PARTIALLY_FILLED 30/100 leaves 70" in first_order_text(bench)
    assert bench.desk.orders.all_orders()[0].price == 98


# -- the store ------------------------------------------------------------------------------------------------------


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    """One inside another is part of it; what raises takes everything back."""
    store = Store(tmp_path, synced=False)
    with store.transaction(), store.transaction():
        store.set("kept", "1")

    def half_way() -> None:
        with store.transaction():
            store.set("kept", "2")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half"):
        half_way()
    assert store.get("kept") == "1"
    store.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slice_qty": 0}, "slice_qty is 0"),
        ({"interval_ns": -1}, "interval_ns is -1"),
        ({"participation_bp": 10_001}, "1 to 10000"),
        ({"algorithm": "guess"}, "should be twap"),
        ({"account": ""}, "should not be empty"),
    ],
)
def test_an_impossible_strategy_is_refused(change: dict[str, Any], message: str) -> None:
    """The error names the strategy, the field and what would be right."""
    with pytest.raises(ValueError, match=message):
        replace(BUYER, **change)


def test_a_row_that_holds_another_record_is_refused(tmp_path: Path) -> None:
    """The store compares each row that it reads with the key under which it was written."""
    store = Store(tmp_path, synced=False)
    with store.transaction():
        store.save(Position(account="A", symbol="X", net_qty=1))
        store.set("in_seq", "-3")
    with pytest.raises(DeskStoreError, match="in_seq is '-3'"):
        store.get_int("in_seq")
    store._db.execute("UPDATE record SET key='A/Y'")
    with pytest.raises(DeskStoreError, match="the row of Position A/Y holds A/X"):
        store.load_all(Position)
    store._db.execute("UPDATE record SET body=x'c1'")
    with pytest.raises(DeskStoreError, match="is damaged"):
        store.load_all(Position)
    store.close()
