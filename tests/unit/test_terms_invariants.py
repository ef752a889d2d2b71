"""The invariants of terms, rates and requests: legal situations stay silent, their wrong twins breach.

Each case is told to a bare guard. A legal case must breach nothing at all; a wrong one must breach its invariant.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdover.model import (
    ExecRestatementReason,
    ExecType,
    Link,
    MsgType,
    Order,
    OrdStatus,
    OrdType,
    ParentOrder,
    PositionSide,
    Reconciliation,
    Side,
    TimeInForce,
)

from .guard_bench import DAY, GuardBench, fill, order, position, replace_request, request

Case = Callable[[GuardBench], None]
S = OrdStatus
LEGAL: dict[str, Case] = {}
WRONG: list[tuple[str, Case]] = []


def legal(case: Case) -> Case:
    """Register a case that must be silent."""
    LEGAL[case.__name__] = case
    return case


def wrong(invariant: str) -> Callable[[Case], Case]:
    """Register a case that must breach an invariant."""

    def register(case: Case) -> Case:
        WRONG.append((invariant, case))
        return case

    return register


def enter(bench: GuardBench, **fields: object) -> Order:
    """Send a new order, let the venue acknowledge it, and return it as the system holds it."""
    requested_terms = {
        name: value for name, value in fields.items() if name not in ("order_id", "cl_ord_link_id", "link")
    }
    acknowledged = order("o1", 10, **fields)
    bench.orders(replace(acknowledged, ord_status=S.PENDING_NEW, order_id=""), request("o1", 10, **requested_terms))
    bench.orders(acknowledged)
    return acknowledged


def ask_replace(bench: GuardBench, current: Order, cl_ord_id: str = "o2", **terms: object) -> Order:
    """Send a replace and return the order while it waits for the answer."""
    pending = replace(current, ord_status=S.PENDING_REPLACE, exec_type=None)
    fields = {"price": current.price, "qty": current.order_qty, **terms}
    bench.orders(pending, replace_request(cl_ord_id, current.cl_ord_id, **fields))  # type: ignore[arg-type]
    return pending


def accept_replace(current: Order, cl_ord_id: str = "o2", qty: int = 10, **terms: object) -> Order:
    """Return the order as the venue replaced it."""
    fields = {
        "cl_ord_id": cl_ord_id,
        "orig_cl_ord_id": current.cl_ord_id,
        "order_qty": qty,
        "leaves_qty": qty - current.cum_qty,
        "ord_status": S.PARTIALLY_FILLED if current.cum_qty else S.NEW,
        "exec_type": ExecType.REPLACED,
        **terms,
    }
    return replace(current, **fields)


# -- an order has the terms of its request ------------------------------------------------------------------------


@wrong("order-identity-fixed")
def an_acknowledgement_for_another_account(bench: GuardBench) -> None:
    bench.orders(order(ord_status=S.PENDING_NEW), request())
    bench.orders(order(account="B9"))


@legal
def a_new_order_a_replace_and_its_fills(bench: GuardBench) -> None:
    current = enter(bench, order_id="V1")
    current = accept_replace(ask_replace(bench, current, qty=12, price=101), qty=12, price=101, order_id="V2")
    bench.orders(current)
    bench.orders(
        fill(qty=12, px=101, cl_ord_id="o2"),
        replace(current, cum_qty=12, leaves_qty=0, notional=1212, ord_status=S.FILLED),
    )


@legal
def a_partial_fill_crosses_the_replace(bench: GuardBench) -> None:
    pending = ask_replace(bench, enter(bench), qty=15, price=102)
    part = replace(pending, cum_qty=4, leaves_qty=6, notional=400, exec_type=ExecType.TRADE)
    bench.orders(fill(qty=4, cl_ord_id="o1"), part)
    bench.orders(accept_replace(part, qty=15, price=102))


@legal
def the_request_is_recorded_after_the_order(bench: GuardBench) -> None:
    bench.orders(order(ord_status=S.PENDING_NEW), request())
    bench.orders(order())


@legal
def the_request_is_recorded_before_the_order(bench: GuardBench) -> None:
    bench.orders(request(), order(ord_status=S.PENDING_NEW))
    bench.orders(order())


@legal
def a_market_order_has_no_price(bench: GuardBench) -> None:
    enter(bench, price=None, ord_type=OrdType.MARKET)
    bench.orders(fill(px=777, cl_ord_id="o1"), order(cum=10, price=None, ord_type=OrdType.MARKET, notional=7770))


@legal
def the_venue_protects_a_market_order_by_a_price(bench: GuardBench) -> None:
    bench.orders(order(ord_status=S.PENDING_NEW, price=None), request(price=None, ord_type=OrdType.MARKET))
    bench.orders(order(price=130))


@legal
def the_venue_restates_price_and_quantity(bench: GuardBench) -> None:
    current = enter(bench)
    restated = {"exec_type": ExecType.RESTATED, "price": 101}
    bench.orders(replace(current, exec_restatement_reason=ExecRestatementReason.REPRICING, **restated))
    declined = {"exec_type": ExecType.RESTATED, "order_qty": 8, "leaves_qty": 8}
    bench.orders(replace(current, price=101, exec_restatement_reason=ExecRestatementReason.PARTIAL_DECLINE, **declined))


@legal
def a_corporate_action_changes_everything(bench: GuardBench) -> None:
    current = enter(bench, time_in_force=TimeInForce.GTC)
    bench.orders(
        replace(
            current,
            symbol="BTC2",
            order_qty=20,
            leaves_qty=20,
            price=50,
            exec_type=ExecType.RESTATED,
            exec_restatement_reason=ExecRestatementReason.GT_CORPORATE_ACTION,
        )
    )


@legal
def a_replace_keeps_the_cl_ord_id(bench: GuardBench) -> None:
    pending = ask_replace(bench, enter(bench), price=105, qty=20)
    current = accept_replace(pending, "o1", qty=20, price=105, orig_cl_ord_id="")
    bench.orders(current)
    bench.orders(
        fill(qty=5, px=104, cl_ord_id="o1"),
        replace(
            current, cum_qty=5, leaves_qty=15, notional=520, ord_status=S.PARTIALLY_FILLED, exec_type=ExecType.TRADE
        ),
    )


@legal
def a_fill_at_the_new_price_comes_before_its_replace(bench: GuardBench) -> None:
    pending = ask_replace(bench, enter(bench), price=105)
    bench.orders(fill(qty=5, px=104, cl_ord_id="o1"), replace(pending, cum_qty=5, leaves_qty=5, notional=520))


@legal
def somebody_replaces_the_order_at_the_venue(bench: GuardBench) -> None:
    bench.orders(replace(enter(bench), price=99, exec_type=ExecType.REPLACED))


@legal
def an_optimistic_system_goes_back_on_refusal(bench: GuardBench) -> None:
    current = enter(bench)
    bench.orders(
        replace(current, cl_ord_id="o2", orig_cl_ord_id="o1", price=104, ord_status=S.PENDING_REPLACE),
        replace_request("o2", "o1", price=104),
    )
    bench.orders(current)
    bench.orders(
        replace(current, cl_ord_id="o3", orig_cl_ord_id="o1", ord_status=S.PENDING_REPLACE),
        replace_request("o3", "o1", price=105),
    )
    bench.orders(replace(current, cl_ord_id="o3", orig_cl_ord_id="o1", price=105, exec_type=ExecType.REPLACED))


@legal
def a_replace_of_a_restated_version_is_refused(bench: GuardBench) -> None:
    current = accept_replace(ask_replace(bench, enter(bench), price=101), price=101)
    bench.orders(current)
    reason = ExecRestatementReason.REPRICING
    restated = replace(current, price=103, exec_type=ExecType.RESTATED, exec_restatement_reason=reason)
    bench.orders(restated)
    plain = replace(restated, exec_type=None, exec_restatement_reason=None)
    ask_replace(bench, plain, "o3", price=104)
    bench.orders(plain)


@legal
def a_cancel_request_has_no_quantity(bench: GuardBench) -> None:
    current = enter(bench)
    cancel = replace(replace_request("o2", "o1", 0, price=None), msg_type=MsgType.ORDER_CANCEL_REQUEST)
    bench.orders(replace(current, ord_status=S.PENDING_CANCEL), cancel)
    bench.orders(replace(current, cl_ord_id="o2", orig_cl_ord_id="o1", ord_status=S.CANCELED, leaves_qty=0))


@legal
def a_trailing_stop_is_moved_by_the_venue(bench: GuardBench) -> None:
    stop = {"ord_type": OrdType.STOP, "price": None, "side": Side.SELL}
    bench.orders(order(ord_status=S.PENDING_NEW, **stop), request(**stop))
    current = order(stop_px=95, order_id="V1", **stop)
    bench.orders(current)
    bench.record(("venue", current))
    for stop_px in (97, 99):
        moved = replace(current, stop_px=stop_px, exec_type=ExecType.REPLACED)
        bench.orders(moved)
        bench.record(("venue", moved))
    bench.guard.reconciled(DAY)


@legal
def a_short_sale_is_reported_as_a_sale(bench: GuardBench) -> None:
    bench.orders(order(side=Side.SELL_SHORT, ord_status=S.PENDING_NEW), request(side=Side.SELL_SHORT))
    current = order(side=Side.SELL)
    bench.orders(current)
    bench.record(("venue", order(side=Side.SELL_SHORT)))
    bench.orders(fill(side=Side.SELL_SHORT, cl_ord_id="o1"), order(cum=10, side=Side.SELL))


@legal
def the_system_never_states_the_time_in_force_of_a_request(bench: GuardBench) -> None:
    bench.orders(order(ord_status=S.PENDING_NEW), request())
    bench.orders(order(time_in_force=TimeInForce.GTC))
    bench.record(("venue", order(time_in_force=TimeInForce.GTC)))
    bench.guard.reconciled(DAY)


@legal
def the_venue_view_is_almost_empty(bench: GuardBench) -> None:
    terms = {"ord_type": OrdType.STOP_LIMIT, "stop_px": 95, "time_in_force": TimeInForce.GTC, "order_id": "V1"}
    current = enter(bench, **terms)
    bench.record(
        (
            "venue",
            Order(
                root_cl_ord_id="o1",
                cl_ord_id="",
                symbol="BTC",
                side=Side.BUY,
                order_qty=10,
                leaves_qty=10,
                ord_status=S.NEW,
                price=100,
            ),
        ),
    )
    bench.orders(replace(current, exec_type=ExecType.ORDER_STATUS))
    bench.guard.reconciled(DAY)


@legal
def two_accounts_use_the_same_identifiers(bench: GuardBench) -> None:
    for account, price in (("A1", 100), ("A2", 90)):
        bench.orders(
            order(f"{account}-1", price=price, account=account, ord_status=S.PENDING_NEW),
            request(f"{account}-1", price=price, account=account),
        )
        bench.orders(order(f"{account}-1", price=price, account=account))
        bench.orders(
            fill(f"{account}e", f"{account}-1", px=price, account=account, cl_ord_id=f"{account}-1"),
            order(f"{account}-1", cum=10, price=price, account=account),
        )


@wrong("order-matches-request")
def the_acknowledgement_has_another_price(bench: GuardBench) -> None:
    bench.orders(order(ord_status=S.PENDING_NEW), request())
    bench.orders(order(price=101))


@wrong("order-matches-request")
def the_acknowledgement_has_another_quantity(bench: GuardBench) -> None:
    bench.orders(order(ord_status=S.PENDING_NEW), request())
    bench.orders(order(qty=100))


@wrong("order-matches-request")
def the_venue_has_another_side(bench: GuardBench) -> None:
    enter(bench)
    bench.record(("venue", order(side=Side.SELL)))


@wrong("order-matches-request")
def the_replaced_order_keeps_its_price(bench: GuardBench) -> None:
    bench.orders(accept_replace(ask_replace(bench, enter(bench), price=105)))


@wrong("order-matches-request")
def the_replaced_order_keeps_its_quantity_in_an_optimistic_system(bench: GuardBench) -> None:
    current = enter(bench)
    pending = replace(current, cl_ord_id="o2", orig_cl_ord_id="o1", ord_status=S.PENDING_REPLACE)
    bench.orders(pending, replace_request("o2", "o1", qty=20))
    bench.orders(replace(pending, ord_status=S.NEW, exec_type=ExecType.REPLACED))


@wrong("order-matches-request")
def a_status_answer_changes_the_price(bench: GuardBench) -> None:
    bench.orders(replace(enter(bench), price=99, exec_type=ExecType.ORDER_STATUS))


@wrong("order-matches-request")
def the_order_lives_for_longer_than_requested(bench: GuardBench) -> None:
    bench.orders(
        order("o0", time_in_force=TimeInForce.GTC, ord_status=S.PENDING_NEW),
        request("o0", time_in_force=TimeInForce.GTC),
    )
    bench.orders(order("o0", time_in_force=TimeInForce.GTC))
    bench.orders(order(ord_status=S.PENDING_NEW), request())
    bench.orders(order(time_in_force=TimeInForce.GTC))


# -- an execution fits its order ----------------------------------------------------------------------------------


@legal
def a_late_fill_of_a_replaced_version_at_its_price(bench: GuardBench) -> None:
    current = accept_replace(ask_replace(bench, enter(bench), price=95), price=95)
    bench.orders(current)
    bench.orders(
        fill(qty=3, px=100, cl_ord_id="o1"),
        replace(
            current, cum_qty=3, leaves_qty=7, notional=300, ord_status=S.PARTIALLY_FILLED, exec_type=ExecType.TRADE
        ),
    )


@legal
def a_late_fill_without_its_cl_ord_id(bench: GuardBench) -> None:
    current = accept_replace(ask_replace(bench, enter(bench), price=95), price=95)
    bench.orders(current)
    bench.orders(
        fill(qty=3, px=100), replace(current, cum_qty=3, leaves_qty=7, notional=300, ord_status=S.PARTIALLY_FILLED)
    )


@legal
def a_late_fill_after_a_replace_that_keeps_the_cl_ord_id_without_requests(bench: GuardBench) -> None:
    current = replace(order(price=95), exec_type=ExecType.REPLACED)
    bench.orders(order())
    bench.orders(current)
    bench.orders(
        fill(qty=3, px=100, cl_ord_id="o1"),
        replace(current, cum_qty=3, leaves_qty=7, notional=300, ord_status=S.PARTIALLY_FILLED),
    )


@legal
def a_fill_is_better_than_its_limit(bench: GuardBench) -> None:
    enter(bench)
    bench.orders(fill(qty=10, px=90, cl_ord_id="o1"), order(cum=10, notional=900))


@legal
def a_fill_after_the_venue_repriced_the_order(bench: GuardBench) -> None:
    current = enter(bench)
    reason = ExecRestatementReason.REPRICING
    repriced = replace(current, price=103, exec_type=ExecType.RESTATED, exec_restatement_reason=reason)
    bench.orders(repriced)
    bench.orders(
        fill(qty=10, px=102, cl_ord_id="o1"),
        replace(repriced, cum_qty=10, leaves_qty=0, notional=1020, ord_status=S.FILLED, exec_type=ExecType.TRADE),
    )


@wrong("execution-within-limit")
def a_buy_above_its_limit(bench: GuardBench) -> None:
    enter(bench)
    bench.orders(fill(qty=10, px=101, cl_ord_id="o1"), order(cum=10, notional=1010))


@wrong("execution-within-limit")
def a_sale_below_its_limit(bench: GuardBench) -> None:
    enter(bench, side=Side.SELL)
    bench.orders(fill(qty=10, px=99, cl_ord_id="o1", side=Side.SELL), order(cum=10, notional=990, side=Side.SELL))


@wrong("execution-within-limit")
def a_fill_beyond_the_version_that_it_names(bench: GuardBench) -> None:
    current = accept_replace(ask_replace(bench, enter(bench), price=105), price=105)
    bench.orders(current)
    bench.orders(
        fill(qty=3, px=104, cl_ord_id="o1"),
        replace(current, cum_qty=3, leaves_qty=7, notional=312, ord_status=S.PARTIALLY_FILLED),
    )


@wrong("execution-within-limit")
def a_fill_beyond_the_limit_without_requests(bench: GuardBench) -> None:
    bench.orders(order())
    bench.orders(fill(qty=10, px=101), order(cum=10, notional=1010))


@wrong("execution-matches-order")
def a_buy_is_booked_as_a_sale(bench: GuardBench) -> None:
    bench.orders(order())
    bench.orders(fill(side=Side.SELL), order(cum=10))


@wrong("execution-matches-order")
def a_fill_is_booked_in_another_account(bench: GuardBench) -> None:
    bench.orders(order())
    bench.orders(fill(account="A2"), order(cum=10))


@wrong("execution-matches-order")
def a_fill_is_booked_on_the_other_leg(bench: GuardBench) -> None:
    bench.orders(order(position_side=PositionSide.LONG))
    bench.orders(fill(position_side=PositionSide.SHORT), order(cum=10, position_side=PositionSide.LONG))


@legal
def a_fill_states_no_account_and_no_leg(bench: GuardBench) -> None:
    bench.orders(order(position_side=PositionSide.LONG))
    bench.orders(fill(account=""), order(cum=10, position_side=PositionSide.LONG))


# -- identity -----------------------------------------------------------------------------------------------------


@legal
def a_temporary_order_id_until_the_acknowledgement(bench: GuardBench) -> None:
    bench.orders(order(ord_status=S.PENDING_NEW, order_id="T1"))
    bench.orders(order(order_id="V1"))


@legal
def a_triggered_stop_gets_another_order_id(bench: GuardBench) -> None:
    stop = order(ord_type=OrdType.STOP_LIMIT, stop_px=95, order_id="V1")
    bench.orders(stop)
    bench.orders(replace(stop, order_id="V2"))
    bench.record(("venue", replace(stop, order_id="V2", ord_type=OrdType.LIMIT, stop_px=None)))
    bench.record(("venue", order("o2", ord_type=OrdType.STOP_LIMIT, stop_px=95)))
    bench.orders(order("o2", ord_type=OrdType.STOP_LIMIT, stop_px=95))
    bench.guard.reconciled(DAY)


@legal
def a_cancel_leaves_on_the_other_link(bench: GuardBench) -> None:
    current = order(link="FIX1")
    bench.orders(current)
    bench.orders(replace(current, ord_status=S.PENDING_CANCEL, link="FIX2"))
    bench.orders(replace(current, ord_status=S.NEW, link="FIX1"))


@legal
def the_venue_view_leaves_out_leg_and_parent(bench: GuardBench) -> None:
    full = order(cl_ord_link_id="P1", position_id="77", account="A1", order_id="V1")
    bench.record(("venue", full))
    bench.record(("venue", replace(full, cl_ord_link_id="", position_id="", account="", order_id="")))
    bench.record(("venue", full))


@legal
def a_side_becomes_a_short_sale(bench: GuardBench) -> None:
    bench.orders(order(side=Side.SELL))
    bench.orders(order(side=Side.SELL_SHORT))


@wrong("order-identity-fixed")
def the_side_changes(bench: GuardBench) -> None:
    bench.orders(order())
    bench.orders(order(side=Side.SELL))


@wrong("order-identity-fixed")
def the_symbol_changes(bench: GuardBench) -> None:
    bench.orders(order())
    bench.orders(order(symbol="ETH"))


@wrong("order-identity-fixed")
def the_order_id_changes_without_a_reason(bench: GuardBench) -> None:
    bench.orders(order(order_id="V1"))
    bench.orders(order(order_id="V2"))


@wrong("order-identity-fixed")
def the_parent_is_lost(bench: GuardBench) -> None:
    bench.orders(order(cl_ord_link_id="P1"))
    bench.orders(order(cl_ord_link_id=""))


@wrong("order-identity-fixed")
def the_link_is_lost(bench: GuardBench) -> None:
    bench.orders(order(link="FIX1"))
    bench.orders(order(link=""))


@wrong("order-identity-fixed")
def the_link_changes_at_the_venue(bench: GuardBench) -> None:
    bench.record(("venue", order(link="FIX1")))
    bench.record(("venue", order(link="FIX2")))


@wrong("order-identity-fixed")
def the_position_of_the_leg_changes_at_the_venue(bench: GuardBench) -> None:
    bench.record(("venue", order(position_id="77")))
    bench.record(("venue", order(position_id="78")))


@wrong("order-identity-fixed")
def a_replayed_acknowledgement_brings_back_a_replaced_version(bench: GuardBench) -> None:
    old = order(order_id="V1")
    bench.orders(old)
    bench.orders(replace(old, cl_ord_id="o2", orig_cl_ord_id="o1", order_id="V2", exec_type=ExecType.REPLACED))
    bench.orders(old)


# -- the venue has the same terms ---------------------------------------------------------------------------------

TERMS = {
    "time_in_force": TimeInForce.GTC,
    "ord_type": OrdType.STOP_LIMIT,
    "stop_px": 95,
    "order_id": "V1",
    "expire_date": "2026-04-01",
    "position_id": "77",
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time_in_force", TimeInForce.DAY),
        ("ord_type", OrdType.LIMIT),
        ("stop_px", 96),
        ("order_id", "V2"),
        ("expire_date", ""),
        ("position_id", "78"),
        ("account", "A2"),
        ("cl_ord_id", "o9"),
        ("side", Side.SELL),
    ],
)
def test_a_term_that_differs_at_the_venue_is_a_breach(tmp_path: Path, field: str, value: object) -> None:
    """Each term of a working order alone; with the same terms the reconciliation is silent.

    The order states the ClOrdID that it replaced: only then does the system follow the chain that the venue follows.
    """
    bench = GuardBench(tmp_path)
    current = order(**TERMS, orig_cl_ord_id="o00")
    bench.orders(current)
    bench.record(("venue", current))
    bench.guard.reconciled(DAY)
    assert bench.explanations == []
    different = GuardBench(tmp_path / "different")
    different.orders(current)
    different.record(("venue", order("o0", **TERMS)), ("venue", replace(current, **{field: value})))
    different.orders(order("o0", **TERMS))
    different.guard.reconciled(DAY)
    assert "order-terms-agree-with-venue" in different.breached


@legal
def an_order_in_change_is_not_compared_with_the_venue(bench: GuardBench) -> None:
    current = order(**TERMS)
    bench.orders(replace(current, ord_status=S.PENDING_REPLACE))
    bench.record(("venue", replace(current, stop_px=97)))
    bench.guard.reconciled(DAY)


@legal
def an_order_that_closed_meanwhile_is_not_compared(bench: GuardBench) -> None:
    bench.orders(order(cum=0, ord_status=S.CANCELED))
    bench.record(("venue", order(ord_status=S.CANCELED, stop_px=97, time_in_force=TimeInForce.GTC)))
    bench.guard.reconciled(DAY)


# -- own orders were requested; children fit their parents --------------------------------------------------------


@legal
def an_order_is_closed_unsent(bench: GuardBench) -> None:
    enter(bench)
    bench.orders(order("o2", ord_status=S.PENDING_NEW))
    bench.orders(order("o2", ord_status=S.REJECTED, exec_type=ExecType.REJECTED))


@legal
def a_foreign_order_is_taken_over_as_foreign(bench: GuardBench) -> None:
    enter(bench)
    bench.orders(order("hand", foreign=True, strategy=""))


@legal
def a_restored_order_of_an_earlier_guard(bench: GuardBench) -> None:
    bench.restart(orders=[order("o0", order_id="V0")])
    enter(bench)
    bench.orders(fill("e0", "o0"), order("o0", cum=10, order_id="V0"))


@legal
def no_requests_are_recorded_at_all(bench: GuardBench) -> None:
    bench.orders(order())
    bench.orders(fill(), order(cum=10))


@wrong("own-order-was-requested")
def an_order_that_nobody_requested(bench: GuardBench) -> None:
    enter(bench)
    bench.orders(order("o9"))


@wrong("own-order-was-requested")
def a_foreign_order_becomes_an_own_order(bench: GuardBench) -> None:
    enter(bench)
    bench.orders(order("hand", foreign=True, strategy=""))
    bench.orders(order("hand", foreign=False))


PARENT = ParentOrder(parent_id="P1", symbol="BTC", side=Side.SELL, order_qty=100, working_qty=10, account="")


@legal
def the_parent_covers_several_accounts_and_sells_short(bench: GuardBench) -> None:
    bench.orders(
        order("c1", 4, cl_ord_link_id="P1", account="A1", side=Side.SELL),
        order("c2", 6, cl_ord_link_id="P1", account="A2", side=Side.SELL_SHORT),
        PARENT,
    )


@legal
def a_link_id_that_is_no_parent(bench: GuardBench) -> None:
    bench.orders(order("c1", 10, cl_ord_link_id="P1", side=Side.SELL), PARENT)
    bench.orders(order("tp", 5, cl_ord_link_id="bracket", side=Side.BUY))


@wrong("child-matches-parent")
def a_child_works_against_its_parent(bench: GuardBench) -> None:
    bench.orders(order("c1", 10, cl_ord_link_id="P1", side=Side.BUY), PARENT)


@wrong("child-matches-parent")
def a_child_is_of_another_instrument(bench: GuardBench) -> None:
    bench.orders(order("c1", 10, cl_ord_link_id="P1", side=Side.SELL, symbol="ETH"), PARENT)


@wrong("child-matches-parent")
def a_hand_trade_joins_a_parent_of_the_other_side(bench: GuardBench) -> None:
    bench.orders(order("c1", 10, cl_ord_link_id="P1", side=Side.SELL), PARENT)
    bench.orders(
        fill("e1", "hand", 2, foreign=True),
        order("hand", 2, 2, cl_ord_link_id="P1", foreign=True, strategy=""),
        replace(PARENT, filled_qty=2),
    )


# -- rates --------------------------------------------------------------------------------------------------------


def send(bench: GuardBench, count: int, *, account: str = "A1", is_repeated: bool = False, start: int = 0) -> None:
    """Record requests that the gateway sends at the present time."""
    for number in range(start, start + count):
        bench.record(
            ("gateway", request(f"{account}-{number}", account=account, price=100 if is_repeated else 100 + number))
        )


@legal
def as_many_requests_as_the_limit_in_each_account(bench: GuardBench) -> None:
    send(bench, 2000, account="A1")
    send(bench, 2000, account="A2")
    bench.pass_time(1.001)
    send(bench, 2000, account="A1", start=2000)


@wrong("message-rate-bounded")
def more_requests_than_the_limit_in_a_second(bench: GuardBench) -> None:
    send(bench, 1500)
    bench.pass_time(0.5)
    send(bench, 501, start=1500)


@legal
def the_same_request_at_the_limit_in_ten_seconds(bench: GuardBench) -> None:
    send(bench, 500, is_repeated=True)
    send(bench, 500, is_repeated=True, account="A2")
    bench.pass_time(10.001)
    send(bench, 500, is_repeated=True, start=500)


@legal
def a_market_maker_replaces_each_version_at_the_same_price(bench: GuardBench) -> None:
    bench.orders(order(), request())
    for number in range(300):
        orig = f"o1~{number - 1}" if number else "o1"
        bench.record(("gateway", replace_request(f"o1~{number}", orig, price=100 + number % 2)))


@wrong("repeated-requests-bounded")
def the_same_request_without_end(bench: GuardBench) -> None:
    send(bench, 300, is_repeated=True)
    bench.pass_time(5)
    send(bench, 201, is_repeated=True, start=300)


def reject(bench: GuardBench, count: int, *, start: int = 0, symbol: str = "BTC") -> None:
    """Record orders that the venue rejects at the present time."""
    for number in range(start, start + count):
        key = f"{symbol}{number}"
        bench.orders(order(key, symbol=symbol, ord_status=S.PENDING_NEW))
        bench.orders(order(key, symbol=symbol, ord_status=S.REJECTED, exec_type=ExecType.REJECTED))
        bench.orders(order(key, symbol=symbol, ord_status=S.REJECTED, exec_type=ExecType.REJECTED, order_id="V"))


@legal
def as_many_rejects_as_the_limit_in_each_book(bench: GuardBench) -> None:
    reject(bench, 100)
    reject(bench, 100, symbol="ETH")
    bench.pass_time(10.001)
    reject(bench, 100, start=100)


@wrong("reject-rate-bounded")
def more_rejects_than_the_limit_in_ten_seconds(bench: GuardBench) -> None:
    reject(bench, 60)
    bench.pass_time(5)
    reject(bench, 41, start=60)


def log_on(bench: GuardBench, epoch: int, *, is_complete: bool, up_s: float = 0.1) -> None:
    """Record a connection: it comes up, a reconciliation begins and perhaps completes, it goes down."""
    link = Link(name="L", is_up=True, epoch=epoch, in_seq=0, out_seq=0, change="reset")
    bench.record(("gateway", link), ("reconciler", Reconciliation(link="L", epoch=epoch, is_complete=False)))
    bench.pass_time(up_s)
    if is_complete:
        bench.record(("reconciler", Reconciliation(link="L", epoch=epoch, is_complete=True)))
    bench.record(("gateway", replace(link, is_up=False, change="logout")))


@legal
def many_reconnects_with_complete_reconciliations(bench: GuardBench) -> None:
    for epoch in range(1, 200):
        log_on(bench, epoch, is_complete=epoch % 50 == 0)


@wrong("reconciliation-bounded")
def many_reconnects_without_a_complete_reconciliation(bench: GuardBench) -> None:
    log_on(bench, 1, is_complete=True)
    for epoch in range(2, 63):
        log_on(bench, epoch, is_complete=False)


@wrong("reconciliation-bounded")
def long_connections_that_are_never_reconciled(bench: GuardBench) -> None:
    log_on(bench, 1, is_complete=True)
    for epoch in range(2, 27):
        log_on(bench, epoch, is_complete=False, up_s=25)


# -- restarts -----------------------------------------------------------------------------------------------------

RESTORED = Order(
    root_cl_ord_id="o1",
    cl_ord_id="o1b",
    orig_cl_ord_id="o1",
    symbol="BTC",
    side=Side.SELL,
    order_qty=10,
    leaves_qty=10,
    ord_status=S.NEW,
    account="A1",
    strategy="s1",
    price=100,
    link="V",
    **TERMS,  # type: ignore[arg-type]
)


@pytest.mark.parametrize("states_venue", [True, False], ids=["venue", "no venue"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cl_ord_id", "o1"),
        ("orig_cl_ord_id", ""),
        ("side", Side.BUY),
        ("symbol", "ETH"),
        ("account", "A2"),
        ("strategy", "s2"),
        ("ord_type", OrdType.LIMIT),
        ("time_in_force", TimeInForce.DAY),
        ("price", 90),
        ("stop_px", None),
        ("order_id", "V0"),
        ("cl_ord_link_id", "P9"),
        ("link", ""),
        ("trade_date", "2026-03-02"),
        ("expire_date", ""),
        ("reference_version", "r0"),
        ("position_id", ""),
    ],
)
def test_a_field_that_a_restart_changes_is_found(tmp_path: Path, field: str, value: object, states_venue: bool) -> None:
    """Each field alone, whether the venue states it or not; the unchanged order is silent."""
    for restored in (RESTORED, replace(RESTORED, **{field: value})):
        bench = GuardBench(tmp_path / str(restored == RESTORED))
        bench.orders(replace(RESTORED, cl_ord_id="o1", orig_cl_ord_id=""))
        bench.orders(replace(RESTORED, exec_type=ExecType.REPLACED))
        if states_venue:
            bench.record(("venue", replace(RESTORED, strategy="", link="", trade_date="")))
        bench.restart(orders=[restored])
        bench.guard.reconciled(DAY)
        assert ("restored-order-unchanged" in bench.breached) == (restored != RESTORED), bench.explanations


@legal
def a_restored_order_changes_after_the_restart(bench: GuardBench) -> None:
    bench.orders(RESTORED)
    bench.restart(orders=[RESTORED])
    bench.orders(replace(RESTORED, stop_px=97, exec_type=ExecType.REPLACED))
    bench.guard.reconciled(DAY)


@legal
def the_venue_replaced_the_order_while_the_system_was_down(bench: GuardBench) -> None:
    bench.orders(RESTORED)
    bench.record(("venue", replace(RESTORED, price=95, exec_type=ExecType.REPLACED)))
    bench.restart(orders=[replace(RESTORED, price=95)])
    bench.guard.reconciled(DAY)


@legal
def a_restart_without_a_known_order(bench: GuardBench) -> None:
    bench.restart(orders=[RESTORED], positions=[position(10, 10)])
    bench.guard.reconciled(DAY)


# -- the cases ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_situation_is_silent(tmp_path: Path, name: str) -> None:
    """No invariant of the whole catalogue is breached, except by what the case leaves out on purpose."""
    bench = GuardBench(tmp_path)
    LEGAL[name](bench)
    assert bench.explanations == []


@pytest.mark.parametrize(("invariant", "case"), WRONG, ids=[case.__name__ for _, case in WRONG])
def test_a_wrong_situation_breaches_its_invariant(tmp_path: Path, invariant: str, case: Case) -> None:
    """The named invariant is among those that are breached."""
    bench = GuardBench(tmp_path)
    case(bench)
    assert invariant in bench.breached, bench.explanations


def test_time_in_which_the_process_is_down_is_no_effort(tmp_path: Path) -> None:
    """A long downtime between two logons is not time on a link that is up and not reconciled."""
    bench = GuardBench(tmp_path)
    for epoch in range(1, 8):
        bench.record(("gateway", Link(name="V", is_up=True, epoch=epoch)))
        bench.guard.steps.mark_subject_down()
        bench.pass_time(900)
        bench.record(("gateway", Link(name="V", is_up=True, epoch=epoch + 100)))
        bench.record(("reconciler", Reconciliation(link="V", epoch=epoch + 100, is_complete=True)))
    assert bench.breached == set()
