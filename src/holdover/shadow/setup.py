"""Setup of a live run from its configuration: instruments and hours, the plan, components, feeds and the venue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final

import msgspec

from holdover.harness.live_session import FutureDayStore
from holdover.harness.snapshot import Snapshot
from holdover.harness.subject import Factory, Plan
from holdover.model import Instrument
from holdover.recording import RecordingStore
from holdover.recording.calendar import SessionHours, hours
from holdover.recording.tap import read_instrument
from holdover.shadow.components import ComponentTable
from holdover.shadow.config import ShadowConfig, ShadowConfigError
from holdover.shadow.feed import IncumbentFeed, LineFeed, TapFeed
from holdover.world import ReplicatingVenue, Venue, VenuePolicy, VirtualClock

INPUTS: Final = "inputs.db"
_INCUMBENT_DEADLINE_S: Final = 600.0
"""How long the incumbent may be silent about its orders, unless the configuration sets a deadline."""


def read_instruments(config: ShadowConfig) -> list[Instrument]:
    """Read the instruments, in the order of the configuration.

    Raises `ShadowConfigError` when they do not fit together and `RecordingError` when one cannot be read.
    """
    instruments = [read_instrument(config.resolve_path(path)) for path in config.input.instruments]
    calendars = sorted({instrument.calendar for instrument in instruments})
    if len(calendars) > 1:
        raise ShadowConfigError(f"[input] instruments are of {' and '.join(calendars)}: a session has one calendar")
    symbols = [instrument.symbol for instrument in instruments]
    if len(set(symbols)) < len(symbols):
        raise ShadowConfigError(f"[input] instruments are {', '.join(symbols)}: each should be there once")
    return instruments


def load_start_snapshot(config: ShadowConfig, instruments: Sequence[Instrument]) -> Snapshot:
    """Load the snapshot that the candidate starts from.

    Raises `ShadowConfigError` when it is of other instruments, redacted or not taken at the end of a day, and
    `SnapshotError` when it cannot be read.
    """
    snapshot_path = config.candidate.snapshot
    state = Snapshot.open(config.resolve_path(snapshot_path))
    symbols = [instrument.symbol for instrument in instruments]
    if state.info.symbols != symbols:
        raise ShadowConfigError(
            f"[candidate] snapshot {snapshot_path} is of {', '.join(state.info.symbols)}, [input] instruments are "
            f"{', '.join(symbols)}; they should be the same, in the same order"
        )
    if state.info.phase != "night" or state.info.redacted:
        condition = "redacted" if state.info.redacted else f"taken when its session was {state.info.phase}"
        raise ShadowConfigError(
            f"[candidate] snapshot {snapshot_path} was {condition}; it should be whole, and taken at the end of a day"
        )
    return state


def average_traded(config: ShadowConfig, instruments: Sequence[Instrument]) -> dict[str, tuple[int, int]]:
    """Returns (traded quantity, trades) per symbol: the mean of the recorded days that the configuration names."""
    if not config.candidate.recordings:
        return {}
    store = RecordingStore(config.resolve_path(config.candidate.recordings))
    averages: dict[str, tuple[int, int]] = {}
    for instrument in instruments:
        metas = [store.get(instrument.symbol, day).meta for day in store.days(instrument.symbol)]
        if metas:
            averages[instrument.symbol] = (
                sum(meta.traded_qty for meta in metas) // len(metas),
                sum(meta.trades for meta in metas) // len(metas),
            )
    return averages


def session_hours_on(config: ShadowConfig, calendar: str, trade_date: str) -> SessionHours:
    """Returns the hours of a session; the configured hours replace those of the calendar."""
    session_hours, input_table = hours(calendar, trade_date), config.input
    if input_table.open is None or input_table.close is None:
        return session_hours
    day = date.fromisoformat(trade_date)
    open_ns, close_ns = (
        int(datetime.combine(day, at, UTC).timestamp()) * 1_000_000_000 for at in (input_table.open, input_table.close)
    )
    return msgspec.structs.replace(session_hours, open_ns=open_ns, close_ns=close_ns)


def check_subject(
    config: ShadowConfig, factory: Factory, days: FutureDayStore, instruments: Sequence[Instrument], day: str
) -> None:
    """Create the subject once, so that errors in its settings show before the run starts."""
    candidate = config.candidate
    metas = [days.get(instrument.symbol, day).meta for instrument in instruments]
    if candidate.snapshot and not (config.directory / INPUTS).exists():
        load_start_snapshot(config, instruments)
    factory(Plan(days=metas, seed=candidate.seed, faults=tuple(candidate.faults), settings=candidate.settings))


def list_components(config: ShadowConfig) -> list[ComponentTable]:
    """Returns the built-in components of a live run and those of the configuration."""
    deadlines = {"incumbent": max(config.clock.deadline_s, _INCUMBENT_DEADLINE_S)}
    configured_names = [component.name for component in config.components]
    builtin_names = ["candidate", "market data", *(["incumbent"] if config.input.reports else [])]
    return [
        *(
            ComponentTable(name=name, deadline_s=deadlines.get(name, config.clock.deadline_s))
            for name in builtin_names
            if name not in configured_names
        ),
        *config.components,
    ]


def open_feeds(
    config: ShadowConfig, instruments: Sequence[Instrument], offsets: dict[str, bytes]
) -> dict[str, IncumbentFeed]:
    """Open the feeds at their saved offsets."""
    input_table = config.input
    market = config.resolve_path(input_table.market)
    feeds: dict[str, IncumbentFeed] = {
        "market data": TapFeed(market, instruments, offsets.get("market data"))
        if market.is_dir()
        else LineFeed("m", input_table.market, market, offsets.get("market data"))
    }
    if input_table.reports:
        feeds["incumbent"] = LineFeed(
            "r", input_table.reports, config.resolve_path(input_table.reports), offsets.get("incumbent")
        )
    return feeds


def make_venue(
    config: ShadowConfig, clock: VirtualClock, instruments: Sequence[Instrument], policy: VenuePolicy
) -> Venue:
    """Create the simulated venue; it replicates the incumbent's reports when the configuration names them."""
    if not config.input.reports:
        return Venue(clock, instruments, policy)
    patience_ns = round(config.input.patience_ms * 1e6)
    return ReplicatingVenue(clock, instruments, policy, match=config.divergence.match, patience_ns=patience_ns)
