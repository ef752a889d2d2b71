"""Compare the cost of the always-on cell counter with the cost of coverage.py's branch tracing on the same desk.

    python bench/state_coverage.py

The desk takes execution reports, once bare and once under coverage.py with branches, which traces only the
desk's files; the difference is the cost of tracing. Then the recorded mutations run through the functions of
the guard's checks for a catalogue without invariants, with axes and without; the difference is the cost of
the counter. (Inside the desk it would be lost in the noise of the desk's database.) Everything takes turns in
one process. The script prints medians of the rounds in processor time, so that other work on the machine does
not count.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import coverage
from guard import NoGuard, feed, make_desk
from table import print_machine

import holdover.desk
from holdover.catalogue import Catalogue
from holdover.desk import Desk
from holdover.model import Record
from holdover.runtime.axes import axes_in_use
from holdover.runtime.cells import CellCounter
from holdover.runtime.monitor import Monitor

ADDED_MAX = 0.15
"""What the counter may add at most, of what branch tracing adds."""


class RecordingGuard(NoGuard):
    """A guard that only writes down what it is told."""

    def __init__(self) -> None:
        self.mutations: list[tuple[str, Record]] = []

    def record(self, subsystem: str, record: Record) -> None:
        """Write it down."""
        self.mutations.append((subsystem, record))


def time_mutations(mutations: list[tuple[str, Record]], monitor: Monitor) -> float:
    """Processor time, in microseconds, of putting records through the monitor's tables."""
    touched: dict[Any, None] = {}
    gc.collect()
    began = time.process_time()
    for subsystem, record in mutations:
        monitor.mutate(subsystem, record, 0, touched)
    return (time.process_time() - began) * 1e6


def make_monitor(*, axes: bool) -> Monitor:
    """A monitor without any invariant, with or without axes."""
    cells = CellCounter(axes_in_use() if axes else ())
    return Monitor(Catalogue(), lambda breach, check: None, None, cells=cells)


def measure(open_orders: int, steps: int, rounds: int) -> dict[str, float]:
    """Microseconds a report: bare, under branch tracing, and what the counter adds."""
    source = str(Path(holdover.desk.__file__).parent)
    listening = RecordingGuard()
    with_axes, without = make_monitor(axes=True), make_monitor(axes=False)
    times: dict[str, list[float]] = {"bare": [], "tracing": [], "counter": []}
    with tempfile.TemporaryDirectory() as directory:
        guards = {"bare": NoGuard(), "traced": NoGuard(), "told": listening}
        desks = {name: make_desk(Path(directory) / name, guard, open_orders) for name, guard in guards.items()}
        for monitor in (with_axes, without):
            time_mutations(listening.mutations, monitor)
        for number in range(rounds + 1):
            first = number * steps
            bare = time_feed(*desks["bare"], first, steps)
            tracer = coverage.Coverage(branch=True, source=[source], data_file=None)
            tracer.start()
            try:
                traced = time_feed(*desks["traced"], first, steps)
            finally:
                tracer.stop()
            listening.mutations.clear()
            time_feed(*desks["told"], first, steps)
            # Twice in either order, so that what the first of them warms up helps both alike.
            plain = time_mutations(listening.mutations, without)
            axes = time_mutations(listening.mutations, with_axes)
            axes += time_mutations(listening.mutations, with_axes)
            plain += time_mutations(listening.mutations, without)
            times["bare"].append(bare)
            times["tracing"].append(traced - bare)
            times["counter"].append((axes - plain) / 2 / steps)
        for desk, _ in desks.values():
            desk.store.close()
    return {name: statistics.median(durations[1:]) for name, durations in times.items()}


def time_feed(desk: Desk, keys: list[str], first: int, steps: int) -> float:
    """Processor time of feeding that many fills, in microseconds a report."""
    began = time.process_time()
    feed(desk, keys, first, steps)
    return (time.process_time() - began) / steps * 1e6


def main() -> int:
    """Print the table; 1 when the counter costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("out/bench/state_coverage.json"))
    arguments = parser.parse_args()
    print("microseconds of processor time a report")
    print(f"{'open orders':>12}{'bare desk':>12}{'tracing adds':>14}{'counter adds':>14}{'ratio':>9}{'at most':>9}")
    rows, worst = [], 0.0
    for open_orders in (10, 100, 1_000, 10_000):
        result = measure(open_orders, arguments.steps, arguments.rounds)
        ratio = result["counter"] / result["tracing"]
        worst = max(worst, ratio)
        rows.append({"open_orders": open_orders, **result, "ratio": ratio})
        print(
            f"{open_orders:>12,}{result['bare']:>12.2f}{result['tracing']:>14.2f}{result['counter']:>14.2f}"
            f"{ratio:>9.3f}{ADDED_MAX:>9.2f}",
            flush=True,
        )
    machine = print_machine("coverage")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine, "most": ADDED_MAX, "rows": rows}, indent=1))
    return int(worst > ADDED_MAX)


if __name__ == "__main__":
    sys.exit(main())
