"""The link: an ordered, unreliable connection with sequence numbers and messages in flight in both directions.

A message takes time to arrive and can be lost when the link is cut. Sequence numbers follow FIX: each
direction counts its messages, and a receiver that notices a gap requests a resend. The venue either replays
the messages (marked PossDup) or skips them with a sequence reset, and then the client has to query the state
of its orders. Source: FIX 4.4 volume 2, session protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from holdover.model import Inbound, Outbound
from holdover.world.clock import VirtualClock
from holdover.world.venue import Venue


class LinkDownError(ConnectionError):
    """A message was sent on a link that is down."""


class LinkListener(Protocol):
    """Receives the events at the subject's end of a link."""

    def on_up(self, epoch: int, out_seq: int) -> None:
        """The link is up. The venue expects `out_seq` next."""

    def on_down(self, reason: str) -> None:
        """The link is down, or the venue refused a logon."""

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """The venue sent a message."""

    def on_sequence_reset(self, new_seq: int) -> None:
        """The next message will carry `new_seq`."""

    def on_heartbeat(self, seq: int) -> None:
        """The venue's last message was `seq`."""


class SimulatedLinkEnd:
    """The subject's end of the link. After the subject is killed, its methods do nothing."""

    def __init__(self, link: SimulatedLink) -> None:
        self._link = link
        self.name = link.name
        self.is_dead = False
        self.listener: LinkListener | None = None

    @property
    def is_up(self) -> bool:
        """Whether messages can be sent."""
        return self._link.is_up and not self.is_dead

    @property
    def epoch(self) -> int:
        """The number of times the link has come up."""
        return self._link.epoch

    def listen(self, listener: LinkListener) -> None:
        """Set the listener for incoming events."""
        self.listener = listener

    def connect(self, next_in_seq: int, next_out_seq: int) -> None:
        """Request a logon."""
        if not self.is_dead:
            self._link.logon(next_in_seq)

    def send(self, message: Outbound) -> int:
        """Send a message; return its sequence number. Raises `LinkDownError` when the link is down."""
        if self.is_dead:
            return self._link.out_seq
        return self._link.send(message)

    def resend(self, begin_seq: int) -> None:
        """Request a resend of every message from `begin_seq` on."""
        if self.is_up:
            self._link.request_resend(begin_seq)

    def disconnect(self) -> None:
        """Log out."""
        if not self.is_dead:
            self._link.drop("logged out", lose_out=False, notify=False)


class SimulatedLink:
    """One connection between a subject and the venue, for some accounts.

    `on_send(message)` is called for each application message that leaves the subject. `on_launch(direction)` is
    called for each message that is put in flight (`"in"` to the subject, `"out"` to the venue), before any fault
    applies, and `on_deliver(direction)` for each message that was delivered. Latencies are one-way, in ns.
    """

    def __init__(self, clock: VirtualClock, venue: Venue, accounts: Iterable[str], name: str = "VENUE") -> None:
        self.clock, self.venue, self.name = clock, venue, name
        self.owner = f"link:{name}"
        self.latency_ns = venue.policy.latency_ns
        self.recovery: str = venue.policy.recovery
        self.is_up = False
        self.is_venue_up = False
        self.is_allowed = True
        self.refusal = ""
        self.refused_until_ns = 0
        self.epoch = 0
        self.incarnation = 0
        self.out_seq = 0
        self.venue_in_seq = 0
        self.in_seq = 0
        self.received_seq = 0
        self.on_send: Callable[[Outbound], None] | None = None
        self.on_deliver: Callable[[str], None] | None = None
        self.on_launch: Callable[[str], None] | None = None
        self.sent_counts = {"in": 0, "out": 0}
        self._inbound: deque[list[Any]] = deque()
        self._outbound: deque[list[Any]] = deque()
        self._history: list[Inbound] = []
        self._history_from = 1
        self._faults: list[list[Any]] = []
        self._swapped: dict[str, list[Any]] = {}
        self.end = SimulatedLinkEnd(self)
        clock.register(self.owner, self._timer)
        venue.attach(accounts, self.deliver)
        # The 7 ns keep it off the round times of a subject's timers; at equal times the order would be arbitrary.
        clock.set_timer(clock.now_ns + venue.policy.heartbeat_ns + 7, self.owner, "heartbeat")

    # -- the subject's side -------------------------------------------------------------------------------------

    def logon(self, next_in_seq: int) -> None:
        """Send a logon to the venue."""
        self.clock.set_timer(self.clock.now_ns + self.latency_ns, self.owner, "logon", next_in_seq, self.incarnation)

    def send(self, message: Outbound) -> int:
        """Send a message to the venue; return its sequence number. Raises `LinkDownError` when the link is down."""
        if not self.is_up:
            raise LinkDownError(f"{self.name} is down: {type(message).__name__} {message.key} cannot be sent")
        if self.on_send is not None:
            self.on_send(message)
        self.out_seq += 1
        self._enqueue("out", ["app", self.out_seq, message])
        return self.out_seq

    def is_message_in_flight(self, message: Outbound) -> bool:
        """Return whether this message object has left the subject and has not arrived at the venue."""
        return any(item[-1] is message for item in self._outbound)

    def request_resend(self, begin_seq: int) -> None:
        """Send a resend request to the venue."""
        self._enqueue("out", ["resend", begin_seq, None], counted=False)

    def attach(self) -> SimulatedLinkEnd:
        """Create the end of a new incarnation of the subject."""
        self.end = SimulatedLinkEnd(self)
        self.incarnation += 1
        return self.end

    def detach(self) -> None:
        """Detach the killed subject: its sent messages still arrive, and messages to it are lost."""
        self.incarnation += 1  # a logon of the killed incarnation that is still in flight must have no effect
        self.end.is_dead = True
        self.end.listener = None
        self.drop("killed", lose_out=False, notify=False)

    # -- the venue's side ---------------------------------------------------------------------------------------

    def deliver(self, message: Inbound) -> None:
        """Send a message to the subject. While the link is down the message only gets a sequence number."""
        self.in_seq += 1
        self._history.append(message)
        if self.is_venue_up:
            self._enqueue("in", ["app", self.in_seq, False, message])

    def _logon(self, next_in_seq: int) -> None:
        is_refused = self.clock.now_ns < self.refused_until_ns
        if not self.is_allowed or is_refused:
            if is_refused:
                self._enqueue("in", ["down", self.refusal], counted=False)
            else:
                self._enqueue("in", ["down", "no connection"], counted=False)
            return
        self._outbound.clear()
        self.is_venue_up = True
        self.epoch += 1
        self._enqueue("in", ["up", self.epoch, self.venue_in_seq + 1], counted=False)
        self.received_seq = min(next_in_seq - 1, self.in_seq)
        self._resend_from(next_in_seq)

    def _resend_from(self, begin_seq: int) -> None:
        """Resend every message from `begin_seq` on, or send a sequence reset when they will not be resent."""
        if begin_seq > self.in_seq + 1:
            # The client is ahead of the venue, which has begun a new day: send the day from its first message.
            self._enqueue("in", ["reset", self._history_from], counted=False)
            begin_seq = self._history_from
        if self.recovery == "drop" or begin_seq < self._history_from:
            if begin_seq <= self.in_seq:
                self._enqueue("in", ["reset", self.in_seq + 1], counted=False)
            return
        for seq in range(begin_seq, self.in_seq + 1):
            self._enqueue("in", ["app", seq, True, self._history[seq - self._history_from]])

    # -- cutting ------------------------------------------------------------------------------------------------

    def drop(self, reason: str, *, lose_out: bool, notify: bool = True) -> None:
        """Drop the connection. Inbound messages are lost; outbound ones arrive unless `lose_out`."""
        was_connected = self._is_connected_or_pending()
        self.is_up = self.is_venue_up = False
        self._inbound.clear()
        self._swapped.clear()
        if lose_out:
            self._outbound.clear()
        listener = self.end.listener
        if notify and was_connected and listener is not None:
            listener.on_down(reason)

    def _is_connected_or_pending(self) -> bool:
        """Return whether the subject is connected, or waits for the answer to a logon."""
        return self.is_up or self.is_venue_up or bool(self._inbound)

    def drop_deferred(self, *, lose_out: bool = False) -> None:
        """Drop the link inside a call of the subject; the subject is notified after that call."""
        was_connected = self._is_connected_or_pending()
        self.is_allowed = False
        self.drop("disconnected", lose_out=lose_out, notify=False)
        if was_connected:
            self.clock.set_timer(self.clock.now_ns, self.owner, "down", self.incarnation)

    def disconnect(self, *, lose_out: bool = False, reason: str = "disconnected") -> None:
        """Drop the link and refuse connections until `reconnect`."""
        self.is_allowed = False
        self.drop(reason, lose_out=lose_out)

    def reconnect(self) -> None:
        """Allow connections again. The subject connects by itself."""
        self.is_allowed = True

    def refuse_logons(self, reason: str, until_ns: int) -> None:
        """End the connection and refuse logons until a time, like a 401 in the middle of the day."""
        self.refusal, self.refused_until_ns = reason, until_ns
        self.drop(reason, lose_out=False)

    def overnight(self) -> None:
        """Drop the link between two trading days. Sequence numbers restart when the venue's policy says so."""
        self.drop("end of day", lose_out=True, notify=False)
        if self.venue.policy.reset_seq_overnight:
            self.in_seq = self.out_seq = self.venue_in_seq = self.received_seq = 0
            self._history, self._history_from = [], 1

    # -- faults -------------------------------------------------------------------------------------------------

    def inject_fault(self, direction: str, number: int, kind: str, argument: int = 0) -> None:
        """Apply a fault to the `number`-th message from now in a direction (`in`, `out`).

        Kinds: `drop`; `delay` and `hold` (by `argument` ns; later messages wait behind it); `duplicate`;
        `reorder` (it changes places with the next message). Raises `ValueError` for any other kind or direction.
        """
        if kind not in ("drop", "delay", "hold", "duplicate", "reorder") or direction not in ("in", "out"):
            raise ValueError(f"no link fault is called {kind!r} in direction {direction!r}")
        self._faults.append([direction, self.sent_counts[direction] + number, kind, argument])

    # -- in flight ----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """The number of messages in flight in both directions, control messages included."""
        return len(self._inbound) + len(self._outbound) + len(self._swapped)

    @property
    def is_quiet(self) -> bool:
        """Whether the link is up, nothing is in flight, and each side has received everything that the other sent."""
        return (
            self.is_up
            and not self._inbound
            and not self._outbound
            and not self._swapped
            and self.received_seq == self.in_seq
            and self.venue_in_seq == self.out_seq
            and not self.venue.unanswered_count
        )

    def _enqueue(self, direction: str, item: list[Any], *, counted: bool = True) -> None:
        queue = self._inbound if direction == "in" else self._outbound
        due_ns = self.clock.now_ns + self.latency_ns
        if queue:
            due_ns = max(due_ns, queue[-1][0])
        kind = ""
        if counted:
            if self.on_launch is not None:
                self.on_launch(direction)
            self.sent_counts[direction] += 1
            kind, due_ns = self._apply_fault(direction, due_ns)
        if kind == "drop":
            return
        if kind == "reorder":
            self._swapped[direction] = item
            return
        self._push(queue, direction, due_ns, item)
        if kind == "duplicate":
            self._push(queue, direction, due_ns, item)
        swapped_item = self._swapped.pop(direction, None) if counted else None
        if swapped_item is not None:
            self._push(queue, direction, due_ns, swapped_item)

    def _push(self, queue: deque[list[Any]], direction: str, due_ns: int, item: list[Any]) -> None:
        queue.append([due_ns, *item])
        self.clock.set_timer(due_ns, self.owner, direction)

    def _apply_fault(self, direction: str, due_ns: int) -> tuple[str, int]:
        for fault in self._faults:
            if fault[0] == direction and fault[1] == self.sent_counts[direction]:
                self._faults.remove(fault)
                return fault[2], due_ns + (fault[3] if fault[2] in ("delay", "hold") else 0)
        return "", due_ns

    def _timer(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "in":
            self._arrive_in()
        elif name == "out":
            self._arrive_out()
        elif name == "logon":
            if args[1] == self.incarnation:  # a logon of a former incarnation has no effect
                self._logon(args[0])
        elif name == "down":
            if args[0] == self.incarnation and self.end.listener is not None:
                self.end.listener.on_down("disconnected")
        elif name == "heartbeat":
            self.clock.set_timer(self.clock.now_ns + self.venue.policy.heartbeat_ns, self.owner, "heartbeat")
            if self.is_venue_up:
                swapped_item = self._swapped.pop("in", None)
                if swapped_item is not None:
                    self._push(self._inbound, "in", self.clock.now_ns, swapped_item)
                self._enqueue("in", ["heartbeat", self.in_seq], counted=False)

    def _arrive_in(self) -> None:
        if not self._inbound or self._inbound[0][0] > self.clock.now_ns:
            return
        item = self._inbound.popleft()
        listener = self.end.listener
        kind = item[1]
        if kind == "up":
            self.is_up = True
            self.out_seq = item[3] - 1
        elif kind == "app" and item[2] == self.received_seq + 1:
            self.received_seq = item[2]
        elif kind == "reset":
            self.received_seq = item[2] - 1
        if listener is None:
            return
        if kind == "app":
            listener.on_message(item[2], item[3], item[4])
            if self.on_deliver is not None:
                self.on_deliver("in")
        elif kind == "up":
            listener.on_up(item[2], item[3])
        elif kind == "down":
            listener.on_down(item[2])
        elif kind == "reset":
            listener.on_sequence_reset(item[2])
        else:
            listener.on_heartbeat(item[2])

    def _arrive_out(self) -> None:
        if not self._outbound or self._outbound[0][0] > self.clock.now_ns:
            return
        _, kind, seq, message = self._outbound.popleft()
        if kind == "resend":
            if self.is_venue_up:  # a request from a dropped connection gets no answer
                self._resend_from(seq)
            return
        if seq <= self.venue_in_seq:
            return  # a duplicate
        self.venue_in_seq = seq
        self.venue.receive(message)
        if self.on_deliver is not None:
            self.on_deliver("out")

    # -- memory -------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Any:
        """Return a checkpoint for `rollback` in the same process."""
        return (
            (
                self.is_up,
                self.is_venue_up,
                self.is_allowed,
                self.refusal,
                self.refused_until_ns,
                self.epoch,
                self.incarnation,
            ),
            (self.out_seq, self.venue_in_seq, self.in_seq, self.received_seq, self._history_from, self.recovery),
            dict(self.sent_counts),
            list(self._inbound),
            list(self._outbound),
            list(self._history),
            [list(fault) for fault in self._faults],
            dict(self._swapped),
            self.end,
            self.end.listener,
            self.end.is_dead,
        )

    def rollback(self, checkpoint: Any) -> None:
        """Restore the state of a checkpoint."""
        state, seqs, sent_counts, incoming, outgoing, history, faults, swap, end, listener, is_dead = checkpoint
        (
            self.is_up,
            self.is_venue_up,
            self.is_allowed,
            self.refusal,
            self.refused_until_ns,
            self.epoch,
            self.incarnation,
        ) = state
        self.out_seq, self.venue_in_seq, self.in_seq, self.received_seq, self._history_from, self.recovery = seqs
        self.sent_counts = dict(sent_counts)
        self._inbound, self._outbound, self._swapped = deque(incoming), deque(outgoing), dict(swap)
        self._history = list(history)
        self._faults = [list(fault) for fault in faults]
        self.end = end
        end.listener, end.is_dead = listener, is_dead

    def to_bytes(self) -> bytes:
        """Return the state of the link as bytes, messages in flight included."""
        return msgspec.msgpack.encode(
            {
                "recovery": self.recovery,
                "state": [
                    self.is_up,
                    self.is_venue_up,
                    self.is_allowed,
                    self.refusal,
                    self.refused_until_ns,
                    self.epoch,
                    self.incarnation,
                ],
                "seqs": [self.out_seq, self.venue_in_seq, self.in_seq, self.received_seq, self._history_from],
                "sent": self.sent_counts,
                "in": list(self._inbound),
                "out": list(self._outbound),
                "swap": self._swapped,
                "history": self._history,
                "faults": self._faults,
            }
        )

    def restore_bytes(self, state: bytes) -> None:
        """Restore the state from bytes. Raises `msgspec.MsgspecError` when they are damaged."""
        content = msgspec.msgpack.decode(state)
        (
            self.is_up,
            self.is_venue_up,
            self.is_allowed,
            self.refusal,
            self.refused_until_ns,
            self.epoch,
            self.incarnation,
        ) = content["state"]
        self.recovery = content["recovery"]
        self.out_seq, self.venue_in_seq, self.in_seq, self.received_seq, self._history_from = content["seqs"]
        self.sent_counts, self._faults = content["sent"], content["faults"]
        self._inbound = deque(_decode_item(item, Inbound) for item in content["in"])
        self._outbound = deque(_decode_item(item, Outbound) for item in content["out"])
        self._swapped = {
            direction: _decode_item(item, Inbound if direction == "in" else Outbound)
            for direction, item in content["swap"].items()
        }
        self._history = [msgspec.convert(message, Inbound) for message in content["history"]]


def _decode_item(item: list[Any], kind: Any) -> list[Any]:
    """Decode the message inside an item, if it has one."""
    return [msgspec.convert(part, kind) if isinstance(part, dict) else part for part in item]
