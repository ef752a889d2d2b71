"""Compare snapshot and restore of a state with many open orders to pickle and deepcopy; measure a checkpoint.

    python bench/snapshot.py [--orders 20000] [--rounds 5]

The state is the memory of a guard's monitor with that many open orders, each partly filled. Saving writes one
synced file:

- `snapshot`: encodes the records, hashes (SHA-256), compresses and writes them (`holdover.harness.snapshot`),
  with zlib when `isal` is not installed. `snapshot, zlib` always uses zlib.
- `pickle`: `pickle.dumps` of the same records, SHA-256, zlib at level 1 as in a snapshot without `isal`, and
  a write. `pickle, bare` neither hashes nor compresses.
- `deepcopy`: `copy.deepcopy` of the records; it neither hashes nor writes.

Restoring reads the file, checks the hash and returns the records. `monitor` restores a snapshot into a
monitor, with its totals and indexes. `delta` is a checkpoint in the process, ten mutations and a rollback,
the cost of every trial of a sweep: it copies dictionaries of references and no record.
"""

from __future__ import annotations

import argparse
import copy
import gc
import hashlib
import os
import pickle
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from guard import DAY, BookRecords
from msgspec.structs import replace
from table import machine, report_table

from holdover.harness import snapshot as snapshots
from holdover.harness.snapshot import Snapshot, SnapshotInfo
from holdover.model import Execution, Order, TimeInForce
from holdover.runtime import Guard
from holdover.runtime.memory import kinds_by_name


def make_state(directory: Path, orders: int) -> tuple[Guard, list[Any]]:
    """A guard that remembers that many open orders, each with one fill; and its records."""
    guard = Guard(directory, clock=time.time_ns, channels=[])
    guard.evidence.is_quiet = True
    books = BookRecords(guard.record, orders)
    with guard.step("load"):
        for subsystem, record in books.records():
            if isinstance(record, Order):
                number = int(record.key.rpartition("-")[2])
                record = replace(
                    record,
                    account="A",
                    order_id=f"O{number}",
                    price=10_000 + number % 50,
                    time_in_force=TimeInForce.GTC,
                    link="VENUE",
                    transact_time_ns=1_732_717_800_000_000_000 + number * 1_000_003,
                )
                books.orders[record.key] = record
            guard.record(subsystem, record)
    for number, key in enumerate(list(books.orders)):
        with guard.step("execution-report"):
            books.fill(number, key)
    records = [record for table in guard.monitor.all_records().values() for record in table.values()]
    return guard, records


def write_synced(path: Path, data: bytes) -> None:
    """Write and sync."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def timed(work: Callable[[], Any]) -> float:
    """Seconds, with the collector's debts paid before."""
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(directory: Path, orders: int, rounds: int) -> list[dict[str, Any]]:
    """The rows of saving and restoring."""
    guard, records = make_state(directory / "guard", orders)
    about = SnapshotInfo(trade_date=DAY, phase="open", time_ns=0, catalogue=guard.catalogue.digest)
    by_kind: dict[str, list[Any]] = {}
    for record in records:
        by_kind.setdefault(type(record).__name__, []).append(record)
    kinds = kinds_by_name()
    encode = msgspec.msgpack.Encoder().encode
    files: dict[str, Path] = {}

    def save_snapshot() -> None:
        files["snapshot"] = Snapshot(about, {"records": encode(by_kind)}).save(directory / "snapshots")

    def save_pickle() -> None:
        data = pickle.dumps(by_kind, pickle.HIGHEST_PROTOCOL)
        write_synced(directory / "pickle", hashlib.sha256(data).digest() + zlib.compress(data, 1))

    def save_bare_pickle() -> None:
        write_synced(directory / "bare", pickle.dumps(by_kind, pickle.HIGHEST_PROTOCOL))

    def load_pickle() -> Any:
        data = (directory / "pickle").read_bytes()
        body = zlib.decompress(data[32:])
        assert hashlib.sha256(body).digest() == data[:32]
        return pickle.loads(body)

    def load_snapshot() -> Any:
        part = Snapshot.open(files["snapshot"]).parts["records"]
        raw = msgspec.msgpack.decode(part, type=dict[str, msgspec.Raw])
        return {name: msgspec.msgpack.decode(encoded, type=list[kinds[name]]) for name, encoded in raw.items()}  # type: ignore[misc]

    def load_monitor() -> None:
        monitor = Guard(directory / "other", clock=time.time_ns, channels=[]).monitor
        monitor.restore_bytes(Snapshot.open(files["monitor"]).parts["memory"])

    def save_with_zlib() -> None:
        fast, snapshots._fast = snapshots._fast, zlib.compress
        try:
            Snapshot(about, {"records": encode(by_kind)}).save(directory / "zlib")
        finally:
            snapshots._fast = fast

    saving = {
        "snapshot": save_snapshot,
        "snapshot, zlib": save_with_zlib,
        "monitor": lambda: files.__setitem__(
            "monitor", Snapshot(about, {"memory": guard.monitor.to_bytes()}).save(directory / "memories")
        ),
        "pickle": save_pickle,
        "pickle, bare": save_bare_pickle,
        "deepcopy": lambda: copy.deepcopy(by_kind),
    }
    restoring = {"snapshot": load_snapshot, "monitor": load_monitor, "pickle": load_pickle}
    times: dict[tuple[str, str], list[float]] = {}
    for at in range(rounds + 1):
        for operation, ways in (("save", saving), ("restore", restoring)):
            for name, work in ways.items():
                seconds = timed(work)
                if at:
                    times.setdefault((operation, name), []).append(seconds)
    assert load_snapshot() == by_kind == load_pickle(), "what comes back is what was there"
    sizes = {"snapshot": files["snapshot"].stat().st_size, "monitor": files["monitor"].stat().st_size}
    sizes |= {"pickle": (directory / "pickle").stat().st_size, "pickle, bare": (directory / "bare").stat().st_size}
    rows = []
    for (operation, name), seconds in times.items():
        of_snapshot = [
            method_s / snapshot_s for method_s, snapshot_s in zip(seconds, times[operation, "snapshot"], strict=True)
        ]
        row: dict[str, Any] = {"act": operation, "way": name, "us an order": statistics.median(seconds) / orders * 1e6}
        row["times snapshot"] = statistics.median(of_snapshot)
        row["bytes an order"] = sizes[name] / orders if operation == "save" and name in sizes else ""
        rows.append(row)
    guard.close()
    return rows


def measure_delta(directory: Path, orders: int, rounds: int, mutations: int = 10) -> float:
    """Microseconds of a checkpoint, that many fills, and the way back."""
    guard, records = make_state(directory / f"delta-{orders}", orders)
    monitor = guard.monitor
    open_orders = [record for record in records if isinstance(record, Order)][:mutations]
    execution_count = sum(isinstance(record, Execution) for record in records)
    durations_us: list[float] = []
    for _ in range(rounds + 1):
        gc.collect()
        began = time.perf_counter()
        checkpoint = monitor.checkpoint()
        for number, order in enumerate(open_orders):
            monitor.mutate("orders", replace(order, transact_time_ns=order.transact_time_ns + number + 1), 0, {})
        monitor.rollback(checkpoint)
        durations_us.append((time.perf_counter() - began) * 1e6)
    assert execution_count == orders
    guard.close()
    return statistics.median(durations_us[1:])


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        rows = measure(Path(directory), arguments.orders, arguments.rounds)
        for orders in (100, arguments.orders):
            cost = measure_delta(Path(directory), orders, arguments.rounds)
            row = {"act": "delta", "way": f"checkpoint of {orders:,} orders and back", "us an order": cost / orders}
            rows.append(row | {"us": cost})
    report_table("snapshot", rows, machine("isal"))


if __name__ == "__main__":
    main()
