"""The gateway: the last component before the wire, and the first after it.

Nothing leaves without the guard's permission. Inbound sequence numbers are committed together with the
effects of their message, so that each message is applied exactly once across restarts: the desk knows which
messages it has applied and requests the others.
"""

from __future__ import annotations

from collections.abc import Callable

from holdover.desk.config import DeskConfig
from holdover.desk.ports import LinkEnd, Market
from holdover.desk.store import Store
from holdover.model import Book, ImpossibleStateError, Link, LinkState, Outbound, Request, SecurityStatus
from holdover.runtime import Guard


class Gateway:
    """The desk's end of the link: sequence numbers, the outbox of the current step, and which books accept orders."""

    subsystem = "gateway"

    def __init__(self, config: DeskConfig, store: Store, guard: Guard, link: LinkEnd) -> None:
        self._config, self._store, self._guard, self._link = config, store, guard, link
        self.in_seq = 0
        self.out_seq = 0
        self._resend_from = 0
        self.on_unsent: Callable[[Request], None] = lambda request: None
        self._outbox: list[Outbound] = []
        self._books: dict[str, Book] = {}

    def load(self) -> None:
        """Restore the sequence numbers."""
        self.in_seq = self._store.get_int("in_seq")
        self.out_seq = self._store.get_int("out_seq")

    @property
    def is_up(self) -> bool:
        """Whether the link is up."""
        return self._link.is_up

    @property
    def epoch(self) -> int:
        """The number of times the link has come up."""
        return self._link.epoch

    def connect(self) -> None:
        """Request a logon with the current sequence numbers."""
        if min(self.in_seq, self.out_seq) < 0:
            raise ImpossibleStateError(f"a logon after messages {self.in_seq} and {self.out_seq}, should be from 0 on")
        self._link.connect(self.in_seq + 1, self.out_seq + 1)

    def save_out_seq(self) -> None:
        """Store, in the step's transaction, the outbound sequence number that the outbox will reach."""
        if self._outbox:
            self._store.set("out_seq", str(self.out_seq + len(self._outbox)))

    def on_link_up(self, out_seq: int) -> bool:
        """Take over the venue's expected sequence number after a logon.

        Returns whether the venue has received more than the store remembers; then the store is an older copy.
        """
        if out_seq < 1:
            raise ImpossibleStateError(f"the venue expects message {out_seq}; sequence numbers begin with 1")
        is_older_store = out_seq - 1 > self.out_seq
        self.out_seq = out_seq - 1
        self._resend_from = 0
        self._store.set("out_seq", str(self.out_seq))
        self._record_link(LinkState.RESET)
        return is_older_store

    def on_link_down(self) -> None:
        """Clear the outbox: its messages will not be sent."""
        self._outbox.clear()
        self._record_link(LinkState.LOGOUT)

    def accept_sequence(self, seq: int, poss_dup: bool = False) -> bool:
        """Return whether a message is the next one. Drop an old one, and request a resend before an early one.

        An early message in answer to a resend request (`poss_dup`) belongs to the same gap, which is requested
        once. If each such message requested the rest again, the resends would delay everything else that is sent.
        """
        if seq < 1:
            raise ImpossibleStateError(f"the venue sent message {seq}; sequence numbers begin with 1")
        if seq == self.in_seq + 1:
            self.in_seq = seq
            self._store.set("in_seq", str(seq))
            self._record_link(LinkState.MESSAGE)
            return True
        if seq > self.in_seq + 1 and not (poss_dup and self._resend_from == self.in_seq + 1):
            self._resend_from = self.in_seq + 1
            self._link.resend(self._resend_from)
        return False

    def apply_sequence_reset(self, new_seq: int) -> bool:
        """Continue with `new_seq`; return whether messages were skipped."""
        if new_seq < 1:
            raise ImpossibleStateError(f"the venue resets to message {new_seq}; sequence numbers begin with 1")
        has_gap = new_seq > self.in_seq + 1
        self.in_seq = new_seq - 1
        self._store.set("in_seq", str(self.in_seq))
        self._record_link(LinkState.RESET)
        return has_gap

    def request_missing(self, seq: int) -> None:
        """Request the messages up to `seq` that have not arrived."""
        if seq < 1:
            raise ImpossibleStateError(f"messages up to number {seq} are missing; sequence numbers begin with 1")
        if seq > self.in_seq:
            self._link.resend(self.in_seq + 1)

    def apply_book_status(self, message: SecurityStatus) -> None:
        """Apply the status of a book: it opens, halts or closes."""
        book = Book(
            symbol=message.symbol,
            trading=message.trading,
            reason=message.reason,
            reference_version=message.reference_version,
        )
        if self._books.get(book.symbol) != book:
            self._books[book.symbol] = book
            self._guard.record(self.subsystem, book)

    def read_book_states(self, market: Market) -> None:
        """Read the state of the books from the market: statuses sent while the desk was down are not repeated."""
        for instrument in self._config.instruments:
            top = market.top(instrument.symbol)
            self.apply_book_status(
                SecurityStatus(
                    symbol=instrument.symbol,
                    trading=top.trading,
                    reason=top.reason,
                    reference_version=top.reference_version,
                )
            )

    def is_trading(self, symbol: str) -> bool:
        """Return whether the book accepts orders, as far as the desk knows."""
        book = self._books.get(symbol)
        return book is None or book.trading

    def permits(self, request: Request) -> bool:
        """Return whether a request may be made: the link is up and the guard permits it."""
        return self._link.is_up and self.is_allowed(request)

    def is_allowed(self, message: Outbound) -> bool:
        """Return whether the guard permits a message now. Every check goes through this method."""
        return self._guard.permits(message)

    def queue(self, message: Outbound) -> None:
        """Send a message at the end of the step, after its commit."""
        if not message.key:
            raise ImpossibleStateError(f"{type(message).__name__} without a key cannot be sent: {message!r}")
        self._outbox.append(message)

    def flush(self) -> None:
        """Send the messages of the step; `on_unsent` is called for each request that may not leave."""
        messages, self._outbox = self._outbox, []
        for message in messages:
            self.send(message)

    def send(self, message: Outbound) -> None:
        """Send one message if it is permitted."""
        if not self._link.is_up or not self.is_allowed(message):
            self._report_unsent(message)
            return
        with self._guard.step("send"):
            if isinstance(message, Request):
                self._guard.record(self.subsystem, message)
                if not self._link.is_up or not self.is_allowed(message):
                    self._report_unsent(message)
                    return
            try:
                self.out_seq = self._link.send(message)
            except ConnectionError:  # the link went down after the check
                self._report_unsent(message)
                return
            self._record_link(LinkState.MESSAGE)
        self._store.set("out_seq", str(self.out_seq))

    def _report_unsent(self, message: Outbound) -> None:
        if isinstance(message, Request):
            self.on_unsent(message)

    def _record_link(self, change: str) -> None:
        self._guard.record(
            self.subsystem,
            Link(
                name=self._config.link,
                is_up=self._link.is_up,
                epoch=self._link.epoch,
                in_seq=self.in_seq,
                out_seq=self.out_seq,
                change=change,
            ),
        )
