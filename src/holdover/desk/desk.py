"""The desk: a small, complete live execution system.

It connects order manager, positions, ledger, risk, parent orders, reconciler and gateway over one store. It
handles every event as one step: one cause, one transaction, then the outgoing messages. Just before a message
goes on the wire it asks its guard for permission, and it reports every change to the guard. It does not know
what else the guard does with these records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from holdover.desk.accounting import Ledger, Positions, Risk
from holdover.desk.brackets import Brackets
from holdover.desk.config import DeskConfig
from holdover.desk.gateway import Gateway
from holdover.desk.orders import Orders
from holdover.desk.parents import Parents
from holdover.desk.ports import Clock, LinkEnd, Market
from holdover.desk.profit import ProfitAndLoss
from holdover.desk.reconciler import Reconciler
from holdover.desk.store import Store
from holdover.desk.tables import Tables
from holdover.model import (
    TRADES,
    AccountReport,
    CancelReject,
    ExecType,
    Execution,
    ExecutionReport,
    ImpossibleStateError,
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
    """The classes that a desk is made of. A deployment can replace any of them."""

    store: type[Store] = Store
    orders: type[Orders] = Orders
    positions: type[Positions] = Positions
    ledger: type[Ledger] = Ledger
    profit: type[ProfitAndLoss] = ProfitAndLoss
    risk: type[Risk] = Risk
    parents: type[Parents] = Parents
    brackets: type[Brackets] = Brackets
    gateway: type[Gateway] = Gateway
    reconciler: type[Reconciler] = Reconciler


class Desk:
    """One incarnation of the desk, from `start` to `stop` or a kill.

    Its persistent state is in `directory` or `tables`.
    """

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
        self.ledger = parts.ledger(config, self.store, guard)
        self.profit = parts.profit(config, self.store, guard)
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
        self.brackets = parts.brackets(
            config,
            guard,
            clock,
            market,
            self.orders,
            self.gateway,
            self.positions,
            self.risk,
            self.parents,
        )
        self.trade_date = ""
        self._hours = (0, 0)
        self._pending_since_ns: dict[str, int] = {}
        self._early_reports: list[ExecutionReport | AccountReport] = []
        self._changed_books: dict[str, None] = {}
        self._retries = 0

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self, trade_date: str, open_ns: int, close_ns: int) -> None:
        """Start: restore the state, report it, begin a new session if it is one, and log on."""
        if not trade_date:
            raise ValueError("a desk starts on a trade date, this one is empty")
        if open_ns >= close_ns:
            raise ValueError(f"{trade_date} opens at {open_ns} ns and closes at {close_ns}, should close later")
        last_session = self.store.get("session", "")
        self.trade_date = self.orders.trade_date = trade_date
        self._hours = (open_ns, close_ns)
        self.orders.on_order_change, self.orders.on_execution, self.orders.on_missing_execution = (
            self._on_order_change,
            self._on_execution,
            self._on_missing_execution,
        )
        self.reconciler.on_finished, self.reconciler.on_restatement = self._on_reconciled, self._on_restatement
        self.reconciler.on_account_report = self._apply_account_report
        # Since the last complete reconciliation: an incarnation killed during its first one has queried nothing.
        self.reconciler.since_date = self.store.get("reconciled", last_session or trade_date)
        self.orders.latest_ns = int(self.store.get("known_ns", "0"))
        self.gateway.on_unsent = self._on_unsent
        self.brackets.is_ready = self._is_trading
        self.reconciler.on_caught_up = self._on_caught_up
        with self.store.transaction():
            self._load_records(last_session)
        with self.guard.step("begin"), self.store.transaction():
            if last_session != trade_date:
                self.store.set("session", trade_date)
            self.positions.begin(trade_date)
            self.ledger.begin(trade_date)
            self.profit.begin(trade_date)
            self.parents.begin(trade_date)
            self.guard.record("session", TradingSession(trade_date=trade_date, phase="open"))
            self.brackets.load()
        self.parents.load_filled_before()
        self.link.listen(self)
        self.clock.on_timer(self.on_timer)
        self.gateway.connect()
        self._schedule_sweep()
        for number, strategy in enumerate(self.config.strategies):
            first = open_ns + strategy.interval_ns + number
            due = max(first, self._last_tick_ns(number) + strategy.interval_ns)
            self.clock.call_at(due, "work", number, due)

    def stop(self) -> None:
        """Stop in good order: log out and close the store."""
        if self.link.is_up:
            self.link.disconnect()
        self.store.close()

    def _load_records(self, since_date: str) -> None:
        records = self.orders.load(since_date)
        orders = self.orders.all_orders()
        parents = self.parents.load(orders)
        positions = self.positions.load(self.orders.executions())
        balances = [*self.ledger.load(), *self.profit.load(self.orders.executions(), self.trade_date)]
        self.gateway.load()
        with self.guard.step("restore"):
            self.guard.restore("orders", [*records, *parents])
            self.guard.restore("positions", positions)
            self.guard.restore("ledger", balances)
            self.risk.load(self.positions.all_positions(), orders)
        self.guard.record("store", self.store.compare_restored([*records, *parents, *positions, *balances]))

    # -- what the link calls ------------------------------------------------------------------------------------

    def on_up(self, epoch: int, out_seq: int) -> None:
        """Start the reconciliation after a logon. The desk trusts nothing before the venue has answered."""
        self._run_step("link-up", self._on_link_up, out_seq)

    def on_down(self, reason: str) -> None:
        """Note that the link is down, and retry later."""
        self._run_step("link-down", self._on_link_down)
        self._retries += 1  # so that two calls cause one retry: two logons would each start the queries
        self.clock.call_at(self.clock.now_ns + self.config.retry_ns, "connect", self._retries)

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """Handle one message of the venue."""
        self._run_step(type(message).__name__, self._apply_message, seq, poss_dup, message)

    def on_sequence_reset(self, new_seq: int) -> None:
        """The venue skips messages that it will not send: query what they contained."""
        self._run_step("sequence-reset", self._apply_sequence_reset, new_seq)

    def on_heartbeat(self, seq: int) -> None:
        """Note that the venue is alive, and request messages that are missing."""
        self.guard.tick()
        if seq > self.gateway.in_seq:
            self._run_step("heartbeat", self.gateway.request_missing, seq)

    def on_session_message(self, seq: int) -> None:
        """Count the sequence number of a session-level message."""
        self.guard.tick()
        self._run_step("session", self.gateway.accept_sequence, seq)

    def on_market_status(self, message: SecurityStatus) -> None:
        """Apply a book status from the market data feed."""
        self._run_step("market-status", self.gateway.apply_book_status, message)

    def on_timer(self, name: str, args: tuple[Any, ...]) -> None:
        """Handle a timer of the desk."""
        if name == "connect":
            if not self.link.is_up and args[0] == self._retries:
                self.gateway.connect()
        elif name == "sweep":
            self._run_step("sweep", self._sweep)
            self._schedule_sweep()
        elif name == "work":
            number, due = args
            strategy = self.config.strategies[number]
            if self.reconciler.is_done and self.clock.now_ns < self._hours[1]:
                self._run_step("work", self.parents.work_parent, strategy, due, *self._hours)
            self.clock.call_at(due + strategy.interval_ns, "work", number, due + strategy.interval_ns)
        elif name == "missed":
            self._run_missed_ticks()
        else:
            raise ImpossibleStateError(f"the desk has no timer called {name!r}")

    # -- what an operator asks for ------------------------------------------------------------------------------

    def cancel(self, root: str) -> None:
        """Cancel one order by key."""
        self._run_step("operator", self.parents.cancel, root)

    def reprice(self, root: str, price: int) -> None:
        """Change the price of one order, in ticks."""
        if self._is_trading():
            self._run_step("operator", self.parents.reprice, root, price)

    def submit(self, number: int, quantity: int, ticks: int) -> None:
        """Send a slice of the `number`-th strategy at once. The number counts from 0 and wraps around."""
        if not self.config.strategies:
            raise ValueError(f"a slice of {quantity} lots: the desk has no strategy that could send it")
        strategy = self.config.strategies[number % len(self.config.strategies)]
        if self._is_trading():
            self._run_step("operator", self.parents.submit, strategy, quantity, ticks)

    def _is_trading(self) -> bool:
        return self.reconciler.is_done and self._hours[0] <= self.clock.now_ns < self._hours[1]

    # -- steps --------------------------------------------------------------------------------------------------

    def _run_step(self, cause: str, action: Callable[..., object], *args: Any) -> None:
        """Run one step: one cause and one transaction. Its messages leave after the commit."""
        with self.guard.step(cause), self.store.transaction():
            action(*args)
            if self._changed_books:
                self._pull_surplus()
            self.gateway.save_out_seq()
        self.gateway.flush()

    def _pull_surplus(self) -> None:
        changed_books, self._changed_books = self._changed_books, {}
        for book_key in changed_books:
            if self.brackets.owns(book_key):
                self.brackets.review(book_key)
            else:
                self.parents.pull_surplus(book_key)

    def _last_tick_ns(self, number: int) -> int:
        """Return when the last look at a strategy was due, in ns. Looks are on a fixed grid from the open."""
        interval_ns = self.config.strategies[number].interval_ns
        first_ns = self._hours[0] + number
        return first_ns + (self.clock.now_ns - first_ns) // interval_ns * interval_ns

    def _schedule_sweep(self) -> None:
        interval_ns = self.config.answer_ns
        self.clock.call_at((self.clock.now_ns // interval_ns + 1) * interval_ns, "sweep")

    def _run_missed_ticks(self) -> None:
        """Run the look that a kill or a cut interrupted; earlier looks are skipped.

        A store that has forgotten sent messages may have forgotten this look too. Its ids then count from the
        number of messages that the venue has received, so that no id repeats one that was already sent.
        """
        forgotten_ns, received_count = map(int, self.store.get("forgotten", "-1 0").split())
        for number, strategy in enumerate(self.config.strategies):
            tick_ns = self._last_tick_ns(number)
            if (
                self.reconciler.is_done
                and self._hours[0] < tick_ns < self._hours[1]
                and self.clock.now_ns < self._hours[1]
                and self.parents.is_missed(strategy, tick_ns)
            ):
                number = received_count if tick_ns <= forgotten_ns else 0
                self._run_step("work", self.parents.work_parent, strategy, tick_ns, *self._hours, number)

    def _on_link_up(self, out_seq: int) -> None:
        if self.gateway.on_link_up(out_seq):
            self.store.set("forgotten", f"{self.clock.now_ns} {out_seq}")
        self.gateway.read_book_states(self.market)
        self.reconciler.query_sent_ns = self.clock.now_ns
        self.reconciler.since_ns = int(self.store.get("known_ns", "0"))
        self.reconciler.begin()

    def _on_link_down(self) -> None:
        self.reconciler.stop()
        self._early_reports.clear()  # the next logon queries what these reports contained
        self.gateway.on_link_down()

    def _apply_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        if not self.gateway.accept_sequence(seq, poss_dup):
            return
        if isinstance(message, SecurityStatus):
            self.gateway.apply_book_status(message)
        elif isinstance(message, CancelReject):
            self.orders.apply_cancel_reject(message)
        elif isinstance(message, PositionReport):
            self.reconciler.take_answer(message)
        elif not self.reconciler.take_answer(message):
            if self.reconciler.is_behind:
                self._early_reports.append(message)
            else:
                self._apply_report(message)

    def _on_caught_up(self) -> None:
        reports, self._early_reports = self._early_reports, []
        for report in reports:
            self._apply_report(report)

    def _apply_report(self, report: ExecutionReport | AccountReport) -> None:
        if isinstance(report, AccountReport):
            self._apply_account_report(report)
            return
        if report.exec_type == ExecType.ORDER_STATUS:
            self.orders.apply_status(report)
            return
        self.orders.apply_report(report)
        if report.exec_type in TRADES and self.reconciler.is_done:
            self.store.set("known_ns", str(self.orders.latest_ns))

    def _apply_account_report(self, report: AccountReport) -> None:
        """Book what changed in an account without a trade. Each change is a fact with an id and is booked once."""
        if report.movement is not None:
            self.ledger.move(report.movement, self.trade_date)
        if report.adjustment is not None:
            position = self.positions.adjust(report.adjustment, self.trade_date)
            if position is not None:
                self.risk.adjust(report.adjustment)
                self.profit.update(position)
                self._changed_books[position.key] = None
        self.risk.take_margin(report)

    def _apply_sequence_reset(self, new_seq: int) -> None:
        if self.gateway.apply_sequence_reset(new_seq):
            self.reconciler.restart_after_gap()

    def _sweep(self) -> None:
        """Query the status of every request that has been unanswered for too long on a live link."""
        self.guard.tick()
        self._changed_books.update(dict.fromkeys(sorted(self.brackets.unfinished)))
        if not self.reconciler.is_done:
            self.reconciler.repeat_lost_query(self.clock.now_ns, self.config.answer_ns)
            return
        waiting: dict[str, int] = {}
        for order in self.orders.open_orders():
            if order.is_pending:
                waiting[order.key] = self._pending_since_ns.get(order.key, self.clock.now_ns)
                if self.clock.now_ns - waiting[order.key] >= self.config.answer_ns:
                    self.reconciler.query_order(order)
        self._pending_since_ns = waiting

    # -- one part tells the others ------------------------------------------------------------------------------

    def _on_order_change(self, before: Order | None, after: Order) -> None:
        if before is not None and after.closing_qty and after.reference_version != before.reference_version:
            self._restate_closed_position(before, after)
        self.risk.apply_order_change(before, after)
        self.positions.reserve(after, self.orders.reserved_change(before, after), self.trade_date)
        self.parents.apply_order_change(before, after)
        is_bracketed = after.contingency_type is not None and self.brackets.owns(after.book_key)
        if before is not None and (after.closing_uncancelled_qty or is_bracketed):
            self._changed_books[after.book_key] = None

    def _on_execution(self, execution: Execution) -> None:
        self.positions.book(execution, self.trade_date)
        self.ledger.book(execution, self.trade_date)
        self.profit.book(execution, self.positions.get(execution.book_key))
        self.risk.book(execution)
        self._changed_books[execution.book_key] = None

    def _on_missing_execution(self, order: Order) -> None:
        self.reconciler.request_repeat()

    def _on_unsent(self, request: Request) -> None:
        """Withdraw a request that did not leave: its order returns to its former state, and a new order is closed.

        A cancel is still wanted: its order stays pending until the venue has reported its status, and is reviewed
        then.
        """
        order = self.orders.find(request.cl_ord_id)
        if order is not None and request.msg_type != MsgType.ORDER_CANCEL_REQUEST:
            with self.guard.step("unsent"), self.store.transaction():
                self.orders.withdraw(order, "not sent")

    def _on_restatement(self, report: PositionReport) -> None:
        self._restate_position(report.key, report.net_qty, report.reference_version)

    def _restate_closed_position(self, before: Order, after: Order) -> None:
        """Restate the position under a closing order in the lots of a split, before the venue reports the position."""
        position = self.positions.get(after.book_key)
        lots, old_lots = after.order_qty * (position.net_qty if position is not None else 0), before.order_qty
        if old_lots and not lots % old_lots:
            self._restate_position(after.book_key, lots // old_lots, after.reference_version)

    def _restate_position(self, key: str, net_qty: int, reference_version: str) -> None:
        position = self.positions.get(key)
        if position is not None and position.reference_version != reference_version:
            self.positions.restate(key, net_qty, reference_version)
            self.risk.restate(replace(position, net_qty=net_qty))

    def _on_reconciled(self) -> None:
        self.store.set("known_ns", str(self.orders.latest_ns))
        self.store.set("reconciled", self.trade_date)
        self.reconciler.since_date = self.trade_date
        self._changed_books.update(dict.fromkeys(sorted(self.brackets.unfinished)))
        self.guard.reconciled(self.trade_date)
        self.clock.call_at(self.clock.now_ns, "missed")
