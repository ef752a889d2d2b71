"""The desk: a live execution system in its own right, small and whole.

It wires order manager, positions, ledger, risk, parent orders, reconciler and gateway over one store, and runs
whatever arrives as one step: one cause, one transaction, then what is to be sent. It asks its guard for permission at
the last line before the wire, and says to it what changed; it does not know what else the guard does with that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdover.desk.books import Ledger, Positions, Risk
from holdover.desk.config import DeskConfig
from holdover.desk.gateway import Gateway
from holdover.desk.orders import Orders
from holdover.desk.outside import Clock, LinkEnd, Market
from holdover.desk.parents import Parents
from holdover.desk.reconciler import Reconciler
from holdover.desk.store import Store
from holdover.desk.tables import Tables
from holdover.model import (
    TRADES,
    CancelReject,
    ExecType,
    Execution,
    ExecutionReport,
    Inbound,
    MsgType,
    Order,
    PositionReport,
    Request,
    SecurityStatus,
    TradingSession,
)
from holdover.runtime import Guard


@dataclass(frozen=True)
class Parts:
    """The classes that a desk is made of; a deployment may put its own in place of any."""

    store: type[Store] = Store
    orders: type[Orders] = Orders
    positions: type[Positions] = Positions
    ledger: type[Ledger] = Ledger
    risk: type[Risk] = Risk
    parents: type[Parents] = Parents
    gateway: type[Gateway] = Gateway
    reconciler: type[Reconciler] = Reconciler


class Desk:
    """One life of the desk: from `start` to `stop`, or to a kill. What survives is in `directory`, or in `tables`."""

    def __init__(
        self,
        config: DeskConfig,
        *,
        clock: Clock,
        link: LinkEnd,
        market: Market,
        directory: Path,
        guard: Guard,
        parts: Parts | None = None,
        tables: Tables | None = None,
    ) -> None:
        parts = parts or Parts()
        self.config, self.clock, self.link, self.guard, self.market = config, clock, link, guard, market
        self.store = parts.store(directory, synced=config.synced, tables=tables)
        self.orders = parts.orders(config, self.store, guard)
        self.positions = parts.positions(self.store, guard)
        self.ledger = parts.ledger(self.store, guard)
        self.risk = parts.risk(config, guard)
        self.gateway = parts.gateway(config, self.store, guard, link)
        self.reconciler = parts.reconciler(config, guard, self.gateway, self.orders, self.positions)
        self.parents = parts.parents(
            config,
            self.store,
            guard,
            clock,
            market,
            self.orders,
            self.gateway,
            self.positions,
            self.risk,
        )
        self.trade_date = ""
        self._hours = (0, 0)
        self._waiting_since: dict[str, int] = {}
        self._early: list[ExecutionReport] = []
        self._moved: dict[str, None] = {}
        self._retries = 0

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self, trade_date: str, open_ns: int, close_ns: int) -> None:
        """Come up: read back, say what was read, begin the session when it is a new one, log on."""
        last = self.store.get("session", "")
        self.trade_date = self.orders.trade_date = trade_date
        self._hours = (open_ns, close_ns)
        self.orders.followed, self.orders.booked, self.orders.missing = self._follow, self._book, self._missing
        self.reconciler.finished, self.reconciler.restate = self._reconciled, self._restate
        # The session of the last reconciliation completed: a life that died in its first one had asked nothing.
        self.reconciler.since = self.store.get("reconciled", last or trade_date)
        self.orders.latest_ns = int(self.store.get("known_ns", "0"))
        self.gateway.unsent = self._unsent
        self.reconciler.caught_up = self._caught_up
        with self.store.transaction():
            self._load(last)
        with self.guard.step("begin"), self.store.transaction():
            if last != trade_date:
                self.store.set("session", trade_date)
            self.positions.begin(trade_date)
            self.ledger.begin(trade_date)
            self.parents.begin(trade_date)
            self.guard.record("session", TradingSession(trade_date=trade_date, phase="open"))
        self.parents.resume()
        self.link.listen(self)
        self.clock.on_timer(self.on_timer)
        self.gateway.connect()
        self._sweep_later()
        for number, strategy in enumerate(self.config.strategies):
            first = open_ns + strategy.interval_ns + number
            due = max(first, self._tick(number) + strategy.interval_ns)
            self.clock.call_at(due, "work", number, due)

    def stop(self) -> None:
        """Go down in good order: log out, close the store."""
        if self.link.up:
            self.link.disconnect()
        self.store.close()

    def _load(self, since: str) -> None:
        records = self.orders.load(since)
        orders = self.orders.all()
        parents = self.parents.load(orders)
        positions = self.positions.load(self.orders.executions())
        balances = self.ledger.load()
        self.gateway.load()
        with self.guard.step("restore"):
            self.guard.restore("orders", [*records, *parents])
            self.guard.restore("positions", positions)
            self.guard.restore("ledger", balances)
            self.risk.load(self.positions.held(), orders)
        self.guard.record("store", self.store.compared([*records, *parents, *positions, *balances]))

    # -- what the link calls ------------------------------------------------------------------------------------

    def on_up(self, epoch: int, out_seq: int) -> None:
        """The link is up: nothing is believed until the venue has been asked."""
        self._run("link-up", self._came_up, out_seq)

    def on_down(self, reason: str) -> None:
        """The link is down: try again in a while."""
        self._run("link-down", self._went_down)
        self._retries += 1  # told twice, it tries once: two logons under way would each begin the questions
        self.clock.call_at(self.clock.now_ns + self.config.retry_ns, "connect", self._retries)

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """One message of the venue."""
        self._run(type(message).__name__, self._message, seq, poss_dup, message)

    def on_sequence_reset(self, new_seq: int) -> None:
        """The venue passes over messages that will not come: what they said has to be asked for."""
        self._run("sequence-reset", self._reset, new_seq)

    def on_heartbeat(self, seq: int) -> None:
        """The venue is there."""
        self.guard.tick()
        if seq > self.gateway.in_seq:
            self._run("heartbeat", self.gateway.behind, seq)

    def on_session_message(self, seq: int) -> None:
        """A message of the session itself: it says nothing, and its number is counted."""
        self.guard.tick()
        self._run("session", self.gateway.arrived, seq)

    def on_market_status(self, message: SecurityStatus) -> None:
        """The feed says that a book opens, halts or closes."""
        self._run("market-status", self.gateway.status, message)

    def on_timer(self, name: str, args: tuple[Any, ...]) -> None:
        """A timer of ours is due."""
        if name == "connect":
            if not self.link.up and args[0] == self._retries:
                self.gateway.connect()
        elif name == "sweep":
            self._run("sweep", self._sweep)
            self._sweep_later()
        elif name == "work":
            number, due = args
            strategy = self.config.strategies[number]
            if self.reconciler.done and self.clock.now_ns < self._hours[1]:
                self._run("work", self.parents.work, strategy, due, *self._hours)
            self.clock.call_at(due + strategy.interval_ns, "work", number, due + strategy.interval_ns)
        elif name == "missed":
            self._take_missed()

    # -- what an operator asks for ------------------------------------------------------------------------------

    def cancel(self, root: str) -> None:
        """Cancel one order, by its key."""
        self._run("operator", self.parents.cancel, root)

    def reprice(self, root: str, price: int) -> None:
        """Give one order another price, in ticks."""
        if self._trading_now():
            self._run("operator", self.parents.reprice, root, price)

    def submit(self, number: int, quantity: int, ticks: int) -> None:
        """Send a slice of the `number`-th strategy (they are counted from 0, going round) at once."""
        strategy = self.config.strategies[number % len(self.config.strategies)]
        if self._trading_now():
            self._run("operator", self.parents.submit, strategy, quantity, ticks)

    def _trading_now(self) -> bool:
        return self.reconciler.done and self._hours[0] <= self.clock.now_ns < self._hours[1]

    # -- steps --------------------------------------------------------------------------------------------------

    def _run(self, cause: str, act: Callable[..., object], *args: Any) -> None:
        """One step: one cause, one transaction; what it wants to send leaves after the commit."""
        with self.guard.step(cause), self.store.transaction():
            act(*args)
            if self._moved:
                self._pull_surplus()
            self.gateway.promise()
        self.gateway.flush()

    def _pull_surplus(self) -> None:
        moved, self._moved = self._moved, {}
        for book_key in moved:
            self.parents.pull_surplus(book_key)

    def _tick(self, number: int) -> int:
        """When the last look at a strategy was due, ns. Looks stand on a grid from the open on, whoever starts when."""
        interval_ns = self.config.strategies[number].interval_ns
        began = self._hours[0] + number
        return began + (self.clock.now_ns - began) // interval_ns * interval_ns

    def _sweep_later(self) -> None:
        every_ns = self.config.answer_ns
        self.clock.call_at((self.clock.now_ns // every_ns + 1) * every_ns, "sweep")

    def _take_missed(self) -> None:
        """The look that a kill or a cut link came into is taken now; older ones are over.

        A store that has forgotten what left may have forgotten this very look: what it sends now is counted on from the
        number of messages that the venue has heard, so that it can be nothing that is out already.
        """
        forgotten_ns, heard = map(int, self.store.get("forgotten", "-1 0").split())
        for number, strategy in enumerate(self.config.strategies):
            tick_ns = self._tick(number)
            if (
                self.reconciler.done
                and self._hours[0] < tick_ns < self._hours[1]
                and self.clock.now_ns < self._hours[1]
                and self.parents.missed(strategy, tick_ns)
            ):
                number = heard if tick_ns <= forgotten_ns else 0
                self._run("work", self.parents.work, strategy, tick_ns, *self._hours, number)

    def _came_up(self, out_seq: int) -> None:
        if self.gateway.came_up(out_seq):
            self.store.set("forgotten", f"{self.clock.now_ns} {out_seq}")
        self.gateway.look(self.market)
        self.reconciler.asked_ns = self.clock.now_ns
        self.reconciler.since_ns = int(self.store.get("known_ns", "0"))
        self.reconciler.begin()

    def _went_down(self) -> None:
        self.reconciler.stop()
        self._early.clear()  # whatever they said will be asked for at the next logon
        self.gateway.went_down()

    def _message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        if not self.gateway.arrived(seq, poss_dup):
            return
        if isinstance(message, SecurityStatus):
            self.gateway.status(message)
        elif isinstance(message, CancelReject):
            self.orders.refused(message)
        elif isinstance(message, PositionReport):
            self.reconciler.answers(message)
        elif not self.reconciler.answers(message):
            if self.reconciler.behind:
                self._early.append(message)
            else:
                self._report(message)

    def _caught_up(self) -> None:
        early, self._early = self._early, []
        for report in early:
            self._report(report)

    def _report(self, report: ExecutionReport) -> None:
        if report.exec_type == ExecType.ORDER_STATUS:
            self.orders.answered(report)
            return
        self.orders.report(report)
        if report.exec_type in TRADES and self.reconciler.done:
            self.store.set("known_ns", str(self.orders.latest_ns))

    def _reset(self, new_seq: int) -> None:
        if self.gateway.reset(new_seq):
            self.reconciler.passed_over()

    def _sweep(self) -> None:
        """Ask about every request that has waited too long on a live link."""
        self.guard.tick()
        if not self.reconciler.done:
            self.reconciler.nudge(self.clock.now_ns, self.config.answer_ns)
            return
        waiting: dict[str, int] = {}
        for order in self.orders.open():
            if order.is_pending:
                waiting[order.key] = self._waiting_since.get(order.key, self.clock.now_ns)
                if self.clock.now_ns - waiting[order.key] >= self.config.answer_ns:
                    self.reconciler.ask_order(order)
        self._waiting_since = waiting

    # -- one part tells the others ------------------------------------------------------------------------------

    def _follow(self, before: Order | None, after: Order) -> None:
        self.risk.follow(before, after)
        self.positions.follow(before, after, self.trade_date)
        self.parents.follow(before, after)
        if after.closing_kept_qty and before is not None:
            self._moved[after.book_key] = None

    def _book(self, execution: Execution) -> None:
        self.positions.book(execution, self.trade_date)
        self.ledger.book(execution, self.trade_date)
        self.risk.book(execution)
        self._moved[execution.book_key] = None

    def _missing(self, order: Order) -> None:
        self.reconciler.ask_again()

    def _unsent(self, request: Request) -> None:
        """A request that did not leave: its order is what it was before, and a new one is over.

        A cancel is still wanted: its order stays pending until the venue has said what it is, and is looked at again.
        """
        order = self.orders.find(request.cl_ord_id)
        if order is not None and request.msg_type != MsgType.ORDER_CANCEL_REQUEST:
            with self.guard.step("unsent"), self.store.transaction():
                self.orders.withdraw(order, "not sent")

    def _restate(self, report: PositionReport) -> None:
        held = self.positions.get(report.key)
        if held is not None and held.reference_version != report.reference_version:
            self.positions.restate(report.account, report.symbol, report.net_qty, report.reference_version)
            self.risk.restate(report.account, report.symbol, report.net_qty)

    def _reconciled(self) -> None:
        self.store.set("known_ns", str(self.orders.latest_ns))
        self.store.set("reconciled", self.trade_date)
        self.reconciler.since = self.trade_date
        self.guard.reconciled(self.trade_date)
        self.clock.call_at(self.clock.now_ns, "missed")
