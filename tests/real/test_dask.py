"""A sweep on a real Dask cluster of several worker processes, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdover.cli import main
from holdover.explore.pool import PoolError, connect_dask, make_process_pool
from holdover.explore.sweep import SweepResult, sweep
from holdover.explore.walk import SweepSpec
from tests.days import write_short_days

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers, each a process of its own."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as local_cluster:
        yield local_cluster


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of very short days."""
    return write_short_days(tmp_path_factory.mktemp("days"), minutes=3).directory


def test_a_worker_of_the_cluster_is_killed_and_nothing_is_lost(cluster: Any, days: Path, tmp_path: Path) -> None:
    """The sweep counts what it counts with processes of this machine; each piece once."""
    spec = SweepSpec(
        symbols=["BOLT"],
        days=["2024-11-27"],
        day="2024-11-27",
        kinds=["kill", "lose"],
        end_fraction=0.3,
        recordings=str(days),
    )
    killed: list[int] = []

    def kill_one(swept: SweepResult, whole: int, message: str) -> None:
        if swept.pieces_done >= 3 and not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    with connect_dask(cluster.scheduler_address) as client:
        swept = sweep(spec, tmp_path / "dask", lambda: client.get_executor(pure=False), workers=2, progress=kill_one)
    calm = sweep(spec, tmp_path / "calm", lambda: make_process_pool(2), workers=2)
    assert killed
    assert swept.counts == calm.counts
    assert swept.is_exhaustive
    lines = (tmp_path / "dask" / "sweep.jsonl").read_bytes().split(b"\n")[1:-1]
    assert len(lines) == swept.pieces == swept.pieces_done


def test_the_verb_hands_its_pieces_to_a_cluster(
    cluster: Any, days: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--executor dask --scheduler ADDRESS`."""
    options = ["--recordings", str(days), "--until", "0.1", "--kinds", "kill", "--out", str(tmp_path)]
    assert main(["sweep", *options, "--executor", "dask", "--scheduler", cluster.scheduler_address]) == 0
    assert "exhaustive" in capsys.readouterr().out
    assert main(["sweep", *options, "--executor", "dask"]) == 2
    assert "--executor dask needs --scheduler" in capsys.readouterr().err


def test_a_scheduler_that_does_not_answer_is_told() -> None:
    """A sentence, not a traceback."""
    with pytest.raises(PoolError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        connect_dask("tcp://127.0.0.1:9")
