"""An incumbent desk that trades the bundled days and writes the feed and the journal that a shadow reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from holdover.harness.live_session import FutureDayStore
from holdover.harness.session import Session, SessionConfig
from holdover.harness.subject import Factory, Plan, resolve_factory
from holdover.model import Instrument
from holdover.recording import MarketEvent, bundled_store
from holdover.recording.format import QUOTE, TRADE
from holdover.recording.tap import Recorder
from holdover.shadow import LiveShadow, read_shadow_config

S = 1_000_000_000
SYMBOL = "ACME"
STATUS = {1: "open", 2: "halt", 3: "disabled", 4: "closed"}

CONFIG = """
[candidate]
subject = "desk"
{candidate}
[input]
market = {market}
reports = "incumbent/journal.jsonl"
instruments = {instruments}
{more}
[incumbent]
journal = "incumbent/journal.jsonl"
[clock]
tick_s = 1
deadline_s = 400
"""


def feed_line(event: MarketEvent, instrument: Instrument, **extra_fields: Any) -> bytes:
    """Return a market event as one JSON line of a feed."""
    ts_ns, _, rtype, flags, _, price, size, bid_px, ask_px, bid_sz, ask_sz = event
    message: dict[str, Any] = {"ts_event": ts_ns, **extra_fields}
    if rtype == QUOTE:
        for name, px, sz in (("bid", bid_px, bid_sz), ("ask", ask_px, ask_sz)):
            message |= {
                f"{name}_px": instrument.price_text(px) if sz else None,
                f"{name}_sz": instrument.quantity_text(sz),
            }
    elif rtype == TRADE:
        message |= {"price": instrument.price_text(price), "size": instrument.quantity_text(size)}
    else:
        message["status"] = STATUS[flags]
    return json.dumps(message).encode() + b"\n"


def instrument_toml(instrument: Instrument) -> str:
    """Return an instrument in TOML."""
    return "\n".join(f"{name} = {json.dumps(getattr(instrument, name))}" for name in instrument.__struct_fields__)


class IncumbentDesk:
    """Trade the bundled days in steps; before each step write its market events, after it the journal.

    With `tap`, record the market events into a directory instead of writing lines.
    """

    def __init__(
        self,
        directory: Path,
        *,
        candidate: str = "",
        extra_config: str = "",
        shadow: str = "",
        days: int = 2,
        symbols: Sequence[str] = (SYMBOL,),
        tap: bool = False,
    ) -> None:
        self.directory, self.store, self.symbols = directory, bundled_store(), list(symbols)
        self.days = self.store.days(SYMBOL)[:days]
        self.instruments = [self.store.get(symbol, self.days[0]).meta.instrument for symbol in symbols]
        names = [f"{symbol.lower()}.toml" for symbol in symbols]
        for name, instrument in zip(names, self.instruments, strict=True):
            (directory / name).write_text(instrument_toml(instrument))
        candidate = f"recordings = {json.dumps(str(self.store.directory))}\n{candidate}"
        market = json.dumps("tap" if tap else "feed.jsonl")
        text = (f"[shadow]\n{shadow}\n" if shadow else "") + CONFIG.format(
            candidate=candidate, more=extra_config, market=market, instruments=json.dumps(names)
        )
        (directory / "shadow.toml").write_text(text)
        self.session = Session(
            resolve_factory("desk"), self.store, self.symbols, directory / "incumbent", SessionConfig(days=self.days)
        )
        # What a plan may suppose of a day is the same for both.
        means = {symbol: self.mean_volume(symbol) for symbol in symbols}
        to_come = FutureDayStore(self.instruments, means)
        self.session.host.plan = Plan(days=[to_come.get(symbol, self.days[0]).meta for symbol in symbols])
        self.recorders: list[Recorder] = []
        if tap:
            (directory / "tap").mkdir()
            self.recorders = [Recorder(directory / "tap", recorded) for recorded in self.instruments]
        self.feed: IO[bytes] = open(directory / "feed.jsonl", "ab", buffering=0)  # noqa: SIM115 - as long as the test
        self.seq = 0
        self.seqs: dict[int, int] = {}

    def mean_volume(self, symbol: str) -> tuple[int, int]:
        """Lots and trades of a day, as the bundled days have them."""
        metas = [self.store.get(symbol, day).meta for day in self.store.days(symbol)]
        traded_qty, trades = zip(*((meta.traded_qty, meta.trades) for meta in metas), strict=True)
        return sum(traded_qty) // len(metas), sum(trades) // len(metas)

    def steps(self, day: str, step_s: float = 60.0, *, minutes: float = 1e6) -> Iterator[int]:
        """Yield the duration of each step of a day in nanoseconds.

        After `minutes`, the rest of the day is one step. Call `pass_night` to end the day.
        """
        meta = self.store.get(SYMBOL, day).meta
        begin_ns = meta.open_ns - 40 * S
        self.session.begin(day)
        while begin_ns < meta.close_ns:
            end_ns = min(begin_ns + round(step_s * S), meta.close_ns)
            if begin_ns >= meta.open_ns + minutes * 60 * S:
                end_ns = meta.close_ns
            if end_ns > self.session.clock.now_ns:
                self.session.run(end_ns)
            self.write_feed(day, begin_ns, end_ns)
            yield end_ns - begin_ns
            begin_ns = end_ns

    def write_feed(self, day: str, begin_ns: int, end_ns: int) -> None:
        """Write the market events of a part of a day to the feed."""
        events: list[tuple[int, int, MarketEvent]] = []
        for number, symbol in enumerate(self.symbols):
            events += [(event[0], number, event) for event in self.store.get(symbol, day).events(begin_ns, end_ns)]
        events.sort(key=lambda entry: entry[:2])
        if not self.recorders:
            lines = (self.feed_line_of(number, event) for _, number, event in events)
            self.feed.write(b"".join(lines) + b'{"ts_event": %d}\n' % end_ns)
        for _, number, event in events if self.recorders else ():
            self.seq += 1
            ts_ns, _, rtype, flags, _, price, size, bid_px, ask_px, bid_sz, ask_sz = event
            if rtype == QUOTE:
                self.recorders[number].quote(ts_ns, bid_px, bid_sz, ask_px, ask_sz)
            elif rtype == TRADE:
                self.recorders[number].trade(ts_ns, price, size)
            else:
                self.recorders[number].status(ts_ns, flags)
        for recorder in self.recorders:
            recorder.flush()

    def feed_line_of(self, number: int, event: MarketEvent) -> bytes:
        """Return an event as a line, with a sequence number that grows by one for each instrument."""
        self.seq += 1
        self.seqs[number] = self.seqs.get(number, 0) + 1
        seq = self.seq if len(self.symbols) == 1 else self.seqs[number]
        return feed_line(event, self.instruments[number], seq=seq, symbol=self.symbols[number])

    def pass_night(self) -> None:
        """End the session and pass the night."""
        self.session.end()
        self.session.overnight()

    def close(self) -> None:
        """Close the recorders, the feed and the session."""
        for recorder in self.recorders:
            recorder.close()
        self.feed.close()
        self.session.close()


class CandidateHost:
    """The host of the candidate: its two clocks and the shadow that runs on it."""

    def __init__(self, directory: Path, factory: Factory | None = None) -> None:
        self.directory = directory
        self.mono, self.wall = 10**12, 1_732_700_000 * S
        self.factory = factory or resolve_factory("desk")
        self.live = self.start_shadow()

    def start_shadow(self) -> LiveShadow:
        """Start a shadow on this host."""
        config = read_shadow_config(self.directory / "shadow.toml")
        return LiveShadow(config, self.factory, monotonic=lambda: self.mono, wall=lambda: self.wall)

    def advance(self, ns: int) -> None:
        """Advance both clocks and let the shadow process its new input."""
        self.mono += ns
        self.wall += ns
        self.live.poll()

    def kill(self) -> None:
        """Drop the shadow without an orderly stop, and start another one."""
        for arm in self.live.arms:
            if arm.session is not None:
                arm.session.close()  # only so that no file is held open: another life never looks at it
        self.live.inputs.close()
        self.live = self.start_shadow()
