"""A venue that gives a candidate the executions that another venue gave an incumbent.

The candidate's orders go to this venue only. Each request waits for the incumbent's report of the same
request and gets the same answer: accepted, rejected, replaced, cancelled or refused. Trades, busts and
corrections of the incumbent's order apply to the candidate's order. After `patience_ns` without a report, the
venue answers by its own rules. An order without a counterpart, or with one that has ended, matches against
the market. A query waits until the earlier requests of its account are answered.

Orders are matched by the ClOrdID that began their chain, or (`sequence`) by their position among the orders
of one account, symbol and side. A report that matches no request or order within the patience is discarded
and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from holdover.model import (
    ExecType,
    ImpossibleStateError,
    Instrument,
    MsgType,
    OrdStatus,
    Outbound,
    Query,
    TimeInForce,
)
from holdover.state import Stateful
from holdover.world.book import TopOfBook, WorkingOrder
from holdover.world.clock import VirtualClock
from holdover.world.counterparts import (
    LAST_KINDS,
    NOTICE_KINDS,
    Counterparts,
    IncumbentReport,
    Match,
    PendingReport,
    PendingRequest,
    ReplicationStats,
)
from holdover.world.policy import VenuePolicy
from holdover.world.venue import Venue

_OWNER: Final = "mirror"
_COUNTERPARTS: Final = "counterparts"
_NEVER_RESTS: Final = (TimeInForce.IOC, TimeInForce.FOK)
_CHANGES: Final = (MsgType.ORDER_CANCEL_REQUEST, MsgType.ORDER_CANCEL_REPLACE_REQUEST)


class ReplicatingVenue(Venue):
    """A venue that replicates the incumbent's executions; see the module. Pass reports to `apply_report` in order."""

    DERIVED: ClassVar = {
        "patience_ns": "configuration, set once",
        "clock": "a part of the world that saves itself",
        "counterparts": "a part that saves itself",
        "_is_incumbent_accepted": "is set only while one request is answered",
    }

    def __init__(
        self,
        clock: VirtualClock,
        instruments: Iterable[Instrument],
        policy: VenuePolicy | None = None,
        *,
        match: Match = "id",
        patience_ns: int = 2_000_000_000,
    ) -> None:
        super().__init__(clock, instruments, policy)
        if patience_ns < 0:
            raise ValueError(f"the patience is {patience_ns} ns, should be from 0 on")
        self.clock, self.patience_ns = clock, patience_ns
        self.counterparts = Counterparts(match)
        self._is_incumbent_accepted = False
        self.matching.is_excluded = self._is_followed
        clock.register(_OWNER, self._timer)

    @property
    def stats(self) -> ReplicationStats:
        """How well the candidate could follow the incumbent."""
        return self.counterparts.stats

    # -- what the incumbent was told ----------------------------------------------------------------------------

    def apply_report(self, report: IncumbentReport) -> None:
        """Apply one report that the incumbent received now."""
        self.counterparts.count(reports=1)
        key = self.counterparts.incumbent_key(report)
        if key not in self.counterparts.followed_keys and key not in self.counterparts.ended_keys:
            self._start_following(key)
        number = self.counterparts.next_number()
        reports = self.counterparts.pending_reports.setdefault(key, [])
        reports.append(PendingReport(number=number, report=report))
        self._process_reports(key)
        if reports and reports[-1].number == number:
            self.clock.set_timer(self.clock.now_ns + self.patience_ns, _OWNER, "report", key, number)

    # -- what the candidate asks ----------------------------------------------------------------------------------

    @property
    def unanswered_count(self) -> int:
        """The number of unanswered requests. While it is above 0, client and venue may legitimately differ."""
        return self.counterparts.unanswered_count

    def receive(self, message: Outbound) -> None:
        """Receive a message of the candidate."""
        number = self.counterparts.next_number()
        if isinstance(message, Query):
            self.counterparts.questions.append(PendingRequest(number=number, message=message))
            self._answer_questions()
            return
        root, roots_by_request = message.cl_ord_id, self.counterparts.roots_by_request
        if message.msg_type != MsgType.NEW_ORDER_SINGLE:
            orig = message.orig_cl_ord_id
            root = roots_by_request.get(orig) or self.roots.get(orig, orig)
        elif root in roots_by_request:
            if not (message.poss_resend and roots_by_request[root] == root):  # one answer is enough for a resend
                self.reports.send_rejection(message, 6, f"duplicate order: ClOrdID {root}")
            return
        elif self.find_order(root) is not None:
            super().receive(message)
            return
        key = self.counterparts.candidate_key(root, message)
        self.counterparts.add_request(key, root, message, number)
        self._process_reports(key)
        if self.counterparts.is_waiting(key, number):
            self.clock.set_timer(self.clock.now_ns + self.patience_ns, _OWNER, "request", key, number)

    def _is_followed(self, order: WorkingOrder) -> bool:
        return self.counterparts.key_of(order.root_cl_ord_id) in self.counterparts.followed_keys

    def _order_of(self, key: str) -> WorkingOrder | None:
        return self.orders.get(self.counterparts.root_of(key))

    def _answer_request(self, key: str, *, is_unmatched: bool = False) -> None:
        """Answer the first waiting request by the venue's own rules."""
        self.counterparts.count(unmatched_requests=is_unmatched)
        self._is_incumbent_accepted = not is_unmatched
        super().receive(self.counterparts.pop_request(key))
        self._is_incumbent_accepted = False
        if key in self.counterparts.followed_keys:
            self._remove_from_book(self._order_of(key))

    def _answer_questions(self) -> None:
        for question in self.counterparts.answerable_questions():
            self.counterparts.questions.remove(question)
            super().receive(question.message)

    def closed_reason(self, book: TopOfBook) -> str:
        """See `Venue.closed_reason`; the incumbent's order was accepted."""
        # The order of events in two feeds must not close the book here.
        return "" if self._is_incumbent_accepted and self.is_open else super().closed_reason(book)

    # -- whom the market fills --------------------------------------------------------------------------------------

    def _start_following(self, key: str) -> None:
        """Fill this order from the incumbent's executions only."""
        self.counterparts.followed_keys.add(key)
        self.counterparts.ended_keys.pop(key, None)
        self._remove_from_book(self._order_of(key))

    def _stop_following(self, key: str, end_kind: str) -> None:
        """The counterpart has ended: match the open remainder of the candidate's order against the market."""
        if end_kind not in LAST_KINDS:
            raise ImpossibleStateError(f"order {key} cannot end with {end_kind!r}, should be {', '.join(LAST_KINDS)}")
        self.counterparts.followed_keys.discard(key)
        self.counterparts.ended_keys[key] = end_kind
        order = self._order_of(key)
        if order is None or not order.is_open:
            return
        book = self.books[order.symbol]
        book.remove_order(order)
        if order.is_triggered and order.fillable_qty and order.time_in_force in _NEVER_RESTS:
            self.matching.enter_order(order)
        else:
            self.matching.rest_order(order)

    def _remove_from_book(self, order: WorkingOrder | None) -> None:
        if order is not None:
            self.books[order.symbol].remove_order(order)

    # -- one against the other --------------------------------------------------------------------------------------

    def _process_reports(self, key: str) -> None:
        """Apply the waiting reports of a key in order, as far as possible."""
        reports = self.counterparts.pending_reports.get(key)
        while reports and self._try_apply(key, reports[0].report):
            report = reports.pop(0).report
            if report.kind in LAST_KINDS:
                self._stop_following(key, report.kind)
        if reports is not None and not reports:
            self.counterparts.pending_reports.pop(key, None)
        self._answer_questions()

    def _try_apply(self, key: str, report: IncumbentReport) -> bool:
        """Return whether a report is done with; False when it has to wait for the candidate."""
        if report.kind in NOTICE_KINDS:
            return True
        order = self._order_of(key)
        if report.kind == "rejected":
            return self._apply_rejection(key, order, report)
        if report.kind == "refused":
            return self._apply_refusal(key, order)
        if order is None:
            if self.counterparts.first_request(key, MsgType.NEW_ORDER_SINGLE) is None:
                return False
            self._answer_request(key)
            order = self._order_of(key)
            if order is None:
                return True  # rejected by this venue's own rules
        if report.kind == "new":
            return True
        if report.kind in ("trade", "bust", "correct"):
            self._apply_trade_report(key, order, report)
            return True
        if report.kind == "replaced":
            if self.counterparts.first_request(key, MsgType.ORDER_CANCEL_REPLACE_REQUEST) is None:
                return False
            self._answer_request(key)
            return True
        if report.kind not in ("canceled", "expired"):
            raise ImpossibleStateError(f"a report of kind {report.kind!r} about order {key} cannot be applied")
        return self._apply_cancel(key, order) if report.is_requested else self._apply_unrequested_end(order, report)

    def _apply_rejection(self, key: str, order: WorkingOrder | None, report: IncumbentReport) -> bool:
        request = self.counterparts.first_request(key, MsgType.NEW_ORDER_SINGLE)
        if order is not None:  # accepted by the venue's own rules after the patience
            self.cancel_order(order.cl_ord_id)
            return True
        if request is None:
            return False
        self.counterparts.pop_request(key)
        self.reports.send_rejection(request, 99, report.text or "rejected, as the incumbent's was")
        return True

    def _apply_trade_report(self, key: str, order: WorkingOrder, report: IncumbentReport) -> None:
        if (report.symbol or order.symbol, report.side or order.side) != (order.symbol, order.side):
            self._count_discarded(report)  # another order with the same key
            return
        if report.kind == "trade":
            self._apply_fill(key, order, report)
            return
        if self.counterparts.ended_keys.get(key) == "filled":
            self._start_following(key)  # a bust or correction reopens the quantity
        exec_id, trade_date = self.counterparts.exec_keys.get(report.exec_ref_id, ("", ""))
        trade_report = self.lifecycle.find_trade(exec_id, trade_date)
        is_applied = False
        if trade_report is not None and report.kind == "bust":
            is_applied = self.bust_trade(exec_id, trade_date)
        elif trade_report is not None:
            quantity_max = trade_report.last_qty + max(order.order_qty - order.cum_qty, 0)
            is_applied = self.correct_trade(
                exec_id, max(min(report.last_qty, quantity_max), 0), report.last_px, trade_date
            )
        if is_applied and report.exec_id:
            self.counterparts.exec_keys[report.exec_id] = (self.reports.last_exec_id, self.trade_date)
        self.counterparts.count(discarded=not is_applied)

    def _apply_fill(self, key: str, order: WorkingOrder, report: IncumbentReport) -> None:
        # A fill can cross the cancel and be reported after it; both belong to the incumbent.
        is_late = order.ord_status == OrdStatus.CANCELED and self.counterparts.ended_keys.get(key) == "canceled"
        quantity_max = order.order_qty - order.cum_qty if is_late else order.leaves_qty
        quantity = max(min(report.last_qty, quantity_max), 0)
        if quantity < report.last_qty:
            self.counterparts.count(discarded=1, discarded_qty=report.last_qty - quantity)
        if not quantity:
            return
        if is_late:
            self.late_fill(order.cl_ord_id, quantity, report.last_px)
        else:
            self.lifecycle.fill(order, quantity, report.last_px)
        if report.exec_id:
            self.counterparts.exec_keys[report.exec_id] = (self.reports.last_exec_id, self.trade_date)

    def _apply_refusal(self, key: str, order: WorkingOrder | None) -> bool:
        request = self.counterparts.first_request(key, *_CHANGES)
        if request is None:
            return False
        self.counterparts.pop_request(key)
        response_to = "1" if request.msg_type == MsgType.ORDER_CANCEL_REQUEST else "2"
        self.reports.send_cancel_reject(request, order, response_to)
        return True

    def _apply_cancel(self, key: str, order: WorkingOrder) -> bool:
        """Apply a requested cancel. It waits until the candidate has requested a cancel too."""
        kinds = [request.message.msg_type for request in self.counterparts.pending_requests.get(key, ())]
        if MsgType.ORDER_CANCEL_REQUEST not in kinds:
            return not order.is_open
        # Requests of the candidate before its cancel were not granted to the incumbent.
        while self.counterparts.first_request(key, MsgType.ORDER_CANCEL_REQUEST) is None:
            self.reports.send_cancel_reject(self.counterparts.pop_request(key), order, "2")
        self._answer_request(key)
        return True

    def _apply_unrequested_end(self, order: WorkingOrder, report: IncumbentReport) -> bool:
        """Apply a cancel or expiry that no request caused. Later requests of the candidate are too late."""
        expired = report.kind == "expired"
        at_the_close = self.clock.now_ns >= self.close_ns and order.time_in_force not in _NEVER_RESTS
        if order.is_open and not (expired and at_the_close):  # the venue's own close handles an expiry at the close
            self.lifecycle.close_order(
                order,
                OrdStatus.EXPIRED if expired else OrdStatus.CANCELED,
                ExecType.EXPIRED if expired else ExecType.CANCELED,
            )
        return True

    # -- when nothing comes -----------------------------------------------------------------------------------------

    def _timer(self, name: str, args: tuple[Any, ...]) -> None:
        key, number = args
        if name == "request":
            while (
                key in self.counterparts.pending_requests
                and self.counterparts.pending_requests[key][0].number <= number
            ):
                self._answer_request(key, is_unmatched=True)
        elif name == "report":
            self._discard_reports(key, number)
        else:
            raise ImpossibleStateError(f"the replicating venue has no timer called {name!r}")
        self._process_reports(key)

    def _discard_reports(self, key: str, number: int) -> None:
        """Discard the reports up to this number, whose patience is over."""
        reports = self.counterparts.pending_reports.get(key)
        while reports and reports[0].number <= number:
            report = reports.pop(0).report
            if report.kind not in NOTICE_KINDS:
                self._count_discarded(report)
            if report.kind in LAST_KINDS:
                self._stop_following(key, report.kind)
        if reports is not None and not reports:
            self.counterparts.pending_reports.pop(key, None)

    def _count_discarded(self, report: IncumbentReport) -> None:
        quantity = max(report.last_qty, 0) if report.kind == "trade" else 0
        self.counterparts.count(discarded=1, discarded_qty=quantity)

    def end(self) -> None:
        """End the day: answer the waiting requests and discard the waiting reports."""
        for key in list(self.counterparts.pending_requests):
            while key in self.counterparts.pending_requests:
                self._answer_request(key, is_unmatched=True)
            self._process_reports(key)
        for key in list(self.counterparts.pending_reports):
            self._discard_reports(key, self.counterparts.last_number)
        self._answer_questions()
        super().end()

    # -- state --------------------------------------------------------------------------------------------------

    def parts(self) -> Mapping[str, Stateful[Any]]:
        """Return the parts that have state: those of the venue, and the counterparts."""
        return {**super().parts(), _COUNTERPARTS: self.counterparts}

    def _restore_parts(self, content: dict[str, bytes]) -> None:
        is_plain = _COUNTERPARTS not in content  # the state of a plain venue: both sides begin with its orders
        if is_plain:
            content = content | {_COUNTERPARTS: Counterparts(self.counterparts.match).to_bytes()}
        super()._restore_parts(content)
        if is_plain:
            self.counterparts.adopt_roots(self.orders)
