"""The desk's own logic: orders, books, parents, reconciliation, gateway; every test from nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdover.desk import DeskConfig
from holdover.desk.store import Store
from holdover.model import (
    CancelReject,
    ExecType,
    ExecutionReport,
    MsgType,
    OrdStatus,
    Query,
    SecurityStatus,
    Side,
)
from tests.desk_bench import BUYER, CLOSE_NS, DAY, OPEN_NS, SELLER, STANDING, Bench, order, status

Make = Callable[..., Bench]


def trade_of(cl_ord_id: str, **fields: Any) -> ExecutionReport:
    """A fill that nobody here has asked for: seven sold at 99."""
    told = {"side": Side.SELL, "order_qty": 7, "cum_qty": 7, "last_qty": 7, "last_px": 99, "notional": 693, **fields}
    report = status(cl_ord_id, OrdStatus.FILLED, account="A", exec_id="H1", **told)
    return replace(report, exec_type=ExecType.TRADE)


# -- orders ---------------------------------------------------------------------------------------------------------


def test_a_slice_is_sent_when_it_is_due(make_bench: Make) -> None:
    """At the touch, of the slice's size, and nothing before the first look."""
    bench = make_bench(BUYER)
    bench.up()
    bench.outside.wait(20)
    assert bench.outside.requests == []
    sent = bench.first_order()
    assert (sent.msg_type, sent.order_qty, sent.price, sent.side) == (MsgType.NEW_ORDER_SINGLE, 100, 100, Side.BUY)
    assert "PENDING_NEW 0/100 leaves 100" in order(bench)


def test_fills_move_every_book(make_bench: Make) -> None:
    """Order, position, cash, exposure and parent follow two fills to the lot."""
    bench = make_bench(BUYER)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    assert "NEW 0/100 leaves 100" in order(bench)
    bench.outside.fill(sent, 30, 100, 30)
    assert "PARTIALLY_FILLED 30/100 leaves 70" in order(bench)
    bench.outside.fill(sent, 70, 101, 100)
    assert "FILLED 100/100 leaves 0" in order(bench)
    held = bench.desk.positions.get("A/X")
    assert held is not None
    assert held.net_qty == 100
    assert bench.desk.ledger.balances()[0].cash < 0
    assert bench.desk.parents.all()[0].filled_qty == 100
    assert bench.desk.orders.open() == []


def test_a_fill_told_twice_is_booked_once(make_bench: Make) -> None:
    """The same ExecID on the same day moves nothing again."""
    bench = make_bench(BUYER)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    told = bench.outside.fill(sent, 30, 100, 30)
    bench.outside.say(told)
    assert "30/100 leaves 70" in order(bench)
    assert len(bench.desk.orders.executions()) == 1


def test_a_fill_acknowledges(make_bench: Make) -> None:
    """A trade before the acknowledgement makes the order partly filled; the late acknowledgement changes nothing."""
    bench = make_bench(BUYER)
    bench.up()
    sent = bench.first_order()
    bench.outside.fill(sent, 30, 100, 30)
    bench.outside.accept(sent)
    assert "PARTIALLY_FILLED 30/100 leaves 70" in order(bench)


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
    bench.up()
    sent = bench.first_order()
    bench.outside.report(sent, exec_type, ord_status)
    assert f"{ord_status.name} 0/100 leaves 0" in order(bench)
    bench.outside.accept(sent)
    bench.outside.report(sent, exec_type, ord_status)
    assert bench.desk.orders.open() == []


@pytest.mark.parametrize("exec_type", [ExecType.STOPPED, ExecType.SUSPENDED])
def test_a_status_without_a_quantity(make_bench: Make, exec_type: ExecType) -> None:
    """Stopped and suspended keep what is left."""
    bench = make_bench(BUYER)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    bench.outside.report(sent, exec_type, OrdStatus[exec_type.name])
    assert f"{exec_type.name} 0/100 leaves 100" in order(bench)


def test_done_for_day_ends_a_day_order(make_bench: Make) -> None:
    """It cannot fill any more, so nothing is left of it."""
    bench = make_bench(BUYER)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    bench.outside.report(sent, ExecType.DONE_FOR_DAY, OrdStatus.DONE_FOR_DAY)
    assert "DONE_FOR_DAY 0/100 leaves 0" in order(bench)


def test_a_bust_takes_a_fill_back(make_bench: Make) -> None:
    """The order is open again with what the bust freed; the position is flat."""
    bench = make_bench(BUYER)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    told = bench.outside.fill(sent, 100, 100, 100)
    bench.outside.report(
        sent,
        ExecType.TRADE_CANCEL,
        OrdStatus.NEW,
        exec_ref_id=told.exec_id,
        leaves_qty=100,
    )
    assert "NEW 0/100 leaves 100" in order(bench)
    held = bench.desk.positions.get("A/X")
    assert held is not None
    assert held.net_qty == 0


def test_a_correction_moves_the_difference(make_bench: Make) -> None:
    """From thirty at a hundred to twenty at a hundred and one."""
    bench = make_bench(BUYER)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    told = bench.outside.fill(sent, 30, 100, 30)
    bench.outside.report(
        sent,
        ExecType.TRADE_CORRECT,
        OrdStatus.PARTIALLY_FILLED,
        exec_ref_id=told.exec_id,
        last_qty=20,
        last_px=101,
        cum_qty=20,
        leaves_qty=80,
    )
    assert "PARTIALLY_FILLED 20/100 leaves 80" in order(bench)
    assert bench.desk.orders.all()[0].notional == 2020


def test_a_bust_of_an_unknown_fill_is_asked_about(make_bench: Make) -> None:
    """What it refers to is missing: the venue is asked again, and nothing is booked."""
    bench = make_bench(BUYER)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    bench.outside.report(sent, ExecType.TRADE_CANCEL, OrdStatus.NEW, exec_ref_id="E-nowhere")
    assert not bench.desk.reconciler.done
    assert bench.desk.orders.executions() == []


def test_a_foreign_order_is_adopted(make_bench: Make) -> None:
    """An order entered by hand at the venue is taken in and marked so; its fill is a fill."""
    bench = make_bench(BUYER)
    bench.up()
    bench.outside.say(trade_of("HAND-1"))
    assert bench.desk.orders.all()[0].foreign
    held = bench.desk.positions.get("A/X")
    assert held is not None
    assert held.net_qty == -7


# -- working a parent -----------------------------------------------------------------------------------------------


def test_a_slice_that_waits_is_repriced_and_then_pulled(make_bench: Make) -> None:
    """To the touch, across the spread, and away: a replace at a time, each after an answer."""
    bench = make_bench(BUYER, answer_ns=600_000_000_000)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    bench.outside.top("X").bid_px = 101
    seen: list[tuple[str, int | None]] = []
    number = len(bench.outside.requests)
    for _ in range(12):
        bench.outside.wait(30)
        for request in bench.outside.requests[number:]:
            number += 1
            if request.root_cl_ord_id != sent.root_cl_ord_id:
                bench.outside.accept(request)
                continue
            seen.append((request.msg_type.name, request.price))
            if request.msg_type == MsgType.ORDER_CANCEL_REPLACE_REQUEST:
                bench.outside.report(request, ExecType.REPLACED, OrdStatus.NEW, leaves_qty=100)
            else:
                bench.outside.report(request, ExecType.CANCELED, OrdStatus.CANCELED)
    assert seen[0] == ("ORDER_CANCEL_REPLACE_REQUEST", 101)
    assert ("ORDER_CANCEL_REPLACE_REQUEST", 102) in seen
    assert seen[-1][0] == "ORDER_CANCEL_REQUEST"
    assert "CANCELED 0/100 leaves 0" in order(bench)


def test_a_refused_change_leaves_the_order_as_it_stood(make_bench: Make) -> None:
    """A replace that the venue refuses: pending no more, quantity and price as before."""
    bench = make_bench(BUYER, answer_ns=600_000_000_000)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    bench.outside.top("X").bid_px = 101
    bench.outside.wait(70)
    change = next(one for one in bench.outside.requests if one.msg_type == MsgType.ORDER_CANCEL_REPLACE_REQUEST)
    assert "PENDING_REPLACE" in order(bench)
    bench.outside.say(
        CancelReject(cl_ord_id=change.cl_ord_id, orig_cl_ord_id=sent.cl_ord_id, ord_status=OrdStatus.NEW, account="A")
    )
    assert "NEW 0/100 leaves 100" in order(bench)
    assert bench.desk.orders.all()[0].price == 100


def test_a_closing_order_takes_no_more_than_is_held(make_bench: Make) -> None:
    """Nothing while flat; then what is free; and what it works is reserved."""
    bench = make_bench(BUYER, SELLER)
    bench.up()
    bench.outside.top("X").traded_qty = 10_000
    sent = bench.first_order()
    assert {one.strategy for one in bench.outside.requests} == {"buyer"}
    bench.outside.accept(sent)
    bench.outside.fill(sent, 30, 100, 30)
    bench.outside.wait(30)
    sold = next(one for one in bench.outside.requests if one.strategy == "seller")
    assert (sold.order_qty, sold.price) == (30, 102)
    held = bench.desk.positions.get("A/X")
    assert held is not None
    assert held.reserved_qty == 30
    bench.outside.report(sold, ExecType.REJECTED, OrdStatus.REJECTED)
    held = bench.desk.positions.get("A/X")
    assert held is not None
    assert held.reserved_qty == 0


def test_a_standing_order_stands_behind_the_touch(make_bench: Make) -> None:
    """One at a time, above the offer by its offset."""
    bench = make_bench(STANDING)
    bench.up()
    sent = bench.first_order()
    assert (sent.order_qty, sent.side) == (300, Side.SELL)
    assert sent.price is not None
    assert sent.price > 102
    bench.outside.accept(sent)
    bench.outside.wait(60)
    assert len([one for one in bench.outside.requests if one.msg_type == MsgType.NEW_ORDER_SINGLE]) == 1


def test_nothing_is_sent_into_an_empty_or_closed_book(make_bench: Make) -> None:
    """No price on our side, a halted book, a day that is over."""
    bench = make_bench(BUYER)
    bench.up()
    bench.outside.top("X").bid_px = 2**63 - 1
    bench.outside.wait(31)
    assert bench.outside.requests == []
    bench.outside.top("X").bid_px = 100
    bench.outside.say(SecurityStatus(symbol="X", trading=False, reason="halt"))
    bench.outside.wait(31)
    assert bench.outside.requests == []
    bench.outside.say(SecurityStatus(symbol="X", trading=True, reason="open"))
    bench.outside.top("X").trading = False
    bench.outside.wait(31)
    bench.outside.now_ns = CLOSE_NS
    bench.outside.wait(31)
    assert bench.outside.requests == []


def test_limits_hold_an_order_back(make_bench: Make) -> None:
    """What would take the account over its limit is not sent."""
    bench = make_bench(BUYER, position_max=99)
    bench.up()
    bench.outside.wait(31)
    assert bench.outside.requests == []
    assert bench.desk.orders.all() == []


def test_a_freeze_holds_everything_back(make_bench: Make) -> None:
    """Nothing leaves a frozen account, and nothing is remembered as sent."""
    bench = make_bench(BUYER)
    bench.up()
    bench.guard.freeze("account:A", operator="op", reason="test")
    bench.outside.wait(31)
    assert bench.outside.requests == []


# -- at an operator's word ------------------------------------------------------------------------------------------


def test_an_operator_reprices_and_cancels(make_bench: Make) -> None:
    """One order, by its key: a replace at another price, a cancel; nothing while a request is under way."""
    bench = make_bench(BUYER, answer_ns=600_000_000_000)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    bench.desk.reprice(sent.root_cl_ord_id, 100)
    assert len(bench.outside.requests) == 1
    bench.desk.reprice(sent.root_cl_ord_id, 99)
    change = bench.outside.requests[-1]
    assert (change.msg_type, change.price) == (MsgType.ORDER_CANCEL_REPLACE_REQUEST, 99)
    bench.desk.cancel(sent.root_cl_ord_id)
    assert bench.outside.requests[-1] is change
    bench.outside.report(change, ExecType.REPLACED, OrdStatus.NEW, leaves_qty=100)
    assert bench.desk.orders.all()[0].price == 99
    bench.desk.cancel(sent.root_cl_ord_id)
    assert bench.outside.requests[-1].msg_type == MsgType.ORDER_CANCEL_REQUEST
    assert "PENDING_CANCEL 0/100 leaves 100" in order(bench)


def test_an_operator_sends_a_slice(make_bench: Make) -> None:
    """At once, so many increments behind the touch, no more than the parent has left; none beside an unknown one."""
    bench = make_bench(BUYER)
    bench.up()
    bench.desk.submit(0, 5_000, 3)
    sent = bench.outside.requests[-1]
    assert (sent.order_qty, sent.price) == (1_000, 97)
    bench.desk.submit(0, 1, 0)
    assert len(bench.outside.requests) == 1
    bench.outside.now_ns = CLOSE_NS
    bench.desk.submit(0, 1, 0)
    assert len(bench.outside.requests) == 1


def test_a_late_strategy_comes_to_the_touch_near_the_close(make_bench: Make) -> None:
    """Behind the touch by its offset for the day, at the touch from so long before the close on."""
    bench = make_bench(replace(STANDING, late_ns=600 * 1_000_000_000, patience=1_000))
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    assert sent.price is not None
    assert sent.price > 102
    for _ in range(120):
        bench.outside.wait(30)
        change = bench.outside.requests[-1]
        if "PENDING_REPLACE" in order(bench):
            bench.outside.report(change, ExecType.REPLACED, OrdStatus.NEW, leaves_qty=300)
    assert bench.desk.orders.all()[0].price == 102
    assert change.transact_time_ns >= CLOSE_NS - 600 * 1_000_000_000


# -- the link -------------------------------------------------------------------------------------------------------


def test_what_cannot_leave_is_over(make_bench: Make) -> None:
    """The wire refuses an order at the last moment: it was not sent, and is rejected here."""
    bench = make_bench(BUYER)
    bench.up()

    def broken(message: object) -> int:
        raise ConnectionError("gone")

    bench.outside.send = broken  # type: ignore[method-assign]
    bench.outside.wait(31)
    assert bench.outside.requests == []
    assert "REJECTED 0/100 leaves 0" in order(bench)
    assert bench.desk.parents.all()[0].working_qty == 0


def test_messages_are_taken_in_their_order(make_bench: Make) -> None:
    """An old one is dropped, one too early asked for, a heartbeat ahead of us too."""
    bench = make_bench(BUYER)
    bench.up()
    halt = SecurityStatus(symbol="X", trading=False, reason="halt")
    bench.outside.say(halt, seq=1)
    assert bench.desk.gateway.trading("X")
    bench.outside.say(halt, seq=bench.outside.seq + 5)
    assert bench.outside.resends == [bench.outside.seq + 1]
    bench.desk.on_heartbeat(bench.outside.seq + 5)
    bench.desk.on_heartbeat(bench.outside.seq)
    assert len(bench.outside.resends) == 2
    assert bench.desk.gateway.trading("X")


def test_what_is_passed_over_is_asked_for(make_bench: Make) -> None:
    """A sequence reset over messages that will not come makes the desk ask what is so."""
    bench = make_bench(BUYER)
    bench.up()
    bench.desk.on_sequence_reset(bench.outside.seq + 1)
    assert bench.desk.reconciler.done
    bench.desk.on_sequence_reset(bench.outside.seq + 4)
    assert not bench.desk.reconciler.done
    bench.outside.seq += 3
    bench.outside.answer()
    assert bench.desk.reconciler.done


def test_a_lost_link_is_asked_for_again(make_bench: Make) -> None:
    """The desk tries until it is let in, and believes nothing before it has asked."""
    bench = make_bench(BUYER)
    bench.up()
    bench.outside.refuses = True
    bench.outside.cut()
    assert not bench.desk.reconciler.done
    bench.outside.wait(5)
    assert not bench.outside.up
    bench.outside.refuses = False
    bench.outside.wait(2)
    assert bench.outside.up
    bench.outside.answer()
    assert bench.desk.reconciler.done


def test_a_desk_stops_in_good_order(make_bench: Make) -> None:
    """It logs out."""
    bench = make_bench(BUYER)
    bench.up()
    bench.desk.stop()
    assert not bench.outside.up


# -- reconciliation -------------------------------------------------------------------------------------------------


def test_the_questions_come_one_after_another(make_bench: Make) -> None:
    """Executions, orders, positions; of each account."""
    bench = make_bench(BUYER, STANDING)
    bench.up()
    asked = [(one.msg_type.name, one.account) for one in bench.outside.sent if isinstance(one, Query)]
    assert asked == [
        (name, account)
        for name in ("TRADE_CAPTURE_REPORT_REQUEST", "ORDER_MASS_STATUS_REQUEST", "REQUEST_FOR_POSITIONS")
        for account in ("A", "B")
    ]


def test_a_question_without_an_answer_is_asked_again(make_bench: Make) -> None:
    """After a while the desk begins its questions anew."""
    bench = make_bench(BUYER)
    bench.desk.start(DAY, OPEN_NS, CLOSE_NS)
    asked = len(bench.outside.sent)
    bench.outside.wait(16)
    assert len(bench.outside.sent) > asked
    bench.outside._answered = len(bench.outside.sent) - 1
    bench.outside.answer()
    assert bench.desk.reconciler.done


def test_an_unanswered_request_is_asked_about(make_bench: Make) -> None:
    """A live link and a request without an answer: its status is asked for, and taken over."""
    bench = make_bench(BUYER)
    bench.up()
    sent = bench.first_order()
    bench.outside.known.append(
        status(
            sent.cl_ord_id,
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
        bench.outside.wait(6)
        bench.outside.answer()
    assert "NEW 0/100 leaves 100" in order(bench)


def test_a_report_ahead_of_us_makes_the_desk_ask(make_bench: Make) -> None:
    """A cancel that tells of more than we have booked: an execution is missing."""
    bench = make_bench(BUYER, venue=False)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    bench.outside.report(sent, ExecType.CANCELED, OrdStatus.CANCELED, cum_qty=10)
    assert not bench.desk.reconciler.done
    bench.outside.executions.append(trade_of(sent.cl_ord_id, side=Side.BUY, order_qty=100, cum_qty=10, last_qty=10))
    bench.outside.answer()
    assert bench.desk.orders.all()[0].cum_qty == 10


def test_a_config_tells_its_accounts_and_instruments() -> None:
    """In the order of first mention; a stranger is None."""
    config = DeskConfig(instruments=[], strategies=[BUYER, STANDING, SELLER])
    assert config.accounts() == ["A", "B"]
    assert config.instrument("X") is None


def test_a_request_that_the_venue_never_got_is_over(make_bench: Make) -> None:
    """A live link and no answer; the venue does not know the order, and says so each time that it is asked."""
    bench = make_bench(BUYER)
    bench.up()
    bench.first_order()
    for _ in range(6):
        bench.outside.wait(6)
        bench.outside.answer()
    assert "REJECTED 0/100 leaves 0" in order(bench)


def test_a_restatement_takes_over_the_terms(make_bench: Make) -> None:
    """The venue restates an order at another price: what has filled of it stays."""
    bench = make_bench(BUYER)
    bench.up()
    sent = bench.first_order()
    bench.outside.accept(sent)
    bench.outside.fill(sent, 30, 100, 30)
    bench.outside.report(sent, ExecType.RESTATED, OrdStatus.PARTIALLY_FILLED, price=98, cum_qty=30, leaves_qty=70)
    assert "PARTIALLY_FILLED 30/100 leaves 70" in order(bench)
    assert bench.desk.orders.all()[0].price == 98


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
