"""The venue without its connections: the simulated venue over a recorded day, with FIX messages in and out.

Its state is a function of the recording and of each message with the market event at which it was applied, so the state
itself is not stored: `InboundLog` stores the messages, and a venue that was killed replays the day up to the last one.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.adapters.fix.fix_message import (
    FixMessage,
    FixMessageError,
    ParsedMessage,
)
from holdover.adapters.fix.messages import (
    UNSUPPORTED,
    FixCodec,
    make_business_reject,
)
from holdover.model import (
    CancelReject,
    ExecType,
    ExecutionReport,
    Inbound,
    MsgType,
    OrdStatus,
    Query,
    Request,
)
from holdover.model import fix_tags as tags
from holdover.recording import MarketEvent, Recording
from holdover.state import StateError
from holdover.world import Venue, VenuePolicy, VirtualClock

LEAD_NS: Final = 30_000_000_000
"""How long before the open a venue's clock begins."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (
    number INTEGER PRIMARY KEY, client TEXT NOT NULL, seq TEXT NOT NULL, sent TEXT NOT NULL, came_ns INTEGER NOT NULL,
    text TEXT NOT NULL, time_ns INTEGER, events INTEGER, UNIQUE (client, seq, sent));
CREATE TABLE IF NOT EXISTS handed (client TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
"""


class VenueStateError(ValueError):
    """The state directory is of another day or other instruments, or has no state."""


class ClientMessage(msgspec.Struct, frozen=True):
    """One message of a client: its number, the client, its text, and the time and event count at which it was
    applied.
    """

    number: int
    client: str
    text: str
    time_ns: int | None = None
    events: int | None = None


class InboundLog:
    """The client messages and the progress of the day, in `venue.db`; each write is synced before it returns.

    `carried_state` is the end-of-day state that the day started from; a directory that has it needs it only once.
    Raises `VenueStateError` when the directory is of another day or started from another state.
    """

    def __init__(self, directory: Path, identity: str = "", carried_state: bytes = b"") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(directory / "venue.db", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        stored_identity, stored_state = self.get_value("what", identity), self._load_carried_state()
        if identity and stored_identity != identity:
            raise VenueStateError(
                f"{directory}: the state is of {stored_identity}, not of {identity}; give another --state"
            )
        if carried_state and self.get_value("what") and stored_state != carried_state:
            raise VenueStateError(f"{directory}: the state began with another night; give another --state")
        self.carried_state = carried_state or stored_state
        if identity:
            with self._lock, self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('carried', ?)", (self.carried_state,))
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('what', ?)", (identity,))

    def _load_carried_state(self) -> bytes:
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE name='carried'").fetchone()
        return bytes(row[0]) if row else b""

    def get_value(self, name: str, default: str = "") -> str:
        """Returns a named value."""
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return row[0] if row else default

    def _set_value(self, name: str, value: str) -> None:
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (name, value))

    def append_message(self, client: str, text: str) -> ClientMessage | None:
        """Store a message. Returns None when it is stored already and was resent with PossDupFlag."""
        message = ParsedMessage(text)
        sending_time = (
            message.get(tags.ORIG_SENDING_TIME)
            if message.get(tags.POSS_DUP_FLAG) == "Y" and message.get(tags.ORIG_SENDING_TIME)
            else message.get(tags.SENDING_TIME)
        )
        with self._lock:
            cursor = self._db.execute(
                "INSERT OR IGNORE INTO told (client, seq, sent, came_ns, text) VALUES (?,?,?,?,?)",
                (client, message.get(tags.MSG_SEQ_NUM), sending_time, time.time_ns(), text),
            )
            return ClientMessage(int(cursor.lastrowid or 0), client, text) if cursor.rowcount else None

    def load_messages(self) -> list[ClientMessage]:
        """Returns every message, in order."""
        with self._lock:
            rows = self._db.execute("SELECT number, client, text, time_ns, events FROM told ORDER BY number")
            return [ClientMessage(*row) for row in rows]

    def save_progress(self, time_ns: int, events: int, numbers: Sequence[int], sent_counts: dict[str, int]) -> None:
        """Store the progress of the day, the messages applied at this point, and the counts of sent messages per
        client.
        """
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('mark', ?)", (f"{time_ns} {events}",))
            self._db.executemany(
                "UPDATE told SET time_ns=?, events=? WHERE number=?", [(time_ns, events, number) for number in numbers]
            )
            self._db.executemany("INSERT OR REPLACE INTO handed VALUES (?,?)", list(sent_counts.items()))
            self._db.execute("COMMIT")

    def load_progress(self) -> tuple[int, int]:
        """Returns the progress of the day: time (ns) and event count; (0, 0) before its start."""
        time_ns, _, events = self.get_value("mark", "0 0").partition(" ")
        return int(time_ns), int(events)

    def sent_counts(self) -> dict[str, int]:
        """Returns how many messages of each client are known to be sent."""
        with self._lock:
            return dict(self._db.execute("SELECT client, number FROM handed"))

    def save_base(self, client: str, store_start: str, sent_count: int) -> None:
        """Store how many messages had been sent when the engine's store was created; done once per store."""
        if self.load_base(client, store_start) is None:
            self._set_value(f"base/{client}", f"{sent_count} {store_start}")

    def load_base(self, client: str, store_start: str) -> int | None:
        """Returns how many messages had been sent before that store was created; None when unknown."""
        sent_count, _, stored_start = self.get_value(f"base/{client}").partition(" ")
        return int(sent_count) if stored_start == store_start and store_start else None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


class VenueEngine:
    """The venue, its recorded day and its clients. `outgoing` collects (client, number, message) until they are sent.

    An account belongs to the client that first names it; messages about it from other clients are rejected. With
    `end_of_day` (a venue's end-of-day state and the owners of its accounts) the day continues from that state. Raises
    `VenueStateError` when that state does not fit.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        *,
        copies: Sequence[str] = (),
        policy: VenuePolicy | None = None,
        end_of_day: tuple[bytes, dict[str, str]] | None = None,
    ) -> None:
        metas = [recording.meta for recording in recordings]
        self.open_ns, self.close_ns = min(meta.open_ns for meta in metas), max(one.close_ns for one in metas)
        self.trade_date = metas[0].trade_date
        self.instruments = [meta.instrument for meta in metas]
        self.clock = VirtualClock(self.open_ns - LEAD_NS)
        self.venue = Venue(self.clock, self.instruments, policy)
        self.codec = FixCodec(self.instruments)
        self.codec.trade_date = self.trade_date
        self.events = 0
        self.owners: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.outgoing: list[tuple[str, int, FixMessage]] = []
        self._copies = list(copies)
        self._query: Query | None = None
        self._position_count = 1
        self._recordings = list(recordings)
        self._tape = self._market_events()
        self._next_event: MarketEvent | None = next(self._tape, None)
        if end_of_day is not None:
            self._restore_end_of_day(*end_of_day)
        self.venue.begin(self.trade_date, self.open_ns, self.close_ns)
        self.is_ended = False

    def _restore_end_of_day(self, state: bytes, owners: dict[str, str]) -> None:
        """Load the end-of-day state; its orders are restated to their owners when the day begins."""
        try:
            self.venue.restore_bytes(state)
        except StateError as problem:
            raise VenueStateError(f"the venue's end-of-day state cannot be restored: {problem}") from problem
        if self.venue.trade_date >= self.trade_date:
            raise VenueStateError(
                f"the night is that after {self.venue.trade_date}; {self.trade_date} does not come after it"
            )
        self.owners.update(owners)
        for account, client in owners.items():
            self.venue.attach([account], _ClientRecipient(self, client))

    def _market_events(self) -> Iterator[MarketEvent]:
        # The whole day in one order: a replaying venue meets the same event at the same count.
        events: list[MarketEvent] = []
        for number, recording in enumerate(self._recordings):
            events += recording.events(recording.meta.first_ns, self.close_ns, number)
        events.sort(key=lambda event: event[0])
        return iter(events)

    def advance(self, time_ns: int, events: int | None = None) -> None:
        """Run the day up to a time, or through exactly `events` events and then to the time."""
        time_ns = max(time_ns, self.clock.now_ns)
        while self._next_event is not None and (
            self._next_event[0] <= time_ns if events is None else self.events < events
        ):
            self.clock.run_until(max(self._next_event[0], self.clock.now_ns))
            self.events += 1
            event, self._next_event = self._next_event, next(self._tape, None)
            self.venue.on_market(event)
        if time_ns >= self.close_ns and not self.is_ended:
            self.clock.run_until(max(self.close_ns, self.clock.now_ns))
            self.is_ended = True
            self.venue.end()
        self.clock.run_until(max(time_ns, self.clock.now_ns))

    def apply_message(self, client_message: ClientMessage) -> None:
        """Apply a client's message now. It never raises: a message that cannot be applied gets a reject."""
        fields = ParsedMessage(client_message.text)
        try:
            if client_message.client in self._copies:
                raise FixMessageError(f"{client_message.client} takes reports and sends nothing")
            message = self.codec.decode_request(fields)
        except FixMessageError as problem:
            self._reject_message(client_message, fields, problem)
            return
        owner = self.owners.setdefault(message.account, client_message.client)
        if owner != client_message.client:
            self._reject_message(
                client_message,
                fields,
                FixMessageError(f"account {message.account or 'none'} is another client's", tags.ACCOUNT),
            )
            return
        if message.account not in self.venue.reports.receivers:
            self.venue.attach([message.account], _ClientRecipient(self, owner))
        self._query = message if isinstance(message, Query) else None
        self._position_count = max(
            1, sum(position.account == message.account for position in self.venue.positions.values())
        )
        try:
            if isinstance(message, Request):
                self._apply_request(client_message, fields, message)
            else:
                self.venue.receive(message)
        finally:
            self._query = None

    def _apply_request(self, client_message: ClientMessage, fields: ParsedMessage, request: Request) -> None:
        if request.order_qty < 0 or request.order_qty > 2**53 or (request.price or 0) > 2**53:
            self._reject_message(
                client_message, fields, FixMessageError("a quantity or price is out of range", tags.ORDER_QTY)
            )
        else:
            self.venue.receive(request)

    def send_to_client(self, client: str, message: Inbound) -> None:
        """Send a venue message to a client; messages about an order also go to the drop copies."""
        wire = self.codec.encode_inbound(message, self._query, self._position_count)
        self._enqueue(client, wire)
        is_copied = isinstance(message, ExecutionReport) and message.exec_type != ExecType.ORDER_STATUS
        if is_copied and self._query is None:
            for copy in self._copies:
                self._enqueue(copy, wire)

    def _enqueue(self, client: str, wire: FixMessage) -> None:
        number = self.counts[client] = self.counts.get(client, 0) + 1
        self.outgoing.append((client, number, wire))

    def _reject_message(self, client_message: ClientMessage, fields: ParsedMessage, problem: FixMessageError) -> None:
        """Reject as a venue does: an order by ExecutionReport, a change by OrderCancelReject, anything else by (j)."""
        kind, cl_ord_id, text = fields.kind, fields.get(tags.CL_ORD_ID), str(problem)
        if kind == MsgType.NEW_ORDER_SINGLE and cl_ord_id:
            wire = FixMessage(
                "8",
                _non_empty(
                    (tags.ORDER_ID, "NONE"),
                    (tags.CL_ORD_ID, cl_ord_id),
                    (tags.EXEC_ID, f"R{client_message.number}"),
                    (tags.EXEC_TYPE, ExecType.REJECTED.value),
                    (tags.ORD_STATUS, OrdStatus.REJECTED.value),
                    (tags.ACCOUNT, fields.get(tags.ACCOUNT)),
                    (tags.SYMBOL, fields.get(tags.SYMBOL)),
                    (tags.SIDE, fields.get(tags.SIDE, "1")),
                    (tags.LEAVES_QTY, "0"),
                    (tags.CUM_QTY, "0"),
                    (tags.AVG_PX, "0"),
                    (tags.ORD_REJ_REASON, "99"),
                    (tags.TEXT, text),
                ),
            )
        elif kind in (MsgType.ORDER_CANCEL_REQUEST, MsgType.ORDER_CANCEL_REPLACE_REQUEST) and cl_ord_id:
            reject = CancelReject(
                cl_ord_id=cl_ord_id,
                orig_cl_ord_id=fields.get(tags.ORIG_CL_ORD_ID),
                ord_status=OrdStatus.REJECTED,
                account=fields.get(tags.ACCOUNT),
                cxl_rej_reason=99,
                cxl_rej_response_to="1" if kind == MsgType.ORDER_CANCEL_REQUEST else "2",
                text=text,
            )
            wire = self.codec.encode_inbound(reject)
        elif kind == "V":
            text = f"market data is told in a session of its own, {client_message.client}.FEED"
            wire = FixMessage(
                "Y",
                [
                    (tags.MD_REQ_ID, fields.get(tags.MD_REQ_ID, "NONE")),
                    (tags.MD_REQ_REJ_REASON, "8"),
                    (tags.TEXT, text),
                ],
            )
        else:
            wire = make_business_reject(fields, UNSUPPORTED if problem.tag == 35 else 0, text)
        self._enqueue(client_message.client, wire)
        if wire.kind == "8":
            for copy in self._copies:
                self._enqueue(copy, wire)


class _ClientRecipient:
    """Sends the messages of an account to its client; equal for the accounts of one client."""

    def __init__(self, core: VenueEngine, client: str) -> None:
        self._core, self._client = core, client

    def __call__(self, message: Inbound) -> None:
        self._core.send_to_client(self._client, message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ClientRecipient) and other._client == self._client

    def __hash__(self) -> int:
        return hash(self._client)


def _non_empty(*fields: tuple[int, Any]) -> list[tuple[int, Any]]:
    return [field for field in fields if field[1] != ""]


def replay_log(core: VenueEngine, ledger: InboundLog) -> list[ClientMessage]:
    """Replay the day up to the stored progress. Returns the messages that were stored and not applied yet."""
    unapplied: list[ClientMessage] = []
    for message in ledger.load_messages():
        if message.time_ns is None or message.events is None:
            unapplied.append(message)
            continue
        core.advance(message.time_ns, message.events)
        core.apply_message(message)
    time_ns, events = ledger.load_progress()
    if time_ns:
        core.advance(time_ns, events)
    return unapplied
