"""The journal: what happened, in order, one JSON object per line, for replay, audit and rebuilding a monitor's
memory.

The journal hands its lines to the operating system at the end of each step, so a killed process loses nothing
of a finished step. `sync` makes the lines survive a power failure; `start_syncing` syncs several times a
second. The same schedule and seed give the same bytes in any process.

The first line of each file is its header: the name and version of the format.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, Final, NamedTuple

import msgspec

from holdover.model import Record
from holdover.state import DECODE_ERRORS, StateError, Stateful

JOURNAL_FORMAT: Final = "holdover-journal"
JOURNAL_VERSION: Final = 2
_HEADER: Final = msgspec.json.encode({"format": JOURNAL_FORMAT, "version": JOURNAL_VERSION}) + b"\n"


class Journal:
    """A journal open for writing.

    Raises `StateError` when the file is a journal of another version or none at all, `OSError` when a write fails.

    At `max_bytes` (0 is never) the journal rotates between two steps: the file becomes `NAME.000001` and so on,
    and the last `rotated_max` such files stay. A reader reads them in the order of their names.
    """

    def __init__(self, path: Path, max_bytes: int = 0, rotated_max: int = 7) -> None:
        if max_bytes < 0:
            raise ValueError(f"{path}: the journal rotates at {max_bytes} bytes, should be 0 (never) or above")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _check_version(path)
            _truncate_torn_header(path)
        self.path = path
        self.max_bytes, self.rotated_max = max_bytes, max(rotated_max, 1)
        self._file: IO[bytes] = open(path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the journal
        self._size = self._file.tell() or self._file.write(_HEADER)
        self._encoder = msgspec.json.Encoder()
        self._buffer: list[bytes] = []
        self._last_mutation_index = -1
        self._stop = threading.Event()
        self._sync_thread: threading.Thread | None = None

    def start_syncing(self, every_s: float) -> None:
        """Sync the journal every `every_s` seconds in a daemon thread; steps do not wait for it."""
        if every_s <= 0:
            raise ValueError(f"{self.path}: the journal is synced every {every_s} s, should be above 0")
        if self._sync_thread is not None:
            raise RuntimeError(f"{self.path}: the journal is synced periodically already")

        def sync() -> None:
            synced = -1
            while not self._stop.wait(every_s):
                size = self._size
                if size != synced:
                    with contextlib.suppress(OSError, ValueError):  # rotated or closed just now: the rotation syncs it
                        os.fsync(self._file.fileno())
                        synced = size

        self._sync_thread = threading.Thread(target=sync, name="holdover-journal", daemon=True)
        self._sync_thread.start()

    def write_mutation(self, seq: int, time_ns: int, subsystem: str, record: Record, cause: str) -> None:
        """Add one mutation to the buffer; the next `flush` writes it."""
        self._last_mutation_index = len(self._buffer)
        self._buffer.append(
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

    def write_settled(self, seq: int, time_ns: int) -> None:
        """Mark that no step is open: a reader may now evaluate what must hold when settled."""
        if self._last_mutation_index >= 0:
            self._buffer[self._last_mutation_index] = self._buffer[self._last_mutation_index][:-1] + b',"settled":true}'
        else:
            self.write_event(seq, time_ns, "settled")

    def write_restored(self, seq: int, time_ns: int, subsystem: str, records: list[Record]) -> None:
        """Add the records that a restarted subsystem read back."""
        entries = [{"kind": type(record).__name__, "record": record} for record in records]
        line = {"seq": seq, "time_ns": time_ns, "what": "restore", "detail": subsystem, "restored": entries}
        self._buffer.append(self._encoder.encode(line))

    def write_event(self, seq: int, time_ns: int, event: str, detail: str = "") -> None:
        """Add a boundary, a transition or a breach."""
        self._buffer.append(self._encoder.encode({"seq": seq, "time_ns": time_ns, "what": event, "detail": detail}))

    def flush(self) -> None:
        """Write the buffer to the operating system, whole lines in one write."""
        if self._buffer:
            if self.max_bytes and self._size >= self.max_bytes:
                self._rotate()
            self._buffer.append(b"")
            data = b"\n".join(self._buffer)
            self._buffer.clear()
            self._last_mutation_index = -1
            self._size += len(data)
            written_count = self._file.write(data)
            while written_count < len(data):
                data = data[written_count:]
                written_count = self._file.write(data)

    def _rotate(self) -> None:
        rotated = rotated_files(self.path)
        number = int(rotated[-1].suffix[1:]) + 1 if rotated else 1
        target = self.path.with_name(f"{self.path.name}.{number:06d}")
        if target.exists():
            raise FileExistsError(f"{target}: a journal that was rotated before would be overwritten")
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self.path, self.path.with_name(f"{self.path.name}.{number:06d}"))
        for rotated_file in rotated[: max(len(rotated) + 1 - self.rotated_max, 0)]:
            rotated_file.unlink(missing_ok=True)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the journal
        self._size = self._file.write(_HEADER)

    def sync(self) -> None:
        """Flush, and wait until the data is on disk."""
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close; sync first if the journal is synced periodically."""
        self._stop.set()
        if self._sync_thread is not None:
            self._sync_thread.join()
            self.sync()
        self.flush()
        self._file.close()


def rotated_files(path: Path) -> list[Path]:
    """Return the rotated files of the journal at `path`, oldest first."""
    return sorted(
        candidate
        for candidate in path.parent.glob(f"{path.name}.*")
        if len(candidate.suffix) == 7 and candidate.suffix[1:].isdigit()
    )


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal as dictionaries, without the header and a last line that a kill cut off.

    Raises `ValueError` with the number of an unreadable line in the middle, and `StateError` when the file is a
    journal of another version or none at all.
    """
    _check_version(path)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line == _HEADER:
                continue
            try:
                yield msgspec.json.decode(line)
            except DECODE_ERRORS as problem:
                if not line.endswith(b"\n"):
                    return
                raise ValueError(f"{path.name}: line {number} is no journal line: {problem}") from problem


def parse_header(line: bytes) -> Mapping[str, Any] | None:
    """Return the header of a journal if a line is one, of whatever version; else None."""
    if not line.startswith(b'{"format":"' + JOURNAL_FORMAT.encode()):
        return None
    try:
        header = msgspec.json.decode(line)
    except DECODE_ERRORS:
        return None
    return header if isinstance(header, dict) else None


def find_version_problem(header: Mapping[str, Any]) -> str:
    """Return why a journal with this header cannot be read, in words; empty when it can."""
    if header.get("format") != JOURNAL_FORMAT:
        return "it does not begin with the header of a journal"
    version = header.get("version")
    if version != JOURNAL_VERSION:
        return f"it is a journal of version {version}; this build reads version {JOURNAL_VERSION}"
    return ""


def _check_version(path: Path) -> None:
    """Raise `StateError` unless a file is a journal of this version, empty, or cut off in its header."""
    with open(path, "rb") as file:
        line = file.readline(4096)
    if not line or (not line.endswith(b"\n") and _HEADER.startswith(line)):
        return
    try:
        header = msgspec.json.decode(line)
    except DECODE_ERRORS:
        header = {}
    problem = find_version_problem(header if isinstance(header, dict) else {})
    if problem:
        raise StateError(f"{path}: {problem}; move it to another name, and a new journal begins")


def _truncate_torn_header(path: Path) -> None:
    """Empty a journal whose writer was killed inside its header."""
    if path.stat().st_size < len(_HEADER):
        os.truncate(path, 0)


class RecordedMutation(NamedTuple):
    """One mutation in the flight recorder, with the previous record and the number of its step."""

    seq: int
    time_ns: int
    subsystem: str
    record: Record
    cause: str
    before: Record | None
    step: int


_MutationEntry = tuple[int, int, str, Record, str, "Record | None", int]


class FlightRecorderState(msgspec.Struct):
    """The state of a flight recorder."""

    mutations: deque[_MutationEntry]


class FlightRecorder(Stateful[FlightRecorderState]):
    """Keeps the last N mutations in memory, to show what led up to a breach."""

    State = FlightRecorderState
    DERIVED: ClassVar = {"add": "the method of the deque that adds a mutation"}

    def __init__(self, size: int = 256) -> None:
        if size < 0:
            raise ValueError(f"a flight recorder of {size} mutations, should be 0 or above")
        self._mutations: deque[_MutationEntry] = deque(maxlen=size)
        self.add = self._mutations.append

    def mutations(self) -> list[RecordedMutation]:
        """Return the recorded mutations, oldest first."""
        return [RecordedMutation(*values) for values in self._mutations]

    def describe_last(self, count: int | None = None) -> list[dict[str, Any]]:
        """Describe the last `count` mutations, oldest first; all when `count` is None."""
        if count is not None and count < 0:
            raise ValueError(f"the last {count} mutations cannot be described, should be 0 or above")
        mutations = self.mutations()[-count:] if count else self.mutations()
        return [
            {
                "seq": mutation.seq,
                "time_ns": mutation.time_ns,
                "subsystem": mutation.subsystem,
                "state": repr(mutation.record),
                "cause": mutation.cause,
            }
            for mutation in mutations
        ]
