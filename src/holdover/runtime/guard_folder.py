"""The files of one guard in its directory, and the lock by which they have one owner.

Several processes of one host may share a directory, because they share its freeze store; each has a name of its own.
The name that opened the directory first owns the plain file names (`monitor.memory`, `journal.jsonl`); any other name
has files of its own (`monitor-NAME.memory`). Two processes of one name would overwrite each other's memory, so the
second one is refused.

The lock file says who holds it and how its last owner ended: a process that recorded without a journal and did not save
its memory leaves a memory that nobody can bring up to date.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from pathlib import Path
from typing import IO, Final

import msgspec

from holdover.runtime.database import StoreError
from holdover.runtime.files import lock_file, make_private_directory, write_whole

OWNER_FILE: Final = "guard.owner"


log = logging.getLogger("holdover.guard")


class GuardInUseError(StoreError):
    """Another process has opened the guard; the message names it."""


class OwnerRecord(msgspec.Struct, kw_only=True):
    """The content of a lock file.

    `is_journaled` is false when mutations were recorded that no journal has. `is_closed` is true when the process has
    saved its memory at its end; `mark` is then the memory's.
    """

    pid: int
    name: str
    is_journaled: bool
    is_closed: bool = False
    mark: str = ""


class GuardFolder:
    """The paths of one guard's files."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        owner = read_owner(directory)
        suffix = "" if owner in ("", name) else f"-{_file_name(name)}"
        self.memory = directory / f"monitor{suffix}.memory"
        self.journal = directory / f"journal{suffix}.jsonl"
        self.lock = directory / f"guard{suffix}.lock"


class FolderLock:
    """The lock of one guard's files, until `release` or the end of the process.

    With `owns`, a guard that was opened before in this process, and not closed, gives way to the new one.

    `owns` makes the name the owner of the plain file names, when nobody owns them yet. Raises `GuardInUseError` when
    another process holds the lock.
    """

    def __init__(self, directory: Path, name: str, *, owns: bool = True) -> None:
        make_private_directory(directory)
        with contextlib.suppress(OSError):
            if owns and not read_owner(directory):
                write_whole(directory / OWNER_FILE, name.encode())
        self.folder = GuardFolder(directory, name)
        self.former = read_lock(self.folder.lock)
        self._file: IO[bytes] | None = lock_file(self.folder.lock)
        if self._file is None and owns and _take_over(self.folder.lock):
            self._file = lock_file(self.folder.lock)
        if self._file is None:
            process = f"process {self.former.pid}" if self.former is not None else "another process"
            raise GuardInUseError(
                f"{directory}: the guard {name} runs already, in {process}: stop it, or give this process another "
                f"[guard] name"
            )
        _LOCKS.add(self)

    def write(self, *, is_journaled: bool, is_closed: bool = False, mark: str = "") -> None:
        """Write who holds the lock, and whether the memory can be brought up to date after a kill."""
        if self._file is None:
            return
        record = OwnerRecord(
            pid=os.getpid(), name=self.folder.name, is_journaled=is_journaled, is_closed=is_closed, mark=mark
        )
        with contextlib.suppress(OSError):  # a full disk: the next owner then finds the lines missing in the journal
            self._file.truncate(0)
            self._file.write(msgspec.json.encode(record))
            self._file.flush()
            os.fsync(self._file.fileno())

    @property
    def is_held(self) -> bool:
        """Whether this process holds the lock by this object."""
        return self._file is not None

    def release(self) -> None:
        """Release the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None


_LOCKS: Final[weakref.WeakSet[FolderLock]] = weakref.WeakSet()


def _take_over(path: Path) -> bool:
    """Release a lock that this process holds: a guard that was left without `close` has no claim. Returns whether."""
    held_locks = [lock for lock in _LOCKS if lock.folder.lock == path and lock.is_held]
    for lock in held_locks:
        log.error(
            "%s: the guard %s is opened again in this process without a close; the former one no longer saves its "
            "memory",
            path.parent,
            lock.folder.name,
        )
        lock.release()
    return bool(held_locks)


def _release_in_child() -> None:
    """Close the lock files in a forked child, which would otherwise hold the locks after its parent's death."""
    for lock in list(_LOCKS):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)


def read_owner(directory: Path) -> str:
    """Return the name of the guard that owns the plain file names; empty when there is none yet."""
    try:
        return (directory / OWNER_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def read_lock(path: Path) -> OwnerRecord | None:
    """Return who holds or last held a lock; None when nobody has, or when it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=OwnerRecord)
    except (OSError, msgspec.MsgspecError):
        return None


def _file_name(name: str) -> str:
    """Return a guard's name as a part of a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_" else f"%{ord(letter):x}" for letter in name)
