"""The venue without its wires: the simulated venue over a recorded day, told FIX messages, saying FIX messages.

It is a function of the recording and of what it was told at which event of it. So its state needs no writing down:
`Ledger` keeps what was told, and a venue that was killed plays the day again up to where it was.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.adapters.fix.messages import (
    UNSUPPORTED,
    BadFix,
    Codec,
    Fields,
    Wire,
    business_reject,
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
from holdover.recording import MarketEvent, Recording
from holdover.world import Clock, Venue, VenuePolicy

LEAD_NS: Final = 30_000_000_000
"""How long before the open a venue's clock begins."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (
    number INTEGER PRIMARY KEY, client TEXT NOT NULL, seq TEXT NOT NULL, sent TEXT NOT NULL, came_ns INTEGER NOT NULL,
    text TEXT NOT NULL, time_ns INTEGER, events INTEGER, UNIQUE (client, seq, sent));
CREATE TABLE IF NOT EXISTS handed (client TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
"""


class BadState(ValueError):
    """A state directory that is of another day, other instruments, or none."""


class Told(msgspec.Struct, frozen=True):
    """One message of a client: its number here, who sent it, its text, and where in the day it was taken."""

    number: int
    client: str
    text: str
    time_ns: int | None = None
    events: int | None = None


class Ledger:
    """What was told and how far the day has come, in `venue.db`; each write is synced before it returns.

    `carried` is what the day began with, of the night before it; a state that has it needs not to be told again.
    """

    def __init__(self, directory: Path, what: str = "", carried: bytes = b"") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(directory / "venue.db", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        known, began = self.get("what", what), self._carried()
        if what and known != what:
            raise BadState(f"{directory}: the state is of {known}, not of {what}; give another --state")
        if carried and self.get("what") and began != carried:
            raise BadState(f"{directory}: the state began with another night; give another --state")
        self.carried = carried or began
        if what:
            with self._lock, self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('carried', ?)", (self.carried,))
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('what', ?)", (what,))

    def _carried(self) -> bytes:
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE name='carried'").fetchone()
        return bytes(row[0]) if row else b""

    def get(self, name: str, default: str = "") -> str:
        """A named value."""
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return row[0] if row else default

    def _set(self, name: str, value: str) -> None:
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (name, value))

    def take(self, client: str, text: str) -> Told | None:
        """Write a message down; None for one that is there already, sent again with PossDupFlag."""
        told = Fields(text)
        sent = told.get(122) if told.get(43) == "Y" and told.get(122) else told.get(52)
        with self._lock:
            found = self._db.execute(
                "INSERT OR IGNORE INTO told (client, seq, sent, came_ns, text) VALUES (?,?,?,?,?)",
                (client, told.get(34), sent, time.time_ns(), text),
            )
            return Told(int(found.lastrowid or 0), client, text) if found.rowcount else None

    def all(self) -> list[Told]:
        """Everything told, in its order."""
        with self._lock:
            rows = self._db.execute("SELECT number, client, text, time_ns, events FROM told ORDER BY number")
            return [Told(*row) for row in rows]

    def mark(self, time_ns: int, events: int, taken: Sequence[int], handed: dict[str, int]) -> None:
        """The day has come so far, and these messages were taken there; `handed` are counts that are out."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('mark', ?)", (f"{time_ns} {events}",))
            self._db.executemany(
                "UPDATE told SET time_ns=?, events=? WHERE number=?", [(time_ns, events, one) for one in taken]
            )
            self._db.executemany("INSERT OR REPLACE INTO handed VALUES (?,?)", list(handed.items()))
            self._db.execute("COMMIT")

    def marked(self) -> tuple[int, int]:
        """How far the day has come: time and events; (0, 0) before its begin."""
        time_ns, _, events = self.get("mark", "0 0").partition(" ")
        return int(time_ns), int(events)

    def handed(self) -> dict[str, int]:
        """How many messages of each client are known to be out."""
        with self._lock:
            return dict(self._db.execute("SELECT client, number FROM handed"))

    def base(self, client: str, began: str, handed: int) -> None:
        """The engine's store that began then has nothing of what was handed before; said once for each."""
        if self.based(client, began) is None:
            self._set(f"base/{client}", f"{handed} {began}")

    def based(self, client: str, began: str) -> int | None:
        """How much was handed before the store that began then; None where that is not known."""
        handed, _, known = self.get(f"base/{client}").partition(" ")
        return int(handed) if known == began and began else None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


class Core:
    """The venue, its recorded day and its clients. `out` collects (client, number, message) until it is taken.

    An account belongs to the client that first names it; another's word on it is refused. With a `night` (a venue's
    state after one, and whose its accounts are) the day goes on from it.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        *,
        copies: Sequence[str] = (),
        policy: VenuePolicy | None = None,
        night: tuple[bytes, dict[str, str]] | None = None,
    ) -> None:
        metas = [one.meta for one in recordings]
        self.open_ns, self.close_ns = min(one.open_ns for one in metas), max(one.close_ns for one in metas)
        self.trade_date = metas[0].trade_date
        self.instruments = [one.instrument for one in metas]
        self.clock = Clock(self.open_ns - LEAD_NS)
        self.venue = Venue(self.clock, self.instruments, policy)
        self.codec = Codec(self.instruments)
        self.codec.trade_date = self.trade_date
        self.events = 0
        self.owners: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.out: list[tuple[str, int, Wire]] = []
        self._copies = list(copies)
        self._asked: Query | None = None
        self._total = 1
        self._recordings = list(recordings)
        self._tape = self._market()
        self._next: MarketEvent | None = next(self._tape, None)
        if night is not None:
            self._go_on(*night)
        self.venue.begin(self.trade_date, self.open_ns, self.close_ns)
        self.ended = False

    def _go_on(self, state: bytes, owners: dict[str, str]) -> None:
        """Take up what the night has left; its orders are restated to their owners when the day begins."""
        try:
            self.venue.load(state)
        except (KeyError, msgspec.MsgspecError) as problem:
            told = f"no recording of {problem.args[0]} is here" if isinstance(problem, KeyError) else str(problem)
            raise BadState(f"what the venue carries over the night cannot be taken up: {told}") from problem
        if self.venue.trade_date >= self.trade_date:
            raise BadState(f"the night is that after {self.venue.trade_date}; {self.trade_date} does not come after it")
        self.owners.update(owners)
        for account, client in owners.items():
            self.venue.attach([account], _To(self, client))

    def _market(self) -> Iterator[MarketEvent]:
        # The whole day in one order: a venue that plays it again meets the same event at the same count.
        events: list[MarketEvent] = []
        for number, recording in enumerate(self._recordings):
            events += recording.events(recording.meta.first_ns, self.close_ns, number)
        events.sort(key=lambda event: event[0])
        return iter(events)

    def advance(self, time_ns: int, events: int | None = None) -> None:
        """Let the day run up to a time, or up to exactly so many of its events and then the time."""
        time_ns = max(time_ns, self.clock.now_ns)
        while self._next is not None and (self._next[0] <= time_ns if events is None else self.events < events):
            self.clock.run_until(max(self._next[0], self.clock.now_ns))
            self.events += 1
            event, self._next = self._next, next(self._tape, None)
            self.venue.on_market(event)
        if time_ns >= self.close_ns and not self.ended:
            self.clock.run_until(max(self.close_ns, self.clock.now_ns))
            self.ended = True
            self.venue.end()
        self.clock.run_until(max(time_ns, self.clock.now_ns))

    def take(self, told: Told) -> None:
        """A client's message is taken now. Nothing in it raises: what cannot be taken is answered so."""
        fields = Fields(told.text)
        try:
            if told.client in self._copies:
                raise BadFix(f"{told.client} takes reports and sends nothing")
            message = self.codec.request(fields)
        except BadFix as problem:
            self._refuse(told, fields, problem)
            return
        owner = self.owners.setdefault(message.account, told.client)
        if owner != told.client:
            self._refuse(told, fields, BadFix(f"account {message.account or 'none'} is another client's", 1))
            return
        if message.account not in self.venue._deliver:
            self.venue.attach([message.account], _To(self, owner))
        self._asked = message if isinstance(message, Query) else None
        self._total = max(1, sum(one.account == message.account for one in self.venue.positions.values()))
        try:
            if isinstance(message, Request):
                self._request(told, fields, message)
            else:
                self.venue.receive(message)
        finally:
            self._asked = None

    def _request(self, told: Told, fields: Fields, request: Request) -> None:
        if request.order_qty < 0 or request.order_qty > 2**53 or (request.price or 0) > 2**53:
            self._refuse(told, fields, BadFix("a quantity or price is out of range", 38))
        else:
            self.venue.receive(request)

    def say(self, client: str, message: Inbound) -> None:
        """The venue says something to a client, and of an order to those who have drop copies."""
        wire = self.codec.inbound(message, self._asked, self._total)
        self._put(client, wire)
        told = isinstance(message, ExecutionReport) and message.exec_type != ExecType.ORDER_STATUS
        if told and self._asked is None:
            for copy in self._copies:
                self._put(copy, wire)

    def _put(self, client: str, wire: Wire) -> None:
        number = self.counts[client] = self.counts.get(client, 0) + 1
        self.out.append((client, number, wire))

    def _refuse(self, told: Told, fields: Fields, problem: BadFix) -> None:
        """As a venue does: an order by an ExecutionReport, a change by an OrderCancelReject, the rest by (j)."""
        kind, named, text = fields.kind, fields.get(11), str(problem)
        if kind == MsgType.NEW_ORDER_SINGLE and named:
            wire = Wire(
                "8",
                _filled(
                    (37, "NONE"),
                    (11, named),
                    (17, f"R{told.number}"),
                    (150, ExecType.REJECTED.value),
                    (39, OrdStatus.REJECTED.value),
                    (1, fields.get(1)),
                    (55, fields.get(55)),
                    (54, fields.get(54, "1")),
                    (151, "0"),
                    (14, "0"),
                    (6, "0"),
                    (103, "99"),
                    (58, text),
                ),
            )
        elif kind in (MsgType.ORDER_CANCEL_REQUEST, MsgType.ORDER_CANCEL_REPLACE_REQUEST) and named:
            reject = CancelReject(
                cl_ord_id=named,
                orig_cl_ord_id=fields.get(41),
                ord_status=OrdStatus.REJECTED,
                account=fields.get(1),
                cxl_rej_reason=99,
                cxl_rej_response_to="1" if kind == MsgType.ORDER_CANCEL_REQUEST else "2",
                text=text,
            )
            wire = self.codec.inbound(reject)
        elif kind == "V":
            text = f"market data is told in a session of its own, {told.client}.FEED"
            wire = Wire("Y", [(262, fields.get(262, "NONE")), (281, "8"), (58, text)])
        else:
            wire = business_reject(fields, UNSUPPORTED if problem.tag == 35 else 0, text)
        self._put(told.client, wire)
        if wire.kind == "8":
            for copy in self._copies:
                self._put(copy, wire)


class _To:
    """Who hears what concerns an account; equal for the accounts of one client."""

    def __init__(self, core: Core, client: str) -> None:
        self._core, self._client = core, client

    def __call__(self, message: Inbound) -> None:
        self._core.say(self._client, message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _To) and other._client == self._client

    def __hash__(self) -> int:
        return hash(self._client)


def _filled(*fields: tuple[int, Any]) -> list[tuple[int, Any]]:
    return [field for field in fields if field[1] != ""]


def restored(core: Core, ledger: Ledger) -> list[Told]:
    """Play the day again up to where the ledger says it had come; returns what was told and not taken yet."""
    waiting: list[Told] = []
    for told in ledger.all():
        if told.time_ns is None or told.events is None:
            waiting.append(told)
            continue
        core.advance(told.time_ns, told.events)
        core.take(told)
    time_ns, events = ledger.marked()
    if time_ns:
        core.advance(time_ns, events)
    return waiting
