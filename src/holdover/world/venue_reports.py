"""What a venue says: execution reports to its clients, and changed records to whoever observes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import msgspec

from holdover.model import (
    TRADES,
    CancelReject,
    ExecType,
    ExecutionReport,
    ImpossibleStateError,
    Inbound,
    OrdStatus,
    Record,
    Request,
    SecurityStatus,
)
from holdover.model import Book as BookRecord
from holdover.state import StateError, Stateful
from holdover.world.book import TopOfBook, WorkingOrder
from holdover.world.clock import VirtualClock


class VenueReportsState(msgspec.Struct):
    """The state of `VenueReports`."""

    trade_date: str
    exec_number: int
    last_exec_id: str


class VenueReports(Stateful[VenueReportsState]):
    """Numbers the executions of a venue, and sends reports to the accounts that they belong to.

    `observe` is called with each changed record, `on_trade` after each report of a trade, bust or correction.
    """

    State = VenueReportsState
    DERIVED: ClassVar = {
        "clock": "a part of the world that saves itself",
        "observe": "a hook of whoever observes the venue, set again in each process",
        "on_trade": "a function of the venue's accounts, set by them",
        "receivers": "the clients' callbacks, attached again in each process",
    }

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.observe: Callable[[Record], None] = lambda record: None
        self.on_trade: Callable[[ExecutionReport], None] = lambda report: None
        self.receivers: dict[str, Callable[[Inbound], None]] = {}
        self.trade_date = ""
        self.last_exec_id = ""
        self._exec_number = 0

    def attach(self, accounts: Iterable[str], deliver: Callable[[Inbound], None]) -> None:
        """Set who receives the messages of these accounts."""
        for account in accounts:
            self.receivers[account] = deliver

    def begin(self, trade_date: str, *, exec_ids_restart: bool) -> None:
        """Begin a trading day; ExecIDs may restart with it."""
        if not trade_date:
            raise ValueError("the reports of a day need its trade date")
        self.trade_date = trade_date
        if exec_ids_restart:
            self._exec_number = 0

    def send(self, account: str, message: Inbound) -> None:
        """Send a message to whoever receives those of the account."""
        deliver = self.receivers.get(account)
        if deliver is not None:
            deliver(message)

    def observe_order(self, order: WorkingOrder) -> None:
        """Pass an order's record to the observer."""
        self.observe(order.to_record())

    def send_change(self, order: WorkingOrder, exec_type: ExecType, **fields: Any) -> ExecutionReport:
        """Report a change of an order under a new ExecID; return the report."""
        report = self._report(order, exec_type, self._next_exec_id(), **fields)
        order.exec_type, order.exec_id, order.exec_ref_id = exec_type, report.exec_id, report.exec_ref_id
        self.observe_order(order)
        self.send(order.account, report)
        if exec_type in TRADES:
            self.on_trade(report)
        return report

    def send_pending(self, order: WorkingOrder, request: Request, exec_type: ExecType, status: OrdStatus) -> None:
        """Report that a request on an order has arrived and waits."""
        report = self._report(order, exec_type, self._next_exec_id(), cl_ord_id=request.cl_ord_id, status=status)
        self.send(order.account, report)

    def status_report(self, order: WorkingOrder, **fields: Any) -> ExecutionReport:
        """Return a status report (ExecType Order Status, ExecID 0), which changes nothing."""
        return self._report(order, ExecType.ORDER_STATUS, "0", **fields)

    def _report(self, order: WorkingOrder, exec_type: ExecType, exec_id: str, **fields: Any) -> ExecutionReport:
        return order.to_report(
            exec_type, exec_id, trade_date=self.trade_date, transact_time_ns=self.clock.now_ns, **fields
        )

    def send_rejection(self, request: Request, reason: int, text: str) -> None:
        """Reject a new order. `reason` is OrdRejReason (103)."""
        if reason < 0 or not text:
            raise ImpossibleStateError(
                f"request {request.cl_ord_id} is rejected for reason {reason} with text {text!r}"
            )
        rejection = request.to_rejection(
            self._next_exec_id(),
            trade_date=self.trade_date,
            transact_time_ns=self.clock.now_ns,
            ord_rej_reason=reason,
            text=text,
        )
        self.send(request.account, rejection)

    def send_cancel_reject(self, request: Request, order: WorkingOrder | None, response_to: str) -> None:
        """Refuse a cancel (`response_to` 1) or a replace (2). Source: FIX 4.4, CxlRejResponseTo (434)."""
        if response_to not in ("1", "2"):
            raise ImpossibleStateError(f"request {request.cl_ord_id} is refused as {response_to!r}, should be 1 or 2")
        self.send(
            request.account,
            CancelReject(
                cl_ord_id=request.cl_ord_id,
                orig_cl_ord_id=request.orig_cl_ord_id,
                ord_status=order.ord_status if order else OrdStatus.REJECTED,
                account=request.account,
                order_id=order.order_id if order else "NONE",
                cxl_rej_reason=0 if order else 1,
                cxl_rej_response_to=response_to,
                text="too late" if order else "unknown order",
            ),
        )

    def publish_status(self, book: TopOfBook) -> None:
        """Report a book's trading status to the observer and, once each, to every receiver."""
        symbol = book.instrument.symbol
        self.observe(
            BookRecord(
                symbol=symbol,
                trading=book.trading,
                reason=book.reason,
                reference_version=book.reference_version,
                transact_time_ns=self.clock.now_ns,
            )
        )
        status = SecurityStatus(
            symbol=symbol,
            trading=book.trading,
            reason=book.reason,
            trade_date=self.trade_date,
            reference_version=book.reference_version,
        )
        for deliver in dict.fromkeys(self.receivers.values()):
            deliver(status)

    def take_state(self, state: VenueReportsState) -> None:
        """Take over a decoded state. Raises `StateError` when the last ExecID is not one that was given."""
        number = state.last_exec_id.removeprefix("E")
        if state.exec_number < 0 or (state.last_exec_id and not number.isdigit()):
            raise StateError(
                f"the stored state of VenueReports is damaged: {state.exec_number} executions, the last one "
                f"{state.last_exec_id!r}"
            )
        super().take_state(state)

    def _next_exec_id(self) -> str:
        self._exec_number += 1
        self.last_exec_id = f"E{self._exec_number}"
        return self.last_exec_id
