"""The recorded events of a day as they run, from a place that can be kept and gone on from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter, length_hint
from typing import Final

from holdover.recording import MarketEvent, Recording

_WINDOW_NS: Final = 60_000_000_000
_BY_TIME = itemgetter(0)

Place = tuple[int, int]
"""Where a tape stands: the beginning of its window in ns, and how many events of that window have been given out."""


class Tape:
    """The events of several instruments in the order of their times; at equal times in the order given.

    They are read in short windows: a stable sort of these is several times quicker than a heap over iterators, and as
    exact. `place` can be asked for at any moment, and another tape begun there.
    """

    def __init__(self, day: Sequence[Recording], start_ns: int, end_ns: int, place: Place | None = None) -> None:
        self._day, self._end_ns = day, end_ns
        self._begin_ns, self._skip = place or (start_ns, 0)
        self._length = self._skip
        self._left: Iterator[MarketEvent] = iter(())

    @property
    def place(self) -> Place:
        """Where it stands now."""
        return self._begin_ns, self._length - length_hint(self._left)

    def events(self) -> Iterator[MarketEvent]:
        """The events from here on, once."""
        for begin_ns in range(self._begin_ns, self._end_ns, _WINDOW_NS):
            window = self._window(begin_ns)
            left = iter(window[self._skip :] if self._skip else window)
            self._begin_ns, self._length, self._skip, self._left = begin_ns, len(window), 0, left
            yield from left

    def _window(self, begin_ns: int) -> list[MarketEvent]:
        end_ns = min(begin_ns + _WINDOW_NS, self._end_ns)
        if len(self._day) == 1:
            return list(self._day[0].events(begin_ns, end_ns))
        window: list[MarketEvent] = []
        for number, recording in enumerate(self._day):
            window += recording.events(begin_ns, end_ns, number)
        window.sort(key=_BY_TIME)
        return window
