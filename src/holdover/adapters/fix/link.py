"""The desk's link to a venue behind FIX 4.4, and its feed: two sessions of one engine.

The desk's store is the truth of what it has heard: at each logon the engine is told to expect the number after it, so
that a message is applied once whatever died in between. Numbers of session messages are counted as they come. What the
desk has sent is never sent again by the engine (it fills the gap): what became of it is asked for, not guessed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdover.adapters.fix.messages import (
    BID,
    OFFER,
    TRADE,
    VOLUME,
    BadFix,
    Codec,
    Fields,
    entries,
    market_data_request,
    unanswered,
)
from holdover.adapters.fix.session import BEGIN, Heard, Name, NoEngine, SessionSetting, application, engine, settings
from holdover.adapters.fix.tap import MarketHeard
from holdover.desk.outside import UNDEF_PRICE, Listener
from holdover.model import ExecutionReport, Inbound, Instrument, Outbound, PositionReport, Query, SecurityStatus

Post = Callable[..., None]
"""Has a function called with arguments on the desk's own thread."""


class LiveTop(msgspec.Struct, kw_only=True):
    """The market of one instrument as the feed last told it; a new one for each change."""

    bid_px: int = UNDEF_PRICE
    ask_px: int = UNDEF_PRICE
    bid_sz: int = 0
    ask_sz: int = 0
    last_px: int = 0
    traded_qty: int = 0
    trading: bool = True
    reason: str = "open"
    reference_version: str = ""


class Feed:
    """The feed handler. While its session is down no side has a price: nothing is decided by old ones."""

    def __init__(self, instruments: Sequence[Instrument], codec: Codec) -> None:
        self.symbols = [one.symbol for one in instruments]
        self._codec = codec
        self._tops = {symbol: LiveTop() for symbol in self.symbols}
        self._heard: set[str] = set()
        self.on_time: Callable[[int], None] = lambda time_ns: None
        self.on_status: Callable[[SecurityStatus], None] = lambda status: None
        self.on_heard: Callable[[MarketHeard], None] | None = None
        self._time_ns = 0

    @property
    def there(self) -> bool:
        """Whether every instrument has been heard of."""
        return len(self._heard) == len(self.symbols)

    def top(self, symbol: str) -> LiveTop:
        """The market of one instrument. Raises `KeyError` for a stranger."""
        return self._tops[symbol]

    def lost(self) -> None:
        """The session is down."""
        blank = {"bid_px": UNDEF_PRICE, "ask_px": UNDEF_PRICE, "bid_sz": 0, "ask_sz": 0}
        self._tops = {symbol: msgspec.structs.replace(top, **blank) for symbol, top in self._tops.items()}

    def take(self, told: Fields) -> None:
        """A message of the feed. Raises `BadFix`."""
        if told.kind == "f":
            status = self._codec.said(told)
            if isinstance(status, SecurityStatus) and status.symbol in self._tops:
                self._change(
                    status.symbol,
                    trading=status.trading,
                    reason=status.reason,
                    reference_version=status.reference_version,
                )
                self.on_status(status)
                self._tell(status.symbol, status="open" if status.trading else status.reason)
            return
        time_ns = 0
        symbols: dict[str, None] = {}
        for entry in entries(told):
            if entry.symbol not in self._tops:
                continue
            time_ns = max(time_ns, entry.time_ns)
            one = self._codec.instrument(entry.symbol)
            price = one.ticks(entry.price) if entry.price else None
            size = one.lots(entry.size) if entry.size else 0
            if entry.kind == BID:
                self._change(entry.symbol, bid_px=UNDEF_PRICE if price is None else price, bid_sz=size)
            elif entry.kind == OFFER:
                self._change(entry.symbol, ask_px=UNDEF_PRICE if price is None else price, ask_sz=size)
            elif entry.kind == TRADE and price is not None:
                self._change(entry.symbol, last_px=price)
            elif entry.kind == VOLUME:
                self._change(entry.symbol, traded_qty=size)
            self._heard.add(entry.symbol)
            symbols[entry.symbol] = None
        if time_ns:
            self._time_ns = time_ns
            self.on_time(time_ns)
        for symbol in symbols:
            self._tell(symbol)

    def _tell(self, symbol: str, status: str = "") -> None:
        """Whoever records the feed hears what stands now."""
        if self.on_heard is not None and self._time_ns:
            top = self._tops[symbol]
            quote = (top.bid_px, top.bid_sz, top.ask_px, top.ask_sz)
            self.on_heard(MarketHeard(self._time_ns, symbol, *quote, top.last_px, top.traded_qty, status))

    def _change(self, symbol: str, **fields: Any) -> None:
        self._tops[symbol] = msgspec.structs.replace(self._tops[symbol], **fields)


class FixAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to call and as whom."""

    host: str
    port: int
    sender: str
    target: str
    feed_sender: str = ""
    heartbeat_s: int = 30
    username: str = ""
    password: str = ""


class FixLink(Heard):
    """Our end of the session for orders, as a desk wants it; the session of the feed runs beside it.

    `post` brings what the engine says onto the desk's thread; `next_epoch` numbers the times that the link has come up,
    over every life of the desk. `on_said` hears each message before the desk, `on_untold` that positions are not told.
    """

    def __init__(
        self, address: FixAddress, directory: Path, codec: Codec, feed: Feed, post: Post, next_epoch: Callable[[], int]
    ) -> None:
        quickfix = engine()
        self.address, self.codec, self.feed = address, codec, feed
        self._post, self._next_epoch = post, next_epoch
        self._trade: Name = (address.sender, address.target)
        self._prices: Name = (address.feed_sender or f"{address.sender}.FEED", address.target)
        self.trade_date = ""
        self.now_ns: Callable[[], int] = lambda: 0
        self.on_said: Callable[[Inbound], None] = lambda message: None
        self.on_untold: Callable[[], None] = lambda: None
        self._listener: Listener | None = None
        self._up = False
        self._on = False
        self._epoch = 0
        self._out_seq = 0
        self._expected = 1
        self._logon_seq = 0
        self._asked: dict[str, Query] = {}
        self._counted = ("", 0)
        # An order that was lost on its way may have been forgotten, or sent anew, since: the engine keeps none, and
        # fills the gap when it is asked to send again. Old prices are of no use: the feed's numbers begin anew.
        once, anew = {"PersistMessages": "N"}, {"PersistMessages": "N", "ResetOnLogon": "Y"}
        given = settings(
            [
                SessionSetting(sender=name[0], target=name[1], host=address.host, port=address.port, more=more)
                for name, more in ((self._trade, once), (self._prices, anew))
            ],
            directory,
            heartbeat_s=address.heartbeat_s,
        )
        self._application = application(self)
        self._stores = quickfix.FileStoreFactory(given)
        try:
            self._engine: Any = quickfix.SocketInitiator(self._application, self._stores, given)
        except (quickfix.ConfigError, quickfix.RuntimeError) as problem:
            raise NoEngine(f"the FIX engine does not start: {problem}") from problem
        self._ids = {name: quickfix.SessionID(BEGIN, *name) for name in (self._trade, self._prices)}
        self._session = quickfix.Session.lookupSession(self._ids[self._trade])
        self._send = quickfix.Session.sendToTarget
        self._session.logout()  # not before the desk has said from where on

    def start(self) -> None:
        """Call the feed; the session for orders waits for `connect`."""
        self._engine.start()

    def stop(self) -> None:
        """Log out of both and let go of the engine."""
        self._engine.stop()

    # -- what a desk calls, on its own thread ---------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether messages can be sent."""
        return self._up and self._on

    @property
    def epoch(self) -> int:
        """How often the link has come up, over every life."""
        return self._epoch

    def listen(self, listener: Listener) -> None:
        """Who hears what arrives."""
        self._listener = listener

    def connect(self, next_in_seq: int, next_out_seq: int) -> None:
        """Log on, and have everything from `next_in_seq` on.

        An engine that has begun its store anew, as it does with the date, begins the session anew: so does the venue.
        """
        if next_in_seq > 1 and self._session.getExpectedSenderNum() == 1:
            next_in_seq = next_out_seq = 1
            self._to_listener("on_sequence_reset", 1)
        self._out_seq = next_out_seq - 1
        self._expected = next_in_seq
        self._session.setNextTargetMsgSeqNum(next_in_seq)
        self._session.logon()

    def send(self, message: Outbound) -> int:
        """Send; returns how many application messages have been sent. Raises `ConnectionError` when it is down."""
        if not self.up or not self._session.isLoggedOn():
            raise ConnectionError(f"{self.address.target} is down: {message.key} cannot be sent")
        if isinstance(message, Query):
            self._asked[message.req_id] = message
            while len(self._asked) > 1000:
                self._asked.pop(next(iter(self._asked)))
        wire = self.codec.outbound(message, now_ns=self.now_ns(), trade_date=self.trade_date)
        self._send(wire.message(), self._ids[self._trade])
        self._out_seq += 1
        return self._out_seq

    def resend(self, begin_seq: int) -> None:
        """Nothing: the engine has asked already for what is missing, and gives it in its order."""

    def disconnect(self) -> None:
        """Log out."""
        self._session.logout()

    # -- what the engine calls, on its thread ---------------------------------------------------------------------

    def logging_on(self, name: Name, message: Any) -> None:
        """User and password."""
        if self.address.username:
            message.setField(553, self.address.username)
        if self.address.password:
            message.setField(554, self.address.password)

    def logged_on(self, name: Name) -> None:
        """A session is up."""
        if name == self._prices:
            self._send(market_data_request("FEED", self.feed.symbols).message(), self._ids[name])
            return
        self._on = True
        self._post(self._came_up)
        self._session_message(self._logon_seq)

    def logged_out(self, name: Name, reason: str) -> None:
        """A session is down; the one for orders stays so until the desk asks."""
        if name == self._prices:
            self.feed.lost()
            return
        self._on = False
        self._session.logout()
        self._post(self._went_down, reason or "disconnected")

    def admin(self, name: Name, text: str) -> None:
        """A message of the session: its number is counted where it is the next."""
        if name != self._trade:
            return
        told = Fields(text)
        seq = int(told.get(34, "0"))
        if told.kind == "A":
            self._logon_seq = seq
        elif told.kind == "4":
            fills = told.get(123) == "Y"
            new_seq = int(told.get(36, "0"))
            if (seq == self._expected or not fills) and new_seq > self._expected:
                self._expected = new_seq
                self._post(self._to_listener, "on_sequence_reset", new_seq)
        else:
            self._session_message(seq)

    def _session_message(self, seq: int) -> None:
        if seq == self._expected:
            self._expected += 1
            self._post(self._to_listener, "on_session_message", seq)

    def message(self, name: Name, text: str) -> None:
        """An application message."""
        told = Fields(text)
        try:
            if name == self._prices:
                self.feed.take(told)
                return
            said = unanswered(told, self._asked) if told.kind == "j" else self.codec.said(told)
            said = self._completed(said, told)
        except (BadFix, ValueError) as problem:
            print(f"holdover: {name[1]} sent what cannot be read: {problem}", file=sys.stderr, flush=True)
            said = None
        if name != self._trade:
            return
        seq = int(told.get(34, "0"))
        if seq < self._expected:
            return
        if seq > self._expected:  # the engine has passed over what lies between: a Logon that it had kept
            self._post(self._to_listener, "on_sequence_reset", seq)
        self._expected = seq + 1
        if said is None:
            self._post(self._to_listener, "on_session_message", seq)
        else:
            self._post(self._said, seq, told, said)

    def _completed(self, said: Inbound | None, told: Fields) -> Inbound | None:
        """What a venue need not repeat: the account of a report, the trade date of today; and which one is the last."""
        if isinstance(said, ExecutionReport) and not said.trade_date:
            return msgspec.structs.replace(said, trade_date=self.trade_date)
        if isinstance(said, PositionReport) and told.kind != "j":
            self._counted = (said.req_id, self._counted[1] + 1 if self._counted[0] == said.req_id else 1)
            total = told.get(727, "1")
            last = self._counted[1] >= (int(total) if total.isdigit() else 1)
            query = self._asked.get(said.req_id)
            account = said.account or (query.account if query is not None else "")
            return msgspec.structs.replace(said, account=account, last_rpt_requested=last)
        return said

    # -- on the desk's thread -------------------------------------------------------------------------------------

    def _came_up(self) -> None:
        if self._listener is not None:
            self._up = True
            self._epoch = self._next_epoch()
            self._listener.on_up(self._epoch, self._out_seq + 1)

    def _went_down(self, reason: str) -> None:
        if self._listener is not None:
            self._up = False
            self._listener.on_down(reason)

    def _said(self, seq: int, told: Fields, message: Inbound) -> None:
        if told.kind == "j" and isinstance(message, PositionReport):
            self.on_untold()
        else:
            self.on_said(message)
        self._to_listener("on_message", seq, told.get(43) == "Y", message)

    def _to_listener(self, what: str, *told: Any) -> None:
        if self._listener is not None:
            getattr(self._listener, what)(*told)
