"""The timeline of a schedule: plays it again and collects the data for its page."""

from __future__ import annotations

from pathlib import Path

from holdover.catalogue import Catalogue
from holdover.harness.cycle import Arm, CycleBreach, CycleResult, DayObserver, DayRun, with_final_cause
from holdover.harness.player import Player
from holdover.harness.schedule import Schedule
from holdover.model import Record
from holdover.recording import RecordingStore
from holdover.runtime import Breach


def build_timeline(schedule: Schedule, store: RecordingStore, directory: Path, catalogue: Catalogue) -> CycleResult:
    """Play a schedule to its first breach and return the data of the cycle page, with one arm."""
    player = Player(schedule, store, directory, catalogue=catalogue, journal=False, to_breach=True)
    session = player.session
    arm = Arm("carried")
    watches: list[DayObserver] = []
    counts: list[tuple[int, int, int]] = []

    def begin_day() -> None:
        if arm.days and arm.days[-1].trade_date == session.trade_date:
            return
        run = DayRun(session.trade_date, *session.hours(), 0, 0, 0, 0, 0, 0)
        arm.days.append(run)
        watches.append(DayObserver(session, run))
        counts.append(
            (session.player.market_events, session.guard.monitor.mutations, session.guard.monitor.check_count)
        )

    def record_mutation(subsystem: str, record: Record) -> None:
        begin_day()  # the subject records before `on_begin` is called, when it starts on carried state
        watches[-1].record(subsystem, record)

    def breached(breach: Breach) -> None:
        arm.breaches.append(
            CycleBreach(
                "carried",
                session.trade_date,
                breach,
                session.guard.recorder.describe_last(24),
                guard=str(session.guard.location),
            )
        )

    player.on_begin, player.on_mutation, session.guard.evidence.on_breach = begin_day, record_mutation, breached
    try:
        play_result = player.play()
        ends = [
            *counts[1:],
            (session.player.market_events, session.guard.monitor.mutations, session.guard.monitor.check_count),
        ]
        for run, watch, begin, end in zip(arm.days, watches, counts, ends, strict=True):
            run.market_events, run.mutations, run.checks = (new - old for old, new in zip(begin, end, strict=True))
            watch.finish_day()
        arm.breaches[:] = [with_final_cause(item, session) for item in arm.breaches]
        arm.transitions, arm.carried = list(session.transitions), list(session.carried)
        arm.frozen = [freeze.scope for freeze in session.guard.active_freezes]
        arm.leaked = len(session.host.leaked_requests)
        arm.pages = session.guard.store.all_pages()
        arm.active = session.guard.monitor.evaluation_counts()
    finally:
        player.close()
    metas = [store.get(recording.symbol, recording.trade_date).meta for recording in schedule.recordings]
    return CycleResult(
        verdict=play_result.verdict,
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
