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

from holdover.adapters.fix.fix_message import (
    ParsedMessage,
)
from holdover.adapters.fix.venue_engine import InboundLog, VenueEngine, replay_log
from holdover.recording import RecordingStore

from ..days import write_short_days
from ..servers import free_port
from .live_setup import DAY, SYMBOL, RawClient, venue_command
from .test_fix_drop_copy import Process

pytest.importorskip("quickfix")

POSS_DUP_FIELDS = "43=Y\x01122=20241127-14:30:00\x01"
Wait = Callable[..., None]


class Stranger:
    """A client of bytes that logs on again whenever it is thrown out, and remembers what was acknowledged to it."""

    def __init__(self, port: int, rng: random.Random, patience_s: float = 1.0) -> None:
        self.port, self.rng, self.patience_s = port, rng, patience_s
        self.acknowledged: dict[str, str] = {}
        self.order_count = 0
        self.seq = 1
        self.raw: RawClient | None = None

    def log_on(self) -> RawClient:
        """Logged on; the numbers begin anew each time, as the client asks for (141=Y)."""
        end = time.monotonic() + 30
        while self.raw is None:
            assert time.monotonic() < end, "the venue takes no Logon any more"
            with suppress(OSError):
                raw = RawClient(self.port)
                raw.socket.settimeout(5)
                raw.send("A", (98, 0), (108, 30), (141, "Y"))
                if raw.receive().kind == "A":
                    self.raw = raw
                else:
                    raw.close()
        return self.raw

    def disconnect(self) -> None:
        """Gone, without a word."""
        if self.raw is not None:
            self.raw.close()
            self.raw = None

    def order(self, seq: int | None = None, head: str = "") -> bytes:
        """A new order far from the market, as bytes."""
        self.order_count += 1
        raw = self.log_on()
        fields = ((11, f"S{self.order_count}"), (1, "R1"), (55, SYMBOL), (54, "1"), (38, 100), (40, "2"), (44, "90.00"))
        return raw.frame("D", *fields, (59, "1"), (60, "20241127-14:30:00"), (21, "1"), seq=seq, head=head)

    def read_messages(self, heartbeat_id: str = "") -> None:
        """Everything that has come; with `until` up to the Heartbeat of that name."""
        raw = self.log_on()
        raw.socket.settimeout(self.patience_s)
        while True:
            message = raw.receive()
            if message.kind == "8" and message.get(150) == "0":
                assert self.acknowledged.setdefault(message.get(11), message.get(37)) == message.get(37)
            if message.kind == "2":  # asked to send again: it has nothing to give
                raw.send("4", (123, "Y"), (36, raw.seq), seq=int(message.get(7)), head=POSS_DUP_FIELDS)
            if message.kind == "0" and message.get(112) == heartbeat_id:
                return

    def check_alive(self) -> None:
        """The venue answers, on this connection or on a new one."""
        for number in range(10):
            try:
                self.log_on().send("1", (112, f"alive {self.order_count}.{number}"))
                self.read_messages(f"alive {self.order_count}.{number}")
                return
            except (OSError, TimeoutError):
                self.disconnect()
        pytest.fail("the venue answers no more")


def send_misuse(stranger: Stranger, misuse: str) -> None:
    """One thing that a stranger may do."""
    raw, rng = stranger.log_on(), stranger.rng
    whole = stranger.order()
    if misuse == "order":
        raw.socket.sendall(whole)
    elif misuse == "bytes":
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        raw.socket.sendall(bytes(data))
    elif misuse == "half":
        raw.socket.sendall(whole[: rng.randrange(1, len(whole))])
        stranger.disconnect()
    elif misuse == "length":
        raw.socket.sendall(b"8=FIX.4.4\x019=%d\x01" % rng.choice((0, 5, 99_999_999_999, 2**31)) + whole[16:])
    elif misuse == "noise":
        raw.socket.sendall(bytes(rng.randrange(256) for _ in range(200)))
    elif misuse == "gap":
        raw.socket.sendall(stranger.order(seq=raw.seq + rng.randint(1, 5)))
    elif misuse == "low":
        raw.socket.sendall(stranger.order(seq=1))
    elif misuse == "dup":
        raw.socket.sendall(whole)
        raw.socket.sendall(stranger.order(seq=raw.seq - 1, head=POSS_DUP_FIELDS))
    elif misuse == "reset":
        raw.send("4", (36, raw.seq + 50), seq=raw.seq)
    elif misuse == "backwards":
        raw.send("4", (36, 1), seq=raw.seq)
    elif misuse == "resend":
        raw.send("2", (7, rng.choice((0, 1, 999_999))), (16, rng.choice((0, 1, 2**31 - 1))))
    elif misuse == "second":
        second_connection = socket.create_connection(("127.0.0.1", stranger.port), timeout=5)
        second_connection.sendall(RawClient.frame(raw, "A", (98, 0), (108, 30), seq=raw.seq))
        second_connection.close()
    elif misuse == "logout":
        raw.send("5", (58, "bye"))
        stranger.disconnect()
    elif misuse == "fields":
        bad_fields = (
            (11, ""),
            (38, "-1"),
            (38, "1e9"),
            (44, "NaN"),
            (54, "9"),
            (60, "noon"),
            (1, "x" * 5000),
            (55, "\x02"),
        )
        tag, value = rng.choice(bad_fields)
        terms = {
            11: f"T{stranger.order_count}",
            1: "R1",
            55: SYMBOL,
            54: "1",
            38: 5,
            40: "2",
            44: "90",
            60: "20241127-14:30:00",
        }
        raw.send("D", *{**terms, tag: value}.items())


MISUSES = (
    *("order", "bytes", "order", "half", "order", "length", "order", "noise", "order", "gap", "low", "order", "dup"),
    *("reset", "order", "backwards", "resend", "order", "second", "logout", "order", "fields"),
)


@pytest.fixture
def venue_server(tmp_path: Path, wait_until: Wait) -> Iterator[tuple[RecordingStore, int, Path, Callable[[], Process]]]:
    """A venue that can be killed and served again."""
    store = write_short_days(tmp_path / "days", SYMBOL, 60)
    port, state = free_port(), tmp_path / "state"
    processes: list[Process] = []

    def serve() -> Process:
        venue = Process(*venue_command(tmp_path / "days", port, state, 1.0))
        processes.append(venue)
        wait_until(lambda: any("serves" in line for line in venue.errors) or venue.process.poll() is not None, 60)
        assert venue.process.poll() is None, venue.errors
        return venue

    yield store, port, state, serve
    for process in processes:
        process.kill()


@pytest.mark.slow
def test_a_hundred_strange_things(
    venue_server: tuple[RecordingStore, int, Path, Callable[[], Process]], wait_until: Wait
) -> None:
    """It lives through all of them, and after its kill it has each order that it has acknowledged, by its OrderID."""
    store, port, state, serve = venue_server
    venue = serve()
    stranger = Stranger(port, random.Random(20241127))
    for misuse in MISUSES * 4:
        try:
            send_misuse(stranger, misuse)
        except OSError:
            stranger.disconnect()
        if misuse in ("order", "gap", "dup"):
            stranger.check_alive()
            assert venue.process.poll() is None, (misuse, venue.errors)
    stranger.check_alive()
    before = dict(stranger.acknowledged)
    assert len(before) >= 12, "a good part of what was sent was good"
    assert not any("Traceback" in line for line in venue.errors)
    venue.kill()
    stranger.disconnect()
    venue = serve()
    raw = stranger.log_on()
    raw.send("AF", (584, "all"), (585, "7"), (1, "R1"))
    named: dict[str, str] = {}
    total = 1
    while len(named) < total:
        report = raw.receive_until("8", t584="all")
        total = int(report.get(911) or total)
        named[report.get(11)] = report.get(37)
    assert {name: named[name] for name in before} == before
    stranger.disconnect()
    venue.kill()
    recording = store.get(SYMBOL, DAY)
    ledger = InboundLog(state, f"{SYMBOL}/{DAY}/{recording.digest[:12]}")
    core = VenueEngine([recording])
    assert replay_log(core, ledger) == []
    ledger.close()
    assert {order.cl_ord_id for order in core.venue.orders.values()} == set(named), "each was taken once"


def test_many_at_once(venue_server: tuple[RecordingStore, int, Path, Callable[[], Process]]) -> None:
    """Connections of noise, of slow bytes, of nothing, while one client trades: it waits, and loses nothing.

    The engine waits a second for the rest of what a connection begins with, and so does everybody else.
    """
    _, port, _, serve = venue_server
    venue = serve()
    stranger = Stranger(port, random.Random(1), 30.0)
    stranger.log_on()
    connections: list[Any] = []
    for number in range(9):
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        if number % 3 == 0:
            connection.sendall(b"8=FIX.4.4\x019=")
        elif number % 3 == 1:
            with suppress(OSError):
                connection.sendall(random.Random(number).randbytes(5000))
        connections.append(connection)
    for _ in range(5):
        stranger.log_on().socket.sendall(stranger.order())
    while len(stranger.acknowledged) < 5:  # the engine answers before the venue has: an answer is no barrier
        report = stranger.log_on().receive_until("8", t150="0")
        stranger.acknowledged[report.get(11)] = report.get(37)
    stranger.check_alive()
    assert set(stranger.acknowledged) == {f"S{number}" for number in range(1, 6)}
    for connection in connections:
        connection.close()
    assert venue.process.poll() is None


def test_fields_of_a_report_are_whole(venue_server: tuple[RecordingStore, int, Path, Callable[[], Process]]) -> None:
    """What the venue says to a stranger is FIX: each message has its length, its sum and its number."""
    _, port, _, serve = venue_server
    serve()
    stranger = Stranger(port, random.Random(2))
    raw = stranger.log_on()
    raw.socket.sendall(stranger.order())
    report: ParsedMessage = raw.receive_until("8", t11="S1")
    assert report.get(150) == "0"
    text = "\x01".join(f"{tag}={value}" for tag, value in report.pairs) + "\x01"
    body, _, _ = text.rpartition("10=")
    assert report.get(10) == f"{sum(body.encode()) % 256:03d}"
    assert int(report.get(9)) == len(body) - len(f"8=FIX.4.4\x019={report.get(9)}\x01")
