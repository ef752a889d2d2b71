"""Selects the days to test with: the smallest set that shows every kind of market day, with a reason for each."""

from __future__ import annotations

import msgspec
from tqdm import tqdm

from holdover.recording.format import FLAG_CROSSED, FLAG_ONE_SIDED, HALT, QUOTE, STATUS, TRADE, Recording


class DayProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The character of one recorded day in its regular session. Sizes in lots, prices in ticks, gaps in ns."""

    symbol: str
    trade_date: str
    traded_qty: int
    trades: int
    quotes: int
    events_per_second_max: int
    gap_ns_max: int
    crossed: int
    one_sided: int
    spread_median: int
    spread_p99: int
    range_ticks: int
    halts: int
    early_close: bool


class DayChoice(msgspec.Struct, frozen=True):
    """A selected day and the reason for it."""

    symbol: str
    trade_date: str
    moods: list[str]
    reason: str


def profile_day(recording: Recording) -> DayProfile:
    """Compute the profile of a day."""
    meta = recording.meta
    trades = quotes = crossed = one_sided = halts = traded = 0
    low, high, before, gap = 2**62, 0, 0, 0
    second, in_second, busiest = -1, 0, 0
    spreads: dict[int, int] = {}
    for ts, _, rtype, flags, _, price, size, bid_px, ask_px, _, _ in recording.events(meta.open_ns, meta.close_ns):
        if before and ts - before > gap:
            gap = ts - before
        before = ts
        if ts // 1_000_000_000 == second:
            in_second += 1
        else:
            busiest = max(busiest, in_second)
            second, in_second = ts // 1_000_000_000, 1
        if rtype == TRADE:
            trades += 1
            traded += size
            low, high = min(low, price), max(high, price)
        elif rtype == QUOTE:
            quotes += 1
            crossed += bool(flags & FLAG_CROSSED)
            if flags & FLAG_ONE_SIDED:
                one_sided += 1
            else:
                spreads[ask_px - bid_px] = spreads.get(ask_px - bid_px, 0) + 1
        elif rtype == STATUS and flags == HALT:
            halts += 1
    return DayProfile(
        symbol=meta.instrument.symbol,
        trade_date=meta.trade_date,
        traded_qty=traded,
        trades=trades,
        quotes=quotes,
        events_per_second_max=max(busiest, in_second),
        gap_ns_max=gap,
        crossed=crossed,
        one_sided=one_sided,
        spread_median=_quantile(spreads, 0.5),
        spread_p99=_quantile(spreads, 0.99),
        range_ticks=high - low if high else 0,
        halts=halts,
        early_close=meta.early_close,
    )


def choose_days(recordings: list[Recording], days: int, *, quiet: bool = False) -> list[DayChoice]:
    """Select at most `days` days an instrument that together show every mood available.

    Greedy set cover: each round takes the day that adds the most moods, and the earlier day on a tie. Raises
    `ValueError` when `days` is below 1.
    """
    if days < 1:
        raise ValueError(f"--days is {days}, should be 1 or more")
    profiles = [
        profile_day(recording)
        for recording in tqdm(recordings, unit="day", disable=True if quiet else None, leave=False)
    ]
    choices: list[DayChoice] = []
    for symbol in dict.fromkeys(day_profile.symbol for day_profile in profiles):
        symbol_profiles = sorted(
            (day_profile for day_profile in profiles if day_profile.symbol == symbol),
            key=lambda day_profile: day_profile.trade_date,
        )
        moods = _moods(symbol_profiles)
        uncovered = dict.fromkeys(mood for shown in moods.values() for mood in shown)
        for _ in range(days):
            if not uncovered:
                break
            best_profile = max(
                symbol_profiles,
                key=lambda day_profile: sum(mood in uncovered for mood in moods[day_profile.trade_date]),
            )
            shows = [mood for mood in moods[best_profile.trade_date] if mood in uncovered]
            reason = "; ".join(moods[best_profile.trade_date][mood] for mood in shows)
            choices.append(
                DayChoice(symbol, best_profile.trade_date, shows, f"{best_profile.trade_date} is in: {reason}")
            )
            for mood in shows:
                uncovered.pop(mood)
    return choices


def _moods(profiles: list[DayProfile]) -> dict[str, dict[str, str]]:
    """Return the moods of each day with a sentence for each: the extremes among the days, halts and early closes."""
    shown: dict[str, dict[str, str]] = {day_profile.trade_date: {} for day_profile in profiles}

    def add_extreme(mood: str, value: str, sentence: str, *, least: bool = False) -> None:
        values = [getattr(day_profile, value) for day_profile in profiles]
        extreme = min(values) if least else max(values)
        if not least and not extreme:
            return
        day = profiles[values.index(extreme)]
        shown[day.trade_date][mood] = sentence.format(_format_value(value, extreme))

    add_extreme("heavy", "traded_qty", "heaviest volume ({})")
    add_extreme("thin", "traded_qty", "thinnest volume ({})", least=True)
    add_extreme("burst", "events_per_second_max", "strongest burst ({} events in one second)")
    add_extreme("gap", "gap_ns_max", "longest gap ({})")
    add_extreme("wide", "spread_p99", "widest spreads (99th percentile {} ticks)")
    add_extreme("range", "range_ticks", "widest range ({} ticks)")
    add_extreme("calm", "range_ticks", "narrowest range ({} ticks)", least=True)
    add_extreme("crossed", "crossed", "most crossed quotes ({})")
    add_extreme("one-sided", "one_sided", "most one-sided quotes ({})")
    add_extreme("halt", "halts", "a halt ({})")
    for day_profile in profiles:
        if day_profile.early_close:
            shown[day_profile.trade_date]["early-close"] = "an early close"
    return shown


def _format_value(value: str, number: int) -> str:
    return f"{number / 1e9:.0f} s" if value.endswith("_ns_max") else f"{number:,}"


def _quantile(counts: dict[int, int], share: float) -> int:
    total = sum(counts.values())
    passed = 0
    for value in sorted(counts):
        passed += counts[value]
        if passed >= total * share:
            return value
    return 0
