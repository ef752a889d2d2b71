"""What the desk carries over a cut, a restart and a night, with an outside that the test plays by hand.

The fresh-state tests of `tests/unit/desk_fresh` begin from nothing, on one connection, on one day. These do not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdover.model import ExecRestatementReason, ExecType, OrdStatus, PositionReport, Side
from tests.desk_bench import BUYER, STANDING_SELLER, DeskBench, first_order_text, make_bench, status_report

pytestmark = pytest.mark.state(logic=True)  # the market and the venue are made up
Make = Callable[..., DeskBench]
__all__ = ["make_bench"]


def test_what_was_missed_over_a_cut_is_booked(make_bench: Make) -> None:
    """A fill that happened while the link was down is learnt of by asking, and the order stands as the venue says."""
    bench = make_bench(BUYER, venue=False)
    bench.start()
    request = bench.first_order()
    bench.ports.accept(request)
    bench.ports.drop_link()
    listener, bench.ports.listener = bench.ports.listener, _Deaf()
    missed = bench.ports.fill(request, 40, 100, 40)
    bench.ports.seq -= 1
    bench.ports.listener = listener
    bench.ports.executions.append(missed)
    bench.ports.order_reports.append(
        status_report(
            request.cl_ord_id,
            OrdStatus.PARTIALLY_FILLED,
            account="A",
            order_qty=100,
            cum_qty=40,
            leaves_qty=60,
            price=100,
            side=Side.BUY,
            order_id=missed.order_id,
        )
    )
    bench.ports.advance(2)
    bench.ports.answer_queries()
    assert bench.desk.reconciler.is_done
    assert "PARTIALLY_FILLED 40/100 leaves 60" in first_order_text(bench)


class _Deaf:
    """Hears nothing."""

    def on_message(self, seq: int, poss_dup: bool, message: object) -> None:
        """Nothing."""


def test_an_order_that_the_venue_does_not_know_is_over(make_bench: Make) -> None:
    """Sent and never heard of: asked about, more than once, and then over."""
    bench = make_bench(BUYER)
    bench.start()
    bench.first_order()
    bench.ports.drop_link()
    for _ in range(6):
        bench.ports.advance(6)
        bench.ports.answer_queries()
    assert bench.desk.reconciler.is_done
    assert "REJECTED 0/100 leaves 0" in first_order_text(bench)


def test_a_split_restates_the_position(make_bench: Make) -> None:
    """The venue's position in new lots, under a new reference version, is taken over; the same again is not."""
    bench = make_bench(BUYER, venue=False)
    bench.start()
    request = bench.first_order()
    bench.ports.accept(request)
    bench.ports.fill(request, 100, 100, 100)
    bench.ports.positions.append(
        PositionReport(req_id="", account="A", symbol="X", net_qty=200, reference_version="v2")
    )
    for _ in range(2):
        bench.ports.drop_link()
        bench.ports.advance(2)
        bench.ports.answer_queries()
    position = bench.desk.positions.get("A/X")
    assert position is not None
    assert (position.net_qty, position.reference_version) == (200, "v2")


def test_a_restated_order_has_the_new_quantities(make_bench: Make) -> None:
    """A corporate action doubles what a carried order has and what is left of it."""
    bench = make_bench(STANDING_SELLER, venue=False)
    bench.start()
    request = bench.first_order()
    bench.ports.accept(request)
    bench.ports.fill(request, 100, 105, 100)
    bench.ports.deliver_report(
        request,
        ExecType.RESTATED,
        OrdStatus.PARTIALLY_FILLED,
        order_qty=600,
        cum_qty=200,
        leaves_qty=400,
        exec_restatement_reason=ExecRestatementReason.GT_CORPORATE_ACTION,
        reference_version="v2",
    )
    assert "PARTIALLY_FILLED 200/600 leaves 400" in first_order_text(bench)


# -- over a restart -------------------------------------------------------------------------------------------------


def test_ids_go_on_after_a_restart(make_bench: Make) -> None:
    """No ClOrdID of the first life comes again in the second, and what was rejected stays so."""
    bench = make_bench(BUYER)
    bench.start()
    first = bench.first_order()
    bench.ports.deliver_report(first, ExecType.REJECTED, OrdStatus.REJECTED)
    bench.restart()
    second = bench.first_order()
    assert second.cl_ord_id != first.cl_ord_id
    assert [stored_order.ord_status for stored_order in bench.desk.orders.all_orders()] == [
        OrdStatus.REJECTED,
        OrdStatus.PENDING_NEW,
    ]


def test_what_was_stored_and_never_sent_is_over(make_bench: Make) -> None:
    """The new life asks about it, and the venue has not heard of it."""
    bench = make_bench(BUYER)
    bench.start()
    bench.first_order()
    bench.restart()
    for _ in range(6):
        bench.ports.advance(6)
        bench.ports.answer_queries()
    assert "REJECTED 0/100 leaves 0" in first_order_text(bench)


def test_what_is_frozen_stays_frozen(make_bench: Make) -> None:
    """The next life sends nothing out of it either."""
    bench = make_bench(BUYER)
    bench.start()
    bench.guard.freeze("account:A", operator="op", reason="test")
    bench.restart()
    bench.ports.advance(120)
    assert bench.ports.requests == []


# -- over a cut -----------------------------------------------------------------------------------------------------


def test_a_fill_told_again_at_the_logon_is_booked_once(make_bench: Make) -> None:
    """The answers begin with the last fill that is known already."""
    bench = make_bench(BUYER, venue=False)
    bench.start()
    request = bench.first_order()
    bench.ports.accept(request)
    report = bench.ports.fill(request, 30, 100, 30)
    bench.ports.executions.append(report)
    for _ in range(2):
        bench.ports.drop_link()
        bench.ports.advance(2)
        bench.ports.answer_queries()
    assert len(bench.desk.orders.executions()) == 1
    position = bench.desk.positions.get("A/X")
    assert position is not None
    assert position.net_qty == 30
