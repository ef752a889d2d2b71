"""The directory of a subject: its image at the instant of a kill, and what each kind of restart loses of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec

from holdover.harness import disk
from holdover.state import StateError, Stateful


class SubjectDiskState(msgspec.Struct):
    """The state of a `SubjectDisk`."""

    synced: dict[str, int]


class SubjectDisk(Stateful[SubjectDiskState]):
    """The directory of the subject.

    `synced` has the size of each file at its last sync, by relative name, as of the last kill. The image of a kill is a
    copy of the directory next to it, which exists from `capture` to `restore_capture`.
    """

    State = SubjectDiskState
    IN_PROCESS: ClassVar = {
        "directory": "a path of this machine; a trial runs on a copy",
        "_captured": "the path of the image between a kill and its end",
    }
    DERIVED: ClassVar = {"_sync_tracker": "counts syncs of this process"}

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.synced: dict[str, int] = {}
        self._captured: Path | None = None
        self._sync_tracker = disk.SyncTracker()

    def take_state(self, state: SubjectDiskState) -> None:
        """Take over a decoded state. Raises `StateError` for a file of negative size."""
        for name, size in state.synced.items():
            if size < 0:
                raise StateError(f"the stored state of SubjectDisk is damaged: {size} bytes of {name!r} were synced")
        super().take_state(state)

    @property
    def is_captured(self) -> bool:
        """Whether an image of a kill waits to be restored."""
        return self._captured is not None

    def track_syncs(self) -> None:
        """Start to record what the subject syncs."""
        self._sync_tracker.start()

    def capture(self) -> None:
        """Copy the directory as it is now. Of two kills before a restart the first decides: its image stays."""
        if self._captured is not None:
            return
        self._captured = self.directory.with_name(f"{self.directory.name}.killed")
        disk.copy_directory(self.directory, self._captured)
        self.synced = self._sync_tracker.sizes_in(self.directory)

    def restore_capture(self) -> None:
        """Make the directory what it was at the last `capture`, if there is an image."""
        if self._captured is not None:
            disk.replace_directory(self._captured, self.directory)
            self._captured = None

    def branch(self, directory: Path, image: Mapping[str, bytes] | None) -> None:
        """Continue on a copy of the directory, made from `image` when that is given; the present one stays."""
        if directory == self.directory:
            raise ValueError(f"a branch of {directory} needs another directory: the present one must stay")
        disk.write_image(disk.read_image(self.directory) if image is None else image, directory)
        self.synced = self._sync_tracker.sizes_in(self.directory)
        self.directory = directory

    def damage(self, kind: str, backup: Path) -> None:
        """Remove what a kind of restart loses; `stale` restores the backup."""
        if kind == "kill-unsynced":
            disk.lose_unsynced(self.directory, self.synced)
        elif kind == "torn":
            disk.tear_last_write(self.directory)
        elif kind == "stale":
            disk.copy_directory(backup, self.directory)
        elif kind not in ("kill", "kill-during-recovery"):
            raise ValueError(f"no restart that damages the disk is called {kind!r}")

    def close(self) -> None:
        """Stop recording syncs."""
        self._sync_tracker.stop()
