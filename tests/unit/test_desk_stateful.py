"""The desk under a synthetic stateful test, as a fair practitioner writes one without recorded days.

Hypothesis makes up the market, what the strategies are asked for, cuts and restarts; every example begins from a fresh
state with a venue of its own, inside one trading day. The guard's catalogue is the oracle, which is more than most such
tests have. `run_stateful` runs it with a seeded fault on, so that what it finds can be set beside what others find.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from holdover.adapters.desk import DeskSubject
from holdover.catalogue import Catalogue
from holdover.desk import DeskConfig, Strategy
from holdover.harness.subject import Env, Plan, RecordedMarket, SubjectClock, SubjectGuard
from holdover.model import Instrument, Order, PositionEffect, Side, TimeInForce
from holdover.runtime import Guard, GuardSettings
from holdover.world import SimulatedLink, Venue, VirtualClock

DATE, OPEN_NS = "2024-11-27", 1_732_717_800_000_000_000
CLOSE_NS = OPEN_NS + 6 * 3_600_000_000_000
SECOND_NS = 1_000_000_000
INSTRUMENT = Instrument(symbol="SYN", venue="SIM", lot_size="1", tick_size="0.01", currency="USD", calendar="XNYS")
CATALOGUE = Catalogue.load()
_QUOTE, _TRADE = 1, 2


def _strategy(name: str, account: str, side: Side, **options: Any) -> Strategy:
    return Strategy(
        name=name, account=account, symbol="SYN", side=side, order_qty=50_000, day_qty=20_000, slice_qty=100, **options
    )


CONFIG = DeskConfig(
    instruments=[INSTRUMENT],
    strategies=[
        _strategy("buy.SYN", "A1", Side.BUY, time_in_force=TimeInForce.GTC, rests=True, offset=1),
        _strategy(
            "close.SYN", "A1", Side.SELL, position_effect=PositionEffect.CLOSE, algorithm="participation", offset=1
        ),
        _strategy("short.SYN", "A2", Side.SELL, time_in_force=TimeInForce.GTC, algorithm="standing", rests=True),
    ],
    synced=False,
)


class BreachFoundError(AssertionError):
    """The guard has found a breach."""


class DeskMachine(RuleBasedStateMachine):
    """One example: a desk and a venue, from nothing, on a made-up market."""

    faults: ClassVar[tuple[str, ...]] = ()
    last: ClassVar[dict[str, Any]] = {}
    runs: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        self.directory = Path(tempfile.mkdtemp(prefix="stateful-"))
        self.steps = 0
        self.clock = VirtualClock(OPEN_NS - 30 * SECOND_NS)
        self.venue = Venue(self.clock, [INSTRUMENT])
        self.link = SimulatedLink(self.clock, self.venue, CONFIG.accounts())
        self.guard = Guard(
            self.directory / "guard",
            GuardSettings(instruments=[INSTRUMENT]),
            catalogue=CATALOGUE,
            clock=lambda: self.clock.now_ns,
            channels=[],
        )
        self.guard.evidence.is_quiet = True
        self.venue.reports.observe = lambda record: self.guard.record("venue", record)
        self.mid, self.traded = 10_000, 0
        self.env: Env | None = None

    @initialize()
    def open_the_day(self) -> None:
        """The venue opens, the desk comes up, a first quote."""
        self.venue.begin(DATE, OPEN_NS, CLOSE_NS)
        self._start()
        self._advance(31)
        self.quote(0, 1, 300)

    def _start(self) -> None:
        self.env = Env(
            clock=SubjectClock(self.clock),
            link=self.link.attach(),
            market=RecordedMarket(self.venue),
            directory=self.directory / "desk",
            guard=SubjectGuard(self.guard, lambda subsystem, record: None),
            trade_date=DATE,
            open_ns=OPEN_NS,
            close_ns=CLOSE_NS,
            instruments=[INSTRUMENT],
        )
        self.desk = DeskSubject(Plan(days=[], faults=type(self).faults, settings={"desk": CONFIG}))
        self.desk.start(self.env)

    def _advance(self, seconds: int) -> None:
        end_ns = self.clock.now_ns + seconds * SECOND_NS
        while self.clock.next_ns <= end_ns:
            self.clock.run_until(self.clock.next_ns)
            if self.link.is_quiet and self.env is not None:
                subject_guard = self.env.guard
                if subject_guard.reconciled_date:
                    recovered, subject_guard.recovered_subsystems, subject_guard.reconciled_date = (
                        subject_guard.recovered_subsystems,
                        [],
                        "",
                    )
                    self.guard.reconciled(DATE, recovered)
                else:
                    self.guard.quiescent()
        self.clock.run_until(end_ns)

    # -- the market -----------------------------------------------------------------------------------------------

    @rule(seconds=st.integers(1, 120))
    def tick(self, seconds: int) -> None:
        """Time passes."""
        self._advance(seconds)

    @rule(move=st.integers(-3, 3), spread=st.integers(1, 4), size=st.integers(1, 400))
    def quote(self, move: int, spread: int, size: int) -> None:
        """The market moves."""
        self.mid += move
        now_ns = self.clock.now_ns
        self.venue.on_market((now_ns, 0, _QUOTE, 0, 0, 0, 0, self.mid, self.mid + spread, size, size))
        self._advance(1)

    @rule(offset=st.integers(-3, 4), size=st.integers(1, 900))
    def trade(self, offset: int, size: int) -> None:
        """Somebody trades."""
        self.venue.on_market((self.clock.now_ns, 0, _TRADE, 0, 0, self.mid + offset, size, 0, 0, 0, 0))
        self._advance(1)

    # -- the strategies and the venue -----------------------------------------------------------------------------

    @rule(strategy=st.integers(0, 2), lots=st.integers(1, 200), ticks=st.integers(-2, 3))
    def submit(self, strategy: int, lots: int, ticks: int) -> None:
        """A strategy sends a slice."""
        self.desk.perform("submit", strategy, lots, ticks)

    @rule(number=st.integers(0, 5), move=st.integers(-3, 3))
    def change(self, number: int, move: int) -> None:
        """A strategy cancels an order, or reprices it."""
        orders = self.guard.monitor.records(Order, "orders")
        live = [
            record
            for record in orders.values()
            if isinstance(record, Order) and record.is_open and not record.is_pending
        ]
        if live:
            order = live[number % len(live)]
            if move and order.price is not None:
                self.desk.perform("replace", order.key, order.price + move)
            else:
                self.desk.perform("cancel", order.key)

    @rule(number=st.integers(0, 5))
    def venue_cancels(self, number: int) -> None:
        """The venue cancels an order unasked."""
        live = [order for order in self.venue.orders.values() if order.is_open]
        if live:
            self.venue.cancel_order(live[number % len(live)].cl_ord_id)

    # -- transitions ----------------------------------------------------------------------------------------------

    @rule(lose_out=st.booleans(), recovery=st.sampled_from(("replay", "drop")))
    def disconnect(self, lose_out: bool, recovery: str) -> None:
        """The link is cut with what is on its way."""
        self.link.recovery = recovery
        self.link.disconnect(lose_out=lose_out)

    @rule(seconds=st.integers(1, 30))
    def reconnect(self, seconds: int) -> None:
        """Connections are possible again."""
        self.link.reconnect()
        self._advance(seconds)

    @rule(seconds=st.integers(0, 60))
    def restart(self, seconds: int) -> None:
        """The desk is stopped between two events, and comes up again after a while."""
        if self.env is None:
            return
        self.desk.stop()
        self.env.kill()
        self.env = None
        self.guard.steps.mark_subject_down()
        self.link.detach()
        self.clock.cancel_owner("subject")
        self._advance(seconds)
        self.guard.reload()
        self._start()
        self._advance(2)

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_breached(self) -> None:
        """The guard has nothing to say."""
        self.steps += 1
        if self.guard.breaches:
            # Shrinking tries longer ones again at its end: what it hands back is the shortest that it has met.
            shortest = min(self.steps - 1, type(self).last.get("steps", self.steps))
            type(self).last = {"invariant": self.guard.breaches[0].invariant, "steps": shortest}
            raise BreachFoundError(self.guard.breaches[0].explanation)

    def teardown(self) -> None:
        """Let go of everything."""
        self.guard.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def run_stateful(fault: str | None, examples: int, *, shrink: bool = True) -> tuple[str | None, int, float, int]:
    """Run the machine with a fault on, or none.

    Returns the invariant that was found breached (None: none was), how many examples ran, shrinking included, how many
    seconds it took, and how many rules the shrunk failing example has.
    """
    machine = type("Machine", (DeskMachine,), {"faults": (fault,) if fault else (), "last": {}, "runs": 0})
    began = time.perf_counter()
    with contextlib.suppress(BreachFoundError):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                derandomize=True,
                database=None,
                deadline=None,
                print_blob=False,
                report_multiple_bugs=False,
                phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
    elapsed_s = time.perf_counter() - began
    return machine.last.get("invariant"), machine.runs, elapsed_s, machine.last.get("steps", 0)


def test_the_desk_holds_on_a_made_up_market() -> None:
    """From fresh states, with cuts and restarts between events, nothing is breached."""
    invariant, runs, _, _ = run_stateful(None, 25)
    assert invariant is None
    assert runs >= 25


def test_a_fault_in_a_restart_is_found_by_it() -> None:
    """It is no straw man: a fault that needs no more than a fill and a restart is found."""
    invariant, _, _, _ = run_stateful("risk-starts-flat", 100, shrink=False)
    assert invariant == "positions-agree"
