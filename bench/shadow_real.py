"""Check the healthy clock in real time: `holdover shadow run` follows a live desk and is killed twice.

    python bench/shadow_real.py [--minutes 20]

After one quarter and after three quarters of the run the shadow is killed (SIGKILL) and restarted ten seconds
later; this time is not counted. Half way the component `feed`, which this script reports for, is silent for
twenty seconds, which resets the clock. The script exits with 0 when the clock counts the time since the feed
came back, less the second kill, to within two looks for each, and the only fault is the silence.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from table import machine, report_table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.days import write_short_days  # noqa: E402
from tests.real.live_setup import SYMBOL, desk_command, venue_command, write_config  # noqa: E402
from tests.servers import free_port  # noqa: E402

SHADOW = """
[candidate]
journal = "guard/journal.jsonl"
guard = "guard"
[clock]
tick_s = 0.5
deadline_s = 5
[[component]]
name = "feed"
deadline_s = 5
"""
DOWN_S, SILENT_S, LOOK_S = 10.0, 20.0, 0.5


class ComponentReporter(threading.Thread):
    """Says each second that a component lives, unless it is silent."""

    def __init__(self, notes: Path, component: str = "feed") -> None:
        super().__init__(daemon=True)
        self.component = component
        self.notes, self.is_silent, self.ended = notes, False, threading.Event()

    def run(self) -> None:
        """Until ended."""
        while not self.ended.wait(1.0):
            if not self.is_silent:
                with open(self.notes, "a") as file:
                    file.write(json.dumps({"component": self.component}) + "\n")


def main() -> int:
    """0 when the clock shows what it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_short_days(directory / "days", SYMBOL, 390)
        port = free_port()
        path = write_config(directory, port, 8)
        (directory / "shadow.toml").write_text(SHADOW)
        (directory / "shadow").mkdir()
        processes: list[subprocess.Popen[bytes]] = []

        def start(command: list[str]) -> subprocess.Popen[bytes]:
            with open(directory / "said.txt", "ab") as log_file:
                processes.append(
                    subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=log_file, stderr=log_file)
                )
            return processes[-1]

        def shadow() -> subprocess.Popen[bytes]:
            return start(["-m", "holdover", "shadow", "run", "--config", str(directory / "shadow.toml")])

        def state() -> dict[str, Any]:
            try:
                return dict(json.loads((directory / "shadow" / "shadow.json").read_bytes()))
            except (OSError, ValueError):
                return {}

        def wait_until(at_s: float) -> None:
            time.sleep(max(began + at_s - time.monotonic(), 0.0))

        try:
            start(venue_command(directory / "days", port, directory / "state", 8))
            start(desk_command(path))
            feed = ComponentReporter(directory / "shadow" / "notes.jsonl")
            feed.start()
            running = shadow()
            while not state().get("clock", {}).get("healthy_ns"):
                time.sleep(0.1)
            began = time.monotonic()
            wait_until(seconds / 4)
            running.kill()
            time.sleep(DOWN_S)
            running = shadow()
            wait_until(seconds / 2)
            feed.is_silent = True
            time.sleep(SILENT_S)
            feed.is_silent, feed_resumed_s = False, time.monotonic()
            wait_until(seconds * 3 / 4)
            running.kill()
            time.sleep(DOWN_S)
            running = shadow()
            wait_until(seconds)
            running.send_signal(signal.SIGTERM)
            running.wait(30)
            expected = time.monotonic() - feed_resumed_s - DOWN_S
            final_state = state()
        finally:
            for process in processes:
                process.kill()
        counted = final_state["clock"]["healthy_ns"] / 1e9
        faults = {fault: entry["count"] for fault, entry in final_state["faults"].items()}
        start_s = 4.0  # a life's own start, which nobody has watched, and the feed's next word
        holds = expected - 2 * start_s - 4 * LOOK_S <= counted <= expected + LOOK_S and faults == {"silence": 1}
        row = {
            "minutes": arguments.minutes,
            "should be s, at most": expected,
            "counted s": counted,
            "lives": final_state["clock"]["run_count"],
        }
        report_table("shadow_real", [row | {"faults": str(faults), "holds": str(holds)}], machine())
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
