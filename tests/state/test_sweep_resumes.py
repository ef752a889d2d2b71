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
from holdover.explore.pool import processes
from holdover.explore.sweep import BadSweep, Log, Piece, Swept, scratch, sweep
from holdover.explore.walk import Ground
from tests.days import short_days
from tests.waits import waiting


class Deadly(DeskSubject):
    """A desk that takes its process with it, once: the first time that a second life is begun where `mark` is not."""

    def __init__(self, plan: Any) -> None:
        super().__init__(plan)
        place = Path(os.environ["HOLDOVER_TEST_DEADLY"])
        lives = place / f"lives-{os.getpid()}"
        with open(lives, "ab") as file:
            file.write(b".")
        if lives.stat().st_size > 40 and not (place / "mark").exists():
            (place / "mark").touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of very short days."""
    return short_days(tmp_path_factory.mktemp("days"), minutes=3).directory


def ground(days: Path, **fields: Any) -> Ground:
    """Kills on a very short day."""
    told: dict[str, Any] = {
        "symbols": ["BOLT"],
        "days": ["2024-11-27"],
        "day": "2024-11-27",
        "kinds": ["kill"],
        "until": 0.6,
    }
    return Ground(**(told | {"recordings": str(days)} | fields))


def pieces_in(out: Path) -> list[dict[str, Any]]:
    """What a log holds, in the order of the points."""
    lines = (out / "sweep.jsonl").read_bytes().split(b"\n")[1:-1]
    return sorted((json.loads(line) for line in lines), key=lambda piece: piece["low"])


wait_until = waiting(within_s=60.0, look_s=0.01)


def options(days: Path) -> list[str]:
    """A sweep of the whole of a very short day, told as JSON."""
    return ["--recordings", str(days), "--instrument", "BOLT", "--kinds", "kill", "--workers", "2", "--json"]


@pytest.fixture(scope="module")
def calm(days: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sweep, left alone."""
    out = tmp_path_factory.mktemp("calm")
    assert main(["sweep", *options(days), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_stopped_goes_on_where_it_was(
    days: Path, calm: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """Ctrl-C says where it is kept; killed it says nothing. The same command ends as one that was left alone."""
    out = tmp_path / "out"
    # One worker: when its first piece is done the rest is still to do, however quick the machine is.
    run = [sys.executable, "-m", "holdover", "sweep", *options(days), "--workers", "1", "--out", str(out)]
    log = out / "sweep.jsonl"
    for _ in range(5):  # one that ends by itself before it is stopped shows nothing
        shutil.rmtree(out, ignore_errors=True)
        first = subprocess.Popen(
            run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0 if how == signal.SIGINT else None
        )
        wait_until(lambda: log.exists() and log.read_bytes().count(b"\n") >= 2)
        if how == signal.SIGINT:
            os.killpg(first.pid, how)  # as a terminal does: to the workers too
        else:
            first.kill()
        _, said = first.communicate(timeout=60)
        if first.returncode:
            break
    shm = Path(scratch(out, 0)).parent
    if how == signal.SIGINT:
        assert first.returncode == 3, said
        assert b"pieces are kept in" in said
        assert said.count(b"\n") == 1
        assert not shm.exists()
    done = len(pieces_in(out))
    with open(log, "ab") as file:
        file.write(b'{"low":1,"hi')  # cut off in the middle of a write
    again = subprocess.run(run, capture_output=True, check=True)
    assert 1 <= done < len(pieces_in(calm))
    assert pieces_in(out) == pieces_in(calm)
    assert f"{done} of {len(pieces_in(calm))} pieces were done before".encode() in again.stderr
    assert (msgspec.json.decode(again.stdout)["by_kind"]) == json.loads((calm / "sweep.json").read_text())["by_kind"]
    assert not shm.exists()


def test_a_worker_that_dies_is_told_and_its_points_run_again(
    days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a trial; the sweep ends as if nothing had been."""
    monkeypatch.setenv("HOLDOVER_TEST_DEADLY", str(tmp_path))
    told: list[str] = []
    deadly = sweep(
        ground(days, subject="tests.state.test_sweep_resumes:Deadly", until=0.35),
        tmp_path / "deadly",
        lambda: processes(2),
        workers=2,
        progress=lambda swept, whole, said: told.append(said),
    )
    calm = sweep(ground(days, until=0.35), tmp_path / "calm", lambda: processes(2), workers=2)
    assert (tmp_path / "mark").exists()
    assert deadly.died == 1
    assert any(said.startswith("a worker died; points") for said in told)
    assert same(deadly) == same(calm)
    assert deadly.exhaustive


def same(swept: Swept) -> tuple[Any, ...]:
    """What two sweeps of the same day have in common."""
    return swept.counts, swept.done, swept.pieces, swept.points


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
    log = Log(tmp_path / "log", "key")
    one, two = Piece(low=1, high=5, counts={"kill/transparent": 3}), Piece(low=5, high=9)
    log.add(one)
    with open(log.path, "ab") as file:
        file.write(msgspec.json.encode(two)[:-3])
    again = Log(tmp_path / "log", "key")
    assert list(again.pieces.values()) == [one]
    again.add(two)
    assert list(Log(tmp_path / "log", "key").pieces.values()) == [one, two]
    with pytest.raises(BadSweep, match="another sweep"):
        Log(tmp_path / "log", "other")


def test_two_sweeps_in_one_folder_are_refused(days: Path, tmp_path: Path) -> None:
    """The second one says that the first is at it."""
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "sweep.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(BadSweep, match="another process sweeps in it"):
        sweep(ground(days), tmp_path, lambda: processes(1))
    other.communicate(b"\n")
