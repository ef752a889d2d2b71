"""Between cause and freeze nothing leaves: tried at every order, cancel and replace of a recorded day with a past.

At the moment at which a message is about to leave, something breaks: in a fork of the process an invariant is breached,
or a person freezes a scope that the message lies in. The day goes on, and nothing of that scope may reach the wire, the
message at hand included, but what the freeze allows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdover.catalogue import Catalogue
from holdover.explore.walk import SweepSpec, make_walk_session
from holdover.harness import Session, disk
from holdover.model import MsgType, Order, Outbound, Record, Request
from holdover.recording import bundled_store

pytestmark = pytest.mark.state
SCOPES: list[tuple[str, Callable[[Request], str]]] = [
    ("breach", lambda request: f"instrument:{request.symbol}"),
    ("system", lambda request: "system"),
    ("account", lambda request: f"account:{request.account}"),
    ("strategy", lambda request: f"strategy:{request.strategy}"),
    ("instrument", lambda request: f"instrument:{request.symbol}"),
    ("account and instrument", lambda request: f"account:{request.account}/instrument:{request.symbol}"),
    ("link", lambda request: f"link:{request.link}"),
    ("order", lambda request: f"order:{request.root_cl_ord_id}"),
    ("subsystem", lambda request: "subsystem:risk"),
]
FOLLOW_NS = 15_000_000_000  # a quarter of a minute of the market, in which the desk looks three times


class LeakProbe:
    """Plays a day; at each request about to leave a fork breaks something and looks what leaves after it."""

    def __init__(self, session: Session, directory: Path) -> None:
        self.session, self.directory = session, directory
        self.trials: list[tuple[str, int]] = []
        self._record = session.guard.record
        self._pipe = -1
        self._until_ns = 0
        self._scope: Callable[[Request], bool] = lambda request: False
        self._leaks = 0

    def play_day(self, day: str, day_share: float) -> None:
        """Play the day, or its first part."""
        session = self.session
        session.begin(day)
        session.guard.record = self.record  # type: ignore[method-assign]
        sending = session.link.on_send

        def on_send(message: Outbound) -> None:
            if sending is not None:
                sending(message)
            self.on_sent(message)

        session.link.on_send = on_send
        try:
            session.run(day_share)
        except BaseException:
            if self._pipe < 0:
                raise
            self._leaks += 1_000
        if self._pipe >= 0:
            self.finish_fork()

    def record(self, subsystem: str, record: Record) -> None:
        """The last mutation before a request leaves is the request's own."""
        if self._pipe < 0 and subsystem == "gateway" and isinstance(record, Request):
            self.fork_trial(record)
        self._record(subsystem, record)
        if self._pipe >= 0 and self.session.clock.now_ns > self._until_ns:
            self.finish_fork()

    def fork_trial(self, request: Request) -> None:
        """Break something in a fork, and hear what came of it."""
        cause, scope = SCOPES[len(self.trials) % len(SCOPES)]
        saved_directory = disk.DirectoryCheckpoint(self.session.disk.directory, self.directory / "held")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            self._pipe, self._until_ns = write, self.session.clock.now_ns + FOLLOW_NS
            self.apply_cause(cause, scope(request))
            target_scope = scope(request)
            self._scope = lambda candidate: cause == "subsystem" or scope(candidate) == target_scope
            return
        os.close(write)
        with os.fdopen(read, "rb") as answers:
            answer = answers.read()
        os.waitpid(child, 0)
        saved_directory.restore()
        self.trials.append((cause, int(answer) if answer else -1))

    def apply_cause(self, cause: str, scope: str) -> None:
        """A breach in the middle of the step, or a freeze by hand."""
        guard = self.session.guard
        if cause != "breach":
            guard.freeze(scope, operator="ann", reason="to see", allows=["cancel"])
            return
        symbol = scope.partition(":")[2]
        orders = guard.monitor.records(Order, "orders").values()
        broken = next(order for order in orders if isinstance(order, Order) and order.symbol == symbol)
        self._record("orders", msgspec.structs.replace(broken, leaves_qty=broken.leaves_qty + 7))
        assert any(freeze.scope == scope for freeze in guard.active_freezes)

    def on_sent(self, message: Outbound) -> None:
        """Something is on the wire."""
        if self._pipe >= 0 and isinstance(message, Request) and self._scope(message):
            self._leaks += message.msg_type != MsgType.ORDER_CANCEL_REQUEST

    def finish_fork(self) -> None:
        """A fork answers and ends."""
        with os.fdopen(self._pipe, "wb") as answers:
            answers.write(b"%d" % self._leaks)
        os._exit(0)


@pytest.mark.parametrize(("day_share", "trials_min"), [(0.25, 20), pytest.param(1.0, 100, marks=pytest.mark.slow)])
def test_nothing_leaves_between_cause_and_freeze(
    tmp_path: Path, catalogue: Catalogue, day_share: float, trials_min: int
) -> None:
    """At every request of a day that carries partly filled orders: zero leaks, the request at hand not counted out."""
    days = [
        recording.meta.trade_date
        for recording in bundled_store().list_recordings()
        if recording.meta.instrument.symbol == "ACME"
    ]
    spec = SweepSpec(symbols=["ACME"], days=days, day=days[1])
    session: Any = make_walk_session(spec, tmp_path / "session", catalogue, bundled_store())
    session.begin(days[0])
    session.run()
    session.end()
    session.overnight()
    orders = session.guard.monitor.records(Order, "orders").values()
    assert any(order.cum_qty and order.leaves_qty for order in orders)
    sent_requests: list[Request] = []
    leaks = LeakProbe(session, tmp_path)
    on_sent = leaks.on_sent

    def count(message: Outbound) -> None:
        on_sent(message)
        if isinstance(message, Request):
            sent_requests.append(message)

    leaks.on_sent = count  # type: ignore[method-assign]
    leaks.play_day(days[1], day_share)
    assert len(leaks.trials) == len(sent_requests) > trials_min
    assert [trial for trial in leaks.trials if trial[1] != 0] == []
    session.close()
