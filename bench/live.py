"""Measure how soon a live desk is frozen after a seeded fault in the middle of trading.

    python bench/live.py [--times 10] [--json FILE]

In each round a fresh venue and a fresh desk trade a recorded day over FIX at 40 times real time. The script
switches on a fault in the running desk and drops the link, so that the desk books a resent fill twice. It
measures:

- the time from the first mutation of the step that breaks an invariant to the freeze on the disk (both times
  are read in the desk, from the clock of the machine);
- the new orders and replaces of the frozen account that left after the freeze, by the SendingTime in the
  venue's log;
- the time from the freeze until its alert reaches an HTTP receiver that refuses each alert three times.
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

from table import print_machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.days import write_short_days  # noqa: E402
from tests.real.live_setup import (  # noqa: E402
    SYMBOL,
    AlertWebhook,
    ReplayedVenue,
    TcpProxy,
    desk_command,
    read_drill,
    read_store,
    venue_command,
    write_config,
)
from tests.servers import free_port  # noqa: E402

FAULT = "resent-fill-booked-again"
ACCELERATE = 40


def wait_until(condition: Callable[[], Any], description: str, within_s: float = 60.0) -> None:
    """Look until it holds. Raises `TimeoutError`."""
    event, end_s = threading.Event(), time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"{description} did not come about in {within_s:.0f} s")
        event.wait(0.01)


def count_executions(directory: Path) -> int:
    """How many executions the desk has booked."""
    path = directory / "desk" / "desk.db"
    return len(read_store(directory)["executions"]) if path.exists() else 0


def run_trial(directory: Path, days: Path, recordings: Any) -> dict[str, Any]:
    """One venue, one desk, one fault."""
    port, state, pages = free_port(), directory / "state", AlertWebhook(failures=3)
    wire = TcpProxy(port)
    path = write_config(directory, wire.port, ACCELERATE, pages.channel_toml)

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        with open(directory / "said.txt", "ab") as log_file:
            return subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=log_file, stderr=log_file)

    venue = start(venue_command(days, port, state, ACCELERATE))
    desk = start(desk_command(path, "--fault", FAULT, "--fault-after", "1"))
    try:
        wait_until(lambda: read_drill(directory), "the fault")
        before = count_executions(directory)
        wait_until(lambda: count_executions(directory) > before + 2, "a fill")
        wire.drop_connections()
        wait_until(lambda: len(read_drill(directory)) > 1, "the freeze")
        breach = read_drill(directory)[1]
        number = breach["breach"]
        wait_until(lambda: any(alert["number"] == number for alert in pages.alerts), "the page")
        page_ns = next(at for at, alert in zip(pages.at_ns, pages.alerts, strict=True) if alert["number"] == number)
    finally:
        desk.terminate()
        desk.wait()
        venue.terminate()
        venue.wait()
        wire.close()
        pages.shutdown()
    account = breach["scope"].partition("/")[0].removeprefix("account:")
    truth = ReplayedVenue(recordings, state)
    return {
        "invariant": breach["invariant"],
        "scope": breach["scope"],
        "freeze_ms": (breach["frozen_ns"] - breach["mutation_ns"]) / 1e6,
        "orders_before": len(truth.orders_sent_after(0, account)),
        "leaked": len(truth.orders_sent_after(breach["frozen_ns"], account)),
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
    with tempfile.TemporaryDirectory() as directory_name:
        recordings = write_short_days(Path(directory_name) / "days", SYMBOL, 60)
        for number in range(arguments.times):
            directory = Path(directory_name) / str(number)
            directory.mkdir()
            rounds.append(run_trial(directory, Path(directory_name) / "days", recordings))
            print(f"  {number + 1}/{arguments.times} {rounds[-1]}", file=sys.stderr, flush=True)
    freeze = [row["freeze_ms"] for row in rounds]
    page = [row["page_s"] for row in rounds]
    figures = {
        "times": len(rounds),
        "freeze_ms": {"median": statistics.median(freeze), "worst": max(freeze)},
        "leaked": sum(row["leaked"] for row in rounds),
        "page_s": {"median": statistics.median(page), "worst": max(page)},
        "machine": print_machine("quickfix-ssl"),
        "rounds": rounds,
    }
    print(f"a seeded fault in a live desk, {len(rounds)} times            median       worst")
    print(f"from the mutation to the freeze on the disk, ms  {format_figures(freeze, 1)}")
    print(f"until the page arrived, refused three times, s   {format_figures(page, 2)}")
    print(f"orders that left the frozen scope, in all        {figures['leaked']:10d}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def format_figures(values: list[float], places: int) -> str:
    """Median and worst."""
    return f"{statistics.median(values):10.{places}f}  {max(values):10.{places}f}"


if __name__ == "__main__":
    main()
