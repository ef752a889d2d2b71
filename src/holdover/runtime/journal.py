"""The journal: what happened, in order, one JSON object per line, for replay, audit and rebuilding a monitor's
memory.

The journal hands its lines to the operating system at the end of each step, so a killed process loses nothing
of a finished step. `sync` makes the lines survive a power failure; `start_syncing` syncs several times a
second. The same schedule and seed give the same bytes in any process.

The first line of each file is its header: the name and version of the format.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, Final, NamedTuple

import msgspec

from holdover.model import Record
from holdover.runtime.files import make_private_directory, open_private
from holdover.state import DECODE_ERRORS, StateError, Stateful

log = logging.getLogger("holdover.guard")

JOURNAL_FILE: Final = "journal.jsonl"
"""The name of the journal in the directory of a guard or a session."""
JOURNAL_FORMAT: Final = "holdover-journal"
JOURNAL_VERSION: Final = 2
MEMORY_EVENT: Final = "memory"
LOST_EVENT: Final = "lost"
_NEWLINE: Final = ord("\n")
_HEADER: Final = msgspec.json.encode({"format": JOURNAL_FORMAT, "version": JOURNAL_VERSION}) + b"\n"


class Journal:
    """A journal open for writing.

    Raises `StateError` when the file is a journal of another version or none at all, `OSError` when a write fails.

    With `on_failure`, which receives the reason, a write that fails loses its lines and raises nothing; `lost_count`
    counts them. A line that a full disk or a kill cut off costs only itself: the next one begins on a line of its own.

    At `max_bytes` (0 is never) the journal rotates between two steps: the file becomes `NAME.000001` and so on,
    and the last `rotated_max` such files stay. A reader reads them in the order of their names.
    """

    def __init__(self, path: Path, max_bytes: int = 0, rotated_max: int = 7) -> None:
        if max_bytes < 0:
            raise ValueError(f"{path}: the journal rotates at {max_bytes} bytes, should be 0 (never) or above")
        make_private_directory(path.parent)
        if path.exists():
            _check_version(path)
            _truncate_torn_header(path)
        self.path = path
        self.max_bytes, self.rotated_max = max_bytes, max(rotated_max, 1)
        self.lost_count = 0
        self._unreported_count = 0
        self.on_failure: Callable[[str], None] | None = None
        self._is_torn = _ends_inside_a_line(path)
        self._file: IO[bytes] = _open_new(path)
        self._size = self._file.tell() or self._file.write(_HEADER)
        self._rotated: list[tuple[IO[bytes], list[Path]]] = []
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
                if size == synced and not self._rotated:
                    continue
                try:
                    self._finish_rotations()
                    os.fsync(self._file.fileno())
                    synced = size
                except ValueError:  # rotated or closed just now: the next round syncs it
                    continue
                except OSError as problem:
                    if self.on_failure is not None:
                        self.on_failure(str(problem))

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
        self._buffer.append(self._encode_event(seq, time_ns, event, detail))

    def _encode_event(self, seq: int, time_ns: int, event: str, detail: str) -> bytes:
        return self._encoder.encode({"seq": seq, "time_ns": time_ns, "what": event, "detail": detail})

    def flush(self) -> None:
        """Write the buffer to the operating system, whole lines in one write.

        Raises `OSError`, unless `on_failure` takes it: then the lines are lost, `lost_count` counts them, and the next
        flush tries again.
        """
        if not self._buffer:
            return
        line_count = len(self._buffer)
        if self._unreported_count:
            self._buffer.insert(0, self._encode_event(0, 0, LOST_EVENT, str(self._unreported_count)))
        self._buffer.append(b"")
        data = b"\n".join(self._buffer)
        self._buffer.clear()
        self._last_mutation_index = -1
        try:
            if self.max_bytes and self._size >= self.max_bytes:
                self._rotate()
            self._write(data)
            self._unreported_count = 0
        except (OSError, ValueError) as problem:  # ValueError: the file was closed
            if self.on_failure is None:
                raise
            self.lost_count += line_count
            self._unreported_count += line_count
            self.on_failure(str(problem))

    def _write(self, data: bytes) -> None:
        if self._is_torn:
            data = b"\n" + data  # a line that was cut off must not swallow the next one
        total, written_count = len(data), 0
        try:
            while written_count < total:
                written_count += self._file.write(data[written_count:] if written_count else data)
        finally:
            self._size += written_count
            if written_count:
                self._is_torn = data[written_count - 1] != _NEWLINE

    def _rotate(self) -> None:
        rotated = rotated_files(self.path)
        number = int(rotated[-1].suffix[1:]) + 1 if rotated else 1
        target = self.path.with_name(f"{self.path.name}.{number:06d}")
        if target.exists():
            raise FileExistsError(f"{target}: a journal that was rotated before would be overwritten")
        # The old file is not synced and closed here: that would take as long as the disk needs.
        os.replace(self.path, target)
        former, self._file = self._file, _open_new(self.path)
        self._size, self._is_torn = self._file.write(_HEADER), False
        removed = rotated[: max(len(rotated) + 1 - self.rotated_max, 0)]
        self._rotated.append((former, removed))
        if self._sync_thread is None:
            self._finish_rotations()

    def _finish_rotations(self) -> None:
        """Sync and close the files that were rotated, and remove the oldest."""
        while self._rotated:
            former, removed = self._rotated[0]
            with former:
                os.fsync(former.fileno())
            for path in removed:
                path.unlink(missing_ok=True)
            del self._rotated[0]

    def sync(self) -> None:
        """Flush, and wait until the data is on disk."""
        self.flush()
        self._finish_rotations()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close; sync first if the journal is synced periodically."""
        self._stop.set()
        try:
            if self._sync_thread is not None:
                self._sync_thread.join()
                self.sync()
            self.flush()
            self._finish_rotations()
        except (OSError, ValueError) as problem:
            if self.on_failure is None:
                raise
            self.on_failure(str(problem))
        finally:
            self._file.close()


def _open_new(path: Path) -> IO[bytes]:
    return open_private(path, "ab", buffering=0)


def rotated_files(path: Path) -> list[Path]:
    """Return the rotated files of the journal at `path`, oldest first."""
    return sorted(
        candidate
        for candidate in path.parent.glob(f"{path.name}.*")
        if len(candidate.suffix) == 7 and candidate.suffix[1:].isdigit()
    )


def read_journal(path: Path, on_damaged: Callable[[int, str], None] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal as dictionaries, without the header and a last line that a kill cut off.

    A line that a full disk or a power failure damaged is left out: `on_damaged` receives its number and what is wrong
    with it, or else the log does. Raises `StateError` when the file is a journal of another version or none at all.
    """
    _check_version(path)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line == _HEADER:
                continue
            try:
                entry = msgspec.json.decode(line)
                if not isinstance(entry, dict):
                    raise ValueError("an object was expected")
            except (*DECODE_ERRORS, ValueError) as problem:
                if not line.endswith(b"\n"):
                    return
                if on_damaged is not None:
                    on_damaged(number, str(problem))
                else:
                    log.warning("%s: line %d is damaged and left out: %s", path.name, number, problem)
                continue
            yield entry


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


def _ends_inside_a_line(path: Path) -> bool:
    """Whether the last line of a file has no end."""
    if not path.exists() or not path.stat().st_size:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


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


MutationEntry = tuple[int, int, str, Record, str, "Record | None", int]


class FlightRecorderState(msgspec.Struct):
    """The state of a flight recorder."""

    mutations: deque[MutationEntry]


class FlightRecorder(Stateful[FlightRecorderState]):
    """Keeps the last N mutations in memory, to show what led up to a breach."""

    State = FlightRecorderState
    DERIVED: ClassVar = {"add": "the method of the deque that adds a mutation"}

    def __init__(self, size: int = 256) -> None:
        if size < 0:
            raise ValueError(f"a flight recorder of {size} mutations, should be 0 or above")
        self._mutations: deque[MutationEntry] = deque(maxlen=size)
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
