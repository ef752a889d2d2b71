"""A schedule: test case, bug report, corpus entry and input of the shrinker, in one plain JSON file.

    {"holdover": "schedule", "version": 1, "name": "fills while down", "subject": "desk", "start": "fresh",
     "recordings": [{"symbol": "ACME", "trade_date": "2024-11-27", "digest": "..."}, ...],
     "catalogue": "...", "seed": 0, "faults": [],
     "operations": [
       {"day": 0, "at": "mutation", "n": 412, "do": "kill", "with": [30]},
       {"day": 0, "at": "second", "n": 14400, "do": "venue-cancel", "with": [2]}]}

The recorded days run in order, with a night between them. An operation has a day and a point on it: the
`n`-th `mutation` of the subject, the `n`-th message `in` or `out` as it is sent on the link, the `n`-th
message `delivered` to the subject or `sent` by it, the end of the `n`-th `instant` with an event, or the
`n`-th `second` after the open.

Operations name things by ordinal, for example the third open order, counted from 0. So you can remove any
operation and still have a valid schedule; an operation that finds nothing does nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from holdover.catalogue import Catalogue
from holdover.recording import RecordingStore

VERSION: Final = 1

POINT_KINDS: Final = ("mutation", "in", "out", "delivered", "sent", "instant", "second")
"""The kinds of points at which an operation can happen."""

PointKind = Literal["mutation", "in", "out", "delivered", "sent", "instant", "second"]


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
        OperationKind("refuse-logon", "venue", (("seconds", 30),), "logons are refused (401) for {seconds} s"),
        OperationKind("venue-cancel", "venue", (("order", 0),), "the venue cancels open order {order}"),
        OperationKind(
            "by-hand",
            "venue",
            (("account", 0), ("symbol", 0), ("side", 0), ("lots", 1)),
            "somebody trades {lots} lots by hand in account {account}",
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


class ScheduleError(ValueError):
    """A schedule that cannot be run; the message names the operation and gives the correct form."""


class Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One operation: its day (from 0), its point, its kind and its integer parameters."""

    day: int = 0
    at: PointKind
    n: int
    do: str
    with_: list[int] = msgspec.field(default_factory=list, name="with")

    @property
    def kind(self) -> OperationKind:
        """Return the kind of the operation."""
        return KINDS[self.do]

    def parameter_values(self) -> dict[str, int]:
        """Return the parameters by name, with defaults for the missing ones."""
        values = dict(zip((name for name, _ in self.kind.parameters), self.with_, strict=False))
        return {name: values.get(name, default) for name, default in self.kind.parameters}

    def describe(self) -> str:
        """Return the operation as a sentence."""
        position = f"{self.n} s after the open" if self.at == "second" else f"at {_POINT_NAMES[self.at]} {self.n}"
        return f"day {self.day + 1}, {position}: {self.kind.sentence.format(**self.parameter_values())}"

    def __repr__(self) -> str:
        return f"<{self.do} day {self.day} {self.at} {self.n} {self.with_ or ''}>"


_POINT_NAMES: Final = {
    "mutation": "mutation",
    "in": "inbound message",
    "out": "outbound message",
    "delivered": "delivered message",
    "sent": "sent message",
    "instant": "instant",
}


class RecordedDay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recorded day of a schedule, and the digest that its recording must have."""

    symbol: str
    trade_date: str
    digest: str


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Recorded days, a start state, and the operations on the subject.

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
    recordings: list[RecordedDay]
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

    def encode(self) -> bytes:
        """Return the content of the file: one operation a line, and always the version."""
        head = msgspec.to_builtins(self.replace(operations=[]))
        head = {"holdover": "schedule", "version": VERSION, **{k: v for k, v in head.items() if k != "version"}}
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
        days = ", ".join(self.days)
        began = "from a fresh state" if self.start == "fresh" else f"from the snapshot {self.start}"
        sentences = [f"{', '.join(self.symbols)} on {days}, {began}."]
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
    recorded = [
        RecordedDay(symbol=symbol, trade_date=day, digest=store.get(symbol, day).digest)
        for day in days
        for symbol in symbols
    ]
    return Schedule(recordings=recorded, catalogue=catalogue.digest, **fields)


def read_schedule(path: Path) -> Schedule:
    """Read and check a schedule. Raises `ScheduleError` with every problem of the file."""
    try:
        schedule = msgspec.json.decode(path.read_bytes(), type=Schedule)
    except OSError as problem:
        raise ScheduleError(f"{path}: cannot be read: {problem.strerror}") from problem
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise ScheduleError(f"{path.name}: not a schedule: {problem}") from problem
    problems = check_schedule(schedule)
    if problems:
        raise ScheduleError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return schedule


def check_schedule(schedule: Schedule) -> list[str]:
    """Return the problems of a schedule as sentences; empty when it can run."""
    problems: list[str] = []
    if schedule.version != VERSION:
        return [f"written in version {schedule.version}, this Holdover reads version {VERSION}"]
    if not schedule.recordings:
        problems.append("no recorded day in it; name at least one in recordings")
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
        label = f"operation {number}"
        kind = KINDS.get(operation.do)
        if kind is None:
            problems.append(f"{label}: no operation is called {operation.do!r}; there are {', '.join(KINDS)}")
            continue
        if operation.n < 0 or operation.day < 0:
            problems.append(
                f"{label} ({operation.do}): day and n count from 0, this is day {operation.day}, n {operation.n}"
            )
        if len(operation.with_) > len(kind.parameters):
            takes = ", ".join(name for name, _ in kind.parameters) or "no integer"
            problems.append(f"{label} ({operation.do}): takes {takes}, {len(operation.with_)} integers are given")
        if operation.do in MESSAGE_OPERATIONS and operation.at not in ("in", "out"):
            problems.append(f"{label} ({operation.do}): is done to a message; say at in or out, not {operation.at}")
    return problems


MESSAGE_OPERATIONS: Final = ("lose", "hold", "duplicate", "reorder", "not-found")
"""The operations on a message as it is sent."""
