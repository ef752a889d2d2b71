"""Steps of asyncio tasks: each task settles its own mutations, whatever the order in which the tasks run."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.catalogue import Catalogue
from holdover.model import ExecType, Execution, Exposure, Order, OrdStatus, Position, Side
from holdover.runtime import Guard

from .orders import GOOD, order

CATALOGUE = Catalogue.load()
DAY = "2024-01-02"


class Books:
    """The orders of several tasks and the one position that they share; a task changes the position at its fill."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.net_qty = 0
        self.open_qty = 0

    def fill(self, key: str, *, is_forgotten: bool) -> Generator[None, None, None]:
        """One order and its only fill, with pauses between the records; a forgotten fill does not reach the order."""
        guard = self.guard
        with guard.step("new"):
            guard.record("orders", make_order(key))
            yield
            self.open_qty += 60
            guard.record("risk", self.exposure())
        yield
        with guard.step("execution-report"):
            guard.record("orders", make_execution(key))
            yield
            if not is_forgotten:
                filled = make_order(key, cum_qty=60, leaves_qty=0, notional=60, ord_status=OrdStatus.FILLED)
                guard.record("orders", filled)
                self.open_qty -= 60
            yield
            self.net_qty += 60
            guard.record("positions", Position(account="A", symbol="IBM", net_qty=self.net_qty, trade_date=DAY))
            guard.record("risk", self.exposure())
        yield

    def exposure(self) -> Exposure:
        """The exposure as the tasks have left it."""
        return Exposure(account="A", symbol="IBM", net_qty=self.net_qty, open_buy_qty=self.open_qty)


def make_execution(key: str) -> Execution:
    """The one fill of an order."""
    return Execution(
        exec_id=f"E-{key}",
        exec_type=ExecType.TRADE,
        root_cl_ord_id=key,
        symbol="IBM",
        side=Side.BUY,
        trade_date=DAY,
        account="A",
        strategy="S",
        last_qty=60,
        last_px=1,
        qty_delta=60,
        notional_delta=60,
        cash_delta=-60,
    )


def make_order(key: str, **fields: Any) -> Order:
    """An order of one task."""
    if "cum_qty" in fields:
        fields |= {"exec_type": ExecType.TRADE, "exec_id": f"E-{key}"}
    return order(root_cl_ord_id=key, cl_ord_id=key, account="A", strategy="S", trade_date=DAY, **fields)


def run_interleaved(guard: Guard, choices: list[int], task_count: int, forgotten: int | None) -> None:
    """Run tasks in the order of the choices, each in a context of its own, as a loop does."""
    books = Books(guard)
    running = []
    for number in range(task_count):
        task = books.fill(f"T{number}", is_forgotten=number == forgotten)
        running.append((contextvars.copy_context(), task))
    turn = 0
    while running:
        index = (choices[turn] if turn < len(choices) else 0) % len(running)
        turn += 1
        context, task = running[index]
        try:
            context.run(next, task)
        except StopIteration:
            del running[index]


@settings(max_examples=60, deadline=None)
@given(
    choices=st.lists(st.integers(0, 5), max_size=40),
    task_count=st.integers(1, 6),
    forgotten=st.none() | st.integers(0, 5),
)
def test_interleaved_steps_settle_their_own(choices: list[int], task_count: int, forgotten: int | None) -> None:
    """Half-done steps of other tasks cause no breach, and a wrong step is found in every order."""
    with TemporaryDirectory() as directory:
        guard = Guard(Path(directory), catalogue=CATALOGUE, clock=lambda: 1, channels=[])
        guard.evidence.is_quiet = True
        run_interleaved(guard, choices, task_count, forgotten)
        wrong = {breach.key for breach in guard.breaches}
        is_forgotten = forgotten is not None and forgotten < task_count
        assert wrong == ({f"T{forgotten}"} if is_forgotten else set())
        guard.close()


def test_a_task_started_inside_a_step_has_its_own(make_guard: Callable[..., Guard]) -> None:
    """The step that started it may end first: what the task has not finished is not settled then."""
    guard = make_guard()

    async def book() -> None:
        with guard.step("child"):
            guard.record("orders", make_order("C", cum_qty=60, leaves_qty=0, notional=60, ord_status=OrdStatus.FILLED))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            guard.record("orders", make_execution("C"))

    async def run() -> None:
        with guard.step("parent"):
            task = asyncio.create_task(book())
            await asyncio.sleep(0)
            guard.record("orders", GOOD)
        assert [step.cause for step in guard.steps.open_steps] == ["child"]
        await task

    guard.record("orders", make_order("C"))
    asyncio.run(run())
    assert [breach.invariant for breach in guard.breaches if breach.key == "C"] == []


def test_a_step_may_end_in_another_context(make_guard: Callable[..., Guard]) -> None:
    """As an asynchronous generator does that the loop closes: the step settles, and trading code sees no exception."""
    guard = make_guard()
    step = guard.step("begun")
    contextvars.copy_context().run(step.__enter__)
    contextvars.copy_context().run(step.__exit__, None, None, None)
    assert not guard.steps.open_steps
