"""The lock file `state-coverage.toml`: which axes make the product, what of it is infeasible, what the gate asks for.

It is committed, and written by the verbs of `holdover coverage`, each of which records who, when and why. The log at
its end is a chain of hashes over these acts, and what they add up to must be what the file says: a rule that was taken
out by hand, slipped in by hand or quietly changed, and a threshold lowered by hand, are refused when the file is read.
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
from holdover.runtime.files import read_toml

NAME: Final = "state-coverage.toml"
VERSION: Final = 1
DEFAULT_AXES: Final = ("orders", "carried-partial", "in-flight", "unacknowledged", "link", "reconciliation")
"""The axes whose product is the denominator where the lock file does not say others: few enough to be looked at."""
PERCENT: Final = ("c1", "pairs", "c2")
"""Thresholds in percent of what there is."""
KEPT: Final = ("regressions", "witnessed")
"""Thresholds of the corpus: how many schedules, and cells with a witness, it holds or has let go with a reason."""
THRESHOLDS: Final = (*PERCENT, *KEPT)

_HEAD = """# State coverage: axes, infeasible cells, thresholds, waivers; and the log of who changed them and why.
# Written by `holdover coverage accept`, `retire`, `waive` and `ratchet`. A change by hand that the log does not
# record is refused.
"""


class BadLock(ValueError):
    """A lock file that cannot be used; the message lists every problem, one a line."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cells that cannot be reached, and why: those with these values, at these transitions (at none in particular:
    never at all). Each is checked against everything that a run reaches."""

    name: str
    reason: str
    when: dict[str, list[str]]
    transitions: list[str] = []
    accepted_by: str = ""

    def holds(self, cell: Mapping[str, str]) -> bool:
        """Whether a cell, as axis -> value, is one of those that it speaks of."""
        return all(cell[axis] in values for axis, values in self.when.items())

    @property
    def digest(self) -> str:
        """What the rule says, why, and who has accepted it."""
        when = {axis: sorted(values) for axis, values in sorted(self.when.items())}
        said = json.dumps([self.name, when, sorted(self.transitions), self.reason, self.accepted_by])
        return hashlib.sha256(said.encode()).hexdigest()[:16]


class Waiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gap, or an invariant without occasion, that the gate lets pass up to and including a date."""

    name: str
    until: date
    reason: str
    by: str


class Act(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the log: what was done to what, by whom, when, why; a hash chains it to the line before."""

    act: str
    name: str
    says: str
    by: str
    on: date
    reason: str
    chain: str


class Lock(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A lock file."""

    version: int = VERSION
    axes: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_AXES))
    axis_modules: list[str] = []
    catalogue: list[str] = []
    thresholds: dict[str, float] = {}
    rule: list[Rule] = []
    waiver: list[Waiver] = []
    log: list[Act] = []

    # -- changing -----------------------------------------------------------------------------------------------

    def accept(self, rule: Rule, *, by: str, on: date) -> None:
        """Take a rule in. Raises `BadLock` when its name is taken, or when it lacks a reason or a person."""
        _need(by=by, reason=rule.reason)
        if any(one.name == rule.name for one in self.rule):
            raise BadLock(f"{rule.name}: a rule of this name is accepted already")
        accepted = msgspec.structs.replace(rule, accepted_by=by)
        self.rule = sorted([*self.rule, accepted], key=lambda one: one.name)
        self._note("accepted", rule.name, accepted.digest, by, on, rule.reason)

    def retire(self, name: str, *, by: str, on: date, reason: str) -> None:
        """Take a rule out, which is recorded. Raises `BadLock` for one that is not there."""
        _need(by=by, reason=reason)
        if not any(one.name == name for one in self.rule):
            raise BadLock(f"no rule is called {name!r}; there are: {', '.join(r.name for r in self.rule) or 'none'}")
        self.rule = [one for one in self.rule if one.name != name]
        self._note("retired", name, "", by, on, reason)

    def waive(self, waiver: Waiver, *, on: date) -> None:
        """Let a gap pass until a date; one of the same name is replaced."""
        _need(by=waiver.by, reason=waiver.reason)
        self.waiver = sorted(
            [*(one for one in self.waiver if one.name != waiver.name), waiver], key=lambda one: one.name
        )
        self._note("waived", waiver.name, waiver.until.isoformat(), waiver.by, on, waiver.reason)

    def ratchet(self, what: str, value: float, *, by: str, on: date, reason: str) -> None:
        """Set a threshold, in percent or a number of `KEPT`; a lower one needs a reason like any other.

        Raises `BadLock` for another name.
        """
        _need(by=by, reason=reason)
        if what not in THRESHOLDS:
            raise BadLock(f"no threshold is called {what!r}; there are {', '.join(THRESHOLDS)}")
        if value < 0 or (value > 100 and what in PERCENT):
            raise BadLock(f"threshold {what} is {value:g}, should be {'0 or more' if value < 0 else 'from 0 to 100'}")
        self.thresholds[what] = value
        self._note("threshold", what, repr(float(value)), by, on, reason)

    def _note(self, act: str, name: str, says: str, by: str, on: date, reason: str) -> None:
        before = self.log[-1].chain if self.log else ""
        chain = _chain(before, [act, name, says, by, on.isoformat(), reason])
        self.log.append(Act(act=act, name=name, says=says, by=by, on=on, reason=reason, chain=chain))

    # -- asking -------------------------------------------------------------------------------------------------

    def product(self) -> list[type[Axis]]:
        """The axes of the product, in its order. Raises `BadLock` for one that does not exist."""
        known = {one.name: one for one in axes_in_use()}
        missing = [name for name in self.axes if name not in known]
        if missing:
            raise BadLock(f"no axis is called {', '.join(missing)}; there are {', '.join(known)}")
        return [known[name] for name in self.axes]

    def problems(self) -> list[str]:
        """What is wrong with it, in words."""
        known = {one.name: one for one in axes_in_use()}
        found = [f"axes: no axis is called {name!r}" for name in self.axes if name not in known]
        found += [f"axes: {name} is named twice" for name in sorted({n for n in self.axes if self.axes.count(n) > 1})]
        found += [f"thresholds: none is called {name!r}" for name in self.thresholds if name not in THRESHOLDS]
        for rule in self.rule:
            found += self._rule_problems(rule, known)
        return found + self._log_problems()

    def _rule_problems(self, rule: Rule, known: Mapping[str, type[Axis]]) -> Iterable[str]:
        if not rule.reason.strip():
            yield f"rule {rule.name}: has no reason"
        if not rule.when and not rule.transitions:
            yield f"rule {rule.name}: would make every cell infeasible"
        for label in rule.transitions:
            if label not in TRANSITIONS:
                yield f"rule {rule.name}: no transition is called {label!r}; there are {', '.join(TRANSITIONS)}"
        for name, values in rule.when.items():
            if name not in self.axes or name not in known:
                yield f"rule {rule.name}: {name!r} is none of the axes {', '.join(self.axes)}"
                continue
            for value in values:
                if value not in known[name].values:
                    yield (
                        f"rule {rule.name}: axis {name} has no value {value!r}; it has {', '.join(known[name].values)}"
                    )

    def _log_problems(self) -> list[str]:
        found: list[str] = []
        accepted: dict[str, str] = {}
        thresholds: dict[str, str] = {}
        waived: dict[str, str] = {}
        before = ""
        for number, act in enumerate(self.log, 1):
            said = [act.act, act.name, act.says, act.by, act.on.isoformat(), act.reason]
            if act.chain != _chain(before, said):
                found.append(
                    f"log, entry {number} ({act.act} {act.name}): was changed by hand, or one before it taken out"
                )
            before = act.chain
            if act.act == "accepted":
                accepted[act.name] = act.says
            elif act.act == "retired":
                accepted.pop(act.name, None)
            elif act.act == "threshold":
                thresholds[act.name] = act.says
            elif act.act == "waived":
                waived[act.name] = act.says
        have = {rule.name: rule.digest for rule in self.rule}
        for name in sorted({*accepted, *have}):
            if name not in have:
                found.append(
                    f"rule {name}: was accepted and is gone without a reason; "
                    f"put it back, and `holdover coverage retire {name} --reason WHY --by WHO`"
                )
            elif name not in accepted:
                found.append(f"rule {name}: nobody has accepted it; `holdover coverage accept`")
            elif have[name] != accepted[name]:
                found.append(f"rule {name}: is not what was accepted; retire it and accept the new one")
        return [*found, *self._unsaid(thresholds, waived)]

    def _unsaid(self, thresholds: Mapping[str, str], waived: Mapping[str, str]) -> Iterable[str]:
        for name in sorted({*thresholds, *self.thresholds}):
            if thresholds.get(name) != repr(float(self.thresholds.get(name, -1))):
                yield f"threshold {name}: was changed by hand; `holdover coverage ratchet` records why"
        for one in self.waiver:
            if waived.get(one.name) != one.until.isoformat():
                yield f"waiver {one.name}: its date was changed by hand; `holdover coverage waive` records why"

    # -- writing ------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The file."""
        lines = [_HEAD, f"version = {self.version}"]
        lines += [f"{name} = {_toml(getattr(self, name))}" for name in ("axes", "axis_modules", "catalogue")]
        if self.thresholds:
            lines += ["", "[thresholds]", *(f"{name} = {self.thresholds[name]}" for name in sorted(self.thresholds))]
        tables: list[tuple[str, Sequence[Any]]] = [("rule", self.rule), ("waiver", self.waiver), ("log", self.log)]
        for name, entries in tables:
            for one in entries:
                told = msgspec.structs.asdict(one)
                lines += ["", f"[[{name}]]", *(f"{key} = {_toml(value)}" for key, value in told.items())]
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Write the file whole. Raises `BadLock` rather than write one that would not be read."""
        problems = self.problems()
        if problems:
            raise BadLock("\n".join(problems))
        part = path.with_name(path.name + ".part")
        part.write_text(self.text(), encoding="utf-8")
        part.replace(path)


def read_lock(path: Path | None) -> Lock:
    """The lock in a file; without one the default axes, no rule and no threshold. Raises `BadLock`."""
    if path is None:
        return Lock()
    told = read_toml(path, BadLock)
    version = told.get("version")
    if version != VERSION:
        raise BadLock(f"{path.name}: version is {version}, this Holdover reads version {VERSION}")
    try:
        lock = msgspec.convert(told, Lock)
    except msgspec.ValidationError as problem:
        raise BadLock(f"{path.name}: {problem}") from problem
    import_axes(lock.axis_modules)
    problems = lock.problems()
    if problems:
        raise BadLock("\n".join(f"{path.name}: {problem}" for problem in problems))
    return lock


def find_lock(start: Path) -> Path | None:
    """The lock file of a project: in the folder itself, or none."""
    path = start / NAME
    return path if path.is_file() else None


def _need(**said: str) -> None:
    for what, value in said.items():
        if not value.strip():
            raise BadLock(f"--{what} is empty: say {'who' if what == 'by' else 'why'}")


def _chain(before: str, said: list[str]) -> str:
    return hashlib.sha256(json.dumps([before, *said]).encode()).hexdigest()[:16]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False)


__all__ = ["BadLock", "DEFAULT_AXES", "KEPT", "Lock", "NAME", "Rule", "Waiver", "find_lock", "read_lock"]
