"""Compare timers per second of the virtual clock with asyncio loops on virtual time.

    python bench/scheduler.py [--chains 100] [--timers 20000] [--rounds 3]

Many chains of timers run at once; each timer sets the next one of its chain, a little later each time. On
Holdover's virtual clock (`holdover.world.clock`) a timer is data and a handler is called. On an asyncio loop
the script measures `call_at` with a callback, the cheapest timer of asyncio, and a coroutine that sleeps, the
most common one. The loops:

- `async-solipsism`: a loop without a selector whose time jumps to the next timer.
- `looptime`: a loop with its own time.
- `aiotools`: `VirtualClock`, which patches the time of a selector loop.

All methods take turns in one run; the script prints medians. It leaves out a library that is not installed
and says so.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

from table import machine, report_table

from holdover.world.clock import VirtualClock


def time_virtual_clock(chains: int, timers: int) -> float:
    """Seconds of our clock."""
    clock = VirtualClock(0)
    ran = 0

    def handler(name: str, args: tuple[Any, ...]) -> None:
        nonlocal ran
        ran += 1
        (chain, remaining) = args
        if remaining:
            clock.set_timer(clock.now_ns + 1_000 + chain, "bench", name, chain, remaining - 1)

    clock.register("bench", handler)
    began = time.perf_counter()
    for chain in range(chains):
        clock.set_timer(chain, "bench", "tick", chain, timers // chains - 1)
    clock.run_until(2**62)
    duration_s = time.perf_counter() - began
    assert ran == timers
    return duration_s


async def time_callbacks(chains: int, timers: int) -> float:
    """Seconds of chains of `call_at` on the running loop."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    ran = 0

    def tick(chain: int, remaining: int) -> None:
        nonlocal ran
        ran += 1
        if remaining:
            loop.call_at(loop.time() + 1.0 + chain / 1000, tick, chain, remaining - 1)
        elif ran == timers:
            future.set_result(None)

    began = time.perf_counter()
    for chain in range(chains):
        loop.call_later(chain / 1000, tick, chain, timers // chains - 1)
    await future
    return time.perf_counter() - began


async def time_sleepers(chains: int, timers: int) -> float:
    """Seconds of coroutines that sleep."""

    async def chain(number: int) -> None:
        for _ in range(timers // chains):
            await asyncio.sleep(1.0 + number / 1000)

    began = time.perf_counter()
    await asyncio.gather(*(chain(number) for number in range(chains)))
    return time.perf_counter() - began


Work = Callable[[int, int], Any]


def make_solipsism_runner() -> Callable[[Work, int, int], float]:
    """A way to run on it."""
    import async_solipsism

    def run(work: Work, chains: int, timers: int) -> float:
        with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
            return float(runner.run(work(chains, timers)))

    return run


def make_looptime_runner() -> Callable[[Work, int, int], float]:
    """A way to run on looptime."""
    import looptime

    def run(work: Work, chains: int, timers: int) -> float:
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            return float(runner.run(work(chains, timers)))

    return run


def make_aiotools_runner() -> Callable[[Work, int, int], float]:
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
    arguments = parser.parse_args()
    timers = arguments.timers - arguments.timers % arguments.chains
    methods: dict[str, Callable[[], float]] = {"holdover": lambda: time_virtual_clock(arguments.chains, timers)}
    for name, make in (
        ("async-solipsism", make_solipsism_runner),
        ("looptime", make_looptime_runner),
        ("aiotools", make_aiotools_runner),
    ):
        try:
            run = make()
        except ImportError as problem:
            print(f"{name} is left out: {problem}")
            continue
        for kind, work in (("call_at", time_callbacks), ("sleep", time_sleepers)):
            methods[f"{name}, {kind}"] = lambda run=run, work=work: run(work, arguments.chains, timers)  # type: ignore[misc]
    durations: dict[str, list[float]] = {name: [] for name in methods}
    for at in range(arguments.rounds + 1):
        for name, method in methods.items():
            gc.collect()
            duration_s = method()
            if at:
                durations[name].append(duration_s)
    rows = []
    for name, seconds in durations.items():
        times = statistics.median(
            method_s / holdover_s for method_s, holdover_s in zip(seconds, durations["holdover"], strict=True)
        )
        rows.append({"way": name, "timers/s": timers / statistics.median(seconds), "times holdover": times})
    report_table("scheduler", rows, machine("async-solipsism", "looptime", "aiotools"))


if __name__ == "__main__":
    main()
