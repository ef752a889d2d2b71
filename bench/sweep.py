"""Compare points per second of the sweep with other methods, on one day with many open orders.

    python bench/sweep.py [--open 100] [--points 800] [--rounds 2]

The day is a bundled one (its first `--minutes`). One strategy for each open order (`--open`) keeps a GTC
order far from the market, next to three strategies that trade. Every method kills at the same points:

- `sweep`: as `holdover sweep` does it, in the process, followed until the state has rejoined.
- `fork, rejoin`: a fork at the point, killed, restarted, followed until the state has rejoined.
- `fork`: a fork at the point, killed, restarted and run to the close.
- `naive`: for each point a new run from the open to the point, a kill, a restart, and a run to the close.
- `sweep, 2 workers`: as `sweep`, with its pieces on two processes, compared with one.

All methods take turns in one run; the script prints medians of the rounds. A slow method tries a sample of
the points, spread evenly over the day; the time per point is compared.
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
from table import print_machine

from holdover.adapters.desk import config_for
from holdover.desk import Strategy
from holdover.explore.judge import TrialJudge, TrialResult
from holdover.explore.pool import make_process_pool
from holdover.explore.trial import TrialRunner
from holdover.explore.walk import DayMap, DayWalk, SweepSpec, load_catalogue, open_recordings, survey_day
from holdover.harness import Plan
from holdover.harness.player import Player
from holdover.harness.schedule import Operation, PointKind, make_schedule
from holdover.model import Side, TimeInForce
from holdover.recording import bundled_store
from holdover.recording.format import RecordingWriter
from holdover.recording.store import recording_path

DAY = "2024-11-27"
BUSIEST_WORKER_S: dict[int, list[float]] = {}
"""For so many workers, the processor time of the busiest one: what counts where neighbours use the machine too."""
TARGETS = {"naive": 25.0, "fork": 10.0, "workers": 1.8}


def cut_day(directory: Path, minutes: int) -> None:
    """The first minutes of the bundled day of BOLT, as a day of its own."""
    whole = bundled_store().get("BOLT", DAY)
    meta = whole.meta
    close_ns = meta.open_ns + minutes * 60_000_000_000
    blank = dict.fromkeys(("records", "body_bytes", "quotes", "trades", "statuses", "traded_qty", "first_ns"), 0)
    writer = RecordingWriter(
        recording_path(directory, "SIM", "BOLT", DAY),
        msgspec.structs.replace(meta, close_ns=close_ns, last_ns=0, **blank),
    )
    for event in whole.events(meta.first_ns, close_ns):
        writer.copy_event(event)
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


class CloseJudge(TrialJudge):
    """Follows every trial to the close."""

    def follow(self, operation: Operation, number: int) -> TrialResult:
        """Return the result at the close."""
        self.session.play(self.session.hours()[1])
        return self.make_judged_result(operation, number, "converged", "")


def try_points(
    spec: SweepSpec, survey_map: DayMap, points: list[int], *, forks: bool = False, to_close: bool = False
) -> int:
    """Try a kill at chosen points; how many were tried."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        trials = TrialRunner(spec, Path(directory), None, survey_map, 1, max(points) + 1)
        trials.representatives = {group: set(points) if group == "kill" else set() for group in trials.representatives}
        trials.allows_isolation = not forks
        if to_close:
            trials.judge = CloseJudge(trials.walk, survey_map)
        trials.run()
        trials.session.close()
    breached = [result for result in trials.results if result.verdict in ("breach", "unknown")]
    assert not breached, breached[0]
    return len(trials.results)


def try_part(encoded_spec: bytes, encoded_map: bytes, points: list[int]) -> tuple[int, int, float]:
    """What a worker does of a sweep; how many it tried, which worker it is, and the processor time that it took."""
    began = time.process_time()
    count = try_points(
        msgspec.msgpack.decode(encoded_spec, type=SweepSpec), msgspec.msgpack.decode(encoded_map, type=DayMap), points
    )
    return count, os.getpid(), time.process_time() - began


def replay_points(spec: SweepSpec, at: list[tuple[PointKind, int, int]], settings: dict[str, Any]) -> int:
    """For each point anew from the open to the close."""
    store, catalogue = open_recordings(spec), load_catalogue(spec)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        for anchor, n, _ in at:
            schedule = make_schedule(
                store,
                ["BOLT"],
                [DAY],
                catalogue,
                operations=[Operation(at=anchor, n=n, do="kill")],
            )
            player = Player(schedule, store, Path(directory) / "s", catalogue=catalogue, journal=False, scratch=True)
            player.session.host.plan.settings.update(settings)
            player.session.guard.monitor.recomputes_totals = False
            played = player.play()
            player.close()
            assert played.operations_done == 1
            assert played.verdict == "holds", played.breaches
    return len(at)


class PointNames:
    """Finds the kind and the ordinal of each point of a day, and its time."""

    def __init__(self, spec: SweepSpec, directory: Path) -> None:
        self.walk = DayWalk(spec, directory, None)
        self.points: dict[int, tuple[PointKind, int, int]] = {}

    def on_point(self, point_kind: PointKind, classes: dict[str, bool]) -> None:
        """Note a point."""
        position = self.walk.position
        self.points[position.number] = (point_kind, position.counts[point_kind], self.walk.session.clock.now_ns)

    def on_hook(self) -> None:
        """Do nothing."""

    def on_play_returned(self) -> None:
        """Do nothing."""

    def on_grid_time(self, time_ns: int) -> None:
        """Do nothing."""

    def is_over(self) -> bool:
        """Return False: the whole day is walked."""
        return False


def pick_evenly(of: list[int], count: int) -> list[int]:
    """That many of them, evenly."""
    return [of[number * len(of) // count] for number in range(min(count, len(of)))]


def time_per_point(run: Callable[[], int]) -> float:
    """Seconds a point."""
    gc.collect()
    began = time.perf_counter()
    count = run()
    return (time.perf_counter() - began) / count


def time_workers(spec: SweepSpec, survey_map: DayMap, points: list[int], count: int) -> float:
    """Seconds a point with that many workers, each with its share in pieces; their start is not counted."""
    encoded_inputs = msgspec.msgpack.encode(spec), msgspec.msgpack.encode(survey_map)
    with make_process_pool(count) as pool:
        wait([pool.submit(time.sleep, 0.2) for _ in range(count)])
        pieces = [points[start : start + len(points) // 8] for start in range(0, len(points), len(points) // 8)]
        began = time.perf_counter()
        results = [future.result() for future in [pool.submit(try_part, *encoded_inputs, piece) for piece in pieces]]
        wall = time.perf_counter() - began
    busy: dict[int, float] = {}
    for _, worker, seconds in results:
        busy[worker] = busy.get(worker, 0.0) + seconds
    BUSIEST_WORKER_S.setdefault(count, []).append(max(busy.values()))
    return wall / sum(trial_count for trial_count, _, _ in results)


def main() -> None:
    """Print the table and write it as JSON beside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=int, default=100)
    parser.add_argument("--points", type=int, default=800)
    parser.add_argument("--minutes", type=int, default=390)
    parser.add_argument("--sample", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/bench/sweep.json"))
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="holdover-bench-"))
    cut_day(directory / "days", arguments.minutes)
    bare = SweepSpec(
        symbols=["BOLT"], days=[DAY], day=DAY, recordings=str(directory / "days"), kinds=["kill"], prove_every=0
    )
    settings = settings_for(open_recordings(bare), arguments.open)
    spec = msgspec.structs.replace(bare, settings=settings)
    survey_map = survey_day(spec, directory / "survey", None)
    names = PointNames(spec, directory / "names")
    names.walk.run(names)
    names.walk.session.close()
    stand_ns = survey_map.baselines[0].time_ns + 600_000_000_000  # by then all of them rest
    points = pick_evenly(
        [point for point in survey_map.classes["kill"] if names.points[point][2] > stand_ns], arguments.points
    )
    sample, small_sample = pick_evenly(points, arguments.sample * 4), pick_evenly(points, arguments.sample)
    rests = statistics.median(mark.open_orders for mark in survey_map.baselines)
    methods: dict[str, tuple[int, Callable[[], float]]] = {
        "sweep": (len(points), lambda: time_per_point(lambda: try_points(spec, survey_map, points))),
        "fork, rejoin": (len(sample), lambda: time_per_point(lambda: try_points(spec, survey_map, sample, forks=True))),
        "fork": (
            len(sample),
            lambda: time_per_point(lambda: try_points(spec, survey_map, sample, forks=True, to_close=True)),
        ),
        "naive": (
            len(small_sample),
            lambda: time_per_point(
                lambda: replay_points(spec, [names.points[point] for point in small_sample], settings)
            ),
        ),
        "sweep, 1 worker": (len(points), lambda: time_workers(spec, survey_map, points, 1)),
        "sweep, 2 workers": (len(points), lambda: time_workers(spec, survey_map, points, 2)),
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(arguments.rounds):
        for name, (_, run) in methods.items():
            times[name].append(run())
    middle = {name: statistics.median(several) for name, several in times.items()}
    print(
        f"{rests:.0f} orders open, {len(points):,} points of {survey_map.point_count:,}, "
        f"{arguments.minutes} minutes of market"
    )
    print(f"{'way':<20}{'points run':>12}{'ms a point':>12}{'points/s':>11}{'sweep is':>11}")
    for name, (count, _) in methods.items():
        ratio = middle[name] / middle["sweep"]
        print(f"{name:<20}{count:>12,}{middle[name] * 1e3:>12.2f}{1 / middle[name]:>11,.1f}{ratio:>10.1f}x")
    ratios = {
        "naive": middle["naive"] / middle["sweep"],
        "fork": middle["fork"] / middle["sweep"],
        "workers": middle["sweep, 1 worker"] / middle["sweep, 2 workers"],
    }
    for name, target in TARGETS.items():
        label = "two workers against one" if name == "workers" else f"sweep against {name}"
        print(f"{label:<28}{ratios[name]:>7.1f}x  target {target}x  {'met' if ratios[name] >= target else 'NOT MET'}")
    free = statistics.median(BUSIEST_WORKER_S[1]) / statistics.median(BUSIEST_WORKER_S[2])
    print(
        f"two workers against one, in processor time of the busiest worker: {free:.1f}x; load {os.getloadavg()[0]:.1f}"
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    machine = print_machine()
    rows = [
        {
            "way": name,
            "points": methods[name][0],
            "ms a point": middle[name] * 1e3,
            "times sweep": middle[name] / middle["sweep"],
        }
        for name in methods
    ]
    about = {"open_orders": rests, "points": survey_map.point_count, "minutes": arguments.minutes}
    arguments.out.write_text(
        json.dumps({"machine": machine, "day": about, "rows": rows, "ratios": {**ratios, "busiest": free}}, indent=1)
    )


if __name__ == "__main__":
    main()
