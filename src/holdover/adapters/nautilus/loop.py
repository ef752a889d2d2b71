"""An event loop in virtual time: the engines' own coroutines run on it, without a thread, a socket or a sleep.

It runs what is ready when it is told to, in the order in which it was asked for, in the caller's own context, so that
whatever an engine does belongs to the step of the event that caused it. A loop inside a loop is legal: a life that was
killed in the middle of a call stays behind while the next one runs.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable
from typing import Any, Final

_SECOND_NS: Final = 1_000_000_000
_READY_MAX: Final = 50_000
"""Callbacks in one go after which the engine is taken to be going round in circles."""


class Endless(RuntimeError):
    """The engine never came to rest."""


class Call:
    """One callback that waits; what asyncio knows as a handle."""

    __slots__ = ("args", "callback", "due_ns", "gone")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], due_ns: int) -> None:
        self.callback, self.args, self.due_ns, self.gone = callback, args, due_ns, False

    def __repr__(self) -> str:
        return f"<Call {getattr(self.callback, '__self__', self.callback)!r}>"

    def cancel(self) -> None:
        """It is not to run."""
        self.gone = True

    def cancelled(self) -> bool:
        """Whether it was taken back."""
        return self.gone


class VirtualLoop(asyncio.AbstractEventLoop):
    """`now_ns` tells the time. `settle` runs all that is due; `ended` is raised from there when it has been set."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._ready: deque[Call] = deque()
        self._timers: list[tuple[int, int, Call]] = []
        self._number = 0
        self._depth = 0
        self.ended: BaseException | None = None

    # -- running ------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Run until nothing is ready. Raises `ended`, and `Endless` when it does not come to rest."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        self._depth += 1
        try:
            for _ in range(_READY_MAX):
                if self.ended is not None:
                    raise self.ended
                now_ns = self._now_ns()
                while self._timers and self._timers[0][0] <= now_ns:
                    self._ready.append(heapq.heappop(self._timers)[2])
                if not self._ready:
                    return
                call = self._ready.popleft()
                if not call.gone:
                    call.callback(*call.args)
            raise Endless(f"the engine did not come to rest in {_READY_MAX} callbacks")
        finally:
            self._depth -= 1
            events._set_running_loop(before)

    def next_ns(self) -> int | None:
        """When the next timer is due, ns; None when there is none."""
        while self._timers and self._timers[0][2].gone:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    # -- what asyncio asks of a loop ------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the epoch."""
        return self._now_ns() / _SECOND_NS

    # asyncio's callers ask a handle for `cancel` and `cancelled` only.
    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        """Run in the next round; in the context of whoever settles, not in one of its own."""
        call = Call(callback, args, 0)
        self._ready.append(call)
        return call

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        """There is one thread."""
        return self.call_soon(callback, *args)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        """Run after a while.

        A whole second or more ends on a round time (a multiple of its whole seconds), so that the timers of a restarted
        process fall into step with those of one that was not: a timer may be late, and both do the same from there.
        """
        due_ns = self._now_ns() + int(delay * _SECOND_NS)
        if delay >= 1:
            grid_ns = int(delay) * _SECOND_NS
            due_ns = -(-due_ns // grid_ns) * grid_ns
        return self._at(due_ns, callback, args)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        """Run at a time in virtual seconds."""
        return self._at(int(when * _SECOND_NS), callback, args)

    def _at(self, due_ns: int, callback: Callable[..., Any], args: tuple[Any, ...]) -> Call:
        call = Call(callback, args, due_ns)
        self._number += 1
        heapq.heappush(self._timers, (due_ns, self._number, call))
        return call

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        """A task of this loop."""
        return asyncio.Task(coro, loop=self, name=name)

    def is_running(self) -> bool:
        """It is whenever it can be: the engines ask before they start."""
        return True

    def is_closed(self) -> bool:
        """Never."""
        return False

    def get_debug(self) -> bool:
        """No."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task failed and nobody asked it why: that ends the life."""
        problem = context.get("exception")
        if isinstance(problem, BaseException) and self.ended is None:
            self.ended = problem
