"""An incumbent that trades the bundled days while a shadow's candidate runs beside it on the same inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from holdover.harness.live import DaysToCome
from holdover.harness.session import Session
from holdover.harness.subject import Factory, Plan, factory_named
from holdover.model import Instrument
from holdover.recording import MarketEvent, bundled
from holdover.recording.format import QUOTE, TRADE
from holdover.recording.tap import Recorder
from holdover.shadow import Live, read_shadow

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


def told(event: MarketEvent, instrument: Instrument, **more: Any) -> bytes:
    """An event as a feed says it, a line."""
    ts_ns, _, rtype, flags, _, price, size, bid_px, ask_px, bid_sz, ask_sz = event
    said: dict[str, Any] = {"ts_event": ts_ns, **more}
    if rtype == QUOTE:
        for name, px, sz in (("bid", bid_px, bid_sz), ("ask", ask_px, ask_sz)):
            said |= {
                f"{name}_px": instrument.price_text(px) if sz else None,
                f"{name}_sz": instrument.quantity_text(sz),
            }
    elif rtype == TRADE:
        said |= {"price": instrument.price_text(price), "size": instrument.quantity_text(size)}
    else:
        said["status"] = STATUS[flags]
    return json.dumps(said).encode() + b"\n"


def instrument_toml(instrument: Instrument) -> str:
    """An instrument as its TOML file has it."""
    return "\n".join(f"{name} = {json.dumps(getattr(instrument, name))}" for name in instrument.__struct_fields__)


class Incumbent:
    """Trades the bundled days in steps. Before each it writes what the feed says in it, and then its journal.

    With `tap` the feed is no lines, but is recorded into a folder.
    """

    def __init__(
        self,
        place: Path,
        *,
        candidate: str = "",
        more: str = "",
        days: int = 2,
        symbols: Sequence[str] = (SYMBOL,),
        tap: bool = False,
    ) -> None:
        self.place, self.store, self.symbols = place, bundled(), list(symbols)
        self.days = self.store.days(SYMBOL)[:days]
        self.instruments = [self.store.get(symbol, self.days[0]).meta.instrument for symbol in symbols]
        names = [f"{symbol.lower()}.toml" for symbol in symbols]
        for name, instrument in zip(names, self.instruments, strict=True):
            (place / name).write_text(instrument_toml(instrument))
        candidate = f"recordings = {json.dumps(str(self.store.directory))}\n{candidate}"
        market = json.dumps("tap" if tap else "feed.jsonl")
        text = CONFIG.format(candidate=candidate, more=more, market=market, instruments=json.dumps(names))
        (place / "shadow.toml").write_text(text)
        self.session = Session(factory_named("desk"), self.store, self.symbols, place / "incumbent", days=self.days)
        # What a plan may suppose of a day is the same for both.
        means = {symbol: self.mean(symbol) for symbol in symbols}
        to_come = DaysToCome(self.instruments, means)
        self.session.plan = Plan(days=[to_come.get(symbol, self.days[0]).meta for symbol in symbols])
        self.recorders: list[Recorder] = []
        if tap:
            (place / "tap").mkdir()
            self.recorders = [Recorder(place / "tap", one) for one in self.instruments]
        self.feed: IO[bytes] = open(place / "feed.jsonl", "ab", buffering=0)  # noqa: SIM115 - as long as the test
        self.seq = 0
        self.seqs: dict[int, int] = {}

    def mean(self, symbol: str) -> tuple[int, int]:
        """Lots and trades of a day, as the bundled days have them."""
        metas = [self.store.get(symbol, day).meta for day in self.store.days(symbol)]
        traded_qty, trades = zip(*((meta.traded_qty, meta.trades) for meta in metas), strict=True)
        return sum(traded_qty) // len(metas), sum(trades) // len(metas)

    def steps(self, day: str, step_s: float = 60.0, *, minutes: float = 1e6) -> Iterator[int]:
        """A day step by step, after some minutes the rest of it in one: the ns that each took. `night` ends the day."""
        meta = self.store.get(SYMBOL, day).meta
        at = meta.open_ns - 40 * S
        self.session.begin(day)
        while at < meta.close_ns:
            after = min(at + round(step_s * S), meta.close_ns)
            if at >= meta.open_ns + minutes * 60 * S:
                after = meta.close_ns
            if after > self.session.clock.now_ns:
                self.session.run(after)
            self.say(day, at, after)
            yield after - at
            at = after

    def say(self, day: str, begin_ns: int, end_ns: int) -> None:
        """The feed says what happens in a part of a day."""
        found: list[tuple[int, int, MarketEvent]] = []
        for number, symbol in enumerate(self.symbols):
            found += [(event[0], number, event) for event in self.store.get(symbol, day).events(begin_ns, end_ns)]
        found.sort(key=lambda one: one[:2])
        if not self.recorders:
            lines = (self.line(number, event) for _, number, event in found)
            self.feed.write(b"".join(lines) + b'{"ts_event": %d}\n' % end_ns)
        for _, number, event in found if self.recorders else ():
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

    def line(self, number: int, event: MarketEvent) -> bytes:
        """An event as a line, with a number that grows by one for each instrument."""
        self.seq += 1
        self.seqs[number] = self.seqs.get(number, 0) + 1
        seq = self.seq if len(self.symbols) == 1 else self.seqs[number]
        return told(event, self.instruments[number], seq=seq, symbol=self.symbols[number])

    def night(self) -> None:
        """The close and the night."""
        self.session.end()
        self.session.overnight()

    def close(self) -> None:
        """Let go of everything."""
        for recorder in self.recorders:
            recorder.close()
        self.feed.close()
        self.session.close()


class Host:
    """The candidate's host: its clocks, and lives of the shadow on it."""

    def __init__(self, place: Path, factory: Factory | None = None) -> None:
        self.place = place
        self.mono, self.wall = 10**12, 1_732_700_000 * S
        self.factory = factory or factory_named("desk")
        self.live = self.begin()

    def begin(self) -> Live:
        """Another life."""
        config = read_shadow(self.place / "shadow.toml")
        return Live(config, self.factory, monotonic=lambda: self.mono, wall=lambda: self.wall)

    def on(self, ns: int) -> None:
        """Time passes, and the shadow takes what has come in."""
        self.mono += ns
        self.wall += ns
        self.live.once()

    def kill(self) -> None:
        """The shadow is gone at this point, nothing of it is put in order; another life begins."""
        for arm in self.live.arms:
            if arm.session is not None:
                arm.session.close()  # only so that no file is held open: another life never looks at it
        self.live.inputs.close()
        self.live = self.begin()
