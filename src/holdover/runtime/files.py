"""Atomic and private file writes, lock files, and the output directories of the command line.

What a running guard writes is for its owner only: files have the mode 0600 and directories 0700 from their first byte,
whatever the umask is. A report that the user asked for has the mode that the umask gives.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

PRIVATE_FILE: Final = 0o600
"""The mode of a file that only its owner may read."""
PRIVATE_DIRECTORY: Final = 0o700
"""The mode of a directory that only its owner may enter."""
PUBLIC_FILE: Final = 0o666
"""The mode of a file that anybody may read, as far as the umask allows."""
OUTPUT_MARKER: Final = ".holdover-output"
"""The name of the file that marks a directory as made by Holdover."""


class OutputDirectoryError(ValueError):
    """An output directory has content that Holdover did not write; the message names it and what to do."""


def write_whole(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Write a file atomically: after a crash it has either its new or its old content.

    Args:
        path: the file.
        data: the content.
        mode: the permissions of a new file; the default lets only its owner read it.
    """
    with open_whole(path, mode) as file:
        file.write(data)


@contextmanager
def open_whole(path: Path, mode: int = PRIVATE_FILE) -> Iterator[IO[bytes]]:
    """Open a file to write it atomically in pieces: its new content is there, and on disk, when the context ends.

    When the context raises, the old content stays. `mode` is as for `write_whole`. Raises `OSError`.
    """
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)  # left by a process that was killed, maybe with other permissions
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    os.replace(part, path)
    sync_directory(path.parent)


def write_report(path: Path, text: str) -> None:
    """Write a text for the user atomically, with the permissions that the umask gives; make its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode("utf-8"), PUBLIC_FILE)


def sync_directory(directory: Path) -> None:
    """Sync a directory, so that its names survive a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- private files ----------------------------------------------------------------------------------------------------


def open_private(path: Path, mode: str = "ab", buffering: int = -1) -> IO[Any]:
    """Open a file that only its owner may read, from its first byte on; an existing file becomes private, too.

    Args:
        path: the file.
        mode: the mode of `open`, such as `ab` or `wb`.
        buffering: the buffering of `open`.
    """
    file: IO[Any] = open(  # noqa: SIM115 - the caller closes it
        path, mode, buffering, opener=lambda name, flags: os.open(name, flags, PRIVATE_FILE)
    )
    _restrict(file.fileno())
    return file


def make_private(path: Path) -> None:
    """Create a file that only its owner may read, or restrict an existing one to its owner.

    An existing file is not opened: closing a file drops every POSIX lock of the process on it, and SQLite's with them.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
    except FileExistsError:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077 and status.st_uid == os.geteuid():
            path.chmod(PRIVATE_FILE)


def make_private_directory(directory: Path) -> None:
    """Create a directory, and the missing ones above it, that only its owner may enter.

    An existing directory keeps its permissions: its owner chose them.
    """
    if directory.is_dir():
        return
    make_private_directory(directory.parent)
    directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)


def _restrict(handle: int) -> None:
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077 and status.st_uid == os.geteuid():
        os.fchmod(handle, PRIVATE_FILE)


def lock_file(path: Path) -> IO[bytes] | None:
    """Lock a lock file until the returned file is closed or the process ends. Returns None when another process
    holds it.
    """
    file = open_private(path, "ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


# -- output directories -----------------------------------------------------------------------------------------------


def check_output_directory(directory: Path) -> None:
    """Raise `OutputDirectoryError` unless a directory is missing, empty, or made by Holdover."""
    if directory.is_symlink():
        raise OutputDirectoryError(f"{directory}: is a link; name the folder itself, or another one")
    if not directory.exists():
        return
    if not directory.is_dir():
        raise OutputDirectoryError(f"{directory}: is a file; name a folder")
    if (directory / OUTPUT_MARKER).is_file() or not any(directory.iterdir()):
        return
    raise OutputDirectoryError(
        f"{directory}: is not empty, and Holdover did not make it (it has no {OUTPUT_MARKER}), so nothing was changed; "
        f"name an empty or a new folder"
    )


def claim_output_directory(directory: Path) -> None:
    """Make a directory and mark it as Holdover's, so that later runs may replace its content.

    Raises `OutputDirectoryError`, before anything is changed, when it has content that Holdover did not write.
    """
    check_output_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / OUTPUT_MARKER).touch()


def renew_output_directory(directory: Path) -> None:
    """Empty and claim a directory. Raises `OutputDirectoryError` as `claim_output_directory` does."""
    claim_output_directory(directory)
    for path in directory.iterdir():
        if path.name == OUTPUT_MARKER:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
