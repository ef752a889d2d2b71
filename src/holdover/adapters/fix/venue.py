"""Our simulated venue behind FIX 4.4: an acceptor over TCP, in real time or quicker, whose state outlives its kill.

What a client sends is synced before the engine counts it, taken in one order by one thread, and answered after the
place in the day at which it was taken is synced too. A venue that comes up again plays the day up to that place, and
hands the engine only what the engine's own store does not hold already.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.adapters.fix.alone import alone
from holdover.adapters.fix.core import Core, Ledger, Told, restored
from holdover.adapters.fix.messages import (
    BID,
    OFFER,
    TRADE,
    VOLUME,
    Entry,
    Fields,
    Wire,
    business_reject,
    market_data,
)
from holdover.adapters.fix.night import APPLICATION, Night, engine_files, lay_engine, night_of, read_night
from holdover.adapters.fix.session import (
    BEGIN,
    Heard,
    Name,
    NoEngine,
    SessionSetting,
    application,
    engine,
    settings,
)
from holdover.model import SecurityStatus
from holdover.recording import Recording
from holdover.world import UNDEF_PRICE

FEED: Final = ".FEED"
"""What a client's CompID ends with in its session for market data."""

_UPDATE_S: Final = 0.02
_BEAT_S: Final = 0.25


class VenueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a venue is served.

    `clients` are their CompIDs, each of which has a second session for market data, CLIENT.FEED. `users` says which
    user and password a client must give. `accelerate` is how many seconds of the recorded day pass in a second. With
    `real` it is as late there as it is here, for a day of today's date. With `waits` the clock stands until somebody
    has logged on. `night` is what the day begins with, encoded.
    """

    directory: Path
    port: int
    name: str = "VENUE"
    clients: Sequence[str] = ("DESK",)
    users: Mapping[str, tuple[str, str]] = {}
    accelerate: float = 1.0
    real: bool = False
    drop_copy: str = "DROP"
    drop_copy_port: int = 0
    heartbeat_s: int = 30
    waits: bool = False
    night: bytes = b""


class VenueServer(Heard):
    """A venue that serves. `start` and `stop`; one thread of its own runs the day.

    Raises `Occupied`, `NoEngine`, `BadState`.
    """

    def __init__(self, config: VenueConfig, recordings: Sequence[Recording]) -> None:
        self.config = config
        self._locked = alone(config.directory, "venue")
        quickfix = engine()
        for port in {config.port, config.drop_copy_port} - {0}:
            _free(port)
        what = " ".join(f"{one.meta.instrument.symbol}/{one.meta.trade_date}/{one.digest[:12]}" for one in recordings)
        self.ledger = Ledger(config.directory, what, config.night)
        copies = [config.drop_copy] if config.drop_copy_port else []
        night = read_night(self.ledger.carried) if self.ledger.carried else None
        self.core = Core(recordings, copies=copies, night=(night.venue, night.owners) if night else None)
        if night is not None:
            self._resume(night)
        self._waiting: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        self._feeds: dict[str, _Feed] = {}
        self._feed_lock = threading.Lock()
        self._stopped = threading.Event()
        self._clients = {*config.clients, *copies}
        given = settings(self._sessions(copies), config.directory / "session", heartbeat_s=config.heartbeat_s)
        self._handed = {client: self._in_store(client) for client in sorted(self._clients)}
        for told in restored(self.core, self.ledger):
            self._waiting.put(told)
        self._application = application(self)
        self._store = quickfix.FileStoreFactory(given)
        try:
            self._engine: Any = quickfix.SocketAcceptor(self._application, self._store, given)
        except (quickfix.ConfigError, quickfix.RuntimeError) as problem:
            raise NoEngine(f"the FIX engine does not start: {problem}") from problem
        self._session = quickfix.Session
        self._ids = {
            client: quickfix.SessionID(BEGIN, config.name, client)
            for client in (*self._clients, *(client + FEED for client in config.clients))
        }
        self._thread = threading.Thread(target=self._run, name="venue", daemon=True)
        self._begun = (0.0, 0)
        self._begins: dict[str, str] = {}
        self._note_begins()

    def _resume(self, night: Night) -> None:
        """Lay down the sessions' numbers of the night, where the engine's store has not been begun yet."""
        session = self.config.directory / "session"
        if not session.exists():
            for stem, count in lay_engine(night, session).items():
                client = stem.removeprefix(f"{BEGIN}-{self.config.name}-")
                self.ledger.base(client, self._began(client), -count)

    def night(self, *, numbers: bool = True) -> Night:
        """Go into the night, when it has been stopped: what the next day's venue begins with.

        Without `numbers` the sessions begin anew with the day.
        """
        return night_of(self.core, engine_files(self.config.directory / "session") if numbers else {})

    def _sessions(self, copies: Sequence[str]) -> list[SessionSetting]:
        config = self.config
        found = []
        for client in config.clients:
            found.append(SessionSetting(sender=config.name, target=client, port=config.port))
            unkept = {"PersistMessages": "N"}  # an old price is nothing that anybody wants again
            found.append(SessionSetting(sender=config.name, target=client + FEED, port=config.port, more=unkept))
        found += [SessionSetting(sender=config.name, target=one, port=config.drop_copy_port) for one in copies]
        return found

    def _in_store(self, client: str) -> int:
        """How many of a client's messages the engine has: what it holds is sent, now or when it is asked for.

        The engine begins a store anew each midnight; `ledger` knows what had been handed to it by then.
        """
        stem = self.config.directory / "session" / f"{BEGIN}-{self.config.name}-{client}"
        body, began = stem.with_name(stem.name + ".body"), self._began(client)
        base, known = self.ledger.based(client, began), self.ledger.handed().get(client, 0)
        if not body.exists() or base is None:
            return known
        return max(known, base + len(APPLICATION.findall(body.read_bytes())))

    def _began(self, client: str) -> str:
        path = self.config.directory / "session" / f"{BEGIN}-{self.config.name}-{client}.session"
        return path.read_text(encoding="ascii", errors="replace").strip() if path.exists() else ""

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take connections, let the day run."""
        quickfix = engine()
        try:
            self._engine.start()
        except (quickfix.ConfigError, quickfix.RuntimeError) as problem:
            raise NoEngine(f"port {self.config.port}: the FIX engine does not start: {problem}") from problem
        if not self.config.waits:
            self._begin()
        self._thread.start()

    def _begin(self) -> None:
        if not self._begun[0]:
            self._begun = (time.monotonic(), self.core.clock.now_ns)

    def stop(self) -> None:
        """Log everybody out; the state stays."""
        self._stopped.set()
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join(10)
        self._engine.stop()
        self.ledger.close()
        self._locked.close()

    def now_ns(self) -> int:
        """The time of the recorded day. It stands while the venue is down."""
        if self.config.real:
            return max(self.core.clock.now_ns, time.time_ns())
        began_s, began_ns = self._begun
        if not began_s:
            return self.core.clock.now_ns
        return began_ns + int((time.monotonic() - began_s) * 1e9 * self.config.accelerate)

    # -- what the engine calls ----------------------------------------------------------------------------------

    def logon(self, name: Name, message: Any) -> str:
        """Refuse a client that does not give its user and password."""
        client = name[1].removesuffix(FEED)
        expected = self.config.users.get(client)
        if expected is None:
            return ""
        given = tuple(message.getField(tag) if message.isSetField(tag) else "" for tag in (553, 554))
        return "" if given == expected else f"{client}: wrong user or password"

    def logged_on(self, name: Name) -> None:
        """The day begins, where it has waited for somebody."""
        self._begin()

    def logged_out(self, name: Name, reason: str) -> None:
        """A subscription ends with its session."""
        with self._feed_lock:
            self._feeds.pop(name[1], None)

    def message(self, name: Name, text: str) -> None:
        """An application message: written down before the engine counts it."""
        client = name[1]
        if client not in self._clients:
            self._market_data(client, Fields(text))
            return
        taken = self.ledger.take(client, text)
        if taken is not None:
            self._waiting.put(taken)

    def _market_data(self, client: str, told: Fields) -> None:
        symbols, known = told.all(55), {one.symbol for one in self.core.instruments}
        strange = [one for one in symbols if one not in known]
        if told.kind != "V" or not symbols or strange:
            what = f"unknown symbol {', '.join(strange)}" if strange else f"{told.kind} is not taken here"
            refused = [(262, told.get(262, "NONE")), (281, "0"), (58, what)]
            self._hand(client, Wire("Y", refused) if told.kind == "V" else business_reject(told, 3, what))
            return
        with self._feed_lock:
            if told.get(263) == "2":
                self._feeds.pop(client, None)
            else:
                self._feeds[client] = _Feed(told.get(262), symbols, once=told.get(263) == "0")

    # -- the day ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._flush()
        beat_s = update_s = 0.0
        while not self._stopped.is_set():
            told = self._next(_UPDATE_S / 2)
            taken: list[int] = []
            self.core.advance(self.now_ns())
            while told is not None:
                self.core.take(told)
                taken.append(told.number)
                told = self._next(0)
            now_s = time.monotonic()
            if taken or self.core.out or now_s - beat_s >= _BEAT_S:
                beat_s = now_s
                self.ledger.mark(self.core.clock.now_ns, self.core.events, taken, self._handed)
                self._note_begins()
            self._flush()
            if now_s - update_s >= _UPDATE_S:
                update_s = now_s
                self._update(now_s)

    def _note_begins(self) -> None:
        """Write down how much each store of the engine did not see, when it has begun one."""
        for client in sorted(self._clients):
            began = self._began(client)
            if began and self._begins.get(client) != began:
                self._begins[client] = began
                self.ledger.base(client, began, self._handed.get(client, 0))

    def _next(self, seconds: float) -> Told | None:
        try:
            return self._waiting.get(timeout=seconds) if seconds else self._waiting.get_nowait()
        except queue.Empty:
            return None

    def _flush(self) -> None:
        """Hand the engine what it does not hold; where a client is away it keeps it for a ResendRequest."""
        out, self.core.out = self.core.out, []
        for client, number, wire in out:
            if client in self._ids and number > self._handed.get(client, 0):
                self._hand(client, wire)
                self._handed[client] = number

    def _hand(self, client: str, wire: Wire) -> None:
        self._session.sendToTarget(wire.message(), self._ids[client])

    def _update(self, now_s: float) -> None:
        with self._feed_lock:
            feeds = list(self._feeds.items())
        for client, feed in feeds:
            for wire in feed.wires(self.core, now_s):
                self._hand(client, wire)
            if feed.once:
                with self._feed_lock:
                    self._feeds.pop(client, None)


def _free(port: int) -> None:
    """The engine ends the process over a port that it cannot have, so it is asked for first. Raises `NoEngine`."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
            trial.listen()
        except OSError as problem:
            raise NoEngine(f"port {port} cannot be had: {problem.strerror}; give another --port") from None


class _Feed:
    """One subscription, and what it has been told."""

    def __init__(self, req_id: str, symbols: Sequence[str], *, once: bool) -> None:
        self.once = once
        self._req_id, self._symbols = req_id, list(symbols)
        self._told: dict[str, tuple[Any, ...]] = {}
        self._status: dict[str, tuple[bool, str, str]] = {}
        self._spoke_s: dict[str, float] = {}

    def wires(self, core: Core, now_s: float) -> list[Wire]:
        """What is new, or anything once a second, so that the time of the day is known."""
        found: list[Wire] = []
        for symbol in self._symbols:
            book = core.venue.top(symbol)
            status = (book.trading, book.reason, book.reference_version)
            if self._status.get(symbol) != status:
                self._status[symbol] = status
                told = SecurityStatus(
                    symbol=symbol,
                    trading=book.trading,
                    reason=book.reason,
                    trade_date=core.trade_date,
                    reference_version=book.reference_version,
                )
                found.append(core.codec.inbound(told))
            now = (book.bid_px, book.bid_sz, book.ask_px, book.ask_sz, book.last_px, book.traded_qty)
            before = self._told.get(symbol)
            if now == before and now_s - self._spoke_s.get(symbol, 0.0) < 1.0:
                continue
            self._told[symbol], self._spoke_s[symbol] = now, now_s
            one, time_ns = core.codec.instrument(symbol), core.clock.now_ns
            sides = []
            for kind, price, size in ((BID, book.bid_px, book.bid_sz), (OFFER, book.ask_px, book.ask_sz)):
                if price == UNDEF_PRICE:
                    sides.append(Entry(kind, symbol, None, None, time_ns))
                else:
                    sides.append(Entry(kind, symbol, one.price_text(price), one.quantity_text(size), time_ns))
            if book.last_px:
                sides.append(Entry(TRADE, symbol, one.price_text(book.last_px), None, time_ns))
            sides.append(Entry(VOLUME, symbol, None, one.quantity_text(book.traded_qty), time_ns))
            found.append(market_data(self._req_id, symbol, sides, snapshot=before is None))
        return found
