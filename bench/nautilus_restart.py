"""What a restart of NautilusTrader costs under the harness, beside the bare stack in the same world.

    python bench/nautilus_restart.py [--rounds 15]

A cycle is: stop the trader in good order, build its live stack anew on what its cache database holds, start it, log
on, and let its own start-up reconciliation come to its end against the simulated venue. `bare` is that with a guard
that does nothing: nothing is kept, restored, checked or compared. `holdover` has the whole catalogue on. Two sessions
in one process take turns, with one resting order each and with a hundred; medians.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from table import machine, show

from holdover.harness import Session
from holdover.harness.subject import Plan
from holdover.recording import bundled

DAY = "2024-11-27"


def resting(plan: Plan) -> list[Any]:
    """A strategy that does nothing by itself."""
    from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue

    from holdover.adapters.nautilus.strategy import Restless, RestlessConfig

    one = plan.instruments()[0]
    instrument_id = InstrumentId(Symbol(one.symbol), Venue(one.venue))
    return [Restless(RestlessConfig(strategy_id="Rest-001", instrument_id=instrument_id, quantity=1, hours=[]))]


class Nothing:
    """Stands in for every method of a guard that would do something."""

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *raised: object) -> None:
        return None

    def __call__(self, *told: Any, **named: Any) -> Nothing:
        return self


def session_with(place: Path, orders: int) -> Session:
    """A session in the middle of a day, with that many orders resting far from the market."""
    from holdover.adapters.nautilus import NautilusSubject

    session = Session(
        NautilusSubject, bundled(), ["ACME"], place, days=[DAY], settings={"strategy": "nautilus_restart:resting"}
    )
    session.begin(DAY)
    forward(session, 60)
    for number in range(orders):
        assert session.subject is not None
        session.subject.act("submit", 0, 1, -1000 - number)
        forward(session, 1)
    live = [order for order in session.venue.orders.values() if order.is_open]
    assert len(live) == orders, f"{len(live)} orders rest, {orders} should"
    return session


def forward(session: Session, seconds: float) -> None:
    """Let the day run on."""
    session.run(session.clock.now_ns + int(seconds * 1e9))


def unguard(session: Session) -> None:
    """From here on its guard does nothing."""
    for name in ("record", "restore", "boundary", "quiescent", "reconciled", "tick", "reload", "subject_gone", "step"):
        setattr(session.guard, name, Nothing())


def cycle(session: Session) -> float:
    """Seconds of one restart, until it trades again."""
    gc.collect()
    began = time.perf_counter()
    session.restart("clean")
    for _ in range(200):
        stack: Any = session.subject
        if stack.stack.running:
            return time.perf_counter() - began
        session.run(session.clock.now_ns + 5_000_000)
    raise RuntimeError("its reconciliation does not end")


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    told = parser.parse_args()
    rows = []
    for orders in (1, 100):
        with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
            guarded, bare = (session_with(Path(place) / name, orders) for name in ("guarded", "bare"))
            stack.callback(guarded.close)
            unguard(bare)
            pairs = [(cycle(guarded), cycle(bare)) for _ in range(told.rounds + 2)][2:]
            assert guarded.breaches == [], guarded.breaches[0]
            mine, theirs = (statistics.median(side) * 1e3 for side in zip(*pairs, strict=True))
            ratio = statistics.median(one / other for one, other in pairs)
            rows.append({"open orders": orders, "bare ms": theirs, "holdover ms": mine, "ratio": ratio})
    show("nautilus_restart", rows, machine("nautilus_trader"))


if __name__ == "__main__":
    main()
