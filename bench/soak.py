"""Soak test: a day of mutations, time compressed, through a guard and a sidecar; no growth, no loss.

    python bench/soak.py [--hours 24] [--rate 1000] [--sessions 240]

One process trades by a script (new, partly filled, filled; five mutations a step) at `rate` mutations per
second of its own clock. A guard records all mutations as in production: it rotates the journal every 64 MB
and keeps five files. A second process is `holdover watch` on that journal. The clock is driven by the
mutations, so the run is as fast as the machine; it waits when the sidecar is four files behind. The day is
cut into sessions with a night between two, because memory holds what is open and the last day. The script
reads the resident memory at each night.

At the end it prints whether the sidecar's books equal the guard's (a lost execution would change the position
and the balance), the breaches, and how far memory at the end is above its median in the second quarter of the
run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace
from table import print_machine

from holdover.model import (
    Balance,
    ExecType,
    Execution,
    Exposure,
    Order,
    OrdStatus,
    Position,
    Side,
)
from holdover.runtime import Guard, Journal
from holdover.runtime.journal import rotated_files
from holdover.runtime.memory import MEMORY_FORMAT, MonitorMemory
from holdover.state import decode_stored
from holdover.watch.judge import JUDGE_FORMAT, MutationJudgeState
from holdover.watch.watch import WATCH_FORMAT, WatchState

FILE_MB, JOURNAL_FILES_MAX, FILES_BEHIND_MAX = 64, 5, 4
OPEN = 100  # orders at a time


def resident_mb(pid: int) -> float:
    """Megabytes that a process holds in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"process {pid} has no resident memory")


class TradingScript:
    """A script of trading that never ends: each order is filled in two parts, and the next takes its place."""

    def __init__(self, guard: Guard, rate: int) -> None:
        self.guard, self.number, self.execs, self.recorded = guard, 0, 0, 0
        self.now_ns, self._gap_ns = 0, 1_000_000_000 // rate
        self.day = date(2024, 1, 1)
        self.position = Position(account="A", symbol="X", net_qty=0, trade_date=self.day.isoformat())
        self.balance = Balance(account="A", currency="USD", cash=0, trade_date=self.day.isoformat())
        self.exposure = Exposure(account="A", symbol="X", net_qty=0)
        self.open: list[Order] = []

    def clock(self) -> int:
        """The time, a step of the rate on for each question."""
        return self.now_ns

    def record(self, subsystem: str, record: object) -> None:
        """One mutation."""
        self.now_ns += self._gap_ns
        self.recorded += 1
        self.guard.record(subsystem, record)  # type: ignore[arg-type]

    def open_order(self) -> None:
        """One order more."""
        self.number += 1
        key = f"C{self.number}"
        side = Side.BUY if self.number % 2 else Side.SELL
        order = Order(
            root_cl_ord_id=key,
            cl_ord_id=key,
            symbol="X",
            side=side,
            order_qty=200,
            leaves_qty=200,
            ord_status=OrdStatus.NEW,
            exec_type=ExecType.NEW,
            account="A",
            strategy="S",
            trade_date=self.day.isoformat(),
        )
        with self.guard.step("new"):
            self.record("orders", order)
            self._expose(0, order.leaves_qty if side == Side.BUY else 0, 0 if side == Side.BUY else order.leaves_qty)
        self.open.append(order)

    def _expose(self, net: int, buy: int, sell: int) -> None:
        exposure = self.exposure
        self.exposure = replace(
            exposure,
            net_qty=exposure.net_qty + net,
            open_buy_qty=exposure.open_buy_qty + buy,
            open_sell_qty=exposure.open_sell_qty + sell,
        )
        self.record("risk", self.exposure)

    def fill(self) -> None:
        """Half of an order's quantity."""
        order = self.open.pop(0)
        self.execs += 1
        sign = 1 if order.side == Side.BUY else -1
        execution = Execution(
            exec_id=f"E{self.execs}",
            exec_type=ExecType.TRADE,
            root_cl_ord_id=order.root_cl_ord_id,
            symbol="X",
            side=order.side,
            trade_date=self.day.isoformat(),
            account="A",
            strategy="S",
            currency="USD",
            last_qty=100,
            last_px=100,
            qty_delta=100,
            notional_delta=10_000,
            cash_delta=-sign * 10_000,
        )
        cum_qty = order.cum_qty + 100
        is_filled = cum_qty == order.order_qty
        order = replace(
            order,
            cum_qty=cum_qty,
            leaves_qty=order.order_qty - cum_qty,
            notional=order.notional + 10_000,
            ord_status=OrdStatus.FILLED if is_filled else OrdStatus.PARTIALLY_FILLED,
            exec_type=ExecType.TRADE,
            exec_id=execution.exec_id,
        )
        with self.guard.step("execution-report"):
            self.record("orders", execution)
            self.record("orders", order)
            self.position = replace(self.position, net_qty=self.position.net_qty + sign * 100)
            self.record("positions", self.position)
            self.balance = replace(self.balance, cash=self.balance.cash + execution.cash_delta)
            self.record("ledger", self.balance)
            self._expose(sign * 100, -100 if sign > 0 else 0, -100 if sign < 0 else 0)
        if not is_filled:
            self.open.append(order)

    def run_session(self, mutations: int) -> None:
        """One session of that many mutations, and the night after it."""
        guard, mutations_end = self.guard, self.guard.monitor.mutations + mutations
        today = self.day.isoformat()
        guard.boundary("begin", today)
        while self.recorded < mutations_end:
            while len(self.open) < OPEN:
                self.open_order()
            self.fill()
        guard.boundary("end", today)
        guard.boundary("overnight", today)
        self.day += timedelta(days=1)
        tomorrow = self.day.isoformat()
        with guard.step("roll"):
            self.position = replace(self.position, trade_date=tomorrow, carried_qty=self.position.net_qty)
            self.record("positions", self.position)
            self.balance = replace(self.balance, trade_date=tomorrow, carried_cash=self.balance.cash)
            self.record("ledger", self.balance)


class SidecarState(NamedTuple):
    """What the sidecar had seen when it last wrote its state."""

    mutations: int
    breaches: int
    books: dict[tuple[str, str], list[dict[str, Any]]]


def read_sidecar_state(state: Path) -> SidecarState:
    """The sidecar's state: how much it has judged, what it holds of the trading process's books."""
    try:
        watch_state = decode_stored(WATCH_FORMAT, WatchState, (state / "watch.state").read_bytes())
    except FileNotFoundError:
        return SidecarState(0, 0, {})
    judge_state = decode_stored(JUDGE_FORMAT, MutationJudgeState, watch_state.memory)
    memory = decode_stored(MEMORY_FORMAT, MonitorMemory, judge_state.monitor)
    return SidecarState(memory.mutations, watch_state.breaches, read_books(memory))


def read_books(memory: MonitorMemory) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the records of a monitor without those of the guard itself, of which a sidecar has fewer."""
    return {(table.subsystem, table.kind): table.records for table in memory.by_table if table.subsystem != "guard"}


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=240)
    parser.add_argument("--out", type=Path, default=Path("out/bench/soak.json"))
    arguments = parser.parse_args()
    total = round(arguments.hours * 3600 * arguments.rate)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        path, state = directory / "guard" / "journal.jsonl", directory / "state"
        journal = Journal(path, FILE_MB * 1_000_000, JOURNAL_FILES_MAX)
        guard = Guard(directory / "guard", clock=lambda: trading.now_ns, channels=[], journal=journal)
        trading = TradingScript(guard, arguments.rate)
        watch = subprocess.Popen(
            [sys.executable, "-m", "holdover", "watch", str(path), "--format", "journal", "--state", str(state)],
            stderr=(directory / "watch.err").open("wb"),
        )
        memory: list[tuple[float, float]] = []
        nap = threading.Event()
        for _ in range(arguments.sessions):
            trading.run_session(total // arguments.sessions)
            memory.append((resident_mb(os.getpid()), resident_mb(watch.pid)))
            while len(rotated_files(path)) >= FILES_BEHIND_MAX and _count_behind(path, state) >= FILES_BEHIND_MAX:
                nap.wait(0.05)
        recorded, guard_breaches = trading.recorded, len(guard.breaches)
        guard_books = read_books(decode_stored(MEMORY_FORMAT, MonitorMemory, guard.monitor.to_bytes()))
        guard.close()
        error = directory / "watch.err"
        while read_sidecar_state(state).books != guard_books and watch.poll() is None and not error.stat().st_size:
            nap.wait(0.5)
        last = read_sidecar_state(state)
        watch.terminate()
        watch.wait()
        complaints = error.read_text().strip()
    equal = last.books == guard_books
    seconds = time.monotonic() - began
    print(
        f"{arguments.hours:g} hours at {arguments.rate:,} a second in {seconds:,.0f} s, {arguments.sessions} sessions"
    )
    print(f"recorded {recorded:,}; books of guard and sidecar {'equal' if equal else 'DIFFER'} at the end")
    print(
        f"breaches: guard {guard_breaches}, sidecar {last.breaches}; complaints of the sidecar: {complaints or 'none'}"
    )
    rows = {}
    quarter = max(len(memory) // 4, 1)
    for number, name in enumerate(("guard", "sidecar")):
        early = statistics.median(sample[number] for sample in memory[quarter : 2 * quarter])
        late = statistics.median(sample[number] for sample in memory[-quarter:])
        rows[name] = {"early_mb": early, "late_mb": late, "growth": late / early - 1}
        print(f"{name:<8} resident {early:8.1f} MB early {late:8.1f} MB late {100 * (late / early - 1):+6.1f} %")
    machine = print_machine()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"machine": machine, "recorded": recorded, "books_equal": equal, "memory": rows}, indent=1)
    )
    sys.exit(0 if equal and not guard_breaches and not last.breaches else 1)


def _count_behind(path: Path, state: Path) -> int:
    """How many of the files put aside the sidecar has not finished."""
    try:
        inode = decode_stored(WATCH_FORMAT, WatchState, (state / "watch.state").read_bytes()).offset.inode
    except FileNotFoundError:
        return len(rotated_files(path))
    aside = [aside_path.stat().st_ino for aside_path in rotated_files(path)]
    return len(aside) - aside.index(inode) if inode in aside else 0


if __name__ == "__main__":
    main()
