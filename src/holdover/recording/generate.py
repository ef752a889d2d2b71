"""Generates the simulated sessions that ship with the package. They are not real market data.

    python -m holdover.recording.generate --into DIR

A seeded integer walk with the irregularities of real days: bursts at the open and the close, quiet gaps,
one-sided and crossed quotes, wide spreads, trades through the book, odd lots, a halt in the middle of the
first day, and a holiday between the two days, the second of which closes early. The hours follow the New York
calendar.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from holdover.model import Instrument
from holdover.recording.calendar import SessionHours
from holdover.recording.format import (
    HALT,
    TRADING,
    UNDEF_PRICE,
    Provenance,
    Recording,
    RecordingWriter,
)
from holdover.recording.store import recording_path

S = 1_000_000_000
_DAYS = {
    # 14:30 to 21:00 UTC, and to 18:00 on the early close
    "2024-11-27": SessionHours(1_732_717_800 * S, 1_732_741_200 * S, "2024-11-26", "2024-11-29", False),
    "2024-11-29": SessionHours(1_732_890_600 * S, 1_732_903_200 * S, "2024-11-27", "2024-12-02", True),
}
_INSTRUMENTS = (("ACME", 10_000, 5_200, 11), ("BOLT", 2_500, 2_600, 23))
"""Symbol, first mid price in ticks, steps in a full day, seed."""


def generate(directory: Path) -> list[Recording]:
    """Write the two days of both instruments; the bytes are the same every time."""
    recordings = []
    for symbol, mid, steps, seed in _INSTRUMENTS:
        for number, (day, session_hours) in enumerate(_DAYS.items()):
            meta = session_hours.to_meta(
                Instrument(symbol=symbol, venue="SIM", tick_size="0.01", calendar="XNYS"),
                day,
                Provenance(
                    source="simulated by holdover.recording.generate", licence="Apache-2.0", importer="generate"
                ),
                simulated=True,
                encoding="zlib",
            )
            open_ns, close_ns = session_hours.open_ns, session_hours.close_ns
            writer = RecordingWriter(recording_path(directory, "SIM", symbol, day), meta)
            day_steps = steps * (close_ns - open_ns) // (23_400 * S)
            mid = _DayGenerator(writer, random.Random(seed * 1000 + number), mid, open_ns, close_ns).run(day_steps)
            recordings.append(writer.close())
    return recordings


class _DayGenerator:
    """Generates one day of one instrument."""

    def __init__(self, writer: RecordingWriter, rng: random.Random, mid: int, open_ns: int, close_ns: int) -> None:
        self.writer, self.rng, self.mid = writer, rng, mid
        self.open_ns, self.close_ns = open_ns, close_ns
        self.trend = 0
        self.bid = self.ask = 0
        self.now_ns = open_ns - 60 * S

    def run(self, steps: int) -> int:
        """Generate the day; return the last mid price."""
        rng = self.rng
        self.quote(spread=4)
        self.now_ns = self.open_ns
        self.writer.status(self.now_ns, TRADING)
        halt_at = steps * 11 // 20 if self.close_ns - self.open_ns > 20_000 * S else -1
        for step in range(steps):
            self.wait(step, steps)
            if self.now_ns >= self.close_ns:
                break
            if step == halt_at:
                self.halt()
            if step % 97 == 0:
                self.trend = rng.choice((-1, -1, 0, 0, 1, 1))
            self.mid += rng.choice((-1, 0, 0, 1)) + (self.trend if rng.randrange(6) == 0 else 0)
            self.mid = max(self.mid, 100)
            self.quote(spread=1 + rng.choice((0, 0, 0, 1, 1, 2)) + (8 if rng.randrange(400) == 0 else 0))
            for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
                self.trade()
            self.odd_quote()
        return self.mid

    def wait(self, step: int, steps: int) -> None:
        """Advance the time: short steps at both ends of the day, longer ones in between, with an occasional gap."""
        step_ns = (self.close_ns - self.now_ns) // max(steps - step, 1)
        edge = min(step, steps - step) * 20 // max(steps, 1)
        pace = step_ns // 4 if edge < 2 else step_ns
        self.now_ns += self.rng.randrange(1_000_000, max(2 * pace, 2_000_000))
        if self.rng.randrange(900) == 0:
            self.now_ns += self.rng.randrange(45, 150) * S
        if self.rng.randrange(25) == 0:
            self.now_ns -= self.now_ns % 1_000_000  # several events on one millisecond

    def quote(self, spread: int) -> None:
        """Write a new best bid and offer around the mid."""
        rng = self.rng
        self.bid = self.mid - spread // 2
        self.ask = self.bid + spread
        self.writer.quote(self.now_ns, self.bid, rng.randrange(1, 12) * 100, self.ask, rng.randrange(1, 12) * 100)

    def trade(self) -> None:
        """Write a trade at one of the touches, sometimes inside or through them, of a round or an odd lot."""
        rng = self.rng
        self.now_ns += rng.randrange(0, 3_000_000)
        price = rng.choice((self.bid, self.ask))
        if rng.randrange(40) == 0:
            price += rng.choice((-2, -1, 1, 2))
        size = rng.randrange(1, 9) * 100 if rng.randrange(5) else rng.randrange(1, 99)
        self.writer.trade(self.now_ns, max(price, 1), size)

    def odd_quote(self) -> None:
        """Sometimes write a one-sided or crossed quote for some milliseconds."""
        rng = self.rng
        kind = rng.randrange(350)
        if kind == 0:
            self.writer.quote(self.now_ns, UNDEF_PRICE, 0, self.ask, 300)
        elif kind == 1:
            self.writer.quote(self.now_ns, self.bid, 400, UNDEF_PRICE, 0)
        elif kind == 2:
            self.writer.quote(self.now_ns, self.ask + 1, 200, self.bid, 200)
        else:
            return
        self.now_ns += rng.randrange(2_000_000, 40_000_000)
        self.quote(spread=2)

    def halt(self) -> None:
        """Halt trading for five minutes."""
        self.writer.status(self.now_ns, HALT)
        self.now_ns += 300 * S
        self.writer.status(self.now_ns, TRADING)


def main() -> None:
    """Run the command line of the generator."""
    parser = argparse.ArgumentParser(description="Make the simulated sessions that come with the package.")
    parser.add_argument("--into", type=Path, required=True)
    for recording in generate(parser.parse_args().into):
        print(recording)


if __name__ == "__main__":
    main()
