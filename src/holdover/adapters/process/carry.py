"""The state-carry diagnostic of a process: the same day from yesterday's state and from none, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdover.adapters.fix.night import read_night
from holdover.adapters.process.config import ProcessConfig
from holdover.adapters.process.day import Begin, LiveDay, Operation, Ran
from holdover.adapters.process.judge import Era, Parted, Passed, acts, judged, parted
from holdover.adapters.process.place import PREFIX
from holdover.adapters.process.wire import OUT
from holdover.audit import Audit
from holdover.catalogue import Catalogue
from holdover.recording import Recording
from holdover.world import Clock, Venue

NIGHT, MEMORY, ERAS = "venue/night", "judge/memory", "judge/eras"
"""The parts of a snapshot beside the subject's own: what the venue carries, and what the judgement remembers."""

CARRIED, CONTROL, AGAIN, FIRST = "carried", "control", "control-again", "first"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A breach of an arm. `by` is who saw it: `fix` (its own messages), `drop-copy`, or `guard` (one of its own)."""

    by: str
    invariant: str
    key: str
    explanation: str
    time_ns: int = 0


class Arm(msgspec.Struct, kw_only=True):
    """One arm: what the process did on the day, and what the catalogue says of it."""

    name: str
    trade_date: str
    began_with: list[str]
    problems: list[str]
    breaches: list[Seen]
    operations: list[tuple[int, str]]
    logons: int
    lives: int
    returned: int | None
    requests: int
    executions: int
    messages: int
    skipped: list[str]
    notes: list[str]
    ended_with: list[str]
    seconds: float
    wire: str

    @property
    def told(self) -> str:
        """`breach`, `unknown` where the day was not run to its end or nothing could be judged, else `holds`."""
        if self.breaches:
            return "breach"
        return "unknown" if self.problems or not self.executions else "holds"


class Carry(msgspec.Struct, kw_only=True):
    """Both arms, and where they part. `verdict` is `holds`, `breach` or `unknown`; `why` says it in a sentence.

    `noise` is where the control parts from itself, run again: what timing alone does.
    """

    verdict: str
    why: str
    symbols: list[str]
    day: str
    snapshot: str
    accelerate: float
    simulated: bool
    digest: str
    operations: list[str]
    arms: list[Arm]
    parted: Parted | None
    noise: Parted | None = None

    def arm(self, name: str) -> Arm | None:
        """One arm by name."""
        return next((one for one in self.arms if one.name == name), None)


class Carrier:
    """Runs days of one process and judges them; what it leaves is below `out`.

    Raises what `LiveDay` raises.
    """

    def __init__(
        self,
        config: ProcessConfig,
        out: Path,
        catalogue: Catalogue,
        *,
        operations: Sequence[Operation] = (),
        progress: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.config, self.out, self.catalogue = config, out, catalogue
        self.operations, self.progress = list(operations), progress
        self.arms: list[Arm] = []

    def run(self, arm: str, recordings: Sequence[Recording], begin: Begin) -> tuple[Ran, bytes]:
        """Run one day as an arm; returns what it came to and the memory of its judgement.

        The first day is undisturbed, and the state that it ends with is taken.
        """
        first = arm == FIRST
        day = LiveDay(
            self.config,
            recordings,
            self.out / arm,
            arm,
            begin=begin,
            operations=() if first else self.operations,
            rules=self.config.rules([]) if first else None,
            progress=self.progress,
        )
        ran = day.run()
        own = judged(self.catalogue, ran.passed, ran.eras, "the process's messages", begin.memory)
        copy = judged(self.catalogue, ran.copied, ran.eras, "the drop copy")
        breaches = [*_seen("fix", own, ran.passed), *_seen("drop-copy", copy, ran.copied)]
        breaches += [
            Seen(by="guard", invariant=one["invariant"], key=one["key"], explanation=one["explanation"])
            for one in ran.guarded
        ]
        self.arms.append(
            Arm(
                name=arm,
                trade_date=ran.trade_date,
                began_with=_open_at(begin.night, recordings),
                problems=ran.problems,
                breaches=breaches,
                operations=ran.done,
                logons=ran.logons,
                lives=ran.lives,
                returned=ran.returned,
                requests=len(acts(ran.passed, OUT)),
                executions=copy.orders.executions,
                messages=len(ran.passed),
                skipped=[f"{one.line}: {one.reason}" for one in (*own.skipped, *copy.skipped)],
                notes=own.notes(),
                ended_with=_open_at(ran.night, recordings),
                seconds=round(ran.seconds, 3),
                wire=str(self.out / arm / "wire.fix"),
            )
        )
        return ran, own.dump()

    def result(self, recordings: Sequence[Recording], snapshot: str, runs: dict[str, Ran]) -> Carry:
        """What the arms come to."""
        metas = [one.meta for one in recordings]
        verdict, why = self._verdict()
        both = CARRIED in runs and CONTROL in runs
        return Carry(
            verdict=verdict,
            why=why,
            symbols=[one.instrument.symbol for one in metas],
            day=metas[0].trade_date,
            snapshot=snapshot,
            accelerate=self.config.accelerate,
            simulated=any(one.simulated for one in metas),
            digest=self.catalogue.digest,
            operations=[str(one) for one in self.operations],
            arms=self.arms,
            parted=parted(runs[CARRIED].passed, runs[CONTROL].passed) if both else None,
            noise=parted(runs[CONTROL].passed, runs[AGAIN].passed) if AGAIN in runs else None,
        )

    def _verdict(self) -> tuple[str, str]:
        told = {one.name: one for one in self.arms}
        broken = [one.name for one in self.arms if one.breaches]
        if broken:
            return "breach", f"the catalogue does not hold in the arm {', '.join(broken)}"
        carried, control = told.get(CARRIED), told.get(CONTROL)
        if carried is not None and control is not None and carried.problems and not control.problems:
            return "breach", f"from yesterday's state the day cannot be run, from none it can: {carried.problems[0]}"
        for one in self.arms:
            if one.problems:
                return "unknown", f"the arm {one.name} was not run to its end: {one.problems[0]}"
            if not one.executions:
                return "unknown", f"in the arm {one.name} the venue has said nothing about any order"
        return "holds", "the catalogue holds in each arm"


def _seen(by: str, audit: Audit, passed: Sequence[Passed]) -> list[Seen]:
    return [
        Seen(
            by=by,
            invariant=one.invariant,
            key=one.key,
            explanation=one.explanation,
            time_ns=passed[one.line - 1].time_ns if 0 < one.line <= len(passed) else 0,
        )
        for one in audit.breaches
    ]


def _open_at(night: bytes, recordings: Sequence[Recording]) -> list[str]:
    """The orders that a venue has open over a night, in words."""
    if not night:
        return []
    instruments = [one.meta.instrument for one in recordings]
    venue = Venue(Clock(0), instruments)
    venue.load(read_night(night).venue)
    return [repr(one.record()) for one in venue.orders.values() if one.is_open]


def parts_of(config: ProcessConfig, ran: Ran, memory: bytes) -> dict[str, bytes]:
    """The parts of the snapshot at the end of a day, what the file calls secret taken out of the venue's too.

    The judgement's memory cannot be redacted: where the file has rules of its own it is left out.
    """
    rules = config.rules([])
    parts = {**ran.parts, NIGHT: rules.redacted(ran.night), ERAS: msgspec.msgpack.encode(ran.eras)}
    return parts if config.redact_fields or config.redact_patterns else {**parts, MEMORY: memory}


def begin_of(parts: dict[str, bytes]) -> Begin:
    """What a day begins with that goes on from a snapshot."""
    return Begin(
        parts={name: content for name, content in parts.items() if name.startswith(f"{PREFIX}/")},
        night=parts.get(NIGHT, b""),
        memory=parts.get(MEMORY, b""),
        eras=msgspec.msgpack.decode(parts[ERAS], type=list[Era]) if ERAS in parts else [],
    )


def as_json(carry: Carry) -> dict[str, Any]:
    """The result as one object."""
    told: dict[str, Any] = msgspec.to_builtins(carry)
    for arm, one in zip(told["arms"], carry.arms, strict=True):
        arm["verdict"] = one.told
    return told
