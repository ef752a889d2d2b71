"""A schedule's timeline: played once more, with what a page about it draws."""

from __future__ import annotations

from pathlib import Path

from holdover.catalogue import Catalogue
from holdover.explore.play import Player
from holdover.explore.schedule import Schedule
from holdover.harness.cycle import Arm, DayRun, Found, Result, Watch
from holdover.model import Record
from holdover.recording import RecordingStore
from holdover.runtime import Breach


def timeline(schedule: Schedule, store: RecordingStore, place: Path, catalogue: Catalogue) -> Result:
    """What the cycle's page shows, of one arm: the schedule's own, up to its first breach."""
    player = Player(schedule, store, place, catalogue=catalogue, journal=False, to_breach=True)
    session = player.session
    arm = Arm("carried")
    watches: list[Watch] = []
    counts: list[tuple[int, int, int]] = []

    def begun() -> None:
        run = DayRun(session.trade_date, *session.hours(), 0, 0, 0, 0, 0, 0)
        arm.days.append(run)
        watches.append(Watch(session, run))
        counts.append((session.market_events, session.guard.monitor.mutations, session.guard.monitor.checks))

    def heard(subsystem: str, record: Record) -> None:
        watches[-1].record(subsystem, record)

    def breached(breach: Breach) -> None:
        arm.breaches.append(Found("carried", session.trade_date, breach, session.guard.recorder.last(24)))

    player.on_begin, player.also, session.guard.on_breach = begun, heard, breached
    try:
        played = player.play()
        ends = [*counts[1:], (session.market_events, session.guard.monitor.mutations, session.guard.monitor.checks)]
        for run, watch, begin, end in zip(arm.days, watches, counts, ends, strict=True):
            run.market_events, run.mutations, run.checks = (new - old for old, new in zip(begin, end, strict=True))
            watch.finish()
        arm.transitions, arm.carried = list(session.transitions), list(session.carried)
        arm.frozen = [freeze.scope for freeze in session.guard.frozen]
        arm.leaked = len(session.leaked)
        arm.pages = session.guard.store.outbox()
        arm.active = session.guard.monitor.active()
    finally:
        player.close()
    metas = [store.get(one.symbol, one.trade_date).meta for one in schedule.recordings]
    return Result(
        verdict=played.verdict,
        subject=schedule.subject,
        symbols=schedule.symbols,
        days=[run.trade_date for run in arm.days],
        seed=schedule.seed,
        faults=list(schedule.faults),
        schedule=schedule.name or "schedule",
        simulated=any(meta.simulated for meta in metas),
        digest=catalogue.digest,
        invariants=len(catalogue),
        arms=[arm],
        divergences=[],
    )
