"""The link: an ordered, unreliable connection with sequence numbers and messages in flight in both directions.

A message takes time to arrive and can be lost when the link is cut. Sequence numbers follow FIX: each
direction counts its messages, and a receiver that notices a gap requests a resend. The venue either replays
the messages (marked PossDup) or skips them with a sequence reset, and then the client has to query the state
of its orders. Source: FIX 4.4 volume 2, session protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, Protocol, cast, get_args

import msgspec

from holdover.model import ImpossibleStateError, Inbound, Outbound
from holdover.state import StateError, Stateful
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


Direction = Literal["in", "out"]
"""The direction of a message: `in` to the subject, `out` to the venue."""

MessageKind = Literal["app", "resend", "reset", "up", "down", "heartbeat"]
FaultKind = Literal["drop", "delay", "hold", "duplicate", "reorder"]


class LinkMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message in flight.

    `app` carries a message of the application with its sequence number, `resend` and `reset` the number from which the
    other side shall send or will send, `up` the epoch and the number that the venue expects, `down` a reason,
    `heartbeat` the number of the venue's last message.
    """

    kind: MessageKind
    seq: int = 0
    message: Inbound | Outbound | None = None
    poss_dup: bool = False
    epoch: int = 0
    reason: str = ""


class LinkFault(msgspec.Struct, frozen=True):
    """A fault that waits for the `number`-th message of a direction."""

    direction: Direction
    number: int
    kind: FaultKind
    delay_ns: int


class SimulatedLinkEndState(msgspec.Struct):
    """The state of a `SimulatedLinkEnd`."""

    is_dead: bool


class SimulatedLinkEnd(Stateful[SimulatedLinkEndState]):
    """The subject's end of the link. After the subject is killed, its methods do nothing."""

    State = SimulatedLinkEndState
    IN_PROCESS: ClassVar = {"listener": "the subject's object"}
    DERIVED: ClassVar = {"_link": "the link that made this end", "name": "the name of the link"}

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


class SimulatedLinkState(msgspec.Struct):
    """The state of a `SimulatedLink`, messages in flight included; each is stored with the time when it is due."""

    recovery: str
    is_up: bool
    is_venue_up: bool
    is_allowed: bool
    refusal: str
    refused_until_ns: int
    epoch: int
    incarnation: int
    out_seq: int
    venue_in_seq: int
    in_seq: int
    received_seq: int
    sent_counts: dict[str, int]
    inbound: deque[tuple[int, LinkMessage]]
    outbound: deque[tuple[int, LinkMessage]]
    history: list[Inbound]
    history_from: int
    faults: list[LinkFault]
    swapped: dict[Direction, LinkMessage]


class SimulatedLink(Stateful[SimulatedLinkState]):
    """One connection between a subject and the venue, for some accounts.

    `on_send(message)` is called for each application message that leaves the subject. `on_launch(direction)` is
    called for each message that is put in flight (`"in"` to the subject, `"out"` to the venue), before any fault
    applies, and `on_deliver(direction)` for each message that was delivered. Latencies are one-way, in ns.
    """

    State = SimulatedLinkState
    IN_PROCESS: ClassVar = {"end": "the subject's end; each incarnation has its own"}
    DERIVED: ClassVar = {
        "clock": "a part of the world that saves itself",
        "venue": "a part of the world that saves itself",
        "accounts": "configuration, set once",
        "name": "configuration, set once",
        "owner": "follows from the name",
        "latency_ns": "the venue's policy",
        "on_send": "a hook of the harness, set again in each process",
        "on_deliver": "a hook of the harness, set again in each process",
        "on_launch": "a hook of the harness, set again in each process",
    }

    def __init__(self, clock: VirtualClock, venue: Venue, accounts: Iterable[str], name: str = "VENUE") -> None:
        self.clock, self.venue, self.name = clock, venue, name
        self.accounts = list(accounts)
        if not name:
            raise ValueError("a link needs a name")
        if len(set(self.accounts)) < len(self.accounts):
            raise ValueError(f"link {name}: an account is listed twice: {', '.join(self.accounts)}")
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
        self._inbound: deque[tuple[int, LinkMessage]] = deque()
        self._outbound: deque[tuple[int, LinkMessage]] = deque()
        self._history: list[Inbound] = []
        self._history_from = 1
        self._faults: list[LinkFault] = []
        self._swapped: dict[Direction, LinkMessage] = {}
        self.end = SimulatedLinkEnd(self)
        clock.register(self.owner, self._timer)
        venue.attach(self.accounts, self.deliver)
        # The 7 ns keep it off the round times of a subject's timers; at equal times the order would be arbitrary.
        clock.set_timer(clock.now_ns + venue.policy.heartbeat_ns + 7, self.owner, "heartbeat")

    # -- the subject's side -------------------------------------------------------------------------------------

    def logon(self, next_in_seq: int) -> None:
        """Send a logon to the venue."""
        if next_in_seq < 1:
            raise ValueError(f"{self.name}: a logon expects message {next_in_seq}; sequence numbers begin with 1")
        self.clock.set_timer(self.clock.now_ns + self.latency_ns, self.owner, "logon", next_in_seq, self.incarnation)

    def send(self, message: Outbound) -> int:
        """Send a message to the venue; return its sequence number. Raises `LinkDownError` when the link is down."""
        if not self.is_up:
            raise LinkDownError(f"{self.name} is down: {type(message).__name__} {message.key} cannot be sent")
        if self.on_send is not None:
            self.on_send(message)
        self.out_seq += 1
        self._enqueue("out", LinkMessage("app", self.out_seq, message))
        return self.out_seq

    def is_message_in_flight(self, message: Outbound) -> bool:
        """Return whether this message object has left the subject and has not arrived at the venue."""
        return any(item.message is message for _, item in self._outbound)

    def request_resend(self, begin_seq: int) -> None:
        """Send a resend request to the venue."""
        if begin_seq < 1:
            raise ValueError(f"{self.name}: a resend from message {begin_seq}; sequence numbers begin with 1")
        self._enqueue("out", LinkMessage("resend", begin_seq), counted=False)

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
            self._enqueue("in", LinkMessage("app", self.in_seq, message))

    def _logon(self, next_in_seq: int) -> None:
        is_refused = self.clock.now_ns < self.refused_until_ns
        if not self.is_allowed or is_refused:
            reason = self.refusal if is_refused else "no connection"
            self._enqueue("in", LinkMessage("down", reason=reason), counted=False)
            return
        self._outbound.clear()
        self.is_venue_up = True
        self.epoch += 1
        self._enqueue("in", LinkMessage("up", self.venue_in_seq + 1, epoch=self.epoch), counted=False)
        self.received_seq = min(next_in_seq - 1, self.in_seq)
        self._resend_from(next_in_seq)

    def _resend_from(self, begin_seq: int) -> None:
        """Resend every message from `begin_seq` on, or send a sequence reset when they will not be resent."""
        if begin_seq > self.in_seq + 1:
            # The client is ahead of the venue, which has begun a new day: send the day from its first message.
            self._enqueue("in", LinkMessage("reset", self._history_from), counted=False)
            begin_seq = self._history_from
        if self.recovery == "drop" or begin_seq < self._history_from:
            if begin_seq <= self.in_seq:
                self._enqueue("in", LinkMessage("reset", self.in_seq + 1), counted=False)
            return
        for seq in range(begin_seq, self.in_seq + 1):
            message = self._history[seq - self._history_from]
            self._enqueue("in", LinkMessage("app", seq, message, poss_dup=True))

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
        if not reason:
            raise ValueError(f"{self.name}: refusing logons needs a reason")
        self.refusal, self.refused_until_ns = reason, until_ns
        self.drop(reason, lose_out=False)

    def overnight(self) -> None:
        """Drop the link between two trading days. Sequence numbers restart when the venue's policy says so."""
        self.drop("end of day", lose_out=True, notify=False)
        if self.venue.policy.reset_seq_overnight:
            self.in_seq = self.out_seq = self.venue_in_seq = self.received_seq = 0
            self._history.clear()
            self._history_from = 1

    # -- faults -------------------------------------------------------------------------------------------------

    def inject_fault(self, direction: str, number: int, kind: str, argument: int = 0) -> None:
        """Apply a fault to the `number`-th message from now in a direction (`in`, `out`).

        Kinds: `drop`; `delay` and `hold` (by `argument` ns; later messages wait behind it); `duplicate`;
        `reorder` (it changes places with the next message). Raises `ValueError` for any other kind or direction,
        a number below 1, or a negative delay.
        """
        if kind not in get_args(FaultKind) or direction not in get_args(Direction):
            raise ValueError(f"no link fault is called {kind!r} in direction {direction!r}")
        if number < 1 or argument < 0:
            raise ValueError(f"a link fault needs a message number from 1 and a delay from 0 ns: {number}, {argument}")
        self._faults.append(
            LinkFault(cast(Direction, direction), self.sent_counts[direction] + number, cast(FaultKind, kind), argument)
        )

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

    def _enqueue(self, direction: Direction, item: LinkMessage, *, counted: bool = True) -> None:
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

    def _push(
        self, queue: deque[tuple[int, LinkMessage]], direction: Direction, due_ns: int, item: LinkMessage
    ) -> None:
        queue.append((due_ns, item))
        self.clock.set_timer(due_ns, self.owner, direction)

    def _apply_fault(self, direction: Direction, due_ns: int) -> tuple[str, int]:
        for fault in self._faults:
            if fault.direction == direction and fault.number == self.sent_counts[direction]:
                self._faults.remove(fault)
                return fault.kind, due_ns + (fault.delay_ns if fault.kind in ("delay", "hold") else 0)
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
                    # Behind what is in flight: a message that is due before its predecessor would never be taken.
                    due_ns = max(self.clock.now_ns, self._inbound[-1][0]) if self._inbound else self.clock.now_ns
                    self._push(self._inbound, "in", due_ns, swapped_item)
                self._enqueue("in", LinkMessage("heartbeat", self.in_seq), counted=False)
        else:
            raise ImpossibleStateError(f"{self.name} has no timer called {name!r}")

    def _arrive_in(self) -> None:
        if not self._inbound or self._inbound[0][0] > self.clock.now_ns:
            return
        _, item = self._inbound.popleft()
        listener = self.end.listener
        kind, seq = item.kind, item.seq
        if kind == "up":
            self.is_up = True
            self.out_seq = seq - 1
        elif kind == "app" and seq == self.received_seq + 1:
            self.received_seq = seq
        elif kind == "reset":
            self.received_seq = seq - 1
        if listener is None:
            return
        if kind == "app":
            listener.on_message(seq, item.poss_dup, cast(Inbound, item.message))
            if self.on_deliver is not None:
                self.on_deliver("in")
        elif kind == "up":
            listener.on_up(item.epoch, seq)
        elif kind == "down":
            listener.on_down(item.reason)
        elif kind == "reset":
            listener.on_sequence_reset(seq)
        elif kind == "heartbeat":
            listener.on_heartbeat(seq)
        else:
            raise ImpossibleStateError(f"{self.name}: a message of kind {kind!r} cannot arrive at the subject")

    def _arrive_out(self) -> None:
        if not self._outbound or self._outbound[0][0] > self.clock.now_ns:
            return
        _, item = self._outbound.popleft()
        if item.kind == "resend":
            if self.is_venue_up:  # a request from a dropped connection gets no answer
                self._resend_from(item.seq)
            return
        if item.kind != "app":
            raise ImpossibleStateError(f"{self.name}: a message of kind {item.kind!r} cannot arrive at the venue")
        if item.seq <= self.venue_in_seq:
            return  # a duplicate
        self.venue_in_seq = item.seq
        self.venue.receive(cast(Outbound, item.message))
        if self.on_deliver is not None:
            self.on_deliver("out")

    # -- state --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Any:
        """Return the state as it is now, for `rollback` in the same process, with that of the present end."""
        return super().checkpoint(), self.end.checkpoint()

    def rollback(self, checkpoint: Any) -> None:
        """Restore the state of a checkpoint, and the end that was attached then."""
        link, end = checkpoint
        super().rollback(link)
        self.end.rollback(end)

    def take_state(self, state: SimulatedLinkState) -> None:
        """Take over a decoded state.

        Raises `StateError` when the numbers of the sent messages contradict each other, or messages in flight overtake
        each other.
        """
        problem = _find_contradiction(state)
        if problem:
            raise StateError(f"the stored state of SimulatedLink is damaged: {problem}")
        super().take_state(state)


def _find_contradiction(state: SimulatedLinkState) -> str:
    """Return what cannot be true in a link's state; empty when nothing contradicts it."""
    if state.in_seq != state.history_from - 1 + len(state.history):
        return (
            f"the venue's last message is number {state.in_seq}, but {len(state.history)} messages from number "
            f"{state.history_from} on are stored"
        )
    if min(state.out_seq, state.venue_in_seq, state.in_seq, state.received_seq, state.epoch, state.incarnation) < 0:
        return "a sequence number, the epoch or the incarnation is negative"
    if state.history_from < 1:
        return f"the stored messages begin with number {state.history_from}, should be from 1 on"
    if state.recovery not in ("replay", "drop"):
        return f"the recovery is {state.recovery!r}, should be replay or drop"
    if state.is_up and not state.is_venue_up:
        return "the link is up for the subject and down for the venue"
    if state.received_seq > state.in_seq:
        return f"the subject has received number {state.received_seq}, but the venue has sent {state.in_seq}"
    for direction, queue in (("in", state.inbound), ("out", state.outbound)):
        due_times = [due_ns for due_ns, _ in queue]
        if due_times != sorted(due_times):
            return f"messages in flight in direction {direction!r} overtake each other"
    for name in ("in", "out"):
        if state.sent_counts.get(name, -1) < 0:
            return f"the count of messages sent in direction {name!r} is missing or negative"
    return ""
