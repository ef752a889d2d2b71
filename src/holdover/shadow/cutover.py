"""May the candidate go live? Every condition and how it stands; nothing is weighed against another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdover.runtime import StoreProblem
from holdover.runtime.thawing import guard_at
from holdover.shadow.clock import HOUR_NS, since_text
from holdover.shadow.config import ShadowConfig
from holdover.shadow.state import BadState, State, read_state
from holdover.shadow.workstreams import BadWorkstreams, Workstream, contradictions, counted, read_workstreams


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One condition: whether it is met, None where that cannot be told, and how it stands in a sentence."""

    name: str
    met: bool | None
    told: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """All conditions, and what they come to."""

    conditions: list[Condition]
    clock: str
    workstreams: list[Workstream] = []

    @property
    def eligible(self) -> bool | None:
        """True when all are met, False when one is not, None when none is unmet but one cannot be told."""
        if any(one.met is False for one in self.conditions):
            return False
        return None if any(one.met is None for one in self.conditions) else True

    @property
    def verdict(self) -> str:
        """`eligible`, `not eligible` or `cannot tell`."""
        return {True: "eligible", False: "not eligible", None: "cannot tell"}[self.eligible]

    @property
    def exit_code(self) -> int:
        """0 eligible, 1 not, 3 when it cannot be told."""
        return {True: 0, False: 1, None: 3}[self.eligible]

    def as_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "verdict": self.verdict,
            "clock": self.clock,
            "conditions": [{"name": one.name, "met": one.met, "told": one.told} for one in self.conditions],
        }


def ask(config: ShadowConfig, now_ns: int) -> Answer:
    """Ask for everything, `now_ns` by the host's clock."""
    try:
        state = read_state(config.state)
    except BadState as problem:
        return Answer(conditions=[_unknown("state", str(problem)), *_rest(config, None)[0]], clock="T+?")
    conditions = [*_of_clock(config, state, now_ns), _breaches(state), _divergence(state), _freezes(config, state)]
    rest, workstreams = _rest(config, state)
    return Answer(conditions=[*conditions, *rest], clock=since_text(state.clock.healthy_ns), workstreams=workstreams)


def _unknown(name: str, told: str) -> Condition:
    return Condition(name=name, met=None, told=told)


def _of_clock(config: ShadowConfig, state: State, now_ns: int) -> list[Condition]:
    wanted = round(config.cutover.hours * HOUR_NS)
    healthy = state.clock.healthy_ns
    told = f"{since_text(healthy)} healthy, {config.cutover.hours:g} h are asked for"
    if state.clock.resets:
        told += f"; last reset by {state.clock.resets[-1].fault}"
    found = [Condition(name="healthy clock", met=healthy >= wanted, told=told)]
    if state.virtual:
        said = "the hours were counted on the virtual clock, over recordings"
        allowed = "; [cutover] virtual allows it" if config.cutover.virtual else ", and no live system was run for them"
        found.append(Condition(name="real hours", met=config.cutover.virtual, told=said + allowed))
        return found
    age_s = (now_ns - state.told_ns) / 1e9
    silent = [one.name for one in state.components if not one.healthy]
    if not 0 <= age_s <= config.cutover.fresh_s:
        found.append(_unknown("running", f"the shadow last wrote {age_s:.0f} s ago: how it stands now is not known"))
    else:
        heard = f"every component was heard; written {age_s:.0f} s ago"
        told = f"silent or refusing: {', '.join(silent)}" if silent else heard
        found.append(Condition(name="running", met=not silent, told=told))
    return found


def _breaches(state: State) -> Condition:
    count = state.breaches_since_reset
    told = f"breaches since the clock began: {count}" if count else "no breach since the clock began"
    return Condition(name="no breach", met=not count, told=told)


def _divergence(state: State) -> Condition:
    compared = state.compared
    if compared is None or not compared.orders:
        return _unknown("no unexplained divergence", "no order has been compared with the incumbent's")
    told = f"{compared.unexplained} of {compared.orders} orders differ without an explanation"
    if compared.differing > compared.unexplained:
        told += f", {compared.differing - compared.unexplained} with one"
    return Condition(name="no unexplained divergence", met=not compared.unexplained, told=told)


def _freezes(config: ShadowConfig, state: State) -> Condition:
    name = "no unresolved freeze"
    place = (
        config.path(config.candidate.guard) if config.candidate.guard else Path(state.guard) if state.guard else None
    )
    if place is None:
        return _unknown(name, "the candidate has no guard yet")
    try:
        frozen = guard_at(place).open_store().in_force()
    except (StoreProblem, ValueError, OSError) as problem:
        return _unknown(name, str(problem))
    told = f"frozen: {', '.join(dict.fromkeys(one.scope for one in frozen))}" if frozen else "nothing is frozen"
    return Condition(name=name, met=not frozen, told=told)


def _rest(config: ShadowConfig, state: State | None) -> tuple[list[Condition], list[Workstream]]:
    streams, workstreams = _workstreams(config)
    return [*streams, _digest(config, state)], workstreams


def _workstreams(config: ShadowConfig) -> tuple[list[Condition], list[Workstream]]:
    name = "workstreams complete"
    if not config.cutover.workstreams:
        return [Condition(name=name, met=True, told="none are named")], []
    try:
        found = read_workstreams(config.path(config.cutover.workstreams))
    except BadWorkstreams as problem:
        return [_unknown(name, str(problem))], []
    left = [f"{one.name} ({one.state}, {one.owner})" for one in found if one.required and one.state != "complete"]
    told = counted(found) + (f"; required and not complete: {_some(left)}" if left else "")
    wrong = contradictions(found)
    return [
        Condition(name=name, met=not left, told=told),
        *(Condition(name="workstreams consistent", met=False, told=_some(wrong)) for _ in wrong[:1]),
    ], found


def _some(told: Sequence[str], most: int = 3) -> str:
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return "; ".join(told[:most]) + more


def _digest(config: ShadowConfig, state: State | None) -> Condition:
    name = "the gate's catalogue"
    if not config.cutover.gate:
        return _unknown(name, "no gate is named: [cutover] gate should be what holdover gate --json printed")
    path = config.path(config.cutover.gate)
    try:
        gate = json.loads(path.read_text(encoding="utf-8"))
        passed, digest = gate["verdict"] == "met", str(gate["coverage"]["catalogue"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        return _unknown(name, f"{path.name}: is no result of holdover gate --json: {type(problem).__name__} {problem}")
    if not passed:
        return Condition(name=name, met=False, told=f"{path.name}: the gate was not met")
    if state is None or not state.digest:
        return _unknown(name, "the candidate has not said by which catalogue it was judged")
    told = f"{state.digest[:12]} in the shadow, {digest[:12]} in the gate"
    return Condition(name=name, met=state.digest == digest, told=told)
