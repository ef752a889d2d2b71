"""Choose the days to test with: the smallest set that covers the market's moods, each choice explained."""

from __future__ import annotations

import msgspec
from tqdm import tqdm

from holdover.recording.format import FLAG_CROSSED, FLAG_ONE_SIDED, HALT, QUOTE, STATUS, TRADE, Recording


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What one recorded day was like, inside its regular session. Sizes in lots, prices in ticks, gaps in ns."""

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


class Choice(msgspec.Struct, frozen=True):
    """A day that is in, and why."""

    symbol: str
    trade_date: str
    moods: list[str]
    why: str


def profile(recording: Recording) -> Profile:
    """Read a day through."""
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
    return Profile(
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


def choose(recordings: list[Recording], days: int, *, quiet: bool = False) -> list[Choice]:
    """At most `days` days an instrument that together show every mood at hand; fewer when fewer do.

    Greedy set cover: each round takes the day that adds most moods, the earlier one when two add as many. Raises
    `ValueError` when `days` is not positive.
    """
    if days < 1:
        raise ValueError(f"--days is {days}, should be 1 or more")
    profiles = [profile(one) for one in tqdm(recordings, unit="day", disable=True if quiet else None, leave=False)]
    found: list[Choice] = []
    for symbol in dict.fromkeys(one.symbol for one in profiles):
        mine = sorted((one for one in profiles if one.symbol == symbol), key=lambda one: one.trade_date)
        moods = _moods(mine)
        left = dict.fromkeys(mood for shown in moods.values() for mood in shown)
        for _ in range(days):
            if not left:
                break
            best = max(mine, key=lambda one: sum(mood in left for mood in moods[one.trade_date]))
            shows = [mood for mood in moods[best.trade_date] if mood in left]
            why = "; ".join(moods[best.trade_date][mood] for mood in shows)
            found.append(Choice(symbol, best.trade_date, shows, f"{best.trade_date} is in: {why}"))
            for mood in shows:
                left.pop(mood)
    return found


def _moods(profiles: list[Profile]) -> dict[str, dict[str, str]]:
    """For each day the moods that it shows, each with its sentence: the extremes among the days, and what is there."""
    shown: dict[str, dict[str, str]] = {one.trade_date: {} for one in profiles}

    def most(mood: str, value: str, sentence: str, *, least: bool = False) -> None:
        values = [getattr(one, value) for one in profiles]
        extreme = min(values) if least else max(values)
        if not least and not extreme:
            return
        day = profiles[values.index(extreme)]
        shown[day.trade_date][mood] = sentence.format(_said(value, extreme))

    most("heavy", "traded_qty", "heaviest volume ({})")
    most("thin", "traded_qty", "thinnest volume ({})", least=True)
    most("burst", "events_per_second_max", "strongest burst ({} events in one second)")
    most("gap", "gap_ns_max", "longest gap ({})")
    most("wide", "spread_p99", "widest spreads (99th percentile {} ticks)")
    most("range", "range_ticks", "widest range ({} ticks)")
    most("calm", "range_ticks", "narrowest range ({} ticks)", least=True)
    most("crossed", "crossed", "most crossed quotes ({})")
    most("one-sided", "one_sided", "most one-sided quotes ({})")
    most("halt", "halts", "a halt ({})")
    for one in profiles:
        if one.early_close:
            shown[one.trade_date]["early-close"] = "an early close"
    return shown


def _said(value: str, number: int) -> str:
    return f"{number / 1e9:.0f} s" if value.endswith("_ns_max") else f"{number:,}"


def _quantile(counts: dict[int, int], share: float) -> int:
    total = sum(counts.values())
    passed = 0
    for value in sorted(counts):
        passed += counts[value]
        if passed >= total * share:
            return value
    return 0
