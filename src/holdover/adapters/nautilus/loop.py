"""An event loop in virtual time: the engines' coroutines run on it without a thread, a socket or a sleep.

`settle` runs the ready callbacks, in the order in which they were scheduled and in the caller's context, so that
everything an engine does belongs to the step of the event that caused it. A loop may run inside another loop: an
incarnation that was killed in the middle of a call stays on the stack while the next one runs.
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
"""After this many callbacks in one `settle` the engine counts as endless."""


class EndlessLoopError(RuntimeError):
    """The engine did not come to rest."""


class ScheduledCall:
    """One scheduled callback; asyncio's handle."""

    __slots__ = ("args", "callback", "due_ns", "is_cancelled")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], due_ns: int) -> None:
        self.callback, self.args, self.due_ns, self.is_cancelled = callback, args, due_ns, False

    def __repr__(self) -> str:
        return f"<Call {getattr(self.callback, '__self__', self.callback)!r}>"

    def cancel(self) -> None:
        """Cancel the callback."""
        self.is_cancelled = True

    def cancelled(self) -> bool:
        """Whether the callback was cancelled."""
        return self.is_cancelled


class VirtualLoop(asyncio.AbstractEventLoop):
    """The loop. `now_ns` returns the time. `settle` runs everything that is due and raises `problem` when it is set."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._ready: deque[ScheduledCall] = deque()
        self._timers: list[tuple[int, int, ScheduledCall]] = []
        self._number = 0
        self._depth = 0
        self.problem: BaseException | None = None

    # -- running ------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Run until nothing is ready. Raises `problem`, or `EndlessLoopError` when the engine does not come to rest."""
        previous_loop = events._get_running_loop()
        events._set_running_loop(self)
        self._depth += 1
        try:
            for _ in range(_READY_MAX):
                if self.problem is not None:
                    raise self.problem
                now_ns = self._now_ns()
                while self._timers and self._timers[0][0] <= now_ns:
                    self._ready.append(heapq.heappop(self._timers)[2])
                if not self._ready:
                    return
                call = self._ready.popleft()
                if not call.is_cancelled:
                    call.callback(*call.args)
            raise EndlessLoopError(f"the engine did not come to rest in {_READY_MAX} callbacks")
        finally:
            self._depth -= 1
            events._set_running_loop(previous_loop)

    def next_ns(self) -> int | None:
        """Returns when the next timer is due, ns; None when there is none."""
        while self._timers and self._timers[0][2].is_cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    # -- interface of asyncio -------------------------------------------------------------------------------------

    def time(self) -> float:
        """Returns virtual seconds since the epoch."""
        return self._now_ns() / _SECOND_NS

    # asyncio's callers use only `cancel` and `cancelled` of a handle.
    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        """Run in the next round, in the context of the caller of `settle`."""
        call = ScheduledCall(callback, args, 0)
        self._ready.append(call)
        return call

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        """Like `call_soon`: there is one thread."""
        return self.call_soon(callback, *args)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        """Run after a delay.

        A delay of a second or more ends on a round time (a multiple of its whole seconds), so that the timers of a
        restarted process align with those of one that was not restarted: a timer may be late, but both behave alike
        from then on.
        """
        due_ns = self._now_ns() + int(delay * _SECOND_NS)
        if delay >= 1:
            grid_ns = int(delay) * _SECOND_NS
            due_ns = -(-due_ns // grid_ns) * grid_ns
        return self._schedule(due_ns, callback, args)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        """Run at a time in virtual seconds."""
        return self._schedule(int(when * _SECOND_NS), callback, args)

    def _schedule(self, due_ns: int, callback: Callable[..., Any], args: tuple[Any, ...]) -> ScheduledCall:
        call = ScheduledCall(callback, args, due_ns)
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
        """Returns True: the engines check before they start."""
        return True

    def is_closed(self) -> bool:
        """Returns False."""
        return False

    def get_debug(self) -> bool:
        """Returns False."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task failed and nobody awaited it: the next `settle` raises its exception."""
        problem = context.get("exception")
        if isinstance(problem, BaseException) and self.problem is None:
            self.problem = problem
