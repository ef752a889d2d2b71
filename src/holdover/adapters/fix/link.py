"""The desk's link to a venue over FIX 4.4, and its feed: two sessions of one engine.

The desk's store determines what has been received: at each logon the engine's expected sequence number is set from it,
so that every message is applied once, whatever crashed in between. Session messages count as well. The engine never
resends the desk's messages (it gap-fills); the desk queries what became of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdover.adapters.fix.fix_message import (
    FixMessageError,
    ParsedMessage,
)
from holdover.adapters.fix.market_data import (
    BID,
    OFFER,
    TRADE,
    VOLUME,
    make_market_data_request,
    parse_market_data,
)
from holdover.adapters.fix.messages import (
    FixCodec,
    decode_business_reject,
)
from holdover.adapters.fix.tap import MarketUpdate
from holdover.desk.ports import UNDEF_PRICE, Listener
from holdover.fix.engine import (
    BEGIN,
    LOGON,
    SEQUENCE_RESET,
    FixApplication,
    FixEngineError,
    SessionName,
    SessionSetting,
    import_quickfix,
    make_engine_application,
    make_settings,
)
from holdover.model import ExecutionReport, Inbound, Instrument, Outbound, PositionReport, Query, SecurityStatus
from holdover.model import fix_tags as tags

PostFunction = Callable[..., None]
"""Schedules a function with arguments on the desk's own thread."""


class FeedTop(msgspec.Struct, kw_only=True):
    """The market of one instrument from the feed; replaced at each change."""

    bid_px: int = UNDEF_PRICE
    ask_px: int = UNDEF_PRICE
    bid_sz: int = 0
    ask_sz: int = 0
    last_px: int = 0
    traded_qty: int = 0
    trading: bool = True
    reason: str = "open"
    reference_version: str = ""


class FixFeed:
    """The feed handler. While its session is down no side has a price, so that no decision uses old prices."""

    def __init__(self, instruments: Sequence[Instrument], codec: FixCodec) -> None:
        self.symbols = [instrument.symbol for instrument in instruments]
        self._codec = codec
        self._tops = {symbol: FeedTop() for symbol in self.symbols}
        self._quoted_symbols: set[str] = set()
        self.on_time: Callable[[int], None] = lambda time_ns: None
        self.on_status: Callable[[SecurityStatus], None] = lambda status: None
        self.on_update: Callable[[MarketUpdate], None] | None = None
        self._time_ns = 0

    @property
    def is_complete(self) -> bool:
        """Whether every instrument has been received."""
        return len(self._quoted_symbols) == len(self.symbols)

    def top(self, symbol: str) -> FeedTop:
        """Returns the market of one instrument. Raises `KeyError` for an unknown symbol."""
        return self._tops[symbol]

    def clear_prices(self) -> None:
        """Clear all prices: the session is down."""
        blank = {"bid_px": UNDEF_PRICE, "ask_px": UNDEF_PRICE, "bid_sz": 0, "ask_sz": 0}
        self._tops = {symbol: msgspec.structs.replace(top, **blank) for symbol, top in self._tops.items()}

    def apply_message(self, message: ParsedMessage) -> None:
        """Apply a message of the feed. Raises `FixMessageError`."""
        if message.kind == "f":
            status = self._codec.decode_inbound(message)
            if isinstance(status, SecurityStatus) and status.symbol in self._tops:
                self._update_top(
                    status.symbol,
                    trading=status.trading,
                    reason=status.reason,
                    reference_version=status.reference_version,
                )
                self.on_status(status)
                self._publish_update(status.symbol, status="open" if status.trading else status.reason)
            return
        time_ns = 0
        symbols: dict[str, None] = {}
        for entry in parse_market_data(message):
            if entry.symbol not in self._tops:
                continue
            time_ns = max(time_ns, entry.time_ns)
            instrument = self._codec.instrument_of(entry.symbol)
            price = instrument.ticks(entry.price) if entry.price else None
            size = instrument.lots(entry.size) if entry.size else 0
            if entry.kind == BID:
                self._update_top(entry.symbol, bid_px=UNDEF_PRICE if price is None else price, bid_sz=size)
            elif entry.kind == OFFER:
                self._update_top(entry.symbol, ask_px=UNDEF_PRICE if price is None else price, ask_sz=size)
            elif entry.kind == TRADE and price is not None:
                self._update_top(entry.symbol, last_px=price)
            elif entry.kind == VOLUME:
                self._update_top(entry.symbol, traded_qty=size)
            self._quoted_symbols.add(entry.symbol)
            symbols[entry.symbol] = None
        if time_ns:
            self._time_ns = time_ns
            self.on_time(time_ns)
        for symbol in symbols:
            self._publish_update(symbol)

    def _publish_update(self, symbol: str, status: str = "") -> None:
        """Pass the current market to the recorder of the feed, if any."""
        if self.on_update is not None and self._time_ns:
            top = self._tops[symbol]
            quote = (top.bid_px, top.bid_sz, top.ask_px, top.ask_sz)
            self.on_update(MarketUpdate(self._time_ns, symbol, *quote, top.last_px, top.traded_qty, status))

    def _update_top(self, symbol: str, **fields: Any) -> None:
        self._tops[symbol] = msgspec.structs.replace(self._tops[symbol], **fields)


class FixAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The address and the CompIDs of a counterparty."""

    host: str
    port: int
    sender: str
    target: str
    feed_sender: str = ""
    heartbeat_s: int = 30
    username: str = ""
    password: str = ""


class FixLink(FixApplication):
    """The desk's end of the order session; the feed's session runs next to it.

    `post` moves engine calls to the desk's thread; `next_epoch` returns the number of the next logon, counted over
    every incarnation of the desk. `on_inbound` receives each message before the desk does;
    `on_positions_unsupported` is called when the venue does not report positions. Raises `FixEngineError`.
    """

    def __init__(
        self,
        address: FixAddress,
        directory: Path,
        codec: FixCodec,
        feed: FixFeed,
        post: PostFunction,
        next_epoch: Callable[[], int],
    ) -> None:
        quickfix = import_quickfix()
        self.address, self.codec, self.feed = address, codec, feed
        self._post, self._next_epoch = post, next_epoch
        self._order_session: SessionName = (address.sender, address.target)
        self._price_session: SessionName = (address.feed_sender or f"{address.sender}.FEED", address.target)
        self.trade_date = ""
        self.now_ns: Callable[[], int] = lambda: 0
        self.on_inbound: Callable[[Inbound], None] = lambda message: None
        self.on_positions_unsupported: Callable[[], None] = lambda: None
        self._listener: Listener | None = None
        self._is_up = False
        self._is_logged_on = False
        self._epoch = 0
        self._out_seq = 0
        self._expected_in_seq = 1
        self._logon_seq = 0
        self._queries: dict[str, Query] = {}
        self._position_reports = ("", 0)
        # A lost order may have been abandoned or sent again in the meantime, so the engine stores none and gap-fills
        # resend requests. Old prices are useless: the feed's sequence numbers restart.
        order_options, price_options = {"PersistMessages": "N"}, {"PersistMessages": "N", "ResetOnLogon": "Y"}
        engine_settings = make_settings(
            [
                SessionSetting(sender=name[0], target=name[1], host=address.host, port=address.port, options=options)
                for name, options in ((self._order_session, order_options), (self._price_session, price_options))
            ],
            directory,
            heartbeat_s=address.heartbeat_s,
        )
        self._application = make_engine_application(self)
        self._stores = quickfix.FileStoreFactory(engine_settings)
        try:
            self._engine: Any = quickfix.SocketInitiator(self._application, self._stores, engine_settings)
        except (quickfix.ConfigError, quickfix.RuntimeError) as problem:
            raise FixEngineError(f"the FIX engine does not start: {problem}") from problem
        self._ids = {name: quickfix.SessionID(BEGIN, *name) for name in (self._order_session, self._price_session)}
        self._session = quickfix.Session.lookupSession(self._ids[self._order_session])
        self._send = quickfix.Session.sendToTarget
        self._session.logout()  # log on only after the desk has set the sequence numbers

    def start(self) -> None:
        """Connect the feed; the order session waits for `connect`."""
        self._engine.start()

    def stop(self) -> None:
        """Log out of both sessions and stop the engine."""
        self._engine.stop()

    # -- called by the desk, on the desk's thread -----------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether messages can be sent."""
        return self._is_up and self._is_logged_on

    @property
    def epoch(self) -> int:
        """The number of logons so far, over every incarnation."""
        return self._epoch

    def listen(self, listener: Listener) -> None:
        """Set the listener."""
        self._listener = listener

    def connect(self, next_in_seq: int, next_out_seq: int) -> None:
        """Log on and receive everything from `next_in_seq` on.

        An engine that has started a new store, as it does on a new date, resets the session, and so does the venue.
        """
        if next_in_seq > 1 and self._session.getExpectedSenderNum() == 1:
            next_in_seq = next_out_seq = 1
            self._on_sequence_reset(1)
        self._out_seq = next_out_seq - 1
        self._expected_in_seq = next_in_seq
        self._session.setNextTargetMsgSeqNum(next_in_seq)
        self._session.logon()

    def send(self, message: Outbound) -> int:
        """Send a message.

        Returns the count of application messages sent. Raises `ConnectionError` when the link is down.
        """
        if not self.is_up or not self._session.isLoggedOn():
            raise ConnectionError(f"{self.address.target} is down: {message.key} cannot be sent")
        if isinstance(message, Query):
            self._queries[message.req_id] = message
            while len(self._queries) > 1000:
                self._queries.pop(next(iter(self._queries)))
        wire = self.codec.encode_outbound(message, now_ns=self.now_ns(), trade_date=self.trade_date)
        self._send(wire.to_quickfix(), self._ids[self._order_session])
        self._out_seq += 1
        return self._out_seq

    def resend(self, begin_seq: int) -> None:
        """Does nothing: the engine requests missing messages itself and delivers them in order."""

    def disconnect(self) -> None:
        """Log out."""
        self._session.logout()

    # -- called by the engine, on the engine's thread -------------------------------------------------------------

    def add_credentials(self, name: SessionName, message: Any) -> None:
        """Add user and password."""
        if self.address.username:
            message.setField(tags.USERNAME, self.address.username)
        if self.address.password:
            message.setField(tags.PASSWORD, self.address.password)

    def on_logon(self, name: SessionName) -> None:
        """A session is up."""
        if name == self._price_session:
            self._send(make_market_data_request("FEED", self.feed.symbols).to_quickfix(), self._ids[name])
            return
        self._is_logged_on = True
        self._post(self._on_up)
        self._count_session_message(self._logon_seq)

    def on_logout(self, name: SessionName, reason: str) -> None:
        """A session is down; the order session stays down until the desk connects."""
        if name == self._price_session:
            self.feed.clear_prices()
            return
        self._is_logged_on = False
        self._session.logout()
        self._post(self._on_down, reason or "disconnected")

    def on_admin_message(self, name: SessionName, text: str) -> None:
        """Count the sequence number of a session message."""
        if name != self._order_session:
            return
        parsed = ParsedMessage(text)
        seq = int(parsed.get(tags.MSG_SEQ_NUM, "0"))
        if parsed.kind == LOGON:
            self._logon_seq = seq
        elif parsed.kind == SEQUENCE_RESET:
            fills = parsed.get(tags.GAP_FILL_FLAG) == "Y"
            new_seq = int(parsed.get(tags.NEW_SEQ_NO, "0"))
            if (seq == self._expected_in_seq or not fills) and new_seq > self._expected_in_seq:
                self._expected_in_seq = new_seq
                self._post(self._on_sequence_reset, new_seq)
        else:
            self._count_session_message(seq)

    def _count_session_message(self, seq: int) -> None:
        if seq == self._expected_in_seq:
            self._expected_in_seq += 1
            self._post(self._on_session_message, seq)

    def on_message(self, name: SessionName, text: str) -> None:
        """Handle an application message."""
        parsed = ParsedMessage(text)
        try:
            if name == self._price_session:
                self.feed.apply_message(parsed)
                return
            inbound = (
                decode_business_reject(parsed, self._queries)
                if parsed.kind == "j"
                else self.codec.decode_inbound(parsed)
            )
            inbound = self._complete_report(inbound, parsed)
        except (FixMessageError, ValueError) as problem:
            print(f"holdover: {name[1]} sent what cannot be read: {problem}", file=sys.stderr, flush=True)
            inbound = None
        if name != self._order_session:
            return
        seq = int(parsed.get(tags.MSG_SEQ_NUM, "0"))
        if seq < self._expected_in_seq:
            return
        if seq > self._expected_in_seq:  # the engine skipped the numbers between: it had stored a Logon
            self._post(self._on_sequence_reset, seq)
        self._expected_in_seq = seq + 1
        if inbound is None:
            self._post(self._on_session_message, seq)
        else:
            self._post(self._deliver, seq, parsed, inbound)

    def _complete_report(self, inbound: Inbound | None, parsed: ParsedMessage) -> Inbound | None:
        """Add what a venue need not repeat: the account of a report, today's trade date, and whether it is the
        last report.
        """
        if isinstance(inbound, ExecutionReport) and not inbound.trade_date:
            return msgspec.structs.replace(inbound, trade_date=self.trade_date)
        if isinstance(inbound, PositionReport) and parsed.kind != "j":
            self._position_reports = (
                inbound.req_id,
                self._position_reports[1] + 1 if self._position_reports[0] == inbound.req_id else 1,
            )
            total = parsed.get(tags.TOTAL_NUM_POS_REPORTS, "1")
            last = self._position_reports[1] >= (int(total) if total.isdigit() else 1)
            query = self._queries.get(inbound.req_id)
            account = inbound.account or (query.account if query is not None else "")
            return msgspec.structs.replace(inbound, account=account, last_rpt_requested=last)
        return inbound

    # -- on the desk's thread -------------------------------------------------------------------------------------

    def _on_up(self) -> None:
        if self._listener is not None:
            self._is_up = True
            self._epoch = self._next_epoch()
            self._listener.on_up(self._epoch, self._out_seq + 1)

    def _on_down(self, reason: str) -> None:
        if self._listener is not None:
            self._is_up = False
            self._listener.on_down(reason)

    def _deliver(self, seq: int, parsed: ParsedMessage, message: Inbound) -> None:
        if parsed.kind == "j" and isinstance(message, PositionReport):
            self.on_positions_unsupported()
        else:
            self.on_inbound(message)
        if self._listener is not None:
            self._listener.on_message(seq, parsed.get(tags.POSS_DUP_FLAG) == "Y", message)

    def _on_sequence_reset(self, new_seq: int) -> None:
        if self._listener is not None:
            self._listener.on_sequence_reset(new_seq)

    def _on_session_message(self, seq: int) -> None:
        if self._listener is not None:
            self._listener.on_session_message(seq)
