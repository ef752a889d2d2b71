"""Blocking code in virtual time: it runs in a greenlet, which pauses where it would wait and resumes when it is due.

It pauses at a request that waits for its answer, and at a sleep. While it runs, `time` and `datetime` return the
virtual time; the harness around it keeps the real time.
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
_UNFINISHED_GREENLETS: Final[list[greenlet]] = []
"""Killed incarnations stay paused here: if they were destroyed, their `finally` blocks would run."""


class Fibre:
    """Runs `run` until it returns or raises. `resume` continues it when what it waits for has come."""

    def __init__(self, env: Env, run: Callable[[], Any]) -> None:
        self._env, self._clock = env, env.clock
        self._greenlet = greenlet(run)
        self._until_ns = 0
        self._ready: Callable[[], bool] = lambda: True
        self._timers: set[int] = set()
        _UNFINISHED_GREENLETS.append(self._greenlet)

    @property
    def is_finished(self) -> bool:
        """Whether the code has returned or raised."""
        return bool(self._greenlet.dead)

    def resume(self, cause: str) -> None:
        """Resume up to the next wait, as one guard step, if the wait is over. Raises what the code raises."""
        now_ns = self._clock.now_ns
        self._timers = {due for due in self._timers if due > now_ns}
        if not self.is_finished and (now_ns >= self._until_ns or self._ready()):
            with self._env.guard.step(cause):
                self._switch()

    def throw(self, problem: BaseException) -> None:
        """Raise `problem` at the wait, as a signal would; the code may unwind but must not wait again."""
        if not self.is_finished:
            self._switch(problem)

    def _switch(self, problem: BaseException | None = None) -> None:
        # A greenlet has its own context: copy ours, so that it runs in the current guard step.
        self._greenlet.gr_context = contextvars.copy_context()
        traveller = time_machine.travel(self._clock.now_ns / _SECOND_NS, tick=False)
        traveller.start()
        try:
            if problem is None:
                self._greenlet.switch()
            else:
                self._greenlet.throw(problem)
        finally:
            traveller.stop()
            if self.is_finished:
                _UNFINISHED_GREENLETS.remove(self._greenlet)

    # -- called from inside the fibre -------------------------------------------------------------------------------

    def wait(self, until_ns: int, ready: Callable[[], bool] = lambda: False) -> bool:
        """Wait until `ready` or a time. Returns whether it became ready."""
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
        """Sleep.

        A second or more ends on a round time, so that a restarted incarnation aligns with one that was not
        restarted.
        """
        due_ns = self._clock.now_ns + int(seconds * _SECOND_NS)
        if seconds >= 1:
            due_ns = -(-due_ns // _GRID_NS) * _GRID_NS
        self.wait(due_ns, ready)

    def retry(self, make: Callable[[], Any], problem: type[Exception], seconds: float) -> Any:
        """Call `make` until it does not raise `problem`, with a pause between attempts. Returns its result."""
        while True:
            with contextlib.suppress(problem):
                return make()
            self.sleep(seconds)


class _VirtualTimeModule(ModuleType):
    """The module `time` with another `sleep`."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        super().__init__("time")
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class _VirtualSleep:
    """A `sleep` that `replace_sleep` has put into a module, so that the next incarnation finds and replaces it."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self._sleep = sleep

    def __call__(self, seconds: float) -> None:
        self._sleep(seconds)


def replace_sleep(package: str, sleep: Callable[[float], None]) -> None:
    """Replace `sleep` in every imported module of a package, also one that an earlier incarnation has put there."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}.") and module is not None:
            if isinstance(vars(module).get("time"), _VirtualTimeModule) or vars(module).get("time") is time:
                vars(module)["time"] = _VirtualTimeModule(sleep)
            original = vars(module).get("sleep")
            if original is time.sleep or isinstance(original, _VirtualSleep):
                vars(module)["sleep"] = _VirtualSleep(sleep)
