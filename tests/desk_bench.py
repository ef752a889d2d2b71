"""A desk with an outside that the test plays by hand: clock, link, market."""

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
STANDING = Strategy(
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
class Outside:
    """Clock, link and market of one desk; what it sends is in `sent`, what is said to it is numbered."""

    now_ns: int = OPEN_NS
    up: bool = False
    epoch: int = 0
    refuses: bool = False
    sent: list[Any] = field(default_factory=list)
    resends: list[int] = field(default_factory=list)
    listener: Any = None
    seq: int = 0
    out_seq: int = 0
    exec_number: int = 0
    tops: dict[str, SimpleNamespace] = field(default_factory=dict)
    known: list[ExecutionReport] = field(default_factory=list)
    positions: list[PositionReport] = field(default_factory=list)
    executions: list[ExecutionReport] = field(default_factory=list)
    _timers: list[tuple[int, int, str, tuple[Any, ...]]] = field(default_factory=list)
    _handler: Callable[[str, tuple[Any, ...]], None] | None = None
    _answered: int = 0

    # -- the clock and the market -------------------------------------------------------------------------------

    def call_at(self, time_ns: int, name: str, *args: Any) -> None:
        """A timer."""
        heapq.heappush(self._timers, (time_ns, len(self._timers), name, args))

    def on_timer(self, handler: Callable[[str, tuple[Any, ...]], None]) -> None:
        """Who is called."""
        self._handler = handler

    def wait(self, seconds: float) -> None:
        """Let time pass, timers in their order."""
        end_ns = self.now_ns + int(seconds * SECOND)
        while self._timers and self._timers[0][0] <= end_ns:
            due, _, name, args = heapq.heappop(self._timers)
            self.now_ns = max(self.now_ns, due)
            assert self._handler is not None
            self._handler(name, args)
        self.now_ns = end_ns

    def top(self, symbol: str) -> SimpleNamespace:
        """The market."""
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
        """Who hears."""
        self.listener = listener

    def connect(self, next_in_seq: int, next_out_seq: int) -> None:
        """A logon, granted unless the test says otherwise."""
        if self.refuses:
            self.listener.on_down("refused")
            return
        self.up, self.epoch = True, self.epoch + 1
        self.listener.on_up(self.epoch, self.out_seq + 1)

    def send(self, message: Any) -> int:
        """Onto the wire."""
        assert self.up
        self.sent.append(message)
        self.out_seq += 1
        return self.out_seq

    def resend(self, begin_seq: int) -> None:
        """What the desk asks for again."""
        self.resends.append(begin_seq)

    def disconnect(self) -> None:
        """Logged out."""
        self.up = False

    def cut(self) -> None:
        """The link goes down."""
        self.up = False
        self.listener.on_down("cut")

    # -- the venue ----------------------------------------------------------------------------------------------

    def say(self, message: Inbound, *, seq: int | None = None) -> None:
        """The venue says something."""
        if seq is None:
            self.seq += 1
        self.listener.on_message(self.seq if seq is None else seq, False, message)

    def answer(self) -> None:
        """Answer every question of the desk from what the test says is so."""
        while self._answered < len(self.sent):
            asked = self.sent[self._answered]
            self._answered += 1
            if isinstance(asked, Query):
                for message in self._answers(asked):
                    self.say(message)

    def _answers(self, asked: Query) -> list[Inbound]:
        told: list[Any] = []
        if asked.msg_type == MsgType.REQUEST_FOR_POSITIONS:
            told = [one for one in self.positions if one.account == asked.account]
            told = told or [PositionReport(req_id="", account=asked.account, symbol="", net_qty=0)]
        elif asked.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
            told = [one for one in self.executions if one.account == asked.account]
        elif asked.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
            told = [one for one in self.known if one.account == asked.account and one.leaves_qty]
        else:
            told = [one for one in self.known if one.cl_ord_id == asked.cl_ord_id]
            told = told or [status(asked.cl_ord_id, OrdStatus.REJECTED, ord_rej_reason=5, account=asked.account)]
        if not told:
            told = [status("", OrdStatus.NEW, tot_num_reports=0, account=asked.account)]
        named = [_with(one, req_id=asked.req_id, last_rpt_requested=False) for one in told]
        return [*named[:-1], _with(named[-1], last_rpt_requested=True)]

    @property
    def requests(self) -> list[Request]:
        """Orders, cancels and replaces that left."""
        return [one for one in self.sent if isinstance(one, Request)]

    def report(self, request: Request, exec_type: ExecType, ord_status: OrdStatus, **fields: Any) -> ExecutionReport:
        """Say an execution report of an order, and return it."""
        self.exec_number += 1
        told = {
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
        report = ExecutionReport(**told)
        self.say(report)
        return report

    def accept(self, request: Request) -> ExecutionReport:
        """New, acknowledged."""
        return self.report(request, ExecType.NEW, OrdStatus.NEW, leaves_qty=request.order_qty)

    def fill(self, request: Request, quantity: int, price: int, cum_qty: int, **fields: Any) -> ExecutionReport:
        """A trade."""
        full = cum_qty >= request.order_qty
        return self.report(
            request,
            ExecType.TRADE,
            OrdStatus.FILLED if full else OrdStatus.PARTIALLY_FILLED,
            last_qty=quantity,
            last_px=price,
            cum_qty=cum_qty,
            leaves_qty=request.order_qty - cum_qty,
            **fields,
        )


def status(cl_ord_id: str, ord_status: OrdStatus, **fields: Any) -> ExecutionReport:
    """A status answer."""
    told = {"exec_id": "0", "symbol": "X", "trade_date": DAY, **fields}
    return ExecutionReport(exec_type=ExecType.ORDER_STATUS, ord_status=ord_status, cl_ord_id=cl_ord_id, **told)


def order(bench: Bench) -> str:
    """The first order of the desk, as it prints."""
    return repr(bench.desk.orders.all()[0])


def _with(report: Any, **fields: Any) -> Any:
    return replace(report, **fields)


@dataclass
class Bench:
    """A desk, its outside and its guard."""

    desk: Desk
    outside: Outside
    guard: Guard
    come_up: Callable[[], Desk]

    def up(self) -> None:
        """Start the desk and answer its questions: it is reconciled and may trade."""
        self.desk.start(DAY, OPEN_NS, CLOSE_NS)
        self.outside.answer()
        assert self.desk.reconciler.done

    def restart(self) -> None:
        """The desk goes down and another life of it comes up on the same store; its questions are answered."""
        self.desk.store.close()
        self.outside.up = False
        self.outside._timers.clear()
        self.guard.boundary("restart", DAY)
        self.desk = self.come_up()
        self.up()

    def first_order(self, seconds: float = 31) -> Request:
        """Let the first strategy send its first slice."""
        self.outside.wait(seconds)
        return self.outside.requests[-1]


@pytest.fixture
def make_bench(tmp_path: Path, catalogue: Catalogue) -> Iterator[Callable[..., Bench]]:
    """A bench with the strategies that a test wants; at its end no invariant may have been breached.

    `venue=False` where the test does not play the venue's own books, with which some invariants compare.
    """
    made: list[Bench] = []

    def make(*strategies: Strategy, venue: bool = True, **config: Any) -> Bench:
        outside = Outside()
        guard = Guard(tmp_path / f"guard{len(made)}", catalogue=catalogue, clock=lambda: outside.now_ns, channels=[])
        guard.quiet = True
        config.setdefault("position_max", 100_000)
        told = DeskConfig(instruments=[Instrument(symbol="X")], strategies=list(strategies), synced=False, **config)
        faults = [name for name in os.environ.get("HOLDOVER_FAULTS", "").split(",") if name]
        directory = tmp_path / f"desk{len(made)}"

        def come_up() -> Desk:
            return Desk(
                told,
                clock=outside,
                link=outside,  # type: ignore[arg-type]
                market=outside,  # type: ignore[arg-type]
                directory=directory,
                guard=guard,
                parts=parts_with(faults),
            )

        bench = Bench(come_up(), outside, guard, come_up)
        if venue:
            made.append(bench)
        return bench

    yield make
    for bench in made:
        assert [one.explanation for one in bench.guard.breaches] == []
        bench.guard.close()
