"""What the tests of the live desk share: its processes, a wire that can be cut and stalled, the venue's own truth."""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import sqlite3
import threading
import time
import tomllib
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from holdover.adapters.fix.fix_message import (
    ParsedMessage,
    format_utc_timestamp,
    parse_utc_timestamp,
)
from holdover.adapters.fix.live_desk import send_command
from holdover.adapters.fix.venue_engine import InboundLog, VenueEngine, replay_log
from holdover.model import Execution, Order, OrdStatus, Position
from holdover.recording import RecordingStore

DAY = "2024-11-27"
SYMBOL = "ACME"
URL = "store.url"

CONFIG = """
[desk]
directory = "desk"
day = 2024-11-27
open = 14:30:00
close = 21:00:00
clock = "feed"
accelerate = {accelerate}
answer_s = 2.0
retry_s = 0.1

[fix]
host = "127.0.0.1"
port = {port}
sender = "DESK"
target = "VENUE"
heartbeat_s = 2

[guard]
directory = "guard"

[pages]
log = false

[[instrument]]
symbol = "ACME"

[[strategy]]
name = "accumulate"
account = "A1"
symbol = "ACME"
side = "1"
order_qty = 200000
day_qty = 200000
slice_qty = 400
interval_s = 5.0
time_in_force = "1"
patience = 3

[[strategy]]
name = "distribute"
account = "A1"
symbol = "ACME"
side = "2"
order_qty = 200000
day_qty = 200000
slice_qty = 150
algorithm = "participation"
participation_bp = 600
position_effect = "C"
interval_s = 5.0
offset = 1
patience = 2

[[strategy]]
name = "standing"
account = "A2"
symbol = "ACME"
side = "2"
order_qty = 40000
day_qty = 40000
slice_qty = 2000
algorithm = "standing"
slices_working_max = 1
interval_s = 5.0
patience = 3

[[strategy]]
name = "manual"
account = "A3"
symbol = "ACME"
side = "1"
order_qty = 1000
day_qty = 1000
slice_qty = 100
interval_s = 86400.0
"""


def write_config(
    directory: Path, port: int, accelerate: float, extra_tables: str = "", *, url: str = "", schema: str = "desk"
) -> Path:
    """Write a desk's configuration, with its store on a PostgreSQL server where a URL is given; returns the file."""
    path = directory / "desk.toml"
    text = CONFIG.format(port=port, accelerate=float(accelerate)) + extra_tables
    if url:
        secret = directory / URL
        secret.touch(0o600)
        secret.write_text(url)
        text = text.replace("[fix]", f'store_url_file = "{URL}"\nschema = "{schema}"\n\n[fix]', 1)
    path.write_text(text)
    return path


def venue_command(recordings: Path, port: int, state: Path, accelerate: float, *arguments: str) -> list[str]:
    """The command of a venue."""
    command = ["-m", "holdover", "venue", "serve", "--recordings", str(recordings), "--instrument", SYMBOL]
    command += ["--day", DAY, "--port", str(port), "--state", str(state), "--accelerate", str(accelerate)]
    return [*command, "--heartbeat", "2", "--wait", *arguments]


def desk_command(path: Path, *arguments: str) -> list[str]:
    """The command of a desk."""
    return ["-m", "holdover", "desk", "run", "--config", str(path), *arguments]


def read_status(directory: Path) -> dict[str, Any]:
    """How the desk stands; empty where none answers."""
    try:
        return send_command(directory / "desk", {"act": "status"})
    except (RuntimeError, ValueError):
        return {}


class ReplayedVenue:
    """The venue's own state, played again from what it has written down."""

    def __init__(self, recordings: RecordingStore, state: Path) -> None:
        recording = recordings.get(SYMBOL, DAY)
        self.core = VenueEngine([recording])
        ledger = InboundLog(state, f"{SYMBOL}/{DAY}/{recording.digest[:12]}")
        self.waiting = replay_log(self.core, ledger)
        self.messages = ledger.load_messages()
        ledger.close()
        self.orders = {root: order.to_record() for root, order in self.core.venue.orders.items()}
        self.positions = {key: position.net_qty for key, position in self.core.venue.positions.items()}
        self.trades = {trade.exec_id: trade for trade in self.core.venue.trades}

    def orders_sent_after(self, time_ns: int, account: str) -> list[str]:
        """New orders and replaces of an account that left their sender after a time, by SendingTime (52)."""
        cl_ord_ids = []
        for message in self.messages:
            fields = ParsedMessage(message.text)
            if fields.kind in ("D", "G") and fields.get(1) == account and parse_utc_timestamp(fields.get(52)) > time_ns:
                cl_ord_ids.append(fields.get(11))
        return cl_ord_ids


def find_differences(directory: Path, truth: ReplayedVenue) -> list[str]:
    """Where the desk's store and the venue's state differ; empty when they agree in everything."""
    store = read_store(directory)
    lines = [f"the venue has not taken {len(truth.waiting)} messages"] if truth.waiting else []
    for root, venue in truth.orders.items():
        desk_side = store["orders"].get(root)
        if desk_side is None:
            lines.append(f"order {root} of the venue is unknown to the desk")
            continue
        lines += [
            f"order {root}: {name} is {getattr(desk_side, name)}, at the venue {getattr(venue, name)}"
            for name in ("cum_qty", "leaves_qty", "notional", "ord_status")
            if getattr(desk_side, name) != getattr(venue, name)
        ]
    lines += [
        f"order {root} {order.ord_status.name} is unknown to the venue"
        for root, order in store["orders"].items()
        if root not in truth.orders and order.ord_status != OrdStatus.REJECTED
    ]
    desk_side, venues = store["positions"], truth.positions
    lines += [
        f"position {key}: {desk_side.get(key)}, at the venue {venues.get(key)}"
        for key in sorted({*desk_side, *venues})
        if desk_side.get(key, 0) != venues.get(key, 0)
    ]
    missing = set(truth.trades) ^ {execution.exec_id for execution in store["executions"]}
    if missing:
        lines.append(f"executions of one side only: {', '.join(sorted(missing))}")
    return lines


def read_store(directory: Path) -> dict[str, Any]:
    """What the store of a configured desk holds, read without touching it; nothing before it is there."""
    rows = _rows(directory)

    def decode_all(kind: type[Any]) -> list[Any]:
        return [msgspec.msgpack.decode(body, type=kind) for name, body in rows if name == kind.__name__]

    return {
        "orders": {order.key: order for order in decode_all(Order)},
        "positions": {position.key: position.net_qty for position in decode_all(Position)},
        "executions": decode_all(Execution),
    }


def _rows(directory: Path) -> list[Any]:
    table = "record"
    if (directory / URL).exists():
        import psycopg

        schema = tomllib.loads((directory / "desk.toml").read_text())["desk"]["schema"]
        with psycopg.connect((directory / URL).read_text()) as connection:
            (relation,) = connection.execute("SELECT to_regclass(%s)", (f"{schema}.{table}",)).fetchone() or (None,)
            return connection.execute(f"SELECT kind, body FROM {schema}.{table}").fetchall() if relation else []
    path = directory / "desk" / "desk.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        return reader.execute(f"SELECT kind, body FROM {table}").fetchall()


class TcpProxy:
    """A TCP proxy in front of a port: it can cut what is open, refuse what comes, and hold back what flows."""

    def __init__(self, to_port: int) -> None:
        self.to_port = to_port
        self.is_open, self.is_stalled = True, False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._ended = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def drop_connections(self) -> None:
        """Cut every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the port."""
        self._ended = True
        self._server.close()
        self.drop_connections()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._server.accept()
                if not self.is_open:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.to_port))
            except OSError:
                with suppress(OSError, UnboundLocalError):
                    near.close()
                continue
            with self._lock:
                self._pairs.append((near, far))
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, selectors.DefaultSelector() as ready, suppress(OSError):
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            idle = threading.Event()
            while not self._ended:
                if self.is_stalled:
                    idle.wait(0.01)
                    continue
                for key, _ in ready.select(0.1):
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    key.data.sendall(data)


class RawClient:
    """A client of the test's own: sockets and bytes, no engine."""

    def __init__(self, port: int, sender: str = "DESK", target: str = "VENUE") -> None:
        self.port, self.sender, self.target = port, sender, target
        self.seq = 1
        self._rest = b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def frame(self, kind: str, *fields: tuple[int, Any], seq: int | None = None, head: str = "") -> bytes:
        """A message; its number counts on where none is given."""
        if seq is None:
            seq, self.seq = self.seq, self.seq + 1
        sending_time = format_utc_timestamp(time.time_ns())[:-6]
        header = f"35={kind}\x0134={seq}\x0149={self.sender}\x0152={sending_time}\x0156={self.target}\x01{head}"
        body = (header + "".join(f"{tag}={value}\x01" for tag, value in fields)).encode()
        whole = b"8=FIX.4.4\x019=%d\x01" % len(body) + body
        return whole + b"10=%03d\x01" % (sum(whole) % 256)

    def send(self, kind: str, *fields: tuple[int, Any], seq: int | None = None, head: str = "") -> bytes:
        """Send one; returns its bytes."""
        data = self.frame(kind, *fields, seq=seq, head=head)
        self.socket.sendall(data)
        return data

    def logon(self, *fields: tuple[int, Any]) -> ParsedMessage:
        """Log on; returns the answer."""
        self.send("A", (98, 0), (108, 30), *fields)
        return self.receive()

    def receive(self) -> ParsedMessage:
        """The next message; `ConnectionError` when the other side has closed."""
        while True:
            match = re.match(rb"8=FIX\.4\.4\x019=(\d+)\x01", self._rest)
            if match:
                size = match.end() + int(match[1]) + 7
                if len(self._rest) >= size:
                    text, self._rest = self._rest[:size].decode(), self._rest[size:]
                    return ParsedMessage(text)
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self._rest += data

    def receive_until(self, kind: str, **fields: str) -> ParsedMessage:
        """The next message of a kind with these fields (`t11="C1"`); what comes before it is passed over."""
        while True:
            message = self.receive()
            if message.kind == kind and all(message.get(int(tag[1:])) == value for tag, value in fields.items()):
                return message

    def is_closed_by_peer(self) -> bool:
        """Whether the other side closes without another word."""
        try:
            return not self.socket.recv(65536)
        except ConnectionError:
            return True

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


class AlertWebhook(ThreadingHTTPServer):
    """Takes pages as a web hook does, each after it has refused it some times; told apart by Idempotency-Key."""

    def __init__(self, failures: int = 3) -> None:
        self.failures = failures
        self.tries: dict[str, int] = {}
        self.alerts: list[dict[str, Any]] = []
        self.at_ns: list[int] = []
        super().__init__(("127.0.0.1", 0), _AlertHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def channel_toml(self) -> str:
        """The channel, for a configuration."""
        return f'\n[[pages.channel]]\nname = "hook"\nkind = "webhook"\nurl = "http://127.0.0.1:{self.server_port}/"\n'


class _AlertHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """One page."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        key = self.headers["Idempotency-Key"]
        server.tries[key] = server.tries.get(key, 0) + 1
        failing = server.tries[key] <= server.failures
        if not failing:
            server.at_ns.append(time.time_ns())
            server.alerts.append(body)
        self.send_response(503 if failing else 200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing."""


def read_drill(directory: Path) -> list[dict[str, Any]]:
    """What a drill has written so far."""
    path = directory / "desk" / "drill.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


KILLS = int(os.environ.get("HOLDOVER_KILLS", "2"))
"""How often the desk is killed."""
