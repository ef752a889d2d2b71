"""Compare a sweep on a Dask cluster with a sweep on local processes, and project Dask to more workers.

    python bench/dask_scaling.py [--minutes 12] [--rounds 3]

Every run does the same sweep: kills and lost messages at every point of the first minutes of a bundled day,
with one worker and with two. The time to start the workers is not counted. The survey is counted: it runs
once, before the pieces are handed out, and limits the speed-up. The projection divides the measured time of
all pieces with one worker by the number of workers, up to one worker a piece. It leaves out the network and
stragglers.
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
from table import machine, report_table

from holdover.explore.pool import make_process_pool
from holdover.explore.sweep import SweepResult, sweep
from holdover.explore.walk import SweepSpec, survey_day


def main() -> None:
    """Print the tables and write them as JSON."""
    from distributed import Client, LocalCluster

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    rounds = itertools.count()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        cut_day(directory / "days", arguments.minutes)
        spec = SweepSpec(
            symbols=["BOLT"],
            days=[DAY],
            day=DAY,
            kinds=["kill", "lose"],
            recordings=str(directory / "days"),
            prove_every=0,
        )
        began = time.perf_counter()
        survey_day(spec, directory / "survey", None)
        survey_s = time.perf_counter() - began
        swept: list[SweepResult] = []

        def time_processes(workers: int) -> float:
            began = time.perf_counter()
            pool = lambda: make_process_pool(workers)  # noqa: E731
            swept.append(sweep(spec, directory / f"run-{next(rounds)}", pool, workers=workers))
            return time.perf_counter() - began

        def time_dask(workers: int) -> float:
            with (
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
                ) as cluster,
                Client(cluster) as client,
            ):
                client.submit(time.time).result()
                began = time.perf_counter()
                pool = lambda: client.get_executor(pure=False)  # noqa: E731
                swept.append(sweep(spec, directory / f"run-{next(rounds)}", pool, workers=workers))
                return time.perf_counter() - began

        methods: dict[str, Callable[[], float]] = {
            f"{kind}, {workers} worker{'s' * (workers > 1)}": lambda run=run, workers=workers: run(workers)  # type: ignore[misc]
            for kind, run in (("processes", time_processes), ("dask", time_dask))
            for workers in (1, 2)
        }
        seconds_by_method: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(arguments.rounds):
            for method, run in methods.items():
                seconds_by_method[method].append(run())
        assert all(result.is_exhaustive and not result.findings for result in swept), (
            "every run sweeps all of it, and nothing breaches"
        )
        assert len({tuple(sorted(result.counts.items())) for result in swept}) == 1, "all of them count the same"
        rows: list[dict[str, Any]] = []
        trials = sum(swept[0].counts.values())
        for method, seconds in seconds_by_method.items():
            baseline = seconds_by_method[method.rpartition(", ")[0] + ", 1 worker"]
            times = statistics.median(baseline_s / own_s for baseline_s, own_s in zip(baseline, seconds, strict=True))
            middle = statistics.median(seconds)
            rows.append({"way": method, "seconds": middle, "trials/s": trials / middle, "times one worker": times})
        report_table("dask", rows, machine("distributed"))
        one_worker_s = statistics.median(seconds_by_method["dask, 1 worker"])
        pieces = swept[0].pieces
        plan = [
            {"workers, on paper": count, "seconds": survey_s + (one_worker_s - survey_s) / min(count, pieces)}
            for count in (1, 2, 4, 8, 16, 64)
        ]
        for row in plan:
            row["times one worker"] = one_worker_s / row["seconds"]
        print(f"{trials:,} trials in {pieces:,} pieces; the survey takes {survey_s:.2f} s")
        report_table("dask-plan", plan, machine("distributed"))


if __name__ == "__main__":
    main()
