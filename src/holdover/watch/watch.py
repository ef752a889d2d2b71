"""The sidecar: lines in, breaches out, acted on, and all of it kept so that a kill at any moment changes nothing.

The state of a watch is one file, written whole and synced: where it stands in its source, the monitor's memory, the
breaches so far, the acts still to be done. Breaches go to `breaches.jsonl` beside it, synced before the state that
counts them; what a killed process wrote after its last state is cut off, and found again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.runtime import Breach, StoreProblem
from holdover.runtime.files import held_alone, write_whole
from holdover.runtime.metrics import Figures, backlog_of, by_scope
from holdover.watch.hooks import FreezeHook, Hook, HookFailed
from holdover.watch.judges import Judge
from holdover.watch.source import Place

_EVERY: Final = 20_000
_RETRY_S: Final = (0.1, 0.5, 2.0, 10.0, 60.0)
STATE: Final = "watch.state"
BREACHES: Final = "breaches.jsonl"


class Pending(msgspec.Struct, kw_only=True):
    """A breach that one hook has not taken yet."""

    hook: str
    breach: Breach
    key: str
    attempts: int = 0


class Kept(msgspec.Struct, kw_only=True):
    """The state of a watch."""

    source: str
    digest: str
    place: Place
    memory: bytes
    breaches: int
    size: int
    told: dict[str, int]
    pending: list[Pending]


class BadState(ValueError):
    """A state directory that is not this watch's; the message says whose."""


class Watch:
    """Judges a source's lines and acts on breaches. `say` gets each breach once a process, `complain` each problem.

    `directory` keeps the state; without it nothing is kept.
    """

    def __init__(
        self,
        source: str,
        judge: Judge,
        digest: str,
        hooks: Sequence[Hook],
        say: Callable[[Breach], None],
        complain: Callable[[str], None],
        directory: Path | None = None,
    ) -> None:
        self.place: Place | None = None
        self.breaches = 0
        self.pending: list[Pending] = []
        self._source, self._digest, self._judge = source, digest, judge
        self._hooks = {hook.name: hook for hook in hooks}
        self._say, self._complain, self._directory = say, complain, directory
        self._found: dict[str, int] = {}
        self._next_try = 0.0
        self._since = 0
        self._kept_at, self._cost = 0.0, 0.0
        self._size = 0
        self._judged_ns = time.time_ns()
        self._lock: IO[bytes] | None = None
        judge.on_breach = self._breached
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(directory)
            try:
                self._resume(directory)
            except BaseException:
                self.close()  # at once: who reads the problem may try again
                raise

    def lines(self, lines: Sequence[bytes], first: int) -> None:
        """Judge lines, the first of which has the number `first`."""
        judge = self._judge
        for number, line in enumerate(lines, first):
            judge.line(line, number)
        self._since += len(lines)
        self._judged_ns = time.time_ns()
        for told in judge.skipped:
            self._complain(told)
        judge.skipped.clear()
        self.deliver()

    def end(self) -> None:
        """Nothing more will come."""
        self._judge.end()
        self.deliver()

    def close(self) -> None:
        """Let go of the state's folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def settled(self) -> bool:
        """Whether the last line ended a step."""
        return self._judge.settled

    @property
    def verdict(self) -> str:
        """`breach`, `holds`, or `unknown` when nothing has been judged."""
        return "breach" if self.breaches else "holds" if self._judge.mutations else "unknown"

    def figures(self, catalogue: Catalogue) -> Figures:
        """What is known now, for metrics; from any thread. The breaches are those of all processes of this state."""
        breaches: dict[tuple[str, str], int] = {}
        for mark in list(self._found):
            name = mark.partition("/")[0]
            severity = catalogue.invariants[name].entry.severity if name in catalogue.invariants else ""
            breaches[name, severity] = breaches.get((name, severity), 0) + 1
        store = next((hook.store for hook in self._hooks.values() if isinstance(hook, FreezeHook)), None)
        freezes, backlog, problems = {}, None, 0
        try:
            if store is not None:
                freezes, backlog = by_scope(store.in_force()), backlog_of(store)
        except StoreProblem:
            problems += 1
        place = self.place
        return Figures(
            digest=self._digest,
            invariants=len(catalogue.invariants),
            mutations=self._judge.mutations,
            checks=self._judge.monitor.checks,
            breaches=breaches,
            freezes=freezes,
            backlog=backlog,
            now_ns=time.time_ns(),
            beat_ns=self._judged_ns,
            lost=place.lost if place is not None else 0,
            undone=len(self.pending),
            problems=problems + (place.breaks if place is not None else 0),
        )

    # -- acting -------------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Try every act that is due once; what fails is tried again, later each time."""
        now = time.monotonic()
        if not self.pending or now < self._next_try:
            return
        left: list[Pending] = []
        for one in self.pending:
            hook = self._hooks.get(one.hook)
            if hook is None:
                continue  # this run was started without it
            try:
                hook.act(one.breach, one.key)
            except (HookFailed, StoreProblem) as problem:
                one.attempts += 1
                left.append(one)
                self._complain(f"{problem}; it will be tried again")
        self.pending = left
        if left:
            self._next_try = now + _RETRY_S[min(max(one.attempts for one in left), len(_RETRY_S)) - 1]

    def waits(self) -> Iterator[float]:
        """For a run that ends: how long to wait before each of a few more tries, while an act is undone."""
        for seconds in _RETRY_S[:3]:
            if not self.pending:
                return
            yield seconds
            self._next_try = 0.0
            self.deliver()

    def _breached(self, breach: Breach) -> None:
        mark = f"{breach.invariant}/{breach.subsystem}/{breach.key}"
        self._found[mark] = self._found.get(mark, 0) + 1
        if self._found[mark] > 1:
            return
        self.breaches += 1
        breach = msgspec.structs.replace(breach, number=self.breaches)
        key = f"{self._source}/{self.breaches}"
        self.pending += [Pending(hook=name, breach=breach, key=key) for name in self._hooks]
        self._next_try = 0.0
        if self._directory is not None:
            with open(self._directory / BREACHES, "ab") as file:
                file.write(msgspec.json.encode(breach) + b"\n")
                file.flush()
                os.fsync(file.fileno())
                self._size = file.tell()
        self._say(breach)

    # -- keeping ------------------------------------------------------------------------------------------------

    def keep(self, place: Place, *, now: bool = False) -> None:
        """Write the state, when enough has changed to be worth it, or `now`. Only between steps."""
        self.place = place
        if self._directory is None or not self._judge.settled or not (self._since or now):
            return
        began = time.monotonic()
        if not now and self._since < _EVERY and began - self._kept_at < max(1.0, 10 * self._cost):
            return
        kept = Kept(
            source=self._source,
            digest=self._digest,
            place=place,
            memory=self._judge.dump(),
            breaches=self.breaches,
            size=self._size,
            told=self._found,
            pending=self.pending,
        )
        write_whole(self._directory / STATE, msgspec.msgpack.encode(kept))
        self._since = 0
        self._kept_at = time.monotonic()
        self._cost = self._kept_at - began

    def keep_acts(self) -> None:
        """Write the state once more, when what is still to be done has changed since."""
        if self.place is not None:
            self.keep(self.place, now=True)

    def _resume(self, directory: Path) -> None:
        path = directory / STATE
        breaches = directory / BREACHES
        if not path.exists():
            if breaches.exists():
                os.truncate(breaches, 0)
            return
        try:
            kept = msgspec.msgpack.decode(path.read_bytes(), type=Kept)
        except msgspec.MsgspecError as problem:
            raise BadState(f"{path}: the state is damaged: {problem}; remove the folder to begin anew") from problem
        if kept.source != self._source:
            raise BadState(f"{directory}: belongs to a watch of {kept.source}, not of {self._source}")
        if kept.digest != self._digest:
            self._complain(f"{directory}: was kept under another catalogue; judging goes on under this one")
        self._judge.load(kept.memory)
        self.place, self.breaches, self.pending, self._found = kept.place, kept.breaches, kept.pending, kept.told
        self._size = kept.size
        if breaches.exists():
            os.truncate(breaches, kept.size)


def _locked(directory: Path) -> IO[bytes]:
    """Hold the folder for as long as this process watches. Raises `BadState` when another one does."""
    file = held_alone(directory / "watch.lock")
    if file is None:
        raise BadState(f"{directory}: another watch uses this folder")
    return file
