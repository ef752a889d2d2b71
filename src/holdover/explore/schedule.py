"""A schedule: test case, bug report, corpus entry and the shrinker's input at once. One plain JSON file.

    {"holdover": "schedule", "version": 1, "name": "fills while down", "subject": "desk", "start": "fresh",
     "recordings": [{"symbol": "ACME", "trade_date": "2024-11-27", "digest": "..."}, ...],
     "catalogue": "...", "seed": 0, "faults": [],
     "operations": [
       {"day": 0, "at": "mutation", "n": 412, "do": "kill", "with": [30]},
       {"day": 0, "at": "second", "n": 14400, "do": "venue-cancel", "with": [2]}]}

The recorded days run one after the other, with the night between them. An operation is done on a day at a place: the
`n`-th `mutation` of the subject that day, the `n`-th message `in` or `out` as it is put on the way, the `n`-th message
`delivered` to the subject or `sent` by it, the `n`-th `instant` at which anything happened (when that is done), or the
`n`-th `second` after the open. Places on one day are met in the
order in which they come. Everything that is named is named by an ordinal (the third open order, counted from 0, of
those there are), so that any operation can be taken out and what is left is a schedule still: what finds nothing to do
does nothing.
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

PLACES: Final = ("mutation", "in", "out", "delivered", "sent", "instant", "second")
"""Where an operation can be done."""

At = Literal["mutation", "in", "out", "delivered", "sent", "instant", "second"]


class Kind(msgspec.Struct, frozen=True):
    """One kind of operation: its family, the names and defaults of its integers, and what it does in words."""

    name: str
    family: str
    takes: tuple[tuple[str, int], ...]
    words: str


_DOWN: Final = (("down_seconds", 0),)

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind("kill", "restart", _DOWN, "the subject is killed and comes up again after {down_seconds} s"),
        Kind(
            "kill-unsynced",
            "restart",
            _DOWN,
            "the machine loses its power: what was not synced is gone; up after {down_seconds} s",
        ),
        Kind("torn", "restart", _DOWN, "it is killed, and its last write is half there; up after {down_seconds} s"),
        Kind("stale", "restart", _DOWN, "it is killed and comes up on this morning's backup after {down_seconds} s"),
        Kind(
            "kill-during-recovery",
            "restart",
            (("mutations", 5),),
            "it is killed, and killed again at mutation {mutations} of its recovery",
        ),
        Kind("clean", "restart", (), "it is stopped in good order and started again"),
        Kind("upgrade", "restart", (), "another version of it comes up on the state that this one wrote"),
        Kind(
            "disconnect", "link", (("seconds", 20), ("recovery", 0), ("lose_out", 0)), "the link is cut for {seconds} s"
        ),
        Kind("lose", "link", (), "the message is lost"),
        Kind("hold", "link", (("milliseconds", 3000),), "the message is held for {milliseconds} ms"),
        Kind("duplicate", "link", (), "the message arrives twice"),
        Kind("reorder", "link", (), "the message changes places with the next one"),
        Kind("not-found", "link", (), "the message is lost, and the venue answers the next status question 'unknown'"),
        Kind("overnight", "calendar", (), "the venue closes early, and the next trading day begins"),
        Kind("overnight-down", "calendar", (), "it is killed, the venue closes early, and it comes up the next day"),
        Kind("refuse-logon", "venue", (("seconds", 30),), "logons are refused (401) for {seconds} s"),
        Kind("venue-cancel", "venue", (("order", 0),), "the venue cancels open order {order}"),
        Kind(
            "by-hand",
            "venue",
            (("account", 0), ("symbol", 0), ("side", 0), ("lots", 1)),
            "somebody trades {lots} lots by hand in account {account}",
        ),
        Kind("bust", "venue", (("trade", 0),), "the venue takes back trade {trade} from the last"),
        Kind(
            "correct",
            "venue",
            (("trade", 0), ("lots", -1), ("ticks", 1)),
            "the venue corrects trade {trade} from the last by {lots} lots and {ticks} ticks",
        ),
        Kind("refuse", "venue", (), "the venue refuses the next replace"),
        Kind("disable", "venue", (("symbol", 0), ("seconds", 60)), "the venue disables book {symbol} for {seconds} s"),
        Kind("cancel", "operator", (("order", 0),), "the strategy cancels open order {order}"),
        Kind(
            "replace",
            "operator",
            (("order", 0), ("ticks", 1)),
            "the strategy reprices open order {order} by {ticks} ticks",
        ),
        Kind(
            "submit",
            "operator",
            (("strategy", 0), ("lots", 1), ("ticks", 0)),
            "the strategy {strategy} sends a slice of {lots} lots, {ticks} ticks from the touch",
        ),
        Kind("freeze", "operator", (("symbol", 0),), "an operator freezes instrument {symbol} by hand"),
        Kind("thaw", "operator", (("freeze", 0),), "an operator thaws freeze {freeze}"),
    )
}
"""Every operation that a schedule can ask for."""


class BadSchedule(ValueError):
    """A schedule that cannot be run; the message names the operation and what would be right."""


class Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One operation: on which day (from 0), at which place, what, and with which small integers."""

    day: int = 0
    at: At
    n: int
    do: str
    with_: list[int] = msgspec.field(default_factory=list, name="with")

    @property
    def kind(self) -> Kind:
        """What kind of operation it is."""
        return KINDS[self.do]

    def numbers(self) -> dict[str, int]:
        """Its integers by name; what is not given is the default."""
        given = dict(zip((name for name, _ in self.kind.takes), self.with_, strict=False))
        return {name: given.get(name, default) for name, default in self.kind.takes}

    def words(self) -> str:
        """The operation as a sentence would say it."""
        place = f"{self.n} s after the open" if self.at == "second" else f"at {_ORDINAL[self.at]} {self.n}"
        return f"day {self.day + 1}, {place}: {self.kind.words.format(**self.numbers())}"

    def __repr__(self) -> str:
        return f"<{self.do} day {self.day} {self.at} {self.n} {self.with_ or ''}>"


_ORDINAL: Final = {
    "mutation": "mutation",
    "in": "inbound message",
    "out": "outbound message",
    "delivered": "delivered message",
    "sent": "sent message",
    "instant": "instant",
}


class Recorded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One recorded day that a schedule runs on: which one, and the digest that says that it is this very one."""

    symbol: str
    trade_date: str
    digest: str


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Recorded days, where they start from, and what is done to the subject on the way.

    `start` is `fresh`, or the file name of a snapshot beside the schedule: of a night, or of an instant inside a day at
    which the subject was down. There it comes up first, and that day's places but `second` are counted from there.
    `catalogue` is the digest under which it was found. `expect` names the invariant and subsystem that it breaches,
    empty when it must hold. `settings` go to the subject as they are; see what a subject may offer.
    """

    holdover: Literal["schedule"] = "schedule"
    version: int = VERSION
    name: str = ""
    subject: str = "desk"
    start: str = "fresh"
    recordings: list[Recorded]
    catalogue: str = ""
    seed: int = 0
    faults: list[str] = []
    settings: dict[str, Any] = {}
    expect: str = ""
    operations: list[Operation] = []

    @property
    def symbols(self) -> list[str]:
        """The instruments, in the order of first mention."""
        return list(dict.fromkeys(one.symbol for one in self.recordings))

    @property
    def days(self) -> list[str]:
        """The trading days, in the order of first mention."""
        return list(dict.fromkeys(one.trade_date for one in self.recordings))

    @property
    def digest(self) -> str:
        """SHA-256 of what it does: the same days, start and operations have the same digest, whatever the name."""
        bare = msgspec.structs.replace(self, name="", expect="", catalogue="")
        return hashlib.sha256(msgspec.json.encode(bare)).hexdigest()

    def replace(self, **changes: Any) -> Schedule:
        """The schedule with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    def encode(self) -> bytes:
        """As it is written: one operation a line, the envelope always said."""
        head = msgspec.to_builtins(self.replace(operations=[]))
        head = {"holdover": "schedule", "version": VERSION, **{k: v for k, v in head.items() if k != "version"}}
        lines = [
            f"  {msgspec.json.encode(name).decode()}: {msgspec.json.encode(value).decode()}"
            for name, value in head.items()
            if name != "operations"
        ]
        operations = ",\n".join(f"    {msgspec.json.encode(one).decode()}" for one in self.operations)
        lines.append(f'  "operations": [\n{operations}\n  ]' if operations else '  "operations": []')
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    def save(self, path: Path) -> Path:
        """Write it whole, synced and renamed; returns the path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".writing")
        with open(part, "wb") as file:
            file.write(self.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        return path

    def story(self) -> list[str]:
        """What happens, in plain sentences."""
        days = ", ".join(self.days)
        began = "from a fresh state" if self.start == "fresh" else f"from the snapshot {self.start}"
        told = [f"{', '.join(self.symbols)} on {days}, {began}."]
        told += [f"The subject's {name}: {_said(value)}." for name, value in self.settings.items()]
        return told + [f"{one.words()[0].upper()}{one.words()[1:]}." for one in self.operations]


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def schedule_on(
    store: RecordingStore, symbols: Iterable[str], days: Iterable[str], catalogue: Catalogue, **fields: Any
) -> Schedule:
    """A schedule on recorded days at hand. Raises `BadRecording` when one is not."""
    recorded = [
        Recorded(symbol=symbol, trade_date=day, digest=store.get(symbol, day).digest)
        for day in days
        for symbol in symbols
    ]
    return Schedule(recordings=recorded, catalogue=catalogue.digest, **fields)


def read_schedule(path: Path) -> Schedule:
    """The schedule in a file, checked. Raises `BadSchedule` with every problem found."""
    try:
        schedule = msgspec.json.decode(path.read_bytes(), type=Schedule)
    except OSError as problem:
        raise BadSchedule(f"{path}: cannot be read: {problem.strerror}") from problem
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise BadSchedule(f"{path.name}: not a schedule: {problem}") from problem
    problems = check(schedule)
    if problems:
        raise BadSchedule("\n".join(f"{path.name}: {problem}" for problem in problems))
    return schedule


def check(schedule: Schedule) -> list[str]:
    """What is wrong with a schedule, in words; empty when it can be run."""
    found: list[str] = []
    if schedule.version != VERSION:
        return [f"written in version {schedule.version}, this Holdover reads version {VERSION}"]
    if not schedule.recordings:
        found.append("no recorded day in it; name at least one in recordings")
    days, symbols = schedule.days, schedule.symbols
    named = {(one.symbol, one.trade_date) for one in schedule.recordings}
    found += [
        f"{symbol} is recorded on some of the days and not on {day}; each instrument is needed on each day"
        for day in days
        for symbol in symbols
        if (symbol, day) not in named
    ]
    if days != sorted(days):
        found.append(f"the days are {', '.join(days)}, should go forward")
    for number, one in enumerate(schedule.operations):
        where = f"operation {number}"
        kind = KINDS.get(one.do)
        if kind is None:
            found.append(f"{where}: no operation is called {one.do!r}; there are {', '.join(KINDS)}")
            continue
        if one.n < 0 or one.day < 0:
            found.append(f"{where} ({one.do}): day and n count from 0, this is day {one.day}, n {one.n}")
        if len(one.with_) > len(kind.takes):
            takes = ", ".join(name for name, _ in kind.takes) or "no integer"
            found.append(f"{where} ({one.do}): takes {takes}, {len(one.with_)} integers are given")
        if one.do in AT_MESSAGES and one.at not in ("in", "out"):
            found.append(f"{where} ({one.do}): is done to a message; say at in or out, not {one.at}")
    return found


AT_MESSAGES: Final = ("lose", "hold", "duplicate", "reorder", "not-found")
"""The operations that are done to a message as it is put on the way."""
