"""The FIX venue and clients that it has not seen: mangled bytes, wrong numbers, resets, half messages, two of a name.

What is sent is drawn once, by a number; what of it the venue takes, it takes once, answers, and keeps over its kill.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from holdover.adapters.fix.core import Core, Ledger, restored
from holdover.adapters.fix.messages import Fields
from holdover.recording import RecordingStore

from ..days import short_days
from ..servers import free_port
from .live import DAY, SYMBOL, Raw, venue_command
from .test_fix_drop_copy import Process

pytest.importorskip("quickfix")

AGAIN = "43=Y\x01122=20241127-14:30:00\x01"
Wait = Callable[..., None]


class Stranger:
    """A client of bytes that logs on again whenever it is thrown out, and remembers what was acknowledged to it."""

    def __init__(self, port: int, chance: random.Random, patience_s: float = 1.0) -> None:
        self.port, self.chance, self.patience_s = port, chance, patience_s
        self.acknowledged: dict[str, str] = {}
        self.sent = 0
        self.seq = 1
        self.raw: Raw | None = None

    def on(self) -> Raw:
        """Logged on; the numbers begin anew each time, as the client asks for (141=Y)."""
        end = time.monotonic() + 30
        while self.raw is None:
            assert time.monotonic() < end, "the venue takes no Logon any more"
            with suppress(OSError):
                raw = Raw(self.port)
                raw.socket.settimeout(5)
                raw.send("A", (98, 0), (108, 30), (141, "Y"))
                if raw.next().kind == "A":
                    self.raw = raw
                else:
                    raw.close()
        return self.raw

    def off(self) -> None:
        """Gone, without a word."""
        if self.raw is not None:
            self.raw.close()
            self.raw = None

    def order(self, seq: int | None = None, head: str = "") -> bytes:
        """A new order far from the market, as bytes."""
        self.sent += 1
        raw = self.on()
        fields = ((11, f"S{self.sent}"), (1, "R1"), (55, SYMBOL), (54, "1"), (38, 100), (40, "2"), (44, "90.00"))
        return raw.frame("D", *fields, (59, "1"), (60, "20241127-14:30:00"), (21, "1"), seq=seq, head=head)

    def hear(self, until: str = "") -> None:
        """Everything that has come; with `until` up to the Heartbeat of that name."""
        raw = self.on()
        raw.socket.settimeout(self.patience_s)
        while True:
            told = raw.next()
            if told.kind == "8" and told.get(150) == "0":
                assert self.acknowledged.setdefault(told.get(11), told.get(37)) == told.get(37)
            if told.kind == "2":  # asked to send again: it has nothing to give
                raw.send("4", (123, "Y"), (36, raw.seq), seq=int(told.get(7)), head=AGAIN)
            if told.kind == "0" and told.get(112) == until:
                return

    def alive(self) -> None:
        """The venue answers, on this connection or on a new one."""
        for number in range(10):
            try:
                self.on().send("1", (112, f"alive {self.sent}.{number}"))
                self.hear(f"alive {self.sent}.{number}")
                return
            except (OSError, TimeoutError):
                self.off()
        pytest.fail("the venue answers no more")


def mangled(stranger: Stranger, what: str) -> None:
    """One thing that a stranger may do."""
    raw, chance = stranger.on(), stranger.chance
    whole = stranger.order()
    if what == "order":
        raw.socket.sendall(whole)
    elif what == "bytes":
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        raw.socket.sendall(bytes(data))
    elif what == "half":
        raw.socket.sendall(whole[: chance.randrange(1, len(whole))])
        stranger.off()
    elif what == "length":
        raw.socket.sendall(b"8=FIX.4.4\x019=%d\x01" % chance.choice((0, 5, 99_999_999_999, 2**31)) + whole[16:])
    elif what == "noise":
        raw.socket.sendall(bytes(chance.randrange(256) for _ in range(200)))
    elif what == "gap":
        raw.socket.sendall(stranger.order(seq=raw.seq + chance.randint(1, 5)))
    elif what == "low":
        raw.socket.sendall(stranger.order(seq=1))
    elif what == "dup":
        raw.socket.sendall(whole)
        raw.socket.sendall(stranger.order(seq=raw.seq - 1, head=AGAIN))
    elif what == "reset":
        raw.send("4", (36, raw.seq + 50), seq=raw.seq)
    elif what == "backwards":
        raw.send("4", (36, 1), seq=raw.seq)
    elif what == "resend":
        raw.send("2", (7, chance.choice((0, 1, 999_999))), (16, chance.choice((0, 1, 2**31 - 1))))
    elif what == "second":
        other = socket.create_connection(("127.0.0.1", stranger.port), timeout=5)
        other.sendall(Raw.frame(raw, "A", (98, 0), (108, 30), seq=raw.seq))
        other.close()
    elif what == "logout":
        raw.send("5", (58, "bye"))
        stranger.off()
    elif what == "fields":
        odd = ((11, ""), (38, "-1"), (38, "1e9"), (44, "NaN"), (54, "9"), (60, "noon"), (1, "x" * 5000), (55, "\x02"))
        tag, value = chance.choice(odd)
        terms = {
            11: f"T{stranger.sent}",
            1: "R1",
            55: SYMBOL,
            54: "1",
            38: 5,
            40: "2",
            44: "90",
            60: "20241127-14:30:00",
        }
        raw.send("D", *{**terms, tag: value}.items())


WAYS = (
    *("order", "bytes", "order", "half", "order", "length", "order", "noise", "order", "gap", "low", "order", "dup"),
    *("reset", "order", "backwards", "resend", "order", "second", "logout", "order", "fields"),
)


@pytest.fixture
def served(tmp_path: Path, wait_until: Wait) -> Iterator[tuple[RecordingStore, int, Path, Callable[[], Process]]]:
    """A venue that can be killed and served again."""
    store = short_days(tmp_path / "days", SYMBOL, 60)
    port, state = free_port(), tmp_path / "state"
    made: list[Process] = []

    def serve() -> Process:
        venue = Process(*venue_command(tmp_path / "days", port, state, 1.0))
        made.append(venue)
        wait_until(lambda: any("serves" in line for line in venue.errors) or venue.process.poll() is not None, 60)
        assert venue.process.poll() is None, venue.errors
        return venue

    yield store, port, state, serve
    for one in made:
        one.kill()


@pytest.mark.slow
def test_a_hundred_strange_things(
    served: tuple[RecordingStore, int, Path, Callable[[], Process]], wait_until: Wait
) -> None:
    """It lives through all of them, and after its kill it has each order that it has acknowledged, by its OrderID."""
    store, port, state, serve = served
    venue = serve()
    stranger = Stranger(port, random.Random(20241127))
    for what in WAYS * 4:
        try:
            mangled(stranger, what)
        except OSError:
            stranger.off()
        if what in ("order", "gap", "dup"):
            stranger.alive()
            assert venue.process.poll() is None, (what, venue.errors)
    stranger.alive()
    before = dict(stranger.acknowledged)
    assert len(before) >= 12, "a good part of what was sent was good"
    assert not any("Traceback" in line for line in venue.errors)
    venue.kill()
    stranger.off()
    venue = serve()
    raw = stranger.on()
    raw.send("AF", (584, "all"), (585, "7"), (1, "R1"))
    named: dict[str, str] = {}
    total = 1
    while len(named) < total:
        told = raw.until("8", t584="all")
        total = int(told.get(911) or total)
        named[told.get(11)] = told.get(37)
    assert {name: named[name] for name in before} == before
    stranger.off()
    venue.kill()
    recording = store.get(SYMBOL, DAY)
    ledger = Ledger(state, f"{SYMBOL}/{DAY}/{recording.digest[:12]}")
    core = Core([recording])
    assert restored(core, ledger) == []
    ledger.close()
    assert {one.cl_ord_id for one in core.venue.orders.values()} == set(named), "each was taken once"


def test_many_at_once(served: tuple[RecordingStore, int, Path, Callable[[], Process]]) -> None:
    """Connections of noise, of slow bytes, of nothing, while one client trades: it waits, and loses nothing.

    The engine waits a second for the rest of what a connection begins with, and so does everybody else.
    """
    _, port, _, serve = served
    venue = serve()
    stranger = Stranger(port, random.Random(1), 30.0)
    stranger.on()
    others: list[Any] = []
    for number in range(9):
        one = socket.create_connection(("127.0.0.1", port), timeout=5)
        if number % 3 == 0:
            one.sendall(b"8=FIX.4.4\x019=")
        elif number % 3 == 1:
            with suppress(OSError):
                one.sendall(random.Random(number).randbytes(5000))
        others.append(one)
    for _ in range(5):
        stranger.on().socket.sendall(stranger.order())
    while len(stranger.acknowledged) < 5:  # the engine answers before the venue has: an answer is no barrier
        told = stranger.on().until("8", t150="0")
        stranger.acknowledged[told.get(11)] = told.get(37)
    stranger.alive()
    assert set(stranger.acknowledged) == {f"S{number}" for number in range(1, 6)}
    for one in others:
        one.close()
    assert venue.process.poll() is None


def test_fields_of_a_report_are_whole(served: tuple[RecordingStore, int, Path, Callable[[], Process]]) -> None:
    """What the venue says to a stranger is FIX: each message has its length, its sum and its number."""
    _, port, _, serve = served
    serve()
    stranger = Stranger(port, random.Random(2))
    raw = stranger.on()
    raw.socket.sendall(stranger.order())
    told: Fields = raw.until("8", t11="S1")
    assert told.get(150) == "0"
    text = "\x01".join(f"{tag}={value}" for tag, value in told.pairs) + "\x01"
    body, _, _ = text.rpartition("10=")
    assert told.get(10) == f"{sum(body.encode()) % 256:03d}"
    assert int(told.get(9)) == len(body) - len(f"8=FIX.4.4\x019={told.get(9)}\x01")
