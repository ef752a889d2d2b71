"""What a live run stands on, of its configuration: instruments and their hours, the plan, components, sources."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final

import msgspec

from holdover.harness.live import DaysToCome
from holdover.harness.snapshot import Snapshot
from holdover.harness.subject import Factory, Plan
from holdover.model import Instrument
from holdover.recording import RecordingStore
from holdover.recording.calendar import Hours, hours
from holdover.recording.tap import read_instrument
from holdover.shadow.components import ComponentTable
from holdover.shadow.config import BadShadow, ShadowConfig
from holdover.shadow.feeds import Feed, LineFeed, TapFeed
from holdover.world import Clock, Mirror, Venue, VenuePolicy

INPUTS: Final = "inputs.db"
_QUIET_S: Final = 600.0
"""How long an incumbent may have nothing to say of its orders, where the configuration does not say."""


def instruments_of(config: ShadowConfig) -> list[Instrument]:
    """The instruments, in the order of the configuration. Raises `BadShadow`, `BadRecording`."""
    found = [read_instrument(config.path(told)) for told in config.input.instruments]
    calendars = sorted({one.calendar for one in found})
    if len(calendars) > 1:
        raise BadShadow(f"[input] instruments are of {' and '.join(calendars)}: a session has one calendar")
    symbols = [one.symbol for one in found]
    if len(set(symbols)) < len(symbols):
        raise BadShadow(f"[input] instruments are {', '.join(symbols)}: each should be there once")
    return found


def begins_with(config: ShadowConfig, instruments: Sequence[Instrument]) -> Snapshot:
    """The state that the candidate begins with. Raises `BadShadow`, `BadSnapshot`."""
    told = config.candidate.snapshot
    state = Snapshot.open(config.path(told))
    symbols = [one.symbol for one in instruments]
    if state.about.symbols != symbols:
        raise BadShadow(
            f"[candidate] snapshot {told} is of {', '.join(state.about.symbols)}, [input] instruments are "
            f"{', '.join(symbols)}; they should be the same, in the same order"
        )
    if state.about.phase != "night" or state.about.redacted:
        what = "redacted" if state.about.redacted else f"taken when its session was {state.about.phase}"
        raise BadShadow(f"[candidate] snapshot {told} was {what}; it should be whole, and taken at the end of a day")
    return state


def traded(config: ShadowConfig, instruments: Sequence[Instrument]) -> dict[str, tuple[int, int]]:
    """What a plan may suppose of a day: the mean of the recorded days that the configuration names."""
    if not config.candidate.recordings:
        return {}
    store = RecordingStore(config.path(config.candidate.recordings))
    found: dict[str, tuple[int, int]] = {}
    for one in instruments:
        metas = [store.get(one.symbol, day).meta for day in store.days(one.symbol)]
        if metas:
            found[one.symbol] = (
                sum(meta.traded_qty for meta in metas) // len(metas),
                sum(meta.trades for meta in metas) // len(metas),
            )
    return found


def hours_of(config: ShadowConfig, calendar: str, trade_date: str) -> Hours:
    """A session's hours: those of the configuration, where it has any."""
    found, told = hours(calendar, trade_date), config.input
    if told.open is None or told.close is None:
        return found
    day = date.fromisoformat(trade_date)
    open_ns, close_ns = (
        int(datetime.combine(day, at, UTC).timestamp()) * 1_000_000_000 for at in (told.open, told.close)
    )
    return msgspec.structs.replace(found, open_ns=open_ns, close_ns=close_ns)


def try_subject(
    config: ShadowConfig, factory: Factory, days: DaysToCome, instruments: Sequence[Instrument], day: str
) -> None:
    """What is wrong with the subject's own settings is said before anything begins."""
    told = config.candidate
    metas = [days.get(one.symbol, day).meta for one in instruments]
    if told.snapshot and not (config.directory / INPUTS).exists():
        begins_with(config, instruments)
    factory(Plan(days=metas, seed=told.seed, faults=tuple(told.faults), settings=told.settings))


def components_of(config: ShadowConfig) -> list[ComponentTable]:
    """The components that a live run has of itself, and those of the configuration."""
    deadlines = {"incumbent": max(config.clock.deadline_s, _QUIET_S)}
    named = [one.name for one in config.components]
    own = ["candidate", "market data", *(["incumbent"] if config.input.reports else [])]
    return [
        *(
            ComponentTable(name=name, deadline_s=deadlines.get(name, config.clock.deadline_s))
            for name in own
            if name not in named
        ),
        *config.components,
    ]


def feeds_of(config: ShadowConfig, instruments: Sequence[Instrument], places: dict[str, bytes]) -> dict[str, Feed]:
    """The sources, each from where it stood."""
    told = config.input
    market = config.path(told.market)
    found: dict[str, Feed] = {
        "market data": TapFeed(market, instruments, places.get("market data"))
        if market.is_dir()
        else LineFeed("m", told.market, market, places.get("market data"))
    }
    if told.reports:
        found["incumbent"] = LineFeed("r", told.reports, config.path(told.reports), places.get("incumbent"))
    return found


def venue_of(config: ShadowConfig, clock: Clock, instruments: Sequence[Instrument], policy: VenuePolicy) -> Venue:
    """The simulated venue: one that follows the incumbent's reports, where the configuration names any."""
    if not config.input.reports:
        return Venue(clock, instruments, policy)
    patience_ns = round(config.input.patience_ms * 1e6)
    return Mirror(clock, instruments, policy, match=config.divergence.match, patience_ns=patience_ns)
