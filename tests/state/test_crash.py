"""Killed at random moments, nothing is half-written, no freeze and no page is lost."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from holdover.desk.store import Store
from holdover.harness.snapshot import Snapshot
from holdover.model import Execution, Order, Position
from holdover.runtime import FreezeStore

FREEZES = """
import logging, sys
from pathlib import Path
logging.disable(logging.CRITICAL)
from holdover.catalogue import Catalogue
from holdover.model import *
from holdover.runtime import FileChannel, Guard
directory = Path(sys.argv[1])
guard = Guard(directory, catalogue=Catalogue.load(), channels=[FileChannel(directory / "pages.jsonl")])
print("ready", flush=True)
start = len(guard.active_freezes)
for number in range(start, start + 100_000):
    key, symbol = f"A{number}", f"S{number}"
    guard.record("orders", Order(root_cl_ord_id=key, cl_ord_id=key, symbol=symbol, side=Side.BUY, order_qty=10,
        leaves_qty=9, strategy="S", account="A"))
    assert not guard.permits(Request(msg_type=MsgType.NEW_ORDER_SINGLE, cl_ord_id="B", symbol=symbol, side=Side.BUY,
        order_qty=1))
    print(f"instrument:S{number}", flush=True)
    guard.pager.deliver_due()
"""

SNAPSHOTS = """
import sys
from pathlib import Path
from holdover.harness.snapshot import Snapshot, SnapshotInfo
directory = Path(sys.argv[1])
print("ready", flush=True)
for number in range(100_000):
    info = SnapshotInfo(trade_date="2024-01-02", phase="night", time_ns=number, catalogue="c")
    print(Snapshot(info, {"part": bytes([number % 251]) * 200_000}).save(directory).name, flush=True)
"""


def seeds(default_count: int, all_of_them: int) -> list[Any]:
    """Some moments to kill at by default, and the rest of them beside it."""
    return [
        *range(default_count),
        *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(default_count, all_of_them)),
    ]


def run_until_killed(code: str, directory: Path, after_s: float, *, lines: int = 0) -> list[str]:
    """Run, kill a while after so many lines beside its first, and return the lines that it had said."""
    running = subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    first = [running.stdout.readline().strip() for _ in range(lines)]
    end = time.monotonic() + after_s
    while time.monotonic() < end:
        pass
    running.send_signal(signal.SIGKILL)
    output = first + running.stdout.read().splitlines()
    running.wait()
    return output


@pytest.mark.parametrize("seed", seeds(2, 4))
def test_no_freeze_and_no_page_is_lost(tmp_path: Path, seed: int) -> None:
    """Whatever was said to be frozen is frozen after the kill, with its breach, its page and its audit row."""
    rng = random.Random(seed)
    scopes: list[str] = []
    for _ in range(5):
        scopes += run_until_killed(FREEZES, tmp_path, rng.random() * 0.05, lines=rng.randrange(1, 4))
        store = FreezeStore(tmp_path / "guard.db")
        frozen = {freeze.scope for freeze in store.active_freezes()}
        assert set(scopes) <= frozen
        assert store.verify_audit() == ""
        assert {page.scope for page in store.all_pages()} == frozen
        assert {breach.scope for breach in store.breaches()} == frozen
        store.close()
    assert scopes


def test_no_snapshot_is_half_written(tmp_path: Path) -> None:
    """Every snapshot file that has its name opens, and every one that was reported is there."""
    rng = random.Random(1)
    for _ in range(8):
        names = run_until_killed(SNAPSHOTS, tmp_path, rng.random() * 0.1)
        file_names = sorted(path.name for path in tmp_path.glob("*.hsnap"))
        assert set(names) <= set(file_names)
        for path in tmp_path.glob("*.hsnap"):
            assert Snapshot.open(path).name == path.stem


DESK = """
import sys
from pathlib import Path
from holdover.harness import Session, SessionConfig, resolve_factory
from holdover.recording import bundled_store
factory = resolve_factory("desk")
config = SessionConfig(days=["2024-11-27"], journal=False)
session = Session(factory, bundled_store(), ["BOLT"], Path(sys.argv[1]), config)
print("ready", flush=True)
session.begin()
session.run()
"""


@pytest.mark.parametrize("seed", seeds(4, 12))
def test_the_desks_store_is_whole_after_a_kill(tmp_path: Path, seed: int) -> None:
    """Orders, executions and positions on the disk tell one story: a step is there as a whole or not at all."""
    run_until_killed(DESK, tmp_path, random.Random(seed).random() * 0.5)
    store = Store(tmp_path / "subject", synced=False)
    orders = {order.key: order for order in store.load_all(Order)}
    filled: dict[str, int] = {}
    net_qty_by_key: dict[str, int] = {}
    for execution in store.load_all(Execution):
        filled[execution.root_cl_ord_id] = filled.get(execution.root_cl_ord_id, 0) + execution.qty_delta
        net_qty_by_key[execution.book_key] = net_qty_by_key.get(execution.book_key, 0) + execution.signed_qty
    assert {key: order.cum_qty for key, order in orders.items() if order.cum_qty} == filled
    assert {position.key: position.net_qty for position in store.load_all(Position) if position.net_qty} == {
        key: net_qty for key, net_qty in net_qty_by_key.items() if net_qty
    }
    store.close()


@pytest.mark.parametrize("size", [2_000, 60_000, 600_000])
def test_a_full_disk_is_a_sentence(tmp_path: Path, size: int) -> None:
    """Where a file cannot grow any more: exit code 2, one sentence, no traceback."""

    def limit_file_size() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    completed = subprocess.run(
        [sys.executable, "-m", "holdover", "cycle", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        # A compiled module that is cut off at the limit would break every later import of it.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=limit_file_size,
        check=False,
    )
    assert completed.returncode == 2
    assert completed.stderr.startswith("holdover: ")
    assert "Traceback" not in completed.stderr
