"""The sidecar: reads lines, finds breaches, runs hooks, and saves its state so that a kill at any moment changes
nothing.

The state of a watch is one file, written atomically and synced: the offset in its source, the monitor's
memory, the breaches so far, the hooks still to run. Breaches go to `breaches.jsonl` in the same folder,
synced before the state that counts them. What a killed process wrote after its last state is truncated and
found again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.runtime import Breach, StoreError
from holdover.runtime.files import lock_file, make_private_directory, open_private, write_whole
from holdover.runtime.metrics import GuardMetrics, count_by_scope, read_backlog
from holdover.state import StateError, StoredFormat, decode_stored, encode_stored
from holdover.watch.hooks import FreezeHook, Hook, HookError
from holdover.watch.judge import Judge
from holdover.watch.source import Offset

_SAVE_EVERY_LINES: Final = 20_000
_RETRY_S: Final = (0.1, 0.5, 2.0, 10.0, 60.0)
STATE: Final = "watch.state"
WATCH_FORMAT: Final = StoredFormat(
    name="state of a watch", version=2, next_step="remove the state folder to begin again at the start of the source"
)
BREACHES: Final = "breaches.jsonl"


class PendingAction(msgspec.Struct, kw_only=True):
    """A breach that one hook has not accepted yet."""

    hook: str
    breach: Breach
    key: str
    attempts: int = 0


class WatchState(msgspec.Struct, kw_only=True):
    """The saved state of a watch."""

    source: str
    digest: str
    offset: Offset
    memory: bytes
    breaches: int
    size: int
    breach_counts: dict[str, int]
    pending: list[PendingAction]


class WatchStateError(ValueError):
    """A state directory is damaged, locked, or belongs to another watch; the message says which."""


class Watch:
    """Evaluates a source's lines and runs hooks on breaches.

    `report_breach` receives each breach once per process, `report_problem` each problem. `directory` holds the
    state; without it nothing is saved. Raises `WatchStateError` when the directory cannot be used.
    """

    def __init__(
        self,
        source: str,
        judge: Judge,
        digest: str,
        hooks: Sequence[Hook],
        report_breach: Callable[[Breach], None],
        report_problem: Callable[[str], None],
        directory: Path | None = None,
    ) -> None:
        self.offset: Offset | None = None
        self.breaches = 0
        self.pending: list[PendingAction] = []
        self._source, self._digest, self._judge = source, digest, judge
        self._hooks = {hook.name: hook for hook in hooks}
        self._report_breach, self._report_problem, self._directory = report_breach, report_problem, directory
        self._breach_counts: dict[str, int] = {}
        self._next_try = 0.0
        self._unsaved_lines = 0
        self._saved_at_s, self._save_cost_s = 0.0, 0.0
        self._size = 0
        self._judged_ns = time.time_ns()
        self._lock: IO[bytes] | None = None
        judge.on_breach = self._handle_breach
        if directory is not None:
            make_private_directory(directory)
            self._lock = _lock_directory(directory)
            try:
                self._resume(directory)
            except BaseException:
                self.close()  # immediately: the caller may handle the error and try again
                raise

    def judge_lines(self, lines: Sequence[bytes], first: int) -> None:
        """Evaluate lines; `first` is the number of the first one."""
        judge = self._judge
        for number, line in enumerate(lines, first):
            judge.judge_line(line, number)
        self._unsaved_lines += len(lines)
        self._judged_ns = time.time_ns()
        for problem in judge.skipped:
            self._report_problem(problem)
        judge.skipped.clear()
        self.run_pending()

    def end(self) -> None:
        """End the source: no more lines follow."""
        self._judge.end()
        self.run_pending()

    def close(self) -> None:
        """Release the lock on the state's folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def is_settled(self) -> bool:
        """Whether the last line ended a step."""
        return self._judge.is_settled

    @property
    def verdict(self) -> str:
        """`breach`, `holds`, or `unknown` when nothing, or too small a share of the lines, was evaluated."""
        if self.breaches:
            return "breach"
        return "holds" if self._judge.mutations and not self._judge.is_undecided else "unknown"

    def metrics(self, catalogue: Catalogue) -> GuardMetrics:
        """Return the current metrics; callable from any thread. Breaches are those of all processes of this state."""
        breaches: dict[tuple[str, str], int] = {}
        for mark in list(self._breach_counts):
            name = mark.partition("/")[0]
            severity = catalogue.invariants[name].entry.severity if name in catalogue.invariants else ""
            breaches[name, severity] = breaches.get((name, severity), 0) + 1
        store = next((hook.store for hook in self._hooks.values() if isinstance(hook, FreezeHook)), None)
        freezes, backlog, problems = {}, None, 0
        try:
            if store is not None:
                freezes, backlog = count_by_scope(store.active_freezes()), read_backlog(store)
        except StoreError:
            problems += 1
        offset = self.offset
        return GuardMetrics(
            digest=self._digest,
            invariants=len(catalogue.invariants),
            mutations=self._judge.mutations,
            checks=self._judge.monitor.check_count,
            breaches=breaches,
            freezes=freezes,
            backlog=backlog,
            now_ns=time.time_ns(),
            beat_ns=self._judged_ns,
            lost_messages=offset.lost_count if offset is not None else 0,
            pending_actions=len(self.pending),
            problems=problems + (offset.break_count if offset is not None else 0),
        )

    # -- acting -------------------------------------------------------------------------------------------------

    def run_pending(self) -> None:
        """Try every due hook once; a failed hook is retried with growing delays."""
        now_s = time.monotonic()
        if not self.pending or now_s < self._next_try:
            return
        failed: list[PendingAction] = []
        for action in self.pending:
            hook = self._hooks.get(action.hook)
            if hook is None:
                continue  # this process was started without the hook
            try:
                hook.run(action.breach, action.key)
            except (HookError, StoreError) as problem:
                action.attempts += 1
                failed.append(action)
                self._report_problem(f"{problem}; it will be tried again")
        self.pending = failed
        if failed:
            self._next_try = now_s + _RETRY_S[min(max(action.attempts for action in failed), len(_RETRY_S)) - 1]

    def retry_delays(self) -> Iterator[float]:
        """Yield the seconds to wait before each of a few more attempts, while a hook is pending at the end of a run."""
        for seconds in _RETRY_S[:3]:
            if not self.pending:
                return
            yield seconds
            self._next_try = 0.0
            self.run_pending()

    def _handle_breach(self, breach: Breach) -> None:
        mark = f"{breach.invariant}/{breach.subsystem}/{breach.key}"
        self._breach_counts[mark] = self._breach_counts.get(mark, 0) + 1
        if self._breach_counts[mark] > 1:
            return
        self.breaches += 1
        breach = msgspec.structs.replace(breach, number=self.breaches)
        key = f"{self._source}/{self.breaches}"
        self.pending += [PendingAction(hook=name, breach=breach, key=key) for name in self._hooks]
        self._next_try = 0.0
        if self._directory is not None:
            with open_private(self._directory / BREACHES) as file:
                file.write(msgspec.json.encode(breach) + b"\n")
                file.flush()
                os.fsync(file.fileno())
                self._size = file.tell()
        self._report_breach(breach)

    # -- keeping ------------------------------------------------------------------------------------------------

    def save(self, offset: Offset, *, force: bool = False) -> bool:
        """Save the state if enough has changed, or always with `force`. Does nothing inside a step.

        Returns whether it was saved: after that nothing before `offset` is needed again.
        """
        self.offset = offset
        if self._directory is None or not self._judge.is_settled or not (self._unsaved_lines or force):
            return False
        began = time.monotonic()
        if (
            not force
            and self._unsaved_lines < _SAVE_EVERY_LINES
            and began - self._saved_at_s < max(1.0, 10 * self._save_cost_s)
        ):
            return False
        state = WatchState(
            source=self._source,
            digest=self._digest,
            offset=offset,
            memory=self._judge.to_bytes(),
            breaches=self.breaches,
            size=self._size,
            breach_counts=self._breach_counts,
            pending=self.pending,
        )
        write_whole(self._directory / STATE, encode_stored(WATCH_FORMAT, state))
        self._unsaved_lines = 0
        self._saved_at_s = time.monotonic()
        self._save_cost_s = self._saved_at_s - began
        return True

    def save_pending(self) -> None:
        """Save the state again after pending hooks have run."""
        if self.offset is not None:
            self.save(self.offset, force=True)

    def _resume(self, directory: Path) -> None:
        path = directory / STATE
        breaches = directory / BREACHES
        if not path.exists():
            if breaches.exists():
                os.truncate(breaches, 0)
            return
        try:
            state = decode_stored(WATCH_FORMAT, WatchState, path.read_bytes())
        except StateError as problem:
            raise WatchStateError(f"{path}: {problem}") from problem
        if state.source != self._source:
            raise WatchStateError(f"{directory}: belongs to a watch of {state.source}, not of {self._source}")
        if state.digest != self._digest:
            self._report_problem(f"{directory}: was kept under another catalogue; judging goes on under this one")
        try:
            self._judge.restore_bytes(state.memory)
        except StateError as problem:
            raise WatchStateError(f"{path}: {problem}") from problem
        self.offset, self.breaches, self.pending, self._breach_counts = (
            state.offset,
            state.breaches,
            state.pending,
            state.breach_counts,
        )
        self._size = state.size
        if breaches.exists():
            os.truncate(breaches, state.size)


def _lock_directory(directory: Path) -> IO[bytes]:
    """Lock the folder for as long as this process watches. Raises `WatchStateError` when another watch holds it."""
    file = lock_file(directory / "watch.lock")
    if file is None:
        raise WatchStateError(f"{directory}: another watch uses this folder")
    return file
