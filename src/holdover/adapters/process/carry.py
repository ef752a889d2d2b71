"""The state-carry diagnostic: run the same day from yesterday's state and from an empty one, and compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdover.adapters.fix.end_of_day import read_end_of_day
from holdover.adapters.process.config import ProcessConfig
from holdover.adapters.process.day import DayResult, DayStart, ProcessDay, ProcessOperation
from holdover.adapters.process.judge import (
    Era,
    WireDivergence,
    WireMessage,
    audit_messages,
    find_divergence,
    order_actions,
)
from holdover.adapters.process.state_store import PREFIX
from holdover.adapters.process.wire import OUTBOUND
from holdover.audit import Audit
from holdover.catalogue import Catalogue
from holdover.recording import Recording
from holdover.world import Venue, VirtualClock

NIGHT_PART, MEMORY_PART, ERAS_PART = "venue/night", "judge/memory", "judge/eras"
"""Snapshot parts besides the subject's own: the venue's carried state, the audit's memory, and the clock eras."""

CARRIED, CONTROL, REPEAT, FIRST = "carried", "control", "control-again", "first"


class ArmBreach(msgspec.Struct, frozen=True, kw_only=True):
    """A breach in an arm.

    `by` is its source: `fix` (the process's messages), `drop-copy`, or `guard` (the process's own guard).
    """

    by: str
    invariant: str
    key: str
    explanation: str
    time_ns: int = 0


class CarryArm(msgspec.Struct, kw_only=True):
    """One arm: what the process did on the day, and the breaches of the catalogue."""

    name: str
    trade_date: str
    began_with: list[str]
    problems: list[str]
    breaches: list[ArmBreach]
    operations: list[tuple[int, str]]
    logons: int
    incarnations: int
    exit_code: int | None
    requests: int
    executions: int
    messages: int
    skipped: list[str]
    notes: list[str]
    ended_with: list[str]
    seconds: float
    wire: str

    @property
    def verdict(self) -> str:
        """`breach`; `unknown` when the day was not completed or nothing could be judged; otherwise `holds`."""
        if self.breaches:
            return "breach"
        return "unknown" if self.problems or not self.executions else "holds"


class CarryResult(msgspec.Struct, kw_only=True):
    """Both arms and their first difference. `verdict` is `holds`, `breach` or `unknown`; `reason` explains it.

    `noise` is the first difference between two runs of the control arm, which timing alone causes.
    """

    verdict: str
    reason: str
    symbols: list[str]
    day: str
    snapshot: str
    accelerate: float
    simulated: bool
    digest: str
    operations: list[str]
    arms: list[CarryArm]
    divergence: WireDivergence | None
    noise: WireDivergence | None = None

    def arm(self, name: str) -> CarryArm | None:
        """Return the arm of that name, or None."""
        return next((arm for arm in self.arms if arm.name == name), None)


class CarryRunner:
    """Runs days of one process and judges them. Its output stays below `output_directory`.

    Raises what `ProcessDay` raises.
    """

    def __init__(
        self,
        config: ProcessConfig,
        output_directory: Path,
        catalogue: Catalogue,
        *,
        operations: Sequence[ProcessOperation] = (),
        progress: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.config, self.output_directory, self.catalogue = config, output_directory, catalogue
        self.operations, self.progress = list(operations), progress
        self.arms: list[CarryArm] = []

    def run(self, arm: str, recordings: Sequence[Recording], day_start: DayStart) -> tuple[DayResult, bytes]:
        """Run one day as an arm; return its result and the memory of its audit.

        The first day has no operations, and its final state is captured.
        """
        first = arm == FIRST
        day = ProcessDay(
            self.config,
            recordings,
            self.output_directory / arm,
            arm,
            day_start=day_start,
            operations=() if first else self.operations,
            rules=self.config.redaction_rules([]) if first else None,
            progress=self.progress,
        )
        day_result = day.run()
        fix_audit = audit_messages(
            self.catalogue, day_result.messages, day_result.eras, "the process's messages", day_start.memory
        )
        drop_copy_audit = audit_messages(
            self.catalogue, day_result.drop_copy_messages, day_result.eras, "the drop copy"
        )
        breaches = [
            *_arm_breaches("fix", fix_audit, day_result.messages),
            *_arm_breaches("drop-copy", drop_copy_audit, day_result.drop_copy_messages),
        ]
        breaches += [
            ArmBreach(by="guard", invariant=breach["invariant"], key=breach["key"], explanation=breach["explanation"])
            for breach in day_result.guard_breaches
        ]
        self.arms.append(
            CarryArm(
                name=arm,
                trade_date=day_result.trade_date,
                began_with=_describe_open_orders(day_start.night, recordings),
                problems=day_result.problems,
                breaches=breaches,
                operations=day_result.operation_log,
                logons=day_result.logons,
                incarnations=day_result.incarnations,
                exit_code=day_result.exit_code,
                requests=len(order_actions(day_result.messages, OUTBOUND)),
                executions=drop_copy_audit.orders.executions,
                messages=len(day_result.messages),
                skipped=[f"{entry.line}: {entry.reason}" for entry in (*fix_audit.skipped, *drop_copy_audit.skipped)],
                notes=fix_audit.list_notes(),
                ended_with=_describe_open_orders(day_result.night, recordings),
                seconds=round(day_result.seconds, 3),
                wire=str(self.output_directory / arm / "wire.fix"),
            )
        )
        return day_result, fix_audit.to_bytes()

    def result(self, recordings: Sequence[Recording], snapshot: str, runs: dict[str, DayResult]) -> CarryResult:
        """Return the result of all arms."""
        metas = [recording.meta for recording in recordings]
        verdict, reason = self._verdict()
        is_compared = CARRIED in runs and CONTROL in runs
        return CarryResult(
            verdict=verdict,
            reason=reason,
            symbols=[meta.instrument.symbol for meta in metas],
            day=metas[0].trade_date,
            snapshot=snapshot,
            accelerate=self.config.venue.accelerate,
            simulated=any(meta.simulated for meta in metas),
            digest=self.catalogue.digest,
            operations=[str(operation) for operation in self.operations],
            arms=self.arms,
            divergence=find_divergence(runs[CARRIED].messages, runs[CONTROL].messages) if is_compared else None,
            noise=find_divergence(runs[CONTROL].messages, runs[REPEAT].messages) if REPEAT in runs else None,
        )

    def _verdict(self) -> tuple[str, str]:
        arms_by_name = {arm.name: arm for arm in self.arms}
        breached = [arm.name for arm in self.arms if arm.breaches]
        if breached:
            return "breach", f"the catalogue does not hold in the arm {', '.join(breached)}"
        carried, control = arms_by_name.get(CARRIED), arms_by_name.get(CONTROL)
        if carried is not None and control is not None and carried.problems and not control.problems:
            return "breach", f"from yesterday's state the day cannot be run, from none it can: {carried.problems[0]}"
        for arm in self.arms:
            if arm.problems:
                return "unknown", f"the arm {arm.name} was not run to its end: {arm.problems[0]}"
            if not arm.executions:
                return "unknown", f"in the arm {arm.name} the venue has said nothing about any order"
        return "holds", "the catalogue holds in each arm"


def _arm_breaches(by: str, audit: Audit, messages: Sequence[WireMessage]) -> list[ArmBreach]:
    return [
        ArmBreach(
            by=by,
            invariant=breach.invariant,
            key=breach.key,
            explanation=breach.explanation,
            time_ns=messages[breach.line - 1].time_ns if 0 < breach.line <= len(messages) else 0,
        )
        for breach in audit.breaches
    ]


def _describe_open_orders(night: bytes, recordings: Sequence[Recording]) -> list[str]:
    """Return the orders that a venue has open overnight, in words."""
    if not night:
        return []
    instruments = [recording.meta.instrument for recording in recordings]
    venue = Venue(VirtualClock(0), instruments)
    venue.restore_bytes(read_end_of_day(night).venue)
    return [repr(order.to_record()) for order in venue.orders.values() if order.is_open]


def snapshot_parts(config: ProcessConfig, day_result: DayResult, memory: bytes) -> dict[str, bytes]:
    """Return the parts of the snapshot at the end of a day, with the secrets of the venue's part redacted too.

    The audit's memory cannot be redacted; it is left out when the config has redaction rules of its own.
    """
    rules = config.redaction_rules([])
    parts = {
        **day_result.parts,
        NIGHT_PART: rules.redact_content(day_result.night),
        ERAS_PART: msgspec.msgpack.encode(day_result.eras),
    }
    return parts if config.redact.fields or config.redact.patterns else {**parts, MEMORY_PART: memory}


def day_start_of(parts: dict[str, bytes]) -> DayStart:
    """Return the start of a day that continues from a snapshot."""
    return DayStart(
        parts={name: content for name, content in parts.items() if name.startswith(f"{PREFIX}/")},
        night=parts.get(NIGHT_PART, b""),
        memory=parts.get(MEMORY_PART, b""),
        eras=msgspec.msgpack.decode(parts[ERAS_PART], type=list[Era]) if ERAS_PART in parts else [],
    )


def to_json(carry: CarryResult) -> dict[str, Any]:
    """Return the result as one JSON object."""
    result: dict[str, Any] = msgspec.to_builtins(carry)
    for arm, carry_arm in zip(result["arms"], carry.arms, strict=True):
        arm["verdict"] = carry_arm.verdict
    return result
