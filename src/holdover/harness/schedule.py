"""A schedule: test case, bug report, corpus entry and input of the shrinker, in one plain JSON file.

    {"holdover": "schedule", "version": 2, "name": "fills while down", "subject": "desk", "start": "fresh",
     "recordings": [{"symbol": "ACME", "trade_date": "2024-11-27", "digest": "..."}, ...],
     "catalogue": "...", "seed": 0, "faults": [],
     "operations": [
       {"day": 0, "at": "mutation", "n": 412, "do": "kill", "with": [30]},
       {"every_day": true, "at": "partial-fill", "n": 2, "after": 0.6, "limit": 0.9, "do": "kill"},
       {"day": 1, "at": "fraction", "after": 0.25, "do": "disconnect", "with": [90, 2]},
       {"day": 0, "at": "second", "n": 14400, "do": "venue-cancel", "with": [2]}]}

The recorded days run in order, with a night between them. A schedule without recordings is a template: `bind`
gives it the days to run on. An operation has a day, or happens on every day, and a point on it:

- the `n`-th `mutation` of the subject, or its `n`-th `partial-fill`, `fill`, `pending` or `cancelled` mutation,
- the `n`-th message `in` or `out` as it is sent on the link, the `n`-th message `delivered` to the subject or
  `sent` by it, the end of the `n`-th `instant` with an event,
- the `n`-th `second` after the open, or the `fraction` of the session that `after` gives.

Points count from the fraction `after` of the session. When the point has not come by the fraction `limit`, the
operation happens at that time.

Operations name things by ordinal, for example the third open order, counted from 0. So you can remove any
operation and still have a valid schedule; an operation that finds nothing does nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec

from holdover.catalogue import Catalogue
from holdover.harness.condition import KINDS as CONDITIONS
from holdover.model import TimeInForce
from holdover.recording import RecordingStore, bundled_store
from holdover.runtime.size_limits import DOCUMENT_MAX, SizeLimitError, find_name_problem, read_bounded
from holdover.state import DECODE_ERRORS

VERSION: Final = 2

PointKind = Literal[
    "mutation",
    "in",
    "out",
    "delivered",
    "sent",
    "instant",
    "second",
    "fraction",
    "partial-fill",
    "fill",
    "pending",
    "cancelled",
]

POINT_KINDS: Final[tuple[str, ...]] = get_args(PointKind)
"""The kinds of points at which an operation can happen."""

COUNTED_POINT_KINDS: Final = ("mutation", "in", "out", "delivered", "sent", "instant")
"""The kinds of points that every run counts."""

TIME_POINT_KINDS: Final = ("second", "fraction")
"""The kinds of points that are times."""

_FILTERS: Final = {"partial-fill": ("tif", "strategy"), "fill": ("strategy",), "pending": ("tif", "strategy")}
"""What the mutations of a kind can be selected by."""


class OperationKind(msgspec.Struct, frozen=True):
    """A kind of operation: its family, the names and defaults of its integer parameters, and a sentence about it."""

    name: str
    family: str
    parameters: tuple[tuple[str, int], ...]
    sentence: str


_DOWN_PARAMETERS: Final = (("down_seconds", 0),)

KINDS: Final[dict[str, OperationKind]] = {
    kind.name: kind
    for kind in (
        OperationKind(
            "kill", "restart", _DOWN_PARAMETERS, "the subject is killed and comes up again after {down_seconds} s"
        ),
        OperationKind(
            "kill-unsynced",
            "restart",
            _DOWN_PARAMETERS,
            "the machine loses its power: what was not synced is gone; up after {down_seconds} s",
        ),
        OperationKind(
            "torn",
            "restart",
            _DOWN_PARAMETERS,
            "it is killed, and its last write is half there; up after {down_seconds} s",
        ),
        OperationKind(
            "stale",
            "restart",
            _DOWN_PARAMETERS,
            "it is killed and comes up on this morning's backup after {down_seconds} s",
        ),
        OperationKind(
            "kill-during-recovery",
            "restart",
            (("mutations", 5),),
            "it is killed, and killed again at mutation {mutations} of its recovery",
        ),
        OperationKind("clean", "restart", (), "it is stopped in good order and started again"),
        OperationKind("upgrade", "restart", (), "another version of it comes up on the state that this one wrote"),
        OperationKind(
            "disconnect", "link", (("seconds", 20), ("recovery", 0), ("lose_out", 0)), "the link is cut for {seconds} s"
        ),
        OperationKind("lose", "link", (), "the message is lost"),
        OperationKind("hold", "link", (("milliseconds", 3000),), "the message is held for {milliseconds} ms"),
        OperationKind("duplicate", "link", (), "the message arrives twice"),
        OperationKind("reorder", "link", (), "the message changes places with the next one"),
        OperationKind(
            "not-found", "link", (), "the message is lost, and the venue answers the next status question 'unknown'"
        ),
        OperationKind("overnight", "calendar", (), "the venue closes early, and the next trading day begins"),
        OperationKind(
            "overnight-down", "calendar", (), "it is killed, the venue closes early, and it comes up the next day"
        ),
        OperationKind(
            "split",
            "calendar",
            (("symbol", 0), ("new", 2), ("old", 1)),
            "instrument {symbol} splits {new} for {old} in the night that follows",
        ),
        OperationKind("refuse-logon", "venue", (("seconds", 30),), "logons are refused (401) for {seconds} s"),
        OperationKind("venue-cancel", "venue", (("order", 0),), "the venue cancels open order {order}"),
        OperationKind(
            "by-hand",
            "venue",
            (("account", 0), ("symbol", 0), ("side", 0), ("lots", 1)),
            "somebody trades {lots} lots by hand in account {account}",
        ),
        OperationKind(
            "move-cash",
            "venue",
            (("account", 0), ("millionths", -100), ("reason", 0)),
            "the venue moves {millionths} millionths of the cash of account {account} without a trade",
        ),
        OperationKind(
            "adjust-position",
            "venue",
            (("account", 0), ("symbol", 0), ("lots", -1), ("reason", 0)),
            "the venue changes the position of account {account} in instrument {symbol} by {lots} lots without a trade",
        ),
        OperationKind(
            "liquidate",
            "venue",
            (("account", 0), ("symbol", 0), ("lots", 0)),
            "the venue liquidates {lots} lots (0: all) of the position of account {account} in instrument {symbol}",
        ),
        OperationKind("bust", "venue", (("trade", 0),), "the venue takes back trade {trade} from the last"),
        OperationKind(
            "correct",
            "venue",
            (("trade", 0), ("lots", -1), ("ticks", 1)),
            "the venue corrects trade {trade} from the last by {lots} lots and {ticks} ticks",
        ),
        OperationKind("refuse", "venue", (), "the venue refuses the next replace"),
        OperationKind(
            "disable", "venue", (("symbol", 0), ("seconds", 60)), "the venue disables book {symbol} for {seconds} s"
        ),
        OperationKind("cancel", "operator", (("order", 0),), "the strategy cancels open order {order}"),
        OperationKind(
            "replace",
            "operator",
            (("order", 0), ("ticks", 1)),
            "the strategy reprices open order {order} by {ticks} ticks",
        ),
        OperationKind(
            "submit",
            "operator",
            (("strategy", 0), ("lots", 1), ("ticks", 0)),
            "the strategy {strategy} sends a slice of {lots} lots, {ticks} ticks from the touch",
        ),
        OperationKind("freeze", "operator", (("symbol", 0),), "an operator freezes instrument {symbol} by hand"),
        OperationKind("thaw", "operator", (("freeze", 0),), "an operator thaws freeze {freeze}"),
    )
}
"""Every kind of operation."""

DRAWN_KINDS: Final[tuple[str, ...]] = tuple(name for name in KINDS if name != "split")
"""The kinds that a search or a strategy draws. A split that no system under test can take makes every day fail."""

MESSAGE_OPERATIONS: Final = ("lose", "hold", "duplicate", "reorder", "not-found")
"""The operations on a message as it is sent."""


class ScheduleError(ValueError):
    """A schedule that cannot be run; the message names the operation and gives the correct form."""


class Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One operation: its day (from 0) or every day, its point, its kind and its integer parameters.

    `after` and `limit` are fractions of the session, from 0.0 to 1.0; `limit` is None when the operation may stay
    undone. `tif` and `strategy` select the mutations that count.
    """

    day: int = 0
    every_day: bool = False
    at: PointKind
    n: int = 1
    after: float = 0.0
    limit: float | None = None
    tif: str = ""
    strategy: str = ""
    do: str
    with_: list[int] = msgspec.field(default_factory=list, name="with")

    @property
    def kind(self) -> OperationKind:
        """Return the kind of the operation."""
        if self.do not in KINDS:
            raise ScheduleError(f"no operation is called {self.do!r}; there are {', '.join(KINDS)}")
        return KINDS[self.do]

    @property
    def is_plain(self) -> bool:
        """Whether the point is counted by every run, or is a second after the open: no fraction and no selection."""
        return (self.at in COUNTED_POINT_KINDS or self.at == "second") and not self.after and self.limit is None

    def parameter_values(self) -> dict[str, int]:
        """Return the parameters by name, with defaults for the missing ones."""
        values = dict(zip((name for name, _ in self.kind.parameters), self.with_, strict=False))
        return {name: values.get(name, default) for name, default in self.kind.parameters}

    def time_ns(self, open_ns: int, close_ns: int) -> int | None:
        """Return when the operation happens at the latest, ns since the epoch; None when only its point decides."""
        if open_ns >= close_ns:
            raise ValueError(f"a session from {open_ns} to {close_ns} ns, should close after it opens")
        if self.at == "second":
            return open_ns + self.n * 1_000_000_000
        fraction = self.after if self.at == "fraction" else self.limit
        return None if fraction is None else open_ns + int((close_ns - open_ns) * fraction)

    def describe(self) -> str:
        """Return the operation as a sentence."""
        day = "every day" if self.every_day else f"day {self.day + 1}"
        return f"{day}, {self._describe_point()}: {self.kind.sentence.format(**self.parameter_values())}"

    def _describe_point(self) -> str:
        if self.at == "second":
            return f"{self.n} s after the open"
        if self.at == "fraction":
            return f"at {self.after:.4g} of the session"
        selection = " ".join(name for name in (self.tif, self.strategy) if name)
        point = f"at {f'{selection} ' if selection else ''}{_POINT_NAMES.get(self.at, self.at)} {self.n}"
        if self.after:
            point += f" after {self.after:.4g} of the session"
        return point if self.limit is None else f"{point}, at {self.limit:.4g} of it at the latest"

    def __repr__(self) -> str:
        return (
            f"<{self.do} {'every day' if self.every_day else f'day {self.day}'} {self.at} {self.n} {self.with_ or ''}>"
        )


_POINT_NAMES: Final = {
    "in": "inbound message",
    "out": "outbound message",
    "delivered": "delivered message",
    "sent": "sent message",
    "partial-fill": "partial fill",
    "pending": "pending request",
    "cancelled": "cancelled order",
}


class RecordedDay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recorded day of a schedule, and the digest that its recording must have."""

    symbol: str
    trade_date: str
    digest: str


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Recorded days, a start state, and the operations on the subject. Without recordings it is a template.

    `start` is `fresh`, or the file name of a snapshot in the same folder: of a night, or of an instant during a
    day while the subject was down. A snapshot of the second kind starts the subject first, and counts that day's
    points, except `second`, from there. `catalogue` is the digest of the catalogue that the schedule was made
    with. `expect` is the `subsystem/invariant` that it breaches; empty when it must hold. `settings` go to the
    subject.
    """

    holdover: Literal["schedule"] = "schedule"
    version: int = VERSION
    name: str = ""
    subject: str = "desk"
    start: str = "fresh"
    recordings: list[RecordedDay] = []
    catalogue: str = ""
    seed: int = 0
    faults: list[str] = []
    settings: dict[str, Any] = {}
    expect: str = ""
    operations: list[Operation] = []

    @property
    def symbols(self) -> list[str]:
        """Return the instruments in the order of first mention."""
        return list(dict.fromkeys(recording.symbol for recording in self.recordings))

    @property
    def days(self) -> list[str]:
        """Return the trading days in the order of first mention."""
        return list(dict.fromkeys(recording.trade_date for recording in self.recordings))

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the behaviour: name, expectation and catalogue do not change it."""
        bare = msgspec.structs.replace(self, name="", expect="", catalogue="")
        return hashlib.sha256(msgspec.json.encode(bare)).hexdigest()

    def replace(self, **changes: Any) -> Schedule:
        """Return a copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    def expand(self) -> Schedule:
        """Return the schedule with each operation of every day as one operation for each recorded day."""
        if not any(operation.every_day for operation in self.operations):
            return self
        return self.replace(
            operations=[
                msgspec.structs.replace(operation, every_day=False, day=day) if operation.every_day else operation
                for operation in self.operations
                for day in (range(len(self.days)) if operation.every_day else (operation.day,))
            ]
        )

    def encode(self) -> bytes:
        """Return the content of the file: one operation a line, and always the version."""
        head = msgspec.to_builtins(self.replace(operations=[]))
        head = {"holdover": "schedule", "version": VERSION, **head}
        lines = [
            f"  {msgspec.json.encode(name).decode()}: {msgspec.json.encode(value).decode()}"
            for name, value in head.items()
            if name != "operations"
        ]
        operations = ",\n".join(f"    {msgspec.json.encode(operation).decode()}" for operation in self.operations)
        lines.append(f'  "operations": [\n{operations}\n  ]' if operations else '  "operations": []')
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    def save(self, path: Path) -> Path:
        """Write the file atomically and durably; returns the path."""
        if self.version != VERSION:
            raise ScheduleError(f"{path.name}: a schedule of version {self.version} cannot be written, only {VERSION}")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".writing")
        with open(part, "wb") as file:
            file.write(self.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        return path

    def describe(self) -> list[str]:
        """Return what happens, as plain sentences."""
        began = "from a fresh state" if self.start == "fresh" else f"from the snapshot {self.start}"
        recorded = f"{', '.join(self.symbols)} on {', '.join(self.days)}" if self.recordings else "Any recorded days"
        sentences = [f"{recorded}, {began}."]
        sentences += [f"The subject's {name}: {_format_value(value)}." for name, value in self.settings.items()]
        return sentences + [
            f"{operation.describe()[0].upper()}{operation.describe()[1:]}." for operation in self.operations
        ]


def _format_value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def make_schedule(
    store: RecordingStore, symbols: Iterable[str], days: Iterable[str], catalogue: Catalogue, **fields: Any
) -> Schedule:
    """Make a schedule on recorded days. Raises `RecordingError` when a day is not recorded."""
    return Schedule(recordings=list_recorded_days(store, list(symbols), days), catalogue=catalogue.digest, **fields)


def list_recorded_days(store: RecordingStore, symbols: Sequence[str], days: Iterable[str]) -> list[RecordedDay]:
    """Return recorded days with their digests, day by day. Raises `RecordingError` when a day is not recorded."""
    return [
        RecordedDay(symbol=symbol, trade_date=day, digest=store.get(symbol, day).digest)
        for day in days
        for symbol in symbols
    ]


def bind_schedule(
    schedule: Schedule, store: RecordingStore, symbols: Sequence[str] = (), days: Sequence[str] = ()
) -> Schedule:
    """Return the schedule on given days, or as it is when it names its own, with every operation on one day.

    A template without given days runs on the first instrument of the store and its first consecutive days.

    Raises:
        RecordingError: a day is not recorded.
        ScheduleError: the store is empty, or an operation is on a day that the schedule does not have.
    """
    is_bound = bool(schedule.recordings) and not symbols
    if symbols and days:
        schedule = schedule.replace(recordings=list_recorded_days(store, symbols, days))
    elif not schedule.recordings:
        recorded_symbols = store.symbols()
        if not recorded_symbols:
            raise ScheduleError(
                f"{schedule.name or 'the schedule'}: names no recording, and {store.directory} has none"
            )
        symbol = recorded_symbols[0]
        schedule = schedule.replace(recordings=list_recorded_days(store, [symbol], _consecutive_days(store, symbol)))
    day_count = len(schedule.days)
    for number, operation in enumerate(schedule.operations):
        if not operation.every_day and operation.day >= day_count and not is_bound:
            raise ScheduleError(
                f"{schedule.name or 'the schedule'}: operation {number} ({operation.do}) is on day {operation.day}, "
                f"counted from 0; the run has {day_count}"
            )
    return schedule.expand()


def _consecutive_days(store: RecordingStore, symbol: str) -> list[str]:
    days = store.days(symbol)
    expected = [store.get(symbol, day).meta.next_session for day in days]
    gaps = zip(days[1:], expected, strict=False)
    return [*days[:1], *(day for day, _ in takewhile(lambda pair: not pair[1] or pair[1] >= pair[0], gaps))]


def open_store_for(schedule: Schedule, recordings: Path | None) -> RecordingStore:
    """Open the recordings of a schedule: the given folder, or the bundled ones.

    Raises `RecordingError` when a day is missing and `ScheduleError` when a day has another digest.
    """
    store = RecordingStore(recordings) if recordings else bundled_store()
    for recorded_day in schedule.recordings:
        recording = store.get(recorded_day.symbol, recorded_day.trade_date)
        if recorded_day.digest and recording.digest != recorded_day.digest:
            raise ScheduleError(
                f"{schedule.name or 'the schedule'}: {recorded_day.symbol} on {recorded_day.trade_date} is another "
                f"recording than the one it was found on ({recording.digest[:12]}, should be "
                f"{recorded_day.digest[:12]})"
            )
    return store


def load_schedule(path: Path, recordings: Path | None = None) -> tuple[Schedule, RecordingStore]:
    """Read a schedule and open its recordings; a template gets the days of `bind_schedule`.

    Raises `ScheduleError` as `read_schedule`, `open_store_for` and `bind_schedule` do.
    """
    schedule = read_schedule(path)
    store = open_store_for(schedule, recordings)
    return bind_schedule(schedule, store), store


def read_schedule(path: Path) -> Schedule:
    """Read and check a schedule. Raises `ScheduleError` with every problem of the file."""
    try:
        content = read_bounded(path, DOCUMENT_MAX)
    except OSError as problem:
        raise ScheduleError(f"{path}: cannot be read: {problem.strerror}") from problem
    except SizeLimitError as problem:
        raise ScheduleError(str(problem)) from problem
    return decode_schedule(content, path.name)


class _ScheduleHead(msgspec.Struct):
    """What tells the version of a schedule; `every_day` and `days` are keys of a cycle's schedule of version 1."""

    version: int | None = None
    every_day: msgspec.Raw = msgspec.Raw()
    days: msgspec.Raw = msgspec.Raw()


def decode_schedule(content: bytes, name: str = "schedule") -> Schedule:
    """Decode and check the content of a schedule's file. Raises `ScheduleError` with every problem of it."""
    try:
        head = msgspec.json.decode(content, type=_ScheduleHead)
        version = 1 if head.version is None and (bytes(head.every_day) or bytes(head.days)) else head.version
        if version is not None and version != VERSION:
            raise ScheduleError(
                f"{name}: written in version {version}, this Holdover reads version {VERSION}; "
                f"docs/exploration.md shows its form"
            )
        schedule = msgspec.json.decode(content, type=Schedule)
    except DECODE_ERRORS as problem:
        raise ScheduleError(f"{name}: not a schedule: {problem}") from problem
    problems = check_schedule(schedule)
    if problems:
        raise ScheduleError("\n".join(f"{name}: {problem}" for problem in problems))
    return schedule


def check_schedule(schedule: Schedule) -> list[str]:
    """Return the problems of a schedule as sentences; empty when it can run."""
    if schedule.version != VERSION:
        return [f"written in version {schedule.version}, this Holdover reads version {VERSION}"]
    problems: list[str] = []
    if not schedule.recordings and schedule.start != "fresh":
        problems.append(f"starts from {schedule.start} and names no recorded day; name at least one in recordings")
    if find_name_problem(schedule.start) or "/" in schedule.start:
        problems.append(f"starts from {schedule.start[:80]!r}; should be fresh, or a file name without a folder")
    days, symbols = schedule.days, schedule.symbols
    named = {(recording.symbol, recording.trade_date) for recording in schedule.recordings}
    problems += [
        f"{symbol} is recorded on some of the days and not on {day}; each instrument is needed on each day"
        for day in days
        for symbol in symbols
        if (symbol, day) not in named
    ]
    if days != sorted(days):
        problems.append(f"the days are {', '.join(days)}, should go forward")
    for number, operation in enumerate(schedule.operations):
        kind = KINDS.get(operation.do)
        if kind is None:
            problems.append(
                f"operation {number}: no operation is called {operation.do!r}; there are {', '.join(KINDS)}"
            )
        else:
            problems += [f"operation {number} ({operation.do}): {problem}" for problem in _check_operation(operation)]
    return problems


def _check_operation(operation: Operation) -> list[str]:
    problems: list[str] = []
    if operation.n < 0 or operation.day < 0:
        problems.append(f"day and n count from 0, this is day {operation.day}, n {operation.n}")
    if operation.every_day and operation.day:
        problems.append(f"is for every day and for day {operation.day}; give one of both")
    parameters = operation.kind.parameters
    if len(operation.with_) > len(parameters):
        takes = ", ".join(name for name, _ in parameters) or "no integer"
        problems.append(f"takes {takes}, {len(operation.with_)} integers are given")
    if operation.do in MESSAGE_OPERATIONS and operation.at not in ("in", "out"):
        problems.append(f"is done to a message; say at in or out, not {operation.at}")
    if operation.do in MESSAGE_OPERATIONS and operation.limit is not None:
        problems.append("is done to a message, and has no limit: at that time there may be none")
    return problems + _check_point(operation)


def _check_point(operation: Operation) -> list[str]:
    problems = [
        f"{name} is {value}, should be a fraction of the session from 0.0 to 1.0"
        for name, value in (("after", operation.after), ("limit", operation.limit))
        if value is not None and not 0.0 <= value <= 1.0
    ]
    if operation.limit is not None and operation.limit < operation.after:
        problems.append(f"the limit {operation.limit} is before {operation.after}, from which its point counts")
    if operation.at in TIME_POINT_KINDS and operation.limit is not None:
        problems.append(f"happens at a {operation.at}, which has no limit")
    if operation.at == "second" and operation.after:
        problems.append("a second counts from the open and not from after")
    if operation.at == "fraction" and operation.n != 1:
        problems.append(f"happens at the fraction that after gives, and has no n ({operation.n})")
    for name in ("tif", "strategy"):
        if getattr(operation, name) and name not in _FILTERS.get(operation.at, ()):
            takes = " and ".join(kind for kind, filters in _FILTERS.items() if name in filters)
            problems.append(f"{name} selects mutations at {takes}, not at {operation.at}")
    if operation.tif and operation.tif not in TimeInForce.__members__:
        problems.append(f"tif is {operation.tif!r}; there are {', '.join(TimeInForce.__members__)}")
    return problems


DEFAULT_SCHEDULE: Final = Schedule(
    name="default",
    operations=[
        Operation(every_day=True, at="pending", after=0.2, limit=0.3, do="disconnect", with_=[90, 2]),
        Operation(every_day=True, at="pending", after=0.4, limit=0.5, do="disconnect", with_=[90, 1]),
        Operation(every_day=True, at="partial-fill", n=2, after=0.6, limit=0.9, do="kill"),
    ],
)
"""Trade, cut the link with orders in flight (dropped, then replayed), kill inside a partial fill, overnight."""

FRESH_SCHEDULE: Final = Schedule(name="fresh")
"""The schedule of a fresh-state test: one day from an empty state, without operations."""

if not set(CONDITIONS) <= set(POINT_KINDS):
    raise ScheduleError(f"conditions that are no kind of point: {', '.join(set(CONDITIONS) - set(POINT_KINDS))}")
