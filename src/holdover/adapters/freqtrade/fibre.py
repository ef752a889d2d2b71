"""Blocking code in virtual time: it runs in a greenlet, which stops where it would wait and goes on when it is time.

A request of theirs that waits for its answer, and a sleep, are both such places. While it runs, `time` and `datetime`
tell the virtual time; the harness around it keeps the real one.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import time_machine
from greenlet import greenlet

if TYPE_CHECKING:
    from holdover.harness.subject import Env

_SECOND_NS: Final = 1_000_000_000
_GRID_NS: Final = 5 * _SECOND_NS
_UNFINISHED: Final[list[greenlet]] = []
"""Lives that were killed stay where they stopped: thrown away, their `finally` would run in a process that is gone."""


class Fibre:
    """`run`, from `begin` on until it returns or raises. `go` lets it run on if what it waits for has come."""

    def __init__(self, env: Env, run: Callable[[], Any]) -> None:
        self._env, self._clock = env, env.clock
        self._greenlet = greenlet(run)
        self._until_ns = 0
        self._ready: Callable[[], bool] = lambda: True
        self._timers: set[int] = set()
        _UNFINISHED.append(self._greenlet)

    @property
    def dead(self) -> bool:
        """Whether it has come to its end."""
        return bool(self._greenlet.dead)

    def go(self, cause: str) -> None:
        """Run on to the next wait, as one step, if there is anything to run on for. Raises what it raises."""
        now_ns = self._clock.now_ns
        self._timers = {due for due in self._timers if due > now_ns}
        if not self.dead and (now_ns >= self._until_ns or self._ready()):
            with self._env.guard.step(cause):
                self._switch()

    def end(self, problem: BaseException) -> None:
        """Raise `problem` where it waits, as a signal would; it may unwind, and must not wait again."""
        if not self.dead:
            self._switch(problem)

    def _switch(self, problem: BaseException | None = None) -> None:
        # A greenlet has a context of its own: the step that we are in is to be theirs too.
        self._greenlet.gr_context = contextvars.copy_context()
        told = time_machine.travel(self._clock.now_ns / _SECOND_NS, tick=False)
        told.start()
        try:
            if problem is None:
                self._greenlet.switch()
            else:
                self._greenlet.throw(problem)
        finally:
            told.stop()
            if self.dead:
                _UNFINISHED.remove(self._greenlet)

    # -- from inside ------------------------------------------------------------------------------------------------

    def wait(self, until_ns: int, ready: Callable[[], bool] = lambda: False) -> bool:
        """Wait for something until a time; whether it came."""
        if not ready():
            self._until_ns, self._ready = until_ns, ready
            if until_ns not in self._timers:
                self._timers.add(until_ns)
                self._clock.call_at(until_ns, "wake")
            parent = self._greenlet.parent
            assert parent is not None
            parent.switch()
        return ready()

    def sleep(self, seconds: float, ready: Callable[[], bool] = lambda: False) -> None:
        """A second or more ends on a round time, so that a restarted life falls into step with one that was not."""
        due_ns = self._clock.now_ns + int(seconds * _SECOND_NS)
        if seconds >= 1:
            due_ns = -(-due_ns // _GRID_NS) * _GRID_NS
        self.wait(due_ns, ready)

    def insist(self, make: Callable[[], Any], problem: type[Exception], seconds: float) -> Any:
        """What `make` makes, once it does not raise `problem` any more; a while between two tries."""
        while True:
            with contextlib.suppress(problem):
                return make()
            self.sleep(seconds)


class _Time(ModuleType):
    """The module `time` with another `sleep`."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        super().__init__("time")
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def sleeping_in(package: str, sleep: Callable[[float], None]) -> None:
    """Have every module of a package that has been imported sleep by `sleep`."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}.") and module is not None:
            if isinstance(vars(module).get("time"), _Time) or vars(module).get("time") is time:
                vars(module)["time"] = _Time(sleep)
            found = vars(module).get("sleep")
            if found is time.sleep or getattr(found, "__name__", "") == "virtual_sleep":
                vars(module)["sleep"] = sleep
