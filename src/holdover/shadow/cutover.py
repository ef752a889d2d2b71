"""May the candidate go live? Evaluates every condition separately; none is weighed against another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdover.runtime import StoreError
from holdover.runtime.thaw_requests import find_guard_config
from holdover.shadow.clock import HOUR_NS, healthy_time_text
from holdover.shadow.config import ShadowConfig
from holdover.shadow.state import ShadowState, ShadowStateError, read_state
from holdover.shadow.workstreams import (
    Workstream,
    WorkstreamsError,
    find_contradictions,
    read_workstreams,
    workstreams_text,
)


class CutoverCondition(msgspec.Struct, frozen=True, kw_only=True):
    """One condition: whether it is met (None when that cannot be determined), and the details in a sentence."""

    name: str
    met: bool | None
    detail: str


class CutoverAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All conditions and the verdict."""

    conditions: list[CutoverCondition]
    clock: str
    workstreams: list[Workstream] = []

    @property
    def eligible(self) -> bool | None:
        """True when all conditions are met, False when one is not, None when one cannot be determined and none
        is unmet.
        """
        if any(condition.met is False for condition in self.conditions):
            return False
        return None if any(condition.met is None for condition in self.conditions) else True

    @property
    def verdict(self) -> str:
        """`eligible`, `not eligible` or `cannot tell`."""
        return {True: "eligible", False: "not eligible", None: "cannot tell"}[self.eligible]

    @property
    def exit_code(self) -> int:
        """0 when eligible, 1 when not, 3 when it cannot be determined."""
        return {True: 0, False: 1, None: 3}[self.eligible]

    def to_json(self) -> dict[str, Any]:
        """Returns the answer as one JSON object."""
        return {
            "verdict": self.verdict,
            "clock": self.clock,
            "conditions": [
                {"name": condition.name, "met": condition.met, "detail": condition.detail}
                for condition in self.conditions
            ],
        }


def check_cutover(config: ShadowConfig, now_ns: int) -> CutoverAnswer:
    """Evaluate all conditions at `now_ns` (host's clock)."""
    try:
        state = read_state(config.state_path)
    except ShadowStateError as problem:
        return CutoverAnswer(
            conditions=[_unknown_condition("state", str(problem)), *_file_conditions(config, None)[0]], clock="T+?"
        )
    conditions = [
        *_clock_conditions(config, state, now_ns),
        _breach_condition(state),
        _divergence_condition(state),
        _freeze_condition(config, state),
    ]
    rest, workstreams = _file_conditions(config, state)
    return CutoverAnswer(
        conditions=[*conditions, *rest], clock=healthy_time_text(state.clock.healthy_ns), workstreams=workstreams
    )


def _unknown_condition(name: str, detail: str) -> CutoverCondition:
    return CutoverCondition(name=name, met=None, detail=detail)


def _clock_conditions(config: ShadowConfig, state: ShadowState, now_ns: int) -> list[CutoverCondition]:
    required_ns = round(config.cutover.hours * HOUR_NS)
    healthy_ns = state.clock.healthy_ns
    detail = f"{healthy_time_text(healthy_ns)} healthy, {config.cutover.hours:g} h are asked for"
    if state.clock.resets:
        detail += f"; last reset by {state.clock.resets[-1].fault}"
    conditions = [CutoverCondition(name="healthy clock", met=healthy_ns >= required_ns, detail=detail)]
    if state.virtual:
        origin = "the hours were counted on the virtual clock, over recordings"
        allowed = "; [cutover] virtual allows it" if config.cutover.virtual else ", and no live system was run for them"
        conditions.append(CutoverCondition(name="real hours", met=config.cutover.virtual, detail=origin + allowed))
        return conditions
    age_s = (now_ns - state.checked_ns) / 1e9
    silent = [component.name for component in state.components if not component.healthy]
    if not 0 <= age_s <= config.cutover.fresh_s:
        conditions.append(
            _unknown_condition("running", f"the shadow last wrote {age_s:.0f} s ago: how it stands now is not known")
        )
    else:
        healthy_text = f"every component was heard; written {age_s:.0f} s ago"
        detail = f"silent or refusing: {', '.join(silent)}" if silent else healthy_text
        conditions.append(CutoverCondition(name="running", met=not silent, detail=detail))
    return conditions


def _breach_condition(state: ShadowState) -> CutoverCondition:
    count = state.breaches_since_reset
    detail = f"breaches since the clock began: {count}" if count else "no breach since the clock began"
    return CutoverCondition(name="no breach", met=not count, detail=detail)


def _divergence_condition(state: ShadowState) -> CutoverCondition:
    compared = state.compared
    if compared is None or not compared.orders:
        return _unknown_condition("no unexplained divergence", "no order has been compared with the incumbent's")
    detail = f"{compared.unexplained} of {compared.orders} orders differ without an explanation"
    if compared.differing > compared.unexplained:
        detail += f", {compared.differing - compared.unexplained} with one"
    return CutoverCondition(name="no unexplained divergence", met=not compared.unexplained, detail=detail)


def _freeze_condition(config: ShadowConfig, state: ShadowState) -> CutoverCondition:
    name = "no unresolved freeze"
    guard_path = (
        config.resolve_path(config.candidate.guard)
        if config.candidate.guard
        else Path(state.guard)
        if state.guard
        else None
    )
    if guard_path is None:
        return _unknown_condition(name, "the candidate has no guard yet")
    try:
        frozen = find_guard_config(guard_path).open_store().active_freezes()
    except (StoreError, ValueError, OSError) as problem:
        return _unknown_condition(name, str(problem))
    detail = f"frozen: {', '.join(dict.fromkeys(freeze.scope for freeze in frozen))}" if frozen else "nothing is frozen"
    return CutoverCondition(name=name, met=not frozen, detail=detail)


def _file_conditions(
    config: ShadowConfig, state: ShadowState | None
) -> tuple[list[CutoverCondition], list[Workstream]]:
    conditions, workstreams = _workstream_conditions(config)
    return [*conditions, _catalogue_condition(config, state)], workstreams


def _workstream_conditions(config: ShadowConfig) -> tuple[list[CutoverCondition], list[Workstream]]:
    name = "workstreams complete"
    if not config.cutover.workstreams:
        return [CutoverCondition(name=name, met=True, detail="none are named")], []
    try:
        workstreams = read_workstreams(config.resolve_path(config.cutover.workstreams))
    except WorkstreamsError as problem:
        return [_unknown_condition(name, str(problem))], []
    incomplete = [
        f"{workstream.name} ({workstream.state}, {workstream.owner})"
        for workstream in workstreams
        if workstream.required and workstream.state != "complete"
    ]
    detail = workstreams_text(workstreams) + (
        f"; required and not complete: {_join_first(incomplete)}" if incomplete else ""
    )
    problems = find_contradictions(workstreams)
    return [
        CutoverCondition(name=name, met=not incomplete, detail=detail),
        *(
            CutoverCondition(name="workstreams consistent", met=False, detail=_join_first(problems))
            for _ in problems[:1]
        ),
    ], workstreams


def _join_first(items: Sequence[str], limit: int = 3) -> str:
    remainder = f" and {len(items) - limit} more" if len(items) > limit else ""
    return "; ".join(items[:limit]) + remainder


def _catalogue_condition(config: ShadowConfig, state: ShadowState | None) -> CutoverCondition:
    name = "the gate's catalogue"
    if not config.cutover.gate:
        return _unknown_condition(name, "no gate is named: [cutover] gate should be what holdover gate --json printed")
    path = config.resolve_path(config.cutover.gate)
    try:
        gate = json.loads(path.read_text(encoding="utf-8"))
        is_met, digest = gate["verdict"] == "met", str(gate["coverage"]["catalogue"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        return _unknown_condition(
            name, f"{path.name}: is no result of holdover gate --json: {type(problem).__name__} {problem}"
        )
    if not is_met:
        return CutoverCondition(name=name, met=False, detail=f"{path.name}: the gate was not met")
    if state is None or not state.digest:
        return _unknown_condition(name, "the candidate has not said by which catalogue it was judged")
    detail = f"{state.digest[:12]} in the shadow, {digest[:12]} in the gate"
    if state.digest != digest and state.policy:
        detail += f"; the policy of the candidate's guard, which the gate does not have: {'; '.join(state.policy)}"
    return CutoverCondition(name=name, met=state.digest == digest, detail=detail)
