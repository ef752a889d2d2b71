"""The FIX messages of a process as they passed the wire: recorded, audited with the catalogue, and compared.

Messages are audited in the time of the recorded day. SendingTime is wall-clock time, by which two days that
run one after the other would be one day.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from holdover.adapters.fix.fix_message import (
    ParsedMessage,
    format_utc_timestamp,
    parse_utc_timestamp,
)
from holdover.adapters.process.engine_store import redact_message
from holdover.adapters.process.wire import INBOUND, OUTBOUND
from holdover.audit import Audit
from holdover.catalogue import Catalogue
from holdover.model import fix_tags as tags
from holdover.runtime.redaction import RedactionRules

_TIMES: Final = re.compile(rb"\x01(52|122)=(\d{8}-\d\d:\d\d:\d\d)")
_RULES: Final = RedactionRules.with_defaults()
_REQUESTS: Final = {"D": "new", "F": "cancel", "G": "replace"}
_PENDING: Final = ("6", "A", "E")


class Era(msgspec.Struct, frozen=True):
    """A mapping of clocks: from `wall_ns` on, the recorded time was `day_ns` and ran `pace` times as fast."""

    wall_ns: int
    day_ns: int
    pace: float

    def at(self, wall_ns: int) -> int:
        """Return the recorded time at a wall-clock time."""
        return self.day_ns + int(max(0, wall_ns - self.wall_ns) * self.pace)


class WireMessage(msgspec.Struct, frozen=True):
    """A message that has passed the wire: its time in the recorded day, its direction and its text."""

    time_ns: int
    direction: str
    text: bytes


class OrderAction(msgspec.Struct, frozen=True):
    """A request or report of a process, comparable between runs: `comparison_key` has no names, ids or prices.

    `description` has them, in words.
    """

    time_ns: int
    direction: str
    comparison_key: tuple[str, ...]
    description: str


class Transcript:
    """The messages of one run, in order. Each is written to the file before it is let through.

    A Logon is written without its password.
    """

    def __init__(self, path: Path, now_ns: Callable[[], int]) -> None:
        self.path = path
        self.messages: list[WireMessage] = []
        self._now_ns = now_ns
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(path, "wb", buffering=0)  # noqa: SIM115 - held as long as the run is

    def record(self, direction: str, message: bytes) -> None:
        """Record one message."""
        with self._lock:
            wire_message = WireMessage(self._now_ns(), direction, message)
            self.messages.append(wire_message)
            if not self._file.closed:
                text = redact_message(message, _RULES) if b"\x0135=A\x01" in message else message
                self._file.write(f"{format_utc_timestamp(wire_message.time_ns)} {direction} ".encode() + text + b"\n")

    def close(self) -> None:
        """Close the file at the end of the run."""
        with self._lock:
            self._file.close()


def audit_messages(
    catalogue: Catalogue, messages: Sequence[WireMessage], eras: Sequence[Era], name: str, before: bytes = b""
) -> Audit:
    """Audit the messages. `before` is the memory of the previous day's audit."""
    audit = Audit(catalogue)
    if before:
        audit.restore_bytes(before)
    audit.begin_log(name)
    audit.read_lines(restamp_message(wire_message, eras) for wire_message in messages)
    audit.end()
    return audit


def restamp_message(wire_message: WireMessage, eras: Sequence[Era]) -> bytes:
    """Return a message with its sending times in the recorded day. BodyLength stays; CheckSum is recomputed."""
    sending_time = format_utc_timestamp(wire_message.time_ns)[:17].encode()

    def replace_time(match: re.Match[bytes]) -> bytes:
        if match[1] == b"52":
            return b"\x0152=" + sending_time
        era = max(
            (era for era in eras if era.wall_ns <= _parse_wall_time(match[2])),
            key=lambda era: era.wall_ns,
            default=None,
        )
        original_time = (
            format_utc_timestamp(era.at(_parse_wall_time(match[2])))[:17].encode() if era is not None else sending_time
        )
        return b"\x01122=" + original_time

    body = _TIMES.sub(replace_time, wire_message.text)
    end = body.rfind(b"\x0110=") + 1
    return body[:end] + b"10=%03d\x01" % (sum(body[:end]) % 256)


def _parse_wall_time(text: bytes) -> int:
    return parse_utc_timestamp(text.decode())


def order_actions(messages: Sequence[WireMessage], direction: str) -> list[OrderAction]:
    """Return the distinct requests (`out`) or reports (`in`) about orders."""
    actions: list[OrderAction] = []
    marks: set[tuple[str, ...]] = set()
    for wire_message in messages:
        if wire_message.direction != direction:
            continue
        fields = ParsedMessage(wire_message.text.decode("utf-8", "replace"))
        action = (
            _request_action(wire_message, fields) if direction == OUTBOUND else _report_action(wire_message, fields)
        )
        mark = (
            fields.kind,
            fields.get(tags.CL_ORD_ID),
            fields.get(tags.EXEC_ID),
            fields.get(tags.ORIG_CL_ORD_ID),
            fields.get(tags.EXEC_TYPE),
        )
        if action is not None and mark not in marks:
            marks.add(mark)
            actions.append(action)
    return actions


def _request_action(wire_message: WireMessage, fields: ParsedMessage) -> OrderAction | None:
    kind = _REQUESTS.get(fields.kind)
    if kind is None:
        return None
    side = "sell" if fields.get(tags.SIDE) in ("2", "5") else "buy"
    key = (
        kind,
        fields.get(tags.ACCOUNT),
        fields.get(tags.SYMBOL),
        side,
        fields.get(tags.ORDER_QTY),
        fields.get(tags.TIME_IN_FORCE, "0"),
    )
    cl_ord_id, quantity = fields.get(tags.CL_ORD_ID), fields.get(tags.ORDER_QTY)
    description = f"{kind} {cl_ord_id} {fields.get(tags.ACCOUNT)} {side} {quantity} {fields.get(tags.SYMBOL)}"
    description += f" at {fields.get(tags.PRICE)}" if fields.get(tags.PRICE) else ""
    return OrderAction(
        wire_message.time_ns,
        OUTBOUND,
        key,
        description + (f" for {fields.get(tags.ORIG_CL_ORD_ID)}" if fields.get(tags.ORIG_CL_ORD_ID) else ""),
    )


def _report_action(wire_message: WireMessage, fields: ParsedMessage) -> OrderAction | None:
    if fields.kind != "8" or fields.get(tags.EXEC_TYPE) in _PENDING or not fields.get(tags.CL_ORD_ID):
        return None  # a later report says more; an empty answer is about no order
    side = "sell" if fields.get(tags.SIDE) in ("2", "5") else "buy"
    exec_type = _EXEC_TYPES.get(fields.get(tags.EXEC_TYPE), fields.get(tags.EXEC_TYPE))
    key = (exec_type, fields.get(tags.ACCOUNT), fields.get(tags.SYMBOL), side, fields.get(tags.ORDER_QTY))
    progress = f"{fields.get(tags.CUM_QTY)}/{fields.get(tags.ORDER_QTY)}"
    description = f"{exec_type} {fields.get(tags.CL_ORD_ID)} {side} {progress} {fields.get(tags.SYMBOL)}"
    return OrderAction(wire_message.time_ns, INBOUND, key, description)


_EXEC_TYPES: Final = {
    "0": "New",
    "4": "Canceled",
    "5": "Replaced",
    "8": "Rejected",
    "C": "Expired",
    "D": "Restated",
    "F": "Trade",
    "3": "DoneForDay",
    "I": "OrderStatus",
    "G": "TradeCorrect",
    "H": "TradeCancel",
}


class WireDivergence(msgspec.Struct, frozen=True):
    """The first difference between two runs: the request or report of each. A missing one is an empty string."""

    time_ns: int
    direction: str
    carried: str
    control: str


def find_divergence(carried: Sequence[WireMessage], control: Sequence[WireMessage]) -> WireDivergence | None:
    """Return the first difference between the requests and reports of two runs; None when there is none."""
    divergences = [
        divergence
        for direction in (OUTBOUND, INBOUND)
        if (
            divergence := _first_divergence(
                order_actions(carried, direction), order_actions(control, direction), direction
            )
        )
        is not None
    ]
    return min(divergences, key=lambda divergence: divergence.time_ns, default=None)


def _first_divergence(carried: list[OrderAction], control: list[OrderAction], direction: str) -> WireDivergence | None:
    for number in range(max(len(carried), len(control))):
        carried_action = carried[number] if number < len(carried) else None
        control_action = control[number] if number < len(control) else None
        if (
            carried_action is None
            or control_action is None
            or carried_action.comparison_key != control_action.comparison_key
        ):
            first: Any = min(
                (action for action in (carried_action, control_action) if action is not None),
                key=lambda action: action.time_ns,
            )
            return WireDivergence(
                first.time_ns,
                direction,
                carried_action.description if carried_action else "",
                control_action.description if control_action else "",
            )
    return None
