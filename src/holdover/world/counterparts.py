"""Who is whose counterpart: the orders of a candidate and of an incumbent, and what each side still waits for.

Orders are matched by the ClOrdID that began their chain, or (`sequence`) by their position among the orders of one
account, symbol and side.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final, Literal, get_args

import msgspec

from holdover.model import ImpossibleStateError, MsgType, Outbound, Request
from holdover.state import StateError, Stateful

Match = Literal["id", "sequence"]
"""How the orders of the two sides are matched."""

ReportKind = Literal[
    "sent", "new", "rejected", "trade", "filled", "replaced", "canceled", "expired", "refused", "bust", "correct"
]
NOTICE_KINDS: Final = ("sent", "filled")
"""Reports about the counterpart that change nothing in the candidate's order."""
LAST_KINDS: Final = ("rejected", "filled", "canceled", "expired")
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


class ReplicationStats(msgspec.Struct, frozen=True, kw_only=True):
    """How well the candidate could follow the incumbent.

    `reports` counts the reports received and `discarded` those that matched nothing. `discarded_qty` is the
    traded lots in them. `unmatched_requests` counts the candidate's requests without a counterpart.
    """

    reports: int = 0
    discarded: int = 0
    discarded_qty: int = 0
    unmatched_requests: int = 0


class PendingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request or query of the candidate without an answer."""

    number: int
    message: Outbound


class PendingReport(msgspec.Struct, frozen=True, kw_only=True):
    """A report of the incumbent that no request or order of the candidate matches yet."""

    number: int
    report: IncumbentReport


class CounterpartsState(msgspec.Struct):
    """The state of `Counterparts`."""

    stats: ReplicationStats
    pending_requests: dict[str, list[PendingRequest]]
    questions: list[PendingRequest]
    pending_reports: dict[str, list[PendingReport]]
    number: int
    keys_by_root: dict[str, str]
    incumbent_keys: dict[str, str]
    counts: dict[str, int]
    followed_keys: set[str]
    ended_keys: dict[str, str]
    exec_keys: dict[str, tuple[str, str]]


class Counterparts(Stateful[CounterpartsState]):
    """Matches orders of the candidate with those of the incumbent.

    A key names the two orders. `followed_keys` are those whose counterpart may still fill, so that the market does not
    fill the order; `ended_keys` those whose counterpart has ended, with the kind of its last report. `exec_keys` maps
    the incumbent's ExecIDs to (ExecID, trade date) at this venue.
    """

    State = CounterpartsState
    DERIVED: ClassVar = {
        "match": "configuration, set once",
        "roots_by_key": "the inverse of keys_by_root",
        "roots_by_request": "follows from the waiting requests",
    }

    def __init__(self, match: Match) -> None:
        if match not in get_args(Match):
            raise ValueError(f"orders are matched by {match!r}, should be {' or '.join(get_args(Match))}")
        self.match = match
        self.stats = ReplicationStats()
        self.pending_requests: dict[str, list[PendingRequest]] = {}
        self.questions: list[PendingRequest] = []
        self.pending_reports: dict[str, list[PendingReport]] = {}
        self.keys_by_root: dict[str, str] = {}
        self.roots_by_key: dict[str, str] = {}
        self.roots_by_request: dict[str, str] = {}
        self.incumbent_keys: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.followed_keys: set[str] = set()
        self.ended_keys: dict[str, str] = {}
        self.exec_keys: dict[str, tuple[str, str]] = {}
        self._number = 0

    def count(
        self, *, reports: int = 0, discarded: int = 0, discarded_qty: int = 0, unmatched_requests: int = 0
    ) -> None:
        """Add to the statistics."""
        if min(reports, discarded, discarded_qty, unmatched_requests) < 0:
            raise ImpossibleStateError(
                f"counts only grow: {reports}, {discarded}, {discarded_qty}, {unmatched_requests}"
            )
        stats = self.stats
        self.stats = ReplicationStats(
            reports=stats.reports + reports,
            discarded=stats.discarded + discarded,
            discarded_qty=stats.discarded_qty + discarded_qty,
            unmatched_requests=stats.unmatched_requests + unmatched_requests,
        )

    def next_number(self) -> int:
        """Return the number of the next request, query or report; both sides share one sequence."""
        self._number += 1
        return self._number

    @property
    def last_number(self) -> int:
        """The number that was given last."""
        return self._number

    # -- keys ---------------------------------------------------------------------------------------------------

    def incumbent_key(self, report: IncumbentReport) -> str:
        """Return the key of the order that a report is about."""
        if self.match == "id":
            return report.order
        key = self.incumbent_keys.get(report.order)
        if key is None:
            key = self.incumbent_keys[report.order] = self._next_key(
                "their", report.account, report.symbol, report.side
            )
        return key

    def candidate_key(self, root: str, request: Request) -> str:
        """Return the key of the candidate's order; a new order gets one."""
        key = self.keys_by_root.get(root)
        if key is not None:
            return key
        if request.msg_type != MsgType.NEW_ORDER_SINGLE:
            return root  # it changes an order that this venue does not have
        key = root
        if self.match == "sequence":
            key = self._next_key("own", request.account, request.symbol, request.side.value)
        self.keys_by_root[root], self.roots_by_key[key] = key, root
        return key

    def _next_key(self, owner: str, account: str, symbol: str, side: str) -> str:
        group = f"{account}/{symbol}/{side}"
        number = self.counts[f"{owner} {group}"] = self.counts.get(f"{owner} {group}", 0) + 1
        return f"{group} #{number}"

    def key_of(self, root: str) -> str:
        """Return the key of an order of this venue, which a root ClOrdID names."""
        return self.keys_by_root.get(root, root)

    def root_of(self, key: str) -> str:
        """Return the root ClOrdID of the candidate's order of a key."""
        return self.roots_by_key.get(key, key)

    def adopt_roots(self, roots: Iterable[str]) -> None:
        """Match orders that both sides begin with: they have the same names."""
        if self.keys_by_root:
            raise ImpossibleStateError("orders that both sides begin with are matched before any other")
        for root in roots:
            self.keys_by_root[root] = self.roots_by_key[root] = self.incumbent_keys[root] = root

    # -- waiting ------------------------------------------------------------------------------------------------

    def add_request(self, key: str, root: str, request: Request, number: int) -> None:
        """Let a request wait for the incumbent's report."""
        if not 0 < number <= self._number:
            raise ImpossibleStateError(f"request {request.cl_ord_id} waits as number {number} of {self._number}")
        self.roots_by_request[request.cl_ord_id] = root
        self.pending_requests.setdefault(key, []).append(PendingRequest(number=number, message=request))

    def pop_request(self, key: str) -> Request:
        """Remove the first waiting request of a key; return it. Raises `ImpossibleStateError` when there is none."""
        requests = self.pending_requests.get(key)
        request = requests.pop(0).message if requests else None
        if not isinstance(request, Request):
            raise ImpossibleStateError(f"no request of {key} waits for an answer")
        if not requests:
            del self.pending_requests[key]
        self.roots_by_request.pop(request.cl_ord_id, None)
        return request

    def first_request(self, key: str, *kinds: MsgType) -> Request | None:
        """Return the first waiting request of a key if it is of one of these kinds."""
        requests = self.pending_requests.get(key)
        first = requests[0].message if requests else None
        return first if isinstance(first, Request) and first.msg_type in kinds else None

    def is_waiting(self, key: str, number: int) -> bool:
        """Return whether the request of this number still waits."""
        return any(request.number == number for request in self.pending_requests.get(key, ()))

    def answerable_questions(self) -> list[PendingRequest]:
        """Return the queries before which no request of their account waits."""
        return [
            question
            for question in self.questions
            if not any(
                request.number < question.number and request.message.account == question.message.account
                for requests in self.pending_requests.values()
                for request in requests
            )
        ]

    @property
    def unanswered_count(self) -> int:
        """The number of requests and queries without an answer."""
        return sum(len(requests) for requests in self.pending_requests.values()) + len(self.questions)

    # -- state --------------------------------------------------------------------------------------------------

    def take_state(self, state: CounterpartsState) -> None:
        """Take over a decoded state. Raises `StateError` when a number was never given, or a key is both kinds."""
        numbers = [request.number for requests in state.pending_requests.values() for request in requests]
        numbers += [question.number for question in state.questions]
        numbers += [report.number for reports in state.pending_reports.values() for report in reports]
        if any(not 0 < number <= state.number for number in numbers):
            raise StateError(f"the stored state of Counterparts is damaged: numbers above {state.number} wait")
        if len(set(numbers)) < len(numbers):
            raise StateError(
                f"the stored state of Counterparts is damaged: two wait under one number: {sorted(numbers)}"
            )
        if len(set(state.keys_by_root.values())) < len(state.keys_by_root):
            raise StateError("the stored state of Counterparts is damaged: two orders of the candidate have one key")
        stats = state.stats
        if min(stats.reports, stats.discarded, stats.discarded_qty, stats.unmatched_requests) < 0:
            raise StateError(f"the stored state of Counterparts is damaged: a count is negative: {stats}")
        if any(count < 1 for count in state.counts.values()):
            raise StateError("the stored state of Counterparts is damaged: a group of orders has none")
        if both := state.followed_keys & state.ended_keys.keys():
            raise StateError(
                f"the stored state of Counterparts is damaged: {sorted(both)[0]} is followed and has ended"
            )
        super().take_state(state)

    def _after_restore(self) -> None:
        self.roots_by_key.clear()
        self.roots_by_key.update({key: root for root, key in self.keys_by_root.items()})
        self.roots_by_request.clear()
        for key, requests in self.pending_requests.items():
            for request in requests:
                if isinstance(request.message, Request):
                    self.roots_by_request[request.message.cl_ord_id] = self.root_of(key)
