"""Bring a monitor's memory up to date from the journal: what the dead process recorded after it had saved its memory.

A saved memory has a mark, and the journal has a line with the same mark at the moment of the saving. The lines after
the last such line are applied again. Nothing is reported: the process that recorded them has reported its breaches.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import Boundary
from holdover.model import Record
from holdover.runtime.check import Touched
from holdover.runtime.journal import LOST_EVENT, MEMORY_EVENT, rotated_files
from holdover.runtime.memory import kinds_by_name
from holdover.runtime.monitor import Monitor
from holdover.state import StateError

_BOUNDARIES: Final = frozenset(("begin", "end", "overnight", "restart", "disconnect", "reconnect", "reconciled"))
_RECOVERED: Final = ("orders", "positions", "ledger")


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a replay: whether the mark was found, the lines applied, and how many were lost or damaged."""

    is_joined: bool
    line_count: int = 0
    lost_count: int = 0


def replay_journal(monitor: Monitor, path: Path, mark: str) -> ReplayResult:
    """Apply the lines of a journal, over its rotated files, that follow the last line with a mark.

    Raises `StateError` for an empty mark, which every line would follow.
    """
    if not mark:
        raise StateError(f"the saved memory has no mark by which {path.name} continues it")
    files = [*rotated_files(path), *([path] if path.exists() else [])]
    for index in range(len(files) - 1, -1, -1):
        offset = _find_mark(files[index], mark)
        if offset >= 0:
            replay = _Replay(monitor)
            with monitor.silence(), monitor.cells.suspend_counting():
                for number, file in enumerate(files[index:]):
                    for line in _lines_of(file, 0 if number else offset):
                        replay.apply(line)
                replay.end()
            return ReplayResult(is_joined=True, line_count=replay.line_count, lost_count=replay.lost_count)
    return ReplayResult(is_joined=False)


def _find_mark(path: Path, mark: str) -> int:
    """Return the offset behind the last line with the mark; -1 when there is none."""
    if not path.stat().st_size:
        return -1
    needle = b'"what":' + msgspec.json.encode(MEMORY_EVENT) + b',"detail":' + msgspec.json.encode(mark) + b"}\n"
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        offset = content.rfind(needle)
        return offset + len(needle) if offset >= 0 else -1


def _lines_of(path: Path, offset: int) -> Iterator[bytes]:
    """Yield whole lines; a last line without an end belongs to a step that never finished."""
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if line.endswith(b"\n"):
                yield line


class _Replay:
    """Applies lines to a monitor."""

    def __init__(self, monitor: Monitor) -> None:
        self.line_count = 0
        self.lost_count = 0
        self._monitor = monitor
        self._kinds = kinds_by_name()
        self._touched: Touched = {}
        monitor.recovery.undo_log = []

    def apply(self, line: bytes) -> None:
        """Apply one line; one that cannot be read counts as lost."""
        try:
            entry = msgspec.json.decode(line)
            if "format" in entry:
                return
            time_ns = int(entry["time_ns"])
            if "record" in entry:
                self._apply_mutation(entry, time_ns)
            else:
                self._apply_event(str(entry["what"]), entry, time_ns)
            self._monitor.mutations = max(self._monitor.mutations, int(entry["seq"]))
            self.line_count += 1
        except (ValueError, TypeError, KeyError, RecursionError):
            self.lost_count += 1

    def _apply_mutation(self, entry: dict[str, Any], time_ns: int) -> None:
        monitor, record = self._monitor, self._decode_record(entry)
        if time_ns >= monitor.deadlines.next_ns:
            monitor.tick(time_ns)
        monitor.cause = str(entry.get("cause", ""))
        monitor.mutate(str(entry["subsystem"]), record, time_ns, self._touched)
        if entry.get("settled"):
            self._settle(time_ns)

    def _apply_event(self, event: str, entry: dict[str, Any], time_ns: int) -> None:
        monitor, detail = self._monitor, str(entry.get("detail", ""))
        if event == "settled":
            self._settle(time_ns)
        elif event == "restore":
            records = [self._decode_record(item) for item in entry["restored"]]
            monitor.cause = event
            monitor.restore(detail, records, time_ns, self._touched)
        elif event == LOST_EVENT:
            lost_count = int(detail)
            if lost_count < 1:
                raise ValueError(f"a journal cannot have lost {lost_count} lines")
            self.lost_count += lost_count
        elif event in _BOUNDARIES:
            self._settle(time_ns)
            monitor.cause = event
            recovered = _RECOVERED if event == "reconciled" else ()
            monitor.boundary(Boundary(event, detail, time_ns), recovered=recovered)

    def _decode_record(self, entry: dict[str, Any]) -> Record:
        record: Record = msgspec.convert(entry["record"], self._kinds[str(entry["kind"])])
        return record

    def _settle(self, time_ns: int) -> None:
        touched, self._touched = self._touched, {}
        self._monitor.settle(touched, time_ns)
        self._monitor.recovery.undo_log = []

    def end(self) -> None:
        """Undo the steps that the dead process left open: its store may or may not have their records."""
        self._monitor.undo_open_steps(lambda record: True)
        self._monitor.recovery.undo_log = None
