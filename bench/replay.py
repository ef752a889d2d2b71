"""Measure events per second of replaying a recorded day, next to other formats and a backtest engine.

    python bench/replay.py [--events 200000] [--rounds 5]

The handler takes one event and reads its time and price. The sources, each from its own file on disk except
the first:

- `floor`: a list of tuples in memory, `for event in events: handler(event)`.
- `holdover`: `Recording.events()`, opened anew, with the checksum of every block verified.
- `parquet`: the same columns written by pyarrow, read in batches and zipped to tuples.
- `dbn`: DBN records decoded by databento-dbn to its objects.
- `nautilus`: NautilusTrader's BacktestEngine, quote and trade ticks of one instrument to the handlers of an
  actor. It also runs a message bus, a cache and an exchange simulated from the quotes, which is part of the
  cost of a day. Its ticks are made before the clock starts; only `engine.run()` is timed.

All methods take turns in one run; the script prints medians. It leaves out a library that is not installed
and says so.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from table import machine, report_table

from holdover.recording import bundled_store
from holdover.recording.format import QUOTE, TRADE, UNDEF_PRICE, Recording, RecordingWriter

FIELDS = ["ts", "id", "rtype", "flags", "seq", "price", "size", "bid_px", "ask_px", "bid_sz", "ask_sz"]


class Handler:
    """Reads of each event what anybody would."""

    def __init__(self) -> None:
        self.events, self.latest_ns, self.top = 0, 0, 0

    def __call__(self, event: Any) -> None:
        """One event, a tuple."""
        self.events += 1
        self.latest_ns = event[0]
        self.top = event[7]


def write_long_day(directory: Path, event_count: int) -> Recording:
    """The bundled day's quotes and trades over and over, a nanosecond further each time, until there are enough."""
    whole = bundled_store().get("ACME", "2024-11-27")
    events = [
        event for event in whole.events() if event[2] == TRADE or (event[2] == QUOTE and UNDEF_PRICE not in event[7:9])
    ]
    span = events[-1][0] - events[0][0] + 1
    laps = -(-event_count // len(events))
    blank = dict.fromkeys(("records", "body_bytes", "quotes", "trades", "statuses", "traded_qty", "first_ns"), 0)
    meta = msgspec.structs.replace(
        whole.meta, encoding="raw", close_ns=whole.meta.close_ns + laps * span, last_ns=0, **blank
    )
    writer = RecordingWriter(directory / "day.hrec", meta)
    for lap in range(laps):
        for event in events:
            writer.copy_event((event[0] + lap * span, *event[1:]))
    return writer.close()


def make_parquet_reader(path: Path, events: list[Any]) -> Callable[[Handler], None]:
    """Write it; returns the way back."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = list(zip(*events, strict=True))
    pq.write_table(pa.table({name: pa.array(column) for name, column in zip(FIELDS, columns, strict=True)}), path)

    def read(handler: Handler) -> None:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=4096):
            for event in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                handler(event)

    return read


def make_dbn_reader(path: Path, events: list[Any]) -> Callable[[Handler], None]:
    """Write it; returns the way back."""
    import databento_dbn as dbn

    meta = dbn.Metadata(
        dataset="XNAS.ITCH", start=events[0][0], stype_in=None, stype_out=dbn.SType.INSTRUMENT_ID, schema=None
    )
    with open(path, "wb") as file:
        file.write(bytes(meta.encode()))
        for event in events:
            levels = dbn.BidAskPair(event[7], event[8], event[9] % 2**32, event[10] % 2**32)
            message = dbn.MBP1Msg(
                1, 1, event[0], event[5], event[6], dbn.Action.TRADE, dbn.Side.NONE, 0, event[0], levels=levels
            )
            file.write(bytes(message))

    def read(handler: Handler) -> None:
        decoder = dbn.DBNDecoder()
        with open(path, "rb") as file:
            while data := file.read(1 << 20):
                decoder.write(data)
                for record in decoder.decode():
                    if isinstance(record, dbn.MBP1Msg):
                        handler.events += 1
                        handler.latest_ns = record.ts_event
                        handler.top = record.levels[0].bid_px

    return read


def make_nautilus_runner(events: list[Any]) -> Callable[[Handler], float]:
    """Make its ticks; returns a run, which says what `engine.run()` took."""
    from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
    from nautilus_trader.common.actor import Actor
    from nautilus_trader.config import LoggingConfig
    from nautilus_trader.model.currencies import USD
    from nautilus_trader.model.data import QuoteTick, TradeTick
    from nautilus_trader.model.enums import AccountType, AggressorSide, OmsType
    from nautilus_trader.model.identifiers import TradeId, Venue
    from nautilus_trader.model.objects import Money, Price, Quantity
    from nautilus_trader.test_kit.providers import TestInstrumentProvider

    instrument = TestInstrumentProvider.equity("ACME", "XNAS")
    ticks: list[Any] = []
    for number, event in enumerate(events):
        if event[2] == QUOTE:
            sizes = (max(event[9], 1), max(event[10], 1))
            prices = (Price(event[7] / 100, 2), Price(event[8] / 100, 2))
            quantities = (Quantity(sizes[0], 0), Quantity(sizes[1], 0))
            ticks.append(QuoteTick(instrument.id, *prices, *quantities, event[0], event[0]))
        else:
            side, trade_id = AggressorSide.NO_AGGRESSOR, TradeId(str(number))
            price, size = Price(event[5] / 100, 2), Quantity(max(event[6], 1), 0)
            ticks.append(TradeTick(instrument.id, price, size, side, trade_id, event[0], event[0]))

    class Sink(Actor):  # type: ignore[misc]
        """Counts what reaches it."""

        def __init__(self, handler: Handler) -> None:
            super().__init__()
            self.handler = handler

        def on_start(self) -> None:
            """Wants all of it."""
            self.subscribe_quote_ticks(instrument.id)
            self.subscribe_trade_ticks(instrument.id)

        def on_quote_tick(self, tick: Any) -> None:
            """One quote."""
            self.handler.events += 1
            self.handler.latest_ns = tick.ts_event

        def on_trade_tick(self, tick: Any) -> None:
            """One trade."""
            self.handler.events += 1
            self.handler.latest_ns = tick.ts_event

    def run(handler: Handler) -> float:
        engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
        engine.add_venue(Venue("XNAS"), OmsType.NETTING, AccountType.MARGIN, [Money(1_000_000, USD)], base_currency=USD)
        engine.add_instrument(instrument)
        engine.add_data(ticks)
        engine.add_actor(Sink(handler))
        began = time.perf_counter()
        engine.run()
        duration_s = time.perf_counter() - began
        engine.dispose()
        return duration_s

    return run


def feed_events(events: Iterable[Any], handler: Handler) -> None:
    """The floor."""
    for event in events:
        handler(event)


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        recording = write_long_day(Path(directory), arguments.events)
        events = list(recording.events())
        methods: dict[str, Callable[[Handler], Any]] = {
            "floor": lambda handler: feed_events(events, handler),
            "holdover": lambda handler: feed_events(Recording.open(recording.path).events(), handler),
        }
        for name, make in (
            ("parquet", lambda: make_parquet_reader(Path(directory) / "day.parquet", events)),
            ("dbn", lambda: make_dbn_reader(Path(directory) / "day.dbn", events)),
            ("nautilus", lambda: make_nautilus_runner(events)),
        ):
            try:
                methods[name] = make()
            except ImportError as problem:
                print(f"{name} is left out: {problem}")
        durations: dict[str, list[float]] = {name: [] for name in methods}
        for at in range(arguments.rounds + 1):
            for name, method in methods.items():
                handler = Handler()
                gc.collect()
                began = time.perf_counter()
                measured_s = method(handler)
                duration_s = measured_s if isinstance(measured_s, float) else time.perf_counter() - began
                assert handler.events == len(events), (name, handler.events, len(events))
                if at:
                    durations[name].append(duration_s)
    rows = []
    for name, seconds in durations.items():
        to_floor = statistics.median(
            method_s / floor for method_s, floor in zip(seconds, durations["floor"], strict=True)
        )
        to_holdover = statistics.median(
            method_s / holdover_s for method_s, holdover_s in zip(seconds, durations["holdover"], strict=True)
        )
        per_second = len(events) / statistics.median(seconds)
        rows.append({"way": name, "events/s": per_second, "times floor": to_floor, "times holdover": to_holdover})
    report_table("replay", rows, machine("pyarrow", "databento-dbn", "nautilus_trader"))


if __name__ == "__main__":
    main()
