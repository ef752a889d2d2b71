"""FIX sessions in a log: which messages are whose, in which order a correct receiver would have taken them.

A log holds what went over the wire. A receiver that misses a number asks for it again and takes what came after it
only when the gap is closed; so does this module, by holding messages behind a gap back until it is closed or the log
shows that it never will be. A message that the log holds twice is taken once.

What cannot be told from the log is not claimed: a gap in a log of one direction, beside a line that could not be
read, or where another file begins, may be the log's own. `gaps` of a direction counts these; a gap of any other kind,
in a session whose Heartbeats and Logons are in the log, has been passed over by the receiver.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from holdover.audit.framing import Fields

_ADMIN: Final = frozenset((b"0", b"1", b"2", b"3", b"4", b"5", b"A"))
_HELD: Final = 50
"""How many messages are held back behind a gap for which nobody has asked: a ResendRequest follows at once."""
_HELD_ASKED: Final = 5_000
_NIGHT_S: Final = 600
"""A session that begins its numbers again after so long a silence may be in its next trading day."""


class Message:
    """One message with its place: its session's direction, MsgSeqNum (34), PossDupFlag (43) and line.

    `place` orders the messages of one direction also where its numbers begin anew; `day` is the trading day as far as
    the log tells it; `gaps` is how many gaps of the log's own its direction had before it; `late` marks a resent
    message whose number is below what was taken already.
    """

    __slots__ = ("day", "direction", "dup", "fields", "gaps", "kind", "late", "line", "place", "seq")

    def __init__(self, fields: Fields, direction: Direction, line: tuple[int, int], seq: int | None) -> None:
        self.fields = fields
        self.kind = fields[b"35"]
        self.direction = direction
        self.line = line
        self.seq = seq
        self.dup = fields.get(b"43") == b"Y"
        self.gaps = direction.gaps
        self.place = (direction.epoch << 40) + (seq or 0)
        self.late = False
        self.day = ""


class Session:
    """Two parties, SenderCompID (49) and TargetCompID (56), in both directions."""

    __slots__ = ("name", "number", "one", "other")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.one = Direction(self)
        self.other = Direction(self)
        self.one.back, self.other.back = self.other, self.one

    @property
    def from_the_start(self) -> bool:
        """Whether the log holds both directions from their first number on, on one day."""
        return all(one.first == 1 and not one.gaps and not one.epoch > 1 for one in (self.one, self.other))


class Direction:
    """What one party of a session sends to the other."""

    __slots__ = (
        "admin",
        "asked",
        "back",
        "count",
        "date",
        "day",
        "epoch",
        "expected",
        "first",
        "gaps",
        "held",
        "nights",
        "sent",
        "session",
        "strange",
        "turned",
        "waited",
    )

    def __init__(self, session: Session) -> None:
        self.session = session
        self.back: Direction = self
        self.expected: int | None = None
        self.first: int | None = None
        self.held: list[Message] = []
        self.asked = False
        self.admin = False
        self.count = 0
        self.gaps = 0
        self.strange = 0
        self.waited = 0
        self.date = b""
        self.day = ""
        self.epoch = 0
        self.nights = 0
        self.sent = b""
        self.turned = False


class Sessions:
    """Every session of a log. `take` gives back the messages that are now in order, oldest first.

    `passed_over(message, expected)` is called for a message that came while an earlier number had never come, or came
    again without PossDupFlag, where the log shows that this was no gap of its own.
    """

    def __init__(self, passed_over: Callable[[Message, int], None]) -> None:
        self.named: dict[str, Session] = {}
        self.copies = 0
        self.strange = 0
        self.passed_over = passed_over
        self._directions: dict[tuple[bytes | None, bytes | None], Direction] = {}
        self._seen: set[bytes] = set()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "passed_over"}

    def break_off(self) -> None:
        """A line could not be read, or another file begins: a number missing here may be the log's own doing."""
        self.strange += 1

    def take(self, fields: Fields, line: tuple[int, int]) -> list[Message]:
        """Take one message. Raises `ValueError` when MsgSeqNum (34) is no number."""
        key = (fields.get(b"49"), fields.get(b"56"))
        direction = self._directions.get(key) or self._new(key)
        number = fields.get(b"34")
        if number is not None and not number.isdigit():
            raise ValueError(f"MsgSeqNum (34) is {number[:20].decode('utf-8', 'replace')!r}, it should be a number")
        seq = int(number) if number is not None else None
        sent = fields.get(b"52")
        get = fields.get
        if sent is not None:
            ids = [key[0] or b"", key[1] or b"", number or b"", sent, fields[b"35"]]
            ids += [get(b"11", b""), get(b"17", b""), get(b"14", b""), get(b"43", b""), get(b"97", b"")]
            mark = blake2b(b"\x01".join(ids), digest_size=8).digest()
            if mark in self._seen:
                self.copies += 1
                return []
            self._seen.add(mark)
        message = Message(fields, direction, line, seq)
        direction.count += 1
        if direction.first is None:
            direction.first = seq
        self._dated(direction, message, sent)
        if message.kind in _ADMIN:
            direction.admin = True
            if message.kind == b"2":
                direction.back.asked = True
        if seq is None:
            if direction.strange != self.strange:
                direction.gaps += 1
                direction.strange = self.strange
            message.gaps = direction.gaps
            return [message]
        if seq == direction.expected and not direction.held and message.kind != b"4" and message.kind != b"A":
            direction.expected = seq + 1
            direction.strange = self.strange
            message.gaps = direction.gaps
            return [message]
        return self._sequenced(direction, message, seq)

    def end(self) -> list[Message]:
        """The log ends: what is still held back, in order."""
        ready: list[Message] = []
        for direction in self._directions.values():
            while direction.held:
                self._release(direction, ready)
        return ready

    # -- inside -------------------------------------------------------------------------------------------------

    def _new(self, key: tuple[bytes | None, bytes | None]) -> Direction:
        back = self._directions.get((key[1], key[0]))
        if back is not None:
            found = back.back
        else:
            name = "-".join(part.decode("utf-8", "replace") for part in key if part) or "session"
            session = self.named[name] = Session(name, len(self.named) + 1)
            found = session.one
        found.strange = self.strange
        self._directions[key] = found
        return found

    def _dated(self, direction: Direction, message: Message, sent: bytes | None) -> None:
        """The day that a message belongs to, as far as its SendingTime (52) tells; the nights inside one UTC date."""
        if sent is not None and sent[:8] != direction.date:
            date = direction.date = sent[:8]
            direction.nights = direction.back.nights if direction.back.date == date else 0
            direction.day = _iso(date)
            direction.turned = True
        elif message.kind == b"A" and message.seq == 1 and sent is not None and _silence(direction, sent) >= _NIGHT_S:
            direction.nights = direction.back.nights = direction.nights + 1
            direction.day = direction.back.day = f"{_iso(direction.date)} ({direction.nights + 1})"
            direction.back.sent = sent
        else:
            direction.turned = False
        if sent is not None:
            direction.sent = sent
        message.day = direction.day
        if message.dup:
            first = message.fields.get(b"122", b"")[:8]  # OrigSendingTime: the day on which it was first said
            if first and first != direction.date:
                message.day = _iso(first)

    def _sequenced(self, direction: Direction, message: Message, seq: int) -> list[Message]:
        ready: list[Message] = []
        kind, expected = message.kind, direction.expected
        if kind == b"A" and not message.dup and (expected is None or seq < expected or _yes(message, b"141")):
            self._begin(direction, seq + 1, ready)
            self._emit(message, ready)
        elif kind == b"4" and not _yes(message, b"123"):
            self._begin(direction, _new_seq(message), ready)
        elif expected is None:
            if not message.dup:
                direction.expected = seq + 1
                direction.strange = self.strange
            self._emit(message, ready)
        elif seq > expected:
            self._hold(direction, message, ready)
        elif seq < expected and not message.dup and kind != b"4":
            self._low(direction, message, seq, expected, ready)
        elif seq < expected and kind != b"4":
            message.late = True
            self._emit(message, ready)
        else:
            direction.expected = max(expected, _new_seq(message) if kind == b"4" else seq + 1)
            self._emit(message, ready)
            self._drain(direction, ready)
        return ready

    def _emit(self, message: Message, ready: list[Message]) -> None:
        direction = message.direction
        message.gaps = direction.gaps
        message.place = (direction.epoch << 40) + (message.seq or 0)
        ready.append(message)

    def _begin(self, direction: Direction, expected: int, ready: list[Message]) -> None:
        """The numbers begin anew, or are declared: what is held back has nothing to wait for any more."""
        while direction.held:
            self._release(direction, ready)
        direction.expected, direction.asked, direction.strange = expected, False, self.strange
        direction.epoch += 1

    def _low(self, direction: Direction, message: Message, seq: int, expected: int, ready: list[Message]) -> None:
        """A number that has been before, without PossDupFlag and without a Logon."""
        unclear = not direction.admin or not direction.back.admin or direction.strange != self.strange
        if unclear or direction.turned or seq == 1:
            self._begin(direction, seq + 1, ready)
            direction.gaps += 1
        else:
            self.passed_over(message, expected)
        self._emit(message, ready)

    def _hold(self, direction: Direction, message: Message, ready: list[Message]) -> None:
        if not direction.held:
            direction.waited = direction.back.count
        held = direction.held
        if held and message.seq is not None and held[-1].seq is not None and message.seq < held[-1].seq:
            if any(one.seq == message.seq for one in held):
                return
            held.append(message)
            held.sort(key=lambda one: one.seq or 0)
        else:
            held.append(message)
        if len(held) > (_HELD_ASKED if direction.asked else _HELD):
            self._release(direction, ready)

    def _drain(self, direction: Direction, ready: list[Message]) -> None:
        """Take what has been held back and is now next."""
        held = direction.held
        while held and held[0].seq is not None and direction.expected is not None and held[0].seq <= direction.expected:
            message = held.pop(0)
            seq = message.seq or 0
            if seq == direction.expected:
                direction.expected = max(seq + 1, _new_seq(message) if message.kind == b"4" else 0)
            self._emit(message, ready)
        if not held:
            direction.asked = False

    def _release(self, direction: Direction, ready: list[Message]) -> None:
        """Give up waiting for the first gap: it will not be closed."""
        first = direction.held[0]
        back = direction.back
        expected = direction.expected or 0
        strange = direction.strange != self.strange
        direction.strange = self.strange
        if not back.count or strange or direction.asked:
            direction.gaps += 1
        elif direction.admin and back.admin and back.count > direction.waited:
            self.passed_over(first, expected)
        direction.expected = first.seq
        self._drain(direction, ready)


def _yes(message: Message, tag: bytes) -> bool:
    return message.fields.get(tag) == b"Y"


def _new_seq(message: Message) -> int:
    told = message.fields.get(b"36", b"")
    return int(told) if told.isdigit() and len(told) < 19 else (message.seq or 0) + 1


def _iso(date: bytes) -> str:
    told = date.decode("ascii", "replace")
    return f"{told[:4]}-{told[4:6]}-{told[6:8]}" if told.isdigit() else told


def _silence(direction: Direction, sent: bytes) -> int:
    """Seconds since the session's last message before this one, within one UTC date; -1 where it cannot be told."""
    last = max(direction.sent, direction.back.sent)
    if last[:8] != sent[:8] or _seconds(last) < 0:
        return -1
    return _seconds(sent) - _seconds(last)


def _seconds(sent: bytes) -> int:
    """Seconds of the day of a UTCTimestamp; -1 where it is none."""
    clock = sent[9:17].split(b":")
    if len(clock) != 3 or not all(one.isdigit() for one in clock):
        return -1
    return int(clock[0]) * 3600 + int(clock[1]) * 60 + int(clock[2])
