"""Points a second of the sweep against what else one could do, on one day with many orders open.

    python bench/sweep.py [--open 100] [--points 800] [--rounds 2]

The day is a bundled one (its first `--minutes`), on which as many strategies as there are to be open orders each keep a
GTC order standing far from the touch, beside three that trade. Killed is at the same points, in these ways:

- `sweep`: as `holdover sweep` does it, in the process, followed until it has rejoined;
- `fork, rejoin`: a fork at the point, killed, restarted, followed until it has rejoined;
- `fork`: a fork at the point, killed, restarted and run to the close;
- `naive`: for each point anew: run from the open to the point, kill, restart, run to the close;
- `sweep, 2 workers`: as the first, its pieces on two processes, against one.

All in one run, in turns; medians of the rounds. What is slow is tried at a sample of the points, spread over the day as
the others are, and its time a point is what is compared.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import msgspec
from table import told_machine

from holdover.adapters.desk import config_for
from holdover.desk import Strategy
from holdover.explore.play import Player
from holdover.explore.pool import processes
from holdover.explore.schedule import Operation, schedule_on
from holdover.explore.trial import Trials, Tried
from holdover.explore.walk import Ground, Map, catalogue_of, store_of, survey
from holdover.harness import Plan
from holdover.model import Side, TimeInForce
from holdover.recording import bundled
from holdover.recording.format import RecordingWriter
from holdover.recording.store import path_for

DAY = "2024-11-27"
BUSIEST: dict[int, list[float]] = {}
"""For so many workers, the processor time of the busiest one: what counts where neighbours use the machine too."""
TARGETS = {"naive": 25.0, "fork": 10.0, "workers": 1.8}


def cut_day(into: Path, minutes: int) -> None:
    """The first minutes of the bundled day of BOLT, as a day of its own."""
    whole = bundled().get("BOLT", DAY)
    meta = whole.meta
    close_ns = meta.open_ns + minutes * 60_000_000_000
    blank = dict.fromkeys(("records", "body_bytes", "quotes", "trades", "statuses", "traded_qty", "first_ns"), 0)
    writer = RecordingWriter(
        path_for(into, "SIM", "BOLT", DAY), msgspec.structs.replace(meta, close_ns=close_ns, last_ns=0, **blank)
    )
    for event in whole.events(meta.first_ns, close_ns):
        writer.raw(event)
    writer.close()


def settings_for(store: Any, open_orders: int) -> dict[str, Any]:
    """A desk with three strategies that trade, and as many orders that rest far away as are wanted."""
    config = config_for(Plan(days=[store.get("BOLT", DAY).meta]))
    resting = [
        Strategy(
            name=f"rest-{number}",
            account="A2",
            symbol="BOLT",
            side=Side.BUY,
            order_qty=10**6,
            day_qty=10**6,
            slice_qty=1000,
            algorithm="standing",
            time_in_force=TimeInForce.GTC,
            interval_ns=300_000_000_000,
            patience=10**6,
            slices_working_max=1,
            rests=True,
            offset=1000 + number,
        )
        for number in range(open_orders)
    ]
    limits = {"position_max": 10**9, "open_qty_max": 10**9, "order_qty_max": 10**7}
    return {"desk": msgspec.structs.replace(config, strategies=[*config.strategies, *resting], **limits)}


class Chosen(Trials):
    """Trials at chosen points only; by forks, and to the close, when told so."""

    def __init__(self, ground: Ground, place: Path, found: Map, points: list[int], *, forks: bool, to_close: bool):
        super().__init__(ground, place, None, found, 1, max(points) + 1)
        self.standing = {group: set(points) if group == "kill" else set() for group in self.standing}
        self.forks, self.to_close = forks, to_close

    def hook(self) -> None:
        """As ever, but for what the subject says of itself."""
        super().hook()
        self.isolated = not self.forks

    def follow(self, operation: Operation, number: int) -> Tried:
        """As ever, or to the close."""
        if not self.to_close:
            return super().follow(operation, number)
        self.session.play(self.session.hours()[1])
        return self.judged(operation, number, "converged", "")


def in_place(ground: Ground, found: Map, points: list[int], *, forks: bool = False, to_close: bool = False) -> int:
    """Try a kill at chosen points; how many were tried."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        trials = Chosen(ground, Path(place), found, points, forks=forks, to_close=to_close)
        trials.go()
        trials.session.close()
    breached = [one for one in trials.tried if one.verdict in ("breach", "unknown")]
    assert not breached, breached[0]
    return len(trials.tried)


def part(told: bytes, found: bytes, points: list[int]) -> tuple[int, int, float]:
    """What a worker does of a sweep; how many it tried, which worker it is, and the processor time that it took."""
    began = time.process_time()
    count = in_place(msgspec.msgpack.decode(told, type=Ground), msgspec.msgpack.decode(found, type=Map), points)
    return count, os.getpid(), time.process_time() - began


def naive(ground: Ground, at: list[tuple[str, int, int]], settings: dict[str, Any]) -> int:
    """For each point anew from the open to the close."""
    store, catalogue = store_of(ground), catalogue_of(ground)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        for where, n, _ in at:
            schedule = schedule_on(
                store,
                ["BOLT"],
                [DAY],
                catalogue,
                operations=[Operation(at=where, n=n, do="kill")],  # type: ignore[arg-type]
            )
            player = Player(schedule, store, Path(place) / "s", catalogue=catalogue, journal=False, scratch=True)
            player.session.plan.settings.update(settings)
            player.session.guard.monitor.recomputes = False
            played = player.play()
            player.close()
            assert played.done == 1
            assert played.verdict == "holds", played.breaches
    return len(at)


class Places(Trials):
    """Finds of each point what a schedule calls it."""

    def at_point(self, place: str, classes: dict[str, bool]) -> None:
        """Note it."""
        self.named[self.number] = (place, self.counts[place], self.session.clock.now_ns)

    named: dict[int, tuple[str, int, int]]


def spread(of: list[int], count: int) -> list[int]:
    """That many of them, evenly."""
    return [of[number * len(of) // count] for number in range(min(count, len(of)))]


def timed(run: Callable[[], int]) -> float:
    """Seconds a point."""
    gc.collect()
    began = time.perf_counter()
    count = run()
    return (time.perf_counter() - began) / count


def workers(ground: Ground, found: Map, points: list[int], count: int) -> float:
    """Seconds a point with that many workers, each with its share in pieces; their start is not counted."""
    told = msgspec.msgpack.encode(ground), msgspec.msgpack.encode(found)
    with processes(count) as pool:
        wait([pool.submit(time.sleep, 0.2) for _ in range(count)])
        pieces = [points[start : start + len(points) // 8] for start in range(0, len(points), len(points) // 8)]
        began = time.perf_counter()
        done = [one.result() for one in [pool.submit(part, *told, piece) for piece in pieces]]
        wall = time.perf_counter() - began
    busy: dict[int, float] = {}
    for _, worker, seconds in done:
        busy[worker] = busy.get(worker, 0.0) + seconds
    BUSIEST.setdefault(count, []).append(max(busy.values()))
    return wall / sum(tried for tried, _, _ in done)


def main() -> None:
    """Print the table and write it as JSON beside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=int, default=100)
    parser.add_argument("--points", type=int, default=800)
    parser.add_argument("--minutes", type=int, default=390)
    parser.add_argument("--sample", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/bench/sweep.json"))
    told = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="holdover-bench-"))
    cut_day(place / "days", told.minutes)
    bare = Ground(symbols=["BOLT"], days=[DAY], day=DAY, recordings=str(place / "days"), kinds=["kill"], prove_every=0)
    settings = settings_for(store_of(bare), told.open)
    ground = msgspec.structs.replace(bare, desk=settings)
    found = survey(ground, place / "survey", None)
    names = Places(ground, place / "names", None, found, 1, found.total + 1)
    names.named = {}
    names.go()
    names.session.close()
    stand_ns = found.marks[0].time_ns + 600_000_000_000  # by then all of them rest
    points = spread([one for one in found.classes["kill"] if names.named[one][2] > stand_ns], told.points)
    few, fewer = spread(points, told.sample * 4), spread(points, told.sample)
    rests = statistics.median(one.open_orders for one in found.marks)
    ways: dict[str, tuple[int, Callable[[], float]]] = {
        "sweep": (len(points), lambda: timed(lambda: in_place(ground, found, points))),
        "fork, rejoin": (len(few), lambda: timed(lambda: in_place(ground, found, few, forks=True))),
        "fork": (len(few), lambda: timed(lambda: in_place(ground, found, few, forks=True, to_close=True))),
        "naive": (len(fewer), lambda: timed(lambda: naive(ground, [names.named[one] for one in fewer], settings))),
        "sweep, 1 worker": (len(points), lambda: workers(ground, found, points, 1)),
        "sweep, 2 workers": (len(points), lambda: workers(ground, found, points, 2)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(told.rounds):
        for name, (_, run) in ways.items():
            times[name].append(run())
    middle = {name: statistics.median(several) for name, several in times.items()}
    print(f"{rests:.0f} orders open, {len(points):,} points of {found.total:,}, {told.minutes} minutes of market")
    print(f"{'way':<20}{'points run':>12}{'ms a point':>12}{'points/s':>11}{'sweep is':>11}")
    for name, (count, _) in ways.items():
        ratio = middle[name] / middle["sweep"]
        print(f"{name:<20}{count:>12,}{middle[name] * 1e3:>12.2f}{1 / middle[name]:>11,.1f}{ratio:>10.1f}x")
    ratios = {
        "naive": middle["naive"] / middle["sweep"],
        "fork": middle["fork"] / middle["sweep"],
        "workers": middle["sweep, 1 worker"] / middle["sweep, 2 workers"],
    }
    for name, target in TARGETS.items():
        said = "two workers against one" if name == "workers" else f"sweep against {name}"
        print(f"{said:<28}{ratios[name]:>7.1f}x  target {target}x  {'met' if ratios[name] >= target else 'NOT MET'}")
    free = statistics.median(BUSIEST[1]) / statistics.median(BUSIEST[2])
    print(
        f"two workers against one, in processor time of the busiest worker: {free:.1f}x; load {os.getloadavg()[0]:.1f}"
    )
    told.out.parent.mkdir(parents=True, exist_ok=True)
    machine = told_machine()
    rows = [
        {
            "way": name,
            "points": ways[name][0],
            "ms a point": middle[name] * 1e3,
            "times sweep": middle[name] / middle["sweep"],
        }
        for name in ways
    ]
    about = {"open_orders": rests, "points": found.total, "minutes": told.minutes}
    told.out.write_text(
        json.dumps({"machine": machine, "day": about, "rows": rows, "ratios": {**ratios, "busiest": free}}, indent=1)
    )


if __name__ == "__main__":
    main()
