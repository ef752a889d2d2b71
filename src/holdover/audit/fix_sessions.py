"""FIX sessions in a log: assigns messages to sessions and orders them as a correct receiver would take them.

A log holds what went over the wire. A receiver that misses a number requests it again and takes later
messages only after the gap is closed. This module does the same: it holds messages behind a gap until the gap
is closed or the log shows that it never will be. It takes a message that the log holds twice once.

What the log does not show is not claimed. A gap in a log of one direction, next to an unreadable line, or at
the start of another file may be the log's own; a direction counts these in `gaps`. For any other gap, in a
session whose Heartbeats and Logons are in the log, the receiver skipped the number.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, ClassVar, Final

import msgspec

from holdover.audit.framing import FieldMap
from holdover.audit.seen_messages import SeenMessages
from holdover.audit.tags import (
    CL_ORD_ID,
    CUM_QTY,
    EXEC_ID,
    GAP_FILL_FLAG,
    MSG_SEQ_NUM,
    MSG_TYPE,
    NEW_SEQ_NO,
    ORIG_SENDING_TIME,
    POSS_DUP_FLAG,
    POSS_RESEND,
    RESET_SEQ_NUM_FLAG,
    SENDER_COMP_ID,
    SENDING_TIME,
    TARGET_COMP_ID,
)
from holdover.state import StateError, Stateful

_ADMIN: Final = frozenset((b"0", b"1", b"2", b"3", b"4", b"5", b"A"))
_HELD_MAX: Final = 50
"""How many messages are held behind a gap without a ResendRequest, which normally follows immediately."""
_HELD_REQUESTED_MAX: Final = 5_000
_SEQ_DIGITS_MAX: Final = 12
"""Digits of a MsgSeqNum (34): more messages than a session has in a thousand years."""
_OVERNIGHT_SILENCE_MIN_S: Final = 600
"""A session that restarts its numbers after so long a silence may be in its next trading day."""


class LogMessage:
    """One message with its position: its direction, MsgSeqNum (34), PossDupFlag (43) and line.

    `position` orders the messages of one direction even if its numbers restart. `day` is the trading day as far
    as the log shows it. `gaps` is the number of the log's own gaps before the message. `late` marks a resent
    message whose number is below one already taken.
    """

    __slots__ = ("day", "direction", "dup", "fields", "gaps", "kind", "late", "line", "position", "seq")

    def __init__(self, fields: FieldMap, direction: SessionDirection, line: tuple[int, int], seq: int | None) -> None:
        self.fields = fields
        self.kind = fields[MSG_TYPE]
        self.direction = direction
        self.line = line
        self.seq = seq
        self.dup = fields.get(POSS_DUP_FLAG) == b"Y"
        self.gaps = direction.gaps
        self.position = (direction.epoch << 40) + (seq or 0)
        self.late = False
        self.day = ""


class StoredMessage(msgspec.Struct, array_like=True):
    """A message that waits behind a gap."""

    fields: FieldMap
    line: tuple[int, int]
    seq: int | None
    gaps: int
    position: int
    late: bool
    day: str

    @classmethod
    def from_message(cls, message: LogMessage) -> StoredMessage:
        """Return the stored form of a message."""
        return cls(message.fields, message.line, message.seq, message.gaps, message.position, message.late, message.day)

    def to_message(self, direction: SessionDirection) -> LogMessage:
        """Return the message. Raises `StateError` when it has no MsgType (35)."""
        if b"35" not in self.fields:
            raise StateError("the audit memory is damaged: a message has no MsgType (35)")
        message = LogMessage(self.fields, direction, self.line, self.seq)
        message.gaps, message.position, message.late, message.day = self.gaps, self.position, self.late, self.day
        return message


class SessionDirectionState(msgspec.Struct):
    """The state of one direction."""

    expected: int | None
    first: int | None
    held_messages: list[StoredMessage]
    is_resend_requested: bool
    has_admin: bool
    count: int
    gaps: int
    break_count: int
    waited: int
    date: bytes
    day: str
    epoch: int
    nights: int
    last_sending_time: bytes
    is_new_date: bool


class FixSessionState(msgspec.Struct):
    """The state of a session."""

    name: str
    number: int
    forward: SessionDirectionState
    reverse: SessionDirectionState


class FixSession(Stateful[FixSessionState]):
    """Two parties, SenderCompID (49) and TargetCompID (56), in both directions."""

    State = FixSessionState

    __slots__ = ("name", "number", "forward", "reverse")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.forward = SessionDirection(self)
        self.reverse = SessionDirection(self)
        self.forward.opposite, self.reverse.opposite = self.reverse, self.forward

    def _encode_field(self, name: str, value: Any) -> Any:
        return value.to_state() if name in ("forward", "reverse") else value

    def _decode_field(self, name: str, value: Any) -> Any:
        if name not in ("forward", "reverse"):
            return value
        direction: SessionDirection = getattr(self, name)
        direction.take_state(value)
        return direction

    @property
    def is_logged_from_start(self) -> bool:
        """Whether the log holds both directions from their first number on, on one day."""
        return all(
            direction.first == 1 and not direction.gaps and not direction.epoch > 1
            for direction in (self.forward, self.reverse)
        )


class SessionDirection(Stateful[SessionDirectionState]):
    """The messages that one party of a session sends to the other."""

    State = SessionDirectionState
    DERIVED: ClassVar = {
        "session": "the session that this is a part of",
        "opposite": "the other direction of the session",
    }

    __slots__ = (
        "has_admin",
        "is_resend_requested",
        "opposite",
        "count",
        "date",
        "day",
        "epoch",
        "expected",
        "first",
        "gaps",
        "held_messages",
        "nights",
        "last_sending_time",
        "session",
        "break_count",
        "is_new_date",
        "waited",
    )

    def __init__(self, session: FixSession) -> None:
        self.session = session
        self.opposite: SessionDirection = self
        self.expected: int | None = None
        self.first: int | None = None
        self.held_messages: list[LogMessage] = []
        self.is_resend_requested = False
        self.has_admin = False
        self.count = 0
        self.gaps = 0
        self.break_count = 0
        self.waited = 0
        self.date = b""
        self.day = ""
        self.epoch = 0
        self.nights = 0
        self.last_sending_time = b""
        self.is_new_date = False

    def _encode_field(self, name: str, value: Any) -> Any:
        return [StoredMessage.from_message(message) for message in value] if name == "held_messages" else value

    def _decode_field(self, name: str, value: Any) -> Any:
        return [stored.to_message(self) for stored in value] if name == "held_messages" else value


class FixSessionsState(msgspec.Struct):
    """The state of all sessions. A direction is stored as (sender, target, session, whether it is the forward one).

    `message_digests` has those of the last messages only: a copy that another process read earlier is not recognised.
    """

    by_name: dict[str, FixSessionState]
    copy_count: int
    break_count: int
    directions: list[tuple[bytes | None, bytes | None, str, bool]]
    message_digests: list[int]


class FixSessions(Stateful[FixSessionsState]):
    """Every session of a log. `take_message` returns the messages that are now in order, oldest first.

    `on_missing_number(message, expected)` is called for a message after a number that never came, or for a number
    that came again without PossDupFlag, when the log shows that the gap is not its own.
    """

    State = FixSessionsState
    DERIVED: ClassVar = {"on_missing_number": "a function of the audit"}

    def __init__(self, on_missing_number: Callable[[LogMessage, int], None]) -> None:
        self.by_name: dict[str, FixSession] = {}
        self.copy_count = 0
        self.break_count = 0
        self.on_missing_number = on_missing_number
        self._directions: dict[tuple[bytes | None, bytes | None], SessionDirection] = {}
        self._message_digests = SeenMessages()

    def _encode_field(self, name: str, value: Any) -> Any:
        if name == "by_name":
            return {session_name: session.to_state() for session_name, session in value.items()}
        if name == "directions":
            return [
                (*key, direction.session.name, direction is direction.session.forward)
                for key, direction in value.items()
            ]
        return sorted(value.recent) if name == "message_digests" else value

    def _decode_field(self, name: str, value: Any) -> Any:
        if name == "by_name":
            misnamed = [key for key, state in value.items() if key != state.name]
            if misnamed:
                raise StateError(f"the audit memory is damaged: session {misnamed[0][:40]!r} has another name")
            sessions = {state.name: FixSession(state.name, state.number) for state in value.values()}
            for session_name, session in sessions.items():
                session.take_state(value[session_name])
            return sessions
        if name == "directions":
            unknown = [session for _, _, session, _ in value if session not in self.by_name]
            if unknown:
                raise StateError(f"the audit memory is damaged: no session {unknown[0]}")
            return {
                (sender, target): self.by_name[session].forward if is_forward else self.by_name[session].reverse
                for sender, target, session, is_forward in value
            }
        return SeenMessages(value) if name == "message_digests" else value

    def mark_break(self) -> None:
        """Mark an unreadable line or a new file: a number missing here may be the log's own gap."""
        self.break_count += 1

    def take_message(self, fields: FieldMap, line: tuple[int, int]) -> list[LogMessage]:
        """Take one message. Returns the messages that are now in order.

        Raises `ValueError` when MsgSeqNum (34) is not a number.
        """
        key = (fields.get(SENDER_COMP_ID), fields.get(TARGET_COMP_ID))
        direction = self._directions.get(key) or self._new_direction(key)
        number = fields.get(MSG_SEQ_NUM)
        if number is not None and not (number.isdigit() and len(number) <= _SEQ_DIGITS_MAX):
            raise ValueError(
                f"MsgSeqNum (34) is {number[:20].decode('utf-8', 'replace')!r}, it should be a number of at most "
                f"{_SEQ_DIGITS_MAX} digits"
            )
        seq = int(number) if number is not None else None
        sending_time = fields.get(SENDING_TIME)
        get = fields.get
        if sending_time is not None:
            ids = [key[0] or b"", key[1] or b"", number or b"", sending_time, fields[MSG_TYPE]]
            ids += [
                get(CL_ORD_ID, b""),
                get(EXEC_ID, b""),
                get(CUM_QTY, b""),
                get(POSS_DUP_FLAG, b""),
                get(POSS_RESEND, b""),
            ]
            mark = int.from_bytes(blake2b(b"\x01".join(ids), digest_size=8).digest(), "big")
            if self._message_digests.add(mark):
                self.copy_count += 1
                return []
        message = LogMessage(fields, direction, line, seq)
        direction.count += 1
        if direction.first is None:
            direction.first = seq
        self._date_message(direction, message, sending_time)
        if message.kind in _ADMIN:
            direction.has_admin = True
            if message.kind == b"2":
                direction.opposite.is_resend_requested = True
        if seq is None:
            if direction.break_count != self.break_count:
                direction.gaps += 1
                direction.break_count = self.break_count
            message.gaps = direction.gaps
            return [message]
        if seq == direction.expected and not direction.held_messages and message.kind != b"4" and message.kind != b"A":
            direction.expected = seq + 1
            direction.break_count = self.break_count
            message.gaps = direction.gaps
            return [message]
        return self._take_sequenced(direction, message, seq)

    def end(self) -> list[LogMessage]:
        """End the log. Returns the messages still held, in order."""
        ready: list[LogMessage] = []
        for direction in self._directions.values():
            while direction.held_messages:
                self._release_held(direction, ready)
        return ready

    # -- inside -------------------------------------------------------------------------------------------------

    def _new_direction(self, key: tuple[bytes | None, bytes | None]) -> SessionDirection:
        opposite = self._directions.get((key[1], key[0]))
        if opposite is not None:
            direction = opposite.opposite
        else:
            name = "-".join(part.decode("utf-8", "replace") for part in key if part) or "session"
            session = self.by_name[name] = FixSession(name, len(self.by_name) + 1)
            direction = session.forward
        direction.break_count = self.break_count
        self._directions[key] = direction
        return direction

    def _date_message(self, direction: SessionDirection, message: LogMessage, sending_time: bytes | None) -> None:
        """Set a message's day from its SendingTime (52), counting the nights within one UTC date."""
        if sending_time is not None and sending_time[:8] != direction.date:
            date = direction.date = sending_time[:8]
            direction.nights = direction.opposite.nights if direction.opposite.date == date else 0
            direction.day = _iso_date(date)
            direction.is_new_date = True
        elif (
            message.kind == b"A"
            and message.seq == 1
            and sending_time is not None
            and _silence_s(direction, sending_time) >= _OVERNIGHT_SILENCE_MIN_S
        ):
            direction.nights = direction.opposite.nights = direction.nights + 1
            direction.day = direction.opposite.day = f"{_iso_date(direction.date)} ({direction.nights + 1})"
            direction.opposite.last_sending_time = sending_time
        else:
            direction.is_new_date = False
        if sending_time is not None:
            direction.last_sending_time = sending_time
        message.day = direction.day
        if message.dup:
            first = message.fields.get(ORIG_SENDING_TIME, b"")[:8]  # OrigSendingTime: the day of the first sending
            if first and first != direction.date:
                message.day = _iso_date(first)

    def _take_sequenced(self, direction: SessionDirection, message: LogMessage, seq: int) -> list[LogMessage]:
        ready: list[LogMessage] = []
        kind, expected = message.kind, direction.expected
        if (
            kind == b"A"
            and not message.dup
            and (expected is None or seq < expected or _has_flag(message, RESET_SEQ_NUM_FLAG))
        ):
            self._restart_numbers(direction, seq + 1, ready)
            self._emit(message, ready)
        elif kind == b"4" and not _has_flag(message, GAP_FILL_FLAG):
            self._restart_numbers(direction, _next_seq(message), ready)
        elif expected is None:
            if not message.dup:
                direction.expected = seq + 1
                direction.break_count = self.break_count
            self._emit(message, ready)
        elif seq > expected:
            self._hold_message(direction, message, ready)
        elif seq < expected and not message.dup and kind != b"4":
            self._take_low_number(direction, message, seq, expected, ready)
        elif seq < expected and kind != b"4":
            message.late = True
            self._emit(message, ready)
        else:
            direction.expected = max(expected, _next_seq(message) if kind == b"4" else seq + 1)
            self._emit(message, ready)
            self._drain_held(direction, ready)
        return ready

    def _emit(self, message: LogMessage, ready: list[LogMessage]) -> None:
        direction = message.direction
        message.gaps = direction.gaps
        message.position = (direction.epoch << 40) + (message.seq or 0)
        ready.append(message)

    def _restart_numbers(self, direction: SessionDirection, expected: int, ready: list[LogMessage]) -> None:
        """Restart the numbers, or set them as declared: held messages have nothing left to wait for."""
        while direction.held_messages:
            self._release_held(direction, ready)
        direction.expected, direction.is_resend_requested, direction.break_count = expected, False, self.break_count
        direction.epoch += 1

    def _take_low_number(
        self, direction: SessionDirection, message: LogMessage, seq: int, expected: int, ready: list[LogMessage]
    ) -> None:
        """Take a number that already occurred, without PossDupFlag and without a Logon."""
        is_uncertain = (
            not direction.has_admin or not direction.opposite.has_admin or direction.break_count != self.break_count
        )
        if is_uncertain or direction.is_new_date or seq == 1:
            self._restart_numbers(direction, seq + 1, ready)
            direction.gaps += 1
        else:
            self.on_missing_number(message, expected)
        self._emit(message, ready)

    def _hold_message(self, direction: SessionDirection, message: LogMessage, ready: list[LogMessage]) -> None:
        if not direction.held_messages:
            direction.waited = direction.opposite.count
        held_messages = direction.held_messages
        if (
            held_messages
            and message.seq is not None
            and held_messages[-1].seq is not None
            and message.seq < held_messages[-1].seq
        ):
            if any(held_message.seq == message.seq for held_message in held_messages):
                return
            held_messages.append(message)
            held_messages.sort(key=lambda held_message: held_message.seq or 0)
        else:
            held_messages.append(message)
        if len(held_messages) > (_HELD_REQUESTED_MAX if direction.is_resend_requested else _HELD_MAX):
            self._release_held(direction, ready)

    def _drain_held(self, direction: SessionDirection, ready: list[LogMessage]) -> None:
        """Take the held messages that are now next."""
        held_messages = direction.held_messages
        while (
            held_messages
            and held_messages[0].seq is not None
            and direction.expected is not None
            and held_messages[0].seq <= direction.expected
        ):
            message = held_messages.pop(0)
            seq = message.seq or 0
            if seq == direction.expected:
                direction.expected = max(seq + 1, _next_seq(message) if message.kind == b"4" else 0)
            self._emit(message, ready)
        if not held_messages:
            direction.is_resend_requested = False

    def _release_held(self, direction: SessionDirection, ready: list[LogMessage]) -> None:
        """Stop waiting for the first gap, because it will not be closed."""
        first = direction.held_messages[0]
        opposite = direction.opposite
        expected = direction.expected or 0
        is_after_break = direction.break_count != self.break_count
        direction.break_count = self.break_count
        if not opposite.count or is_after_break or direction.is_resend_requested:
            direction.gaps += 1
        elif direction.has_admin and opposite.has_admin and opposite.count > direction.waited:
            self.on_missing_number(first, expected)
        direction.expected = first.seq
        self._drain_held(direction, ready)


def _has_flag(message: LogMessage, tag: bytes) -> bool:
    return message.fields.get(tag) == b"Y"


def _next_seq(message: LogMessage) -> int:
    number = message.fields.get(NEW_SEQ_NO, b"")
    return int(number) if number.isdigit() and len(number) <= _SEQ_DIGITS_MAX else (message.seq or 0) + 1


def _iso_date(date: bytes) -> str:
    text = date.decode("ascii", "replace")
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if text.isdigit() else text


def _silence_s(direction: SessionDirection, sending_time: bytes) -> int:
    """Return the seconds since the session's last message, within one UTC date; -1 when unknown."""
    last = max(direction.last_sending_time, direction.opposite.last_sending_time)
    if last[:8] != sending_time[:8] or _seconds_of_day(last) < 0:
        return -1
    return _seconds_of_day(sending_time) - _seconds_of_day(last)


def _seconds_of_day(timestamp: bytes) -> int:
    """Return the seconds of the day of a UTCTimestamp; -1 when it is malformed."""
    clock = timestamp[9:17].split(b":")
    if len(clock) != 3 or not all(part.isdigit() for part in clock):
        return -1
    return int(clock[0]) * 3600 + int(clock[1]) * 60 + int(clock[2])
