"""What a desk needs of the outside, by shape: time, a link, the market. It never asks who provides them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from holdover.model import Inbound, Outbound


class Clock(Protocol):
    """Time and timers. `now_ns` is nanoseconds since the epoch, UTC."""

    @property
    def now_ns(self) -> int:
        """The time now."""

    def call_at(self, time_ns: int, name: str, *args: Any) -> None:
        """Have the timer handler called with `name` and `args` at a time."""

    def on_timer(self, handler: Callable[[str, tuple[Any, ...]], None]) -> None:
        """Who is called when a timer is due."""


class Listener(Protocol):
    """What a link calls."""

    def on_up(self, epoch: int, out_seq: int) -> None:
        """The link has come up; the venue expects `out_seq` next."""

    def on_down(self, reason: str) -> None:
        """The link has gone down, or a logon was refused."""

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """A message of the venue, with its sequence number."""

    def on_sequence_reset(self, new_seq: int) -> None:
        """The next message will carry `new_seq`; what lies between will not come."""

    def on_heartbeat(self, seq: int) -> None:
        """The venue is there, and the last message that it sent was `seq`."""

    def on_session_message(self, seq: int) -> None:
        """A message of the session itself has taken the number `seq`, where a link counts those too, as FIX does."""


class LinkEnd(Protocol):
    """Our end of the connection to the venue."""

    @property
    def up(self) -> bool:
        """Whether messages can be sent."""

    @property
    def epoch(self) -> int:
        """How often it has come up."""

    def listen(self, listener: Listener) -> None:
        """Who hears what arrives."""

    def connect(self, next_in_seq: int, next_out_seq: int) -> None:
        """Ask for a logon, saying what we expect to hear and to send next."""

    def send(self, message: Outbound) -> int:
        """Send; returns the sequence number. Raises when the link is down."""

    def resend(self, begin_seq: int) -> None:
        """Ask for everything from `begin_seq` on again."""

    def disconnect(self) -> None:
        """Log out."""


class Top(Protocol):
    """The market of one instrument as last seen: prices in ticks, sizes in lots; no price where a side is empty."""

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
        """The market of one instrument."""


UNDEF_PRICE = 2**63 - 1
"""What stands where a side has no price."""
