"""The healthy clock in real time: a live desk followed by `holdover shadow run`, which is killed on the way.

    python bench/shadow_real.py [--minutes 20]

A quarter of the way the shadow is killed (SIGKILL) and comes up ten seconds later: that time is never counted. Half way
the feed, a component that this script speaks for, is silent for twenty seconds: the clock is set back. At the end the
clock must have counted what has passed since the feed was back, less a second kill of ten seconds at three quarters, to
within two looks for each; and the faults must be the one silence and no other.
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

from table import machine, show

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.days import short_days  # noqa: E402
from tests.real.live import SYMBOL, config, desk_command, venue_command  # noqa: E402
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


class Feed(threading.Thread):
    """Says each second that a component lives, unless it is silent."""

    def __init__(self, notes: Path, component: str = "feed") -> None:
        super().__init__(daemon=True)
        self.component = component
        self.notes, self.silent, self.ended = notes, False, threading.Event()

    def run(self) -> None:
        """Until ended."""
        while not self.ended.wait(1.0):
            if not self.silent:
                with open(self.notes, "a") as file:
                    file.write(json.dumps({"component": self.component}) + "\n")


def main() -> int:
    """0 when the clock shows what it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    told = parser.parse_args()
    seconds = told.minutes * 60
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        short_days(place / "days", SYMBOL, 390)
        port = free_port()
        path = config(place, port, 8)
        (place / "shadow.toml").write_text(SHADOW)
        (place / "shadow").mkdir()
        processes: list[subprocess.Popen[bytes]] = []

        def start(command: list[str]) -> subprocess.Popen[bytes]:
            with open(place / "said.txt", "ab") as said:
                processes.append(subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=said, stderr=said))
            return processes[-1]

        def shadow() -> subprocess.Popen[bytes]:
            return start(["-m", "holdover", "shadow", "run", "--config", str(place / "shadow.toml")])

        def state() -> dict[str, Any]:
            try:
                return dict(json.loads((place / "shadow" / "shadow.json").read_bytes()))
            except (OSError, ValueError):
                return {}

        def until(at_s: float) -> None:
            time.sleep(max(began + at_s - time.monotonic(), 0.0))

        try:
            start(venue_command(place / "days", port, place / "state", 8))
            start(desk_command(path))
            feed = Feed(place / "shadow" / "notes.jsonl")
            feed.start()
            running = shadow()
            while not state().get("clock", {}).get("healthy_ns"):
                time.sleep(0.1)
            began = time.monotonic()
            until(seconds / 4)
            running.kill()
            time.sleep(DOWN_S)
            running = shadow()
            until(seconds / 2)
            feed.silent = True
            time.sleep(SILENT_S)
            feed.silent, back = False, time.monotonic()
            until(seconds * 3 / 4)
            running.kill()
            time.sleep(DOWN_S)
            running = shadow()
            until(seconds)
            running.send_signal(signal.SIGTERM)
            running.wait(30)
            expected = time.monotonic() - back - DOWN_S
            found = state()
        finally:
            for one in processes:
                one.kill()
        counted = found["clock"]["healthy_ns"] / 1e9
        faults = {fault: one["count"] for fault, one in found["faults"].items()}
        start_s = 4.0  # a life's own start, which nobody has watched, and the feed's next word
        holds = expected - 2 * start_s - 4 * LOOK_S <= counted <= expected + LOOK_S and faults == {"silence": 1}
        row = {
            "minutes": told.minutes,
            "should be s, at most": expected,
            "counted s": counted,
            "lives": found["clock"]["lives"],
        }
        show("shadow_real", [row | {"faults": str(faults), "holds": str(holds)}], machine())
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
