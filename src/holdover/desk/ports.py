"""The interfaces of a desk to the outside: time, link and market. Any object of this shape will do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from holdover.model import Inbound, Outbound


class Clock(Protocol):
    """Time and timers. `now_ns` is ns since the epoch, UTC."""

    @property
    def now_ns(self) -> int:
        """The current time."""

    def call_at(self, time_ns: int, name: str, *args: Any) -> None:
        """Call the timer handler with `name` and `args` at a time."""

    def on_timer(self, handler: Callable[[str, tuple[Any, ...]], None]) -> None:
        """Register the timer handler."""


class Listener(Protocol):
    """Receives the events of a link."""

    def on_up(self, epoch: int, out_seq: int) -> None:
        """The link is up. The venue expects `out_seq` next."""

    def on_down(self, reason: str) -> None:
        """The link is down, or the venue refused a logon."""

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """The venue sent a message with this sequence number."""

    def on_sequence_reset(self, new_seq: int) -> None:
        """The next message will carry `new_seq`; the messages before it will not arrive."""

    def on_heartbeat(self, seq: int) -> None:
        """The venue is alive, and its last message was `seq`."""

    def on_session_message(self, seq: int) -> None:
        """A session-level message has used the number `seq`, on a link that counts those too, as FIX does."""


class LinkEnd(Protocol):
    """The desk's end of the connection to the venue."""

    @property
    def is_up(self) -> bool:
        """Whether messages can be sent."""

    @property
    def epoch(self) -> int:
        """The number of times the link has come up."""

    def listen(self, listener: Listener) -> None:
        """Set the listener for incoming events."""

    def connect(self, next_in_seq: int, next_out_seq: int) -> None:
        """Request a logon with the sequence numbers that are expected next in each direction."""

    def send(self, message: Outbound) -> int:
        """Send a message; return its sequence number. Raises `ConnectionError` when the link is down."""

    def resend(self, begin_seq: int) -> None:
        """Request a resend of every message from `begin_seq` on."""

    def disconnect(self) -> None:
        """Log out."""


class Top(Protocol):
    """The current market of one instrument: prices in ticks, sizes in lots. An empty side has `UNDEF_PRICE`."""

    bid_px: int
    ask_px: int
    bid_sz: int
    ask_sz: int
    last_px: int
    traded_qty: int
    trading: bool
    reason: str
    reference_version: str


class Market(Protocol):
    """The feed handler."""

    def top(self, symbol: str) -> Top:
        """Return the current market of one instrument."""


UNDEF_PRICE = 2**63 - 1
"""The price of an empty side."""
