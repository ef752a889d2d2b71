"""FIX logs for tests: messages in FIX 4.4 terms, written in any version, framing and prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdover.audit.fix_sessions import FixSessions
from holdover.audit.framing import FixFramer
from holdover.audit.reported_orders import ReportedOrders
from holdover.model import Record
from holdover.runtime import Guard

TAGS = {
    "msg_type": "35",
    "cl_ord_id": "11",
    "orig_cl_ord_id": "41",
    "exec_id": "17",
    "exec_ref_id": "19",
    "exec_type": "150",
    "ord_status": "39",
    "order_qty": "38",
    "cum_qty": "14",
    "leaves_qty": "151",
    "last_qty": "32",
    "last_px": "31",
    "price": "44",
    "avg_px": "6",
    "time_in_force": "59",
    "order_id": "37",
    "exec_restatement_reason": "378",
    "poss_dup": "43",
    "poss_resend": "97",
    "symbol": "55",
    "cxl_rej_reason": "102",
    "ord_rej_reason": "103",
}
VERSIONS = ("FIX.4.2", "FIX.4.4", "FIXT.1.1")
SEPARATORS = (b"\x01", b"|", b"^A")
PREFIXES = {
    "none": b"",
    "quickfix": b"20240102-13:30:00.123 : ",
    "quickfixj": b"20240102-13:30:00 FIX.4.4:CLIENT->VENUE, incoming: ",
    "log4j": b"2024-01-02 13:30:00,123 INFO  [main] fix.in - <",
}


def frame(begin: str, fields: list[tuple[str, Any]], separator: bytes = b"\x01", prefix: bytes = b"") -> bytes:
    """One line: BodyLength and CheckSum are those of the message with SOH between its fields."""
    body = "".join(f"{tag}={value}\x01" for tag, value in fields).encode("latin-1")
    text = f"8={begin}\x019={len(body)}\x01".encode() + body
    text += b"10=%03d\x01" % (sum(text) % 256)
    return prefix + text.replace(b"\x01", separator) + b"\n"


class FixLogWriter:
    """A log of one FIX session with the sequence numbers of both directions.

    Messages are mappings of FIX 4.4 field names to values.
    """

    def __init__(
        self,
        version: str = "FIX.4.4",
        separator: bytes = b"\x01",
        prefix: bytes = b"",
        client: str = "CLIENT",
        venue: str = "VENUE",
    ) -> None:
        self.version, self.separator, self.prefix = version, separator, prefix
        self.client, self.venue = client, venue
        self.seq = {"C": 0, "V": 0}
        self.clock = 0
        self.lines: list[bytes] = []

    def write_message(self, party: str, kind: str, fields: list[tuple[str, Any]], day: int = 1, **header: Any) -> None:
        """Write one message of the client (C) or the venue (V); `header` may set seq, sent and dup."""
        seq = header.get("seq")
        if seq is None:
            self.seq[party] += 1
            seq = self.seq[party]
        self.clock += 1
        sender, target = (self.client, self.venue) if party == "C" else (self.venue, self.client)
        sending_time = (
            f"202401{day + 1:02d}-{9 + self.clock // 3600:02d}:{self.clock // 60 % 60:02d}:{self.clock % 60:02d}.000"
        )
        head: list[tuple[str, Any]] = [
            ("35", kind),
            ("34", seq),
            ("49", sender),
            ("52", header.get("sent", sending_time)),
        ]
        head += [("56", target)]
        head += [("1128", "9")] if self.version == "FIXT.1.1" and kind in "D89FG" else []
        head += [("43", "Y")] if header.get("dup") else []
        self.lines.append(frame(self.version, head + fields, self.separator, self.prefix))

    def write_order_message(self, message: dict[str, Any], **header: Any) -> None:
        """Write one order message."""
        message = {"symbol": "ABC", **message}
        kind = message.pop("msg_type")
        day = message.pop("day", 1)
        party = "V" if kind in "89" else "C"
        if message.pop("poss_dup", "") == "Y":
            header = {"seq": self.seq[party], "dup": True, **header}
        if kind == "8" and self.version == "FIX.4.2":
            message = _as_fix42(message)
        fields = [(TAGS.get(name, name.lstrip("_")), value) for name, value in message.items()]
        self.write_message(party, kind, fields, day, **header)

    def log(self) -> list[bytes]:
        """Return the lines."""
        return self.lines


def _as_fix42(report: dict[str, Any]) -> dict[str, Any]:
    """Return an execution report in the terms of FIX 4.2."""
    report = dict(report)
    kind = report["exec_type"]
    is_filled = report["cum_qty"] == report.get("order_qty")
    report["_20"] = {"H": "1", "G": "2", "I": "3"}.get(kind, "0")
    if kind in ("F", "G", "H", "I"):
        report["exec_type"] = "2" if is_filled else "1"
    if kind == "5" and report["ord_status"] == "0":
        report["ord_status"] = "5"
    return report


class _GuardRecorder:
    """Records in a guard what the reader of reports would record in a monitor of its own."""

    def __init__(self, guard: Guard) -> None:
        self.cause = ""
        self.instruments, self.tables = guard.monitor.instruments, guard.monitor.tables
        self.records: Callable[[type[Record], str], Mapping[str, Record]] = guard.monitor.records
        self._guard = guard

    def mutate(self, subsystem: str, record: Record, now_ns: int, touched: object) -> None:
        """Record in the guard, which has its own clock."""
        self._guard.record(subsystem, record)

    def settle(self, touched: object, now_ns: int) -> None:
        """Do nothing: the step of the message settles."""


def record_messages(guard: Guard, messages: Iterable[dict[str, Any]]) -> None:
    """Read messages as a FIX log and record what they say in a guard, each message in a step of its own."""
    writer = FixLogWriter()
    for message in messages:
        writer.write_order_message(message)
    framer, sessions = FixFramer(), FixSessions(lambda message, expected: None)
    orders = ReportedOrders(_GuardRecorder(guard))  # type: ignore[arg-type]
    for number, line in enumerate(writer.log(), 1):
        for fields in framer.split_line(line):
            assert isinstance(fields, dict), fields
            for log_message in sessions.take_message(fields, (0, number)):
                with guard.step("message"):
                    orders.read(log_message)
    with guard.step("end"):
        orders.end(sessions)
