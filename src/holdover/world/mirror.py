"""A venue that answers one client as another venue has answered another: a candidate gets the incumbent's executions.

The candidate's orders go to this venue and nowhere else. Each of its requests waits for the report that the incumbent
was sent of the same request, and is answered so: accepted, rejected, replaced, cancelled, refused. Trades, busts and
corrections of the incumbent's order are those of the candidate's. What the incumbent did not ask for is answered by the
venue's own rules when `patience_ns` is over. An order that has no counterpart, or whose counterpart is over, is matched
against the market like any other. A question waits until what was asked before it has been answered.

Which order is whose is told by the ClOrdID with which its chain began, or (`sequence`) by its place among the orders of
one account, symbol and side. A report that finds no request or order within the patience is left out and counted.
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
from holdover.world.book import Book, Working
from holdover.world.clock import Clock
from holdover.world.policy import VenuePolicy
from holdover.world.venue import Venue

_OWNER: Final = "mirror"
_NEVER_RESTS: Final = (TimeInForce.IOC, TimeInForce.FOK)
_CHANGES: Final = (MsgType.ORDER_CANCEL_REQUEST, MsgType.ORDER_CANCEL_REPLACE_REQUEST)

What = Literal[
    "sent", "new", "rejected", "trade", "filled", "replaced", "canceled", "expired", "refused", "bust", "correct"
]
_NOTICES: Final = ("sent", "filled")
"""They say how the counterpart stands, and ask nothing of the candidate's order."""
_LAST: Final = ("rejected", "filled", "canceled", "expired")
"""After these the counterpart is over."""


class Reported(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an order of the incumbent's: lots and ticks; `order` is the ClOrdID with which its chain began.

    `sent` is the order's first sight, before any report; `filled` says after a trade that nothing is left to fill.
    `asked` says of `canceled` that a request had asked for it.
    """

    what: What
    order: str
    account: str = ""
    symbol: str = ""
    side: str = ""
    time_ns: int = 0
    last_qty: int = 0
    last_px: int = 0
    exec_id: str = ""
    exec_ref_id: str = ""
    asked: bool = False
    text: str = ""


class Followed(msgspec.Struct, kw_only=True):
    """How well the candidate could follow.

    `reports` were heard, `left_out` of them found nothing to apply to, `left_out_qty` lots of trades with them;
    `alone` requests of the candidate had no counterpart.
    """

    reports: int = 0
    left_out: int = 0
    left_out_qty: int = 0
    alone: int = 0


class _Held(msgspec.Struct, kw_only=True):
    """A request or a question of the candidate's that has not been answered yet."""

    number: int
    message: Outbound


class _Waiting(msgspec.Struct, kw_only=True):
    number: int
    report: Reported


class _Kept(msgspec.Struct, kw_only=True):
    """All that a mirror knows beside what a venue knows."""

    followed: Followed = msgspec.field(default_factory=Followed)
    held: dict[str, list[_Held]] = {}
    questions: list[_Held] = []
    waiting: dict[str, list[_Waiting]] = {}
    number: int = 0
    keys: dict[str, str] = {}
    theirs: dict[str, str] = {}
    counts: dict[str, int] = {}
    known: list[str] = []
    over: dict[str, str] = {}
    execs: dict[str, tuple[str, str]] = {}


class Mirror(Venue):
    """See the module. `hear` takes what the incumbent was told, in the order in which it was told."""

    def __init__(
        self,
        clock: Clock,
        instruments: Iterable[Instrument],
        policy: VenuePolicy | None = None,
        name: str = "VENUE",
        *,
        match: Literal["id", "sequence"] = "id",
        patience_ns: int = 2_000_000_000,
    ) -> None:
        super().__init__(clock, instruments, policy, name)
        self.match, self.patience_ns = match, patience_ns
        self.followed = Followed()
        self._held: dict[str, deque[_Held]] = {}
        self._questions: deque[_Held] = deque()
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._number = 0
        self._keys: dict[str, str] = {}
        self._own: dict[str, str] = {}
        self._chain: dict[str, str] = {}
        self._theirs: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._known: set[str] = set()
        """Whose counterpart may still be filled: the market fills none of these."""
        self._over: dict[str, str] = {}
        """Whose counterpart is over, and how it came to its end."""
        self._execs: dict[str, tuple[str, str]] = {}
        self._theirs_taken = False
        clock.register(_OWNER, self._timer)

    # -- what the incumbent was told ----------------------------------------------------------------------------

    def hear(self, report: Reported) -> None:
        """The incumbent was told this, now."""
        self.followed.reports += 1
        key = self._their_key(report)
        if key not in self._known and key not in self._over:
            self._is_followed(key)
        self._number += 1
        number = self._number
        waiting = self._waiting.setdefault(key, deque())
        waiting.append(_Waiting(number=number, report=report))
        self._work(key)
        if waiting and waiting[-1].number == number:
            self.clock.at(self.clock.now_ns + self.patience_ns, _OWNER, "report", key, number)

    def _their_key(self, report: Reported) -> str:
        if self.match == "id":
            return report.order
        known = self._theirs.get(report.order)
        if known is None:
            known = self._theirs[report.order] = self._next("their", report.account, report.symbol, report.side)
        return known

    def _next(self, whose: str, account: str, symbol: str, side: str) -> str:
        group = f"{account}/{symbol}/{side}"
        number = self._counts[f"{whose} {group}"] = self._counts.get(f"{whose} {group}", 0) + 1
        return f"{group} #{number}"

    # -- what the candidate asks ----------------------------------------------------------------------------------

    @property
    def holding(self) -> int:
        """How many requests wait for an answer: as long, what a client believes and this venue knows may differ."""
        return sum(len(held) for held in self._held.values()) + len(self._questions)

    def receive(self, message: Outbound) -> None:
        """A message of the candidate has arrived."""
        self._number += 1
        if isinstance(message, Query):
            self._questions.append(_Held(number=self._number, message=message))
            self._answer_questions()
            return
        root = message.cl_ord_id
        if message.msg_type != MsgType.NEW_ORDER_SINGLE:
            orig = message.orig_cl_ord_id
            root = self._chain.get(orig) or self.roots.get(orig, orig)
        elif root in self._chain:
            if not (message.poss_resend and self._chain[root] == root):  # else one answer is enough
                self._reject(message, 6, f"duplicate order: ClOrdID {root}")
            return
        elif self.find(root) is not None:
            super().receive(message)
            return
        key = self._own_key(root, message)
        self._chain[message.cl_ord_id] = root
        number = self._number
        self._held.setdefault(key, deque()).append(_Held(number=number, message=message))
        self._work(key)
        if any(one.number == number for one in self._held.get(key, ())):
            self.clock.at(self.clock.now_ns + self.patience_ns, _OWNER, "request", key, number)

    def _own_key(self, root: str, request: Request) -> str:
        known = self._keys.get(root)
        if known is None:
            known = root
            if request.msg_type != MsgType.NEW_ORDER_SINGLE:
                return known  # it changes an order that nobody knows
            if self.match == "sequence":
                known = self._next("own", request.account, request.symbol, request.side.value)
            self._keys[root], self._own[known] = known, root
        return known

    def _key_of(self, order: Working) -> str:
        return self._keys.get(order.root_cl_ord_id, order.root_cl_ord_id)

    def _order_of(self, key: str) -> Working | None:
        return self.orders.get(self._own.get(key, key))

    def _answer(self, key: str, *, alone: bool = False) -> None:
        """The first request that waits is answered by the venue's own rules."""
        self.followed.alone += alone
        self._theirs_taken = not alone
        super().receive(self._take_request(key))
        self._theirs_taken = False
        if key in self._known:
            self._leave_the_book(self._order_of(key))

    def _take_request(self, key: str) -> Request:
        held = self._held[key]
        request = held.popleft().message
        assert isinstance(request, Request)
        if not held:
            del self._held[key]
        self._chain.pop(request.cl_ord_id, None)
        return request

    def _answer_questions(self) -> None:
        for question in list(self._questions):
            account = question.message.account
            held = (one for requests in self._held.values() for one in requests if one.number < question.number)
            if all(one.message.account != account for one in held):
                self._questions.remove(question)
                super().receive(question.message)

    def _shut(self, book: Book) -> str:
        # The incumbent's order was taken: whether the book was open is not for the order of two feeds to say.
        return "" if self._theirs_taken and self.is_open else super()._shut(book)

    # -- whom the market fills --------------------------------------------------------------------------------------

    def _is_followed(self, key: str) -> None:
        """What the incumbent's executions fill, the market does not."""
        self._known.add(key)
        self._over.pop(key, None)
        self._leave_the_book(self._order_of(key))

    def _stands_alone(self, key: str, how: str) -> None:
        """The counterpart is over: what is open still of the candidate's order is matched against the market."""
        self._known.discard(key)
        self._over[key] = how
        order = self._order_of(key)
        if order is None or not order.is_open:
            return
        book = self.books[order.symbol]
        book.remove(order)
        if not order.triggered:
            book.stops.append(order)
        elif order.time_in_force in _NEVER_RESTS:
            self._enter(book, order)
        else:
            book.rest(order)

    def _leave_the_book(self, order: Working | None) -> None:
        if order is not None:
            self.books[order.symbol].remove(order)

    def _enter(self, book: Book, order: Working) -> None:
        if self._key_of(order) not in self._known:
            super()._enter(book, order)

    def _amend(self, exec_id: str, trade_date: str, to: tuple[int, int] | None) -> bool:
        done = super()._amend(exec_id, trade_date, to)
        order = self.find(self.trades[-1].cl_ord_id) if done else None
        if order is not None and self._key_of(order) in self._known:
            self._leave_the_book(order)
        return done

    # -- one against the other --------------------------------------------------------------------------------------

    def _work(self, key: str) -> None:
        """Apply what can be applied, in its order."""
        waiting = self._waiting.get(key)
        while waiting and self._applied(key, waiting[0].report):
            done = waiting.popleft().report
            if done.what in _LAST:
                self._stands_alone(key, done.what)
        if waiting is not None and not waiting:
            self._waiting.pop(key, None)
        self._answer_questions()

    def _asks(self, key: str, *kinds: MsgType) -> Request | None:
        held = self._held.get(key)
        first = held[0].message if held else None
        return first if isinstance(first, Request) and first.msg_type in kinds else None

    def _applied(self, key: str, report: Reported) -> bool:
        """Whether a report has been done with: False where it has to wait for the candidate."""
        if report.what in _NOTICES:
            return True
        order = self._order_of(key)
        if report.what == "rejected":
            return self._rejected(key, order, report)
        if report.what == "refused":
            return self._refused(key, order)
        if order is None:
            if self._asks(key, MsgType.NEW_ORDER_SINGLE) is None:
                return False
            self._answer(key)
            order = self._order_of(key)
            if order is None:
                return True  # rejected by this venue's own rules
        if report.what == "new":
            return True
        if report.what in ("trade", "bust", "correct"):
            self._traded(key, order, report)
            return True
        if report.what == "replaced":
            if self._asks(key, MsgType.ORDER_CANCEL_REPLACE_REQUEST) is None:
                return False
            self._answer(key)
            return True
        return self._canceled(key, order) if report.asked else self._ended(order, report)

    def _rejected(self, key: str, order: Working | None, report: Reported) -> bool:
        request = self._asks(key, MsgType.NEW_ORDER_SINGLE)
        if order is not None:  # it was accepted when the patience was over
            self.cancel(order.cl_ord_id)
            return True
        if request is None:
            return False
        self._take_request(key)
        self._reject(request, 99, report.text or "rejected, as the incumbent's was")
        return True

    def _traded(self, key: str, order: Working, report: Reported) -> None:
        if (report.symbol or order.symbol, report.side or order.side) != (order.symbol, order.side):
            self._count_out(report)  # another order under the same name
            return
        if report.what == "trade":
            self._trade(key, order, report)
            return
        if self._over.get(key) == "filled":
            self._is_followed(key)  # what is taken back is open again
        exec_id, trade_date = self._execs.get(report.exec_ref_id, ("", ""))
        named = next((one for one in self.trades if (one.exec_id, one.trade_date) == (exec_id, trade_date)), None)
        done = False
        if named is not None and report.what == "bust":
            done = self.bust(exec_id, trade_date)
        elif named is not None:
            room = named.last_qty + max(order.order_qty - order.cum_qty, 0)
            done = self.correct(exec_id, max(min(report.last_qty, room), 0), report.last_px, trade_date)
        if done and report.exec_id:
            self._execs[report.exec_id] = (self.last_exec_id, self.trade_date)
        self.followed.left_out += not done

    def _trade(self, key: str, order: Working, report: Reported) -> None:
        # A fill that had crossed the cancel is told after it; both are the incumbent's.
        late = order.ord_status == OrdStatus.CANCELED and self._over.get(key) == "canceled"
        room = order.order_qty - order.cum_qty if late else order.leaves_qty
        quantity = max(min(report.last_qty, room), 0)
        if quantity < report.last_qty:
            self.followed.left_out += 1
            self.followed.left_out_qty += report.last_qty - quantity
        if not quantity:
            return
        if late:
            self.fill_late(order.cl_ord_id, quantity, report.last_px)
        else:
            self._fill(order, quantity, report.last_px)
        if report.exec_id:
            self._execs[report.exec_id] = (self.last_exec_id, self.trade_date)

    def _refused(self, key: str, order: Working | None) -> bool:
        request = self._asks(key, *_CHANGES)
        if request is None:
            return False
        self._take_request(key)
        self._refuse(request, order, "1" if request.msg_type == MsgType.ORDER_CANCEL_REQUEST else "2")
        return True

    def _canceled(self, key: str, order: Working) -> bool:
        """What a request of the incumbent's asked for, only one of the candidate's brings."""
        kinds = [one.message.msg_type for one in self._held.get(key, ())]
        if MsgType.ORDER_CANCEL_REQUEST not in kinds:
            return not order.is_open
        # What the candidate asked before its cancel, the incumbent was not granted.
        while self._asks(key, MsgType.ORDER_CANCEL_REQUEST) is None:
            self._refuse(self._take_request(key), order, "2")
        self._answer(key)
        return True

    def _ended(self, order: Working, report: Reported) -> bool:
        """Cancelled or expired unasked. What the candidate asks of it still, it asks too late."""
        expired = report.what == "expired"
        at_the_close = self.clock.now_ns >= self.close_ns and order.time_in_force not in _NEVER_RESTS
        if order.is_open and not (expired and at_the_close):  # the close itself is this venue's own
            self._close(
                order,
                OrdStatus.EXPIRED if expired else OrdStatus.CANCELED,
                ExecType.EXPIRED if expired else ExecType.CANCELED,
            )
        return True

    # -- when nothing comes -----------------------------------------------------------------------------------------

    def _timer(self, name: str, args: tuple[Any, ...]) -> None:
        key, number = args
        if name == "request":
            while key in self._held and self._held[key][0].number <= number:
                self._answer(key, alone=True)
        else:
            self._leave_out(key, number)
        self._work(key)

    def _leave_out(self, key: str, number: int) -> None:
        """The patience with the reports up to this one is over."""
        waiting = self._waiting.get(key)
        while waiting and waiting[0].number <= number:
            report = waiting.popleft().report
            if report.what not in _NOTICES:
                self._count_out(report)
            if report.what in _LAST:
                self._stands_alone(key, report.what)
        if waiting is not None and not waiting:
            self._waiting.pop(key, None)

    def _count_out(self, report: Reported) -> None:
        self.followed.left_out += 1
        if report.what == "trade":
            self.followed.left_out_qty += max(report.last_qty, 0)

    def end(self) -> None:
        """The close: nothing waits any more; what the incumbent was told of the day has been told."""
        for key in list(self._held):
            while key in self._held:
                self._answer(key, alone=True)
            self._work(key)
        for key in list(self._waiting):
            self._leave_out(key, self._number)
        self._answer_questions()
        super().end()

    # -- memory -------------------------------------------------------------------------------------------------

    def _mine(self) -> bytes:
        return msgspec.msgpack.encode(
            _Kept(
                followed=self.followed,
                held={key: list(held) for key, held in self._held.items()},
                questions=list(self._questions),
                waiting={key: list(waiting) for key, waiting in self._waiting.items()},
                number=self._number,
                keys=self._keys,
                theirs=self._theirs,
                counts=self._counts,
                known=sorted(self._known),
                over=self._over,
                execs=self._execs,
            )
        )

    def _take_up(self, mine: bytes) -> None:
        kept = msgspec.msgpack.decode(mine, type=_Kept)
        self.followed, self._number = kept.followed, kept.number
        self._held = {key: deque(held) for key, held in kept.held.items()}
        self._questions = deque(kept.questions)
        self._waiting = {key: deque(waiting) for key, waiting in kept.waiting.items()}
        self._keys, self._theirs, self._counts = kept.keys, kept.theirs, kept.counts
        self._known, self._over, self._execs = set(kept.known), kept.over, kept.execs
        self._own = {key: root for root, key in self._keys.items()}
        self._chain = {
            one.message.cl_ord_id: self._own.get(key, key) for key, held in self._held.items() for one in held
        }

    def keep(self) -> Any:
        """What may change from here on, for `put_back` in the same process."""
        return super().keep(), self._mine()

    def put_back(self, kept: Any) -> None:
        """Make it what it was when `keep` was called."""
        venue, mine = kept
        super().put_back(venue)
        self._take_up(mine)

    def dump(self) -> bytes:
        """Everything the venue knows, and what it knows of the incumbent."""
        return msgspec.msgpack.encode([super().dump(), self._mine()])

    def load(self, state: bytes) -> None:
        """Take up a dumped state, a venue's own too. Raises `msgspec.MsgspecError` when it is damaged."""
        held = msgspec.msgpack.decode(state)
        if isinstance(held, list):
            super().load(held[0])
            self._take_up(held[1])
            return
        super().load(state)
        for root in self.orders:  # both have begun with these: they are told by their names
            self._keys[root] = self._own[root] = self._theirs[root] = root
