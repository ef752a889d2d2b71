"""Causes: which breaches have one cause, and which of them is the cause.

A wrong quantity of one order soon breaches the invariants of its position, its parent order, the account's cash and
the comparison with the venue. On-call needs one incident for it, the cause first. The reasons for the rule are in
`docs/decisions/0009-incidents-by-cause.md`. The rule:

- A breach has a *subject* (an order, an execution, a position, a parent order, a balance, a link) and *feeds* the
  subjects that are computed from it: an order feeds its position, its parent and the account's cash.
- A later breach is a consequence of an incident whose subjects, or what they feed, contain its own subject, for as
  long as the scope of the incident's cause is frozen. It is one, too, when its parent order is the cause's subject.
- The breaches of one settle are found in no particular order. They are ranked when the settle is over: the earliest
  mutation first, then the mutation's own checks before those of the settle, the boundary and the venue comparison,
  then executions and orders before positions, parents and cash. Each is a consequence of the first that leads to it.
- Orders of one settle that share a position or a parent order have one cause.
- A check of the guard or of a store is about the record that its example names, and ranks behind its breaches.
- A breach of freeze discipline is never a consequence: it says that freezing itself failed.

Two faults that share no account, instrument, parent or link never become one incident.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from holdover.model import (
    SYSTEM,
    Balance,
    CashMovement,
    Execution,
    Exposure,
    Limit,
    Link,
    Margin,
    Order,
    ParentOrder,
    Position,
    PositionAdjustment,
    Protection,
    RealizedPnl,
    Record,
    Request,
)
from holdover.runtime.breach import Breach
from holdover.state import Stateful

_STAGES: Final = {"on-mutation": 0, "when-settled": 1, "within": 1, "at-boundary": 2, "when-reconciled": 3}
_FAMILIES: Final = ("session", "identity", "lifecycle", "quantity", "agreement", "exposure", "timing", "reconciliation")
_SUBJECTS: Final = ("link", "execution", "order", "position", "parent", "cash", "check")
_JUDGED_BY_POSITION: Final = frozenset({"agreement", "exposure", "reconciliation"})
"""The families that judge an order by its position, so that a wrong position can breach them."""


class BreachTrace(msgspec.Struct, frozen=True, kw_only=True):
    """What of a breach decides to which cause it belongs.

    `subjects` are the keys of what it is about, `feeds` of what is computed from that; both like `order:A1` or
    `position:ACCOUNT/SYMBOL`. `example` is the text in which a self-check names a record.
    """

    number: int
    invariant: str
    scope: str
    mutation: int
    family: str
    stage: int
    subjects: frozenset[str]
    feeds: frozenset[str]
    example: str = ""
    is_self_check: bool = False

    def __post_init__(self) -> None:
        if self.number < 0 or self.mutation < 0:
            raise ValueError(f"breach {self.number} at mutation {self.mutation}: neither can be negative")

    @property
    def reach(self) -> frozenset[str]:
        """The subjects and what they feed."""
        return self.subjects | self.feeds

    @property
    def rank(self) -> tuple[int, int, int, int, int]:
        """The order in which the breaches of one settle can cause each other."""
        subjects = () if self.is_self_check else self.subjects
        kinds = [_SUBJECTS.index(_kind_of(subject)) for subject in subjects]
        family = _FAMILIES.index(self.family) if self.family in _FAMILIES else len(_FAMILIES)
        is_comparison = int(self.family == "reconciliation")
        return (self.mutation, self.stage + is_comparison, min(kinds, default=len(_SUBJECTS)), family, self.number)

    def shared_positions(self, other: frozenset[str]) -> bool:
        """Whether this breach and others reach one position."""
        return any(_kind_of(key) == "position" for key in self.reach & other)


class CauseGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A cause and what its breaches have reached so far. `marks` are the (invariant, scope) of its breaches."""

    cause: BreachTrace
    subjects: frozenset[str]
    reach: frozenset[str]
    examples: tuple[str, ...]
    marks: frozenset[tuple[str, str]]

    def extended(self, trace: BreachTrace) -> CauseGroup:
        """Return the incident with one more breach."""
        return msgspec.structs.replace(
            self,
            subjects=self.subjects | trace.subjects,
            reach=self.reach | trace.reach,
            examples=(*self.examples, trace.example) if trace.example else self.examples,
            marks=self.marks | {(trace.invariant, trace.scope)},
        )


def start_incident(cause: BreachTrace) -> CauseGroup:
    """Return the incident of a cause without consequences."""
    empty: frozenset[str] = frozenset()
    return CauseGroup(cause=cause, subjects=empty, reach=empty, examples=(), marks=frozenset()).extended(cause)


def trace_breach(breach: Breach, family: str, asserted: str) -> BreachTrace:
    """Return the trace of a breach whose `subjects` and `feeds` are set. Raises `ValueError` without a scope."""
    if not breach.scope:
        raise ValueError(f"{breach!r} has no scope yet")
    examples = [str(record.fields.get("first", "")) for record in breach.records[:1]]
    return BreachTrace(
        number=breach.number,
        invariant=breach.invariant,
        scope=breach.scope,
        mutation=breach.mutation,
        family=family,
        stage=_STAGES.get(asserted, 1),
        subjects=frozenset(breach.subjects),
        feeds=frozenset(breach.feeds),
        example="".join(examples),
        is_self_check=any(examples),
    )


def find_subjects(
    record: Record | None, family: str, currency_of: Callable[[str, str], str]
) -> tuple[list[str], list[str]]:
    """Return the keys of what a record is about, and of what is computed from it.

    Args:
        record: the record that the breached predicate is anchored at.
        family: the family of the invariant: a session invariant is about the link, whatever was sent on it.
        currency_of: the currency in which an (account, symbol) settles; empty when it is not known.
    """
    if record is None:
        return [], []
    if family == "session" or isinstance(record, Link):
        name = getattr(record, "link", "") or getattr(record, "name", "")
        if name:
            return [f"link:{name}"], []
    account, symbol = getattr(record, "account", ""), getattr(record, "symbol", "")
    currency = getattr(record, "currency", "") or (currency_of(account, symbol) if symbol else "")
    cash = [f"cash:{account}/{currency}"] if currency else []
    if isinstance(record, Balance | Margin):
        return [f"cash:{record.key}"], []
    if isinstance(record, CashMovement):
        return [f"cash:{record.balance_key}"], []
    if isinstance(record, PositionAdjustment):
        return [f"position:{record.book_key}"], []
    if isinstance(record, ParentOrder):
        return [f"parent:{record.parent_id}"], []
    if isinstance(record, Execution | Order | Request):
        parent = getattr(record, "cl_ord_link_id", "")
        feeds = [f"position:{record.book_key}", *cash, *([f"parent:{parent}"] if parent else [])]
        subjects = [f"order:{record.root_cl_ord_id}"]
        return ([f"execution:{record.key}", *subjects] if isinstance(record, Execution) else subjects), feeds
    if isinstance(record, Position | Exposure | Limit | RealizedPnl | Protection):
        return [f"position:{record.key}"], cash
    return ([f"position:{account}/{symbol}"], cash) if account and symbol else ([], [])


def find_example(example: str, find_record: Callable[[str], Record | None]) -> Record | None:
    """Return the record that a self-check's example names.

    Args:
        example: the text of the example, such as a record's `repr`.
        find_record: the record of a key: a ClOrdID, the id of a parent order, `ACCOUNT/SYMBOL`; None for anything else.
    """
    words = [word for word in re.split(r"[\s<>\[\](),']+", example) if word]
    for key in [*words, *(f"{first}/{second}" for first, second in itertools.pairwise(words))]:
        record = find_record(key)
        if record is not None:
            return record
    return None


def find_incident(trace: BreachTrace, incidents: Iterable[CauseGroup]) -> CauseGroup | None:
    """Return the incident of an earlier settle that a breach belongs to; None when it is a cause itself."""
    candidates = list(incidents)
    for incident in candidates:
        if (trace.invariant, trace.scope) in incident.marks and (
            trace.scope == SYSTEM or not trace.subjects or trace.shared_positions(incident.reach)
        ):
            return incident
    if trace.family == "freeze":
        return None
    for incident in candidates:
        if trace.subjects & incident.subjects:
            return incident
    return next((incident for incident in candidates if _follows_from_incident(trace, incident)), None)


def _follows_from_incident(trace: BreachTrace, incident: CauseGroup) -> bool:
    if trace.subjects & incident.reach:
        return True
    for key in trace.feeds & incident.cause.subjects:
        if _kind_of(key) == "parent" or (_kind_of(key) == "position" and trace.family in _JUDGED_BY_POSITION):
            return True
    if not trace.subjects and trace.example:
        return _names_any(trace.example, incident.subjects)
    return any(_names_any(example, trace.subjects) for example in incident.examples)


def group_settle(traces: Iterable[BreachTrace]) -> dict[int, int]:
    """Return the cause's number of each breach of one settle, by its number; the order of `traces` does not matter."""
    causes: dict[int, int] = {}
    ranked: list[BreachTrace] = []
    traces = list(traces)
    if len({trace.number for trace in traces}) < len(traces):
        raise ValueError(f"two breaches of one settle have one number: {[trace.number for trace in traces]}")
    for trace in sorted(traces, key=lambda trace: trace.rank):
        earlier = next((before for before in ranked if _has_one_cause(before, trace)), None)
        causes[trace.number] = causes[earlier.number] if earlier is not None else trace.number
        ranked.append(trace)
    return causes


def _has_one_cause(before: BreachTrace, after: BreachTrace) -> bool:
    """Whether a breach and an earlier one of the same settle have one cause."""
    if "freeze" in (before.family, after.family):
        return False
    if after.subjects & before.reach:
        return True
    shared = before.feeds & after.reach | before.reach & after.feeds
    if any(_kind_of(key) in ("position", "parent") for key in shared):
        return True
    if not after.subjects and after.example:
        return _names_any(after.example, before.subjects)
    return bool(before.example) and not before.subjects and _names_any(before.example, after.subjects)


def _kind_of(key: str) -> str:
    return key.partition(":")[0]


def _names_any(text: str, keys: Iterable[str]) -> bool:
    """Whether a text names the subject of a key: an order's ClOrdID, an ExecID, account and symbol."""
    for key in keys:
        kind, _, name = key.partition(":")
        name = name.rpartition("/")[2] if kind == "execution" else name
        for spelling in {name, name.replace("/", " ")}:
            if spelling and re.search(rf"(?<![\w.~-]){re.escape(spelling)}(?![\w~-])", text):
                return True
    return False


class CauseTrackerState(msgspec.Struct):
    """The state of the causes."""

    incidents: list[CauseGroup]
    settle: list[BreachTrace]
    causes: dict[int, int]
    is_loaded: bool


class CauseTracker(Stateful[CauseTrackerState]):
    """The incidents of one guard whose cause is still frozen, and the breaches of the settle that is not over yet.

    `causes` has the cause's number of each breach of this settle.
    """

    State = CauseTrackerState

    def __init__(self) -> None:
        self.incidents: list[CauseGroup] = []
        self.settle: list[BreachTrace] = []
        self.causes: dict[int, int] = {}
        self.is_loaded = False

    def load(self, traces_by_cause: Sequence[Sequence[BreachTrace]]) -> None:
        """Take over stored incidents: of each, the cause first."""
        self.incidents.clear()
        self.settle.clear()
        self.causes.clear()
        if not all(traces_by_cause):
            raise ValueError("a stored incident has no breach")
        for cause, *consequences in traces_by_cause:
            self._add_incident(cause, consequences)
        self.is_loaded = True

    def forget_thawed(self, is_frozen: Callable[[str], bool]) -> None:
        """Forget the incidents whose cause is no longer frozen: what fails from now on has another cause."""
        self.incidents[:] = [incident for incident in self.incidents if is_frozen(incident.cause.scope)]

    def find_cause(self, trace: BreachTrace) -> int:
        """Return the number of the breach that caused this one, as far as that is known; 0 for a cause."""
        incident = find_incident(trace, self.incidents)
        if incident is not None:
            return incident.cause.number
        for before in self.settle:
            if _has_one_cause(before, trace) or _has_one_cause(trace, before):
                return self.causes[before.number]
        return 0

    def add(self, trace: BreachTrace, cause: int) -> None:
        """Add a breach with the cause that `find_cause` returned, under the number that the store assigned."""
        for index, incident in enumerate(self.incidents):
            if incident.cause.number == cause:
                self.incidents[index] = incident.extended(trace)
                return
        if cause and cause not in self.causes:
            raise ValueError(f"breach {trace.number} follows from breach {cause}, which is not known")
        self.settle.append(trace)
        self.causes[trace.number] = cause or trace.number

    def regrouped_settle(self) -> dict[int, int]:
        """Return the final cause of every breach of this settle; empty when all are as they were written."""
        if len(self.settle) < 2:
            return {}
        final = group_settle(self.settle)
        return final if final != self.causes else {}

    def close_settle(self, causes: dict[int, int]) -> None:
        """End the settle; `causes` are its final causes, or empty when they are as they were written."""
        by_cause: dict[int, list[BreachTrace]] = {}
        final = causes or self.causes
        if final.keys() != {trace.number for trace in self.settle}:
            raise ValueError(f"the causes of {sorted(final)} are not those of this settle")
        for trace in self.settle:
            by_cause.setdefault(final[trace.number], []).append(trace)
        for number, traces in by_cause.items():
            cause = next((trace for trace in traces if trace.number == number), traces[0])
            self._add_incident(cause, [trace for trace in traces if trace is not cause])
        self.settle.clear()
        self.causes.clear()

    def _add_incident(self, cause: BreachTrace, consequences: Iterable[BreachTrace]) -> None:
        incident = start_incident(cause)
        for trace in consequences:
            incident = incident.extended(trace)
        self.incidents.append(incident)
