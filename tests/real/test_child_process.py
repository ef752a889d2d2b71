"""A process under test never outlives the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from holdover.adapters.process.child import ChildProcess, ProcessStartError

WAITING = "import signal; print('up', flush=True); signal.pause()"
"""A program that waits for a signal; its own child does the same."""
FAMILY = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAITING!r}]); {WAITING}"
PARENT = f"""
import sys
from pathlib import Path
from holdover.adapters.process.child import ChildProcess
child = ChildProcess([sys.executable, '-c', {FAMILY!r}], Path(sys.argv[1]), {{}}, Path(sys.argv[1]) / 'log', 5.0)
child.start()
if sys.argv[2] == 'again':
    child.kill()
    child.start()
print('started', flush=True)
sys.stdin.read()
"""


def list_family(process: psutil.Process) -> list[psutil.Process]:
    """Every living descendant."""
    return [child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("history", ["first", "again"])
def test_a_killed_parent_takes_its_child_with_it(tmp_path: Path, wait_until: Callable[..., None], history: str) -> None:
    """SIGKILL to the parent: the child, which has a group of its own, and its children are gone; so is the watchdog."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), history], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        wait_until(lambda: len(list_family(psutil.Process(parent.pid))) == 3)  # the child, its child and the watchdog
        family = list_family(psutil.Process(parent.pid))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_a_child_that_ended_leaves_nothing(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """After stop or kill, and after a command that cannot be run, there is no watchdog either."""
    before = {process.pid for process in list_family(psutil.Process(os.getpid()))}
    child = ChildProcess([sys.executable, "-c", FAMILY], tmp_path, {}, tmp_path / "log", 5.0)
    child.start()
    wait_until(lambda: (tmp_path / "log").read_text().count("up") == 2)
    child.stop()
    child.start()
    child.kill()
    with pytest.raises(ProcessStartError):
        ChildProcess(["/no/such/command"], tmp_path, {}, tmp_path / "log", 5.0).start()
    assert {process.pid for process in list_family(psutil.Process(os.getpid()))} <= before
