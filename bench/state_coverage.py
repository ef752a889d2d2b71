"""What the always-on cell counter costs, beside what coverage.py's branch tracing costs on the same subject.

    python bench/state_coverage.py

The desk is fed execution reports, bare and under coverage.py with branches on, tracing the desk's own files only; the
difference is what tracing adds. The mutations that the desk recorded are then put, one after another, through the very
functions that the guard's layout writes, for a catalogue without any invariant: with the axes and without; the
difference is what the counter adds. (Measured inside the desk it would drown in the noise of the desk's database.)
All in one process, in turns; medians of rounds, in processor time, so that neighbours on the machine do not count.
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
from table import told_machine

import holdover.desk
from holdover.catalogue import Catalogue
from holdover.desk import Desk
from holdover.model import Record
from holdover.runtime.axes import axes_in_use
from holdover.runtime.cells import CellCounter
from holdover.runtime.monitor import Monitor

MOST = 0.15
"""What the counter may add at most, of what branch tracing adds."""


class Listening(NoGuard):
    """A guard that only writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Record]] = []

    def record(self, subsystem: str, record: Record) -> None:
        """Write it down."""
        self.told.append((subsystem, record))


def counted(told: list[tuple[str, Record]], monitor: Monitor) -> float:
    """Processor time, in microseconds, of putting records through the monitor's tables."""
    touched: dict[Any, None] = {}
    gc.collect()
    began = time.process_time()
    for subsystem, record in told:
        monitor.mutate(subsystem, record, 0, touched)
    return (time.process_time() - began) * 1e6


def a_monitor(*, axes: bool) -> Monitor:
    """A monitor without any invariant, with or without axes."""
    cells = CellCounter(axes_in_use() if axes else ())
    return Monitor(Catalogue(), lambda breach, check: None, None, cells=cells)


def measure(open_orders: int, steps: int, rounds: int) -> dict[str, float]:
    """Microseconds a report: bare, under branch tracing, and what the counter adds."""
    source = str(Path(holdover.desk.__file__).parent)
    listening = Listening()
    with_axes, without = a_monitor(axes=True), a_monitor(axes=False)
    times: dict[str, list[float]] = {"bare": [], "tracing": [], "counter": []}
    with tempfile.TemporaryDirectory() as place:
        guards = {"bare": NoGuard(), "traced": NoGuard(), "told": listening}
        desks = {name: make_desk(Path(place) / name, guard, open_orders) for name, guard in guards.items()}
        for monitor in (with_axes, without):
            counted(listening.told, monitor)
        for number in range(rounds + 1):
            first = number * steps
            bare = fed(*desks["bare"], first, steps)
            tracer = coverage.Coverage(branch=True, source=[source], data_file=None)
            tracer.start()
            try:
                traced = fed(*desks["traced"], first, steps)
            finally:
                tracer.stop()
            listening.told.clear()
            fed(*desks["told"], first, steps)
            # Twice in either order, so that what the first of them warms up helps both alike.
            plain = counted(listening.told, without)
            axes = counted(listening.told, with_axes)
            axes += counted(listening.told, with_axes)
            plain += counted(listening.told, without)
            times["bare"].append(bare)
            times["tracing"].append(traced - bare)
            times["counter"].append((axes - plain) / 2 / steps)
        for desk, _ in desks.values():
            desk.store.close()
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def fed(desk: Desk, keys: list[str], first: int, steps: int) -> float:
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
    told = parser.parse_args()
    print("microseconds of processor time a report")
    print(f"{'open orders':>12}{'bare desk':>12}{'tracing adds':>14}{'counter adds':>14}{'ratio':>9}{'at most':>9}")
    rows, worst = [], 0.0
    for open_orders in (10, 100, 1_000, 10_000):
        found = measure(open_orders, told.steps, told.rounds)
        ratio = found["counter"] / found["tracing"]
        worst = max(worst, ratio)
        rows.append({"open_orders": open_orders, **found, "ratio": ratio})
        print(
            f"{open_orders:>12,}{found['bare']:>12.2f}{found['tracing']:>14.2f}{found['counter']:>14.2f}"
            f"{ratio:>9.3f}{MOST:>9.2f}",
            flush=True,
        )
    machine = told_machine("coverage")
    told.out.parent.mkdir(parents=True, exist_ok=True)
    told.out.write_text(json.dumps({"machine": machine, "most": MOST, "rows": rows}, indent=1))
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
