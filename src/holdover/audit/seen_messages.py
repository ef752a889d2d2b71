"""Which messages a log held before, in bounded memory.

A message that is in the logs twice counts once, however far apart the copies are. The digests of the last messages are
in memory; older ones are in sorted runs of a temporary file, behind a Bloom filter of fixed size that answers for
nearly every new message that it is in no run. Rejected: a set of all digests (100 bytes for each message), and the
filter alone (a false answer would drop a message and show as a breach).
"""

from __future__ import annotations

import mmap
import tempfile
from array import array
from collections.abc import Iterable
from typing import IO, Final

RECENT_MAX: Final = 200_000
"""Digests in memory."""
_FILTER_BITS: Final = 27  # 16 MiB: one false answer in 40 after ten million messages


class SeenMessages:
    """The digests of the messages so far, each an unsigned 64-bit integer."""

    def __init__(self, digests: Iterable[int] = ()) -> None:
        self.recent: set[int] = set(digests)
        self._filter = bytearray()
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []
        self._map: mmap.mmap | None = None
        self._last_run = 0

    def add(self, digest: int) -> bool:
        """Add a digest; return whether it was there already."""
        if digest in self.recent or (self._runs and self._is_stored(digest)):
            return True
        self.recent.add(digest)
        if len(self.recent) >= RECENT_MAX:
            self._store_recent()
        return False

    def _is_stored(self, digest: int) -> bool:
        bits = self._filter
        for shift in (0, 32):
            place = (digest >> shift) & ((1 << _FILTER_BITS) - 1)
            if not bits[place >> 3] & (1 << (place & 7)):
                return False
        for run in (self._last_run, *range(len(self._runs))):
            if self._is_in_run(digest, *self._runs[run]):
                self._last_run = run
                return True
        return False

    def _is_in_run(self, digest: int, low: int, high: int) -> bool:
        assert self._map is not None
        wanted = digest.to_bytes(8, "big")
        while low < high:
            middle = (low + high) // 2
            stored = self._map[8 * middle : 8 * middle + 8]
            if stored < wanted:
                low = middle + 1
            elif stored > wanted:
                high = middle
            else:
                return True
        return False

    def _store_recent(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="holdover-audit-")  # noqa: SIM115 - lives as long as the audit
            self._filter = bytearray(1 << (_FILTER_BITS - 3))
        assert self._file is not None
        run = array("Q", sorted(self.recent))
        for digest in run:
            for shift in (0, 32):
                place = (digest >> shift) & ((1 << _FILTER_BITS) - 1)
                self._filter[place >> 3] |= 1 << (place & 7)
        run.byteswap()  # big-endian bytes are in the order of the numbers
        low = self._runs[-1][1] if self._runs else 0
        self._file.write(run.tobytes())
        self._file.flush()
        self._runs.append((low, low + len(run)))
        if self._map is not None:
            self._map.close()
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self.recent.clear()
