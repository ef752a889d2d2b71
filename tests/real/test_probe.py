"""A venue's own REST and WebSocket interfaces on loopback, asked by a running shadow: each fault once, in its class."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdover.cli import main
from holdover.runtime import FreezeStore
from holdover.runtime.heartbeat import Beat, HeartbeatLimits
from holdover.shadow import FollowedShadow, ShadowConfigError, ShadowRun, read_shadow_config
from holdover.shadow.components import ComponentTable

websockets_server = pytest.importorskip("websockets.sync.server")

S = 1_000_000_000
CONFIG = """
[candidate]
journal = "journal.jsonl"
guard = "guard"
[clock]
tick_s = 0.5
deadline_s = 30
[[component]]
name = "orders"
deadline_s = 30
every_s = 0.01
url = "http://127.0.0.1:{rest}/books"
header_env = ["VENUE_AUTH"]
items = "books"
book = "symbol"
disabled = "status=disabled"
[[component]]
name = "market data"
deadline_s = 300
every_s = 0.01
url = "ws://127.0.0.1:{feed}/"
header_env = ["VENUE_AUTH"]
subscribe = '{{"op":"subscribe"}}'
sequence = "data.seq"
channel = "data.symbol"
"""


class StubVenue:
    """A venue of a test: it may refuse the token, disable a book, drop frames, skip a number, hang up."""

    def __init__(self) -> None:
        self.token, self.books, self.request_count = "Bearer right", {"ACME": "open", "BOLT": "open"}, 0
        venue = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                venue.request_count += 1
                refused = self.headers["Authorization"] != venue.token
                books = [{"symbol": name, "status": status} for name, status in venue.books.items()]
                body = b"who are you?" if refused else json.dumps({"books": books}).encode()
                self.send_response(401 if refused else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Nothing."""

        self.rest = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.feed = websockets_server.serve(self._serve, "127.0.0.1", 0)
        self.seqs = {"ACME": 0, "BOLT": 0}
        self.sockets: list[Any] = []
        self.subscribed = threading.Semaphore(0)
        for server in (self.rest, self.feed):
            threading.Thread(target=server.serve_forever, daemon=True).start()

    @property
    def ports(self) -> dict[str, int]:
        return {"rest": self.rest.server_port, "feed": self.feed.socket.getsockname()[1]}

    def _serve(self, socket: Any) -> None:
        if socket.recv() == '{"op":"subscribe"}':
            self.sockets.append(socket)
            self.subscribed.release()
        try:
            for _ in socket:
                pass
        except Exception:
            return

    def send_frame(self, symbol: str, *, skip: int = 0) -> None:
        """One frame of a channel, after so many that are dropped."""
        self.seqs[symbol] += 1 + skip
        self.sockets[-1].send(json.dumps({"data": {"symbol": symbol, "seq": self.seqs[symbol]}}))

    def close(self) -> None:
        for socket in self.sockets:
            socket.close()
        self.rest.shutdown()
        self.feed.shutdown()


class ManualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.mono, self.wall = 7 * S, 1_700_000_000 * S

    def advance(self, seconds: float) -> None:
        self.mono += round(seconds * S)
        self.wall += round(seconds * S)


@pytest.fixture
def venue(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubVenue]:
    monkeypatch.setenv("VENUE_AUTH", "Authorization: Bearer right")
    stub = StubVenue()
    yield stub
    stub.close()


def test_each_fault_of_a_venue_is_counted_once_in_its_class(
    venue: StubVenue, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """401 for a while, a disabled book, dropped frames, a hang-up; and what each does to the clock."""
    (tmp_path / "shadow.toml").write_text(CONFIG.format(**venue.ports))
    (tmp_path / "journal.jsonl").touch()
    config, clock = read_shadow_config(tmp_path / "shadow.toml"), ManualClock()
    store = FreezeStore(tmp_path / "guard" / "guard.db")
    tables = [ComponentTable(name="candidate"), *config.components]
    shadow_run = ShadowRun(config, components=tables, monotonic=lambda: clock.mono, wall=lambda: clock.wall)
    following = FollowedShadow(config, shadow_run)

    def look(seconds: float = 1.0) -> bool:
        clock.advance(seconds)
        beat = Beat(
            pid=1, host="h", version="1", digest="d", time_ns=clock.wall, mutations=1, breaches=0, last_ns=0,
            open_ns=0, frozen=[], problem="", limits=HeartbeatLimits(),
        )  # fmt: skip
        store.write_heartbeat("candidate", clock.wall, msgspec.json.encode(beat))
        return following.poll()

    def counts() -> dict[str, int]:
        return {name: fault.count for name, fault in shadow_run.state.faults.items()}

    def wait_for_requests() -> None:
        """The REST interface has been asked twice more, so what it says now has been heard."""
        before = venue.request_count
        wait_until(lambda: venue.request_count >= before + 3)

    def wait_for_counts(**expected_counts: int) -> None:
        expected = {name.replace("_", "-"): count for name, count in expected_counts.items()}
        wait_until(lambda: look(0.0) is not None and counts() == expected)

    try:
        assert venue.subscribed.acquire(timeout=10)
        for symbol in venue.seqs:
            venue.send_frame(symbol)
        wait_until(lambda: look(0.0))
        assert counts() == {}
        assert look(10)
        assert shadow_run.state.clock.healthy_ns == 10 * S

        venue.send_frame("BOLT", skip=3)
        wait_for_counts(gap=1)
        detail = shadow_run.state.faults["gap"].last[0]
        assert (detail.component, detail.detail) == ("market data", "BOLT: 5 came after 1")
        assert shadow_run.state.clock.healthy_ns == 0, "a gap resets it"
        venue.send_frame("BOLT")
        venue.send_frame("ACME")

        venue.books["ACME"] = "disabled"
        wait_for_counts(gap=1, disabled_book=1)
        wait_for_requests()
        wait_for_counts(gap=1, disabled_book=1)
        assert shadow_run.state.faults["disabled-book"].last[0].detail == "ACME: status is disabled"
        venue.books["ACME"] = "open"
        wait_for_requests()
        assert look(10)
        healthy_ns = shadow_run.state.clock.healthy_ns
        assert healthy_ns == 10 * S

        venue.token = "Bearer other"
        wait_for_counts(gap=1, disabled_book=1, authentication=1)
        assert "401" in shadow_run.state.faults["authentication"].last[0].detail
        wait_for_requests()
        assert not look(25), "while it refuses, nothing is counted"
        assert not look(25)
        assert shadow_run.state.clock.healthy_ns == 0
        venue.token = "Bearer right"
        wait_for_requests()
        venue.send_frame("ACME")
        venue.send_frame("BOLT")
        wait_until(lambda: look(0.0))
        assert look(5)
        assert shadow_run.state.clock.healthy_ns == 5 * S
        assert counts() == {"gap": 1, "disabled-book": 1, "authentication": 1}, "no silence: it had answered"

        venue.sockets[-1].close()
        assert venue.subscribed.acquire(timeout=10)
        venue.seqs = {"ACME": 40, "BOLT": 40}
        venue.send_frame("ACME")
        wait_for_counts(gap=1, disabled_book=1, authentication=1, disconnect=1)
        assert shadow_run.state.clock.healthy_ns >= 5 * S, "a cut alone does not reset it, and its numbers begin anew"
    finally:
        following.close()


def test_a_venue_that_refuses_the_feed(venue: StubVenue, tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """A handshake that is answered 401 is one authentication fault, however often it is tried."""

    def refuse(connection: Any, request: Any) -> Any:
        tries.append(1)
        return connection.respond(401, "no")

    tries: list[int] = []
    with websockets_server.serve(lambda socket: None, "127.0.0.1", 0, process_request=refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ports = {**venue.ports, "feed": server.socket.getsockname()[1]}
        (tmp_path / "shadow.toml").write_text(CONFIG.format(**ports))
        (tmp_path / "journal.jsonl").touch()
        FreezeStore(tmp_path / "guard" / "guard.db")
        following = FollowedShadow(read_shadow_config(tmp_path / "shadow.toml"))
        try:
            wait_until(lambda: len(tries) > 3)
            following.poll()
            assert {name: fault.count for name, fault in following.shadow_run.state.faults.items()} == {
                "authentication": 1
            }
        finally:
            following.close()


def test_a_probe_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No header in the environment, a scheme that is none, what only a probe has: all in one go, and exit code 2."""
    monkeypatch.delenv("VENUE_AUTH", raising=False)
    path = tmp_path / "shadow.toml"
    path.write_text(CONFIG.format(rest=1, feed=1).replace("ws://", "ftp://").replace('"status=disabled"', '"status"'))
    with pytest.raises(ShadowConfigError) as excinfo:
        read_shadow_config(path)
    message = str(excinfo.value)
    assert "orders: VENUE_AUTH should hold a header, Name: value" in message
    assert "should begin with http://, https://, ws:// or wss://" in message
    assert "disabled 'status' should be FIELD=VALUE" in message
    assert main(["shadow", "run", "--config", str(path)]) == 2
