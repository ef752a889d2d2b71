"""The desk as a daemon: one thread that owns it, timers in real time or the feed's time, and a socket for operators."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.adapters.fix.config import LiveDeskConfig
from holdover.adapters.fix.link import FixFeed, FixLink
from holdover.adapters.fix.lockfile import lock_directory
from holdover.adapters.fix.messages import (
    FixCodec,
)
from holdover.adapters.fix.tap import FeedTap
from holdover.adapters.fix.venue_view import VenueView
from holdover.desk import Desk, Parts
from holdover.desk.tables import PostgresTables
from holdover.model import Record, SecurityStatus
from holdover.runtime import Guard
from holdover.runtime.files import make_private_directory

SOCKET: Final = "desk.sock"
_POLL_S: Final = 0.25
_ANSWER_TIMEOUT_S: Final = 10.0


class DeskNotRunningError(RuntimeError):
    """No daemon answers for the directory; the message names it."""


class LiveClock:
    """Time and timers of a live desk. Time never goes back; with `follows` it follows the feed's time."""

    def __init__(self, *, follows: bool, accelerate: float) -> None:
        self._follows_feed, self._accelerate = follows, accelerate
        self._anchor: tuple[int, float] | None = None
        self._latest = 0
        self._lock = threading.Lock()
        self._timers: list[tuple[int, int, str, tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self.handler: Callable[[str, tuple[Any, ...]], None] = lambda name, args: None

    @property
    def is_known(self) -> bool:
        """Whether the clock knows the time yet."""
        return not self._follows_feed or self._anchor is not None

    @property
    def now_ns(self) -> int:
        """The time now, ns since the epoch, UTC."""
        with self._lock:
            time_ns = time.time_ns()
            if self._follows_feed:
                anchor_ns, at_s = self._anchor or (0, time.monotonic())
                time_ns = anchor_ns + int((time.monotonic() - at_s) * 1e9 * self._accelerate)
            self._latest = max(self._latest, time_ns)
            return self._latest

    def set_time(self, time_ns: int) -> None:
        """Set the clock to the feed's time."""
        with self._lock:
            self._anchor = (time_ns, time.monotonic())

    def call_at(self, time_ns: int, name: str, *args: Any) -> None:
        """Set a timer."""
        heapq.heappush(self._timers, (time_ns, next(self._numbers), name, args))

    def on_timer(self, handler: Callable[[str, tuple[Any, ...]], None]) -> None:
        """Set the handler of timers."""
        self.handler = handler

    def run_due(self) -> float:
        """Run the due timers in order. Returns the seconds until the next check."""
        while self._timers and self._timers[0][0] <= self.now_ns:
            _, _, name, args = heapq.heappop(self._timers)
            self.handler(name, args)
        if not self._timers:
            return _POLL_S
        left_s = (self._timers[0][0] - self.now_ns) / 1e9 / self._accelerate
        return min(max(left_s, 0.0), _POLL_S)


class LiveDesk:
    """One incarnation of a live desk. `run` returns when the desk has been stopped.

    `parts` are the classes that the desk is made of; `on_begun` is called on the desk's thread when it has begun to
    trade. Raises `AlreadyRunningError`, `FixEngineError` or `StoreError`.
    """

    def __init__(self, config: LiveDeskConfig, *, parts: Parts | None = None) -> None:
        self.config = config
        make_private_directory(config.directory)
        self._lock_file = lock_directory(config.directory, "desk")
        self.on_begun: Callable[[], None] = lambda: None
        self._calls: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = queue.SimpleQueue()
        self._is_stopping = False
        self._has_begun = False
        self.guard = Guard.open(config.guard)
        codec = FixCodec(config.desk.instruments)
        self.clock = LiveClock(follows=config.clock == "feed", accelerate=config.accelerate)
        self.feed = FixFeed(config.desk.instruments, codec)
        self.link = FixLink(config.address, config.directory / "session", codec, self.feed, self.post, self._next_epoch)
        self.link.trade_date, self.link.now_ns = config.trade_date, lambda: self.clock.now_ns
        self.venue_view = VenueView(self.guard, lambda cl_ord_id: self.desk.orders.find(cl_ord_id))
        self.link.on_inbound = self.venue_view.apply_message
        self.link.on_positions_unsupported = lambda: self.venue_view.use_desk_positions(
            self.desk.positions.all_positions()
        )
        self.feed.on_time = self.clock.set_time
        self.feed.on_status = lambda status: self.post(self._market_status, status)
        self.desk = Desk(
            config.desk,
            clock=self.clock,
            link=self.link,
            market=self.feed,
            directory=config.directory,
            guard=self.guard,
            parts=parts,
            tables=PostgresTables(config.store_url, config.schema) if config.store_url else None,
        )

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Schedule a call on the desk's thread."""
        self._calls.put((function, args))

    def stop(self) -> None:
        """Stop in good order; may be called from any thread or a signal handler."""
        self.post(self._stop)

    def run(self) -> None:
        """Trade until stopped."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._lock_file.close)
            stack.callback(self.guard.close)
            stack.enter_context(_serve_socket(self.config.directory, self._handle_request))
            if self.config.tap is not None:
                tap = FeedTap(self.config.tap, self.config.desk.instruments)
                stack.callback(tap.close)
                # Stamped with the arrival time, not the venue's send time: the desk decided on what had arrived.
                self.feed.on_update = lambda update: tap.enqueue(update._replace(time_ns=self.clock.now_ns))
            self.link.start()
            stack.callback(self.link.stop)
            while not self._is_stopping:
                wait_s = self.clock.run_due() if self._has_begun else _POLL_S / 10
                if not self._has_begun and self.clock.is_known and self.feed.is_complete:
                    self._begin()
                with contextlib.suppress(queue.Empty):
                    function, args = self._calls.get(timeout=wait_s)
                    function(*args)
                    if self._has_begun and self.desk.reconciler.is_done and self._calls.empty():
                        self.guard.quiescent()  # every message of the venue has been applied
            self.desk.stop()
            self.guard.save_memory()

    # -- on the desk's thread -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        config = self.config
        self.guard.restore(VenueView.subsystem, [])  # the venue repeats its reports to this incarnation
        is_restart = self.desk.store.get("session") == config.trade_date
        if is_restart:
            self.guard.boundary("restart", config.trade_date)
        self.desk.start(config.trade_date, config.open_ns, config.close_ns)
        if not is_restart:
            self.guard.boundary("begin", config.trade_date)
        self._has_begun = True
        self.on_begun()
        print(f"holdover: the desk trades {config.trade_date}", file=sys.stderr, flush=True)

    def _next_epoch(self) -> int:
        epoch = int(self.desk.store.get("epoch", "0")) + 1
        self.desk.store.set("epoch", str(epoch))
        return epoch

    def _market_status(self, status: SecurityStatus) -> None:
        if self._has_begun:
            self.desk.on_market_status(status)

    def _stop(self) -> None:
        self._is_stopping = True

    # -- operator requests ----------------------------------------------------------------------------------------

    def _handle_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request from the socket; called on a thread of the socket."""
        replies: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.post(lambda: replies.put(self._answer_request(request)))
        try:
            return replies.get(timeout=_ANSWER_TIMEOUT_S)
        except queue.Empty:
            return {"problem": f"the desk has not answered for {_ANSWER_TIMEOUT_S:.0f} seconds"}

    def _answer_request(self, request: dict[str, Any]) -> dict[str, Any]:
        action = request.get("act")
        try:
            if action == "status":
                return self.status()
            if action == "stop":
                self._stop()
                return {"stopping": True}
            if not self._has_begun:
                return {"problem": "the desk waits for its feed"}
            if action == "submit":
                return self._submit(request)
            if action == "cancel":
                return self._cancel(str(request.get("order", "")))
        except (ValueError, LookupError, TypeError) as problem:
            return {"problem": str(problem)}
        return {"problem": f"{action!r} is nothing that can be asked; there are status, submit, cancel, stop"}

    def _submit(self, request: dict[str, Any]) -> dict[str, Any]:
        names = [strategy.name for strategy in self.config.desk.strategies]
        name = str(request.get("strategy", ""))
        if name not in names:
            return {"problem": f"no strategy is called {name!r}; there are {', '.join(names) or 'none'}"}
        strategy = self.config.desk.strategies[names.index(name)]
        instrument = self.config.desk.instrument(strategy.symbol)
        lots = instrument.lots(str(request.get("quantity", "0"))) if instrument is not None else 0
        before = {order.key for order in self.desk.orders.all_orders()}
        self.desk.submit(names.index(name), lots, int(request.get("offset", 0)))
        new_orders = [order for order in self.desk.orders.all_orders() if order.key not in before]
        if not new_orders:
            return {"problem": f"nothing was sent: {self._refusal_reason()}"}
        return {"order": new_orders[0].key, "status": new_orders[0].ord_status.name}

    def _cancel(self, root: str) -> dict[str, Any]:
        order = self.desk.orders.find(root)
        if order is None:
            return {"problem": f"the desk knows no order {root!r}"}
        self.desk.cancel(order.key)
        after = self.desk.orders.find(root) or order
        if after == order:
            return {"problem": f"{order!r} cannot be cancelled now: {self._refusal_reason()}"}
        return {"order": after.key, "status": after.ord_status.name}

    def _refusal_reason(self) -> str:
        if not self.link.is_up:
            return "the link is down"
        if not self.desk.reconciler.is_done:
            return "the reconciliation is not complete"
        if self.guard.active_freezes:
            return f"frozen is {', '.join(self.guard.frozen_scopes())}"
        return "the market, the hours, the parent's room or the order's own state do not allow it"

    def status(self) -> dict[str, Any]:
        """Returns the state of the desk as plain data."""
        desk = self.desk
        return {
            "trade_date": self.config.trade_date,
            "trading": self._has_begun,
            "time_ns": self.clock.now_ns if self.clock.is_known else 0,
            "link": {"up": self.link.is_up, "epoch": self.link.epoch, "in_seq": desk.gateway.in_seq},
            "reconciled": desk.reconciler.is_done,
            "open_orders": [_to_plain(order) for order in desk.orders.open_orders()] if self._has_begun else [],
            "positions": [_to_plain(position) for position in desk.positions.all_positions()],
            "parents": [_to_plain(parent) for parent in desk.parents.all_parents()],
            "frozen": [
                {"scope": freeze.scope, "invariant": freeze.invariant, "breach": freeze.breach}
                for freeze in self.guard.active_freezes
            ],
            "breaches": [breach.explanation for breach in self.guard.breaches],
        }


def _to_plain(record: Record) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(record)
    return fields


# -- the socket ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _socket_address(directory: Path) -> Iterator[str]:
    """The name of the socket, shortened where the system offers short names for directories."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        short = Path(f"/proc/self/fd/{handle}")
        yield str(short / SOCKET if short.exists() else directory / SOCKET)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _serve_socket(directory: Path, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    (directory / SOCKET).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _socket_address(directory) as name:
        server.bind(name)
    os.chmod(directory / SOCKET, 0o600)
    server.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rwb") as stream:
            for line in stream:
                try:
                    request = json.loads(line)
                except ValueError:
                    request = None
                reply = (
                    answer(request) if isinstance(request, dict) else {"problem": "a line should be one JSON object"}
                )
                stream.write(json.dumps(reply).encode() + b"\n")
                stream.flush()

    threading.Thread(target=serve, name="operator", daemon=True).start()
    try:
        yield
    finally:
        server.close()
        (directory / SOCKET).unlink(missing_ok=True)


def send_command(directory: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request to the daemon of a directory and return its reply.

    Raises `DeskNotRunningError` when none answers.
    """
    try:
        with _socket_address(directory) as name, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_ANSWER_TIMEOUT_S + 5)
            client.connect(name)
            with client.makefile("rwb") as stream:
                stream.write(json.dumps(request).encode() + b"\n")
                stream.flush()
                line = stream.readline()
    except (OSError, TimeoutError) as problem:
        raise DeskNotRunningError(f"{directory}: no desk runs there: {problem}") from problem
    if not line:
        raise DeskNotRunningError(f"{directory}: the desk went down before it answered")
    reply: dict[str, Any] = json.loads(line)
    return reply
