"""Timers a second of the virtual clock, beside asyncio loops on virtual time.

    python bench/scheduler.py [--chains 100] [--timers 20000] [--rounds 3]

So many chains of timers run at once, each timer setting the next one of its chain, a little later each. On ours
(`holdover.world.Clock`) a timer is data and a handler is called; on a loop of asyncio it is `call_at` with a callback,
the cheapest that asyncio has, and beside it a coroutine that sleeps, which is how programs mostly use one. The loops:

- `async-solipsism`: a loop without a selector whose time jumps to the next timer;
- `looptime`: a loop whose time is its own;
- `aiotools`: VirtualClock, which puts a time of its own into a selector loop.

All in one run, in turns; medians. A way whose library is not installed is left out and said so.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

from table import machine, show

from holdover.world.clock import Clock


def ours(chains: int, timers: int) -> float:
    """Seconds of our clock."""
    clock = Clock(0)
    ran = 0

    def handler(name: str, args: tuple[Any, ...]) -> None:
        nonlocal ran
        ran += 1
        (chain, left) = args
        if left:
            clock.at(clock.now_ns + 1_000 + chain, "bench", name, chain, left - 1)

    clock.register("bench", handler)
    began = time.perf_counter()
    for chain in range(chains):
        clock.at(chain, "bench", "tick", chain, timers // chains - 1)
    clock.run_until(2**62)
    took = time.perf_counter() - began
    assert ran == timers
    return took


async def callbacks(chains: int, timers: int) -> float:
    """Seconds of chains of `call_at` on the running loop."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    ran = 0

    def tick(chain: int, left: int) -> None:
        nonlocal ran
        ran += 1
        if left:
            loop.call_at(loop.time() + 1.0 + chain / 1000, tick, chain, left - 1)
        elif ran == timers:
            done.set_result(None)

    began = time.perf_counter()
    for chain in range(chains):
        loop.call_later(chain / 1000, tick, chain, timers // chains - 1)
    await done
    return time.perf_counter() - began


async def sleepers(chains: int, timers: int) -> float:
    """Seconds of coroutines that sleep."""

    async def chain(number: int) -> None:
        for _ in range(timers // chains):
            await asyncio.sleep(1.0 + number / 1000)

    began = time.perf_counter()
    await asyncio.gather(*(chain(number) for number in range(chains)))
    return time.perf_counter() - began


Work = Callable[[int, int], Any]


def solipsism() -> Callable[[Work, int, int], float]:
    """A way to run on it."""
    import async_solipsism

    def run(work: Work, chains: int, timers: int) -> float:
        with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
            return float(runner.run(work(chains, timers)))

    return run


def its_own_time() -> Callable[[Work, int, int], float]:
    """A way to run on looptime."""
    import looptime

    def run(work: Work, chains: int, timers: int) -> float:
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            return float(runner.run(work(chains, timers)))

    return run


def patched() -> Callable[[Work, int, int], float]:
    """A way to run on aiotools' clock."""
    from aiotools import VirtualClock

    def run(work: Work, chains: int, timers: int) -> float:
        async def inside() -> float:
            with VirtualClock().patch_loop():
                return float(await work(chains, timers))

        return asyncio.run(inside())

    return run


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument("--timers", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    timers = told.timers - told.timers % told.chains
    ways: dict[str, Callable[[], float]] = {"holdover": lambda: ours(told.chains, timers)}
    for name, make in (("async-solipsism", solipsism), ("looptime", its_own_time), ("aiotools", patched)):
        try:
            run = make()
        except ImportError as problem:
            print(f"{name} is left out: {problem}")
            continue
        for kind, work in (("call_at", callbacks), ("sleep", sleepers)):
            ways[f"{name}, {kind}"] = lambda run=run, work=work: run(work, told.chains, timers)  # type: ignore[misc]
    found: dict[str, list[float]] = {name: [] for name in ways}
    for at in range(told.rounds + 1):
        for name, way in ways.items():
            gc.collect()
            took = way()
            if at:
                found[name].append(took)
    rows = []
    for name, seconds in found.items():
        times = statistics.median(one / mine for one, mine in zip(seconds, found["holdover"], strict=True))
        rows.append({"way": name, "timers/s": timers / statistics.median(seconds), "times holdover": times})
    show("scheduler", rows, machine("async-solipsism", "looptime", "aiotools"))


if __name__ == "__main__":
    main()
