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

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from holdover.model import (
    ExecType,
    Instrument,
    MsgType,
    OrdStatus,
    Outbound,
    Query,
    Request,
    TimeInForce,
)
from holdover.world.book import TopOfBook, WorkingOrder
from holdover.world.clock import VirtualClock
from holdover.world.policy import VenuePolicy
from holdover.world.venue import Venue

_OWNER: Final = "mirror"
_NEVER_RESTS: Final = (TimeInForce.IOC, TimeInForce.FOK)
_CHANGES: Final = (MsgType.ORDER_CANCEL_REQUEST, MsgType.ORDER_CANCEL_REPLACE_REQUEST)

ReportKind = Literal[
    "sent", "new", "rejected", "trade", "filled", "replaced", "canceled", "expired", "refused", "bust", "correct"
]
_NOTICES: Final = ("sent", "filled")
"""Reports about the counterpart that change nothing in the candidate's order."""
_LAST: Final = ("rejected", "filled", "canceled", "expired")
"""Reports after which the counterpart has ended."""


class IncumbentReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One report of the incumbent's order, in lots and ticks. `order` is the ClOrdID that began its chain.

    `sent` is the first sight of the order, before any report. `filled` follows the trade that left nothing to
    fill. `is_requested` marks a `canceled` report that a request caused.
    """

    kind: ReportKind
    order: str
    account: str = ""
    symbol: str = ""
    side: str = ""
    time_ns: int = 0
    last_qty: int = 0
    last_px: int = 0
    exec_id: str = ""
    exec_ref_id: str = ""
    is_requested: bool = False
    text: str = ""


class ReplicationStats(msgspec.Struct, kw_only=True):
    """How well the candidate could follow the incumbent.

    `reports` counts the reports received and `discarded` those that matched nothing. `discarded_qty` is the
    traded lots in them. `unmatched_requests` counts the candidate's requests without a counterpart.
    """

    reports: int = 0
    discarded: int = 0
    discarded_qty: int = 0
    unmatched_requests: int = 0


class _PendingRequest(msgspec.Struct, kw_only=True):
    """A request or query of the candidate without an answer."""

    number: int
    message: Outbound


class _PendingReport(msgspec.Struct, kw_only=True):
    number: int
    report: IncumbentReport


class _ReplicationState(msgspec.Struct, kw_only=True):
    """The state of the replication, in addition to the state of the venue."""

    stats: ReplicationStats = msgspec.field(default_factory=ReplicationStats)
    pending_requests: dict[str, list[_PendingRequest]] = {}
    questions: list[_PendingRequest] = []
    pending_reports: dict[str, list[_PendingReport]] = {}
    number: int = 0
    keys: dict[str, str] = {}
    incumbent_keys: dict[str, str] = {}
    counts: dict[str, int] = {}
    followed_keys: list[str] = []
    ended_keys: dict[str, str] = {}
    exec_keys: dict[str, tuple[str, str]] = {}


class ReplicatingVenue(Venue):
    """A venue that replicates the incumbent's executions; see the module. Pass reports to `apply_report` in order."""

    def __init__(
        self,
        clock: VirtualClock,
        instruments: Iterable[Instrument],
        policy: VenuePolicy | None = None,
        name: str = "VENUE",
        *,
        match: Literal["id", "sequence"] = "id",
        patience_ns: int = 2_000_000_000,
    ) -> None:
        super().__init__(clock, instruments, policy, name)
        self.match, self.patience_ns = match, patience_ns
        self.stats = ReplicationStats()
        self._pending_requests: dict[str, deque[_PendingRequest]] = {}
        self._questions: deque[_PendingRequest] = deque()
        self._pending_reports: dict[str, deque[_PendingReport]] = {}
        self._number = 0
        self._keys_by_root: dict[str, str] = {}
        self._roots_by_key: dict[str, str] = {}
        self._roots_by_request: dict[str, str] = {}
        self._incumbent_keys: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._followed_keys: set[str] = set()
        """Keys whose counterpart may still fill; the market does not fill these orders."""
        self._ended_keys: dict[str, str] = {}
        """Keys whose counterpart has ended, with the kind of the last report."""
        self._exec_keys: dict[str, tuple[str, str]] = {}
        self._is_incumbent_accepted = False
        clock.register(_OWNER, self._timer)

    # -- what the incumbent was told ----------------------------------------------------------------------------

    def apply_report(self, report: IncumbentReport) -> None:
        """Apply one report that the incumbent received now."""
        self.stats.reports += 1
        key = self._incumbent_key(report)
        if key not in self._followed_keys and key not in self._ended_keys:
            self._start_following(key)
        self._number += 1
        number = self._number
        reports = self._pending_reports.setdefault(key, deque())
        reports.append(_PendingReport(number=number, report=report))
        self._process_reports(key)
        if reports and reports[-1].number == number:
            self.clock.set_timer(self.clock.now_ns + self.patience_ns, _OWNER, "report", key, number)

    def _incumbent_key(self, report: IncumbentReport) -> str:
        if self.match == "id":
            return report.order
        key = self._incumbent_keys.get(report.order)
        if key is None:
            key = self._incumbent_keys[report.order] = self._next_key(
                "their", report.account, report.symbol, report.side
            )
        return key

    def _next_key(self, owner: str, account: str, symbol: str, side: str) -> str:
        group = f"{account}/{symbol}/{side}"
        number = self._counts[f"{owner} {group}"] = self._counts.get(f"{owner} {group}", 0) + 1
        return f"{group} #{number}"

    # -- what the candidate asks ----------------------------------------------------------------------------------

    @property
    def unanswered_count(self) -> int:
        """The number of unanswered requests. While it is above 0, client and venue may legitimately differ."""
        return sum(len(requests) for requests in self._pending_requests.values()) + len(self._questions)

    def receive(self, message: Outbound) -> None:
        """Receive a message of the candidate."""
        self._number += 1
        if isinstance(message, Query):
            self._questions.append(_PendingRequest(number=self._number, message=message))
            self._answer_questions()
            return
        root = message.cl_ord_id
        if message.msg_type != MsgType.NEW_ORDER_SINGLE:
            orig = message.orig_cl_ord_id
            root = self._roots_by_request.get(orig) or self.roots.get(orig, orig)
        elif root in self._roots_by_request:
            if not (message.poss_resend and self._roots_by_request[root] == root):  # one answer is enough for a resend
                self._reject(message, 6, f"duplicate order: ClOrdID {root}")
            return
        elif self.find_order(root) is not None:
            super().receive(message)
            return
        key = self._candidate_key(root, message)
        self._roots_by_request[message.cl_ord_id] = root
        number = self._number
        self._pending_requests.setdefault(key, deque()).append(_PendingRequest(number=number, message=message))
        self._process_reports(key)
        if any(request.number == number for request in self._pending_requests.get(key, ())):
            self.clock.set_timer(self.clock.now_ns + self.patience_ns, _OWNER, "request", key, number)

    def _candidate_key(self, root: str, request: Request) -> str:
        key = self._keys_by_root.get(root)
        if key is None:
            key = root
            if request.msg_type != MsgType.NEW_ORDER_SINGLE:
                return key  # it changes an order that this venue does not have
            if self.match == "sequence":
                key = self._next_key("own", request.account, request.symbol, request.side.value)
            self._keys_by_root[root], self._roots_by_key[key] = key, root
        return key

    def _key_of(self, order: WorkingOrder) -> str:
        return self._keys_by_root.get(order.root_cl_ord_id, order.root_cl_ord_id)

    def _order_of(self, key: str) -> WorkingOrder | None:
        return self.orders.get(self._roots_by_key.get(key, key))

    def _answer_request(self, key: str, *, is_unmatched: bool = False) -> None:
        """Answer the first waiting request by the venue's own rules."""
        self.stats.unmatched_requests += is_unmatched
        self._is_incumbent_accepted = not is_unmatched
        super().receive(self._pop_request(key))
        self._is_incumbent_accepted = False
        if key in self._followed_keys:
            self._remove_from_book(self._order_of(key))

    def _pop_request(self, key: str) -> Request:
        requests = self._pending_requests[key]
        request = requests.popleft().message
        assert isinstance(request, Request)
        if not requests:
            del self._pending_requests[key]
        self._roots_by_request.pop(request.cl_ord_id, None)
        return request

    def _answer_questions(self) -> None:
        for question in list(self._questions):
            account = question.message.account
            earlier_requests = (
                request
                for requests in self._pending_requests.values()
                for request in requests
                if request.number < question.number
            )
            if all(request.message.account != account for request in earlier_requests):
                self._questions.remove(question)
                super().receive(question.message)

    def _closed_reason(self, book: TopOfBook) -> str:
        # The incumbent's order was accepted, so the order of events in two feeds must not close the book here.
        return "" if self._is_incumbent_accepted and self.is_open else super()._closed_reason(book)

    # -- whom the market fills --------------------------------------------------------------------------------------

    def _start_following(self, key: str) -> None:
        """Fill this order from the incumbent's executions only."""
        self._followed_keys.add(key)
        self._ended_keys.pop(key, None)
        self._remove_from_book(self._order_of(key))

    def _stop_following(self, key: str, end_kind: str) -> None:
        """The counterpart has ended: match the open remainder of the candidate's order against the market."""
        self._followed_keys.discard(key)
        self._ended_keys[key] = end_kind
        order = self._order_of(key)
        if order is None or not order.is_open:
            return
        book = self.books[order.symbol]
        book.remove_order(order)
        if not order.is_triggered:
            book.stops.append(order)
        elif order.time_in_force in _NEVER_RESTS:
            self._enter_order(book, order)
        else:
            book.add_order(order)

    def _remove_from_book(self, order: WorkingOrder | None) -> None:
        if order is not None:
            self.books[order.symbol].remove_order(order)

    def _enter_order(self, book: TopOfBook, order: WorkingOrder) -> None:
        if self._key_of(order) not in self._followed_keys:
            super()._enter_order(book, order)

    def _amend_trade(self, exec_id: str, trade_date: str, replacement: tuple[int, int] | None) -> bool:
        is_amended = super()._amend_trade(exec_id, trade_date, replacement)
        order = self.find_order(self.trades[-1].cl_ord_id) if is_amended else None
        if order is not None and self._key_of(order) in self._followed_keys:
            self._remove_from_book(order)
        return is_amended

    # -- one against the other --------------------------------------------------------------------------------------

    def _process_reports(self, key: str) -> None:
        """Apply the waiting reports of a key in order, as far as possible."""
        reports = self._pending_reports.get(key)
        while reports and self._try_apply(key, reports[0].report):
            report = reports.popleft().report
            if report.kind in _LAST:
                self._stop_following(key, report.kind)
        if reports is not None and not reports:
            self._pending_reports.pop(key, None)
        self._answer_questions()

    def _first_request_of(self, key: str, *kinds: MsgType) -> Request | None:
        requests = self._pending_requests.get(key)
        first = requests[0].message if requests else None
        return first if isinstance(first, Request) and first.msg_type in kinds else None

    def _try_apply(self, key: str, report: IncumbentReport) -> bool:
        """Return whether a report is done with; False when it has to wait for the candidate."""
        if report.kind in _NOTICES:
            return True
        order = self._order_of(key)
        if report.kind == "rejected":
            return self._apply_rejection(key, order, report)
        if report.kind == "refused":
            return self._apply_refusal(key, order)
        if order is None:
            if self._first_request_of(key, MsgType.NEW_ORDER_SINGLE) is None:
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
            if self._first_request_of(key, MsgType.ORDER_CANCEL_REPLACE_REQUEST) is None:
                return False
            self._answer_request(key)
            return True
        return self._apply_cancel(key, order) if report.is_requested else self._apply_unrequested_end(order, report)

    def _apply_rejection(self, key: str, order: WorkingOrder | None, report: IncumbentReport) -> bool:
        request = self._first_request_of(key, MsgType.NEW_ORDER_SINGLE)
        if order is not None:  # accepted by the venue's own rules after the patience
            self.cancel_order(order.cl_ord_id)
            return True
        if request is None:
            return False
        self._pop_request(key)
        self._reject(request, 99, report.text or "rejected, as the incumbent's was")
        return True

    def _apply_trade_report(self, key: str, order: WorkingOrder, report: IncumbentReport) -> None:
        if (report.symbol or order.symbol, report.side or order.side) != (order.symbol, order.side):
            self._count_discarded(report)  # another order with the same key
            return
        if report.kind == "trade":
            self._apply_fill(key, order, report)
            return
        if self._ended_keys.get(key) == "filled":
            self._start_following(key)  # a bust or correction reopens the quantity
        exec_id, trade_date = self._exec_keys.get(report.exec_ref_id, ("", ""))
        trade_report = next(
            (trade for trade in self.trades if (trade.exec_id, trade.trade_date) == (exec_id, trade_date)), None
        )
        is_applied = False
        if trade_report is not None and report.kind == "bust":
            is_applied = self.bust_trade(exec_id, trade_date)
        elif trade_report is not None:
            quantity_max = trade_report.last_qty + max(order.order_qty - order.cum_qty, 0)
            is_applied = self.correct_trade(
                exec_id, max(min(report.last_qty, quantity_max), 0), report.last_px, trade_date
            )
        if is_applied and report.exec_id:
            self._exec_keys[report.exec_id] = (self.last_exec_id, self.trade_date)
        self.stats.discarded += not is_applied

    def _apply_fill(self, key: str, order: WorkingOrder, report: IncumbentReport) -> None:
        # A fill can cross the cancel and be reported after it; both belong to the incumbent.
        is_late = order.ord_status == OrdStatus.CANCELED and self._ended_keys.get(key) == "canceled"
        quantity_max = order.order_qty - order.cum_qty if is_late else order.leaves_qty
        quantity = max(min(report.last_qty, quantity_max), 0)
        if quantity < report.last_qty:
            self.stats.discarded += 1
            self.stats.discarded_qty += report.last_qty - quantity
        if not quantity:
            return
        if is_late:
            self.late_fill(order.cl_ord_id, quantity, report.last_px)
        else:
            self._fill(order, quantity, report.last_px)
        if report.exec_id:
            self._exec_keys[report.exec_id] = (self.last_exec_id, self.trade_date)

    def _apply_refusal(self, key: str, order: WorkingOrder | None) -> bool:
        request = self._first_request_of(key, *_CHANGES)
        if request is None:
            return False
        self._pop_request(key)
        self._send_cancel_reject(request, order, "1" if request.msg_type == MsgType.ORDER_CANCEL_REQUEST else "2")
        return True

    def _apply_cancel(self, key: str, order: WorkingOrder) -> bool:
        """Apply a requested cancel. It waits until the candidate has requested a cancel too."""
        kinds = [request.message.msg_type for request in self._pending_requests.get(key, ())]
        if MsgType.ORDER_CANCEL_REQUEST not in kinds:
            return not order.is_open
        # Requests of the candidate before its cancel were not granted to the incumbent.
        while self._first_request_of(key, MsgType.ORDER_CANCEL_REQUEST) is None:
            self._send_cancel_reject(self._pop_request(key), order, "2")
        self._answer_request(key)
        return True

    def _apply_unrequested_end(self, order: WorkingOrder, report: IncumbentReport) -> bool:
        """Apply a cancel or expiry that no request caused. Later requests of the candidate are too late."""
        expired = report.kind == "expired"
        at_the_close = self.clock.now_ns >= self.close_ns and order.time_in_force not in _NEVER_RESTS
        if order.is_open and not (expired and at_the_close):  # the venue's own close handles an expiry at the close
            self._close_order(
                order,
                OrdStatus.EXPIRED if expired else OrdStatus.CANCELED,
                ExecType.EXPIRED if expired else ExecType.CANCELED,
            )
        return True

    # -- when nothing comes -----------------------------------------------------------------------------------------

    def _timer(self, name: str, args: tuple[Any, ...]) -> None:
        key, number = args
        if name == "request":
            while key in self._pending_requests and self._pending_requests[key][0].number <= number:
                self._answer_request(key, is_unmatched=True)
        else:
            self._discard_reports(key, number)
        self._process_reports(key)

    def _discard_reports(self, key: str, number: int) -> None:
        """Discard the reports up to this number, whose patience is over."""
        reports = self._pending_reports.get(key)
        while reports and reports[0].number <= number:
            report = reports.popleft().report
            if report.kind not in _NOTICES:
                self._count_discarded(report)
            if report.kind in _LAST:
                self._stop_following(key, report.kind)
        if reports is not None and not reports:
            self._pending_reports.pop(key, None)

    def _count_discarded(self, report: IncumbentReport) -> None:
        self.stats.discarded += 1
        if report.kind == "trade":
            self.stats.discarded_qty += max(report.last_qty, 0)

    def end(self) -> None:
        """End the day: answer the waiting requests and discard the waiting reports."""
        for key in list(self._pending_requests):
            while key in self._pending_requests:
                self._answer_request(key, is_unmatched=True)
            self._process_reports(key)
        for key in list(self._pending_reports):
            self._discard_reports(key, self._number)
        self._answer_questions()
        super().end()

    # -- memory -------------------------------------------------------------------------------------------------

    def _replication_bytes(self) -> bytes:
        return msgspec.msgpack.encode(
            _ReplicationState(
                stats=self.stats,
                pending_requests={key: list(requests) for key, requests in self._pending_requests.items()},
                questions=list(self._questions),
                pending_reports={key: list(waiting) for key, waiting in self._pending_reports.items()},
                number=self._number,
                keys=self._keys_by_root,
                incumbent_keys=self._incumbent_keys,
                counts=self._counts,
                followed_keys=sorted(self._followed_keys),
                ended_keys=self._ended_keys,
                exec_keys=self._exec_keys,
            )
        )

    def _restore_replication(self, content: bytes) -> None:
        state = msgspec.msgpack.decode(content, type=_ReplicationState)
        self.stats, self._number = state.stats, state.number
        self._pending_requests = {key: deque(requests) for key, requests in state.pending_requests.items()}
        self._questions = deque(state.questions)
        self._pending_reports = {key: deque(waiting) for key, waiting in state.pending_reports.items()}
        self._keys_by_root, self._incumbent_keys, self._counts = state.keys, state.incumbent_keys, state.counts
        self._followed_keys, self._ended_keys, self._exec_keys = (
            set(state.followed_keys),
            state.ended_keys,
            state.exec_keys,
        )
        self._roots_by_key = {key: root for root, key in self._keys_by_root.items()}
        self._roots_by_request = {
            request.message.cl_ord_id: self._roots_by_key.get(key, key)
            for key, requests in self._pending_requests.items()
            for request in requests
        }

    def checkpoint(self) -> Any:
        """Return a checkpoint for `rollback` in the same process."""
        return super().checkpoint(), self._replication_bytes()

    def rollback(self, checkpoint: Any) -> None:
        """Restore the state of a checkpoint."""
        venue, replication = checkpoint
        super().rollback(venue)
        self._restore_replication(replication)

    def to_bytes(self) -> bytes:
        """Return the state of the venue and of the replication as bytes."""
        return msgspec.msgpack.encode([super().to_bytes(), self._replication_bytes()])

    def restore_bytes(self, state: bytes) -> None:
        """Restore the state from bytes; those of a plain venue are accepted too.

        Raises `msgspec.MsgspecError` when they are damaged.
        """
        content = msgspec.msgpack.decode(state)
        if isinstance(content, list):
            super().restore_bytes(content[0])
            self._restore_replication(content[1])
            return
        super().restore_bytes(state)
        for root in self.orders:  # both begin with these orders, so they match by name
            self._keys_by_root[root] = self._roots_by_key[root] = self._incumbent_keys[root] = root
