"""Any legal sequence of reports passes in any framing; one corrupted field breaches its invariant."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdover.audit import Audit
from holdover.catalogue import Catalogue
from tests.unit.fixlog import PREFIXES, SEPARATORS, VERSIONS, FixLogWriter

CATALOGUE = Catalogue.load()
ACTIONS = (
    "fill",
    "fill",
    "fill",
    "pending-cancel",
    "refuse",
    "replace",
    "night",
    "bust",
    "correct",
    "status",
    "resend",
)


class SimulatedOrder:
    """An order as a correct venue reports it, with the requests that it answers."""

    def __init__(self, name: str, unit: int) -> None:
        self.name, self.unit = name, unit
        self.messages: list[dict[str, Any]] = []
        self.day = 1
        self.report_count = self.request_count = 0
        self.qty, self.cum, self.pending = 100 * unit, 0, ""
        self.cl_ord_id = name
        self.trades: dict[str, int] = {}
        self.messages.append({"msg_type": "D", "cl_ord_id": name, "order_qty": self.qty, "time_in_force": "1"})
        self.report("0")

    def report(self, exec_type: str, status: str = "", leaves: int | None = None, **fields: Any) -> None:
        """Append an execution report of the present state."""
        self.report_count += 1
        usual = "2" if self.cum == self.qty else "1" if self.cum else "0"
        report = {"msg_type": "8", "cl_ord_id": self.cl_ord_id, "exec_id": f"{self.name}-{self.report_count}"}
        report |= {"exec_type": exec_type, "ord_status": status or self.pending or usual, "order_qty": self.qty}
        report |= {"cum_qty": self.cum, "leaves_qty": self.qty - self.cum if leaves is None else leaves}
        self.messages.append({**report, "order_id": f"V{self.name}", "day": self.day, "time_in_force": "1", **fields})

    def request(self, kind: str, **fields: Any) -> str:
        """Append a request of the client. Returns the new ClOrdID."""
        self.request_count += 1
        name = f"{self.name}.{self.request_count}"
        request = {"msg_type": kind, "cl_ord_id": name, "orig_cl_ord_id": self.cl_ord_id, "day": self.day}
        self.messages.append({**request, **fields})
        return name

    def apply(self, action: str, amount: int) -> None:
        """Apply an action if the present state allows it."""
        leaves_qty = self.qty - self.cum
        if action == "fill" and leaves_qty:
            last = min(leaves_qty, amount * self.unit)
            self.cum += last
            self.trades[f"{self.name}-{self.report_count + 1}"] = last
            self.report("F", last_qty=last, last_px=100 + amount)
        elif action == "pending-cancel" and not self.pending and leaves_qty:
            name = self.request("F")
            self.pending = "6"
            self.report("6", "6", cl_ord_id=name, orig_cl_ord_id=self.cl_ord_id)
        elif action == "refuse" and self.pending:
            self.pending = ""
            usual = "2" if self.cum == self.qty else "1" if self.cum else "0"
            payload = {
                "msg_type": "9",
                "cl_ord_id": f"{self.name}.{self.request_count}",
                "orig_cl_ord_id": self.cl_ord_id,
            }
            self.messages.append({**payload, "ord_status": usual, "day": self.day})
        elif action == "replace" and not self.pending:
            self.qty = max(self.cum, self.qty + (amount - 20) * self.unit)
            name = self.request("G", order_qty=self.qty)
            payload = self.cl_ord_id
            self.cl_ord_id = name
            self.report("5", orig_cl_ord_id=payload)
        elif action == "night" and not self.pending and leaves_qty:
            self.report("3", "3")
            self.day += 1
            self.report("D", exec_restatement_reason="1")
        elif action in ("bust", "correct") and self.trades and not self.pending:
            name = sorted(self.trades)[amount % len(self.trades)]
            corrected_qty = 0 if action == "bust" else max(1, self.trades[name] - 1)
            self.cum += corrected_qty - self.trades.pop(name)
            trade_fields = {"last_qty": corrected_qty, "last_px": 90} if corrected_qty else {}
            if corrected_qty:
                self.trades[f"{self.name}-{self.report_count + 1}"] = corrected_qty
            self.report("G" if corrected_qty else "H", exec_ref_id=name, **trade_fields)
        elif action == "status":
            self.report("I", exec_id="0")
        elif action == "resend" and self.messages[-1].get("exec_type") not in (None, "I"):
            self.messages.append({**self.messages[-1], "poss_dup": "Y"})


@st.composite
def order_messages(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw the messages of one to three orders, interleaved in the order of their days."""
    streams = []
    for number in range(draw(st.integers(1, 3))):
        order = SimulatedOrder(f"O{number}", draw(st.sampled_from((1, 100))))
        for action, amount in draw(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(1, 40)), max_size=12)):
            order.apply(action, amount)
        streams.append(order.messages)
    mixed: list[dict[str, Any]] = []
    while any(streams):
        # In the order of the days: a session that goes back to yesterday is none.
        day = min(stream[0].get("day", 1) for stream in streams if stream)
        stream_in_turn = draw(
            st.sampled_from([stream for stream in streams if stream and stream[0].get("day", 1) == day])
        )
        mixed.append(stream_in_turn.pop(0))
        while stream_in_turn and stream_in_turn[0].get("poss_dup"):
            mixed.append(stream_in_turn.pop(0))
    return mixed


framings = st.tuples(st.sampled_from(VERSIONS), st.sampled_from(SEPARATORS), st.sampled_from(sorted(PREFIXES)))
quick_settings = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def run_audit(messages: list[dict[str, Any]], framing: tuple[str, bytes, str], parties: str = "CV") -> Audit:
    """Return the audit of the messages that `parties` sent."""
    version, separator, prefix = framing
    writer = FixLogWriter(version, separator, PREFIXES[prefix])
    lines: list[bytes] = []
    for message in messages:
        writer.write_order_message(message)
        if ("V" if message["msg_type"] in "89" else "C") in parties:
            lines.append(writer.lines[-1])
    audit = Audit(CATALOGUE)
    audit.read("log", io.BytesIO(b"".join(lines)))
    audit.end()
    return audit


@quick_settings
@given(order_messages(), framings, st.sampled_from(("CV", "V", "C")), st.integers(0, 30))
def test_a_legal_life_is_silent(
    messages: list[dict[str, Any]], framing: tuple[str, bytes, str], keep: str, cut: int
) -> None:
    """Both directions or one, from the beginning or from any message on."""
    assert run_audit(messages, framing, keep).breaches == []
    audit = run_audit(messages, framing, keep)
    assert audit.skipped == []
    assert run_audit(messages[cut:], framing, keep).breaches == []


WRONG: dict[str, tuple[dict[str, int], str]] = {
    "LeavesQty": ({"leaves_qty": 1}, "order-quantity-conserved"),
    "CumQty": ({"cum_qty": 1, "leaves_qty": -1}, "cumulative-equals-executions"),
    "CumQty falls": ({"cum_qty": -1, "leaves_qty": 1}, "cumulative-equals-executions"),
    "LastQty": ({"last_qty": 1}, "cumulative-equals-executions"),
    "OrderQty": ({"order_qty": 1}, "order-quantity-conserved"),
}


@quick_settings
@given(order_messages(), framings, st.sampled_from(sorted(WRONG)), st.data())
def test_a_corrupted_fill_trips_its_invariant(
    messages: list[dict[str, Any]], framing: tuple[str, bytes, str], kind: str, data: st.DataObject
) -> None:
    """On the very line, and nothing before it."""
    fills = [n for n, message in enumerate(messages) if message.get("exec_type") == "F" and not message.get("poss_dup")]
    if not fills:
        return
    place = data.draw(st.sampled_from(fills))
    changes, expected = WRONG[kind]
    messages = [dict(message) for message in messages]
    for name, change in changes.items():
        messages[place][name] += change
    if kind == "OrderQty" and messages[place]["ord_status"] == "2":
        expected = "status-agrees-with-quantities"  # of a filled order nothing is left, whatever it was for
    audit = run_audit(messages, framing)
    assert expected in [breach.invariant for breach in audit.breaches if breach.line == place + 1]
    assert all(breach.line > place for breach in audit.breaches)


@quick_settings
@given(order_messages(), framings, st.data())
def test_an_exec_id_used_again_is_found(
    messages: list[dict[str, Any]], framing: tuple[str, bytes, str], data: st.DataObject
) -> None:
    """A fill under the ExecID of an earlier report of its day."""
    fills = [
        (n, report)
        for n, report in enumerate(messages)
        if report.get("exec_type") == "F" and not report.get("poss_dup")
    ]
    pairs = [(a, b) for a, earlier in fills for b, later in fills if a < b and earlier["day"] == later["day"]]
    if not pairs:
        return
    first, second = data.draw(st.sampled_from(pairs))
    messages = [dict(message) for message in messages[: second + 1]]
    messages[second]["exec_id"] = messages[first]["exec_id"]
    audit = run_audit(messages, framing)
    assert "execution-booked-once" in [breach.invariant for breach in audit.breaches if breach.line == second + 1]
