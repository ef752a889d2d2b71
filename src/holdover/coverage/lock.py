"""The lock file `state-coverage.toml`: the axes of the product, the infeasible cells, and the thresholds of the
gate.

The file is committed. The verbs of `holdover coverage` write it and record who changed it, when and why. The
log at its end is a hash chain over these changes, and replaying the log must give the content of the file. So
the reader refuses a rule that was removed, added or changed by hand, and a threshold that was changed by
hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.runtime.axes import Axis, axes_in_use, import_axes
from holdover.runtime.cells import TRANSITIONS
from holdover.runtime.config_file import read_toml

LOCK_NAME: Final = "state-coverage.toml"
VERSION: Final = 2
DEFAULT_AXES: Final = ("orders", "carried-partial", "in-flight", "unacknowledged", "link", "reconciliation")
"""The axes of the product when the lock file names none: few enough that a person can read all cells."""
PERCENT_THRESHOLDS: Final = ("c1", "pairs", "c2")
"""Thresholds in percent."""
CORPUS_THRESHOLDS: Final = ("regressions", "witnessed")
"""Thresholds of the corpus: its number of schedules and of cells with a witness; retired ones count."""
THRESHOLDS: Final = (*PERCENT_THRESHOLDS, *CORPUS_THRESHOLDS)

_HEAD = """# State coverage: axes, infeasible cells, thresholds, waivers; and the log of who changed them and why.
# Written by `holdover coverage accept`, `retire`, `waive` and `ratchet`. A change by hand that the log does not
# record is refused.
"""


class LockError(ValueError):
    """A lock file that cannot be used; the message lists every problem, one a line."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cells that cannot be reached, and the reason: those with these axis values, at these transitions.

    Without transitions, the cells cannot be reached at all. Each run checks every rule against the cells that it
    reaches.
    """

    name: str
    reason: str
    axis_values: dict[str, list[str]]
    transitions: list[str] = []
    accepted_by: str = ""

    def matches(self, cell: Mapping[str, str]) -> bool:
        """Return whether the rule applies to a cell, given as axis -> value."""
        return all(cell[axis] in values for axis, values in self.axis_values.items())

    @property
    def digest(self) -> str:
        """Return a hash of the rule, its reason and the person who accepted it."""
        axis_values = {axis: sorted(values) for axis, values in sorted(self.axis_values.items())}
        content = json.dumps([self.name, axis_values, sorted(self.transitions), self.reason, self.accepted_by])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class Waiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gap, or an invariant that was not exercised, that the gate accepts up to and including `last_day`."""

    name: str
    last_day: date
    reason: str
    by: str


class LockChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change in the log: what, by whom, when and why; `chain` links it to the change before."""

    action: str
    name: str
    value: str
    by: str
    day: date
    reason: str
    chain: str


class CoverageLock(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The content of a lock file."""

    version: int = VERSION
    axes: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_AXES))
    axis_modules: list[str] = []
    catalogue: list[str] = []
    thresholds: dict[str, float] = {}
    rule: list[Rule] = []
    waiver: list[Waiver] = []
    log: list[LockChange] = []

    # -- changes ------------------------------------------------------------------------------------------------

    def accept(self, rule: Rule, *, by: str, day: date) -> None:
        """Add a rule. Raises `LockError` when the name exists, or the reason or the person is missing."""
        _require(by=by, reason=rule.reason)
        if any(entry.name == rule.name for entry in self.rule):
            raise LockError(f"{rule.name}: a rule of this name is accepted already")
        accepted = msgspec.structs.replace(rule, accepted_by=by)
        self.rule = sorted([*self.rule, accepted], key=lambda entry: entry.name)
        self._log_change("accepted", rule.name, accepted.digest, by, day, rule.reason)

    def retire(self, name: str, *, by: str, day: date, reason: str) -> None:
        """Remove a rule and log the change. Raises `LockError` for an unknown rule, or without a reason or a person."""
        _require(by=by, reason=reason)
        if not any(rule.name == name for rule in self.rule):
            raise LockError(f"no rule is called {name!r}; there are: {', '.join(r.name for r in self.rule) or 'none'}")
        self.rule = [rule for rule in self.rule if rule.name != name]
        self._log_change("retired", name, "", by, day, reason)

    def waive(self, waiver: Waiver, *, day: date) -> None:
        """Accept a gap until a date; replaces a waiver of the same name. Raises `LockError` without a reason or a
        person.
        """
        _require(by=waiver.by, reason=waiver.reason)
        self.waiver = sorted(
            [*(entry for entry in self.waiver if entry.name != waiver.name), waiver], key=lambda entry: entry.name
        )
        self._log_change("waived", waiver.name, waiver.last_day.isoformat(), waiver.by, day, waiver.reason)

    def ratchet(self, name: str, value: float, *, by: str, day: date, reason: str) -> None:
        """Set a threshold, in percent or (for `CORPUS_THRESHOLDS`) as a number.

        Raises `LockError` for an unknown name, a value out of range, or without a reason or a person.
        """
        _require(by=by, reason=reason)
        if name not in THRESHOLDS:
            raise LockError(f"no threshold is called {name!r}; there are {', '.join(THRESHOLDS)}")
        if value < 0 or (value > 100 and name in PERCENT_THRESHOLDS):
            raise LockError(f"threshold {name} is {value:g}, should be {'0 or more' if value < 0 else 'from 0 to 100'}")
        self.thresholds[name] = value
        self._log_change("threshold", name, repr(float(value)), by, day, reason)

    def _log_change(self, action: str, name: str, says: str, by: str, day: date, reason: str) -> None:
        before = self.log[-1].chain if self.log else ""
        chain = _chain_hash(before, [action, name, says, by, day.isoformat(), reason])
        self.log.append(LockChange(action=action, name=name, value=says, by=by, day=day, reason=reason, chain=chain))

    # -- validation ---------------------------------------------------------------------------------------------

    def product_axes(self) -> list[type[Axis]]:
        """Return the axes of the product, in order. Raises `LockError` for an unknown axis."""
        axes_by_name = {axis.name: axis for axis in axes_in_use()}
        missing = [name for name in self.axes if name not in axes_by_name]
        if missing:
            raise LockError(f"no axis is called {', '.join(missing)}; there are {', '.join(axes_by_name)}")
        return [axes_by_name[name] for name in self.axes]

    def problems(self) -> list[str]:
        """Return the problems of the file as sentences."""
        axes_by_name = {axis.name: axis for axis in axes_in_use()}
        problems = [f"axes: no axis is called {name!r}" for name in self.axes if name not in axes_by_name]
        problems += [
            f"axes: {name} is named twice" for name in sorted({n for n in self.axes if self.axes.count(n) > 1})
        ]
        problems += [f"thresholds: none is called {name!r}" for name in self.thresholds if name not in THRESHOLDS]
        for rule in self.rule:
            problems += self._rule_problems(rule, axes_by_name)
        return problems + self._log_problems()

    def _rule_problems(self, rule: Rule, axes_by_name: Mapping[str, type[Axis]]) -> Iterable[str]:
        if not rule.reason.strip():
            yield f"rule {rule.name}: has no reason"
        if not rule.axis_values and not rule.transitions:
            yield f"rule {rule.name}: would make every cell infeasible"
        for label in rule.transitions:
            if label not in TRANSITIONS:
                yield f"rule {rule.name}: no transition is called {label!r}; there are {', '.join(TRANSITIONS)}"
        for name, values in rule.axis_values.items():
            if name not in self.axes or name not in axes_by_name:
                yield f"rule {rule.name}: {name!r} is none of the axes {', '.join(self.axes)}"
                continue
            for value in values:
                if value not in axes_by_name[name].values:
                    yield (
                        f"rule {rule.name}: axis {name} has no value {value!r}; "
                        f"it has {', '.join(axes_by_name[name].values)}"
                    )

    def _log_problems(self) -> list[str]:
        problems: list[str] = []
        accepted: dict[str, str] = {}
        thresholds: dict[str, str] = {}
        waived: dict[str, str] = {}
        before = ""
        for number, change in enumerate(self.log, 1):
            content = [change.action, change.name, change.value, change.by, change.day.isoformat(), change.reason]
            if change.chain != _chain_hash(before, content):
                problems.append(
                    f"log, entry {number} ({change.action} {change.name}): "
                    "was changed by hand, or one before it taken out"
                )
            before = change.chain
            if change.action == "accepted":
                accepted[change.name] = change.value
            elif change.action == "retired":
                accepted.pop(change.name, None)
            elif change.action == "threshold":
                thresholds[change.name] = change.value
            elif change.action == "waived":
                waived[change.name] = change.value
        current_digests = {rule.name: rule.digest for rule in self.rule}
        for name in sorted({*accepted, *current_digests}):
            if name not in current_digests:
                problems.append(
                    f"rule {name}: was accepted and is gone without a reason; "
                    f"put it back, and `holdover coverage retire {name} --reason WHY --by WHO`"
                )
            elif name not in accepted:
                problems.append(f"rule {name}: nobody has accepted it; `holdover coverage accept`")
            elif current_digests[name] != accepted[name]:
                problems.append(f"rule {name}: is not what was accepted; retire it and accept the new one")
        return [*problems, *self._unlogged_changes(thresholds, waived)]

    def _unlogged_changes(self, thresholds: Mapping[str, str], waived: Mapping[str, str]) -> Iterable[str]:
        for name in sorted({*thresholds, *self.thresholds}):
            if thresholds.get(name) != repr(float(self.thresholds.get(name, -1))):
                yield f"threshold {name}: was changed by hand; `holdover coverage ratchet` records why"
        for waiver in self.waiver:
            if waived.get(waiver.name) != waiver.last_day.isoformat():
                yield f"waiver {waiver.name}: its date was changed by hand; `holdover coverage waive` records why"

    # -- writing ------------------------------------------------------------------------------------------------

    def to_toml(self) -> str:
        """Return the content of the file."""
        lines = [_HEAD, f"version = {self.version}"]
        lines += [f"{name} = {_format_toml(getattr(self, name))}" for name in ("axes", "axis_modules", "catalogue")]
        if self.thresholds:
            lines += ["", "[thresholds]", *(f"{name} = {self.thresholds[name]}" for name in sorted(self.thresholds))]
        tables: list[tuple[str, Sequence[Any]]] = [("rule", self.rule), ("waiver", self.waiver), ("log", self.log)]
        for name, entries in tables:
            for entry in entries:
                fields = msgspec.structs.asdict(entry)
                lines += ["", f"[[{name}]]", *(f"{key} = {_format_toml(value)}" for key, value in fields.items())]
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Write the file atomically. Raises `LockError` when the content has problems; nothing is written then."""
        problems = self.problems()
        if problems:
            raise LockError("\n".join(problems))
        part = path.with_name(path.name + ".part")
        part.write_text(self.to_toml(), encoding="utf-8")
        part.replace(path)


def read_lock(path: Path | None) -> CoverageLock:
    """Return the lock in a file; without a path, the default axes with no rule and no threshold.

    Raises `LockError` with every problem of the file.
    """
    if path is None:
        return CoverageLock()
    document = read_toml(path, LockError)
    version = document.get("version")
    if version != VERSION:
        raise LockError(f"{path.name}: was written as version {version}, this Holdover reads version {VERSION}")
    try:
        lock = msgspec.convert(document, CoverageLock)
    except msgspec.ValidationError as problem:
        raise LockError(f"{path.name}: {problem}") from problem
    import_axes(lock.axis_modules)
    problems = lock.problems()
    if problems:
        raise LockError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return lock


def find_lock(start: Path) -> Path | None:
    """Return the lock file of a project folder, or None."""
    path = start / LOCK_NAME
    return path if path.is_file() else None


def _require(**required: str) -> None:
    for name, value in required.items():
        if not value.strip():
            raise LockError(f"--{name} is empty: say {'who' if name == 'by' else 'why'}")


def _chain_hash(before: str, content: list[str]) -> str:
    return hashlib.sha256(json.dumps([before, *content]).encode()).hexdigest()[:16]


def _format_toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ " + ", ".join(f"{key} = {_format_toml(item)}" for key, item in value.items()) + " }" if value else "{}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_format_toml, value)) + "]"
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False)


__all__ = [
    "LockError",
    "DEFAULT_AXES",
    "CORPUS_THRESHOLDS",
    "CoverageLock",
    "LOCK_NAME",
    "Rule",
    "Waiver",
    "find_lock",
    "read_lock",
]
