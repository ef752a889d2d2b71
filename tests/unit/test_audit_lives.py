"""Any legal life of an order is silent in any framing; one field of one report corrupted trips what it should."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdover.audit import Audit
from holdover.catalogue import Catalogue
from tests.unit.fixlog import PREFIXES, SEPARATORS, VERSIONS, Writer

CATALOGUE = Catalogue.load()
ACTS = ("fill", "fill", "fill", "pending-cancel", "refuse", "replace", "night", "bust", "correct", "status", "resend")


class Life:
    """An order as a correct venue reports it, and the requests that it answers."""

    def __init__(self, name: str, unit: int) -> None:
        self.name, self.unit = name, unit
        self.messages: list[dict[str, Any]] = []
        self.day = 1
        self.made = self.ids = 0
        self.qty, self.cum, self.pending = 100 * unit, 0, ""
        self.cl_ord_id = name
        self.trades: dict[str, int] = {}
        self.messages.append({"msg_type": "D", "cl_ord_id": name, "order_qty": self.qty, "time_in_force": "1"})
        self.report("0")

    def report(self, exec_type: str, status: str = "", leaves: int | None = None, **more: Any) -> None:
        """What the venue says now."""
        self.made += 1
        usual = "2" if self.cum == self.qty else "1" if self.cum else "0"
        told = {"msg_type": "8", "cl_ord_id": self.cl_ord_id, "exec_id": f"{self.name}-{self.made}"}
        told |= {"exec_type": exec_type, "ord_status": status or self.pending or usual, "order_qty": self.qty}
        told |= {"cum_qty": self.cum, "leaves_qty": self.qty - self.cum if leaves is None else leaves}
        self.messages.append({**told, "order_id": f"V{self.name}", "day": self.day, "time_in_force": "1", **more})

    def request(self, kind: str, **more: Any) -> str:
        """The client asks; returns the new ClOrdID."""
        self.ids += 1
        name = f"{self.name}.{self.ids}"
        told = {"msg_type": kind, "cl_ord_id": name, "orig_cl_ord_id": self.cl_ord_id, "day": self.day}
        self.messages.append({**told, **more})
        return name

    def act(self, what: str, amount: int) -> None:
        """One thing that may happen, where it may happen."""
        left = self.qty - self.cum
        if what == "fill" and left:
            last = min(left, amount * self.unit)
            self.cum += last
            self.trades[f"{self.name}-{self.made + 1}"] = last
            self.report("F", last_qty=last, last_px=100 + amount)
        elif what == "pending-cancel" and not self.pending and left:
            name = self.request("F")
            self.pending = "6"
            self.report("6", "6", cl_ord_id=name, orig_cl_ord_id=self.cl_ord_id)
        elif what == "refuse" and self.pending:
            self.pending = ""
            usual = "2" if self.cum == self.qty else "1" if self.cum else "0"
            told = {"msg_type": "9", "cl_ord_id": f"{self.name}.{self.ids}", "orig_cl_ord_id": self.cl_ord_id}
            self.messages.append({**told, "ord_status": usual, "day": self.day})
        elif what == "replace" and not self.pending:
            self.qty = max(self.cum, self.qty + (amount - 20) * self.unit)
            name = self.request("G", order_qty=self.qty)
            told = self.cl_ord_id
            self.cl_ord_id = name
            self.report("5", orig_cl_ord_id=told)
        elif what == "night" and not self.pending and left:
            self.report("3", "3")
            self.day += 1
            self.report("D", exec_restatement_reason="1")
        elif what in ("bust", "correct") and self.trades and not self.pending:
            name = sorted(self.trades)[amount % len(self.trades)]
            now = 0 if what == "bust" else max(1, self.trades[name] - 1)
            self.cum += now - self.trades.pop(name)
            more = {"last_qty": now, "last_px": 90} if now else {}
            if now:
                self.trades[f"{self.name}-{self.made + 1}"] = now
            self.report("G" if now else "H", exec_ref_id=name, **more)
        elif what == "status":
            self.report("I", exec_id="0")
        elif what == "resend" and self.messages[-1].get("exec_type") not in (None, "I"):
            self.messages.append({**self.messages[-1], "poss_dup": "Y"})


@st.composite
def lives(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The messages of a few orders, mixed as they may come."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        life = Life(f"O{number}", draw(st.sampled_from((1, 100))))
        for what, amount in draw(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(1, 40)), max_size=12)):
            life.act(what, amount)
        found.append(life.messages)
    mixed: list[dict[str, Any]] = []
    while any(found):
        # In the order of the days: a session that goes back to yesterday is none.
        day = min(one[0].get("day", 1) for one in found if one)
        turn = draw(st.sampled_from([one for one in found if one and one[0].get("day", 1) == day]))
        mixed.append(turn.pop(0))
        while turn and turn[0].get("poss_dup"):
            mixed.append(turn.pop(0))
    return mixed


framings = st.tuples(st.sampled_from(VERSIONS), st.sampled_from(SEPARATORS), st.sampled_from(sorted(PREFIXES)))
quickly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def audited(messages: list[dict[str, Any]], framing: tuple[str, bytes, str], keep: str = "CV") -> Audit:
    """The audit of what the parties in `keep` sent."""
    version, separator, prefix = framing
    writer = Writer(version, separator, PREFIXES[prefix])
    lines: list[bytes] = []
    for told in messages:
        writer.say(told)
        if ("V" if told["msg_type"] in "89" else "C") in keep:
            lines.append(writer.lines[-1])
    audit = Audit(CATALOGUE)
    audit.read("log", io.BytesIO(b"".join(lines)))
    audit.end()
    return audit


@quickly
@given(lives(), framings, st.sampled_from(("CV", "V", "C")), st.integers(0, 30))
def test_a_legal_life_is_silent(
    messages: list[dict[str, Any]], framing: tuple[str, bytes, str], keep: str, cut: int
) -> None:
    """Both directions or one, from the beginning or from any message on."""
    assert audited(messages, framing, keep).breaches == []
    audit = audited(messages, framing, keep)
    assert audit.skipped == []
    assert audited(messages[cut:], framing, keep).breaches == []


WRONG: dict[str, tuple[dict[str, int], str]] = {
    "LeavesQty": ({"leaves_qty": 1}, "order-quantity-conserved"),
    "CumQty": ({"cum_qty": 1, "leaves_qty": -1}, "cumulative-equals-executions"),
    "CumQty falls": ({"cum_qty": -1, "leaves_qty": 1}, "cumulative-equals-executions"),
    "LastQty": ({"last_qty": 1}, "cumulative-equals-executions"),
    "OrderQty": ({"order_qty": 1}, "order-quantity-conserved"),
}


@quickly
@given(lives(), framings, st.sampled_from(sorted(WRONG)), st.data())
def test_a_corrupted_fill_trips_its_invariant(
    messages: list[dict[str, Any]], framing: tuple[str, bytes, str], kind: str, data: st.DataObject
) -> None:
    """On the very line, and nothing before it."""
    fills = [n for n, told in enumerate(messages) if told.get("exec_type") == "F" and not told.get("poss_dup")]
    if not fills:
        return
    place = data.draw(st.sampled_from(fills))
    changes, expected = WRONG[kind]
    messages = [dict(told) for told in messages]
    for name, change in changes.items():
        messages[place][name] += change
    if kind == "OrderQty" and messages[place]["ord_status"] == "2":
        expected = "status-agrees-with-quantities"  # of a filled order nothing is left, whatever it was for
    audit = audited(messages, framing)
    assert expected in [one.invariant for one in audit.breaches if one.line == place + 1]
    assert all(one.line > place for one in audit.breaches)


@quickly
@given(lives(), framings, st.data())
def test_an_exec_id_used_again_is_found(
    messages: list[dict[str, Any]], framing: tuple[str, bytes, str], data: st.DataObject
) -> None:
    """A fill under the ExecID of an earlier report of its day."""
    fills = [(n, told) for n, told in enumerate(messages) if told.get("exec_type") == "F" and not told.get("poss_dup")]
    pairs = [(a, b) for a, one in fills for b, two in fills if a < b and one["day"] == two["day"]]
    if not pairs:
        return
    first, second = data.draw(st.sampled_from(pairs))
    messages = [dict(told) for told in messages[: second + 1]]
    messages[second]["exec_id"] = messages[first]["exec_id"]
    audit = audited(messages, framing)
    assert "execution-booked-once" in [one.invariant for one in audit.breaches if one.line == second + 1]
