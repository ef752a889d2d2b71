"""The reconciler: after every logon, ask the venue what is so, and believe nothing until it has said.

Four questions, one after the other: which executions since the last that we know of (messages are applied in their
order, so none before it can be missing; where one is all the same, the whole session is asked for); which orders are
open; for each order that we hold open and the venue did not name, what became of it; which positions. Executions are
booked, statuses taken over; positions are compared and never corrected, because a difference that executions do not
explain is for a person.
No new order leaves before the last answer. `behind` says that executions may be missing still: a report that
arrives meanwhile waits until they are known, because a bust that we missed must not come after the fill that it freed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from holdover.desk.books import Positions
from holdover.desk.config import DeskConfig
from holdover.desk.gateway import Gateway
from holdover.desk.orders import Orders
from holdover.model import ExecutionReport, MsgType, Order, PositionReport, Query, Reconciliation
from holdover.runtime import Guard

_UNKNOWN_ORDER: Final = 5
"""OrdRejReason (103): unknown order."""

_UNKNOWN_MAX: Final = 2
"""How often "unknown order" is asked about again before it is believed of an order that was never acknowledged."""

_ROUNDS_MAX: Final = 3
"""How often the questions are asked again in one reconciliation; what still differs then is for a person."""


class Reconciler:
    """One reconciliation at a time, for the link's present epoch."""

    subsystem = "reconciler"

    def __init__(
        self, config: DeskConfig, guard: Guard, gateway: Gateway, orders: Orders, positions: Positions
    ) -> None:
        self._config, self._guard, self._gateway = config, guard, gateway
        self._orders, self._positions = orders, positions
        self.done = False
        self.since = ""
        self.since_ns = 0
        self.behind = False
        self.finished: Callable[[], None] = lambda: None
        self.caught_up: Callable[[], None] = lambda: None
        self.restate: Callable[[PositionReport], None] = lambda report: None
        self._epoch = 0
        self._number = 0
        self._left: list[Query] = []
        self._asked: Query | None = None
        self._named: set[str] = set()
        self._again = False
        self._rounds = 0
        self._nudged: Query | None = None
        self.asked_ns = 0
        self._follow_ups: dict[str, str] = {}
        self._unknown: dict[str, int] = {}

    def begin(self, *, missed: bool = False) -> None:
        """The link has come up, or something was `missed`: ask, in the second case for the whole session again."""
        self._rounds = 0
        self._unknown = {}
        self._ask_all(missed=missed)

    def _ask_all(self, *, missed: bool) -> None:
        self.done, self._epoch, self._again, self.behind = False, self._gateway.epoch, False, True
        self._named, self._asked, self._follow_ups = set(), None, {}
        self._say()
        self._left = self.questions(missed=missed)
        self._next()

    def questions(self, *, missed: bool) -> list[Query]:
        """What is asked after every logon, in this order."""
        accounts, known_ns = self._config.accounts(), 0 if missed else self.since_ns
        executions = [
            self._query(MsgType.TRADE_CAPTURE_REPORT_REQUEST, account, since_date=self.since, since_ns=known_ns)
            for account in accounts
        ]
        statuses = [self._query(MsgType.ORDER_MASS_STATUS_REQUEST, account) for account in accounts]
        return executions + statuses + [self._query(MsgType.REQUEST_FOR_POSITIONS, account) for account in accounts]

    def unnamed(self, account: str) -> list[Order]:
        """The orders that we hold open and the venue has not named among its open ones."""
        return [
            order
            for order in self._orders.open()
            if order.account == account
            and order.cl_ord_id not in self._named
            and order.root_cl_ord_id not in self._named
        ]

    def stop(self) -> None:
        """The link has gone down: nothing is known any more."""
        self.done, self._asked, self._left, self.behind = False, None, [], False

    def ask_again(self) -> None:
        """Something was missed: go through the questions once more."""
        if self.done:
            self.begin(missed=True)
        elif self._asked is not None:
            self._again = True

    def passed_over(self) -> None:
        """Messages will not come, an answer to a question of ours perhaps among them: all is asked anew."""
        if self.done or self._asked is not None:
            self.begin(missed=True)

    def nudge(self, now_ns: int, patience_ns: int) -> None:
        """A question of ours, or its answer, may have been lost: after a while the questions begin again."""
        if self._asked is None or not self._gateway.up:
            return
        if self._asked is not self._nudged:
            self._nudged, self.asked_ns = self._asked, now_ns
        elif now_ns - self.asked_ns >= patience_ns:
            self.begin()

    def ask_order(self, order: Order) -> None:
        """Ask for one order by itself; the answer is applied whenever it comes."""
        self._gateway.queue(self._status(order))

    def answers(self, report: ExecutionReport | PositionReport) -> bool:
        """Take a message that answers a question of ours; returns whether it was one."""
        if isinstance(report, ExecutionReport) and report.req_id in self._follow_ups:
            self._told(self._follow_ups.pop(report.req_id), report)
            return True
        asked = self._asked
        if not report.req_id:
            return False
        if asked is None or report.req_id != asked.req_id:
            return True  # the answer to a question of an earlier epoch
        if isinstance(report, PositionReport):
            if report.symbol:
                self.restate(report)
        elif report.tot_num_reports != 0 or report.ord_rej_reason is not None:
            self._apply(asked, report)
        if report.last_rpt_requested:
            self._answered(asked)
        return True

    def _apply(self, asked: Query, report: ExecutionReport) -> None:
        if asked.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST:
            self._orders.report(report)
            return
        if asked.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
            self._named.add(report.cl_ord_id)
            self._orders.answered(report)
            return
        self._told(asked.cl_ord_id, report)

    def _told(self, asked: str, report: ExecutionReport) -> None:
        """What the venue said of one order. A single "unknown order" is not believed: venues say it at bad moments."""
        order = self._orders.find(asked)
        if report.ord_rej_reason != _UNKNOWN_ORDER or order is None or not order.is_open:
            self._orders.answered(report)
            return
        self._unknown[order.key] = self._unknown.get(order.key, 0) + 1
        if self._unknown[order.key] <= _UNKNOWN_MAX:
            if self.done:
                self.ask_order(order)
            else:
                self._left.append(self._status(order))
        elif not order.order_id:
            self._unknown.pop(order.key)
            self._orders.answered(report)
        # An order that the venue has acknowledged and does not know any more is for a person: it stays as it is.

    def _answered(self, asked: Query) -> None:
        if self.behind and not any(one.msg_type == MsgType.TRADE_CAPTURE_REPORT_REQUEST for one in self._left):
            self.behind = False
            self.caught_up()
        if asked.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST:
            self._left = [self._status(order) for order in self.unnamed(asked.account)] + self._left
        self._next()

    def _next(self) -> None:
        if self._left:
            self._asked = self._left.pop(0)
            if self._asked.msg_type == MsgType.ORDER_STATUS_REQUEST:
                self._follow_ups.pop(self._asked.req_id, None)
            self._gateway.queue(self._asked)
            return
        self._asked = None
        if self._again and self._rounds < _ROUNDS_MAX:
            self._rounds += 1
            self._ask_all(missed=True)
            return
        self._rounds = 0
        self.done = True
        self._say()
        self.finished()

    def _status(self, order: Order) -> Query:
        query = self._query(
            MsgType.ORDER_STATUS_REQUEST,
            order.account,
            cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            symbol=order.symbol,
        )
        self._follow_ups[query.req_id] = order.key
        return query

    def _query(self, msg_type: MsgType, account: str, **fields: Any) -> Query:
        self._number += 1
        return Query(
            msg_type=msg_type,
            req_id=f"Q{self._epoch}-{self._number}",
            account=account,
            link=self._config.link,
            **fields,
        )

    def _say(self) -> None:
        self._guard.record(self.subsystem, Reconciliation(link=self._config.link, epoch=self._epoch, done=self.done))
