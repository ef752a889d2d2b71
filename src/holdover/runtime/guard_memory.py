"""What a guard remembers over the end of its process: the saved memory, continued by the journal.

The memory is current when it contains everything that was recorded: the saved memory was loaded, and the journal has
all that was recorded after it. Otherwise nobody can say whether an invariant holds again, and a thaw needs a second
person.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from holdover.runtime.background import Pace
from holdover.runtime.bundle import GuardSnapshot
from holdover.runtime.guard_folder import FolderLock, GuardFolder, OwnerRecord, read_lock
from holdover.runtime.journal import LOST_EVENT, MEMORY_EVENT
from holdover.runtime.journal_replay import replay_journal
from holdover.runtime.memory import decode_memory
from holdover.runtime.memory_file import MemoryHeader, read_memory_file, write_memory_file
from holdover.state import StateError

if TYPE_CHECKING:
    from holdover.runtime.guard import Guard

log = logging.getLogger("holdover.guard")

NOTHING_MARK: Final = "nothing"
"""The mark of a journal that begins before anything was recorded."""

_SAVE_AFTER: Final = 100_000  # mutations that a restart may have to replay


class GuardMemory:
    """The memory of one guard on disk. `problem` says why the guard does not know everything; empty when it does."""

    def __init__(self, guard: Guard) -> None:
        self.problem = ""
        self.lock: FolderLock | None = None
        self._guard = guard
        self._saved_at = 0
        self._mark = NOTHING_MARK
        self._is_joined = False
        self._is_saving = False

    @property
    def folder(self) -> GuardFolder:
        """The paths of the guard's files."""
        return self.lock.folder if self.lock is not None else GuardFolder(self._guard.directory, self._guard.name)

    def save(self, pace: Pace | None = None) -> None:
        """Save the memory atomically and synced. Raises `OSError`."""
        guard = self._guard
        give_way = pace.give_way if pace is not None else lambda: None
        snapshot, mark = GuardSnapshot(guard), ""

        def write_mark() -> None:
            nonlocal mark
            mark = self._write_mark(f"{guard.monitor.mutations}@{guard.clock()}")
            self._saved_at = guard.monitor.mutations

        snapshot.take(give_way, write_mark)
        header = MemoryHeader(name=guard.name, mark=mark, problem=self.problem)
        write_memory_file(self.folder.memory, header, snapshot.memory.encode(None, give_way))
        self._mark = mark
        guard.services.write_cell_counts(running=True)

    def save_if_due(self) -> None:
        """Have the background save the memory when a restart would have to replay much."""
        guard = self._guard
        due = self._saved_at + max(_SAVE_AFTER, guard.monitor.tables.record_count() // 2)
        if (
            self.lock is None
            or not self.lock.is_held
            or guard.journal is None
            or self._is_saving
            or guard.monitor.mutations < due
        ):
            return

        def save(pace: Pace) -> None:
            try:
                self.save(pace)
            finally:
                self._is_saving = False

        self._is_saving = True
        if not guard.services.copier.submit("the memory", save):
            self._is_saving = False

    def load(self) -> bool:
        """Load the saved memory and what the journal has after it. Returns False when there was no saved memory.

        Raises `StateError`, which names the file, when the memory is damaged or of another version.
        """
        guard, folder = self._guard, self.folder
        former = self.lock.former if self.lock is not None else read_lock(folder.lock)
        with guard.steps.lock:
            header, is_loaded = MemoryHeader(name=guard.name, mark=NOTHING_MARK), folder.memory.exists()
            if is_loaded:
                header, data = read_memory_file(folder.memory)
                try:
                    self._report_other_catalogue(decode_memory(data).digest)
                    guard.monitor.restore_bytes(data)
                except StateError as problem:
                    raise StateError(f"{folder.memory}: {problem}") from problem
            self._mark = header.mark
            self.problem = self._continue_from(header, is_loaded, former)
            self._saved_at = guard.monitor.mutations
        if self.problem:
            log.warning("%s", self.problem)
        return is_loaded

    def _continue_from(self, header: MemoryHeader, is_loaded: bool, former: OwnerRecord | None) -> str:
        """Replay the journal behind a mark. Returns why the memory is not current; empty when it is."""
        guard = self._guard
        result = replay_journal(guard.monitor, self.folder.journal, header.mark)
        self._is_joined = result.is_joined
        if header.problem:
            return header.problem
        if former is not None and former.is_closed and is_loaded and former.mark == header.mark:
            return ""  # saved when its process ended in good order, and nothing was recorded since
        if former is not None and not former.is_journaled:
            return f"process {former.pid} recorded without a journal, and it ended without saving its memory"
        if result.lost_count:
            return f"{result.lost_count} lines of {self.folder.journal.name} are lost or damaged"
        if result.is_joined:
            return ""
        if is_loaded and former is None and not self.folder.journal.exists():
            return ""  # saved by a guard that was not opened on its directory, which has no journal
        if is_loaded:
            return f"{self.folder.journal.name} does not continue the saved memory: what was recorded later is unknown"
        is_known_here = any(freeze.holder == guard.name for freeze in guard.freezes.cache.active_freezes())
        if former is not None or is_known_here:
            return f"there is no saved memory ({self.folder.memory.name} is missing)"
        return ""

    def _report_other_catalogue(self, digest: str) -> None:
        if digest != self._guard.catalogue.digest:
            log.warning(
                "the saved memory is of another catalogue (%s): deadlines of invariants that this catalogue does not "
                "have are dropped, the records are judged by this one",
                digest,
            )

    def begin(self) -> None:
        """Begin to record after `load`: let the journal continue what is known now."""
        if self.problem:
            self._write_event(LOST_EVENT, "1")  # a restart must not take what follows for everything
        elif not self._is_joined:
            self._write_mark(self._mark)
        self._write_lock(is_closed=False)

    def reconciled(self) -> None:
        """Take note that everything was reported anew and compared with the venue: the memory is current."""
        if self.problem:
            self.problem = ""
            self._saved_at = -(2**62)
            self.save_if_due()

    def lose_journal(self, reason: str) -> None:
        """Take note that the journal could not be written. Raises `ValueError` without the reason."""
        if not reason:
            raise ValueError("a lost journal needs its reason: the operator who thaws reads it")
        self.problem = f"the journal could not be written ({reason}): a restart does not know what was recorded"
        self._write_lock(is_closed=False)

    def close(self) -> None:
        """Save the memory and release the lock. Does nothing for a guard without a lock."""
        if self.lock is None or not self.lock.is_held:
            return
        is_saved = False
        try:
            self.save()
            is_saved = True
        except (OSError, StateError) as problem:
            log.error("the memory could not be saved: %s", problem)
        self._write_lock(is_closed=is_saved)
        self.lock.release()
        self.lock = None

    def _write_mark(self, mark: str) -> str:
        self._write_event(MEMORY_EVENT, mark)
        return mark

    def _write_event(self, event: str, detail: str) -> None:
        guard = self._guard
        if guard.journal is not None:
            guard.journal.write_event(guard.monitor.mutations, guard.clock(), event, detail)
            guard.journal.flush()

    def _write_lock(self, *, is_closed: bool) -> None:
        if self.lock is not None:
            is_journaled = self._guard.journal is not None and not self._guard.journal.lost_count
            self.lock.write(is_journaled=is_journaled, is_closed=is_closed, mark=self._mark)
