"""Measure the guard's cost per execution report, with the whole catalogue, by the number of open orders.

    python bench/guard.py [--steps 4000] [--rounds 5]

One step is one execution report: it changes the execution, order, position, balance, exposure and parent.
There are two subjects:

- `desk`: the desk takes the report from its link, books it and commits it to its store. The store does not
  sync, so that the measurement leaves out the disk.
- `records`: only the six records are made and stored. No real system does as little; this shows the guard's
  cost without any other work.

The guarded and the unguarded side take turns in one process. The script prints the medians of the rounds,
their ratio, and the added cost relative to the added cost at 100 open orders.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from table import print_machine

from holdover.desk import Desk, DeskConfig, Strategy
from holdover.model import (
    Balance,
    ExecType,
    Execution,
    ExecutionReport,
    Exposure,
    Instrument,
    MsgType,
    Order,
    OrdStatus,
    ParentOrder,
    Position,
    Reconciliation,
    Request,
    Side,
)
from holdover.runtime import Guard

DAY = "2024-01-02"


class BookRecords:
    """The desk's books in memory: what one execution report does to them, without a store."""

    def __init__(self, record: Callable[[str, Any], None], open_orders: int) -> None:
        self.record = record
        self.orders: dict[str, Order] = {}
        self.executions: dict[str, Execution] = {}
        self.position = Position(account="A", symbol="X", net_qty=0, trade_date=DAY)
        self.balance = Balance(account="A", currency="USD", cash=0, trade_date=DAY)
        self.exposure = Exposure(account="A", symbol="X", net_qty=0, open_buy_qty=open_orders * 1_000_000)
        self.parent = ParentOrder(
            parent_id="P", symbol="X", side=Side.BUY, order_qty=2**60, account="A", working_qty=open_orders * 1_000_000
        )
        for number in range(open_orders):
            key = f"S-{number}"
            self.orders[key] = Order(
                root_cl_ord_id=key,
                cl_ord_id=key,
                symbol="X",
                side=Side.BUY,
                order_qty=1_000_000,
                leaves_qty=1_000_000,
                ord_status=OrdStatus.NEW,
                account="A",
                strategy="S",
                cl_ord_link_id="P",
                trade_date=DAY,
            )

    def records(self) -> list[tuple[str, Any]]:
        """What stands at the beginning."""
        book_records = [
            ("orders", self.parent),
            ("positions", self.position),
            ("ledger", self.balance),
            ("risk", self.exposure),
        ]
        return [*book_records, *(("orders", order) for order in self.orders.values())]

    def fill(self, number: int, key: str) -> None:
        """One execution report of one lot, applied to all the books."""
        order = self.orders[key]
        execution = Execution(
            exec_id=f"E{number}",
            exec_type=ExecType.TRADE,
            root_cl_ord_id=key,
            symbol="X",
            side=Side.BUY,
            trade_date=DAY,
            account="A",
            strategy="S",
            currency="USD",
            last_qty=1,
            last_px=100,
            qty_delta=1,
            notional_delta=100,
            cash_delta=-100,
        )
        record = self.record
        self.executions[execution.key] = execution
        record("orders", execution)
        cum_qty = order.cum_qty + 1
        order = replace(
            order,
            cum_qty=cum_qty,
            leaves_qty=order.order_qty - cum_qty,
            notional=order.notional + 100,
            ord_status=OrdStatus.PARTIALLY_FILLED,
            exec_type=ExecType.TRADE,
            exec_id=execution.exec_id,
        )
        self.orders[key] = order
        record("orders", order)
        self.position = replace(self.position, net_qty=self.position.net_qty + execution.signed_qty)
        record("positions", self.position)
        self.balance = replace(self.balance, cash=self.balance.cash + execution.cash_delta)
        record("ledger", self.balance)
        exposure = self.exposure
        self.exposure = replace(exposure, net_qty=exposure.net_qty + 1, open_buy_qty=exposure.open_buy_qty - 1)
        record("risk", self.exposure)
        parent = self.parent
        self.parent = replace(parent, filled_qty=parent.filled_qty + 1, working_qty=parent.working_qty - 1)
        record("orders", self.parent)


def measure(open_orders: int, steps: int, rounds: int) -> tuple[float, float, int]:
    """(unguarded, guarded) microseconds a step, medians of the rounds, and the breaches found (none)."""
    with tempfile.TemporaryDirectory() as directory:
        guard = Guard(Path(directory), clock=time.time_ns, channels=[])
        guard.evidence.is_quiet = True
        bare = BookRecords(lambda subsystem, record: None, open_orders)
        guarded = BookRecords(guard.record, open_orders)
        with guard.step("load"):
            for subsystem, record in guarded.records():
                guard.record(subsystem, record)
        keys = list(bare.orders)
        times: dict[str, list[float]] = {"bare": [], "kept": []}
        number = 0
        for _ in range(rounds + 1):
            for name in ("bare", "kept"):
                gc.collect()
                began = time.perf_counter()
                if name == "bare":
                    for at in range(number, number + steps):
                        bare.fill(at, keys[at % open_orders])
                else:
                    step = guard.step
                    for at in range(number, number + steps):
                        with step("execution-report"):
                            guarded.fill(at, keys[at % open_orders])
                times[name].append((time.perf_counter() - began) / steps * 1e6)
            number += steps
        breaches = len(guard.breaches)
        guard.close()
    return statistics.median(times["bare"][1:]), statistics.median(times["kept"][1:]), breaches


class NoGuard:
    """A guard that does nothing: the desk unguarded."""

    def step(self, cause: str) -> NoGuard:
        """No step."""
        return self

    def __enter__(self) -> NoGuard:
        return self

    def __exit__(self, *raised: object) -> None:
        return None

    def record(self, subsystem: str, record: Any) -> None:
        """Nothing is recorded."""

    def restore(self, subsystem: str, records: Any) -> None:
        """Nothing is restored."""

    def permits(self, message: Any) -> bool:
        """Everything may leave."""
        return True

    def tick(self) -> None:
        """Time passes."""

    def reconciled(self, trade_date: str) -> None:
        """Nothing is compared."""


class DeskPorts:
    """Clock, link and market of a desk that is only fed."""

    def __init__(self) -> None:
        self.now_ns, self.is_up, self.epoch, self.seq = time.time_ns(), True, 1, 0

    def call_at(self, *args: Any) -> None:
        """No timer runs."""

    def on_timer(self, handler: Any) -> None:
        """Nobody is called."""

    def listen(self, listener: Any) -> None:
        """The bench feeds the desk itself."""

    def connect(self, *args: Any) -> None:
        """It is up."""

    def resend(self, begin_seq: int) -> None:
        """Nothing is missing."""

    def send(self, message: Any) -> int:
        """Nothing is answered."""
        self.seq += 1
        return self.seq

    def disconnect(self) -> None:
        """It stays up."""

    def top(self, symbol: str) -> Any:
        """No market."""
        raise KeyError(symbol)


def make_desk(directory: Path, guard: Any, open_orders: int) -> tuple[Desk, list[str]]:
    """A desk with that many open orders, and their ClOrdIDs."""
    instrument = Instrument(symbol="X")
    strategy = Strategy(
        name="S", account="A", symbol="X", side=Side.BUY, order_qty=2**60, day_qty=2**60, slice_qty=1_000_000
    )
    config = DeskConfig(
        instruments=[instrument], strategies=[strategy], position_max=2**61, open_qty_max=2**61, synced=False
    )
    ports: Any = DeskPorts()
    desk = Desk(config, clock=ports, link=ports, market=ports, directory=directory, guard=guard)
    desk.start(DAY, 0, 2**62)
    desk.reconciler.is_done = True
    guard.record("reconciler", Reconciliation(link="VENUE", epoch=ports.epoch, is_complete=True))
    keys = [f"S-0-{number}" for number in range(open_orders)]
    with guard.step("load"), desk.store.transaction():
        for key in keys:
            desk.orders.create(
                Request(
                    msg_type=MsgType.NEW_ORDER_SINGLE,
                    cl_ord_id=key,
                    root_cl_ord_id=key,
                    symbol="X",
                    side=Side.BUY,
                    order_qty=1_000_000,
                    account="A",
                    strategy="S",
                    cl_ord_link_id=strategy.parent_id,
                    trade_date=DAY,
                )
            )
    return desk, keys


def feed(desk: Desk, keys: list[str], first: int, steps: int) -> float:
    """Feed that many fills; microseconds a report."""
    reports = [
        ExecutionReport(
            exec_type=ExecType.TRADE,
            ord_status=OrdStatus.PARTIALLY_FILLED,
            cl_ord_id=keys[number % len(keys)],
            exec_id=f"E{number}",
            symbol="X",
            account="A",
            last_qty=1,
            last_px=100,
            trade_date=DAY,
        )
        for number in range(first, first + steps)
    ]
    gc.collect()
    began = time.perf_counter()
    for report in reports:
        desk.on_message(desk.gateway.in_seq + 1, False, report)
    return (time.perf_counter() - began) / steps * 1e6


def measure_desk(open_orders: int, steps: int, rounds: int) -> tuple[float, float, int]:
    """As `measure`, of the desk itself."""
    with tempfile.TemporaryDirectory() as directory:
        guard = Guard(Path(directory) / "guard", clock=time.time_ns, channels=[])
        guard.evidence.is_quiet = True
        bare, keys = make_desk(Path(directory) / "bare", NoGuard(), open_orders)
        guarded_desk, _ = make_desk(Path(directory) / "kept", guard, open_orders)
        times: dict[str, list[float]] = {"bare": [], "kept": []}
        for number in range(rounds + 1):
            times["bare"].append(feed(bare, keys, number * steps, steps))
            times["kept"].append(feed(guarded_desk, keys, number * steps, steps))
        breaches = len(guard.breaches)
        for desk in (bare, guarded_desk):
            desk.store.close()
        guard.close()
    return statistics.median(times["bare"][1:]), statistics.median(times["kept"][1:]), breaches


def main() -> None:
    """Print the table and write it as JSON beside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("out/bench/guard.json"))
    arguments = parser.parse_args()
    rows = []
    head = f"{'unguarded us':>14}{'guarded us':>12}{'ratio':>8}{'added us':>10}{'added / at 100':>16}"
    print(f"{'subject':<10}{'open orders':>12}{head}")
    for subject, run in (("desk", measure_desk), ("records", measure)):
        results = {number: run(number, arguments.steps, arguments.rounds) for number in (10, 100, 1_000, 100_000)}
        at_100 = results[100][1] - results[100][0]
        for number, (bare, guarded, breaches) in results.items():
            assert breaches == 0, "the bench itself breaks an invariant"
            added = guarded - bare
            row = {"subject": subject, "open_orders": number, "unguarded_us": bare, "guarded_us": guarded}
            rows.append({**row, "ratio": guarded / bare, "added_to_100": added / at_100})
            figures = f"{bare:>14.2f}{guarded:>12.2f}{guarded / bare:>8.2f}{added:>10.2f}{added / at_100:>16.2f}"
            print(f"{subject:<10}{number:>12,}{figures}", flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    machine = print_machine()
    arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
