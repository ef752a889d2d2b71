"""Records the updates of a live desk's feed handler: the recorded day for tomorrow, and the input of a shadow today.

The handler only puts updates into a queue. A separate thread writes them and syncs several times a second.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from holdover.model import Instrument
from holdover.recording import RecordingError
from holdover.recording.format import HALT, TRADING, UNDEF_PRICE
from holdover.recording.tap import STATUSES, Recorder

log = logging.getLogger("holdover.tap")
_FLUSH_INTERVAL_S: Final = 0.05
_BEAT_NS: Final = 1_000_000_000


class MarketUpdate(NamedTuple):
    """The market of an instrument after a message, in ns, ticks and lots; `traded_qty` is the day's total so far."""

    time_ns: int
    symbol: str
    bid_px: int
    bid_sz: int
    ask_px: int
    ask_sz: int
    last_px: int
    traded_qty: int
    status: str = ""


class FeedTap:
    """Writes into `directory` until closed. A disk problem is logged and ends the recording, not the desk."""

    def __init__(self, directory: Path, instruments: Sequence[Instrument]) -> None:
        self._recorders = {instrument.symbol: Recorder(directory, instrument) for instrument in instruments}
        self._tops: dict[str, tuple[int, int, int, int]] = {}
        self._traded_qty: dict[str, int] = {}
        self._status: dict[str, int] = {}
        self._last_written_ns: dict[str, int] = {}
        self._last_ns = 0
        self._queue: queue.SimpleQueue[MarketUpdate | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="holdover-tap", daemon=True)
        self._thread.start()

    def enqueue(self, update: MarketUpdate) -> None:
        """Queue an update; returns at once."""
        self._queue.put(update)

    def close(self) -> None:
        """Write the queued updates. The running day stays open: the next incarnation of the desk continues it."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        pause = threading.Event()
        is_running = True
        try:
            while is_running:
                update = self._queue.get()
                while True:
                    if update is None:
                        is_running = False
                        break
                    self._record(update)
                    try:
                        update = self._queue.get_nowait()
                    except queue.Empty:
                        break
                for recorder in self._recorders.values():
                    recorder.flush()
                if is_running:
                    pause.wait(_FLUSH_INTERVAL_S)
        except (OSError, RecordingError) as problem:
            log.error("the feed is recorded no longer: %s", problem)

    def _record(self, update: MarketUpdate) -> None:
        recorder = self._recorders[update.symbol]
        time_ns = self._last_ns = max(self._last_ns, update.time_ns)
        if update.status:
            self._status[update.symbol] = STATUSES.get(update.status, HALT)
            recorder.status(time_ns, self._status[update.symbol])
            return
        quiet_ns = time_ns - self._last_written_ns.setdefault(update.symbol, time_ns)
        top = (update.bid_px, update.bid_sz, update.ask_px, update.ask_sz)
        if top != self._tops.get(update.symbol):
            self._tops[update.symbol] = top
            recorder.quote(time_ns, *top)
            self._last_written_ns[update.symbol] = time_ns
        before = self._traded_qty.get(update.symbol)
        self._traded_qty[update.symbol] = update.traded_qty
        size = update.traded_qty - (update.traded_qty if before is None else before)
        if size > 0 and update.last_px not in (0, UNDEF_PRICE):
            recorder.trade(time_ns, update.last_px, size)
            self._last_written_ns[update.symbol] = time_ns
        if quiet_ns >= _BEAT_NS and self._last_written_ns[update.symbol] != time_ns:
            # Written even without a change, so that readers can tell a quiet market from a dead feed.
            recorder.status(time_ns, self._status.get(update.symbol, TRADING))
            self._last_written_ns[update.symbol] = time_ns
