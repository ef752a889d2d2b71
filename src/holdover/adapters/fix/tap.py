"""Records what a live desk's feed handler hears, beside it: tomorrow's recorded day, and what a shadow follows today.

The handler only puts what it heard into a queue. A thread of its own records it, synced several times a second.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from holdover.model import Instrument
from holdover.recording import BadRecording
from holdover.recording.format import HALT, TRADING, UNDEF_PRICE
from holdover.recording.tap import STATUSES, Recorder

log = logging.getLogger("holdover.tap")
_GATHER_S: Final = 0.05
_BEAT_NS: Final = 1_000_000_000


class MarketHeard(NamedTuple):
    """The market of an instrument after a message: ns, ticks and lots; `traded_qty` is the day's so far."""

    time_ns: int
    symbol: str
    bid_px: int
    bid_sz: int
    ask_px: int
    ask_sz: int
    last_px: int
    traded_qty: int
    status: str = ""


class Tap:
    """Writes into `directory` until closed. A problem of the disk is logged, and ends the recording, not the desk."""

    def __init__(self, directory: Path, instruments: Sequence[Instrument]) -> None:
        self._recorders = {one.symbol: Recorder(directory, one) for one in instruments}
        self._tops: dict[str, tuple[int, int, int, int]] = {}
        self._traded: dict[str, int] = {}
        self._status: dict[str, int] = {}
        self._wrote: dict[str, int] = {}
        self._last_ns = 0
        self._queue: queue.SimpleQueue[MarketHeard | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="holdover-tap", daemon=True)
        self._thread.start()

    def hear(self, heard: MarketHeard) -> None:
        """Something was heard; returns at once."""
        self._queue.put(heard)

    def close(self) -> None:
        """Write what waits. The running day stays open: the next life of the desk goes on with it."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = threading.Event()
        going = True
        try:
            while going:
                heard = self._queue.get()
                while True:
                    if heard is None:
                        going = False
                        break
                    self._record(heard)
                    try:
                        heard = self._queue.get_nowait()
                    except queue.Empty:
                        break
                for recorder in self._recorders.values():
                    recorder.flush()
                if going:
                    ended.wait(_GATHER_S)
        except (OSError, BadRecording) as problem:
            log.error("the feed is recorded no longer: %s", problem)

    def _record(self, heard: MarketHeard) -> None:
        recorder = self._recorders[heard.symbol]
        time_ns = self._last_ns = max(self._last_ns, heard.time_ns)
        if heard.status:
            self._status[heard.symbol] = STATUSES.get(heard.status, HALT)
            recorder.status(time_ns, self._status[heard.symbol])
            return
        quiet_ns = time_ns - self._wrote.setdefault(heard.symbol, time_ns)
        top = (heard.bid_px, heard.bid_sz, heard.ask_px, heard.ask_sz)
        if top != self._tops.get(heard.symbol):
            self._tops[heard.symbol] = top
            recorder.quote(time_ns, *top)
            self._wrote[heard.symbol] = time_ns
        before = self._traded.get(heard.symbol)
        self._traded[heard.symbol] = heard.traded_qty
        size = heard.traded_qty - (heard.traded_qty if before is None else before)
        if size > 0 and heard.last_px not in (0, UNDEF_PRICE):
            recorder.trade(time_ns, heard.last_px, size)
            self._wrote[heard.symbol] = time_ns
        if quiet_ns >= _BEAT_NS and self._wrote[heard.symbol] != time_ns:
            # Nothing new: said all the same, so that who follows can tell a quiet market from a dead feed.
            recorder.status(time_ns, self._status.get(heard.symbol, TRADING))
            self._wrote[heard.symbol] = time_ns
