"""Run a candidate live next to a live desk in real time; check what its clock counts and that no order differs.

    python bench/shadow_live.py [--minutes 20]

A desk trades over FIX on a venue that plays a recorded day, and records its market data. A shadow runs a
second desk on that market data and on the first desk's reports. After one quarter and after three quarters of
the run the shadow is killed (SIGKILL) and restarted ten seconds later; this time is not counted. Half way a
component is silent for twenty seconds, which resets the clock. Later the host's clock jumps an hour ahead and
back. The script exits with 0 when:

- the clock counts the time since the component came back, less the second kill, to within two looks for each;
- the faults are one silence and two clock jumps;
- no order differs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from shadow_real import DOWN_S, LOOK_S, ROOT, SILENT_S, ComponentReporter
from table import machine, report_table

sys.path.insert(0, str(ROOT))

from tests.incumbent_desk import instrument_toml
from tests.real.live_setup import DAY, SYMBOL, desk_command, venue_command, write_config
from tests.servers import free_port

from holdover.harness.subject import resolve_factory
from holdover.recording import Meta, bundled_store
from holdover.recording.format import RecordingWriter
from holdover.recording.store import recording_path
from holdover.shadow import read_shadow_config, read_state, run_live

SHADOW = """
[candidate]
subject = "desk"
settings = {{ live = "{desk}" }}
[input]
market = "tap"
reports = "guard/journal.jsonl"
instruments = ["acme.toml"]
open = {open}
close = {close}
[incumbent]
journal = "guard/journal.jsonl"
[clock]
tick_s = 0.5
deadline_s = 5
[[component]]
name = "pager"
deadline_s = 5
"""
JUMP_NS = 3_600_000_000_000
START_S = 6.0
"""How long a life of the shadow may take to come up: its day is played again in it."""


def run_shadow(path: Path) -> int:
    """The shadow's process, on a host whose clock this benchmark sets."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    jump = path.parent / "jump"
    run_live(
        read_shadow_config(path),
        resolve_factory("desk"),
        stop=stop,
        wall=lambda: time.time_ns() + (int(jump.read_text()) if jump.exists() else 0),
    )
    return 0


def write_today(directory: Path, minutes: float) -> Meta:
    """The bundled day as one of today that opens in half a minute; its sessions are days of the UTC calendar."""
    whole = bundled_store().get(SYMBOL, DAY)
    open_ns = (time.time_ns() // 10**9 + 30) * 10**9
    length = round((minutes + 10) * 60) * 10**9
    date = datetime.fromtimestamp(open_ns / 1e9, UTC).date().isoformat()
    meta = msgspec.structs.replace(
        whole.meta,
        instrument=msgspec.structs.replace(whole.meta.instrument, calendar="24/7"),
        trade_date=date,
        open_ns=open_ns,
        close_ns=open_ns + length,
    )
    writer = RecordingWriter(recording_path(directory, "SIM", SYMBOL, date), meta)
    for event in whole.events(whole.meta.open_ns, whole.meta.open_ns + length):
        writer.copy_event((event[0] - whole.meta.open_ns + open_ns, *event[1:]))
    return writer.close().meta


class Bench:
    """The processes, and what the shadow has written."""

    def __init__(self, directory: Path, minutes: float) -> None:
        self.directory, self.processes = directory, list[subprocess.Popen[bytes]]()
        meta = write_today(directory / "days", minutes)
        port = free_port()
        desk = write_config(directory, port, 1)
        hours = [datetime.fromtimestamp(ns // 10**9, UTC).strftime("%H:%M:%S") for ns in (meta.open_ns, meta.close_ns)]
        text = desk.read_text().replace(f"day = {DAY}", f"day = {meta.trade_date}").replace('"feed"', '"real"')
        text = text.replace("14:30:00", hours[0]).replace("21:00:00", hours[1])
        desk.write_text(text.replace("[desk]\n", '[desk]\ntap = "tap"\n', 1))
        (directory / "tap").mkdir()
        (directory / "acme.toml").write_text(instrument_toml(meta.instrument))
        (directory / "shadow.toml").write_text(SHADOW.format(desk=desk, open=hours[0], close=hours[1]))
        (directory / "shadow").mkdir()
        venue = venue_command(directory / "days", port, directory / "state", 1, "--real")
        self.start([meta.trade_date if argument == DAY else argument for argument in venue if argument != "--wait"])
        self.desk = desk_command(desk)

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Another process."""
        with open(self.directory / "said.txt", "ab") as log_file:
            self.processes.append(
                subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=log_file, stderr=log_file)
            )
        return self.processes[-1]

    def start_shadow(self) -> subprocess.Popen[bytes]:
        """Another life of the shadow."""
        return self.start([str(Path(__file__).resolve()), "--shadow", str(self.directory / "shadow.toml")])

    def read_counted_ns(self) -> int:
        """What the clock has counted so far, ns."""
        path = self.directory / "shadow" / "shadow.json"
        return read_state(path).clock.healthy_ns if path.exists() else 0

    def set_clock_offset(self, ns: int) -> None:
        """The host's clock is set."""
        part = self.directory / "jump.part"
        part.write_text(str(ns))
        os.replace(part, self.directory / "jump")


def run(bench: Bench, seconds: float) -> float:
    """All that happens on the way; what the clock should have counted at most, s."""
    feed = ComponentReporter(bench.directory / "shadow" / "notes.jsonl", "pager")
    feed.start()
    running = bench.start_shadow()
    while not (bench.directory / "shadow" / "inputs.db").exists():
        time.sleep(0.1)
    bench.start(bench.desk)  # the candidate is there from the first: it begins the day as the desk does
    while not bench.read_counted_ns():
        time.sleep(0.1)
    began = time.monotonic()

    def wait_until_share(share: float) -> None:
        time.sleep(max(began + seconds * share - time.monotonic(), 0.0))

    wait_until_share(0.25)
    running.kill()
    time.sleep(DOWN_S)
    running = bench.start_shadow()
    wait_until_share(0.5)
    feed.is_silent = True
    time.sleep(SILENT_S)
    feed.is_silent, feed_resumed_s = False, time.monotonic()
    wait_until_share(0.6)
    bench.set_clock_offset(JUMP_NS)
    wait_until_share(0.65)
    bench.set_clock_offset(0)
    wait_until_share(0.75)
    running.kill()
    time.sleep(DOWN_S)
    running = bench.start_shadow()
    wait_until_share(1.0)
    running.send_signal(signal.SIGTERM)
    running.wait(60)
    return time.monotonic() - feed_resumed_s - DOWN_S


def main() -> int:
    """0 when the clock shows what it should and no order differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--shadow", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.shadow is not None:
        return run_shadow(arguments.shadow)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), arguments.minutes)
        try:
            counted_max_s = run(bench, arguments.minutes * 60)
        finally:
            for process in bench.processes:
                process.kill()
        state = read_state(bench.directory / "shadow" / "shadow.json")
        log_text = (bench.directory / "said.txt").read_text()
    counted, faults = state.clock.healthy_ns / 1e9, {name: fault.count for name, fault in state.faults.items()}
    compared = state.compared
    holds = (
        counted_max_s - 2 * START_S - 4 * LOOK_S <= counted <= counted_max_s + LOOK_S
        and faults == {"silence": 1, "clock-skew": 2}
        and compared is not None
        and compared.orders > 0
        and compared.unexplained == 0
    )
    row: dict[str, Any] = {
        "minutes": arguments.minutes,
        "should be s, at most": counted_max_s,
        "counted s": counted,
        "lives": state.clock.run_count,
        "orders": compared.orders if compared else 0,
        "differ": compared.differing if compared else 0,
        "reports": state.followed.reports if state.followed else 0,
        "left out": state.followed.discarded if state.followed else 0,
    }
    report_table("shadow_live", [row | {"faults": json.dumps(faults), "holds": str(holds)}], machine())
    if not holds:
        print(log_text[-4000:], state.compared, file=sys.stderr)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
