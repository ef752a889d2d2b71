"""A desk whose clock, link and market are controlled by the test."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.desk import Desk, DeskConfig, Strategy
from holdover.desk.faults import parts_with
from holdover.model import (
    ExecType,
    ExecutionReport,
    Inbound,
    Instrument,
    MsgType,
    OrdStatus,
    PositionEffect,
    PositionReport,
    Query,
    Request,
    Side,
    TimeInForce,
)
from holdover.runtime import Guard

DAY = "2024-11-27"
OPEN_NS = 1_732_718_000_000_000_000
SECOND = 1_000_000_000
CLOSE_NS = OPEN_NS + 3_600 * SECOND
BUYER = Strategy(
    name="buyer", account="A", symbol="X", side=Side.BUY, order_qty=1_000, day_qty=1_000, slice_qty=100, patience=2
)
SELLER = Strategy(
    name="seller",
    account="A",
    symbol="X",
    side=Side.SELL,
    order_qty=500,
    day_qty=500,
    slice_qty=50,
    algorithm="participation",
    participation_bp=10_000,
    position_effect=PositionEffect.CLOSE,
)
STANDING_SELLER = Strategy(
    name="standing",
    account="B",
    symbol="X",
    side=Side.SELL,
    order_qty=900,
    day_qty=900,
    slice_qty=300,
    algorithm="standing",
    time_in_force=TimeInForce.GTC,
    rests=True,
    offset=2,
    patience=3,
    slices_working_max=1,
)


@dataclass
class ScriptedPorts:
    """The clock, the link and the market of one desk, controlled by the test.

    `sent_messages` holds what the desk sends. `deliver` numbers what the desk receives.
    """

    now_ns: int = OPEN_NS
    is_up: bool = False
    epoch: int = 0
    refuses_logon: bool = False
    sent_messages: list[Any] = field(default_factory=list)
    resends: list[int] = field(default_factory=list)
    listener: Any = None
    seq: int = 0
    out_seq: int = 0
    exec_number: int = 0
    tops: dict[str, SimpleNamespace] = field(default_factory=dict)
    order_reports: list[ExecutionReport] = field(default_factory=list)
    positions: list[PositionReport] = field(default_factory=list)
    executions: list[ExecutionReport] = field(default_factory=list)
    _timers: list[tuple[int, int, str, tuple[Any, ...]]] = field(default_factory=list)
    _handler: Callable[[str, tuple[Any, ...]], None] | None = None
    _answered_count: int = 0

    # -- the clock and the market -------------------------------------------------------------------------------

    def call_at(self, time_ns: int, name: str, *args: Any) -> None:
        """Set a timer."""
        heapq.heappush(self._timers, (time_ns, len(self._timers), name, args))

    def on_timer(self, handler: Callable[[str, tuple[Any, ...]], None]) -> None:
        """Set the handler of due timers."""
        self._handler = handler

    def advance(self, seconds: float) -> None:
        """Advance the clock and run the due timers in order."""
        end_ns = self.now_ns + int(seconds * SECOND)
        while self._timers and self._timers[0][0] <= end_ns:
            due, _, name, args = heapq.heappop(self._timers)
            self.now_ns = max(self.now_ns, due)
            assert self._handler is not None
            self._handler(name, args)
        self.now_ns = end_ns

    def top(self, symbol: str) -> SimpleNamespace:
        """Return the market of an instrument."""
        return self.tops.setdefault(
            symbol,
            SimpleNamespace(
                bid_px=100,
                ask_px=102,
                bid_sz=10,
                ask_sz=10,
                last_px=101,
                traded_qty=0,
                trading=True,
                reason="open",
                reference_version="",
            ),
        )

    # -- the link -----------------------------------------------------------------------------------------------

    def listen(self, listener: Any) -> None:
        """Set the listener of the link."""
        self.listener = listener

    def connect(self, next_in_seq: int, next_out_seq: int) -> None:
        """Log on, unless `refuses_logon` is set."""
        if self.refuses_logon:
            self.listener.on_down("refused")
            return
        self.is_up, self.epoch = True, self.epoch + 1
        self.listener.on_up(self.epoch, self.out_seq + 1)

    def send(self, message: Any) -> int:
        """Record a message of the desk. Returns its sequence number."""
        assert self.is_up
        self.sent_messages.append(message)
        self.out_seq += 1
        return self.out_seq

    def resend(self, begin_seq: int) -> None:
        """Record a resend request of the desk."""
        self.resends.append(begin_seq)

    def disconnect(self) -> None:
        """Log out."""
        self.is_up = False

    def drop_link(self) -> None:
        """Drop the link."""
        self.is_up = False
        self.listener.on_down("cut")

    # -- the venue ----------------------------------------------------------------------------------------------

    def deliver(self, message: Inbound, *, seq: int | None = None) -> None:
        """Deliver a message of the venue to the desk."""
        if seq is None:
            self.seq += 1
        self.listener.on_message(self.seq if seq is None else seq, False, message)

    def answer_queries(self) -> None:
        """Answer every query of the desk from `order_reports`, `positions` and `executions`."""
        while self._answered_count < len(self.sent_messages):
            query = self.sent_messages[self._answered_count]
            self._answered_count += 1
            if isinstance(query, Query):
                for message in self._answers_to(query):
                    self.deliver(message)

    def _answers_to(self, query: Query) -> list[Inbound]:
        answers: list[Any] = []
        if query.msg_type == MsgType.REQUEST_FOR_POSITIONS:
            answers = [report for report in self.positions if report.account == query.account]
            answers = answers or [PositionReport(req_id="", account=query.account, symbol="", net_qty=0)]
        elif query.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
            answers = [report for report in self.executions if report.account == query.account]
        elif query.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
            answers = [report for report in self.order_reports if report.account == query.account and report.leaves_qty]
        else:
            answers = [report for report in self.order_reports if report.cl_ord_id == query.cl_ord_id]
            answers = answers or [
                status_report(query.cl_ord_id, OrdStatus.REJECTED, ord_rej_reason=5, account=query.account)
            ]
        if not answers:
            answers = [status_report("", OrdStatus.NEW, tot_num_reports=0, account=query.account)]
        named = [_with_fields(report, req_id=query.req_id, last_rpt_requested=False) for report in answers]
        return [*named[:-1], _with_fields(named[-1], last_rpt_requested=True)]

    @property
    def requests(self) -> list[Request]:
        """Orders, cancels and replaces that the desk has sent."""
        return [message for message in self.sent_messages if isinstance(message, Request)]

    def deliver_report(
        self, request: Request, exec_type: ExecType, ord_status: OrdStatus, **fields: Any
    ) -> ExecutionReport:
        """Deliver an execution report of an order. Returns the report."""
        self.exec_number += 1
        report_fields = {
            "exec_type": exec_type,
            "ord_status": ord_status,
            "cl_ord_id": request.cl_ord_id,
            "orig_cl_ord_id": request.orig_cl_ord_id,
            "exec_id": f"E{self.exec_number}",
            "symbol": request.symbol,
            "side": request.side,
            "order_qty": request.order_qty,
            "price": request.price,
            "account": request.account,
            "time_in_force": request.time_in_force,
            "order_id": f"O-{request.root_cl_ord_id}",
            "trade_date": DAY,
            "transact_time_ns": self.now_ns,
            **fields,
        }
        report = ExecutionReport(**report_fields)
        self.deliver(report)
        return report

    def accept(self, request: Request) -> ExecutionReport:
        """Deliver the acknowledgement of a new order."""
        return self.deliver_report(request, ExecType.NEW, OrdStatus.NEW, leaves_qty=request.order_qty)

    def fill(self, request: Request, quantity: int, price: int, cum_qty: int, **fields: Any) -> ExecutionReport:
        """Deliver a trade."""
        full = cum_qty >= request.order_qty
        return self.deliver_report(
            request,
            ExecType.TRADE,
            OrdStatus.FILLED if full else OrdStatus.PARTIALLY_FILLED,
            last_qty=quantity,
            last_px=price,
            cum_qty=cum_qty,
            leaves_qty=request.order_qty - cum_qty,
            **fields,
        )


def status_report(cl_ord_id: str, ord_status: OrdStatus, **fields: Any) -> ExecutionReport:
    """Return an order status report."""
    report_fields = {"exec_id": "0", "symbol": "X", "trade_date": DAY, **fields}
    return ExecutionReport(exec_type=ExecType.ORDER_STATUS, ord_status=ord_status, cl_ord_id=cl_ord_id, **report_fields)


def first_order_text(bench: DeskBench) -> str:
    """Return the repr of the desk's first order."""
    return repr(bench.desk.orders.all_orders()[0])


def _with_fields(report: Any, **fields: Any) -> Any:
    return replace(report, **fields)


@dataclass
class DeskBench:
    """A desk, its ports and its guard."""

    desk: Desk
    ports: ScriptedPorts
    guard: Guard
    create_desk: Callable[[], Desk]

    def start(self) -> None:
        """Start the desk and answer its questions: it is reconciled and may trade."""
        self.desk.start(DAY, OPEN_NS, CLOSE_NS)
        self.ports.answer_queries()
        assert self.desk.reconciler.is_done

    def restart(self) -> None:
        """Close the store, create another desk on it, start that desk and answer its queries."""
        self.desk.store.close()
        self.ports.is_up = False
        self.ports._timers.clear()
        self.guard.boundary("restart", DAY)
        self.desk = self.create_desk()
        self.start()

    def first_order(self, seconds: float = 31) -> Request:
        """Advance the clock until the first strategy has sent its first slice. Returns the request."""
        self.ports.advance(seconds)
        return self.ports.requests[-1]


@pytest.fixture
def make_bench(tmp_path: Path, catalogue: Catalogue) -> Iterator[Callable[..., DeskBench]]:
    """Return a function that makes a bench with the given strategies.

    The teardown asserts that no invariant was breached. Pass `venue=False` when the test does not play the
    venue's books, with which some invariants compare.
    """
    benches: list[DeskBench] = []

    def make(*strategies: Strategy, venue: bool = True, **config: Any) -> DeskBench:
        ports = ScriptedPorts()
        guard = Guard(tmp_path / f"guard{len(benches)}", catalogue=catalogue, clock=lambda: ports.now_ns, channels=[])
        guard.evidence.is_quiet = True
        config.setdefault("position_max", 100_000)
        desk_config = DeskConfig(
            instruments=[Instrument(symbol="X")], strategies=list(strategies), synced=False, **config
        )
        faults = [name for name in os.environ.get("HOLDOVER_FAULTS", "").split(",") if name]
        directory = tmp_path / f"desk{len(benches)}"

        def create_desk() -> Desk:
            return Desk(
                desk_config,
                clock=ports,
                link=ports,  # type: ignore[arg-type]
                market=ports,  # type: ignore[arg-type]
                directory=directory,
                guard=guard,
                parts=parts_with(faults),
            )

        bench = DeskBench(create_desk(), ports, guard, create_desk)
        if venue:
            benches.append(bench)
        return bench

    yield make
    for bench in benches:
        assert [breach.explanation for breach in bench.guard.breaches] == []
        bench.guard.close()
