"""A sweep on the workers of a Dask cluster, beside processes of this machine; and on paper, what more would bring.

    python bench/dask_scaling.py [--minutes 12] [--rounds 3]

The same sweep (kills and lost messages over the first minutes of a bundled day, every point) with one worker, and two.
Starting the workers is not counted, the survey before the pieces is: it is done once, by whoever sweeps, and is what
bounds the rest. The plan on paper takes the measured survey and the measured time of all pieces with one worker, and
divides the second by the workers, up to one worker a piece: it leaves out the network, and stragglers.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweep import DAY, cut_day
from table import machine, show

from holdover.explore.pool import processes
from holdover.explore.sweep import Swept, sweep
from holdover.explore.walk import Ground, survey


def main() -> None:
    """Print the tables and write them as JSON."""
    from distributed import Client, LocalCluster

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    rounds = itertools.count()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        cut_day(place / "days", told.minutes)
        ground = Ground(
            symbols=["BOLT"], days=[DAY], day=DAY, kinds=["kill", "lose"], recordings=str(place / "days"), prove_every=0
        )
        began = time.perf_counter()
        survey(ground, place / "survey", None)
        survey_s = time.perf_counter() - began
        swept: list[Swept] = []

        def of_processes(workers: int) -> float:
            began = time.perf_counter()
            pool = lambda: processes(workers)  # noqa: E731
            swept.append(sweep(ground, place / f"run-{next(rounds)}", pool, workers=workers))
            return time.perf_counter() - began

        def of_dask(workers: int) -> float:
            with (
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
                ) as cluster,
                Client(cluster) as client,
            ):
                client.submit(time.time).result()
                began = time.perf_counter()
                pool = lambda: client.get_executor(pure=False)  # noqa: E731
                swept.append(sweep(ground, place / f"run-{next(rounds)}", pool, workers=workers))
                return time.perf_counter() - began

        ways: dict[str, Callable[[], float]] = {
            f"{kind}, {workers} worker{'s' * (workers > 1)}": lambda run=run, workers=workers: run(workers)  # type: ignore[misc]
            for kind, run in (("processes", of_processes), ("dask", of_dask))
            for workers in (1, 2)
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(told.rounds):
            for way, run in ways.items():
                found[way].append(run())
        assert all(one.exhaustive and not one.found for one in swept), (
            "every run sweeps all of it, and nothing breaches"
        )
        assert len({tuple(sorted(one.counts.items())) for one in swept}) == 1, "all of them count the same"
        rows: list[dict[str, Any]] = []
        trials = sum(swept[0].counts.values())
        for way, seconds in found.items():
            alone = found[way.rpartition(", ")[0] + ", 1 worker"]
            times = statistics.median(one / mine for one, mine in zip(alone, seconds, strict=True))
            middle = statistics.median(seconds)
            rows.append({"way": way, "seconds": middle, "trials/s": trials / middle, "times one worker": times})
        show("dask", rows, machine("distributed"))
        alone_s = statistics.median(found["dask, 1 worker"])
        pieces = swept[0].pieces
        plan = [
            {"workers, on paper": count, "seconds": survey_s + (alone_s - survey_s) / min(count, pieces)}
            for count in (1, 2, 4, 8, 16, 64)
        ]
        for row in plan:
            row["times one worker"] = alone_s / row["seconds"]
        print(f"{trials:,} trials in {pieces:,} pieces; the survey takes {survey_s:.2f} s")
        show("dask-plan", plan, machine("distributed"))


if __name__ == "__main__":
    main()
