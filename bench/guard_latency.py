"""Measure how long a guarded step and a breach hold up an asyncio loop and other threads.

    python bench/guard_latency.py [--steps 100000] [--open 10000 100000 1000000] [--json FILE]

The guard is that of `Guard.open` with its defaults: a store in a file, journal and bundles on, alerts to a file. One
step is one execution report with six records.

- `step, thread`: the latency of a step in a program with one trading thread.
- `step, threads`: the same with four trading threads, each of which waits half a millisecond between two steps.
- `step, asyncio`: the same with twenty tasks, each of which gives way to the loop inside and between its steps.
- `loop lag`: how late a callback of that loop is, due every millisecond, while the tasks run.
- `breach, caller` and `breach, others`: at one breach, the time that the caller waits (the freeze is on disk when it
  returns), and the longest time that a step of another thread takes within the five seconds after it.
- `plain write`: an append of a line to a file without sync, and `fsync`: with it. These show what the machine itself
  adds, because a guard cannot be faster than its disk.

Latencies are in microseconds. The script exits with 1 when p99.99 of a step of one thread is above 2 ms, or when a
breach holds another thread for more than 20 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from guard import BookRecords
from msgspec.structs import replace
from table import print_machine, report_table

from holdover.model import ExecType, OrdStatus
from holdover.runtime import Guard
from holdover.runtime.config import GuardConfig, PagesTable

STEP_LIMIT_US = 2_000
BREACH_LIMIT_US = 20_000
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "p99.99": 99.99, "max": 100.0}


def summarize(name: str, open_orders: int, latencies_ns: list[int]) -> dict[str, Any]:
    """The row of a list of latencies, in microseconds."""
    ordered = sorted(latencies_ns)
    row: dict[str, Any] = {"subject": name, "open_orders": open_orders, "samples": len(ordered)}
    for label, percent in PERCENTILES.items():
        rank = min(len(ordered) - 1, max(0, -(-len(ordered) * percent // 100) - 1))
        row[label] = ordered[int(rank)] / 1000
    return row


def open_guard(directory: Path, open_orders: int) -> tuple[Guard, BookRecords]:
    """A guard in production's configuration that knows so many open orders, and the books that it guards."""
    guard = Guard.open(GuardConfig.for_directory(directory, pages=PagesTable(log=False)))
    guard.evidence.is_quiet = True
    books = BookRecords(guard.record, open_orders)
    with guard.steps.lock:
        for subsystem, record in books.records():
            guard.monitor.mutate(subsystem, record, guard.clock(), {})
    return guard, books


def time_steps(guard: Guard, books: BookRecords, keys: list[str], first: int, count: int) -> list[int]:
    """Latencies of so many steps, one after the other, in ns."""
    latencies, timer = [0] * count, time.perf_counter_ns
    for number in range(count):
        began = timer()
        with guard.step("execution-report"):
            books.fill(first + number, keys[number % len(keys)])
        latencies[number] = timer() - began
    return latencies


def measure_threads(guard: Guard, books: BookRecords, keys: list[str], count: int, stop_s: float = 0.0005) -> list[int]:
    """Latencies of steps of four threads that wait between two steps, in ns."""
    latencies: list[int] = []
    book_lock = threading.Lock()
    numbers = iter(range(10_000_000, 10_000_000 + count))

    def trade() -> None:
        timer = time.perf_counter_ns
        for number in numbers:
            began = timer()
            with book_lock, guard.step("execution-report"):
                books.fill(number, keys[number % len(keys)])
            latencies.append(timer() - began)
            time.sleep(stop_s)

    threads = [threading.Thread(target=trade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies


async def run_tasks(
    guard: Guard, books: BookRecords, keys: list[str], count: int, first: int
) -> tuple[list[int], list[int]]:
    """Latencies of steps of twenty tasks, and how late a callback of the loop is, in ns.

    A step's latency is the time that it takes of the loop: what is awaited inside it is not counted.
    """
    latencies: list[int] = []
    lags: list[int] = []
    timer = time.perf_counter_ns
    numbers = iter(range(first, first + count))
    done = asyncio.Event()

    async def trade() -> None:
        for number in numbers:
            began = timer()
            with guard.step("execution-report"):
                books.fill(number, keys[number % len(keys)])
            latencies.append(timer() - began)
            await asyncio.sleep(0.0005)

    async def watch_lag() -> None:
        loop = asyncio.get_running_loop()
        while not done.is_set():
            due = loop.time() + 0.001
            await asyncio.sleep(0.001)
            lags.append(max(0, round((loop.time() - due) * 1e9)))

    lag_task = asyncio.create_task(watch_lag())
    await asyncio.gather(*(trade() for _ in range(20)))
    done.set()
    await lag_task
    return latencies, lags


def measure_breach(open_orders: int) -> list[dict[str, Any]]:
    """One breach at so many open orders: what the caller waits for, and what another thread sees."""
    with tempfile.TemporaryDirectory() as folder:
        guard, books = open_guard(Path(folder), open_orders)
        keys = list(books.orders)[1:101]
        time_steps(guard, books, keys, 0, 500)
        gc.collect()
        latencies: list[int] = []
        stop = threading.Event()

        def trade() -> None:
            timer, number = time.perf_counter_ns, 20_000_000
            while not stop.is_set():
                began = timer()
                with guard.step("execution-report"):
                    books.fill(number, keys[number % len(keys)])
                latencies.append(timer() - began)
                number += 1
                time.sleep(0.001)

        thread = threading.Thread(target=trade)
        thread.start()
        time.sleep(0.2)
        del latencies[:]
        victim = books.orders["S-0"]
        bad = replace(victim, cum_qty=5, ord_status=OrdStatus.PARTIALLY_FILLED, exec_type=ExecType.TRADE)
        began = time.perf_counter_ns()
        with guard.step("execution-report"):
            guard.record("orders", bad)
        caller_ns = time.perf_counter_ns() - began
        time.sleep(5)
        stop.set()
        thread.join()
        assert guard.breaches, "the bench's breach was not found"
        guard.close()
        return [
            summarize("breach, caller", open_orders, [caller_ns]),
            summarize("breach, others", open_orders, latencies),
        ]


def measure_disk(directory: Path, count: int) -> list[dict[str, Any]]:
    """Latencies of the machine: appending 1,000 bytes to a file, without sync and with it."""
    rows, timer = [], time.perf_counter_ns
    for name, synced, samples in (("plain write", False, count), ("fsync", True, 500)):
        with open(directory / name, "ab", buffering=0) as file:
            latencies = []
            for _ in range(samples):
                began = timer()
                file.write(b"x" * 1000)
                if synced:
                    os.fsync(file.fileno())
                latencies.append(timer() - began)
        rows.append(summarize(name, 0, latencies))
    return rows


def main() -> int:
    """Print the table and write it as JSON beside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--open", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        rows += measure_disk(Path(folder), arguments.steps)
        guard, books = open_guard(Path(folder) / "guard", 1_000)
        keys = list(books.orders)
        time_steps(guard, books, keys, 0, 2_000)
        rows.append(summarize("step, thread", 1_000, time_steps(guard, books, keys, 1_000_000, arguments.steps)))
        rows.append(summarize("step, threads", 1_000, measure_threads(guard, books, keys, arguments.steps // 5)))
        latencies, lags = asyncio.run(run_tasks(guard, books, keys, arguments.steps // 2, 30_000_000))
        rows += [summarize("step, asyncio", 1_000, latencies), summarize("loop lag", 1_000, lags)]
        assert not guard.breaches, "the bench itself breaks an invariant"
        guard.close()
    for open_orders in arguments.open:
        rows += measure_breach(open_orders)
    report_table("guard_latency", rows, print_machine(), arguments.json)
    step_us = next(row["p99.99"] for row in rows if row["subject"] == "step, thread")
    others_us = [row["max"] for row in rows if row["subject"] == "breach, others"]
    print(f"p99.99 of a step: {step_us:,.0f} us, at most {STEP_LIMIT_US:,}")
    print(
        f"longest wait of another thread at a breach: {max(others_us, default=0):,.0f} us, at most {BREACH_LIMIT_US:,}"
    )
    return 0 if step_us <= STEP_LIMIT_US and max(others_us, default=0) <= BREACH_LIMIT_US else 1


if __name__ == "__main__":
    sys.exit(main())
