"""A sweep is stopped, killed, loses a worker: nothing of it is lost, and nothing is counted twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdover.adapters.desk import DeskSubject
from holdover.cli import main
from holdover.explore.pool import make_process_pool
from holdover.explore.sweep import PieceLog, PieceResult, SweepError, SweepResult, scratch_directory, sweep
from holdover.explore.walk import SweepSpec
from tests.days import write_short_days
from tests.waits import make_wait


class Deadly(DeskSubject):
    """A desk that takes its process with it, once: the first time that a second life is begun where `mark` is not."""

    def __init__(self, plan: Any) -> None:
        super().__init__(plan)
        directory = Path(os.environ["HOLDOVER_TEST_DEADLY"])
        starts_path = directory / f"lives-{os.getpid()}"
        with open(starts_path, "ab") as file:
            file.write(b".")
        if starts_path.stat().st_size > 40 and not (directory / "mark").exists():
            (directory / "mark").touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of very short days."""
    return write_short_days(tmp_path_factory.mktemp("days"), minutes=3).directory


def make_spec(days: Path, **fields: Any) -> SweepSpec:
    """Kills on a very short day."""
    defaults: dict[str, Any] = {
        "symbols": ["BOLT"],
        "days": ["2024-11-27"],
        "day": "2024-11-27",
        "kinds": ["kill"],
        "end_fraction": 0.6,
    }
    return SweepSpec(**(defaults | {"recordings": str(days)} | fields))


def read_pieces(directory: Path) -> list[dict[str, Any]]:
    """What a log holds, in the order of the points."""
    lines = (directory / "sweep.jsonl").read_bytes().split(b"\n")[1:-1]
    return sorted((json.loads(line) for line in lines), key=lambda piece: piece["low"])


wait_until = make_wait(timeout_s=60.0, poll_s=0.01)


def sweep_options(days: Path) -> list[str]:
    """A sweep of the whole of a very short day, told as JSON."""
    return ["--recordings", str(days), "--instrument", "BOLT", "--kinds", "kill", "--workers", "2", "--json"]


@pytest.fixture(scope="module")
def calm(days: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep, left alone."""
    directory = tmp_path_factory.mktemp("calm")
    assert main(["sweep", *sweep_options(days), "--out", str(directory)]) == 0
    return directory


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_stopped_goes_on_where_it_was(
    days: Path, calm: Path, tmp_path: Path, stop_signal: signal.Signals
) -> None:
    """Ctrl-C says where it is kept; killed it says nothing. The same command ends as one that was left alone."""
    out_directory = tmp_path / "out"
    # One worker: when its first piece is done the rest is still to do, however quick the machine is.
    run = [
        sys.executable,
        "-m",
        "holdover",
        "sweep",
        *sweep_options(days),
        "--workers",
        "1",
        "--out",
        str(out_directory),
    ]
    log = out_directory / "sweep.jsonl"
    for _ in range(5):  # one that ends by itself before it is stopped shows nothing
        shutil.rmtree(out_directory, ignore_errors=True)
        first = subprocess.Popen(
            run,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0 if stop_signal == signal.SIGINT else None,
        )
        wait_until(lambda: log.exists() and log.read_bytes().count(b"\n") >= 2)
        if stop_signal == signal.SIGINT:
            os.killpg(first.pid, stop_signal)  # as a terminal does: to the workers too
        else:
            first.kill()
        _, stderr = first.communicate(timeout=60)
        if first.returncode:
            break
    shm = Path(scratch_directory(out_directory, 0)).parent
    if stop_signal == signal.SIGINT:
        assert first.returncode == 3, stderr
        assert b"pieces are saved in" in stderr
        assert stderr.count(b"\n") == 1
        assert not shm.exists()
    piece_count = len(read_pieces(out_directory))
    with open(log, "ab") as file:
        file.write(b'{"low":1,"hi')  # cut off in the middle of a write
    completed = subprocess.run(run, capture_output=True, check=True)
    assert 1 <= piece_count < len(read_pieces(calm))
    assert read_pieces(out_directory) == read_pieces(calm)
    assert f"{piece_count} of {len(read_pieces(calm))} pieces were done before".encode() in completed.stderr
    assert (
        (msgspec.json.decode(completed.stdout)["by_kind"]) == json.loads((calm / "sweep.json").read_text())["by_kind"]
    )
    assert not shm.exists()


def test_a_worker_that_dies_is_told_and_its_points_run_again(
    days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a trial; the sweep ends as if nothing had been."""
    monkeypatch.setenv("HOLDOVER_TEST_DEADLY", str(tmp_path))
    messages: list[str] = []
    deadly = sweep(
        make_spec(days, subject="tests.state.test_sweep_resumes:Deadly", end_fraction=0.35),
        tmp_path / "deadly",
        lambda: make_process_pool(2),
        workers=2,
        progress=lambda swept, whole, message: messages.append(message),
    )
    calm = sweep(make_spec(days, end_fraction=0.35), tmp_path / "calm", lambda: make_process_pool(2), workers=2)
    assert (tmp_path / "mark").exists()
    assert deadly.worker_deaths == 1
    assert any(message.startswith("a worker died; points") for message in messages)
    assert common_counts(deadly) == common_counts(calm)
    assert deadly.is_exhaustive


def common_counts(swept: SweepResult) -> tuple[Any, ...]:
    """What two sweeps of the same day have in common."""
    return swept.counts, swept.pieces_done, swept.pieces, swept.points


def test_the_log_of_another_sweep_is_refused(days: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other kinds, or no log at all: a sentence, and exit code 2; `--fresh` begins anew."""
    options = ["sweep", "--recordings", str(days), "--until", "0.05", "--out", str(tmp_path), "--workers", "1"]
    assert main([*options, "--kinds", "kill"]) == 0
    assert main([*options, "--kinds", "torn"]) == 2
    assert "belongs to another sweep" in capsys.readouterr().err
    assert main([*options, "--kinds", "torn", "--fresh"]) == 0
    (tmp_path / "sweep.jsonl").write_text("something\n")
    assert main([*options, "--kinds", "torn"]) == 2
    assert "not the log of a sweep" in capsys.readouterr().err


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    """What was written whole before it is kept, and what is written after it can be read."""
    log = PieceLog(tmp_path / "log", "key")
    first_piece, second_piece = PieceResult(low=1, high=5, counts={"kill/transparent": 3}), PieceResult(low=5, high=9)
    log.add(first_piece)
    with open(log.path, "ab") as file:
        file.write(msgspec.json.encode(second_piece)[:-3])
    reopened_log = PieceLog(tmp_path / "log", "key")
    assert list(reopened_log.pieces.values()) == [first_piece]
    reopened_log.add(second_piece)
    assert list(PieceLog(tmp_path / "log", "key").pieces.values()) == [first_piece, second_piece]
    with pytest.raises(SweepError, match="another sweep"):
        PieceLog(tmp_path / "log", "other")


def test_the_log_of_a_former_version_is_refused(tmp_path: Path) -> None:
    """With a sentence that names both versions; what is no log at all is refused, too."""
    (tmp_path / "log").write_text('{"sweep": "key"}\n')
    with pytest.raises(SweepError, match="written in version 1, this Holdover reads version 2"):
        PieceLog(tmp_path / "log", "key")
    (tmp_path / "log").write_text('{"rain": 2}\n')
    with pytest.raises(SweepError, match="not the log of a sweep"):
        PieceLog(tmp_path / "log", "key")


def test_two_sweeps_in_one_folder_are_refused(days: Path, tmp_path: Path) -> None:
    """The second one says that the first is at it."""
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    other_process = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "sweep.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other_process.stdout is not None
    other_process.stdout.readline()
    with pytest.raises(SweepError, match="another process sweeps in it"):
        sweep(make_spec(days), tmp_path, lambda: make_process_pool(1))
    other_process.communicate(b"\n")
