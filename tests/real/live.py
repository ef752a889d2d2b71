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

from holdover.adapters.fix.core import Core, Ledger, restored
from holdover.adapters.fix.live import ask
from holdover.adapters.fix.messages import Fields, stamp, stamped
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


def config(
    directory: Path, port: int, accelerate: float, more: str = "", *, url: str = "", schema: str = "desk"
) -> Path:
    """Write a desk's configuration, with its store on a PostgreSQL server where a URL is given; returns the file."""
    path = directory / "desk.toml"
    told = CONFIG.format(port=port, accelerate=float(accelerate)) + more
    if url:
        secret = directory / URL
        secret.touch(0o600)
        secret.write_text(url)
        told = told.replace("[fix]", f'store_url_file = "{URL}"\nschema = "{schema}"\n\n[fix]', 1)
    path.write_text(told)
    return path


def venue_command(recordings: Path, port: int, state: Path, accelerate: float, *more: str) -> list[str]:
    """The command of a venue."""
    command = ["-m", "holdover", "venue", "serve", "--recordings", str(recordings), "--instrument", SYMBOL]
    command += ["--day", DAY, "--port", str(port), "--state", str(state), "--accelerate", str(accelerate)]
    return [*command, "--heartbeat", "2", "--wait", *more]


def desk_command(path: Path, *more: str) -> list[str]:
    """The command of a desk."""
    return ["-m", "holdover", "desk", "run", "--config", str(path), *more]


def status(directory: Path) -> dict[str, Any]:
    """How the desk stands; empty where none answers."""
    try:
        return ask(directory / "desk", {"act": "status"})
    except (RuntimeError, ValueError):
        return {}


class Truth:
    """The venue's own state, played again from what it has written down."""

    def __init__(self, recordings: RecordingStore, state: Path) -> None:
        recording = recordings.get(SYMBOL, DAY)
        self.core = Core([recording])
        ledger = Ledger(state, f"{SYMBOL}/{DAY}/{recording.digest[:12]}")
        self.waiting = restored(self.core, ledger)
        self.told = ledger.all()
        ledger.close()
        self.orders = {root: one.record() for root, one in self.core.venue.orders.items()}
        self.positions = {key: one.net_qty for key, one in self.core.venue.positions.items()}
        self.trades = {one.exec_id: one for one in self.core.venue.trades}

    def sent_after(self, time_ns: int, account: str) -> list[str]:
        """New orders and replaces of an account that left their sender after a time, by SendingTime (52)."""
        found = []
        for one in self.told:
            fields = Fields(one.text)
            if fields.kind in ("D", "G") and fields.get(1) == account and stamped(fields.get(52)) > time_ns:
                found.append(fields.get(11))
        return found


def differences(directory: Path, truth: Truth) -> list[str]:
    """Where the desk's store and the venue's state differ; empty when they agree in everything."""
    held = stored(directory)
    found = [f"the venue has not taken {len(truth.waiting)} messages"] if truth.waiting else []
    for root, venue in truth.orders.items():
        ours = held["orders"].get(root)
        if ours is None:
            found.append(f"order {root} of the venue is unknown to the desk")
            continue
        found += [
            f"order {root}: {name} is {getattr(ours, name)}, at the venue {getattr(venue, name)}"
            for name in ("cum_qty", "leaves_qty", "notional", "ord_status")
            if getattr(ours, name) != getattr(venue, name)
        ]
    found += [
        f"order {root} {one.ord_status.name} is unknown to the venue"
        for root, one in held["orders"].items()
        if root not in truth.orders and one.ord_status != OrdStatus.REJECTED
    ]
    ours, venues = held["positions"], truth.positions
    found += [
        f"position {key}: {ours.get(key)}, at the venue {venues.get(key)}"
        for key in sorted({*ours, *venues})
        if ours.get(key, 0) != venues.get(key, 0)
    ]
    missing = set(truth.trades) ^ {one.exec_id for one in held["executions"]}
    if missing:
        found.append(f"executions of one side only: {', '.join(sorted(missing))}")
    return found


def stored(directory: Path) -> dict[str, Any]:
    """What the store of a configured desk holds, read without touching it; nothing before it is there."""
    rows = _rows(directory)

    def every(kind: type[Any]) -> list[Any]:
        return [msgspec.msgpack.decode(body, type=kind) for name, body in rows if name == kind.__name__]

    return {
        "orders": {one.key: one for one in every(Order)},
        "positions": {one.key: one.net_qty for one in every(Position)},
        "executions": every(Execution),
    }


def _rows(directory: Path) -> list[Any]:
    table = "record"
    if (directory / URL).exists():
        import psycopg

        schema = tomllib.loads((directory / "desk.toml").read_text())["desk"]["schema"]
        with psycopg.connect((directory / URL).read_text()) as connection:
            (there,) = connection.execute("SELECT to_regclass(%s)", (f"{schema}.{table}",)).fetchone() or (None,)
            return connection.execute(f"SELECT kind, body FROM {schema}.{table}").fetchall() if there else []
    path = directory / "desk" / "desk.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        return reader.execute(f"SELECT kind, body FROM {table}").fetchall()


class Wire:
    """A TCP proxy in front of a port: it can cut what is open, refuse what comes, and hold back what flows."""

    def __init__(self, to_port: int) -> None:
        self.to_port = to_port
        self.open, self.stalled = True, False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._ended = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the port."""
        self._ended = True
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._server.accept()
                if not self.open:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.to_port))
            except OSError:
                with suppress(OSError, UnboundLocalError):
                    near.close()
                continue
            with self._lock:
                self._pairs.append((near, far))
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, selectors.DefaultSelector() as ready, suppress(OSError):
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            idle = threading.Event()
            while not self._ended:
                if self.stalled:
                    idle.wait(0.01)
                    continue
                for key, _ in ready.select(0.1):
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    key.data.sendall(data)


class Raw:
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
        now = stamp(time.time_ns())[:-6]
        said = "".join(f"{tag}={value}\x01" for tag, value in fields)
        body = f"35={kind}\x0134={seq}\x0149={self.sender}\x0152={now}\x0156={self.target}\x01{head}{said}".encode()
        whole = b"8=FIX.4.4\x019=%d\x01" % len(body) + body
        return whole + b"10=%03d\x01" % (sum(whole) % 256)

    def send(self, kind: str, *fields: tuple[int, Any], seq: int | None = None, head: str = "") -> bytes:
        """Send one; returns its bytes."""
        data = self.frame(kind, *fields, seq=seq, head=head)
        self.socket.sendall(data)
        return data

    def logon(self, *fields: tuple[int, Any]) -> Fields:
        """Log on; returns the answer."""
        self.send("A", (98, 0), (108, 30), *fields)
        return self.next()

    def next(self) -> Fields:
        """The next message; `ConnectionError` when the other side has closed."""
        while True:
            found = re.match(rb"8=FIX\.4\.4\x019=(\d+)\x01", self._rest)
            if found:
                size = found.end() + int(found[1]) + 7
                if len(self._rest) >= size:
                    text, self._rest = self._rest[:size].decode(), self._rest[size:]
                    return Fields(text)
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self._rest += data

    def until(self, kind: str, **wanted: str) -> Fields:
        """The next message of a kind with these fields (`t11="C1"`); what comes before it is passed over."""
        while True:
            told = self.next()
            if told.kind == kind and all(told.get(int(tag[1:])) == value for tag, value in wanted.items()):
                return told

    def closed(self) -> bool:
        """Whether the other side closes without another word."""
        try:
            return not self.socket.recv(65536)
        except ConnectionError:
            return True

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


class Pages(ThreadingHTTPServer):
    """Takes pages as a web hook does, each after it has refused it some times; told apart by Idempotency-Key."""

    def __init__(self, failures: int = 3) -> None:
        self.failures = failures
        self.tries: dict[str, int] = {}
        self.got: list[dict[str, Any]] = []
        self.at_ns: list[int] = []
        super().__init__(("127.0.0.1", 0), _Page)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def table(self) -> str:
        """The channel, for a configuration."""
        return f'\n[[pages.channel]]\nname = "hook"\nkind = "webhook"\nurl = "http://127.0.0.1:{self.server_port}/"\n'


class _Page(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """One page."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        key = self.headers["Idempotency-Key"]
        server.tries[key] = server.tries.get(key, 0) + 1
        failing = server.tries[key] <= server.failures
        if not failing:
            server.at_ns.append(time.time_ns())
            server.got.append(body)
        self.send_response(503 if failing else 200)
        self.end_headers()

    def log_message(self, *told: object) -> None:
        """Nothing."""


def drilled(directory: Path) -> list[dict[str, Any]]:
    """What a drill has written so far."""
    path = directory / "desk" / "drill.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


KILLS = int(os.environ.get("HOLDOVER_KILLS", "2"))
"""How often the desk is killed."""
