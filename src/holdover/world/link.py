"""The link: an ordered, unreliable connection with sequence numbers, and messages in flight both ways.

What is sent takes time to arrive and can be cut off on the way. Sequence numbers are FIX's: each direction counts its
messages, a receiver notices a gap and asks for what it missed, and the venue either replays it (marked PossDup) or
passes over it with a sequence reset, so that the client has to ask what became of its orders.
Source: FIX 4.4 volume 2, session protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from holdover.model import Inbound, Outbound
from holdover.world.clock import Clock
from holdover.world.venue import Venue


class LinkDown(ConnectionError):
    """A message was to be sent on a link that is not up."""


class Listener(Protocol):
    """What hears the subject's end of a link."""

    def on_up(self, epoch: int, out_seq: int) -> None:
        """The link has come up; the venue expects `out_seq` next."""

    def on_down(self, reason: str) -> None:
        """The link has gone down, or a logon was refused."""

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """A message of the venue."""

    def on_sequence_reset(self, new_seq: int) -> None:
        """The next message will carry `new_seq`."""

    def on_heartbeat(self, seq: int) -> None:
        """The last message that the venue sent was `seq`."""


class End:
    """The subject's end. A dead end (its subject was killed) does nothing, whoever still holds it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.name = link.name
        self.dead = False
        self.listener: Listener | None = None

    @property
    def up(self) -> bool:
        """Whether messages can be sent."""
        return self._link.up and not self.dead

    @property
    def epoch(self) -> int:
        """How often the link has come up."""
        return self._link.epoch

    def listen(self, listener: Listener) -> None:
        """Who hears what arrives."""
        self.listener = listener

    def connect(self, next_in_seq: int, next_out_seq: int) -> None:
        """Ask for a logon."""
        if not self.dead:
            self._link.logon(next_in_seq)

    def send(self, message: Outbound) -> int:
        """Send; returns the sequence number. Raises `LinkDown` when the link is not up."""
        if self.dead:
            return self._link.out_seq
        return self._link.send(message)

    def resend(self, begin_seq: int) -> None:
        """Ask for everything from `begin_seq` on again."""
        if self.up:
            self._link.request_resend(begin_seq)

    def disconnect(self) -> None:
        """Log out."""
        if not self.dead:
            self._link.cut("logged out", lose_out=False, tell=False)


class Link:
    """One connection between one subject and the venue, for some accounts.

    `on_send(message)` sees each application message as it leaves the subject; `on_launch(direction)` each one as it is
    put on the way (`"in"` to the subject, `"out"` to the venue), before any fault is done to it, and
    `on_deliver(direction)` each one that has been taken in. Latencies are of one way, in nanoseconds.
    """

    def __init__(self, clock: Clock, venue: Venue, accounts: Iterable[str], name: str = "VENUE") -> None:
        self.clock, self.venue, self.name = clock, venue, name
        self.owner = f"link:{name}"
        self.latency_ns = venue.policy.latency_ns
        self.recovery: str = venue.policy.recovery
        self.up = False
        self.venue_up = False
        self.allowed = True
        self.refusal = ""
        self.refused_until_ns = 0
        self.epoch = 0
        self.lives = 0
        self.out_seq = 0
        self.venue_in_seq = 0
        self.in_seq = 0
        self.heard = 0
        self.on_send: Callable[[Outbound], None] | None = None
        self.on_deliver: Callable[[str], None] | None = None
        self.on_launch: Callable[[str], None] | None = None
        self.sent = {"in": 0, "out": 0}
        self._in: deque[list[Any]] = deque()
        self._out: deque[list[Any]] = deque()
        self._history: list[Inbound] = []
        self._history_from = 1
        self._faults: list[list[Any]] = []
        self._swap: dict[str, list[Any]] = {}
        self.end = End(self)
        clock.register(self.owner, self._timer)
        venue.attach(accounts, self.deliver)
        # Off the round times at which timers of a subject stand: at one and the same instant order would be chance.
        clock.at(clock.now_ns + venue.policy.heartbeat_ns + 7, self.owner, "heartbeat")

    # -- the subject's side -------------------------------------------------------------------------------------

    def logon(self, next_in_seq: int) -> None:
        """A logon is on its way to the venue."""
        self.clock.at(self.clock.now_ns + self.latency_ns, self.owner, "logon", next_in_seq, self.lives)

    def send(self, message: Outbound) -> int:
        """A message leaves the subject. Raises `LinkDown`."""
        if not self.up:
            raise LinkDown(f"{self.name} is down: {type(message).__name__} {message.key} cannot be sent")
        if self.on_send is not None:
            self.on_send(message)
        self.out_seq += 1
        self._launch("out", ["app", self.out_seq, message])
        return self.out_seq

    def is_on_its_way(self, message: Outbound) -> bool:
        """Whether this very message of the subject has left it and has not arrived at the venue yet."""
        return any(item[-1] is message for item in self._out)

    def request_resend(self, begin_seq: int) -> None:
        """A resend request leaves the subject."""
        self._launch("out", ["resend", begin_seq, None], counted=False)

    def attach(self) -> End:
        """A new life of the subject gets an end of its own."""
        self.end = End(self)
        self.lives += 1
        return self.end

    def detach(self) -> None:
        """The subject is dead: what it had sent still arrives, what was coming to it is lost."""
        self.lives += 1  # a logon of this life that is on its way still is nobody's
        self.end.dead = True
        self.end.listener = None
        self.cut("killed", lose_out=False, tell=False)

    # -- the venue's side ---------------------------------------------------------------------------------------

    def deliver(self, message: Inbound) -> None:
        """A message leaves the venue; while the link is down it is only numbered."""
        self.in_seq += 1
        self._history.append(message)
        if self.venue_up:
            self._launch("in", ["app", self.in_seq, False, message])

    def _logon(self, next_in_seq: int) -> None:
        refused = self.clock.now_ns < self.refused_until_ns
        if not self.allowed or refused:
            if refused:
                self._launch("in", ["down", self.refusal], counted=False)
            else:
                self._launch("in", ["down", "no connection"], counted=False)
            return
        self._out.clear()
        self.venue_up = True
        self.epoch += 1
        self._launch("in", ["up", self.epoch, self.venue_in_seq + 1], counted=False)
        self.heard = min(next_in_seq - 1, self.in_seq)
        self._recover(next_in_seq)

    def _recover(self, begin_seq: int) -> None:
        """Everything from `begin_seq` on again, or the word that it will not come."""
        if begin_seq > self.in_seq + 1:
            # The client is ahead of us: we have begun a new day, and go through it from its first message.
            self._launch("in", ["reset", self._history_from], counted=False)
            begin_seq = self._history_from
        if self.recovery == "drop" or begin_seq < self._history_from:
            if begin_seq <= self.in_seq:
                self._launch("in", ["reset", self.in_seq + 1], counted=False)
            return
        for seq in range(begin_seq, self.in_seq + 1):
            self._launch("in", ["app", seq, True, self._history[seq - self._history_from]])

    # -- cutting ------------------------------------------------------------------------------------------------

    def cut(self, reason: str, *, lose_out: bool, tell: bool = True) -> None:
        """The connection goes: what was coming in is lost, what was going out arrives or is lost as told."""
        told = self._hopes()
        self.up = self.venue_up = False
        self._in.clear()
        self._swap.clear()
        if lose_out:
            self._out.clear()
        listener = self.end.listener
        if tell and told and listener is not None:
            listener.on_down(reason)

    def _hopes(self) -> bool:
        """Whether the subject has a connection, or waits for the answer to a logon that a cut takes away."""
        return self.up or self.venue_up or bool(self._in)

    def sever(self, *, lose_out: bool = False) -> None:
        """Cut the link in the middle of whatever the subject is doing: it hears of it when that is done."""
        told = self._hopes()
        self.allowed = False
        self.cut("disconnected", lose_out=lose_out, tell=False)
        if told:
            self.clock.at(self.clock.now_ns, self.owner, "down", self.lives)

    def disconnect(self, *, lose_out: bool = False, reason: str = "disconnected") -> None:
        """Cut the link and keep it cut until `reconnect`."""
        self.allowed = False
        self.cut(reason, lose_out=lose_out)

    def reconnect(self) -> None:
        """Connections are possible again; the subject connects by itself."""
        self.allowed = True

    def refuse(self, reason: str, until_ns: int) -> None:
        """Logons are refused until a time, and the present connection is ended (a 401 in the middle of the day)."""
        self.refusal, self.refused_until_ns = reason, until_ns
        self.cut(reason, lose_out=False)

    def overnight(self) -> None:
        """Between two trading days: sequence numbers start again where the venue does that."""
        self.cut("end of day", lose_out=True, tell=False)
        if self.venue.policy.reset_seq_overnight:
            self.in_seq = self.out_seq = self.venue_in_seq = self.heard = 0
            self._history, self._history_from = [], 1

    # -- faults -------------------------------------------------------------------------------------------------

    def fault(self, direction: str, number: int, kind: str, argument: int = 0) -> None:
        """Do something to the `number`-th message from now in a direction (`in`, `out`).

        Kinds: `drop`, `delay` and `hold` (by `argument` nanoseconds; what follows waits behind it), `duplicate`,
        `reorder` (it changes places with the next one). Raises `ValueError` for another kind.
        """
        if kind not in ("drop", "delay", "hold", "duplicate", "reorder") or direction not in ("in", "out"):
            raise ValueError(f"no link fault is called {kind!r} in direction {direction!r}")
        self._faults.append([direction, self.sent[direction] + number, kind, argument])

    # -- in flight ----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """How many messages are on their way, both directions, control messages included."""
        return len(self._in) + len(self._out) + len(self._swap)

    @property
    def quiet(self) -> bool:
        """Whether it is up, nothing is on its way, and each side has heard all that the other said."""
        return (
            self.up
            and not self._in
            and not self._out
            and not self._swap
            and self.heard == self.in_seq
            and self.venue_in_seq == self.out_seq
            and not self.venue.holding
        )

    def _launch(self, direction: str, item: list[Any], *, counted: bool = True) -> None:
        queue = self._in if direction == "in" else self._out
        due = self.clock.now_ns + self.latency_ns
        if queue:
            due = max(due, queue[-1][0])
        kind = ""
        if counted:
            if self.on_launch is not None:
                self.on_launch(direction)
            self.sent[direction] += 1
            kind, due = self._faulted(direction, due)
        if kind == "drop":
            return
        if kind == "reorder":
            self._swap[direction] = item
            return
        self._push(queue, direction, due, item)
        if kind == "duplicate":
            self._push(queue, direction, due, item)
        held = self._swap.pop(direction, None) if counted else None
        if held is not None:
            self._push(queue, direction, due, held)

    def _push(self, queue: deque[list[Any]], direction: str, due: int, item: list[Any]) -> None:
        queue.append([due, *item])
        self.clock.at(due, self.owner, direction)

    def _faulted(self, direction: str, due: int) -> tuple[str, int]:
        for fault in self._faults:
            if fault[0] == direction and fault[1] == self.sent[direction]:
                self._faults.remove(fault)
                return fault[2], due + (fault[3] if fault[2] in ("delay", "hold") else 0)
        return "", due

    def _timer(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "in":
            self._arrive_in()
        elif name == "out":
            self._arrive_out()
        elif name == "logon":
            if args[1] == self.lives:  # a logon of a life that has ended since is nobody's
                self._logon(args[0])
        elif name == "down":
            if args[0] == self.lives and self.end.listener is not None:
                self.end.listener.on_down("disconnected")
        elif name == "heartbeat":
            self.clock.at(self.clock.now_ns + self.venue.policy.heartbeat_ns, self.owner, "heartbeat")
            if self.venue_up:
                held = self._swap.pop("in", None)
                if held is not None:
                    self._push(self._in, "in", self.clock.now_ns, held)
                self._launch("in", ["heartbeat", self.in_seq], counted=False)

    def _arrive_in(self) -> None:
        if not self._in or self._in[0][0] > self.clock.now_ns:
            return
        item = self._in.popleft()
        listener = self.end.listener
        kind = item[1]
        if kind == "up":
            self.up = True
            self.out_seq = item[3] - 1
        elif kind == "app" and item[2] == self.heard + 1:
            self.heard = item[2]
        elif kind == "reset":
            self.heard = item[2] - 1
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
        if not self._out or self._out[0][0] > self.clock.now_ns:
            return
        _, kind, seq, message = self._out.popleft()
        if kind == "resend":
            if self.venue_up:  # asked on a connection that has gone since, it is answered on none
                self._recover(seq)
            return
        if seq <= self.venue_in_seq:
            return  # heard before: a duplicate
        self.venue_in_seq = seq
        self.venue.receive(message)
        if self.on_deliver is not None:
            self.on_deliver("out")

    # -- memory -------------------------------------------------------------------------------------------------

    def keep(self) -> Any:
        """What may change from here on, for `put_back` in the same process."""
        return (
            (self.up, self.venue_up, self.allowed, self.refusal, self.refused_until_ns, self.epoch, self.lives),
            (self.out_seq, self.venue_in_seq, self.in_seq, self.heard, self._history_from, self.recovery),
            dict(self.sent),
            list(self._in),
            list(self._out),
            list(self._history),
            [list(fault) for fault in self._faults],
            dict(self._swap),
            self.end,
            self.end.listener,
            self.end.dead,
        )

    def put_back(self, kept: Any) -> None:
        """Make it what it was when `keep` was called."""
        state, seqs, sent, incoming, outgoing, history, faults, swap, end, listener, dead = kept
        self.up, self.venue_up, self.allowed, self.refusal, self.refused_until_ns, self.epoch, self.lives = state
        self.out_seq, self.venue_in_seq, self.in_seq, self.heard, self._history_from, self.recovery = seqs
        self.sent = dict(sent)
        self._in, self._out, self._swap = deque(incoming), deque(outgoing), dict(swap)
        self._history = list(history)
        self._faults = [list(fault) for fault in faults]
        self.end = end
        end.listener, end.dead = listener, dead

    def dump(self) -> bytes:
        """Everything on and about the link, messages in flight included."""
        return msgspec.msgpack.encode(
            {
                "recovery": self.recovery,
                "state": [
                    self.up,
                    self.venue_up,
                    self.allowed,
                    self.refusal,
                    self.refused_until_ns,
                    self.epoch,
                    self.lives,
                ],
                "seqs": [self.out_seq, self.venue_in_seq, self.in_seq, self.heard, self._history_from],
                "sent": self.sent,
                "in": list(self._in),
                "out": list(self._out),
                "swap": self._swap,
                "history": self._history,
                "faults": self._faults,
            }
        )

    def load(self, state: bytes) -> None:
        """Take up a dumped state. Raises `msgspec.MsgspecError` when it is damaged."""
        held = msgspec.msgpack.decode(state)
        (
            self.up,
            self.venue_up,
            self.allowed,
            self.refusal,
            self.refused_until_ns,
            self.epoch,
            self.lives,
        ) = held["state"]
        self.recovery = held["recovery"]
        self.out_seq, self.venue_in_seq, self.in_seq, self.heard, self._history_from = held["seqs"]
        self.sent, self._faults = held["sent"], held["faults"]
        self._in = deque(_revived(item, Inbound) for item in held["in"])
        self._out = deque(_revived(item, Outbound) for item in held["out"])
        self._swap = {way: _revived(item, Inbound if way == "in" else Outbound) for way, item in held["swap"].items()}
        self._history = [msgspec.convert(one, Inbound) for one in held["history"]]


def _revived(item: list[Any], kind: Any) -> list[Any]:
    """A dumped item with its message, if it carries one, turned back into what it was."""
    return [msgspec.convert(part, kind) if isinstance(part, dict) else part for part in item]
