"""The gateway: the last line before the wire, and the first after it.

Nothing leaves without the guard's permission. Inbound sequence numbers are committed together with what the message
did, so that a message is applied exactly once over restarts: what was applied is known, what was not is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from holdover.desk.config import DeskConfig
from holdover.desk.outside import LinkEnd, Market
from holdover.desk.store import Store
from holdover.model import Book, Link, LinkState, Outbound, Request, SecurityStatus
from holdover.runtime import Guard


class Gateway:
    """Our end of the link: sequence numbers, the outbox of the present step, what the books accept."""

    subsystem = "gateway"

    def __init__(self, config: DeskConfig, store: Store, guard: Guard, link: LinkEnd) -> None:
        self._config, self._store, self._guard, self._link = config, store, guard, link
        self.in_seq = 0
        self.out_seq = 0
        self._asked_from = 0
        self.unsent: Callable[[Request], None] = lambda request: None
        self._waiting: list[Outbound] = []
        self._books: dict[str, Book] = {}

    def load(self) -> None:
        """Read the sequence numbers back."""
        self.in_seq = int(self._store.get("in_seq", "0"))
        self.out_seq = int(self._store.get("out_seq", "0"))

    @property
    def up(self) -> bool:
        """Whether the link is up."""
        return self._link.up

    @property
    def epoch(self) -> int:
        """How often the link has come up."""
        return self._link.epoch

    def connect(self) -> None:
        """Ask for a logon, from where we stand."""
        self._link.connect(self.in_seq + 1, self.out_seq + 1)

    def promise(self) -> None:
        """Write down, in the step's own transaction, what may have left when the step is over."""
        if self._waiting:
            self._store.set("out_seq", str(self.out_seq + len(self._waiting)))

    def came_up(self, out_seq: int) -> bool:
        """The link is up; the venue tells which number it expects of us next.

        Returns whether it has heard more of us than our store remembers: then the store is an older one.
        """
        forgotten = out_seq - 1 > self.out_seq
        self.out_seq = out_seq - 1
        self._asked_from = 0
        self._store.set("out_seq", str(self.out_seq))
        self._say(LinkState.RESET)
        return forgotten

    def went_down(self) -> None:
        """The link is down; what waits to be sent will not be."""
        self._waiting.clear()
        self._say(LinkState.LOGOUT)

    def arrived(self, seq: int, poss_dup: bool = False) -> bool:
        """Whether a message is the next one; an old one is dropped, one too early is asked for in order.

        What comes too early in answer to a resend request (`poss_dup`) is the tail of one gap, and asked for once: were
        each of its messages to ask for all the others, they would drown whatever is sent meanwhile.
        """
        if seq == self.in_seq + 1:
            self.in_seq = seq
            self._store.set("in_seq", str(seq))
            self._say(LinkState.MESSAGE)
            return True
        if seq > self.in_seq + 1 and not (poss_dup and self._asked_from == self.in_seq + 1):
            self._asked_from = self.in_seq + 1
            self._link.resend(self._asked_from)
        return False

    def reset(self, new_seq: int) -> bool:
        """The venue will go on with `new_seq`; returns whether something was passed over."""
        passed_over = new_seq > self.in_seq + 1
        self.in_seq = new_seq - 1
        self._store.set("in_seq", str(self.in_seq))
        self._say(LinkState.RESET)
        return passed_over

    def behind(self, seq: int) -> None:
        """The venue has sent up to `seq`: ask for what we have not seen."""
        if seq > self.in_seq:
            self._link.resend(self.in_seq + 1)

    def status(self, message: SecurityStatus) -> None:
        """A book opens, halts or closes."""
        book = Book(
            symbol=message.symbol,
            trading=message.trading,
            reason=message.reason,
            reference_version=message.reference_version,
        )
        if self._books.get(book.symbol) != book:
            self._books[book.symbol] = book
            self._guard.record(self.subsystem, book)

    def look(self, market: Market) -> None:
        """Take the books' state from the market itself: what was said while we were away is not repeated."""
        for instrument in self._config.instruments:
            top = market.top(instrument.symbol)
            self.status(
                SecurityStatus(
                    symbol=instrument.symbol,
                    trading=top.trading,
                    reason=top.reason,
                    reference_version=top.reference_version,
                )
            )

    def trading(self, symbol: str) -> bool:
        """Whether the book takes orders, as far as we were told."""
        book = self._books.get(symbol)
        return book is None or book.trading

    def permits(self, request: Request) -> bool:
        """Whether a request may be made at all: the link is up and no frozen scope forbids it."""
        return self._link.up and self.allowed(request)

    def allowed(self, message: Outbound) -> bool:
        """What the guard says of a message now: the one place where it is asked."""
        return self._guard.permits(message)

    def queue(self, message: Outbound) -> None:
        """Send with the end of the step, after its commit."""
        self._waiting.append(message)

    def flush(self) -> None:
        """Send what the step has queued. What may not leave is told to `unsent`."""
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self.send(message)

    def send(self, message: Outbound) -> None:
        """One message onto the wire, if it may."""
        if not self._link.up or not self.allowed(message):
            self._kept_back(message)
            return
        with self._guard.step("send"):
            if isinstance(message, Request):
                self._guard.record(self.subsystem, message)
                if not self._link.up or not self.allowed(message):
                    self._kept_back(message)
                    return
            try:
                self.out_seq = self._link.send(message)
            except ConnectionError:  # it went down after it was asked whether it is up
                self._kept_back(message)
                return
            self._say(LinkState.MESSAGE)
        self._store.set("out_seq", str(self.out_seq))

    def _kept_back(self, message: Outbound) -> None:
        if isinstance(message, Request):
            self.unsent(message)

    def _say(self, change: str) -> None:
        self._guard.record(
            self.subsystem,
            Link(
                name=self._config.link,
                up=self._link.up,
                epoch=self._link.epoch,
                in_seq=self.in_seq,
                out_seq=self.out_seq,
                change=change,
            ),
        )
