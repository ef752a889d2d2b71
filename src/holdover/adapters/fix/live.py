"""The desk as a daemon: one thread that owns it, timers in real or in the feed's time, a socket for its operator."""

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

from holdover.adapters.fix.alone import alone
from holdover.adapters.fix.config import LiveConfig
from holdover.adapters.fix.link import Feed, FixLink
from holdover.adapters.fix.messages import Codec
from holdover.adapters.fix.tap import Tap
from holdover.adapters.fix.word import VenueWord
from holdover.desk import Desk
from holdover.desk.faults import parts_with
from holdover.desk.tables import PostgresTables
from holdover.model import Record, SecurityStatus
from holdover.runtime import Breach, Guard

SOCKET: Final = "desk.sock"
DRILL: Final = "drill.jsonl"
_LOOK_S: Final = 0.25
_ANSWER_S: Final = 10.0
_PARTS: Final = ("store", "orders", "positions", "ledger", "risk", "parents", "gateway", "reconciler")


class NoDesk(RuntimeError):
    """No daemon answers for a directory; the message says which."""


class LiveClock:
    """Time and timers of a live desk. It never goes back; with a feed's clock it follows what the feed tells."""

    def __init__(self, *, follows: bool, accelerate: float) -> None:
        self._follows, self._accelerate = follows, accelerate
        self._anchor: tuple[int, float] | None = None
        self._latest = 0
        self._lock = threading.Lock()
        self._timers: list[tuple[int, int, str, tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self.handler: Callable[[str, tuple[Any, ...]], None] = lambda name, args: None

    @property
    def known(self) -> bool:
        """Whether it can tell the time yet."""
        return not self._follows or self._anchor is not None

    @property
    def now_ns(self) -> int:
        """The time now, ns since the epoch, UTC."""
        with self._lock:
            now = time.time_ns()
            if self._follows:
                told, at_s = self._anchor or (0, time.monotonic())
                now = told + int((time.monotonic() - at_s) * 1e9 * self._accelerate)
            self._latest = max(self._latest, now)
            return self._latest

    def told(self, time_ns: int) -> None:
        """The feed has told the time."""
        with self._lock:
            self._anchor = (time_ns, time.monotonic())

    def call_at(self, time_ns: int, name: str, *args: Any) -> None:
        """A timer."""
        heapq.heappush(self._timers, (time_ns, next(self._numbers), name, args))

    def on_timer(self, handler: Callable[[str, tuple[Any, ...]], None]) -> None:
        """Who is called for timers."""
        self.handler = handler

    def run_due(self) -> float:
        """Run what is due, in its order; returns in how many seconds to look again."""
        while self._timers and self._timers[0][0] <= self.now_ns:
            _, _, name, args = heapq.heappop(self._timers)
            self.handler(name, args)
        if not self._timers:
            return _LOOK_S
        left_s = (self._timers[0][0] - self.now_ns) / 1e9 / self._accelerate
        return min(max(left_s, 0.0), _LOOK_S)


class LiveDesk:
    """One life of a live desk. `run` returns when it has been stopped. Raises `Occupied`, `NoEngine`, `StoreProblem`.

    A drill switches a seeded fault on, `fault_after_s` after the desk has begun or, where that is None, before it
    comes up on what it has kept; it writes into `drill.jsonl` when the mutation came that broke an invariant and when
    its freeze was on the disk.
    """

    def __init__(self, config: LiveConfig, *, fault: str = "", fault_after_s: float | None = None) -> None:
        self.config = config
        config.directory.mkdir(parents=True, exist_ok=True)
        self._locked = alone(config.directory, "desk")
        self.parts = parts_with([fault]) if fault else None
        self._fault, self._fault_after_s = fault, fault_after_s
        self._drilled_ns = 0
        self._calls: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = queue.SimpleQueue()
        self._stopping = False
        self._begun = False
        self.guard = Guard.open(config.guard)
        codec = Codec(config.desk.instruments)
        self.clock = LiveClock(follows=config.clock == "feed", accelerate=config.accelerate)
        self.feed = Feed(config.desk.instruments, codec)
        self.link = FixLink(config.address, config.directory / "session", codec, self.feed, self.post, self._next_epoch)
        self.link.trade_date, self.link.now_ns = config.trade_date, lambda: self.clock.now_ns
        self.word = VenueWord(self.guard, lambda cl_ord_id: self.desk.orders.find(cl_ord_id))
        self.link.on_said = self.word.take
        self.link.on_untold = lambda: self.word.not_told(self.desk.positions.held())
        self.feed.on_time = self.clock.told
        self.feed.on_status = lambda status: self.post(self._market_status, status)
        self.desk = Desk(
            config.desk,
            clock=self.clock,
            link=self.link,
            market=self.feed,
            directory=config.directory,
            guard=self.guard,
            parts=self.parts if fault_after_s is None else None,
            tables=PostgresTables(config.store_url, config.schema) if config.store_url else None,
        )

    def post(self, act: Callable[..., Any], *args: Any) -> None:
        """Have something done on the desk's thread."""
        self._calls.put((act, args))

    def stop(self) -> None:
        """Go down in good order, from any thread or a signal's handler."""
        self.post(self._stop)

    def run(self) -> None:
        """Trade until stopped."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._locked.close)
            stack.callback(self.guard.close)
            stack.enter_context(_listening(self.config.directory, self._asked))
            if self.config.tap is not None:
                tap = Tap(self.config.tap, self.config.desk.instruments)
                stack.callback(tap.close)
                # Stamped by when it got here, not when it left the venue: that is what the desk decided by.
                self.feed.on_heard = lambda heard: tap.hear(heard._replace(time_ns=self.clock.now_ns))
            self.link.start()
            stack.callback(self.link.stop)
            if self._fault:
                self._time_mutations()
            while not self._stopping:
                wait_s = self.clock.run_due() if self._begun else _LOOK_S / 10
                if not self._begun and self.clock.known and self.feed.there:
                    self._begin()
                with contextlib.suppress(queue.Empty):
                    act, args = self._calls.get(timeout=wait_s)
                    act(*args)
                    if self._begun and self.desk.reconciler.done and self._calls.empty():
                        self.guard.quiescent()  # all that the venue has said has been taken in
            self.desk.stop()
            self.guard.remember()

    # -- on the desk's thread -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        config = self.config
        self.guard.restore(VenueWord.subsystem, [])  # what it said to another life it says anew, or it is not so
        again = self.desk.store.get("session") == config.trade_date
        if again:
            self.guard.boundary("restart", config.trade_date)
        self.desk.start(config.trade_date, config.open_ns, config.close_ns)
        if not again:
            self.guard.boundary("begin", config.trade_date)
        self._begun = True
        if self._fault and self._fault_after_s is not None:
            self.clock.call_at(self.clock.now_ns + int(self._fault_after_s * 1e9 * config.accelerate), "drill")
            handler = self.clock.handler
            self.clock.handler = lambda name, args: self._drill() if name == "drill" else handler(name, args)
        print(f"holdover: the desk trades {config.trade_date}", file=sys.stderr, flush=True)

    def _next_epoch(self) -> int:
        epoch = int(self.desk.store.get("epoch", "0")) + 1
        self.desk.store.set("epoch", str(epoch))
        return epoch

    def _market_status(self, status: SecurityStatus) -> None:
        if self._begun:
            self.desk.on_market_status(status)

    def _stop(self) -> None:
        self._stopping = True

    # -- what an operator asks ------------------------------------------------------------------------------------

    def _asked(self, told: dict[str, Any]) -> dict[str, Any]:
        """Answer a request of the socket; called on a thread of the socket."""
        box: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.post(lambda: box.put(self._answer(told)))
        try:
            return box.get(timeout=_ANSWER_S)
        except queue.Empty:
            return {"problem": f"the desk has not answered for {_ANSWER_S:.0f} seconds"}

    def _answer(self, told: dict[str, Any]) -> dict[str, Any]:
        act = told.get("act")
        try:
            if act == "status":
                return self.status()
            if act == "stop":
                self._stop()
                return {"stopping": True}
            if not self._begun:
                return {"problem": "the desk waits for its feed"}
            if act == "submit":
                return self._submit(told)
            if act == "cancel":
                return self._cancel(str(told.get("order", "")))
        except (ValueError, LookupError, TypeError) as problem:
            return {"problem": str(problem)}
        return {"problem": f"{act!r} is nothing that can be asked; there are status, submit, cancel, stop"}

    def _submit(self, told: dict[str, Any]) -> dict[str, Any]:
        names = [one.name for one in self.config.desk.strategies]
        name = str(told.get("strategy", ""))
        if name not in names:
            return {"problem": f"no strategy is called {name!r}; there are {', '.join(names) or 'none'}"}
        strategy = self.config.desk.strategies[names.index(name)]
        one = self.config.desk.instrument(strategy.symbol)
        lots = one.lots(str(told.get("quantity", "0"))) if one is not None else 0
        before = {order.key for order in self.desk.orders.all()}
        self.desk.submit(names.index(name), lots, int(told.get("offset", 0)))
        sent = [order for order in self.desk.orders.all() if order.key not in before]
        if not sent:
            return {"problem": f"nothing was sent: {self._why_not()}"}
        return {"order": sent[0].key, "status": sent[0].ord_status.name}

    def _cancel(self, root: str) -> dict[str, Any]:
        order = self.desk.orders.find(root)
        if order is None:
            return {"problem": f"the desk knows no order {root!r}"}
        self.desk.cancel(order.key)
        after = self.desk.orders.find(root) or order
        if after == order:
            return {"problem": f"{order!r} cannot be cancelled now: {self._why_not()}"}
        return {"order": after.key, "status": after.ord_status.name}

    def _why_not(self) -> str:
        if not self.link.up:
            return "the link is down"
        if not self.desk.reconciler.done:
            return "the reconciliation is not complete"
        if self.guard.frozen:
            return f"frozen is {', '.join(self.guard.frozen_scopes())}"
        return "the market, the hours, the parent's room or the order's own state do not allow it"

    def status(self) -> dict[str, Any]:
        """How the desk stands, as plain data."""
        desk = self.desk
        return {
            "trade_date": self.config.trade_date,
            "trading": self._begun,
            "time_ns": self.clock.now_ns if self.clock.known else 0,
            "link": {"up": self.link.up, "epoch": self.link.epoch, "in_seq": desk.gateway.in_seq},
            "reconciled": desk.reconciler.done,
            "open_orders": [_plain(one) for one in desk.orders.open()] if self._begun else [],
            "positions": [_plain(one) for one in desk.positions.held()],
            "parents": [_plain(one) for one in desk.parents.all()],
            "frozen": [
                {"scope": one.scope, "invariant": one.invariant, "breach": one.breach} for one in self.guard.frozen
            ],
            "breaches": [one.explanation for one in self.guard.breaches],
            "drill_ns": self._drilled_ns,
        }

    # -- drills ---------------------------------------------------------------------------------------------------

    def _drill(self) -> None:
        """The seeded fault is on from here: each part becomes what the fault makes of it, with all that it holds."""
        parts = self.parts
        if parts is None:
            return
        for name in _PARTS:
            part, made = getattr(self.desk, name), getattr(parts, name)
            if type(part) is not made:
                part.__class__ = made
        self._drilled_ns = time.time_ns()
        self._say_drill({"fault": self._fault, "on_ns": self._drilled_ns})

    def _time_mutations(self) -> None:
        """Know when the first mutation of each step came, and when a freeze was on the disk."""
        guard, real = self.guard, self.guard.record
        step = [-1, 0]

        def timed(subsystem: str, record: Record) -> None:
            if step[0] != guard.begun or not guard.in_step:
                step[:] = [guard.begun, time.time_ns()]
            real(subsystem, record)

        def breached(breach: Breach) -> None:
            frozen_ns = time.time_ns()
            told = {"invariant": breach.invariant, "scope": breach.scope, "breach": breach.number}
            self._say_drill({**told, "mutation_ns": step[1], "frozen_ns": frozen_ns})

        guard.record = timed  # type: ignore[method-assign]
        guard.on_breach = breached

    def _say_drill(self, told: dict[str, Any]) -> None:
        with open(self.config.directory / DRILL, "ab") as file:
            file.write(json.dumps(told).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _plain(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(record)
    return found


# -- the socket ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _address(directory: Path) -> Iterator[str]:
    """The socket's name, short enough for any folder where the system gives folders short names."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        short = Path(f"/proc/self/fd/{handle}")
        yield str(short / SOCKET if short.exists() else directory / SOCKET)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _listening(directory: Path, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    (directory / SOCKET).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _address(directory) as name:
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
                    told = json.loads(line)
                except ValueError:
                    told = None
                said = answer(told) if isinstance(told, dict) else {"problem": "a line should be one JSON object"}
                stream.write(json.dumps(said).encode() + b"\n")
                stream.flush()

    threading.Thread(target=serve, name="operator", daemon=True).start()
    try:
        yield
    finally:
        server.close()
        (directory / SOCKET).unlink(missing_ok=True)


def ask(directory: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Ask the daemon of a directory. Raises `NoDesk` when none answers."""
    try:
        with _address(directory) as name, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_ANSWER_S + 5)
            client.connect(name)
            with client.makefile("rwb") as stream:
                stream.write(json.dumps(told).encode() + b"\n")
                stream.flush()
                line = stream.readline()
    except (OSError, TimeoutError) as problem:
        raise NoDesk(f"{directory}: no desk runs there: {problem}") from problem
    if not line:
        raise NoDesk(f"{directory}: the desk went down before it answered")
    said: dict[str, Any] = json.loads(line)
    return said
