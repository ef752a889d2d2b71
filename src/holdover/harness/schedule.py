"""A schedule: which transitions happen when, as a plain JSON file that a person can write.

    {"name": "default", "seed": 0, "every_day": [
      {"op": "begin"},
      {"op": "run", "until": 0.25},
      {"op": "run", "until": {"kind": "pending", "nth": 1}, "limit": 0.3},
      {"op": "disconnect", "recovery": "drop"},
      {"op": "run", "seconds": 60},
      {"op": "reconnect"},
      {"op": "run", "until": {"kind": "partial-fill", "nth": 3, "tif": "GTC"}, "limit": 0.9, "kill": true},
      {"op": "restart", "kind": "kill"},
      {"op": "end"}, {"op": "overnight"}]}

`every_day` is done on every day asked for; `days` (a list of such lists) says them one by one. It is checked whole
before anything runs: an unknown operation, a wrong value, a transition that would not be legal.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.harness.condition import KINDS, Condition, nth
from holdover.harness.session import RESTARTS, Session


class BadSchedule(ValueError):
    """A schedule that cannot be run; the message names the operation and what would be right."""


class Until(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `nth` mutation of a kind: partial-fill, fill, pending, cancelled."""

    kind: str
    nth: int = 1
    tif: str = ""
    strategy: str = ""

    def condition(self) -> Condition:
        """As the session takes it."""
        return nth(self.nth, KINDS[self.kind], tif=self.tif, strategy=self.strategy)


class Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One operation: `op` and what it needs."""

    op: str
    until: Until | float | str | None = None
    limit: float | str = "close"
    seconds: float = 0
    kill: bool = False
    kind: str = "clean"
    during: int = 5
    lose_out: bool = False
    recovery: str = ""
    direction: str = "in"
    number: int = 1
    fault: str = "drop"
    splits: dict[str, tuple[int, int]] = {}


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named list of operations for every day, or for each day its own."""

    name: str = "unnamed"
    seed: int = 0
    every_day: list[Operation] = []
    days: list[list[Operation]] = []

    def operations(self, day: int) -> list[Operation]:
        """What happens on the `day`-th day, counted from 0; past the last one named, the last one again."""
        if self.days:
            return self.days[min(day, len(self.days) - 1)]
        return self.every_day


OPERATIONS: Final = ("begin", "run", "disconnect", "reconnect", "restart", "link-fault", "end", "overnight")
"""Everything that a schedule can ask for."""


def _op(op: str, **fields: Any) -> Operation:
    return Operation(op=op, **fields)


DEFAULT: Final = Schedule(
    name="default",
    every_day=[
        _op("begin"),
        _op("run", until=0.2),
        _op("run", until=Until(kind="pending"), limit=0.3),
        _op("disconnect", recovery="drop"),
        _op("run", seconds=90),
        _op("reconnect"),
        _op("run", until=0.4),
        _op("run", until=Until(kind="pending"), limit=0.5),
        _op("disconnect", recovery="replay"),
        _op("run", seconds=90),
        _op("reconnect"),
        _op("run", until=0.6),
        _op("run", until=Until(kind="partial-fill", nth=2), limit=0.9, kill=True),
        _op("restart", kind="kill"),
        _op("run"),
        _op("end"),
        _op("overnight"),
    ],
)
"""Begin, trade, cut the link with orders in flight (dropped, then replayed), kill inside a partial fill, overnight."""

FRESH: Final = Schedule(name="fresh", every_day=[_op("begin"), _op("run"), _op("end"), _op("overnight")])
"""What a fresh-state test does: the day, from nothing, and no transition."""


def read_schedule(path: Path) -> Schedule:
    """The schedule in a JSON file, checked. Raises `BadSchedule`."""
    try:
        schedule = msgspec.json.decode(path.read_bytes(), type=Schedule)
    except OSError as problem:
        raise BadSchedule(f"{path}: cannot be read: {problem.strerror}") from problem
    except msgspec.MsgspecError as problem:
        raise BadSchedule(f"{path.name}: {problem}") from problem
    problems = check(schedule)
    if problems:
        raise BadSchedule("\n".join(f"{path.name}: {problem}" for problem in problems))
    return schedule


def check(schedule: Schedule) -> list[str]:
    """What is wrong with a schedule, in words; empty when it can be run."""
    found: list[str] = []
    days = schedule.days or [schedule.every_day]
    if not any(days):
        return ["no operation in it; give every_day or days"]
    for number, operations in enumerate(days):
        found += _check_day(operations, f"day {number}" if schedule.days else "every_day")
    return found


_AFTER: Final = {"begin": "open", "end": "ended", "overnight": "night"}
_LEGAL: Final = {
    "night": ("begin",),
    "open": ("run", "disconnect", "reconnect", "restart", "link-fault", "end"),
    "ended": ("overnight", "restart"),
}


def _check_day(operations: Sequence[Operation], where: str) -> list[str]:
    found: list[str] = []
    phase, connected, alive = "night", True, True
    for number, one in enumerate(operations, 1):
        place = f"{where}, operation {number} ({one.op})"
        problem = _value_problem(one)
        if problem:
            found.append(f"{place}: {problem}")
            continue
        legal = _LEGAL[phase]
        if one.op not in legal:
            found.append(f"{place}: not legal when the session is {phase}; legal is: {', '.join(legal)}")
            continue
        if one.op == "disconnect" and not connected:
            found.append(f"{place}: the link is cut already; legal is: reconnect")
        if one.op == "reconnect" and connected:
            found.append(f"{place}: the link has not been cut; legal is: disconnect")
        if one.op in ("run", "end") and not alive:
            found.append(f"{place}: the subject was killed by the run before; legal is: restart")
        connected = one.op == "reconnect" or (connected and one.op != "disconnect")
        alive = one.op == "restart" or (alive and not (one.op == "run" and one.kill))
        phase = _AFTER.get(one.op, phase)
    if phase != "night" and not found:
        found.append(f"{where}: ends while the session is {phase}; it should end with end, overnight")
    return found


def _value_problem(one: Operation) -> str:
    if one.op not in OPERATIONS:
        return f"no operation is called so; there are {', '.join(OPERATIONS)}"
    if one.op == "restart" and one.kind not in RESTARTS:
        return f"no restart is called {one.kind!r}; there are {', '.join(RESTARTS)}"
    if isinstance(one.until, Until) and one.until.kind not in KINDS:
        return f"no condition is called {one.until.kind!r}; there are {', '.join(KINDS)}"
    if isinstance(one.until, float) and not 0.0 <= one.until <= 1.0:
        return f"until is {one.until}, should be a fraction of the session from 0.0 to 1.0"
    if isinstance(one.until, str) and one.until not in ("open", "close"):
        return f"until is {one.until!r}, should be open or close"
    if one.kill and not isinstance(one.until, Until):
        return "kill needs a condition in until: at which mutation"
    if one.recovery not in ("", "replay", "drop"):
        return f"recovery is {one.recovery!r}, should be replay or drop"
    return ""


def perform(session: Session, one: Operation, *, day: str) -> None:
    """Do one operation to a session."""
    if one.op == "begin":
        session.begin(day)
    elif one.op == "run" and one.seconds:
        session.run(session.clock.now_ns + int(one.seconds * 1_000_000_000))
    elif one.op == "run":
        until = one.until.condition() if isinstance(one.until, Until) else one.until
        session.run(until, kill=one.kill, limit=one.limit)
    elif one.op == "disconnect":
        session.disconnect(lose_out=one.lose_out, recovery=one.recovery)
    elif one.op == "reconnect":
        session.reconnect()
    elif one.op == "restart":
        session.restart(one.kind, during=one.during)
    elif one.op == "link-fault":
        session.link.fault(one.direction, one.number, one.fault, int(one.seconds * 1_000_000_000))
    elif one.op == "end":
        session.end()
    else:
        session.overnight(one.splits)
