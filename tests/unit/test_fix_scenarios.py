"""FIX's order state changes: legal ones are silent, a corruption of one trips the right invariant.

The rows are FIX 4.4 and 5.0 volume 4's: the stories that are easy to get wrong, told as messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdover.runtime import Guard
from tests.unit.fixlog import record_messages

MakeGuard = Callable[..., Guard]


def new(cl_ord_id: str = "X", order_qty: int = 10_000, **fields: Any) -> dict[str, Any]:
    """A new order single."""
    return {"msg_type": "D", "cl_ord_id": cl_ord_id, "order_qty": order_qty, **fields}


def report(exec_id: str, exec_type: str, status: str, cum: int, leaves: int, **fields: Any) -> dict[str, Any]:
    """An execution report of order X over 10,000."""
    return {
        "msg_type": "8",
        "cl_ord_id": "X",
        "exec_id": exec_id,
        "exec_type": exec_type,
        "ord_status": status,
        "order_qty": 10_000,
        "cum_qty": cum,
        "leaves_qty": leaves,
        **fields,
    }


def fill(exec_id: str, status: str, cum: int, leaves: int, last: int, px: int = 100, **fields: Any) -> dict[str, Any]:
    """A trade."""
    return report(exec_id, "F", status, cum, leaves, last_qty=last, last_px=px, **fields)


GTC = {"time_in_force": "1"}
LEGAL: dict[str, list[dict[str, Any]]] = {
    "filled in three": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        fill("E2", "1", 2_000, 8_000, 2_000),
        fill("E3", "1", 3_000, 7_000, 1_000),
        fill("E4", "2", 10_000, 0, 7_000),
    ],
    "a fill crosses the cancel, which stays pending": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        {"msg_type": "F", "cl_ord_id": "Y", "orig_cl_ord_id": "X"},
        report("E2", "6", "6", 0, 10_000, cl_ord_id="Y", orig_cl_ord_id="X"),
        fill("E3", "6", 1_000, 9_000, 1_000),
        report("E4", "4", "4", 1_000, 0, cl_ord_id="Y", orig_cl_ord_id="X"),
    ],
    "replace below what is filled": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        {"msg_type": "G", "cl_ord_id": "Y", "orig_cl_ord_id": "X", "order_qty": 7_000},
        fill("E2", "1", 8_000, 2_000, 8_000),
        report("E3", "5", "2", 8_000, 0, cl_ord_id="Y", orig_cl_ord_id="X", order_qty=8_000),
    ],
    "a filled order reopened by a replace": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        fill("E2", "2", 10_000, 0, 10_000),
        {"msg_type": "G", "cl_ord_id": "Y", "orig_cl_ord_id": "X", "order_qty": 12_000},
        report("E3", "E", "E", 10_000, 0, cl_ord_id="Y", orig_cl_ord_id="X"),
        report("E4", "5", "1", 10_000, 2_000, cl_ord_id="Y", orig_cl_ord_id="X", order_qty=12_000),
    ],
    "GTC carried overnight, ExecIDs start again": [
        new(**GTC),
        report("E1", "0", "0", 0, 10_000, **GTC),
        fill("E2", "1", 2_000, 8_000, 2_000, **GTC),
        report("E3", "3", "3", 2_000, 8_000, **GTC),
        report("E1", "D", "1", 2_000, 8_000, day=2, exec_restatement_reason="1", **GTC),
        fill("E2", "1", 3_000, 7_000, 1_000, day=2, **GTC),
    ],
    "busted and corrected": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        fill("E2", "1", 1_000, 9_000, 1_000),
        fill("E3", "2", 10_000, 0, 9_000, 110),
        report("E4", "H", "1", 9_000, 1_000, exec_ref_id="E2"),
        report("E5", "G", "1", 9_000, 1_000, exec_ref_id="E3", last_qty=9_000, last_px=100),
    ],
    "a bust on a cancelled order": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        fill("E2", "1", 1_000, 9_000, 1_000),
        report("E3", "4", "4", 1_000, 0),
        report("E4", "H", "4", 0, 0, exec_ref_id="E2"),
    ],
    "two for one split": [
        new(**GTC),
        report("E1", "0", "0", 0, 10_000, **GTC),
        fill("E2", "1", 2_000, 8_000, 2_000, **GTC),
        report("E3", "D", "1", 4_000, 16_000, day=2, order_qty=20_000, exec_restatement_reason="0", **GTC),
    ],
    "a fill resent": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        fill("E2", "1", 400, 9_600, 400),
        fill("E2", "1", 400, 9_600, 400, poss_dup="Y"),
    ],
    "expired": [new(), report("E1", "0", "0", 0, 10_000), report("E2", "C", "C", 0, 0)],
    "rejected": [new(), report("E1", "8", "8", 0, 0)],
    "status asked": [new(), report("E1", "0", "0", 0, 10_000), report("0", "I", "0", 0, 10_000)],
}


def breached_invariants(make_guard: MakeGuard, messages: list[dict[str, Any]]) -> list[str]:
    """The invariants that a story breaches."""
    guard = make_guard()
    record_messages(guard, messages)
    guard.close()
    return [breach.invariant for breach in guard.breaches]


@pytest.mark.parametrize("story", LEGAL)
def test_a_legal_story_is_silent(make_guard: MakeGuard, story: str) -> None:
    """No invariant fires on what FIX allows."""
    assert breached_invariants(make_guard, LEGAL[story]) == []


def corrupt_story(story: str, place: int, **fields: Any) -> list[dict[str, Any]]:
    """A story with one message changed, up to that message."""
    messages = [dict(message) for message in LEGAL[story]]
    messages[place].update(fields)
    return messages[: place + 1]


@pytest.mark.parametrize(
    ("story", "place", "fields", "expected"),
    [
        ("filled in three", 2, {"leaves_qty": 8_001}, "order-quantity-conserved"),
        ("filled in three", 3, {"exec_id": "E2"}, "execution-booked-once"),
        ("filled in three", 3, {"cum_qty": 1_000, "leaves_qty": 9_000}, "cumulative-never-falls"),
        ("filled in three", 3, {"cum_qty": 4_000, "leaves_qty": 6_000}, "cumulative-equals-executions"),
        ("filled in three", 3, {"ord_status": "0"}, "legal-status-step"),
        ("filled in three", 4, {"cum_qty": 10_001, "leaves_qty": -1}, "quantities-in-range"),
        ("busted and corrected", 4, {"exec_ref_id": "E9"}, "correction-names-its-execution"),
        ("a fill resent", 3, {"cum_qty": 800, "leaves_qty": 9_200, "last_qty": 401}, "execution-booked-once"),
        (
            "a bust on a cancelled order",
            4,
            {"exec_type": "0", "ord_status": "0", "leaves_qty": 10_000},
            "legal-status-step",
        ),
        ("expired", 2, {"leaves_qty": 10_000}, "order-quantity-conserved"),
        (
            "GTC carried overnight, ExecIDs start again",
            4,
            {"cum_qty": 0, "leaves_qty": 10_000, "ord_status": "0"},
            "cumulative-never-falls",
        ),
        ("a fill crosses the cancel, which stays pending", 2, {"orig_cl_ord_id": "NOBODY"}, "replace-chain-unbroken"),
        ("filled in three", 0, {"cl_ord_id": "X"}, ""),
    ],
)
def test_a_corruption_trips_its_invariant(
    make_guard: MakeGuard, story: str, place: int, fields: dict[str, Any], expected: str
) -> None:
    """The invariant that the catalogue names for it is among those that fire; nothing fires where nothing is wrong."""
    invariants = breached_invariants(make_guard, corrupt_story(story, place, **fields))
    assert expected in invariants if expected else invariants == []


def test_a_client_order_id_used_twice(make_guard: MakeGuard) -> None:
    """A second new order under the same ClOrdID is a breach, unless it is marked as a possible resend."""
    story = [new(), report("E1", "0", "0", 0, 10_000)]
    assert breached_invariants(make_guard, [*story, new()]) == ["client-order-id-unique"]
    assert breached_invariants(lambda: make_guard(name="second"), [*story, new(poss_resend="Y")]) == []
