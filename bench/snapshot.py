"""Snapshot and restore of a state with many open orders, beside pickle and deepcopy; bytes an order; a delta's cost.

    python bench/snapshot.py [--orders 20000] [--rounds 5]

The state is what a guard's monitor remembers: that many open orders, each partly filled. Saving is to one file, synced:

- `snapshot`: the records encoded, the content's SHA-256, compressed, written (`holdover.harness.snapshot`); with zlib
  where `isal` is not installed, and `snapshot, zlib` is that in any case;
- `pickle`: `pickle.dumps` of the same records, SHA-256, compressed by zlib at level 1 as a snapshot without `isal` is,
  written. `pickle, bare` is neither hashed nor compressed;
- `deepcopy`: `copy.deepcopy` of the records, which is neither hashed nor written.

Restoring reads, proves the hash, and gives the records back. `monitor` is a snapshot taken up by a monitor: totals and
indexes are there again. A delta is a checkpoint in the process, ten mutations, and the way back (`Monitor.keep` and
`put_back`), which every trial of a sweep pays: dictionaries of references are copied, and no record is.
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
from guard import DAY, Books
from msgspec.structs import replace
from table import machine, show

from holdover.harness import snapshot as snapshots
from holdover.harness.snapshot import About, Snapshot
from holdover.model import Execution, Order, TimeInForce
from holdover.runtime import Guard
from holdover.runtime.monitor import kinds_by_name


def state(place: Path, orders: int) -> tuple[Guard, list[Any]]:
    """A guard that remembers that many open orders, each with one fill; and its records."""
    guard = Guard(place, clock=time.time_ns, channels=[])
    guard.quiet = True
    books = Books(guard.record, orders)
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
    kept = [record for held in guard.monitor.layout.tables.values() for record in held.values()]
    return guard, kept


def written(path: Path, data: bytes) -> None:
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


def measure(place: Path, orders: int, rounds: int) -> list[dict[str, Any]]:
    """The rows of saving and restoring."""
    guard, records = state(place / "guard", orders)
    about = About(trade_date=DAY, phase="open", time_ns=0, catalogue=guard.catalogue.digest)
    by_kind: dict[str, list[Any]] = {}
    for record in records:
        by_kind.setdefault(type(record).__name__, []).append(record)
    kinds = kinds_by_name()
    encode = msgspec.msgpack.Encoder().encode
    files: dict[str, Path] = {}

    def snapshot() -> None:
        files["snapshot"] = Snapshot(about, {"records": encode(by_kind)}).save(place / "snapshots")

    def pickled() -> None:
        data = pickle.dumps(by_kind, pickle.HIGHEST_PROTOCOL)
        written(place / "pickle", hashlib.sha256(data).digest() + zlib.compress(data, 1))

    def pickled_bare() -> None:
        written(place / "bare", pickle.dumps(by_kind, pickle.HIGHEST_PROTOCOL))

    def unpickled() -> Any:
        data = (place / "pickle").read_bytes()
        body = zlib.decompress(data[32:])
        assert hashlib.sha256(body).digest() == data[:32]
        return pickle.loads(body)

    def restored() -> Any:
        part = Snapshot.open(files["snapshot"]).parts["records"]
        raw = msgspec.msgpack.decode(part, type=dict[str, msgspec.Raw])
        return {name: msgspec.msgpack.decode(told, type=list[kinds[name]]) for name, told in raw.items()}  # type: ignore[misc]

    def monitored() -> None:
        monitor = Guard(place / "other", clock=time.time_ns, channels=[]).monitor
        monitor.load(Snapshot.open(files["monitor"]).parts["memory"])

    def with_zlib() -> None:
        fast, snapshots._fast = snapshots._fast, zlib.compress
        try:
            Snapshot(about, {"records": encode(by_kind)}).save(place / "zlib")
        finally:
            snapshots._fast = fast

    saving = {
        "snapshot": snapshot,
        "snapshot, zlib": with_zlib,
        "monitor": lambda: files.__setitem__(
            "monitor", Snapshot(about, {"memory": guard.monitor.dump()}).save(place / "memories")
        ),
        "pickle": pickled,
        "pickle, bare": pickled_bare,
        "deepcopy": lambda: copy.deepcopy(by_kind),
    }
    back = {"snapshot": restored, "monitor": monitored, "pickle": unpickled}
    times: dict[tuple[str, str], list[float]] = {}
    for at in range(rounds + 1):
        for act, ways in (("save", saving), ("restore", back)):
            for name, work in ways.items():
                seconds = timed(work)
                if at:
                    times.setdefault((act, name), []).append(seconds)
    assert restored() == by_kind == unpickled(), "what comes back is what was there"
    sizes = {"snapshot": files["snapshot"].stat().st_size, "monitor": files["monitor"].stat().st_size}
    sizes |= {"pickle": (place / "pickle").stat().st_size, "pickle, bare": (place / "bare").stat().st_size}
    rows = []
    for (act, name), seconds in times.items():
        of_snapshot = [one / mine for one, mine in zip(seconds, times[act, "snapshot"], strict=True)]
        row: dict[str, Any] = {"act": act, "way": name, "us an order": statistics.median(seconds) / orders * 1e6}
        row["times snapshot"] = statistics.median(of_snapshot)
        row["bytes an order"] = sizes[name] / orders if act == "save" and name in sizes else ""
        rows.append(row)
    guard.close()
    return rows


def delta(place: Path, orders: int, rounds: int, mutations: int = 10) -> float:
    """Microseconds of a checkpoint, that many fills, and the way back."""
    guard, records = state(place / f"delta-{orders}", orders)
    monitor = guard.monitor
    open_orders = [one for one in records if isinstance(one, Order)][:mutations]
    known = sum(isinstance(one, Execution) for one in records)
    found: list[float] = []
    for _ in range(rounds + 1):
        gc.collect()
        began = time.perf_counter()
        kept = monitor.keep()
        for number, order in enumerate(open_orders):
            monitor.mutate("orders", replace(order, transact_time_ns=order.transact_time_ns + number + 1), 0, {})
        monitor.put_back(kept)
        found.append((time.perf_counter() - began) * 1e6)
    assert known == orders
    guard.close()
    return statistics.median(found[1:])


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = measure(Path(place), told.orders, told.rounds)
        for orders in (100, told.orders):
            cost = delta(Path(place), orders, told.rounds)
            row = {"act": "delta", "way": f"checkpoint of {orders:,} orders and back", "us an order": cost / orders}
            rows.append(row | {"us": cost})
    show("snapshot", rows, machine("isal"))


if __name__ == "__main__":
    main()
