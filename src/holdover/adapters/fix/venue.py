"""The simulated venue behind FIX 4.4: an acceptor over TCP, in real or accelerated time, whose state survives a kill.

A client's message is synced before the engine counts it, applied in one order by one thread, and answered after the
position in the day at which it was applied is synced, too. A restarted venue replays the day up to that position and
passes the engine only the messages that the engine's own store does not have.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.adapters.fix.end_of_day import (
    APPLICATION_MESSAGE,
    EndOfDayState,
    end_venue_day,
    read_end_of_day,
    read_engine_files,
    write_engine_files,
)
from holdover.adapters.fix.fix_message import (
    FixMessage,
    ParsedMessage,
)
from holdover.adapters.fix.lockfile import lock_directory
from holdover.adapters.fix.market_data import (
    BID,
    OFFER,
    TRADE,
    VOLUME,
    MarketDataEntry,
    make_market_data,
)
from holdover.adapters.fix.messages import (
    make_business_reject,
)
from holdover.adapters.fix.venue_engine import ClientMessage, InboundLog, VenueEngine, replay_log
from holdover.fix.engine import (
    BEGIN,
    FixApplication,
    FixEngineError,
    SessionName,
    SessionSetting,
    import_quickfix,
    make_engine_application,
    make_settings,
)
from holdover.fix.listener import EngineListeners
from holdover.model import SecurityStatus
from holdover.model import fix_tags as tags
from holdover.recording import Recording
from holdover.world import UNDEF_PRICE

FEED: Final = ".FEED"
"""The suffix of a client's CompID in its market data session."""

_UPDATE_S: Final = 0.02
_BEAT_S: Final = 0.25


class VenueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a served venue.

    `host` is the IPv4 address to listen at. `clients` are CompIDs; each has a second session for market data,
    CLIENT.FEED. `users` maps a client to the required user and password. `accelerate` is how many seconds of the
    recorded day pass per second. With `uses_real_time` the venue uses the host's time, for a day with today's date.
    With `waits_for_logon` the clock starts at the first logon. `end_of_day` is the encoded state that the day
    starts from.
    """

    directory: Path
    port: int
    host: str = "127.0.0.1"
    name: str = "VENUE"
    clients: Sequence[str] = ("DESK",)
    users: Mapping[str, tuple[str, str]] = {}
    accelerate: float = 1.0
    uses_real_time: bool = False
    drop_copy: str = "DROP"
    drop_copy_port: int = 0
    heartbeat_s: int = 30
    waits_for_logon: bool = False
    end_of_day: bytes = b""


class VenueServer(FixApplication):
    """A served venue. `start` and `stop` it; a thread of its own runs the day.

    Raises `AlreadyRunningError`, `FixEngineError` or `VenueStateError`.
    """

    def __init__(self, config: VenueConfig, recordings: Sequence[Recording]) -> None:
        self.config = config
        self._lock_file = lock_directory(config.directory, "venue")
        quickfix = import_quickfix()
        self._listeners = EngineListeners(config.host, {config.port, config.drop_copy_port} - {0})
        identity = " ".join(
            f"{recording.meta.instrument.symbol}/{recording.meta.trade_date}/{recording.digest[:12]}"
            for recording in recordings
        )
        self.inbound_log = InboundLog(config.directory, identity, config.end_of_day)
        copies = [config.drop_copy] if config.drop_copy_port else []
        night = read_end_of_day(self.inbound_log.carried_state) if self.inbound_log.carried_state else None
        self.venue_engine = VenueEngine(
            recordings, copies=copies, end_of_day=(night.venue, night.owners) if night else None
        )
        if night is not None:
            self._write_engine_store(night)
        self._message_queue: queue.SimpleQueue[ClientMessage | None] = queue.SimpleQueue()
        self._subscriptions: dict[str, _Subscription] = {}
        self._feed_lock = threading.Lock()
        self._stopped = threading.Event()
        self._clients = {*config.clients, *copies}
        engine_settings = make_settings(
            self._session_settings(copies), config.directory / "session", heartbeat_s=config.heartbeat_s
        )
        self._sent_counts = {client: self._count_in_store(client) for client in sorted(self._clients)}
        for message in replay_log(self.venue_engine, self.inbound_log):
            self._message_queue.put(message)
        self._application = make_engine_application(self)
        self._store = quickfix.FileStoreFactory(engine_settings)
        try:
            self._engine: Any = quickfix.SocketAcceptor(self._application, self._store, engine_settings)
        except (quickfix.ConfigError, quickfix.RuntimeError) as problem:
            raise FixEngineError(f"the FIX engine does not start: {problem}") from problem
        self._session = quickfix.Session
        self._ids = {
            client: quickfix.SessionID(BEGIN, config.name, client)
            for client in (*self._clients, *(client + FEED for client in config.clients))
        }
        self._thread = threading.Thread(target=self._run, name="venue", daemon=True)
        self._anchor = (0.0, 0)
        self._store_starts: dict[str, str] = {}
        self._save_store_starts()

    def _write_engine_store(self, night: EndOfDayState) -> None:
        """Write the carried sequence numbers, unless the engine has a store already."""
        session = self.config.directory / "session"
        if not session.exists():
            for stem, count in write_engine_files(night, session).items():
                client = stem.removeprefix(f"{BEGIN}-{self.config.name}-")
                self.inbound_log.save_base(client, self._store_start(client), -count)

    def end_day(self, *, numbers: bool = True) -> EndOfDayState:
        """End the day of a stopped venue. Returns the state that the next day starts from.

        Without `numbers` the sessions reset their sequence numbers with the day.
        """
        return end_venue_day(self.venue_engine, read_engine_files(self.config.directory / "session") if numbers else {})

    def _session_settings(self, copies: Sequence[str]) -> list[SessionSetting]:
        config = self.config
        sessions = []
        port = self._listeners.engine_port(config.port)
        for client in config.clients:
            sessions.append(SessionSetting(sender=config.name, target=client, port=port))
            options = {"PersistMessages": "N"}  # old prices are never resent
            sessions.append(SessionSetting(sender=config.name, target=client + FEED, port=port, options=options))
        sessions += [
            SessionSetting(
                sender=config.name, target=copy_client, port=self._listeners.engine_port(config.drop_copy_port)
            )
            for copy_client in copies
        ]
        return sessions

    def _count_in_store(self, client: str) -> int:
        """How many of a client's messages the engine has stored; it sends them now or on a resend request.

        The engine starts a new store each midnight; `inbound_log` has the count of messages sent before that.
        """
        stem = self.config.directory / "session" / f"{BEGIN}-{self.config.name}-{client}"
        body, store_start = stem.with_name(stem.name + ".body"), self._store_start(client)
        base, handed_count = (
            self.inbound_log.load_base(client, store_start),
            self.inbound_log.sent_counts().get(client, 0),
        )
        if not body.exists() or base is None:
            return handed_count
        return max(handed_count, base + len(APPLICATION_MESSAGE.findall(body.read_bytes())))

    def _store_start(self, client: str) -> str:
        path = self.config.directory / "session" / f"{BEGIN}-{self.config.name}-{client}.session"
        return path.read_text(encoding="ascii", errors="replace").strip() if path.exists() else ""

    # -- lifecycle ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Accept connections and start the day. Raises `FixEngineError` when the engine does not start."""
        quickfix = import_quickfix()
        try:
            self._engine.start()
            self._listeners.attach()
        except (quickfix.ConfigError, quickfix.RuntimeError) as problem:
            raise FixEngineError(f"port {self.config.port}: the FIX engine does not start: {problem}") from problem
        if not self.config.waits_for_logon:
            self._begin_day()
        self._thread.start()

    def _begin_day(self) -> None:
        if not self._anchor[0]:
            self._anchor = (time.monotonic(), self.venue_engine.clock.now_ns)

    def stop(self) -> None:
        """Log out all clients; the state is kept."""
        self._stopped.set()
        self._message_queue.put(None)
        if self._thread.is_alive():
            self._thread.join(10)
        self._engine.stop()
        self._listeners.close()
        self.inbound_log.close()
        self._lock_file.close()

    def now_ns(self) -> int:
        """Returns the time of the recorded day. It does not advance while the venue is down."""
        if self.config.uses_real_time:
            return max(self.venue_engine.clock.now_ns, time.time_ns())
        began_s, began_ns = self._anchor
        if not began_s:
            return self.venue_engine.clock.now_ns
        return began_ns + int((time.monotonic() - began_s) * 1e9 * self.config.accelerate)

    # -- called by the engine -----------------------------------------------------------------------------------

    def check_logon(self, name: SessionName, message: Any) -> str:
        """Refuse a client without the right user and password."""
        client = name[1].removesuffix(FEED)
        expected = self.config.users.get(client)
        if expected is None:
            return ""
        credentials = tuple(
            message.getField(tag) if message.isSetField(tag) else "" for tag in (tags.USERNAME, tags.PASSWORD)
        )
        return "" if credentials == expected else f"{client}: wrong user or password"

    def on_logon(self, name: SessionName) -> None:
        """Start the day, if it waits for the first logon."""
        self._begin_day()

    def on_logout(self, name: SessionName, reason: str) -> None:
        """A subscription ends with its session."""
        with self._feed_lock:
            self._subscriptions.pop(name[1], None)

    def on_message(self, name: SessionName, text: str) -> None:
        """Store an application message before the engine counts it."""
        client = name[1]
        if client not in self._clients:
            self._on_market_data_request(client, ParsedMessage(text))
            return
        client_message = self.inbound_log.append_message(client, text)
        if client_message is not None:
            self._message_queue.put(client_message)

    def _on_market_data_request(self, client: str, parsed: ParsedMessage) -> None:
        symbols, known_symbols = (
            parsed.values(tags.SYMBOL),
            {instrument.symbol for instrument in self.venue_engine.instruments},
        )
        unknown_symbols = [symbol for symbol in symbols if symbol not in known_symbols]
        if parsed.kind != "V" or not symbols or unknown_symbols:
            text = (
                f"unknown symbol {', '.join(unknown_symbols)}"
                if unknown_symbols
                else f"{parsed.kind} is not taken here"
            )
            refused = [
                (tags.MD_REQ_ID, parsed.get(tags.MD_REQ_ID, "NONE")),
                (tags.MD_REQ_REJ_REASON, "0"),
                (tags.TEXT, text),
            ]
            self._send(
                client, FixMessage("Y", refused) if parsed.kind == "V" else make_business_reject(parsed, 3, text)
            )
            return
        with self._feed_lock:
            if parsed.get(tags.SUBSCRIPTION_REQUEST_TYPE) == "2":
                self._subscriptions.pop(client, None)
            else:
                self._subscriptions[client] = _Subscription(
                    parsed.get(tags.MD_REQ_ID), symbols, is_snapshot=parsed.get(tags.SUBSCRIPTION_REQUEST_TYPE) == "0"
                )

    # -- the day ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._flush()
        beat_s = update_s = 0.0
        while not self._stopped.is_set():
            message = self._next_message(_UPDATE_S / 2)
            numbers: list[int] = []
            self.venue_engine.advance(self.now_ns())
            while message is not None:
                self.venue_engine.apply_message(message)
                numbers.append(message.number)
                message = self._next_message(0)
            now_s = time.monotonic()
            if numbers or self.venue_engine.outgoing or now_s - beat_s >= _BEAT_S:
                beat_s = now_s
                self.inbound_log.save_progress(
                    self.venue_engine.clock.now_ns, self.venue_engine.events, numbers, self._sent_counts
                )
                self._save_store_starts()
            self._flush()
            if now_s - update_s >= _UPDATE_S:
                update_s = now_s
                self._send_updates(now_s)

    def _save_store_starts(self) -> None:
        """Record how many messages each new store of the engine has missed."""
        for client in sorted(self._clients):
            store_start = self._store_start(client)
            if store_start and self._store_starts.get(client) != store_start:
                self._store_starts[client] = store_start
                self.inbound_log.save_base(client, store_start, self._sent_counts.get(client, 0))

    def _next_message(self, seconds: float) -> ClientMessage | None:
        try:
            return self._message_queue.get(timeout=seconds) if seconds else self._message_queue.get_nowait()
        except queue.Empty:
            return None

    def _flush(self) -> None:
        """Pass the engine the messages that it does not have; it stores them for clients that are disconnected."""
        outgoing, self.venue_engine.outgoing = self.venue_engine.outgoing, []
        for client, number, wire in outgoing:
            if client in self._ids and number > self._sent_counts.get(client, 0):
                self._send(client, wire)
                self._sent_counts[client] = number

    def _send(self, client: str, wire: FixMessage) -> None:
        self._session.sendToTarget(wire.to_quickfix(), self._ids[client])

    def _send_updates(self, now_s: float) -> None:
        with self._feed_lock:
            feeds = list(self._subscriptions.items())
        for client, feed in feeds:
            for wire in feed.next_messages(self.venue_engine, now_s):
                self._send(client, wire)
            if feed.is_snapshot:
                with self._feed_lock:
                    self._subscriptions.pop(client, None)


class _Subscription:
    """One market data subscription and what was sent for it."""

    def __init__(self, req_id: str, symbols: Sequence[str], *, is_snapshot: bool) -> None:
        self.is_snapshot = is_snapshot
        self._req_id, self._symbols = req_id, list(symbols)
        self._last_quotes: dict[str, tuple[Any, ...]] = {}
        self._status: dict[str, tuple[bool, str, str]] = {}
        self._sent_s: dict[str, float] = {}

    def next_messages(self, core: VenueEngine, now_s: float) -> list[FixMessage]:
        """Returns messages about changes; at least one per second, so that the client knows the time of the day."""
        messages: list[FixMessage] = []
        for symbol in self._symbols:
            book = core.venue.top(symbol)
            status = (book.trading, book.reason, book.reference_version)
            if self._status.get(symbol) != status:
                self._status[symbol] = status
                status_message = SecurityStatus(
                    symbol=symbol,
                    trading=book.trading,
                    reason=book.reason,
                    trade_date=core.trade_date,
                    reference_version=book.reference_version,
                )
                messages.append(core.codec.encode_inbound(status_message))
            quote = (book.bid_px, book.bid_sz, book.ask_px, book.ask_sz, book.last_px, book.traded_qty)
            before = self._last_quotes.get(symbol)
            if quote == before and now_s - self._sent_s.get(symbol, 0.0) < 1.0:
                continue
            self._last_quotes[symbol], self._sent_s[symbol] = quote, now_s
            instrument, time_ns = core.codec.instrument_of(symbol), core.clock.now_ns
            sides = []
            for kind, price, size in ((BID, book.bid_px, book.bid_sz), (OFFER, book.ask_px, book.ask_sz)):
                if price == UNDEF_PRICE:
                    sides.append(MarketDataEntry(kind, symbol, None, None, time_ns))
                else:
                    sides.append(
                        MarketDataEntry(
                            kind, symbol, instrument.price_text(price), instrument.quantity_text(size), time_ns
                        )
                    )
            if book.last_px:
                sides.append(MarketDataEntry(TRADE, symbol, instrument.price_text(book.last_px), None, time_ns))
            sides.append(MarketDataEntry(VOLUME, symbol, None, instrument.quantity_text(book.traded_qty), time_ns))
            messages.append(make_market_data(self._req_id, symbol, sides, snapshot=before is None))
        return messages
