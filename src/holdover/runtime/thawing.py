"""An operator's thaw, asked for from outside the process that froze: one way for the command line and the console.

The guard that froze judges it, because its monitor knows whether the invariant holds again. Where it gives no sign of
life, a guard is opened on its directory and judges by the memory that the process left there. What nobody can judge is
refused, unless a second person forces it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.runtime.config import GuardConfig, read_config
from holdover.runtime.database import StoreProblem
from holdover.runtime.freezes import Freeze, FreezeStore, ThawRequest
from holdover.runtime.guard import Guard, ThawRefused
from holdover.runtime.heartbeat import Health, Seen, look

_PAUSE_S: Final = 0.05


class Thawed(msgspec.Struct, frozen=True, kw_only=True):
    """A thaw that was done: how many freezes it ended, and which guard judged it (empty: one opened for it)."""

    ended: int
    judged_by: str = ""


def guard_at(path: Path, *, must_exist: bool = True) -> GuardConfig:
    """What is known of a guard by its directory or its configuration in TOML.

    Raises `BadConfig`, and `StoreProblem` where `must_exist` and no guard has ever run there.
    """
    config = read_config(path) if path.is_file() else GuardConfig(directory=path, here=path)
    in_file = not (config.store.url_env or config.store.url_file)
    if must_exist and in_file and not (config.directory / "guard.db").exists():
        raise StoreProblem(f"{path}: no guard has ever run here (guard.db is missing)")
    return config


def thaw(
    config: GuardConfig,
    store: FreezeStore,
    request: ThawRequest,
    *,
    wait_s: float = 5.0,
    clock: Callable[[], int] = time.time_ns,
    pause: Callable[[float], None] = time.sleep,
) -> Thawed:
    """End the freezes of a scope, as `request` says; its number is not looked at.

    Raises `ThawRefused` with the reason, and `StoreProblem`.
    """
    kept = [freeze for freeze in store.in_force() if freeze.scope == request.scope]
    _check(request, kept, store)
    judge = _judge(config, store, kept, clock(), forced=bool(request.forced_by))
    if judge is None:
        return Thawed(ended=_by_memory(config, request))
    number = store.ask_thaw(request, judge.name, clock())
    until = time.monotonic() + wait_s
    said = store.answered(number)
    while said is None and time.monotonic() < until:
        pause(_PAUSE_S)
        said = store.answered(number)
    if said is None:
        said = store.withdraw(number, clock())
    if said is None and any(not store.thawed(freeze) for freeze in kept):
        raise ThawRefused(
            f"the guard {judge.name} has not answered within {wait_s:g} s ({judge.health}: {judge.why}), and nothing "
            f"was thawed: restart it, then thaw again"
        )
    if said:
        raise ThawRefused(said)
    return Thawed(ended=len(kept), judged_by=judge.name)


def _check(request: ThawRequest, kept: list[Freeze], store: FreezeStore) -> None:
    for what, said in (("operator", request.operator), ("reason", request.reason), ("evidence", request.evidence)):
        if not said.strip():
            raise ThawRefused(f"a thaw needs {what}: say who, why and on what evidence")
    if not kept:
        frozen = ", ".join(dict.fromkeys(freeze.scope for freeze in store.in_force())) or "nothing"
        raise ThawRefused(f"{request.scope} is not frozen; frozen is: {frozen}")
    if request.forced_by and request.forced_by.strip() == request.operator.strip():
        raise ThawRefused("a forced thaw needs the name of a second person")


def _judge(config: GuardConfig, store: FreezeStore, kept: list[Freeze], now_ns: int, *, forced: bool) -> Seen | None:
    """The running guard that is to judge; None when it is the memory in the directory. Raises `ThawRefused`."""
    known = {seen.name: seen for seen in look(store, now_ns)}
    live = {name: seen for name, seen in known.items() if seen.health not in (Health.SILENT, Health.STOPPED)}
    holders = list(dict.fromkeys(freeze.holder for freeze in kept if freeze.breach))
    if len(holders) > 1 and not forced:
        raise ThawRefused(
            f"{kept[0].scope} was frozen by the guards {' and '.join(holders)}, and none can judge for another: "
            f"a second person has to force the thaw"
        )
    for name in [*holders, config.name]:
        if name in live:
            return live[name]
        if name in known and name != config.name and not forced:
            raise ThawRefused(
                f"the guard {name} that froze {kept[0].scope} does not run ({known[name].why}) and its memory is not "
                f"here: start it, thaw beside its directory, or have a second person force the thaw"
            )
    return None


def _by_memory(config: GuardConfig, request: ThawRequest) -> int:
    guard = Guard(
        config.directory,
        catalogue=Catalogue.load(*config.catalogue),
        clock=time.time_ns,
        channels=[],
        store=config.open_store(),
        name=config.name,
    )
    try:
        try:
            guard.recall()
        except ValueError as problem:
            if not request.forced_by:
                raise ThawRefused(
                    f"the memory of the guard {config.name} cannot be read ({problem}): whether the invariant holds "
                    f"again cannot be told, and a second person has to force the thaw"
                ) from None
        return guard.thaw(
            request.scope,
            operator=request.operator,
            reason=request.reason,
            evidence=request.evidence,
            forced_by=request.forced_by,
        )
    finally:
        guard.close()
