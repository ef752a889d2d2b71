"""The merge gates: does a gate fail on a change that carries a fault?

The gate of the first half-year is the desk's fresh-state unit tests and line coverage. Holdover's gate has a
fixed size: the cycle's schedule on two recorded days, then drawn schedules of three to ten operations over
two short days, each played from a fresh start to its first breach. An ablation is the same gate without one
part.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from casestudy.reel import make_ordered_reel, write_mock_store
from holdover.catalogue import Catalogue
from holdover.harness import Session, SessionConfig, resolve_factory
from holdover.harness.player import Player, play
from holdover.harness.schedule import DEFAULT_SCHEDULE, KINDS, Operation, Schedule, bind_schedule, make_schedule
from holdover.recording import RecordingStore

ARMS: Final = ("holdover", "no-recorded", "no-restarts", "no-overnight")
"""Holdover's gate whole, and without one part."""

_RESTARTS: Final = ("kill", "kill-unsynced", "torn", "stale", "kill-during-recovery", "clean", "upgrade")
_FAMILIES: Final = (
    _RESTARTS,
    _RESTARTS,
    ("lose", "hold", "duplicate", "reorder", "not-found"),
    ("venue-cancel", "by-hand", "bust", "correct", "refuse", "disable", "refuse-logon"),
    ("cancel", "replace", "submit", "freeze"),
    ("disconnect",),
)
_CHOICES: Final[dict[str, tuple[int, ...]]] = {
    "down_seconds": (0, 0, 5, 120, 900),
    "mutations": (1, 5, 20),
    "recovery": (1, 2),
    "lose_out": (0, 1),
    "milliseconds": (200, 3_000, 10_000),
    "order": (0, 1, 2, 3),
    "account": (0, 1),
    "side": (0, 1),
    "trade": (0, 1, 5),
    "ticks": (-3, 1, 5),
    "strategy": (0, 1, 2),
}


class GateResult(msgspec.Struct, kw_only=True):
    """What a gate has said of a fault: whether it failed, by what, after how many plays; the cycle counts as one."""

    fault: str
    arm: str
    is_caught: bool
    by: str = ""
    plays: int = 0


def fresh_gate(root: Path, fault: str) -> GateResult:
    """The desk's fresh-state unit tests with the fault on. Raises `RuntimeError` when they could not be run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    completed = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "tests/unit/desk_fresh",
        ],
        cwd=root,
        env={**environment, "HOLDOVER_FAULTS": fault},
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode not in (0, 1):
        raise RuntimeError(
            f"the fresh-state tests could not be run with {fault}: {completed.stdout[-400:]}{completed.stderr[-400:]}"
        )
    failed = [line.split("::")[-1].split(" ")[0] for line in completed.stdout.splitlines() if line.startswith("FAILED")]
    return GateResult(fault=fault, arm="fresh", is_caught=bool(completed.returncode), by=", ".join(failed[:1]), plays=1)


def holdover_gate(
    store: RecordingStore, symbols: Sequence[str], directory: Path, fault: str, arm: str, plays: int
) -> GateResult:
    """Holdover's gate, or what is left of it in an arm, on a fault; an empty name is the desk without any."""
    catalogue = Catalogue.load()
    days = 1 if arm == "no-overnight" else 2
    if arm == "no-recorded":
        instrument = store.get(symbols[0], store.days(symbols[0])[0]).meta.instrument
        symbols = symbols[:1]
        store = write_mock_store(directory / "mock", instrument)
    reel = make_ordered_reel(store, symbols, days)
    faults = [fault] if fault else []
    by = _run_cycle(reel, symbols, directory / "cycle", faults, catalogue, arm)
    if by:
        return GateResult(fault=fault, arm=arm, is_caught=True, by=by, plays=1)
    for number in range(plays):
        operations = draw_operations(random.Random(f"gate {number}"), arm, days)
        schedule = make_schedule(reel, symbols, reel.days(symbols[0]), catalogue, faults=faults, operations=operations)
        played = play(
            schedule,
            directory / "play",
            store=reel,
            catalogue=catalogue,
            journal=False,
            scratch=True,
            to_breach=True,
        )
        if played.verdict == "breach":
            return GateResult(fault=fault, arm=arm, is_caught=True, by=played.mark.rpartition("/")[2], plays=number + 2)
    shutil.rmtree(directory, ignore_errors=True)
    return GateResult(fault=fault, arm=arm, is_caught=False, plays=plays + 1)


def _run_cycle(
    reel: RecordingStore, symbols: Sequence[str], directory: Path, faults: Sequence[str], catalogue: Catalogue, arm: str
) -> str:
    """What the carried arm of the cycle breaches first on these days; empty when it holds."""
    days = reel.days(symbols[0])
    shutil.rmtree(directory, ignore_errors=True)
    session = Session(
        resolve_factory("desk"),
        reel,
        symbols,
        directory,
        SessionConfig(
            days=days,
            faults=faults,
            catalogue=catalogue,
            journal=False,
            scratch=True,
        ),
    )
    session.guard.evidence.on_breach = lambda breach: session.stop()
    try:
        schedule = bind_schedule(_cycle(arm), reel, symbols, days)
        player = Player(schedule, reel, directory, session=session, to_breach=True)
        for number, day in enumerate(days):
            player.play_day(number, day)
            if session.breaches:
                return session.breaches[0].invariant
    except Exception as problem:  # the desk raised: that fails a gate as well
        return f"crash: {type(problem).__name__}"
    finally:
        session.close()
    return ""


def _cycle(arm: str) -> Schedule:
    """The cycle's own schedule; without its kill where there are no restarts."""
    if arm != "no-restarts":
        return DEFAULT_SCHEDULE
    operations = [operation for operation in DEFAULT_SCHEDULE.operations if operation.kind.family != "restart"]
    return DEFAULT_SCHEDULE.replace(name="no restart", operations=operations)


def draw_operations(rng: random.Random, arm: str, days: int) -> list[Operation]:
    """Three to ten operations over short days. The same draws in every arm, but for what the arm has not."""
    operations: list[Operation] = []
    for day in range(days):
        seconds = rng.randint(900, 4000)
        for _ in range(rng.randint(1, 5)):
            kind = rng.choice(rng.choice(_FAMILIES))
            operation = _operation(rng, kind, day, seconds)
            if not (arm == "no-restarts" and operation.kind.family == "restart"):
                operations.append(operation)
        operations.append(Operation(day=day, at="second", n=seconds + (300 if day else 0), do="overnight"))
    return operations


def _operation(rng: random.Random, do: str, day: int, seconds: int) -> Operation:
    mutations, messages = max(seconds // 4, 10), max(seconds // 30, 5)
    numbers = [_number(rng, name, default, do) for name, default in KINDS[do].parameters]
    at, n = "second", rng.randint(1, seconds)
    if do in _FAMILIES[2]:
        at, n = rng.choice(("in", "out")), rng.randint(1, messages)
    elif KINDS[do].family in ("restart", "link"):
        at = rng.choice(("mutation", "mutation", "delivered", "sent"))
        n = rng.randint(1, mutations if at == "mutation" else messages)
    return Operation(day=day, at=at, n=n, do=do, with_=numbers)  # type: ignore[arg-type]


def _number(rng: random.Random, name: str, default: int, do: str) -> int:
    if name == "lots":
        return rng.choice({"by-hand": (1, 50, 2_000), "correct": (-20, -1, 0)}.get(do, (1, 100, 1_000)))
    if name == "seconds":
        return rng.choice((1, 20, 90, 600) if do == "disconnect" else (10, 120, 900))
    return rng.choice(_CHOICES.get(name, (default,)))


__all__ = ["ARMS", "GateResult", "draw_operations", "fresh_gate", "holdover_gate"]
