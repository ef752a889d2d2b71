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
from holdover.explore.walk import Ground, new_session
from holdover.harness import Session, disk
from holdover.model import MsgType, Order, Outbound, Record, Request
from holdover.recording import bundled

pytestmark = pytest.mark.state
SCOPES: list[tuple[str, Callable[[Request], str]]] = [
    ("breach", lambda one: f"instrument:{one.symbol}"),
    ("system", lambda one: "system"),
    ("account", lambda one: f"account:{one.account}"),
    ("strategy", lambda one: f"strategy:{one.strategy}"),
    ("instrument", lambda one: f"instrument:{one.symbol}"),
    ("account and instrument", lambda one: f"account:{one.account}/instrument:{one.symbol}"),
    ("link", lambda one: f"link:{one.link}"),
    ("order", lambda one: f"order:{one.root_cl_ord_id}"),
    ("subsystem", lambda one: "subsystem:risk"),
]
GOES_ON_NS = 15_000_000_000  # a quarter of a minute of the market, in which the desk looks three times


class Leaks:
    """Plays a day; at each request about to leave a fork breaks something and looks what leaves after it."""

    def __init__(self, session: Session, place: Path) -> None:
        self.session, self.place = session, place
        self.trials: list[tuple[str, int]] = []
        self._record = session.guard.record
        self._pipe = -1
        self._until_ns = 0
        self._scope: Callable[[Request], bool] = lambda request: False
        self._leaks = 0

    def day(self, day: str, until: float) -> None:
        """Play the day, or its first part."""
        session = self.session
        session.begin(day)
        session.guard.record = self.record  # type: ignore[method-assign]
        sending = session.link.on_send

        def sent(message: Outbound) -> None:
            if sending is not None:
                sending(message)
            self.sent(message)

        session.link.on_send = sent
        try:
            session.run(until)
        except BaseException:
            if self._pipe < 0:
                raise
            self._leaks += 1_000
        if self._pipe >= 0:
            self.over()

    def record(self, subsystem: str, record: Record) -> None:
        """The last mutation before a request leaves is the request's own."""
        if self._pipe < 0 and subsystem == "gateway" and isinstance(record, Request):
            self.branch(record)
        self._record(subsystem, record)
        if self._pipe >= 0 and self.session.clock.now_ns > self._until_ns:
            self.over()

    def branch(self, request: Request) -> None:
        """Break something in a fork, and hear what came of it."""
        what, scope = SCOPES[len(self.trials) % len(SCOPES)]
        held = disk.Held(self.session.subject_directory, self.place / "held")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            self._pipe, self._until_ns = write, self.session.clock.now_ns + GOES_ON_NS
            self.break_it(what, scope(request))
            chosen = scope(request)
            self._scope = lambda other: what == "subsystem" or scope(other) == chosen
            return
        os.close(write)
        with os.fdopen(read, "rb") as answers:
            told = answers.read()
        os.waitpid(child, 0)
        held.give_back()
        self.trials.append((what, int(told) if told else -1))

    def break_it(self, what: str, scope: str) -> None:
        """A breach in the middle of the step, or a freeze by hand."""
        guard = self.session.guard
        if what != "breach":
            guard.freeze(scope, operator="ann", reason="to see", allows=["cancel"])
            return
        symbol = scope.partition(":")[2]
        orders = guard.monitor.layout.tables[("orders", Order)].values()
        broken = next(one for one in orders if isinstance(one, Order) and one.symbol == symbol)
        self._record("orders", msgspec.structs.replace(broken, leaves_qty=broken.leaves_qty + 7))
        assert any(freeze.scope == scope for freeze in guard.frozen)

    def sent(self, message: Outbound) -> None:
        """Something is on the wire."""
        if self._pipe >= 0 and isinstance(message, Request) and self._scope(message):
            self._leaks += message.msg_type != MsgType.ORDER_CANCEL_REQUEST

    def over(self) -> None:
        """A fork answers and ends."""
        with os.fdopen(self._pipe, "wb") as answers:
            answers.write(b"%d" % self._leaks)
        os._exit(0)


@pytest.mark.parametrize(("until", "least"), [(0.25, 20), pytest.param(1.0, 100, marks=pytest.mark.slow)])
def test_nothing_leaves_between_cause_and_freeze(
    tmp_path: Path, catalogue: Catalogue, until: float, least: int
) -> None:
    """At every request of a day that carries partly filled orders: zero leaks, the request at hand not counted out."""
    days = [one.meta.trade_date for one in bundled().list() if one.meta.instrument.symbol == "ACME"]
    ground = Ground(symbols=["ACME"], days=days, day=days[1])
    session: Any = new_session(ground, tmp_path / "session", catalogue, bundled())
    session.begin(days[0])
    session.run()
    session.end()
    session.overnight()
    orders = session.guard.monitor.layout.tables[("orders", Order)].values()
    assert any(one.cum_qty and one.leaves_qty for one in orders)
    sent: list[Request] = []
    leaks = Leaks(session, tmp_path)
    tell = leaks.sent

    def count(message: Outbound) -> None:
        tell(message)
        if isinstance(message, Request):
            sent.append(message)

    leaks.sent = count  # type: ignore[method-assign]
    leaks.day(days[1], until)
    assert len(leaks.trials) == len(sent) > least
    assert [one for one in leaks.trials if one[1] != 0] == []
    session.close()
