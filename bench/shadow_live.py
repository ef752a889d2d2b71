"""A candidate run live beside a live desk, in real time: what its clock counts, and whether it is called different.

    python bench/shadow_live.py [--minutes 20]

A desk trades over FIX on a venue that plays a recorded day, and records what its feed says. A shadow runs a second desk
here on that feed and on the reports that the first is sent. A quarter and three quarters of the way the shadow is
killed (SIGKILL) and comes up ten seconds later: that time is never counted. Half way a component is silent for twenty
seconds: the clock is set back. The host's clock jumps an hour ahead and back. At the end the clock must have counted
what has passed since the component was back, less the second kill, to within two looks for each; the faults must be the
one silence and the two jumps; and no order may differ.
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
from shadow_real import DOWN_S, LOOK_S, ROOT, SILENT_S, Feed
from table import machine, show

sys.path.insert(0, str(ROOT))

from tests.beside import instrument_toml
from tests.real.live import DAY, SYMBOL, config, desk_command, venue_command
from tests.servers import free_port

from holdover.harness.subject import factory_named
from holdover.recording import Meta, bundled
from holdover.recording.format import RecordingWriter
from holdover.recording.store import path_for
from holdover.shadow import read_shadow, read_state, run_live

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


def shadow(path: Path) -> int:
    """The shadow's process, on a host whose clock this benchmark sets."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    jump = path.parent / "jump"
    run_live(
        read_shadow(path),
        factory_named("desk"),
        stop=stop,
        wall=lambda: time.time_ns() + (int(jump.read_text()) if jump.exists() else 0),
    )
    return 0


def today(into: Path, minutes: float) -> Meta:
    """The bundled day as one of today that opens in half a minute; its sessions are days of the UTC calendar."""
    whole = bundled().get(SYMBOL, DAY)
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
    writer = RecordingWriter(path_for(into, "SIM", SYMBOL, date), meta)
    for event in whole.events(whole.meta.open_ns, whole.meta.open_ns + length):
        writer.raw((event[0] - whole.meta.open_ns + open_ns, *event[1:]))
    return writer.close().meta


class Bench:
    """The processes, and what the shadow has written."""

    def __init__(self, place: Path, minutes: float) -> None:
        self.place, self.processes = place, list[subprocess.Popen[bytes]]()
        meta = today(place / "days", minutes)
        port = free_port()
        desk = config(place, port, 1)
        hours = [datetime.fromtimestamp(ns // 10**9, UTC).strftime("%H:%M:%S") for ns in (meta.open_ns, meta.close_ns)]
        text = desk.read_text().replace(f"day = {DAY}", f"day = {meta.trade_date}").replace('"feed"', '"real"')
        text = text.replace("14:30:00", hours[0]).replace("21:00:00", hours[1])
        desk.write_text(text.replace("[desk]\n", '[desk]\ntap = "tap"\n', 1))
        (place / "tap").mkdir()
        (place / "acme.toml").write_text(instrument_toml(meta.instrument))
        (place / "shadow.toml").write_text(SHADOW.format(desk=desk, open=hours[0], close=hours[1]))
        (place / "shadow").mkdir()
        venue = venue_command(place / "days", port, place / "state", 1, "--real")
        self.start([meta.trade_date if one == DAY else one for one in venue if one != "--wait"])
        self.desk = desk_command(desk)

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Another process."""
        with open(self.place / "said.txt", "ab") as said:
            self.processes.append(subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=said, stderr=said))
        return self.processes[-1]

    def shadow(self) -> subprocess.Popen[bytes]:
        """Another life of the shadow."""
        return self.start([str(Path(__file__).resolve()), "--shadow", str(self.place / "shadow.toml")])

    def counted(self) -> int:
        """What the clock has counted so far, ns."""
        path = self.place / "shadow" / "shadow.json"
        return read_state(path).clock.healthy_ns if path.exists() else 0

    def jump(self, ns: int) -> None:
        """The host's clock is set."""
        part = self.place / "jump.part"
        part.write_text(str(ns))
        os.replace(part, self.place / "jump")


def run(bench: Bench, seconds: float) -> float:
    """All that happens on the way; what the clock should have counted at most, s."""
    feed = Feed(bench.place / "shadow" / "notes.jsonl", "pager")
    feed.start()
    running = bench.shadow()
    while not (bench.place / "shadow" / "inputs.db").exists():
        time.sleep(0.1)
    bench.start(bench.desk)  # the candidate is there from the first: it begins the day as the desk does
    while not bench.counted():
        time.sleep(0.1)
    began = time.monotonic()

    def until(share: float) -> None:
        time.sleep(max(began + seconds * share - time.monotonic(), 0.0))

    until(0.25)
    running.kill()
    time.sleep(DOWN_S)
    running = bench.shadow()
    until(0.5)
    feed.silent = True
    time.sleep(SILENT_S)
    feed.silent, back = False, time.monotonic()
    until(0.6)
    bench.jump(JUMP_NS)
    until(0.65)
    bench.jump(0)
    until(0.75)
    running.kill()
    time.sleep(DOWN_S)
    running = bench.shadow()
    until(1.0)
    running.send_signal(signal.SIGTERM)
    running.wait(60)
    return time.monotonic() - back - DOWN_S


def main() -> int:
    """0 when the clock shows what it should and no order differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--shadow", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.shadow is not None:
        return shadow(told.shadow)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), told.minutes)
        try:
            most = run(bench, told.minutes * 60)
        finally:
            for one in bench.processes:
                one.kill()
        found = read_state(bench.place / "shadow" / "shadow.json")
        said = (bench.place / "said.txt").read_text()
    counted, faults = found.clock.healthy_ns / 1e9, {name: one.count for name, one in found.faults.items()}
    compared = found.compared
    holds = (
        most - 2 * START_S - 4 * LOOK_S <= counted <= most + LOOK_S
        and faults == {"silence": 1, "clock-skew": 2}
        and compared is not None
        and compared.orders > 0
        and compared.unexplained == 0
    )
    row: dict[str, Any] = {
        "minutes": told.minutes,
        "should be s, at most": most,
        "counted s": counted,
        "lives": found.clock.lives,
        "orders": compared.orders if compared else 0,
        "differ": compared.differing if compared else 0,
        "reports": found.followed.reports if found.followed else 0,
        "left out": found.followed.left_out if found.followed else 0,
    }
    show("shadow_live", [row | {"faults": json.dumps(faults), "holds": str(holds)}], machine())
    if not holds:
        print(said[-4000:], found.compared, file=sys.stderr)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
