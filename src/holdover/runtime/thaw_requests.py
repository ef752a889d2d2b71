"""Thaw requests from outside the process that froze, for the command line and the console.

The guard that froze decides, because its monitor can evaluate the invariant; when several froze a scope, all of them
have to agree. If it is not running, its saved
state decides: this module opens a guard on its directory. If neither is available, the thaw is refused unless
a second person forces it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from holdover.runtime.config import GuardConfig, GuardTable, read_config
from holdover.runtime.database import StoreError
from holdover.runtime.freeze_store import AGREES, Freeze, FreezeStore, ThawRequest
from holdover.runtime.guard import Guard, GuardSettings, ThawRefusedError
from holdover.runtime.guard_folder import FolderLock, GuardFolder, GuardInUseError, read_lock, read_owner
from holdover.runtime.heartbeat import Health, ProcessHealth, read_health

_PAUSE_S: Final = 0.05


class ThawResult(msgspec.Struct, frozen=True, kw_only=True):
    """A completed thaw: how many freezes it ended, and which guard decided (empty: one opened on the saved state)."""

    ended_count: int
    judged_by: str = ""


def find_guard_config(path: Path, *, must_exist: bool = True) -> GuardConfig:
    """Return the configuration of a guard by its directory or its TOML file.

    Raises `GuardConfigError`, and `StoreError` when `must_exist` is true and no guard has ever run there.
    """
    if path.is_file():
        config = read_config(path)
    else:
        config = GuardConfig.for_directory(path)
        if name := read_owner(path):
            config = msgspec.structs.replace(config, guard=GuardTable(directory=".", name=name))
    in_file = not (config.store.url_env or config.store.url_file)
    if must_exist and in_file and not (config.directory / "guard.db").exists():
        raise StoreError(f"{path}: no guard has ever run here (guard.db is missing)")
    return config


def thaw(
    config: GuardConfig,
    store: FreezeStore,
    request: ThawRequest,
    *,
    wait_s: float = 5.0,
    clock: Callable[[], int] = time.time_ns,
    pause: Callable[[float], None] = time.sleep,
) -> ThawResult:
    """End the freezes of a scope as `request` says; ignores the request's number.

    Raises `ThawRefusedError` with the reason, and `StoreError`.
    """
    freezes = [freeze for freeze in store.active_freezes() if freeze.scope == request.scope]
    _check_request(request, freezes, store)
    judges = _find_judges(config, store, freezes, clock(), forced=bool(request.forced_by))
    for judge in judges[:-1]:
        if judge is None:
            raise AssertionError("only the last judge is a saved state")
        question = msgspec.structs.replace(request, judges_only=True)
        answer = _ask(store, judge, question, wait_s, clock, pause)
        if answer is None or not answer.startswith(AGREES):
            raise ThawRefusedError(answer or _no_answer(judge, wait_s))
        numbers = [int(number) for number in answer.removeprefix(AGREES).split(",") if number]
        request = msgspec.structs.replace(request, agreed=[*request.agreed, *numbers])
    judge = judges[-1]
    if judge is None:
        return ThawResult(ended_count=_thaw_by_saved_state(config, request))
    answer = _ask(store, judge, request, wait_s, clock, pause)
    if answer is None and any(not store.is_thawed(freeze) for freeze in freezes):
        raise ThawRefusedError(_no_answer(judge, wait_s))
    if answer:
        raise ThawRefusedError(answer)
    return ThawResult(ended_count=len(freezes), judged_by=" and ".join(judge.name for judge in judges if judge))


def _ask(
    store: FreezeStore,
    judge: ProcessHealth,
    request: ThawRequest,
    wait_s: float,
    clock: Callable[[], int],
    pause: Callable[[float], None],
) -> str | None:
    """Return a guard's answer to a request; None when it gave none, and the request is withdrawn."""
    number = store.request_thaw(request, judge.name, clock())
    deadline_s = time.monotonic() + wait_s
    answer = store.find_answer(number)
    while answer is None and time.monotonic() < deadline_s:
        pause(_PAUSE_S)
        answer = store.find_answer(number)
    return answer if answer is not None else store.withdraw_request(number, clock())


def _no_answer(judge: ProcessHealth, wait_s: float) -> str:
    return (
        f"the guard {judge.name} has not answered within {wait_s:g} s ({judge.health}: {judge.reason}), and "
        f"nothing was thawed: restart it, then thaw again"
    )


def _check_request(request: ThawRequest, freezes: list[Freeze], store: FreezeStore) -> None:
    for field_name, value in (
        ("operator", request.operator),
        ("reason", request.reason),
        ("evidence", request.evidence),
    ):
        if not value.strip():
            raise ThawRefusedError(f"a thaw needs {field_name}: say who, why and on what evidence")
    if not freezes:
        frozen = ", ".join(dict.fromkeys(freeze.scope for freeze in store.active_freezes())) or "nothing"
        raise ThawRefusedError(f"{request.scope} is not frozen; frozen is: {frozen}")
    if request.forced_by and request.forced_by.strip() == request.operator.strip():
        raise ThawRefusedError("a forced thaw needs the name of a second person")


def _find_judges(
    config: GuardConfig, store: FreezeStore, freezes: list[Freeze], now_ns: int, *, forced: bool
) -> list[ProcessHealth | None]:
    """Return the running guards that decide, the one that thaws last; None is the saved state in the directory.

    Every guard that froze the scope judges its own breaches, because none can judge for another. With `forced` the
    first one that is found thaws. Raises `ThawRefusedError`.
    """
    processes = {process.name: process for process in read_health(store, now_ns)}
    running = {
        name: process for name, process in processes.items() if process.health not in (Health.SILENT, Health.STOPPED)
    }
    holders = list(dict.fromkeys(freeze.holder for freeze in freezes if freeze.breach))
    holders.sort(key=lambda name: name == config.name)  # its saved state can thaw, but not only judge
    judges: list[ProcessHealth | None] = []
    for name in holders or [config.name]:
        if name in running and not (name == config.name and is_dead(config, running[name])):
            judges.append(running[name])
        elif name in processes and name != config.name and not forced:
            raise ThawRefusedError(
                f"the guard {name} that froze {freezes[0].scope} does not run ({processes[name].reason}) and its "
                f"memory is not here: start it, thaw beside its directory, or have a second person force the thaw"
            )
        else:
            judges.append(None)
    if forced:
        return [next((judge for judge in judges if judge is not None), _running_config(config, running))]
    if None in judges[:-1]:
        unknown = " and ".join(name for name, judge in zip(holders, judges, strict=False) if judge is None)
        raise ThawRefusedError(
            f"{freezes[0].scope} was frozen by the guards {' and '.join(holders)}, and {unknown} does not run: start "
            f"it, or have a second person force the thaw"
        )
    if judges == [None]:
        return [_running_config(config, running)]
    return judges


def _running_config(config: GuardConfig, running: dict[str, ProcessHealth]) -> ProcessHealth | None:
    process = running.get(config.name)
    return process if process is not None and not is_dead(config, process) else None


def is_dead(config: GuardConfig, process: ProcessHealth) -> bool:
    """Whether the process of a guard on this host has ended: its lock is free, however recent its last heartbeat is."""
    record = read_lock(GuardFolder(config.directory, config.name).lock)
    if record is None or record.pid != process.beat.pid or process.beat.host != socket.gethostname():
        return False
    try:
        FolderLock(config.directory, config.name, owns=False).release()
    except GuardInUseError:
        return False
    return True


def _thaw_by_saved_state(config: GuardConfig, request: ThawRequest) -> int:
    try:
        lock = FolderLock(config.directory, config.name, owns=False)
    except GuardInUseError as problem:
        if not request.forced_by:
            raise ThawRefusedError(
                f"{problem}; it reports nothing, so nobody can tell whether the invariant holds again: restart it, or "
                f"have a second person force the thaw"
            ) from None
        lock = None
    try:
        return _thaw_by_opened_guard(config, request)
    finally:
        if lock is not None:
            lock.release()


def _thaw_by_opened_guard(config: GuardConfig, request: ThawRequest) -> int:
    guard = Guard(
        config.directory,
        GuardSettings(name=config.name),
        catalogue=config.load_catalogue(),
        clock=time.time_ns,
        channels=[],
        store=config.open_store(),
    )
    try:
        try:
            guard.load_memory()
        except ValueError as problem:
            if not request.forced_by:
                raise ThawRefusedError(
                    f"the memory of the guard {config.name} cannot be read ({problem}): whether the invariant holds "
                    f"again cannot be told, and a second person has to force the thaw"
                ) from None
        return guard.freezes.end_freezes(
            request.scope, request.operator, request.reason, request.evidence, request.forced_by, request.agreed
        )
    finally:
        guard.close()
