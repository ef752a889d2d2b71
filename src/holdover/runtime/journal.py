"""What happened, in order, one JSON object a line: for replay, for audit, and to rebuild a monitor's memory.

Lines are handed to the operating system at the end of each step, so a killed process loses nothing that a step had
finished; `sync` makes them survive the machine as well, and `keep_synced` sees to that several times a second. The
same schedule and seed give the same bytes in any process.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from holdover.model import Record


class Journal:
    """A journal being written. Raises `OSError` when the disk does not take it.

    Past `max_bytes` (0 is never) the file is put aside between two steps, as `NAME.000001` and so on, and a new one is
    begun; the last `keep` of those put aside stay. Whoever follows the journal reads them in the order of their names.
    """

    def __init__(self, path: Path, max_bytes: int = 0, keep: int = 7) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.max_bytes, self.keep = max_bytes, max(keep, 1)
        self._file: IO[bytes] = open(path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the journal
        self._size = self._file.tell()
        self._encoder = msgspec.json.Encoder()
        self._waiting: list[bytes] = []
        self._last = -1
        self._ended = threading.Event()
        self._syncing: threading.Thread | None = None

    def keep_synced(self, every_s: float) -> None:
        """From here on what has been handed over is on the disk after so long at most; a step does not wait for it."""

        def sync() -> None:
            synced = -1
            while not self._ended.wait(every_s):
                size = self._size
                if size != synced:
                    with contextlib.suppress(OSError, ValueError):  # closed just now, to be put aside: synced then
                        os.fsync(self._file.fileno())
                        synced = size

        self._syncing = threading.Thread(target=sync, name="holdover-journal", daemon=True)
        self._syncing.start()

    def mutation(self, seq: int, time_ns: int, subsystem: str, record: Record, cause: str) -> None:
        """Add one mutation; it is handed over with the next `flush`."""
        self._last = len(self._waiting)
        self._waiting.append(
            self._encoder.encode(
                {
                    "seq": seq,
                    "time_ns": time_ns,
                    "subsystem": subsystem,
                    "kind": type(record).__name__,
                    "record": record,
                    "cause": cause,
                }
            )
        )

    def settled(self, seq: int, time_ns: int) -> None:
        """No step is open any more: whoever follows the journal may judge what has to hold when settled."""
        if self._last >= 0:
            self._waiting[self._last] = self._waiting[self._last][:-1] + b',"settled":true}'
        else:
            self.say(seq, time_ns, "settled")

    def restored(self, seq: int, time_ns: int, subsystem: str, records: list[Record]) -> None:
        """Add what a restarted subsystem says that it read back."""
        told = [{"kind": type(record).__name__, "record": record} for record in records]
        said = {"seq": seq, "time_ns": time_ns, "what": "restore", "detail": subsystem, "restored": told}
        self._waiting.append(self._encoder.encode(said))

    def say(self, seq: int, time_ns: int, what: str, detail: str = "") -> None:
        """Add a boundary, a transition, a breach."""
        self._waiting.append(self._encoder.encode({"seq": seq, "time_ns": time_ns, "what": what, "detail": detail}))

    def flush(self) -> None:
        """Hand what waits to the operating system, whole lines in one write."""
        if self._waiting:
            if self.max_bytes and self._size >= self.max_bytes:
                self._rotate()
            self._waiting.append(b"")
            data = b"\n".join(self._waiting)
            self._waiting.clear()
            self._last = -1
            self._size += len(data)
            written = self._file.write(data)
            while written < len(data):
                data = data[written:]
                written = self._file.write(data)

    def _rotate(self) -> None:
        aside = put_aside(self.path)
        number = int(aside[-1].suffix[1:]) + 1 if aside else 1
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self.path, self.path.with_name(f"{self.path.name}.{number:06d}"))
        for old in aside[: max(len(aside) + 1 - self.keep, 0)]:
            old.unlink(missing_ok=True)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the journal
        self._size = 0

    def sync(self) -> None:
        """Flush, and wait until the disk has it."""
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close; whole on the disk where it was kept so."""
        self._ended.set()
        if self._syncing is not None:
            self._syncing.join()
            self.sync()
        self.flush()
        self._file.close()


def put_aside(path: Path) -> list[Path]:
    """The files that a journal at `path` has put aside, oldest first."""
    return sorted(
        one for one in path.parent.glob(f"{path.name}.*") if len(one.suffix) == 7 and one.suffix[1:].isdigit()
    )


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal as plain dictionaries; a last line that a kill cut off is left out.

    Raises `ValueError` naming the line when one in the middle cannot be read.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield msgspec.json.decode(line)
            except msgspec.MsgspecError as problem:
                if not line.endswith(b"\n"):
                    return
                raise ValueError(f"{path.name}: line {number} is no journal line: {problem}") from problem


class Noted(NamedTuple):
    """One mutation as the flight recorder has it, with the record that stood there before and its step's number."""

    seq: int
    time_ns: int
    subsystem: str
    record: Record
    cause: str
    before: Record | None
    step: int


class FlightRecorder:
    """The last N mutations, kept in memory so that a breach can show what led up to it."""

    def __init__(self, size: int = 256) -> None:
        self._last: deque[tuple[int, int, str, Record, str, Record | None, int]] = deque(maxlen=size)
        self.add = self._last.append

    def keep(self) -> list[tuple[int, int, str, Record, str, Record | None, int]]:
        """What is kept now, for `put_back`."""
        return list(self._last)

    def put_back(self, kept: list[tuple[int, int, str, Record, str, Record | None, int]]) -> None:
        """Make it what it was when `keep` was called."""
        self._last.clear()
        self._last.extend(kept)

    def noted(self) -> list[Noted]:
        """The mutations kept, oldest first."""
        return [Noted(*one) for one in self._last]

    def last(self, count: int | None = None) -> list[dict[str, Any]]:
        """The last `count` mutations, oldest first, in words."""
        kept = self.noted()[-count:] if count else self.noted()
        return [
            {
                "seq": one.seq,
                "time_ns": one.time_ns,
                "subsystem": one.subsystem,
                "state": repr(one.record),
                "cause": one.cause,
            }
            for one in kept
        ]
