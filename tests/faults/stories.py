"""For each seeded fault the shortest natural story that exposes it, told to a session of the desk.

A story is told three times: with its fault, where it must end in a breach of the invariant that the fault names; with
the same operations and the fault off, where nothing may be breached; and its fault has a plain fresh day of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holdover.desk import DeskConfig, Strategy
from holdover.harness import Fill, PartialFill, Session, first
from holdover.harness.condition import Condition
from holdover.model import Link, LinkState, Order, OrdStatus, Record, Request, Side, TimeInForce
from holdover.recording import bundled

Telling = Callable[[Session], None]
MINUTE = 60_000_000_000


@dataclass(frozen=True)
class Story:
    """How a fault is exposed: what is done to the session, and with what settings it is made."""

    tell: Telling
    settings: dict[str, Any] = field(default_factory=dict)


STORIES: dict[str, Story] = {}


def story(*names: str, **options: Any) -> Callable[[Telling], Telling]:
    """Marks the story of one or several faults."""

    def keep(tell: Telling) -> Telling:
        for name in names:
            STORIES[name] = Story(tell, **options)
        return tell

    return keep


def minutes(session: Session, count: float) -> None:
    """Let the market run on for a while."""
    session.run(session.clock.now_ns + int(count * MINUTE))


def until_a_fill_at_the_venue(session: Session) -> None:
    """Let the market run on, with the subject or without it, until the venue has filled something more."""
    known, close_ns = len(session.venue.trades), session.hours()[1]
    while len(session.venue.trades) == known and session.clock.now_ns < close_ns:
        if session.subject is None:
            session.stay_down(60)
        else:
            minutes(session, 1)


def night(session: Session) -> None:
    """To the close, and over the night into the next day."""
    session.end()
    session.overnight()
    session.begin()


def sent(subsystem: str, record: Record) -> bool:
    """A new order at the last line before the wire: after its commit, before it is sent."""
    return subsystem == "gateway" and isinstance(record, Request) and record.msg_type.name == "NEW_ORDER_SINGLE"


def change(kind: str) -> Callable[[str, Record], bool]:
    """A cancel or a replace at the last line before the wire."""
    return lambda subsystem, record: (
        subsystem == "gateway" and isinstance(record, Request) and record.msg_type.name == kind
    )


def acknowledged(subsystem: str, record: Record) -> bool:
    """An order that the venue has taken."""
    return subsystem == "orders" and isinstance(record, Order) and record.ord_status == OrdStatus.NEW


def of_the_day(subsystem: str, record: Record) -> bool:
    """A DAY order that the venue has taken."""
    return isinstance(record, Order) and acknowledged(subsystem, record) and record.time_in_force == TimeInForce.DAY


def until(matches: Callable[[str, Record], bool], count: int = 1) -> Condition:
    """The `count`-th mutation that is so."""
    return Condition("so", matches, count)


# -- partial fills carried overnight ------------------------------------------------------------------------------


@story(
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


@story("exec-id-unique-forever")
def the_same_exec_ids_again(session: Session) -> None:
    """Two days' fills, the second day's under ExecIDs that the first has used."""
    session.begin()
    session.run(0.3)
    night(session)
    session.run(0.3)


@story("keep-day-orders-open")
def a_day_order_expires_while_down(session: Session) -> None:
    """Killed with a DAY order at work; the close comes while the desk is down."""
    session.begin()
    session.run(0.95)
    assert session.run(until=until(of_the_day))
    assert session.run(until=until(lambda subsystem, record: True), kill=True)
    session.stay_down((session.hours()[1] - session.clock.now_ns) / 1_000_000_000)
    assert any(order.is_open and order.time_in_force == TimeInForce.DAY for order in session.venue.orders.values())
    night(session)
    session.run(0.01)


@story("correction-of-yesterday-as-new")
def yesterdays_fill_is_corrected(session: Session) -> None:
    """A fill of a GTC order is corrected the next day."""
    session.begin()
    session.run(0.2)
    session.run()
    session.end()
    order = next(one for one in session.orders() if one.is_open and one.cum_qty)
    fill = next(one for one in session.venue.trades if session.venue.roots[one.cl_ord_id] == order.key)
    session.overnight()
    session.begin()
    session.run(0.01)
    assert session.venue.correct(fill.exec_id, fill.last_qty - 1, fill.last_px, fill.trade_date)
    minutes(session, 1)


@story("limit-on-the-day-only", settings={"limits": {"position_max": 22_000}})
def a_position_near_its_limit(session: Session) -> None:
    """The first day ends with a position that leaves little room for the second."""
    session.begin()
    night(session)
    session.run(0.5)


ALL_AT_WORK = DeskConfig(
    instruments=[bundled().get("ACME", "2024-11-27").meta.instrument],
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


@story("left-without-carried-work", settings={"desk": ALL_AT_WORK})
def a_parent_at_work_over_the_night(session: Session) -> None:
    """Two slices are the whole parent; both are carried unfilled."""
    session.begin()
    night(session)
    session.run(0.1)


@story("split-passes-by")
def a_split_over_the_night(session: Session) -> None:
    """Two for one."""
    session.begin()
    session.run(0.2)
    session.end()
    for order in session.venue.orders.values():
        if order.is_open and order.price is not None and order.price % 2:
            session.venue.cancel(order.cl_ord_id)
    session.overnight({"ACME": (2, 1)})
    session.begin()
    session.run(0.01)


# -- reconciliation across restarts -------------------------------------------------------------------------------


@story("snapshot-then-fills-again", "risk-starts-flat", "closed-orders-not-restored", "clock-set-by-recovery")
def a_fill_and_a_restart(session: Session) -> None:
    """A few fills, a kill on the same day."""
    session.begin()
    session.run(0.2)
    session.run(until=first(Fill))
    minutes(session, 0.1)
    session.restart("kill")
    minutes(session, 1)


@story("risk-by-order-qty")
def a_partial_fill_and_a_restart(session: Session) -> None:
    """An order is partly filled, and the desk is restarted in good order."""
    session.begin()
    session.run(0.2)
    session.run(until=first(PartialFill))
    minutes(session, 0.01)
    session.restart()
    minutes(session, 1)


@story("position-before-order")
def killed_inside_a_fill(session: Session) -> None:
    """Killed at the record of an execution."""
    session.begin()
    session.run(0.2)
    assert session.run(until=first(Fill), kill=True)
    session.restart("kill")
    minutes(session, 1)


@story("trust-local-when-flat")
def a_fill_missed_on_flat_books(session: Session) -> None:
    """The first orders of the day fill while the link is cut, and the venue does not replay."""
    session.begin()
    session.run(until=until(acknowledged))
    assert not any(position.net_qty for position in session.venue.positions.values())
    session.disconnect(recovery="drop")
    until_a_fill_at_the_venue(session)
    session.reconnect()
    minutes(session, 1)


@story("adopt-venue-position-keep-orders")
def a_fill_while_down(session: Session) -> None:
    """Killed; an order fills before the desk is up again."""
    session.begin()
    session.run(0.2)
    assert session.run(until=until(lambda s, r: acknowledged(s, r) and r.is_carried))  # type: ignore[attr-defined]
    assert session.run(until=until(lambda subsystem, record: True), kill=True)
    until_a_fill_at_the_venue(session)
    session.restart("kill")
    minutes(session, 1)


@story("missed-cancel-on-restart")
def a_cancel_at_the_venue_while_down(session: Session) -> None:
    """Killed; the venue cancels an order, and does not tell again what it told meanwhile."""
    session.begin()
    session.run(0.2)
    assert session.run(until=first(Fill), kill=True)
    session.stay_down(1)
    live = next(order for order in session.venue.orders.values() if order.is_open)
    session.venue.cancel(live.cl_ord_id)
    session.link.recovery = "drop"
    session.restart("kill")
    minutes(session, 1)


@story("reused-client-id")
def orders_before_and_after_a_restart(session: Session) -> None:
    """An order, a restart, another order on the same day."""
    session.begin()
    session.run(0.1)
    session.restart("kill")
    session.run(0.2)


@story("lost-unsent-order")
def killed_before_sending(session: Session) -> None:
    """Killed when an order is stored and not yet sent."""
    session.begin()
    session.run(0.1)
    assert session.run(until=until(sent), kill=True)
    session.restart("kill")
    minutes(session, 2)


@story("sent-before-stored")
def killed_after_sending(session: Session) -> None:
    """Killed at the first record after an order has been sent."""
    session.begin()
    session.run(0.1)
    leaving: list[Record] = []

    def gone(subsystem: str, record: Record) -> bool:
        if sent(subsystem, record):
            leaving.append(record)
        return bool(leaving) and isinstance(record, Link) and record.change == LinkState.MESSAGE

    assert session.run(until=until(gone), kill=True)
    session.restart("kill")
    minutes(session, 2)


@story("freeze-in-memory", "thaws-by-itself")
def frozen_before_a_restart(session: Session) -> None:
    """An operator freezes an account; the desk is restarted."""
    session.begin()
    session.run(0.1)
    session.guard.freeze("account:A1", operator="kay", reason="a look at the account", allows=["query"])
    minutes(session, 2)
    session.restart("kill")
    minutes(session, 15)


@story("change-id-counted-in-memory")
def replaces_before_and_after_a_restart(session: Session) -> None:
    """An order is replaced, the desk restarted, the order replaced again."""
    session.begin()
    session.run(until=until(change("ORDER_CANCEL_REPLACE_REQUEST")))
    minutes(session, 0.1)
    session.restart("kill")
    minutes(session, 45)


@story("claims-foreign-orders")
def a_foreign_order_and_a_restart(session: Session) -> None:
    """Somebody trades by hand, and the desk is restarted."""
    session.begin()
    session.run(0.1)
    session.venue.trade_by_hand("A1", "ACME", Side.BUY, 7, 10_000)
    minutes(session, 1)
    session.restart()
    minutes(session, 1)


@story("reservations-in-memory")
def a_closing_order_and_a_restart(session: Session) -> None:
    """An order that closes a position is at work when the desk is restarted."""
    session.begin()
    assert session.run(until=until(lambda s, r: acknowledged(s, r) and r.closing_qty > 0))  # type: ignore[attr-defined]
    session.restart()
    minutes(session, 1)


@story("disabled-book-forgotten")
def a_disabled_book_and_a_restart(session: Session) -> None:
    """The venue disables the book; the desk is restarted."""
    session.begin()
    session.run(0.1)
    session.venue.disable("ACME")
    minutes(session, 1)
    session.restart("kill")
    minutes(session, 20)


# -- order state over disconnects ---------------------------------------------------------------------------------


@story("resent-fill-booked-again")
def a_fill_and_two_cuts(session: Session) -> None:
    """Something has filled; the link is cut, comes up, and is cut once more before anything else has happened."""
    session.begin()
    session.run(0.2)
    session.run(until=first(Fill))
    minutes(session, 0.1)
    for _ in range(2):
        session.disconnect()
        minutes(session, 0.1)
        session.reconnect()
        minutes(session, 0.1)


@story("resume-without-asking")
def a_fill_while_cut_off(session: Session) -> None:
    """An order fills while the link is cut, and the venue does not replay."""
    session.begin()
    session.run(0.2)
    session.disconnect(recovery="drop")
    until_a_fill_at_the_venue(session)
    session.reconnect()
    minutes(session, 1)


@story("late-fill-after-cancel-dropped")
def a_fill_told_after_the_cancel(session: Session) -> None:
    """The venue cancels what is left of a partial fill, and tells of a fill that had crossed it after a cut."""
    session.begin()
    session.run(0.2)
    session.run(until=first(PartialFill, tif="GTC"))
    order = next(one for one in session.orders() if one.is_open and one.cum_qty)
    assert session.venue.cancel(order.cl_ord_id)
    minutes(session, 0.1)
    session.disconnect()
    minutes(session, 0.5)
    session.reconnect()
    minutes(session, 0.5)
    assert session.venue.fill_late(order.cl_ord_id, 1)
    minutes(session, 1)


@story("cancel-assumed")
def a_cancel_lost_on_its_way(session: Session) -> None:
    """One cancel does not reach the venue, on a link that has been cut before."""
    session.begin()
    session.run(0.01)
    session.disconnect()
    minutes(session, 1)
    session.reconnect()
    minutes(session, 1)
    leaves = change("ORDER_CANCEL_REQUEST")
    gone: list[Record] = []

    def lose_the_first(subsystem: str, record: Record) -> None:
        if leaves(subsystem, record) and not gone:
            gone.append(record)
            session.link.fault("out", 1, "drop")

    session.on_record = lose_the_first
    session.run(until=until(leaves))
    assert gone
    minutes(session, 20)


@story("replace-applied-on-send")
def a_refusal_lost_in_a_cut(session: Session) -> None:
    """The venue refuses a replace, and the link is cut before it is heard."""
    session.begin()
    session.run(0.1)
    assert session.run(until=until(change("ORDER_CANCEL_REPLACE_REQUEST")))
    session.venue.refuse_next = 1
    session.run(session.clock.now_ns + session.link.latency_ns + 1_000)
    session.disconnect(recovery="drop")
    minutes(session, 1)
    session.reconnect()
    minutes(session, 1)


@story("resubmit-on-silence")
def an_acknowledgement_lost_in_a_cut(session: Session) -> None:
    """The link is cut when an order has reached the venue and its acknowledgement has not reached the desk."""
    session.begin()
    session.run(0.1)
    assert session.run(until=until(sent))
    session.run(session.clock.now_ns + session.link.latency_ns + 1_000)
    session.disconnect(recovery="drop")
    minutes(session, 1)
    session.reconnect()
    minutes(session, 1)


@story("external-order-not-adopted")
def a_trade_by_hand_while_cut_off(session: Session) -> None:
    """Somebody trades by hand while the link is cut, and the venue does not replay."""
    session.begin()
    session.run(0.1)
    session.disconnect(recovery="drop")
    session.venue.trade_by_hand("A1", "ACME", Side.BUY, 7, 10_000)
    minutes(session, 1)
    session.reconnect()
    minutes(session, 1)


@story("works-on-the-first-answer")
def answers_that_take_long(session: Session) -> None:
    """After a reconnect the second question takes twenty seconds on its way, and a look is due meanwhile."""
    session.begin()
    session.run(0.1)
    session.disconnect(recovery="replay")
    session.run(session.hours()[0] + 60 * MINUTE - MINUTE // 12)
    session.reconnect()
    session.link.fault("out", 2, "hold", MINUTE // 3)
    minutes(session, 5)


@story("question-asked-once")
def a_question_lost(session: Session) -> None:
    """The first question after a reconnect does not reach the venue."""
    session.begin()
    session.run(0.1)
    session.disconnect(recovery="replay")
    minutes(session, 1)
    session.reconnect()
    session.link.fault("out", 1, "drop")
    minutes(session, 2)


@story("epoch-of-the-first-logon")
def an_order_after_a_reconnect(session: Session) -> None:
    """A cut, a reconnect, a new order."""
    session.begin()
    session.run(0.1)
    session.disconnect()
    minutes(session, 1)
    session.reconnect()
    minutes(session, 10)


@story("close-left-after-a-bust")
def the_position_under_a_close_is_busted(session: Session) -> None:
    """A closing order is at work; what it was to close is taken back."""
    session.begin()
    assert session.run(until=until(lambda s, r: acknowledged(s, r) and r.closing_qty > 0))  # type: ignore[attr-defined]
    for fill in [one for one in session.venue.trades if one.side == Side.BUY]:
        assert session.venue.bust(fill.exec_id)
    minutes(session, 1)


@story("gap-passed-over")
def one_message_lost(session: Session) -> None:
    """One message of the venue is lost, on a link that has been cut before."""
    session.begin()
    session.run(0.1)
    session.disconnect()
    minutes(session, 1)
    session.reconnect()
    minutes(session, 1)
    assert session.run(until=until(change("ORDER_CANCEL_REPLACE_REQUEST")))
    session.link.fault("in", 1, "drop")
    minutes(session, 1)


@story("chain-lost-in-status")
def the_answer_to_a_replace_is_lost(session: Session) -> None:
    """The link is cut when a replace has been accepted and the answer has not been heard."""
    session.begin()
    session.run(0.1)
    assert session.run(until=until(change("ORDER_CANCEL_REPLACE_REQUEST")))
    session.run(session.clock.now_ns + session.link.latency_ns + 1_000)
    session.disconnect(recovery="drop")
    minutes(session, 1)
    session.reconnect()
    minutes(session, 1)
