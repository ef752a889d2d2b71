"""For each seeded fault the shortest natural story that exposes it, told to a session of the desk.

A story is told three times: with its fault, where it must end in a breach of the invariant that the fault names; with
the same operations and the fault off, where nothing may be breached; and its fault has a plain fresh day of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdover.desk import DeskConfig, Strategy
from holdover.harness import Fill, PartialFill, Session, first
from holdover.harness.condition import Condition
from holdover.model import (
    AdjustmentReason,
    CashReason,
    ContingencyType,
    Link,
    LinkState,
    Order,
    OrdStatus,
    OrdType,
    Record,
    Request,
    Side,
    TimeInForce,
)
from holdover.recording import bundled_store
from holdover.world import WorkingOrder

StoryFunction = Callable[[Session], None]
MINUTE = 60_000_000_000


@dataclass(frozen=True)
class Story:
    """How a fault is exposed: what is done to the session, and with what settings it is made."""

    play: StoryFunction
    settings: dict[str, Any] = field(default_factory=dict)


STORIES: dict[str, Story] = {}
WITHOUT_BRACKETS: dict[str, Any] = {"strategies": ["accumulate.ACME", "distribute.ACME", "short.ACME"]}
"""Settings under which no bracket trades between what the story tells."""


def register_story(*names: str, **options: Any) -> Callable[[StoryFunction], StoryFunction]:
    """Register the story of one or several faults."""

    def register(play: StoryFunction) -> StoryFunction:
        for name in names:
            STORIES[name] = Story(play, **options)
        return play

    return register


def run_minutes(session: Session, count: float) -> None:
    """Run the session for some minutes."""
    session.run(session.clock.now_ns + int(count * MINUTE))


def run_until_venue_fill(session: Session) -> None:
    """Run the session, with or without its subject, until the venue has filled something more."""
    trade_count, close_ns = len(session.venue.trades), session.hours()[1]
    while len(session.venue.trades) == trade_count and session.clock.now_ns < close_ns:
        if session.subject is None:
            session.run_without_subject(60)
        else:
            run_minutes(session, 1)


def cancel_at_the_venue_while_killed(session: Session) -> None:
    """Kill the desk at its first fill; start it after the venue has cancelled an order, which it does not replay."""
    session.begin()
    session.run(0.2)
    assert session.run(until=first(Fill), kill=True)
    session.run_without_subject(1)
    live = next(order for order in session.venue.orders.values() if order.is_open)
    session.venue.cancel_order(live.cl_ord_id)
    session.link.recovery = "drop"
    session.restart("kill")


def pass_night(session: Session) -> None:
    """End the day, pass the night and begin the next day."""
    session.end()
    session.overnight()
    session.begin()


def is_new_order_request(subsystem: str, record: Record) -> bool:
    """Whether a record is a new order, committed and not yet sent."""
    return subsystem == "gateway" and isinstance(record, Request) and record.msg_type.name == "NEW_ORDER_SINGLE"


def matches_request(kind: str) -> Callable[[str, Record], bool]:
    """Return a match of a cancel or replace request that is committed and not yet sent."""
    return lambda subsystem, record: (
        subsystem == "gateway" and isinstance(record, Request) and record.msg_type.name == kind
    )


def is_acknowledged_order(subsystem: str, record: Record) -> bool:
    """Whether a record is an order that the venue has acknowledged."""
    return subsystem == "orders" and isinstance(record, Order) and record.ord_status == OrdStatus.NEW


def is_acknowledged_day_order(subsystem: str, record: Record) -> bool:
    """Whether a record is a DAY order that the venue has acknowledged."""
    return (
        isinstance(record, Order)
        and is_acknowledged_order(subsystem, record)
        and record.time_in_force == TimeInForce.DAY
    )


def is_part_of_a_sale(subsystem: str, record: Record) -> bool:
    """Whether a record is an order to sell that has filled in part."""
    if subsystem != "orders" or not isinstance(record, Order):
        return False
    return record.ord_status == OrdStatus.PARTIALLY_FILLED and record.side != Side.BUY


def mutation_condition(matches: Callable[[str, Record], bool], count: int = 1) -> Condition:
    """Return a condition for the `count`-th mutation that matches."""
    return Condition("so", matches, count)


# -- partial fills carried overnight ------------------------------------------------------------------------------


@register_story(
    "forget-carried-partial",
    "reset-cum-on-restatement",
    "double-count-restated",
    "expire-gtc-with-day",
    "average-over-today-only",
    "parent-restarts-from-zero",
    "exec-id-set-cleared-nightly",
    "rolls-yesterdays-opening",
    "carried-changed-in-place",
)
def a_partial_fill_over_the_night(session: Session) -> None:
    """Short of the close a GTC order is partly filled; the next day begins."""
    session.begin()
    session.run(0.1)
    session.run(until=first(PartialFill, tif="GTC"), limit="close")
    session.end()
    assert any(order.is_open and order.cum_qty for order in session.orders())
    session.overnight()
    session.begin()
    session.run(0.01)


@register_story("exec-id-unique-forever", settings=WITHOUT_BRACKETS)
def the_same_exec_ids_again(session: Session) -> None:
    """Two days' fills, the second day's under ExecIDs that the first has used."""
    session.begin()
    session.run(0.3)
    pass_night(session)
    session.run(0.3)


@register_story("keep-day-orders-open")
def a_day_order_expires_while_down(session: Session) -> None:
    """Killed with a DAY order at work; the close comes while the desk is down."""
    session.begin()
    session.run(0.95)
    assert session.run(until=mutation_condition(is_acknowledged_day_order))
    assert session.run(until=mutation_condition(lambda subsystem, record: True), kill=True)
    session.run_without_subject((session.hours()[1] - session.clock.now_ns) / 1_000_000_000)
    assert any(order.is_open and order.time_in_force == TimeInForce.DAY for order in session.venue.orders.values())
    pass_night(session)
    session.run(0.01)


@register_story("correction-of-yesterday-as-new")
def yesterdays_fill_is_corrected(session: Session) -> None:
    """A fill of a GTC order is corrected the next day."""
    session.begin()
    session.run(0.2)
    session.run()
    session.end()
    order = next(candidate for candidate in session.orders() if candidate.is_open and candidate.cum_qty)
    fill = next(trade for trade in session.venue.trades if session.venue.roots[trade.cl_ord_id] == order.key)
    session.overnight()
    session.begin()
    session.run(0.01)
    assert session.venue.correct_trade(fill.exec_id, fill.last_qty - 1, fill.last_px, fill.trade_date)
    run_minutes(session, 1)


@register_story("limit-on-the-day-only", settings={"limits": {"position_max": 22_000}})
def a_position_near_its_limit(session: Session) -> None:
    """The first day ends with a position that leaves little room for the second."""
    session.begin()
    pass_night(session)
    session.run(0.5)


ALL_AT_WORK = DeskConfig(
    instruments=[bundled_store().get("ACME", "2024-11-27").meta.instrument],
    strategies=[
        Strategy(
            name="far.ACME",
            account="A1",
            symbol="ACME",
            side=Side.BUY,
            order_qty=200,
            day_qty=200,
            slice_qty=100,
            algorithm="standing",
            time_in_force=TimeInForce.GTC,
            patience=100_000,
            slices_working_max=6,
            rests=True,
            offset=500,
        ),
        Strategy(
            name="busy.ACME",
            account="A2",
            symbol="ACME",
            side=Side.BUY,
            order_qty=200_000,
            day_qty=20_000,
            slice_qty=100,
        ),
    ],
    synced=False,
)
"""A parent of two slices that stand far below the market over every night, and one that trades."""


@register_story("left-without-carried-work", settings={"desk": ALL_AT_WORK})
def a_parent_at_work_over_the_night(session: Session) -> None:
    """Two slices are the whole parent; both are carried unfilled."""
    session.begin()
    pass_night(session)
    session.run(0.1)


@register_story("split-passes-by")
def a_split_over_the_night(session: Session) -> None:
    """Two for one."""
    session.begin()
    session.run(0.2)
    session.end()
    for order in session.venue.orders.values():
        if order.is_open and ((order.price or 0) % 2 or (order.stop_px or 0) % 2):
            session.venue.cancel_order(order.cl_ord_id)
    session.overnight({"ACME": (2, 1)})
    session.begin()
    session.run(0.01)


# -- brackets, legs and intents -----------------------------------------------------------------------------------


def is_filled_entry(subsystem: str, record: Record) -> bool:
    """Whether a record is the entry of a bracket that has filled whole."""
    return (
        isinstance(record, Order)
        and subsystem == "orders"
        and record.contingency_type == ContingencyType.ONE_TRIGGERS_THE_OTHER
        and record.ord_status == OrdStatus.FILLED
    )


def bracket_exit(session: Session, ord_type: OrdType) -> WorkingOrder:
    """Return the open take-profit (LIMIT) or stop (STOP) of the bracket at the venue."""
    return next(
        order
        for order in session.venue.orders.values()
        if order.position_side and order.side == Side.SELL and order.ord_type == ord_type and order.is_open
    )


def fill_whole(session: Session, order: WorkingOrder) -> None:
    """Fill what is left of an order at the venue, at its price or at the market's."""
    session.venue.lifecycle.fill(order, order.leaves_qty, order.price or order.stop_px or 1)


@register_story("exits-sent-unlinked")
def both_exits_are_reached_after_a_restart(session: Session) -> None:
    """A restart, a bracket; the take-profit fills, and half a minute later the stop if it is still there."""
    session.begin()
    run_minutes(session, 1)
    session.restart("kill")
    assert session.run(until=mutation_condition(is_filled_entry))
    run_minutes(session, 0.1)
    stop = bracket_exit(session, OrdType.STOP)
    fill_whole(session, bracket_exit(session, OrdType.LIMIT))
    run_minutes(session, 0.5)
    if stop.is_open:
        fill_whole(session, stop)
    run_minutes(session, 0.5)


@register_story("stop-not-sent-again")
def the_venue_cancels_a_stop_in_a_cut(session: Session) -> None:
    """The link is cut, the venue cancels the stop of a bracket, and does not replay."""
    session.begin()
    assert session.run(until=mutation_condition(is_filled_entry))
    run_minutes(session, 0.1)
    session.disconnect(recovery="drop")
    assert session.venue.cancel_order(bracket_exit(session, OrdType.STOP).cl_ord_id)
    run_minutes(session, 0.5)
    session.reconnect()
    run_minutes(session, 1)


@register_story("leg-starts-flat")
def a_stop_fills_while_the_desk_is_down(session: Session) -> None:
    """Killed with a position on the long leg; its stop fills before the desk is up again."""
    session.begin()
    assert session.run(until=mutation_condition(is_filled_entry))
    run_minutes(session, 0.1)
    assert session.run(until=mutation_condition(lambda subsystem, record: True), kill=True)
    fill_whole(session, bracket_exit(session, OrdType.STOP))
    session.restart("kill")
    run_minutes(session, 1)


@register_story("parent-shrinks-to-its-remainder")
def a_fill_of_a_parent_and_a_restart(session: Session) -> None:
    """Something of a parent has filled; the desk is restarted and works on."""
    session.begin()
    session.run(0.2)
    session.run(until=first(Fill))
    run_minutes(session, 0.1)
    session.restart()
    run_minutes(session, 1)


# -- reconciliation across restarts -------------------------------------------------------------------------------


@register_story("snapshot-then-fills-again", "risk-starts-flat", "closed-orders-not-restored", "clock-set-by-recovery")
def a_fill_and_a_restart(session: Session) -> None:
    """A few fills, a kill on the same day."""
    session.begin()
    session.run(0.2)
    session.run(until=first(Fill))
    run_minutes(session, 0.1)
    session.restart("kill")
    run_minutes(session, 1)


@register_story("risk-by-order-qty")
def a_partial_fill_and_a_restart(session: Session) -> None:
    """An order is partly filled, and the desk is restarted in good order."""
    session.begin()
    session.run(0.2)
    session.run(until=first(PartialFill))
    run_minutes(session, 0.01)
    session.restart()
    run_minutes(session, 1)


@register_story("position-before-order")
def killed_inside_a_fill(session: Session) -> None:
    """Killed at the record of an execution."""
    session.begin()
    session.run(0.2)
    assert session.run(until=first(Fill), kill=True)
    session.restart("kill")
    run_minutes(session, 1)


@register_story("trust-local-when-flat")
def a_fill_missed_on_flat_books(session: Session) -> None:
    """The first orders of the day fill while the link is cut, and the venue does not replay."""
    session.begin()
    session.run(until=mutation_condition(is_acknowledged_order))
    assert not any(position.net_qty for position in session.venue.positions.values())
    session.disconnect(recovery="drop")
    run_until_venue_fill(session)
    session.reconnect()
    run_minutes(session, 1)


@register_story("adopt-venue-position-keep-orders")
def a_fill_while_down(session: Session) -> None:
    """Killed; an order fills before the desk is up again."""
    session.begin()
    session.run(0.2)
    assert session.run(until=mutation_condition(lambda s, r: is_acknowledged_order(s, r) and r.is_carried))  # type: ignore[attr-defined]
    assert session.run(until=mutation_condition(lambda subsystem, record: True), kill=True)
    run_until_venue_fill(session)
    session.restart("kill")
    run_minutes(session, 1)


@register_story("missed-cancel-on-restart")
def a_cancel_at_the_venue_while_down(session: Session) -> None:
    """Killed; the venue cancels an order, and does not tell again what it told meanwhile."""
    cancel_at_the_venue_while_killed(session)
    run_minutes(session, 1)


@register_story("reused-client-id")
def orders_before_and_after_a_restart(session: Session) -> None:
    """An order, a restart, another order on the same day."""
    session.begin()
    session.run(0.1)
    session.restart("kill")
    session.run(0.2)


@register_story("lost-unsent-order")
def killed_before_sending(session: Session) -> None:
    """Killed when an order is stored and not yet sent."""
    session.begin()
    session.run(0.1)
    assert session.run(until=mutation_condition(is_new_order_request), kill=True)
    session.restart("kill")
    run_minutes(session, 2)


@register_story("sent-before-stored")
def killed_after_sending(session: Session) -> None:
    """Killed at the first record after an order has been sent."""
    session.begin()
    session.run(0.1)
    leaving: list[Record] = []

    def has_left(subsystem: str, record: Record) -> bool:
        if is_new_order_request(subsystem, record):
            leaving.append(record)
        return bool(leaving) and isinstance(record, Link) and record.change == LinkState.MESSAGE

    assert session.run(until=mutation_condition(has_left), kill=True)
    session.restart("kill")
    run_minutes(session, 2)


@register_story("freeze-in-memory", "thaws-by-itself")
def frozen_before_a_restart(session: Session) -> None:
    """An operator freezes an account; the desk is restarted."""
    session.begin()
    session.run(0.1)
    session.guard.freeze("account:A1", operator="kay", reason="a look at the account", allows=["query"])
    run_minutes(session, 2)
    session.restart("kill")
    run_minutes(session, 15)


@register_story("change-id-counted-in-memory")
def replaces_before_and_after_a_restart(session: Session) -> None:
    """An order is replaced, the desk restarted, the order replaced again."""
    session.begin()
    session.run(until=mutation_condition(matches_request("ORDER_CANCEL_REPLACE_REQUEST")))
    run_minutes(session, 0.1)
    session.restart("kill")
    run_minutes(session, 45)


@register_story("claims-foreign-orders")
def a_foreign_order_and_a_restart(session: Session) -> None:
    """Somebody trades by hand, and the desk is restarted."""
    session.begin()
    session.run(0.1)
    session.venue.manual_trade("A1", "ACME", Side.BUY, 7, 10_000)
    run_minutes(session, 1)
    session.restart()
    run_minutes(session, 1)


@register_story("reservations-in-memory")
def a_closing_order_and_a_restart(session: Session) -> None:
    """An order that closes a position is at work when the desk is restarted."""
    session.begin()
    assert session.run(until=mutation_condition(lambda s, r: is_acknowledged_order(s, r) and r.closing_alone_qty > 0))  # type: ignore[attr-defined]
    session.restart()
    run_minutes(session, 1)


@register_story("disabled-book-forgotten")
def a_disabled_book_and_a_restart(session: Session) -> None:
    """The venue disables the book; the desk is restarted."""
    session.begin()
    session.run(0.1)
    session.venue.disable_book("ACME")
    run_minutes(session, 1)
    session.restart("kill")
    run_minutes(session, 20)


# -- order state over disconnects ---------------------------------------------------------------------------------


@register_story("resent-fill-booked-again", settings=WITHOUT_BRACKETS)
def a_fill_and_two_cuts(session: Session) -> None:
    """Something has filled; the link is cut, comes up, and is cut once more before anything else has happened."""
    session.begin()
    session.run(0.2)
    session.run(until=first(Fill))
    run_minutes(session, 0.1)
    for _ in range(2):
        session.disconnect()
        run_minutes(session, 0.1)
        session.reconnect()
        run_minutes(session, 0.1)


@register_story("resume-without-asking")
def a_fill_while_cut_off(session: Session) -> None:
    """An order fills while the link is cut, and the venue does not replay."""
    session.begin()
    session.run(0.2)
    session.disconnect(recovery="drop")
    run_until_venue_fill(session)
    session.reconnect()
    run_minutes(session, 1)


@register_story("late-fill-after-cancel-dropped")
def a_fill_told_after_the_cancel(session: Session) -> None:
    """The venue cancels what is left of a partial fill, and tells of a fill that had crossed it after a cut."""
    session.begin()
    session.run(0.2)
    session.run(until=first(PartialFill, tif="GTC"))
    order = next(candidate for candidate in session.orders() if candidate.is_open and candidate.cum_qty)
    assert session.venue.cancel_order(order.cl_ord_id)
    run_minutes(session, 0.1)
    session.disconnect()
    run_minutes(session, 0.5)
    session.reconnect()
    run_minutes(session, 0.5)
    assert session.venue.late_fill(order.cl_ord_id, 1)
    run_minutes(session, 1)


@register_story("cancel-assumed")
def a_cancel_lost_on_its_way(session: Session) -> None:
    """One cancel does not reach the venue, on a link that has been cut before."""
    session.begin()
    session.run(0.01)
    session.disconnect()
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 1)
    leaves = matches_request("ORDER_CANCEL_REQUEST")
    dropped_requests: list[Record] = []

    def lose_the_first(subsystem: str, record: Record) -> None:
        if leaves(subsystem, record) and not dropped_requests:
            dropped_requests.append(record)
            session.link.inject_fault("out", 1, "drop")

    session.host.on_record = lose_the_first
    session.run(until=mutation_condition(leaves))
    assert dropped_requests
    run_minutes(session, 20)


@register_story("replace-applied-on-send")
def a_refusal_lost_in_a_cut(session: Session) -> None:
    """The venue refuses a replace, and the link is cut before it is heard."""
    session.begin()
    session.run(0.1)
    assert session.run(until=mutation_condition(matches_request("ORDER_CANCEL_REPLACE_REQUEST")))
    session.venue.refuse_count = 1
    session.run(session.clock.now_ns + session.link.latency_ns + 1_000)
    session.disconnect(recovery="drop")
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 1)


@register_story("resubmit-on-silence")
def an_acknowledgement_lost_in_a_cut(session: Session) -> None:
    """The link is cut when an order has reached the venue and its acknowledgement has not reached the desk."""
    session.begin()
    session.run(0.1)
    assert session.run(until=mutation_condition(is_new_order_request))
    session.run(session.clock.now_ns + session.link.latency_ns + 1_000)
    session.disconnect(recovery="drop")
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 1)


@register_story("external-order-not-adopted")
def a_trade_by_hand_while_cut_off(session: Session) -> None:
    """Somebody trades by hand while the link is cut, and the venue does not replay."""
    session.begin()
    session.run(0.1)
    session.disconnect(recovery="drop")
    session.venue.manual_trade("A1", "ACME", Side.BUY, 7, 10_000)
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 1)


@register_story("works-on-the-first-answer")
def answers_that_take_long(session: Session) -> None:
    """After a reconnect the second question takes twenty seconds on its way, and a look is due meanwhile."""
    session.begin()
    session.run(0.1)
    session.disconnect(recovery="replay")
    session.run(session.hours()[0] + 60 * MINUTE - MINUTE // 12)
    session.reconnect()
    session.link.inject_fault("out", 2, "hold", MINUTE // 3)
    run_minutes(session, 5)


@register_story("question-asked-once")
def a_question_lost(session: Session) -> None:
    """The first question after a reconnect does not reach the venue."""
    session.begin()
    session.run(0.1)
    session.disconnect(recovery="replay")
    run_minutes(session, 1)
    session.reconnect()
    session.link.inject_fault("out", 1, "drop")
    run_minutes(session, 2)


@register_story("epoch-of-the-first-logon")
def an_order_after_a_reconnect(session: Session) -> None:
    """A cut, a reconnect, a new order."""
    session.begin()
    session.run(0.1)
    session.disconnect()
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 10)


@register_story("close-left-after-a-bust")
def the_position_under_a_close_is_busted(session: Session) -> None:
    """A closing order is at work; what it was to close is taken back."""
    session.begin()
    assert session.run(until=mutation_condition(lambda s, r: is_acknowledged_order(s, r) and r.closing_alone_qty > 0))  # type: ignore[attr-defined]
    for fill in [trade for trade in session.venue.trades if trade.side == Side.BUY]:
        assert session.venue.bust_trade(fill.exec_id)
    run_minutes(session, 1)


@register_story("gap-passed-over")
def one_message_lost(session: Session) -> None:
    """One message of the venue is lost, on a link that has been cut before."""
    session.begin()
    session.run(0.1)
    session.disconnect()
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 1)
    assert session.run(until=mutation_condition(matches_request("ORDER_CANCEL_REPLACE_REQUEST")))
    session.link.inject_fault("in", 1, "drop")
    run_minutes(session, 1)


@register_story("chain-lost-in-status")
def the_answer_to_a_replace_is_lost(session: Session) -> None:
    """The link is cut when a replace has been accepted and the answer has not been heard."""
    session.begin()
    session.run(0.1)
    assert session.run(until=mutation_condition(matches_request("ORDER_CANCEL_REPLACE_REQUEST")))
    session.run(session.clock.now_ns + session.link.latency_ns + 1_000)
    session.disconnect(recovery="drop")
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 1)


# -- terms and rates ----------------------------------------------------------------------------------------------


@register_story("old-price-after-replace")
def a_replace_after_a_restart(session: Session) -> None:
    """An order is at work when the desk is restarted; then it is replaced."""
    session.begin()
    session.run(0.1)
    session.run(until=mutation_condition(is_acknowledged_order))
    session.restart("kill")
    run_minutes(session, 45)


@register_story("restored-fill-booked-as-buy")
def a_sale_after_a_restart(session: Session) -> None:
    """An order to sell is at work when the desk is restarted, and fills in part afterwards."""
    session.begin()
    session.run(0.1)
    assert session.run(until=mutation_condition(is_part_of_a_sale))
    session.restart("kill")
    run_minutes(session, 60)


# -- accounts: what moves without a trade ---------------------------------------------------------------------------


@register_story("account-changes-not-queried")
def changes_of_an_account_while_cut_off(session: Session) -> None:
    """A fee in kind arrives live; another and a funding payment come while the link is cut, not replayed."""
    session.begin()
    session.run(0.1)
    accounts = session.venue.accounts
    assert accounts.adjust_position("A1", session.symbols[0], -1, AdjustmentReason.FEE)
    run_minutes(session, 1)
    session.disconnect(recovery="drop")
    assert accounts.adjust_position("A1", session.symbols[0], -2, AdjustmentReason.TRANSFER)
    assert accounts.move_cash("A1", "USD", -7_000_000, CashReason.FUNDING)
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 2)


@register_story("adjustment-booked-again")
def an_adjustment_and_a_restart(session: Session) -> None:
    """A fee in kind, and a restart in good order."""
    session.begin()
    session.run(0.1)
    assert session.venue.accounts.adjust_position("A1", session.symbols[0], -3, AdjustmentReason.FEE)
    run_minutes(session, 1)
    session.restart()
    run_minutes(session, 1)


@register_story("movement-booked-again")
def a_movement_and_a_restart(session: Session) -> None:
    """A dividend, and a kill."""
    session.begin()
    session.run(0.1)
    assert session.venue.accounts.move_cash("A1", "USD", 5_000_000, CashReason.DIVIDEND, session.symbols[0])
    run_minutes(session, 1)
    session.restart("kill")
    run_minutes(session, 2)


@register_story("flow-forgotten-at-restart")
def fills_before_and_after_a_restart(session: Session) -> None:
    """Fills, a kill, more fills on the same day."""
    session.begin()
    session.run(0.2)
    session.run(until=first(Fill))
    run_minutes(session, 0.1)
    session.restart("kill")
    session.run(0.4)


@register_story("learnt-without-its-price", "queried-price-scaled-twice")
def a_fill_learnt_by_a_query(session: Session) -> None:
    """The link is cut, an order fills, and the venue does not replay."""
    session.begin()
    session.run(0.2)
    session.disconnect(recovery="drop")
    run_until_venue_fill(session)
    session.reconnect()
    run_minutes(session, 1)


@register_story("link-lost-in-status")
def an_order_at_work_over_a_cut(session: Session) -> None:
    """An order is at work when the link is cut and comes up again."""
    session.begin()
    session.run(0.1)
    session.run(until=mutation_condition(is_acknowledged_order))
    session.disconnect()
    run_minutes(session, 0.1)
    session.reconnect()
    run_minutes(session, 1)


@register_story("time-in-force-not-restored", "link-not-restored")
def a_carried_order_and_a_restart(session: Session) -> None:
    """A GTC order is at work when the desk is restarted."""
    session.begin()
    session.run(0.1)
    assert session.run(until=mutation_condition(lambda s, r: is_acknowledged_order(s, r) and r.is_carried))  # type: ignore[attr-defined]
    session.restart("kill")
    run_minutes(session, 1)


@register_story("stranger-taken-for-own")
def a_stranger_learnt_by_a_query(session: Session) -> None:
    """Somebody trades by hand while the link is cut, and the venue does not replay."""
    session.begin()
    session.run(0.1)
    session.disconnect(recovery="drop")
    session.venue.manual_trade("A1", "ACME", Side.BUY, 7, 10_000)
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 1)


@register_story("manual-trade-joins-parent")
def a_trade_against_the_parent_while_cut_off(session: Session) -> None:
    """Somebody trades by hand, on each side, while the link is cut, and the venue does not replay."""
    session.begin()
    session.run(0.1)
    session.disconnect(recovery="drop")
    for side in (Side.BUY, Side.SELL):
        session.venue.manual_trade("A1", "ACME", side, 7, 10_000)
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 1)


SIX_SLICES = msgspec.structs.replace(
    ALL_AT_WORK,
    strategies=[
        msgspec.structs.replace(ALL_AT_WORK.strategies[0], order_qty=600, day_qty=600),
        msgspec.structs.replace(ALL_AT_WORK.strategies[1], account="A1"),
    ],
)
"""A parent of six slices that stand far below the market, and one that trades in the same account."""


@register_story("chases-its-own-quote", settings={"desk": SIX_SLICES})
def a_replace_after_a_cut(session: Session) -> None:
    """A cut, a reconnect, a replace."""
    session.begin()
    session.run(0.1)
    session.disconnect()
    run_minutes(session, 1)
    session.reconnect()
    assert session.run(until=mutation_condition(matches_request("ORDER_CANCEL_REPLACE_REQUEST")))
    run_minutes(session, 0.05)


@register_story("refusal-repeated-at-once")
def replaces_refused_after_a_cut(session: Session) -> None:
    """After a cut and a reconnect the venue refuses what it is asked for."""
    session.begin()
    session.run(0.1)
    session.disconnect()
    run_minutes(session, 1)
    session.reconnect()
    assert session.run(until=mutation_condition(matches_request("ORDER_CANCEL_REPLACE_REQUEST")))
    session.venue.refuse_count = 600
    run_minutes(session, 5)


@register_story("rejection-retried-at-once")
def orders_refused_after_a_cut(session: Session) -> None:
    """After a cut and a reconnect the venue refuses what it is asked for."""
    session.begin()
    session.run(0.1)
    session.disconnect()
    run_minutes(session, 1)
    session.reconnect()
    assert session.run(until=mutation_condition(is_new_order_request))
    session.venue.refuse_count = 150
    run_minutes(session, 5)


@register_story("logs-on-until-listed")
def an_order_that_is_not_listed(session: Session) -> None:
    """Killed; the venue cancels an order meanwhile, and does not replay."""
    cancel_at_the_venue_while_killed(session)
    run_minutes(session, 4)


@register_story("equity-without-positions")
def borrowed_cash_and_a_restart(session: Session) -> None:
    """Cash is withdrawn until the position is bought with borrowed money; the desk is restarted."""
    session.begin()
    session.run(0.5)
    accounts = session.venue.accounts
    symbol = session.symbols[0]
    position = session.venue.positions[f"A1/{symbol}"]
    book = session.venue.top(symbol)
    value = book.instrument.cash(position.net_qty * book.last_px)
    assert value > 0
    cash = accounts.balances["A1/USD"].cash
    assert accounts.move_cash("A1", "USD", -cash - value // 2, CashReason.WITHDRAWAL)
    run_minutes(session, 0.5)
    session.restart()
    run_minutes(session, 1)


@register_story("liquidation-not-adopted")
def a_liquidation_while_cut_off(session: Session) -> None:
    """The venue closes the account's position by itself while the link is cut, and does not replay."""
    session.begin()
    session.run(0.3)
    session.disconnect(recovery="drop")
    assert session.venue.liquidate("A1", session.symbols[0])
    run_minutes(session, 1)
    session.reconnect()
    run_minutes(session, 1)
