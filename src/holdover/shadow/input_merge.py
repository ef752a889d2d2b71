"""Merges the inputs of a live shadow by time.

Every input has the feed's time: the time stamp of an event or a line, else the time of the input before it. With a
backlog the feeds are read side by side, so that none runs ahead of another: inputs are complete up to the horizon.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from holdover.model import Instrument
from holdover.shadow.feed import IncumbentFeed, MarketReader, MarketReading
from holdover.shadow.incumbent import time_of_line
from holdover.shadow.input_store import InputItem, TimedItem

_AHEAD_MAX_NS: Final = 30 * 86_400_000_000_000
"""No exchange is closed for so long: a later time stamp is wrong."""
_DAY_NS: Final = 86_400_000_000_000


class InputMerge:
    """Reads the feeds and keeps the items that wait for their time, in order.

    `horizon_ns` is the time up to which all inputs are complete. `clock_offset_ns` is the feed's time minus the
    monotonic clock, None before the first event.
    """

    def __init__(
        self, feeds: Mapping[str, IncumbentFeed], instruments: Sequence[Instrument], waiting: Sequence[TimedItem]
    ) -> None:
        self.feeds = dict(feeds)
        self.waiting = list(waiting)
        self.horizon_ns = sys.maxsize
        self.clock_offset_ns: int | None = None
        self._reader = MarketReader(instruments)

    def offsets(self) -> dict[str, bytes]:
        """Return the offset of each feed after the last read."""
        return {name: feed.offset for name, feed in self.feeds.items()}

    def read_market(self, item: InputItem, after_ns: int) -> MarketReading:
        """Decode an item of market data; a time that is impossible after `after_ns` is returned as a problem."""
        reading = self._reader.read(item)
        if after_ns and reading.time_ns > after_ns + _AHEAD_MAX_NS:
            return MarketReading(0, problem=f"market data of {(reading.time_ns - after_ns) // _DAY_NS} days ahead")
        return reading

    def collect(self, now_ns: int, *, is_day_known: bool) -> list[TimedItem]:
        """Read the feeds, put the new items among the waiting ones, and return them with their times."""
        new: list[TimedItem] = []
        self.horizon_ns = sys.maxsize
        for name, feed in self.feeds.items():
            times = [time_ns for time_ns, item in self.waiting if (item.kind == "r") == (name == "incumbent")]
            if times and is_day_known:
                self.horizon_ns = min(self.horizon_ns, times[-1])  # later items of this feed have not been read yet
                continue
            timed = self._add_times(feed.read(), now_ns)
            if feed.is_behind and timed:
                self.horizon_ns = min(self.horizon_ns, timed[-1][0])
            new += timed
        self.waiting = sorted([*self.waiting, *new], key=lambda entry: entry[0])
        return new

    def due_items(self) -> list[InputItem]:
        """Return the waiting items up to the horizon, in order; they wait until `drop` removes them."""
        return [item for time_ns, item in self.waiting if time_ns <= self.horizon_ns]

    def drop(self, count: int) -> None:
        """Remove the first items that wait. Raises `ValueError` when there are fewer."""
        if count > len(self.waiting):
            raise ValueError(f"{count} items are to be dropped, and {len(self.waiting)} wait")
        del self.waiting[:count]

    def note_times(self, items: Iterable[InputItem], now_ns: int, monotonic_ns: int) -> list[int]:
        """Move the feed's clock to the latest of the items and return the times of those of market data, ns."""
        times: list[int] = []
        latest_ns = 0
        for item in items:
            if item.kind != "r" and (time_ns := self.read_market(item, max(latest_ns, now_ns)).time_ns):
                times.append(time_ns)
                latest_ns = max(latest_ns, time_ns)
        if times:
            offset_ns = latest_ns - monotonic_ns
            self.clock_offset_ns = offset_ns if self.clock_offset_ns is None else max(self.clock_offset_ns, offset_ns)
        return times

    def _add_times(self, items: Sequence[InputItem], now_ns: int) -> list[TimedItem]:
        """Add each item's time; an item without one gets the time of the item before it."""
        timed_items: list[TimedItem] = []
        last_ns = 0
        for item in items:
            if item.kind != "r":
                last_ns = max(last_ns, self.read_market(item, max(last_ns, now_ns)).time_ns)
            elif time_ns := time_of_line(item.data):
                last_ns = max(last_ns, time_ns)
            elif not last_ns:
                last_ns = sys.maxsize  # applied after all items that arrived with it
            timed_items.append((last_ns, item))
        return timed_items
