"""A live desk against the venue over loopback, a seeded fault in the middle of trading: how soon it is frozen.

    python bench/live.py [--times 10] [--json FILE]

Each time a fresh venue and a fresh desk trade over FIX on a recorded day, forty seconds of it in a second. A fault is
switched on in the running desk and the wire is cut, so that the desk books a fill that it is told again. Measured: from
the first mutation of the step that broke an invariant to the freeze on the disk (the clock of the machine, both read
in the desk); new orders and replaces of the frozen account that left after it, by SendingTime as the venue wrote them
down; from the freeze until its page has reached an HTTP receiver that refuses each page three times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from table import told_machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.days import short_days  # noqa: E402
from tests.real.live import (  # noqa: E402
    SYMBOL,
    Pages,
    Truth,
    Wire,
    config,
    desk_command,
    drilled,
    stored,
    venue_command,
)
from tests.servers import free_port  # noqa: E402

FAULT = "resent-fill-booked-again"
ACCELERATE = 40


def wait(holds: Callable[[], Any], what: str, within_s: float = 60.0) -> None:
    """Look until it holds. Raises `TimeoutError`."""
    event, end_s = threading.Event(), time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end_s:
            raise TimeoutError(f"{what} did not come about in {within_s:.0f} s")
        event.wait(0.01)


def executions(directory: Path) -> int:
    """How many executions the desk has booked."""
    path = directory / "desk" / "desk.db"
    return len(stored(directory)["executions"]) if path.exists() else 0


def once(directory: Path, days: Path, recordings: Any) -> dict[str, Any]:
    """One venue, one desk, one fault."""
    port, state, pages = free_port(), directory / "state", Pages(failures=3)
    wire = Wire(port)
    path = config(directory, wire.port, ACCELERATE, pages.table)

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        with open(directory / "said.txt", "ab") as said:
            return subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=said, stderr=said)

    venue = start(venue_command(days, port, state, ACCELERATE))
    desk = start(desk_command(path, "--fault", FAULT, "--fault-after", "1"))
    try:
        wait(lambda: drilled(directory), "the fault")
        before = executions(directory)
        wait(lambda: executions(directory) > before + 2, "a fill")
        wire.cut()
        wait(lambda: len(drilled(directory)) > 1, "the freeze")
        breach = drilled(directory)[1]
        number = breach["breach"]
        wait(lambda: any(one["number"] == number for one in pages.got), "the page")
        page_ns = next(at for at, one in zip(pages.at_ns, pages.got, strict=True) if one["number"] == number)
    finally:
        desk.terminate()
        desk.wait()
        venue.terminate()
        venue.wait()
        wire.close()
        pages.shutdown()
    account = breach["scope"].partition("/")[0].removeprefix("account:")
    truth = Truth(recordings, state)
    return {
        "invariant": breach["invariant"],
        "scope": breach["scope"],
        "freeze_ms": (breach["frozen_ns"] - breach["mutation_ns"]) / 1e6,
        "orders_before": len(truth.sent_after(0, account)),
        "leaked": len(truth.sent_after(breach["frozen_ns"], account)),
        "page_s": (page_ns - breach["frozen_ns"]) / 1e9,
        "page_refused": pages.failures,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as place:
        recordings = short_days(Path(place) / "days", SYMBOL, 60)
        for number in range(arguments.times):
            directory = Path(place) / str(number)
            directory.mkdir()
            rounds.append(once(directory, Path(place) / "days", recordings))
            print(f"  {number + 1}/{arguments.times} {rounds[-1]}", file=sys.stderr, flush=True)
    freeze = [one["freeze_ms"] for one in rounds]
    page = [one["page_s"] for one in rounds]
    figures = {
        "times": len(rounds),
        "freeze_ms": {"median": statistics.median(freeze), "worst": max(freeze)},
        "leaked": sum(one["leaked"] for one in rounds),
        "page_s": {"median": statistics.median(page), "worst": max(page)},
        "machine": told_machine("quickfix-ssl"),
        "rounds": rounds,
    }
    print(f"a seeded fault in a live desk, {len(rounds)} times            median       worst")
    print(f"from the mutation to the freeze on the disk, ms  {figures_of(freeze, 1)}")
    print(f"until the page arrived, refused three times, s   {figures_of(page, 2)}")
    print(f"orders that left the frozen scope, in all        {figures['leaked']:10d}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def figures_of(values: list[float], places: int) -> str:
    """Median and worst."""
    return f"{statistics.median(values):10.{places}f}  {max(values):10.{places}f}"


if __name__ == "__main__":
    main()
