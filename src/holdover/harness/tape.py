"""The tape: the recorded events of a day in time order, resumable at any offset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter, length_hint
from typing import Final

from holdover.recording import MarketEvent, Recording

_WINDOW_NS: Final = 60_000_000_000
_BY_TIME = itemgetter(0)

TapeOffset = tuple[int, int]
"""The offset of a tape: the start of its window in ns, and the number of events returned from that window."""


class Tape:
    """The events of several instruments in time order; at equal times in the order of the instruments.

    The tape reads short windows and sorts each of them. A stable sort gives the same order as a heap over
    iterators and is several times faster. `offset` is valid at any moment, and another tape can start from it.
    """

    def __init__(self, day: Sequence[Recording], start_ns: int, end_ns: int, offset: TapeOffset | None = None) -> None:
        self._day, self._end_ns = day, end_ns
        self._begin_ns, self._skip = offset or (start_ns, 0)
        if self._begin_ns < 0 or self._skip < 0:
            raise ValueError(f"a tape from {self._begin_ns} ns and event {self._skip} on, should be from 0 on")
        self._length = self._skip
        self._remaining: Iterator[MarketEvent] = iter(())

    @property
    def offset(self) -> TapeOffset:
        """The current offset."""
        return self._begin_ns, self._length - length_hint(self._remaining)

    def events(self) -> Iterator[MarketEvent]:
        """Iterate over the remaining events, once."""
        for begin_ns in range(self._begin_ns, self._end_ns, _WINDOW_NS):
            window = self._window(begin_ns)
            remaining = iter(window[self._skip :] if self._skip else window)
            self._begin_ns, self._length, self._skip, self._remaining = begin_ns, len(window), 0, remaining
            yield from remaining

    def _window(self, begin_ns: int) -> list[MarketEvent]:
        end_ns = min(begin_ns + _WINDOW_NS, self._end_ns)
        if len(self._day) == 1:
            return list(self._day[0].events(begin_ns, end_ns))
        window: list[MarketEvent] = []
        for number, recording in enumerate(self._day):
            window += recording.events(begin_ns, end_ns, number)
        window.sort(key=_BY_TIME)
        return window
