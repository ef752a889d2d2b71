"""The running day of a live shadow: its hours, its time, and the sessions of the candidate and its copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from holdover.catalogue import Catalogue
from holdover.harness.live_session import FutureDayStore, LiveSession
from holdover.harness.session import SessionConfig
from holdover.harness.snapshot import Snapshot, take_snapshot
from holdover.harness.subject import Factory
from holdover.model import Instrument
from holdover.recording import MarketEvent
from holdover.recording.calendar import session_at
from holdover.runtime.files import make_private_directory
from holdover.runtime.journal import JOURNAL_FILE
from holdover.shadow.config import ShadowConfig, ShadowConfigError
from holdover.shadow.input_store import ShadowDayStart
from holdover.shadow.setup import load_start_snapshot, make_venue

DAYS: Final = "days"
COPY: Final = "copy"
_LEAD_NS: Final = 30_000_000_000
"""How long before the open the sessions begin."""


class CandidateArm:
    """One copy of the candidate: one session a day, with a directory for each run of a day."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.session: LiveSession | None = None

    def make_directory(self, trade_date: str) -> Path:
        """Create the directory for another run of a day. Earlier ones stay, because they hold the guard's audit log."""
        day = self.root / trade_date
        directory = day / f"{len(list(day.glob('[0-9]*'))) + 1:03d}"
        make_private_directory(directory)
        return directory

    def journal_of(self, trade_date: str) -> Path | None:
        """Return the journal of the last run of a day; None when the day has not begun."""
        runs = list((self.root / trade_date).glob("[0-9]*"))
        return max(runs) / JOURNAL_FILE if runs else None

    def trim(self, days_max: int, needed: Sequence[str]) -> str:
        """Delete the files of the earliest days but the last `days_max`, and snapshots that no stored day begins with.

        Args:
            days_max: how many days to keep, from 1; the running day is one of them.
            needed: the names of the snapshots with which a stored day begins.

        Returns the earliest day that is left when one was deleted; empty when none was.
        """
        days = sorted(path.name for path in self.root.glob("????-??-??"))
        deleted, kept = days[:-days_max], days[-days_max:]
        if not deleted:
            return ""
        for path in (self.root / "snapshots").glob("*.hsnap"):
            if path.stem not in needed and Snapshot.open(path).info.trade_date < kept[0]:
                path.unlink()
        for day in deleted:
            shutil.rmtree(self.root / day)
        return kept[0]

    @property
    def journals(self) -> list[Path]:
        """The journal of every day, from the last run of the day."""
        days = sorted(day.name for day in self.root.glob("????-??-??"))
        return [journal for day in days if (journal := self.journal_of(day)) is not None]


class LiveDay:
    """The running day. `now_ns` is the feed's time, `end_ns` the close and the time for late reports after it."""

    def __init__(
        self,
        config: ShadowConfig,
        factory: Factory,
        instruments: Sequence[Instrument],
        days: FutureDayStore,
        catalogue: Catalogue | None,
    ) -> None:
        self.config, self.factory, self.catalogue = config, factory, catalogue
        self.instruments, self.days = list(instruments), days
        self.arms = [CandidateArm(config.directory / DAYS)]
        if config.divergence.copy:
            self.arms.append(CandidateArm(config.directory / COPY))
        self.trade_date = ""
        self.start = ShadowDayStart()
        self.now_ns = self.open_ns = self.close_ns = self.end_ns = 0
        self.early_quotes: dict[int, MarketEvent] = {}

    @property
    def session(self) -> LiveSession | None:
        """The session of the candidate; None outside of the day."""
        return self.arms[0].session

    @property
    def is_over(self) -> bool:
        """Whether the time for late reports has passed."""
        return self.now_ns >= self.end_ns

    def session_at(self, time_ns: int) -> str:
        """Return the trading day that is open at a time, or the next one."""
        instrument = self.instruments[0]
        day = session_at(instrument.calendar, time_ns)
        while (meta := self.days.get(instrument.symbol, day).meta).close_ns <= time_ns:
            day = meta.next_session
        return day

    def set_date(self, trade_date: str) -> None:
        """Go to a day. Raises `ValueError` for one that is before the running day, or while sessions run."""
        if trade_date < self.trade_date or self.session is not None:
            raise ValueError(f"{self.trade_date} cannot be followed by {trade_date} now")
        metas = [self.days.get(instrument.symbol, trade_date).meta for instrument in self.instruments]
        self.trade_date = trade_date
        self.open_ns = min(meta.open_ns for meta in metas)
        self.close_ns = max(meta.close_ns for meta in metas)
        self.end_ns = self.close_ns + round(self.config.input.after_close_s * 1e9)

    def next_date(self) -> str:
        """Return the day after the running one."""
        return self.days.get(self.instruments[0].symbol, self.trade_date).meta.next_session

    def first_start(self, incumbent: bytes) -> ShadowDayStart:
        """Return the start state of the first day, from the configured snapshot.

        Raises `ShadowConfigError` when the snapshot was taken on that day or later.
        """
        snapshot_path = self.config.candidate.snapshot
        names: list[str] = []
        for arm in self.arms if snapshot_path else ():
            state = load_start_snapshot(self.config, self.instruments)
            if state.info.trade_date >= self.trade_date:
                raise ShadowConfigError(
                    f"[candidate] snapshot {snapshot_path} was taken at the end of {state.info.trade_date}; "
                    f"what comes in is of {self.trade_date}, which should be a later day"
                )
            state.save(arm.root / "snapshots")
            names.append(state.name)
        return ShadowDayStart(snapshots=names, incumbent=incumbent)

    def begin_if_due(self) -> bool:
        """Begin the sessions shortly before the open; returns whether it did."""
        if self.session is not None or self.now_ns < self.open_ns - _LEAD_NS:
            return False
        for number, arm in enumerate(self.arms):
            arm.session = self._begin_session(number, arm)
        return True

    def _begin_session(self, number: int, arm: CandidateArm) -> LiveSession:
        candidate = self.config.candidate
        session = LiveSession(
            self.factory,
            self.days,
            [instrument.symbol for instrument in self.instruments],
            arm.make_directory(self.trade_date),
            SessionConfig(
                days=[self.trade_date],
                seed=candidate.seed,
                faults=candidate.faults,
                catalogue=self.catalogue,
                settings=candidate.settings,
                venue=partial(make_venue, self.config),
            ),
        )
        if self.start.snapshots:
            state = Snapshot.open(arm.root / "snapshots" / f"{self.start.snapshots[number]}.hsnap")
            session.restore(state.parts)
        session.clock.run_until(max(self.now_ns, session.clock.now_ns))
        session.player.opening_events = [quote for _, quote in sorted(self.early_quotes.items())]
        session.begin(self.trade_date)
        return session

    def play(self) -> None:
        """Run the sessions to the current time, at most to the close."""
        for arm in self.arms:
            if arm.session is not None:
                arm.session.play(min(self.now_ns + 1, self.close_ns))

    def end(self, on_closed: Callable[[], None], on_night: Callable[[LiveSession], None]) -> None:
        """End the day: each session runs its close and its night, and a snapshot becomes the next day's start.

        `on_closed` is called after the candidate's close, `on_night` with its session after the night.
        """
        names: list[str] = []
        for arm in self.arms:
            session = arm.session
            if session is None:
                continue
            session.end()
            if arm is self.arms[0]:
                on_closed()
            session.overnight()
            state = take_snapshot(session, subject=self.config.candidate.subject)
            state.save(arm.root / "snapshots")
            names.append(state.name)
            if arm is self.arms[0]:
                on_night(session)
            session.close()
            arm.session = None
        self.early_quotes.clear()
        if names:
            self.start = ShadowDayStart(snapshots=names)

    def trim(self, needed: Sequence[str]) -> int:
        """Delete what is older than [shadow] keep_days. Returns when the earliest day that is left began (ns), or 0."""
        days = [arm.trim(self.config.shadow.keep_days, needed) for arm in self.arms]
        earliest = max(days)
        if not earliest:
            return 0
        metas = [self.days.get(instrument.symbol, earliest).meta for instrument in self.instruments]
        return min(meta.open_ns for meta in metas) - _LEAD_NS

    def close(self) -> None:
        """Close the sessions. The next run continues the day."""
        for arm in self.arms:
            if arm.session is not None:
                arm.session.close()
                arm.session = None
