"""The reconciler: it queries the venue after every logon, and trusts no local state before the answers.

It sends four or five kinds of queries, one after the other. First the executions since the last known one: messages
are applied in order, so no earlier one can be missing, and if one is, the whole session is queried. Then the
open orders; then the status of each order that is open here and that the venue did not list; then, at a venue
that reports accounts, the movements without a trade; then the positions. Executions are booked and statuses
taken over. Positions are compared and never corrected: a difference that executions and movements do not
explain needs a person. No new order leaves before the last answer.
`is_behind` means that executions may be missing. A report that arrives in that time waits, because a missed
bust must not be booked after the fill that it made possible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from holdover.desk.accounting import Positions
from holdover.desk.config import DeskConfig
from holdover.desk.gateway import Gateway
from holdover.desk.orders import Orders
from holdover.model import (
    AccountReport,
    ExecutionReport,
    ImpossibleStateError,
    MsgType,
    Order,
    PositionReport,
    Query,
    Reconciliation,
)
from holdover.runtime import Guard

_UNKNOWN_ORDER: Final = 5
"""OrdRejReason (103): unknown order."""

_UNKNOWN_MAX: Final = 2
"""How often "unknown order" is queried again before it counts, for an order that was never acknowledged."""

_ROUNDS_MAX: Final = 3
"""How often one reconciliation repeats its queries; a difference that remains needs a person."""


class Reconciler:
    """Runs one reconciliation at a time, for the current epoch of the link."""

    subsystem = "reconciler"
    is_done: bool

    def __init__(
        self, config: DeskConfig, guard: Guard, gateway: Gateway, orders: Orders, positions: Positions
    ) -> None:
        self._config, self._guard, self._gateway = config, guard, gateway
        self._orders, self._positions = orders, positions
        self.is_done = False
        self.since_date = ""
        self.since_ns = 0
        self.is_behind = False
        self.on_finished: Callable[[], None] = lambda: None
        self.on_caught_up: Callable[[], None] = lambda: None
        self.on_restatement: Callable[[PositionReport], None] = lambda report: None
        self.on_account_report: Callable[[AccountReport], None] = lambda report: None
        self._epoch = 0
        self._number = 0
        self._pending_queries: list[Query] = []
        self._current_query: Query | None = None
        self._named_orders: set[str] = set()
        self._is_repeat_needed = False
        self._rounds = 0
        self._nudged_query: Query | None = None
        self.query_sent_ns = 0
        self._follow_ups: dict[str, str] = {}
        self._unknown_counts: dict[str, int] = {}

    def begin(self, *, is_gap: bool = False) -> None:
        """Start the queries after a logon. With `is_gap` (missed messages) they cover the whole session."""
        self._rounds = 0
        self._unknown_counts = {}
        self._send_queries(is_gap=is_gap)

    def _send_queries(self, *, is_gap: bool) -> None:
        self.is_done, self._epoch, self._is_repeat_needed, self.is_behind = False, self._gateway.epoch, False, True
        self._named_orders, self._current_query, self._follow_ups = set(), None, {}
        self._record_state()
        self._pending_queries = self.build_queries(is_gap=is_gap)
        self._send_next_query()

    def build_queries(self, *, is_gap: bool) -> list[Query]:
        """Return the queries of a reconciliation, in order."""
        accounts, known_ns = self._config.accounts(), 0 if is_gap else self.since_ns
        executions = [
            self._new_query(
                MsgType.TRADE_CAPTURE_REPORT_REQUEST, account, since_date=self.since_date, since_ns=known_ns
            )
            for account in accounts
        ]
        statuses = [self._new_query(MsgType.ORDER_MASS_STATUS_REQUEST, account) for account in accounts]
        changes = self.build_account_queries() if self._config.account_reports else []
        positions = [self._new_query(MsgType.REQUEST_FOR_POSITIONS, account) for account in accounts]
        return [*executions, *statuses, *changes, *positions]

    def build_account_queries(self) -> list[Query]:
        """Return the queries for what changed in the accounts without a trade since the last reconciled session."""
        return [
            self._new_query(MsgType.COLLATERAL_INQUIRY, account, since_date=self.since_date)
            for account in self._config.accounts()
        ]

    def unnamed_orders(self, account: str) -> list[Order]:
        """Return the orders that are open here and that the venue did not list as open."""
        return [
            order
            for order in self._orders.open_orders()
            if order.account == account
            and order.cl_ord_id not in self._named_orders
            and order.root_cl_ord_id not in self._named_orders
        ]

    def stop(self) -> None:
        """Drop the reconciliation, because the link is down."""
        self.is_done, self._current_query, self._pending_queries, self.is_behind = False, None, [], False

    def request_repeat(self) -> None:
        """Repeat the queries, because an execution or an order state was missed."""
        if self.is_done:
            self.begin(is_gap=True)
        elif self._current_query is not None:
            self._is_repeat_needed = True

    def restart_after_gap(self) -> None:
        """Restart all queries after skipped messages, which may have contained an answer."""
        if self.is_done or self._current_query is not None:
            self.begin(is_gap=True)

    def repeat_lost_query(self, now_ns: int, patience_ns: int) -> None:
        """Restart the queries when one has been unanswered for `patience_ns`: it or its answer may be lost."""
        if patience_ns <= 0:
            raise ImpossibleStateError(f"a query may stay unanswered for {patience_ns} ns, should be above 0")
        if self._current_query is None or not self._gateway.is_up:
            return
        if self._current_query is not self._nudged_query:
            self._nudged_query, self.query_sent_ns = self._current_query, now_ns
        elif now_ns - self.query_sent_ns >= patience_ns:
            self.begin()

    def query_order(self, order: Order) -> None:
        """Query the status of one order; its answer is applied when it arrives."""
        self._gateway.queue(self._status_query(order))

    def take_answer(self, report: ExecutionReport | PositionReport | AccountReport) -> bool:
        """Apply a message that answers a query; return whether it was one."""
        if isinstance(report, ExecutionReport) and report.req_id in self._follow_ups:
            self._apply_order_status(self._follow_ups.pop(report.req_id), report)
            return True
        query = self._current_query
        if not report.req_id:
            return False
        if query is None or report.req_id != query.req_id:
            return True  # the answer to a query of an earlier epoch
        if isinstance(report, AccountReport):
            self.on_account_report(report)
        elif isinstance(report, PositionReport):
            if report.symbol:
                self.on_restatement(report)
        elif report.tot_num_reports != 0 or report.ord_rej_reason is not None:
            self._apply_answer(query, report)
        if report.last_rpt_requested:
            self._finish_query(query)
        return True

    def _apply_answer(self, query: Query, report: ExecutionReport) -> None:
        if query.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
            self._orders.apply_report(report)
            return
        if query.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
            self._named_orders.add(report.cl_ord_id)
            self._orders.apply_status(report)
            return
        self._apply_order_status(query.cl_ord_id, report)

    def _apply_order_status(self, cl_ord_id: str, report: ExecutionReport) -> None:
        """Apply the status of one order. One "unknown order" is not conclusive: venues send it at bad moments."""
        order = self._orders.find(cl_ord_id)
        if report.ord_rej_reason != _UNKNOWN_ORDER or order is None or not order.is_open:
            self._orders.apply_status(report)
            return
        self._unknown_counts[order.key] = self._unknown_counts.get(order.key, 0) + 1
        if self._unknown_counts[order.key] <= _UNKNOWN_MAX:
            if self.is_done:
                self.query_order(order)
            else:
                self._pending_queries.append(self._status_query(order))
        elif not order.order_id:
            self._unknown_counts.pop(order.key)
            self._orders.apply_status(report)
        # An acknowledged order that the venue no longer knows needs a person: it stays as it is.

    def _finish_query(self, query: Query) -> None:
        if query is not self._current_query:
            raise ImpossibleStateError(f"query {query.req_id} ends, but another one waits for its answer")
        if self.is_behind and not any(
            pending_query.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST for pending_query in self._pending_queries
        ):
            self.is_behind = False
            self.on_caught_up()
        if query.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
            self._pending_queries = [
                self._status_query(order) for order in self.unnamed_orders(query.account)
            ] + self._pending_queries
        self._send_next_query()

    def _send_next_query(self) -> None:
        if self._pending_queries:
            self._current_query = self._pending_queries.pop(0)
            if self._current_query.msg_type == MsgType.ORDER_STATUS_REQUEST:
                self._follow_ups.pop(self._current_query.req_id, None)
            self._gateway.queue(self._current_query)
            return
        self._current_query = None
        if self._is_repeat_needed and self._rounds < _ROUNDS_MAX:
            self._rounds += 1
            self._send_queries(is_gap=True)
            return
        self._rounds = 0
        self.is_done = True
        self._record_state()
        self.on_finished()

    def _status_query(self, order: Order) -> Query:
        query = self._new_query(
            MsgType.ORDER_STATUS_REQUEST,
            order.account,
            cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            symbol=order.symbol,
        )
        self._follow_ups[query.req_id] = order.key
        return query

    def _new_query(self, msg_type: MsgType, account: str, **fields: Any) -> Query:
        if not account:
            raise ImpossibleStateError(f"a query {msg_type.name} without an account")
        self._number += 1
        return Query(
            msg_type=msg_type,
            req_id=f"Q{self._epoch}-{self._number}",
            account=account,
            link=self._config.link,
            **fields,
        )

    def _record_state(self) -> None:
        self._guard.record(
            self.subsystem, Reconciliation(link=self._config.link, epoch=self._epoch, is_complete=self.is_done)
        )
