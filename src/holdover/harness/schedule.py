"""A cycle schedule: which transitions happen when, as a JSON file that a person can write.

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

`every_day` lists the operations of every day; `days` is a list with one such list for each day. The whole
schedule is checked before anything runs: unknown operations, wrong values and illegal transitions are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.harness.condition import KINDS, Condition, nth
from holdover.harness.session import RESTARTS, Session


class CycleScheduleError(ValueError):
    """A schedule cannot be run. The message names the operation and what would be right."""


class UntilCondition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `nth` mutation of a kind: partial-fill, fill, pending or cancelled."""

    kind: str
    nth: int = 1
    tif: str = ""
    strategy: str = ""

    def condition(self) -> Condition:
        """Return the condition that `Session.run` takes."""
        return nth(self.nth, KINDS[self.kind], tif=self.tif, strategy=self.strategy)


class CycleOperation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One operation: `op` and its arguments."""

    op: str
    until: UntilCondition | float | str | None = None
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


class CycleSchedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named list of operations, either for every day or for each day."""

    name: str = "unnamed"
    seed: int = 0
    every_day: list[CycleOperation] = []
    days: list[list[CycleOperation]] = []

    def operations(self, day: int) -> list[CycleOperation]:
        """Return the operations of the `day`-th day, counted from 0. Later days repeat the last day of `days`."""
        if self.days:
            return self.days[min(day, len(self.days) - 1)]
        return self.every_day


OPERATIONS: Final = ("begin", "run", "disconnect", "reconnect", "restart", "link-fault", "end", "overnight")
"""Every operation that a schedule can name."""


def _operation(op: str, **fields: Any) -> CycleOperation:
    return CycleOperation(op=op, **fields)


DEFAULT_SCHEDULE: Final = CycleSchedule(
    name="default",
    every_day=[
        _operation("begin"),
        _operation("run", until=0.2),
        _operation("run", until=UntilCondition(kind="pending"), limit=0.3),
        _operation("disconnect", recovery="drop"),
        _operation("run", seconds=90),
        _operation("reconnect"),
        _operation("run", until=0.4),
        _operation("run", until=UntilCondition(kind="pending"), limit=0.5),
        _operation("disconnect", recovery="replay"),
        _operation("run", seconds=90),
        _operation("reconnect"),
        _operation("run", until=0.6),
        _operation("run", until=UntilCondition(kind="partial-fill", nth=2), limit=0.9, kill=True),
        _operation("restart", kind="kill"),
        _operation("run"),
        _operation("end"),
        _operation("overnight"),
    ],
)
"""Trade, cut the link with orders in flight (dropped, then replayed), kill inside a partial fill, overnight."""

FRESH_SCHEDULE: Final = CycleSchedule(
    name="fresh", every_day=[_operation("begin"), _operation("run"), _operation("end"), _operation("overnight")]
)
"""The schedule of a fresh-state test: one day from an empty state, without transitions."""


def read_schedule(path: Path) -> CycleSchedule:
    """Read and check the schedule in a JSON file.

    Raises `CycleScheduleError` when the file cannot be read or the schedule cannot be run.
    """
    try:
        schedule = msgspec.json.decode(path.read_bytes(), type=CycleSchedule)
    except OSError as error:
        raise CycleScheduleError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise CycleScheduleError(f"{path.name}: {error}") from error
    problems = check_schedule(schedule)
    if problems:
        raise CycleScheduleError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return schedule


def check_schedule(schedule: CycleSchedule) -> list[str]:
    """Return what is wrong with a schedule, in words; an empty list when it can be run."""
    problems: list[str] = []
    days = schedule.days or [schedule.every_day]
    if not any(days):
        return ["no operation in it; give every_day or days"]
    for number, operations in enumerate(days):
        problems += _check_day(operations, f"day {number}" if schedule.days else "every_day")
    return problems


_AFTER: Final = {"begin": "open", "end": "ended", "overnight": "night"}
_LEGAL: Final = {
    "night": ("begin",),
    "open": ("run", "disconnect", "reconnect", "restart", "link-fault", "end"),
    "ended": ("overnight", "restart"),
}


def _check_day(operations: Sequence[CycleOperation], label: str) -> list[str]:
    problems: list[str] = []
    phase, connected, alive = "night", True, True
    for number, operation in enumerate(operations, 1):
        location = f"{label}, operation {number} ({operation.op})"
        problem = _value_problem(operation)
        if problem:
            problems.append(f"{location}: {problem}")
            continue
        legal = _LEGAL[phase]
        if operation.op not in legal:
            problems.append(f"{location}: not legal when the session is {phase}; legal is: {', '.join(legal)}")
            continue
        if operation.op == "disconnect" and not connected:
            problems.append(f"{location}: the link is cut already; legal is: reconnect")
        if operation.op == "reconnect" and connected:
            problems.append(f"{location}: the link has not been cut; legal is: disconnect")
        if operation.op in ("run", "end") and not alive:
            problems.append(f"{location}: the subject was killed by the run before; legal is: restart")
        connected = operation.op == "reconnect" or (connected and operation.op != "disconnect")
        alive = operation.op == "restart" or (alive and not (operation.op == "run" and operation.kill))
        phase = _AFTER.get(operation.op, phase)
    if phase != "night" and not problems:
        problems.append(f"{label}: ends while the session is {phase}; it should end with end, overnight")
    return problems


def _value_problem(operation: CycleOperation) -> str:
    if operation.op not in OPERATIONS:
        return f"no operation is called so; there are {', '.join(OPERATIONS)}"
    if operation.op == "restart" and operation.kind not in RESTARTS:
        return f"no restart is called {operation.kind!r}; there are {', '.join(RESTARTS)}"
    if isinstance(operation.until, UntilCondition) and operation.until.kind not in KINDS:
        return f"no condition is called {operation.until.kind!r}; there are {', '.join(KINDS)}"
    if isinstance(operation.until, float) and not 0.0 <= operation.until <= 1.0:
        return f"until is {operation.until}, should be a fraction of the session from 0.0 to 1.0"
    if isinstance(operation.until, str) and operation.until not in ("open", "close"):
        return f"until is {operation.until!r}, should be open or close"
    if operation.kill and not isinstance(operation.until, UntilCondition):
        return "kill needs a condition in until: at which mutation"
    if operation.recovery not in ("", "replay", "drop"):
        return f"recovery is {operation.recovery!r}, should be replay or drop"
    return ""


def perform_operation(session: Session, operation: CycleOperation, *, day: str) -> None:
    """Perform one operation on a session."""
    if operation.op == "begin":
        session.begin(day)
    elif operation.op == "run" and operation.seconds:
        session.run(session.clock.now_ns + int(operation.seconds * 1_000_000_000))
    elif operation.op == "run":
        target = operation.until.condition() if isinstance(operation.until, UntilCondition) else operation.until
        session.run(target, kill=operation.kill, limit=operation.limit)
    elif operation.op == "disconnect":
        session.disconnect(lose_out=operation.lose_out, recovery=operation.recovery)
    elif operation.op == "reconnect":
        session.reconnect()
    elif operation.op == "restart":
        session.restart(operation.kind, during=operation.during)
    elif operation.op == "link-fault":
        session.link.inject_fault(
            operation.direction, operation.number, operation.fault, int(operation.seconds * 1_000_000_000)
        )
    elif operation.op == "end":
        session.end()
    else:
        session.overnight(operation.splits)
