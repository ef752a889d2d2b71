"""The candidate's orders against the incumbent's, one by one, from two journals or FIX logs.

Both are read once, as streams. The last state of each order goes to a table in a temporary file, and the two tables are
merged from there: memory does not grow with the orders. Orders meet by the ClOrdID with which their chain began, or,
where the two systems give IDs of their own, as the n-th order of one account, symbol and side.

The noise floor is measured and not guessed: two copies of the candidate on the same input are compared in the same way,
and where those differ in a field of an order, the incumbent may differ there, too.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal

import msgspec

from holdover.audit.framing import Framing
from holdover.shadow.config import Explained
from holdover.shadow.state import Compared, Differs

FIELDS: Final = (
    "account",
    "symbol",
    "side",
    "order_qty",
    "price",
    "ord_type",
    "time_in_force",
    "ord_status",
    "cum_qty",
    "leaves_qty",
    "notional",
)
"""What is compared of an order, in the order in which a difference is told."""

Value = str | int | None
Match = Literal["id", "sequence"]
_AT_ONCE: Final = 50_000
_FIRST: Final = 50
_TAGS: Final = {
    b"1": "account",
    b"55": "symbol",
    b"54": "side",
    b"38": "order_qty",
    b"44": "price",
    b"40": "ord_type",
    b"59": "time_in_force",
    b"39": "ord_status",
    b"14": "cum_qty",
    b"151": "leaves_qty",
}
_OVER: Final = frozenset("2348C")


class BadComparison(ValueError):
    """Two logs that cannot be compared; the message says which and why."""


class _Order(msgspec.Struct, kw_only=True, gc=False):
    root_cl_ord_id: str
    symbol: str = ""
    side: str = ""
    order_qty: int = 0
    leaves_qty: int = 0
    cum_qty: int = 0
    notional: int = 0
    ord_status: str = "A"
    account: str = ""
    ord_type: str = "2"
    time_in_force: str = "0"
    price: int | None = None


class _Line(msgspec.Struct, kw_only=True, gc=False):
    time_ns: int = 0
    subsystem: str = ""
    kind: str = ""
    record: _Order | None = None


Told = tuple[str, Sequence[Value], int]
"""An order's ClOrdID, its fields as `FIELDS` names them, and when that was (ns; 0 where a log does not say)."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders are compared, in ns of the logs' time; 0 is no bound.

    An order that either log had before `since_ns` is left out, and so is one that moved after `until_ns`: the other
    log may not have heard of it yet.
    """

    since_ns: int = 0
    until_ns: int = 0


def orders_of(path: Path) -> Iterator[Told]:
    """Every state of every order in a journal or a FIX log, as they come. Raises `BadComparison`."""
    try:
        with open(path, "rb") as file:
            first = file.read(1)
            file.seek(0)
            yield from _of_journal(path, file) if first == b"{" else _of_fix(file)
    except OSError as problem:
        raise BadComparison(f"{path}: cannot be read: {problem.strerror}") from problem


def _of_journal(path: Path, lines: Iterable[bytes]) -> Iterator[Told]:
    decode = msgspec.json.Decoder(_Line).decode
    for number, line in enumerate(lines, 1):
        if b'"subsystem":"orders","kind":"Order"' not in line:
            continue
        try:
            told = decode(line)
        except msgspec.MsgspecError as problem:
            if not line.endswith(b"\n"):
                return  # cut off by a kill
            raise BadComparison(f"{path.name}: line {number} is no journal line: {problem}") from problem
        if (one := told.record) is not None:
            yield one.root_cl_ord_id, [getattr(one, name) for name in FIELDS], told.time_ns


def _of_fix(lines: Iterable[bytes]) -> Iterator[Told]:
    """By the fields of NewOrderSingle, its replaces and ExecutionReports; values as they are written."""
    framing = Framing()
    roots: dict[str, str] = {}
    known: dict[str, dict[str, Value]] = {}
    for line in lines:
        for message in framing.take(line):
            if isinstance(message, str):
                continue
            kind, name, orig = (message.get(tag, b"").decode("latin-1") for tag in (b"35", b"11", b"41"))
            if kind not in ("D", "G", "8") or not name:
                continue
            root = roots.get(orig, orig) or name
            root = roots.setdefault(name, roots.get(root, root))
            one = known.setdefault(root, dict.fromkeys(FIELDS))
            if kind != "G":  # what a replace asks for stands when a report says so
                one.update({_TAGS[tag]: value.decode("latin-1") for tag, value in message.items() if tag in _TAGS})
                yield root, [one[field] for field in FIELDS], 0
                if one["ord_status"] in _OVER:
                    del known[root]  # a later report says all of it again


class _Tables:
    """The last state of every order of up to three logs, in a temporary file."""

    def __init__(self, window: Window) -> None:
        self.early: set[str] = set()
        self.moving: set[str] = set()
        self._window = window
        self._connection = sqlite3.connect("", isolation_level=None)  # a file of its own that SQLite removes
        self._connection.execute("PRAGMA journal_mode=OFF")
        self._connection.execute("PRAGMA cache_size=-65536")

    def fill(self, name: str, orders: Iterable[Told], match: Match) -> int:
        """Take up a log; how many orders it has."""
        self._connection.execute(f"CREATE TABLE {name} (key TEXT PRIMARY KEY, id TEXT, body BLOB) WITHOUT ROWID")
        if match == "sequence":
            self._connection.execute(f"CREATE TABLE {name}_key (id TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID")
        encode = msgspec.msgpack.Encoder().encode
        waiting: dict[str, tuple[str, bytes]] = {}
        counts: Counter[str] = Counter()
        fresh: dict[str, str] = {}
        early: set[str] = set()
        for order, fields, time_ns in orders:
            if time_ns < self._window.since_ns and time_ns:
                early.add(order)
            if order in early:
                continue
            key = order
            if match == "sequence":
                key = fresh.get(order) or self._key(name, order)
                if not key:
                    group = f"{fields[0]}/{fields[1]}/{fields[2]}"
                    counts[group] += 1
                    key = fresh[order] = f"{group} #{counts[group]}"
            waiting[key] = (order, encode(fields))
            if 0 < self._window.until_ns < time_ns:
                self.moving.add(key)
            if len(waiting) >= _AT_ONCE:
                self._flush(name, waiting, fresh)
        self._flush(name, waiting, fresh)
        if match == "id":
            self.early |= early
        return int(self._connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0])

    def _key(self, name: str, order: str) -> str:
        found = self._connection.execute(f"SELECT key FROM {name}_key WHERE id=?", (order,)).fetchone()
        return str(found[0]) if found else ""

    def _flush(self, name: str, waiting: dict[str, tuple[str, bytes]], fresh: dict[str, str]) -> None:
        self._connection.execute("BEGIN")
        rows = [(key, order, body) for key, (order, body) in waiting.items()]
        self._connection.executemany(f"INSERT OR REPLACE INTO {name} VALUES (?,?,?)", rows)
        if fresh:
            self._connection.executemany(f"INSERT INTO {name}_key VALUES (?,?)", list(fresh.items()))
        self._connection.execute("COMMIT")
        waiting.clear()
        fresh.clear()

    def both(self, one: str, other: str) -> Iterator[tuple[str, bytes | None, bytes | None]]:
        """(ClOrdID, fields of `one`, fields of `other`) of every order of either, None where one has it not."""
        out = self.early | self.moving
        for key, order, first, second in self._connection.execute(
            f"SELECT a.key, a.id, a.body, b.body FROM {one} a LEFT JOIN {other} b ON b.key = a.key "
            f"UNION ALL SELECT b.key, b.id, NULL, b.body FROM {other} b WHERE b.key NOT IN (SELECT key FROM {one})"
        ):
            if key not in out:
                yield order, first, second

    def close(self) -> None:
        """Remove it."""
        self._connection.close()


def compare(
    candidate: Path | Iterable[Told],
    incumbent: Path | Iterable[Told],
    *,
    tolerance: Mapping[str, int] | None = None,
    explained: Sequence[Explained] = (),
    noise: Path | Iterable[Told] | None = None,
    match: Match = "id",
    window: Window | None = None,
) -> Compared:
    """Order by order. `noise` is a second copy of the candidate on the same input. Raises `BadComparison`."""
    unknown = [name for name in tolerance or {} if name not in FIELDS]
    if unknown:
        raise BadComparison(f"no field of an order is called {', '.join(unknown)}; there are {', '.join(FIELDS)}")
    tables = _Tables(window or Window())
    try:
        sources = {"candidate": candidate, "incumbent": incumbent, **({"copy": noise} if noise is not None else {})}
        counts = {
            name: tables.fill(name, orders_of(source) if isinstance(source, Path) else source, match)
            for name, source in sources.items()
        }
        noisy: dict[str, set[str]] = {}
        if noise is not None:
            for order, one, other in tables.both("candidate", "copy"):
                fields = _differing(_fields(one), _fields(other), tolerance or {})
                if fields:
                    noisy[order] = set(fields)
        tally = _Tally(explained, noisy)
        for order, one, other in tables.both("candidate", "incumbent"):
            tally.add(order, _fields(one), _fields(other), tolerance or {})
    finally:
        tables.close()
    share = len(noisy) / max(counts["candidate"], counts.get("copy", 0), 1) if noise is not None else None
    return tally.compared(share, counts.get("copy", 0), len(tables.moving))


def _fields(body: bytes | None) -> list[Value] | None:
    return None if body is None else msgspec.msgpack.decode(body, type=list[Value])


def _differing(one: list[Value] | None, other: list[Value] | None, tolerance: Mapping[str, int]) -> list[str]:
    """The fields in which two states differ past the tolerance; `order` alone where one is not there."""
    if one is None or other is None:
        return ["order"]
    return [
        name
        for name, first, second in zip(FIELDS, one, other, strict=True)
        if first != second and not _within(first, second, tolerance.get(name, 0))
    ]


def _within(first: Value, second: Value, most: int) -> bool:
    if first is None or second is None:
        return False
    try:
        return abs(float(first) - float(second)) <= most
    except ValueError:
        return False


class _Tally:
    """What a comparison comes to."""

    def __init__(self, explained: Sequence[Explained], noisy: Mapping[str, set[str]]) -> None:
        self._explained, self._noisy = explained, noisy
        self._orders = self._same = self._unexplained = self._only_one = self._only_other = 0
        self._fields: Counter[str] = Counter()
        self._first: list[Differs] = []

    def add(self, order: str, one: list[Value] | None, other: list[Value] | None, tolerance: Mapping[str, int]) -> None:
        """One order more."""
        self._orders += 1
        fields = _differing(one, other, tolerance)
        if not fields:
            self._same += 1
            return
        self._only_one += other is None
        self._only_other += one is None
        self._fields.update(fields)
        reason = next((it.reason for it in self._explained if fnmatchcase(order, it.order)), "")
        if not reason and set(fields) <= self._noisy.get(order, set()):
            reason = "the candidate differs there from its own copy"
        self._unexplained += not reason
        if len(self._first) < _FIRST:
            place = FIELDS.index(fields[0]) if one is not None and other is not None else -1
            said = [str(told[place]) if told is not None and place >= 0 else "no such order" for told in (one, other)]
            if place < 0:
                said = ["there" if one is not None else "not there", "there" if other is not None else "not there"]
            self._first.append(
                Differs(order=order, field=", ".join(fields), candidate=said[0], incumbent=said[1], reason=reason)
            )

    def compared(self, noise: float | None, noise_orders: int, moving: int) -> Compared:
        """The whole of it."""
        return Compared(
            orders=self._orders,
            same=self._same,
            differing=self._orders - self._same,
            unexplained=self._unexplained,
            only_candidate=self._only_one,
            only_incumbent=self._only_other,
            fields=dict(sorted(self._fields.items())),
            noise=noise,
            noise_orders=noise_orders,
            moving=moving,
            first=self._first,
        )
