"""Compares the candidate's orders with the incumbent's, order by order, from two journals or FIX logs.

Both logs are read once, as streams. The last state of each order goes into a table in a temporary file, and the two
tables are joined there, so memory does not grow with the number of orders. Orders match by the first ClOrdID of their
chain or, when the two systems assign their own IDs, as the n-th order of one account, symbol and side.

The noise floor is measured: two copies of the candidate on the same input are compared in the same way. A field of an
order in which the copies differ may also differ from the incumbent.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal

import msgspec

from holdover.audit import tags
from holdover.audit.framing import FixFramer
from holdover.shadow.config import Explanation
from holdover.shadow.state import OrderComparison, OrderDifference
from holdover.state import decode_msgpack, encode_msgpack

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
"""The compared fields of an order, in the order in which differences are listed."""

Value = str | int | None
MatchMode = Literal["id", "sequence"]
_BATCH_MAX: Final = 50_000
_DIFFERENCES_MAX: Final = 50
_TAGS: Final = {
    tags.ACCOUNT: "account",
    tags.SYMBOL: "symbol",
    tags.SIDE: "side",
    tags.ORDER_QTY: "order_qty",
    tags.PRICE: "price",
    tags.ORD_TYPE: "ord_type",
    tags.TIME_IN_FORCE: "time_in_force",
    tags.ORD_STATUS: "ord_status",
    tags.CUM_QTY: "cum_qty",
    tags.LEAVES_QTY: "leaves_qty",
}
_TERMINAL_STATUSES: Final = frozenset("2348C")


class ComparisonError(ValueError):
    """Two logs cannot be compared; the message names the log and the reason."""


class _JournalOrder(msgspec.Struct, kw_only=True, gc=False):
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


class _JournalOrderLine(msgspec.Struct, kw_only=True, gc=False):
    time_ns: int = 0
    subsystem: str = ""
    kind: str = ""
    record: _JournalOrder | None = None


OrderUpdate = tuple[str, Sequence[Value], int]
"""An order's ClOrdID, its fields as `FIELDS` names them, and the time (ns; 0 when the log has none)."""


class ComparisonWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders are compared, in ns of the logs' time; 0 means no bound.

    Orders that either log had before `since_ns` are left out. So are orders that changed after `until_ns`, because the
    other log may not have the change yet.
    """

    since_ns: int = 0
    until_ns: int = 0


def read_orders(path: Path) -> Iterator[OrderUpdate]:
    """Yield every state of every order in a journal or FIX log, in file order. Raises `ComparisonError`."""
    try:
        with open(path, "rb") as file:
            first = file.read(1)
            file.seek(0)
            yield from _read_journal_orders(path, file) if first == b"{" else _read_fix_orders(file)
    except OSError as problem:
        raise ComparisonError(f"{path}: cannot be read: {problem.strerror}") from problem


def _read_journal_orders(path: Path, lines: Iterable[bytes]) -> Iterator[OrderUpdate]:
    decode = msgspec.json.Decoder(_JournalOrderLine).decode
    for number, line in enumerate(lines, 1):
        if b'"subsystem":"orders","kind":"Order"' not in line:
            continue
        try:
            entry = decode(line)
        except msgspec.MsgspecError as problem:
            if not line.endswith(b"\n"):
                return  # the line was cut off by a kill
            raise ComparisonError(f"{path.name}: line {number} is no journal line: {problem}") from problem
        if (order := entry.record) is not None:
            yield order.root_cl_ord_id, [getattr(order, name) for name in FIELDS], entry.time_ns


def _read_fix_orders(lines: Iterable[bytes]) -> Iterator[OrderUpdate]:
    """Read NewOrderSingle, replace requests and ExecutionReports; values stay as written."""
    framing = FixFramer()
    roots: dict[str, str] = {}
    fields_by_root: dict[str, dict[str, Value]] = {}
    for line in lines:
        for message in framing.split_line(line):
            if isinstance(message, str):
                continue
            kind, name, orig = (
                message.get(tag, b"").decode("latin-1") for tag in (tags.MSG_TYPE, tags.CL_ORD_ID, tags.ORIG_CL_ORD_ID)
            )
            if kind not in ("D", "G", "8") or not name:
                continue
            root = roots.get(orig, orig) or name
            root = roots.setdefault(name, roots.get(root, root))
            fields = fields_by_root.setdefault(root, dict.fromkeys(FIELDS))
            if kind != "G":  # the terms of a replace request apply when a report confirms them
                fields.update({_TAGS[tag]: value.decode("latin-1") for tag, value in message.items() if tag in _TAGS})
                yield root, [fields[field] for field in FIELDS], 0
                if fields["ord_status"] in _TERMINAL_STATUSES:
                    del fields_by_root[root]  # a later report repeats all fields


class _OrderTables:
    """The last state of every order of up to three logs, in a temporary file."""

    def __init__(self, window: ComparisonWindow) -> None:
        self.early_orders: set[str] = set()
        self.moving_orders: set[str] = set()
        self._window = window
        self._connection = sqlite3.connect("", isolation_level=None)  # a temporary file that SQLite removes
        self._connection.execute("PRAGMA journal_mode=OFF")
        self._connection.execute("PRAGMA cache_size=-65536")

    def fill(self, name: str, orders: Iterable[OrderUpdate], match: MatchMode) -> int:
        """Store a log in a table. Returns the number of its orders."""
        self._connection.execute(f"CREATE TABLE {name} (key TEXT PRIMARY KEY, id TEXT, body BLOB) WITHOUT ROWID")
        if match == "sequence":
            self._connection.execute(f"CREATE TABLE {name}_key (id TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID")
        encode = encode_msgpack
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
                key = fresh.get(order) or self._find_key(name, order)
                if not key:
                    group = f"{fields[0]}/{fields[1]}/{fields[2]}"
                    counts[group] += 1
                    key = fresh[order] = f"{group} #{counts[group]}"
            waiting[key] = (order, encode(fields))
            if 0 < self._window.until_ns < time_ns:
                self.moving_orders.add(key)
            if len(waiting) >= _BATCH_MAX:
                self._flush(name, waiting, fresh)
        self._flush(name, waiting, fresh)
        if match == "id":
            self.early_orders |= early
        return int(self._connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0])

    def _find_key(self, name: str, order: str) -> str:
        row = self._connection.execute(f"SELECT key FROM {name}_key WHERE id=?", (order,)).fetchone()
        return str(row[0]) if row else ""

    def _flush(self, name: str, waiting: dict[str, tuple[str, bytes]], fresh: dict[str, str]) -> None:
        self._connection.execute("BEGIN")
        rows = [(key, order, body) for key, (order, body) in waiting.items()]
        self._connection.executemany(f"INSERT OR REPLACE INTO {name} VALUES (?,?,?)", rows)
        if fresh:
            self._connection.executemany(f"INSERT INTO {name}_key VALUES (?,?)", list(fresh.items()))
        self._connection.execute("COMMIT")
        waiting.clear()
        fresh.clear()

    def join(self, left: str, right: str) -> Iterator[tuple[str, bytes | None, bytes | None]]:
        """Yield (ClOrdID, fields in `left`, fields in `right`) for every order of either table; None when it is
        absent.
        """
        excluded = self.early_orders | self.moving_orders
        for key, order, first, second in self._connection.execute(
            f"SELECT a.key, a.id, a.body, b.body FROM {left} a LEFT JOIN {right} b ON b.key = a.key "
            f"UNION ALL SELECT b.key, b.id, NULL, b.body FROM {right} b WHERE b.key NOT IN (SELECT key FROM {left})"
        ):
            if key not in excluded:
                yield order, first, second

    def close(self) -> None:
        """Remove the temporary file."""
        self._connection.close()


def compare_orders(
    candidate: Path | Iterable[OrderUpdate],
    incumbent: Path | Iterable[OrderUpdate],
    *,
    tolerance: Mapping[str, int] | None = None,
    explained: Sequence[Explanation] = (),
    noise: Path | Iterable[OrderUpdate] | None = None,
    match: MatchMode = "id",
    window: ComparisonWindow | None = None,
) -> OrderComparison:
    """Compare two logs order by order. `noise` is a second copy of the candidate on the same input.

    Raises `ComparisonError` when a log cannot be read or a tolerance names an unknown field.
    """
    unknown = [name for name in tolerance or {} if name not in FIELDS]
    if unknown:
        raise ComparisonError(f"no field of an order is called {', '.join(unknown)}; there are {', '.join(FIELDS)}")
    tables = _OrderTables(window or ComparisonWindow())
    try:
        sources = {"candidate": candidate, "incumbent": incumbent, **({"copy": noise} if noise is not None else {})}
        counts = {
            name: tables.fill(name, read_orders(source) if isinstance(source, Path) else source, match)
            for name, source in sources.items()
        }
        noisy_fields: dict[str, set[str]] = {}
        if noise is not None:
            for order, candidate_body, copy_body in tables.join("candidate", "copy"):
                fields = _differing_fields(_decode_fields(candidate_body), _decode_fields(copy_body), tolerance or {})
                if fields:
                    noisy_fields[order] = set(fields)
        tally = _DivergenceTally(explained, noisy_fields)
        for order, candidate_body, incumbent_body in tables.join("candidate", "incumbent"):
            tally.add(order, _decode_fields(candidate_body), _decode_fields(incumbent_body), tolerance or {})
    finally:
        tables.close()
    share = len(noisy_fields) / max(counts["candidate"], counts.get("copy", 0), 1) if noise is not None else None
    return tally.result(share, counts.get("copy", 0), len(tables.moving_orders))


def _decode_fields(body: bytes | None) -> list[Value] | None:
    return None if body is None else decode_msgpack(body, list[Value])


def _differing_fields(left: list[Value] | None, right: list[Value] | None, tolerance: Mapping[str, int]) -> list[str]:
    """The fields in which two states differ by more than the tolerance; `order` alone when one state is missing."""
    if left is None or right is None:
        return ["order"]
    return [
        name
        for name, first, second in zip(FIELDS, left, right, strict=True)
        if first != second and not _is_within_tolerance(first, second, tolerance.get(name, 0))
    ]


def _is_within_tolerance(first: Value, second: Value, tolerance: int) -> bool:
    if first is None or second is None:
        return False
    try:
        return abs(float(first) - float(second)) <= tolerance
    except ValueError:
        return False


class _DivergenceTally:
    """The running totals of a comparison."""

    def __init__(self, explained: Sequence[Explanation], noisy: Mapping[str, set[str]]) -> None:
        self._explained, self._noisy = explained, noisy
        self._orders = self._identical = self._unexplained = self._only_candidate = self._only_incumbent = 0
        self._fields: Counter[str] = Counter()
        self._differences: list[OrderDifference] = []

    def add(
        self, order: str, candidate: list[Value] | None, incumbent: list[Value] | None, tolerance: Mapping[str, int]
    ) -> None:
        """Add one order."""
        self._orders += 1
        fields = _differing_fields(candidate, incumbent, tolerance)
        if not fields:
            self._identical += 1
            return
        self._only_candidate += incumbent is None
        self._only_incumbent += candidate is None
        self._fields.update(fields)
        reason = next(
            (explanation.reason for explanation in self._explained if fnmatchcase(order, explanation.order)), ""
        )
        if not reason and set(fields) <= self._noisy.get(order, set()):
            reason = "the candidate differs there from its own copy"
        self._unexplained += not reason
        if len(self._differences) < _DIFFERENCES_MAX:
            index = FIELDS.index(fields[0]) if candidate is not None and incumbent is not None else -1
            values = [
                str(state[index]) if state is not None and index >= 0 else "no such order"
                for state in (candidate, incumbent)
            ]
            if index < 0:
                values = [
                    "there" if candidate is not None else "not there",
                    "there" if incumbent is not None else "not there",
                ]
            self._differences.append(
                OrderDifference(
                    order=order, field=", ".join(fields), candidate=values[0], incumbent=values[1], reason=reason
                )
            )

    def result(self, noise: float | None, noise_orders: int, moving: int) -> OrderComparison:
        """Returns the result of the comparison."""
        return OrderComparison(
            orders=self._orders,
            identical=self._identical,
            differing=self._orders - self._identical,
            unexplained=self._unexplained,
            only_candidate=self._only_candidate,
            only_incumbent=self._only_incumbent,
            fields=dict(sorted(self._fields.items())),
            noise=noise,
            noise_orders=noise_orders,
            moving=moving,
            first=self._differences,
        )
