"""Compare a restart of NautilusTrader under the harness with a restart of the bare stack in the same world.

    python bench/nautilus_restart.py [--rounds 15]

One cycle stops the trader cleanly, rebuilds its live stack from its cache database, starts it, logs on, and
waits until its start-up reconciliation against the simulated venue ends. `bare` has a guard that does
nothing: it stores, restores, checks and compares nothing. `guarded` has the whole catalogue. Two sessions in
one process take turns, with one resting order each and with a hundred. The script prints medians.
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

from table import machine, report_table

from holdover.harness import Session, SessionConfig
from holdover.harness.subject import Plan
from holdover.recording import bundled_store

DAY = "2024-11-27"


def resting(plan: Plan) -> list[Any]:
    """A strategy that does nothing by itself."""
    from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue

    from holdover.adapters.nautilus.strategy import RestlessConfig, RestlessStrategy

    instrument = plan.instruments()[0]
    instrument_id = InstrumentId(Symbol(instrument.symbol), Venue(instrument.venue))
    return [RestlessStrategy(RestlessConfig(strategy_id="Rest-001", instrument_id=instrument_id, quantity=1, hours=[]))]


class NullGuardMethod:
    """Stands in for every method of a guard that would do something."""

    def __enter__(self) -> NullGuardMethod:
        return self

    def __exit__(self, *raised: object) -> None:
        return None

    def __call__(self, *args: Any, **named: Any) -> NullGuardMethod:
        return self


def make_session(directory: Path, orders: int) -> Session:
    """A session in the middle of a day, with that many orders resting far from the market."""
    from holdover.adapters.nautilus import NautilusSubject

    session = Session(
        NautilusSubject,
        bundled_store(),
        ["ACME"],
        directory,
        SessionConfig(
            days=[DAY],
            settings={"strategy": "nautilus_restart:resting"},
        ),
    )
    session.begin(DAY)
    advance(session, 60)
    for number in range(orders):
        assert session.subject is not None
        session.subject.perform("submit", 0, 1, -1000 - number)
        advance(session, 1)
    live = [order for order in session.venue.orders.values() if order.is_open]
    assert len(live) == orders, f"{len(live)} orders rest, {orders} should"
    return session


def advance(session: Session, seconds: float) -> None:
    """Let the day run on."""
    session.run(session.clock.now_ns + int(seconds * 1e9))


def unguard(session: Session) -> None:
    """From here on its guard does nothing."""
    for name in (
        "record",
        "restore",
        "boundary",
        "quiescent",
        "reconciled",
        "tick",
        "reload",
        "mark_subject_down",
        "step",
    ):
        setattr(session.guard, name, NullGuardMethod())


def time_restart(session: Session) -> float:
    """Seconds of one restart, until it trades again."""
    gc.collect()
    began = time.perf_counter()
    session.restart("clean")
    for _ in range(200):
        stack: Any = session.subject
        if stack.stack.is_running:
            return time.perf_counter() - began
        session.run(session.clock.now_ns + 5_000_000)
    raise RuntimeError("its reconciliation does not end")


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    rows = []
    for orders in (1, 100):
        with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
            guarded, bare = (make_session(Path(directory) / name, orders) for name in ("guarded", "bare"))
            stack.callback(guarded.close)
            unguard(bare)
            pairs = [(time_restart(guarded), time_restart(bare)) for _ in range(arguments.rounds + 2)][2:]
            assert guarded.breaches == [], guarded.breaches[0]
            guarded_ms, bare_ms = (statistics.median(side) * 1e3 for side in zip(*pairs, strict=True))
            ratio = statistics.median(guarded_s / bare_s for guarded_s, bare_s in pairs)
            rows.append({"open orders": orders, "bare ms": bare_ms, "guarded ms": guarded_ms, "ratio": ratio})
    report_table("nautilus_restart", rows, machine("nautilus_trader"))


if __name__ == "__main__":
    main()
